//! `pgkeep backup`: one backup, now.

use super::{no_options, Command, Outcome, Row};
use crate::jobs::server::Source;

pub(super) const ROW: Row = Row {
    name: "backup",
    options: "",
    summary: "back up once, now, and prune",
    details: "
For a script or a Kubernetes CronJob. BACKUP_INTERVAL is not needed.
",
    parse: |parser| no_options(parser, Command::Backup),
};

pub(super) fn command(source: &Source) -> Outcome {
    Outcome::of(source.run())
}
