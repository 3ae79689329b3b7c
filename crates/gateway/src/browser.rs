//! Answers tools that were given `server\instance` and no port ([MC-SQLR], UDP 1434): an environment's name or its database's stands for the port
//! of the gateway. An address hears of the environments that it is entered for, and only so often: to anybody else there is nobody here.

use crate::World;
use daypass_core::{
    environment::{Enforce, Engine, Environment},
    ledger::Ledger,
    time::Time,
};
use daypass_wire::tds::browser::{self, Asked};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::UdpSocket;

/// Answers a second: to one address, and to all.
const EACH: u32 = 10;
const ALL: u32 = 200;

/// Answers, as long as the process lives.
pub async fn browse<W: World>(world: Arc<W>, socket: UdpSocket, server: String, port: u16) {
    let mut buffer = [0; browser::REQUEST + 1];
    let mut budget = Budget::default();
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // what an earlier answer met on its way (ICMP), or no memory for now
                tracing::debug!(%error, "a question for a port could not be read");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Some(asked) = browser::asked(&buffer[..length]) else { continue };
        let (now, address) = (world.now(), peer.ip().to_canonical());
        if !budget.has(address, Instant::now()) {
            continue;
        }
        let answer = world.ledger(|ledger| {
            let mut known = instances(ledger, address, now);
            match asked {
                Asked::All => browser::answer(&server, known, port),
                // in the letters of whoever asks
                Asked::Instance(name) => browser::answer(&server, known.any(|known| known.eq_ignore_ascii_case(name)).then_some(name), port),
            }
        });
        if let Some(answer) = answer
            && let Err(error) = socket.send_to(&answer, peer).await
        {
            tracing::debug!(%error, "an answer with a port could not be sent");
        }
    }
}

/// What stands for the gateway's port, for somebody at this address: names of environments and of their databases.
fn instances(ledger: &Ledger, address: IpAddr, now: Time) -> impl Iterator<Item = &str> {
    let behind = |env: &&Environment| {
        env.spec.enforce != Enforce::AzureSqlFirewall && ledger.target(env.target).is_some_and(|target| target.spec.engine == Engine::SqlServer)
    };
    let here = move |env: &&Environment| ledger.allow().lets_somebody_in(env.id, address, env.epoch(), now);
    ledger.environments().filter(behind).filter(here).flat_map(|env| {
        let (name, database) = (env.spec.name.as_str(), env.spec.database.as_str());
        std::iter::once(name).chain(Some(database).filter(|database| !database.eq_ignore_ascii_case(name)))
    })
}

/// How many are answered in this second.
#[derive(Default)]
struct Budget {
    since: Option<Instant>,
    all: u32,
    each: HashMap<IpAddr, u32>,
}

impl Budget {
    fn has(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            *self = Budget { since: Some(now), ..Budget::default() };
        }
        self.all += 1;
        if self.all > ALL {
            return false;
        }
        let each = self.each.entry(address).or_default();
        *each += 1;
        *each <= EACH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_answered_ten_times_a_second_and_all_together_two_hundred_times() {
        let (start, mut budget) = (Instant::now(), Budget::default());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!((0..50).filter(|_| budget.has(address(1), start)).count(), 10);
        assert!(budget.has(address(2), start), "another's are their own");
        assert!(budget.has(address(1), start + Duration::from_secs(1)), "the next second is a new one");
        let mut budget = Budget::default();
        assert_eq!((0..255).flat_map(|n| [n; 5]).filter(|n| budget.has(address(*n), start)).count(), 200);
        assert!(budget.each.len() <= 200, "and no more is remembered");
    }
}
