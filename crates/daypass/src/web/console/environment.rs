//! Environment details, in the words and the order that people know from Lifecycle Services.

use super::{
    form::{Field, Fields, Form},
    time::{length, of_field, short},
    visit::{Shell, Shown, Visit, page as show},
};
use crate::web::{
    api,
    dto::{AllowView, EnvironmentView, LogLine, MachineView, NewAllow, NewPass, PassView, SessionView, StandingView},
    environment as find,
    problem::Body,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use axum_extra::extract::cookie::CookieJar;
use daypass_core::{
    environment::Environment,
    index::Filter,
    net::Range,
    pass::Access,
    people::Permission,
    policy::{Policy, Reveal},
};
use daypass_gateway::World;
use std::collections::HashMap;

/// Lines of history on the page; the log has all.
const HISTORY: usize = 15;
/// Rows of a table on the page; `daypass passes` and the report have all.
const ROWS: usize = 100;

/// How many rows are not on the page.
struct LeftOut {
    accounts: usize,
    allowed: usize,
}

#[derive(Template)]
#[template(path = "environment.html")]
struct Page {
    shell: Shell,
    env: EnvironmentView,
    reader: String,
    accounts: Vec<PassView>,
    allowed: Vec<AllowView>,
    sessions: Vec<SessionView>,
    history: Vec<LogLine>,
    standing: Vec<StandingView>,
    machines: Vec<MachineView>,
    request: Option<Form>,
    policy: Vec<String>,
    may: May,
    left_out: LeftOut,
}

/// What the reader may do here.
struct May {
    request: bool,
    see_access: bool,
    end_any: bool,
    allow_for_others: bool,
    move_database: bool,
    reveal: bool,
    manage: bool,
    read_log: bool,
}

impl May {
    fn of(visit: &Visit, env: &Environment) -> May {
        let may = |permission| visit.caller.may(&visit.app, permission, Some(env.id));
        May {
            request: may(Permission::Request),
            see_access: may(Permission::SeeAccess),
            end_any: may(Permission::EndAnyAccess),
            allow_for_others: may(Permission::AllowForOthers),
            move_database: may(Permission::Move),
            reveal: may(Permission::Reveal),
            manage: visit.caller.may(&visit.app, Permission::ManageEnvironments, None),
            read_log: may(Permission::ReadLog),
        }
    }
}

pub async fn page(visit: Visit, Path(name): Path<String>) -> Shown {
    let env = find(&visit.app, &visit.caller, &name)?;
    let (state, caller) = (State(visit.app.clone()), visit.caller.clone());
    let Json(view) = api::environments::show(state.clone(), caller.clone(), Path(name.clone())).await?;
    let filter = api::passes::Filter { environment: Some(name.clone()), all: false, at: None };
    let Json(live) = api::passes::list(state.clone(), caller.clone(), Ok(Query(filter))).await?;
    let ending = api::passes::ending(&visit.app, &visit.caller, env.id);
    let mut accounts: Vec<PassView> = live.into_iter().chain(ending).collect();
    // one's own first: nobody scrolls past hundreds to find theirs
    accounts.sort_by_key(|pass| (pass.holder != visit.caller.name.as_str(), pass.state != "requested"));
    let all_accounts = accounts.len();
    accounts.truncate(ROWS);
    let Json(allowed) = api::environments::allowed(state.clone(), caller.clone(), Path(name.clone())).await?;
    let allowed: Vec<AllowView> = allowed.into_iter().filter(|entry| entry.live).collect();
    let left_out = LeftOut { accounts: all_accounts.saturating_sub(ROWS), allowed: allowed.len().saturating_sub(ROWS) };
    let allowed = allowed.into_iter().take(ROWS).collect();
    let filter = api::sessions::Filter { environment: Some(name.clone()), live: true, person: None, limit: Some(ROWS as u32) };
    let Json(sessions) = api::sessions::list(state, caller, Ok(Query(filter))).await?;
    let Json(standing) = api::managed::list(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    let Json(machines) = api::managed::machines(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    let may = May::of(&visit, &env);
    let history = match may.see_access {
        true => api::log::lines(&visit.app, &Filter { environment: Some(env.id), ..Filter::default() }, HISTORY).await?,
        false => Vec::new(),
    };
    let policy = visit.app.node.ledger(|ledger| ledger.policy(&env).clone());
    let request = may.request.then(|| request_form(&visit, &env, &policy));
    let shown = Page {
        shell: visit.shell(),
        env: view,
        reader: visit.caller.name.to_string(),
        accounts,
        allowed,
        sessions,
        history,
        standing,
        machines,
        request,
        policy: super::policy::sentences(&policy),
        may,
        left_out,
    };
    Ok(show(&shown))
}

fn enable_form(visit: &Visit, env: &Environment) -> Form {
    let name = &env.spec.name;
    let policy = visit.app.node.ledger(|ledger| ledger.policy(env).clone());
    let may = May::of(visit, env);
    let here = api::environments::here(&visit.app, &visit.caller, env).unwrap_or_default();
    let here = here.iter().map(Range::to_string).collect::<Vec<_>>().join(";");
    let mut form = Form::new(&format!("Enable access to {name}"), &format!("/environments/{name}/enable"), "Enable access")
        .line("Allow the address that you work from. An account alone opens nothing, and neither does an address.")
        .with(Field::text("addresses", "Address").required().value(&here).hint(format!(
            "Yours, as Daypass sees it. A range like 10.1.2.0/24 may be as wide as /{} (IPv4) or /{} (IPv6); several with ; between them",
            policy.widest_v4, policy.widest_v6
        )))
        .with(life_field(&policy))
        .with(Field::text("note", "Note").hint("Whose address it is, if that is not plain"))
        .back(format!("/environments/{name}"));
    if may.allow_for_others {
        let mut whom = vec![("everyone".to_owned(), "Everyone who has an account".to_owned())];
        if may.request {
            whom.insert(0, ("me".to_owned(), "Me".to_owned()));
        }
        let requesters = visit.app.node.ledger(|ledger| {
            let others = ledger.users().filter(|user| user.id != visit.caller.user && ledger.may(user.id, Permission::Request, Some(env.id)));
            others.map(|user| (format!("person:{}", user.name), user.name.to_string())).collect::<Vec<_>>()
        });
        whom.extend(requesters);
        form.fields.insert(1, Field::select("whom", "For whom", whom).hint("One person, or shared by everyone"));
    }
    form
}

fn life_field(policy: &Policy) -> Field {
    Field::text("life", "How long")
        .value(&short(policy.default_life.as_seconds()))
        .hint(format!("Like 8h or 90m, at most {}; less if the database is replaced", policy.longest_life))
}

pub async fn enable_page(visit: Visit, Path(name): Path<String>) -> Shown {
    let env = find(&visit.app, &visit.caller, &name)?;
    Ok(visit.form(enable_form(&visit, &env)))
}

pub async fn enable(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let env = find(&visit.app, &visit.caller, &name)?;
    let allowed = async {
        let whom = fields.text("whom");
        let request = NewAllow {
            addresses: Some(fields.text("addresses")),
            life: length(&fields.text("life"))?,
            shared: whom == "everyone",
            person: whom.strip_prefix("person:").map(str::to_owned),
            note: fields.owned("note"),
        };
        api::environments::allow(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(request)).await
    };
    match allowed.await {
        Ok(_) => Ok(visit.done(&format!("/environments/{name}"), "allowed")),
        Err(problem) => Ok(visit.refused(enable_form(&visit, &env), &fields, problem)),
    }
}

pub async fn disallow(visit: Visit, Path(id): Path<String>, fields: Fields) -> Shown {
    api::environments::disallow(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    Ok(visit.done(super::visit::local(&fields.text("back")), "disallowed"))
}

fn request_form(visit: &Visit, env: &Environment, policy: &Policy) -> Form {
    let name = &env.spec.name;
    let level = |access: &Access| {
        let (value, label) = match access {
            Access::Read => ("read", "Read"),
            Access::ReadWrite => ("read_write", "Read and write"),
        };
        let approvals = match policy.approvals(*access) {
            0 => "",
            1 => " (somebody approves it first)",
            _ => " (two others approve it first)",
        };
        (value.to_owned(), format!("{label}{approvals}"))
    };
    let mut form = Form::new("Request access", &format!("/environments/{name}/request"), "Request access").back(format!("/environments/{name}"));
    form = form.with(Field::select("access", "Access", policy.access.iter().map(level)));
    if !policy.categories.is_empty() {
        let offered = policy.categories.iter().map(|category| (category.to_string(), category.to_string()));
        form = form.with(Field::select("category", "Reason for access", offered));
    }
    let mut rule = format!("At least {} characters", policy.reason_least);
    if let Some(pattern) = &policy.reason_pattern {
        rule.push_str(&format!("; it contains {pattern}"));
    }
    form = form.with(Field::text("reason", "Details").required().hint(rule));
    if let Some(pattern) = &policy.ticket_pattern {
        form = form.with(Field::text("ticket", "Ticket").required().hint(format!("Like {pattern}")));
    }
    form = form.with(life_field(policy)).with(Field::moment("starts_at", "Not before").hint("In UTC; leave it empty for at once"));
    let may_break = visit.app.node.ledger(|ledger| {
        let person = ledger.user(visit.caller.user);
        person.is_some_and(|person| person.all_roles().any(|(role, scope)| policy.break_glass.contains(role) && scope.covers(env)))
    });
    if may_break && !policy.approval.is_empty() {
        let label = "Break the glass: in at once, without approval. Everyone is told, and somebody else reviews it";
        form = form.with(Field::tick("break_glass", label, false));
    }
    if policy.reveal == Reveal::Once {
        form = form.line("The password of the account is shown once.");
    }
    form
}

pub async fn request_page(visit: Visit, Path(name): Path<String>, Query(query): Query<HashMap<String, String>>) -> Shown {
    let env = find(&visit.app, &visit.caller, &name)?;
    let policy = visit.app.node.ledger(|ledger| ledger.policy(&env).clone());
    let form = request_form(&visit, &env, &policy);
    Ok(visit.form(match query.get("standing") {
        Some(account) => as_standing(form, account),
        None => form,
    }))
}

/// The same, to go in as a standing account: what that may do is not chosen here.
fn as_standing(mut form: Form, account: &str) -> Form {
    form.title = format!("Use {account}");
    form.lines.insert(0, format!("You get an account name and a password of your own; the gateway goes in as {account}. Nobody sees its password."));
    form.fields.retain(|field| field.name != "access");
    form.with(Field::hidden("standing", account)).with(Field::hidden("access", "read_write"))
}

pub async fn request(visit: Visit, Path(name): Path<String>, fields: Fields) -> Result<Response, Response> {
    // to break the glass lets somebody in whom nobody approved
    let (visit, cookie) = match fields.ticked("break_glass") {
        true => visit.prove(&fields, "Request access", &format!("/environments/{name}")).await?,
        false => (visit, CookieJar::new()),
    };
    let answer = asked_for(&visit, &name, &fields).await.map_err(IntoResponse::into_response)?;
    Ok((cookie, answer).into_response())
}

async fn asked_for(visit: &Visit, name: &str, fields: &Fields) -> Shown {
    let env = find(&visit.app, &visit.caller, name)?;
    let asked = async {
        let access = if fields.get("access") == Some("read_write") { Access::ReadWrite } else { Access::Read };
        let request = NewPass {
            access,
            reason: fields.text("reason"),
            life: length(&fields.text("life"))?,
            category: fields.owned("category"),
            ticket: fields.owned("ticket"),
            starts_at: of_field(&fields.text("starts_at"))?,
            break_glass: fields.ticked("break_glass"),
            standing: fields.owned("standing"),
        };
        api::passes::request(State(visit.app.clone()), visit.caller.clone(), Path(name.to_owned()), Body(request)).await
    };
    match asked.await {
        Ok(_) => Ok(visit.done(&format!("/environments/{name}"), "requested")),
        Err(problem) => {
            let policy = visit.app.node.ledger(|ledger| ledger.policy(&env).clone());
            let form = request_form(visit, &env, &policy);
            let form = match fields.owned("standing") {
                Some(account) => as_standing(form, &account),
                None => form,
            };
            Ok(visit.refused(form, fields, problem))
        }
    }
}
