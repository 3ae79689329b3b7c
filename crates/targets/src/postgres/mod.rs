//! PostgreSQL 13 to 18, with an administrator role that need not be a superuser.
//!
//! Accounts are roles that bear a comment `daypass <store> <pass>`; rights come by membership in a group role per
//! environment and access level, so that thousands of accounts leave nothing in the catalogs' access lists.
//!
//! Server-wide work goes through a connection to the maintenance database, never through an idle one to an environment's own:
//! that would stand in the way of whoever renames or drops it.

mod drift;
pub mod grants;
mod movement;
mod removal;

pub use removal::by_hand;

use crate::{
    AccountSpec, Check, Estate, Target, TargetError,
    movement::{Move, Source, Standing},
};
use daypass_core::{
    drift::Finding,
    environment::{Grants, Identity, TargetSpec},
    ids::*,
    movement::{Made, Swept},
    names::{DatabaseName, RoleName},
    pass::Access,
    plan::{Observation, ObservedAccount},
    secret::Secret,
};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::{
    collections::BTreeSet,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A connect and login that takes longer is given up.
const CONNECT: Duration = Duration::from_secs(10);
/// A statement that takes longer is given up, on both sides.
const STATEMENT: Duration = Duration::from_secs(30);
/// Everything that server-wide work needs is in here; it always exists, and nobody renames it.
const MAINTENANCE: &str = "postgres";

pub struct Postgres {
    spec: TargetSpec,
    password: Secret,
    tls: Option<Arc<rustls::ClientConfig>>,
    store: StoreId,
    /// The connection to the maintenance database, kept between looks.
    server: Mutex<Option<Client>>,
}

impl Postgres {
    /// `tls` is none only for a target whose environment says in plain words that it has no TLS.
    pub fn new(spec: TargetSpec, password: Secret, tls: Option<Arc<rustls::ClientConfig>>, store: StoreId) -> Self {
        Postgres { spec, password, tls, store, server: Mutex::new(None) }
    }

    fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host(self.spec.host.as_str())
            .port(self.spec.port)
            .user(&self.spec.admin)
            .password(self.password.expose())
            .dbname(database)
            .application_name("daypass keeper")
            .connect_timeout(CONNECT)
            // names in our statements are qualified; nothing that a user planted in a schema is found first
            .options(
                "-c search_path=pg_catalog -c lock_timeout=2s -c statement_timeout=30s -c idle_in_transaction_session_timeout=60s -c client_min_messages=error",
            )
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config
    }

    /// A fresh connection as administrator.
    async fn connect(&self, database: &str) -> Result<Client, TargetError> {
        let config = self.config(database);
        let connecting = async {
            match &self.tls {
                Some(tls) => {
                    let (client, connection) = config.connect(MakeRustlsConnect::new((**tls).clone())).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
            }
        };
        tokio::time::timeout(CONNECT, connecting).await.map_err(|_| TargetError::Silent(CONNECT.as_secs()))?
    }

    /// Runs server-wide work on the kept connection; a connection that failed is thrown away.
    async fn on_server<T, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T, TargetError>
    where
        F: Future<Output = (Client, Result<T, TargetError>)>,
    {
        let mut kept = self.server.lock().await;
        let client = match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect(MAINTENANCE).await?,
        };
        let (client, result) = tokio::time::timeout(STATEMENT, work(client)).await.map_err(|_| TargetError::Silent(STATEMENT.as_secs()))?;
        if !matches!(result, Err(TargetError::Unreachable(_))) {
            *kept = Some(client);
        }
        result
    }

    /// The comment that marks an account as ours.
    fn marker(&self, pass: PassId) -> String {
        format!("daypass {} {pass}", self.store)
    }
}

/// The group role of an environment and access level.
fn group(environment: EnvironmentId, access: Access) -> String {
    format!("daypass_{}_{}", environment.uuid().simple(), access.as_str())
}

impl Target for Postgres {
    async fn identity(&self, _environment: EnvironmentId, database: &DatabaseName) -> Result<Identity, TargetError> {
        self.on_server(|client| async move {
            let result = identity(&client, database).await;
            (client, result)
        })
        .await
    }

    async fn position(&self) -> Result<Option<u64>, TargetError> {
        self.on_server(|client| async move {
            let look = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
                        ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::bigint END";
            let result = async { Ok(client.query_one(look, &[]).await?.try_get::<_, Option<i64>>(0)?.map(i64::cast_unsigned)) }.await;
            (client, result)
        })
        .await
    }

    async fn observe(&self, _databases: &[DatabaseName]) -> Result<Observation, TargetError> {
        let pattern = format!("daypass {} %", self.store);
        self.on_server(|client| async move {
            let result = observe(&client, &pattern).await;
            (client, result)
        })
        .await
    }

    async fn provide(&self, spec: &AccountSpec<'_>) -> Result<(), TargetError> {
        grants::ensure(self, spec.environment, spec.database, Some(spec.access), spec.grants).await?;
        self.on_server(|mut client| async move {
            let result = provide(&mut client, spec, &self.marker(spec.pass)).await;
            (client, result)
        })
        .await
    }

    async fn refresh_grants(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
        grants::ensure(self, environment, database, None, Grants::Granted).await
    }

    async fn remains(&self, account: &str, _databases: &[DatabaseName]) -> Result<Vec<String>, TargetError> {
        removal::remains(self, account).await
    }

    async fn remove(&self, account: &str, _databases: &[DatabaseName], estate: Estate<'_>) -> Result<(), TargetError> {
        removal::remove(self, account, estate).await
    }

    async fn sweep_marked(&self, environment: EnvironmentId, database: &DatabaseName, _theirs: &BTreeSet<String>) -> Result<Vec<Swept>, TargetError> {
        let ours = [Access::Read, Access::ReadWrite].map(|access| group(environment, access));
        movement::sweep_marked(self, &self.store.to_string(), &ours, database.as_str()).await
    }

    async fn drift(&self, databases: &[DatabaseName], ours: &BTreeSet<String>) -> Result<Vec<Finding>, TargetError> {
        drift::look(self, databases, ours).await
    }

    async fn end_drift(&self, finding: &Finding) -> Result<(), TargetError> {
        drift::end(self, finding).await
    }

    async fn kill(&self, account: &str, pid: u32, _database: &DatabaseName) -> Result<(), TargetError> {
        self.on_server(|client| async move {
            // the account's name stands beside the pid: a pid that was given away again is somebody else
            let kill = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND usename = $2";
            let result = client.execute(kill, &[&(pid as i32), &account]).await;
            (client, result.map(drop).map_err(TargetError::from))
        })
        .await
    }

    async fn set_password(&self, _database: &DatabaseName, account: &RoleName, password: &Secret) -> Result<(), TargetError> {
        if account.as_str() == self.spec.admin || account.as_str().starts_with("jit_") || account.as_str().starts_with("daypass_") {
            return Err(TargetError::Refused(format!("{account} belongs to Daypass itself, and is no standing account")));
        }
        self.on_server(|client| async move {
            // the password itself never reaches the server, nor its log
            let verifier = postgres_protocol::password::scram_sha_256(password.expose().as_bytes());
            let sql = format!("ALTER ROLE {} PASSWORD {}", escape_identifier(account.as_str()), escape_literal(&verifier));
            let result = client.batch_execute(&sql).await.map_err(TargetError::from);
            (client, result)
        })
        .await
    }

    async fn test(&self, database: &DatabaseName) -> Vec<Check> {
        grants::test(self, database).await
    }

    async fn run_scripts(&self, movement: &Move<'_>, scripts: &[PathBuf]) -> Result<Vec<Swept>, TargetError> {
        movement::run_scripts(self, movement, scripts).await
    }

    async fn copy(&self, movement: &Move<'_>, source: &Source<'_>) -> Result<(), TargetError> {
        movement::copy(self, movement, source).await
    }

    async fn sweep(&self, movement: &Move<'_>, scripts: &[PathBuf]) -> Result<Vec<Swept>, TargetError> {
        movement::sweep(self, movement, scripts).await
    }

    async fn swap(&self, movement: &Move<'_>, incoming: &DatabaseName) -> Result<(), TargetError> {
        movement::swap(self, movement, incoming).await
    }

    async fn settle(&self, movement: &Move<'_>, incoming: &DatabaseName) -> Result<Standing, TargetError> {
        movement::settle(self, movement, incoming).await
    }

    async fn drop_kept(&self, database: &DatabaseName) -> Result<(), TargetError> {
        movement::drop_kept(self, database).await
    }

    async fn export(&self, movement: &Move<'_>, file: &Path) -> Result<Made, TargetError> {
        movement::export(self, movement, file).await
    }
}

async fn identity(client: &Client, database: &DatabaseName) -> Result<Identity, TargetError> {
    let look = "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system())::text, \
                (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = $1)";
    let row = client.query_one(look, &[&database.as_str()]).await?;
    let (system, oid): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let oid = oid.ok_or_else(|| TargetError::NoDatabase(database.to_string()))?;
    Ok(Identity(format!("postgres:{system}:{oid}")))
}

async fn observe(client: &Client, pattern: &str) -> Result<Observation, TargetError> {
    let look = "SELECT r.rolname::text, r.rolcanlogin, \
                (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid) \
                FROM pg_catalog.pg_roles r \
                JOIN pg_catalog.pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::regclass \
                WHERE d.description LIKE $1 AND r.rolname LIKE 'jit\\_%' ORDER BY 1";
    let rows = client.query(look, &[&pattern]).await?;
    let account = |row: &tokio_postgres::Row| -> Result<ObservedAccount, TargetError> {
        Ok(ObservedAccount { name: row.try_get(0)?, can_login: row.try_get(1)?, backends: row.try_get::<_, i64>(2)?.try_into().unwrap_or(u32::MAX) })
    };
    Ok(Observation { accounts: rows.iter().map(account).collect::<Result<_, _>>()?, ..Observation::default() })
}

/// Account, marker and rights in one transaction: there is never one without the others.
async fn provide(client: &mut Client, spec: &AccountSpec<'_>, marker: &str) -> Result<(), TargetError> {
    let tx = client.transaction().await?;
    // the target's own clock decides when its account stops working, rounded down
    let until = "SELECT (pg_catalog.date_trunc('second', pg_catalog.now()) + pg_catalog.make_interval(secs => $1))::text, \
                 EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $2)";
    let row = tx.query_one(until, &[&(spec.left.as_seconds() as f64), &spec.account.as_str()]).await?;
    let (until, exists): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let role = escape_identifier(spec.account.as_str());
    // what is not said here is off for a new role; from 16 on, only who has CREATEDB may even say NOCREATEDB of an old one
    let verb = if exists { "ALTER" } else { "CREATE" };
    let mut sql = format!(
        "{verb} ROLE {role} LOGIN INHERIT PASSWORD {} VALID UNTIL {} CONNECTION LIMIT {};\
         COMMENT ON ROLE {role} IS {};",
        escape_literal(spec.verifier),
        escape_literal(&until),
        spec.connections,
        escape_literal(marker),
    );
    let mut groups = vec![group(spec.environment, spec.access)];
    if spec.grants == Grants::Predefined {
        groups.push("pg_read_all_data".to_owned());
        groups.extend((spec.access == Access::ReadWrite).then(|| "pg_write_all_data".to_owned()));
    }
    for group in groups {
        sql.push_str(&format!("GRANT {} TO {role};", escape_identifier(&group)));
    }
    tx.batch_execute(&sql).await?;
    tx.commit().await?;
    Ok(())
}
