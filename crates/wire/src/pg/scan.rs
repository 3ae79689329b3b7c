//! Stepping over message frames in a stream that passes by in chunks of any size: tag, length, body. Nothing is held back,
//! and of a body no more is copied than its consumer asked for.

/// What one frame header announces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    pub tag: u8,
    /// Bytes of the body.
    pub length: usize,
}

/// What a scanner tells its consumer.
pub trait Consumer {
    /// A frame begins. The answer says how many bytes of its body to keep for [`Consumer::frame`].
    fn keep(&mut self, frame: Frame) -> usize;
    /// A frame is complete; `body` is what was kept of it.
    fn frame(&mut self, frame: Frame, body: &[u8]);
}

/// Where a scanner stands in its stream.
#[derive(Default)]
pub struct Scanner {
    header: [u8; 5],
    header_len: usize,
    frame: Option<Frame>,
    /// Bytes of the body that have not passed yet.
    remaining: usize,
    /// Bytes of the body that are still to be kept.
    wanted: usize,
    kept: Vec<u8>,
    broken: bool,
}

impl Scanner {
    /// Whether the bytes so far end with a whole message: only there may another message be put in.
    pub fn at_boundary(&self) -> bool {
        self.frame.is_none() && self.header_len == 0 && !self.broken
    }

    /// How many bytes are missing to the next boundary, as far as is known (a cut header counts as its rest).
    pub fn to_boundary(&self) -> usize {
        match self.frame {
            Some(_) => self.remaining,
            None if self.header_len > 0 => 5 - self.header_len,
            None => 0,
        }
    }

    /// Lets `bytes` pass.
    pub fn feed(&mut self, mut bytes: &[u8], consumer: &mut impl Consumer) {
        while !bytes.is_empty() && !self.broken {
            let Some(frame) = self.frame else {
                bytes = self.take_header(bytes, consumer);
                continue;
            };
            let passing = bytes.len().min(self.remaining);
            let (body, rest) = bytes.split_at(passing);
            bytes = rest;
            // the usual frame lies whole in one chunk: it is looked at where it is
            if self.kept.is_empty() && passing == self.remaining && self.wanted > 0 {
                let wanted = self.wanted.min(passing);
                self.frame = None;
                self.remaining = 0;
                consumer.frame(frame, &body[..wanted]);
                continue;
            }
            let keep = passing.min(self.wanted);
            self.kept.extend_from_slice(&body[..keep]);
            self.wanted -= keep;
            self.remaining -= passing;
            self.finish_if_complete(consumer);
        }
    }

    fn take_header<'a>(&mut self, bytes: &'a [u8], consumer: &mut impl Consumer) -> &'a [u8] {
        let missing = (5 - self.header_len).min(bytes.len());
        self.header[self.header_len..self.header_len + missing].copy_from_slice(&bytes[..missing]);
        self.header_len += missing;
        if self.header_len == 5 {
            self.header_len = 0;
            let [tag, a, b, c, d] = self.header;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            match length.checked_sub(4) {
                Some(length) => {
                    let frame = Frame { tag, length };
                    self.wanted = consumer.keep(frame).min(length);
                    self.remaining = length;
                    self.frame = Some(frame);
                    self.finish_if_complete(consumer);
                }
                // no message has this length: the receiver will end the session, and there is nothing left to follow
                None => self.broken = true,
            }
        }
        &bytes[missing..]
    }

    fn finish_if_complete(&mut self, consumer: &mut impl Consumer) {
        if self.remaining == 0
            && let Some(frame) = self.frame.take()
        {
            let kept = std::mem::take(&mut self.kept);
            consumer.frame(frame, &kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(u8, usize, Vec<u8>)>);

    impl Consumer for Seen {
        fn keep(&mut self, frame: Frame) -> usize {
            if frame.tag == b'D' { 0 } else { 8 }
        }
        fn frame(&mut self, frame: Frame, body: &[u8]) {
            self.0.push((frame.tag, frame.length, body.to_vec()));
        }
    }

    #[test]
    fn the_same_is_seen_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for (tag, body) in [(b'Q', &b"select 1\0"[..]), (b'D', &[0; 300]), (b'S', b""), (b'C', b"SELECT 1\0"), (b'Z', b"I")] {
            super::super::message::put(&mut stream, tag, body);
        }
        let mut whole = Seen::default();
        let mut scanner = Scanner::default();
        scanner.feed(&stream, &mut whole);
        assert!(scanner.at_boundary());
        assert_eq!(whole.0.len(), 5);
        assert_eq!(whole.0[0], (b'Q', 9, b"select 1".to_vec()));
        for size in 1..40 {
            let (mut seen, mut scanner) = (Seen::default(), Scanner::default());
            stream.chunks(size).for_each(|chunk| scanner.feed(chunk, &mut seen));
            assert_eq!(seen.0, whole.0, "in chunks of {size}");
            assert!(scanner.at_boundary());
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_followed_no_further() {
        let (mut seen, mut scanner) = (Seen::default(), Scanner::default());
        scanner.feed(&[b'Q', 0, 0, 0, 3, b'x'], &mut seen);
        assert!(!scanner.at_boundary() && seen.0.is_empty());
        let mut scanner = Scanner::default();
        scanner.feed(&[b'd', 0xff, 0xff, 0xff, 0xff, 1, 2], &mut seen);
        assert_eq!(scanner.to_boundary(), u32::MAX as usize - 4 - 2);
    }
}
