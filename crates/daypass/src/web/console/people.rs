//! People, their roles, and locking them.

use super::{
    form::{Field, Fields, Form},
    visit::{Shell, Shown, Visit, page as show},
};
use crate::web::{
    Problem, api,
    dto::{LogLine, NewPassword, NewPerson, PersonView, RoleView, TokenView, Why},
    problem::Body,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use daypass_core::{index::Filter, people::Role, refusal::Refusal};
use daypass_gateway::World;

#[derive(Template)]
#[template(path = "people.html")]
struct ListPage {
    shell: Shell,
    people: Vec<PersonView>,
}

/// A role in words, and where it holds.
pub fn role_words(role: &RoleView) -> String {
    match (&role.project, &role.environment) {
        (Some(project), _) => format!("{} in project {project}", role.role.as_str()),
        (None, Some(environment)) => format!("{} on {environment}", role.role.as_str()),
        (None, None) => format!("{} everywhere", role.role.as_str()),
    }
}

pub async fn list(visit: Visit) -> Shown {
    let Json(people) = api::people::list(State(visit.app.clone()), visit.caller.clone()).await?;
    Ok(show(&ListPage { shell: visit.shell(), people }))
}

/// A role with its place, as a field can hold it.
fn place_of(text: &str) -> (Option<String>, Option<String>) {
    match text.split_once(':') {
        Some(("project", name)) => (Some(name.to_owned()), None),
        Some(("environment", name)) => (None, Some(name.to_owned())),
        _ => (None, None),
    }
}

fn role_fields(visit: &Visit) -> [Field; 2] {
    let roles = [
        (Role::Requester, "Requester: asks for access"),
        (Role::Approver, "Approver: agrees to requests of others"),
        (Role::Manager, "Manager: sees who is in, ends access, moves databases"),
        (Role::Auditor, "Auditor: reads the log and the sessions"),
        (Role::Admin, "Administrator: sets up people, environments and policies"),
    ];
    let places = visit.app.node.ledger(|ledger| {
        let projects = ledger.projects().map(|(_, name)| (format!("project:{name}"), format!("In project {name}")));
        let environments = ledger.environments().map(|env| (format!("environment:{}", env.spec.name), format!("On {}", env.spec.name)));
        std::iter::once(("all".to_owned(), "Everywhere".to_owned())).chain(projects).chain(environments).collect::<Vec<_>>()
    });
    let roles = roles.map(|(role, label)| (role.as_str().to_owned(), label.to_owned()));
    [Field::select("role", "Role", roles), Field::select("place", "Where", places)]
}

fn role_of(fields: &Fields) -> Result<RoleView, Problem> {
    let role = Role::ALL.into_iter().find(|role| fields.get("role") == Some(role.as_str())).ok_or_else(|| Problem::from("Choose a role.".to_owned()))?;
    let (project, environment) = place_of(&fields.text("place"));
    Ok(RoleView { role, project, environment })
}

fn add_form(visit: &Visit) -> Form {
    let [role, place] = role_fields(visit);
    Form::new("Add a person", "/people/add", "Add the person")
        .with(Field::text("name", "Name to sign in with").required().hint("1 to 64 of a-z, 0-9, '.', '_', '@' and -"))
        .with(Field::password("password", "First password", "new-password").hint("At least 10 characters; they change it on the page of their account"))
        .with(role)
        .with(place)
        .back("/people")
}

pub async fn add_page(visit: Visit) -> Response {
    visit.form(add_form(&visit))
}

pub async fn add(visit: Visit, fields: Fields) -> Response {
    let added = async {
        let request = NewPerson { name: fields.text("name"), password: fields.get("password").map(str::to_owned), roles: vec![role_of(&fields)?] };
        api::people::add(State(visit.app.clone()), visit.caller.clone(), Body(request)).await
    };
    match added.await {
        Ok(_) => visit.done("/people", "added"),
        Err(problem) => visit.refused(add_form(&visit), &fields, problem),
    }
}

#[derive(Template)]
#[template(path = "person.html")]
struct PersonPage {
    shell: Shell,
    person: PersonView,
    tokens: Vec<TokenView>,
    history: Vec<LogLine>,
    oneself: bool,
}

pub async fn page(visit: Visit, Path(name): Path<String>) -> Shown {
    let Json(people) = api::people::list(State(visit.app.clone()), visit.caller.clone()).await?;
    let person = people.into_iter().find(|person| person.name == name).ok_or_else(|| Refusal::not_found("person", &name))?;
    let user = visit.app.node.ledger(|ledger| person.name.parse().ok().and_then(|name| ledger.user_named(&name)).map(|user| user.id));
    let history = api::log::lines(&visit.app, &Filter { person: user, ..Filter::default() }, 20).await?;
    let Json(tokens) = api::people::tokens_of_person(State(visit.app.clone()), visit.caller.clone(), Path(name)).await?;
    let oneself = user == Some(visit.caller.user);
    Ok(show(&PersonPage { shell: visit.shell(), person, tokens, history, oneself }))
}

/// Ends one of somebody's sign-ins or tokens.
pub async fn remove_token(visit: Visit, Path((name, id)): Path<(String, String)>) -> Shown {
    api::people::remove_token(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    Ok(visit.done(&format!("/people/{name}"), "removed"))
}

fn lock_form(name: &str) -> Form {
    Form::new(&format!("Lock {name}"), &format!("/people/{name}/lock"), "Lock this person")
        .line("All sign-ins, tokens, passes and sessions of this person end at once. Unlocking brings none of them back.")
        .with(Field::text("why", "Why").required())
        .back(format!("/people/{name}"))
        .danger()
}

pub async fn lock_page(visit: Visit, Path(name): Path<String>) -> Response {
    visit.form(lock_form(&name))
}

pub async fn lock(visit: Visit, Path(name): Path<String>, fields: Fields) -> Response {
    let why = Why { why: fields.owned("why") };
    match api::people::lock(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(why)).await {
        Ok(_) => visit.done(&format!("/people/{name}"), "locked"),
        Err(problem) => visit.refused(lock_form(&name), &fields, problem),
    }
}

pub async fn unlock(visit: Visit, Path(name): Path<String>) -> Shown {
    api::people::unlock(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    Ok(visit.done(&format!("/people/{name}"), "unlocked"))
}

fn password_form(name: &str) -> Form {
    Form::new(&format!("New password for {name}"), &format!("/people/{name}/password"), "Set the password")
        .line("All sign-ins of this person end.")
        .with(Field::password("password", "New password", "new-password").hint("At least 10 characters"))
        .back(format!("/people/{name}"))
}

pub async fn password_page(visit: Visit, Path(name): Path<String>) -> Response {
    visit.form(password_form(&name))
}

pub async fn password(visit: Visit, Path(name): Path<String>, fields: Fields) -> Response {
    let request = NewPassword { password: fields.text("password") };
    match api::people::set_password(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(request)).await {
        Ok(_) => visit.done(&format!("/people/{name}"), "saved"),
        Err(problem) => visit.refused(password_form(&name), &fields, problem),
    }
}

pub async fn remove_second_factor(visit: Visit, Path(name): Path<String>) -> Shown {
    api::people::remove_second_factor(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    Ok(visit.done(&format!("/people/{name}"), "no-factor"))
}

fn role_form(visit: &Visit, name: &str) -> Form {
    let [role, place] = role_fields(visit);
    Form::new(&format!("Give {name} a role"), &format!("/people/{name}/roles"), "Give the role").with(role).with(place).back(format!("/people/{name}"))
}

pub async fn role_page(visit: Visit, Path(name): Path<String>) -> Response {
    visit.form(role_form(&visit, &name))
}

pub async fn give_role(visit: Visit, Path(name): Path<String>, fields: Fields) -> Response {
    let given = async { api::people::give_role(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(role_of(&fields)?)).await };
    match given.await {
        Ok(_) => visit.done(&format!("/people/{name}"), "saved"),
        Err(problem) => visit.refused(role_form(&visit, &name), &fields, problem),
    }
}

pub async fn take_role(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    api::people::take_role(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(role_of(&fields)?)).await?;
    Ok(visit.done(&format!("/people/{name}"), "saved"))
}
