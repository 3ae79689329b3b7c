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

/// Sessions on a page.
const LISTED: u32 = 200;
/// Statements on a page; the download has all.
const STATEMENTS: usize = 500;

#[derive(Template)]
#[template(path = "sessions.html")]
struct ListPage {
    shell: Shell,
    sessions: Vec<SessionView>,
    /// There are more than the page lists.
    more: bool,
    environments: Vec<String>,
    environment: String,
    person: String,
    live: bool,
}

pub async fn list(visit: Visit, Query(query): Query<HashMap<String, String>>) -> Shown {
    let text = |name: &str| query.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
    let (environment, person, live) = (text("environment"), text("person"), query.contains_key("live"));
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let filter = api::sessions::Filter { environment: given(&environment), live, person: given(&person), limit: Some(LISTED + 1) };
    let Json(mut sessions) = api::sessions::list(State(visit.app.clone()), visit.caller.clone(), Ok(Query(filter))).await?;
    let environments = api::environments::names(&visit.app, &visit.caller);
    let more = sessions.len() > LISTED as usize;
    sessions.truncate(LISTED as usize);
    Ok(show(&ListPage { shell: visit.shell(), sessions, more, environments, environment, person, live }))
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

/// Bytes of a download that are made at once.
const PART: usize = 1 << 20;
/// Characters of one statement that the page shows; the download has all of it.
const SHOWN: usize = 4_000;

/// Says how much it leaves out.
fn shorten(text: &mut String) {
    let whole = text.chars().count();
    if whole > SHOWN {
        let end = text.char_indices().nth(SHOWN).map_or(text.len(), |(at, _)| at);
        text.truncate(end);
        text.push_str(&format!(" … ({} more characters)", whole - SHOWN));
    }
}

/// Why a session was allowed, what it did, why it ended.
pub async fn story(visit: Visit, Path(id): Path<String>, Query(query): Query<HashMap<String, String>>) -> Shown {
    let row = api::sessions::find(&visit.app, &visit.caller, &id).await?;
    let (pass_id, row_environment) = (row.opened.pass.to_string(), row.opened.environment);
    let session = api::sessions::view(&visit.app, row);
    let at_once = Ok(Query(api::passes::Wait { wait: 0 }));
    let Json(pass) = api::passes::show(State(visit.app.clone()), visit.caller.clone(), Path(pass_id), at_once).await?;
    let search = query.get("search").map(|text| text.trim().to_owned()).unwrap_or_default();
    let needle = search.to_lowercase();
    let fits = |statement: &StatementView| {
        needle.is_empty()
            || statement.text.to_lowercase().contains(&needle)
            || statement.error.as_ref().is_some_and(|error| error.to_lowercase().contains(&needle))
    };
    let (mut found, mut total) = (Vec::new(), 0);
    let may_read = match api::sessions::readable(&visit.app, &visit.caller, &id).await {
        Err(_) => false,
        Ok(readable) => {
            let look = |mut statement: StatementView| {
                if fits(&statement) {
                    total += 1;
                    if found.len() < STATEMENTS {
                        shorten(&mut statement.text);
                        found.push(statement);
                    }
                }
                true
            };
            api::sessions::each(&visit.app, readable, 0, look).await?;
            true
        }
    };
    let statements = may_read.then_some(found);
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
    let session = api::sessions::readable(&visit.app, &visit.caller, &id).await?;
    // a part at a time: a session may have gigabytes
    let parts = futures_util::stream::try_unfold(0_u64, move |from| {
        let app = visit.app.clone();
        async move {
            let (mut part, mut next) = (Vec::new(), from);
            let look = |statement: StatementView| {
                let _ = serde_json::to_writer(&mut part, &statement);
                part.push(b'\n');
                next += 1;
                part.len() < PART
            };
            api::sessions::each(&app, session, from, look).await.map_err(|problem| std::io::Error::other(problem.title))?;
            Ok::<_, std::io::Error>((next > from).then_some((axum::body::Bytes::from(part), next)))
        }
    });
    let lines = axum::body::Body::from_stream(parts);
    let name = format!("attachment; filename=\"statements-{known}.jsonl\"");
    Ok(([(header::CONTENT_TYPE, "application/jsonl".to_owned()), (header::CONTENT_DISPOSITION, name)], lines).into_response())
}
