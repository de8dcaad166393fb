//! The status file. It is next to the spool, it is written whole or not at all, and only its owner can read
//! it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context};
use chrono::{DateTime, Utc};
use log::warn;
use md5::{Digest, Md5};
use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::status::Status;
use crate::store;

/// The daemon gives a sign of life at least this often.
pub const BEAT: Duration = Duration::from_secs(60);

/// At most this many bytes of the file are read: enough for a thousand databases with long names and reasons.
const LONGEST: u64 = 8 * 1024 * 1024;
/// The length of the hash in the file's name.
const HASH_BYTES: usize = 4;

impl Status {
    /// The path of the status file for a database's daemon. `place` distinguishes databases with the same
    /// name. It says where their backups are: endpoint, bucket and path.
    pub fn path(directory: &Path, database: &str, place: [&str; 3]) -> PathBuf {
        let hash = Md5::digest(place.join("\n"));
        let hash: String = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
        directory.join(format!("pgkeep-{}-{hash}.status.json", store::escape(database)))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// There is no file, or a daemon of another user wrote it, or it makes no sense.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = match read_own(path) {
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
                bail!("there is no status file {shown}: the daemon is not running")
            }
            read => read.with_context(|| format!("the status file {shown} cannot be read"))?,
        };
        let value = serde_json::from_slice(&text).ok();
        value
            .and_then(|value| Self::parse(&value))
            .with_context(|| format!("the status file {shown} makes no sense"))
    }

    /// Writes a second file and renames it, so that no reader sees half of it. The rename replaces whatever
    /// has this name, and never writes into it.
    fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        // The file is made anew. So in a directory that everybody can write to, this never writes into
        // somebody else's file or link.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        // A umask can remove rights, even the owner's.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(format!("{:#}\n", self.json()).as_bytes())?;
        fs::rename(&new, path)
    }
}

/// Reads a regular file of this user. In a directory that everybody can write to, others may use this name
/// for anything: a link to a file that only this user may read, a FIFO that blocks, or an endless file.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let (found, own) = (file.metadata()?, geteuid().as_raw());
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if found.uid() != own {
        return Err(io::Error::other(format!("it is user {}'s, and pgkeep runs as user {own}", found.uid())));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The daemon's own status and its file. Clones share them.
#[derive(Clone)]
pub struct StatusFile {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Outlives the file for those who only look.
    status: Arc<Mutex<Status>>,
}

impl StatusFile {
    /// Begins with `status`.
    ///
    /// # Errors
    /// The file cannot be written. Then no spool could be made either.
    pub fn create(path: PathBuf, status: Status) -> anyhow::Result<Self> {
        status.write(&path).with_context(|| {
            format!("cannot write {}: does BACKUP_TEMP_DIR name a directory for pgkeep?", path.display())
        })?;
        Ok(StatusFile { shared: Arc::new(Shared { path, status: Arc::new(Mutex::new(status)) }) })
    }

    /// See [`Status::newest_at_start`].
    pub fn newest_at_start(&self, is_recent: impl Fn(DateTime<Utc>) -> bool) -> Option<DateTime<Utc>> {
        self.lock().newest_at_start(is_recent)
    }

    /// Looks at the status, also from a thread that does not end. Looking does not keep the file.
    pub fn look(&self) -> impl Fn() -> Status + Send + 'static {
        let status = Arc::clone(&self.shared.status);
        move || status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the status, gives a sign of life, and writes the file. If it cannot be written, that is only
    /// logged: `pgkeep health` then misses the signs of life.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.lock();
        change(&mut status);
        status.alive = Utc::now();
        if let Err(problem) = status.write(&self.shared.path) {
            warn!("cannot write the status file {}: {problem}", self.shared.path.display());
        }
    }

    /// Gives signs of life until the returned sender is dropped: for the time in which a backup keeps the
    /// loop busy.
    pub fn beat(&self) -> anyhow::Result<mpsc::Sender<()>> {
        let (busy, done) = mpsc::channel::<()>();
        let keeper = self.clone();
        thread::Builder::new().name("status".into()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(BEAT) {
                keeper.update(|_| {});
            }
        })?;
        Ok(busy)
    }

    /// The status is whole after every statement, so a panic elsewhere does not damage it.
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    /// At an orderly end, the daemon removes its file.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::logging::chain;
    use crate::daemon::record::Record;
    use crate::daemon::status::{Drill, Failure, Newest};
    use chrono::SubsecRound;
    use rustix::fs::{mknodat, FileType, Mode, CWD};
    use std::os::unix::fs::{chown, symlink};

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_000_000 + second, 0).unwrap()
    }

    fn record() -> Record {
        Record {
            attempt: Some((at(9), true)),
            took: Some(Duration::from_millis(4200)),
            dumped: Some(10),
            size: Some(11),
            succeeded: 12,
            failed: [("dump".to_owned(), 13)].into(),
            kept: Some((14, 15)),
            drilled: Some((at(16), Duration::from_millis(1700))),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        let full = Status {
            started: at(0),
            alive: at(1),
            newest: Some(Newest { time: at(2), key: "a/a_2026".into() }),
            failure: Some(Failure { time: at(3), reason: "psql failed:\n\"no\"".into() }),
            running_since: Some(at(4)),
            broken_off: Some(at(5)),
            next_fire: Some(at(6)),
            drill: Some(Drill { time: at(7), result: Ok("2 tables".into()) }),
            databases: None,
            record: record(),
        };
        let failed = Drill { time: at(8), result: Err("no".into()) };
        let drilled = Status { drill: Some(failed), ..full.clone() };
        let one = r#"{"a": {"last_success": {"time": "2026-11-23T03:00:00Z", "key": "a/a_2026"}, "last_failure": null},
                      "é": {"last_failure": {"time": "2026-11-23T03:00:00Z", "reason": "no"}}}"#;
        let mut one: serde_json::Value = serde_json::from_str(one).unwrap();
        one["a"]["record"] = record().json();
        let databases = Some(crate::daemon::databases_of(&one));
        let several = Status { databases, newest: None, drill: None, ..full.clone() };
        for status in [full, drilled, several, Status::default()] {
            status.write(&path).unwrap();
            assert_eq!(Status::read(&path).unwrap(), status);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "the second file is gone");
        fs::write(&path, "{").unwrap();
        assert!(Status::read(&path).is_err());
    }

    #[test]
    fn a_status_with_the_longest_reasons_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        let failure = anyhow::anyhow!("\u{1}".repeat(100_000));
        let drill = Some(Drill { time: Utc::now().trunc_subsecs(0), result: Err(chain(&failure)) });
        let failure = Failure { time: Utc::now().trunc_subsecs(0), ..Failure::now(&failure) };
        let status = Status { failure: Some(failure), drill, ..Status::default() };
        status.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap(), status);
    }

    #[test]
    fn only_a_small_regular_file_of_this_user_is_read_and_anything_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let good = path("good");
        Status::default().write(&good).unwrap();
        let text = fs::read_to_string(&good).unwrap();
        symlink(&good, path("link")).unwrap();
        symlink("/dev/tty", path("device")).unwrap();
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        // This would be valid if all of it were read.
        fs::write(path("huge"), " ".repeat(LONGEST as usize) + &text).unwrap();
        fs::write(path("others"), &text).unwrap();
        let odd = ["link", "device", "fifo", "huge", "others", "nowhere"];
        for name in odd {
            // Only root can give a file to somebody else.
            if name == "others" && chown(path(name), Some(65_532), None).is_err() {
                eprintln!("SKIPPED: another user's status file; the tests do not run as root");
                continue;
            }
            let problem = format!("{:#}", Status::read(&path(name)).unwrap_err());
            assert!(problem.contains(&format!("status file {}", path(name).display())), "{problem}");
            assert_eq!(problem.ends_with(": the daemon is not running"), name == "nowhere", "{problem}");
            assert_eq!(problem.ends_with(": it is no regular file"), name == "fifo", "{problem}");
        }
        for name in odd {
            Status::default().write(&path(name)).unwrap();
            assert_eq!(Status::read(&path(name)).unwrap(), Status::default(), "{name}");
        }
        assert_eq!(fs::read_to_string(&good).unwrap(), text, "the link's target is as it was");
    }

    #[test]
    fn daemons_of_one_database_name_have_files_of_their_own() {
        let of = |database: &str, place| Status::path(Path::new("/spool"), database, place);
        let names = [
            of("shop", ["http://a", "b", ""]),
            of("shop", ["http://a", "b", "c"]),
            of("shop", ["http://a", "c", "b"]),
            of("shop", ["http://b", "b", ""]),
            of("shop2", ["http://a", "b", ""]),
        ];
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len(), "{names:?}");
        let long = of(&"é".repeat(31), ["http://a", "b", ""]);
        assert!(long.with_extension("new").file_name().unwrap().len() <= 255);
        assert_eq!(of("shop", ["http://a", "b", ""]), names[0]);
    }

    #[test]
    fn an_orderly_end_takes_the_file_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        let keeper = StatusFile::create(path.clone(), Status::default()).unwrap();
        keeper.update(|status| status.next_fire = Some(Utc::now()));
        assert!(Status::read(&path).unwrap().alive > DateTime::UNIX_EPOCH);
        drop(keeper);
        assert!(!path.exists());
    }
}
