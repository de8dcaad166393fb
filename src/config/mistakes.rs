//! Values that are right, but probably a mistake.

use url::Url;

use super::Settings;

impl Settings {
    /// A sentence about each value that is hardly meant.
    pub(super) fn probable_mistakes(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, interval) in
            [("BACKUP_INTERVAL", &self.interval), ("BACKUP_DRILL_INTERVAL", &self.drill_interval)]
        {
            let warning = interval.as_ref().and_then(|interval| interval.schedule.warning());
            warnings.extend(warning.map(|warning| format!("{name}: {warning}")));
        }
        warnings.extend(self.archive_warning());
        if self.dump_options.narrow() {
            let warning = "BACKUP_PG_DUMP_ARGS leaves something out: the backups have only a part of the database, and \
                           restore only if it needs nothing of the rest: pgkeep verify --drill tries it";
            warnings.push(warning.to_owned());
        }
        warnings.extend(self.url.as_ref().and_then(|url| bucket_twice(url, &self.bucket)));
        warnings
    }
}

/// Asks about a URL that already contains the bucket, as consoles show it. A host may also begin with the same
/// word as the bucket, so only hosts of stores that are known to have the bucket in front count.
fn bucket_twice(url: &Url, bucket: &str) -> Option<String> {
    let host = url.host_str()?;
    let in_host = host.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| {
        let stores = [
            "digitaloceanspaces.com",
            "r2.cloudflarestorage.com",
            "storage.googleapis.com",
            "your-objectstorage.com",
        ];
        ["s3.", "s3-"].iter().any(|start| rest.starts_with(start))
            || stores.iter().any(|store| rest.ends_with(store))
    });
    let in_path = url.path().trim_end_matches('/').rsplit('/').next() == Some(bucket);
    let part = if in_host { "host" } else { "path" };
    (in_host || in_path).then(|| {
        format!(
            "S3_URL already contains the bucket in its {part}, and S3_BUCKET={bucket} adds it once more: leave it out of \
             S3_URL"
        )
    })
}
