//! What clients ask: remote procedure calls with their values, and rows in bulk ([MS-TDS] 2.2.6.6, 2.2.6.1).

use super::reply::Value;
use daypass_wire::tds::{
    packet::{Reader, utf16},
    token::token_type,
    types::Type,
};

pub struct Call {
    pub procedure: String,
    /// The client knows the columns: it wants rows only (fNoMetaData).
    pub without_description: bool,
    pub parameters: Vec<(String, Value)>,
}

/// What stands behind the headers of a request.
pub fn body(message: &[u8]) -> &[u8] {
    let total = Reader(message).u32().unwrap_or(0) as usize;
    message.get(total.min(message.len())..).unwrap_or_default()
}

pub fn calls(message: &[u8]) -> Option<Vec<Call>> {
    let mut r = Reader(body(message));
    let mut calls = Vec::new();
    while !r.0.is_empty() {
        let length = r.u16()?;
        let procedure = if length == u16::MAX {
            let known = ["", "sp_cursor", "sp_cursoropen", "sp_cursorprepare", "sp_cursorexecute", "sp_cursorprepexec", "sp_cursorunprepare", "sp_cursorfetch"];
            let later = ["sp_cursoroption", "sp_cursorclose", "sp_executesql", "sp_prepare", "sp_execute", "sp_prepexec", "sp_prepexecrpc", "sp_unprepare"];
            let number = usize::from(r.u16()?);
            (*known.iter().chain(&later).nth(number)?).to_owned()
        } else {
            utf16(r.take(2 * usize::from(length))?)
        };
        let without_description = r.u16()? & 2 != 0;
        let mut parameters = Vec::new();
        while let Some(next) = r.0.first() {
            if matches!(next, 0x80 | 0xfe | 0xff) {
                r.take(1);
                break;
            }
            let name = r.short_text()?;
            r.u8()?;
            let ty = Type::read(&mut r, false)?;
            parameters.push((name, value(&ty, &mut r)?));
        }
        calls.push(Call { procedure: procedure.to_lowercase(), without_description, parameters });
    }
    Some(calls)
}

fn value(ty: &Type, r: &mut Reader<'_>) -> Option<Value> {
    let before = r.0.len();
    let (text, units) = ty.value(r, usize::MAX / 2)?;
    let taken = before - r.0.len();
    // NULL has no bytes behind its length
    if text == "NULL" && units == 0 && taken <= 8 {
        return Some(Value::Null);
    }
    Some(match ty.token {
        0x26 | 0x30 | 0x32 | 0x34 | 0x38 | 0x68 | 0x7f => text.parse().map_or(Value::Text(text), Value::Integer),
        0x3a | 0x3b | 0x3e | 0x6d | 0x6a | 0x6c | 0x6e | 0x3c | 0x7a => text.parse().map_or(Value::Text(text), Value::Real),
        0xa5 | 0xad | 0x25 | 0x2d => Value::Bytes((1..text.len() / 2).filter_map(|n| u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()).collect()),
        _ => Value::Text(text),
    })
}

/// A value as T-SQL.
pub fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("N'{}'", text.replace('\'', "''")),
        Value::Bytes(bytes) => format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

/// The names in a declaration like `@P1 int,@P2 nvarchar(4000)`.
pub fn declared(text: &str) -> Vec<String> {
    super::lexer::tokens(text).iter().filter(|t| t.text().starts_with('@')).map(super::lexer::Token::text).collect()
}

/// The statement with its parameters filled in.
pub fn filled(sql: &str, values: &[(String, Value)]) -> String {
    let (mut out, mut rest, mut in_text) = (String::new(), sql, false);
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            in_text = !in_text;
        }
        if c == '@' && !in_text && !rest.starts_with("@@") {
            let length = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(rest.len(), |n| n + 1);
            if let Some((_, value)) = values.iter().find(|(name, _)| name.eq_ignore_ascii_case(&rest[..length])) {
                out.push_str(&literal(value));
                rest = &rest[length..];
                continue;
            }
        }
        if rest.starts_with("@@") {
            out.push_str("@@");
            rest = &rest[2..];
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// The rows of a bulk load.
pub fn bulk(message: &[u8]) -> Option<Vec<Vec<Value>>> {
    let mut r = Reader(message);
    if r.u8()? != token_type::COLUMNS {
        return None;
    }
    let mut types = Vec::new();
    for _ in 0..r.u16()? {
        r.take(6)?;
        let ty = Type::read(&mut r, true)?;
        if ty.has_table() {
            return None;
        }
        r.short_text()?;
        types.push(ty);
    }
    let mut rows = Vec::new();
    loop {
        // FreeTDS ends with the message, others with a DONE
        match r.u8().unwrap_or(token_type::DONE) {
            token_type::ROW => rows.push(types.iter().map(|ty| value(ty, &mut r)).collect::<Option<_>>()?),
            token_type::NBC_ROW => {
                let nulls = r.take(types.len().div_ceil(8))?;
                let is_null = |at: usize| nulls[at / 8] >> (at % 8) & 1 == 1;
                rows.push(types.iter().enumerate().map(|(at, ty)| if is_null(at) { Some(Value::Null) } else { value(ty, &mut r) }).collect::<Option<_>>()?);
            }
            _ => return Some(rows),
        }
    }
}
