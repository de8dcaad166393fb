//! What belongs to encryption and depends on more than one variable, or on the program age.

use super::reader::Reader;
use super::{Config, Settings};
use crate::base::shutdown::Shutdown;

impl Settings {
    /// Checks that the drills can read what they have to restore.
    pub(super) fn check_keys(&self, from: &mut Reader) {
        let drills = self.drill_interval.is_some() && self.recipients.is_some();
        if drills && !from.is_set("BACKUP_AGE_IDENTITY_FILE") {
            let what = "is missing: the drills of BACKUP_DRILL_INTERVAL cannot read what BACKUP_AGE_RECIPIENTS encrypts";
            let remedy = "name the file with the secret key, for example \
                          BACKUP_AGE_IDENTITY_FILE=/run/secrets/pgkeep-key.txt";
            from.problem("BACKUP_AGE_IDENTITY_FILE", what, remedy);
        }
    }
}

impl Config {
    /// Lets age encrypt a few bytes for the recipients, if there are any: only age knows what their keys are worth.
    ///
    /// # Errors
    /// A sentence: what age says, and what would be right.
    pub fn try_recipients(&self, shutdown: &Shutdown) -> Result<(), String> {
        let Some(recipients) = &self.settings.recipients else { return Ok(()) };
        recipients.try_out(shutdown).map_err(|failure| {
            format!("BACKUP_AGE_RECIPIENTS cannot be used: {failure:#}; age-keygen -y FILE prints the public key of a secret one")
        })
    }
}
