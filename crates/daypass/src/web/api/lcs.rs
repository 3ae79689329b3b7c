//! The Database Movement API of Lifecycle Services, for scripts that people have: the same paths, the same JSON, on the same operations.
//! As there, whoever is signed in gets status 200, and `IsSuccess` says whether it was done.
//!
//! A project and an environment are named as here, or by the id that the API shows.

use super::movements;
use crate::web::{App, Problem, auth::Caller, dto::*, environment};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use daypass_core::{environment::Environment, ids::*, refusal::Refusal};
use daypass_gateway::World;
use serde::Serialize;
use utoipa::ToSchema;

/// The moment that means "never" there.
const NEVER: &str = "9999-12-31T23:59:59.9999999";

/// The answer to a start.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Started {
    is_success: bool,
    /// What to ask `fetchstatus` about; all zeros when nothing was started.
    operation_activity_id: String,
    error_message: Option<String>,
    #[serde(rename = "VersionEOL")]
    version_eol: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    is_success: bool,
    error_message: Option<String>,
    project_id: String,
    environment_id: String,
    activity_id: String,
    completion_date: Option<String>,
    /// NotStarted, InProgress, Completed, Failed, SignedOff, Aborted, RollbackInProgress, RollbackCompleted, RollbackFailed.
    operation_status: Option<String>,
    #[serde(rename = "VersionEOL")]
    version_eol: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Databases {
    is_success: bool,
    error_message: Option<String>,
    database_assets: Vec<Asset>,
    #[serde(rename = "VersionEOL")]
    version_eol: &'static str,
}

/// A dump.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Asset {
    id: String,
    project_id: String,
    organization_id: Option<String>,
    name: String,
    file_name: String,
    file_description: String,
    /// Where it can be fetched, with the same token.
    file_location: String,
    modified_date_time: String,
    created_date_time: String,
    created_by_name: Option<String>,
    modified_by_name: Option<String>,
}

impl Started {
    fn of(started: Result<MovementView, Problem>) -> Json<Started> {
        let (is_success, operation_activity_id, error_message) = match started {
            Ok(view) => (true, view.id, None),
            Err(problem) => (false, uuid::Uuid::nil().to_string(), Some(problem.title)),
        };
        Json(Started { is_success, operation_activity_id, error_message, version_eol: NEVER })
    }
}

/// What the guard refuses: who is not signed in gets no 200.
pub fn refuse(problem: Problem) -> Response {
    match problem.status {
        401 => problem.into_response(),
        _ => (StatusCode::OK, Started::of(Err(problem))).into_response(),
    }
}

/// The environment of this name or id, in this project.
fn place(app: &App, caller: &Caller, project: &str, env: &str) -> Result<Environment, Problem> {
    let by_id = env.parse::<EnvironmentId>().ok();
    let name = by_id.and_then(|id| app.node.ledger(|ledger| ledger.environment(id).map(|env| env.spec.name.to_string()))).unwrap_or_else(|| env.to_owned());
    let found = environment(app, caller, &name)?;
    let in_project =
        app.node.ledger(|ledger| found.project.to_string() == project || ledger.project_name(found.project).is_some_and(|name| name.as_str() == project));
    if in_project { Ok(found) } else { Err(Refusal::not_found("environment", env).into()) }
}

async fn start(app: &App, caller: &Caller, env: &Environment, asked: NewMovement) -> Result<MovementView, Problem> {
    let id = MovementId::new(caller.id());
    let command = movements::command(app, caller, env, &asked, id)?;
    app.control.run(command, caller.actor()).await?;
    let view = app.node.ledger(|ledger| ledger.movement(id).map(|movement| movements::view(app, ledger, movement)));
    view.ok_or_else(|| Refusal::not_found("movement", &id.to_string()).into())
}

fn new(kind: &str) -> NewMovement {
    NewMovement { kind: kind.to_owned(), from: None, file: None, to: None, why: Some("Database Movement API".to_owned()), notice: None }
}

/// Replaces the target's database by a copy of the source's.
#[utoipa::path(post, path = "/databasemovement/v1/refresh/project/{project}/source/{source}/target/{target}", params(("project" = String, Path), ("source" = String, Path), ("target" = String, Path)), responses((status = 200, body = Started), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn refresh(State(app): State<App>, caller: Caller, Path((project, source, target)): Path<(String, String, String)>) -> Json<Started> {
    let started = async {
        let from = place(&app, &caller, &project, &source)?.spec.name.to_string();
        let env = place(&app, &caller, &project, &target)?;
        start(&app, &caller, &env, NewMovement { from: Some(from), ..new("refresh") }).await
    };
    Started::of(started.await)
}

/// Makes a dump of a database.
#[utoipa::path(post, path = "/databasemovement/v1/export/project/{project}/environment/{environment}/backupName/{name}", params(("project" = String, Path), ("environment" = String, Path), ("name" = String, Path)), responses((status = 200, body = Started), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn export(State(app): State<App>, caller: Caller, Path((project, env, name)): Path<(String, String, String)>) -> Json<Started> {
    let started = async {
        let env = place(&app, &caller, &project, &env)?;
        start(&app, &caller, &env, NewMovement { file: Some(name), ..new("export") }).await
    };
    Started::of(started.await)
}

/// The dumps that are there.
#[utoipa::path(get, path = "/databasemovement/v1/databases/project/{project}", params(("project" = String, Path)), responses((status = 200, body = Databases), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn databases(State(app): State<App>, caller: Caller, Path(project): Path<String>) -> Json<Databases> {
    let known = app.node.ledger(|ledger| {
        let sees = |env: &&Environment| ledger.may(caller.user, daypass_core::people::Permission::SeeEnvironment, Some(env.id));
        let here = |env: &&Environment| env.project.to_string() == project || ledger.project_name(env.project).is_some_and(|name| name.as_str() == project);
        ledger.environments().filter(sees).find(here).is_some()
    });
    if !known {
        let error_message = Some(format!("There is no project {project}, or it is not yours to see."));
        return Json(Databases { is_success: false, error_message, database_assets: Vec::new(), version_eol: NEVER });
    }
    let Json(files) = movements::files(State(app.clone()), caller).await;
    let asset = |file: FileView| Asset {
        // the same file has the same id each time
        id: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, file.name.as_bytes()).to_string(),
        project_id: project.clone(),
        organization_id: None,
        file_description: format!("{} bytes", file.bytes),
        file_location: format!("{}/api/v1/files/{}", app.url, file.name),
        file_name: file.name.clone(),
        name: file.name,
        modified_date_time: file.modified_at.clone(),
        created_date_time: file.modified_at,
        created_by_name: None,
        modified_by_name: None,
    };
    let database_assets = files.into_iter().map(asset).collect();
    Json(Databases { is_success: true, error_message: None, database_assets, version_eol: NEVER })
}

/// How far an operation is.
#[utoipa::path(get, path = "/databasemovement/v1/fetchstatus/project/{project}/environment/{environment}/operationactivity/{activity}", params(("project" = String, Path), ("environment" = String, Path), ("activity" = String, Path)), responses((status = 200, body = Status), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn status(State(app): State<App>, caller: Caller, Path((project, env, activity)): Path<(String, String, String)>) -> Json<Status> {
    let found = || -> Result<MovementView, Problem> {
        let env = place(&app, &caller, &project, &env)?;
        let env = movements::may_move(&app, &caller, env.spec.name.as_str())?;
        let not_found = || Refusal::not_found("operation", &activity);
        let id: MovementId = activity.parse().map_err(|_| not_found())?;
        let view = app.node.ledger(|ledger| {
            let movement = ledger.movement(id).filter(|movement| movement.environment == env.id)?;
            Some(movements::view(&app, ledger, movement))
        });
        Ok(view.ok_or_else(not_found)?)
    };
    let (error_message, view) = match found() {
        Ok(view) => (view.status.ends_with("Failed").then(|| view.state.clone()), Some(view)),
        Err(problem) => (Some(problem.title), None),
    };
    Json(Status {
        is_success: view.is_some(),
        error_message,
        project_id: project,
        environment_id: env,
        activity_id: activity,
        completion_date: view.as_ref().and_then(|view| view.over_at.clone()),
        operation_status: view.map(|view| view.status),
        version_eol: NEVER,
    })
}
