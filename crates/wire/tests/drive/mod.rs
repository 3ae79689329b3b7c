//! Drives each parser with arbitrary bytes and checks what must hold for all of them. Shared by the fuzz targets and by the
//! replay of their corpus in `cargo test`.

use daypass_wire::pg::{
    observe::Observer,
    scram::{ITERATIONS, Verifier},
    startup::{self, Settings, Startup},
    upstream::{self, Credentials, Upstream},
};
use daypass_wire::{limits, machine::Step};
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
                let known = name.starts_with('j').then(|| Verifier::of("secret", b"0123456789abcdef", ITERATIONS.min(4096)));
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
            Step::Found(upstream::Found::Ready(_) | upstream::Found::Failed(_)) | Step::Close => return,
        }
    }
    panic!("the login at the target does not come to an end");
}

/// A session in which both sides say `data`: the first byte of each chunk says who speaks and how long.
pub fn observe(data: &[u8]) {
    let (mut whole, mut pieces) = (Observer::default(), Observer::default());
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
        assert!(whole.held() <= limits::PREPARED_BYTES, "{} bytes are held", whole.held());
        assert_eq!(whole.server_at_boundary(), pieces.server_at_boundary());
    }
    seen.extend(whole.end(2).into_iter().map(|s| (s.text.to_string(), s.rows, s.bytes)));
    again.extend(pieces.end(2).into_iter().map(|s| (s.text.to_string(), s.rows, s.bytes)));
    assert_eq!(seen, again, "how the bytes are cut changed what was seen");
}
