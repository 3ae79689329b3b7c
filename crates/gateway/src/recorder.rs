//! From statements to blocks of records. A block goes out when it is big or old; a full queue makes the session wait.

use daypass_core::{ids::SessionId, session::*, time::Time};
use daypass_wire::observe::{Outcome, Statement};
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// A block of this size goes out. With pgbench's statements that is about 400.
const BLOCK: usize = 64 * 1024;
/// A text of more bytes is written once, and named where it is run again: a few bytes of the protocol run a long text, and would write it each time.
const LONG: usize = 512;
/// How much of it stands where it is named.
const SHOWN: usize = 128;
/// Long texts of a session that are remembered, by their digest.
const TEXTS: usize = 1_024;
/// Bytes of those that are held.
const HELD: usize = 1024 * 1024;

pub struct Recorder {
    session: SessionId,
    lines: Vec<u8>,
    count: u32,
    total: u64,
    digest: [u8; 32],
    /// Blocks that are complete.
    blocks: VecDeque<StatementBlock>,
    /// Under which number a long text was written.
    texts: HashMap<[u8; 32], u64>,
    /// The same for texts that are still the same piece of memory, as prepared statements are: not digested again at each run.
    known: HashMap<usize, (Arc<str>, u64)>,
    held: usize,
    /// The policy may ask for no record of statements.
    keep: bool,
}

impl Recorder {
    pub fn new(session: SessionId, keep: bool) -> Self {
        Recorder {
            session,
            lines: Vec::new(),
            count: 0,
            total: 0,
            digest: [0; 32],
            blocks: VecDeque::new(),
            texts: HashMap::new(),
            known: HashMap::new(),
            held: 0,
            keep,
        }
    }

    pub fn add(&mut self, statement: Statement) {
        if !self.keep {
            return;
        }
        let Statement { text, text_bytes, values, tag, rows, bytes, began, ended, outcome } = statement;
        let whole = text_bytes.max(text.len());
        let (text, kept) = (self.once(text, whole), whole);
        let record = StatementRecord {
            at: Time::from_micros(began as i64),
            micros: ended.saturating_sub(began),
            text_bytes: text.1.then_some(kept as u64),
            text: text.0,
            values,
            tag,
            rows,
            bytes,
            error: match outcome {
                Outcome::Done => None,
                Outcome::Failed { code, message } => Some(format!("{code} {message}").trim().to_owned()),
                Outcome::NotRun => Some("not run: an earlier statement of its batch failed".to_owned()),
            },
        };
        // writing into memory cannot fail, and all keys are texts
        let _ = serde_json::to_writer(&mut self.lines, &record);
        self.lines.push(b'\n');
        self.count += 1;
        if self.lines.len() >= BLOCK {
            let block = self.complete();
            self.blocks.extend(block);
        }
    }

    /// The text as it is written, and whether that is not the whole of it.
    fn once(&mut self, text: Arc<str>, whole: usize) -> (Arc<str>, bool) {
        let cut = whole > text.len();
        if text.len() <= LONG {
            return (text, cut);
        }
        let place = text.as_ptr() as usize;
        let known = self.known.get(&place).filter(|(known, _)| Arc::ptr_eq(known, &text)).map(|(_, number)| *number);
        let known = known.or_else(|| {
            // what was kept of a text tells nothing of the rest: only the very same one is the same
            if cut {
                self.remember(place, &text, self.total + u64::from(self.count));
                return None;
            }
            let mut digest = Sha256::new();
            digest.update(text.as_bytes());
            digest.update(whole.to_le_bytes());
            let digest = digest.finalize().into();
            let known = self.texts.get(&digest).copied();
            if self.texts.len() >= TEXTS {
                self.texts.clear();
            }
            let number = *self.texts.entry(digest).or_insert(self.total + u64::from(self.count));
            self.remember(place, &text, number);
            known
        });
        if let Some(number) = known {
            let shown = &text[..text.floor_char_boundary(SHOWN)];
            return (format!("{shown}… (the same {whole} bytes as statement {} of this session)", number + 1).into(), true);
        }
        // nobody is to take the part for the whole
        if cut { (format!("{text}… (cut here: {whole} bytes in all)").into(), true) } else { (text, false) }
    }

    fn remember(&mut self, place: usize, text: &Arc<str>, number: u64) {
        if self.held + text.len() > HELD {
            self.known.clear();
            self.held = 0;
        }
        self.held += text.len();
        self.known.insert(place, (text.clone(), number));
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.blocks.is_empty()
    }

    pub fn is_full(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// The next block of what has been collected, if anything.
    pub fn take(&mut self) -> Option<StatementBlock> {
        self.blocks.pop_front().or_else(|| self.complete())
    }

    fn complete(&mut self) -> Option<StatementBlock> {
        if self.count == 0 {
            return None;
        }
        let lines = std::mem::take(&mut self.lines);
        let mut digest = Sha256::new();
        digest.update(self.digest);
        digest.update(&lines);
        self.digest = digest.finalize().into();
        let block = StatementBlock { session: self.session, first: self.total, count: self.count, lines };
        self.total += u64::from(self.count);
        self.count = 0;
        Some(block)
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn digest(&self) -> String {
        daypass_core::secret::hex(&self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(recorder: &mut Recorder, text: &Arc<str>, whole: usize) {
        recorder.add(Statement::new(text.clone(), whole, Vec::new(), 0));
    }

    #[test]
    fn a_long_text_that_is_run_again_and_again_is_written_once() {
        let mut recorder = Recorder::new(SessionId::new(uuid::Uuid::nil()), true);
        let text: Arc<str> = format!("select 1 --{}", "z".repeat(60_000)).into();
        for _ in 0..20_000 {
            run(&mut recorder, &text, text.len());
        }
        let blocks: Vec<StatementBlock> = std::iter::from_fn(|| recorder.take()).collect();
        let bytes: usize = blocks.iter().map(|block| block.lines.len()).sum();
        assert!(bytes < 10_000_000, "{bytes}");
        assert!(blocks.iter().all(|block| block.lines.len() < 3 * BLOCK));
        assert_eq!(blocks.iter().map(|block| block.count).sum::<u32>(), 20_000);
        assert!(String::from_utf8_lossy(&blocks[1].lines).contains("the same 60011 bytes as statement 1 of this session"));
        assert_eq!(recorder.total(), 20_000);
    }

    #[test]
    fn a_part_of_a_text_is_never_taken_for_the_whole() {
        let mut recorder = Recorder::new(SessionId::new(uuid::Uuid::nil()), true);
        run(&mut recorder, &"x".repeat(1000).into(), 66_000);
        run(&mut recorder, &"select 1".into(), 8);
        let lines = String::from_utf8(recorder.take().unwrap().lines).unwrap();
        assert!(lines.contains("… (cut here: 66000 bytes in all)") && lines.contains("\"text_bytes\":66000"), "{lines}");
        assert_eq!(lines.matches("text_bytes").count(), 1, "a whole text needs no word");
        // nor another text that begins alike and is as long
        for _ in 0..2 {
            run(&mut recorder, &"x".repeat(1000).into(), 66_000);
        }
        let lines = String::from_utf8(recorder.take().unwrap().lines).unwrap();
        assert!(!lines.contains("the same"), "{lines}");
    }
}
