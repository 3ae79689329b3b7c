//! From a request to an account that works.

use crate::{
    report::{Report, quantile},
    stage::{Stage, ask, request, until_ready},
};
use anyhow::Result;
use std::time::Instant;

const REQUESTS: usize = 200;

/// Who all want in at one moment: after an outage, or at nine in the morning.
const CROWD: usize = 1_000;
/// And over how many connections they ask.
const ASKING: usize = 40;

/// From the first of a thousand requests on one server to the last of their accounts that is proved by a login.
pub async fn crowd(stage: &Stage, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..ASKING {
        let api = stage.requester.clone();
        asking.spawn(async move {
            let mut asked = Vec::new();
            for _ in 0..CROWD / ASKING {
                asked.push(ask(&api, "bench", 3600).await?);
            }
            for id in asked {
                until_ready(&api, &id).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = asking.join_next().await {
        done??;
    }
    let seconds = began.elapsed().as_secs_f64();
    report.title(&format!("{CROWD} requests at once on one server"));
    report.row("until the last account is proved", seconds, "s");
    report.row("accounts", CROWD as f64 / seconds, "/s");
    report.bar("s until the last account is proved", seconds, 15.0);
    Ok(())
}

pub async fn measure(stage: &Stage, report: &mut Report) -> Result<()> {
    let mut taken = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let began = Instant::now();
        request(&stage.requester, "bench", 3600).await?;
        taken.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    report.title(&format!("from the request to an account that is proved by a login, {REQUESTS} one after the other"));
    for (name, at, bar) in [("p50", 0.5, 150.0), ("p99", 0.99, 1_000.0)] {
        let value = quantile(&taken, at);
        report.row(&format!("request to ready, {name}"), value, "ms");
        report.bar(&format!("ms from request to ready, {name}"), value, bar);
    }
    Ok(())
}
