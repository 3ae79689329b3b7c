//! What a client asks: batches, remote procedure calls, transactions ([MS-TDS] 2.2.6.6, 2.2.6.7, 2.2.6.9). Read for the record
//! only: what cannot be read is recorded as such, and runs all the same.

use super::{
    packet::{Reader, utf16},
    types::Type,
};
use crate::limits;

/// One thing that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Call {
    pub text: String,
    /// UTF-16 units of the whole text.
    pub text_units: usize,
    pub values: Vec<String>,
    pub handle: Handle,
}

/// What a call has to do with prepared statements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Handle {
    #[default]
    None,
    /// The reply gives a handle for its text.
    Made,
    /// Runs what the handle stands for.
    Run(i64),
    Dropped(i64),
}

/// The SQL of a batch. `whole` is the length of the message, of which `bytes` may be the beginning.
pub fn batch(bytes: &[u8], whole: usize) -> Call {
    let text = without_headers(bytes);
    let units = (whole - (bytes.len() - text.len())) / 2;
    Call { text: cut(&utf16(text)), text_units: units, ..Call::default() }
}

/// Most requests begin with headers: a total that counts itself, then each with a length of its own ([MS-TDS] 2.2.5.3).
/// Clients that speak TDS 7.1 send none.
fn without_headers(bytes: &[u8]) -> &[u8] {
    let skip = || {
        let total = usize::try_from(Reader(bytes).u32()?).ok()?;
        let (headers, rest) = bytes.split_at_checked(total)?;
        let mut headers = Reader(headers.get(4..)?);
        while !headers.0.is_empty() {
            let length = usize::try_from(Reader(headers.0).u32()?).ok()?;
            headers.take(length.max(1))?;
        }
        Some(rest)
    };
    skip().unwrap_or(bytes)
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(limits::STATEMENT_TEXT)].to_owned()
}

/// Whether a transaction request hands the transaction to a coordinator, or takes one from it ([MS-TDS] 2.2.6.9: TM_GET_DTC_ADDRESS,
/// TM_PROPAGATE_XACT, TM_PROMOTE_XACT). Such a transaction is committed by others, also when the session is gone.
pub fn is_distributed(bytes: &[u8]) -> bool {
    matches!(Reader(without_headers(bytes)).u16(), Some(0 | 1 | 6))
}

/// A transaction request.
pub fn transaction(bytes: &[u8]) -> Call {
    let text = match Reader(without_headers(bytes)).u16() {
        Some(0) => "(transaction: get the coordinator's address)",
        Some(1) => "(transaction: join a distributed one)",
        Some(5) => "BEGIN TRANSACTION",
        Some(6) => "(transaction: make it a distributed one)",
        Some(7) => "COMMIT TRANSACTION",
        Some(8) => "ROLLBACK TRANSACTION",
        Some(9) => "SAVE TRANSACTION",
        _ => "(transaction request that could not be read)",
    };
    Call { text: text.to_owned(), ..Call::default() }
}

mod procedure {
    pub const CURSOR_OPEN: u16 = 2;
    pub const CURSOR_PREPARE: u16 = 3;
    pub const CURSOR_EXECUTE: u16 = 4;
    pub const CURSOR_PREPEXEC: u16 = 5;
    pub const EXECUTE_SQL: u16 = 10;
    pub const PREPARE: u16 = 11;
    pub const EXECUTE: u16 = 12;
    pub const PREPEXEC_RPC: u16 = 14;
    pub const PREPEXEC: u16 = 13;
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

/// The calls of an RPC message. `whole` is its length, of which `bytes` may be the beginning.
pub fn calls(bytes: &[u8], whole: usize) -> Vec<Call> {
    let mut r = Reader(without_headers(bytes));
    let mut calls = Vec::new();
    loop {
        let (call, more) = call(&mut r, bytes.len() < whole);
        calls.push(call);
        if !more {
            break;
        }
        // a message of calls beyond number would cost more to record than to send
        if calls.len() >= limits::TDS_CALLS {
            break;
        }
    }
    // what was not read may hold further calls, and all of them run
    let unread = r.0.len() + (whole - bytes.len());
    if unread > 0 {
        calls.push(Call { text: format!("(further calls may follow in {unread} bytes that were not read)"), ..Call::default() });
    }
    calls
}

/// Reads one call; says whether another follows.
fn call(r: &mut Reader<'_>, is_cut: bool) -> (Call, bool) {
    let not_readable = |name: String| Call { text: format!("EXEC {name} (parameters that could not be read)"), ..Call::default() };
    let Some((name, number)) = procedure_name(r) else {
        return (Call { text: "(remote procedure call that could not be read)".to_owned(), ..Call::default() }, false);
    };
    let mut parameters = Vec::new();
    // a procedure that has no number here may take a statement in whichever parameter
    let mut budget = if number == 0 { 2 * limits::STATEMENT_TEXT } else { limits::BOUND_VALUES };
    let most = if number == 0 { budget } else { limits::BOUND_VALUE };
    loop {
        match r.0.first() {
            None => break,
            // the mark between two calls; 0xfe: this one is not to run. (A name has at most 127 characters: 0x80 marked the end before
            // TDS 7.2, which is not spoken here.)
            Some(0xff | 0xfe) => {
                r.take(1);
                return (finish(&name, number, parameters), !r.0.is_empty());
            }
            Some(_) => {}
        }
        let wanted = if is_statement(number, parameters.len()) { 2 * limits::STATEMENT_TEXT } else { most.min(budget) };
        match parameter(r, wanted) {
            Some(parameter) => {
                budget = budget.saturating_sub(parameter.value.len());
                // SQL Server takes 2,100 of them; the rest is counted
                if parameters.len() < limits::TDS_PARAMETERS {
                    parameters.push(parameter);
                }
            }
            None if parameters.is_empty() && !is_cut => return (not_readable(name), false),
            None => {
                let mut call = finish(&name, number, parameters);
                call.values.push(if is_cut { "… (more was bound than is recorded)" } else { "(not readable)" }.to_owned());
                return (call, false);
            }
        }
    }
    (finish(&name, number, parameters), false)
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

struct Parameter {
    name: String,
    value: String,
    units: usize,
}

fn parameter(r: &mut Reader<'_>, keep: usize) -> Option<Parameter> {
    let name = r.short_text()?;
    r.u8()?;
    let ty = Type::read(r, false)?;
    let (value, units) = ty.value(r, keep)?;
    Some(Parameter { name, value, units })
}

/// Which parameter holds the SQL.
fn is_statement(number: u16, index: usize) -> bool {
    statement_index(number) == Some(index)
}

fn statement_index(number: u16) -> Option<usize> {
    match number {
        procedure::EXECUTE_SQL => Some(0),
        procedure::CURSOR_OPEN | procedure::PREPEXEC_RPC => Some(1),
        procedure::PREPARE | procedure::PREPEXEC | procedure::CURSOR_PREPARE => Some(2),
        procedure::CURSOR_PREPEXEC => Some(3),
        _ => None,
    }
}

fn finish(name: &str, number: u16, parameters: Vec<Parameter>) -> Call {
    let shown = |p: &Parameter| if p.name.is_empty() { p.value.clone() } else { format!("{}={}", p.name, p.value) };
    let from = |n: usize| parameters.iter().skip(n).map(shown).collect::<Vec<_>>();
    let handle_of = |index: usize| parameters.get(index).and_then(|p| p.value.parse().ok()).unwrap_or(-1);
    let statement = statement_index(number).and_then(|index| parameters.get(index)).map(|p| (cut(&p.value), p.units));
    match (number, statement) {
        (procedure::EXECUTE_SQL, Some((text, text_units))) => Call { text, text_units, values: from(2), handle: Handle::None },
        (procedure::PREPEXEC, Some((text, text_units))) => Call { text, text_units, values: from(3), handle: Handle::Made },
        (procedure::PREPEXEC_RPC, Some((text, text_units))) => Call { text, text_units, values: from(2), handle: Handle::Made },
        (procedure::PREPARE, Some((text, text_units))) => Call { text, text_units, values: Vec::new(), handle: Handle::Made },
        // behind the options come the values that are bound: Transact-SQL reference, sp_cursoropen, sp_cursorprepexec, sp_cursorexecute
        (procedure::CURSOR_OPEN, Some((text, text_units))) => Call { text, text_units, values: from(5), handle: Handle::None },
        (procedure::CURSOR_PREPARE, Some((text, text_units))) => Call { text, text_units, values: Vec::new(), handle: Handle::Made },
        (procedure::CURSOR_PREPEXEC, Some((text, text_units))) => Call { text, text_units, values: from(7), handle: Handle::Made },
        (procedure::EXECUTE | procedure::CURSOR_EXECUTE, _) => {
            let values = from(if number == procedure::EXECUTE { 1 } else { 5 });
            Call { text: format!("EXEC {name} {}", handle_of(0)), text_units: 0, values, handle: Handle::Run(handle_of(0)) }
        }
        (procedure::UNPREPARE, _) => Call { text: format!("EXEC {name} {}", handle_of(0)), handle: Handle::Dropped(handle_of(0)), ..Call::default() },
        _ => Call { text: format!("EXEC {name}"), text_units: 0, values: from(0), handle: Handle::None },
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

    #[test]
    fn a_batch_is_its_text_with_and_without_headers() {
        let text = utf16_of("SELECT 1");
        let with = [headers(), text.clone()].concat();
        assert_eq!((batch(&with, with.len()).text, batch(&with, with.len()).text_units), ("SELECT 1".to_owned(), 8));
        assert_eq!(batch(&text, text.len()).text, "SELECT 1");
        assert_eq!(batch(&with, 1_000).text_units, (1_000 - 22) / 2, "the rest was longer than is kept");
        assert_eq!(batch(&[], 0), Call::default());
    }

    #[test]
    fn calls_have_their_statement_and_their_values() {
        let one = rpc(
            10,
            &[nvarchar("", "SELECT @a, @b"), nvarchar("", "@a int, @b nvarchar(9)"), [&[2, b'@', 0, b'a', 0][..], &int(7)[1..]].concat(), nvarchar("@b", "x")],
        );
        let two = rpc(12, &[int(3), int(9)]);
        let message = [headers(), one, vec![0xff], two, vec![0xff], rpc(15, &[int(3)])].concat();
        let found = calls(&message, message.len());
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].text.as_str(), found[0].values.clone()), ("SELECT @a, @b", vec!["@a=7".to_owned(), "@b=x".to_owned()]));
        assert_eq!((found[1].handle, found[1].values.clone()), (Handle::Run(3), vec!["9".to_owned()]));
        assert_eq!(found[2].handle, Handle::Dropped(3));
        let prepexec = [headers(), rpc(13, &[int(0), nvarchar("", "@p int"), nvarchar("", "SELECT @p"), int(5)])].concat();
        let found = calls(&prepexec, prepexec.len());
        assert_eq!((found[0].text.as_str(), found[0].values.clone(), found[0].handle), ("SELECT @p", vec!["5".to_owned()], Handle::Made));
        let mut named = vec![7, 0];
        named.extend(utf16_of("sp_who2"));
        named.extend([0, 0]);
        let named = [headers(), named, nvarchar("@loginame", "sa")].concat();
        assert_eq!(calls(&named, named.len())[0], Call { text: "EXEC sp_who2".into(), values: vec!["@loginame=sa".into()], ..Call::default() });
    }

    #[test]
    fn what_is_cut_or_unknown_is_said_to_be() {
        let message = [headers(), rpc(10, &[nvarchar("", "SELECT 1"), vec![0, 0, 0xf3, 0, 0, 0]])].concat();
        let found = calls(&message, message.len());
        assert_eq!((found[0].text.as_str(), found[0].values.last().map(String::as_str)), ("SELECT 1", Some("(not readable)")));
        for cut in 0..message.len() {
            assert!(!calls(&message[..cut], message.len()).is_empty(), "cut at {cut}");
        }
        assert_eq!(transaction(&[headers(), vec![7, 0, 0, 0]].concat()).text, "COMMIT TRANSACTION");
        assert_eq!(transaction(&[]).text, "(transaction request that could not be read)");
    }
}
