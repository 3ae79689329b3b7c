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

/// A statement on its way, or the end of a batch.
enum Pending {
    Simple(Statement),
    Execute(Statement),
    Sync,
}

/// Follows both directions of one session.
#[derive(Default)]
pub struct Observer {
    client: Scanner,
    server: Scanner,
    state: Batches,
}

#[derive(Default)]
struct Batches {
    prepared: Prepared,
    portals: HashMap<Vec<u8>, (Arc<str>, usize, Vec<String>)>,
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
}

impl Observer {
    /// Bytes of memory worth minding that are held: texts of prepared statements.
    pub fn held(&self) -> usize {
        self.state.prepared.held()
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
        for pending in self.state.pending.drain(..) {
            if let Pending::Simple(mut statement) | Pending::Execute(mut statement) = pending {
                statement.ended = now;
                statement.outcome = Outcome::NotRun;
                rest.push(statement);
            }
        }
        // the first of them was under way when the session ended
        if let Some(first) = rest.iter_mut().find(|s| s.outcome == Outcome::NotRun) {
            first.outcome = Outcome::Failed { code: String::new(), message: "the session ended before its result".to_owned() };
        }
        rest
    }

    fn has_left(&self) -> bool {
        self.state.left
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
        // a client that sends more ahead than any real one: the oldest is let go as it stands
        if self.pending.len() >= limits::PIPELINED
            && let Some(Pending::Simple(mut statement) | Pending::Execute(mut statement)) = self.pending.pop_front()
        {
            statement.outcome = Outcome::Failed { code: String::new(), message: "its result was not followed: too many sent ahead".to_owned() };
            self.finish(statement);
        }
        self.pending.push_back(pending);
    }

    fn finish(&mut self, mut statement: Statement) {
        statement.ended = self.now;
        self.finished.push(statement);
    }

    fn current(&mut self) -> Option<&mut Statement> {
        match self.pending.front_mut() {
            Some(Pending::Simple(statement) | Pending::Execute(statement)) => Some(statement),
            Some(Pending::Sync) | None => None,
        }
    }

    /// The execution at the front is complete.
    fn executed(&mut self, tag: &[u8]) {
        let sent_rows = std::mem::take(&mut self.sent_rows);
        if let Some(statement) = self.current() {
            statement.tag = lossy(tag);
            // rows that were changed and not sent are counted by the server: `INSERT 0 3`, `UPDATE 3`, `COPY 3`
            if !sent_rows {
                let count = statement.tag.trim_end_matches('\0').rsplit(' ').next().and_then(|count| count.parse().ok());
                statement.rows += count.unwrap_or(0);
            }
        }
        if matches!(self.pending.front(), Some(Pending::Execute(_)))
            && let Some(Pending::Execute(statement)) = self.pending.pop_front()
        {
            self.finish(statement);
        }
    }

    fn failed(&mut self, body: &[u8]) {
        self.sent_rows = false;
        let fields = error_fields(body);
        let outcome = Outcome::Failed { code: fields.code, message: fields.message };
        match self.pending.front_mut() {
            Some(Pending::Simple(statement)) => statement.outcome = outcome,
            Some(Pending::Execute(_)) => {
                if let Some(Pending::Execute(mut statement)) = self.pending.pop_front() {
                    statement.outcome = outcome;
                    self.finish(statement);
                }
                // the server skips to the next Sync
                while let Some(Pending::Execute(_)) = self.pending.front() {
                    if let Some(Pending::Execute(mut statement)) = self.pending.pop_front() {
                        statement.outcome = Outcome::NotRun;
                        self.finish(statement);
                    }
                }
            }
            // a Parse or Describe failed on its own
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
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::Simple(statement) => {
                    self.finish(statement);
                    break;
                }
                Pending::Execute(statement) => self.finish(statement),
                Pending::Sync => break,
            }
        }
    }
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
            b'B' => 2 * limits::BOUND_VALUES,
            b'E' | b'C' | b'F' => 256,
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
                state.last_parsed = Some((text.clone(), whole));
                state.prepared.insert(name, text, whole);
            }
            b'B' => {
                let portal = take_cstr(&mut rest).unwrap_or_default().to_vec();
                let name = take_cstr(&mut rest).unwrap_or_default();
                let (text, whole) = match state.prepared.get(name) {
                    Some(known) => known,
                    None => (format!("(prepared statement {}, text not kept)", String::from_utf8_lossy(name)).into(), 0),
                };
                if state.portals.len() >= limits::PREPARED {
                    state.portals.clear();
                }
                state.portals.insert(portal, (text, whole, values(rest, body.len() < frame.length)));
            }
            b'E' => {
                let portal = take_cstr(&mut rest).unwrap_or_default();
                let (text, whole, values) = match state.portals.get(portal) {
                    Some(known) => known.clone(),
                    None => (format!("(portal {}, declared in SQL or not kept)", String::from_utf8_lossy(portal)).into(), 0, Vec::new()),
                };
                let statement = state.statement(text, whole, values);
                state.waits &= !state.pending.is_empty();
                state.push(Pending::Execute(statement));
            }
            b'F' => {
                let oid = take_u32(&mut rest).unwrap_or_default();
                let statement = state.statement(format!("(function call by oid {oid})").into(), 0, Vec::new());
                state.push(Pending::Simple(statement));
                state.waits = true;
            }
            b'C' => match rest.split_first() {
                Some((b'S', mut name)) => state.prepared.remove(take_cstr(&mut name).unwrap_or_default()),
                Some((b'P', mut name)) => {
                    state.portals.remove(take_cstr(&mut name).unwrap_or_default());
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
        let error = fatal("22012", "division by zero", "", "");
        let done: Vec<_> = seen.server(&[error, frames(&[(b'Z', b"E"), (b'C', b"SELECT 1\0"), (b'Z', b"I")])].concat(), 2).collect();
        assert_eq!(done.len(), 3);
        assert_eq!(done[0].outcome, Outcome::Failed { code: "22012".into(), message: "division by zero".into() });
        assert_eq!(done[1].outcome, Outcome::NotRun);
        assert_eq!((done[2].outcome.clone(), &*done[2].text), (Outcome::Done, "select 2"));
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
        assert!(seen.state.pending.len() <= limits::PIPELINED);
    }
}
