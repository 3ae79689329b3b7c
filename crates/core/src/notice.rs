//! What is worth telling somebody who is not looking: to whom, and in what words. Sending is a shell's work.

use crate::{
    event::{Actor, Entry, Event},
    ids::*,
    ledger::Ledger,
    movement::Movement,
    pass::{Approver, Cause, Pass, State},
    people::{Permission, Role},
    time::{Time, Ttl},
    words,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A pass that ends within this is worth a word.
pub const SOON: Ttl = Ttl::minutes(15);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    RequestWaits,
    Approved,
    Denied,
    Ready,
    EndsSoon,
    Ended,
    Movement,
    BreakGlass,
    CleanUpStuck,
}

impl Kind {
    pub const ALL: [Kind; 9] =
        [Kind::RequestWaits, Kind::Approved, Kind::Denied, Kind::Ready, Kind::EndsSoon, Kind::Ended, Kind::Movement, Kind::BreakGlass, Kind::CleanUpStuck];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::RequestWaits => "request_waits",
            Kind::Approved => "approved",
            Kind::Denied => "denied",
            Kind::Ready => "ready",
            Kind::EndsSoon => "ends_soon",
            Kind::Ended => "ended",
            Kind::Movement => "movement",
            Kind::BreakGlass => "break_glass",
            Kind::CleanUpStuck => "clean_up_stuck",
        }
    }
}

/// One thing to tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    pub kind: Kind,
    pub environment: Option<EnvironmentId>,
    pub to: BTreeSet<UserId>,
    /// One line.
    pub subject: String,
    pub text: String,
    /// A path of the console where one can do something about it.
    pub path: String,
}

/// What an entry of the log is worth telling, given the ledger that follows from it.
pub fn of_entry(ledger: &Ledger, entry: &Entry) -> Vec<Notice> {
    let told = || format!("{} {}.", words::by(ledger, entry), words::what(ledger, &entry.event));
    match &entry.event {
        Event::PassRequested { pass, wish, .. } => {
            let Some(pass) = ledger.pass(*pass) else { return vec![] };
            let who = name(ledger, pass.holder);
            if wish.break_glass {
                let everyone = |role: Role| matches!(role, Role::Admin | Role::Manager | Role::Approver | Role::Auditor);
                let to = with_role(ledger, pass, everyone);
                let subject = format!("{who} broke the glass on {}", place(ledger, pass));
                return vec![notice(Kind::BreakGlass, pass, to, subject, told(), format!("/requests/{}", pass.id))];
            }
            match pass.state() {
                State::Requested => {
                    let subject = format!("{who} asks for access to {}", place(ledger, pass));
                    vec![notice(Kind::RequestWaits, pass, approvers(ledger, pass), subject, told(), format!("/requests/{}", pass.id))]
                }
                _ => vec![],
            }
        }
        Event::PassAgreed { pass, .. } => {
            let Some(pass) = ledger.pass(*pass) else { return vec![] };
            let subject = format!("{} still waits for an approval on {}", name(ledger, pass.holder), place(ledger, pass));
            vec![notice(Kind::RequestWaits, pass, approvers(ledger, pass), subject, told(), format!("/requests/{}", pass.id))]
        }
        Event::PassApproved { pass, approver: Approver::Person(_), .. } => to_holder(ledger, *pass, Kind::Approved, "Your request was approved", told()),
        Event::PassDenied { pass, .. } => to_holder(ledger, *pass, Kind::Denied, "Your request was denied", told()),
        Event::PassReady { pass } => {
            to_holder(ledger, *pass, Kind::Ready, "Your access is ready", "The account is made and proved. Its password stands in the console.".to_owned())
        }
        Event::PassEnding { pass, cause: cause @ Cause::Revoked { .. } } => {
            to_holder(ledger, *pass, Kind::Ended, "Your access was ended", ended(cause, told()))
        }
        // what its holder gave back, and what was told when it was revoked, is no news
        Event::PassEnded { cause: Cause::Returned | Cause::Revoked { .. }, .. } => vec![],
        Event::PassEnded { pass, cause } => to_holder(ledger, *pass, Kind::Ended, "Your access has ended", ended(cause, told())),
        Event::MovementPlanned { environment, kind, cuts_at, .. } => {
            let to = movers(ledger, *environment, live(ledger, *environment, entry.at), entry.by);
            let text = format!("{} What you write until then goes with the database of before.", told());
            let ends = crate::words::cut(kind, *cuts_at);
            vec![movement(ledger, *environment, to, |name| format!("The database of {name} will be moved: access ends {ends}"), text)]
        }
        Event::MovementBegun { kind, .. } if !kind.replaces() => vec![],
        Event::MovementBegun { environment, .. } => {
            let held = ledger.passes().filter(|pass| pass.environment == *environment);
            let lost = held.filter(|pass| ledger.held(pass, entry.at).is_some_and(|held| held.until == entry.at));
            let to = movers(ledger, *environment, lost, entry.by);
            vec![movement(ledger, *environment, to, |name| format!("The database of {name} is being moved"), format!("{} All access to it has ended.", told()))]
        }
        Event::MovementWithdrawn { movement: id, .. } => {
            let Some(known) = ledger.movement(*id) else { return vec![] };
            let to = movers(ledger, known.environment, live(ledger, known.environment, entry.at), entry.by);
            let text = format!("{} The database stays as it is, and access goes on.", told());
            vec![movement(ledger, known.environment, to, |name| format!("The database of {name} will not be moved"), text)]
        }
        Event::MovementFailed { movement: id, .. } => {
            let Some(known) = ledger.movement(*id) else { return vec![] };
            // those who were told that it comes, and those who lost their access by it
            let told_or_lost =
                live(ledger, known.environment, entry.at).chain(lost_by(ledger, known, entry.at)).filter(|_| known.kind.is_ours() && known.kind.replaces());
            let to = movers(ledger, known.environment, told_or_lost, entry.by);
            let closed = match ledger.environment(known.environment).map(|env| env.frozen_by == Some(*id)) {
                Some(true) => " The environment stays closed until somebody runs it again or opens it.",
                _ if known.kind.replaces() => " The database of before is in place, and open.",
                _ => "",
            };
            vec![movement(ledger, known.environment, to, |name| format!("The movement of {name} failed"), format!("{}{closed}", told()))]
        }
        Event::MovementFinished { movement: id, .. } => {
            let Some(known) = ledger.movement(*id) else { return vec![] };
            // those who lost their access by it may ask again
            let to = movers(ledger, known.environment, lost_by(ledger, known, entry.at), entry.by);
            vec![movement(ledger, known.environment, to, |name| format!("The movement of {name} is finished"), told())]
        }
        Event::DatabaseReplaced { environment, .. } => {
            let lost = ledger.passes().filter(|pass| pass.environment == *environment);
            let lost = lost.filter(|pass| ledger.held(pass, entry.at).is_some_and(|held| held.until == entry.at));
            let to = movers(ledger, *environment, lost, entry.by);
            let text = format!("{} Nobody had told Daypass of it.", told());
            vec![movement(ledger, *environment, to, |name| format!("The database of {name} was replaced"), text)]
        }
        _ => vec![],
    }
}

fn live(ledger: &Ledger, environment: EnvironmentId, now: Time) -> impl Iterator<Item = &Pass> {
    ledger.open_passes().filter(move |pass| pass.environment == environment && ledger.over(pass, now).is_none())
}

/// The passes that this movement ended.
fn lost_by<'a>(ledger: &'a Ledger, movement: &Movement, now: Time) -> impl Iterator<Item = &'a Pass> {
    let (id, environment) = (movement.id, movement.environment);
    let lost = ledger.passes().filter(move |pass| pass.environment == environment);
    lost.filter(move |pass| matches!(ledger.over(pass, now), Some(Cause::Moved { movement }) if movement == id))
}

/// These holders, and those who may move the database; not who did it.
fn movers<'a>(ledger: &Ledger, environment: EnvironmentId, holders: impl Iterator<Item = &'a Pass>, by: Actor) -> BTreeSet<UserId> {
    let managers = ledger.users().filter(|user| ledger.may(user.id, Permission::Move, Some(environment))).map(|user| user.id);
    let mut to: BTreeSet<UserId> = holders.map(|pass| pass.holder).chain(managers).collect();
    if let Actor::User(by) = by {
        to.remove(&by);
    }
    to
}

fn movement(ledger: &Ledger, environment: EnvironmentId, to: BTreeSet<UserId>, subject: impl FnOnce(&str) -> String, text: String) -> Notice {
    let name = ledger.environment(environment).map(|env| env.spec.name.to_string()).unwrap_or_default();
    Notice { kind: Kind::Movement, environment: Some(environment), to, subject: subject(&name), text, path: format!("/environments/{name}") }
}

/// A pass that is about to end.
pub fn ends_soon(ledger: &Ledger, pass: &Pass, now: Time) -> Option<Notice> {
    let State::Ready { ends_at } = *pass.state() else { return None };
    let soon = pass.life > SOON && now < ends_at && ends_at <= now.after(SOON) && ledger.over(pass, now).is_none();
    let env = ledger.environment(pass.environment)?;
    let (then, path) = match ledger.policy(env).approvals(pass.wish.access) {
        0 => ("extend it before that", format!("/passes/{}/extend", pass.id)),
        _ => ("ask for another one now", format!("/environments/{}", env.spec.name)),
    };
    let text = format!("{} ends at {ends_at}. If you need longer, {then}.", pass.account);
    let subject = format!("Your access to {} ends soon", place(ledger, pass));
    soon.then(|| notice(Kind::EndsSoon, pass, [pass.holder].into(), subject, text, path))
}

/// Something does not get done.
pub fn stuck(ledger: &Ledger, what: &str, since: Time, why: &str) -> Notice {
    let to = ledger.users().filter(|user| user.all_roles().any(|(role, _)| *role == Role::Admin)).map(|user| user.id).collect();
    let text = format!("{what} has been in trouble since {since}: {why}. Nobody gets in with what has ended; Daypass goes on trying.");
    Notice { kind: Kind::CleanUpStuck, environment: None, to, subject: format!("{what} needs a look"), text, path: "/administration".to_owned() }
}

fn ended(cause: &Cause, told: String) -> String {
    match cause {
        Cause::Revoked { .. } => told,
        other => format!("It {}. Ask for a new one when you need it.", other.words()),
    }
}

fn notice(kind: Kind, pass: &Pass, to: BTreeSet<UserId>, subject: String, text: String, path: String) -> Notice {
    Notice { kind, environment: Some(pass.environment), to, subject, text, path }
}

fn to_holder(ledger: &Ledger, id: PassId, kind: Kind, subject: &str, text: String) -> Vec<Notice> {
    let Some(pass) = ledger.pass(id) else { return vec![] };
    let name = place(ledger, pass);
    vec![notice(kind, pass, [pass.holder].into(), format!("{subject}: {name}"), text, format!("/environments/{name}"))]
}

fn approvers(ledger: &Ledger, pass: &Pass) -> BTreeSet<UserId> {
    let may = |user: &crate::people::User| {
        user.id != pass.holder && !pass.agreed.contains(&user.id) && ledger.may(user.id, Permission::Approve, Some(pass.environment))
    };
    ledger.users().filter(|user| may(user)).map(|user| user.id).collect()
}

fn with_role(ledger: &Ledger, pass: &Pass, wanted: impl Fn(Role) -> bool) -> BTreeSet<UserId> {
    let Some(env) = ledger.environment(pass.environment) else { return BTreeSet::new() };
    let has = |user: &crate::people::User| {
        user.id != pass.holder && user.locked.is_none() && user.all_roles().any(|(role, scope)| wanted(*role) && scope.covers(env))
    };
    ledger.users().filter(|user| has(user)).map(|user| user.id).collect()
}

fn name(ledger: &Ledger, user: UserId) -> String {
    ledger.user(user).map(|user| user.name.to_string()).unwrap_or_default()
}

fn place(ledger: &Ledger, pass: &Pass) -> String {
    ledger.environment(pass.environment).map(|env| env.spec.name.to_string()).unwrap_or_default()
}
