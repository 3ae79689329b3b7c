//! Movements: operations that replace or copy a database. Here the kind `external`: somebody else's tool does it and tells us.
//!
//! The begin of a movement ends all access at once, because it raises the environment's epoch; until it is finished the
//! environment is frozen. A failed movement stays frozen until a person finishes it: nobody knows what state it left.

use crate::{ids::*, names::Reason, time::Time};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovementKind {
    External,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MovementState {
    Running,
    Failed { why: Reason },
    Finished { at: Time },
}

#[derive(Clone, Debug)]
pub struct Movement {
    pub id: MovementId,
    pub environment: EnvironmentId,
    pub kind: MovementKind,
    pub why: Reason,
    pub begun_at: Time,
    pub state: MovementState,
}
