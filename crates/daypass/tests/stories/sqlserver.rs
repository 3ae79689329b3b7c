//! The main job on SQL Server's protocol, before a stand-in.

use crate::house::{Account, House, PATIENCE};
use daypass_testkit::sqlserver::{ADMIN, Edition, Encryption, Fault, Options, StandIn};
use daypass_wire::{
    machine::Step,
    tds::{
        browser,
        login7::{Login7, feature},
        startup::Tls,
        upstream::{Found, Upstream},
    },
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tokio_util::compat::TokioAsyncWriteCompatExt;

pub type Client = tiberius::Client<tokio_util::compat::Compat<tokio::net::TcpStream>>;

/// What a client's login says; the rest is the account's.
#[derive(Clone)]
pub struct Way<'a> {
    pub database: Option<&'a str>,
    pub server: &'a str,
    pub strict: bool,
}

pub const USUAL: Way<'static> = Way { database: Some("uat"), server: "localhost", strict: false };

impl House<StandIn> {
    pub async fn tiberius(&self, account: &Account) -> Result<Client, tiberius::error::Error> {
        self.tiberius_by(account, USUAL).await
    }

    pub async fn tiberius_by(&self, account: &Account, way: Way<'_>) -> Result<Client, tiberius::error::Error> {
        let mut config = tiberius::Config::new();
        config.host(way.server);
        config.port(self.sqlserver.port());
        if let Some(database) = way.database {
            config.database(database);
        }
        config.application_name("story");
        config.authentication(tiberius::AuthMethod::sql_server(&account.name, &account.password));
        config.encryption(if way.strict { tiberius::EncryptionLevel::Strict } else { tiberius::EncryptionLevel::Required });
        config.trust_cert_ca_bundle(std::fs::read(self.path("data/ca.pem")).unwrap());
        let tcp = tokio::net::TcpStream::connect(self.sqlserver).await.unwrap();
        Client::connect(config, tcp.compat_write()).await
    }

    pub async fn ask(&self, account: &Account, sql: &str) -> Result<String, String> {
        let mut client = self.tiberius(account).await.map_err(|e| e.to_string())?;
        ask(&mut client, sql).await
    }
}

/// The first value of the first row.
pub async fn ask(client: &mut Client, sql: &str) -> Result<String, String> {
    let results = client.simple_query(sql).await.map_err(|e| e.to_string())?.into_results().await.map_err(|e| e.to_string())?;
    let value = results.first().and_then(|rows| rows.first()).map(|row| {
        let number = row.try_get::<i64, _>(0).or_else(|_| row.try_get::<i32, _>(0).map(|n| n.map(i64::from)));
        number.map(|n| n.unwrap_or_default().to_string()).or_else(|_| row.try_get::<&str, _>(0).map(|t| t.unwrap_or_default().to_owned()))
    });
    value.transpose().map(Option::unwrap_or_default).map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_sql_server() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account_only("maria", "read", "1h").await;
    let refused = house.ask(&account, "SELECT 1").await.unwrap_err();
    assert!(refused.contains("Client with IP address '127.0.0.1' is not allowed") && refused.contains("daypass allow uat 127.0.0.1"), "{refused}");
    house.json("maria", &["allow", "uat"]).await;
    assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "400");
    let refused = house.ask(&account, "DELETE FROM sales.orders").await.unwrap_err();
    assert!(refused.contains("permission was denied"), "{refused}");
    let writer = house.account("maria", "read_write", "1h").await;
    house.ask(&writer, "DELETE FROM sales.orders WHERE id <= 100").await.unwrap();
    assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "300");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_found_by_whatever_name_the_tool_writes() {
    let house = House::sqlserver_with(Options::default(), &[], "suffix = \"db.example.com\"").await;
    let account = house.account("maria", "read", "1h").await;
    let count = "SELECT COUNT(*) FROM sales.orders";
    for server in ["localhost", "uat.db.example.com", "UAT.db.example.com"] {
        let mut client = house.tiberius_by(&account, Way { server, ..USUAL }).await.unwrap_or_else(|e| panic!("{server}: {e}"));
        assert_eq!(ask(&mut client, count).await.unwrap(), "400");
    }
    let mut suffixed = account.clone();
    suffixed.name.push_str("@uat");
    assert_eq!(house.ask(&suffixed, count).await.unwrap(), "400");
    let refused = house.tiberius_by(&account, Way { server: "golden.db.example.com", ..USUAL }).await.unwrap_err().to_string();
    assert!(refused.contains("Cannot open server \"golden\"") && refused.contains("daypass env show uat"), "{refused}");
    suffixed.name = format!("{}@golden", account.name);
    assert!(house.ask(&suffixed, count).await.unwrap_err().contains("Cannot open server"));
    let env = house.json("maria", &["env", "show", "uat"]).await;
    assert_eq!((&env["server_and_database"], &env["server"]), (&"uat\\uat".into(), &"uat.db.example.com".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_the_accounts_own_is_used_and_another_is_named() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    let mut client = house.tiberius_by(&account, Way { database: None, ..USUAL }).await.unwrap();
    assert_eq!(ask(&mut client, "SELECT DB_NAME()").await.unwrap(), "uat");
    assert!(house.tiberius_by(&account, Way { database: Some("UAT"), ..USUAL }).await.is_ok(), "names have no case here");
    let refused = house.tiberius_by(&account, Way { database: Some("golden"), ..USUAL }).await.unwrap_err().to_string();
    assert!(refused.contains("Cannot open database \"golden\"") && refused.contains("Connect to database"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_on_sql_server_are_recorded_and_the_server_sees_who_it_is() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read_write", "1h").await;
    let mut client = house.tiberius(&account).await.unwrap();
    ask(&mut client, "SELECT COUNT(*) FROM sales.orders").await.unwrap();
    client.execute("UPDATE sales.orders SET amount = amount WHERE id <= @P1", &[&3_i32]).await.unwrap();
    ask(&mut client, "SELECT * FROM nowhere").await.unwrap_err();
    let sessions = house.server.sessions();
    let (login, host, program) = sessions.iter().find(|(_, _, program)| program.starts_with("story")).unwrap();
    let pass = house.json("maria", &["passes"]).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!((login, host.as_str(), program.clone()), (&account.name, "127.0.0.1/daypass", format!("story | daypass:{pass}")));
    client.close().await.unwrap();
    let sessions = house.until_json("maria", &["sessions", "ls", "--all"], |sessions| sessions[0]["closed_at"].is_string()).await;
    let statements = house.json("vera", &["sessions", "statements", sessions[0]["id"].as_str().unwrap()]).await;
    let found = |text: &str| statements.as_array().unwrap().iter().find(|s| s["text"].as_str().unwrap().contains(text)).cloned().unwrap_or_default();
    assert_eq!(found("SELECT COUNT")["rows"], 1, "{statements:#}");
    assert_eq!((&found("UPDATE")["rows"], &found("UPDATE")["values"]), (&3.into(), &serde_json::json!(["@P1=3"])), "{statements:#}");
    assert!(found("nowhere")["error"].as_str().unwrap().starts_with("208 Invalid object name"), "{statements:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_movement_and_a_restore_behind_our_back_end_access_on_sql_server() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    let mut client = house.tiberius(&account).await.unwrap();
    ask(&mut client, "SELECT 1").await.unwrap();
    let running = tokio::spawn(async move { ask(&mut client, "WAITFOR DELAY '00:01:00'").await });
    house.json("sam", &["move", "uat", "external", "begin", "--reason", "refresh"]).await;
    let said = running.await.unwrap().unwrap_err();
    assert!(said.contains("being replaced"), "{said}");
    let said = house.ask(&account, "SELECT 1").await.unwrap_err();
    assert!(said.contains("being replaced") || said.contains("Login failed"), "{said}");
    house.json("sam", &["move", "uat", "external", "finish"]).await;
    let account = house.account("maria", "read", "1h").await;
    assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "400");
    house.server.restore_over("golden", "uat").unwrap();
    house.until_json("vera", &["passes", "--all"], |passes| passes.as_array().unwrap().iter().all(|pass| pass["state"] == "ended")).await;
    assert!(house.ask(&account, "SELECT 1").await.is_err());
    assert_eq!(house.server.accounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_sql_server_that_was_exchanged_lets_the_next_login_in_nowhere() {
    for options in [Options::default(), Options { edition: Edition::Azure, ..Options::default() }, Options { sparse: true, ..Options::default() }] {
        let house = House::sqlserver(options, &[]).await;
        if options.edition == Edition::Azure {
            house.server.foreign_rule(Some("uat"), "gateway", "127.0.0.1");
        }
        let account = house.account("maria", "read", "1h").await;
        assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.as_deref(), Ok("400"), "{options:?}");
        // the keeper cannot look, and the account is known to the new database: only the login can tell
        house.server.fault("CAST(state_desc AS nvarchar(60)) FROM sys.databases", Fault::Error(1_222, "Lock request time out period exceeded.".to_owned()));
        house.server.exchange("uat").unwrap();
        let said = house.ask(&account, "SELECT 1").await.unwrap_err();
        assert!(said.contains("was replaced"), "{options:?}: {said}\n{}", house.log());
        for mars in [false, true] {
            let why = refused(log_in_again(&house, &account, mars).await);
            assert!(why.contains("was replaced"), "{why}");
        }
        house.server.heal();
        let over = |passes: &Value| passes[0]["because"].as_str().is_some_and(|why| why.contains("the database was replaced"));
        house.until_json("maria", &["passes", "--all"], over).await;
        house.until_so("nothing is left", || house.server.accounts().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_account_of_another_environment_that_came_inside_a_copy_loses_its_user() {
    for options in [Options::default(), Options { edition: Edition::Azure, ..Options::default() }] {
        let house = House::sqlserver(options, &[]).await;
        if options.edition == Edition::Azure {
            for database in ["uat", "golden"] {
                house.server.foreign_rule(Some(database), "gateway", "127.0.0.1");
            }
        }
        house.json("ben", &["allow", "golden"]).await;
        let his = house.json("ben", &["request", "golden", "--reason", "a story", "--access", "read"]).await["account"].as_str().unwrap().to_owned();
        let there = |database: &str| house.server.accounts().contains(&format!("{database}/{his}"));
        house.server.restore_over("golden", "uat").unwrap();
        assert!(there("uat"));
        house.until_so("his user in uat is gone", || !there("uat")).await;
        assert!(there("golden"), "what he has in golden goes on");
        let log = house.daypass("vera", &["log", "find", "--env", "uat"]).await;
        assert!(String::from_utf8_lossy(&log.stdout).contains(&his));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_on_a_sql_server_is_listed_and_can_be_ended() {
    let mut house = House::sqlserver(Options::default(), &[]).await;
    // a name like one of ours hides nobody
    for sql in ["CREATE LOGIN backdoor WITH PASSWORD = 'Back-Secret-1'", "CREATE LOGIN jit_backup_xx2k WITH PASSWORD = 'Back-Secret-1'"] {
        house.server.sql("master", sql).unwrap();
    }
    for sql in ["CREATE USER backdoor FOR LOGIN backdoor", "ALTER ROLE [db_datawriter] ADD MEMBER [backdoor]", "GRANT ALTER ANY SCHEMA TO backdoor"] {
        house.server.sql("uat", sql).unwrap();
    }
    let mine = house.account("maria", "read", "1h").await;
    // the targets are looked through at the start, and every half minute
    house.crash().await;
    house.start().await;
    let sought = |found: &Value, kind: &str, name: &str| found.as_array().unwrap().iter().any(|drift| drift["kind"] == kind && drift["name"] == name);
    let all = [("login", "backdoor"), ("login", "jit_backup_xx2k"), ("member", "backdoor"), ("privilege", "backdoor")];
    let found = house.until_json("sam", &["drift", "ls"], |found| all.iter().all(|(kind, name)| sought(found, kind, name))).await;
    assert!(!found.to_string().contains(&mine.name) && !sought(&found, "login", ADMIN.0), "{found}");
    for kind in ["login", "member", "privilege"] {
        assert!(house.daypass("ada", &["drift", "judge", "end", kind, "backdoor"]).await.status.success());
    }
    house.until_json("sam", &["drift", "ls", "--all"], |found| !found.to_string().contains("backdoor")).await;
    assert!(house.server.rights("uat", "backdoor").is_empty(), "{:?}", house.server.rights("uat", "backdoor"));
    assert!(house.ask(&mine, "SELECT 1").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_comes_after_the_end() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "6s").await;
    let mut client = house.tiberius(&account).await.unwrap();
    // a row of 8 KB every 20 ms, for longer than the account lives
    let rows = "SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, 1); WAITFOR DELAY '00:00:00.02'; ".repeat(800);
    let mut stream = client.simple_query(rows).await.unwrap();
    let (mut count, mut last) = (0_u64, SystemTime::now());
    let cut = loop {
        match tokio::time::timeout(PATIENCE, stream.next()).await.expect("it goes on, or is cut") {
            Some(Ok(_)) => (count, last) = (count + 1, SystemTime::now()),
            Some(Err(cut)) => break cut,
            None => panic!("the result came to its end after {count} rows"),
        }
    };
    let over = SystemTime::now();
    let ends_at = SystemTime::UNIX_EPOCH + Duration::from_micros(account.ends_at.parse::<jiff::Timestamp>().unwrap().as_microsecond() as u64);
    assert!(count > 20, "the rows flowed: {count}");
    // on a quiet machine the bar is 250 ms, and the bench holds 500 busy sessions to it; this reader shares its processor with other stories
    let late = last.duration_since(ends_at).unwrap_or_default();
    assert!(late <= Duration::from_secs(1), "{late:?} after the end a row still came");
    assert!(over >= ends_at, "it was cut too early: {cut}");
    house.until_so("the account is gone", || house.server.accounts().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_gets_no_further_byte_and_leaves_nothing_behind() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read_write", "1h").await;
    let mut client = house.tiberius(&account).await.unwrap();
    let running = tokio::spawn(async move { ask(&mut client, "WAITFOR DELAY '00:01:00'").await });
    house.until_json("sam", &["sessions", "ls"], |sessions| !sessions.as_array().unwrap().is_empty()).await;
    house.json("sam", &["end", &account.name, "--reason", "wrong database"]).await;
    let said = running.await.unwrap().unwrap_err();
    assert!(said.contains("was revoked") && said.contains("50001"), "{said}");
    house.until_json("vera", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    assert_eq!(house.server.accounts(), Vec::<String>::new());
    let explained = house.json("maria", &["explain", &format!("Login failed for user '{}'.", account.name)]).await;
    assert!(explained["cause"].as_str().unwrap().contains("was revoked"), "{explained}");
    let blocked = "[Microsoft][ODBC Driver 18 for SQL Server][SQL Server]Cannot open server 'uat' requested by the login. Client with IP address '10.9.8.7' is not allowed to access the server.";
    let explained = house.json("maria", &["explain", blocked]).await;
    assert!(
        explained["cause"].as_str().unwrap().contains("never entered") && explained["remedy"].as_str().unwrap().contains("daypass connect uat"),
        "{explained}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_stands_before_a_strict_server_one_without_tls_and_an_engine_that_only_speaks_the_protocol() {
    let strict = House::sqlserver(Options::default(), &["--strict-tls"]).await;
    let plain = House::sqlserver(Options { encryption: Encryption::None, ..Options::default() }, &["--without-tls"]).await;
    let sparse = House::sqlserver(Options { sparse: true, ..Options::default() }, &[]).await;
    let account = sparse.account("maria", "read", "1h").await;
    let why = refused(log_in_again(&sparse, &account, true).await);
    assert!(why.starts_with("18456") && why.contains("MARS") && why.contains("Switch it off"), "with a number that no driver tries again: {why}");
    sparse.json("maria", &["end", &account.name]).await;
    for (house, kind) in [(&strict, "strict"), (&plain, "plain"), (&sparse, "sparse")] {
        let account = house.account("maria", "read_write", "1h").await;
        for strict in [true, false] {
            let mut client = house.tiberius_by(&account, Way { strict, ..USUAL }).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_eq!(ask(&mut client, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "400", "{kind}");
        }
        house.json("maria", &["end", &account.name]).await;
        house.until_json("vera", &["passes", "--all"], |passes| passes.as_array().unwrap().iter().all(|pass| pass["state"] == "ended")).await;
        assert_eq!(house.server.accounts(), Vec::<String>::new(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_speaks_of_a_target_that_does_not_let_it_in() {
    let house = House::sqlserver(Options::default(), &[]).await;
    house.server.fault("ADD MEMBER", Fault::Error(15_151, "no such role here".to_owned()));
    house.json("maria", &["request", "uat", "--no-wait", "--reason", "a story"]).await;
    house.until_json("maria", &["passes"], |passes| passes[0]["because"].as_str().is_some_and(|why| why.contains("no such role here"))).await;
    house.server.heal();
    house.until_json("maria", &["passes"], |passes| passes[0]["state"] == "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_refuses_in_words_and_in_time() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    house.server.fault("SELECT 7", Fault::Hang);
    let mut client = house.tiberius(&account).await.unwrap();
    let running = tokio::spawn(async move { ask(&mut client, "SELECT 7").await });
    house.until_json("sam", &["sessions", "ls"], |sessions| !sessions.as_array().unwrap().is_empty()).await;
    house.json("sam", &["end", &account.name, "--reason", "it hangs"]).await;
    let said = running.await.unwrap().unwrap_err();
    assert!(said.contains("was revoked"), "{said}");
    house.until_json("vera", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    assert_eq!(house.server.accounts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn azures_own_firewall_lets_in_and_out_without_a_gateway() {
    let house = House::sqlserver(Options { edition: Edition::Azure, ..Options::default() }, &["--enforce", "azure_sql_firewall"]).await;
    house.server.foreign_rule(Some("uat"), "office", "198.51.100.7");
    let account = house.account_only("maria", "read", "1h").await;
    let direct = async |account: &Account| {
        let mut config = tiberius::Config::new();
        config.host("localhost");
        config.port(house.server.port);
        config.database("uat");
        config.authentication(tiberius::AuthMethod::sql_server(&account.name, &account.password));
        config.encryption(tiberius::EncryptionLevel::Required);
        config.trust_cert_ca_bundle(house.server.ca.as_bytes());
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", house.server.port)).await.unwrap();
        Client::connect(config, tcp.compat_write()).await
    };
    let refused = direct(&account).await.unwrap_err().to_string();
    assert!(refused.contains("not allowed"), "the account alone: {refused}");
    let entry = house.json("maria", &["allow", "uat"]).await;
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    let mut client = loop {
        match direct(&account).await {
            Ok(client) => break client,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}\n{}", house.log()),
        }
    };
    assert_eq!(ask(&mut client, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "400");
    let shown = house.until_json("ada", &["env", "show", "uat"], |env| !env["drift"].as_array().unwrap().is_empty()).await;
    assert_eq!((&shown["enforce"], &shown["drift"][0]), (&"azure_sql_firewall".into(), &"office (198.51.100.7 to 198.51.100.7)".into()));
    let running = tokio::spawn(async move { ask(&mut client, "WAITFOR DELAY '00:01:00'").await });
    for way in ["sp_delete_database_firewall_rule", "255.255.255.255"] {
        house.server.fault(way, Fault::Error(40_501, "The service is currently busy.".to_owned()));
    }
    house.daypass("maria", &["disallow", entry["id"].as_str().unwrap()]).await;
    assert!(running.await.unwrap().is_err(), "Azure leaves it open: Daypass ends it");
    // and whoever comes back in while Azure does not take the rule away
    house.until_so("the rule's removal fails", || house.server.has_seen("255.255.255.255")).await;
    let again = async { ask(&mut direct(&account).await.map_err(|e| e.to_string())?, "WAITFOR DELAY '00:01:00'").await };
    let ended = tokio::time::timeout(crate::house::PATIENCE, again).await;
    assert!(ended.is_ok_and(|said| said.is_err()), "ended, though the rule is still there");
    house.server.heal();
    // a rule that is not ours stays
    house.until_so("only the rule of the others is left", || house.server.rules("uat") == ["office"]).await;
    assert!(house.server.has_seen("DBCC FLUSHAUTHCACHE"));
    house.json("maria", &["end", &account.name]).await;
    house.until_json("vera", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    assert_eq!(house.server.accounts(), Vec::<String>::new());
}

/// What a script of the old system sends; gives status and body.
async fn script(house: &House<StandIn>, person: &str, body: Value, environment: &str) -> (u16, Value) {
    script_with(house, person, body, environment, None).await
}

async fn script_with(house: &House<StandIn>, person: &str, body: Value, environment: &str, key: Option<&str>) -> (u16, Value) {
    let token = house.daypass(person, &["token", "add", "a script", "--life", "1h"]).await;
    let token = String::from_utf8(token.stdout).unwrap();
    let address = format!("https://{}/api/data/v9.2/msprov_getfinopssqljitaccessasync", house.api);
    let client = reqwest::Client::builder().tls_backend_preconfigured(crate::house::tls(&house.path("data/ca.pem"))).build().unwrap();
    let mut request = client.post(address).bearer_auth(token.trim()).header("x-daypass-environment", environment).json(&body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["odata-version"], "4.0");
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_the_old_system_get_an_account_in_one_call() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let wish = |address: &str, role: &str| json!({"sqljitclientipaddress": address, "sqljitreason": "Needed for data migration", "sqljitrole": role});
    let (status, answer) = script(&house, "maria", wish("127.0.0.1", "Reader"), "uat").await;
    assert_eq!(status, 200, "{answer}");
    let text = |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{key}: {answer}")).to_owned();
    assert_eq!((text("databasename"), text("sqljitrole"), text("ipaddress")), ("uat".into(), "Reader".into(), "127.0.0.1".into()));
    assert_eq!(text("servername"), format!("localhost,{}", house.sqlserver.port()));
    assert!(text("sqljitexpiration").parse::<jiff::Timestamp>().is_ok() && text("operationhistoryid").len() == 36 && text("@odata.context").contains("msprov"));
    let account = Account { name: text("sqljitusername"), password: text("sqljitpassword"), ends_at: String::new() };
    assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "400");
    let passes = house.json("sam", &["passes"]).await;
    assert_eq!((&passes[0]["reason"], &passes[0]["access"]), (&"Needed for data migration".into(), &"read".into()), "the same log");
    let (status, writer) = script(&house, "ben", wish("127.0.0.1-127.0.0.9", "Writer"), "uat").await;
    assert_eq!((status, &writer["ipaddress"]), (200, &"127.0.0.1-127.0.0.9".into()), "{writer}");
    let account = Account {
        name: writer["sqljitusername"].as_str().unwrap().into(),
        password: writer["sqljitpassword"].as_str().unwrap().into(),
        ends_at: String::new(),
    };
    house.ask(&account, "DELETE FROM sales.orders WHERE id = 1").await.unwrap();
    // one key means one request: the same for another environment is refused, and gives nothing away
    let (status, _) = script_with(&house, "maria", wish("127.0.0.1/32", "Reader"), "uat", Some("k1")).await;
    let (other, refused) = script_with(&house, "maria", wish("127.0.0.1/32", "Reader"), "golden", Some("k1")).await;
    assert!(status == 200 && other == 409 && refused["sqljitpassword"].is_null(), "{refused}");
    for (address, role, environment, part) in [
        ("10.0.0.0/8", "Writer", "uat", "wider than policy"),
        ("127.0.0.1", "Owner", "uat", "Reader or Writer"),
        ("somewhere", "Reader", "uat", "is not an IP address"),
        ("127.0.0.1", "Reader", "nowhere", "nowhere"),
    ] {
        let (status, answer) = script(&house, "maria", wish(address, role), environment).await;
        assert!(status >= 400 && answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
        assert!(answer["error"]["code"].is_string());
    }
    // each call takes the place of the one before, as there
    house.until_json("maria", &["passes"], |passes| passes.as_array().unwrap().len() == 1).await;
    let mut policy = house.json("ada", &["policy", "golden"]).await;
    policy["approval"] = json!({"read": "one"});
    std::fs::write(house.path("policy.json"), policy.to_string()).unwrap();
    house.json("ada", &["policy", "golden", "--set", &house.path("policy.json").display().to_string()]).await;
    for _ in 0..3 {
        let (status, answer) = script(&house, "maria", wish("127.0.0.1", "Reader"), "golden").await;
        assert!(status == 409 && answer["error"]["message"].as_str().unwrap().contains("waits for an approval"), "{answer}");
    }
    let waiting = house.json("maria", &["passes", "--env", "golden"]).await;
    assert_eq!(waiting.as_array().unwrap().len(), 1, "asked again, it is the same request");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_panel_has_every_tool_and_connect_starts_the_client_that_is_there() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    let way = house.json("maria", &["reveal", &account.name]).await;
    let tools: Vec<&str> = way["settings"].as_array().unwrap().iter().map(|s| s["tool"].as_str().unwrap()).collect();
    assert_eq!(tools, ["ssms", "vscode-mssql", "sqlcmd", "ado.net", "jdbc", "odbc", "pymssql", "tedious", "sqlalchemy"]);
    let one = house.daypass("maria", &["reveal", &account.name, "--for", "ado.net"]).await;
    assert!(String::from_utf8_lossy(&one.stdout).contains(&format!("Server=tcp:localhost,{};Database=uat", house.sqlserver.port())), "{one:?}");
    assert!(house.refused("maria", &["reveal", &account.name, "--for", "excel"]).await.1.contains("ssms"));
    // a sqlcmd that says what it was given; the real ones are not to be had here
    let bin = house.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("sqlcmd"), "#!/bin/sh\necho \"$@\"\necho \"$SQLCMDPASSWORD $SSL_CERT_FILE\"\n").unwrap();
    std::fs::set_permissions(bin.join("sqlcmd"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = house.command("maria", &["connect", "uat", "--reason", "a story", "--", "-Q", "SELECT 1"]);
    let said = command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().await.unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let wanted = format!("-S tcp:localhost,{} -d uat -U {} -N -Q SELECT 1", house.sqlserver.port(), account.name);
    assert!(said.contains(&wanted) && !said.lines().next().unwrap().contains(&account.password) && said.contains(".pem"), "{said}");
    // without sqlcmd, tsql: FreeTDS asks for the password
    let mut command = tokio::process::Command::new("setsid");
    command.args([crate::house::PROGRAM, "connect", "uat", "--", "-o", "q"]).env("DAYPASS_CONFIG_DIR", house.path("maria")).kill_on_drop(true);
    command.env("PATH", "/usr/bin:/bin").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    // of a terminal of its own, it reads the password from its input
    let mut child = command.spawn().unwrap();
    let input = format!("{}\nSELECT COUNT(*) FROM sales.orders\ngo\nexit\n", account.password);
    tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("400"), "{output:?}");
}

/// A login that carries the state of a session that was lost, as drivers send it by themselves (feature SESSIONRECOVERY).
/// The numbers and words of a refusal.
fn refused(found: Found) -> String {
    let Found::Answered(said) = found else { panic!("it was let in, or heard no error: {found:?}") };
    said.iter().map(|said| format!("{}: {}", said.number, said.text)).collect::<Vec<_>>().join("; ")
}

async fn log_in_again(house: &House<StandIn>, account: &Account, mars: bool) -> Found {
    log_in_with(house, account, mars, Login7::default().packet_size).await
}

async fn log_in_with(house: &House<StandIn>, account: &Account, mars: bool, packet_size: u32) -> Found {
    let login = Login7 {
        packet_size,
        user: account.name.clone(),
        password: zeroize::Zeroizing::new(account.password.clone()),
        server: "localhost".to_owned(),
        features: vec![(feature::SESSION_RECOVERY, vec![0; 57])],
        ..Login7::default()
    };
    let mut machine = Upstream::new(login, mars, Some(Tls::Strict), None);
    let mut tls = crate::house::tls(&house.path("data/ca.pem"));
    tls.alpn_protocols = vec![b"tds/8.0".to_vec()];
    let tcp = tokio::net::TcpStream::connect(house.sqlserver).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls)).connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(machine.step(), Step::StartTls);
    machine.tls_started();
    loop {
        match machine.step() {
            Step::Send(bytes) => tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap(),
            Step::Read(n) => {
                let mut bytes = vec![0; n];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut bytes).await.unwrap();
                machine.feed(&bytes);
            }
            Step::Found(found) => return found,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_asked_for_packets_as_large_as_the_client_wants() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    for size in [512_u32, 8_000, 32_767] {
        let Found::Ready(ready) = log_in_with(&house, &account, false, size).await else { panic!("{size}: it was not let in") };
        // ENVCHANGE of type 4: what the server says that it sends from now on
        let size = size & !3;
        let said: Vec<u8> = size.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
        let change = [&[4, size.to_string().len() as u8][..], &said].concat();
        assert!(ready.reply.windows(change.len()).any(|part| part == change), "{size}: {:?}", ready.reply);
    }
}

/// `server\\database` is all that they type: the tool asks SQL Server Browser for the port.
const BY_NAME: [(&str, &str, &str); 2] = [
    (
        "bin/python",
        "-c",
        "import json, sys, pytds\nw = json.loads(sys.argv[1])\nc = pytds.connect(w['name'], user=w['user'], password=w['password'], cafile=w['ca'], validate_host=False)\n\
         q = c.cursor(); q.execute('SELECT COUNT(*) FROM sales.orders'); print(q.fetchone()[0])",
    ),
    (
        "bin/node",
        "-e",
        "const w = JSON.parse(process.argv[1]); const [server, instanceName] = w.name.split('\\\\'); const { Connection, Request } = require(w.tedious);\n\
         const c = new Connection({ server, authentication: { type: 'default', options: { userName: w.user, password: w.password } },\n\
           options: { instanceName, encrypt: true, cryptoCredentialsDetails: { ca: require('fs').readFileSync(w.ca) } } });\n\
         c.connect((e) => { if (e) { console.log(e.message); process.exit(1); }\n\
           const r = new Request('SELECT COUNT(*) FROM sales.orders', () => c.close()); r.on('row', (row) => console.log(row[0].value)); c.execSql(r); });",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn server_and_database_are_all_that_i_type() {
    // the port is one for the whole machine, the address is not
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let address = std::net::Ipv4Addr::new(127, a | 64, b, c);
    let config = format!("names = [\"localhost\", \"127.0.0.1\", \"{address}\"]\nlisten_browser = \"{address}:1434\"\n");
    let house = House::sqlserver_on(address, Options::default(), &[], &config).await;
    let account = house.account_only("maria", "read", "1h").await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect((address, 1434)).await.unwrap();
    let mut buffer = [0; 1024];
    let mut ask = async |request: &[u8], patience: u64| {
        socket.send(request).await.unwrap();
        let heard = tokio::time::timeout(std::time::Duration::from_millis(patience), socket.recv(&mut buffer)).await;
        heard.ok().map(|length| buffer[..length.unwrap()].to_vec())
    };
    // an address that is not entered hears nothing, as from a machine where nobody listens
    assert_eq!(ask(b"\x04uat\0", 300).await, None);
    house.json("maria", &["allow", "uat"]).await;
    let said = ask(b"\x04UAT\0", 5_000).await.expect("an answer");
    assert!(said.len() <= browser::ANSWER, "{said:?}");
    assert_eq!(browser::answered(&said), Some(vec![("UAT".to_owned(), house.sqlserver.port())]));
    let said = ask(b"\x03", 5_000).await.expect("an answer");
    assert_eq!(browser::answered(&said), Some(vec![("uat".to_owned(), house.sqlserver.port())]), "what this address may reach");
    // others' environments, and what is too long: nothing
    for request in [&b"\x04golden\0"[..], b"\x0f\x01uat\0", &[4; 2_000]] {
        assert_eq!(ask(request, 200).await, None, "{request:?}");
    }
    let tools = crate::clients::tools().await;
    let want = serde_json::json!({
        "name": format!("{address}\\uat"), "user": account.name, "password": account.password, "ca": house.path("data/ca.pem"), "tedious": tools.join("node_modules/tedious"),
    });
    for (program, flag, text) in BY_NAME {
        let mut command = tokio::process::Command::new(tools.join(program));
        let output = command.args([flag, text, &want.to_string()]).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "400", "{program}: {output:?}\n{}", house.log());
    }
    // whoever asks more often than any tool does is answered no more than that
    for _ in 0..50 {
        socket.send(b"\x04uat\0").await.unwrap();
    }
    let mut answers = 0;
    while ask(b"\x01", 300).await.is_some() {
        answers += 1;
    }
    assert!(answers <= 20, "{answers}");
}

/// Texts as Microsoft's documentation has them ("Database engine events and errors").
#[tokio::test(flavor = "multi_thread")]
async fn what_my_sql_server_has_against_a_login_i_am_told_in_its_own_words() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    for (number, text, told, explained) in [
        // nobody tries these again by themselves
        (17_892, "Logon failed for login 'jit_maria' due to trigger execution.", 18_456, "itself refused"),
        (
            18_461,
            "Login failed for user 'jit_maria'. Reason: Server is in single user mode. Only one administrator can connect at this time.",
            18_456,
            "itself refused",
        ),
        (942, "Database 'uat' cannot be opened because it is offline.", 18_456, "itself refused"),
        // these they do
        (922, "Database 'uat' is being recovered. Waiting until recovery is finished.", 40_613, "at the moment"),
        (40_197, "The service has encountered an error processing your request. Please try again. Error code 4060.", 40_613, "at the moment"),
        (17_809, "Could not connect because the maximum number of '40' user connections has already been reached.", 10_928, "no connection left"),
    ] {
        house.server.refuse(number, text);
        let why = refused(log_in_again(&house, &account, false).await);
        assert!(why.starts_with(&format!("{told}: ")) && why.contains(text.trim_end_matches('.')), "{number}: {why}");
        let explanation = house.json("maria", &["explain", &why]).await;
        assert!(explanation["cause"].as_str().unwrap().contains(explained), "{number}: {explanation}");
    }
    // what is about the gateway's own login is the operator's, with the reference that the person has
    house.server.refuse(18_456, "Login failed for user 'jit_maria'. Reason: Token-based server access validation failed.");
    let why = refused(log_in_again(&house, &account, false).await);
    assert!(why.starts_with("18456: ") && why.contains("did not let the gateway in") && !why.contains("Token"), "{why}");
    let reference = why.split("with the reference ").nth(1).and_then(|rest| rest.split(['.', ' ']).next()).unwrap();
    assert!(house.log().lines().any(|line| line.contains(reference) && line.contains("Token-based")), "{reference}: {}", house.log());
    house.server.heal();
    assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.as_deref(), Ok("400"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_logs_in_again_by_itself_is_refused_with_the_reason() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    assert!(matches!(log_in_again(&house, &account, false).await, Found::Ready(_)), "while the pass lives it is a login like any other");
    house.json("maria", &["end", &account.name]).await;
    house.until_json("vera", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    let why = refused(log_in_again(&house, &account, false).await);
    assert!(why.contains("18456") && why.contains("was given back") && why.contains("daypass request"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_on_sql_server_is_a_backup_restored_beside_swept_and_renamed() {
    for (options, way) in [(Options::default(), "RESTORE DATABASE"), (Options { edition: Edition::Azure, ..Options::default() }, "AS COPY OF")] {
        let house = House::sqlserver(options, &[]).await;
        // on Azure the gateway needs a rule in each database, and others' rules travel with a copy
        for (database, rule) in [("uat", "gateway"), ("golden", "golden-office")] {
            house.server.foreign_rule(Some(database), rule, "127.0.0.1");
        }
        house.json("ben", &["allow", "golden"]).await;
        let his = house.json("ben", &["request", "golden", "--reason", "a story", "--access", "read_write"]).await;
        let account = house.account("maria", "read", "1h").await;
        house.server.sql("golden", "DELETE FROM sales.orders WHERE id > 7").unwrap();
        // somebody is at home in both, with other rights and, on Azure, with another password; and golden's owner planted something
        if options.edition != Edition::Azure {
            house.server.sql("master", "CREATE LOGIN app WITH PASSWORD = 'App-Secret-1'").unwrap();
        }
        for (database, right) in [("golden", "ALTER ANY SCHEMA"), ("uat", "SHOWPLAN")] {
            let user = if options.edition == Edition::Azure { "CREATE USER app WITH PASSWORD = 'App-Secret-1'" } else { "CREATE USER app FOR LOGIN app" };
            house.server.sql(database, user).unwrap();
            house.server.sql(database, &format!("GRANT {right} TO app")).unwrap();
        }
        house.server.trigger("golden", "trap");
        let folder = house.path("data/scripts/uat");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("mask.sql"), "UPDATE sales.orders SET customer = 'masked'\nGO\nSELECT 'all masked'\n").unwrap();
        let done = house.json("sam", &["move", "uat", "refresh", "--from", "golden"]).await;
        assert_eq!(done["status"], "Completed", "{done}\n{}", house.log());
        assert!(house.server.has_seen(way), "{way}");
        let swept = done["swept"].to_string();
        assert!(swept.contains(his["account"].as_str().unwrap()) && swept.contains("all masked"), "{swept}");
        assert!(!house.server.accounts().iter().any(|user| user.starts_with("uat/")), "{:?}", house.server.accounts());
        assert_eq!(house.server.rights("uat", "app"), ["SHOWPLAN"], "{swept}");
        assert!(house.server.triggers("uat").is_empty() && swept.contains("trigger trap"), "{swept}");
        assert_eq!(house.server.triggers("golden"), ["trap"], "in the source nothing changed");
        assert_eq!(swept.contains("password of the source of user app"), options.edition == Edition::Azure, "{swept}");
        assert!(house.tiberius(&account).await.is_err(), "the old account is out");
        assert!(
            options.edition != Edition::Azure || house.server.rules("uat") == ["gateway"] && swept.contains("golden-office"),
            "{:?}",
            house.server.rules("uat")
        );
        let fresh = house.account("maria", "read", "1h").await;
        let masked = house.ask(&fresh, "SELECT count(*) FROM sales.orders WHERE customer = 'masked'").await;
        assert_eq!(masked.as_deref(), Ok("7"), "{way}\n{}", house.log());
        // on Azure the database that was put aside stays online, and lets nobody in
        let old = done["kept"]["database"].as_str().unwrap();
        assert_eq!(house.server.shut_out(old), if options.edition == Edition::Azure { vec!["app".to_owned()] } else { vec![] });
        assert_eq!(house.json("sam", &["move", "uat", "undo"]).await["status"], "RollbackCompleted");
        assert!(house.server.shut_out("uat").is_empty(), "and back in place it does");
        let back = house.account("maria", "read", "1h").await;
        assert_eq!(house.ask(&back, "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_on_sql_server_leaves_the_old_database_in_place() {
    let mut house = House::sqlserver(Options::default(), &[]).await;
    // so that the copy can be told from the database of before
    house.server.sql("golden", "DELETE FROM sales.orders WHERE id > 7").unwrap();
    for part in ["BACKUP DATABASE", "RESTORE DATABASE", "MODIFY NAME = [uat]"] {
        for fault in [Fault::Error(3_013, "BACKUP DATABASE is terminating abnormally.".to_owned()), Fault::Drop] {
            // a name that is refused is tried again for a while
            let fault = if part.starts_with("MODIFY") { Fault::Drop } else { fault };
            house.server.forget_seen();
            house.server.fault(part, fault);
            assert!(!house.daypass("sam", &["move", "uat", "refresh", "--from", "golden", "--no-wait"]).await.stdout.is_empty());
            let failed = |found: &Value| found[0]["status"] == "Failed";
            if part.starts_with("MODIFY") {
                // a name that cannot be exchanged is put back when the server lets it: it does not say Failed before
                house.until_so("the fault was met", || house.server.has_seen(part)).await;
                house.server.heal();
            }
            house.until_json("sam", &["move", "uat", "status"], failed).await;
            house.server.heal();
            let account = house.account("maria", "read", "1h").await;
            assert_eq!(house.ask(&account, "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
        }
    }
    // and a crash in the middle of it
    house.server.fault("RESTORE DATABASE", Fault::Hang);
    house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--no-wait"]).await;
    // which says how far it is: the backup is read, and the restore stands at 40 per cent
    let far = |found: &Value| found[0]["phase"] == "copy" && found[0]["progress"]["bytes"] == 1_000 * 8_192 * 140 / 100;
    let found = house.until_json("sam", &["move", "uat", "status"], far).await;
    assert_eq!(found[0]["progress"]["total_bytes"], 2 * 1_000 * 8_192);
    house.crash().await;
    house.server.heal();
    house.start().await;
    // what was being prepared is prepared anew
    house.until_json("sam", &["move", "uat", "status"], |found| found[0]["status"] == "Completed").await;
    let account = house.account("maria", "read", "1h").await;
    assert_eq!(house.ask(&account, "SELECT count(*) FROM sales.orders").await.unwrap(), "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_from_an_account_in_the_database_or_gives_to_it_is_put_right() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account("maria", "read", "1h").await;
    let roles = || house.server.rights("uat", &account.name).into_iter().filter(|right| right.starts_with("db_")).collect::<Vec<_>>();
    assert_eq!(roles(), ["db_datareader"]);
    for meddled in ["ALTER ROLE db_datareader DROP MEMBER [@]", "ALTER ROLE db_owner ADD MEMBER [@]", "DROP USER [@]"] {
        house.server.sql("uat", &meddled.replace('@', &account.name)).unwrap();
        house.until_so(meddled, || roles() == ["db_datareader"]).await;
        assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "400", "{meddled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_that_tries_a_real_server_comes_out_right_before_the_stand_in() {
    let standin = StandIn::start(Options::default()).unwrap();
    let folder = std::env::temp_dir().join(format!("daypass-try-story-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (ca, report, port) = (folder.join("ca.pem"), folder.join("report.md"), standin.port.to_string());
    std::fs::write(&ca, &standin.ca).unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut script = tokio::process::Command::new(root.join("scripts/try-sql-server"));
    script.args(["localhost", "--port", &port, "--ca"]).arg(&ca).arg("--report").arg(&report).current_dir(&root);
    script.env("SA_PASSWORD", "Super-Secret-1").env("DAYPASS", env!("CARGO_BIN_EXE_daypass")).kill_on_drop(true);
    let done = tokio::time::timeout(PATIENCE * 10, script.output()).await.expect("the script ends").unwrap();
    let report = std::fs::read_to_string(&report).unwrap_or_default();
    assert!(done.status.success(), "{}\n{report}", String::from_utf8_lossy(&done.stdout));
    assert!(!report.contains("Super-Secret-1") && !report.contains("Daypass-try-9") && report.contains("28 of 28 came out right"), "{report}");
    assert_eq!(standin.databases(), ["golden", "master", "uat"]);
    std::fs::remove_dir_all(&folder).unwrap();
}
