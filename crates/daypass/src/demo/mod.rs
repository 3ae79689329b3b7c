//! `daypass demo`: a throw-away PostgreSQL and a stand-in for SQL Server, a Daypass in front of them, and the main job before the reader's eyes. All that is
//! shown is what a person would type, run by the same program, as processes of their own.

mod sqlserver;
mod stage;
mod tour;

use anyhow::{Result, bail};
use stage::Stage;
use std::io::Write as _;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the walk. With `only`, ends after it; else stays up until it is told to end: by Ctrl-C, by SIGTERM, or because its terminal is gone.
pub async fn run(only: bool) -> Result<()> {
    let (mut interrupt, mut terminate, mut hangup) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    tokio::pin!(told);
    println!(
        "Daypass demo: a throw-away PostgreSQL with the environments golden and uat, a stand-in for SQL Server with erp, and a Daypass in front of them.\n"
    );
    // what was begun ends with the future that began it
    let mut stage = tokio::select! {
        stage = Stage::set() => stage?,
        () = &mut told => bail!("stopped before the walk"),
    };
    let walked = tokio::select! {
        walked = tour::walk(&mut stage) => walked,
        () = &mut told => {
            stage.strike().await;
            bail!("stopped before the end of the walk");
        }
    };
    if walked.is_ok() && !only {
        if let Err(error) = tour::stay(&mut stage).await {
            eprintln!("{error:#}");
        }
        told.await;
        // whose terminal is gone has nobody to print to
        let _ = writeln!(std::io::stdout(), "\nCleaning up.");
    }
    stage.strike().await;
    walked
}
