//! The life of a pass: one person's time-boxed right to one environment with one access level.
//!
//! `Requested -> Approved -> Ready -> Ending(cause) -> Ended(cause)`; from Requested also Denied, Withdrawn and Lapsed.
//! A pass can be over before an event says so: see [`crate::ledger::Ledger::over`].

use crate::{
    ids::*,
    names::{AccountName, Name, Reason},
    time::{Time, Ttl},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Read,
    ReadWrite,
}

impl Access {
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::ReadWrite => "read_write",
        }
    }
}

/// Who agreed to a pass.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approver {
    /// The policy asks for no person's approval; its name stands for it.
    Policy(Name),
    Person(UserId),
}

/// Why a pass ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Cause {
    Expired,
    /// Given back by its holder.
    Returned,
    Revoked {
        by: UserId,
        why: Reason,
    },
    Moved {
        movement: MovementId,
    },
    /// The database is another one than before, and nobody had said so.
    Replaced,
    HolderLocked,
    EnvironmentRemoved,
    /// It could not be made before its time was over.
    Failed {
        why: String,
    },
}

impl Cause {
    /// The cause in the words that a client's window shows.
    pub fn words(&self) -> &'static str {
        match self {
            Cause::Expired => "has expired",
            Cause::Returned => "was given back",
            Cause::Revoked { .. } => "was revoked",
            Cause::Moved { .. } => "ended because the database is being replaced",
            Cause::Replaced => "ended because the database was replaced",
            Cause::HolderLocked => "ended because its holder is locked",
            Cause::EnvironmentRemoved => "ended because the environment was removed",
            Cause::Failed { .. } => "ended because the account could not be made",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Requested,
    Approved { ends_at: Time },
    Ready { ends_at: Time },
    Ending { cause: Cause },
    Ended { cause: Cause, at: Time },
    Denied,
    Withdrawn,
    Lapsed,
}

impl State {
    /// One word, as API and console show it.
    pub fn word(&self) -> &'static str {
        match self {
            State::Requested => "requested",
            State::Approved { .. } => "approved",
            State::Ready { .. } => "ready",
            State::Ending { .. } => "ending",
            State::Ended { .. } => "ended",
            State::Denied => "denied",
            State::Withdrawn => "withdrawn",
            State::Lapsed => "lapsed",
        }
    }

    /// Nothing can happen any more, and nothing is left to clean.
    pub fn is_final(&self) -> bool {
        matches!(self, State::Ended { .. } | State::Denied | State::Withdrawn | State::Lapsed)
    }
}

#[derive(Clone, Debug)]
pub struct Pass {
    pub id: PassId,
    pub environment: EnvironmentId,
    pub holder: UserId,
    pub access: Access,
    pub reason: Reason,
    pub account: AccountName,
    /// The lifetime asked for; it starts at the approval.
    pub life: Ttl,
    pub requested_at: Time,
    pub approved_at: Option<Time>,
    pub approver: Option<Approver>,
    /// Kept beside the state, so that an ended pass still says when it would have ended.
    pub ends_at: Option<Time>,
    /// The environment's epoch and the holder's lock count at the request.
    pub epoch: u32,
    pub locks: u32,
    pub(crate) state: State,
}

/// A step that the life of a pass does not have. In a replay this means that the log is not one that Daypass wrote.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("pass {pass} is {from}: it cannot become {to}")]
pub struct NoSuchStep {
    pub pass: PassId,
    pub from: &'static str,
    pub to: &'static str,
}

/// The steps that are no ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Approve { by: Approver, at: Time, ends_at: Time },
    MakeReady,
    Extend { ends_at: Time },
    Deny,
    Withdraw,
    Lapse,
    BeginEnd { cause: Cause },
    End { cause: Cause, at: Time },
}

impl Step {
    fn word(&self) -> &'static str {
        match self {
            Step::Approve { .. } => "approved",
            Step::MakeReady => "ready",
            Step::Extend { .. } => "extended",
            Step::Deny => "denied",
            Step::Withdraw => "withdrawn",
            Step::Lapse => "lapsed",
            Step::BeginEnd { .. } => "ending",
            Step::End { .. } => "ended",
        }
    }
}

impl Pass {
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes one step of its life. There is no step out of an end, and none that moves the deadline of a pass that is over.
    pub fn step(&mut self, step: Step) -> Result<(), NoSuchStep> {
        let next = match (&self.state, step) {
            (State::Requested, Step::Approve { by, at, ends_at }) => {
                self.approver = Some(by);
                self.approved_at = Some(at);
                self.ends_at = Some(ends_at);
                State::Approved { ends_at }
            }
            (State::Requested, Step::Deny) => State::Denied,
            (State::Requested, Step::Withdraw) => State::Withdrawn,
            (State::Requested, Step::Lapse) => State::Lapsed,
            (State::Approved { ends_at }, Step::MakeReady) => State::Ready { ends_at: *ends_at },
            (State::Ready { .. }, Step::Extend { ends_at }) => {
                self.ends_at = Some(ends_at);
                State::Ready { ends_at }
            }
            (State::Approved { .. } | State::Ready { .. }, Step::BeginEnd { cause }) => State::Ending { cause },
            (State::Approved { .. } | State::Ready { .. } | State::Ending { .. }, Step::End { cause, at }) => State::Ended { cause, at },
            (from, step) => return Err(NoSuchStep { pass: self.id, from: from.word(), to: step.word() }),
        };
        self.state = next;
        Ok(())
    }
}
