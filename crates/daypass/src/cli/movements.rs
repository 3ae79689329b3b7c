//! Moving databases: begin, watch, stop, try again, go back.

use super::{
    client::{Client, Failure, NOTHING},
    duration,
    show::{Show, clean, left, moment},
};
use crate::web::dto::*;
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// How often a movement that is watched is asked about.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub enum Verb {
    /// Move a database: the new one is made while people work; then all access ends, it takes its place, and old access never comes back
    Move {
        environment: String,
        #[command(subcommand)]
        what: What,
    },
    /// Show the dumps that can be imported, and those that exports made
    Files,
}

#[derive(Subcommand)]
pub enum What {
    /// Replace the database by a copy of another environment's
    Refresh {
        /// The environment to copy
        #[arg(long, value_name = "ENVIRONMENT")]
        from: String,
        #[command(flatten)]
        how: How,
    },
    /// Replace it by a dump in Daypass's folder of files (custom or directory format)
    Import {
        file: String,
        #[command(flatten)]
        how: How,
    },
    /// Write a dump of it into that folder, with its SHA-256; nobody's access ends
    Export {
        file: String,
        #[command(flatten)]
        how: How,
    },
    /// Replace it by its own state of an earlier moment (the configuration names a command that can do that)
    Restore {
        /// Like 2026-11-24T10:00:00Z
        #[arg(long = "at", value_name = "TIME")]
        to: String,
        #[command(flatten)]
        how: How,
    },
    /// Go back to the database that the last movement replaced, while it is kept
    Undo {
        #[command(flatten)]
        how: How,
    },
    /// Another tool replaces it: tell Daypass before it begins, and when it is done
    External {
        /// `begin` waits until nobody is in any more, so that the next command may replace the database
        step: Step,
        #[command(flatten)]
        how: How,
    },
    /// Show how far the movement is, what was swept, and the way back
    Status {
        /// Also those before it
        #[arg(long)]
        all: bool,
    },
    /// Show one movement; with --report all that the log holds of it, for whoever has to prove what was done to the data
    Show {
        /// Its id, as `--json` shows it
        #[arg(default_value = "last")]
        movement: String,
        #[arg(long)]
        report: bool,
    },
    /// Give up a planned movement, or stop one that runs; the database of before stays, and is open
    Cancel {
        #[arg(long)]
        reason: Option<String>,
    },
    /// Run a failed movement once more
    Retry {
        #[arg(long)]
        no_wait: bool,
    },
    /// Open the environment that a failed movement keeps closed, with the database that is there
    Finish,
}

#[derive(Args)]
pub struct How {
    /// Why it is moved
    #[arg(long)]
    reason: Option<String>,
    /// Tell holders so long before their access ends; without it, it ends when the new database is ready
    #[arg(long, value_parser = duration)]
    notice: Option<u64>,
    /// Prepare now, and let the new database take its place then (refresh, import, restore): like 2026-11-24T19:00:00Z, or 19:00 for the next
    /// 19:00 UTC; at most 24 hours from now
    #[arg(long, value_name = "TIME", value_parser = coming)]
    swap_at: Option<String>,
    /// If it fails after access has ended, let nobody in until somebody finishes it; else the database of before opens again by itself
    #[arg(long)]
    stay_closed: bool,
    /// Say what it would end, and for whom; nothing is done
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Step {
    /// The other tool is about to replace the database: end all access
    Begin,
    /// The new database is there: open for new access
    Finish,
    /// It went wrong: stay closed until it is finished
    Fail,
}

pub async fn run(verb: Verb, client: &Client, show: Show) -> Result<(), Failure> {
    let (environment, what) = match verb {
        Verb::Files => {
            let found: Vec<FileView> = client.get(&["files"], &[]).await?;
            show.list(&found, &["file", "bytes", "changed"], "No files.", |file| vec![file.name.clone(), file.bytes.to_string(), moment(&file.modified_at)]);
            return Ok(());
        }
        Verb::Move { environment, what } => (environment, what),
    };
    let new = |kind: &str, how: &How| NewMovement {
        kind: kind.to_owned(),
        from: None,
        file: None,
        to: None,
        why: how.reason.clone(),
        notice: how.notice,
        swap_at: how.swap_at.clone(),
        stay_closed: how.stay_closed,
    };
    match what {
        What::Refresh { from, how } => begin(client, &environment, NewMovement { from: Some(from), ..new("refresh", &how) }, &how, show).await,
        What::Import { file, how } => begin(client, &environment, NewMovement { file: Some(file), ..new("import", &how) }, &how, show).await,
        What::Export { file, how } => begin(client, &environment, NewMovement { file: Some(file), ..new("export", &how) }, &how, show).await,
        What::Restore { to, how } => begin(client, &environment, NewMovement { to: Some(to), ..new("restore", &how) }, &how, show).await,
        What::Undo { how } => begin(client, &environment, new("undo", &how), &how, show).await,
        What::External { step: Step::Begin, how } => begin(client, &environment, new("external", &how), &how, show).await,
        What::External { step: Step::Finish, .. } | What::Finish => {
            let moved: MovementView = client.post(&["environments", &environment, "movement", "finish"], NOTHING).await?;
            tell(&moved, show);
            Ok(())
        }
        What::External { step: Step::Fail, how } => {
            let moved: MovementView = client.post(&["environments", &environment, "movement", "fail"], Some(&Why { why: how.reason })).await?;
            tell(&moved, show);
            Ok(())
        }
        What::Show { movement, report } => {
            let found: MovementReport = client.get(&["environments", &environment, "movements", &movement], &[]).await?;
            if report {
                show.one(&found, proof);
            } else {
                tell(&found.movement, show);
            }
            Ok(())
        }
        What::Cancel { reason } => {
            let moved: MovementView = client.post(&["environments", &environment, "movement", "cancel"], Some(&Why { why: reason })).await?;
            tell(&moved, show);
            Ok(())
        }
        What::Retry { no_wait } => {
            let moved: MovementView = client.post(&["environments", &environment, "movement", "retry"], NOTHING).await?;
            if no_wait {
                tell(&moved, show)
            } else {
                watch(client, &environment, moved, show).await?
            }
            Ok(())
        }
        What::Status { all } => {
            let mut found = movements(client, &environment).await?;
            if !all {
                found.truncate(1);
            }
            if show.json {
                show.one(&found, |_| String::new());
            } else if found.is_empty() {
                show.progress("This database was never moved.");
            }
            if !show.json {
                found.iter().for_each(|moved| show.text(&story(moved)));
            }
            Ok(())
        }
    }
}

/// A row of what could stand in the way.
fn looked_for(check: &CheckView) -> String {
    let mark = if check.verdict == "missing" { "MISSING" } else { &check.verdict };
    let remedy = if check.remedy.is_empty() { String::new() } else { format!("\n         {}", check.remedy) };
    format!("{mark:<8} {}{remedy}", check.what)
}

/// A moment to come: written whole, or as an hour of today or tomorrow, in UTC as all times here.
fn coming(text: &str) -> Result<String, String> {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let time: jiff::civil::Time = text.parse().map_err(|_| "a moment is written like 2026-11-24T19:00:00Z, or 19:00 (UTC)".to_owned())?;
    let (now, utc) = (jiff::Timestamp::now(), jiff::tz::Offset::UTC);
    let today = utc.to_datetime(now).date();
    let at = |day: jiff::civil::Date| utc.to_timestamp(day.to_datetime(time)).map_err(|e| e.to_string());
    let next = if at(today)? > now { today } else { today.tomorrow().map_err(|e| e.to_string())? };
    Ok(at(next)?.to_string())
}

async fn movements(client: &Client, environment: &str) -> Result<Vec<MovementView>, Failure> {
    client.get(&["environments", environment, "movements"], &[]).await
}

async fn begin(client: &Client, environment: &str, asked: NewMovement, how: &How, show: Show) -> Result<(), Failure> {
    if how.dry_run {
        let preview: MovementPreview = client.post(&["environments", environment, "movements", "preview"], Some(&asked)).await?;
        show.one(&preview, |preview| {
            let mut lines: Vec<String> = preview.checks.iter().map(looked_for).collect();
            lines.push(preview.outcome.clone());
            lines.extend(preview.ends.iter().map(|end| format!("Ends: {end}")));
            if preview.allowed && preview.ends.is_empty() && asked.kind != "export" {
                lines.push("Nobody has access now.".to_owned());
            }
            lines.extend(preview.scripts.iter().map(|script| format!("Runs before it opens: {script}")));
            lines.push("Nothing was done: this was a dry run.".to_owned());
            lines.join("\n")
        });
        return if preview.allowed { Ok(()) } else { Err(Failure::failed("It would be refused.")) };
    }
    let moved: MovementView = client.post(&["environments", environment, "movements"], Some(&asked)).await?;
    if how.no_wait {
        tell(&moved, show);
        return Ok(());
    }
    watch(client, environment, moved, show).await
}

/// How long another tool waits until nobody is in any more: as long as our own movements do.
const GONE: Duration = Duration::from_secs(120);

/// Until it is over, or has failed: what it does, in lines that do not move.
async fn watch(client: &Client, environment: &str, begun: MovementView, show: Show) -> Result<(), Failure> {
    let mut said = String::new();
    let mut current = begun;
    let began = std::time::Instant::now();
    loop {
        let line = match (&current.phase, &current.progress) {
            (Some(phase), Some(progress)) if phase == "copy" && progress.bytes > 0 && progress.total_bytes > 0 => {
                // in steps of ten percent, so that a log of it stays short
                let tenth = (progress.bytes * 10 / progress.total_bytes).min(10) * 10;
                format!("copy: {tenth} %, {} tables|{}", progress.objects / 10 * 10, far(progress))
            }
            _ => current.state.clone(),
        };
        let key = line.split('|').next().unwrap_or_default().to_owned();
        if key != said {
            show.progress(&line.replace('|', " ("));
            said = key;
        }
        if current.kind == "external" && current.status == "InProgress" && current.still_in == 0 {
            tell(&current, show);
            return Ok(());
        }
        if current.kind == "external" && current.status == "InProgress" && began.elapsed() > GONE {
            return Err(Failure::new(
                super::exit::FAILED,
                "state",
                format!(
                    "After {} seconds {} accounts and sessions are still on the target: the database is not to be replaced yet.",
                    GONE.as_secs(),
                    current.still_in
                ),
                format!(
                    "`daypass doctor` says what is in the way, `daypass move {environment} status` how far it is; `daypass move {environment} external fail` gives it up."
                ),
            ));
        }
        if current.over_at.is_some() || current.status.ends_with("Failed") {
            tell(&current, show);
            return if current.status.ends_with("Failed") {
                Err(Failure::failed(format!("The movement failed. daypass move {environment} status")))
            } else {
                Ok(())
            };
        }
        tokio::time::sleep(LOOK).await;
        let found = movements(client, environment).await?;
        let Some(next) = found.into_iter().find(|moved| moved.id == current.id) else { return Err(Failure::failed("The movement is not there any more.")) };
        current = next;
    }
}

/// How far it is.
fn far(progress: &ProgressView) -> String {
    let rest = progress.seconds_left.map(|seconds| format!(", about {} left", left(seconds))).unwrap_or_default();
    let tables = if progress.total_objects > 0 { format!(", {} of {} tables", progress.objects, progress.total_objects) } else { String::new() };
    format!("{} of about {} MB{tables}, {} MB/s{rest}", progress.bytes / 1_000_000, progress.total_bytes / 1_000_000, progress.bytes_per_second / 1_000_000)
}

/// All that is known of a movement, in the order of what an auditor asks.
fn proof(found: &MovementReport) -> String {
    let moved = &found.movement;
    let mut lines = vec![
        format!("Movement {} of {}: {}", moved.id, moved.environment, moved.order),
        format!("Asked for   {}: {}", moment(&moved.asked_at), clean(&moved.why)),
        format!("Access      {}", moved.begun_at.as_deref().map_or_else(|| "never ended by it".to_owned(), |at| format!("ended at {}", moment(at)))),
        format!("Result      {}", clean(&moved.state)),
        String::new(),
        "What was done in the new database before anybody was let in:".to_owned(),
    ];
    lines.extend(moved.swept.iter().map(|line| format!("  {}: {}", clean(&line.what), clean(&line.done))));
    if moved.swept.is_empty() {
        lines.push("  nothing is on record".to_owned());
    }
    lines.push(String::new());
    lines.push(match found.lines.is_empty() {
        true => "What the log says of it is shown to those who may read the log (auditor, admin).".to_owned(),
        false => "On record (numbers of lines of the log; `daypass log verify` proves that none was altered):".to_owned(),
    });
    lines.extend(found.lines.iter().map(|line| format!("  {:>8}  {}  {} {}", line.seq, moment(&line.at), clean(&line.by), clean(&line.what))));
    lines.join("\n")
}

fn tell(moved: &MovementView, show: Show) {
    show.one(moved, story);
}

fn story(moved: &MovementView) -> String {
    let mut lines = vec![format!("Movement of {} ({}): {}.", moved.environment, moved.order, moved.state)];
    lines.extend(moved.progress.as_ref().filter(|progress| progress.bytes > 0).map(far));
    lines.extend(moved.swept.iter().map(|line| format!("Swept: {}: {}", clean(&line.what), clean(&line.done))));
    if let Some(kept) = &moved.kept {
        lines.push(format!("The database of before is kept as {} until {}: daypass move {} undo", kept.database, moment(&kept.until), moved.environment));
    }
    if let Some(made) = &moved.made {
        lines.push(format!("{} bytes, SHA-256 {}", made.bytes, made.sha256));
    }
    lines.join("\n")
}
