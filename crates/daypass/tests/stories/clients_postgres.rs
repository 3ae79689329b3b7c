//! What clients of PostgreSQL meet that they would meet without the gateway as well.

use crate::house::{House, PATIENCE};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// As libpq does it: waits for the end of the connection, and wants it said in TLS.
async fn cancel(house: &House, token: &tokio_postgres::CancelToken) {
    let stream = std::net::TcpStream::connect(house.gateway).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut twin = tokio::net::TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    let connect = tokio_postgres::tls::MakeTlsConnect::<tokio::net::TcpStream>::make_tls_connect(&mut house.tls(), "localhost").unwrap();
    token.cancel_query_raw(tokio::net::TcpStream::from_std(stream).unwrap(), connect).await.unwrap();
    let mut last = Vec::new();
    tokio::time::timeout(PATIENCE, twin.read_to_end(&mut last)).await.expect("it is closed").unwrap();
    assert!(!last.is_empty(), "the end of TLS is said before the connection closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_hits_the_statement_that_it_was_meant_for_and_no_later_one() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let (client, _connection) = house.client(&account).await.unwrap();
    let token = client.cancel_token();
    for n in 0..200 {
        let running = client.batch_execute("SELECT pg_sleep(60)");
        // the driver waits for the end of the cancel's own connection, and only then sends what comes next
        let cancelling = async {
            let deadline = Instant::now() + PATIENCE;
            while house.server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'").await.unwrap()
                == "0"
            {
                assert!(Instant::now() < deadline, "it does not run");
            }
            cancel(&house, &token).await;
        };
        let (cancelled, ()) = tokio::join!(running, cancelling);
        assert_eq!(cancelled.unwrap_err().code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
        // one that has nothing to hit, and at once the next statement
        cancel(&house, &token).await;
        client.batch_execute("SELECT pg_sleep(0.002)").await.unwrap_or_else(|error| panic!("round {n}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_my_session_is_the_servers_own() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let (first, _one) = house.client(&account).await.unwrap();
    let (second, _two) = house.client(&account).await.unwrap();
    // what pgAdmin's stop button does: one session cancels another by the number that its driver was given
    let theirs: i32 = second.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let stop = async {
        let deadline = Instant::now() + PATIENCE;
        while !first.query_one("SELECT pg_cancel_backend($1)", &[&theirs]).await.unwrap().get::<_, bool>(0)
            || house.server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND state = 'active'").await.unwrap()
                != "0"
        {
            assert!(Instant::now() < deadline);
        }
    };
    let (stopped, ()) = tokio::join!(second.batch_execute("SELECT pg_sleep(61)"), stop);
    let _ = stopped;
    // psql prints what its driver was given
    let (good, said) = house.psql_to(&account, "uat", "application_name=mine", "SELECT pg_backend_pid(), current_setting('application_name')").await;
    let (pid, name) = said.trim().split_once('|').unwrap();
    assert!(good && name == "mine", "a name that a client gives is left alone: {said}");
    let mut prompt = house.psql_prompt(&account, "uat", "");
    prompt.args(["-c", "\\echo :SERVER_VERSION_NUM", "-c", "SELECT pg_backend_pid()", "-c", "\\conninfo"]);
    assert!(prompt.output().await.unwrap().status.success() && pid.parse::<u32>().is_ok());
    let listener = "LISTEN news; NOTIFY news; SELECT pg_backend_pid()";
    let said = house.psql(&account, listener).await.1;
    // "Asynchronous notification ... received from server process with PID 123": the same as the backend's own
    let told = said.split("PID ").nth(1).and_then(|rest| rest.split(['.', '\n']).next()).map(str::to_owned);
    let own = said.lines().find(|line| line.trim().parse::<u32>().is_ok()).map(|line| line.trim().to_owned());
    assert!(told.is_some() && told == own, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_has_against_my_settings_i_am_told_in_its_own_words() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    for (options, words) in [
        ("options='-c nonsense=1'", "unrecognized configuration parameter \"nonsense\""),
        ("options='-c TimeZone=Nowhere/Atall'", "invalid value for parameter \"TimeZone\""),
    ] {
        let (good, said) = house.psql_to(&account, "uat", options, "SELECT 1").await;
        assert!(!good && said.contains(words) && said.contains("change it in the tool"), "{said}");
        let explained = house.json("maria", &["explain", &said]).await;
        assert!(explained["cause"].as_str().unwrap().contains("setting"), "{explained}");
    }
    // limits of the client's own do not keep it out
    for options in ["options='-c statement_timeout=1'", "options='-c lock_timeout=1 -c statement_timeout=2'"] {
        let (good, said) = house.psql_to(&account, "uat", options, "SET statement_timeout = 0; SELECT 'in'").await;
        assert!(good && said.contains("in"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_only_and_the_last_line_that_a_client_shows() {
    let house = House::open().await;
    let account = house.account_only("maria", "read", "1h").await;
    // libpq with `prefer`, as pgAdmin has it, tries again without TLS when it is refused before its password is taken
    let way = format!("host=127.0.0.1 port={} dbname=uat user={} sslmode=prefer connect_timeout=15", house.gateway.port(), account.name);
    let mut psql = tokio::process::Command::new(daypass_testkit::postgres::binaries().unwrap().join("psql"));
    psql.args([way.as_str(), "-X", "-c", "SELECT 1"]).env("PGPASSWORD", &account.password).stdin(std::process::Stdio::null());
    let output = tokio::time::timeout(PATIENCE, psql.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("not on the allow-list") && !said.contains("requires TLS"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_what_no_client_sends_is_shown_out_without_a_word() {
    let house = House::open().await;
    let mut stream = tokio::net::TcpStream::connect(house.gateway).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.unwrap();
    assert!(read.is_err() || said.is_empty(), "{:?}", String::from_utf8_lossy(&said));
}
