//! Refusals and ends in PostgreSQL's own words: ErrorResponse with SQLSTATE, message and hint (PostgreSQL manual, "Error and
//! Notice Message Fields"). The reason stands in the message, because many tools show nothing else.

use super::message::{put, put_cstr};

/// The SQLSTATEs that Daypass uses (PostgreSQL manual, appendix A).
pub mod sqlstate {
    /// No access, not this address, no TLS.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// Wrong or unknown account.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// Wrong database.
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    /// A limit on sessions.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// The target is down, or a movement is running: worth another try.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// Expired, revoked, ended by an administrator.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// The target did not let the gateway in, and will not at the next try.
    pub const REJECTED: &str = "08004";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
}

/// An ErrorResponse of severity FATAL: the connection ends after it.
pub fn fatal(sqlstate: &str, message: &str, detail: &str, hint: &str) -> Vec<u8> {
    message_of(b'E', &[(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', message), (b'D', detail), (b'H', hint)])
}

/// A NoticeResponse, which may come at any time (PostgreSQL manual, "Asynchronous Operations"): tools show it beside what they do.
pub fn warning(message: &str) -> Vec<u8> {
    message_of(b'N', &[(b'S', "WARNING"), (b'V', "WARNING"), (b'C', "01000"), (b'M', message)])
}

fn message_of(tag: u8, fields: &[(u8, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for &(kind, text) in fields {
        if !text.is_empty() {
            body.push(kind);
            put_cstr(&mut body, text);
        }
    }
    body.push(0);
    let mut out = Vec::new();
    put(&mut out, tag, &body);
    out
}
