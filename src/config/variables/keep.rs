//! The rows about retention by count.

use super::super::values;
use super::{Absent, Variable};
use crate::store::Rule;

pub(super) const LAST: Variable = Variable {
    name: "BACKUP_KEEP_LAST",
    absent: Absent::Off("no such rule"),
    example: "5",
    doc: "keep also this many of the newest backups; see Retention",
    aliases: &["BACKUP_RETENTION_COUNT", "BACKUP_KEEP"],
    set: |to, text| values::backups(text).map(|it| to.keep(Rule::Last, it)),
    show: |of| of.kept(Rule::Last),
};

pub(super) const HOURLY: Variable = Variable {
    name: "BACKUP_KEEP_HOURLY",
    absent: Absent::Off("no such rule"),
    example: "24",
    doc: "keep also the newest backup of each of this many last hours",
    aliases: &["BACKUP_KEEP_HOURS"],
    set: |to, text| values::backups(text).map(|it| to.keep(Rule::Hourly, it)),
    show: |of| of.kept(Rule::Hourly),
};

pub(super) const DAILY: Variable = Variable {
    name: "BACKUP_KEEP_DAILY",
    absent: Absent::Off("no such rule"),
    example: "7",
    doc: "keep also the newest backup of each of this many last days",
    aliases: &[],
    set: |to, text| values::backups(text).map(|it| to.keep(Rule::Daily, it)),
    show: |of| of.kept(Rule::Daily),
};

pub(super) const WEEKLY: Variable = Variable {
    name: "BACKUP_KEEP_WEEKLY",
    absent: Absent::Off("no such rule"),
    example: "4",
    doc: "keep also the newest backup of each of this many last weeks (from Monday)",
    aliases: &["BACKUP_KEEP_WEEKS"],
    set: |to, text| values::backups(text).map(|it| to.keep(Rule::Weekly, it)),
    show: |of| of.kept(Rule::Weekly),
};

pub(super) const MONTHLY: Variable = Variable {
    name: "BACKUP_KEEP_MONTHLY",
    absent: Absent::Off("no such rule"),
    example: "12",
    doc: "keep also the newest backup of each of this many last months",
    aliases: &["BACKUP_KEEP_MONTHS"],
    set: |to, text| values::backups(text).map(|it| to.keep(Rule::Monthly, it)),
    show: |of| of.kept(Rule::Monthly),
};

pub(super) const YEARLY: Variable = Variable {
    name: "BACKUP_KEEP_YEARLY",
    absent: Absent::Off("no such rule"),
    example: "3",
    doc: "keep also the newest backup of each of this many last years",
    aliases: &["BACKUP_KEEP_YEARS"],
    set: |to, text| values::backups(text).map(|it| to.keep(Rule::Yearly, it)),
    show: |of| of.kept(Rule::Yearly),
};
