//! An event in a sentence, for people who read the log.

use crate::{
    allow::Owner,
    event::{Actor, Entry, Event},
    ids::*,
    ledger::Ledger,
    movement::{MovementKind, Phase},
    names::shown,
    pass::{Approver, Cause},
    people::Scope,
    time::Time,
};

/// Who did it: a person's name, or Daypass itself.
pub fn by(ledger: &Ledger, entry: &Entry) -> String {
    match entry.by {
        Actor::User(user) => person(ledger, user),
        Actor::System => "Daypass".to_owned(),
    }
}

/// What was done. It goes on after the name of who did it: "maria" + "asked for ...".
pub fn what(ledger: &Ledger, event: &Event) -> String {
    let env = |id: &EnvironmentId| ledger.environment(*id).map_or_else(|| id.to_string(), |env| env.spec.name.to_string());
    let of = |id: &PassId| ledger.pass(*id).map_or_else(|| id.to_string(), |pass| format!("{} on {}", pass.account, env(&pass.environment)));
    let place = |scope: &Scope| match scope {
        Scope::All => "everywhere".to_owned(),
        Scope::Project(id) => format!("in project {}", ledger.project_name(*id).map_or_else(|| id.to_string(), ToString::to_string)),
        Scope::Environment(id) => format!("on {}", env(id)),
    };
    let word = |word: &Option<crate::names::Reason>| word.as_ref().map(|word| format!(": {word}")).unwrap_or_default();
    match event {
        Event::StoreCreated { .. } => "began this log".to_owned(),
        Event::UserAdded { name, .. } => format!("added {name}"),
        Event::UserLocked { user, why } => format!("locked {}: {why}", person(ledger, *user)),
        Event::UserUnlocked { user } => format!("unlocked {}", person(ledger, *user)),
        Event::PasswordChanged { user } => format!("set a new password for {}", person(ledger, *user)),
        Event::SecondFactorSet { user } => format!("set a second factor for {}", person(ledger, *user)),
        Event::SecondFactorRemoved { user } => format!("removed the second factor of {}", person(ledger, *user)),
        Event::UserLinked { user, issuer, subject } => format!("knows {} as {} of {}", person(ledger, *user), shown(subject), shown(issuer)),
        Event::MailSet { user, mail: Some(_) } => format!("set an address for the notices of {}", person(ledger, *user)),
        Event::MailSet { user, mail: None } => format!("took away the address for the notices of {}", person(ledger, *user)),
        Event::GroupRolesSet { user, roles } => {
            let roles: Vec<String> = roles.iter().map(|(role, scope)| format!("{} {}", role.as_str(), place(scope))).collect();
            let roles = if roles.is_empty() { "no role".to_owned() } else { roles.join(", ") };
            format!("gave {} by their groups: {roles}", person(ledger, *user))
        }
        Event::RoleGiven { user, role, scope } => format!("made {} {} {}", person(ledger, *user), role.as_str(), place(scope)),
        Event::RoleTaken { user, role, scope } => format!("took from {} the role {} {}", person(ledger, *user), role.as_str(), place(scope)),
        Event::TokenAdded { user, label, ends_at, .. } => {
            let ends = minute(ends_at);
            format!("signed {} in until {ends} ({})", person(ledger, *user), shown(label))
        }
        Event::TokenRemoved { .. } => "ended a sign-in".to_owned(),
        Event::ProjectAdded { name, .. } => format!("added the project {name}"),
        Event::PolicySet { scope, policy } => format!("set the policy {} {}", policy.name, place(scope)),
        Event::TargetAdded { spec, .. } => format!("added the target {}:{}", spec.host, spec.port),
        Event::TargetChanged { spec, .. } => format!("changed the target {}:{}", spec.host, spec.port),
        Event::EnvironmentAdded { spec, .. } => format!("added the environment {}", spec.name),
        Event::EnvironmentRemoved { environment } => format!("removed the environment {}", env(environment)),
        Event::AccountsSet { environment, grants, heir } => {
            let heir = heir.as_deref().map_or_else(|| "the owner of the database".to_owned(), shown);
            let how = match grants {
                crate::environment::Grants::Granted => "rights per schema",
                crate::environment::Grants::Predefined => "the server's own roles",
            };
            format!("set that accounts of {} get {how}, and that {heir} may use what they leave", env(environment))
        }
        Event::MasksSet { environment, masks } => {
            let masks: Vec<String> = masks.iter().map(|(column, mask)| format!("{column} = {mask}")).collect();
            let masks = if masks.is_empty() { "nothing".to_owned() } else { masks.join(", ") };
            format!("set what movements mask in {}: {masks}", env(environment))
        }
        Event::DatabaseIdentified { environment, .. } => format!("took note of which database {} is", env(environment)),
        Event::DatabaseReplaced { environment, .. } => format!("found that the database of {} was replaced; all access to it ended", env(environment)),
        Event::FailoverExpected { environment, until } => format!("said that a replica may take over for {} until {}", env(environment), minute(until)),
        Event::DatabaseSwept { environment, swept } => {
            let lines: Vec<String> = swept.iter().map(|line| format!("{} ({})", shown(&line.what), shown(&line.done))).collect();
            format!("found in the database of {} what belongs to other environments: {}", env(environment), lines.join("; "))
        }
        Event::DriftFound { target, finding } => format!("found on {} what it did not make: {}", server(ledger, *target), shown(&finding.words())),
        Event::DriftGone { target, finding } => format!("does not find any more on {}: {}", server(ledger, *target), shown(&finding.words())),
        Event::FileFetched { file, .. } => format!("fetched the dump {file}"),
        Event::DriftJudged { target, finding, verdict } => {
            let said = match verdict {
                crate::drift::Verdict::Mine => "belongs there",
                crate::drift::Verdict::Ignored => "is not worth a word",
                crate::drift::Verdict::End => "is to go",
            };
            format!("said of {} that this {said}: {}", server(ledger, *target), shown(&finding.words()))
        }
        Event::KindSet { environment, kind } => format!("made {} {}", env(environment), kind.as_str()),
        Event::StandingAdded { environment, name, note, .. } => {
            format!("keeps the standing account {} of {}{}", shown(name.as_str()), env(environment), word(note))
        }
        Event::StandingRemoved { environment, name, .. } => format!("keeps the standing account {} of {} no longer", shown(name.as_str()), env(environment)),
        Event::StandingRevealed { standing, why } => format!("was shown the password of {}: {why}", account(ledger, *standing)),
        Event::StandingRotationAsked { standing } => format!("asked for a new password of {}", account(ledger, *standing)),
        Event::StandingRotating { standing } => format!("is changing the password of {}", account(ledger, *standing)),
        Event::StandingRotated { standing } => format!("changed the password of {}, and proved it by a login", account(ledger, *standing)),
        Event::RemoteDesktopSet { environment, on } => format!("turned remote desktop of {} {}", env(environment), if *on { "on" } else { "off" }),
        Event::MachineAdded { environment, host, user, note, .. } => {
            format!("keeps the credentials of {} on {host} for {}{}", shown(user), env(environment), word(note))
        }
        Event::MachineRemoved { environment, host, .. } => format!("keeps the credentials of {host} for {} no longer", env(environment)),
        Event::MachineRevealed { machine, why } => format!("was shown {}: {why}", place_of(ledger, *machine)),
        Event::AllowAdded { environment, owner, ranges, ends_at, note, .. } => {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            let whom = match owner {
                Owner::Person(user) => person(ledger, *user),
                Owner::Shared => "everyone".to_owned(),
            };
            {
                let ends = minute(ends_at);
                format!("allowed {} on {} for {whom} until {ends}{}", ranges.join(";"), env(environment), word(note))
            }
        }
        Event::AllowRenewed { entry, ends_at } => {
            let known = ledger.allow().get(*entry);
            let ranges: Vec<String> = known.map(|entry| entry.ranges.iter().map(ToString::to_string).collect()).unwrap_or_default();
            format!("allowed {} on {} for longer, until {}", ranges.join(";"), known.map(|entry| env(&entry.environment)).unwrap_or_default(), minute(ends_at))
        }
        Event::AllowRemoved { entry } => {
            let known = ledger.allow().get(*entry);
            let ranges: Vec<String> = known.map(|entry| entry.ranges.iter().map(ToString::to_string).collect()).unwrap_or_default();
            format!("took back {} on {}", ranges.join(";"), known.map(|entry| env(&entry.environment)).unwrap_or_default())
        }
        Event::PassRequested { pass, wish, life, .. } => {
            let how = if wish.break_glass { "broke the glass and took" } else { "asked for" };
            let access = wish.access.as_str().replace('_', "-");
            let more: Vec<String> =
                [wish.category.as_ref().map(ToString::to_string), wish.ticket.as_ref().map(ToString::to_string)].into_iter().flatten().collect();
            let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
            format!("{how} {} ({access}) for {life}: {}{more}", of(pass), wish.reason)
        }
        Event::PassAgreed { pass, word: said, .. } => format!("agreed to {}, which waits for another approval{}", of(pass), word(said)),
        Event::PassApproved { pass, approver, ends_at, word: said, .. } => match approver {
            Approver::Person(_) => {
                let ends = minute(ends_at);
                format!("approved {} until {ends}{}", of(pass), word(said))
            }
            Approver::Policy(name) => {
                let ends = minute(ends_at);
                format!("got {} until {ends} by policy {name}", of(pass))
            }
            Approver::BreakGlass => {
                let ends = minute(ends_at);
                format!("got {} until {ends} without an approval", of(pass))
            }
        },
        Event::PassDenied { pass, why } => format!("denied {}: {why}", of(pass)),
        Event::PassWithdrawn { pass } => format!("withdrew the request for {}", of(pass)),
        Event::PassLapsed { pass } => format!("let the request for {} lapse: nobody approved it in time, or it could not be any more", of(pass)),
        Event::PassReady { pass } => format!("made {}, and proved it by a login", of(pass)),
        Event::PassRevealed { pass } => format!("was shown the password of {}", of(pass)),
        Event::PassReviewed { pass, word } => format!("reviewed {}: {word}", of(pass)),
        Event::PassExtended { pass, ends_at } => {
            let ends = minute(ends_at);
            format!("extended {} until {ends}", of(pass))
        }
        Event::PassLeft { pass, left, dropped } => {
            let left: Vec<String> = left.iter().map(|thing| shown(thing)).collect();
            format!(
                "found what {} leaves behind ({}): {}",
                of(pass),
                if *dropped { "it is dropped" } else { "what runs is dropped, data goes to a role without rights" },
                left.join(", ")
            )
        }
        Event::PassEnding { pass, cause } => match cause {
            Cause::Returned => format!("gave {} back", of(pass)),
            Cause::Revoked { why, .. } => format!("revoked {}: {why}", of(pass)),
            other => format!("ended {}, which {}", of(pass), other.in_full()),
        },
        Event::PassEnded { pass, cause } => format!("removed {}, which {}; nothing of it is left", of(pass), cause.in_full()),
        Event::MovementPlanned { environment, kind, why, cuts_at, .. } => {
            format!("planned to move the database of {} ({}); access ends {}: {why}", env(environment), order(ledger, kind), cut(kind, *cuts_at))
        }
        Event::MovementWithdrawn { movement, why } => {
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("gave up the movement of {} before access ended{why}", moved(ledger, *movement))
        }
        Event::MovementBegun { environment, kind: kind @ MovementKind::Export { .. }, why, .. } => {
            format!("began to copy the database of {} ({}): {why}", env(environment), order(ledger, kind))
        }
        Event::MovementBegun { environment, kind, why, .. } => format!("closed {} to move its database ({}): {why}", env(environment), order(ledger, kind)),
        Event::MovementReached { movement, phase } => format!("went on with the movement of {}: {}", moved(ledger, *movement), doing(*phase)),
        Event::MovementSwept { movement, swept } => {
            let lines: Vec<String> = swept.iter().map(|line| format!("{} ({})", shown(&line.what), shown(&line.done))).collect();
            let lines = if lines.is_empty() { "nothing had to go".to_owned() } else { lines.join("; ") };
            format!("swept the new database of {}: {lines}", moved(ledger, *movement))
        }
        Event::MovementFailed { movement, why } => format!("said that the movement of {} failed: {why}", moved(ledger, *movement)),
        Event::MovementRetried { movement } => format!("began the movement of {} once more", moved(ledger, *movement)),
        Event::MovementFinished { movement, made: Some(made), .. } => {
            format!("finished the copy of {}: {} bytes, SHA-256 {}", moved(ledger, *movement), made.bytes, made.sha256)
        }
        Event::MovementFinished { movement, kept: Some(kept), .. } => {
            format!("opened {} again; the database of before is kept as {} until {}", moved(ledger, *movement), kept.database, minute(&kept.until))
        }
        Event::MovementFinished { movement, .. } => format!("opened {} again", moved(ledger, *movement)),
        Event::MovementKeptGone { movement } => format!("keeps the database of before no longer on {}", moved(ledger, *movement)),
    }
}

fn server(ledger: &Ledger, id: TargetId) -> String {
    ledger.target(id).map_or_else(|| id.to_string(), |target| format!("{}:{}", target.spec.host, target.spec.port))
}

fn account(ledger: &Ledger, id: StandingId) -> String {
    let Some(known) = ledger.standing(id) else { return "a standing account that is gone".to_owned() };
    let env = ledger.environment(known.environment).map(|env| env.spec.name.to_string()).unwrap_or_default();
    format!("the standing account {} of {env}", shown(known.name.as_str()))
}

fn place_of(ledger: &Ledger, id: MachineId) -> String {
    let Some(known) = ledger.machine(id) else { return "the credentials of a machine that is gone".to_owned() };
    format!("the credentials of {} on {}", shown(&known.user), known.host)
}

/// What a movement is to do.
pub fn order(ledger: &Ledger, kind: &MovementKind) -> String {
    match kind {
        MovementKind::External => "by another tool".to_owned(),
        MovementKind::Refresh { from } => {
            format!("refresh from {}", ledger.environment(*from).map_or_else(|| from.to_string(), |env| env.spec.name.to_string()))
        }
        MovementKind::Import { file } => format!("import of {file}"),
        MovementKind::Restore { to } => format!("restore to {to}"),
        MovementKind::Undo { .. } => "back to the database of before".to_owned(),
        MovementKind::Export { file } => format!("export to {file}"),
    }
}

/// A time as a sentence has it.
fn minute(at: &Time) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).map_or_else(|_| at.to_string(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// When access ends by a planned movement.
pub fn cut(kind: &MovementKind, cuts_at: Time) -> String {
    let at = minute(&cuts_at);
    if kind.is_prepared() { format!("when the new database is ready, not before {at}") } else { format!("at {at} at the latest") }
}

/// What happens in a phase.
pub fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Check => "what could stand in the way is looked for",
        Phase::Copy => "the new database is made",
        Phase::Sweep => "what came inside it is swept",
        Phase::Ready => "the new database is ready",
        Phase::Freeze => "access ends",
        Phase::Swap => "it takes its place",
    }
}

fn moved(ledger: &Ledger, id: MovementId) -> String {
    let env = ledger.movement(id).and_then(|movement| ledger.environment(movement.environment));
    env.map_or_else(|| id.to_string(), |env| env.spec.name.to_string())
}

fn person(ledger: &Ledger, id: UserId) -> String {
    ledger.user(id).map_or_else(|| id.to_string(), |user| user.name.to_string())
}
