//! One session: carries out statements, one after the other, and says how each came out.

use super::{
    Server,
    documented::{self, Needs, Sees},
    lexer::{self, Token, statements},
    query::{self, Context},
    reply::{Column, Table, Value, put_end, put_transaction},
    state::{self, Database, Failure, Fault, Login, Permission, Principal, Property, State, key},
    types::{SYSNAME, Type},
    views::{Asker, owns, sees_sessions, views},
};
use daypass_wire::tds::token::{env_change, put_env_change, put_message};
use sqlx::SqliteConnection;
use std::{collections::HashMap, sync::Arc, time::Duration};

pub struct Session {
    pub server: Arc<Server>,
    pub id: u16,
    pub login: String,
    pub database: String,
    pub sqlite: Option<SqliteConnection>,
    /// Daypass itself: what it sends has to be documented.
    strict: bool,
    pub prepared: HashMap<i32, String>,
    pub next_handle: i32,
    /// What cursors have not given yet.
    pub cursors: HashMap<i32, Table>,
    pub transactions: u32,
    row_count: i64,
    /// Only descriptions are wanted, no rows (`SET FMTONLY ON`).
    only_columns: bool,
    /// What reads or changes begins a transaction (`SET IMPLICIT_TRANSACTIONS ON`).
    implicit: bool,
    /// The table and the columns that bulk data is for.
    pub bulk: Option<(String, Vec<String>)>,
}

/// Where a reply goes, part by part.
pub trait Reply: Send {
    /// Tokens are ready: they may be sent.
    fn put(&mut self, tokens: &mut Vec<u8>) -> impl Future<Output = Result<(), Gone>> + Send;
}

/// The connection is to be closed.
#[derive(Debug)]
pub struct Gone;

impl Session {
    pub fn new(server: Arc<Server>, id: u16, login: &str, database: &str, strict: bool) -> Self {
        Session {
            server,
            id,
            login: login.to_owned(),
            database: database.to_owned(),
            sqlite: None,
            strict,
            prepared: HashMap::new(),
            next_handle: 1,
            cursors: HashMap::new(),
            transactions: 0,
            row_count: 0,
            only_columns: false,
            implicit: false,
            bulk: None,
        }
    }

    /// Runs a batch. True: all of it came out well.
    pub async fn batch(&mut self, sql: &str, in_procedure: bool, out: &mut Vec<u8>, reply: &mut impl Reply) -> Result<bool, Gone> {
        let fault = self.server.with(|state| {
            state.seen.push(sql.to_owned());
            if self.strict {
                state.ours.insert(sql.to_owned());
            }
            for waited in state.waiting.clone() {
                state.take_place(&waited);
            }
            if state.seen.len() > 10_000 {
                state.seen.drain(..5_000);
            }
            state.faults.iter().find(|(part, _)| sql.contains(part.as_str())).map(|(_, fault)| fault.clone())
        });
        let failure = match fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Drop) => return Err(Gone),
            Some(Fault::Error(number, text)) => Some(Failure::new(number, text)),
            None => None,
        };
        if let Some(failure) = failure {
            self.put_failure(out, failure);
            put_end(out, in_procedure, in_procedure, true, None, false);
            return Ok(false);
        }
        let all = statements(sql);
        // an operator's scripts follow, which say what they like
        let scripts = all.len() == 1 && all[0].first().is_some_and(|t| t.is("EXECUTE")) && all[0].get(1).is_some_and(|t| t.is("AS"));
        if all.is_empty() {
            put_end(out, in_procedure, in_procedure, false, None, false);
        }
        let (last, mut well) = (all.len().saturating_sub(1), true);
        for (n, tokens) in all.into_iter().enumerate() {
            let more = in_procedure || n < last;
            match self.statement(&tokens, out, reply).await? {
                Ok(rows) => put_end(out, in_procedure, more, false, rows, tokens[0].is("SELECT")),
                Err(failure) => {
                    // an error of this class ends its statement, and the next one of the batch runs (Database Engine error severities; TRY...CATCH)
                    let goes_on = n < last && tokens[0].is("ALTER") && tokens.get(1).is_some_and(|t| t.is("DATABASE"));
                    self.put_failure(out, failure);
                    put_end(out, in_procedure, in_procedure || goes_on, true, None, false);
                    well = false;
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        self.strict &= !scripts;
        Ok(well)
    }

    /// An engine that speaks TDS, but is not SQL Server, has other numbers for everything but a failed login.
    pub fn put_failure(&self, out: &mut Vec<u8>, failure: Failure) {
        let number = if self.server.options.sparse && failure.number != 18_456 { 33_557_097 } else { failure.number };
        put_message(out, number, 1, failure.class, &failure.text, "STANDIN");
    }

    async fn statement(&mut self, tokens: &[Token], out: &mut Vec<u8>, reply: &mut impl Reply) -> Result<Result<Option<u64>, Failure>, Gone> {
        let word = |n: usize| tokens.get(n).map(|t| t.text().to_uppercase()).unwrap_or_default();
        if let Err(failure) = self.permit(tokens) {
            return Ok(Err(failure));
        }
        if word(0) == "SELECT"
            && let Some(series) = Series::read(tokens)
        {
            return series.put(out, reply).await.map(|rows| Ok(Some(rows)));
        }
        if word(0) == "WAITFOR" {
            return match tokens.get(2).map(Token::text).as_deref().and_then(delay) {
                Some(delay) => {
                    reply.put(out).await?;
                    tokio::time::sleep(delay).await;
                    Ok(Ok(None))
                }
                None => Ok(Err(Failure::new(148, "Incorrect time syntax in time string used with WAITFOR."))),
            };
        }
        let begins = ["INSERT", "UPDATE", "DELETE"].contains(&word(0).as_str()) || (word(0) == "SELECT" && tokens.iter().any(|t| t.is("FROM")));
        if self.implicit
            && self.transactions == 0
            && begins
            && let Err(failure) = self.transaction("BEGIN", out).await
        {
            return Ok(Err(failure));
        }
        Ok(match word(0).as_str() {
            "SELECT" | "WITH" => self.select(tokens, out).await.map(Some),
            "INSERT" if word(1) == "BULK" => self.begin_bulk(tokens),
            "INSERT" | "UPDATE" | "DELETE" => self.change(tokens).await.map(Some),
            "BEGIN" if word(1).starts_with("TRAN") => self.transaction("BEGIN", out).await,
            "COMMIT" => self.transaction("COMMIT", out).await,
            "ROLLBACK" => self.transaction("ROLLBACK", out).await,
            "IF" if word(1) == "@@TRANCOUNT" => {
                let verb = if tokens.iter().any(|t| t.is("ROLLBACK")) { "ROLLBACK" } else { "COMMIT" };
                if self.transactions > 0 { self.transaction(verb, out).await } else { Ok(None) }
            }
            "SET" if word(1) == "IMPLICIT_TRANSACTIONS" => {
                self.implicit = word(2) == "ON";
                Ok(None)
            }
            "SET" if word(1) == "FMTONLY" => {
                self.only_columns = word(2) == "ON";
                Ok(None)
            }
            "EXECUTE" | "EXEC" if word(1) == "AS" => {
                let name = tokens.last().map(Token::text).unwrap_or_default();
                self.server.with(|state| state.sessions.get_mut(&self.id).map(|session| session.executes_as = name));
                Ok(None)
            }
            "REVERT" => {
                let login = self.login.clone();
                self.server.with(|state| state.sessions.get_mut(&self.id).map(|session| session.executes_as = login));
                Ok(None)
            }
            "DISABLE" if word(1) == "TRIGGER" => {
                let (name, here) = (tokens[2].text(), self.database.clone());
                self.server.with(|state| {
                    state.database(&here)?.triggers.iter_mut().filter(|(known, _)| key(known) == key(&name)).for_each(|(_, disabled)| *disabled = true);
                    Ok(None)
                })
            }
            "EXEC" | "EXECUTE" if tokens.iter().any(|t| t.is("sp_tablecollations_100")) => self.collations(tokens, out).await.map(Some),
            "RESTORE" if word(1) == "FILELISTONLY" => self.files_in(tokens, out).map(Some),
            "USE" => self.enter(&tokens.get(1).map(Token::text).unwrap_or_default(), out),
            "BACKUP" | "RESTORE" | "CREATE" | "ALTER" | "DROP" | "GRANT" | "REVOKE" | "DENY" | "KILL" | "EXEC" | "EXECUTE" => {
                self.define(tokens).await.map(|()| None)
            }
            // settings, declarations, blocks and what prints: nothing here depends on them
            _ => Ok(None),
        })
    }

    /// What drivers ask before they load rows in bulk: a row for each column of the table, the last value of which is its collation.
    async fn collations(&mut self, tokens: &[Token], out: &mut Vec<u8>) -> Result<u64, Failure> {
        let table = tokens.last().map(Token::text).unwrap_or_default();
        let query = lexer::tokens(&format!("SELECT TOP 0 * FROM {}", table.trim_start_matches('.')));
        let of = self.table_of(&query).await?;
        let columns = [("colid", Type::Int), ("name", SYSNAME), ("tds_collation_100", Type::VarBinary(5)), ("collation_100", SYSNAME)];
        let columns = columns.map(|(name, ty)| Column { ty: Some((ty, true)), ..Column::named(name) });
        let row = |(n, column): (usize, &Column)| {
            let is_text = matches!(column.ty, Some((Type::NVarChar(_), _)));
            let name = if is_text { Value::Text("SQL_Latin1_General_CP1_CI_AS".to_owned()) } else { Value::Null };
            vec![Value::Integer(n as i64 + 1), Value::Text(column.name.clone()), Value::Null, name]
        };
        let rows = of.columns.iter().enumerate().map(row).collect();
        Ok(Table { columns: columns.into(), rows }.put(out))
    }

    /// What RESTORE FILELISTONLY answers.
    fn files_in(&self, tokens: &[Token], out: &mut Vec<u8>) -> Result<u64, Failure> {
        Ok(self.server.with(|state| state.files_in(tokens))?.put(out))
    }

    fn enter(&mut self, name: &str, out: &mut Vec<u8>) -> Result<Option<u64>, Failure> {
        if self.server.options.azure() && key(name) != key(&self.database) {
            return Err(Failure::new(
                40_508,
                "USE statement is not supported to switch between databases. Use a new connection to connect to a different database.",
            ));
        }
        let entered = self.server.with(|state| {
            let login = state.logins.get(&key(&self.login)).cloned();
            let inside = state.sessions.iter().any(|(id, session)| *id != self.id && key(&session.database) == key(name));
            let db = state.database(name)?;
            if db.offline {
                return Err(Failure::new(942, format!("Database '{}' cannot be opened because it is offline.", db.name)));
            }
            if db.single_user && inside {
                return Err(Failure::new(924, format!("Database '{}' is already open and can only have one user at a time.", db.name)));
            }
            if db.user_of(login.as_ref(), &self.login).is_none() {
                let text =
                    format!("The server principal \"{}\" is not able to access the database \"{}\" under the current security context.", self.login, db.name);
                return Err(Failure::new(916, text));
            }
            let name = db.name.clone();
            if let Some(session) = state.sessions.get_mut(&self.id) {
                session.database.clone_from(&name);
            }
            Ok(name)
        })?;
        if entered != self.database {
            self.sqlite = None;
        }
        put_env_change(out, env_change::DATABASE, &entered, &self.database);
        put_message(out, 5701, 2, 0, &format!("Changed database context to '{entered}'."), "STANDIN");
        self.database = entered;
        Ok(None)
    }

    fn user(&self, state: &State) -> String {
        let login = state.logins.get(&key(&self.login));
        state.databases.get(&key(&self.database)).and_then(|db| db.user_of(login, &self.login)).map_or_else(|| "guest".to_owned(), |user| user.name.clone())
    }

    async fn sqlite(&mut self) -> Result<&mut SqliteConnection, Failure> {
        if self.sqlite.is_none() {
            let (folder, schemas) =
                self.server.with(|state| state.database(&self.database).map(|db| (db.folder.clone(), db.schemas.keys().cloned().collect::<Vec<_>>())))?;
            let opened = query::open(&folder, &schemas).await.map_err(|e| Failure::new(945, e.to_string()))?;
            self.sqlite = Some(opened);
        }
        self.sqlite.as_mut().ok_or_else(|| Failure::new(945, "the database is not open"))
    }

    fn rewritten(&self, tokens: &[Token]) -> String {
        self.server.with(|state| {
            let user = self.user(state);
            let context = Context {
                state,
                login: &self.login,
                user: &user,
                database: &self.database,
                session: self.id,
                transactions: self.transactions,
                row_count: self.row_count,
                edition: self.server.options.edition,
                sparse: self.server.options.sparse,
            };
            query::rewritten(tokens, &context)
        })
    }

    async fn select(&mut self, tokens: &[Token], out: &mut Vec<u8>) -> Result<u64, Failure> {
        Ok(self.table_of(tokens).await?.put(out))
    }

    /// A cursor on a query: its number, and the description of its columns.
    pub async fn open_cursor(&mut self, sql: &str, out: &mut Vec<u8>) -> Result<i32, Failure> {
        let query = statements(sql).into_iter().next().ok_or_else(|| Failure::new(16_945, "The cursor was not declared."))?;
        self.permit(&query)?;
        let mut table = self.table_of(&query).await?;
        let rows = std::mem::take(&mut table.rows);
        table.put(out);
        table.rows = rows;
        self.next_handle += 1;
        let cursor = 180_150_000 + self.next_handle;
        self.cursors.insert(cursor, table);
        Ok(cursor)
    }

    /// The next rows of a cursor, described again or not; how many they are.
    pub fn fetch(&mut self, cursor: i32, most: usize, described: bool, out: &mut Vec<u8>) -> Result<u64, Failure> {
        let table = self.cursors.get_mut(&cursor).ok_or_else(|| Failure::new(16_909, "The cursor identifier value provided is not valid."))?;
        let later = table.rows.split_off(most.min(table.rows.len()));
        let count = if described { table.put(out) } else { table.put_undescribed(out) };
        table.rows = later;
        Ok(count)
    }

    async fn table_of(&mut self, tokens: &[Token]) -> Result<Table, Failure> {
        self.need(tokens, "SELECT", "db_datareader")?;
        let sql = self.rewritten(tokens);
        if sql.to_lowercase().contains("sys .") || sql.to_lowercase().contains("sys.") {
            let asker = self.asker();
            let fresh = self.server.with(|state| views(state, &asker));
            query::refresh(self.sqlite().await?, fresh).await?;
            if sql.contains("columns") {
                let schemas = self.server.with(|state| state.database(&self.database).map(|db| db.schemas.keys().cloned().collect::<Vec<_>>()))?;
                query::refresh_columns(self.sqlite().await?, &schemas).await?;
            }
        }
        let mut table = query::rows(self.sqlite().await?, &sql).await?;
        for (column, ty) in table.columns.iter_mut().zip(documented::types(tokens)) {
            column.ty = ty;
        }
        if self.only_columns {
            table.rows.clear();
        }
        self.row_count = table.rows.len() as i64;
        // what it is does not change with what is left of it
        let types: Vec<_> = (0..table.columns.len()).map(|at| table.ty(at)).collect();
        table.columns.iter_mut().zip(types).for_each(|(column, ty)| column.ty = Some(ty));
        Ok(table)
    }

    fn asker(&self) -> Asker<'_> {
        let options = &self.server.options;
        Asker { login: &self.login, session: self.id, database: &self.database, edition: options.edition, sparse: options.sparse }
    }

    /// Whether a statement is documented, there is such a one on this server, and this login may run it.
    fn permit(&self, tokens: &[Token]) -> Result<(), Failure> {
        let options = &self.server.options;
        if options.sparse {
            return Ok(());
        }
        if self.strict && !documented::is_documented(tokens) {
            return Err(self.undocumented(tokens));
        }
        if tokens[0].is("SELECT") || tokens[0].is("WITH") {
            return if self.strict { self.permit_query(tokens) } else { Ok(()) };
        }
        let row = documented::statement(tokens);
        let needs = match row {
            Some(row) => row.needs(options.edition),
            None => Some(undocumented_needs(tokens)),
        };
        match needs {
            Some(needs) => self.server.with(|state| self.has(state, needs, tokens)),
            None if self.strict => Err(Failure::new(40_510, format!("Statement '{}' is not supported in this version of SQL Server.", tokens[0].text()))),
            None => Ok(()),
        }
    }

    /// What there is not on this server, or is not for this login.
    fn permit_query(&self, query: &[Token]) -> Result<(), Failure> {
        let edition = self.server.options.edition;
        for view in documented::views_named(query).filter_map(|name| documented::view(&name)) {
            if !view.on.has(edition) {
                return Err(Failure::new(208, format!("Invalid object name 'sys.{}'.", view.name)));
            }
            if view.sees == Sees::Connections && !self.server.with(|state| sees_sessions(state, &self.asker())) {
                return Err(Failure::new(300, "VIEW SERVER STATE permission was denied on object 'server', database 'master'."));
            }
        }
        match documented::functions_named(query).filter_map(documented::function).find(|function| !function.on.has(edition)) {
            Some(function) => Err(Failure::new(195, format!("'{}' is not a recognized built-in function name.", function.name))),
            None => Ok(()),
        }
    }

    fn undocumented(&self, tokens: &[Token]) -> Failure {
        let said = tokens.iter().map(Token::text).collect::<Vec<_>>().join(" ");
        let text = format!("Incorrect syntax near '{}': the stand-in has no row for it: {said}", tokens[0].text());
        self.server.with(|state| state.undocumented.insert(said));
        Failure::new(102, text)
    }

    fn has(&self, state: &mut State, needs: Needs, tokens: &[Token]) -> Result<(), Failure> {
        let text = |n: usize| tokens.get(n).map(Token::text).unwrap_or_default();
        let word = |n: usize| text(n).to_uppercase();
        let any = |rights: &[&str]| rights.iter().any(|right| state.may(&self.login, right));
        let owns_named = || owns(state, &self.login, if word(2) == "CURRENT" { self.database.clone() } else { text(2) }.as_str());
        let may = state.may(&self.login, "*")
            || match needs {
                // who may not enter is told so by USE itself
                Needs::Nothing | Needs::Connect => true,
                Needs::Server(rights) => any(rights),
                Needs::Inside(what) => owns(state, &self.login, &self.database) || (what.starts_with("IMPERSONATE") && self.impersonates(state)),
                Needs::Named(rights) => any(rights) || owns_named(),
                Needs::Manager => any(&["dbmanager"]),
                Needs::ManagerOrOwner => any(&["dbmanager"]) || owns_named(),
                Needs::Administrator => false,
            };
        if may {
            return Ok(());
        }
        let what = format!("{} {}", word(0), word(1));
        Err(match (word(0).as_str(), word(1).as_str()) {
            ("KILL", _) => Failure::new(6_102, "User does not have permission to use the KILL statement."),
            ("ALTER", "DATABASE") => Failure::new(
                5_011,
                format!(
                    "User does not have permission to alter database '{}', the database does not exist, or the database is not in a state that allows access checks.",
                    text(2)
                ),
            ),
            ("CREATE" | "BACKUP" | "RESTORE", "DATABASE" | "FILELISTONLY") => Failure::new(262, format!("{what} permission denied in database 'master'.")),
            _ => Failure::new(15_247, format!("User does not have permission to perform this action ({what}).")),
        })
    }

    fn impersonates(&self, state: &State) -> bool {
        let user = self.user(state);
        let given = |db: &Database| db.permissions.iter().any(|p| !p.denied && p.name.starts_with("IMPERSONATE") && key(&p.grantee) == key(&user));
        state.databases.get(&key(&self.database)).is_some_and(given)
    }

    async fn change(&mut self, tokens: &[Token]) -> Result<u64, Failure> {
        let verb = tokens[0].text().to_uppercase();
        self.need(tokens, &verb, "db_datawriter")?;
        let sql = self.rewritten(tokens);
        let rows = query::run(self.sqlite().await?, &sql).await?;
        self.row_count = rows as i64;
        Ok(rows)
    }

    /// The role that a statement takes, for each table that it names.
    fn need(&self, tokens: &[Token], verb: &str, role: &str) -> Result<(), Failure> {
        self.server.with(|state| {
            let user = self.user(state);
            let db = state.database(&self.database)?;
            for (schema, table) in query::tables(tokens) {
                let free = table.starts_with('#') || key(&schema) == "sys" || key(&schema) == "information_schema";
                if !free && !db.is_member(&user, role) {
                    let text = format!("The {verb} permission was denied on the object '{table}', database '{}', schema '{schema}'.", db.name);
                    return Err(Failure::new(229, text));
                }
            }
            Ok(())
        })
    }

    pub async fn transaction(&mut self, verb: &str, out: &mut Vec<u8>) -> Result<Option<u64>, Failure> {
        let descriptor = u64::from(self.id) << 8 | 1;
        match (verb, self.transactions) {
            ("BEGIN", 0) => {
                query::run(self.sqlite().await?, "BEGIN").await?;
                self.transactions = 1;
                put_transaction(out, 8, descriptor);
            }
            ("BEGIN", _) => self.transactions += 1,
            (_, 0) => return Err(Failure::new(3902, format!("The {verb} TRANSACTION request has no corresponding BEGIN TRANSACTION."))),
            ("COMMIT", 2..) => self.transactions -= 1,
            (verb, _) => {
                query::run(self.sqlite().await?, verb).await?;
                self.transactions = 0;
                put_transaction(out, if verb == "COMMIT" { 9 } else { 10 }, descriptor);
            }
        }
        Ok(None)
    }

    fn begin_bulk(&mut self, tokens: &[Token]) -> Result<Option<u64>, Failure> {
        let open = tokens.iter().position(|t| t.is_symbol('(')).unwrap_or(tokens.len());
        let target: Vec<Token> = [Token::Word("INTO".to_owned())].into_iter().chain(tokens[2..open].iter().cloned()).collect();
        self.need(&target, "INSERT", "db_datawriter")?;
        let mut columns = Vec::new();
        let (mut depth, mut first) = (0, false);
        for token in &tokens[open..] {
            match token {
                Token::Symbol('(') => {
                    depth += 1;
                    first = depth == 1;
                }
                Token::Symbol(')') if depth == 1 => break,
                Token::Symbol(')') => depth -= 1,
                Token::Symbol(',') if depth == 1 => first = true,
                name if first => {
                    columns.push(name.text());
                    first = false;
                }
                _ => {}
            }
        }
        self.bulk = Some((self.rewritten(&target[1..]), columns));
        Ok(None)
    }

    /// Rows that came in bulk.
    pub async fn bulk_rows(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, Failure> {
        let (table, columns) = self.bulk.take().ok_or_else(|| Failure::new(4_022, "Bulk load data was expected but not sent."))?;
        let columns = columns.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ");
        let count = rows.len() as u64;
        for rows in rows.chunks(500) {
            let values = rows.iter().map(|row| format!("({})", row.iter().map(query::literal).collect::<Vec<_>>().join(", "))).collect::<Vec<_>>().join(", ");
            query::run(self.sqlite().await?, &format!("INSERT INTO {table} ({columns}) VALUES {values}")).await?;
        }
        Ok(count)
    }

    async fn define(&mut self, tokens: &[Token]) -> Result<(), Failure> {
        let word = |n: usize| tokens.get(n).map(|t| t.text().to_uppercase()).unwrap_or_default();
        let text = |n: usize| tokens.get(n).map(Token::text).unwrap_or_default();
        if word(1) == "TABLE" {
            return self.table(tokens).await;
        }
        let sparse = self.server.options.sparse;
        let azure = self.server.options.azure();
        let (me, here) = (self.login.clone(), self.database.clone());
        let mut renamed = None;
        let done = self.server.with(|state| {
            let options = Options::read(tokens);
            let folder = self.server.folder.clone();
            match (word(0).as_str(), word(1).as_str()) {
                ("BACKUP", "DATABASE") => state.backup(tokens, &folder),
                ("RESTORE", "DATABASE") => state.restore(tokens, &folder),
                ("CREATE", "DATABASE") => {
                    if !tokens.iter().any(|t| t.is("COPY")) {
                        return state.empty_database(&text(2), &me, &folder);
                    }
                    if !azure {
                        return Err(Failure::new(102, "Incorrect syntax near 'COPY'."));
                    }
                    state.copy_of(tokens, &folder)
                }
                ("ALTER", "DATABASE") => {
                    if azure && !tokens.iter().any(|t| t.is("MODIFY")) {
                        return Err(Failure::new(40_517, "Keyword or statement option is not supported in this version of SQL Server."));
                    }
                    renamed = state.alter_database(tokens, self.id, &here, azure)?;
                    Ok(())
                }
                ("DROP", "DATABASE") => state.drop_database(tokens, self.id),
                ("CREATE", "LOGIN") => {
                    if sparse && tokens.iter().any(|t| t.is("CHECK_POLICY")) {
                        return Err(Failure::new(102, "'CHECK_POLICY' is not a recognized option."));
                    }
                    let name = text(2);
                    if state.logins.contains_key(&key(&name)) {
                        return Err(Failure::new(15_025, format!("The server principal '{name}' already exists.")));
                    }
                    let password = options.text("PASSWORD").unwrap_or_default();
                    check_password(&password, &options)?;
                    let sid = options.bytes("SID").unwrap_or_else(|| uuid::Uuid::now_v7().as_bytes().to_vec());
                    let default_database = options.text("DEFAULT_DATABASE").unwrap_or_else(|| "master".to_owned());
                    state.logins.insert(key(&name), Login { name, password, sid, disabled: false, default_database, rights: [].into() });
                    Ok(())
                }
                ("ALTER", "LOGIN") => {
                    let login = state.logins.get_mut(&key(&text(2))).ok_or_else(|| no_login(&text(2)))?;
                    match word(3).as_str() {
                        "DISABLE" => login.disabled = true,
                        "ENABLE" => login.disabled = false,
                        _ => login.password = options.text("PASSWORD").unwrap_or_else(|| login.password.clone()),
                    }
                    Ok(())
                }
                ("DROP", "LOGIN") => {
                    if state.sessions.values().any(|s| key(&s.login) == key(&text(2))) {
                        return Err(Failure::new(15_434, format!("Could not drop login '{}' as the user is currently logged in.", text(2))));
                    }
                    state.logins.remove(&key(&text(2))).map(drop).ok_or_else(|| no_login(&text(2)))
                }
                ("CREATE", "USER") => {
                    let name = text(2);
                    let id = state.principal_id();
                    let password = options.text("PASSWORD");
                    if password.is_some() && !azure {
                        return Err(Failure::new(33_233, "You can only create a user with a password in a contained database."));
                    }
                    let sid = match &password {
                        Some(_) => uuid::Uuid::now_v7().as_bytes().to_vec(),
                        None => {
                            let login = tokens.iter().position(|t| t.is("LOGIN")).map_or(name.clone(), |at| text(at + 1));
                            state.logins.get(&key(&login)).ok_or_else(|| no_login(&login))?.sid.clone()
                        }
                    };
                    let db = state.database(&here)?;
                    if db.principals.contains_key(&key(&name)) {
                        return Err(Failure::new(15_023, format!("User, group, or role '{name}' already exists in the current database.")));
                    }
                    db.principals.insert(key(&name), Principal { name, id, sid, is_role: false, password, owner: String::new() });
                    Ok(())
                }
                ("ALTER", "USER") => {
                    let login = tokens
                        .iter()
                        .position(|t| t.is("LOGIN"))
                        .and_then(|at| tokens.get(at + 1).filter(|t| !t.is_symbol('=')).or(tokens.get(at + 2)))
                        .map(Token::text);
                    let sid = login.map(|login| state.logins.get(&key(&login)).map(|l| l.sid.clone()).ok_or_else(|| no_login(&login))).transpose()?;
                    let user = state.database(&here)?.principals.get_mut(&key(&text(2))).ok_or_else(|| no_principal(&text(2)))?;
                    user.sid = sid.unwrap_or_else(|| user.sid.clone());
                    user.password = options.text("PASSWORD").or(user.password.take());
                    Ok(())
                }
                ("DROP", "USER") => {
                    let (name, db) = (key(&text(2)), state.database(&here)?);
                    drop_user(db, &name)
                }
                ("ALTER", "ROLE") => {
                    let (role, member) = (key(&text(2)), key(&text(5)));
                    let db = state.database(&here)?;
                    for name in [&role, &member] {
                        db.principals.get(name).ok_or_else(|| no_principal(name))?;
                    }
                    match word(3).as_str() {
                        "ADD" => db.members.insert((role, member)),
                        _ => db.members.remove(&(role, member)),
                    };
                    Ok(())
                }
                ("CREATE", "ROLE") => {
                    let id = state.principal_id();
                    let owner = tokens.iter().position(|t| t.is("AUTHORIZATION")).map_or("dbo".to_owned(), |at| text(at + 1));
                    state
                        .database(&here)?
                        .principals
                        .insert(key(&text(2)), Principal { name: text(2), id, sid: Vec::new(), is_role: true, password: None, owner });
                    Ok(())
                }
                ("CREATE", "SCHEMA") => {
                    let owner = tokens.iter().position(|t| t.is("AUTHORIZATION")).map_or("dbo".to_owned(), |at| text(at + 1));
                    state.database(&here)?.schemas.insert(text(2), owner);
                    Ok(())
                }
                ("ALTER", "AUTHORIZATION") => {
                    // ON SCHEMA::[s] TO [dbo]
                    let (kind, thing, to) = (word(3), text(6), text(8));
                    if kind == "DATABASE" {
                        return Ok(());
                    }
                    let db = state.database(&here)?;
                    match kind.as_str() {
                        "SCHEMA" => *db.schemas.get_mut(&thing).ok_or_else(|| Failure::new(15_151, format!("Cannot find the schema '{thing}'.")))? = to,
                        _ => db.principals.get_mut(&key(&thing)).ok_or_else(|| no_principal(&thing))?.owner = to,
                    }
                    Ok(())
                }
                ("GRANT" | "DENY", _) => {
                    let to = tokens.iter().position(|t| t.is("TO")).ok_or_else(|| Failure::new(102, "Incorrect syntax near 'GRANT'."))?;
                    let name = tokens[1..to].iter().map(Token::text).collect::<Vec<_>>().join(" ").to_uppercase();
                    if sparse && name == "VIEW DEFINITION" {
                        return Err(Failure::new(102, "'GRANT VIEW DEFINITION' is not currently supported."));
                    }
                    // rights on the whole server belong to logins
                    if SERVER_RIGHTS.contains(&name.as_str()) && word(0) == "GRANT" {
                        let login = state.logins.get_mut(&key(&text(to + 1))).ok_or_else(|| no_login(&text(to + 1)))?;
                        login.rights.insert(name);
                        return Ok(());
                    }
                    let grantor = tokens.iter().position(|t| t.is("AS")).map_or_else(|| self.user(state), |at| text(at + 1));
                    let db = state.database(&here)?;
                    db.principals.get(&key(&text(to + 1))).ok_or_else(|| no_principal(&text(to + 1)))?;
                    db.permissions.retain(|p| !(p.name == name && key(&p.grantee) == key(&text(to + 1))));
                    db.permissions.push(Permission { name, grantee: text(to + 1), grantor, denied: word(0) == "DENY" });
                    Ok(())
                }
                ("REVOKE", _) => {
                    let from = tokens.iter().position(|t| t.is("FROM")).ok_or_else(|| Failure::new(102, "Incorrect syntax near 'REVOKE'."))?;
                    let grantee = key(&text(from + 1));
                    let name = tokens[1..from].iter().map(Token::text).collect::<Vec<_>>().join(" ").to_uppercase();
                    state.database(&here)?.permissions.retain(|p| !(key(&p.grantee) == grantee && (name == "ALL" || p.name == name)));
                    Ok(())
                }
                ("KILL", _) => {
                    let id: u16 = text(1).parse().map_err(|_| Failure::new(6_106, "Process ID is not a valid number."))?;
                    let session = state.sessions.get(&id).ok_or_else(|| Failure::new(6_106, format!("Process ID {id} is not an active process ID.")))?;
                    session.kill.notify_one();
                    // nobody of ours serves the one who waits for a place
                    if session.program == state::WAITS {
                        state.sessions.remove(&id);
                    }
                    Ok(())
                }
                ("EXEC" | "EXECUTE", _) => procedure(state, &here, &text(1), &parameters(&tokens[2..]), azure),
                _ => Ok(()),
            }
        });
        if let Some(name) = renamed {
            self.database = name;
        }
        done
    }

    async fn table(&mut self, tokens: &[Token]) -> Result<(), Failure> {
        let temporary = tokens.get(2).is_some_and(|t| t.text().starts_with('#'));
        let owner = self.server.with(|state| {
            let user = self.user(state);
            state.database(&self.database).map(|db| db.is_member(&user, "db_owner"))
        })?;
        if !temporary && !owner {
            return Err(Failure::new(262, format!("CREATE TABLE permission denied in database '{}'.", self.database)));
        }
        // what SQLite does by itself, or does not know
        let mut kept: Vec<Token> = Vec::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            if token.is("IDENTITY") {
                at += if tokens.get(at).is_some_and(|t| t.is_symbol('(')) { 5 } else { 0 };
                continue;
            }
            kept.push(token.clone());
            if kept.len() == 1 && temporary && token.is("CREATE") {
                kept.push(Token::Word("TEMP".to_owned()));
            }
        }
        let sql = self.rewritten(&kept);
        query::run(self.sqlite().await?, &sql).await.map(drop)
    }
}

const SERVER_RIGHTS: &[&str] = &["ALTER ANY LOGIN", "ALTER ANY CONNECTION", "VIEW SERVER STATE", "CREATE ANY DATABASE", "ALTER ANY DATABASE"];

/// Who may run what only clients and tests send.
fn undocumented_needs(tokens: &[Token]) -> Needs {
    let word = |n: usize| tokens.get(n).map(|t| t.text().to_uppercase()).unwrap_or_default();
    match (word(0).as_str(), word(1).as_str()) {
        (_, "LOGIN") => Needs::Server(&["ALTER ANY LOGIN"]),
        // made by a rule of its own
        (_, "TABLE") => Needs::Nothing,
        ("CREATE" | "ALTER" | "DROP" | "RESTORE", "DATABASE") => Needs::Server(&["CREATE ANY DATABASE"]),
        ("CREATE" | "ALTER" | "DROP" | "BACKUP", _) => Needs::Inside("CONTROL"),
        _ => Needs::Nothing,
    }
}

fn no_login(name: &str) -> Failure {
    Failure::new(15_151, format!("Cannot find the login '{name}', because it does not exist or you do not have permission."))
}

fn no_principal(name: &str) -> Failure {
    Failure::new(15_151, format!("Cannot find the user or role '{name}', because it does not exist or you do not have permission."))
}

fn drop_user(db: &mut Database, name: &str) -> Result<(), Failure> {
    db.principals.get(name).ok_or_else(|| no_principal(name))?;
    if db.schemas.values().any(|owner| key(owner) == name) {
        return Err(Failure::new(15_138, "The database principal owns a schema in the database, and cannot be dropped."));
    }
    if db.principals.values().any(|p| key(&p.owner) == name) {
        return Err(Failure::new(15_421, "The database principal owns a database role and cannot be dropped."));
    }
    if db.permissions.iter().any(|p| key(&p.grantor) == name) {
        return Err(Failure::new(15_284, "The database principal has granted or denied permissions to objects in the database and cannot be dropped."));
    }
    db.principals.remove(name);
    db.members.retain(|(_, member)| member != name);
    db.permissions.retain(|p| key(&p.grantee) != name);
    db.properties.retain(|p| p.class == 0 || key(&p.on) != name);
    Ok(())
}

/// A password that the policy takes: three of four kinds of characters.
fn check_password(password: &str, options: &Options) -> Result<(), Failure> {
    let kinds: [fn(char) -> bool; 4] = [char::is_uppercase, char::is_lowercase, |c| c.is_ascii_digit(), |c| !c.is_alphanumeric()];
    let found = kinds.iter().filter(|kind| password.chars().any(kind)).count();
    if options.text("CHECK_POLICY").is_some_and(|on| on == "ON") && (found < 3 || password.len() < 8) {
        return Err(Failure::new(
            15_118,
            "Password validation failed. The password does not meet the operating system policy requirements because it is not complex enough.",
        ));
    }
    Ok(())
}

/// `NAME = value` pairs, wherever they stand.
struct Options(HashMap<String, String>);

impl Options {
    fn read(tokens: &[Token]) -> Options {
        let pairs = tokens.windows(3).filter(|three| three[1].is_symbol('='));
        Options(pairs.map(|three| (three[0].text().to_uppercase(), three[2].text())).collect())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let hex = self.0.get(name)?.get(2..)?;
        (0..hex.len() / 2).map(|n| u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()).collect()
    }
}

/// Named parameters of a procedure.
fn parameters(tokens: &[Token]) -> HashMap<String, String> {
    tokens.windows(3).filter(|three| three[1].is_symbol('=')).map(|three| (three[0].text().to_lowercase(), three[2].text())).collect()
}

/// The procedures that Daypass calls.
pub fn procedure(state: &mut State, here: &str, name: &str, with: &HashMap<String, String>, azure: bool) -> Result<(), Failure> {
    let value = |name: &str| with.get(name).cloned().unwrap_or_default();
    let name = key(name);
    let db = state.database(here)?;
    match name.as_str() {
        "sp_dropextendedproperty" => {
            let on = if with.contains_key("@level0type") { value("@level0name") } else { String::new() };
            db.properties.retain(|p| !(key(&p.on) == key(&on) && p.name == value("@name")));
            Ok(())
        }
        "sp_addextendedproperty" | "sp_updateextendedproperty" => {
            let (class, on) = match with.get("@level0type") {
                Some(_) => (4, value("@level0name")),
                None => (0, String::new()),
            };
            let there = db.properties.iter().position(|p| p.class == class && key(&p.on) == key(&on) && p.name == value("@name"));
            match (name.starts_with("sp_add"), there) {
                (true, Some(_)) => return Err(Failure::new(15_233, "Property cannot be added. Property already exists.")),
                (false, None) => return Err(Failure::new(15_217, "Property cannot be updated or deleted. Property does not exist.")),
                (true, None) => db.properties.push(Property { class, on, name: value("@name"), value: value("@value") }),
                (false, Some(at)) => db.properties[at].value = value("@value"),
            }
            Ok(())
        }
        "sp_set_database_firewall_rule" if azure => {
            db.rules.retain(|(name, ..)| *name != value("@name"));
            db.rules.push((value("@name"), value("@start_ip_address"), value("@end_ip_address")));
            Ok(())
        }
        "sp_delete_database_firewall_rule" if azure => {
            db.rules.retain(|(name, ..)| *name != value("@name"));
            Ok(())
        }
        name if name.contains("firewall_rule") => Err(Failure::new(2_812, format!("Could not find stored procedure '{name}'."))),
        _ => Ok(()),
    }
}

/// `hh:mm[:ss[.fff]]`.
fn delay(text: &str) -> Option<Duration> {
    let mut parts = text.split(':');
    let (hours, minutes): (u64, u64) = (parts.next()?.trim().parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next().unwrap_or("0").parse().ok()?;
    Some(Duration::from_secs(3_600 * hours + 60 * minutes) + Duration::from_secs_f64(seconds))
}

/// `SELECT value, REPLICATE('x', width) AS filler FROM GENERATE_SERIES(1, count)`: as many rows as are wanted, without a table.
struct Series {
    count: u64,
    width: usize,
}

impl Series {
    fn read(tokens: &[Token]) -> Option<Series> {
        let number = |at: usize| tokens.get(at)?.text().parse::<u64>().ok();
        let at = |word: &str| tokens.iter().position(|t| t.is(word));
        let series = at("GENERATE_SERIES")?;
        Some(Series { count: number(series + 4)?, width: at("REPLICATE").and_then(|at| number(at + 4)).map_or(0, |n| n as usize) })
    }

    async fn put(self, out: &mut Vec<u8>, reply: &mut impl Reply) -> Result<u64, Gone> {
        let row = |n: u64| vec![Value::Integer(n as i64), Value::Text("x".repeat(self.width))];
        let head = Table { columns: ["value", "filler"].map(Column::named).into(), rows: vec![row(0)] };
        let mut bytes = Vec::new();
        head.put(&mut bytes);
        // a row: its token, a length, eight bytes of number; then the text, which is the same in all
        let row_at = bytes.len() - (1 + 1 + 8 + 2 + 2 * self.width);
        out.extend_from_slice(&bytes[..row_at]);
        let mut template = bytes.split_off(row_at);
        for n in 1..=self.count {
            template[2..10].copy_from_slice(&n.to_le_bytes());
            out.extend_from_slice(&template);
            if out.len() >= 64 * 1024 {
                reply.put(out).await?;
            }
        }
        Ok(self.count)
    }
}
