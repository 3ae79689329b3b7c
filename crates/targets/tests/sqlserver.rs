//! Accounts on a stand-in for SQL Server: as SQL Server itself, as Azure SQL Database, and as an engine that speaks TDS and lacks
//! half of what SQL Server has. The statements are the documented ones; no real server has run them here.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

use daypass_core::{
    environment::{Engine, TargetSpec, TargetTls},
    firewall::Rule,
    ids::*,
    names::{AccountName, DatabaseName},
    pass::Access,
    policy::Extra,
    secret::Secret,
};
use daypass_targets::{AccountSpec, Estate, Target, TargetError, Verdict, sqlserver::SqlServer};
use daypass_testkit::sqlserver::{ADMIN, Encryption, Fault, Options, StandIn};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};
use uuid::Uuid;

const HOSTILE: &str = "we]ird' name";

struct Server {
    standin: StandIn,
    target: SqlServer,
}

fn serve(options: Options, tls: fn(String) -> TargetTls) -> Server {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let standin = StandIn::start(options).unwrap();
    let target = administrator(&standin, tls, 1);
    Server { standin, target }
}

fn administrator(standin: &StandIn, tls: fn(String) -> TargetTls, store: u128) -> SqlServer {
    let spec = TargetSpec {
        engine: Engine::SqlServer,
        host: "localhost".parse().unwrap(),
        port: standin.port,
        admin: ADMIN.0.to_owned(),
        tls: tls(standin.ca.clone()),
    };
    SqlServer::new(spec, Secret::new(ADMIN.1), StoreId::new(Uuid::from_u128(store)))
}

fn verified(ca: String) -> TargetTls {
    TargetTls::VerifyFull { ca: Some(ca) }
}

fn strict(ca: String) -> TargetTls {
    TargetTls::Strict { ca: Some(ca) }
}

fn uat() -> DatabaseName {
    "uat".parse().unwrap()
}

fn pass(n: u128) -> PassId {
    PassId::new(Uuid::from_u128(0xabcd_0000_0000 + n))
}

impl Server {
    async fn provide(&self, account: &str, n: u128, access: Access) -> Result<(), TargetError> {
        self.provide_in(&uat(), account, n, access, &Extra::ALL.into()).await
    }

    async fn provide_in(&self, database: &DatabaseName, account: &str, n: u128, access: Access, extras: &BTreeSet<Extra>) -> Result<(), TargetError> {
        let (account, password): (AccountName, _) = (account.parse().unwrap(), Secret::new("Dp-secret-9"));
        let spec = AccountSpec {
            account: &account,
            pass: pass(n),
            environment: EnvironmentId::new(Uuid::from_u128(5)),
            database,
            access,
            grants: Default::default(),
            left: std::time::Duration::from_secs(3600),
            sessions: 20,
            verifier: "",
            password: &password,
            extras,
        };
        self.target.provide(&spec).await
    }

    async fn seen(&self) -> Vec<(String, bool, u32)> {
        let seen = self.target.observe(&[uat()], &[]).await.unwrap();
        let connections = |name: &str| seen.backends.iter().filter(|backend| backend.account == name).count() as u32;
        seen.accounts.iter().map(|account| (account.name.clone(), account.can_login, connections(&account.name))).collect()
    }

    async fn remove(&self, account: &str) -> Result<(), TargetError> {
        self.target.remove(account, &[uat()], Estate::default()).await
    }
}

/// The whole life of an account, on each kind of engine.
async fn lives_and_ends(options: Options, tls: fn(String) -> TargetTls) {
    let server = serve(options, tls);
    let checks = server.target.test(&uat()).await;
    assert!(checks.iter().all(|check| check.verdict == Verdict::Fine), "{checks:?}");
    for (account, n, access) in [("jit_maria_aaaa", 1, Access::Read), ("jit_maria_bbbb", 2, Access::ReadWrite)] {
        server.provide(account, n, access).await.unwrap();
        // and again, as after a crash between any two statements
        server.provide(account, n, access).await.unwrap();
    }
    assert_eq!(server.seen().await, [("jit_maria_aaaa".to_owned(), true, 0), ("jit_maria_bbbb".to_owned(), true, 0)]);
    let mut read = vec!["EXECUTE", "SHOWPLAN", "VIEW DEFINITION", "db_datareader"];
    read.retain(|right| !(options.sparse && *right == "VIEW DEFINITION"));
    assert_eq!(server.standin.rights("uat", "jit_maria_aaaa").into_iter().filter(|right| right != "CONNECT").collect::<Vec<_>>(), read);
    assert!(server.standin.rights("uat", "jit_maria_bbbb").contains(&"db_datawriter".to_owned()));
    for account in ["jit_maria_aaaa", "jit_maria_bbbb"] {
        server.remove(account).await.unwrap();
        server.remove(account).await.unwrap();
    }
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
    assert_eq!(server.seen().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_and_ends_on_sql_server() {
    lives_and_ends(Options::default(), verified).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_and_ends_over_strict_tls() {
    lives_and_ends(Options::default(), strict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_and_ends_without_tls_where_the_environment_says_so() {
    lives_and_ends(Options { encryption: Encryption::None, ..Options::default() }, |_| TargetTls::Off).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_and_ends_on_azure() {
    lives_and_ends(Options { azure: true, ..Options::default() }, verified).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_lives_and_ends_on_an_engine_with_other_numbers_and_less_syntax() {
    lives_and_ends(Options { sparse: true, ..Options::default() }, verified).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_servers_ca_there_is_no_connection() {
    let server = serve(Options::default(), verified);
    let other = StandIn::start(Options::default()).unwrap();
    let spec = TargetSpec {
        engine: Engine::SqlServer,
        host: "localhost".parse().unwrap(),
        port: server.standin.port,
        admin: ADMIN.0.to_owned(),
        tls: verified(other.ca.clone()),
    };
    let stranger = SqlServer::new(spec, Secret::new(ADMIN.1), StoreId::new(Uuid::from_u128(1)));
    let refused = stranger.observe(&[], &[]).await.unwrap_err();
    assert!(matches!(&refused, TargetError::Unreachable(why) if why.contains("certificate")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_owned_goes_to_a_role_without_rights_and_never_to_dbo() {
    let server = serve(Options::default(), verified);
    server.provide("jit_maria_aaaa", 1, Access::ReadWrite).await.unwrap();
    server.standin.sql("uat", "CREATE SCHEMA hers AUTHORIZATION jit_maria_aaaa; CREATE ROLE helpers AUTHORIZATION jit_maria_aaaa").unwrap();
    // a right that it gave to somebody else, and a user that somebody made of it elsewhere
    server.standin.sql("uat", &format!("GRANT SHOWPLAN TO {} AS jit_maria_aaaa", ADMIN.0)).unwrap();
    server.standin.sql("golden", "CREATE USER jit_maria_aaaa FOR LOGIN jit_maria_aaaa; ALTER ROLE db_datareader ADD MEMBER jit_maria_aaaa").unwrap();
    server.remove("jit_maria_aaaa").await.unwrap();
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
    assert!(server.standin.has_seen("ALTER AUTHORIZATION ON SCHEMA::[hers] TO [daypass_estate]"));
    assert!(server.standin.has_seen("ALTER AUTHORIZATION ON ROLE::[helpers] TO [daypass_estate]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_ended_before_the_login_is_dropped() {
    let server = serve(Options::default(), verified);
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    let mut held = client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await.unwrap();
    assert_eq!(server.seen().await, [("jit_maria_aaaa".to_owned(), true, 1)]);
    let running = tokio::spawn(async move { held.simple_query("WAITFOR DELAY '00:01:00'").await?.into_results().await.map(drop) });
    server.remove("jit_maria_aaaa").await.unwrap();
    assert!(running.await.unwrap().is_err(), "the statement was cut");
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
    assert!(client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_accounts_of_this_installation_are_seen() {
    let server = serve(Options::default(), verified);
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    server.standin.sql("master", "CREATE LOGIN jit_of_somebody_else WITH PASSWORD = 'Some-Password-1'").unwrap();
    assert_eq!(server.seen().await.len(), 1);
    let other = administrator(&server.standin, verified, 2);
    assert_eq!(other.observe(&[uat()], &[]).await.unwrap().accounts, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_came_inside_a_copy_is_seen_and_removed() {
    let server = serve(Options::default(), verified);
    let golden = "golden".parse().unwrap();
    server.provide_in(&golden, "jit_maria_aaaa", 1, Access::Read, &BTreeSet::new()).await.unwrap();
    server.standin.restore_over("golden", "uat").unwrap();
    server.standin.sql("master", "DROP LOGIN jit_maria_aaaa").unwrap();
    assert_eq!(server.seen().await, [("jit_maria_aaaa".to_owned(), false, 0)]);
    server.remove("jit_maria_aaaa").await.unwrap();
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_database_has_another_identity_and_an_untouched_one_the_same() {
    let server = serve(Options::default(), verified);
    let environment = EnvironmentId::new(Uuid::from_u128(5));
    server.target.adopt(environment, &uat()).await.unwrap();
    let before = server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &uat()).await.unwrap();
    server.provide("jit_maria_aaaa", 1, Access::ReadWrite).await.unwrap();
    assert_eq!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &uat()).await.unwrap(), before, "nothing was replaced");
    server.standin.restore_over("golden", "uat").unwrap();
    let restored = server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &uat()).await.unwrap();
    assert_ne!(restored, before, "a restore in place, by its recovery GUIDs and the marker that is missing");
    server.target.adopt(environment, &uat()).await.unwrap();
    let adopted = server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &uat()).await.unwrap();
    server.standin.make_database("uat").unwrap();
    assert_ne!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &uat()).await.unwrap(), adopted, "made anew");
    server.standin.drop_database("uat");
    assert!(matches!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &uat()).await, Err(TargetError::NoDatabase(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_name_of_a_database_breaks_out_of_nothing() {
    let server = serve(Options::default(), verified);
    server.standin.make_database(HOSTILE).unwrap();
    let hostile: DatabaseName = HOSTILE.parse().unwrap();
    server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &hostile).await.unwrap();
    server.provide_in(&hostile, "jit_maria_aaaa", 1, Access::Read, &Extra::ALL.into()).await.unwrap();
    assert_eq!(server.target.observe(std::slice::from_ref(&hostile), &[]).await.unwrap().accounts.len(), 1);
    server.target.remove("jit_maria_aaaa", &[hostile], Estate { environment: None, heir: Some("x]; DROP USER dbo --"), drop: false }).await.unwrap();
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_half_way_is_told_and_mended_by_the_next_try() {
    let server = serve(Options::default(), verified);
    for (part, number) in [("CREATE USER", 15_007), ("db_datareader ADD", 15_151), ("ALTER LOGIN", 15_151)] {
        server.standin.fault(part, Fault::Error(number, "out of order".to_owned()));
        let failed = match part {
            "ALTER LOGIN" => server.remove("jit_maria_aaaa").await,
            _ => server.provide("jit_maria_aaaa", 1, Access::Read).await,
        };
        assert!(matches!(&failed, Err(TargetError::Refused(why)) if why.contains("out of order")), "{part}: {failed:?}");
        server.standin.heal();
        server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    }
    server.standin.fault("DROP USER", Fault::Drop);
    assert!(matches!(server.remove("jit_maria_aaaa").await, Err(TargetError::Unreachable(_))));
    server.standin.heal();
    server.remove("jit_maria_aaaa").await.unwrap();
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_made_while_a_sweep_looks_is_left_alone() {
    let server = serve(Options::default(), verified);
    let (environment, uat) = (EnvironmentId::new(Uuid::from_u128(5)), "uat".parse().unwrap());
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    // as long as it has seen nothing, it asks for nobody: whom it sees was known when it asks
    server.standin.fault("FROM sys.database_principals u", Fault::Error(1_222, "Lock request time out period exceeded.".to_owned()));
    let asked = AtomicBool::new(false);
    let known = || {
        asked.store(true, Ordering::Relaxed);
        ["jit_maria_aaaa".to_owned()].into()
    };
    server.target.sweep_marked(environment, &uat, &known).await.unwrap_err();
    assert!(!asked.load(Ordering::Relaxed));
    server.standin.heal();
    assert_eq!(server.target.sweep_marked(environment, &uat, &known).await.unwrap(), []);
    assert!(asked.load(Ordering::Relaxed) && server.standin.accounts().contains(&"uat/jit_maria_aaaa".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn azures_rules_are_set_listed_and_removed_and_sessions_have_their_address() {
    let server = serve(Options { azure: true, ..Options::default() }, verified);
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    let refused = client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await.unwrap_err();
    assert!(refused.to_string().contains("not allowed"), "{refused}");
    let rule = Rule { name: "daypass-x-0".to_owned(), from: "127.0.0.1".to_owned(), to: "127.0.0.9".to_owned() };
    server.target.set_rule(&uat(), &rule).await.unwrap();
    server.standin.foreign_rule(None, "everybody", "10.0.0.1");
    let names = |rules: Vec<Rule>| rules.into_iter().map(|rule| rule.name).collect::<Vec<_>>();
    assert_eq!(names(server.target.rules(&uat()).await.unwrap()), ["daypass-x-0", "everybody"]);
    let held = client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await.unwrap();
    let sessions = server.target.sessions(&uat()).await.unwrap();
    assert_eq!(sessions.iter().map(|s| (s.account.as_str(), s.address.unwrap().to_string())).collect::<Vec<_>>(), [("jit_maria_aaaa", "127.0.0.1".to_owned())]);
    server.target.remove_rule(&uat(), &rule).await.unwrap();
    assert!(server.standin.has_seen("DBCC FLUSHAUTHCACHE"));
    server.target.kill("jit_maria_aaaa", sessions[0].id, &uat()).await.unwrap();
    let mut held = held;
    assert!(held.simple_query("SELECT 1").await.is_err(), "the session that the rule had let in");
    assert!(client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_executes_as_somebody_else_is_ended_as_well() {
    let server = serve(Options::default(), verified);
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    let mut held = client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await.unwrap();
    held.simple_query("EXECUTE AS USER = 'dbo'").await.unwrap().into_results().await.unwrap();
    assert_eq!(server.seen().await, [("jit_maria_aaaa".to_owned(), true, 1)]);
    server.remove("jit_maria_aaaa").await.unwrap();
    assert!(held.simple_query("SELECT 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_on_one_database_do_not_take_each_others_mark_for_a_replacement() {
    let server = serve(Options::default(), verified);
    let other = administrator(&server.standin, verified, 2);
    let (ours, theirs) = (EnvironmentId::new(Uuid::from_u128(5)), EnvironmentId::new(Uuid::from_u128(6)));
    server.target.adopt(ours, &uat()).await.unwrap();
    let before = server.target.identity(ours, &uat()).await.unwrap();
    other.adopt(theirs, &uat()).await.unwrap();
    assert_eq!(server.target.identity(ours, &uat()).await.unwrap(), before);
    assert_ne!(other.identity(theirs, &uat()).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_moment_is_a_failure_and_not_another_identity() {
    let server = serve(Options::default(), verified);
    let ours = EnvironmentId::new(Uuid::from_u128(5));
    server.target.adopt(ours, &uat()).await.unwrap();
    let before = server.target.identity(ours, &uat()).await.unwrap();
    for part in ["service_broker_guid)", "recovery_fork_guid)", "FROM sys.extended_properties"] {
        server.standin.fault(part, Fault::Error(1_205, "deadlocked".to_owned()));
        let seen = server.target.identity(ours, &uat()).await;
        assert!(matches!(&seen, Err(TargetError::Refused(why)) if why.contains("deadlocked")), "{part}: {seen:?}");
        server.standin.heal();
    }
    assert_eq!(server.target.identity(ours, &uat()).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_cannot_see_sessions_does_not_take_that_for_none() {
    let server = serve(Options::default(), verified);
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    server.standin.take_right(ADMIN.0, "VIEW SERVER STATE");
    let failed = server.remove("jit_maria_aaaa").await.unwrap_err().to_string();
    assert!(failed.contains("VIEW SERVER STATE"), "{failed}");
    assert!(server.target.test(&uat()).await.iter().any(|check| check.verdict == Verdict::Missing && check.remedy.contains("VIEW SERVER STATE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_that_refuses_keeps_no_login_alive() {
    let server = serve(Options::default(), verified);
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    server.standin.fault("USE [golden]", Fault::Error(924, "Database 'golden' is already open and can only have one user at a time.".to_owned()));
    server.remove("jit_maria_aaaa").await.unwrap();
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_azure_a_database_that_is_gone_or_in_trouble_keeps_no_account_of_another_alive() {
    let server = serve(Options { azure: true, ..Options::default() }, verified);
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    let hers = "CREATE USER jit_maria_aaaa WITH PASSWORD = 'Dp-secret-9'; CREATE SCHEMA hers AUTHORIZATION jit_maria_aaaa";
    server.standin.sql("golden", hers).unwrap();
    server.standin.fault("ALTER AUTHORIZATION ON SCHEMA::[hers]", Fault::Error(15_151, "out of order".to_owned()));
    let all = ["dropped", "golden", "uat"].map(|name| name.parse().unwrap());
    let failed = server.target.remove("jit_maria_aaaa", &all, Estate::default()).await;
    assert!(matches!(&failed, Err(TargetError::Refused(why)) if why.contains("out of order")), "{failed:?}");
    assert_eq!(server.seen().await, [], "what failed in golden did not keep the account of uat");
    server.standin.heal();
    server.target.remove("jit_maria_aaaa", &all, Estate::default()).await.unwrap();
    assert_eq!(server.standin.accounts(), Vec::<String>::new());
}

type Client = tiberius::Client<tokio_util::compat::Compat<tokio::net::TcpStream>>;

async fn client(standin: &StandIn, user: &str, password: &str) -> Result<Client, tiberius::error::Error> {
    use tokio_util::compat::TokioAsyncWriteCompatExt;
    let mut config = tiberius::Config::new();
    config.host("localhost");
    config.port(standin.port);
    config.database("uat");
    config.authentication(tiberius::AuthMethod::sql_server(user, password));
    config.encryption(tiberius::EncryptionLevel::Required);
    config.trust_cert_ca_bundle(standin.ca.as_bytes());
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", standin.port)).await.unwrap();
    Client::connect(config, tcp.compat_write()).await
}
