//! The hash chain of the log, and its proof. A line of an export is one JSON object:
//!
//! `{"seq":1,"at":"…","by":…,"event":…,"prev":"<64 hex>","hash":"<64 hex>"}`
//!
//! `hash` is SHA-256 over the line's bytes without `,"hash":"…"`, so anybody can check it with `sha256sum`; `prev` is the
//! hash of the line before (64 zeros for the first). The last line of an export, `{"head":{"seq":…,"hash":"…"}}`, says
//! where the log ended: lines missing at the end are noticed. Whoever wants to notice a forged end as well keeps a head
//! elsewhere and compares.

use crate::{
    event::Entry,
    ledger::Ledger,
    secret::{hex, unhex},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The hash of a line.
pub type Hash = [u8; 32];

/// The `prev` of the first line.
pub const START: Hash = [0; 32];

/// Where a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub seq: u64,
    pub hash: Hash,
}

impl Head {
    pub const EMPTY: Head = Head { seq: 0, hash: START };

    /// The closing line of an export.
    pub fn line(&self) -> String {
        format!(r#"{{"head":{{"seq":{},"hash":"{}"}}}}"#, self.seq, hex(&self.hash))
    }
}

impl std::str::FromStr for Head {
    type Err = String;
    /// `SEQ:HASH`, as `daypass log verify` and `daypass doctor` print it.
    fn from_str(text: &str) -> Result<Self, String> {
        let how = || "a head is written SEQ:HASH, as `daypass log verify` prints it".to_owned();
        let (seq, hash) = text.split_once(':').ok_or_else(how)?;
        Ok(Head { seq: seq.parse().map_err(|_| how())?, hash: unhex(hash).ok_or_else(how)? })
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, hex(&self.hash))
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    prev: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    at: crate::time::Time,
    by: crate::event::Actor,
    event: crate::event::Event,
    prev: String,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    head: HeadBody,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadBody {
    seq: u64,
    hash: String,
}

/// Writes an entry as the line that follows `prev`, and says its hash.
pub fn seal(entry: &Entry, prev: &Hash) -> (String, Hash) {
    let body = serde_json::to_string(&Body { entry, prev: &hex(prev) }).unwrap_or_else(|_| unreachable!("an entry has only string keys"));
    let hash: Hash = Sha256::digest(body.as_bytes()).into();
    let open = body.strip_suffix('}').unwrap_or(&body);
    (format!(r#"{open},"hash":"{}"}}"#, hex(&hash)), hash)
}

/// A line whose hash is that of its content, and the hash.
fn parse(line: &str) -> Result<(Line, Hash), String> {
    // `,"hash":"` + 64 + `"}` is 75 bytes; the check is over the very bytes, so that no second spelling of a line passes
    let cut = line.len().checked_sub(75).filter(|at| line.is_char_boundary(*at)).ok_or("it is too short to be an entry")?;
    let (body, tail) = line.split_at(cut);
    if !tail.starts_with(r#","hash":""#) {
        return Err("it does not end with its hash".to_owned());
    }
    let mut digest = Sha256::new();
    digest.update(body.as_bytes());
    digest.update(b"}");
    let hash: Hash = digest.finalize().into();
    let parsed: Line = serde_json::from_str(line).map_err(|e| format!("it cannot be read: {e}"))?;
    if parsed.hash != hex(&hash) {
        return Err("its content does not match its hash: it was edited".to_owned());
    }
    Ok((parsed, hash))
}

/// An entry by itself: its line is unaltered, but whether it follows from those before is not looked at.
pub fn read(line: &str) -> Result<Entry, String> {
    let (Line { seq, at, by, event, .. }, _) = parse(line)?;
    Ok(Entry { seq, at, by, event })
}

/// The entry of a line that follows `head`, and the head after it.
pub fn open(line: &str, head: &Head) -> Result<(Entry, Head), String> {
    let (parsed, hash) = parse(line)?;
    if parsed.seq != head.seq + 1 {
        let kind = if parsed.seq > head.seq + 1 { "lines before it are missing or out of order" } else { "it stands here a second time, or out of order" };
        return Err(format!("it has number {} where {} is due: {kind}", parsed.seq, head.seq + 1));
    }
    if parsed.prev != hex(&head.hash) {
        return Err("it does not follow from the line before: one of the two was put in or replaced".to_owned());
    }
    let Line { seq, at, by, event, .. } = parsed;
    Ok((Entry { seq, at, by, event }, Head { seq, hash }))
}

/// The first line of an export that is wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Broken {
    /// Counted from 1.
    pub line: usize,
    pub why: String,
}

/// Proves a whole export: every hash, every link, every step, and the end. Gives the ledger as of the end.
pub fn verify<'a>(lines: impl IntoIterator<Item = &'a str>, expected: Option<Head>) -> Result<(Ledger, Head), Broken> {
    let (mut ledger, mut head, mut closed, mut count) = (Ledger::default(), Head::EMPTY, false, 0);
    for (index, line) in lines.into_iter().enumerate() {
        let broken = |why: String| Broken { line: index + 1, why };
        count = index + 1;
        if closed {
            return Err(broken("it stands after the end of the log".to_owned()));
        }
        if let Ok(end) = serde_json::from_str::<HeadLine>(line) {
            if (end.head.seq, end.head.hash.as_str()) != (head.seq, hex(&head.hash).as_str()) {
                return Err(broken(format!("the log should end at number {}, but the lines end at {}: lines are missing", end.head.seq, head.seq)));
            }
            closed = true;
            continue;
        }
        let (entry, next) = open(line, &head).map_err(broken)?;
        ledger.apply(&entry).map_err(|e| broken(e.to_string()))?;
        head = next;
    }
    if !closed {
        return Err(Broken { line: count + 1, why: "the closing line is missing: the export was cut off".to_owned() });
    }
    match expected {
        Some(expected) if expected != head => {
            Err(Broken { line: count, why: format!("the log ends at {head}, not at the head {expected} that you kept: it was rewritten or cut") })
        }
        _ => Ok((ledger, head)),
    }
}
