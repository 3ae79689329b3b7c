//! Signing in and out, and tokens for scripts.

use super::{
    client::{Client, Failure, NOTHING, SignIn},
    duration, password,
    show::{Show, moment},
};
use crate::web::dto::{DeviceIssued, DeviceToken, FirstRequest, LoginRequest, MailSet, Me, PasswordChange, RoleView, TokenIssued, TokenRequest, TokenView};
use clap::Subcommand;
use reqwest::Method;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Verb {
    /// Sign in; holds for 12 hours
    Login {
        /// The address of Daypass, like https://daypass.example.com:7480; when left out, where you were signed in last
        #[arg(long)]
        server: Option<String>,
        /// Your name; when left out, the name you have on this machine
        #[arg(long)]
        name: Option<String>,
        /// The CA that signed the server's certificate (a PEM file; on the server: ca.pem in the data directory)
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
        /// Sign in by browser: with the provider of your organisation, or however you sign in there
        #[arg(long, conflicts_with_all = ["name", "password_stdin"])]
        sso: bool,
    },
    /// Make the first administrator with the one-time link that Daypass shows at its first start, and sign in
    First {
        /// The address of Daypass, like https://daypass.example.com:7480
        #[arg(long)]
        server: String,
        /// The administrator's name
        #[arg(long, default_value = "admin")]
        name: String,
        /// The CA that signed the server's certificate (a PEM file; on the server: ca.pem in the data directory)
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Read the link and then the new password from standard input, a line each
        #[arg(long)]
        stdin: bool,
    },
    /// Forget the sign-in of this machine
    Logout,
    /// Who am I, from which address, with which roles
    Whoami,
    /// Change your own password; all your other sign-ins end
    Password {
        /// The code of your authenticator, if you have one
        #[arg(long)]
        code: Option<String>,
        /// Read the old and then the new password from standard input, a line each
        #[arg(long)]
        stdin: bool,
    },
    /// Say where your notices go (nowhere, when no address is given)
    Mail { address: Option<String> },
    /// Tokens for scripts
    #[command(subcommand)]
    Token(Token),
}

#[derive(Subcommand)]
pub enum Token {
    /// Make a token for yourself; it is shown once
    Add {
        /// What it is for
        label: String,
        /// How long it holds
        #[arg(long, default_value = "8h", value_parser = duration)]
        life: u64,
    },
    /// Your sign-ins and tokens that hold now
    Ls,
    /// Take a token back
    Rm { id: String },
}

pub async fn run(verb: Verb, show: Show) -> Result<(), Failure> {
    match verb {
        Verb::Login { server, name, ca, password_stdin, sso } => {
            login(server, ca, if sso { How::Browser } else { How::Password { name, password_stdin } }, show).await
        }
        Verb::First { server, name, ca, stdin } => first(server, name, ca, stdin, show).await,
        Verb::Logout => logout(show).await,
        Verb::Whoami => {
            let me: Me = Client::signed_in()?.get(&["me"], &[]).await?;
            show.one(&me, |me| format!("{} from {}, {}", me.name, me.address, roles(&me.roles)));
            Ok(())
        }
        Verb::Token(Token::Add { label, life }) => {
            let made: TokenIssued = Client::signed_in()?.post(&["tokens"], Some(&TokenRequest { label, life })).await?;
            show.progress(&format!("Token {} holds until {}. It is shown only now:", made.id, moment(&made.ends_at)));
            show.one(&made, |made| made.token.clone());
            Ok(())
        }
        Verb::Password { code, stdin } => {
            let (old, new) = (password("Your password: ", stdin)?, password("The new one: ", stdin)?);
            Client::signed_in()?.tell(Method::POST, &["password"], Some(&PasswordChange { old, new, code })).await?;
            show.done("The new password holds. All your other sign-ins have ended.");
            Ok(())
        }
        Verb::Mail { address } => {
            Client::signed_in()?.tell(Method::PUT, &["mail"], Some(&MailSet { mail: address.clone() })).await?;
            show.done(&address.map_or("You get no mail any more.".to_owned(), |address| format!("Your notices go to {address}.")));
            Ok(())
        }
        Verb::Token(Token::Ls) => {
            let tokens: Vec<TokenView> = Client::signed_in()?.get(&["tokens"], &[]).await?;
            show.list(&tokens, &["id", "what", "since", "until", ""], "None.", |token| {
                let this = if token.this_one { "this one" } else { "" };
                vec![token.id.clone(), token.label.clone(), moment(&token.added_at), moment(&token.ends_at), this.to_owned()]
            });
            Ok(())
        }
        Verb::Token(Token::Rm { id }) => {
            Client::signed_in()?.tell(Method::DELETE, &["tokens", &id], NOTHING).await?;
            show.done("The token is taken back.");
            Ok(())
        }
    }
}

/// How one signs in.
enum How {
    Password { name: Option<String>, password_stdin: bool },
    Browser,
}

async fn login(server: Option<String>, ca: Option<PathBuf>, how: How, show: Show) -> Result<(), Failure> {
    let last = SignIn::last();
    let ca = match &ca {
        Some(path) => Some(read_ca(path)?),
        None => last.as_ref().filter(|last| server.as_ref().is_none_or(|server| *server == last.server)).and_then(|last| last.ca.clone()),
    };
    let server =
        server.or(last.map(|last| last.server)).ok_or_else(|| Failure::failed("where is Daypass? Name it: daypass login --server https://HOST:7480"))?;
    let client = Client::new(&server, String::new(), ca.as_deref())?;
    let issued = match how {
        How::Password { name, password_stdin } => by_password(&client, &server, name, password_stdin).await?,
        How::Browser => by_browser(&client, show).await?,
    };
    let ends_at = moment(&issued.ends_at);
    SignIn { server: server.clone(), token: issued.token.clone(), ca: ca.clone() }.keep()?;
    let me: Me = Client::new(&server, issued.token, ca.as_deref())?.get(&["me"], &[]).await?;
    show.done(&format!("Signed in as {} until {ends_at}.", me.name));
    Ok(())
}

/// Shows a code to type in a browser, and waits until that is done.
async fn by_browser(client: &Client, show: Show) -> Result<TokenIssued, Failure> {
    let device: DeviceIssued = client.post(&["device"], NOTHING).await?;
    show.progress(&format!("Open {} in a browser and type this code:\n\n    {}\n", device.url, device.code));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(device.seconds);
    let ask = DeviceToken { device_code: device.device_code };
    loop {
        match client.post(&["device", "token"], Some(&ask)).await {
            Err(failure) if failure.code == "pending" && std::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
            answer => return answer,
        }
    }
}

async fn by_password(client: &Client, server: &str, name: Option<String>, from_stdin: bool) -> Result<TokenIssued, Failure> {
    let name = name.or_else(|| std::env::var("USER").ok()).ok_or_else(|| Failure::failed("who are you? Name yourself: daypass login --name NAME"))?;
    let password = password(&format!("Password of {name} on {server}: "), from_stdin)?;
    let mut request = LoginRequest { name, password, code: None };
    match client.post(&["login"], Some(&request)).await {
        Err(failure) if failure.code == "second_factor" => {
            request.code = Some(super::password("Code of your authenticator: ", from_stdin)?);
            client.post(&["login"], Some(&request)).await
        }
        answer => answer,
    }
}

fn read_ca(path: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::failed(format!("the CA {} cannot be read: {e}", path.display())))
}

async fn first(server: String, name: String, ca: Option<PathBuf>, stdin: bool, show: Show) -> Result<(), Failure> {
    let ca = ca.as_deref().map(read_ca).transpose()?;
    let client = Client::new(&server, String::new(), ca.as_deref())?;
    let link = password("The one-time link: ", stdin)?;
    let code = link.trim().rsplit('/').next().unwrap_or_default().to_owned();
    let password = password(&format!("New password for {name}: "), stdin)?;
    let issued: TokenIssued = client.post(&["first"], Some(&FirstRequest { code, name: name.clone(), password })).await?;
    SignIn { server, token: issued.token, ca }.keep()?;
    show.done(&format!("{name} is the first administrator, and signed in until {}.", moment(&issued.ends_at)));
    Ok(())
}

/// Takes the token back, then forgets it here; when Daypass cannot be reached, it is forgotten all the same.
async fn logout(show: Show) -> Result<(), Failure> {
    let ended = match Client::signed_in() {
        Ok(client) => end_this(&client).await,
        Err(failure) => Err(failure),
    };
    SignIn::forget()?;
    match ended {
        Ok(()) => show.done("Signed out."),
        Err(_) => show.done("Signed out here. The token itself ends by itself, within 12 hours."),
    }
    Ok(())
}

async fn end_this(client: &Client) -> Result<(), Failure> {
    let tokens: Vec<TokenView> = client.get(&["tokens"], &[]).await?;
    for token in tokens.iter().filter(|token| token.this_one) {
        client.tell(Method::DELETE, &["tokens", &token.id], NOTHING).await?;
    }
    Ok(())
}

pub fn roles(roles: &[RoleView]) -> String {
    if roles.is_empty() {
        return "no roles".to_owned();
    }
    let word = |role: &RoleView| {
        let name = serde_json::to_value(role.role).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        match (&role.project, &role.environment) {
            (Some(project), _) => format!("{name}@project:{project}"),
            (None, Some(environment)) => format!("{name}@env:{environment}"),
            (None, None) => name,
        }
    };
    roles.iter().map(word).collect::<Vec<_>>().join(", ")
}
