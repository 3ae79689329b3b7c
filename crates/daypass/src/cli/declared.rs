//! What administrators set up, as a file: shown as the difference to what is, then carried out. Nothing is ever removed because a file
//! does not mention it; a role is taken from a person whom the file does mention.

use super::{
    client::{Client, Failure},
    duration,
    people::role,
    show::Show,
};
use crate::web::dto::*;
use clap::Subcommand;
use daypass_core::{masks::Masks, policy::Policy, time::Ttl};
use reqwest::Method;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
};

#[derive(Subcommand)]
pub enum Verb {
    /// Make projects, environments, policies, people and roles as a file says; shows first what would change
    Apply {
        /// YAML, in the form that `daypass export` writes
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
        /// Only show what would change
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
    },
    /// Write what is set up, in the form that `daypass apply` reads: without any secret
    Export,
}

pub async fn run(verb: Verb, client: &Client, show: Show) -> Result<(), Failure> {
    let now: Declared = client.get(&["export"], &[]).await?;
    match verb {
        Verb::Export => {
            let text = serde_norway::to_string(&now).map_err(|e| Failure::failed(e.to_string()))?;
            show.text(&text);
            Ok(())
        }
        Verb::Apply { file, yes, dry_run } => {
            let text = std::fs::read_to_string(&file).map_err(|e| Failure::failed(format!("{} cannot be read: {e}", file.display())))?;
            let wanted: Declared = serde_norway::from_str(&text).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
            let steps = steps(&now, &wanted).map_err(|why| Failure::failed(format!("{}: {why}", file.display())))?;
            if steps.is_empty() {
                show.done("Nothing to do: all is as the file says.");
                return Ok(());
            }
            for step in &steps {
                show.text(&step.to_string());
            }
            if dry_run || !(yes || agreed()?) {
                return Ok(());
            }
            let folder = file.parent().unwrap_or(Path::new("."));
            for step in steps {
                let what = step.to_string();
                step.carry_out(client, folder).await.map_err(|failure| Failure { title: format!("{what}: {}", failure.title), ..failure })?;
            }
            show.done("Done.");
            Ok(())
        }
    }
}

/// Asks on the terminal. Where there is none, the answer is to say `--yes`.
fn agreed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::failed("nothing was done: there is no terminal to ask on. Say --yes, or --dry-run to see only"));
    }
    eprint!("Do this? [y/N] ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::failed(e.to_string()))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Rules that are a length of time, in seconds.
const LENGTHS: [&str; 5] = ["default_life", "longest_life", "longest_total", "idle", "rotate_after_reveal"];

/// A policy to set, and which of its rules are others than before.
struct Changed {
    policy: Box<PolicyView>,
    rules: Vec<String>,
}

/// One change.
enum Step {
    AddProject(String),
    ProjectPolicy(String, Changed),
    AddEnvironment(String, Box<DeclaredEnvironment>),
    /// With what is other than before.
    SetTarget(String, Box<DeclaredEnvironment>, Vec<&'static str>),
    SetKind(String, String),
    SetAccounts(String, Box<DeclaredEnvironment>, Vec<&'static str>),
    EnvironmentPolicy(String, Changed),
    SetMasks(String, Masks),
    AddPerson(String, DeclaredPerson),
    Give(String, String),
    Take(String, String),
    Mail(String, Option<String>),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::AddProject(name) => write!(f, "+ project {name}"),
            Step::ProjectPolicy(name, policy) => write!(f, "~ policy of project {name}: {}", policy.rules.join(", ")),
            Step::AddEnvironment(name, env) => write!(f, "+ environment {name}: {} on {}", env.database, place(env)),
            Step::SetTarget(name, env, what) => write!(f, "~ server of {name} and of all on it ({}): {} as {}", what.join(", "), place(env), env.admin),
            Step::SetKind(name, kind) => write!(f, "~ {name} is {kind}"),
            Step::SetAccounts(name, _, what) => write!(f, "~ accounts of {name} ({})", what.join(", ")),
            Step::EnvironmentPolicy(name, policy) => write!(f, "~ policy of {name}: {}", policy.rules.join(", ")),
            Step::SetMasks(name, masks) => write!(f, "~ movements of {name} mask {} columns", masks.len()),
            Step::AddPerson(name, _) => write!(f, "+ person {name}"),
            Step::Give(name, role) => write!(f, "+ {name} is {role}"),
            Step::Take(name, role) => write!(f, "- {name} is {role} no more"),
            Step::Mail(name, Some(mail)) => write!(f, "~ notices of {name} go to {mail}"),
            Step::Mail(name, None) => write!(f, "~ {name} gets no notices"),
        }
    }
}

fn place(env: &DeclaredEnvironment) -> String {
    format!("{}:{}", env.host, env.port)
}

/// What has to be done for things to be as wanted. Order: what others rest on comes first.
fn steps(now: &Declared, wanted: &Declared) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (name, project) in &wanted.projects {
        let known = now.projects.get(name);
        if known.is_none() {
            steps.push(Step::AddProject(name.clone()));
        }
        let changed =
            changed(known.and_then(|known| known.policy.as_ref()), project.policy.as_ref()).map_err(|why| format!("projects.{name}.policy: {why}"))?;
        steps.extend(changed.map(|policy| Step::ProjectPolicy(name.clone(), policy)));
    }
    for (name, env) in &wanted.environments {
        let known = now.environments.get(name);
        match known {
            None => steps.push(Step::AddEnvironment(name.clone(), Box::new(env.clone()))),
            Some(known) => {
                let same = |env: &DeclaredEnvironment| (env.project.clone(), env.engine.clone(), env.database.clone(), env.enforce);
                if same(known) != same(env) {
                    return Err(format!(
                        "environments.{name} is another database than before. Remove the environment first, so that all access to the old one ends: daypass env rm {name}"
                    ));
                }
                let others = |pairs: &[(&'static str, bool)]| pairs.iter().filter(|(_, other)| *other).map(|(what, _)| *what).collect::<Vec<_>>();
                let target = others(&[
                    ("host", known.host != env.host),
                    ("port", known.port != env.port),
                    ("admin", known.admin != env.admin),
                    ("tls", known.tls != env.tls),
                    ("ca", known.ca != env.ca),
                ]);
                // several environments on one server are written several times, and changed once
                let done = |step: &Step| matches!(step, Step::SetTarget(_, other, _) if (place(other), &other.engine) == (place(env), &env.engine));
                if !target.is_empty() && !steps.iter().any(done) {
                    steps.push(Step::SetTarget(name.clone(), Box::new(env.clone()), target));
                }
                if known.kind != env.kind {
                    steps.push(Step::SetKind(name.clone(), env.kind.clone()));
                }
                let accounts = others(&[("grants", known.grants != env.grants), ("heir", known.heir != env.heir)]);
                if !accounts.is_empty() {
                    steps.push(Step::SetAccounts(name.clone(), Box::new(env.clone()), accounts));
                }
            }
        }
        let changed =
            changed(known.and_then(|known| known.policy.as_ref()), env.policy.as_ref()).map_err(|why| format!("environments.{name}.policy: {why}"))?;
        steps.extend(changed.map(|policy| Step::EnvironmentPolicy(name.clone(), policy)));
        // written as people write them, they may say the same in other words
        let masks = |masks: Option<&Value>| masks.map(|masks| serde_json::from_value::<Masks>(masks.clone()).map_err(|e| e.to_string())).transpose();
        let before = masks(known.and_then(|known| known.masks.as_ref()))?.unwrap_or_default();
        let wanted = masks(env.masks.as_ref()).map_err(|why| format!("environments.{name}.masks: {why}"))?;
        steps.extend(wanted.filter(|masks| *masks != before).map(|masks| Step::SetMasks(name.clone(), masks)));
    }
    // a server is where it is to be before anything else is added on it
    steps.sort_by_key(|step| !matches!(step, Step::SetTarget(..)));
    for (name, person) in &wanted.people {
        let known = now.people.get(name);
        for text in &person.roles {
            role(text).map_err(|why| format!("people.{name}.roles: {why}"))?;
        }
        let Some(known) = known else {
            steps.push(Step::AddPerson(name.clone(), person.clone()));
            steps.extend(person.mail.is_some().then(|| Step::Mail(name.clone(), person.mail.clone())));
            continue;
        };
        steps.extend(person.roles.iter().filter(|role| !known.roles.contains(role)).map(|role| Step::Give(name.clone(), role.clone())));
        steps.extend(known.roles.iter().filter(|role| !person.roles.contains(role)).map(|role| Step::Take(name.clone(), role.clone())));
        steps.extend((known.mail != person.mail).then(|| Step::Mail(name.clone(), person.mail.clone())));
    }
    Ok(steps)
}

/// The policy to set, when it is not set already. A file that names none leaves what is.
fn changed(known: Option<&Value>, wanted: Option<&Value>) -> Result<Option<Changed>, String> {
    let Some(wanted) = wanted else { return Ok(None) };
    let wanted = whole(wanted)?;
    // where none was set, what it is compared with is the usual one
    let before = whole(known.unwrap_or(&Value::Object(Default::default())))?;
    let rules_of = |policy: &PolicyView| match serde_json::to_value(policy) {
        Ok(Value::Object(rules)) => Ok(rules),
        other => Err(format!("a policy is no list of rules: {other:?}")),
    };
    let (old, new) = (rules_of(&before)?, rules_of(&wanted)?);
    let differ = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
    let mut rules: Vec<String> = differ.map(|(name, value)| format!("{name} {} -> {}", said(name, old.get(name)), said(name, Some(value)))).collect();
    if known.is_none() && rules.is_empty() {
        rules.push("as usual, set here".to_owned());
    }
    Ok(if rules.is_empty() { None } else { Some(Changed { policy: Box::new(wanted), rules }) })
}

/// A rule's value as one writes it.
fn said(name: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(value) if LENGTHS.contains(&name) => value.as_u64().and_then(|n| Ttl::seconds(n).ok()).map_or_else(|| value.to_string(), |ttl| ttl.to_string()),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// A policy of which a part is written: the rest is as usual. Lengths of time may be written as people do.
fn whole(part: &Value) -> Result<PolicyView, String> {
    let part = part.as_object().ok_or("it is a list of rules")?;
    let mut all: BTreeMap<String, Value> = serde_json::to_value(Policy::default()).and_then(serde_json::from_value).map_err(|e| e.to_string())?;
    for (name, value) in part {
        let value = match (name.as_str(), value) {
            (name, Value::String(text)) if LENGTHS.contains(&name) => Value::from(duration(text).map_err(|why| format!("{name}: {why}"))?),
            _ => value.clone(),
        };
        if all.insert(name.clone(), value).is_none() {
            return Err(format!("there is no rule '{name}'"));
        }
    }
    let view: PolicyView = serde_json::to_value(all).and_then(serde_json::from_value).map_err(|e| e.to_string())?;
    // what contradicts itself is found before anything is done
    view.policy()?.check().map_err(|refusal| refusal.to_string())?;
    Ok(view)
}

impl Step {
    /// `folder` is that of the file: paths in it begin there.
    async fn carry_out(self, client: &Client, folder: &Path) -> Result<(), Failure> {
        let read = |path: &str| {
            let path = folder.join(path);
            std::fs::read_to_string(&path)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|e| Failure::failed(format!("{} cannot be read: {e}", path.display())))
        };
        match self {
            Step::AddProject(name) => client.tell(Method::POST, &["projects"], Some(&NewProject { name })).await,
            Step::ProjectPolicy(name, policy) => client.tell(Method::PUT, &["projects", &name, "policy"], Some(&policy.policy)).await,
            Step::EnvironmentPolicy(name, policy) => client.tell(Method::PUT, &["environments", &name, "policy"], Some(&policy.policy)).await,
            Step::SetMasks(name, masks) => client.tell(Method::PUT, &["environments", &name, "masks"], Some(&MasksView { masks })).await,
            Step::AddEnvironment(name, env) => {
                let file = env.password_file.as_deref().ok_or_else(|| Failure::failed("name the file with the administrator's password in password_file"))?;
                let request = NewEnvironment {
                    name,
                    project: env.project,
                    engine: env.engine,
                    host: env.host,
                    port: env.port,
                    database: env.database,
                    admin: env.admin,
                    password: read(file)?,
                    ca: env.ca,
                    without_tls: env.tls == "off",
                    strict_tls: env.tls == "strict",
                    enforce: env.enforce,
                    grants: env.grants,
                    heir: env.heir,
                    kind: Some(env.kind.clone()),
                    untried: false,
                };
                client.tell(Method::POST, &["environments"], Some(&request)).await
            }
            Step::SetTarget(name, env, _) => {
                let password = env.password_file.as_deref().map(read).transpose()?;
                let tls = if env.tls == "verify" { "verify_full".to_owned() } else { env.tls };
                let (host, port, admin) = (Some(env.host), Some(env.port), Some(env.admin));
                let body = SetTarget { host, port, admin, password, tls: Some(tls), ca: Some(env.ca.unwrap_or_default()) };
                client.tell(Method::PUT, &["environments", &name, "target"], Some(&body)).await
            }
            Step::SetKind(name, kind) => client.tell(Method::PUT, &["environments", &name, "kind"], Some(&NewKind { kind })).await,
            Step::SetAccounts(name, env, _) => {
                let body = SetAccounts { grants: Some(env.grants), heir: Some(env.heir.unwrap_or_default()) };
                client.tell(Method::PUT, &["environments", &name, "accounts"], Some(&body)).await
            }
            Step::AddPerson(name, person) => {
                let password = person.password_file.as_deref().map(read).transpose()?;
                let roles = person.roles.iter().map(|text| role(text)).collect::<Result<_, _>>().map_err(Failure::failed)?;
                client.tell(Method::POST, &["people"], Some(&NewPerson { name, password, roles })).await
            }
            Step::Give(name, text) => client.tell(Method::POST, &["people", &name, "roles"], Some(&role(&text).map_err(Failure::failed)?)).await,
            Step::Take(name, text) => client.tell(Method::POST, &["people", &name, "roles", "take"], Some(&role(&text).map_err(Failure::failed)?)).await,
            Step::Mail(name, mail) => client.tell(Method::PUT, &["people", &name, "mail"], Some(&MailSet { mail })).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Declared {
        serde_norway::from_str(text).unwrap()
    }

    fn told(now: &str, wanted: &str) -> Vec<String> {
        steps(&read(now), &read(wanted)).unwrap().iter().map(ToString::to_string).collect()
    }

    const UAT: &str = "environments:\n  uat: { project: main, engine: postgres, host: db, port: 5432, database: uat, admin: a";

    #[test]
    fn the_difference_is_what_is_done() {
        let now = "projects: { main: {} }\npeople: { maria: { roles: [requester, auditor] } }";
        let wanted = format!(
            "projects: {{ main: {{}}, erp: {{ policy: {{ longest_life: 2h, default_life: 1h }} }} }}\npeople: {{ maria: {{ roles: [requester, 'approver@env:uat'], mail: m@example.com }}, ben: {{}} }}\n{UAT}, password_file: p, policy: {{ approval: {{ read_write: two }} }} }}\n"
        );
        assert_eq!(
            told(now, &wanted),
            [
                "+ project erp",
                "~ policy of project erp: default_life 8 h -> 1 h, longest_life 8 h -> 2 h",
                "+ environment uat: uat on db:5432",
                r#"~ policy of uat: approval {} -> {"read_write":"two"}"#,
                "+ person ben",
                "+ maria is approver@env:uat",
                "- maria is auditor no more",
                "~ notices of maria go to m@example.com",
            ]
        );
        assert_eq!(told(&wanted, &wanted), [""; 0], "the same again changes nothing");
        assert_eq!(told(&wanted, "{}"), [""; 0], "what a file does not mention stays");
        let looser = wanted.replace("two", "one").replace("longest_life: 2h", "longest_life: 9h, longest_total: 10h");
        let rules = r#"~ policy of uat: approval {"read_write":"two"} -> {"read_write":"one"}"#;
        assert_eq!(told(&wanted, &looser), ["~ policy of project erp: longest_life 2 h -> 9 h, longest_total 24 h -> 10 h", rules], "each rule is shown");
    }

    #[test]
    fn what_an_environment_is_reached_by_is_changed_in_its_place() {
        let now = format!("{UAT} }}\n  two: {{ project: main, engine: postgres, host: db, port: 5432, database: two, admin: a }}\n");
        let elsewhere = now
            .replace("host: db, port: 5432", "host: db2, port: 5433")
            .replace("database: two", "database: two, kind: managed, heir: keeper, grants: predefined");
        assert_eq!(
            told(&now, &elsewhere),
            ["~ server of two and of all on it (host, port): db2:5433 as a", "~ two is managed", "~ accounts of two (grants, heir)"],
            "one server is changed once"
        );
    }

    #[test]
    fn no_field_of_an_environment_can_be_changed_without_a_word() {
        let env = |text: &str| format!("environments:\n  uat: {text}\n");
        let full = "{ project: main, engine: postgres, host: db, port: 5432, database: uat, admin: a, tls: verify, ca: x, enforce: gateway, kind: self-service, grants: granted, heir: h, policy: { name: p } }";
        let known: Value = serde_norway::from_str(full).unwrap();
        let written: Value = serde_json::to_value(&read(&env(full)).environments["uat"]).unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(&known), names(&written), "a field that is new is to be changed here as well");
        for name in names(&known) {
            let mut other = known.clone();
            other[&name] = match &known[&name] {
                Value::Number(_) => 1.into(),
                Value::Object(_) => serde_json::json!({ "name": "q" }),
                _ => match name.as_str() {
                    "enforce" => "azure_sql_firewall".into(),
                    "kind" => "managed".into(),
                    "grants" => "predefined".into(),
                    _ => "other".into(),
                },
            };
            let done = steps(&read(&env(full)), &read(&env(&other.to_string())));
            assert!(done.is_err() || done.is_ok_and(|steps| steps.len() == 1), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_before_anything_is_done() {
        let wrong = |text: &str| steps(&read("{}"), &read(text)).err().unwrap();
        assert!(wrong("projects: { erp: { policy: { longest_live: 2h } } }").contains("projects.erp.policy: there is no rule 'longest_live'"));
        assert!(wrong("projects: { erp: { policy: { longest_life: soon } } }").contains("longest_life: 'soon' is not a length of time"));
        assert!(wrong("projects: { erp: { policy: { longest_life: 2h } } }").contains("default_life may not be over longest_life"));
        assert!(wrong("people: { maria: { roles: [king] } }").contains("people.maria.roles"));
        assert!(serde_norway::from_str::<Declared>("peple: {}").is_err());
        let other = steps(&read(&format!("{UAT} }}")), &read(&format!("{UAT} }}").replace("database: uat", "database: other"))).err().unwrap();
        assert!(other.contains("another database") && other.contains("env rm uat"), "{other}");
    }
}
