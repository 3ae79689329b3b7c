//! Environments and projects: for administrators and managers.

use super::{
    client::{Client, Failure, NOTHING},
    password,
    show::Show,
};
use crate::web::dto::*;
use clap::Subcommand;
use daypass_core::environment::{Enforce, Engine, Grants};
use reqwest::Method;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Verb {
    /// Environments: the databases that people get access to
    #[command(subcommand)]
    Env(Env),
    /// Projects: groups of environments
    #[command(subcommand)]
    Project(Project),
    /// Show the policy of an environment, set it from a file in the form that this shows, or say what it would mean
    Policy {
        environment: String,
        /// The name is a project's: the policy of its environments that have none of their own
        #[arg(long, requires = "set")]
        project: bool,
        /// A file in the form that this shows
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
        /// What would a request of this person come to? Nothing is asked for
        #[arg(long, value_name = "PERSON", conflicts_with = "set")]
        preview: Option<String>,
        #[command(flatten)]
        wish: super::access::Wish,
    },
}

#[derive(Subcommand)]
pub enum Env {
    /// Add an environment: one database on one server
    Add(Box<NewEnv>),
    /// Change how its server is reached (host, port, administrator, password, TLS: tried first, and for all environments on that server), and its accounts
    Set(Box<SetEnv>),
    /// List environments
    Ls,
    /// Show one
    Show { name: String },
    /// Go the whole way with an account that nobody has, and say what is missing and what accounts would not see
    Test { name: String },
    /// Show what movements mask in its database, in the form of masks.toml, or set it from a file of that form
    Masks {
        name: String,
        /// All masks of the environment (TOML): [schema.table], then a line a column
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Make one self-service (passes are the only way in) or managed (it may have standing accounts)
    Kind { name: String, kind: String },
    /// Turn remote desktop on or off; off removes and erases the machine credentials
    RemoteDesktop {
        name: String,
        #[arg(value_parser = ["on", "off"])]
        wanted: String,
    },
    /// Say that a replica of its server may take over, with some of the last moments missing: that is no replacement then
    ExpectFailover {
        name: String,
        /// Within which time
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::duration)]
        within: u64,
    },
    /// Remove one; all access to it ends at once
    Rm { name: String },
    /// Print the SQL that makes the administrator role with the least rights it needs
    Recipe {
        /// Of this environment; without it, of --database
        #[arg(required_unless_present = "database", conflicts_with_all = ["database", "admin", "owner", "engine"])]
        name: Option<String>,
        #[arg(long)]
        database: Option<String>,
        #[arg(long, default_value = "daypass_admin")]
        admin: String,
        /// The role that owns the tables (PostgreSQL)
        #[arg(long, default_value = "app_owner")]
        owner: String,
        /// postgres or sqlserver
        #[arg(long, default_value = "postgres")]
        engine: Engine,
    },
}

#[derive(clap::Args)]
pub struct NewEnv {
    name: String,
    #[arg(long, default_value = "main")]
    project: String,
    /// postgres or sqlserver (also Azure SQL)
    #[arg(long, default_value = "postgres")]
    engine: Engine,
    #[arg(long)]
    host: String,
    /// When left out, the engine's own: 5432 or 1433
    #[arg(long)]
    port: Option<u16>,
    #[arg(long)]
    database: String,
    /// The administrator role on the server (see: daypass env recipe)
    #[arg(long, default_value = "daypass_admin")]
    admin: String,
    /// Read the administrator's password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The CA that signed the server's certificate (PEM file); without it the system's
    #[arg(long, value_name = "FILE", conflicts_with = "without_tls")]
    ca: Option<PathBuf>,
    /// No TLS to this server: whoever can listen on the way sees everything
    #[arg(long)]
    without_tls: bool,
    /// TLS before everything else (TDS 8.0, "strict"): SQL Server 2022 and later, Azure SQL
    #[arg(long, conflicts_with = "without_tls")]
    strict_tls: bool,
    /// gateway, or azure_sql_firewall: no gateway in between, Daypass keeps Azure's own firewall rules
    #[arg(long, default_value = "gateway", value_parser = enforce)]
    enforce: Enforce,
    /// granted: rights per schema by a group role; predefined: PostgreSQL's pg_read_all_data and pg_write_all_data
    #[arg(long, default_value = "granted", value_parser = grants)]
    grants: Grants,
    /// It may have standing accounts (daypass standing)
    #[arg(long)]
    managed: bool,
    /// The role that receives what accounts leave behind; without it the owner of the database
    #[arg(long)]
    heir: Option<String>,
    /// Store it without trying it first, as for a server that is away for now
    #[arg(long)]
    untried: bool,
}

/// What is left out stays as it is.
#[derive(clap::Args)]
pub struct SetEnv {
    name: String,
    #[arg(long)]
    host: Option<String>,
    #[arg(long)]
    port: Option<u16>,
    /// The administrator role on the server
    #[arg(long)]
    admin: Option<String>,
    /// Ask for the administrator's new password
    #[arg(long)]
    password: bool,
    /// Read it from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The CA that signed the server's certificate (PEM file)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The CAs that the system trusts, in place of a file's
    #[arg(long, conflicts_with = "ca")]
    system_ca: bool,
    /// verify-full, strict (SQL Server), or off: whoever can listen on the way sees everything
    #[arg(long, value_parser = ["verify-full", "strict", "off"])]
    tls: Option<String>,
    /// granted: rights per schema by a group role; predefined: PostgreSQL's pg_read_all_data and pg_write_all_data
    #[arg(long, value_parser = grants)]
    grants: Option<Grants>,
    /// The role that may use what accounts leave behind
    #[arg(long)]
    heir: Option<String>,
    /// The owner of the database, in place of a role
    #[arg(long, conflicts_with = "heir")]
    no_heir: bool,
}

fn grants(text: &str) -> Result<Grants, String> {
    match text {
        "granted" => Ok(Grants::Granted),
        "predefined" => Ok(Grants::Predefined),
        _ => Err("it is granted or predefined".to_owned()),
    }
}

fn enforce(text: &str) -> Result<Enforce, String> {
    [Enforce::Gateway, Enforce::AzureSqlFirewall]
        .into_iter()
        .find(|way| way.as_str() == text.replace('-', "_"))
        .ok_or_else(|| "it is gateway or azure_sql_firewall".to_owned())
}

#[derive(Subcommand)]
pub enum Project {
    /// Add a project
    Add { name: String },
    /// List projects
    Ls,
}

pub async fn run(verb: Verb, client: &Client, show: Show) -> Result<(), Failure> {
    match verb {
        Verb::Env(verb) => env(verb, client, show).await,
        Verb::Project(Project::Add { name }) => {
            client.tell(Method::POST, &["projects"], Some(&NewProject { name })).await?;
            show.done("The project is added.");
            Ok(())
        }
        Verb::Project(Project::Ls) => {
            let names: Vec<String> = client.get(&["projects"], &[]).await?;
            show.list(&names, &["project"], "No projects.", |name| vec![name.clone()]);
            Ok(())
        }
        Verb::Policy { environment, project: true, set: Some(file), .. } => set_policy(client, "projects", &environment, &file, show).await,
        Verb::Policy { environment, set: Some(file), .. } => set_policy(client, "environments", &environment, &file, show).await,
        Verb::Policy { environment, preview, wish, .. } => policy(client, &environment, preview, &wish, show).await,
    }
}

async fn env(verb: Env, client: &Client, show: Show) -> Result<(), Failure> {
    match verb {
        Env::Add(new) => add(*new, client, show).await?,
        Env::Set(set) => self::set(*set, client, show).await?,
        Env::Ls => {
            let found: Vec<EnvironmentView> = client.get(&["environments"], &[]).await?;
            show.list(
                &found,
                &["environment", "project", "server\\database", "port", "state", "live passes"],
                "No environments. Add one: daypass env add NAME --host HOST --database DATABASE",
                |env| {
                    vec![
                        env.name.clone(),
                        env.project.clone(),
                        env.server_and_database.clone(),
                        env.port.to_string(),
                        env.state.clone(),
                        env.live_passes.to_string(),
                    ]
                },
            );
        }
        Env::Show { name } => {
            let found: EnvironmentView = client.get(&["environments", &name], &[]).await?;
            show.one(&found, |env| {
                let drift: String = env.drift.iter().map(|rule| format!("\nNot ours         firewall rule {rule}")).collect();
                let engine = if env.engine == "sqlserver" { "SQL Server" } else { "PostgreSQL" };
                let tls = if env.without_tls { "\nTo the server    NOT ENCRYPTED (added with --without-tls)" } else { "" };
                format!(
                    "Environment      {} (project {})\nEngine           {engine}\nServer\\database  {}\nServer           {}\nPort             {}\nKept by          {}\nState            {}\nLive passes      {}\nReplaced         {} times{tls}{drift}",
                    env.name, env.project, env.server_and_database, env.server, env.port, env.enforce, env.state, env.live_passes, env.epoch
                )
            });
        }
        Env::Masks { name, file: None } => {
            let found: MasksView = client.get(&["environments", &name, "masks"], &[]).await?;
            if show.json || found.masks.is_empty() {
                show.one(&found, |_| format!("Nothing is declared: a movement of {name} masks nothing by itself. daypass env masks {name} --file masks.toml"));
            } else {
                show.text(&found.text());
            }
        }
        Env::Masks { name, file: Some(file) } => {
            let wanted = MasksView::read(&read(&file)?).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
            client.tell(Method::PUT, &["environments", &name, "masks"], Some(&wanted)).await?;
            show.done(&format!("Movements of {name} mask {} columns from now on. What is in its database now stays as it is.", wanted.masks.len()));
        }
        Env::Test { name } => {
            let checks: Vec<CheckView> = client.post(&["environments", &name, "test"], NOTHING).await?;
            show.list(&checks, &["", "check", "what to do"], "Nothing was checked.", |check| {
                let mark = if check.verdict == "missing" { "MISSING" } else { &check.verdict };
                vec![mark.to_owned(), check.what.clone(), check.remedy.clone()]
            });
            if checks.iter().any(|check| check.verdict == "missing") {
                return Err(Failure::failed(format!("{name} is not ready for access yet.")));
            }
        }
        Env::Kind { name, kind } => {
            client.tell(Method::PUT, &["environments", &name, "kind"], Some(&NewKind { kind: kind.clone() })).await?;
            show.done(&format!("{name} is {kind}."));
        }
        Env::RemoteDesktop { name, wanted } => {
            client.tell(Method::PUT, &["environments", &name, "remote-desktop"], Some(&OnOff { on: wanted == "on" })).await?;
            show.done(&format!("Remote desktop of {name} is {wanted}."));
        }
        Env::ExpectFailover { name, within } => {
            client.tell(Method::POST, &["environments", &name, "expect-failover"], Some(&Within { within })).await?;
            show.done(&format!("Within {}, a replica that takes over is no replacement of {name}.", super::show::left(within)));
        }
        Env::Rm { name } => {
            client.tell(Method::DELETE, &["environments", &name], NOTHING).await?;
            show.done(&format!("{name} is removed; its accounts are being cleaned up."));
        }
        Env::Recipe { name, .. } => {
            let name = name.unwrap_or_default();
            let found: Text = client.get(&["environments", &name, "recipe"], &[]).await?;
            show.one(&found, |found| found.text.trim_end().to_owned());
        }
    }
    Ok(())
}

async fn set_policy(client: &Client, what: &str, name: &str, file: &std::path::Path, show: Show) -> Result<(), Failure> {
    let text = read(file)?;
    let policy: PolicyView = serde_json::from_str(&text).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
    client.tell(Method::PUT, &[what, name, "policy"], Some(&policy)).await?;
    show.done(&format!("The policy of {name} is set."));
    Ok(())
}

async fn policy(client: &Client, environment: &str, preview: Option<String>, wish: &super::access::Wish, show: Show) -> Result<(), Failure> {
    if let Some(person) = preview {
        let mut request = wish.request();
        // what matters is who asks for what; a rule about reasons is tried with --reason
        if request.reason.is_empty() {
            request.reason = "what a request would come to".to_owned();
        }
        let preview = Preview { person, request };
        let outcome: PreviewView = client.post(&["environments", environment, "preview"], Some(&preview)).await?;
        show.one(&outcome, |outcome| outcome.outcome.clone());
    } else {
        let policy: PolicyView = client.get(&["environments", environment, "policy"], &[]).await?;
        show.text(&serde_json::to_string_pretty(&policy).unwrap_or_default());
    }
    Ok(())
}

async fn add(new: NewEnv, client: &Client, show: Show) -> Result<(), Failure> {
    let ca = new.ca.as_deref().map(read).transpose()?;
    let port = new.port.unwrap_or(match new.engine {
        Engine::Postgres => 5432,
        Engine::SqlServer => 1433,
    });
    let password = password(&format!("Password of {} on {}:{port}: ", new.admin, new.host), new.password_stdin)?;
    let NewEnv { name, project, engine, host, database, admin, without_tls, strict_tls, enforce, grants, heir, managed, untried, .. } = new;
    let engine = engine.as_str().to_owned();
    let body = NewEnvironment {
        name,
        project,
        engine,
        host,
        port,
        database,
        admin,
        password,
        ca,
        without_tls,
        strict_tls,
        enforce,
        grants,
        heir,
        kind: managed.then(|| "managed".to_owned()),
        untried,
    };
    let made: EnvironmentView = client.post(&["environments"], Some(&body)).await?;
    let tried = if untried { "It was not tried" } else { "It was tried, and lets people in" };
    show.one(&made, |env| format!("{} is added as {}. {tried}: daypass env test {} says what there is to know.", env.name, env.server_and_database, env.name));
    Ok(())
}

async fn set(set: SetEnv, client: &Client, show: Show) -> Result<(), Failure> {
    let SetEnv { name, host, port, admin, password: ask, password_stdin, ca, system_ca, tls, grants, heir, no_heir } = set;
    let heir = if no_heir { Some(String::new()) } else { heir };
    let accounts = grants.is_some() || heir.is_some();
    if accounts {
        client.tell(Method::PUT, &["environments", &name, "accounts"], Some(&SetAccounts { grants, heir })).await?;
        show.done(&format!("The accounts of {name} are so from now on; those that are there are put right within seconds."));
    }
    let elsewhere = host.is_some() || port.is_some() || admin.is_some() || tls.is_some() || ca.is_some() || system_ca || ask || password_stdin;
    if accounts && !elsewhere {
        return Ok(());
    }
    let password = if ask || password_stdin { Some(password("Password of the administrator: ", password_stdin)?) } else { None };
    let ca = if system_ca { Some(String::new()) } else { ca.as_deref().map(read).transpose()? };
    let body = SetTarget { host, port, admin, password, tls: tls.map(|tls| tls.replace('-', "_")), ca };
    client.tell(Method::PUT, &["environments", &name, "target"], Some(&body)).await?;
    show.done(&format!("{name}, and what else is on its server, is reached so from now on. It was tried."));
    Ok(())
}

fn read(path: impl AsRef<std::path::Path>) -> Result<String, Failure> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|e| Failure::failed(format!("{} cannot be read: {e}", path.display())))
}

/// The recipe for a server that Daypass does not know yet.
pub fn recipe(engine: Engine, database: &str, admin: &str, owner: &str) -> String {
    daypass_targets::AnyTarget::recipe(engine, admin, database, owner)
}
