//! Locks with an order. Two locks that are taken in two orders stop a process for ever, and only under load; so each lock has a rank, a
//! thread takes them in ascending order only, and a debug build (all tests) ends where one is not. Who holds a lock asks nobody.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// In the order in which a thread may take them. None of them is held while something is waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// What the log's lines are about. The writer holds it while it publishes.
    Index,
    /// Live sessions.
    Sessions,
    /// What one session's client is to be told.
    Word,
    /// Connections that have not logged in.
    Places,
    /// And those of the API on which nobody has signed in.
    Strangers,
    /// Secrets of what is live.
    Vault,
    /// What does not work at the moment.
    Troubles,
    Positions,
    Drift,
    /// Logins that are under way at the targets.
    Doors,
    /// Whose sessions are open.
    Holders,
    /// Accounts of trials that are under way.
    Trials,
    /// Standing accounts that are looked at more closely.
    Watched,
    /// The administrator's ways to the targets, and how much room those have.
    Targets,
    Rooms,
    /// Where the present ledger lies: held for as long as it takes to look there.
    Ledger,
}

pub struct Ranked<T> {
    rank: Rank,
    inner: Mutex<T>,
}

impl<T> Ranked<T> {
    pub const fn new(rank: Rank, value: T) -> Self {
        Ranked { rank, inner: Mutex::new(value) }
    }

    /// A panic while it was held leaves nothing half done in here: every change is one assignment or one call of a collection.
    pub fn lock(&self) -> Held<'_, T> {
        #[cfg(debug_assertions)]
        held::take(self.rank);
        Held { guard: self.inner.lock().unwrap_or_else(PoisonError::into_inner), rank: self.rank }
    }
}

pub struct Held<'a, T> {
    guard: MutexGuard<'a, T>,
    rank: Rank,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        let _ = self.rank;
        #[cfg(debug_assertions)]
        held::give_back(self.rank);
    }
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    pub fn take(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            if let Some(higher) = held.iter().find(|held| **held >= rank) {
                // a panic would be caught by the runtime, and the next one would wait for ever
                eprintln!("locks in the wrong order: {rank:?} while {higher:?} is held\n{}", std::backtrace::Backtrace::force_capture());
                std::process::abort();
            }
            held.push(rank);
        });
    }

    pub fn give_back(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|held| *held == rank) {
                held.remove(at);
            }
        });
    }
}
