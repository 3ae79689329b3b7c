//! Many sessions: what an idle one holds, how fast busy ones end.

use crate::{report::Report, stage::*};
use anyhow::Result;
use futures_util::{StreamExt, future::join_all};
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

const IDLE: usize = 1_000;
const BUSY: usize = 500;
/// What one movement ends.
const MOVED: usize = 1_000;
/// The same once a second: a thousand at once leave two cores something to do besides.
const SLOW_TRICKLE: &str = "SELECT repeat('x', 8000), pg_sleep(1) FROM generate_series(1, 100000)";
/// A row of 8 KB ten times a second: each session always has something on its way.
const TRICKLE: &str = "SELECT repeat('x', 8000), pg_sleep(0.1) FROM generate_series(1, 100000)";

pub async fn measure(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.title(&format!("memory of {IDLE} idle sessions with TLS, each kind in a fresh process"));
    for tls in [true, false] {
        if stage.way(if tls { BOUNCER_TLS } else { BOUNCER_PLAIN }).is_some() {
            let (mut child, way) = stage.fresh_bouncer(tls).await?;
            idle(&way, report).await?;
            child.kill().await?;
            until_free(stage).await?;
        }
        stage.fresh_daypass().await?;
        let way = stage.way(if tls { DAYPASS_TLS } else { DAYPASS_PLAIN }).cloned();
        if let Some(way) = way {
            let each = idle(&way, report).await?;
            let (sides, most) = if tls { ("TLS on both sides", 54.0) } else { ("plain to the server", 40.0) };
            report.bar(&format!("KiB per idle session, {sides}"), each, most);
            until_free(stage).await?;
        }
    }
    expiry(stage, report).await?;
    movement(stage, report).await
}

/// Kilobytes of the proxy for each of many idle sessions.
async fn idle(way: &Way, report: &mut Report) -> Result<f64> {
    let pid = way.pid.unwrap_or_default();
    // what a first session makes the process keep for good is not the price of a session
    drop(open(way, 20).await?);
    let before = rss_kib(pid);
    let clients = open(way, IDLE).await?;
    let each = (rss_kib(pid) - before) / IDLE as f64;
    report.row(&format!("idle session: {}", way.name), each, "KiB");
    drop(clients);
    Ok(each)
}

pub async fn connect(way: &Way) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(way.port).user(&way.user).password(&way.password).dbname(way.database);
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(trusting(&way.ca)?)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// So many sessions, twenty at a time.
async fn open(way: &Way, count: usize) -> Result<Vec<Client>> {
    futures_util::stream::iter(0..count).map(|_| connect(way)).buffer_unordered(20).collect::<Vec<_>>().await.into_iter().collect()
}

/// Until PostgreSQL has its places back.
async fn until_free(stage: &Stage) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while stage.postgres.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").await?.parse::<u32>()? > 60 {
        // PgBouncer keeps its server connections; they are in nobody's way below this
        if Instant::now() > deadline || stage.ways.iter().any(|way| way.name.starts_with("pgbouncer")) {
            stage.postgres.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bouncer'").await?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Reads until it is cut; says when the last row came and when the end was noticed.
async fn read_until_cut(client: Client, trickle: &str) -> (SystemTime, Instant) {
    let mut last = SystemTime::now();
    if let Ok(rows) = client.query_raw(trickle, Vec::<String>::new()).await {
        let mut rows = std::pin::pin!(rows);
        while let Some(Ok(_)) = rows.next().await {
            last = SystemTime::now();
        }
    }
    (last, Instant::now())
}

async fn expiry(stage: &Stage, report: &mut Report) -> Result<()> {
    let api = &stage.requester;
    api.post("environments/bench/allow", json!({})).await?;
    let id = request(api, "bench", 25).await?;
    let shown = api.post(&format!("passes/{id}/reveal"), json!({})).await?;
    let way = Way { user: text(&shown["account"]), password: text(&shown["password"]), ..stage.gateway()?.clone() };
    let ends_at = text(&shown["ends_at"]).parse::<jiff::Timestamp>()?;
    let ends_at = SystemTime::UNIX_EPOCH + Duration::from_micros(ends_at.as_microsecond().cast_unsigned());
    let readers: Vec<_> = open(&way, BUSY).await?.into_iter().map(|client| tokio::spawn(read_until_cut(client, TRICKLE))).collect();
    let late =
        join_all(readers).await.into_iter().filter_map(Result::ok).map(|(last, _)| last.duration_since(ends_at).unwrap_or_default().as_secs_f64() * 1_000.0);
    let worst = late.fold(0.0, f64::max);
    report.title(&format!("the end of a pass with {BUSY} busy sessions"));
    report.row("from its end to the last byte at a client, the worst", worst, "ms");
    report.bar(&format!("ms from the end to the last byte, the worst of {BUSY}"), worst, 250.0);
    until_free(stage).await
}

async fn movement(stage: &Stage, report: &mut Report) -> Result<()> {
    let (user, password) = account(&stage.requester, "bench", 3600).await?;
    let way = Way { user, password, ..stage.gateway()?.clone() };
    let readers: Vec<_> = open(&way, MOVED).await?.into_iter().map(|client| tokio::spawn(read_until_cut(client, SLOW_TRICKLE))).collect();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND usename LIKE 'jit%' AND state = 'active'";
    while stage.postgres.sql("postgres", running).await?.parse::<usize>()? < MOVED {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let began = Instant::now();
    stage.manager.post("environments/bench/movements", json!({ "kind": "external", "why": "the bench" })).await?;
    let ended = join_all(readers).await.into_iter().filter_map(Result::ok).map(|(_, ended)| ended.duration_since(began).as_secs_f64() * 1_000.0);
    let worst = ended.fold(0.0, f64::max);
    stage.manager.post("environments/bench/movement/finish", json!({})).await?;
    report.title(&format!("one movement ends {MOVED} busy sessions"));
    report.row("from the command to the last session's end", worst, "ms");
    report.bar(&format!("ms until one movement has ended {MOVED} sessions"), worst, 2_000.0);
    until_free(stage).await
}
