//! pgbench and COPY over each way, interleaved.

use crate::{
    report::{Report, median},
    setting,
    stage::*,
};
use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, process::Stdio, time::Instant};
use tokio::process::Command;

/// One run over one way.
#[derive(Clone, Copy)]
struct Run {
    /// Per second.
    rate: f64,
    /// Microseconds.
    latency: f64,
    /// Microseconds of the proxy's processor time for each.
    cpu: f64,
}

pub async fn queries(stage: &Stage, report: &mut Report, rounds: u64) -> Result<()> {
    let seconds = setting("DAYPASS_BENCH_SECONDS", 3);
    for clients in [1, 8] {
        for mode in ["simple", "extended", "prepared"] {
            let runs = interleaved(stage, rounds, async |way| pgbench(stage, way, mode, clients, seconds).await).await?;
            report.title(&format!("pgbench -S, {mode}, {clients} client(s)"));
            let direct = middle(&runs, DIRECT, |run| run.latency);
            for way in &stage.ways {
                let name = |what: &str| format!("{mode} {clients}: {}, {what}", way.name);
                report.row(&name("transactions"), middle(&runs, way.name, |run| run.rate), "/s");
                if way.pid.is_some() {
                    report.row(&name("added latency"), middle(&runs, way.name, |run| run.latency) - direct, "us");
                    report.row(&name("processor time"), middle(&runs, way.name, |run| run.cpu), "us each");
                }
            }
            for (ours, theirs) in [(DAYPASS_TLS, BOUNCER_TLS), (DAYPASS_PLAIN, BOUNCER_PLAIN)] {
                if stage.way(theirs).is_some() {
                    let bar = format!("{ours}, {mode}, {clients} client(s)");
                    report.bar(&format!("{bar}: processor us per query against PgBouncer"), middle(&runs, ours, |r| r.cpu), middle(&runs, theirs, |r| r.cpu));
                    let (mine, its) = (middle(&runs, ours, |r| r.latency) - direct, middle(&runs, theirs, |r| r.latency) - direct);
                    report.bar(&format!("{bar}: added us per query against PgBouncer"), mine, its);
                }
            }
        }
    }
    Ok(())
}

fn middle(runs: &BTreeMap<&str, Vec<Run>>, name: &str, what: impl Fn(&Run) -> f64) -> f64 {
    median(&runs.get(name).into_iter().flatten().map(what).collect::<Vec<_>>())
}

/// Each round goes once over each way, beginning with another one each time.
async fn interleaved(stage: &Stage, rounds: u64, run: impl AsyncFn(&Way) -> Result<Run>) -> Result<BTreeMap<&'static str, Vec<Run>>> {
    let mut runs: BTreeMap<&'static str, Vec<Run>> = BTreeMap::new();
    for round in 0..rounds as usize {
        for turn in 0..stage.ways.len() {
            let way = &stage.ways[(round + turn) % stage.ways.len()];
            runs.entry(way.name).or_default().push(run(way).await?);
        }
    }
    Ok(runs)
}

fn with_way(mut command: Command, way: &Way) -> Command {
    command.env("PGHOST", "127.0.0.1").env("PGPORT", way.port.to_string()).env("PGUSER", &way.user).env("PGPASSWORD", &way.password);
    command.env("PGDATABASE", way.database).env("PGSSLMODE", "verify-ca").env("PGSSLROOTCERT", &way.ca).env_remove("PGOPTIONS").stdin(Stdio::null());
    command
}

async fn pgbench(stage: &Stage, way: &Way, mode: &str, clients: u32, seconds: u64) -> Result<Run> {
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    let command = Command::new(stage.postgres.program("pgbench"));
    let mut command = with_way(command, way);
    command.args(["-n", "-S", "-M", mode, "-c", &clients, "-j", "1", "-T", &seconds]);
    timed(command, way).await
}

/// Runs pgbench and reads what it says.
async fn timed(mut command: Command, way: &Way) -> Result<Run> {
    let before = way.pid.map_or(0.0, cpu_micros);
    let output = command.output().await?;
    let used = way.pid.map_or(0.0, cpu_micros) - before;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |label: &str| said.lines().find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.split('/').next()?.parse::<f64>().ok());
    let (Some(count), Some(latency), Some(rate)) = (number("number of transactions actually processed: "), number("latency average = "), number("tps = "))
    else {
        bail!("{}: pgbench failed: {}", way.name, String::from_utf8_lossy(&output.stderr));
    };
    Ok(Run { rate, latency: latency * 1_000.0, cpu: used / count })
}

pub async fn connections(stage: &Stage, report: &mut Report, rounds: u64) -> Result<()> {
    let runs = interleaved(stage, rounds, async |way| {
        let mut command = with_way(Command::new(stage.postgres.program("pgbench")), way);
        command.args(["-n", "-S", "-C", "-c", "4", "-j", "2", "-T", "4"]);
        timed(command, way).await
    })
    .await?;
    report.title("new connections (TLS and SCRAM, one query each), 4 at once");
    let direct = middle(&runs, DIRECT, |run| run.rate);
    for way in &stage.ways {
        report.row(&format!("connections: {}", way.name), middle(&runs, way.name, |run| run.rate), "/s");
        if way.pid.is_some() {
            report.row(&format!("connections: {}, processor time", way.name), middle(&runs, way.name, |run| run.cpu) / 1_000.0, "ms each");
        }
    }
    for ours in [DAYPASS_TLS, DAYPASS_PLAIN] {
        report.bar_least(&format!("{ours}: new connections, against direct"), middle(&runs, ours, |r| r.rate) / direct, 0.9);
        report.bar(&format!("{ours}: processor ms per new connection"), middle(&runs, ours, |r| r.cpu) / 1_000.0, 1.2);
    }
    Ok(())
}

pub async fn copy(stage: &Stage, report: &mut Report, rounds: u64) -> Result<()> {
    for table in ["wide", "narrow"] {
        let runs = interleaved(stage, rounds, async |way| {
            let mut command = with_way(Command::new(stage.postgres.psql()), way);
            command.args(["-X", "-c", &format!("COPY sales.{table} TO STDOUT")]).stdout(Stdio::piped());
            let before = way.pid.map_or(0.0, cpu_micros);
            let began = Instant::now();
            let mut child = command.spawn()?;
            let mut out = child.stdout.take().context("a pipe was asked for")?;
            let bytes = tokio::io::copy(&mut out, &mut tokio::io::sink()).await? as f64;
            anyhow::ensure!(child.wait().await?.success() && bytes > 1e6, "{}: the COPY failed", way.name);
            let mib = bytes / 1_048_576.0;
            Ok(Run { rate: mib / began.elapsed().as_secs_f64(), latency: 0.0, cpu: (way.pid.map_or(0.0, cpu_micros) - before) / mib })
        })
        .await?;
        report.title(&format!("COPY TO STDOUT, {table} rows"));
        let direct = middle(&runs, DIRECT, |run| run.rate);
        for way in &stage.ways {
            report.row(&format!("copy {table}: {}", way.name), middle(&runs, way.name, |run| run.rate), "MiB/s");
            if way.pid.is_some() {
                report.row(&format!("copy {table}: {}, against direct", way.name), middle(&runs, way.name, |run| run.rate) / direct, "");
                report.row(&format!("copy {table}: {}, processor time", way.name), middle(&runs, way.name, |run| run.cpu) / 1_000.0, "ms/MiB");
            }
        }
        if table == "wide" {
            report.bar_least("bulk read against direct, plain to the server", middle(&runs, DAYPASS_PLAIN, |r| r.rate) / direct, 1.0);
            report.bar_least("bulk read against direct, TLS on both sides", middle(&runs, DAYPASS_TLS, |r| r.rate) / direct, 0.85);
        }
    }
    Ok(())
}

/// At full speed, is every statement on record?
pub async fn statements(stage: &Stage, report: &mut Report) -> Result<()> {
    let (user, password) = account(&stage.requester, "bench", 3600).await?;
    let way = Way { user: user.clone(), password, ..stage.gateway()?.clone() };
    let mut command = with_way(Command::new(stage.postgres.program("pgbench")), &way);
    command.args(["-n", "-S", "-M", "prepared", "-c", "8", "-j", "2", "-T", "5"]);
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let run = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: ")?.split('/').next()?.trim().parse::<f64>().ok());
    let run = run.context("pgbench failed")?;
    let mut recorded = 0.0;
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let sessions = stage.requester.get("sessions?limit=1000").await?;
        let mine: Vec<_> = sessions.as_array().into_iter().flatten().filter(|session| session["account"] == user).collect();
        if mine.iter().any(|session| session["closed_at"].is_null()) && Instant::now() < deadline {
            continue;
        }
        for session in mine {
            let mut after = 0;
            loop {
                let page = stage.requester.get(&format!("sessions/{}/statements?limit=5000&after={after}", text(&session["id"]))).await?;
                let page = page.as_array().cloned().unwrap_or_default();
                if page.is_empty() {
                    break;
                }
                after += page.len();
                recorded += page.iter().filter(|s| s["text"].as_str().is_some_and(|t| t.contains("abalance"))).count() as f64;
            }
        }
        break;
    }
    report.title("statements on record at full speed (prepared, 8 clients)");
    report.row("statements run", run, "");
    report.row("statements recorded", recorded, "");
    report.bar_least("statements recorded against run", recorded / run, 1.0);
    Ok(())
}
