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

/// pg_hba.conf as the server's own administrators write it.
async fn lets_in(house: &House, lines: &str) {
    let local = "local all all trust\n";
    std::fs::write(house.server.path("data/pg_hba.conf"), format!("{local}{lines}")).unwrap();
    house.server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    // the server reads it when it gets to it
    house.until("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL", "0").await;
}

async fn add(house: &House, name: &str, more: &[&str]) -> (bool, String) {
    let (port, ca) = (house.server.port.to_string(), house.path("server-ca.pem").display().to_string());
    let known = ["env", "add", name, "--host", "localhost", "--port", &port, "--database", name, "--ca", &ca, "--password-stdin"];
    let output = house.daypass_with("ada", &[&known[..], more].concat(), "admin-secret").await;
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_tried_the_whole_way_before_it_is_stored() {
    let house = House::open().await;
    house.server.database("third").await.unwrap();
    let everybody = "hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n";
    let administrator = everybody.replace("all all", "all daypass_admin");
    let nothing_left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'jit\\_%' OR rolname LIKE 'daypass\\_%\\_read%'";
    let before = house.server.sql("postgres", nothing_left).await.unwrap();
    let trouble = [
        // the administrator gets in, and nobody else would
        ("", administrator.as_str(), "an account cannot log in from here", "28000"),
        ("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC", everybody, "does not reach the database postgres", "GRANT CONNECT ON DATABASE"),
        ("ALTER DATABASE third SET default_transaction_read_only = on", everybody, "an account cannot write", "25006"),
        ("REVOKE pg_signal_backend FROM daypass_admin", everybody, "the administrator may end sessions", "GRANT pg_signal_backend"),
        ("ALTER ROLE daypass_admin NOCREATEROLE", everybody, "the administrator may make roles", "CREATEROLE"),
    ];
    let mend = "GRANT CONNECT ON DATABASE postgres TO PUBLIC; ALTER DATABASE third RESET default_transaction_read_only; \
                GRANT pg_signal_backend TO daypass_admin; ALTER ROLE daypass_admin CREATEROLE";
    for (break_it, lines, what, remedy) in trouble {
        lets_in(&house, lines).await;
        house.server.sql("postgres", break_it).await.unwrap();
        let (added, said) = add(&house, "third", &[]).await;
        assert!(!added && said.contains("Nothing was stored") && said.contains(what) && said.contains(remedy), "{break_it}: {said}");
        house.server.sql("postgres", mend).await.unwrap();
        assert_eq!(house.server.sql("postgres", nothing_left).await.unwrap(), before, "{break_it}: {}", house.log());
    }
    let log = String::from_utf8_lossy(&house.daypass("vera", &["log", "export"]).await.stdout).into_owned();
    assert!(!log.contains("third"), "what was not stored stands in no log");
    lets_in(&house, everybody).await;
    let (added, said) = add(&house, "third", &[]).await;
    assert!(added && said.contains("lets people in"), "{said}");
    // a server that is away for now, for whoever knows it
    house.server.database("fourth").await.unwrap();
    lets_in(&house, &administrator).await;
    assert!(add(&house, "fourth", &["--untried"]).await.0);
    // and a request there says why it waits, while others are let in
    lets_in(&house, &administrator).await;
    house.json("maria", &["request", "fourth", "--reason", "a story", "--no-wait"]).await;
    house
        .until_json("maria", &["passes"], |passes| {
            let because = passes[0]["because"].as_str().unwrap_or_default();
            because.contains("cannot be made yet") && because.contains("28000") && because.contains("pg_hba.conf")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_says_what_people_would_not_see_and_leaves_nothing_behind() {
    for house in House::on_each_version().await {
        let owner = "SET ROLE uat_owner; ";
        let hidden = "CREATE TABLE sales.mine (who text); ALTER TABLE sales.mine ENABLE ROW LEVEL SECURITY; INSERT INTO sales.mine VALUES ('a')";
        house.server.sql("uat", &format!("{owner}{hidden}")).await.unwrap();
        house.server.sql("uat", "CREATE SCHEMA theirs; CREATE TABLE theirs.secret (a int); CREATE TABLE sales.of_the_superuser (a int)").await.unwrap();
        house.server.sql("uat", "SELECT lo_create(0)").await.unwrap();
        // its views belong to a superuser, to whom nobody should belong
        let extension = house.server.sql("uat", "CREATE EXTENSION pg_stat_statements").await.is_ok();
        let account = house.account("maria", "read", "1h").await;
        let output = house.daypass("ada", &["env", "test", "uat"]).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}\n{}", house.log());
        for sees in [
            "tables of which accounts see only the rows that row level security lets them see, perhaps none: sales.mine",
            "schemas that accounts cannot enter: theirs",
            "sales.of_the_superuser (of postgres)",
            "1 large objects that accounts cannot read",
            "read_write: an account can write (tried, and rolled back)",
            "an account logs in as people's sessions do",
            "the account is removed again",
            "the database belongs to uat_owner, and can be moved",
            "connections left for people",
        ] {
            assert!(said.contains(sees), "{sees}:\n{said}");
        }
        assert!(!said.contains("GRANT postgres") && !said.contains("GRANT \"postgres\""), "{said}");
        assert!(!extension || said.contains("pg_stat_statements 1."), "{said}");
        // nothing of it is left, on record, at the target, or in the way of whoever is in
        assert_eq!(house.accounts().await, std::slice::from_ref(&account.name));
        assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await.1, "400\n");
        assert!(!String::from_utf8_lossy(&house.daypass("vera", &["log", "export"]).await.stdout).contains("jit__test"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_from_an_account_or_gives_to_it_is_put_right() {
    for house in House::on_each_version().await {
        let account = house.account("maria", "read", "1h").await;
        let role = &account.name;
        let rights = format!(
            "SELECT string_agg(regexp_replace(g.rolname, '[0-9a-f]{{32}}', 'env'), ' ' ORDER BY 1) || ' ' || r.rolconnlimit || ' ' || r.rolcreatedb || r.rolcreaterole || r.rolbypassrls \
             FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname = '{role}' GROUP BY r.oid, 2, r.rolconnlimit, r.rolcreatedb, r.rolcreaterole, r.rolbypassrls"
        );
        let rights = rights.replace("GROUP BY r.oid, 2,", "GROUP BY r.oid,");
        let as_made = "daypass_env_read 30 falsefalsefalse";
        assert_eq!(house.server.sql("postgres", &rights).await.unwrap(), as_made);
        let group = house.server.sql("postgres", "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname LIKE 'jit%' LIMIT 1").await.unwrap();
        for meddled in [
            format!("REVOKE {group} FROM {role} CASCADE"),
            format!("ALTER ROLE {role} CONNECTION LIMIT 1"),
            format!("SET ROLE daypass_admin; ALTER ROLE {role} CREATEROLE"),
            format!("ALTER ROLE {role} VALID UNTIL 'infinity'"),
        ] {
            // the administrator of 13 to 15 may take any grant; a later one only its own
            house.server.sql("postgres", &meddled).await.unwrap();
            house.until(&rights, as_made).await;
            house.until(&format!("SELECT isfinite(rolvaliduntil) FROM pg_roles WHERE rolname = '{role}'"), "t").await;
            assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await.1, "400\n", "{meddled}");
        }
        // what cannot be taken again is told
        house.server.sql("postgres", &format!("ALTER ROLE {role} SUPERUSER")).await.unwrap();
        let deadline = std::time::Instant::now() + crate::house::PATIENCE;
        loop {
            let found = String::from_utf8(house.daypass("ada", &["doctor"]).await.stdout).unwrap();
            if found.contains(role.as_str()) && found.to_lowercase().contains("superuser") || found.contains("permission denied to alter role") {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{found}");
        }
        house.server.sql("postgres", &format!("ALTER ROLE {role} NOSUPERUSER")).await.unwrap();
        house.until(&rights, as_made).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_accounts_get_their_rights_is_changed_for_those_that_are_there() {
    for house in House::on_each_version().await {
        // an administrator that may give the server's own roles, as it has to on 16 and later
        house.server.sql("postgres", "GRANT pg_read_all_data, pg_write_all_data TO daypass_admin WITH ADMIN OPTION").await.unwrap();
        let account = house.account("maria", "read", "1h").await;
        let predefined = format!(
            "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname = '{}' AND g.rolname = 'pg_read_all_data'",
            account.name
        );
        house.json("ada", &["env", "set", "uat", "--grants", "predefined", "--heir", "uat_owner"]).await;
        house.until(&predefined, "1").await;
        house.json("ada", &["env", "set", "uat", "--grants", "granted"]).await;
        house.until(&predefined, "0").await;
        assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await.1, "400\n");
        assert_eq!(house.refused("sam", &["env", "set", "uat", "--no-heir"]).await.0, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_applied_and_what_is_changed_in_it_is_changed() {
    let house = House::open().await;
    let file = house.path("daypass.yaml");
    let export = async || String::from_utf8(house.daypass("ada", &["export"]).await.stdout).unwrap();
    let apply = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = house.daypass("ada", &["apply", "-f", &file.display().to_string(), "--yes"]).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let before = export().await;
    assert!(apply(&before).await.contains("Nothing to do"), "{before}");
    std::fs::write(house.path("secret"), "admin-secret\n").unwrap();
    let account = house.account("maria", "read", "1h").await;
    let after = before
        .replace("kind: self-service", "kind: managed")
        .replace("grants: granted", "grants: granted\n    heir: uat_owner\n    password_file: secret")
        .replace("host: localhost", "host: 127.0.0.1");
    let said = apply(&after).await;
    assert!(
        said.contains("~ server of") && said.contains("(host)") && said.contains("~ uat is managed") && said.contains("~ accounts of uat (heir)"),
        "{said}"
    );
    assert_eq!(export().await, after.replace("\n    password_file: secret", ""), "it is as the file says");
    assert!(apply(&after).await.contains("Nothing to do"));
    assert_eq!(house.psql(&account, "SELECT count(*) FROM sales.orders").await.1, "400\n", "nobody was put out");
    // and a file that says what does not work changes nothing
    let wrong = after.replace("host: 127.0.0.1", "host: nowhere.invalid");
    std::fs::write(&file, &wrong).unwrap();
    let output = house.daypass("ada", &["apply", "-f", &file.display().to_string(), "--yes"]).await;
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Nothing was changed"), "{output:?}");
    assert_eq!(export().await, after.replace("\n    password_file: secret", ""));
    let preview = house.daypass("ada", &["policy", "uat", "--preview", "maria", "--access", "read_write"]).await;
    assert!(preview.status.success() && String::from_utf8_lossy(&preview.stdout).contains("gets in at once"), "{preview:?}");
}
