//! A target of whichever engine its spec names.

use crate::{
    AccountSpec, Check, Estate, Known, SessionAt, Taken, Target, TargetError,
    movement::{Move, Scripts, Source, Standing},
    postgres::Postgres,
    sqlserver::SqlServer,
};
use daypass_core::{
    drift::Finding,
    environment::{Engine, Grants, Identity, TargetSpec},
    firewall::Rule,
    ids::*,
    movement::{Made, Swept},
    names::{AccountName, DatabaseName, RoleName},
    pass::Access,
    plan::{Backend, Observation},
    secret::Secret,
};
use std::{collections::BTreeSet, path::Path, sync::Arc};

#[expect(clippy::large_enum_variant, reason = "one for each target, not one for each of many")]
pub enum AnyTarget {
    Postgres(Postgres),
    SqlServer(SqlServer),
}

impl AnyTarget {
    /// `tls` is none only for a target whose environment says in plain words that it has no TLS.
    pub fn new(spec: TargetSpec, password: Secret, tls: Option<Arc<rustls::ClientConfig>>, store: StoreId) -> Self {
        match spec.engine {
            Engine::Postgres => AnyTarget::Postgres(Postgres::new(spec, password, tls, store)),
            Engine::SqlServer => AnyTarget::SqlServer(SqlServer::new(spec, password, store)),
        }
    }

    /// What the keeper does to remove an account, as SQL for somebody who has to do it by hand.
    pub fn by_hand(engine: Engine, account: &str, database: &str, heir: Option<&str>) -> String {
        match engine {
            Engine::Postgres => crate::postgres::by_hand(account, database, heir),
            Engine::SqlServer => crate::sqlserver::by_hand(account, database, heir),
        }
    }

    /// The least that an administrator needs, as SQL to paste.
    pub fn recipe(engine: Engine, admin: &str, database: &str, owner: &str) -> String {
        match engine {
            Engine::Postgres => crate::postgres::grants::recipe(admin, database, owner),
            Engine::SqlServer => crate::sqlserver::recipe(admin, database),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $target:ident => $call:expr) => {
        match $self {
            AnyTarget::Postgres($target) => $call.await,
            AnyTarget::SqlServer($target) => $call.await,
        }
    };
}

impl Target for AnyTarget {
    async fn identity(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<Identity, TargetError> {
        delegate!(self, target => target.identity(environment, database))
    }
    async fn position(&self) -> Result<Option<u64>, TargetError> {
        delegate!(self, target => target.position())
    }
    async fn adopt(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
        delegate!(self, target => target.adopt(environment, database))
    }
    async fn reserve(&self) -> Result<(), TargetError> {
        delegate!(self, target => target.reserve())
    }
    async fn observe(&self, databases: &[DatabaseName], names: &[String]) -> Result<Observation, TargetError> {
        delegate!(self, target => target.observe(databases, names))
    }
    async fn end_now(&self, accounts: &[String], backends: &[Backend]) -> Result<(), TargetError> {
        delegate!(self, target => target.end_now(accounts, backends))
    }

    async fn shut(&self, accounts: &[String], backends: &[Backend], databases: &[DatabaseName]) -> Result<(), TargetError> {
        delegate!(self, target => target.shut(accounts, backends, databases))
    }
    async fn open_door(&self, account: &str, verifier: &str) -> Result<(), TargetError> {
        delegate!(self, target => target.open_door(account, verifier))
    }
    async fn close_doors(&self, accounts: &[String]) -> Result<(), TargetError> {
        delegate!(self, target => target.close_doors(accounts))
    }
    async fn tidy_groups(&self, environment: EnvironmentId, database: &DatabaseName, estate: Estate<'_>) -> Result<Vec<Swept>, TargetError> {
        delegate!(self, target => target.tidy_groups(environment, database, estate))
    }
    async fn outranks(&self, account: &RoleName) -> Result<Option<String>, TargetError> {
        delegate!(self, target => target.outranks(account))
    }
    async fn provide(&self, spec: &AccountSpec<'_>) -> Result<(), TargetError> {
        delegate!(self, target => target.provide(spec))
    }
    async fn refresh_grants(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
        delegate!(self, target => target.refresh_grants(environment, database))
    }
    async fn remains(&self, account: &str, databases: &[DatabaseName]) -> Result<Vec<String>, TargetError> {
        delegate!(self, target => target.remains(account, databases))
    }
    async fn remove(&self, account: &str, databases: &[DatabaseName], estate: Estate<'_>) -> Result<(), TargetError> {
        delegate!(self, target => target.remove(account, databases, estate))
    }
    async fn sweep_marked(&self, environment: EnvironmentId, database: &DatabaseName, theirs: &Known<'_>) -> Result<Vec<Swept>, TargetError> {
        delegate!(self, target => target.sweep_marked(environment, database, theirs))
    }
    async fn drift(&self, databases: &[DatabaseName], ours: &Known<'_>) -> Result<Vec<Finding>, TargetError> {
        delegate!(self, target => target.drift(databases, ours))
    }
    async fn end_drift(&self, finding: &Finding) -> Result<(), TargetError> {
        delegate!(self, target => target.end_drift(finding))
    }
    async fn kill(&self, account: &str, id: u32, database: &DatabaseName) -> Result<(), TargetError> {
        delegate!(self, target => target.kill(account, id, database))
    }
    async fn set_password(&self, database: &DatabaseName, account: &RoleName, password: &Secret) -> Result<(), TargetError> {
        delegate!(self, target => target.set_password(database, account, password))
    }
    async fn take_back(
        &self,
        database: &DatabaseName,
        account: &RoleName,
        password: &Secret,
        ours: &[u32],
        waiting: &mut Option<Vec<u32>>,
    ) -> Result<Taken, TargetError> {
        delegate!(self, target => target.take_back(database, account, password, ours, waiting))
    }
    fn rights(&self, environment: EnvironmentId, access: Access, grants: Grants, sessions: u16) -> BTreeSet<String> {
        match self {
            AnyTarget::Postgres(target) => target.rights(environment, access, grants, sessions),
            AnyTarget::SqlServer(target) => target.rights(environment, access, grants, sessions),
        }
    }
    async fn test(&self, database: &DatabaseName) -> Vec<Check> {
        delegate!(self, target => target.test(database))
    }
    async fn look_around(&self, account: &AccountName, password: &Secret, database: &DatabaseName, access: Access) -> Result<Vec<Check>, TargetError> {
        delegate!(self, target => target.look_around(account, password, database, access))
    }
    async fn forget(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
        delegate!(self, target => target.forget(environment, database))
    }
    async fn run_scripts(&self, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
        delegate!(self, target => target.run_scripts(movement, scripts))
    }
    async fn copy(&self, movement: &Move<'_>, source: &Source<'_>) -> Result<(), TargetError> {
        delegate!(self, target => target.copy(movement, source))
    }
    async fn sweep(&self, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
        delegate!(self, target => target.sweep(movement, scripts))
    }
    async fn look_ahead(&self, movement: &Move<'_>, source: Option<&Source<'_>>) -> Result<Vec<Check>, TargetError> {
        delegate!(self, target => target.look_ahead(movement, source))
    }
    async fn in_the_way(&self, movement: &Move<'_>) -> Result<Vec<Check>, TargetError> {
        delegate!(self, target => target.in_the_way(movement))
    }
    async fn carry_over(&self, movement: &Move<'_>) -> Result<Vec<Swept>, TargetError> {
        delegate!(self, target => target.carry_over(movement))
    }
    async fn discard(&self, movement: &Move<'_>) -> Result<(), TargetError> {
        delegate!(self, target => target.discard(movement))
    }
    async fn swap(&self, movement: &Move<'_>, incoming: &DatabaseName) -> Result<(), TargetError> {
        delegate!(self, target => target.swap(movement, incoming))
    }
    async fn settle(&self, movement: &Move<'_>, incoming: &DatabaseName) -> Result<Standing, TargetError> {
        delegate!(self, target => target.settle(movement, incoming))
    }
    async fn drop_kept(&self, database: &DatabaseName) -> Result<(), TargetError> {
        delegate!(self, target => target.drop_kept(database))
    }
    async fn export(&self, movement: &Move<'_>, file: &Path) -> Result<Made, TargetError> {
        delegate!(self, target => target.export(movement, file))
    }
    async fn sessions(&self, database: &DatabaseName) -> Result<Vec<SessionAt>, TargetError> {
        delegate!(self, target => target.sessions(database))
    }
    async fn rules(&self, database: &DatabaseName) -> Result<Vec<Rule>, TargetError> {
        delegate!(self, target => target.rules(database))
    }
    async fn set_rule(&self, database: &DatabaseName, rule: &Rule) -> Result<(), TargetError> {
        delegate!(self, target => target.set_rule(database, rule))
    }
    async fn remove_rule(&self, database: &DatabaseName, rule: &Rule) -> Result<(), TargetError> {
        delegate!(self, target => target.remove_rule(database, rule))
    }
}
