//! Running PostgreSQL's own programs: where they are, as whom they connect, what they say. No password is on a command line.

use super::super::Postgres;
use crate::{
    TargetError,
    movement::{Progress, Tools},
};
use daypass_core::environment::TargetTls;
use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
};

/// Lines of a program's own words that are kept for an error.
const TAIL: usize = 12;

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
            let Ok(output) = Command::new(folder.join("pg_dump")).arg("--version").stdin(Stdio::null()).output().await else { continue };
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

    /// Nothing of our own surroundings reaches it but the path.
    pub fn command(&self, program: &str, login: &Login) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR"));
        command.env("LC_ALL", "C.UTF-8").envs(&login.variables);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

fn installed() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    versions.chain(on_path).filter(|folder| folder.join("pg_restore").exists() && folder.join("pg_dump").exists()).collect()
}

/// A private folder for one movement; it goes with its owner.
pub struct Workshop<'a>(pub &'a Path);

impl<'a> Workshop<'a> {
    pub fn open(work: &'a Path) -> Result<Workshop<'a>, TargetError> {
        let _ = std::fs::remove_dir_all(work);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(work);
        made.map_err(|e| refused(format!("the folder {} cannot be made: {e}", work.display())))?;
        Ok(Workshop(work))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, TargetError> {
        let path = self.0.join(name);
        let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| refused(format!("{} cannot be written: {e}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Workshop<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

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

/// Starts a program; its absence is an error in words.
pub fn start(mut command: Command) -> Result<Child, TargetError> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|e| refused(format!("{name} could not be started: {e}")))
}

/// Reads what a program says, counts the tables that it says are done, and keeps the last lines for an error.
pub async fn listen(words: impl AsyncRead + Unpin, progress: Option<&Progress>) -> String {
    let mut lines = BufReader::new(words).split(b'\n');
    let mut tail = std::collections::VecDeque::new();
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line[..line.len().min(600)]).into_owned();
        if let Some(progress) = progress
            && line.contains("processing data for table")
        {
            progress.another_object();
        }
        // what it does is no news; what goes wrong is
        let chatter =
            ["creating ", "processing ", "executing ", "connecting ", "launching ", "finished ", "implied ", "entering ", "dumping contents", "last built-in"];
        if progress.is_some() && !line.contains("error") && chatter.iter().any(|word| line.contains(word)) {
            continue;
        }
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
    Vec::from(tail).join("\n")
}

/// The program ended well, or this is what it said.
pub fn ended(name: &str, status: std::process::ExitStatus, said: &str) -> Result<(), TargetError> {
    match status.success() {
        true => Ok(()),
        false if said.trim().is_empty() => Err(refused(format!("{name} ended with {status}"))),
        false => Err(refused(format!("{name}: {}", said.trim()))),
    }
}

/// Runs a program to its end; gives what it printed.
pub async fn run(name: &str, command: Command, progress: Option<&Progress>) -> Result<String, TargetError> {
    let mut child = start(command)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        match stdout {
            Some(stdout) => listen_all(stdout).await,
            None => String::new(),
        }
    };
    let heard = async {
        match stderr {
            Some(stderr) => listen(stderr, progress).await,
            None => String::new(),
        }
    };
    let (printed, said) = tokio::join!(read, heard);
    let status = child.wait().await.map_err(|e| refused(format!("{name}: {e}")))?;
    ended(name, status, &said)?;
    Ok(printed)
}

/// The most that a list of a dump, or a script, may print.
const MOST_PRINTED: u64 = 64 * 1024 * 1024;

async fn listen_all(from: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut from = tokio::io::AsyncReadExt::take(from, MOST_PRINTED);
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut from, &mut bytes).await;
    // what does not fit is read and thrown away, so that the program can end
    let _ = tokio::io::copy(from.get_mut(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
