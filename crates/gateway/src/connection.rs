//! One connection from its first byte to its last: start-up, admission, the login at the target, the relay, the closing record.
//! What differs between protocols stands in [`crate::pg`] and [`crate::tds`]; nothing that decides does.

use crate::{
    World,
    accept::{Gateway, keep_alive},
    answer::About,
    line::{Guest, Line},
    pg,
    places::Place,
    relay::{End, Passed, Relay},
    sessions::{CancelKeys, Opening, Seat, Session, Taken},
    tds,
    upstream::{self, Carried, Ready, UpstreamError, Upstreamed},
};
use daypass_core::{
    admission::{self, Attempt, Fallen, Refused, Standing, Told},
    environment::{Engine, Environment, Target},
    ids::SessionId,
    pass::{Cause, Pass},
    plan::Backend,
    session::{SessionClosed, SessionOpened},
    time::Ttl,
};
use daypass_wire::pg::message::CancelKey;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Serves one connection of a listener for `engine`.
pub async fn serve<W: World>(gateway: Arc<Gateway<W>>, engine: Engine, tcp: TcpStream, peer: SocketAddr, waiting: Place) {
    let _ = tcp.set_nodelay(true);
    keep_alive(&tcp);
    // the handshake's buffers and states go before the relay begins: an idle session holds none of them
    let opened = Box::pin(log_in(&gateway, engine, tcp, peer, waiting)).await;
    if let Some(opened) = opened {
        tokio::spawn(relay(gateway, opened));
    }
}

/// A session that may begin.
struct Opened {
    guest: Guest,
    upstreamed: Upstreamed,
    mars: bool,
    session: Arc<Session>,
    host: String,
    seat: Seat,
}

/// What a start-up comes to.
#[expect(clippy::large_enum_variant, reason = "made once a connection, and taken apart at once")]
pub enum Greeted {
    Login(Guest, Knock, Client),
    Cancel(Line, CancelKey),
}

/// Somebody who has proved a password, in the words that all protocols share.
pub struct Knock {
    pub account: String,
    pub database: Option<String>,
    /// The first labels of the server names that the client used, where its protocol tells.
    pub server: Vec<String>,
    pub application: String,
}

/// The rest of the login, in the protocol's own words.
pub enum Client {
    Postgres(Box<pg::Client>),
    SqlServer(Box<daypass_wire::tds::startup::Login>),
}

impl Client {
    fn engine(&self) -> Engine {
        match self {
            Client::Postgres(_) => Engine::Postgres,
            Client::SqlServer(_) => Engine::SqlServer,
        }
    }

    fn refuse(&mut self, refusal: &Refusal) -> Vec<u8> {
        match self {
            Client::Postgres(client) => client.refuse(&refusal.trouble),
            Client::SqlServer(login) => tds::refuse(&refusal.trouble, login, refusal.environment.as_ref()),
        }
    }

    fn carried(&self, knock: &Knock, pass: &Pass, person: &str, peer: SocketAddr) -> Carried {
        match self {
            Client::Postgres(client) => Carried::Postgres(client.attributed(knock, pass.wish.standing.is_some(), person, peer)),
            Client::SqlServer(login) => Carried::SqlServer { login: Box::new(tds::attributed(login, &pass.id.to_string(), peer)), mars: login.mars },
        }
    }
}

/// The client's part has to be done in [`crate::Limits::login`]; the target's part has a limit of its own.
async fn log_in<W: World>(gateway: &Arc<Gateway<W>>, engine: Engine, tcp: TcpStream, peer: SocketAddr, waiting: Place) -> Option<Opened> {
    let greeting = async {
        match engine {
            Engine::Postgres => pg::greet(gateway, tcp).await,
            Engine::SqlServer => tds::greet(gateway, tcp).await,
        }
    };
    let greeted = tokio::time::timeout(gateway.limits.login, greeting).await.ok()?.ok()?;
    let (mut guest, knock, mut client) = match greeted {
        Greeted::Cancel(line, key) => {
            // drivers wait for the end of this connection before they send the next statement, which a cancel that comes later would hit
            cancel(gateway, &key, peer).await;
            line.end().await;
            return None;
        }
        Greeted::Login(guest, knock, client) => (guest, knock, client),
    };
    drop(waiting);
    let (upstreamed, session, host, seat) = match open(gateway, &knock, &client, peer).await {
        Ok(opened) => opened,
        Err(refusal) => {
            let why = refusal.log();
            tracing::info!(account = %daypass_core::names::shown(&knock.account), address = %peer.ip(), %why, "refused");
            let telling = async {
                let _ = guest.write_all(&client.refuse(&refusal)).await;
                let _ = guest.shutdown().await;
                // the client reads the reason before it sees the end
                let _ = guest.read(&mut [0; 64]).await;
            };
            let _ = tokio::time::timeout(Duration::from_millis(500), telling).await;
            return None;
        }
    };
    let (welcome, mars) = match (&mut client, &upstreamed.ready, &session.cancel) {
        (Client::Postgres(client), Ready::Postgres(ready), Some(keys)) => (client.welcome(ready, &keys.ours), false),
        (Client::SqlServer(login), Ready::SqlServer(ready), _) => (ready.reply.clone(), login.mars),
        _ => (Vec::new(), false),
    };
    let sending = async { guest.write_all(&welcome).await.and(guest.flush().await) };
    if !matches!(tokio::time::timeout(gateway.limits.login, sending).await, Ok(Ok(()))) {
        gateway.sessions.close(session.id);
        closed(gateway, session.id, "the client left during the login").await;
        return None;
    }
    Some(Opened { guest, upstreamed, mars, session, host, seat })
}

/// Some tools write `user@server`: the account names the way by itself.
pub fn without_server(user: &str) -> &str {
    user.split('@').next().unwrap_or(user)
}

/// Why a connection that has proved its password does not become a session.
pub enum Trouble {
    Refused(Refused),
    /// What the target said stays in the log: it names hosts and accounts that are nobody's business.
    Target {
        environment: String,
        error: UpstreamError,
        /// Under which the operator finds it in Daypass's own log.
        reference: SessionId,
    },
    NotRecorded,
    /// Access ended while the target was being asked.
    Fallen(Told),
}

impl Trouble {
    pub fn words(&self) -> String {
        match self {
            Trouble::Refused(refused) => refused.words(),
            Trouble::Target { environment, error, .. } => match error.for_the_client() {
                Some(words) => words.to_owned(),
                None if error.about() == About::Gateway => format!("the server behind {environment} did not let the gateway in"),
                None => format!("the database behind {environment} is not reachable at the moment"),
            },
            Trouble::NotRecorded => "this session could not be recorded, so it cannot begin".to_owned(),
            Trouble::Fallen(told) => told.why.clone(),
        }
    }

    pub fn remedy(&self) -> String {
        match self {
            Trouble::Refused(refused) => refused.remedy(),
            Trouble::Target { environment, error, reference } => match error.remedy() {
                Some(remedy) => remedy.to_owned(),
                None if error.about() == About::Gateway => {
                    format!(
                        "Nothing is wrong with your access: tell whoever runs Daypass, with the reference {reference}. daypass env test {environment} looks for the cause."
                    )
                }
                None => {
                    format!("Nothing is wrong with your access; try again. daypass env test {environment} shows what the target says (reference {reference}).")
                }
            },
            Trouble::NotRecorded => "Tell whoever runs Daypass: its store cannot be written.".to_owned(),
            Trouble::Fallen(told) => told.remedy.clone(),
        }
    }
}

/// A trouble, and the environment that it is about when that is known.
struct Refusal {
    trouble: Trouble,
    environment: Option<Environment>,
}

impl Refusal {
    fn log(&self) -> String {
        match &self.trouble {
            Trouble::Target { error, reference, .. } => format!("{error} (reference {reference})"),
            other => other.words(),
        }
    }
}

impl From<Refused> for Box<Refusal> {
    fn from(refused: Refused) -> Self {
        Box::new(Refusal { trouble: Trouble::Refused(refused), environment: None })
    }
}

struct Admitted {
    pass: Pass,
    environment: Environment,
    target: Target,
    until: Standing,
    idle: Option<Ttl>,
    record: bool,
    person: String,
}

async fn open<W: World>(
    gateway: &Arc<Gateway<W>>,
    knock: &Knock,
    client: &Client,
    peer: SocketAddr,
) -> Result<(Upstreamed, Arc<Session>, String, Seat), Box<Refusal>> {
    let world = &gateway.world;
    let pass = world.ledger(|ledger| ledger.pass_of_account(&knock.account).map(|pass| pass.id)).ok_or(Refused::Unknown)?;
    let now = world.now();
    let (mut seat, open_sessions) = gateway.sessions.seat(pass);
    let admitted = world.ledger(|ledger| {
        let attempt = Attempt {
            account: &knock.account,
            database: knock.database.as_deref(),
            servers: &knock.server,
            engine: client.engine(),
            address: peer.ip(),
            open_sessions,
        };
        let admit = admission::admit(ledger, &attempt, now).map_err(|refused| {
            let environment = ledger.pass(pass).and_then(|pass| ledger.environment(pass.environment)).cloned();
            Box::new(Refusal { trouble: Trouble::Refused(refused), environment })
        })?;
        Ok::<_, Box<Refusal>>(Admitted {
            pass: admit.pass.clone(),
            environment: admit.environment.clone(),
            target: admit.target.clone(),
            until: admit.until,
            idle: admit.policy.idle,
            record: admit.policy.record,
            person: ledger.user(admit.pass.holder).map(|user| user.name.to_string()).unwrap_or_default(),
        })
    })?;
    let Admitted { pass, environment, target, until, idle, record, person } = admitted;
    let taken = seat.at(target.id, pass.holder, world.room(target.id));
    if taken != Taken::Yes {
        let name = environment.spec.name.to_string();
        let refused = if taken == Taken::Full { Refused::TargetFull { environment: name } } else { Refused::TargetShare { environment: name } };
        return Err(Box::new(Refusal { trouble: Trouble::Refused(refused), environment: Some(environment) }));
    }
    let id = SessionId::new(uuid::Uuid::now_v7());
    let opened = SessionOpened {
        session: id,
        pass: pass.id,
        environment: environment.id,
        holder: pass.holder,
        account: pass.account.clone(),
        address: peer.ip(),
        application: knock.application.chars().take(128).collect(),
        at: now,
    };
    let carried = client.carried(knock, &pass, &person, peer);
    let name = environment.spec.name.to_string();
    // the record becomes durable while the target is being asked
    let (recorded, upstreamed) = tokio::join!(world.session_opened(opened), upstream::login(&**world, &pass, &environment, &target, carried));
    let refusal = |trouble| Box::new(Refusal { trouble, environment: Some(environment.clone()) });
    if let Err(why) = recorded {
        tracing::error!(%why, "a session could not be recorded, so it was not let in");
        return Err(refusal(Trouble::NotRecorded));
    }
    let mut upstreamed = match upstreamed {
        Ok(upstreamed) => upstreamed,
        Err(error) => {
            if matches!(error, UpstreamError::Replaced) {
                let told = Fallen::Over(Cause::Replaced).told(&name);
                closed(gateway, id, &told.why).await;
                return Err(refusal(Trouble::Fallen(told)));
            }
            closed(gateway, id, "the target did not let the gateway in").await;
            return Err(refusal(Trouble::Target { environment: name, error, reference: id }));
        }
    };
    let cancel = match (client, &upstreamed.ready) {
        (Client::Postgres(client), Ready::Postgres(ready)) => Some(CancelKeys { ours: client.cancel_key(ready.key.pid), theirs: ready.key.clone() }),
        _ => None,
    };
    let session = gateway.sessions.open(Opening {
        id,
        pass: pass.id,
        environment: environment.id,
        environment_name: name,
        account: pass.account.clone(),
        address: peer.ip(),
        opened_at: now,
        until,
        idle,
        record,
        cancel,
        target: target.id,
        upstream: upstreamed.peer,
        there: Backend { account: upstreamed.user.clone(), id: upstreamed.ready.number() },
    });
    // it is on the list of live sessions now
    drop(upstreamed.door.take());
    // what ended while the target was being asked is seen now: the fence looks at sessions that are on its list
    let standing = world.ledger(|ledger| ledger.pass(pass.id).map(|pass| admission::standing(ledger, pass, peer.ip(), world.now())));
    if let Some(Ok(standing)) = &standing {
        session.set_until(standing.clone());
    }
    if let Some(Err(fallen)) = standing {
        gateway.sessions.close(id);
        let told = fallen.told(&session.environment_name);
        closed(gateway, id, &told.why).await;
        return Err(refusal(Trouble::Fallen(told)));
    }
    Ok((upstreamed, session, target.spec.host.to_string(), seat))
}

async fn relay<W: World>(gateway: Arc<Gateway<W>>, opened: Opened) {
    let Opened { guest, upstreamed, mars, session, host, seat } = opened;
    let number = upstreamed.ready.number();
    let standing = gateway.world.ledger(|ledger| {
        let id = ledger.pass(session.pass)?.wish.standing?;
        ledger.standing(id).map(|known| known.name.to_string())
    });
    let relay = Relay::new(gateway.world.clone(), session.clone(), guest, upstreamed.stream, upstreamed.ready.observer(mars));
    let Passed { end, from_client, to_client, mut recorder, handing, busy, farewell } = relay.run().await;
    // the client hears why while the session is put away: nothing of that waits for the client
    let farewell = async {
        if let Some(farewell) = farewell {
            Box::pin(farewell.see_out()).await;
        }
    };
    let putting_away = async {
        let _away = gateway.sessions.put_away(session.id);
        drop(seat);
        // the protocol's own cancel needs no right at the target; what runs could take no notice of it, and is ended by its number
        if busy
            && (standing.is_some() || gateway.sessions.is_stopping())
            && let Some(keys) = session.cancel.as_ref()
        {
            let tls = gateway.world.target_tls(session.target);
            if let Err(error) = upstream::cancel(session.upstream, &host, tls, &keys.theirs).await {
                tracing::warn!(%error, "a running statement could not be cancelled");
            }
        }
        if let Some(account) = standing {
            if let Err(why) = gateway.world.end_there(&session, &account, number).await {
                tracing::error!(account, number, %why, "a session of a standing account may still be running on the target");
            }
        } else if busy || !matches!(end, End::ClientLeft) {
            // the target does not notice by itself that nobody waits for a statement: what is no live session of ours is ended there
            gateway.sessions.leave_behind();
        }
        let words = end.words();
        if let Some(handing) = handing
            && let Ok(Err(why)) = handing.await
        {
            tracing::error!(%why, "statements could not be recorded");
        }
        while let Some(block) = recorder.take() {
            if let Err(why) = gateway.world.statements(block).await {
                tracing::error!(%why, "statements could not be recorded");
            }
        }
        let closed = SessionClosed {
            session: session.id,
            at: gateway.world.now(),
            why: words,
            bytes_from_client: from_client,
            bytes_to_client: to_client,
            statements: recorder.total(),
            digest: recorder.digest(),
        };
        if let Err(why) = gateway.world.session_closed(closed).await {
            tracing::error!(%why, "the end of a session could not be recorded");
        }
    };
    tokio::join!(putting_away, farewell);
}

/// The closing record of a session that never relayed a byte.
async fn closed<W: World>(gateway: &Arc<Gateway<W>>, session: SessionId, why: &str) {
    let closed =
        SessionClosed { session, at: gateway.world.now(), why: why.to_owned(), bytes_from_client: 0, bytes_to_client: 0, statements: 0, digest: String::new() };
    if let Err(why) = gateway.world.session_closed(closed).await {
        tracing::error!(%why, "the end of a session could not be recorded");
    }
}

/// A cancel request of PostgreSQL: by our own key, from an address that is allowed now. Nothing is answered, whatever comes of it.
async fn cancel<W: World>(gateway: &Arc<Gateway<W>>, key: &CancelKey, peer: SocketAddr) {
    let Some((session, theirs)) = gateway.sessions.by_key(key) else { return };
    let now = gateway.world.now();
    let host = gateway.world.ledger(|ledger| {
        let pass = ledger.pass(session.pass)?;
        admission::standing(ledger, pass, peer.ip(), now).ok()?;
        Some(ledger.target(session.target)?.spec.host.to_string())
    });
    let Some(host) = host else { return };
    let tls = gateway.world.target_tls(session.target);
    if let Err(error) = upstream::cancel(session.upstream, &host, tls, &theirs).await {
        tracing::warn!(%error, "a cancel request could not be passed on");
    }
}
