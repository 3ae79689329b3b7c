//! A stand-in for SQL Server, because there is none to install. What it is and what it is not: README.md beside this file.

mod connection;
pub mod documented;
mod engine;
mod lexer;
mod movement;
mod query;
mod reply;
mod request;
mod state;
mod types;
mod views;

pub use documented::Edition;
pub use state::Fault;

use crate::certificates::Certificates;
use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use state::{Database, Failure, Login, Principal, State, key};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::TcpListener;
use uuid::Uuid;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// TLS in packets, or first of all, as the client begins.
    #[default]
    Tls,
    /// None at all.
    None,
}

/// What kind of server it stands in for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub encryption: Encryption,
    /// As an engine that speaks TDS and is not SQL Server: other error numbers, no `CHECK_POLICY`, no `VIEW DEFINITION`, no
    /// `service_broker_guid`, no MARS.
    pub sparse: bool,
    /// Which SQL Server it is; Azure SQL Database has contained users, a firewall with rules, no `USE`.
    pub edition: Edition,
    /// Keeps what both sides of each connection say, for recordings.
    pub record: bool,
}

impl Options {
    pub(crate) fn azure(&self) -> bool {
        self.edition == Edition::Azure
    }
}

pub struct Server {
    pub(crate) options: Options,
    state: Mutex<State>,
    wrapped: Arc<rustls::ServerConfig>,
    strict: Arc<rustls::ServerConfig>,
    folder: PathBuf,
}

impl Server {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A server on a free port of loopback, on threads of its own; gone when dropped.
pub struct StandIn {
    pub port: u16,
    /// The CA that signed its certificate (PEM).
    pub ca: String,
    server: Arc<Server>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// The administrator that the recipe makes, with its password.
pub const ADMIN: (&str, &str) = ("daypass_admin", "Admin-Secret-1");

impl StandIn {
    /// With `golden` and `uat`, an administrator made as the recipe says, and `sa` with the password `Super-Secret-1`.
    pub fn start(options: Options) -> Result<StandIn> {
        let certificates = Certificates::make()?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates.certificate.as_bytes()).collect::<Result<_, _>>()?;
        let identity = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes())?;
        let config = |versions: &[&'static rustls::SupportedProtocolVersion]| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?.with_no_client_auth();
            builder.with_single_cert(chain.clone(), identity.clone_key())
        };
        let wrapped = config(&[&rustls::version::TLS12])?;
        let mut strict = config(rustls::ALL_VERSIONS)?;
        strict.alpn_protocols = vec![b"tds/8.0".to_vec()];
        let folder = std::env::temp_dir().join(format!("daypass-standin-{}-{}", std::process::id(), Uuid::now_v7().simple()));
        std::fs::create_dir_all(&folder)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let server = Arc::new(Server {
            options,
            state: Mutex::new(State { next_principal: 4, ..State::default() }),
            wrapped: Arc::new(wrapped),
            strict: Arc::new(strict),
            folder,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let serving = server.clone();
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((tcp, peer)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                let server = serving.clone();
                tokio::spawn(async move { connection::serve(server, tcp, peer).await });
            }
        });
        let standin = StandIn { port, ca: certificates.ca, server, runtime: Some(runtime) };
        standin.furnish()?;
        Ok(standin)
    }

    fn furnish(&self) -> Result<()> {
        let login = |name: &str, password: &str, rights: &[&str]| Login {
            name: name.to_owned(),
            password: password.to_owned(),
            sid: Uuid::now_v7().as_bytes().to_vec(),
            disabled: false,
            default_database: "master".to_owned(),
            rights: rights.iter().map(|right| (*right).to_owned()).collect(),
        };
        self.server.with(|state| {
            state.logins.insert("sa".to_owned(), login("sa", "Super-Secret-1", &["*"]));
            // as the recipe gives them, for movements as well
            let rights = ["ALTER ANY LOGIN", "ALTER ANY CONNECTION", "VIEW SERVER STATE", "CREATE ANY DATABASE", "ALTER ANY DATABASE", "dbmanager"];
            state.logins.insert(ADMIN.0.to_owned(), login(ADMIN.0, ADMIN.1, &rights));
        });
        for name in ["master", "golden", "uat"] {
            self.make_database(name)?;
        }
        Ok(())
    }

    /// A database with two schemas, 400 orders, and the administrator as `db_owner`; of an existing one a new one, as after a restore.
    pub fn make_database(&self, name: &str) -> Result<()> {
        let folder = self.server.folder.join(Uuid::now_v7().simple().to_string());
        std::fs::create_dir_all(&folder)?;
        self.server.with(|state| {
            let admin = state.logins.get(ADMIN.0).map(|login| login.sid.clone()).unwrap_or_default();
            state.next_database += 1;
            let mut database = Database {
                name: name.to_owned(),
                id: state.next_database,
                created: created_now(),
                broker: Uuid::now_v7(),
                guid: Uuid::now_v7(),
                fork: Uuid::now_v7(),
                principals: [].into(),
                members: [].into(),
                schemas: [("dbo", "dbo"), ("sales", "dbo")].map(|(schema, owner)| (schema.to_owned(), owner.to_owned())).into(),
                properties: Vec::new(),
                permissions: Vec::new(),
                rules: Vec::new(),
                single_user: false,
                statistics_async: false,
                offline: false,
                trustworthy: false,
                marks: Default::default(),
                triggers: Vec::new(),
                folder: folder.clone(),
            };
            let guest = (name == "master").then_some(("guest", false));
            for (name, is_role) in
                guest.into_iter().chain([("dbo", false), ("db_owner", true), ("db_datareader", true), ("db_datawriter", true), (ADMIN.0, false)])
            {
                let id = state.principal_id();
                let sid = if name == ADMIN.0 { admin.clone() } else { Vec::new() };
                database.principals.insert(name.to_owned(), Principal { name: name.to_owned(), id, sid, is_role, password: None, owner: "dbo".to_owned() });
            }
            database.members.insert(("db_owner".to_owned(), ADMIN.0.to_owned()));
            state.databases.insert(key(name), database);
        });
        self.run(async move {
            let mut connection = query::open(&folder, &["dbo".to_owned(), "sales".to_owned()]).await?;
            let sample = "PRAGMA sales.journal_mode = WAL; PRAGMA dbo.journal_mode = WAL; \
                CREATE TABLE sales.orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, amount REAL NOT NULL, placed TEXT NOT NULL); \
                INSERT INTO sales.orders (customer, amount, placed) \
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) \
                SELECT CASE i % 4 WHEN 0 THEN 'Contoso' WHEN 1 THEN 'Fabrikam' WHEN 2 THEN 'Adventure Works' ELSE 'Northwind' END, 10 + (i * 37 % 990), date('2026-01-01', '+' || (i % 300) || ' days') FROM n; \
                CREATE VIEW sales.by_customer AS SELECT customer, count(*) AS orders, sum(amount) AS total FROM sales.orders GROUP BY customer ORDER BY total DESC; \
                CREATE TABLE dbo.notes (id INTEGER, note TEXT, amount REAL)";
            query::run(&mut connection, sample).await.map(drop).map_err(|e| anyhow::anyhow!(e.text))
        })
    }

    /// `to` becomes a copy of `from`, users included: what a restore over it does.
    pub fn restore_over(&self, from: &str, to: &str) -> Result<()> {
        let users = self.server.with(|state| state.databases.get(&key(from)).map(|db| (db.principals.clone(), db.members.clone(), db.properties.clone())));
        let (principals, members, properties) = users.context("there is no such database")?;
        let id = self.server.with(|state| state.databases.get(&key(to)).map(|db| (db.id, db.created.clone(), db.broker)));
        self.make_database(to)?;
        self.server.with(|state| {
            if let Some(db) = state.databases.get_mut(&key(to)) {
                (db.principals, db.members, db.properties) = (principals, members, properties);
                // a restore in place keeps the number, the date and the broker: only the GUIDs of recovery tell
                if let Some((id, created, broker)) = id {
                    (db.id, db.created, db.broker) = (id, created, broker);
                }
            }
        });
        Ok(())
    }

    /// Another database under the same name, with the same users: a copy of it was restored under a new name, and renamed.
    pub fn exchange(&self, name: &str) -> Result<()> {
        let before = self.server.with(|state| state.databases.get(&key(name)).cloned()).context("there is no such database")?;
        self.make_database(name)?;
        self.server.with(|state| {
            if let Some(db) = state.databases.get_mut(&key(name)) {
                (db.principals, db.members, db.permissions, db.rules) = (before.principals, before.members, before.permissions, before.rules);
                // what is said of the users; not what was said of the database
                db.properties = before.properties.into_iter().filter(|property| property.class != 0).collect();
            }
        });
        Ok(())
    }

    pub fn drop_database(&self, name: &str) {
        self.server.with(|state| state.databases.remove(&key(name)));
    }

    /// From now on, a statement that contains `part` comes out so.
    pub fn fault(&self, part: &str, fault: Fault) {
        self.server.with(|state| state.faults.push((part.to_owned(), fault)));
    }

    /// From now on, logins of accounts that Daypass made are refused in these words; that of its administrator is not.
    pub fn refuse(&self, number: u32, text: &str) {
        self.server.with(|state| state.refused = Some((number, text.to_owned())));
    }

    pub fn heal(&self) {
        self.server.with(|state| (state.faults, state.refused) = (Vec::new(), None));
    }

    /// A firewall rule that somebody else made: on one database, or on the whole server.
    pub fn foreign_rule(&self, database: Option<&str>, name: &str, address: &str) {
        let rule = (name.to_owned(), address.to_owned(), address.to_owned());
        self.server.with(|state| match database.and_then(|name| state.databases.get_mut(&key(name))) {
            Some(db) => db.rules.push(rule),
            None => state.rules.push(rule),
        });
    }

    /// Takes a right on the server from a login.
    pub fn take_right(&self, login: &str, right: &str) {
        self.server.with(|state| state.logins.get_mut(&key(login)).map(|login| login.rights.remove(right)));
    }

    /// Gives a login a right on the server.
    pub fn give_right(&self, login: &str, right: &str) {
        self.server.with(|state| state.logins.get_mut(&key(login)).map(|login| login.rights.insert(right.to_owned())));
    }

    /// Names of the firewall rules of a database that let anybody in.
    pub fn rules(&self, database: &str) -> Vec<String> {
        let open = |db: &Database| db.rules.iter().filter(|(_, from, _)| from != "255.255.255.255").map(|(name, ..)| name.clone()).collect();
        self.server.with(|state| state.databases.get(&key(database)).map(open).unwrap_or_default())
    }

    /// Logins whose name begins with `jit_` or `daypass_in_`, and users of that kind in each database as `database/user`.
    pub fn accounts(&self) -> Vec<String> {
        self.server.with(|state| {
            let ours = |name: &&String| name.starts_with("jit_") || name.starts_with("daypass_in_");
            let logins = state.logins.keys().filter(ours).cloned();
            let users = state.databases.values().flat_map(|db| db.principals.keys().filter(ours).map(|user| format!("{}/{user}", db.name)));
            logins.chain(users.collect::<Vec<_>>()).collect()
        })
    }

    /// Who is denied to connect to a database.
    pub fn shut_out(&self, database: &str) -> Vec<String> {
        let denied = |db: &Database| db.permissions.iter().filter(|p| p.denied && p.name == "CONNECT").map(|p| p.grantee.clone()).collect();
        self.server.with(|state| state.databases.get(&key(database)).map(denied).unwrap_or_default())
    }

    /// From now on, somebody takes the one place of a database in SINGLE_USER as soon as it is free, and comes again when they are shown out.
    pub fn someone_waits_for(&self, database: &str) {
        self.server.with(|state| state.waiting.insert(key(database)));
    }

    /// Whether a database takes one user only.
    pub fn is_single_user(&self, database: &str) -> bool {
        self.server.with(|state| state.databases.get(&key(database)).is_some_and(|db| db.single_user))
    }

    /// Something is so of a database: a column of sys.databases.
    pub fn mark(&self, database: &str, column: &'static str) {
        self.server.with(|state| {
            if let Some(db) = state.databases.get_mut(&key(database)) {
                db.marks.insert(column);
            }
        });
    }

    /// Plants a trigger on a database, as somebody may who owns it.
    pub fn trigger(&self, database: &str, name: &str) {
        self.server.with(|state| {
            if let Some(db) = state.databases.get_mut(&key(database)) {
                db.triggers.push((name.to_owned(), false));
            }
        });
    }

    /// The triggers of a database that still go off.
    pub fn triggers(&self, database: &str) -> Vec<String> {
        let live = |db: &Database| db.triggers.iter().filter(|(_, disabled)| !disabled).map(|(name, _)| name.clone()).collect();
        self.server.with(|state| state.databases.get(&key(database)).map(live).unwrap_or_default())
    }

    /// The names of the databases, sorted.
    pub fn databases(&self) -> Vec<String> {
        let mut names: Vec<String> = self.server.with(|state| state.databases.values().map(|db| db.name.clone()).collect());
        names.sort();
        names
    }

    /// Roles and rights that a user has in a database, sorted.
    pub fn rights(&self, database: &str, user: &str) -> Vec<String> {
        self.server.with(|state| {
            let Some(db) = state.databases.get(&key(database)) else { return Vec::new() };
            let roles = db.members.iter().filter(|(_, member)| *member == key(user)).map(|(role, _)| role.clone());
            let rights = db.permissions.iter().filter(|p| key(&p.grantee) == key(user) && !p.denied).map(|p| p.name.clone());
            let mut all: Vec<String> = roles.chain(rights).collect();
            all.sort();
            all
        })
    }

    /// Sessions of logins whose name begins with `jit_`: who, from which host, with which program.
    pub fn sessions(&self) -> Vec<(String, String, String)> {
        self.server.with(|state| {
            state.sessions.values().filter(|s| s.login.starts_with("jit_")).map(|s| (s.login.clone(), s.host.clone(), s.program.clone())).collect()
        })
    }

    /// What both sides of each connection said, inside of TLS: pieces of `C` or `S`, a length of four bytes, the bytes.
    pub fn tapes(&self) -> Vec<Vec<u8>> {
        self.server.with(|state| state.tapes.iter().map(|tape| tape.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect())
    }

    /// Whether a statement that contains `part` has arrived.
    pub fn has_seen(&self, part: &str) -> bool {
        self.server.with(|state| state.seen.iter().any(|sql| sql.contains(part)))
    }

    /// The batches that Daypass itself sent, each once.
    pub fn sent_by_daypass(&self) -> Vec<String> {
        self.server.with(|state| state.ours.iter().cloned().collect())
    }

    /// What arrived so far counts no more.
    pub fn forget_seen(&self) {
        self.server.with(|state| state.seen.clear());
    }

    /// Runs T-SQL as `sa` and forgets what it says, but for a failure.
    pub fn sql(&self, database: &str, sql: &str) -> Result<()> {
        let mut session = engine::Session::new(self.server.clone(), 50, "sa", database, false);
        let sql = sql.to_owned();
        self.run(async move {
            let mut tokens = Vec::new();
            let well = session.batch(&sql, false, &mut tokens, &mut Nowhere).await.map_err(|_| anyhow::anyhow!("the connection is closed"))?;
            let said = daypass_wire::tds::token::read_message(&tokens).map(|(_, _, text)| text).unwrap_or_default();
            if well { Ok(()) } else { Err(anyhow::anyhow!("{sql}: {said}")) }
        })
    }

    fn run(&self, work: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
        let runtime = self.runtime.as_ref().context("the stand-in has stopped")?;
        let (done, wait) = std::sync::mpsc::channel();
        runtime.spawn(async move { done.send(work.await) });
        wait.recv()?
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let undocumented = self.server.with(|state| std::mem::take(&mut state.undocumented));
        assert!(undocumented.is_empty() || std::thread::panicking(), "Daypass sent what no row of testkit/src/sqlserver/documented has: {undocumented:#?}");
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_dir_all(&self.server.folder);
    }
}

struct Nowhere;

impl engine::Reply for Nowhere {
    async fn put(&mut self, tokens: &mut Vec<u8>) -> Result<(), engine::Gone> {
        tokens.clear();
        Ok(())
    }
}

/// As a `datetime` reads.
fn created_now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        anyhow::anyhow!("{}: {}", failure.number, failure.text)
    }
}
