//! Starting: what is wrong is said in a sentence, and nothing half-made is left.

use crate::house::{House, PROGRAM};
use daypass_testkit::certificates::Certificates;
use std::process::Stdio;

async fn serve(house: &House, more: &[(&str, &str)]) -> (i32, String) {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["serve", "--config"]).arg(house.path("daypass.toml")).envs(more.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(crate::house::PATIENCE, command.output()).await.expect("it does not start").unwrap();
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
    for file in ["data/master.key", "data/first-password", "maria/sign-in.json"] {
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
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    while !trusts(&second.ca).await {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    assert!(!trusts(&first.ca).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_tells_its_sessions_and_ends() {
    let house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    let (_client, connection) = house.client(&account).await.unwrap();
    let pid = rustix::process::Pid::from_raw(house.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let error = tokio::time::timeout(crate::house::PATIENCE, connection).await.unwrap().unwrap().unwrap_err();
    assert!(error.as_db_error().is_some_and(|e| e.message().contains("Daypass is stopping")), "{error:?}");
}
