//! The API: each route with what it needs, and the document that describes them, registered in one call so that they cannot drift apart.

mod compat;
pub mod doctor;
pub mod drift;
pub mod environments;
pub mod lcs;
pub mod log;
pub mod managed;
pub mod movements;
pub mod passes;
pub mod people;
pub mod sessions;

use super::{
    App, Problem, device,
    guard::{
        Need::{Nothing, SignedIn, Somewhere},
        Routes,
    },
};
use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use daypass_core::people::Permission::*;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Daypass",
        description = "Just-in-time database access. Calls need `Authorization: Bearer <token>` and the permission in `x-needs`, on the environment that they are about. A POST that makes a pass, an entry, an environment, a person or a movement may be repeated with the same `Idempotency-Key` (1 to 128 visible ASCII characters), and makes it once; what lengthens a pass or makes a token is done each time."
    ),
    components(schemas(Problem))
)]
struct Documentation;

/// All routes of the API, and the document that describes them.
pub fn router(app: &App) -> (Router<App>, utoipa::openapi::OpenApi) {
    let api = Routes::new(app, OpenApiRouter::new())
        .add(Nothing, routes!(people::login))
        .add(Nothing, routes!(people::first))
        .add(Nothing, routes!(device::begin))
        .add(Nothing, routes!(device::token))
        .add(Nothing, routes!(health))
        .add(Nothing, routes!(ca))
        .add(SignedIn, routes!(people::me))
        .add(SignedIn, routes!(people::tokens, people::add_token))
        .add(SignedIn, routes!(people::remove_token))
        .add(SignedIn, routes!(people::change_password))
        .add(SignedIn, routes!(people::set_own_mail))
        .add(SignedIn, routes!(people::second_factor_key))
        .add(SignedIn, routes!(people::set_second_factor))
        .add(SignedIn, routes!(people::remove_own_second_factor))
        .add(Somewhere(ManagePeople), routes!(people::list, people::add))
        .add(Somewhere(ManagePeople), routes!(people::lock))
        .add(Somewhere(ManagePeople), routes!(people::unlock))
        .add(Somewhere(ManagePeople), routes!(people::set_password))
        .add(Somewhere(ManagePeople), routes!(people::set_mail))
        .add(Somewhere(ManagePeople), routes!(people::tokens_of_person))
        .add(Somewhere(ManagePeople), routes!(people::remove_second_factor))
        .add(Somewhere(ManagePeople), routes!(people::give_role))
        .add(Somewhere(ManagePeople), routes!(people::take_role))
        .add(SignedIn, routes!(environments::projects))
        .add(Somewhere(ManageEnvironments), routes!(environments::add_project))
        .add(Somewhere(ManageEnvironments), routes!(environments::project_policy))
        .add(Somewhere(ManageEnvironments), routes!(environments::export))
        .add(SignedIn, routes!(environments::list))
        .add(Somewhere(ManageEnvironments), routes!(environments::add))
        .add(Somewhere(SeeEnvironment), routes!(environments::show))
        .add(Somewhere(ManageEnvironments), routes!(environments::set_target))
        .add(Somewhere(ManageEnvironments), routes!(environments::set_accounts))
        .add(Somewhere(SeeEnvironment), routes!(environments::masks))
        .add(Somewhere(ManageEnvironments), routes!(environments::set_masks))
        .add(Somewhere(ManageEnvironments), routes!(environments::remove))
        .add(Somewhere(ManageEnvironments), routes!(environments::test))
        .add(Somewhere(ManageEnvironments), routes!(environments::expect_failover))
        .add(Somewhere(SeeEnvironment), routes!(environments::recipe))
        .add(Somewhere(SeeEnvironment), routes!(environments::policy))
        .add(Somewhere(ManageEnvironments), routes!(environments::set_policy))
        .add(Somewhere(SeeEnvironment), routes!(environments::allowed))
        .add(Somewhere(SeeEnvironment), routes!(environments::allow))
        .add(Somewhere(SeeEnvironment), routes!(environments::disallow))
        .add(Somewhere(ManageEnvironments), routes!(managed::set_kind))
        .add(Somewhere(ManageEnvironments), routes!(managed::remote_desktop))
        .add(Somewhere(SeeEnvironment), routes!(managed::list, managed::add))
        .add(Somewhere(ManageEnvironments), routes!(managed::remove))
        .add(Somewhere(Reveal), routes!(managed::reveal))
        .add(Somewhere(Reveal), routes!(managed::rotate))
        .add(Somewhere(SeeEnvironment), routes!(managed::machines, managed::add_machine))
        .add(Somewhere(ManageEnvironments), routes!(managed::remove_machine))
        .add(Somewhere(Reveal), routes!(managed::reveal_machine))
        .add(Somewhere(Move), routes!(movements::list, movements::begin))
        .add(Somewhere(Move), routes!(movements::preview))
        .add(Somewhere(SeeAccess), routes!(movements::report))
        .add(Somewhere(Move), routes!(movements::cancel))
        .add(Somewhere(Move), routes!(movements::retry))
        .add(Somewhere(Move), routes!(movements::finish))
        .add(Somewhere(Move), routes!(movements::fail))
        .add(Somewhere(Move), routes!(movements::files))
        .add(Somewhere(Move), routes!(movements::file))
        .add(Somewhere(Request), routes!(passes::request))
        .add(SignedIn, routes!(passes::list))
        .add(SignedIn, routes!(passes::show))
        .add(SignedIn, routes!(passes::reveal))
        .add(SignedIn, routes!(passes::extend))
        .add(SignedIn, routes!(passes::end))
        .add(Somewhere(Approve), routes!(passes::approve))
        .add(Somewhere(Approve), routes!(passes::deny))
        .add(Somewhere(Approve), routes!(passes::review))
        .add(SignedIn, routes!(sessions::list))
        .add(SignedIn, routes!(sessions::kill))
        .add(SignedIn, routes!(sessions::statements))
        .add(Somewhere(ReadLog), routes!(log::list))
        .add(Somewhere(ReadLog), routes!(log::find))
        .add(Somewhere(SeeAccess), routes!(log::report))
        .add(Somewhere(SeeAccess), routes!(log::try_now))
        .add(Somewhere(SeeAccess), routes!(drift::list, drift::judge))
        .add(Somewhere(ManageEnvironments), routes!(environments::preview))
        .add(Somewhere(ReadLog), routes!(log::export))
        .add(SignedIn, routes!(log::explain))
        .add(Somewhere(SeeAccess), routes!(doctor::doctor))
        .add(SignedIn, routes!(log::watch))
        .done();
    let documented = OpenApiRouter::with_openapi(Documentation::openapi()).nest("/api/v1", api);
    let documented = Routes::new(app, documented)
        .add_in(Somewhere(Request), routes!(compat::jit_access), |problem| compat::Failed::from(problem).into_response())
        .add_in(Somewhere(Move), routes!(lcs::refresh), lcs::refuse)
        .add_in(Somewhere(Move), routes!(lcs::export), lcs::refuse)
        .add_in(Somewhere(Move), routes!(lcs::databases), lcs::refuse)
        .add_in(Somewhere(Move), routes!(lcs::status), lcs::refuse)
        .add_in(Somewhere(SeeEnvironment), routes!(lcs::detail), lcs::refuse)
        .add_in(Somewhere(Move), routes!(lcs::history), lcs::refuse)
        .done();
    let (router, document) = documented.split_for_parts();
    let text = document.to_json().unwrap_or_default();
    let serve_document = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    (router.route("/api/v1/openapi.json", get(serve_document)), document)
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
