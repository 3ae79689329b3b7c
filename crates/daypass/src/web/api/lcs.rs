//! The Database Movement API and the Environment API of Lifecycle Services, for scripts that people have: the same paths, the same JSON, on the
//! same operations (Microsoft's documentation: "Database movement API", "Fetch environment metadata", "Fetch environment history").
//! As there, whoever is signed in gets status 200, and `IsSuccess` says whether it was done.
//!
//! A project and an environment are named as here, or by the id that the API shows.

use super::movements;
use crate::web::{App, Problem, auth::Caller, dto::*, environment};
use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use daypass_core::{
    environment::{Environment, Kind},
    ids::*,
    people::Permission,
    refusal::Refusal,
};
use daypass_gateway::World;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

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
    // whoever is told that the environment is not there looks for it in vain while it is the project that is wrong
    let inside = inside(app, caller, project);
    if inside.is_empty() {
        return Err(Refusal::not_found("project", project).into());
    }
    let found = environment(app, caller, &name)?;
    if inside.iter().any(|env| env.id == found.id) { Ok(found) } else { Err(Refusal::not_found("environment", env).into()) }
}

/// The environments of a project that the caller may see, by name.
fn inside(app: &App, caller: &Caller, project: &str) -> Vec<Environment> {
    let mut found: Vec<Environment> = app.node.ledger(|ledger| {
        let sees = |env: &&Environment| ledger.may(caller.user, Permission::SeeEnvironment, Some(env.id));
        let here = |env: &&Environment| env.project.to_string() == project || ledger.project_name(env.project).is_some_and(|name| name.as_str() == project);
        ledger.environments().filter(sees).filter(here).cloned().collect()
    });
    found.sort_by(|a, b| a.spec.name.as_str().cmp(b.spec.name.as_str()));
    found
}

async fn start(app: &App, caller: &Caller, env: &Environment, asked: NewMovement) -> Result<MovementView, Problem> {
    let id = MovementId::new(caller.id());
    let command = movements::command(app, caller, env, &asked, id)?;
    app.control.run(command, caller.actor()).await?;
    let view = app.node.ledger(|ledger| ledger.movement(id).map(|movement| movements::view(app, ledger, movement)));
    view.ok_or_else(|| Refusal::not_found("movement", &id.to_string()).into())
}

fn new(kind: &str) -> NewMovement {
    NewMovement {
        kind: kind.to_owned(),
        from: None,
        file: None,
        to: None,
        why: Some("Database Movement API".to_owned()),
        notice: None,
        swap_at: None,
        stay_closed: false,
    }
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
    if inside(&app, &caller, &project).is_empty() {
        let error_message = Some(Refusal::not_found("project", &project).message);
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

/// A page of what there is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Page<T> {
    result_page_current: u32,
    result_has_more_pages: bool,
    data: Vec<T>,
    is_success: bool,
    operation_activity_id: String,
    error_message: Option<String>,
    #[serde(rename = "VersionEOL")]
    version_eol: &'static str,
}

/// Rows on a page.
const ROWS: usize = 20;

impl<T> Page<T> {
    fn of(found: Result<Vec<T>, Problem>, page: Option<u32>) -> Json<Page<T>> {
        let page = page.unwrap_or(1).max(1);
        let (is_success, error_message, all) = match found {
            Ok(all) => (true, None, all),
            Err(problem) => (false, Some(problem.title), Vec::new()),
        };
        let before = ROWS.saturating_mul(page as usize - 1);
        let result_has_more_pages = all.len() > before.saturating_add(ROWS);
        let data = all.into_iter().skip(before).take(ROWS).collect();
        let operation_activity_id = uuid::Uuid::nil().to_string();
        Json(Page { result_page_current: page, result_has_more_pages, data, is_success, operation_activity_id, error_message, version_eol: NEVER })
    }
}

/// An environment. What a database has not, or what Daypass does not know, is null.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EnvironmentRow {
    environment_id: String,
    environment_name: String,
    /// A number where the project's name is one.
    #[schema(value_type = serde_json::Value)]
    project_id: Value,
    /// SelfService or MicrosoftManaged, as the kind of the environment.
    environment_infrastructure: &'static str,
    environment_type: Option<String>,
    environment_group: Option<String>,
    /// The engine.
    environment_product: &'static str,
    /// Its page in the console.
    environment_endpoint_base_url: String,
    /// Finished, or Servicing while a movement keeps it closed.
    deployment_state: &'static str,
    topology_display_name: Option<String>,
    current_application_build_version: Option<String>,
    current_application_release_name: Option<String>,
    current_platform_release_name: Option<String>,
    current_platform_version: Option<String>,
    #[serde(rename = "DeployedOnUTC")]
    deployed_on_utc: Option<String>,
    cloud_storage_location: Option<String>,
    disaster_recovery_location: Option<String>,
    /// Deployed, or Servicing.
    deployment_status_display: &'static str,
    can_start: bool,
    can_stop: bool,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub struct Which {
    /// From 1.
    page: Option<u32>,
    environment_id: Option<String>,
    environment_name: Option<String>,
}

fn number_or_text(project: &str) -> Value {
    project.parse::<u64>().map_or_else(|_| Value::from(project), Value::from)
}

/// The environments of a project, or one of them.
#[utoipa::path(get, path = "/environmentinfo/v1/detail/project/{project}", params(("project" = String, Path), Which), responses((status = 200, body = Page<EnvironmentRow>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn detail(
    State(app): State<App>,
    caller: Caller,
    Path(project): Path<String>,
    which: Result<Query<Which>, QueryRejection>,
) -> Json<Page<EnvironmentRow>> {
    let page = which.as_ref().ok().and_then(|which| which.page);
    let found = || {
        let Query(which) = which.map_err(|e| Problem::from(e.body_text()))?;
        let all = match which.environment_id.as_ref().or(which.environment_name.as_ref()) {
            Some(name) => vec![place(&app, &caller, &project, name)?],
            None => inside(&app, &caller, &project),
        };
        if all.is_empty() {
            return Err(Refusal::not_found("project", &project).into());
        }
        Ok(all.iter().map(|env| row(&app, env, &project)).collect())
    };
    Page::of(found(), page)
}

fn row(app: &App, env: &Environment, project: &str) -> EnvironmentRow {
    let closed = env.frozen_by.is_some();
    let engine = app.node.ledger(|ledger| ledger.target(env.target).map_or("", |target| target.spec.engine.as_str()));
    EnvironmentRow {
        environment_id: env.id.to_string(),
        environment_name: env.spec.name.to_string(),
        project_id: number_or_text(project),
        environment_infrastructure: if env.spec.kind == Kind::Managed { "MicrosoftManaged" } else { "SelfService" },
        environment_type: None,
        environment_group: None,
        environment_product: engine,
        environment_endpoint_base_url: format!("{}/environments/{}", app.url, env.spec.name),
        deployment_state: if closed { "Servicing" } else { "Finished" },
        topology_display_name: None,
        current_application_build_version: None,
        current_application_release_name: None,
        current_platform_release_name: None,
        current_platform_version: None,
        deployed_on_utc: None,
        cloud_storage_location: None,
        disaster_recovery_location: None,
        deployment_status_display: if closed { "Servicing" } else { "Deployed" },
        can_start: false,
        can_stop: false,
    }
}

/// A movement, as a row of an environment's history.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct HistoryRow {
    /// What was to be done, in words.
    name: String,
    /// The kind of movement.
    r#type: String,
    type_display: String,
    start_date_time_utc: String,
    end_date_time_utc: Option<String>,
    status: String,
    activity_id: String,
    environment_id: String,
    /// A number where the project's name is one.
    #[schema(value_type = serde_json::Value)]
    project_id: Value,
}

#[derive(Deserialize, IntoParams)]
pub struct OnPage {
    /// From 1.
    page: Option<u32>,
}

/// What was done to an environment's database, newest first.
#[utoipa::path(get, path = "/environmentinfo/v1/history/project/{project}/environment/{environment}", params(("project" = String, Path), ("environment" = String, Path), OnPage), responses((status = 200, body = Page<HistoryRow>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn history(
    State(app): State<App>,
    caller: Caller,
    Path((project, env)): Path<(String, String)>,
    which: Result<Query<OnPage>, QueryRejection>,
) -> Json<Page<HistoryRow>> {
    let page = which.as_ref().ok().and_then(|which| which.page);
    let found = || {
        which.map_err(|e| Problem::from(e.body_text()))?;
        let env = place(&app, &caller, &project, &env)?;
        let env = movements::may_move(&app, &caller, env.spec.name.as_str())?;
        let row = |view: MovementView| HistoryRow {
            name: view.order.clone(),
            r#type: view.kind,
            type_display: view.order,
            start_date_time_utc: view.asked_at,
            end_date_time_utc: view.over_at,
            status: view.status,
            activity_id: view.id,
            environment_id: env.id.to_string(),
            project_id: number_or_text(&project),
        };
        Ok(movements::of(&app, env.id).into_iter().map(row).collect())
    };
    Page::of(found(), page)
}

/// A path as these scripts write it, put right: they join a base that ends in `/` with a path that begins with one, and end with `/`. None: it is
/// right, or none of theirs.
pub fn put_right(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let theirs = matches!(parts.as_slice(), ["databasemovement" | "environmentinfo", ..] | ["api", "data", ..]);
    let right = format!("/{}", parts.join("/"));
    (theirs && right != path).then_some(right)
}
