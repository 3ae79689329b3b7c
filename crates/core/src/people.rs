//! People, what they may do and where. A role is given for everything, for a project or for one environment.

use crate::{
    environment::Environment,
    ids::*,
    names::{Mail, UserName},
    secret::TokenHash,
    time::Time,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sets up people, environments and policies. Gives no access to data by itself.
    Admin,
    /// Sees who is in, ends access, enters addresses for others, moves databases.
    Manager,
    /// Agrees to other people's requests.
    Approver,
    /// May ask for access.
    Requester,
    /// Reads the log, the sessions and their statements.
    Auditor,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    All,
    Project(ProjectId),
    Environment(EnvironmentId),
}

impl Scope {
    pub fn covers(self, env: &Environment) -> bool {
        match self {
            Scope::All => true,
            Scope::Project(id) => id == env.project,
            Scope::Environment(id) => id == env.id,
        }
    }
}

/// What a command or a page needs. Each names one; there is no command without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    ManagePeople,
    ManageEnvironments,
    SeeEnvironment,
    Request,
    Approve,
    SeeAccess,
    EndAnyAccess,
    AllowForOthers,
    Move,
    /// Seeing the password of a standing account or a machine.
    Reveal,
    ReadLog,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Admin, Role::Manager, Role::Approver, Role::Requester, Role::Auditor];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Manager => "manager",
            Role::Approver => "approver",
            Role::Requester => "requester",
            Role::Auditor => "auditor",
        }
    }

    /// The whole table of who may what.
    pub fn grants(self, permission: Permission) -> bool {
        use Permission::*;
        match self {
            Role::Admin => matches!(permission, ManagePeople | ManageEnvironments | SeeEnvironment | SeeAccess | EndAnyAccess | ReadLog),
            Role::Manager => matches!(permission, SeeEnvironment | SeeAccess | EndAnyAccess | AllowForOthers | Move | Reveal),
            Role::Approver => matches!(permission, SeeEnvironment | Approve | SeeAccess),
            Role::Requester => matches!(permission, SeeEnvironment | Request),
            Role::Auditor => matches!(permission, SeeEnvironment | SeeAccess | ReadLog),
        }
    }
}

/// What a token is for: one in a browser opens pages and no calls of the API, and the other way round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    #[default]
    Api,
    Browser,
}

#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub name: UserName,
    /// Given by an administrator.
    pub roles: Vec<(Role, Scope)>,
    /// From the groups that the person's provider named at the last sign-in there.
    pub group_roles: Vec<(Role, Scope)>,
    /// Who the person is at their provider: issuer and subject.
    pub linked: Option<(String, String)>,
    /// Where notices go.
    pub mail: Option<Mail>,
    /// Signing in takes a code besides the password.
    pub second_factor: bool,
    /// Why the person is locked, while they are.
    pub locked: Option<String>,
    /// When the person was locked, each time. Passes and tokens remember how often that was when they were made, so that unlocking
    /// revives none.
    pub locked_at: Vec<Time>,
}

impl User {
    /// All roles, from wherever they come.
    pub fn all_roles(&self) -> impl Iterator<Item = &(Role, Scope)> {
        self.roles.iter().chain(&self.group_roles)
    }

    pub fn locks(&self) -> u32 {
        self.locked_at.len() as u32
    }
}

#[derive(Clone, Debug)]
pub struct Token {
    pub id: TokenId,
    pub user: UserId,
    pub label: String,
    pub hash: TokenHash,
    pub kind: TokenKind,
    pub added_at: Time,
    /// When it was made its person had just proved who they are.
    pub proved: bool,
    pub ends_at: Time,
    /// See [`User::locked_at`].
    pub locks: u32,
}
