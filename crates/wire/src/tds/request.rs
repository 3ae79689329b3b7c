//! What a client asks: batches, remote procedure calls, transactions ([MS-TDS] 2.2.6.6, 2.2.6.7, 2.2.6.9). Read for the record
//! only: what cannot be read is recorded as such, and runs all the same. Calls are read as their bytes pass ([`Rpc`]).

mod rpc;

pub use rpc::Rpc;

use super::packet::{Reader, utf16};
use crate::limits;

/// One thing that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Call {
    pub text: String,
    /// UTF-16 units of the whole text.
    pub text_units: usize,
    pub values: Vec<String>,
    pub handle: Handle,
    /// What the numbers are that its reply gives back, in their order.
    pub makes: &'static [Made],
}

/// What a call has to do with prepared statements and cursors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Handle {
    #[default]
    None,
    /// Runs what the handle stands for.
    Run(i64),
    /// Gets rows of the cursor.
    Fetch(i64),
    Dropped(i64),
    Closed(i64),
}

/// What a reply gives a number for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    /// The statement of the call.
    Prepared,
    /// A cursor on what it gives.
    Cursor,
}

/// The SQL of a batch. `whole` is the length of the message, of which `bytes` may be the beginning.
pub fn batch(bytes: &[u8], whole: usize) -> Call {
    let text = without_headers(bytes);
    let units = (whole - (bytes.len() - text.len())) / 2;
    Call { text: cut(&utf16(text)), text_units: units, ..Call::default() }
}

/// The longest piece of a request that is looked at whole: its headers, a name, the description of a parameter. That of a table with 1,024 columns
/// has 30 KiB.
const PIECE: usize = 64 * 1024;

/// The length of the headers, which most requests begin with: a total that counts itself, then each with a length of its own ([MS-TDS] 2.2.5.3).
/// 0: there are none, as with clients that speak TDS 7.1. None: more bytes are needed to tell.
fn headers(data: &[u8]) -> Option<usize> {
    let total = usize::try_from(Reader(data).u32()?).unwrap_or(usize::MAX);
    if total > PIECE {
        return Some(0);
    }
    let headers = data.get(..total)?;
    let valid = || {
        let mut headers = Reader(headers.get(4..)?);
        while !headers.0.is_empty() {
            let length = usize::try_from(Reader(headers.0).u32()?).ok()?;
            headers.take(length.max(1))?;
        }
        Some(())
    };
    Some(valid().map_or(0, |()| total))
}

fn without_headers(bytes: &[u8]) -> &[u8] {
    &bytes[headers(bytes).unwrap_or(0)..]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tds::packet::put_utf16;

    #[test]
    fn a_batch_is_its_text_with_and_without_headers() {
        let headers = [&[22, 0, 0, 0, 18, 0, 0, 0, 2, 0][..], &[0; 8], &[1, 0, 0, 0]].concat();
        let mut text = Vec::new();
        put_utf16(&mut text, "SELECT 1");
        let with = [headers.clone(), text.clone()].concat();
        assert_eq!((batch(&with, with.len()).text, batch(&with, with.len()).text_units), ("SELECT 1".to_owned(), 8));
        assert_eq!(batch(&text, text.len()).text, "SELECT 1");
        assert_eq!(batch(&with, 1_000).text_units, (1_000 - 22) / 2, "the rest was longer than is kept");
        assert_eq!(batch(&[], 0), Call::default());
        assert_eq!(transaction(&[headers, vec![7, 0, 0, 0]].concat()).text, "COMMIT TRANSACTION");
        assert_eq!(transaction(&[]).text, "(transaction request that could not be read)");
    }
}
