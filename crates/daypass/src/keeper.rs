//! One keeper per target: observe, plan, act, prove. A wake-up carries no data; whatever happened, the next look finds it.
//! It tries for ever; a target that is down or hangs delays nobody else's, and an account that is hard to make or to remove delays no other:
//! each act is a task of its own with a pause of its own. That nobody is in any more does not wait for any of this: see [`crate::ender`].

use crate::{
    control::Control,
    drift::Scan,
    ender::{self, HEAD_START},
    firewall::Firewall,
    node::Node,
    standing,
    watch::Watch,
};
use daypass_core::{
    command::{Command, Observed},
    environment::{Environment, Grants, Identity},
    event::Actor,
    ids::*,
    names::DatabaseName,
    pass::State,
    plan::{Action, next_deadline, plan},
    time::Time,
};
use daypass_gateway::World;
use daypass_targets::{AccountSpec, AnyTarget, Estate, Target, TargetError};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How often a target is looked at when nothing happens: drift and replaced databases are found within this.
const LOOK: Duration = Duration::from_secs(3);
/// The first and the longest pause after failures.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// While accounts are being made or removed, changes are gathered for so long: a look at each of a thousand would cost more than the work.
const GATHER: Duration = Duration::from_millis(300);
/// How often live accounts get their rights on what was created since. What an owner creates in a schema that is there is theirs at once.
const GRANTS: Duration = Duration::from_secs(10);
/// Accounts of one target that are made at once, and that are removed at once: neither waits for the other.
const AT_ONCE: usize = 4;

/// Starts a keeper for each target, now and whenever one is added.
pub async fn keep_all(node: Arc<Node>, control: Control, watch: Watch) {
    let mut changes = node.changes();
    let mut kept = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        let targets: Vec<TargetId> = node.ledger(|ledger| ledger.targets().map(|target| target.id).collect());
        for target in targets {
            if kept.insert(target) {
                watch.spawn("ends at a target", ender::run(node.clone(), target));
                watch.spawn("the keeper of a target", keep(node.clone(), control.clone(), target));
            }
        }
        lapse(&node, &control).await;
        let _ = tokio::time::timeout(Duration::from_secs(60), changes.changed()).await;
    }
}

/// The databases of the environments on a target; also of those that were removed, until nothing is left in them.
pub fn databases(node: &Node, id: TargetId) -> Vec<DatabaseName> {
    let names: BTreeSet<_> = node.ledger(|ledger| ledger.environments_on(id).map(|env| env.spec.database.clone()).collect());
    names.into_iter().collect()
}

/// The accounts that passes have on a target, or are about to have: looked for by name, since a mark can be taken off.
pub fn accounts(node: &Node, id: TargetId) -> Vec<String> {
    node.ledger(|ledger| {
        let here = |environment| ledger.environment(environment).is_some_and(|env| env.target == id);
        ledger.open_passes().filter(|pass| here(pass.environment) && pass.wish.standing.is_none()).map(|pass| pass.account.to_string()).collect()
    })
}

/// Requests that nobody approved in time, or that cannot be approved any more; and those whose account cannot be made.
async fn lapse(node: &Node, control: &Control) {
    let now = node.now();
    let lapsed: Vec<PassId> = node.ledger(|ledger| {
        let waits = ledger.open_passes().filter(|pass| *pass.state() == State::Requested);
        waits.filter(|pass| ledger.lapses(pass, now)).map(|pass| pass.id).collect()
    });
    for pass in lapsed {
        let _ = control.run(Command::Observed(Observed::Lapse { pass }), Actor::System).await;
    }
    let stuck: Vec<(PassId, TargetId)> = node.ledger(|ledger| {
        let stuck = ledger.open_passes().filter(|pass| ledger.is_stuck(pass, now));
        stuck.filter_map(|pass| Some((pass.id, ledger.environment(pass.environment)?.target))).collect()
    });
    for (pass, target) in stuck {
        let known = [format!("pass:{pass}"), format!("target:{target}")].iter().find_map(|what| node.troubles.get(what));
        let why = known.map_or_else(|| "it was not there in time".to_owned(), |trouble| trouble.why);
        let _ = control.run(Command::Observed(Observed::NotMade { pass, why }), Actor::System).await;
    }
}

async fn keep(node: Arc<Node>, control: Control, id: TargetId) {
    let mut changes = node.changes();
    let mut pause = Duration::ZERO;
    let mut work = Work::default();
    let mut scan = Scan::default();
    let mut replaced = replacements(&node, id);
    let trouble = format!("target:{id}");
    loop {
        changes.borrow_and_update();
        let looked = Instant::now();
        let done = match node.target(id).await {
            Ok(target) => {
                let keeper = Keeper { node: node.clone(), control: control.clone(), id, target };
                let done = keeper.look(&mut work).await;
                // a database that others put in place is swept at once
                let now = replacements(&node, id);
                if now != replaced {
                    replaced = now;
                    scan.at_once();
                }
                if done.is_ok() {
                    scan.look(&node, &control, id, &*keeper.target, &databases(&node, id)).await;
                }
                done
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => {
                node.troubles.clear(&trouble);
                pause = Duration::ZERO;
            }
            Err(error) => {
                tracing::warn!(target = %id, %error, "a target does not do what it should; trying again");
                // who stands in everybody's way there, and is one of ours, does so no longer
                if let Ok(target) = node.target(id).await {
                    let _ = target.end_now(&[], &[]).await;
                }
                node.troubles.note(&trouble, error.to_string(), node.now());
                node.target_failed(id, &error);
                pause = (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            }
        }
        let jitter = Duration::from_millis(crate::random::number() % 100);
        if pause > Duration::ZERO {
            // a change may be worth an early try, but a target that is down is not asked at each of them
            tokio::time::sleep(pause.min(SHORTEST_PAUSE)).await;
            let _ = tokio::time::timeout(pause + jitter, changes.changed()).await;
            continue;
        }
        let now = node.now();
        let deadline = node.ledger(|ledger| next_deadline(ledger, id, now));
        let left = deadline.map_or(LOOK, |at| Duration::from_micros(at.since(now).max(0) as u64 + 1_000)).min(LOOK + jitter);
        let wait = work.next_try(left);
        let gather = if work.is_busy() { GATHER } else { Duration::ZERO };
        let changed = async {
            let _ = changes.changed().await;
            tokio::time::sleep_until((looked + gather).into()).await;
        };
        tokio::select! {
            () = changed => {}
            // what was done may be the reason for the next act
            () = work.done() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// How often the databases on a target were replaced.
fn replacements(node: &Node, id: TargetId) -> u32 {
    node.ledger(|ledger| ledger.environments_on(id).map(Environment::epoch).sum())
}

/// One piece of work, as it is found again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Key {
    Make(PassId),
    Remove(String),
    Gone(PassId),
    Standing,
    Firewall,
    Grants,
    Groups,
}

type Task = Pin<Box<dyn Future<Output = Result<(), TargetError>> + Send>>;

/// Work that is under way on a target, and the pauses of what failed.
#[derive(Default)]
struct Work {
    tasks: JoinSet<(Key, Result<(), TargetError>)>,
    under_way: BTreeSet<Key>,
    /// What the last look found to do beside that: begun when there is a place, without another look.
    waiting: VecDeque<(Key, Task)>,
    pauses: BTreeMap<Key, (Duration, Instant)>,
}

impl Work {
    /// Whether there is a place for it, and its pause is over.
    fn may(&self, key: &Key) -> bool {
        let alike = |other: &&Key| std::mem::discriminant(*other) == std::mem::discriminant(key);
        !self.under_way.contains(key)
            && self.under_way.iter().filter(alike).count() < AT_ONCE
            && self.pauses.get(key).is_none_or(|(_, until)| Instant::now() >= *until)
    }

    fn spawn(&mut self, key: Key, work: impl Future<Output = Result<(), TargetError>> + Send + 'static) {
        self.under_way.insert(key.clone());
        self.tasks.spawn(async move { (key, work.await) });
    }

    /// Begins it now, or when there is a place; not while its pause lasts.
    fn spawn_or_wait(&mut self, key: Key, work: impl Future<Output = Result<(), TargetError>> + Send + 'static) {
        if self.may(&key) {
            self.spawn(key, work);
        } else if !self.under_way.contains(&key) && self.pauses.get(&key).is_none_or(|(_, until)| Instant::now() >= *until) {
            self.waiting.push_back((key, Box::pin(work)));
        }
    }

    /// Whether something was begun that waited.
    fn begin_next(&mut self) -> bool {
        let Some(at) = self.waiting.iter().position(|(key, _)| self.may(key)) else { return false };
        let next = self.waiting.remove(at);
        if let Some((key, work)) = next {
            self.spawn(key, work);
        }
        true
    }

    /// Accounts are being made or removed.
    fn is_busy(&self) -> bool {
        self.under_way.iter().any(|key| matches!(key, Key::Make(_) | Key::Remove(_) | Key::Gone(_)))
    }

    /// Takes note of what is done. True: something was.
    fn collect(&mut self) -> bool {
        let mut some = false;
        while let Some(done) = self.tasks.try_join_next() {
            self.note(done);
            some = true;
        }
        some
    }

    fn note(&mut self, done: Result<(Key, Result<(), TargetError>), tokio::task::JoinError>) {
        match done {
            Ok((key, result)) => {
                self.under_way.remove(&key);
                match result {
                    // dear, and no more often than a look
                    Ok(()) if matches!(key, Key::Grants | Key::Groups) => {
                        let pause = if key == Key::Grants { GRANTS } else { LOOK };
                        self.pauses.insert(key, (Duration::ZERO, Instant::now() + pause));
                    }
                    Ok(()) => drop(self.pauses.remove(&key)),
                    Err(_) => {
                        let last = self.pauses.get(&key).map_or(Duration::ZERO, |(pause, _)| *pause);
                        let pause = (last * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                        self.pauses.insert(key, (pause, Instant::now() + pause));
                    }
                }
            }
            // a defect in one piece of work: which, it does not say. All may be tried again
            Err(error) => {
                tracing::error!(%error, "a piece of work on a target failed by a defect");
                if self.tasks.is_empty() {
                    self.under_way.clear();
                }
            }
        }
    }

    /// Until something is done; for ever when nothing is under way.
    async fn done(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(done) => {
                    // what is done at each look is no reason for the next one
                    let again = !matches!(&done, Ok((Key::Standing | Key::Firewall | Key::Grants | Key::Groups, _)));
                    self.note(done);
                    if !self.begin_next() && again {
                        return;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// No longer than this, and no longer than to the next try of what failed.
    fn next_try(&self, most: Duration) -> Duration {
        let now = Instant::now();
        let next = self.pauses.iter().filter(|(key, _)| !self.under_way.contains(*key)).map(|(_, (_, until))| until.saturating_duration_since(now)).min();
        next.map_or(most, |next| next.min(most)).max(Duration::from_millis(5))
    }
}

#[derive(Clone)]
struct Keeper {
    node: Arc<Node>,
    control: Control,
    id: TargetId,
    target: Arc<AnyTarget>,
}

impl Keeper {
    /// One look, and what follows from it is begun. True: something is under way.
    async fn look(&self, work: &mut Work) -> Result<bool, TargetError> {
        work.collect();
        // an account that nobody is let into is removed by a task of its own; here is only what nobody's end waits for
        for key in [Key::Standing, Key::Firewall] {
            if work.may(&key) {
                let keeper = self.clone();
                let standing = key == Key::Standing;
                work.spawn(key, async move {
                    if standing {
                        standing::look(&keeper.node, &keeper.control, keeper.id, &*keeper.target).await;
                    } else {
                        Firewall { node: &keeper.node, id: keeper.id, target: &*keeper.target }.look().await;
                    }
                    Ok(())
                });
            }
        }
        let identified = self.identify().await?;
        let databases = databases(&self.node, self.id);
        let looking = self.node.trials.look();
        let mut observed = self.target.observe(&databases, &accounts(&self.node, self.id)).await?;
        looking.leave_out(&mut observed);
        let now = self.node.now();
        // nobody is let into a database of which it is not known, from this very look, that it is still the same
        let is_known = |environment: &EnvironmentId| {
            self.node
                .ledger(|ledger| ledger.environment(*environment).and_then(|env| env.identity.clone()))
                .is_some_and(|known| identified.get(environment) == Some(&known))
        };
        let actions = self.node.ledger(|ledger| {
            plan(ledger, self.id, &observed, &|env, access| self.target.rights(env.id, access, env.spec.grants, ledger.policy(env).sessions_per_pass), now)
        });
        // nor before what ends access has its connections
        let reserved = self.target.reserve().await;
        work.waiting.clear();
        let mut some = false;
        for action in actions {
            let key = match &action {
                Action::Provide { pass, environment, .. } | Action::Restore { pass, environment, .. } => {
                    if !is_known(environment) || reserved.is_err() {
                        continue;
                    }
                    Key::Make(*pass)
                }
                Action::Remove { account, .. } => Key::Remove(account.clone()),
                Action::ReportGone { pass } => Key::Gone(*pass),
            };
            some = true;
            let keeper = self.clone();
            // where somebody is still in, the fence goes first and then what ends them: to put away what an account owns has time
            let is_connected = |account: &String| observed.backends.iter().any(|backend| backend.account == *account);
            let pause = if matches!(&action, Action::Remove { account, .. } if is_connected(account)) { 2 * HEAD_START } else { Duration::ZERO };
            work.spawn_or_wait(key, async move {
                tokio::time::sleep(pause).await;
                keeper.act(action).await
            });
        }
        reserved?;
        // also while an account cannot be removed: it is no reason for the others
        for key in [Key::Grants, Key::Groups] {
            if work.may(&key) {
                let (keeper, grants) = (self.clone(), key == Key::Grants);
                work.spawn(key, async move {
                    if grants {
                        keeper.refresh_grants().await;
                    } else {
                        keeper.tidy_all_groups().await;
                    }
                    Ok(())
                });
            }
        }
        Ok(some)
    }

    /// Is each database still the one that it was? Gives what this look saw; a database that is not there right now is no answer to that.
    async fn identify(&self) -> Result<BTreeMap<EnvironmentId, Identity>, TargetError> {
        let environments: Vec<_> = self.node.ledger(|ledger| {
            let here = ledger.environments_on(self.id).filter(|env| !env.removed() && env.frozen_by.is_none());
            here.map(|env| (env.id, env.spec.database.clone(), env.identity.clone())).collect()
        });
        let mut identified = BTreeMap::new();
        if environments.is_empty() {
            return Ok(identified);
        }
        // looked at first: what is looked at afterwards can only be further
        let position = self.target.position().await?;
        for (environment, database, known) in environments {
            let trouble = format!("environment:{environment}");
            match self.identify_one(environment, &database, known.as_ref(), position).await {
                Ok(identity) => {
                    self.node.troubles.clear(&trouble);
                    identified.insert(environment, identity);
                }
                // the server is away: that is not this database's trouble
                Err(error @ TargetError::Unreachable(_)) => return Err(error),
                Err(error) => self.node.troubles.note(&trouble, error.to_string(), self.node.now()),
            }
        }
        Ok(identified)
    }

    async fn identify_one(
        &self,
        environment: EnvironmentId,
        database: &DatabaseName,
        known: Option<&Identity>,
        position: Option<u64>,
    ) -> Result<Identity, TargetError> {
        let mut identity = self.target.identity(environment, database).await?;
        if known != Some(&identity) {
            // what is there now gets a mark of its own first, so that a copy of before is not taken for it
            self.target.adopt(environment, database).await?;
            identity = self.target.identity(environment, database).await?;
            self.report(Observed::Identity { environment, identity: identity.clone() }).await;
        } else if self.node.positions.is_set_back(environment, position) {
            self.report(Observed::SetBack { environment, identity: identity.clone() }).await;
        }
        if let Some(position) = position {
            self.node.positions.note(environment, position);
        }
        Ok(identity)
    }

    /// What was created since the last look becomes visible to live accounts.
    async fn refresh_grants(&self) {
        let now = self.node.now();
        let live: BTreeSet<_> = self.node.ledger(|ledger| {
            let ready = ledger.open_passes().filter(|pass| matches!(pass.state(), State::Ready { .. }) && ledger.over(pass, now).is_none());
            ready
                .filter_map(|pass| ledger.environment(pass.environment))
                .filter(|env| env.target == self.id && env.spec.grants == Grants::Granted)
                .map(|env| (env.id, env.spec.database.clone()))
                .collect()
        });
        for (environment, database) in live {
            if let Err(error) = self.target.refresh_grants(environment, &database).await {
                tracing::warn!(%environment, %error, "rights on new objects could not be granted");
            }
        }
    }

    async fn tidy_all_groups(&self) {
        let here = |env: &&Environment| env.target == self.id && env.identity.is_some();
        let all: Vec<EnvironmentId> = self.node.ledger(|ledger| ledger.environments().filter(here).map(|env| env.id).collect());
        for environment in all {
            self.tidy_groups(environment).await;
        }
    }

    /// What was made or prepared as one of the groups that accounts belong to is nobody's, and would outlive them all.
    async fn tidy_groups(&self, environment: EnvironmentId) {
        let Some((database, heir)) = self.node.ledger(|ledger| {
            let env = ledger.environment(environment)?;
            Some((env.spec.database.clone(), env.spec.heir.clone()))
        }) else {
            return;
        };
        let trouble = format!("groups:{environment}");
        match self.target.tidy_groups(environment, &database, Estate { environment: Some(environment), heir: heir.as_deref(), drop: false }).await {
            Ok(swept) => {
                self.node.troubles.clear(&trouble);
                if !swept.is_empty() {
                    self.report(Observed::DatabaseSwept { environment, swept }).await;
                }
            }
            Err(error) => self.node.troubles.note(&trouble, format!("what the groups of accounts own could not be taken from them: {error}"), self.node.now()),
        }
    }

    async fn act(&self, action: Action) -> Result<(), TargetError> {
        let pass_of = |action: &Action| match action {
            Action::Provide { pass, .. } | Action::Restore { pass, .. } | Action::ReportGone { pass } => Some(*pass),
            Action::Remove { pass, .. } => *pass,
        };
        let pass = pass_of(&action);
        let trouble = pass.map(|pass| format!("pass:{pass}"));
        let done = self.act_once(action).await;
        if let Err(error) = &done {
            tracing::warn!(target = %self.id, %error, "an account could not be made or removed; trying again");
        }
        if let Some(trouble) = trouble {
            match &done {
                Ok(()) => self.node.troubles.clear(&trouble),
                // of what is over and gone there is nothing to tell
                Err(_) if pass.is_some_and(|pass| self.node.ledger(|ledger| ledger.pass(pass).is_none_or(|pass| pass.state().is_final()))) => {
                    self.node.troubles.clear(&trouble);
                }
                Err(error) => self.node.troubles.note(trouble, error.to_string(), self.node.now()),
            }
        }
        done
    }

    async fn act_once(&self, action: Action) -> Result<(), TargetError> {
        let is_over = |id| self.node.ledger(|ledger| ledger.pass(id).is_none_or(|pass| ledger.over(pass, self.node.now()).is_some()));
        match action {
            // it ended while this waited
            Action::Provide { pass, .. } | Action::Restore { pass, .. } if is_over(pass) => Ok(()),
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
                let of = self.node.ledger(|ledger| {
                    let env = ledger.environment(ledger.pass(pass?)?.environment)?;
                    Some((env.id, env.spec.heir.clone(), ledger.policy(env).drop_leftovers))
                });
                let (environment, heir, drop) = of.map_or((None, None, false), |(id, heir, drop)| (Some(id), heir, drop));
                let databases = databases(&self.node, self.id);
                if let Some(pass) = pass {
                    // what is there is on record before anything of it is touched
                    let left = self.target.remains(&account, &databases).await?;
                    if !left.is_empty() {
                        self.report(Observed::Left { pass, left, dropped: drop }).await;
                    }
                }
                self.target.remove(&account, &databases, Estate { environment, heir: heir.as_deref(), drop }).await?;
                if let Some(environment) = environment {
                    self.tidy_groups(environment).await;
                }
                Ok(())
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
        let Some((pass, env, extras, sessions)) = self.node.ledger(|ledger| {
            let pass = ledger.pass(id)?;
            let env = ledger.environment(pass.environment)?;
            let policy = ledger.policy(env);
            Some((pass.clone(), env.clone(), policy.extras.clone(), policy.sessions_per_pass))
        }) else {
            return Ok(());
        };
        // the target adds what is left to its own clock: never later than ours
        let Some(left) = u64::try_from(ends_at.since(self.node.now())).ok().filter(|left| *left > 0) else { return Ok(()) };
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
            left: Duration::from_micros(left),
            sessions,
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
        daypass_gateway::probe(&*self.node, &pass, &env, &target).await.map_err(|e| TargetError::Refused(e.to_string()))
    }

    async fn report(&self, observed: Observed) {
        if let Err(error) = self.control.run(Command::Observed(observed), Actor::System).await {
            tracing::warn!(%error, "what was observed could not be recorded; the next look repeats it");
        }
    }
}
