//! What one run backs up: one database, or several of a server and its globals. The server is asked for its
//! databases at each run, so that a new one is backed up the same night.

mod names;
pub mod restore;
mod summary;
mod turns;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{anyhow, ensure, Context, Result};
use chrono::Utc;
use log::{info, warn};

use self::names::Choice;
pub use self::names::{List, Names};
pub use self::summary::Summary;
use self::turns::Turns;
use super::{backup, drill, prune, survive, Event, Job, Step};
use crate::base::units;
use crate::postgres::Clients;
use crate::s3::{Client, PendingUpload};
use crate::store::{self, Backup, GLOBALS};

/// At most this many databases are named in a line.
const NAMED: usize = 20;

/// What a run backs up.
pub struct Source {
    /// The job for the database of the connection. If there are several, those of the others are made from it.
    pub job: Job,
    /// Set if there are several databases.
    pub several: Option<Several>,
}

/// Which databases of a server, and how.
#[derive(Clone, Debug)]
pub struct Several {
    /// Which ones.
    pub names: Names,
    /// Whether the server's globals are backed up too.
    pub globals: bool,
    /// How many databases are backed up at a time.
    pub at_a_time: NonZeroUsize,
}

/// What the backups of one run have in common.
#[derive(Clone, Debug)]
pub struct Run {
    /// When the run began, and a random number.
    pub id: String,
    /// The PostgreSQL clients that are installed here.
    pub clients: Clients,
    /// The identifier of the server's cluster, if the server says it.
    pub cluster: Option<String>,
}

/// What the bucket has of one database.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The newest backup.
    pub newest: Option<Backup>,
    /// How many backups there are.
    pub number: u64,
    /// Their size in bytes.
    pub size: u64,
}

/// What the bucket has of each database. If there is only one database, its name is empty.
pub type FoundOf = BTreeMap<String, Found>;

impl Source {
    /// Makes one backup of each database, and prunes. Returns whether all succeeded; if not, an [`Event`] says
    /// why.
    pub fn run(&self) -> bool {
        let Some(several) = &self.several else { return backup::run(&self.job).is_some() };
        let started = Instant::now();
        match survive(|| self.begin(several)) {
            Ok((run, choice)) => {
                let summary = self.run_each(several, Arc::new(run), choice, started);
                let success = summary.is_success();
                self.job.tell(&Event::RunEnded { summary });
                success
            }
            Err(failure) => {
                self.job.tell(&Event::RunFailed { step: Step::Connect, failure });
                false
            }
        }
    }

    /// Asks the server what there is.
    fn begin(&self, several: &Several) -> Result<(Run, Choice)> {
        let clients = self.job.clients()?;
        let postgres = self.job.postgres(&clients);
        let choice = several.names.choose(&postgres.database_names()?);
        for pattern in &choice.idle {
            warn!("BACKUP_DATABASES: {pattern} matches no database of the server");
        }
        ensure!(
            !(choice.databases.is_empty() && choice.absent.is_empty()),
            "BACKUP_DATABASES means none of the server's databases"
        );
        let id = format!("{}_{:08x}", units::timestamp(Utc::now()), fastrand::u32(..));
        Ok((Run { id, clients, cluster: postgres.cluster_id() }, choice))
    }

    fn run_each(&self, several: &Several, run: Arc<Run>, choice: Choice, started: Instant) -> Summary {
        let Choice { databases, absent, .. } = choice;
        self.job.tell(&Event::RunStarted { databases: [&databases[..], &absent].concat() });
        self.job.store.sweep_all(Utc::now());
        let template = Job { run: Some(run), ..self.job.clone() };
        for name in &absent {
            let failure = anyhow!(
                "BACKUP_DATABASES names it, and the server does not have it (or it is a template, or allows no connection)"
            );
            template.of(name).tell(&Event::BackupFailed { step: Step::Connect, failure });
        }
        let globals = several.globals.then(|| template.of_globals());
        let jobs: Vec<Job> =
            globals.into_iter().chain(databases.iter().map(|name| template.of(name))).collect();
        // One more than dump at a time: it asks what its dump needs, or ends its upload and prunes.
        let (turns, workers) = (Turns::new(several.at_a_time.get()), several.at_a_time.saturating_add(1));
        let made = each(jobs, workers, |number, job| {
            // What a signal leaves, the next run makes. What runs already is finished.
            let stopped = || job.shutdown.requested();
            let prepared = (!stopped()).then(|| backup::prepare(job));
            let turn = turns.take(number);
            let prepared = prepared.filter(|_| !stopped())?;
            Some(backup::carry_out(job, prepared, turn))
        });
        self.look_after_the_gone(several, &template, &databases);
        let mut summary = Summary { took: started.elapsed(), ..Summary::default() };
        absent.into_iter().for_each(|name| summary.count_failed(name));
        for (job, made) in made {
            match made {
                _ if job.globals => summary.globals = Some(matches!(made, Some(Some(_)))),
                Some(Some(backup)) => summary.count(&backup),
                Some(None) => summary.count_failed(job.database),
                None => summary.count_skipped(),
            }
        }
        summary
    }

    /// Names the databases that are gone from the server, and applies the retention to their backups: the
    /// newest of each stays. Only if the newest is certainly of this server: the connection may lead to
    /// another one.
    fn look_after_the_gone(&self, several: &Several, template: &Job, there: &[String]) {
        let found = match self.job.store.list_all() {
            Ok(found) => found,
            Err(error) => {
                return warn!("whether there are backups of databases that are gone is not known: {error}")
            }
        };
        let gone: Vec<String> =
            found.into_keys().filter(|name| several.names.mean(name) && !there.contains(name)).collect();
        if gone.is_empty() {
            return;
        }
        let named: Vec<String> = gone.iter().take(NAMED).cloned().collect();
        info!(
            "not on the server any more, and their newest backups are kept: {}",
            units::first_few(&named, gone.len())
        );
        for job in gone.iter().map(|name| template.of(name)) {
            if let Err(failure) = prune_gone(&job) {
                job.tell(&Event::PruneFailed { failure });
            }
        }
    }

    /// Uploads of backups that are neither completed nor aborted.
    pub fn pending_uploads(&self) -> Vec<PendingUpload> {
        let store = &self.job.store;
        match self.several {
            Some(_) => store.pending_uploads_of_all(),
            None => store.pending_uploads(),
        }
    }

    /// Whether a database of this name, or the globals, are backed up.
    pub fn means(&self, name: &str) -> bool {
        match &self.several {
            Some(several) if name == GLOBALS => several.globals,
            Some(several) => several.names.mean(name),
            None => name == self.job.database,
        }
    }

    /// The job for what a listing calls `name`.
    pub fn job_named(&self, name: &str) -> Job {
        if name == GLOBALS {
            self.job.of_globals()
        } else {
            self.job.of(name)
        }
    }

    /// The jobs for what is in the bucket: every database that is meant, and the globals.
    pub fn jobs_of_bucket(&self) -> Result<Vec<Job>> {
        let Some(several) = &self.several else { return Ok(vec![self.job.clone()]) };
        let found = self.job.store.list_all().context("cannot list the backups")?;
        let databases = found.keys().filter(|name| self.means(name)).map(|name| self.job.of(name));
        Ok(databases.chain(several.globals.then(|| self.job.of_globals())).collect())
    }

    /// What the user means by `which`, if it may be a database's name alone: its newest backup.
    pub fn which(&self, which: &str) -> String {
        match self.several.is_none() || which.contains('/') || which.ends_with(".gz") {
            true => which.to_owned(),
            false => format!("{which}/latest"),
        }
    }

    /// Tries to restore the newest backup of each database. Returns whether all of them were possible.
    pub fn drill(&self) -> Result<bool> {
        let mut all = true;
        for job in self.jobs_of_bucket()?.into_iter().filter(|job| !job.globals) {
            all &= !job.shutdown.requested() && drill::run(&job, "latest");
        }
        Ok(all)
    }

    /// What the bucket has of each database, through `client`.
    ///
    /// # Errors
    /// The bucket cannot be read.
    pub fn find(&self, client: Client) -> Result<FoundOf> {
        let store = self.job.store.with_client(client);
        let looking = "cannot look into the bucket";
        let Some(several) = &self.several else {
            return Ok([(String::new(), Found::of(&store.list().context(looking)?))].into());
        };
        let found = store.list_all().context(looking)?;
        let mut all: FoundOf = found
            .iter()
            .filter(|(name, _)| several.names.mean(name))
            .map(|(name, of)| (name.clone(), Found::of(of)))
            .collect();
        // Backups of what is gone say nothing about today.
        match self.job.clients().and_then(|clients| self.job.postgres(&clients).database_names()) {
            Ok(there) => {
                let Choice { databases, absent, .. } = several.names.choose(&there);
                let expected: Vec<String> = [databases, absent].concat();
                all.retain(|name, _| expected.contains(name));
                for name in expected {
                    all.entry(name).or_default();
                }
            }
            Err(failure) => warn!("which databases the server has is not known yet: {failure:#}"),
        }
        if several.globals {
            all.insert(GLOBALS.to_owned(), Found::of(&store.of_globals().list().context(looking)?));
        }
        Ok(all)
    }
}

/// Runs `work` for each job and its number, `at_a_time` of them, in their order.
pub fn each<T: Send>(
    jobs: Vec<Job>,
    at_a_time: NonZeroUsize,
    work: impl Fn(usize, &Job) -> T + Sync,
) -> Vec<(Job, T)> {
    let count = jobs.len();
    let waiting = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    // The lists are whole after every statement, so a panic elsewhere does not damage them.
    let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || {
        while let Some((number, job)) = take() {
            let made = work(number, &job);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, job, made));
        }
    };
    thread::scope(|scope| {
        for _ in 1..at_a_time.get().min(count) {
            // Without a further thread, one does all.
            let _ = thread::Builder::new().name("backup".into()).spawn_scoped(scope, worker);
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, ..)| *number);
    done.into_iter().map(|(_, job, made)| (job, made)).collect()
}

/// The newest backup of a job, if there is one.
pub fn newest(job: &Job) -> Result<Option<Backup>> {
    Ok(newest_of(&job.store.list().context("cannot list the backups")?))
}

impl Found {
    fn of(backups: &[Backup]) -> Self {
        let size = backups.iter().map(|backup| backup.size).sum();
        Found { newest: newest_of(backups), number: backups.len() as u64, size }
    }
}

fn newest_of(backups: &[Backup]) -> Option<Backup> {
    let (past, future) = store::split_future(backups, Utc::now());
    if let Some(warning) = store::warning(future) {
        warn!("{warning}");
    }
    past.last().cloned()
}

fn prune_gone(job: &Job) -> Result<()> {
    let plan = prune::plan(job)?;
    let Some(newest) = plan.decisions.last().filter(|_| plan.deletes()) else { return Ok(()) };
    let head =
        job.store.client.head_object(&newest.backup.key).context("cannot look at the newest backup")?;
    let of = head.as_ref().and_then(|head| head.metadata(store::CLUSTER_ID));
    if of.is_some() && of == job.run.as_ref().and_then(|run| run.cluster.as_deref()) {
        prune::carry_out(plan, job);
    }
    Ok(())
}
