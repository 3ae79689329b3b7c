//! What the stand-in does with whole databases: backup, restore under another name, copies, names, states.

use super::{
    created_now,
    documented::FILES,
    lexer::Token,
    reply::{Column, Table, Value},
    state::{Database, Failure, Session, State, WAITS, key},
};
use std::path::{Path, PathBuf};
use uuid::Uuid;

fn words(tokens: &[Token]) -> Vec<String> {
    tokens.iter().map(|token| token.text().to_uppercase()).collect()
}

fn disk(tokens: &[Token]) -> String {
    let at = tokens.iter().position(|token| token.is("DISK"));
    at.and_then(|at| tokens.get(at + 2)).map(Token::text).unwrap_or_default()
}

/// A folder of its own with the same rows.
fn copied(from: &Path, to: &Path) -> Result<PathBuf, Failure> {
    let folder = to.join(Uuid::now_v7().simple().to_string());
    let copy = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        Ok(())
    };
    copy().map_err(|e| Failure::new(3_201, format!("Cannot open backup device: {e}")))?;
    Ok(folder)
}

impl State {
    /// `BACKUP DATABASE [x] TO DISK = N'…' WITH …`
    pub fn backup(&mut self, tokens: &[Token], folder: &Path) -> Result<(), Failure> {
        let name = tokens.get(2).map(Token::text).unwrap_or_default();
        let mut copy = self.database(&name)?.clone();
        copy.folder = copied(&copy.folder, folder)?;
        self.backups.insert(disk(tokens), copy);
        Ok(())
    }

    fn backup_of(&self, tokens: &[Token]) -> Result<&Database, Failure> {
        let device = disk(tokens);
        self.backups.get(&device).ok_or_else(|| {
            Failure::new(3_201, format!("Cannot open backup device '{device}'. Operating system error 2(The system cannot find the file specified.)."))
        })
    }

    /// The files in a backup, as documented (RESTORE Statements - FILELISTONLY, Transact-SQL reference).
    pub fn files_in(&self, tokens: &[Token]) -> Result<Table, Failure> {
        let name = self.backup_of(tokens)?.name.clone();
        let text = |text: &str| Value::Text(text.to_owned());
        let file = |id: i64, suffix: &str, ending: &str, kind: &str, group: Value| {
            let place = format!("/var/opt/mssql/data/{name}{suffix}.{ending}");
            let guid = Uuid::now_v7().to_string();
            let known = [text(&format!("{name}{suffix}")), text(&place), text(kind), group, Value::Integer(8_388_608), Value::Integer(35_184_372_080_640)];
            let numbers = [Value::Integer(id), Value::Integer(0), Value::Integer(0), text(&guid), Value::Integer(0), Value::Integer(0)];
            let sizes = [Value::Integer(3_145_728), Value::Integer(4_096), Value::Integer(i64::from(kind == "D")), Value::Null];
            let rest = [Value::Integer(37_000_000_047_200_062), text(&guid), Value::Integer(0), Value::Integer(1), Value::Null, Value::Null];
            known.into_iter().chain(numbers).chain(sizes).chain(rest).collect()
        };
        let columns = FILES.iter().map(|(name, ty)| Column { ty: Some((*ty, true)), ..Column::named(*name) });
        Ok(Table { columns: columns.collect(), rows: vec![file(1, "", "mdf", "D", text("PRIMARY")), file(2, "_log", "ldf", "L", Value::Null)] })
    }

    /// `RESTORE DATABASE [x] FROM DISK = N'…' WITH MOVE …`: only to a name that is not there.
    pub fn restore(&mut self, tokens: &[Token], folder: &Path) -> Result<(), Failure> {
        let (name, all) = (tokens.get(2).map(Token::text).unwrap_or_default(), words(tokens));
        let moves = all.iter().filter(|word| *word == "MOVE").count();
        if self.databases.contains_key(&key(&name)) {
            return Err(Failure::new(3_159, format!("The tail of the log for the database \"{name}\" has not been backed up.")));
        }
        if moves < 2 {
            return Err(Failure::new(1_834, "The file cannot be overwritten. It is being used by another database."));
        }
        let copy = self.backup_of(tokens)?.clone();
        self.place(copy, &name, folder)
    }

    /// `CREATE DATABASE [x] AS COPY OF [y]`
    pub fn copy_of(&mut self, tokens: &[Token], folder: &Path) -> Result<(), Failure> {
        let (name, from) = (tokens.get(2).map(Token::text).unwrap_or_default(), tokens.get(6).map(Token::text).unwrap_or_default());
        let copy = self.database(&from)?.clone();
        self.place(copy, &name, folder)
    }

    /// `CREATE DATABASE [x] COLLATE y`: an empty one, whose owner is whoever made it.
    pub fn empty_database(&mut self, name: &str, login: &str, folder: &Path) -> Result<(), Failure> {
        if self.databases.contains_key(&key(name)) {
            return Err(Failure::new(1_801, format!("Database '{name}' already exists. Choose a different database name.")));
        }
        let sid = self.logins.get(&key(login)).map(|login| login.sid.clone()).unwrap_or_default();
        let mut copy = self.database("master")?.clone();
        copy.folder = folder.join(Uuid::now_v7().simple().to_string());
        std::fs::create_dir_all(&copy.folder).map_err(|e| Failure::new(1_802, format!("CREATE DATABASE failed: {e}")))?;
        copy.principals.retain(|name, principal| principal.is_role || name == "dbo");
        copy.principals.entry("dbo".to_owned()).and_modify(|dbo| dbo.sid = sid);
        copy.members = [("db_owner".to_owned(), "dbo".to_owned())].into();
        copy.schemas.retain(|schema, _| schema == "dbo");
        (copy.properties, copy.permissions, copy.rules) = (Vec::new(), Vec::new(), Vec::new());
        self.next_database += 1;
        (copy.id, copy.created, copy.guid, copy.fork, copy.broker) = (self.next_database, created_now(), Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        copy.name = name.to_owned();
        self.databases.insert(key(name), copy);
        Ok(())
    }

    fn place(&mut self, mut copy: Database, name: &str, folder: &Path) -> Result<(), Failure> {
        copy.folder = copied(&copy.folder, folder)?;
        self.next_database += 1;
        (copy.id, copy.created, copy.guid, copy.fork) = (self.next_database, created_now(), Uuid::now_v7(), Uuid::now_v7());
        copy.name = name.to_owned();
        self.databases.insert(key(name), copy);
        Ok(())
    }

    /// `ALTER DATABASE [x] | CURRENT SET … | MODIFY NAME = [y]`. The name of the database that the session is in, if that is another now.
    pub fn alter_database(&mut self, tokens: &[Token], me: u16, here: &str, azure: bool) -> Result<Option<String>, Failure> {
        let name = match tokens.get(2) {
            Some(current) if current.is("CURRENT") => here.to_owned(),
            name => name.map(Token::text).unwrap_or_default(),
        };
        let all = words(tokens);
        let has = |word: &str| all.iter().any(|known| known == word);
        let others = |state: &State| state.sessions.iter().any(|(id, session)| *id != me && key(&session.database) == key(&name));
        let crowded = others(self);
        if self.database(&name)?.single_user && crowded {
            let text = format!(
                "Changes to the state or options of database '{name}' cannot be made at this time. The database is in single-user mode, and a user is currently connected to it."
            );
            return Err(Failure::new(5_064, text));
        }
        if has("MODIFY") {
            if crowded {
                return Err(Failure::new(5_030, "The database could not be exclusively locked to perform the operation."));
            }
            let to = tokens.last().map(Token::text).unwrap_or_default();
            if self.databases.contains_key(&key(&to)) {
                return Err(Failure::new(1_801, format!("Database '{to}' already exists. Choose a different database name.")));
            }
            if let Some(mut database) = self.databases.remove(&key(&name)) {
                database.name.clone_from(&to);
                if !azure {
                    // a new name is a new date (sys.databases, create_date)
                    database.created = created_now();
                }
                self.databases.insert(key(&to), database);
            }
            let mine = self.sessions.get_mut(&me).filter(|session| key(&session.database) == key(&name));
            return Ok(mine.map(|session| session.database.clone_from(&to)).map(|()| to));
        }
        if has("ROLLBACK") {
            for (id, session) in &self.sessions {
                if *id != me && key(&session.database) == key(&name) {
                    session.kill.notify_one();
                }
            }
            // they are gone when the statement is done
            self.sessions.retain(|id, session| *id == me || key(&session.database) != key(&name));
        }
        let database = self.database(&name)?;
        if has("SINGLE_USER") || has("MULTI_USER") {
            database.single_user = has("SINGLE_USER");
        }
        if has("OFFLINE") || has("ONLINE") {
            database.offline = has("OFFLINE");
        }
        if has("AUTO_UPDATE_STATISTICS_ASYNC") {
            database.statistics_async = has("ON");
        }
        if has("TRUSTWORTHY") {
            database.trustworthy = has("ON");
        }
        if has("NEW_BROKER") {
            database.broker = Uuid::now_v7();
        }
        self.take_place(&name);
        Ok(None)
    }

    /// Somebody who waits for the one place of a database is in it, if it is free; so does the engine, for its statistics.
    pub fn take_place(&mut self, name: &str) {
        let free = !self.sessions.values().any(|session| key(&session.database) == key(name));
        let Some(database) = self.databases.get(&key(name)).filter(|database| database.single_user && free) else { return };
        if !database.statistics_async && !self.waiting.contains(&key(name)) {
            return;
        }
        let database = database.name.clone();
        let stranger = Session {
            login: "app".to_owned(),
            executes_as: "app".to_owned(),
            database,
            host: "APP01".to_owned(),
            program: WAITS.to_owned(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            kill: std::sync::Arc::default(),
        };
        self.next_session = self.next_session.wrapping_add(1).max(51);
        self.sessions.insert(self.next_session, stranger);
    }

    pub fn drop_database(&mut self, tokens: &[Token], me: u16) -> Result<(), Failure> {
        let name = tokens.get(2).map(Token::text).unwrap_or_default();
        self.database(&name)?;
        if self.sessions.iter().any(|(id, session)| *id != me && key(&session.database) == key(&name)) {
            return Err(Failure::new(3_702, format!("Cannot drop database \"{name}\" because it is currently in use.")));
        }
        self.databases.remove(&key(&name));
        Ok(())
    }
}
