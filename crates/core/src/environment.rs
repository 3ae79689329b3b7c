//! Environments and the targets behind them.

use crate::{
    ids::*,
    masks::Masks,
    names::{DatabaseName, Host, Name},
    time::Time,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    Postgres,
    /// SQL Server, Azure SQL Database, Azure SQL Managed Instance, and what else speaks TDS.
    SqlServer,
}

impl Engine {
    pub fn as_str(self) -> &'static str {
        match self {
            Engine::Postgres => "postgres",
            Engine::SqlServer => "sqlserver",
        }
    }

    /// As people write it.
    pub fn title(self) -> &'static str {
        match self {
            Engine::Postgres => "PostgreSQL",
            Engine::SqlServer => "SQL Server",
        }
    }

    /// Whether accounts can log in only at the moments at which the gateway does: where a person can give their account a password of
    /// their own, an account that can always log in would be a way past the gateway. SQL Server asks for the old password, which nobody
    /// but the gateway knows.
    pub fn logs_in_by_moment(self) -> bool {
        match self {
            Engine::Postgres => true,
            Engine::SqlServer => false,
        }
    }

    /// Whether a name that a client gives means this database. SQL Server compares names without regard to case, PostgreSQL with.
    pub fn is_database(self, asked: &str, database: &str) -> bool {
        match self {
            Engine::Postgres => asked == database,
            Engine::SqlServer => asked.to_lowercase() == database.to_lowercase(),
        }
    }
}

impl std::str::FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "postgres" => Ok(Engine::Postgres),
            "sqlserver" => Ok(Engine::SqlServer),
            other => Err(format!("'{}' is not an engine that Daypass knows; it knows: postgres, sqlserver.", crate::names::shown(other))),
        }
    }
}

/// How the wire to a target is protected. There is no "if it can": that falls back to nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TargetTls {
    /// Certificate and host name are checked against this CA (PEM), or the system's when none is given.
    VerifyFull { ca: Option<String> },
    /// The same, with TLS before everything else (TDS 8.0, "strict" encryption): SQL Server 2022 and later, Azure SQL.
    Strict { ca: Option<String> },
    /// No TLS: only for a target on this machine or behind a tunnel; `env show` says so.
    Off,
}

/// Where the rights of an account come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grants {
    /// A group role per database and access level, with rights on each schema; also on tables made later.
    #[default]
    Granted,
    /// The engine's own roles (`pg_read_all_data`, `pg_write_all_data`). They can also read every role's password verifier.
    Predefined,
}

/// Who keeps people out of the database, and ends their sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforce {
    /// Our gateway stands before the target: its fence ends a session to the moment, and it knows whose address is whose.
    #[default]
    Gateway,
    /// Azure SQL's own firewall: nothing of ours lies between, people get the account that the target knows.
    AzureSqlFirewall,
}

impl Enforce {
    pub fn as_str(self) -> &'static str {
        match self {
            Enforce::Gateway => "gateway",
            Enforce::AzureSqlFirewall => "azure_sql_firewall",
        }
    }
}

/// A database server: where it is and as whom Daypass administers it. The password lies sealed in the store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    pub engine: Engine,
    pub host: Host,
    pub port: u16,
    /// The administrator role on the target.
    pub admin: String,
    pub tls: TargetTls,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub id: TargetId,
    pub spec: TargetSpec,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No standing accounts: passes are the only way in.
    SelfService,
    /// It may have standing accounts, and machine credentials while remote desktop is on.
    Managed,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::SelfService => "self-service",
            Kind::Managed => "managed",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Kind::SelfService, Kind::Managed].into_iter().find(|kind| kind.as_str() == text.replace('_', "-"));
        known.ok_or_else(|| format!("'{}' is not a kind of environment; it is self-service or managed.", crate::names::shown(text)))
    }
}

/// What tells one database from another that took its place. Compared, never taken apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub String);

/// What one says of an environment when adding it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    pub name: Name,
    pub kind: Kind,
    pub database: DatabaseName,
    pub grants: Grants,
    /// The role on the target that receives what an account owned when it ends; none: the owner of the database.
    pub heir: Option<String>,
    #[serde(default)]
    pub enforce: Enforce,
}

#[derive(Clone, Debug)]
pub struct Environment {
    pub id: EnvironmentId,
    pub project: ProjectId,
    pub target: TargetId,
    pub spec: EnvironmentSpec,
    /// How often the database has been replaced; `ended_epochs[n]` says what ended epoch `n`.
    pub ended_epochs: Vec<(EpochEnd, Time)>,
    pub identity: Option<Identity>,
    /// What a movement masks in it before anybody is let in.
    pub masks: Masks,
    /// Whether it has machine credentials.
    pub remote_desktop: bool,
    /// Until when a replica may take over with some of the last moments missing.
    pub failover_until: Option<Time>,
    /// The movement that is under way, if any: planned, running, or failed and not signed off.
    pub moving: Option<MovementId>,
    /// The movement that keeps the environment closed.
    pub frozen_by: Option<MovementId>,
    pub removed_at: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochEnd {
    Moved(MovementId),
    /// Found by its identity: somebody replaced the database without telling us.
    Replaced,
}

impl Environment {
    /// This movement moves it no longer, and keeps it closed no longer.
    pub fn release(&mut self, movement: MovementId) {
        for held in [&mut self.moving, &mut self.frozen_by] {
            held.take_if(|known| *known == movement);
        }
    }

    pub fn epoch(&self) -> u32 {
        self.ended_epochs.len() as u32
    }

    /// What ended the given epoch, when it is over.
    pub fn end_of(&self, epoch: u32) -> Option<EpochEnd> {
        self.ended_epochs.get(epoch as usize).map(|(end, _)| *end)
    }

    /// When the given epoch ended.
    pub fn epoch_ended_at(&self, epoch: u32) -> Option<Time> {
        self.ended_epochs.get(epoch as usize).map(|(_, at)| *at)
    }

    pub fn removed(&self) -> bool {
        self.removed_at.is_some()
    }
}
