//! What must hold when things break: targets that are down or hang, a full disk, no file handles left, strangers at the door.

use crate::house::{House, PATIENCE};
use daypass_testkit::faulty::{Fault, FaultyProxy};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, net::TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_makes_a_request_wait_and_says_why() {
    let mut house = House::open().await;
    house.json("maria", &["allow", "uat"]).await;
    house.server.stop().await;
    house.json("maria", &["request", "uat", "--reason", "a story", "--no-wait"]).await;
    let waits =
        |passes: &serde_json::Value| passes[0]["state"] == "approved" && passes[0]["because"].as_str().is_some_and(|why| why.contains("cannot be made yet"));
    house.until_json("maria", &["passes"], waits).await;
    house.server.boot().await.unwrap();
    house.until_json("maria", &["passes"], |passes| passes[0]["state"] == "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_target_stays_down_lapses_and_leaves_nothing() {
    let mut house = House::open().await;
    house.server.stop().await;
    house.json("maria", &["request", "uat", "--life", "2s", "--reason", "a story", "--no-wait"]).await;
    house.until_json("maria", &["passes"], |passes| passes.as_array().is_some_and(Vec::is_empty)).await;
    house.server.boot().await.unwrap();
    let ended =
        |passes: &serde_json::Value| passes[0]["state"] == "ended" && passes[0]["because"].as_str().is_some_and(|why| why.contains("could not be made"));
    house.until_json("maria", &["passes", "--all"], ended).await;
    assert_eq!(house.accounts().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_delays_nobody_elses() {
    let house = House::open().await;
    let proxy = FaultyProxy::start(SocketAddr::from(([127, 0, 0, 1], house.server.port)), 7).await.unwrap();
    house.server.database("slow").await.unwrap();
    house.environment("slow", proxy.address.port()).await;
    proxy.set(Fault::Freeze);
    house.json("maria", &["request", "slow", "--reason", "a story", "--no-wait"]).await;
    let asked = Instant::now();
    let account = house.account("maria", "read", "1h").await;
    // a command that waited for the frozen one would wait for its connect timeout, 10 s
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(house.psql(&account, "SELECT 1").await.0);
    proxy.set(Fault::None);
    house.until_json("maria", &["passes", "--env", "slow"], |passes| passes[0]["state"] == "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_dropped_or_locked_behind_our_back_is_put_back_and_a_stray_is_removed() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    // it can log in at the gateway's moments only; whoever opens it for longer, or moves its end, is not long heard
    house.server.sql("postgres", &format!("ALTER ROLE {} LOGIN PASSWORD 'mine' VALID UNTIL 'infinity'", account.name)).await.unwrap();
    let as_it_was = format!("SELECT rolcanlogin, rolvaliduntil < now() + interval '1 hour' FROM pg_roles WHERE rolname = '{}'", account.name);
    house.until(&as_it_was, "f|t").await;
    assert!(house.psql(&account, "SELECT 1").await.0, "and its password was not changed for the gateway");
    let members = format!("SELECT count(*) FROM pg_auth_members WHERE member = '{}'::regrole", account.name);
    house.server.sql("postgres", &format!("DROP OWNED BY {0}; DROP ROLE {0}", account.name)).await.unwrap();
    house.until(&format!("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{}')", account.name), "t").await;
    house.until(&members, "1").await;
    // somebody copies the marker of our account to a role that nobody asked for
    let marker = format!("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{}'", account.name);
    let marker = house.server.sql("postgres", &marker).await.unwrap();
    let forged = marker.rsplit_once(' ').map(|(store, _)| format!("{store} 00000000-0000-0000-0000-000000000000")).unwrap();
    house
        .server
        .sql(
            "postgres",
            &format!("CREATE ROLE jit_stray_aaaa LOGIN; GRANT jit_stray_aaaa TO daypass_admin WITH ADMIN OPTION; COMMENT ON ROLE jit_stray_aaaa IS '{forged}'"),
        )
        .await
        .unwrap();
    house.until("SELECT count(*) FROM pg_roles WHERE rolname = 'jit_stray_aaaa'", "0").await;
    assert!(house.psql(&account, "SELECT 1").await.0, "and the right one still works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_gives_no_access_but_ends_it() {
    // the shell lets no file grow over 400 KiB, as a full disk would; the signal for it is ignored
    let house = House::with("", Some("trap '' XFSZ; ulimit -S -f 400; exec \"$0\" \"$@\"")).await;
    let account = house.account("maria", "read", "1h").await;
    let (_client, connection) = house.client(&account).await.unwrap();
    let deadline = Instant::now() + PATIENCE * 3;
    let refused = loop {
        let output = house.daypass("maria", &["allow", "uat", "10.1.2.3"]).await;
        if !output.status.success() {
            break output;
        }
        assert!(Instant::now() < deadline, "the store never filled up");
    };
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(5) && said.contains("store cannot be written"), "{said}");
    let (exit, _) = house.refused("ben", &["request", "uat", "--reason", "a story"]).await;
    assert_eq!(exit, 5, "no new access");
    house.json("sam", &["end", &account.name, "--reason", "ends still happen"]).await;
    assert!(tokio::time::timeout(PATIENCE, connection).await.expect("the session is cut").unwrap().is_err());
    house.until_no_accounts().await;
    // room again: what ended meanwhile is in the log
    let pid = house.pid().to_string();
    assert!(tokio::process::Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().await.unwrap().success());
    let deadline = Instant::now() + PATIENCE;
    while !house.daypass("ben", &["request", "uat", "--reason", "a story"]).await.status.success() {
        assert!(Instant::now() < deadline, "{}", house.log());
    }
    let log = house.json("vera", &["log", "ls", "--limit", "5000"]).await;
    assert!(log.to_string().contains("pass_ending"), "the end is on record");
    let export = house.daypass("vera", &["log", "export"]).await;
    assert!(house.daypass_with("vera", &["log", "verify", "-"], &String::from_utf8(export.stdout).unwrap()).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_handles_left_is_survived() {
    let house = House::with("", Some("ulimit -n 96; exec \"$0\" \"$@\"")).await;
    let account = house.account("maria", "read", "1h").await;
    let mut strangers = Vec::new();
    for _ in 0..120 {
        if let Ok(Ok(stranger)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(house.gateway)).await {
            strangers.push(stranger);
        }
    }
    drop(strangers);
    let deadline = Instant::now() + PATIENCE;
    while !house.psql(&account, "SELECT 1").await.0 {
        assert!(Instant::now() < deadline, "{}", house.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_say_nothing_are_shown_out_and_keep_nobody_out() {
    let house = House::with("login_seconds = 4\nlogins_per_address = 8", None).await;
    let account = house.account("maria", "read", "1h").await;
    let came = Instant::now();
    let mut eight = Vec::new();
    for _ in 0..8 {
        eight.push(TcpStream::connect(house.gateway).await.unwrap());
    }
    // the ninth from the same address stands in line while the eight say nothing, and so do others, up to a bound
    let in_line: Vec<TcpStream> = futures_util::future::join_all((0..64).map(async |_| TcpStream::connect(house.gateway).await.unwrap())).await;
    let mut one_more = TcpStream::connect(house.gateway).await.unwrap();
    assert_eq!(until_closed(&mut one_more).await, 0);
    assert!(came.elapsed() < Duration::from_secs(4), "turned away, not timed out: {:?}", came.elapsed());
    assert!(house.log().contains("too many connections that have not logged in"), "{}", house.log());
    // then their time at the door is over, and there is room again
    for silent in &mut eight {
        assert_eq!(until_closed(silent).await, 0);
    }
    assert!(came.elapsed() >= Duration::from_millis(3_900), "{:?}", came.elapsed());
    drop(in_line);
    let deadline = Instant::now() + PATIENCE;
    while !house.psql(&account, "SELECT 1").await.0 {
        assert!(Instant::now() < deadline);
    }
}

/// How many bytes came before the gateway closed the connection.
async fn until_closed(stream: &mut TcpStream) -> usize {
    let mut said = Vec::new();
    // a reset closes as well
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("shown out");
    said.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_has_so_many_sessions_and_no_more() {
    let house = House::open().await;
    let mut policy = house.json("ada", &["policy", "uat"]).await;
    policy["sessions_per_pass"] = 2.into();
    let file = house.path("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    assert!(house.daypass("ada", &["policy", "uat", "--set", &file.display().to_string()]).await.status.success());
    let account = house.account("maria", "read", "1h").await;
    let (_one, _two) = (house.client(&account).await.unwrap(), house.client(&account).await.unwrap());
    let Err(third) = house.client(&account).await else { panic!("two is the limit") };
    assert!(third.as_db_error().unwrap().message().contains("allows 2 at once"), "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_before_the_gateway_loses_nothing_and_keeps_nobody_in() {
    let mut house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let proxy = FaultyProxy::start(house.gateway, 7).await.unwrap();
    house.gateway.set_port(proxy.address.port());
    for fault in [Fault::Delay, Fault::Dribble] {
        proxy.set(fault);
        assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()), "{fault:?}");
    }
    for fault in [Fault::Reset, Fault::HalfClose] {
        proxy.set(Fault::None);
        let (client, connection) = house.client(&account).await.unwrap();
        let query = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(60)").await });
        house.until("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'", "1").await;
        proxy.set(fault);
        assert!(tokio::time::timeout(PATIENCE, query).await.expect("the client notices").unwrap().is_err(), "{fault:?}");
        house.until("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'", "0").await;
        drop(connection);
    }
    // nothing that the client says arrives: its time at the door runs out, and others are not kept waiting
    proxy.set(Fault::Drop);
    let lost = tokio::time::timeout(Duration::from_millis(500), house.client(&account)).await;
    assert!(lost.is_err() || lost.is_ok_and(|client| client.is_err()));
    proxy.set(Fault::None);
    assert!(house.psql(&account, "SELECT 1").await.0);
}
