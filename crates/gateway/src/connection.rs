//! One connection from its first byte to its last: start-up, admission, the login at the target, the relay, the closing record.

use crate::{
    World,
    accept::{Gateway, Waiting, keep_alive},
    nonce,
    relay::{Passed, Relay},
    sessions::{Opening, Seat, Session},
    upstream::{self, UpstreamError, Upstreamed},
};
use daypass_core::{
    admission::{self, Attempt, Refused},
    environment::{Environment, Target},
    ids::SessionId,
    pass::Pass,
    session::{SessionClosed, SessionOpened},
    time::Time,
};
use daypass_wire::{
    machine::Step,
    pg::{
        message::CancelKey,
        refuse::{fatal, sqlstate},
        startup::{Found, Login, Settings, Startup},
    },
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The client's side of a session. Always encrypted.
pub struct Guest(TlsStream<TcpStream>);

impl Guest {
    /// Lets the kernel drop what the client did not take: a stuck peer keeps nothing of ours.
    pub fn hang_up(&mut self) {
        let socket = socket2::SockRef::from(self.0.get_ref().0);
        // unread input would turn the close into a reset and might cost the client our last words; a full output queue means
        // that the client stopped reading, and then there is nothing to lose
        let stuck = self.0.get_ref().1.wants_write();
        if stuck {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// Serves one connection.
pub async fn serve<W: World>(gateway: Arc<Gateway<W>>, tcp: TcpStream, peer: SocketAddr, waiting: Waiting<W>) {
    let _ = tcp.set_nodelay(true);
    keep_alive(&tcp);
    // the handshake's buffers and states go before the relay begins: an idle session holds none of them
    let opened = Box::pin(log_in(&gateway, tcp, peer, waiting)).await;
    if let Some(opened) = opened {
        tokio::spawn(relay(gateway, opened));
    }
}

/// A session that may begin.
struct Opened {
    guest: Guest,
    upstreamed: Upstreamed,
    session: Arc<Session>,
    host: String,
    seat: Seat,
}

/// The client's part has to be done in [`crate::Limits::login`]; the target's part has a limit of its own.
async fn log_in<W: World>(gateway: &Arc<Gateway<W>>, tcp: TcpStream, peer: SocketAddr, waiting: Waiting<W>) -> Option<Opened> {
    let greeted = tokio::time::timeout(gateway.limits.login, greet(gateway, tcp)).await.ok()?.ok()?;
    drop(waiting);
    match greeted {
        Greeted::Cancel(key) => {
            cancel(gateway, &key, peer).await;
            None
        }
        Greeted::Login(mut guest, mut startup, login) => match open(gateway, &login, peer).await {
            Ok((upstreamed, session, host, seat)) => {
                let mut welcome = startup.welcome();
                welcome.extend_from_slice(&upstreamed.ready.parameters);
                welcome.extend_from_slice(&session.key.backend_key_data());
                welcome.extend_from_slice(&upstreamed.ready.ready);
                let sending = async { guest.write_all(&welcome).await.and(guest.flush().await) };
                if !matches!(tokio::time::timeout(gateway.limits.login, sending).await, Ok(Ok(()))) {
                    gateway.sessions.close(session.id);
                    closed(gateway, session.id, "the client left during the login").await;
                    return None;
                }
                Some(Opened { guest, upstreamed, session, host, seat })
            }
            Err(refusal) => {
                tracing::info!(account = %daypass_core::names::shown(&login.account), address = %peer.ip(), why = %refusal.log, "refused");
                let telling = async {
                    let _ = guest.write_all(&refusal.bytes).await;
                    let _ = guest.shutdown().await;
                    // the client reads the reason before it sees the end
                    let _ = guest.read(&mut [0; 64]).await;
                };
                let _ = tokio::time::timeout(Duration::from_millis(500), telling).await;
                None
            }
        },
    }
}

#[expect(clippy::large_enum_variant, reason = "made once a connection, and taken apart at once")]
enum Greeted {
    Login(Guest, Startup, Login),
    Cancel(CancelKey),
}

/// Before and after TLS the same machine is driven, over another stream.
enum Line {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Line {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Line::Plain(tcp) => tcp.write_all(bytes).await,
            Line::Encrypted(tls) => tls.write_all(bytes).await.and(tls.flush().await),
        }
    }

    async fn read(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; n];
        match self {
            Line::Plain(tcp) => tcp.read_exact(&mut buffer).await?,
            Line::Encrypted(tls) => tls.read_exact(&mut buffer).await?,
        };
        Ok(buffer)
    }

    async fn end(mut self) {
        let closing = async {
            match &mut self {
                Line::Plain(tcp) => tcp.shutdown().await,
                Line::Encrypted(tls) => tls.shutdown().await,
            }
        };
        let _ = closing.await;
        let mut rest = [0; 64];
        let reading = async {
            match &mut self {
                Line::Plain(tcp) => tcp.read(&mut rest).await,
                Line::Encrypted(tls) => tls.read(&mut rest).await,
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), reading).await;
    }
}

/// Drives the start-up machine to a proved password.
async fn greet<W: World>(gateway: &Arc<Gateway<W>>, tcp: TcpStream) -> io::Result<Greeted> {
    let identity = gateway.certificate.current();
    let mut startup = Startup::new(Settings { nonce: nonce(), certificate: identity.end_point });
    let mut line = Line::Plain(tcp);
    loop {
        match startup.step() {
            Step::Peek => {
                let Line::Plain(tcp) = &line else { return Err(io::ErrorKind::InvalidData.into()) };
                let mut first = [0];
                if tcp.peek(&mut first).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                startup.feed(&first);
            }
            Step::Read(n) => startup.feed(&line.read(n).await?),
            Step::Send(bytes) => line.send(&bytes).await?,
            Step::StartTls => {
                let Line::Plain(tcp) = line else { return Err(io::ErrorKind::InvalidData.into()) };
                let tls = TlsAcceptor::from(identity.config.clone()).accept(tcp).await?;
                let alpn = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                startup.tls_started(alpn.as_deref());
                line = Line::Encrypted(Box::new(tls));
            }
            Step::Found(Found::Account(account)) => startup.verifier(gateway.world.verifier(without_server(&account)), &gateway.mock_secret),
            Step::Found(Found::Cancel(key)) => return Ok(Greeted::Cancel(key)),
            Step::Found(Found::Login(mut login)) => {
                login.account.truncate(without_server(&login.account).len());
                let Line::Encrypted(tls) = line else { return Err(io::ErrorKind::InvalidData.into()) };
                return Ok(Greeted::Login(Guest(*tls), startup, login));
            }
            Step::Close => {
                line.end().await;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// Some tools write `user@server`: the account names the way by itself.
fn without_server(user: &str) -> &str {
    user.split('@').next().unwrap_or(user)
}

/// A refusal in PostgreSQL's words, and what the log says.
struct Refusal {
    bytes: Vec<u8>,
    log: String,
}

impl Refusal {
    fn new(code: &str, message: &str, hint: &str) -> Self {
        Refusal { bytes: fatal(code, message, "", hint), log: message.to_owned() }
    }

    /// What the target said stays in the log: it names hosts and accounts that are nobody's business.
    fn upstream(error: &UpstreamError, environment: &str) -> Self {
        let message = format!("the database behind {environment} is not reachable at the moment");
        let hint = format!("Nothing is wrong with your access; try again. daypass env test {environment} shows what the target says.");
        Refusal { bytes: fatal(sqlstate::CANNOT_CONNECT_NOW, &message, "", &hint), log: error.to_string() }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Unknown => sqlstate::INVALID_PASSWORD,
            Refused::NotReady { .. } | Refused::Frozen { .. } => sqlstate::CANNOT_CONNECT_NOW,
            Refused::Over { .. } | Refused::AddressNotAllowed { .. } | Refused::AccessNotAllowed { .. } => sqlstate::INVALID_AUTHORIZATION,
            Refused::WrongDatabase { .. } => sqlstate::INVALID_CATALOG_NAME,
            Refused::TooManySessions { .. } => sqlstate::TOO_MANY_CONNECTIONS,
        };
        Refusal::new(code, &refused.words(), &refused.remedy())
    }
}

struct Admitted {
    pass: Pass,
    environment: Environment,
    target: Target,
    until: Time,
    person: String,
}

async fn open<W: World>(gateway: &Arc<Gateway<W>>, login: &Login, peer: SocketAddr) -> Result<(Upstreamed, Arc<Session>, String, Seat), Refusal> {
    let world = &gateway.world;
    let pass = world.ledger(|ledger| ledger.pass_of_account(&login.account).map(|pass| pass.id)).ok_or(Refused::Unknown)?;
    let now = world.now();
    let (seat, admitted) = gateway.sessions.seat(pass, |open_sessions| {
        world.ledger(|ledger| {
            let attempt = Attempt { account: &login.account, database: login.database.as_deref(), address: peer.ip(), open_sessions };
            let admit = admission::admit(ledger, &attempt, now)?;
            Ok::<_, Refused>(Admitted {
                pass: admit.pass.clone(),
                environment: admit.environment.clone(),
                target: admit.target.clone(),
                until: admit.until,
                person: ledger.user(admit.pass.holder).map(|user| user.name.to_string()).unwrap_or_default(),
            })
        })
    })?;
    let Admitted { pass, environment, target, until, person } = admitted;
    let id = SessionId::new(uuid::Uuid::now_v7());
    let application = login.parameters.iter().find(|(name, _)| name == "application_name").map(|(_, value)| value.clone()).unwrap_or_default();
    let opened = SessionOpened {
        session: id,
        pass: pass.id,
        environment: environment.id,
        holder: pass.holder,
        account: pass.account.clone(),
        address: peer.ip(),
        application: application.chars().take(128).collect(),
        at: now,
    };
    let parameters = attributed(login, &application, &person, peer);
    // the record becomes durable while the target is being asked
    let (recorded, upstreamed) = tokio::join!(world.session_opened(opened), upstream::login(&**world, &pass, &environment, &target, parameters));
    if let Err(why) = recorded {
        tracing::error!(%why, "a session could not be recorded, so it was not let in");
        return Err(Refusal::new(
            sqlstate::CANNOT_CONNECT_NOW,
            "this session could not be recorded, so it cannot begin",
            "Tell whoever runs Daypass: its store cannot be written.",
        ));
    }
    let name = environment.spec.name.to_string();
    let upstreamed = match upstreamed {
        Ok(upstreamed) => upstreamed,
        Err(error) => {
            closed(gateway, id, "the target did not let the gateway in").await;
            return Err(Refusal::upstream(&error, &name));
        }
    };
    let mut secret = vec![0; if login.minor == 2 { 32 } else { 4 }];
    crate::random(&mut secret);
    let session = gateway.sessions.open(Opening {
        id,
        pass: pass.id,
        environment: environment.id,
        environment_name: name,
        account: pass.account.clone(),
        address: peer.ip(),
        opened_at: now,
        until,
        key: CancelKey { pid: gateway.sessions.free_pid(), secret },
        upstream_key: upstreamed.ready.key.clone(),
        target: target.id,
        upstream: upstreamed.peer,
    });
    // what ended while the target was being asked is seen now: the fence looks at sessions that are on its list
    let standing = world.ledger(|ledger| ledger.pass(pass.id).map(|pass| admission::standing(ledger, pass, peer.ip(), world.now())));
    if let Some(Err(fallen)) = standing {
        gateway.sessions.close(id);
        let words = fallen.words(&session.environment_name);
        closed(gateway, id, &words).await;
        return Err(Refusal::new(sqlstate::INVALID_AUTHORIZATION, &words, "Ask for new access: daypass request."));
    }
    Ok((upstreamed, session, target.spec.host.to_string(), seat))
}

/// The client's parameters, with person and address added to the application name: PostgreSQL keeps 63 bytes of it.
fn attributed(login: &Login, application: &str, person: &str, peer: SocketAddr) -> Vec<(String, String)> {
    let suffix = format!("daypass {person} {}", peer.ip());
    let room = 62_usize.saturating_sub(suffix.len());
    let mut name = application[..application.floor_char_boundary(room)].to_owned();
    if !name.is_empty() {
        name.push(' ');
    }
    name.push_str(&suffix);
    let others = login.parameters.iter().filter(|(key, _)| key != "application_name").cloned();
    others.chain([("application_name".to_owned(), name)]).collect()
}

async fn relay<W: World>(gateway: Arc<Gateway<W>>, opened: Opened) {
    let Opened { guest, upstreamed, session, host, seat } = opened;
    let relay = Relay::new(gateway.world.clone(), session.clone(), guest, upstreamed.stream);
    let Passed { end, from_client, to_client, mut recorder, busy } = relay.run().await;
    gateway.sessions.close(session.id);
    drop(seat);
    // an account that is over is ended whole by the keeper: hundreds of cancels at once would only stand in its way
    let over = gateway.world.ledger(|ledger| ledger.pass(session.pass).is_none_or(|pass| ledger.over(pass, gateway.world.now()).is_some()));
    if busy && !over {
        // nobody waits for the statement any more, and the target does not notice that by itself
        let tls = gateway.world.target_tls(session.target);
        if let Err(error) = upstream::cancel(session.upstream, &host, tls, &session.upstream_key).await {
            tracing::warn!(%error, "a running statement could not be cancelled; the target ends it when it notices");
        }
    }
    let words = end.words();
    if let Some(block) = recorder.take()
        && let Err(why) = gateway.world.statements(block).await
    {
        tracing::error!(%why, "statements could not be recorded");
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
}

/// The closing record of a session that never relayed a byte.
async fn closed<W: World>(gateway: &Arc<Gateway<W>>, session: SessionId, why: &str) {
    let closed =
        SessionClosed { session, at: gateway.world.now(), why: why.to_owned(), bytes_from_client: 0, bytes_to_client: 0, statements: 0, digest: String::new() };
    if let Err(why) = gateway.world.session_closed(closed).await {
        tracing::error!(%why, "the end of a session could not be recorded");
    }
}

/// A cancel request: by our own key, from an address that is allowed now. Nothing is answered, whatever comes of it.
async fn cancel<W: World>(gateway: &Arc<Gateway<W>>, key: &CancelKey, peer: SocketAddr) {
    let Some(session) = gateway.sessions.by_key(key) else { return };
    let now = gateway.world.now();
    let host = gateway.world.ledger(|ledger| {
        let pass = ledger.pass(session.pass)?;
        admission::standing(ledger, pass, peer.ip(), now).ok()?;
        Some(ledger.target(session.target)?.spec.host.to_string())
    });
    let Some(host) = host else { return };
    let tls = gateway.world.target_tls(session.target);
    if let Err(error) = upstream::cancel(session.upstream, &host, tls, &session.upstream_key).await {
        tracing::warn!(%error, "a cancel request could not be passed on");
    }
}
