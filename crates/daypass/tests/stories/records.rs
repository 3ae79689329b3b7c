//! What was run is on record, all of it.

use crate::house::{House, PATIENCE};
use futures_util::SinkExt;

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_recorded_with_text_values_rows_and_error() {
    let house = House::open().await;
    let account = house.account("maria", "read_write", "1h").await;
    let (client, connection) = house.client(&account).await.unwrap();
    client.simple_query("SELECT 1; SELECT 2").await.unwrap();
    client.query("SELECT $1::text || 'b'", &[&"a"]).await.unwrap();
    client.execute("UPDATE sales.orders SET amount = amount WHERE id <= $1", &[&3_i64]).await.unwrap();
    client.simple_query("SELECT * FROM nowhere").await.unwrap_err();
    let sink = client.copy_in::<_, bytes::Bytes>("COPY sales.orders (customer, amount, placed) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(bytes::Bytes::from_static(b"Litware\t1\t2026-01-01\nLitware\t2\t2026-01-02\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    drop(client);
    let _ = tokio::time::timeout(PATIENCE, connection).await;
    let sessions = house.until_json("maria", &["sessions", "ls", "--all"], |sessions| sessions[0]["closed_at"].is_string()).await;
    let id = sessions[0]["id"].as_str().unwrap();
    let statements = house.json("vera", &["sessions", "statements", id]).await;
    let found = |text: &str| {
        statements
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["text"].as_str().unwrap().contains(text))
            .cloned()
            .unwrap_or_else(|| panic!("{text} is not in {statements:#}"))
    };
    assert_eq!(found("|| 'b'")["values"][0], "\\x61", "a value in binary form is shown as it is on the wire");
    assert_eq!(found("SELECT 1; SELECT 2")["rows"], 2);
    assert_eq!(found("UPDATE")["rows"], 3);
    assert!(found("nowhere")["error"].as_str().unwrap().contains("42P01"));
    assert_eq!((&found("COPY")["rows"], found("COPY")["bytes"].as_u64().unwrap() > 40), (&2.into(), true));
    assert_eq!(house.refused("ben", &["sessions", "statements", id]).await.0, 3, "not for other requesters");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_is_lost_at_full_speed() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let (client, connection) = house.client(&account).await.unwrap();
    const RUN: usize = 20_000;
    // as fast as they go: many on their way at once
    let statement = client.prepare("SELECT $1::int").await.unwrap();
    for block in 0..RUN / 500 {
        let queries = (0..500).map(|i| {
            let (client, statement) = (&client, &statement);
            async move { client.query_one(statement, &[&((block * 500 + i) as i32)]).await.unwrap().get::<_, i32>(0) }
        });
        futures_util::future::join_all(queries).await;
    }
    drop(client);
    let _ = tokio::time::timeout(PATIENCE, connection).await;
    let sessions = house.until_json("maria", &["sessions", "ls", "--all"], |sessions| sessions[0]["closed_at"].is_string()).await;
    assert_eq!(sessions[0]["statements"], RUN);
    let statements = house.json("maria", &["sessions", "statements", sessions[0]["id"].as_str().unwrap()]).await;
    assert_eq!(statements.as_array().unwrap().len(), RUN);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_proved_away_from_the_server_and_names_the_bad_line() {
    let house = House::open().await;
    house.account("maria", "read", "1h").await;
    let before = house.json("vera", &["doctor"]).await;
    let export = String::from_utf8(house.daypass("vera", &["log", "export"]).await.stdout).unwrap();
    let proof = house.daypass_with("stranger", &["log", "verify", "-"], &export).await;
    assert!(proof.status.success(), "{proof:?}");
    let head = before["head"].as_str().unwrap();
    assert!(house.daypass_with("stranger", &["log", "verify", "-", "--head", head], &export).await.status.success());
    let lines: Vec<&str> = export.lines().collect();
    let dropped: String = lines.iter().enumerate().filter(|(i, _)| *i != 6).map(|(_, line)| format!("{line}\n")).collect();
    let broken = house.daypass_with("stranger", &["log", "verify", "-"], &dropped).await;
    assert!(!broken.status.success() && String::from_utf8_lossy(&broken.stderr).contains("line 7"), "{broken:?}");
    // the state at a moment, by replay
    let then = lines[lines.len() - 2];
    let at = serde_json::from_str::<serde_json::Value>(then).unwrap()["at"].as_str().unwrap().to_owned();
    let passes = house.json("maria", &["passes"]).await;
    house.json("maria", &["end", passes[0]["account"].as_str().unwrap()]).await;
    house.until_no_accounts().await;
    let past = house.json("vera", &["passes", "--at", &at]).await;
    assert_eq!((past[0]["account"].clone(), past[0]["state"].clone()), (passes[0]["account"].clone(), "ready".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_text_is_explained() {
    let house = House::open().await;
    let account = house.account_only("maria", "read", "1h").await;
    let (_, said) = house.psql(&account, "SELECT 1").await;
    let found = house.json("maria", &["explain", &said]).await;
    assert!(found["remedy"].as_str().unwrap().contains("daypass allow"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_a_log_or_in_the_store() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    house.psql(&account, "SELECT 1").await;
    let token: serde_json::Value = serde_json::from_slice(&std::fs::read(house.path("maria/sign-in.json")).unwrap()).unwrap();
    let export = String::from_utf8(house.daypass("vera", &["log", "export"]).await.stdout).unwrap();
    let mut files = vec![("the export".to_owned(), export.into_bytes()), ("the server's log".to_owned(), house.log().into_bytes())];
    for entry in std::fs::read_dir(house.path("data")).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    for (name, secret) in
        [("account", account.password.as_str()), ("token", token["token"].as_str().unwrap()), ("admin", "admin-secret"), ("person", "a-long-password")]
    {
        for (place, content) in &files {
            assert!(!content.windows(secret.len()).any(|part| part == secret.as_bytes()), "the secret of the {name} stands in {place}");
        }
    }
}
