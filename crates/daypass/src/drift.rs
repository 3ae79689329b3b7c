//! Looks for what others made on a target, and ends what somebody said is to go.

use crate::{control::Control, node::Node};
use daypass_core::{
    command::{Command, Observed},
    drift::{DriftKind, Finding, Verdict},
    event::Actor,
    ids::*,
    ledger::Ledger,
    movement::Names,
    names::DatabaseName,
};
use daypass_gateway::World;
use daypass_targets::Target;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How often a target is looked through.
const LOOK: Duration = Duration::from_secs(30);

/// What of other environments came inside a database that others put in place loses its rights there.
async fn sweep<T: Target>(node: &Node, control: &Control, id: TargetId, target: &T) -> Result<(), String> {
    let open: Vec<(EnvironmentId, DatabaseName)> = node.ledger(|ledger| {
        let here = ledger.environments_on(id).filter(|env| !env.removed() && env.frozen_by.is_none());
        here.map(|env| (env.id, env.spec.database.clone())).collect()
    });
    let mut all = Ok(());
    for (environment, database) in open {
        let swept = async {
            let theirs = theirs(node, |ledger| accounts_of(ledger, environment));
            let swept = target.sweep_marked(environment, &database, &theirs).await.map_err(|e| format!("{database} cannot be swept: {e}"))?;
            control.run(Command::Observed(Observed::DatabaseSwept { environment, swept }), Actor::System).await.map(drop).map_err(|e| e.to_string())
        };
        // one that is in trouble keeps no other from being swept
        all = all.and(swept.await);
    }
    all
}

/// The accounts of an environment's passes that are there, or may be.
pub fn accounts_of(ledger: &Ledger, environment: EnvironmentId) -> BTreeSet<String> {
    ledger.open_passes().filter(|pass| pass.environment == environment).map(|pass| pass.account.to_string()).collect()
}

/// Whose a look finds, to be asked when it has looked: all that were known when it began, that are known now, and those of trials, which go by
/// themselves. What comes or goes while it looks is nobody else's.
pub fn theirs(node: &Node, known: impl Fn(&Ledger) -> BTreeSet<String> + Sync) -> impl Fn() -> BTreeSet<String> + Sync {
    let (looking, before) = (node.trials.look(), node.ledger(&known));
    move || before.iter().cloned().chain(node.ledger(&known)).chain(looking.names()).collect()
}

/// One target's scan: when it was last made.
#[derive(Default)]
pub struct Scan(Option<Instant>);

impl Scan {
    /// Something happened that is worth a look at once.
    pub fn at_once(&mut self) {
        self.0 = None;
    }

    pub async fn look<T: Target>(&mut self, node: &Node, control: &Control, id: TargetId, target: &T, databases: &[DatabaseName]) {
        let to_end: Vec<Finding> = node.ledger(|ledger| {
            let ends = ledger.drift().filter(|drift| drift.target == id && drift.verdict == Some(Verdict::End));
            ends.map(|drift| drift.finding.clone()).collect()
        });
        let trouble = format!("drift:{id}");
        let mut failed = None;
        for finding in &to_end {
            if let Err(error) = target.end_drift(finding).await {
                failed = Some(format!("{} cannot be ended: {error}", finding.words()));
            }
        }
        if to_end.is_empty() && self.0.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.0 = Some(Instant::now());
        failed = failed.or(sweep(node, control, id, target).await.err());
        let known = theirs(node, |ledger| {
            let here = |environment: EnvironmentId| ledger.environment(environment).filter(|env| env.target == id);
            let standing = ledger.standings().filter(|known| here(known.environment).is_some()).map(|known| known.name.to_string());
            let passes = ledger.open_passes().filter(|pass| here(pass.environment).is_some()).map(|pass| pass.account.to_string());
            let moving = ledger.environments_on(id).filter_map(|env| Some(Names::of(env, env.moving?).ok()?.role));
            standing.chain(passes).chain(moving).collect()
        });
        match target.drift(databases, &known).await {
            Ok(mut found) => {
                // the rules of a firewall are looked at by whoever keeps them
                let rules: Vec<(DatabaseName, EnvironmentId)> =
                    node.ledger(|ledger| ledger.environments_on(id).map(|env| (env.spec.database.clone(), env.id)).collect());
                for (database, environment) in rules {
                    found.extend(node.drift(environment).into_iter().map(|rule| Finding {
                        kind: DriftKind::Rule,
                        name: rule.name,
                        place: database.to_string(),
                    }));
                }
                if let Err(error) = control.run(Command::Observed(Observed::Drift { target: id, found }), Actor::System).await {
                    tracing::warn!(%error, "what others made on a target could not be recorded");
                }
            }
            Err(error) => failed = Some(format!("what others made on the target cannot be looked at: {error}")),
        }
        match failed {
            Some(why) => node.troubles.note(trouble, why, node.now()),
            None => node.troubles.clear(&trouble),
        }
    }
}
