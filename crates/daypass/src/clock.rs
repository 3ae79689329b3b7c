//! The one place that reads a clock. There are two kinds of time, and only one of them decides.
//!
//! *Running time* decides: it begins where the log ends (or where the wall clock is, if that is later) and then goes on with the boot-time
//! clock, which counts seconds that passed, also while the machine sleeps, and which nobody sets. A deadline is a moment of it, so a life of
//! 15 seconds is 15 seconds, whatever is done to the wall clock meanwhile. *Wall time* is asked for one thing only: where running time begins.
//!
//! | what happens | what follows |
//! |---|---|
//! | the wall clock is set forward or back, or leaps, while Daypass runs | nothing; `daypass doctor` tells that the two differ |
//! | the machine sleeps | that time has passed |
//! | Daypass starts again on the same boot | running time goes on as if it had never stopped, by the anchor in the data directory |
//! | the wall clock was wrong and the log lies in the future | running time begins at the log's end and runs; the start asks first when that is far |
//! | after a boot the wall clock is before the log's end | the start asks, since nobody knows how long the machine was off |

use anyhow::{Context, Result, bail};
use daypass_core::time::{Time, Ttl};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A wall clock that is further before the end of the log than this is asked about, at a start.
const DOUBT: Ttl = Ttl::minutes(2);
/// How far the two kinds of time may be apart before that is told (microseconds).
const APART: i64 = 2_000_000;
/// How often the anchor is written.
pub const ANCHOR_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

pub struct Clock {
    /// Running time minus the boot-time clock.
    offset: i64,
}

/// Where running time was, on the clock that only runs.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Anchor {
    boot: String,
    boot_micros: i64,
    at: Time,
}

/// What the two clocks of the machine show.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Names this boot of the machine.
    pub boot: String,
    pub boot_micros: i64,
    pub wall: Time,
}

fn micros(at: Timespec) -> i64 {
    at.tv_sec.saturating_mul(1_000_000).saturating_add(at.tv_nsec / 1_000)
}

fn boot_micros() -> i64 {
    micros(clock_gettime(ClockId::Boottime))
}

impl Reading {
    pub fn now() -> Reading {
        // where the system does not tell, no two boots are the same, and the wall clock is asked
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_else(|_| uuid::Uuid::now_v7().to_string());
        Reading { boot: boot.trim().to_owned(), boot_micros: boot_micros(), wall: wall() }
    }
}

/// Wall time: for what other machines count by, like codes of a second factor. It decides nothing about access.
pub fn wall() -> Time {
    Time::from_micros(micros(clock_gettime(ClockId::Realtime)))
}

/// Where running time begins, or why a person has to say so.
pub fn begin(reading: &Reading, anchor: Option<&Anchor>, latest: Time) -> Result<Time, String> {
    // the same boot: the clock that only runs has counted what passed since
    if let Some(anchor) = anchor.filter(|anchor| anchor.boot == reading.boot && anchor.boot_micros <= reading.boot_micros) {
        return Ok(Time::from_micros(anchor.at.micros() + (reading.boot_micros - anchor.boot_micros)).max(latest));
    }
    if reading.wall < latest.before(DOUBT) {
        return Err(format!(
            "the clock of this machine says {}, and the last entry of the log is of {latest}. One of them is wrong, and nobody can say how long open access \
             has been open. Set the clock and start again; or, if the clock is right and the log was written under a wrong one, start with \
             `daypass serve --accept-clock`: it ends all open access, and times in the log go on from its last entry",
            reading.wall
        ));
    }
    Ok(reading.wall.max(latest))
}

impl Clock {
    /// For a log whose last entry is of `latest`, with the anchor in this directory. `accept`: a person said that the log may be ahead.
    /// True beside it: that was needed, and what is open has to end.
    pub fn start(data_dir: &Path, latest: Time, accept: bool) -> Result<(Clock, bool)> {
        let reading = Reading::now();
        let anchor = std::fs::read(anchor_file(data_dir)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let (at, doubted) = match begin(&reading, anchor.as_ref(), latest) {
            Ok(at) => (at, false),
            Err(_) if accept => (latest, true),
            Err(why) => bail!(why),
        };
        let clock = Clock { offset: at.micros() - reading.boot_micros };
        // until all is ended that was open, each start asks again: with an anchor, the next one would know of no doubt
        if !doubted {
            clock.keep_anchor(data_dir)?;
        }
        Ok((clock, doubted))
    }

    /// Running time.
    pub fn now(&self) -> Time {
        Time::from_micros(self.offset.saturating_add(boot_micros()))
    }

    /// Writes where running time is, for the next start on the same boot.
    pub fn keep_anchor(&self, data_dir: &Path) -> Result<()> {
        let Reading { boot, boot_micros, .. } = Reading::now();
        let at = Time::from_micros(self.offset.saturating_add(boot_micros));
        let file = anchor_file(data_dir);
        let part = file.with_extension("part");
        let written = std::fs::write(&part, serde_json::to_vec(&Anchor { boot, boot_micros, at })?).and_then(|()| std::fs::rename(&part, &file));
        written.with_context(|| format!("{} cannot be written", file.display()))
    }

    /// How the two kinds of time differ, in words, when they do.
    pub fn apart(&self) -> Option<String> {
        let apart = wall().since(self.now());
        let far = apart.unsigned_abs() / 1_000_000;
        (apart.abs() > APART).then(|| {
            format!(
                "the clock of this machine is {far} seconds {} the time that Daypass counts by. Lives of access are right all the same; times that \
                 are shown are not. If the machine's clock is right, a restart after a boot takes it over",
                if apart > 0 { "ahead of" } else { "behind" }
            )
        })
    }
}

fn anchor_file(data_dir: &Path) -> PathBuf {
    data_dir.join("clock.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000_000_000;
    const SECOND: i64 = 1_000_000;
    const WEEK: i64 = 7 * 24 * 3600 * SECOND;

    fn at(seconds: i64) -> Time {
        Time::from_micros(NOON + seconds * SECOND)
    }

    fn reading(boot: &str, boot_seconds: i64, wall: i64) -> Reading {
        Reading { boot: boot.to_owned(), boot_micros: boot_seconds * SECOND, wall: at(wall) }
    }

    #[test]
    fn on_the_same_boot_a_wall_clock_that_was_set_changes_nothing() {
        let anchor = Anchor { boot: "a".to_owned(), boot_micros: 100 * SECOND, at: at(0) };
        for wall in [-WEEK / SECOND, -60, 0, 20, 3600, WEEK / SECOND] {
            assert_eq!(begin(&reading("a", 120, wall), Some(&anchor), at(5)), Ok(at(20)), "{wall}");
        }
    }

    #[test]
    fn a_log_of_a_week_ahead_is_asked_about_and_a_right_clock_is_not() {
        let late = at(WEEK / SECOND);
        let why = begin(&reading("b", 3, 0), None, late).unwrap_err();
        assert!(why.contains("--accept-clock") && why.contains(&late.to_string()), "{why}");
        // the anchor of another boot says nothing
        let anchor = Anchor { boot: "a".to_owned(), boot_micros: 100 * SECOND, at: late };
        assert!(begin(&reading("b", 3, 0), Some(&anchor), late).is_err());
        assert_eq!(begin(&reading("b", 3, 10), None, at(0)), Ok(at(10)));
        // some seconds are what clocks differ by
        assert_eq!(begin(&reading("b", 3, -30), None, at(0)), Ok(at(0)));
    }

    #[test]
    fn running_time_runs() {
        let directory = std::env::temp_dir().join(format!("daypass-clock-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let week_ahead = Time::from_micros(wall().micros() + WEEK);
        let why = Clock::start(&directory, week_ahead, false).err().expect("it asks");
        assert!(why.to_string().contains("--accept-clock"), "{why}");
        let (clock, doubted) = Clock::start(&directory, week_ahead, true).unwrap();
        assert!(doubted);
        let (first, began) = (clock.now(), std::time::Instant::now());
        assert!(first >= week_ahead);
        while clock.now().since(first) < 20_000 {
            assert!(began.elapsed() < std::time::Duration::from_secs(5), "time stands still");
        }
        assert!(clock.apart().is_some_and(|words| words.contains("behind")));
        // a start that did not come to end what was open asks again; after that, the next one on this boot asks nothing, and goes on
        assert!(Clock::start(&directory, week_ahead, false).is_err());
        clock.keep_anchor(&directory).unwrap();
        let before = clock.now();
        let (again, doubted) = Clock::start(&directory, week_ahead, false).unwrap();
        assert!(!doubted && again.now() >= before && again.now().since(before) < 5 * SECOND);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
