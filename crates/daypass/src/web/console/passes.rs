//! What a holder does with an account: see it, move its end, give it back. Managers end those of others.

use super::{
    form::{Field, Fields, Form},
    time::{length, moment},
    visit::{Fault, Shell, Shown, Visit, page},
};
use crate::web::{
    Problem, api,
    dto::{Connection, Extend, PassView, Why},
    problem::Body,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};

async fn pass(visit: &Visit, id: &str) -> Result<PassView, Problem> {
    let now = Ok(Query(api::passes::Wait { wait: 0 }));
    api::passes::show(State(visit.app.clone()), visit.caller.clone(), Path(id.to_owned()), now).await.map(|Json(pass)| pass)
}

#[derive(Template)]
#[template(path = "account_shown.html")]
struct ShownPage {
    shell: Shell,
    pass: PassView,
    way: Connection,
}

/// The account with its password, and what to type in each tool. It answers a form and never stands under an address of its own.
pub async fn show(visit: Visit, Path(id): Path<String>, fields: Fields) -> Result<Response, Response> {
    let known = pass(&visit, &id).await.map_err(|problem| Fault(problem).into_response())?;
    let (visit, cookie) = visit.prove(&fields, "Show the account", &format!("/environments/{}", known.environment)).await?;
    let shown = async {
        let Json(way) = api::passes::reveal(State(visit.app.clone()), visit.caller.clone(), Path(id.clone())).await?;
        Ok::<_, Problem>(page(&ShownPage { shell: visit.shell(), pass: known, way }))
    };
    let answer = shown.await.map_err(|problem| Fault(problem).into_response())?;
    Ok((cookie, answer).into_response())
}

fn extend_form(pass: &PassView) -> Form {
    let ends = pass.ends_at.as_deref().map(moment).unwrap_or_default();
    Form::new(&format!("Extend {}", pass.account), &format!("/passes/{}/extend", pass.id), "Extend")
        .line(format!("It ends at {ends}. The same account and password go on."))
        .with(Field::text("by", "By how much").required().value("1h").hint("Like 1h or 30m"))
        .back(format!("/environments/{}", pass.environment))
}

pub async fn extend_page(visit: Visit, Path(id): Path<String>) -> Shown {
    Ok(visit.form(extend_form(&pass(&visit, &id).await?)))
}

pub async fn extend(visit: Visit, Path(id): Path<String>, fields: Fields) -> Shown {
    let known = pass(&visit, &id).await?;
    let extended = async {
        let by = length(&fields.text("by"))?.ok_or("Say by how much.".to_owned())?;
        api::passes::extend(State(visit.app.clone()), visit.caller.clone(), Path(id.clone()), Body(Extend { by })).await
    };
    match extended.await {
        Ok(_) => Ok(visit.done(&format!("/environments/{}", known.environment), "extended")),
        Err(problem) => Ok(visit.refused(extend_form(&known), &fields, problem)),
    }
}

fn end_form(visit: &Visit, pass: &PassView) -> Form {
    let own = pass.holder == visit.caller.name.to_string();
    let (title, submit) =
        if own { (format!("Give {} back", pass.account), "End it now") } else { (format!("Revoke {} of {}", pass.account, pass.holder), "Revoke it now") };
    let mut form = Form::new(&title, &format!("/passes/{}/end", pass.id), submit)
        .line(format!("Sessions with it end at once, {} of them now, and the account is removed from the database.", pass.sessions))
        .back(format!("/environments/{}", pass.environment))
        .danger();
    if !own {
        form = form.with(Field::text("why", "Why").required().hint("Its holder reads this"));
    }
    form
}

pub async fn end_page(visit: Visit, Path(id): Path<String>) -> Shown {
    let known = pass(&visit, &id).await?;
    Ok(visit.form(end_form(&visit, &known)))
}

pub async fn end(visit: Visit, Path(id): Path<String>, fields: Fields) -> Shown {
    let known = pass(&visit, &id).await?;
    let why = Why { why: fields.owned("why") };
    match api::passes::end(State(visit.app.clone()), visit.caller.clone(), Path(id), Body(why)).await {
        Ok(_) => Ok(visit.done(&format!("/environments/{}", known.environment), "ended")),
        Err(problem) => Ok(visit.refused(end_form(&visit, &known), &fields, problem)),
    }
}
