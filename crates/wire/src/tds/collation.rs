//! Which characters the bytes of `char`, `varchar` and `text` are: a collation says their code page ([MS-TDS] 2.2.5.1.2; Microsoft's documentation,
//! "Windows collation name" and "SQL Server collation name").

use encoding_rs::{
    BIG5, EUC_KR, Encoding, GBK, SHIFT_JIS, UTF_8, WINDOWS_874, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252, WINDOWS_1253, WINDOWS_1254, WINDOWS_1255,
    WINDOWS_1256, WINDOWS_1257, WINDOWS_1258,
};

/// A collation as the protocol has it: the language in 20 bits, flags in 8, a version in 4, then the sort order of the old kind in a byte.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Collation {
    info: u32,
    sort: u8,
}

/// fUTF8.
const UTF8: u32 = 1 << 26;

impl Collation {
    pub fn read(bytes: [u8; 5]) -> Collation {
        let [a, b, c, d, sort] = bytes;
        Collation { info: u32::from_le_bytes([a, b, c, d]), sort }
    }

    /// None: a code page that is not read here (437 and 850 of the oldest collations, languages that have none).
    fn encoding(self) -> Option<&'static Encoding> {
        if self.info & UTF8 != 0 {
            return Some(UTF_8);
        }
        match self.sort {
            0 => by_language(self.info & 0x000f_ffff),
            50..=54 | 71..=75 | 183..=186 | 210..=217 => Some(WINDOWS_1252),
            80..=98 => Some(WINDOWS_1250),
            104..=108 => Some(WINDOWS_1251),
            112..=114 | 120..=122 | 124 => Some(WINDOWS_1253),
            128..=130 => Some(WINDOWS_1254),
            136..=138 => Some(WINDOWS_1255),
            144..=146 => Some(WINDOWS_1256),
            152..=160 => Some(WINDOWS_1257),
            192 | 193 | 200 => Some(SHIFT_JIS),
            194 | 195 | 201 => Some(EUC_KR),
            196 | 197 | 202 => Some(BIG5),
            198 | 199 | 203 => Some(GBK),
            204..=206 => Some(WINDOWS_874),
            _ => None,
        }
    }

    /// The text. What cannot be read stands as its bytes, so that nothing is lost. `cut`: there were more bytes, and the last character may be a
    /// part of one, which is left out.
    pub fn text(self, bytes: &[u8], cut: bool) -> String {
        let read = |bytes: &[u8]| self.encoding()?.decode_without_bom_handling_and_without_replacement(bytes).map(std::borrow::Cow::into_owned);
        let mut ends = (0..=if cut { 3 } else { 0 }).filter_map(|part| bytes.get(..bytes.len().checked_sub(part)?));
        ends.find_map(read).unwrap_or_else(|| escaped(bytes))
    }
}

/// By the language of a Windows collation: its lower ten bits, the rest is the place.
fn by_language(language: u32) -> Option<&'static Encoding> {
    match language {
        // no collation, as old drivers send it
        0 => return Some(WINDOWS_1252),
        0x0404 | 0x0c04 | 0x1404 => return Some(BIG5),
        0x0c1a | 0x1c1a | 0x201a | 0x082c | 0x0843 => return Some(WINDOWS_1251),
        _ => {}
    }
    match language & 0x3ff {
        0x05 | 0x0e | 0x15 | 0x18 | 0x1a | 0x1b | 0x1c | 0x24 | 0x42 => Some(WINDOWS_1250),
        0x02 | 0x19 | 0x22 | 0x23 | 0x28 | 0x2f | 0x3f | 0x40 | 0x44 | 0x50 | 0x6d | 0x85 => Some(WINDOWS_1251),
        0x08 => Some(WINDOWS_1253),
        0x1f | 0x2c | 0x43 => Some(WINDOWS_1254),
        0x0d => Some(WINDOWS_1255),
        0x01 | 0x20 | 0x29 | 0x63 | 0x80 | 0x8c => Some(WINDOWS_1256),
        0x25..=0x27 => Some(WINDOWS_1257),
        0x2a => Some(WINDOWS_1258),
        0x1e => Some(WINDOWS_874),
        0x11 => Some(SHIFT_JIS),
        0x04 => Some(GBK),
        0x12 => Some(EUC_KR),
        // Hindi, Bengali, Georgian, Khmer ...: Unicode only
        0x39 | 0x45..=0x4f | 0x37 | 0x2b | 0x53 | 0x54 | 0x61 | 0x5a | 0x65 | 0x51 => None,
        _ => Some(WINDOWS_1252),
    }
}

/// ASCII as it is, all else as its bytes.
fn escaped(bytes: &[u8]) -> String {
    let one = |byte: &u8| if byte.is_ascii() { char::from(*byte).to_string() } else { format!("\\x{byte:02x}") };
    bytes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_in_the_letters_of_its_collation() {
        for (name, collation, bytes, text) in [
            ("Latin1_General_CI_AS", [0x09, 0x04, 0xd0, 0x00, 0x00], &b"M\xfcller"[..], "Müller"),
            ("SQL_Latin1_General_CP1_CI_AS", [0x09, 0x04, 0xd0, 0x00, 0x34], b"M\xfcller \x80", "Müller €"),
            ("Latin1_General_100_CI_AS_SC_UTF8", [0x09, 0x04, 0xd0, 0x24, 0x00], "Müller".as_bytes(), "Müller"),
            ("Polish_CI_AS", [0x15, 0x04, 0xd0, 0x00, 0x00], b"\xb3\xf3d\x9f", "łódź"),
            ("Cyrillic_General_CI_AS", [0x19, 0x04, 0xd0, 0x00, 0x00], b"\xcc\xe8\xf0", "Мир"),
            ("Greek_CI_AS", [0x08, 0x04, 0xd0, 0x00, 0x00], b"\xe1\xe2", "αβ"),
            ("Turkish_CI_AS", [0x1f, 0x04, 0xd0, 0x00, 0x00], b"\xfe", "ş"),
            ("Japanese_CI_AS", [0x11, 0x04, 0xd0, 0x00, 0x00], b"\x93\xfa\x96\x7b", "日本"),
            ("Chinese_Taiwan_Stroke_CI_AS", [0x04, 0x04, 0xd0, 0x00, 0x00], b"\xa4\xa4", "中"),
            ("Chinese_PRC_CI_AS", [0x04, 0x08, 0xd0, 0x00, 0x00], b"\xd6\xd0", "中"),
            ("SQL_Latin1_General_CP850_CI_AS", [0x09, 0x04, 0xd0, 0x00, 0x31], b"M\x81ller", "M\\x81ller"),
            ("UTF-8 that is none", [0x09, 0x04, 0xd0, 0x24, 0x00], b"M\xfcller", "M\\xfcller"),
        ] {
            assert_eq!(Collation::read(collation).text(bytes, false), text, "{name}");
        }
        let utf8 = Collation::read([0x09, 0x04, 0xd0, 0x24, 0x00]);
        assert_eq!(utf8.text("a€".as_bytes().get(..3).unwrap(), true), "a", "half a character at the cut");
    }
}
