//! Moments and lengths of time as pages show them. A page is written in UTC; with script, the browser puts its own time in place.

use daypass_core::time::Time;

/// `2026-11-24 10:00` in UTC, from RFC 3339.
pub fn moment(text: &str) -> String {
    let plain = |stamp: jiff::Timestamp| stamp.strftime("%Y-%m-%d %H:%M UTC").to_string();
    text.parse::<jiff::Timestamp>().map_or_else(|_| text.to_owned(), plain)
}

/// `7 h 59 min` from seconds.
pub fn left(seconds: &u64) -> String {
    crate::cli::show::left(*seconds)
}

/// What a field for date and time holds: `2026-11-24T10:00`, in UTC.
pub fn field(at: Time) -> String {
    jiff::Timestamp::from_microsecond(at.micros()).map(|stamp| stamp.strftime("%Y-%m-%dT%H:%M").to_string()).unwrap_or_default()
}

/// A moment from such a field, or as RFC 3339. Empty is none.
pub fn of_field(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let with_zone = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    with_zone.parse::<Time>().map(|at| Some(at.to_string()))
}

/// A length of time as people write it, in seconds. Empty is none.
pub fn length(text: &str) -> Result<Option<u64>, String> {
    match text.trim() {
        "" => Ok(None),
        text => crate::cli::duration(text).map(Some),
    }
}

/// `8h`, `1h30m`, `45s`: what [`length`] reads.
pub fn short(seconds: u64) -> String {
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_browsers_send_them() {
        assert_eq!(of_field("2026-11-24T10:00").unwrap().unwrap(), "2026-11-24T10:00:00Z");
        assert_eq!(of_field("2026-11-24").unwrap().unwrap(), "2026-11-24T00:00:00Z");
        assert_eq!(of_field("2026-11-24T11:00:00+01:00").unwrap().unwrap(), "2026-11-24T10:00:00Z");
        assert!(of_field(" ").unwrap().is_none() && of_field("soon").is_err());
        assert_eq!(length(&short(5_400)), Ok(Some(5_400)));
        assert_eq!(short(28_800), "8h");
    }
}
