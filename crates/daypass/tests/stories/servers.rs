//! The servers behind environments: known once, changed only by what works.

use crate::house::House;
use daypass_testkit::postgres::Postgres;

#[tokio::test(flavor = "multi_thread")]
async fn adding_an_environment_changes_nothing_about_the_others_on_its_server() {
    let house = House::open().await;
    house.server.database("third").await.unwrap();
    let account = house.account("maria", "read", "1h").await;
    let port = house.server.port.to_string();
    let ca = house.path("server-ca.pem").display().to_string();
    let add = ["env", "add", "third", "--host", "localhost", "--port", &port, "--database", "third", "--password-stdin"];
    for (more, password) in
        [(&["--ca", ca.as_str()][..], "a-typo"), (&["--without-tls"], "admin-secret"), (&["--ca", &ca, "--admin", "another"], "admin-secret")]
    {
        let output = house.daypass_with("ada", &[&add[..], more].concat(), password).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("is known already") && said.contains("daypass env set"), "{more:?}: {said}");
    }
    // who was reached is reached, as before
    assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await.1, "400\n");
    house.account("ben", "read", "1h").await;
    let output = house.daypass_with("ada", &[&add[..], &["--ca", &ca]].concat(), "admin-secret").await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_server_is_reached_is_changed_by_what_works_and_by_nothing_else() {
    let house = House::open().await;
    let other = Postgres::start().await.unwrap();
    other.administrator().await.unwrap();
    other.database("uat").await.unwrap();
    other.database("golden").await.unwrap();
    let (elsewhere, theirs) = (other.port.to_string(), house.path("other-ca.pem"));
    std::fs::write(&theirs, &other.ca).unwrap();
    let theirs = theirs.display().to_string();
    let before = house.daypass("vera", &["log", "export"]).await.stdout;
    for (more, password, words) in [
        (&["--password-stdin"][..], "a-typo", "Nothing was changed"),
        (&["--port", "1", "--password-stdin"], "admin-secret", "Nothing was changed"),
        (&["--port", "0", "--password-stdin"], "admin-secret", "1 to 65535"),
        (&["--ca", &theirs, "--password-stdin"], "admin-secret", "Nothing was changed"),
        (&["--tls", "strict", "--password-stdin"], "admin-secret", "mode of SQL Server"),
        // a password that is kept is shown to no other server, and to nobody who listens
        (&["--port", &elsewhere], "", "give its administrator's password"),
        (&["--tls", "off"], "", "give its administrator's password"),
        // a server that works, with another database of that name
        (&["--port", &elsewhere, "--ca", &theirs, "--password-stdin"], "admin-secret", "is not the one that"),
    ] {
        let output = house.daypass_with("ada", &[&["env", "set", "uat"], more].concat(), password).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{more:?}: {said}");
    }
    assert_eq!(house.refused("sam", &["env", "set", "uat", "--admin", "mine"]).await.0, 3, "a manager sets up no servers");
    let kinds = |log: &[u8]| String::from_utf8_lossy(log).matches("target_changed").count();
    assert_eq!((kinds(&before), kinds(&house.daypass("vera", &["log", "export"]).await.stdout)), (0, 0), "what did not work stands in no log");
    // the administrator's password is changed on the server, and here
    house.server.sql("postgres", "ALTER ROLE daypass_admin PASSWORD 'the-next-one'").await.unwrap();
    let output = house.daypass_with("ada", &["env", "set", "uat", "--password-stdin"], "the-next-one").await;
    assert!(output.status.success(), "{output:?}");
    house.server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'daypass_admin'").await.unwrap();
    for (person, environment) in [("maria", "uat"), ("ben", "golden")] {
        let asked = house.json(person, &["request", environment, "--reason", "a story"]).await;
        assert!(asked["account"].as_str().is_some_and(|name| name.starts_with("jit_")), "{asked}");
    }
    assert_eq!(kinds(&house.daypass("vera", &["log", "export"]).await.stdout), 1);
}
