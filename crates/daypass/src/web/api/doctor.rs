//! The state of things: what is still to be cleaned up, what is in its way, and how to do it by hand.

use crate::{
    node::Trouble,
    web::{App, Problem, auth::Caller, dto::*},
};
use axum::{Json, extract::State};
use daypass_core::{drift::Verdict, environment::Engine, ids::*, movement::MovementState, people::Permission};
use daypass_gateway::World;
use daypass_targets::AnyTarget;

/// The state of things, for whoever runs Daypass.
#[utoipa::path(get, path = "/doctor", responses((status = 200, body = Doctor), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn doctor(State(app): State<App>, caller: Caller) -> Result<Json<Doctor>, Problem> {
    caller.need(&app, Permission::SeeAccess)?;
    let now = app.node.now();
    let (seq, to_clean, by_hand, unjudged) = app.node.ledger(|ledger| -> (u64, Vec<String>, Vec<String>, usize) {
        let over: Vec<_> = ledger.open_passes().filter_map(|pass| Some((pass, ledger.over(pass, now)?))).filter(|(pass, _)| pass.ends_at.is_some()).collect();
        let by_hand = over.iter().filter_map(|(pass, _)| {
            let env = ledger.environment(pass.environment)?;
            let target = ledger.target(env.target)?;
            let sql = AnyTarget::by_hand(target.spec.engine, pass.account.as_str(), env.spec.database.as_str(), env.spec.heir.as_deref());
            Some(format!("-- on {}:{}\n{sql}", target.spec.host, target.spec.port))
        });
        // a way back whose time is over
        let kept = ledger.movements().filter_map(|movement| {
            let kept = movement.kept.as_ref().filter(|kept| kept.until <= now)?;
            let target = ledger.target(ledger.environment(movement.environment)?.target)?;
            Some(format!("-- on {}:{}\nDROP DATABASE {};", target.spec.host, target.spec.port, quoted(target.spec.engine, kept.database.as_str())))
        });
        let by_hand = by_hand.chain(kept).collect();
        let since = |pass| ledger.held(pass, now).map(|held| format!(", since {}", held.until)).unwrap_or_default();
        let accounts = over.iter().map(|(pass, cause)| format!("{} ({}{})", pass.account, cause.words(), since(pass)));
        let closed = ledger.environments().filter_map(|env| {
            let MovementState::Failed { why, .. } = &ledger.movement(env.moving?)?.state else { return None };
            let name = &env.spec.name;
            Some(format!("{name} is closed, its movement failed ({why}): daypass move {name} retry, or daypass move {name} finish"))
        });
        let ending = ledger.drift().filter(|drift| drift.verdict == Some(Verdict::End)).map(|drift| format!("to end: {}", drift.finding.words()));
        let to_clean = accounts.chain(closed).chain(ending).collect();
        let unjudged = ledger.drift().filter(|drift| drift.verdict.is_none()).count();
        (ledger.seq(), to_clean, by_hand, unjudged)
    });
    let last = app.node.store.log.read(seq.saturating_sub(1), 1).await?;
    let hash = last.first().and_then(|line| Some(line.get(line.len().checked_sub(66)?..line.len() - 2)?.to_owned())).unwrap_or_default();
    let records = app
        .node
        .store
        .records
        .failing()
        .map(|why| ("records of sessions".to_owned(), Trouble { since: now, why: format!("they cannot be written: {why}; sessions wait") }));
    let troubles = app.node.troubles.all().into_iter().chain(records);
    let troubles = troubles.map(|(what, trouble)| TroubleView { what: named(&app.node, &what), since: trouble.since.to_string(), why: trouble.why }).collect();
    Ok(Json(Doctor {
        by_hand,
        unjudged,
        now: now.to_string(),
        head: format!("{seq}:{hash}"),
        live_sessions: app.node.sessions.all().len(),
        to_clean,
        troubles,
    }))
}

/// A name as the engine quotes it.
fn quoted(engine: Engine, name: &str) -> String {
    match engine {
        Engine::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
        Engine::SqlServer => format!("[{}]", name.replace(']', "]]")),
    }
}

/// An id is no name: people know the environment.
pub fn named(node: &crate::node::Node, what: &str) -> String {
    let Some((kind, id)) = what.split_once(':') else { return what.to_owned() };
    node.ledger(|ledger| match kind {
        "environment" | "firewall" => {
            id.parse::<EnvironmentId>().ok().and_then(|id| ledger.environment(id)).map(|env| format!("environment {}", env.spec.name))
        }
        "movement" => {
            let env = id.parse().ok().and_then(|id| ledger.movement(id)).and_then(|movement| ledger.environment(movement.environment));
            env.map(|env| format!("movement of {}", env.spec.name))
        }
        "standing" => {
            let known = id.parse().ok().and_then(|id| ledger.standing(id));
            known.and_then(|known| Some(format!("standing account {} of {}", known.name, ledger.environment(known.environment)?.spec.name)))
        }
        "target" | "drift" => id.parse().ok().and_then(|id| ledger.target(id)).map(|target| format!("target {}:{}", target.spec.host, target.spec.port)),
        "pass" => id.parse().ok().and_then(|id| ledger.pass(id)).map(|pass| format!("account {}", pass.account)),
        _ => None,
    })
    .unwrap_or_else(|| what.to_owned())
}
