//! The main job: allow an address, ask for a pass, connect; and what else people do with passes.

use super::{
    client::{Client, Failure, NOTHING, directory, write_private},
    duration, exit,
    show::{Show, left, moment},
};
use crate::web::dto::*;
use clap::{Args, Subcommand};
use daypass_core::{net::Range, pass::Access};
use reqwest::Method;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::net::IpAddr;

#[derive(Subcommand)]
pub enum Verb {
    /// Enter an address from which you may connect (when none is named, your own: over IPv4 and IPv6 where both lead here)
    Allow {
        environment: String,
        /// One address, a block (10.1.2.0/24), a range (10.1.2.3-10.1.2.9), or several with ';' between them
        addresses: Option<String>,
        /// How long; when left out, as the policy says (usually 8h)
        #[arg(long, value_parser = duration)]
        life: Option<u64>,
        /// For somebody else (managers)
        #[arg(long = "for", value_name = "PERSON", conflicts_with = "everyone")]
        person: Option<String>,
        /// For everyone who has a pass (managers)
        #[arg(long)]
        everyone: bool,
        /// Whose address it is, or why
        #[arg(long)]
        note: Option<String>,
    },
    /// Show the allowed addresses of an environment
    Allowed { environment: String },
    /// Take an allowed address back; sessions that came in by it end
    Disallow { id: String },
    /// Ask for access; waits until the account is ready and shows it
    Request {
        environment: String,
        #[command(flatten)]
        wish: Wish,
        /// Do not wait until the account is ready
        #[arg(long)]
        no_wait: bool,
    },
    /// Allow your address, ask for access (or use what you have), and start psql, or sqlcmd or tsql
    Connect {
        environment: String,
        #[command(flatten)]
        wish: Wish,
        /// For the client, after `--`: daypass connect uat -- -c 'SELECT 1'
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Show passes: yours, or everybody's if you may see them
    Passes {
        #[arg(long, value_name = "ENVIRONMENT")]
        env: Option<String>,
        /// Also those that are over
        #[arg(long)]
        all: bool,
        /// As it was at this moment, like 2026-11-24T10:00:00Z (a replay of the log)
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Show the account of a pass of yours again, with its password
    Reveal {
        pass: String,
        /// Just what this tool needs: ssms, sqlcmd, jdbc ... or psql, dbeaver, libpq
        #[arg(long = "for", value_name = "TOOL")]
        tool: Option<String>,
    },
    /// Move the end of a pass of yours, within what the policy allows in all
    Extend {
        pass: String,
        /// By how much
        #[arg(long, value_parser = duration)]
        by: u64,
    },
    /// Give a pass back, or revoke somebody's (managers, with a reason)
    End {
        pass: String,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Show requests that wait: yours, and those that you may approve
    Requests,
    /// Agree to somebody's request
    Approve {
        pass: String,
        /// A word with it
        #[arg(long)]
        word: Option<String>,
        /// The request that you looked at, as `daypass requests --json` shows it; when left out, the one that is shown now
        #[arg(long)]
        digest: Option<String>,
    },
    /// Close the review of access that was taken by breaking the glass
    Review {
        pass: String,
        /// What came of it
        #[arg(long)]
        reason: String,
    },
    /// Deny somebody's request
    Deny {
        pass: String,
        #[arg(long)]
        reason: String,
    },
    /// Say what an error message means and what to do about it
    Explain { text: Vec<String> },
}

#[derive(Args)]
pub struct Wish {
    /// What you need it for
    #[arg(long)]
    reason: Option<String>,
    /// read or read_write
    #[arg(long, default_value = "read", value_parser = access)]
    access: Access,
    /// How long; when left out, as the policy says (usually 8h)
    #[arg(long, value_parser = duration)]
    life: Option<u64>,
    /// The kind of reason, where the policy offers some
    #[arg(long)]
    category: Option<String>,
    /// The number of the ticket or change
    #[arg(long)]
    ticket: Option<String>,
    /// Not before this moment, like 2026-11-24T22:00:00Z
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// In at once, without the approvals that the policy asks for: everyone is told, and somebody else reviews it
    #[arg(long)]
    break_glass: bool,
    /// Go in as this standing account of a managed environment, through the gateway
    #[arg(long, value_name = "ACCOUNT")]
    standing: Option<String>,
}

impl Wish {
    /// Whether a pass that is there is all that is asked for here: what is left out may be as it is.
    fn is_what(&self, pass: &PassView) -> bool {
        let same = |asked: &Option<String>, there: &Option<String>| asked.is_none() || asked == there;
        let waits = pass.state == "requested";
        matches!(pass.state.as_str(), "ready" | "approved" | "requested")
            && pass.access == self.access
            && pass.standing == self.standing
            && self.reason.as_ref().is_none_or(|reason| *reason == pass.reason)
            && self.life.is_none_or(|life| life == pass.life)
            && same(&self.category, &pass.category)
            && same(&self.ticket, &pass.ticket)
            && same(&self.start, &pass.starts_at)
            && !(self.break_glass && waits)
    }

    /// An empty reason goes to the server as well: it says what its policy wants.
    pub fn request(&self) -> NewPass {
        NewPass {
            // what a standing account may do is not ours to narrow
            access: if self.standing.is_some() { Access::ReadWrite } else { self.access },
            reason: self.reason.clone().unwrap_or_default(),
            life: self.life,
            category: self.category.clone(),
            ticket: self.ticket.clone(),
            starts_at: self.start.clone(),
            break_glass: self.break_glass,
            standing: self.standing.clone(),
        }
    }
}

fn access(text: &str) -> Result<Access, String> {
    match text.replace('-', "_").as_str() {
        "read" => Ok(Access::Read),
        "read_write" => Ok(Access::ReadWrite),
        _ => Err("it is read or read_write".to_owned()),
    }
}

/// The caller's own addresses, where there are several; of a single one the server knows best how the gateway sees it.
fn both(here: &[IpAddr]) -> Option<String> {
    (here.len() > 1).then(|| here.iter().map(ToString::to_string).collect::<Vec<_>>().join(";"))
}

pub async fn run(verb: Verb, client: &Client, show: Show) -> Result<(), Failure> {
    match verb {
        Verb::Allow { environment, addresses, life, person, everyone, note } => {
            let addresses = match addresses {
                Some(addresses) => Some(addresses),
                None => both(&client.families().await),
            };
            let entry: AllowView =
                client.post(&["environments", &environment, "allow"], Some(&NewAllow { addresses, life, shared: everyone, person, note })).await?;
            show.one(&entry, |entry| format!("{} may reach {} until {} ({}).", entry.addresses, entry.environment, moment(&entry.ends_at), entry.owner));
        }
        Verb::Allowed { environment } => {
            let entries: Vec<AllowView> = client.get(&["environments", &environment, "allow"], &[]).await?;
            show.list(&entries, &["id", "addresses", "for", "until", "live"], "No address is allowed.", |entry| {
                vec![entry.id.clone(), entry.addresses.clone(), entry.owner.clone(), moment(&entry.ends_at), if entry.live { "yes" } else { "no" }.to_owned()]
            });
        }
        Verb::Disallow { id } => {
            client.tell(Method::DELETE, &["allow", &id], NOTHING).await?;
            show.done("Nobody comes in by that entry any more; daypass allowed ENVIRONMENT shows what else is open.");
        }
        Verb::Request { environment, wish, no_wait } => {
            let pass = request(client, &environment, &wish).await?;
            if no_wait {
                show.one(&pass, sentence);
            } else {
                let pass = wait(client, pass, show).await?;
                reveal(client, &pass, None, show).await?;
            }
        }
        Verb::Connect { environment, wish, arguments } => return connect(client, &environment, &wish, &arguments, show).await,
        Verb::Passes { env, all, at } => passes(client, env, all, at, show).await?,
        Verb::Reveal { pass, tool } => {
            let pass: PassView = client.get(&["passes", &pass], &[]).await?;
            reveal(client, &pass, tool.as_deref(), show).await?;
        }
        Verb::Extend { pass, by } => {
            let pass: PassView = client.post(&["passes", &pass, "extend"], Some(&Extend { by })).await?;
            show.one(&pass, sentence);
        }
        Verb::End { pass, reason } => {
            let pass: PassView = client.post(&["passes", &pass, "end"], Some(&Why { why: reason })).await?;
            show.one(&pass, sentence);
        }
        Verb::Requests => {
            let all: Vec<PassView> = client.get(&["passes"], &[]).await?;
            let waiting: Vec<PassView> = all.into_iter().filter(|pass| pass.state == "requested").collect();
            show.list(&waiting, &["account", "environment", "holder", "access", "for", "from", "agreed", "ticket", "reason"], "Nothing waits.", |pass| {
                let agreed = if pass.agreed.is_empty() { "nobody yet".to_owned() } else { pass.agreed.join(", ") };
                vec![
                    pass.account.clone(),
                    pass.environment.clone(),
                    pass.holder.clone(),
                    pass.access.as_str().to_owned(),
                    left(pass.life),
                    pass.from.clone().unwrap_or_default(),
                    agreed,
                    pass.ticket.clone().unwrap_or_default(),
                    pass.reason.clone(),
                ]
            });
        }
        Verb::Approve { pass, word, digest } => {
            let seen: PassView = client.get(&["passes", &pass], &[]).await?;
            show.progress(&format!("{} asks for {} on {} for {}: {}", seen.holder, seen.access.as_str(), seen.environment, left(seen.life), seen.reason));
            let body = crate::web::dto::Approve { digest: digest.unwrap_or(seen.digest), word };
            let pass: PassView = client.post(&["passes", &seen.id, "approve"], Some(&body)).await?;
            show.one(&pass, sentence);
        }
        Verb::Review { pass, reason } => {
            let pass: PassView = client.post(&["passes", &pass, "review"], Some(&Why { why: Some(reason) })).await?;
            show.one(&pass, |pass| format!("{}: reviewed ({})", pass.account, pass.review.clone().unwrap_or_default()));
        }
        Verb::Deny { pass, reason } => {
            let pass: PassView = client.post(&["passes", &pass, "deny"], Some(&Why { why: Some(reason) })).await?;
            show.one(&pass, sentence);
        }
        Verb::Explain { text } => {
            let found: ExplainView = client.post(&["explain"], Some(&ExplainRequest { text: text.join(" ") })).await?;
            show.one(&found, |found| format!("{}\n{}", found.cause, found.remedy));
        }
    }
    Ok(())
}

fn sentence(pass: &PassView) -> String {
    let until = match (&pass.ends_at, pass.seconds_left) {
        (Some(at), 1..) => format!(" until {} ({} left)", moment(at), left(pass.seconds_left)),
        _ => String::new(),
    };
    let because = pass.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let early = pass.ends_early.as_ref().map(|early| format!("\nBut {early}.")).unwrap_or_default();
    format!("{} on {}, {}: {}{until}{because}{early}", pass.account, pass.environment, pass.access.as_str(), pass.state)
}

async fn passes(client: &Client, env: Option<String>, all: bool, at: Option<String>, show: Show) -> Result<(), Failure> {
    let mut query = Vec::new();
    query.extend(env.as_deref().map(|env| ("environment", env)));
    query.extend(all.then_some(("all", "true")));
    query.extend(at.as_deref().map(|at| ("at", at)));
    let passes: Vec<PassView> = client.get(&["passes"], &query).await?;
    show.list(&passes, &["account", "environment", "holder", "access", "state", "ends", "left", "sessions", "reason"], "No passes.", |pass| {
        let ends = pass.ends_at.as_deref().map(moment).unwrap_or_default();
        let state = pass.because.as_ref().map_or_else(|| pass.state.clone(), |why| format!("{}: {why}", pass.state));
        let remaining = if pass.seconds_left > 0 { left(pass.seconds_left) } else { String::new() };
        vec![
            pass.account.clone(),
            pass.environment.clone(),
            pass.holder.clone(),
            pass.access.as_str().to_owned(),
            state,
            ends,
            remaining,
            pass.sessions.to_string(),
            pass.reason.clone(),
        ]
    });
    Ok(())
}

async fn request(client: &Client, environment: &str, wish: &Wish) -> Result<PassView, Failure> {
    let body = wish.request();
    client.post(&["environments", environment, "passes"], Some(&body)).await
}

/// Waits until a pass is ready, and says what it waits for.
async fn wait(client: &Client, mut pass: PassView, show: Show) -> Result<PassView, Failure> {
    let mut said = String::new();
    loop {
        match pass.state.as_str() {
            "ready" => return Ok(pass),
            "requested" | "approved" => {}
            _ => {
                return Err(Failure::new(
                    exit::REFUSED,
                    "state",
                    format!("The account is not to be had: {}", sentence(&pass)),
                    "`daypass passes --all` shows what became of it.",
                ));
            }
        }
        let why = pass.because.clone().unwrap_or_default();
        if why != said {
            show.progress(&format!("{}: {why} ...", pass.account));
            said = why;
        }
        pass = client.get(&["passes", &pass.id], &[("wait", "5")]).await?;
    }
}

async fn reveal(client: &Client, pass: &PassView, tool: Option<&str>, show: Show) -> Result<(), Failure> {
    let way: Connection = client.post(&["passes", &pass.id, "reveal"], NOTHING).await?;
    if let Some(tool) = tool {
        let known: Vec<&str> = way.settings.iter().map(|setting| setting.tool.as_str()).collect();
        let found = way.settings.iter().find(|setting| setting.tool == tool).ok_or_else(|| {
            Failure::new(exit::REFUSED, "invalid", format!("There are no settings for '{tool}' here."), format!("There are: {}.", known.join(", ")))
        })?;
        let file = ca_file(&way)?;
        show.one(found, |setting| {
            let note = setting.note.as_ref().map(|note| format!("\n\n{note}")).unwrap_or_default();
            format!("{}{note}", setting.text).replace("ca.pem", &file)
        });
        return Ok(());
    }
    show.one(&way, |way| {
        let ends = way.ends_at.as_deref().map(moment).unwrap_or_default();
        let first = way.settings.first().map(|setting| setting.text.replace("ca.pem", &ca_file(way).unwrap_or_default())).unwrap_or_default();
        let early = pass.ends_early.as_ref().map(|early| format!("\n                 But {early}.")).unwrap_or_default();
        let others: Vec<&str> = way.settings.iter().skip(1).map(|setting| setting.tool.as_str()).collect();
        format!(
            "Server\\database  {}\nServer           {}\nPort             {}\nDatabase         {}\nAccount          {}\nPassword         {}\nAccess           {}\nEnds             {ends} ({} left){early}\n\n{first}\n\nFor other tools: daypass reveal {} --for {}",
            way.server_and_database,
            way.server,
            way.port,
            way.database,
            way.account,
            way.password,
            pass.access.as_str(),
            left(pass.seconds_left),
            way.account,
            others.join(" | "),
        )
    });
    Ok(())
}

/// Where systems keep the CAs that they trust, in one file.
const TRUSTED: [&str; 4] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The CA of the gateway in a file, for tools that want one. When the certificate is from a CA that the system trusts, the file of those: the
/// word `system` is known to clients of PostgreSQL from 16 on only.
fn ca_file(way: &Connection) -> Result<String, Failure> {
    if way.ca.is_empty() {
        let named = std::env::var("SSL_CERT_FILE").ok();
        let found = named.or_else(|| TRUSTED.iter().find(|path| std::path::Path::new(path).is_file()).map(|path| (*path).to_owned()));
        return Ok(found.unwrap_or_else(|| "system".to_owned()));
    }
    // the server names itself: that is no path, and what it gives is a certificate or nothing
    let server: String = way.server.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' }).take(200).collect();
    if !matches!(CertificateDer::pem_slice_iter(way.ca.as_bytes()).next(), Some(Ok(_))) {
        return Err(Failure::failed("the server gave a CA that is no certificate in PEM form"));
    }
    let path = directory()?.join(format!("ca-{server}-{}.pem", way.port));
    write_private(&path, way.ca.as_bytes())?;
    Ok(path.display().to_string())
}

async fn connect(client: &Client, environment: &str, wish: &Wish, arguments: &[String], show: Show) -> Result<(), Failure> {
    let me: Me = client.get(&["me"], &[]).await?;
    let allowed: Vec<AllowView> = client.get(&["environments", environment, "allow"], &[]).await?;
    let mut here = client.families().await;
    if here.is_empty() {
        here.extend(me.address.parse::<IpAddr>());
    }
    let open = |entry: &&AllowView| entry.live && (entry.owner == me.name || entry.owner == "everyone");
    let ranges: Vec<Range> = allowed.iter().filter(open).flat_map(|entry| Range::list(&entry.addresses).unwrap_or_default()).collect();
    let is_allowed = !here.is_empty() && here.iter().all(|address| ranges.iter().any(|range| range.contains(*address)));
    let passes: Vec<PassView> = client.get(&["passes"], &[("environment", environment)]).await?;
    let usable = passes.into_iter().filter(|pass| pass.holder == me.name && wish.is_what(pass));
    // the request first: when it is refused, no address is left open for it
    let pass = match usable.max_by_key(|pass| pass.seconds_left) {
        Some(pass) => {
            let as_whom = pass.standing.as_ref().map(|standing| format!(" as {standing}")).unwrap_or_default();
            show.progress(&format!("You have this already: {} ({}{as_whom}), asked for with \"{}\".", pass.account, pass.access.as_str(), pass.reason));
            pass
        }
        None => request(client, environment, wish).await?,
    };
    if !is_allowed {
        let body = NewAllow { addresses: both(&here), life: wish.life, shared: false, person: None, note: None };
        let entry: AllowView = client.post(&["environments", environment, "allow"], Some(&body)).await?;
        show.progress(&format!("{} may reach {} until {}.", entry.addresses, entry.environment, moment(&entry.ends_at)));
    }
    let pass = wait(client, pass, show).await?;
    let way: Connection = client.post(&["passes", &pass.id, "reveal"], NOTHING).await?;
    show.progress(&sentence(&pass));
    Err(super::connect::start(&way, &ca_file(&way)?, arguments))
}
