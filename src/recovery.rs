//! The way back without pgkeep, as a line for a shell: the log has it beside every backup, for the day when
//! the log is all that is left.

use crate::catalog::{self, Format};
use crate::config::S3Config;

/// PostgreSQL cuts longer names off (NAMEDATALEN, less the zero byte).
pub const LONGEST_NAME: usize = 63;

/// Fetches the object, makes a new database and restores into it. Keys and host are the caller's: AWS's and
/// libpq's own variables.
pub fn command(s3: &S3Config, database: &str, key: &str, format: Format) -> String {
    let endpoint = s3.url.as_ref().map_or(String::new(), |url| {
        // A URL has no quote, but brackets of IPv6, which a shell would read.
        format!(" --endpoint-url '{}'", url.as_str().trim_end_matches('/'))
    });
    let region = s3.bucket.region();
    // A name of letters and digits needs no quotes anywhere.
    let name = catalog::escape(database).trim_start_matches('-').replace('.', "_");
    let suffix = "_restored";
    let new = format!("{}{suffix}", &name[..name.len().min(LONGEST_NAME - suffix.len())]);
    let restore = match format {
        Format::Plain => format!("psql -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction -d {new}"),
        Format::Custom => format!("pg_restore --exit-on-error --single-transaction -d {new}"),
    };
    format!(
        "createdb --template=template0 {new} && aws{endpoint} --region {region} s3 cp s3://{}/{key} - | gunzip | {restore}",
        s3.bucket.name()
    )
}
