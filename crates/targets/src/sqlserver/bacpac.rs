//! BACPAC files, through Microsoft's sqlpackage when it is installed beside Daypass (SqlPackage CLI reference, actions Export and Import).
//!
//! sqlpackage takes its password as an argument and in no other way, and arguments are read by every user of a machine. So it gets the
//! password of a login that is made for this one movement, may do nothing but this, and is gone afterwards; and it is not started at
//! all unless other users cannot see the arguments of ours.

use super::{
    MASTER, SqlServer,
    link::{Link, name, text},
    movement::refused,
};
use crate::{
    TargetError,
    movement::{Move, Tools},
    programs::{Workshop, arguments_are_private, ended, listen, start},
};
use daypass_core::{environment::TargetTls, movement::Made};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::Ordering,
    time::Duration,
};
use tokio::{io::AsyncReadExt, process::Command};

/// A BACPAC is a ZIP archive, which begins with these (Open Packaging Conventions; APPNOTE.TXT 4.3.7).
const ZIP: &[u8] = b"PK\x03\x04";

/// Fills the scratch database from a file.
/// Whether a file looks like a BACPAC, and the program that reads it is here.
pub async fn inspect(tools: &Tools, file: &Path) -> Result<(), TargetError> {
    find(tools)?;
    let mut head = [0; ZIP.len()];
    let read = async { tokio::fs::File::open(file).await?.read_exact(&mut head).await };
    if read.await.is_err() || head != ZIP {
        return Err(refused(
            "this file is no BACPAC. A backup (.bak) lies on the server, not here: use `daypass move ENV external begin`, restore it, then `external finish`",
        ));
    }
    Ok(())
}

pub async fn import(target: &SqlServer, movement: &Move<'_>, file: &Path) -> Result<(), TargetError> {
    inspect(movement.tools, file).await?;
    let (program, workshop) = (find(movement.tools)?, Workshop::open(&movement.tools.work)?);
    let (database, scratch) = (movement.environment.spec.database.as_str(), movement.names.scratch.as_str());
    let mut link = target.connect_long(MASTER).await?;
    let collation = link.maybe(&format!("SELECT CAST(DATABASEPROPERTYEX({}, 'Collation') AS nvarchar(128))", text(database))).await?;
    // a name of the engine's own, which stands without quotes
    let collation = collation.filter(|known| !known.is_empty() && known.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    let collate = collation.map(|known| format!(" COLLATE {known}")).unwrap_or_default();
    link.run(&format!("CREATE DATABASE {}{collate}", name(scratch))).await?;
    let guest = Guest::invite(target, movement, scratch, &["db_owner"], &[]).await?;
    let mut command = guest.command(&program, &workshop)?;
    command.arg("/Action:Import").arg(with("/SourceFile:", file)).arg(format!("/TargetConnectionString:{}", guest.connection(scratch)));
    let done = run(command, movement).await;
    guest.leave(scratch).await?;
    done
}

/// Writes the database into a file; half a file is in a folder that nobody else reads.
pub async fn export(target: &SqlServer, movement: &Move<'_>, file: &Path) -> Result<Made, TargetError> {
    let cannot = |e: std::io::Error| refused(format!("the file {} cannot be written: {e}", file.display()));
    if file.exists() {
        return Err(refused("there already is a file of this name; choose another"));
    }
    let (program, workshop) = (find(movement.tools)?, Workshop::open(&movement.tools.work)?);
    let folder = movement.part(file);
    let half = Workshop::open(&folder)?;
    let written = half.0.join("export.bacpac");
    let database = movement.environment.spec.database.as_str();
    let guest = Guest::invite(target, movement, database, &["db_datareader"], &["VIEW DEFINITION"]).await?;
    let mut command = guest.command(&program, &workshop)?;
    command.arg("/Action:Export").arg(with("/TargetFile:", &written)).arg(format!("/SourceConnectionString:{}", guest.connection(database)));
    command.arg(with("/p:TempDirectoryForTableData=", workshop.0));
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let bytes = std::fs::metadata(&written).map_or(0, |meta| meta.len());
            movement.progress.bytes.store(bytes, Ordering::Relaxed);
        }
    };
    let done = tokio::select! {
        done = run(command, movement) => done,
        () = watching => Ok(()),
    };
    guest.leave(database).await?;
    done?;
    std::fs::set_permissions(&written, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    let made = digest(&written).await.map_err(cannot)?;
    // unlike a renaming, this takes the place of nothing
    tokio::fs::hard_link(&written, file).await.map_err(cannot)?;
    Ok(made)
}

async fn digest(file: &Path) -> std::io::Result<Made> {
    let mut from = tokio::fs::File::open(file).await?;
    let (mut digest, mut chunk, mut bytes) = (Sha256::new(), vec![0; 256 * 1024], 0);
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            from.sync_all().await?;
            return Ok(Made { bytes, sha256: digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect() });
        }
        digest.update(&chunk[..n]);
        bytes += n as u64;
    }
}

fn with(option: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(option);
    argument.push(path);
    argument
}

/// The program, if it may be started here.
fn find(tools: &Tools) -> Result<PathBuf, TargetError> {
    let on_path = || std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join("sqlpackage")).find(|path| path.is_file());
    let program = tools.sqlpackage.clone().filter(|path| path.is_file()).or_else(on_path).ok_or_else(|| {
        refused("sqlpackage is not installed beside Daypass, which reads and writes BACPAC files with it. Install it, or say where it is: movement.sqlpackage")
    })?;
    if !tools.alone && !arguments_are_private() {
        return Err(refused(
            "sqlpackage takes its password as an argument, which every user of this machine can read. Mount /proc with hidepid=2; or, when nobody else is on this machine (a container), say so: movement.alone = true",
        ));
    }
    Ok(program)
}

async fn run(command: Command, movement: &Move<'_>) -> Result<(), TargetError> {
    let mut child = start(command)?;
    let (Some(out), Some(words)) = (child.stdout.take(), child.stderr.take()) else { return Err(refused("the pipes of sqlpackage are not there")) };
    let (_, said) = tokio::join!(listen(out, Some(movement.progress)), listen(words, None));
    let status = child.wait().await.map_err(|e| refused(format!("sqlpackage: {e}")))?;
    ended("sqlpackage", status, &said)
}

/// A login for one movement.
struct Guest<'a> {
    target: &'a SqlServer,
    name: &'a str,
    password: String,
}

impl<'a> Guest<'a> {
    /// Makes it, with these roles and rights in one database.
    async fn invite(target: &'a SqlServer, movement: &Move<'a>, database: &str, roles: &[&str], rights: &[&str]) -> Result<Guest<'a>, TargetError> {
        let guest = Guest {
            target,
            name: &movement.names.role,
            password: format!("Dp-{:032x}{:032x}", uuid::Uuid::new_v4().as_u128(), uuid::Uuid::new_v4().as_u128()),
        };
        let (user, password) = (name(guest.name), text(&guest.password));
        dismiss(target, guest.name, &[database]).await?;
        let mut link = target.connect_long(database).await?;
        if link.azure {
            link.run(&format!("CREATE USER {user} WITH PASSWORD = {password}, DEFAULT_SCHEMA = [dbo]")).await?;
        } else {
            target.connect_long(MASTER).await?.run(&format!("CREATE LOGIN {user} WITH PASSWORD = {password}, DEFAULT_DATABASE = {}", name(database))).await?;
            link.run(&format!("CREATE USER {user} FOR LOGIN {user}")).await?;
        }
        for role in roles {
            link.run(&format!("ALTER ROLE {} ADD MEMBER {user}", name(role))).await?;
        }
        for right in rights {
            link.run(&format!("GRANT {right} TO {user}")).await?;
        }
        Ok(guest)
    }

    /// Nothing of our own surroundings reaches the program but the path.
    fn command(&self, program: &Path, workshop: &Workshop<'_>) -> Result<Command, TargetError> {
        let mut command = Command::new(program);
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "DOTNET_ROOT"));
        command.env("TMPDIR", workshop.0).env("HOME", workshop.0).env("DACFX_TELEMETRY_OPTOUT", "1");
        if let TargetTls::VerifyFull { ca: Some(ca) } | TargetTls::Strict { ca: Some(ca) } = &self.target.spec.tls {
            // where .NET on Linux finds whom to trust, as OpenSSL does
            command.env("SSL_CERT_FILE", workshop.write("ca.pem", ca)?);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }

    /// A connection string as Microsoft.Data.SqlClient reads it.
    fn connection(&self, database: &str) -> String {
        let spec = &self.target.spec;
        let encrypt = match spec.tls {
            TargetTls::Off => "False",
            TargetTls::VerifyFull { .. } => "True",
            TargetTls::Strict { .. } => "Strict",
        };
        let mut parts = String::new();
        for (name, value) in [
            ("Data Source", format!("tcp:{},{}", spec.host, spec.port).as_str()),
            ("Initial Catalog", database),
            ("User ID", self.name),
            ("Password", &self.password),
            ("Encrypt", encrypt),
            ("TrustServerCertificate", "False"),
            ("Application Name", "daypass movement"),
        ] {
            let _ = write!(parts, "{name}={};", quoted(value));
        }
        parts
    }

    async fn leave(self, database: &str) -> Result<(), TargetError> {
        dismiss(self.target, self.name, &[database]).await
    }
}

/// A value of a connection string in which nothing ends it (SqlConnection.ConnectionString, remarks).
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\"\""))
}

/// Nothing is left of the login, whose sessions end.
pub async fn dismiss(target: &SqlServer, guest: &str, databases: &[&str]) -> Result<(), TargetError> {
    let mut master = target.connect_long(MASTER).await?;
    let login = format!("SELECT name FROM sys.sql_logins WHERE name = {}", text(guest));
    let has_login = !master.azure && master.exists(&login).await?;
    if has_login {
        master.run(&format!("ALTER LOGIN {} DISABLE", name(guest))).await?;
        show_out(&mut master, guest).await?;
    }
    for database in databases {
        let there = format!("SELECT name FROM sys.databases WHERE state = 0 AND name = {}", text(database));
        if !master.exists(&there).await? {
            continue;
        }
        let mut link = target.connect_long(database).await?;
        if link.azure {
            show_out(&mut link, guest).await?;
        }
        if link.exists(&format!("SELECT name FROM sys.database_principals WHERE name = {}", text(guest))).await? {
            super::removal::drop_user(&mut link, guest).await?;
        }
    }
    if has_login {
        master.run(&format!("DROP LOGIN {}", name(guest))).await?;
    }
    Ok(())
}

async fn show_out(link: &mut Link, guest: &str) -> Result<(), TargetError> {
    let look = format!("SELECT session_id FROM sys.dm_exec_sessions WHERE original_login_name = {}", text(guest));
    for _ in 0..50 {
        let left = link.rows(&look).await?;
        for id in left.iter().filter_map(|row| super::column(row, 0).parse::<u32>().ok()) {
            link.attempt(&format!("KILL {id}")).await?;
        }
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(refused(format!("{guest} is still connected")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_value_does_not_end_early() {
        assert_eq!(super::quoted("a;b=\"c\""), "\"a;b=\"\"c\"\"\"");
    }
}
