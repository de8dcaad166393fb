//! The variables that say who is told: their rows of the table, and how their texts are read.

use ureq::http::header::{HeaderName, HeaderValue, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};

use super::values;
use super::variables::{Absent, Variable};
use crate::base::secret::MASK;
use crate::notify::{Address, Format, Headers, Kind};

type Result<T> = std::result::Result<T, String>;

pub(super) const HEARTBEAT_URL: Variable = Variable {
    name: "BACKUP_HEARTBEAT_URL",
    absent: Absent::Off("nobody"),
    example: "https://hc-ping.com/5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278",
    doc: "a dead-man switch that is told when a backup starts, succeeds or fails: healthchecks.io and the like, or an \
          Uptime Kuma push URL. A secret",
    aliases: &["BACKUP_HEALTHCHECK_URL", "BACKUP_PING_URL", "BACKUP_HEALTHCHECKS_URL"],
    set: |to, text| Address::parse(text).map(|it| to.notify.heartbeat = Some(it)),
    show: |of| masked(of.notify.heartbeat.as_ref()),
};

pub(super) const DRILL_HEARTBEAT_URL: Variable = Variable {
    name: "BACKUP_DRILL_HEARTBEAT_URL",
    absent: Absent::Off("nobody"),
    example: "https://uptime.example.com/api/push/A1b2C3d4E5",
    doc: "the same for drills",
    aliases: &[],
    set: |to, text| Address::parse(text).map(|it| to.notify.drill_heartbeat = Some(it)),
    show: |of| masked(of.notify.drill_heartbeat.as_ref()),
};

pub(super) const WEBHOOK_URL: Variable = Variable {
    name: "BACKUP_WEBHOOK_URL",
    absent: Absent::Off("nobody"),
    example: "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    doc: "where each event goes as a POST of JSON: a chat, ntfy, Gotify, or a program of yours. A secret",
    aliases: &["BACKUP_NOTIFY_URL", "BACKUP_NOTIFICATION_URL", "BACKUP_SLACK_URL", "BACKUP_DISCORD_URL"],
    set: |to, text| Address::parse(text).map(|it| to.notify.webhook = Some(it)),
    show: |of| masked(of.notify.webhook.as_ref()),
};

pub(super) const WEBHOOK_EVENTS: Variable = Variable {
    name: "BACKUP_WEBHOOK_EVENTS",
    absent: Absent::Value("backup_failed,recovered,drill_failed,prune_held_back"),
    example: "all",
    doc: "the events that the webhook is told of: all, or some of backup_started, backup_succeeded, backup_failed, \
          recovered (a success after a failure), drill_succeeded, drill_failed, prune_held_back, with commas between",
    aliases: &["BACKUP_NOTIFY_EVENTS"],
    set: |to, text| events(text).map(|it| to.notify.events = it),
    show: |of| of.notify.events.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(","),
};

pub(super) const WEBHOOK_FORMAT: Variable = Variable {
    name: "BACKUP_WEBHOOK_FORMAT",
    absent: Absent::Off("by the URL's host, else json"),
    example: "ntfy",
    doc: "the form of the webhook's body: json (all fields), text (a sentence, as Google Chat wants it), ntfy, gotify or \
          teams",
    aliases: &["BACKUP_WEBHOOK_TYPE"],
    set: |to, text| {
        let known = Format::ALL.map(|known| (known.name(), known));
        to.notify.format = Some(values::one_of(text, &known, "json, text, ntfy, gotify or teams")?);
        Ok(())
    },
    show: |of| of.notify.format.map_or("", Format::name).to_owned(),
};

pub(super) const WEBHOOK_HEADERS: Variable = Variable {
    name: "BACKUP_WEBHOOK_HEADERS",
    absent: Absent::Off("none"),
    example: "'Authorization: Bearer tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2'",
    doc: "more headers for the webhook, one a line. A secret",
    aliases: &["BACKUP_WEBHOOK_HEADER", "BACKUP_WEBHOOK_TOKEN"],
    set: |to, text| headers(text).map(|it| to.notify.headers = it),
    show: |of| {
        of.notify.headers.iter().map(|(name, _)| format!("{name}: {MASK}")).collect::<Vec<_>>().join(", ")
    },
};

/// What the log may show of an address.
fn masked(address: Option<&Address>) -> String {
    address.map_or(String::new(), Address::masked)
}

/// Kinds of events, with commas or spaces between.
fn events(text: &str) -> Result<Vec<Kind>> {
    let known = Kind::CHOICES.map(|kind| (kind.name(), kind));
    let words = text.split([',', ' ', '\n']).map(str::trim).filter(|word| !word.is_empty());
    let names = known.map(|(name, _)| name).join(", ");
    let mut chosen = Vec::new();
    for word in words {
        if word.eq_ignore_ascii_case("all") {
            return Ok(Kind::CHOICES.to_vec());
        }
        chosen.push(values::one_of(word, &known, &format!("all, or some of {names}"))?);
    }
    if chosen.is_empty() {
        return Err("names no event".into());
    }
    Ok(chosen)
}

/// Headers, one a line. An error quotes nothing of them.
fn headers(text: &str) -> Result<Headers> {
    let mut headers = Headers::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("has no colon in line {number}: a header is NAME: VALUE"))?;
        let name: HeaderName = name
            .trim()
            .parse()
            .map_err(|_| format!("has a name in line {number} that no header can have"))?;
        if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&name) {
            return Err(format!("sets {name}, which pgkeep sets itself"));
        }
        let mut value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("has a value in line {number} that no header can have"))?;
        value.set_sensitive(true);
        headers.push((name, value));
    }
    Ok(headers)
}
