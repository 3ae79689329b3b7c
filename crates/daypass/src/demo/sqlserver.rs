//! The same walk on SQL Server's protocol, with FreeTDS's tsql, before a stand-in: there is no SQL Server to install.

use super::{
    stage::*,
    tour::{newest, right},
};
use anyhow::{Result, bail};
use daypass_testkit::sqlserver::ADMIN as SERVER_ADMIN;
use std::time::{Duration, Instant};

const ENVIRONMENT: &str = "erp";

pub async fn walk(stage: &mut Stage) -> Result<()> {
    stage.step("The same on SQL Server's protocol (before a stand-in: crates/testkit/src/sqlserver/README.md says what it is and is not)");
    let (port, ca) = (stage.standin.port.to_string(), stage.path("sqlserver-ca.pem").display().to_string());
    let add =
        ["env", "add", ENVIRONMENT, "--engine", "sqlserver", "--host", "localhost", "--port", &port, "--database", "uat", "--ca", &ca, "--password-stdin"];
    right(stage.daypass_with(ADMIN, &add, &format!("{}\n", SERVER_ADMIN.1)).await?.ok, "adding an environment")?;
    right(stage.daypass(ADMIN, &["env", "test", ENVIRONMENT]).await?.ok, "every check is ok")?;

    stage.step("Maria asks; what she types where stands below the account");
    let asked = stage.daypass(REQUESTER, &["request", ENVIRONMENT, "--reason", "OPS-18: orders look wrong"]).await?;
    right(asked.ok && asked.text.contains("Connect to database"), "an account with the settings for SSMS is shown")?;
    let account = newest(stage, ENVIRONMENT, "read").await?;
    let select = "SELECT customer, COUNT(*) AS orders FROM sales.orders GROUP BY customer";
    let refused = stage.tsql(&account, select).await?;
    right(refused.text.contains("is not allowed to access the server"), "tsql is refused in the words of Azure, and with the remedy")?;

    stage.step("What the message means, and the way in");
    right(stage.daypass(REQUESTER, &["explain", refused.text.trim()]).await?.text.contains("never entered"), "the message is explained")?;
    right(stage.daypass(REQUESTER, &["allow", ENVIRONMENT]).await?.ok, "the address is entered")?;
    let rows = stage.tsql(&account, select).await?;
    right(rows.text.contains("Contoso"), "the rows come back")?;
    let refused = stage.tsql(&account, "DELETE FROM sales.orders").await?;
    right(refused.text.contains("permission was denied"), "the server itself refuses a change")?;

    stage.step("And cut at the end, in the middle of a statement (5 seconds, for the show)");
    right(stage.daypass(REQUESTER, &["request", ENVIRONMENT, "--life", "5s", "--reason", "OPS-18: a long one"]).await?.ok, "an account for five seconds")?;
    let short = newest(stage, ENVIRONMENT, "read").await?;
    let cut = stage.tsql(&short, "WAITFOR DELAY '00:01:00'").await?;
    right(cut.text.contains("has expired"), "tsql says that the access has expired")?;

    stage.step("She gives the other account back: no login and no user is left on the server");
    right(stage.daypass(REQUESTER, &["end", &account.name]).await?.ok, "the pass is given back")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !stage.standin.accounts().is_empty() {
        if Instant::now() > deadline {
            bail!("after 10 seconds these are still there: {:?}", stage.standin.accounts());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("1> SELECT COUNT(*) FROM sys.sql_logins WHERE name LIKE 'jit[_]%'\n    0");
    Ok(())
}
