//! Accepting connections: one task each, with limits on those that have not logged in yet.

use crate::{World, connection, places::Places, sessions::Sessions, tls::Certificate, workers::Workers};
use daypass_core::environment::Engine;
use std::{
    fs::File,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Limits on connections that have not proved a password.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a connection may take to log in.
    pub login: Duration,
    /// Connections before login from one address. A tool opens about ten at once; an office behind one address more.
    pub per_address: usize,
    /// Connections before login in all.
    pub in_all: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { login: Duration::from_secs(10), per_address: 128, in_all: 4096 }
    }
}

/// So many times more connections of one address may stand in line for a place before the login.
const LINE: usize = 8;

/// Passwords that are checked at once, on threads that relay nothing.
const CHECKS: usize = 2;

/// What all connections share.
pub struct Gateway<W> {
    pub world: Arc<W>,
    pub sessions: Arc<Sessions>,
    pub certificate: Arc<Certificate>,
    pub limits: Limits,
    /// What stands behind an environment's name in its server name.
    pub suffix: Option<String>,
    /// Passwords that are being checked: each takes a core for a millisecond or two, before anybody has proved anything.
    pub checks: Semaphore,
    /// Salts of accounts that do not exist follow from it.
    pub mock_secret: [u8; 32],
    /// Of connections that have not logged in yet.
    waiting: Arc<Places>,
    /// Of those that wait for such a place: they hold a descriptor and nothing else.
    line: Arc<Places>,
    /// Connections that were closed without an answer, and when that was told last.
    turned_away: AtomicU64,
    told_at: AtomicI64,
}

impl<W: World> Gateway<W> {
    /// One for all listeners. Its fence is kept by [`crate::keep_fence`], on threads that relay nothing.
    pub fn new(
        world: Arc<W>,
        sessions: Arc<Sessions>,
        certificate: Arc<Certificate>,
        limits: Limits,
        suffix: Option<String>,
        mock_secret: [u8; 32],
    ) -> Arc<Self> {
        Arc::new(Gateway {
            world,
            sessions,
            certificate,
            limits,
            suffix,
            checks: Semaphore::new(CHECKS),
            mock_secret,
            waiting: Places::new(limits.in_all, limits.per_address),
            line: Places::new(limits.in_all, limits.per_address * LINE),
            turned_away: AtomicU64::new(0),
            told_at: AtomicI64::new(0),
        })
    }

    /// Counts a connection that gets no answer; one line a second says how many.
    fn turned_away(&self, peer: SocketAddr) {
        let count = self.turned_away.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.world.now().micros();
        let last = self.told_at.load(Ordering::Relaxed);
        if now - last >= 1_000_000 && self.told_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(address = %peer.ip(), count, "too many connections that have not logged in: closed (gateway.logins_per_address, gateway.logins_in_all)");
        }
    }
}

/// Serves a listener for clients of one engine, for as long as the process lives.
pub async fn serve<W: World>(gateway: Arc<Gateway<W>>, engine: Engine, listener: TcpListener, workers: Arc<Workers>) {
    // one descriptor is kept aside: when all are in use, it lets us take a connection and close it, instead of spinning on it
    let mut spare = File::open("/dev/null").ok();
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                // a pool of many behind one address stands in line for its share; when the line is full as well, nobody can be answered
                let place = match gateway.waiting.take(peer.ip()) {
                    Some(place) => Ok(place),
                    None => match gateway.line.take(peer.ip()) {
                        Some(in_line) => Err(in_line),
                        None => {
                            gateway.turned_away(peer);
                            continue;
                        }
                    },
                };
                // the socket moves to the reactor of the thread that it stays on
                let Ok(tcp) = tcp.into_std() else { continue };
                let gateway = gateway.clone();
                workers.spawn(async move {
                    let Ok(tcp) = TcpStream::from_std(tcp) else { return };
                    let waiting = match place {
                        Ok(place) => place,
                        Err(in_line) => {
                            let place = tokio::time::timeout(gateway.limits.login, gateway.waiting.wait(peer.ip())).await;
                            drop(in_line);
                            let Ok(place) = place else { return gateway.turned_away(peer) };
                            place
                        }
                    };
                    connection::serve(gateway, engine, tcp, peer, waiting).await;
                });
            }
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                // ENFILE, EMFILE
                tracing::error!("out of file descriptors: new connections are closed at once; raise the limit (ulimit -n)");
                drop(spare.take());
                let _ = tokio::time::timeout(Duration::from_millis(10), listener.accept()).await;
                spare = File::open("/dev/null").ok();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // the peer was gone before we looked
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// A peer that vanished without a word is noticed within a minute.
pub fn keep_alive(tcp: &TcpStream) {
    let socket = socket2::SockRef::from(tcp);
    let probe = socket2::TcpKeepalive::new().with_time(Duration::from_secs(20)).with_interval(Duration::from_secs(5)).with_retries(4);
    let _ = socket.set_tcp_keepalive(&probe);
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(40)));
}
