//! One node: the ledger that everybody reads, the store behind it, and the secrets of what is live. The gateway sees it as its
//! [`World`].

use crate::{clock::Clock, keeper::administrator};
use daypass_core::{
    environment::{Engine, TargetTls},
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
    World,
    sessions::{Session, Sessions},
};
use daypass_store::{Store, StoreError};
use daypass_targets::Target as _;
use daypass_wire::pg::scram::{SaltedPassword, Verifier};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};
use tokio::sync::watch;

pub struct Node {
    pub clock: Clock,
    pub store: Store,
    pub sessions: Arc<Sessions>,
    pub troubles: Troubles,
    /// Firewall rules that others made, by environment, as last seen.
    drift: Mutex<BTreeMap<EnvironmentId, Vec<Rule>>>,
    /// How far the log of each environment's server was, as last seen.
    pub positions: Positions,
    ledger: RwLock<Ledger>,
    index: RwLock<Index>,
    changed: watch::Sender<u64>,
    vault: RwLock<Vault>,
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
}

impl PassSecrets {
    pub fn id(pass: PassId) -> String {
        format!("pass:{pass}")
    }

    /// Two fresh random passwords with their verifiers.
    pub fn make() -> Self {
        let verifier = |password: &str| {
            let mut salt = [0; 16];
            crate::random::fill(&mut salt);
            Verifier::of(password, &salt, daypass_wire::pg::scram::ITERATIONS).to_string()
        };
        // the rules for passwords of SQL Server and Azure ask for three of four kinds of characters
        let (person, target) = (crate::random::password(), format!("Dp-{}", crate::random::password()));
        PassSecrets { verifier: verifier(&person), target_verifier: verifier(&target), person, target }
    }

    pub fn sealed(&self) -> Secret {
        Secret::new(serde_json::to_string(self).unwrap_or_else(|_| unreachable!("four texts")))
    }
}

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
    pub fn new(store: Store, ledger: Ledger, index: Index, positions: Positions) -> Self {
        let (changed, _) = watch::channel(ledger.seq());
        Node {
            clock: Clock::start(),
            store,
            sessions: Arc::default(),
            troubles: Troubles::default(),
            drift: Mutex::default(),
            positions,
            ledger: RwLock::new(ledger),
            index: RwLock::new(index),
            changed,
            vault: RwLock::default(),
        }
    }

    /// Puts the new state where everybody reads it, then says that it changed. Only `control` calls it.
    pub fn publish(&self, entries: &[Entry]) -> Result<(), Inconsistent> {
        let seq = {
            let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            for entry in entries {
                ledger.apply(entry)?;
                index.push(&ledger, entry);
            }
            ledger.seq()
        };
        self.changed.send_replace(seq);
        Ok(())
    }

    /// Wakes whoever waits for a change: the keepers look again.
    pub fn wake(&self) {
        self.changed.send_modify(|_| ());
    }

    /// The numbers of the newest lines of the log that fit, newest first.
    pub fn find_in_log(&self, filter: &Filter, limit: usize) -> Vec<u64> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).find(filter, limit)
    }

    pub fn set_drift(&self, environment: EnvironmentId, rules: Vec<Rule>) {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner).insert(environment, rules);
    }

    pub fn drift(&self, environment: EnvironmentId) -> Vec<Rule> {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner).get(&environment).cloned().unwrap_or_default()
    }

    fn vault<R>(&self, look: impl FnOnce(&Vault) -> R) -> R {
        look(&self.vault.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn vault_mut<R>(&self, change: impl FnOnce(&mut Vault) -> R) -> R {
        change(&mut self.vault.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the secrets of a pass known to the gateway.
    pub fn remember(&self, pass: PassId, account: &str, secrets: &PassSecrets) {
        let Ok(verifier) = secrets.verifier.parse() else { return };
        self.vault_mut(|vault| {
            vault.verifiers.insert(account.to_owned(), verifier);
            vault.target.insert(pass, (Secret::new(&*secrets.target), secrets.target_verifier.clone()));
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

/// How to reach a target. A CA that cannot be read gives a configuration that trusts nobody: never no TLS.
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
        look(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
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
        let (versions, alpn, ca): (_, Option<&[u8]>, _) = match &wanted {
            (_, TargetTls::Off) => return None,
            (Engine::Postgres, TargetTls::VerifyFull { ca } | TargetTls::Strict { ca }) => (rustls::DEFAULT_VERSIONS, None, ca),
            // its handshake lies in packets, and there is no later version in there
            (Engine::SqlServer, TargetTls::VerifyFull { ca }) => (&[&rustls::version::TLS12][..], None, ca),
            (Engine::SqlServer, TargetTls::Strict { ca }) => (rustls::DEFAULT_VERSIONS, Some(b"tds/8.0"), ca),
        };
        let mut config = client_tls(versions, ca.as_deref());
        config.alpn_protocols.extend(alpn.map(<[u8]>::to_vec));
        let config = Arc::new(config);
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

    fn is_same_database(&self, environment: EnvironmentId, identity: &str, position: Option<u64>) -> bool {
        let (known, lenient) = self.ledger(|ledger| {
            let env = ledger.environment(environment);
            let lenient = env.and_then(|env| env.failover_until).is_some_and(|until| ledger.clamp(self.now()) < until);
            (env.and_then(|env| env.identity.as_ref()).map(|identity| identity.0.clone()), lenient)
        });
        let same = known.is_none_or(|known| known == identity) && (lenient || !self.positions.is_set_back(environment, position));
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
        let same = known.is_none_or(|known| daypass_targets::sqlserver::is_answer(&known, answer));
        if !same {
            // the keeper sees to the rest at once
            self.wake();
        }
        same
    }

    async fn end_there(&self, session: &Session, account: &str, number: u32) -> Result<(), String> {
        let trouble = format!("session:{}", session.id);
        let mut why = String::new();
        for _ in 0..5 {
            let ended = async {
                let database = self.ledger(|ledger| ledger.environment(session.environment).map(|env| env.spec.database.clone()));
                let database = database.ok_or_else(|| "its environment is not known any more".to_owned())?;
                let target = administrator(self, session.target).await.map_err(|e| e.to_string())?;
                target.kill(account, number, &database).await.map_err(|e| e.to_string())
            };
            match ended.await {
                Ok(()) => {
                    self.troubles.clear(&trouble);
                    return Ok(());
                }
                Err(error) => why = error,
            }
            self.troubles.note(trouble.clone(), format!("session {number} of {account} may still be running on the target: {why}"), self.now());
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
        Err(why)
    }

    async fn session_opened(&self, opened: SessionOpened) -> Result<(), String> {
        self.store.records.session_opened(opened).await.map_err(|e| e.to_string())
    }

    async fn statements(&self, block: StatementBlock) -> Result<(), String> {
        self.store.records.statements(block).await.map_err(|e| e.to_string())
    }

    async fn session_closed(&self, closed: SessionClosed) -> Result<(), String> {
        self.store.records.session_closed(closed).await.map_err(|e| e.to_string())
    }
}

/// How far the log of each environment's server was when it was last looked at. It only grows, unless the server was put back to an earlier
/// moment. Kept in a file, which may be some seconds old after a crash: then less is noticed, never too much.
pub struct Positions {
    file: PathBuf,
    known: Mutex<(BTreeMap<EnvironmentId, u64>, Option<std::time::Instant>)>,
}

/// The file is written at most so often.
const POSITIONS: std::time::Duration = std::time::Duration::from_secs(2);

impl Positions {
    pub fn open(data_dir: &Path) -> Positions {
        let file = data_dir.join("positions.json");
        let known: BTreeMap<String, u64> = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let known = known.into_iter().filter_map(|(id, at)| Some((id.parse().ok()?, at))).collect();
        Positions { file, known: Mutex::new((known, None)) }
    }

    fn lock(&self) -> MutexGuard<'_, (BTreeMap<EnvironmentId, u64>, Option<std::time::Instant>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        let part = self.file.with_extension("part");
        let written = serde_json::to_vec(&text)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&part, text))
            .and_then(|()| std::fs::rename(&part, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, "how far the targets' logs are could not be written");
        }
    }
}

/// What does not work at the moment, since when and why: for `daypass doctor` and beside the passes that wait for it.
#[derive(Default)]
pub struct Troubles(Mutex<BTreeMap<String, Trouble>>);

#[derive(Clone, Debug)]
pub struct Trouble {
    pub since: Time,
    pub why: String,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
