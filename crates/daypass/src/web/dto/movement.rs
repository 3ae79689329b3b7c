//! Movements, as programs and people see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to be done with a database.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMovement {
    /// `refresh`, `import`, `restore`, `undo`, `export`, or `external`: another tool does it.
    pub kind: String,
    /// For a refresh: the environment whose database is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// For an import and an export: the name of a file in Daypass's folder of dumps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// For a restore: the moment (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds that holders are told before their access ends, at least; without it, it ends when the new database is ready. The new database is
    /// made meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<u64>,
    /// For a refresh, an import and a restore: prepare now, and let the new database take its place at this moment (RFC 3339), at most 24 hours
    /// from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_at: Option<String>,
    /// If it fails after access has ended, nobody gets in until somebody finishes it. Else the database of before opens again by itself.
    #[serde(default)]
    pub stay_closed: bool,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct MovementView {
    pub id: String,
    pub environment: String,
    pub kind: String,
    /// What is to be done, in words.
    pub order: String,
    pub why: String,
    /// As Lifecycle Services calls it: NotStarted, InProgress, Completed, Failed, SignedOff, Aborted, RollbackInProgress, RollbackCompleted,
    /// RollbackFailed.
    pub status: String,
    /// In a sentence.
    pub state: String,
    /// One of `steps`, while Daypass works on it.
    pub phase: Option<String>,
    /// What Daypass does for it, in order: `copy`, `sweep` and `ready` while people work, then `freeze` and `swap`.
    pub steps: Vec<String>,
    /// Whether it keeps the environment closed at this moment.
    pub closed: bool,
    pub asked_at: String,
    /// When access ended by it; for an export, when it began.
    pub begun_at: Option<String>,
    /// While it is planned: when access ends, if what takes the place is ready by then.
    pub cuts_at: Option<String>,
    pub over_at: Option<String>,
    /// While it runs: accounts and sessions that are still ending on the target. At 0 the database may be replaced.
    pub still_in: usize,
    /// While it runs.
    pub progress: Option<ProgressView>,
    /// What came inside the copy, what scripts said, and what was done.
    pub swept: Vec<SweptView>,
    /// The way back: the database of before, and until when it is kept.
    pub kept: Option<KeptView>,
    /// What an export made.
    pub made: Option<MadeView>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct ProgressView {
    pub bytes: u64,
    /// About; 0 when it is not known.
    pub total_bytes: u64,
    /// Tables whose rows are there.
    pub objects: u64,
    pub total_objects: u64,
    pub bytes_per_second: u64,
    /// About; none while it is not known.
    pub seconds_left: Option<u64>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct SweptView {
    pub what: String,
    pub done: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct KeptView {
    pub database: String,
    pub until: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct MadeView {
    pub bytes: u64,
    pub sha256: String,
}

/// What a movement would end, and for whom. Nothing is done.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct MovementPreview {
    pub allowed: bool,
    /// What would happen, or why it would be refused.
    pub outcome: String,
    /// What was looked for that could stand in the way, with what helps. What is `missing` stops the movement before anybody's access ends.
    pub checks: Vec<super::CheckView>,
    /// Each account, address entry and session that would end.
    pub ends: Vec<String>,
    /// The scripts that would run before the environment opens.
    pub scripts: Vec<String>,
}

/// A dump in Daypass's folder.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct FileView {
    pub name: String,
    pub bytes: u64,
    pub modified_at: String,
}
