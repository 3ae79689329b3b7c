//! Bytes to messages and handshakes, without I/O. Nothing here knows a pass, a socket or a clock (`clippy.toml`).
//!
//! A handshake is a machine: its driver asks [`machine::Step`] after step and does what it says. Because a machine names
//! the exact number of bytes it wants, nothing is ever read past a message: bytes sent ahead of a TLS handshake stay where
//! the TLS layer finds (and refuses) them.

pub mod limits;
pub mod machine;
pub mod observe;
pub mod pg;
pub mod tds;
