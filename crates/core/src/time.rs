//! Moments and lifetimes. A moment is microseconds since 1970 (UTC); a lifetime is never zero and never endless.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// A moment, in microseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(i64);

impl Time {
    /// Before everything: the value of a clock nobody has read yet.
    pub const ZERO: Time = Time(0);

    pub const fn from_micros(micros: i64) -> Self {
        Time(micros)
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The moment `ttl` later; saturates at the end of time rather than wrapping to the past.
    pub fn after(self, ttl: Ttl) -> Time {
        Time(self.0.saturating_add(ttl.micros()))
    }

    /// The moment so many times 24 hours later. What is kept or changed after days may outlive every pass.
    pub fn days_after(self, days: u16) -> Time {
        Time(self.0.saturating_add(i64::from(days) * 24 * 3600 * 1_000_000))
    }

    /// The moment `ttl` earlier.
    pub fn before(self, ttl: Ttl) -> Time {
        Time(self.0.saturating_sub(ttl.micros()))
    }

    /// Microseconds from `earlier` to `self`; negative when `self` is the earlier one.
    pub fn since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds since 1970, rounded down: what an engine's `to_timestamp` takes without ever being later than `self`.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(stamp) => write!(f, "{stamp}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Timestamp>()
            .map(|stamp| Time(stamp.as_microsecond()))
            .map_err(|_| format!("'{text}' is not a moment; write it like 2026-11-23T14:30:00Z or 2026-11-23T15:30:00+01:00"))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A lifetime: at least one second, at most [`Ttl::LONGEST`]. There is no value for "for ever".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ttl(u32);

impl Ttl {
    /// 30 days: nobody who needs longer needs just-in-time access.
    pub const LONGEST: Ttl = Ttl(30 * 24 * 3600);

    pub const fn hours(hours: u32) -> Ttl {
        Self::clamped(hours as u64 * 3600)
    }

    pub const fn minutes(minutes: u32) -> Ttl {
        Self::clamped(minutes as u64 * 60)
    }

    /// The lifetime of so many seconds, or why it cannot be one.
    pub fn seconds(seconds: u64) -> Result<Ttl, String> {
        match u32::try_from(seconds) {
            Ok(s) if (1..=Self::LONGEST.0).contains(&s) => Ok(Ttl(s)),
            _ => Err(format!("a lifetime is between 1 second and 30 days, not {seconds} seconds")),
        }
    }

    pub const fn as_seconds(self) -> u64 {
        self.0 as u64
    }

    pub const fn micros(self) -> i64 {
        self.0 as i64 * 1_000_000
    }

    const fn clamped(seconds: u64) -> Ttl {
        if seconds < 1 {
            Ttl(1)
        } else if seconds > Self::LONGEST.0 as u64 {
            Self::LONGEST
        } else {
            Ttl(seconds as u32)
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        let mut parts = Vec::new();
        for (n, unit) in [(h, "h"), (m, "min"), (s, "s")] {
            if n > 0 {
                parts.push(format!("{n} {unit}"));
            }
        }
        f.write_str(&parts.join(" "))
    }
}

impl FromStr for Ttl {
    type Err = String;

    /// `8h`, `90m`, `30s`, `1h 30m`, or a number of seconds.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let how = || format!("'{text}' is not a lifetime; write it like 8h, 90m, 1h 30m or 45s");
        let seconds = match text.parse::<u64>() {
            Ok(n) => n,
            Err(_) => {
                let span: jiff::SignedDuration = text.parse().map_err(|_| how())?;
                u64::try_from(span.as_secs()).map_err(|_| how())?
            }
        };
        Ttl::seconds(seconds)
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ttl::seconds(u64::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_never_zero_and_never_endless() {
        assert_eq!("8h".parse::<Ttl>().unwrap(), Ttl::hours(8));
        assert_eq!("1h 30m".parse::<Ttl>().unwrap(), Ttl::minutes(90));
        assert_eq!("45".parse::<Ttl>().unwrap().as_seconds(), 45);
        for wrong in ["0", "-1h", "", "soon", "31d", "99999999999999999999", "18446744073709551615"] {
            assert!(wrong.parse::<Ttl>().is_err(), "{wrong}");
        }
        assert_eq!(Ttl::minutes(90).to_string(), "1 h 30 min");
    }

    #[test]
    fn adding_a_lifetime_never_wraps_to_the_past() {
        assert!(Time::from_micros(i64::MAX - 1).after(Ttl::hours(8)) > Time::ZERO);
    }

    #[test]
    fn a_moment_reads_back_as_it_was_written() {
        let at = Time::from_micros(1_763_900_000_123_456);
        assert_eq!(at.to_string().parse::<Time>().unwrap(), at);
        assert!("yesterday".parse::<Time>().unwrap_err().contains("2026-11-23T14:30:00Z"));
    }
}
