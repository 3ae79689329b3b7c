//! SQL Server's clients: the start-up, the number and the words of a refusal, and what is carried to the target.

use crate::{
    World,
    accept::Gateway,
    answer::About,
    connection::{Greeted, Knock, Trouble, without_server},
    line::{Line, Startup as Drives},
    tls::Identity,
};
use daypass_core::{admission::Refused, environment::Environment, names::server_label};
use daypass_wire::{
    machine::Step,
    tds::{
        login7::Login7,
        refuse::{Driver, Reason, number},
        startup::{Found, Login, Startup, Tls},
    },
};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;

impl Drives for Startup {
    type Found = Found;
    fn step(&mut self) -> Step<Found> {
        Startup::step(self)
    }
    fn feed(&mut self, bytes: &[u8]) {
        Startup::feed(self, bytes);
    }
    fn tls_started(&mut self, alpn: Option<&[u8]>) {
        Startup::tls_started(self, alpn);
    }
    fn tls(&self, identity: &Identity) -> (Arc<rustls::ServerConfig>, bool) {
        match Startup::tls(self) {
            Tls::Wrapped => (identity.wrapped.clone(), true),
            Tls::Strict => (identity.strict.clone(), false),
        }
    }
}

/// Drives the start-up machine to a proved password.
pub async fn greet<W: World>(gateway: &Arc<Gateway<W>>, tcp: TcpStream) -> io::Result<Greeted> {
    let identity = gateway.certificate.current();
    let mut startup = Startup::default();
    let mut line = Line::Plain(tcp);
    loop {
        let (next, found) = line.drive(&mut startup, &identity).await?;
        line = next;
        match found {
            Found::Account(account) => {
                let (verifier, mock) = (gateway.world.verifier(without_server(&account)), gateway.mock_secret);
                let _check = gateway.checks.acquire().await.map_err(io::Error::other)?;
                let checking = tokio::task::spawn_blocking(move || {
                    startup.verifier(verifier, &mock);
                    startup
                });
                startup = checking.await.map_err(io::Error::other)?;
            }
            Found::Login(login) => {
                let guest = line.guest()?;
                // the name in the login, or the one after '@' as Azure takes it, or the one that TLS was asked for
                let suffix = login.login.user.split_once('@').map(|(_, server)| server);
                let asked = [Some(login.login.server.as_str()), suffix, guest.server_name()].into_iter().flatten();
                let knock = Knock {
                    account: without_server(&login.login.user).to_owned(),
                    database: Some(login.login.database.clone()).filter(|name| !name.is_empty()),
                    server: asked.filter_map(|name| server_label(name, gateway.suffix.as_deref())).collect(),
                    application: login.login.application.clone(),
                };
                return Ok(Greeted::Login(guest, knock, crate::connection::Client::SqlServer(login)));
            }
        }
    }
}

/// In LOGIN7's TypeFlags ([MS-TDS] 2.2.6.4, fReadOnlyIntent).
const READ_ONLY_INTENT: u8 = 0x20;

/// The client's login, with person, pass and address in the two names that SQL Server shows of a session.
pub fn attributed(login: &Login, pass: &str, peer: SocketAddr) -> Login7 {
    let application = format!("{} | daypass:{pass}", String::from_utf16_lossy(&login.login.application.encode_utf16().take(80).collect::<Vec<_>>()));
    // a listener of an availability group would send a read-only intent on to a replica, which is another database than access was given to
    let type_flags = login.login.type_flags & !READ_ONLY_INTENT;
    Login7 { host: format!("{}/daypass", peer.ip()), application, type_flags, ..login.login.clone() }
}

/// A refusal with the number that the client's driver shows at once, in a sentence that names what to do.
pub fn refuse(trouble: &Trouble, login: &Login, environment: Option<&Environment>) -> Vec<u8> {
    let driver = Driver::of(&login.login.library);
    let database = environment.map_or("", |env| env.spec.database.as_str());
    let server = environment.map_or("", |env| env.spec.name.as_str());
    let remedy = trouble.remedy();
    let (wanted, base) = match trouble {
        Trouble::Refused(Refused::AddressNotAllowed { address, .. }) => (
            number::ADDRESS_NOT_ALLOWED,
            format!("Cannot open server '{server}' requested by the login. Client with IP address '{address}' is not allowed to access the server."),
        ),
        Trouble::Refused(Refused::WrongDatabase { asked, database }) => (
            number::CANNOT_OPEN_DATABASE,
            format!(
                "Cannot open database \"{asked}\" requested by the login. The login failed. This account opens \"{database}\" only: type it in Options > Connection Properties > Connect to database."
            ),
        ),
        Trouble::Refused(Refused::WrongServer { asked, .. }) => {
            (number::CANNOT_OPEN_SERVER, format!("Cannot open server \"{asked}\" requested by the login. The login failed."))
        }
        Trouble::Target { error, .. } if error.about() == About::Room => (number::LIMIT, said(trouble)),
        // what no retry mends has a number that no driver tries again
        Trouble::Target { error, .. } if error.about() != About::Passing => (number::LOGIN_FAILED, said(trouble)),
        Trouble::Refused(Refused::Frozen { .. } | Refused::NotReady { .. }) | Trouble::Target { .. } => (
            number::NOT_AVAILABLE,
            format!("Database '{database}' on server '{server}' is not currently available. Please retry the connection later. {}", said(trouble)),
        ),
        Trouble::Refused(Refused::TooManySessions { .. } | Refused::TargetFull { .. } | Refused::TargetShare { .. }) => (number::LIMIT, said(trouble)),
        Trouble::Refused(_) | Trouble::Fallen(_) | Trouble::NotRecorded => (number::LOGIN_FAILED, said(trouble)),
    };
    let words = format!("{base} {remedy}");
    let reason = if wanted != number::LOGIN_FAILED && driver.shows(wanted) {
        Reason { number: wanted, class: daypass_wire::tds::refuse::LOGIN, text: words }
    } else {
        Reason::login_failed(&login.login.user, &words)
    };
    reason.reply()
}

/// A trouble's words as a sentence.
fn said(trouble: &Trouble) -> String {
    let words = trouble.words();
    let mut letters = words.trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
