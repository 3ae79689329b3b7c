//! The types of Transact-SQL on the wire ([MS-TDS] 2.2.5.4 and 2.2.5.5): what a column is declared as, and a value of it.

use super::reply::Value;
use daypass_wire::tds::packet::put_utf16;
use std::fmt;

/// As documented for a column: what it is called is what [`Type::of`] reads and what is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Real,
    Float,
    /// Digits in all, and behind the point.
    Numeric(u8, u8),
    UniqueIdentifier,
    DateTime,
    /// Bytes, or `max`.
    VarBinary(u16),
    /// Characters, or `max`.
    NVarChar(u16),
    NChar(u16),
    VarChar(u16),
    Char(u16),
    /// `sql_variant`: here of a text or an int.
    Variant,
}

/// Instead of a length.
pub const MAX: u16 = u16::MAX;
pub const COLLATION: [u8; 5] = [0x09, 0x04, 0xd0, 0x00, 0x34];

/// The type of names (Data types, Transact-SQL reference: `sysname` is `nvarchar(128)`).
pub const SYSNAME: Type = Type::NVarChar(128);

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sized = |f: &mut fmt::Formatter<'_>, name: &str, length: u16| if length == MAX { write!(f, "{name}(max)") } else { write!(f, "{name}({length})") };
        match *self {
            Type::Bit => f.write_str("bit"),
            Type::TinyInt => f.write_str("tinyint"),
            Type::SmallInt => f.write_str("smallint"),
            Type::Int => f.write_str("int"),
            Type::BigInt => f.write_str("bigint"),
            Type::Real => f.write_str("real"),
            Type::Float => f.write_str("float"),
            Type::Numeric(digits, scale) => write!(f, "numeric({digits},{scale})"),
            Type::UniqueIdentifier => f.write_str("uniqueidentifier"),
            Type::DateTime => f.write_str("datetime"),
            Type::VarBinary(length) => sized(f, "varbinary", length),
            Type::NVarChar(length) => sized(f, "nvarchar", length),
            Type::NChar(length) => sized(f, "nchar", length),
            Type::VarChar(length) => sized(f, "varchar", length),
            Type::Char(length) => sized(f, "char", length),
            Type::Variant => f.write_str("sql_variant"),
        }
    }
}

impl Type {
    /// Reads what stands behind AS in a CAST: words and numbers without their parentheses.
    pub fn of(name: &str, sizes: &[String]) -> Option<Type> {
        let length = |or: u16| sizes.first().map_or(Some(or), |size| if size.eq_ignore_ascii_case("max") { Some(MAX) } else { size.parse().ok() });
        Some(match name.to_ascii_lowercase().as_str() {
            "bit" => Type::Bit,
            "tinyint" => Type::TinyInt,
            "smallint" => Type::SmallInt,
            "int" | "integer" => Type::Int,
            "bigint" => Type::BigInt,
            "real" => Type::Real,
            "float" => Type::Float,
            "numeric" | "decimal" => Type::Numeric(sizes.first().map_or(Some(18), |n| n.parse().ok())?, sizes.get(1).map_or(Some(0), |n| n.parse().ok())?),
            "uniqueidentifier" => Type::UniqueIdentifier,
            "datetime" => Type::DateTime,
            "varbinary" => Type::VarBinary(length(30)?),
            "sysname" => SYSNAME,
            "nvarchar" => Type::NVarChar(length(30)?),
            "nchar" => Type::NChar(length(30)?),
            "varchar" => Type::VarChar(length(30)?),
            "char" => Type::Char(length(30)?),
            "sql_variant" => Type::Variant,
            _ => return None,
        })
    }

    /// TYPE_INFO: what is never NULL has a type of fixed length where there is one.
    pub fn put(self, out: &mut Vec<u8>, nullable: bool) {
        let fixed = |out: &mut Vec<u8>, fixed: u8, or: u8, length: u8| if nullable { out.extend([or, length]) } else { out.push(fixed) };
        let long = |out: &mut Vec<u8>, token: u8, bytes: u16, collated: bool| {
            out.push(token);
            out.extend(bytes.to_le_bytes());
            out.extend(collated.then_some(COLLATION).into_iter().flatten());
        };
        let twice = |length: u16| if length == MAX { MAX } else { 2 * length };
        match self {
            Type::Bit => fixed(out, 0x32, 0x68, 1),
            Type::TinyInt => fixed(out, 0x30, 0x26, 1),
            Type::SmallInt => fixed(out, 0x34, 0x26, 2),
            Type::Int => fixed(out, 0x38, 0x26, 4),
            Type::BigInt => fixed(out, 0x7f, 0x26, 8),
            Type::Real => fixed(out, 0x3b, 0x6d, 4),
            Type::Float => fixed(out, 0x3e, 0x6d, 8),
            Type::DateTime => fixed(out, 0x3d, 0x6f, 8),
            Type::Numeric(digits, scale) => out.extend([0x6c, decimal_bytes(digits) + 1, digits, scale]),
            Type::UniqueIdentifier => out.extend([0x24, 16]),
            Type::VarBinary(bytes) => long(out, 0xa5, bytes, false),
            Type::NVarChar(length) => long(out, 0xe7, twice(length), true),
            Type::NChar(length) => long(out, 0xef, twice(length), true),
            Type::VarChar(length) => long(out, 0xa7, length, true),
            Type::Char(length) => long(out, 0xaf, length, true),
            Type::Variant => {
                out.push(0x62);
                out.extend(8_009_u32.to_le_bytes());
            }
        }
    }

    /// A value in a row. What does not fit the type is NULL, as with TRY_CAST; where there is no NULL, nothing but the type's own zero.
    pub fn put_value(self, out: &mut Vec<u8>, nullable: bool, value: &Value) {
        let plain: Option<Vec<u8>> = match self {
            Type::Bit => value.integer().map(|number| vec![u8::from(number != 0)]),
            Type::TinyInt => value.integer().map(|number| vec![number as u8]),
            Type::SmallInt => value.integer().map(|number| (number as i16).to_le_bytes().to_vec()),
            Type::Int => value.integer().map(|number| (number as i32).to_le_bytes().to_vec()),
            Type::BigInt => value.integer().map(|number| number.to_le_bytes().to_vec()),
            Type::Real => value.real().map(|number| (number as f32).to_le_bytes().to_vec()),
            Type::Float => value.real().map(|number| number.to_le_bytes().to_vec()),
            Type::DateTime => value.text().and_then(|text| moment(&text)).map(|(days, ticks)| [days.to_le_bytes(), ticks.to_le_bytes()].concat()),
            Type::UniqueIdentifier => value.text().and_then(|text| uuid::Uuid::parse_str(&text).ok()).map(|guid| guid.to_bytes_le().to_vec()),
            Type::Numeric(digits, _) => value.integer().map(|number| decimal(number, digits)),
            Type::VarBinary(_) => match value {
                Value::Bytes(bytes) => Some(bytes.clone()),
                _ => None,
            },
            Type::NVarChar(_) => value.text().map(|text| utf16(&text)),
            Type::NChar(length) => value.text().map(|text| utf16(&padded(&text, length))),
            Type::VarChar(_) => value.text().map(String::into_bytes),
            Type::Char(length) => value.text().map(|text| padded(&text, length).into_bytes()),
            Type::Variant => {
                return put_variant(out, value);
            }
        };
        match self {
            Type::VarBinary(MAX) | Type::NVarChar(MAX) | Type::VarChar(MAX) => match plain {
                None => out.extend([0xff; 8]),
                Some(bytes) => {
                    out.extend((bytes.len() as u64).to_le_bytes());
                    if !bytes.is_empty() {
                        out.extend((bytes.len() as u32).to_le_bytes());
                        out.extend(bytes);
                    }
                    out.extend([0; 4]);
                }
            },
            Type::VarBinary(most) => put_short(out, plain, usize::from(most)),
            Type::NVarChar(most) | Type::NChar(most) => put_short(out, plain, 2 * usize::from(most)),
            Type::VarChar(most) | Type::Char(most) => put_short(out, plain, usize::from(most)),
            Type::Numeric(..) | Type::UniqueIdentifier => match plain {
                Some(bytes) => {
                    out.push(bytes.len() as u8);
                    out.extend(bytes);
                }
                None => out.push(0),
            },
            _ if nullable => {
                let bytes = plain.unwrap_or_default();
                out.push(bytes.len() as u8);
                out.extend(bytes);
            }
            _ => out.extend(plain.unwrap_or_else(|| vec![0; self.fixed()])),
        }
    }

    fn fixed(self) -> usize {
        match self {
            Type::Bit | Type::TinyInt => 1,
            Type::SmallInt => 2,
            Type::Int | Type::Real => 4,
            _ => 8,
        }
    }
}

fn put_short(out: &mut Vec<u8>, bytes: Option<Vec<u8>>, most: usize) {
    match bytes {
        None => out.extend([0xff; 2]),
        Some(mut bytes) => {
            bytes.truncate(most);
            out.extend((bytes.len() as u16).to_le_bytes());
            out.extend(bytes);
        }
    }
}

fn utf16(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_utf16(&mut bytes, text);
    bytes
}

fn padded(text: &str, length: u16) -> String {
    format!("{text:<width$}", width = usize::from(length))
}

/// Bytes of a number of so many digits, without its sign ([MS-TDS] 2.2.5.5.1.6).
fn decimal_bytes(digits: u8) -> u8 {
    match digits {
        0..=9 => 4,
        10..=19 => 8,
        20..=28 => 12,
        _ => 16,
    }
}

fn decimal(number: i64, digits: u8) -> Vec<u8> {
    let mut bytes = vec![u8::from(number >= 0)];
    bytes.extend(&u128::from(number.unsigned_abs()).to_le_bytes()[..usize::from(decimal_bytes(digits))]);
    bytes
}

/// A `sql_variant` ([MS-TDS] 2.2.5.5.3): a length, the base type, its properties, the value.
fn put_variant(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null | Value::Bytes(_) | Value::Real(_) => out.extend([0; 4]),
        Value::Integer(number) => {
            out.extend(6_u32.to_le_bytes());
            out.extend([0x38, 0]);
            out.extend((*number as i32).to_le_bytes());
        }
        Value::Text(text) => {
            let bytes = utf16(text);
            out.extend((2 + 7 + bytes.len() as u32).to_le_bytes());
            out.extend([0xe7, 7]);
            out.extend(COLLATION);
            out.extend(8_000_u16.to_le_bytes());
            out.extend(bytes);
        }
    }
}

/// Days from 1900-01-01, and three hundredths of a second ([MS-TDS] 2.2.5.5.1.8), of `YYYY-MM-DD hh:mm:ss.fff`.
fn moment(text: &str) -> Option<(i32, u32)> {
    let at: jiff::civil::DateTime = text.replace(' ', "T").parse().ok()?;
    let days = at.date().since((jiff::Unit::Day, jiff::civil::date(1900, 1, 1))).ok()?.get_days();
    let seconds = u32::try_from(i32::from(at.hour()) * 3_600 + i32::from(at.minute()) * 60 + i32::from(at.second())).ok()?;
    Some((days, seconds * 300 + (u32::try_from(at.subsec_nanosecond()).ok()? / 1_000_000 * 3 + 5) / 10))
}
