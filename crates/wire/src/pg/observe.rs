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
    held: usize,
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
        self.state.taken.held() + self.state.doubted.held() + self.state.held
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
        let held = self.held + pending.held();
        if self.pending.len() >= limits::PIPELINED || held > limits::PIPELINED_BYTES {
            self.lost = Some(TOO_FAR);
            return;
        }
        self.held = held;
        self.pending.push_back(pending);
    }

    fn pop(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.held = self.held.saturating_sub(pending.held());
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
        let Some(Pending::Execute { portal, .. }) = self.pending.front() else { return };
        self.bound.take_if(|bound| bound == portal);
        let known = self.portal(portal);
        if let Some(Pending::Execute { statement, .. }) = self.pending.front_mut() {
            self.held = self.held.saturating_sub(values_held(&statement.values)) + values_held(&known.2);
            (statement.text, statement.text_bytes, statement.values) = known;
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
                let values = match state.pending.len() < limits::PIPELINED_VALUES && state.held < limits::PIPELINED_BYTES / 2 {
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
mod tests;
