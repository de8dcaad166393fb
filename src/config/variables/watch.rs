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
