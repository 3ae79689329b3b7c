//! What comes inside a copy, and the ways in which one is made.

use crate::house::{Account, House, PATIENCE};
use serde_json::Value;

/// As the owner of golden, who may well not be trusted.
async fn plant(house: &House, sql: &str) {
    house.server.sql("golden", &format!("SET ROLE golden_owner; {sql}")).await.unwrap();
}

fn script(house: &House, name: &str, sql: &str) {
    let folder = house.path("data/scripts/uat");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), sql).unwrap();
}

async fn settled(house: &House) -> Value {
    let over = |found: &Value| ["Completed", "Failed"].contains(&found[0]["status"].as_str().unwrap_or_default());
    house.until_json("sam", &["move", "uat", "status"], over).await[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_in_the_copy_gets_no_further_than_the_database_when_the_operators_scripts_run() {
    let house = House::open().await;
    let trap = "CREATE TABLE sales.seen (who text, may_create_roles bool); \
                CREATE FUNCTION sales.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                  BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END; \
                  INSERT INTO sales.seen SELECT session_user, rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user; RETURN NEW; END $$; \
                CREATE TRIGGER trap BEFORE UPDATE ON sales.orders FOR EACH ROW WHEN (NEW.id = 7) EXECUTE FUNCTION sales.trap(); \
                GRANT SELECT ON sales.orders TO PUBLIC";
    plant(&house, trap).await;
    // something in it belongs to yet another role
    let moved = "CREATE ROLE golden_migrator; GRANT golden_migrator TO daypass_admin; GRANT USAGE, CREATE ON SCHEMA sales TO golden_migrator; CREATE TABLE sales.theirs AS SELECT 1 AS x; \
                 ALTER TABLE sales.theirs OWNER TO golden_migrator";
    house.server.sql("golden", moved).await.unwrap();
    script(&house, "mask.sql", "UPDATE sales.orders SET customer = 'masked'; CREATE TABLE sales.made_by_script AS SELECT 1 AS x;\n");
    // both ways in which a copy is made
    for working in [false, true] {
        let session = if working { Some(crate::movement::held(&house, "golden", "SELECT 1").await) } else { None };
        let done = house.json("sam", &["move", "uat", "refresh", "--from", "golden"]).await;
        assert_eq!(done["status"], "Completed", "{done}\n{}", house.log());
        assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders WHERE customer = 'masked'").await.unwrap(), "400");
        let seen = house.server.sql("uat", "SELECT who LIKE 'daypass\\_in\\_%', may_create_roles FROM sales.seen").await.unwrap();
        assert_eq!(seen, "t|f", "it ran as a role that may nothing but this");
        let others =
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'sales' AND pg_get_userbyid(relowner) <> 'uat_owner'";
        assert_eq!(house.server.sql("uat", others).await.unwrap(), "0", "all of it belongs to the owner of before");
        assert_eq!(house.server.sql("uat", "SELECT has_table_privilege('public', 'sales.orders', 'SELECT')").await.unwrap(), "f");
        assert_eq!(house.server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in\\_%'").await.unwrap(), "0");
        if session.is_some() {
            crate::movement::let_go(&house).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_belongs_to_a_superuser_is_not_filled_from_a_copy() {
    let house = House::open().await;
    house.server.sql("postgres", "ALTER DATABASE uat OWNER TO postgres").await.unwrap();
    assert!(!house.daypass("sam", &["move", "uat", "refresh", "--from", "golden"]).await.status.success());
    let found = settled(&house).await;
    assert!(found["state"].as_str().unwrap().contains("who is a superuser") && found["state"].as_str().unwrap().contains("OWNER TO"), "{found}");
    // the remedy helps
    house.server.sql("postgres", "ALTER DATABASE uat OWNER TO uat_owner").await.unwrap();
    assert_eq!(house.json("sam", &["move", "uat", "retry"]).await["status"], "Completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tables_at_once_from_another_server_and_from_a_dump_in_a_folder() {
    let house = House::with("[movement]\njobs = 3\n", None).await;
    house.policy("uat", |policy| policy["keep_days"] = 0.into()).await;
    let far = daypass_testkit::postgres::Postgres::start().await.unwrap();
    far.administrator().await.unwrap();
    far.database("far").await.unwrap();
    far.sql("far", "DELETE FROM sales.orders WHERE id > 9").await.unwrap();
    let ca = house.path("far-ca.pem");
    std::fs::write(&ca, &far.ca).unwrap();
    let (port, ca) = (far.port.to_string(), ca.display().to_string());
    let add = ["env", "add", "far", "--host", "localhost", "--port", &port, "--database", "far", "--admin", "daypass_admin", "--ca", &ca, "--password-stdin"];
    let added = house.daypass_with("ada", &add, "admin-secret").await;
    assert!(added.status.success(), "{added:?}");
    let done = house.json("sam", &["move", "uat", "refresh", "--from", "far"]).await;
    assert_eq!(done["status"], "Completed", "{done}\n{}", house.log());
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "9");
    // its time as a way back is over at once
    house.until("SELECT count(*) FROM pg_database WHERE datname LIKE 'uat\\_\\_old%'", "0").await;
    assert!(house.refused("sam", &["move", "uat", "undo"]).await.1.contains("No database of before"));

    let files = house.path("data/files");
    std::fs::create_dir_all(&files).unwrap();
    let dump = async |name: &str| {
        let mut command = tokio::process::Command::new(house.server.program("pg_dump"));
        command
            .args(["-Fd", "-U", "postgres", "-p", &house.server.port.to_string(), "-h"])
            .arg(house.server.path(""))
            .arg("-f")
            .arg(files.join(name))
            .arg("golden");
        assert!(command.status().await.unwrap().success());
    };
    dump("golden").await;
    let done = house.json("sam", &["move", "uat", "import", "golden"]).await;
    assert_eq!(done["status"], "Completed", "{done}\n{}", house.log());
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
    // nothing in such a folder leads out of it
    dump("linked").await;
    let data = std::fs::read_dir(files.join("linked")).unwrap().map(|entry| entry.unwrap().path()).find(|path| !path.ends_with("toc.dat")).unwrap();
    std::fs::remove_file(&data).unwrap();
    std::os::unix::fs::symlink(house.path("data/master.key"), &data).unwrap();
    dump("upward").await;
    let toc = std::fs::read(files.join("upward/toc.dat")).unwrap();
    let at = toc.windows(4).position(|part| part == b".dat").unwrap();
    let mut changed = toc.clone();
    changed[at - 3..at].copy_from_slice(b"../");
    std::fs::write(files.join("upward/toc.dat"), changed).unwrap();
    for (name, words) in [("linked", "no plain file"), ("upward", "lies outside of its folder")] {
        assert!(!house.daypass("sam", &["move", "uat", "import", name]).await.status.success());
        let found = settled(&house).await;
        assert!(found["state"].as_str().unwrap().contains(words), "{found}");
    }
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_movement_that_is_stopped_leaves_nothing_half_made() {
    let house = House::open().await;
    script(&house, "long.sql", "SELECT pg_sleep(600);\n");
    let hers = house.account("maria", "read", "1h").await;
    house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--no-wait"]).await;
    house.until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND usename LIKE 'daypass\\_in%'", "1").await;
    let text = String::from_utf8(house.daypass("sam", &["move", "uat", "status"]).await.stdout).unwrap();
    assert!(text.contains("swept"), "{text}");
    house.json("sam", &["move", "uat", "cancel", "--reason", "the wrong week"]).await;
    let found = house.json("sam", &["move", "uat", "status"]).await[0].clone();
    assert!(found["status"] == "Aborted" && found["state"].as_str().unwrap().contains("the wrong week"), "{found}");
    house.until("SELECT count(*) FROM pg_database WHERE datname LIKE 'uat\\_\\_in%'", "0").await;
    house.until("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in%'", "0").await;
    // nobody's access ended by it
    assert_eq!(house.psql(&hers, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_access_ended_opens_again_unless_somebody_wished_otherwise() {
    let house = House::open().await;
    let hers = house.account("maria", "read", "1h").await;
    // whoever may exchange the names waits for this in vain
    let holding = crate::movement::held(&house, "postgres", "BEGIN; COMMENT ON DATABASE uat IS 'held'").await;
    let output = house.daypass("sam", &["move", "uat", "refresh", "--from", "golden", "--reason", "CHG-17"]).await;
    assert!(!output.status.success(), "{output:?}");
    let found = settled(&house).await;
    assert!(found["state"].as_str().unwrap().contains("the database of before is in place, and open") && found["closed"] == false, "{found}");
    assert!(!house.psql(&hers, "SELECT 1").await.0, "what ended stays ended");
    let fresh = house.account("maria", "read", "1h").await;
    assert_eq!(house.psql(&fresh, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));

    let output = house.daypass("sam", &["move", "uat", "refresh", "--from", "golden", "--stay-closed"]).await;
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(settled(&house).await["closed"], true);
    assert!(house.refused("maria", &["request", "uat", "--reason", "a story"]).await.1.contains("closed while"));
    // doctor says that it is closed, and what opens it
    let doctor = house.json("sam", &["doctor"]).await;
    assert!(doctor["to_clean"].to_string().contains("daypass move uat finish"), "{doctor}");
    crate::movement::let_go(&house).await;
    drop(holding);
    house.json("sam", &["move", "uat", "finish"]).await;
    let fresh = house.account("maria", "read", "1h").await;
    assert_eq!(house.psql(&fresh, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_waits_for_the_time_that_was_said_and_is_there_after_a_crash() {
    let mut house = House::open().await;
    let at = |seconds| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    for wrong in [at(-5), at(25 * 3600), "tonight".to_owned()] {
        assert!(!house.daypass("sam", &["move", "uat", "refresh", "--from", "golden", "--swap-at", &wrong]).await.status.success(), "{wrong}");
    }
    house.server.sql("golden", "DELETE FROM sales.orders WHERE id > 7").await.unwrap();
    let hers = house.account("maria", "read", "1h").await;
    house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--swap-at", &at(20), "--no-wait"]).await;
    let found = house.until_json("sam", &["move", "uat", "status"], |found| found[0]["phase"] == "ready").await[0].clone();
    assert!(found["state"].as_str().unwrap().contains("people work in the old one"), "{found}");
    // nobody has access any more, and the time is waited for all the same
    house.json("maria", &["end", &hers.name]).await;
    house.crash().await;
    house.start().await;
    let again = house.account("maria", "read", "1h").await;
    assert_eq!(house.psql(&again, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
    let done = house.until_json("sam", &["move", "uat", "status"], |found| found[0]["status"] == "Completed").await[0].clone();
    let moment = |name: &str| done[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(moment("begun_at").duration_since(moment("asked_at")).as_secs() >= 19, "{done}");
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "7");
    assert!(!house.psql(&again, "SELECT 1").await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tool_is_waited_for_and_what_it_put_in_place_is_swept_before_it_opens() {
    let house = House::open().await;
    let hers = house.account("maria", "read", "1h").await;
    house.json("ben", &["allow", "golden"]).await;
    let his = house.json("ben", &["request", "golden", "--reason", "a story", "--access", "read"]).await;
    let his = Account { name: his["account"].as_str().unwrap().to_owned(), password: his["password"].as_str().unwrap().to_owned(), ends_at: String::new() };
    let mut running = house.psql_command(&hers, "uat", "", "SELECT pg_sleep(60)").spawn().unwrap();
    house.until("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'jit%' AND state = 'active'", "1").await;
    let preview = house.json("sam", &["move", "uat", "external", "begin", "--dry-run"]).await;
    assert!(preview["ends"].to_string().contains(&hers.name), "{preview}");
    // when it returns nobody is in
    let begun = house.json("sam", &["move", "uat", "external", "begin", "--reason", "the nightly copy"]).await;
    assert_eq!((begun["status"].as_str(), begun["still_in"].as_u64()), (Some("InProgress"), Some(0)), "{begun}");
    assert!(!house.accounts().await.contains(&hers.name));
    assert!(!tokio::time::timeout(PATIENCE, running.wait()).await.unwrap().unwrap().success());

    // the copy brings his account's rights along
    for sql in ["DROP DATABASE uat", "CREATE DATABASE uat TEMPLATE golden OWNER uat_owner", "GRANT CONNECT ON DATABASE uat TO daypass_admin WITH GRANT OPTION"]
    {
        house.server.sql("postgres", sql).await.unwrap();
    }
    let give = "DO $$ DECLARE r record; BEGIN FOR r IN SELECT c.oid::regclass AS t FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                WHERE nspname = 'sales' AND relkind IN ('r', 'v') LOOP EXECUTE format('ALTER TABLE %s OWNER TO uat_owner', r.t); END LOOP; END $$; ALTER SCHEMA sales OWNER TO uat_owner";
    house.server.sql("uat", give).await.unwrap();
    house.server.sql("uat", &format!("GRANT SELECT ON sales.orders TO {}", his.name)).await.unwrap();
    script(&house, "mask.sql", "UPDATE sales.order SET customer = 'masked'\n");
    let (code, said) = house.refused("sam", &["move", "uat", "external", "finish"]).await;
    assert!(code != 0 && said.contains("mask.sql"), "{said}");
    assert!(house.refused("maria", &["request", "uat", "--reason", "a story"]).await.1.contains("closed while"), "it stays closed");
    script(&house, "mask.sql", "UPDATE sales.orders SET customer = 'masked'\n");
    let done = house.json("sam", &["move", "uat", "external", "finish"]).await;
    let swept = done["swept"].to_string();
    assert!(done["status"] == "Completed" && swept.contains(&his.name) && swept.contains("mask.sql"), "{done}");
    assert_eq!(house.server.sql("uat", &format!("SELECT has_table_privilege('{}', 'sales.orders', 'SELECT')", his.name)).await.unwrap(), "f");
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders WHERE customer = 'masked'").await.unwrap(), "400");
    assert!(house.psql_to(&his, "golden", "", "SELECT 1").await.0, "his own access goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_fetches_a_dump_is_on_record() {
    let house = House::open().await;
    assert_eq!(house.json("sam", &["move", "golden", "export", "golden.dump"]).await["status"], "Completed");
    let token = String::from_utf8(house.daypass("sam", &["token", "add", "pipeline", "--life", "1h"]).await.stdout).unwrap().trim().to_owned();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(house.path("data/ca.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let dump = http.get(format!("https://localhost:{}/api/v1/files/golden.dump", house.api.port())).bearer_auth(&token).send().await.unwrap();
    assert!(dump.bytes().await.unwrap().starts_with(b"PGDMP"));
    let log = house.daypass("vera", &["log", "find", "--env", "golden"]).await;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("fetched the dump golden.dump") && log.contains("sam"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_be_shown_out_holds_up_what_is_ready_and_puts_nobody_out() {
    let house = House::open().await;
    let hers = house.account("maria", "read", "1h").await;
    house.server.sql("golden", "DELETE FROM sales.orders WHERE id > 7").await.unwrap();
    // the server's own administrator looks at something, and only another such ends that
    let holding = crate::movement::held(&house, "uat", "SELECT 1").await;
    let preview = String::from_utf8(house.daypass("sam", &["move", "uat", "refresh", "--from", "golden", "--dry-run"]).await.stdout).unwrap();
    for row in [
        "ok       both databases are in UTF8",
        "note     postgres (process ",
        "SELECT pg_terminate_backend(",
        "ok       no prepared transaction is open",
        "ok       room on the server",
    ] {
        assert!(preview.contains(row), "{row}: {preview}");
    }
    house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--no-wait"]).await;
    let held =
        |found: &Value| found[0]["state"].as_str().is_some_and(|state| state.contains("held up: postgres (process ") && state.contains("pg_terminate_backend"));
    house.until_json("sam", &["move", "uat", "status"], held).await;
    assert_eq!(house.psql(&hers, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
    crate::movement::let_go(&house).await;
    drop(holding);
    assert_eq!(settled(&house).await["status"], "Completed");
    assert!(!house.psql(&hers, "SELECT 1").await.0);
    let fresh = house.account("maria", "read", "1h").await;
    assert_eq!(house.psql(&fresh, "SELECT count(*) FROM sales.orders").await, (true, "7\n".to_owned()));
}
