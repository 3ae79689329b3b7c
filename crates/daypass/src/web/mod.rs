//! The API over HTTPS: routes and their documentation are registered in one call, so they cannot drift apart.

pub mod auth;
mod compat;
pub mod dto;
mod environments;
mod log;
mod panel;
mod passes;
mod people;
pub mod place;
mod problem;
mod sessions;

pub use problem::Problem;

use crate::{control::Control, node::Node};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use daypass_core::{environment::Environment, ids::*, ledger::Ledger, names::Name, people::Permission, refusal::Refusal};
use daypass_gateway::{World, tls::Certificate};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_rustls::TlsAcceptor;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What every route has.
#[derive(Clone)]
pub struct App {
    pub node: Arc<Node>,
    pub control: Control,
    pub place: Arc<place::Place>,
    /// Password checks at once: each takes 19 MiB and a core for a while.
    pub password_checks: Arc<Semaphore>,
}

/// Bodies are small: the largest is an environment with its CA.
const BODY: usize = 64 * 1024;
/// API connections at once.
const CONNECTIONS: usize = 1024;
/// A client that has not sent the head of its request by then is gone; the body has as long again.
const HEADERS: Duration = Duration::from_secs(10);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Daypass",
        description = "Just-in-time database access. Every call but login, health, ca and this document needs `Authorization: Bearer <token>`. A POST with an `Idempotency-Key` may be repeated."
    ),
    components(schemas(Problem))
)]
struct Documentation;

/// All routes, and the document that describes them.
pub fn router(app: App) -> (Router, utoipa::openapi::OpenApi) {
    let api = OpenApiRouter::new()
        .routes(routes!(people::login))
        .routes(routes!(people::me))
        .routes(routes!(people::list, people::add))
        .routes(routes!(people::lock))
        .routes(routes!(people::unlock))
        .routes(routes!(people::give_role))
        .routes(routes!(people::take_role))
        .routes(routes!(people::add_token))
        .routes(routes!(people::remove_token))
        .routes(routes!(environments::projects, environments::add_project))
        .routes(routes!(environments::project_policy))
        .routes(routes!(environments::list, environments::add))
        .routes(routes!(environments::show, environments::remove))
        .routes(routes!(environments::test))
        .routes(routes!(environments::recipe))
        .routes(routes!(environments::policy, environments::set_policy))
        .routes(routes!(environments::allowed, environments::allow))
        .routes(routes!(environments::disallow))
        .routes(routes!(environments::movement_begin))
        .routes(routes!(environments::movement_finish))
        .routes(routes!(environments::movement_fail))
        .routes(routes!(passes::request))
        .routes(routes!(passes::list))
        .routes(routes!(passes::show))
        .routes(routes!(passes::reveal))
        .routes(routes!(passes::extend))
        .routes(routes!(passes::end))
        .routes(routes!(passes::approve))
        .routes(routes!(passes::deny))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::kill))
        .routes(routes!(sessions::statements))
        .routes(routes!(log::list))
        .routes(routes!(log::export))
        .routes(routes!(log::explain))
        .routes(routes!(log::doctor))
        .routes(routes!(log::watch))
        .routes(routes!(health))
        .routes(routes!(ca));
    let documented = OpenApiRouter::with_openapi(Documentation::openapi()).nest("/api/v1", api).routes(routes!(compat::jit_access));
    let (router, document) = documented.split_for_parts();
    let text = document.to_json().unwrap_or_default();
    let serve_document = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    let router = router
        .route("/api/v1/openapi.json", get(serve_document))
        .fallback(nowhere)
        .method_not_allowed_fallback(no_such_method)
        .layer(axum::middleware::from_fn(whole))
        .with_state(app);
    (router, document)
}

/// Reads a request to its end before anybody answers it. An early answer (not signed in, no such page) would close the connection
/// under the rest of the body without saying so, and the client's next request on it would be cut.
async fn whole(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let refused = match tokio::time::timeout(HEADERS, to_bytes(body, BODY)).await {
        Ok(Ok(body)) => return next.run(Request::from_parts(head, Body::from(body))).await,
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

/// Is Daypass there?
#[utoipa::path(get, path = "/health", responses((status = 200, description = "It is", body = String)))]
async fn health() -> &'static str {
    "ok"
}

/// The CA that signed the certificate of gateway and API.
#[utoipa::path(get, path = "/ca", responses((status = 200, description = "PEM", body = String, content_type = "application/x-pem-file")))]
async fn ca(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], app.place.ca.clone()).into_response()
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
pub async fn serve(listener: TcpListener, router: Router, certificate: Arc<Certificate>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((tcp, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut config = (*certificate.current().config).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            let _ = tcp.set_nodelay(true);
            let handshake = tokio::time::timeout(HEADERS, TlsAcceptor::from(Arc::new(config)).accept(tcp));
            let Ok(Ok(tls)) = handshake.await else { return };
            serve_connection(tls, router, peer).await;
        });
    }
}

async fn serve_connection(tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, router: Router, peer: SocketAddr) {
    let router = router.layer(axum::Extension(axum::extract::ConnectInfo(peer)));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEADERS);
    let _ = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(router)).await;
}
