//! From statements to blocks of records. A block goes out when it is big or old; a full queue makes the session wait.

use daypass_core::{ids::SessionId, session::*, time::Time};
use daypass_wire::observe::{Outcome, Statement};
use sha2::{Digest, Sha256};

/// A block of this size goes out. With pgbench's statements that is about 400.
const BLOCK: usize = 64 * 1024;

pub struct Recorder {
    session: SessionId,
    lines: Vec<u8>,
    count: u32,
    total: u64,
    digest: [u8; 32],
    /// The policy may ask for no record of statements.
    keep: bool,
}

impl Recorder {
    pub fn new(session: SessionId, keep: bool) -> Self {
        Recorder { session, lines: Vec::new(), count: 0, total: 0, digest: [0; 32], keep }
    }

    pub fn add(&mut self, statement: Statement) {
        if !self.keep {
            return;
        }
        let Statement { text, text_bytes, values, tag, rows, bytes, began, ended, outcome } = statement;
        let record = StatementRecord {
            at: Time::from_micros(began as i64),
            micros: ended.saturating_sub(began),
            text_bytes: (text_bytes > text.len()).then_some(text_bytes as u64),
            text,
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
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn is_full(&self) -> bool {
        self.lines.len() >= BLOCK
    }

    /// What has been collected, if anything.
    pub fn take(&mut self) -> Option<StatementBlock> {
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
