//! What stands in the `sys` views, as tables that are made anew when a query asks for one: their columns are the documented ones, and their rows
//! those that the asker may see.

use super::{
    documented::{Edition, Sees, VIEWS},
    reply::Value,
    state::{Database, State, key},
};

/// Name, columns, rows.
pub type View = (&'static str, Vec<&'static str>, Vec<Vec<Value>>);

/// Who asks, and from where.
pub struct Asker<'a> {
    pub login: &'a str,
    pub session: u16,
    pub database: &'a str,
    pub edition: Edition,
    /// An engine that speaks TDS and is not SQL Server: it lacks a column.
    pub sparse: bool,
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn number(number: impl Into<i64>) -> Value {
    Value::Integer(number.into())
}

/// A row: what stands in which column; NULL in all others.
type Row = Vec<(&'static str, Value)>;

/// All views that there are.
pub fn views(state: &State, asker: &Asker<'_>) -> Vec<View> {
    let there = VIEWS.iter().filter(|view| view.on.has(asker.edition));
    there
        .map(|view| {
            let lacks = |column: &str| asker.sparse && column == "service_broker_guid";
            let columns: Vec<&'static str> = view.columns.iter().map(|(name, ..)| *name).filter(|name| !lacks(name)).collect();
            let rows = rows(state, asker, view.name).into_iter().filter(|row| sees(state, asker, view.name, view.sees, row));
            let place =
                |row: Row| columns.iter().map(|column| row.iter().find(|(name, _)| name == column).map_or(Value::Null, |(_, value)| value.clone())).collect();
            (view.name, columns.clone(), rows.map(place).collect())
        })
        .collect()
}

/// Whether the asker may see a row.
fn sees(state: &State, asker: &Asker<'_>, view: &str, rule: Sees, row: &Row) -> bool {
    let of = |column: &str| row.iter().find(|(name, _)| *name == column).and_then(|(_, value)| value.text()).unwrap_or_default();
    let is_me = |name: &str| key(name) == key(asker.login);
    match rule {
        Sees::Anybody | Sees::Databases => true,
        Sees::Logins => state.may(asker.login, "ALTER ANY LOGIN") || is_me(&of("name")) || of("name") == "sa" || of("type") == "R",
        Sees::Files => ["CREATE ANY DATABASE", "ALTER ANY DATABASE", "VIEW ANY DEFINITION"].iter().any(|right| state.may(asker.login, right)),
        Sees::Sessions | Sees::Connections => sees_sessions(state, asker) || of("session_id") == asker.session.to_string(),
        Sees::Own => {
            let Some(db) = state.databases.get(&key(asker.database)) else { return false };
            let me = db.user_of(state.logins.get(&key(asker.login)), asker.login);
            if me.is_some_and(|me| db.is_member(&me.name, "db_owner")) {
                return true;
            }
            let mine = |column: &str| me.is_some_and(|me| of(column) == me.id.to_string());
            match view {
                "database_principals" => mine("principal_id") || of("type") == "R" || of("name") == "dbo",
                "database_role_members" => mine("member_principal_id"),
                "database_permissions" => mine("grantee_principal_id"),
                // who may connect has a permission on the database
                "extended_properties" => of("class") == "0" || mine("major_id"),
                _ => false,
            }
        }
    }
}

/// Whether all sessions are shown, and those of others.
pub fn sees_sessions(state: &State, asker: &Asker<'_>) -> bool {
    if asker.edition != Edition::Azure {
        let since_2022 = matches!(asker.edition, Edition::Server(2022..) | Edition::Managed) && state.may(asker.login, "VIEW SERVER PERFORMANCE STATE");
        return since_2022 || state.may(asker.login, "VIEW SERVER STATE");
    }
    state.may(asker.login, "*") || owns(state, asker.login, asker.database)
}

/// Whether somebody is a member of `db_owner` in a database.
pub fn owns(state: &State, login: &str, database: &str) -> bool {
    let owner = |db: &Database| db.user_of(state.logins.get(&key(login)), login).is_some_and(|user| db.is_member(&user.name, "db_owner"));
    state.databases.get(&key(database)).is_some_and(owner)
}

fn rows(state: &State, asker: &Asker<'_>, view: &str) -> Vec<Row> {
    let azure = asker.edition == Edition::Azure;
    let databases = state.databases.values();
    // a database of Azure shows its own sessions only
    let sessions = state.sessions.iter().filter(|(_, s)| !azure || s.database.eq_ignore_ascii_case(asker.database));
    match view {
        "databases" => databases
            .map(|db| {
                let user_access = i64::from(db.single_user);
                let marked = |column: &str| number(i64::from(db.marks.contains(column)));
                vec![
                    ("name", text(&db.name)),
                    // on Azure this is not the number that DB_ID() and other views say
                    ("database_id", number(if azure { db.id + 1_000 } else { db.id })),
                    ("create_date", text(&db.created)),
                    ("state", number(if db.offline { 6 } else { 0 })),
                    ("state_desc", text(if db.offline { "OFFLINE" } else { "ONLINE" })),
                    ("user_access", number(user_access)),
                    ("user_access_desc", text(if db.single_user { "SINGLE_USER" } else { "MULTI_USER" })),
                    ("is_read_only", number(0)),
                    ("is_auto_update_stats_async_on", number(i64::from(db.statistics_async))),
                    ("is_trustworthy_on", number(i64::from(db.trustworthy))),
                    ("is_db_chaining_on", number(0)),
                    ("is_published", marked("is_published")),
                    ("is_merge_published", marked("is_merge_published")),
                    ("is_cdc_enabled", marked("is_cdc_enabled")),
                    ("group_database_id", if db.marks.contains("group_database_id") { text(db.guid.to_string().to_uppercase()) } else { Value::Null }),
                    ("service_broker_guid", text(db.broker.to_string().to_uppercase())),
                ]
            })
            .collect(),
        "database_recovery_status" => databases
            .map(|db| vec![("database_id", number(db.id)), ("database_guid", text(db.guid.to_string())), ("recovery_fork_guid", text(db.fork.to_string()))])
            .collect(),
        "master_files" => {
            databases.map(|db| vec![("database_id", number(db.id)), ("file_id", number(1)), ("type", number(0)), ("size", number(1_000))]).collect()
        }
        "sql_logins" => state.logins.values().map(|l| login(l)).collect(),
        "server_principals" => {
            let logins = state.logins.values().enumerate().map(|(n, l)| {
                let mut row = login(l);
                row.extend([("type", text("S")), ("principal_id", number(n as i64 + 10))]);
                row
            });
            let sysadmin =
                vec![("name", text("sysadmin")), ("sid", Value::Bytes(vec![3])), ("is_disabled", number(0)), ("type", text("R")), ("principal_id", number(3))];
            logins.chain([sysadmin]).collect()
        }
        "server_role_members" => {
            // whoever may do everything is a sysadmin
            let admins = state.logins.values().enumerate().filter(|(_, login)| login.rights.contains("*"));
            admins.map(|(n, _)| vec![("member_principal_id", number(n as i64 + 10)), ("role_principal_id", number(3))]).collect()
        }
        "dm_exec_sessions" => sessions
            .map(|(id, s)| {
                vec![
                    ("session_id", number(*id)),
                    ("login_name", text(&s.executes_as)),
                    ("original_login_name", text(&s.login)),
                    ("host_name", text(&s.host)),
                    ("program_name", text(&s.program)),
                    ("status", text("running")),
                    ("is_user_process", number(1)),
                    ("database_id", state.databases.get(&key(&s.database)).map_or(Value::Null, |db| number(db.id))),
                ]
            })
            .collect(),
        // whatever hangs here hangs in the middle
        "dm_exec_requests" => sessions.map(|(id, _)| vec![("session_id", number(*id)), ("percent_complete", Value::Real(40.0))]).collect(),
        "dm_exec_connections" => sessions.map(|(id, s)| vec![("session_id", number(*id)), ("client_net_address", text(s.address.to_string()))]).collect(),
        "firewall_rules" => rules(&state.rules),
        _ => match state.databases.get(&key(asker.database)) {
            Some(db) => rows_inside(db, view),
            None => Vec::new(),
        },
    }
}

fn login(login: &super::state::Login) -> Row {
    vec![("name", text(&login.name)), ("sid", Value::Bytes(login.sid.clone())), ("is_disabled", number(i64::from(login.disabled)))]
}

fn rows_inside(db: &Database, view: &str) -> Vec<Row> {
    let id = |name: &str| db.principals.get(&key(name)).map_or(Value::Null, |p| number(p.id));
    match view {
        "database_principals" => db
            .principals
            .values()
            .map(|p| {
                let way = match (&p.password, p.is_role) {
                    (Some(_), _) => 2,
                    (None, false) => 1,
                    (None, true) => 0,
                };
                vec![
                    ("name", text(&p.name)),
                    ("principal_id", number(p.id)),
                    ("type", text(if p.is_role { "R" } else { "S" })),
                    ("sid", Value::Bytes(p.sid.clone())),
                    ("owning_principal_id", id(&p.owner)),
                    ("authentication_type", number(way)),
                ]
            })
            .collect(),
        "triggers" => {
            let trigger =
                |(name, disabled): &(String, bool)| vec![("name", text(name)), ("parent_class", number(0)), ("is_disabled", number(i64::from(*disabled)))];
            db.triggers.iter().map(trigger).collect()
        }
        "database_role_members" => db.members.iter().map(|(role, member)| vec![("role_principal_id", id(role)), ("member_principal_id", id(member))]).collect(),
        "database_permissions" => db
            .permissions
            .iter()
            .map(|p| {
                let short = if p.name == "CONNECT" { "CO" } else { &p.name[..p.name.len().min(4)] };
                vec![
                    ("class", number(0)),
                    ("major_id", number(0)),
                    ("minor_id", number(0)),
                    ("grantee_principal_id", id(&p.grantee)),
                    ("grantor_principal_id", id(&p.grantor)),
                    ("type", text(short)),
                    ("permission_name", text(&p.name)),
                    ("state", text(if p.denied { "D" } else { "G" })),
                ]
            })
            .collect(),
        "schemas" => {
            let schema =
                |(n, (name, owner)): (usize, (&String, &String))| vec![("name", text(name)), ("schema_id", number(n as i64 + 1)), ("principal_id", id(owner))];
            db.schemas.iter().enumerate().map(schema).collect()
        }
        "extended_properties" => db
            .properties
            .iter()
            .map(|p| {
                let on = if p.class == 0 { number(0) } else { id(&p.on) };
                vec![("class", number(p.class)), ("major_id", on), ("minor_id", number(0)), ("name", text(&p.name)), ("value", text(&p.value))]
            })
            .collect(),
        "database_firewall_rules" => rules(&db.rules),
        _ => Vec::new(),
    }
}

fn rules(rules: &[(String, String, String)]) -> Vec<Row> {
    rules.iter().map(|(name, from, to)| vec![("name", text(name)), ("start_ip_address", text(from)), ("end_ip_address", text(to))]).collect()
}
