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

/// An account on the target that bears the marker of this installation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedAccount {
    pub name: String,
    pub can_login: bool,
    /// Connections of this account that the target has now.
    pub backends: u32,
}

/// What one look at a target showed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    pub accounts: Vec<ObservedAccount>,
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

/// The actions for `target`, ends before beginnings: to end access is never made to wait.
pub fn plan(ledger: &Ledger, target: TargetId, observed: &Observation, now: Time) -> Vec<Action> {
    let there: BTreeMap<&str, &ObservedAccount> = observed.accounts.iter().map(|a| (a.name.as_str(), a)).collect();
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
            State::Ready { ends_at } if !seen.is_some_and(|a| a.can_login) => {
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
