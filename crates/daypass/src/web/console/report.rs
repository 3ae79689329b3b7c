//! Who had access to what, when, and why: as a table, and as a picture that one would rather look at than read.

use super::{
    time::{field, moment, of_field},
    visit::{Fault, Shell, Shown, Visit, now, page as show},
};
use crate::web::{Problem, api, dto::HeldView, environment as find};
use askama::Template;
use axum::{
    extract::Query,
    http::header,
    response::{IntoResponse, Response},
};
use daypass_core::{ids::EnvironmentId, pass::Access, time::Time};
use std::collections::HashMap;

/// What is shown when nothing is asked for: the last seven days.
const USUAL: i64 = 7 * 86_400_000_000;
/// Lanes in the picture, and rows in the table; the export has all.
const LANES: usize = 120;
const ROWS: usize = 500;

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage {
    shell: Shell,
    held: Vec<HeldView>,
    /// Rows that the page leaves out.
    left_out: usize,
    environments: Vec<String>,
    environment: String,
    from: String,
    until: String,
    /// None when one moment is asked about.
    picture: Option<Picture>,
    moment: Option<String>,
    /// The address of the same as a table for other programs.
    csv: String,
    problem: Option<Problem>,
}

struct Asked {
    environment: String,
    env: Option<EnvironmentId>,
    from: Time,
    until: Time,
    moment: bool,
}

impl Asked {
    fn of(visit: &Visit, query: &HashMap<String, String>) -> Result<Asked, Problem> {
        let text = |name: &str| query.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
        let now = now(&visit.app);
        let environment = text("environment");
        let env = Some(environment.as_str()).filter(|name| !name.is_empty()).map(|name| find(&visit.app, &visit.caller, name)).transpose()?.map(|env| env.id);
        // one moment, as the page of the log asks for it
        if let Some(at) = of_field(&text("at"))? {
            let from: Time = at.parse()?;
            return Ok(Asked { environment, env, from, until: Time::from_micros(from.micros() + 1_000_000), moment: true });
        }
        let until = of_field(&text("until"))?.map(|text| text.parse()).transpose()?.unwrap_or(now);
        let from = of_field(&text("from"))?.map(|text| text.parse()).transpose()?.unwrap_or(Time::from_micros(until.micros() - USUAL));
        if until <= from {
            return Err("The end is not after the beginning.".to_owned().into());
        }
        Ok(Asked { environment, env, from, until, moment: false })
    }
}

pub async fn page(visit: Visit, Query(query): Query<HashMap<String, String>>) -> Shown {
    let (asked, problem) = match Asked::of(&visit, &query) {
        Ok(asked) => (asked, None),
        Err(problem) => (Asked::of(&visit, &HashMap::new())?, Some(problem)),
    };
    let mut held = api::log::held(&visit.app, &visit.caller, asked.env, None, asked.from, asked.until).await?;
    let picture = if asked.moment { None } else { Some(Picture::of(&held, asked.from, asked.until)) };
    let left_out = held.len().saturating_sub(ROWS);
    held.truncate(ROWS);
    let environments = api::environments::names(&visit.app, &visit.caller);
    let shown = ReportPage {
        shell: visit.shell(),
        picture,
        moment: asked.moment.then(|| asked.from.to_string()),
        environments,
        csv: match asked.moment {
            true => format!("/report.csv?environment={}&at={}", asked.environment, query.get("at").map_or("", String::as_str)),
            false => format!("/report.csv?environment={}&from={}&until={}", asked.environment, field(asked.from), field(asked.until)),
        },
        environment: asked.environment,
        from: field(asked.from),
        until: field(asked.until),
        held,
        left_out,
        problem,
    };
    Ok(show(&shown))
}

pub async fn export_table(visit: Visit, Query(query): Query<HashMap<String, String>>) -> Result<Response, Fault> {
    let asked = Asked::of(&visit, &query)?;
    let held = api::log::held(&visit.app, &visit.caller, asked.env, None, asked.from, asked.until).await?;
    let mut text =
        super::log::csv(&["person", "environment", "account", "access", "from", "until", "ended", "sessions", "approved by", "reason"].map(str::to_owned));
    for held in held {
        text.push_str(&super::log::csv(&[
            held.holder,
            held.environment,
            held.account,
            held.access.as_str().to_owned(),
            held.from,
            held.until,
            held.ended.unwrap_or_default(),
            held.sessions.to_string(),
            held.approved_by,
            held.reason,
        ]));
    }
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8"), (header::CONTENT_DISPOSITION, "attachment; filename=\"daypass-report.csv\"")], text)
        .into_response())
}

/// The picture, in units of its own: 1,000 wide, a lane for each stretch.
struct Picture {
    height: usize,
    lanes: Vec<Lane>,
    ticks: Vec<Tick>,
    left_out: usize,
}

struct Lane {
    y: usize,
    who: String,
    x: f64,
    width: f64,
    write: bool,
    /// It goes on beyond the picture's end.
    open: bool,
    told: String,
}

struct Tick {
    x: f64,
    label: String,
}

/// Where the bars begin and end; left of it stand the names.
const BARS: (f64, f64) = (190.0, 990.0);
const LANE: usize = 26;

impl Picture {
    fn of(held: &[HeldView], from: Time, until: Time) -> Picture {
        let span = until.since(from).max(1) as f64;
        let x = |at: Time| BARS.0 + (BARS.1 - BARS.0) * (at.since(from) as f64 / span).clamp(0.0, 1.0);
        let at = |text: &str| text.parse::<Time>().unwrap_or(from);
        let lane = |(n, held): (usize, &HeldView)| {
            let (begins, ends) = (x(at(&held.from)), x(at(&held.until)));
            let ended = held.ended.as_ref().map(|why| format!(", it {why}")).unwrap_or_default();
            Lane {
                y: 30 + n * LANE,
                who: format!("{} · {}", held.holder, held.environment),
                x: begins,
                width: (ends - begins).max(3.0),
                write: held.access == Access::ReadWrite,
                open: at(&held.until) > until,
                told: format!(
                    "{}, {}: {} to {}{ended}. {}",
                    held.holder,
                    held.access.as_str().replace('_', "-"),
                    moment(&held.from),
                    moment(&held.until),
                    held.reason
                ),
            }
        };
        let lanes: Vec<Lane> = held.iter().take(LANES).enumerate().map(lane).collect();
        Picture { height: 40 + lanes.len() * LANE, left_out: held.len().saturating_sub(LANES), lanes, ticks: ticks(from, until, x) }
    }
}

/// Five to ten marks at round moments.
fn ticks(from: Time, until: Time, x: impl Fn(Time) -> f64) -> Vec<Tick> {
    const STEPS: [(i64, &str); 12] = [
        (60, "%H:%M"),
        (300, "%H:%M"),
        (900, "%H:%M"),
        (3_600, "%H:%M"),
        (7_200, "%H:%M"),
        (14_400, "%d %b %H:%M"),
        (43_200, "%d %b %H:%M"),
        (86_400, "%d %b"),
        (7 * 86_400, "%d %b"),
        (30 * 86_400, "%d %b"),
        (91 * 86_400, "%b %Y"),
        (365 * 86_400, "%Y"),
    ];
    let span = until.since(from) / 1_000_000;
    let (step, format) = STEPS.into_iter().find(|(step, _)| span / step <= 9).unwrap_or((span / 8 + 1, "%Y"));
    let first = (from.seconds().div_euclid(step) + 1) * step;
    let marks = (0..10).map(|n| first + n * step).take_while(|second| *second < until.seconds());
    let tick = |second: i64| {
        let label = jiff::Timestamp::from_second(second).map(|stamp| stamp.strftime(format).to_string()).unwrap_or_default();
        Tick { x: x(Time::from_micros(second * 1_000_000)), label }
    };
    marks.map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_few_marks_whatever_the_stretch() {
        for span in [60, 600, 3_600, 86_400, 7 * 86_400, 400 * 86_400, 4_000 * 86_400_i64] {
            let from = Time::from_micros(1_790_000_000_000_000);
            let until = Time::from_micros(from.micros() + span * 1_000_000);
            let marks = ticks(from, until, |at| at.since(from) as f64).len();
            assert!((0..=10).contains(&marks) && (span < 120 || marks >= 2), "{span} s: {marks}");
        }
    }
}
