//! What an account or a group leaves behind. Nothing of it outlives the account with rights: what runs (functions, views, triggers, rules,
//! policies, expressions that call something) is dropped, with its text on record, so that a person can make it again as themselves; plain
//! data (tables, sequences, the schemas and types that they stand in, large objects) goes to a role of the environment that has no rights
//! and cannot log in. It is never given to whoever owns the database, nor to the administrator: code that changes its owner changes what
//! it may do. The database's owner becomes a *member* of that role, so that they can use what is left; a membership lends no rights upwards.

use super::{MAINTENANCE, Postgres, group, removal};
use crate::{Estate, TargetError};
use daypass_core::{ids::EnvironmentId, movement::Swept, names::DatabaseName, pass::Access};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::collections::HashSet;
use tokio_postgres::{Client, error::SqlState};

/// What of an account is listed at most, and how much text in all (bytes); a record is no inventory.
const MOST: usize = 50;
const TEXT: usize = 64 * 1024;
/// Things of one kind that are read at once, and large objects that change hands in one transaction: each takes a lock, and a server has room for
/// some thousands.
const AT_ONCE: usize = 1_000;
/// And that are asked for at once.
const ASKED: i64 = 100_000;

/// The role that gets plain data. Without an environment: of accounts that nobody knows any more.
pub fn of(environment: Option<EnvironmentId>) -> String {
    environment.map_or_else(|| "daypass_estate".to_owned(), |id| format!("daypass_{}_estate", id.uuid().simple()))
}

/// SQL that says whether an expression's text calls anything but what PostgreSQL's own tables use as defaults. Texts are written with
/// `search_path = pg_catalog`, so a name without a schema is one of the server's own.
fn calls(expression: &str) -> String {
    let steps = [
        // texts and quoted names, whichever begins first; then the widths of types
        ("''([^'']|'''')*''|\"([^\"]|\"\")*\"", "q"),
        ("\\m(character varying|varchar|character|bpchar|numeric|timestamp|time|bit varying|bit|interval)\\s*\\([0-9, ]+\\)", ""),
        // words of the language
        ("\\m(ANY|ALL|AND|OR|NOT|ARRAY|IN|CASE|WHEN|THEN|ELSE|IS|LIKE|ROW)\\s*\\(", "("),
        // functions that do nothing but answer
        (
            "(^|[^.a-zA-Z0-9_\"])(nextval|now|clock_timestamp|statement_timestamp|transaction_timestamp|timezone|gen_random_uuid|random|length|char_length|\
             lower|upper|btrim|abs|COALESCE|date_trunc|date_part|md5|to_char)\\s*\\(",
            "\\1(",
        ),
    ];
    let text = steps.iter().fold(format!("({expression})"), |text, (from, to)| {
        format!("pg_catalog.regexp_replace({text}, {}, {}, 'g')", quoted(&from.replace("''", "'")), quoted(to))
    });
    format!("{text} ~ '[a-zA-Z0-9_\"]\\s*\\('")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What runs, by kind: each query gives the statement that takes it away and the text that makes it, for the role `$1`. What hangs on tables
/// goes before what it calls.
fn code() -> Vec<String> {
    let own_table = "c.relowner = (SELECT oid FROM pg_roles WHERE rolname = $1) AND c.relkind IN ('r', 'p')";
    let mine = "s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.refclassid = 'pg_authid'::regclass \
                AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1) AND s.deptype = 'o'";
    let plain = "c.relowner = (SELECT oid FROM pg_roles WHERE rolname = $1) AND c.relkind IN ('r', 'p', 'S')";
    let default = calls("pg_get_expr(d.adbin, d.adrelid)");
    let check = calls("pg_get_expr(k.conbin, k.conrelid)");
    let of_domain = calls("t.typdefault");
    vec![
        format!(
            "SELECT format('DROP TRIGGER IF EXISTS %I ON %s CASCADE', t.tgname, t.tgrelid::regclass), pg_get_triggerdef(t.oid) \
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {own_table}"
        ),
        format!(
            "SELECT format('DROP RULE IF EXISTS %I ON %s CASCADE', r.rulename, r.ev_class::regclass), pg_get_ruledef(r.oid) \
             FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE {own_table}"
        ),
        format!(
            "SELECT format('DROP POLICY IF EXISTS %I ON %s', p.polname, p.polrelid::regclass), \
             format('CREATE POLICY %I ON %s USING (%s) WITH CHECK (%s)', p.polname, p.polrelid::regclass, \
             pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) \
             FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE {own_table}"
        ),
        // a stored column keeps what it holds; one that is computed at each read goes
        format!(
            "SELECT format('ALTER TABLE IF EXISTS %s ' || CASE a.attgenerated WHEN 's' THEN 'ALTER COLUMN %I DROP EXPRESSION IF EXISTS' ELSE 'DROP COLUMN IF EXISTS %I CASCADE' END, \
             c.oid::regclass, a.attname), format('column %I of %s GENERATED ALWAYS AS (%s)', a.attname, c.oid::regclass, pg_get_expr(d.adbin, d.adrelid)) \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attgenerated <> '' AND a.attinhcount = 0 AND {own_table}"
        ),
        format!(
            "SELECT format('ALTER TABLE IF EXISTS %s ALTER COLUMN %I DROP DEFAULT', c.oid::regclass, a.attname), \
             format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', c.oid::regclass, a.attname, pg_get_expr(d.adbin, d.adrelid)) \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attgenerated = '' AND {own_table} AND {default}"
        ),
        format!(
            "SELECT format('ALTER TABLE IF EXISTS %s DROP CONSTRAINT IF EXISTS %I CASCADE', c.oid::regclass, k.conname), \
             format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.oid::regclass, k.conname, pg_get_constraintdef(k.oid)) \
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'c' AND k.conislocal AND {own_table} AND {check}"
        ),
        // an index that computes runs what it computes with whenever the table is looked after
        format!(
            "SELECT CASE WHEN k.oid IS NULL THEN format('DROP INDEX IF EXISTS %s CASCADE', i.indexrelid::regclass) \
             ELSE format('ALTER TABLE IF EXISTS %s DROP CONSTRAINT IF EXISTS %I CASCADE', c.oid::regclass, k.conname) END, pg_get_indexdef(i.indexrelid) \
             FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('x', 'u', 'p') \
             WHERE (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) AND NOT x.relispartition AND {own_table}"
        ),
        format!(
            "SELECT format('ALTER DOMAIN %s DROP CONSTRAINT IF EXISTS %I CASCADE', t.oid::regtype, k.conname), \
             format('ALTER DOMAIN %s ADD CONSTRAINT %I %s', t.oid::regtype, k.conname, pg_get_constraintdef(k.oid)) \
             FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid WHERE t.typowner = (SELECT oid FROM pg_roles WHERE rolname = $1) AND k.contype = 'c' AND {check}"
        ),
        format!(
            "SELECT format('ALTER DOMAIN %s DROP DEFAULT', t.oid::regtype), format('ALTER DOMAIN %s SET DEFAULT %s', t.oid::regtype, t.typdefault) \
             FROM pg_type t WHERE t.typtype = 'd' AND t.typdefault IS NOT NULL AND t.typowner = (SELECT oid FROM pg_roles WHERE rolname = $1) AND {of_domain}"
        ),
        // rights that it gave on what it leaves are its own doing as well
        format!(
            "SELECT format('REVOKE ALL ON %s %s FROM %s CASCADE', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass, \
             CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END), \
             format('GRANT %s ON %s TO %s', x.privilege_type, c.oid::regclass, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END) \
             FROM pg_class c, aclexplode(c.relacl) x WHERE {plain} AND x.grantee <> c.relowner"
        ),
        "SELECT format('REVOKE ALL ON LARGE OBJECT %s FROM %s CASCADE', l.oid, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END), \
         format('GRANT %s ON LARGE OBJECT %s TO %s', x.privilege_type, l.oid, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END) \
         FROM pg_largeobject_metadata l, aclexplode(l.lomacl) x \
         WHERE l.lomowner = (SELECT oid FROM pg_roles WHERE rolname = $1) AND x.grantee <> l.lomowner"
            .to_owned(),
        "SELECT format('DROP USER MAPPING IF EXISTS FOR %I SERVER %I', $1::text, m.srvname), format('user mapping on server %I', m.srvname) \
         FROM pg_user_mappings m WHERE m.usename = $1"
            .to_owned(),
        format!(
            "SELECT format('DROP %s IF EXISTS %s CASCADE', replace(replace(upper(o.type), 'STATISTICS OBJECT', 'STATISTICS'), 'FOREIGN-DATA', 'FOREIGN DATA'), o.identity), \
             CASE WHEN s.classid = 'pg_proc'::regclass AND o.type <> 'aggregate' THEN pg_get_functiondef(s.objid) \
             WHEN s.classid = 'pg_class'::regclass AND o.type LIKE '%view' THEN format('CREATE %s %s AS %s', upper(o.type), o.identity, pg_get_viewdef(s.objid)) \
             WHEN s.classid = 'pg_statistic_ext'::regclass THEN pg_get_statisticsobjdef(s.objid) \
             ELSE o.type || ' ' || o.identity END \
             FROM pg_shdepend s LEFT JOIN pg_class c ON s.classid = 'pg_class'::regclass AND c.oid = s.objid \
             LEFT JOIN pg_type t ON s.classid = 'pg_type'::regclass AND t.oid = s.objid, \
             LATERAL pg_identify_object(s.classid, s.objid, s.objsubid) o \
             WHERE {mine} AND s.classid <> 'pg_largeobject'::regclass AND s.classid <> 'pg_largeobject_metadata'::regclass \
             AND s.classid <> 'pg_namespace'::regclass AND s.classid <> 'pg_default_acl'::regclass AND s.classid <> 'pg_collation'::regclass \
             AND s.classid <> 'pg_user_mapping'::regclass \
             AND (s.classid <> 'pg_class'::regclass OR c.relkind IN ('v', 'm', 'f')) AND (s.classid <> 'pg_type'::regclass OR t.typtype = 'b' AND t.typcategory <> 'A') \
             ORDER BY CASE WHEN s.classid = 'pg_class'::regclass THEN 0 ELSE 1 END"
        ),
    ]
}

/// Plain data, described, for the role `$1`.
const PLAIN: &str = "SELECT pg_describe_object(s.classid, s.objid, s.objsubid) FROM pg_shdepend s LEFT JOIN pg_class c ON s.classid = 'pg_class'::regclass AND c.oid = s.objid \
     LEFT JOIN pg_type t ON s.classid = 'pg_type'::regclass AND t.oid = s.objid \
     WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.refclassid = 'pg_authid'::regclass \
     AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1) AND s.deptype = 'o' \
     AND (s.classid IN ('pg_namespace'::regclass, 'pg_collation'::regclass) OR c.relkind IN ('r', 'p', 'S') OR t.typtype IN ('e', 'c', 'd', 'r', 'm')) ORDER BY 1 LIMIT 51";

/// What of others is made with code of the role `$1`, and goes with it.
const DEPENDENTS: &str = "SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_shdepend s \
     JOIN pg_depend d ON d.refclassid = s.classid AND d.refobjid = s.objid AND d.deptype = 'n' AND d.classid <> 'pg_rewrite'::regclass \
     WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.refclassid = 'pg_authid'::regclass \
     AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1) AND s.deptype = 'o' AND s.classid IN ('pg_proc'::regclass, 'pg_operator'::regclass) \
     AND NOT EXISTS (SELECT FROM pg_shdepend o WHERE o.classid = d.classid AND o.objid = d.objid AND o.refobjid = s.refobjid AND o.deptype = 'o') \
     AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relowner = s.refobjid AND c.oid IN ( \
       SELECT adrelid FROM pg_attrdef WHERE d.classid = 'pg_attrdef'::regclass AND oid = d.objid \
       UNION ALL SELECT tgrelid FROM pg_trigger WHERE d.classid = 'pg_trigger'::regclass AND oid = d.objid \
       UNION ALL SELECT polrelid FROM pg_policy WHERE d.classid = 'pg_policy'::regclass AND oid = d.objid \
       UNION ALL SELECT conrelid FROM pg_constraint WHERE d.classid = 'pg_constraint'::regclass AND oid = d.objid \
       UNION ALL SELECT d.objid WHERE d.classid = 'pg_class'::regclass)) \
     ORDER BY 1 LIMIT 20";

/// Other accounts of ours that own something on which the role `$1` has rights.
const LENDERS: &str = "SELECT DISTINCT o.rolname::text FROM pg_shdepend a \
     JOIN pg_shdepend s ON s.dbid = a.dbid AND s.classid = a.classid AND s.objid = a.objid AND s.refclassid = a.refclassid AND s.deptype = 'o' \
     JOIN pg_roles o ON o.oid = s.refobjid \
     WHERE a.deptype = 'a' AND a.refclassid = 'pg_authid'::regclass AND a.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1) \
     AND a.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND o.oid <> a.refobjid AND o.rolname LIKE 'jit\\_%'";

const LARGE_OBJECTS: &str = "SELECT count(*) FROM pg_largeobject_metadata WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = $1)";

/// What one look puts on record.
#[derive(Default)]
struct Record {
    left: Vec<String>,
    more: usize,
    bytes: usize,
}

impl Record {
    fn add(&mut self, thing: String) {
        if self.left.len() >= MOST || self.bytes >= TEXT {
            self.more += 1;
            return;
        }
        self.bytes += thing.len();
        self.left.push(thing);
    }

    fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.left.push(format!("and {} more", self.more));
        }
        self.left
    }
}

/// What the account owns, in every database, and what it has prepared or scheduled. It can add nothing any more.
pub async fn remains(target: &Postgres, account: &str) -> Result<Vec<String>, TargetError> {
    let server = target.connect(MAINTENANCE).await?;
    let Some(places) = removal::lock_and_kill(target, &server, account).await? else { return Ok(Vec::new()) };
    let mut record = Record::default();
    for database in places {
        let client = target.connect_to_clean(&database).await?;
        list(&client, account, &database, &mut record).await?;
    }
    for row in server.query("SELECT gid, database::text FROM pg_prepared_xacts WHERE owner = $1", &[&account]).await? {
        record.add(format!("prepared transaction {} in {} (rolled back)", row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
    }
    // jobs of the extension pg_cron run as whoever made them
    if has_cron(&server).await? {
        for row in server.query("SELECT jobid::text, command FROM cron.job WHERE username = $1 ORDER BY jobid LIMIT 51", &[&account]).await? {
            let command: String = row.try_get::<_, String>(1)?.chars().take(2_000).collect();
            record.add(format!("job {}: {command}", row.try_get::<_, String>(0)?));
        }
    }
    Ok(record.into_lines())
}

async fn list(client: &Client, role: &str, database: &str, record: &mut Record) -> Result<(), TargetError> {
    for look in code() {
        for row in client.query(&format!("{look} LIMIT {}", MOST + 1), &[&role]).await? {
            let text: Option<String> = row.try_get(1)?;
            let text: String = text.unwrap_or_default();
            record.add(format!("dropped in {database}: {}", text.trim()));
        }
    }
    for row in client.query(DEPENDENTS, &[&role]).await? {
        record.add(format!("{} in {database} was made with it, and goes with it", row.try_get::<_, String>(0)?));
    }
    for row in client.query(PLAIN, &[&role]).await? {
        record.add(format!("{} in {database}", row.try_get::<_, String>(0)?));
    }
    let large: i64 = client.query_one(LARGE_OBJECTS, &[&role]).await?.try_get(0)?;
    if large > 0 {
        record.add(format!("{large} large objects in {database}"));
    }
    Ok(())
}

/// Whether the server has pg_cron: its jobs lie in this database, unless its setting says otherwise.
pub async fn has_cron(server: &Client) -> Result<bool, TargetError> {
    Ok(server.query_one("SELECT to_regclass('cron.job') IS NOT NULL", &[]).await?.try_get(0)?)
}

/// Who the administrator is on this server.
struct Me {
    version: i32,
    name: String,
    superuser: bool,
    owner: String,
}

async fn me(client: &Client) -> Result<Me, TargetError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_user::text, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), \
             (SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database())",
            &[],
        )
        .await?;
    Ok(Me { version: row.try_get(0)?, name: row.try_get(1)?, superuser: row.try_get(2)?, owner: row.try_get(3)? })
}

impl Me {
    /// Without it PostgreSQL says "Only roles with privileges of role … may …".
    async fn join(&self, client: &Client, role: &str) -> Result<(), TargetError> {
        if !self.superuser {
            let with = if self.version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
            client.batch_execute(&format!("GRANT {} TO {}{with}", escape_identifier(role), escape_identifier(&self.name))).await?;
        }
        Ok(())
    }
}

/// In one database: rolls back what the account prepared, drops what runs, puts plain data aside, takes its rights away.
pub async fn settle(client: &Client, account: &str, estate: Estate<'_>) -> Result<(), TargetError> {
    let me = me(client).await?;
    me.join(client, account).await?;
    own_nothing(client, &me, account, estate).await?;
    // what another account of ours gave to this one is in its way, and only who may do what that one may takes it back
    let mut lenders = Vec::new();
    for row in client.query(LENDERS, &[&account]).await? {
        lenders.push(escape_identifier(row.try_get(0)?));
        me.join(client, row.try_get(0)?).await?;
    }
    let dropped = client.batch_execute(&format!("DROP OWNED BY {}", escape_identifier(account))).await;
    for lender in lenders.iter().filter(|_| !me.superuser) {
        removal::but_for_the_missing(client.batch_execute(&format!("REVOKE {lender} FROM {}", escape_identifier(&me.name))).await)?;
    }
    Ok(dropped?)
}

/// Rolls back what a role has prepared in the database that this connection is in.
pub async fn roll_back(client: &Client, role: &str, gid: &str) -> Result<(), TargetError> {
    me(client).await?.join(client, role).await?;
    // one by one: it may not stand in a transaction, and several statements in one message are one
    for sql in [format!("SET ROLE {}", escape_identifier(role)), format!("ROLLBACK PREPARED {}", escape_literal(gid)), "RESET ROLE".to_owned()] {
        match client.batch_execute(&sql).await {
            // another look did it
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {}
            done => done?,
        }
    }
    Ok(())
}

async fn own_nothing(client: &Client, me: &Me, role: &str, estate: Estate<'_>) -> Result<(), TargetError> {
    let quoted = escape_identifier(role);
    let prepared = client.query("SELECT gid FROM pg_prepared_xacts WHERE owner = $1 AND database = current_database()", &[&role]).await?;
    for row in prepared {
        roll_back(client, role, row.try_get(0)?).await?;
    }
    if estate.drop {
        match client.batch_execute(&format!("DROP OWNED BY {quoted}")).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::warn!(role, %error, "what a role owned cannot be dropped whole; what runs of it is dropped, and data put aside"),
        }
    }
    // what one statement takes away may be what the next one would have: until a look finds nothing, or nothing goes any more
    let mut tried = HashSet::new();
    loop {
        let (mut gone, mut failed) = (0_usize, None);
        for look in code() {
            for row in client.query(&format!("{look} LIMIT {AT_ONCE}"), &[&role]).await? {
                let sql: String = row.try_get(0)?;
                match client.batch_execute(&sql).await {
                    Ok(()) if tried.insert(sql.clone()) => gone += 1,
                    // said to be done before, and found again
                    Ok(()) => failed = Some(TargetError::Refused(format!("something of {role} does not go: {sql}"))),
                    Err(error) => failed = Some(TargetError::from(error)),
                }
            }
        }
        match (gone, failed) {
            (0, None) => break,
            (0, Some(error)) => return Err(error),
            _ => {}
        }
    }
    let heir = of(estate.environment);
    ensure(client, me, &heir, estate.heir).await?;
    let heir = escape_identifier(&heir);
    loop {
        let look = format!("SELECT oid::text FROM pg_largeobject_metadata WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = $1) LIMIT {ASKED}");
        let large = client.query(&look, &[&role]).await?;
        if large.is_empty() {
            break;
        }
        for chunk in large.chunks(AT_ONCE) {
            let sql: Vec<String> = chunk
                .iter()
                .map(|row| Ok(format!("ALTER LARGE OBJECT {} OWNER TO {heir}", row.try_get::<_, String>(0)?)))
                .collect::<Result<_, TargetError>>()?;
            client.batch_execute(&sql.join(";")).await?;
        }
    }
    // who gets a collation has to be one who could make it there (unlike a table's): for the moment of the change
    let look = "SELECT DISTINCT format('%I', n.nspname) FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace \
                WHERE l.collowner = (SELECT oid FROM pg_roles WHERE rolname = $1)";
    let schemas: Vec<String> = client.query(look, &[&role]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let mut sql: Vec<String> = schemas.iter().map(|schema| format!("GRANT CREATE ON SCHEMA {schema} TO {heir}")).collect();
    sql.push(format!("REASSIGN OWNED BY {quoted} TO {heir}"));
    sql.extend(schemas.iter().map(|schema| format!("REVOKE CREATE ON SCHEMA {schema} FROM {heir}")));
    // one message, one transaction
    client.batch_execute(&sql.join(";")).await?;
    Ok(())
}

/// Makes the role for what is left. Whoever owns the database (or was named) is made a member of it, where the administrator may do that.
async fn ensure(client: &Client, me: &Me, name: &str, heir: Option<&str>) -> Result<(), TargetError> {
    let there =
        async || -> Result<bool, TargetError> { Ok(client.query_one("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", &[&name]).await?.try_get(0)?) };
    let role = escape_identifier(name);
    if !there().await? {
        // another account's end may make it in the same moment
        if let Err(error) = client.batch_execute(&format!("CREATE ROLE {role} NOLOGIN; COMMENT ON ROLE {role} IS 'daypass estate'")).await
            && !there().await?
        {
            return Err(error.into());
        }
    }
    me.join(client, name).await?;
    let user = heir.unwrap_or(&me.owner);
    let is_member: Option<bool> = client
        .query_opt("SELECT pg_has_role(oid, $2::text::name, 'MEMBER') FROM pg_roles WHERE rolname = $1", &[&user, &name])
        .await?
        .map(|row| row.try_get(0))
        .transpose()?;
    if is_member == Some(false)
        && let Err(error) = client.batch_execute(&format!("GRANT {role} TO {}", escape_identifier(user))).await
    {
        tracing::warn!(role = name, user, %error, "whoever owns the database could not be made a member of the role that keeps what is left");
    }
    Ok(())
}

/// The groups that accounts belong to own nothing and prepare nothing. Servers before 16 let a member become the group.
pub async fn tidy_groups(target: &Postgres, environment: EnvironmentId, database: &DatabaseName, estate: Estate<'_>) -> Result<Vec<Swept>, TargetError> {
    let groups = [Access::Read, Access::ReadWrite].map(|access| group(environment, access));
    let found: Vec<String> = target
        .on_server(|client| async move {
            let look = "SELECT rolname::text FROM pg_roles r WHERE rolname = ANY($1) AND (EXISTS (SELECT FROM pg_shdepend s WHERE s.refobjid = r.oid \
                        AND s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o') OR EXISTS (SELECT FROM pg_prepared_xacts x WHERE x.owner = r.rolname))";
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            let result = async { client.query(look, &[&groups]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect() }.await;
            (client, result)
        })
        .await?;
    let mut swept = Vec::new();
    for name in found {
        let client = target.connect_to_clean(database.as_str()).await?;
        let me = me(&client).await?;
        let mut record = Record::default();
        list(&client, &name, database.as_str(), &mut record).await?;
        for row in client.query("SELECT gid FROM pg_prepared_xacts WHERE owner = $1 AND database = current_database()", &[&name]).await? {
            record.add(format!("prepared transaction {}", row.try_get::<_, String>(0)?));
        }
        me.join(&client, &name).await?;
        own_nothing(&client, &me, &name, estate).await?;
        swept.extend(record.into_lines().into_iter().map(|what| Swept { what, done: "a group of Daypass had it; it was taken away".to_owned() }));
    }
    Ok(swept)
}
