//! Standing accounts and machine credentials of managed environments.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, Deserialize, ToSchema)]
pub struct StandingView {
    pub id: String,
    /// As the target knows it.
    pub name: String,
    pub note: Option<String>,
    pub added_at: String,
    pub rotated_at: Option<String>,
    /// Why its password is about to be changed, or cannot be.
    pub rotation: Option<String>,
}

/// An account that exists on the target; its password goes into the vault.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewStanding {
    pub name: String,
    pub password: String,
    /// What it is for, like "db_owner".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A password that somebody was shown, with a reason.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Revealed {
    pub name: String,
    pub password: String,
    /// Where it is for: server and database, or the machine.
    pub place: String,
    /// When it is changed because it was shown, if policy has that.
    pub until: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub struct MachineView {
    pub id: String,
    pub host: String,
    pub user: String,
    pub note: Option<String>,
    pub added_at: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMachine {
    pub host: String,
    pub user: String,
    pub password: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnOff {
    pub on: bool,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKind {
    /// `self-service` or `managed`
    pub kind: String,
}
