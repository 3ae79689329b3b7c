//! What others made on a target that opens a way in, or widens one. Daypass shows it, with when it was first seen, and touches nothing
//! until somebody says so.

use crate::{ids::TargetId, time::Time};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// Somebody may log in who is none of ours.
    Login,
    /// Somebody was made a member of a role that opens an environment's database.
    Member,
    /// Somebody has rights in an environment's database.
    Privilege,
    /// A rule of the target's own firewall.
    Rule,
}

impl DriftKind {
    pub fn as_str(self) -> &'static str {
        match self {
            DriftKind::Login => "login",
            DriftKind::Member => "member",
            DriftKind::Privilege => "privilege",
            DriftKind::Rule => "rule",
        }
    }
}

/// One thing, as it is found again at each look. It is told by kind, name and place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    pub kind: DriftKind,
    /// Who: a login, a user, a rule.
    pub name: String,
    /// Where: a database, a role; empty for the whole server.
    pub place: String,
}

impl Finding {
    pub fn words(&self) -> String {
        match self.kind {
            DriftKind::Login => format!("{} may log in", self.name),
            DriftKind::Member => format!("{} is a member of {}", self.name, self.place),
            DriftKind::Privilege => format!("{} has rights in {}", self.name, self.place),
            DriftKind::Rule => format!("the firewall rule {} opens {}", self.name, self.place),
        }
    }
}

/// What somebody said about a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is known and belongs there.
    Mine,
    /// It is not worth a word.
    Ignored,
    /// It is to go.
    End,
}

impl std::str::FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mine" => Ok(Verdict::Mine),
            "ignore" => Ok(Verdict::Ignored),
            "end" => Ok(Verdict::End),
            _ => Err("it is mine, ignore or end".to_owned()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Drift {
    pub target: TargetId,
    pub finding: Finding,
    pub first_seen: Time,
    pub verdict: Option<Verdict>,
}

/// The log keeps at most so many findings of one target; a server with more has other worries.
pub const MOST: usize = 500;
