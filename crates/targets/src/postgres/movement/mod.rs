//! Replacing a database of PostgreSQL: the new one is made beside the old one, swept, and takes its name in one transaction.
//!
//! `ALTER DATABASE … RENAME` may stand in a transaction (only CREATE and DROP may not), so there is no moment without a database, and
//! after a crash one look tells which of the two is in place.

mod attributes;
mod copy;
mod digests;
mod masks;
mod obstacles;
mod personal;
mod rights;
mod sweep;
pub mod tools;

use super::{MAINTENANCE, Postgres};
use crate::{
    Check, TargetError,
    movement::{Move, Source, Standing},
};
use daypass_core::names::DatabaseName;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

pub use copy::{copy, export};
#[cfg(test)]
pub use obstacles::documented;
pub use sweep::{carry_over, rights_of, run_scripts, sweep, sweep_marked};

/// How long sessions of others get to end, before the names are exchanged.
const PATIENCE: Duration = Duration::from_secs(20);

fn refused(why: impl Into<String>) -> TargetError {
    TargetError::Refused(why.into())
}

/// A connection for work that may take long, and that may lie idle over what somebody else does.
async fn connect(target: &Postgres, database: &str) -> Result<Client, TargetError> {
    let client = target.connect(database).await?;
    client.batch_execute("SET statement_timeout = 0; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = 0").await?;
    Ok(client)
}

/// The same, by a name under which whoever cleans up finds it, should it outlive us.
async fn named(target: &Postgres, database: &str, name: &str) -> Result<Client, TargetError> {
    let client = connect(target, database).await?;
    client.batch_execute(&format!("SET application_name = {}", escape_literal(name))).await?;
    Ok(client)
}

/// Ends the connections of ours that have this name, and waits until they are gone: what they began would go on behind our back.
async fn end_named(client: &Client, name: &str) -> Result<(), TargetError> {
    let end = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
               WHERE application_name = $1 AND usename = current_user AND pid <> pg_catalog.pg_backend_pid()";
    until_gone(client, end, name).await
}

/// Until the statement, which ends what it finds, finds nothing any more.
async fn until_gone(client: &Client, end: &str, name: &str) -> Result<(), TargetError> {
    let deadline = Instant::now() + PATIENCE;
    while !client.query(end, &[&name]).await?.is_empty() {
        if Instant::now() > deadline {
            return Err(refused("a connection of the movement does not end"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn exists(client: &Client, database: &str) -> Result<bool, TargetError> {
    Ok(client.query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)", &[&database]).await?.try_get(0)?)
}

/// The server's major version, and whether the administrator is a superuser.
async fn server(client: &Client) -> Result<(i32, bool), TargetError> {
    let look = "SELECT pg_catalog.current_setting('server_version_num')::int / 10000, (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)";
    let row = client.query_one(look, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Who owns the database. The administrator has to belong to that role, or it can rename nothing.
async fn owner(client: &Client, database: &str) -> Result<String, TargetError> {
    let look = "SELECT pg_catalog.pg_get_userbyid(datdba)::text, pg_catalog.pg_has_role(current_user, datdba, 'USAGE'), \
                (SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), current_user::text, \
                EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolsuper AND pg_catalog.pg_has_role(datdba, r.oid, 'MEMBER')) \
                FROM pg_catalog.pg_database WHERE datname = $1";
    let row = client.query_opt(look, &[&database]).await?.ok_or_else(|| TargetError::NoDatabase(database.to_owned()))?;
    let (owner, mine, may_create, me): (String, bool, bool, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    // a function of the copy that runs as its owner would be the superuser's, and everybody may call it
    if row.try_get(4)? {
        return Err(refused(format!(
            "{database} belongs to {owner}, who is a superuser: what comes inside the copy would be a superuser's. Give it to another role: ALTER DATABASE {database} OWNER TO ..."
        )));
    }
    if !mine {
        return Err(refused(format!("{me} does not belong to {owner}, which owns {database}, and can rename it only then: GRANT {owner} TO {me}")));
    }
    if !may_create {
        return Err(refused(format!("{me} may make no database, and a movement makes one: ALTER ROLE {me} CREATEDB")));
    }
    Ok(owner)
}

/// Shows out whoever may be shown out. The server's own workers go by themselves when a database is renamed or dropped, and a superuser's
/// session only another superuser ends.
async fn end_sessions(client: &Client, databases: &[&str]) -> Result<(), TargetError> {
    let kill = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid \
                WHERE a.datname = ANY ($1) AND a.pid <> pg_catalog.pg_backend_pid() AND coalesce(a.backend_type, 'client backend') = 'client backend' \
                AND (NOT r.rolsuper OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user))";
    client.query(kill, &[&databases]).await.map(drop).map_err(TargetError::from)
}

/// Runs what the server does only when nobody is connected to these databases: shows them out, and tries for a while.
async fn alone(client: &Client, databases: &[&str], sql: &str) -> Result<(), TargetError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        end_sessions(client, databases).await?;
        let Err(error) = client.batch_execute(sql).await else { return Ok(()) };
        if sql.starts_with("BEGIN") {
            client.batch_execute("ROLLBACK").await?;
        }
        if error.code() != Some(&tokio_postgres::error::SqlState::OBJECT_IN_USE) {
            return Err(error.into());
        }
        if Instant::now() > deadline {
            let there = "SELECT pg_catalog.string_agg(pg_catalog.format('%s (%s)', usename, pid), ', ') FROM pg_catalog.pg_stat_activity \
                         WHERE datname = ANY ($1) AND pid <> pg_catalog.pg_backend_pid()";
            let there: Option<String> = client.query_one(there, &[&databases]).await?.try_get(0)?;
            return Err(refused(format!("somebody is still connected, and does not go: {}", there.unwrap_or_else(|| error.to_string()))));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn allow_connections(client: &Client, database: &str, allow: bool) -> Result<(), TargetError> {
    Ok(client.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allow}", escape_identifier(database))).await?)
}

/// What would stand in the way, all of it.
pub async fn look_ahead(target: &Postgres, movement: &Move<'_>, source: Option<&Source<'_>>) -> Result<Vec<Check>, TargetError> {
    obstacles::look(target, movement, source).await
}

/// What would keep the names from being exchanged at this moment.
pub async fn in_the_way(target: &Postgres, movement: &Move<'_>) -> Result<Vec<Check>, TargetError> {
    obstacles::in_the_way(&connect(target, MAINTENANCE).await?, movement.environment.spec.database.as_str()).await
}

/// `incoming` takes the name of the database, which is put aside as the movement names it. All or nothing.
pub async fn swap(target: &Postgres, movement: &Move<'_>, incoming: &DatabaseName) -> Result<(), TargetError> {
    let client = named(target, MAINTENANCE, &movement.names.role).await?;
    let (database, incoming, old) = (movement.environment.spec.database.as_str(), incoming.as_str(), movement.names.old.as_str());
    // nobody comes in between; whoever did before is shown out
    allow_connections(&client, database, false).await?;
    let done = exchange(&client, database, incoming, old).await;
    if done.is_err() {
        allow_connections(&client, database, true).await?;
    }
    done
}

async fn exchange(client: &Client, database: &str, incoming: &str, old: &str) -> Result<(), TargetError> {
    let name = escape_identifier;
    let sql = format!(
        "BEGIN; ALTER DATABASE {} RENAME TO {}; ALTER DATABASE {} RENAME TO {}; ALTER DATABASE {} ALLOW_CONNECTIONS true; COMMIT",
        name(database),
        name(old),
        name(incoming),
        name(database),
        name(database)
    );
    alone(client, &[database, incoming], &sql).await
}

/// After an interruption: which database is in place? What was only half made is removed, and the one in place takes connections.
pub async fn settle(target: &Postgres, movement: &Move<'_>, incoming: &DatabaseName) -> Result<Standing, TargetError> {
    let client = connect(target, MAINTENANCE).await?;
    let (database, names) = (movement.environment.spec.database.as_str(), movement.names);
    // an exchange of names that still waits for a lock would take place behind our back
    end_named(&client, &names.role).await?;
    if exists(&client, names.old.as_str()).await? && !exists(&client, incoming.as_str()).await? {
        return Ok(Standing::New);
    }
    remove(&client, names.scratch.as_str(), &names.role).await?;
    if exists(&client, database).await? {
        let closed = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1 AND NOT datallowconn";
        if client.query_opt(closed, &[&database]).await?.is_some() {
            allow_connections(&client, database, true).await?;
        }
    }
    Ok(Standing::Old)
}

/// Removes what a copy made so far.
pub async fn discard(target: &Postgres, movement: &Move<'_>) -> Result<(), TargetError> {
    let client = connect(target, MAINTENANCE).await?;
    // a copy that the server goes on making would be there when nobody looks any more
    end_named(&client, &movement.names.role).await?;
    remove(&client, movement.names.scratch.as_str(), &movement.names.role).await
}

async fn remove(client: &Client, scratch: &str, role: &str) -> Result<(), TargetError> {
    drop_database(client, scratch).await?;
    discard_role(client, role).await
}

async fn discard_role(client: &Client, role: &str) -> Result<(), TargetError> {
    if client.query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role]).await?.is_some() {
        client.batch_execute(&format!("ALTER ROLE {} NOLOGIN", escape_identifier(role))).await?;
        client.query("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1", &[&role]).await?;
        client.batch_execute(&format!("DROP ROLE {}", escape_identifier(role))).await?;
    }
    Ok(())
}

async fn drop_database(client: &Client, database: &str) -> Result<(), TargetError> {
    if exists(client, database).await? {
        // what is a template is not dropped (PostgreSQL manual, DROP DATABASE)
        client.batch_execute(&format!("ALTER DATABASE {} WITH IS_TEMPLATE false", escape_identifier(database))).await?;
        alone(client, &[database], &format!("DROP DATABASE {}", escape_identifier(database))).await?;
    }
    Ok(())
}

/// The way back is over.
pub async fn drop_kept(target: &Postgres, database: &DatabaseName) -> Result<(), TargetError> {
    let client = connect(target, MAINTENANCE).await?;
    drop_database(&client, database.as_str()).await
}

/// A name in a list, as a literal.
fn literals(names: &[String]) -> String {
    names.iter().map(|name| escape_literal(name)).collect::<Vec<_>>().join(", ")
}
