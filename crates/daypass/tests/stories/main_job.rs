//! Ask, get an account, connect; be refused where one should be.

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job() {
    let house = House::open().await;
    let account = house.account_only("maria", "read", "1h").await;
    let (ok, said) = house.psql(&account, "SELECT 1").await;
    assert!(!ok && said.contains("no access for host \"127.0.0.1\"") && said.contains("daypass allow uat 127.0.0.1"), "{said}");
    house.json("maria", &["allow", "uat"]).await;
    assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
    let (ok, said) = house.psql_to(&account, "uat", "channel_binding=require", "SELECT 1").await;
    assert!(ok, "SCRAM-SHA-256-PLUS: {said}");
    let (ok, said) = house.psql(&account, "DELETE FROM sales.orders").await;
    assert!(!ok && said.contains("permission denied"), "{said}");
    let writer = house.account("maria", "read_write", "1h").await;
    assert_eq!(house.psql(&writer, "DELETE FROM sales.orders WHERE id <= 100").await, (true, "DELETE 100\n".to_owned()));
    // some tools write user@server
    let mut with_server = account.clone();
    with_server.name.push_str("@localhost");
    assert!(house.psql(&with_server, "SELECT 1").await.0);
    // both at once, and both still hold
    assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await, (true, "300\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_made_later_are_readable_without_asking_again() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    house
        .server
        .sql("uat", "SET ROLE uat_owner; CREATE SCHEMA later; CREATE TABLE later.fresh AS SELECT 7 AS n; CREATE TABLE sales.newer AS SELECT 8 AS n")
        .await
        .unwrap();
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    loop {
        let (ok, said) = house.psql(&account, "SELECT f.n + s.n FROM later.fresh f, sales.newer s").await;
        if ok {
            assert_eq!(said, "15\n");
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_opens_its_own_database_only_and_only_with_tls_and_its_password() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let (ok, said) = house.psql_to(&account, "golden", "", "SELECT 1").await;
    assert!(!ok && said.contains("opens \"uat\" only"), "{said}");
    let mut wrong = account.clone();
    wrong.password.push('x');
    let (ok, said) = house.psql(&wrong, "SELECT 1").await;
    assert!(!ok && said.contains("password authentication failed"), "{said}");
    wrong.name = "nobody_at_all".to_owned();
    let (ok, said) = house.psql(&wrong, "SELECT 1").await;
    assert!(!ok && said.contains("password authentication failed"), "{said}");
    let (ok, said) = house.psql_to(&account, "uat", "sslmode=disable", "SELECT 1").await;
    assert!(!ok && said.contains("TLS"), "{said}");
    let (ok, said) = house.psql_to(&account, "uat", "replication=database", "IDENTIFY_SYSTEM").await;
    assert!(!ok && said.to_lowercase().contains("replication"), "{said}");
    // what the gateway uses on the target is another password: this one is worth nothing there
    let mut direct = tokio_postgres::Config::new();
    direct.host("127.0.0.1").port(house.server.port).user(&account.name).password(&account.password).dbname("uat");
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(crate::house::tls(&house.path("server-ca.pem")));
    assert!(direct.connect(tls).await.is_err(), "the person's password must not open the target itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_does_it_all_in_one_go() {
    let house = House::open().await;
    let arguments = ["connect", "uat", "--reason", "one go", "--", "-X", "-A", "-t", "-c", "SELECT current_user"];
    let first = house.daypass("maria", &arguments).await;
    assert!(first.status.success(), "{first:?}");
    let again = house.daypass("maria", &arguments).await;
    assert_eq!(first.stdout, again.stdout, "the second time it uses the account that is there");
    assert_eq!(house.json("maria", &["passes"]).await.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_leads_where_it_says_whatever_my_surroundings_say() {
    let house = House::open().await;
    let mut command = house.command("maria", &["connect", "uat", "--reason", "one go", "--", "-X", "-A", "-t", "-c", "SELECT current_user"]);
    for (name, value) in [
        ("PGSERVICE", "prod"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGSSLROOTCERT", "/nowhere"),
        ("PGSSLCERT", "/nowhere"),
        ("PGCHANNELBINDING", "disable"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGPASSFILE", "/nowhere"),
    ] {
        command.env(name, value);
    }
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = tokio::time::timeout(crate::house::PATIENCE, command.output()).await.unwrap().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with("jit_maria_"), "{output:?}");
    // what is asked for is what is got: another access, or for another reason, is another account
    for more in [&["--access", "read_write", "--reason", "one go"][..], &["--reason", "something else"], &["--life", "1h"]] {
        let before = house.json("maria", &["passes"]).await.as_array().unwrap().len();
        let arguments = [&["connect", "uat"], more, &["--", "-X", "-c", "SELECT 1"]].concat();
        let arguments: Vec<&str> = if more.contains(&"--reason") { arguments } else { [&arguments[..2], &["--reason", "shorter"], &arguments[2..]].concat() };
        let output = house.daypass("maria", &arguments).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(house.json("maria", &["passes"]).await.as_array().unwrap().len(), before + 1, "{arguments:?}");
    }
    let output = house.daypass("maria", &["connect", "uat", "--access", "read_write", "--", "-X", "-c", "SELECT 1"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("You have this already"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_could_not_be_written_is_no_success() {
    let house = House::open().await;
    for arguments in [&["log", "export"][..], &["--json", "passes", "--all"], &["env", "ls"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = house.command("vera", arguments).stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().await.unwrap();
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("could not be written"), "{arguments:?}: {output:?}");
    }
    // whoever has seen enough is no error
    let mut export = house.command("vera", &["log", "export"]);
    let mut child = export.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_gets_a_sentence_and_changes_nothing() {
    let house = House::open().await;
    // what Daypass observes meanwhile is its own
    let by_people = async || {
        let export = house.daypass("vera", &["log", "export"]).await;
        String::from_utf8_lossy(&export.stdout).lines().filter(|line| line.contains("\"by\":{\"user\"")).count()
    };
    let entries = by_people().await;
    assert!(entries > 5);
    let ask = |env, more: &[&'static str]| [&["request", env, "--reason", "a story"], more].concat();
    let cases: Vec<(&str, Vec<&str>, i32, &str)> = vec![
        ("maria", ask("nowhere", &[]), 3, "no environment 'nowhere'"),
        ("maria", vec!["request", "uat"], 3, "what you need it for"),
        ("maria", ask("uat", &["--life", "9h"]), 3, "at most 8 h"),
        ("maria", ask("uat", &["--life", "soon"]), 2, "8h"),
        ("maria", vec!["allow", "uat", "10.0.0.0/8"], 3, "wider than policy"),
        ("maria", vec!["allow", "uat", "0.0.0.0/0"], 3, "opens the door to everybody"),
        ("maria", vec!["allow", "uat", "my-office"], 3, "address"),
        ("maria", vec!["move", "uat", "external", "begin", "--reason", "mine"], 3, "none of your roles"),
        ("sam", vec!["move", "uat", "external", "finish"], 3, "No movement of uat is under way"),
        ("maria", vec!["end", "jit_ben_aaaa"], 3, "no pass"),
        ("maria", vec!["log", "ls"], 3, "none of your roles"),
        ("maria", vec!["people", "ls"], 3, "none of your roles"),
        ("nobody", vec!["passes"], 4, "daypass login"),
    ];
    for (who, arguments, code, words) in cases {
        let (exit, said) = house.refused(who, &arguments).await;
        assert!(exit == code && said.contains(words), "{arguments:?} said ({exit}): {said}");
    }
    assert_eq!(by_people().await, entries, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_an_approval_waits_for_somebody_else() {
    let house = House::open().await;
    house.person("amy", "approver").await;
    let mut policy = house.json("ada", &["policy", "uat"]).await;
    policy["approval"] = serde_json::json!({"read_write": "one"});
    let file = house.path("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    assert!(house.daypass("ada", &["policy", "uat", "--set", &file.display().to_string()]).await.status.success());
    let asked = house.json("maria", &["request", "uat", "--access", "read_write", "--reason", "mend one order", "--no-wait"]).await;
    assert_eq!(asked["state"], "requested");
    let account = asked["account"].as_str().unwrap();
    assert_eq!(house.refused("maria", &["approve", account]).await.0, 3, "nobody approves their own");
    assert_eq!(house.refused("maria", &["reveal", account]).await.0, 3, "and there is nothing to see before");
    house.json("amy", &["approve", account]).await;
    house.until_json("maria", &["passes"], |passes| passes[0]["state"] == "ready" && passes[0]["approved_by"] == "amy").await;
    let second = house.json("maria", &["request", "uat", "--access", "read_write", "--reason", "mend another", "--no-wait"]).await;
    house.json("amy", &["deny", second["account"].as_str().unwrap(), "--reason", "one is enough"]).await;
    house.until_json("maria", &["passes", "--all"], |passes| passes.as_array().unwrap().iter().any(|pass| pass["state"] == "denied")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_by_itself_and_when_it_is_taken_back() {
    let house = House::open().await;
    let with = async |token: &str| {
        let mut command = house.command("a-script", &["whoami"]);
        command.env("DAYPASS_SERVER", format!("https://{}", house.api)).env("DAYPASS_TOKEN", token).env("DAYPASS_CA", house.path("data/ca.pem"));
        command.output().await.unwrap().status.code().unwrap()
    };
    let short = house.json("maria", &["token", "add", "a script", "--life", "6s"]).await;
    let long = house.json("maria", &["token", "add", "another", "--life", "1h"]).await;
    let text = |issued: &serde_json::Value, key: &str| issued[key].as_str().unwrap().to_owned();
    assert_eq!((with(&text(&short, "token")).await, with(&text(&long, "token")).await), (0, 0));
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    while with(&text(&short, "token")).await != 4 {
        assert!(std::time::Instant::now() < deadline);
    }
    assert!(house.daypass("maria", &["token", "rm", &text(&long, "id")]).await.status.success());
    assert_eq!(with(&text(&long, "token")).await, 4);
    assert_eq!(with("dpt_made-up").await, 4);
}

/// The same Daypass at other addresses; maria calls it by this name.
async fn moved(api: &str, gateway: &str, name: &str) -> House {
    let mut house = House::open().await;
    house.crash().await;
    house.api.set_ip(api.parse().unwrap());
    house.gateway.set_ip(gateway.parse().unwrap());
    house.start().await;
    let (server, ca) = (format!("https://{name}:{}", house.api.port()), house.path("data/ca.pem").display().to_string());
    let login = ["login", "--server", &server, "--ca", &ca, "--name", "maria", "--password-stdin"];
    let output = house.daypass_with("maria", &login, "a-long-password").await;
    assert!(output.status.success(), "{output:?}");
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn my_address_is_allowed_as_the_gateway_sees_it_over_each_family_that_both_of_us_have() {
    let house = moved("::", "::", "localhost").await;
    let account = house.account("maria", "read", "1h").await;
    assert_eq!(house.json("maria", &["allowed", "uat"]).await[0]["addresses"], "127.0.0.1;::1");
    for family in ["127.0.0.1", "::1"] {
        let (ok, said) = house.psql_to(&account, "uat", &format!("host=localhost hostaddr={family}"), "SELECT 1").await;
        assert!(ok, "{family}: {said}");
    }
    // and it is one entry, also the second time
    let connected = house.daypass("maria", &["connect", "uat", "--access", "read", "--", "-A", "-t", "-c", "SELECT 7"]).await;
    assert_eq!(String::from_utf8_lossy(&connected.stdout), "7\n", "{connected:?}");
    assert_eq!(house.json("maria", &["allowed", "uat"]).await.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_over_ipv6_is_let_in_by_a_gateway_that_listens_on_ipv4() {
    let house = moved("::1", "127.0.0.1", "[::1]").await;
    let account = house.account("maria", "read", "1h").await;
    assert_eq!(house.json("maria", &["allowed", "uat"]).await[0]["addresses"], "127.0.0.1");
    assert_eq!(house.psql(&account, "SELECT 1").await, (true, "1\n".to_owned()));
}
