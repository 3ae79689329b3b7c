//! Standing accounts: their passwords lie in the vault, and are changed when that is due. The new one is sealed before the target is given
//! it, so that a crash between loses neither; it takes the place of the old one after a real login with it.

use crate::{
    control::{Control, Job},
    node::Node,
};
use daypass_core::{
    command::{Command, Observed},
    environment::{Environment, Target as TargetOf},
    event::Actor,
    ids::*,
    managed::Standing,
    pass::State,
    secret::Secret,
};
use daypass_gateway::{Who, World, probe_as};
use daypass_store::Change;
use daypass_targets::{AnyTarget, Taken, Target};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// Under what its password is sealed.
pub fn secret(id: StandingId) -> String {
    format!("standing:{id}")
}

/// And the one that it is about to have.
pub fn next_secret(id: StandingId) -> String {
    format!("standing-next:{id}")
}

pub fn machine_secret(id: MachineId) -> String {
    format!("machine:{id}")
}

/// Whether the account still takes the password of the vault, and no other: a role has one. Where it does not, somebody who was in with it
/// has set another from inside, and it is put back at once.
pub async fn check(node: &Node, id: StandingId) -> Result<(), String> {
    let Some((known, env, spec)) = of(node, id) else { return Ok(()) };
    // while it is being changed, either of two may be the right one
    let Some(password) = node.standing_password(id).filter(|_| !known.rotating) else { return Ok(()) };
    let who = Who { user: known.name.to_string(), password, pass: None };
    match probe_as(node, who, &env, &spec).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_wrong_password() => put_back(node, id).await,
        Err(error) => Err(error.to_string()),
    }
}

/// Puts the password of the vault back, and ends every session of the account that is none of ours: one of them may have come in by the other.
pub async fn put_back(node: &Node, id: StandingId) -> Result<(), String> {
    let Some((known, env, spec)) = of(node, id) else { return Ok(()) };
    // while it is being changed, either of two may be the right one
    if known.rotating {
        return Ok(());
    }
    let password = node.standing_password(id).ok_or("its password is not in the vault")?;
    let target = node.target(spec.id).await.map_err(|e| e.to_string())?;
    // what was on its way while it was put back is seen by the looks that follow; and one that could not be is tried again by them
    node.watch_standing(id, AFTER);
    let deadline = Instant::now() + IN_A_ROW;
    let mut waiting = node.being_taken_back(id);
    let failed = loop {
        let name = known.name.to_string();
        let ours: Vec<u32> = node.sessions.there().0.iter().filter(|backend| backend.account == name).map(|backend| backend.id).collect();
        let why = match target.take_back(&env.spec.database, &known.name, &password, &ours, &mut waiting).await {
            Ok(Taken::Back) => break None,
            Ok(Taken::NotYet) => "somebody who came in by it is still being put out".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            break Some(why);
        }
        tokio::time::sleep(BETWEEN).await;
    };
    // from the first step on nobody can log in with it
    let is_shut = waiting.is_some();
    node.take_back_later(id, waiting);
    if let Some(why) = failed {
        let meanwhile = if is_shut { "is shut until it is put back" } else { "cannot be shut: who comes in by it is put out again at once" };
        return Err(format!("{} has another password than the vault's, and {meanwhile}: {why}", known.name));
    }
    tracing::warn!(account = %known.name, environment = %env.spec.name, "a standing account had another password than the vault's; it was put back");
    let why = format!("somebody set another password for {} from inside; it was put back, and connections that were none of ours were ended", known.name);
    node.troubles.note(format!("taken:{id}"), why, node.now());
    Ok(())
}

/// For how long it is tried in a row to put a password back, and the pause between two steps. The next look goes on where it was left.
const IN_A_ROW: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(20);
/// For how long, after that, each look asks whether the password still is the vault's, and ends who came in by another one: a login takes ten
/// seconds at most.
pub const AFTER: Duration = Duration::from_secs(15);

/// Ends every connection of the account that is no session of ours.
async fn end_strange(node: &Node, target: &AnyTarget, known: &Standing) -> Result<(), String> {
    let name = known.name.to_string();
    // only where the numbers of sessions are what the views show
    if !matches!(target, AnyTarget::Postgres(_)) {
        return Ok(());
    }
    let observed = target.observe(&[], std::slice::from_ref(&name)).await.map_err(|e| e.to_string())?;
    // a login of ours that is under way is let be: the next look sees what became of it
    if node.at_the_door().contains(&name) {
        return Ok(());
    }
    let (live, _) = node.sessions.there();
    let strange: Vec<_> = observed.backends.into_iter().filter(|backend| backend.account == name && !live.contains(backend)).collect();
    if strange.is_empty() { Ok(()) } else { target.shut(&[], &strange, &[]).await.map_err(|e| e.to_string()) }
}

fn of(node: &Node, id: StandingId) -> Option<(Standing, Environment, TargetOf)> {
    node.ledger(|ledger| {
        let known = ledger.standing(id)?;
        let env = ledger.environment(known.environment)?;
        Some((known.clone(), env.clone(), ledger.target(env.target)?.clone()))
    })
}

/// Changes the passwords on this target that are due. Trouble with one holds up no other.
pub async fn look<T: Target>(node: &Arc<Node>, control: &Control, target: TargetId, at: &T) {
    let now = node.now();
    let due: Vec<(Standing, Environment, TargetOf)> = node.ledger(|ledger| {
        let there = |known: &Standing| Some((known.clone(), ledger.environment(known.environment)?.clone()));
        let here = ledger
            .standings()
            .filter_map(there)
            .filter(|(known, env)| env.target == target && env.identity.is_some() && known.rotation_due(env, ledger.policy(env), now).is_some());
        here.filter_map(|(known, env)| Some((known, env, ledger.target(target)?.clone()))).collect()
    });
    let mut asked: BTreeSet<StandingId> = node.ledger(|ledger| {
        let here = |environment| ledger.environment(environment).is_some_and(|env| env.target == target && env.identity.is_some());
        let used = ledger.open_passes().filter(|pass| here(pass.environment) && matches!(pass.state(), State::Ready { .. }));
        used.filter(|pass| ledger.over(pass, now).is_none()).filter_map(|pass| pass.wish.standing).collect()
    });
    for id in node.watched_standings() {
        if let Some((known, _, spec)) = of(node, id).filter(|(.., spec)| spec.id == target) {
            asked.insert(id);
            let ended = match node.target(spec.id).await {
                Ok(way) => end_strange(node, &way, &known).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = ended {
                tracing::warn!(account = %known.name, %why, "connections of a standing account could not be ended");
            }
        }
    }
    for id in asked {
        let trouble = format!("standing-check:{id}");
        match check(node, id).await {
            Ok(()) => node.troubles.clear(&trouble),
            Err(why) => node.troubles.note(&trouble, format!("whether a standing account still has its password cannot be said: {why}"), now),
        }
    }
    for (known, env, spec) in due {
        let trouble = format!("standing:{}", known.id);
        match rotate(node, control, at, &known, &env, &spec).await {
            Ok(()) => node.troubles.clear(&trouble),
            Err(why) => node.troubles.note(&trouble, format!("the password of {} cannot be changed: {why}", known.name), now),
        }
    }
}

async fn rotate<T: Target>(node: &Arc<Node>, control: &Control, at: &T, known: &Standing, env: &Environment, spec: &TargetOf) -> Result<(), String> {
    let job = |observed, changes| Job { command: Command::Observed(observed), by: Actor::System, changes, secrets: None };
    if !known.rotating {
        // the rules for passwords of SQL Server and Azure ask for three of four kinds of characters
        let next = Secret::new(format!("Dp-{}", crate::random::password()));
        let changes = vec![Change::Put { id: next_secret(known.id), secret: next }];
        control.run_job(job(Observed::Rotating { standing: known.id }, changes)).await.map_err(|e| e.to_string())?;
    }
    let next = node.store.log.secret(&next_secret(known.id)).await.map_err(|e| e.to_string())?;
    let next = next.ok_or("the new password is not in the store")?;
    at.set_password(&env.spec.database, &known.name, &next).await.map_err(|e| e.to_string())?;
    // from here on the old one opens nothing
    node.remember_standing(known.id, Some(next.clone()));
    let who = Who { user: known.name.to_string(), password: next.clone(), pass: None };
    probe_as(&**node, who, env, spec).await.map_err(|e| e.to_string())?;
    let changes = vec![Change::Put { id: secret(known.id), secret: next }];
    control.run_job(job(Observed::Rotated { standing: known.id }, changes)).await.map(drop).map_err(|e| e.to_string())
}
