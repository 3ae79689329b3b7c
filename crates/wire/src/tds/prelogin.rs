//! PRELOGIN: versions and options, in the clear or already inside TLS ([MS-TDS] 2.2.6.5).

use super::packet::Reader;

pub mod option {
    pub const VERSION: u8 = 0x00;
    pub const ENCRYPTION: u8 = 0x01;
    pub const INSTANCE: u8 = 0x02;
    pub const THREAD: u8 = 0x03;
    pub const MARS: u8 = 0x04;
    pub const FEDAUTH_REQUIRED: u8 = 0x06;
}

pub mod encryption {
    /// Only the login is encrypted.
    pub const OFF: u8 = 0x00;
    pub const ON: u8 = 0x01;
    pub const NOT_SUPPORTED: u8 = 0x02;
    pub const REQUIRED: u8 = 0x03;
}

/// What a client or a server says, option by option.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Prelogin(Vec<(u8, Vec<u8>)>);

impl Prelogin {
    /// None for what is not one: an option outside the message, no end of the list, no version in front.
    pub fn read(message: &[u8]) -> Option<Prelogin> {
        let mut head = Reader(message);
        let mut options = Vec::new();
        loop {
            let token = head.u8()?;
            if token == 0xff {
                break;
            }
            // a list longer than all the options there are repeats itself
            if options.len() == 16 {
                return None;
            }
            let place = head.take(4)?;
            let offset = usize::from(u16::from_be_bytes([place[0], place[1]]));
            let length = usize::from(u16::from_be_bytes([place[2], place[3]]));
            let data = message.get(offset..offset + length)?;
            options.push((token, data.to_vec()));
        }
        options.first().is_some_and(|(token, version)| *token == option::VERSION && version.len() == 6).then_some(Prelogin(options))
    }

    pub fn with(mut self, token: u8, data: &[u8]) -> Self {
        self.0.push((token, data.to_vec()));
        self
    }

    pub fn get(&self, token: u8) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == token).map(|(_, data)| data.as_slice())
    }

    /// The first byte of an option.
    pub fn byte(&self, token: u8) -> Option<u8> {
        self.get(token)?.first().copied()
    }

    pub fn message(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut offset = 5 * self.0.len() + 1;
        for (token, data) in &self.0 {
            out.push(*token);
            out.extend((offset as u16).to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            offset += data.len();
        }
        out.push(0xff);
        self.0.iter().for_each(|(_, data)| out.extend(data));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_refuses_what_lies_outside() {
        let said = Prelogin::default().with(option::VERSION, &[16, 0, 0x10, 0x27, 0, 0]).with(option::ENCRYPTION, &[3]).with(option::MARS, &[1]);
        let message = said.message();
        assert_eq!(Prelogin::read(&message), Some(said.clone()));
        assert_eq!((said.byte(option::MARS), said.byte(option::THREAD)), (Some(1), None));
        for cut in 0..message.len() {
            assert_eq!(Prelogin::read(&message[..cut]), None, "cut at {cut}");
        }
        let mut outside = message.clone();
        outside[6..8].copy_from_slice(&[0xff, 0xf0]);
        assert_eq!(Prelogin::read(&outside), None);
        assert_eq!(Prelogin::read(&[0xff]), None, "without a version");
        assert_eq!(Prelogin::read(&[0; 500]), None, "an endless list");
    }
}
