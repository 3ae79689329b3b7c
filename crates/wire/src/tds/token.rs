//! What a server says: a stream of tokens ([MS-TDS] 2.2.7). Written for refusals, and followed in chunks of any size.

use super::{
    packet::{Reader, put_long_text, put_short_text, utf16},
    types::{Length, Type},
};
use crate::limits;

pub mod token_type {
    pub const RETURN_STATUS: u8 = 0x79;
    pub const COLUMNS: u8 = 0x81;
    /// How sensitive columns are (2.2.7.5).
    pub const DATA_CLASSIFICATION: u8 = 0xa3;
    pub const ORDER: u8 = 0xa9;
    pub const ERROR: u8 = 0xaa;
    pub const INFO: u8 = 0xab;
    pub const RETURN_VALUE: u8 = 0xac;
    pub const LOGIN_ACK: u8 = 0xad;
    pub const FEATURE_ACK: u8 = 0xae;
    pub const ROW: u8 = 0xd1;
    /// A row whose NULLs stand in a bitmap.
    pub const NBC_ROW: u8 = 0xd2;
    pub const ENV_CHANGE: u8 = 0xe3;
    pub const SESSION_STATE: u8 = 0xe4;
    pub const DONE: u8 = 0xfd;
    pub const DONE_PROC: u8 = 0xfe;
    pub const DONE_IN_PROC: u8 = 0xff;
}

pub mod env_change {
    pub const DATABASE: u8 = 1;
    pub const PACKET_SIZE: u8 = 4;
    /// The partner of a mirrored database: another server to go to.
    pub const MIRRORING_PARTNER: u8 = 13;
    pub const ROUTING: u8 = 20;
    pub const ENHANCED_ROUTING: u8 = 21;
}

pub mod done {
    pub const MORE: u16 = 0x01;
    pub const ERROR: u16 = 0x02;
    pub const COUNT: u16 = 0x10;
    /// The attention of the client is acknowledged.
    pub const ATTENTION: u16 = 0x20;
    pub const RPC_IN_BATCH: u16 = 0x80;
    /// The command that a count belongs to, when it is SELECT.
    pub const SELECT: u16 = 0xc1;
}

/// An ERROR, or with class 10 and less an INFO.
pub fn put_message(out: &mut Vec<u8>, number: u32, state: u8, class: u8, text: &str, server: &str) {
    let mut body = number.to_le_bytes().to_vec();
    body.extend([state, class]);
    put_long_text(&mut body, text);
    put_short_text(&mut body, server);
    put_short_text(&mut body, "");
    body.extend(1_u32.to_le_bytes());
    out.push(if class <= 10 { token_type::INFO } else { token_type::ERROR });
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(body);
}

pub fn put_done(out: &mut Vec<u8>, kind: u8, status: u16, command: u16, rows: u64) {
    out.push(kind);
    out.extend(status.to_le_bytes());
    out.extend(command.to_le_bytes());
    out.extend(rows.to_le_bytes());
}

/// An ENVCHANGE with two texts.
pub fn put_env_change(out: &mut Vec<u8>, what: u8, new: &str, old: &str) {
    let mut body = vec![what];
    put_short_text(&mut body, new);
    put_short_text(&mut body, old);
    out.push(token_type::ENV_CHANGE);
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(body);
}

pub fn put_login_ack(out: &mut Vec<u8>, tds_version: u32, program: &str, version: [u8; 4]) {
    let mut body = vec![1];
    body.extend(tds_version.to_be_bytes());
    put_short_text(&mut body, program);
    body.extend(version);
    out.push(token_type::LOGIN_ACK);
    out.extend((body.len() as u16).to_le_bytes());
    out.extend(body);
}

/// Tokens that say nothing and take `bytes` of room, or a little more: an ORDER, which every client steps over.
pub fn put_filler(out: &mut Vec<u8>, bytes: usize) {
    let columns = bytes.saturating_sub(3).div_ceil(2);
    out.push(token_type::ORDER);
    out.extend(((2 * columns) as u16).to_le_bytes());
    out.resize(out.len() + 2 * columns, 0);
}

/// How many bytes a token has whose length says so itself. None: the bytes end before that is known, or it has no such length.
pub fn length_of(bytes: &[u8]) -> Option<usize> {
    let mut r = Reader(bytes);
    match r.u8()? {
        token_type::RETURN_STATUS | 0x78 => Some(5),
        token_type::DONE | token_type::DONE_PROC | token_type::DONE_IN_PROC => Some(13),
        token_type::ORDER | token_type::ERROR | token_type::INFO | token_type::LOGIN_ACK | token_type::ENV_CHANGE | 0xa4 | 0xa5 | 0xed => {
            Some(3 + usize::from(r.u16()?))
        }
        token_type::SESSION_STATE | 0xee => Some(5 + usize::try_from(r.u32()?).ok()?),
        token_type::FEATURE_ACK => {
            let mut length = 1;
            loop {
                if r.u8()? == 0xff {
                    return Some(length + 1);
                }
                let data = usize::try_from(r.u32()?).ok()?;
                r.take(data)?;
                length += 5 + data;
            }
        }
        _ => None,
    }
}

/// An ERROR's or INFO's number and text.
pub fn read_message(token: &[u8]) -> Option<(u32, u8, String)> {
    let mut r = Reader(token.get(3..)?);
    let (number, _state, class) = (r.u32()?, r.u8()?, r.u8()?);
    let characters = usize::from(r.u16()?);
    let kept = r.0.len().min(2 * characters).min(limits::ERROR_TEXT);
    Some((number, class, utf16(r.take(kept & !1)?)))
}

/// The values of the first row of a whole reply, as people read them; none when there is no row. An error is the server's text.
pub fn first_row(message: &[u8]) -> Result<Option<Vec<String>>, String> {
    let (mut rest, mut columns) = (message, Tokens::default());
    let broken = || "its answer cannot be read".to_owned();
    while let Some(kind) = rest.first() {
        let length = match *kind {
            token_type::COLUMNS => match columns.describe(rest) {
                Some(Known::Length(length)) if !columns.columns.is_empty() => length,
                _ => return Err(broken()),
            },
            token_type::ROW | token_type::NBC_ROW => return row(&rest[1..], *kind == token_type::NBC_ROW, &columns.columns).map(Some).ok_or_else(broken),
            _ => length_of(rest).ok_or_else(broken)?,
        };
        let token = rest.get(..length).ok_or_else(broken)?;
        if *kind == token_type::ERROR {
            return Err(read_message(token).map_or_else(broken, |(number, _, text)| format!("{number}: {text}")));
        }
        rest = &rest[length..];
    }
    Ok(None)
}

fn row(bytes: &[u8], with_nulls: bool, columns: &[Type]) -> Option<Vec<String>> {
    let mut r = Reader(bytes);
    let nulls = if with_nulls { r.take(columns.len().div_ceil(8))? } else { &[] };
    let is_null = |at: usize| nulls.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    let value = |(at, ty): (usize, &Type)| if is_null(at) { Some("NULL".to_owned()) } else { ty.value(&mut r, limits::ERROR_TEXT).map(|(text, _)| text) };
    columns.iter().enumerate().map(value).collect()
}

/// What the stream came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Row,
    Error {
        number: u32,
        text: String,
    },
    Done {
        kind: u8,
        status: u16,
        command: u16,
        rows: u64,
    },
    /// An output parameter; a number when it is one.
    Returned(Option<i64>),
    /// The columns of the rows that follow are known.
    Described,
    /// Rows follow that were described by an earlier answer: see [`Tokens::describe_as`].
    Undescribed,
    /// Anything that needs no attention.
    Other,
}

enum State {
    /// Between tokens.
    Between,
    /// In a row or an output parameter, at the given column.
    Column(usize, Value),
    /// Something stands here that is not understood: followed again from the next message on.
    Lost,
}

#[derive(Clone, Copy)]
enum Value {
    /// What counts its bytes comes next.
    Length,
    Skip(u64),
    Chunk,
    SkipChunk(u64),
    PointerTail(u64),
}

/// What changes how a server describes its columns, as the login agreed on it ([MS-TDS] 2.2.7.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Agreed {
    /// Descriptions name keys, and how columns are encrypted.
    pub column_encryption: bool,
    /// The version in which results say how sensitive their columns are; 0: they do not.
    pub classification: u8,
}

/// Follows the tokens of a message.
pub struct Tokens {
    agreed: Agreed,
    state: State,
    /// The beginning of a token that has not passed whole.
    partial: Vec<u8>,
    columns: Vec<Type>,
    /// The output parameter that passes, and as much of it as a number has.
    returned: Option<(Type, Vec<u8>)>,
    nulls: Vec<u8>,
    prefix: [u8; 8],
    prefix_len: usize,
    /// The last bytes of a message that is not followed: its DONE.
    tail: Vec<u8>,
    /// Rows pass that were described by an earlier answer. Whether they still look like that is the client's word: so all bytes count.
    undescribed: bool,
    /// Bytes of rows that passed.
    pub row_bytes: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        Tokens {
            agreed: Agreed::default(),
            state: State::Between,
            partial: Vec::new(),
            columns: Vec::new(),
            returned: None,
            nulls: Vec::new(),
            prefix: [0; 8],
            prefix_len: 0,
            tail: Vec::new(),
            undescribed: false,
            row_bytes: 0,
        }
    }
}

impl Tokens {
    pub fn new(agreed: Agreed) -> Tokens {
        Tokens { agreed, ..Tokens::default() }
    }

    /// The columns of the rows that pass, or passed last.
    pub fn columns(&self) -> &[Type] {
        &self.columns
    }

    /// The rows that follow have these columns.
    pub fn describe_as(&mut self, columns: &[Type]) {
        self.undescribed = true;
        self.columns = columns.to_vec();
    }

    /// Whether a token ends here: only there may another one be put in.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Between) && self.partial.is_empty()
    }

    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Follows no tokens until the message ends.
    pub fn lose(&mut self) {
        self.state = State::Lost;
        self.partial = Vec::new();
    }

    /// The message is complete. What was not followed gives its end all the same.
    pub fn end_of_message(&mut self) -> Option<Event> {
        let unfinished = !self.at_boundary();
        let mut tail = std::mem::take(&mut self.tail);
        // a token of which more was waited for, when no more comes, was no such token: the end of what there is is the end of the message
        if tail.is_empty() {
            tail = self.partial.split_off(self.partial.len().saturating_sub(13));
        }
        *self = Tokens { agreed: self.agreed, row_bytes: self.row_bytes, columns: std::mem::take(&mut self.columns), ..Tokens::default() };
        let mut r = Reader(&tail);
        let kind = r.u8()?;
        let done = Event::Done { kind, status: r.u16()?, command: r.u16()?, rows: r.u64()? };
        (unfinished && (token_type::DONE..=token_type::DONE_IN_PROC).contains(&kind)).then_some(done)
    }

    /// Takes the next event off `bytes`; None when they are used up.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        if !self.undescribed || self.is_lost() {
            return self.event(bytes);
        }
        let (before, counted) = (bytes.len(), self.row_bytes);
        let event = self.event(bytes);
        self.row_bytes = counted + (before - bytes.len()) as u64;
        event
    }

    fn event(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        loop {
            match self.state {
                State::Lost => {
                    self.row_bytes += bytes.len() as u64;
                    let kept = bytes.len().min(13);
                    let surplus = (self.tail.len() + kept).saturating_sub(13);
                    self.tail.drain(..surplus);
                    self.tail.extend_from_slice(&bytes[bytes.len() - kept..]);
                    *bytes = &[];
                    return None;
                }
                State::Column(at, value) => {
                    let (before, is_row) = (bytes.len(), self.returned.is_none());
                    let event = self.column(at, value, bytes);
                    if is_row {
                        self.row_bytes += (before - bytes.len()) as u64;
                    }
                    match event {
                        Some(event) => return Some(event),
                        None if bytes.is_empty() => return None,
                        None => {}
                    }
                }
                State::Between => {
                    if bytes.is_empty() {
                        return None;
                    }
                    if let Some(event) = self.between(bytes) {
                        return Some(event);
                    }
                    if bytes.is_empty() && !self.is_lost() && !matches!(self.state, State::Column(..)) {
                        return None;
                    }
                }
            }
        }
    }

    fn between(&mut self, bytes: &mut &[u8]) -> Option<Event> {
        if self.partial.is_empty() {
            return match self.token(bytes) {
                Read::Token(length, event) => {
                    *bytes = &bytes[length..];
                    event
                }
                Read::More => {
                    self.partial.extend_from_slice(bytes);
                    *bytes = &[];
                    None
                }
                Read::Lost => {
                    self.lose();
                    None
                }
            };
        }
        let mut partial = std::mem::take(&mut self.partial);
        let before = partial.len();
        partial.extend_from_slice(bytes);
        match self.token(&partial) {
            // what is left over came with these bytes: before them, the token was not whole
            Read::Token(length, event) => {
                *bytes = &bytes[length - before..];
                event
            }
            Read::More if partial.len() <= limits::TDS_TOKEN => {
                self.partial = partial;
                *bytes = &[];
                None
            }
            Read::More | Read::Lost => {
                self.lose();
                None
            }
        }
    }

    /// Reads the token at the front: all of it, or of a row only what stands before its columns.
    fn token(&mut self, bytes: &[u8]) -> Read {
        let read = match bytes.first() {
            None => return Read::More,
            Some(&token_type::ROW) => {
                self.nulls.clear();
                self.row();
                return Read::Token(1, self.row_without_columns());
            }
            Some(&token_type::NBC_ROW) => match bytes.get(1..1 + self.columns.len().div_ceil(8)) {
                Some(nulls) => {
                    self.nulls.clear();
                    self.nulls.extend_from_slice(nulls);
                    self.row();
                    return Read::Token(1 + nulls.len(), self.row_without_columns());
                }
                None => return Read::More,
            },
            Some(&token_type::COLUMNS) => self.describe(bytes),
            Some(&token_type::RETURN_VALUE) => self.returned(bytes),
            // nothing else says that it will come
            Some(&token_type::DATA_CLASSIFICATION) if self.agreed.classification > 0 => match self.classification(bytes) {
                Some(known) => Some(known),
                None => return Read::More,
            },
            Some(_) => length_of(bytes).map(Known::Length),
        };
        match read {
            Some(Known::Length(length)) if bytes.len() >= length => Read::Token(length, Some(event(&bytes[..length]))),
            Some(Known::Undescribed) => Read::Token(3, Some(Event::Undescribed)),
            Some(Known::Quietly(length)) => Read::Token(length, None),
            Some(Known::Unknown) => Read::Lost,
            Some(Known::Length(_)) => Read::More,
            None if is_known(bytes[0]) => Read::More,
            None => Read::Lost,
        }
    }

    fn row(&mut self) {
        self.state = State::Column(0, Value::Length);
    }

    fn row_without_columns(&mut self) -> Option<Event> {
        self.columns.is_empty().then(|| {
            self.state = State::Between;
            Event::Row
        })
    }

    /// COLMETADATA: the types of the columns of the rows that follow.
    fn describe(&mut self, bytes: &[u8]) -> Option<Known> {
        let mut r = Reader(&bytes[1..]);
        let count = r.u16()?;
        let mut columns = Vec::new();
        // a client may ask for rows without a description (2.2.6.6, fNoMetaData)
        if count == u16::MAX {
            return Some(Known::Undescribed);
        }
        let has_keys = self.agreed.column_encryption && keys(&mut r)?;
        for _ in 0..count {
            r.u32()?;
            let flags = r.u16()?;
            let before = r;
            let Some(ty) = Type::read(&mut r, true) else {
                // too few bytes, or a type that nothing is known of
                return if before.0.len() >= 1_024 { Some(Known::Unknown) } else { None };
            };
            if ty.has_table() {
                for _ in 0..r.u8()? {
                    r.skip_long_text()?;
                }
            }
            if self.agreed.column_encryption && flags & ENCRYPTED != 0 {
                cipher(&mut r, has_keys)?;
            }
            r.skip_short_text()?;
            columns.push(ty);
        }
        self.columns = columns;
        Some(Known::Length(bytes.len() - r.0.len()))
    }

    /// RETURNVALUE, up to its value.
    fn returned(&mut self, bytes: &[u8]) -> Option<Known> {
        let mut r = Reader(&bytes[1..]);
        r.u16()?;
        r.skip_short_text()?;
        r.take(1 + 4)?;
        let flags = r.u16()?;
        let before = r;
        let Some(ty) = Type::read(&mut r, true) else {
            return if before.0.len() >= 1_024 { Some(Known::Unknown) } else { None };
        };
        if self.agreed.column_encryption && flags & ENCRYPTED != 0 {
            cipher(&mut r, false)?;
        }
        self.returned = Some((ty, Vec::new()));
        self.nulls.clear();
        self.row();
        Some(Known::Quietly(bytes.len() - r.0.len()))
    }

    /// DATACLASSIFICATION (2.2.7.5): names of labels and of kinds of information, then of each column which of them it has.
    fn classification(&self, bytes: &[u8]) -> Option<Known> {
        let mut r = Reader(&bytes[1..]);
        for _ in 0..2 {
            for _ in 0..r.u16()? {
                r.skip_short_text()?;
                r.skip_short_text()?;
            }
        }
        // the second version ranks them
        let ranked = if self.agreed.classification > 1 { 4 } else { 0 };
        r.take(ranked)?;
        for _ in 0..r.u16()? {
            let properties = usize::from(r.u16()?);
            r.take(properties * (4 + ranked))?;
        }
        Some(Known::Length(bytes.len() - r.0.len()))
    }

    /// Takes as many bytes as a length has off the front, however they are cut.
    fn prefix(&mut self, bytes: &mut &[u8], n: usize) -> Option<u64> {
        let part = bytes.len().min(n - self.prefix_len);
        self.prefix[self.prefix_len..self.prefix_len + part].copy_from_slice(&bytes[..part]);
        self.prefix_len += part;
        *bytes = &bytes[part..];
        if self.prefix_len < n {
            return None;
        }
        self.prefix_len = 0;
        Some(self.prefix[..n].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn column(&mut self, mut at: usize, mut value: Value, bytes: &mut &[u8]) -> Option<Event> {
        loop {
            let ty = match &self.returned {
                Some((ty, _)) => *ty,
                None => match self.columns.get(at) {
                    Some(ty) => *ty,
                    None => {
                        self.state = State::Between;
                        return Some(Event::Row);
                    }
                },
            };
            let null = self.nulls.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
            let next = match value {
                Value::Length if null => None,
                Value::Length => match self.length(&ty, bytes) {
                    Some(next) => next,
                    None => {
                        self.state = State::Column(at, value);
                        return None;
                    }
                },
                Value::Skip(left) | Value::SkipChunk(left) | Value::PointerTail(left) if left > 0 => {
                    let n = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    if let Some((_, kept)) = &mut self.returned
                        && kept.len() + n <= 8
                    {
                        kept.extend_from_slice(&bytes[..n]);
                    }
                    *bytes = &bytes[n..];
                    let left = left - n as u64;
                    value = match value {
                        Value::SkipChunk(_) => Value::SkipChunk(left),
                        Value::PointerTail(_) => Value::PointerTail(left),
                        _ => Value::Skip(left),
                    };
                    if left > 0 {
                        self.state = State::Column(at, value);
                        return None;
                    }
                    continue;
                }
                Value::Skip(_) => None,
                Value::SkipChunk(_) | Value::Chunk => match self.prefix(bytes, 4) {
                    Some(0) => None,
                    Some(n) => Some(Value::SkipChunk(n)),
                    None => {
                        self.state = State::Column(at, Value::Chunk);
                        return None;
                    }
                },
                Value::PointerTail(_) => match self.prefix(bytes, 4) {
                    Some(n) => Some(Value::Skip(n)),
                    None => {
                        self.state = State::Column(at, Value::PointerTail(0));
                        return None;
                    }
                },
            };
            value = match next {
                Some(next) => next,
                None => {
                    if let Some((ty, kept)) = self.returned.take() {
                        self.state = State::Between;
                        let number = (ty.is_integer() && !kept.is_empty()).then(|| {
                            let unused = 64 - 8 * kept.len() as u32;
                            (kept.iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte)) << unused) as i64 >> unused
                        });
                        return Some(Event::Returned(number));
                    }
                    at += 1;
                    Value::Length
                }
            };
        }
    }

    /// What follows the length of a value; the inner None: nothing, the value is complete. The outer: more bytes are needed.
    #[expect(clippy::option_option, reason = "two different absences, both used at one place")]
    fn length(&mut self, ty: &Type, bytes: &mut &[u8]) -> Option<Option<Value>> {
        Some(match ty.length {
            Length::Fixed(n) => Some(Value::Skip(n.into())),
            Length::Byte => Some(Value::Skip(self.prefix(bytes, 1)?)),
            Length::Short => Some(self.prefix(bytes, 2)?).filter(|n| *n != 0xffff).map(Value::Skip),
            Length::Long => Some(Value::Skip(self.prefix(bytes, 4)?)),
            // the pointer, then eight bytes of time stamp
            Length::Pointer => Some(self.prefix(bytes, 1)?).filter(|n| *n != 0).map(|n| Value::PointerTail(n + 8)),
            Length::Chunks => Some(self.prefix(bytes, 8)?).filter(|n| *n != u64::MAX).map(|_| Value::Chunk),
        })
    }
}

enum Known {
    Length(usize),
    /// So many bytes are read, and nothing has happened yet.
    Quietly(usize),
    /// A description that only says that there is none.
    Undescribed,
    Unknown,
}

enum Read {
    Token(usize, Option<Event>),
    More,
    Lost,
}

/// A column's flag: its values are encrypted by clients.
const ENCRYPTED: u16 = 0x0800;

/// The keys that encrypted columns of a result were encrypted with (2.2.7.4, CekTable): says whether there are any.
fn keys(r: &mut Reader<'_>) -> Option<bool> {
    let count = r.u16()?;
    for _ in 0..count {
        // the number of the key in four parts, then each way in which the key itself is encrypted
        r.take(4 + 4 + 4 + 8)?;
        for _ in 0..r.u8()? {
            let key = usize::from(r.u16()?);
            r.take(key)?;
            r.skip_short_text()?;
            r.skip_long_text()?;
            r.skip_short_text()?;
        }
    }
    Some(count > 0)
}

/// How a column is encrypted (2.2.7.4, CryptoMetaData): with which key, what it is when it is not, by which algorithm and how.
fn cipher(r: &mut Reader<'_>, has_key: bool) -> Option<()> {
    if has_key {
        r.u16()?;
    }
    r.u32()?;
    Type::read(r, true)?;
    if r.u8()? == 0 {
        r.skip_short_text()?;
    }
    r.take(2).map(drop)
}

fn is_known(token: u8) -> bool {
    matches!(token, 0x78 | 0x79 | 0x81 | 0xa4 | 0xa5 | 0xa9..=0xae | 0xd1 | 0xd2 | 0xe3 | 0xe4 | 0xed | 0xee | 0xfd..=0xff)
}

fn event(token: &[u8]) -> Event {
    let mut r = Reader(&token[1..]);
    match token[0] {
        token_type::ERROR => read_message(token).map_or(Event::Other, |(number, _, text)| Event::Error { number, text }),
        kind @ (token_type::DONE | token_type::DONE_PROC | token_type::DONE_IN_PROC) => {
            let (Some(status), Some(command), Some(rows)) = (r.u16(), r.u16(), r.u64()) else { return Event::Other };
            Event::Done { kind, status, command, rows }
        }
        token_type::COLUMNS => Event::Described,
        _ => Event::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tds::packet::put_utf16;

    /// Columns: int, nvarchar(10), varbinary(max), ntext.
    fn description() -> Vec<u8> {
        let mut out = vec![token_type::COLUMNS, 4, 0];
        for info in
            [&[0x26, 4][..], &[0xe7, 20, 0, 9, 4, 0xd0, 0, 0x34], &[0xa5, 0xff, 0xff], &[0x63, 0xff, 0xff, 0xff, 0x7f, 9, 4, 0xd0, 0, 0x34, 1, 1, 0, b't', 0]]
        {
            out.extend([0; 6]);
            out.extend(info);
            put_short_text(&mut out, "name");
        }
        out
    }

    fn row() -> Vec<u8> {
        let mut out = vec![token_type::ROW, 4, 1, 0, 0, 0, 4, 0];
        put_utf16(&mut out, "hi");
        out.extend([5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3, 2, 0, 0, 0, 4, 5, 0, 0, 0, 0]);
        out.push(16);
        out.extend([0; 24]);
        out.extend([2, 0, 0, 0, b'x', 0]);
        out
    }

    fn events(stream: &[u8], cut: usize) -> (Vec<Event>, Tokens) {
        let (mut tokens, mut seen) = (Tokens::default(), Vec::new());
        for mut chunk in stream.chunks(cut) {
            while let Some(event) = tokens.next(&mut chunk) {
                if event != Event::Other {
                    seen.push(event);
                }
            }
        }
        (seen, tokens)
    }

    #[test]
    fn rows_errors_and_ends_are_seen_however_the_stream_is_cut() {
        let mut stream = description();
        stream.extend(row());
        stream.extend([token_type::NBC_ROW, 0b1110, 4, 7, 0, 0, 0]);
        stream.extend([token_type::RETURN_VALUE, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x26, 4, 4, 42, 0, 0, 0]);
        put_message(&mut stream, 5701, 2, 10, "changed", "s");
        put_message(&mut stream, 8134, 1, 16, "Divide by zero error encountered.", "s");
        put_done(&mut stream, token_type::DONE, done::ERROR | done::COUNT, done::SELECT, 2);
        let expected = vec![
            Event::Described,
            Event::Row,
            Event::Row,
            Event::Returned(Some(42)),
            Event::Error { number: 8134, text: "Divide by zero error encountered.".to_owned() },
            Event::Done { kind: token_type::DONE, status: 0x12, command: 0xc1, rows: 2 },
        ];
        for cut in 1..stream.len() {
            let (seen, mut tokens) = events(&stream, cut);
            assert_eq!(seen, expected, "in chunks of {cut}");
            assert!(tokens.at_boundary());
            assert_eq!(tokens.end_of_message(), None);
        }
    }

    #[test]
    fn what_is_not_understood_still_gives_its_end() {
        let mut stream = vec![token_type::COLUMNS, 1, 0, 0, 0, 0, 0, 0, 0, 0xcc];
        stream.resize(2_000, 0xd1);
        put_done(&mut stream, token_type::DONE, done::COUNT, done::SELECT, 9);
        for cut in [1, 7, 13, 5_000] {
            let (seen, mut tokens) = events(&stream, cut);
            assert!(seen.is_empty() && !tokens.at_boundary());
            assert_eq!(tokens.end_of_message(), Some(Event::Done { kind: token_type::DONE, status: 0x10, command: 0xc1, rows: 9 }));
            assert!(tokens.at_boundary(), "the next message is followed again");
        }
    }

    #[test]
    fn a_filler_takes_the_room_that_it_should() {
        for bytes in 0..50 {
            let mut out = Vec::new();
            put_filler(&mut out, bytes);
            assert!(out.len() >= bytes && out.len() <= bytes.max(2) + 1);
            assert_eq!(length_of(&out), Some(out.len()));
        }
    }
}
