//! A refusal is a value: what is wrong and what to do about it, safe to show to whoever asked.

use serde::Serialize;
use std::fmt;

/// Stable words for programs. The text beside it is for people and may change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The text given is not of the form that is wanted.
    Invalid,
    /// No such thing, or not yours to see: the two are not told apart.
    NotFound,
    /// You may not do this.
    NotPermitted,
    /// The name is taken.
    Taken,
    /// The policy of the environment says no.
    Policy,
    /// Not in this state: it is over, not ready, or frozen by a movement.
    State,
}

/// Why a command was not carried out. It changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Refusal {
    pub code: Code,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do about it, in a sentence.
    pub remedy: String,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal { code, message: message.into(), remedy: remedy.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Refusal::new(Code::Invalid, message, "Correct the value and send it again; nothing was changed.")
    }

    pub fn policy(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal::new(Code::Policy, message, remedy)
    }

    pub fn state(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal::new(Code::State, message, remedy)
    }

    /// The same words whether it is not there or not yours.
    pub fn not_found(what: &str, name: &str) -> Self {
        Refusal::new(
            Code::NotFound,
            format!("There is no {what} '{}' that you may see.", crate::names::shown(name)),
            "Check the spelling; `daypass env ls` and `daypass passes` show what you may see.",
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.message, self.remedy)
    }
}
