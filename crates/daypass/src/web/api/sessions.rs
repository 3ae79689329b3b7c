//! Sessions, live and past, and what was run in them.

use crate::web::{App, Problem, auth::Caller, dto::*, environment, person_name};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use daypass_core::{admission::Told, ids::*, people::Permission, refusal::Refusal, session::StatementRecord};
use daypass_gateway::World;
use daypass_store::{SessionRow, Wanted};
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only of this environment.
    pub environment: Option<String>,
    /// Only those that are open now.
    #[serde(default)]
    pub live: bool,
    /// Only of this person, or of this account.
    pub person: Option<String>,
    /// At most so many, newest first; 1 to 1,000.
    pub limit: Option<u32>,
}

/// The caller's sessions; all for those who see who is in.
#[utoipa::path(get, path = "/sessions", params(Filter), responses((status = 200, body = Vec<SessionView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<SessionView>>, Problem> {
    let Query(filter) = filter.map_err(|e| Problem::from(e.body_text()))?;
    let only = filter.environment.as_deref().map(|name| environment(&app, &caller, name)).transpose()?.map(|env| env.id);
    let limit = filter.limit.unwrap_or(100).clamp(1, 1_000);
    let wanted = app.node.ledger(|ledger| Wanted {
        environment: only,
        live: filter.live,
        reader: caller.user,
        seen: ledger.environments_where(caller.user, Permission::SeeAccess),
        of: filter.person.as_ref().map(|name| (name.parse().ok().and_then(|name| ledger.user_named(&name)).map(|user| user.id), name.clone())),
        limit,
    });
    let rows = app.node.store.records.find(&wanted).await?;
    Ok(Json(rows.into_iter().filter(|row| may_see(&app, &caller, row)).map(|row| view(&app, row)).collect()))
}

/// Ends one session. Its pass stays.
#[utoipa::path(post, path = "/sessions/{id}/kill", params(("id" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn kill(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let not_found = || Problem::from(Refusal::not_found("live session", &id));
    let session = id.parse::<SessionId>().ok().and_then(|id| app.node.sessions.get(id)).ok_or_else(not_found)?;
    let own = app.node.ledger(|ledger| ledger.pass(session.pass).is_some_and(|pass| pass.holder == caller.user));
    if !own && !caller.may(&app, Permission::EndAnyAccess, Some(session.environment)) {
        return Err(not_found());
    }
    let by = if own { "its holder".to_owned() } else { caller.name.to_string() };
    session.cut(Told::and_connect_again(format!("this session was ended by {by}")));
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Without the first so many: how many there are already.
    #[serde(default)]
    pub after: u64,
    /// At most so many, 1 to 5,000; when left out, 1,000. There may be fewer, when they are long: an empty answer is the end.
    pub limit: Option<u32>,
}

/// Characters of statements in one answer; more come with the next.
const PAGE: usize = 8 << 20;

/// What was run in a session, in order. For its holder, and for those who read the log.
#[utoipa::path(get, path = "/sessions/{id}/statements", params(("id" = String, Path), Page), responses((status = 200, body = Vec<StatementView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn statements(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<StatementView>>, Problem> {
    let Query(page) = page.map_err(|e| Problem::from(e.body_text()))?;
    let session = readable(&app, &caller, &id).await?;
    let most = page.limit.unwrap_or(1_000).clamp(1, 5_000) as usize;
    let (mut found, mut size) = (Vec::new(), 0);
    each(&app, session, page.after, |statement| {
        size += statement.text.len() + statement.values.iter().map(String::len).sum::<usize>();
        found.push(statement);
        found.len() < most && size < PAGE
    })
    .await?;
    Ok(Json(found))
}

/// The session of this id, if the caller may read what was run in it.
pub async fn readable(app: &App, caller: &Caller, id: &str) -> Result<SessionId, Problem> {
    let row = find(app, caller, id).await?;
    if row.opened.holder != caller.user && !caller.may(app, Permission::ReadLog, Some(row.opened.environment)) {
        return Err(Refusal::not_found("session", id).into());
    }
    Ok(row.opened.session)
}

/// Looks at the statements of a session from a number on, as long as `more` wants another one. Not many are in memory at once.
pub async fn each(app: &App, session: SessionId, from: u64, mut more: impl FnMut(StatementView) -> bool) -> Result<(), Problem> {
    let mut next = from;
    loop {
        let blocks = app.node.store.records.blocks(session, next).await?;
        if blocks.is_empty() {
            return Ok(());
        }
        for block in blocks {
            let lines = block.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            for (number, line) in (block.first..).zip(lines) {
                if number < next {
                    continue;
                }
                let record: StatementRecord = serde_json::from_slice(line).map_err(|_| Problem::unavailable("A statement record cannot be read."))?;
                let StatementRecord { at, micros, text, values, rows, bytes, error, .. } = record;
                if !more(StatementView { at: at.to_string(), micros, text: text.to_string(), values, rows, bytes, error }) {
                    return Ok(());
                }
            }
            next = next.max(block.first + u64::from(block.count));
        }
    }
}

/// The session of this id, if the caller may see it.
pub async fn find(app: &App, caller: &Caller, id: &str) -> Result<SessionRow, Problem> {
    let not_found = || Problem::from(Refusal::not_found("session", id));
    let row = app.node.store.records.session(id.parse().map_err(|_| not_found())?).await?.ok_or_else(not_found)?;
    if may_see(app, caller, &row) { Ok(row) } else { Err(not_found()) }
}

fn may_see(app: &App, caller: &Caller, row: &SessionRow) -> bool {
    row.opened.holder == caller.user || caller.may(app, Permission::SeeAccess, Some(row.opened.environment))
}

pub fn view(app: &App, row: SessionRow) -> SessionView {
    let SessionRow { opened, closed } = row;
    app.node.ledger(|ledger| SessionView {
        id: opened.session.to_string(),
        account: opened.account.to_string(),
        person: person_name(ledger, opened.holder),
        environment: ledger.environment(opened.environment).map(|env| env.spec.name.to_string()).unwrap_or_default(),
        address: opened.address.to_string(),
        application: opened.application.clone(),
        opened_at: opened.at.to_string(),
        closed_at: closed.as_ref().map(|c| c.at.to_string()),
        why: closed.as_ref().map(|c| c.why.clone()),
        statements: closed.as_ref().map(|c| c.statements),
        bytes_to_client: closed.as_ref().map(|c| c.bytes_to_client),
    })
}
