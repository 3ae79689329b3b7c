//! The console: pages written on the server, which work without script; with it, they renew themselves when something changes.
//!
//! It has no rules of its own. A page shows what the API answers and a form calls what the API calls, in this process.

mod account;
mod administration;
mod assets;
mod environment;
mod environments;
mod form;
mod log;
mod managed;
mod movements;
mod passes;
mod people;
mod policy;
mod report;
mod requests;
mod sessions;
mod sign_in;
mod time;
mod visit;

use super::{App, guard::Need};
use axum::{
    Router,
    http::{HeaderValue, header},
    response::Response,
    routing::{MethodRouter, get, post},
};
use daypass_core::people::Permission::*;
use tower_http::csrf::CsrfLayer;

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// The pages, each with what it needs.
struct Pages {
    app: App,
    router: Router<App>,
    needs: Vec<(&'static str, Need)>,
}

impl Pages {
    fn add(mut self, need: Need, path: &'static str, methods: MethodRouter<App>) -> Pages {
        let guarded = methods.route_layer(axum::middleware::from_fn_with_state((self.app.clone(), need), visit::guard));
        self.needs.push((path, need));
        Pages { router: self.router.route(path, guarded), ..self }
    }
}

fn pages(app: &App) -> Pages {
    use Need::{Nothing, SignedIn, Somewhere};
    Pages { app: app.clone(), router: Router::new(), needs: Vec::new() }
        .add(Nothing, "/", get(environments::home))
        .add(Nothing, "/assets/{name}", get(assets::serve))
        .add(Nothing, "/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .add(Nothing, "/sign-in/with", get(sign_in::with_provider))
        .add(Nothing, "/sign-in/back", get(sign_in::back))
        .add(Nothing, "/first/{code}", get(sign_in::first_page).post(sign_in::first))
        .add(SignedIn, "/sign-out", post(sign_in::sign_out))
        .add(SignedIn, "/live", get(visit::live))
        .add(SignedIn, "/environments", get(environments::list))
        .add(Somewhere(ManageEnvironments), "/environments/add", get(environments::add_page).post(environments::add))
        .add(Somewhere(SeeEnvironment), "/environments/{environment}", get(environment::page))
        .add(Somewhere(SeeEnvironment), "/environments/{environment}/enable", get(environment::enable_page).post(environment::enable))
        .add(Somewhere(Request), "/environments/{environment}/request", get(environment::request_page).post(environment::request))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/standing/add", get(managed::add_page).post(managed::add))
        .add(Somewhere(Reveal), "/environments/{environment}/standing/{id}/reveal", get(managed::reveal_page).post(managed::reveal))
        .add(Somewhere(Reveal), "/environments/{environment}/standing/{id}/rotate", post(managed::rotate))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/standing/{id}/remove", post(managed::remove))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/remote-desktop", post(managed::remote_desktop))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/machines/add", get(managed::machine_page).post(managed::add_machine))
        .add(Somewhere(Reveal), "/environments/{environment}/machines/{id}/reveal", get(managed::reveal_machine_page).post(managed::reveal_machine))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/machines/{id}/remove", post(managed::remove_machine))
        .add(Somewhere(Move), "/environments/{environment}/move", get(movements::page).post(movements::begin))
        .add(Somewhere(Move), "/environments/{environment}/move/begin", get(movements::begin_page))
        .add(Somewhere(Move), "/environments/{environment}/move/finish", post(movements::finish))
        .add(Somewhere(Move), "/environments/{environment}/move/fail", post(movements::fail))
        .add(Somewhere(Move), "/environments/{environment}/move/cancel", post(movements::cancel))
        .add(Somewhere(Move), "/environments/{environment}/move/retry", post(movements::retry))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/test", post(environments::test))
        .add(Somewhere(SeeEnvironment), "/environments/{environment}/recipe", get(environments::recipe))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/set", get(environments::set_page).post(environments::set))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/masks", get(environments::masks_page).post(environments::set_masks))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/remove", get(environments::remove_page).post(environments::remove))
        .add(Somewhere(SeeEnvironment), "/environments/{environment}/policy", get(policy::page))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/policy/set", get(policy::set_page).post(policy::set))
        .add(Somewhere(ManageEnvironments), "/environments/{environment}/policy/preview", get(policy::preview_page).post(policy::preview))
        .add(Somewhere(SeeEnvironment), "/allow/{id}/remove", post(environment::disallow))
        .add(SignedIn, "/passes/{pass}/show", post(passes::show))
        .add(SignedIn, "/passes/{pass}/extend", get(passes::extend_page).post(passes::extend))
        .add(SignedIn, "/passes/{pass}/end", get(passes::end_page).post(passes::end))
        .add(SignedIn, "/requests", get(requests::list))
        .add(SignedIn, "/requests/{pass}", get(requests::page))
        .add(Somewhere(Approve), "/requests/{pass}/approve", post(requests::approve))
        .add(Somewhere(Approve), "/requests/{pass}/deny", post(requests::deny))
        .add(Somewhere(Approve), "/requests/{pass}/review", post(requests::review))
        .add(SignedIn, "/sessions", get(sessions::list))
        .add(SignedIn, "/sessions/{id}", get(sessions::story))
        .add(SignedIn, "/sessions/{id}/kill", post(sessions::kill))
        .add(SignedIn, "/sessions/{id}/statements.jsonl", get(sessions::download))
        .add(Somewhere(ReadLog), "/log", get(log::page))
        .add(Somewhere(ReadLog), "/log/verify", post(log::verify))
        .add(Somewhere(ReadLog), "/log/export.jsonl", get(log::export_lines))
        .add(Somewhere(ReadLog), "/log/export.csv", get(log::export_table))
        .add(Somewhere(SeeAccess), "/report", get(report::page))
        .add(Somewhere(SeeAccess), "/report.csv", get(report::export_table))
        .add(Somewhere(SeeAccess), "/administration", get(administration::page))
        .add(Somewhere(SeeAccess), "/administration/try", post(administration::try_now))
        .add(Somewhere(ManageEnvironments), "/administration/drift", post(administration::judge))
        .add(Somewhere(ManageEnvironments), "/projects/{project}/policy", get(policy::project_page).post(policy::set_project))
        .add(Somewhere(ManageEnvironments), "/projects/add", get(administration::add_project_page).post(administration::add_project))
        .add(Somewhere(ManagePeople), "/people", get(people::list))
        .add(Somewhere(ManagePeople), "/people/add", get(people::add_page).post(people::add))
        .add(Somewhere(ManagePeople), "/people/{name}", get(people::page))
        .add(Somewhere(ManagePeople), "/people/{name}/lock", get(people::lock_page).post(people::lock))
        .add(Somewhere(ManagePeople), "/people/{name}/unlock", post(people::unlock))
        .add(Somewhere(ManagePeople), "/people/{name}/password", get(people::password_page).post(people::password))
        .add(Somewhere(ManagePeople), "/people/{name}/second-factor/remove", post(people::remove_second_factor))
        .add(Somewhere(ManagePeople), "/people/{name}/tokens/{token}/remove", post(people::remove_token))
        .add(Somewhere(ManagePeople), "/people/{name}/roles", get(people::role_page).post(people::give_role))
        .add(Somewhere(ManagePeople), "/people/{name}/roles/take", post(people::take_role))
        .add(SignedIn, "/device", get(account::device_page).post(account::device))
        .add(SignedIn, "/account", get(account::page))
        .add(SignedIn, "/account/tokens", get(account::token_page).post(account::add_token))
        .add(SignedIn, "/account/tokens/{id}/remove", post(account::remove_token))
        .add(SignedIn, "/account/mail", get(account::mail_page).post(account::mail))
        .add(SignedIn, "/account/password", get(account::password_page).post(account::password))
        .add(SignedIn, "/account/second-factor", get(account::second_factor_page).post(account::second_factor))
        .add(SignedIn, "/account/second-factor/remove", get(account::remove_second_factor_page).post(account::remove_second_factor))
}

/// All pages of the console.
pub fn router(app: &App) -> Router<App> {
    // a page of another site can make a browser send what it likes; it cannot make it say that the request is our own
    // a browser keeps it for the host, whatever the port: on a machine of one's own it would reach other servers there
    let strict = !app.url.contains("://localhost") && !app.url.contains("://127.");
    pages(app).router.layer(CsrfLayer::new()).layer(axum::middleware::map_response(move |response| headers(response, strict)))
}

/// What each page needs, for the test that walks them all.
#[cfg(test)]
pub fn needs(app: &App) -> Vec<(&'static str, Need)> {
    pages(app).needs
}

#[cfg(test)]
pub fn local_way(to: &str) -> &str {
    visit::local(to)
}

async fn headers(mut response: Response, strict: bool) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [(header::CONTENT_SECURITY_POLICY, POLICY), (header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::REFERRER_POLICY, "no-referrer")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if strict {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
