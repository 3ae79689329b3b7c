//! What real clients and a server said to each other, inside of TLS: `recordings/<client>-<what>.tape`, pieces of `C` (client) or `S`
//! (server), a length of four bytes, the bytes. Made with `cargo run -p daypass-testkit --example standin FOLDER`; the passwords in
//! them are those of a throw-away server.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

use daypass_wire::{
    machine::Step,
    observe::{Observe, Outcome, Statement},
    tds::{
        login7::Login7,
        observe::Observer,
        startup::{Found, Startup},
    },
};

struct Piece {
    from_client: bool,
    bytes: Vec<u8>,
}

#[expect(clippy::disallowed_methods, reason = "the recordings lie in files")]
fn tape(name: &str) -> Vec<Piece> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(format!("{name}.tape"));
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut pieces = Vec::new();
    while let Some((side, more)) = rest.split_first() {
        let (length, more) = more.split_at(4);
        let (bytes, more) = more.split_at(u32::from_le_bytes(length.try_into().unwrap()) as usize);
        pieces.push(Piece { from_client: *side == b'C', bytes: bytes.to_vec() });
        rest = more;
    }
    pieces
}

/// The start-up as the client said it, through the machine; then the statements that the rest holds, however it is cut.
fn replay(name: &str, cut: usize) -> (Login7, bool, Vec<Statement>) {
    let pieces = tape(name);
    // the machine reads just what it wants, and the client's first pieces are cut in the same way
    let mut client: Vec<u8> = pieces.iter().filter(|piece| piece.from_client).flat_map(|piece| piece.bytes.iter().copied()).collect();
    let mut machine = Startup::default();
    let login = loop {
        match machine.step() {
            Step::Peek => machine.feed(&client[..1]),
            Step::Read(n) => machine.feed(&client.drain(..n).collect::<Vec<u8>>()),
            Step::StartTls => machine.tls_started(None),
            Step::Send(_) => {}
            Step::Found(Found::Account(account)) => {
                assert_eq!(account, "sa", "{name}");
                machine.verifier(Some(daypass_wire::pg::scram::Verifier::of("Super-Secret-1", b"0123456789abcdef", 1)), &[1; 32]);
            }
            Step::Found(Found::Login(login)) => break login,
            Step::Close => panic!("{name}: the start-up was given up"),
        }
    };
    let mut to_skip: usize = pieces.iter().filter(|p| p.from_client).map(|p| p.bytes.len()).sum::<usize>() - client.len();
    let mut observer = Observer::new(login.mars, Default::default());
    let (mut statements, mut in_session) = (Vec::new(), false);
    for piece in &pieces {
        if piece.from_client {
            let skipped = to_skip.min(piece.bytes.len());
            to_skip -= skipped;
            piece.bytes[skipped..].chunks(cut).for_each(|chunk| observer.client(chunk, 1));
        } else if std::mem::replace(&mut in_session, true) {
            for chunk in piece.bytes.chunks(cut) {
                statements.extend(observer.server(chunk, 2));
            }
        }
    }
    assert!(!observer.is_busy(), "{name}: every request found its reply");
    statements.extend(observer.end(3));
    (login.login, login.mars, statements)
}

#[test]
fn the_start_up_of_each_client_is_understood() {
    let said: Vec<String> = ["odbc-prepared", "tsql-batches", "pymssql-prepared", "python-tds-prepared", "tedious-prepared", "odbc-mars"]
        .iter()
        .map(|name| {
            let (login, mars, _) = replay(name, 4_096);
            format!(
                "{name}: {} to {} by {}{}",
                login.database,
                login.server.split([',', ':']).next().unwrap_or_default(),
                login.library,
                if mars { ", MARS" } else { "" }
            )
        })
        .collect();
    assert_eq!(said, EXPECTED_LOGINS);
}

#[test]
fn the_statements_of_each_client_are_seen_with_values_and_rows_however_the_bytes_are_cut() {
    for (name, wanted) in EXPECTED {
        for cut in [1, 7, 4_096] {
            let (_, _, statements) = replay(name, cut);
            let shown: Vec<String> = statements
                .iter()
                .filter(|s| s.text.contains("sales.orders") || s.text.contains("nowhere") || s.text.contains("TRAN"))
                .map(|s| {
                    let error = if let Outcome::Failed { code, message } = &s.outcome { format!(" !{code} {message}") } else { String::new() };
                    format!("{}{} -> {}{error}", s.text.trim(), if s.values.is_empty() { String::new() } else { format!(" {:?}", s.values) }, s.rows)
                })
                .collect();
            assert_eq!(shown, *wanted, "{name} in pieces of {cut}");
        }
    }
}

#[test]
fn statements_in_several_sessions_of_one_connection_are_seen_apart() {
    for name in ["odbc-mars", "python-tds-mars"] {
        let (_, mars, statements) = replay(name, 13);
        let rows = |text: &str| statements.iter().filter(|s| *s.text == *text).map(|s| s.rows).collect::<Vec<_>>();
        assert!(mars);
        assert_eq!(rows("SELECT id FROM sales.orders WHERE id <= 20"), [20], "{name}: the outer one, open all the while");
        for id in 1..=20 {
            assert_eq!(rows(&format!("SELECT COUNT(*) FROM sales.orders WHERE id = {id}")), [1], "{name}");
        }
    }
}

const EXPECTED_LOGINS: &[&str] = &[
    "odbc-prepared: uat to tcp by ODBC",
    "tsql-batches: uat to daypass by TDS-Library",
    "pymssql-prepared: uat to daypass by DB-Library",
    "python-tds-prepared: uat to localhost by Python TDS Library",
    "tedious-prepared: uat to localhost by Tedious",
    "odbc-mars: uat to tcp by ODBC, MARS",
];

const BY_BATCH: &[&str] = &["BEGIN TRAN -> 0", "ROLLBACK TRAN -> 0", "BEGIN TRAN -> 0", "COMMIT TRAN -> 0", "BEGIN TRAN -> 0"];
const BY_REQUEST: &[&str] = &["BEGIN TRANSACTION -> 0", "ROLLBACK TRANSACTION -> 0", "BEGIN TRANSACTION -> 0", "COMMIT TRANSACTION -> 0"];

/// By recording: what was asked, with its values, the rows that came, and the error.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "odbc-prepared",
        &[
            "SELECT COUNT(*) FROM sales.orders WHERE id <= @P1 AND customer = @P2 [\"40\", \"Contoso\"] -> 1",
            "SELECT COUNT(*) FROM sales.orders WHERE id <= @P1 AND customer = @P2 [\"80\", \"Contoso\"] -> 1",
        ],
    ),
    (
        "pymssql-prepared",
        &[
            "SELECT COUNT(*) FROM sales.orders WHERE id <= 40 AND customer = N'Contoso' -> 1",
            "SELECT COUNT(*) FROM sales.orders WHERE id <= 80 AND customer = N'Contoso' -> 1",
        ],
    ),
    (
        "python-tds-prepared",
        &[
            "SELECT COUNT(*) FROM sales.orders WHERE id <= @P1 AND customer = @P2 [\"@P1=40\", \"@P2=Contoso\"] -> 1",
            "SELECT COUNT(*) FROM sales.orders WHERE id <= @P1 AND customer = @P2 [\"@P1=80\", \"@P2=Contoso\"] -> 1",
        ],
    ),
    (
        // prepared apart: the handle stands for the text
        "tedious-prepared",
        &[
            "SELECT COUNT(*) FROM sales.orders WHERE id <= @most AND customer = @customer -> 0",
            "SELECT COUNT(*) FROM sales.orders WHERE id <= @most AND customer = @customer [\"@most=40\", \"@customer=Contoso\"] -> 1",
            "SELECT COUNT(*) FROM sales.orders WHERE id <= @most AND customer = @customer [\"@most=80\", \"@customer=Contoso\"] -> 1",
        ],
    ),
    ("tsql-batches", &["SELECT COUNT(*) FROM sales.orders -> 1", "SELECT * FROM nowhere -> 0 !208 Invalid object name 'nowhere'."]),
    ("odbc-transaction", BY_REQUEST),
    ("tedious-transaction", BY_REQUEST),
    ("python-tds-transaction", BY_REQUEST),
    ("pymssql-transaction", BY_BATCH),
];
