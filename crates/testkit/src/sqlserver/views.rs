//! The `sys` views that Daypass and its clients read, as tables that are made anew when a query asks for one.

use super::{
    reply::Value,
    state::{State, key},
};

/// Name, columns, rows.
pub type View = (&'static str, &'static [&'static str], Vec<Vec<Value>>);

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn number(number: impl Into<i64>) -> Value {
    Value::Integer(number.into())
}

/// All views, as somebody sees them from inside `database`. A sparse engine lacks some columns and some views.
pub fn views(state: &State, database: &str, sparse: bool, azure: bool) -> Vec<View> {
    let databases = state.databases.values();
    let mut all: Vec<View> = Vec::new();
    let mut rows: Vec<Vec<Value>> = databases
        .clone()
        .map(|db| {
            vec![
                text(&db.name),
                // on Azure this is not the number that DB_ID() and other views say
                number(if azure { db.id + 1_000 } else { db.id }),
                text(&db.created),
                number(if db.offline { 6 } else { 0 }),
                text(if db.offline { "OFFLINE" } else { "ONLINE" }),
                number(i64::from(db.single_user)),
                number(0),
                Value::Null,
                text(db.broker.to_string().to_uppercase()),
            ]
        })
        .collect();
    if sparse {
        rows.iter_mut().for_each(|row| row.truncate(8));
        all.push(("databases", &["name", "database_id", "create_date", "state", "state_desc", "user_access", "is_read_only", "source_database_id"], rows));
    } else {
        all.push((
            "databases",
            &["name", "database_id", "create_date", "state", "state_desc", "user_access", "is_read_only", "source_database_id", "service_broker_guid"],
            rows,
        ));
        let guids = databases.map(|db| vec![number(db.id), text(db.guid.to_string().to_uppercase()), text(db.fork.to_string().to_uppercase())]);
        if !azure {
            all.push(("database_recovery_status", &["database_id", "database_guid", "recovery_fork_guid"], guids.collect()));
        }
    }
    let logins = state.logins.values().map(|login| vec![text(&login.name), Value::Bytes(login.sid.clone()), number(i64::from(login.disabled))]);
    all.push(("sql_logins", &["name", "sid", "is_disabled"], logins.clone().collect()));
    let principals = logins.enumerate().map(|(n, mut login)| {
        login.extend([text("S"), number(n as i64 + 10)]);
        login
    });
    // whoever may do everything is a sysadmin
    let admins = state.logins.values().enumerate().filter(|(_, login)| login.rights.contains("*")).map(|(n, _)| vec![number(n as i64 + 10), number(3)]);
    let sysadmin = vec![text("sysadmin"), Value::Bytes(vec![3]), number(0), text("R"), number(3)];
    all.push(("server_principals", &["name", "sid", "is_disabled", "type", "principal_id"], principals.chain([sysadmin]).collect()));
    all.push(("server_role_members", &["member_principal_id", "role_principal_id"], admins.collect()));
    // a database of Azure shows its own sessions only
    let sessions = state.sessions.iter().filter(|(_, s)| !azure || s.database.eq_ignore_ascii_case(database));
    let rows = sessions.clone().map(|(id, s)| {
        vec![
            number(*id),
            text(&s.executes_as),
            text(&s.login),
            text(&s.host),
            text(&s.program),
            text("running"),
            text(&s.database),
            state.databases.get(&key(&s.database)).map_or(Value::Null, |db| number(db.id)),
        ]
    });
    all.push((
        "dm_exec_sessions",
        &["session_id", "login_name", "original_login_name", "host_name", "program_name", "status", "database_name", "database_id"],
        rows.collect(),
    ));
    // whatever hangs here hangs in the middle
    all.push(("dm_exec_requests", &["session_id", "percent_complete"], sessions.clone().map(|(id, _)| vec![number(*id), number(40)]).collect()));
    all.push(("master_files", &["database_id", "size"], state.databases.values().map(|db| vec![number(db.id), number(1_000)]).collect()));
    let rows = sessions.map(|(id, s)| vec![number(*id), text(s.address.to_string())]);
    all.push(("dm_exec_connections", &["session_id", "client_net_address"], rows.collect()));
    all.push(("firewall_rules", &["name", "start_ip_address", "end_ip_address"], rules(&state.rules)));
    let Some(db) = state.databases.get(&key(database)) else { return all };
    let id = |name: &str| db.principals.get(&key(name)).map_or(Value::Null, |p| number(p.id));
    let rows = db.principals.values().map(|p| {
        let way = match (&p.password, p.is_role) {
            (Some(_), _) => 2,
            (None, false) => 1,
            (None, true) => 0,
        };
        vec![text(&p.name), number(p.id), text(if p.is_role { "R" } else { "S" }), Value::Bytes(p.sid.clone()), id(&p.owner), number(way)]
    });
    all.push(("database_principals", &["name", "principal_id", "type", "sid", "owning_principal_id", "authentication_type"], rows.collect()));
    let rows = db.triggers.iter().map(|(name, disabled)| vec![text(name), number(0), number(i64::from(*disabled))]);
    all.push(("triggers", &["name", "parent_class", "is_disabled"], rows.collect()));
    let rows = db.members.iter().map(|(role, member)| vec![id(role), id(member)]);
    all.push(("database_role_members", &["role_principal_id", "member_principal_id"], rows.collect()));
    let rows = db.permissions.iter().map(|p| {
        let short = if p.name == "CONNECT" { "CO" } else { &p.name[..p.name.len().min(4)] };
        vec![number(0), number(0), number(0), id(&p.grantee), id(&p.grantor), text(short), text(&p.name), text(if p.denied { "D" } else { "G" })]
    });
    all.push((
        "database_permissions",
        &["class", "major_id", "minor_id", "grantee_principal_id", "grantor_principal_id", "type", "permission_name", "state"],
        rows.collect(),
    ));
    let rows = db.schemas.iter().enumerate().map(|(n, (name, owner))| vec![text(name), number(n as i64 + 1), id(owner)]);
    all.push(("schemas", &["name", "schema_id", "principal_id"], rows.collect()));
    let rows = db.properties.iter().map(|p| {
        let on = if p.class == 0 { number(0) } else { id(&p.on) };
        vec![number(p.class), on, text(&p.name), text(&p.value)]
    });
    all.push(("extended_properties", &["class", "major_id", "name", "value"], rows.collect()));
    all.push(("objects", &["name", "object_id", "schema_id", "principal_id", "parent_object_id", "type"], Vec::new()));
    all.push(("fulltext_catalogs", &["name", "principal_id"], Vec::new()));
    all.push(("database_firewall_rules", &["name", "start_ip_address", "end_ip_address"], rules(&db.rules)));
    all
}

fn rules(rules: &[(String, String, String)]) -> Vec<Vec<Value>> {
    rules.iter().map(|(name, from, to)| vec![text(name), text(from), text(to)]).collect()
}
