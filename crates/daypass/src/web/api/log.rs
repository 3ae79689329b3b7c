//! The log, explanations, and the state of things.

use crate::web::{App, Problem, auth::Caller, dto::*, problem::Body};
use axum::{
    Json,
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response, Sse, sse::Event},
};
use daypass_core::{
    chain,
    explain::{Reader, explain as explain_text},
    ids::EnvironmentId,
    people::Permission,
};
use daypass_gateway::World;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use utoipa::IntoParams;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// After this number; 0 for the beginning.
    #[serde(default)]
    pub after: u64,
    /// At most so many lines, 1 to 5,000.
    pub limit: Option<u32>,
}

/// Lines of the log as they stand: each one carries its hash and the one before.
#[utoipa::path(get, path = "/log", params(Page), responses((status = 200, body = Vec<serde_json::Value>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(app): State<App>, caller: Caller, page: Result<Query<Page>, axum::extract::rejection::QueryRejection>) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|e| Problem::from(e.body_text()))?;
    caller.need(&app, Permission::ReadLog)?;
    let after = page.after.min(i64::MAX as u64);
    let lines = app.node.store.log.read(after, page.limit.unwrap_or(100).clamp(1, 5_000)).await?;
    // the lines go out as they are: encoding them anew could change a byte, and with it a hash
    Ok(([(header::CONTENT_TYPE, "application/json")], format!("[{}]", lines.join(",\n"))).into_response())
}

/// The whole log, one line an event, with its closing line: what `daypass log verify` takes.
#[utoipa::path(get, path = "/log/export", responses((status = 200, description = "JSON lines", body = String, content_type = "application/jsonl"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn export(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.need(&app, Permission::ReadLog)?;
    let mut head = chain::Head::EMPTY;
    let mut text = String::new();
    loop {
        let lines = app.node.store.log.read(head.seq, 5_000).await?;
        if lines.is_empty() {
            break;
        }
        for line in lines {
            head = chain::open(&line, &head).map_err(|why| Problem::unavailable(format!("The log is damaged: {why}")))?.1;
            text.push_str(&line);
            text.push('\n');
        }
    }
    text.push_str(&head.line());
    text.push('\n');
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], text).into_response())
}

/// What an error text means, and what to do.
#[utoipa::path(post, path = "/explain", request_body = ExplainRequest, responses((status = 200, body = ExplainView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn explain(State(app): State<App>, caller: Caller, Body(request): Body<ExplainRequest>) -> Json<ExplainView> {
    let now = app.node.now();
    let found = app.node.ledger(|ledger| explain_text(&request.text, Some(Reader { ledger, user: caller.user }), now));
    Json(ExplainView { cause: found.cause, remedy: found.remedy })
}

/// The state of things, for whoever runs Daypass.
#[utoipa::path(get, path = "/doctor", responses((status = 200, body = Doctor), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn doctor(State(app): State<App>, caller: Caller) -> Result<Json<Doctor>, Problem> {
    caller.need(&app, Permission::SeeAccess)?;
    let now = app.node.now();
    let (seq, to_clean) = app.node.ledger(|ledger| {
        let over = ledger.open_passes().filter_map(|pass| Some((pass, ledger.over(pass, now)?)));
        (ledger.seq(), over.map(|(pass, cause)| format!("{} ({})", pass.account, cause.words())).collect())
    });
    let last = app.node.store.log.read(seq.saturating_sub(1), 1).await?;
    let hash = last.first().and_then(|line| Some(line.get(line.len().checked_sub(66)?..line.len() - 2)?.to_owned())).unwrap_or_default();
    let troubles = app.node.troubles.all().into_iter();
    let troubles = troubles.map(|(what, trouble)| TroubleView { what: named(&app, &what), since: trouble.since.to_string(), why: trouble.why }).collect();
    Ok(Json(Doctor { now: now.to_string(), head: format!("{seq}:{hash}"), live_sessions: app.node.sessions.all().len(), to_clean, troubles }))
}

/// An id is no name: people know the environment.
fn named(app: &App, what: &str) -> String {
    let Some((kind, id)) = what.split_once(':') else { return what.to_owned() };
    app.node
        .ledger(|ledger| match kind {
            "environment" | "firewall" => {
                id.parse::<EnvironmentId>().ok().and_then(|id| ledger.environment(id)).map(|env| format!("environment {}", env.spec.name))
            }
            "target" => id.parse().ok().and_then(|id| ledger.target(id)).map(|target| format!("target {}:{}", target.spec.host, target.spec.port)),
            "pass" => id.parse().ok().and_then(|id| ledger.pass(id)).map(|pass| format!("account {}", pass.account)),
            _ => None,
        })
        .unwrap_or_else(|| what.to_owned())
}

/// Says each time something changed: server-sent events with the number of the newest event. What changed is asked anew.
#[utoipa::path(get, path = "/watch", responses((status = 200, description = "server-sent events", body = String, content_type = "text/event-stream"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn watch(State(app): State<App>, caller: Caller) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // a stream outlives the check at its start: it ends when the person could not open it any more
    let user = caller.user;
    let changes = app.node.changes();
    let stream = futures_util::stream::unfold((changes, true), move |(mut changes, first)| {
        let app = app.clone();
        async move {
            if !first && changes.changed().await.is_err() {
                return None;
            }
            app.node.ledger(|ledger| ledger.user(user).filter(|user| user.locked.is_none()).map(|_| ()))?;
            let seq = *changes.borrow_and_update();
            Some((seq, (changes, false)))
        }
    });
    Sse::new(stream.map(|seq| Ok(Event::default().event("changed").data(seq.to_string())))).keep_alive(axum::response::sse::KeepAlive::default())
}
