//! Removing an account. The order is fixed by what SQL Server does: a session outlives a disabled login, DROP USER fails while
//! the user owns a schema or a role or has granted rights to others, DROP LOGIN while it is logged in.

use super::{
    MASTER, SqlServer, column, is_open,
    link::{Link, name, text},
    sees_sessions,
};
use crate::TargetError;
use daypass_core::names::DatabaseName;
use std::time::{Duration, Instant};

/// How long one try waits for its sessions to end after they were told to. A long transaction rolls back first; the keeper comes
/// again, and new accounts on this server do not wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the account owns in the environments' databases. Objects lie in schemas there, and belong to whoever owns the schema.
pub async fn remains(target: &SqlServer, account: &str, databases: &[DatabaseName]) -> Result<Vec<String>, TargetError> {
    let mut server = target.connect(MASTER).await?;
    let mut left = Vec::new();
    for database in databases {
        if !is_open(&mut server, database).await? {
            continue;
        }
        let mut link = target.connect(database.as_str()).await?;
        let own = format!("principal_id = DATABASE_PRINCIPAL_ID({})", text(account));
        for (kind, look) in [
            ("schema", format!("SELECT CAST(name AS nvarchar(128)) FROM sys.schemas WHERE {own}")),
            ("role", format!("SELECT CAST(name AS nvarchar(128)) FROM sys.database_principals WHERE type = 'R' AND owning_{own}")),
            (
                "object",
                format!(
                    "SELECT CAST(SCHEMA_NAME(schema_id) AS nvarchar(128)), CAST(name AS nvarchar(128)) FROM sys.objects WHERE {own} AND parent_object_id = 0"
                ),
            ),
        ] {
            for thing in link.attempt(&look).await?.unwrap_or_default() {
                let parts: Vec<String> = (0..thing.len()).map(|at| column(&thing, at)).collect();
                left.push(format!("{kind} {} in {database}", parts.join(".")));
            }
        }
    }
    left.truncate(50);
    Ok(left)
}

/// The same steps as T-SQL, for somebody who has to do them by hand.
pub fn by_hand(account: &str, database: &str, heir: Option<&str>) -> String {
    let (login, database) = (name(account), name(database));
    let heir = heir.map_or_else(|| "[dbo]".to_owned(), name);
    format!(
        "-- On Azure SQL Database there is no login: connect to {database}, end the sessions, and DROP USER.\n\
         ALTER LOGIN {login} DISABLE;\n\
         SELECT 'KILL ' + CAST(session_id AS varchar(10)) FROM sys.dm_exec_sessions WHERE original_login_name = {};\n\
         USE {database};\n\
         -- for each schema that it owns: ALTER AUTHORIZATION ON SCHEMA::[...] TO {heir};\n\
         DROP USER {login};\n\
         DROP LOGIN {login};",
        text(account)
    )
}

pub async fn remove(target: &SqlServer, account: &str, databases: &[DatabaseName], heir: Option<&str>) -> Result<(), TargetError> {
    // a connection of its own: waiting for sessions to end must not hold up other work on this target
    let mut server = target.connect(MASTER).await?;
    let login = name(account);
    if server.azure {
        // a database in trouble, or gone, keeps no account of another alive: all are tried, and the first failure is told
        let mut all = Ok(());
        for database in databases {
            let done = async { if is_open(&mut server, database).await? { remove_contained(target, database, account, heir).await } else { Ok(()) } };
            all = all.and(done.await);
        }
        return all;
    }
    let known = format!("SELECT CAST(name AS nvarchar(128)) FROM sys.sql_logins WHERE name = {}", text(account));
    let has_login = server.exists(&known).await?;
    if has_login {
        server.run(&format!("ALTER LOGIN {login} DISABLE")).await?;
        end_sessions(&mut server, account).await?;
    }
    // in every database that can be entered and changed: somebody may have made the account a user elsewhere. A snapshot holds its
    // user for ever
    let all =
        "SELECT CAST(name AS nvarchar(128)) FROM sys.databases WHERE state = 0 AND is_read_only = 0 AND source_database_id IS NULL AND HAS_DBACCESS(name) = 1";
    for database in server.rows(all).await?.iter().map(|row| column(row, 0)) {
        let done =
            target.within(&mut server, &database, async |link| if has_user(link, account).await? { drop_user(link, account, heir).await } else { Ok(()) });
        match done.await {
            // what is none of ours must not keep the login from going: a user without a login opens nothing
            Err(TargetError::Refused(why)) if !databases.iter().any(|ours| ours.as_str().eq_ignore_ascii_case(&database)) => {
                tracing::warn!(account, database, %why, "the user of an account stays in a database that is no environment's");
            }
            done => done?,
        }
    }
    if has_login { server.run(&format!("DROP LOGIN {login}")).await } else { Ok(()) }
}

async fn remove_contained(target: &SqlServer, database: &DatabaseName, account: &str, heir: Option<&str>) -> Result<(), TargetError> {
    let mut link = target.connect(database.as_str()).await?;
    if !has_user(&mut link, account).await? {
        return Ok(());
    }
    // a contained user has nothing to disable: it is denied to connect
    link.run(&format!("DENY CONNECT TO {}", name(account))).await?;
    end_sessions(&mut link, account).await?;
    drop_user(&mut link, account, heir).await
}

async fn has_user(link: &mut Link, account: &str) -> Result<bool, TargetError> {
    link.exists(&format!("SELECT CAST(name AS nvarchar(128)) FROM sys.database_principals WHERE name = {}", text(account))).await
}

/// Until two looks in a row are empty: a login that was under way shows up a moment later.
async fn end_sessions(link: &mut Link, account: &str) -> Result<(), TargetError> {
    sees_sessions(link).await?;
    // under whatever name it executes now: EXECUTE AS changes that
    let look = format!("SELECT CAST(session_id AS nvarchar(20)) FROM sys.dm_exec_sessions WHERE original_login_name = {}", text(account));
    let deadline = Instant::now() + PATIENCE;
    let mut empty = 0;
    while empty < 2 {
        let sessions = link.rows(&look).await?;
        if sessions.is_empty() {
            empty += 1;
        } else {
            empty = 0;
            for id in sessions.iter().filter_map(|row| column(row, 0).parse::<u32>().ok()) {
                // one that is gone meanwhile is no failure
                link.attempt(&format!("KILL {id}")).await?;
            }
            if Instant::now() > deadline {
                return Err(TargetError::StillConnected);
            }
        }
        if empty < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// What it owns goes to the heir (else to `dbo`), what it granted is taken back, then the user goes.
pub async fn drop_user(link: &mut Link, account: &str, heir: Option<&str>) -> Result<(), TargetError> {
    let user = name(account);
    let heir = match heir {
        Some(heir) if has_user(link, heir).await? => name(heir),
        _ => "[dbo]".to_owned(),
    };
    let own = format!("principal_id = DATABASE_PRINCIPAL_ID({})", text(account));
    for (kind, look) in [
        ("SCHEMA", format!("SELECT CAST(name AS nvarchar(128)) FROM sys.schemas WHERE {own}")),
        ("ROLE", format!("SELECT CAST(name AS nvarchar(128)) FROM sys.database_principals WHERE type = 'R' AND owning_{own}")),
        ("FULLTEXT CATALOG", format!("SELECT CAST(name AS nvarchar(128)) FROM sys.fulltext_catalogs WHERE {own}")),
    ] {
        for thing in link.attempt(&look).await?.unwrap_or_default() {
            link.run(&format!("ALTER AUTHORIZATION ON {kind}::{} TO {heir}", name(&column(&thing, 0)))).await?;
        }
    }
    // objects that were given to it by name, apart from their schema
    let objects =
        format!("SELECT CAST(SCHEMA_NAME(schema_id) AS nvarchar(128)), CAST(name AS nvarchar(128)) FROM sys.objects WHERE {own} AND parent_object_id = 0");
    for object in link.attempt(&objects).await?.unwrap_or_default() {
        link.run(&format!("ALTER AUTHORIZATION ON OBJECT::{}.{} TO {heir}", name(&column(&object, 0)), name(&column(&object, 1)))).await?;
    }
    revoke(link, account).await?;
    link.run(&format!("DROP USER {user}")).await
}

/// Rights that it granted to others, and (where an engine does not take them away by itself) those that it has.
async fn revoke(link: &mut Link, account: &str) -> Result<(), TargetError> {
    let of = format!("DATABASE_PRINCIPAL_ID({})", text(account));
    let granted = format!(
        "SELECT CAST(permission_name AS nvarchar(128)), CAST(USER_NAME(grantee_principal_id) AS nvarchar(128)), CAST(class AS nvarchar(5)), \
         CAST(OBJECT_SCHEMA_NAME(major_id) AS nvarchar(128)), CAST(OBJECT_NAME(major_id) AS nvarchar(128)), CAST(SCHEMA_NAME(major_id) AS nvarchar(128)) \
         FROM sys.database_permissions WHERE grantor_principal_id = {of}"
    );
    for right in link.attempt(&granted).await?.unwrap_or_default() {
        let (permission, grantee) = (column(&right, 0), name(&column(&right, 1)));
        let place = match column(&right, 2).as_str() {
            "1" => format!(" ON OBJECT::{}.{}", name(&column(&right, 3)), name(&column(&right, 4))),
            "3" => format!(" ON SCHEMA::{}", name(&column(&right, 5))),
            _ => String::new(),
        };
        // a permission's name is the engine's own word; anything else is left alone
        if permission.chars().all(|c| c.is_ascii_uppercase() || c == ' ') {
            link.attempt(&format!("REVOKE {permission}{place} FROM {grantee} CASCADE AS {}", name(account))).await?;
        }
    }
    let roles = format!("SELECT CAST(USER_NAME(role_principal_id) AS nvarchar(128)) FROM sys.database_role_members WHERE member_principal_id = {of}");
    for role in link.attempt(&roles).await?.unwrap_or_default() {
        link.attempt(&format!("ALTER ROLE {} DROP MEMBER {}", name(&column(&role, 0)), name(account))).await?;
    }
    Ok(())
}
