//! `daypass serve`.

use super::client::{Failure, write_private};
use crate::{config::Config, serve};
use std::{io::IsTerminal, path::Path, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Sessions get this long to tell their clients that Daypass stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// No image of the memory is written when the process dies, and no other process of the same user looks into it: passwords lie there.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the memory cannot be kept from other processes of this user");
    }
}

/// Runs Daypass until it is told to stop.
pub async fn serve(file: Option<&Path>, accept_clock: bool) -> Result<(), Failure> {
    // as `info` or `warn,daypass_gateway=debug`
    let wanted = std::env::var("DAYPASS_LOG").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        // what a target refuses comes back to who asked it: the driver's own word for it would call what can be done without an error
        Targets::new().with_default(tracing::Level::INFO).with_target("tiberius", LevelFilter::OFF)
    });
    let written = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(wanted).with(written).init();
    keep_memory_private();
    let config = Config::load(file)?;
    let data = config.data_dir.clone();
    let unset = |e: std::io::Error| Failure::failed(format!("signals cannot be received: {e}"));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate()).map_err(unset)?, signal(SignalKind::interrupt()).map_err(unset)?);
    let mut hangup = signal(SignalKind::hangup()).map_err(unset)?;
    let running = serve::start(config, accept_clock).await?;
    if let Some(link) = &running.first_link {
        let path = data.join("first-link");
        write_private(&path, format!("{}\n", link.expose()).as_bytes())?;
        tracing::info!("there is nobody yet: the one-time link that makes the first administrator is in {}", path.display());
        // only before a person's eyes: service managers keep what a service prints for everybody to read
        if std::io::stderr().is_terminal() {
            eprintln!("\n  Open this link to begin:  {}\n", link.expose());
        }
    }
    tracing::info!("the CA to trust is in {}", data.join("ca.pem").display());
    tracing::info!("API on https://{}, gateway on {} (PostgreSQL) and {} (SQL Server)", running.api, running.gateway, running.sqlserver);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // what a terminal that closes sends, and what `systemctl reload` and log rotation do: it is no reason to end anybody's session
            _ = hangup.recv() => {
                tracing::info!("told to reload: the certificate is read again; other settings take a restart");
                running.reload.notify_one();
            }
        }
    }
    tracing::info!("stopping: sessions are told, then closed");
    running.stop(GOODBYE).await;
    Ok(())
}
