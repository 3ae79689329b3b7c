//! PostgreSQL's clients: the start-up, the words of a refusal, and what is carried to the target.

use crate::{
    World,
    accept::Gateway,
    answer::About,
    connection::{Greeted, Knock, Trouble, without_server},
    line::{Line, Startup as Drives},
    nonce,
    tls::Identity,
};
use daypass_core::admission::Refused;
use daypass_wire::{
    machine::Step,
    pg::{
        message::CancelKey,
        refuse::{fatal, sqlstate},
        startup::{Found, Login, Settings, Startup},
        upstream::Ready,
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
        (identity.config.clone(), false)
    }
}

/// A client that has proved its password.
pub struct Client {
    startup: Startup,
    login: Login,
}

/// Drives the start-up machine to a proved password.
pub async fn greet<W: World>(gateway: &Arc<Gateway<W>>, tcp: TcpStream) -> io::Result<Greeted> {
    let identity = gateway.certificate.current();
    let mut startup = Startup::new(Settings { nonce: nonce(), certificate: identity.end_point.clone() });
    let mut line = Line::Plain(tcp);
    loop {
        let (next, found) = line.drive(&mut startup, &identity).await?;
        line = next;
        match found {
            Found::Account(account) => startup.verifier(gateway.world.verifier(without_server(&account)), &gateway.mock_secret),
            Found::Cancel(key) => return Ok(Greeted::Cancel(line, key)),
            Found::Login(login) => {
                let application = login.parameters.iter().find(|(name, _)| name == "application_name").map(|(_, value)| value.clone()).unwrap_or_default();
                let knock = Knock { account: without_server(&login.account).to_owned(), database: login.database.clone(), server: Vec::new(), application };
                return Ok(Greeted::Login(line.guest()?, knock, crate::connection::Client::Postgres(Box::new(Client { startup, login }))));
            }
        }
    }
}

impl Client {
    /// The client's parameters. Where it names no application, person and address stand there; a name that it gives is its own affair, but
    /// with an account that is shared, of which nobody could tell at the target who it is: PostgreSQL keeps 63 bytes of it.
    pub fn attributed(&self, knock: &Knock, shared: bool, person: &str, peer: SocketAddr) -> Vec<(String, String)> {
        let mut parameters = self.login.parameters.clone();
        if knock.application.is_empty() || shared {
            let suffix = format!("daypass {person} {}", peer.ip());
            let room = 62_usize.saturating_sub(suffix.len());
            let name = &knock.application[..knock.application.floor_char_boundary(room)];
            parameters.retain(|(key, _)| key != "application_name");
            parameters.push(("application_name".to_owned(), format!("{name} {suffix}").trim_start().to_owned()));
        }
        parameters
    }

    /// The key that the client gets for its cancel requests: the target's own number, which means the session everywhere, with a secret of
    /// ours, as long as the client's protocol allows.
    pub fn cancel_key(&self, pid: u32) -> CancelKey {
        let mut secret = vec![0; if self.login.minor == 2 { 32 } else { 4 }];
        crate::random(&mut secret);
        CancelKey { pid, secret }
    }

    /// What ends the start-up: the target's own words, with our key in place of its own.
    pub fn welcome(&mut self, ready: &Ready, key: &CancelKey) -> Vec<u8> {
        let mut welcome = self.startup.welcome();
        welcome.extend_from_slice(&ready.parameters);
        welcome.extend_from_slice(&key.backend_key_data());
        welcome.extend_from_slice(&ready.ready);
        welcome
    }
}

impl Client {
    /// A refusal in PostgreSQL's own form. The password is proved, which is said first: libpq with `sslmode=prefer` would try once more without
    /// TLS otherwise, and show the words of that.
    pub fn refuse(&mut self, trouble: &Trouble) -> Vec<u8> {
        let mut words = self.startup.welcome();
        words.extend(refuse(trouble));
        words
    }
}

fn refuse(trouble: &Trouble) -> Vec<u8> {
    let code = match trouble {
        Trouble::Refused(refused) => match refused {
            Refused::Unknown => sqlstate::INVALID_PASSWORD,
            Refused::NotReady { .. } | Refused::Frozen { .. } => sqlstate::CANNOT_CONNECT_NOW,
            Refused::Over { .. }
            | Refused::AddressNotAllowed { .. }
            | Refused::AccessNotAllowed { .. }
            | Refused::NotApproved { .. }
            | Refused::WrongEngine { .. }
            | Refused::WrongServer { .. } => sqlstate::INVALID_AUTHORIZATION,
            Refused::WrongDatabase { .. } => sqlstate::INVALID_CATALOG_NAME,
            Refused::TooManySessions { .. } | Refused::TargetFull { .. } | Refused::TargetShare { .. } => sqlstate::TOO_MANY_CONNECTIONS,
        },
        Trouble::Fallen(_) => sqlstate::INVALID_AUTHORIZATION,
        Trouble::Target { error, .. } => {
            error.postgres_code().unwrap_or(if error.about() == About::Gateway { sqlstate::REJECTED } else { sqlstate::CANNOT_CONNECT_NOW })
        }
        Trouble::NotRecorded => sqlstate::CANNOT_CONNECT_NOW,
    };
    fatal(code, &trouble.words(), "", &trouble.remedy())
}
