//! Requests: one's own, and those that wait for one's word.

use super::{
    form::Fields,
    visit::{Fault, Shell, Shown, Visit, page as show},
};
use crate::web::{
    App, Problem, api,
    auth::Caller,
    dto::{Approve, HeldView, PassView, Why},
    problem::Body,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use daypass_core::{
    ledger::Ledger,
    pass::{Pass, Review, State as PassState},
    people::Permission,
    time::Time,
};
use daypass_gateway::World;

/// What somebody did before is shown for so many days.
const RECENT_DAYS: i64 = 90;

/// Whether a pass waits for a word of this person: an approval, or the review of a broken glass.
fn waits_for(ledger: &Ledger, caller: &Caller, pass: &Pass) -> bool {
    let waits = matches!(pass.state(), PassState::Requested) && !ledger.agreed(pass).contains(&caller.user) || pass.review == Review::Open;
    waits && pass.holder != caller.user && ledger.may(caller.user, Permission::Approve, Some(pass.environment))
}

/// How many wait for this person.
pub fn waiting(app: &App, caller: &Caller) -> usize {
    app.node.ledger(|ledger| match ledger.may_somewhere(caller.user, Permission::Approve) {
        true => ledger.to_judge().filter(|pass| waits_for(ledger, caller, pass)).count(),
        false => 0,
    })
}

#[derive(Template)]
#[template(path = "requests.html")]
struct ListPage {
    shell: Shell,
    waiting: Vec<PassView>,
    mine: Vec<PassView>,
}

pub async fn list(visit: Visit) -> Shown {
    let app = &visit.app;
    let now = app.node.now();
    let (waiting, mine) = app.node.ledger(|ledger| {
        let waiting = ledger.to_judge().filter(|pass| waits_for(ledger, &visit.caller, pass));
        let waiting = waiting.map(|pass| api::passes::view_at(app, ledger, pass, now)).collect();
        let mut mine: Vec<&Pass> = ledger.passes().filter(|pass| pass.holder == visit.caller.user).collect();
        mine.sort_by_key(|pass| std::cmp::Reverse((pass.requested_at, pass.id)));
        (waiting, mine.into_iter().take(50).map(|pass| api::passes::view_at(app, ledger, pass, now)).collect())
    });
    Ok(show(&ListPage { shell: visit.shell(), waiting, mine }))
}

#[derive(Template)]
#[template(path = "request.html")]
struct RequestPage {
    shell: Shell,
    pass: PassView,
    /// What the same person did before.
    history: Vec<HeldView>,
    /// It waits for the reader's approval, or for their review.
    may_judge: bool,
    may_review: bool,
    problem: Option<Problem>,
    word: String,
}

async fn request_page(visit: &Visit, id: &str, problem: Option<Problem>, word: String) -> Result<RequestPage, Problem> {
    let at_once = Ok(Query(api::passes::Wait { wait: 0 }));
    let Json(view) = api::passes::show(State(visit.app.clone()), visit.caller.clone(), Path(id.to_owned()), at_once).await?;
    let now = visit.app.node.now();
    let since = Time::from_micros(now.micros() - RECENT_DAYS * 86_400_000_000);
    let (may_judge, may_review, holder) = visit.app.node.ledger(|ledger| {
        let pass = view.id.parse().ok().and_then(|id| ledger.pass(id));
        let mine = pass.is_some_and(|pass| waits_for(ledger, &visit.caller, pass));
        (
            mine && pass.is_some_and(|pass| *pass.state() == PassState::Requested),
            mine && pass.is_some_and(|pass| pass.review == Review::Open),
            pass.map(|pass| pass.holder),
        )
    });
    let history = api::log::held(&visit.app, &visit.caller, None, holder, since, now).await?;
    let mut history: Vec<_> = history.into_iter().filter(|held| held.account != view.account).collect();
    history.reverse();
    history.truncate(10);
    Ok(RequestPage { shell: visit.shell(), pass: view, history, may_judge, may_review, problem, word })
}

/// Where the link of a mail or a chat leads.
pub async fn page(visit: Visit, Path(id): Path<String>) -> Shown {
    Ok(show(&request_page(&visit, &id, None, String::new()).await?))
}

async fn refused(visit: &Visit, id: &str, fields: &Fields, problem: Problem) -> Response {
    let status = axum::http::StatusCode::from_u16(problem.status).unwrap_or(axum::http::StatusCode::CONFLICT);
    match request_page(visit, id, Some(problem), fields.text("word")).await {
        Ok(page) => (status, show(&page)).into_response(),
        Err(problem) => Fault(problem).into_response(),
    }
}

pub async fn approve(visit: Visit, Path(id): Path<String>, fields: Fields) -> Result<Response, Response> {
    let (visit, cookie) = visit.prove(&fields, "Approve", &format!("/requests/{id}")).await?;
    let body = Approve { digest: fields.text("digest"), word: fields.owned("word") };
    let answer = match api::passes::approve(State(visit.app.clone()), visit.caller.clone(), Path(id.clone()), Body(body)).await {
        Ok(_) => visit.done("/requests", "approved"),
        Err(problem) => refused(&visit, &id, &fields, problem).await,
    };
    Ok((cookie, answer).into_response())
}

pub async fn deny(visit: Visit, Path(id): Path<String>, fields: Fields) -> Response {
    let why = Why { why: fields.owned("word") };
    match api::passes::deny(State(visit.app.clone()), visit.caller.clone(), Path(id.clone()), Body(why)).await {
        Ok(_) => visit.done("/requests", "denied"),
        Err(problem) => refused(&visit, &id, &fields, problem).await,
    }
}

pub async fn review(visit: Visit, Path(id): Path<String>, fields: Fields) -> Response {
    let why = Why { why: fields.owned("word") };
    match api::passes::review(State(visit.app.clone()), visit.caller.clone(), Path(id.clone()), Body(why)).await {
        Ok(_) => visit.done("/requests", "reviewed"),
        Err(problem) => refused(&visit, &id, &fields, problem).await,
    }
}
