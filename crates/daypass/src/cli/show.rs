//! How results look: tables and sentences for people, JSON for programs.

use super::client::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use daypass_core::names::misleads;
use serde::Serialize;
use std::{
    io::{IsTerminal, Write},
    sync::OnceLock,
};

#[derive(Clone, Copy)]
pub struct Show {
    pub json: bool,
}

impl Show {
    /// A result: as JSON, or as the text that `words` makes of it.
    pub fn one<T: Serialize>(self, value: &T, words: impl FnOnce(&T) -> String) {
        let text = if self.json { serde_json::to_string_pretty(value).unwrap_or_default() } else { clean(&words(value)) };
        out(&text);
    }

    /// A list: as JSON, or as a table; `none` is said when it is empty.
    pub fn list<T: Serialize>(self, values: &[T], header: &[&str], none: &str, row: impl Fn(&T) -> Vec<String>) {
        if self.json {
            return out(&serde_json::to_string_pretty(values).unwrap_or_default());
        }
        if values.is_empty() {
            return self.progress(none);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header.iter().map(|title| title.to_uppercase()));
        for value in values {
            table.add_row(row(value).iter().map(|text| cell(text)));
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
        out(&lines.join("\n"));
    }

    /// A text that is the result.
    pub fn text(self, text: &str) {
        out(text.trim_end());
    }

    /// Something was done; programs see it by the exit code.
    pub fn done(self, words: &str) {
        if !self.json {
            out(&clean(words));
        }
    }

    /// As many of a list as were asked for; where one more came, it is said that there are more, to programs as well.
    pub fn first<T>(self, mut found: Vec<T>, limit: u32, how: &str) -> Vec<T> {
        if found.len() > limit as usize {
            found.truncate(limit as usize);
            let _ = writeln!(std::io::stderr(), "Only {limit} are shown, and there are more: {how}");
        }
        found
    }

    /// What happens meanwhile: never on standard output.
    pub fn progress(self, words: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{}", clean(words));
        }
    }

    pub fn failure(self, failure: &Failure) {
        let mut to = std::io::stderr().lock();
        if self.json {
            let problem = serde_json::json!({ "code": failure.code, "title": failure.title, "remedy": failure.remedy });
            let _ = writeln!(to, "{problem}");
            return;
        }
        let bold = to.is_terminal();
        let (on, off) = if bold { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        let _ = writeln!(to, "{on}{}{off}", clean(&failure.title));
        if !failure.remedy.is_empty() {
            let _ = writeln!(to, "{}", clean(&failure.remedy));
        }
    }
}

/// Other people's words (reasons, application names, statements) must not steer this terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' || misleads(c) { '\u{fffd}' } else { c }).collect()
}

/// The same in one line: what stands on a line of its own is a row of ours.
fn cell(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

/// What kept a result from being written.
static NOT_WRITTEN: OnceLock<String> = OnceLock::new();

fn out(text: &str) {
    note(writeln!(std::io::stdout(), "{text}"));
}

fn note(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        // whoever reads has seen enough (`daypass passes | head`)
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        Err(error) => drop(NOT_WRITTEN.set(error.to_string())),
    }
}

/// Whether all that was to be shown is written: a file that is cut off looks like one that is whole.
pub fn all_written() -> Result<(), Failure> {
    note(std::io::stdout().flush());
    match NOT_WRITTEN.get() {
        None => Ok(()),
        Some(why) => Err(Failure::failed(format!("the result could not be written: {why}"))),
    }
}

/// Seconds as people say them: 7 h 59 min, 12 min, 40 s.
pub fn left(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, _) => format!("{m} min"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// A moment of the API in the reader's own time, to the second.
pub fn moment(text: &str) -> String {
    text.parse::<jiff::Timestamp>()
        .map_or_else(|_| text.to_owned(), |at| at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}
