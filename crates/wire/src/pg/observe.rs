//! What a session does: statements with their text, bound values, rows, bytes, time and error, read from the bytes that pass.
//! It never holds a byte back and never changes one. What it cannot follow, it records as such.
//!
//! Simple queries (`Q`) are one statement each; in the extended protocol each Execute (`E`) is one, with the text of its
//! Parse and the values of its Bind; a fast-path call (`F`) is one. (PostgreSQL manual, "Message Flow".)

use super::{
    message::{error_fields, take, take_cstr, take_u16, take_u32},
    refuse::{fatal, sqlstate, warning},
    scan::{Consumer, Frame, Scanner},
};
use crate::{
    limits,
    observe::{LastWords, Observe, Outcome, Prepared, Statement},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// What was sent and not answered yet, in the order in which the server takes it. A name means what the server took it to mean: one that it did
/// not take, because it knows it already or skips the rest of a batch, changes nothing.
enum Pending {
    Simple(Statement),
    Parse {
        name: Vec<u8>,
        text: Arc<str>,
        whole: usize,
    },
    Bind {
        portal: Vec<u8>,
        name: Vec<u8>,
        values: Vec<String>,
    },
    Close {
        portal: bool,
        name: Vec<u8>,
    },
    /// With what it would run if all before it is taken.
    Execute {
        portal: Vec<u8>,
        statement: Statement,
    },
    Sync,
}

type Portals = HashMap<Vec<u8>, (Arc<str>, usize, Vec<String>)>;

/// Follows both directions of one session.
#[derive(Default)]
pub struct Observer {
    client: Scanner,
    server: Scanner,
    state: Batches,
}

#[derive(Default)]
struct Batches {
    /// As the client sent them.
    prepared: Prepared,
    portals: HashMap<Vec<u8>, (Arc<str>, usize)>,
    /// As the server took them.
    taken: Prepared,
    opened: Portals,
    /// Bound and not executed yet: to be planned is to be run, as far as a function's result is known before.
    bound: Option<Vec<u8>>,
    pending: VecDeque<Pending>,
    now: u64,
    finished: Vec<Statement>,
    /// The text of the last Parse, for an error that no Execute will carry.
    last_parsed: Option<(Arc<str>, usize)>,
    /// Rows were sent since the last command was complete.
    sent_rows: bool,
    transaction: u8,
    /// The client waits for answers: it sent what makes the server flush them (PostgreSQL manual, "Extended Query"). An Execute without Sync or
    /// Flush keeps no session from being idle.
    waits: bool,
    /// The client has said that it goes.
    left: bool,
    /// More was sent ahead than is followed.
    too_far: bool,
}

impl Observer {
    /// Bytes of memory worth minding that are held: texts of prepared statements.
    pub fn held(&self) -> usize {
        self.state.prepared.held() + self.state.taken.held()
    }

    /// Whether the bytes to the client end with a whole message: only there may an error be put in.
    pub fn at_boundary(&self) -> bool {
        self.server.at_boundary()
    }
}

impl Observe for Observer {
    fn client(&mut self, bytes: &[u8], now: u64) {
        self.state.now = now;
        self.client.feed(bytes, &mut FromClient(&mut self.state));
    }

    fn server(&mut self, bytes: &[u8], now: u64) -> std::vec::Drain<'_, Statement> {
        self.state.now = now;
        self.server.feed(bytes, &mut FromServer(&mut self.state));
        self.state.finished.drain(..)
    }

    fn end(&mut self, now: u64) -> Vec<Statement> {
        let mut rest = std::mem::take(&mut self.state.finished);
        self.state.resolve();
        for pending in self.state.pending.drain(..) {
            if let Pending::Simple(mut statement) | Pending::Execute { mut statement, .. } = pending {
                statement.ended = now;
                // the server may have run it: only its answer would tell
                statement.outcome = Outcome::Failed { code: String::new(), message: "the session ended before its result".to_owned() };
                rest.push(statement);
            }
        }
        rest
    }

    fn has_left(&self) -> bool {
        self.state.left
    }

    fn refused(&self) -> Option<&'static str> {
        self.state.too_far.then_some("its statements could not be recorded: more was sent ahead of its answers than is followed")
    }

    fn is_busy(&self) -> bool {
        self.state.waits && !self.state.pending.is_empty()
    }

    fn aside(&self, words: &str) -> Option<Vec<u8>> {
        self.server.at_boundary().then(|| warning(words))
    }

    fn last_words(&mut self, mut next: &[u8], why: &str, remedy: &str, now: u64) -> LastWords {
        let mut passing = Vec::new();
        // in the middle of a message: let just that message end
        while !next.is_empty() && self.server.to_boundary() > 0 {
            let (part, rest) = next.split_at(next.len().min(self.server.to_boundary()));
            self.state.now = now;
            self.server.feed(part, &mut FromServer(&mut self.state));
            passing.extend_from_slice(part);
            next = rest;
        }
        if self.server.to_boundary() > 0 {
            return LastWords::More(passing);
        }
        if self.server.at_boundary() {
            passing.extend(fatal(sqlstate::ADMIN_SHUTDOWN, &format!("terminating connection: {why}"), "", remedy));
        }
        LastWords::Last(passing)
    }
}

impl Batches {
    fn statement(&self, text: Arc<str>, text_bytes: usize, values: Vec<String>) -> Statement {
        Statement::new(text, text_bytes, values, self.now)
    }

    fn push(&mut self, pending: Pending) {
        // a client that sends more ahead than any real one
        if self.pending.len() >= limits::PIPELINED {
            self.too_far = true;
            return;
        }
        self.pending.push_back(pending);
    }

    /// What the server answers when it is asked to: by itself it makes nobody wait.
    fn ahead(&mut self, pending: Pending) {
        let small = |pending: &Pending| matches!(pending, Pending::Parse { .. } | Pending::Bind { .. } | Pending::Close { .. });
        // an execution that is sent stands among the first: nobody is to make us count thousands again and again
        self.waits &= self.pending.iter().take(64).any(|pending| !small(pending));
        self.push(pending);
    }

    fn finish(&mut self, mut statement: Statement) {
        statement.ended = self.now;
        self.finished.push(statement);
    }

    /// The execution at the front is what the server runs now: all before it was answered.
    fn resolve(&mut self) {
        if let Some(Pending::Execute { portal, statement }) = self.pending.front_mut() {
            if self.bound.as_ref() == Some(portal) {
                self.bound = None;
            }
            (statement.text, statement.text_bytes, statement.values) = match self.opened.get(portal) {
                Some(known) => known.clone(),
                None => (format!("(portal {}, declared in SQL or not kept)", String::from_utf8_lossy(portal)).into(), 0, Vec::new()),
            };
        }
    }

    fn current(&mut self) -> Option<&mut Statement> {
        match self.pending.front_mut() {
            Some(Pending::Simple(statement) | Pending::Execute { statement, .. }) => Some(statement),
            _ => None,
        }
    }

    fn parsed(&mut self) {
        if let Some(Pending::Parse { .. }) = self.pending.front()
            && let Some(Pending::Parse { name, text, whole }) = self.pending.pop_front()
        {
            self.last_parsed = Some((text.clone(), whole));
            self.taken.insert(&name, text, whole);
        }
    }

    fn was_bound(&mut self) {
        if let Some(Pending::Bind { .. }) = self.pending.front()
            && let Some(Pending::Bind { portal, name, values }) = self.pending.pop_front()
        {
            self.never_executed();
            let (text, whole) = text_named(&self.taken, &name);
            if self.opened.len() >= limits::PREPARED {
                self.opened.clear();
            }
            self.opened.insert(portal.clone(), (text, whole, values));
            self.bound = Some(portal);
        }
    }

    fn was_closed(&mut self) {
        if let Some(Pending::Close { .. }) = self.pending.front()
            && let Some(Pending::Close { portal, name }) = self.pending.pop_front()
        {
            if portal {
                self.opened.remove(&name);
            } else {
                self.taken.remove(&name);
            }
        }
    }

    /// What was bound, and planned, and not run any further.
    fn never_executed(&mut self) {
        if let Some(portal) = self.bound.take()
            && let Some((text, whole, values)) = self.opened.get(&portal).cloned()
        {
            let mut statement = self.statement(text, whole, values);
            statement.tag = "bound, not executed".to_owned();
            self.finish(statement);
        }
    }

    /// The execution at the front is complete.
    fn executed(&mut self, tag: &[u8]) {
        let sent_rows = std::mem::take(&mut self.sent_rows);
        self.resolve();
        // what SQL itself names is not followed: from here on such a name may mean something else
        if [&b"DEALLOCATE"[..], b"DISCARD", b"PREPARE"].iter().any(|named| tag.starts_with(named)) {
            self.taken = Prepared::default();
        }
        if let Some(statement) = self.current() {
            statement.tag = lossy(tag);
            // rows that were changed and not sent are counted by the server: `INSERT 0 3`, `UPDATE 3`, `COPY 3`
            if !sent_rows {
                let count = statement.tag.trim_end_matches('\0').rsplit(' ').next().and_then(|count| count.parse().ok());
                statement.rows += count.unwrap_or(0);
            }
        }
        if matches!(self.pending.front(), Some(Pending::Execute { .. }))
            && let Some(Pending::Execute { statement, .. }) = self.pending.pop_front()
        {
            self.finish(statement);
        }
    }

    fn failed(&mut self, body: &[u8]) {
        self.sent_rows = false;
        let fields = error_fields(body);
        let outcome = Outcome::Failed { code: fields.code, message: fields.message };
        self.resolve();
        match self.pending.front_mut() {
            Some(Pending::Simple(statement)) => statement.outcome = outcome,
            Some(Pending::Execute { .. } | Pending::Parse { .. } | Pending::Bind { .. } | Pending::Close { .. }) => {
                let failed = match self.pending.pop_front() {
                    Some(Pending::Execute { statement, .. }) => Some(statement),
                    Some(Pending::Parse { text, whole, .. }) => Some(self.statement(text, whole, Vec::new())),
                    Some(Pending::Bind { name, values, .. }) => {
                        let (text, whole) = text_named(&self.taken, &name);
                        Some(self.statement(text, whole, values))
                    }
                    _ => None,
                };
                if let Some(mut statement) = failed {
                    statement.outcome = outcome;
                    self.finish(statement);
                }
                // the server skips to the next Sync
                while !matches!(self.pending.front(), Some(Pending::Sync | Pending::Simple(_)) | None) {
                    if let Some(Pending::Execute { mut statement, .. }) = self.pending.pop_front() {
                        statement.outcome = Outcome::NotRun;
                        self.finish(statement);
                    }
                }
            }
            // a Describe failed on its own
            Some(Pending::Sync) => {
                if let Some((text, whole)) = self.last_parsed.take() {
                    let mut statement = self.statement(text, whole, Vec::new());
                    statement.outcome = outcome;
                    self.finish(statement);
                }
            }
            None => {}
        }
    }

    /// ReadyForQuery: a simple query or a batch is complete.
    fn ready(&mut self, status: u8) {
        self.transaction = status;
        self.never_executed();
        self.resolve();
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::Simple(statement) => {
                    self.finish(statement);
                    break;
                }
                Pending::Execute { statement, .. } => self.finish(statement),
                Pending::Parse { .. } | Pending::Bind { .. } | Pending::Close { .. } => {}
                Pending::Sync => break,
            }
        }
    }
}

fn text_named(known: &Prepared, name: &[u8]) -> (Arc<str>, usize) {
    known.get(name).unwrap_or_else(|| (format!("(prepared statement {}, text not kept)", String::from_utf8_lossy(name)).into(), 0))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
}

/// Text as far as it was kept, without its terminator.
fn text_of(bytes: &[u8]) -> Arc<str> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into()
}

struct FromClient<'a>(&'a mut Batches);

impl Consumer for FromClient<'_> {
    fn keep(&mut self, frame: Frame) -> usize {
        match frame.tag {
            b'Q' | b'P' => limits::STATEMENT_TEXT,
            b'B' | b'F' => 2 * limits::BOUND_VALUES,
            b'E' | b'C' => 256,
            _ => 0,
        }
    }

    fn frame(&mut self, frame: Frame, body: &[u8]) {
        let state = &mut *self.0;
        let mut rest = body;
        match frame.tag {
            b'Q' => {
                let statement = state.statement(text_of(body), frame.length.saturating_sub(1), Vec::new());
                state.push(Pending::Simple(statement));
                state.waits = true;
            }
            b'P' => {
                let name = take_cstr(&mut rest).unwrap_or_default();
                let text = text_of(rest);
                let whole = frame.length.saturating_sub(name.len() + 4);
                let whole = if body.len() < frame.length { whole } else { text.len() };
                state.prepared.insert(name, text.clone(), whole);
                state.ahead(Pending::Parse { name: name.to_vec(), text, whole });
            }
            b'B' => {
                let portal = take_cstr(&mut rest).unwrap_or_default().to_vec();
                let name = take_cstr(&mut rest).unwrap_or_default();
                let (text, whole) = text_named(&state.prepared, name);
                if state.portals.len() >= limits::PREPARED {
                    state.portals.clear();
                }
                let values = match state.pending.len() < limits::PIPELINED_VALUES {
                    true => values(rest, body.len() < frame.length),
                    false => vec!["… (values are not kept of what is sent so far ahead)".to_owned()],
                };
                state.portals.insert(portal.clone(), (text, whole));
                state.ahead(Pending::Bind { portal, name: name.to_vec(), values });
            }
            b'E' => {
                let portal = take_cstr(&mut rest).unwrap_or_default();
                let (text, whole) = match state.portals.get(portal) {
                    Some(known) => known.clone(),
                    None => (format!("(portal {}, declared in SQL or not kept)", String::from_utf8_lossy(portal)).into(), 0),
                };
                let statement = state.statement(text, whole, Vec::new());
                state.ahead(Pending::Execute { portal: portal.to_vec(), statement });
            }
            b'F' => {
                let oid = take_u32(&mut rest).unwrap_or_default();
                // behind the function it is made like a Bind: formats, then arguments
                let arguments = values(rest, body.len() < frame.length);
                let statement = state.statement(format!("(function call by oid {oid})").into(), 0, arguments);
                state.push(Pending::Simple(statement));
                state.waits = true;
            }
            b'C' => match rest.split_first() {
                Some((b'S', mut name)) => {
                    let name = take_cstr(&mut name).unwrap_or_default();
                    state.prepared.remove(name);
                    state.ahead(Pending::Close { portal: false, name: name.to_vec() });
                }
                Some((b'P', mut name)) => {
                    let name = take_cstr(&mut name).unwrap_or_default();
                    state.portals.remove(name);
                    state.ahead(Pending::Close { portal: true, name: name.to_vec() });
                }
                _ => {}
            },
            b'S' => {
                state.push(Pending::Sync);
                state.waits = true;
            }
            b'H' => state.waits = true,
            b'X' => state.left = true,
            b'd' => {
                if let Some(statement) = state.current() {
                    statement.bytes += frame.length as u64;
                }
            }
            _ => {}
        }
    }
}

struct FromServer<'a>(&'a mut Batches);

impl Consumer for FromServer<'_> {
    fn keep(&mut self, frame: Frame) -> usize {
        match frame.tag {
            b'C' => 128,
            b'E' => limits::ERROR_TEXT,
            b'Z' => 1,
            _ => 0,
        }
    }

    fn frame(&mut self, frame: Frame, body: &[u8]) {
        let state = &mut *self.0;
        match frame.tag {
            b'D' => {
                state.sent_rows = true;
                if let Some(statement) = state.current() {
                    statement.rows += 1;
                    statement.bytes += frame.length as u64;
                }
            }
            b'd' => {
                if let Some(statement) = state.current() {
                    statement.bytes += frame.length as u64;
                }
            }
            b'1' => state.parsed(),
            b'2' => state.was_bound(),
            b'3' => state.was_closed(),
            b'C' => state.executed(body),
            b'I' | b's' => state.executed(b""),
            b'E' => state.failed(body),
            b'Z' => state.ready(body.first().copied().unwrap_or(b'I')),
            _ => {}
        }
    }
}

/// The values of a Bind: format codes, then values (PostgreSQL manual, "Message Formats", Bind).
fn values(mut rest: &[u8], cut: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut budget = limits::BOUND_VALUES;
    let mut read = || {
        let formats: Vec<u16> = (0..take_u16(&mut rest)?).map(|_| take_u16(&mut rest)).collect::<Option<_>>()?;
        let count = usize::from(take_u16(&mut rest)?);
        for i in 0..count {
            let length = take_u32(&mut rest)?;
            if length == u32::MAX {
                found.push("NULL".to_owned());
                continue;
            }
            let whole = length as usize;
            let there = whole.min(rest.len());
            let part = take(&mut rest, there)?;
            let kept = &part[..part.len().min(limits::BOUND_VALUE).min(budget)];
            budget -= kept.len();
            let binary = formats.get(i).or(formats.first().filter(|_| formats.len() == 1)).copied() == Some(1);
            let mut shown = match (binary, std::str::from_utf8(kept)) {
                (false, Ok(text)) => text.to_owned(),
                (false, Err(_)) => String::from_utf8_lossy(kept).into_owned(),
                (true, _) => kept.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
            };
            if kept.len() < whole {
                shown.push_str(&format!("… ({whole} bytes)"));
            }
            found.push(shown);
        }
        Some(())
    };
    if read().is_none() {
        found.push(if cut { "… (more was bound than is recorded)".to_owned() } else { "(not readable)".to_owned() });
    }
    found
}

#[cfg(test)]
mod tests {
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
        // and one that SQL itself may have given another meaning is not known any more
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
                ("(prepared statement x, text not kept)", Outcome::Done),
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
        assert!(seen.held() <= limits::PREPARED_BYTES);
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
}
