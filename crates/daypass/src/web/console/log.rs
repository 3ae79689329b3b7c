//! The log: filtered, verified, exported.

use super::{
    time::of_field,
    visit::{Shell, Shown, Visit, page as show},
};
use crate::web::{Problem, api, dto::LogLine};
use askama::Template;
use axum::{
    Json,
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use daypass_core::{chain, index::Kind};
use std::collections::HashMap;

/// Lines on a page.
const LINES: u32 = 50;

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    shell: Shell,
    lines: Vec<LogLine>,
    environments: Vec<String>,
    kinds: Vec<&'static str>,
    environment: String,
    person: String,
    kind: String,
    from: String,
    until: String,
    /// The address of the lines before these; none when there are none.
    older: Option<String>,
    problem: Option<Problem>,
    verified: Option<String>,
}

struct Asked {
    query: HashMap<String, String>,
}

impl Asked {
    fn text(&self, name: &str) -> String {
        self.query.get(name).map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    fn search(&self, limit: u32) -> Result<api::log::Search, String> {
        let some = |name: &str| Some(self.text(name)).filter(|text| !text.is_empty());
        Ok(api::log::Search {
            environment: some("environment"),
            person: some("person"),
            kind: some("kind"),
            from: of_field(&self.text("from"))?,
            until: of_field(&self.text("until"))?,
            before: self.text("before").parse().ok(),
            limit: Some(limit),
        })
    }

    /// The same question, further back.
    fn older(&self, before: u64) -> String {
        let kept = ["environment", "person", "kind", "from", "until"].into_iter().map(|name| (name, self.text(name))).filter(|(_, text)| !text.is_empty());
        let pairs: Vec<String> = kept.map(|(name, text)| format!("{name}={}", encoded(&text))).collect();
        let mut address = format!("/log?before={before}");
        pairs.iter().for_each(|pair| address.push_str(&format!("&{pair}")));
        address
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

pub async fn page(visit: Visit, Query(query): Query<HashMap<String, String>>) -> Shown {
    log_page(&visit, Asked { query }, None).await
}

async fn log_page(visit: &Visit, asked: Asked, verified: Option<String>) -> Shown {
    let found = async {
        let search = asked.search(LINES)?;
        api::log::find(State(visit.app.clone()), visit.caller.clone(), Ok(Query(search))).await
    };
    let (lines, problem) = match found.await {
        Ok(Json(lines)) => (lines, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    let environments = api::environments::names(&visit.app, &visit.caller);
    let older = lines.last().filter(|_| lines.len() == LINES as usize).map(|last| asked.older(last.seq));
    let shown = LogPage {
        shell: visit.shell(),
        older,
        lines,
        environments,
        kinds: Kind::ALL.map(Kind::as_str).to_vec(),
        environment: asked.text("environment"),
        person: asked.text("person"),
        kind: asked.text("kind"),
        from: asked.text("from"),
        until: asked.text("until"),
        problem,
        verified,
    };
    Ok(show(&shown))
}

/// Checks every line against its hash and the line before.
pub async fn verify(visit: Visit) -> Shown {
    visit.caller.need(&visit.app, daypass_core::people::Permission::ReadLog)?;
    let mut head = chain::Head::EMPTY;
    let outcome = loop {
        let lines = visit.app.node.store.log.read(head.seq, 10_000).await?;
        if lines.is_empty() {
            break format!(
                "All {} lines follow from each other, each with its own hash. The log ends at {head}: keep that elsewhere to notice a rewritten log.",
                head.seq
            );
        }
        let checked = crate::aside::LOOKS
            .run(move || lines.iter().try_fold(head, |head, line| chain::open(line, &head).map(|(_, next)| next).map_err(|why| (head.seq + 1, why))));
        match checked.await.map_err(Problem::unavailable)? {
            Ok(next) => head = next,
            Err((line, why)) => break format!("The log is damaged at line {line}: {why}."),
        }
    };
    log_page(&visit, Asked { query: HashMap::new() }, Some(outcome)).await
}

/// The lines themselves, with the closing line: what `daypass log verify` takes.
pub async fn export_lines(visit: Visit) -> Result<Response, super::visit::Fault> {
    let answer = api::log::export(State(visit.app.clone()), visit.caller.clone()).await?;
    Ok(([(header::CONTENT_DISPOSITION, "attachment; filename=\"daypass-log.jsonl\"")], answer).into_response())
}

/// The sentences of the log as a table for other programs.
pub async fn export_table(visit: Visit, Query(query): Query<HashMap<String, String>>) -> Result<Response, super::visit::Fault> {
    let asked = Asked { query };
    let mut search = asked.search(1_000)?;
    let mut text = csv(&["number", "at", "by", "what", "kind", "environment"].map(str::to_owned));
    loop {
        let next = api::log::Search { before: search.before, ..asked.search(1_000)? };
        let Json(lines) = api::log::find(State(visit.app.clone()), visit.caller.clone(), Ok(Query(next))).await?;
        let Some(last) = lines.last() else { break };
        search.before = Some(last.seq);
        for line in &lines {
            text.push_str(&csv(&[
                line.seq.to_string(),
                line.at.clone(),
                line.by.clone(),
                line.what.clone(),
                line.kind.clone(),
                line.environment.clone().unwrap_or_default(),
            ]));
        }
    }
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8"), (header::CONTENT_DISPOSITION, "attachment; filename=\"daypass-log.csv\"")], text).into_response())
}

/// A line of RFC 4180. What a spreadsheet would take for a formula is made a text.
pub fn csv(cells: &[String]) -> String {
    let cell = |text: &String| {
        let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.clone() };
        format!("\"{}\"", text.replace('"', "\"\""))
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cell_is_never_a_formula() {
        let line = super::csv(&["=HYPERLINK(\"http://x\")".to_owned(), "a \"b\", c".to_owned()]);
        assert_eq!(line, "\"'=HYPERLINK(\"\"http://x\"\")\",\"a \"\"b\"\", c\"\r\n");
    }
}
