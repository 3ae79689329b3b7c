//! What came inside the copy is found and disabled before anybody is let in: rights of people who have no home here, passwords for other
//! servers, and what the operator's own scripts see to. What the database of before granted is granted again.

use super::{
    MAINTENANCE, Postgres, attributes, connect,
    copy::{give_each, hand_over, throw_away},
    literals, masks, owner, personal, refused,
    rights::{self, Right, Rights},
    server,
    tools::{Login, Programs, TOOLS},
};
use crate::{
    TargetError,
    movement::{Move, Scripts},
    programs::{Workshop, run, run_and_hear},
};
use daypass_core::movement::Swept;
use postgres_protocol::escape::escape_identifier;
use std::path::Path;
use tokio::process::Command;
use tokio_postgres::Client;

/// Sweeps the scratch database. `scripts` run in the order of their names, before anybody else may connect.
pub async fn sweep(target: &Postgres, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
    let (database, scratch) = (movement.environment.spec.database.as_str(), movement.names.scratch.as_str());
    let admin = connect(target, MAINTENANCE).await?;
    // whoever filled it may have set how names are resolved in it: that would count for whatever runs there from here on
    admin.batch_execute(&format!("ALTER DATABASE {} RESET ALL", escape_identifier(scratch))).await?;
    // scripts run with what counts when it is open; what cannot be carried over is said then
    attributes::settings(&admin, database, scratch).await?;
    let client = connect(target, scratch).await?;
    let mut swept = strangers(&admin, &client, &connect(target, database).await?, database, &owner(&admin, database).await?).await?;
    swept.extend(everybody(&client).await?);
    swept.extend(passwords(&client).await?);
    drop(client);
    swept.extend(scripts.skipped.iter().cloned());
    swept.extend(treat(target, &admin, movement, scripts).await?);
    rights::rehearse(&connect(target, database).await?, &connect(target, scratch).await?).await?;
    Ok(swept)
}

/// What was lent in the copy to whoever will own it: see `copy::lend_place`.
async fn take_place_back(new: &Client, owner: &str) -> Result<(), TargetError> {
    let lent = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) x WHERE n.nspname = 'public' AND n.nspowner <> x.grantee \
                AND x.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1))";
    if new.query_one(lent, &[&owner]).await?.try_get(0)? {
        new.batch_execute(&format!("REVOKE ALL ON SCHEMA public FROM {} CASCADE", escape_identifier(owner))).await?;
    }
    Ok(())
}

/// The rights of the database of before, as they are now that nobody is in it any more.
pub async fn carry_over(target: &Postgres, movement: &Move<'_>) -> Result<Vec<Swept>, TargetError> {
    let (database, scratch) = (movement.environment.spec.database.as_str(), movement.names.scratch.as_str());
    let admin = connect(target, MAINTENANCE).await?;
    let (owner, new) = (owner(&admin, database).await?, connect(target, scratch).await?);
    take_place_back(&new, &owner).await?;
    let mut report = rights::carry(&connect(target, database).await?, &new).await?;
    drop(new);
    report.extend(attributes::left_behind(target, database, scratch).await?);
    // who may connect comes last: until here it is nobody
    report.extend(attributes::carry(&admin, database, scratch, &owner).await?);
    Ok(report)
}

/// Takes every right in the copy from roles that have nothing in the database of before: accounts of passes of other environments
/// above all, and the people and programs of the source.
async fn strangers(admin: &Client, client: &Client, old: &Client, before: &str, owner: &str) -> Result<Vec<Swept>, TargetError> {
    let look = "SELECT DISTINCT r.rolname::text, coalesce(d.description LIKE 'daypass %', false) FROM pg_catalog.pg_shdepend s \
                JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
                LEFT JOIN pg_catalog.pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
                WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AND s.deptype = 'a' \
                ORDER BY 1";
    let mut here: Vec<(String, bool)> =
        client.query(look, &[]).await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, TargetError>>()?;
    // what is lent to whoever will own it is taken back in the end
    here.retain(|(name, _)| name != owner);
    let home = "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_shdepend s \
                JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
                WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = $1)";
    let home: Vec<String> = admin.query(home, &[&before]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    // rights are given anew by the database of before, so none of the copy's own are kept
    let (all, mut swept): (Vec<String>, Vec<Swept>) = (here.iter().map(|(name, _)| name.clone()).collect(), Vec::new());
    if !all.is_empty() {
        for sql in rights_of(client, &all).await? {
            client.batch_execute(&sql).await?;
        }
    }
    // the server's own roles (pg_monitor ...) stand in no list of dependencies
    for right in Rights::of(client).await?.of_somebody(owner) {
        let take = format!("{} CASCADE", right.take());
        if let Err(error) = client.batch_execute(&take).await {
            tracing::info!(%error, take, "a right in the copy could not be taken away");
        }
    }
    // what stays is no gain when the database of before gave it as well
    let known = Rights::of(old).await?;
    if let Some(right) = Rights::of(client).await?.of_somebody(owner).find(|right| !known.has(right)) {
        return Err(refused(format!(
            "{} is a right in the copy that the administrator cannot take away (somebody else than the owner gave it). Take it away in the source",
            right.words()
        )));
    }
    let left: Vec<String> = client.query(look, &[]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if let Some(name) = left.iter().find(|name| *name != owner && !home.contains(name)) {
        return Err(refused(format!(
            "{name} has rights in the copy that the administrator cannot take away (somebody else than the owner gave them). Take them away in the source, or refresh while somebody is connected there: then it is dumped without rights"
        )));
    }
    for (name, marked) in here {
        let what = match (marked, home.contains(&name)) {
            (true, _) if name.starts_with("jit_") => format!("day account {name} of another environment"),
            (true, _) => format!("rights of the Daypass group {name}"),
            (false, false) => format!("role {name}, which has nothing in the database of before"),
            (false, true) => continue,
        };
        swept.push(Swept { what, done: "its rights in the copy were taken away".to_owned() });
    }
    Ok(swept)
}

/// What everybody may do in the copy, and could not with something that was just made.
async fn everybody(client: &Client) -> Result<Option<Swept>, TargetError> {
    let rights = Rights::of(client).await?;
    let take: Vec<String> = rights.of_everybody().map(Right::take).collect();
    if take.is_empty() {
        return Ok(None);
    }
    client.batch_execute(&take.join("; ")).await?;
    Ok(Some(Swept { what: format!("{} rights of everybody in the source", take.len()), done: "taken away".to_owned() }))
}

/// Roles that bear our mark, have rights in this database, and are neither its groups nor an account in one of them: they came inside a
/// copy. Their rights here are taken away.
pub async fn sweep_marked(target: &Postgres, store: &str, ours: &[String], database: &str) -> Result<Vec<Swept>, TargetError> {
    let server = connect(target, MAINTENANCE).await?;
    if !super::exists(&server, database).await? {
        return Ok(Vec::new());
    }
    drop(server);
    let client = connect(target, database).await?;
    let look = "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_shdepend s \
                JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
                JOIN pg_catalog.pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass \
                WHERE s.deptype = 'a' AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
                AND (d.description LIKE 'daypass ' || $1 || ' %' OR d.description = 'daypass group ' || $1) AND r.rolname <> ALL ($2) \
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname = ANY ($2)) \
                ORDER BY 1";
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let strangers: Vec<String> = client.query(look, &[&store, &ours]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if strangers.is_empty() {
        return Ok(Vec::new());
    }
    for sql in rights_of(&client, &strangers).await? {
        client.batch_execute(&sql).await?;
    }
    let what = |name: String| {
        if name.starts_with("jit_") { format!("day account {name} of another environment") } else { format!("rights of the Daypass group {name}") }
    };
    Ok(strangers.into_iter().map(|name| Swept { what: what(name), done: "its rights in the database were taken away".to_owned() }).collect())
}

/// The statements that take every right in this database from these roles, with what they have passed on, written by the server itself.
pub async fn rights_of(client: &Client, roles: &[String]) -> Result<Vec<String>, TargetError> {
    let statements = format!(
        "
WITH n AS (SELECT oid, nspname FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
 who AS (SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ({}))
SELECT pg_catalog.format(what, nspname, rolname) FROM n, who, (VALUES
  ('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I CASCADE'), ('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM %I CASCADE'),
  ('REVOKE ALL ON ALL ROUTINES IN SCHEMA %I FROM %I CASCADE'), ('REVOKE ALL ON SCHEMA %I FROM %I CASCADE')) AS w (what)",
        literals(roles)
    );
    let rows = client.query(&statements, &[]).await?;
    let mut all = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    all.extend(default_privileges(client, Some(roles)).await?);
    Ok(all)
}

/// The statements that take default privileges away: from these roles, or from everybody.
pub async fn default_privileges(client: &Client, from: Option<&[String]>) -> Result<Vec<String>, TargetError> {
    let look = "
SELECT DISTINCT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE ALL ON %s FROM %s', pg_catalog.pg_get_userbyid(a.defaclrole),
  coalesce((SELECT pg_catalog.format(' IN SCHEMA %I', nspname) FROM pg_catalog.pg_namespace WHERE oid = a.defaclnamespace), ''),
  CASE a.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END,
  CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END)
 FROM pg_catalog.pg_default_acl a, pg_catalog.aclexplode(a.defaclacl) x
 WHERE x.grantee <> a.defaclrole AND ($1::text[] IS NULL OR pg_catalog.pg_get_userbyid(x.grantee)::text = ANY ($1))";
    let rows = client.query(look, &[&from]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Passwords that the copy holds for other servers.
async fn passwords(client: &Client) -> Result<Vec<Swept>, TargetError> {
    let look = "SELECT usename::text, srvname::text FROM pg_catalog.pg_user_mappings ORDER BY 1, 2";
    let mut swept = Vec::new();
    for row in client.query(look, &[]).await? {
        let (user, server): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let whom = if user == "public" { "PUBLIC".to_owned() } else { escape_identifier(&user) };
        client.batch_execute(&format!("DROP USER MAPPING FOR {whom} SERVER {}", escape_identifier(&server))).await?;
        swept.push(Swept { what: format!("password of {user} for the foreign server {server}"), done: "removed".to_owned() });
    }
    Ok(swept)
}

/// The most of a script's words that go on record.
const MOST_SAID: usize = 1_500;

/// The masks and the operator's scripts in a database that is in place already.
pub async fn run_scripts(target: &Postgres, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
    let admin = connect(target, MAINTENANCE).await?;
    let mut swept = scripts.skipped.clone();
    swept.extend(treat(target, &admin, movement, scripts).await?);
    Ok(swept)
}

/// What is declared and written for this environment: masks, scripts, checks; and what nobody declared.
async fn treat(target: &Postgres, admin: &Client, movement: &Move<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
    let required = movement.masking.required && scripts.checks.is_empty();
    let workshop = Workshop::open(&movement.tools.work)?;
    let mut swept = with_scripts(target, admin, movement, &workshop, scripts).await?;
    swept.extend(personal::last_look(target, movement, required).await?);
    Ok(swept)
}

/// What a check may take.
const CHECK: &str = "-c default_transaction_read_only=on -c row_security=off -c statement_timeout=600s";

/// Masks, scripts and checks, as a throw-away role that owns what is in the copy and nothing else: what came inside the copy, a trigger for example, runs
/// as whoever sets it off, and gets no further than the database. In a database that another tool put in place it has the rights of the owner.
/// The role has one connection: a script that goes to another database (`\\c`) would need a second.
async fn with_scripts(target: &Postgres, admin: &Client, movement: &Move<'_>, workshop: &Workshop<'_>, scripts: &Scripts) -> Result<Vec<Swept>, TargetError> {
    let (names, database) = (movement.names, movement.environment.spec.database.as_str());
    let (owner, (version, superuser)) = (owner(admin, database).await?, server(admin).await?);
    let programs = if scripts.is_empty() { None } else { Some(Programs::find(movement.tools, &[version]).await?) };
    let (role, scratch) = (escape_identifier(&names.role), escape_identifier(names.scratch.as_str()));
    // one that was interrupted has left its role behind, and what it had made
    if admin.query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&names.role]).await?.is_some() {
        hand_over(target, admin, names.scratch.as_str(), &names.role, &owner).await?;
    }
    let password = throw_away(admin, &names.role, superuser, version).await?;
    admin.batch_execute(&format!("GRANT CONNECT, TEMPORARY, CREATE ON DATABASE {scratch} TO {role}")).await?;
    let in_place = names.scratch == movement.environment.spec.database;
    // all that is in the copy is the role's for as long as it takes, and nothing else is: who is the owner may change that role itself, and its other
    // databases. Where something cannot be given, as in a schema public that is a superuser's and closed, it acts as the owner
    let acting = in_place || !lend_all(target, names.scratch.as_str(), &names.role).await?;
    let options = if acting {
        let member = if version >= 16 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        admin.batch_execute(&format!("GRANT {} TO {role}{member}", escape_identifier(&owner))).await.map_err(|e| {
            let me = &target.spec.admin;
            let why = TargetError::from(e);
            refused(format!("scripts run with the rights of {owner} here, which {me} cannot lend ({why}): GRANT {owner} TO {me} WITH ADMIN OPTION"))
        })?;
        // what a script makes is the owner's
        format!("{TOOLS} -c role={}", owner.replace('\\', "\\\\").replace(' ', "\\ "))
    } else {
        TOOLS.to_owned()
    };
    let login = Login::to(target, workshop, "script", names.scratch.as_str(), Some((&names.role, &password)))?
        .with("DAYPASS_ENVIRONMENT", movement.environment.spec.name.as_str());
    let (running, checking) = (login.clone().with("PGOPTIONS", &options), login.with("PGOPTIONS", &format!("{options} {CHECK}")));
    let required = movement.masking.required && scripts.checks.is_empty();
    let ran = async {
        let plan = masks::Plan::of(&connect(target, names.scratch.as_str()).await?, movement).await?;
        let masker = masks::Masker { role: &names.role, password: &password, acting: acting.then_some(&owner) };
        let before = masks::before(target, movement, &plan, &masker).await?;
        let mut swept = masks::mask(target, movement, &plan, &masker).await?;
        end_all_of(admin, &names.role).await?;
        admin.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 1")).await?;
        if let Some(before) = before.as_ref().filter(|_| in_place) {
            // whatever becomes of the scripts, what was committed is known to be masked
            before.compare(required).await?;
        }
        for script in &scripts.run {
            swept.push(run_script(programs.as_ref(), &running, script).await?);
        }
        if !scripts.run.is_empty() || before.is_some() {
            swept.extend(views_anew(target, names.scratch.as_str()).await?);
        }
        if let Some(before) = before {
            swept.extend(before.compare(required).await?);
        }
        for check in &scripts.checks {
            swept.push(run_check(programs.as_ref(), &checking, check).await?);
        }
        // an index calls its function as whoever owns the table: that is still the role
        swept.extend(analyze(target, names.scratch.as_str()).await?);
        Ok(swept)
    };
    // whatever came of it: the role goes
    let ran = ran.await;
    let gone = hand_over(target, admin, names.scratch.as_str(), &names.role, &owner).await;
    ran.and_then(|swept| gone.map(|()| swept))
}

/// Gives this role all that is in the copy. False where something cannot be given.
async fn lend_all(target: &Postgres, scratch: &str, role: &str) -> Result<bool, TargetError> {
    let client = connect(target, scratch).await?;
    if let Err(error) = client.batch_execute(&format!("GRANT USAGE, CREATE ON SCHEMA public TO {}", escape_identifier(role))).await {
        tracing::debug!(%error, "the schema public of the copy is not the administrator's");
    }
    give_each(&client, role).await
}

/// Until this role has no connection any more: the server counts one that has just been closed for a moment.
async fn end_all_of(admin: &Client, role: &str) -> Result<(), TargetError> {
    let end = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
    super::until_gone(admin, end, role).await
}

/// A materialized view keeps the rows of before until somebody makes it anew.
async fn views_anew(target: &Postgres, scratch: &str) -> Result<Option<Swept>, TargetError> {
    let client = connect(target, scratch).await?;
    let look = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid";
    let views = client.query(look, &[]).await?.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    // first they are emptied, all of them: whichever reads another finds nothing of before in it, and an error until that one is filled
    for view in &views {
        client.batch_execute(&format!("REFRESH MATERIALIZED VIEW {view} WITH NO DATA")).await?;
    }
    let mut left: Vec<&String> = views.iter().collect();
    while !left.is_empty() {
        let (mut later, mut why) = (Vec::new(), None);
        for view in &left {
            if let Err(error) = client.batch_execute(&format!("REFRESH MATERIALIZED VIEW {view}")).await {
                why = Some(masks::without_values(view, &error));
                later.push(*view);
            }
        }
        if let Some(why) = why.filter(|_| later.len() == left.len()) {
            return Err(refused(format!("the materialized view {} holds what was there before the scripts, and cannot be made anew: {why}", left[0])));
        }
        left = later;
    }
    Ok((!views.is_empty()).then(|| Swept { what: format!("{} materialized views", views.len()), done: "made anew after the scripts".to_owned() }))
}

/// What the server knows of the values, for queries to be fast from the start, and nothing of values that scripts have changed.
async fn analyze(target: &Postgres, scratch: &str) -> Result<Option<Swept>, TargetError> {
    let client = connect(target, scratch).await?;
    client.batch_execute("ANALYZE").await?;
    // of a table without rows the server keeps what it knew
    let look = "SELECT DISTINCT pg_catalog.format('%I.%I', s.schemaname, s.tablename) FROM pg_catalog.pg_stats s JOIN pg_catalog.pg_namespace n ON n.nspname = s.schemaname \
                JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename \
                WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'm') AND c.reltuples = 0 ORDER BY 1";
    let known = client.query(look, &[]).await?.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    Ok((!known.is_empty()).then(|| Swept {
        what: format!("statistics of tables that are empty now: {}", crate::some_of(&known)),
        done: "KEPT by the server, with values of before: whoever may read the table sees them in pg_stats. Delete rows in the source, or drop and create the table in a script"
            .to_owned(),
    }))
}

fn psql(programs: Option<&Programs>, login: &Login, script: &Path) -> Result<Command, TargetError> {
    let programs = programs.ok_or_else(|| refused("psql is not here"))?;
    let mut command = programs.command("psql", login);
    command.args(["--no-psqlrc", "--no-password", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--file"]).arg(script);
    Ok(command)
}

fn name_of(script: &Path) -> String {
    script.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What the server says when GRANT or REVOKE did nothing: a warning, which is no failure to psql.
const NOTHING_DONE: [&str; 4] =
    ["no privileges were granted", "not all privileges were granted", "no privileges could be revoked", "not all privileges could be revoked"];

/// psql says how many rows each statement touched.
async fn run_script(programs: Option<&Programs>, login: &Login, script: &Path) -> Result<Swept, TargetError> {
    let name = name_of(script);
    let (said, warned) = run_and_hear(&format!("the script {name}"), psql(programs, login, script)?, None).await.map_err(|error| match error {
        TargetError::Refused(why) if why.contains("too many connections for role") => {
            refused(format!("{why} (a script stays in its database and its session: \\c and the like are not for it)"))
        }
        other => other,
    })?;
    if let Some(warning) = warned.lines().find(|line| NOTHING_DONE.iter().any(|nothing| line.contains(nothing))) {
        return Err(refused(format!(
            "the script {name}: {} (rights on the database itself and on the schema public are not its to give or to take; those of the database of before are carried over)",
            warning.trim()
        )));
    }
    let said = said.trim();
    let done = match said.chars().count() {
        0 => "ran, and said nothing".to_owned(),
        n if n > MOST_SAID => format!("ran: {} … ({n} characters in all)", said.chars().take(MOST_SAID).collect::<String>()),
        _ => format!("ran: {said}"),
    };
    Ok(Swept { what: format!("script {name}"), done })
}

async fn run_check(programs: Option<&Programs>, login: &Login, check: &Path) -> Result<Swept, TargetError> {
    let name = name_of(check);
    let mut command = psql(programs, login, check)?;
    command.args(["--quiet", "--tuples-only", "--no-align"]);
    let rows = run(&format!("the check {name}"), command, None).await?;
    let rows = rows.trim();
    if !rows.is_empty() {
        let shown: String = rows.chars().take(MOST_SAID / 3).collect();
        return Err(refused(format!("the check {name} found what should not be there, and the new database does not open: {shown}")));
    }
    Ok(Swept { what: format!("check {name}"), done: "found nothing".to_owned() })
}
