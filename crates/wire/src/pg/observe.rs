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
    /// CopyDone or CopyFail. Outside of COPY the server passes over it.
    CopyEnd,
}

impl Pending {
    /// Bytes that it holds by itself.
    fn held(&self) -> usize {
        match self {
            Pending::Simple(statement) => statement.text.len() + values_held(&statement.values),
            Pending::Parse { text, .. } => text.len(),
            Pending::Bind { values, .. } => values_held(values),
            Pending::Execute { statement, .. } => values_held(&statement.values),
            Pending::Close { .. } | Pending::Sync | Pending::CopyEnd => 0,
        }
    }
}

fn values_held(values: &[String]) -> usize {
    values.iter().map(String::len).sum()
}

/// The server tells names apart by their first 63 bytes (NAMEDATALEN; PostgreSQL manual, "Identifiers and Key Words").
fn name(whole: &[u8]) -> &[u8] {
    &whole[..whole.len().min(63)]
}

/// The server takes a name after it has converted it from the client's encoding, which may change at any time: what it means is known where it
/// is ASCII only.
fn is_followed(name: &[u8]) -> bool {
    name.is_ascii()
}

/// What names would mean, had the server taken what was sent.
#[derive(Default)]
struct Sent {
    prepared: HashMap<Vec<u8>, (Arc<str>, usize)>,
    portals: Portals,
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
    /// Bytes that what is pending holds.
    ahead: usize,
    /// Names of prepared statements that SQL may have given anew since.
    doubted: Prepared,
    /// An error in a batch: what comes is passed over up to a Sync that was not sent yet.
    skips: Option<Sent>,
    /// Bytes of that.
    skipped: usize,
    /// COPY takes what the client sends: until its end, the server passes over Sync and Flush (PostgreSQL manual, "COPY Operations").
    copying: bool,
    /// CopyData was sent, and no end of it.
    data: bool,
    /// What was sent cannot be followed.
    lost: Option<&'static str>,
}

const TOO_FAR: &str = "its statements could not be recorded: more was sent ahead of its answers than is followed";
const INTO_COPY: &str = "its statements could not be recorded: something was sent in the middle of what COPY reads";

impl Observer {
    /// Bytes of memory worth minding that are held: texts of prepared statements.
    pub fn held(&self) -> usize {
        self.state.taken.held() + self.state.doubted.held() + self.state.ahead
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
        let mut sent = Sent::default();
        while let Some(pending) = self.state.pop() {
            if let Some(mut statement) = self.state.would_run(&mut sent, pending) {
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
        self.state.lost
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
        if self.copying {
            self.lost = Some(INTO_COPY);
            return;
        }
        if let Some(mut sent) = self.skips.take() {
            self.skipped += pending.held() + size_of::<Pending>();
            if self.skipped > limits::PIPELINED_BYTES {
                self.lost = Some(TOO_FAR);
            } else {
                self.not_run(&mut sent, pending);
            }
            self.skips = Some(sent);
            return;
        }
        let held = self.ahead + pending.held();
        if self.pending.len() >= limits::PIPELINED || held > limits::PIPELINED_BYTES {
            self.lost = Some(TOO_FAR);
            return;
        }
        self.ahead = held;
        self.pending.push_back(pending);
    }

    fn pop(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.ahead = self.ahead.saturating_sub(pending.held());
        Some(pending)
    }

    /// What the server passes over without a word.
    fn settle(&mut self) {
        while matches!(self.pending.front(), Some(Pending::CopyEnd)) {
            self.pop();
        }
    }

    /// The statement of something that was sent, if it is one.
    fn would_run(&self, sent: &mut Sent, pending: Pending) -> Option<Statement> {
        match pending {
            Pending::Simple(statement) => return Some(statement),
            Pending::Execute { portal, mut statement } => {
                // one that the server came to is resolved
                if statement.text.is_empty() {
                    (statement.text, statement.text_bytes, statement.values) = sent.portals.get(&portal).cloned().unwrap_or_else(|| self.portal(&portal));
                }
                return Some(statement);
            }
            Pending::Parse { name, text, whole } => drop(sent.prepared.insert(name, (text, whole))),
            Pending::Bind { portal, name, values } => {
                let (text, whole) = sent.prepared.get(&name).cloned().unwrap_or_else(|| self.text_named(&name));
                sent.portals.insert(portal, (text, whole, values));
            }
            Pending::Close { .. } | Pending::Sync | Pending::CopyEnd => {}
        }
        None
    }

    /// What a portal runs.
    fn portal(&self, portal: &[u8]) -> (Arc<str>, usize, Vec<String>) {
        let known = self.opened.get(portal).filter(|_| is_followed(portal)).cloned();
        known.unwrap_or_else(|| (format!("(portal {}, declared in SQL or not kept)", String::from_utf8_lossy(portal)).into(), 0, Vec::new()))
    }

    /// Something that the client sent was passed over by the server.
    fn not_run(&mut self, sent: &mut Sent, pending: Pending) {
        if let Some(mut statement) = self.would_run(sent, pending) {
            statement.outcome = Outcome::NotRun;
            self.finish(statement);
        }
    }

    /// The statement at the front reads what the client sends, from what it has sent already. Whatever is no data ends it with an error, and is
    /// used up by that, or runs, if it was over by then: no answer tells.
    fn copies(&mut self) {
        self.copying = true;
        let behind = 1;
        while let Some(next) = self.pending.get(behind) {
            match next {
                Pending::Sync => drop(self.pending.remove(behind)),
                Pending::CopyEnd => {
                    self.pending.remove(behind);
                    self.copying = false;
                    return;
                }
                _ => {
                    self.lost = Some(INTO_COPY);
                    return;
                }
            }
        }
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
            let known = self.opened.get(portal).filter(|_| is_followed(portal)).cloned();
            let unknown = || (format!("(portal {}, declared in SQL or not kept)", String::from_utf8_lossy(portal)).into(), 0, Vec::new());
            self.ahead = self.ahead.saturating_sub(values_held(&statement.values));
            (statement.text, statement.text_bytes, statement.values) = known.unwrap_or_else(unknown);
            self.ahead += values_held(&statement.values);
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
            && let Some(Pending::Parse { name, text, whole }) = self.pop()
        {
            self.last_parsed = Some((text.clone(), whole));
            if is_followed(&name) {
                self.taken.insert(&name, text, whole);
            } else {
                // who runs it cannot be told, so it stands here
                let mut statement = self.statement(text, whole, Vec::new());
                statement.tag = format!("prepared as {}", String::from_utf8_lossy(&name));
                self.finish(statement);
            }
        }
    }

    fn was_bound(&mut self) {
        if let Some(Pending::Bind { .. }) = self.pending.front()
            && let Some(Pending::Bind { portal, name, values }) = self.pop()
        {
            self.never_executed();
            let (text, whole) = self.text_named(&name);
            if !is_followed(&portal) {
                let mut statement = self.statement(text, whole, values);
                statement.tag = format!("bound as {}", String::from_utf8_lossy(&portal));
                self.finish(statement);
                return;
            }
            if self.opened.len() >= limits::PREPARED {
                self.opened.clear();
            }
            self.opened.insert(portal.clone(), (text, whole, values));
            self.bound = Some(portal);
        }
    }

    fn was_closed(&mut self) {
        if let Some(Pending::Close { .. }) = self.pending.front()
            && let Some(Pending::Close { portal, name }) = self.pop()
        {
            if portal {
                self.opened.remove(&name);
            } else {
                self.taken.remove(&name);
                self.doubted.remove(&name);
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
        if [&b"DEALLOCATE"[..], b"DISCARD ALL", b"PREPARE\0"].iter().any(|named| tag.starts_with(named)) {
            self.doubted.take_in(&mut self.taken);
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
            && let Some(Pending::Execute { statement, .. }) = self.pop()
        {
            self.finish(statement);
        }
    }

    fn failed(&mut self, body: &[u8]) {
        self.sent_rows = false;
        self.copying = false;
        let fields = error_fields(body);
        let outcome = Outcome::Failed { code: fields.code, message: fields.message };
        self.resolve();
        match self.pending.front_mut() {
            Some(Pending::Simple(statement)) => statement.outcome = outcome,
            Some(Pending::Execute { .. } | Pending::Parse { .. } | Pending::Bind { .. } | Pending::Close { .. }) => {
                let failed = match self.pop() {
                    Some(Pending::Execute { statement, .. }) => Some(statement),
                    Some(Pending::Parse { text, whole, .. }) => Some(self.statement(text, whole, Vec::new())),
                    Some(Pending::Bind { name, values, .. }) => {
                        let (text, whole) = self.text_named(&name);
                        Some(self.statement(text, whole, values))
                    }
                    _ => None,
                };
                if let Some(mut statement) = failed {
                    statement.outcome = outcome;
                    self.finish(statement);
                }
                self.skip();
            }
            // a Describe failed on its own
            Some(Pending::Sync) => {
                if let Some((text, whole)) = self.last_parsed.take() {
                    let mut statement = self.statement(text, whole, Vec::new());
                    statement.outcome = outcome;
                    self.finish(statement);
                }
            }
            Some(Pending::CopyEnd) | None => {}
        }
    }

    /// After an error in a batch the server passes over all up to the next Sync, whatever it is (PostgreSQL manual, "Extended Query").
    fn skip(&mut self) {
        let mut sent = Sent::default();
        while let Some(front) = self.pending.front() {
            if matches!(front, Pending::Sync) {
                return;
            }
            if let Some(pending) = self.pop() {
                self.not_run(&mut sent, pending);
            }
        }
        self.skips = Some(sent);
    }

    /// ReadyForQuery: a simple query or a batch is complete.
    fn ready(&mut self, status: u8) {
        self.transaction = status;
        self.never_executed();
        self.copying = false;
        self.resolve();
        while let Some(pending) = self.pop() {
            match pending {
                Pending::Simple(statement) => {
                    self.finish(statement);
                    break;
                }
                Pending::Execute { statement, .. } => self.finish(statement),
                Pending::Parse { .. } | Pending::Bind { .. } | Pending::Close { .. } | Pending::CopyEnd => {}
                Pending::Sync => break,
            }
        }
        self.settle();
    }

    fn text_named(&self, name: &[u8]) -> (Arc<str>, usize) {
        if !is_followed(name) {
            return (format!("(prepared statement {}, whose text stands where it was prepared)", String::from_utf8_lossy(name)).into(), 0);
        }
        let doubted =
            || self.doubted.get(name).map(|(text, whole)| (format!("(unless SQL has given {} anew) {text}", String::from_utf8_lossy(name)).into(), whole));
        let unknown = || (format!("(prepared statement {}, text not kept)", String::from_utf8_lossy(name)).into(), 0);
        self.taken.get(name).or_else(doubted).unwrap_or_else(unknown)
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
                let given = take_cstr(&mut rest).unwrap_or_default();
                let text = text_of(rest);
                let whole = frame.length.saturating_sub(given.len() + 4);
                let whole = if body.len() < frame.length { whole } else { text.len() };
                state.ahead(Pending::Parse { name: name(given).to_vec(), text, whole });
            }
            b'B' => {
                let portal = name(take_cstr(&mut rest).unwrap_or_default()).to_vec();
                let name = name(take_cstr(&mut rest).unwrap_or_default()).to_vec();
                // a driver may send a whole batch ahead: nobody is ended for values
                let values = match state.pending.len() < limits::PIPELINED_VALUES && state.ahead < limits::PIPELINED_BYTES / 2 {
                    true => values(rest, body.len() < frame.length),
                    false => vec!["… (values are not kept of what is sent so far ahead)".to_owned()],
                };
                state.ahead(Pending::Bind { portal, name, values });
            }
            b'E' => {
                let portal = name(take_cstr(&mut rest).unwrap_or_default()).to_vec();
                // what it runs is known when the server comes to it
                let statement = state.statement("".into(), 0, Vec::new());
                state.ahead(Pending::Execute { portal, statement });
            }
            b'F' => {
                let oid = take_u32(&mut rest).unwrap_or_default();
                // behind the function it is made like a Bind: formats, then arguments
                let arguments = values(rest, body.len() < frame.length);
                let statement = state.statement(format!("(function call by oid {oid})").into(), 0, arguments);
                state.push(Pending::Simple(statement));
                state.waits = true;
            }
            b'C' => {
                if let Some((kind @ (b'S' | b'P'), mut given)) = rest.split_first() {
                    let name = name(take_cstr(&mut given).unwrap_or_default()).to_vec();
                    state.ahead(Pending::Close { portal: *kind == b'P', name });
                }
            }
            b'S' => {
                // whether COPY reads it or it ends the batch lies in data that may be wrong
                if state.data {
                    state.lost = Some(INTO_COPY);
                }
                state.skips = None;
                state.skipped = 0;
                if !state.copying {
                    state.push(Pending::Sync);
                }
                state.waits = true;
            }
            b'H' => state.waits = true,
            b'c' | b'f' => {
                state.data = false;
                // while nothing is under way, nothing reads it
                if !std::mem::take(&mut state.copying) && !state.pending.is_empty() {
                    state.push(Pending::CopyEnd);
                }
            }
            b'X' => state.left = true,
            b'd' => {
                state.data = true;
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
        state.settle();
        match frame.tag {
            b'G' => state.copies(),
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
}
