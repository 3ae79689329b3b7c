//! Projects, environments, their policies and allow entries.

use super::people::person;
use crate::web::{App, Problem, auth::Caller, dto::*, environment, person_name, problem::Body};
use crate::{
    control::Job,
    node::target_secret,
    trial::{self, Trial},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use daypass_core::{
    allow::{AllowEntry, Owner},
    command::{AllowFor, Command},
    environment::*,
    event::{Actor, Event},
    ids::*,
    ledger::{Ledger, known_otherwise},
    names::{Name, Reason},
    net::Range,
    pass::{Approver, State as PassState},
    people::{Permission, Scope},
    refusal::{Code, Refusal},
    secret::Secret,
};
use daypass_gateway::World;
use daypass_store::Change;
use daypass_targets::{AnyTarget, Check, Target as _, Verdict};
use std::{collections::HashMap, sync::Arc};

/// The projects that the caller sees something of.
#[utoipa::path(get, path = "/projects", responses((status = 200, body = Vec<String>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn projects(State(app): State<App>, caller: Caller) -> Json<Vec<String>> {
    Json(app.node.ledger(|ledger| {
        let sees = |project| {
            ledger.may_on_project(caller.user, Permission::SeeEnvironment, project)
                || ledger.environments().any(|env| env.project == project && ledger.may(caller.user, Permission::SeeEnvironment, Some(env.id)))
        };
        ledger.projects().filter(|(id, _)| sees(*id)).map(|(_, name)| name.to_string()).collect()
    }))
}

/// Adds a project.
#[utoipa::path(post, path = "/projects", request_body = NewProject, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn add_project(State(app): State<App>, caller: Caller, Body(request): Body<NewProject>) -> Result<StatusCode, Problem> {
    let command = Command::AddProject { project: ProjectId::new(caller.id()), name: request.name.parse()? };
    app.control.run(command, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets the policy of a project.
#[utoipa::path(put, path = "/projects/{project}/policy", params(("project" = String, Path)), request_body = PolicyView, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn project_policy(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<String>,
    Body(policy): Body<PolicyView>,
) -> Result<StatusCode, Problem> {
    let id = project_id(&app, &caller, &project)?;
    app.control.run(Command::SetPolicy { scope: Scope::Project(id), policy: policy.policy()? }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The project of this name, for whoever sets it up; for others it is not there.
pub fn project_id(app: &App, caller: &Caller, name: &str) -> Result<ProjectId, Problem> {
    let parsed: Name = name.parse()?;
    let may = |ledger: &Ledger, id: &ProjectId| ledger.may_on_project(caller.user, Permission::ManageEnvironments, *id);
    app.node.ledger(|ledger| ledger.project_named(&parsed).filter(|id| may(ledger, id))).ok_or_else(|| Refusal::not_found("project", name).into())
}

/// The environments that the caller may see.
#[utoipa::path(get, path = "/environments", responses((status = 200, body = Vec<EnvironmentView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(app): State<App>, caller: Caller) -> Json<Vec<EnvironmentView>> {
    Json(app.node.ledger(|ledger| {
        let seen = ledger.environments().filter(|env| ledger.may(caller.user, Permission::SeeEnvironment, Some(env.id)));
        let live = Live::of(&app, ledger);
        seen.map(|env| view_with(&app, ledger, env, &live)).collect()
    }))
}

/// Adds an environment: one database on one target server.
#[utoipa::path(post, path = "/environments", request_body = NewEnvironment, responses((status = 200, body = EnvironmentView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn add(State(app): State<App>, caller: Caller, Body(request): Body<NewEnvironment>) -> Result<Json<EnvironmentView>, Problem> {
    caller.need(&app, Permission::ManageEnvironments)?;
    let engine: Engine = request.engine.parse()?;
    check_admin(&request.admin)?;
    check_ca(request.ca.as_deref())?;
    let tls = match (request.without_tls, request.strict_tls) {
        (true, true) => return Err(Refusal::invalid("An environment has strict TLS or none, not both.").into()),
        (true, false) => TargetTls::Off,
        (false, true) => TargetTls::Strict { ca: request.ca },
        (false, false) => TargetTls::VerifyFull { ca: request.ca },
    };
    let target_spec = TargetSpec { engine, host: request.host.parse()?, port: request.port, admin: request.admin, tls };
    let spec = EnvironmentSpec {
        name: request.name.parse()?,
        kind: request.kind.as_deref().map_or(Ok(Kind::SelfService), str::parse)?,
        database: request.database.parse()?,
        grants: request.grants,
        heir: request.heir,
        enforce: request.enforce,
    };
    let project = project_id(&app, &caller, &request.project)?;
    let environment = EnvironmentId::new(caller.id());
    // the same target is found again by where it is, so that two environments on one server share one keeper
    // one at a time: two that come to a new server at once would each seal a password for it
    let _one = ADDING.lock().await;
    let known = app.node.ledger(|ledger| {
        let same = |t: &&Target| (t.spec.engine, &t.spec.host, t.spec.port) == (target_spec.engine, &target_spec.host, target_spec.port);
        ledger.targets().find(same).map(|target| target.id)
    });
    let target = known.unwrap_or_else(|| TargetId::new(crate::random::id()));
    let password = Secret::new(request.password);
    let changes = match known {
        None => vec![Change::Put { id: target_secret(target), secret: password.clone() }],
        // the password of a server that is known stays: to add an environment changes nothing about the others
        Some(known) => {
            use subtle::ConstantTimeEq;
            let kept = app.node.store.log.secret(&target_secret(known)).await?;
            let same = kept.is_some_and(|kept| bool::from(kept.expose().as_bytes().ct_eq(password.expose().as_bytes())));
            if !same {
                return Err(known_otherwise(&target_spec).into());
            }
            Vec::new()
        }
    };
    let command = Command::AddEnvironment { environment, project, target, target_spec: target_spec.clone(), spec: spec.clone() };
    let is_there = app.node.ledger(|ledger| ledger.environment(environment).is_some());
    if !request.untried && !is_there {
        // refused before anything is tried
        app.node.ledger(|ledger| ledger.decide(&command, caller.actor(), app.node.now()).map(drop))?;
        let way = Arc::new(app.node.untried(&target_spec, password).map_err(|e| Problem::unavailable(e.to_string()))?);
        let database = spec.database.clone();
        let checks = Trial { node: app.node.clone(), target: way.clone(), way: target_spec, environment, spec }.run().await;
        if let Some((what, remedy)) = trial::missing(&checks) {
            if let Err(error) = way.forget(environment, &database).await {
                tracing::warn!(%error, "a trial that failed has left groups without members at the target");
            }
            let what = format!("Nothing was stored: the server was tried, and nobody would get in. {what}.");
            return Err(Refusal::new(Code::Invalid, what, format!("{remedy} Or store it untried, and mend it later.")).into());
        }
    }
    app.control.run_job(Job { command, by: caller.actor(), changes, secrets: None }).await?;
    let made = app.node.ledger(|ledger| ledger.environment(environment).map(|env| view(&app, ledger, env)));
    made.map(Json).ok_or_else(|| Problem::unavailable("The environment was removed meanwhile."))
}

/// Adding environments, one after the other.
static ADDING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn check_admin(admin: &str) -> Result<(), Refusal> {
    if admin.is_empty() || admin.len() > 63 || admin.contains('\0') {
        return Err(Refusal::invalid("The administrator is a name of 1 to 63 bytes."));
    }
    Ok(())
}

fn check_ca(ca: Option<&str>) -> Result<(), Refusal> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    match ca {
        Some(ca) if !matches!(CertificateDer::pem_slice_iter(ca.as_bytes()).next(), Some(Ok(_))) => {
            Err(Refusal::invalid("The CA is not a certificate in PEM form."))
        }
        _ => Ok(()),
    }
}

/// Changes how the server of an environment is reached: where it is, as whom, its password, its TLS. It is tried first, and what was there stays
/// until the new works: the databases of all environments on it have to be the ones that they were.
#[utoipa::path(put, path = "/environments/{environment}/target", params(("environment" = String, Path)), request_body = SetTarget, responses((status = 200, body = EnvironmentView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_target(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Body(request): Body<SetTarget>,
) -> Result<Json<EnvironmentView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let known =
        app.node.ledger(|ledger| ledger.target(env.target).map(|target| target.spec.clone())).ok_or_else(|| Refusal::not_found("environment", &name))?;
    let mut spec = known.clone();
    if let Some(host) = &request.host {
        spec.host = host.parse()?;
    }
    spec.port = request.port.unwrap_or(spec.port);
    spec.admin = request.admin.unwrap_or(spec.admin);
    check_admin(&spec.admin)?;
    let before = match &known.tls {
        TargetTls::VerifyFull { ca } | TargetTls::Strict { ca } => ca.clone(),
        TargetTls::Off => None,
    };
    let ca = request.ca.map_or(before, |ca| Some(ca).filter(|ca| !ca.is_empty()));
    check_ca(ca.as_deref())?;
    spec.tls = match (request.tls.as_deref(), &known.tls) {
        (Some("off"), _) | (None, TargetTls::Off) => TargetTls::Off,
        (Some("strict"), _) | (None, TargetTls::Strict { .. }) => TargetTls::Strict { ca },
        (Some("verify_full"), _) | (None, TargetTls::VerifyFull { .. }) => TargetTls::VerifyFull { ca },
        (Some(_), _) => return Err(Refusal::invalid("TLS is verify_full, strict or off.").into()),
    };
    // refused before anything is tried, and before the password of the server goes anywhere
    let command = Command::SetTarget { environment: env.id, spec: spec.clone() };
    app.node.ledger(|ledger| ledger.decide(&command, caller.actor(), app.node.now()).map(drop))?;
    let password = match request.password {
        Some(password) => Secret::new(password),
        // one that is known is for the server that is known: it is shown to no other
        None if (&spec.host, spec.port, &spec.tls) == (&known.host, known.port, &known.tls) => app
            .node
            .store
            .log
            .secret(&target_secret(env.target))
            .await?
            .ok_or_else(|| Problem::unavailable("The administrator's password is not in the store."))?,
        None => return Err(Refusal::invalid("Where the server is, or how it is trusted, changes: give its administrator's password as well.").into()),
    };
    let untried = app.node.untried(&spec, password.clone()).map_err(|e| Problem::unavailable(e.to_string()))?;
    let there: Vec<Environment> = app.node.ledger(|ledger| ledger.environments_on(env.target).filter(|env| !env.removed()).cloned().collect());
    for one in there {
        let found = untried.identity(one.id, &one.spec.database).await.map_err(|error| {
            let what = format!("Nothing was changed: with these settings {} is not reached: {error}.", one.spec.name);
            Refusal::new(Code::Invalid, what, "Correct them, and try again; what was there before still holds.")
        })?;
        if one.identity.as_ref().is_some_and(|identity| *identity != found) {
            let what = format!("Nothing was changed: the database {} there is not the one that {} is.", one.spec.database, one.spec.name);
            return Err(Refusal::new(Code::Invalid, what, "A database that is replaced is a movement: daypass move.").into());
        }
    }
    let trial = Trial { node: app.node.clone(), target: Arc::new(untried), way: spec, environment: env.id, spec: env.spec.clone() };
    if let Some((what, remedy)) = trial::missing(&trial.run().await) {
        return Err(Refusal::new(Code::Invalid, format!("Nothing was changed: with these settings nobody would get in. {what}."), remedy).into());
    }
    let changes = vec![Change::Put { id: target_secret(env.target), secret: password }];
    app.control.run_job(Job { command, by: caller.actor(), changes, secrets: None }).await?;
    // the way to it that is kept knows the settings of before
    app.node.forget_target(env.target);
    app.node.wake();
    let made = app.node.ledger(|ledger| ledger.environment(env.id).map(|env| view(&app, ledger, env)));
    made.map(Json).ok_or_else(|| Problem::unavailable("The environment was removed meanwhile."))
}

/// Changes how accounts of an environment get their rights, and who may use what they leave.
#[utoipa::path(put, path = "/environments/{environment}/accounts", params(("environment" = String, Path)), request_body = SetAccounts, responses((status = 200, body = EnvironmentView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_accounts(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Body(request): Body<SetAccounts>,
) -> Result<Json<EnvironmentView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let grants = request.grants.unwrap_or(env.spec.grants);
    let heir = request.heir.map_or(env.spec.heir.clone(), |heir| Some(heir).filter(|heir| !heir.is_empty()));
    app.control.run(Command::SetAccounts { environment: env.id, grants, heir }, caller.actor()).await?;
    let made = app.node.ledger(|ledger| ledger.environment(env.id).map(|env| view(&app, ledger, env)));
    made.map(Json).ok_or_else(|| Problem::unavailable("The environment was removed meanwhile."))
}

/// One environment.
#[utoipa::path(get, path = "/environments/{environment}", params(("environment" = String, Path)), responses((status = 200, body = EnvironmentView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<EnvironmentView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    Ok(Json(app.node.ledger(|ledger| view(&app, ledger, &env))))
}

/// Removes an environment; all access to it ends at once.
#[utoipa::path(delete, path = "/environments/{environment}", params(("environment" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let env = environment(&app, &caller, &name)?;
    app.control.run(Command::RemoveEnvironment { environment: env.id }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries the target and says what is missing.
#[utoipa::path(post, path = "/environments/{environment}/test", params(("environment" = String, Path)), responses((status = 200, body = Vec<CheckView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn test(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Vec<CheckView>>, Problem> {
    let env = environment(&app, &caller, &name)?;
    caller.need(&app, Permission::ManageEnvironments)?;
    let target = app.node.target(env.target).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let way = app.node.ledger(|ledger| ledger.target(env.target).map(|target| target.spec.clone()));
    let way = way.ok_or_else(|| Refusal::not_found("environment", &name))?;
    // while its database is being replaced, nobody is let in, and no account is made in either of the two
    let checks = if env.frozen_by.is_some() {
        let mut checks = target.test(&env.spec.database).await;
        checks.push(Check::note("the whole way was not tried: a movement keeps the environment closed", "Try again when it is over."));
        checks
    } else {
        Trial { node: app.node.clone(), target, way, environment: env.id, spec: env.spec }.run().await
    };
    Ok(Json(checks.into_iter().map(shown).collect()))
}

pub fn shown(check: Check) -> CheckView {
    let verdict = match check.verdict {
        Verdict::Fine => "ok",
        Verdict::Note => "note",
        Verdict::Missing => "missing",
    };
    CheckView { what: check.what, verdict: verdict.to_owned(), remedy: check.remedy }
}

/// Says beforehand that a replica of the server may take over, with some of its last moments missing: that is no replacement then.
#[utoipa::path(post, path = "/environments/{environment}/expect-failover", params(("environment" = String, Path)), request_body = Within, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn expect_failover(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(within): Body<Within>) -> Result<StatusCode, Problem> {
    let env = environment(&app, &caller, &name)?;
    let within = daypass_core::time::Ttl::seconds(within.within.min(7 * 24 * 3600))?;
    app.control.run(Command::ExpectFailover { environment: env.id, within }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The SQL that makes the administrator role on the target, with the least rights that it needs.
#[utoipa::path(get, path = "/environments/{environment}/recipe", params(("environment" = String, Path)), responses((status = 200, body = Text), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn recipe(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Text>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let known = app.node.ledger(|ledger| ledger.target(env.target).map(|t| (t.spec.engine, t.spec.admin.clone())));
    let (engine, admin) = known.ok_or_else(|| Refusal::not_found("environment", &name))?;
    let owner = env.spec.heir.as_deref().unwrap_or("app_owner");
    Ok(Json(Text { text: AnyTarget::recipe(engine, &admin, env.spec.database.as_str(), owner) }))
}

/// What movements mask in an environment's database.
#[utoipa::path(get, path = "/environments/{environment}/masks", params(("environment" = String, Path)), responses((status = 200, body = MasksView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn masks(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<MasksView>, Problem> {
    Ok(Json(MasksView { masks: environment(&app, &caller, &name)?.masks }))
}

/// Sets what movements mask in an environment's database, all of it. PostgreSQL only.
#[utoipa::path(put, path = "/environments/{environment}/masks", params(("environment" = String, Path)), request_body = MasksView, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_masks(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(request): Body<MasksView>) -> Result<StatusCode, Problem> {
    let env = environment(&app, &caller, &name)?;
    app.control.run(Command::SetMasks { environment: env.id, masks: request.masks }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The policy that holds on an environment.
#[utoipa::path(get, path = "/environments/{environment}/policy", params(("environment" = String, Path)), responses((status = 200, body = PolicyView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn policy(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<PolicyView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let view = app.node.ledger(|ledger| PolicyView::of(ledger.policy(&env)));
    view.map(Json).ok_or_else(|| Problem::unavailable("The policy cannot be shown."))
}

/// Sets a policy for just this environment.
#[utoipa::path(put, path = "/environments/{environment}/policy", params(("environment" = String, Path)), request_body = PolicyView, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_policy(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(policy): Body<PolicyView>) -> Result<StatusCode, Problem> {
    let env = environment(&app, &caller, &name)?;
    app.control.run(Command::SetPolicy { scope: Scope::Environment(env.id), policy: policy.policy()? }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a request would come to, if this person made it now. Nothing is asked for.
#[utoipa::path(post, path = "/environments/{environment}/preview", params(("environment" = String, Path)), request_body = Preview, responses((status = 200, body = PreviewView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn preview(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(preview): Body<Preview>) -> Result<Json<PreviewView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    caller.need(&app, Permission::ManageEnvironments)?;
    let who = person(&app, &preview.person)?;
    let wish = super::passes::wish(&app, env.id, &preview.request, None)?;
    let command = Command::RequestPass { pass: PassId::new(crate::random::id()), environment: env.id, wish, life: life(preview.request.life)?, salt: 0 };
    let now = app.node.now();
    let (allowed, outcome) = app.node.ledger(|ledger| match ledger.decide(&command, Actor::User(who), now) {
        Err(refusal) => (false, refusal.to_string()),
        Ok(events) => {
            let approved = events.iter().find_map(|event| match event {
                Event::PassApproved { approver, ends_at, .. } => Some((approver, ends_at)),
                _ => None,
            });
            let outcome = match approved {
                Some((Approver::BreakGlass, ends_at)) => {
                    format!("{} gets in at once, until {ends_at}; everyone is told, and somebody else reviews it.", preview.person)
                }
                Some((_, ends_at)) => format!("{} gets in at once, until {ends_at}.", preview.person),
                None => format!(
                    "{} waits for {}.",
                    preview.person,
                    match ledger.policy(&env).approvals(preview.request.access) {
                        2 => "two approvals by others",
                        _ => "an approval by somebody else",
                    }
                ),
            };
            (true, outcome)
        }
    });
    Ok(Json(PreviewView { allowed, outcome }))
}

/// The allow entries of an environment that the caller may see: own and shared ones; all for those who see who is in.
#[utoipa::path(get, path = "/environments/{environment}/allow", params(("environment" = String, Path)), responses((status = 200, body = Vec<AllowView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn allowed(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Vec<AllowView>>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let all = caller.may(&app, Permission::SeeAccess, Some(env.id));
    Ok(Json(app.node.ledger(|ledger| {
        let mine = |entry: &&AllowEntry| entry.environment == env.id && (all || entry.owner == Owner::Shared || entry.owner == Owner::Person(caller.user));
        ledger.allow().iter().filter(mine).map(|entry| allow_view(&app, ledger, entry)).collect()
    })))
}

/// Enters an address, for oneself, for somebody else, or for everyone.
#[utoipa::path(post, path = "/environments/{environment}/allow", params(("environment" = String, Path)), request_body = NewAllow, responses((status = 200, body = AllowView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn allow(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(request): Body<NewAllow>) -> Result<Json<AllowView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let ranges = match &request.addresses {
        Some(text) => Range::list(text)?,
        None => here(&app, &caller, &env)?,
    };
    let owner = match (request.shared, &request.person) {
        (false, None) => AllowFor::Myself,
        (true, None) => AllowFor::Everyone,
        (false, Some(name)) if caller.may(&app, Permission::AllowForOthers, Some(env.id)) => AllowFor::Person(person(&app, name)?),
        (false, Some(name)) if *name == caller.name.to_string() => AllowFor::Myself,
        (false, Some(name)) => return Err(Refusal::not_found("person", name).into()),
        (true, Some(_)) => return Err(Refusal::invalid("An entry is for one person or for everyone, not both.").into()),
    };
    let note = request.note.as_deref().map(str::parse::<Reason>).transpose()?;
    let entry = AllowId::new(caller.id());
    let command = Command::AddAllow { entry, environment: env.id, owner, ranges: ranges.clone(), note, life: life(request.life)? };
    app.control.run(command, caller.actor()).await?;
    let now = app.node.now();
    let whose = match owner {
        AllowFor::Myself => Owner::Person(caller.user),
        AllowFor::Person(person) => Owner::Person(person),
        AllowFor::Everyone => Owner::Shared,
    };
    let made = app.node.ledger(|ledger| {
        let epoch = ledger.environment(env.id)?.epoch();
        // one that was there already lasts longer now
        let known = ledger.allow().get(entry).or_else(|| ledger.allow().same(env.id, whose, &ranges, epoch, now))?;
        Some(allow_view(&app, ledger, known))
    });
    made.map(Json).ok_or_else(|| Problem::unavailable("The entry is gone."))
}

/// The addresses at which the gateway sees who calls the API.
pub fn here(app: &App, caller: &Caller, env: &Environment) -> Result<Vec<Range>, String> {
    let engine = app.node.ledger(|ledger| ledger.target(env.target).map_or(Engine::Postgres, |target| target.spec.engine));
    app.place.seen(engine, caller.address).into_iter().map(Range::one).collect()
}

/// Removes an allow entry; sessions that came in by it end.
#[utoipa::path(delete, path = "/allow/{id}", params(("id" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn disallow(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let entry: AllowId = id.parse().map_err(|_| Refusal::not_found("allow entry", &id))?;
    app.control.run(Command::RemoveAllow { entry }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn allow_view(app: &App, ledger: &Ledger, entry: &AllowEntry) -> AllowView {
    let env = ledger.environment(entry.environment);
    let ranges: Vec<String> = entry.ranges.iter().map(Range::to_string).collect();
    AllowView {
        id: entry.id.to_string(),
        environment: env.map(|env| env.spec.name.to_string()).unwrap_or_default(),
        addresses: ranges.join(";"),
        owner: match entry.owner {
            Owner::Person(user) => person_name(ledger, user),
            Owner::Shared => "everyone".to_owned(),
        },
        ends_at: entry.ends_at.to_string(),
        seconds_left: entry.ends_at.since(app.node.now()).max(0) as u64 / 1_000_000,
        note: entry.note.as_ref().map(ToString::to_string),
        live: env.is_some_and(|env| entry.is_live(env.epoch(), app.node.now())),
    }
}

/// How many passes are ready and how many sessions are open, by environment: counted once for all that are shown.
struct Live(HashMap<EnvironmentId, (usize, usize)>);

impl Live {
    fn of(app: &App, ledger: &Ledger) -> Live {
        let now = app.node.now();
        let mut counted: HashMap<EnvironmentId, (usize, usize)> = HashMap::new();
        for pass in ledger.open_passes() {
            let count = counted.entry(pass.environment).or_default();
            count.0 += usize::from(matches!(pass.state(), PassState::Ready { .. }) && ledger.over(pass, now).is_none());
        }
        for session in app.node.sessions.all() {
            counted.entry(session.environment).or_default().1 += 1;
        }
        Live(counted)
    }
}

/// The names of the environments that the caller may see.
pub fn names(app: &App, caller: &Caller) -> Vec<String> {
    app.node.ledger(|ledger| {
        let seen = ledger.environments().filter(|env| ledger.may(caller.user, Permission::SeeEnvironment, Some(env.id)));
        seen.map(|env| env.spec.name.to_string()).collect()
    })
}

fn view(app: &App, ledger: &Ledger, env: &Environment) -> EnvironmentView {
    view_with(app, ledger, env, &Live::of(app, ledger))
}

fn view_with(app: &App, ledger: &Ledger, env: &Environment, live: &Live) -> EnvironmentView {
    let (live_passes, live_sessions) = live.0.get(&env.id).copied().unwrap_or_default();
    let target = ledger.target(env.target);
    let way = app.place.way(ledger, env);
    let trouble = app
        .node
        .troubles
        .get(&format!("target:{}", env.target))
        .or_else(|| app.node.troubles.get(&format!("environment:{}", env.id)))
        .or_else(|| app.node.troubles.get(&format!("firewall:{}", env.id)));
    let planned = env.moving.and_then(|id| ledger.movement(id)).filter(|movement| movement.kind.replaces());
    let state = match (env.frozen_by, trouble, planned) {
        (Some(_), ..) => "closed while its database is moved".to_owned(),
        (None, Some(trouble), _) => trouble.why,
        (None, None, Some(_)) => "about to be moved".to_owned(),
        (None, None, None) => "open".to_owned(),
    };
    EnvironmentView {
        id: env.id.to_string(),
        name: env.spec.name.to_string(),
        project: ledger.project_name(env.project).map(ToString::to_string).unwrap_or_default(),
        state,
        engine: way.as_ref().map(|way| way.engine.as_str().to_owned()).unwrap_or_default(),
        port: way.as_ref().map_or(0, |way| way.port),
        server_and_database: way.as_ref().map(|way| way.server_and_database.clone()).unwrap_or_default(),
        server: way.map(|way| way.server).unwrap_or_default(),
        enforce: env.spec.enforce.as_str().to_owned(),
        drift: app.node.drift(env.id).iter().map(|rule| format!("{} ({} to {})", rule.name, rule.from, rule.to)).collect(),
        database: env.spec.database.to_string(),
        epoch: env.epoch(),
        without_tls: target.is_some_and(|t| t.spec.tls == TargetTls::Off),
        movement: env.moving.and_then(|id| ledger.movement(id)).map(|movement| super::movements::view(app, ledger, movement)),
        live_passes,
        live_sessions,
        kind: env.spec.kind.as_str().to_owned(),
        remote_desktop: env.remote_desktop,
    }
}

/// All that administrators set up, in the form that `daypass apply` reads. Holds no secret.
#[utoipa::path(get, path = "/export", responses((status = 200, body = Declared), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn export(State(app): State<App>, caller: Caller) -> Result<Json<Declared>, Problem> {
    caller.need(&app, Permission::ManageEnvironments)?;
    caller.need(&app, Permission::ManagePeople)?;
    Ok(Json(app.node.ledger(|ledger| {
        let policy = |scope| ledger.own_policy(scope).and_then(|policy| serde_json::to_value(policy).ok());
        let projects = ledger.projects().map(|(id, name)| (name.to_string(), DeclaredProject { policy: policy(Scope::Project(id)) }));
        let environments = ledger.environments().filter_map(|env| {
            let target = ledger.target(env.target)?;
            let (tls, ca) = match &target.spec.tls {
                TargetTls::VerifyFull { ca } => ("verify", ca.clone()),
                TargetTls::Strict { ca } => ("strict", ca.clone()),
                TargetTls::Off => ("off", None),
            };
            let declared = DeclaredEnvironment {
                project: ledger.project_name(env.project)?.to_string(),
                engine: target.spec.engine.as_str().to_owned(),
                host: target.spec.host.to_string(),
                port: target.spec.port,
                database: env.spec.database.to_string(),
                admin: target.spec.admin.clone(),
                tls: tls.to_owned(),
                ca,
                enforce: env.spec.enforce,
                kind: env.spec.kind.as_str().to_owned(),
                grants: env.spec.grants,
                heir: env.spec.heir.clone(),
                password_file: None,
                policy: policy(Scope::Environment(env.id)),
                masks: if env.masks.is_empty() { None } else { serde_json::to_value(&env.masks).ok() },
            };
            Some((env.spec.name.to_string(), declared))
        });
        let people = ledger.users().map(|user| {
            let word = |(role, scope): &(daypass_core::people::Role, Scope)| match scope {
                Scope::All => Some(role.as_str().to_owned()),
                Scope::Project(id) => ledger.project_name(*id).map(|name| format!("{}@project:{name}", role.as_str())),
                Scope::Environment(id) => ledger.environment(*id).map(|env| format!("{}@env:{}", role.as_str(), env.spec.name)),
            };
            // roles by group belong to the provider, and are not ours to declare
            let declared =
                DeclaredPerson { roles: user.roles.iter().filter_map(word).collect(), mail: user.mail.as_ref().map(ToString::to_string), password_file: None };
            (user.name.to_string(), declared)
        });
        Declared { projects: projects.collect(), environments: environments.collect(), people: people.collect() }
    })))
}
