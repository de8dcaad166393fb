//! How to restore a backup without pgkeep, as a line for a shell. The log contains it with every backup, in
//! case the log is all that is left.

use crate::postgres::{Format, LONGEST_NAME};
use crate::s3::Client;
use crate::store::{self, Backup};

/// Fetches the object and runs it, whatever is there already: existing roles only cause errors.
pub fn command_of_globals(client: &Client, backup: &Backup) -> String {
    format!("{} && psql -X -q -o /dev/null -f ./{} -d postgres", fetch(client, backup), unzipped(backup))
}

/// Fetches the object, makes a new database and restores into it. No step runs if the step before it failed;
/// a pipe would hide such a failure. The caller supplies keys, host and user in AWS's and libpq's own
/// variables. If the backup has to be `cleaned`, it loses the setting that its server does not have
/// (`Programs::set_what_lacks`); an archive becomes a script for this.
pub fn command(client: &Client, database: &str, backup: &Backup, cleaned: bool) -> String {
    let unzipped = unzipped(backup);
    // A name of letters and digits never needs quotes.
    let name = store::escape(database).trim_start_matches('-').replace('.', "_");
    let suffix = "_restored";
    let new = format!("{}{suffix}", &name[..name.len().min(LONGEST_NAME - suffix.len())]);
    let psql = "psql -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction -f";
    let (prepare, restore) = match (backup.format, cleaned) {
        (Format::Plain, false) => (String::new(), format!("{psql} ./{unzipped}")),
        (Format::Custom, false) => {
            (String::new(), format!("pg_restore --exit-on-error --single-transaction ./{unzipped}"))
        }
        (Format::Plain, true) => (clean(&format!("./{unzipped}")), format!("{psql} {CLEANED}")),
        (Format::Custom, true) => {
            let script = format!(" && pg_restore -f ./script.sql ./{unzipped}");
            (script + &clean("./script.sql"), format!("{psql} {CLEANED}"))
        }
    };
    let fetch = fetch(client, backup);
    format!("{fetch}{prepare} && createdb --template=template0 {new} && {restore} -d {new}")
}

const CLEANED: &str = "./cleaned.sql";

/// Removes the setting. It is in the first lines, before any data: a row with this text stays.
fn clean(script: &str) -> String {
    format!(" && sed '1,20{{/^SET transaction_timeout = 0;$/d;}}' {script} >{CLEANED}")
}

/// The name of the dump's file.
fn unzipped(backup: &Backup) -> &str {
    let file = backup.file_name();
    file.strip_suffix(".age").unwrap_or(file).trim_end_matches(".gz")
}

/// Everything until the dump is a file.
fn fetch(client: &Client, backup: &Backup) -> String {
    let endpoint = client.endpoint().map_or(String::new(), |url| {
        // A URL contains no quote, but an IPv6 address has brackets, which a shell would interpret.
        format!(" --endpoint-url '{}'", url.as_str().trim_end_matches('/'))
    });
    let (place, region) = (client.place(&backup.key), client.region());
    let file = backup.file_name();
    let (zipped, decrypt) = match file.strip_suffix(".age") {
        // KEY stands for the identity's file, which is not on this host.
        Some(zipped) => (zipped, format!("age -d -i KEY -o ./{zipped} ./{file} && ")),
        None => (file, String::new()),
    };
    format!("aws s3 cp{endpoint} --region {region} {place} ./{file} && {decrypt}gunzip ./{zipped}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::base::shutdown::Shutdown;
    use crate::s3::{Credentials, Keys, S3Config};
    use rusty_s3::{Bucket, UrlStyle};

    #[test]
    fn each_part_of_the_line_is_what_a_shell_takes_as_it_is() {
        let endpoint: url::Url = "http://[::1]:9000/".parse().unwrap();
        let line = |url: Option<url::Url>, database: &str, key: &str, format, cleaned| {
            let bucket = Bucket::new(endpoint.clone(), UrlStyle::Path, "b", "eu-central-1").unwrap();
            let (access_key, secret_key) = ("id".to_owned(), Secret::new("hush"));
            let keys = Keys { access_key, secret_key, session_token: None };
            let credentials = Credentials::Keys(keys);
            let (properties, part_size) = Default::default();
            let config =
                S3Config { url, bucket, credentials, properties, part_size, authorities: None, proxy: None };
            let time = chrono::DateTime::UNIX_EPOCH;
            let encrypted = key.ends_with(".age");
            let backup = Backup { key: key.into(), time, format, encrypted, size: 1 };
            command(&Client::new(&config, Shutdown::default()), database, &backup, cleaned)
        };
        assert_eq!(
            line(
                Some(endpoint.clone()),
                "-é",
                "-.c3.a9/-.c3.a9_2026-11-23_03-00-00.dump.gz",
                Format::Custom,
                false
            ),
            "aws s3 cp --endpoint-url 'http://[::1]:9000' --region eu-central-1 \
             s3://b/-.c3.a9/-.c3.a9_2026-11-23_03-00-00.dump.gz ./-.c3.a9_2026-11-23_03-00-00.dump.gz && \
             gunzip ./-.c3.a9_2026-11-23_03-00-00.dump.gz && createdb --template=template0 _c3_a9_restored && \
             pg_restore --exit-on-error --single-transaction ./-.c3.a9_2026-11-23_03-00-00.dump -d _c3_a9_restored"
        );
        let encrypted = line(None, "a", "a/a.sql.gz.age", Format::Plain, false);
        let steps =
            "./a.sql.gz.age && age -d -i KEY -o ./a.sql.gz ./a.sql.gz.age && gunzip ./a.sql.gz && createdb";
        assert!(encrypted.contains(steps) && encrypted.ends_with("-f ./a.sql -d a_restored"), "{encrypted}");
        let long = line(None, &"n".repeat(70), "n/n.sql.gz", Format::Plain, false);
        assert!(
            long.starts_with("aws s3 cp --region eu-central-1 s3://b/n/n.sql.gz ./n.sql.gz && "),
            "{long}"
        );
        assert!(long.ends_with(&format!(" -f ./n.sql -d {}_restored", "n".repeat(54))), "{long}");
        // The server lacks what the dump sets.
        let sed = "sed '1,20{/^SET transaction_timeout = 0;$/d;}'";
        let psql = "createdb --template=template0 n_restored && psql -X -q -o /dev/null -v ON_ERROR_STOP=1 \
                    --single-transaction -f ./cleaned.sql -d n_restored";
        let plain = line(None, "n", "n/n.sql.gz", Format::Plain, true);
        let end = format!(" && gunzip ./n.sql.gz && {sed} ./n.sql >./cleaned.sql && {psql}");
        assert!(plain.ends_with(&end), "{plain}");
        let custom = line(None, "n", "n/n.dump.gz", Format::Custom, true);
        let script = "pg_restore -f ./script.sql ./n.dump";
        let end =
            format!(" && gunzip ./n.dump.gz && {script} && {sed} ./script.sql >./cleaned.sql && {psql}");
        assert!(custom.ends_with(&end), "{custom}");
    }
}
