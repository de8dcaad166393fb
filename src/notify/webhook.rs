//! Webhooks: one POST for each event, in the receiver's own form.

use serde_json::{json, Value};

use super::news::{Kind, News};
use super::send::{Body, Request};
use super::Address;

/// The form of a webhook's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// All fields. Slack, Mattermost, Rocket.Chat and Discord show their `text` or `content`.
    Json,
    /// `text` alone, for receivers that refuse what they do not know.
    Text,
    /// <https://docs.ntfy.sh/publish/#publish-as-json>
    Ntfy,
    /// <https://gotify.net/docs/pushmsg>
    Gotify,
    /// An adaptive card, for a workflow of Microsoft Teams.
    Teams,
}

impl Format {
    /// All forms.
    pub const ALL: [Format; 5] = [Format::Json, Format::Text, Format::Ntfy, Format::Gotify, Format::Teams];

    /// The variable's value.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Text => "text",
            Format::Ntfy => "ntfy",
            Format::Gotify => "gotify",
            Format::Teams => "teams",
        }
    }

    /// The form that the receiver at this address understands, by its host.
    pub(super) fn of(address: &Address) -> Self {
        let host = address.host();
        let below = |domain: &str| host.ends_with(domain);
        match host.split('.').next().unwrap_or_default() {
            "ntfy" => Format::Ntfy,
            "gotify" => Format::Gotify,
            // Google Chat answers 400 to any field that it does not know.
            _ if host == "chat.googleapis.com" => Format::Text,
            _ if [".webhook.office.com", ".logic.azure.com", ".api.powerplatform.com"]
                .into_iter()
                .any(below) =>
            {
                Format::Teams
            }
            _ => Format::Json,
        }
    }
}

/// The topic of ntfy that a URL names, and the server's own URL.
fn topic(address: &Address) -> Option<(String, url::Url)> {
    let mut url = address.url();
    let topic = url.path_segments()?.rfind(|segment| !segment.is_empty())?.to_owned();
    // The form with JSON goes to the server, not to the topic.
    url.path_segments_mut().ok()?.pop_if_empty().pop();
    Some((topic, url))
}

/// Whether the address can be used with the form.
///
/// # Errors
/// What is missing.
pub(super) fn check(address: &Address, format: Format) -> Result<(), &'static str> {
    match format {
        Format::Ntfy if topic(address).is_none() => Err("names no topic"),
        _ => Ok(()),
    }
}

/// The request that tells of `news`.
pub(super) fn request(address: &Address, format: Format, news: &News, host: &str) -> Request {
    let url = address.url();
    let (url, body) = match format {
        Format::Json => (url, news.json(host)),
        Format::Text => (url, json!({ "text": news.text() })),
        Format::Ntfy => {
            let (topic, server) = topic(address).unwrap_or_else(|| (String::new(), url));
            let tag = if news.kind.is_bad() { "warning" } else { "floppy_disk" };
            let body = json!({
                "topic": topic,
                "title": news.title(),
                "message": news.text(),
                "priority": priority(news.kind, [3, 4, 5]),
                "tags": [tag],
            });
            (server, body)
        }
        Format::Gotify => {
            let priority = priority(news.kind, [4, 6, 8]);
            (url, json!({ "title": news.title(), "message": news.text(), "priority": priority }))
        }
        Format::Teams => (url, card(news)),
    };
    Request::new(url, news.kind, Body::Json(body.to_string()))
}

/// The one of the three priorities (usual, high, highest) that fits.
fn priority(kind: Kind, of: [u8; 3]) -> u8 {
    match kind {
        Kind::BackupFailed | Kind::DrillFailed => of[2],
        Kind::PruneHeldBack => of[1],
        _ => of[0],
    }
}

/// <https://learn.microsoft.com/en-us/connectors/teams/#microsoft-teams-webhook>
fn card(news: &News) -> Value {
    let color = if news.kind.is_bad() { "attention" } else { "good" };
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.2",
                "body": [
                    { "type": "TextBlock", "text": news.title(), "weight": "bolder", "color": color, "wrap": true },
                    { "type": "TextBlock", "text": news.text(), "wrap": true },
                ],
            },
        }],
    })
}
