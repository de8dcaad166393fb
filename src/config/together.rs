//! What depends on several variables: the connection with its database, and the bucket.

use rusty_s3::{Bucket, UrlStyle};
use url::Url;

use super::proxy;
use super::reader::Reader;
use super::settings::Settings;
use crate::jobs::server::List;
use crate::postgres::{refuse_hidden_password, Conninfo};
use crate::s3::{Credentials, S3Config};

/// A server is asked for its databases from this one, which initdb makes, if the connection names no other.
const TO_ASK_FROM: &str = "postgres";

impl Settings {
    /// Checks what depends on several variables: the connection with its database, and the bucket.
    pub(super) fn together(&self, from: &mut Reader) -> Option<(Conninfo, Option<String>, S3Config)> {
        if self.drill_interval.is_some() && !from.is_set("BACKUP_DRILL_CONNECTION_STRING") {
            let remedy = "name the server to restore to; the source server too has to be named";
            from.problem(
                "BACKUP_DRILL_INTERVAL",
                "is set, and BACKUP_DRILL_CONNECTION_STRING is not",
                remedy,
            );
        }
        self.check_encryption(from);
        if let Err(what) = self.notify.check() {
            from.problem(
                "BACKUP_WEBHOOK_URL",
                what,
                "for example BACKUP_WEBHOOK_URL=https://ntfy.sh/my-topic",
            );
        }
        let excluded = self.exclude_databases != List::default();
        for (name, is_set) in
            [("BACKUP_EXCLUDE_DATABASES", excluded), ("BACKUP_GLOBALS", self.globals.is_some())]
        {
            if is_set && !from.is_set("BACKUP_DATABASES") {
                let remedy = "for example BACKUP_DATABASES='*'";
                from.problem(name, "is set, and BACKUP_DATABASES is not", remedy);
            }
        }
        self.check_keys(from);
        let credentials = self.credentials(from);
        let (connection, s3) = (self.named_connection(from), self.s3(from, credentials));
        let (connection, database) = connection?;
        Some((connection, database, s3?))
    }

    /// The connection and the name of its database. Like libpq, this uses PGDATABASE if the connection names
    /// no database, and then the user's name; or, of several databases, `postgres`. If there is a service, or no
    /// user, only libpq knows the name.
    fn named_connection(&self, from: &mut Reader) -> Option<(Conninfo, Option<String>)> {
        let connection = self.connection.clone()?;
        let given = |keyword: &str| connection.get(keyword).map(str::to_owned);
        let mut database = given("dbname");
        if given("service").or_else(|| from.inherited("PGSERVICE")).is_none() {
            database = database.or_else(|| from.inherited("PGDATABASE"));
            database = database.or_else(|| self.databases.as_ref().map(|_| TO_ASK_FROM.to_owned()));
            database = database.or_else(|| given("user")).or_else(|| from.inherited("PGUSER"));
        }
        // If the name came from the connection string, it was checked there.
        if let Some(Err(problem)) = database.as_deref().map(|name| refuse_hidden_password("dbname", name)) {
            from.problem("PGDATABASE", "cannot be used", &problem);
            return None;
        }
        Some((connection, database))
    }

    fn s3(&self, from: &mut Reader, credentials: Option<Credentials>) -> Option<S3Config> {
        if self.bucket.is_empty() || self.region.is_empty() {
            // Already reported.
            return None;
        }
        let region = &self.region;
        let aws = || Url::parse(&format!("https://s3.{region}.amazonaws.com"));
        let Ok(url) = self.url.clone().map_or_else(aws, Ok) else {
            from.problem("S3_REGION", "is not the name of a region", "for example S3_REGION=eu-central-1");
            return None;
        };
        let style = self.style.unwrap_or_else(|| default_style(&url, &self.bucket));
        match Bucket::new(url, style, self.bucket.clone(), region.clone()) {
            Ok(bucket) => Some(S3Config {
                url: self.url.clone(),
                proxy: proxy::of(from, bucket.base_url()),
                bucket,
                credentials: credentials?,
                properties: self.properties.clone(),
                part_size: self.part_size,
                authorities: self.authorities.clone(),
            }),
            Err(problem) => {
                let what = format!("and S3_BUCKET give no address: {problem}");
                from.problem("S3_URL", &what, "a host that is a number needs S3_ADDRESSING_STYLE=path");
                None
            }
        }
    }
}

/// AWS wants the bucket in the host name. The exception is a bucket with dots in its name, because AWS's
/// certificate would not cover it. All other stores get the bucket in the path.
fn default_style(url: &Url, bucket: &str) -> UrlStyle {
    let host = url.host_str().unwrap_or_default();
    let aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    if aws && !bucket.contains('.') {
        UrlStyle::VirtualHost
    } else {
        UrlStyle::Path
    }
}
