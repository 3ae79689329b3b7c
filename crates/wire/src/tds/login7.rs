//! LOGIN7: who logs in, with what client, to which database ([MS-TDS] 2.2.6.4). Read from a client, written anew for a target.

use super::packet::{Reader, put_utf16, utf16};
use zeroize::{Zeroize, Zeroizing};

/// Bytes before the texts.
const FIXED: usize = 94;
/// Most characters of a text.
const TEXT: usize = 128;

pub mod feature {
    /// A client that lost its connection may silently log in again.
    pub const SESSION_RECOVERY: u8 = 0x01;
    pub const FEDAUTH: u8 = 0x02;
    pub const COLUMN_ENCRYPTION: u8 = 0x04;
    pub const AZURE_SQL: u8 = 0x08;
    pub const DATA_CLASSIFICATION: u8 = 0x09;
    pub const UTF8: u8 = 0x0a;
    /// Both name another server for the client to go to: it would go around the gateway.
    pub const DNS_CACHING: u8 = 0x0b;
    pub const ENHANCED_ROUTING: u8 = 0x0f;
    pub const JSON: u8 = 0x0d;
    pub const VECTOR: u8 = 0x0e;
    pub const USER_AGENT: u8 = 0x10;
    /// What a client may ask of the target for: the others are not passed on ([MS-TDS] 2.2.6.4 has the list). Not among them are those that lead
    /// around the gateway, and transactions that others commit (0x05).
    pub const FOLLOWED: &[u8] = &[SESSION_RECOVERY, FEDAUTH, COLUMN_ENCRYPTION, AZURE_SQL, DATA_CLASSIFICATION, UTF8, JSON, VECTOR, USER_AGENT];
    /// The newest way of saying how sensitive columns are that is followed.
    pub const NEWEST_CLASSIFICATION: u8 = 2;
}

/// A login. Its password is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Login7 {
    pub tds_version: u32,
    pub packet_size: u32,
    pub program_version: u32,
    pub process: u32,
    pub connection: u32,
    pub flags1: u8,
    pub flags2: u8,
    pub type_flags: u8,
    pub flags3: u8,
    pub time_zone: u32,
    pub locale: u32,
    pub host: String,
    pub user: String,
    pub password: Zeroizing<String>,
    pub application: String,
    pub server: String,
    /// The library of the client, like `ODBC` or `Core Microsoft SqlClient Data Provider`.
    pub library: String,
    pub language: String,
    pub database: String,
    pub client_id: [u8; 6],
    pub attach_file: String,
    /// The client wants its password changed.
    pub changes_password: bool,
    /// Security tokens of Windows came along.
    pub has_sspi: bool,
    pub features: Vec<(u8, Vec<u8>)>,
}

impl Default for Login7 {
    fn default() -> Self {
        Login7 {
            tds_version: 0x7400_0004,
            packet_size: 4096,
            program_version: 0,
            process: 0,
            connection: 0,
            // USE and SET LANGUAGE answer with a message; ODBC's session settings
            flags1: 0xe0,
            flags2: 0x03,
            type_flags: 0,
            flags3: 0,
            time_zone: 0,
            locale: 0x0409,
            host: String::new(),
            user: String::new(),
            password: Zeroizing::new(String::new()),
            application: String::new(),
            server: String::new(),
            library: "ODBC".to_owned(),
            language: String::new(),
            database: String::new(),
            client_id: [0; 6],
            attach_file: String::new(),
            changes_password: false,
            has_sspi: false,
            features: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Login7 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login7").field("user", &self.user).field("database", &self.database).field("library", &self.library).finish_non_exhaustive()
    }
}

/// The oldest version with the layout that is read here: TDS 7.2, SQL Server 2005.
const OLDEST: u32 = 0x7209_0002;

/// fUserType in OptionFlags2 ([MS-TDS] 2.2.6.4): 0 is a person's.
const USER_TYPE: u8 = 0x70;

/// fDatabase in OptionFlags1: the login fails when the database cannot be opened.
const DATABASE_OR_NOTHING: u8 = 0x40;

impl Login7 {
    /// Whether this is a login of a version whose layout is another one.
    pub fn is_too_old(message: &[u8]) -> bool {
        let mut r = Reader(message);
        matches!((r.u32(), r.u32()), (Some(_), Some(version)) if version >> 24 == 0x70 || version >> 24 == 0x71 || (0x7200_0000..OLDEST).contains(&version))
    }

    /// None for what is no login: a text outside the message, a length that does not fit.
    pub fn read(message: &[u8]) -> Option<Login7> {
        let mut r = Reader(message);
        if usize::try_from(r.u32()?).ok()? != message.len() {
            return None;
        }
        let (tds_version, packet_size, program_version, process, connection) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let (flags1, flags2, type_flags, flags3) = (r.u8()?, r.u8()?, r.u8()?, r.u8()?);
        let (time_zone, locale) = (r.u32()?, r.u32()?);
        let (host, user, password) = (field(message, &mut r)?, field(message, &mut r)?, field(message, &mut r)?);
        let (application, server) = (field(message, &mut r)?, field(message, &mut r)?);
        let extension = (r.u16()?, r.u16()?);
        let (library, language, database) = (field(message, &mut r)?, field(message, &mut r)?, field(message, &mut r)?);
        let client_id = r.take(6)?.try_into().ok()?;
        let sspi = (r.u16()?, r.u16()?);
        let attach_file = field(message, &mut r)?;
        let change = (r.u16()?, r.u16()?);
        let sspi_long = r.u32()?;
        let features = if flags3 & 0x10 == 0 { Vec::new() } else { features(message, extension)? };
        Some(Login7 {
            tds_version,
            packet_size,
            program_version,
            process,
            connection,
            flags1,
            flags2,
            type_flags,
            flags3,
            time_zone,
            locale,
            host: utf16(host),
            user: utf16(user),
            password: plain(password),
            application: utf16(application),
            server: utf16(server),
            library: utf16(library),
            language: utf16(language),
            database: utf16(database),
            client_id,
            attach_file: utf16(attach_file),
            changes_password: flags3 & 0x01 != 0 || change.1 > 0,
            has_sspi: flags2 & 0x80 != 0 || sspi.1 > 0 || sspi_long > 0,
            features,
        })
    }

    pub fn feature(&self, id: u8) -> Option<&[u8]> {
        self.features.iter().find(|(other, _)| *other == id).map(|(_, data)| data.as_slice())
    }

    /// The message, its texts in the order of their places: servers exist that read them in a row. Without what is refused
    /// anyway (security tokens, a database file, a new password).
    pub fn message(&self) -> Zeroizing<Vec<u8>> {
        let mut places = Vec::new();
        let mut data = Zeroizing::new(Vec::new());
        let place = |places: &mut Vec<u8>, text: &[u8], units: usize, data: &mut Vec<u8>| {
            places.extend(((FIXED + data.len()) as u16).to_le_bytes());
            places.extend((units as u16).to_le_bytes());
            data.extend_from_slice(text);
        };
        let units = |text: &str| {
            let mut bytes = Vec::new();
            put_utf16(&mut bytes, &text.chars().take(TEXT).collect::<String>());
            bytes.truncate(2 * TEXT);
            bytes
        };
        for text in [&self.host, &self.user] {
            let text = units(text);
            place(&mut places, &text, text.len() / 2, &mut data);
        }
        let mut password = Zeroizing::new(units(&self.password));
        password.iter_mut().for_each(|byte| *byte = byte.rotate_left(4) ^ 0xa5);
        place(&mut places, &password, password.len() / 2, &mut data);
        for text in [&self.application, &self.server] {
            let text = units(text);
            place(&mut places, &text, text.len() / 2, &mut data);
        }
        // the place of the features' place: four bytes that are filled in at the end
        let features_at = data.len();
        let has_features = !self.features.is_empty();
        place(&mut places, &[0; 4][..if has_features { 4 } else { 0 }], if has_features { 4 } else { 0 }, &mut data);
        for text in [&self.library, &self.language, &self.database] {
            let text = units(text);
            place(&mut places, &text, text.len() / 2, &mut data);
        }
        places.extend(self.client_id);
        for _ in ["security tokens", "database file", "new password"] {
            place(&mut places, &[], 0, &mut data);
        }
        places.extend([0; 4]);
        if has_features {
            let offset = (FIXED + data.len()) as u32;
            data[features_at..features_at + 4].copy_from_slice(&offset.to_le_bytes());
            for (id, feature) in &self.features {
                data.push(*id);
                data.extend((feature.len() as u32).to_le_bytes());
                data.extend_from_slice(feature);
            }
            data.push(0xff);
        }
        let flags3 = (self.flags3 & !0x11) | if has_features { 0x10 } else { 0 };
        let mut out = Zeroizing::new(Vec::with_capacity(FIXED + data.len()));
        for number in [(FIXED + data.len()) as u32, self.tds_version, self.packet_size, self.program_version, self.process, self.connection] {
            out.extend(number.to_le_bytes());
        }
        // neither integrated security, nor a kind of user that is none of a person's: fUserType is for the server's own and replication's logins
        // a login that does not get its database is none: without this it would be in another one (fDatabase in OptionFlags1)
        out.extend([self.flags1 | DATABASE_OR_NOTHING, self.flags2 & !(0x80 | USER_TYPE), self.type_flags, flags3]);
        out.extend(self.time_zone.to_le_bytes());
        out.extend(self.locale.to_le_bytes());
        out.extend(&places);
        out.extend_from_slice(&data);
        out
    }
}

/// A text: where it begins and how many characters it has. An empty one's place may be anything.
fn field<'a>(message: &'a [u8], r: &mut Reader<'_>) -> Option<&'a [u8]> {
    let (offset, length) = (usize::from(r.u16()?), usize::from(r.u16()?));
    if length == 0 {
        return Some(&[]);
    }
    message.get(offset..offset + 2 * length).filter(|_| length <= TEXT && offset >= FIXED)
}

/// What stands behind the place of the features: a list that ends with 0xff.
fn features(message: &[u8], (offset, length): (u16, u16)) -> Option<Vec<(u8, Vec<u8>)>> {
    let place: [u8; 4] = message.get(usize::from(offset)..)?.get(..4)?.try_into().ok().filter(|_| length == 4)?;
    let mut r = Reader(message.get(usize::try_from(u32::from_le_bytes(place)).ok()?..)?);
    let mut found = Vec::new();
    loop {
        let id = r.u8()?;
        if id == 0xff {
            return Some(found);
        }
        let length = usize::try_from(r.u32()?).ok()?;
        // each at most once: there are fewer than this
        if found.len() == 32 {
            return None;
        }
        found.push((id, r.take(length)?.to_vec()));
    }
}

/// A password as it stands in the message: nibbles swapped, then XOR 0xa5 ([MS-TDS] 2.2.6.4). It hides nothing from anybody.
fn plain(hidden: &[u8]) -> Zeroizing<String> {
    let mut bytes: Vec<u8> = hidden.iter().map(|byte| (byte ^ 0xa5).rotate_left(4)).collect();
    let text = Zeroizing::new(utf16(&bytes));
    bytes.zeroize();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login7 {
        Login7 {
            host: "laptop".to_owned(),
            user: "jit_maria_aaaa".to_owned(),
            password: Zeroizing::new("pä55 wörd".to_owned()),
            application: "sqlcmd".to_owned(),
            server: "tcp:uat.db.example,1433".to_owned(),
            database: "uat".to_owned(),
            features: vec![(0x0a, vec![1]), (0x01, vec![])],
            ..Login7::default()
        }
    }

    #[test]
    fn it_reads_what_it_writes_and_hides_the_password_as_the_protocol_says() {
        let message = login().message();
        let read = Login7::read(&message).unwrap();
        assert_eq!(read, Login7 { flags3: 0x10, ..login() });
        assert_eq!(plain(&[0xb3, 0xa5]).as_str(), "a", "0x61 ^ 0x00: nibbles swapped to 0x16, XOR 0xa5 is 0xb3");
        assert!(!format!("{read:?}").contains("wörd"));
        let lenient = Login7 { flags1: 0xa0, ..login() };
        assert_eq!(Login7::read(&lenient.message()).unwrap().flags1, 0xe0, "the database, or nothing");
        let without = Login7 { features: Vec::new(), ..login() };
        assert_eq!(Login7::read(&without.message()), Some(without));
    }

    #[test]
    fn what_lies_outside_or_is_too_long_is_no_login() {
        let message = login().message();
        for cut in 0..message.len() {
            assert_eq!(Login7::read(&message[..cut]), None, "cut at {cut}");
        }
        for (at, value) in [(40, 0xffff_u16), (42, 0xffff), (42, 129), (56, 0xffff), (36, 4)] {
            let mut wrong = message.to_vec();
            wrong[at..at + 2].copy_from_slice(&value.to_le_bytes());
            assert_eq!(Login7::read(&wrong), None, "{value} at {at}");
        }
        let endless = Login7 { features: vec![(9, vec![]); 40], ..login() };
        assert_eq!(Login7::read(&endless.message()), None);
    }

    #[test]
    fn what_is_refused_is_seen() {
        let mut message = login().message();
        message[25] |= 0x80;
        assert!(Login7::read(&message).unwrap().has_sspi);
        message[25] = 0;
        message[27] |= 0x01;
        let seen = Login7::read(&message).unwrap();
        assert!(seen.changes_password && !seen.has_sspi);
    }
}
