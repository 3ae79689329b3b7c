//! Several sessions inside one connection: SMP frames around TDS packets ([MC-SMP] 2.2.1). SQL Server calls it MARS.

/// Bytes of a frame's header.
pub const HEADER: usize = 16;
const MARK: u8 = 0x53;

pub mod flag {
    pub const SYN: u8 = 0x01;
    pub const ACK: u8 = 0x02;
    pub const FIN: u8 = 0x04;
    pub const DATA: u8 = 0x08;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    pub flags: u8,
    pub session: u16,
    /// Bytes after the header.
    pub payload: usize,
    pub sequence: u32,
    /// The highest sequence number that the sender is ready to take.
    pub window: u32,
}

impl Frame {
    /// None for what no frame begins with.
    pub fn read(bytes: &[u8; HEADER]) -> Option<Frame> {
        let [mark, flags, s0, s1, l0, l1, l2, l3, q0, q1, q2, q3, w0, w1, w2, w3] = *bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let payload = length.checked_sub(HEADER).filter(|payload| mark == MARK && *payload <= crate::limits::TDS_PACKET)?;
        Some(Frame {
            flags,
            session: u16::from_le_bytes([s0, s1]),
            payload,
            sequence: u32::from_le_bytes([q0, q1, q2, q3]),
            window: u32::from_le_bytes([w0, w1, w2, w3]),
        })
    }

    pub fn put(&self, out: &mut Vec<u8>, payload: &[u8]) {
        out.extend([MARK, self.flags]);
        out.extend(self.session.to_le_bytes());
        out.extend(((HEADER + payload.len()) as u32).to_le_bytes());
        out.extend(self.sequence.to_le_bytes());
        out.extend(self.window.to_le_bytes());
        out.extend(payload);
    }
}

/// Where a stream of frames stands.
#[derive(Default)]
pub struct Frames {
    header: [u8; HEADER],
    header_len: usize,
    frame: Option<(Frame, usize)>,
    broken: bool,
}

pub enum Piece<'a> {
    Begin(Frame),
    /// Bytes of a session.
    Data(u16, &'a [u8]),
}

impl Frames {
    /// No frame begins like this: nothing is followed any more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    pub fn at_boundary(&self) -> bool {
        self.frame.is_none() && self.header_len == 0 && !self.broken
    }

    /// Takes the next piece off `bytes`; None when they are used up.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        loop {
            match &mut self.frame {
                Some((_, 0)) => self.frame = None,
                Some((frame, remaining)) if !bytes.is_empty() => {
                    let (data, rest) = bytes.split_at(bytes.len().min(*remaining));
                    *remaining -= data.len();
                    *bytes = rest;
                    let session = frame.session;
                    if *remaining == 0 {
                        self.frame = None;
                    }
                    return Some(Piece::Data(session, data));
                }
                Some(_) => return None,
                None if self.broken => return None,
                None => {
                    let (part, rest) = bytes.split_at(bytes.len().min(HEADER - self.header_len));
                    self.header[self.header_len..self.header_len + part.len()].copy_from_slice(part);
                    self.header_len += part.len();
                    *bytes = rest;
                    if self.header_len < HEADER {
                        return None;
                    }
                    self.header_len = 0;
                    let Some(frame) = Frame::read(&self.header) else {
                        self.broken = true;
                        return None;
                    };
                    self.frame = (frame.payload > 0).then_some((frame, frame.payload));
                    return Some(Piece::Begin(frame));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_come_apart_however_the_stream_is_cut() {
        let mut wire = Vec::new();
        let frame = |flags, session, sequence| Frame { flags, session, payload: 0, sequence, window: 4 };
        frame(flag::SYN, 0, 0).put(&mut wire, &[]);
        frame(flag::DATA, 0, 1).put(&mut wire, b"first");
        frame(flag::DATA, 7, 1).put(&mut wire, b"other");
        frame(flag::DATA, 0, 2).put(&mut wire, b" second");
        for cut in 1..40 {
            let (mut frames, mut of, mut begun) = (Frames::default(), std::collections::HashMap::<u16, Vec<u8>>::new(), 0);
            for mut chunk in wire.chunks(cut) {
                while let Some(piece) = frames.next(&mut chunk) {
                    match piece {
                        Piece::Begin(_) => begun += 1,
                        Piece::Data(session, data) => of.entry(session).or_default().extend(data),
                    }
                }
            }
            assert!(frames.at_boundary() && begun == 4 && of[&0] == b"first second" && of[&7] == b"other", "in chunks of {cut}");
        }
        assert_eq!(Frame::read(&[0x53, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]), Some(frame(flag::SYN, 0, 0)), "as ODBC 18 opens its first");
        assert_eq!(Frame::read(&[0x52, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]), None);
        assert_eq!(Frame::read(&[0x53, 1, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]), None);
    }
}
