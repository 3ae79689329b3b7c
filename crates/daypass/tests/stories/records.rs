//! What was run is on record, all of it.

use crate::house::{Account, House, PATIENCE};
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
        // the socket holds nothing
        if !path.is_file() {
            continue;
        }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_glass_is_told_reviewed_and_in_the_report() {
    let house = House::open().await;
    house.person("amy", "approver").await;
    house
        .policy("uat", |policy| {
            policy["approval"] = serde_json::json!({"read": "one", "read_write": "two"});
            policy["break_glass"] = serde_json::json!(["requester"]);
        })
        .await;
    house.json("maria", &["allow", "uat"]).await;
    let preview = house.json("ada", &["policy", "uat", "--preview", "maria", "--access", "read_write", "--reason", "a look"]).await;
    assert!(preview["outcome"].as_str().unwrap().contains("waits for two approvals"), "{preview}");
    let way = house.json("maria", &["request", "uat", "--break-glass", "--reason", "payments stand still"]).await;
    let account = Account { name: way["account"].as_str().unwrap().into(), password: way["password"].as_str().unwrap().into(), ends_at: String::new() };
    assert!(house.psql(&account, "SELECT 1").await.0, "in at once");
    assert_eq!(house.refused("maria", &["review", &account.name, "--reason", "it was me"]).await.0, 3);
    assert_eq!(house.refused("ben", &["review", &account.name, "--reason", "not mine"]).await.0, 3);
    house.json("amy", &["review", &account.name, "--reason", "one SELECT, in order"]).await;
    let found = house.json("vera", &["log", "find", "--person", "maria", "--kind", "access"]).await;
    let told: Vec<&str> = found.as_array().unwrap().iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert!(told.iter().any(|what| what.contains("broke the glass")) && told.iter().any(|what| what.contains("one SELECT, in order")), "{told:?}");
    house.json("maria", &["end", &account.name]).await;
    let report = house.until_json("vera", &["report", "uat", "--from", "2026-01-01T00:00:00Z"], |report| report[0]["ended"].is_string()).await;
    assert_eq!((report[0]["holder"].as_str(), report[0]["sessions"].as_u64()), (Some("maria"), Some(1)), "{report}");
    assert!(report[0]["approved_by"].as_str().unwrap().contains("glass"));
    let then = report[0]["from"].as_str().unwrap();
    assert_eq!(house.json("vera", &["report", "--at", then]).await.as_array().unwrap().len(), 1, "she was in then");
    assert_eq!(house.json("vera", &["report", "--at", "2026-01-01T00:00:00Z"]).await.as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_which_nothing_happens_ends_and_one_that_works_does_not() {
    let house = House::open().await;
    house.policy("uat", |policy| policy["idle"] = serde_json::json!(2)).await;
    let account = house.account("maria", "read", "1h").await;
    let (busy, _) = house.client(&account).await.unwrap();
    let (idle, connection) = house.client(&account).await.unwrap();
    // a statement that runs for longer than that is not idle, however silent it is
    busy.simple_query("SELECT pg_sleep(4)").await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("the idle one ends").unwrap();
    assert!(ended.unwrap_err().to_string().contains("nothing happened in this session for 2 s") || idle.is_closed());
    busy.simple_query("SELECT 1").await.unwrap();
    let sessions = house.json("maria", &["sessions", "ls", "--all"]).await;
    assert!(sessions.to_string().contains("nothing happened in this session for 2 s"), "{sessions}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_policy_says_so_statements_are_not_recorded_and_a_password_is_shown_once() {
    let house = House::open().await;
    house
        .policy("uat", |policy| {
            policy["record"] = serde_json::json!(false);
            policy["reveal"] = serde_json::json!("once");
        })
        .await;
    let account = house.account("maria", "read", "1h").await;
    assert!(house.psql(&account, "SELECT 'nobody reads this'").await.0);
    let sessions = house.until_json("maria", &["sessions", "ls", "--all"], |sessions| sessions[0]["closed_at"].is_string()).await;
    assert_eq!(sessions[0]["statements"], 0);
    let statements = house.json("maria", &["sessions", "statements", sessions[0]["id"].as_str().unwrap()]).await;
    assert_eq!(statements.as_array().unwrap().len(), 0);
    let (code, said) = house.refused("maria", &["reveal", &account.name]).await;
    assert!(code == 3 && said.contains("shown once"), "{said}");
    assert!(house.psql(&account, "SELECT 1").await.0, "it works on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_up_is_written_to_a_file_and_made_again_from_it() {
    let house = House::open().await;
    let export = house.daypass("ada", &["export"]).await;
    let text = String::from_utf8(export.stdout).unwrap();
    assert!(text.contains("golden:") && text.contains("requester") && !text.contains("admin-secret") && !text.contains("a-long-password"), "{text}");
    let file = house.path("daypass.yaml");
    let apply = async |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let output = house.daypass("ada", &[&["apply", "--file", file.to_str().unwrap()], more].concat()).await;
        (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let (ok, said) = apply(&text, &["--yes"]).await;
    assert!(ok && said.contains("Nothing to do"), "{said}");
    house.server.database("third").await.unwrap();
    std::fs::write(house.path("third-password"), "admin-secret\n").unwrap();
    let ca = std::fs::read_to_string(house.path("server-ca.pem")).unwrap().replace('\n', "\\n");
    let wanted = format!(
        "projects:\n  erp: {{ policy: {{ name: strict, access: [read], default_life: 1h, longest_life: 4h }} }}\nenvironments:\n  third: {{ project: erp, engine: postgres, host: localhost, port: {}, database: third, admin: daypass_admin, ca: \"{ca}\", password_file: third-password }}\npeople:\n  maria: {{ roles: [requester, 'approver@env:golden'] }}\n",
        house.server.port
    );
    let (ok, said) = apply(&wanted, &[]).await;
    assert!(!ok && said.contains("+ environment third") && said.contains("--yes"), "without a terminal nothing is done unasked: {said}");
    let (ok, said) = apply(&wanted, &["--dry-run"]).await;
    assert!(ok && said.contains("+ maria is approver@env:golden"), "{said}");
    assert!(!house.json("ada", &["env", "ls"]).await.to_string().contains("third"));
    let (ok, said) = apply(&wanted, &["--yes"]).await;
    assert!(ok, "{said}");
    let (code, said) = house.refused("maria", &["request", "third", "--access", "read_write", "--reason", "a look"]).await;
    assert!(code == 3 && said.contains("Policy 'strict' does not allow read_write"), "{said}");
    house.json("maria", &["request", "third", "--reason", "a look"]).await;
    assert!(apply(&wanted, &["--yes"]).await.1.contains("Nothing to do"), "the same again changes nothing");
    assert_eq!(house.refused("maria", &["export"]).await.0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_change_their_own_password_and_administrators_the_policy_of_a_project() {
    let house = House::open().await;
    let change = "a-long-password\nanother-long-password\n";
    assert!(house.daypass_with("maria", &["password", "--stdin"], change).await.status.success());
    assert_eq!(house.json("maria", &["whoami"]).await["name"], "maria", "who changes it stays signed in");
    let (server, ca) = (format!("https://{}", house.api), house.path("data/ca.pem").display().to_string());
    let login = ["login", "--server", &server, "--ca", &ca, "--name", "maria", "--password-stdin"];
    assert!(!house.daypass_with("laptop", &login, "a-long-password").await.status.success());
    assert!(house.daypass_with("laptop", &login, "another-long-password").await.status.success());

    let mut policy = house.json("ada", &["policy", "uat"]).await;
    policy["name"] = "project-wide".into();
    policy["longest_life"] = 3_600.into();
    policy["default_life"] = 3_600.into();
    let file = house.path("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let file = file.display().to_string();
    assert!(house.daypass("ada", &["policy", "main", "--project", "--set", &file]).await.status.success());
    assert_eq!(house.json("ada", &["policy", "golden"]).await["longest_life"], 3_600);
    let refused = house.refused("sam", &["policy", "main", "--project", "--set", &file]).await.1;
    assert!(refused.contains("may not do this"), "{refused}");
}
