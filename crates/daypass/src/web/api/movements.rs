//! Movements: planned, watched, stopped, tried again.

use crate::web::{App, Problem, auth::Caller, dto::*, environment, problem::Body};
use axum::{
    Json,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use daypass_core::{
    allow::AllowEntry,
    command::{Command, Observed},
    environment::Environment,
    event::{Actor, Event},
    ids::*,
    index::{Filter, Kind},
    ledger::Ledger,
    movement::{Movement, MovementKind, MovementState, Phase},
    names::{FileName, Reason},
    people::Permission,
    refusal::Refusal,
    time::{Time, Ttl},
    words,
};
use daypass_gateway::World;
use daypass_targets::{Check, Verdict};
use std::sync::atomic::Ordering;

/// Begins a movement: the new database is made beside the old one; when it is ready, and after the notice, all access to the environment ends.
/// With `external` it ends at once or after the notice. An export ends nobody's.
#[utoipa::path(post, path = "/environments/{environment}/movements", params(("environment" = String, Path)), request_body = NewMovement, responses((status = 200, body = MovementView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn begin(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(asked): Body<NewMovement>) -> Result<Json<MovementView>, Problem> {
    let env = environment(&app, &caller, &name)?;
    let movement = MovementId::new(caller.id());
    let command = command(&app, &caller, &env, &asked, movement)?;
    app.control.run(command, caller.actor()).await?;
    view_of(&app, movement)
}

/// What a movement would end, and for whom. Nothing is done.
#[utoipa::path(post, path = "/environments/{environment}/movements/preview", params(("environment" = String, Path)), request_body = NewMovement, responses((status = 200, body = MovementPreview), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn preview(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Body(asked): Body<NewMovement>,
) -> Result<Json<MovementPreview>, Problem> {
    let env = may_move(&app, &caller, &name)?;
    let command = command(&app, &caller, &env, &asked, MovementId::new(crate::random::id()))?;
    let now = app.node.now();
    let decided = app.node.ledger(|ledger| ledger.decide(&command, caller.actor(), now));
    let kind = if let Command::BeginMovement { movement, kind, .. } = &command { Some((*movement, kind.clone())) } else { None };
    let mut checks = match (&decided, kind) {
        (Ok(_), Some((movement, kind))) => app.mover.look_ahead(&app.node, &env, &kind, movement).await.map_err(Problem::unavailable)?,
        _ => Vec::new(),
    };
    let stops = checks.iter().filter(|check| check.verdict == Verdict::Missing).map(|check| format!("{}: {}", check.what, check.remedy)).collect::<Vec<_>>();
    let (allowed, outcome) = match decided {
        Err(refusal) => (false, refusal.to_string()),
        Ok(_) if !stops.is_empty() => (false, format!("It would stop before anybody's access ends. {}", stops.join(" "))),
        Ok(events) => match events.first() {
            Some(Event::MovementPlanned { kind, cuts_at, .. }) => {
                let made = if kind.is_prepared() { "The new database is made while people work. " } else { "" };
                (true, format!("{made}Everybody is told; access ends {}.", words::cut(kind, *cuts_at)))
            }
            Some(Event::MovementBegun { kind: MovementKind::Export { .. }, .. }) => (true, "A dump is made; nobody's access ends.".to_owned()),
            _ => (true, "All access ends at once.".to_owned()),
        },
    };
    let scripts = app.mover.scripts(&name).map_err(Problem::unavailable)?;
    checks.extend(scripts.skipped.iter().map(|line| Check::note(line.what.clone(), line.done.clone())));
    let masks = env.masks.iter().map(|(column, mask)| format!("mask {mask} of {column}"));
    let (ends, scripts) = match asked.kind.as_str() {
        "export" => (Vec::new(), Vec::new()),
        _ => (ends(&app, &env), masks.chain(scripts.names()).collect()),
    };
    let checks = checks.into_iter().map(super::environments::shown).collect();
    Ok(Json(MovementPreview { allowed, outcome, checks, ends, scripts }))
}

/// Movements of an environment, newest first.
#[utoipa::path(get, path = "/environments/{environment}/movements", params(("environment" = String, Path)), responses((status = 200, body = Vec<MovementView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Vec<MovementView>>, Problem> {
    let env = may_move(&app, &caller, &name)?;
    Ok(Json(of(&app, env.id)))
}

/// The newest hundred movements of an environment, newest first.
pub fn of(app: &App, environment: EnvironmentId) -> Vec<MovementView> {
    app.node.ledger(|ledger| {
        let mut found: Vec<&Movement> = ledger.movements().filter(|movement| movement.environment == environment).collect();
        found.sort_by_key(|movement| std::cmp::Reverse(movement.asked_at));
        found.into_iter().take(100).map(|movement| view(app, ledger, movement)).collect()
    })
}

/// At most so many lines of the log are looked through for one movement: those since it was asked for, of its environment.
const MOST_LINES: usize = 5_000;

/// One movement, with all that the log says of it: what was done to the data before anybody got in, when, and on whose word.
#[utoipa::path(get, path = "/environments/{environment}/movements/{movement}", params(("environment" = String, Path), ("movement" = String, Path, description = "Its id, or `last`")), responses((status = 200, body = MovementReport), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn report(State(app): State<App>, caller: Caller, Path((name, movement)): Path<(String, String)>) -> Result<Json<MovementReport>, Problem> {
    let env = environment(&app, &caller, &name)?;
    if !caller.may(&app, Permission::SeeAccess, Some(env.id)) {
        return Err(Problem::not_permitted());
    }
    let found = app.node.ledger(|ledger| {
        let mut all = ledger.movements().filter(|known| known.environment == env.id);
        let known = if movement == "last" { all.max_by_key(|known| known.asked_at) } else { all.find(|known| known.id.to_string() == movement) };
        known.map(|known| (known.id, known.asked_at, view(&app, ledger, known)))
    });
    let (id, asked_at, view) = found.ok_or_else(|| Refusal::not_found("movement", &movement))?;
    let filter = Filter { environment: Some(env.id), kind: Some(Kind::Movements), from: Some(asked_at), ..Filter::default() };
    let mut lines = match caller.may(&app, Permission::ReadLog, Some(env.id)) {
        true => super::log::lines_where(&app, &filter, MOST_LINES, |event| event.movement() == Some(id)).await?,
        // the log is for those who read it
        false => Vec::new(),
    };
    lines.reverse();
    Ok(Json(MovementReport { movement: view, lines }))
}

/// Gives up a planned movement, or stops one that runs: the database of before stays, and opens again.
#[utoipa::path(post, path = "/environments/{environment}/movement/cancel", params(("environment" = String, Path)), request_body = Why, responses((status = 200, body = MovementView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn cancel(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(why): Body<Why>) -> Result<Json<MovementView>, Problem> {
    let movement = under_way(&app, &caller, &name)?;
    let why: Reason = why.why.unwrap_or_else(|| format!("{} stopped it", caller.name)).parse()?;
    app.control.run(Command::CancelMovement { movement, why }, caller.actor()).await?;
    view_of(&app, movement)
}

/// Runs a failed movement once more: the one that keeps the environment closed, or else the last.
#[utoipa::path(post, path = "/environments/{environment}/movement/retry", params(("environment" = String, Path)), responses((status = 200, body = MovementView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn retry(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<MovementView>, Problem> {
    let env = may_move(&app, &caller, &name)?;
    let last = || {
        app.node.ledger(|ledger| {
            let here = ledger.movements().filter(|movement| movement.environment == env.id && movement.kind.is_ours());
            here.max_by_key(|movement| movement.asked_at).map(|movement| movement.id)
        })
    };
    let none = || Refusal::state(format!("The database of {name} was never moved."), format!("A movement begins with `daypass move {name}`."));
    let movement = env.moving.or_else(last).ok_or_else(none)?;
    app.control.run(Command::RetryMovement { movement }, caller.actor()).await?;
    view_of(&app, movement)
}

/// Says that another tool's movement is done, or opens an environment whose movement failed, with the database that is there.
#[utoipa::path(post, path = "/environments/{environment}/movement/finish", params(("environment" = String, Path)), responses((status = 200, body = MovementView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn finish(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<MovementView>, Problem> {
    let movement = under_way(&app, &caller, &name)?;
    // what others put in place is swept before anybody is let in; one that failed is opened as it is
    let known = app.node.ledger(|ledger| ledger.movement(movement).cloned());
    if let Some(known) = known.filter(|known| !known.kind.is_ours() && matches!(known.state, MovementState::Running { .. })) {
        let (node, mover) = (app.node.clone(), app.mover.clone());
        // whoever asked may go away: what was begun is done
        let sweeping = tokio::spawn(async move {
            let mut swept = Vec::new();
            let done = mover.sweep_in_place(&node, &known, &mut swept).await;
            (swept, done)
        });
        let (swept, done) = sweeping.await.map_err(|e| Problem::from(Refusal::state(format!("The sweep broke off: {e}."), "Try again.")))?;
        app.control.run(Command::Observed(Observed::Swept { movement, swept }), Actor::System).await?;
        done.map_err(|why| {
            Refusal::state(
                format!("What came with the new database could not be swept: {why}"),
                format!("Mend it and finish again; or open it as it is: `daypass move {name} external fail`, then `daypass move {name} finish`."),
            )
        })?;
    }
    app.control.run(Command::FinishMovement { movement }, caller.actor()).await?;
    view_of(&app, movement)
}

/// Says that another tool's movement failed: the environment stays closed until somebody finishes it.
#[utoipa::path(post, path = "/environments/{environment}/movement/fail", params(("environment" = String, Path)), request_body = Why, responses((status = 200, body = MovementView), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn fail(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(why): Body<Why>) -> Result<Json<MovementView>, Problem> {
    let movement = under_way(&app, &caller, &name)?;
    let why: Reason = why.why.unwrap_or_default().parse()?;
    app.control.run(Command::FailMovement { movement, why }, caller.actor()).await?;
    view_of(&app, movement)
}

/// The dumps that can be imported, and those that exports made.
#[utoipa::path(get, path = "/files", responses((status = 200, body = Vec<FileView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn files(State(app): State<App>, caller: Caller) -> Json<Vec<FileView>> {
    let entries = std::fs::read_dir(app.mover.files()).into_iter().flatten().flatten();
    let view = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_str()?.parse::<FileName>().ok().filter(|name| is_theirs(&app, &caller, name))?;
        let meta = entry.metadata().ok()?;
        let modified = jiff::Timestamp::try_from(meta.modified().ok()?).ok()?;
        (!name.as_str().ends_with(".part")).then(|| FileView { name: name.to_string(), bytes: meta.len(), modified_at: modified.to_string() })
    };
    let mut found: Vec<FileView> = entries.filter_map(view).collect();
    found.sort_by(|a, b| b.modified_at.cmp(&a.modified_at));
    Json(found)
}

/// One of them.
#[utoipa::path(get, path = "/files/{file}", params(("file" = String, Path)), responses((status = 200, description = "The dump", body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn file(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    let not_found = || Problem::from(Refusal::not_found("file", &name));
    let parsed: FileName = name.parse().map_err(|_| not_found())?;
    if !is_theirs(&app, &caller, &parsed) {
        return Err(not_found());
    }
    let path = app.mover.file(&parsed);
    // a link would lead out of the folder
    if !tokio::fs::symlink_metadata(&path).await.is_ok_and(|meta| meta.is_file()) {
        return Err(not_found());
    }
    let file = tokio::fs::File::open(&path).await.map_err(|_| not_found())?;
    // it is on record before the first byte leaves
    let command = Command::FetchFile { file: parsed.clone(), environment: made_of(&app, &parsed) };
    app.control.run(command, caller.actor()).await?;
    let pieces = futures_util::stream::unfold(file, |mut file| async move {
        let mut piece = vec![0; 64 * 1024];
        match tokio::io::AsyncReadExt::read(&mut file, &mut piece).await {
            Ok(0) => None,
            Ok(n) => {
                piece.truncate(n);
                Some((Ok(piece), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")], axum::body::Body::from_stream(pieces)).into_response())
}

/// Whether a dump is the caller's to use: one that an export made is as secret as its environment, any other is for those who may move all.
fn is_theirs(app: &App, caller: &Caller, file: &FileName) -> bool {
    let made = made_of(app, file);
    app.node.ledger(|ledger| ledger.may(caller.user, Permission::Move, made))
}

/// Whose database the export of this name holds: the last one, when there was another of that name before.
fn made_of(app: &App, file: &FileName) -> Option<EnvironmentId> {
    app.node.ledger(|ledger| {
        let made = ledger.movements().filter(|movement| movement.made.is_some());
        let made = made.filter(|movement| matches!(&movement.kind, MovementKind::Export { file: known } if known == file));
        made.max_by_key(|movement| movement.over_at()).map(|movement| movement.environment)
    })
}

/// The environment, if the caller may move its database.
pub fn may_move(app: &App, caller: &Caller, name: &str) -> Result<Environment, Problem> {
    let env = environment(app, caller, name)?;
    if caller.may(app, Permission::Move, Some(env.id)) { Ok(env) } else { Err(Problem::not_permitted()) }
}

/// What is asked for, as a command.
pub fn command(app: &App, caller: &Caller, env: &Environment, asked: &NewMovement, movement: MovementId) -> Result<Command, Problem> {
    let name = &env.spec.name;
    let file = || asked.file.as_deref().ok_or_else(|| Refusal::invalid("Say which file.")).and_then(|file| file.parse::<FileName>().map_err(Refusal::invalid));
    let kind = match asked.kind.as_str() {
        "external" => MovementKind::External,
        "refresh" => {
            let from = asked.from.as_deref().ok_or_else(|| Refusal::invalid("Say from which environment."))?;
            MovementKind::Refresh { from: environment(app, caller, from)?.id }
        }
        "import" => {
            let file = file()?;
            if !is_theirs(app, caller, &file) || std::fs::symlink_metadata(app.mover.file(&file)).is_err() {
                return Err(Refusal::not_found("file", file.as_str()).into());
            }
            MovementKind::Import { file }
        }
        "export" => {
            let file = file()?;
            if app.mover.file(&file).exists() {
                return Err(Refusal::state(format!("There already is a file {file}."), "Choose another name.").into());
            }
            MovementKind::Export { file }
        }
        "restore" => {
            if !app.mover.restores(name.as_str()) {
                return Err(Refusal::state(
                    format!("No command restores {name} to an earlier moment."),
                    "An administrator names one in the configuration: movement.restore (docs/movement.md).",
                )
                .into());
            }
            let to = asked.to.as_deref().ok_or_else(|| Refusal::invalid("Say to which moment, like 2026-11-24T10:00:00Z."))?;
            let to = moment(to)?;
            if to >= app.node.now() {
                return Err(Refusal::invalid("That moment is not over yet.").into());
            }
            MovementKind::Restore { to }
        }
        "undo" => {
            let last = app.node.ledger(|ledger| {
                let kept = ledger.movements().filter(|movement| movement.environment == env.id && movement.kept.is_some());
                kept.max_by_key(|movement| movement.over_at()).map(|movement| movement.id)
            });
            let none = || Refusal::state(format!("No database of before is kept for {name}."), "A policy says how many days it is kept (keep_days).");
            MovementKind::Undo { of: last.ok_or_else(none)? }
        }
        _ => return Err(Refusal::invalid("A movement is external, refresh, import, restore, undo or export.").into()),
    };
    let why: Reason = asked.why.clone().filter(|why| !why.trim().is_empty()).unwrap_or_else(|| "the database is being replaced".to_owned()).parse()?;
    let notice = asked.notice.filter(|seconds| *seconds > 0).map(Ttl::seconds).transpose()?;
    let swap_at = asked.swap_at.as_deref().map(moment).transpose()?;
    Ok(Command::BeginMovement { movement, environment: env.id, kind, why, notice, swap_at, stay_closed: asked.stay_closed })
}

fn moment(text: &str) -> Result<Time, Refusal> {
    let wrong = |_| Refusal::invalid("A moment is written like 2026-11-24T10:00:00Z.");
    Ok(Time::from_micros(text.parse::<jiff::Timestamp>().map_err(wrong)?.as_microsecond()))
}

/// All that a movement ends now.
fn ends(app: &App, env: &Environment) -> Vec<String> {
    let now = app.node.now();
    let mut ends: Vec<String> = super::passes::live_on(app, env.id)
        .iter()
        .map(|pass| format!("account {} of {}, with {} sessions", pass.account, pass.holder, pass.sessions))
        .collect();
    app.node.ledger(|ledger| {
        let live = |entry: &&AllowEntry| entry.environment == env.id && entry.is_live(env.epoch(), now);
        ends.extend(ledger.allow().iter().filter(live).map(|entry| {
            let ranges: Vec<String> = entry.ranges.iter().map(ToString::to_string).collect();
            let whose = match entry.owner {
                daypass_core::allow::Owner::Person(user) => crate::web::person_name(ledger, user),
                daypass_core::allow::Owner::Shared => "everyone".to_owned(),
            };
            format!("allowed address {} for {whose}", ranges.join(";"))
        }));
    });
    ends
}

fn under_way(app: &App, caller: &Caller, name: &str) -> Result<MovementId, Problem> {
    let env = may_move(app, caller, name)?;
    env.moving.ok_or_else(|| Refusal::state(format!("No movement of {name} is under way."), format!("One begins with `daypass move {name}`.")).into())
}

fn view_of(app: &App, id: MovementId) -> Result<Json<MovementView>, Problem> {
    let view = app.node.ledger(|ledger| ledger.movement(id).map(|movement| view(app, ledger, movement)));
    view.map(Json).ok_or_else(|| Refusal::not_found("movement", &id.to_string()).into())
}

pub fn view(app: &App, ledger: &Ledger, movement: &Movement) -> MovementView {
    let replaces = movement.kind.replaces();
    let running = matches!(movement.state, MovementState::Running { .. });
    let still_in = if running && replaces { still_in(app, ledger, movement.environment) } else { 0 };
    let state = match &movement.state {
        MovementState::Planned { cuts_at, phase, .. } if movement.kind.is_prepared() => {
            let waits = app.mover.waits_for(movement.id).map(|why| format!("ready, and held up: {why}"));
            let made = match phase {
                Phase::Ready if waits.is_some() => waits.as_deref().unwrap_or_default(),
                Phase::Ready => "ready: the new database waits for its time",
                other => &format!("preparing: {}", words::doing(*other)),
            };
            let when = match *cuts_at > app.node.now() {
                true => format!("at {cuts_at}"),
                false => format!("as soon as the new one is ready{}", by_the_clock(app, movement.id, *phase)),
            };
            let closed = frozen(ledger, movement);
            if closed { format!("{made}; access is closed") } else { format!("{made}; people work in the old one, and access ends {when}") }
        }
        MovementState::Planned { cuts_at, .. } => format!("planned: access ends at {cuts_at} at the latest"),
        MovementState::Running { .. } if !replaces => "running: the dump is made; nobody's access ended".to_owned(),
        MovementState::Running { .. } if !movement.kind.is_ours() => match still_in {
            0 => "running: access is closed, and nobody is in, until somebody says that it is finished".to_owned(),
            some => format!("running: access is closed; {some} accounts or sessions are still ending on the target"),
        },
        MovementState::Running { phase } => format!("running: access is closed; {}", words::doing(*phase)),
        MovementState::Failed { why, .. } if !replaces => format!("failed ({why})"),
        MovementState::Failed { why, .. } if frozen(ledger, movement) => format!("failed ({why}): access stays closed until it is tried again or finished"),
        MovementState::Failed { why, .. } => format!("failed ({why}): the database of before is in place, and open"),
        MovementState::Finished { at } if !replaces => format!("finished at {at}"),
        MovementState::Finished { at } => format!("finished at {at}: access is open for new requests"),
        MovementState::SignedOff { at } => format!("failed, and somebody opened the environment at {at}"),
        MovementState::Withdrawn { at, why } => {
            let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let ended = if movement.begun_at.is_none() { ": nobody's access ended" } else { "" };
            format!("given up at {at}{why}{ended}")
        }
    };
    let running = match movement.state {
        MovementState::Running { phase } | MovementState::Planned { phase, .. } if movement.kind.is_ours() => Some(phase),
        _ => None,
    };
    MovementView {
        id: movement.id.to_string(),
        environment: ledger.environment(movement.environment).map(|env| env.spec.name.to_string()).unwrap_or_default(),
        kind: movement.kind.as_str().to_owned(),
        order: words::order(ledger, &movement.kind),
        why: movement.why.to_string(),
        status: movement.state.status(&movement.kind).to_owned(),
        state,
        phase: running.map(|phase| phase.as_str().to_owned()),
        asked_at: movement.asked_at.to_string(),
        begun_at: movement.begun_at.map(|at| at.to_string()),
        steps: Phase::of(&movement.kind).iter().map(|phase| phase.as_str().to_owned()).collect(),
        closed: frozen(ledger, movement),
        cuts_at: match movement.state {
            MovementState::Planned { cuts_at, .. } => Some(cuts_at.to_string()),
            _ => None,
        },
        over_at: movement.over_at().map(|at| at.to_string()),
        still_in,
        progress: running.and_then(|_| progress(app, movement.id)),
        swept: movement.swept.iter().map(|line| SweptView { what: line.what.clone(), done: line.done.clone() }).collect(),
        kept: movement.kept.as_ref().map(|kept| KeptView { database: kept.database.to_string(), until: kept.until.to_string() }),
        made: movement.made.as_ref().map(|made| MadeView { bytes: made.bytes, sha256: made.sha256.clone() }),
    }
}

/// When the copy is made at the pace it has, to the minute.
fn by_the_clock(app: &App, movement: MovementId, phase: Phase) -> String {
    let left = progress(app, movement).and_then(|progress| progress.seconds_left).filter(|_| phase == Phase::Copy);
    let at = left.and_then(|left| jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(i64::try_from(left).ok()?)).ok());
    at.map(|at| format!(" (at this pace the copy is made at about {}, then it is swept)", at.strftime("%H:%M UTC"))).unwrap_or_default()
}

/// What whoever has access to a database that is about to be replaced should know.
pub fn ends_early(ledger: &Ledger, environment: EnvironmentId) -> Option<String> {
    let movement = ledger.movement(ledger.environment(environment)?.moving?)?;
    let MovementState::Planned { cuts_at, .. } = movement.state else { return None };
    let ends = words::cut(&movement.kind, cuts_at);
    Some(format!(
        "the database will be replaced ({}): access ends {ends}, and what is written until then goes with the database of before",
        words::order(ledger, &movement.kind)
    ))
}

/// Whether it keeps the environment closed.
fn frozen(ledger: &Ledger, movement: &Movement) -> bool {
    ledger.environment(movement.environment).is_some_and(|env| env.frozen_by == Some(movement.id))
}

/// Accounts on the target and sessions: while there are any, nobody may touch the database.
fn still_in(app: &App, ledger: &Ledger, environment: EnvironmentId) -> usize {
    let accounts = ledger.open_passes().filter(|pass| pass.environment == environment && *pass.state() != daypass_core::pass::State::Requested).count();
    accounts + app.node.sessions.all().iter().filter(|session| session.environment == environment).count()
}

fn progress(app: &App, id: MovementId) -> Option<ProgressView> {
    let progress = app.mover.progress(id)?;
    let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    let (bytes, total_bytes) = (read(&progress.bytes), read(&progress.total_bytes));
    let bytes_per_second = (bytes as f64 / progress.began.elapsed().as_secs_f64().max(0.001)) as u64;
    let left = total_bytes.saturating_sub(bytes).checked_div(bytes_per_second).filter(|_| bytes > 0 && total_bytes > 0);
    Some(ProgressView {
        bytes,
        total_bytes,
        objects: read(&progress.objects),
        total_objects: read(&progress.total_objects),
        bytes_per_second,
        seconds_left: left,
    })
}
