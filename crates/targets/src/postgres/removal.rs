//! Removing an account. The order is fixed by what PostgreSQL does: a session outlives NOLOGIN, DROP OWNED waits behind the
//! account's own locks, DROP ROLE fails while it owns anything in any database.

use super::{MAINTENANCE, Postgres};
use crate::{Estate, TargetError};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// How long its connections get to end after they were told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// What of an account is listed at most; a record is no inventory.
const MOST: usize = 50;

/// What the account owns, in every database, and what it has prepared or scheduled. It can add nothing any more.
pub async fn remains(target: &Postgres, account: &str) -> Result<Vec<String>, TargetError> {
    let server = target.connect(MAINTENANCE).await?;
    let Some(places) = lock_and_kill(&server, account).await? else { return Ok(Vec::new()) };
    let mut left = Vec::new();
    for database in places {
        let client = target.connect(&database).await?;
        let owned = "SELECT pg_catalog.pg_describe_object(s.classid, s.objid, s.objsubid) FROM pg_catalog.pg_shdepend s \
                     WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.deptype = 'o' \
                     AND s.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) \
                     AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 1";
        for row in client.query(owned, &[&account]).await? {
            left.push(format!("{} in {database}", row.try_get::<_, String>(0)?));
        }
        // triggers have no owner of their own: those that run one of its functions
        let triggers = "SELECT pg_catalog.format('trigger %I on %s', t.tgname, t.tgrelid::regclass) FROM pg_catalog.pg_trigger t \
                        JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal AND pg_catalog.pg_get_userbyid(p.proowner) = $1 ORDER BY 1";
        for row in client.query(triggers, &[&account]).await? {
            left.push(format!("{} in {database}", row.try_get::<_, String>(0)?));
        }
    }
    for row in server.query("SELECT gid, database::text FROM pg_catalog.pg_prepared_xacts WHERE owner = $1", &[&account]).await? {
        left.push(format!("prepared transaction {} in {} (rolled back)", row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
    }
    // jobs of the extension pg_cron run as whoever made them
    if has_cron(&server).await? {
        for row in server.query("SELECT jobid::text, command FROM cron.job WHERE username = $1 ORDER BY jobid", &[&account]).await? {
            left.push(format!("job {}: {}", row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?.chars().take(200).collect::<String>()));
        }
    }
    if left.len() > MOST {
        let more = left.len() - MOST;
        left.truncate(MOST);
        left.push(format!("and {more} more"));
    }
    Ok(left)
}

/// Whether the server has pg_cron: its jobs lie in this database, unless its setting says otherwise.
async fn has_cron(server: &Client) -> Result<bool, TargetError> {
    Ok(server.query_one("SELECT pg_catalog.to_regclass('cron.job') IS NOT NULL", &[]).await?.try_get(0)?)
}

/// The same steps as SQL, for somebody who has to do them by hand.
pub fn by_hand(account: &str, database: &str, heir: Option<&str>) -> String {
    let (role, database) = (escape_identifier(account), escape_identifier(database));
    let heir = heir.map_or_else(|| "<owner of the database>".to_owned(), escape_identifier);
    format!(
        "ALTER ROLE {role} NOLOGIN;\n\
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {literal};\n\
         -- each of these, in its database:\n\
         SELECT format('ROLLBACK PREPARED %L', gid), database FROM pg_prepared_xacts WHERE owner = {literal};\n\
         -- whoever is no superuser needs this; from PostgreSQL 16 on WITH INHERIT TRUE, SET TRUE\n\
         GRANT {role} TO CURRENT_USER;\n\
         -- in each database in which it owns something, first of all {database}:\n\
         REASSIGN OWNED BY {role} TO {heir}; DROP OWNED BY {role};\n\
         DROP ROLE {role};",
        literal = escape_literal(account)
    )
}

pub async fn remove(target: &Postgres, account: &str, estate: Estate<'_>) -> Result<(), TargetError> {
    // a connection of its own: waiting for sessions to end must not hold up other work on this target
    let server = target.connect(MAINTENANCE).await?;
    let Some(places) = lock_and_kill(&server, account).await? else { return Ok(()) };
    for database in places {
        let client = target.connect(&database).await?;
        give_away(&client, account, estate).await?;
    }
    if estate.drop && has_cron(&server).await? {
        // whoever is no superuser sees its own jobs only; a job whose role is gone does not run
        let unscheduled = server.query("SELECT cron.unschedule(jobid) FROM cron.job WHERE username = $1", &[&account]).await;
        if let Err(error) = unscheduled {
            tracing::warn!(account, %error, "the jobs of an account could not be removed; without its role they do not run");
        }
    }
    server.batch_execute(&format!("DROP ROLE IF EXISTS {}", escape_identifier(account))).await?;
    Ok(())
}

/// No login any more, no connection any more. Gives the databases in which the account has something; none: it is gone.
async fn lock_and_kill(client: &Client, account: &str) -> Result<Option<Vec<String>>, TargetError> {
    if client.query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&account]).await?.is_none() {
        return Ok(None);
    }
    client.batch_execute(&format!("ALTER ROLE {} NOLOGIN", escape_identifier(account))).await?;
    let deadline = Instant::now() + PATIENCE;
    // a login that was under way while we locked shows up a moment later: two empty looks, not one
    let mut empty = 0;
    while empty < 2 {
        let kill = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
        if client.query(kill, &[&account]).await?.is_empty() {
            empty += 1;
        } else {
            empty = 0;
            if Instant::now() > deadline {
                return Err(TargetError::StillConnected);
            }
        }
        if empty < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let places = "SELECT DISTINCT d.datname::text FROM pg_catalog.pg_shdepend s \
                  JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass \
                  JOIN pg_catalog.pg_database d ON d.oid = s.dbid OR (s.dbid = 0 AND s.classid = 'pg_catalog.pg_database'::regclass AND d.oid = s.objid) \
                  WHERE r.rolname = $1 AND d.datallowconn \
                  UNION SELECT database::text FROM pg_catalog.pg_prepared_xacts WHERE owner = $1";
    let rows = client.query(places, &[&account]).await?;
    Ok(Some(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?))
}

/// In one database: rolls back what the account prepared, gives what it owns to the heir, takes its rights away.
async fn give_away(client: &Client, account: &str, estate: Estate<'_>) -> Result<(), TargetError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.current_setting('server_version_num')::int, current_user::text, \
             (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), \
             (SELECT pg_catalog.pg_get_userbyid(datdba)::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
            &[],
        )
        .await?;
    let (version, me, superuser, owner): (i32, String, bool, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let role = escape_identifier(account);
    if !superuser {
        // without it PostgreSQL says "Only roles with privileges of role … may …"
        let with = if version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        client.batch_execute(&format!("GRANT {role} TO {}{with}", escape_identifier(&me))).await?;
    }
    let prepared =
        client.query("SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE owner = $1 AND database = pg_catalog.current_database()", &[&account]).await?;
    for row in prepared {
        let gid: String = row.try_get(0)?;
        // one by one: it may not stand in a transaction, and several statements in one message are one
        for sql in [format!("SET ROLE {role}"), format!("ROLLBACK PREPARED {}", escape_literal(&gid)), "RESET ROLE".to_owned()] {
            client.batch_execute(&sql).await?;
        }
    }
    if estate.drop {
        match client.batch_execute(&format!("DROP OWNED BY {role}")).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::warn!(account, %error, "what an account owned cannot be dropped; it is given away"),
        }
    }
    // the heir has to be a role that the administrator belongs to; if it is not, the administrator inherits
    let wished = estate.heir.unwrap_or(&owner);
    let mine: bool = client
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1 AND pg_catalog.pg_has_role(current_user, oid, 'USAGE'))", &[&wished])
        .await?
        .try_get(0)?;
    let heir = escape_identifier(if mine { wished } else { &me });
    client.batch_execute(&format!("REASSIGN OWNED BY {role} TO {heir}; DROP OWNED BY {role}")).await?;
    Ok(())
}
