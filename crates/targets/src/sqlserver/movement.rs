//! Replacing a database of SQL Server: the new one is made under a name of its own by BACKUP and RESTORE (on Azure SQL Database as a copy),
//! swept, and takes the name. Never by RESTORE over the living one: a restore that fails leaves that unusable.
//!
//! Names are exchanged by two statements, since `ALTER DATABASE … MODIFY NAME` stands in no transaction; what a crash leaves between
//! them is found by its names and put back.

use super::{
    MASTER, SqlServer, bacpac, column,
    link::{Edition, Link, name, text},
    obstacles,
};
use crate::{
    AnyTarget, Check, TargetError,
    movement::{Move, Progress, Source, Standing},
};
use daypass_core::names::DatabaseName;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

pub const ANOTHER_SERVER: &str = "the two databases lie on different servers, and a backup of one is no file of the other. `daypass move SOURCE export FILE.bacpac`, then `import FILE.bacpac` here";
pub const BY_AZURE: &str = "Azure SQL Managed Instance neither takes a database out of use nor restores one beside it. Replace the database with Azure's own tools, and tell Daypass: daypass move ENVIRONMENT external";

/// How often what takes long is asked about.
const LOOK: Duration = Duration::from_secs(2);

pub fn refused(why: impl Into<String>) -> TargetError {
    TargetError::Refused(why.into())
}

async fn exists(link: &mut Link, database: &str) -> Result<bool, TargetError> {
    link.exists(&format!("SELECT name FROM sys.databases WHERE name = {}", text(database))).await
}

async fn state(link: &mut Link, database: &str) -> Result<String, TargetError> {
    let look = format!("SELECT state_desc FROM sys.databases WHERE name = {}", text(database));
    Ok(link.rows(&look).await?.first().map(|row| column(row, 0)).unwrap_or_default())
}

/// What would stand in the way, and what is worth knowing: by the pages of the reference that each row names.
pub async fn look_ahead(target: &SqlServer, movement: &Move<'_>, source: Option<&Source<'_>>) -> Result<Vec<Check>, TargetError> {
    obstacles::look(target, movement, source).await
}

/// An exchange shows everybody out by itself (SINGLE_USER WITH ROLLBACK IMMEDIATE, or KILL on Azure).
pub async fn in_the_way(_target: &SqlServer, _movement: &Move<'_>) -> Result<Vec<Check>, TargetError> {
    Ok(Vec::new())
}

/// Makes the scratch database.
pub async fn copy(target: &SqlServer, movement: &Move<'_>, source: &Source<'_>) -> Result<(), TargetError> {
    let (from, same_server) = match source {
        Source::File(file) => {
            drop_database(&mut target.connect_long(MASTER).await?, movement.names.scratch.as_str()).await?;
            return bacpac::import(target, movement, file).await;
        }
        Source::Database { target: AnyTarget::SqlServer(_), database, same_server } => (*database, *same_server),
        Source::Database { .. } | Source::Server(_) => return Err(refused("the source is of another engine")),
    };
    if !same_server {
        return Err(refused(ANOTHER_SERVER));
    }
    let mut link = target.connect_long(MASTER).await?;
    let scratch = movement.names.scratch.as_str();
    if link.edition == Edition::Managed {
        // no SINGLE_USER, no RESTORE … WITH MOVE, backups to a URL only (ALTER DATABASE, RESTORE and BACKUP, their parts on Managed Instance)
        return Err(refused(BY_AZURE));
    }
    drop_database(&mut link, scratch).await?;
    if link.azure {
        copy_of(&mut link, from, scratch).await
    } else {
        let mut work = Work { target, link, progress: movement.progress, size: 0 };
        work.backup_and_restore(from, scratch, movement.environment.spec.name.as_str()).await
    }
}

/// Azure copies by itself, and says when it is done (Transact-SQL reference, "CREATE DATABASE … AS COPY OF").
async fn copy_of(link: &mut Link, from: &DatabaseName, scratch: &str) -> Result<(), TargetError> {
    link.run(&format!("CREATE DATABASE {} AS COPY OF {}", name(scratch), name(from.as_str()))).await?;
    loop {
        match state(link, scratch).await?.as_str() {
            "ONLINE" => return Ok(()),
            "COPYING" | "RESTORING" | "" => tokio::time::sleep(LOOK).await,
            other => return Err(refused(format!("the copy came to the state {other}"))),
        }
    }
}

/// A path of the server's own.
async fn folder(link: &mut Link, property: &str) -> Result<String, TargetError> {
    let path = link.maybe(&format!("SELECT CAST(SERVERPROPERTY('{property}') AS nvarchar(4000))")).await?;
    let path = path.filter(|path| !path.is_empty()).ok_or_else(|| refused(format!("the server does not say its {property}")))?;
    // a server on Linux has paths with the other slash
    let slash = if path.contains('/') { '/' } else { '\\' };
    Ok(format!("{}{slash}", path.trim_end_matches(['/', '\\'])))
}

/// Bytes of a page (Pages and extents architecture guide).
pub const PAGE: u64 = 8_192;

/// What takes long, with somebody beside it who says how far it is.
struct Work<'a> {
    target: &'a SqlServer,
    link: Link,
    progress: &'a Progress,
    /// Bytes of the source's files.
    size: u64,
}

impl Work<'_> {
    async fn backup_and_restore(&mut self, from: &DatabaseName, scratch: &str, environment: &str) -> Result<(), TargetError> {
        // one file for each environment, written over each time: there is no documented statement that deletes one
        let backup = text(&format!("{}daypass-{environment}.bak", folder(&mut self.link, "InstanceDefaultBackupPath").await?));
        let sql = format!("BACKUP DATABASE {} TO DISK = {backup} WITH COPY_ONLY, FORMAT, INIT, CHECKSUM", name(from.as_str()));
        let look = format!("SELECT SUM(CAST(size AS bigint)) FROM sys.master_files WHERE database_id = DB_ID({})", text(from.as_str()));
        let pages: u64 = self.link.maybe(&look).await?.and_then(|pages| pages.parse().ok()).unwrap_or_default();
        self.size = pages * PAGE;
        // it is read once and written once
        self.progress.expect(2 * self.size, 0);
        // Express has no compression
        match self.run(&format!("{sql}, COMPRESSION"), 0).await {
            Err(TargetError::Refused(_)) => self.run(&sql, 0).await?,
            done => done?,
        }
        let (data, log) = (folder(&mut self.link, "InstanceDefaultDataPath").await?, folder(&mut self.link, "InstanceDefaultLogPath").await?);
        let files = self.link.rows(&format!("RESTORE FILELISTONLY FROM DISK = {backup}")).await?;
        let moves: Vec<String> = files
            .iter()
            .enumerate()
            .map(|(n, file)| {
                // LogicalName, PhysicalName, Type: D is data, L the log, S what streams, F full text
                let (place, ending) = match (column(file, 2).as_str(), n) {
                    ("L", _) => (&log, "ldf"),
                    (_, 0) => (&data, "mdf"),
                    _ => (&data, "ndf"),
                };
                format!("MOVE {} TO {}", text(&column(file, 0)), text(&format!("{place}{scratch}_{n}.{ending}")))
            })
            .collect();
        self.run(&format!("RESTORE DATABASE {} FROM DISK = {backup} WITH {}, RECOVERY, CHECKSUM", name(scratch), moves.join(", ")), self.size).await
    }

    /// Runs a BACKUP or a RESTORE; its part of the whole begins at `before` bytes. How much is done stands in a view of the server
    /// (sys.dm_exec_requests, percent_complete), which only others can read while it runs.
    async fn run(&mut self, sql: &str, before: u64) -> Result<(), TargetError> {
        let session = self.link.maybe("SELECT @@SPID").await?.and_then(|id| id.parse::<u32>().ok()).unwrap_or_default();
        let look = format!("SELECT percent_complete FROM sys.dm_exec_requests WHERE session_id = {session}");
        let mut beside = self.target.connect_long(MASTER).await?;
        let watching = async {
            loop {
                tokio::time::sleep(LOOK).await;
                match beside.maybe(&look).await {
                    Ok(percent) => {
                        let percent = percent.and_then(|percent| percent.parse::<f64>().ok()).unwrap_or_default().clamp(0.0, 100.0);
                        self.progress.bytes.store(before + (self.size as f64 * percent / 100.0) as u64, Ordering::Relaxed);
                    }
                    // not to know how far it is stops nothing
                    Err(_) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            done = self.link.run(sql) => done?,
            () = watching => {}
        }
        self.progress.bytes.store(before + self.size, Ordering::Relaxed);
        Ok(())
    }
}

async fn drop_database(link: &mut Link, database: &str) -> Result<(), TargetError> {
    if !exists(link, database).await? {
        return Ok(());
    }
    let drop = format!("DROP DATABASE {}", name(database));
    if link.azure {
        // it stands alone in its batch there (DROP DATABASE)
        return link.run(&drop).await;
    }
    // "not a fail-proof approach" (the same page): somebody else may take the one place in between
    let deadline = Instant::now() + PATIENCE;
    loop {
        match link.run(&format!("ALTER DATABASE {} SET SINGLE_USER WITH ROLLBACK IMMEDIATE; {drop}", name(database))).await {
            Err(TargetError::Refused(_)) if Instant::now() < deadline && exists(link, database).await? => {
                open_to_all(link, database).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(TargetError::Refused(_)) if !exists(link, database).await? => return Ok(()),
            done => return done,
        }
    }
}

/// How long whoever is still leaving may hold up the name.
const PATIENCE: Duration = Duration::from_secs(20);

/// Shows everybody out and gives the database another name.
async fn rename(target: &SqlServer, link: &mut Link, from: &str, to: &str) -> Result<(), TargetError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let renamed = if link.azure {
            show_out(target, from).await?;
            link.run(&format!("ALTER DATABASE {} MODIFY NAME = {}", name(from), name(to))).await
        } else {
            rename_alone(link, from, to).await
        };
        match renamed {
            Err(TargetError::Refused(_)) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            done => return done,
        }
    }
}

/// Gives a database another name, with nobody else in it.
async fn rename_alone(link: &mut Link, from: &str, to: &str) -> Result<(), TargetError> {
    // what updates statistics by itself takes the one place as well (ALTER DATABASE SET options, SINGLE_USER)
    let asynchronous = format!("SELECT name FROM sys.databases WHERE name = {} AND is_auto_update_stats_async_on = 1", text(from));
    let statistics = link.exists(&asynchronous).await?;
    if statistics {
        link.run(&format!("ALTER DATABASE {} SET AUTO_UPDATE_STATISTICS_ASYNC OFF", name(from))).await?;
    }
    let renamed = alone(link, from, &format!("ALTER DATABASE CURRENT MODIFY NAME = {}", name(to))).await;
    if statistics {
        let now = if renamed.is_ok() { to } else { from };
        link.attempt(&format!("ALTER DATABASE {} SET AUTO_UPDATE_STATISTICS_ASYNC ON", name(now))).await?;
    }
    renamed
}

/// Runs a statement on a database that nobody else is in. From inside, so that the one place that is left is ours from the moment in which
/// everybody else loses theirs: whoever asks from outside leaves it to whoever comes first, and then nobody else can so much as open the
/// database again (ALTER DATABASE SET options, SINGLE_USER; error 5064).
pub async fn alone(link: &mut Link, database: &str, statement: &str) -> Result<(), TargetError> {
    link.run(&format!("USE {}", name(database))).await?;
    // an error of one ends that statement, and the batch goes on: so the last is reached on every way that leaves the connection alive
    let done = link
        .run(&format!(
            "ALTER DATABASE CURRENT SET SINGLE_USER WITH ROLLBACK IMMEDIATE; {statement}; ALTER DATABASE CURRENT SET MULTI_USER WITH ROLLBACK IMMEDIATE"
        ))
        .await;
    link.run(&format!("USE {}", name(MASTER))).await?;
    done
}

/// The database takes everybody, also where somebody else sits in the one place of a database that an interrupted exchange left to one user.
async fn open_to_all(link: &mut Link, database: &str) -> Result<(), TargetError> {
    let of = text(database);
    let alone = format!("SELECT name FROM sys.databases WHERE user_access <> 0 AND name = {of}");
    let inside = format!("SELECT session_id FROM sys.dm_exec_sessions WHERE session_id <> @@SPID AND database_id = DB_ID({of})");
    let deadline = Instant::now() + PATIENCE;
    while link.exists(&alone).await? {
        // in one batch: between two, the place would be free for the next
        let kill: String = link.rows(&inside).await?.iter().filter_map(|row| column(row, 0).parse::<u32>().ok()).map(|id| format!("KILL {id}; ")).collect();
        match link.run(&format!("{kill}ALTER DATABASE {} SET MULTI_USER WITH ROLLBACK IMMEDIATE", name(database))).await {
            Err(TargetError::Refused(_)) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            done => done?,
        }
    }
    Ok(())
}

/// Azure has no single user: each session is ended, from inside, where alone it can be seen.
async fn show_out(target: &SqlServer, database: &str) -> Result<(), TargetError> {
    let mut link = target.connect_long(database).await?;
    let others = "SELECT session_id FROM sys.dm_exec_sessions WHERE session_id <> @@SPID AND database_id = DB_ID()";
    for id in link.attempt(others).await?.unwrap_or_default().iter().filter_map(|row| column(row, 0).parse::<u32>().ok()) {
        link.attempt(&format!("KILL {id}")).await?;
    }
    Ok(())
}

/// The database is put aside and out of reach, then `incoming` takes its name.
pub async fn swap(target: &SqlServer, movement: &Move<'_>, incoming: &DatabaseName) -> Result<(), TargetError> {
    let mut link = target.connect_long(MASTER).await?;
    let (database, incoming, old) = (movement.environment.spec.database.as_str(), incoming.as_str(), movement.names.old.as_str());
    if state(&mut link, incoming).await? == "OFFLINE" {
        link.run(&format!("ALTER DATABASE {} SET ONLINE", name(incoming))).await?;
    }
    rename(target, &mut link, database, old).await?;
    rename(target, &mut link, incoming, database).await?;
    open(target, &mut link, database, old).await
}

/// The database in place takes everybody, the one put aside nobody.
async fn open(target: &SqlServer, link: &mut Link, database: &str, old: &str) -> Result<(), TargetError> {
    if link.azure {
        reopen(&mut target.connect_long(database).await?).await?;
        return close(&mut target.connect_long(old).await?, &target.spec.admin).await;
    }
    open_to_all(link, database).await?;
    link.run(&format!("ALTER DATABASE {} SET OFFLINE WITH ROLLBACK IMMEDIATE", name(old))).await
}

/// The name of the property on users whom we shut out of a database that was put aside.
const CLOSED: &str = "daypass closed";

/// Azure SQL Database has no OFFLINE: instead nobody but the administrator may connect. Who could not before is left as it was.
async fn close(link: &mut Link, admin: &str) -> Result<(), TargetError> {
    let look = "SELECT u.name FROM sys.database_principals u WHERE u.type IN ('S', 'U', 'G', 'E', 'X') AND u.principal_id > 4 \
                AND NOT EXISTS (SELECT 1 FROM sys.database_permissions p WHERE p.grantee_principal_id = u.principal_id AND p.type = 'CO' AND p.state = 'D')";
    let users: Vec<String> = link.rows(look).await?.iter().map(|row| column(row, 0)).collect();
    for user in users.iter().filter(|user| !user.eq_ignore_ascii_case(admin) && user.as_str() != "dbo") {
        link.run(&format!(
            "EXEC sp_addextendedproperty @name = {}, @value = N'1', @level0type = N'USER', @level0name = {}; DENY CONNECT TO {}",
            text(CLOSED),
            text(user),
            name(user)
        ))
        .await?;
    }
    Ok(())
}

/// Whoever we shut out of a database that is brought back may connect again.
async fn reopen(link: &mut Link) -> Result<(), TargetError> {
    let look = format!(
        "SELECT u.name FROM sys.extended_properties e JOIN sys.database_principals u ON u.principal_id = e.major_id \
         WHERE e.class = 4 AND e.name = {}",
        text(CLOSED)
    );
    let users: Vec<String> = link.rows(&look).await?.iter().map(|row| column(row, 0)).collect();
    for user in &users {
        link.run(&format!(
            "GRANT CONNECT TO {}; EXEC sp_dropextendedproperty @name = {}, @level0type = N'USER', @level0name = {}",
            name(user),
            text(CLOSED),
            text(user)
        ))
        .await?;
    }
    Ok(())
}

pub async fn settle(target: &SqlServer, movement: &Move<'_>, incoming: &DatabaseName) -> Result<Standing, TargetError> {
    let mut link = target.connect_long(MASTER).await?;
    let (database, old) = (movement.environment.spec.database.as_str(), movement.names.old.as_str());
    let there = (exists(&mut link, database).await?, exists(&mut link, old).await?, exists(&mut link, incoming.as_str()).await?);
    match there {
        (true, true, false) => {
            open(target, &mut link, database, old).await?;
            return Ok(Standing::New);
        }
        // between the two statements: the old one goes back
        (false, true, _) => rename(target, &mut link, old, database).await?,
        _ => {}
    }
    if !link.azure {
        open_to_all(&mut link, database).await?;
    }
    discard(target, movement).await?;
    Ok(Standing::Old)
}

/// Removes what a copy made so far.
pub async fn discard(target: &SqlServer, movement: &Move<'_>) -> Result<(), TargetError> {
    let (database, scratch) = (movement.environment.spec.database.as_str(), movement.names.scratch.as_str());
    bacpac::dismiss(target, &movement.names.role, &[database, scratch]).await?;
    drop_database(&mut target.connect_long(MASTER).await?, scratch).await
}

pub async fn drop_kept(target: &SqlServer, database: &DatabaseName) -> Result<(), TargetError> {
    let mut link = target.connect_long(MASTER).await?;
    // the files of a database that is offline would stay behind
    if state(&mut link, database.as_str()).await? == "OFFLINE" {
        link.run(&format!("ALTER DATABASE {} SET ONLINE", name(database.as_str()))).await?;
    }
    drop_database(&mut link, database.as_str()).await
}
