//! What others made on the server that opens a way into an environment's database.

use super::{
    MASTER, SqlServer, column, is_open,
    link::{Link, name, text},
    rights,
};
use crate::{Known, Target as _, TargetError};
use daypass_core::{
    drift::{DriftKind, Finding},
    firewall::Rule,
    names::DatabaseName,
};
use std::collections::BTreeSet;

/// Where a role of the whole server is meant.
const SERVER: &str = "the server";

/// Logins of the server that are not the engine's own, members of its roles; in the environments' databases users with a password of their
/// own, members of roles, and users with rights given by name.
pub async fn look(target: &SqlServer, databases: &[DatabaseName], ours: &Known<'_>) -> Result<Vec<Finding>, TargetError> {
    let mut server = target.connect(MASTER).await?;
    let mut found = Vec::new();
    if !server.azure {
        // logins, and users and groups of Windows and Entra
        let logins = "SELECT name FROM sys.server_principals WHERE type IN ('S', 'U', 'G', 'E', 'X') AND is_disabled = 0";
        for login in server.attempt(logins).await?.unwrap_or_default() {
            found.push(Finding { kind: DriftKind::Login, name: column(&login, 0), place: String::new() });
        }
        let members = "SELECT m.name, r.name FROM sys.server_role_members x \
                       JOIN sys.server_principals m ON m.principal_id = x.member_principal_id JOIN sys.server_principals r ON r.principal_id = x.role_principal_id";
        for member in server.attempt(members).await?.unwrap_or_default() {
            found.push(Finding { kind: DriftKind::Member, name: column(&member, 0), place: format!("{} in {SERVER}", column(&member, 1)) });
        }
    }
    for database in databases {
        if !is_open(&mut server, database).await? {
            continue;
        }
        let mut link = target.connect(database.as_str()).await?;
        // contained users, and those of Entra: they log in here, and the server does not know them
        let contained = "SELECT name FROM sys.database_principals WHERE authentication_type = 2 OR type IN ('E', 'X')";
        for user in link.attempt(contained).await?.unwrap_or_default() {
            found.push(Finding { kind: DriftKind::Login, name: column(&user, 0), place: database.to_string() });
        }
        let members = "SELECT USER_NAME(member_principal_id), USER_NAME(role_principal_id) FROM sys.database_role_members";
        for member in link.attempt(members).await?.unwrap_or_default() {
            found.push(Finding { kind: DriftKind::Member, name: column(&member, 0), place: format!("{} in {database}", column(&member, 1)) });
        }
        let given: BTreeSet<String> = granted(&mut link).await?.into_iter().map(|right| right.grantee).collect();
        found.extend(given.into_iter().map(|name| Finding { kind: DriftKind::Privilege, name, place: database.to_string() }));
    }
    let is_engines = |name: &str| {
        let upper = name.to_uppercase();
        ["##", "NT SERVICE\\", "NT AUTHORITY\\"].iter().any(|own| upper.starts_with(own)) || ["SA", "DBO", "PUBLIC"].contains(&upper.as_str())
    };
    let ours = ours();
    found.retain(|finding| {
        let name = &finding.name;
        !name.is_empty() && !is_engines(name) && !name.eq_ignore_ascii_case(&target.spec.admin) && !ours.contains(name)
    });
    Ok(found)
}

/// Rights that open more than the door.
async fn granted(link: &mut Link) -> Result<Vec<rights::Right>, TargetError> {
    Ok(rights::all(link).await?.into_iter().filter(|right| right.allows() && !right.is_connect()).collect())
}

/// Ends one: the login stays, without what was found.
pub async fn end(target: &SqlServer, finding: &Finding) -> Result<(), TargetError> {
    let (quoted, nowhere) = (name(&finding.name), || TargetError::Refused("it is not known in which database".to_owned()));
    match finding.kind {
        DriftKind::Login if finding.place.is_empty() => {
            let mut server = target.connect(MASTER).await?;
            server.run(&format!("ALTER LOGIN {quoted} DISABLE")).await?;
            show_out(&mut server, &finding.name).await
        }
        DriftKind::Login => {
            let mut link = target.connect(&finding.place).await?;
            link.run(&format!("DENY CONNECT TO {quoted}")).await?;
            show_out(&mut link, &finding.name).await
        }
        DriftKind::Member => {
            let (role, place) = finding.place.rsplit_once(" in ").ok_or_else(nowhere)?;
            let (kind, place) = if place == SERVER { ("SERVER ROLE", MASTER) } else { ("ROLE", place) };
            target.connect(place).await?.run(&format!("ALTER {kind} {} DROP MEMBER {quoted}", name(role))).await
        }
        DriftKind::Privilege => {
            let mut link = target.connect(&finding.place).await?;
            for right in granted(&mut link).await?.iter().filter(|right| right.grantee == finding.name) {
                link.run(&right.revoke()).await?;
            }
            Ok(())
        }
        DriftKind::Rule => {
            let database: DatabaseName = finding.place.parse().map_err(|_| nowhere())?;
            target.remove_rule(&database, &Rule { name: finding.name.clone(), from: String::new(), to: String::new() }).await
        }
    }
}

async fn show_out(link: &mut Link, whom: &str) -> Result<(), TargetError> {
    let look = format!("SELECT session_id FROM sys.dm_exec_sessions WHERE original_login_name = {}", text(whom));
    for id in link.rows(&look).await?.iter().filter_map(|row| column(row, 0).parse::<u32>().ok()) {
        link.attempt(&format!("KILL {id}")).await?;
    }
    Ok(())
}
