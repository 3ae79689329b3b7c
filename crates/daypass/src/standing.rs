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
    secret::Secret,
};
use daypass_gateway::{Who, World, probe_as};
use daypass_store::Change;
use daypass_targets::Target;
use std::sync::Arc;

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
