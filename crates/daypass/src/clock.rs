//! The one place that reads a clock. Time never runs backwards in here, and it goes on while the machine sleeps: the later of
//! the wall clock and (wall clock at start + boot-time clock since). A wall clock set back lets nobody stay longer; one set
//! forward ends access early.

use daypass_core::time::Time;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::sync::atomic::{AtomicI64, Ordering};

pub struct Clock {
    /// Wall clock minus boot-time clock, at the start.
    offset: i64,
    latest: AtomicI64,
}

fn micros(at: Timespec) -> i64 {
    at.tv_sec.saturating_mul(1_000_000).saturating_add(at.tv_nsec / 1_000)
}

impl Clock {
    pub fn start() -> Self {
        let wall = micros(clock_gettime(ClockId::Realtime));
        Clock { offset: wall - micros(clock_gettime(ClockId::Boottime)), latest: AtomicI64::new(wall) }
    }

    pub fn now(&self) -> Time {
        let held = self.offset.saturating_add(micros(clock_gettime(ClockId::Boottime)));
        let now = held.max(micros(clock_gettime(ClockId::Realtime)));
        Time::from_micros(self.latest.fetch_max(now, Ordering::AcqRel).max(now))
    }
}
