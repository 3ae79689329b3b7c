//! What a target says when it does not let a login in, and who is told.
//!
//! The person who connects is told what they can change, or have to know: the target's own words about the settings of the connection, about
//! room, about the state of the server or the database. What is about the gateway's login is nobody's business but the operator's.

use daypass_wire::{pg::message::ErrorFields, tds::upstream::Said};
use std::fmt;

/// A target's refusal, in its own code and words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Postgres(ErrorFields),
    /// At least one.
    SqlServer(Vec<Said>),
}

/// What a refusal is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// A setting that the connection asks for.
    Setting,
    /// Connections or memory of the server.
    Room,
    /// The state of the server or the database, which somebody has to change.
    State,
    /// A state that passes by itself.
    Passing,
    /// The gateway's own login.
    Gateway,
}

impl About {
    /// By SQLSTATE (PostgreSQL manual, appendix A).
    fn of_postgres(code: &str) -> About {
        match code {
            // a server that starts, recovers or stops
            "57P01" | "57P02" | "57P03" => About::Passing,
            _ => match code.get(..2) {
                Some("22" | "42") => About::Setting,
                Some("53") => About::Room,
                Some("55") => About::State,
                _ => About::Gateway,
            },
        }
    }

    /// By number (Microsoft's documentation: "Database engine events and errors", and for Azure "Troubleshooting connectivity issues and other
    /// errors").
    fn of_sqlserver(number: u32) -> About {
        match number {
            // the most connections of users; the limits of an Azure database, of its workers and sessions
            17_809 | 10_928 | 10_929 => About::Room,
            // not recovered yet, in recovery, in the middle of a restore; moved between nodes, busy; a replica that changes its role; an upgrade of its scripts
            921 | 922 | 927 | 40_197 | 40_501 | 40_613 | 983 | 18_401 => About::Passing,
            // one user's only, offline, files that cannot be opened, suspect; a replica that takes nobody, or readers only; the server in
            // single-user mode, administrators only; a logon trigger
            924 | 942 | 945 | 926 | 976 | 978 | 18_461 | 18_451 | 17_892 => About::State,
            _ => About::Gateway,
        }
    }
}

impl Answer {
    pub fn about(&self) -> About {
        self.told().map_or(About::Gateway, |(about, _)| about)
    }

    /// What the person is told of it, and in which words.
    fn told(&self) -> Option<(About, &str)> {
        let all = match self {
            Answer::Postgres(fields) => vec![(About::of_postgres(&fields.code), fields.message.as_str())],
            Answer::SqlServer(said) => said.iter().map(|said| (About::of_sqlserver(said.number), said.text.as_str())).collect(),
        };
        all.into_iter().find(|(about, _)| *about != About::Gateway)
    }

    pub fn words(&self) -> Option<&str> {
        self.told().map(|(_, words)| words)
    }

    /// The SQLSTATE, where the person is told of it.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Answer::Postgres(fields) => self.words().map(|_| fields.code.as_str()),
            Answer::SqlServer(_) => None,
        }
    }

    /// Whether it did not take the password, or does not let the account in at all.
    pub fn is_wrong_password(&self) -> bool {
        match self {
            // 28000 is also what a server says whose pg_hba.conf has no line for us: that is no reason to put anybody out
            Answer::Postgres(fields) => fields.code == "28P01" || (fields.code == "28000" && fields.routine == "InitializeSessionUserId"),
            Answer::SqlServer(said) => said.first().is_some_and(|said| said.number == 18_456),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Postgres(fields) => write!(f, "{}: {}", fields.code, fields.message),
            Answer::SqlServer(said) => {
                let all: Vec<String> = said.iter().map(|said| format!("{}: {}", said.number, said.text)).collect();
                f.write_str(&all.join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(code: &str, routine: &str) -> Answer {
        Answer::Postgres(ErrorFields { code: code.to_owned(), message: "in any language".to_owned(), routine: routine.to_owned() })
    }

    fn sqlserver(numbers: &[u32]) -> Answer {
        Answer::SqlServer(numbers.iter().map(|number| Said { number: *number, text: format!("text of {number}") }).collect())
    }

    #[test]
    fn a_server_that_lets_nobody_in_from_here_has_not_another_password() {
        assert!(postgres("28P01", "auth_failed").is_wrong_password());
        assert!(postgres("28000", "InitializeSessionUserId").is_wrong_password(), "it may not log in at all");
        assert!(!postgres("28000", "ClientAuthentication").is_wrong_password(), "no line of pg_hba.conf");
        assert!(!postgres("53300", "InitProcess").is_wrong_password());
        assert!(sqlserver(&[18_456]).is_wrong_password());
        assert!(!sqlserver(&[17_892]).is_wrong_password());
    }

    #[test]
    fn i_am_told_what_is_mine_to_know_and_nothing_of_the_gateways_login() {
        for (answer, about) in [
            (postgres("42704", ""), About::Setting),
            (postgres("53300", ""), About::Room),
            (postgres("55000", ""), About::State),
            (postgres("57P03", ""), About::Passing),
            (postgres("28P01", ""), About::Gateway),
            (postgres("", ""), About::Gateway),
            (sqlserver(&[17_809]), About::Room),
            (sqlserver(&[17_892]), About::State),
            (sqlserver(&[922]), About::Passing),
            (sqlserver(&[18_456]), About::Gateway),
            (sqlserver(&[4_060, 18_456]), About::Gateway),
        ] {
            assert_eq!(answer.about(), about, "{answer}");
            assert_eq!(answer.words().is_none(), about == About::Gateway, "{answer}");
        }
        let both = sqlserver(&[18_456, 922]);
        assert_eq!((both.about(), both.words()), (About::Passing, Some("text of 922")));
        assert_eq!(both.to_string(), "18456: text of 18456; 922: text of 922");
    }
}
