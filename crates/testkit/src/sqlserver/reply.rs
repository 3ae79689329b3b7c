//! Results as tokens ([MS-TDS] 2.2.7).

use super::types::{COLLATION, MAX, Type};
use daypass_wire::tds::{
    packet::put_short_text,
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

impl Value {
    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            Value::Real(number) => Some(*number as i64),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub fn real(&self) -> Option<f64> {
        match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Real(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// As CAST would write it.
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Value::Null => return None,
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Real(number) => number.to_string(),
            Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
        })
    }
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Column {
    pub name: String,
    /// As documented, and whether it may be NULL; where nothing says so, a column has the type of what stands in it.
    pub ty: Option<(Type, bool)>,
    /// What SQLite calls it, for a column in which nothing stands.
    pub declared: String,
}

impl Column {
    pub fn named(name: impl Into<String>) -> Column {
        Column { name: name.into(), ..Column::default() }
    }
}

pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn ty(&self, at: usize) -> (Type, bool) {
        if let Some(ty) = self.columns[at].ty {
            return ty;
        }
        let values = || self.rows.iter().map(|row| &row[at]);
        let length = |longest: usize, most: u16| if longest > usize::from(most) { MAX } else { most };
        let ty = match (values().find(|value| **value != Value::Null), self.columns[at].declared.as_str()) {
            (Some(Value::Integer(_)), _) | (None, "INTEGER") => Type::BigInt,
            (Some(Value::Real(_)), _) | (None, "REAL") => Type::Float,
            (Some(Value::Bytes(_)), _) => {
                Type::VarBinary(length(values().map(|value| if let Value::Bytes(bytes) = value { bytes.len() } else { 0 }).max().unwrap_or(0), 8_000))
            }
            _ => Type::NVarChar(length(values().map(|value| value.text().map_or(0, |text| text.encode_utf16().count())).max().unwrap_or(0), 4_000)),
        };
        (ty, true)
    }

    /// COLMETADATA, the rows, and how many they are.
    pub fn put(&self, out: &mut Vec<u8>) -> u64 {
        let types: Vec<(Type, bool)> = (0..self.columns.len()).map(|at| self.ty(at)).collect();
        out.push(token_type::COLUMNS);
        out.extend((self.columns.len() as u16).to_le_bytes());
        for (column, (ty, nullable)) in self.columns.iter().zip(&types) {
            // user type, then flags: whether it may be NULL, may be written
            out.extend([0, 0, 0, 0, 8 | u8::from(*nullable), 0]);
            ty.put(out, *nullable);
            put_short_text(out, &column.name);
        }
        self.put_rows(out, &types);
        self.rows.len() as u64
    }

    /// The rows alone, for whoever has been told their columns ([MS-TDS] 2.2.7.4, NoMetaData).
    pub fn put_undescribed(&self, out: &mut Vec<u8>) -> u64 {
        out.extend([token_type::COLUMNS, 0xff, 0xff]);
        let types: Vec<(Type, bool)> = (0..self.columns.len()).map(|at| self.ty(at)).collect();
        self.put_rows(out, &types);
        self.rows.len() as u64
    }

    fn put_rows(&self, out: &mut Vec<u8>, types: &[(Type, bool)]) {
        for row in &self.rows {
            out.push(token_type::ROW);
            for (value, (ty, nullable)) in row.iter().zip(types) {
                ty.put_value(out, *nullable, value);
            }
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
