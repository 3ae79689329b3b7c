//! Nothing is left behind: what an account owned is on record and runs no more, what others made is listed and can be ended.

use crate::house::House;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_leaves_behind_is_on_record_and_runs_no_more() {
    let house = House::open().await;
    house.server.sql("uat", "GRANT TRIGGER ON sales.orders TO PUBLIC").await.unwrap();
    // a stand-in for the extension pg_cron: its table of jobs
    let cron = "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint, username text, command text); GRANT USAGE ON SCHEMA cron TO daypass_admin; GRANT SELECT ON cron.job TO daypass_admin";
    house.server.sql("postgres", cron).await.unwrap();
    // somebody who means well lets her make things
    let helped = async || {
        let account = house.account("maria", "read_write", "1h").await;
        house.server.sql("uat", &format!("GRANT CREATE ON SCHEMA sales TO {}", account.name)).await.unwrap();
        account
    };
    let account = helped().await;
    let plant = "CREATE TABLE sales.mine (x int); CREATE FUNCTION sales.later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
                 CREATE TRIGGER watch BEFORE INSERT ON sales.orders FOR EACH ROW EXECUTE FUNCTION sales.later()";
    let planted = house.psql(&account, plant).await;
    assert!(planted.0, "{planted:?}");
    assert!(house.psql(&account, "BEGIN; INSERT INTO sales.mine VALUES (1); PREPARE TRANSACTION 'later'").await.0);
    house.server.sql("postgres", &format!("INSERT INTO cron.job VALUES (1, '{}', 'DELETE FROM sales.orders')", account.name)).await.unwrap();
    house.json("maria", &["end", &account.name]).await;
    house.until_no_accounts().await;
    let passes = house.until_json("maria", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    let left = passes[0]["left"].to_string();
    for thing in [
        "table sales.mine in uat",
        "CREATE OR REPLACE FUNCTION sales.later()",
        "trigger watch on table sales.orders in uat was made with it",
        "prepared transaction later",
        "job 1: DELETE",
    ] {
        assert!(left.contains(thing), "{thing} is not in {left}");
    }
    assert!(house.server.sql("uat", "SELECT tableowner FROM pg_tables WHERE tablename = 'mine'").await.unwrap().ends_with("_estate"));
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM pg_prepared_xacts").await.unwrap(), "0");
    let log = house.daypass("vera", &["log", "find", "--env", "uat"]).await;
    assert!(String::from_utf8_lossy(&log.stdout).contains("data goes to a role without rights"), "{log:?}");

    // where the policy says so it is dropped; what others depend on is given away all the same
    house.policy("uat", |policy| policy["drop_leftovers"] = true.into()).await;
    let account = helped().await;
    assert!(house.psql(&account, "CREATE TABLE sales.gone (x int)").await.0);
    house.json("maria", &["end", &account.name]).await;
    house.until_no_accounts().await;
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM pg_tables WHERE tablename = 'gone'").await.unwrap(), "0");
    let account = helped().await;
    assert!(house.psql(&account, "CREATE TABLE sales.needed (x int); GRANT SELECT ON sales.needed TO uat_owner").await.0);
    house.server.sql("uat", "CREATE VIEW sales.on_it AS SELECT * FROM sales.needed").await.unwrap();
    house.json("maria", &["end", &account.name]).await;
    house.until_no_accounts().await;
    assert!(house.server.sql("uat", "SELECT tableowner FROM pg_tables WHERE tablename = 'needed'").await.unwrap().ends_with("_estate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_is_listed_with_when_it_was_first_seen_and_ended_when_somebody_says_so() {
    let mut house = House::open().await;
    let doors = "CREATE ROLE backdoor LOGIN PASSWORD 'a-back-door'; GRANT CONNECT ON DATABASE uat TO backdoor; GRANT USAGE ON SCHEMA sales TO backdoor; \
                 GRANT SELECT ON sales.orders TO backdoor; GRANT backdoor TO daypass_admin WITH ADMIN OPTION; CREATE ROLE reader LOGIN PASSWORD 'x'; GRANT pg_read_all_data TO reader WITH ADMIN OPTION; \
                 GRANT pg_read_all_data TO daypass_admin WITH ADMIN OPTION";
    house.server.sql("uat", doors).await.unwrap();
    let sought = |found: &Value, kind: &str, name: &str| found.as_array().unwrap().iter().any(|drift| drift["kind"] == kind && drift["name"] == name);
    let all = [("login", "backdoor"), ("privilege", "backdoor"), ("member", "reader")];
    // the targets are looked through at the start, and every half minute
    house.crash().await;
    house.start().await;
    let found = house.until_json("sam", &["drift", "ls"], |found| all.iter().all(|(kind, name)| sought(found, kind, name))).await;
    assert!(!sought(&found, "login", "daypass_admin"), "the administrator is known: {found}");
    assert!(found[0]["first_seen"].as_str().unwrap().starts_with("20"));
    assert_eq!(house.refused("sam", &["drift", "judge", "end", "login", "backdoor"]).await.0, 3, "a manager sees, an administrator judges");
    assert!(house.daypass("ada", &["drift", "judge", "mine", "member", "reader"]).await.status.success());
    assert!(!sought(&house.json("sam", &["drift", "ls"]).await, "member", "reader"));
    for kind in ["login", "privilege"] {
        assert!(house.daypass("ada", &["drift", "judge", "end", kind, "backdoor"]).await.status.success());
    }
    let gone = "SELECT (SELECT rolcanlogin FROM pg_roles WHERE rolname = 'backdoor'), has_schema_privilege('backdoor', 'sales', 'USAGE')";
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    while house.server.sql("uat", gone).await.unwrap() != "f|f" {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    house.until_json("sam", &["drift", "ls", "--all"], |found| !sought(found, "login", "backdoor") && sought(found, "member", "reader")).await;
    let log = house.daypass("vera", &["log", "find"]).await;
    assert!(String::from_utf8_lossy(&log.stdout).contains("backdoor may log in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_stuck_and_the_sql_to_do_it_by_hand() {
    let mut house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    house.server.stop().await;
    house.json("maria", &["end", &account.name]).await;
    let doctor = house.daypass("sam", &["doctor"]).await;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains(&format!("To clean       {}", account.name)) && said.contains(&format!("DROP ROLE \"{}\"", account.name)), "{said}");
    house.server.boot().await.unwrap();
    house.until_no_accounts().await;
}
