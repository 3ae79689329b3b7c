//! The whole start-up of a client, from its first byte to a proved password, as one machine.
//!
//! Refusals wait until TLS stands: psql hides an error that comes before it (CVE-2024-10977). A name that is not known runs
//! through the same exchange as one that is, with a verifier that no password fits.

use super::{
    message::*,
    refuse::{fatal, sqlstate},
    scram::{self, SCRAM, SCRAM_PLUS, Server, Verifier},
};
use crate::{limits, machine};

/// What the start-up of a client comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// The client names an account: look up its verifier and answer with [`Startup::verifier`].
    Account(String),
    /// The client has proved its password. Say [`Startup::welcome`] or refuse.
    Login(Login),
    /// The client wants a query of another session cancelled. No answer; close.
    Cancel(CancelKey),
}

pub type Step = machine::Step<Found>;

/// Who logs in, with what the client said about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    pub account: String,
    /// None when the client left it out.
    pub database: Option<String>,
    /// All other parameters, in the client's order: GUCs, `options`, `application_name`.
    pub parameters: Vec<(String, String)>,
    /// The minor version agreed: 0 or 2.
    pub minor: u16,
}

/// What a start-up needs from outside.
#[derive(Clone)]
pub struct Settings {
    /// A random nonce for this connection: at least 18 characters, no comma.
    pub nonce: String,
    /// The hash of our certificate for channel binding; none: PLUS is not offered.
    pub certificate: Option<Vec<u8>>,
}

enum State {
    First,
    Length,
    Packet,
    StartTls,
    /// TLS is asked of the driver; [`Startup::tls_started`] goes on.
    Handshake,
    NeedVerifier(Login),
    MechanismHeader(Login, Verifier),
    Mechanism(Login, Verifier),
    ProofHeader(Login, Server),
    Proof(Login, Server),
    Proved(Login, Vec<u8>),
    /// No bytes go back for a cancel request, whatever comes of it.
    Cancelling(CancelKey),
    Done,
    Close,
}

pub struct Startup {
    settings: Settings,
    state: State,
    out: Vec<u8>,
    encrypted: bool,
    /// The client's TLS came without SSLRequest in front (libpq's `sslnegotiation=direct`).
    direct: bool,
    preambles: [bool; limits::PG_PREAMBLES],
    want: usize,
    server_final: Vec<u8>,
}

impl Startup {
    pub fn new(settings: Settings) -> Self {
        Startup { settings, state: State::First, out: Vec::new(), encrypted: false, direct: false, preambles: [false; 2], want: 0, server_final: Vec::new() }
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if !self.out.is_empty() {
            return Step::Send(std::mem::take(&mut self.out));
        }
        match &mut self.state {
            State::First => Step::Peek,
            State::Length => Step::Read(4),
            State::MechanismHeader(..) | State::ProofHeader(..) => Step::Read(5),
            State::Packet | State::Mechanism(..) | State::Proof(..) => Step::Read(self.want),
            State::StartTls => {
                self.state = State::Handshake;
                Step::StartTls
            }
            State::NeedVerifier(login) => Step::Found(Found::Account(login.account.clone())),
            state @ State::Proved(..) => {
                let State::Proved(login, server_final) = std::mem::replace(state, State::Done) else { return Step::Close };
                self.server_final = server_final;
                Step::Found(Found::Login(login))
            }
            State::Cancelling(key) => {
                let key = key.clone();
                self.state = State::Done;
                Step::Found(Found::Cancel(key))
            }
            State::Handshake | State::Done | State::Close => Step::Close,
        }
    }

    /// Whether the client's TLS stands: only then may a reason be told.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The TLS handshake is done; `alpn` is the protocol agreed in it.
    pub fn tls_started(&mut self, alpn: Option<&[u8]>) {
        self.encrypted = true;
        self.state = State::Length;
        let missing = alpn.is_none() && self.direct;
        if missing || alpn.is_some_and(|protocol| protocol != b"postgresql") {
            self.refuse(
                sqlstate::PROTOCOL_VIOLATION,
                "direct TLS needs the ALPN protocol \"postgresql\"",
                "Use sslnegotiation=postgres, or a client that sends ALPN.",
            );
        }
    }

    /// The verifier of the account that was asked for; `mock` stands in for one that does not exist.
    pub fn verifier(&mut self, known: Option<Verifier>, mock: &[u8; 32]) {
        let State::NeedVerifier(login) = std::mem::replace(&mut self.state, State::Close) else { return };
        let verifier = known.unwrap_or_else(|| Verifier::mock(mock, &login.account));
        let mut body = 10_u32.to_be_bytes().to_vec();
        if self.settings.certificate.is_some() {
            put_cstr(&mut body, SCRAM_PLUS);
        }
        put_cstr(&mut body, SCRAM);
        body.push(0);
        put(&mut self.out, b'R', &body);
        self.state = State::MechanismHeader(login, verifier);
    }

    /// The end of a good login: the server's proof and AuthenticationOk. What the target said and a key come after it.
    pub fn welcome(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, b'R', &[&12_u32.to_be_bytes()[..], &self.server_final].concat());
        put(&mut out, b'R', &0_u32.to_be_bytes());
        out
    }

    /// The bytes that were read as the last step asked: never more.
    pub fn feed(&mut self, bytes: &[u8]) {
        match std::mem::replace(&mut self.state, State::Close) {
            State::First => self.first_byte(bytes),
            State::Length => self.length(bytes),
            State::Packet => self.packet(bytes),
            State::MechanismHeader(login, verifier) => {
                if self.sasl_header(bytes) {
                    self.state = State::Mechanism(login, verifier);
                }
            }
            State::Mechanism(login, verifier) => self.mechanism(bytes, login, verifier),
            State::ProofHeader(login, server) => {
                if self.sasl_header(bytes) {
                    self.state = State::Proof(login, server);
                }
            }
            State::Proof(login, server) => match server.finish(bytes) {
                Ok(server_final) => self.state = State::Proved(login, server_final),
                Err(fault) => self.wrong_password(&login.account, fault),
            },
            // fed without having asked: the driver is broken, and closed is the safe answer
            State::StartTls | State::Handshake | State::NeedVerifier(_) | State::Proved(..) | State::Cancelling(_) | State::Done | State::Close => {}
        }
    }

    fn first_byte(&mut self, bytes: &[u8]) {
        // 0x16 begins a TLS record; as a length it would be over 360 MB
        if bytes.first() == Some(&0x16) {
            self.direct = true;
            self.state = State::StartTls;
        } else {
            self.state = State::Length;
        }
    }

    fn length(&mut self, bytes: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(bytes) else { return };
        let length = u32::from_be_bytes(bytes) as usize;
        if (8..=limits::PG_STARTUP + 4).contains(&length) {
            self.want = length - 4;
            self.state = State::Packet;
        } else {
            // as PostgreSQL does: nothing is said to what cannot be a client of ours
            self.state = State::Close;
        }
    }

    fn packet(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let Some(code) = take_u32(&mut rest) else { return };
        match code {
            SSL_REQUEST if rest.is_empty() && !self.encrypted && self.once(0) => {
                self.out.push(b'S');
                self.state = State::StartTls;
            }
            GSSENC_REQUEST if rest.is_empty() && !self.encrypted && self.once(1) => {
                self.out.push(b'N');
                self.state = State::Length;
            }
            CANCEL_REQUEST => {
                let pid = take_u32(&mut rest);
                if let Some(pid) = pid.filter(|_| (4..=limits::PG_CANCEL_KEY).contains(&rest.len())) {
                    self.state = State::Cancelling(CancelKey { pid, secret: rest.to_vec() });
                }
            }
            SSL_REQUEST | GSSENC_REQUEST => self.refuse(sqlstate::PROTOCOL_VIOLATION, "this request was not expected here", ""),
            version if version >> 16 == 3 => self.startup_message((version & 0xffff) as u16, rest),
            version => {
                let asked = format!("unsupported frontend protocol {}.{}: the server supports 3.0 to 3.2", version >> 16, version & 0xffff);
                self.refuse(sqlstate::FEATURE_NOT_SUPPORTED, &asked, "");
            }
        }
    }

    fn once(&mut self, preamble: usize) -> bool {
        !std::mem::replace(&mut self.preambles[preamble], true)
    }

    fn startup_message(&mut self, asked_minor: u16, mut rest: &[u8]) {
        if !self.encrypted {
            return self.refuse(
                sqlstate::INVALID_AUTHORIZATION,
                "connection requires TLS (sslmode=require)",
                "Set sslmode=verify-full and sslrootcert to the CA file of Daypass.",
            );
        }
        let Some(Parameters { account, database, replication, others, unknown }) = Parameters::read(&mut rest) else {
            return self.refuse(sqlstate::PROTOCOL_VIOLATION, "invalid startup packet layout: expected terminator as last byte", "");
        };
        let Some(account) = account.filter(|name| !name.is_empty()) else {
            return self.refuse(
                sqlstate::INVALID_AUTHORIZATION,
                "no PostgreSQL user name specified in startup packet",
                "Name the account that `daypass passes` shows.",
            );
        };
        if replication {
            return self.refuse(
                sqlstate::INVALID_AUTHORIZATION,
                "replication connections are not possible through Daypass: they would copy the whole cluster",
                "Connect without the replication parameter.",
            );
        }
        let minor = asked_minor.min(2);
        // 3.1 was never a protocol: PostgreSQL answers it with 3.0
        let minor = if minor == 1 { 0 } else { minor };
        if minor != asked_minor || !unknown.is_empty() {
            let mut body = (PROTOCOL_3 | u32::from(minor)).to_be_bytes().to_vec();
            body.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
            unknown.iter().for_each(|name| put_cstr(&mut body, name));
            put(&mut self.out, b'v', &body);
        }
        self.state = State::NeedVerifier(Login { account, database, parameters: others, minor });
    }

    fn sasl_header(&mut self, bytes: &[u8]) -> bool {
        let (Some(b'p'), Some(length)) = (bytes.first(), bytes.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)) else {
            // a second StartupMessage here would swap the user in the middle of the exchange (CVE-2026-107350)
            self.refuse(sqlstate::PROTOCOL_VIOLATION, "expected a SASL response", "");
            return false;
        };
        let fits = (5..=limits::PG_SASL + 4).contains(&(length as usize));
        if fits {
            self.want = length as usize - 4;
        } else {
            self.refuse(sqlstate::PROTOCOL_VIOLATION, "the SASL response is too long", "");
        }
        fits
    }

    fn mechanism(&mut self, bytes: &[u8], login: Login, verifier: Verifier) {
        let mut rest = bytes;
        let name = take_cstr(&mut rest).map(<[u8]>::to_vec);
        let length = take_u32(&mut rest);
        let certificate = self.settings.certificate.as_deref();
        let plus = match name.as_deref() {
            Some(name) if name == SCRAM.as_bytes() => false,
            Some(name) if name == SCRAM_PLUS.as_bytes() && certificate.is_some() => true,
            _ => return self.refuse(sqlstate::PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism", "Use SCRAM-SHA-256."),
        };
        if length != u32::try_from(rest.len()).ok() {
            return self.refuse(sqlstate::PROTOCOL_VIOLATION, "malformed SASL response", "");
        }
        match Server::begin(rest, plus, certificate, &self.settings.nonce, verifier) {
            Ok((server, first)) => {
                put(&mut self.out, b'R', &[&11_u32.to_be_bytes()[..], &first].concat());
                self.state = State::ProofHeader(login, server);
            }
            Err(fault) => self.wrong_password(&login.account, fault),
        }
    }

    fn wrong_password(&mut self, account: &str, fault: scram::Fault) {
        let shown: String = account.chars().filter(|c| !c.is_control()).take(63).collect();
        match fault {
            scram::Fault::ChannelBinding => self.refuse(
                sqlstate::INVALID_AUTHORIZATION,
                "SCRAM channel binding check failed",
                "Something stands between you and the gateway, or ends its TLS.",
            ),
            _ => self.refuse(
                sqlstate::INVALID_PASSWORD,
                &format!("password authentication failed for user \"{shown}\""),
                "Check the user name and the password; `daypass passes` shows your accounts.",
            ),
        }
    }

    fn refuse(&mut self, code: &str, message: &str, hint: &str) {
        self.out.extend(fatal(code, message, "", hint));
        self.state = State::Close;
    }
}

struct Parameters {
    account: Option<String>,
    database: Option<String>,
    replication: bool,
    others: Vec<(String, String)>,
    /// Protocol extensions (`_pq_.…`), of which we know none.
    unknown: Vec<String>,
}

impl Parameters {
    fn read(rest: &mut &[u8]) -> Option<Parameters> {
        let mut found = Parameters { account: None, database: None, replication: false, others: Vec::new(), unknown: Vec::new() };
        loop {
            let name = text(take_cstr(rest)?)?;
            if name.is_empty() {
                // names are truncated at 63 bytes by the server; compare what it would compare
                found.account = found.account.map(truncated);
                found.database = found.database.map(truncated).filter(|name| !name.is_empty());
                return rest.is_empty().then_some(found);
            }
            let value = text(take_cstr(rest)?)?;
            match name.as_str() {
                "user" => found.account = Some(value),
                "database" => found.database = Some(value),
                "replication" => found.replication = !matches!(value.to_ascii_lowercase().as_str(), "false" | "off" | "no" | "0" | ""),
                name if name.starts_with("_pq_.") => found.unknown.push(name.to_owned()),
                _ => found.others.push((name, value)),
            }
        }
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn truncated(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(63));
    name
}
