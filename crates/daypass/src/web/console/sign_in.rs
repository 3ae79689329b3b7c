//! Signing in and out, and the one-time link with which everything begins.

use super::{
    form::Fields,
    visit::{Shell, Shown, Visit, begun, brought, local, page as show, sign_in as open, signed_out},
};
use crate::web::{App, Problem, auth, sign_in as proof};
use askama::Template;
use axum::{
    extract::{Path, Query, State},
    http::{Extensions, HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use axum_extra::extract::cookie::CookieJar;
use daypass_core::command::Command;
use daypass_gateway::World;
use std::collections::HashMap;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    shell: Shell,
    /// Where to go afterwards.
    to: String,
    name: String,
    /// The password was right, and a code is asked for.
    code: bool,
    problem: Option<Problem>,
    /// The one-time link: the first administrator is made here.
    first: Option<String>,
    /// What stands on the button of the provider.
    provider: Option<String>,
    /// Where one signs out of the provider as well, after signing out here.
    sign_out: Option<String>,
}

impl SignInPage {
    fn new(app: &App) -> SignInPage {
        let provider = app.provider.as_ref().map(|provider| provider.label().to_owned());
        let to = "/environments".to_owned();
        SignInPage { shell: Shell::nobody(), to, name: String::new(), code: false, problem: None, first: None, provider, sign_out: None }
    }
}

pub async fn page(State(app): State<App>, Query(query): Query<HashMap<String, String>>) -> Response {
    let to = local(query.get("to").map_or("/environments", String::as_str)).to_owned();
    show(&SignInPage { to, ..SignInPage::new(&app) })
}

/// Off to the provider.
pub async fn with_provider(State(app): State<App>, extensions: Extensions, Query(query): Query<HashMap<String, String>>) -> Response {
    let to = local(query.get("to").map_or("/environments", String::as_str));
    let Some(provider) = &app.provider else { return Redirect::to("/sign-in").into_response() };
    if let Err(problem) = app.sign_ins.attempt(auth::address(&extensions)) {
        return refused(SignInPage { to: to.to_owned(), ..SignInPage::new(&app) }, problem);
    }
    match provider.begin(to, app.recent, query.contains_key("again")).await {
        Ok((address, state)) => (begun(state), Redirect::to(&address)).into_response(),
        Err(problem) => refused(SignInPage { to: to.to_owned(), ..SignInPage::new(&app) }, problem),
    }
}

/// And back.
pub async fn back(State(app): State<App>, jar: CookieJar, headers: HeaderMap, Query(query): Query<HashMap<String, String>>) -> Response {
    let Some(provider) = &app.provider else { return Redirect::to("/sign-in").into_response() };
    let opened = match provider.finish(&app, &query, brought(&jar).as_deref()).await {
        Ok(back) => open(&app, back.user, &headers, &back.to, back.proved).await,
        Err(problem) => Err(problem),
    };
    opened.unwrap_or_else(|problem| refused(SignInPage::new(&app), problem))
}

fn refused(page: SignInPage, problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::FORBIDDEN);
    (status, show(&SignInPage { problem: Some(problem), ..page })).into_response()
}

pub async fn sign_in(State(app): State<App>, extensions: Extensions, headers: HeaderMap, fields: Fields) -> Response {
    let (name, to) = (fields.text("name"), local(&fields.text("to")).to_owned());
    let shown = proof::Proof { name: &name, password: fields.text("password"), code: fields.get("code"), address: auth::address(&extensions) };
    let opened = match proof::by_password(&app, shown).await {
        Ok(user) => open(&app, user, &headers, &to, true).await,
        Err(problem) => Err(problem),
    };
    opened.unwrap_or_else(|problem| refused(SignInPage { to, name, code: problem.code == "second_factor", ..SignInPage::new(&app) }, problem))
}

pub async fn sign_out(visit: Visit) -> Shown {
    visit.app.control.run(Command::RemoveToken { token: visit.caller.token }, visit.caller.actor()).await?;
    let sign_out = match &visit.app.provider {
        Some(provider) => provider.sign_out().await,
        None => None,
    };
    Ok((signed_out(), show(&SignInPage { sign_out, ..SignInPage::new(&visit.app) })).into_response())
}

pub async fn first_page(State(app): State<App>, Path(code): Path<String>) -> Response {
    if app.node.ledger(|ledger| ledger.users().next().is_some()) {
        return Redirect::to("/sign-in").into_response();
    }
    show(&SignInPage { name: "admin".to_owned(), first: Some(code), provider: None, ..SignInPage::new(&app) })
}

pub async fn first(State(app): State<App>, Path(code): Path<String>, extensions: Extensions, headers: HeaderMap, fields: Fields) -> Response {
    let name = fields.text("name");
    let made = match proof::first(&app, &code, &name, fields.text("password"), auth::address(&extensions)).await {
        Ok(user) => open(&app, user, &headers, "/administration", true).await,
        Err(problem) => Err(problem),
    };
    made.unwrap_or_else(|problem| refused(SignInPage { name, first: Some(code), provider: None, ..SignInPage::new(&app) }, problem))
}
