//! A database is moved: everybody is told, ends, and is refused; what came inside the copy is swept; the old one is the way back.

use crate::house::{Account, House, PATIENCE};
use serde_json::Value;
use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin},
};

/// Roles with a mark of ours that have any right in this database.
const MARKED: &str = "SELECT count(DISTINCT r.rolname) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass \
                      WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND r.rolname LIKE 'jit\\_%'";

async fn status(house: &House, environment: &str) -> Value {
    house.json("sam", &["move", environment, "status"]).await[0].clone()
}

async fn databases(house: &House) -> String {
    house
        .server
        .sql("postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE 'uat%' OR datname LIKE 'golden%'")
        .await
        .unwrap()
}

async fn roles_left(house: &House) -> String {
    house.server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in\\_%'").await.unwrap()
}

async fn rows(house: &House, database: &str) -> String {
    house.server.sql(database, "SELECT count(*) FROM sales.orders").await.unwrap()
}

/// Another thousand orders in the source, so that one can tell the copy from the database of before.
async fn more_orders(house: &House) {
    let more = "INSERT INTO sales.orders (customer, amount, placed) SELECT 'Tailspin', 1, '2026-01-01' FROM generate_series(1, 1000)";
    house.server.sql("golden", more).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_tells_ends_copies_sweeps_and_opens_again() {
    let house = House::open().await;
    more_orders(&house).await;
    let hers = house.account("maria", "read_write", "1h").await;
    // somebody is in the source as well: their account must not travel
    house.json("ben", &["allow", "golden"]).await;
    let his = house.json("ben", &["request", "golden", "--reason", "a story", "--access", "read_write"]).await;
    let his = Account { name: his["account"].as_str().unwrap().to_owned(), password: his["password"].as_str().unwrap().to_owned(), ends_at: String::new() };
    assert!(house.psql_to(&his, "golden", "", "SELECT 1").await.0);
    let mut psql = Interactive::start(&house, &hers).await;
    psql.says("SELECT count(*) FROM sales.orders;", "400").await;

    let preview = house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--dry-run"]).await;
    let ends: Vec<&str> = preview["ends"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(ends.iter().any(|end| end.contains(&hers.name) && end.contains("1 sessions")) && ends.iter().any(|end| end.contains("127.0.0.1")), "{ends:?}");
    assert!(house.json("sam", &["move", "uat", "status"]).await.as_array().unwrap().is_empty(), "a dry run does nothing");

    // the new database is made while she works; she is told in her psql, and so is who asks for access
    house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--notice", "1h", "--no-wait", "--reason", "CHG-17"]).await;
    psql.says("SELECT 'still here';", "WARNING:  the database will be replaced when the new one is ready, not before").await;
    psql.says("SELECT 'still here';", "still here").await;
    house.until_json("sam", &["move", "uat", "status"], |found| found[0]["phase"] == "ready" && found[0]["status"] == "InProgress").await;
    let his_too = String::from_utf8(house.daypass("ben", &["request", "uat", "--reason", "a story"]).await.stdout).unwrap();
    assert!(his_too.contains("But the database will be replaced (refresh from golden): access ends when the new database is ready, not before"), "{his_too}");
    psql.says("SELECT 'and here';", "and here").await;
    house.json("sam", &["move", "uat", "cancel"]).await;
    assert_eq!(status(&house, "uat").await["status"], "Aborted");
    house.until("SELECT count(*) FROM pg_database WHERE datname LIKE 'uat\\_\\_in%'", "0").await;
    psql.says("SELECT 'here again';", "here again").await;

    // as soon as it is ready; the way back stays longer than any pass may live
    house.policy("uat", |policy| policy["keep_days"] = 45.into()).await;
    let done = house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--reason", "CHG-17"]).await;
    assert_eq!(done["status"], "Completed", "{done}");
    psql.says("SELECT 1;", "being replaced").await;
    let said = house.psql(&hers, "SELECT 1").await.1;
    assert!(said.contains("the database was moved") || said.contains("ended"), "{said}");
    assert_eq!(rows(&house, "uat").await, "1400");
    assert_eq!(house.server.sql("uat", MARKED).await.unwrap(), "0");
    assert_eq!(house.server.sql("uat", "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'").await.unwrap(), "uat_owner");
    assert_eq!(roles_left(&house).await, "0");
    // golden's own holder goes on working
    assert!(house.psql_to(&his, "golden", "", "SELECT count(*) FROM sales.orders").await.1.contains("1400"));
    assert!(house.psql_to(&his, "uat", "", "SELECT 1").await.1.contains("golden"), "and gets into no other database");
    let fresh = house.account("maria", "read", "1h").await;
    assert_eq!(house.psql(&fresh, "SELECT count(*) FROM sales.orders").await, (true, "1400\n".to_owned()));

    // the way back
    let view = status(&house, "uat").await;
    let until: jiff::Timestamp = view["kept"]["until"].as_str().unwrap().parse().unwrap();
    assert!(until > jiff::Timestamp::now() + jiff::SignedDuration::from_hours(44 * 24), "{view}");
    let kept = view["kept"]["database"].as_str().unwrap().to_owned();
    assert!(databases(&house).await.contains(&kept));
    let back = house.json("sam", &["move", "uat", "undo"]).await;
    assert_eq!(back["status"], "RollbackCompleted", "{back}");
    assert_eq!(rows(&house, "uat").await, "400");
    assert!(!databases(&house).await.contains(&kept));
    let again = house.account("maria", "read", "1h").await;
    assert_eq!(house.psql(&again, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
}

/// A psql that somebody types into.
struct Interactive {
    _child: Child,
    input: ChildStdin,
    said: Arc<Mutex<String>>,
    read: usize,
}

impl Interactive {
    async fn start(house: &House, account: &Account) -> Interactive {
        let mut command = house.psql_prompt(account, "uat", "");
        command.stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said: Arc<Mutex<String>> = Arc::default();
        fn follow(mut from: impl tokio::io::AsyncRead + Unpin + Send + 'static, said: Arc<Mutex<String>>) {
            tokio::spawn(async move {
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = from.read(&mut chunk).await {
                    said.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..n]));
                }
            });
        }
        follow(child.stdout.take().unwrap(), said.clone());
        follow(child.stderr.take().unwrap(), said.clone());
        Interactive { input: child.stdin.take().unwrap(), _child: child, said, read: 0 }
    }

    /// Types a line, until the answer has come.
    async fn says(&mut self, line: &str, wanted: &str) {
        let _ = self.input.write_all(format!("{line}\n").as_bytes()).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said.lock().unwrap().clone();
            if let Some(at) = said[self.read..].find(wanted) {
                self.read += at + wanted.len();
                return;
            }
            assert!(Instant::now() < deadline, "psql does not say '{wanted}' but: {said}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_a_dump_with_its_digest_and_can_be_imported() {
    let house = House::open().await;
    more_orders(&house).await;
    let hers = house.account("maria", "read", "1h").await;
    let made = house.json("sam", &["move", "golden", "export", "golden.dump"]).await;
    assert_eq!(made["status"], "Completed", "{made}");
    let file = std::fs::read(house.path("data/files/golden.dump")).unwrap();
    let sum = tokio::process::Command::new("sha256sum").arg(house.path("data/files/golden.dump")).output().await.unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(made["made"]["sha256"].as_str(), sum.split_whitespace().next());
    assert_eq!(made["made"]["bytes"], file.len());
    assert_eq!(house.json("sam", &["files"]).await[0]["name"], "golden.dump");
    assert!(house.psql(&hers, "SELECT 1").await.0, "an export ends nobody's access");
    assert!(house.refused("sam", &["move", "golden", "export", "golden.dump"]).await.1.contains("already"), "and overwrites nothing");

    assert_eq!(house.json("sam", &["move", "uat", "import", "golden.dump"]).await["status"], "Completed");
    assert_eq!(rows(&house, "uat").await, "1400");
    assert!(!house.psql(&hers, "SELECT 1").await.0);
    // no path leads out of the folder, whatever it is
    for wrong in ["../data/log.db", "/etc/passwd", ".hidden", "a/b", ""] {
        assert!(!house.daypass("sam", &["move", "uat", "import", wrong]).await.status.success(), "{wrong}");
    }
    assert!(house.refused("sam", &["move", "uat", "import", "none.dump"]).await.1.contains("no file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_dump_is_refused_and_the_old_database_stays() {
    let house = House::open().await;
    std::fs::create_dir_all(house.path("data/files")).unwrap();
    let script = "\\! touch /tmp/daypass-was-here\nCREATE TABLE evil (x int);\n";
    std::fs::write(house.path("data/files/plain.sql"), script).unwrap();
    let hers = house.account("maria", "read", "1h").await;
    std::fs::write(house.path("data/files/broken.dump"), "PGDMP and then nothing that makes sense").unwrap();
    for (file, why) in [("plain.sql", "to restore it is to execute whatever it says"), ("broken.dump", "pg_restore --list")] {
        let output = house.daypass("sam", &["move", "uat", "import", file]).await;
        assert!(!output.status.success());
        let found = status(&house, "uat").await;
        assert!(found["state"].as_str().unwrap().contains(why), "{found}");
        assert_eq!((found["status"].as_str(), rows(&house, "uat").await.as_str()), (Some("Failed"), "400"));
        // nobody noticed
        assert_eq!(house.psql(&hers, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
        assert!(house.refused("sam", &["move", "uat", "finish"]).await.1.contains("No movement"), "there is nothing to open");
    }
    house.until("SELECT count(*) FROM pg_database WHERE datname LIKE 'uat\\_\\_in%'", "0").await;
    house.until("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in%'", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_scripts_run_before_it_opens_and_a_script_that_fails_stops_it() {
    let house = House::open().await;
    more_orders(&house).await;
    let folder = house.path("data/scripts/uat");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("10-mask.sql"), "UPDATE sales.orders SET customer = 'masked'; SELECT count(*) || ' masked' FROM sales.orders;\n").unwrap();
    std::fs::write(folder.join("20-fails.sql"), "INSERT INTO sales.orders (customer) VALUES (NULL);\n").unwrap();
    // what the database of before was like stays so: settings, and rights of its own programs
    let before = "CREATE ROLE reporting LOGIN; GRANT USAGE ON SCHEMA sales TO reporting; GRANT SELECT ON sales.orders TO reporting; \
                  ALTER DATABASE uat SET work_mem TO '7MB'; ALTER DATABASE uat SET search_path TO sales, public; GRANT CONNECT ON DATABASE uat TO reporting";
    house.server.sql("uat", before).await.unwrap();
    // and somebody of the source's has no home here
    house
        .server
        .sql("golden", "CREATE ROLE golden_report LOGIN; GRANT USAGE ON SCHEMA sales TO golden_report; GRANT SELECT ON sales.orders TO golden_report")
        .await
        .unwrap();
    let preview = house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--dry-run"]).await;
    assert_eq!(preview["scripts"], serde_json::json!(["10-mask.sql", "20-fails.sql"]));

    assert!(!house.daypass("sam", &["move", "uat", "refresh", "--from", "golden"]).await.status.success());
    let failed = status(&house, "uat").await;
    assert!(failed["state"].as_str().unwrap().contains("20-fails.sql"), "{failed}");
    assert_eq!(rows(&house, "uat").await, "400", "the old database is in place");
    std::fs::remove_file(folder.join("20-fails.sql")).unwrap();
    let done = house.json("sam", &["move", "uat", "retry"]).await;
    assert_eq!(done["status"], "Completed", "{done}");
    let swept = done["swept"].to_string();
    assert!(swept.contains("10-mask.sql") && swept.contains("1400 masked"), "{swept}");
    assert_eq!(house.server.sql("uat", "SELECT DISTINCT customer FROM sales.orders").await.unwrap(), "masked");
    let asked = "SELECT has_table_privilege('reporting', 'sales.orders', 'SELECT'), has_database_privilege('reporting', 'uat', 'CONNECT'), \
                 has_database_privilege('public', 'uat', 'CONNECT'), has_schema_privilege('golden_report', 'sales', 'USAGE'), \
                 current_setting('work_mem'), current_setting('search_path')";
    assert_eq!(house.server.sql("uat", asked).await.unwrap(), "t|t|f|f|7MB|sales, public");
    let log = house.daypass("vera", &["log", "find", "--env", "uat"]).await;
    assert!(String::from_utf8_lossy(&log.stdout).contains("1400 masked"), "the script's words stand in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_copy_is_swept_of_everybody_who_has_no_home_here() {
    let house = House::open().await;
    more_orders(&house).await;
    // an account that is in the source at this moment, with things of its own there; nobody is connected
    house.json("ben", &["allow", "golden"]).await;
    let his = house.json("ben", &["request", "golden", "--reason", "a story", "--access", "read_write"]).await;
    let his = his["account"].as_str().unwrap().to_owned();
    let plant = format!(
        "CREATE ROLE golden_report LOGIN; SET ROLE golden_owner; GRANT USAGE ON SCHEMA sales TO golden_report, {his}; GRANT SELECT ON sales.orders TO golden_report, {his}; \
         CREATE FUNCTION sales.total() RETURNS numeric LANGUAGE sql AS 'SELECT sum(amount) FROM sales.orders'; GRANT EXECUTE ON FUNCTION sales.total() TO golden_report; \
         CREATE TYPE sales.mood AS ENUM ('good', 'bad'); CREATE SEQUENCE sales.numbers"
    );
    house.server.sql("golden", &plant).await.unwrap();
    let done = house.json("sam", &["move", "uat", "refresh", "--from", "golden"]).await;
    assert_eq!(done["status"], "Completed", "{done}\n{}", house.log());
    let swept = done["swept"].to_string();
    // whichever way it was copied, nothing of them is in the new database; the server's own copy has something to report
    if !house.log().contains("it is dumped and restored") {
        assert!(swept.contains(&format!("day account {his} of another environment")) && swept.contains("role golden_report"), "{swept}");
    }
    assert_eq!(house.server.sql("uat", MARKED).await.unwrap(), "0");
    let foreign = "SELECT count(*) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass \
                   WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = 'uat') AND (r.rolname LIKE 'golden%' OR r.rolname LIKE 'jit%')";
    assert_eq!(house.server.sql("uat", foreign).await.unwrap(), "0");
    assert_eq!(house.server.sql("postgres", "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'golden'").await.unwrap(), "golden_owner");
    let fresh = house.account("maria", "read_write", "1h").await;
    assert_eq!(house.psql(&fresh, "SELECT count(*) FROM sales.orders").await, (true, "1400\n".to_owned()));
    // in the source nothing changed
    assert_eq!(house.server.sql("golden", "SELECT has_table_privilege('golden_report', 'sales.orders', 'SELECT')").await.unwrap(), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_back_to_a_moment_with_the_operators_command() {
    let mut house = House::bare("", None).await;
    let (base, archive, work) = (house.server.path("base"), house.server.path("archive"), house.server.path("restored"));
    house.server.archive_to(&archive).await.unwrap();
    let port = daypass_testkit::postgres::free_port().unwrap();
    let command = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/restore-pitr.sh");
    let bin = house.server.program("");
    house.extra_config = format!(
        "[movement.restore]\nuat = [\"env\", \"BASE={}\", \"ARCHIVE={}\", \"PGBIN={}\", \"PGPORT={port}\", \"WORK={}\", {command:?}]\n",
        base.display(),
        archive.display(),
        bin.display(),
        work.display()
    );
    house.start().await;
    house.settle().await;
    house.server.base_backup(&base).await.unwrap();
    house.server.sql("uat", "INSERT INTO sales.orders (customer, amount, placed) VALUES ('before', 1, '2026-01-01')").await.unwrap();
    let moment = house.server.sql("uat", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')").await.unwrap();
    house.server.sql("uat", "DELETE FROM sales.orders").await.unwrap();
    // the archive has it
    house.server.sql("postgres", "SELECT pg_switch_wal()").await.unwrap();
    house.until("SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16777216) FROM pg_stat_archiver", "t").await;

    assert!(house.refused("sam", &["move", "golden", "restore", "--at", &moment]).await.1.contains("movement.restore"));
    let done = house.daypass("sam", &["--json", "move", "uat", "restore", "--at", &moment]).await;
    assert!(done.status.success(), "{done:?}\n{}", house.log());
    assert_eq!(rows(&house, "uat").await, "401");
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders WHERE customer = 'before'").await.unwrap(), "1");
    // the server that it brought up is down again
    assert!(!work.exists());
    let fresh = house.account("maria", "read", "1h").await;
    assert_eq!(house.psql(&fresh, "SELECT count(*) FROM sales.orders").await, (true, "401\n".to_owned()));
}

/// Small numbers from a seed, so that a run can be repeated.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: usize) -> usize {
        self.throw(most as u64) as usize
    }

    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A session of the server's own administrator that goes on until it is let go.
pub async fn held(house: &House, database: &str, sql: &str) -> Child {
    let mut command = tokio::process::Command::new(house.server.psql());
    command.args(["-X", "-q", "-U", "postgres", "-p", &house.server.port.to_string(), "-h"]).arg(house.server.path("")).args(["-d", database]);
    command.args(["-c", &format!("{sql}; SELECT pg_sleep(77)")]);
    let child =
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap();
    house
        .until(&format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE '%pg_sleep(77)%' AND pid <> pg_backend_pid()"), "1")
        .await;
    child
}

pub async fn let_go(house: &House) {
    house
        .server
        .sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(77)%' AND pid <> pg_backend_pid()")
        .await
        .unwrap();
}

const FAULTS: [&str; 4] = ["kill -9 of Daypass", "kill -9 of the tools", "restart of the server", "cut network"];
const PHASES: [&str; 4] = ["copy", "sweep", "freeze", "swap"];

/// kill -9 of Daypass, of pg_dump or pg_restore, a restart of the target, a cut network: in each phase of a movement, at any moment. Afterwards
/// one of the two databases is in place, whole; nobody is in who was in when access ended, and nobody was put out before that; nothing half
/// made is left; and it can be run again.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_in_a_movement_one_whole_database_is_in_place_and_nobody_is_in() {
    let schedules: u64 = std::env::var("DAYPASS_MOVES").ok().and_then(|text| text.parse().ok()).unwrap_or(16);
    let seed: u64 = std::env::var("DAYPASS_MOVES_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut house = House::bare("", None).await;
    let proxy = daypass_testkit::faulty::FaultyProxy::start(([127, 0, 0, 1], house.server.port).into(), 1).await.unwrap();
    house.start().await;
    house.through(proxy.address.port()).await;
    more_orders(&house).await;
    let folder = house.path("data/scripts/uat");
    std::fs::create_dir_all(&folder).unwrap();
    // each phase lasts long enough to be met
    std::fs::write(folder.join("slow.sql"), "SELECT pg_sleep(0.5);\n").unwrap();
    let big = "CREATE TABLE sales.big AS SELECT i, repeat(md5(i::text), 8) AS t FROM generate_series(1, 40000) i; ALTER TABLE sales.big OWNER TO golden_owner";
    house.server.sql("golden", big).await.unwrap();
    assert_eq!(house.json("sam", &["move", "golden", "export", "golden.dump"]).await["status"], "Completed");
    let exported: u32 = rows(&house, "golden").await.parse().unwrap();
    let mut dice = Dice(seed);
    let (mut met, mut expected) = (std::collections::BTreeMap::<(&str, String), u32>::new(), 400);
    for schedule in 0..schedules {
        let (fault, phase, import) = (FAULTS[(schedule % 4) as usize], PHASES[(schedule / 4 % 4) as usize], schedule % 5 == 4);
        let told = |what: &str| format!("schedule {schedule} of seed {seed} ({fault} in {phase}): {what}");
        let account = house.account("maria", "read_write", "1h").await;
        let mut reading = house.psql_command(&account, "uat", "", "SELECT 'x', pg_sleep(0.02) FROM generate_series(1, 100000)").spawn().unwrap();
        house.until("SELECT count(*) > 0 FROM pg_stat_activity WHERE usename LIKE 'jit%' AND state = 'active'", "t").await;
        // an odd one out, so that the copy can be told from the database of before
        house.server.sql("golden", "INSERT INTO sales.orders (customer, amount, placed) VALUES ('one more', 1, '2026-01-01')").await.unwrap();
        let fresh: u32 = if import { exported } else { rows(&house, "golden").await.parse().unwrap() };
        // with somebody in the source it goes through pg_dump, else the server copies it; a lock on the name makes the exchange wait
        let mut holding = Vec::new();
        if schedule / 16 % 2 == 0 || phase == "copy" {
            holding.push(held(&house, "golden", "SELECT 1").await);
        }
        if phase == "swap" {
            holding.push(held(&house, "postgres", "BEGIN; COMMENT ON DATABASE uat IS 'held'").await);
        }
        let what: &[&str] = if import { &["import", "golden.dump"] } else { &["refresh", "--from", "golden"] };
        house.json("sam", &[&["move", "uat"], what, &["--no-wait"]].concat()).await;
        let reached = |found: &Value| found[0]["phase"] == phase || ["Completed", "Failed"].contains(&found[0]["status"].as_str().unwrap());
        house.until_json("sam", &["move", "uat", "status"], reached).await;
        // the moment is what varies: nothing is awaited here
        tokio::time::sleep(std::time::Duration::from_millis(dice.throw(250))).await;
        let found = house.json("sam", &["move", "uat", "status"]).await[0].clone();
        *met.entry((fault, found["phase"].as_str().unwrap_or("none").to_owned())).or_default() += 1;
        match fault {
            "kill -9 of Daypass" => {
                house.crash().await;
                house.start().await;
            }
            "kill -9 of the tools" => {
                // the programs that copy, and none of anybody else's: they are children of this Daypass
                let _ = tokio::process::Command::new("pkill").args(["-9", "-P", &house.pid().to_string()]).status().await;
            }
            "restart of the server" => {
                house.server.stop().await;
                house.server.boot().await.unwrap();
            }
            _ => {
                proxy.set(daypass_testkit::faulty::Fault::Reset);
                tokio::time::sleep(std::time::Duration::from_millis(dice.throw(800))).await;
                proxy.set(daypass_testkit::faulty::Fault::None);
            }
        }
        let_go(&house).await;
        drop(holding);
        let settled = |found: &Value| ["Completed", "Failed"].contains(&found[0]["status"].as_str().unwrap());
        let found = house.until_json("sam", &["move", "uat", "status"], settled).await[0].clone();
        // one whole database is in place, and it is the one that the log says
        let completed = found["status"] == "Completed";
        let wanted = if completed { fresh } else { expected };
        assert_eq!(rows(&house, "uat").await, wanted.to_string(), "{}\n{found}\n{}", told("the wrong database is in place"), house.log());
        if found["begun_at"].is_null() {
            // what failed before access ended put nobody out; what broke the line itself did
            assert!(!completed, "{found}");
            let line = ["kill -9 of the tools"].contains(&fault);
            assert!(!line || reading.try_wait().unwrap().is_none(), "{}", told("a session ended for nothing"));
            reading.kill().await.unwrap();
            let came = house.psql(&account, "SELECT count(*) FROM sales.orders").await;
            assert_eq!(came, (true, format!("{expected}\n")), "{}", told("somebody was put out for nothing"));
        } else {
            // I8: whoever was in is out, and nobody who was in comes in
            let cut = tokio::time::timeout(PATIENCE, reading.wait()).await.unwrap_or_else(|_| panic!("{}", told("a session outlives the movement")));
            assert!(!cut.unwrap().success(), "{}", told("a session was not cut"));
            assert!(!house.psql(&account, "SELECT 1").await.0, "{}", told("an old account opens the door"));
            house.until_no_accounts().await;
        }
        // I3, I9: nothing half made is left
        house.until("SELECT count(*) FROM pg_database WHERE datname LIKE 'uat\\_\\_in%'", "0").await;
        house.until("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in%'", "0").await;
        if !completed {
            assert_eq!(found["closed"], false, "{}", told("it stayed closed"));
            let done = house.json("sam", &["move", "uat", "retry"]).await;
            assert_eq!(done["status"], "Completed", "{}\n{done}\n{}", told("it cannot be run again"), house.log());
        }
        assert!(!house.psql(&account, "SELECT 1").await.0, "{}", told("an old account opens the door in the end"));
        house.until_no_accounts().await;
        assert_eq!(house.server.sql("uat", MARKED).await.unwrap(), "0", "{}", told("a marked account is in the database"));
        expected = fresh;
        assert_eq!(rows(&house, "uat").await, fresh.to_string(), "{}", told("the copy is not whole"));
    }
    println!("{met:#?}");
    // a run that is long enough has met each phase with each fault
    for (fault, phase) in FAULTS.iter().flat_map(|fault| PHASES.map(|phase| (*fault, phase.to_owned()))) {
        assert!(schedules < 100 || met.contains_key(&(fault, phase.clone())), "{fault} was never met in {phase}: {met:?}");
    }
}

/// Some statements take no notice of a signal (XPath over a large document, say): here the process stands still. Takes the two minutes that a movement waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_the_server_that_nothing_ends_fails_the_movement_in_time() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let mut running = house.psql_command(&account, "uat", "", "SELECT pg_sleep(900)").spawn().unwrap();
    let pid = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{}' AND query LIKE '%pg_sleep%'", account.name);
    house.until(&format!("SELECT count(*) FROM ({pid}) x"), "1").await;
    let pid: i32 = house.server.sql("postgres", &pid).await.unwrap().parse().unwrap();
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    let failed = house.daypass("sam", &["move", "uat", "external", "begin", "--reason", "by another tool"]).await;
    let said = format!("{}{}", String::from_utf8_lossy(&failed.stdout), String::from_utf8_lossy(&failed.stderr));
    assert!(!failed.status.success() && said.contains("still on the target") && said.contains("external fail"), "{said}\n{}", house.log());
    // whoever looks is told what helps
    let doctor = String::from_utf8(house.daypass("ada", &["doctor"]).await.stdout).unwrap();
    assert!(doctor.contains(&account.name), "{doctor}");
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    let _ = running.kill().await;
    house.until_no_accounts().await;
}
