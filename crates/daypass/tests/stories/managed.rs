//! Managed environments: standing accounts in the vault, used through the gateway, shown with a reason, changed when they should be.

use crate::house::{Account, House};
use serde_json::Value;

const SECRET: &str = "canary-standing-secret";

/// The environment `uat` as a managed one, with the standing account `erp_owner` that exists on the server.
async fn managed() -> House {
    managed_with("").await
}

async fn managed_with(config: &str) -> House {
    let house = House::with(config, None).await;
    let role = format!(
        "CREATE ROLE erp_owner LOGIN PASSWORD '{SECRET}'; GRANT erp_owner TO daypass_admin WITH ADMIN OPTION; GRANT CONNECT ON DATABASE uat TO erp_owner; \
         GRANT USAGE, CREATE ON SCHEMA sales TO erp_owner; GRANT ALL ON ALL TABLES IN SCHEMA sales TO erp_owner"
    );
    house.server.sql("uat", &role).await.unwrap();
    let refused = house.daypass_with("ada", &["standing", "add", "uat", "erp_owner", "--password-stdin"], SECRET).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("self-service"), "{refused:?}");
    assert!(house.daypass("ada", &["env", "kind", "uat", "managed"]).await.status.success());
    // an account whose password one does not know is not kept, or one would be shown the next one
    let guessed = house.daypass_with("ada", &["standing", "add", "uat", "erp_owner", "--password-stdin"], "canary-guess").await;
    assert!(String::from_utf8_lossy(&guessed.stderr).contains("does not get into uat with this password"), "{guessed:?}");
    let added = house.daypass_with("ada", &["standing", "add", "uat", "erp_owner", "--note", "db_owner", "--password-stdin"], SECRET).await;
    assert!(added.status.success(), "{added:?}");
    house
}

async fn revealed(house: &House, why: &str) -> String {
    house.json("sam", &["standing", "reveal", "uat", "erp_owner", "--reason", why]).await["password"].as_str().unwrap().to_owned()
}

async fn until_rotated(house: &House, before: &Value) -> Value {
    let wanted = |found: &Value| found[0]["rotated_at"] != before[0]["rotated_at"] && found[0]["rotation"].is_null();
    house.until_json("sam", &["standing", "ls", "uat"], wanted).await
}

/// Straight to the server, past the gateway.
async fn opens(house: &House, password: &str) -> bool {
    let way = format!("host=127.0.0.1 port={} dbname=uat user=erp_owner sslmode=require connect_timeout=5", house.server.port);
    let mut command = tokio::process::Command::new(house.server.psql());
    command.args([way.as_str(), "-X", "-c", "SELECT 1"]).env("PGPASSWORD", password).stdin(std::process::Stdio::null());
    command.output().await.unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_account_is_used_through_the_gateway_by_somebody_who_never_sees_its_password() {
    let house = managed().await;
    house.json("maria", &["allow", "uat"]).await;
    let way = house.json("maria", &["request", "uat", "--standing", "erp_owner", "--reason", "a repair", "--life", "1h"]).await;
    let account = Account { name: way["account"].as_str().unwrap().to_owned(), password: way["password"].as_str().unwrap().to_owned(), ends_at: String::new() };
    assert_ne!(account.password, SECRET);
    assert_eq!(house.psql(&account, "SELECT current_user").await, (true, "erp_owner\n".to_owned()));
    assert!(house.accounts().await.is_empty(), "no account was made for it");
    // the session is hers, in the list, in the record, and on the server
    let (client, connection) = house.client(&account).await.unwrap();
    let session = house.json("sam", &["sessions", "ls"]).await;
    assert!(session[0]["person"] == "maria" && session[0]["account"] == account.name.as_str(), "{session}");
    let seen = client.query_one("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert!(seen.get::<_, String>(0).contains("maria"));
    // from elsewhere it opens nothing
    for entry in house.json("maria", &["allowed", "uat"]).await.as_array().unwrap() {
        assert!(house.daypass("maria", &["disallow", entry["id"].as_str().unwrap()]).await.status.success());
    }
    assert!(tokio::time::timeout(crate::house::PATIENCE, connection).await.unwrap().unwrap().is_err(), "and its session is cut");
    let said = house.psql(&account, "SELECT 1").await.1;
    assert!(said.contains("not on the allow-list"), "{said}");
    house.json("maria", &["allow", "uat"]).await;
    // a statement that runs when it ends does not go on
    let mut running = house.psql_command(&account, "uat", "", "SELECT pg_sleep(60)").spawn().unwrap();
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'erp_owner' AND state = 'active'";
    house.until(busy, "1").await;
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    house.until(busy, "0").await;
    let _ = running.kill().await;
    assert!(!house.psql(&account, "SELECT 1").await.0);
    let passes = house.until_json("maria", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    assert_eq!(passes[0]["standing"], "erp_owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_password_is_shown_with_a_reason_and_changed_after_that_after_a_movement_and_on_demand() {
    let house = managed().await;
    assert_eq!(house.refused("maria", &["standing", "reveal", "uat", "erp_owner", "--reason", "mine"]).await.0, 3);
    assert_eq!(revealed(&house, "the upgrade tool wants it").await, SECRET);
    assert!(opens(&house, SECRET).await);
    let log = house.daypass("vera", &["log", "find", "--env", "uat"]).await;
    assert!(String::from_utf8_lossy(&log.stdout).contains("the upgrade tool wants it"));

    // from now on a password that was shown is changed
    let before = house.json("sam", &["standing", "ls", "uat"]).await;
    let changed_after = async |seconds: serde_json::Value| house.policy("uat", |policy| policy["rotate_after_reveal"] = seconds).await;
    changed_after(1.into()).await;
    let shown = until_rotated(&house, &before).await;
    assert!(!opens(&house, SECRET).await, "the old password is dead");
    // whoever sees it has the time that policy gives to use it, and is told so
    changed_after(3600.into()).await;
    let said = house.daypass("sam", &["standing", "reveal", "uat", "erp_owner", "--reason", "a look"]).await;
    assert!(String::from_utf8_lossy(&said.stdout).contains("Changed"), "{said:?}");
    let now = revealed(&house, "another look").await;
    assert!(opens(&house, &now).await);
    changed_after(1.into()).await;
    let before = until_rotated(&house, &shown).await;
    assert!(!opens(&house, &now).await, "the reveal was followed by another change");

    // a movement
    changed_after(serde_json::Value::Null).await;
    house.json("sam", &["move", "uat", "refresh", "--from", "golden"]).await;
    let before = until_rotated(&house, &before).await;
    let password = revealed(&house, "after the refresh").await;
    assert!(opens(&house, &password).await);

    // and on demand; through the gateway it goes on working
    house.json("maria", &["allow", "uat"]).await;
    let way = house.json("maria", &["request", "uat", "--standing", "erp_owner", "--reason", "a repair", "--life", "1h"]).await;
    let account = Account { name: way["account"].as_str().unwrap().to_owned(), password: way["password"].as_str().unwrap().to_owned(), ends_at: String::new() };
    assert!(house.daypass("sam", &["standing", "rotate", "uat", "erp_owner"]).await.status.success());
    until_rotated(&house, &before).await;
    assert!(!opens(&house, &password).await);
    assert_eq!(house.psql(&account, "SELECT current_user").await, (true, "erp_owner\n".to_owned()));
    // the secret is in no log and in no file in clear
    let export = house.daypass("vera", &["log", "export"]).await;
    for place in [String::from_utf8_lossy(&export.stdout).into_owned(), house.log()] {
        assert!(!place.contains(SECRET) && !place.contains(&password));
    }
    for file in ["log.db", "log.db-wal"] {
        let bytes = std::fs::read(house.path(&format!("data/{file}"))).unwrap_or_default();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_being_changed_survives_a_crash() {
    let mut house = managed().await;
    for moment in [0_u64, 5, 15, 40, 80, 150] {
        let before = house.json("sam", &["standing", "ls", "uat"]).await;
        assert!(house.daypass("sam", &["standing", "rotate", "uat", "erp_owner"]).await.status.success());
        // the moment of the crash is what varies
        tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
        house.crash().await;
        house.start().await;
        until_rotated(&house, &before).await;
        let password = revealed(&house, "after the crash").await;
        assert!(opens(&house, &password).await, "crash after {moment} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_credentials_are_there_while_remote_desktop_is_on_and_erased_with_it() {
    let house = managed().await;
    let add = ["machine", "add", "uat", "aos-1.example.com", "--user", "Administrator", "--password-stdin"];
    let refused = house.daypass_with("ada", &add, "canary-machine-secret").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Remote desktop is off"), "{refused:?}");
    assert!(house.daypass("ada", &["env", "remote-desktop", "uat", "on"]).await.status.success());
    assert!(house.daypass_with("ada", &add, "canary-machine-secret").await.status.success());
    let shown = house.json("sam", &["machine", "reveal", "uat", "aos-1.example.com", "--reason", "the event log"]).await;
    assert_eq!((shown["name"].as_str(), shown["password"].as_str()), (Some("Administrator"), Some("canary-machine-secret")));
    assert_eq!(house.refused("maria", &["machine", "reveal", "uat", "aos-1.example.com", "--reason", "mine"]).await.0, 3);
    assert!(house.daypass("ada", &["env", "remote-desktop", "uat", "off"]).await.status.success());
    assert!(house.json("sam", &["machine", "ls", "uat"]).await.as_array().unwrap().is_empty());
    assert!(house.daypass("ada", &["env", "remote-desktop", "uat", "on"]).await.status.success());
    assert!(house.json("sam", &["machine", "ls", "uat"]).await.as_array().unwrap().is_empty(), "what was erased does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_to_whoever_just_signed_in() {
    let house = managed_with("[console]\nrecent_seconds = 1\n").await;
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    while house.daypass("sam", &["standing", "reveal", "uat", "erp_owner", "--reason", "signed in just now"]).await.status.success() {
        assert!(std::time::Instant::now() < deadline, "a sign-in is recent for ever");
    }
    let (code, said) = house.refused("sam", &["standing", "reveal", "uat", "erp_owner", "--reason", "a late look"]).await;
    assert!(code == 3 && said.contains("sign-in of the last") && said.contains("daypass login"), "{said}");
    let log = house.daypass("vera", &["log", "find", "--env", "uat"]).await;
    assert!(!String::from_utf8_lossy(&log.stdout).contains("a late look"), "nothing was shown, and nothing is said to be");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_standing_account_runs_ends_on_the_server_even_if_it_takes_no_notice_of_a_cancel() {
    let house = managed().await;
    house.json("maria", &["allow", "uat"]).await;
    let way = house.json("maria", &["request", "uat", "--standing", "erp_owner", "--reason", "a repair", "--life", "1h"]).await;
    let account = Account { name: way["account"].as_str().unwrap().to_owned(), password: way["password"].as_str().unwrap().to_owned(), ends_at: String::new() };
    let stubborn = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(300); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let mut running = house.psql_command(&account, "uat", "", stubborn).spawn().unwrap();
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'erp_owner'";
    house.until(busy, "1").await;
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    house.until(busy, "0").await;
    let _ = running.wait().await;
    let passes = house.until_json("maria", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    assert_eq!(passes[0]["standing"], "erp_owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_password_could_not_be_put_back_is_not_lent() {
    for house in House::on_each_version().await {
        house.server.sql("uat", &format!("CREATE ROLE erp_owner LOGIN PASSWORD '{SECRET}'; GRANT CONNECT ON DATABASE uat TO erp_owner")).await.unwrap();
        assert!(house.daypass("ada", &["env", "kind", "uat", "managed"]).await.status.success());
        let added = house.daypass_with("ada", &["standing", "add", "uat", "erp_owner", "--password-stdin"], SECRET).await;
        let since_16 = house.server.sql("postgres", "SELECT current_setting('server_version_num')::int >= 160000").await.unwrap() == "t";
        assert_eq!(added.status.success(), !since_16, "{added:?}");
        if since_16 {
            let said = String::from_utf8_lossy(&added.stderr);
            assert!(said.contains("GRANT \"erp_owner\" TO \"daypass_admin\" WITH ADMIN OPTION"), "{said}");
        }
    }
}
