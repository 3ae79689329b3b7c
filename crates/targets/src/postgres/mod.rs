//! PostgreSQL 13 to 18, with an administrator role that need not be a superuser.
//!
//! Accounts are roles that bear a comment `daypass <store> <pass>`; rights come by membership in a group role per
//! environment and access level, so that thousands of accounts leave nothing in the catalogs' access lists.
//!
//! Server-wide work goes through a connection to the maintenance database, never through an idle one to an environment's own:
//! that would stand in the way of whoever renames or drops it.

mod drift;
mod estate;
pub mod grants;
mod movement;
mod removal;
mod sure;
mod test;

#[cfg(test)]
pub use movement::documented;

pub use removal::by_hand;

use crate::{
    AccountSpec, Check, Estate, Known, Taken, Target, TargetError,
    movement::{Move, Scripts, Source, Standing},
};
use daypass_core::{
    drift::Finding,
    environment::{Grants, Identity, TargetSpec},
    ids::*,
    movement::{Made, Swept},
    names::{AccountName, DatabaseName, RoleName},
    pass::Access,
    plan::{Backend, Observation, ObservedAccount},
    secret::Secret,
};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls, config::SslMode, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A connect and login that takes longer is given up.
const CONNECT: Duration = Duration::from_secs(10);
/// A statement that takes longer is given up, on both sides.
const STATEMENT: Duration = Duration::from_secs(30);
/// Everything that server-wide work needs is in here; it always exists, and nobody renames it.
const MAINTENANCE: &str = "postgres";

/// What a connection is for, and what it may wait for.
#[derive(Clone, Copy)]
enum Use {
    /// Looks, and work on one database.
    Work,
    /// Ends access: it waits for nobody's lock, and what it did is put right by the next look if the server crashes on it.
    Ends,
    /// Lets the gateway's logins in. The same, and shorter: a person who holds on to their own role holds up nobody else's login.
    Doors,
    /// Ends others whatever they hold.
    Sure,
}

impl Use {
    /// How long one piece of work may take before the connection is thrown away.
    fn patience(self) -> Duration {
        match self {
            Use::Work => STATEMENT,
            Use::Ends => Duration::from_secs(10),
            Use::Doors | Use::Sure => Duration::from_secs(5),
        }
    }

    fn options(self) -> &'static str {
        match self {
            Use::Work => "-c lock_timeout=2s -c statement_timeout=30s -c idle_in_transaction_session_timeout=60s",
            Use::Ends => "-c lock_timeout=500ms -c statement_timeout=5s -c idle_in_transaction_session_timeout=10s -c synchronous_commit=off",
            Use::Sure => "-c lock_timeout=500ms -c statement_timeout=2s -c idle_in_transaction_session_timeout=0",
            Use::Doors => "-c lock_timeout=200ms -c statement_timeout=2s -c idle_in_transaction_session_timeout=10s -c synchronous_commit=off",
        }
    }
}

/// What a connection of ours says of itself, because who owns a database may set all of it for everybody who connects there (ALTER DATABASE ... SET),
/// and what is said at the start counts more. Names in our statements are qualified; nothing that a user planted in a schema is found first.
const OURS: &str = "-c search_path=pg_catalog -c client_min_messages=error -c role=none -c default_transaction_read_only=off \
    -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off -c standard_conforming_strings=on -c exit_on_error=off \
    -c transform_null_equals=off -c row_security=on -c local_preload_libraries= -c DateStyle=ISO -c TimeZone=UTC";

/// The same with what newer servers know; one that answers 42704 (undefined_object) is older.
const SINCE: [&str; 3] = ["-c idle_session_timeout=0 -c transaction_timeout=0", "-c idle_session_timeout=0", ""];

/// Connections that stay open beside what our accounts may take, for the work of a moment.
const HEADROOM: i64 = 7;

pub struct Postgres {
    spec: TargetSpec,
    password: Secret,
    tls: Option<Arc<rustls::ClientConfig>>,
    store: StoreId,
    /// The connections to the maintenance database, kept between looks: one for looks, one for ends, one for logins. The last two are
    /// opened before anybody is let in, so that nobody can take the last slot before them.
    server: Mutex<Option<Client>>,
    ends: Mutex<Option<Client>>,
    doors: Mutex<Option<Client>>,
    /// And one that ends connections whatever they hold.
    sure: Mutex<Option<sure::Sure>>,
    /// When the groups of an environment were last seen to have all rights. Two looks at once on one database would grant the same twice and fail on each other's rows. In here and not on the server: there it would
    /// be a lock that anybody could take.
    granting: Mutex<HashMap<(EnvironmentId, Access), Instant>>,
    /// Which of SINCE it knows, as far as it was asked.
    since: AtomicUsize,
    /// Where connections live: those that end access depend on no thread that does anything else.
    home: tokio::runtime::Handle,
}

impl Postgres {
    /// `tls` is none only for a target whose environment says in plain words that it has no TLS. Its connections live on the runtime that this
    /// is called on.
    pub fn new(spec: TargetSpec, password: Secret, tls: Option<Arc<rustls::ClientConfig>>, store: StoreId) -> Self {
        Postgres {
            spec,
            password,
            tls,
            store,
            server: Mutex::new(None),
            ends: Mutex::new(None),
            doors: Mutex::new(None),
            sure: Mutex::new(None),
            granting: Mutex::default(),
            since: AtomicUsize::new(0),
            home: tokio::runtime::Handle::current(),
        }
    }

    fn config(&self, database: &str, purpose: Use) -> Config {
        let mut config = Config::new();
        config
            .host(self.spec.host.as_str())
            .port(self.spec.port)
            .user(&self.spec.admin)
            .password(self.password.expose())
            .dbname(database)
            .application_name("daypass keeper")
            .connect_timeout(CONNECT)
            .options(format!("{OURS} {} {}", purpose.options(), SINCE[self.since.load(Ordering::Relaxed)]))
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config
    }

    /// A fresh connection as administrator.
    async fn connect(&self, database: &str) -> Result<Client, TargetError> {
        self.connect_for(database, Use::Work).await
    }

    async fn connect_for(&self, database: &str, purpose: Use) -> Result<Client, TargetError> {
        loop {
            let asked = self.since.load(Ordering::Relaxed);
            match self.connect_with(self.config(database, purpose)).await {
                Err(error) if error.is_unknown_setting() && asked + 1 < SINCE.len() => self.since.store(asked + 1, Ordering::Relaxed),
                done => return done,
            }
        }
    }

    /// A connection to clean up behind an account, also into a database whose owner keeps us out: who has its rights may, and so may we. One that takes
    /// nobody (ALLOW_CONNECTIONS false) is left closed: a movement closes it so, to exchange it.
    async fn connect_to_clean(&self, database: &str) -> Result<Client, TargetError> {
        let refused = match self.connect(database).await {
            Err(error @ TargetError::Refused(_)) => error,
            done => return done,
        };
        let server = self.connect(MAINTENANCE).await?;
        let asked = "SELECT datconnlimit, pg_catalog.has_database_privilege(oid, 'CONNECT') FROM pg_catalog.pg_database WHERE datname = $1";
        let Some(row) = server.query_opt(asked, &[&database]).await? else { return Err(refused) };
        let (limit, may_connect): (i32, bool) = (row.try_get(0)?, row.try_get(1)?);
        let name = escape_identifier(database);
        if !may_connect {
            server.batch_execute(&format!("GRANT CONNECT ON DATABASE {name} TO CURRENT_USER")).await?;
        }
        if limit != -1 {
            server.batch_execute(&format!("ALTER DATABASE {name} CONNECTION LIMIT -1")).await?;
        }
        let done = self.connect(database).await;
        if limit != -1 {
            server.batch_execute(&format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}")).await?;
        }
        done
    }

    /// A connection as somebody else than the administrator.
    async fn connect_as(&self, account: &AccountName, password: &Secret, database: &DatabaseName) -> Result<Client, TargetError> {
        let mut config = self.config(database.as_str(), Use::Work);
        config.user(account.as_str()).password(password.expose());
        // what the owner says of the database is what a person meets there
        config.options(format!("-c search_path=pg_catalog -c client_min_messages=error {}", Use::Work.options()));
        self.connect_with(config).await
    }

    async fn connect_with(&self, config: Config) -> Result<Client, TargetError> {
        let tls = self.tls.clone();
        let connecting = async move {
            match tls {
                Some(tls) => {
                    let (client, connection) = config.connect(MakeRustlsConnect::new((*tls).clone())).await?;
                    tokio::spawn(connection);
                    Ok::<_, TargetError>(client)
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
            }
        };
        let connected = self.home.spawn(tokio::time::timeout(CONNECT, connecting)).await;
        connected.map_err(|error| TargetError::Unreachable(error.to_string()))?.map_err(|_| TargetError::Silent(CONNECT.as_secs()))?
    }

    /// Asks the server to stop what this connection is doing.
    async fn cancel(&self, client: &Client) -> Result<(), TargetError> {
        let token = client.cancel_token();
        match self.tls.clone() {
            Some(tls) => token.cancel_query(MakeRustlsConnect::new((*tls).clone())).await?,
            None => token.cancel_query(NoTls).await?,
        }
        Ok(())
    }

    /// Runs server-wide work on the kept connection; a connection that failed is thrown away.
    async fn on_server<T, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T, TargetError>
    where
        F: Future<Output = (Client, Result<T, TargetError>)>,
    {
        self.on_kept(&self.server, Use::Work, work).await
    }

    async fn on_kept<T, F>(&self, kept: &Mutex<Option<Client>>, purpose: Use, work: impl FnOnce(Client) -> F) -> Result<T, TargetError>
    where
        F: Future<Output = (Client, Result<T, TargetError>)>,
    {
        let mut kept = kept.lock().await;
        let client = match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect_for(MAINTENANCE, purpose).await?,
        };
        let patience = purpose.patience();
        let (client, result) = tokio::time::timeout(patience, work(client)).await.map_err(|_| TargetError::Silent(patience.as_secs()))?;
        if !matches!(result, Err(TargetError::Unreachable(_))) {
            *kept = Some(client);
        }
        result
    }

    /// On the connection that has taken all that it takes; one that failed is thrown away.
    async fn surely(&self, accounts: &[String], backends: &[Backend]) -> Result<(), TargetError> {
        let mut kept = self.sure.lock().await;
        let patience = Use::Sure.patience();
        let ending = async {
            let mut sure = match kept.take().filter(sure::Sure::is_of_use) {
                Some(sure) => sure,
                None => sure::Sure::hold(self.connect_for(MAINTENANCE, Use::Sure).await?).await?,
            };
            let done = match accounts.is_empty() && backends.is_empty() {
                true => sure.look().await,
                false => sure.end(accounts, backends).await,
            };
            // one whose transaction is gone is made anew
            *kept = Some(sure).filter(sure::Sure::is_of_use);
            done
        };
        tokio::time::timeout(patience, ending).await.unwrap_or(Err(TargetError::Silent(patience.as_secs())))
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

    async fn adopt(&self, _environment: EnvironmentId, _database: &DatabaseName) -> Result<(), TargetError> {
        // what was granted was granted in the database of before
        self.granting.lock().await.clear();
        Ok(())
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

    async fn reserve(&self) -> Result<(), TargetError> {
        for (kept, purpose) in [(&self.ends, Use::Ends), (&self.doors, Use::Doors)] {
            self.on_kept(kept, purpose, |client| async move { (client, Ok(())) }).await?;
        }
        self.surely(&[], &[]).await
    }

    async fn end_now(&self, accounts: &[String], backends: &[Backend]) -> Result<(), TargetError> {
        // a server that is away is not asked twice
        if accounts.is_empty() && backends.is_empty() && self.sure.lock().await.is_none() {
            return Ok(());
        }
        self.surely(accounts, backends).await
    }

    async fn observe(&self, _databases: &[DatabaseName], names: &[String]) -> Result<Observation, TargetError> {
        let pattern = format!("daypass {} %", self.store);
        self.on_kept(&self.ends, Use::Ends, |client| async move {
            let result = observe(&client, &pattern, names).await;
            (client, result)
        })
        .await
    }

    async fn shut(&self, accounts: &[String], backends: &[Backend], _databases: &[DatabaseName]) -> Result<(), TargetError> {
        self.on_kept(&self.ends, Use::Ends, |client| async move {
            let result = removal::shut(self, &client, accounts, backends).await;
            (client, result)
        })
        .await
    }

    async fn open_door(&self, account: &str, verifier: &str) -> Result<(), TargetError> {
        let sql = format!("ALTER ROLE {} LOGIN PASSWORD {}", escape_identifier(account), escape_literal(verifier));
        self.on_kept(&self.doors, Use::Doors, |client| async move {
            let result = removal::alter(&client, &sql).await;
            (client, result.map_err(TargetError::from))
        })
        .await
    }

    async fn close_doors(&self, accounts: &[String]) -> Result<(), TargetError> {
        self.on_kept(&self.doors, Use::Doors, |client| async move {
            let mut all = Ok(());
            for account in accounts {
                let closed = removal::alter(&client, &format!("ALTER ROLE {} NOLOGIN", escape_identifier(account))).await;
                let closed = match removal::but_for_the_missing(closed) {
                    // somebody inside holds the door open: then nobody of that account stays inside
                    Err(error) if error.is_held_on_to() => {
                        tracing::warn!(account, %error, "an account's role is held on to from inside; all its connections are ended");
                        removal::evict(self, &client, account).await
                    }
                    closed => closed,
                };
                all = all.and(closed);
            }
            (client, all)
        })
        .await
    }

    async fn tidy_groups(&self, environment: EnvironmentId, database: &DatabaseName, estate: Estate<'_>) -> Result<Vec<Swept>, TargetError> {
        estate::tidy_groups(self, environment, database, estate).await
    }

    async fn outranks(&self, account: &RoleName) -> Result<Option<String>, TargetError> {
        self.on_server(|client| async move {
            // from 16 on a role is altered by those only who may give it to others
            let look = "SELECT a.rolsuper AND NOT me.rolsuper, NOT me.rolsuper AND pg_catalog.current_setting('server_version_num')::int >= 160000 \
                        AND NOT pg_catalog.pg_has_role(me.oid, a.oid, 'MEMBER WITH ADMIN OPTION') \
                        FROM pg_catalog.pg_roles a, pg_catalog.pg_roles me WHERE a.rolname = $1 AND me.rolname = current_user";
            let result = async {
                let (above, beside) = match client.query_opt(look, &[&account.as_str()]).await? {
                    Some(row) => (row.try_get::<_, bool>(0)?, row.try_get::<_, bool>(1)?),
                    None => (false, false),
                };
                if beside && !above {
                    return Ok(Some(format!(
                        "the administrator {0} may not change {account}: its password could not be put back. As a superuser: GRANT {1} TO {2} WITH ADMIN OPTION",
                        self.spec.admin,
                        escape_identifier(account.as_str()),
                        escape_identifier(&self.spec.admin)
                    )));
                }
                Ok(above.then(|| {
                    format!(
                        "{account} is a superuser, and the administrator {} is none: its sessions could not be ended, and its password not be put back. \
                         ALTER ROLE {account} NOSUPERUSER, or use an account that is none",
                        self.spec.admin
                    )
                }))
            };
            let result = result.await;
            (client, result)
        })
        .await
    }

    fn rights(&self, environment: EnvironmentId, access: Access, grants: Grants, sessions: u16) -> BTreeSet<String> {
        let mut roles = BTreeSet::from([group(environment, access), format!("{LIMIT}{}", limit(sessions))]);
        if grants == Grants::Predefined {
            roles.insert("pg_read_all_data".to_owned());
            roles.extend((access == Access::ReadWrite).then(|| "pg_write_all_data".to_owned()));
        }
        roles
    }

    async fn provide(&self, spec: &AccountSpec<'_>) -> Result<(), TargetError> {
        grants::ensure(self, spec.environment, spec.database, Some(spec.access), spec.grants).await?;
        self.on_server(|mut client| async move {
            let rights = self.rights(spec.environment, spec.access, spec.grants, spec.sessions);
            let result = provide(&mut client, spec, &rights, &self.marker(spec.pass)).await;
            (client, result)
        })
        .await
    }

    async fn refresh_grants(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
        grants::ensure(self, environment, database, None, Grants::Granted).await
    }

    async fn remains(&self, account: &str, _databases: &[DatabaseName]) -> Result<Vec<String>, TargetError> {
        estate::remains(self, account).await
    }

    async fn remove(&self, account: &str, _databases: &[DatabaseName], estate: Estate<'_>) -> Result<(), TargetError> {
        removal::remove(self, account, estate).await
    }

    async fn sweep_marked(&self, environment: EnvironmentId, database: &DatabaseName, _theirs: &Known<'_>) -> Result<Vec<Swept>, TargetError> {
        let [read, write] = [Access::Read, Access::ReadWrite].map(|access| group(environment, access));
        let ours = [read, write, estate::of(Some(environment))];
        movement::sweep_marked(self, &self.store.to_string(), &ours, database.as_str()).await
    }

    async fn drift(&self, databases: &[DatabaseName], ours: &Known<'_>) -> Result<Vec<Finding>, TargetError> {
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
        self.on_kept(&self.ends, Use::Ends, |client| async move {
            // the password itself never reaches the server, nor its log
            let verifier = postgres_protocol::password::scram_sha_256(password.expose().as_bytes());
            let sql = format!("ALTER ROLE {} PASSWORD {}", escape_identifier(account.as_str()), escape_literal(&verifier));
            let set = async {
                match removal::alter(&client, &sql).await {
                    // something that was prepared as this account holds on to it
                    Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                        removal::let_go(self, &client, &[account.to_string()]).await?;
                        let done = removal::alter(&client, &sql).await;
                        if done.as_ref().is_err_and(|error| error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)) {
                            // somebody who is in holds on to it
                            removal::kill_all(&client, account.as_str()).await?;
                            return Ok(removal::alter(&client, &sql).await?);
                        }
                        Ok(done?)
                    }
                    done => Ok(done?),
                }
            };
            let result = set.await;
            (client, result)
        })
        .await
    }

    async fn take_back(
        &self,
        _database: &DatabaseName,
        account: &RoleName,
        password: &Secret,
        ours: &[u32],
        waiting: &mut Option<Vec<u32>>,
    ) -> Result<Taken, TargetError> {
        self.on_kept(&self.ends, Use::Ends, |client| async move {
            let verifier = postgres_protocol::password::scram_sha_256(password.expose().as_bytes());
            let result = removal::take_back(self, &client, account.as_str(), &verifier, ours, waiting).await;
            (client, result)
        })
        .await
    }

    async fn test(&self, database: &DatabaseName) -> Vec<Check> {
        test::administrator(self, database).await
    }

    async fn look_around(&self, account: &AccountName, password: &Secret, database: &DatabaseName, access: Access) -> Result<Vec<Check>, TargetError> {
        test::look_around(self, account, password, database, access).await
    }

    async fn forget(&self, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
        grants::forget(self, environment, database).await
    }

    async fn run_scripts(&self, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
        movement::run_scripts(self, movement, scripts).await
    }

    async fn copy(&self, movement: &Move<'_>, source: &Source<'_>) -> Result<(), TargetError> {
        movement::copy(self, movement, source).await
    }

    async fn sweep(&self, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
        movement::sweep(self, movement, scripts).await
    }

    async fn look_ahead(&self, movement: &Move<'_>, source: Option<&Source<'_>>) -> Result<Vec<Check>, TargetError> {
        movement::look_ahead(self, movement, source).await
    }

    async fn in_the_way(&self, movement: &Move<'_>) -> Result<Vec<Check>, TargetError> {
        movement::in_the_way(self, movement).await
    }

    async fn carry_over(&self, movement: &Move<'_>) -> Result<Vec<Swept>, TargetError> {
        movement::carry_over(self, movement).await
    }

    async fn discard(&self, movement: &Move<'_>) -> Result<(), TargetError> {
        movement::discard(self, movement).await
    }

    async fn swap(&self, movement: &Move<'_>, incoming: &DatabaseName) -> Result<(), TargetError> {
        // what was granted was granted in the database of before
        self.granting.lock().await.clear();
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

/// Workers that a statement of theirs started bear the same role, and end with it. Each table is read once, however many accounts there are: nothing
/// here is a look-up for each of them, since a catalog that grew by a thousand rows has no statistics yet.
const LOOK: &str = "
WITH marked AS MATERIALIZED (SELECT d.objoid FROM pg_catalog.pg_shdescription d
                              WHERE d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.description LIKE $1),
ours AS MATERIALIZED (SELECT r.* FROM pg_catalog.pg_roles r
                       WHERE r.rolname = ANY($2) OR r.rolname LIKE 'jit\\_%' AND r.oid IN (SELECT objoid FROM marked)),
of AS MATERIALIZED (SELECT m.member, pg_catalog.array_agg(g.rolname::text) AS roles FROM pg_catalog.pg_auth_members m
                      JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member IN (SELECT oid FROM ours) GROUP BY m.member)
SELECT r.rolname::text, r.rolcanlogin,
       CASE WHEN pg_catalog.isfinite(r.rolvaliduntil)
            THEN pg_catalog.floor(pg_catalog.date_part('epoch', r.rolvaliduntil - pg_catalog.clock_timestamp()))::bigint
            ELSE 9223372036854775807 END,
       a.pid, of.roles, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls, r.rolconnlimit
  FROM ours r LEFT JOIN of ON of.member = r.oid LEFT JOIN pg_catalog.pg_stat_activity a ON a.usesysid = r.oid AND a.leader_pid IS NULL
 ORDER BY 1";

/// Roles that an account is a member of, and attributes.
fn rights_of(row: &tokio_postgres::Row, at: usize) -> Result<BTreeSet<String>, TargetError> {
    let mut rights: BTreeSet<String> = row.try_get::<_, Option<Vec<String>>>(at)?.into_iter().flatten().collect();
    for (name, n) in ATTRIBUTES.iter().zip(at + 1..) {
        if row.try_get(n)? {
            rights.insert(format!("{ATTRIBUTE}{name}"));
        }
    }
    rights.insert(format!("{LIMIT}{}", row.try_get::<_, i32>(at + 1 + ATTRIBUTES.len())?));
    Ok(rights)
}

/// What is left when all others, and our own work of a moment, have their connections.
const ROOM: &str = "
SELECT pg_catalog.current_setting('max_connections')::bigint - pg_catalog.current_setting('superuser_reserved_connections')::bigint
       - COALESCE(pg_catalog.current_setting('reserved_connections', true)::bigint, 0)
       - (SELECT count(*) FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
           WHERE a.datid IS NOT NULL AND a.leader_pid IS NULL AND NOT r.rolname = ANY($1))";

async fn observe(client: &Client, pattern: &str, names: &[String]) -> Result<Observation, TargetError> {
    let mut seen = Observation::default();
    for row in client.query(LOOK, &[&pattern, &names]).await? {
        let name: String = row.try_get(0)?;
        if seen.accounts.last().is_none_or(|last| last.name != name) {
            let rights = Some(rights_of(&row, 4)?);
            seen.accounts.push(ObservedAccount { name: name.clone(), can_login: row.try_get(1)?, expires_in: Some(row.try_get(2)?), rights });
        }
        if let Some(pid) = row.try_get::<_, Option<i32>>(3)? {
            seen.backends.push(Backend { account: name, id: pid.cast_unsigned() });
        }
    }
    let ours: Vec<&str> = seen.accounts.iter().map(|account| account.name.as_str()).collect();
    let room: i64 = client.query_one(ROOM, &[&ours]).await?.try_get(0)?;
    seen.room = Some(u32::try_from((room - HEADROOM).max(0)).unwrap_or(u32::MAX));
    Ok(seen)
}

/// Account, marker and rights in one transaction: there is never one without the others.
async fn provide(client: &mut Client, spec: &AccountSpec<'_>, rights: &BTreeSet<String>, marker: &str) -> Result<(), TargetError> {
    let tx = client.transaction().await?;
    // the target's own clock decides when its account stops working
    let until = "SELECT (pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $1))::text, \
                 EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $2), pg_catalog.current_setting('server_version_num')::int";
    let row = tx.query_one(until, &[&spec.left.as_secs_f64(), &spec.account.as_str()]).await?;
    let (until, exists, version): (String, bool, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let role = escape_identifier(spec.account.as_str());
    // what is not said here is off for a new role; from 16 on, only who has CREATEDB may even say NOCREATEDB of an old one. It cannot log
    // in: the gateway lets its own logins in, one by one. How many sessions it may have is counted there as well
    let verb = if exists { "ALTER" } else { "CREATE" };
    let mut sql = format!(
        // what a crash of the server takes away, the next look makes again
        "SET LOCAL synchronous_commit = off; {verb} ROLE {role} NOLOGIN INHERIT PASSWORD {} VALID UNTIL {} CONNECTION LIMIT {};\
         COMMENT ON ROLE {role} IS {};",
        escape_literal(spec.verifier),
        escape_literal(&until),
        limit(spec.sessions),
        escape_literal(marker),
    );
    // nobody becomes the group, so that nothing is made as it; servers before 16 cannot say so
    let with = if version >= 160_000 { " WITH INHERIT TRUE, SET FALSE" } else { "" };
    for group in rights.iter().filter(|right| !right.starts_with(LIMIT)) {
        sql.push_str(&format!("GRANT {} TO {role}{with};", escape_identifier(group)));
    }
    // the administrator joins it when there is something to put away, and not before: a member of a thousand roles pays for all of them at
    // each statement
    tx.batch_execute(&sql).await?;
    tx.commit().await?;
    if exists { take_the_rest(client, spec.account.as_str(), rights).await } else { Ok(()) }
}

/// What an account has beside what it is for was given to it by somebody, or was right under other settings.
async fn take_the_rest(client: &Client, account: &str, rights: &BTreeSet<String>) -> Result<(), TargetError> {
    let role = escape_identifier(account);
    let has = async || {
        let row = client.query_one(RIGHTS, &[&account]).await?;
        let rest = rights_of(&row, 0)?.into_iter().filter(|right| !rights.contains(right) && !right.starts_with(LIMIT));
        Ok::<Vec<String>, TargetError>(rest.collect())
    };
    for right in has().await? {
        let sql = match right.strip_prefix(ATTRIBUTE) {
            Some(attribute) => format!("ALTER ROLE {role} NO{attribute}"),
            None => format!("REVOKE {} FROM {role}", escape_identifier(&right)),
        };
        removal::alter(client, &sql).await?;
    }
    // from 16 on, what somebody else granted is not taken by ours, and the server only warns of it
    let left: Vec<String> = has().await?.iter().map(|right| right.trim_start_matches(ATTRIBUTE).to_owned()).collect();
    if !left.is_empty() {
        return Err(TargetError::Refused(format!("{account} was given {} by somebody else, who has to take it again", left.join(", "))));
    }
    Ok(())
}

const RIGHTS: &str = "
SELECT (SELECT pg_catalog.array_agg(g.rolname::text) FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid),
       r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls, r.rolconnlimit
  FROM pg_catalog.pg_roles r WHERE r.rolname = $1";

const ATTRIBUTES: [&str; 5] = ["SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"];

/// Before an attribute of a role, among its rights: no role has such a name.
const ATTRIBUTE: &str = "\u{1}";

/// Before the limit of a role's connections, among its rights.
const LIMIT: &str = "\u{1}CONNECTION LIMIT ";

/// The gateway counts sessions itself. The server's own limit keeps whoever sets a password of their own, and slips in beside the gateway, from
/// taking the server's last connections in that moment; sessions that have just ended, and are not gone yet, have room beside it.
fn limit(sessions: u16) -> i32 {
    i32::from(sessions) + 10
}
