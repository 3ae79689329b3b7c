//! Movements: operations that replace a database, or copy it out of here.
//!
//! A movement that replaces is *planned* first: holders are told, and the new database is made and swept beside the old one while people
//! work. When it is ready and its time has come it *begins*: one event raises the environment's epoch, which ends all access, and freezes
//! the environment until the names are exchanged. What fails before that costs nobody anything; what fails after it goes back to the
//! database of before, which opens again unless somebody wished otherwise. Where another tool replaces the database nothing is made here:
//! the environment stays frozen until a person says what came of it.

use crate::{
    environment::Environment,
    ids::*,
    names::{DatabaseName, FileName, Reason},
    time::{Time, Ttl},
};
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MovementKind {
    /// Somebody else's tool does it, and tells us.
    External,
    /// A copy of another environment's database takes the place of this one.
    Refresh { from: EnvironmentId },
    /// A dump takes its place.
    Import { file: FileName },
    /// Its own state of an earlier moment takes its place.
    Restore { to: Time },
    /// The database that an earlier movement put aside comes back.
    Undo { of: MovementId },
    /// A dump is made of it; it stays.
    Export { file: FileName },
}

impl MovementKind {
    pub fn as_str(&self) -> &'static str {
        match self {
            MovementKind::External => "external",
            MovementKind::Refresh { .. } => "refresh",
            MovementKind::Import { .. } => "import",
            MovementKind::Restore { .. } => "restore",
            MovementKind::Undo { .. } => "undo",
            MovementKind::Export { .. } => "export",
        }
    }

    /// Whether access ends by it.
    pub fn replaces(&self) -> bool {
        !matches!(self, MovementKind::Export { .. })
    }

    /// Whether a new database is made for it, before anybody's access ends.
    pub fn is_prepared(&self) -> bool {
        matches!(self, MovementKind::Refresh { .. } | MovementKind::Import { .. } | MovementKind::Restore { .. })
    }

    /// Whether Daypass carries it out itself.
    pub fn is_ours(&self) -> bool {
        !matches!(self, MovementKind::External)
    }
}

/// How far a movement of ours is. In the log of a version that ended access first, `freeze` comes before `copy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// What could stand in the way is looked for.
    Check,
    /// The new database is made, beside the old one.
    Copy,
    /// What came inside the copy is found and disabled; the operator's scripts run.
    Sweep,
    /// The new database waits for its time.
    Ready,
    /// Access has ended; its sessions and accounts go.
    Freeze,
    /// The new database takes the name of the old one, which is put aside.
    Swap,
}

impl Phase {
    pub const ALL: [Phase; 6] = [Phase::Check, Phase::Copy, Phase::Sweep, Phase::Ready, Phase::Freeze, Phase::Swap];

    /// The steps of a movement of this kind, in order.
    pub fn of(kind: &MovementKind) -> &'static [Phase] {
        match kind {
            MovementKind::External => &[],
            MovementKind::Export { .. } => &[Phase::Copy],
            MovementKind::Undo { .. } => &[Phase::Freeze, Phase::Swap],
            MovementKind::Refresh { .. } | MovementKind::Import { .. } | MovementKind::Restore { .. } => &Phase::ALL,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Check => "check",
            Phase::Copy => "copy",
            Phase::Sweep => "sweep",
            Phase::Ready => "ready",
            Phase::Freeze => "freeze",
            Phase::Swap => "swap",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MovementState {
    /// Holders were told, and people work: access ends when the new database is ready and it is `cuts_at`.
    Planned {
        cuts_at: Time,
        /// Not before either when nobody has access.
        exactly: bool,
        phase: Phase,
    },
    Running {
        phase: Phase,
    },
    Failed {
        why: Reason,
        phase: Phase,
    },
    Finished {
        at: Time,
    },
    /// It failed, and a person opened the environment that had stayed closed.
    SignedOff {
        at: Time,
    },
    /// Given up before it began.
    Withdrawn {
        at: Time,
        why: Option<Reason>,
    },
}

impl MovementState {
    /// Whether nothing comes after it.
    pub fn is_final(&self) -> bool {
        matches!(self, MovementState::Finished { .. } | MovementState::SignedOff { .. } | MovementState::Withdrawn { .. })
    }

    /// As Lifecycle Services calls it (OperationStatus of its Database Movement API).
    pub fn status(&self, kind: &MovementKind) -> &'static str {
        let undo = matches!(kind, MovementKind::Undo { .. });
        match self {
            MovementState::Planned { .. } if kind.is_prepared() => "InProgress",
            MovementState::Planned { .. } => "NotStarted",
            MovementState::Running { .. } if undo => "RollbackInProgress",
            MovementState::Running { .. } => "InProgress",
            MovementState::Failed { .. } if undo => "RollbackFailed",
            MovementState::Failed { .. } => "Failed",
            MovementState::Finished { .. } if undo => "RollbackCompleted",
            MovementState::Finished { .. } => "Completed",
            MovementState::SignedOff { .. } => "SignedOff",
            MovementState::Withdrawn { .. } => "Aborted",
        }
    }
}

/// The database that a movement put aside: the way back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub database: DatabaseName,
    /// Until when it is kept.
    pub until: Time,
}

/// The dump that an export made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// Something that came inside the copy, or that a script said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swept {
    pub what: String,
    pub done: String,
}

/// The report of a sweep has at most so many lines, each of at most so many characters.
const MOST_SWEPT: usize = 200;
const LONGEST_SWEPT: usize = 2_000;

/// The report as the log takes it.
pub fn bounded(swept: &[Swept]) -> Vec<Swept> {
    let short = |text: &str| text.chars().take(LONGEST_SWEPT).collect::<String>();
    let mut report: Vec<Swept> = swept.iter().take(MOST_SWEPT).map(|line| Swept { what: short(&line.what), done: short(&line.done) }).collect();
    if swept.len() > MOST_SWEPT {
        report.truncate(MOST_SWEPT - 1);
        report.push(Swept { what: format!("{} more", swept.len() - report.len()), done: "the same".to_owned() });
    }
    report
}

#[derive(Clone, Debug)]
pub struct Movement {
    pub id: MovementId,
    pub environment: EnvironmentId,
    pub kind: MovementKind,
    pub why: Reason,
    /// When it was asked for.
    pub asked_at: Time,
    /// When access ended by it; for an export, when it began.
    pub begun_at: Option<Time>,
    pub state: MovementState,
    /// Before when access does not end, and whether not before that in any case either; as it was asked for.
    pub wished: Option<(Time, bool)>,
    /// When it fails after access has ended, nobody gets in until a person says so.
    pub stay_closed: bool,
    pub swept: Vec<Swept>,
    /// None as well when it was dropped again.
    pub kept: Option<Kept>,
    pub made: Option<Made>,
}

impl Movement {
    /// One that was just asked for.
    pub fn asked(id: MovementId, environment: EnvironmentId, kind: MovementKind, why: Reason, stay_closed: bool, at: Time) -> Movement {
        let state = MovementState::Running { phase: Phase::Freeze };
        Movement { id, environment, kind, why, asked_at: at, begun_at: None, state, wished: None, stay_closed, swept: Vec::new(), kept: None, made: None }
    }

    /// When it was over, if it is.
    pub fn over_at(&self) -> Option<Time> {
        match self.state {
            MovementState::Finished { at } | MovementState::SignedOff { at } | MovementState::Withdrawn { at, .. } => Some(at),
            _ => None,
        }
    }

    /// Whether it is not over: planned, or running.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, MovementState::Planned { .. } | MovementState::Running { .. })
    }

    /// The environment whose database it reads at this moment.
    pub fn reads(&self) -> Option<EnvironmentId> {
        match (&self.kind, &self.state) {
            (MovementKind::Refresh { from }, MovementState::Planned { phase: Phase::Copy, .. }) => Some(*from),
            _ => None,
        }
    }

    /// Whether it is an attempt that counts against the policy's number a day. What somebody else's tool does is not ours to count.
    pub fn counts_since(&self, since: Time) -> bool {
        self.kind.is_ours() && self.asked_at > since && !matches!(self.state, MovementState::Withdrawn { .. })
    }
}

/// The names that a movement uses on the target. They follow from the database and the movement, so that a crash loses none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// Where the new database is made.
    pub scratch: DatabaseName,
    /// Where the old one is put aside.
    pub old: DatabaseName,
    /// As whom the copy is restored.
    pub role: String,
}

impl Names {
    pub fn of(env: &Environment, movement: MovementId) -> Result<Names, String> {
        let tag: String = movement.uuid().simple().to_string().chars().rev().take(10).collect();
        // a name in PostgreSQL has 63 bytes at most
        let database = env.spec.database.as_str();
        let base = &database[..database.floor_char_boundary(44)];
        Ok(Names { scratch: format!("{base}__in_{tag}").parse()?, old: format!("{base}__old_{tag}").parse()?, role: format!("daypass_in_{tag}") })
    }
}

/// How long before the cut holders may be told.
pub const LONGEST_NOTICE: Ttl = Ttl::hours(24);
