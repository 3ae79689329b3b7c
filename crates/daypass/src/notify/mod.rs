//! Notices: follows the log, and tells people by mail and chats by webhook. How far it has told lies in a file, so that a restart
//! tells no event twice, and those of the last day that it missed. What cannot be told is tried again for an hour, and lost by a restart
//! meanwhile; what ends soon or does not get done is told once more after one. Access never waits for any of it.

mod mail;
mod outbound;
mod webhook;

use crate::{config::Config, node::Node};
use anyhow::{Context, Result};
use daypass_core::{
    chain,
    ids::PassId,
    notice::{self, Kind, Notice},
    time::{Time, Ttl},
};
use daypass_gateway::World;
use serde::Serialize;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Semaphore;

/// How often the clock is asked what ends soon and what does not get done.
const LOOK: Duration = Duration::from_secs(20);
/// Older events are not told any more.
const STALE: Ttl = Ttl::hours(24);
/// Something that does not get done for so long is told.
const STUCK: Ttl = Ttl::minutes(5);
/// Pauses between tries: about an hour in all.
const PAUSES: [u64; 8] = [1, 5, 15, 60, 300, 600, 1200, 1500];
/// Messages on their way at once.
const AT_ONCE: usize = 8;
/// Messages that wait to be sent, or to be tried again; what is more is dropped, and said.
const MOST: usize = 1_000;

/// Where notices go.
pub struct Notifier {
    mail: Option<mail::Mail>,
    hooks: Vec<webhook::Hook>,
    /// Where browsers reach the console.
    url: String,
    /// How far the log has been told.
    told: PathBuf,
}

/// A notice as it goes out.
#[derive(Clone, Serialize)]
pub struct Message {
    pub kind: Kind,
    pub at: String,
    pub environment: Option<String>,
    pub people: Vec<String>,
    pub subject: String,
    pub text: String,
    pub link: String,
    #[serde(skip)]
    pub addresses: Vec<String>,
}

impl Notifier {
    pub fn new(config: &Config, url: &str) -> Result<Notifier> {
        let mail = config.mail.as_ref().map(mail::Mail::new).transpose().context("mail")?;
        let hooks = config.webhook.iter().map(webhook::Hook::new).collect::<Result<_>>().context("webhook")?;
        Ok(Notifier { mail, hooks, url: url.to_owned(), told: config.data_dir.join("told") })
    }

    /// What is set up, for the page of the administrators: without any secret.
    pub fn channels(&self) -> Vec<String> {
        let mail = self.mail.iter().map(mail::Mail::describe);
        mail.chain(self.hooks.iter().map(webhook::Hook::describe)).collect()
    }

    fn message(&self, node: &Node, notice: &Notice) -> Message {
        node.ledger(|ledger| {
            let people: Vec<_> = notice.to.iter().filter_map(|user| ledger.user(*user)).filter(|user| user.locked.is_none()).collect();
            Message {
                kind: notice.kind,
                at: node.now().to_string(),
                environment: notice.environment.and_then(|id| ledger.environment(id)).map(|env| env.spec.name.to_string()),
                people: people.iter().map(|user| user.name.to_string()).collect(),
                addresses: people.iter().filter_map(|user| user.mail.as_ref()).map(ToString::to_string).collect(),
                subject: notice.subject.clone(),
                text: notice.text.clone(),
                link: format!("{}{}", self.url, notice.path),
            }
        })
    }
}

/// Tells for as long as the process lives.
pub async fn run(node: Arc<Node>, notifier: Arc<Notifier>) {
    if notifier.mail.is_none() && notifier.hooks.is_empty() {
        return;
    }
    let (places, waiting) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(MOST)));
    let mut changes = node.changes();
    let now = node.ledger(daypass_core::ledger::Ledger::seq);
    let mut told = std::fs::read_to_string(&notifier.told).ok().and_then(|text| text.trim().parse().ok()).map_or(now, |told: u64| told.min(now));
    let mut clock = Clock::default();
    loop {
        match follow(&node, told).await {
            Ok((notices, head)) => {
                for notice in notices.into_iter().chain(clock.look(&node)) {
                    send(&node, &notifier, &places, &waiting, &notice);
                }
                if head != told {
                    told = head;
                    // rather twice than never: it is written after the messages are on their way
                    if let Err(error) = std::fs::write(&notifier.told, format!("{told}\n")) {
                        tracing::warn!(%error, "how far notices have been told could not be written");
                    }
                    // there may be more behind it
                    continue;
                }
            }
            Err(why) => tracing::warn!(%why, "the log could not be read for notices"),
        }
        let _ = tokio::time::timeout(LOOK, changes.changed()).await;
    }
}

/// What the entries after `told` are worth telling, and how far that goes.
async fn follow(node: &Node, told: u64) -> Result<(Vec<Notice>, u64), String> {
    let lines = node.store.log.read(told, 500).await.map_err(|e| e.to_string())?;
    let (mut notices, mut head) = (Vec::new(), told);
    let now = node.now();
    for line in lines {
        let entry = chain::read(&line)?;
        head = entry.seq;
        if now < entry.at.after(STALE) {
            notices.extend(node.ledger(|ledger| notice::of_entry(ledger, &entry)));
        }
    }
    Ok((notices, head))
}

/// What the clock alone brings up, each once.
#[derive(Default)]
struct Clock {
    /// With the end that was told: one that was moved is told of again.
    ending: HashMap<PassId, Time>,
    stuck: BTreeSet<String>,
}

impl Clock {
    fn look(&mut self, node: &Node) -> Vec<Notice> {
        let now = node.now();
        let mut notices = Vec::new();
        node.ledger(|ledger| {
            let open: HashSet<PassId> = ledger.open_passes().map(|pass| pass.id).collect();
            self.ending.retain(|pass, _| open.contains(pass));
            for pass in ledger.open_passes() {
                if let (Some(notice), Some(ends_at)) = (notice::ends_soon(ledger, pass, now), pass.ends_at)
                    && self.ending.insert(pass.id, ends_at) != Some(ends_at)
                {
                    notices.push(notice);
                }
            }
        });
        let troubles = node.troubles.all();
        self.stuck.retain(|what| troubles.iter().any(|(known, _)| known == what));
        for (what, trouble) in troubles {
            if trouble.since.after(STUCK) <= now && self.stuck.insert(what.clone()) {
                let name = crate::web::api::doctor::named(node, &what);
                notices.push(node.ledger(|ledger| notice::stuck(ledger, &name, trouble.since, &trouble.why)));
            }
        }
        notices
    }
}

fn send(node: &Arc<Node>, notifier: &Arc<Notifier>, places: &Arc<Semaphore>, waiting: &Arc<Semaphore>, notice: &Notice) {
    let message = notifier.message(node, notice);
    let mut ways: Vec<Way> = message.addresses.iter().cloned().map(Way::Mail).filter(|_| notifier.mail.is_some()).collect();
    ways.extend((0..notifier.hooks.len()).filter(|n| notifier.hooks[*n].wants(&message)).map(Way::Hook));
    for way in ways {
        let Ok(one) = waiting.clone().try_acquire_owned() else {
            tracing::error!(subject = message.subject, "too many notices wait to be sent; this one is dropped");
            continue;
        };
        let (notifier, places, message) = (notifier.clone(), places.clone(), message.clone());
        tokio::spawn(async move {
            deliver(&notifier, &places, &message, way).await;
            drop(one);
        });
    }
}

enum Way {
    Mail(String),
    Hook(usize),
}

async fn deliver(notifier: &Notifier, places: &Semaphore, message: &Message, way: Way) {
    for pause in PAUSES.into_iter().map(Some).chain([None]) {
        let sent = {
            let Ok(_place) = places.acquire().await else { return };
            match &way {
                Way::Mail(to) => match &notifier.mail {
                    Some(mail) => mail.send(message, to).await,
                    None => return,
                },
                Way::Hook(n) => notifier.hooks[*n].send(message).await,
            }
        };
        match (sent, pause) {
            (Ok(()), _) => return,
            (Err(failed), Some(pause)) if failed.again => {
                tracing::warn!(why = failed.why, pause, "a notice could not be sent; it is tried again");
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            (Err(failed), _) => return tracing::error!(why = failed.why, subject = message.subject, "a notice could not be sent"),
        }
    }
}

/// Why something was not sent, and whether another try may help. Names no secret.
pub struct Failed {
    pub why: String,
    pub again: bool,
}
