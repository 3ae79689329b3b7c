//! API and console over HTTPS: one connection handling, one guard, one set of rules. The console calls what the API calls.

pub mod api;
pub mod auth;
pub mod budget;
pub mod console;
mod device;
pub mod dto;
mod guard;
pub mod oidc;
mod panel;
pub mod place;
mod problem;
pub mod sign_in;
mod strangers;

#[cfg(test)]
mod tests;

pub use problem::Problem;

use self::strangers::Strangers;
use crate::{control::Control, mover::Mover, node::Node};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use daypass_core::{environment::Environment, ids::*, ledger::Ledger, names::Name, people::Permission, refusal::Refusal, time::Ttl};
use daypass_gateway::{World, places::Places, tls::Certificate};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// What every route has.
#[derive(Clone)]
pub struct App {
    pub node: Arc<Node>,
    pub control: Control,
    pub mover: Arc<Mover>,
    pub place: Arc<place::Place>,
    pub sign_ins: Arc<sign_in::SignIns>,
    /// What shows secrets or lets others in wants a sign-in no older than this.
    pub recent: Ttl,
    pub devices: Arc<device::Devices>,
    /// Where notices go, in words.
    pub channels: Arc<[String]>,
    /// Where browsers reach the console.
    pub url: Arc<str>,
    /// Where people may sign in besides here.
    pub provider: Option<Arc<oidc::Provider>>,
    /// What one person may ask for in a stretch of time.
    pub budgets: Arc<budget::Budgets>,
    /// The file with the one-time link, for as long as there is nobody.
    pub first_link: Arc<std::path::Path>,
}

/// Bodies are small: the largest is an environment with its CA.
const BODY: usize = 64 * 1024;
/// And so is the head of a request; a connection of HTTP/1 holds no more of what it has not read.
const HEAD: usize = 32 * 1024;
/// How long whoever is put out may take to go.
const ROOM: Duration = Duration::from_millis(250);
/// API connections at once.
const CONNECTIONS: usize = 1024;
/// And of one address, so that it alone keeps nobody out; a proxy before Daypass has this many.
const OF_ADDRESS: usize = CONNECTIONS / 2;
/// How often a quiet connection of HTTP/2 is asked whether somebody is there.
const ALIVE: Duration = Duration::from_secs(30);
/// A client that has not sent the head of its request by then is gone; the body has as long again.
const HEADERS: Duration = Duration::from_secs(10);

/// All routes, and the document that describes those of the API.
pub fn router(app: App) -> (Router, utoipa::openapi::OpenApi) {
    let (api, document) = api::router(&app);
    let pages = api.merge(console::router(&app)).method_not_allowed_fallback(no_such_method);
    let known = pages.clone().fallback(nowhere).with_state(app.clone());
    let put_right = async move |mut request: Request| {
        let Some(right) = api::lcs::put_right(request.uri().path()) else { return nowhere().await.into_response() };
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let Ok(uri) = format!("{right}{query}").parse() else { return nowhere().await.into_response() };
        *request.uri_mut() = uri;
        known.clone().oneshot(request).await.into_response()
    };
    let router = pages.fallback(put_right).layer(axum::middleware::from_fn(whole)).with_state(app);
    (router, document)
}

/// Reads a request to its end before anybody answers it. An early answer (not signed in, no such page) would close the connection
/// under the rest of the body without saying so, and the client's next request on it would be cut.
async fn whole(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let refused = match tokio::time::timeout(HEADERS, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => {
            // what the API says is for who asked, and some of it is a password
            let is_api = head.uri.path().starts_with("/api/");
            let mut answer = next.run(Request::from_parts(head, Body::from(body))).await;
            if is_api {
                answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
            }
            return answer;
        }
        Ok(Err(_)) => {
            let most = format!("A request has at most {BODY} bytes.");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid", most, "Send less; for many things, send several requests.")
        }
        Err(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "invalid", "The request did not arrive in time.", "Send it again."),
    };
    // what was not read still lies in the connection: it serves no other request
    ([(header::CONNECTION, "close")], refused).into_response()
}

async fn nowhere() -> Problem {
    Refusal::not_found("page", "this address").into()
}

async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", "This address does not take this method.", "See /api/v1/openapi.json.")
}

/// The environment of this name, if the caller may see it.
fn environment(app: &App, caller: &auth::Caller, name: &str) -> Result<Environment, Problem> {
    let not_found = || Problem::from(Refusal::not_found("environment", name));
    let name: Name = name.parse().map_err(|_| not_found())?;
    let env = app.node.ledger(|ledger| ledger.environment_named(&name).cloned()).ok_or_else(not_found)?;
    if caller.may(app, Permission::SeeEnvironment, Some(env.id)) { Ok(env) } else { Err(not_found()) }
}

fn person_name(ledger: &Ledger, id: UserId) -> String {
    ledger.user(id).map(|user| user.name.to_string()).unwrap_or_default()
}

/// Serves the API for as long as the process lives. A slow handshake holds up nobody else.
pub async fn serve(listener: TcpListener, router: Router, certificate: Arc<Certificate>, patience: Duration) {
    let places = Places::new(CONNECTIONS, OF_ADDRESS);
    let strangers = Arc::new(Strangers::default());
    loop {
        let Ok((tcp, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let stranger = strangers.note(peer.ip());
        let place = match places.take(peer.ip()) {
            Some(place) => place,
            // somebody who has not signed in gives theirs to whoever comes now, and may come again
            None if strangers.make_room(&stranger, OF_ADDRESS) => match tokio::time::timeout(ROOM, places.wait(peer.ip())).await {
                Ok(place) => place,
                Err(_) => continue,
            },
            None => continue,
        };
        let mut config = (*certificate.current().config).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            let _ = tcp.set_nodelay(true);
            let serving = async {
                let handshake = tokio::time::timeout(HEADERS, TlsAcceptor::from(Arc::new(config)).accept(tcp));
                let Ok(Ok(tls)) = handshake.await else { return };
                serve_connection(tls, router, peer, patience, stranger.signed_in()).await;
            };
            tokio::select! {
                () = serving => {}
                () = stranger.put_out() => {}
            }
        });
    }
}

/// Serves the same over a socket in the file system, for whoever may open it: no port can be taken away from them, and the thread is its own.
/// Who asks is asked for all the same: the socket saves the way, not the sign-in.
pub fn serve_local(path: &std::path::Path, router: Router) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // one of a process that died; two processes never share a data directory
    let _ = std::fs::remove_file(path);
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("control-socket".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
            let router = router.layer(axum::Extension(axum::extract::ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 0)))));
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let router = router.clone();
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.http1_only().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
                });
            }
        });
    })?;
    Ok(())
}

async fn serve_connection(
    tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    router: Router,
    peer: SocketAddr,
    patience: Duration,
    signed_in: guard::SignedIn,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = asked.clone();
    let note = move |request: axum::extract::Request| {
        seen.store(true, Relaxed);
        std::future::ready(request)
    };
    let router =
        router.layer(axum::Extension(axum::extract::ConnectInfo(peer))).layer(axum::Extension(signed_in.clone())).layer(axum::middleware::map_request(note));
    // which of the two it is stands in the handshake
    let is_two = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = if is_two { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEAD);
    builder.http2().timer(hyper_util::rt::TokioTimer::new()).keep_alive_interval(Some(ALIVE)).keep_alive_timeout(HEADERS);
    let serving = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(router));
    // whoever asks nothing gives the place to others, whatever they say on the level of the protocol
    let silent = async {
        tokio::time::sleep(HEADERS).await;
        if !asked.load(Relaxed) {
            return;
        }
        // whoever asks and signs nobody in has the time that signing in takes, on either version of HTTP
        tokio::time::sleep(patience).await;
        if signed_in.who().is_some() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = serving => {}
        () = silent => {}
    }
}
