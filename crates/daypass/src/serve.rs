//! All wiring and spawning: opens the store, replays the log, starts writer, keepers, gateway and API.

use crate::{
    clock::{self, Clock},
    config::Config,
    control::{Control, Job},
    keeper,
    mover::{self, Mover},
    node::{Node, Positions},
    notify::{self, Notifier},
    pki::{self, Ca},
    standing,
    watch::Watch,
    web::{self, App, oidc::Provider, place::Place, sign_in::FIRST},
};
use anyhow::{Context, Result};
use daypass_core::{
    admission::Told,
    chain::{self, Head},
    command::{Command, Observed},
    environment::Engine,
    event::{Actor, Entry, Event},
    ids::*,
    index::Index,
    ledger::Ledger,
    secret::Secret,
};
use daypass_gateway::{Gateway, Limits, Workers, World};
use daypass_store::{Change, LogStore, MasterKey, Store};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Notify,
};

/// A running node.
pub struct Running {
    pub node: Arc<Node>,
    pub api: SocketAddr,
    pub gateway: SocketAddr,
    pub sqlserver: SocketAddr,
    /// While there is nobody: the one-time link that makes the first administrator.
    pub first_link: Option<Secret>,
    /// Has what can be read again while it runs be read again: the operator's certificate.
    pub reload: Arc<Notify>,
}

impl Running {
    /// Tells every session that Daypass stops, waits a moment until they are closed and on record, and writes what is not written yet.
    pub async fn stop(self, goodbye: Duration) {
        self.node.sessions.stop();
        for session in self.node.sessions.all() {
            session.cut(Told { why: "Daypass is stopping".to_owned(), remedy: "Your access goes on: connect again in a moment.".to_owned() });
        }
        let deadline = tokio::time::Instant::now() + goodbye;
        while !self.node.sessions.is_quiet() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match tokio::time::timeout(goodbye, self.node.store.records.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the last records could not be written"),
            Err(_) => tracing::error!("the last records could not be written in time"),
        }
    }
}

/// Starts everything; it runs until the process ends.
/// `accept_clock`: a person said that the log may be ahead of this machine's clock.
pub async fn start(config: Config, accept_clock: bool) -> Result<Running> {
    let key = match std::env::var("DAYPASS_MASTER_KEY") {
        Ok(text) => Some(MasterKey::from_hex(&text).context("DAYPASS_MASTER_KEY")?),
        Err(_) => None,
    };
    // ports first: a port that is taken must not leave a half-made store
    let gateway_listener = listen(config.gateway.listen, "gateway.listen").await?;
    let sqlserver_listener = listen(config.gateway.listen_sqlserver, "gateway.listen_sqlserver").await?;
    let api_listener = listen(config.api.listen, "api.listen").await?;
    let browser = match config.gateway.listen_browser {
        Some(address) => Some(UdpSocket::bind(address).await.with_context(|| in_use(address, "gateway.listen_browser"))?),
        None => None,
    };
    let first_link_file = config.data_dir.join("first-link");
    let store = Store::open(&config.data_dir, key).await?;
    let (mut ledger, mut index, mut head) = replay(&store.log).await?;
    if ledger.store().is_none() {
        head = found(&store.log, &mut ledger, &mut index).await?;
    }
    let ca = Ca::open(&store.log, head).await?;
    std::fs::write(config.data_dir.join("ca.pem"), &ca.certificate_pem).context("ca.pem cannot be written to the data directory")?;
    let certificate = Arc::new(pki::certificate(&config.gateway, &ca)?);

    let watch = Watch::start().context("the threads of what ends access could not be started")?;
    let (clock, doubted) = Clock::start(&config.data_dir, ledger.latest(), accept_clock)?;
    let node = Arc::new(Node::new(store, clock, watch.handle().clone(), ledger, index, Positions::open(&config.data_dir), config.limits.records));
    recall(&node).await?;
    node.store.records.close_orphans(node.now()).await?;
    let control = Control::start(node.clone(), head, &watch);
    if doubted {
        end_all(&node, &control).await?;
    }

    let gateway = gateway_listener.local_addr()?;
    let sqlserver = sqlserver_listener.local_addr()?;
    let api = api_listener.local_addr()?;
    let workers = Arc::new(Workers::start().context("the gateway's threads could not be started")?);
    let limits = Limits {
        login: Duration::from_secs(config.gateway.login_seconds),
        per_address: config.gateway.logins_per_address,
        in_all: config.gateway.logins_in_all,
    };
    let door =
        Gateway::new(node.clone(), node.sessions.clone(), certificate.clone(), limits, config.gateway.suffix.clone(), derived(&ca, b"daypass salts of nobody"));
    watch.spawn("the fence", daypass_gateway::keep_fence(node.clone(), node.sessions.clone()));
    tokio::spawn(daypass_gateway::serve(door.clone(), Engine::Postgres, gateway_listener, workers.clone()));
    tokio::spawn(daypass_gateway::serve(door, Engine::SqlServer, sqlserver_listener, workers));
    let server = config.gateway.names.first().cloned().unwrap_or_default();
    if let Some(socket) = browser {
        let label = server.split('.').next().unwrap_or(&server).to_owned();
        tokio::spawn(daypass_gateway::browse(node.clone(), socket, label, sqlserver.port()));
    }
    // an operator's own certificate is signed by a CA that clients know already
    let place = Place {
        server,
        suffix: config.gateway.suffix.clone(),
        postgres: gateway,
        sqlserver,
        ca: if config.gateway.certificate.is_some() { String::new() } else { ca.certificate_pem.clone() },
    };
    // where browsers reach the console
    let url = config.console.url.clone().unwrap_or_else(|| format!("https://{}:{}", place.server, api.port())).trim_end_matches('/').to_owned();
    let provider = config.oidc.clone().map(|oidc| Provider::new(oidc, &url)).transpose().context("oidc")?.map(Arc::new);
    let notifier = Arc::new(Notifier::new(&config, &url)?);
    let channels = notifier.channels();
    let moving = Arc::new(Mover::new(config.movement.clone(), &config.data_dir, daypass_targets::movement::MaskKey::new(derived(&ca, b"daypass masks"))));
    let app = App {
        node: node.clone(),
        mover: moving.clone(),
        control: control.clone(),
        place: Arc::new(place),
        sign_ins: Arc::default(),
        recent: config.console.recent(),
        provider,
        devices: Arc::default(),
        url: url.clone().into(),
        channels: channels.into(),
        budgets: Arc::new(web::budget::Budgets::new(config.limits)),
        first_link: first_link_file.into(),
    };
    let first_link = first_link(&node, &control).await?.map(|code| Secret::new(format!("{url}/first/{}", code.expose())));
    let router = web::router(app).0;
    let socket = config.data_dir.join("control.sock");
    web::serve_local(&socket, router.clone()).with_context(|| format!("{} cannot be listened on", socket.display()))?;
    tokio::spawn(web::serve(api_listener, router, certificate.clone(), Duration::from_secs(config.api.strangers_seconds)));
    let reload = Arc::new(Notify::new());
    tokio::spawn(pki::keep(config.gateway.clone(), ca, certificate, reload.clone()));
    tokio::spawn(notify::run(node.clone(), notifier));
    watch.spawn("the mover", mover::run(node.clone(), control.clone(), moving));
    watch.spawn("the clock", keep_clock(node.clone(), config.data_dir.clone()));
    watch.spawn("the keepers", keeper::keep_all(node.clone(), control.clone(), watch.clone()));
    Ok(Running { node, api, gateway, sqlserver, first_link, reload })
}

/// A key for one purpose, which only this installation knows: the same after a restart.
fn derived(ca: &Ca, purpose: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::new().chain_update(purpose).chain_update(ca.private()).finalize().into()
}

/// What is open ends: the clock cannot say for how long it has been.
async fn end_all(node: &Node, control: &Control) -> Result<()> {
    let open: Vec<_> = node.ledger(|ledger| ledger.open_passes().map(|pass| pass.id).collect());
    for pass in open {
        control.run(Command::Observed(Observed::ClockDoubted { pass }), Actor::System).await?;
    }
    let entries: Vec<_> = node.ledger(|ledger| ledger.allow().iter().filter(|entry| entry.removed_at.is_none()).map(|entry| entry.id).collect());
    for entry in entries {
        control.run(Command::RemoveAllow { entry }, Actor::System).await?;
    }
    Ok(())
}

/// Writes where running time is, and tells when the machine's clock is far from it.
async fn keep_clock(node: Arc<Node>, data_dir: std::path::PathBuf) {
    loop {
        let (kept, directory) = (node.clone(), data_dir.clone());
        let written = tokio::task::spawn_blocking(move || kept.clock.keep_anchor(&directory)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the clock's anchor could not be written");
        }
        match node.clock.apart() {
            Some(why) => node.troubles.note("clock", why, node.now()),
            None => node.troubles.clear("clock"),
        }
        tokio::time::sleep(clock::ANCHOR_EVERY).await;
    }
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| in_use(address, key))
}

fn in_use(address: SocketAddr, key: &str) -> String {
    format!("{address} cannot be listened on. Is it in use? Choose another with {key} in the configuration")
}

/// The ledger that follows from the log. Every hash and every step is checked.
async fn replay(log: &LogStore) -> Result<(Ledger, Index, Head)> {
    let (mut ledger, mut index, mut head) = (Ledger::default(), Index::default(), Head::EMPTY);
    loop {
        let lines = log.read(head.seq, 10_000).await?;
        if lines.is_empty() {
            return Ok((ledger, index, head));
        }
        for line in lines {
            let damaged = |why: String| {
                anyhow::anyhow!(
                    "the log is damaged at entry {}: {why}. Nobody is let in on a damaged log; restore the data directory from a backup",
                    head.seq + 1
                )
            };
            let (entry, next) = chain::open(&line, &head).map_err(damaged)?;
            ledger.apply(&entry).map_err(|e| damaged(e.to_string()))?;
            index.push(&ledger, &entry);
            head = next;
        }
    }
}

/// The first entry of a new log.
async fn found(log: &LogStore, ledger: &mut Ledger, index: &mut Index) -> Result<Head> {
    let at = crate::clock::wall();
    let entry = Entry { seq: 1, at, by: Actor::System, event: Event::StoreCreated { store: StoreId::new(crate::random::id()) } };
    let head = log.append(Head::EMPTY, std::slice::from_ref(&entry), &[]).await?;
    ledger.apply(&entry)?;
    index.push(ledger, &entry);
    Ok(head)
}

/// The secrets of open passes and of standing accounts, for the gateway. A pass without them stays shut.
async fn recall(node: &Node) -> Result<()> {
    let open: Vec<_> = node.ledger(|ledger| ledger.open_passes().map(|pass| (pass.id, pass.account.to_string())).collect());
    for (pass, account) in open {
        match node.pass_secrets(pass).await? {
            Some(secrets) => node.remember(pass, &account, &secrets),
            None => tracing::warn!(%account, "the secrets of an open pass are not in the store; nobody can use it"),
        }
    }
    let standing: Vec<StandingId> = node.ledger(|ledger| ledger.standings().map(|known| known.id).collect());
    for id in standing {
        node.remember_standing(id, node.store.log.secret(&standing::secret(id)).await?);
        // one that was being taken back when the process died is shut
        node.watch_standing(id, standing::AFTER);
    }
    Ok(())
}

/// While there is nobody, the code of a one-time link. The administrator that it makes may do all but get access: for that they give
/// themselves a role, in the log.
async fn first_link(node: &Node, control: &Control) -> Result<Option<Secret>> {
    if node.ledger(|ledger| ledger.users().next().is_some()) {
        return Ok(None);
    }
    if let Some(code) = node.store.log.secret(FIRST).await? {
        return Ok(Some(code));
    }
    let code = Secret::new(crate::random::password());
    let command = Command::AddProject { project: ProjectId::new(crate::random::id()), name: "main".parse().map_err(anyhow::Error::msg)? };
    let nobody = web::auth::nobodys_password().await.map_err(anyhow::Error::msg)?;
    let changes = vec![Change::Put { id: FIRST.to_owned(), secret: code.clone() }, nobody];
    control.run_job(Job { command, by: Actor::System, changes, secrets: None }).await?;
    Ok(Some(code))
}
