//! Remote procedure calls ([MS-TDS] 2.2.6.6), read as their bytes pass, in pieces of any size. What is longer than is recorded is stepped over by
//! its length: so nothing hides behind a large value.

use super::{Call, Handle, Made, PIECE, cut, headers};
use crate::{
    limits,
    tds::{
        packet::{Reader, utf16},
        types::{Length, Type},
    },
};

/// What is kept of a statement however much other calls of its message keep.
const AT_LEAST: usize = 512;
/// And of other values, how long they are.
const SIZES: usize = 256 * 1024;

mod procedure {
    pub const CURSOR_OPEN: u16 = 2;
    pub const CURSOR_PREPARE: u16 = 3;
    pub const CURSOR_EXECUTE: u16 = 4;
    pub const CURSOR_PREPEXEC: u16 = 5;
    pub const CURSOR_UNPREPARE: u16 = 6;
    pub const CURSOR_FETCH: u16 = 7;
    pub const CURSOR_CLOSE: u16 = 9;
    pub const EXECUTE_SQL: u16 = 10;
    pub const PREPARE: u16 = 11;
    pub const EXECUTE: u16 = 12;
    pub const PREPEXEC: u16 = 13;
    pub const PREPEXEC_RPC: u16 = 14;
    pub const UNPREPARE: u16 = 15;
}

/// The names of the procedures that have numbers.
const NUMBERED: [&str; 16] = [
    "",
    "sp_cursor",
    "sp_cursoropen",
    "sp_cursorprepare",
    "sp_cursorexecute",
    "sp_cursorprepexec",
    "sp_cursorunprepare",
    "sp_cursorfetch",
    "sp_cursoroption",
    "sp_cursorclose",
    "sp_executesql",
    "sp_prepare",
    "sp_execute",
    "sp_prepexec",
    "sp_prepexecrpc",
    "sp_unprepare",
];

/// The calls of one message.
pub struct Rpc {
    at: At,
    /// The beginning of a piece that has not come whole.
    partial: Vec<u8>,
    calls: Vec<Call>,
    /// Calls beyond those that are recorded one by one.
    more: u64,
    now: Option<Building>,
    /// Bytes of texts and values that are kept.
    kept: usize,
    /// How many may be kept.
    room: usize,
    /// Bytes behind a part that could not be read.
    unread: usize,
}

enum At {
    Headers,
    Name,
    /// At a parameter, or at the end of the call.
    Parameter,
    Value(Value),
    Table(Table),
    /// Behind an encrypted value: how it is encrypted.
    Cipher,
    Lost,
}

/// A call that is being read.
struct Building {
    name: String,
    number: u16,
    parameters: Vec<Parameter>,
    budget: usize,
    /// Parameters were bound that are not kept.
    more: bool,
}

struct Parameter {
    name: String,
    value: String,
    units: usize,
}

/// A value of a type, as far as it is kept.
struct Value {
    ty: Type,
    name: String,
    is_encrypted: bool,
    stage: Stage,
    prefix: [u8; 8],
    prefix_len: usize,
    kept: Vec<u8>,
    keep: usize,
    whole: u64,
    is_null: bool,
}

#[derive(Clone, Copy)]
enum Stage {
    Length,
    Bytes(u64),
    Chunk,
    ChunkBytes(u64),
}

/// A parameter that is a table ([MS-TDS] 2.2.5.5.5.3).
struct Table {
    name: String,
    kind: String,
    columns: Vec<Type>,
    rows: u64,
    shown: String,
    keep: usize,
    /// The value of a row that passes.
    value: Option<(usize, Value)>,
}

/// What reading a piece came to.
enum Piece {
    /// So many bytes are read.
    Read(usize),
    More,
    Lost,
}

impl Value {
    fn new(ty: Type, name: String, is_encrypted: bool, keep: usize) -> Value {
        Value { ty, name, is_encrypted, stage: Stage::Length, prefix: [0; 8], prefix_len: 0, kept: Vec::new(), keep, whole: 0, is_null: false }
    }

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

    /// Takes what belongs to the value off the front; true when that was all of it.
    fn feed(&mut self, bytes: &mut &[u8]) -> bool {
        loop {
            match self.stage {
                Stage::Length => {
                    let counted = |n: u64, null: u64| (n != null).then_some(n);
                    // an empty value of the old forms is no NULL
                    let length = match self.ty.length {
                        Length::Fixed(n) => Some((n > 0).then_some(u64::from(n))),
                        Length::Byte => self.prefix(bytes, 1).map(|n| if self.ty.is_empty_null() { counted(n, 0) } else { Some(n) }),
                        Length::Short => self.prefix(bytes, 2).map(|n| counted(n, 0xffff)),
                        Length::Long => self.prefix(bytes, 4).map(|n| counted(n, 0).and_then(|n| counted(n, u32::MAX.into()))),
                        Length::Pointer => self.prefix(bytes, 4).map(|n| counted(n, u32::MAX.into())),
                        Length::Chunks => match self.prefix(bytes, 8) {
                            None => None,
                            Some(u64::MAX) => Some(None),
                            Some(_) => {
                                self.stage = Stage::Chunk;
                                continue;
                            }
                        },
                    };
                    match length {
                        None => return false,
                        Some(None) => {
                            self.is_null = true;
                            return true;
                        }
                        Some(Some(n)) => self.stage = Stage::Bytes(n),
                    }
                }
                Stage::Chunk => match self.prefix(bytes, 4) {
                    None => return false,
                    Some(0) => return true,
                    Some(n) => self.stage = Stage::ChunkBytes(n),
                },
                Stage::Bytes(left) | Stage::ChunkBytes(left) => {
                    let n = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let part = n.min(self.keep.saturating_sub(self.kept.len()));
                    self.kept.extend_from_slice(&bytes[..part]);
                    self.whole += n as u64;
                    *bytes = &bytes[n..];
                    let left = left - n as u64;
                    let in_chunk = matches!(self.stage, Stage::ChunkBytes(_));
                    self.stage = match (left, in_chunk) {
                        (0, true) => Stage::Chunk,
                        (0, false) => return true,
                        (_, true) => Stage::ChunkBytes(left),
                        (_, false) => Stage::Bytes(left),
                    };
                    if left > 0 {
                        return false;
                    }
                }
            }
        }
    }

    fn shown(&self) -> String {
        match (self.is_encrypted, self.is_null) {
            (true, _) => format!("(encrypted, {} bytes)", self.whole),
            (false, true) => "NULL".to_owned(),
            _ => self.ty.shown(&self.kept, usize::try_from(self.whole).unwrap_or(usize::MAX)),
        }
    }
}

impl Rpc {
    /// `room`: how many bytes of texts and values may be kept.
    pub fn new(room: usize) -> Rpc {
        Rpc { at: At::Headers, partial: Vec::new(), calls: Vec::new(), more: 0, now: None, kept: 0, room, unread: 0 }
    }

    /// Bytes of memory worth minding.
    pub fn held(&self) -> usize {
        self.kept + self.partial.len()
    }

    /// The next bytes of the message.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Lost => {
                    self.unread += bytes.len();
                    return;
                }
                At::Value(value) => {
                    if !value.feed(&mut bytes) {
                        return;
                    }
                    let next = if value.is_encrypted { At::Cipher } else { At::Parameter };
                    if let At::Value(value) = std::mem::replace(&mut self.at, next) {
                        let (shown, units) = (value.shown(), usize::try_from(value.whole).unwrap_or(usize::MAX) / 2);
                        self.parameter(value.name, shown, units);
                    }
                }
                At::Table(table) if table.value.is_some() => {
                    if table.feed(&mut bytes) {
                        table.next_value();
                    }
                }
                _ => self.pieces(&mut bytes),
            }
        }
    }

    /// Reads one piece of what has to be looked at whole.
    fn pieces(&mut self, bytes: &mut &[u8]) {
        let before = self.partial.len();
        let read = if before == 0 {
            self.piece(bytes)
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(&bytes[..bytes.len().min(PIECE)]);
            let read = self.piece(&whole);
            self.partial = whole;
            read
        };
        match read {
            // what was kept turned out to be no piece of its own
            Piece::Read(n) if n < before => {
                self.partial.truncate(before);
                self.partial.drain(..n);
            }
            Piece::Read(n) => {
                self.partial.clear();
                *bytes = &bytes[n - before..];
            }
            Piece::More if before + bytes.len() < PIECE => {
                if before == 0 {
                    self.partial.extend_from_slice(bytes);
                }
                *bytes = &[];
            }
            Piece::More | Piece::Lost => {
                self.unread += before + bytes.len();
                self.partial = Vec::new();
                self.at = At::Lost;
                *bytes = &[];
            }
        }
    }

    fn piece(&mut self, data: &[u8]) -> Piece {
        let mut r = Reader(data);
        let next = match &mut self.at {
            At::Headers => match headers(data) {
                Some(n) => {
                    self.at = At::Name;
                    return Piece::Read(n);
                }
                None => None,
            },
            At::Name => procedure_name(&mut r).map(|(name, number)| {
                // a procedure that has no number here may take a statement in whichever parameter
                let budget = if number == 0 { 2 * limits::STATEMENT_TEXT } else { limits::BOUND_VALUES };
                self.now = Some(Building { name, number, parameters: Vec::new(), budget, more: false });
                At::Parameter
            }),
            // the mark between two calls; 0xfe: this one is not to run. (A name has at most 127 characters: 0x80 marked the end before
            // TDS 7.2, which is not spoken here.)
            At::Parameter if matches!(data.first(), Some(0xff | 0xfe)) => {
                self.call();
                self.at = At::Name;
                return Piece::Read(1);
            }
            At::Parameter => {
                let described = described(&mut r);
                described.map(|(name, status, kind)| {
                    let keep = self.wanted();
                    match kind {
                        Kind::Plain(ty) => At::Value(Value::new(ty, name, status & ENCRYPTED != 0, keep)),
                        Kind::Table(kind, columns) => At::Table(Table { name, kind, columns, rows: 0, shown: String::new(), keep, value: None }),
                        Kind::NoTable(kind) => {
                            self.parameter(name, format!("table {kind}: NULL"), 0);
                            At::Parameter
                        }
                    }
                })
            }
            At::Table(table) => match r.u8() {
                // a row, or the end of them
                Some(0x01) => {
                    table.rows += 1;
                    table.begin_row();
                    return Piece::Read(1);
                }
                Some(0x00) => {
                    let text = format!("table {}: {} row{}{}", table.kind, table.rows, if table.rows == 1 { "" } else { "s" }, table.shown);
                    let name = std::mem::take(&mut table.name);
                    self.at = At::Parameter;
                    self.parameter(name, text, 0);
                    return Piece::Read(1);
                }
                Some(_) => return Piece::Lost,
                None => None,
            },
            At::Cipher => cipher(&mut r).map(|()| At::Parameter),
            At::Value(_) | At::Lost => return Piece::Lost,
        };
        match next {
            Some(next) => {
                self.at = next;
                Piece::Read(data.len() - r.0.len())
            }
            None => Piece::More,
        }
    }

    /// How much of the next parameter's value is kept.
    fn wanted(&self) -> usize {
        let Some(now) = &self.now else { return 0 };
        let left = self.room.saturating_sub(self.kept);
        if now.is_statement() {
            return (2 * limits::STATEMENT_TEXT).min(left.max(AT_LEAST));
        }
        let most = if now.number == 0 { now.budget } else { limits::BOUND_VALUE };
        most.min(now.budget).min(left)
    }

    fn parameter(&mut self, name: String, value: String, units: usize) {
        let Some(now) = &mut self.now else { return };
        now.budget = now.budget.saturating_sub(value.len());
        // SQL Server takes 2,100 of them. Up to the statement all are kept, which is found by its place
        let before_statement = statement_index(now.number).is_some_and(|at| now.parameters.len() <= at);
        if before_statement || (now.parameters.len() < limits::TDS_PARAMETERS && self.kept < self.room + SIZES) {
            self.kept += name.len() + value.len();
            now.parameters.push(Parameter { name, value, units });
        } else {
            now.more = true;
        }
    }

    /// A call is complete.
    fn call(&mut self) {
        let Some(now) = self.now.take() else { return };
        if self.calls.len() < limits::TDS_CALLS {
            self.calls.push(now.finish());
        } else {
            self.more += 1;
        }
    }

    /// The message is complete: its calls.
    pub fn end(mut self) -> Vec<Call> {
        let open = std::mem::replace(&mut self.at, At::Lost);
        let unread = self.unread + self.partial.len();
        match open {
            At::Headers | At::Name if unread == 0 && self.now.is_none() => {}
            At::Parameter if unread == 0 => self.call(),
            // in the middle of something, or behind what could not be read
            At::Headers | At::Name => {
                self.calls.push(Call { text: "(remote procedure call that could not be read)".to_owned(), ..Call::default() });
            }
            _ => {
                let call = self.now.take().map(Building::finish);
                self.calls.extend(call.map(|mut call| {
                    call.values.push("(not readable)".to_owned());
                    call
                }));
            }
        }
        if self.more > 0 {
            let name = self.calls.last().map(|last| last.text.clone()).unwrap_or_default();
            self.calls.push(Call { text: format!("({} more calls in one message; the last of those on record: {})", self.more, name), ..Call::default() });
        }
        // what was not read may hold further calls, and all of them run
        if unread > 0 {
            self.calls.push(Call { text: format!("(further calls may follow in {unread} bytes that were not read)"), ..Call::default() });
        }
        if self.calls.is_empty() {
            self.calls.push(Call { text: "(remote procedure call that could not be read)".to_owned(), ..Call::default() });
        }
        self.calls
    }
}

impl Table {
    fn begin_row(&mut self) {
        let open = if self.shown.is_empty() { ": (" } else { ", (" };
        if self.keeps() {
            self.shown.push_str(open);
        }
        self.value = self.columns.first().map(|ty| (0, self.value_of(*ty)));
        if self.value.is_none() {
            self.close();
        }
    }

    /// Whether more of it is shown.
    fn keeps(&self) -> bool {
        self.shown.len() < self.keep
    }

    fn value_of(&self, ty: Type) -> Value {
        Value::new(ty, String::new(), false, self.keep.saturating_sub(self.shown.len()).min(limits::BOUND_VALUE))
    }

    fn feed(&mut self, bytes: &mut &[u8]) -> bool {
        self.value.as_mut().is_some_and(|(_, value)| value.feed(bytes))
    }

    /// A value has passed: the next column's is next, or the row ends.
    fn next_value(&mut self) {
        let Some((at, value)) = self.value.take() else { return };
        if self.keeps() {
            if at > 0 {
                self.shown.push_str(", ");
            }
            self.shown.push_str(&value.shown());
        }
        self.value = self.columns.get(at + 1).map(|ty| (at + 1, self.value_of(*ty)));
        if self.value.is_none() {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.keeps() {
            self.shown.push(')');
        } else if !self.shown.ends_with('…') {
            self.shown.push('…');
        }
    }
}

/// Name and, for the ones that have one, number of the procedure; then the option flags.
fn procedure_name(r: &mut Reader<'_>) -> Option<(String, u16)> {
    let length = r.u16()?;
    let (name, number) = if length == u16::MAX {
        let number = r.u16()?;
        (NUMBERED.get(usize::from(number)).filter(|name| !name.is_empty()).map_or_else(|| format!("procedure {number}"), |name| (*name).to_owned()), number)
    } else {
        let name = utf16(r.take(2 * usize::from(length))?);
        // `"sys"."sp_executesql";1` is the same procedure
        let bare = name.rsplit('.').next().unwrap_or(&name).split(';').next().unwrap_or_default().trim().trim_matches(['[', ']', '"']);
        let number = NUMBERED.iter().position(|known| !known.is_empty() && known.eq_ignore_ascii_case(bare)).unwrap_or(0) as u16;
        (name, number)
    };
    r.u16()?;
    Some((name, number))
}

/// A parameter's flag: its value is encrypted by the client.
const ENCRYPTED: u8 = 0x08;
/// A column of a table that has its default in each row, and no value ([MS-TDS] 2.2.5.5.5.3, fDefault).
const DEFAULT_COLUMN: u16 = 0x0200;
const TABLE: u8 = 0xf3;

enum Kind {
    Plain(Type),
    /// Its name, and the types of the columns that have values.
    Table(String, Vec<Type>),
    /// No table at all.
    NoTable(String),
}

/// Name, flags and type of a parameter.
fn described(r: &mut Reader<'_>) -> Option<(String, u8, Kind)> {
    let name = r.short_text()?;
    let status = r.u8()?;
    if r.0.first() != Some(&TABLE) {
        return Some((name, status, Kind::Plain(Type::read(r, false)?)));
    }
    r.u8()?;
    let parts = [r.short_text()?, r.short_text()?, r.short_text()?];
    let kind = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
    let count = r.u16()?;
    if count == u16::MAX {
        // TVP_NULL_TOKEN; the end of what would be options, the end of what would be rows
        end_of_options(r)?;
        return (r.u8()? == 0).then_some((name, status, Kind::NoTable(kind)));
    }
    let mut columns = Vec::new();
    for _ in 0..count {
        r.u32()?;
        let flags = r.u16()?;
        let ty = Type::read(r, true)?;
        r.skip_short_text()?;
        if flags & DEFAULT_COLUMN == 0 {
            columns.push(ty);
        }
    }
    end_of_options(r)?;
    Some((name, status, Kind::Table(kind, columns)))
}

/// Orders and keys of a table's columns, up to their end.
fn end_of_options(r: &mut Reader<'_>) -> Option<()> {
    loop {
        match r.u8()? {
            0x00 => return Some(()),
            // TVP_ORDER_UNIQUE: columns with flags
            0x10 => {
                let n = r.u16()?;
                r.take(3 * usize::from(n))?;
            }
            // TVP_COLUMN_ORDERING
            0x11 => {
                let n = r.u16()?;
                r.take(2 * usize::from(n))?;
            }
            _ => return None,
        }
    }
}

/// How a value is encrypted: its plain type, algorithm and kind, the number of the key in four parts, a version (ParamCipherInfo).
fn cipher(r: &mut Reader<'_>) -> Option<()> {
    Type::read(r, false)?;
    r.take(1 + 1 + 4 + 4 + 4 + 8 + 1).map(drop)
}

impl Building {
    fn is_statement(&self) -> bool {
        statement_index(self.number) == Some(self.parameters.len())
    }

    fn finish(self) -> Call {
        let more = self.more;
        let mut call = self.call();
        if more {
            call.values.push("… (more was bound than is recorded)".to_owned());
        }
        call
    }

    fn call(self) -> Call {
        let Building { name, number, parameters, .. } = self;
        let shown = |p: &Parameter| if p.name.is_empty() { p.value.clone() } else { format!("{}={}", p.name, p.value) };
        let from = |n: usize| parameters.iter().skip(n).map(shown).collect::<Vec<_>>();
        let handle_of = |index: usize| parameters.get(index).and_then(|p| p.value.parse().ok()).unwrap_or(-1);
        let statement = statement_index(number).and_then(|index| parameters.get(index)).map(|p| (cut(&p.value), p.units));
        // behind the options of cursors come the values that are bound: Transact-SQL reference, sp_cursoropen, sp_cursorprepexec, sp_cursorexecute
        let prepared = |values: Vec<String>, makes: &'static [Made]| match statement {
            Some((ref text, text_units)) => Call { text: text.clone(), text_units, values, handle: Handle::None, makes },
            None => Call { text: format!("EXEC {name}"), values: from(0), ..Call::default() },
        };
        let used = |handle: Handle| Call { text: format!("EXEC {name} {}", handle_of(0)), handle, ..Call::default() };
        match number {
            procedure::EXECUTE_SQL => prepared(from(2), &[]),
            procedure::PREPEXEC => prepared(from(3), &[Made::Prepared]),
            procedure::PREPEXEC_RPC => prepared(from(2), &[Made::Prepared]),
            procedure::PREPARE | procedure::CURSOR_PREPARE => prepared(Vec::new(), &[Made::Prepared]),
            procedure::CURSOR_OPEN => prepared(from(5), &[Made::Cursor]),
            procedure::CURSOR_PREPEXEC => prepared(from(7), &[Made::Prepared, Made::Cursor]),
            procedure::EXECUTE => Call { values: from(1), ..used(Handle::Run(handle_of(0))) },
            procedure::CURSOR_EXECUTE => Call { values: from(5), makes: &[Made::Cursor], ..used(Handle::Run(handle_of(0))) },
            procedure::CURSOR_FETCH => Call { values: from(1), ..used(Handle::Fetch(handle_of(0))) },
            procedure::UNPREPARE | procedure::CURSOR_UNPREPARE => used(Handle::Dropped(handle_of(0))),
            procedure::CURSOR_CLOSE => used(Handle::Closed(handle_of(0))),
            _ => Call { text: format!("EXEC {name}"), values: from(0), ..Call::default() },
        }
    }
}

/// Which parameter holds the SQL.
fn statement_index(number: u16) -> Option<usize> {
    match number {
        procedure::EXECUTE_SQL => Some(0),
        procedure::CURSOR_OPEN | procedure::PREPEXEC_RPC => Some(1),
        procedure::PREPARE | procedure::PREPEXEC | procedure::CURSOR_PREPARE => Some(2),
        procedure::CURSOR_PREPEXEC => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tds::packet::put_utf16;

    fn headers() -> Vec<u8> {
        [&[22, 0, 0, 0, 18, 0, 0, 0, 2, 0][..], &[0; 8], &[1, 0, 0, 0]].concat()
    }

    fn utf16_of(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_utf16(&mut out, text);
        out
    }

    fn nvarchar(name: &str, text: &str) -> Vec<u8> {
        let mut out = vec![name.len() as u8];
        out.extend(utf16_of(name));
        out.extend([0, 0xe7, 0x40, 0x1f, 9, 4, 0xd0, 0, 0x34]);
        out.extend((2 * text.len() as u16).to_le_bytes());
        out.extend(utf16_of(text));
        out
    }

    fn int(value: i32) -> Vec<u8> {
        [&[0, 0, 0x26, 4, 4][..], &value.to_le_bytes()].concat()
    }

    fn rpc(number: u16, parameters: &[Vec<u8>]) -> Vec<u8> {
        [&[0xff, 0xff][..], &number.to_le_bytes(), &[0, 0], &parameters.concat()].concat()
    }

    /// The same however the message is cut into pieces.
    fn calls(message: &[u8]) -> Vec<Call> {
        let by = |size: usize| {
            let mut rpc = Rpc::new(128 * 1024);
            message.chunks(size).for_each(|piece| rpc.feed(piece));
            rpc.end()
        };
        let whole = by(message.len().max(1));
        for size in [1, 2, 3, 7, 500] {
            assert_eq!(by(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn calls_have_their_statement_and_their_values() {
        let one = rpc(
            10,
            &[nvarchar("", "SELECT @a, @b"), nvarchar("", "@a int, @b nvarchar(9)"), [&[2, b'@', 0, b'a', 0][..], &int(7)[1..]].concat(), nvarchar("@b", "x")],
        );
        let two = rpc(12, &[int(3), int(9)]);
        let found = calls(&[headers(), one, vec![0xff], two, vec![0xff], rpc(15, &[int(3)])].concat());
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].text.as_str(), found[0].values.clone()), ("SELECT @a, @b", vec!["@a=7".to_owned(), "@b=x".to_owned()]));
        assert_eq!((found[1].handle, found[1].values.clone()), (Handle::Run(3), vec!["9".to_owned()]));
        assert_eq!(found[2].handle, Handle::Dropped(3));
        let found = calls(&[headers(), rpc(13, &[int(0), nvarchar("", "@p int"), nvarchar("", "SELECT @p"), int(5)])].concat());
        assert_eq!((found[0].text.as_str(), found[0].values.clone(), found[0].makes), ("SELECT @p", vec!["5".to_owned()], &[Made::Prepared][..]));
        let mut named = vec![7, 0];
        named.extend(utf16_of("sp_who2"));
        named.extend([0, 0]);
        let found = calls(&[headers(), named, nvarchar("@loginame", "sa")].concat());
        assert_eq!(found[0], Call { text: "EXEC sp_who2".into(), values: vec!["@loginame=sa".into()], ..Call::default() });
        assert_eq!(calls(&[headers(), rpc(7, &[int(180_150_003), int(2)])].concat())[0].handle, Handle::Fetch(180_150_003));
    }

    #[test]
    fn a_large_value_is_stepped_over_and_what_follows_is_read() {
        let chunks = |bytes: usize| {
            let value = vec![b'x'; bytes];
            let chunk = |part: &[u8]| [&(part.len() as u32).to_le_bytes()[..], part].concat();
            let parts: Vec<u8> = value.chunks(40_000).flat_map(chunk).collect();
            [&[0, 0, 0xa5, 0xff, 0xff][..], &(bytes as u64).to_le_bytes(), &parts, &[0; 4]].concat()
        };
        let message = [
            headers(),
            rpc(10, &[nvarchar("", "INSERT f VALUES (@p)"), nvarchar("", "@p varbinary(max)"), chunks(300_000), int(7)]),
            vec![0xff],
            rpc(10, &[nvarchar("", "DELETE t")]),
        ]
        .concat();
        let found = calls(&message);
        assert_eq!(found.iter().map(|call| call.text.as_str()).collect::<Vec<_>>(), ["INSERT f VALUES (@p)", "DELETE t"]);
        assert!(found[0].values[0].ends_with("… (300000 bytes)") && found[0].values[1] == "7", "{:?}", found[0].values);
    }

    #[test]
    fn a_table_is_read_with_its_rows() {
        let table = |rows: &[(i32, &str)]| {
            let mut out = vec![0, 0, TABLE, 0, 3];
            out.extend(utf16_of("dbo"));
            out.push(3);
            out.extend(utf16_of("ids"));
            out.extend([2, 0]);
            out.extend([0, 0, 0, 0, 0, 0, 0x26, 4, 0]);
            out.extend([0, 0, 0, 0, 0, 0, 0xe7, 40, 0, 9, 4, 0xd0, 0, 0x34, 0]);
            out.extend([0x10, 1, 0, 1, 0, 1, 0x00]);
            for (id, name) in rows {
                out.extend([0x01, 4]);
                out.extend(id.to_le_bytes());
                out.extend((2 * name.len() as u16).to_le_bytes());
                out.extend(utf16_of(name));
            }
            out.push(0x00);
            out
        };
        let found = calls(&[headers(), rpc(10, &[nvarchar("", "EXEC p @t"), nvarchar("", "@t dbo.ids"), table(&[(1, "a"), (2, "b")]), int(9)])].concat());
        assert_eq!(found[0].values, ["table dbo.ids: 2 rows: (1, a), (2, b)", "9"]);
        let found = calls(&[headers(), rpc(10, &[nvarchar("", "EXEC p @t"), nvarchar("", "@t dbo.ids"), table(&[(7, "x"); 5_000]), int(9)])].concat());
        assert!(found[0].values[0].starts_with("table dbo.ids: 5000 rows: (7, x), ") && found[0].values[0].ends_with('…'), "{}", found[0].values[0]);
        assert!(found[0].values[0].len() < 700 && found[0].values[1] == "9");
        let none = [&[0, 0, TABLE, 0, 0, 1][..], &utf16_of("t"), &[0xff, 0xff, 0, 0]].concat();
        assert_eq!(calls(&[headers(), rpc(10, &[nvarchar("", "EXEC p @t"), nvarchar("", "@t t"), none, int(9)])].concat())[0].values, ["table t: NULL", "9"]);
    }

    #[test]
    fn an_encrypted_value_is_said_to_be_one() {
        let encrypted = [&[0, ENCRYPTED, 0xa5, 0x40, 0x1f, 65, 0][..], &[0xee; 65], &[0x26, 4], &[2, 1], &[0; 4 + 4 + 4 + 8], &[1]].concat();
        let found = calls(&[headers(), rpc(10, &[nvarchar("", "SELECT @a, @b"), nvarchar("", "@a int, @b int"), encrypted, int(7)])].concat());
        assert_eq!(found[0].values, ["(encrypted, 65 bytes)", "7"]);
    }

    #[test]
    fn thousands_of_calls_are_counted_to_the_last() {
        let one = rpc(12, &[int(3), int(9)]);
        let message = [headers(), vec![one; 10_000].join(&0xff)].concat();
        let found = calls(&message);
        assert_eq!(found.len(), limits::TDS_CALLS + 1);
        assert_eq!(found.last().unwrap().text, "(8976 more calls in one message; the last of those on record: EXEC sp_execute 3)");
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_is_bound() {
        let long = "n".repeat(120);
        let one = rpc(10, &[&[nvarchar("", "SELECT 1"), nvarchar("", "@p int")][..], &vec![nvarchar(&long, "x"); 300]].concat());
        let message = [headers(), vec![one; 400].join(&0xff)].concat();
        let mut rpc = Rpc::new(64 * 1024);
        let mut most = 0;
        for piece in message.chunks(1_000) {
            rpc.feed(piece);
            most = most.max(rpc.held());
        }
        assert!(most < 64 * 1024 + SIZES + PIECE, "{most} bytes were held");
        let found = rpc.end();
        assert!(found.len() == 400 && found.iter().all(|call| call.text == "SELECT 1" && call.values.len() < 300));
        assert_eq!(found[399].values, ["… (more was bound than is recorded)"]);
    }

    #[test]
    fn what_is_cut_or_unknown_is_said_to_be() {
        let message = [headers(), rpc(10, &[nvarchar("", "SELECT 1"), vec![0, 0, 0xf9, 0, 0, 0]])].concat();
        let found = calls(&message);
        assert_eq!((found[0].text.as_str(), found[0].values.last().map(String::as_str)), ("SELECT 1", Some("(not readable)")));
        assert_eq!(found[1].text, "(further calls may follow in 6 bytes that were not read)");
        for cut in 0..message.len() {
            assert!(!calls(&message[..cut]).is_empty(), "cut at {cut}");
        }
    }
}
