//! What others made on the server that opens a way into an environment's database.

use super::{MAINTENANCE, Postgres};
use crate::{Known, TargetError};
use daypass_core::{
    drift::{DriftKind, Finding},
    names::DatabaseName,
};
use postgres_protocol::escape::escape_identifier;

/// How the names of our groups begin.
const GROUP: &str = "daypass_";

/// Everybody: how PUBLIC is called in a finding.
const EVERYBODY: &str = "PUBLIC";

/// Everybody, with the right to make things in a schema.
const CREATES: &str = "PUBLIC (CREATE in a schema)";

/// Roles that may log in, members of roles that open data, rights of roles that are not the owner's, and databases open to everybody.
/// The server's own roles and ours are no findings.
pub async fn look(target: &Postgres, databases: &[DatabaseName], ours: &Known<'_>) -> Result<Vec<Finding>, TargetError> {
    let server = target.connect(MAINTENANCE).await?;
    let names: Vec<&str> = databases.iter().map(DatabaseName::as_str).collect();
    let mut found = Vec::new();
    // a superuser is how the server is run, and is no secret; everybody else who can log in is worth a look
    let logins = "SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolcanlogin AND r.rolname !~ '^pg_' AND r.oid <> 10 ORDER BY 1";
    for row in server.query(logins, &[]).await? {
        found.push(Finding { kind: DriftKind::Login, name: row.try_get(0)?, place: String::new() });
    }
    // who was made a member of one of our groups, of whoever owns a database, or of a role that reads or writes everything
    let members = "SELECT r.rolname::text, g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member \
                   JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE r.rolname !~ '^pg_' AND ((g.rolname LIKE 'daypass\\_%' AND g.rolname NOT LIKE '%\\_estate') \
                   OR g.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files') \
                   OR g.oid IN (SELECT datdba FROM pg_catalog.pg_database WHERE datname = ANY ($1))) ORDER BY 1, 2";
    for row in server.query(members, &[&names]).await? {
        found.push(Finding { kind: DriftKind::Member, name: row.try_get(0)?, place: row.try_get(1)? });
    }
    let open = "SELECT d.datname::text FROM pg_catalog.pg_database d, pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) x \
                WHERE d.datname = ANY ($1) AND x.grantee = 0 AND x.privilege_type = 'CONNECT' ORDER BY 1";
    for row in server.query(open, &[&names]).await? {
        found.push(Finding { kind: DriftKind::Privilege, name: EVERYBODY.to_owned(), place: row.try_get(0)? });
    }
    let everybody = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) x \
                     WHERE x.privilege_type = 'CREATE' AND x.grantee = 0 AND n.nspname !~ '^pg_(toast_)?temp')";
    let rights = "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass \
         WHERE s.deptype IN ('a', 'o') AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
         AND r.rolname NOT LIKE 'daypass\\_%' AND r.oid <> (SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 1";
    let there = "SELECT datname::text FROM pg_catalog.pg_database WHERE datname = ANY ($1) AND datallowconn";
    for row in server.query(there, &[&names]).await? {
        let database: String = row.try_get(0)?;
        let client = target.connect(&database).await?;
        if client.query_one(everybody, &[]).await?.try_get(0)? {
            found.push(Finding { kind: DriftKind::Privilege, name: CREATES.to_owned(), place: database.clone() });
        }
        for row in client.query(rights, &[]).await? {
            found.push(Finding { kind: DriftKind::Privilege, name: row.try_get(0)?, place: database.clone() });
        }
    }
    let ours = ours();
    let ours = |finding: &Finding| match finding.kind {
        // our own accounts are members of our own groups, and our groups of what the environment's way of granting says; any other membership of
        // one of ours is a finding
        DriftKind::Member if ours.contains(&finding.name) => finding.place.starts_with(GROUP),
        DriftKind::Member => finding.name.starts_with(GROUP) && finding.place.starts_with("pg_"),
        _ => ours.contains(&finding.name),
    };
    found.retain(|finding| finding.name != target.spec.admin && !ours(finding));
    Ok(found)
}

/// Ends one: the role stays, without what was found.
pub async fn end(target: &Postgres, finding: &Finding) -> Result<(), TargetError> {
    let server = target.connect(MAINTENANCE).await?;
    let (name, place) = (escape_identifier(&finding.name), escape_identifier(&finding.place));
    match finding.kind {
        DriftKind::Login => {
            server.batch_execute(&format!("ALTER ROLE {name} NOLOGIN")).await?;
            server.query("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1", &[&finding.name]).await?;
        }
        DriftKind::Member => server.batch_execute(&format!("REVOKE {place} FROM {name}")).await?,
        DriftKind::Privilege if finding.name == EVERYBODY => server.batch_execute(&format!("REVOKE CONNECT ON DATABASE {place} FROM PUBLIC")).await?,
        DriftKind::Privilege if finding.name == CREATES => {
            let client = target.connect(&finding.place).await?;
            for sql in super::grants::ways_to_create(&client, "").await? {
                client.batch_execute(&sql).await?;
            }
        }
        DriftKind::Privilege => {
            let client = target.connect(&finding.place).await?;
            for sql in super::movement::rights_of(&client, std::slice::from_ref(&finding.name)).await? {
                client.batch_execute(&sql).await?;
            }
            let owns = "SELECT count(*) FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid WHERE s.deptype = 'o' AND r.rolname = $1 \
                        AND s.refclassid = 'pg_catalog.pg_authid'::regclass \
                        AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
            let owned: i64 = client.query_one(owns, &[&finding.name]).await?.try_get(0)?;
            if owned > 0 {
                // whose they become is not for us to say
                return Err(TargetError::Refused(format!(
                    "{} owns {owned} objects in {}: in that database, REASSIGN OWNED BY {name} TO ...",
                    finding.name, finding.place
                )));
            }
        }
        DriftKind::Rule => return Err(TargetError::Refused("PostgreSQL has no firewall of its own".to_owned())),
    }
    Ok(())
}
