//! What others made on the server that opens a way into an environment's database.

use super::{
    MASTER, SqlServer, column, is_open,
    link::{name, text},
};
use crate::TargetError;
use daypass_core::{
    drift::{DriftKind, Finding},
    names::DatabaseName,
};
use std::collections::BTreeSet;

/// Logins of the server that are not the engine's own, users in the environments' databases, and members of their roles.
pub async fn look(target: &SqlServer, databases: &[DatabaseName], ours: &BTreeSet<String>) -> Result<Vec<Finding>, TargetError> {
    let mut server = target.connect(MASTER).await?;
    let mut found = Vec::new();
    let is_own = |name: &str| name.starts_with("jit_") || name.starts_with("##") || name.eq_ignore_ascii_case("sa");
    if !server.azure {
        let logins = "SELECT CAST(name AS nvarchar(128)) FROM sys.sql_logins WHERE is_disabled = 0";
        for login in server.attempt(logins).await?.unwrap_or_default() {
            found.push(Finding { kind: DriftKind::Login, name: column(&login, 0), place: String::new() });
        }
    }
    for database in databases {
        if !is_open(&mut server, database).await? {
            continue;
        }
        let mut link = target.connect(database.as_str()).await?;
        let members =
            "SELECT CAST(USER_NAME(member_principal_id) AS nvarchar(128)), CAST(USER_NAME(role_principal_id) AS nvarchar(128)) FROM sys.database_role_members";
        for member in link.attempt(members).await?.unwrap_or_default() {
            if column(&member, 0) != "dbo" {
                found.push(Finding { kind: DriftKind::Member, name: column(&member, 0), place: format!("{} in {database}", column(&member, 1)) });
            }
        }
    }
    found.retain(|finding| {
        !finding.name.is_empty() && !is_own(&finding.name) && !finding.name.eq_ignore_ascii_case(&target.spec.admin) && !ours.contains(&finding.name)
    });
    Ok(found)
}

/// Ends one: the login stays, without what was found.
pub async fn end(target: &SqlServer, finding: &Finding) -> Result<(), TargetError> {
    match finding.kind {
        DriftKind::Login => {
            let mut server = target.connect(MASTER).await?;
            server.run(&format!("ALTER LOGIN {} DISABLE", name(&finding.name))).await?;
            let look = format!("SELECT CAST(session_id AS nvarchar(20)) FROM sys.dm_exec_sessions WHERE original_login_name = {}", text(&finding.name));
            for id in server.rows(&look).await?.iter().filter_map(|row| column(row, 0).parse::<u32>().ok()) {
                server.attempt(&format!("KILL {id}")).await?;
            }
            Ok(())
        }
        DriftKind::Member => {
            let (role, database) = finding.place.split_once(" in ").ok_or_else(|| TargetError::Refused("it is not known in which database".to_owned()))?;
            let mut link = target.connect(database).await?;
            link.run(&format!("ALTER ROLE {} DROP MEMBER {}", name(role), name(&finding.name))).await
        }
        DriftKind::Privilege | DriftKind::Rule => Err(TargetError::Refused("this is ended by whoever made it".to_owned())),
    }
}
