use super::*;
use crate::pg::message::put;

fn frames(messages: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|(tag, body)| put(&mut out, *tag, body));
    out
}

#[test]
fn a_simple_query_is_one_statement_with_rows_bytes_and_time() {
    let mut seen = Observer::default();
    seen.client(&frames(&[(b'Q', b"select * from t\0")]), 10);
    assert!(seen.is_busy());
    let answer = frames(&[(b'T', b"xx"), (b'D', &[0; 7]), (b'D', &[0; 5]), (b'C', b"SELECT 2\0"), (b'Z', b"I")]);
    let done: Vec<_> = seen.server(&answer, 25).collect();
    assert_eq!(done.len(), 1);
    let s = &done[0];
    assert_eq!((&*s.text, s.rows, s.bytes, s.began, s.ended, s.tag.as_str()), ("select * from t", 2, 12, 10, 25, "SELECT 2"));
    assert!(!seen.is_busy());
}

#[test]
fn an_extended_query_has_its_text_and_its_values() {
    let mut seen = Observer::default();
    let mut bind = b"\0s1\0".to_vec();
    bind.extend([0, 2, 0, 0, 0, 1, 0, 3]);
    bind.extend([0, 0, 0, 3]);
    bind.extend(b"ana");
    bind.extend([0, 0, 0, 2, 0xca, 0xfe]);
    bind.extend([0xff; 4]);
    bind.extend([0, 0]);
    seen.client(&frames(&[(b'P', b"s1\0select $1, $2, $3\0\0\0"), (b'B', &bind), (b'E', b"\0\0\0\0\0"), (b'S', b"")]), 1);
    let done: Vec<_> = seen.server(&frames(&[(b'1', b""), (b'2', b""), (b'D', &[0; 4]), (b'C', b"SELECT 1\0"), (b'Z', b"I")]), 2).collect();
    assert_eq!(done.len(), 1);
    assert_eq!((&*done[0].text, done[0].values.clone()), ("select $1, $2, $3", vec!["ana".into(), "\\xcafe".into(), "NULL".into()]));
}

#[test]
fn after_an_error_the_rest_of_the_batch_is_marked_as_not_run() {
    let mut seen = Observer::default();
    let execute: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
    seen.client(&frames(&[(b'P', b"\0boom\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), execute, execute, (b'S', b""), (b'Q', b"select 2\0")]), 1);
    let error = [frames(&[(b'1', b""), (b'2', b"")]), fatal("22012", "division by zero", "", "")].concat();
    let done: Vec<_> = seen.server(&[error, frames(&[(b'Z', b"E"), (b'C', b"SELECT 1\0"), (b'Z', b"I")])].concat(), 2).collect();
    assert_eq!(done.len(), 3);
    assert_eq!(done[0].outcome, Outcome::Failed { code: "22012".into(), message: "division by zero".into() });
    assert_eq!(done[1].outcome, Outcome::NotRun);
    assert_eq!((done[2].outcome.clone(), &*done[2].text), (Outcome::Done, "select 2"));
}

const EXECUTE: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
const SYNC: (u8, &[u8]) = (b'S', b"");

#[test]
fn a_name_means_what_the_server_took_it_to_mean() {
    let mut seen = Observer::default();
    let mut texts = Vec::new();
    let mut say = |client: &[(u8, &[u8])], server: &[u8]| {
        seen.client(&frames(client), 1);
        texts.extend(seen.server(server, 2).map(|statement| (statement.text.to_string(), statement.outcome)));
    };
    let error = |code: &str| fatal(code, "no", "", "");
    let bind_x: (u8, &[u8]) = (b'B', b"\0x\0\0\0\0\0\0\0");
    let ok = frames(&[(b'1', b""), (b'Z', b"I")]);
    say(&[(b'P', b"x\0delete from t\0\0\0"), SYNC], &ok);
    // a second text under that name: in a batch that the server skips, and as a plain duplicate
    let skipped = [error("22012"), frames(&[(b'Z', b"I")])].concat();
    say(
        &[(b'P', b"\0select 1/0\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), EXECUTE, (b'P', b"x\0select 2\0\0\0"), SYNC],
        &[frames(&[(b'1', b""), (b'2', b"")]), skipped.clone()].concat(),
    );
    say(&[(b'P', b"x\0select 3\0\0\0"), SYNC], &[error("42P05"), frames(&[(b'Z', b"I")])].concat());
    say(&[bind_x, EXECUTE, SYNC], &frames(&[(b'2', b""), (b'C', b"DELETE 1\0"), (b'Z', b"I")]));
    // a portal that is there stays what it is
    say(&[(b'B', b"p\0x\0\0\0\0\0\0\0"), SYNC], &frames(&[(b'2', b""), (b'Z', b"T")]));
    say(&[(b'P', b"y\0select 4\0\0\0"), (b'B', b"p\0y\0\0\0\0\0\0\0"), SYNC], &[frames(&[(b'1', b"")]), error("42P03"), frames(&[(b'Z', b"E")])].concat());
    say(&[(b'E', b"p\0\0\0\0\0"), SYNC], &frames(&[(b'C', b"DELETE 1\0"), (b'Z', b"T")]));
    // and one that SQL itself may have given another meaning is doubted
    say(&[(b'Q', b"deallocate x\0")], &frames(&[(b'C', b"DEALLOCATE\0"), (b'Z', b"I")]));
    say(&[bind_x, EXECUTE, SYNC], &frames(&[(b'2', b""), (b'C', b"DELETE 1\0"), (b'Z', b"I")]));
    let failed = |code: &str| Outcome::Failed { code: code.to_owned(), message: "no".to_owned() };
    let texts: Vec<(&str, Outcome)> = texts.iter().map(|(text, outcome)| (text.as_str(), outcome.clone())).collect();
    assert_eq!(
        texts,
        [
            ("select 1/0", failed("22012")),
            ("select 3", failed("42P05")),
            ("delete from t", Outcome::Done),
            ("delete from t", Outcome::Done),
            ("select 4", failed("42P03")),
            ("delete from t", Outcome::Done),
            ("deallocate x", Outcome::Done),
            ("(unless SQL has given x anew) delete from t", Outcome::Done),
        ]
    );
}

#[test]
fn what_is_bound_and_not_executed_is_on_record() {
    let mut seen = Observer::default();
    seen.client(&frames(&[(b'P', b"\0select tells()\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), SYNC]), 1);
    let done: Vec<_> = seen.server(&frames(&[(b'1', b""), (b'2', b""), (b'Z', b"I")]), 2).collect();
    assert_eq!((done.len(), &*done[0].text, done[0].tag.as_str()), (1, "select tells()", "bound, not executed"));
    // a call by number has its arguments
    seen.client(&frames(&[(b'F', b"\0\0\x0b\x6c\0\x01\0\0\0\x01\0\0\0\x08select 1\0\0")]), 1);
    let done: Vec<_> = seen.server(&frames(&[(b'V', b"\0\0\0\0"), (b'Z', b"I")]), 2).collect();
    assert_eq!((&*done[0].text, done[0].values.clone()), ("(function call by oid 2924)", vec!["select 1".to_owned()]));
}

#[test]
fn copy_counts_its_bytes_and_a_cut_session_says_so() {
    let mut seen = Observer::default();
    seen.client(&frames(&[(b'Q', b"copy t from stdin\0")]), 1);
    assert_eq!(seen.server(&frames(&[(b'G', b"\0\0\0")]), 2).count(), 0);
    seen.client(&frames(&[(b'd', &[b'x'; 100]), (b'd', &[b'x'; 20]), (b'c', b"")]), 3);
    let done: Vec<_> = seen.server(&frames(&[(b'C', b"COPY 2\0"), (b'Z', b"I")]), 4).collect();
    assert_eq!(done[0].bytes, 120);
    assert!(!seen.is_busy());
    // one Execute without a Sync keeps nobody's session from being idle; with one it is work
    let execute: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
    seen.client(&frames(&[(b'P', b"\0select 1\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), execute]), 5);
    assert!(!seen.is_busy());
    seen.client(&frames(&[(b'S', b"")]), 5);
    assert!(seen.is_busy());
    seen.server(&frames(&[(b'1', b""), (b'2', b""), (b'C', b"SELECT 1\0"), (b'Z', b"I")]), 5);
    assert!(!seen.is_busy());
    seen.client(&frames(&[(b'Q', b"select pg_sleep(60)\0")]), 5);
    let cut = seen.end(9);
    assert!(matches!(&cut[0].outcome, Outcome::Failed { message, .. } if message.contains("session ended")));
}

#[test]
fn memory_stays_bounded_whatever_is_sent() {
    let mut seen = Observer::default();
    for i in 0..3000 {
        seen.client(&frames(&[(b'P', format!("s{i}\0{}\0\0\0", "x".repeat(1000)).as_bytes())]), 1);
    }
    assert!(seen.held() <= limits::PREPARED_BYTES + limits::PIPELINED_BYTES);
    for _ in 0..10_000 {
        seen.client(&frames(&[(b'E', b"\0\0\0\0\0")]), 1);
    }
    assert!(seen.refused().is_none());
    for _ in 0..limits::PIPELINED {
        seen.client(&frames(&[(b'E', b"\0\0\0\0\0")]), 1);
    }
    assert!(seen.state.pending.len() <= limits::PIPELINED);
    assert!(seen.refused().is_some_and(|why| why.contains("sent ahead")));
}

/// What a client sends, and what the server answers to it.
type Turn<'a> = (&'a [(u8, &'a [u8])], Vec<u8>);

/// What is on record after the client said and the server answered, in turns.
fn record(turns: &[Turn<'_>]) -> Vec<(String, String)> {
    let mut seen = Observer::default();
    let mut found = Vec::new();
    let line = |statement: Statement| {
        let how = match statement.outcome {
            Outcome::Done => statement.tag,
            Outcome::NotRun => "not run".to_owned(),
            Outcome::Failed { code, message } => format!("{code} {message}").trim().to_owned(),
        };
        (statement.text.to_string(), how)
    };
    for (client, server) in turns {
        seen.client(&frames(client), 1);
        found.extend(seen.server(server, 2).map(line));
    }
    assert_eq!(seen.refused(), None);
    found.extend(seen.end(3).into_iter().map(line));
    found
}

fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(text, how)| ((*text).to_owned(), (*how).to_owned())).collect()
}

fn parse(name: &[u8], text: &str) -> Vec<u8> {
    [name, b"\0", text.as_bytes(), b"\0\0\0"].concat()
}

fn bind(portal: &[u8], name: &[u8]) -> Vec<u8> {
    [portal, b"\0", name, b"\0\0\0\0\0\0\0"].concat()
}

#[test]
fn names_are_told_apart_as_the_server_does() {
    // by their first 63 bytes
    let long = |last: u8| [vec![b'A'; 63], vec![last]].concat();
    let close = [b"S".to_vec(), long(b'y'), vec![0]].concat();
    let (first, second, run) = (parse(&long(b'x'), "SELECT 1"), parse(&long(b'y'), "DELETE FROM t"), bind(b"", &long(b'x')));
    let answers = frames(&[(b'1', b""), (b'3', b""), (b'1', b""), (b'2', b""), (b'C', b"DELETE 1\0"), (b'Z', b"I")]);
    let said: &[(u8, &[u8])] = &[(b'P', &first), (b'C', &close), (b'P', &second), (b'B', &run), EXECUTE, SYNC];
    assert_eq!(record(&[(said, answers)]), of(&[("DELETE FROM t", "DELETE 1")]));
    // in another encoding the same bytes are another name: such a text stands where it is prepared
    let (first, close, second, run) = (parse(b"\xe9", "SELECT 1"), b"S\xc3\xa9\0", parse("\u{e9}".as_bytes(), "DELETE FROM t"), bind(b"", b"\xe9"));
    let answers = frames(&[(b'1', b""), (b'3', b""), (b'1', b""), (b'2', b""), (b'C', b"DELETE 1\0"), (b'Z', b"I")]);
    let said: &[(u8, &[u8])] = &[(b'P', &first), (b'C', close), (b'P', &second), (b'B', &run), EXECUTE, SYNC];
    assert_eq!(
        record(&[(said, answers)]),
        of(&[
            ("SELECT 1", "prepared as \u{fffd}"),
            ("DELETE FROM t", "prepared as \u{e9}"),
            ("(prepared statement \u{fffd}, whose text stands where it was prepared)", "DELETE 1")
        ])
    );
    // and so does what is bound to a portal of such a name
    let (text, run) = (parse(b"", "DELETE FROM t"), bind(b"\xe9", b""));
    let said: &[(u8, &[u8])] = &[(b'P', &text), (b'B', &run), (b'E', b"\xe9\0\0\0\0\0"), SYNC];
    let answers = frames(&[(b'1', b""), (b'2', b""), (b'C', b"DELETE 1\0"), (b'Z', b"I")]);
    assert_eq!(record(&[(said, answers)]), of(&[("DELETE FROM t", "bound as \u{fffd}"), ("(portal \u{fffd}, declared in SQL or not kept)", "DELETE 1")]));
}

#[test]
fn what_sql_may_have_named_anew_keeps_its_text_with_a_doubt() {
    let (text, run) = (parse(b"mine", "DELETE FROM t"), bind(b"", b"mine"));
    let first: &[(u8, &[u8])] = &[(b'P', &text), SYNC];
    let again: &[(u8, &[u8])] = &[(b'B', &run), EXECUTE, SYNC];
    let ran = || frames(&[(b'2', b""), (b'C', b"DELETE 1\0"), (b'Z', b"I")]);
    let turns = [
        (first, frames(&[(b'1', b""), (b'Z', b"I")])),
        (&[(b'Q', &b"discard plans\0"[..])][..], frames(&[(b'C', b"DISCARD PLANS\0"), (b'Z', b"I")])),
        (again, ran()),
        (&[(b'Q', &b"prepare z as select 1\0"[..])][..], frames(&[(b'C', b"PREPARE\0"), (b'Z', b"I")])),
        (again, ran()),
    ];
    assert_eq!(
        record(&turns),
        of(&[
            ("discard plans", "DISCARD PLANS"),
            ("DELETE FROM t", "DELETE 1"),
            ("prepare z as select 1", "PREPARE"),
            ("(unless SQL has given mine anew) DELETE FROM t", "DELETE 1"),
        ])
    );
}

#[test]
fn while_copy_reads_a_sync_is_none_and_outcomes_stay_with_their_statements() {
    let (text, run) = (parse(b"", "COPY t FROM STDIN"), bind(b"", b""));
    let said: &[(u8, &[u8])] = &[(b'P', &text), (b'B', &run), EXECUTE, SYNC, (b'c', b""), SYNC, (b'Q', b"DELETE FROM t\0"), (b'Q', b"SELEKT 2\0")];
    let answers = [
        frames(&[(b'1', b""), (b'2', b""), (b'G', b"\0\0\0"), (b'C', b"COPY 0\0"), (b'Z', b"I"), (b'C', b"DELETE 1\0"), (b'Z', b"I")]),
        fatal("42601", "no", "", ""),
        frames(&[(b'Z', b"I")]),
    ];
    let wanted = of(&[("COPY t FROM STDIN", "COPY 0"), ("DELETE FROM t", "DELETE 1"), ("SELEKT 2", "42601 no")]);
    assert_eq!(record(&[(said, answers.concat())]), wanted);
    // the same when the end of the data comes later, as libpq sends it
    let first: &[(u8, &[u8])] = &[(b'P', &text), (b'B', &run), EXECUTE, SYNC];
    let then: &[(u8, &[u8])] = &[(b'd', b"1\n"), (b'c', b""), SYNC, (b'Q', b"DELETE FROM t\0")];
    let turns = [
        (first, frames(&[(b'1', b""), (b'2', b""), (b'G', b"\0\0\0")])),
        (then, frames(&[(b'C', b"COPY 1\0"), (b'Z', b"I"), (b'C', b"DELETE 1\0"), (b'Z', b"I")])),
    ];
    assert_eq!(record(&turns), of(&[("COPY t FROM STDIN", "COPY 1"), ("DELETE FROM t", "DELETE 1")]));
    // where it would be a guess, nothing passes: a Sync or a statement behind data that may be wrong, or into a COPY that may be over
    let mut seen = Observer::default();
    seen.client(&frames(&[(b'Q', b"COPY t FROM STDIN\0"), (b'd', b"1\n"), SYNC]), 1);
    assert!(seen.refused().is_some_and(|why| why.contains("COPY")));
    for before in [true, false] {
        let mut seen = Observer::default();
        let delete: (u8, &[u8]) = (b'Q', b"DELETE FROM t\0");
        seen.client(&frames(&[(b'Q', b"COPY t FROM STDIN\0")]), 1);
        if before {
            seen.client(&frames(&[delete]), 1);
        }
        assert_eq!(seen.server(&frames(&[(b'G', b"\0\0\0")]), 2).count(), 0);
        seen.client(&frames(&[(b'd', b"x\n")]), 3);
        if !before {
            seen.client(&frames(&[delete]), 3);
        }
        assert!(seen.refused().is_some_and(|why| why.contains("COPY")), "{before}");
    }
}

#[test]
fn after_an_error_in_a_batch_nothing_runs_up_to_its_sync_whatever_it_is() {
    let text = parse(b"", "SELEKT");
    let rest: [(u8, &[u8]); 3] = [(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), (b'Q', b"select 55\0"), SYNC];
    let error = || fatal("42601", "no", "", "");
    let after: &[(u8, &[u8])] = &[(b'Q', b"select 2\0")];
    let ok = || frames(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]);
    let wanted = of(&[("SELEKT", "42601 no"), ("(function call by oid 1)", "not run"), ("select 55", "not run"), ("select 2", "SELECT 1")]);
    let at_once = [vec![(b'P', &text[..])], rest.to_vec()].concat();
    assert_eq!(record(&[(&at_once, [error(), frames(&[(b'Z', b"I")])].concat()), (after, ok())]), wanted);
    // also what is sent after the error is known
    assert_eq!(record(&[(&[(b'P', &text)], error()), (&rest, frames(&[(b'Z', b"I")])), (after, ok())]), wanted);
}

#[test]
fn a_batch_of_ten_thousand_rows_is_sent_ahead_and_ends_nobody() {
    let mut seen = Observer::default();
    let value = [&b"\0s\0\0\0\0\x08"[..], &[&[0, 0, 2, 0][..], &[b'x'; 512]].concat().repeat(8), b"\0\0"].concat();
    seen.client(&frames(&[(b'P', &parse(b"s", "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"))]), 1);
    for _ in 0..10_000 {
        seen.client(&frames(&[(b'B', &value), EXECUTE]), 1);
    }
    assert_eq!(seen.refused(), None);
    assert!(seen.held() <= limits::PIPELINED_BYTES, "{}", seen.held());
}

#[test]
fn what_is_sent_ahead_of_its_answers_takes_no_more_memory_than_is_allowed() {
    let long = [b"select 1 --".to_vec(), vec![b'y'; 60_000], vec![0]].concat();
    for failed in [false, true] {
        let mut seen = Observer::default();
        let text = parse(b"", "SELEKT");
        seen.client(&frames(&[(b'P', &text)]), 1);
        if failed {
            assert_eq!(seen.server(&fatal("42601", "no", "", ""), 2).count(), 1);
        }
        let mut sent = 0;
        while seen.refused().is_none() {
            seen.client(&frames(&[(b'Q', &long)]), 1);
            sent += 1;
            assert!(sent < 100 && seen.held() <= 2 * limits::PIPELINED_BYTES, "{sent} {}", seen.held());
        }
        assert!(sent > 50);
    }
}
