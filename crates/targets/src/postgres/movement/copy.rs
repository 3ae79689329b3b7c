//! Making the new database: as the server copies one beside another when it can, else with pg_dump and pg_restore as a role that
//! may do nothing but this and is gone afterwards.

use super::super::Use;
use super::{
    MAINTENANCE, Postgres, connect, exists, named, owner, refused, remove, rights, server,
    tools::{Login, Programs},
};
use crate::{
    AnyTarget, TargetError,
    movement::{Move, Progress, Source},
    programs::{Workshop, ended, listen, run, start},
};
use daypass_core::{movement::Made, names::DatabaseName};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use sha2::{Digest, Sha256};
use std::{path::Path, process::Stdio, sync::atomic::Ordering, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::Command,
};
use tokio_postgres::Client;

/// What of a dump has no place in another environment: who owned it and who might do what, and what reaches out by itself.
const FOREIGN: [&str; 5] = ["--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions", "--no-security-labels"];

/// Makes the scratch database. Nobody but the administrator can connect to it.
pub async fn copy(target: &Postgres, movement: &Move<'_>, source: &Source<'_>) -> Result<(), TargetError> {
    let (database, names) = (movement.environment.spec.database.as_str(), movement.names);
    let admin = named(target, MAINTENANCE, &names.role).await?;
    let owner = owner(&admin, database).await?;
    remove(&admin, names.scratch.as_str(), &names.role).await?;
    if exists(&admin, names.old.as_str()).await? {
        return Err(refused(format!("there already is a database {}", names.old)));
    }
    if let Source::Database { target: AnyTarget::Postgres(from), database: template, same_server: true } = source
        && speaks_alike(&admin, template.as_str(), database).await?
        && beside(target, &admin, from, template, movement, &owner).await?
    {
        return Ok(());
    }
    let workshop = Workshop::open(&movement.tools.work)?;
    let (version, superuser) = server(&admin).await?;
    let (login, from_version) = match source {
        Source::Database { target: AnyTarget::Postgres(from), database, .. } => {
            let client = connect(from, database.as_str()).await?;
            expect(&client, movement.progress).await?;
            (Some(Login::to(from, &workshop, "from", database.as_str(), None)?), server(&client).await?.0)
        }
        Source::Database { .. } => return Err(refused("the source is of another engine")),
        Source::Server(parameters) => (Some(Login::elsewhere(parameters, &workshop)?), version),
        Source::File(_) => (None, 0),
    };
    let programs = Programs::find(movement.tools, &[version, from_version]).await?;
    let password = scratch(&admin, database, names.scratch.as_str(), &names.role, superuser, version).await?;
    let into = Login::to(target, &workshop, "into", names.scratch.as_str(), Some((&names.role, &password)))?;
    match (source, login) {
        (Source::File(file), _) => {
            restore_file(&programs, &into, file, movement).await?;
            refuse(target, &programs, &into, &workshop, file, names.scratch.as_str(), (&names.role, &password)).await?;
        }
        (_, Some(from)) => {
            if movement.tools.jobs > 1 {
                in_parallel(&programs, &from, &into, &workshop, movement).await?;
            } else {
                through_a_pipe(&programs, &from, &into, movement.progress).await?;
            }
            let structure = workshop.0.join("structure.dump");
            let mut command = programs.command("pg_dump", &from);
            command.args(["--no-password", "--schema-only", "--format=custom", "--lock-wait-timeout=60s", "--file"]).arg(&structure);
            run("pg_dump", command, None).await?;
            refuse(target, &programs, &into, &workshop, &structure, names.scratch.as_str(), (&names.role, &password)).await?;
        }
        (_, None) => return Err(refused("there is nothing to copy from")),
    }
    hand_over(target, &admin, names.scratch.as_str(), &names.role, &owner).await
}

/// How much there is to copy: the tables with their rows.
async fn expect(client: &Client, progress: &Progress) -> Result<(), TargetError> {
    let look = "SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint, count(*) FROM pg_catalog.pg_class c \
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let row = client.query_one(look, &[]).await?;
    let (bytes, tables): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    progress.expect(bytes.unsigned_abs(), tables.unsigned_abs());
    Ok(())
}

/// The server's own copy. False when it is not possible here: somebody is connected to the source, or something in it can be given
/// to nobody else one by one.
async fn beside(target: &Postgres, admin: &Client, from: &Postgres, template: &DatabaseName, movement: &Move<'_>, owner: &str) -> Result<bool, TargetError> {
    let scratch = movement.names.scratch.as_str();
    // it would run as the administrator at the first thing that is done to the copy
    let watching = "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger e WHERE e.evtenabled <> 'D' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                    WHERE d.deptype = 'e' AND d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND d.objid = e.oid))";
    // one look into the source, over long before it is copied: while anybody is in it the server waits
    let watched: bool = {
        let client = connect(from, template.as_str()).await?;
        expect(&client, movement.progress).await?;
        client.query_one(watching, &[]).await?.try_get(0)?
    };
    if watched {
        tracing::info!("the source has an event trigger that is on; it is dumped and restored");
        movement.progress.reset();
        return Ok(false);
    }
    // the server would wait five seconds for them before it refuses
    let others = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = $1 AND usename <> current_user";
    let others: i64 = admin.query_one(others, &[&template.as_str()]).await?.try_get(0)?;
    if others > 0 {
        tracing::info!(others, "somebody is connected to the source; it is dumped and restored");
        movement.progress.reset();
        return Ok(false);
    }
    let (version, _) = server(admin).await?;
    let strategy = if version >= 15 { " STRATEGY FILE_COPY" } else { "" };
    // it is the administrator's, and shut, until it takes the name: whoever owns a database may connect to it, or let himself
    let sql = format!("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false{strategy}", escape_identifier(scratch), escape_identifier(template.as_str()),);
    // where the file system shares blocks between files, a copy of any size is there at once (PostgreSQL manual, file_copy_method, from 18 on)
    let cloned = async {
        admin.batch_execute("SET file_copy_method = clone").await?;
        let done = admin.batch_execute(&sql).await;
        admin.batch_execute("RESET file_copy_method").await?;
        done
    };
    let done = match if version >= 18 { Some(cloned.await) } else { None } {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            tracing::debug!(%error, "the server's file system shares no blocks; they are copied");
            admin.batch_execute(&sql).await
        }
        None => admin.batch_execute(&sql).await,
    };
    if let Err(error) = done {
        tracing::info!(%error, "the server cannot copy the database beside itself at the moment; it is dumped and restored");
        movement.progress.reset();
        return Ok(false);
    }
    close_to_strangers(admin, scratch).await?;
    lend_place(target, admin, scratch, owner).await?;
    let whole = movement.progress.total_bytes.load(Ordering::Relaxed);
    movement.progress.add_bytes(whole);
    let client = connect(target, scratch).await?;
    if !unpublished(&client).await? || !plain_rights(&client).await? || !give(&client, owner).await? {
        drop(client);
        tracing::info!("something in the copy has an owner that cannot be changed one by one; it is dumped and restored");
        remove(admin, scratch, &movement.names.role).await?;
        movement.progress.reset();
        return Ok(false);
    }
    Ok(true)
}

/// Publications belong to whoever reads the source; the way through the programs leaves them behind as well.
async fn unpublished(client: &Client) -> Result<bool, TargetError> {
    let look = "SELECT pg_catalog.format('DROP PUBLICATION %I', pubname) FROM pg_catalog.pg_publication";
    for row in client.query(look, &[]).await? {
        let sql: String = row.try_get(0)?;
        if let Err(error) = client.batch_execute(&sql).await {
            tracing::info!(%error, sql, "a publication of the copy could not be taken away");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes away the default privileges, which belong to the owners of the source, and says whether there are only such rights in the copy
/// as a sweep can take away.
async fn plain_rights(client: &Client) -> Result<bool, TargetError> {
    for sql in super::sweep::default_privileges(client, None).await? {
        if let Err(error) = client.batch_execute(&sql).await {
            tracing::info!(%error, sql, "a default privilege of the copy could not be taken away");
            return Ok(false);
        }
    }
    let others = "SELECT count(*) FROM pg_catalog.pg_shdepend s WHERE s.deptype = 'a' \
                  AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
                  AND s.classid NOT IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_namespace'::pg_catalog.regclass)";
    let others: i64 = client.query_one(others, &[]).await?.try_get(0)?;
    Ok(others == 0)
}

/// Everything that belongs to others becomes the owner's. `REASSIGN OWNED` would do the same to databases elsewhere on the server, so
/// each object is given by name, and written by the server itself. What is the owner's already stays as it is.
pub async fn give_each(client: &Client, owner: &str) -> Result<bool, TargetError> {
    let statements = "
WITH o AS (SELECT oid AS heir FROM pg_catalog.pg_roles WHERE rolname = $1::text),
 n AS (SELECT oid, nspname, nspowner FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
 ext AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e')
SELECT pg_catalog.format('ALTER SCHEMA %I OWNER TO %I', nspname, $1::text) FROM n, o
 WHERE nspname <> 'public' AND nspowner <> heir AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND objid = n.oid)
UNION ALL
SELECT pg_catalog.format('ALTER %s %I.%I OWNER TO %I',
  CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END,
  n.nspname, c.relname, $1::text)
 FROM o, pg_catalog.pg_class c JOIN n ON n.oid = c.relnamespace
 WHERE c.relowner <> heir AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
   AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')))
   AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = c.oid
     -- that a composite type is an extension's stands at the type, not at its relation
     OR classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND c.relkind = 'c' AND objid = c.reltype)
UNION ALL
SELECT pg_catalog.format('ALTER %s %I.%I(%s) OWNER TO %I', CASE p.prokind WHEN 'a' THEN 'AGGREGATE' ELSE 'ROUTINE' END,
  n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid), $1::text)
 FROM o, pg_catalog.pg_proc p JOIN n ON n.oid = p.pronamespace
 WHERE p.proowner <> heir AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND objid = p.oid)
UNION ALL
SELECT pg_catalog.format('ALTER %s %I.%I OWNER TO %I', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, n.nspname, t.typname, $1::text)
 FROM o, pg_catalog.pg_type t JOIN n ON n.oid = t.typnamespace
 WHERE t.typowner <> heir AND t.typtype IN ('d', 'e', 'r') AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND objid = t.oid)
UNION ALL
SELECT pg_catalog.format('ALTER LARGE OBJECT %s OWNER TO %I', oid, $1::text) FROM o, pg_catalog.pg_largeobject_metadata WHERE lomowner <> heir";
    let rows = client.query(statements, &[&owner]).await?;
    for row in rows {
        let sql: String = row.try_get(0)?;
        if let Err(error) = client.batch_execute(&sql).await {
            tracing::info!(%error, sql, "an object of the copy could not be given away");
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same; and nothing else is left that belongs to others.
async fn give(client: &Client, owner: &str) -> Result<bool, TargetError> {
    if !give_each(client, owner).await? {
        return Ok(false);
    }
    let left = "SELECT count(*) FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database d ON d.oid = s.dbid \
                WHERE d.datname = pg_catalog.current_database() AND s.deptype = 'o' AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
                AND s.refobjid <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) \
                AND pg_catalog.pg_get_userbyid(s.refobjid) <> 'pg_database_owner'";
    let left: i64 = client.query_one(left, &[&owner]).await?.try_get(0)?;
    Ok(left == 0)
}

/// Whether two databases of this server have the same encoding and the same rules of language: the server's own copy has those of the source,
/// and a movement leaves a database as it was.
pub async fn speaks_alike(admin: &Client, one: &str, other: &str) -> Result<bool, TargetError> {
    // which columns there are depends on the version; what a copy changes is left out
    let look = "SELECT count(DISTINCT pg_catalog.to_jsonb(d) - '{oid,datname,datdba,datistemplate,datallowconn,datconnlimit,datfrozenxid,datminmxid,dattablespace,datacl,datcollversion,dathasloginevt}'::text[]) \
                FROM pg_catalog.pg_database d WHERE datname IN ($1, $2)";
    Ok(admin.query_one(look, &[&one, &other]).await?.try_get::<_, i64>(0)? == 1)
}

/// A new database takes connections only when nobody but its owner, who is ours, may connect to it.
async fn close_to_strangers(admin: &Client, database: &str) -> Result<(), TargetError> {
    let name = escape_identifier(database);
    admin.batch_execute(&format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC")).await?;
    Ok(admin.batch_execute(&format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")).await?)
}

/// Whoever will own the database owns what is in it, and may make things in it, but not come in: see [`super::attributes::carry`].
async fn lend_place(target: &Postgres, admin: &Client, database: &str, owner: &str) -> Result<(), TargetError> {
    let heir = escape_identifier(owner);
    admin.batch_execute(&format!("GRANT CREATE, TEMPORARY ON DATABASE {} TO {heir}", escape_identifier(database))).await?;
    let client = connect(target, database).await?;
    // before 15 the schema is a superuser's, and everybody may, or nobody
    if let Err(error) = client.batch_execute(&format!("GRANT USAGE, CREATE ON SCHEMA public TO {heir}")).await {
        tracing::debug!(%error, "the schema public of the copy is not the administrator's");
    }
    Ok(())
}

/// An empty database with the language of the old one, and a role that may do nothing but fill it. Gives the role's password.
async fn scratch(admin: &Client, like: &str, name: &str, role: &str, superuser: bool, version: i32) -> Result<String, TargetError> {
    let password = throw_away(admin, role, superuser, version).await?;
    let quoted = escape_identifier(role);
    // where the locale of a database stands changed with the versions (system catalog pg_database)
    let column = if version >= 17 { "datlocale" } else { "daticulocale" };
    let locale = match version {
        15.. => format!(
            "CASE datlocprovider WHEN 'i' THEN pg_catalog.format(' LOCALE_PROVIDER icu ICU_LOCALE %L', {column}) \
             WHEN 'b' THEN pg_catalog.format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', {column}) ELSE '' END"
        ),
        _ => "''".to_owned(),
    };
    let look = format!(
        "SELECT pg_catalog.format('ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype) || {locale} \
         FROM pg_catalog.pg_database WHERE datname = $1"
    );
    let language: String = admin.query_one(&look, &[&like]).await?.try_get(0)?;
    admin.batch_execute(&format!("CREATE DATABASE {} TEMPLATE template0 OWNER {quoted} {language} ALLOW_CONNECTIONS false", escape_identifier(name))).await?;
    close_to_strangers(admin, name).await?;
    Ok(password)
}

/// A role for one movement. Gives its password.
pub async fn throw_away(admin: &Client, role: &str, superuser: bool, version: i32) -> Result<String, TargetError> {
    let password = format!("{:032x}{:032x}", uuid::Uuid::new_v4().as_u128(), uuid::Uuid::new_v4().as_u128());
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let quoted = escape_identifier(role);
    let with = if version >= 16 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    let mut sql = format!("CREATE ROLE {quoted} LOGIN PASSWORD {}; COMMENT ON ROLE {quoted} IS 'daypass movement';", escape_literal(&verifier));
    if !superuser {
        sql.push_str(&format!("GRANT {quoted} TO CURRENT_USER{with};"));
    }
    admin.batch_execute(&sql).await?;
    Ok(password)
}

/// What the throw-away role made becomes the owner's, and the role goes.
pub async fn hand_over(target: &Postgres, admin: &Client, scratch: &str, role: &str, owner: &str) -> Result<(), TargetError> {
    let client = connect(target, scratch).await?;
    // it owns nothing elsewhere: it was made for this
    let (quoted, heir) = (escape_identifier(role), escape_identifier(owner));
    // whoever is given an object may have to CREATE where it lies, and REASSIGN OWNED goes in the order of the catalog's pages: so places first
    let filled = "SELECT d.datdba = r.oid FROM pg_catalog.pg_database d, pg_catalog.pg_roles r WHERE d.datname = $1 AND r.rolname = $2";
    if admin.query_one(filled, &[&scratch, &role]).await?.try_get(0)? {
        admin.batch_execute(&format!("ALTER DATABASE {} OWNER TO CURRENT_USER", escape_identifier(scratch))).await?;
        lend_place(target, admin, scratch, owner).await?;
    }
    let places = "SELECT pg_catalog.format('ALTER SCHEMA %I OWNER TO %I', n.nspname, $2::text) FROM pg_catalog.pg_namespace n \
                  WHERE n.nspowner = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)";
    for row in client.query(places, &[&role, &owner]).await? {
        let sql: String = row.try_get(0)?;
        client.batch_execute(&sql).await?;
    }
    client.batch_execute(&format!("REASSIGN OWNED BY {quoted} TO {heir}; DROP OWNED BY {quoted}")).await?;
    // by the same words as it was given: which of ours counts as who gives it depends on them (PostgreSQL manual, GRANT, Notes)
    admin.batch_execute(&format!("REVOKE CONNECT ON DATABASE {} FROM {quoted}", escape_identifier(scratch))).await?;
    drop(client);
    admin.query("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1", &[&role]).await?;
    Ok(admin.batch_execute(&format!("DROP ROLE {quoted}")).await?)
}

fn dump(programs: &Programs, from: &Login) -> Command {
    let mut command = programs.command("pg_dump", from);
    command.args(["--no-password", "--compress=0", "--lock-wait-timeout=60s"]).args(FOREIGN);
    command
}

fn restore(programs: &Programs, into: &Login) -> Command {
    let mut command = programs.command("pg_restore", into);
    // the program takes the database from its arguments only; it is a name, and no secret
    command.args(["--no-password", "--verbose", "--exit-on-error", "--no-tablespaces", "--dbname", ""]).args(FOREIGN);
    command
}

/// What everybody is refused in the source, everybody is refused in the copy: rights of people stay behind with them, but not to carry over a
/// refusal is to give a right. `pg_restore` writes the statements, and the role that owns the copy executes them.
async fn refuse(
    target: &Postgres,
    programs: &Programs,
    into: &Login,
    workshop: &Workshop<'_>,
    dump: &Path,
    scratch: &str,
    (role, password): (&str, &str),
) -> Result<(), TargetError> {
    let mut command = programs.command("pg_restore", into);
    command.arg("--list").arg(dump);
    let list = run("pg_restore --list", command, None).await?;
    let wanted: Vec<&str> = list.lines().filter(|line| line.split_whitespace().nth(3) == Some("ACL")).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (chosen, sql) = (workshop.0.join("rights.list"), workshop.0.join("rights.sql"));
    tokio::fs::write(&chosen, wanted.join("\n")).await.map_err(|e| refused(format!("{}: {e}", chosen.display())))?;
    let mut command = programs.command("pg_restore", into);
    command.args(["--no-owner", "--use-list"]).arg(&chosen).arg("--file").arg(&sql).arg(dump);
    run("pg_restore", command, None).await?;
    let written = tokio::fs::read(&sql).await.map_err(|e| refused(format!("{}: {e}", sql.display())))?;
    let statements = rights::of_everybody_in(&String::from_utf8_lossy(&written));
    let mut config = target.config(scratch, Use::Work);
    let client = target.connect_with(config.user(role).password(password).clone()).await?;
    for statement in statements {
        // one statement, whatever stands in it: the extended protocol takes no more
        client.execute(&*statement, &[]).await.map_err(|e| {
            refused(format!(
                "what everybody is refused in the source could not be refused in the copy, where they would have it: {statement}: {}",
                TargetError::from(e)
            ))
        })?;
    }
    Ok(())
}

/// Dump and restore at once. Nothing is written down, and memory stays flat: bytes are handed on in pieces.
async fn through_a_pipe(programs: &Programs, from: &Login, into: &Login, progress: &Progress) -> Result<(), TargetError> {
    let mut command = dump(programs, from);
    command.arg("--format=custom");
    let mut dumping = start(command)?;
    let mut command = restore(programs, into);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut restoring = start(command)?;
    let (Some(out), Some(input), Some(dump_words), Some(restore_words)) =
        (dumping.stdout.take(), restoring.stdin.take(), dumping.stderr.take(), restoring.stderr.take())
    else {
        return Err(refused("the pipes of pg_dump and pg_restore are not there"));
    };
    let (passed, dump_said, restore_said) = tokio::join!(pass(out, input, progress, None), listen(dump_words, None), listen(restore_words, Some(progress)));
    let dumped = dumping.wait().await.map_err(|e| refused(format!("pg_dump: {e}")))?;
    let restored = restoring.wait().await.map_err(|e| refused(format!("pg_restore: {e}")))?;
    // when one fails the other breaks as well; the one that was first has the reason
    let (dumped, restored) = (ended("pg_dump", dumped, &dump_said), ended("pg_restore", restored, &restore_said));
    match (dumped, restored) {
        (Err(first), Ok(())) | (Ok(()), Err(first)) => Err(first),
        // a dump that cannot be written any more did not fail first
        (Err(TargetError::Refused(dump)), Err(TargetError::Refused(restore))) => Err(refused(if dump.contains("could not write") { restore } else { dump })),
        (Err(first), Err(_)) => Err(first),
        (Ok(()), Ok(())) => passed.map_err(|e| refused(format!("the copy broke off: {e}"))),
    }
}

/// Hands bytes on, counts them, and closes the receiver.
async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    progress: &Progress,
    mut digest: Option<&mut Sha256>,
) -> std::io::Result<()> {
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        if let Some(digest) = digest.as_deref_mut() {
            digest.update(&chunk[..n]);
        }
        to.write_all(&chunk[..n]).await?;
        progress.add_bytes(n as u64);
    }
}

/// Several tables at once: a dump in a folder, which takes room, then its restore.
async fn in_parallel(programs: &Programs, from: &Login, into: &Login, workshop: &Workshop<'_>, movement: &Move<'_>) -> Result<(), TargetError> {
    let (folder, jobs) = (workshop.0.join("dump"), movement.tools.jobs.to_string());
    let mut command = dump(programs, from);
    command.args(["--format=directory", "--jobs", &jobs, "--file"]).arg(&folder);
    let dumping = run("pg_dump", command, None);
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            movement.progress.bytes.store(size(&folder), Ordering::Relaxed);
        }
    };
    tokio::select! {
        done = dumping => done?,
        () = watching => String::new(),
    };
    movement.progress.bytes.store(size(&folder), Ordering::Relaxed);
    let mut command = restore(programs, into);
    command.args(["--jobs", &jobs]).arg(&folder);
    run("pg_restore", command, Some(movement.progress)).await.map(drop)
}

fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

/// What a dump is: custom format begins with these letters, a directory has a table of contents (pg_backup_archiver.h).
const CUSTOM: &[u8] = b"PGDMP";

/// A dump that can be restored.
pub struct Dump {
    is_folder: bool,
    bytes: u64,
    /// Tables with rows.
    pub tables: usize,
}

/// Looks whether a file is a dump that pg_restore reads, and how much is in it. Without the programs, its first bytes only.
pub async fn inspect(programs: Option<&Programs>, file: &Path) -> Result<Dump, TargetError> {
    let cannot = |e: std::io::Error| refused(format!("the file {} cannot be read: {e}", file.display()));
    let meta = tokio::fs::metadata(file).await.map_err(cannot)?;
    if meta.is_dir() {
        if !file.join("toc.dat").exists() {
            return Err(refused("this folder is no dump: it has no table of contents (pg_dump --format=directory makes one)"));
        }
        contained(file)?;
    } else {
        let (mut head, mut open) = (Vec::new(), tokio::fs::File::open(file).await.map_err(cannot)?.take(512));
        open.read_to_end(&mut head).await.map_err(cannot)?;
        if !head.starts_with(CUSTOM) {
            return Err(refused(format!(
                "this file is no dump in PostgreSQL's custom format: {}. Make it with pg_dump --format=custom or --format=directory",
                kind(&head)
            )));
        }
    }
    let Some(programs) = programs else { return Ok(Dump { is_folder: meta.is_dir(), bytes: meta.len(), tables: 0 }) };
    // the list is read first: a file that is damaged stops here
    let mut list = programs.alone("pg_restore");
    list.arg("--list").arg(file);
    let list = run("pg_restore --list", list, None).await?;
    let entries = |kind: &str| list.lines().filter(|line| !line.starts_with(';') && line.contains(kind)).count();
    let tables = entries(" TABLE DATA ");
    if tables > 0 && entries(" TABLE ") == tables {
        return Err(refused("this dump has rows and no tables: it was made with --data-only. Make a whole one"));
    }
    Ok(Dump { is_folder: meta.is_dir(), bytes: if meta.is_dir() { size(file) } else { meta.len() }, tables })
}

/// What a file looks like that is no dump, by its first bytes.
fn kind(head: &[u8]) -> &'static str {
    match head {
        [] => "it is empty",
        [0x1f, 0x8b, ..] => "it is packed by gzip; unpack it first",
        [b'P', b'K', 3, 4, ..] => "it is a zip file, or a BACPAC of SQL Server",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is packed by zstd; unpack it first",
        [0xfd, b'7', b'z', b'X', b'Z', ..] | [b'B', b'Z', b'h', ..] => "it is packed; unpack it first",
        _ if head.starts_with(b"TAPE") => "it is a backup of SQL Server",
        _ if head.starts_with(b"Salted__") || head.starts_with(b"age-encryption") || head.starts_with(b"-----BEGIN PGP") => "it is encrypted; decrypt it first",
        _ if head.get(257..262) == Some(b"ustar") => "it is a tar file, which is not taken",
        _ if std::str::from_utf8(&head[..head.len().min(200)]).is_ok() => {
            "it is text. A dump in plain SQL is not taken: to restore it is to execute whatever it says, as whoever restores it"
        }
        _ => "nobody here knows what it is",
    }
}

async fn restore_file(programs: &Programs, into: &Login, file: &Path, movement: &Move<'_>) -> Result<(), TargetError> {
    let cannot = |e: std::io::Error| refused(format!("the file {} cannot be read: {e}", file.display()));
    let dump = inspect(Some(programs), file).await?;
    movement.progress.expect(dump.bytes, dump.tables as u64);
    let mut command = restore(programs, into);
    if movement.tools.jobs > 1 || dump.is_folder {
        command.args(["--jobs", &movement.tools.jobs.max(1).to_string()]).arg(file);
        run("pg_restore", command, Some(movement.progress)).await?;
        movement.progress.bytes.store(movement.progress.total_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        return Ok(());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut restoring = start(command)?;
    let (Some(input), Some(words)) = (restoring.stdin.take(), restoring.stderr.take()) else { return Err(refused("the pipe of pg_restore is not there")) };
    let dump = tokio::fs::File::open(file).await.map_err(cannot)?;
    let (passed, said) = tokio::join!(pass(dump, input, movement.progress, None), listen(words, Some(movement.progress)));
    let status = restoring.wait().await.map_err(|e| refused(format!("pg_restore: {e}")))?;
    ended("pg_restore", status, &said)?;
    // it may stop reading before the end of the file when all is there
    passed.or_else(|e| if e.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(refused(format!("the restore broke off: {e}"))) })
}

/// Nothing in a dump's folder leads out of it: pg_restore opens whatever names stand in the tables of contents, and follows links.
fn contained(folder: &Path) -> Result<(), TargetError> {
    let cannot = |e: std::io::Error| refused(format!("the folder {} cannot be read: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if !entry.file_type().map_err(cannot)?.is_file() {
            return Err(refused(format!("{} in the dump is no plain file, and could lead out of its folder", entry.file_name().to_string_lossy())));
        }
        if entry.path().extension().is_some_and(|ending| ending == "toc") || entry.file_name() == "toc.dat" {
            let upward = leads_upward(std::io::BufReader::new(std::fs::File::open(entry.path()).map_err(cannot)?)).map_err(cannot)?;
            if upward {
                return Err(refused(format!("{} in the dump names a file that lies outside of its folder", entry.file_name().to_string_lossy())));
            }
        }
    }
    Ok(())
}

/// Whether `../` stands in it anywhere: without that a name cannot leave the folder that it is appended to.
fn leads_upward(from: impl std::io::BufRead) -> std::io::Result<bool> {
    let mut seen = [0; 3];
    for byte in from.bytes() {
        seen = [seen[1], seen[2], byte?];
        if seen == *b"../" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A dump of the database, in custom format; its size and digest are taken while it is written. Half a file has another name.
pub async fn export(target: &Postgres, movement: &Move<'_>, file: &Path) -> Result<Made, TargetError> {
    let cannot = |e: std::io::Error| refused(format!("the file {} cannot be written: {e}", file.display()));
    if file.exists() {
        return Err(refused("there already is a file of this name; choose another"));
    }
    let database = movement.environment.spec.database.as_str();
    let workshop = Workshop::open(&movement.tools.work)?;
    let version = {
        let client = connect(target, database).await?;
        expect(&client, movement.progress).await?;
        server(&client).await?.0
    };
    let programs = Programs::find(movement.tools, &[version]).await?;
    let mut command = programs.command("pg_dump", &Login::to(target, &workshop, "from", database, None)?);
    command.args(["--no-password", "--format=custom", "--lock-wait-timeout=60s"]);
    let part = movement.part(file);
    let mut options = tokio::fs::OpenOptions::new();
    let out = options.create_new(true).write(true).mode(0o600).open(&part).await.map_err(cannot)?;
    let keeping = out.try_clone().await.map_err(cannot)?;
    let mut dumping = start(command)?;
    let (Some(from), Some(words)) = (dumping.stdout.take(), dumping.stderr.take()) else { return Err(refused("the pipe of pg_dump is not there")) };
    let mut digest = Sha256::new();
    let (passed, said) = tokio::join!(pass(from, out, movement.progress, Some(&mut digest)), listen(words, None));
    let status = dumping.wait().await.map_err(|e| refused(format!("pg_dump: {e}")))?;
    let done = async {
        ended("pg_dump", status, &said)?;
        passed.map_err(cannot)?;
        keeping.sync_all().await.map_err(cannot)?;
        let bytes = keeping.metadata().await.map_err(cannot)?.len();
        // unlike a renaming, this takes the place of nothing
        tokio::fs::hard_link(&part, file).await.map_err(cannot)?;
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Made { bytes, sha256 })
    };
    let done = done.await;
    let _ = tokio::fs::remove_file(&part).await;
    done
}
