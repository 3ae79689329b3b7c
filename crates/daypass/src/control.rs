//! The only caller of `decide`: one writer. It takes the commands that wait, decides each against the ledger as it will be
//! after the ones before, appends all events in one transaction, and only then lets anybody see them.
//!
//! When the store cannot be written, no access is given; what ends access still does so at once, and is recorded as soon as
//! the store can be written again.

use crate::{
    node::{Node, PassSecrets},
    standing,
    watch::Watch,
};
use daypass_core::{
    chain::Head,
    command::{Command, Observed},
    event::{Actor, Entry, Event},
    ids::PassId,
    ledger::Ledger,
    refusal::Refusal,
};
use daypass_gateway::World;
use daypass_store::{Change, StoreError};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait. More than this is an attack or a bug: whoever sends them waits.
const QUEUE: usize = 256;
/// Commands in one transaction.
const BATCH: usize = 64;
/// How often a store that could not be written is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Store(String),
    #[error("Daypass is stopping")]
    Stopping,
}

/// What is to be done, by whom, with the secrets that belong to it.
pub struct Job {
    pub command: Command,
    pub by: Actor,
    pub changes: Vec<Change>,
    /// Secrets of a new pass: the gateway has to know them when the pass becomes visible.
    pub secrets: Option<(PassId, PassSecrets)>,
}

type Answer = oneshot::Sender<Result<Vec<Event>, ControlError>>;

/// Two ways to the writer: what ends access stands behind nothing else.
#[derive(Clone)]
pub struct Control {
    ends: mpsc::Sender<(Job, Answer)>,
    others: mpsc::Sender<(Job, Answer)>,
}

impl Control {
    /// Starts the writer. `head` is where the log stands, `ledger` what follows from it.
    pub fn start(node: Arc<Node>, head: Head, watch: &Watch) -> Control {
        let (ends, ending) = mpsc::channel(QUEUE);
        let (others, queue) = mpsc::channel(QUEUE);
        let ahead = node.ledger(Ledger::clone);
        watch.spawn("the writer", Writer { node, head, ahead, unwritten: Vec::new() }.run(ending, queue));
        Control { ends, others }
    }

    pub async fn run(&self, command: Command, by: Actor) -> Result<Vec<Event>, ControlError> {
        self.run_job(Job { command, by, changes: Vec::new(), secrets: None }).await
    }

    pub async fn run_job(&self, job: Job) -> Result<Vec<Event>, ControlError> {
        let (answer, done) = oneshot::channel();
        let way = if ends_access(&job.command) { &self.ends } else { &self.others };
        way.send((job, answer)).await.map_err(|_| ControlError::Stopping)?;
        done.await.map_err(|_| ControlError::Stopping)?
    }
}

struct Writer {
    node: Arc<Node>,
    head: Head,
    /// The ledger with the events of the batch that is being written. Equal to the public one between batches.
    ahead: Ledger,
    /// Ends that are in force and not in the store yet.
    unwritten: Vec<Entry>,
}

/// A job that was decided, waiting for its events to be durable.
struct Decided {
    by: Actor,
    events: Vec<Event>,
    ends_access: bool,
    secrets: Option<(PassId, PassSecrets)>,
    answer: Answer,
}

impl Writer {
    async fn run(mut self, mut ends: mpsc::Receiver<(Job, Answer)>, mut others: mpsc::Receiver<(Job, Answer)>) {
        let (mut batch, mut rest) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        loop {
            let taking = async {
                tokio::select! {
                    biased;
                    taken = ends.recv_many(&mut batch, BATCH) => taken,
                    taken = others.recv_many(&mut rest, BATCH) => taken,
                }
            };
            if self.unwritten.is_empty() {
                if taking.await == 0 {
                    // nobody is left who could ask for anything: the process is stopping
                    return std::future::pending().await;
                }
            } else {
                // something waits to be written: try again, with or without new commands
                let _ = tokio::time::timeout(RETRY, taking).await;
                self.write_backlog().await;
            }
            batch.append(&mut rest);
            self.batch(&mut batch).await;
        }
    }

    async fn batch(&mut self, batch: &mut Vec<(Job, Answer)>) {
        let (mut entries, mut changes, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for (job, answer) in batch.drain(..) {
            if !self.unwritten.is_empty() && !ends_access(&job.command) {
                let _ = answer.send(Err(ControlError::Store(cannot_write())));
                continue;
            }
            let now = self.ahead.clamp(self.node.now());
            match self.ahead.decide(&job.command, job.by, now) {
                Err(refusal) => drop(answer.send(Err(refusal.into()))),
                Ok(events) => {
                    for event in &events {
                        let entry = Entry { seq: self.ahead.seq() + 1, at: now, by: job.by, event: event.clone() };
                        if let Err(broken) = self.ahead.apply(&entry) {
                            // decide and apply disagree: a bug, and the log must not hold it
                            tracing::error!(%broken, "a decision does not fit the ledger; the process ends");
                            std::process::abort();
                        }
                        entries.push(entry);
                    }
                    changes.extend(erasures(&events));
                    // a repeated command gave no events: its secrets are those of the first time
                    let secrets = job.secrets.filter(|_| !events.is_empty());
                    if !events.is_empty() {
                        changes.extend(job.changes);
                    }
                    if let Some((pass, secrets)) = &secrets {
                        changes.push(Change::Put { id: PassSecrets::id(*pass), secret: secrets.sealed() });
                    }
                    waiting.push(Decided { by: job.by, ends_access: ends_access(&job.command), events, secrets, answer });
                }
            }
        }
        if entries.is_empty() && changes.is_empty() {
            return waiting.into_iter().for_each(|done| drop(done.answer.send(Ok(done.events))));
        }
        let written = match self.unwritten.is_empty() {
            true => self.node.store.log.append(self.head, &entries, &changes).await,
            false => Err(StoreError::CannotWrite("an earlier entry waits".to_owned())),
        };
        match written {
            Ok(head) => {
                self.head = head;
                self.publish(&entries, &waiting);
                waiting.into_iter().for_each(|done| drop(done.answer.send(Ok(done.events))));
            }
            Err(error) => self.not_written(&error, waiting).await,
        }
    }

    /// Shows the entries to everybody. The secrets of new passes come first, so that no pass is visible without them.
    fn publish(&mut self, entries: &[Entry], decided: &[Decided]) {
        for (pass, secrets) in decided.iter().filter_map(|done| done.secrets.as_ref()) {
            if let Some(known) = self.ahead.pass(*pass) {
                self.node.remember(*pass, known.account.as_str(), secrets);
            }
        }
        match self.node.publish(std::mem::take(&mut self.ahead), entries) {
            Ok(ahead) => self.ahead = ahead,
            Err(broken) => {
                tracing::error!(%broken, "the ledger does not follow its log; the process ends");
                std::process::abort();
            }
        }
        for entry in entries {
            if let Event::StandingRemoved { standing, .. } = entry.event {
                self.node.remember_standing(standing, None);
            }
            if let Event::PassEnded { pass, .. } | Event::PassDenied { pass, .. } | Event::PassWithdrawn { pass } | Event::PassLapsed { pass } = entry.event
                && let Some(known) = self.ahead.pass(pass)
            {
                self.node.forget(pass, known.account.as_str());
            }
        }
    }

    /// The store failed: nothing of the batch happened, except what ends access.
    async fn not_written(&mut self, error: &StoreError, waiting: Vec<Decided>) {
        tracing::error!(%error, "the log cannot be written");
        self.node.troubles.note("store", error.to_string(), self.node.now());
        self.ahead = self.node.ledger(Ledger::clone);
        for done in waiting {
            if !done.ends_access {
                let _ = done.answer.send(Err(ControlError::Store(cannot_write())));
                continue;
            }
            let mut forced = Vec::new();
            for event in &done.events {
                let entry = Entry { seq: self.ahead.seq() + 1, at: self.ahead.clamp(self.node.now()), by: done.by, event: event.clone() };
                if self.ahead.apply(&entry).is_ok() {
                    forced.push(entry);
                }
            }
            self.publish(&forced, &[]);
            self.unwritten.extend(forced);
            let _ = done.answer.send(Ok(done.events));
        }
    }

    async fn write_backlog(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let events: Vec<Event> = self.unwritten.iter().map(|entry| entry.event.clone()).collect();
        match self.node.store.log.append(self.head, &self.unwritten, &erasures(&events)).await {
            Ok(head) => {
                self.head = head;
                self.unwritten.clear();
                self.node.troubles.clear("store");
                tracing::info!("the log can be written again; the ends that waited are recorded");
            }
            Err(error) => tracing::error!(%error, waiting = self.unwritten.len(), "the log still cannot be written"),
        }
    }
}

fn cannot_write() -> String {
    "the store cannot be written at the moment, so no access is given or changed; what ends still ends".to_owned()
}

/// Commands that only narrow access: they are carried out even when the store fails.
fn ends_access(command: &Command) -> bool {
    match command {
        Command::EndPass { .. } | Command::LockUser { .. } | Command::RemoveAllow { .. } | Command::BeginMovement { .. } => true,
        Command::RemoveToken { .. } | Command::RemoveEnvironment { .. } | Command::TakeRole { .. } | Command::DenyPass { .. } => true,
        Command::Observed(Observed::Identity { .. } | Observed::SetBack { .. } | Observed::Due { .. }) => true,
        Command::ExpectFailover { .. } | Command::JudgeDrift { .. } | Command::FetchFile { .. } => false,
        Command::Observed(Observed::Left { .. } | Observed::Drift { .. } | Observed::DatabaseSwept { .. }) => false,
        Command::RemoveStanding { .. } | Command::RemoveMachine { .. } => true,
        Command::SetKind { .. } | Command::SetRemoteDesktop { .. } => false,
        Command::AddStanding { .. } | Command::RevealStanding { .. } | Command::RotateStanding { .. } => false,
        Command::AddMachine { .. } | Command::RevealMachine { .. } => false,
        Command::Observed(Observed::Rotating { .. } | Observed::Rotated { .. }) => false,
        Command::AddFirstUser { .. }
        | Command::SignInFrom { .. }
        | Command::AddUser { .. }
        | Command::UnlockUser { .. }
        | Command::GiveRole { .. }
        | Command::AddToken { .. } => false,
        Command::SetMail { .. } | Command::ChangePassword { .. } | Command::SetSecondFactor { .. } | Command::RemoveSecondFactor { .. } => false,
        Command::RevealPass { .. } | Command::ReviewPass { .. } => false,
        Command::AddProject { .. } | Command::SetPolicy { .. } | Command::AddEnvironment { .. } | Command::SetTarget { .. } => false,
        Command::SetAccounts { .. } | Command::SetMasks { .. } | Command::AddAllow { .. } => false,
        Command::RequestPass { .. } | Command::ApprovePass { .. } | Command::ExtendPass { .. } => false,
        Command::CancelMovement { .. } | Command::FailMovement { .. } | Command::RetryMovement { .. } | Command::FinishMovement { .. } => false,
        Command::Observed(Observed::LoginWorks { .. } | Observed::Gone { .. } | Observed::Lapse { .. }) => false,
        Command::Observed(Observed::ClockDoubted { .. } | Observed::NotMade { .. }) => true,
        Command::Observed(Observed::Reached { .. } | Observed::Swept { .. } | Observed::Moved { .. } | Observed::KeptGone { .. }) => false,
    }
}

/// The secrets that end with what they open.
fn erasures(events: &[Event]) -> Vec<Change> {
    let ended = |event: &Event| match event {
        Event::PassEnded { pass, .. } | Event::PassDenied { pass, .. } | Event::PassWithdrawn { pass } | Event::PassLapsed { pass } => Some(*pass),
        _ => None,
    };
    let passes = events.iter().filter_map(ended).map(|pass| Change::Erase { id: PassSecrets::id(pass) });
    let kept = events.iter().flat_map(|event| match event {
        Event::StandingRemoved { standing, .. } => vec![standing::secret(*standing), standing::next_secret(*standing)],
        Event::StandingRotated { standing } => vec![standing::next_secret(*standing)],
        Event::MachineRemoved { machine, .. } => vec![standing::machine_secret(*machine)],
        _ => vec![],
    });
    passes.chain(kept.map(|id| Change::Erase { id })).collect()
}
