//! The keys that sign requests: configured ones, or those that the platform gives to the role of this process.
//!
//! The platform's keys are valid for some hours, and a backup may take longer. So each try of a request asks
//! for the current keys, and they are renewed some minutes ahead. If that fails while the old ones are still
//! valid, it is tried again a minute later. Only one thread renews them; the others sign with the old ones
//! meanwhile, if there are any.

mod ask;
mod container;
mod instance;
mod role;
mod web_identity;

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use chrono::{DateTime, TimeDelta, Utc};
use log::{debug, warn};

use self::ask::{Asker, Problem};
pub use self::role::{Authorization, Role};
use super::{Fault, Proxy, S3Config};
use crate::base::secret::{Redactor, Secret};

/// Keys are renewed this long before they expire. AWS gives new ones at least five minutes before.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
/// If a renewal fails while the old keys are valid, and if the platform gives keys that have expired.
const AGAIN: TimeDelta = TimeDelta::minutes(1);

/// Where the keys come from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// They are configured.
    Keys(Keys),
    /// The platform gives them to the role of this process.
    Role(Role),
}

/// What a request is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The access key's id.
    pub access_key: String,
    /// The key that signs.
    pub secret_key: Secret,
    /// It belongs to keys that expire.
    pub session_token: Option<Secret>,
}

/// Keys of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Temporary {
    keys: Keys,
    expires: DateTime<Utc>,
}

/// Holds the current keys.
pub(super) struct Keyring {
    credentials: Credentials,
    /// Secrets of the way to S3, which errors may repeat.
    others: Vec<Secret>,
    asker: Asker,
    held: Mutex<Held>,
    /// Locked by the thread that renews the keys.
    renewing: Mutex<()>,
}

#[derive(Default)]
struct Held {
    current: Option<Temporary>,
    /// S3 may still repeat them in an answer.
    former: Option<Keys>,
    renew_at: DateTime<Utc>,
}

impl Credentials {
    /// What must not appear in a text, as far as the configuration says it.
    pub fn configured_secrets(&self) -> Vec<Secret> {
        match self {
            Credentials::Keys(keys) => keys.session_token.iter().chain([&keys.secret_key]).cloned().collect(),
            Credentials::Role(Role::Container { authorization: Authorization::Token(token), .. }) => {
                vec![token.clone()]
            }
            Credentials::Role(_) => Vec::new(),
        }
    }
}

impl Keys {
    fn signer(&self) -> rusty_s3::Credentials {
        let (key, secret) = (&self.access_key, self.secret_key.expose());
        match &self.session_token {
            Some(token) => rusty_s3::Credentials::new_with_token(key, secret, token.expose()),
            None => rusty_s3::Credentials::new(key, secret),
        }
    }

    /// All three are masked in texts from outside.
    fn secrets(&self) -> impl Iterator<Item = Secret> {
        let others = [Secret::new(&self.access_key), self.secret_key.clone()];
        self.session_token.clone().into_iter().chain(others)
    }
}

impl Temporary {
    /// A moment between now and the end.
    fn renew_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let left = self.expires - now;
        if left <= TimeDelta::zero() {
            now + AGAIN
        } else {
            self.expires - AHEAD.min(left / 2)
        }
    }
}

impl Keyring {
    pub fn new(config: &S3Config) -> Self {
        let of_role = match &config.credentials {
            Credentials::Keys(_) => None,
            Credentials::Role(role) => role.proxy(),
        };
        Keyring {
            credentials: config.credentials.clone(),
            others: config.proxy.iter().chain(of_role).flat_map(Proxy::secrets).collect(),
            asker: Asker::new(config),
            held: Mutex::default(),
            renewing: Mutex::default(),
        }
    }

    /// The keys to sign with now.
    pub fn current(&self) -> Result<rusty_s3::Credentials, Fault> {
        match &self.credentials {
            Credentials::Keys(keys) => Ok(keys.signer()),
            Credentials::Role(role) => self.of_role(role).map_err(|Problem { reason, transient }| {
                Fault::NoCredentials { reason: format!("no credentials from {role}: {reason}"), transient }
            }),
        }
    }

    /// Masks the keys in S3's answers.
    pub fn redactor(&self) -> Redactor {
        match &self.credentials {
            Credentials::Keys(keys) => Redactor::new(keys.secrets().chain(self.others.iter().cloned())),
            Credentials::Role(_) => {
                let held = self.held();
                let current = held.current.as_ref().map(|current| &current.keys);
                let keys = current.into_iter().chain(&held.former).flat_map(Keys::secrets);
                Redactor::new(keys.chain(self.others.iter().cloned()))
            }
        }
    }

    /// S3 says that the keys have expired, whatever this host's clock says. Returns whether new ones may help.
    pub fn have_expired(&self) -> bool {
        self.held().renew_at = DateTime::UNIX_EPOCH;
        matches!(self.credentials, Credentials::Role(_))
    }

    fn of_role(&self, role: &Role) -> Result<rusty_s3::Credentials, Problem> {
        let now = Utc::now();
        if let Some(fresh) = self.held().signer(|held| now < held.renew_at) {
            return Ok(fresh);
        }
        let valid = || self.held().signer(|held| held.current.as_ref().is_some_and(|it| now < it.expires));
        let _one_at_a_time = match self.renewing.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => match valid() {
                Some(valid) => return Ok(valid),
                None => self.renewing.lock().unwrap_or_else(PoisonError::into_inner),
            },
        };
        // Another thread may have renewed them while this one waited.
        if let Some(fresh) = self.held().signer(|held| Utc::now() < held.renew_at) {
            return Ok(fresh);
        }
        match role.ask(&self.asker) {
            Ok(new) => Ok(self.take(new, role)),
            Err(problem) => {
                let valid = valid().ok_or(problem.clone())?;
                warn!("the credentials from {role} cannot be renewed yet: {}", problem.reason);
                self.held().renew_at = Utc::now() + AGAIN;
                Ok(valid)
            }
        }
    }

    fn take(&self, new: Temporary, role: &Role) -> rusty_s3::Credentials {
        let now = Utc::now();
        let expires = new.expires.format("%Y-%m-%d %H:%M:%S UTC");
        if new.expires <= now {
            // S3 decides: this host's clock may be wrong.
            warn!("the credentials from {role} expired at {expires}, or this host's clock is wrong");
        } else {
            debug!("new credentials from {role}, valid until {expires}");
        }
        let signer = new.keys.signer();
        let mut held = self.held();
        held.renew_at = new.renew_at(now);
        held.former = held.current.replace(new).map(|former| former.keys);
        signer
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The current keys, if they fit.
    fn signer(&self, fit: impl Fn(&Held) -> bool) -> Option<rusty_s3::Credentials> {
        self.current.as_ref().filter(|_| fit(self)).map(|current| current.keys.signer())
    }
}

#[cfg(test)]
mod tests;
