//! What happened: sessions, statements, the log; and the state of things.

use super::{
    client::{Client, Failure, NOTHING},
    exit,
    show::{Show, clean, moment},
};
use crate::web::dto::*;
use clap::Subcommand;
use daypass_core::chain::{self, Head};
use reqwest::Method;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Verb {
    /// Sessions, live and past
    #[command(subcommand)]
    Sessions(Sessions),
    /// The log: every change of access, chained by hashes
    #[command(subcommand)]
    Log(Log),
    /// Who had access to what, when and why: between two moments, or at one
    Report {
        /// Only of this environment
        environment: Option<String>,
        /// From this moment, like 2026-11-24T10:00:00Z
        #[arg(long, value_name = "TIME", required_unless_present = "at")]
        from: Option<String>,
        /// Until this moment, itself excluded; when left out, until now
        #[arg(long, value_name = "TIME", requires = "from")]
        until: Option<String>,
        /// Who was in at this one moment
        #[arg(long, value_name = "TIME", conflicts_with = "from")]
        at: Option<String>,
    },
    /// What does not work at the moment, and what is still to be cleaned up
    Doctor,
    /// What others made on the targets that opens a way in: logins, members, rights, firewall rules
    #[command(subcommand)]
    Drift(Drift),
}

#[derive(Subcommand)]
pub enum Drift {
    /// List what nobody has judged yet
    Ls {
        /// All of it
        #[arg(long)]
        all: bool,
    },
    /// Say of one that it belongs there (mine), is not worth a word (ignore), or is to go (end)
    Judge {
        #[arg(value_parser = ["mine", "ignore", "end"])]
        verdict: String,
        /// login, member, privilege or rule
        kind: String,
        name: String,
        /// Where, when the same is found in several places
        place: Option<String>,
    },
}

#[derive(Subcommand)]
pub enum Sessions {
    /// List sessions, newest first
    Ls {
        #[arg(long, value_name = "ENVIRONMENT")]
        env: Option<String>,
        /// Only of this person, or of this account
        #[arg(long)]
        person: Option<String>,
        /// Also those that are over
        #[arg(long)]
        all: bool,
        /// At most so many, newest first
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// End one session; its pass stays
    Kill { id: String },
    /// Show what was run in a session
    Statements { id: String },
}

#[derive(Subcommand)]
pub enum Log {
    /// Show entries, oldest first
    Ls {
        /// After this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
        limit: u32,
    },
    /// The log in sentences, newest first
    Find {
        #[arg(long, value_name = "ENVIRONMENT")]
        env: Option<String>,
        /// Who did it, or to whom it was done
        #[arg(long)]
        person: Option<String>,
        /// access, addresses, movements, people or settings
        #[arg(long)]
        kind: Option<String>,
        /// From this moment on, like 2026-11-24T10:00:00Z
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Until this moment
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Write the whole log to standard output
    Export,
    /// Prove an export, offline: every hash, every link, every step. Names the first bad line
    Verify {
        /// What `daypass log export` wrote; - for standard input
        file: PathBuf,
        /// A head that you kept from an earlier proof, SEQ:HASH: is the log still the one that had it?
        #[arg(long)]
        head: Option<String>,
    },
}

pub async fn run(verb: Verb, client: &Client, show: Show) -> Result<(), Failure> {
    match verb {
        Verb::Sessions(Sessions::Ls { env, person, all, limit }) => {
            let one_more = (limit + 1).min(1_000).to_string();
            let mut query = vec![("live", if all { "false" } else { "true" }), ("limit", one_more.as_str())];
            query.extend(env.as_deref().map(|env| ("environment", env)));
            query.extend(person.as_deref().map(|person| ("person", person)));
            let found: Vec<SessionView> = client.get(&["sessions"], &query).await?;
            let found = show.first(found, limit, "--limit, --env, --person");
            show.list(
                &found,
                &["session", "account", "person", "environment", "address", "application", "since", "until", "statements"],
                "No sessions.",
                |session| {
                    let over =
                        session.closed_at.as_deref().map(|at| format!("{} ({})", moment(at), session.why.clone().unwrap_or_default())).unwrap_or_default();
                    let statements = session.statements.map(|n| n.to_string()).unwrap_or_default();
                    let SessionView { id, account, person, environment, address, application, opened_at, .. } = session;
                    vec![
                        id.clone(),
                        account.clone(),
                        person.clone(),
                        environment.clone(),
                        address.clone(),
                        application.clone(),
                        moment(opened_at),
                        over,
                        statements,
                    ]
                },
            );
        }
        Verb::Log(Log::Find { env, person, kind, from, until, limit }) => {
            let one_more = (limit + 1).min(1_000).to_string();
            let asked = [("environment", env), ("person", person), ("kind", kind), ("from", from), ("until", until)];
            let mut query: Vec<(&str, &str)> = asked.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
            query.push(("limit", &one_more));
            let lines: Vec<LogLine> = client.get(&["log", "find"], &query).await?;
            let lines = show.first(lines, limit, "--limit, or --until the time of the last one");
            show.list(&lines, &["line", "at", "who", "what"], "Nothing fits.", |line| {
                vec![line.seq.to_string(), moment(&line.at), line.by.clone(), line.what.clone()]
            });
        }
        Verb::Report { environment, from, until, at } => {
            let now = jiff::Timestamp::now().to_string();
            let until = if at.is_some() { None } else { Some(until.unwrap_or(now)) };
            let asked = [("environment", environment), ("from", at.or(from)), ("until", until)];
            let query: Vec<(&str, &str)> = asked.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
            let held: Vec<HeldView> = client.get(&["report"], &query).await?;
            let header = ["person", "environment", "access", "from", "until", "ended", "sessions", "approved by", "reason"];
            show.list(&held, &header, "Nobody had access.", |held| {
                vec![
                    held.holder.clone(),
                    held.environment.clone(),
                    held.access.as_str().to_owned(),
                    moment(&held.from),
                    moment(&held.until),
                    held.ended.clone().unwrap_or_else(|| "goes on".to_owned()),
                    held.sessions.to_string(),
                    held.approved_by.clone(),
                    held.reason.clone(),
                ]
            });
        }
        Verb::Sessions(Sessions::Kill { id }) => {
            client.tell(Method::POST, &["sessions", &id, "kill"], NOTHING).await?;
            show.done("The session is ended; its pass stays.");
        }
        Verb::Sessions(Sessions::Statements { id }) => {
            let mut found: Vec<StatementView> = Vec::new();
            loop {
                let after = found.len().to_string();
                let more: Vec<StatementView> = client.get(&["sessions", &id, "statements"], &[("after", &after), ("limit", "5000")]).await?;
                if more.is_empty() {
                    break;
                }
                found.extend(more);
            }
            show.list(&found, &["at", "ms", "rows", "statement", "values", "error"], "No statements were run.", |statement| {
                let millis = format!("{}.{:03}", statement.micros / 1000, statement.micros % 1000);
                let StatementView { at, rows, text, values, error, .. } = statement;
                vec![
                    moment(at),
                    millis,
                    rows.to_string(),
                    text.split_whitespace().collect::<Vec<_>>().join(" "),
                    values.join(", "),
                    error.clone().unwrap_or_default(),
                ]
            });
        }
        Verb::Log(Log::Ls { after, limit }) => {
            let found: Vec<serde_json::Value> = client.get(&["log"], &[("after", &after.to_string()), ("limit", &(limit + 1).min(5_000).to_string())]).await?;
            let found = show.first(found, limit, "--limit, or --after the last number");
            show.list(&found, &["no", "at", "by", "event", "what"], "No entries.", entry);
        }
        Verb::Log(Log::Export) => {
            let text = client.text(&["log", "export"]).await?;
            show.text(&text);
        }
        // carried out without a server
        Verb::Log(Log::Verify { file, head }) => verify(&file, head, show)?,
        Verb::Drift(Drift::Ls { all }) => {
            let found: Vec<DriftView> = client.get(&["drift"], &[]).await?;
            let found: Vec<DriftView> = found.into_iter().filter(|drift| all || drift.verdict.is_none() || drift.verdict.as_deref() == Some("end")).collect();
            show.list(&found, &["server", "kind", "name", "place", "first seen", "said"], "Nothing on the targets is worth a word.", |drift| {
                let said = drift.verdict.clone().unwrap_or_default();
                vec![drift.server.clone(), drift.kind.clone(), drift.name.clone(), drift.place.clone(), moment(&drift.first_seen), said]
            });
        }
        Verb::Drift(Drift::Judge { verdict, kind, name, place }) => {
            let found: Vec<DriftView> = client.get(&["drift"], &[]).await?;
            let known = found.into_iter().find(|drift| drift.kind == kind && drift.name == name && place.as_deref().is_none_or(|place| drift.place == place));
            let known = known.ok_or_else(|| Failure::failed("there is no such thing in the list: daypass drift ls --all"))?;
            let judged = JudgeDrift { target: known.target, kind, name, place: known.place, verdict: verdict.clone() };
            client.tell(Method::POST, &["drift"], Some(&judged)).await?;
            show.done(&format!("{}: {verdict}.", known.what));
        }
        Verb::Doctor => {
            let found: Doctor = client.get(&["doctor"], &[]).await?;
            show.one(&found, |doctor| {
                let mut lines = vec![format!("Live sessions  {}", doctor.live_sessions), format!("Log            {}", doctor.head)];
                lines.extend(doctor.to_clean.iter().map(|account| format!("To clean       {account}")));
                if !doctor.by_hand.is_empty() {
                    lines.push("Daypass goes on trying. To do it by hand:".to_owned());
                    lines.extend(doctor.by_hand.iter().map(|sql| clean(sql)));
                }
                if doctor.unjudged > 0 {
                    lines.push(format!("Not ours       {} things on the targets that nobody has judged: daypass drift ls", doctor.unjudged));
                }
                lines.extend(
                    doctor.troubles.iter().map(|trouble| format!("TROUBLE        {} since {}: {}", trouble.what, moment(&trouble.since), clean(&trouble.why))),
                );
                if doctor.troubles.is_empty() {
                    lines.push("No troubles.".to_owned());
                }
                lines.join("\n")
            });
            if !found.troubles.is_empty() {
                return Err(Failure::failed("Something does not work; see above."));
            }
        }
    }
    Ok(())
}

/// One line of the log as a row.
fn entry(line: &serde_json::Value) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let by = match &line["by"] {
        serde_json::Value::Object(user) => user.values().map(text).collect(),
        other => text(other),
    };
    let (event, what) =
        line["event"].as_object().and_then(|event| event.iter().next()).map(|(name, fields)| (name.clone(), fields.to_string())).unwrap_or_default();
    vec![text(&line["seq"]), moment(&text(&line["at"])), by, event, what]
}

/// Proves an export without a server.
pub fn verify(file: &std::path::Path, head: Option<String>, show: Show) -> Result<(), Failure> {
    let unread = |e: std::io::Error| Failure::failed(format!("{} cannot be read: {e}", file.display()));
    let text = if file == std::path::Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(unread)?
    } else {
        std::fs::read_to_string(file).map_err(unread)?
    };
    let expected = head.map(|head| head.parse::<Head>()).transpose().map_err(Failure::failed)?;
    match chain::verify(text.lines(), expected) {
        Ok((_, head)) => {
            let proved = serde_json::json!({ "entries": head.seq, "head": head.to_string() });
            show.one(&proved, |_| format!("The log is whole: {} entries, each one follows from the one before.\nHead {head}", head.seq));
            Ok(())
        }
        Err(broken) => Err(Failure::new(
            exit::FAILED,
            "broken",
            format!("The log is NOT whole. {broken}"),
            "Compare with another copy: everything before that line is proved.",
        )),
    }
}
