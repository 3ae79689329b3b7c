//! Maintain > Move database: what is done, what it will end, how far it is, what it swept, and the way back.

use super::{
    form::{Field, Fields, Form},
    time::{length, of_field},
    visit::{Shell, Shown, Visit, page as show},
};
use crate::web::{
    Problem, api,
    api::movements::may_move,
    dto::{FileView, MovementPreview, MovementView, NewMovement, Why},
    problem::Body,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use daypass_core::{environment::Environment, people::Permission};
use daypass_gateway::World;

fn form(visit: &Visit, env: &Environment, files: &[FileView]) -> Form {
    let name = &env.spec.name;
    let others = visit.app.node.ledger(|ledger| {
        let engine = |id| ledger.target(id).map(|target| target.spec.engine);
        let others = ledger.environments().filter(|other| {
            other.id != env.id && engine(other.target) == engine(env.target) && ledger.may(visit.caller.user, Permission::Move, Some(other.id))
        });
        others.map(|other| (other.spec.name.to_string(), other.spec.name.to_string())).collect::<Vec<_>>()
    });
    let mut kinds = vec![("import", "Import a dump"), ("export", "Export to a dump (ends nobody's access)")];
    if !others.is_empty() {
        kinds.insert(0, ("refresh", "Refresh from another environment"));
    }
    if visit.app.mover.restores(name.as_str()) {
        kinds.push(("restore", "Restore to an earlier moment"));
    }
    if visit.app.node.ledger(|ledger| ledger.movements().any(|movement| movement.environment == env.id && movement.kept.is_some())) {
        kinds.push(("undo", "Go back to the database of before"));
    }
    kinds.push(("external", "Another tool does it"));
    let kinds = kinds.into_iter().map(|(value, label)| (value.to_owned(), label.to_owned()));
    let notices =
        [("", "No time: access ends when the new database is ready"), ("5m", "5 minutes before"), ("15m", "15 minutes before"), ("1h", "1 hour before")];
    let files: Vec<&str> = files.iter().take(5).map(|file| file.name.as_str()).collect();
    let there = if files.is_empty() { "No dump is there yet".to_owned() } else { format!("There are: {}", files.join(", ")) };
    let mut form = Form::new(&format!("Move the database of {name}"), &format!("/environments/{name}/move"), "Look at what will end")
        .line("The new database is made beside the old one while people work. Then all access ends, whoever holds it, and the new one takes its place. Old access never comes back. The next page says whom it will end; nothing is done before that.")
        .with(Field::select("kind", "What is done", kinds));
    if !others.is_empty() {
        form = form.with(Field::select("from", "From (refresh)", others));
    }
    form = form.with(Field::text("file", "File (import, export)").hint(there));
    if visit.app.mover.restores(name.as_str()) {
        form = form.with(Field::moment("to", "To the moment (restore)").hint("In UTC"));
    }
    form.with(
        Field::select("notice", "Tell people", notices.map(|(value, label)| (value.to_owned(), label.to_owned())))
            .hint("In their tools and by mail. For another tool, no time is at once"),
    )
    .with(Field::moment("swap_at", "Not before (refresh, import, restore)").hint("In UTC, within 24 hours; empty: as soon as it is ready"))
    .with(Field::tick("stay_closed", "If it fails after access has ended, let nobody in until somebody opens the environment", false))
    .with(Field::text("why", "Why").required().hint("Like: refresh for the upgrade test, CHG-17"))
    .back(format!("/environments/{name}"))
}

fn asked(fields: &Fields) -> Result<NewMovement, Problem> {
    let kind = fields.text("kind");
    let of = |wanted: &[&str], name: &str| fields.owned(name).filter(|_| wanted.contains(&kind.as_str()));
    Ok(NewMovement {
        from: of(&["refresh"], "from"),
        file: of(&["import", "export"], "file"),
        to: if kind == "restore" { of_field(&fields.text("to"))? } else { None },
        why: fields.owned("why"),
        notice: length(&fields.text("notice"))?,
        swap_at: of(&["refresh", "import", "restore"], "swap_at").map(|at| of_field(&at)).transpose()?.flatten(),
        stay_closed: fields.ticked("stay_closed"),
        kind,
    })
}

/// The same once more, with what it will end.
fn confirm(env: &Environment, asked: &NewMovement, preview: &MovementPreview, fields: &Fields) -> Form {
    let name = &env.spec.name;
    let export = asked.kind == "export";
    let submit = if export { "Make the dump" } else { "Begin the movement" };
    let mut form = Form::new(&format!("Move the database of {name}"), &format!("/environments/{name}/move"), submit)
        .line(preview.outcome.clone())
        .back(format!("/environments/{name}/move"));
    form.fields = fields.0.iter().map(|(name, value)| Field::hidden(name, value)).collect();
    form = form.with(Field::hidden("sure", "yes"));
    if export {
        return form;
    }
    let noted = preview.checks.iter().filter(|check| check.verdict != "ok").map(|check| format!("Note: {}. {}", check.what, check.remedy));
    form = noted.fold(form, Form::fact);
    form = preview.ends.iter().fold(form, |form, end| form.fact(format!("Ends: {end}")));
    if preview.ends.is_empty() {
        form = form.fact("Nobody holds access now");
    }
    preview.scripts.iter().fold(form, |form, script| form.fact(format!("Runs before it opens: {script}"))).danger()
}

#[derive(Template)]
#[template(path = "move.html")]
struct Page {
    shell: Shell,
    environment: String,
    /// The one that is under way.
    now: Option<MovementView>,
    before: Vec<MovementView>,
    may_undo: bool,
    /// The last one failed, and closed nothing.
    may_retry: bool,
}

impl Page {
    /// Whole percent, while a total is known.
    fn percent(&self) -> Option<u64> {
        let progress = self.now.as_ref()?.progress.as_ref()?;
        (progress.bytes * 100).checked_div(progress.total_bytes).map(|percent| percent.min(100))
    }

    fn is_external(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.kind == "external")
    }
}

/// Bytes as people read them.
pub fn size(bytes: &u64) -> String {
    match *bytes {
        n if n < 10_000 => format!("{n} B"),
        n if n < 10_000_000 => format!("{} kB", n / 1_000),
        n if n < 10_000_000_000 => format!("{} MB", n / 1_000_000),
        n => format!("{} GB", n / 1_000_000_000),
    }
}

pub async fn page(visit: Visit, Path(name): Path<String>) -> Shown {
    let env = may_move(&visit.app, &visit.caller, &name)?;
    let (now, before): (Vec<_>, Vec<_>) =
        api::movements::of(&visit.app, env.id).into_iter().partition(|view| env.moving.is_some_and(|id| id.to_string() == view.id));
    let may_undo = env.moving.is_none() && before.iter().any(|view| view.kept.is_some());
    let may_retry =
        env.moving.is_none() && before.first().is_some_and(|last| last.status.ends_with("Failed") && !["external", "export"].contains(&last.kind.as_str()));
    Ok(show(&Page { shell: visit.shell(), environment: name, now: now.into_iter().next(), before, may_undo, may_retry }))
}

pub async fn begin_page(visit: Visit, Path(name): Path<String>) -> Shown {
    let env = may_move(&visit.app, &visit.caller, &name)?;
    let Json(files) = api::movements::files(State(visit.app.clone()), visit.caller.clone()).await;
    Ok(visit.form(form(&visit, &env, &files)))
}

/// First what it would end, then the movement itself.
pub async fn begin(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let env = may_move(&visit.app, &visit.caller, &name)?;
    let (state, caller) = (State(visit.app.clone()), visit.caller.clone());
    let done = async {
        let asked = asked(&fields)?;
        if fields.ticked("sure") {
            let _ = api::movements::begin(state, caller, Path(name.clone()), Body(asked)).await?;
            return Ok(visit.done(&format!("/environments/{name}/move"), "begun"));
        }
        let Json(preview) = api::movements::preview(state, caller, Path(name.clone()), Body(asked.clone())).await?;
        match preview.allowed {
            true => Ok(visit.form(confirm(&env, &asked, &preview, &fields))),
            false => Err(Problem::from(preview.outcome)),
        }
    };
    match done.await {
        Ok(done) => Ok(done),
        Err(problem) => {
            let Json(files) = api::movements::files(State(visit.app.clone()), visit.caller.clone()).await;
            Ok(visit.refused(form(&visit, &env, &files), &fields, problem))
        }
    }
}

pub async fn finish(visit: Visit, Path(name): Path<String>) -> Shown {
    let _ = api::movements::finish(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    Ok(visit.done(&format!("/environments/{name}"), "finished"))
}

pub async fn fail(visit: Visit, Path(name): Path<String>, fields: Fields) -> Result<Response, super::visit::Fault> {
    let why = fields.get("why").ok_or_else(|| Problem::from("Say what went wrong.".to_owned()))?;
    let why = Why { why: Some(why.to_owned()) };
    let _ = api::movements::fail(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(why)).await?;
    Ok(visit.done(&format!("/environments/{name}/move"), "failed"))
}

pub async fn cancel(visit: Visit, Path(name): Path<String>) -> Shown {
    let _ = api::movements::cancel(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(Why { why: None })).await?;
    Ok(visit.done(&format!("/environments/{name}/move"), "stopped"))
}

pub async fn retry(visit: Visit, Path(name): Path<String>) -> Shown {
    let _ = api::movements::retry(State(visit.app.clone()), visit.caller.clone(), Path(name.clone())).await?;
    Ok(visit.done(&format!("/environments/{name}/move"), "again"))
}
