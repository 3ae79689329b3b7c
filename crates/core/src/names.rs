//! Names and texts that people give. They are checked once, at the edge; inside, a value of these types is right.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::{fmt, str::FromStr};

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $check:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<String, String> = $check;
                check(text).map($name)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                // what was written before turned letters were refused is read all the same
                read_back(&std::borrow::Cow::<'de, str>::deserialize(from)?).parse().map_err(D::Error::custom)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(&self.0, f) }
        }
    )+};
}

/// Whether a character makes others be shown in another order than they stand in (Unicode Standard Annex 9, section 2): what an approver
/// reads would not be what was asked for.
pub fn misleads(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Reason {
    /// How many characters a reader sees: spaces and what has no shape (joiners, fillers, tags) are none.
    pub fn visible(&self) -> usize {
        let shapeless = |c: char| {
            matches!(c, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
                | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
        };
        self.as_str().chars().filter(|c| !c.is_whitespace() && !shapeless(*c)).count()
    }
}

fn read_back(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(misleads) { text.replace(misleads, "\u{fffd}").into() } else { text.into() }
}

texts! {
    /// The name of a project or an environment: 1 to 40 of `a-z 0-9 -`, starting with a letter or a digit (projects of Lifecycle Services are
    /// numbers; an environment's name starts with a letter).
    Name, |text| {
        let fits = matches!(text.len(), 1..=40)
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| text.to_owned()).ok_or_else(|| {
            format!("'{}' is not a name; use 1 to 40 of a-z, 0-9 and -, starting with a letter or a digit", shown(text))
        })
    };
    /// The name that a person signs in with: 1 to 64 of `a-z 0-9 . _ @ -`. Upper case is folded, so a name has one spelling.
    UserName, |text| {
        let text = text.trim().to_ascii_lowercase();
        let fits = matches!(text.len(), 1..=64)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b));
        fits.then(|| text.clone()).ok_or_else(|| {
            format!("'{}' is not a user name; use 1 to 64 of a-z, 0-9, '.', '_', '@' and -", shown(&text))
        })
    };
    /// The name of a database, as the target knows it: 1 to 128 characters, any but NUL. PostgreSQL allows 63 bytes of it.
    DatabaseName, |text| {
        (matches!(text.encode_utf16().count(), 1..=128) && !text.contains('\0')).then(|| text.to_owned())
            .ok_or_else(|| "a database name has 1 to 128 characters and no NUL".to_owned())
    };
    /// A host name or address of a target.
    Host, |text| {
        let fits = matches!(text.len(), 1..=253)
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:_".contains(&b));
        fits.then(|| text.to_ascii_lowercase()).ok_or_else(|| format!("'{}' is not a host name or address", shown(text)))
    };
    /// Why somebody wants in, or did something: 1 to 1,000 characters of plain text.
    Reason, |text| {
        let text = text.trim();
        if text.is_empty() {
            return Err("say in a few words what you need it for".to_owned());
        }
        if text.chars().count() > 1000 {
            return Err(format!("a reason has at most 1,000 characters, this one has {}", text.chars().count()));
        }
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err("a reason is plain text, without control characters".to_owned());
        }
        if text.chars().any(misleads) {
            return Err("a reason is plain text, without characters that turn the direction of letters or begin a line unseen (like U+202E, U+2028)".to_owned());
        }
        Ok(text.to_owned())
    };
    /// The name of an account that exists on a target: 1 to 128 characters on one line.
    RoleName, |text| line(text, 128, "the name of an account");
    /// A kind of reason that a policy offers, like "data upgrade": 1 to 60 characters of plain text on one line.
    Category, |text| line(text, 60, "a category");
    /// The number of a ticket or change: 1 to 100 characters of plain text on one line.
    Ticket, |text| line(text, 100, "a ticket");
    /// An address for mail: one @, and nothing that means anything to a mail server or a header.
    Mail, |text| {
        let text = text.trim();
        let plain = |c: char| c.is_ascii_graphic() && !"<>()[],;:\\\"".contains(c);
        let fits = text.len() <= 254 && text.chars().all(plain) && text.split_once('@').is_some_and(|(who, host)| !who.is_empty() && host.contains('.') && !host.contains('@'));
        fits.then(|| text.to_owned()).ok_or_else(|| format!("'{}' is not an address for mail", shown(text)))
    };
    /// The name of a dump in Daypass's folder of files: 1 to 100 of `A-Z a-z 0-9 . _ -`, starting with a letter or a digit. No path.
    FileName, |text| {
        let fits = matches!(text.len(), 1..=100)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        fits.then(|| text.to_owned()).ok_or_else(|| {
            format!("'{}' is not the name of a file here; use 1 to 100 of a-z, A-Z, 0-9, '.', '_' and -, starting with a letter or a digit", shown(text))
        })
    };
    /// A database account that belongs to a pass: `jit_<person>_<suffix>`, at most 32 of `a-z 0-9 _`.
    AccountName, |text| {
        let fits = matches!(text.len(), 5..=32)
            && text.starts_with("jit_")
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        fits.then(|| text.to_owned()).ok_or_else(|| format!("'{}' is not the name of a Daypass account", shown(text)))
    };
}

fn line(text: &str, most: usize, what: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control) {
        return Err(format!("{what} is 1 to {most} characters of plain text on one line"));
    }
    Ok(text.to_owned())
}

/// What a token is for: 1 to 100 characters of plain text on one line.
pub fn label(text: &str) -> Result<String, String> {
    let text = line(text, 100, "the label of a token")?;
    if text.contains(misleads) { Err("the label of a token is plain text, without characters that turn the direction of letters".to_owned()) } else { Ok(text) }
}

impl AccountName {
    /// The name for a person's pass. `salt` is random, from the shell: its low 20 bits become four base-32 letters.
    pub fn make(person: &UserName, salt: u64) -> AccountName {
        // no 0/o or 1/l: people read this name aloud
        const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let person: String = person.as_str().split('@').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        let suffix: String = (0..4).map(|i| LETTERS[(salt >> (5 * i)) as usize & 31] as char).collect();
        AccountName(format!("jit_{person}_{suffix}"))
    }
}

/// The label of an environment in a server name as tools write it: `tcp:uat.db.example.com,1433`, `uat\\SQLEXPRESS`, `UAT.`. A name of
/// several labels counts only under our own suffix: in others, the first is somebody else's. None for an address.
pub fn server_label(text: &str, suffix: Option<&str>) -> Option<String> {
    let name = text.trim().to_lowercase();
    let name = ["tcp:", "np:", "lpc:", "admin:"].iter().fold(name.as_str(), |name, kind| name.strip_prefix(kind).unwrap_or(name));
    let host = name.split([',', '\\']).next()?.trim().trim_end_matches('.');
    if host.parse::<std::net::IpAddr>().is_ok() || host.contains(':') {
        return None;
    }
    let label = match host.split_once('.') {
        None => host,
        Some((label, rest)) if suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(rest)) => label,
        Some(_) => return None,
    };
    Some(label).filter(|label| !label.is_empty()).map(str::to_owned)
}

/// What a person typed, made safe for a message: short, and without terminal escapes.
pub fn shown(text: &str) -> String {
    shown_up_to(text, 64)
}

/// The same of what may be longer (characters).
pub fn shown_up_to(text: &str, most: usize) -> String {
    let mut safe: String = text.chars().take(most).map(|c| if c.is_control() || misleads(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > most {
        safe.push('…');
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_the_rule() {
        let unseen = "\u{3164}\u{2800}\u{200b} \u{e0041}\u{2800}".parse::<Reason>().unwrap();
        assert_eq!((unseen.visible(), "OPS-17 totals".parse::<Reason>().unwrap().visible()), (0, 12));
        assert!("repair \u{202e}txt.exe".parse::<Reason>().unwrap_err().contains("U+202E"));
        assert_eq!(serde_json::from_str::<Reason>("\"an old \u{202e}one\"").unwrap().as_str(), "an old \u{fffd}one");
        assert!("uat-2".parse::<Name>().is_ok());
        for wrong in ["", "Uat", "-uat", "a b", "ä", &"a".repeat(41)] {
            assert!(wrong.parse::<Name>().unwrap_err().contains("a-z"), "{wrong}");
        }
        assert_eq!("Ana.Kovac@Example.com".parse::<UserName>().unwrap().as_str(), "ana.kovac@example.com");
        assert!(" \n ".parse::<Reason>().unwrap_err().contains("what you need it for"));
        assert!("x\u{1b}[31m".parse::<Reason>().is_err());
        assert!(!shown("a\u{1b}[31mb").contains('\u{1b}'));
    }

    #[test]
    fn a_server_is_known_however_its_name_is_written() {
        for text in ["uat", "UAT", "tcp:uat,1433", "uat.db.example.com", "Tcp:Uat.db.example.com.,1433", "uat\\SQLEXPRESS,14333", " uat. "] {
            assert_eq!(server_label(text, Some("db.example.com")).as_deref(), Some("uat"), "{text}");
        }
        for none in ["", "uat.elsewhere.com", "127.0.0.1", "tcp:127.0.0.1,1433", "::1", ".", ",1433"] {
            assert_eq!(server_label(none, Some("db.example.com")), None, "{none}");
        }
    }

    #[test]
    fn an_account_name_fits_every_engine() {
        let long: UserName = "a-very.long_name.indeed.with.many.parts@example.com".parse().unwrap();
        for salt in [0, 1, u64::MAX, 0x1234_5678] {
            let account = AccountName::make(&long, salt);
            assert!(account.as_str().len() <= 32, "{account}");
            assert_eq!(account.as_str().parse::<AccountName>().unwrap(), account);
        }
    }
}
