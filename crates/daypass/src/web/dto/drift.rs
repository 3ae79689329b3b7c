//! What others made on the targets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, Deserialize, ToSchema)]
pub struct DriftView {
    pub target: String,
    pub server: String,
    /// `login`, `member`, `privilege` or `rule`
    pub kind: String,
    pub name: String,
    pub place: String,
    /// In words.
    pub what: String,
    pub first_seen: String,
    /// `mine`, `ignore`, `end`; none: nobody has said anything.
    pub verdict: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeDrift {
    pub target: String,
    pub kind: String,
    pub name: String,
    pub place: String,
    /// `mine`, `ignore` or `end`
    pub verdict: String,
}
