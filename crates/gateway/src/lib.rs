//! The way in: takes connections, admits or refuses them, relays bytes until the session's end, and cuts it then.
//!
//! The gateway reads the ledger and never writes it. Everything that a person is promised about the end of access rests on the
//! fence in here ([`sessions`]): it needs no store, no control plane and no target.

mod accept;
mod answer;
mod browser;
mod connection;
mod line;
mod pg;
pub mod places;
pub mod ranked;
mod recorder;
mod relay;
pub mod sessions;
mod tds;
pub mod tls;
mod upstream;
mod workers;
pub mod wrapped;

pub use accept::{Gateway, Limits, serve};
pub use browser::browse;
pub use sessions::keep_fence;
pub use upstream::{Ready, UpstreamError, Way, Who, knock, probe, probe_as};
pub use workers::Workers;

use daypass_core::{environment::Target, ids::*, ledger::Ledger, secret::Secret, session::*, time::Time};
use daypass_wire::pg::scram::{SaltedPassword, Verifier};
use std::{future::Future, sync::Arc};
use tokio::sync::watch;

/// A login that is under way at a target. Dropped when it is a session, or is none.
pub struct Door(Option<Box<dyn FnOnce() + Send>>);

impl Door {
    pub fn new(close: impl FnOnce() + Send + 'static) -> Door {
        Door(Some(Box::new(close)))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(close) = self.0.take() {
            close();
        }
    }
}

/// What the gateway sees of the rest: a read view of the ledger, the secrets of live passes, the records of sessions.
pub trait World: Send + Sync + 'static {
    /// Looks at the ledger as it is now. No lock is held meanwhile, and a look that takes long holds up nobody.
    fn ledger<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R;
    /// The time; it never runs backwards, and it goes on while the machine sleeps.
    fn now(&self) -> Time;
    /// Says each time the ledger changed.
    fn changes(&self) -> watch::Receiver<u64>;
    /// What checks the password of an account.
    fn verifier(&self, account: &str) -> Option<Verifier>;
    /// What the target knows as the account's password.
    fn target_password(&self, pass: PassId) -> Option<Secret>;
    /// The password of a standing account.
    fn standing_password(&self, standing: StandingId) -> Option<Secret>;
    /// How to reach a target, as its engine and mode want it; none: its environment says in plain words that it has no TLS.
    fn target_tls(&self, target: TargetId) -> Option<Arc<rustls::ClientConfig>>;
    /// Keeps the slow part of SCRAM for the next login of the same pass.
    fn keep_salted(&self, pass: PassId, salted: SaltedPassword);
    fn salted(&self, pass: PassId) -> Option<SaltedPassword>;

    /// How far the log of an environment's server was at the last look. Asked before a login begins: a look that comes meanwhile sees more.
    fn position(&self, environment: EnvironmentId) -> Option<u64>;
    /// Whether the database that a login found itself in is still the environment's. `position` is how far its log is, where that is known, and
    /// `before` how far it was before the login.
    fn is_same_database(&self, environment: EnvironmentId, identity: &str, position: Option<u64>, before: Option<u64>) -> bool;
    /// What a login at a SQL Server asks of the database that it found itself in; none while there is nothing to compare the answer with.
    fn question(&self, environment: EnvironmentId) -> Option<String>;
    /// The same, with the answer to that question.
    fn is_same_answer(&self, environment: EnvironmentId, answer: &[String]) -> bool;

    /// Lets one login of the gateway's in at the target, where accounts can log in at such moments only. The door is held until the session is
    /// on the list of live ones. `again`: the login failed although it was open, so what it proves is set anew.
    fn open_door(&self, target: &Target, pass: PassId, account: &str, again: bool) -> impl Future<Output = Result<Door, String>> + Send;
    /// How many sessions of all passes the target has room for, as of the last look; none: it does not say.
    fn room(&self, target: TargetId) -> Option<u32>;
    /// A standing account does not take the password of the vault: somebody changed it from inside. It is put back, and who came in by the
    /// other one is put out.
    fn put_back(&self, standing: StandingId) -> impl Future<Output = Result<(), String>> + Send;

    /// Ends a session at the target, found by its number there and the account's name.
    fn end_there(&self, session: &sessions::Session, account: &str, number: u32) -> impl Future<Output = Result<(), String>> + Send;

    /// Durable when it answers: before that no byte is relayed.
    fn session_opened(&self, opened: SessionOpened) -> impl Future<Output = Result<(), String>> + Send;
    /// Waits while the queue is full; loses nothing.
    fn statements(&self, block: StatementBlock) -> impl Future<Output = Result<(), String>> + Send;
    fn session_closed(&self, closed: SessionClosed) -> impl Future<Output = Result<(), String>> + Send;
}

/// A random text of letters and digits, for nonces and keys.
pub(crate) fn nonce() -> String {
    let mut bytes = [0_u8; 18];
    random(&mut bytes);
    daypass_core::secret::hex(&bytes)
}

/// Fills with random bytes. Without randomness there is no security: the process ends.
pub(crate) fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system gives random numbers");
}
