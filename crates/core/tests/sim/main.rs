//! Seeded schedules of everything that can happen to access at once: people, two nodes with a keeper and a gateway each, targets
//! that go down, databases that are replaced, crashes between any two steps, clocks that jump. After each step the invariants
//! are checked by an oracle that knows nothing of the ledger's code.
//!
//! `make sim N=100000` runs that many; `make sim N=1 SEED=42` plays one again.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

mod oracle;
mod world;

use world::World;

#[expect(clippy::disallowed_methods, reason = "the shell of the simulation: how many, and from which seed")]
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a number"))
}

/// Steps of a schedule before the faults stop.
const STEPS: usize = 150;

fn run(seed: u64) -> Result<(usize, usize), String> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.quiet()?;
    Ok((world.log.len(), world.bytes))
}

#[test]
fn no_schedule_breaks_an_invariant() {
    let schedules = variable("DAYPASS_SIM_SCHEDULES").unwrap_or(5_000);
    let first = variable("DAYPASS_SIM_SEED").unwrap_or(1);
    let (mut events, mut bytes, mut breaks) = (0, 0, Vec::new());
    for seed in first..first + schedules {
        match run(seed) {
            Ok((log, relayed)) => {
                events += log;
                bytes += relayed;
            }
            Err(why) => {
                println!("seed {seed}: {why}\n  play it again: make sim N=1 SEED={seed}");
                breaks.push(seed);
            }
        }
    }
    println!("{schedules} schedules, {events} events, {bytes} chunks relayed, {} breaks", breaks.len());
    assert!(bytes > 0, "a simulation in which nobody ever gets in proves nothing");
    assert!(breaks.is_empty(), "invariants broke with the seeds {breaks:?}");
}

#[test]
fn a_schedule_is_the_same_each_time() {
    let log = |seed| {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step().unwrap());
        world.log
    };
    assert_eq!(log(7), log(7));
    assert_ne!(log(7), log(8));
}
