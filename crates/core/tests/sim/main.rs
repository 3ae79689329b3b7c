//! Seeded schedules of everything that can happen to access at once: people, two nodes with a keeper and a gateway each, targets
//! that go down, databases that are replaced, crashes between any two steps, clocks that jump. After each step the invariants
//! are checked by an oracle that knows nothing of the ledger's code.
//!
//! `make sim N=100000` runs that many; `make sim N=1 SEED=42` plays one again.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

mod oracle;
mod world;

use daypass_core::{
    chain::{self, Head},
    ids::PassId,
    index::{Filter, Index, about},
    ledger::Ledger,
    pass::State,
    time::Time,
};
use std::collections::BTreeSet;
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

/// Who was in at a moment, by playing the log up to it.
fn by_replay(log: &[String], at: Time) -> BTreeSet<PassId> {
    let (mut ledger, mut head) = (Ledger::default(), Head::EMPTY);
    for line in log {
        let (entry, next) = chain::open(line, &head).unwrap();
        if entry.at > at {
            break;
        }
        ledger.apply(&entry).unwrap();
        head = next;
    }
    let ready = ledger.passes().filter(|pass| matches!(pass.state(), State::Ready { .. }) && ledger.over(pass, at).is_none());
    ready.map(|pass| pass.id).collect()
}

#[test]
fn who_had_access_at_any_past_moment_is_what_a_replay_says() {
    let mut in_then = 0;
    for seed in 1..=60 {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step().unwrap());
        let (mut ledger, mut head, mut index, mut moments) = (Ledger::default(), Head::EMPTY, Index::default(), Vec::new());
        for line in &world.log {
            let (entry, next) = chain::open(line, &head).unwrap();
            ledger.apply(&entry).unwrap();
            index.push(&ledger, &entry);
            moments.push(entry.at);
            head = next;
        }
        // at events, just before them, and between
        let moments = moments.iter().step_by(7).flat_map(|at| [-1, 0, 500_000].map(|more| Time::from_micros(at.micros() + more)));
        for at in moments {
            let now = at.max(ledger.latest());
            let held: BTreeSet<PassId> =
                ledger.passes().filter(|pass| ledger.held(pass, now).is_some_and(|held| held.covers(at))).map(|pass| pass.id).collect();
            assert_eq!(held, by_replay(&world.log, at), "seed {seed}, at {at}");
            in_then += held.len();
        }
        // the index finds what a look at every line finds
        for env in ledger.environments() {
            let found = index.find(&Filter { environment: Some(env.id), ..Filter::default() }, usize::MAX);
            let mut head = Head::EMPTY;
            let every: Vec<u64> = world
                .log
                .iter()
                .filter_map(|line| {
                    let (entry, next) = chain::open(line, &head).unwrap();
                    head = next;
                    (about(&ledger, &entry.event).environment == Some(env.id)).then_some(entry.seq)
                })
                .collect();
            assert_eq!(found.into_iter().rev().collect::<Vec<_>>(), every);
        }
    }
    assert!(in_then > 100, "moments at which nobody was in prove nothing: {in_then}");
}
