//! Tasks that must not end, on threads of their own. What ends access (the writer, the fence, the keepers) shares its threads with nobody's
//! requests; each of these tasks is watched: one that ends, or that stands still, ends the process. The log is the truth, so a restart is
//! safe, and it lets nobody stay.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Handle};

/// A task that has not come back from one step by then stands still: no step of ours waits for anything.
const STANDS_STILL: Duration = Duration::from_secs(5);
/// Between two looks of the watchdog.
const LOOK: Duration = Duration::from_secs(1);
/// What the process says when it ends itself.
pub const EXIT: i32 = 70;

/// Threads for what ends access.
#[derive(Clone)]
pub struct Watch {
    handle: Handle,
    steps: Arc<Mutex<Vec<Arc<Step>>>>,
}

/// When the step of a task that is being made began, on a clock of this process (milliseconds); 0: none is.
struct Step {
    name: &'static str,
    began: AtomicI64,
}

impl Watch {
    pub fn start() -> std::io::Result<Watch> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("ends").enable_all().build()?;
        let watch = Watch { handle: runtime.handle().clone(), steps: Arc::default() };
        // it lives as long as the process
        std::thread::Builder::new().name("ends-runtime".to_owned()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        let steps = watch.steps.clone();
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || watchdog(&steps))?;
        Ok(watch)
    }

    /// Where such a task may spawn others that may end.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a task that must not end.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let step = Arc::new(Step { name, began: AtomicI64::new(0) });
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.retain(|known| Arc::strong_count(known) > 1);
        steps.push(step.clone());
        drop(steps);
        let stepped = Stepped { task: Box::pin(AssertUnwindSafe(task)), step };
        self.handle.spawn(async move {
            let why = match futures_util::FutureExt::catch_unwind(stepped).await {
                Ok(()) => "it ended",
                Err(_) => "it failed",
            };
            give_up(name, why);
        });
    }
}

fn give_up(name: &str, why: &str) -> ! {
    tracing::error!(task = name, "{why}, and it must not: Daypass ends itself, and is to be started again. The log is whole; nobody stays in");
    std::process::exit(EXIT)
}

struct Stepped<F> {
    task: Pin<Box<AssertUnwindSafe<F>>>,
    step: Arc<Step>,
}

impl<F: Future<Output = ()>> Future for Stepped<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.step.began.store(millis(), Ordering::Release);
        let polled = self.task.as_mut().poll(cx);
        self.step.began.store(0, Ordering::Release);
        polled
    }
}

impl<F> std::panic::UnwindSafe for Stepped<F> {}

fn millis() -> i64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    i64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(i64::MAX).saturating_add(1)
}

fn watchdog(steps: &Mutex<Vec<Arc<Step>>>) {
    let mut seen = Vec::new();
    loop {
        std::thread::sleep(LOOK);
        let known = steps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(name) = stands_still(&known, &mut seen, millis()) {
            // without the runtime's help: its threads may be what stands still
            tracing::error!(task = name, "it has not moved for {} s: Daypass ends itself, and is to be started again", STANDS_STILL.as_secs());
            std::process::abort();
        }
    }
}

/// The task whose step was found standing still at two looks. Once is not enough: a process that was stopped and goes on finds old steps.
fn stands_still(steps: &[Arc<Step>], seen: &mut Vec<(&'static str, i64)>, now: i64) -> Option<&'static str> {
    let still = |step: &Arc<Step>| {
        let began = step.began.load(Ordering::Acquire);
        (began != 0 && now - began >= STANDS_STILL.as_millis() as i64).then_some((step.name, began))
    };
    let found: Vec<_> = steps.iter().filter_map(still).collect();
    let twice = found.iter().find(|one| seen.contains(one)).map(|(name, _)| *name);
    *seen = found;
    twice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_found_standing_still_twice_is_the_end() {
        let step = |began| Arc::new(Step { name: "the writer", began: AtomicI64::new(began) });
        let mut seen = Vec::new();
        // nothing is being done; a step of a moment
        assert_eq!(stands_still(&[step(0), step(9_000)], &mut seen, 10_000), None);
        // an old one, once: the process may have been stopped. Another one at the next look is another one
        assert_eq!(stands_still(&[step(1_000)], &mut seen, 10_000), None);
        assert_eq!(stands_still(&[step(2_000)], &mut seen, 11_000), None);
        assert_eq!(stands_still(&[step(2_000)], &mut seen, 12_000), Some("the writer"));
    }

    #[tokio::test]
    async fn a_step_is_noted_while_it_is_made_and_no_longer() {
        let step = Arc::new(Step { name: "the fence", began: AtomicI64::new(0) });
        let known = step.clone();
        let task = Box::pin(AssertUnwindSafe(async move { assert!(known.began.load(Ordering::Acquire) > 0) }));
        Stepped { task, step: step.clone() }.await;
        assert_eq!(step.began.load(Ordering::Acquire), 0);
    }
}
