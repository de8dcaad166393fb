//! Who hears of an [`Event`]: heartbeats (dead-man switches) and a webhook.
//!
//! Each receiver has a queue and a thread, so that a slow, dead or lying one delays and fails nothing: not a
//! backup, not another receiver. At the end of pgkeep there is a little time for what is still to be told.

mod address;
mod heartbeat;
mod news;
mod queue;
mod send;
#[cfg(test)]
mod tests;
mod webhook;

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Local, Utc};
use log::{debug, warn};
use url::Url;

pub use self::address::Address;
use self::heartbeat::Runs;
pub use self::news::Kind;
use self::news::News;
use self::queue::{Next, Queue};
pub use self::send::Headers;
use self::send::{Request, Sender};
pub use self::webhook::Format;
use crate::base::shutdown::Shutdown;
use crate::base::units;
use crate::jobs::{Event, Job, Listener};
use crate::s3::Proxy;
use crate::schedule::Schedule;

/// At the end of pgkeep, what is still to be told has this much time.
const LAST_NEWS: Duration = Duration::from_secs(15);
/// After a forced stop, it has this much.
const FORCED_LAST_NEWS: Duration = Duration::from_secs(1);
/// How often the wait for the last news looks for a forced stop.
const LOOK: Duration = Duration::from_millis(100);

/// Who is told of what.
#[derive(Clone, Default)]
pub struct Settings {
    /// The dead-man switch for backups.
    pub heartbeat: Option<Address>,
    /// The dead-man switch for drills.
    pub drill_heartbeat: Option<Address>,
    /// The webhook.
    pub webhook: Option<Address>,
    /// The form of its body, if the address does not say it.
    pub format: Option<Format>,
    /// The events that it is told of.
    pub events: Vec<Kind>,
    /// Headers for it.
    pub headers: Headers,
}

/// When things are done next, as far as somebody knows.
#[derive(Clone, Default)]
pub struct Times {
    /// The schedule of backups.
    pub backups: Option<Schedule>,
    /// The schedule of drills.
    pub drills: Option<Schedule>,
}

/// A place that is told.
pub struct Receiver {
    address: Address,
    role: Role,
    sender: Sender,
    queue: Queue<Request>,
}

enum Role {
    Heartbeat(Runs),
    Webhook { format: Format, events: Vec<Kind>, host: String },
}

impl Settings {
    /// The form of the webhook's body.
    pub fn format(&self) -> Option<Format> {
        self.format.or_else(|| self.webhook.as_ref().map(Format::of))
    }

    /// Checks the webhook's address against its form.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn check(&self) -> Result<(), &'static str> {
        self.webhook.as_ref().zip(self.format()).map_or(Ok(()), |(to, format)| webhook::check(to, format))
    }

    /// Asks for the proxy on the way to each receiver.
    pub fn choose_proxies(&mut self, mut choose: impl FnMut(&Url) -> Option<Proxy>) {
        let all = [&mut self.heartbeat, &mut self.drill_heartbeat, &mut self.webhook];
        for address in all.into_iter().flatten() {
            address.proxy = choose(&address.url());
        }
    }

    /// Everybody who is told something.
    pub fn receivers(&self) -> Vec<Receiver> {
        let heartbeat = |what, runs, address: &Option<Address>| {
            let address = address.clone()?;
            let sender = Sender::new(what, &address, Headers::new(), heartbeat::says_no);
            Some(Receiver { address, role: Role::Heartbeat(runs), sender, queue: Queue::default() })
        };
        let webhook = || {
            let (address, format) = (self.webhook.clone()?, self.format()?);
            let sender = Sender::new("webhook", &address, self.headers.clone(), |_| false);
            let role = Role::Webhook { format, events: self.events.clone(), host: host() };
            Some(Receiver { address, role, sender, queue: Queue::default() })
        };
        [
            heartbeat("heartbeat", Runs::Backups, &self.heartbeat),
            heartbeat("drill heartbeat", Runs::Drills, &self.drill_heartbeat),
            webhook(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Receiver {
    /// Such as `the webhook at https://hooks.slack.com`.
    pub fn name(&self) -> &str {
        &self.sender.name
    }

    /// Tells that nothing has happened, once, and returns what came back.
    ///
    /// # Errors
    /// Why it was not told.
    pub fn test(&self, job: &Job) -> Result<String, String> {
        let news = News::test(job);
        let Some(request) = self.request(&news, false) else { return Ok(String::new()) };
        self.sender.try_once(&request).map_err(|fault| fault.to_string())
    }

    fn request(&self, news: &News, others_failed: bool) -> Option<Request> {
        match &self.role {
            Role::Heartbeat(runs) => heartbeat::request(&self.address, *runs, news, others_failed),
            Role::Webhook { format, events, host } => (news.kind == Kind::Test
                || events.contains(&news.kind))
            .then(|| webhook::request(&self.address, *format, news, host)),
        }
    }

    /// Tells all that comes.
    fn tell(&self) -> ! {
        loop {
            match self.queue.take() {
                Next::Lost(lost) => {
                    warn!("{} is too slow: {} lost", self.name(), units::count(lost, "notification"));
                }
                Next::Item(request) => match self.sender.send(&request) {
                    Ok(answer) => debug!("{} was told of {}: {answer}", self.name(), request.kind.name()),
                    Err(fault) => warn!("nobody was told of {}: {fault}", request.kind.name()),
                },
            }
        }
    }
}

/// Tells all receivers. Dropping it waits for what is still to be told.
pub struct Notifier {
    teller: Arc<Teller>,
    shutdown: Shutdown,
}

struct Teller {
    receivers: Vec<Receiver>,
    times: Times,
    failed: Mutex<Failed>,
}

/// The places of the databases whose last backup or drill has failed. The place is empty for a run that failed
/// before it had a job.
#[derive(Default)]
struct Failed {
    backups: BTreeSet<String>,
    drills: BTreeSet<String>,
}

impl Notifier {
    /// Starts a thread for each receiver. A forced `shutdown` shortens the last wait.
    pub fn start(receivers: Vec<Receiver>, times: Times, shutdown: &Shutdown) -> Self {
        let teller = Arc::new(Teller { receivers, times, failed: Mutex::default() });
        for number in 0..teller.receivers.len() {
            let telling = Arc::clone(&teller);
            let name = teller.receivers[number].name();
            let thread = thread::Builder::new().name("notify".into());
            if let Err(problem) = thread.spawn(move || telling.receivers[number].tell()) {
                warn!("{name} will not be told: {problem}");
            }
        }
        Notifier { teller, shutdown: shutdown.clone() }
    }

    /// Hears the events of jobs, if anybody wants to be told.
    pub fn listener(&self) -> Option<Listener> {
        let teller = Arc::clone(&self.teller);
        (!teller.receivers.is_empty())
            .then(|| Arc::new(move |job: Option<&Job>, event: &Event| teller.hear(job, event)) as Listener)
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let started = Instant::now();
        for receiver in &self.teller.receivers {
            loop {
                let most = if self.shutdown.forced().is_some() { FORCED_LAST_NEWS } else { LAST_NEWS };
                let left = most.saturating_sub(started.elapsed());
                let untold = receiver.queue.wait(left.min(LOOK));
                if untold == 0 {
                    break;
                }
                if left.is_zero() {
                    let untold = units::count(untold, "notification");
                    warn!("{} does not answer in time: {untold} not told", receiver.name());
                    break;
                }
            }
        }
    }
}

impl Teller {
    fn hear(&self, job: Option<&Job>, event: &Event) {
        let Some(news) = News::of(job, event) else { return };
        let news = {
            let next = self.times.after(news.time, news.kind);
            news.with_next(next)
        };
        let place = job.map_or(String::new(), |job| job.store.location());
        let (recovered, others_failed) =
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).hear(news.kind, place);
        let recovered = recovered.then(|| news.recovered());
        for receiver in &self.receivers {
            for news in recovered.iter().chain([&news]) {
                if let Some(request) = receiver.request(news, others_failed) {
                    receiver.queue.push(request);
                }
            }
        }
    }
}

impl Times {
    /// When the same is done next.
    fn after(&self, now: DateTime<Utc>, kind: Kind) -> Option<DateTime<Utc>> {
        let schedule = match kind {
            Kind::DrillStarted | Kind::DrillSucceeded | Kind::DrillFailed => &self.drills,
            _ => &self.backups,
        };
        schedule.as_ref()?.next(now, &Local).map(|next| next.to_utc())
    }
}

impl Failed {
    /// Returns whether this success follows a failure of the same backups, and whether the last backup (or
    /// drill) of another database has failed.
    fn hear(&mut self, kind: Kind, place: String) -> (bool, bool) {
        let of = match kind {
            Kind::DrillStarted | Kind::DrillSucceeded | Kind::DrillFailed => &mut self.drills,
            _ => &mut self.backups,
        };
        let recovered = match kind {
            Kind::BackupFailed | Kind::DrillFailed => {
                of.insert(place);
                false
            }
            Kind::BackupSucceeded | Kind::DrillSucceeded => of.remove("") | of.remove(&place),
            _ => false,
        };
        // A drill tells for itself that it succeeds again.
        (recovered && kind == Kind::BackupSucceeded, !of.is_empty())
    }
}

/// The name of this machine or container.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
