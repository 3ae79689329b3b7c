//! What hangs on the database and not on what is in it: who may connect, settings, limits, the comment. The new one gets it from the one of
//! before. What of the old one's own cannot be carried over is named.

use super::connect;
use crate::{TargetError, postgres::Postgres};
use daypass_core::movement::Swept;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::Client;

fn line(what: String, done: impl Into<String>) -> Swept {
    Swept { what, done: done.into() }
}

/// The last thing before the names are exchanged: from here on others than the administrator may connect to the new database.
pub async fn carry(admin: &Client, database: &str, scratch: &str, owner: &str) -> Result<Vec<Swept>, TargetError> {
    let mut report = settings(admin, database, scratch).await?;
    report.extend(settings_of_roles(admin, database, scratch).await?);
    let look = "SELECT d.datconnlimit, d.datistemplate, pg_catalog.shobj_description(d.oid, 'pg_database') FROM pg_catalog.pg_database d WHERE d.datname = $1";
    let row = admin.query_one(look, &[&database]).await?;
    let (limit, template, comment): (i32, bool, Option<String>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (name, heir) = (escape_identifier(scratch), escape_identifier(owner));
    admin.batch_execute(&format!("ALTER DATABASE {name} OWNER TO {heir}")).await?;
    let comment = comment.map_or_else(|| "NULL".to_owned(), |comment| escape_literal(&comment));
    admin
        .batch_execute(&format!("ALTER DATABASE {name} WITH CONNECTION LIMIT {limit} IS_TEMPLATE {template}; COMMENT ON DATABASE {name} IS {comment}"))
        .await?;
    rights(admin, database, scratch).await?;
    Ok(report)
}

async fn rights(admin: &Client, database: &str, scratch: &str) -> Result<(), TargetError> {
    let rights = "SELECT pg_catalog.format('GRANT %s ON DATABASE %I TO %s%s', x.privilege_type, $2::text, \
                  CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END, \
                  CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
                  FROM pg_catalog.pg_database d, pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) x \
                  WHERE d.datname = $1 AND x.grantee <> d.datdba";
    for row in admin.query(rights, &[&database, &scratch]).await? {
        let sql: String = row.try_get(0)?;
        admin.batch_execute(&sql).await?;
    }
    Ok(())
}

/// The settings of the database of before: scripts run with them, and everybody afterwards.
pub async fn settings(admin: &Client, database: &str, scratch: &str) -> Result<Vec<Swept>, TargetError> {
    each_setting(admin, database, None, &format!("ALTER DATABASE {}", escape_identifier(scratch)), "setting").await
}

/// Those that a role has in this database.
async fn settings_of_roles(admin: &Client, database: &str, scratch: &str) -> Result<Vec<Swept>, TargetError> {
    let roles = "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
                 WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = $1) ORDER BY 1";
    let mut report = Vec::new();
    for row in admin.query(roles, &[&database]).await? {
        let role: String = row.try_get(0)?;
        let alter = format!("ALTER ROLE {} IN DATABASE {}", escape_identifier(&role), escape_identifier(scratch));
        report.extend(each_setting(admin, database, Some(&role), &alter, &format!("setting of {role}:")).await?);
    }
    Ok(report)
}

async fn each_setting(admin: &Client, database: &str, role: Option<&str>, alter: &str, what: &str) -> Result<Vec<Swept>, TargetError> {
    let settings = "SELECT c FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c \
                    WHERE s.setrole = coalesce((SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $2), 0) \
                    AND s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = $1)";
    let mut report = Vec::new();
    for row in admin.query(settings, &[&database, &role]).await? {
        let setting: String = row.try_get(0)?;
        let Some((name, value)) = setting.split_once('=') else { continue };
        // a list keeps its form only this way
        let set = format!("SELECT pg_catalog.set_config({}, {}, true)", escape_literal(name), escape_literal(value));
        let quoted = name.split('.').map(escape_identifier).collect::<Vec<_>>().join(".");
        if let Err(error) = admin.batch_execute(&format!("BEGIN; {set}; {alter} SET {quoted} FROM CURRENT; COMMIT")).await {
            admin.batch_execute("ROLLBACK").await?;
            report.push(line(format!("{what} {name} of the database of before"), format!("NOT carried over: {}", TargetError::from(error))));
        }
    }
    Ok(report)
}

/// What the database of before has of its own and a copy of another cannot have; each with a name that means the same in both.
const OWN: &str = "
SELECT 'extension ' || extname FROM pg_extension
UNION ALL SELECT 'foreign server ' || srvname FROM pg_foreign_server
UNION ALL SELECT 'user mapping of ' || coalesce(usename, 'public') || ' for ' || srvname FROM pg_user_mappings
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'subscription ' || subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
UNION ALL SELECT 'logical replication slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()";

/// Named one by one: somebody has to make them again, or to see that nothing needs them.
pub async fn left_behind(target: &Postgres, database: &str, scratch: &str) -> Result<Vec<Swept>, TargetError> {
    let mut own = Vec::new();
    for database in [database, scratch] {
        let client = connect(target, database).await?;
        // subscriptions are for superusers to see, but for these columns
        let rows = client.query(OWN, &[]).await?;
        own.push(rows.iter().map(|row| row.try_get(0)).collect::<Result<std::collections::BTreeSet<String>, _>>()?);
    }
    let (before, now) = (own.swap_remove(0), own.swap_remove(0));
    Ok(before
        .difference(&now)
        .map(|what| line(format!("{what} of the database of before"), "NOT in the new one; it stays with the database that is put aside"))
        .collect())
}
