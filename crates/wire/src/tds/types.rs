//! Data types: how long a value is and how it reads ([MS-TDS] 2.2.5.4 and 2.2.5.5).

use super::{
    collation::Collation,
    packet::{Reader, utf16},
};

/// How the bytes of a value are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    Fixed(u8),
    /// One byte in front; 0 is NULL (or empty).
    Byte,
    /// Two bytes in front; 0xffff is NULL.
    Short,
    /// Four bytes in front; 0 is NULL.
    Long,
    /// `text`, `ntext`, `image`: a pointer behind its own length (0 is NULL), a time stamp of eight bytes, four bytes of length.
    Pointer,
    /// The `max` types: a total of eight bytes (all ones: NULL), then chunks behind four bytes each, until one of no length.
    Chunks,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Type {
    pub token: u8,
    pub length: Length,
    scale: u8,
    collation: Collation,
}

mod token {
    pub const NULL: u8 = 0x1f;
    pub const IMAGE: u8 = 0x22;
    pub const TEXT: u8 = 0x23;
    pub const GUID: u8 = 0x24;
    pub const INT_N: u8 = 0x26;
    pub const DATE: u8 = 0x28;
    pub const TIME: u8 = 0x29;
    pub const DATETIME2: u8 = 0x2a;
    pub const DATETIMEOFFSET: u8 = 0x2b;
    pub const BIT: u8 = 0x32;
    pub const VARIANT: u8 = 0x62;
    pub const NTEXT: u8 = 0x63;
    pub const BIT_N: u8 = 0x68;
    pub const FLOAT_N: u8 = 0x6d;
    pub const MONEY_N: u8 = 0x6e;
    pub const DATETIME_N: u8 = 0x6f;
    pub const BIG_VARBINARY: u8 = 0xa5;
    pub const BIG_VARCHAR: u8 = 0xa7;
    pub const BIG_BINARY: u8 = 0xad;
    pub const BIG_CHAR: u8 = 0xaf;
    pub const NVARCHAR: u8 = 0xe7;
    pub const NCHAR: u8 = 0xef;
    pub const UDT: u8 = 0xf0;
    pub const XML: u8 = 0xf1;
    pub const JSON: u8 = 0xf4;
    pub const VECTOR: u8 = 0xf5;
}

impl Type {
    /// Reads a TYPE_INFO. In the description of a column a user-defined type says more than in a parameter. None: cut short, or
    /// a type that nothing is known of.
    pub fn read(r: &mut Reader<'_>, column: bool) -> Option<Type> {
        let token = r.u8()?;
        let (mut scale, mut collation) = (0, Collation::default());
        let collate = |bytes: &[u8]| bytes.try_into().map(Collation::read).unwrap_or_default();
        let length = match token {
            token::NULL => Length::Fixed(0),
            0x30 | token::BIT => Length::Fixed(1),
            0x34 => Length::Fixed(2),
            0x38 | 0x3a | 0x3b | 0x7a => Length::Fixed(4),
            0x3c | 0x3d | 0x3e | 0x7f => Length::Fixed(8),
            token::GUID | token::INT_N | token::BIT_N | token::FLOAT_N | token::MONEY_N | token::DATETIME_N | 0x25 | 0x27 | 0x2d | 0x2f => {
                r.u8()?;
                Length::Byte
            }
            // DECIMAL and NUMERIC, each in an old and a new form
            0x37 | 0x3f | 0x6a | 0x6c => {
                scale = r.take(3)?[2];
                Length::Byte
            }
            token::DATE => Length::Byte,
            token::TIME | token::DATETIME2 | token::DATETIMEOFFSET => {
                scale = r.u8()?;
                Length::Byte
            }
            token::BIG_VARBINARY | token::BIG_BINARY | token::BIG_VARCHAR | token::BIG_CHAR | token::NVARCHAR | token::NCHAR => {
                let most = r.u16()?;
                if !matches!(token, token::BIG_VARBINARY | token::BIG_BINARY) {
                    collation = collate(r.take(5)?);
                }
                if most == u16::MAX { Length::Chunks } else { Length::Short }
            }
            token::TEXT | token::NTEXT => {
                collation = collate(&r.take(4 + 5)?[4..]);
                Length::Pointer
            }
            token::IMAGE => {
                r.take(4)?;
                Length::Pointer
            }
            token::VARIANT => {
                r.take(4)?;
                Length::Long
            }
            token::XML => {
                if r.u8()? != 0 {
                    r.skip_short_text()?;
                    r.skip_short_text()?;
                    r.skip_long_text()?;
                }
                Length::Chunks
            }
            token::UDT => {
                if column {
                    r.u16()?;
                }
                for _ in 0..3 {
                    r.skip_short_text()?;
                }
                if column {
                    r.skip_long_text()?;
                }
                Length::Chunks
            }
            token::JSON => Length::Chunks,
            token::VECTOR => {
                r.take(3)?;
                Length::Short
            }
            _ => return None,
        };
        Some(Type { token, length, scale, collation })
    }

    /// Whether the name of a table stands between this type and the column's name.
    pub fn has_table(&self) -> bool {
        self.length == Length::Pointer
    }

    /// Whether a length of one byte that is 0 means NULL, and not nothing: it does in all but the old forms of texts and bytes.
    pub fn is_empty_null(&self) -> bool {
        !matches!(self.token, 0x25 | 0x27 | 0x2d | 0x2f)
    }

    pub fn is_integer(&self) -> bool {
        matches!(self.token, token::INT_N | 0x30 | 0x34 | 0x38 | 0x7f)
    }

    /// Reads a parameter's value as people read it, of its bytes `keep` at most; also its whole length in UTF-16 units. None:
    /// the message ends before the value does.
    pub fn value(&self, r: &mut Reader<'_>, keep: usize) -> Option<(String, usize)> {
        let bytes = match self.length {
            Length::Fixed(0) => None,
            Length::Fixed(n) => Some(r.take(usize::from(n))?),
            Length::Byte => {
                let n = usize::from(r.u8()?);
                Some(r.take(n)?).filter(|bytes| !bytes.is_empty() || !self.is_empty_null())
            }
            Length::Short => {
                let n = r.u16()?;
                if n == u16::MAX { None } else { Some(r.take(usize::from(n))?) }
            }
            Length::Long | Length::Pointer => {
                let n = r.u32()?;
                if n == 0 && self.length == Length::Long || n == u32::MAX { None } else { Some(r.take(usize::try_from(n).ok()?)?) }
            }
            Length::Chunks => return self.chunks(r, keep),
        };
        let null = || ("NULL".to_owned(), 0);
        Some(bytes.map_or_else(null, |bytes| (self.shown(&bytes[..bytes.len().min(keep)], bytes.len()), bytes.len() / 2)))
    }

    fn chunks(&self, r: &mut Reader<'_>, keep: usize) -> Option<(String, usize)> {
        if r.u64()? == u64::MAX {
            return Some(("NULL".to_owned(), 0));
        }
        let (mut kept, mut whole) = (Vec::new(), 0);
        loop {
            let chunk = usize::try_from(r.u32()?).ok()?;
            if chunk == 0 {
                return Some((self.shown(&kept, whole), whole / 2));
            }
            let bytes = r.take(chunk)?;
            kept.extend_from_slice(&bytes[..bytes.len().min(keep - kept.len())]);
            whole += chunk;
        }
    }

    /// The value in words; `bytes` may be less than the `whole` of it.
    pub fn shown(&self, bytes: &[u8], whole: usize) -> String {
        let number = || signed(bytes);
        let text = match (self.token, bytes.len()) {
            (token::NVARCHAR | token::NCHAR | token::NTEXT | token::XML, _) => utf16(bytes),
            (token::JSON, _) => String::from_utf8_lossy(bytes).into_owned(),
            // the old forms name no collation
            (token::BIG_VARCHAR | token::BIG_CHAR | token::TEXT | 0x27 | 0x2f, _) => self.collation.text(bytes, bytes.len() < whole),
            // a byte has no sign
            (0x30 | token::INT_N | token::BIT | token::BIT_N, 1) => bytes[0].to_string(),
            (token::INT_N | 0x34 | 0x38 | 0x7f, 2 | 4 | 8) => number().to_string(),
            (token::FLOAT_N | 0x3b, 4) => f32::from_bits(number() as u32).to_string(),
            (token::FLOAT_N | 0x3e, 8) => f64::from_bits(number() as u64).to_string(),
            (token::MONEY_N | 0x7a, 4) => money(number()),
            // its halves stand the wrong way round
            (token::MONEY_N | 0x3c, 8) => money(number().rotate_left(32)),
            (0x37 | 0x3f | 0x6a | 0x6c, 5 | 9 | 13 | 17) => {
                let mantissa = bytes[1..].iter().rev().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
                decimal(bytes[0] == 0, mantissa, self.scale)
            }
            (token::GUID, 16) => guid(bytes),
            (token::DATE, 3) => date(days(bytes)),
            (token::TIME, 3..=5) => time(unsigned(bytes), self.scale),
            (token::DATETIME2, 6..=8) => {
                let (clock, day) = bytes.split_at(bytes.len() - 3);
                format!("{} {}", date(days(day)), time(unsigned(clock), self.scale))
            }
            (token::DATETIMEOFFSET, 8..=10) => {
                let (clock, rest) = bytes.split_at(bytes.len() - 5);
                format!("{} {} UTC", date(days(&rest[..3])), time(unsigned(clock), self.scale))
            }
            // days since 1900, then 300ths of a second, which are shown as the nearest thousandth
            (token::DATETIME_N | 0x3d, 8) => {
                let (day, ticks) = (signed(&bytes[..4]), unsigned(&bytes[4..]));
                format!("{} {}", date(day + DAYS_TO_1900), time((ticks * 10 + 1) / 3, 3))
            }
            // days since 1900, then minutes
            (token::DATETIME_N | 0x3a, 4) => format!("{} {}", date(unsigned(&bytes[..2]) as i64 + DAYS_TO_1900), time(unsigned(&bytes[2..]) * 60, 0)),
            _ => bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
        };
        if bytes.len() < whole { format!("{text}… ({whole} bytes)") } else { text }
    }
}

const DAYS_TO_1900: i64 = 693_595;

fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len().min(8) as u32;
    if unused == 64 { 0 } else { (unsigned(bytes) << unused) as i64 >> unused }
}

fn days(bytes: &[u8]) -> i64 {
    unsigned(bytes) as i64
}

fn money(count: i64) -> String {
    decimal(count < 0, count.unsigned_abs().into(), 4)
}

fn decimal(negative: bool, mantissa: u128, scale: u8) -> String {
    let digits = format!("{mantissa:0width$}", width = usize::from(scale) + 1);
    let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if negative { "-" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

fn guid(b: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let turned = |bytes: &[u8]| hex(&bytes.iter().rev().copied().collect::<Vec<_>>());
    format!("{}-{}-{}-{}-{}", turned(&b[..4]), turned(&b[4..6]), turned(&b[6..8]), hex(&b[8..10]), hex(&b[10..]))
}

/// A day counted from 0001-01-01 in the Gregorian calendar.
fn date(day: i64) -> String {
    // counted in eras of 400 years from 0000-03-01, so that the leap day ends a year
    let day = day + 306;
    let (era, in_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_in_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year_in_era + next_year)
}

/// A time of day counted in seconds with `scale` decimals.
fn time(count: u64, scale: u8) -> String {
    let unit = 10_u64.pow(u32::from(scale.min(7)));
    let (seconds, part) = (count / unit, count % unit);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if scale == 0 { clock } else { format!("{clock}.{part:0width$}", width = usize::from(scale.min(7))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(info: &[u8], value: &[u8]) -> String {
        let message = [info, value].concat();
        let mut r = Reader(&message);
        let ty = Type::read(&mut r, false).unwrap();
        let (text, _) = ty.value(&mut r, 512).unwrap();
        assert!(r.0.is_empty(), "{text}: {} bytes are left", r.0.len());
        text
    }

    #[test]
    fn values_read_as_people_write_them() {
        assert_eq!(shown(&[0x26, 4], &[4, 0xfe, 0xff, 0xff, 0xff]), "-2");
        assert_eq!(shown(&[0x26, 8], &[0]), "NULL");
        assert_eq!(shown(&[0x68, 1], &[1, 1]), "1");
        assert_eq!(shown(&[0xe7, 80, 0, 0, 0, 0, 0, 0], &[4, 0, b'h', 0, 0xe4, 0]), "hä");
        assert_eq!(shown(&[0xe7, 0xff, 0xff, 0, 0, 0, 0, 0], &[&[4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, b'o', 0, b'k', 0][..], &[0; 4]].concat()), "ok");
        assert_eq!(shown(&[0xa7, 10, 0, 0, 0, 0, 0, 0], &[0xff, 0xff]), "NULL");
        assert_eq!(shown(&[0xa7, 10, 0, 0x09, 0x04, 0xd0, 0, 0x34], &[2, 0, b'h', 0xe4]), "hä");
        assert_eq!(shown(&[0x6a, 9, 18, 2], &[5, 0, 0x39, 0x30, 0, 0]), "-123.45");
        let widest = [&[17, 0][..], &[0; 15], &[0x80]].concat();
        assert_eq!(shown(&[0x6a, 17, 38, 0], &widest), "-170141183460469231731687303715884105728", "no number is too wide to be shown");
        assert_eq!(shown(&[0x6e, 8], &[8, 0, 0, 0, 0, 0x10, 0x27, 0, 0]), "1.0000");
        assert_eq!(shown(&[0x6d, 8], &[&[8][..], &1.5_f64.to_le_bytes()].concat()), "1.5");
        assert_eq!(shown(&[0xa5, 4, 0], &[2, 0, 0xca, 0xfe]), "0xcafe");
        let guid = [16, 0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        assert_eq!(shown(&[0x24, 16], &guid), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn dates_and_times_read_as_dates_and_times() {
        assert_eq!((date(0), date(DAYS_TO_1900), date(730_178)), ("0001-01-01".into(), "1900-01-01".into(), "2000-02-29".into()));
        assert_eq!(date(730_179), "2000-03-01");
        assert_eq!(shown(&[0x28], &[3, 0x5b, 0x95, 0x0a]), date(0x000a_955b));
        assert_eq!(shown(&[0x2a, 3], &[&[7, 0x40, 0x77, 0x1b, 0x00][..], &[0x5b, 0x95, 0x0a]].concat()), format!("{} 00:30:00.000", date(0x000a_955b)));
        assert_eq!(shown(&[0x6f, 8], &[8, 0, 0, 0, 0, 0x2c, 0x01, 0, 0]), "1900-01-01 00:00:01.000");
        // as the server shows them: .003, .007, .010
        for (ticks, shows) in [(1, "003"), (2, "007"), (3, "010"), (4, "013"), (5, "017")] {
            assert_eq!(shown(&[0x6f, 8], &[8, 0, 0, 0, 0, ticks, 0, 0, 0]), format!("1900-01-01 00:00:00.{shows}"));
        }
        assert_eq!(shown(&[0x6f, 8], &[8, 0, 0, 0, 0, 0xff, 0x81, 0x8b, 0x01]), "1900-01-01 23:59:59.997", "the last of a day");
        assert_eq!(shown(&[0x6f, 4], &[4, 1, 0, 61, 0]), "1900-01-02 01:01:00");
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_cut_short_is_nothing() {
        let long = vec![b'x'; 2000];
        let value = [&[0xd0, 0x07][..], &long].concat();
        assert!(shown(&[0xa7, 0x40, 0x1f, 0, 0, 0, 0, 0], &value).ends_with("… (2000 bytes)"));
        for ty in 0..=255_u8 {
            for bytes in [&[][..], &[4], &[0xff; 3], &[0; 40]] {
                let message = [&[ty], bytes].concat();
                let mut r = Reader(&message);
                if let Some(ty) = Type::read(&mut r, true) {
                    let _ = ty.value(&mut r, 512);
                }
            }
        }
    }
}
