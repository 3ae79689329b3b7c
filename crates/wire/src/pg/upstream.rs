//! The login at a target, as one machine: SSLRequest, start-up, SCRAM(-PLUS), until it is ready for queries.
//!
//! A target may be hostile: every length is bounded, only SCRAM is answered (never a password in clear or as MD5), and its
//! errors are kept for the log, not for the client.

use super::{
    message::*,
    scram::{Client, ClientProved, SCRAM, SCRAM_PLUS, SaltedPassword},
};
use crate::{limits, machine};
use zeroize::Zeroizing;

/// What the login at a target comes to.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Found {
    Ready(Ready),
    /// Why it did not work, for the log and the administrator.
    Failed(String),
    /// The same in the target's own words.
    Answered(ErrorFields),
}

pub type Step = machine::Step<Found>;

/// A target that is ready for queries.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Ready {
    /// ParameterStatus messages (and notices), verbatim: the client gets them as they are.
    pub parameters: Vec<u8>,
    pub key: CancelKey,
    /// The ReadyForQuery message, verbatim.
    pub ready: Vec<u8>,
    pub seen: Seen,
}

/// Which database it is that we are in.
#[derive(Debug, PartialEq, Eq, Clone, Default)]
pub struct Seen {
    /// `postgres:<system identifier>:<oid of the database>`
    pub identity: String,
    /// How far its log is (WAL location); none on a standby.
    pub position: Option<u64>,
}

/// Asked right behind the proof, in the same packet, so that it costs no round trip: a database that was replaced since the last look lets
/// nobody in. Every name is qualified: the session may have a search path of its client's.
const WHICH: &str = "SELECT pg_catalog.concat('postgres:', (SELECT system_identifier FROM pg_catalog.pg_control_system()), ':', \
                     (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())), \
                     CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_lsn() END";

/// How often the question is asked when a limit of the client's own ends it.
const TRIES: u32 = 100;
const QUERY_CANCELED: &str = "57014";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// A WAL location as people write it, `16/B374D848`, as a number (PostgreSQL manual, "pg_lsn Type").
pub fn location(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

/// Who logs in at the target.
pub struct Credentials {
    pub user: String,
    pub password: Zeroizing<String>,
    pub database: String,
    pub parameters: Vec<(String, String)>,
    /// A random nonce, at least 18 characters, no comma.
    pub nonce: String,
    /// The slow part of SCRAM, kept from an earlier login of the same account.
    pub salted: Option<SaltedPassword>,
}

enum State {
    AskTls,
    TlsAnswer,
    StartTls,
    Handshake,
    Header,
    Body(u8, usize),
    Over(Option<Found>),
}

pub struct Upstream {
    credentials: Credentials,
    state: State,
    out: Vec<u8>,
    certificate: Option<Vec<u8>>,
    client: Option<Client>,
    proved: Option<ClientProved>,
    authenticated: bool,
    parameters: Vec<u8>,
    key: Option<CancelKey>,
    seen: Option<Seen>,
    /// It has answered that it is ready once: what follows is the answer to [`WHICH`].
    asking: bool,
    /// How often it has been asked anew, and whether it is to be once more.
    tries: u32,
    again: bool,
    read: usize,
}

impl Upstream {
    /// With `tls`, nothing but a TLS handshake follows the target's consent; a target that declines is an error.
    pub fn new(credentials: Credentials, tls: bool) -> Self {
        let mut upstream = Upstream {
            credentials,
            state: State::AskTls,
            out: Vec::new(),
            certificate: None,
            client: None,
            proved: None,
            authenticated: false,
            parameters: Vec::new(),
            key: None,
            seen: None,
            asking: false,
            tries: 0,
            again: false,
            read: 0,
        };
        if tls {
            put_untagged(&mut upstream.out, &SSL_REQUEST.to_be_bytes());
            upstream.state = State::TlsAnswer;
        } else {
            upstream.startup();
        }
        upstream
    }

    pub fn step(&mut self) -> Step {
        if !self.out.is_empty() {
            return Step::Send(std::mem::take(&mut self.out));
        }
        match &mut self.state {
            State::TlsAnswer => Step::Read(1),
            State::StartTls => {
                self.state = State::Handshake;
                Step::StartTls
            }
            State::Header => Step::Read(5),
            State::Body(_, length) => Step::Read(*length),
            State::Over(found) => found.take().map_or(Step::Close, Step::Found),
            State::AskTls | State::Handshake => Step::Close,
        }
    }

    /// TLS stands; `certificate` is the hash of the target's certificate, for channel binding.
    pub fn tls_started(&mut self, certificate: Option<Vec<u8>>) {
        self.certificate = certificate;
        self.startup();
    }

    /// The slow part of SCRAM, for the next login of the same account.
    pub fn salted(&mut self) -> Option<SaltedPassword> {
        self.credentials.salted.take()
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        match self.state {
            State::TlsAnswer => match bytes {
                b"S" => self.state = State::StartTls,
                _ => self.fail("it does not speak TLS, and its environment asks for it"),
            },
            State::Header => self.header(bytes),
            State::Body(tag, _) => {
                self.state = State::Header;
                if let Err(why) = self.message(tag, bytes) {
                    self.fail(&why);
                }
            }
            State::AskTls | State::StartTls | State::Handshake | State::Over(_) => {}
        }
    }

    fn startup(&mut self) {
        let mut body = PROTOCOL_3.to_be_bytes().to_vec();
        let Credentials { user, database, parameters, .. } = &self.credentials;
        let own = [("user", user.as_str()), ("database", database.as_str())];
        for (name, value) in own.into_iter().chain(parameters.iter().map(|(n, v)| (n.as_str(), v.as_str()))) {
            put_cstr(&mut body, name);
            put_cstr(&mut body, value);
        }
        body.push(0);
        put_untagged(&mut self.out, &body);
        self.state = State::Header;
    }

    fn fail(&mut self, why: &str) {
        self.state = State::Over(Some(Found::Failed(why.to_owned())));
    }

    fn header(&mut self, bytes: &[u8]) {
        let (Some(&tag), Some(length)) = (bytes.first(), bytes.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)) else {
            return self.fail("it sent no message");
        };
        let body = (length as usize).wrapping_sub(4);
        self.read = self.read.saturating_add(body);
        if !(4..=limits::PG_UPSTREAM_MESSAGE + 4).contains(&(length as usize)) || self.read > limits::PG_UPSTREAM_LOGIN {
            return self.fail("it sends more than a login takes");
        }
        if body == 0 { self.state = State::Header } else { self.state = State::Body(tag, body) }
    }

    fn message(&mut self, tag: u8, body: &[u8]) -> Result<(), String> {
        match tag {
            b'R' => self.authentication(body),
            b'E' => {
                let fields = error_fields(body);
                // the client's own settings hold for the question as well, and one of them may be a limit that it just does not keep
                if self.asking && matches!(fields.code.as_str(), QUERY_CANCELED | LOCK_NOT_AVAILABLE) && self.tries < TRIES {
                    self.tries += 1;
                    self.again = true;
                    return Ok(());
                }
                self.state = State::Over(Some(Found::Answered(fields)));
                Ok(())
            }
            b'S' | b'N' if self.authenticated => {
                put(&mut self.parameters, tag, body);
                Ok(())
            }
            // a notice before authentication is nobody's business
            b'N' => Ok(()),
            b'K' if self.authenticated && (8..=4 + limits::PG_CANCEL_KEY).contains(&body.len()) => {
                let mut rest = body;
                let pid = take_u32(&mut rest).unwrap_or_default();
                self.key = Some(CancelKey { pid, secret: rest.to_vec() });
                Ok(())
            }
            b'Z' if self.authenticated && !self.asking => {
                self.asking = true;
                Ok(())
            }
            b'T' | b'C' if self.asking => Ok(()),
            b'D' if self.asking && self.seen.is_none() => {
                self.seen = Some(seen(body).ok_or("it does not say which database it is")?);
                Ok(())
            }
            b'Z' if self.authenticated && std::mem::take(&mut self.again) => {
                self.seen = None;
                self.ask();
                Ok(())
            }
            b'Z' if self.authenticated => {
                let seen = self.seen.take().ok_or("it does not say which database it is")?;
                let mut ready = Vec::new();
                put(&mut ready, tag, body);
                let parameters = std::mem::take(&mut self.parameters);
                let key = self.key.take().unwrap_or(CancelKey { pid: 0, secret: Vec::new() });
                self.state = State::Over(Some(Found::Ready(Ready { parameters, key, ready, seen })));
                Ok(())
            }
            _ => Err(format!("it sent message '{}' where none was due", tag.escape_ascii())),
        }
    }

    fn ask(&mut self) {
        let mut which = Vec::new();
        put_cstr(&mut which, WHICH);
        put(&mut self.out, b'Q', &which);
    }

    fn authentication(&mut self, body: &[u8]) -> Result<(), String> {
        let mut rest = body;
        let kind = take_u32(&mut rest).ok_or("its authentication request is cut short")?;
        match kind {
            10 if self.client.is_none() => {
                let offered: Vec<&[u8]> = std::iter::from_fn(|| take_cstr(&mut rest).filter(|name| !name.is_empty())).collect();
                let certificate = self.certificate.as_deref().filter(|_| offered.contains(&SCRAM_PLUS.as_bytes()));
                if certificate.is_none() && !offered.contains(&SCRAM.as_bytes()) {
                    return Err("it offers no SCRAM-SHA-256".to_owned());
                }
                let mechanism = if certificate.is_some() { SCRAM_PLUS } else { SCRAM };
                let (client, first) = Client::begin(&self.credentials.nonce, certificate);
                let mut answer = Vec::new();
                put_cstr(&mut answer, mechanism);
                answer.extend_from_slice(&(first.len() as u32).to_be_bytes());
                answer.extend_from_slice(&first);
                put(&mut self.out, b'p', &answer);
                self.client = Some(client);
                Ok(())
            }
            11 => {
                let client = self.client.take().ok_or("it answers a SCRAM exchange that was not begun")?;
                let (proved, last) = client.prove(rest, &self.credentials.password, &mut self.credentials.salted).map_err(|e| e.to_string())?;
                put(&mut self.out, b'p', &last);
                self.ask();
                self.proved = Some(proved);
                Ok(())
            }
            12 => {
                let proved = self.proved.take().ok_or("it ends a SCRAM exchange that was not begun")?;
                proved.check(rest).map_err(|_| "it does not know the account's password itself: it is not the server that it claims to be".to_owned())?;
                self.authenticated = true;
                Ok(())
            }
            // the bare "OK" of a server that asked for no password would let an impostor in
            0 if self.authenticated => Ok(()),
            0 => Err("it lets the account in without a password; its pg_hba.conf must ask for scram-sha-256".to_owned()),
            3 | 5 => Err("it asks for a password in clear or as MD5; its pg_hba.conf must ask for scram-sha-256".to_owned()),
            other => Err(format!("it asks for an authentication that Daypass does not do (number {other})")),
        }
    }
}

/// The one row of the answer to [`WHICH`]: two values, as text (PostgreSQL manual, "DataRow").
fn seen(body: &[u8]) -> Option<Seen> {
    let mut rest = body;
    let value = |rest: &mut &[u8]| -> Option<Option<String>> {
        let length = take_u32(rest)?;
        if length == u32::MAX {
            return Some(None);
        }
        Some(Some(String::from_utf8_lossy(take(rest, length as usize)?).into_owned()))
    };
    if take_u16(&mut rest)? != 2 {
        return None;
    }
    let identity = value(&mut rest)??;
    let position = match value(&mut rest)? {
        Some(text) => Some(location(&text)?),
        None => None,
    };
    Some(Seen { identity, position })
}
