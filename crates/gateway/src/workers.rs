//! Threads that serve connections, each with a runtime of its own. A session stays on its thread, so a chunk that arrives
//! wakes nobody else; on a runtime that shares its tasks, half of the processor time per query went into waking.

use std::{
    future::Future,
    io,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::runtime::{Builder, Handle};

pub struct Workers {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
}

impl Workers {
    /// One a core. They run until the process ends.
    ///
    /// Fewer would find more chunks at each wake-up and cost less processor time a query; but when hundreds of sessions have to
    /// end at one moment, that moment is what counts.
    pub fn start() -> io::Result<Workers> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let runtimes = (0..count).map(Workers::thread).collect::<io::Result<_>>()?;
        Ok(Workers { runtimes, next: AtomicUsize::new(0) })
    }

    fn thread(number: usize) -> io::Result<Handle> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("gateway-{number}")).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(handle)
    }

    /// Gives a task to the next thread in turn.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.runtimes.len();
        self.runtimes[turn].spawn(task);
    }
}
