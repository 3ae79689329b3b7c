//! "The account that everybody shares becomes mine."

use crate::house::{Account, House};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

const SECRET: &str = "canary-standing-secret";

async fn managed(role: &str) -> (House, std::process::Output) {
    let house = House::open().await;
    house
        .server
        .sql(
            "uat",
            &format!("{role}; GRANT CONNECT ON DATABASE uat TO erp_app; GRANT USAGE ON SCHEMA sales TO erp_app; GRANT SELECT ON sales.orders TO erp_app"),
        )
        .await
        .unwrap();
    assert!(house.daypass("ada", &["env", "kind", "uat", "managed"]).await.status.success());
    let added = house.daypass_with("ada", &["standing", "add", "uat", "erp_app", "--password-stdin"], SECRET).await;
    (house, added)
}

/// Maria uses the shared account through the gateway, and gives it another password from inside.
async fn with_a_password_of_mine(house: &House) -> (Account, tokio_postgres::Client) {
    house.json("maria", &["allow", "uat"]).await;
    let way = house.json("maria", &["request", "uat", "--access", "read_write", "--standing", "erp_app", "--reason", "a repair"]).await;
    let account = Account { name: way["account"].as_str().unwrap().into(), password: way["password"].as_str().unwrap().into(), ends_at: String::new() };
    let (client, _) = house.client(&account).await.unwrap();
    client.batch_execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'").await.unwrap();
    (account, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn i_give_the_shared_account_a_password_of_mine_and_come_back_by_myself() {
    let (house, added) = managed(&format!("CREATE ROLE erp_app LOGIN PASSWORD '{SECRET}'; GRANT erp_app TO daypass_admin WITH ADMIN OPTION")).await;
    assert!(added.status.success(), "{added:?}");
    let (account, client) = with_a_password_of_mine(&house).await;
    let mut past = house.psql_past_command("erp_app", "mine", "SELECT pg_sleep(600)").spawn().unwrap();
    // it is noticed while I am in: the password is the vault's again, and who came in by mine is out
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'erp_app' AND application_name !~ 'daypass'";
    house.until(ours, "0").await;
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    while house.psql_past("erp_app", "mine", "SELECT 1").await.0 {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    assert!(client.query_one("SELECT 1", &[]).await.is_ok(), "my session through the gateway is not touched");
    // and again just before I leave
    // it may be that it is being put back in this very moment
    while client.batch_execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'").await.is_err() {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    while house.psql_past("erp_app", "mine", "SELECT 1").await.0 {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    // it is shut until nobody is on the way in any more; then the vault's is the one that works
    while !house.psql_past("erp_app", SECRET, "SELECT 1").await.0 {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    assert!(!house.psql_past("erp_app", "mine", "SELECT 1").await.0);
    let _ = past.kill().await;
    let doctor = house.daypass("ada", &["doctor"]).await;
    assert!(format!("{doctor:?}").contains("somebody set another password for erp_app"), "{doctor:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i_change_the_shared_password_in_a_loop_from_sixteen_places_and_one_that_is_prepared() {
    let (house, added) = managed(&format!("CREATE ROLE erp_app LOGIN PASSWORD '{SECRET}'; GRANT erp_app TO daypass_admin WITH ADMIN OPTION")).await;
    assert!(added.status.success(), "{added:?}");
    let (account, client) = with_a_password_of_mine(&house).await;
    let looping = "DO $$ BEGIN LOOP BEGIN ALTER ROLE CURRENT_USER PASSWORD 'mine'; EXCEPTION WHEN OTHERS THEN NULL; END; COMMIT; END LOOP; END $$";
    let mut loops: Vec<_> = (0..16).map(|_| house.psql_past_command("erp_app", "mine", looping).spawn().unwrap()).collect();
    let _ = client.batch_execute("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'other'; PREPARE TRANSACTION 'mine'").await;
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    let theirs = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'erp_app' AND application_name !~ 'daypass'";
    house.until(theirs, "0").await;
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    while !house.psql_past("erp_app", SECRET, "SELECT 1").await.0 {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    assert!(!house.psql_past("erp_app", "mine", "SELECT 1").await.0);
    house.until(theirs, "0").await;
    for one in &mut loops {
        let _ = one.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i_change_the_shared_password_all_the_time_and_come_again_whenever_i_am_put_out() {
    let (house, added) = managed(&format!("CREATE ROLE erp_app LOGIN PASSWORD '{SECRET}'; GRANT erp_app TO daypass_admin WITH ADMIN OPTION")).await;
    assert!(added.status.success(), "{added:?}");
    let (account, client) = with_a_password_of_mine(&house).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(crate::house::tls(&house.path("server-ca.pem")));
    let knock = |tls: tokio_postgres_rustls::MakeRustlsConnect, stop: Arc<AtomicBool>, port: u16| async move {
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").port(port).user("erp_app").password("mine").dbname("uat").ssl_mode(tokio_postgres::config::SslMode::Require);
        while !stop.load(Relaxed) {
            let Ok((client, connection)) = config.connect(tls.clone()).await else { continue };
            tokio::spawn(connection);
            while !stop.load(Relaxed) && !client.is_closed() {
                let _ = client.batch_execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'; SELECT pg_sleep(0.002)").await;
            }
        }
    };
    let attackers: Vec<_> = (0..12).map(|_| tokio::spawn(knock(tls.clone(), stop.clone(), house.server.port))).collect();
    let theirs = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'erp_app' AND application_name !~ 'daypass'";
    // at times they are all out: the account is taken back while maria is still in
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    while house.server.sql("postgres", theirs).await.unwrap() == "0" {
        let _ = client.batch_execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'").await;
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    let _ = client.batch_execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'").await;
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    // they go on knocking, and nobody of them is in
    house.until(theirs, "0").await;
    while !house.psql_past("erp_app", SECRET, "SELECT 1").await.0 {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    for _ in 0..20 {
        assert!(!house.psql_past("erp_app", "mine", "SELECT 1").await.0, "{}", house.log());
    }
    stop.store(true, Relaxed);
    for one in attackers {
        one.await.unwrap();
    }
    assert!(house.psql_past("erp_app", SECRET, "SELECT 1").await.0, "the vault's is the one that works");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_outranks_the_administrator_is_not_lent() {
    let (_house, added) = managed(&format!("CREATE ROLE erp_app LOGIN SUPERUSER PASSWORD '{SECRET}'")).await;
    let said = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(!added.status.success() && said.contains("superuser") && said.contains("could not be ended"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i_close_the_database_that_i_own_around_a_transaction_that_holds_my_role() {
    // the shared account owns the database of the environment
    let (house, added) = managed(&format!(
        "CREATE ROLE erp_app LOGIN PASSWORD '{SECRET}'; GRANT erp_app TO daypass_admin WITH ADMIN OPTION; ALTER DATABASE uat OWNER TO erp_app"
    ))
    .await;
    assert!(added.status.success(), "{added:?}");
    let (account, client) = with_a_password_of_mine(&house).await;
    client.batch_execute("ALTER DATABASE uat CONNECTION LIMIT 0").await.unwrap();
    // when it is being put back in this very moment, it takes another try
    while client.batch_execute("BEGIN; ALTER ROLE erp_app PASSWORD 'mine'; PREPARE TRANSACTION 'p'").await.is_err() {
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    house.json("sam", &["end", &account.name, "--reason", "enough"]).await;
    // it is rolled back in there all the same, what the owner said of the database stays, and only the vault's password opens
    house.until("SELECT count(*) FROM pg_prepared_xacts", "0").await;
    let deadline = std::time::Instant::now() + crate::house::PATIENCE;
    let past = |password: &'static str| {
        let way = format!("host=127.0.0.1 port={} dbname=postgres user=erp_app sslmode=require connect_timeout=5", house.server.port);
        let mut command = tokio::process::Command::new(house.server.psql());
        command.args([way.as_str(), "-X", "-A", "-t", "-c", "SELECT 1"]).env("PGPASSWORD", password).stdin(std::process::Stdio::null());
        async move { command.output().await.unwrap().status.success() }
    };
    while past("mine").await || !past(SECRET).await {
        assert!(std::time::Instant::now() < deadline, "{}", house.log());
    }
    house.until("SELECT datconnlimit FROM pg_database WHERE datname = 'uat'", "0").await;
}
