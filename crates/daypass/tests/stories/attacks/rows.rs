//! "What I had read when I was cut off, I gave to somebody as the data." A row that arrives is a row of the database, whole; then comes the
//! reason, and nothing else.

use crate::{
    house::{Account, House, PATIENCE},
    sqlserver::Client,
};
use daypass_testkit::sqlserver::{Options, StandIn};
use futures_util::{StreamExt, TryStreamExt, future::join_all};
use std::{path::PathBuf, process::Stdio, sync::Arc, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};

/// Each cut is of so many sessions: what one pass may have at once.
const SESSIONS: usize = 20;
/// Where rows come as fast as they go.
const FAST: usize = 10;
/// Ten cuts of twenty sessions: two hundred on each engine.
const CUTS: [(&str, &str); 10] = [
    ("expiry", "has expired"),
    ("revoked", "was revoked"),
    ("given back", "was given back"),
    ("address", "no longer allowed"),
    ("killed", "sam"),
    ("lock", "locked"),
    ("expiry", "has expired"),
    ("revoked", "was revoked"),
    ("address", "no longer allowed"),
    ("movement", "being replaced"),
];

impl<S> House<S> {
    async fn pass_to_cut(&self, how: &str) -> Account {
        self.account("maria", "read", if how == "expiry" { "10s" } else { "1h" }).await
    }

    async fn cut(&self, how: &str, account: &Account) {
        match how {
            "expiry" => {}
            "revoked" => drop(self.json("sam", &["end", &account.name, "--reason", "enough"]).await),
            "given back" => drop(self.json("maria", &["end", &account.name]).await),
            "address" => {
                for entry in self.json("maria", &["allowed", "uat"]).await.as_array().unwrap().iter().filter(|entry| entry["live"] == true) {
                    assert!(self.daypass("maria", &["disallow", entry["id"].as_str().unwrap()]).await.status.success());
                }
            }
            "killed" => {
                for session in self.json("sam", &["sessions", "ls"]).await.as_array().unwrap().iter().filter(|session| session["closed_at"].is_null()) {
                    assert!(self.daypass("sam", &["sessions", "kill", session["id"].as_str().unwrap()]).await.status.success());
                }
            }
            "lock" => {
                assert!(self.daypass("ada", &["people", "lock", "maria", "--reason", "a doubt"]).await.status.success());
                assert!(self.daypass("ada", &["people", "unlock", "maria"]).await.status.success());
                self.sign_in("maria", "maria", "a-long-password").await;
            }
            _ => drop(self.json("sam", &["move", "uat", "external", "begin", "--reason", "refresh"]).await),
        }
    }
}

/// A thousand letters, the same all over a row and another one in the next.
fn filler(n: i64) -> String {
    char::from(b'A' + u8::try_from(n % 26).unwrap()).to_string().repeat(1_000)
}

async fn postgres_rows(client: tokio_postgres::Client, came: Arc<AtomicU64>) -> String {
    let paced = "SELECT n, repeat(chr((65 + n % 26)::int), 1000), pg_sleep(0.0005) FROM (SELECT generate_series(1::bigint, 10000000) AS n) AS s";
    let mut rows = std::pin::pin!(client.query_raw(paced, Vec::<String>::new()).await.unwrap());
    let mut n = 0;
    loop {
        match tokio::time::timeout(PATIENCE * 2, rows.next()).await.expect("it is cut").expect("with an error") {
            Ok(row) => {
                n += 1;
                assert_eq!((row.get::<_, i64>(0), row.get::<_, String>(1)), (n, filler(n)));
                came.fetch_add(1, Relaxed);
            }
            Err(error) => return error.as_db_error().unwrap_or_else(|| panic!("not in words, behind {n} rows: {error:?}")).message().to_owned(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_of_postgresql_was_given_until_it_was_cut_is_what_the_database_said() {
    let house = House::open().await;
    for (how, words) in CUTS {
        let account = house.pass_to_cut(how).await;
        let came: Vec<Arc<AtomicU64>> = (0..SESSIONS).map(|_| Arc::default()).collect();
        let mut clients = Vec::new();
        for _ in 0..SESSIONS {
            clients.push(house.client(&account).await.unwrap());
        }
        let reading = join_all(clients.into_iter().zip(&came).map(|((client, _), came)| tokio::spawn(postgres_rows(client, came.clone()))));
        let cutting = async {
            house.until_so("all read", || came.iter().all(|came| came.load(Relaxed) > 0)).await;
            house.cut(how, &account).await;
        };
        for said in tokio::join!(reading, cutting).0 {
            let said = said.unwrap();
            assert!(said.contains(words), "{how}: {said}");
        }
        house.daypass("maria", &["end", &account.name]).await;
        house.until_no_accounts().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_that_a_copy_leaves_when_it_is_cut_has_rows_of_the_table_and_none_is_missing_before_its_end() {
    let house = House::open().await;
    for (how, words) in [("expiry", "has expired"), ("revoked", "was revoked"), ("address", "no longer allowed")] {
        let account = house.pass_to_cut(how).await;
        let file = |k: usize| -> PathBuf { house.path(&format!("copied-{k}")) };
        let copies: Vec<_> = (0..SESSIONS)
            .map(|k| {
                let rows =
                    "SELECT n, repeat(chr((65 + n % 26)::int), 1000) FROM (SELECT generate_series(1, 10000000) AS n) AS s WHERE pg_sleep(0.0005) IS NOT NULL";
                let mut command = house.psql_prompt(&account, "uat", "");
                command.args(["-c", &format!("\\copy ({rows}) to '{}'", file(k).display())]).stdin(Stdio::null());
                command.spawn().unwrap()
            })
            .collect();
        house.until_so("all copy", || (0..SESSIONS).all(|k| std::fs::metadata(file(k)).is_ok_and(|file| file.len() > 0))).await;
        house.cut(how, &account).await;
        for (k, copy) in copies.into_iter().enumerate() {
            let output = tokio::time::timeout(PATIENCE * 2, copy.wait_with_output()).await.expect("it is cut").unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(words), "{how}: {said}");
            let text = std::fs::read_to_string(file(k)).unwrap();
            // the file's own buffer may end in the middle of a row
            let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
            for (n, line) in (1..).zip(whole.lines()) {
                assert_eq!(line, format!("{n}\t{}", filler(n)));
            }
            std::fs::remove_file(file(k)).unwrap();
        }
        house.daypass("maria", &["end", &account.name]).await;
        house.until_no_accounts().await;
    }
}

async fn sqlserver_rows(mut client: Client, came: Arc<AtomicU64>) -> String {
    let mut n = 0;
    let filler = "x".repeat(4_000);
    let stream = client.simple_query("SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, 10000000)").await;
    let mut rows = match stream {
        Ok(stream) => stream.into_row_stream(),
        Err(error) => return error.to_string(),
    };
    loop {
        match tokio::time::timeout(PATIENCE * 2, rows.try_next()).await.expect("it is cut") {
            Ok(Some(row)) => {
                n += 1;
                assert_eq!((row.get::<i64, _>(0), row.get::<&str, _>(1)), (Some(n), Some(filler.as_str())));
                came.fetch_add(1, Relaxed);
            }
            Ok(None) => panic!("it ended as if it were all of it"),
            Err(tiberius::error::Error::Server(words)) => return words.message().to_owned(),
            Err(error) => return format!("not in words, behind {n} rows: {error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_of_sql_server_was_given_until_it_was_cut_is_what_the_database_said() {
    let house: House<StandIn> = House::sqlserver(Options::default(), &[]).await;
    // a movement is the last: the house stays closed behind it
    for (how, words) in CUTS.iter().filter(|(how, _)| *how != "movement").chain(&CUTS) {
        let account = house.pass_to_cut(how).await;
        let came: Vec<Arc<AtomicU64>> = (0..FAST).map(|_| Arc::default()).collect();
        let mut clients = Vec::new();
        for _ in 0..FAST {
            clients.push(house.tiberius(&account).await.unwrap());
        }
        let reading = join_all(clients.into_iter().zip(&came).map(|(client, came)| tokio::spawn(sqlserver_rows(client, came.clone()))));
        let cutting = async {
            house.until_so("all read", || came.iter().all(|came| came.load(Relaxed) > 0)).await;
            house.cut(how, &account).await;
        };
        for said in tokio::join!(reading, cutting).0 {
            let said = said.unwrap();
            assert!(said.contains(words), "{how}: {said}{}", house.log());
        }
        house.daypass("maria", &["end", &account.name]).await;
    }
}
