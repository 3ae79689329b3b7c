//! One keeper per target: observe, plan, act, prove. A wake-up carries no data; whatever happened, the next look finds it.
//! It tries for ever; a target that is down or hangs delays nobody else's.

use crate::{control::Control, drift::Scan, firewall::Firewall, node::Node, standing};
use daypass_core::{
    command::{Command, Observed},
    environment::Identity,
    event::Actor,
    ids::*,
    names::DatabaseName,
    pass::State,
    plan::{Action, next_deadline, plan},
    time::{Time, Ttl},
};
use daypass_gateway::World;
use daypass_targets::{AccountSpec, AnyTarget, Estate, Target, TargetError};
use futures_util::StreamExt;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How often a target is looked at when nothing happens: drift and replaced databases are found within this.
const LOOK: Duration = Duration::from_secs(3);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The fence goes first: a session that it ended needs no killing, and killing hundreds at once would take the processor from
/// those that tell their clients why.
const HEAD_START: Duration = Duration::from_millis(250);
/// Accounts of one target that are worked on at once.
const AT_ONCE: usize = 4;

/// Starts a keeper for each target, now and whenever one is added.
pub async fn keep_all(node: Arc<Node>, control: Control) {
    let mut changes = node.changes();
    let mut kept = BTreeSet::new();
    loop {
        let targets: Vec<TargetId> = node.ledger(|ledger| ledger.targets().map(|target| target.id).collect());
        for target in targets {
            if kept.insert(target) {
                tokio::spawn(keep(node.clone(), control.clone(), target));
            }
        }
        lapse(&node, &control).await;
        let _ = tokio::time::timeout(Duration::from_secs(60), changes.changed()).await;
    }
}

/// Requests that nobody approved in time, or that cannot be approved any more.
async fn lapse(node: &Node, control: &Control) {
    let now = node.now();
    let lapsed: Vec<PassId> = node.ledger(|ledger| {
        let waits = ledger.open_passes().filter(|pass| *pass.state() == State::Requested);
        waits.filter(|pass| ledger.lapses(pass, now)).map(|pass| pass.id).collect()
    });
    for pass in lapsed {
        let _ = control.run(Command::Observed(Observed::Lapse { pass }), Actor::System).await;
    }
}

/// The administrator's way to a target, as the ledger and the store have it now.
pub async fn administrator(node: &Node, id: TargetId) -> Result<AnyTarget, TargetError> {
    let (spec, store) = node.ledger(|ledger| (ledger.target(id).map(|t| t.spec.clone()), ledger.store()));
    let (Some(spec), Some(store)) = (spec, store) else { return Err(TargetError::Refused("it is not known any more".to_owned())) };
    let password = node.store.log.secret(&target_secret(id)).await.ok().flatten();
    let password = password.ok_or_else(|| TargetError::Refused("the administrator's password is not in the store".to_owned()))?;
    Ok(AnyTarget::new(spec, password, node.target_tls(id), store))
}

/// Under what the administrator's password is sealed.
pub fn target_secret(id: TargetId) -> String {
    format!("target:{id}")
}

async fn keep(node: Arc<Node>, control: Control, id: TargetId) {
    let mut changes = node.changes();
    let mut pause = Duration::ZERO;
    let mut made: Option<(daypass_core::environment::TargetSpec, AnyTarget)> = None;
    let mut scan = Scan::default();
    let mut replaced = replacements(&node, id);
    loop {
        changes.borrow_and_update();
        let spec = node.ledger(|ledger| ledger.target(id).map(|target| target.spec.clone()));
        if made.as_ref().map(|(known, _)| known) != spec.as_ref() {
            made = match (spec, administrator(&node, id).await) {
                (Some(spec), Ok(target)) => Some((spec, target)),
                _ => None,
            };
        }
        let trouble = format!("target:{id}");
        let done = match &made {
            Some((_, target)) => {
                let keeper = Keeper { node: &node, control: &control, id, target };
                let done = keeper.look().await;
                // a database that others put in place is swept at once
                let now = replacements(&node, id);
                if now != replaced {
                    replaced = now;
                    scan.at_once();
                }
                // when nothing else waits
                if matches!(done, Ok(false)) {
                    scan.look(&node, &control, id, target, &keeper.databases()).await;
                }
                done
            }
            None => Err(TargetError::Refused("the administrator's password is not in the store".to_owned())),
        };
        match done {
            Ok(more) => {
                node.troubles.clear(&trouble);
                pause = Duration::ZERO;
                if more {
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(target = %id, %error, "a target does not do what it should; trying again");
                node.troubles.note(&trouble, error.to_string(), node.now());
                // a changed password is picked up with the next try
                made = None;
                pause = (pause * 2).clamp(Duration::from_millis(250), LONGEST_PAUSE);
            }
        }
        wait(&node, id, &mut changes, pause).await;
    }
}

/// How often the databases on a target were replaced.
fn replacements(node: &Node, id: TargetId) -> u32 {
    node.ledger(|ledger| ledger.environments_on(id).map(daypass_core::environment::Environment::epoch).sum())
}

/// Until something changed, a deadline comes, or it is time for a look. After a failure, until the pause is over.
async fn wait(node: &Node, id: TargetId, changes: &mut tokio::sync::watch::Receiver<u64>, pause: Duration) {
    let jitter = Duration::from_millis(crate::random::number() % 100);
    if pause > Duration::ZERO {
        // a change may be worth an early try, but a target that is down is not asked at each of them
        tokio::time::sleep(pause.min(Duration::from_millis(250))).await;
        let _ = tokio::time::timeout(pause + jitter, changes.changed()).await;
        return;
    }
    let now = node.now();
    let deadline = node.ledger(|ledger| next_deadline(ledger, id, now));
    let left = deadline.map_or(LOOK, |at| Duration::from_micros(at.since(now).max(0) as u64 + 1_000));
    let _ = tokio::time::timeout(left.min(LOOK + jitter), changes.changed()).await;
}

struct Keeper<'a, T> {
    node: &'a Arc<Node>,
    control: &'a Control,
    id: TargetId,
    target: &'a T,
}

impl<T: Target> Keeper<'_, T> {
    /// One look and what follows from it. True: something was done, look again at once.
    async fn look(&self) -> Result<bool, TargetError> {
        // trouble with one database or with a rule is noted there, and keeps no account of another from being removed in time
        self.identify().await?;
        Firewall { node: self.node, id: self.id, target: self.target }.look().await;
        standing::look(self.node, self.control, self.id, self.target).await;
        let observed = self.target.observe(&self.databases()).await?;
        let now = self.node.now();
        let actions = self.node.ledger(|ledger| plan(ledger, self.id, &observed, now));
        if actions.is_empty() {
            self.refresh_grants().await;
            return Ok(false);
        }
        let connected = |name: &String| observed.accounts.iter().any(|account| account.name == *name && account.backends > 0);
        let (ends, mut begins): (Vec<_>, Vec<_>) = actions.into_iter().partition(|action| matches!(action, Action::Remove { .. }));
        // nobody is let into a database of which it is not known whether it is still the same
        begins.retain(|action| match action {
            Action::Provide { environment, .. } | Action::Restore { environment, .. } => {
                self.node.troubles.get(&format!("environment:{environment}")).is_none()
            }
            Action::Remove { .. } | Action::ReportGone { .. } => true,
        });
        let something = !(ends.is_empty() && begins.is_empty());
        let head_start = ends.iter().any(|action| matches!(action, Action::Remove { account, .. } if connected(account)));
        let ends = async {
            if head_start {
                tokio::time::sleep(HEAD_START).await;
            }
            self.act_on(ends).await
        };
        let (ended, begun) = tokio::join!(ends, self.act_on(begins));
        ended.and(begun)?;
        Ok(something)
    }

    /// The databases of the environments on this target; also of those that were removed, until nothing is left in them.
    fn databases(&self) -> Vec<DatabaseName> {
        let names: BTreeSet<_> = self.node.ledger(|ledger| ledger.environments_on(self.id).map(|env| env.spec.database.clone()).collect());
        names.into_iter().collect()
    }

    /// Some at once; all are tried, and the first failure is told.
    async fn act_on(&self, actions: Vec<Action>) -> Result<(), TargetError> {
        let results: Vec<_> = futures_util::stream::iter(actions).map(|action| self.act(action)).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    /// Is each database still the one that it was? A database that is not there right now is no answer to that.
    async fn identify(&self) -> Result<(), TargetError> {
        let environments: Vec<_> = self.node.ledger(|ledger| {
            let here = ledger.environments_on(self.id).filter(|env| !env.removed() && env.frozen_by.is_none());
            here.map(|env| (env.id, env.spec.database.clone(), env.identity.clone())).collect()
        });
        if environments.is_empty() {
            return Ok(());
        }
        // looked at first: what is looked at afterwards can only be further
        let position = self.target.position().await?;
        for (environment, database, known) in environments {
            let trouble = format!("environment:{environment}");
            match self.identify_one(environment, &database, known.as_ref(), position).await {
                Ok(()) => self.node.troubles.clear(&trouble),
                // the server is away: that is not this database's trouble
                Err(error @ TargetError::Unreachable(_)) => return Err(error),
                Err(error) => self.node.troubles.note(&trouble, error.to_string(), self.node.now()),
            }
        }
        Ok(())
    }

    async fn identify_one(
        &self,
        environment: EnvironmentId,
        database: &DatabaseName,
        known: Option<&Identity>,
        position: Option<u64>,
    ) -> Result<(), TargetError> {
        let identity = self.target.identity(environment, database).await?;
        if known != Some(&identity) {
            // what is there now gets a mark of its own first, so that a copy of before is not taken for it
            self.target.adopt(environment, database).await?;
            let identity = self.target.identity(environment, database).await?;
            self.report(Observed::Identity { environment, identity }).await;
        } else if self.node.positions.is_set_back(environment, position) {
            self.report(Observed::SetBack { environment, identity }).await;
        }
        if let Some(position) = position {
            self.node.positions.note(environment, position);
        }
        Ok(())
    }

    /// What was created since the last look becomes visible to live accounts.
    async fn refresh_grants(&self) {
        let now = self.node.now();
        let live: BTreeSet<_> = self.node.ledger(|ledger| {
            let ready = ledger.open_passes().filter(|pass| matches!(pass.state(), State::Ready { .. }) && ledger.over(pass, now).is_none());
            ready
                .filter_map(|pass| ledger.environment(pass.environment))
                .filter(|env| env.target == self.id && env.spec.grants == daypass_core::environment::Grants::Granted)
                .map(|env| (env.id, env.spec.database.clone()))
                .collect()
        });
        for (environment, database) in live {
            if let Err(error) = self.target.refresh_grants(environment, &database).await {
                tracing::warn!(%environment, %error, "rights on new objects could not be granted");
            }
        }
    }

    async fn act(&self, action: Action) -> Result<(), TargetError> {
        let pass_of = |action: &Action| match action {
            Action::Provide { pass, .. } | Action::Restore { pass, .. } | Action::ReportGone { pass } => Some(*pass),
            Action::Remove { pass, .. } => *pass,
        };
        let trouble = pass_of(&action).map(|pass| format!("pass:{pass}"));
        let done = self.act_once(action).await;
        if let Some(trouble) = trouble {
            match &done {
                Ok(()) => self.node.troubles.clear(&trouble),
                Err(error) => self.node.troubles.note(trouble, error.to_string(), self.node.now()),
            }
        }
        done
    }

    async fn act_once(&self, action: Action) -> Result<(), TargetError> {
        match action {
            Action::Provide { pass, ends_at, .. } => {
                self.provide(pass, ends_at).await?;
                self.prove(pass).await?;
                self.report(Observed::LoginWorks { pass }).await;
                Ok(())
            }
            Action::Restore { pass, ends_at, account, .. } => {
                tracing::warn!(%account, "an account was altered on the target; it is put back");
                self.provide(pass, ends_at).await
            }
            Action::Remove { account, pass } => {
                let (heir, drop) = self
                    .node
                    .ledger(|ledger| {
                        let env = ledger.environment(ledger.pass(pass?)?.environment)?;
                        Some((env.spec.heir.clone(), ledger.policy(env).drop_leftovers))
                    })
                    .unwrap_or_default();
                let databases = self.databases();
                if let Some(pass) = pass {
                    // what is there is on record before anything of it is touched
                    let left = self.target.remains(&account, &databases).await?;
                    if !left.is_empty() {
                        self.report(Observed::Left { pass, left, dropped: drop }).await;
                    }
                }
                self.target.remove(&account, &databases, Estate { heir: heir.as_deref(), drop }).await
            }
            Action::ReportGone { pass } => {
                self.report(Observed::Gone { pass }).await;
                Ok(())
            }
        }
    }

    async fn provide(&self, id: PassId, ends_at: Time) -> Result<(), TargetError> {
        // what is there already is only to be proved
        if self.node.ledger(|ledger| ledger.pass(id).is_some_and(|pass| pass.wish.standing.is_some())) {
            return Ok(());
        }
        let Some((pass, env, (connections, extras))) = self.node.ledger(|ledger| {
            let pass = ledger.pass(id)?;
            let env = ledger.environment(pass.environment)?;
            let policy = ledger.policy(env);
            Some((pass.clone(), env.clone(), (policy.sessions_per_pass, policy.extras.clone())))
        }) else {
            return Ok(());
        };
        // the target adds what is left to its own clock: never later than ours
        let left = ends_at.since(self.node.now()) / 1_000_000;
        let Some(left) = u64::try_from(left).ok().and_then(|s| Ttl::seconds(s).ok()) else { return Ok(()) };
        let (Some(verifier), Some(password)) = (self.node.target_verifier(id), self.node.target_password(id)) else {
            return Err(TargetError::Refused("the secrets of the pass are gone".to_owned()));
        };
        let spec = AccountSpec {
            account: &pass.account,
            pass: id,
            environment: env.id,
            database: &env.spec.database,
            access: pass.wish.access,
            grants: env.spec.grants,
            left,
            // one more for the probe
            connections: connections.saturating_add(1),
            verifier: &verifier,
            password: &password,
            extras: &extras,
        };
        self.target.provide(&spec).await
    }

    /// A real login with the account, on the way that the person's sessions take.
    async fn prove(&self, id: PassId) -> Result<(), TargetError> {
        let found = self.node.ledger(|ledger| {
            let pass = ledger.pass(id)?;
            let env = ledger.environment(pass.environment)?;
            Some((pass.clone(), env.clone(), ledger.target(env.target)?.clone()))
        });
        let Some((pass, env, target)) = found else { return Ok(()) };
        daypass_gateway::probe(&**self.node, &pass, &env, &target).await.map_err(|e| TargetError::Refused(e.to_string()))
    }

    async fn report(&self, observed: Observed) {
        if let Err(error) = self.control.run(Command::Observed(observed), Actor::System).await {
            tracing::warn!(%error, "what was observed could not be recorded; the next look repeats it");
        }
    }
}
