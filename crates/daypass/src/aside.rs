//! Work that is long on purpose (passwords) or by its size (looks into the past): on threads of its own, which the system lets run behind all
//! others. Few of them, and they stay: each keeps the memory that such work takes, so that many attempts need no more of it than one.

use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

/// How far behind all others; what the system's scheduler calls niceness, 0 to 19.
const BEHIND: i32 = 5;

/// Passwords: one of people where they have been seen before, one of everybody else.
pub static PASSWORDS: LazyLock<Pool> = LazyLock::new(|| Pool::start("passwords", 2));
/// Replays of the log and proofs of it.
pub static LOOKS: LazyLock<Pool> = LazyLock::new(|| Pool::start("looks", 4));

pub struct Pool(std::io::Result<Runtime>);

impl Pool {
    fn start(name: &'static str, threads: usize) -> Pool {
        let behind = || {
            // where the system does not allow it, the work is done all the same
            let _ = rustix::process::nice(BEHIND);
        };
        let keep = std::time::Duration::from_secs(u64::from(u32::MAX));
        Pool(
            Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(threads)
                .thread_keep_alive(keep)
                .thread_name(name)
                .on_thread_start(behind)
                .build(),
        )
    }

    /// Does it there; an error when that is impossible.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let runtime = self.0.as_ref().map_err(|error| format!("there is no thread for it: {error}"))?;
        runtime.spawn_blocking(work).await.map_err(|error| error.to_string())
    }
}
