//! What would stand in the way of a movement, looked for before anything is done: one row an obstacle, each with the statement that helps. The
//! rows that can come and go are looked at once more before anybody's access ends.

use super::{MAINTENANCE, Postgres, connect, copy, masks, owner, personal, server, tools::Programs};
use crate::{
    AnyTarget, Check, TargetError, Verdict,
    movement::{Move, Source},
    some_of,
};
use tokio_postgres::Client;

/// One kind of obstacle: the server names each that it finds, and what helps.
struct Row {
    /// When there is none.
    fine: &'static str,
    /// What those that are found do.
    does: &'static str,
    verdict: Verdict,
    /// It may be gone by itself when the time of the exchange has come, which waits for that: no reason not to prepare.
    may_go: bool,
    /// Gives a name and a statement for each; $1 is the database.
    look: &'static str,
}

/// What keeps the names from being exchanged (PostgreSQL manual, ALTER DATABASE: nobody may be connected), in the database of before.
const EXCHANGE: &[Row] = &[
    Row {
        // what kind of session it is, only some roles see (PostgreSQL manual, pg_stat_activity)
        fine: "nobody is connected whom the administrator may not end",
        does: "is connected, and only a superuser ends such a session",
        verdict: Verdict::Missing,
        may_go: true,
        look: "SELECT format('%s (process %s)', a.usename, a.pid), format('SELECT pg_terminate_backend(%s)', a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid \
               JOIN pg_roles me ON me.rolname = current_user WHERE a.datname = $1 AND coalesce(a.backend_type, 'client backend') = 'client backend' AND NOT me.rolsuper \
               AND (r.rolsuper OR NOT pg_has_role(me.oid, r.oid, 'USAGE') AND NOT pg_has_role(me.oid, 'pg_signal_backend', 'USAGE')) ORDER BY 1",
    },
    Row {
        fine: "no prepared transaction is open",
        does: "is a prepared transaction, which no end of a session ends",
        verdict: Verdict::Missing,
        may_go: false,
        look: "SELECT gid, format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = $1 ORDER BY 1",
    },
    Row {
        fine: "no subscription is applied here",
        does: "is a subscription whose worker is connected",
        verdict: Verdict::Missing,
        may_go: false,
        look: "SELECT s.subname, format('ALTER SUBSCRIPTION %I DISABLE', s.subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1 AND s.subenabled ORDER BY 1",
    },
    Row {
        fine: "nobody reads changes through a replication slot",
        does: "is a replication slot whose consumer is connected",
        verdict: Verdict::Missing,
        may_go: true,
        look: "SELECT slot_name, format('SELECT pg_terminate_backend(%s)', active_pid) FROM pg_replication_slots WHERE database = $1 AND active ORDER BY 1",
    },
    Row {
        fine: "no process of an extension is connected",
        does: "is connected and no session of a person",
        verdict: Verdict::Missing,
        may_go: true,
        look: "SELECT format('%s (process %s)', backend_type, pid), format('SELECT pg_terminate_backend(%s)', pid) FROM pg_stat_activity WHERE datname = $1 AND backend_type NOT IN \
               ('client backend', 'walsender', 'autovacuum worker', 'parallel worker') AND backend_type NOT LIKE 'logical replication%' ORDER BY 1",
    },
];

/// What else is worth a look in the database of before.
const BEFORE: &[Row] = &[
    Row {
        fine: "no replication slot would stay behind",
        does: "is a replication slot: it stays with the database that is put aside, and holds back the server's log until somebody drops it",
        verdict: Verdict::Note,
        may_go: false,
        look: "SELECT slot_name, format('SELECT pg_drop_replication_slot(%L)', slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active ORDER BY 1",
    },
    Row {
        fine: "nobody holds a lock on the database itself",
        does: "holds a lock on the database itself: the exchange waits for the end of that transaction, 30 seconds at most",
        verdict: Verdict::Note,
        may_go: false,
        look: "SELECT DISTINCT format('process %s', l.pid), format('SELECT pg_terminate_backend(%s)', l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.objid \
               WHERE d.datname = $1 AND l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.granted AND l.mode <> 'RowExclusiveLock' AND l.pid <> pg_backend_pid() ORDER BY 1",
    },
];

/// What keeps pg_dump from reading all of the source; the server's own copy beside itself asks for none of it.
const READING: &[Row] = &[
    Row {
        fine: "no event trigger of the source would have to be made",
        does: "is an event trigger, though off: only a superuser makes one, so that pg_restore refuses",
        verdict: Verdict::Missing,
        may_go: false,
        look: "SELECT e.evtname::text, format('DROP EVENT TRIGGER %I', e.evtname) FROM pg_event_trigger e WHERE $1 = current_database() AND e.evtenabled = 'D' \
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid) ORDER BY 1",
    },
    Row {
        fine: "row level security hides nothing of the source from the administrator",
        does: "has row level security that counts for the administrator, so that pg_dump refuses",
        verdict: Verdict::Missing,
        may_go: false,
        look: "SELECT c.oid::regclass::text, format('ALTER ROLE %I BYPASSRLS', current_user) FROM pg_class c WHERE c.relrowsecurity AND row_security_active(c.oid) AND $1 = current_database() ORDER BY 1",
    },
    Row {
        fine: "the administrator reads each table of the source",
        does: "cannot be read by the administrator",
        verdict: Verdict::Missing,
        may_go: false,
        look: "SELECT c.oid::regclass::text, format('GRANT %I TO %I', pg_get_userbyid(c.relowner), current_user) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p', 'S', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND $1 = current_database() \
               AND NOT (CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END) ORDER BY 1",
    },
];

/// The server's own copy would bring it along, and it would run as the administrator at the first thing that is done to the copy; and pg_restore,
/// which runs as no superuser, may not make it. Those of an extension are that extension's, which only superusers make as well.
const EVENTS: Row = Row {
    fine: "no event trigger of the source would run as the administrator",
    does: "is an event trigger that is on: pg_restore may not make it, and in the server's own copy it would run as the administrator",
    verdict: Verdict::Missing,
    may_go: false,
    look: "SELECT e.evtname::text, format('ALTER EVENT TRIGGER %I DISABLE', e.evtname) FROM pg_event_trigger e WHERE $1 = current_database() AND e.evtenabled <> 'D' \
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid) ORDER BY 1",
};

/// Extensions of the source; what of them the target's server has, and what a role that is no superuser may make, is asked there.
const EXTENSIONS: &str = "SELECT extname::text, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1";

impl Row {
    async fn look(&self, client: &Client, database: &str, softer: bool) -> Result<Check, TargetError> {
        let rows = client.query(self.look, &[&database]).await?;
        let column = |at: usize| rows.iter().map(|row| row.try_get::<_, String>(at)).collect::<Result<Vec<_>, _>>();
        let (found, helps) = (column(0)?, column(1)?);
        if found.is_empty() {
            return Ok(Check::fine(self.fine));
        }
        let verdict = if softer { Verdict::Note } else { self.verdict };
        Ok(Check { what: format!("{} {}", some_of(&found), self.does), verdict, remedy: format!("{};", some_of(&helps)) })
    }
}

/// All rows, for the dry run and before a movement begins. `source`: none where there is nothing to copy.
pub async fn look(target: &Postgres, movement: &Move<'_>, source: Option<&Source<'_>>) -> Result<Vec<Check>, TargetError> {
    let (admin, database) = (connect(target, MAINTENANCE).await?, movement.environment.spec.database.as_str());
    let mut checks = Vec::new();
    match owner(&admin, database).await {
        Ok(owner) => checks.push(Check::fine(format!("the database belongs to {owner}; the administrator makes and renames databases"))),
        Err(TargetError::Refused(why)) => checks.push(Check::missing("the database cannot be replaced by the administrator", why)),
        Err(other) => return Err(other),
    }
    let standby: bool = admin.query_one("SELECT pg_is_in_recovery()", &[]).await?.try_get(0)?;
    checks.push(Check::needs(!standby, "the server can be written to", "It is a standby: name the primary (daypass env set)."));
    for row in EXCHANGE {
        checks.push(row.look(&admin, database, row.may_go).await?);
    }
    for row in BEFORE {
        checks.push(row.look(&admin, database, false).await?);
    }
    if let Some(source) = source {
        checks.extend(of_source(&admin, movement, source).await?);
    }
    checks.push(room(&admin, database).await?);
    Ok(checks)
}

/// What would keep the names from being exchanged now.
pub async fn in_the_way(admin: &Client, database: &str) -> Result<Vec<Check>, TargetError> {
    let mut checks = Vec::new();
    for row in EXCHANGE {
        checks.push(row.look(admin, database, false).await?);
    }
    Ok(checks)
}

async fn of_source(admin: &Client, movement: &Move<'_>, source: &Source<'_>) -> Result<Vec<Check>, TargetError> {
    let (version, superuser) = server(admin).await?;
    let (from, template, beside) = match source {
        Source::Database { target: AnyTarget::Postgres(from), database, same_server } => (from, database.as_str(), *same_server),
        Source::Database { .. } => return Ok(vec![Check::missing("the source is of another engine", "Choose a source of the same engine.")]),
        Source::File(file) => {
            let programs = Programs::find(movement.tools, &[version]).await;
            return Ok(vec![tools(programs.as_ref().map(|programs| programs.version), false), file_row(programs.as_ref().ok(), file).await]);
        }
        Source::Server(_) => return Ok(vec![tools(Programs::find(movement.tools, &[version]).await.as_ref().map(|programs| programs.version), false)]),
    };
    let there = connect(from, MAINTENANCE).await?;
    let mut checks = Vec::new();
    let open = "SELECT datallowconn FROM pg_database WHERE datname = $1";
    match there.query_opt(open, &[&template]).await?.map(|row| row.try_get::<_, bool>(0)).transpose()? {
        Some(true) => checks.push(Check::fine(format!("the source {template} takes connections"))),
        Some(false) => {
            let helps = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true;", postgres_protocol::escape::escape_identifier(template));
            checks.push(Check::missing(format!("the source {template} takes no connections"), helps));
            return Ok(checks);
        }
        None => return Ok(vec![Check::missing(format!("there is no source {template} on {}", from.spec.host), "Name another, or see where it went.")]),
    }
    // the server's own copy is the way when nobody is connected to the source; then it needs none of this
    let beside = beside && copy::speaks_alike(admin, template, movement.environment.spec.database.as_str()).await?;
    let client = connect(from, template).await?;
    let from_version = server(&client).await?.0;
    checks.push(tools(Programs::find(movement.tools, &[version, from_version]).await.as_ref().map(|programs| programs.version), beside));
    checks.push(language(admin, &there, movement.environment.spec.database.as_str(), template).await?);
    for row in READING {
        checks.push(row.look(&client, template, beside).await?);
    }
    checks.push(EVENTS.look(&client, template, false).await?);
    checks.push(extensions(admin, &client, superuser, beside).await?);
    checks.extend(masked(from, template, &client, movement).await?);
    if movement.tools.jobs > 1 {
        checks.push(own_room(movement, &client, beside).await?);
    }
    Ok(checks)
}

fn tools(found: Result<i32, &TargetError>, beside: bool) -> Check {
    match found {
        Ok(version) => Check::fine(format!("pg_dump, pg_restore and psql {version} are here")),
        Err(why) if beside => Check::note(
            "the programs for a copy through Daypass are not here; the server copies by itself while nobody is connected to the source",
            why.to_string(),
        ),
        Err(why) => Check::missing("the programs for the copy are not here", why.to_string()),
    }
}

/// Bytes that are no text in the target's encoding fail in the middle of a copy, or land as they are.
async fn language(admin: &Client, there: &Client, database: &str, template: &str) -> Result<Check, TargetError> {
    let look = "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = $1";
    let here: String = admin.query_one(look, &[&database]).await?.try_get(0)?;
    let source: String = there.query_one(look, &[&template]).await?.try_get(0)?;
    Ok(match (here == source, here == "SQL_ASCII" || source == "SQL_ASCII") {
        (true, _) => Check::fine(format!("both databases are in {here}")),
        (false, true) => Check::missing(
            format!("the source is in {source} and the database in {here}: bytes would be taken for text that they are not"),
            "Convert the source to an encoding (dump it, restore it into a database of that encoding), and refresh from there.",
        ),
        (false, false) => Check::note(
            format!("the source is in {source} and the database in {here}: text is converted"),
            "What the target's encoding does not have stops the copy; nobody's access ends by that.",
        ),
    })
}

async fn extensions(admin: &Client, source: &Client, superuser: bool, beside: bool) -> Result<Check, TargetError> {
    let (mut absent, mut untrusted) = (Vec::new(), Vec::new());
    for row in source.query(EXTENSIONS, &[]).await? {
        let (name, version): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let look = "SELECT bool_or(trusted OR NOT superuser) FROM pg_available_extension_versions WHERE name = $1";
        match admin.query_one(look, &[&name]).await?.try_get::<_, Option<bool>>(0)? {
            None => absent.push(format!("{name} {version}")),
            Some(false) if !superuser => untrusted.push(name),
            Some(_) => {}
        }
    }
    Ok(match (absent.is_empty(), untrusted.is_empty()) {
        (true, true) => Check::fine("each extension of the source can be made here"),
        (false, _) => Check::missing(format!("the server does not have {}", some_of(&absent)), "Install it on the target's server, or drop it in the source."),
        (true, false) => Check {
            what: format!(
                "{} is made by superusers only: the copy can bring it only when the server makes it beside itself, while nobody is connected to the source",
                some_of(&untrusted)
            ),
            verdict: if beside { Verdict::Note } else { Verdict::Missing },
            remedy: "Refresh while nobody is connected to the source.".to_owned(),
        },
    })
}

/// Whether the declared masks fit what will be copied, and what of it nobody declared.
async fn masked(from: &Postgres, template: &str, source: &Client, movement: &Move<'_>) -> Result<Vec<Check>, TargetError> {
    let count = movement.environment.masks.len();
    let fit = match masks::Plan::of(source, movement).await {
        Ok(_) if count == 0 => None,
        Ok(_) => Some(Check::fine(format!("{count} declared masks fit the source"))),
        Err(TargetError::Refused(why)) => Some(Check::missing(why, format!("daypass env masks {} shows them.", movement.environment.spec.name))),
        Err(other) => return Err(other),
    };
    let left = personal::check(from, template, movement).await?;
    Ok(fit.into_iter().chain([left]).collect())
}

/// What the new database and those that are kept take. How much is free, a server of PostgreSQL does not say.
async fn room(admin: &Client, database: &str) -> Result<Check, TargetError> {
    let look = "SELECT pg_size_pretty(pg_database_size(d.oid)), (SELECT count(*) FROM pg_database WHERE starts_with(datname, $1 || '__old_')), \
                (SELECT coalesce(pg_size_pretty(sum(pg_database_size(oid))), '0 bytes') FROM pg_database WHERE starts_with(datname, $1 || '__old_')) FROM pg_database d WHERE d.datname = $1";
    let Some(row) = admin.query_opt(look, &[&database]).await? else {
        return Ok(Check::missing(format!("there is no database {database}"), "Name the database that is there: daypass env set"));
    };
    let (size, kept, of_kept): (String, i64, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(Check::fine(format!("room on the server: {database} takes {size} and is kept beside the new one; {kept} kept from before take {of_kept}")))
}

/// A copy of several tables at once lies on Daypass's own disk for a while.
async fn own_room(movement: &Move<'_>, source: &Client, beside: bool) -> Result<Check, TargetError> {
    let size: i64 = source.query_one("SELECT pg_database_size(current_database())", &[]).await?.try_get(0)?;
    let folder = movement.tools.work.ancestors().find(|folder| folder.exists());
    let Some(free) = folder.and_then(|folder| rustix::fs::statvfs(folder).ok()).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)) else {
        return Ok(Check::note("how much room is free for the copy on Daypass's own disk is not known", "See after it."));
    };
    let (size, mb) = (size.unsigned_abs(), |bytes: u64| bytes / 1_000_000);
    let what = format!("room on Daypass's own disk for a copy of several tables at once: about {} MB of {} MB that are free", mb(size), mb(free));
    Ok(match free > size {
        true => Check::fine(what),
        false if beside => Check::note(what, "With movement.jobs = 1 the copy goes through a pipe and needs no room."),
        false => Check::missing(what, "Make room, or set movement.jobs = 1: then the copy goes through a pipe and needs none."),
    })
}

async fn file_row(programs: Option<&Programs>, file: &std::path::Path) -> Check {
    match copy::inspect(programs, file).await {
        Ok(dump) => Check::fine(format!("the file is a dump that pg_restore reads, with the rows of {} tables", dump.tables)),
        Err(error) => Check::missing("the file cannot be imported", error.to_string()),
    }
}

/// The rows as docs/movement.md has them.
#[cfg(test)]
pub fn documented() -> String {
    let way = |rows: &'static [Row]| rows.iter().map(|row| (row, ""));
    let reading = READING.iter().map(|row| (row, " where pg_dump is the way, note where the server can copy by itself"));
    let all = way(EXCHANGE).chain(way(BEFORE)).chain(reading).chain([(&EVENTS, "")]);
    let line = |(row, when): (&Row, &str)| {
        let verdict = match row.verdict {
            _ if row.may_go => "note, then waited for *",
            Verdict::Note => "note",
            _ => "missing",
        };
        format!("| {} | {verdict}{when} |\n", row.fine)
    };
    all.map(line).collect()
}
