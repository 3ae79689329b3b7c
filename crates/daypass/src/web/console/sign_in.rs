//! Signing in and out, and the one-time link with which everything begins.

use super::{
    form::Fields,
    visit::{Shell, Shown, Visit, local, page as show, sign_in as open, signed_out},
};
use crate::web::{App, Problem, auth, sign_in as proof};
use askama::Template;
use axum::{
    extract::{Path, Query, State},
    http::{Extensions, HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
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
}

pub async fn page(Query(query): Query<HashMap<String, String>>) -> Response {
    let to = local(query.get("to").map_or("/environments", String::as_str)).to_owned();
    show(&SignInPage { shell: Shell::nobody(), to, name: String::new(), code: false, problem: None, first: None })
}

pub async fn sign_in(State(app): State<App>, extensions: Extensions, headers: HeaderMap, fields: Fields) -> Response {
    let (name, to) = (fields.text("name"), local(&fields.text("to")).to_owned());
    let shown = proof::Proof { name: &name, password: fields.text("password"), code: fields.get("code"), address: auth::address(&extensions) };
    let opened = match proof::prove(&app, shown).await {
        Ok(user) => open(&app, user, &headers, &to).await,
        Err(problem) => Err(problem),
    };
    opened.unwrap_or_else(|problem| {
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::UNAUTHORIZED);
        let code = problem.code == "second_factor";
        (status, show(&SignInPage { shell: Shell::nobody(), to, name, code, problem: Some(problem), first: None })).into_response()
    })
}

pub async fn sign_out(visit: Visit) -> Shown {
    visit.app.control.run(Command::RemoveToken { token: visit.caller.token }, visit.caller.actor()).await?;
    Ok((signed_out(), Redirect::to("/sign-in")).into_response())
}

pub async fn first_page(State(app): State<App>, Path(code): Path<String>) -> Response {
    if app.node.ledger(|ledger| ledger.users().next().is_some()) {
        return Redirect::to("/sign-in").into_response();
    }
    show(&SignInPage { shell: Shell::nobody(), to: String::new(), name: "admin".to_owned(), code: false, problem: None, first: Some(code) })
}

pub async fn first(State(app): State<App>, Path(code): Path<String>, extensions: Extensions, headers: HeaderMap, fields: Fields) -> Response {
    let name = fields.text("name");
    let made = match proof::first(&app, &code, &name, fields.text("password"), auth::address(&extensions)).await {
        Ok(user) => open(&app, user, &headers, "/administration").await,
        Err(problem) => Err(problem),
    };
    made.unwrap_or_else(|problem| {
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::FORBIDDEN);
        let refused = SignInPage { shell: Shell::nobody(), to: String::new(), name, code: false, problem: Some(problem), first: Some(code) };
        (status, show(&refused)).into_response()
    })
}
