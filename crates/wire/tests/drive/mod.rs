//! Drives each parser with arbitrary bytes and checks what must hold for all of them. Shared by the fuzz targets and by the
//! replay of their corpus in `cargo test`.

use daypass_wire::pg::{
    observe::Observer,
    scram::Verifier,
    startup::{self, Settings, Startup},
    upstream::{self, Credentials, Upstream},
};
use daypass_wire::tds;
use daypass_wire::{
    limits,
    machine::Step,
    observe::{LastWords, Observe},
};
use zeroize::Zeroizing;

/// More steps than any handshake has: a machine that goes round for ever is a defect.
const STEPS: usize = 10_000;

/// A client sends `data`, whatever is asked for.
pub fn startup(data: &[u8]) {
    let mut machine = Startup::new(Settings { nonce: "0123456789abcdefghij".to_owned(), certificate: Some(vec![7; 32]) });
    let mut rest = data;
    for _ in 0..STEPS {
        match machine.step() {
            Step::Peek => match rest.first() {
                Some(first) => machine.feed(&[*first]),
                None => return,
            },
            Step::Read(n) => {
                assert!(n <= limits::PG_STARTUP.max(limits::PG_SASL), "asked for {n} bytes at once");
                let Some((bytes, more)) = rest.split_at_checked(n) else { return };
                rest = more;
                machine.feed(bytes);
            }
            Step::Send(bytes) => assert!(bytes.len() < 64 * 1024),
            Step::StartTls => machine.tls_started(data.last().filter(|last| **last & 1 == 1).map(|_| &b"postgresql"[..])),
            Step::Found(startup::Found::Account(name)) => {
                assert!(machine.is_encrypted(), "a name was taken without TLS");
                let known = name.starts_with('j').then(|| Verifier::of("secret", b"0123456789abcdef", 1));
                machine.verifier(known, &[9; 32]);
            }
            Step::Found(startup::Found::Login(_)) => {
                assert!(machine.is_encrypted());
                machine.welcome();
                return;
            }
            Step::Found(startup::Found::Cancel(key)) => {
                assert!(key.secret.len() <= limits::PG_CANCEL_KEY);
                return;
            }
            Step::Close => return,
        }
    }
    panic!("the start-up does not come to an end");
}

/// A target answers with `data`, whatever is asked of it.
pub fn upstream(data: &[u8]) {
    let credentials = Credentials {
        user: "jit_maria_aaaa".to_owned(),
        password: Zeroizing::new("secret".to_owned()),
        database: "uat".to_owned(),
        parameters: vec![("application_name".to_owned(), "psql".to_owned())],
        nonce: "0123456789abcdefghij".to_owned(),
        salted: None,
    };
    let mut machine = Upstream::new(credentials, data.first().is_some_and(|first| first & 1 == 1));
    let mut rest = data;
    for _ in 0..STEPS {
        match machine.step() {
            Step::Peek => return,
            Step::Read(n) => {
                let Some((bytes, more)) = rest.split_at_checked(n) else { return };
                rest = more;
                machine.feed(bytes);
            }
            Step::Send(sent) => assert!(!sent.windows(6).any(|part| part == b"secret"), "the password went out in clear"),
            Step::StartTls => machine.tls_started(None),
            Step::Found(upstream::Found::Ready(_) | upstream::Found::Failed(_) | upstream::Found::Answered(_)) | Step::Close => return,
        }
    }
    panic!("the login at the target does not come to an end");
}

/// A client of SQL Server sends `data`, whatever is asked for.
pub fn tds_startup(data: &[u8]) {
    let mut machine = tds::startup::Startup::default();
    let mut rest = data;
    for _ in 0..STEPS {
        match machine.step() {
            Step::Peek => match rest.first() {
                Some(first) => machine.feed(&[*first]),
                None => return,
            },
            Step::Read(n) => {
                assert!(n <= limits::TDS_PACKET, "asked for {n} bytes at once");
                let Some((bytes, more)) = rest.split_at_checked(n) else { return };
                rest = more;
                machine.feed(bytes);
            }
            Step::Send(bytes) => assert!(bytes.len() < 64 * 1024),
            Step::StartTls => machine.tls_started(data.last().filter(|last| **last & 1 == 1).map(|_| &b"tds/8.0"[..])),
            Step::Found(tds::startup::Found::Account(name)) => {
                assert!(machine.is_encrypted(), "a name was taken without TLS");
                let known = name.starts_with('j').then(|| Verifier::of("secret", b"0123456789abcdef", 1));
                machine.verifier(known, &[9; 32]);
            }
            Step::Found(tds::startup::Found::Login(login)) => {
                assert!(machine.is_encrypted() && login.login.password.as_str() == "secret");
                // what was understood is written so that it is understood again
                let again = tds::login7::Login7::read(&login.login.message()).expect("our own login reads");
                assert_eq!((again.user, again.database), (login.login.user, login.login.database));
                return;
            }
            Step::Close => return,
        }
    }
    panic!("the start-up does not come to an end");
}

/// A SQL Server answers with `data`, whatever is asked of it.
pub fn tds_upstream(data: &[u8]) {
    let mode = data.first().map_or(0, |first| first % 3);
    let tls = [None, Some(tds::startup::Tls::Wrapped), Some(tds::startup::Tls::Strict)][usize::from(mode)];
    let mut machine = tds::upstream::Upstream::new(
        tds::login7::Login7::default(),
        data.len().is_multiple_of(2),
        tls,
        data.len().is_multiple_of(3).then(|| "SELECT 1".to_owned()),
    );
    let (mut rest, mut encrypted) = (data.get(1..).unwrap_or_default(), tls.is_none());
    for _ in 0..STEPS {
        match machine.step() {
            Step::Peek => return,
            Step::Read(n) => {
                assert!(n <= limits::TDS_PACKET, "asked for {n} bytes at once");
                let Some((bytes, more)) = rest.split_at_checked(n) else { return };
                rest = more;
                machine.feed(bytes);
            }
            Step::Send(sent) => assert!(encrypted || sent.first() != Some(&tds::packet::kind::LOGIN7), "a login went out in the clear"),
            Step::StartTls => {
                encrypted = true;
                machine.tls_started();
            }
            Step::Found(_) | Step::Close => return,
        }
    }
    panic!("the login at the target does not come to an end");
}

/// A session of PostgreSQL in which both sides say `data`.
pub fn observe(data: &[u8]) {
    let held = |observer: &Observer| assert!(observer.held() <= limits::PREPARED_BYTES, "{} bytes are held", observer.held());
    both_speak(data, (Observer::default(), Observer::default()), held);
}

/// A session of SQL Server in which both sides say `data`; the first byte says whether it holds several.
pub fn tds_observe(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let new = || tds::observe::Observer::new(first & 1 == 1, tds::token::Agreed { column_encryption: first & 2 == 2, classification: first >> 2 & 3 });
    let held = |observer: &tds::observe::Observer| assert!(observer.held() <= 6 * limits::PREPARED_BYTES, "{} bytes are held", observer.held());
    both_speak(data, (new(), new()), held);
}

/// The first byte of each chunk says who speaks and how long.
fn both_speak<O: Observe>(data: &[u8], (mut whole, mut pieces): (O, O), check: impl Fn(&O)) {
    let (mut seen, mut again) = (Vec::new(), Vec::new());
    let mut rest = data;
    while let Some((head, more)) = rest.split_first() {
        let (chunk, more) = more.split_at(more.len().min(usize::from(head >> 1)));
        rest = more;
        if head & 1 == 1 {
            whole.client(chunk, 1);
            chunk.iter().for_each(|byte| pieces.client(&[*byte], 1));
        } else {
            seen.extend(whole.server(chunk, 1).map(|s| (s.text.to_string(), s.rows, s.bytes)));
            for byte in chunk {
                again.extend(pieces.server(&[*byte], 1).map(|s| (s.text.to_string(), s.rows, s.bytes)));
            }
        }
        check(&whole);
        assert_eq!(whole.is_busy(), pieces.is_busy());
    }
    // the words come to an end; where a stream is given up depends on how it is cut, but not what came before that
    if let (Some(a), Some(b)) = (words(&mut whole, data, data.len()), words(&mut pieces, data, 1)) {
        assert!(a.starts_with(&b) || b.starts_with(&a), "{a:?}\n{b:?}");
    }
    seen.extend(whole.end(2).into_iter().map(|s| (s.text.to_string(), s.rows, s.bytes)));
    again.extend(pieces.end(2).into_iter().map(|s| (s.text.to_string(), s.rows, s.bytes)));
    assert_eq!(seen, again, "how the bytes are cut changed what was seen");
}

/// What an ending session sends when the server goes on with `data`; nothing when its words found no place.
fn words(observer: &mut impl Observe, data: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut sent = Vec::new();
    let mut chunks = data.chunks(cut.max(1));
    let mut next: &[u8] = &[];
    loop {
        match observer.last_words(next, "its time is over", "Ask again.", 1) {
            LastWords::More(passing) => sent.extend(passing),
            LastWords::Last(passing) => {
                sent.extend(passing);
                return Some(sent);
            }
        }
        next = chunks.next()?;
    }
}
