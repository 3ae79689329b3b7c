//! From "end this pass" to the last write at the target and the last byte at the client, while others do what they can to delay it:
//! every connection of the server taken and busy, a million large objects to be given away, 2,000 requests waiting to be made ready,
//! looks into the past from twenty people, wrong passwords from sixty addresses. `DAYPASS_BENCH_ENDS` (20) says how many passes are ended
//! under each; `DAYPASS_BENCH_LOADS` which loads, by their first words.

use crate::{
    api::Api,
    report::{Report, quantile},
    sessions::connect,
    stage::{Way, daypass_with, settle_with, text, trusting},
};
use anyhow::{Context, Result};
use daypass_testkit::postgres::{Postgres, binaries};
use futures_util::{
    StreamExt,
    future::{join_all, try_join_all},
};
use serde_json::json;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::{process::Child, task::JoinHandle};

/// Writes and commits, a hundred times a second, until somebody ends it.
const WRITE: &str = "DO $$ BEGIN LOOP INSERT INTO sales.beat VALUES (session_user, clock_timestamp()); COMMIT; PERFORM pg_sleep(0.01); END LOOP; END $$";
/// A row of 8 KB twenty times a second.
const READ: &str = "SELECT repeat('x', 8000), pg_sleep(0.05) FROM generate_series(1, 100000)";
/// A million large objects, ten thousand in a transaction: what one transaction may lock has a bound.
const OBJECTS: &str = "DO $$ BEGIN FOR n IN 1..100 LOOP PERFORM lo_create(0) FROM generate_series(1, 10000); COMMIT; END LOOP; END $$";
const OTHERS: usize = 20;
const ADDRESSES: u8 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Nothing,
    NoSlot,
    LargeObjects,
    Waiting,
    Replays,
    SigningIn,
}

impl Load {
    const ALL: [Load; 6] = [Load::Nothing, Load::NoSlot, Load::LargeObjects, Load::Waiting, Load::Replays, Load::SigningIn];

    const fn name(self) -> &'static str {
        match self {
            Load::Nothing => "nothing else",
            Load::NoSlot => "no free connection, all busy",
            Load::LargeObjects => "a million large objects of an account that is over",
            Load::Waiting => "2,000 requests waiting",
            Load::Replays => "200 looks into the past at once",
            Load::SigningIn => "wrong passwords from 60 addresses",
        }
    }
}

struct Stage {
    postgres: Postgres,
    directory: PathBuf,
    child: Child,
    base: String,
    gateway: u16,
    admin: Api,
    maria: Api,
    sam: Api,
}

/// A pass with a session that writes and one that reads.
struct Busy {
    pass: String,
    account: String,
    reader: JoinHandle<SystemTime>,
    writer: JoinHandle<()>,
}

/// What an end took, in milliseconds from the moment before the command was sent.
struct Taken {
    answer: f64,
    write: f64,
    byte: f64,
}

pub async fn measure(report: &mut Report, ends: u64) -> Result<()> {
    let only = std::env::var("DAYPASS_BENCH_LOADS").unwrap_or_default();
    for load in Load::ALL {
        if only.is_empty() || only.split(',').any(|word| load.name().starts_with(word)) {
            under(report, load, ends).await.with_context(|| format!("under: {}", load.name()))?;
        }
    }
    Ok(())
}

async fn under(report: &mut Report, load: Load, ends: u64) -> Result<()> {
    let stage = Stage::set().await?;
    stage.maria.post("environments/bench/allow", json!({ "life": 8 * 3600 })).await?;
    let mut busy = Vec::new();
    for _ in 0..ends {
        busy.push(stage.busy(&stage.maria).await?);
    }
    report.title(&format!("ended while there is: {}", load.name()));
    let stop = Arc::new(AtomicBool::new(false));
    let loading = stage.load(report, load, &stop).await?;
    let mut taken = Vec::new();
    for one in busy {
        taken.push(stage.end(one).await?);
    }
    match load {
        Load::LargeObjects => report.row("large objects still to be given away behind the last end", stage.left().await?, ""),
        Load::Waiting => report.row("requests still waiting behind the last end", stage.waiting().await?, ""),
        _ => {}
    }
    stop.store(true, Relaxed);
    let answered: usize = join_all(loading).await.into_iter().filter_map(Result::ok).sum();
    if answered > 0 {
        report.row("answered to those others meanwhile", answered as f64, "");
    }
    for (what, of, bar) in [
        ("last write at the target", (|t| t.write) as fn(&Taken) -> f64, 2_000.0),
        ("last byte at the client", |t| t.byte, 250.0),
        ("the answer", |t| t.answer, f64::NAN),
    ] {
        let all: Vec<f64> = taken.iter().map(of).collect();
        report.row(&format!("from the command to {what}, p50 ({})", load.name()), quantile(&all, 0.5), "ms");
        report.row(&format!("from the command to {what}, p99 ({})", load.name()), quantile(&all, 0.99), "ms");
        if bar.is_finite() {
            report.bar(&format!("ms to the {what}, p99, {}", load.name()), quantile(&all, 0.99), bar);
        }
    }
    stage.strike().await;
    Ok(())
}

impl Stage {
    async fn set() -> Result<Stage> {
        let postgres = Postgres::start_with(binaries()?, true, &["max_connections=100"]).await?;
        postgres.administrator().await?;
        postgres.database("bench").await?;
        let table = "SET ROLE bench_owner; CREATE TABLE sales.beat (who text, at timestamptz)";
        postgres.sql("bench", table).await?;
        postgres.sql("postgres", "CREATE ROLE filler LOGIN PASSWORD 'filler-secret' IN ROLE bench_owner; GRANT CONNECT ON DATABASE bench TO filler").await?;
        let directory = std::env::temp_dir().join(format!("daypass-bench-ends-{}", postgres.port));
        std::fs::create_dir_all(&directory)?;
        let (child, api, gateway, _) = daypass_with(&directory, "").await?;
        let environment = json!({ "name": "bench", "project": "main", "engine": "postgres", "host": "127.0.0.1", "port": postgres.port, "database": "bench",
                                  "admin": "daypass_admin", "password": "admin-secret", "ca": postgres.ca, "without_tls": false });
        let (admin, maria, sam) = settle_with(&directory, api, vec![environment]).await?;
        Ok(Stage { postgres, directory, child, base: format!("https://127.0.0.1:{api}"), gateway, admin, maria, sam })
    }

    fn ca(&self) -> PathBuf {
        self.directory.join("data/ca.pem")
    }

    /// Asks for read and write, waits until it is ready and connects; gives pass, account and a way.
    async fn account(&self, who: &Api) -> Result<(String, Way)> {
        let pass = who.post("environments/bench/passes", json!({ "access": "read_write", "reason": "the bench", "life": 8 * 3600 })).await?;
        let id = text(&pass["id"]);
        while who.get(&format!("passes/{id}?wait=10")).await?["state"] != "ready" {}
        let shown = who.post(&format!("passes/{id}/reveal"), json!({})).await?;
        let way = Way {
            name: "daypass",
            port: self.gateway,
            user: text(&shown["account"]),
            password: text(&shown["password"]),
            database: "bench",
            ca: self.ca(),
            pid: None,
        };
        Ok((id, way))
    }

    async fn busy(&self, who: &Api) -> Result<Busy> {
        let (pass, way) = self.account(who).await?;
        let (reading, writing) = (connect(&way).await?, connect(&way).await?);
        let reader = tokio::spawn(async move {
            let mut last = SystemTime::now();
            if let Ok(rows) = reading.query_raw(READ, Vec::<String>::new()).await {
                let mut rows = std::pin::pin!(rows);
                while let Some(Ok(_)) = rows.next().await {
                    last = SystemTime::now();
                }
            }
            last
        });
        let writer = tokio::spawn(async move {
            let _ = writing.batch_execute(WRITE).await;
        });
        let account = way.user;
        let began = format!("SELECT count(*) > 0 FROM sales.beat WHERE who = '{account}'");
        while self.postgres.sql("bench", &began).await? != "t" {}
        Ok(Busy { pass, account, reader, writer })
    }

    async fn end(&self, busy: Busy) -> Result<Taken> {
        anyhow::ensure!(!busy.reader.is_finished() && !busy.writer.is_finished(), "a session is over before its end");
        let began = SystemTime::now();
        self.sam.post(&format!("passes/{}/end", busy.pass), json!({ "why": "the bench" })).await?;
        let since = |at: SystemTime| at.duration_since(began).unwrap_or_default().as_secs_f64() * 1_000.0;
        let answer = since(SystemTime::now());
        let byte = since(busy.reader.await?);
        busy.writer.await?;
        // over at the target: no backend of that name, seen by who is always let in
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", busy.account);
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.postgres.sql("bench", &gone).await? != "0" {
            anyhow::ensure!(Instant::now() < deadline, "still there after two minutes");
        }
        let last = format!("SELECT (extract(epoch FROM max(at)) * 1000000)::bigint FROM sales.beat WHERE who = '{}'", busy.account);
        let last: u64 = self.postgres.sql("bench", &last).await?.parse()?;
        Ok(Taken { answer, byte, write: since(SystemTime::UNIX_EPOCH + Duration::from_micros(last)) })
    }

    async fn left(&self) -> Result<f64> {
        let of = "SELECT count(*) FROM pg_largeobject_metadata WHERE lomowner NOT IN (SELECT oid FROM pg_roles WHERE rolname LIKE 'daypass%')";
        Ok(self.postgres.sql("bench", of).await?.parse()?)
    }

    async fn waiting(&self) -> Result<f64> {
        let passes = self.sam.get("passes?all=true").await?;
        Ok(passes.as_array().into_iter().flatten().filter(|pass| pass["state"] == "approved").count() as f64)
    }

    async fn others(&self) -> Result<Vec<Api>> {
        let mut others = Vec::new();
        for n in 0..OTHERS {
            let name = format!("other{n}");
            self.admin.post("people", json!({ "name": name, "password": "a-long-password", "roles": [{ "role": "requester" }] })).await?;
            others.push(Api::sign_in(self.base.clone(), trusting(&self.ca())?, &name, "a-long-password").await?);
        }
        Ok(others)
    }

    /// Sets the load going; each task says how many answers it had.
    async fn load(&self, report: &mut Report, load: Load, stop: &Arc<AtomicBool>) -> Result<Vec<JoinHandle<usize>>> {
        match load {
            Load::Nothing => Ok(Vec::new()),
            Load::NoSlot => self.fill(report).await,
            Load::LargeObjects => {
                let others = self.others().await?;
                let one = others.first().context("there are others")?;
                one.post("environments/bench/allow", json!({ "life": 8 * 3600 })).await?;
                let (pass, way) = self.account(one).await?;
                connect(&way).await?.batch_execute(OBJECTS).await?;
                report.row("large objects of an account", self.left().await?, "");
                one.post(&format!("passes/{pass}/end"), json!({ "why": "the bench" })).await?;
                Ok(Vec::new())
            }
            Load::Waiting => {
                let ask = async |api: &Api| {
                    for _ in 0..100 {
                        api.post("environments/bench/passes", json!({ "access": "read", "reason": "the bench", "life": 3600 })).await?;
                    }
                    anyhow::Ok(())
                };
                let others = self.others().await?;
                try_join_all(others.iter().map(ask)).await?;
                report.row("requests waiting before the first end", self.waiting().await?, "");
                Ok(Vec::new())
            }
            Load::Replays => {
                let at = jiff::Timestamp::now();
                let mut tasks = Vec::new();
                for api in self.others().await? {
                    let request = api.asking(&format!("passes?at={at}"));
                    tasks.extend((0..10).filter_map(|_| Some(again(stop, request.try_clone()?))));
                }
                Ok(tasks)
            }
            Load::SigningIn => {
                let mut tasks = Vec::new();
                for n in 1..=ADDRESSES {
                    let from = std::net::IpAddr::from([127, 0, 1, n]);
                    let http = reqwest::Client::builder().tls_backend_preconfigured(trusting(&self.ca())?).no_proxy().local_address(from).build()?;
                    let request = http.post(format!("{}/api/v1/login", self.base)).json(&json!({ "name": "maria", "password": "not-hers" }));
                    tasks.extend((0..10).filter_map(|_| Some(again(stop, request.try_clone()?))));
                }
                Ok(tasks)
            }
        }
    }

    /// Sessions of passes until the gateway has no place for one more, and connections past it until the server has none.
    async fn fill(&self, report: &mut Report) -> Result<Vec<JoinHandle<usize>>> {
        let (_, way) = self.account(&self.maria).await?;
        let (mut through, mut past, mut tasks) = (0.0, 0.0, Vec::new());
        let mut keep = |client: tokio_postgres::Client| {
            tasks.push(tokio::spawn(async move {
                let _ = client.batch_execute(WRITE).await;
                0
            }));
        };
        while let Ok(client) = connect(&way).await {
            keep(client);
            through += 1.0;
        }
        let direct = Way { port: self.postgres.port, user: "filler".into(), password: "filler-secret".into(), ca: self.directory.join("pg-ca.pem"), ..way };
        std::fs::write(&direct.ca, &self.postgres.ca)?;
        while let Ok(client) = connect(&direct).await {
            keep(client);
            past += 1.0;
        }
        let backends = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> 'postgres'";
        report.row("backends at the server, of 100", self.postgres.sql("bench", backends).await?.parse()?, "");
        report.row("more sessions of passes that write", through, "");
        report.row("connections past the gateway that write", past, "");
        // they go on until the server is stopped
        drop(tasks);
        Ok(Vec::new())
    }

    async fn strike(mut self) {
        let _ = self.child.kill().await;
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Sends the same over and over until it is told to stop; counts the answers.
fn again(stop: &Arc<AtomicBool>, request: reqwest::RequestBuilder) -> JoinHandle<usize> {
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut answers = 0;
        while !stop.load(Relaxed)
            && let Some(request) = request.try_clone()
        {
            answers += usize::from(request.send().await.is_ok());
        }
        answers
    })
}
