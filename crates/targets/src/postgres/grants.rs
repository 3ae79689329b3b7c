//! Group roles and their rights: on each schema, table, view and sequence that is there, and by default privileges on those
//! that will be. Only what is missing is granted, so it can run at every request and every few seconds.

use super::{Postgres, group};
use crate::TargetError;
use daypass_core::{environment::Grants, ids::EnvironmentId, names::DatabaseName, pass::Access};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, GenericClient};

/// For so long, what was granted is not looked at again.
const FRESH: Duration = Duration::from_secs(1);

/// Sees to it that the group of `access` exists and has its rights; none: both groups, if they exist. With [`Grants::Predefined`]
/// the group only opens the database; the rest comes from the server's own roles.
pub async fn ensure(target: &Postgres, environment: EnvironmentId, database: &DatabaseName, access: Option<Access>, grants: Grants) -> Result<(), TargetError> {
    let mut granted = target.granting.lock().await;
    let now = Instant::now();
    granted.retain(|_, at| now.duration_since(*at) < FRESH);
    // many who come together need it once
    if access.is_some_and(|access| granted.contains_key(&(environment, access))) {
        return Ok(());
    }
    let mut client = target.connect(database.as_str()).await?;
    for level in [Access::Read, Access::ReadWrite] {
        let name = group(environment, level);
        let exists: bool = client.query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", &[&name]).await?.try_get(0)?;
        if !exists && access != Some(level) {
            continue;
        }
        let tx = client.transaction().await?;
        if !exists {
            create(&tx, &name, target.store.to_string()).await?;
        }
        grant_missing(&tx, &name, level, grants).await?;
        tx.commit().await?;
    }
    if let Some(access) = access {
        let ways = ways_to_create(&client, &group(environment, access)).await?;
        if !ways.is_empty() {
            return Err(TargetError::Refused(format!(
                "accounts of {database} could create functions there that others then run: nobody gets one before that is closed. In {database}: {}",
                ways.join("; ")
            )));
        }
        granted.insert((environment, access), now);
    }
    Ok(())
}

/// The statements that keep everybody, and the group `$1`, from making anything that lasts.
const WAYS_TO_CREATE: &str = "
SELECT format('REVOKE CREATE ON SCHEMA %I FROM %s', n.nspname, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END)
  FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x
 WHERE x.privilege_type = 'CREATE' AND n.nspname !~ '^pg_(toast_)?temp' AND (x.grantee = 0 OR pg_get_userbyid(x.grantee) = $1)
UNION ALL
SELECT format('REVOKE CREATE ON DATABASE %I FROM %s', d.datname, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END)
  FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
 WHERE x.privilege_type = 'CREATE' AND d.datname = current_database() AND (x.grantee = 0 OR pg_get_userbyid(x.grantee) = $1)";

pub async fn ways_to_create(client: &Client, group: &str) -> Result<Vec<String>, TargetError> {
    Ok(client.query(WAYS_TO_CREATE, &[&group]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

async fn create(tx: &impl GenericClient, name: &str, store: String) -> Result<(), TargetError> {
    // another request may have made it since we looked
    let exists: bool = tx.query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", &[&name]).await?.try_get(0)?;
    if !exists {
        let role = escape_identifier(name);
        let comment = escape_literal(&format!("daypass group {store}"));
        tx.batch_execute(&format!("CREATE ROLE {role} NOLOGIN; COMMENT ON ROLE {role} IS {comment}")).await?;
    }
    Ok(())
}

/// The statements that are missing, written by the server itself with `format('%I')`: no name is quoted by us, so none can
/// break out. Objects whose owner the administrator does not belong to are left alone; `env test` names them.
const MISSING: &str = "
WITH me AS (SELECT oid AS grp FROM pg_roles WHERE rolname = $1),
ours AS (SELECT n.oid, n.nspname, n.nspowner FROM pg_namespace n
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
owners AS (SELECT DISTINCT owner FROM (
             SELECT nspowner AS owner FROM ours
             UNION SELECT c.relowner FROM pg_class c JOIN ours ON ours.oid = c.relnamespace
             UNION SELECT datdba FROM pg_database WHERE datname = current_database()) o
           WHERE pg_has_role(current_user, owner, 'USAGE') AND pg_get_userbyid(owner) !~ '^(jit|pg|daypass)_')
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, $1) FROM ours, me
 WHERE NOT has_schema_privilege(grp, ours.oid, 'USAGE') AND pg_has_role(current_user, nspowner, 'USAGE')
UNION ALL
SELECT format('GRANT %s ON TABLE %I.%I TO %I', $2::text, nspname, relname, $1) FROM pg_class c JOIN ours ON ours.oid = relnamespace, me
 WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_has_role(current_user, relowner, 'USAGE')
   AND EXISTS (SELECT FROM unnest(string_to_array($2::text, ', ')) p WHERE NOT has_table_privilege(grp, c.oid, p))
UNION ALL
SELECT format('GRANT %s ON SEQUENCE %I.%I TO %I', $3::text, nspname, relname, $1) FROM pg_class c JOIN ours ON ours.oid = relnamespace, me
 WHERE relkind = 'S' AND pg_has_role(current_user, relowner, 'USAGE')
   AND EXISTS (SELECT FROM unnest(string_to_array($3::text, ', ')) p WHERE NOT has_sequence_privilege(grp, c.oid, p))
UNION ALL
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT %s ON %s TO %I', pg_get_userbyid(owner), rights, kind, $1)
  FROM owners, me, (VALUES ('USAGE', 'SCHEMAS', 'n'), ($2::text, 'TABLES', 'r'), ($3::text, 'SEQUENCES', 'S')) AS d (rights, kind, letter)
 WHERE NOT EXISTS (SELECT FROM pg_default_acl a, aclexplode(a.defaclacl) x
                    WHERE a.defaclrole = owner AND a.defaclnamespace = 0 AND a.defaclobjtype = letter::\"char\" AND x.grantee = grp)";

const MISSING_CONNECT: &str = "
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1::text) FROM pg_roles
 WHERE rolname = $1::text AND NOT has_database_privilege(oid, current_database(), 'CONNECT')";

async fn grant_missing(tx: &impl GenericClient, name: &str, access: Access, grants: Grants) -> Result<(), TargetError> {
    let (tables, sequences) = match access {
        Access::Read => ("SELECT", "SELECT"),
        Access::ReadWrite => ("SELECT, INSERT, UPDATE, DELETE", "USAGE, SELECT, UPDATE"),
    };
    let mut rows = tx.query(MISSING_CONNECT, &[&name]).await?;
    if grants == Grants::Granted {
        rows.extend(tx.query(MISSING, &[&name, &tables, &sequences]).await?);
    }
    let statements: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if !statements.is_empty() {
        tx.batch_execute(&statements.join(";\n")).await?;
    }
    Ok(())
}

/// The groups of an environment that no account will belong to. Their rights go with them.
pub async fn forget(target: &Postgres, environment: EnvironmentId, database: &DatabaseName) -> Result<(), TargetError> {
    let mut granted = target.granting.lock().await;
    granted.clear();
    let client = target.connect(database.as_str()).await?;
    for access in [Access::Read, Access::ReadWrite] {
        let name = group(environment, access);
        if client.query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&name]).await?.is_some() {
            let role = escape_identifier(&name);
            let here = escape_identifier(database.as_str());
            // DROP OWNED is for members only, and takes back what the owner granted, not what the administrator did
            client
                .batch_execute(&format!("GRANT {role} TO CURRENT_USER; REVOKE CONNECT ON DATABASE {here} FROM {role}; DROP OWNED BY {role}; DROP ROLE {role}"))
                .await?;
        }
    }
    Ok(())
}

/// The least that an administrator role needs, as SQL to paste.
pub fn recipe(admin: &str, database: &str, owner: &str) -> String {
    let (admin_id, database, owner) = (escape_identifier(admin), escape_identifier(database), escape_identifier(owner));
    format!(
        "-- As a superuser (or the provider's administrator). PostgreSQL 13 to 18; the role is no superuser.\n\
         CREATE ROLE {admin_id} LOGIN CREATEROLE PASSWORD 'choose-one';\n\
         GRANT pg_signal_backend TO {admin_id};            -- to end sessions of accounts whose time is over\n\
         -- whoever owns the tables: to grant rights on them, and for scripts of yours that are to run after a movement\n\
         GRANT {owner} TO {admin_id} WITH ADMIN OPTION;\n\
         GRANT CONNECT ON DATABASE {database} TO {admin_id} WITH GRANT OPTION;\n\
         -- only if Daypass is to move the database (daypass move); its owner is {owner}, as above:\n\
         ALTER ROLE {admin_id} CREATEDB;\n\
         -- so that an account of this database opens no other one:\n\
         REVOKE CONNECT ON DATABASE {database} FROM PUBLIC;\n\
         -- so that nobody who is let in leaves functions behind that others run; a database born on PostgreSQL 14 or before needs it:\n\
         -- in {database}: REVOKE CREATE ON SCHEMA public FROM PUBLIC;\n\
         -- in pg_hba.conf: let the administrator and accounts (whose names begin with jit_) in from the gateway's address only, by password\n\
         -- hostssl  all  all  <address of the gateway>/32  scram-sha-256\n"
    )
}
