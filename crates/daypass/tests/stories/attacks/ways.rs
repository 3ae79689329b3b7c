//! "I keep everybody so busy that nobody gets to end my access."

use crate::house::{House, PATIENCE};
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::io::AsyncReadExt;

#[tokio::test(flavor = "multi_thread")]
async fn asking_who_was_in_two_hundred_times_at_once_delays_no_end() {
    let house = House::open().await;
    house.person("eve", "requester").await;
    let account = house.account("maria", "read", "1h").await;
    let (_client, connection) = house.client(&account).await.unwrap();
    let ask = || {
        let mut command = house.command("eve", &["--json", "passes", "--at", "2026-11-27T00:00:00Z"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let asking: Vec<_> = (0..60).map(|_| ask()).collect();
    let began = Instant::now();
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("it is cut").unwrap();
    assert!(ended.is_err());
    // the command itself shares two cores with sixty others; on a quiet machine the cut takes milliseconds
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let mut refused = 0;
    for one in asking {
        let output = tokio::time::timeout(PATIENCE * 2, one.wait_with_output()).await.expect("it is answered").unwrap();
        refused += usize::from(String::from_utf8_lossy(&output.stderr).contains("one at a time"));
    }
    assert!(refused > 0, "one person looks into the past once at a time");
    house.until_no_accounts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_i_hold_every_connection_of_the_console_it_is_ended_all_the_same_and_without_a_port() {
    let mut house = House::bare("", None).await;
    house.api_config = "strangers_seconds = 10\n".to_owned();
    house.start().await;
    house.settle().await;
    let account = house.account("maria", "read", "1h").await;
    // eight addresses take all places there are, say nothing that signs anybody in, and come again whenever they are put out
    let stop = Arc::new(AtomicBool::new(false));
    let holding: Vec<_> = (0..8)
        .flat_map(|n| (0..140).map(move |_| SocketAddr::from(([127, 0, 0, 2 + n], 0))))
        .map(|from| {
            let (api, stop) = (house.api, stop.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let socket = tokio::net::TcpSocket::new_v4().unwrap();
                    socket.bind(from).unwrap();
                    let Ok(mut held) = socket.connect(api).await else { continue };
                    let _ = held.read(&mut [0]).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let began = Instant::now();
    let mut by_port = house.daypass("sam", &["passes"]).await;
    while !by_port.status.success() {
        assert!(began.elapsed() < PATIENCE, "{by_port:?}\n{}", house.log());
        by_port = house.daypass("sam", &["passes"]).await;
    }
    let mut command = house.command("sam", &["end", &account.name, "--reason", "enough"]);
    command.env("DAYPASS_SOCKET", house.path("data/control.sock")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it is answered").unwrap();
    assert!(output.status.success(), "{output:?}");
    house.until_no_accounts().await;
    // nobody but its owner may open the socket, and who is not signed in is nobody there either
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(house.path("data/control.sock")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let mut stranger = house.command("nobody", &["passes"]);
    stranger.env("DAYPASS_SOCKET", house.path("data/control.sock")).env("DAYPASS_SERVER", "https://x").env("DAYPASS_TOKEN", "guessed");
    assert_eq!(stranger.output().await.unwrap().status.code(), Some(4));
    // and in a while the places are free again, though nobody gave them back
    let deadline = Instant::now() + PATIENCE;
    while !house.daypass("sam", &["passes"]).await.status.success() {
        assert!(Instant::now() < deadline, "{}", house.log());
    }
    stop.store(true, Relaxed);
    holding.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_i_sign_in_and_watch_from_every_connection_of_the_console_others_get_in_all_the_same() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let sign_in: Value = serde_json::from_str(&std::fs::read_to_string(house.path("maria/sign-in.json")).unwrap()).unwrap();
    let (token, watch) = (sign_in["token"].as_str().unwrap().to_owned(), format!("https://{}/api/v1/watch", house.api));
    let held = Arc::new(AtomicUsize::new(0));
    // two addresses take all places there are, and come again whenever they are put out
    let holding: Vec<_> = (0..1_024_u16)
        .map(|n| {
            let (token, watch, held) = (token.clone(), watch.clone(), held.clone());
            tokio::spawn(async move {
                let from = IpAddr::from([127, 0, 0, if n % 2 == 0 { 2 } else { 3 }]);
                let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).http1_only().local_address(from).build().unwrap();
                loop {
                    if let Ok(mut stream) = http.get(&watch).bearer_auth(&token).send().await {
                        held.fetch_add(1, Relaxed);
                        while let Ok(Some(_)) = stream.chunk().await {}
                        held.fetch_sub(1, Relaxed);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let most = || held.load(Relaxed) > 900;
    let deadline = Instant::now() + PATIENCE * 3;
    while !most() {
        assert!(Instant::now() < deadline, "{} are held\n{}", held.load(Relaxed), house.log());
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    while !house.daypass("sam", &["end", &account.name, "--reason", "enough"]).await.status.success() {
        assert!(began.elapsed() < PATIENCE, "{}", house.log());
    }
    house.until_no_accounts().await;
    holding.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_wrongly_from_an_address_closes_it_to_nobody_else() {
    let house = House::open().await;
    // who begins to sign a command line in, over and over, spends nobody's tries
    let url = format!("https://{}/api/v1/device", house.api);
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    for _ in 0..80 {
        let _ = http.post(&url).send().await;
    }
    // and who tries names that are not theirs, only those
    let wrong: Vec<_> = (0..40)
        .map(|n| {
            let name = format!("guess{n}");
            let (server, ca) = (format!("https://{}", house.api), house.path("data/ca.pem").display().to_string());
            let mut command = house.command("eve", &["login", "--server", &server, "--ca", &ca, "--name", &name, "--password-stdin"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let began = Instant::now();
    house.sign_in("ada", "ada", "a-long-password").await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for mut one in wrong {
        let _ = one.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trying_many_passwords_at_once_takes_no_more_memory_than_trying_two() {
    let house = House::open().await;
    let held = |key: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", house.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let url = format!("https://{}/api/v1/login", house.api);
    let wrong = async |wave: usize| {
        let tries = (0..20).map(|n| http.post(&url).json(&serde_json::json!({ "name": format!("guess{wave}x{n}"), "password": "not-the-password" })).send());
        for answer in futures_util::future::join_all(tries).await {
            // on a machine that has much else to do the line is long, and its end is shown out
            assert!(!answer.is_ok_and(|answer| answer.status().is_success()));
        }
    };
    wrong(0).await;
    let before = held("VmRSS");
    for wave in 1..=10 {
        wrong(wave).await;
    }
    let most = held("VmHWM");
    assert!(most < before + 32, "{before} MiB became {most}: each check takes 19");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_added_lets_nobody_in_before_its_database_is_known() {
    let house = House::open().await;
    for n in 0..6 {
        let name = format!("race{n}");
        house.server.database(&name).await.unwrap();
        // maria asks in the very moment in which it comes to be
        let asking = async {
            let deadline = Instant::now() + PATIENCE;
            while !house.daypass("maria", &["request", &name, "--reason", "the first", "--no-wait"]).await.status.success() {
                assert!(Instant::now() < deadline, "{}", house.log());
            }
        };
        tokio::join!(house.environment(&name, house.server.port), asking);
        house
            .until_json("maria", &["passes"], |passes| {
                passes.as_array().unwrap().iter().any(|pass| pass["environment"] == name.as_str() && pass["state"] == "ready")
            })
            .await;
    }
    let log = house.daypass("ada", &["log", "export"]).await;
    let mut known = std::collections::BTreeSet::new();
    let (mut of_pass, mut ready) = (std::collections::BTreeMap::new(), 0);
    for line in String::from_utf8_lossy(&log.stdout).lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let Some((kind, event)) = line["event"].as_object().and_then(|event| event.iter().next()) else { continue };
        match kind.as_str() {
            "database_identified" => drop(known.insert(event["environment"].to_string())),
            "pass_requested" => drop(of_pass.insert(event["pass"].to_string(), event["environment"].to_string())),
            "pass_ready" => {
                ready += 1;
                let environment = &of_pass[&event["pass"].to_string()];
                assert!(known.contains(environment), "a pass was ready before its database was known:\n{}", String::from_utf8_lossy(&log.stdout));
            }
            _ => {}
        }
    }
    assert_eq!(ready, 6);
}
