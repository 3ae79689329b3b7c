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

async fn until_status(house: &House, environment: &str, wanted: &str) -> Value {
    house.until_json("sam", &["move", environment, "status"], |found| found[0]["status"] == wanted).await[0].clone()
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

    // planned: she is told in her psql, nobody new gets in
    house.json("sam", &["move", "uat", "refresh", "--from", "golden", "--notice", "1h", "--no-wait", "--reason", "CHG-17"]).await;
    assert_eq!(status(&house, "uat").await["status"], "NotStarted");
    psql.says("SELECT 'still here';", "WARNING:  the database will be replaced").await;
    psql.says("SELECT 'still here';", "still here").await;
    assert!(house.refused("ben", &["request", "uat", "--reason", "a story"]).await.1.contains("about to be moved"));
    house.json("sam", &["move", "uat", "cancel"]).await;
    assert_eq!(status(&house, "uat").await["status"], "Aborted");
    psql.says("SELECT 'here again';", "here again").await;

    // at once
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
    let kept = status(&house, "uat").await["kept"]["database"].as_str().unwrap().to_owned();
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
