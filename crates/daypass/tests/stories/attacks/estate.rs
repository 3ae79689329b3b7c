//! "I leave something behind that works for me when I am gone."

use crate::house::House;

/// The way in that I leave: it runs what I say with the rights of whoever owns it.
const BACK_DOOR: &str =
    "CREATE FUNCTION sales.maintenance(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN EXECUTE q; RETURN 'done'; END $$;";
/// Nobody has to call it: whoever looks after the table runs it.
const SELF_STARTING: &str = "CREATE TABLE sales.notes (a int); INSERT INTO sales.notes SELECT generate_series(1, 1000); \
     CREATE FUNCTION sales.norm(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a'; CREATE INDEX ON sales.notes (sales.norm(a)); \
     CREATE OR REPLACE FUNCTION sales.norm(a int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN EXECUTE 'CREATE ROLE back_door LOGIN SUPERUSER'; RETURN a; END $$;";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_which_everybody_may_create_lets_nobody_in_before_that_is_closed() {
    let house = House::open().await;
    // as every database has it that was born on 14 or before
    house.server.sql("uat", "GRANT CREATE ON SCHEMA public TO PUBLIC").await.unwrap();
    house.json("maria", &["allow", "uat"]).await;
    let mut asking = house.command("maria", &["request", "uat", "--reason", "a look"]).spawn().unwrap();
    let waits = house.until_json("maria", &["passes"], |passes| passes[0]["because"].as_str().is_some_and(|why| why.contains("REVOKE CREATE"))).await;
    assert!(waits[0]["because"].as_str().unwrap().contains("REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "{waits}");
    assert!(house.accounts().await.is_empty());
    let test = house.daypass("ada", &["env", "test", "uat"]).await;
    assert!(format!("{test:?}").contains("REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "{test:?}");
    // whoever does what it says is let in at once
    house.server.sql("uat", "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await.unwrap();
    house.until_json("maria", &["passes"], |passes| passes[0]["state"] == "ready").await;
    let _ = asking.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_i_made_runs_for_nobody_with_more_rights_than_i_had() {
    for house in House::on_each_version().await {
        // the database belongs to a superuser, to whom the administrator does not belong
        house.server.sql("postgres", "ALTER DATABASE uat OWNER TO postgres").await.unwrap();
        let mine = house.account("maria", "read", "1h").await;
        // somebody was kind enough
        house.server.sql("uat", &format!("GRANT CREATE ON SCHEMA sales TO {}", mine.name)).await.unwrap();
        let planted = house.psql(&mine, &format!("{BACK_DOOR} {SELF_STARTING}")).await;
        assert!(planted.0, "{planted:?}");
        house.json("maria", &["end", &mine.name]).await;
        house.until_no_accounts().await;
        let fresh = house.account_only("maria", "read", "1h").await;
        let used = house.psql(&fresh, "SELECT sales.maintenance('DELETE FROM sales.orders')").await;
        assert!(!used.0 && used.1.contains("does not exist"), "{used:?}");
        assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
        // the table is there, and whoever looks after it runs nothing of mine
        assert_eq!(house.server.sql("uat", "ANALYZE sales.notes; SELECT count(*) FROM sales.notes").await.unwrap(), "1000");
        assert_eq!(house.server.sql("uat", "SELECT count(*) FROM pg_roles WHERE rolname = 'back_door'").await.unwrap(), "0");
        let owner = house.server.sql("uat", "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'notes'").await.unwrap();
        assert!(owner.ends_with("_estate"), "{owner}");
        // the text is on record, so that I can make it again as myself
        let passes = house.json("maria", &["passes", "--all"]).await;
        assert!(passes.to_string().contains("SECURITY DEFINER") && passes.to_string().contains("EXECUTE q"), "{passes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_i_make_as_the_group_is_nobodys_for_long() {
    let house = House::open().await;
    let mine = house.account("maria", "read_write", "1h").await;
    let group = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'daypass\\_%\\_read\\_write' AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles j ON j.oid = m.member \
                 WHERE m.roleid = pg_roles.oid AND j.rolname LIKE 'jit%')";
    let group = house.server.sql("postgres", group).await.unwrap();
    let sleeper = format!("SET ROLE {group}; BEGIN; UPDATE sales.orders SET amount = 0; LOCK TABLE sales.orders; PREPARE TRANSACTION 'sleeper'");
    let planted = house.psql(&mine, &sleeper).await;
    // from 16 on a member does not become the group at all
    if house.server.sql("postgres", "SELECT current_setting('server_version_num')::int >= 160000").await.unwrap() == "t" {
        assert!(!planted.0 && planted.1.contains("permission denied to set role"), "{planted:?}");
        return;
    }
    assert!(planted.0, "{planted:?}");
    house.json("maria", &["end", &mine.name]).await;
    house.until_no_accounts().await;
    house.until("SELECT count(*) FROM pg_prepared_xacts", "0").await;
    assert_eq!(house.server.sql("uat", "SELECT count(*) FROM sales.orders WHERE amount = 0").await.unwrap(), "0");
    let log = house.daypass("vera", &["log", "find", "--env", "uat"]).await;
    assert!(String::from_utf8_lossy(&log.stdout).contains("sleeper"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_i_leave_others_end_in_time() {
    let house = House::open().await;
    let mine = house.account("maria", "read", "1h").await;
    let made = house.psql(&mine, "SELECT count(lo_create(0)) FROM generate_series(1, 60000)").await;
    assert!(made.0, "{made:?}");
    let other = house.account("ben", "read", "1h").await;
    let mut running = house.psql_command(&other, "uat", "", "SELECT pg_sleep(300)").spawn().unwrap();
    let busy = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", other.name);
    house.until(&busy, "1").await;
    house.json("maria", &["end", &mine.name]).await;
    let began = std::time::Instant::now();
    house.json("ben", &["end", &other.name]).await;
    house.until(&busy, "0").await;
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    let _ = running.kill().await;
    // and mine goes as well, in the time that it takes
    house.until_json("maria", &["passes", "--all"], |passes| passes[0]["state"] == "ended").await;
    let passes = house.json("maria", &["passes", "--all"]).await;
    assert!(passes.to_string().contains("60000 large objects"), "{passes}");
}

/// What an owner may say of a database, for everybody who connects there.
const SAID: [&str; 9] = [
    "SET role = 'uat_owner'",
    "SET standard_conforming_strings = off",
    "SET default_transaction_read_only = on",
    "SET exit_on_error = on",
    "SET local_preload_libraries = 'nonsense'",
    "SET DateStyle = 'German'",
    "SET idle_session_timeout = '1ms'",
    "SET transaction_timeout = '1ms'",
    "CONNECTION LIMIT 0",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_i_say_of_the_database_that_i_own_keeps_nothing_of_an_account() {
    for house in House::on_each_version().await {
        house.json("maria", &["allow", "uat"]).await;
        let version: u32 = house.server.sql("postgres", "SELECT current_setting('server_version_num')").await.unwrap().parse().unwrap();
        let closed = "REVOKE CONNECT ON DATABASE uat FROM PUBLIC, daypass_admin, uat_owner CASCADE";
        let said = SAID.iter().map(|said| format!("ALTER DATABASE uat {said}")).chain([closed.to_owned()]);
        for said in said.filter(|said| version >= 170_000 || !said.contains("transaction_timeout")) {
            let account = house.account_only("maria", "read", "1h").await;
            let name = &account.name;
            let code =
                format!("CREATE FUNCTION public.left_there() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION public.left_there() OWNER TO {name}");
            house.server.sql("uat", &code).await.unwrap();
            house.server.sql("postgres", &said).await.unwrap();
            house.json("sam", &["end", name, "--reason", "enough"]).await;
            house.until_no_accounts().await;
            house.server.sql("postgres", "ALTER DATABASE uat RESET ALL").await.unwrap();
            let limit = house.server.sql("postgres", "SELECT datconnlimit FROM pg_database WHERE datname = 'uat'").await.unwrap();
            assert_eq!(limit == "0", said.ends_with("LIMIT 0"), "what its owner said of it stays: {said}");
            house.server.sql("postgres", "ALTER DATABASE uat CONNECTION LIMIT -1; GRANT CONNECT ON DATABASE uat TO PUBLIC").await.unwrap();
            assert_eq!(house.server.sql("uat", "SELECT count(*) FROM pg_proc WHERE proname = 'left_there'").await.unwrap(), "0", "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_i_give_to_anothers_account_keeps_no_movement_waiting_and_opens_nothing_later() {
    for house in House::on_each_version().await {
        let other = house.account("ben", "read", "1h").await;
        house.json("maria", &["allow", "golden"]).await;
        let way = house.json("maria", &["request", "golden", "--access", "read", "--life", "1h", "--reason", "a story"]).await;
        let text = |key: &str| way[key].as_str().unwrap().to_owned();
        let mine = crate::house::Account { name: text("account"), password: text("password"), ends_at: text("ends_at") };
        // read only, and in another environment on the same server
        let gives = format!(
            "SELECT lo_create(4242); SELECT lo_from_bytea(4243, 'mine'); GRANT ALL ON LARGE OBJECT 4242, 4243 TO {0}; GRANT ALL ON LARGE OBJECT 4243 TO PUBLIC; \
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {0}",
            other.name
        );
        let given = house.psql_to(&mine, "golden", "", &gives).await;
        assert!(given.0, "{given:?}");
        // and once more in a transaction that is left open
        let open = format!("SELECT lo_create(4244); GRANT SELECT ON LARGE OBJECT 4244 TO {}; SELECT pg_sleep(600)", other.name);
        let mut open = house.psql_command(&mine, "golden", "", &open).spawn().unwrap();
        house.until(&format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event = 'PgSleep'", mine.name), "1").await;
        house.json("ben", &["end", &other.name]).await;
        house.until(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{}'", other.name), "0").await;
        let _ = open.kill().await;
        // mine goes on, and the administrator did not stay a member of it
        assert_eq!(house.psql_to(&mine, "golden", "", "SELECT count(*) FROM sales.orders").await, (true, "400\n".to_owned()));
        let members = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname = 'daypass_admin' AND g.rolname LIKE 'jit%'";
        let before_16 = house.server.sql("postgres", "SELECT current_setting('server_version_num')::int < 160000").await.unwrap() == "t";
        if before_16 {
            assert_eq!(house.server.sql("postgres", members).await.unwrap(), "0");
        }
        // and what was open to everybody is so no more when I am gone
        house.json("maria", &["end", &mine.name]).await;
        house.until_no_accounts().await;
        let open = "SELECT count(*) FROM pg_largeobject_metadata m, aclexplode(m.lomacl) x WHERE x.grantee <> m.lomowner";
        assert_eq!(house.server.sql("golden", open).await.unwrap(), "0");
    }
}
