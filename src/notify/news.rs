//! What is told of an event: its fields, and one sentence for people.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{json, Value};

use crate::base::logging::chain;
use crate::base::units::{self, both_times};
use crate::jobs::{Event, Job};

/// Chat programs take at least 4,000 characters, and so does ntfy.
const LONGEST_TEXT: usize = 3_800;
/// Discord takes 2,000 characters
/// (<https://discord.com/developers/docs/resources/webhook#execute-webhook>).
const LONGEST_CONTENT: usize = 1_900;
/// In Slack, Discord, Mattermost and Rocket.Chat these call people.
const CALLS: [&str; 6] = ["<!", "<@", "@everyone", "@channel", "@here", "@all"];

/// The kinds of events that somebody can hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A backup begins.
    BackupStarted,
    /// A backup is in the bucket, and whole.
    BackupSucceeded,
    /// A backup failed.
    BackupFailed,
    /// A backup succeeded, and the one before it had failed.
    Recovered,
    /// A drill begins. Only the drill's heartbeat hears of it.
    DrillStarted,
    /// The newest backup was restored.
    DrillSucceeded,
    /// The newest backup cannot be restored.
    DrillFailed,
    /// Nothing was deleted, because something is wrong.
    PruneHeldBack,
    /// Nothing has happened: somebody tries whether the news arrive.
    Test,
}

impl Kind {
    /// Those that a webhook can be told of.
    pub const CHOICES: [Kind; 7] = [
        Kind::BackupStarted,
        Kind::BackupSucceeded,
        Kind::BackupFailed,
        Kind::Recovered,
        Kind::DrillSucceeded,
        Kind::DrillFailed,
        Kind::PruneHeldBack,
    ];

    /// Its name in JSON and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Kind::BackupStarted => "backup_started",
            Kind::BackupSucceeded => "backup_succeeded",
            Kind::BackupFailed => "backup_failed",
            Kind::Recovered => "recovered",
            Kind::DrillStarted => "drill_started",
            Kind::DrillSucceeded => "drill_succeeded",
            Kind::DrillFailed => "drill_failed",
            Kind::PruneHeldBack => "prune_held_back",
            Kind::Test => "test",
        }
    }

    /// Whether somebody should look soon.
    pub(super) fn is_bad(self) -> bool {
        matches!(self, Kind::BackupFailed | Kind::DrillFailed | Kind::PruneHeldBack)
    }
}

/// What is told of an event. No field has a secret.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub kind: Kind,
    pub database: String,
    /// Host and port of its PostgreSQL server.
    pub server: Option<String>,
    /// The backup's key.
    pub key: Option<String>,
    /// The backup's size.
    pub bytes: Option<u64>,
    /// The dump's size.
    pub dumped_bytes: Option<u64>,
    pub took: Option<Duration>,
    pub error: Option<String>,
    /// When the same is done next, if somebody knows.
    pub next: Option<DateTime<Utc>>,
    pub time: DateTime<Utc>,
    /// One sentence.
    pub text: String,
}

impl News {
    /// What is told of an event. `None` if nobody can ask to hear of it. Without a job, only the error is known.
    pub fn of(job: Option<&Job>, event: &Event) -> Option<Self> {
        let clean = |text: String| job.map_or(text.clone(), |job| job.redactor.clean(&text));
        let name = job.map_or("?", |job| &job.database);
        let mut news = News::blank(job, Kind::BackupStarted);
        match event {
            Event::BackupStarted { server, .. } => {
                let size = units::bytes(server.database_size);
                news.text = format!("backup of database \"{name}\" started ({size} on the server)");
            }
            Event::BackupSucceeded { backup, place, dumped, took, pruning, .. } => {
                news.kind = Kind::BackupSucceeded;
                news.key = Some(backup.key.clone());
                (news.bytes, news.dumped_bytes, news.took) = (Some(backup.size), Some(*dumped), Some(*took));
                news.text = format!(
                    "backup of database \"{name}\" succeeded: {} dumped, {} compressed, in {}, at {place}; {pruning}",
                    units::bytes(*dumped),
                    units::bytes(backup.size),
                    units::duration(*took)
                );
            }
            Event::BackupFailed { failure, .. } => {
                news.kind = Kind::BackupFailed;
                news.text =
                    news.failed(&format!("backup of database \"{name}\" failed"), clean(chain(failure)));
            }
            Event::RunFailed { failure, .. } => {
                news.kind = Kind::BackupFailed;
                news.text = news.failed("no database was backed up", clean(chain(failure)));
            }
            Event::PruneHeldBack { doubt } => {
                news.kind = Kind::PruneHeldBack;
                let what = format!("pruning of database \"{name}\" is held back, nothing was deleted");
                news.text = news.failed(&what, clean(doubt.to_string()));
            }
            Event::DrillStarted { backup, place, .. } => {
                news.kind = Kind::DrillStarted;
                (news.key, news.bytes) = (Some(backup.key.clone()), Some(backup.size));
                news.text = format!("drill of database \"{name}\" started: {place}");
            }
            Event::DrillSucceeded { place, backup, took, counted } => {
                news.kind = Kind::DrillSucceeded;
                (news.key, news.bytes, news.took) =
                    (Some(backup.key.clone()), Some(backup.size), Some(*took));
                let took = units::duration(*took);
                news.text = format!(
                    "drill of database \"{name}\" succeeded: {place} restores to {counted}; a recovery takes {took}"
                );
            }
            Event::DrillFailed { failure } => {
                news.kind = Kind::DrillFailed;
                news.text =
                    news.failed(&format!("drill of database \"{name}\" failed"), clean(chain(failure)));
            }
            // Each database tells for itself.
            Event::RunStarted { .. }
            | Event::RunEnded { .. }
            | Event::Deleted { .. }
            | Event::PruneFailed { .. }
            | Event::DrillStopped => return None,
        }
        Some(news)
    }

    /// The news of a try.
    pub fn test(job: &Job) -> Self {
        let text = format!("test of pgkeep for database \"{}\": nothing has happened", job.database);
        News { text, ..News::blank(Some(job), Kind::Test) }
    }

    fn blank(job: Option<&Job>, kind: Kind) -> Self {
        let get = |keyword| job.and_then(|job| Some(job.redactor.clean(job.connection.get(keyword)?)));
        let server = get("host").or_else(|| get("hostaddr"));
        let server = server.map(|host| get("port").map_or(host.clone(), |port| format!("{host}:{port}")));
        News {
            kind,
            database: job.map_or("?", |job| &job.database).to_owned(),
            server,
            key: None,
            bytes: None,
            dumped_bytes: None,
            took: None,
            error: None,
            next: None,
            time: Utc::now(),
            text: String::new(),
        }
    }

    fn failed(&mut self, what: &str, error: String) -> String {
        let text = format!("{what}: {error}");
        self.error = Some(error);
        text
    }

    /// The same news, and when the same is done next.
    pub fn with_next(mut self, next: Option<DateTime<Utc>>) -> Self {
        self.next = next;
        let what = match self.kind {
            Kind::BackupFailed => "backup",
            Kind::DrillFailed => "drill",
            _ => return self,
        };
        self.text +=
            &next.map_or(String::new(), |next| format!("; the next {what} is at {}", both_times(next)));
        self
    }

    /// The news that backups work again, of a success.
    pub fn recovered(&self) -> Self {
        let text = format!("backups of database \"{}\" work again: {}", self.database, self.text);
        News { kind: Kind::Recovered, text, ..self.clone() }
    }

    /// The sentence for a chat, where nothing in it calls people.
    pub fn sentence(&self, most: usize) -> String {
        let calm = |text: String, call: &str| {
            let (first, rest) = call.split_at(1);
            // A space without width.
            text.replace(call, &format!("{first}\u{200b}{rest}"))
        };
        units::shortened(CALLS.into_iter().fold(self.text.clone(), calm), most)
    }

    /// The sentence, as long as every chat takes it.
    pub fn text(&self) -> String {
        self.sentence(LONGEST_TEXT)
    }

    /// A few words above the sentence.
    pub fn title(&self) -> String {
        let what = match self.kind {
            Kind::BackupStarted => "backup started",
            Kind::BackupSucceeded => "backup succeeded",
            Kind::BackupFailed => "backup FAILED",
            Kind::Recovered => "backups work again",
            Kind::DrillStarted => "drill started",
            Kind::DrillSucceeded => "drill succeeded",
            Kind::DrillFailed => "drill FAILED",
            Kind::PruneHeldBack => "pruning held back",
            Kind::Test => "test",
        };
        units::shortened(format!("{what}: {}", self.database), 200)
    }

    /// All fields, as `docs/events.schema.json` describes them.
    pub fn json(&self, host: &str) -> Value {
        let show = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        json!({
            "event": self.kind.name(),
            "database": self.database,
            "server": self.server,
            "key": self.key,
            "bytes": self.bytes,
            "dumped_bytes": self.dumped_bytes,
            "seconds": self.took.map(|took| took.as_millis() as f64 / 1000.0),
            "error": self.error,
            "next": self.next.map(show),
            "host": host,
            "version": env!("CARGO_PKG_VERSION"),
            "time": show(self.time),
            "text": self.text(),
            "content": self.sentence(LONGEST_CONTENT),
        })
    }
}
