//! Who had access when. It follows from the ledger alone: a pass, its environment and its holder remember the moments that count, so
//! that a look at any past moment replays nothing.

use crate::{
    ids::*,
    ledger::Ledger,
    pass::{Cause, Pass, State},
    time::Time,
};

/// A stretch of time in which a pass opened the door.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    pub pass: &'a Pass,
    pub from: Time,
    /// The end, when it is past; else the moment at which it will end if nothing happens before.
    pub until: Time,
    /// Why it ended; none while it lasts.
    pub cause: Option<Cause>,
}

impl Held<'_> {
    /// Whether the door was open at this moment.
    pub fn covers(&self, at: Time) -> bool {
        self.from <= at && at < self.until
    }
}

impl Ledger {
    /// When a pass counted; none for one that never became ready.
    pub fn held<'a>(&'a self, pass: &'a Pass, now: Time) -> Option<Held<'a>> {
        let from = pass.ready_at?;
        let env = self.environment(pass.environment);
        let locked = self.user(pass.holder).and_then(|user| user.locked_at.get(pass.locks as usize));
        let ends = [pass.ends_at, pass.ending_at, env.and_then(|env| env.epoch_ended_at(pass.epoch)), env.and_then(|env| env.removed_at), locked.copied()];
        let until = ends.into_iter().flatten().min()?;
        let cause = match &pass.state {
            State::Ended { cause, .. } | State::Ending { cause } => Some(cause.clone()),
            _ => self.over(pass, now),
        };
        Some(Held { pass, from, until: until.max(from), cause })
    }

    /// All that somebody held between two moments, the end excluded; the oldest first.
    pub fn held_between(&self, environment: Option<EnvironmentId>, from: Time, until: Time, now: Time) -> Vec<Held<'_>> {
        let here = self.passes().filter(|pass| environment.is_none_or(|id| id == pass.environment));
        let mut held: Vec<_> = here.filter_map(|pass| self.held(pass, now)).filter(|held| held.from < until && held.until > from).collect();
        held.sort_by_key(|held| (held.from, held.pass.id));
        held
    }
}
