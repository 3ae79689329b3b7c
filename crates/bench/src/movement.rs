//! A refresh through Daypass beside `pg_dump | pg_restore` by hand, one after the other in the same run; and the server's own copy,
//! which Daypass takes when nobody is connected to the source; and how long people are out of the door.
//! `DAYPASS_BENCH_GIGABYTES` (1) says how large the source is: the bar is
//! about 10, which needs 35 GB of disk.

use crate::{
    api::Api,
    report::{Report, median},
    sessions::connect,
    stage::{Way, account, daypass, rss_kib, settle},
};
use anyhow::{Context, Result, ensure};
use daypass_testkit::postgres::Postgres;
use serde_json::{Value, json};
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// Rows of one table of a gigabyte: 8 bytes of key, 8 of number and 490 of text that nothing compresses.
const ROWS_PER_GIGABYTE: u64 = 2_000_000;

pub async fn measure(report: &mut Report, rounds: u64, gigabytes: u64) -> Result<()> {
    let postgres = Postgres::start().await?;
    postgres.administrator().await?;
    let directory = std::env::temp_dir().join(format!("daypass-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    for database in ["golden", "uat"] {
        postgres.database(database).await?;
    }
    fill(&postgres, gigabytes).await?;
    postgres.sql("postgres", "CREATE ROLE hand LOGIN SUPERUSER PASSWORD 'hand-secret'").await?;
    let size: f64 = postgres.sql("postgres", "SELECT pg_database_size('golden')").await?.parse()?;
    let (mut child, api_port, gateway, _) = daypass(&directory).await?;
    let environments = ["golden", "uat"].map(|name| {
        json!({ "name": name, "project": "main", "engine": "postgres", "host": "127.0.0.1", "port": postgres.port, "database": name,
                "admin": "daypass_admin", "password": "admin-secret", "ca": postgres.ca })
    });
    let (maria, manager) = settle(&directory, api_port, environments.to_vec()).await?;
    let ca = directory.join("data/ca.pem");

    report.title(&format!("a refresh of {:.1} GB, {rounds} rounds, one after the other", size / 1e9));
    let (mut by_hand, mut through, mut beside, mut held, mut door) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let before = rss_kib(child.id().unwrap_or_default());
    for _ in 0..rounds {
        by_hand.push(hand(&postgres, &directory).await?);
        // somebody at work in the source, so that the server does not copy it by itself
        let dumps = times_dumped(&directory)?;
        let working = session(&postgres).await?;
        let (seconds, most, _) = refresh(&manager, &child).await?;
        ensure!(times_dumped(&directory)? == dumps + 1, "the server copied the database by itself: pg_dump was not measured");
        through.push(seconds);
        held.push(most - before);
        drop(working);
        postgres.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hand'").await?;
        beside.push(refresh(&manager, &child).await?.0);
        // once more with people at work, who take their part of the machine while it is prepared
        let people = busy(&maria, gateway, &ca).await?;
        door.push(refresh(&manager, &child).await?.2);
        drop(people);
        ensure!(times_dumped(&directory)? == dumps + 1, "the server did not copy the database by itself");
    }
    let rate = |seconds: &[f64]| size / 1e6 / median(seconds);
    report.row("by hand: pg_dump -Fc -Z0 | pg_restore", rate(&by_hand), "MB/s");
    report.row("Daypass: a refresh with the same tools, command to open", rate(&through), "MB/s");
    report.row("Daypass: the server's own copy, command to open", rate(&beside), "MB/s");
    report.row(&format!("people out, with {BUSY} busy sessions: median"), median(&door), "ms");
    report.bar("ms that people are out, the most", door.iter().copied().fold(0.0, f64::max), 2_000.0);
    report.row("Daypass holds more than before, at most", held.iter().copied().fold(0.0, f64::max) / 1024.0, "MiB");
    report.bar_least("a refresh, as a part of the speed by hand", median(&by_hand) / median(&through), 0.8);
    report.bar("MiB that a refresh adds to Daypass's memory", held.iter().copied().fold(0.0, f64::max) / 1024.0, 16.0);
    child.kill().await?;
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

async fn fill(postgres: &Postgres, gigabytes: u64) -> Result<()> {
    for table in 0..gigabytes {
        let sql = format!(
            "SET ROLE golden_owner; CREATE TABLE sales.t{table} (id bigint, n bigint, t text); ALTER TABLE sales.t{table} ALTER t SET STORAGE PLAIN; \
             INSERT INTO sales.t{table} SELECT i, i * 7, concat(md5(i::text), md5((i + 1)::text), md5((i + 2)::text), repeat(md5((i * 3)::text), 12)) \
             FROM generate_series(1, {ROWS_PER_GIGABYTE}) i; ALTER TABLE sales.t{table} ADD PRIMARY KEY (id)"
        );
        postgres.sql("golden", &sql).await?;
    }
    postgres.sql("golden", "VACUUM ANALYZE").await.map(drop)
}

/// What somebody does who has no Daypass, over the same network with the same encryption. Gives the seconds.
async fn hand(postgres: &Postgres, directory: &Path) -> Result<f64> {
    let place = |database: &str| format!("host=127.0.0.1 port={} user=hand dbname={database} sslmode=require", postgres.port);
    let began = Instant::now();
    postgres.sql("postgres", "CREATE DATABASE by_hand TEMPLATE template0").await?;
    let (read, write) = std::io::pipe()?;
    let mut dump = Command::new(postgres.program("pg_dump"));
    dump.args(["-Fc", "-Z0", "--no-owner", "--no-privileges", "-d", &place("golden")]).stdout(write);
    let mut restore = Command::new(postgres.program("pg_restore"));
    restore.args(["--no-owner", "--no-privileges", "-d", &place("by_hand")]).stdin(read);
    let [mut dump, mut restore] = [dump, restore].map(|mut command| {
        let log = std::fs::File::options().create(true).append(true).open(directory.join("hand.log"));
        command.env("PGPASSWORD", "hand-secret").stderr(log.map_or_else(|_| Stdio::null(), Stdio::from)).kill_on_drop(true).spawn()
    });
    let (dump, restore) = (dump.as_mut().ok().context("pg_dump did not start")?, restore.as_mut().ok().context("pg_restore did not start")?);
    let (dumped, restored) = tokio::try_join!(dump.wait(), restore.wait())?;
    ensure!(dumped.success() && restored.success(), "by hand it failed: {}", std::fs::read_to_string(directory.join("hand.log")).unwrap_or_default());
    let took = began.elapsed().as_secs_f64();
    postgres.sql("postgres", "DROP DATABASE by_hand").await?;
    Ok(took)
}

/// A psql that sits in the source until it is dropped.
async fn session(postgres: &Postgres) -> Result<Child> {
    let mut command = Command::new(postgres.psql());
    command.args(["-X", "-q", &format!("host=127.0.0.1 port={} user=hand dbname=golden sslmode=require", postgres.port), "-c", "SELECT pg_sleep(36000)"]);
    let child = command.env("PGPASSWORD", "hand-secret").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let there = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'hand'";
    until(async || Ok(postgres.sql("postgres", there).await? == "1")).await?;
    Ok(child)
}

/// Sessions of people who read a row of 8 KB twenty times a second.
const BUSY: usize = 50;
/// Of one account, as many as a policy allows at first.
const EACH: usize = 10;

async fn busy(maria: &Api, gateway: u16, ca: &Path) -> Result<Vec<tokio::task::JoinHandle<()>>> {
    let mut people = Vec::new();
    for _ in 0..BUSY / EACH {
        let (user, password) = account(maria, "uat", 3_600).await?;
        let way = Way { name: "daypass", port: gateway, user, password, database: "uat", ca: ca.to_owned(), pid: None };
        for _ in 0..EACH {
            let client = connect(&way).await?;
            people.push(tokio::spawn(async move {
                let _ = client.batch_execute("SELECT repeat('x', 8000), pg_sleep(0.05) FROM generate_series(1, 100000)").await;
            }));
        }
    }
    Ok(people)
}

/// A refresh through Daypass: the seconds from the command to the open environment, the most KiB that Daypass held meanwhile, and the
/// milliseconds in which nobody had access, by its log.
async fn refresh(manager: &Api, daypass: &Child) -> Result<(f64, f64, f64)> {
    // the exchange of names is short: it is looked at often once access has ended
    let mut exchanging = None;
    let pid = daypass.id().context("Daypass runs")?;
    let began = Instant::now();
    let begun = manager.post("environments/uat/movements", json!({ "kind": "refresh", "from": "golden", "why": "the bench" })).await?;
    let mut most: f64 = 0.0;
    loop {
        let known = manager.get("environments/uat/movements").await?;
        most = most.max(rss_kib(pid));
        let mine: &Value = known.as_array().and_then(|all| all.iter().find(|known| known["id"] == begun["id"])).context("the movement is known")?;
        match mine["status"].as_str() {
            Some("Completed") => {
                let at = |name: &str| mine[name].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()).context("the movement says when");
                let (begun, over) = (at("begun_at")?, at("over_at")?);
                let closed = over.duration_since(begun).as_secs_f64() * 1_000.0;
                if let Some(swap) = exchanging {
                    println!("  out for {closed:.0} ms, {:.0} of them in the exchange of names", over.duration_since(swap).as_secs_f64() * 1_000.0);
                }
                return Ok((began.elapsed().as_secs_f64(), most, closed));
            }
            Some("Failed" | "Aborted") | None => anyhow::bail!("the refresh did not end well: {mine}"),
            Some(_) => {
                if mine["phase"] == "swap" {
                    exchanging.get_or_insert_with(jiff::Timestamp::now);
                }
                let often = if mine["begun_at"].is_null() { 50 } else { 5 };
                tokio::time::sleep(Duration::from_millis(often)).await;
            }
        }
    }
}

/// How many refreshes took pg_dump and pg_restore: Daypass says so in its log.
fn times_dumped(directory: &Path) -> Result<usize> {
    Ok(std::fs::read_to_string(directory.join("daypass.log"))?.matches("it is dumped and restored").count())
}

async fn until(mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done().await? {
        ensure!(Instant::now() < deadline, "it did not come about within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
