//! Running PostgreSQL's own programs: where they are, as whom they connect, what they say. No password is on a command line.

use super::super::Postgres;
use crate::{TargetError, movement::Tools, programs::Workshop};
use daypass_core::environment::TargetTls;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

fn refused(why: impl Into<String>) -> TargetError {
    TargetError::Refused(why.into())
}

/// The programs, of one version.
pub struct Programs {
    folder: PathBuf,
    /// The major version.
    pub version: i32,
}

impl Programs {
    /// They have to be at least as new as every server that they talk to.
    pub async fn find(tools: &Tools, servers: &[i32]) -> Result<Programs, TargetError> {
        let newest = servers.iter().copied().max().unwrap_or_default();
        let folders = match &tools.postgres {
            Some(folder) => vec![folder.clone()],
            None => installed(),
        };
        let mut found = None;
        for folder in folders {
            let mut asking = bare(&folder.join("pg_dump"));
            let Ok(output) = asking.arg("--version").stdin(Stdio::null()).output().await else { continue };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let version = text.split_whitespace().nth(2).and_then(|v| v.split(['.', 'b', 'r', 'd']).next()?.parse::<i32>().ok()).unwrap_or_default();
            if version > found.as_ref().map_or(0, |known: &Programs| known.version) {
                found = Some(Programs { folder, version });
            }
        }
        match found {
            None => Err(refused(
                "pg_dump, pg_restore and psql are not installed beside Daypass. Install PostgreSQL's client programs, or say where they are: movement.postgres_bin",
            )),
            Some(found) if found.version < newest => Err(refused(format!(
                "pg_dump here is of version {} and the server of {newest}; it has to be as new. Install newer client programs (movement.postgres_bin)",
                found.version
            ))),
            Some(found) => Ok(found),
        }
    }

    /// One that talks to no server.
    pub fn alone(&self, program: &str) -> Command {
        let mut command = bare(&self.folder.join(program));
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Nothing of our own surroundings reaches it but the path.
    pub fn command(&self, program: &str, login: &Login) -> Command {
        let mut command = bare(&self.folder.join(program));
        command.env("LC_ALL", "C.UTF-8").envs(&login.variables);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// A program that gets nothing of our own surroundings but the path.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR"));
    command
}

fn installed() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    versions.chain(on_path).filter(|folder| folder.join("pg_restore").exists() && folder.join("pg_dump").exists()).collect()
}

/// What whoever owns a database may have set for everybody who connects there, and a program of a movement is not held up by; the programs
/// set the rest themselves.
pub const TOOLS: &str = "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0";

/// How a program logs in: environment variables of libpq, with the password in a file that only we read.
#[derive(Clone)]
pub struct Login {
    variables: BTreeMap<String, String>,
}

impl Login {
    /// As the administrator, or as `role` with its own password.
    pub fn to(target: &Postgres, workshop: &Workshop<'_>, label: &str, database: &str, role: Option<(&str, &str)>) -> Result<Login, TargetError> {
        let (user, password) = role.unwrap_or((&target.spec.admin, target.password.expose()));
        let passfile = workshop.write(&format!("{label}.pgpass"), &pass_line(password))?;
        let mut variables = BTreeMap::from([
            ("PGHOST".to_owned(), target.spec.host.to_string()),
            ("PGPORT".to_owned(), target.spec.port.to_string()),
            ("PGUSER".to_owned(), user.to_owned()),
            ("PGDATABASE".to_owned(), database.to_owned()),
            ("PGPASSFILE".to_owned(), passfile.display().to_string()),
            ("PGCONNECT_TIMEOUT".to_owned(), "10".to_owned()),
            ("PGAPPNAME".to_owned(), "daypass movement".to_owned()),
            ("PGGSSENCMODE".to_owned(), "disable".to_owned()),
            ("PGOPTIONS".to_owned(), TOOLS.to_owned()),
        ]);
        let ca = match &target.spec.tls {
            TargetTls::Off => None,
            TargetTls::VerifyFull { ca: Some(ca) } | TargetTls::Strict { ca: Some(ca) } => {
                Some(workshop.write(&format!("{label}.ca.pem"), ca)?.display().to_string())
            }
            // libpq before 16 knows no "system"
            TargetTls::VerifyFull { ca: None } | TargetTls::Strict { ca: None } => {
                let bundle = "/etc/ssl/certs/ca-certificates.crt";
                Some(if Path::new(bundle).exists() { bundle } else { "system" }.to_owned())
            }
        };
        match ca {
            None => drop(variables.insert("PGSSLMODE".to_owned(), "disable".to_owned())),
            Some(ca) => {
                variables.insert("PGSSLMODE".to_owned(), "verify-full".to_owned());
                variables.insert("PGSSLROOTCERT".to_owned(), ca);
            }
        }
        Ok(Login { variables })
    }

    /// To a server that the operator's command brought up.
    pub fn elsewhere(parameters: &BTreeMap<String, String>, workshop: &Workshop<'_>) -> Result<Login, TargetError> {
        let mut variables = BTreeMap::from([("PGCONNECT_TIMEOUT".to_owned(), "10".to_owned()), ("PGAPPNAME".to_owned(), "daypass movement".to_owned())]);
        for (name, value) in parameters {
            let variable = match name.as_str() {
                "host" => "PGHOST",
                "port" => "PGPORT",
                "user" => "PGUSER",
                "dbname" => "PGDATABASE",
                "sslmode" => "PGSSLMODE",
                "sslrootcert" => "PGSSLROOTCERT",
                "passfile" => "PGPASSFILE",
                "password" => {
                    variables.insert("PGPASSFILE".to_owned(), workshop.write("restored.pgpass", &pass_line(value))?.display().to_string());
                    continue;
                }
                other => {
                    return Err(refused(format!(
                        "the restore command named '{other}', which is none of host, port, user, dbname, sslmode, sslrootcert, passfile, password"
                    )));
                }
            };
            variables.insert(variable.to_owned(), value.clone());
        }
        Ok(Login { variables })
    }

    pub fn with(mut self, name: &str, value: &str) -> Login {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// A line of a password file that fits every server: the file is for one login only (PostgreSQL manual, "The Password File").
fn pass_line(password: &str) -> String {
    format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}
