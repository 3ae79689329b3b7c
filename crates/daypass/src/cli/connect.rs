//! Starts the client that is there, with the connection filled in. It takes the place of this process. The password goes by the
//! environment or by a file that only its owner reads, never by the argument list.

use super::{
    client::{Failure, directory, write_private},
    exit,
};
use crate::web::dto::Connection;
use std::{os::unix::process::CommandExt, process::Command};

/// How one client is started.
type Start = fn(&Connection, &str) -> Result<Command, Failure>;

/// Comes back only with a failure.
pub fn start(way: &Connection, ca: &str, arguments: &[String]) -> Failure {
    let mut tried = Vec::new();
    let clients: &[Start] = if way.engine == "sqlserver" { &[sqlcmd, tsql] } else { &[psql] };
    for client in clients {
        let mut command = match client(way, ca) {
            Ok(command) => command,
            Err(failure) => return failure,
        };
        let error = command.args(arguments).exec();
        tried.push(format!("{} could not be started: {error}", command.get_program().to_string_lossy()));
    }
    let install = if way.engine == "sqlserver" { "Install sqlcmd (or: apt-get install freetds-bin)" } else { "Install it (apt-get install postgresql-client)" };
    Failure::new(exit::FAILED, "failed", tried.join("; "), format!("{install}, or see the account for another tool: daypass reveal {}", way.account))
}

/// A program without what its user's surroundings say about where it connects: a PGSERVICE of theirs would lead it past the gateway. What only
/// says how a session looks stays.
fn without(program: &str, prefixes: &[&str], keep: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) && !keep.contains(&text.as_str()) {
            command.env_remove(&name);
        }
    }
    command
}

fn psql(way: &Connection, ca: &str) -> Result<Command, Failure> {
    let mut command = without("psql", &["PG"], &["PGAPPNAME", "PGCLIENTENCODING", "PGDATESTYLE", "PGOPTIONS", "PGTZ"]);
    command
        .env("PGHOST", &way.server)
        .env("PGPORT", way.port.to_string())
        .env("PGDATABASE", &way.database)
        .env("PGUSER", &way.account)
        .env("PGPASSWORD", &way.password)
        .env("PGSSLMODE", "verify-full")
        .env("PGGSSENCMODE", "disable")
        .env("PGSSLROOTCERT", ca);
    Ok(command)
}

/// go-sqlcmd, or the one that comes with Microsoft's ODBC driver: both read the password from the environment, and both find a
/// CA of our own by OpenSSL's and Go's variable for it.
fn sqlcmd(way: &Connection, ca: &str) -> Result<Command, Failure> {
    let mut command = without("sqlcmd", &["SQLCMD"], &[]);
    command.env("SQLCMDPASSWORD", &way.password);
    if ca != "system" {
        command.env("SSL_CERT_FILE", ca);
    }
    command.args(["-S", &format!("tcp:{},{}", way.server, way.port), "-d", &way.database, "-U", &way.account, "-N"]);
    Ok(command)
}

/// FreeTDS: server, CA and encryption stand in a configuration of its own. It has no variable for a password, so it asks for it.
fn tsql(way: &Connection, ca: &str) -> Result<Command, Failure> {
    let path = directory()?.join(format!("freetds-{}-{}.conf", way.server, way.port));
    let trust = if ca == "system" { "system".to_owned() } else { ca.to_owned() };
    let text = format!(
        "[daypass]\nhost = {}\nport = {}\ntds version = 7.4\nencryption = require\nca file = {trust}\ncheck certificate hostname = yes\ndatabase = {}\nclient charset = UTF-8\n",
        way.server, way.port, way.database
    );
    write_private(&path, text.as_bytes())?;
    let there = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("tsql").is_file()));
    if there {
        eprintln!("tsql asks for the password: {}", way.password);
    }
    let mut command = without("tsql", &["TDS", "FREETDS", "DSQUERY"], &[]);
    command.env("FREETDSCONF", &path).args(["-S", "daypass", "-D", &way.database, "-U", &way.account]);
    Ok(command)
}
