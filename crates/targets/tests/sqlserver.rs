//! Accounts on a stand-in for SQL Server: as SQL Server itself, as Azure SQL Database, and as an engine that speaks TDS and lacks
//! half of what SQL Server has. The statements are the documented ones; no real server has run them here.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

mod grammar;

use daypass_core::{
    environment::{Enforce, Engine, Environment, EnvironmentSpec, Kind, TargetSpec, TargetTls},
    firewall::Rule,
    ids::*,
    masks::Masks,
    movement::Names,
    names::{AccountName, DatabaseName},
    pass::Access,
    policy::Extra,
    secret::Secret,
};
use daypass_targets::{
    AccountSpec, AnyTarget, Estate, Target, TargetError, Verdict,
    movement::{MaskKey, Masking, Move, Progress, Scripts, Source, Standing, Tools},
    sqlserver::SqlServer,
};
use daypass_testkit::sqlserver::{ADMIN, Edition, Encryption, Fault, Options, StandIn, documented::EDITIONS};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};
use uuid::Uuid;

const HOSTILE: &str = "we]ird' name";

struct Server {
    standin: StandIn,
    target: SqlServer,
    options: Options,
}

/// All that was sent is Transact-SQL to somebody else's parser as well.
impl Drop for Server {
    fn drop(&mut self) {
        let sent = self.standin.sent_by_daypass();
        if self.options.sparse || std::thread::panicking() {
            return;
        }
        let faults = grammar::faults(&sent.into_iter().map(|batch| (self.options.edition, batch)).collect::<Vec<_>>());
        assert_eq!(faults, Vec::<String>::new());
    }
}

fn serve(options: Options, tls: fn(String) -> TargetTls) -> Server {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let standin = StandIn::start(options).unwrap();
    let target = administrator(&standin, tls, 1);
    Server { standin, target, options }
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
async fn an_account_lives_and_ends_on_every_version_and_edition() {
    for edition in EDITIONS {
        lives_and_ends(Options { edition: *edition, ..Options::default() }, verified).await;
    }
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
async fn a_login_of_the_same_name_that_is_somebody_elses_is_not_taken_over() {
    let server = serve(Options::default(), verified);
    server.standin.sql("master", "CREATE LOGIN jit_maria_aaaa WITH PASSWORD = 'Their-Password-1'").unwrap();
    let refused = server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap_err().to_string();
    assert!(refused.contains("which Daypass did not make"), "{refused}");
    server.standin.sql("uat", "CREATE USER jit_maria_aaaa FOR LOGIN jit_maria_aaaa").unwrap();
    assert!(client(&server.standin, "jit_maria_aaaa", "Their-Password-1").await.is_ok(), "its password is as it was");
    // nor a user in a database: on Azure one with a password, elsewhere one of another login
    let azure = serve(Options { edition: Edition::Azure, ..Options::default() }, verified);
    azure.standin.sql("uat", "CREATE USER jit_maria_aaaa WITH PASSWORD = 'Their-Password-1'").unwrap();
    server.standin.sql("master", "CREATE LOGIN somebody WITH PASSWORD = 'Their-Password-1'").unwrap();
    server.standin.sql("uat", "CREATE USER jit_maria_bbbb FOR LOGIN somebody").unwrap();
    for (server, account) in [(&azure, "jit_maria_aaaa"), (&server, "jit_maria_bbbb")] {
        let refused = server.provide(account, 2, Access::Read).await.unwrap_err().to_string();
        assert!(refused.contains("whom Daypass did not make"), "{refused}");
    }
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
    let server = serve(Options { edition: Edition::Azure, ..Options::default() }, verified);
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
    server.standin.sql("uat", "GRANT IMPERSONATE ON USER::dbo TO jit_maria_aaaa").unwrap();
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
    let server = serve(Options { edition: Edition::Azure, ..Options::default() }, verified);
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

fn environment() -> Environment {
    let (id, project, target) = (EnvironmentId::new(Uuid::from_u128(5)), ProjectId::new(Uuid::from_u128(4)), TargetId::new(Uuid::from_u128(6)));
    let spec = EnvironmentSpec {
        name: "uat".parse().unwrap(),
        kind: Kind::SelfService,
        database: uat(),
        grants: Default::default(),
        heir: None,
        enforce: Enforce::Gateway,
    };
    Environment {
        id,
        project,
        target,
        spec,
        ended_epochs: Vec::new(),
        identity: None,
        masks: Masks::default(),
        remote_desktop: false,
        failover_until: None,
        moving: None,
        frozen_by: None,
        removed_at: None,
    }
}

/// A movement of `uat`, by its number.
struct Moving {
    env: Environment,
    names: Names,
    tools: Tools,
    masking: Masking,
    progress: Progress,
}

impl Moving {
    fn new(n: u128) -> Moving {
        let env = environment();
        let names = Names::of(&env, MovementId::new(Uuid::from_u128(n))).unwrap();
        let masking = Masking { key: MaskKey::new([7; 32]), required: false };
        Moving { env, names, tools: Tools::default(), masking, progress: Progress::default() }
    }

    fn get(&self) -> Move<'_> {
        Move { environment: &self.env, names: &self.names, tools: &self.tools, masking: &self.masking, progress: &self.progress }
    }
}

impl Server {
    async fn copy(&self, movement: &Move<'_>) -> Result<(), TargetError> {
        let from = AnyTarget::SqlServer(administrator(&self.standin, verified, 1));
        self.target.copy(movement, &Source::Database { target: &from, database: &"golden".parse().unwrap(), same_server: true }).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_leaves_no_database_to_a_single_user_whoever_waits_for_the_place() {
    let server = serve(Options::default(), verified);
    let moving = Moving::new(90);
    let (movement, names) = (moving.get(), &moving.names);
    server.copy(&movement).await.unwrap();
    server.target.sweep(&movement, &Scripts::default()).await.unwrap();
    server.target.carry_over(&movement).await.unwrap();
    // an application that connects again and again to both, and statistics that are updated beside
    for database in ["uat", names.scratch.as_str(), names.old.as_str()] {
        server.standin.someone_waits_for(database);
    }
    server.standin.sql("uat", "ALTER DATABASE uat SET AUTO_UPDATE_STATISTICS_ASYNC ON").unwrap();
    server.target.swap(&movement, &names.scratch).await.unwrap();
    assert_eq!(server.target.settle(&movement, &names.scratch).await.unwrap(), Standing::New);
    let single: Vec<String> = server.standin.databases().into_iter().filter(|database| server.standin.is_single_user(database)).collect();
    assert_eq!(single, Vec::<String>::new());
    // what a process left behind that ended between two statements: one place, and somebody else in it
    server.standin.sql("master", "ALTER DATABASE uat SET SINGLE_USER WITH ROLLBACK IMMEDIATE").unwrap();
    let next = Moving::new(91);
    assert_eq!(server.target.settle(&next.get(), &next.names.scratch).await.unwrap(), Standing::Old);
    assert!(!server.standin.is_single_user("uat"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_right_of_the_recipe_something_fails() {
    // CREATE ANY DATABASE is implied by ALTER ANY DATABASE (GRANT Server Permissions)
    for right in ["ALTER ANY LOGIN", "ALTER ANY CONNECTION", "VIEW SERVER STATE", "ALTER ANY DATABASE"] {
        let server = serve(Options::default(), verified);
        let moving = Moving::new(90);
        let life = async || {
            server.provide("jit_maria_aaaa", 1, Access::Read).await?;
            let held = client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await?;
            server.remove("jit_maria_aaaa").await?;
            drop(held);
            server.copy(&moving.get()).await?;
            server.target.sweep(&moving.get(), &Scripts::default()).await?;
            server.target.carry_over(&moving.get()).await?;
            server.target.swap(&moving.get(), &moving.names.scratch).await?;
            server.target.drop_kept(&moving.names.old).await
        };
        server.standin.take_right(ADMIN.0, right);
        let failed = life().await;
        assert!(matches!(failed, Err(TargetError::Refused(_) | TargetError::StillConnected)), "without {right}: {failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_script_may_answer_with_anything() {
    let server = serve(Options::default(), verified);
    let moving = Moving::new(90);
    server.copy(&moving.get()).await.unwrap();
    let folder = std::env::temp_dir().join(format!("daypass-scripts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let script = |name: &str, sql: &str| {
        std::fs::write(folder.join(name), sql).unwrap();
        folder.join(name)
    };
    let scripts = [
        script("1-count.sql", "UPDATE sales.orders SET customer = 'masked'\nGO\nSELECT COUNT(*) FROM sales.orders WHERE customer = 'masked'\n"),
        script("2-types.sql", "SELECT name, database_id, create_date, service_broker_guid, owner_sid, is_read_only FROM sys.databases WHERE name = 'golden'\n"),
        script("3-many.sql", "SELECT value, REPLICATE('x', 4) AS filler FROM GENERATE_SERIES(1, 1000000)\n"),
        script("4-nothing.sql", "PRINT 'done'\n"),
    ];
    let swept = server.target.run_scripts(&moving.get(), &Scripts { run: scripts.to_vec(), ..Scripts::default() }).await.unwrap();
    let done: Vec<&str> = swept.iter().map(|swept| swept.done.as_str()).collect();
    assert_eq!(done[0], "ran: 400");
    assert!(done[1].starts_with("ran: golden 2 20") && done[1].ends_with(" 0"), "{}", done[1]);
    assert!(done[2].ends_with("20 xxxx; and 999980 rows more"), "{}", done[2]);
    assert_eq!(done[3], "ran, and said nothing");
    let wrong = script("5-wrong.sql", "SELECT id FROM nowhere\n");
    let failed = server.target.run_scripts(&moving.get(), &Scripts { run: vec![wrong], ..Scripts::default() }).await.unwrap_err().to_string();
    assert!(failed.contains("the script 5-wrong.sql: 208: Invalid object name 'nowhere'"), "{failed}");
    // a check is silent, or the movement stops
    let check = |sql: &str| Scripts { checks: vec![script("masked.sql", sql)], ..Scripts::default() };
    let swept = server.target.run_scripts(&moving.get(), &check("SELECT customer FROM sales.orders WHERE customer <> 'masked'\n")).await.unwrap();
    assert_eq!((swept[0].what.as_str(), swept[0].done.as_str()), ("check masked.sql", "found nothing"));
    let found = server.target.run_scripts(&moving.get(), &check("SELECT TOP 2 customer FROM sales.orders\n")).await.unwrap_err().to_string();
    assert!(found.contains("the check masked.sql found what should not be there") && found.contains("masked; masked"), "{found}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_code_would_reach_beyond_it_is_not_taken() {
    let server = serve(Options::default(), verified);
    let moving = Moving::new(90);
    server.copy(&moving.get()).await.unwrap();
    server.standin.sql("master", &format!("ALTER DATABASE {} SET TRUSTWORTHY ON", moving.names.scratch)).unwrap();
    let failed = server.target.sweep(&moving.get(), &Scripts::default()).await.unwrap_err().to_string();
    assert!(failed.contains("TRUSTWORTHY ON") && failed.contains("CONTROL SERVER"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_managed_instance_a_refresh_is_refused_before_anything_is_done() {
    let server = serve(Options { edition: Edition::Managed, ..Options::default() }, verified);
    let failed = server.copy(&Moving::new(90).get()).await.unwrap_err().to_string();
    assert!(failed.contains("daypass move ENVIRONMENT external"), "{failed}");
    assert_eq!(server.standin.databases(), ["golden", "master", "uat"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sees_sessions_by_the_right_of_2022_alone_is_believed() {
    let server = serve(Options::default(), verified);
    server.standin.take_right(ADMIN.0, "VIEW SERVER STATE");
    server.standin.give_right(ADMIN.0, "VIEW SERVER PERFORMANCE STATE");
    let checks = server.target.test(&uat()).await;
    assert!(checks.iter().all(|check| check.verdict == Verdict::Fine), "{checks:?}");
    server.provide("jit_maria_aaaa", 1, Access::Read).await.unwrap();
    let held = client(&server.standin, "jit_maria_aaaa", "Dp-secret-9").await.unwrap();
    assert_eq!(server.seen().await, [("jit_maria_aaaa".to_owned(), true, 1)]);
    drop(held);
    server.remove("jit_maria_aaaa").await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_a_movement_is_named_before_anything_is_done() {
    let server = serve(Options::default(), verified);
    let moving = Moving::new(90);
    let from = AnyTarget::SqlServer(administrator(&server.standin, verified, 1));
    let golden = "golden".parse().unwrap();
    let look = async || server.target.look_ahead(&moving.get(), Some(&Source::Database { target: &from, database: &golden, same_server: true })).await.unwrap();
    let checks = look().await;
    assert!(checks.iter().all(|check| check.verdict == Verdict::Fine) && checks.len() >= 10, "{checks:#?}");
    for (column, verdict, helps) in [
        ("group_database_id", Verdict::Missing, "REMOVE DATABASE [uat]"),
        ("is_published", Verdict::Missing, "sp_removedbreplication"),
        ("is_cdc_enabled", Verdict::Note, "sys.sp_cdc_enable_db"),
    ] {
        server.standin.mark("uat", column);
        let checks = look().await;
        assert!(checks.iter().any(|check| check.verdict == verdict && check.remedy.contains(helps)), "{column}: {checks:#?}");
    }
    let elsewhere = Source::Database { target: &from, database: &golden, same_server: false };
    let checks = server.target.look_ahead(&moving.get(), Some(&elsewhere)).await.unwrap();
    assert!(checks.iter().any(|check| check.verdict == Verdict::Missing && check.remedy.contains("export FILE.bacpac")), "{checks:#?}");
    let managed = serve(Options { edition: Edition::Managed, ..Options::default() }, verified);
    let from = AnyTarget::SqlServer(administrator(&managed.standin, verified, 1));
    let checks = managed.target.look_ahead(&moving.get(), Some(&Source::Database { target: &from, database: &golden, same_server: true })).await.unwrap();
    assert!(checks.iter().any(|check| check.verdict == Verdict::Missing && check.remedy.contains("daypass move ENVIRONMENT external")), "{checks:#?}");
}
