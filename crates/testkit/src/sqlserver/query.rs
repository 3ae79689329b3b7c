//! Queries and changes of rows: T-SQL's words become SQLite's, and SQLite does the work.

use super::{
    documented::Edition,
    lexer::Token,
    reply::{Column, Table, Value},
    state::{Failure, State, key},
    views::{Asker, View, views},
};
use sqlx::{Column as _, Connection, Executor, Row, SqlSafeStr, SqliteConnection, Statement, TypeInfo, ValueRef, sqlite::SqliteConnectOptions};
use std::path::Path;

/// What a query is asked by and from.
pub struct Context<'a> {
    pub state: &'a State,
    pub login: &'a str,
    pub user: &'a str,
    pub database: &'a str,
    pub session: u16,
    pub transactions: u32,
    pub row_count: i64,
    pub edition: Edition,
    pub sparse: bool,
}

/// A session's connection to the files of its database: one file for each schema.
pub async fn open(folder: &Path, schemas: &[String]) -> anyhow::Result<SqliteConnection> {
    // not in memory: what is attached to a database in memory lies there as well
    let options = SqliteConnectOptions::new().filename(folder.join("main.sqlite")).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    for schema in schemas {
        let file = folder.join(format!("{schema}.sqlite"));
        run(&mut connection, &format!("ATTACH '{}' AS \"{schema}\"", file.display())).await.map_err(|e| anyhow::anyhow!(e.text))?;
    }
    run(&mut connection, "ATTACH ':memory:' AS sys").await.map_err(|e| anyhow::anyhow!(e.text))?;
    run(&mut connection, "PRAGMA busy_timeout = 5000").await.map_err(|e| anyhow::anyhow!(e.text))?;
    Ok(connection)
}

/// Runs SQLite's own words for their effect.
pub async fn run(connection: &mut SqliteConnection, sql: &str) -> Result<u64, Failure> {
    let done = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.map_err(|e| translated(&e))?;
    Ok(done.rows_affected())
}

/// Makes the views anew.
pub async fn refresh(connection: &mut SqliteConnection, views: Vec<View>) -> Result<(), Failure> {
    for (name, columns, rows) in views {
        let list = columns.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ");
        let mut sql = format!("DROP TABLE IF EXISTS sys.\"{name}\"; CREATE TABLE sys.\"{name}\" ({list});");
        for row in rows {
            let values = row.iter().map(literal).collect::<Vec<_>>().join(", ");
            sql.push_str(&format!("INSERT INTO sys.\"{name}\" VALUES ({values});"));
        }
        run(connection, &sql).await?;
    }
    Ok(())
}

/// Makes `sys.columns` anew, from what SQLite knows. A table's number is its name.
pub async fn refresh_columns(connection: &mut SqliteConnection, schemas: &[String]) -> Result<(), Failure> {
    let of = |schema: &String| {
        format!(
            "SELECT '{schema}.' || m.name AS object_id, c.cid + 1 AS column_id, c.name AS name, c.type AS system_type_id, 0 AS is_identity \
             FROM \"{schema}\".sqlite_master m JOIN pragma_table_info(m.name, '{schema}') c"
        )
    };
    let all = schemas.iter().map(of).collect::<Vec<_>>().join(" UNION ALL ");
    run(connection, &format!("DROP TABLE IF EXISTS sys.columns; CREATE TABLE sys.columns AS {all}")).await.map(drop)
}

/// Rows of a query.
pub async fn rows(connection: &mut SqliteConnection, sql: &str) -> Result<Table, Failure> {
    let described = connection.fetch_all(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.map_err(|e| translated(&e))?;
    // an expression has no name in SQL Server
    let named = |name: &str| if name.contains(['(', ' ', '\'']) { String::new() } else { name.to_owned() };
    let column = |c: &sqlx::sqlite::SqliteColumn| Column { name: named(c.name()), ty: None, declared: c.type_info().name().to_owned() };
    let columns: Vec<Column> = match described.first() {
        Some(row) => row.columns().iter().map(column).collect(),
        None => {
            let prepared = connection.prepare(sqlx::AssertSqlSafe(sql).into_sql_str()).await.map_err(|e| translated(&e))?;
            prepared.columns().iter().map(column).collect()
        }
    };
    let rows = described.iter().map(|row| (0..columns.len()).map(|at| value(row, at)).collect()).collect();
    Ok(Table { columns, rows })
}

fn value(row: &sqlx::sqlite::SqliteRow, at: usize) -> Value {
    let Ok(raw) = row.try_get_raw(at) else { return Value::Null };
    if raw.is_null() {
        return Value::Null;
    }
    match raw.type_info().name() {
        "INTEGER" | "BOOLEAN" => row.try_get_unchecked(at).map_or(Value::Null, Value::Integer),
        "REAL" => row.try_get_unchecked(at).map_or(Value::Null, Value::Real),
        "BLOB" => row.try_get_unchecked(at).map_or(Value::Null, Value::Bytes),
        _ => row.try_get_unchecked(at).map_or(Value::Null, Value::Text),
    }
}

fn translated(error: &sqlx::Error) -> Failure {
    let text = error.as_database_error().map_or_else(|| error.to_string(), |e| e.message().to_owned());
    match text.split_once(": ") {
        Some(("no such table", name)) => Failure::new(208, format!("Invalid object name '{name}'.")),
        Some(("no such column", name)) => Failure::new(207, format!("Invalid column name '{name}'.")),
        _ => Failure::new(102, format!("Incorrect syntax (the stand-in's SQLite says: {text}).")),
    }
}

/// A value in SQLite's words.
pub fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => format!("{number:e}"),
        Value::Text(text) => quoted(text),
        Value::Bytes(bytes) => format!("x'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The tables that a statement names, with their schema (`dbo` when none is named).
pub fn tables(tokens: &[Token]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if !["FROM", "JOIN", "INTO", "UPDATE"].iter().any(|word| token.is(word)) {
            continue;
        }
        let part = |n: usize| tokens.get(at + n).filter(|t| matches!(t, Token::Word(_) | Token::Name(_))).map(Token::text);
        let dot = |n: usize| tokens.get(at + n).is_some_and(|t| t.is_symbol('.'));
        match (part(1), dot(2), part(3), dot(4), part(5)) {
            (Some(_), true, Some(schema), true, Some(table)) => found.push((schema, table)),
            (Some(schema), true, Some(table), ..) => found.push((schema, table)),
            (Some(table), false, ..) => found.push(("dbo".to_owned(), table)),
            _ => {}
        }
    }
    found
}

/// T-SQL in SQLite's words.
pub fn rewritten(tokens: &[Token], context: &Context<'_>) -> String {
    let mut out = String::new();
    let mut limit = None;
    write(tokens, context, &mut out, &mut limit);
    if let Some(limit) = limit {
        out.push_str(&format!(" LIMIT {limit}"));
    }
    out
}

fn write(tokens: &[Token], context: &Context<'_>, out: &mut String, limit: &mut Option<String>) {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Text(text) => out.push_str(&quoted(text)),
            Token::Name(name) => out.push_str(&format!("\"{name}\"")),
            Token::Symbol(symbol) => {
                out.push(*symbol);
                // two-part operators stay together
                if "<>!=".contains(*symbol) && tokens.get(at).is_some_and(|t| matches!(t, Token::Symbol('=' | '>'))) {
                    continue;
                }
            }
            Token::Word(word) => {
                let upper = word.to_uppercase();
                if upper == "TOP" {
                    let bare: Vec<&Token> = tokens[at..].iter().filter(|t| !t.is_symbol('(') && !t.is_symbol(')')).take(1).collect();
                    *limit = bare.first().map(|t| t.text());
                    at += if tokens.get(at).is_some_and(|t| t.is_symbol('(')) { 3 } else { 1 };
                    continue;
                }
                if let Some(variable) = variable(&upper, context) {
                    out.push_str(&variable);
                } else if let Some((arguments, end)) = arguments(tokens, at).filter(|_| is_function(&upper)) {
                    let arguments: Vec<String> = arguments.iter().map(|part| inner(part, context)).collect();
                    out.push_str(&function(&upper, &arguments, context));
                    at = end;
                } else if upper.starts_with('#') {
                    out.push_str(&format!("\"{word}\""));
                } else if upper.starts_with("0X") && upper.len() > 2 {
                    out.push_str(&format!("x'{}'", &word[2..]));
                } else {
                    out.push_str(word);
                }
            }
        }
        out.push(' ');
    }
}

fn inner(tokens: &[Token], context: &Context<'_>) -> String {
    let mut out = String::new();
    write(tokens, context, &mut out, &mut None);
    out.trim().to_owned()
}

/// The arguments of a call whose name ends before `at`, and where the call ends.
fn arguments(tokens: &[Token], at: usize) -> Option<(Vec<&[Token]>, usize)> {
    if !tokens.get(at)?.is_symbol('(') {
        return None;
    }
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, at + 1);
    for (n, token) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => {
                depth -= 1;
                if depth == 0 {
                    if n > from {
                        parts.push(&tokens[from..n]);
                    }
                    return Some((parts, n + 1));
                }
            }
            Token::Symbol(',') if depth == 1 => {
                parts.push(&tokens[from..n]);
                from = n + 1;
            }
            _ => {}
        }
    }
    None
}

fn variable(name: &str, context: &Context<'_>) -> Option<String> {
    Some(match name {
        "@@VERSION" => quoted("Microsoft SQL Server 2022 (a stand-in for tests) - 16.0.4135.4"),
        "@@SPID" => context.session.to_string(),
        "@@TRANCOUNT" => context.transactions.to_string(),
        "@@ROWCOUNT" => context.row_count.to_string(),
        "@@SERVERNAME" => quoted("STANDIN"),
        "@@MAX_PRECISION" => "38".to_owned(),
        "@@MICROSOFTVERSION" => "268439552".to_owned(),
        "@@IDENTITY" => "last_insert_rowid()".to_owned(),
        "CURRENT_USER" | "SESSION_USER" => quoted(context.user),
        "SYSTEM_USER" => quoted(context.login),
        _ => return None,
    })
}

const FUNCTIONS: &[&str] = &[
    "SERVERPROPERTY",
    "DATABASEPROPERTYEX",
    "DB_NAME",
    "DB_ID",
    "CONVERT",
    "SUSER_SNAME",
    "SUSER_NAME",
    "ORIGINAL_LOGIN",
    "USER_NAME",
    "SCHEMA_NAME",
    "OBJECT_NAME",
    "OBJECT_SCHEMA_NAME",
    "DATABASE_PRINCIPAL_ID",
    "HAS_PERMS_BY_NAME",
    "IS_ROLEMEMBER",
    "IS_MEMBER",
    "IS_SRVROLEMEMBER",
    "HAS_DBACCESS",
    "GETDATE",
    "SYSDATETIME",
    "ISNULL",
    "LEN",
    "REPLICATE",
    "COL_LENGTH",
    "OBJECT_ID",
    "TYPE_NAME",
    "SCOPE_IDENTITY",
    "CONTEXT_INFO",
    "HOST_NAME",
    "APP_NAME",
];

fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

fn function(name: &str, arguments: &[String], context: &Context<'_>) -> String {
    let argument = |n: usize| arguments.get(n).cloned().unwrap_or_else(|| "NULL".to_owned());
    let bare = |n: usize| argument(n).trim_matches('\'').to_owned();
    let state = context.state;
    let database = || state.databases.get(&key(context.database));
    match name {
        "SERVERPROPERTY" => match bare(0).to_uppercase().as_str() {
            "ENGINEEDITION" => context.edition.number().to_string(),
            "PRODUCTVERSION" => quoted(context.edition.version()),
            "EDITION" => quoted("Stand-in"),
            "INSTANCEDEFAULTBACKUPPATH" | "INSTANCEDEFAULTDATAPATH" | "INSTANCEDEFAULTLOGPATH" => quoted("/var/opt/mssql/data"),
            _ => "NULL".to_owned(),
        },
        "DATABASEPROPERTYEX" if bare(1).eq_ignore_ascii_case("Updateability") => quoted("READ_WRITE"),
        "DATABASEPROPERTYEX" => quoted("SQL_Latin1_General_CP1_CI_AS"),
        "DB_NAME" => quoted(context.database),
        "DB_ID" if arguments.is_empty() => database().map_or("NULL".to_owned(), |db| db.id.to_string()),
        "DB_ID" => format!("(SELECT database_id FROM sys.databases WHERE lower(name) = lower({}))", argument(0)),
        "CONVERT" if arguments.len() == 3 && argument(2) == "2" => format!("hex({})", argument(1)),
        "CONVERT" if arguments.len() == 3 && argument(2) == "126" => format!("replace({}, ' ', 'T')", argument(1)),
        "CONVERT" => format!("CAST({} AS {})", argument(1), argument(0)),
        "SUSER_SNAME" | "SUSER_NAME" | "ORIGINAL_LOGIN" => quoted(context.login),
        "USER_NAME" if arguments.is_empty() => quoted(context.user),
        "USER_NAME" => format!("(SELECT name FROM sys.database_principals WHERE principal_id = {})", argument(0)),
        "SCHEMA_NAME" if arguments.is_empty() => quoted("dbo"),
        "SCHEMA_NAME" => format!("(SELECT name FROM sys.schemas WHERE schema_id = {})", argument(0)),
        "DATABASE_PRINCIPAL_ID" => format!("(SELECT principal_id FROM sys.database_principals WHERE lower(name) = lower({}))", argument(0)),
        "HAS_PERMS_BY_NAME" if argument(0) != "NULL" && matches!(bare(2).as_str(), "SELECT" | "INSERT" | "UPDATE" | "DELETE") => {
            let role = if bare(2) == "SELECT" { "db_datareader" } else { "db_datawriter" };
            i32::from(database().is_some_and(|db| [role, "db_owner"].iter().any(|role| db.is_member(context.user, role)))).to_string()
        }
        "HAS_PERMS_BY_NAME" if argument(0) != "NULL" => i32::from(database().is_some_and(|db| db.is_member(context.user, "db_owner"))).to_string(),
        "HAS_PERMS_BY_NAME" => i32::from(state.may(context.login, &bare(2))).to_string(),
        "IS_ROLEMEMBER" | "IS_MEMBER" => i32::from(database().is_some_and(|db| db.is_member(context.user, &bare(0)))).to_string(),
        "IS_SRVROLEMEMBER" => i32::from(state.may(context.login, "*")).to_string(),
        "HAS_DBACCESS" => {
            let login = state.logins.get(&key(context.login));
            let open: Vec<String> = state.databases.values().filter(|db| db.user_of(login, context.login).is_some()).map(|db| quoted(&db.name)).collect();
            format!("({} IN ({}))", argument(0), open.join(", "))
        }
        "GETDATE" | "SYSDATETIME" => "strftime('%Y-%m-%d %H:%M:%f', 'now')".to_owned(),
        "ISNULL" => format!("ifnull({}, {})", argument(0), argument(1)),
        "LEN" => format!("length({})", argument(0)),
        "REPLICATE" => format!("replace(hex(zeroblob({})), '00', {})", argument(1), argument(0)),
        "COL_LENGTH" => {
            let (view, column) = (bare(0).trim_start_matches("sys.").to_owned(), bare(1));
            let asker = Asker { login: context.login, session: context.session, database: context.database, edition: context.edition, sparse: context.sparse };
            let found = views(state, &asker).iter().any(|(name, columns, _)| *name == view && columns.contains(&column.as_str()));
            if found { "16" } else { "NULL" }.to_owned()
        }
        "OBJECT_ID" => argument(0).replace(['[', ']'], ""),
        "TYPE_NAME" => format!("CASE {} WHEN 'INTEGER' THEN 'bigint' WHEN 'REAL' THEN 'float' ELSE 'nvarchar' END", argument(0)),
        "SCOPE_IDENTITY" => "last_insert_rowid()".to_owned(),
        _ => "NULL".to_owned(),
    }
}
