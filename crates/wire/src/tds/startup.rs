//! The whole start-up of a client, from its first byte to a proved password, as one machine: PRELOGIN, TLS (wrapped in packets,
//! or from the first byte as in TDS 8.0), LOGIN7.
//!
//! TLS is always asked for, and all of the session lies inside: the answer "only the login" would let everything after it go
//! in the clear.

use super::{
    login7::{Login7, feature},
    packet::{self, Gathered, Gathering, kind},
    prelogin::{Prelogin, encryption, option},
    refuse::Reason,
};
use crate::{limits, machine, pg::scram::Verifier};

/// What the start-up of a client comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// The client names an account: look up its verifier and answer with [`Startup::verifier`].
    Account(String),
    /// The client has proved its password: welcome it with the target's own words, or refuse.
    Login(Box<Login>),
}

pub type Step = machine::Step<Found>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    pub login: Login7,
    /// The client wants several sessions inside its connection.
    pub mars: bool,
}

/// How TLS begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// Its handshake lies in PRELOGIN packets: TLS 1.2 only, clients fail with a later one.
    Wrapped,
    /// Before everything else, with the protocol name `tds/8.0`.
    Strict,
}

/// What we call ourselves: SQL Server 2022. Clients choose the layout of some tokens by it.
pub const VERSION: [u8; 6] = [16, 0, 0x10, 0x27, 0, 0];

enum State {
    First,
    Prelogin(Gathering),
    StartTls,
    Handshake,
    Login(Gathering),
    NeedVerifier(Box<Login>),
    Proved(Box<Login>),
    Close,
}

pub struct Startup {
    state: State,
    out: Vec<u8>,
    tls: Tls,
    encrypted: bool,
    mars: bool,
}

impl Default for Startup {
    fn default() -> Self {
        Startup { state: State::First, out: Vec::new(), tls: Tls::Wrapped, encrypted: false, mars: false }
    }
}

impl Startup {
    /// What to do next.
    pub fn step(&mut self) -> Step {
        if !self.out.is_empty() {
            return Step::Send(std::mem::take(&mut self.out));
        }
        match &mut self.state {
            State::First => Step::Peek,
            State::Prelogin(gathering) | State::Login(gathering) => Step::Read(gathering.want()),
            State::StartTls => {
                self.state = State::Handshake;
                Step::StartTls
            }
            State::NeedVerifier(login) => Step::Found(Found::Account(login.login.user.clone())),
            state @ State::Proved(_) => match std::mem::replace(state, State::Close) {
                State::Proved(login) => Step::Found(Found::Login(login)),
                _ => Step::Close,
            },
            State::Handshake | State::Close => Step::Close,
        }
    }

    /// How the TLS that [`Step::StartTls`] asks for begins.
    pub fn tls(&self) -> Tls {
        self.tls
    }

    /// Whether the client's TLS stands: before that, nothing of a login is read.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The TLS handshake is done; `alpn` is the protocol agreed in it. A strict client that names none is let in: it cannot
    /// be taken for one of another protocol, because TDS has a port of its own.
    pub fn tls_started(&mut self, alpn: Option<&[u8]>) {
        self.encrypted = true;
        self.state = match self.tls {
            Tls::Strict if alpn.is_some_and(|protocol| protocol != b"tds/8.0") => State::Close,
            Tls::Strict => State::Prelogin(Gathering::new(kind::PRELOGIN, limits::TDS_PRELOGIN)),
            Tls::Wrapped => State::Login(Gathering::new(kind::LOGIN7, limits::TDS_LOGIN)),
        };
    }

    /// The bytes that were read as the last step asked: never more.
    pub fn feed(&mut self, bytes: &[u8]) {
        match std::mem::replace(&mut self.state, State::Close) {
            State::First => match bytes.first() {
                Some(0x16) => {
                    self.tls = Tls::Strict;
                    self.state = State::StartTls;
                }
                Some(&kind::PRELOGIN) => self.state = State::Prelogin(Gathering::new(kind::PRELOGIN, limits::TDS_PRELOGIN)),
                // what else there is closes, as at the real server
                _ => {}
            },
            State::Prelogin(mut gathering) => match gathering.feed(bytes) {
                Gathered::More => self.state = State::Prelogin(gathering),
                Gathered::Whole(message, _) => self.prelogin(&message),
                Gathered::Broken => {}
            },
            State::Login(mut gathering) => match gathering.feed(bytes) {
                Gathered::More => self.state = State::Login(gathering),
                Gathered::Whole(message, _) => self.login(&zeroize::Zeroizing::new(message)),
                Gathered::Broken => {}
            },
            // fed without having asked: the driver is broken, and closed is the safe answer
            State::StartTls | State::Handshake | State::NeedVerifier(_) | State::Proved(_) | State::Close => {}
        }
    }

    fn prelogin(&mut self, message: &[u8]) {
        let Some(said) = Prelogin::read(message) else { return };
        self.mars = said.byte(option::MARS) == Some(1);
        let answer = Prelogin::default()
            .with(option::VERSION, &VERSION)
            .with(option::ENCRYPTION, &[encryption::REQUIRED])
            .with(option::INSTANCE, &[0])
            .with(option::THREAD, &[])
            .with(option::MARS, &[u8::from(self.mars)]);
        let answer = if said.get(option::FEDAUTH_REQUIRED).is_some() { answer.with(option::FEDAUTH_REQUIRED, &[0]) } else { answer };
        packet::put(&mut self.out, kind::REPLY, 0, &answer.message(), 4_096);
        // a client that says it cannot encrypt may begin TLS all the same (FreeTDS does); one that really cannot gives up by itself
        self.state = if self.encrypted { State::Login(Gathering::new(kind::LOGIN7, limits::TDS_LOGIN)) } else { State::StartTls };
    }

    fn login(&mut self, message: &[u8]) {
        if Login7::is_too_old(message) {
            let reason = Reason::login_failed("", "This client speaks a version of TDS from before SQL Server 2005: set its TDS version to 7.4.");
            self.out.extend(reason.old_reply());
            self.state = State::Close;
            return;
        }
        let Some(login) = Login7::read(message) else {
            return self.refuse(&Reason::login_failed("", "The login message could not be read."));
        };
        let why = if login.changes_password {
            "Daypass makes and ends passwords itself; they cannot be changed."
        } else if login.has_sspi || login.feature(feature::FEDAUTH).is_some() {
            "Daypass accepts SQL authentication only: choose 'SQL Server Authentication' (SQL Login) with the user name and password that Daypass shows."
        } else if !login.attach_file.is_empty() || login.flags3 & 0x04 != 0 {
            "Database files and user instances cannot be attached through Daypass."
        } else if login.user.is_empty() {
            "No user name was given: take the one that `daypass passes` shows."
        } else {
            self.state = State::NeedVerifier(Box::new(Login { login, mars: self.mars }));
            return;
        };
        self.refuse(&Reason::login_failed(&login.user, why));
    }

    /// The verifier of the account that was asked for. A name that is not known takes as long as a wrong password, and gets the
    /// same answer.
    pub fn verifier(&mut self, known: Option<Verifier>, mock: &[u8; 32]) {
        let State::NeedVerifier(login) = std::mem::replace(&mut self.state, State::Close) else { return };
        let verifier = known.unwrap_or_else(|| Verifier::mock(mock, &login.login.user));
        if verifier.fits(&login.login.password) {
            self.state = State::Proved(login);
        } else {
            self.refuse(&Reason::login_failed(&login.login.user, "Check the user name and the password; `daypass passes` shows your accounts."));
        }
    }

    fn refuse(&mut self, reason: &Reason) {
        self.out.extend(reason.reply());
        self.state = State::Close;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tds::token;

    /// What a client is told that logs in so.
    fn told(message: &[u8]) -> String {
        let mut machine = Startup::default();
        machine.feed(&[0x16]);
        machine.tls_started(Some(b"tds/8.0"));
        let prelogin = Prelogin::default().with(option::VERSION, &VERSION).message();
        let send = |machine: &mut Startup, kind, message: &[u8]| {
            let mut bytes = Vec::new();
            packet::put(&mut bytes, kind, 0, message, 4_096);
            let mut rest = bytes.as_slice();
            while let Step::Read(n) = machine.step() {
                let (part, more) = rest.split_at(n);
                machine.feed(part);
                rest = more;
            }
        };
        assert_eq!(machine.step(), Step::Read(packet::HEADER));
        send(&mut machine, kind::PRELOGIN, &prelogin);
        while matches!(machine.step(), Step::Send(_)) {}
        let mut bytes = Vec::new();
        packet::put(&mut bytes, kind::LOGIN7, 0, message, 4_096);
        machine.feed(&bytes[..packet::HEADER]);
        machine.feed(&bytes[packet::HEADER..]);
        let Step::Send(reply) = machine.step() else { return "let on".to_owned() };
        assert_eq!(machine.step(), Step::Close);
        let (number, _, text) = token::read_message(&reply[packet::HEADER..]).unwrap();
        assert_eq!(number, 18_456);
        text
    }

    fn login(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let user = Login7 { user: "jit_maria_aaaa".to_owned(), ..Login7::default() };
        let mut message = user.message().to_vec();
        change(&mut message);
        message
    }

    #[test]
    fn what_is_not_taken_is_refused_in_words() {
        assert_eq!(told(&login(|_| {})), "let on");
        let windows = "choose 'SQL Server Authentication'";
        assert!(told(&login(|m| m[25] |= 0x80)).contains(windows), "Windows' own authentication");
        let token = Login7 { user: "a".to_owned(), features: vec![(feature::FEDAUTH, vec![0; 5])], ..Login7::default() };
        assert!(told(&token.message()).contains(windows), "a token of Entra");
        assert!(told(&login(|m| m[27] |= 0x01)).contains("cannot be changed"), "a new password");
        assert!(told(&login(|m| m[27] |= 0x04)).contains("cannot be attached"), "a user instance");
        let file = |m: &mut Vec<u8>| {
            let at = m.len() as u16;
            m[82..84].copy_from_slice(&at.to_le_bytes());
            m[84..86].copy_from_slice(&1_u16.to_le_bytes());
            m.extend([b'f', 0]);
            let length = m.len() as u32;
            m[..4].copy_from_slice(&length.to_le_bytes());
        };
        assert!(told(&login(file)).contains("cannot be attached"), "a database file");
        assert!(told(&Login7::default().message()).contains("No user name"));
        assert!(told(&login(|m| m[4..8].copy_from_slice(&0x7100_0001_u32.to_le_bytes()))).contains("set its TDS version to 7.4"));
        assert!(told(&[0; 40]).contains("could not be read"));
    }
}
