//! `daypass demo`: a throw-away PostgreSQL and a stand-in for SQL Server, a Daypass in front of them, and the main job before the reader's eyes. All that is
//! shown is what a person would type, run by the same program, as processes of their own.

mod sqlserver;
mod stage;
mod tour;

use anyhow::Result;
use stage::Stage;

/// Runs the walk. With `only`, ends after it; else stays up until Ctrl-C.
pub async fn run(only: bool) -> Result<()> {
    println!(
        "Daypass demo: a throw-away PostgreSQL with the environments golden and uat, a stand-in for SQL Server with erp, and a Daypass in front of them.\n"
    );
    let mut stage = Stage::set().await?;
    let walked = tokio::select! {
        walked = tour::walk(&mut stage) => walked,
        _ = tokio::signal::ctrl_c() => {
            stage.strike().await;
            anyhow::bail!("stopped before the end of the walk");
        }
    };
    if walked.is_ok() && !only {
        if let Err(error) = tour::stay(&mut stage).await {
            eprintln!("{error:#}");
        }
        let _ = tokio::signal::ctrl_c().await;
        println!("\nCleaning up.");
    }
    stage.strike().await;
    walked
}
