//! What all protocols have in common when a session is watched: what a statement is, and how a session may be ended.

use crate::limits;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    vec::Drain,
};

/// One statement that was run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// As far as it is recorded: see [`limits::STATEMENT_TEXT`].
    pub text: Arc<str>,
    /// Bytes (in TDS: UTF-16 units) of the whole text, when more than is recorded.
    pub text_bytes: usize,
    /// The bound values, as text where the type is known: binary as `\x…` or `0x…`.
    pub values: Vec<String>,
    /// The command tag where the protocol has one, like `SELECT 3`; of several in one simple query, the last.
    pub tag: String,
    /// Rows that went to the client, or were changed.
    pub rows: u64,
    /// Bytes of rows and of bulk data, both ways.
    pub bytes: u64,
    /// Microseconds on the caller's clock.
    pub began: u64,
    pub ended: u64,
    pub outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    Failed {
        /// SQLSTATE or error number.
        code: String,
        message: String,
    },
    /// Never run: an earlier one of the same batch failed, or the session ended first.
    NotRun,
}

impl Statement {
    pub fn new(text: Arc<str>, text_bytes: usize, values: Vec<String>, now: u64) -> Self {
        Statement { text, text_bytes, values, tag: String::new(), rows: 0, bytes: 0, began: now, ended: now, outcome: Outcome::Done }
    }
}

/// Follows both directions of one session, in chunks of any size. It never holds a byte back and never changes one; what it
/// cannot follow, it records as such.
pub trait Observe {
    /// Bytes from the client pass. `now` is in microseconds.
    fn client(&mut self, bytes: &[u8], now: u64);
    /// Bytes from the server pass; statements that end with them come out.
    fn server(&mut self, bytes: &[u8], now: u64) -> Drain<'_, Statement>;
    /// The session is over: what was on its way comes out as it stands.
    fn end(&mut self, now: u64) -> Vec<Statement>;
    /// Whether the client has said that it goes: then the server closes first, and it is not the server that ended the session.
    fn has_left(&self) -> bool {
        false
    }
    /// Whether a statement is under way.
    fn is_busy(&self) -> bool;
    /// Why the session has to end for what the client sends, if so: nothing of it may pass. It cannot be followed, and would go unrecorded;
    /// or it would outlive the session.
    fn refused(&self) -> Option<&'static str> {
        None
    }
    /// What makes the server give up all that is under way, on the connection itself; nothing where the protocol has another way.
    fn give_up(&self) -> Vec<u8> {
        Vec::new()
    }
    /// Words for the client while the session goes on; none where the protocol has no place for them, or not right now.
    fn aside(&self, words: &str) -> Option<Vec<u8>> {
        let _ = words;
        None
    }
    /// The session has to end, and its client should hear why. Asked first with nothing, then with what the server sends
    /// next, until it answers [`LastWords::Last`]. `remedy` is what the client can do.
    fn last_words(&mut self, next: &[u8], why: &str, remedy: &str, now: u64) -> LastWords;
}

/// What still goes to a client whose session ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LastWords {
    /// These bytes; more of the server's are needed before a message of ours may stand there.
    More(Vec<u8>),
    /// These bytes, and nothing after them.
    Last(Vec<u8>),
}

/// Prepared statements by name or handle. The oldest go first when there are too many.
#[derive(Default)]
pub struct Prepared {
    texts: HashMap<Vec<u8>, (Arc<str>, usize)>,
    order: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Prepared {
    pub fn get(&self, name: &[u8]) -> Option<(Arc<str>, usize)> {
        self.texts.get(name).cloned()
    }

    pub fn insert(&mut self, name: &[u8], text: Arc<str>, whole: usize) {
        self.remove(name);
        self.bytes += text.len();
        self.texts.insert(name.to_vec(), (text, whole));
        self.order.push_back(name.to_vec());
        while self.order.len() > limits::PREPARED || self.bytes > limits::PREPARED_BYTES {
            let Some(oldest) = self.order.front().cloned() else { break };
            self.remove(&oldest);
        }
    }

    pub fn remove(&mut self, name: &[u8]) {
        if let Some((text, _)) = self.texts.remove(name) {
            self.bytes -= text.len();
            self.order.retain(|other| other != name);
        }
    }

    /// All of another, which has none then.
    pub fn take_in(&mut self, other: &mut Prepared) {
        let Prepared { texts, order, .. } = std::mem::take(other);
        let mut texts = texts;
        for name in order {
            if let Some((text, whole)) = texts.remove(&name) {
                self.insert(&name, text, whole);
            }
        }
    }

    /// Bytes of text that are held.
    pub fn held(&self) -> usize {
        self.bytes
    }
}
