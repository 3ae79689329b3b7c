//! Starting: what is wrong is said in a sentence, and nothing half-made is left.

use crate::house::{House, PATIENCE, PROGRAM};
use daypass_testkit::certificates::Certificates;
use std::{process::Stdio, time::Instant};

async fn serve(house: &House, more: &[(&str, &str)]) -> (i32, String) {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["serve", "--config"]).arg(house.path("daypass.toml")).envs(more.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not start").unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daypass_a_taken_port_a_wrong_key_and_an_old_config_are_refused_in_words() {
    let mut house = House::bare("", None).await;
    house.write_config();
    let taken = std::net::TcpListener::bind(house.gateway).unwrap();
    let (code, said) = serve(&house, &[]).await;
    assert!(code == 1 && said.contains("Is it in use?") && said.contains("gateway.listen"), "{said}");
    assert!(!house.path("data").exists(), "nothing half-made is left");
    drop(taken);
    house.start().await;
    let (code, said) =
        serve(&house, &[("DAYPASS_API_LISTEN", "127.0.0.1:0"), ("DAYPASS_GATEWAY_LISTEN", "127.0.0.1:0"), ("DAYPASS_GATEWAY_LISTEN_SQLSERVER", "127.0.0.1:0")])
            .await;
    assert!(code == 1 && said.contains("another"), "{said}");
    house.crash().await;
    let other_key = "0".repeat(64);
    let (code, said) = serve(&house, &[("DAYPASS_MASTER_KEY", &other_key)]).await;
    assert!(code == 1 && said.contains("key") && !said.contains(&other_key), "{said}");
    std::fs::write(house.path("daypass.toml"), "[gateway]\nport = 7432\n").unwrap();
    let (code, said) = serve(&house, &[]).await;
    assert!(code == 1 && said.contains("unknown field `port`") && said.contains("line 2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_lie_in_files_for_their_owner_only() {
    let house = House::open().await;
    for file in ["data/master.key", "maria/sign-in.json"] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(house.path(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_certificate_is_used_and_read_again_when_it_changes() {
    let mut house = House::bare("", None).await;
    let (certificate, key) = (house.path("chain.pem"), house.path("key.pem"));
    let first = Certificates::make().unwrap();
    first.write(&certificate, &key).unwrap();
    house.extra_config = format!("certificate = {certificate:?}\nkey = {key:?}");
    house.start().await;
    let trusts = async |ca: &str| {
        std::fs::write(house.path("trusted.pem"), ca).unwrap();
        let config = std::sync::Arc::new(crate::house::tls(&house.path("trusted.pem")));
        let tcp = tokio::net::TcpStream::connect(house.api).await.unwrap();
        tokio_rustls::TlsConnector::from(config).connect("localhost".try_into().unwrap(), tcp).await.is_ok()
    };
    assert!(trusts(&first.ca).await);
    let second = Certificates::make().unwrap();
    second.write(&certificate, &key).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !trusts(&second.ca).await {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    assert!(!trusts(&first.ca).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_reload_it_reads_its_certificate_again_and_ends_nobody() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let (client, _connection) = house.client(&account).await.unwrap();
    let pid = rustix::process::Pid::from_raw(house.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    house.until_so("it says so", || house.log().contains("told to reload")).await;
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    assert!(house.client(&account).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_others_and_links_in_the_data_directory_are_refused_in_words() {
    let mut house = House::bare("", None).await;
    house.start().await;
    house.crash().await;
    let config = house.write_config();
    let starts = || std::process::Command::new(crate::house::PROGRAM).args(["serve", "--config"]).arg(&config).output().unwrap();
    let data = house.path("data");
    for name in ["log.db", "records.db", "master.key"] {
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(data.join(name)).unwrap()) & 0o077, 0, "{name} is its owner's only");
    }
    let elsewhere = house.path("elsewhere");
    std::fs::rename(data.join("ca.pem"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, data.join("ca.pem")).unwrap();
    let output = starts();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("is a link to a file elsewhere"), "{said}");
    std::fs::remove_file(data.join("ca.pem")).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(data.join("master.key"), Some(12_345), None).unwrap();
        let output = starts();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("belongs to the user with number 12345"), "{said}");
        std::os::unix::fs::chown(data.join("master.key"), Some(0), None).unwrap();
    }
    house.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_tells_its_sessions_and_ends() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let (_client, connection) = house.client(&account).await.unwrap();
    let pid = rustix::process::Pid::from_raw(house.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let error = tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap_err();
    assert!(error.as_db_error().is_some_and(|e| e.message().contains("Daypass is stopping")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_when_it_was_told_to_stop_is_on_record_and_runs_no_longer() {
    let mut house = House::open().await;
    let account = house.account("maria", "read_write", "1h").await;
    let (client, _connection) = house.client(&account).await.unwrap();
    let running = tokio::spawn(async move { client.batch_execute("UPDATE sales.orders SET customer = customer; SELECT pg_sleep(600)").await });
    house.until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND state = 'active'", "1").await;
    house.stop().await;
    let error = running.await.unwrap().unwrap_err();
    let words = error.as_db_error().expect("in words");
    assert!(words.message().contains("Daypass is stopping") && words.hint().is_some_and(|hint| hint.contains("connect again in a moment")), "{words:?}");
    house.until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND state = 'active'", "0").await;
    house.start().await;
    let sessions = house.json("vera", &["sessions", "ls", "--all"]).await;
    assert!(sessions[0]["why"].as_str().is_some_and(|why| why.contains("Daypass is stopping")), "{sessions}");
    let statements = house.json("vera", &["sessions", "statements", sessions[0]["id"].as_str().unwrap()]).await;
    assert!(statements[0]["text"].as_str().is_some_and(|text| text.starts_with("UPDATE sales.orders")), "{statements}");
}

/// One connection to the API, spoken by hand.
async fn by_hand(house: &House) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let config = std::sync::Arc::new(crate::house::tls(&house.path("data/ca.pem")));
    let tcp = tokio::net::TcpStream::connect(house.api).await.unwrap();
    tokio_rustls::TlsConnector::from(config).connect("localhost".try_into().unwrap(), tcp).await.unwrap()
}

/// The head of the next answer, and as much of its body as the head says.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an answer comes").expect("the connection stays") as char);
    }
    let length = text.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    format!("{text}{}", String::from_utf8_lossy(&body))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_costs_its_client_no_connection() {
    use tokio::io::AsyncWriteExt;
    let mut house = House::bare("", None).await;
    house.start().await;
    let mut stream = by_hand(&house).await;
    // "Expect" makes the order sure: the head is there, the body is not
    let head = "POST /api/v1/people HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 100 "), "it wants the whole request before it judges it");
    stream.write_all(b"0123456789").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 401 "));
    stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.ends_with("ok"), "the next request on the same connection is answered");

    let too_much = format!("POST /api/v1/people HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000));
    stream.write_all(too_much.as_bytes()).await.unwrap();
    let refused = answer(&mut stream).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("connection: close") && refused.contains("at most 65536 bytes"), "{refused}");
}

/// Programs whose command line names this folder.
fn of(folder: &std::path::Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let words = all.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    words.filter(|line| line.contains(folder.to_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_told_to_end_leaves_nothing_running_and_nothing_on_disk() {
    // as its server starts, and in the middle of the walk
    for (n, (begun, signal)) in
        [("daypass-pg-", rustix::process::Signal::TERM), ("daypass-demo-", rustix::process::Signal::TERM), ("daypass-demo-", rustix::process::Signal::HUP)]
            .into_iter()
            .enumerate()
    {
        let folder = std::env::temp_dir().join(format!("daypass-told-{}-{n}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut demo = tokio::process::Command::new(PROGRAM);
        demo.arg("demo").env("TMPDIR", &folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let demo = demo.spawn().unwrap();
        let there = || std::fs::read_dir(&folder).unwrap().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(begun));
        let deadline = Instant::now() + PATIENCE;
        while !there() {
            assert!(Instant::now() < deadline, "the demo does not begin");
            tokio::task::yield_now().await;
        }
        let pid = rustix::process::Pid::from_raw(demo.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let output = tokio::time::timeout(PATIENCE, demo.wait_with_output()).await.expect("it does not end").unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("stopped before"), "{signal:?}: {:?} {said}", output.status);
        assert_eq!(of(&folder), Vec::<String>::new());
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new());
        std::fs::remove_dir(&folder).unwrap();
    }
}
