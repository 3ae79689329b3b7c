//! Real drivers through the gateway, each with each case; what a person sees goes into a table of the documents.

mod postgresql;
mod sqlserver;

use crate::house::{Account, House, PATIENCE};
use daypass_testkit::certificates::Certificates;
use futures_util::StreamExt;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    sync::OnceCell,
};

/// A client, and what it cannot do of itself.
struct Client {
    name: &'static str,
    /// As the documents call it.
    title: &'static str,
    cannot: &'static [(&'static str, &'static str)],
}

/// What one case came to.
#[derive(Clone, Debug)]
struct Outcome {
    ok: bool,
    text: String,
    milliseconds: u64,
}

/// The folder with the clients; installed when it is not there.
pub async fn tools() -> &'static Path {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let install = || async {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/tools");
        let output = Command::new(script).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    };
    FOLDER.get_or_init(install).await
}

/// A program of tests/clients that is written in Go.
async fn built(tools: &Path, folder: &str, program: PathBuf) -> PathBuf {
    let mut build = Command::new(tools.join("bin/go"));
    build.args(["build", "-o"]).arg(&program).arg(".").current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(folder));
    build.env("GOPATH", tools.join("go")).env("GOCACHE", tools.join("go-cache")).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=readonly -buildvcs=false");
    let built = build.output().await.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

/// A program of tests/clients: it is told the case on its first line of input, says READY where the pass is to be over before it goes on, and
/// what came of it in JSON.
async fn talk<T>(house: &House<T>, mut command: Command, want: &Value, account: &Account) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    input.write_all(format!("{want}\n").as_bytes()).await.unwrap();
    let (client, case) = (&want["client"], &want["case"]);
    let talking = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "READY" {
                until_over(house, account).await;
                let _ = input.write_all(b"\n").await;
            } else if let Ok(value) = serde_json::from_str::<Value>(&line) {
                return Outcome {
                    ok: value["ok"].as_bool().unwrap(),
                    text: value["text"].as_str().unwrap().to_owned(),
                    milliseconds: value["milliseconds"].as_u64().unwrap(),
                };
            }
        }
        let mut said = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut said).await;
        panic!("{client} {case}: {said}")
    };
    tokio::time::timeout(PATIENCE * 4, talking).await.unwrap_or_else(|_| panic!("{client} {case} hangs"))
}

/// A case of a client in this process.
async fn timed(client: &Client, case: &str, doing: impl Future<Output = Result<String, String>>) -> Outcome {
    let begun = std::time::Instant::now();
    let done = tokio::time::timeout(PATIENCE * 4, doing).await.unwrap_or_else(|_| panic!("{} {case} hangs", client.name));
    let milliseconds = begun.elapsed().as_millis() as u64;
    let ok = done.is_ok();
    Outcome { ok, text: done.unwrap_or_else(|words| words), milliseconds }
}

/// Maria may come in, with a pass for each client; gives a CA that signed nothing here.
async fn prepare<T>(house: &House<T>) -> PathBuf {
    house.policy("uat", |policy| policy["live_passes"] = 100.into()).await;
    house.json("maria", &["allow", "uat"]).await;
    let strangers_ca = house.path("stranger.pem");
    std::fs::write(&strangers_ca, Certificates::make().unwrap().ca).unwrap();
    strangers_ca
}

/// Until the pass has expired.
async fn until_over<T>(house: &House<T>, account: &Account) {
    let over = |passes: &Value| passes.as_array().unwrap().iter().any(|pass| pass["account"] == account.name.as_str() && pass["state"] == "ended");
    house.until_json("vera", &["passes", "--all"], over).await;
}

/// Clients and cases, the latter in the order of the document and with what they are called there.
struct Table {
    clients: &'static [Client],
    cases: &'static [(&'static str, &'static str)],
}

impl Table {
    /// Each client with each case that it can do. Gives what is wrong, and the document.
    async fn fill(
        &self,
        run: impl AsyncFn(&'static Client, &'static str) -> Outcome,
        is_right: fn(&str, &str, &Outcome) -> bool,
        file: &str,
        introduction: &str,
    ) -> Vec<String> {
        // two tables at once would be each other's load
        static TABLE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = TABLE.lock().await;
        let mut table: BTreeMap<(&str, &str), String> = BTreeMap::new();
        let mut wrong = Vec::new();
        // for whoever looks for a fault: one client, or one case
        let (only, one) = (std::env::var("DAYPASS_CLIENT").ok(), std::env::var("DAYPASS_CASE").ok());
        for (case, _) in self.cases.iter().filter(|(case, _)| one.as_deref().is_none_or(|one| one == *case)) {
            let clients = self.clients.iter().filter(|client| only.as_deref().is_none_or(|only| only == client.name));
            let able = clients.filter(|client| !client.cannot.iter().any(|(what, _)| what == case));
            // a client that shares the processor with five others does not read fast enough to be told why
            let at_once = if matches!(*case, "midresult" | "large") { 1 } else { self.clients.len() };
            let runs = futures_util::stream::iter(able.map(async |client| (client.name, run(client, case).await)));
            let outcomes: Vec<_> = runs.buffer_unordered(at_once).collect().await;
            for (client, outcome) in outcomes {
                println!("{client:10} {case:12} {:6} ms  {}", outcome.milliseconds, outcome.text);
                if !is_right(client, case, &outcome) {
                    wrong.push(format!("{client}, {case}: {outcome:?}"));
                }
                table.insert((client, case), outcome.text);
            }
        }
        for client in self.clients {
            for (case, why) in client.cannot {
                table.insert((client.name, case), format!("({why})"));
            }
        }
        if wrong.is_empty() && only.is_none() && one.is_none() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file), self.document(introduction, &table)).unwrap();
        }
        wrong
    }

    fn document(&self, introduction: &str, table: &BTreeMap<(&str, &str), String>) -> String {
        let mut out = introduction.to_owned();
        for (case, title) in self.cases {
            out.push_str(&format!("\n## {}{}\n\n| client | what it shows |\n| --- | --- |\n", title[..1].to_uppercase(), &title[1..]));
            for client in self.clients {
                if let Some(text) = table.get(&(client.name, *case)) {
                    out.push_str(&format!("| {} | {} |\n", client.title, shown(text)));
                }
            }
        }
        out
    }
}

/// The same from run to run, and on one line.
fn shown(text: &str) -> String {
    // ports and moments are others each time
    let mut text = text.to_owned();
    for (before, kept) in [("localhost:", "1433"), ("port ", "5432"), ("port=", "5432"), ("[::1]:", "5432"), ("127.0.0.1:", "5432")] {
        let parts: Vec<String> = text.split(before).map(str::to_owned).collect();
        let rest = parts.iter().skip(1).map(|part| match part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()) {
            0 => format!("{before}{part}"),
            digits => format!("{before}{kept}{}", &part[digits..]),
        });
        text = parts.iter().take(1).cloned().chain(rest).collect();
    }
    // and so is the number of a connection
    if let Some(at) = text.find("ClientConnectionId:") {
        let end = text[at..].find(|c: char| !(c.is_ascii_alphanumeric() || "-:".contains(c))).map_or(text.len(), |n| at + n);
        text.replace_range(at..end, "ClientConnectionId:…");
    }
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let words = one_line.split(' ').map(|word| match word.find("jit_") {
        Some(at) => {
            let end = word[at..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(word.len(), |n| at + n);
            format!("{}jit_maria_xxxx{}", &word[..at], &word[end..])
        }
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
