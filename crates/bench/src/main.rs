//! `make bench`: Daypass beside a direct PostgreSQL and PgBouncer, in one run, with the runs interleaved because machines are
//! noisy. Prints medians as a table with the bars, and writes them to target/bench.json.
//!
//! `DAYPASS_BENCH_ROUNDS` (3) and `DAYPASS_BENCH_SECONDS` (3) say how long; `DAYPASS_BENCH_ONLY` what: core, pages, queries, connections,
//! copy, statements, sessions, access, crowd, ends, sqlserver, movement, with commas.

mod access;
mod api;
mod core;
mod ends;
mod load;
mod movement;
mod pages;
mod report;
mod sessions;
mod stage;
mod tds;

use anyhow::Result;
use report::Report;
use stage::Stage;

#[tokio::main]
async fn main() -> Result<()> {
    if let [_, word, server, folder] = std::env::args().collect::<Vec<_>>().as_slice()
        && word == "relay"
    {
        return tds::relay(server.parse()?, folder.as_ref()).await;
    }
    let only = std::env::var("DAYPASS_BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|word| word == part);
    let mut report = Report::new();
    if wanted("core") {
        core::measure(&mut report);
    }
    if wanted("pages") {
        pages::measure(&mut report).await?;
    }
    if wanted("sqlserver") {
        tds::measure(&mut report, setting("DAYPASS_BENCH_ROUNDS", 3)).await?;
    }
    if wanted("ends") {
        ends::measure(&mut report, setting("DAYPASS_BENCH_ENDS", 20)).await?;
    }
    if wanted("movement") {
        movement::measure(&mut report, setting("DAYPASS_BENCH_ROUNDS", 3), setting("DAYPASS_BENCH_GIGABYTES", 1)).await?;
    }
    if !["core", "sqlserver", "pages", "movement", "ends"].contains(&only.as_str()) {
        let mut stage = Stage::set().await?;
        let rounds = setting("DAYPASS_BENCH_ROUNDS", 3);
        if wanted("queries") {
            load::queries(&stage, &mut report, rounds).await?;
        }
        if wanted("connections") {
            load::connections(&stage, &mut report, rounds).await?;
        }
        if wanted("copy") {
            load::copy(&stage, &mut report, rounds).await?;
        }
        if wanted("statements") {
            load::statements(&stage, &mut report).await?;
        }
        if wanted("sessions") {
            sessions::measure(&mut stage, &mut report).await?;
        }
        if wanted("access") {
            access::measure(&stage, &mut report).await?;
        }
        if wanted("crowd") {
            access::crowd(&stage, &mut report).await?;
        }
        stage.strike().await;
    }
    report.finish()
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
