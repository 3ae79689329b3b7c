//! The policy of an environment: in sentences, as a form, and what it would mean for a request.

use super::{
    form::{Field, Fields, Form},
    time::{length, short},
    visit::{Shell, Shown, Visit, page as show},
};
use crate::web::{
    Problem, api,
    dto::{NewPass, PolicyView, Preview, PreviewView},
    environment as find,
    problem::Body,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, State},
};
use daypass_core::{
    environment::Engine,
    ledger::Ledger,
    pass::Access,
    people::{Permission, Role, Scope},
    policy::{Approvals, Extra, Masking, Policy, Reveal},
};
use daypass_gateway::World;

/// The rules, for those who have to keep to them.
pub fn sentences(policy: &Policy) -> Vec<String> {
    let access: Vec<&str> = policy.access.iter().map(|access| words(*access)).collect();
    let mut said = vec![
        format!("Policy {}: one may ask for {}.", policy.name, access.join(" or for ")),
        format!(
            "Access lasts {} unless asked for otherwise, at most {}, and {} with all extensions.",
            policy.default_life, policy.longest_life, policy.longest_total
        ),
    ];
    for access in &policy.access {
        match policy.approvals(*access) {
            0 => {}
            1 => said.push(format!("Somebody else approves {} first.", words(*access))),
            n => said.push(format!("{n} others approve {} first.", words(*access))),
        }
    }
    if !policy.break_glass.is_empty() {
        let roles: Vec<&str> = policy.break_glass.iter().map(|role| role.as_str()).collect();
        said.push(format!("In an emergency a {} may get in without approval; everyone is told, and somebody else reviews it.", roles.join(" or a ")));
    }
    if let Some(pattern) = &policy.ticket_pattern {
        said.push(format!("Each request names a ticket like {pattern}."));
    }
    if let Some(idle) = policy.idle {
        said.push(format!("A session in which nothing happens for {idle} ends."));
    }
    if policy.reveal == Reveal::Once {
        said.push("The password of an account is shown once.".to_owned());
    }
    said.push(if policy.record { "Statements are put on record." } else { "Statements are not put on record; sessions are." }.to_owned());
    said
}

fn words(access: Access) -> &'static str {
    match access {
        Access::Read => "read access",
        Access::ReadWrite => "read-write access",
    }
}

#[derive(Template)]
#[template(path = "policy.html")]
struct Page {
    shell: Shell,
    environment: String,
    sentences: Vec<String>,
    may_set: bool,
    preview: Option<Form>,
    outcome: Option<PreviewView>,
}

pub async fn page(visit: Visit, Path(name): Path<String>) -> Shown {
    shown(&visit, &name, None, None)
}

fn shown(visit: &Visit, name: &str, preview: Option<Form>, outcome: Option<PreviewView>) -> Shown {
    let env = find(&visit.app, &visit.caller, name)?;
    let policy = visit.app.node.ledger(|ledger| ledger.policy(&env).clone());
    let may = |environment| visit.caller.may(&visit.app, Permission::ManageEnvironments, environment);
    let may_set = may(Some(env.id));
    // it names everybody, so it is for those who set up everything
    let preview = preview.or_else(|| may(None).then(|| preview_form(visit, name, &policy)));
    Ok(show(&Page { shell: visit.shell(), environment: name.to_owned(), sentences: sentences(&policy), may_set, preview, outcome }))
}

fn preview_form(visit: &Visit, name: &str, policy: &Policy) -> Form {
    let people = visit.app.node.ledger(|ledger| ledger.users().map(|user| (user.name.to_string(), user.name.to_string())).collect::<Vec<_>>());
    let access = policy.access.iter().map(|access| (access.as_str().to_owned(), words(*access).to_owned()));
    let mut form = Form::new("What would this mean?", &format!("/environments/{name}/policy/preview"), "Try it")
        .line("Nothing is asked for: this says what a request would come to.")
        .with(Field::select("person", "If this person asks", people))
        .with(Field::select("access", "for", access))
        .with(Field::text("life", "How long").value(&short(policy.default_life.as_seconds())))
        .with(Field::text("reason", "Details").value("a look around"));
    if !policy.categories.is_empty() {
        let offered = policy.categories.iter().map(|category| (category.to_string(), category.to_string()));
        form = form.with(Field::select("category", "Reason for access", offered));
    }
    form.with(Field::text("ticket", "Ticket")).with(Field::tick("break_glass", "Break the glass", false)).back(format!("/environments/{name}/policy"))
}

pub async fn preview_page(visit: Visit, Path(name): Path<String>) -> Shown {
    shown(&visit, &name, None, None)
}

pub async fn preview(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let env = find(&visit.app, &visit.caller, &name)?;
    let policy = visit.app.node.ledger(|ledger| ledger.policy(&env).clone());
    let tried = async {
        let request = NewPass {
            access: if fields.get("access") == Some("read_write") { Access::ReadWrite } else { Access::Read },
            reason: fields.text("reason"),
            life: length(&fields.text("life"))?,
            category: fields.owned("category"),
            ticket: fields.owned("ticket"),
            starts_at: None,
            break_glass: fields.ticked("break_glass"),
            standing: None,
        };
        let preview = Preview { person: fields.text("person"), request };
        api::environments::preview(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(preview)).await
    };
    let form = preview_form(&visit, &name, &policy).filled(&fields);
    match tried.await {
        Ok(Json(outcome)) => shown(&visit, &name, Some(form), Some(outcome)),
        Err(problem) => shown(&visit, &name, Some(Form { problem: Some(problem), ..form }), None),
    }
}

/// The policy that holds on an environment, and whether its engine has rights besides reading and writing.
fn known(visit: &Visit, name: &str) -> Result<(Policy, bool), Problem> {
    let env = find(&visit.app, &visit.caller, name)?;
    let engine = |ledger: &Ledger| ledger.target(env.target).map(|target| target.spec.engine);
    Ok(visit.app.node.ledger(|ledger| (ledger.policy(&env).clone(), engine(ledger) == Some(Engine::SqlServer))))
}

fn set_form(policy: &Policy, with_extras: bool, of: &str, action: &str) -> Form {
    let approvals = |access: Access| {
        let chosen = match policy.approvals(access) {
            0 => "none",
            1 => "one",
            _ => "two",
        };
        let choices = [("none", "Nobody has to"), ("one", "One other person"), ("two", "Two others")];
        let choices = choices.map(|(value, label)| (value.to_owned(), label.to_owned()));
        Field::select(&format!("approval_{}", access.as_str()), &format!("Who approves {}", words(access)), choices).value(chosen)
    };
    let time = |name: &str, label: &str, ttl: daypass_core::time::Ttl| Field::text(name, label).required().value(&short(ttl.as_seconds()));
    let number = |name: &str, label: &str, n: u64| Field::text(name, label).required().value(&n.to_string());
    let categories: Vec<&str> = policy.categories.iter().map(|category| category.as_str()).collect();
    let mut form = Form::new(&format!("Policy of {of}"), action, "Save the policy")
        .line("It holds from now on: for new requests, at each approval and at each connect.")
        .with(Field::text("name", "Name").required().value(policy.name.as_str()))
        .with(Field::tick("access_read", "Read access may be asked for", policy.access.contains(&Access::Read)))
        .with(approvals(Access::Read))
        .with(Field::tick("access_read_write", "Read-write access may be asked for", policy.access.contains(&Access::ReadWrite)))
        .with(approvals(Access::ReadWrite));
    for role in Role::ALL {
        form = form.with(Field::tick(
            &format!("glass_{}", role.as_str()),
            &format!("A {} may break the glass", role.as_str()),
            policy.break_glass.contains(&role),
        ));
    }
    form = form
        .with(time("default_life", "Usual length", policy.default_life))
        .with(time("longest_life", "Longest length", policy.longest_life))
        .with(time("longest_total", "Longest with extensions", policy.longest_total))
        .with(number("reason_least", "Least characters in a reason", policy.reason_least.into()))
        .with(
            Field::text("reason_pattern", "Pattern in a reason")
                .value(&policy.reason_pattern.as_ref().map(ToString::to_string).unwrap_or_default())
                .hint("A regular expression; empty for none"),
        )
        .with(Field::area("categories", "Kinds of reason").value(&categories.join("\n")).hint("One a line; empty for no choice"))
        .with(
            Field::text("ticket_pattern", "Pattern of tickets")
                .value(&policy.ticket_pattern.as_ref().map(ToString::to_string).unwrap_or_default())
                .hint("A regular expression like ^OPS-[0-9]+$; empty when no ticket is asked for"),
        )
        .with(
            Field::text("idle", "Idle sessions end after")
                .value(&policy.idle.map(|idle| short(idle.as_seconds())).unwrap_or_default())
                .hint("Like 30m; empty for never"),
        )
        .with(Field::tick("once", "Show a password once", policy.reveal == Reveal::Once))
        .with(Field::tick("record", "Put statements on record", policy.record))
        .with(number("live_passes", "Accounts at once per person", policy.live_passes.into()))
        .with(number("sessions_per_pass", "Sessions at once per account", policy.sessions_per_pass.into()))
        .with(number("widest_v4", "Widest IPv4 range", policy.widest_v4.into()).hint("A prefix length: 24 allows 256 addresses"))
        .with(number("widest_v6", "Widest IPv6 range", policy.widest_v6.into()))
        .with(
            Field::text("movements_per_day", "Movements a day")
                .value(&policy.movements_per_day.map(|most| most.to_string()).unwrap_or_default())
                .hint("Started within 24 hours; empty for as many as one likes"),
        )
        .with(
            Field::text("rotate_days", "Days after which a standing account gets a new password")
                .value(&policy.rotate_days.map(|days| days.to_string()).unwrap_or_default())
                .hint("In managed environments; empty for never"),
        )
        .with(
            Field::text("rotate_after_reveal", "Time after which a standing account's password that was shown is changed")
                .value(&policy.rotate_after_reveal.map(|time| short(time.as_seconds())).unwrap_or_default())
                .hint("Like 1h; empty for never"),
        )
        .with(Field::tick(
            "drop_leftovers",
            "All that an account owns when it ends is dropped; else what runs is, and data goes to a role without rights",
            policy.drop_leftovers,
        ))
        .with(number("keep_days", "Days that a replaced database is kept", policy.keep_days.into()))
        .with(Field::tick(
            "masking",
            "A refresh or an import opens only when each column that looks personal is declared, or checks look at the copy",
            policy.masking == Masking::Required,
        ));
    if with_extras {
        for extra in Extra::ALL {
            form = form.with(Field::tick(&format!("extra_{}", extra.as_sql()), &format!("Accounts have {}", extra.as_sql()), policy.extras.contains(&extra)));
        }
    }
    form
}

fn environment_form(visit: &Visit, name: &str) -> Result<Form, Problem> {
    let (policy, with_extras) = known(visit, name)?;
    Ok(set_form(&policy, with_extras, name, &format!("/environments/{name}/policy/set")).back(format!("/environments/{name}/policy")))
}

pub async fn set_page(visit: Visit, Path(name): Path<String>) -> Shown {
    Ok(visit.form(environment_form(&visit, &name)?))
}

pub async fn set(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let (policy, with_extras) = known(&visit, &name)?;
    let set = async {
        let policy = of_fields(&fields, &policy, with_extras)?;
        api::environments::set_policy(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(policy)).await
    };
    match set.await {
        Ok(_) => Ok(visit.done(&format!("/environments/{name}/policy"), "saved")),
        Err(problem) => Ok(visit.refused(environment_form(&visit, &name)?, &fields, problem)),
    }
}

/// The policy of a project: for all its environments that have none of their own.
fn project_form(visit: &Visit, name: &str) -> Result<(Policy, Form), Problem> {
    let id = api::environments::project_id(&visit.app, &visit.caller, name)?;
    let policy = visit.app.node.ledger(|ledger| ledger.own_policy(Scope::Project(id)).cloned()).unwrap_or_default();
    let form = set_form(&policy, true, &format!("project {name}"), &format!("/projects/{name}/policy"));
    Ok((policy, form.line("It holds on all environments of the project that have no policy of their own.").back("/administration")))
}

pub async fn project_page(visit: Visit, Path(name): Path<String>) -> Shown {
    Ok(visit.form(project_form(&visit, &name)?.1))
}

pub async fn set_project(visit: Visit, Path(name): Path<String>, fields: Fields) -> Shown {
    let (policy, form) = project_form(&visit, &name)?;
    let set = async {
        let policy = of_fields(&fields, &policy, true)?;
        api::environments::project_policy(State(visit.app.clone()), visit.caller.clone(), Path(name.clone()), Body(policy)).await
    };
    match set.await {
        Ok(_) => Ok(visit.done("/administration", "saved")),
        Err(problem) => Ok(visit.refused(form, &fields, problem)),
    }
}

fn of_fields(fields: &Fields, known: &Policy, with_extras: bool) -> Result<PolicyView, Problem> {
    let time = |name: &str| length(&fields.text(name))?.ok_or_else(|| format!("{} is missing.", name.replace('_', " ")));
    fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Result<T, String> {
        fields.text(name).trim().parse().map_err(|_| format!("{} is not a number that fits.", name.replace('_', " ")))
    }
    let levels = [Access::Read, Access::ReadWrite];
    let approval = levels.into_iter().filter_map(|access| match fields.get(&format!("approval_{}", access.as_str())) {
        Some("one") => Some((access, Approvals::One)),
        Some("two") => Some((access, Approvals::Two)),
        _ => None,
    });
    let extras = Extra::ALL.into_iter().filter(|extra| fields.ticked(&format!("extra_{}", extra.as_sql())));
    Ok(PolicyView {
        name: fields.text("name").trim().to_owned(),
        access: levels.into_iter().filter(|access| fields.ticked(&format!("access_{}", access.as_str()))).map(|access| access.as_str().to_owned()).collect(),
        approval: approval.collect(),
        break_glass: Role::ALL.into_iter().filter(|role| fields.ticked(&format!("glass_{}", role.as_str()))).collect(),
        default_life: time("default_life")?,
        longest_life: time("longest_life")?,
        longest_total: time("longest_total")?,
        reason_least: number(fields, "reason_least")?,
        reason_pattern: fields.owned("reason_pattern"),
        categories: fields.text("categories").lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect(),
        ticket_pattern: fields.owned("ticket_pattern"),
        reveal: if fields.ticked("once") { Reveal::Once } else { Reveal::WhileValid },
        idle: length(&fields.text("idle"))?,
        record: fields.ticked("record"),
        live_passes: number(fields, "live_passes")?,
        sessions_per_pass: number(fields, "sessions_per_pass")?,
        widest_v4: number(fields, "widest_v4")?,
        widest_v6: number(fields, "widest_v6")?,
        movements_per_day: fields.owned("movements_per_day").map(|_| number(fields, "movements_per_day")).transpose()?,
        keep_days: number(fields, "keep_days")?,
        drop_leftovers: fields.ticked("drop_leftovers"),
        masking: if fields.ticked("masking") { Masking::Required } else { Masking::Optional },
        rotate_days: fields.owned("rotate_days").map(|_| number(fields, "rotate_days")).transpose()?,
        rotate_after_reveal: length(&fields.text("rotate_after_reveal"))?,
        extras: if with_extras { extras.collect() } else { known.extras.clone() },
    })
}
