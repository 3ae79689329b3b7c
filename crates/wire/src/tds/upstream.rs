//! The login at a target, as one machine: PRELOGIN, TLS, LOGIN7, until it is ready for requests.
//!
//! The client's login is written anew with the account that the target knows: versions, packet size, language and features stay
//! the client's, so that what both sides agreed on is true on both. A target may be hostile: every length is bounded, and its
//! errors are kept for the log, not for the client.

use super::{
    login7::{Login7, feature},
    packet::{self, Gathered, Gathering, Reader, kind},
    prelogin::{Prelogin, encryption, option},
    startup::{Tls, VERSION},
    token::{self, env_change},
};
use crate::{limits, machine};

/// What the login at a target comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    Ready(Ready),
    /// The target wants the login elsewhere (Azure SQL's redirection): connect there and begin again.
    Route {
        host: String,
        port: u16,
    },
    /// Why it did not work, for the log and the administrator.
    Failed(String),
    /// The target's own errors, in its order; never none.
    Answered(Vec<Said>),
}

/// An error that a target gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Microsoft's documentation, "Database engine events and errors".
    pub number: u32,
    pub text: String,
}

pub type Step = machine::Step<Found>;

/// A target that is ready for requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready {
    /// The reply to the login as the client gets it: all that was said, but for what would send it to another server.
    pub reply: Vec<u8>,
    /// What changes how the target describes its results.
    pub agreed: token::Agreed,
    /// What the target answered when it was asked which database this is; none: it was not asked, or gave no row.
    pub seen: Option<Vec<String>>,
    /// The number of the session, as the target calls it; 0 when it does not say.
    pub number: u16,
}

/// Versions as LOGIN7 has them ([MS-TDS] 2.2.6.4).
const TDS_8: u32 = 0x0800_0000;
const TDS_7_4: u32 = 0x7400_0004;

enum State {
    Prelogin(Gathering),
    StartTls,
    Handshake,
    Reply(Gathering),
    /// The login is acknowledged, and the question is out.
    Answer(Gathering, Ready),
    Over(Option<Found>),
}

pub struct Upstream {
    login: Login7,
    tls: Option<Tls>,
    mars: bool,
    question: Option<String>,
    state: State,
    out: Vec<u8>,
}

impl Upstream {
    /// Without `tls` a target that wants it is an error, and with it one that does not. The `question` is asked before anybody else
    /// asks anything; with several sessions in one connection there is no place for it.
    pub fn new(mut login: Login7, mars: bool, tls: Option<Tls>, question: Option<String>) -> Self {
        // what is not known could change what the target says in ways that are not followed
        login.features.retain(|(id, _)| feature::FOLLOWED.contains(id));
        if let Some((_, asked)) = login.features.iter_mut().find(|(id, _)| *id == feature::DATA_CLASSIFICATION)
            && let Some(version) = asked.first_mut()
        {
            *version = (*version).min(feature::NEWEST_CLASSIFICATION);
        }
        // a client that is strict with us says so in its version, which older servers do not know
        if tls != Some(Tls::Strict) && login.tds_version == TDS_8 {
            login.tds_version = TDS_7_4;
        }
        let mut upstream = Upstream { login, tls, mars, question, state: State::StartTls, out: Vec::new() };
        if tls != Some(Tls::Strict) {
            upstream.prelogin();
        }
        upstream
    }

    /// How TLS begins, if at all.
    pub fn tls(&self) -> Option<Tls> {
        self.tls
    }

    pub fn step(&mut self) -> Step {
        if !self.out.is_empty() {
            return Step::Send(std::mem::take(&mut self.out));
        }
        match &mut self.state {
            State::Prelogin(gathering) | State::Reply(gathering) | State::Answer(gathering, _) => Step::Read(gathering.want()),
            State::StartTls => {
                self.state = State::Handshake;
                Step::StartTls
            }
            State::Over(found) => found.take().map_or(Step::Close, Step::Found),
            State::Handshake => Step::Close,
        }
    }

    pub fn tls_started(&mut self) {
        match self.tls {
            Some(Tls::Strict) => self.prelogin(),
            _ => self.log_in(),
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        let state = std::mem::replace(&mut self.state, State::Over(None));
        match state {
            State::Prelogin(mut gathering) => match gathering.feed(bytes) {
                Gathered::More => self.state = State::Prelogin(gathering),
                Gathered::Whole(message, _) => self.answer(&message),
                Gathered::Broken => self.fail("its answer to PRELOGIN is not one: is this a SQL Server?".to_owned()),
            },
            State::Reply(mut gathering) => match gathering.feed(bytes) {
                Gathered::More => self.state = State::Reply(gathering),
                Gathered::Whole(message, spid) => self.state = self.acknowledged(&message, spid),
                Gathered::Broken => self.fail("its answer to the login is not one, or too long".to_owned()),
            },
            State::Answer(mut gathering, mut ready) => match gathering.feed(bytes) {
                Gathered::More => self.state = State::Answer(gathering, ready),
                Gathered::Whole(message, _) => match token::first_row(&message) {
                    Ok(Some(row)) => {
                        ready.seen = Some(row);
                        self.state = State::Over(Some(Found::Ready(ready)));
                    }
                    // who asks and is not answered does not know
                    Ok(None) => self.fail("it does not say which database this is: there is no row".to_owned()),
                    Err(why) => self.fail(format!("it does not say which database this is: {why}")),
                },
                Gathered::Broken => self.fail("its answer to which database this is is not one, or too long".to_owned()),
            },
            State::StartTls | State::Handshake | State::Over(_) => {}
        }
    }

    /// Asks, when there is something to ask and the login was taken.
    fn acknowledged(&mut self, message: &[u8], spid: u16) -> State {
        match (read_reply(message, spid), self.question.take()) {
            (Found::Ready(ready), Some(question)) if !self.mars => {
                let mut batch = NO_TRANSACTION.to_vec();
                packet::put_utf16(&mut batch, &question);
                packet::put(&mut self.out, kind::BATCH, 0, &batch, packet_size(message, &self.login));
                State::Answer(Gathering::new(kind::REPLY, limits::TDS_UPSTREAM_LOGIN), ready)
            }
            (found, _) => State::Over(Some(found)),
        }
    }

    fn fail(&mut self, why: String) {
        self.state = State::Over(Some(Found::Failed(why)));
    }

    fn prelogin(&mut self) {
        let encrypt = if self.tls.is_some() { encryption::REQUIRED } else { encryption::NOT_SUPPORTED };
        let said = Prelogin::default()
            .with(option::VERSION, &VERSION)
            .with(option::ENCRYPTION, &[encrypt])
            .with(option::INSTANCE, &[0])
            .with(option::THREAD, &[0; 4])
            .with(option::MARS, &[u8::from(self.mars)]);
        packet::put(&mut self.out, kind::PRELOGIN, 0, &said.message(), 4_096);
        self.state = State::Prelogin(Gathering::new(kind::REPLY, limits::TDS_PRELOGIN));
    }

    fn answer(&mut self, message: &[u8]) {
        let Some(said) = Prelogin::read(message) else {
            return self.fail("its answer to PRELOGIN could not be read".to_owned());
        };
        if self.mars && said.byte(option::MARS) != Some(1) {
            return self.fail(NO_MARS.to_owned());
        }
        match (self.tls, said.byte(option::ENCRYPTION)) {
            (Some(Tls::Strict), _) => self.log_in(),
            (Some(Tls::Wrapped), Some(encryption::ON | encryption::REQUIRED)) => self.state = State::StartTls,
            // OFF would be TLS for the login and nothing for the rest
            (Some(Tls::Wrapped), _) => self.fail("it does not offer TLS for the whole session".to_owned()),
            (None, Some(encryption::NOT_SUPPORTED | encryption::OFF)) => self.log_in(),
            (None, _) => self.fail("it wants TLS, and its environment is set to none".to_owned()),
        }
    }

    fn log_in(&mut self) {
        let message = self.login.message();
        packet::put(&mut self.out, kind::LOGIN7, 0, &message, 4_096);
        self.state = State::Reply(Gathering::new(kind::REPLY, limits::TDS_UPSTREAM_LOGIN));
    }
}

/// ALL_HEADERS of a batch outside of a transaction ([MS-TDS] 2.2.5.3): all 22 bytes; one header of 18, of type 2, no transaction, one request.
const NO_TRANSACTION: [u8; 22] = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// What both sides agreed on: the server's word, else the client's, else what is usual.
fn packet_size(reply: &[u8], login: &Login7) -> usize {
    let mut rest = reply;
    while let Some((token, after)) = token::length_of(rest).and_then(|length| rest.split_at_checked(length)) {
        if token[0] == token::token_type::ENV_CHANGE && token.get(3) == Some(&env_change::PACKET_SIZE) {
            let size = Reader(&token[4..]).short_text().and_then(|size| size.parse().ok());
            return size.filter(|size| (512..=32_767).contains(size)).unwrap_or(4_096);
        }
        rest = after;
    }
    usize::try_from(login.packet_size).ok().filter(|size| (512..=32_767).contains(size)).unwrap_or(4_096)
}

/// Why a login with several sessions in one connection failed at the target.
pub const NO_MARS: &str = "it has no MARS (several sessions in one connection)";

/// The reply to LOGIN7.
fn read_reply(message: &[u8], spid: u16) -> Found {
    let mut rest = message;
    let (mut kept, mut acknowledged, mut agreed, mut route, mut errors) = (Vec::new(), false, token::Agreed::default(), None, Vec::new());
    while !rest.is_empty() {
        let Some((token, after)) = token::length_of(rest).and_then(|length| rest.split_at_checked(length)) else {
            return Found::Failed("its answer to the login holds something that does not belong there".to_owned());
        };
        rest = after;
        match (token[0], token.get(3)) {
            (token::token_type::ENV_CHANGE, Some(&(env_change::ROUTING | env_change::ENHANCED_ROUTING))) => {
                route = read_route(token);
                continue;
            }
            (token::token_type::ENV_CHANGE, Some(&env_change::MIRRORING_PARTNER)) => continue,
            (token::token_type::ERROR, _) => errors.extend(token::read_message(token).map(|(number, _, text)| Said { number, text })),
            (token::token_type::LOGIN_ACK, _) => acknowledged = true,
            (token::token_type::FEATURE_ACK, Some(_)) => {
                agreed.column_encryption |= acknowledged_as(token, feature::COLUMN_ENCRYPTION).is_some();
                // its version, and whether it is on
                if let Some([version, 1, ..]) = acknowledged_as(token, feature::DATA_CLASSIFICATION) {
                    agreed.classification = *version;
                }
            }
            _ => {}
        }
        kept.extend_from_slice(token);
    }
    if let Some((host, port)) = route {
        return Found::Route { host, port };
    }
    if !acknowledged {
        return if errors.is_empty() { Found::Failed("it did not acknowledge the login".to_owned()) } else { Found::Answered(errors) };
    }
    let mut reply = Vec::new();
    packet::put(&mut reply, kind::REPLY, spid, &kept, 4_096);
    Found::Ready(Ready { reply, agreed, seen: None, number: spid })
}

/// The host and port of a routing ENVCHANGE: length, protocol (0: TCP), port, host ([MS-TDS] 2.2.7.9).
fn read_route(token: &[u8]) -> Option<(String, u16)> {
    let mut r = Reader(token.get(4..)?);
    r.u16()?;
    if r.u8()? != 0 {
        return None;
    }
    let port = r.u16()?;
    Some((r.long_text()?, port))
}

/// What the target answers to a feature that was asked for, if it has it.
fn acknowledged_as(token: &[u8], id: u8) -> Option<&[u8]> {
    let mut r = Reader(&token[1..]);
    while let Some(other) = r.u8().filter(|other| *other != 0xff) {
        let length = usize::try_from(r.u32()?).ok()?;
        let data = r.take(length)?;
        if other == id {
            return Some(data);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tds::token::{put_done, put_env_change, put_login_ack, put_message, token_type};

    fn env_change(what: u8, data: &[u8]) -> Vec<u8> {
        [&[token_type::ENV_CHANGE][..], &((1 + data.len()) as u16).to_le_bytes(), &[what], data].concat()
    }

    fn route(host: &str) -> Vec<u8> {
        let mut data = ((5 + 2 * host.len()) as u16).to_le_bytes().to_vec();
        data.extend([0, 0x39, 0x30]);
        data.extend((host.len() as u16).to_le_bytes());
        packet::put_utf16(&mut data, host);
        data.extend([0, 0]);
        data
    }

    fn acknowledged(more: &[u8]) -> Vec<u8> {
        let mut tokens = more.to_vec();
        put_login_ack(&mut tokens, 0x7400_0004, "Microsoft SQL Server", [16, 0, 0, 0]);
        put_env_change(&mut tokens, env_change::PACKET_SIZE, "8000", "4096");
        put_done(&mut tokens, token_type::DONE, 0, 0, 0);
        tokens
    }

    #[test]
    fn a_server_that_sends_the_login_on_is_followed_and_the_client_never_hears_of_it() {
        for what in [env_change::ROUTING, env_change::ENHANCED_ROUTING] {
            let found = read_reply(&acknowledged(&env_change(what, &route("node7.example.com\\inst"))), 51);
            assert_eq!(found, Found::Route { host: "node7.example.com\\inst".to_owned(), port: 0x3039 });
        }
        let Found::Ready(ready) = read_reply(&acknowledged(&env_change(env_change::MIRRORING_PARTNER, &[4, b'p', 0, b'a', 0, b'r', 0, b't', 0, 0])), 51) else {
            panic!()
        };
        assert!(!ready.reply.windows(3).any(|part| part == b"p\0a"), "nor of a server to go to when this one is gone");
        assert!(ready.reply.windows(8).any(|part| part == b"8\x000\x000\x000\0"), "what both ends agree on passes");
    }

    #[test]
    fn what_would_lead_a_client_around_the_gateway_is_not_asked_for() {
        let features = [feature::DNS_CACHING, feature::ENHANCED_ROUTING, feature::SESSION_RECOVERY, 0x0a].map(|id| (id, vec![1])).to_vec();
        let asked = Upstream::new(Login7 { features, ..Login7::default() }, false, None, None);
        assert_eq!(asked.login.features.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [feature::SESSION_RECOVERY, 0x0a]);
        let strict = Login7 { tds_version: TDS_8, ..Login7::default() };
        assert_eq!(Upstream::new(strict.clone(), false, Some(Tls::Wrapped), None).login.tds_version, TDS_7_4, "a version that older servers know");
        assert_eq!(Upstream::new(strict, false, Some(Tls::Strict), None).login.tds_version, TDS_8);
    }

    #[test]
    fn the_target_is_asked_which_database_this_is_before_anybody_else_asks_anything() {
        let mut machine = Upstream::new(Login7::default(), false, None, Some("SELECT 1".to_owned()));
        let reply = |tokens: &[u8]| {
            let mut reply = Vec::new();
            packet::put(&mut reply, kind::REPLY, 51, tokens, 4_096);
            reply
        };
        let feed = |machine: &mut Upstream, bytes: &[u8]| {
            machine.feed(&bytes[..8]);
            machine.feed(&bytes[8..]);
        };
        assert!(matches!(machine.step(), Step::Send(_)));
        feed(&mut machine, &reply(&Prelogin::default().with(option::VERSION, &VERSION).with(option::ENCRYPTION, &[2]).message()));
        assert!(matches!(machine.step(), Step::Send(_)));
        feed(&mut machine, &reply(&acknowledged(&[])));
        let Step::Send(asked) = machine.step() else { panic!() };
        assert_eq!((asked[0], &asked[8 + 22..]), (kind::BATCH, "SELECT 1".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().as_slice()));
        // two columns, of which the second is NULL by the bitmap of its row
        let mut tokens = vec![token_type::COLUMNS, 2, 0];
        for _ in 0..2 {
            tokens.extend([0, 0, 0, 0, 9, 0, 0xe7, 40, 0, 9, 4, 0xd0, 0, 0x34, 0]);
        }
        tokens.extend([token_type::NBC_ROW, 0b10, 2, 0, b'7', 0]);
        put_done(&mut tokens, token_type::DONE, 0x10, 0xc1, 1);
        feed(&mut machine, &reply(&tokens));
        let Step::Found(Found::Ready(ready)) = machine.step() else { panic!() };
        assert_eq!(ready.seen.unwrap(), ["7", "NULL"]);
        assert!(!ready.reply.contains(&token_type::NBC_ROW), "the client sees nothing of it");

        // no answer is no answer
        let mut machine = Upstream::new(Login7::default(), false, None, Some("SELECT 1".to_owned()));
        let _ = machine.step();
        feed(&mut machine, &reply(&Prelogin::default().with(option::VERSION, &VERSION).with(option::ENCRYPTION, &[2]).message()));
        let _ = machine.step();
        feed(&mut machine, &reply(&acknowledged(&[])));
        let _ = machine.step();
        let mut nothing = Vec::new();
        put_done(&mut nothing, token_type::DONE, 0x10, 0xc1, 0);
        feed(&mut machine, &reply(&nothing));
        assert!(matches!(machine.step(), Step::Found(Found::Failed(why)) if why.contains("no row")));
    }

    #[test]
    fn a_refusal_of_the_server_is_kept_for_the_log() {
        let mut tokens = Vec::new();
        put_message(&mut tokens, 18_456, 1, 14, "Login failed for user 'jit'.", "db7");
        put_done(&mut tokens, token_type::DONE, 2, 0, 0);
        assert_eq!(read_reply(&tokens, 51), Found::Answered(vec![Said { number: 18_456, text: "Login failed for user 'jit'.".to_owned() }]));
        assert!(matches!(read_reply(&[0x01, 2, 3], 51), Found::Failed(_)));
        let mut machine = Upstream::new(Login7::default(), true, None, None);
        let mut reply = Vec::new();
        let said = Prelogin::default().with(option::VERSION, &VERSION).with(option::ENCRYPTION, &[2]).with(option::MARS, &[0]);
        packet::put(&mut reply, kind::REPLY, 0, &said.message(), 4_096);
        assert!(matches!(machine.step(), Step::Send(_)));
        machine.feed(&reply[..8]);
        machine.feed(&reply[8..]);
        assert_eq!(machine.step(), Step::Found(Found::Failed(NO_MARS.to_owned())));
    }
}
