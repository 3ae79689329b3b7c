//! Sessions: who is in, who was, and the story of one on one page.

use super::visit::{Shell, Shown, Visit, page as show};
use crate::web::{
    api,
    dto::{PassView, SessionView, StatementView},
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use daypass_core::{people::Permission, refusal::Refusal};
use std::collections::HashMap;

/// Statements on a page; the download has all.
const STATEMENTS: usize = 500;

#[derive(Template)]
#[template(path = "sessions.html")]
struct ListPage {
    shell: Shell,
    sessions: Vec<SessionView>,
    environments: Vec<String>,
    environment: String,
    person: String,
    live: bool,
}

pub async fn list(visit: Visit, Query(query): Query<HashMap<String, String>>) -> Shown {
    let text = |name: &str| query.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
    let (environment, person, live) = (text("environment"), text("person"), query.contains_key("live"));
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let filter = api::sessions::Filter { environment: given(&environment), live, person: given(&person), limit: Some(200) };
    let Json(sessions) = api::sessions::list(State(visit.app.clone()), visit.caller.clone(), Ok(Query(filter))).await?;
    let environments = api::environments::names(&visit.app, &visit.caller);
    Ok(show(&ListPage { shell: visit.shell(), sessions, environments, environment, person, live }))
}

#[derive(Template)]
#[template(path = "session.html")]
struct StoryPage {
    shell: Shell,
    session: SessionView,
    pass: PassView,
    /// None where the reader may not read statements.
    statements: Option<Vec<StatementView>>,
    /// How many there are, of which some are shown.
    total: usize,
    search: String,
    may_end: bool,
}

/// Why a session was allowed, what it did, why it ended.
pub async fn story(visit: Visit, Path(id): Path<String>, Query(query): Query<HashMap<String, String>>) -> Shown {
    let row = api::sessions::find(&visit.app, &visit.caller, &id).await?;
    let (pass_id, row_environment) = (row.opened.pass.to_string(), row.opened.environment);
    let session = api::sessions::view(&visit.app, row);
    let at_once = Ok(Query(api::passes::Wait { wait: 0 }));
    let Json(pass) = api::passes::show(State(visit.app.clone()), visit.caller.clone(), Path(pass_id), at_once).await?;
    let search = query.get("search").map(|text| text.trim().to_owned()).unwrap_or_default();
    let statements = api::sessions::statements(State(visit.app.clone()), visit.caller.clone(), Path(id)).await.ok().map(|Json(all)| all);
    let fits = |statement: &StatementView| {
        let needle = search.to_lowercase();
        needle.is_empty()
            || statement.text.to_lowercase().contains(&needle)
            || statement.error.as_ref().is_some_and(|error| error.to_lowercase().contains(&needle))
    };
    let found: Option<Vec<StatementView>> = statements.map(|all| all.into_iter().filter(fits).collect());
    let total = found.as_ref().map_or(0, Vec::len);
    let statements = found.map(|mut found| {
        found.truncate(STATEMENTS);
        found
    });
    let may_end = session.person == visit.caller.name.to_string() || visit.caller.may(&visit.app, Permission::EndAnyAccess, Some(row_environment));
    Ok(show(&StoryPage { shell: visit.shell(), session, pass, statements, total, search, may_end }))
}

pub async fn kill(visit: Visit, Path(id): Path<String>) -> Shown {
    api::sessions::kill(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    Ok(visit.done("/sessions", "killed"))
}

/// All statements, a line each.
pub async fn download(visit: Visit, Path(id): Path<String>) -> Result<Response, super::visit::Fault> {
    let known: daypass_core::ids::SessionId = id.parse().map_err(|_| Refusal::not_found("session", &id))?;
    let Json(statements) = api::sessions::statements(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    let lines: String = statements.iter().map(|statement| serde_json::to_string(statement).unwrap_or_default() + "\n").collect();
    let name = format!("attachment; filename=\"statements-{known}.jsonl\"");
    Ok(([(header::CONTENT_TYPE, "application/jsonl".to_owned()), (header::CONTENT_DISPOSITION, name)], lines).into_response())
}
