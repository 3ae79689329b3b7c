//! What administrators see at a glance: projects and their environments, and what the keepers still have to do.

use super::{
    form::{Field, Fields, Form},
    visit::{Shell, Shown, Visit, page as show},
};
use crate::web::{
    api,
    dto::{Doctor, DriftView, EnvironmentView, JudgeDrift, NewProject},
    problem::Body,
};
use askama::Template;
use axum::{Json, extract::State, response::Response};
use daypass_core::people::Permission;
use daypass_gateway::World;

#[derive(Template)]
#[template(path = "administration.html")]
struct AdministrationPage {
    shell: Shell,
    /// None for those who see only some environments.
    doctor: Option<Doctor>,
    drift: Vec<DriftView>,
    environments: Vec<EnvironmentView>,
    projects: Vec<String>,
    channels: Vec<String>,
    may_people: bool,
    may_environments: bool,
}

pub async fn page(visit: Visit) -> Shown {
    let (state, caller) = (State(visit.app.clone()), visit.caller.clone());
    let doctor = api::doctor::doctor(state.clone(), caller.clone()).await.ok().map(|Json(doctor)| doctor);
    let Json(drift) = api::drift::list(state.clone(), caller.clone()).await;
    let Json(environments) = api::environments::list(state.clone(), caller.clone()).await;
    let Json(projects) = api::environments::projects(state, caller.clone()).await;
    let may = |permission| visit.app.node.ledger(|ledger| ledger.may_somewhere(caller.user, permission));
    let (may_people, may_environments) = (may(Permission::ManagePeople), may(Permission::ManageEnvironments));
    let channels = visit.app.channels.to_vec();
    Ok(show(&AdministrationPage { shell: visit.shell(), doctor, drift, channels, environments, projects, may_people, may_environments }))
}

pub async fn try_now(visit: Visit) -> Shown {
    api::log::try_now(State(visit.app.clone())).await;
    Ok(visit.done("/administration", "trying"))
}

/// What is to become of something that others made on a target.
pub async fn judge(visit: Visit, fields: Fields) -> Shown {
    let text = |name: &str| fields.text(name);
    let judged = JudgeDrift { target: text("target"), kind: text("kind"), name: text("name"), place: text("place"), verdict: text("verdict") };
    api::drift::judge(State(visit.app.clone()), visit.caller.clone(), Body(judged)).await?;
    Ok(visit.done("/administration", "saved"))
}

fn project_form() -> Form {
    Form::new("Add a project", "/projects/add", "Add the project")
        .line("A project groups environments; roles and a policy can be given on it.")
        .with(Field::text("name", "Name").required().hint("1 to 40 of a-z, 0-9 and -"))
        .back("/administration")
}

pub async fn add_project_page(visit: Visit) -> Response {
    visit.form(project_form())
}

pub async fn add_project(visit: Visit, fields: Fields) -> Response {
    let request = NewProject { name: fields.text("name").trim().to_owned() };
    match api::environments::add_project(State(visit.app.clone()), visit.caller.clone(), Body(request)).await {
        Ok(_) => visit.done("/administration", "added"),
        Err(problem) => visit.refused(project_form(), &fields, problem),
    }
}
