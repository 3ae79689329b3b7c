//! From a request to an account that works.

use crate::{
    report::{Report, quantile},
    stage::{Stage, request},
};
use anyhow::Result;
use std::time::Instant;

const REQUESTS: usize = 200;

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
