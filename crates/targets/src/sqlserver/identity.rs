//! Which database this is: what the administrator sees of it, and the part of that which every account sees of the database that it is in.

use super::{SqlServer, column, link::text, mark_of};
use crate::TargetError;
use daypass_core::{environment::Identity, ids::EnvironmentId, names::DatabaseName};

/// All of it, in the order: number, date of creation, broker, the GUIDs of recovery, our mark.
pub async fn identity(target: &SqlServer, environment: EnvironmentId, database: &DatabaseName) -> Result<Identity, TargetError> {
    target.on_server(async |link| {
        let of = text(database.as_str());
        let look = format!(
            "SELECT CAST(database_id AS nvarchar(20)), CONVERT(nvarchar(40), create_date, 126), CAST(state_desc AS nvarchar(60)) FROM sys.databases WHERE name = {of}"
        );
        let rows = link.rows(&look).await?;
        let row = rows.first().ok_or_else(|| TargetError::NoDatabase(database.to_string()))?;
        if column(row, 2) != "ONLINE" {
            return Err(TargetError::NoDatabase(format!("{database} that is open (it is {})", column(row, 2))));
        }
        let mut parts = vec!["sqlserver".to_owned(), column(row, 0), column(row, 1)];
        for (view, what, filter) in [
            ("sys.databases", "service_broker_guid", format!("name = {of}")),
            ("sys.database_recovery_status", "database_guid", format!("database_id = DB_ID({of})")),
            ("sys.database_recovery_status", "recovery_fork_guid", format!("database_id = DB_ID({of})")),
        ] {
            // asked for only where the engine has it, so that a failure of the moment is a failure and not another identity
            let known = format!("SELECT CAST(COL_LENGTH('{view}', '{what}') AS nvarchar(10))");
            let value = match link.maybe(&known).await? {
                Some(_) => link.rows(&format!("SELECT CONVERT(nvarchar(40), {what}) FROM {view} WHERE {filter}")).await?.first().map(|row| column(row, 0)),
                None => None,
            };
            parts.push(value.unwrap_or_default());
        }
        let marker = format!("SELECT CAST(value AS nvarchar(200)) FROM sys.extended_properties WHERE class = 0 AND name = {}", text(&mark_of(environment)));
        let marked = target.within(link, database.as_str(), async |link| link.rows(&marker).await).await?;
        parts.push(marked.first().map(|row| column(row, 0)).unwrap_or_default());
        // the parts are of one database: one that took its place between two statements would be half of this and half of that
        let again = link.rows(&look).await?;
        if again.first().is_none_or(|now| (column(now, 0), column(now, 1)) != (column(row, 0), column(row, 1))) {
            return Err(TargetError::Refused(format!("the database {database} was exchanged while it was looked at; the next look tells")));
        }
        Ok(Identity(parts.join(":")))
    })
    .await
}

/// The part that stands in the database's own row of `sys.databases`, which whoever is in the database always sees (catalog views
/// reference, sys.databases, permissions), and our mark on the database. The row is found by name: on Azure `DB_ID()` may be another number than
/// the one in `sys.databases` (the same reference, DB_ID, remarks). None: it is not the identity of a SQL Server's.
pub fn question(known: &Identity, environment: EnvironmentId) -> Option<String> {
    let [_, _, broker, ..] = parts(known)?;
    // an engine that has no broker has no column for it
    let broker = if broker.is_empty() { "NULL" } else { "CONVERT(nvarchar(40), service_broker_guid)" };
    Some(format!(
        "SELECT CAST(database_id AS nvarchar(20)), CONVERT(nvarchar(40), create_date, 126), {broker}, \
         (SELECT CAST(value AS nvarchar(200)) FROM sys.extended_properties WHERE class = 0 AND name = {}) FROM sys.databases WHERE name = DB_NAME()",
        text(&mark_of(environment))
    ))
}

/// Whether the answer is that of the known database. What an account is not shown says nothing.
pub fn is_answer(known: &Identity, answer: &[String]) -> bool {
    let (Some([number, date, broker, mark]), said) = (parts(known), answer) else { return false };
    [number, date, broker, mark].iter().zip(said).all(|(known, said)| known.is_empty() || said == "NULL" || known == said)
}

/// Number, date, broker and mark. The date has colons of its own.
fn parts(known: &Identity) -> Option<[&str; 4]> {
    let (number, rest) = known.0.strip_prefix("sqlserver:")?.split_once(':')?;
    let mut from_the_end = rest.rsplitn(5, ':');
    let (mark, _fork, _guid, broker, date) = (from_the_end.next()?, from_the_end.next()?, from_the_end.next()?, from_the_end.next()?, from_the_end.next()?);
    Some([number, date, broker, mark])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_sees_is_compared_with_what_is_known() {
        let known = Identity("sqlserver:7:2026-11-25T08:00:00.123:B-1:D-1:F-1:M-1".to_owned());
        let said = |parts: [&str; 4]| is_answer(&known, &parts.map(str::to_owned));
        assert!(said(["7", "2026-11-25T08:00:00.123", "B-1", "M-1"]) && said(["7", "2026-11-25T08:00:00.123", "B-1", "NULL"]));
        assert!(!said(["8", "2026-11-25T08:00:00.123", "B-1", "M-1"]), "another number");
        assert!(!said(["7", "2026-11-25T09:00:00.000", "B-1", "M-1"]), "made again");
        assert!(!said(["7", "2026-11-25T08:00:00.123", "B-2", "M-1"]) && !said(["7", "2026-11-25T08:00:00.123", "B-1", "M-2"]), "another's");
        let bare = Identity("sqlserver:7:2026-11-25T08:00:00:::M-1:".to_owned());
        assert!(is_answer(&bare, &["7".to_owned(), "2026-11-25T08:00:00".to_owned(), "NULL".to_owned(), "M-9".to_owned()]));
        assert_eq!(question(&Identity("postgres:1:2".to_owned()), EnvironmentId::new(uuid::Uuid::nil())), None);
    }
}
