//! The rows about how pgkeep is watched.

use super::super::values;
use super::{Absent, Variable};
use crate::base::logging::Format;

pub(in super::super) const LOG_FORMAT: Variable = Variable {
    name: "BACKUP_LOG_FORMAT",
    absent: Absent::Value("text"),
    example: "json",
    doc: "text, or json: one object a line, with the fields of what happened",
    aliases: &["BACKUP_LOG_JSON", "BACKUP_LOG_STYLE"],
    set: |to, text| {
        to.log_format =
            values::one_of(text, &Format::ALL.map(|known| (known.name(), known)), "text or json")?;
        Ok(())
    },
    show: |of| of.log_format.name().to_owned(),
};

pub(super) const METRICS_LISTEN: Variable = Variable {
    name: "BACKUP_METRICS_LISTEN",
    absent: Absent::Off("nothing listens"),
    example: "0.0.0.0:9788",
    doc: "the address and port where the daemon serves /metrics (Prometheus) and /healthz, to everybody who can reach it",
    aliases: &["BACKUP_METRICS_PORT", "BACKUP_METRICS_ADDRESS", "BACKUP_METRICS"],
    set: |to, text| {
        let problem = || format!("is \"{text}\" and not an IP address and a port");
        to.metrics_listen = Some(text.parse().map_err(|_| problem())?);
        Ok(())
    },
    show: |of| of.metrics_listen.map_or(String::new(), |address| address.to_string()),
};

pub(super) const METRICS_FILE: Variable = Variable {
    name: "BACKUP_METRICS_FILE",
    absent: Absent::Off("none"),
    example: "/var/lib/node_exporter/pgkeep.prom",
    doc: "the file that pgkeep backup writes its metrics to, for node_exporter's textfile collector; it ends in .prom",
    aliases: &["BACKUP_METRICS_PATH", "BACKUP_TEXTFILE"],
    set: |to, text| values::metrics_file(text).map(|it| to.metrics_file = Some(it)),
    show: |of| of.metrics_file.as_ref().map_or(String::new(), |path| path.display().to_string()),
};
