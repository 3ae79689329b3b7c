//! Managed environments: standing accounts and machines.

use super::{
    client::{Client, Failure, NOTHING},
    password,
    show::{Show, moment},
};
use crate::web::dto::*;
use clap::Subcommand;
use reqwest::Method;

#[derive(Subcommand)]
pub enum Verb {
    /// Standing accounts of a managed environment: kept, shown with a reason, changed
    #[command(subcommand)]
    Standing(Accounts),
    /// Machine credentials of a managed environment, while remote desktop is on
    #[command(subcommand)]
    Machine(Machines),
}

#[derive(Subcommand)]
pub enum Accounts {
    /// List them
    Ls { environment: String },
    /// Keep an account that exists on the target
    Add {
        environment: String,
        name: String,
        /// What it is for, like db_owner
        #[arg(long)]
        note: Option<String>,
        /// Read its password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Keep it no longer; on the target it stays
    Rm { environment: String, name: String },
    /// Show its password (managers; the reason goes on record)
    Reveal {
        environment: String,
        name: String,
        #[arg(long)]
        reason: String,
    },
    /// Give it a new password now
    Rotate { environment: String, name: String },
}

#[derive(Subcommand)]
pub enum Machines {
    /// List them
    Ls { environment: String },
    /// Keep the credentials of a machine
    Add {
        environment: String,
        host: String,
        #[arg(long)]
        user: String,
        #[arg(long)]
        note: Option<String>,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Forget them
    Rm { environment: String, host: String },
    /// Show the password (managers; the reason goes on record)
    Reveal {
        environment: String,
        host: String,
        #[arg(long)]
        reason: String,
    },
}

pub async fn run(verb: Verb, client: &Client, show: Show) -> Result<(), Failure> {
    match verb {
        Verb::Standing(verb) => standing(verb, client, show).await,
        Verb::Machine(verb) => machine(verb, client, show).await,
    }
}

async fn standing(verb: Accounts, client: &Client, show: Show) -> Result<(), Failure> {
    match verb {
        Accounts::Ls { environment } => {
            let found: Vec<StandingView> = client.get(&["environments", &environment, "standing"], &[]).await?;
            show.list(&found, &["account", "note", "password of", ""], "No standing accounts.", |known| {
                let since = known.rotated_at.as_ref().unwrap_or(&known.added_at);
                vec![known.name.clone(), known.note.clone().unwrap_or_default(), moment(since), known.rotation.clone().unwrap_or_default()]
            });
        }
        Accounts::Add { environment, name, note, password_stdin } => {
            let password = password(&format!("Password of {name}: "), password_stdin)?;
            let made: StandingView = client.post(&["environments", &environment, "standing"], Some(&NewStanding { name, password, note })).await?;
            show.one(&made, |made| format!("{} is kept for {environment}.", made.name));
        }
        Accounts::Rm { environment, name } => {
            let id = account(client, &environment, &name).await?;
            client.tell(Method::DELETE, &["standing", &id], NOTHING).await?;
            show.done(&format!("{name} is kept no longer. On the target it stays."));
        }
        Accounts::Reveal { environment, name, reason } => {
            let id = account(client, &environment, &name).await?;
            let shown: Revealed = client.post(&["standing", &id, "reveal"], Some(&Why { why: Some(reason) })).await?;
            reveal(&shown, show);
        }
        Accounts::Rotate { environment, name } => {
            let id = account(client, &environment, &name).await?;
            client.tell(Method::POST, &["standing", &id, "rotate"], NOTHING).await?;
            show.done(&format!("{name} gets a new password in a moment: daypass standing ls {environment}"));
        }
    }
    Ok(())
}

async fn machine(verb: Machines, client: &Client, show: Show) -> Result<(), Failure> {
    match verb {
        Machines::Ls { environment } => {
            let found: Vec<MachineView> = client.get(&["environments", &environment, "machines"], &[]).await?;
            show.list(&found, &["machine", "user", "note", "since"], "No machines.", |known| {
                vec![known.host.clone(), known.user.clone(), known.note.clone().unwrap_or_default(), moment(&known.added_at)]
            });
        }
        Machines::Add { environment, host, user, note, password_stdin } => {
            let password = password(&format!("Password of {user} on {host}: "), password_stdin)?;
            let made: MachineView = client.post(&["environments", &environment, "machines"], Some(&NewMachine { host, user, password, note })).await?;
            show.one(&made, |made| format!("The credentials of {} are kept for {environment}.", made.host));
        }
        Machines::Rm { environment, host } => {
            let id = place(client, &environment, &host).await?;
            client.tell(Method::DELETE, &["machines", &id], NOTHING).await?;
            show.done(&format!("The credentials of {host} are forgotten."));
        }
        Machines::Reveal { environment, host, reason } => {
            let id = place(client, &environment, &host).await?;
            let shown: Revealed = client.post(&["machines", &id, "reveal"], Some(&Why { why: Some(reason) })).await?;
            reveal(&shown, show);
        }
    }
    Ok(())
}

fn reveal(shown: &Revealed, show: Show) {
    show.one(shown, |shown| {
        let until = shown.until.as_deref().map(|at| format!("\nChanged   {}: finish before", moment(at))).unwrap_or_default();
        format!("User      {}\nPassword  {}\nFor       {}{until}", shown.name, shown.password, shown.place)
    });
}

async fn account(client: &Client, environment: &str, name: &str) -> Result<String, Failure> {
    let found: Vec<StandingView> = client.get(&["environments", environment, "standing"], &[]).await?;
    let found = found.into_iter().find(|known| known.name == name);
    found.map(|known| known.id).ok_or_else(|| Failure::failed(format!("{environment} has no standing account {name}: daypass standing ls {environment}")))
}

async fn place(client: &Client, environment: &str, host: &str) -> Result<String, Failure> {
    let found: Vec<MachineView> = client.get(&["environments", environment, "machines"], &[]).await?;
    let found = found.into_iter().find(|known| known.host == host);
    found.map(|known| known.id).ok_or_else(|| Failure::failed(format!("{environment} has no machine {host}: daypass machine ls {environment}")))
}
