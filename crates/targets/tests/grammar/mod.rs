//! Microsoft's own parser of Transact-SQL: ScriptDom, as it comes with the SQL Tools Service, with a grammar for each version and for Azure.

use daypass_testkit::sqlserver::Edition;
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// What the parser has against these batches; none where it does not run: it comes for x86_64 only.
pub fn faults(batches: &[(Edition, String)]) -> Vec<String> {
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    static TOOLS: OnceLock<String> = OnceLock::new();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = TOOLS.get_or_init(|| {
        let made = Command::new(here.join("../../scripts/tools")).output().unwrap();
        assert!(made.status.success(), "scripts/tools: {}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    });
    let line = |(edition, batch): &(Edition, String)| {
        let grammar = match edition {
            Edition::Server(year) => year.to_string(),
            Edition::Azure => "azure".to_owned(),
            Edition::Managed => "managed".to_owned(),
        };
        format!("{grammar}\t{}\n", batch.replace('\n', " "))
    };
    let input: String = batches.iter().map(line).collect();
    let mut parser = Command::new(Path::new(tools).join("bin/python"));
    parser.arg(here.join("tests/grammar/parse.py")).arg(tools).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = parser.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{said}");
    let (last, faults): (Vec<String>, Vec<String>) = said.lines().map(str::to_owned).partition(|line| line.starts_with("parsed"));
    assert_eq!(last, [format!("parsed {}", batches.len())]);
    faults
}
