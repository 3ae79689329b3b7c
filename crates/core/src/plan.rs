//! What has to be done on one target: compares what the ledger wants with what was observed there. Stateless and idempotent;
//! every action is found again by the account's name, so a crash between any two needs no special path.

use crate::{
    environment::{Enforce, Environment},
    ids::*,
    ledger::Ledger,
    names::{AccountName, DatabaseName},
    pass::{Access, State},
    time::Time,
};
use std::collections::{BTreeMap, BTreeSet};

/// An account on the target that bears the marker of this installation, or the name of one of its passes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedAccount {
    pub name: String,
    pub can_login: bool,
    /// Seconds until the target's own clock ends it, where an engine has such an end; negative when that is over.
    pub expires_in: Option<i64>,
    /// What it is a member of, and what else it may, in the engine's own words; none: it could not be seen.
    pub rights: Option<BTreeSet<String>>,
}

/// A connection of such an account, under the number that the target gave it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Backend {
    pub account: String,
    pub id: u32,
}

/// What one look at a target showed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    pub accounts: Vec<ObservedAccount>,
    pub backends: Vec<Backend>,
    /// How many connections of our accounts the target has room for, with those that are there; none: it does not say.
    pub room: Option<u32>,
    /// Databases that could not be looked into: what is not seen in them may be there all the same.
    pub unseen: BTreeSet<DatabaseName>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Make the account (or put right a half-made one), then prove it by a real login.
    Provide { pass: PassId, account: AccountName, access: Access, database: DatabaseName, environment: EnvironmentId, ends_at: Time },
    /// A ready account that somebody altered or dropped behind our back: put it back as it should be.
    Restore { pass: PassId, account: AccountName, access: Access, database: DatabaseName, environment: EnvironmentId, ends_at: Time },
    /// Lock the account, end its backends, give away what it owns, drop it.
    Remove { account: String, pass: Option<PassId> },
    /// Nothing of the pass is left on the target.
    ReportGone { pass: PassId },
}

/// How far the end on the target's clock may be from the one that is wanted (seconds): what rounding and a slow answer come to.
const EXPIRY_SLACK: i64 = 3;

/// Accounts on `target` of which nothing may be in: passes that are over, and strays.
pub fn ended<'a>(ledger: &Ledger, observed: &'a Observation, now: Time) -> Vec<&'a str> {
    let is_good = |name: &str| ledger.pass_of_account(name).is_some_and(|pass| !pass.state().is_final() && ledger.over(pass, now).is_none());
    let names: BTreeSet<&str> =
        observed.accounts.iter().map(|account| account.name.as_str()).chain(observed.backends.iter().map(|backend| backend.account.as_str())).collect();
    names.into_iter().filter(|name| !is_good(name)).collect()
}

/// What the account of an environment and access level has, in the engine's own words.
pub type Wanted<'a> = &'a dyn Fn(&Environment, Access) -> BTreeSet<String>;

/// The actions for `target`, ends before beginnings: to end access is never made to wait.
pub fn plan(ledger: &Ledger, target: TargetId, observed: &Observation, wanted: Wanted<'_>, now: Time) -> Vec<Action> {
    let there: BTreeMap<&str, &ObservedAccount> = observed.accounts.iter().map(|a| (a.name.as_str(), a)).collect();
    let connected: BTreeSet<&str> = observed.backends.iter().map(|backend| backend.account.as_str()).collect();
    // where to log in is a moment, an account that cannot is as it should be
    let by_moment = ledger.target(target).is_some_and(|target| target.spec.engine.logs_in_by_moment());
    let environments: BTreeMap<EnvironmentId, &Environment> = ledger.environments_on(target).map(|env| (env.id, env)).collect();
    let mut ends = Vec::new();
    let mut begins = Vec::new();
    for pass in ledger.open_passes() {
        let Some(env) = environments.get(&pass.environment) else { continue };
        let seen = there.get(pass.account.as_str());
        // it has no account of its own: the gateway goes in as the standing one
        if pass.wish.standing.is_some() {
            match (ledger.over(pass, now), pass.state()) {
                (Some(_), State::Requested) => {}
                (Some(_), _) => ends.push(Action::ReportGone { pass: pass.id }),
                (None, State::Approved { ends_at }) if env.frozen_by.is_none() && pass.wish.starts_at.is_none_or(|start| now >= start) => {
                    let (account, database) = (pass.account.clone(), env.spec.database.clone());
                    begins.push(Action::Provide { pass: pass.id, account, access: pass.wish.access, database, environment: env.id, ends_at: *ends_at });
                }
                (None, _) => {}
            }
            continue;
        }
        if ledger.over(pass, now).is_some() {
            match seen {
                Some(account) => ends.push(Action::Remove { account: account.name.clone(), pass: Some(pass.id) }),
                None if observed.unseen.contains(&env.spec.database) => {}
                // the account is gone and somebody is still in: that is no end
                None if connected.contains(pass.account.as_str()) => {}
                None if *pass.state() != State::Requested => ends.push(Action::ReportGone { pass: pass.id }),
                None => {}
            }
            continue;
        }
        // a frozen environment has no pass that is not over, but a request may wait
        if env.frozen_by.is_some() {
            continue;
        }
        let (id, account, access) = (pass.id, pass.account.clone(), pass.wish.access);
        let (database, environment) = (env.spec.database.clone(), env.id);
        match *pass.state() {
            // one that is to start later is made when it starts
            State::Approved { .. } if pass.wish.starts_at.is_some_and(|start| now < start) => {}
            State::Approved { ends_at } => begins.push(Action::Provide { pass: id, account, access, database, environment, ends_at }),
            State::Ready { ends_at }
                if !seen.is_some_and(|a| (by_moment || a.can_login) && ends_as_wanted(a, ends_at, now) && has(a, &wanted(env, access))) =>
            {
                begins.push(Action::Restore { pass: id, account, access, database, environment, ends_at });
            }
            _ => {}
        }
    }
    // the same server may be two targets, under two names: an open pass of the other one is no stray here
    let is_open = |account: &&ObservedAccount| ledger.pass_of_account(&account.name).is_some_and(|pass| !pass.state().is_final());
    let strays = observed.accounts.iter().filter(|account| !is_open(account));
    ends.extend(strays.map(|a| Action::Remove { account: a.name.clone(), pass: None }));
    ends.extend(begins);
    ends
}

/// Whether the target's own clock ends the account when it should be ended.
fn ends_as_wanted(account: &ObservedAccount, ends_at: Time, now: Time) -> bool {
    let wanted = ends_at.since(now) / 1_000_000;
    account.expires_in.is_none_or(|left| left.abs_diff(wanted) <= EXPIRY_SLACK as u64)
}

fn has(account: &ObservedAccount, wanted: &BTreeSet<String>) -> bool {
    account.rights.as_ref().is_none_or(|rights| rights == wanted)
}

/// The next moment at which a plan can change by the clock alone.
pub fn next_deadline(ledger: &Ledger, target: TargetId, now: Time) -> Option<Time> {
    // where the target's own firewall keeps people out, the end of an address is a deadline as well
    let by_firewall = |id: EnvironmentId| ledger.environment(id).is_some_and(|env| env.target == target && env.spec.enforce == Enforce::AzureSqlFirewall);
    let entries = ledger.allow().iter().filter(|entry| by_firewall(entry.environment) && entry.removed_at.is_none()).map(|entry| entry.ends_at);
    ledger
        .open_passes()
        .filter(|pass| ledger.environment(pass.environment).is_some_and(|env| env.target == target))
        .flat_map(|pass| match pass.state() {
            State::Approved { ends_at } => [Some(*ends_at), pass.wish.starts_at],
            State::Ready { ends_at } => [Some(*ends_at), None],
            _ => [None, None],
        })
        .flatten()
        .chain(entries)
        .filter(|ends_at| *ends_at > now)
        .min()
}
