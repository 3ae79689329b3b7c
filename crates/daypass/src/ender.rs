//! Ends at the targets: one task for each, on threads and a connection that nothing else uses. It looks, and shuts what is to be shut: accounts
//! of passes that are over, and every connection of an account of ours that is no live session of ours. How much an account owns, what waits
//! to be made, which database hangs: none of that is in its way. What is left of an account afterwards is the keeper's.

use crate::{
    keeper::{accounts, databases},
    node::Node,
};
use daypass_core::{
    environment::Enforce,
    ids::{PassId, TargetId},
    plan::{Backend, Observation, ended, next_deadline},
};
use daypass_gateway::World;
use daypass_targets::{AnyTarget, Target, TargetError};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often a target is looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(3);
/// After a failure. Short: somebody may be in who should be out.
const AGAIN: Duration = Duration::from_millis(500);
/// And while it goes on failing.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Many changes at once are one look.
const GATHER: Duration = Duration::from_millis(20);
/// The fence goes first: a session that it ended needs no killing, and killing hundreds at once would take the processor from
/// those that tell their clients why.
pub const HEAD_START: Duration = Duration::from_millis(250);
/// A login takes no longer: a connection that is not a live session by then will not become one.
const LOGIN: Duration = Duration::from_secs(12);

/// For as long as the process lives.
pub async fn run(node: Arc<Node>, id: TargetId) {
    let (mut changes, mut left_behind) = (node.changes(), node.sessions.left_behind());
    let trouble = format!("ends:{id}");
    let mut ender = Ender { node: node.clone(), id, strange: HashMap::new(), shut: BTreeSet::new(), over: BTreeSet::new() };
    let mut pause = Duration::ZERO;
    loop {
        changes.borrow_and_update();
        left_behind.borrow_and_update();
        match ender.look().await {
            Ok(()) => {
                node.troubles.clear(&trouble);
                pause = Duration::ZERO;
            }
            Err(error) => {
                tracing::warn!(target = %id, %error, "accounts of a target could not be shut; trying again");
                node.troubles.note(&trouble, format!("accounts whose time is over could not be shut: {error}"), node.now());
                if error.is_full() {
                    // nobody else comes in before ends have their connection again
                    node.set_room(id, Some(0));
                }
                node.target_failed(id, &error);
                pause = (pause * 2).clamp(AGAIN, LONGEST_PAUSE);
            }
        }
        let now = node.now();
        let deadline = node.ledger(|ledger| next_deadline(ledger, id, now));
        let left = deadline.map_or(LOOK, |at| Duration::from_micros(at.since(now).max(0) as u64 + 1_000)).min(LOOK);
        let wait = if pause > Duration::ZERO { pause } else { left };
        let something_ended = async {
            // most of what changes ends nothing here: a look for each would cost the target more than the looks by the clock
            while changes.changed().await.is_ok() {
                if !over(&node, id).is_subset(&ender.over) {
                    break;
                }
            }
        };
        tokio::select! {
            () = something_ended => {}
            _ = left_behind.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Passes on a target that are over, and of which something may be left there.
fn over(node: &Node, id: TargetId) -> BTreeSet<PassId> {
    let now = node.now();
    node.ledger(|ledger| {
        let here = |environment| ledger.environment(environment).is_some_and(|env| env.target == id);
        ledger.open_passes().filter(|pass| here(pass.environment) && ledger.over(pass, now).is_some()).map(|pass| pass.id).collect()
    })
}

struct Ender {
    node: Arc<Node>,
    id: TargetId,
    /// Connections that are no live session, and since when: a login may be on its way to become one.
    strange: HashMap<Backend, Instant>,
    /// Accounts that were shut, and only wait for what they own to be put away: they are not shut again at each look.
    shut: BTreeSet<String>,
    /// What was over before the last look.
    over: BTreeSet<PassId>,
}

impl Ender {
    async fn look(&mut self) -> Result<(), TargetError> {
        self.over = over(&self.node, self.id);
        let target = self.node.target(self.id).await?;
        let looked = self.look_at(&target).await;
        if looked.is_err() {
            // somebody may hold so much of the server that nothing else works
            let accounts: Vec<String> = self.node.ledger(|ledger| self.over.iter().filter_map(|pass| Some(ledger.pass(*pass)?.account.to_string())).collect());
            let closed: Vec<Backend> = self.node.sessions.there().1.into_iter().collect();
            if let Err(error) = target.end_now(&accounts, &closed).await {
                tracing::warn!(target = %self.id, %error, "connections of accounts that are over could not be ended at the target either");
            }
        }
        looked
    }

    async fn look_at(&mut self, target: &AnyTarget) -> Result<(), TargetError> {
        let databases = databases(&self.node, self.id);
        let looking = self.node.trials.look();
        let mut observed = target.observe(&databases, &accounts(&self.node, self.id)).await?;
        looking.leave_out(&mut observed);
        self.node.set_room(self.id, observed.room);
        let now = self.node.now();
        let over: Vec<String> = self.node.ledger(|ledger| ended(ledger, &observed, now).into_iter().map(str::to_owned).collect());
        let by_moment = self.node.ledger(|ledger| ledger.target(self.id).is_some_and(|target| target.spec.engine.logs_in_by_moment()));
        let mut loose = self.loose(&observed, &over, by_moment);
        let at_the_door = self.node.at_the_door();
        let open = |name: &&String| at_the_door.contains(*name);
        let doors = observed.accounts.iter().filter(|account| by_moment && account.can_login).map(|account| &account.name);
        let doors: Vec<String> = doors.filter(|name| !over.contains(name) && !open(name)).cloned().collect();
        let is_connected = |name: &String| observed.backends.iter().any(|backend| backend.account == *name);
        let can_login = |name: &String| observed.accounts.iter().any(|account| account.name == *name && account.can_login);
        self.shut.retain(|name| over.contains(name));
        let to_shut: Vec<String> = over.into_iter().filter(|name| !self.shut.contains(name) || is_connected(name) || can_login(name)).collect();
        if to_shut.iter().any(is_connected) {
            tokio::time::sleep(HEAD_START).await;
            // what has become a session meanwhile is one
            let (live, _) = self.node.sessions.there();
            loose.retain(|backend| !live.contains(backend));
        }
        let mut all = Ok(());
        if !to_shut.is_empty() || !loose.is_empty() {
            for backend in &loose {
                tracing::info!(account = %backend.account, number = backend.id, "a connection of an account of ours that is no live session is ended");
            }
            all = target.shut(&to_shut, &loose, &databases).await;
            if all.is_ok() {
                self.shut.extend(to_shut);
            }
        }
        if !doors.is_empty() {
            all = all.and(target.close_doors(&doors).await);
        }
        all.and(target.reserve().await)
    }

    /// Connections of accounts that are good, and of no session of ours. What is over by its own record goes at once; what may be a login under
    /// way gets the time that a login may take.
    ///
    /// Where accounts can always log in, nobody but the gateway knows a password, and the number that a login is told is not promised to be the one
    /// in the views: there only what was a session of ours goes, and not while a login could have been given its number.
    fn loose(&mut self, observed: &Observation, over: &[String], by_moment: bool) -> Vec<Backend> {
        // asked in this order: a login is on one of the two lists at each moment
        let at_the_door = self.node.at_the_door();
        let (live, closed) = self.node.sessions.there();
        // where nothing of ours lies between, people connect as these accounts themselves
        let direct: BTreeSet<String> = self.node.ledger(|ledger| {
            let direct = |environment| ledger.environment(environment).is_none_or(|env| env.spec.enforce != Enforce::Gateway);
            ledger.open_passes().filter(|pass| direct(pass.environment)).map(|pass| pass.account.to_string()).collect()
        });
        // a session whose number is not known could be any of its account's
        let unnumbered: BTreeSet<&str> = live.iter().filter(|backend| backend.id == 0).map(|backend| backend.account.as_str()).collect();
        let strange = |backend: &&Backend| {
            !live.contains(*backend) && !over.contains(&backend.account) && !direct.contains(&backend.account) && !unnumbered.contains(backend.account.as_str())
        };
        let strange: Vec<Backend> = observed.backends.iter().filter(strange).cloned().collect();
        self.strange.retain(|backend, _| strange.contains(backend));
        let now = Instant::now();
        strange
            .into_iter()
            .filter(|backend| {
                let since = *self.strange.entry(backend.clone()).or_insert(now);
                let (was_ours, coming) = (closed.contains(backend), at_the_door.contains(&backend.account));
                if by_moment { was_ours || !coming || now.duration_since(since) > LOGIN } else { was_ours && !coming }
            })
            .collect()
    }
}
