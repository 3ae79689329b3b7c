//! The database is replaced behind our back: noticed within seconds, or by the next one who logs in. What is no replacement ends nothing.

use crate::house::{Account, House, PATIENCE};
use std::time::{Duration, Instant};

/// From the moment that it is there to the moment that the pass is known to be over; the bar is 5 s on a quiet machine.
async fn noticed(house: &House, since: Instant) {
    let over = |passes: &serde_json::Value| passes[0]["because"].as_str().is_some_and(|why| why.contains("the database was replaced"));
    house.until_json("maria", &["passes", "--all"], over).await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    println!("noticed after {took:?}");
    house.until_no_accounts().await;
}

/// Nothing ended: the account works, and goes on working after the keeper has looked again.
async fn same(house: &House, account: &Account) {
    let looks = Instant::now() + Duration::from_secs(7);
    while Instant::now() < looks {
        let deadline = Instant::now() + PATIENCE;
        // the server may be coming up
        while !house.psql(account, "SELECT 1").await.0 {
            assert!(Instant::now() < deadline, "{}\n{}", house.psql(account, "SELECT 1").await.1, house.log());
        }
    }
    assert_eq!(house.json("maria", &["passes"]).await[0]["state"], "ready");
    assert!(!house.daypass("vera", &["log", "find", "--kind", "movements"]).await.stdout.windows(8).any(|words| words == b"replaced"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_dropped_or_renamed_lets_the_next_login_in_nowhere() {
    let house = House::open().await;
    for how in [
        &["DROP DATABASE uat WITH (FORCE)", "CREATE DATABASE uat TEMPLATE golden OWNER uat_owner"][..],
        &["ALTER DATABASE uat RENAME TO was_uat", "CREATE DATABASE uat TEMPLATE golden OWNER uat_owner"][..],
    ] {
        let account = house.account("maria", "read", "1h").await;
        assert!(house.psql(&account, "SELECT 1").await.0);
        // the account is still there, and may connect, when the database is another one already
        house.server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'uat'").await.unwrap();
        for sql in how {
            house.server.sql("postgres", sql).await.unwrap();
        }
        let since = Instant::now();
        let grants = format!("GRANT CONNECT ON DATABASE uat TO daypass_admin WITH GRANT OPTION; GRANT CONNECT ON DATABASE uat TO {}", account.name);
        house.server.sql("postgres", &grants).await.unwrap();
        let (ok, said) = house.psql(&account, "SELECT 1").await;
        assert!(!ok && said.contains("was replaced"), "{said}");
        noticed(&house, since).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_at_the_same_place_and_one_put_back_to_an_earlier_moment_are_replacements() {
    let mut house = House::open().await;
    let snapshot = house.server.path("snapshot");
    let account = house.account("maria", "read", "1h").await;
    assert!(house.psql(&account, "SELECT 1").await.0);
    house.server.snapshot(&snapshot).await.unwrap();
    // something happens, is seen, and is gone again
    house.server.sql("uat", "CREATE TABLE sales.later AS SELECT generate_series(1, 10000)").await.unwrap();
    same(&house, &account).await;
    house.server.put_back(&snapshot).await.unwrap();
    let since = Instant::now();
    noticed(&house, since).await;

    let account = house.account("maria", "read", "1h").await;
    assert!(house.psql(&account, "SELECT 1").await.0);
    // another cluster altogether, with a database and an administrator of the same names
    let other = daypass_testkit::postgres::Postgres::start().await.unwrap();
    other.administrator().await.unwrap();
    for database in ["golden", "uat"] {
        other.database(database).await.unwrap();
    }
    house.server.take_the_place_of(other).await.unwrap();
    noticed(&house, Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_inside_a_copy_that_others_made_loses_its_rights() {
    let house = House::open().await;
    house.json("ben", &["allow", "golden"]).await;
    let his = house.json("ben", &["request", "golden", "--reason", "a story", "--access", "read_write"]).await;
    let his = his["account"].as_str().unwrap().to_owned();
    house.server.sql("golden", &format!("GRANT USAGE ON SCHEMA sales TO {his}; GRANT SELECT ON sales.orders TO {his}")).await.unwrap();
    let account = house.account("maria", "read", "1h").await;
    for sql in ["DROP DATABASE uat WITH (FORCE)", "CREATE DATABASE uat TEMPLATE golden OWNER uat_owner"] {
        house.server.sql("postgres", sql).await.unwrap();
    }
    // the objects of a copy belong to whom they belonged; a sweep needs the right of their owner
    noticed_but(&house, &his).await;
    let marked = "SELECT count(*) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass \
                  WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = 'uat') AND r.rolname = ";
    house.until(&format!("{marked}'{his}'"), "0").await;
    let log = house.daypass("vera", &["log", "find", "--env", "uat"]).await;
    assert!(String::from_utf8_lossy(&log.stdout).contains("what belongs to other environments"), "{log:?}");
    assert!(!house.psql(&account, "SELECT 1").await.0);
    assert_eq!(house.server.sql("golden", &format!("SELECT has_table_privilege('{his}', 'sales.orders', 'SELECT')")).await.unwrap(), "t");
}

/// The replacement is noticed, and this account of another environment stays.
async fn noticed_but(house: &House, stays: &str) {
    let over = |passes: &serde_json::Value| passes[0]["because"].as_str().is_some_and(|why| why.contains("the database was replaced"));
    house.until_json("maria", &["passes", "--all"], over).await;
    assert_eq!(house.accounts().await.iter().filter(|account| *account == stays).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_a_restart_and_a_replica_that_takes_over_are_the_same_database() {
    let mut house = House::open().await;
    let account = house.account("maria", "read", "1h").await;
    assert!(house.psql(&account, "SELECT 1").await.0);
    house.server.sql("uat", "VACUUM FULL sales.orders").await.unwrap();
    house.server.sql("uat", "VACUUM FREEZE").await.unwrap();
    // as a minor upgrade does it
    house.server.stop().await;
    house.server.boot().await.unwrap();
    same(&house, &account).await;
    let follower = house.server.follower().await.unwrap();
    let wanted = house.server.sql("postgres", "SELECT pg_current_wal_lsn()").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while follower.sql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{wanted}'")).await.unwrap() != "t" {
        assert!(Instant::now() < deadline, "the replica does not follow");
    }
    house.server.fail_over_to(follower).await.unwrap();
    same(&house, &account).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lacks_the_last_moments_is_a_replacement_unless_it_was_expected() {
    let lost = "CREATE TABLE lost AS SELECT generate_series(1, 10000)";
    for expected in [false, true] {
        let mut house = House::open().await;
        let account = house.account("maria", "read", "1h").await;
        assert!(house.psql(&account, "SELECT 1").await.0);
        if expected {
            for environment in ["uat", "golden"] {
                assert!(house.daypass("ada", &["env", "expect-failover", environment]).await.status.success());
            }
        }
        let mut follower = house.server.follower().await.unwrap();
        follower.stop().await;
        house.server.sql("postgres", lost).await.unwrap();
        // what nobody saw is missed by nobody: the keeper has looked since
        let wanted: u64 = house.server.sql("postgres", "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").await.unwrap().parse().unwrap();
        let seen = || std::fs::read(house.path("data/positions.json")).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        house.until_so("the keeper has looked", || seen().is_some_and(|seen| seen.as_object().unwrap().values().all(|at| at.as_u64() >= Some(wanted)))).await;
        house.server.fail_over_to(follower).await.unwrap();
        if expected {
            same(&house, &account).await;
        } else {
            noticed(&house, Instant::now()).await;
        }
    }
}
