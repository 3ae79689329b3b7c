//! One node: the ledger that everybody reads, the store behind it, and the secrets of what is live. The gateway sees it as its
//! [`World`].

use crate::{clock::Clock, trial::Trials};
use daypass_core::{
    environment::{Engine, Target, TargetSpec, TargetTls},
    event::Entry,
    firewall::Rule,
    ids::*,
    index::{Filter, Index},
    ledger::{Inconsistent, Ledger},
    secret::Secret,
    session::*,
    time::Time,
};
use daypass_gateway::{
    Door, World,
    ranked::{Held, Rank, Ranked},
    sessions::{Session, Sessions},
};
use daypass_store::{Store, StoreError};
use daypass_targets::{AnyTarget, Target as _, TargetError};
use daypass_wire::pg::scram::{SaltedPassword, Verifier};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{runtime::Handle, sync::watch};

pub struct Node {
    pub clock: Clock,
    /// Threads of what ends access.
    ends: Handle,
    pub store: Store,
    pub sessions: Arc<Sessions>,
    pub troubles: Troubles,
    /// Firewall rules that others made, by environment, as last seen.
    drift: Ranked<BTreeMap<EnvironmentId, Vec<Rule>>>,
    /// How far the log of each environment's server was, as last seen.
    pub positions: Positions,
    /// What everybody reads: whoever looks takes it along, and holds no lock while they look.
    ledger: Ranked<Arc<Ledger>>,
    index: Ranked<Index>,
    changed: watch::Sender<u64>,
    vault: Ranked<Vault>,
    /// The administrator's way to each target, with the connections that are kept; made anew when its spec changes or it fails.
    targets: Ranked<BTreeMap<TargetId, (TargetSpec, Arc<AnyTarget>)>>,
    /// How many of our sessions each target has room for.
    rooms: Ranked<BTreeMap<TargetId, u32>>,
    /// Logins that are under way, by account.
    doors: Doors,
    pub trials: Trials,
    /// Standing accounts whose password was put back, and until when they are watched.
    watched: Ranked<BTreeMap<StandingId, std::time::Instant>>,
    /// Those that are being taken back, and what is waited for.
    taking_back: Ranked<BTreeMap<StandingId, Vec<u32>>>,
    /// KiB of each person's statements that went on record.
    recorded: DefaultKeyedRateLimiter<UserId>,
    /// Whose sessions are on record as open.
    holders: Ranked<HashMap<SessionId, UserId>>,
}

type Doors = Arc<Ranked<HashMap<String, AtTheDoor>>>;

/// The logins of one account that are under way.
#[derive(Default)]
struct AtTheDoor {
    count: usize,
    /// How many there were since it was opened.
    logins: usize,
    /// Whether the target lets it in now; held while that changes, so that two never change one account at once.
    open: Arc<tokio::sync::Mutex<bool>>,
}

/// The secrets of live passes, as they are sealed in the store under `pass:<id>`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassSecrets {
    /// What the person types.
    pub person: String,
    /// What the gateway checks it against.
    pub verifier: String,
    /// What the target knows; nobody sees it.
    pub target: String,
    /// What the target is given of it.
    pub target_verifier: String,
    /// And what the gateway proves it with: the slow part of that is done by the one who makes it. It is not stored.
    #[serde(skip)]
    pub salted: Option<SaltedPassword>,
}

impl PassSecrets {
    pub fn id(pass: PassId) -> String {
        format!("pass:{pass}")
    }

    /// Two fresh random passwords with their verifiers.
    pub fn make() -> Self {
        let salted = |password: &str| {
            let mut salt = [0; 16];
            crate::random::fill(&mut salt);
            SaltedPassword::derive(password, &salt, daypass_wire::pg::scram::ITERATIONS)
        };
        // the rules for passwords of SQL Server and Azure ask for three of four kinds of characters
        let (person, target) = (crate::random::password(), format!("Dp-{}", crate::random::password()));
        let proof = salted(&target);
        let (verifier, target_verifier) = (salted(&person).verifier().to_string(), proof.verifier().to_string());
        PassSecrets { verifier, target_verifier, person, target, salted: Some(proof) }
    }

    pub fn sealed(&self) -> Secret {
        Secret::new(serde_json::to_string(self).unwrap_or_else(|_| unreachable!("four texts")))
    }
}

/// KiB of statements: so many MiB a second, and 128 times as many in a row.
fn per_second(mib: u32) -> Quota {
    let kib = |mib: u32| NonZeroU32::new(mib.saturating_mul(1024)).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(kib(mib.max(1))).allow_burst(kib(mib.max(1).saturating_mul(128)))
}

/// How long the writer waits for those that look at the ledger of before.
const READERS: std::time::Duration = std::time::Duration::from_millis(50);

/// How long an account that is gone is told why (microseconds).
const REMEMBERED: i64 = 24 * 3600 * 1_000_000;

/// What the gateway needs at once, and only for passes that are open.
#[derive(Default)]
struct Vault {
    verifiers: HashMap<String, Verifier>,
    target: HashMap<PassId, (Secret, String)>,
    salted: HashMap<PassId, SaltedPassword>,
    standing: HashMap<StandingId, Secret>,
    /// Accounts that are gone, and since when.
    ended: VecDeque<(Time, String)>,
    tls: HashMap<TargetId, ((Engine, TargetTls), Arc<rustls::ClientConfig>)>,
}

impl Node {
    /// `records`: how many MiB a second of one person's statements go on record.
    pub fn new(store: Store, clock: Clock, ends: Handle, ledger: Ledger, index: Index, positions: Positions, records: u32) -> Self {
        let (changed, _) = watch::channel(ledger.seq());
        Node {
            clock,
            ends,
            targets: Ranked::new(Rank::Targets, BTreeMap::new()),
            rooms: Ranked::new(Rank::Rooms, BTreeMap::new()),
            doors: Arc::new(Ranked::new(Rank::Doors, HashMap::new())),
            trials: Trials::default(),
            watched: Ranked::new(Rank::Watched, BTreeMap::new()),
            taking_back: Ranked::new(Rank::Watched, BTreeMap::new()),
            store,
            sessions: Arc::default(),
            troubles: Troubles::default(),
            drift: Ranked::new(Rank::Drift, BTreeMap::new()),
            positions,
            recorded: RateLimiter::keyed(per_second(records)),
            holders: Ranked::new(Rank::Holders, HashMap::new()),
            ledger: Ranked::new(Rank::Ledger, Arc::new(ledger)),
            index: Ranked::new(Rank::Index, index),
            changed,
            vault: Ranked::new(Rank::Vault, Vault::default()),
        }
    }

    /// Nobody alone fills the disk in a moment: who writes more than their share waits.
    async fn wait_for_room(&self, block: &StatementBlock) {
        // also what a session that is over still has to tell
        let Some(holder) = self.holders.lock().get(&block.session).copied() else { return };
        let Some(kib) = NonZeroU32::new(u32::try_from(block.lines.len() / 1024).unwrap_or(u32::MAX)) else { return };
        // a block that is larger than all there is room for does not come to be
        while let Ok(Err(not_yet)) = self.recorded.check_key_n(&holder, kib) {
            tokio::time::sleep(not_yet.wait_time_from(DefaultClock::default().now())).await;
        }
    }

    /// Puts the new state where everybody reads it, and says that it changed. Only `control` calls it, with the ledger that has these entries
    /// already; it gets back another copy that has them too. Readers never wait for the writer; it waits for those that look at the state of
    /// before, which takes them microseconds.
    pub fn publish(&self, ahead: Ledger, entries: &[Entry]) -> Result<Ledger, Inconsistent> {
        let ahead = Arc::new(ahead);
        let mut index = self.index.lock();
        let mut old = std::mem::replace(&mut *self.ledger.lock(), ahead.clone());
        self.changed.send_replace(ahead.seq());
        let patience = std::time::Instant::now() + READERS;
        let mut next = loop {
            match Arc::try_unwrap(old) {
                Ok(ledger) => break ledger,
                // somebody looks for long: a copy costs more, but it waits for nobody
                Err(_) if std::time::Instant::now() > patience => {
                    entries.iter().for_each(|entry| index.push(&ahead, entry));
                    return Ok((*ahead).clone());
                }
                Err(still) => old = still,
            }
            std::thread::yield_now();
        };
        for entry in entries {
            next.apply(entry)?;
            index.push(&next, entry);
        }
        Ok(next)
    }

    /// The administrator's way to a target.
    pub async fn target(&self, id: TargetId) -> Result<Arc<AnyTarget>, TargetError> {
        let (spec, store) = self.ledger(|ledger| (ledger.target(id).map(|target| target.spec.clone()), ledger.store()));
        let (Some(spec), Some(store)) = (spec, store) else { return Err(TargetError::Refused("it is not known any more".to_owned())) };
        if let Some((_, known)) = self.targets.lock().get(&id).filter(|(known, _)| *known == spec) {
            return Ok(known.clone());
        }
        let password = self.store.log.secret(&target_secret(id)).await.ok().flatten();
        let password = password.ok_or_else(|| TargetError::Refused("the administrator's password is not in the store".to_owned()))?;
        let tls = self.target_tls(id);
        let made = {
            let _home = self.ends.enter();
            Arc::new(AnyTarget::new(spec.clone(), password, tls, store))
        };
        // two that make it at once keep the first: its reserved connections are the ones that are there
        Ok(self
            .targets
            .lock()
            .entry(id)
            .and_modify(|known| {
                if known.0 != spec {
                    *known = (spec.clone(), made.clone())
                }
            })
            .or_insert((spec, made))
            .1
            .clone())
    }

    /// A way to a server that is not stored yet, to be tried.
    pub fn untried(&self, spec: &TargetSpec, password: Secret) -> Result<AnyTarget, TargetError> {
        let store = self.ledger(Ledger::store).ok_or_else(|| TargetError::Refused("there is no store yet".to_owned()))?;
        let _home = self.ends.enter();
        Ok(AnyTarget::new(spec.clone(), password, tls_to(spec.engine, &spec.tls), store))
    }

    /// When it failed in a way that a changed password would explain, the next one asks the store again. In all other cases it is kept: with it
    /// would go the connection that ends access, and somebody could take its place.
    pub fn target_failed(&self, id: TargetId, error: &TargetError) {
        if error.is_refused_login() {
            self.forget_target(id);
        }
    }

    /// Its settings or its password were changed.
    pub fn forget_target(&self, id: TargetId) {
        self.targets.lock().remove(&id);
    }

    /// Each look ends connections of this standing account that are none of ours, for so long.
    pub fn watch_standing(&self, standing: StandingId, how_long: std::time::Duration) {
        self.watched.lock().insert(standing, std::time::Instant::now() + how_long);
        self.wake();
    }

    /// What is waited for until an account that is being taken back may log in again.
    pub fn being_taken_back(&self, standing: StandingId) -> Option<Vec<u32>> {
        self.taking_back.lock().remove(&standing)
    }

    pub fn take_back_later(&self, standing: StandingId, waiting: Option<Vec<u32>>) {
        if let Some(waiting) = waiting {
            self.taking_back.lock().insert(standing, waiting);
        }
    }

    pub fn watched_standings(&self) -> Vec<StandingId> {
        let mut watched = self.watched.lock();
        watched.retain(|_, until| std::time::Instant::now() < *until);
        watched.keys().copied().collect()
    }

    pub fn set_room(&self, target: TargetId, room: Option<u32>) {
        let mut rooms = self.rooms.lock();
        match room {
            Some(room) => drop(rooms.insert(target, room)),
            None => drop(rooms.remove(&target)),
        }
    }

    /// Accounts of which a login is under way.
    pub fn at_the_door(&self) -> HashSet<String> {
        self.doors.lock().keys().cloned().collect()
    }

    /// Wakes whoever waits for a change: the keepers look again.
    pub fn wake(&self) {
        self.changed.send_modify(|_| ());
    }

    /// The numbers of the newest lines of the log that fit, newest first.
    pub fn find_in_log(&self, filter: &Filter, limit: usize) -> Vec<u64> {
        self.index.lock().find(filter, limit)
    }

    pub fn set_drift(&self, environment: EnvironmentId, rules: Vec<Rule>) {
        self.drift.lock().insert(environment, rules);
    }

    pub fn drift(&self, environment: EnvironmentId) -> Vec<Rule> {
        self.drift.lock().get(&environment).cloned().unwrap_or_default()
    }

    fn vault<R>(&self, look: impl FnOnce(&Vault) -> R) -> R {
        look(&self.vault.lock())
    }

    fn vault_mut<R>(&self, change: impl FnOnce(&mut Vault) -> R) -> R {
        change(&mut self.vault.lock())
    }

    /// Makes the secrets of a pass known to the gateway.
    pub fn remember(&self, pass: PassId, account: &str, secrets: &PassSecrets) {
        let Ok(verifier) = secrets.verifier.parse() else { return };
        self.vault_mut(|vault| {
            vault.verifiers.insert(account.to_owned(), verifier);
            vault.target.insert(pass, (Secret::new(&*secrets.target), secrets.target_verifier.clone()));
            vault.salted.extend(secrets.salted.clone().map(|salted| (pass, salted)));
        });
    }

    /// The target's password is forgotten at once. What checks the person's is kept for a day, since it opens nothing any more: a tool
    /// that logs in again by itself is told why it may not, in place of "wrong password".
    pub fn forget(&self, pass: PassId, account: &str) {
        let now = self.clock.now();
        self.vault_mut(|vault| {
            vault.ended.push_back((now, account.to_owned()));
            while let Some((_, old)) = vault.ended.pop_front_if(|(at, _)| now.since(*at) > REMEMBERED) {
                vault.verifiers.remove(&old);
            }
            vault.target.remove(&pass);
            vault.salted.remove(&pass);
        });
    }

    /// The password of a standing account, for the gateway; none: it knows it no longer.
    pub fn remember_standing(&self, standing: StandingId, password: Option<Secret>) {
        self.vault_mut(|vault| match password {
            Some(password) => drop(vault.standing.insert(standing, password)),
            None => drop(vault.standing.remove(&standing)),
        });
    }

    /// What the target is given as the account's password.
    pub fn target_verifier(&self, pass: PassId) -> Option<String> {
        self.vault(|vault| vault.target.get(&pass).map(|(_, verifier)| verifier.clone()))
    }

    /// The secrets of a pass from the store, to show them to its holder.
    pub async fn pass_secrets(&self, pass: PassId) -> Result<Option<PassSecrets>, StoreError> {
        let sealed = self.store.log.secret(&PassSecrets::id(pass)).await?;
        sealed
            .map(|text| serde_json::from_str(text.expose()).map_err(|_| StoreError::Damaged(format!("the secrets of pass {pass} cannot be read"))))
            .transpose()
    }
}

/// How a server is spoken to; none: without TLS, in so many words. A CA that cannot be read gives a configuration that trusts nobody: never no
/// TLS.
pub fn tls_to(engine: Engine, tls: &TargetTls) -> Option<Arc<rustls::ClientConfig>> {
    let (versions, alpn, ca): (_, Option<&[u8]>, _) = match (engine, tls) {
        (_, TargetTls::Off) => return None,
        (Engine::Postgres, TargetTls::VerifyFull { ca } | TargetTls::Strict { ca }) => (rustls::DEFAULT_VERSIONS, None, ca),
        // its handshake lies in packets, and there is no later version in there
        (Engine::SqlServer, TargetTls::VerifyFull { ca }) => (&[&rustls::version::TLS12][..], None, ca),
        (Engine::SqlServer, TargetTls::Strict { ca }) => (rustls::DEFAULT_VERSIONS, Some(b"tds/8.0"), ca),
    };
    let mut config = client_tls(versions, ca.as_deref());
    config.alpn_protocols.extend(alpn.map(<[u8]>::to_vec));
    Some(Arc::new(config))
}

pub fn client_tls(versions: &[&'static rustls::SupportedProtocolVersion], ca: Option<&str>) -> rustls::ClientConfig {
    use rustls_platform_verifier::BuilderVerifierExt;
    let builder = || rustls::ClientConfig::builder_with_protocol_versions(versions);
    let nobody = || builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    match ca {
        None => builder().with_platform_verifier().map_or_else(|_| nobody(), |builder| builder.with_no_client_auth()),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
                let _ = roots.add(certificate);
            }
            builder().with_root_certificates(roots).with_no_client_auth()
        }
    }
}

impl World for Node {
    fn ledger<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        let ledger = self.ledger.lock().clone();
        look(&ledger)
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn verifier(&self, account: &str) -> Option<Verifier> {
        self.vault(|vault| vault.verifiers.get(account).cloned())
    }

    fn target_password(&self, pass: PassId) -> Option<Secret> {
        self.vault(|vault| vault.target.get(&pass).map(|(password, _)| password.clone()))
    }

    fn standing_password(&self, standing: StandingId) -> Option<Secret> {
        self.vault(|vault| vault.standing.get(&standing).cloned())
    }

    fn target_tls(&self, target: TargetId) -> Option<Arc<rustls::ClientConfig>> {
        // a target that is not known trusts nobody
        let unknown = (Engine::Postgres, TargetTls::VerifyFull { ca: Some(String::new()) });
        let wanted = self.ledger(|ledger| ledger.target(target).map(|t| (t.spec.engine, t.spec.tls.clone()))).unwrap_or(unknown);
        if let Some(known) = self.vault(|vault| vault.tls.get(&target).filter(|(spec, _)| *spec == wanted).map(|(_, config)| config.clone())) {
            return Some(known);
        }
        let config = tls_to(wanted.0, &wanted.1)?;
        self.vault_mut(|vault| vault.tls.insert(target, (wanted, config.clone())));
        Some(config)
    }

    fn keep_salted(&self, pass: PassId, salted: SaltedPassword) {
        self.vault_mut(|vault| {
            if vault.target.contains_key(&pass) {
                vault.salted.insert(pass, salted);
            }
        });
    }

    fn salted(&self, pass: PassId) -> Option<SaltedPassword> {
        self.vault(|vault| vault.salted.get(&pass).cloned())
    }

    fn position(&self, environment: EnvironmentId) -> Option<u64> {
        self.positions.known(environment)
    }

    fn is_same_database(&self, environment: EnvironmentId, identity: &str, position: Option<u64>, before: Option<u64>) -> bool {
        let (known, lenient) = self.ledger(|ledger| {
            let env = ledger.environment(environment);
            let lenient = env.and_then(|env| env.failover_until).is_some_and(|until| ledger.clamp(self.now()) < until);
            (env.and_then(|env| env.identity.as_ref()).map(|identity| identity.0.clone()), lenient)
        });
        let same = known.is_some_and(|known| known == identity) && (lenient || position.zip(before).is_none_or(|(position, before)| position >= before));
        if !same {
            // the keeper sees to the rest at once
            self.wake();
        }
        same
    }

    fn question(&self, environment: EnvironmentId) -> Option<String> {
        let known = self.ledger(|ledger| ledger.environment(environment).and_then(|env| env.identity.clone()))?;
        daypass_targets::sqlserver::question(&known, environment)
    }

    fn is_same_answer(&self, environment: EnvironmentId, answer: &[String]) -> bool {
        let known = self.ledger(|ledger| ledger.environment(environment).and_then(|env| env.identity.clone()));
        let same = known.is_some_and(|known| daypass_targets::sqlserver::is_answer(&known, answer));
        if !same {
            // the keeper sees to the rest at once
            self.wake();
        }
        same
    }

    async fn open_door(&self, target: &Target, pass: PassId, account: &str, again: bool) -> Result<Door, String> {
        let way = self.target(target.id).await.map_err(|e| e.to_string())?;
        let gate = {
            let mut doors = self.doors.lock();
            let door = doors.entry(account.to_owned()).or_default();
            door.count += 1;
            door.logins += 1;
            door.open.clone()
        };
        // from here on it is counted: whatever becomes of this login, the door is closed behind it
        // a standing account belongs to somebody else, who may log in as well: it is counted only
        let standing = self.ledger(|ledger| ledger.pass(pass).is_none_or(|pass| pass.wish.standing.is_some()));
        let by_moment = target.spec.engine.logs_in_by_moment() && !standing;
        let (doors, ends, name, closing) = (self.doors.clone(), self.ends.clone(), account.to_owned(), gate.clone());
        let closed_by = way.clone();
        let door = Door::new(move || {
            let last = {
                let mut doors = doors.lock();
                let Some(door) = doors.get_mut(&name) else { return };
                door.count -= 1;
                (door.count == 0).then_some(door.logins)
            };
            if let Some(logins) = last {
                // where several logged in at once, as a pool does, more come: each pair of statements on the role would cost the server more
                // than a login. Whoever logs in alone leaves no door open
                let pause = if logins > 1 { BETWEEN_LOGINS } else { std::time::Duration::ZERO };
                ends.spawn(async move {
                    tokio::time::sleep(pause).await;
                    close_door(doors, closed_by, name, closing, by_moment, logins).await;
                });
            }
        });
        if !by_moment {
            return Ok(door);
        }
        let verifier = self.target_verifier(pass).ok_or_else(|| "the secrets of the pass are gone".to_owned())?;
        let name = account.to_owned();
        // on the threads of the kept connections, so that they depend on no thread that relays
        let opening = self.ends.spawn(async move {
            let mut open = gate.lock().await;
            if !*open || again {
                way.open_door(&name, &verifier).await?;
                *open = true;
            }
            Ok::<_, TargetError>(())
        });
        opening.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        Ok(door)
    }

    fn room(&self, target: TargetId) -> Option<u32> {
        self.rooms.lock().get(&target).copied()
    }

    async fn put_back(&self, standing: StandingId) -> Result<(), String> {
        crate::standing::put_back(self, standing).await
    }

    async fn end_there(&self, session: &Session, account: &str, number: u32) -> Result<(), String> {
        let trouble = format!("session:{}", session.id);
        let mut why = String::new();
        let mut pause = std::time::Duration::from_secs(2);
        // a server without a free connection, or one that is away, has time to come back: then it is tried, and the trouble goes
        let until = std::time::Instant::now() + ENDING;
        while std::time::Instant::now() < until {
            let ended = async {
                let database = self.ledger(|ledger| ledger.environment(session.environment).map(|env| env.spec.database.clone()));
                let database = database.ok_or_else(|| "its environment is not known any more".to_owned())?;
                let target = self.target(session.target).await.map_err(|e| e.to_string())?;
                target.kill(account, number, &database).await.map_err(|e| e.to_string())?;
                // who was in with it may have set another password
                match self.ledger(|ledger| ledger.pass(session.pass).and_then(|pass| pass.wish.standing)) {
                    Some(standing) => crate::standing::check(self, standing).await,
                    None => Ok(()),
                }
            };
            match ended.await {
                Ok(()) => {
                    self.troubles.clear(&trouble);
                    return Ok(());
                }
                Err(error) => why = error,
            }
            self.troubles.note(trouble.clone(), format!("session {number} of {account} may still be running on the target: {why}"), self.now());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_secs(30));
        }
        Err(why)
    }

    async fn session_opened(&self, opened: SessionOpened) -> Result<(), String> {
        let (session, holder) = (opened.session, opened.holder);
        self.store.records.session_opened(opened).await.map_err(|e| e.to_string())?;
        self.holders.lock().insert(session, holder);
        Ok(())
    }

    async fn statements(&self, block: StatementBlock) -> Result<(), String> {
        self.wait_for_room(&block).await;
        self.store.records.statements(block).await.map_err(|e| e.to_string())
    }

    async fn session_closed(&self, closed: SessionClosed) -> Result<(), String> {
        self.holders.lock().remove(&closed.session);
        self.store.records.session_closed(closed).await.map_err(|e| e.to_string())
    }
}

/// For how long it is tried to end a session at its target.
const ENDING: std::time::Duration = std::time::Duration::from_secs(3600);

/// For how long a door stays open behind logins that came together.
const BETWEEN_LOGINS: std::time::Duration = std::time::Duration::from_millis(50);

/// Nobody of an account is at the door any more. Whoever came meanwhile keeps it open, and closes it; a door that could not be closed, the next look closes.
async fn close_door(doors: Doors, target: Arc<AnyTarget>, account: String, gate: Arc<tokio::sync::Mutex<bool>>, by_moment: bool, logins: usize) {
    let mut open = gate.lock().await;
    if doors.lock().get(&account).is_some_and(|door| door.count > 0 || door.logins != logins) {
        return;
    }
    if by_moment && *open {
        if let Err(error) = target.close_doors(std::slice::from_ref(&account)).await {
            tracing::warn!(account, %error, "an account can still log in at the target; the next look sees to it");
        }
        *open = false;
    }
    let mut doors = doors.lock();
    if doors.get(&account).is_some_and(|door| door.count == 0) {
        doors.remove(&account);
    }
}

/// Under what the administrator's password is sealed.
pub fn target_secret(id: TargetId) -> String {
    format!("target:{id}")
}

/// How far the log of each environment's server was when it was last looked at. It only grows, unless the server was put back to an earlier
/// moment. Kept in a file, which may be some seconds old after a crash: then less is noticed, never too much.
pub struct Positions {
    file: PathBuf,
    known: Ranked<(BTreeMap<EnvironmentId, u64>, Option<std::time::Instant>)>,
}

/// The file is written at most so often.
const POSITIONS: std::time::Duration = std::time::Duration::from_secs(2);

impl Positions {
    pub fn open(data_dir: &Path) -> Positions {
        let file = data_dir.join("positions.json");
        let known: BTreeMap<String, u64> = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let known = known.into_iter().filter_map(|(id, at)| Some((id.parse().ok()?, at))).collect();
        Positions { file, known: Ranked::new(Rank::Positions, (known, None)) }
    }

    fn lock(&self) -> Held<'_, (BTreeMap<EnvironmentId, u64>, Option<std::time::Instant>)> {
        self.known.lock()
    }

    pub fn known(&self, environment: EnvironmentId) -> Option<u64> {
        self.lock().0.get(&environment).copied()
    }

    pub fn is_set_back(&self, environment: EnvironmentId, position: Option<u64>) -> bool {
        position.is_some_and(|position| self.lock().0.get(&environment).is_some_and(|known| position < *known))
    }

    /// What was seen holds from now on, also when it is less than before.
    pub fn note(&self, environment: EnvironmentId, position: u64) {
        let mut known = self.lock();
        known.0.insert(environment, position);
        if known.1.is_some_and(|at| at.elapsed() < POSITIONS) {
            return;
        }
        known.1 = Some(std::time::Instant::now());
        let text: BTreeMap<String, u64> = known.0.iter().map(|(id, at)| (id.to_string(), *at)).collect();
        let file = self.file.clone();
        let write = move || {
            let part = file.with_extension("part");
            let written = serde_json::to_vec(&text)
                .map_err(std::io::Error::from)
                .and_then(|text| std::fs::write(&part, text))
                .and_then(|()| std::fs::rename(&part, &file));
            if let Err(error) = written {
                tracing::warn!(%error, "how far the targets' logs are could not be written");
            }
        };
        // a disk that is slow holds up no look
        match Handle::try_current() {
            Ok(handle) => drop(handle.spawn_blocking(write)),
            Err(_) => write(),
        }
    }
}

/// What does not work at the moment, since when and why: for `daypass doctor` and beside the passes that wait for it.
pub struct Troubles(Ranked<BTreeMap<String, Trouble>>);

impl Default for Troubles {
    fn default() -> Self {
        Troubles(Ranked::new(Rank::Troubles, BTreeMap::new()))
    }
}

#[derive(Clone, Debug)]
pub struct Trouble {
    pub since: Time,
    pub why: String,
}

impl Troubles {
    fn lock(&self) -> Held<'_, BTreeMap<String, Trouble>> {
        self.0.lock()
    }

    /// Notes a trouble; it keeps the moment at which it began.
    pub fn note(&self, what: impl Into<String>, why: String, now: Time) {
        self.lock().entry(what.into()).and_modify(|t| t.why.clone_from(&why)).or_insert(Trouble { since: now, why });
    }

    pub fn clear(&self, what: &str) {
        self.lock().remove(what);
    }

    pub fn get(&self, what: &str) -> Option<Trouble> {
        self.lock().get(what).cloned()
    }

    pub fn all(&self) -> Vec<(String, Trouble)> {
        self.lock().iter().map(|(what, trouble)| (what.clone(), trouble.clone())).collect()
    }
}
