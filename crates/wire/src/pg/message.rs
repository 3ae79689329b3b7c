//! The few messages that both handshakes write and read.

/// Codes in the place of a protocol version (PostgreSQL: src/include/libpq/pqcomm.h).
pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSSENC_REQUEST: u32 = 80_877_104;
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.0, with the minor version in the low 16 bits.
pub const PROTOCOL_3: u32 = 3 << 16;

/// Appends a message: its tag, its length (which counts itself), its body.
pub fn put(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

/// Appends a packet without tag: its length (which counts itself), its body.
pub fn put_untagged(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

/// Appends a text and its terminator. A NUL inside would end the text early for the reader, so nothing after it is sent.
pub fn put_cstr(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().take_while(|byte| *byte != 0));
    out.push(0);
}

/// Takes a NUL-terminated text off the front.
pub fn take_cstr<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = &rest[..end];
    *rest = &rest[end + 1..];
    Some(text)
}

/// Takes `n` bytes off the front.
pub fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

pub fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

pub fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    take(rest, 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)
}

/// The key by which a client cancels a query: pid and secret of the session.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    pub pid: u32,
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey({})", self.pid)
    }
}

impl CancelKey {
    /// The CancelRequest packet.
    pub fn request(&self) -> Vec<u8> {
        let mut body = CANCEL_REQUEST.to_be_bytes().to_vec();
        body.extend_from_slice(&self.pid.to_be_bytes());
        body.extend_from_slice(&self.secret);
        let mut out = Vec::new();
        put_untagged(&mut out, &body);
        out
    }

    /// The BackendKeyData message.
    pub fn backend_key_data(&self) -> Vec<u8> {
        let mut body = self.pid.to_be_bytes().to_vec();
        body.extend_from_slice(&self.secret);
        let mut out = Vec::new();
        put(&mut out, b'K', &body);
        out
    }
}

/// The fields of an ErrorResponse or NoticeResponse that people and programs need.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ErrorFields {
    pub code: String,
    pub message: String,
    /// Where in the server it arose: the same in every language.
    pub routine: String,
}

/// Reads the body of an ErrorResponse as far as it goes; a body cut short gives what it has.
pub fn error_fields(mut body: &[u8]) -> ErrorFields {
    let mut fields = ErrorFields::default();
    while let Some((&kind, rest)) = body.split_first().filter(|(kind, _)| **kind != 0) {
        body = rest;
        let value = take_cstr(&mut body).unwrap_or_else(|| std::mem::take(&mut body));
        match kind {
            b'C' => fields.code = String::from_utf8_lossy(value).into_owned(),
            b'R' => fields.routine = String::from_utf8_lossy(value).into_owned(),
            b'M' => fields.message = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
    fields
}
