//! Records of sessions: one client connection through the gateway. They grow with traffic, so they are not in the log.

use crate::{ids::*, names::AccountName, time::Time};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc};

/// Written and durable before the first byte is relayed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionOpened {
    pub session: SessionId,
    pub pass: PassId,
    pub environment: EnvironmentId,
    pub holder: UserId,
    pub account: AccountName,
    pub address: IpAddr,
    /// What the client calls itself.
    pub application: String,
    pub at: Time,
}

/// Some statements of a session, in the order in which they ended: one JSON object a line.
#[derive(Clone, Debug)]
pub struct StatementBlock {
    pub session: SessionId,
    /// The number of the first statement in it, from 0.
    pub first: u64,
    pub count: u32,
    pub lines: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionClosed {
    pub session: SessionId,
    pub at: Time,
    /// Why it ended, in words.
    pub why: String,
    pub bytes_from_client: u64,
    pub bytes_to_client: u64,
    pub statements: u64,
    /// SHA-256 over its statement blocks, chained: `d = sha256(d_before + block)`, from 32 zero bytes.
    pub digest: String,
}

/// One recorded statement, as it stands in a [`StatementBlock`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatementRecord {
    pub at: Time,
    /// From the first byte of the statement to the last of its result.
    pub micros: u64,
    pub text: Arc<str>,
    /// Bytes of the whole text, when it is longer than what is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    pub rows: u64,
    pub bytes: u64,
    /// SQLSTATE and message, or why it was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
