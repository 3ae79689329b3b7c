//! What others made on the targets: listed with when it was first seen, judged by an administrator.

use crate::web::{App, Problem, auth::Caller, dto::*, problem::Body};
use axum::{Json, extract::State, http::StatusCode};
use daypass_core::{
    command::Command,
    drift::{DriftKind, Finding, Verdict},
    ids::*,
    ledger::Ledger,
    people::Permission,
    refusal::Refusal,
};
use daypass_gateway::World;

/// What Daypass did not make and that opens a way in, on the targets whose environments the caller sees.
#[utoipa::path(get, path = "/drift", responses((status = 200, body = Vec<DriftView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(app): State<App>, caller: Caller) -> Json<Vec<DriftView>> {
    Json(app.node.ledger(|ledger| {
        let seen = |target: TargetId| ledger.environments_on(target).any(|env| !env.removed() && ledger.may(caller.user, Permission::SeeAccess, Some(env.id)));
        let drift = ledger.drift().filter(|drift| seen(drift.target));
        drift.map(|drift| view(ledger, drift)).collect()
    }))
}

/// Says what is to become of one.
#[utoipa::path(post, path = "/drift", request_body = JudgeDrift, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn judge(State(app): State<App>, caller: Caller, Body(judged): Body<JudgeDrift>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManageEnvironments)?;
    let verdict: Verdict = judged.verdict.parse()?;
    let target: TargetId = judged.target.parse().map_err(|_| Refusal::not_found("target", &judged.target))?;
    let kinds = [DriftKind::Login, DriftKind::Member, DriftKind::Privilege, DriftKind::Rule];
    let kind = kinds.into_iter().find(|kind| kind.as_str() == judged.kind).ok_or_else(|| Refusal::invalid("A kind is login, member, privilege or rule."))?;
    let finding = Finding { kind, name: judged.name, place: judged.place };
    app.control.run(Command::JudgeDrift { target, finding, verdict }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(ledger: &Ledger, drift: &daypass_core::drift::Drift) -> DriftView {
    DriftView {
        target: drift.target.to_string(),
        server: ledger.target(drift.target).map(|target| format!("{}:{}", target.spec.host, target.spec.port)).unwrap_or_default(),
        kind: drift.finding.kind.as_str().to_owned(),
        name: drift.finding.name.clone(),
        place: drift.finding.place.clone(),
        what: drift.finding.words(),
        first_seen: drift.first_seen.to_string(),
        verdict: drift.verdict.map(|verdict| {
            match verdict {
                Verdict::Mine => "mine",
                Verdict::Ignored => "ignore",
                Verdict::End => "end",
            }
            .to_owned()
        }),
    }
}
