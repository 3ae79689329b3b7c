//! Managed environments: standing accounts, machine credentials. What is secret is shown with a reason, which stands in the log first.

use crate::web::{App, Problem, auth::Caller, dto::*, environment, problem::Body};
use crate::{control::Job, standing};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use daypass_core::{
    command::Command,
    environment::Kind,
    ids::*,
    ledger::Ledger,
    managed::Standing,
    names::{Reason, RoleName},
    refusal::Refusal,
    secret::Secret,
};
use daypass_gateway::{Who, World, probe_as};
use daypass_store::Change;
use daypass_targets::Target as _;

/// Makes an environment self-service or managed. What only a managed one has goes, with its secrets.
#[utoipa::path(put, path = "/environments/{environment}/kind", params(("environment" = String, Path)), request_body = NewKind, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_kind(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(kind): Body<NewKind>) -> Result<StatusCode, Problem> {
    let env = environment(&app, &caller, &name)?;
    app.control.run(Command::SetKind { environment: env.id, kind: kind.kind.parse::<Kind>()? }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Turns remote desktop on or off. Off removes and erases the machine credentials.
#[utoipa::path(put, path = "/environments/{environment}/remote-desktop", params(("environment" = String, Path)), request_body = OnOff, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remote_desktop(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(wanted): Body<OnOff>) -> Result<StatusCode, Problem> {
    let env = environment(&app, &caller, &name)?;
    app.control.run(Command::SetRemoteDesktop { environment: env.id, on: wanted.on }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The standing accounts of an environment.
#[utoipa::path(get, path = "/environments/{environment}/standing", params(("environment" = String, Path)), responses((status = 200, body = Vec<StandingView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Vec<StandingView>>, Problem> {
    let env = environment(&app, &caller, &name)?;
    Ok(Json(app.node.ledger(|ledger| ledger.standings_of(env.id).map(|known| view(&app, ledger, known)).collect())))
}

/// Puts an account that exists on the target into the vault, with its password.
#[utoipa::path(post, path = "/environments/{environment}/standing", params(("environment" = String, Path)), request_body = NewStanding, responses((status = 200, body = StandingView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn add(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(new): Body<NewStanding>) -> Result<Json<StandingView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let id = StandingId::new(caller.id());
    let account: RoleName = new.name.parse()?;
    if account.as_str().starts_with("jit_") || account.as_str().starts_with("daypass_") {
        return Err(Refusal::invalid("An account of Daypass itself is no standing account.").into());
    }
    let password = password(new.password)?;
    let command = Command::AddStanding { standing: id, environment: env.id, name: account.clone(), note: note(new.note)? };
    let decided = app.node.ledger(|ledger| ledger.decide(&command, caller.actor(), app.node.now()))?;
    if !decided.is_empty() {
        // whoever does not know the password of an account is not shown the next one
        let target = app.node.ledger(|ledger| ledger.target(env.target).cloned()).ok_or_else(Problem::not_permitted)?;
        let who = Who { user: account.to_string(), password: password.clone(), pass: None };
        probe_as(&*app.node, who, &env, &target).await.map_err(|error| {
            let said = format!("{account} does not get into {} with this password: {error}.", env.spec.database);
            Refusal::state(said, "Only an account that works is kept. Give the password that it has now.")
        })?;
        // what cannot be ended is not lent
        let way = app.node.target(env.target).await.map_err(|e| Problem::unavailable(e.to_string()))?;
        if let Some(why) = way.outranks(&account).await.map_err(|e| Problem::unavailable(e.to_string()))? {
            return Err(Refusal::state(format!("{why}."), "Then add it again.").into());
        }
    }
    let changes = vec![Change::Put { id: standing::secret(id), secret: password.clone() }];
    let events = app.control.run_job(Job { command, by: caller.actor(), changes, secrets: None }).await?;
    if !events.is_empty() {
        app.node.remember_standing(id, Some(password));
    }
    let made = app.node.ledger(|ledger| ledger.standing(id).map(|known| view(&app, ledger, known)));
    made.map(Json).ok_or_else(|| Refusal::not_found("standing account", &new.name).into())
}

/// Keeps a standing account no longer. On the target it stays.
#[utoipa::path(delete, path = "/standing/{id}", params(("id" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let standing = standing_id(&id)?;
    app.control.run(Command::RemoveStanding { standing }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The password of a standing account, with a reason.
#[utoipa::path(post, path = "/standing/{id}/reveal", params(("id" = String, Path)), request_body = Why, responses((status = 200, body = Revealed), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn reveal(State(app): State<App>, caller: Caller, Path(id): Path<String>, Body(why): Body<Why>) -> Result<Json<Revealed>, Problem> {
    let standing = standing_id(&id)?;
    caller.prove(&app)?;
    let why: Reason = why.why.unwrap_or_default().parse()?;
    // it stands in the log before it stands on a screen
    app.control.run(Command::RevealStanding { standing, why }, caller.actor()).await?;
    let gone = || Problem::from(Refusal::not_found("standing account", &id));
    let (name, place, until) = app
        .node
        .ledger(|ledger| {
            let known = ledger.standing(standing)?;
            let env = ledger.environment(known.environment)?;
            let target = ledger.target(env.target)?;
            let place = format!("{}:{}, database {}", target.spec.host, target.spec.port, env.spec.database);
            Some((known.name.to_string(), place, known.shown_until(ledger.policy(env))))
        })
        .ok_or_else(gone)?;
    let password = app.node.standing_password(standing).ok_or_else(gone)?;
    Ok(Json(Revealed { name, password: password.expose().to_owned(), place, until: until.map(|at| at.to_string()) }))
}

/// Asks for a new password of a standing account.
#[utoipa::path(post, path = "/standing/{id}/rotate", params(("id" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn rotate(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    app.control.run(Command::RotateStanding { standing: standing_id(&id)? }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The machines of an environment; none while remote desktop is off.
#[utoipa::path(get, path = "/environments/{environment}/machines", params(("environment" = String, Path)), responses((status = 200, body = Vec<MachineView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn machines(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Vec<MachineView>>, Problem> {
    let env = environment(&app, &caller, &name)?;
    Ok(Json(app.node.ledger(|ledger| ledger.machines_of(env.id).map(machine_view).collect())))
}

/// Keeps the credentials of a machine.
#[utoipa::path(post, path = "/environments/{environment}/machines", params(("environment" = String, Path)), request_body = NewMachine, responses((status = 200, body = MachineView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn add_machine(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(new): Body<NewMachine>) -> Result<Json<MachineView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let machine = MachineId::new(caller.id());
    let user: RoleName = new.user.parse()?;
    let command = Command::AddMachine { machine, environment: env.id, host: new.host.parse()?, user: user.to_string(), note: note(new.note)? };
    let changes = vec![Change::Put { id: standing::machine_secret(machine), secret: password(new.password)? }];
    app.control.run_job(Job { command, by: caller.actor(), changes, secrets: None }).await?;
    let made = app.node.ledger(|ledger| ledger.machine(machine).map(machine_view));
    made.map(Json).ok_or_else(|| Refusal::not_found("machine", &new.host).into())
}

/// Forgets the credentials of a machine.
#[utoipa::path(delete, path = "/machines/{id}", params(("id" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove_machine(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    app.control.run(Command::RemoveMachine { machine: machine_id(&id)? }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The credentials of a machine, with a reason.
#[utoipa::path(post, path = "/machines/{id}/reveal", params(("id" = String, Path)), request_body = Why, responses((status = 200, body = Revealed), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn reveal_machine(State(app): State<App>, caller: Caller, Path(id): Path<String>, Body(why): Body<Why>) -> Result<Json<Revealed>, Problem> {
    let machine = machine_id(&id)?;
    caller.prove(&app)?;
    let why: Reason = why.why.unwrap_or_default().parse()?;
    app.control.run(Command::RevealMachine { machine, why }, caller.actor()).await?;
    let gone = || Problem::from(Refusal::not_found("machine", &id));
    let (name, place) = app.node.ledger(|ledger| ledger.machine(machine).map(|known| (known.user.clone(), known.host.to_string()))).ok_or_else(gone)?;
    let password = app.node.store.log.secret(&standing::machine_secret(machine)).await?.ok_or_else(gone)?;
    Ok(Json(Revealed { name, password: password.expose().to_owned(), place, until: None }))
}

/// The standing account of this name in an environment.
pub fn standing_named(app: &App, environment: EnvironmentId, name: &str) -> Result<StandingId, Problem> {
    let found = app.node.ledger(|ledger| ledger.standings_of(environment).find(|known| known.name.as_str() == name).map(|known| known.id));
    found.ok_or_else(|| Refusal::not_found("standing account", name).into())
}

fn standing_id(text: &str) -> Result<StandingId, Problem> {
    text.parse().map_err(|_| Refusal::not_found("standing account", text).into())
}

fn machine_id(text: &str) -> Result<MachineId, Problem> {
    text.parse().map_err(|_| Refusal::not_found("machine", text).into())
}

fn note(text: Option<String>) -> Result<Option<Reason>, String> {
    text.filter(|text| !text.trim().is_empty()).map(|text| text.parse()).transpose()
}

fn password(text: String) -> Result<Secret, Problem> {
    match text.len() {
        1..=512 => Ok(Secret::new(text)),
        _ => Err(Refusal::invalid("A password has 1 to 512 bytes.").into()),
    }
}

fn view(app: &App, ledger: &Ledger, known: &Standing) -> StandingView {
    let now = app.node.now();
    let due = ledger.environment(known.environment).and_then(|env| known.rotation_due(env, ledger.policy(env), now));
    let trouble = app.node.troubles.get(&format!("standing:{}", known.id)).map(|trouble| trouble.why);
    StandingView {
        id: known.id.to_string(),
        name: known.name.to_string(),
        note: known.note.as_ref().map(ToString::to_string),
        added_at: known.added_at.to_string(),
        rotated_at: known.rotated_at.map(|at| at.to_string()),
        rotation: trouble.or_else(|| due.map(|why| format!("its password is about to be changed: {why}"))),
    }
}

fn machine_view(machine: &daypass_core::managed::Machine) -> MachineView {
    MachineView {
        id: machine.id.to_string(),
        host: machine.host.to_string(),
        user: machine.user.clone(),
        note: machine.note.as_ref().map(ToString::to_string),
        added_at: machine.added_at.to_string(),
    }
}
