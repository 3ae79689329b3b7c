//! The call by which scripts ask the successor of Lifecycle Services for database access: Dataverse's unbound action
//! `msprov_getfinopssqljitaccessasync`. It is one call for what are three here (enter the address, ask for a pass, show the
//! account), and goes through the same policy and the same log.
//!
//! Such a script has an address for each environment and names none in the request. Here the host that the script calls names it:
//! `<environment>.<suffix>`; without a suffix, the header `x-daypass-environment`, or the one environment that the caller may ask for.

use super::environments::here;
use crate::web::{App, Problem, auth::Caller, dto::life, problem::Body};
use crate::{control::Job, node::PassSecrets};
use axum::{
    Json,
    extract::{FromRequest, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use daypass_core::{
    command::{AllowFor, Command},
    environment::Environment,
    ids::*,
    names::{Reason, server_label},
    net::Range,
    pass::{Access, Pass, State as PassState, Wish},
    people::Permission,
    refusal::Refusal,
};
use daypass_gateway::World;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// A script waits for the answer itself: the account is ready within it, or it says that it is not.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Deserialize, ToSchema)]
pub struct JitRequest {
    /// An IPv4 address, a range `a-b`, or a block; `127.0.0.1` stands for "where this request comes from", as scripts use it. Where the request
    /// comes from is always entered as well.
    pub sqljitclientipaddress: String,
    pub sqljitreason: String,
    /// `Reader` or `Writer`
    pub sqljitrole: String,
}

#[derive(Serialize, ToSchema)]
pub struct JitResponse {
    #[serde(rename = "@odata.context")]
    context: String,
    servername: String,
    databasename: String,
    databasetype: String,
    sqljitusername: String,
    sqljitpassword: String,
    sqljitrole: String,
    /// RFC 3339
    sqljitexpiration: String,
    ipaddress: String,
    operationhistoryid: String,
}

/// An error in OData's shape (OData JSON Format 4.01, section 21).
#[derive(Serialize, ToSchema)]
pub struct ODataError {
    error: ODataDetail,
}

#[derive(Serialize, ToSchema)]
struct ODataDetail {
    code: String,
    message: String,
}

pub struct Failed(Problem);

impl<T: Into<Problem>> From<T> for Failed {
    fn from(problem: T) -> Self {
        Failed(problem.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Failed(problem) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ODataError { error: ODataDetail { code: problem.code, message: format!("{} {}", problem.title, problem.remedy) } };
        (status, [("odata-version", "4.0")], Json(body)).into_response()
    }
}

/// Address, pass and account in one call, as Dataverse's action of this name takes and gives them.
#[utoipa::path(post, path = "/api/data/v9.2/msprov_getfinopssqljitaccessasync", request_body = JitRequest, responses((status = 200, body = JitResponse), (status = "default", body = ODataError)))]
pub async fn jit_access(State(app): State<App>, request: Request) -> Result<Response, Failed> {
    let (mut parts, body) = request.into_parts();
    let caller = <Caller as axum::extract::FromRequestParts<App>>::from_request_parts(&mut parts, &app).await?;
    let headers = parts.headers.clone();
    let host = parts.uri.host().map(str::to_owned);
    let Body(asked) = Body::<JitRequest>::from_request(Request::from_parts(parts, body), &app).await?;
    let env = environment(&app, &caller, &headers, host.as_deref())?;
    let access = match asked.sqljitrole.as_str() {
        "Reader" => Access::Read,
        "Writer" => Access::ReadWrite,
        _ => return Err(Refusal::invalid("sqljitrole is Reader or Writer.").into()),
    };
    let reason: Reason = asked.sqljitreason.parse()?;
    let ranges = match asked.sqljitclientipaddress.as_str() {
        "127.0.0.1" => here(&app, &caller, &env)?,
        // such a script asks a service of the internet for its address; inside a network, another one comes to the gateway
        text => {
            let mut ranges = Range::list(text)?;
            let mut own = here(&app, &caller, &env)?;
            own.retain(|own| !ranges.iter().any(|range| range.contains(own.bounds().0)));
            ranges.extend(own);
            ranges
        }
    };
    let mine = |pass: &&Pass| pass.holder == caller.user && pass.environment == env.id && pass.wish.access == access && *pass.state() == PassState::Requested;
    if app.node.ledger(|ledger| ledger.open_passes().any(|pass| mine(&pass))) {
        return Err(waits().into());
    }
    let pass = PassId::new(caller.id());
    // with the key of an earlier call, the pass is that call's, and not for this one to end
    let made_here = app.node.ledger(|ledger| ledger.pass(pass).is_none());
    let secrets = tokio::task::spawn_blocking(PassSecrets::make).await.map_err(|_| Problem::unavailable("Daypass is stopping."))?;
    // the request first: when it is refused, no address is left open for it
    let command = Command::RequestPass {
        pass,
        environment: env.id,
        wish: Wish { from: Some(caller.address), replaced_by_next: true, ..Wish::new(access, reason) },
        life: life(None)?,
        salt: crate::random::number(),
    };
    app.control.run_job(Job { command, by: caller.actor(), changes: Vec::new(), secrets: Some((pass, secrets)) }).await?;
    let entry = AllowId::new(caller.id());
    let command = Command::AddAllow { entry, environment: env.id, owner: AllowFor::Myself, ranges, note: None, life: None };
    if let Err(refused) = app.control.run(command, caller.actor()).await {
        // an account that its holder cannot come in with is not left behind
        if made_here {
            let _ = app.control.run(Command::EndPass { pass, why: None }, caller.actor()).await;
        }
        return Err(refused.into());
    }
    let found = match ready(&app, pass).await {
        Ok(found) if found.environment == env.id => found,
        Ok(_) => return Err(Refusal::invalid("This idempotency key was used for another environment.").into()),
        Err(failed) => {
            // what waits for an approval stays; what nobody gets the password of does not
            if made_here && app.node.ledger(|ledger| ledger.pass(pass).is_some_and(|pass| *pass.state() != PassState::Requested)) {
                let _ = app.control.run(Command::EndPass { pass, why: None }, caller.actor()).await;
                let _ = app.control.run(Command::RemoveAllow { entry }, caller.actor()).await;
            }
            return Err(failed);
        }
    };
    // as by any other way to see it: on record, and once only where the policy says so
    let Json(shown) = super::passes::reveal(State(app.clone()), caller.clone(), Path(found.id.to_string())).await?;
    let port = shown.port;
    let answer = JitResponse {
        context: "$metadata#Microsoft.Dynamics.CRM.msprov_getfinopssqljitaccessasyncResponse".to_owned(),
        // scripts hand it to a driver as it is; the port stands where SQL Server's drivers take it
        servername: if port == 1433 { shown.server } else { format!("{},{port}", shown.server) },
        databasename: shown.database,
        databasetype: shown.engine,
        sqljitusername: shown.account,
        sqljitpassword: shown.password,
        sqljitrole: asked.sqljitrole,
        sqljitexpiration: shown.ends_at.unwrap_or_default(),
        ipaddress: asked.sqljitclientipaddress,
        operationhistoryid: pass.to_string(),
    };
    Ok(([("odata-version", "4.0"), ("cache-control", "no-store")], Json(answer)).into_response())
}

fn environment(app: &App, caller: &Caller, headers: &HeaderMap, host: Option<&str>) -> Result<Environment, Failed> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(name) = text("x-daypass-environment") {
        return Ok(crate::web::environment(app, caller, &name)?);
    }
    let host = host.map(str::to_owned).or_else(|| text(header::HOST.as_str()));
    let host = host.as_deref().map(|host| host.split(':').next().unwrap_or(host).to_owned());
    if let (Some(host), Some(suffix)) = (&host, &app.place.suffix)
        && host.to_lowercase().ends_with(&format!(".{suffix}"))
        && let Some(label) = server_label(host, Some(suffix))
    {
        return Ok(crate::web::environment(app, caller, &label)?);
    }
    let mine: Vec<Environment> =
        app.node.ledger(|ledger| ledger.environments().filter(|env| ledger.may(caller.user, Permission::Request, Some(env.id))).cloned().collect());
    match mine.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Refusal::invalid(
            "Which environment is meant is not clear: call the host <environment>.<suffix> (gateway.suffix in the configuration), or send the header x-daypass-environment.",
        )
        .into()),
    }
}

fn waits() -> Refusal {
    Refusal::state("The request waits for an approval.", "When somebody has approved it, daypass passes shows the account.")
}

/// The pass when it is ready; a refusal when it will not be in time.
async fn ready(app: &App, id: PassId) -> Result<Pass, Failed> {
    let mut changes = app.node.changes();
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        changes.borrow_and_update();
        let now = app.node.now();
        let pass = app.node.ledger(|ledger| ledger.pass(id).filter(|pass| ledger.over(pass, now).is_none()).cloned());
        match pass {
            Some(pass) if matches!(pass.state(), PassState::Ready { .. }) => return Ok(pass),
            Some(pass) if *pass.state() == PassState::Requested => {
                return Err(waits().into());
            }
            Some(_) => {}
            None => return Err(Refusal::state("The account could not be made.", "daypass passes --all says why.").into()),
        }
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return Err(Problem::unavailable("The account is not ready yet: its server does not answer.").into());
        }
    }
}
