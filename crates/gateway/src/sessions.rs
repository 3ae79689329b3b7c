//! Live sessions and their fence. Ended means disconnected: a session carries its deadline and a flag, and both are looked at
//! before every chunk that is forwarded.

use crate::{
    World,
    ranked::{Held, Rank, Ranked},
};
use daypass_core::{
    admission::{self, Fallen, Standing, Told},
    ids::*,
    names::AccountName,
    plan::Backend,
    time::{Time, Ttl},
};
use daypass_wire::pg::message::CancelKey;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use subtle::ConstantTimeEq;
use tokio::sync::{Notify, watch};

/// The key that we gave to the client, and the target's own behind it.
pub struct CancelKeys {
    pub ours: CancelKey,
    pub theirs: CancelKey,
}

/// One client connection that was let in.
pub struct Session {
    pub id: SessionId,
    pub pass: PassId,
    pub environment: EnvironmentId,
    pub environment_name: String,
    pub account: AccountName,
    pub address: IpAddr,
    pub opened_at: Time,
    /// A session in which nothing happens for so long ends.
    pub idle: Option<Ttl>,
    /// Whether its statements go on record.
    pub record: bool,
    /// Where cancel requests come on connections of their own.
    pub cancel: Option<CancelKeys>,
    pub target: TargetId,
    pub upstream: SocketAddr,
    /// As whom it is logged in there, and the number that the target knows it by; 0 when it does not say.
    pub there: Backend,
    until: AtomicI64,
    /// What ends it then.
    then: Ranked<Fallen>,
    cut: OnceLock<Told>,
    /// What its client is to be told while it goes on.
    word: Ranked<Option<String>>,
    wake: Notify,
}

impl Session {
    /// Has the client told something, at the next place where the protocol takes it; where it takes none, nothing is said.
    pub fn tell(&self, words: &str) {
        *self.word.lock() = Some(words.to_owned());
        self.wake.notify_one();
    }

    /// What waits to be told.
    pub fn word(&self) -> Option<String> {
        self.word.lock().clone()
    }

    pub fn told(&self) {
        *self.word.lock() = None;
    }

    /// Why no byte may pass any more, if so.
    pub fn fenced(&self, now: Time) -> Option<Told> {
        match self.cut.get() {
            Some(told) => Some(told.clone()),
            None if now >= self.until() => {
                let told = self.then.lock().told(&self.environment_name);
                Some(self.cut.get_or_init(|| told).clone())
            }
            None => None,
        }
    }

    pub fn until(&self) -> Time {
        Time::from_micros(self.until.load(Ordering::Acquire))
    }

    /// Moves the deadline; whoever waits for it looks again.
    pub fn set_until(&self, Standing { until, then }: Standing) {
        *self.then.lock() = then;
        if self.until.swap(until.micros(), Ordering::AcqRel) != until.micros() {
            self.wake.notify_one();
        }
    }

    /// Cuts the session now. The first reason stays.
    pub fn cut(&self, told: Told) {
        if self.cut.set(told).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Waits until something about the fence changed.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// What makes a session, besides its fence.
pub struct Opening {
    pub id: SessionId,
    pub pass: PassId,
    pub environment: EnvironmentId,
    pub environment_name: String,
    pub account: AccountName,
    pub address: IpAddr,
    pub opened_at: Time,
    pub until: Standing,
    pub idle: Option<Ttl>,
    pub record: bool,
    pub cancel: Option<CancelKeys>,
    pub target: TargetId,
    pub upstream: SocketAddr,
    pub there: Backend,
}

/// All live sessions of this process.
pub struct Sessions {
    live: Ranked<Live>,
    /// How often a session has opened or closed.
    changed: watch::Sender<u64>,
    /// How often one has closed and left something running at its target.
    left_behind: watch::Sender<u64>,
    /// Sessions that are over, and whose last records are on their way.
    away: AtomicUsize,
    /// The process is about to end: nobody ends later what is left at a target now.
    stopping: AtomicBool,
}

/// A session that is over and is being put away.
pub struct PuttingAway(Arc<Sessions>);

impl Drop for PuttingAway {
    fn drop(&mut self) {
        self.0.away.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How long the number of a session that is over is known: longer than any look at a target takes.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Default for Sessions {
    fn default() -> Self {
        Sessions {
            live: Ranked::new(Rank::Sessions, Live::default()),
            changed: watch::Sender::default(),
            left_behind: watch::Sender::default(),
            away: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        }
    }
}

#[derive(Default)]
struct Live {
    by_id: BTreeMap<SessionId, Arc<Session>>,
    /// By the number in their cancel keys: two targets may give the same one.
    by_pid: HashMap<u32, Vec<SessionId>>,
    /// Logins that were admitted and are not sessions yet count as well.
    per_pass: HashMap<PassId, usize>,
    per_target: HashMap<TargetId, usize>,
    per_person: HashMap<(TargetId, UserId), usize>,
    /// Sessions that are over, by how their targets know them: whatever still runs under such a number is to end.
    over: VecDeque<(Instant, Backend)>,
}

/// A place among the sessions of a pass, held from admission to the end.
pub struct Seat {
    sessions: Arc<Sessions>,
    pass: PassId,
    target: Option<(TargetId, UserId)>,
}

/// Whether there was a place at a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    Yes,
    /// The person has their share.
    Share,
    Full,
}

impl Seat {
    /// Takes a place at the target as well, if it has one for this person: nobody has the last quarter for themselves.
    pub fn at(&mut self, target: TargetId, person: UserId, room: Option<u32>) -> Taken {
        let mut live = self.sessions.lock();
        let all = live.per_target.get(&target).copied().unwrap_or_default();
        let theirs = live.per_person.get(&(target, person)).copied().unwrap_or_default();
        if let Some(room) = room.map(|room| room as usize) {
            if all >= room {
                return Taken::Full;
            }
            if theirs >= room - room / 4 {
                return Taken::Share;
            }
        }
        *live.per_target.entry(target).or_default() += 1;
        *live.per_person.entry((target, person)).or_default() += 1;
        self.target = Some((target, person));
        Taken::Yes
    }
}

fn one_less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut live = self.sessions.lock();
        one_less(&mut live.per_pass, self.pass);
        if let Some((target, person)) = self.target {
            one_less(&mut live.per_target, target);
            one_less(&mut live.per_person, (target, person));
        }
    }
}

impl Sessions {
    fn lock(&self) -> Held<'_, Live> {
        self.live.lock()
    }

    /// Takes a seat, and says how many the pass had before: of two that come at once, one is the first. Whoever is not admitted then
    /// gives it back.
    pub fn seat(self: &Arc<Self>, pass: PassId) -> (Seat, usize) {
        let mut live = self.lock();
        let count = live.per_pass.entry(pass).or_default();
        *count += 1;
        (Seat { sessions: self.clone(), pass, target: None }, *count - 1)
    }

    pub fn open(&self, opening: Opening) -> Arc<Session> {
        let Opening { id, pass, environment, environment_name, account, address, opened_at, until, cancel, target, upstream, there, idle, record } = opening;
        let session = Arc::new(Session {
            id,
            pass,
            environment,
            environment_name,
            account,
            address,
            opened_at,
            idle,
            record,
            cancel,
            target,
            upstream,
            there,
            until: AtomicI64::new(until.until.micros()),
            then: Ranked::new(Rank::Word, until.then),
            cut: OnceLock::new(),
            word: Ranked::new(Rank::Word, None),
            wake: Notify::new(),
        });
        let mut live = self.lock();
        if let Some(keys) = &session.cancel {
            live.by_pid.entry(keys.ours.pid).or_default().push(id);
        }
        // its target may give a number again
        live.over.retain(|(_, backend)| *backend != session.there);
        live.by_id.insert(id, session.clone());
        drop(live);
        self.changed.send_modify(|count| *count += 1);
        session
    }

    /// Closes it; until what is given back goes, its last records are waited for.
    pub fn put_away(self: &Arc<Self>, id: SessionId) -> PuttingAway {
        self.away.fetch_add(1, Ordering::AcqRel);
        self.close(id);
        PuttingAway(self.clone())
    }

    /// Nobody is in, and everything about those who were is on record.
    pub fn is_quiet(&self) -> bool {
        self.away.load(Ordering::Acquire) == 0 && self.lock().by_id.is_empty()
    }

    /// From here on sessions that end leave nothing running to be ended later.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn close(&self, id: SessionId) {
        let mut live = self.lock();
        let closed = live.by_id.remove(&id);
        if let Some(keys) = closed.as_ref().and_then(|session| session.cancel.as_ref()) {
            let left = live.by_pid.entry(keys.ours.pid).or_default();
            left.retain(|known| *known != id);
            if left.is_empty() {
                live.by_pid.remove(&keys.ours.pid);
            }
        }
        while live.over.pop_front_if(|(at, _)| at.elapsed() > REMEMBERED).is_some() {}
        if let Some(session) = closed.filter(|session| session.there.id != 0) {
            live.over.push_back((Instant::now(), session.there.clone()));
        }
        drop(live);
        self.changed.send_modify(|count| *count += 1);
    }

    /// A session that is closed may have left a statement running: its target is looked at now.
    pub fn leave_behind(&self) {
        self.left_behind.send_modify(|count| *count += 1);
    }

    /// Wakes when a session may have left something behind.
    pub fn left_behind(&self) -> watch::Receiver<u64> {
        self.left_behind.subscribe()
    }

    /// How the targets know the sessions that live, and those that are over.
    pub fn there(&self) -> (HashSet<Backend>, HashSet<Backend>) {
        let live = self.lock();
        let over = live.over.iter().map(|(_, backend)| backend.clone()).collect();
        (live.by_id.values().map(|session| session.there.clone()).collect(), over)
    }

    /// How often a session has opened or closed; wakes whenever one does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many sessions a pass has now.
    pub fn of(&self, pass: PassId) -> usize {
        self.lock().per_pass.get(&pass).copied().unwrap_or_default()
    }

    pub fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.lock().by_id.get(&id).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Session>> {
        self.lock().by_id.values().cloned().collect()
    }

    /// The session that a cancel key belongs to, and the key to pass on.
    pub fn by_key(&self, key: &CancelKey) -> Option<(Arc<Session>, CancelKey)> {
        let live = self.lock();
        live.by_pid.get(&key.pid)?.iter().find_map(|id| {
            let session = live.by_id.get(id)?;
            let keys = session.cancel.as_ref()?;
            bool::from(keys.ours.secret.ct_eq(&key.secret)).then(|| (session.clone(), keys.theirs.clone()))
        })
    }

    /// Looks at every session anew. Called whenever the ledger changed: it takes no hint of what did.
    pub fn review(&self, world: &impl World) {
        let now = world.now();
        let sessions = self.all();
        world.ledger(|ledger| {
            for session in sessions {
                let standing = match ledger.pass(session.pass) {
                    Some(pass) => admission::standing(ledger, pass, session.address, now),
                    None => Err(Fallen::NotReady),
                };
                match standing {
                    Ok(until) => {
                        session.set_until(until);
                    }
                    Err(fallen) => session.cut(fallen.told(&session.environment_name)),
                }
            }
        });
    }
}

/// Keeps the fence up to date for as long as the process lives.
pub async fn keep_fence(world: Arc<impl World>, sessions: Arc<Sessions>) {
    let mut changes = world.changes();
    while changes.changed().await.is_ok() {
        changes.borrow_and_update();
        sessions.review(&*world);
    }
}
