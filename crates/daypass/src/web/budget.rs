//! What one person may ask of Daypass in a stretch of time, so that nobody's requests are everybody's. What ends access costs nothing here:
//! it is never refused for a budget. More than any person needs; a program that is refused waits and tries again.

use super::Problem;
use axum::http::{Method, StatusCode};
use daypass_core::ids::UserId;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::Deserialize;
use std::{
    collections::HashSet,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long somebody waits for others' replays.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much, from the configuration.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests of one person a second; ten times as many in a row.
    pub requests: u32,
    /// Requests of one person that change something, a second; thirty times as many in a row. Each is a line of the log.
    pub changes: u32,
    /// Replays and reports at once, of all people; of one person it is one.
    pub replays: u32,
    /// MiB a second of one person's statements on record; 128 times as many in a row. Beyond it their sessions wait.
    pub records: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { requests: 100, changes: 10, replays: 2, records: 2 }
    }
}

pub struct Budgets {
    requests: DefaultKeyedRateLimiter<UserId>,
    changes: DefaultKeyedRateLimiter<UserId>,
    replays: Arc<Semaphore>,
    replaying: Arc<Mutex<HashSet<UserId>>>,
}

/// A place among those who replay the log, and that its person has one.
pub struct Replay {
    place: Option<OwnedSemaphorePermit>,
    user: UserId,
    replaying: Arc<Mutex<HashSet<UserId>>>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        drop(self.place.take());
        self.replaying.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.user);
    }
}

fn too_many(what: &str) -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many",
        format!("You ask for more at once than one person may: {what}."),
        "Wait some seconds and go on; whoever runs Daypass can raise it ([limits] in the configuration).",
    )
}

impl Budgets {
    pub fn new(limits: Limits) -> Budgets {
        let quota = |a_second: u32, burst: u32| {
            let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
            Quota::per_second(at_least_one(a_second)).allow_burst(at_least_one(a_second.saturating_mul(burst)))
        };
        Budgets {
            requests: RateLimiter::keyed(quota(limits.requests, 10)),
            changes: RateLimiter::keyed(quota(limits.changes, 30)),
            replays: Arc::new(Semaphore::new(limits.replays.max(1) as usize)),
            replaying: Arc::default(),
        }
    }

    /// A request of somebody who is signed in. `ends`: it only ends access.
    pub fn request(&self, user: UserId, method: &Method, ends: bool) -> Result<(), Problem> {
        if ends {
            return Ok(());
        }
        if self.requests.check_key(&user).is_err() {
            return Err(too_many("requests"));
        }
        if *method != Method::GET && *method != Method::HEAD && self.changes.check_key(&user).is_err() {
            return Err(too_many("changes"));
        }
        Ok(())
    }

    /// A replay of the log: one of a person at a time, and some of all people. Waits for the others for a moment.
    pub async fn replay(&self, user: UserId) -> Result<Replay, Problem> {
        if !self.replaying.lock().unwrap_or_else(PoisonError::into_inner).insert(user) {
            return Err(too_many("looks into the past (one at a time)"));
        }
        let mut replay = Replay { place: None, user, replaying: self.replaying.clone() };
        match tokio::time::timeout(PATIENCE, self.replays.clone().acquire_owned()).await {
            Ok(Ok(place)) => {
                replay.place = Some(place);
                Ok(replay)
            }
            _ => Err(too_many("looks into the past; others are at it")),
        }
    }
}
