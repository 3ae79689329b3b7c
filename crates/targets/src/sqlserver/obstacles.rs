//! What would stand in the way of a movement, looked for before anything is done: one row an obstacle, each with the statement that helps and
//! the page of the reference that says so.

use super::{
    MASTER, SqlServer, bacpac, column,
    link::{Edition, Link, name, text},
};
use crate::{
    AnyTarget, Check, TargetError, Verdict,
    movement::{Move, Source},
};

/// One kind of obstacle in the database of before: a column of sys.databases that is not what it has to be.
struct Row {
    fine: &'static str,
    /// True for the database when it stands in the way.
    when: &'static str,
    found: &'static str,
    verdict: Verdict,
    /// `{}` is the database.
    remedy: &'static str,
}

const BEFORE: &[Row] = &[
    // "Prepare a database for an availability group": it can be neither renamed nor taken out of use inside one
    Row {
        fine: "the database is in no availability group",
        when: "group_database_id IS NOT NULL",
        found: "the database is in an availability group, in which it can be neither taken out of use nor renamed",
        verdict: Verdict::Missing,
        remedy: "ALTER AVAILABILITY GROUP … REMOVE DATABASE {}; or let the tool that looks after the group replace it: daypass move ENVIRONMENT external",
    },
    // DROP DATABASE: "replication must first be removed"
    Row {
        fine: "the database is not published",
        when: "is_published = 1 OR is_merge_published = 1",
        found: "the database is published for replication: the new one would not be, and the old one could not be dropped",
        verdict: Verdict::Missing,
        remedy: "Remove replication from {}: sp_removedbreplication.",
    },
    // sys.databases, is_cdc_enabled; RESTORE, KEEP_CDC
    Row {
        fine: "no changes of the database are captured",
        when: "is_cdc_enabled = 1",
        found: "changes of the database are captured (CDC): in the new one they are not",
        verdict: Verdict::Note,
        remedy: "Afterwards, in {}: EXEC sys.sp_cdc_enable_db; and for each table sys.sp_cdc_enable_table.",
    },
    Row {
        fine: "the database can be written to",
        when: "is_read_only = 1",
        found: "the database is read-only; the new one is not",
        verdict: Verdict::Note,
        remedy: "Afterwards: ALTER DATABASE {} SET READ_ONLY;",
    },
    Row {
        fine: "the database is online",
        when: "state <> 0",
        found: "the database is not online",
        verdict: Verdict::Missing,
        remedy: "See what state it is in: SELECT state_desc FROM sys.databases; then ALTER DATABASE {} SET ONLINE;",
    },
];

/// All rows, for the dry run and before a movement begins. `source`: none where there is nothing to copy.
pub async fn look(target: &SqlServer, movement: &Move<'_>, source: Option<&Source<'_>>) -> Result<Vec<Check>, TargetError> {
    let mut link = target.connect_long(MASTER).await?;
    let database = movement.environment.spec.database.as_str();
    let here = text(database);
    let mut checks = Vec::new();
    if !link.exists(&format!("SELECT name FROM sys.databases WHERE name = {here}")).await? {
        return Ok(vec![Check::missing(format!("there is no database {database}"), "Name the database that is there: daypass env set")]);
    }
    let copied_here = matches!(source, Some(Source::Database { .. }));
    // no SINGLE_USER, no RESTORE … WITH MOVE, backups to a URL only (ALTER DATABASE, RESTORE and BACKUP, their parts on Managed Instance)
    checks.push(Check::needs(link.edition != Edition::Managed || !copied_here, "the server restores a database beside another", super::movement::BY_AZURE));
    for row in BEFORE {
        let found = link.exists(&format!("SELECT name FROM sys.databases WHERE name = {here} AND ({})", row.when)).await?;
        let remedy = || row.remedy.replace("{}", &name(database));
        checks.push(if found { Check { what: row.found.to_owned(), verdict: row.verdict, remedy: remedy() } } else { Check::fine(row.fine) });
    }
    // DROP DATABASE: "a database snapshot on a database must be dropped before the database can be dropped"
    let snapshots = format!("SELECT name FROM sys.databases WHERE source_database_id = (SELECT database_id FROM sys.databases WHERE name = {here})");
    checks.push(match link.rows(&snapshots).await?.first().map(|row| column(row, 0)) {
        None => Check::fine("no snapshot of the database is there"),
        Some(snapshot) => {
            Check::missing(format!("{snapshot} is a snapshot of the database, which could not be dropped"), format!("DROP DATABASE {};", name(&snapshot)))
        }
    });
    if movement.masking.required {
        checks.push(Check::missing(super::sweep::UNCHECKED, super::sweep::CHECK_IT));
    }
    match source {
        Some(Source::Database { target: AnyTarget::SqlServer(_), database: from, same_server }) => {
            checks.push(Check::needs(*same_server, "the source is on the same server", super::movement::ANOTHER_SERVER));
            if *same_server {
                checks.extend(of_source(&mut link, from.as_str()).await?);
            }
        }
        Some(Source::File(file)) => checks.push(match bacpac::inspect(movement.tools, file).await {
            Ok(()) => Check::fine("the file is a BACPAC, and sqlpackage is here"),
            Err(error) => Check::missing("the file cannot be imported", error.to_string()),
        }),
        Some(_) => checks.push(Check::missing("the source is of another engine", "Choose a source of the same engine.")),
        None => {}
    }
    Ok(checks)
}

async fn of_source(link: &mut Link, from: &str) -> Result<Vec<Check>, TargetError> {
    let mut checks = Vec::new();
    let online = link.exists(&format!("SELECT name FROM sys.databases WHERE name = {} AND state = 0", text(from))).await?;
    checks.push(Check::needs(online, format!("the source {from} is online"), format!("ALTER DATABASE {} SET ONLINE;", name(from))));
    if link.azure {
        return Ok(checks);
    }
    let pages = format!("SELECT SUM(CAST(size AS bigint)) FROM sys.master_files WHERE database_id = DB_ID({})", text(from));
    let pages: u64 = link.maybe(&pages).await?.and_then(|pages| pages.parse().ok()).unwrap_or_default();
    checks.push(Check::fine(format!("room on the server: the copy takes {} MB, and its backup as much at most", pages * super::movement::PAGE / 1_000_000)));
    for property in ["InstanceDefaultBackupPath", "InstanceDefaultDataPath", "InstanceDefaultLogPath"] {
        let path = link.maybe(&format!("SELECT CAST(SERVERPROPERTY('{property}') AS nvarchar(4000))")).await?.filter(|path| !path.is_empty());
        checks.push(match path {
            Some(path) => Check::fine(format!("{property}: {path}")),
            None => Check::missing(
                format!("the server does not say its {property}"),
                "Set it in the server's properties (Server Properties, Database Settings page).",
            ),
        });
    }
    Ok(checks)
}

/// The rows as docs/movement.md has them.
#[cfg(test)]
pub fn documented() -> String {
    BEFORE.iter().map(|row| format!("| {} | {} |\n", row.fine, if row.verdict == Verdict::Note { "note" } else { "missing" })).collect()
}
