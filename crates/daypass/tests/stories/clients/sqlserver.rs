//! Drivers of SQL Server, before the stand-in.

use super::{Client, Outcome, Table, built, prepare, talk, timed, tools, until_over};
use crate::{
    house::{Account, House, PATIENCE},
    sqlserver::ask,
};
use daypass_testkit::sqlserver::{Options, StandIn};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{io::AsyncWriteExt, process::Command};

const CLIENTS: &[Client] = &[
    Client { name: "odbc", title: "Microsoft ODBC Driver 18.6 (pyodbc)", cannot: &[] },
    Client {
        name: "tsql",
        title: "FreeTDS tsql",
        cannot: &[
            ("cancel", "only by Ctrl-C, which ends it"),
            ("prepared", "it has none"),
            ("bulk", "that is freebcp's"),
            ("mars", "it has none"),
            ("strict", "not in this version"),
        ],
    },
    Client {
        name: "pymssql",
        title: "pymssql 2.4 (FreeTDS)",
        cannot: &[("mars", "it has none"), ("strict", "not in this version"), ("prepared", "it writes the values into the text")],
    },
    Client {
        name: "python-tds",
        title: "python-tds 1.17",
        cannot: &[("trust", "it always checks the chain; only the host name can be left out"), ("strict", "it has none")],
    },
    Client {
        name: "mssql-tds",
        title: "Microsoft mssql-tds 0.3 (Rust, in mssql-python)",
        cannot: &[
            ("cancel", "not from Python"),
            ("transaction", "not from Python"),
            ("prepared", "not from Python"),
            ("bulk", "the stand-in does not describe the table as it wants it"),
            ("mars", "it has none"),
        ],
    },
    Client { name: "sqlclient", title: "SqlClient of .NET 4.6 (as in Management Studio)", cannot: &[("strict", "not in this version")] },
    Client { name: "mssql-jdbc", title: "Microsoft JDBC Driver 13.6 (Java 25)", cannot: &[("mars", "it has none")] },
    Client { name: "go-mssqldb", title: "Microsoft go-mssqldb 1.11 (Go)", cannot: &[("mars", "it has none")] },
    Client { name: "tedious", title: "tedious 19.2 (Node.js)", cannot: &[("mars", "it has none")] },
    Client { name: "tiberius", title: "tiberius 0.13 (Rust)", cannot: &[("mars", "it has none")] },
];

/// The cases in the order of the table, and what they are called there.
const CASES: &[(&str, &str)] = &[
    ("verified", "TLS, certificate checked"),
    ("trust", "TLS, TrustServerCertificate"),
    ("stranger", "a CA that it does not know"),
    ("strict", "TDS 8.0, strict"),
    ("password", "wrong password"),
    ("address", "address not allowed"),
    ("none", "no database named"),
    ("database", "another database named"),
    ("idle", "expired while idle"),
    ("midresult", "expired mid-result"),
    ("cancel", "cancel"),
    ("transaction", "transaction"),
    ("prepared", "prepared, with parameters"),
    ("large", "a result of 105 MB"),
    ("bulk", "bulk insert"),
    ("mars", "MARS"),
];

/// Others write notes at the same time.
const NOTES: &str = "SELECT COUNT(*) FROM dbo.notes WHERE note LIKE 'tiberius %'";

struct Bench {
    house: House<StandIn>,
    tools: &'static Path,
    go: PathBuf,
    strangers_ca: PathBuf,
}

impl Bench {
    async fn run(&self, client: &'static Client, case: &'static str) -> Outcome {
        let person = "maria";
        let life = match case {
            "midresult" => "6s",
            // all of them are started at once
            "idle" => "12s",
            _ => "1h",
        };
        let access = if matches!(case, "transaction" | "bulk") { "read_write" } else { "read" };
        // ben has entered no address
        let person = if case == "address" { "ben" } else { person };
        let mut account = self.house.account_only(person, access, life).await;
        let name = account.name.clone();
        if case == "password" {
            account.password = "not-the-password".to_owned();
        }
        let outcome = match client.name {
            "tiberius" => timed(client, case, self.with_tiberius(&account, case)).await,
            "tsql" => self.tsql(&account, case).await,
            _ => self.script(client, &account, case).await,
        };
        self.house.daypass(person, &["end", &name]).await;
        outcome
    }

    fn database(case: &str) -> &'static str {
        match case {
            "none" => "",
            "database" => "master",
            _ => "uat",
        }
    }

    fn ca(&self, case: &str) -> PathBuf {
        if case == "stranger" { self.strangers_ca.clone() } else { self.house.path("data/ca.pem") }
    }

    /// FreeTDS finds server, CA and checks in a file.
    fn freetds(&self, client: &str, case: &str) -> PathBuf {
        let trust = if case == "trust" { String::new() } else { format!("ca file = {}\ncheck certificate hostname = yes\n", self.ca(case).display()) };
        let text = format!(
            "[daypass]\nhost = localhost\nport = {}\ntds version = 7.4\nencryption = require\nclient charset = UTF-8\n{trust}",
            self.house.sqlserver.port()
        );
        let path = self.house.path(&format!("{client}-{case}.conf"));
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn script(&self, client: &Client, account: &Account, case: &str) -> Outcome {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut command = if client.name == "tedious" {
            let mut command = Command::new(self.tools.join("bin/node"));
            command.arg(here.join("client.js")).env("TEDIOUS", self.tools.join("node_modules/tedious"));
            command
        } else if client.name == "go-mssqldb" {
            Command::new(&self.go)
        } else {
            let mut command = Command::new(self.tools.join("bin/python"));
            command.arg(here.join("client.py"));
            command
        };
        let ca = self.ca(case);
        command.env("SSL_CERT_FILE", &ca).env("FREETDSCONF", self.freetds(client.name, case));
        if client.name == "sqlclient" {
            command.env("LD_LIBRARY_PATH", self.tools.join("old/psycopg2_binary.libs")).env("CLR_OPENSSL_VERSION_OVERRIDE", "1.1");
            command.env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1");
        }
        let script = match case {
            "verified" | "trust" | "stranger" | "strict" | "password" | "address" | "none" | "database" => "connect",
            other => other,
        };
        let want = json!({
            "client": client.name, "case": script, "host": "localhost", "port": self.house.sqlserver.port(), "user": account.name, "password": account.password,
            "database": Self::database(case), "ca": ca, "trust": case == "trust", "mars": case == "mars", "jar": self.tools.join("mssql-jdbc.jar"),
            "encrypt": if case == "strict" { json!("strict") } else if client.name == "odbc" { json!("yes") } else { json!(true) },
        });
        talk(&self.house, command, &want, account).await
    }

    async fn tsql(&self, account: &Account, case: &str) -> Outcome {
        let mut command = Command::new("tsql");
        command.args(["-S", "daypass", "-U", &account.name, "-P", &account.password, "-o", "q"]).env("FREETDSCONF", self.freetds("tsql", case));
        if !Self::database(case).is_empty() {
            command.args(["-D", Self::database(case)]);
        }
        let (first, then) = match case {
            "idle" => ("SELECT COUNT(*) FROM sales.orders\ngo\n", Some("SELECT COUNT(*) FROM sales.orders\ngo\nexit\n")),
            "midresult" => ("SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, 100000000)\ngo\nexit\n", None),
            "large" => ("SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, 13200)\ngo\nexit\n", None),
            "transaction" => (
                "BEGIN TRAN\ngo\nINSERT INTO dbo.notes (id, note) VALUES (1, 'x')\ngo\nROLLBACK\ngo\nSELECT COUNT(*) FROM dbo.notes WHERE id = 1 AND note = 'x'\ngo\nexit\n",
                None,
            ),
            _ => ("SELECT COUNT(*) FROM sales.orders\ngo\nexit\n", None),
        };
        let begun = std::time::Instant::now();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(first.as_bytes()).await.unwrap();
        if let Some(then) = then {
            until_over(&self.house, account).await;
            let _ = input.write_all(then.as_bytes()).await;
        }
        drop(input);
        let output = tokio::time::timeout(PATIENCE * 4, child.wait_with_output()).await.expect("tsql ends").unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let rows = printed.lines().filter(|line| line.ends_with(&"x".repeat(100))).count();
        // the prompt, the name of a column that has none, how many rows there were
        let values: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.parse::<u64>().is_ok()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| {
                !line.is_empty() && !line.starts_with("locale") && !line.starts_with("using") && !line.starts_with("Setting") && !line.starts_with("Default")
            })
            .collect();
        let failed = errors.iter().any(|line| !line.contains("Changed database"));
        let silent = case == "idle" && values.len() == 1;
        let text = match case {
            _ if failed => errors.join(" "),
            _ if silent => "(nothing: it ends)".to_owned(),
            "large" => format!("{rows} rows, 105 MB"),
            _ => values.last().unwrap_or(&"").to_string(),
        };
        Outcome { ok: !failed && !silent, text, milliseconds: begun.elapsed().as_millis() as u64 }
    }

    async fn with_tiberius(&self, account: &Account, case: &str) -> Result<String, String> {
        use tokio_util::compat::TokioAsyncWriteCompatExt;
        let mut config = tiberius::Config::new();
        config.host("localhost");
        config.port(self.house.sqlserver.port());
        if !Self::database(case).is_empty() {
            config.database(Self::database(case));
        }
        config.authentication(tiberius::AuthMethod::sql_server(&account.name, &account.password));
        config.encryption(if case == "strict" { tiberius::EncryptionLevel::Strict } else { tiberius::EncryptionLevel::Required });
        if case == "trust" {
            config.trust_cert();
        } else {
            config.trust_cert_ca_bundle(std::fs::read(self.ca(case)).unwrap());
        }
        let words = |error: tiberius::error::Error| match error {
            tiberius::error::Error::Server(said) => said.message().to_owned(),
            other => other.to_string().split(" To connect anyway").next().unwrap_or_default().to_owned(),
        };
        let tcp = tokio::net::TcpStream::connect(self.house.sqlserver).await.unwrap();
        let mut client = crate::sqlserver::Client::connect(config, tcp.compat_write()).await.map_err(words)?;
        let count = "SELECT COUNT(*) FROM sales.orders";
        match case {
            "idle" => {
                ask(&mut client, count).await?;
                until_over(&self.house, account).await;
                client.simple_query(count).await.map_err(words)?.into_results().await.map_err(words)?;
                ask(&mut client, count).await
            }
            "midresult" | "large" => {
                use futures_util::TryStreamExt;
                let rows = if case == "large" { 13_200 } else { 100_000_000 };
                let sql = format!("SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, {rows})");
                let mut stream = client.simple_query(sql).await.map_err(words)?.into_row_stream();
                let mut count = 0;
                while stream.try_next().await.map_err(words)?.is_some() {
                    count += 1;
                }
                Ok(format!("{count} rows, 105 MB"))
            }
            "cancel" => {
                // it takes the acknowledgement only in the reply that it gave up, so one has to have begun
                let waiting = client.simple_query("SELECT 1; WAITFOR DELAY '00:00:30'");
                let said = match tokio::time::timeout(std::time::Duration::from_millis(500), waiting).await {
                    Err(_) => "given up".to_owned(),
                    Ok(done) => done.map(|_| "done".to_owned()).map_err(words)?,
                };
                client.cancel_query().await.map_err(words)?;
                Ok(format!("{said}; afterwards: {}", ask(&mut client, count).await?))
            }
            "transaction" => {
                let before: i64 = ask(&mut client, NOTES).await?.parse().unwrap();
                for (text, end) in [("rolled back", "rollback"), ("committed", "commit")] {
                    client.begin_transaction().await.map_err(words)?;
                    ask(&mut client, &format!("INSERT INTO dbo.notes (id, note) VALUES (1, 'tiberius {text}')")).await?;
                    if end == "commit" { client.commit_transaction().await } else { client.rollback_transaction().await }.map_err(words)?;
                }
                let after: i64 = ask(&mut client, NOTES).await?.parse().unwrap();
                Ok(format!("{} row", after - before))
            }
            "prepared" => {
                let mut found = Vec::new();
                for most in [40_i32, 80] {
                    let sql = "SELECT COUNT(*) FROM sales.orders WHERE id <= @P1 AND customer = @P2";
                    let row = client.query(sql, &[&most, &"Contoso"]).await.map_err(words)?.into_row().await.map_err(words)?;
                    found.push(row.unwrap().get::<i32, _>(0).unwrap().to_string());
                }
                Ok(found.join(", "))
            }
            "bulk" => {
                let before: i64 = ask(&mut client, NOTES).await?.parse().unwrap();
                let mut load = client.bulk_insert("dbo.notes").await.map_err(words)?;
                for n in 0..2_000_i64 {
                    let row = tiberius::IntoRow::into_row((Some(n), Some(format!("tiberius {n}")), Some(n as f64 / 2.0)));
                    load.send(row).await.map_err(words)?;
                }
                load.finalize().await.map_err(words)?;
                let after: i64 = ask(&mut client, NOTES).await?.parse().unwrap();
                Ok(format!("{} rows", after - before))
            }
            _ => ask(&mut client, count).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_java_program_reads_by_a_cursor_and_writes_in_a_batch_is_on_record() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let strangers_ca = prepare(&house).await;
    let tools = tools().await;
    let bench = Bench { house, tools, go: PathBuf::new(), strangers_ca };
    let java = CLIENTS.iter().find(|client| client.name == "mssql-jdbc").unwrap();
    let account = bench.house.account_only("maria", "read_write", "1h").await;
    for (case, came) in [("cursor", "400 rows"), ("huge", "3 rows"), ("bulk", "2000 rows")] {
        let outcome = bench.script(java, &account, case).await;
        assert_eq!((outcome.ok, outcome.text.as_str()), (true, came), "{case}");
    }
    let all = |sessions: &serde_json::Value| sessions.as_array().unwrap().iter().all(|session| session["closed_at"].is_string());
    let sessions = bench.house.until_json("maria", &["sessions", "ls", "--all"], all).await;
    let mut statements = Vec::new();
    for session in sessions.as_array().unwrap() {
        statements.extend(bench.house.json("vera", &["sessions", "statements", session["id"].as_str().unwrap()]).await.as_array().unwrap().clone());
    }
    let rows = |part: &str| -> u64 {
        statements.iter().filter(|statement| statement["text"].as_str().unwrap().contains(part)).map(|statement| statement["rows"].as_u64().unwrap()).sum()
    };
    // the rows come with the fetches, whose columns were told when the cursor was opened
    assert_eq!(rows("sp_cursorfetch"), 400, "{statements:#?}");
    let inserts = "INSERT INTO dbo.notes";
    let large = statements.iter().find(|statement| statement["values"].to_string().contains("(6000"));
    assert!(large.is_some_and(|statement| statement["text"].as_str().unwrap().contains(inserts)), "{statements:#?}");
    assert_eq!(rows(inserts) + rows("more calls in one message"), 2_003, "{statements:#?}");
    let unread: Vec<_> = statements.iter().filter(|statement| statement["text"].as_str().unwrap().contains("not read")).collect();
    assert!(unread.is_empty(), "{unread:#?}");
}

const INTRODUCTION: &str = "# Clients of SQL Server, and what a person sees\n\n\
    Written by the test `every_client_connects_is_refused_in_words_and_is_cut_off_on_time`: each client, installed from its registry, through the\n\
    gateway, with the stand-in server behind it. SSMS and DBeaver were not run; the latter stands on the JDBC driver. `400` is the answer to a count: the client is in.\n\n\
    An address that is not allowed has Azure's number 40615 where the driver shows it at once: Microsoft's ODBC driver, FreeTDS, tedious. For all\n\
    others it is 18456 with the same words: SSMS and VS Code answer 40615 with an offer to sign in to Azure, python-tds tries again until its\n\
    time-out, and 18456 is the one number that no client tries again. For the same reason another database (4060) is 18456 for tedious.\n\n\
    The reason of an end inside a result reaches a client that keeps reading. One that is so slow that the network is full of rows it has not\n\
    read is cut off without it: the end does not wait. With MARS it is told while one of the sessions in the connection stands between two\n\
    answers; while all of them are in the middle of one, the connection is cut without words.\n";

/// What has to come out, whatever the client's own wording around it.
fn is_right(client: &str, case: &str, outcome: &Outcome) -> bool {
    let Outcome { ok, text, milliseconds } = outcome;
    // the number of Azure where the driver shows it at once, else the one that nobody tries again, with its words
    let others = ["python-tds", "mssql-tds", "mssql-jdbc", "go-mssqldb", "sqlclient", "tiberius"].contains(&client);
    let says = |wanted: &[&str]| wanted.iter().all(|part| text.contains(part));
    match case {
        "verified" | "trust" | "none" | "strict" => *ok && text == "400",
        "stranger" => !ok && !text.contains("Login failed"),
        "password" => !ok && says(&["Login failed for user", "Check the user name and the password"]) && *milliseconds < 6_000,
        "address" => {
            !ok && says(&["Client with IP address '127.0.0.1' is not allowed to access the server", "daypass allow uat 127.0.0.1"])
                && text.contains("Login failed for user") == others
                && *milliseconds < 6_000
        }
        "database" => !ok && says(&["opens \"uat\" only", "Connect to database"]) && *milliseconds < 6_000,
        // drivers that do not look at an idle connection say only that it is gone
        "idle" => !ok && (says(&["has expired"]) || ["tsql", "pymssql", "python-tds", "tedious"].contains(&client)),
        "midresult" => !ok && says(&["has expired"]),
        "cancel" => *ok && (says(&["afterwards: 400"]) || says(&["closed by the driver"])),
        "transaction" => *ok && (text == "1 row" || (client == "tsql" && text == "0")),
        "prepared" => *ok && text == "10, 20",
        "large" => *ok && says(&["13200 rows, 105 MB"]),
        "bulk" => *ok && text == "2000 rows",
        "mars" => *ok && says(&["20 inner results"]),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_connects_is_refused_in_words_and_is_cut_off_on_time() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let strangers_ca = prepare(&house).await;
    let tools = tools().await;
    let go = built(tools, "go-sqlserver", house.path("go-client")).await;
    let bench = Bench { house, tools, go, strangers_ca };
    let table = Table { clients: CLIENTS, cases: CASES };
    let wrong = table.fill(async |client, case| bench.run(client, case).await, is_right, "clients.md", INTRODUCTION).await;
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), bench.house.log());
}
