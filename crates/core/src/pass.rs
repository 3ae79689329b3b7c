//! The life of a pass: one person's time-boxed right to one environment with one access level.
//!
//! `Requested -> Approved -> Ready -> Ending(cause) -> Ended(cause)`; from Requested also Denied, Withdrawn and Lapsed.
//! A pass can be over before an event says so: see [`crate::ledger::Ledger::over`].

use crate::{
    ids::*,
    names::{AccountName, Category, Name, Reason, Ticket},
    secret::hex,
    time::{Time, Ttl},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;

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

/// What a person asks for, in their own words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    pub access: Access,
    pub reason: Reason,
    /// One of those that the policy offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
    /// Not before this moment; none: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Time>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Through the gateway as this standing account, in place of an account of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingId>,
    /// In at once, without the approvals that the policy asks for; somebody else reviews it afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// There is one such at a time: the next takes its place, and it ends. Scripts that ask anew each time leave no row of accounts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced_by_next: bool,
}

impl Wish {
    pub fn new(access: Access, reason: Reason) -> Wish {
        Wish { access, reason, category: None, ticket: None, starts_at: None, from: None, standing: None, break_glass: false, replaced_by_next: false }
    }
}

/// The SHA-256 over all that was asked for. Who approves names it, so that they agree to what they saw and to nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest([u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::str::FromStr for Digest {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        crate::secret::unhex(text).map(Digest).ok_or_else(|| "a digest is 64 hexadecimal digits, as the request shows it".to_owned())
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who agreed to a pass.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approver {
    /// The policy asks for no person's approval; its name stands for it.
    Policy(Name),
    Person(UserId),
    /// Nobody: the holder broke the glass, and somebody else reviews it.
    BreakGlass,
}

/// Whether somebody looked at a pass that was taken by breaking the glass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Review {
    NotNeeded,
    Open,
    Closed { by: UserId, at: Time, word: Reason },
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
    /// The policy was changed, and does not allow it any more.
    Forbidden {
        policy: Name,
    },
    /// Daypass was started with a clock that cannot say how long it had been open.
    ClockDoubted,
    /// It could not be made before its time was over.
    Failed {
        why: String,
    },
}

impl Cause {
    /// The cause, with what is known about it.
    pub fn in_full(&self) -> String {
        match self {
            Cause::Failed { why } => format!("{}: {why}", self.words()),
            cause => cause.words().to_owned(),
        }
    }

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
            Cause::Forbidden { .. } => "ended because the policy no longer allows it",
            Cause::ClockDoubted => "ended because Daypass could not trust its clock",
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
    pub wish: Wish,
    pub account: AccountName,
    /// The lifetime asked for; it starts at the approval, or when the pass is to start.
    pub life: Ttl,
    pub requested_at: Time,
    pub approved_at: Option<Time>,
    pub approver: Option<Approver>,
    /// The people who agreed, in order. Two where the policy wants two.
    pub agreed: Vec<UserId>,
    pub review: Review,
    /// How often its password was shown.
    pub reveals: u32,
    /// What approvers said, and why it was denied.
    pub word: Option<Reason>,
    /// Kept beside the state, so that an ended pass still says when it would have ended.
    pub ends_at: Option<Time>,
    /// When it became ready, and when an event of its own began its end.
    pub ready_at: Option<Time>,
    pub ending_at: Option<Time>,
    /// What its account left behind when it ended.
    pub left: Vec<String>,
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
    /// One of several approvals: it still waits.
    Agree {
        by: UserId,
        word: Option<Reason>,
    },
    Approve {
        by: Approver,
        at: Time,
        ends_at: Time,
        word: Option<Reason>,
    },
    MakeReady {
        at: Time,
    },
    Extend {
        ends_at: Time,
    },
    Deny {
        word: Reason,
    },
    Withdraw,
    Lapse,
    BeginEnd {
        cause: Cause,
        at: Time,
    },
    End {
        cause: Cause,
        at: Time,
    },
}

impl Step {
    fn word(&self) -> &'static str {
        match self {
            Step::Agree { .. } | Step::Approve { .. } => "approved",
            Step::MakeReady { .. } => "ready",
            Step::Extend { .. } => "extended",
            Step::Deny { .. } => "denied",
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

    /// See [`Digest`].
    pub fn digest(&self) -> Digest {
        let all = (self.id, self.environment, self.epoch, self.holder, &self.account, &self.wish, self.life);
        Digest(Sha256::digest(serde_json::to_vec(&all).unwrap_or_else(|_| unreachable!("ids and texts"))).into())
    }

    /// When it starts: never before it is approved.
    pub fn starts_at(&self, approved: Time) -> Time {
        self.wish.starts_at.map_or(approved, |start| start.max(approved))
    }

    /// Takes one step of its life. There is no step out of an end, and none that moves the deadline of a pass that is over.
    pub fn step(&mut self, step: Step) -> Result<(), NoSuchStep> {
        let next = match (&self.state, step) {
            (State::Requested, Step::Agree { by, word }) => {
                self.agreed.push(by);
                self.word = word.or(self.word.take());
                State::Requested
            }
            (State::Requested, Step::Approve { by, at, ends_at, word }) => {
                if let Approver::Person(by) = &by
                    && !self.agreed.contains(by)
                {
                    self.agreed.push(*by);
                }
                self.word = word.or(self.word.take());
                self.approver = Some(by);
                self.approved_at = Some(at);
                self.ends_at = Some(ends_at);
                State::Approved { ends_at }
            }
            (State::Requested, Step::Deny { word }) => {
                self.word = Some(word);
                State::Denied
            }
            (State::Requested, Step::Withdraw) => State::Withdrawn,
            (State::Requested, Step::Lapse) => State::Lapsed,
            (State::Approved { ends_at }, Step::MakeReady { at }) => {
                self.ready_at = Some(at);
                State::Ready { ends_at: *ends_at }
            }
            (State::Ready { .. }, Step::Extend { ends_at }) => {
                self.ends_at = Some(ends_at);
                State::Ready { ends_at }
            }
            (State::Approved { .. } | State::Ready { .. }, Step::BeginEnd { cause, at }) => {
                self.ending_at = Some(at);
                State::Ending { cause }
            }
            (State::Approved { .. } | State::Ready { .. } | State::Ending { .. }, Step::End { cause, at }) => {
                self.ending_at.get_or_insert(at);
                State::Ended { cause, at }
            }
            (from, step) => return Err(NoSuchStep { pass: self.id, from: from.word(), to: step.word() }),
        };
        self.state = next;
        Ok(())
    }
}
