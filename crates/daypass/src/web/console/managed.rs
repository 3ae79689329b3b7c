//! Standing accounts and machine credentials of managed environments.

use super::{
    form::{Field, Fields, Form},
    visit::{Fault, Shell, Shown, Visit, page as show},
};
use crate::web::{
    Problem, api,
    dto::{NewMachine, NewStanding, OnOff, Revealed, Why},
    environment as find,
    problem::Body,
};
use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use daypass_core::ids::*;
use daypass_gateway::World;

#[derive(Template)]
#[template(path = "revealed.html")]
struct RevealedPage {
    shell: Shell,
    environment: String,
    shown: Revealed,
}

fn add_form(name: &str) -> Form {
    Form::new(&format!("A standing account of {name}"), &format!("/environments/{name}/standing/add"), "Keep it")
        .line("It exists on the target already. Its password goes into the vault, is shown only with a reason, and is changed after each movement.")
        .with(Field::text("name", "Account").required())
        .with(Field::password("password", "Its password", "off"))
        .with(Field::text("note", "Note").hint("What it is for, like db_owner"))
        .back(format!("/environments/{name}"))
}

pub async fn add_page(visit: Visit, Path(name): Path<String>) -> Shown {
    find(&visit.app, &visit.caller, &name)?;
    Ok(visit.form(add_form(&name)))
}

pub async fn add(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let new = NewStanding { name: fields.text("name"), password: fields.text("password"), note: fields.owned("note") };
    match api::managed::add(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(new)).await {
        Ok(_) => Ok(visit.done(&format!("/environments/{name}"), "added")),
        Err(problem) => Ok(visit.refused(add_form(&name), &fields, problem)),
    }
}

fn reveal_form(name: &str, what: &str, action: &str) -> Form {
    Form::new(&format!("Show the password of {what}"), action, "Show it")
        .line("It is the real password: it opens the target for whoever has it, past the gateway. The reason goes on record.")
        .with(Field::text("why", "Why").required())
        .back(format!("/environments/{name}"))
}

/// What a standing account is called, if the reader may see it.
fn account(visit: &Visit, name: &str, id: &str) -> Result<String, Problem> {
    let env = find(&visit.app, &visit.caller, name)?;
    let known = visit.app.node.ledger(|ledger| {
        let known = ledger.standing(id.parse::<StandingId>().ok()?).filter(|known| known.environment == env.id)?;
        Some(known.name.to_string())
    });
    known.ok_or_else(|| daypass_core::refusal::Refusal::not_found("standing account", id).into())
}

fn machine(visit: &Visit, name: &str, id: &str) -> Result<String, Problem> {
    let env = find(&visit.app, &visit.caller, name)?;
    let known = visit.app.node.ledger(|ledger| {
        let known = ledger.machine(id.parse::<MachineId>().ok()?).filter(|known| known.environment == env.id)?;
        Some(known.host.to_string())
    });
    known.ok_or_else(|| daypass_core::refusal::Refusal::not_found("machine", id).into())
}

pub async fn reveal_page(visit: Visit, Path((name, id)): Path<(String, String)>) -> Shown {
    let what = account(&visit, &name, &id)?;
    Ok(visit.form(reveal_form(&name, &what, &format!("/environments/{name}/standing/{id}/reveal"))))
}

pub async fn reveal(visit: Visit, Path((name, id)): Path<(String, String)>, fields: Fields) -> Result<Response, Response> {
    let what = account(&visit, &name, &id).map_err(|problem| Fault(problem).into_response())?;
    let (visit, cookie) = visit.prove(&fields, "Show it", &format!("/environments/{name}")).await?;
    let why = Why { why: fields.owned("why") };
    let shown = api::managed::reveal(State(visit.app.clone()), visit.caller.clone(), Path(id.clone()), Body(why)).await;
    let answer = match shown {
        Ok(axum::Json(shown)) => show(&RevealedPage { shell: visit.shell(), environment: name, shown }),
        Err(problem) => visit.refused(reveal_form(&name, &what, &format!("/environments/{name}/standing/{id}/reveal")), &fields, problem),
    };
    Ok((cookie, answer).into_response())
}

pub async fn rotate(visit: Visit, Path((name, id)): Path<(String, String)>) -> Shown {
    account(&visit, &name, &id)?;
    api::managed::rotate(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    Ok(visit.done(&format!("/environments/{name}"), "rotated"))
}

pub async fn remove(visit: Visit, Path((name, id)): Path<(String, String)>) -> Shown {
    account(&visit, &name, &id)?;
    api::managed::remove(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    Ok(visit.done(&format!("/environments/{name}"), "removed"))
}

pub async fn remote_desktop(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let wanted = OnOff { on: fields.ticked("on") };
    api::managed::remote_desktop(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(wanted)).await?;
    Ok(visit.done(&format!("/environments/{name}"), "saved"))
}

fn machine_form(name: &str) -> Form {
    Form::new(&format!("A machine of {name}"), &format!("/environments/{name}/machines/add"), "Keep its credentials")
        .with(Field::text("host", "Machine").required())
        .with(Field::text("user", "User").required())
        .with(Field::password("password", "Password", "off"))
        .with(Field::text("note", "Note"))
        .back(format!("/environments/{name}"))
}

pub async fn machine_page(visit: Visit, Path(name): Path<String>) -> Shown {
    find(&visit.app, &visit.caller, &name)?;
    Ok(visit.form(machine_form(&name)))
}

pub async fn add_machine(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let new =
        NewMachine { host: fields.text("host").trim().to_owned(), user: fields.text("user"), password: fields.text("password"), note: fields.owned("note") };
    match api::managed::add_machine(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(new)).await {
        Ok(_) => Ok(visit.done(&format!("/environments/{name}"), "added")),
        Err(problem) => Ok(visit.refused(machine_form(&name), &fields, problem)),
    }
}

pub async fn reveal_machine_page(visit: Visit, Path((name, id)): Path<(String, String)>) -> Shown {
    let what = machine(&visit, &name, &id)?;
    Ok(visit.form(reveal_form(&name, &what, &format!("/environments/{name}/machines/{id}/reveal"))))
}

pub async fn reveal_machine(visit: Visit, Path((name, id)): Path<(String, String)>, fields: Fields) -> Result<Response, Response> {
    let what = machine(&visit, &name, &id).map_err(|problem| Fault(problem).into_response())?;
    let (visit, cookie) = visit.prove(&fields, "Show it", &format!("/environments/{name}")).await?;
    let why = Why { why: fields.owned("why") };
    let shown = api::managed::reveal_machine(State(visit.app.clone()), visit.caller.clone(), Path(id.clone()), Body(why)).await;
    let answer = match shown {
        Ok(axum::Json(shown)) => show(&RevealedPage { shell: visit.shell(), environment: name, shown }),
        Err(problem) => visit.refused(reveal_form(&name, &what, &format!("/environments/{name}/machines/{id}/reveal")), &fields, problem),
    };
    Ok((cookie, answer).into_response())
}

pub async fn remove_machine(visit: Visit, Path((name, id)): Path<(String, String)>) -> Shown {
    machine(&visit, &name, &id)?;
    api::managed::remove_machine(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    Ok(visit.done(&format!("/environments/{name}"), "removed"))
}
