//! Where the target's own firewall keeps people out (`Enforce::AzureSqlFirewall`): which rules there have to be, and what has
//! to be done for it. A rule bears the id of the allow entry that it is for; what bears none is not ours and stays.

use crate::{
    allow::Owner,
    environment::Environment,
    ids::{AllowId, UserId},
    ledger::Ledger,
    net::Range,
    pass::{Pass, State},
    refusal::Refusal,
    time::Time,
};
use std::{collections::BTreeMap, net::IpAddr};

/// A rule as the target has it: inclusive, IPv4 only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub name: String,
    pub from: String,
    pub to: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleAction {
    Remove(Rule),
    Set(Rule),
}

/// The beginning of the names of our rules.
const MARK: &str = "daypass-";

fn name(entry: AllowId, part: usize) -> String {
    format!("{MARK}{entry}-{part}")
}

/// Whether a rule of Azure's can let these addresses in.
pub fn check(range: &Range) -> Result<(), Refusal> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = range.bounds() else {
        return Err(Refusal::invalid(format!("{range} is of IPv6, which the firewall of Azure SQL does not have: enter an address of IPv4.")));
    };
    if let Some(inside) = [from, to].into_iter().find(|address| address.is_private() || address.is_link_local()) {
        return Err(Refusal::invalid(format!(
            "{inside} is an address of a private network, which Azure never sees: enter the public address that your network goes out with."
        )));
    }
    Ok(())
}

/// Whether Daypass made this rule.
pub fn is_ours(rule: &Rule) -> bool {
    rule.name.strip_prefix(MARK).and_then(|rest| rest.rsplit_once('-')).is_some_and(|(id, part)| id.parse::<AllowId>().is_ok() && part.parse::<usize>().is_ok())
}

/// The rules that the live entries of an environment ask for. None while it is closed.
fn wanted(ledger: &Ledger, env: &Environment, now: Time) -> BTreeMap<String, Rule> {
    if env.frozen_by.is_some() || env.removed() {
        return BTreeMap::new();
    }
    let live = ledger.allow().iter().filter(|entry| entry.environment == env.id && entry.is_live(env.epoch(), now));
    // an entry alone lets nobody in, so a rule stands only while its owner has a pass to come in with
    let has_account = |pass: &&Pass| matches!(pass.state(), State::Approved { .. } | State::Ready { .. }) && ledger.over(pass, now).is_none();
    let holders: Vec<UserId> = ledger.open_passes().filter(|pass| pass.environment == env.id).filter(has_account).map(|pass| pass.holder).collect();
    let used = live.filter(|entry| match entry.owner {
        Owner::Person(person) => holders.contains(&person),
        Owner::Shared => !holders.is_empty(),
    });
    let rules = used.flat_map(|entry| {
        entry.ranges.iter().enumerate().filter_map(|(part, range)| {
            let (IpAddr::V4(from), IpAddr::V4(to)) = range.bounds() else { return None };
            let name = name(entry.id, part);
            Some((name.clone(), Rule { name, from: from.to_string(), to: to.to_string() }))
        })
    });
    rules.collect()
}

/// What has to be done, ends before beginnings.
pub fn plan(ledger: &Ledger, env: &Environment, observed: &[Rule], now: Time) -> Vec<RuleAction> {
    let wanted = wanted(ledger, env, now);
    let ours = observed.iter().filter(|rule| is_ours(rule));
    let gone = ours.filter(|rule| !wanted.contains_key(&rule.name)).cloned().map(RuleAction::Remove);
    let missing = wanted.values().filter(|rule| !observed.contains(rule)).cloned().map(RuleAction::Set);
    gone.chain(missing).collect()
}

/// Rules that somebody else made: each is a way in that Daypass does not know of.
pub fn drift(observed: &[Rule]) -> Vec<Rule> {
    observed.iter().filter(|rule| !is_ours(rule)).cloned().collect()
}
