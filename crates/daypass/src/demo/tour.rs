//! The walk through the main job. Each step says what it expects; the first that comes out wrong ends the walk.

use super::stage::*;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// The step came out as it should, or the walk ends here.
pub fn right(as_wanted: bool, wanted: &str) -> Result<()> {
    if !as_wanted {
        bail!("this step came out wrong: {wanted}");
    }
    Ok(())
}

pub async fn walk(stage: &mut Stage) -> Result<()> {
    people(stage).await?;
    environments(stage).await?;
    let read = refused_then_allowed(stage).await?;
    read_and_write(stage, &read).await?;
    cut_at_the_end(stage).await?;
    movement(stage).await?;
    super::sqlserver::walk(stage).await?;
    evidence(stage).await?;
    console(stage).await?;
    println!("\nAll {} steps came out right.", stage.steps());
    Ok(())
}

async fn people(stage: &mut Stage) -> Result<()> {
    stage.step("The one-time link makes the administrator, who adds four people");
    let link = std::fs::read_to_string(stage.path("data/first-link"))?;
    let first = format!("{}\n", crate::random::password());
    let (server, ca) = (stage.server(), stage.path("data/ca.pem").display().to_string());
    let signed_in = stage.daypass_with(ADMIN, &["first", "--server", &server, "--ca", &ca, "--name", ADMIN, "--stdin"], &format!("{link}{first}")).await?;
    right(signed_in.ok, "the first administrator")?;
    let mut passwords = format!("{ADMIN} {first}");
    for (person, role) in [(REQUESTER, "requester@project:main"), (APPROVER, "approver@project:main"), (MANAGER, "manager@project:main"), (AUDITOR, "auditor")]
    {
        // short enough to be typed into a browser
        let password: String = crate::random::password().chars().take(12).collect();
        right(stage.daypass_with(ADMIN, &["people", "add", person, "--role", role, "--password-stdin"], &password).await?.ok, "adding a person")?;
        right(
            stage.daypass_with(person, &["login", "--server", &server, "--ca", &ca, "--name", person, "--password-stdin"], &password).await?.ok,
            "signing in",
        )?;
        passwords.push_str(&format!("{person} {password}\n"));
    }
    Ok(crate::cli::write_private(&stage.path("passwords"), passwords.as_bytes())?)
}

async fn environments(stage: &mut Stage) -> Result<()> {
    stage.step("The two databases become environments");
    let (port, ca) = (stage.postgres.port.to_string(), stage.path("postgres-ca.pem").display().to_string());
    for name in ["golden", "uat"] {
        let add = ["env", "add", name, "--host", "127.0.0.1", "--port", &port, "--database", name, "--ca", &ca, "--password-stdin"];
        right(stage.daypass_with(ADMIN, &add, "admin-secret\n").await?.ok, "adding an environment")?;
    }
    right(stage.daypass(ADMIN, &["env", "test", "uat"]).await?.ok, "every check is ok")
}

/// An account of the requester, the newest on this environment with this access.
pub async fn newest(stage: &Stage, environment: &str, access: &str) -> Result<Account> {
    let passes = stage.json(REQUESTER, &["passes"]).await?;
    let wanted = |pass: &&serde_json::Value| pass["environment"] == environment && pass["access"] == access && pass["state"] == "ready";
    let found = passes.as_array().into_iter().flatten().rfind(wanted);
    let name = found.and_then(|pass| pass["account"].as_str()).context("there is no account that is ready")?;
    let way = stage.json(REQUESTER, &["reveal", name]).await?;
    Ok(Account { name: name.to_owned(), password: way["password"].as_str().unwrap_or_default().to_owned() })
}

async fn refused_then_allowed(stage: &mut Stage) -> Result<Account> {
    stage.step("Maria asks for read access, and gets an account with its end");
    let asked = stage.daypass(REQUESTER, &["request", "uat", "--reason", "OPS-17: totals look wrong"]).await?;
    right(asked.ok && asked.text.contains("Ends"), "an account with its end is shown")?;
    let account = newest(stage, "uat", "read").await?;

    stage.step("The account alone is not enough: her address is not on the allow-list");
    let select = "SELECT * FROM sales.by_customer";
    let refused = finish(stage.psql(&account, select)).await?;
    right(!refused.ok && refused.text.contains("not on the allow-list"), "psql is refused, with the reason")?;

    stage.step("She enters her address, and looks at the data (TLS, certificate checked)");
    right(stage.daypass(REQUESTER, &["allow", "uat"]).await?.ok, "the address is entered")?;
    let rows = finish(stage.psql(&account, select)).await?;
    right(rows.ok && rows.text.contains("Contoso"), "the rows come back")?;
    Ok(account)
}

const INSERT: &str = "INSERT INTO sales.orders (customer, amount, placed) VALUES ('Tailspin', 42, '2026-11-01')";

async fn read_and_write(stage: &mut Stage, read: &Account) -> Result<()> {
    stage.step("Read means read: the database itself refuses a change");
    let refused = finish(stage.psql(read, INSERT)).await?;
    right(!refused.ok && refused.text.contains("permission denied"), "the INSERT is refused")?;

    stage.step("With read_write it is done");
    right(stage.daypass(REQUESTER, &["request", "uat", "--access", "read_write", "--reason", "OPS-17: mend one order"]).await?.ok, "an account for writing")?;
    let account = newest(stage, "uat", "read_write").await?;
    let done = finish(stage.psql(&account, INSERT)).await?;
    right(done.ok && done.text.contains("INSERT 0 1"), "the INSERT is done")
}

async fn cut_at_the_end(stage: &mut Stage) -> Result<()> {
    stage.step("An end is an end: a running query is cut when the pass expires (5 seconds, for the show)");
    right(stage.daypass(REQUESTER, &["request", "uat", "--life", "5s", "--reason", "OPS-17: a long query"]).await?.ok, "an account for five seconds")?;
    let account = newest(stage, "uat", "read").await?;
    let cut = finish(stage.psql(&account, "SELECT pg_sleep(60)")).await?;
    right(!cut.ok && cut.text.contains("has expired"), "psql says that the access has expired")
}

async fn movement(stage: &mut Stage) -> Result<()> {
    stage.step("Sam is about to refresh uat from golden, and looks first whom it will end");
    let account = newest(stage, "uat", "read_write").await?;
    let dry = stage.daypass(MANAGER, &["move", "uat", "refresh", "--from", "golden", "--dry-run"]).await?;
    right(dry.ok && dry.text.contains(&account.name), "her account is on the list")?;
    println!("  Meanwhile Maria has an account in golden as well, and somebody gave it a right of its own there:");
    right(stage.daypass(REQUESTER, &["request", "golden", "--reason", "OPS-17: how it was"]).await?.ok, "an account in golden")?;
    let elsewhere = newest(stage, "golden", "read").await?;
    let grant = format!("GRANT SELECT ON sales.orders TO {}", elsewhere.name);
    println!("golden=# {grant};");
    stage.postgres.sql("golden", &grant).await?;

    stage.step("Maria's query runs; Sam gives three seconds' notice: she is told in her own window, then it ends");
    let running = sleeping(stage, &account).await?;
    let refresh = ["move", "uat", "refresh", "--from", "golden", "--notice", "3s", "--reason", "CHG-8: test data of this week"];
    let moved = stage.daypass(MANAGER, &refresh).await?;
    right(moved.ok && moved.text.contains("finished at"), "the movement is finished")?;
    let output = tokio::time::timeout(Duration::from_secs(10), running.wait_with_output()).await.context("the query was not cut")??;
    println!("  and in Maria's window:");
    let said = show(&output).text;
    right(said.contains("WARNING") && said.contains("will be replaced") && said.contains("being replaced"), "she was told, and then why it ended")?;
    right(moved.text.contains(&format!("day account {}", elsewhere.name)), "what came inside the copy was found and swept")?;
    let old = finish(stage.psql(&account, "SELECT 1")).await?;
    right(!old.ok, "the account of before opens nothing")?;

    stage.step("Nothing is left on the server: the accounts are gone");
    right(stage.daypass(REQUESTER, &["end", &elsewhere.name]).await?.ok, "the one in golden is given back")?;
    let count = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'jit\\_%'";
    until(stage, "the accounts are gone", count, "0").await?;
    println!("postgres=# {count};\n    0");

    stage.step("Somebody replaces the database without a word: it is noticed, and ends everything as well");
    right(stage.daypass(REQUESTER, &["allow", "uat"]).await?.ok, "the address is entered")?;
    right(stage.daypass(REQUESTER, &["request", "uat", "--reason", "OPS-17: once more"]).await?.ok, "a new account")?;
    let account = newest(stage, "uat", "read").await?;
    let running = sleeping(stage, &account).await?;
    for sql in [
        "DROP DATABASE uat WITH (FORCE)",
        "CREATE DATABASE uat TEMPLATE golden OWNER uat_owner",
        "REVOKE CONNECT ON DATABASE uat FROM PUBLIC; GRANT CONNECT ON DATABASE uat TO daypass_admin WITH GRANT OPTION",
    ] {
        println!("postgres=# {sql};");
        stage.postgres.sql("postgres", sql).await?;
    }
    let since = Instant::now();
    let _ = tokio::time::timeout(Duration::from_secs(10), running.wait_with_output()).await.context("the query was not cut")??;
    until(stage, "the account is gone", count, "0").await?;
    println!("  the account was gone {} ms after the new database was there", since.elapsed().as_millis());
    let passes = stage.daypass(REQUESTER, &["passes", "--all"]).await?;
    right(passes.text.contains("the database was replaced"), "the cause is on record")
}

/// psql with a query that would run for a minute.
async fn sleeping(stage: &Stage, account: &Account) -> Result<tokio::process::Child> {
    let mut running = stage.psql(account, "SELECT pg_sleep(60)");
    running.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let running = running.spawn()?;
    let query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' AND usename LIKE 'jit%'";
    until(stage, "the query runs", query, "1").await?;
    Ok(running)
}

/// Asks until the answer is as wanted, for ten seconds.
async fn until(stage: &Stage, what: &str, sql: &str, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = stage.postgres.sql("postgres", sql).await?;
        if answer == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("after 10 seconds, {what} is still not so: {answer} instead of {wanted}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn evidence(stage: &mut Stage) -> Result<()> {
    stage.step("Vera, the auditor, sees who was in and what they ran");
    right(stage.daypass(AUDITOR, &["sessions", "ls", "--all"]).await?.ok, "the sessions are listed")?;
    let sessions = stage.json(AUDITOR, &["sessions", "ls", "--all"]).await?;
    let mut found = false;
    for session in sessions.as_array().into_iter().flatten() {
        let id = session["id"].as_str().unwrap_or_default();
        let statements = stage.json(AUDITOR, &["sessions", "statements", id]).await?;
        if statements.to_string().contains("Tailspin") && !found {
            found = stage.daypass(AUDITOR, &["sessions", "statements", id]).await?.text.contains("Tailspin");
        }
    }
    right(found, "the INSERT is on record")?;

    stage.step("And proves the log, away from the server");
    let export = stage.daypass_into_file(AUDITOR, &["log", "export"], "log.jsonl").await?;
    let file = stage.path("log.jsonl");
    let name = file.display().to_string();
    let proof = stage.daypass(AUDITOR, &["log", "verify", &name]).await?;
    right(proof.ok && proof.text.contains("The log is whole"), "the log is whole")?;
    println!("  ... and with one word changed:");
    std::fs::write(&file, export.replacen("totals look wrong", "totals look right", 1))?;
    right(!stage.daypass(AUDITOR, &["log", "verify", &name]).await?.ok, "the change is found")
}

/// From here on somebody else has to agree to changes of uat, so that there is something to approve in the console.
async fn console(stage: &mut Stage) -> Result<()> {
    stage.step("The console does all of it as well; on uat, changes now take an approval");
    let mut policy = stage.json(ADMIN, &["policy", "uat"]).await?;
    policy["approval"] = serde_json::json!({ "read_write": "one" });
    policy["categories"] = serde_json::json!(["troubleshooting", "unplanned query", "data upgrade"]);
    let file = stage.path("policy.json");
    std::fs::write(&file, policy.to_string())?;
    right(stage.daypass(ADMIN, &["policy", "uat", "--set", &file.display().to_string()]).await?.ok, "setting the policy")?;
    let page = stage.page("/sign-in").await?;
    println!("{}/sign-in", stage.server());
    right(page.contains("<h1 id=\"sign-in\">Sign in</h1>"), "the console shows its sign-in")
}

/// A fresh account, and what to try by hand.
pub async fn stay(stage: &mut Stage) -> Result<()> {
    println!();
    let category = ["--category", "troubleshooting"];
    stage.json(REQUESTER, &["allow", "uat"]).await?;
    stage.json(REQUESTER, &[&["request", "uat", "--reason", "trying Daypass by hand"][..], &category].concat()).await?;
    let account = newest(stage, "uat", "read").await?;
    let program = std::env::current_exe()?;
    let home = |person: &str| stage.home(person).display().to_string();
    let passwords = std::fs::read_to_string(stage.path("passwords"))?;
    let password = |person: &str| passwords.lines().find_map(|line| line.strip_prefix(person)?.strip_prefix(' ')).unwrap_or_default().to_owned();
    println!("Daypass stays up until Ctrl-C. The console: {}", stage.server());
    println!("Your browser does not know this demo's CA: let it go on, or trust {}", stage.path("data/ca.pem").display());
    println!("Three people to be, best in three browser windows of their own (private windows, or profiles):\n");
    println!("  {REQUESTER}   asks         {}", password(REQUESTER));
    println!("  {APPROVER}     approves     {}", password(APPROVER));
    println!("  {MANAGER}     manages      {}\n", password(MANAGER));
    println!("As {REQUESTER}: uat, Maintain, Enable access; ask for read and write. As {APPROVER}: Requests, approve it. As {REQUESTER}: Show, connect.");
    println!("As {MANAGER}: see who is in, revoke it, or Maintain, Move database.\n");
    open_browser(&stage.server());
    println!("An account for reading is ready as well; in another window:\n");
    println!("  PGPASSWORD={} psql \"{}\"\n", account.password, stage.connection(&account));
    println!("Or as a person, with the command line:\n");
    println!("  alias daypass={}", program.display());
    println!("  export DAYPASS_CONFIG_DIR={}      # Maria; Sam's is {}", home(REQUESTER), home(MANAGER));
    println!(
        "  daypass connect uat --reason \"a look around\" --category troubleshooting\n  daypass connect erp --reason \"the same with tsql\"\n  daypass passes\n"
    );
    println!(
        "API {} (documented at /api/v1/openapi.json), gateway localhost:{} (PostgreSQL) and localhost:{} (SQL Server); everybody's password is in {}",
        stage.server(),
        stage.gateway_port,
        stage.sqlserver_port,
        stage.path("passwords").display()
    );
    Ok(())
}

/// Where there is a screen, the console opens by itself.
fn open_browser(address: &str) {
    let screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if screen || cfg!(target_os = "macos") {
        let quiet = std::process::Stdio::null;
        let _ = std::process::Command::new(program).arg(address).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    }
}
