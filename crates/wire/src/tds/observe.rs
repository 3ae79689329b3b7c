//! What a session does: statements with their text, bound values, rows, bytes, time and error, read from the bytes that pass.
//!
//! Each batch is one statement, each remote procedure call one, each bulk load one; a call of a prepared handle has the text that
//! the handle was made for. With MARS every session inside the connection is followed by itself.

use super::{
    packet::{self, Packets, Piece, kind},
    refuse::{FATAL, Reason, number},
    request::{self, Call, Handle, Made, Rpc},
    smp::{self, Frame, Frames, flag},
    token::{Agreed, Event, Tokens, done, put_filler, token_type},
    types::Type,
};
use crate::{
    limits,
    observe::{LastWords, Observe, Outcome, Prepared, Statement},
};
use std::{
    collections::{BTreeMap, VecDeque},
    vec::Drain,
};

/// How much of a request is kept for reading: a statement as long as is recorded, in UTF-16, and its surroundings.
const KEPT: usize = 2 * limits::STATEMENT_TEXT + 8 * 1024;
/// How much all sessions inside one connection keep together.
const KEPT_IN_ALL: usize = 8 * KEPT;

/// Follows both directions of one connection.
pub struct Observer {
    /// Frames of the client and of the server, when there are several sessions inside.
    frames: Option<(Frames, Frames)>,
    sessions: BTreeMap<u16, Conversation>,
    shared: Shared,
    /// The client opened more sessions than are followed.
    too_many: bool,
}

/// Kept of a request whatever the other sessions of its connection keep.
const KEPT_AT_LEAST: usize = 8 * 1024;

#[derive(Default)]
struct Shared {
    prepared: Prepared,
    finished: Vec<Statement>,
    now: u64,
    kept: usize,
    /// Calls that wait for their results.
    waiting: usize,
    agreed: Agreed,
    described: Described,
    /// A transaction was to be handed to a coordinator.
    distributed: bool,
}

/// The columns of what is prepared, and of cursors: a client may ask for rows without being told them again.
#[derive(Default)]
struct Described {
    known: VecDeque<((Made, i64), Vec<Type>)>,
    columns: usize,
}

/// Columns that are remembered per connection; the oldest description goes first.
const DESCRIBED: usize = 8_192;

impl Described {
    fn get(&self, what: (Made, i64)) -> Option<&[Type]> {
        self.known.iter().find(|(known, _)| *known == what).map(|(_, columns)| columns.as_slice())
    }

    fn remove(&mut self, what: (Made, i64)) {
        self.known.retain(|(known, columns)| {
            *known != what || {
                self.columns -= columns.len();
                false
            }
        });
    }

    fn insert(&mut self, what: (Made, i64), columns: &[Type]) {
        self.remove(what);
        self.columns += columns.len();
        self.known.push_back((what, columns.to_vec()));
        while self.columns > DESCRIBED || self.known.len() > limits::PREPARED {
            let Some((_, oldest)) = self.known.pop_front() else { break };
            self.columns -= oldest.len();
        }
    }
}

/// A call whose result is waited for.
struct Waiting {
    statement: Statement,
    handle: Handle,
    /// What the next numbers of its reply are.
    makes: &'static [Made],
    /// Results of it that were described.
    results: u32,
}

/// What the result of one call came to, before it is known which call that is.
struct Part {
    rows: u64,
    bytes: u64,
    outcome: Outcome,
}

fn all_of(statement: &mut Statement, parts: impl Iterator<Item = Part>) {
    for part in parts {
        statement.rows = statement.rows.saturating_add(part.rows);
        statement.bytes += part.bytes;
        if statement.outcome == Outcome::Done {
            statement.outcome = part.outcome;
        }
    }
}

/// One session.
#[derive(Default)]
struct Conversation {
    request: Packets,
    /// The request that passes: as much of it as is kept, its whole length, when it began.
    kept: Vec<u8>,
    /// Boxed, for the sake of the thousands of sessions that ask nothing: the map below keeps room for eleven of these.
    rpc: Option<Box<Rpc>>,
    whole: usize,
    began: u64,
    /// Kind and status of its first packet: servers go by them.
    kind: u8,
    status: u8,
    reply: Packets,
    tokens: Tokens,
    pending: VecDeque<VecDeque<Waiting>>,
    /// Results of calls whose ends did not say that they are one of several.
    parts: Vec<Part>,
    /// There were more such ends than calls: whose they are is not known, and all of it is the first one's.
    muddled: bool,
    /// The client gave up what is under way; the server has not acknowledged it yet.
    attention: bool,
    /// Number and window of the server's last frame.
    last: (u32, u32),
}

impl Observer {
    /// `mars`: the connection holds several sessions.
    pub fn new(mars: bool, agreed: Agreed) -> Self {
        let sessions = if mars { BTreeMap::new() } else { BTreeMap::from([(0, Conversation::new(agreed))]) };
        Observer { frames: mars.then(Default::default), sessions, shared: Shared { agreed, ..Shared::default() }, too_many: false }
    }

    /// Bytes of memory worth minding that are held.
    pub fn held(&self) -> usize {
        self.shared.prepared.held() + self.shared.kept
    }

    fn conversation(&mut self, session: u16) -> Option<&mut Conversation> {
        if self.sessions.len() >= limits::TDS_MARS_SESSIONS && !self.sessions.contains_key(&session) {
            self.too_many = true;
            return None;
        }
        let agreed = self.shared.agreed;
        Some(self.sessions.entry(session).or_insert_with(|| Conversation::new(agreed)))
    }

    fn client_frames(&mut self, frames: &mut Frames, bytes: &mut &[u8]) {
        while let Some(piece) = frames.next(bytes) {
            if let smp::Piece::Data(session, data) = piece {
                self.conversation(session);
                if let Some(conversation) = self.sessions.get_mut(&session) {
                    conversation.client(data, &mut self.shared);
                }
            }
        }
    }

    /// Lets one piece of the server's frames pass.
    fn server_frame(&mut self, frames: &mut Frames, bytes: &mut &[u8]) -> bool {
        match frames.next(bytes) {
            Some(smp::Piece::Begin(frame)) => {
                if frame.flags & flag::FIN != 0 {
                    if let Some(mut gone) = self.sessions.remove(&frame.session) {
                        self.shared.kept -= gone.kept.len() + gone.rpc.as_ref().map_or(0, |rpc| rpc.held());
                        gone.end(&mut self.shared);
                    }
                } else if let Some(conversation) = self.conversation(frame.session) {
                    conversation.last = (frame.sequence, frame.window);
                }
                true
            }
            Some(smp::Piece::Data(session, mut data)) => {
                if let Some(conversation) = self.sessions.get_mut(&session) {
                    while !data.is_empty() && conversation.server_step(&mut data, &mut self.shared) {}
                    conversation.server_step(&mut data, &mut self.shared);
                }
                true
            }
            None => false,
        }
    }

    /// The reason inside a frame of a session that can take it; None: more has to pass first.
    fn framed(&self, at_boundary: bool, reason: &Reason) -> Option<Vec<u8>> {
        if !at_boundary {
            return None;
        }
        let able = || self.sessions.iter().filter(|(_, conversation)| conversation.reply.at_message_boundary());
        let waiting = able().find(|(_, conversation)| !conversation.pending.is_empty());
        let Some((session, conversation)) = waiting.or_else(|| able().next()) else { return Some(Vec::new()) };
        let (sequence, window) = conversation.last;
        let mut out = Vec::new();
        Frame { flags: flag::DATA, session: *session, payload: 0, sequence: sequence.wrapping_add(1), window }.put(&mut out, &reason.reply());
        Some(out)
    }
}

impl Observe for Observer {
    fn client(&mut self, mut bytes: &[u8], now: u64) {
        self.shared.now = now;
        match self.frames.take() {
            Some((mut client, server)) => {
                self.client_frames(&mut client, &mut bytes);
                self.frames = Some((client, server));
            }
            None => {
                if let Some(conversation) = self.sessions.get_mut(&0) {
                    conversation.client(bytes, &mut self.shared);
                }
            }
        }
    }

    fn server(&mut self, mut bytes: &[u8], now: u64) -> Drain<'_, Statement> {
        self.shared.now = now;
        match self.frames.take() {
            Some((client, mut server)) => {
                while self.server_frame(&mut server, &mut bytes) {}
                self.frames = Some((client, server));
            }
            None => {
                if let Some(conversation) = self.sessions.get_mut(&0) {
                    while conversation.server_step(&mut bytes, &mut self.shared) {}
                }
            }
        }
        self.shared.finished.drain(..)
    }

    fn end(&mut self, now: u64) -> Vec<Statement> {
        self.shared.now = now;
        for conversation in self.sessions.values_mut() {
            conversation.end(&mut self.shared);
        }
        std::mem::take(&mut self.shared.finished)
    }

    fn refused(&self) -> Option<&'static str> {
        let broken = self.frames.as_ref().is_some_and(|(client, _)| client.is_broken()) || self.sessions.values().any(|session| session.request.is_broken());
        match (self.too_many, broken, self.shared.distributed) {
            (true, ..) => Some("its statements could not be recorded: more sessions inside one connection than are followed"),
            (_, true, _) => Some("its statements could not be recorded: the client does not keep to the protocol"),
            (.., true) => Some("it asked for a distributed transaction, and others could commit that behind its end"),
            _ => None,
        }
    }

    /// An attention for each session that waits.
    fn give_up(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (session, conversation) in &self.sessions {
            if conversation.pending.is_empty() || !conversation.request.at_message_boundary() {
                continue;
            }
            let mut attention = Vec::new();
            packet::put(&mut attention, kind::ATTENTION, 0, &[], packet::HEADER + 1);
            if self.frames.is_some() {
                // nothing follows, so the number in it matters to nobody
                Frame { flags: flag::DATA, session: *session, payload: 0, sequence: u32::MAX, window: u32::MAX }.put(&mut out, &attention);
            } else {
                out.extend(attention);
            }
        }
        out
    }

    fn is_busy(&self) -> bool {
        self.sessions.values().any(|conversation| !conversation.pending.is_empty())
    }

    fn last_words(&mut self, mut next: &[u8], why: &str, remedy: &str, now: u64) -> LastWords {
        self.shared.now = now;
        let reason = Reason { number: number::ENDED, class: FATAL, text: format!("Your session was ended: {why}. {remedy}") };
        let mut passing = Vec::new();
        loop {
            let last = match &self.frames {
                Some((_, server)) => self.framed(server.at_boundary(), &reason),
                None => self.sessions.get(&0).map_or(Some(Vec::new()), |conversation| conversation.words(&reason)),
            };
            if let Some(last) = last {
                passing.extend(last);
                return LastWords::Last(passing);
            }
            let before = next;
            let moved = match self.frames.take() {
                Some((client, mut server)) => {
                    let moved = self.server_frame(&mut server, &mut next);
                    self.frames = Some((client, server));
                    moved
                }
                None => self.sessions.get_mut(&0).is_some_and(|conversation| conversation.server_step(&mut next, &mut self.shared)),
            };
            passing.extend_from_slice(&before[..before.len() - next.len()]);
            if !moved {
                // bytes that nothing moves are not what they should be: there is no place for words in them
                return if next.is_empty() { LastWords::More(passing) } else { LastWords::Last(passing) };
            }
        }
    }
}

impl Conversation {
    fn new(agreed: Agreed) -> Conversation {
        Conversation { tokens: Tokens::new(agreed), ..Conversation::default() }
    }

    fn client(&mut self, mut bytes: &[u8], shared: &mut Shared) {
        while let Some(piece) = self.request.next(&mut bytes) {
            match piece {
                Piece::Begin(header, true) => {
                    self.whole = 0;
                    self.began = shared.now;
                    (self.kind, self.status) = (header.kind, header.status);
                    if header.status & packet::RESET != 0 {
                        shared.prepared = Prepared::default();
                        shared.described = Described::default();
                    }
                }
                Piece::Begin(_, false) => {}
                Piece::Payload(payload) => {
                    self.whole += payload.len();
                    if self.kind == kind::RPC {
                        let room = KEPT.min(KEPT_IN_ALL.saturating_sub(shared.kept).max(KEPT_AT_LEAST));
                        let rpc = self.rpc.get_or_insert_with(|| Box::new(Rpc::new(room)));
                        shared.kept -= rpc.held();
                        rpc.feed(payload);
                        shared.kept += rpc.held();
                        continue;
                    }
                    let wants = matches!(self.kind, kind::BATCH | kind::TRANSACTION);
                    let shared_room = KEPT_IN_ALL.saturating_sub(shared.kept).max(KEPT_AT_LEAST.saturating_sub(self.kept.len()));
                    let room = if wants { KEPT.saturating_sub(self.kept.len()).min(shared_room) } else { 0 };
                    let part = &payload[..payload.len().min(room)];
                    shared.kept += part.len();
                    self.kept.extend_from_slice(part);
                }
                Piece::End(header) if header.is_last() => {
                    let kept = std::mem::take(&mut self.kept);
                    shared.kept -= kept.len();
                    self.asked(header.status & packet::IGNORE != 0, &kept, shared);
                }
                Piece::End(_) => {}
            }
        }
    }

    /// A request is complete.
    fn asked(&mut self, given_up: bool, kept: &[u8], shared: &mut Shared) {
        let kind = self.kind;
        let mut calls = match kind {
            kind::BATCH => vec![request::batch(kept, self.whole)],
            kind::RPC => {
                let rpc = self.rpc.take().unwrap_or_else(|| Box::new(Rpc::new(0)));
                shared.kept -= rpc.held();
                rpc.end()
            }
            kind::TRANSACTION => {
                shared.distributed |= request::is_distributed(kept);
                vec![request::transaction(kept)]
            }
            kind::BULK => vec![Call { text: "(bulk load)".to_owned(), ..Call::default() }],
            kind::ATTENTION => {
                self.attention = !self.pending.is_empty();
                return;
            }
            _ => return,
        };
        let room = limits::PIPELINED.saturating_sub(shared.waiting).max(1);
        if calls.len() > room {
            let more = calls.len() - room;
            calls.truncate(room);
            calls.push(Call { text: format!("({more} more calls in one message)"), ..Call::default() });
        }
        let mut statements = VecDeque::new();
        for Call { text, text_units, values, handle, makes } in calls {
            let (text, units) = match handle {
                Handle::Run(handle) => shared.prepared.get(&handle.to_le_bytes()).unwrap_or((text.into(), text_units)),
                Handle::Dropped(handle) => {
                    shared.prepared.remove(&handle.to_le_bytes());
                    shared.described.remove((Made::Prepared, handle));
                    (text.into(), text_units)
                }
                Handle::Closed(cursor) => {
                    shared.described.remove((Made::Cursor, cursor));
                    (text.into(), text_units)
                }
                _ => (text.into(), text_units),
            };
            let mut statement = Statement::new(text, units, values, self.began);
            if kind == kind::BULK {
                statement.bytes = self.whole as u64;
            }
            if self.status & packet::RESET != 0 {
                statement.tag = "after a reset of the connection".to_owned();
            }
            if given_up {
                // SQL Server does not run it; there are engines that do
                statement.outcome = Outcome::Failed { code: String::new(), message: "given up by the client before its end".to_owned() };
            }
            statements.push_back(Waiting { statement, handle, makes, results: 0 });
        }
        shared.waiting += statements.len();
        // a client that sends more ahead than any real one: the oldest is let go as it stands
        if self.pending.len() >= limits::PIPELINED {
            for Waiting { mut statement, .. } in self.pending.pop_front().into_iter().flatten() {
                statement.outcome = Outcome::Failed { code: String::new(), message: "its result was not followed: too many sent ahead".to_owned() };
                shared.waiting -= 1;
                finish(statement, shared);
            }
        }
        self.pending.push_back(statements);
    }

    /// Lets the server's bytes pass up to the end of the next token or packet. False: there was nothing to do.
    fn server_step(&mut self, bytes: &mut &[u8], shared: &mut Shared) -> bool {
        let before = *bytes;
        match self.reply.next(bytes) {
            Some(Piece::Begin(..)) => true,
            Some(Piece::Payload(mut payload)) => {
                if let Some(event) = self.tokens.next(&mut payload) {
                    self.happened(event, shared);
                }
                // what belongs to the next token passes next
                self.reply.give_back(payload.len());
                *bytes = &before[before.len() - bytes.len() - payload.len()..];
                true
            }
            Some(Piece::End(header)) => {
                if header.is_last() {
                    let is_lost = self.tokens.is_lost();
                    if let Some(event) = self.tokens.end_of_message() {
                        self.happened(event, shared);
                    }
                    if is_lost && let Some(waiting) = self.pending.front_mut().and_then(VecDeque::front_mut) {
                        waiting.statement.tag = "its result could not be read: bytes are counted, rows are not".to_owned();
                    }
                    self.answered(shared);
                }
                true
            }
            None => false,
        }
    }

    fn happened(&mut self, event: Event, shared: &mut Shared) {
        let Some(request) = self.pending.front_mut() else {
            // the acknowledgement may be a message of its own, behind what was given up
            self.attention = false;
            return;
        };
        let several = request.len() > 1;
        let Some(Waiting { statement, handle, makes, results }) = request.front_mut() else { return };
        statement.bytes += std::mem::take(&mut self.tokens.row_bytes);
        match event {
            Event::Row => statement.rows = statement.rows.saturating_add(1),
            Event::Error { number, text } => {
                if statement.outcome == Outcome::Done {
                    statement.outcome = Outcome::Failed { code: number.to_string(), message: text };
                }
            }
            Event::Described => {
                *results += 1;
                match handle {
                    // which of several the next would have is not known
                    Handle::Run(prepared) if *results > 1 => shared.described.remove((Made::Prepared, *prepared)),
                    Handle::Run(prepared) => shared.described.insert((Made::Prepared, *prepared), self.tokens.columns()),
                    Handle::Fetch(cursor) => shared.described.insert((Made::Cursor, *cursor), self.tokens.columns()),
                    _ => {}
                }
            }
            Event::Undescribed => {
                let known = match handle {
                    Handle::Run(prepared) => shared.described.get((Made::Prepared, *prepared)),
                    Handle::Fetch(cursor) => shared.described.get((Made::Cursor, *cursor)),
                    _ => None,
                };
                match known {
                    Some(columns) => self.tokens.describe_as(columns),
                    None => self.tokens.lose(),
                }
            }
            Event::Returned(Some(number)) => {
                if let Some((first, rest)) = makes.split_first() {
                    *makes = rest;
                    if *first == Made::Prepared {
                        shared.prepared.insert(&number.to_le_bytes(), statement.text.clone(), statement.text_bytes);
                    }
                    if *results == 1 {
                        shared.described.insert((*first, number), self.tokens.columns());
                    }
                }
            }
            Event::Done { kind, status, command, rows } => {
                if status & done::COUNT != 0 && (command != done::SELECT || statement.rows == 0) {
                    statement.rows = statement.rows.saturating_add(rows);
                }
                if status & done::ATTENTION != 0 && statement.outcome == Outcome::Done {
                    statement.outcome = Outcome::Failed { code: String::new(), message: "cancelled by the client".to_owned() };
                }
                if status & done::ERROR != 0 && statement.outcome == Outcome::Done {
                    let message = if self.attention { "cancelled by the client" } else { "failed; its error could not be read" };
                    statement.outcome = Outcome::Failed { code: String::new(), message: message.to_owned() };
                }
                if kind != token_type::DONE_PROC || !several || status & (done::MORE | done::RPC_IN_BATCH) == 0 {
                    return;
                }
                let part = Part {
                    rows: std::mem::take(&mut statement.rows),
                    bytes: std::mem::take(&mut statement.bytes),
                    outcome: std::mem::replace(&mut statement.outcome, Outcome::Done),
                };
                self.parts.push(part);
                // a procedure may call others without end
                self.muddled |= self.parts.len() >= request.len();
                // another call of the same message comes next: some servers say so, and what came before is all of this one's
                if status & done::RPC_IN_BATCH != 0
                    && let Some(Waiting { mut statement, .. }) = request.pop_front()
                {
                    all_of(&mut statement, self.parts.drain(..));
                    self.muddled = false;
                    shared.waiting -= 1;
                    finish(statement, shared);
                } else if self.muddled
                    && let Some(first) = request.front_mut()
                {
                    all_of(&mut first.statement, self.parts.drain(..));
                }
            }
            Event::Returned(None) | Event::Other => {}
        }
    }

    /// A reply is complete: so is what asked for it.
    fn answered(&mut self, shared: &mut Shared) {
        let waiting = self.pending.pop_front().unwrap_or_default();
        let mut parts = std::mem::take(&mut self.parts);
        // others say only that more follows: as many ends as calls are one of each. The last has stood with the first so far
        let each = !std::mem::take(&mut self.muddled) && !parts.is_empty() && parts.len() + 1 == waiting.len();
        let mut waiting = waiting.into_iter().map(|waiting| waiting.statement).collect::<VecDeque<_>>();
        if each {
            if let Some(first) = waiting.front_mut() {
                let last = Part {
                    rows: std::mem::take(&mut first.rows),
                    bytes: std::mem::take(&mut first.bytes),
                    outcome: std::mem::replace(&mut first.outcome, Outcome::Done),
                };
                parts.push(last);
            }
            for (statement, part) in waiting.iter_mut().zip(parts) {
                all_of(statement, std::iter::once(part));
            }
        } else if let Some(first) = waiting.front_mut() {
            all_of(first, parts.into_iter());
        }
        // an error of one call does not keep the next from running: what has no end of its own is not known
        for (at, mut statement) in waiting.into_iter().enumerate() {
            if at > 0 && !each && statement.outcome == Outcome::Done {
                statement.outcome = unknown();
            }
            shared.waiting -= 1;
            finish(statement, shared);
        }
    }

    fn end(&mut self, shared: &mut Shared) {
        let mut first = true;
        if let Some(first) = self.pending.front_mut().and_then(VecDeque::front_mut) {
            all_of(&mut first.statement, self.parts.drain(..));
        }
        for Waiting { mut statement, .. } in self.pending.drain(..).flatten() {
            statement.outcome = match std::mem::take(&mut first) {
                true => Outcome::Failed { code: String::new(), message: "the session ended before its result".to_owned() },
                false => unknown(),
            };
            shared.waiting -= 1;
            finish(statement, shared);
        }
    }

    /// The bytes that tell the client why, if they may stand here. None: more has to pass first. Empty: they never may.
    ///
    /// Between two messages it is a reply of its own. Inside a message it is put where a token ends: what is left of the packet
    /// that was announced is filled with it, and one more packet ends the message.
    fn words(&self, reason: &Reason) -> Option<Vec<u8>> {
        if self.reply.at_message_boundary() {
            return Some(reason.reply());
        }
        if self.reply.is_broken() || self.tokens.is_lost() {
            return Some(Vec::new());
        }
        if !self.tokens.at_boundary() {
            return None;
        }
        let mut tokens = reason.error();
        let Some((header, room)) = self.reply.passing() else {
            return self.reply.at_packet_boundary().then(|| {
                let mut out = Vec::new();
                packet::put(&mut out, kind::REPLY, 0, &[tokens, Reason::done()].concat(), 4_096);
                out
            });
        };
        // the message ends with this packet anyway, and then there is a place
        if header.is_last() {
            return None;
        }
        if tokens.len() < room {
            let missing = room - tokens.len();
            put_filler(&mut tokens, missing);
        }
        tokens.extend(Reason::done());
        let (here, after) = tokens.split_at(room);
        let mut out = here.to_vec();
        packet::put(&mut out, kind::REPLY, header.spid, after, 4_096);
        Some(out)
    }
}

fn unknown() -> Outcome {
    Outcome::Failed { code: String::new(), message: "its outcome is not known: its end was not seen".to_owned() }
}

fn finish(mut statement: Statement, shared: &mut Shared) {
    statement.ended = shared.now;
    shared.finished.push(statement);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tds::token::{put_done, put_message};

    fn batch(text: &str) -> Vec<u8> {
        let mut payload = vec![22, 0, 0, 0, 18, 0, 0, 0, 2, 0];
        payload.extend([0; 8]);
        payload.extend([1, 0, 0, 0]);
        packet::put_utf16(&mut payload, text);
        let mut out = Vec::new();
        packet::put(&mut out, kind::BATCH, 0, &payload, 512);
        out
    }

    /// One column `int`, `rows` rows.
    fn result(rows: u32) -> Vec<u8> {
        let mut tokens = vec![token_type::COLUMNS, 1, 0, 0, 0, 0, 0, 0, 0, 0x26, 4, 1, b'n', 0];
        for n in 0..rows {
            tokens.extend([token_type::ROW, 4]);
            tokens.extend(n.to_le_bytes());
        }
        put_done(&mut tokens, token_type::DONE, done::COUNT, done::SELECT, rows.into());
        tokens
    }

    fn reply(tokens: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        packet::put(&mut out, kind::REPLY, 51, tokens, size);
        out
    }

    #[test]
    fn a_batch_has_its_text_rows_bytes_and_time() {
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&batch(&format!("SELECT n FROM t -- {}", "x".repeat(1_000))), 10);
        assert!(seen.is_busy());
        let done: Vec<_> = seen.server(&reply(&result(200), 512), 25).collect();
        assert_eq!(done.len(), 1);
        assert!(done[0].text.starts_with("SELECT n FROM t -- xxx") && done[0].text.len() == 1_019);
        assert_eq!((done[0].rows, done[0].bytes, done[0].began, done[0].ended, &done[0].outcome), (200, 1_000, 10, 25, &Outcome::Done));
        assert!(!seen.is_busy());
    }

    #[test]
    fn an_error_and_a_cancel_are_recorded() {
        let mut seen = Observer::new(false, Agreed::default());
        let mut tokens = Vec::new();
        put_message(&mut tokens, 208, 1, 16, "Invalid object name 'x'.", "s");
        put_done(&mut tokens, token_type::DONE, done::ERROR, 0, 0);
        seen.client(&batch("SELECT * FROM x"), 1);
        let failed = seen.server(&reply(&tokens, 4_096), 2).next().unwrap();
        assert_eq!(failed.outcome, Outcome::Failed { code: "208".into(), message: "Invalid object name 'x'.".into() });
        seen.client(&batch("WAITFOR DELAY '1:00'"), 3);
        let mut attention = Vec::new();
        packet::put(&mut attention, kind::ATTENTION, 0, &[], 4_096);
        seen.client(&attention, 4);
        let mut tokens = Vec::new();
        put_done(&mut tokens, token_type::DONE, done::ATTENTION, 0, 0);
        let cancelled = seen.server(&reply(&tokens, 4_096), 5).next().unwrap();
        assert!(matches!(cancelled.outcome, Outcome::Failed { message, .. } if message == "cancelled by the client"));
        // or the acknowledgement comes behind the end of what was given up
        seen.client(&batch("WAITFOR DELAY '1:00'"), 6);
        seen.client(&attention, 7);
        let mut ended = Vec::new();
        put_done(&mut ended, token_type::DONE, done::ERROR, 0, 0);
        let cancelled: Vec<_> = seen.server(&[reply(&ended, 4_096), reply(&tokens, 4_096)].concat(), 8).collect();
        assert!(matches!(&cancelled[..], [Statement { outcome: Outcome::Failed { message, .. }, .. }] if message == "cancelled by the client"));
    }

    #[test]
    fn a_prepared_handle_keeps_its_text() {
        let mut seen = Observer::new(false, Agreed::default());
        let nvarchar = |text: &str| {
            let mut out = vec![0, 0, 0xe7, 0x40, 0x1f, 9, 4, 0xd0, 0, 0x34];
            out.extend((2 * text.len() as u16).to_le_bytes());
            packet::put_utf16(&mut out, text);
            out
        };
        let int = |value: i32| [&[0, 0, 0x26, 4, 4][..], &value.to_le_bytes()].concat();
        let rpc = |number: u8, parameters: &[Vec<u8>]| {
            let mut out = Vec::new();
            packet::put(&mut out, kind::RPC, 0, &[&[4, 0, 0, 0, 0xff, 0xff, number, 0, 0, 0][..], &parameters.concat()].concat(), 4_096);
            out
        };
        seen.client(&rpc(13, &[int(0), nvarchar("@p int"), nvarchar("SELECT @p"), int(1)]), 1);
        let mut tokens = vec![token_type::RETURN_VALUE, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x26, 4, 4, 9, 0, 0, 0];
        put_done(&mut tokens, token_type::DONE_PROC, 0, 0xe0, 0);
        assert_eq!(&*seen.server(&reply(&tokens, 4_096), 2).next().unwrap().text, "SELECT @p");
        seen.client(&rpc(12, &[int(9), int(7)]), 3);
        let again = seen.server(&reply(&result(1), 4_096), 4).next().unwrap();
        assert_eq!((&*again.text, again.values, again.rows), ("SELECT @p", vec!["7".to_owned()], 1));
    }

    #[test]
    fn the_reason_reaches_the_client_wherever_a_result_is_cut() {
        let whole = reply(&result(400), 512);
        for cut in 0..whole.len() {
            let mut seen = Observer::new(false, Agreed::default());
            seen.client(&batch("SELECT n FROM t"), 1);
            let _ = seen.server(&whole[..cut], 2).count();
            let mut sent = whole[..cut].to_vec();
            let mut next: &[u8] = &[];
            let mut rest = &whole[cut..];
            loop {
                match seen.last_words(next, "your access to uat has expired", "Ask again.", 3) {
                    LastWords::More(passing) => {
                        sent.extend(passing);
                        let (chunk, more) = rest.split_at(rest.len().min(7));
                        assert!(!chunk.is_empty(), "cut at {cut}: the words found no place");
                        (next, rest) = (chunk, more);
                    }
                    LastWords::Last(passing) => {
                        sent.extend(passing);
                        break;
                    }
                }
            }
            // a client reads whole packets of one reply after the other, and the last thing in them is our error
            let (mut packets, mut tokens, mut events) = (Packets::default(), Tokens::default(), Vec::new());
            let mut bytes = sent.as_slice();
            while let Some(piece) = packets.next(&mut bytes) {
                match piece {
                    Piece::Payload(mut payload) => {
                        while let Some(event) = tokens.next(&mut payload) {
                            events.push(event);
                        }
                    }
                    Piece::End(header) if header.is_last() => assert_eq!(tokens.end_of_message(), None, "cut at {cut}: a token was torn"),
                    _ => {}
                }
            }
            assert!(packets.at_message_boundary(), "cut at {cut}: a packet was torn");
            let error = events.iter().rev().find(|event| matches!(event, Event::Error { .. }));
            assert!(matches!(error, Some(Event::Error { number: number::ENDED, text }) if text.contains("has expired")), "cut at {cut}: {error:?}");
            assert!(matches!(events.last(), Some(Event::Done { status: done::ERROR, .. })), "cut at {cut}");
        }
    }

    #[test]
    fn sessions_inside_one_connection_are_followed_apart() {
        let mut seen = Observer::new(true, Agreed::default());
        let framed = |session, sequence, payload: &[u8]| {
            let mut out = Vec::new();
            Frame { flags: flag::DATA, session, payload: 0, sequence, window: 4 }.put(&mut out, payload);
            out
        };
        seen.client(&[framed(0, 1, &batch("SELECT 1")), framed(1, 1, &batch("SELECT 2"))].concat(), 1);
        let first: Vec<_> = seen.server(&framed(1, 1, &reply(&result(2), 4_096)), 2).map(|s| s.text.to_string()).collect();
        assert_eq!(first, ["SELECT 2"]);
        assert!(seen.is_busy());
        let LastWords::Last(words) = seen.last_words(&[], "time is over", "Ask again.", 3) else { panic!("there is a place") };
        assert_eq!(Frame::read(words[..16].try_into().unwrap()).map(|f| (f.session, f.sequence)), Some((0, 1)), "to the session that waits");
        assert_eq!(seen.give_up().len(), 16 + 8);
        assert_eq!(seen.end(4).len(), 1);
    }

    fn rpc(calls: &[(&str, &[Vec<u8>])]) -> Vec<u8> {
        let calls = calls.iter().map(|(name, parameters)| {
            let mut one = (name.len() as u16).to_le_bytes().to_vec();
            packet::put_utf16(&mut one, name);
            one.extend([0, 0]);
            one.extend(parameters.concat());
            one
        });
        let message = [vec![4, 0, 0, 0], calls.collect::<Vec<_>>().join(&0xff)].concat();
        let mut out = Vec::new();
        packet::put(&mut out, kind::RPC, 0, &message, 4_096);
        out
    }

    fn text(value: &str) -> Vec<u8> {
        let mut out = vec![0, 0, 0xe7, 0x40, 0x1f, 9, 4, 0xd0, 0, 0x34];
        out.extend((2 * value.len() as u16).to_le_bytes());
        packet::put_utf16(&mut out, value);
        out
    }

    fn int(value: i32) -> Vec<u8> {
        [&[0, 0, 0x26, 4, 4][..], &value.to_le_bytes()].concat()
    }

    /// What is on record of one request, with an empty reply.
    fn recorded(request: &[u8]) -> Vec<String> {
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(request, 1);
        let mut tokens = Vec::new();
        put_done(&mut tokens, token_type::DONE, 0, 0, 0);
        seen.server(&reply(&tokens, 4_096), 2).map(|s| s.text.to_string()).collect()
    }

    #[test]
    fn nothing_that_runs_is_missing_from_the_record() {
        let hidden = text("DELETE FROM t");
        // behind a value that is longer than is kept
        let long = [
            vec![0, 0, 0xe7, 0xff, 0xff, 9, 4, 0xd0, 0, 0x34],
            200_000_u64.to_le_bytes().to_vec(),
            200_000_u32.to_le_bytes().to_vec(),
            vec![b'x'; 200_000],
            vec![0; 4],
        ]
        .concat();
        let behind = |parameter| recorded(&rpc(&[("sp_executesql", &[text("SELECT 1"), parameter]), ("sp_executesql", std::slice::from_ref(&hidden))]));
        assert_eq!(behind(long), ["SELECT 1", "DELETE FROM t"]);
        // behind one whose type is not known, and behind a table that is none
        for parameter in [vec![0, 0, 0xf9, 0, 0, 0], vec![0, 0, 0xf3, 0, 0, 0]] {
            let found = behind(parameter);
            assert!(found.last().unwrap().starts_with("(further calls may follow in "), "{found:?}");
        }
        // a name of 128 characters is no mark between calls
        let named = [vec![0x80], [b'a', 0].repeat(128), vec![0, 0x26, 4, 4, 1, 0, 0, 0]].concat();
        let found = recorded(&rpc(&[("p", &[named]), ("sp_executesql", std::slice::from_ref(&hidden))]));
        assert_eq!(found, ["EXEC p", "DELETE FROM t"]);
        // a procedure by another spelling, or one of somebody's own, keeps the whole text
        let long = format!("{} DELETE FROM t", "/**/".repeat(500));
        assert_eq!(recorded(&rpc(&[("\"sys\".\"sp_executesql\";1", &[text(&long)])])), std::slice::from_ref(&long));
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&rpc(&[("dbo.run_it", &[text(&long)])]), 1);
        assert!(seen.end(2)[0].values[0].ends_with("DELETE FROM t"));
        // the kind of the first packet counts, and a message that was given up is on record
        let mut mixed = Vec::new();
        let whole = batch("DELETE FROM t");
        packet::put_packet(&mut mixed, kind::BATCH, 0, 0, 1, &whole[8..20]);
        packet::put_packet(&mut mixed, kind::ATTENTION, packet::EOM | packet::IGNORE, 0, 2, &whole[20..]);
        assert_eq!(recorded(&mixed), ["DELETE FROM t"]);
    }

    #[test]
    fn bulk_loads_and_cursors_are_on_record() {
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&batch("INSERT BULK dbo.t (a int)"), 1);
        let mut tokens = Vec::new();
        put_done(&mut tokens, token_type::DONE, 0, 0, 0);
        assert_eq!(seen.server(&reply(&tokens, 4_096), 2).count(), 1);
        let mut rows = Vec::new();
        packet::put(&mut rows, kind::BULK, 0, &[7; 10_000], 4_096);
        seen.client(&rows, 3);
        tokens.clear();
        put_done(&mut tokens, token_type::DONE, done::COUNT, 0xf0, 400);
        let load = seen.server(&reply(&tokens, 4_096), 4).next().unwrap();
        assert_eq!((&*load.text, load.rows, load.bytes), ("(bulk load)", 400, 10_000));
        assert_eq!(recorded(&rpc(&[("sp_cursoropen", &[int(0), text("SELECT a FROM t"), int(1)])])), ["SELECT a FROM t"]);
        assert_eq!(recorded(&rpc(&[("sp_cursorprepexec", &[int(0), int(0), text("@p int"), text("SELECT b FROM t")])])), ["SELECT b FROM t"]);
        // and with what they are run, behind the options
        let options = [int(1), int(1), int(20)];
        let values = |name: &str, before: &[Vec<u8>]| {
            let parameters: Vec<Vec<u8>> = before.iter().chain(&options).cloned().chain([text("@p int"), int(7)]).collect();
            let mut seen = Observer::new(false, Agreed::default());
            seen.client(&rpc(&[(name, &parameters)]), 1);
            let mut tokens = Vec::new();
            put_done(&mut tokens, token_type::DONE_PROC, 0, 0xe0, 0);
            seen.server(&reply(&tokens, 4_096), 2).next().unwrap().values
        };
        assert_eq!(values("sp_cursoropen", &[int(0), text("SELECT a FROM t WHERE p = @p")]), ["@p int", "7"]);
        assert_eq!(values("sp_cursorexecute", &[int(3), int(0)]), ["@p int", "7"]);
        assert_eq!(values("sp_cursorprepexec", &[int(0), int(0), text("@p int"), text("SELECT b FROM t WHERE p = @p")]), ["@p int", "7"]);
        let call = rpc(&[("sp_prepexecrpc", &[int(0), text("EXEC pay @p"), int(7)])]);
        assert_eq!(recorded(&call), ["EXEC pay @p"]);
    }

    /// A result of one nullable int column, with or without its description.
    fn ints(described: bool, rows: usize) -> Vec<u8> {
        let mut tokens = vec![token_type::COLUMNS];
        if described {
            tokens.extend([1, 0, 0, 0, 0, 0, 9, 0, 0x26, 4, 1, b'n', 0]);
        } else {
            tokens.extend([0xff, 0xff]);
        }
        for n in 0..rows {
            tokens.extend([token_type::ROW, 4]);
            tokens.extend((n as u32).to_le_bytes());
        }
        put_done(&mut tokens, token_type::DONE_IN_PROC, done::MORE | done::COUNT, done::SELECT, rows as u64);
        tokens
    }

    fn returned(tokens: &mut Vec<u8>, number: i32) {
        tokens.extend([token_type::RETURN_VALUE, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x26, 4, 4]);
        tokens.extend(number.to_le_bytes());
    }

    #[test]
    fn rows_of_a_cursor_are_counted_when_their_columns_are_not_told_again() {
        let mut seen = Observer::new(false, Agreed::default());
        let answer =
            |seen: &mut Observer, tokens: &[u8]| seen.server(&reply(tokens, 4_096), 2).map(|s| (s.text.to_string(), s.rows, s.bytes)).collect::<Vec<_>>();
        seen.client(&rpc(&[("sp_cursoropen", &[int(0), text("SELECT n FROM t"), int(1)])]), 1);
        let mut open = ints(true, 0);
        returned(&mut open, 180_150_003);
        put_done(&mut open, token_type::DONE_PROC, 0, 0xe0, 0);
        assert_eq!(answer(&mut seen, &open), [("SELECT n FROM t".to_owned(), 0, 0)]);
        for _ in 0..2 {
            seen.client(&rpc(&[("sp_cursorfetch", &[int(180_150_003), int(2)])]), 3);
            let mut fetch = ints(false, 128);
            put_done(&mut fetch, token_type::DONE_PROC, 0, 0xe0, 0);
            assert_eq!(answer(&mut seen, &fetch), [("EXEC sp_cursorfetch 180150003".to_owned(), 128, 6 * 128 + 26)]);
        }
        // and of what is prepared, by the handle that the reply gave
        seen.client(&rpc(&[("sp_prepexec", &[int(0), text(""), text("SELECT n FROM u")])]), 4);
        let mut made = ints(true, 1);
        returned(&mut made, 9);
        put_done(&mut made, token_type::DONE_PROC, 0, 0xe0, 0);
        assert_eq!(answer(&mut seen, &made)[0].1, 1);
        seen.client(&rpc(&[("sp_execute", &[int(9)])]), 5);
        let mut again = ints(false, 3);
        put_done(&mut again, token_type::DONE_PROC, 0, 0xe0, 0);
        assert_eq!(answer(&mut seen, &again), [("SELECT n FROM u".to_owned(), 3, 6 * 3 + 26)]);
        // of a cursor that nobody has seen, bytes are counted, and the record says so
        seen.client(&rpc(&[("sp_cursorfetch", &[int(7), int(2)])]), 6);
        let mut fetch = ints(false, 100);
        put_done(&mut fetch, token_type::DONE_PROC, 0, 0xe0, 0);
        let statement = seen.server(&reply(&fetch, 4_096), 7).next().unwrap();
        assert!(statement.bytes >= 500 && statement.tag.starts_with("its result could not be read"), "{statement:?}");
    }

    #[test]
    fn reads_of_sensitive_columns_are_counted_and_can_be_cut_with_words() {
        for version in [1, 2] {
            let name = |out: &mut Vec<u8>, text: &str| {
                out.push(text.len() as u8);
                packet::put_utf16(out, text);
            };
            let mut tokens = vec![token_type::COLUMNS, 1, 0, 0, 0, 0, 0, 9, 0, 0x26, 4, 1, b'n', 0];
            tokens.extend([token_type::DATA_CLASSIFICATION, 1, 0]);
            name(&mut tokens, "Confidential");
            name(&mut tokens, "331f0b13");
            tokens.extend([1, 0]);
            name(&mut tokens, "National ID");
            name(&mut tokens, "6f5a11a7");
            let rank: &[u8] = if version > 1 { &[20, 0, 0, 0] } else { &[] };
            tokens.extend(rank);
            tokens.extend([1, 0, 1, 0, 0, 0, 0, 0]);
            tokens.extend(rank);
            for n in 0..400_u32 {
                tokens.extend([token_type::ROW, 4]);
                tokens.extend(n.to_le_bytes());
            }
            put_done(&mut tokens, token_type::DONE, done::COUNT, done::SELECT, 400);
            let whole = reply(&tokens, 512);
            let new = || Observer::new(false, Agreed { classification: version, ..Agreed::default() });
            let mut seen = new();
            seen.client(&batch("SELECT ssn FROM people"), 1);
            let found = seen.server(&whole, 2).next().unwrap();
            assert_eq!((found.rows, found.bytes, found.outcome), (400, 2_000, Outcome::Done), "version {version}");
            let mut seen = new();
            seen.client(&batch("SELECT ssn FROM people"), 1);
            let _ = seen.server(&whole[..1_000], 2).count();
            let mut words = Vec::new();
            let mut rest = &whole[1_000..];
            let mut next: &[u8] = &[];
            loop {
                match seen.last_words(next, "your access to uat has expired", "Ask again.", 3) {
                    LastWords::More(passing) => words.extend(passing),
                    LastWords::Last(passing) => {
                        words.extend(passing);
                        break;
                    }
                }
                (next, rest) = rest.split_at(rest.len().min(7));
            }
            let said = packet::utf16(&words[words.iter().position(|byte| *byte == b'Y').unwrap()..]);
            assert!(said.contains("your access to uat has expired"), "version {version}: {said}");
        }
    }

    #[test]
    fn rows_with_encrypted_columns_are_counted() {
        let mut tokens = vec![token_type::COLUMNS, 2, 0];
        // one key, encrypted in one way
        tokens.extend([1, 0]);
        tokens.extend([0; 4 + 4 + 4 + 8]);
        tokens.extend([1, 3, 0, 1, 2, 3]);
        tokens.push(4);
        packet::put_utf16(&mut tokens, "AKV1");
        tokens.extend([2, 0]);
        packet::put_utf16(&mut tokens, "kp");
        tokens.push(8);
        packet::put_utf16(&mut tokens, "RSA_OAEP");
        // a plain int, then a varbinary that is an int when it is decrypted
        tokens.extend([0, 0, 0, 0, 9, 0, 0x26, 4, 1, b'n', 0]);
        tokens.extend([0, 0, 0, 0, 9, 8, 0xa5, 0x40, 0x1f]);
        tokens.extend([0, 0, 0, 0, 0, 0, 0x26, 4, 2, 1, 1]);
        tokens.extend([1, b's', 0]);
        for n in 0..5_u32 {
            tokens.extend([token_type::ROW, 4]);
            tokens.extend(n.to_le_bytes());
            tokens.extend([3, 0, 0xca, 0xfe, 0x01]);
        }
        put_done(&mut tokens, token_type::DONE, done::COUNT, done::SELECT, 5);
        let mut seen = Observer::new(false, Agreed { column_encryption: true, ..Agreed::default() });
        seen.client(&batch("SELECT n, s FROM people"), 1);
        let found = seen.server(&reply(&tokens, 4_096), 2).next().unwrap();
        assert_eq!((found.rows, found.bytes, found.tag.as_str()), (5, 50, ""));
    }

    #[test]
    fn each_of_several_calls_has_its_own_rows_however_its_end_is_marked() {
        let call = ("sp_executesql", &[text("SELECT n FROM t")][..]);
        for mark in [done::MORE | done::RPC_IN_BATCH, done::MORE] {
            let mut seen = Observer::new(false, Agreed::default());
            seen.client(&rpc(&[call; 3]), 1);
            let mut tokens = Vec::new();
            for (n, rows) in [4, 0, 2].into_iter().enumerate() {
                tokens.extend(ints(true, rows));
                if n == 1 {
                    put_message(&mut tokens, 547, 1, 16, "The INSERT statement conflicted.", "s");
                }
                put_done(&mut tokens, token_type::DONE_PROC, if n < 2 { mark } else { 0 }, 0xe0, 0);
            }
            let found: Vec<_> = seen.server(&reply(&tokens, 4_096), 2).map(|s| (s.rows, s.bytes, s.outcome == Outcome::Done)).collect();
            assert_eq!(found, [(4, 20, true), (0, 0, false), (2, 10, true)], "{mark:#x}");
        }
        // a procedure that calls procedures: all of it is the first call's, where the server says which end is one of several
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&rpc(&[call; 2]), 1);
        let mut tokens = Vec::new();
        for (rows, mark) in [(1, done::MORE), (2, done::MORE | done::RPC_IN_BATCH), (5, 0)] {
            tokens.extend(ints(true, rows));
            put_done(&mut tokens, token_type::DONE_PROC, mark, 0xe0, 0);
        }
        let found: Vec<_> = seen.server(&reply(&tokens, 4_096), 2).map(|s| s.rows).collect();
        assert_eq!(found, [3, 5]);
        // where none says so, and there are more ends than calls, all of it is the first one's: and nothing grows
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&rpc(&[call; 2]), 1);
        let mut tokens = Vec::new();
        for n in 0..10_000 {
            tokens.extend(ints(true, 1));
            put_done(&mut tokens, token_type::DONE_PROC, if n < 9_999 { done::MORE } else { 0 }, 0xe0, 0);
        }
        let whole = reply(&tokens, 4_096);
        let (before, last) = whole.split_at(whole.len() - 20);
        let mut found: Vec<_> = seen.server(before, 2).map(|s| s.rows).collect();
        assert!(found.is_empty() && seen.sessions[&0].parts.len() < 2);
        found.extend(seen.server(last, 2).map(|s| s.rows));
        assert_eq!(found, [10_000, 0]);
    }

    #[test]
    fn a_short_answer_that_cannot_be_read_is_no_success() {
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&batch("SELECT odd FROM t"), 1);
        // a column of a type that nobody knows; what follows is an error
        let mut tokens = vec![token_type::COLUMNS, 1, 0, 0, 0, 0, 0, 9, 0, 0xf9];
        put_message(&mut tokens, 245, 1, 16, "Conversion failed.", "db7");
        put_done(&mut tokens, token_type::DONE, done::ERROR, 0xc1, 0);
        let statement = seen.server(&reply(&tokens, 4_096), 2).next().unwrap();
        assert!(matches!(&statement.outcome, Outcome::Failed { .. }), "{:?}", statement.outcome);
    }

    #[test]
    fn a_reset_connection_forgets_its_handles_and_says_so() {
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&rpc(&[("sp_prepexec", &[int(0), text(""), text("SELECT secret")])]), 1);
        let mut tokens = vec![token_type::RETURN_VALUE, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x26, 4, 4, 9, 0, 0, 0];
        put_done(&mut tokens, token_type::DONE_PROC, 0, 0xe0, 0);
        assert_eq!(seen.server(&reply(&tokens, 4_096), 2).count(), 1);
        let mut again = rpc(&[("sp_execute", &[int(9)])]);
        again[1] |= 0x08;
        seen.client(&again, 3);
        let after = seen.end(4);
        assert_eq!((&*after[0].text, after[0].tag.as_str()), ("EXEC sp_execute 9", "after a reset of the connection"));
    }

    #[test]
    fn what_a_client_makes_the_server_say_does_not_change_the_record() {
        // rows without a description are not taken for tokens: no error is forged, and the end is seen
        let mut seen = Observer::new(false, Agreed::default());
        seen.client(&batch("SELECT x"), 1);
        let mut tokens = vec![token_type::COLUMNS, 0xff, 0xff, token_type::ROW];
        put_message(&mut tokens, 50_000, 1, 16, "forged", "s");
        put_done(&mut tokens, token_type::DONE, done::COUNT, done::SELECT, u64::MAX);
        let found = seen.server(&reply(&tokens, 4_096), 2).next().unwrap();
        assert_eq!(found.outcome, Outcome::Done);
        // many calls sent ahead do not fill the memory
        let mut seen = Observer::new(false, Agreed::default());
        let calls: Vec<(&str, &[Vec<u8>])> = vec![("p", &[]); 1_000];
        for _ in 0..100 {
            seen.client(&rpc(&calls), 1);
        }
        assert!(seen.end(2).len() <= limits::PIPELINED + 200);
    }

    #[test]
    fn a_transaction_that_others_could_commit_behind_the_end_is_not_let_through() {
        let request = |kind: u16| {
            let mut message = Vec::new();
            let headers = [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
            packet::put(&mut message, kind::TRANSACTION, 0, &[&headers[..], &kind.to_le_bytes(), &[0, 0]].concat(), 4_096);
            message
        };
        for (asked, outlives) in [(0, true), (1, true), (5, false), (6, true), (7, false), (8, false), (9, false)] {
            let mut seen = Observer::new(false, Agreed::default());
            seen.client(&request(asked), 1);
            assert_eq!(seen.refused().is_some(), outlives, "{asked}");
        }
        // in pieces as well: what makes the request whole is what does not pass
        let mut seen = Observer::new(false, Agreed::default());
        let whole = request(6);
        let (last, before) = whole.split_last().unwrap();
        seen.client(before, 1);
        assert!(seen.refused().is_none());
        seen.client(&[*last], 1);
        assert!(seen.refused().is_some_and(|why| why.contains("distributed")));
    }

    #[test]
    fn memory_stays_bounded_whatever_is_sent() {
        assert!(size_of::<Conversation>() <= 512, "{} bytes of each session that asks nothing", size_of::<Conversation>());
        let mut seen = Observer::new(false, Agreed::default());
        let mut endless = Vec::new();
        packet::put_packet(&mut endless, kind::BATCH, 0, 0, 1, &[b'x'; 4_000]);
        for _ in 0..1_000 {
            seen.client(&endless, 1);
        }
        assert!(seen.held() <= KEPT);
        let mut seen = Observer::new(true, Agreed::default());
        for session in 0..3_000 {
            let mut framed = Vec::new();
            Frame { flags: flag::DATA, session, payload: 0, sequence: 1, window: 4 }.put(&mut framed, &endless);
            (0..40).for_each(|_| seen.client(&framed, 1));
        }
        assert!(seen.held() <= KEPT_IN_ALL + limits::TDS_MARS_SESSIONS * KEPT_AT_LEAST && seen.sessions.len() <= limits::TDS_MARS_SESSIONS);
        assert!(seen.refused().is_some(), "what is not followed is not let go on");
    }
}
