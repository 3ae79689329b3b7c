//! The log, explanations, and the state of things.

use super::people::person;
use crate::web::{
    App, Problem,
    auth::{self, Caller},
    dto::*,
    environment, person_name,
    problem::Body,
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use daypass_core::{
    chain,
    explain::{Reader, explain as explain_text},
    ids::*,
    index::{Filter, about},
    ledger::Ledger,
    past::Held,
    people::Permission,
    time::Time,
    words,
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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Search {
    pub environment: Option<String>,
    /// Who did it, or to whom it was done.
    pub person: Option<String>,
    /// access, addresses, movements, people or settings
    pub kind: Option<String>,
    /// From this moment on (RFC 3339).
    pub from: Option<String>,
    /// Until this moment, itself excluded.
    pub until: Option<String>,
    /// Only lines before this number: the next page.
    pub before: Option<u64>,
    /// At most so many, newest first; 1 to 1,000.
    pub limit: Option<u32>,
}

/// The log in sentences, newest first.
#[utoipa::path(get, path = "/log/find", params(Search), responses((status = 200, body = Vec<LogLine>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn find(State(app): State<App>, caller: Caller, search: Result<Query<Search>, QueryRejection>) -> Result<Json<Vec<LogLine>>, Problem> {
    let Query(search) = search.map_err(|e| Problem::from(e.body_text()))?;
    // the log of an environment is for those who read it there; the whole of it for those who read it everywhere
    let env = search.environment.as_deref().map(|name| environment(&app, &caller, name)).transpose()?.map(|env| env.id);
    if !caller.may(&app, Permission::ReadLog, env) {
        return Err(Problem::not_permitted());
    }
    let filter = Filter {
        environment: env,
        person: search.person.as_deref().map(|name| person(&app, name)).transpose()?,
        kind: search.kind.as_deref().map(str::parse).transpose()?,
        from: search.from.as_deref().map(str::parse).transpose()?,
        until: search.until.as_deref().map(str::parse).transpose()?,
        before: search.before,
    };
    lines(&app, &filter, search.limit.unwrap_or(100).clamp(1, 1_000) as usize).await.map(Json)
}

/// The newest lines that fit, told.
pub async fn lines(app: &App, filter: &Filter, limit: usize) -> Result<Vec<LogLine>, Problem> {
    lines_where(app, filter, limit, |_| true).await
}

/// The newest lines that fit the filter, and of those what is wanted, told.
pub async fn lines_where(app: &App, filter: &Filter, limit: usize, wanted: impl Fn(&daypass_core::event::Event) -> bool) -> Result<Vec<LogLine>, Problem> {
    let numbers = app.node.find_in_log(filter, limit);
    let lines = app.node.store.log.lines(&numbers).await?;
    let entries = lines.iter().map(|line| chain::read(line)).collect::<Result<Vec<_>, _>>();
    let entries = entries.map_err(|why| Problem::unavailable(format!("The log is damaged: {why}")))?;
    app.node.ledger(|ledger| {
        let told = entries.into_iter().filter(|entry| wanted(&entry.event)).map(|entry| {
            let about = about(ledger, &entry.event);
            Ok(LogLine {
                seq: entry.seq,
                at: entry.at.to_string(),
                by: words::by(ledger, &entry),
                what: words::what(ledger, &entry.event),
                kind: about.kind.as_str().to_owned(),
                environment: about.environment.and_then(|id| ledger.environment(id)).map(|env| env.spec.name.to_string()),
            })
        });
        told.collect()
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    /// Only of this environment.
    pub environment: Option<String>,
    /// RFC 3339.
    pub from: String,
    /// Itself excluded; none: the one moment `from`.
    pub until: Option<String>,
}

/// Who had access, when and why: between two moments, or at one.
#[utoipa::path(get, path = "/report", params(Stretch), responses((status = 200, body = Vec<HeldView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn report(State(app): State<App>, caller: Caller, stretch: Result<Query<Stretch>, QueryRejection>) -> Result<Json<Vec<HeldView>>, Problem> {
    let Query(stretch) = stretch.map_err(|e| Problem::from(e.body_text()))?;
    let env = stretch.environment.as_deref().map(|name| environment(&app, &caller, name)).transpose()?.map(|env| env.id);
    let from: Time = stretch.from.parse()?;
    let until = stretch.until.as_deref().map(str::parse::<Time>).transpose()?.unwrap_or(Time::from_micros(from.micros().saturating_add(1)));
    if until <= from {
        return Err(Problem::from("The end of the stretch is not after its beginning.".to_owned()));
    }
    held(&app, &caller, env, None, from, until).await.map(Json)
}

/// What a report shows, as far as the caller may see it.
pub async fn held(app: &App, caller: &Caller, env: Option<EnvironmentId>, holder: Option<UserId>, from: Time, until: Time) -> Result<Vec<HeldView>, Problem> {
    let now = app.node.now();
    let found: Vec<(PassId, HeldView)> = app.node.ledger(|ledger| {
        let held = ledger.held_between(env, from, until, now);
        let held = held.into_iter().filter(|held| holder.is_none_or(|holder| held.pass.holder == holder));
        let seen = held.filter(|held| ledger.may(caller.user, Permission::SeeAccess, Some(held.pass.environment)));
        seen.map(|held| (held.pass.id, held_view(ledger, &held))).collect()
    });
    let ids: Vec<PassId> = found.iter().map(|(pass, _)| *pass).collect();
    let counts = app.node.store.records.count(&ids).await?;
    Ok(found.into_iter().map(|(pass, view)| HeldView { sessions: counts.get(&pass).copied().unwrap_or_default(), ..view }).collect())
}

fn held_view(ledger: &Ledger, held: &Held<'_>) -> HeldView {
    HeldView {
        holder: person_name(ledger, held.pass.holder),
        environment: ledger.environment(held.pass.environment).map(|env| env.spec.name.to_string()).unwrap_or_default(),
        account: held.pass.account.to_string(),
        access: held.pass.wish.access,
        reason: held.pass.wish.reason.to_string(),
        approved_by: super::passes::approver(ledger, held.pass).unwrap_or_default(),
        from: held.from.to_string(),
        until: held.until.to_string(),
        ended: held.cause.as_ref().map(|cause| cause.words().to_owned()),
        sessions: 0,
    }
}

/// Has the keepers look again at once.
#[utoipa::path(post, path = "/doctor/try", responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn try_now(State(app): State<App>) -> StatusCode {
    app.node.wake();
    StatusCode::NO_CONTENT
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

/// Says each time something changed: server-sent events with the number of the newest event. What changed is asked anew.
#[utoipa::path(get, path = "/watch", responses((status = 200, description = "server-sent events", body = String, content_type = "text/event-stream"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn watch(State(app): State<App>, caller: Caller) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = app.node.changes();
    let stream = futures_util::stream::unfold((changes, true), move |(mut changes, first)| {
        let (app, caller) = (app.clone(), caller.clone());
        async move {
            if !first {
                loop {
                    // a stream outlives the check at its start: it ends with the sign-in that opened it
                    let left = auth::ends_at(&app, &caller)?.since(app.node.now()).clamp(0, 3_600_000_000) as u64;
                    match tokio::time::timeout(std::time::Duration::from_micros(left), changes.changed()).await {
                        Ok(changed) => break changed.ok()?,
                        Err(_) => continue,
                    }
                }
            }
            auth::ends_at(&app, &caller)?;
            let seq = *changes.borrow_and_update();
            Some((seq, (changes, false)))
        }
    });
    Sse::new(stream.map(|seq| Ok(Event::default().event("changed").data(seq.to_string())))).keep_alive(axum::response::sse::KeepAlive::default())
}
