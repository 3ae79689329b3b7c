//! What is true, what may happen, what must happen next.
//!
//! All that is true of access is an ordered log of [`event::Event`]s. [`ledger::Ledger::apply`] folds it into memory;
//! [`ledger::Ledger::decide`] answers a [`command::Command`] with new events or a refusal. [`admission`] is the one
//! place that opens the door, [`plan`] says what has to be done on a target, [`chain`] proves that the log is unaltered.
//!
//! Nothing here reads a clock, a file, a socket or a random number (`clippy.toml` beside this crate).

pub mod admission;
pub mod allow;
pub mod chain;
pub mod command;
pub mod drift;
pub mod environment;
pub mod event;
pub mod explain;
pub mod firewall;
pub mod ids;
pub mod index;
pub mod ledger;
pub mod managed;
pub mod masks;
pub mod movement;
pub mod names;
pub mod net;
pub mod notice;
pub mod pass;
pub mod past;
pub mod people;
pub mod personal;
pub mod plan;
pub mod policy;
pub mod refusal;
pub mod secret;
pub mod session;
pub mod time;
pub mod words;
