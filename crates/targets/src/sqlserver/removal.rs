//! Removing an account. The order is fixed by what SQL Server does: a session outlives a disabled login, DROP USER fails while
//! the user owns a schema or a role or has granted rights to others, DROP LOGIN while it is logged in.

use super::{
    MASTER, SqlServer, column, is_open,
    link::{Link, name, text},
    sees_sessions,
};
use crate::TargetError;
use daypass_core::{names::DatabaseName, plan::Backend};
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
        for module in link.attempt(&modules(account)).await?.unwrap_or_default() {
            let (schema, object) = (column(&module, 1), column(&module, 2));
            let quoted = text(&format!("{}.{}", name(&schema), name(&object)));
            let source = link.maybe(&format!("SELECT CAST(OBJECT_DEFINITION(OBJECT_ID({quoted})) AS nvarchar(max))")).await?.unwrap_or_default();
            left.push(format!("dropped in {database}: {schema}.{object} ({}): {}", column(&module, 0).trim(), source.chars().take(8_000).collect::<String>()));
        }
        for (kind, look) in [
            ("schema", format!("SELECT name FROM sys.schemas WHERE {own}")),
            ("role", format!("SELECT name FROM sys.database_principals WHERE type = 'R' AND owning_{own}")),
            ("object", format!("SELECT SCHEMA_NAME(schema_id), name FROM sys.objects WHERE {own} AND parent_object_id = 0")),
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
    let heir = heir.map_or_else(|| name(ESTATE), name);
    format!(
        "-- On Azure SQL Database there is no login: connect to {database}, end the sessions, and DROP USER.\n\
         ALTER LOGIN {login} DISABLE;\n\
         SELECT 'KILL ' + CAST(session_id AS varchar(10)) FROM sys.dm_exec_sessions WHERE original_login_name = {};\n\
         USE {database};\n\
         -- first drop the procedures, functions, views and triggers in the schemas that it owns: under another owner they would run with\n\
         -- that owner's rights. Then, for each schema that it owns: CREATE ROLE {heir}; ALTER AUTHORIZATION ON SCHEMA::[...] TO {heir};\n\
         DROP USER {login};\n\
         DROP LOGIN {login};",
        text(account)
    )
}

pub async fn remove(target: &SqlServer, account: &str, databases: &[DatabaseName]) -> Result<(), TargetError> {
    // a connection of its own: waiting for sessions to end must not hold up other work on this target
    let mut server = target.connect(MASTER).await?;
    let login = name(account);
    if server.azure {
        // a database in trouble, or gone, keeps no account of another alive: all are tried, and the first failure is told
        let mut all = Ok(());
        for database in databases {
            let done = async { if is_open(&mut server, database).await? { remove_contained(target, database, account).await } else { Ok(()) } };
            all = all.and(done.await);
        }
        return all;
    }
    let known = format!("SELECT name FROM sys.sql_logins WHERE name = {}", text(account));
    let has_login = server.exists(&known).await?;
    if has_login {
        server.run(&format!("ALTER LOGIN {login} DISABLE")).await?;
        end_sessions(&mut server, account).await?;
    }
    // in every database that can be entered and changed: somebody may have made the account a user elsewhere. A snapshot holds its
    // user for ever
    let all = "SELECT name FROM sys.databases WHERE state = 0 AND is_read_only = 0 AND source_database_id IS NULL AND HAS_DBACCESS(name) = 1";
    for database in server.rows(all).await?.iter().map(|row| column(row, 0)) {
        let done = target.within(&mut server, &database, async |link| {
            if !has_user(link, account).await? {
                return Ok(());
            }
            drop_modules(link, account).await?;
            drop_user(link, account).await
        });
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

/// Nobody is in with these accounts any more: disabled (or denied to connect, where there is no login), and their sessions ended; and these
/// sessions of others. KILL takes no free place, because the connection is kept.
pub async fn shut(link: &mut Link, accounts: &[String], backends: &[Backend]) -> Result<(), TargetError> {
    let mut all = Ok(());
    for account in accounts {
        let lock = if link.azure {
            if !has_user(link, account).await? {
                continue;
            }
            format!("DENY CONNECT TO {}", name(account))
        } else {
            if !link.exists(&format!("SELECT name FROM sys.sql_logins WHERE name = {}", text(account))).await? {
                continue;
            }
            format!("ALTER LOGIN {} DISABLE", name(account))
        };
        all = all.and(link.run(&lock).await);
    }
    if accounts.is_empty() && backends.is_empty() {
        return all;
    }
    let names = accounts.iter().chain(backends.iter().map(|backend| &backend.account)).map(String::as_str);
    for session in super::sessions_of_accounts(link, names).await? {
        if accounts.contains(&session.account) || backends.contains(&session) {
            // one that is gone meanwhile is no failure
            link.attempt(&format!("KILL {}", session.id)).await?;
        }
    }
    all
}

async fn remove_contained(target: &SqlServer, database: &DatabaseName, account: &str) -> Result<(), TargetError> {
    let mut link = target.connect(database.as_str()).await?;
    if !has_user(&mut link, account).await? {
        return Ok(());
    }
    // a contained user has nothing to disable: it is denied to connect
    link.run(&format!("DENY CONNECT TO {}", name(account))).await?;
    end_sessions(&mut link, account).await?;
    drop_modules(&mut link, account).await?;
    drop_user(&mut link, account).await
}

async fn has_user(link: &mut Link, account: &str) -> Result<bool, TargetError> {
    link.exists(&format!("SELECT name FROM sys.database_principals WHERE name = {}", text(account))).await
}

/// Until two looks in a row are empty: a login that was under way shows up a moment later.
async fn end_sessions(link: &mut Link, account: &str) -> Result<(), TargetError> {
    sees_sessions(link).await?;
    // under whatever name it executes now: EXECUTE AS changes that
    let look = format!("SELECT session_id FROM sys.dm_exec_sessions WHERE original_login_name = {}", text(account));
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

/// Who gets plain data: a database role. A role has no rights here and cannot log in, and what says EXECUTE AS OWNER does not run for one
/// (CREATE PROCEDURE, "EXECUTE AS Clause": the owner has to be a single account).
const ESTATE: &str = "daypass_estate";

/// What runs and is the account's, by its own name or by the schema that it stands in: type, schema, name.
fn modules(account: &str) -> String {
    let id = format!("DATABASE_PRINCIPAL_ID({})", text(account));
    format!(
        "SELECT o.type, SCHEMA_NAME(o.schema_id), o.name FROM sys.objects o \
         WHERE (o.principal_id = {id} OR (o.principal_id IS NULL AND o.schema_id IN (SELECT schema_id FROM sys.schemas WHERE principal_id = {id}))) \
         AND o.type IN ('P', 'PC', 'FN', 'IF', 'TF', 'FS', 'FT', 'AF', 'V', 'TR', 'SN', 'SQ')"
    )
}

fn drop_module(row: &super::link::Row) -> Option<String> {
    let kind = match column(row, 0).trim() {
        "P" | "PC" => "PROCEDURE",
        "FN" | "IF" | "TF" | "FS" | "FT" => "FUNCTION",
        "AF" => "AGGREGATE",
        "V" => "VIEW",
        "TR" => "TRIGGER",
        "SN" => "SYNONYM",
        "SQ" => "QUEUE",
        _ => return None,
    };
    Some(format!("DROP {kind} {}.{}", name(&column(row, 1)), name(&column(row, 2))))
}

/// Drops what runs and is the account's. One may stand in the way of the next: until none is left or none goes any more; what does not go
/// belongs to a role afterwards, and does not run as its owner.
async fn drop_modules(link: &mut Link, account: &str) -> Result<(), TargetError> {
    for _ in 0..3 {
        let found = link.attempt(&modules(account)).await?.unwrap_or_default();
        let mut gone = false;
        for sql in found.iter().filter_map(drop_module) {
            gone |= link.attempt(&sql).await?.is_some();
        }
        if !gone {
            break;
        }
    }
    Ok(())
}

/// What it owns goes to a role without rights (never to `dbo`: what says EXECUTE AS OWNER would run with its rights), what it granted is taken
/// back, then the user goes.
pub async fn drop_user(link: &mut Link, account: &str) -> Result<(), TargetError> {
    let user = name(account);
    let own = format!("principal_id = DATABASE_PRINCIPAL_ID({})", text(account));
    let mut heir = None;
    for (kind, look) in [
        ("SCHEMA", format!("SELECT name FROM sys.schemas WHERE {own}")),
        ("ROLE", format!("SELECT name FROM sys.database_principals WHERE type = 'R' AND owning_{own}")),
        ("FULLTEXT CATALOG", format!("SELECT name FROM sys.fulltext_catalogs WHERE {own}")),
    ] {
        for thing in link.attempt(&look).await?.unwrap_or_default() {
            let to = estate(link, &mut heir).await?;
            link.run(&format!("ALTER AUTHORIZATION ON {kind}::{} TO {to}", name(&column(&thing, 0)))).await?;
        }
    }
    // certificates, keys, assemblies and what of the service broker it owns: these need somebody who is no role, so they go
    for (kind, view) in [
        ("CERTIFICATE", "certificates"),
        ("SYMMETRIC KEY", "symmetric_keys"),
        ("ASYMMETRIC KEY", "asymmetric_keys"),
        ("SERVICE", "services"),
        ("ROUTE", "routes"),
        ("REMOTE SERVICE BINDING", "remote_service_bindings"),
        ("CONTRACT", "service_contracts"),
        ("MESSAGE TYPE", "service_message_types"),
        ("ASSEMBLY", "assemblies"),
    ] {
        for thing in link.attempt(&format!("SELECT name FROM sys.{view} WHERE {own}")).await?.unwrap_or_default() {
            link.run(&format!("DROP {kind} {}", name(&column(&thing, 0)))).await?;
        }
    }
    // objects that were given to it by name, apart from their schema
    let objects = format!("SELECT SCHEMA_NAME(schema_id), name FROM sys.objects WHERE {own} AND parent_object_id = 0");
    for object in link.attempt(&objects).await?.unwrap_or_default() {
        let to = estate(link, &mut heir).await?;
        link.run(&format!("ALTER AUTHORIZATION ON OBJECT::{}.{} TO {to}", name(&column(&object, 0)), name(&column(&object, 1)))).await?;
    }
    revoke(link, account).await?;
    link.run(&format!("DROP USER {user}")).await
}

/// The role that gets what is left; made when it is needed first.
async fn estate(link: &mut Link, made: &mut Option<String>) -> Result<String, TargetError> {
    if let Some(role) = made {
        return Ok(role.clone());
    }
    let role = name(ESTATE);
    if !has_user(link, ESTATE).await? {
        link.run(&format!("CREATE ROLE {role}")).await?;
    }
    Ok(made.insert(role).clone())
}

/// Rights that it granted to others, and (where an engine does not take them away by itself) those that it has.
async fn revoke(link: &mut Link, account: &str) -> Result<(), TargetError> {
    let of = format!("DATABASE_PRINCIPAL_ID({})", text(account));
    let granted = format!(
        "SELECT permission_name, USER_NAME(grantee_principal_id), class, \
         OBJECT_SCHEMA_NAME(major_id), OBJECT_NAME(major_id), SCHEMA_NAME(major_id) \
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
            let revoke = format!("REVOKE {permission}{place} FROM {grantee} CASCADE");
            // on the database itself, who stands behind AS has to own it (REVOKE Database Permissions): then as whoever granted it
            if link.attempt(&format!("{revoke} AS {}", name(account))).await?.is_none() {
                link.attempt(&format!("EXECUTE AS USER = {}; {revoke}; REVERT", text(account))).await?;
            }
        }
    }
    let roles = format!("SELECT USER_NAME(role_principal_id) FROM sys.database_role_members WHERE member_principal_id = {of}");
    for role in link.attempt(&roles).await?.unwrap_or_default() {
        link.attempt(&format!("ALTER ROLE {} DROP MEMBER {}", name(&column(&role, 0)), name(account))).await?;
    }
    Ok(())
}
