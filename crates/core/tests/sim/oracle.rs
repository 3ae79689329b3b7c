//! What must be true, told from the log's events alone and without the ledger: who may be in, and since when not any more.

use daypass_core::{
    allow::Owner,
    event::{Actor, Entry, Event},
    ids::*,
    net::Range,
    pass::{Access, Approver, Digest},
    people::Scope,
    time::{Time, Ttl},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

#[derive(Default)]
pub struct Oracle {
    passes: BTreeMap<PassId, Known>,
    pub accounts: BTreeSet<String>,
    allow: BTreeMap<AllowId, Allowed>,
    /// Environments that are closed for a movement.
    frozen: BTreeMap<EnvironmentId, MovementId>,
    /// Movements that keep their environment closed when they fail.
    stay_closed: BTreeSet<MovementId>,
    /// How many have to agree to a change, by environment.
    wanted: BTreeMap<EnvironmentId, usize>,
}

struct Known {
    environment: EnvironmentId,
    holder: UserId,
    access: Access,
    /// Who agreed, and to what.
    agreed: BTreeMap<UserId, Digest>,
    approved: bool,
    ready: bool,
    ends_at: Option<Time>,
    /// What was asked for, and in true time, when it was approved and when it has to be over: what counts is how long it lasted, whatever
    /// clocks said meanwhile.
    life: Ttl,
    approved_at: i64,
    due: Option<i64>,
    /// In true time, when the event was durable.
    over_since: Option<i64>,
    /// Final: nothing may happen to it any more.
    ended: bool,
}

struct Allowed {
    environment: EnvironmentId,
    owner: Owner,
    ranges: Vec<Range>,
    /// In true time.
    due: i64,
    over_since: Option<i64>,
}

/// A change that was committed reaches every node that runs within this (simulated microseconds).
pub const REACH: i64 = 1_000_000;
/// After the deadline of a pass, no byte later than this.
pub const FENCE: i64 = 250_000;
/// What the policy of the simulation allows a pass in all: 24 hours, and a second for the steps between two clocks.
const LONGEST: i64 = 24 * 3600 * 1_000_000 + REACH;

impl Oracle {
    /// Learns of an event that became durable at true time `now`.
    pub fn see(&mut self, entry: &Entry, now: i64) -> Result<(), String> {
        let at = entry.at;
        match &entry.event {
            Event::PolicySet { scope: Scope::Environment(environment), policy } => {
                self.wanted.insert(*environment, policy.approvals(Access::ReadWrite));
            }
            Event::PassRequested { pass, environment, holder, account, wish, life } => {
                self.open(*environment)?;
                if !self.accounts.insert(account.to_string()) {
                    return Err(format!("I4: the account {account} was given twice"));
                }
                let fresh = Known {
                    environment: *environment,
                    holder: *holder,
                    access: wish.access,
                    agreed: BTreeMap::new(),
                    approved: false,
                    ready: false,
                    ends_at: None,
                    life: *life,
                    approved_at: 0,
                    due: None,
                    over_since: None,
                    ended: false,
                };
                self.passes.insert(*pass, fresh);
            }
            Event::PassAgreed { pass, by, digest, .. } => self.agreed(*pass, *by, entry.by, *digest)?,
            Event::PassApproved { pass, approver, ends_at, digest, .. } => {
                if let Approver::Person(approver) = approver {
                    let digest = digest.ok_or_else(|| format!("I5: pass {pass} was approved without saying what"))?;
                    // who agreed before says it again when another's word has come to count: of two who agreed, one had been locked meanwhile
                    if self.known(*pass)?.agreed.get(approver) != Some(&digest) {
                        self.agreed(*pass, *approver, entry.by, digest)?;
                    }
                }
                let environment = self.known(*pass)?.environment;
                self.open(environment)?;
                let wanted = self.wanted.clone();
                let known = self.known(*pass)?;
                let most = wanted.get(&known.environment).filter(|_| known.access == Access::ReadWrite).copied().unwrap_or_default();
                if known.agreed.len() < most {
                    return Err(format!("I5: pass {pass} was approved by {} of {most}", known.agreed.len()));
                }
                if known.over_since.is_some() || known.approved {
                    return Err(format!("I4: pass {pass} was approved after it was over, or twice"));
                }
                if ends_at.since(entry.at) > known.life.micros() {
                    return Err(format!("I1: pass {pass} was approved for longer than was asked for"));
                }
                (known.approved, known.ends_at, known.approved_at) = (true, Some(*ends_at), now);
                known.due = Some(now + known.life.micros());
            }
            Event::PassReady { pass } => {
                let known = self.known(*pass)?;
                if !known.approved {
                    return Err(format!("I5: pass {pass} became ready without an approval"));
                }
                if known.over_since.is_some() {
                    return Err(format!("I4: pass {pass} became ready after it was over"));
                }
                known.ready = true;
            }
            Event::PassExtended { pass, ends_at } => {
                let holder = self.known(*pass)?.holder;
                let known = self.known(*pass)?;
                if entry.by != Actor::User(holder) || known.over_since.is_some() || known.ends_at.is_none_or(|old| entry.at >= old || *ends_at <= old) {
                    return Err(format!("I4: the end of pass {pass} was moved when it could not be"));
                }
                let more = known.ends_at.map_or(0, |old| ends_at.since(old));
                known.ends_at = Some(*ends_at);
                known.due = known.due.map(|due| due + more);
                if known.due.is_some_and(|due| due - known.approved_at > LONGEST) {
                    return Err(format!("I1: pass {pass} lasts longer than its policy allows"));
                }
            }
            Event::PassEnding { pass, .. } => self.over(*pass, now, false)?,
            Event::PassEnded { pass, .. } | Event::PassDenied { pass, .. } | Event::PassWithdrawn { pass } | Event::PassLapsed { pass } => {
                self.over(*pass, now, true)?;
            }
            Event::UserLocked { user, .. } => self.passes.values_mut().filter(|p| p.holder == *user).for_each(|p| p.end(now)),
            Event::MovementPlanned { movement, stay_closed: true, .. } => {
                self.stay_closed.insert(*movement);
            }
            Event::MovementFailed { movement, .. } if !self.stay_closed.contains(movement) => self.frozen.retain(|_, running| running != movement),
            Event::MovementBegun { movement, environment, stay_closed, .. } => {
                if *stay_closed {
                    self.stay_closed.insert(*movement);
                }
                self.frozen.insert(*environment, *movement);
                self.epoch_ends(*environment, now);
            }
            Event::MovementFinished { movement, .. } | Event::MovementWithdrawn { movement, .. } => self.frozen.retain(|_, running| running != movement),
            Event::DatabaseReplaced { environment, .. } => self.epoch_ends(*environment, now),
            Event::EnvironmentRemoved { environment } => self.epoch_ends(*environment, now),
            Event::AllowAdded { entry, environment, owner, ranges, ends_at, .. } => {
                self.allow.insert(
                    *entry,
                    Allowed { environment: *environment, owner: *owner, ranges: ranges.clone(), due: now + ends_at.since(at), over_since: None },
                );
            }
            Event::AllowRenewed { entry, ends_at } => {
                let known = self.allow.get_mut(entry).ok_or("an unknown allow entry was renewed")?;
                if known.over_since.is_some() {
                    return Err("I4: an allow entry that was over counts again".to_owned());
                }
                known.due = known.due.max(now + ends_at.since(at));
            }
            Event::AllowRemoved { entry } => {
                let entry = self.allow.get_mut(entry).ok_or("an unknown allow entry was removed")?;
                entry.over_since.get_or_insert(now);
            }
            _ => {}
        }
        Ok(())
    }

    fn agreed(&mut self, pass: PassId, approver: UserId, by: Actor, digest: Digest) -> Result<(), String> {
        let known = self.known(pass)?;
        if approver == known.holder || by != Actor::User(approver) {
            return Err(format!("I5: pass {pass} was approved by its holder, or in another's name"));
        }
        if known.agreed.values().any(|other| *other != digest) || known.agreed.insert(approver, digest).is_some() {
            return Err(format!("I5: pass {pass} was approved twice by one person, or as two different requests"));
        }
        Ok(())
    }

    fn known(&mut self, pass: PassId) -> Result<&mut Known, String> {
        let known = self.passes.get_mut(&pass).ok_or("an event names a pass that nobody asked for")?;
        if known.ended {
            return Err(format!("I4: something happened to pass {pass} after its end"));
        }
        Ok(known)
    }

    fn over(&mut self, pass: PassId, now: i64, ended: bool) -> Result<(), String> {
        let known = self.known(pass)?;
        known.end(now);
        known.ended = ended;
        Ok(())
    }

    fn epoch_ends(&mut self, environment: EnvironmentId, now: i64) {
        self.passes.values_mut().filter(|p| p.environment == environment).for_each(|p| p.end(now));
        self.allow.values_mut().filter(|a| a.environment == environment).for_each(|a| _ = a.over_since.get_or_insert(now));
    }

    /// A byte passes, or somebody is let in, at true time `now`: may it be so?
    pub fn may_pass(&self, pass: PassId, address: IpAddr, now: i64, opening: bool) -> Result<(), String> {
        let known = self.passes.get(&pass).ok_or("I5: a session without a pass in the log")?;
        if !known.ready || !known.approved {
            return Err(format!("I5: a session on pass {pass} before it was ready"));
        }
        if known.over_since.is_some_and(|since| now > since + REACH) {
            return Err(format!("I1/I8: a byte on pass {pass}, {} us after it was ended", now - known.over_since.unwrap_or(now)));
        }
        let late = if opening { 0 } else { FENCE };
        // the node that has it may have learned of it this much later than the one that wrote it
        let late = late + REACH;
        if known.due.is_none_or(|due| now > due + late) {
            return Err(format!("I1/I2: pass {pass} was used after its end, {} us late in true time", now - known.due.unwrap_or(now)));
        }
        let covers = |a: &&Allowed| {
            let owner = a.owner == Owner::Shared || a.owner == Owner::Person(known.holder);
            let in_time = a.over_since.is_none_or(|since| now <= since + REACH) && now <= a.due + late;
            owner && in_time && a.environment == known.environment && a.ranges.iter().any(|range| range.contains(address))
        };
        if !self.allow.values().any(|a| covers(&a)) {
            return Err(format!("I1: a byte from {address}, which nobody allowed"));
        }
        Ok(())
    }

    /// When a pass has to be over, in true time.
    pub fn due(&self, pass: PassId) -> Option<i64> {
        self.passes.get(&pass)?.due
    }

    /// Passes that were over at `now`, by what the log says or by the clock, and are not final.
    pub fn unfinished(&self, now: i64) -> Vec<PassId> {
        let over = |p: &&Known| p.over_since.is_some_and(|since| since <= now) || p.due.is_some_and(|due| due <= now);
        self.passes.iter().filter(|(_, p)| !p.ended && over(p)).map(|(id, _)| *id).collect()
    }

    /// I8: nothing new begins while the environment is closed for a movement.
    fn open(&self, environment: EnvironmentId) -> Result<(), String> {
        match self.frozen.get(&environment) {
            Some(movement) => Err(format!("I8: access was given while movement {movement} had closed the environment")),
            None => Ok(()),
        }
    }

    pub fn is_frozen(&self, environment: EnvironmentId) -> bool {
        self.frozen.contains_key(&environment)
    }
}

impl Known {
    fn end(&mut self, now: i64) {
        self.over_since.get_or_insert(now);
    }
}
