//! The gateway's own login at a target: the same for a person's session and for the probe that makes a pass ready.

use crate::{
    Door, World,
    answer::{About, Answer},
    nonce,
    tls::end_point_hash,
    wrapped::Wrapped,
};
use daypass_core::{
    environment::{Engine, Environment, Target, TargetSpec, TargetTls},
    ids::PassId,
    names::DatabaseName,
    pass::Pass,
    secret::Secret,
};
use daypass_wire::{
    machine::Step,
    observe::Observe,
    pg::{self, scram::SaltedPassword, upstream::Credentials},
    tds::{self, login7::Login7},
};
use rustls::pki_types::ServerName;
use std::{
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
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// A target that does not take a connection or a login within this is given up for now.
const PATIENCE: Duration = Duration::from_secs(10);
/// Azure SQL sends a login on to the node that has the database, sometimes by way of another.
const HOPS: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("the target is not reachable: {0}")]
    Unreachable(std::io::Error),
    #[error("the target's TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("the target refused the gateway's login: {0}")]
    Refused(String),
    /// The same in its own words.
    #[error("the target refused the gateway's login: it answered {0}")]
    Answered(Answer),
    #[error("the target does not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    #[error("the database is not the one that access was given to: it was replaced")]
    Replaced,
    #[error("the secret of the account is not there: it is being made or already gone")]
    NoSecret,
    #[error("it is not known yet which database this is; the next look at the target tells")]
    Unidentified,
    #[error("the target could not be told to let this login in: {0}")]
    Door(String),
}

impl UpstreamError {
    /// What the client is told of it: the target's own words, where they are for it.
    pub fn for_the_client(&self) -> Option<&str> {
        match self {
            UpstreamError::Refused(why) if why == tds::upstream::NO_MARS => {
                Some("the target does not have MARS (several sessions in one connection), which this connection asks for")
            }
            UpstreamError::Answered(answer) => answer.words(),
            _ => None,
        }
    }

    /// The target's own SQLSTATE, where the client is told its words.
    pub fn postgres_code(&self) -> Option<&str> {
        match self {
            UpstreamError::Answered(answer) => answer.sqlstate(),
            _ => None,
        }
    }

    /// What the words that the client is told are about.
    pub fn about(&self) -> About {
        match self {
            UpstreamError::Answered(answer) => answer.about(),
            UpstreamError::Refused(_) if self.for_the_client().is_some() => About::Setting,
            UpstreamError::Refused(_) | UpstreamError::Tls(_) => About::Gateway,
            UpstreamError::Unreachable(_)
            | UpstreamError::Silent
            | UpstreamError::Replaced
            | UpstreamError::NoSecret
            | UpstreamError::Unidentified
            | UpstreamError::Door(_) => About::Passing,
        }
    }

    pub fn remedy(&self) -> Option<&'static str> {
        self.for_the_client()?;
        match self.about() {
            About::Setting if matches!(self, UpstreamError::Refused(_)) => Some("Switch it off in the connection's settings and connect again."),
            About::Setting => Some("The server does not take a setting that this connection asks for: change it in the tool's connection settings."),
            About::Room => Some("Close a connection that you do not need, or try again when others have closed theirs."),
            About::State => Some("The server says this, not Daypass: ask whoever looks after the database."),
            About::Passing => Some("The server says this, not Daypass, and it passes: try again in a moment."),
            About::Gateway => None,
        }
    }

    /// Whether it did not take the password, or does not let the account in at all.
    pub fn is_wrong_password(&self) -> bool {
        matches!(self, UpstreamError::Answered(answer) if answer.is_wrong_password())
    }
}

/// A stream to a target, encrypted or (by plain word of its environment) not.
pub enum UpstreamStream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<Wrapped>>),
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            UpstreamStream::Plain($stream) => $call,
            UpstreamStream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// What a login carries besides account, password and database.
#[derive(Clone)]
pub enum Carried {
    Postgres(Vec<(String, String)>),
    SqlServer { login: Box<Login7>, mars: bool },
}

impl Carried {
    /// Of the probe that makes a pass ready.
    fn probe(engine: Engine) -> Carried {
        let name = "daypass probe".to_owned();
        match engine {
            Engine::Postgres => Carried::Postgres(vec![("application_name".to_owned(), name)]),
            Engine::SqlServer => {
                Carried::SqlServer { login: Box::new(Login7 { application: name, host: "daypass".to_owned(), ..Login7::default() }), mars: false }
            }
        }
    }
}

/// How the target is ready.
pub enum Ready {
    Postgres(pg::upstream::Ready),
    SqlServer(tds::upstream::Ready),
}

impl Ready {
    /// Under which number the target knows the session; 0 when it does not say.
    pub fn number(&self) -> u32 {
        match self {
            Ready::Postgres(ready) => ready.key.pid,
            Ready::SqlServer(ready) => ready.number.into(),
        }
    }

    /// What follows the session from here on.
    pub fn observer(&self, mars: bool) -> Box<dyn Observe + Send> {
        match self {
            Ready::Postgres(_) => Box::<pg::observe::Observer>::default(),
            Ready::SqlServer(ready) => Box::new(tds::observe::Observer::new(mars, ready.agreed)),
        }
    }
}

/// A connection to a target that is ready for queries.
pub struct Upstreamed {
    pub stream: UpstreamStream,
    pub peer: SocketAddr,
    pub ready: Ready,
    /// As whom.
    pub user: String,
    /// Held until the session is on the list of live ones.
    pub door: Option<Door>,
}

/// As whom the gateway logs in at a target.
pub struct Who {
    pub user: String,
    pub password: Secret,
    /// Under which the slow part of SCRAM is kept between logins.
    pub pass: Option<PassId>,
}

impl Who {
    /// A pass's own account with the password that only the gateway knows, or the standing account that it was given for.
    fn of(world: &impl World, pass: &Pass) -> Result<Who, UpstreamError> {
        let (user, password) = match pass.wish.standing {
            None => (Some(pass.account.to_string()), world.target_password(pass.id)),
            Some(id) => (world.ledger(|ledger| ledger.standing(id).map(|known| known.name.to_string())), world.standing_password(id)),
        };
        match (user, password) {
            (Some(user), Some(password)) => Ok(Who { user, password, pass: pass.wish.standing.is_none().then_some(pass.id) }),
            _ => Err(UpstreamError::NoSecret),
        }
    }
}

/// A login with the pass's own account, on the way that sessions take.
pub async fn probe(world: &impl World, pass: &Pass, env: &Environment, target: &Target) -> Result<(), UpstreamError> {
    login(world, pass, env, target, Carried::probe(target.spec.engine)).await.map(drop)
}

/// The same as somebody else: whether a new password works.
pub async fn probe_as(world: &impl World, who: Who, env: &Environment, target: &Target) -> Result<(), UpstreamError> {
    login_as(world, &who, env, target, Carried::probe(target.spec.engine)).await.map(drop)
}

/// Logs in at the target for a pass.
pub async fn login(world: &impl World, pass: &Pass, env: &Environment, target: &Target, carried: Carried) -> Result<Upstreamed, UpstreamError> {
    let who = Who::of(world, pass)?;
    let first = login_once(world, pass, &who, env, target, carried.clone(), false).await;
    // somebody gave the account another password from inside: it is set anew, and opens nothing but this
    match first {
        Err(error) if error.is_wrong_password() => {
            tracing::warn!(account = %who.user, "the target did not take the password that only the gateway knows; it is set again");
            // one that was changed by us meanwhile is no password of somebody else's
            let mut fresh = Who::of(world, pass)?;
            if let Some(standing) = pass.wish.standing.filter(|_| fresh.password.expose() == who.password.expose()) {
                world.put_back(standing).await.map_err(UpstreamError::Door)?;
                fresh = Who::of(world, pass)?;
            }
            login_once(world, pass, &fresh, env, target, carried, true).await
        }
        done => done,
    }
}

async fn login_once(
    world: &impl World,
    pass: &Pass,
    who: &Who,
    env: &Environment,
    target: &Target,
    carried: Carried,
    again: bool,
) -> Result<Upstreamed, UpstreamError> {
    let door = world.open_door(target, pass.id, &who.user, again).await.map_err(UpstreamError::Door)?;
    let upstreamed = login_as(world, who, env, target, carried).await?;
    Ok(Upstreamed { door: Some(door), ..upstreamed })
}

async fn login_as(world: &impl World, who: &Who, env: &Environment, target: &Target, carried: Carried) -> Result<Upstreamed, UpstreamError> {
    // what is not known is not entered: there would be nothing to compare the database with
    if !world.ledger(|ledger| ledger.environment(env.id).is_some_and(|env| env.identity.is_some())) {
        return Err(UpstreamError::Unidentified);
    }
    let way = Way { target: &target.spec, tls: world.target_tls(target.id), database: &env.spec.database };
    let login = async {
        match carried {
            Carried::Postgres(parameters) => {
                let before = world.position(env.id);
                let salted = who.pass.and_then(|pass| world.salted(pass));
                let (upstreamed, salted) = login_postgres(&way, who, parameters, salted).await?;
                if let (Some(salted), Some(pass)) = (salted, who.pass) {
                    world.keep_salted(pass, salted);
                }
                match &upstreamed.ready {
                    Ready::Postgres(ready) if world.is_same_database(env.id, &ready.seen.identity, ready.seen.position, before) => Ok(upstreamed),
                    _ => Err(UpstreamError::Replaced),
                }
            }
            Carried::SqlServer { login, mars } => {
                let question = world.question(env.id);
                if mars {
                    // between several sessions in one connection there is no place for the question: another login asks it
                    let Carried::SqlServer { login, .. } = Carried::probe(Engine::SqlServer) else { return Err(UpstreamError::NoSecret) };
                    let asked = login_sqlserver(&way, who, *login, false, question.clone()).await?;
                    is_same(world, env, &asked.ready)?;
                }
                let upstreamed = login_sqlserver(&way, who, *login, mars, question.filter(|_| !mars)).await?;
                is_same(world, env, &upstreamed.ready)?;
                Ok(upstreamed)
            }
        }
    };
    tokio::time::timeout(PATIENCE, login).await.map_err(|_| UpstreamError::Silent)?
}

fn is_same(world: &impl World, env: &Environment, ready: &Ready) -> Result<(), UpstreamError> {
    match ready {
        Ready::SqlServer(ready) if ready.seen.as_ref().is_some_and(|answer| !world.is_same_answer(env.id, answer)) => Err(UpstreamError::Replaced),
        _ => Ok(()),
    }
}

/// Where a login goes.
pub struct Way<'a> {
    pub target: &'a TargetSpec,
    /// As the engine and the mode want it; none: its environment says in plain words that it has no TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub database: &'a DatabaseName,
}

/// The gateway's login at a server that may not be known yet: whether it is taken, and what the database that it found itself in says of
/// itself. `question` is SQL Server's.
pub async fn knock(way: &Way<'_>, who: &Who, question: Option<String>) -> Result<Ready, UpstreamError> {
    let login = async {
        match Carried::probe(way.target.engine) {
            Carried::Postgres(parameters) => login_postgres(way, who, parameters, None).await.map(|(upstreamed, _)| upstreamed.ready),
            Carried::SqlServer { login, mars } => login_sqlserver(way, who, *login, mars, question).await.map(|upstreamed| upstreamed.ready),
        }
    };
    tokio::time::timeout(PATIENCE, login).await.map_err(|_| UpstreamError::Silent)?
}

async fn login_postgres(
    way: &Way<'_>,
    who: &Who,
    parameters: Vec<(String, String)>,
    salted: Option<SaltedPassword>,
) -> Result<(Upstreamed, Option<SaltedPassword>), UpstreamError> {
    let credentials = Credentials {
        user: who.user.clone(),
        password: Zeroizing::new(who.password.expose().to_owned()),
        database: way.database.to_string(),
        parameters,
        nonce: nonce(),
        salted,
    };
    let mut machine = pg::upstream::Upstream::new(credentials, way.tls.is_some());
    let host = way.target.host.as_str();
    let (tcp, peer) = connect(host, way.target.port).await?;
    let (stream, found) = drive(&mut machine, tcp, way.tls.clone(), host).await?;
    let ready = match found {
        pg::upstream::Found::Ready(ready) => ready,
        pg::upstream::Found::Failed(why) => return Err(UpstreamError::Refused(why)),
        pg::upstream::Found::Answered(fields) => return Err(UpstreamError::Answered(Answer::Postgres(fields))),
    };
    let upstreamed = Upstreamed { stream, peer, ready: Ready::Postgres(ready), user: who.user.clone(), door: None };
    Ok((upstreamed, machine.salted()))
}

async fn login_sqlserver(way: &Way<'_>, who: &Who, mut login: Login7, mars: bool, question: Option<String>) -> Result<Upstreamed, UpstreamError> {
    login.user = who.user.clone();
    login.password = Zeroizing::new(who.password.expose().to_owned());
    login.database = way.database.to_string();
    let mode = match way.target.tls {
        TargetTls::Off => None,
        TargetTls::VerifyFull { .. } => Some(tds::startup::Tls::Wrapped),
        TargetTls::Strict { .. } => Some(tds::startup::Tls::Strict),
    };
    let (mut host, mut port) = (way.target.host.to_string(), way.target.port);
    for _ in 0..HOPS {
        login.server.clone_from(&host);
        let mut machine = tds::upstream::Upstream::new(login.clone(), mars, mode, question.clone());
        // Azure sends on to `host\instance`: the name of a host is what stands before
        let place = host.split('\\').next().unwrap_or(&host);
        let (tcp, peer) = connect(place, port).await?;
        let (stream, found) = drive(&mut machine, tcp, way.tls.clone(), place).await?;
        match found {
            tds::upstream::Found::Ready(ready) => {
                return Ok(Upstreamed { stream, peer, ready: Ready::SqlServer(ready), user: who.user.clone(), door: None });
            }
            tds::upstream::Found::Failed(why) => return Err(UpstreamError::Refused(why)),
            tds::upstream::Found::Answered(said) => return Err(UpstreamError::Answered(Answer::SqlServer(said))),
            tds::upstream::Found::Route { host: next, port: at } => (host, port) = (next, at),
        }
    }
    Err(UpstreamError::Refused("it sends the login from one server to the next, without end".to_owned()))
}

async fn connect(host: &str, port: u16) -> Result<(TcpStream, SocketAddr), UpstreamError> {
    let tcp = TcpStream::connect((host, port)).await.map_err(UpstreamError::Unreachable)?;
    tcp.set_nodelay(true).map_err(UpstreamError::Unreachable)?;
    crate::accept::keep_alive(&tcp);
    let peer = tcp.peer_addr().map_err(UpstreamError::Unreachable)?;
    Ok((tcp, peer))
}

async fn start_tls(stream: Wrapped, tls: Arc<rustls::ClientConfig>, host: &str) -> Result<UpstreamStream, UpstreamError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|e| UpstreamError::Tls(std::io::Error::other(e)))?;
    let mut stream = TlsConnector::from(tls).connect(name, stream).await.map_err(UpstreamError::Tls)?;
    stream.get_mut().0.unwrap();
    Ok(UpstreamStream::Tls(Box::new(stream)))
}

/// A login machine of `wire`, whatever its protocol.
trait Login {
    type Found;
    fn step(&mut self) -> Step<Self::Found>;
    fn feed(&mut self, bytes: &[u8]);
    fn tls_started(&mut self, certificate: Option<Vec<u8>>);
    /// Whether the TLS handshake lies in packets.
    fn in_packets(&self) -> bool;
}

impl Login for pg::upstream::Upstream {
    type Found = pg::upstream::Found;
    fn step(&mut self) -> Step<Self::Found> {
        pg::upstream::Upstream::step(self)
    }
    fn feed(&mut self, bytes: &[u8]) {
        pg::upstream::Upstream::feed(self, bytes);
    }
    fn tls_started(&mut self, certificate: Option<Vec<u8>>) {
        pg::upstream::Upstream::tls_started(self, certificate);
    }
    fn in_packets(&self) -> bool {
        false
    }
}

impl Login for tds::upstream::Upstream {
    type Found = tds::upstream::Found;
    fn step(&mut self) -> Step<Self::Found> {
        tds::upstream::Upstream::step(self)
    }
    fn feed(&mut self, bytes: &[u8]) {
        tds::upstream::Upstream::feed(self, bytes);
    }
    fn tls_started(&mut self, _certificate: Option<Vec<u8>>) {
        tds::upstream::Upstream::tls_started(self);
    }
    fn in_packets(&self) -> bool {
        self.tls() == Some(tds::startup::Tls::Wrapped)
    }
}

async fn drive<M: Login>(
    machine: &mut M,
    tcp: TcpStream,
    tls: Option<Arc<rustls::ClientConfig>>,
    host: &str,
) -> Result<(UpstreamStream, M::Found), UpstreamError> {
    let mut stream = UpstreamStream::Plain(tcp);
    let mut buffer = Vec::new();
    loop {
        match machine.step() {
            Step::Send(bytes) => {
                let bytes = Zeroizing::new(bytes);
                stream.write_all(&bytes).await.map_err(UpstreamError::Unreachable)?;
                stream.flush().await.map_err(UpstreamError::Unreachable)?;
            }
            Step::Read(n) => {
                buffer.resize(n, 0);
                stream.read_exact(&mut buffer).await.map_err(UpstreamError::Unreachable)?;
                machine.feed(&buffer);
            }
            Step::StartTls => {
                let (UpstreamStream::Plain(tcp), Some(tls)) = (stream, tls.clone()) else { return Err(UpstreamError::Refused("TLS twice".to_owned())) };
                let bare = if machine.in_packets() { Wrapped::in_packets(tcp) } else { Wrapped::bare(tcp) };
                stream = start_tls(bare, tls, host).await?;
                let UpstreamStream::Tls(started) = &stream else { return Err(UpstreamError::Refused("no TLS".to_owned())) };
                let certificate = started.get_ref().1.peer_certificates().and_then(|chain| end_point_hash(chain.first()?));
                machine.tls_started(certificate);
            }
            Step::Found(found) => return Ok((stream, found)),
            Step::Peek | Step::Close => return Err(UpstreamError::Refused("it closed the connection".to_owned())),
        }
    }
}

/// Cancels what runs on a PostgreSQL's backend, with the key that it gave us. Encrypted like the session itself.
pub async fn cancel(peer: SocketAddr, host: &str, tls: Option<Arc<rustls::ClientConfig>>, key: &pg::message::CancelKey) -> Result<(), UpstreamError> {
    let cancelling = async {
        let mut tcp = TcpStream::connect(peer).await.map_err(UpstreamError::Unreachable)?;
        tcp.set_nodelay(true).map_err(UpstreamError::Unreachable)?;
        let mut stream = match tls {
            None => UpstreamStream::Plain(tcp),
            Some(tls) => {
                let mut request = Vec::new();
                pg::message::put_untagged(&mut request, &pg::message::SSL_REQUEST.to_be_bytes());
                tcp.write_all(&request).await.map_err(UpstreamError::Unreachable)?;
                if tcp.read_u8().await.map_err(UpstreamError::Unreachable)? != b'S' {
                    return Err(UpstreamError::Refused("it does not speak TLS".to_owned()));
                }
                start_tls(Wrapped::bare(tcp), tls, host).await?
            }
        };
        stream.write_all(&key.request()).await.map_err(UpstreamError::Unreachable)?;
        stream.flush().await.map_err(UpstreamError::Unreachable)?;
        // the target closes when it has passed the signal on; it says nothing
        let _ = stream.read(&mut [0; 1]).await;
        Ok(())
    };
    tokio::time::timeout(PATIENCE, cancelling).await.map_err(|_| UpstreamError::Silent)?
}
