//! What `env test` looks at, first as the administrator, then as somebody who is in with an account.

use super::{MAINTENANCE, Postgres, grants::ways_to_create};
use crate::{Check, TargetError, some_of};
use daypass_core::{
    names::{AccountName, DatabaseName},
    pass::Access,
    secret::Secret,
};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

/// Functions that everybody may call, that run with their owner's rights and look names up where the caller says: a caller's temporary table
/// takes the place of what they mean. Those of extensions are their authors' to judge.
const LED_ASTRAY: &str = "
SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.prosecdef AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND p.prorettype <> 'trigger'::regtype
   AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
   AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x WHERE x.grantee = 0 AND x.privilege_type = 'EXECUTE')
 ORDER BY 1 LIMIT 11";

/// What the administrator may, with the sentence that mends it.
const MAY: &[(&str, &str, &str)] = &[
    ("the administrator may make roles", "SELECT rolcreaterole OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", "ALTER ROLE … CREATEROLE"),
    (
        "the administrator may end sessions",
        "SELECT rolsuper OR pg_catalog.pg_has_role(current_user, 'pg_signal_backend', 'USAGE') FROM pg_catalog.pg_roles WHERE rolname = current_user",
        "GRANT pg_signal_backend TO …",
    ),
];

/// What the server is: its version, whether it can be written to, whom the database belongs to and whether that is a superuser, whether the
/// administrator belongs to them, whether it may make databases, and the extensions.
const SERVER: &str = "
SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000, pg_is_in_recovery(),
       pg_get_userbyid(d.datdba)::text, o.rolsuper, pg_has_role(current_user, d.datdba, 'USAGE'),
       (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user),
       (SELECT coalesce(string_agg(extname || ' ' || extversion, ', ' ORDER BY extname), 'none') FROM pg_extension WHERE extname <> 'plpgsql'),
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = current_database()";

pub async fn administrator(target: &Postgres, database: &DatabaseName) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut clients = Vec::new();
    for place in [database.as_str(), MAINTENANCE] {
        match target.connect(place).await {
            Ok(client) => {
                checks.push(Check::fine(format!("the administrator reaches the database {place}")));
                clients.push(client);
            }
            Err(error) => {
                let admin = escape_identifier(&target.spec.admin);
                let remedy = format!(
                    "Check host, port, TLS, the administrator's name and password, and that pg_hba.conf and GRANT CONNECT ON DATABASE {} TO {admin} let it in.",
                    escape_identifier(place)
                );
                checks.push(Check::missing(format!("the administrator does not reach the database {place}: {error}"), remedy));
                return checks;
            }
        }
    }
    let client = &clients[0];
    match server(client).await {
        Ok(more) => checks.extend(more),
        Err(error) => checks.push(Check::missing(format!("what the server is cannot be read: {error}"), "Try again.")),
    }
    for (what, question, remedy) in MAY {
        let so = client.query_one(*question, &[]).await.and_then(|row| row.try_get::<_, bool>(0)).unwrap_or(false);
        checks.push(Check::needs(so, *what, format!("{remedy} (the recipe: daypass env recipe)")));
    }
    let ways = ways_to_create(client, "").await.unwrap_or_else(|error| vec![error.to_string()]);
    checks.push(Check::needs(ways.is_empty(), "nobody can create anything that lasts by being let in", ways.join("; ")));
    let astray: Result<Vec<String>, _> = client.query(LED_ASTRAY, &[]).await.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
    let astray = astray.unwrap_or_else(|error| vec![error.to_string()]);
    checks.push(if astray.is_empty() {
        Check::fine("no function that everybody may call runs as its owner with the caller's search_path")
    } else {
        Check::note(
            format!("functions that everybody may call run as their owner with the caller's search_path: {}", some_of(&astray)),
            "ALTER FUNCTION ... SET search_path = pg_catalog, pg_temp, or REVOKE EXECUTE ... FROM PUBLIC",
        )
    });
    let aimed: Result<Vec<String>, _> = client.query(AIMED, &[]).await.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
    let aimed = aimed.unwrap_or_else(|error| vec![error.to_string()]);
    if !aimed.is_empty() {
        checks.push(Check::note(
            format!("policies written for a group of Daypass, which whoever has access can take away (DROP OWNED BY): {}", some_of(&aimed)),
            "Write them TO PUBLIC, with a condition: USING (NOT pg_has_role(current_user, '<the group>', 'member') OR …)",
        ));
    }
    checks.push(room(client).await);
    checks
}

/// Policies of row level security for our groups.
const AIMED: &str = "SELECT DISTINCT format('%s on %s', p.polname, p.polrelid::regclass) FROM pg_policy p, unnest(p.polroles) AS o (oid), pg_roles r \
    WHERE r.oid = o.oid AND r.rolname LIKE 'daypass\\_%' ORDER BY 1";

async fn server(client: &Client) -> Result<Vec<Check>, TargetError> {
    let row = client.query_one(SERVER, &[]).await?;
    let (version, major, standby): (String, i32, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (owner, above, belongs, creates): (String, bool, bool, bool) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
    let (extensions, superuser): (String, bool) = (row.try_get(7)?, row.try_get(8)?);
    let mut checks = vec![
        Check::needs(major >= 13, format!("the server is PostgreSQL {version}"), "Daypass is for PostgreSQL 13 and later."),
        Check::needs(!standby, "the server can be written to", "This is a standby: name the primary. Accounts are made there."),
    ];
    // never a superuser's membership: whoever has that is one
    let movable = match (above, belongs && creates) {
        (true, _) => Err(format!("ALTER DATABASE … OWNER TO a role that is no superuser ({owner} is one), to which the administrator belongs")),
        (false, false) => Err(format!("GRANT {} TO … WITH ADMIN OPTION; ALTER ROLE … CREATEDB", escape_identifier(&owner))),
        (false, true) => Ok(()),
    };
    checks.push(match movable {
        Ok(()) => Check::fine(format!("the database belongs to {owner}, and can be moved (daypass move)")),
        Err(remedy) => Check::note(format!("the database belongs to {owner}, and cannot be moved (daypass move)"), remedy),
    });
    checks.push(Check::fine(format!("extensions: {extensions}")));
    let prepared: i32 = client.query_one("SELECT current_setting('max_prepared_transactions')::int", &[]).await?.try_get(0)?;
    if prepared > 0 {
        checks.push(Check::note(
            format!("transactions can be prepared here (max_prepared_transactions = {prepared}): somebody can leave so many locks in them that nobody gets in until the server is started again"),
            "Set max_prepared_transactions = 0, unless something uses them.",
        ));
    }
    if superuser {
        checks.push(Check::note("the administrator is a superuser", "It need not be one: the recipe (daypass env recipe) has the rights that are enough."));
    }
    Ok(checks)
}

/// Whether there are slots for people, beside what others have.
async fn room(client: &Client) -> Check {
    const FEW: i64 = 10;
    let look = "SELECT current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint \
                - (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND leader_pid IS NULL AND usename NOT LIKE 'jit\\_%')";
    let remedy = "Raise max_connections: accounts get what others leave, less some that Daypass needs to end access.";
    match client.query_one(look, &[]).await.and_then(|row| row.try_get::<_, i64>(0)) {
        Ok(free) if free > FEW => Check::fine(format!("the server has connections left for people ({free} now)")),
        Ok(free) => Check::missing(format!("the server has hardly a connection left for people ({free} now)"), remedy),
        Err(error) => Check::missing(format!("how many connections the server has left cannot be read: {error}"), remedy),
    }
}

/// What belongs to extensions is left out: it is their authors' to open, and their owner may be a superuser to whom nobody should belong.
const UNSEEN: &str = "
WITH ours AS (SELECT n.oid, n.nspname FROM pg_namespace n
               WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')),
tables AS (SELECT c.oid, format('%I.%I', ours.nspname, c.relname) AS name, c.relrowsecurity, pg_get_userbyid(c.relowner)::text AS owner
             FROM pg_class c JOIN ours ON ours.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
SELECT 'schema', format('%I', nspname), '' FROM ours WHERE NOT has_schema_privilege(oid, 'USAGE')
UNION ALL
SELECT 'table', name, owner FROM tables WHERE NOT has_table_privilege(oid, 'SELECT')
UNION ALL
SELECT 'rows', name, owner FROM tables WHERE relrowsecurity AND has_table_privilege(oid, 'SELECT') AND row_security_active(oid)
UNION ALL
SELECT 'write', name, owner FROM tables WHERE $1 AND has_table_privilege(oid, 'SELECT') AND NOT (has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
 ORDER BY 1, 2 LIMIT 1000";

const LARGE_OBJECTS: &str = "
SELECT count(*) FROM (SELECT FROM pg_largeobject_metadata l WHERE NOT pg_has_role(current_user, l.lomowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) x WHERE x.privilege_type = 'SELECT' AND (x.grantee = 0 OR pg_has_role(current_user, x.grantee, 'USAGE')))
 LIMIT 10000) closed";

/// A table that a statement can be tried on without anybody's trigger or rule running.
const TO_TRY: &str = "
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND NOT c.relhastriggers AND NOT c.relhasrules AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'DELETE') LIMIT 1";

pub async fn look_around(
    target: &Postgres,
    account: &AccountName,
    password: &Secret,
    database: &DatabaseName,
    access: Access,
) -> Result<Vec<Check>, TargetError> {
    let mut client = target.connect_as(account, password, database).await?;
    let mut checks = Vec::new();
    let writes = access == Access::ReadWrite;
    let (mut schemas, mut tables, mut rows, mut unwritten) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in client.query(UNSEEN, &[&writes]).await? {
        let (kind, name, owner): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match kind.as_str() {
            "schema" => schemas.push(name),
            "table" => tables.push(format!("{name} (of {owner})")),
            "rows" => rows.push(name),
            _ => unwritten.push(name),
        }
    }
    let word = access.as_str();
    let by_hand = |rights: &str| {
        format!(
            "The administrator cannot grant {rights} on what belongs to a role that it is no member of: make it one, unless that is a superuser; or let the owner grant it to daypass_<environment>_{word}."
        )
    };
    for (unseen, what, remedy) in [
        (schemas, "schemas that accounts cannot enter", by_hand("USAGE")),
        (tables, "tables and views that accounts cannot read", by_hand("SELECT")),
        (
            rows,
            "tables of which accounts see only the rows that row level security lets them see, perhaps none",
            "If that is not meant: CREATE POLICY … TO the group of the accounts (daypass_<environment>_read, daypass_<environment>_read_write).".to_owned(),
        ),
        (unwritten, "tables that accounts can read and not write", by_hand("INSERT, UPDATE, DELETE")),
    ] {
        if !unseen.is_empty() {
            checks.push(Check::note(format!("{word}: {what}: {}", some_of(&unseen)), remedy));
        }
    }
    let closed: i64 = client.query_one(LARGE_OBJECTS, &[]).await?.try_get(0)?;
    if closed > 0 && !writes {
        checks.push(Check::note(
            format!("{word}: {closed} large objects that accounts cannot read"),
            "Large objects have rights of their own, each: GRANT SELECT ON LARGE OBJECT … TO daypass_<environment>_read.",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::fine(format!("{word}: an account sees every table and view")));
    }
    if writes {
        checks.push(match write(&mut client).await {
            Ok(()) => Check::fine(format!("{word}: an account can write (tried, and rolled back)")),
            Err(error) => {
                Check::missing(format!("{word}: an account cannot write: {error}"), "The server says this; a read-only server or database takes no changes.")
            }
        });
    }
    Ok(checks)
}

/// Writes as far as that goes without changing a row, and takes it back.
async fn write(client: &mut Client) -> Result<(), TargetError> {
    let tx = client.transaction().await?;
    tx.query_one("SELECT pg_catalog.pg_current_xact_id()::text", &[]).await?;
    if let Some(row) = tx.query_opt(TO_TRY, &[]).await? {
        let table: String = row.try_get(0)?;
        tx.batch_execute(&format!("DELETE FROM {table} WHERE false")).await?;
    }
    tx.rollback().await?;
    Ok(())
}
