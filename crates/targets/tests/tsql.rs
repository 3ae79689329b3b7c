//! Every statement that is sent to a SQL Server has its row in testkit's table, and is Transact-SQL to a parser that is none of ours.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

mod grammar;

use daypass_testkit::sqlserver::documented::{ANYTHING, EDITIONS, Edition, STATEMENTS, VIEWS, undocumented};
use std::path::Path;

const FIRST: &[&str] = &[
    "SELECT", "ALTER", "CREATE", "DROP", "GRANT", "REVOKE", "DENY", "EXEC", "EXECUTE", "USE", "SET", "KILL", "BACKUP", "RESTORE", "DBCC", "DISABLE", "BEGIN",
    "REVERT",
];

/// The texts of a Rust source up to its tests, that begin as a statement does: with what is filled in left open.
fn statements_of(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let (mut texts, mut rest) = (Vec::new(), String::new());
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        rest.push_str(line);
        rest.push('\n');
    }
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' {
            // a character, or a lifetime: neither holds a text
            if chars.peek() == Some(&'"') {
                chars.next();
            }
            continue;
        }
        if c != '"' {
            continue;
        }
        let mut text = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next() {
                    // goes on in the next line
                    Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                    Some('n') => text.push('\n'),
                    Some(other) => text.push(other),
                    None => break,
                },
                '{' if chars.peek() != Some(&'{') => {
                    for c in chars.by_ref() {
                        if c == '}' {
                            break;
                        }
                    }
                    text.push_str(ANYTHING);
                }
                c => text.push(c),
            }
        }
        texts.push(text);
    }
    let is_statement = |text: &String| {
        let first = text.trim_start_matches(ANYTHING).split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        // advice to people has dots or several lines, and permissions are no statements
        FIRST.contains(&first) && !text.contains(['…', '\n']) && text.split(' ').count() > 1 && !PERMISSIONS.iter().any(|known| text.starts_with(known))
    };
    texts.into_iter().filter(is_statement).map(|text| text.trim_start_matches(ANYTHING).to_owned()).collect()
}

const PERMISSIONS: &[&str] = &["ALTER ANY LOGIN", "ALTER ANY CONNECTION", "ALTER LOGIN …"];

/// The statements of the source, each with its file.
fn all_statements() -> Vec<(String, String)> {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sqlserver")).unwrap().map(Result::unwrap);
    let of = |file: std::fs::DirEntry| {
        let name = file.file_name().to_string_lossy().into_owned();
        statements_of(&std::fs::read_to_string(file.path()).unwrap()).into_iter().map(move |statement| (name.clone(), statement))
    };
    let all: Vec<(String, String)> = files.flat_map(of).collect();
    assert!(all.len() > 100, "{} statements were found: the source is not read as it should be", all.len());
    all
}

#[test]
fn every_statement_of_the_source_has_its_row() {
    let lacking = all_statements().into_iter().flat_map(|(file, statement)| undocumented(&statement).into_iter().map(move |said| format!("{file}: {said}")));
    assert_eq!(lacking.collect::<Vec<_>>(), Vec::<String>::new());
}

/// What each row looks like when it is sent, and a query of each view.
fn examples(edition: Edition) -> Vec<String> {
    let fill = |shape: &str| {
        let rest = match shape.split(' ').next() {
            Some("GRANT" | "DENY") => "SELECT ON SCHEMA::[dbo] TO [a b]",
            Some("REVOKE") => "SELECT ON OBJECT::[dbo].[t] FROM [a b] CASCADE",
            _ => "N'a' TO N'b', MOVE N'c' TO N'd', RECOVERY, CHECKSUM",
        };
        shape
            .replace("COLLATE <name>", "COLLATE Latin1_General_CI_AS")
            .replace("<name>", "[we]]ird' name]")
            .replace("<text>", "N'it''s'")
            .replace("<number>", "51")
            .replace("<bytes>", "0x00AB")
            .replace("<rest>", rest)
    };
    let rows = STATEMENTS.iter().filter(|row| row.needs(edition).is_some()).map(|row| fill(row.shape));
    let columns = |columns: &[(&str, _, _)]| columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let views = VIEWS.iter().filter(|view| view.on.has(edition)).map(|view| format!("SELECT {} FROM sys.{}", columns(view.columns), view.name));
    rows.chain(views).collect()
}

#[test]
fn every_row_is_transact_sql_to_microsofts_own_parser() {
    let rows = EDITIONS.iter().flat_map(|edition| examples(*edition).into_iter().map(|example| (*edition, example)));
    assert_eq!(grammar::faults(&rows.collect::<Vec<_>>()), Vec::<String>::new());
    // it finds what is wrong, too
    let wrong = grammar::faults(&[
        (Edition::Server(2016), "ALTER LOGIN [x] DISABEL".to_owned()),
        (Edition::Server(2019), "ALTER DATABASE [x] SET TRUSTWORTHY OFFF".to_owned()),
    ]);
    assert!(cfg!(not(target_arch = "x86_64")) || matches!(wrong.as_slice(), [a, b] if a.contains("DISABEL") && b.contains("OFFF")), "{wrong:#?}");
}
