//! Passes: asking, waiting, showing, extending, ending.

use crate::web::{App, Problem, auth::Caller, dto::*, environment, panel::settings, person_name, place::Way, problem::Body};
use crate::{
    control::Job,
    node::{Node, PassSecrets},
};
use axum::{
    Json,
    extract::{Path, Query, State},
};
use daypass_core::{
    chain,
    command::Command,
    environment::Environment,
    ids::*,
    ledger::Ledger,
    names::Reason,
    pass::{Approver, Pass, Review, State as PassState, Wish},
    people::Permission,
    policy::Reveal,
    refusal::Refusal,
    time::{Time, Ttl},
};
use daypass_gateway::World;
use daypass_store::Change;
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// A request waits no longer than this for a change.
const LONGEST_WAIT: u64 = 30;

/// Asks for a pass. The account is usually ready a moment later: `GET /passes/{pass}?wait=10`.
#[utoipa::path(post, path = "/environments/{environment}/passes", params(("environment" = String, Path)), request_body = NewPass, responses((status = 200, body = PassView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn request(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(request): Body<NewPass>) -> Result<Json<PassView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let wish = wish(&app, env.id, &request, Some(caller.address))?;
    let life = life(request.life)?;
    let pass = PassId::new(caller.id());
    // two key derivations take a millisecond each: not on a thread that relays
    let secrets = tokio::task::spawn_blocking(PassSecrets::make).await.map_err(|_| Problem::unavailable("Daypass is stopping."))?;
    // it lets somebody in whom nobody approved
    if wish.break_glass {
        caller.prove(&app)?;
    }
    let command = Command::RequestPass { pass, environment: env.id, wish, life, salt: crate::random::number() };
    app.control.run_job(Job { command, by: caller.actor(), changes: Vec::new(), secrets: Some((pass, secrets)) }).await?;
    app.node
        .ledger(|ledger| ledger.pass(pass).map(|pass| view(&app, ledger, pass)))
        .map(Json)
        .ok_or_else(|| Refusal::not_found("pass", &pass.to_string()).into())
}

/// What is asked for, read.
pub fn wish(app: &App, environment: EnvironmentId, request: &NewPass, from: Option<std::net::IpAddr>) -> Result<Wish, Problem> {
    Ok(Wish {
        category: request.category.as_deref().map(str::parse).transpose()?,
        ticket: request.ticket.as_deref().map(str::parse).transpose()?,
        starts_at: request.starts_at.as_deref().map(str::parse).transpose()?,
        from,
        standing: request.standing.as_deref().map(|name| super::managed::standing_named(app, environment, name)).transpose()?,
        break_glass: request.break_glass,
        ..Wish::new(request.access, request.reason.parse()?)
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only of this environment.
    pub environment: Option<String>,
    /// Also those that are over.
    #[serde(default)]
    pub all: bool,
    /// As it was at this moment (RFC 3339), by replay of the log.
    pub at: Option<String>,
}

/// The caller's passes; all for those who see who is in.
#[utoipa::path(get, path = "/passes", params(Filter), responses((status = 200, body = Vec<PassView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<PassView>>, Problem> {
    let Query(filter) = filter.map_err(|e| Problem::from(e.body_text()))?;
    let only = filter.environment.as_deref().map(|name| environment(&app, &caller, name)).transpose()?.map(|env| env.id);
    let visible = |ledger: &Ledger, now: Time, past: bool| -> Vec<PassView> {
        let seen = |pass: &&Pass| pass.holder == caller.user || app.node.ledger(|today| today.may(caller.user, Permission::SeeAccess, Some(pass.environment)));
        let wanted =
            |pass: &&Pass| only.is_none_or(|id| pass.environment == id) && (filter.all || (!pass.state().is_final() && ledger.over(pass, now).is_none()));
        let passes: Vec<&Pass> = ledger
            .passes()
            .filter(wanted)
            .filter(|pass| past || pass.holder == caller.user || ledger.may(caller.user, Permission::SeeAccess, Some(pass.environment)))
            .collect();
        passes.into_iter().filter(|pass| !past || seen(pass)).map(|pass| view_at(&app, ledger, pass, now)).collect()
    };
    match &filter.at {
        None => {
            let now = app.node.now();
            Ok(Json(app.node.ledger(|ledger| visible(ledger, now, false))))
        }
        Some(text) => {
            let at: Time = text.parse()?;
            let place = app.budgets.replay(caller.user).await?;
            // on threads of their own: it takes as long as the log is long
            let (node, handle) = (app.node.clone(), tokio::runtime::Handle::current());
            let past = crate::aside::LOOKS.run(move || {
                let past = handle.block_on(replay(&node, at));
                drop(place);
                past
            });
            let past = past.await.map_err(Problem::unavailable)??;
            Ok(Json(visible(&past, at, true)))
        }
    }
}

/// The caller's own passes that are not over.
pub fn live_of(app: &App, caller: &Caller) -> Vec<PassView> {
    let now = app.node.now();
    app.node.ledger(|ledger| {
        let mine = ledger.open_passes().filter(|pass| pass.holder == caller.user && ledger.over(pass, now).is_none());
        mine.map(|pass| view_at(app, ledger, pass, now)).collect()
    })
}

/// All passes of an environment that are not over: what a movement ends.
pub fn live_on(app: &App, environment: EnvironmentId) -> Vec<PassView> {
    let now = app.node.now();
    app.node.ledger(|ledger| {
        let here = ledger.open_passes().filter(|pass| pass.environment == environment && ledger.over(pass, now).is_none());
        here.map(|pass| view_at(app, ledger, pass, now)).collect()
    })
}

/// Passes of an environment that are over and not cleaned up yet, as far as the caller may see them.
pub fn ending(app: &App, caller: &Caller, environment: EnvironmentId) -> Vec<PassView> {
    let now = app.node.now();
    app.node.ledger(|ledger| {
        let seen = |pass: &&Pass| pass.holder == caller.user || ledger.may(caller.user, Permission::SeeAccess, Some(environment));
        let here = ledger.open_passes().filter(|pass| pass.environment == environment && ledger.over(pass, now).is_some());
        here.filter(seen).map(|pass| view_at(app, ledger, pass, now)).collect()
    })
}

/// The ledger as it was at a moment, from the log.
async fn replay(node: &Node, at: Time) -> Result<Ledger, Problem> {
    let (mut ledger, mut head) = (Ledger::default(), chain::Head::EMPTY);
    loop {
        let lines = node.store.log.read(head.seq, 5_000).await?;
        if lines.is_empty() {
            return Ok(ledger);
        }
        for line in lines {
            let damaged = |why: String| Problem::unavailable(format!("The log is damaged: {why}"));
            let (entry, next) = chain::open(&line, &head).map_err(damaged)?;
            if entry.at > at {
                return Ok(ledger);
            }
            ledger.apply(&entry).map_err(|e| damaged(e.to_string()))?;
            head = next;
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Seconds to wait until the pass is ready or over, at most 30.
    #[serde(default)]
    pub wait: u64,
}

/// One pass, by id or account name.
#[utoipa::path(get, path = "/passes/{pass}", params(("pass" = String, Path), Wait), responses((status = 200, body = PassView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(pass): Path<String>,
    wait: Result<Query<Wait>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<PassView>, Problem> {
    let Query(Wait { wait }) = wait.map_err(|e| Problem::from(e.body_text()))?;
    let id = find(&app, &caller, &pass)?;
    let mut changes = app.node.changes();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait.min(LONGEST_WAIT));
    loop {
        changes.borrow_and_update();
        let now = app.node.now();
        let (view, settled) = app
            .node
            .ledger(|ledger| {
                let pass = ledger.pass(id)?;
                let settled = ledger.over(pass, now).is_some() || !matches!(pass.state(), PassState::Requested | PassState::Approved { .. });
                Some((view(&app, ledger, pass), settled))
            })
            .ok_or_else(|| Refusal::not_found("pass", &pass))?;
        if settled || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return Ok(Json(view));
        }
    }
}

/// What the holder needs to connect: account, password, server, database, CA.
#[utoipa::path(post, path = "/passes/{pass}/reveal", params(("pass" = String, Path)), responses((status = 200, body = Connection), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn reveal(State(app): State<App>, caller: Caller, Path(pass): Path<String>) -> Result<Json<Connection>, Problem> {
    let id = find(&app, &caller, &pass)?;
    let gone = || Problem::from(Refusal::not_found("pass", &pass));
    let (found, env, once) = app
        .node
        .ledger(|ledger| {
            let pass = ledger.pass(id)?;
            let env = ledger.environment(pass.environment)?;
            Some((pass.clone(), env.clone(), ledger.policy(env).reveal == Reveal::Once))
        })
        .ok_or_else(gone)?;
    let mut secrets = app.node.pass_secrets(id).await?.ok_or_else(gone)?;
    let way = app.node.ledger(|ledger| app.place.way(ledger, &env)).ok_or_else(gone)?;
    let person = std::mem::take(&mut secrets.person);
    // what is shown once is not kept either
    let changes = if once { vec![Change::Put { id: PassSecrets::id(id), secret: secrets.sealed() }] } else { Vec::new() };
    // it stands in the log before it stands on a screen
    app.control.run_job(Job { command: Command::RevealPass { pass: id }, by: caller.actor(), changes, secrets: None }).await?;
    Ok(Json(connection(&found, &env, way, PassSecrets { person, ..secrets })))
}

/// All that a tool needs. Without a gateway in between, the password is the one that the target knows.
pub fn connection(pass: &Pass, env: &Environment, way: Way, secrets: PassSecrets) -> Connection {
    let mut connection = Connection {
        engine: way.engine.as_str().to_owned(),
        account: pass.account.to_string(),
        password: if way.direct { secrets.target } else { secrets.person },
        server: way.server,
        port: way.port,
        database: env.spec.database.to_string(),
        server_and_database: way.server_and_database,
        ends_at: pass.ends_at.map(|at| at.to_string()),
        ca: way.ca,
        settings: Vec::new(),
    };
    connection.settings = settings(way.engine, &connection);
    connection
}

/// Moves the end of a ready pass, within what the policy allows in all.
#[utoipa::path(post, path = "/passes/{pass}/extend", params(("pass" = String, Path)), request_body = Extend, responses((status = 200, body = PassView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn extend(State(app): State<App>, caller: Caller, Path(pass): Path<String>, Body(request): Body<Extend>) -> Result<Json<PassView>, Problem> {
    let id = find(&app, &caller, &pass)?;
    let command = Command::ExtendPass { pass: id, by: Ttl::seconds(request.by)? };
    done(&app, &caller, id, command).await
}

/// Gives a pass back (its holder) or revokes it (a manager, with a reason).
#[utoipa::path(post, path = "/passes/{pass}/end", params(("pass" = String, Path)), request_body = Why, responses((status = 200, body = PassView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn end(State(app): State<App>, caller: Caller, Path(pass): Path<String>, Body(why): Body<Why>) -> Result<Json<PassView>, Problem> {
    let id = find(&app, &caller, &pass)?;
    let why = why.why.as_deref().map(str::parse::<Reason>).transpose()?;
    done(&app, &caller, id, Command::EndPass { pass: id, why }).await
}

/// Agrees to somebody else's request. It lets somebody in, so it takes a recent sign-in.
#[utoipa::path(post, path = "/passes/{pass}/approve", params(("pass" = String, Path)), request_body = Approve, responses((status = 200, body = PassView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn approve(State(app): State<App>, caller: Caller, Path(pass): Path<String>, Body(approve): Body<Approve>) -> Result<Json<PassView>, Problem> {
    let id = find(&app, &caller, &pass)?;
    caller.prove(&app)?;
    let word = approve.word.as_deref().map(str::parse::<Reason>).transpose()?;
    done(&app, &caller, id, Command::ApprovePass { pass: id, digest: approve.digest.parse()?, word }).await
}

/// Closes the review of a pass that was taken by breaking the glass, with what came of it.
#[utoipa::path(post, path = "/passes/{pass}/review", params(("pass" = String, Path)), request_body = Why, responses((status = 200, body = PassView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn review(State(app): State<App>, caller: Caller, Path(pass): Path<String>, Body(why): Body<Why>) -> Result<Json<PassView>, Problem> {
    let id = find(&app, &caller, &pass)?;
    let word: Reason = why.why.unwrap_or_default().parse()?;
    done(&app, &caller, id, Command::ReviewPass { pass: id, word }).await
}

/// Denies somebody else's request.
#[utoipa::path(post, path = "/passes/{pass}/deny", params(("pass" = String, Path)), request_body = Why, responses((status = 200, body = PassView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn deny(State(app): State<App>, caller: Caller, Path(pass): Path<String>, Body(why): Body<Why>) -> Result<Json<PassView>, Problem> {
    let id = find(&app, &caller, &pass)?;
    let why: Reason = why.why.unwrap_or_default().parse()?;
    done(&app, &caller, id, Command::DenyPass { pass: id, why }).await
}

async fn done(app: &App, caller: &Caller, id: PassId, command: Command) -> Result<Json<PassView>, Problem> {
    app.control.run(command, caller.actor()).await?;
    app.node.ledger(|ledger| ledger.pass(id).map(|pass| view(app, ledger, pass))).map(Json).ok_or_else(|| Refusal::not_found("pass", &id.to_string()).into())
}

/// The pass of this id or account name, if the caller may see it.
fn find(app: &App, caller: &Caller, text: &str) -> Result<PassId, Problem> {
    let found = app.node.ledger(|ledger| {
        let pass = match text.parse::<PassId>() {
            Ok(id) => ledger.pass(id),
            Err(_) => ledger.pass_of_account(text),
        };
        let pass = pass.filter(|pass| pass.holder == caller.user || ledger.may(caller.user, Permission::SeeAccess, Some(pass.environment)));
        pass.map(|pass| pass.id)
    });
    found.ok_or_else(|| Refusal::not_found("pass", text).into())
}

/// Who let the holder in.
pub fn approver(ledger: &Ledger, pass: &Pass) -> Option<String> {
    pass.approver.as_ref().map(|approver| match approver {
        Approver::Policy(name) => format!("policy '{name}'"),
        Approver::Person(_) => pass.agreed.iter().map(|user| person_name(ledger, *user)).collect::<Vec<_>>().join(" and "),
        Approver::BreakGlass => "nobody: the glass was broken".to_owned(),
    })
}

fn view(app: &App, ledger: &Ledger, pass: &Pass) -> PassView {
    view_at(app, ledger, pass, app.node.now())
}

pub fn view_at(app: &App, ledger: &Ledger, pass: &Pass, now: Time) -> PassView {
    let over = ledger.over(pass, now).filter(|_| !pass.state().is_final() || matches!(pass.state(), PassState::Ended { .. }));
    // over and not cleaned up yet is `ending`, whatever the last event said
    let state = match (&over, pass.state()) {
        (Some(_), PassState::Approved { .. } | PassState::Ready { .. }) => "ending",
        (_, state) => state.word(),
    };
    let trouble = || {
        app.node.troubles.get(&format!("pass:{}", pass.id)).or_else(|| {
            let target = ledger.environment(pass.environment)?.target;
            let environment = app.node.troubles.get(&format!("environment:{}", pass.environment));
            environment.or_else(|| app.node.troubles.get(&format!("target:{target}")))
        })
    };
    let env = ledger.environment(pass.environment);
    let approvals = env.map_or(0, |env| ledger.policy(env).approvals(pass.wish.access));
    let because = match (&over, pass.state()) {
        (Some(cause), _) => Some(format!("it {}", cause.in_full())),
        (None, PassState::Requested) => Some(match (ledger.agreed(pass).len(), approvals) {
            (0, 0 | 1) => "it waits for an approval".to_owned(),
            (agreed, most) => format!("it waits for approvals: {agreed} of {most}"),
        }),
        (None, PassState::Approved { .. }) if pass.wish.starts_at.is_some_and(|start| now < start) => Some("it starts later".to_owned()),
        (None, PassState::Approved { .. }) => {
            Some(trouble().map_or_else(|| "the account is being made".to_owned(), |t| format!("the account cannot be made yet: {}", t.why)))
        }
        (None, _) => None,
    };
    let left = pass.ends_at.filter(|_| over.is_none() && matches!(pass.state(), PassState::Approved { .. } | PassState::Ready { .. }));
    PassView {
        id: pass.id.to_string(),
        account: pass.account.to_string(),
        environment: ledger.environment(pass.environment).map(|env| env.spec.name.to_string()).unwrap_or_default(),
        holder: person_name(ledger, pass.holder),
        access: pass.wish.access,
        reason: pass.wish.reason.to_string(),
        category: pass.wish.category.as_ref().map(ToString::to_string),
        ticket: pass.wish.ticket.as_ref().map(ToString::to_string),
        from: pass.wish.from.map(|from| from.to_string()),
        starts_at: pass.wish.starts_at.map(|at| at.to_string()),
        life: pass.life.as_seconds(),
        agreed: if *pass.state() == PassState::Requested { ledger.agreed(pass) } else { pass.agreed.clone() }
            .into_iter()
            .map(|user| person_name(ledger, user))
            .collect(),
        approvals,
        word: pass.word.as_ref().map(ToString::to_string),
        standing: pass.wish.standing.map(|id| ledger.standing(id).map_or_else(|| "one that is gone".to_owned(), |known| known.name.to_string())),
        break_glass: pass.wish.break_glass,
        review: match &pass.review {
            Review::NotNeeded => None,
            Review::Open => Some("open".to_owned()),
            Review::Closed { by, word, .. } => Some(format!("{}: {word}", person_name(ledger, *by))),
        },
        left: pass.left.clone(),
        digest: pass.digest().to_string(),
        state: state.to_owned(),
        because,
        requested_at: pass.requested_at.to_string(),
        approved_by: approver(ledger, pass),
        ends_at: pass.ends_at.map(|at| at.to_string()),
        ends_early: over.is_none().then(|| super::movements::ends_early(ledger, pass.environment)).flatten(),
        seconds_left: left.map_or(0, |at| at.since(now).max(0) as u64 / 1_000_000),
        extendable: over.is_none() && matches!(pass.state(), PassState::Ready { .. }) && approvals == 0,
        sessions: app.node.sessions.of(pass.id),
    }
}
