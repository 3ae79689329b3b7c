//! The list of environments, and what administrators do with them.

use super::{
    form::{Field, Fields, Form},
    visit::{Shell, Shown, Visit, page as show},
};
use crate::web::{
    api,
    dto::{CheckView, EnvironmentView, MasksView, NewEnvironment, NewKind, PassView, SetAccounts, SetTarget},
    environment as find,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use daypass_core::{
    environment::{Enforce, Grants, TargetTls},
    pass::State as PassState,
    people::Permission,
    refusal::Refusal,
};
use daypass_gateway::World;
use std::collections::{BTreeMap, BTreeSet};

pub async fn home() -> Redirect {
    Redirect::to("/environments")
}

#[derive(Template)]
#[template(path = "environments.html")]
struct ListPage {
    shell: Shell,
    environments: Vec<Seen>,
    may_add: bool,
}

/// An environment as its card shows it.
struct Seen {
    view: EnvironmentView,
    /// What the reader holds there.
    mine: Vec<PassView>,
    may_see_access: bool,
    /// Who has an account that opens it now; empty for those who may not know.
    who: String,
}

pub async fn list(visit: Visit) -> Shown {
    let Json(views) = api::environments::list(State(visit.app.clone()), visit.caller.clone()).await;
    let held = api::passes::live_of(&visit.app, &visit.caller);
    let may = |name: &str, permission| find(&visit.app, &visit.caller, name).is_ok_and(|env| visit.caller.may(&visit.app, permission, Some(env.id)));
    let now = visit.app.node.now();
    // one walk over all passes, whatever the number of environments
    let mut who = BTreeMap::<String, BTreeSet<String>>::new();
    visit.app.node.ledger(|ledger| {
        for pass in ledger.open_passes().filter(|pass| matches!(pass.state(), PassState::Ready { .. }) && ledger.over(pass, now).is_none()) {
            if let (Some(env), Some(user)) = (ledger.environment(pass.environment), ledger.user(pass.holder)) {
                who.entry(env.spec.name.to_string()).or_default().insert(user.name.to_string());
            }
        }
    });
    let environments = views.into_iter().map(|view| {
        let may_see_access = may(&view.name, Permission::SeeAccess);
        let who = who.get(&view.name).filter(|_| may_see_access).map(few).unwrap_or_default();
        Seen { mine: held.iter().filter(|pass| pass.environment == view.name).cloned().collect(), may_see_access, who, view }
    });
    let environments = environments.collect();
    let may_add = visit.caller.may(&visit.app, Permission::ManageEnvironments, None);
    Ok(show(&ListPage { shell: visit.shell(), environments, may_add }))
}

/// Some names, and how many more.
fn few(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn add_form(visit: &Visit) -> Form {
    let projects: Vec<(String, String)> = visit.app.node.ledger(|ledger| ledger.projects().map(|(_, name)| (name.to_string(), name.to_string())).collect());
    let choices = |pairs: &[(&str, &str)]| pairs.iter().map(|(value, label)| ((*value).to_owned(), (*label).to_owned())).collect::<Vec<_>>();
    Form::new("Add an environment", "/environments/add", "Add the environment")
        .line("An environment is one database on one target server. The page of the environment then tests the target and shows the SQL for an administrator with the least rights.")
        .with(Field::text("name", "Name").required().hint("1 to 40 of a-z, 0-9 and -, like uat"))
        .with(Field::select("project", "Project", projects))
        .with(Field::select("engine", "Engine", choices(&[("postgres", "PostgreSQL"), ("sqlserver", "SQL Server or Azure SQL")])))
        .with(Field::text("host", "Target server").required().hint("Host name or address"))
        .with(Field::text("port", "Port").required().value("5432").hint("PostgreSQL 5432, SQL Server 1433"))
        .with(Field::text("database", "Database").required())
        .with(Field::text("admin", "Administrator on the target").required().value("daypass_admin"))
        .with(Field::password("password", "Its password", "off"))
        .with(Field::area("ca", "CA of the target").hint("PEM; leave it empty when a public CA signed the certificate"))
        .with(Field::select("tls", "Encryption to the target", choices(&[("verify", "TLS, verified"), ("strict", "TLS first of all (TDS 8.0)"), ("off", "None")])))
        .with(Field::select("kind", "Kind", choices(&[("self-service", "Self-service: passes are the only way in"), ("managed", "Managed: it may have standing accounts")])))
        .with(Field::select("enforce", "Who keeps people out", choices(&[("gateway", "The gateway"), ("azure_sql_firewall", "Azure SQL's own firewall, no gateway in between")])))
        .with(Field::tick("untried", "Store it without trying it first (a server that is away for now)", false))
}

pub async fn add_page(visit: Visit) -> Response {
    visit.form(add_form(&visit))
}

pub async fn add(visit: Visit, fields: Fields) -> Shown {
    let added = async {
        let port = fields.text("port").trim().parse().map_err(|_| "The port is a number from 1 to 65535.".to_owned())?;
        let request = NewEnvironment {
            name: fields.text("name").trim().to_owned(),
            project: fields.text("project"),
            engine: fields.text("engine"),
            host: fields.text("host").trim().to_owned(),
            port,
            database: fields.text("database").trim().to_owned(),
            admin: fields.text("admin").trim().to_owned(),
            password: fields.text("password"),
            ca: fields.owned("ca"),
            without_tls: fields.get("tls") == Some("off"),
            strict_tls: fields.get("tls") == Some("strict"),
            enforce: if fields.get("enforce") == Some("azure_sql_firewall") { Enforce::AzureSqlFirewall } else { Enforce::Gateway },
            grants: Default::default(),
            heir: None,
            kind: fields.owned("kind"),
            untried: fields.ticked("untried"),
        };
        api::environments::add(State(visit.app.clone()), visit.caller.clone(), crate::web::problem::Body(request)).await
    };
    match added.await {
        Ok(Json(view)) => Ok(visit.done(&format!("/environments/{}", view.name), "added")),
        Err(problem) => Ok(visit.refused(add_form(&visit), &fields, problem)),
    }
}

/// The word for the encryption to a server, and its CA.
fn spoken(tls: &TargetTls) -> (&'static str, &str) {
    match tls {
        TargetTls::VerifyFull { ca } => ("verify_full", ca.as_deref().unwrap_or_default()),
        TargetTls::Strict { ca } => ("strict", ca.as_deref().unwrap_or_default()),
        TargetTls::Off => ("off", ""),
    }
}

fn set_form(visit: &Visit, name: &str) -> Result<Form, crate::web::Problem> {
    let env = find(&visit.app, &visit.caller, name)?;
    let target = visit.app.node.ledger(|ledger| ledger.target(env.target).map(|target| target.spec.clone()));
    let target = target.ok_or_else(|| Refusal::not_found("environment", name))?;
    let others = visit.app.node.ledger(|ledger| {
        let there = ledger.environments_on(env.target).filter(|other| !other.removed() && other.id != env.id);
        there.map(|other| other.spec.name.to_string()).collect::<Vec<_>>()
    });
    let (tls, ca) = spoken(&target.tls);
    let choices = |pairs: &[(&str, &str)]| pairs.iter().map(|(value, label)| ((*value).to_owned(), (*label).to_owned())).collect::<Vec<_>>();
    let form = Form::new(&format!("Change {name}"), &format!("/environments/{name}/set"), "Try it, and change it")
        .line("How the server is reached is tried the whole way first. What was there before holds until the new works, and nobody is put out.")
        .with(Field::text("host", "Target server").required().value(target.host.as_str()))
        .with(Field::text("port", "Port").required().value(&target.port.to_string()))
        .with(Field::text("admin", "Administrator on the target").required().value(&target.admin))
        .with(Field::password("password", "Its password", "off").hint("Leave it empty to keep the one that is known"))
        .with(Field::area("ca", "CA of the target").hint("PEM; empty: the CAs that the system trusts").value(ca))
        .with(
            Field::select(
                "tls",
                "Encryption to the target",
                choices(&[("verify_full", "TLS, verified"), ("strict", "TLS first of all (TDS 8.0)"), ("off", "None")]),
            )
            .value(tls),
        )
        .with(
            Field::select(
                "kind",
                "Kind",
                choices(&[("self-service", "Self-service: passes are the only way in"), ("managed", "Managed: it may have standing accounts")]),
            )
            .value(env.spec.kind.as_str()),
        )
        .with(
            Field::select(
                "grants",
                "Rights of accounts",
                choices(&[("granted", "Per schema, by a group role"), ("predefined", "pg_read_all_data and pg_write_all_data (PostgreSQL)")]),
            )
            .value(if env.spec.grants == Grants::Predefined { "predefined" } else { "granted" }),
        )
        .with(
            Field::text("heir", "Who may use what accounts leave")
                .hint("A role of the server; empty: the owner of the database")
                .value(env.spec.heir.as_deref().unwrap_or_default()),
        )
        .back(format!("/environments/{name}"));
    Ok(others.iter().fold(form, |form, other| form.fact(format!("{other} is on the same server, and is reached the same way"))))
}

pub async fn set_page(visit: Visit, Path(name): Path<String>) -> Shown {
    Ok(visit.form(set_form(&visit, &name)?))
}

pub async fn set(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let env = find(&visit.app, &visit.caller, &name)?;
    let known = visit.app.node.ledger(|ledger| ledger.target(env.target).map(|target| target.spec.clone()));
    let known = known.ok_or_else(|| Refusal::not_found("environment", &name))?;
    let set = async {
        let (app, caller, path) = (|| State(visit.app.clone()), || visit.caller.clone(), || Path(name.clone()));
        let port: u16 = fields.text("port").trim().parse().map_err(|_| "The port is a number from 1 to 65535.".to_owned())?;
        let grants = if fields.get("grants") == Some("predefined") { Grants::Predefined } else { Grants::Granted };
        let accounts = SetAccounts { grants: Some(grants), heir: Some(fields.text("heir").trim().to_owned()) };
        let target = SetTarget {
            host: Some(fields.text("host").trim().to_owned()),
            port: Some(port),
            admin: Some(fields.text("admin").trim().to_owned()),
            password: fields.owned("password"),
            tls: fields.owned("tls"),
            ca: Some(fields.text("ca")),
        };
        let before = spoken(&known.tls);
        let is_other = target.host.as_deref() != Some(known.host.as_str())
            || port != known.port
            || target.admin.as_deref() != Some(known.admin.as_str())
            || target.password.is_some()
            || target.tls.as_deref() != Some(before.0)
            || fields.text("ca").trim() != before.1.trim();
        // what takes a try comes first: when it fails, nothing was changed
        if is_other {
            drop(api::environments::set_target(app(), caller(), path(), crate::web::problem::Body(target)).await?);
        }
        drop(api::environments::set_accounts(app(), caller(), path(), crate::web::problem::Body(accounts)).await?);
        let kind = NewKind { kind: fields.text("kind") };
        api::managed::set_kind(app(), caller(), path(), crate::web::problem::Body(kind)).await?;
        Ok::<_, crate::web::Problem>(())
    };
    match set.await {
        Ok(()) => Ok(visit.done(&format!("/environments/{name}"), "changed").into_response()),
        Err(problem) => Ok(visit.refused(set_form(&visit, &name)?, &fields, problem)),
    }
}

fn masks_form(visit: &Visit, name: &str) -> Result<Form, crate::web::Problem> {
    let env = find(&visit.app, &visit.caller, name)?;
    let text = MasksView { masks: env.masks }.text();
    let form = Form::new(&format!("Masks of {name}"), &format!("/environments/{name}/masks"), "Mask so from now on")
        .line("What a refresh or an import brings is masked before anybody is let in, and compared with what there was before. What is in the database now stays as it is.")
        .with(Field::area("masks", "Masks").value(&text).hint("[schema.table], then a line a column: keep, null, hash, mail, shuffle, constant, partial or shift_days"))
        .fact("mail = \"mail\"".to_owned())
        .fact("born = { shift_days = 30 }".to_owned())
        .fact("card = { partial = { last = 4 } }".to_owned())
        .back(format!("/environments/{name}"));
    Ok(form)
}

pub async fn masks_page(visit: Visit, Path(name): Path<String>) -> Shown {
    Ok(visit.form(masks_form(&visit, &name)?))
}

pub async fn set_masks(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let set = async {
        let masks = MasksView::read(&fields.text("masks")).map_err(|e| format!("These are no masks: {}", e.trim()))?;
        api::environments::set_masks(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), crate::web::problem::Body(masks)).await
    };
    match set.await {
        Ok(_) => Ok(visit.done(&format!("/environments/{name}"), "changed").into_response()),
        Err(problem) => Ok(visit.refused(masks_form(&visit, &name)?, &fields, problem)),
    }
}

#[derive(Template)]
#[template(path = "test.html")]
struct TestPage {
    shell: Shell,
    environment: String,
    checks: Vec<CheckView>,
}

/// Tries the target, and shows what works and what does not.
pub async fn test(visit: Visit, Path(name): Path<String>) -> Shown {
    let Json(checks) = api::environments::test(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    Ok(show(&TestPage { shell: visit.shell(), environment: name, checks }))
}

#[derive(Template)]
#[template(path = "recipe.html")]
struct RecipePage {
    shell: Shell,
    environment: String,
    text: String,
}

pub async fn recipe(visit: Visit, Path(name): Path<String>) -> Shown {
    let Json(recipe) = api::environments::recipe(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    Ok(show(&RecipePage { shell: visit.shell(), environment: name, text: recipe.text }))
}

fn remove_form(visit: &Visit, name: &str) -> Result<Form, crate::web::Problem> {
    let env = find(&visit.app, &visit.caller, name)?;
    let held = api::passes::live_on(&visit.app, env.id);
    let form = Form::new(&format!("Remove {name}"), &format!("/environments/{name}/remove"), "Remove the environment")
        .line(
            "All access to it ends at once, and its accounts are removed from the target. The database itself is not touched. The log keeps all that happened.",
        )
        .with(Field::text("name", "Type the name of the environment").required())
        .back(format!("/environments/{name}"))
        .danger();
    Ok(held.iter().fold(form, |form, pass| form.fact(format!("{} of {} ends", pass.account, pass.holder))))
}

pub async fn remove_page(visit: Visit, Path(name): Path<String>) -> Shown {
    Ok(visit.form(remove_form(&visit, &name)?))
}

pub async fn remove(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    if fields.text("name").trim() != name {
        return Ok(visit.refused(remove_form(&visit, &name)?, &fields, "The name does not fit, so nothing was removed.".to_owned().into()));
    }
    api::environments::remove(State(visit.app.clone()), visit.caller.clone(), Path(name)).await?;
    Ok(visit.done("/environments", "removed").into_response())
}
