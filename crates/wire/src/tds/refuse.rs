//! Refusals in SQL Server's own form: ERROR and DONE in one reply ([MS-TDS] 2.2.7.10), with the numbers of SQL Server and of
//! Azure SQL Database, because tools decide by them what to show and whether to try again.

use super::{
    packet::{self, kind},
    token::{done, put_done, put_message, token_type},
};

pub mod number {
    /// Login failed. The one number that no client tries again by itself.
    pub const LOGIN_FAILED: u32 = 18_456;
    /// Cannot open database.
    pub const CANNOT_OPEN_DATABASE: u32 = 4_060;
    /// Azure's words for an address that is not on the list.
    pub const ADDRESS_NOT_ALLOWED: u32 = 40_615;
    /// Azure's words for a server name that leads elsewhere.
    pub const CANNOT_OPEN_SERVER: u32 = 40_532;
    /// Not available at the moment: clients try again, and should.
    pub const NOT_AVAILABLE: u32 = 40_613;
    /// A limit is reached.
    pub const LIMIT: u32 = 10_928;
    /// The end of a session. From 50,001 on, numbers belong to applications.
    pub const ENDED: u32 = 50_001;
}

/// Class of a refusal at the login; 20 ends a session.
pub const LOGIN: u8 = 14;
pub const FATAL: u8 = 20;

/// Whose words a login speaks, as far as it matters for a refusal. Known by the library name in LOGIN7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// Microsoft's ODBC driver: shows every number at once.
    Odbc,
    /// FreeTDS and what is built on it (tsql, pymssql): the same.
    FreeTds,
    /// Node's tedious: shows an address that is not allowed at once; tries the numbers that it calls transient three times more.
    Tedious,
    /// Anything else, SSMS and SqlClient among it: Azure's number for an address makes them offer a sign-in to Azure, and
    /// python-tds tries it again until its time-out. The one number that nobody tries again is that of a failed login.
    Other,
}

impl Driver {
    pub fn of(library: &str) -> Driver {
        let library = library.to_ascii_lowercase();
        let is = |part: &str| library.contains(part);
        if is("odbc") {
            Driver::Odbc
        } else if is("tedious") {
            Driver::Tedious
        } else if is("db-library") || is("ct-library") || is("tds-library") {
            Driver::FreeTds
        } else {
            Driver::Other
        }
    }

    /// Whether this driver shows the text of such a refusal, and at once. Not available is meant to be tried again by all.
    pub fn shows(self, wanted: u32) -> bool {
        match self {
            _ if wanted == number::NOT_AVAILABLE => true,
            Driver::Odbc | Driver::FreeTds => true,
            Driver::Tedious => matches!(wanted, number::ADDRESS_NOT_ALLOWED | number::CANNOT_OPEN_SERVER),
            Driver::Other => false,
        }
    }
}

/// One refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    pub number: u32,
    pub class: u8,
    pub text: String,
}

impl Reason {
    /// Number 18456, with SQL Server's words in front.
    pub fn login_failed(account: &str, why: &str) -> Reason {
        let shown: String = account.chars().filter(|c| !c.is_control()).take(128).collect();
        Reason { number: number::LOGIN_FAILED, class: LOGIN, text: format!("Login failed for user '{shown}'. {why}").trim_end().to_owned() }
    }

    /// The tokens: the error, `filler` bytes that say nothing, and a last DONE.
    pub(super) fn error(&self) -> Vec<u8> {
        let mut tokens = Vec::new();
        put_message(&mut tokens, self.number, 1, self.class, &self.text, "daypass");
        tokens
    }

    pub(super) fn done() -> Vec<u8> {
        let mut tokens = Vec::new();
        put_done(&mut tokens, token_type::DONE, done::ERROR, 0, 0);
        tokens
    }

    /// The same for TDS 7.1 and before, where a DONE counts rows in four bytes.
    pub fn old_reply(&self) -> Vec<u8> {
        let mut done = Self::done();
        done.truncate(done.len() - 4);
        let mut out = Vec::new();
        packet::put(&mut out, kind::REPLY, 0, &[self.error(), done].concat(), 4_096);
        out
    }

    /// A whole reply.
    pub fn reply(&self) -> Vec<u8> {
        let mut out = Vec::new();
        packet::put(&mut out, kind::REPLY, 0, &[self.error(), Self::done()].concat(), 4_096);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_gets_the_number_that_it_shows_at_once() {
        // as they name themselves in LOGIN7: see tests/recordings; the last three from their documentation and source
        for (library, address, database) in [
            ("ODBC", true, true),
            ("TDS-Library", true, true),
            ("DB-Library", true, true),
            ("Tedious", true, false),
            ("Python TDS Library", false, false),
            ("tiberius", false, false),
            ("Core Microsoft SqlClient Data Provider", false, false),
            ("Framework Microsoft SqlClient Data Provider", false, false),
            ("Microsoft JDBC Driver 12.8", false, false),
        ] {
            let driver = Driver::of(library);
            assert_eq!((driver.shows(number::ADDRESS_NOT_ALLOWED), driver.shows(number::CANNOT_OPEN_DATABASE)), (address, database), "{library}");
            assert!(driver.shows(number::NOT_AVAILABLE), "that is meant to be tried again");
        }
    }
}
