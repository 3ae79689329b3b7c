//! Packets: a header of eight bytes, then a part of a message ([MS-TDS] 2.2.3.1). Also the little readers and writers that all
//! of TDS uses: numbers are little-endian, texts are UTF-16.

use crate::limits;

/// Bytes of a header.
pub const HEADER: usize = 8;

/// What a message is.
pub mod kind {
    pub const BATCH: u8 = 0x01;
    pub const RPC: u8 = 0x03;
    pub const REPLY: u8 = 0x04;
    pub const ATTENTION: u8 = 0x06;
    pub const BULK: u8 = 0x07;
    pub const TRANSACTION: u8 = 0x0e;
    pub const LOGIN7: u8 = 0x10;
    pub const PRELOGIN: u8 = 0x12;
}

/// The last packet of its message.
pub const EOM: u8 = 0x01;
/// The client gave this message up.
pub const IGNORE: u8 = 0x02;
/// Before this request, everything but the identity begins anew: pools set one of these when a connection goes to somebody else.
pub const RESET: u8 = 0x08 | 0x10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: u8,
    pub status: u8,
    /// Bytes after the header.
    pub payload: usize,
    pub spid: u16,
}

impl Header {
    /// None for a length that no packet has.
    pub fn read(bytes: &[u8; HEADER]) -> Option<Header> {
        let [kind, status, a, b, c, d, _, _] = *bytes;
        let length = usize::from(u16::from_be_bytes([a, b]));
        let payload = length.checked_sub(HEADER).filter(|_| length <= limits::TDS_PACKET)?;
        Some(Header { kind, status, payload, spid: u16::from_be_bytes([c, d]) })
    }

    pub fn is_last(&self) -> bool {
        self.status & EOM != 0
    }
}

/// Appends a message, cut into packets of `size` bytes.
pub fn put(out: &mut Vec<u8>, kind: u8, spid: u16, message: &[u8], size: usize) {
    let mut parts = message.chunks(size - HEADER).peekable();
    let mut number = 1_u8;
    loop {
        let part = parts.next().unwrap_or_default();
        let status = if parts.peek().is_none() { EOM } else { 0 };
        put_packet(out, kind, status, spid, number, part);
        number = number.wrapping_add(1);
        if status == EOM {
            return;
        }
    }
}

/// Appends one packet.
pub fn put_packet(out: &mut Vec<u8>, kind: u8, status: u8, spid: u16, number: u8, payload: &[u8]) {
    out.extend([kind, status]);
    out.extend(((payload.len() + HEADER) as u16).to_be_bytes());
    out.extend(spid.to_be_bytes());
    out.extend([number, 0]);
    out.extend(payload);
}

/// Gathers one message out of its packets, up to a limit. It says how many bytes it wants next, and never wants one too many.
pub struct Gathering {
    kind: u8,
    limit: usize,
    header: Option<Header>,
    message: Vec<u8>,
}

pub enum Gathered {
    More,
    /// The message, and the session number that stood in its last header.
    Whole(Vec<u8>, u16),
    /// Not a packet, not of this kind, or too long.
    Broken,
}

impl Gathering {
    pub fn new(kind: u8, limit: usize) -> Self {
        Gathering { kind, limit, header: None, message: Vec::new() }
    }

    pub fn want(&self) -> usize {
        self.header.map_or(HEADER, |header| header.payload)
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Gathered {
        let header = match self.header.take() {
            Some(header) => {
                self.message.extend_from_slice(bytes);
                header
            }
            None => {
                let header = bytes.try_into().ok().and_then(Header::read).filter(|header| header.kind == self.kind);
                let Some(header) = header.filter(|header| self.message.len() + header.payload <= self.limit) else { return Gathered::Broken };
                if header.payload > 0 {
                    self.header = Some(header);
                    return Gathered::More;
                }
                header
            }
        };
        if header.is_last() { Gathered::Whole(std::mem::take(&mut self.message), header.spid) } else { Gathered::More }
    }
}

/// Takes bytes off the front. Everything answers None when there are too few.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text behind one byte that counts its characters (B_VARCHAR).
    pub fn short_text(&mut self) -> Option<String> {
        let count = usize::from(self.u8()?);
        Some(utf16(self.take(2 * count)?))
    }

    /// Steps over a text behind one byte that counts its characters.
    pub fn skip_short_text(&mut self) -> Option<()> {
        let count = usize::from(self.u8()?);
        self.take(2 * count).map(drop)
    }

    /// Steps over a text behind two bytes that count its characters.
    pub fn skip_long_text(&mut self) -> Option<()> {
        let count = usize::from(self.u16()?);
        self.take(2 * count).map(drop)
    }

    /// A text behind two bytes that count its characters (US_VARCHAR).
    pub fn long_text(&mut self) -> Option<String> {
        let count = usize::from(self.u16()?);
        Some(utf16(self.take(2 * count)?))
    }
}

/// UTF-16, little-endian; what is no text shows as U+FFFD.
pub fn utf16(bytes: &[u8]) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

pub fn put_utf16(out: &mut Vec<u8>, text: &str) {
    text.encode_utf16().for_each(|unit| out.extend(unit.to_le_bytes()));
}

/// A text behind one byte that counts its characters, cut where it does not fit.
pub fn put_short_text(out: &mut Vec<u8>, text: &str) {
    let units: Vec<u16> = text.encode_utf16().take(255).collect();
    out.push(units.len() as u8);
    units.iter().for_each(|unit| out.extend(unit.to_le_bytes()));
}

/// A text behind two bytes that count its characters, cut where it does not fit.
pub fn put_long_text(out: &mut Vec<u8>, text: &str) {
    let units: Vec<u16> = text.encode_utf16().take(usize::from(u16::MAX)).collect();
    out.extend((units.len() as u16).to_le_bytes());
    units.iter().for_each(|unit| out.extend(unit.to_le_bytes()));
}

/// Where a stream of packets stands, stepped over in chunks of any size.
#[derive(Default)]
pub struct Packets {
    header: [u8; HEADER],
    header_len: usize,
    /// The packet that passes, and how much of it is still to come.
    packet: Option<(Header, usize)>,
    /// The last packet did not end its message.
    in_message: bool,
    broken: bool,
}

/// What of a stream passes next.
pub enum Piece<'a> {
    /// A packet begins; the first of its message or not.
    Begin(Header, bool),
    Payload(&'a [u8]),
    /// A packet is complete.
    End(Header),
}

impl Packets {
    /// Whether everything so far ends with a whole message.
    pub fn at_message_boundary(&self) -> bool {
        self.at_packet_boundary() && !self.in_message
    }

    pub fn at_packet_boundary(&self) -> bool {
        self.packet.is_none() && self.header_len == 0 && !self.broken
    }

    /// No packet has the length that was announced: nothing is followed any more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The packet that passes, and how many of its bytes are still to come.
    pub fn passing(&self) -> Option<(Header, usize)> {
        self.packet
    }

    /// Takes the next piece off `bytes`; None when they are used up.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        match &mut self.packet {
            Some((header, 0)) => {
                let header = *header;
                self.packet = None;
                self.in_message = !header.is_last();
                Some(Piece::End(header))
            }
            Some((_, remaining)) if !bytes.is_empty() => {
                let (payload, rest) = bytes.split_at(bytes.len().min(*remaining));
                *remaining -= payload.len();
                *bytes = rest;
                Some(Piece::Payload(payload))
            }
            Some(_) => None,
            None => self.begin(bytes),
        }
    }

    /// The last `n` bytes of the payload that was taken did not pass after all.
    pub fn give_back(&mut self, n: usize) {
        if let Some((_, remaining)) = &mut self.packet {
            *remaining += n;
        }
    }

    fn begin<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        if self.broken {
            return None;
        }
        let (part, rest) = bytes.split_at(bytes.len().min(HEADER - self.header_len));
        self.header[self.header_len..self.header_len + part.len()].copy_from_slice(part);
        self.header_len += part.len();
        *bytes = rest;
        if self.header_len < HEADER {
            return None;
        }
        self.header_len = 0;
        match Header::read(&self.header) {
            Some(header) => {
                self.packet = Some((header, header.payload));
                Some(Piece::Begin(header, !self.in_message))
            }
            None => {
                self.broken = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_out_of_its_packets_whatever_their_size() {
        let message: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        for size in [512, 4096, 32_767] {
            let mut wire = Vec::new();
            put(&mut wire, kind::BATCH, 7, &message, size);
            let mut gathering = Gathering::new(kind::BATCH, 20_000);
            let mut rest = wire.as_slice();
            let found = loop {
                let (bytes, more) = rest.split_at(gathering.want());
                rest = more;
                match gathering.feed(bytes) {
                    Gathered::More => {}
                    Gathered::Whole(found, 7) => break found,
                    _ => panic!("broken"),
                }
            };
            assert!(found == message && rest.is_empty());
            for cut in [1, 3, 8, 511, 40_000] {
                let (mut packets, mut seen, mut ends) = (Packets::default(), Vec::new(), 0);
                for mut chunk in wire.chunks(cut) {
                    while let Some(piece) = packets.next(&mut chunk) {
                        match piece {
                            Piece::Payload(payload) => seen.extend_from_slice(payload),
                            Piece::End(header) => ends += usize::from(header.is_last()),
                            Piece::Begin(..) => {}
                        }
                    }
                }
                assert!(seen == message && ends == 1 && packets.at_message_boundary());
            }
        }
    }

    #[test]
    fn what_is_no_packet_or_too_long_is_broken() {
        let broken = |wire: &[u8], limit| {
            let mut gathering = Gathering::new(kind::PRELOGIN, limit);
            matches!(gathering.feed(wire), Gathered::Broken)
        };
        assert!(broken(&[0x12, 1, 0, 7, 0, 0, 0, 0], 4096), "shorter than its header");
        assert!(broken(&[0x12, 1, 0xff, 0xff, 0, 0, 0, 0], 100_000), "longer than any packet");
        assert!(broken(&[0x12, 1, 0x10, 0, 0, 0, 0, 0], 100), "longer than the limit");
        assert!(broken(&[0x10, 1, 0, 9, 0, 0, 0, 0], 100), "of another kind");
    }
}
