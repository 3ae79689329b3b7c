//! Results as tokens ([MS-TDS] 2.2.7).

use daypass_wire::tds::{
    packet::{put_short_text, put_utf16},
    token::{done, put_done, token_type},
};

#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Integer,
    Real,
    /// `nvarchar` of so many bytes, or `max`.
    Text(u16),
    Bytes(u16),
}

/// Rows whose columns have the type of what stands in them.
pub struct Table {
    pub columns: Vec<String>,
    /// What the columns were declared as, for those in which nothing stands.
    pub declared: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

const MAX: u16 = u16::MAX;
const COLLATION: [u8; 5] = [0x09, 0x04, 0xd0, 0x00, 0x34];

impl Table {
    fn kind(&self, at: usize) -> Kind {
        let values = || self.rows.iter().map(|row| &row[at]);
        let longest = |n: usize| if n > 8_000 { MAX } else { 8_000 };
        match values().find(|value| **value != Value::Null) {
            Some(Value::Integer(_)) => Kind::Integer,
            Some(Value::Real(_)) => Kind::Real,
            Some(Value::Bytes(_)) => Kind::Bytes(longest(values().map(|v| if let Value::Bytes(b) = v { b.len() } else { 0 }).max().unwrap_or(0))),
            None if self.declared.get(at).is_some_and(|name| name == "INTEGER") => Kind::Integer,
            None if self.declared.get(at).is_some_and(|name| name == "REAL") => Kind::Real,
            _ => Kind::Text(longest(values().map(|v| if let Value::Text(t) = v { 2 * t.encode_utf16().count() } else { 0 }).max().unwrap_or(0))),
        }
    }

    /// COLMETADATA, the rows, and how many they are.
    pub fn put(&self, out: &mut Vec<u8>) -> u64 {
        let kinds: Vec<Kind> = (0..self.columns.len()).map(|at| self.kind(at)).collect();
        out.push(token_type::COLUMNS);
        out.extend((self.columns.len() as u16).to_le_bytes());
        for (name, kind) in self.columns.iter().zip(&kinds) {
            // user type, then flags: may be NULL, may be written
            out.extend([0, 0, 0, 0, 9, 0]);
            put_type(out, *kind);
            put_short_text(out, name);
        }
        for row in &self.rows {
            out.push(token_type::ROW);
            for (value, kind) in row.iter().zip(&kinds) {
                put_value(out, value, *kind);
            }
        }
        self.rows.len() as u64
    }
}

fn put_type(out: &mut Vec<u8>, kind: Kind) {
    match kind {
        Kind::Integer => out.extend([0x26, 8]),
        Kind::Real => out.extend([0x6d, 8]),
        Kind::Text(most) => {
            out.push(0xe7);
            out.extend(most.to_le_bytes());
            out.extend(COLLATION);
        }
        Kind::Bytes(most) => {
            out.push(0xa5);
            out.extend(most.to_le_bytes());
        }
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value, kind: Kind) {
    let put_bytes = |out: &mut Vec<u8>, bytes: &[u8], most: u16| {
        if most == MAX {
            out.extend((bytes.len() as u64).to_le_bytes());
            if !bytes.is_empty() {
                out.extend((bytes.len() as u32).to_le_bytes());
                out.extend(bytes);
            }
            out.extend([0; 4]);
        } else {
            out.extend((bytes.len() as u16).to_le_bytes());
            out.extend(bytes);
        }
    };
    match (kind, value) {
        (Kind::Integer | Kind::Real, Value::Null) => out.push(0),
        (Kind::Integer, Value::Integer(number)) => {
            out.push(8);
            out.extend(number.to_le_bytes());
        }
        (Kind::Real, Value::Real(number)) => {
            out.push(8);
            out.extend(number.to_le_bytes());
        }
        (Kind::Real, Value::Integer(number)) => {
            out.push(8);
            out.extend((*number as f64).to_le_bytes());
        }
        (Kind::Integer | Kind::Real, _) => out.push(0),
        (Kind::Text(MAX) | Kind::Bytes(MAX), Value::Null) => out.extend([0xff; 8]),
        (Kind::Text(_) | Kind::Bytes(_), Value::Null) => out.extend([0xff; 2]),
        (Kind::Bytes(most), Value::Bytes(bytes)) => put_bytes(out, bytes, most),
        (Kind::Text(most) | Kind::Bytes(most), other) => {
            let text = match other {
                Value::Text(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Real(number) => number.to_string(),
                Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
                Value::Null => String::new(),
            };
            let mut bytes = Vec::new();
            put_utf16(&mut bytes, &text);
            put_bytes(out, &bytes, most);
        }
    }
}

/// An output parameter that is an `int`.
pub fn put_returned(out: &mut Vec<u8>, name: &str, value: i32) {
    out.push(token_type::RETURN_VALUE);
    out.extend([0, 0]);
    put_short_text(out, name);
    out.push(1);
    out.extend([0, 0, 0, 0, 0, 0]);
    out.extend([0x26, 4, 4]);
    out.extend(value.to_le_bytes());
}

/// How a statement ends: inside of a procedure or not, and whether another follows.
pub fn put_end(out: &mut Vec<u8>, in_procedure: bool, more: bool, error: bool, rows: Option<u64>, is_select: bool) {
    let kind = if in_procedure { token_type::DONE_IN_PROC } else { token_type::DONE };
    let status = [(more, done::MORE), (error, done::ERROR), (rows.is_some(), done::COUNT)].iter().filter(|(is, _)| *is).fold(0, |all, (_, bit)| all | bit);
    put_done(out, kind, status, if is_select { done::SELECT } else { 0xc3 }, rows.unwrap_or(0));
}

/// ENVCHANGE of a transaction: 8 begins, 9 commits, 10 rolls back ([MS-TDS] 2.2.7.9).
pub fn put_transaction(out: &mut Vec<u8>, what: u8, descriptor: u64) {
    let number = descriptor.to_le_bytes();
    let (new, old): (&[u8], &[u8]) = if what == 8 { (&number, &[]) } else { (&[], &number) };
    out.push(token_type::ENV_CHANGE);
    out.extend(((3 + new.len() + old.len()) as u16).to_le_bytes());
    out.push(what);
    out.push(new.len() as u8);
    out.extend(new);
    out.push(old.len() as u8);
    out.extend(old);
}

/// ENVCHANGE of the collation.
pub fn put_collation(out: &mut Vec<u8>) {
    out.push(token_type::ENV_CHANGE);
    out.extend([8, 0, 7, 5]);
    out.extend(COLLATION);
    out.push(0);
}
