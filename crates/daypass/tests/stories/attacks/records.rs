//! "What I was given last is what I take for the truth." A client that is cut in the middle of a result gets whole rows and the reason, or
//! a line that ends: never a row that was none.

use crate::house::{House, PATIENCE};
use futures_util::StreamExt;

/// Each row says what stands in it. They come in bursts, as from a table on a disk: a cut finds each client somewhere in the middle.
const ROWS: &str = "SELECT i, repeat(chr(65 + i % 26), 900) || i::text, CASE WHEN i % 50 = 0 THEN pg_sleep(0.01)::text END FROM generate_series(1, 300000) i";

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_cut_holds_no_row_that_was_none() {
    let house = House::open().await;
    house.policy("uat", |policy| policy["live_passes"] = 60.into()).await;
    house.json("maria", &["allow", "uat"]).await;
    let mut worded = 0;
    for round in 0..4 {
        let account = house.account_only("maria", "read", "1h").await;
        let clients = futures_util::future::join_all((0..10).map(async |_| house.client(&account).await.unwrap())).await;
        let in_the_middle = std::sync::atomic::AtomicUsize::new(0);
        let reading = clients.into_iter().map(async |(client, connection)| {
            // one that is cut before its first row says why as well
            let Ok(rows) = client.query_raw(ROWS, Vec::<String>::new()).await else { return (false, false) };
            let mut rows = std::pin::pin!(rows);
            let mut expected = 1_i32;
            let mut words = None;
            while let Some(row) = tokio::time::timeout(PATIENCE * 2, rows.next()).await.expect("it is cut") {
                let row = match row {
                    Ok(row) => row,
                    Err(error) => {
                        words = error.as_db_error().map(|error| error.code().code().to_owned());
                        break;
                    }
                };
                let (number, text): (i32, String) = (row.get(0), row.get(1));
                let letter = char::from(65 + (expected % 26) as u8);
                assert_eq!(number, expected, "a row is missing");
                assert!(
                    text.len() == 900 + expected.to_string().len() && text.starts_with(letter) && text.ends_with(&expected.to_string()),
                    "row {expected}: {text}"
                );
                expected += 1;
                if expected == 200 {
                    in_the_middle.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                // a reader that is not always there: what is cut is then in the middle of everything
                if expected % 97 == round {
                    tokio::task::yield_now().await;
                }
            }
            let _ = tokio::time::timeout(PATIENCE, connection).await.expect("the line ends");
            assert!(words.as_ref().is_none_or(|code| code == "57P01"), "{words:?}");
            (expected > 100, words.is_some())
        });
        let ending = async {
            // when all of them are in the middle of it
            while in_the_middle.load(std::sync::atomic::Ordering::Relaxed) < 10 {
                tokio::task::yield_now().await;
            }
            house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
        };
        let (read, ()) = tokio::join!(futures_util::future::join_all(reading), ending);
        worded += read.iter().filter(|(_, worded)| *worded).count();
        assert!(read.iter().any(|(some, _)| *some), "nobody was in the middle of a result");
    }
    println!("{worded} of 40 were told why");
    assert!(worded > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_behind_one_address_gets_in_as_a_whole() {
    let house = House::open().await;
    house.policy("uat", |policy| policy["sessions_per_pass"] = 200.into()).await;
    let account = house.account("maria", "read", "1h").await;
    let pool = futures_util::future::join_all((0..200).map(async |_| house.client(&account).await.map(|(client, _)| client))).await;
    let failed: Vec<String> = pool.iter().filter_map(|one| one.as_ref().err().map(|e| format!("{e:?}"))).collect();
    assert!(failed.is_empty(), "{} of 200 were not let in: {:?}", failed.len(), failed.first());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_i_send_ahead_and_walk_away_from_fills_nobodys_memory_and_stops_nobody() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let other = house.account("ben", "read", "1h").await;
    let (client, connection) = house.client(&account).await.unwrap();
    let long = client.prepare(&format!("select 1 --{}", "z".repeat(60_000))).await.unwrap();
    // the server is busy with the first, and all that follows is a few bytes each that run a long text
    let sleep = client.prepare("select pg_sleep(60)").await.unwrap();
    let busy = client.query(&sleep, &[]);
    let ahead = futures_util::future::join_all((0..3_000).map(|_| client.query(&long, &[])));
    let walked_away = tokio::time::timeout(std::time::Duration::from_secs(2), async { tokio::join!(busy, ahead) }).await;
    assert!(walked_away.is_err(), "the server is still busy");
    connection.abort();
    let session = house.until_json("vera", &["sessions", "ls", "--all", "--person", &account.name], |found| found[0]["closed_at"].is_string()).await;
    let size =
        std::fs::metadata(house.path("data/records.db")).unwrap().len() + std::fs::metadata(house.path("data/records.db-wal")).map_or(0, |file| file.len());
    assert!(size < 20_000_000, "{size} bytes on record");
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.pid())).unwrap();
    let peak: u64 = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 400_000, "{peak} KiB");
    // others come in, and what they do is on record
    assert_eq!(house.psql(&other, "SELECT count(*) FROM sales.orders").await.1, "400\n");
    let first = house.json("vera", &["sessions", "statements", session[0]["id"].as_str().unwrap()]).await;
    let text = first.to_string();
    assert!(text.contains("pg_sleep") && text.contains("the session ended before its result"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_i_call_myself_and_what_my_errors_say_is_no_row_of_the_auditors() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let mut command =
        house.psql_command(&account, "uat", "", "do $$ begin raise exception E'x\\n2026-11-27 20:41:01  0.1  1  drop table sales.orders'; end $$");
    let _ = command.env("PGAPPNAME", "psql\nforged-row  jit_sam_aaaa  sam").output().await.unwrap();
    house.until_json("vera", &["sessions", "ls", "--all"], |found| found[0]["closed_at"].is_string()).await;
    let listed = String::from_utf8(house.daypass("vera", &["sessions", "ls", "--all"]).await.stdout).unwrap();
    assert!(listed.contains("forged-row") && !listed.lines().any(|line| line.starts_with("forged-row")), "{listed}");
    let id = house.json("vera", &["sessions", "ls", "--all"]).await[0]["id"].as_str().unwrap().to_owned();
    let listed = String::from_utf8(house.daypass("vera", &["sessions", "statements", &id]).await.stdout).unwrap();
    assert!(listed.contains("drop table") && !listed.lines().any(|line| line.starts_with("2026-11-27 20:41:01")), "{listed}");
    // what is longer than the record keeps says so
    let hidden = house.psql(&account, &format!("select /*{}*/ count(*) from sales.orders", "x".repeat(70_000))).await;
    assert_eq!(hidden.1, "400\n");
    let sessions = house.until_json("vera", &["sessions", "ls", "--all"], |found| found[0]["id"] != id.as_str() && found[0]["closed_at"].is_string()).await;
    let statements = house.json("vera", &["sessions", "statements", sessions[0]["id"].as_str().unwrap()]).await.to_string();
    assert!(statements.contains("cut here: 70"), "{}", &statements[statements.len().saturating_sub(500)..]);
}
