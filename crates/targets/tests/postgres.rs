//! Accounts on real servers: Debian's version with TLS, and each version named in DAYPASS_POSTGRES_BINS. The administrator is
//! no superuser anywhere.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

use daypass_core::{
    environment::{Enforce, Engine, Environment, EnvironmentSpec, Grants, Kind, TargetSpec, TargetTls},
    ids::*,
    movement::Names,
    names::{AccountName, DatabaseName},
    pass::Access,
    secret::Secret,
    time::Ttl,
};
use daypass_targets::{
    AccountSpec, AnyTarget, Estate, Target, TargetError,
    movement::{Move, Progress, Source, Standing, Tools},
    postgres::Postgres as OnPostgres,
};
use daypass_testkit::postgres::{Postgres, other_binaries};
use daypass_wire::pg::scram::{ITERATIONS, Verifier};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// A database whose every name tries to break out of the statement it stands in.
const HOSTILE: &str = "we\"ird'; DROP ROLE postgres; --\\";
const PASSWORD: &str = "what the gateway uses";

struct Server {
    postgres: Postgres,
    spec: TargetSpec,
    tls: Option<Arc<rustls::ClientConfig>>,
    target: OnPostgres,
}

/// Each version, one after the other.
async fn each(story: impl AsyncFn(&Server)) {
    let mut servers = vec![Postgres::start().await.unwrap()];
    for bin in other_binaries() {
        servers.push(Postgres::start_from(bin, false).await.unwrap());
    }
    for (n, postgres) in servers.into_iter().enumerate() {
        postgres.administrator().await.unwrap();
        let tls = (n == 0).then(|| Arc::new(trusting(&postgres.ca)));
        let spec = TargetSpec {
            engine: Engine::Postgres,
            host: "127.0.0.1".parse().unwrap(),
            port: postgres.port,
            admin: "daypass_admin".to_owned(),
            tls: if n == 0 { TargetTls::VerifyFull { ca: Some(postgres.ca.clone()) } } else { TargetTls::Off },
        };
        let target = OnPostgres::new(spec.clone(), Secret::new("admin-secret"), tls.clone(), StoreId::new(Uuid::from_u128(1)));
        let server = Server { postgres, spec, tls, target };
        println!("PostgreSQL {}", server.sql("postgres", "SHOW server_version").await);
        story(&server).await;
    }
}

fn trusting(ca: &str) -> rustls::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth()
}

impl Server {
    async fn sql(&self, database: &str, sql: &str) -> String {
        self.postgres.sql(database, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn provide(&self, account: &str, database: &str, access: Access, grants: Grants) -> Result<(), TargetError> {
        let verifier = Verifier::of(PASSWORD, b"0123456789abcdef", ITERATIONS).to_string();
        let (account, database): (AccountName, DatabaseName) = (account.parse().unwrap(), database.parse().unwrap());
        let spec = AccountSpec {
            account: &account,
            pass: PassId::new(Uuid::from_u128(2)),
            environment: EnvironmentId::new(Uuid::from_u128(3)),
            database: &database,
            access,
            grants,
            left: Ttl::minutes(10),
            connections: 5,
            verifier: &verifier,
            password: &Secret::new("secret"),
            extras: &Default::default(),
        };
        self.target.provide(&spec).await
    }

    /// What the account itself may do. The superuser takes its place, so this proves rights, not the login.
    async fn may(&self, account: &str, database: &str, sql: &str) -> Result<String, String> {
        self.postgres.sql(database, &format!("SET SESSION AUTHORIZATION {account}; {sql}")).await.map_err(|e| e.to_string())
    }

    async fn accounts(&self) -> String {
        self.sql("postgres", "SELECT string_agg(rolname, ',' ORDER BY 1) FROM pg_roles WHERE rolname LIKE 'jit\\_%'").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stay_names() {
    each(async |server| {
        let quoted = format!("\"{}\"", HOSTILE.replace('"', "\"\""));
        server.sql("postgres", &format!("CREATE ROLE {quoted} NOLOGIN; GRANT {quoted} TO daypass_admin")).await;
        server.sql("postgres", &format!("CREATE DATABASE {quoted} OWNER {quoted}")).await;
        server
            .sql(
                HOSTILE,
                &format!(
                    "SET ROLE {quoted}; CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.{quoted} ({quoted} serial); INSERT INTO {quoted}.{quoted} DEFAULT VALUES"
                ),
            )
            .await;
        server.provide("jit_maria_aaaa", HOSTILE, Access::ReadWrite, Grants::Granted).await.unwrap();
        let insert = format!("INSERT INTO {quoted}.{quoted} DEFAULT VALUES; SELECT count(*) FROM {quoted}.{quoted}");
        assert_eq!(server.may("jit_maria_aaaa", HOSTILE, &insert).await.unwrap(), "2");
        server.target.remove("jit_maria_aaaa", &[], Estate { heir: Some(HOSTILE), drop: false }).await.unwrap();
        assert_eq!(server.accounts().await, "");
        assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'postgres'").await, "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_reads_and_read_write_writes_also_what_comes_later() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.provide("jit_reader_aaaa", "uat", Access::Read, Grants::Granted).await.unwrap();
        server.provide("jit_writer_aaaa", "uat", Access::ReadWrite, Grants::Granted).await.unwrap();
        let count = "SELECT count(*) FROM sales.orders";
        assert_eq!(server.may("jit_reader_aaaa", "uat", count).await.unwrap(), "400");
        assert!(server.may("jit_reader_aaaa", "uat", "DELETE FROM sales.orders").await.unwrap_err().contains("permission denied"));
        assert!(server.may("jit_writer_aaaa", "uat", "UPDATE sales.orders SET amount = 1 WHERE id = 1").await.is_ok());
        assert!(server.may("jit_writer_aaaa", "uat", "DROP TABLE sales.orders").await.is_err(), "mending data is not changing the schema");
        assert!(server.may("jit_reader_aaaa", "uat", "SELECT * FROM pg_authid").await.is_err(), "password verifiers are nobody's business");
        // by default privileges at once, and in a schema of its own after the next look
        server.sql("uat", "SET ROLE uat_owner; CREATE TABLE sales.later AS SELECT 1 AS n; CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 2 AS n").await;
        assert_eq!(server.may("jit_reader_aaaa", "uat", "SELECT n FROM sales.later").await.unwrap(), "1");
        server.target.refresh_grants(EnvironmentId::new(Uuid::from_u128(3)), &"uat".parse().unwrap()).await.unwrap();
        assert_eq!(server.may("jit_reader_aaaa", "uat", "SELECT n FROM other.t").await.unwrap(), "2");
        let checks = server.target.test(&"uat".parse().unwrap()).await;
        assert!(checks.iter().all(|check| check.ok), "{checks:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_roles_serve_by_choice() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.sql("postgres", "GRANT pg_read_all_data, pg_write_all_data TO daypass_admin WITH ADMIN OPTION").await;
        server.provide("jit_reader_aaaa", "uat", Access::Read, Grants::Predefined).await.unwrap();
        assert_eq!(server.may("jit_reader_aaaa", "uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
        assert!(server.may("jit_reader_aaaa", "uat", "DELETE FROM sales.orders").await.is_err());
        server.provide("jit_writer_aaaa", "uat", Access::ReadWrite, Grants::Predefined).await.unwrap();
        assert!(server.may("jit_writer_aaaa", "uat", "DELETE FROM sales.orders WHERE id = 1").await.is_ok());
        // the database is closed to PUBLIC: a real login
        session(server, "jit_writer_aaaa").await.batch("SELECT 1").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_removed_whatever_it_left_behind() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.postgres.database("other").await.unwrap();
        for turn in 0..2 {
            let account = "jit_messy_aaaa";
            server.provide(account, "uat", Access::ReadWrite, Grants::Granted).await.unwrap();
            // twice is once
            server.provide(account, "uat", Access::ReadWrite, Grants::Granted).await.unwrap();
            server.sql("uat", &format!("GRANT CREATE ON SCHEMA sales TO {account}; GRANT CREATE ON DATABASE uat TO {account}")).await;
            server.sql("other", &format!("GRANT CREATE ON SCHEMA sales TO {account}; GRANT USAGE ON SCHEMA sales TO {account}")).await;
            server.may(account, "uat", &format!("CREATE TABLE sales.left_{turn} (n int); CREATE SCHEMA schema_{turn}")).await.unwrap();
            server.may(account, "other", &format!("CREATE FUNCTION sales.left_{turn}() RETURNS int LANGUAGE sql AS 'SELECT 1'")).await.unwrap();
            server.may(account, "uat", &format!("BEGIN; INSERT INTO sales.left_{turn} VALUES (1); PREPARE TRANSACTION 'left {turn}'''")).await.unwrap();
            // a session that holds locks on its own table while we remove it
            let mut holder = session(server, account).await;
            holder.batch(&format!("BEGIN; LOCK TABLE sales.orders IN ROW EXCLUSIVE MODE; CREATE TEMP TABLE mine_{turn} (n int)")).await;
            server.target.remove(account, &[], Estate::default()).await.unwrap();
            assert!(holder.ends().await, "its session ended");
            assert_eq!(server.accounts().await, "");
            let owner = format!("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'left_{turn}'");
            assert_eq!(server.sql("uat", &owner).await, "uat_owner", "what it owned went to the owner of the database");
            assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_prepared_xacts").await, "0");
            // removing what is gone is no error
            server.target.remove(account, &[], Estate::default()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_accounts_with_our_marker_are_ours() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.provide("jit_maria_aaaa", "uat", Access::Read, Grants::Granted).await.unwrap();
        server.sql("postgres", "CREATE ROLE jit_not_ours LOGIN; CREATE ROLE jit_another_store LOGIN; COMMENT ON ROLE jit_another_store IS 'daypass 00000000-0000-0000-0000-00000000dead x'").await;
        let seen = server.target.observe(&[]).await.unwrap();
        let names: Vec<&str> = seen.accounts.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["jit_maria_aaaa"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_database_has_another_identity_and_a_renamed_one_the_same() {
    each(async |server| {
        let name: DatabaseName = "uat".parse().unwrap();
        assert!(matches!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &name).await, Err(TargetError::NoDatabase(_))));
        server.sql("postgres", "CREATE DATABASE uat").await;
        let first = server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &name).await.unwrap();
        server.sql("postgres", "ALTER DATABASE uat RENAME TO was_uat").await;
        assert_eq!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &"was_uat".parse().unwrap()).await.unwrap(), first);
        server.sql("postgres", "CREATE DATABASE uat").await;
        assert_ne!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &name).await.unwrap(), first);
    })
    .await;
}

/// A session of the account itself, with its password.
struct Session {
    client: tokio_postgres::Client,
    connection: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>,
}

async fn session(server: &Server, account: &str) -> Session {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.postgres.port).user(account).password(PASSWORD).dbname("uat");
    let (client, connection) = if server.postgres.has_tls() {
        let (client, connection) = config.connect(tokio_postgres_rustls::MakeRustlsConnect::new(trusting(&server.postgres.ca))).await.unwrap();
        (client, tokio::spawn(connection))
    } else {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        (client, tokio::spawn(connection))
    };
    Session { client, connection }
}

impl Session {
    async fn batch(&mut self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    async fn ends(self) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(5), self.connection).await, Ok(Ok(Err(_))))
    }
}

fn environment(database: &str) -> Environment {
    let spec = EnvironmentSpec {
        name: database.parse().unwrap(),
        kind: Kind::SelfService,
        database: database.parse().unwrap(),
        grants: Grants::Granted,
        heir: None,
        enforce: Enforce::Gateway,
    };
    let (id, project, target) = (EnvironmentId::new(Uuid::from_u128(3)), ProjectId::new(Uuid::from_u128(4)), TargetId::new(Uuid::from_u128(5)));
    Environment {
        id,
        project,
        target,
        spec,
        ended_epochs: Vec::new(),
        identity: None,
        remote_desktop: false,
        failover_until: None,
        moving: None,
        frozen_by: None,
        removed_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_copied_swept_and_exchanged_on_each_version() {
    let work = std::env::temp_dir().join(format!("daypass-targets-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    let script = work.join("mask.sql");
    std::fs::write(&script, "UPDATE sales.orders SET customer = 'masked';\n").unwrap();
    each(async |server| {
        for database in ["golden", "uat"] {
            server.postgres.database(database).await.unwrap();
        }
        server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION; CREATE ROLE app LOGIN; GRANT CONNECT ON DATABASE uat TO app").await;
        server.sql("uat", "GRANT USAGE ON SCHEMA sales TO app; GRANT SELECT ON sales.orders TO app; ALTER DATABASE uat SET work_mem = '7MB'").await;
        server.sql("golden", "CREATE ROLE stranger; GRANT SELECT ON sales.orders TO stranger; DELETE FROM sales.orders WHERE id > 7").await;
        let env = environment("uat");
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        // the server's own copy, then the tools, one table after the other and several at once
        for (n, (same_server, jobs)) in [(true, 1), (false, 1), (false, 3)].into_iter().enumerate() {
            let names = Names::of(&env, MovementId::new(Uuid::from_u128(90 + n as u128))).unwrap();
            let tools = Tools { postgres: Some(server.postgres.program("")), jobs, work: work.join(names.role.as_str()), ..Tools::default() };
            let progress = Progress::default();
            let movement = Move { environment: &env, names: &names, tools: &tools, progress: &progress };
            let golden: DatabaseName = "golden".parse().unwrap();
            server.target.copy(&movement, &Source::Database { target: &from, database: &golden, same_server }).await.unwrap();
            server.target.sweep(&movement, std::slice::from_ref(&script)).await.unwrap();
            server.target.swap(&movement, &names.scratch).await.unwrap();
            assert_eq!(server.sql("uat", "SELECT count(*) FROM sales.orders WHERE customer = 'masked'").await, "7");
            assert_eq!(server.sql("uat", "SELECT has_table_privilege('app', 'sales.orders', 'SELECT'), current_setting('work_mem')").await, "t|7MB");
            assert_eq!(
                server.sql("uat", "SELECT has_table_privilege('stranger', 'sales.orders', 'SELECT'), has_database_privilege('app', 'uat', 'CONNECT')").await,
                "f|t"
            );
            assert_eq!(server.sql("uat", "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'sales'").await, "uat_owner");
            let language = "SELECT count(DISTINCT (encoding, datcollate, datctype, datlocprovider)) FROM pg_database WHERE datname LIKE 'uat%'";
            assert_eq!(server.sql("postgres", language).await, "1");
            assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in\\_%'").await, "0");
            assert_eq!(server.target.settle(&movement, &names.scratch).await.unwrap(), Standing::New);
            server.target.drop_kept(&names.old).await.unwrap();
        }
        let left = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE 'uat%'";
        assert_eq!(server.sql("postgres", left).await, "uat");
    })
    .await;
    std::fs::remove_dir_all(&work).unwrap();
}
