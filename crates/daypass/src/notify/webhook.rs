//! Webhooks: Slack, Teams, and a signed form of our own. The address of a hook is a secret: whoever has it can write there.

use super::{Failed, Message, outbound};
use crate::config::{self, HookKind};
use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use daypass_core::secret::Secret;
use serde_json::{Value, json};

pub struct Hook {
    name: String,
    kind: HookKind,
    url: Secret,
    key: Option<hmac::Key>,
    events: Vec<daypass_core::notice::Kind>,
    environments: Vec<String>,
    http: reqwest::Client,
}

impl Hook {
    pub fn new(config: &config::Webhook) -> Result<Hook> {
        let what = format!("'{}'", config.name);
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned()).with_context(|| format!("{} cannot be read", path.display()))
        };
        let url = read(&config.url_file).with_context(|| what.clone())?;
        let key = config.secret_file.as_deref().map(read).transpose().with_context(|| what.clone())?;
        anyhow::ensure!(
            config.kind != HookKind::Generic || key.as_ref().is_some_and(|key| key.len() >= 16),
            "{what}: a generic webhook has a secret_file with 16 characters or more"
        );
        let parsed: reqwest::Url = url.parse().ok().with_context(|| format!("{what}: what stands in {} is not an address", config.url_file.display()))?;
        let http = outbound::client(&parsed, config.allow_private, crate::node::client_tls(rustls::DEFAULT_VERSIONS, None)).with_context(|| what)?;
        Ok(Hook {
            name: config.name.clone(),
            kind: config.kind,
            url: Secret::new(url),
            key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())),
            events: config.events.clone(),
            environments: config.environments.clone(),
            http,
        })
    }

    pub fn describe(&self) -> String {
        let kind = match self.kind {
            HookKind::Slack => "Slack",
            HookKind::Teams => "Teams",
            HookKind::Generic => "webhook",
        };
        format!("{kind} '{}'", self.name)
    }

    pub fn wants(&self, message: &Message) -> bool {
        let event = self.events.is_empty() || self.events.contains(&message.kind);
        let here = self.environments.is_empty() || message.environment.as_ref().is_none_or(|name| self.environments.contains(name));
        event && here
    }

    pub async fn send(&self, message: &Message) -> Result<(), Failed> {
        let body = body(self.kind, message).to_string();
        let mut request = self.http.post(self.url.expose()).header("content-type", "application/json");
        if let Some(key) = &self.key {
            // the moment of this try: a receiver may refuse old ones
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            request = request.header("x-daypass-signature", signature(key, now, &body));
        }
        // the address must not stand in what is logged
        let failed = |why: String, again| Failed { why: format!("{}: {why}", self.describe()), again };
        let answer = request.body(body).send().await.map_err(|e| failed(e.without_url().to_string(), true))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status if status.is_server_error() || status.as_u16() == 429 => Err(failed(format!("it answered {status}"), true)),
            status => Err(failed(format!("it answered {status}"), false)),
        }
    }
}

/// `t=<seconds since 1970>,v1=<HMAC-SHA256 over "<t>.<body>", hexadecimal>`.
fn signature(key: &hmac::Key, now: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{now}.{body}").as_bytes());
    format!("t={now},v1={}", daypass_core::secret::hex(tag.as_ref()))
}

/// What each kind takes. A reason that somebody typed is text there as well, and no markup.
fn body(kind: HookKind, message: &Message) -> Value {
    let people = if message.people.is_empty() { String::new() } else { format!("For: {}", message.people.join(", ")) };
    match kind {
        HookKind::Generic => serde_json::to_value(message).unwrap_or_default(),
        HookKind::Slack => {
            let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let section = |text: &str| json!({ "type": "section", "text": { "type": "plain_text", "text": text.chars().take(2_900).collect::<String>() } });
            let button = json!({ "type": "actions", "elements": [{ "type": "button", "text": { "type": "plain_text", "text": "Open in Daypass" }, "url": message.link }] });
            let mut blocks = vec![section(&message.subject), section(&message.text)];
            blocks.extend((!people.is_empty()).then(|| section(&people)));
            blocks.push(button);
            json!({ "text": plain(&message.subject), "blocks": blocks })
        }
        HookKind::Teams => {
            // a text run shows markup as it stands
            let run = |text: &str, weight: &str| json!({ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": text, "weight": weight }] });
            let content = json!({
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
                "body": [run(&message.subject, "Bolder"), run(&message.text, "Default"), run(&people, "Default")],
                "actions": [{ "type": "Action.OpenUrl", "title": "Open in Daypass", "url": message.link }],
            });
            json!({ "type": "message", "attachments": [{ "contentType": "application/vnd.microsoft.card.adaptive", "content": content }] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_typed_is_no_markup_in_a_chat() {
        let message = Message {
            kind: daypass_core::notice::Kind::RequestWaits,
            at: "2026-11-25T10:00:00Z".into(),
            environment: Some("uat".into()),
            people: vec!["amy".into()],
            subject: "maria asks <!channel> & more".into(),
            text: "*bold* <https://evil.example.com|click>".into(),
            link: "https://daypass.example.com/requests/1".into(),
            addresses: vec!["amy@example.com".into()],
        };
        let slack = body(HookKind::Slack, &message);
        assert_eq!(slack["text"], "maria asks &lt;!channel&gt; &amp; more");
        assert!(slack["blocks"].as_array().unwrap().iter().all(|block| block["type"] != "section" || block["text"]["type"] == "plain_text"), "{slack}");
        let teams = body(HookKind::Teams, &message).to_string();
        assert!(teams.contains("TextRun") && !teams.contains("TextBlock\",\"text"), "{teams}");
        let generic = body(HookKind::Generic, &message);
        assert!(generic["addresses"].is_null() && generic["kind"] == "request_waits", "addresses of people go nowhere else: {generic}");
    }

    #[test]
    fn a_signature_is_over_time_and_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let one = signature(&key, 1, "{}");
        assert!(one.starts_with("t=1,v1=") && one.len() == 7 + 64);
        assert_ne!(one[4..], signature(&key, 2, "{}")[4..]);
        assert_ne!(one, signature(&key, 1, "{ }"));
    }
}
