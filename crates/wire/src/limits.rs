//! Every size limit, with its reason. A length from a peer is compared with one of these before memory is reserved.

/// A PostgreSQL start-up packet after its length word: PostgreSQL's own cap (`MAX_STARTUP_PACKET_LENGTH`, backend_startup.c).
pub const PG_STARTUP: usize = 10_000;

/// A password or SASL message. Client-first and client-final of SCRAM stay under 300 bytes; channel binding adds 64.
pub const PG_SASL: usize = 1_024;

/// A cancel key (protocol 3.2: 4 to 256 bytes).
pub const PG_CANCEL_KEY: usize = 256;

/// Requests before the start-up message proper (SSLRequest, GSSENCRequest): each once.
pub const PG_PREAMBLES: usize = 2;

/// One message of a target during login. Parameter values and notices are short; a hostile target gets no more.
pub const PG_UPSTREAM_MESSAGE: usize = 64 * 1024;

/// All messages of a target during login together.
pub const PG_UPSTREAM_LOGIN: usize = 256 * 1024;

/// SCRAM iterations that we are ready to compute for a target: pgjdbc's cap as well (CVE-2026-42198).
pub const SCRAM_ITERATIONS: u32 = 100_000;

/// How much of a statement's text is recorded; the rest is counted.
pub const STATEMENT_TEXT: usize = 64 * 1024;

/// How much of one execution's bound values is recorded.
pub const BOUND_VALUES: usize = 4 * 1024;

/// How much of one bound value is recorded.
pub const BOUND_VALUE: usize = 512;

/// How much of an error of the target is recorded.
pub const ERROR_TEXT: usize = 2 * 1024;

/// Prepared statements whose text is remembered per session; the oldest is forgotten first (and then recorded by name).
pub const PREPARED: usize = 512;

/// Bytes of prepared text remembered per session.
pub const PREPARED_BYTES: usize = 1024 * 1024;

/// Messages sent ahead of their answers (pipelining) that are followed. Whoever sends more is ended: what they run could not be told from what
/// they sent. Drivers read answers long before.
pub const PIPELINED: usize = 65_536;

/// Bytes of texts and values sent ahead of their answers that are kept. Whoever sends more texts is ended, for the same reason; of values no more
/// than half of it is kept.
pub const PIPELINED_BYTES: usize = 4 * 1024 * 1024;

/// Messages sent ahead of their answers whose bound values are kept as well.
pub const PIPELINED_VALUES: usize = 4_096;

/// The longest TDS packet: the protocol's own limit ([MS-TDS] 2.2.3.1.3).
pub const TDS_PACKET: usize = 32_767;

/// A PRELOGIN message: one packet of the size that counts before the login.
pub const TDS_PRELOGIN: usize = 4_096;

/// A LOGIN7 message: the protocol's own limit is 128 KiB less one ([MS-TDS] 2.2.6.4).
pub const TDS_LOGIN: usize = 128 * 1024 - 1;

/// All that a target says during the login.
pub const TDS_UPSTREAM_LOGIN: usize = 128 * 1024;

/// One token that is followed whole: the description of 1,024 columns with long names has under 300 KiB.
pub const TDS_TOKEN: usize = 512 * 1024;

/// Calls of one message, and calls whose results are waited for, that are recorded one by one.
pub const TDS_CALLS: usize = 1_024;

/// Parameters of one call that are recorded.
pub const TDS_PARAMETERS: usize = 256;

/// Sessions inside one connection (MARS) that are followed at once. A connection with more is ended: it would go unrecorded.
pub const TDS_MARS_SESSIONS: usize = 256;
