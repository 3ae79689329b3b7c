//! The stage of the demo: PostgreSQL, Daypass as a process of its own, four people with a sign-in each, and how a step is
//! shown: what was typed, what came back, and whether it came out right.

use anyhow::{Context, Result, bail};
use daypass_testkit::{
    postgres::{Postgres, free_port},
    sqlserver::{Options, StandIn},
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

pub const ADMIN: &str = "admin";
pub const REQUESTER: &str = "maria";
pub const APPROVER: &str = "amy";
pub const MANAGER: &str = "sam";
pub const AUDITOR: &str = "vera";

pub struct Stage {
    pub postgres: Postgres,
    pub standin: StandIn,
    pub directory: PathBuf,
    pub api_port: u16,
    pub gateway_port: u16,
    pub sqlserver_port: u16,
    program: PathBuf,
    daypass: Child,
    steps: u32,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.daypass.start_kill();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.daypass.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        // it writes there as long as it is
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What a command printed, both streams one after the other, and whether it succeeded.
pub struct Shown {
    pub text: String,
    pub ok: bool,
}

impl Stage {
    /// Starts PostgreSQL and Daypass in a directory of their own.
    pub async fn set() -> Result<Stage> {
        let program = std::env::current_exe()?;
        let postgres = Postgres::start().await?;
        postgres.administrator().await?;
        postgres.database("golden").await?;
        postgres.database("uat").await?;
        let directory = std::env::temp_dir().join(format!("daypass-demo-{}", std::process::id()));
        private_directory(&directory)?;
        std::fs::write(directory.join("postgres-ca.pem"), &postgres.ca)?;
        let standin = StandIn::start(Options::default())?;
        std::fs::write(directory.join("sqlserver-ca.pem"), &standin.ca)?;
        let (api_port, gateway_port, sqlserver_port) = (free_port()?, free_port()?, free_port()?);
        let config = format!(
            "data_dir = {:?}\n[api]\nlisten = \"127.0.0.1:{api_port}\"\n[gateway]\nlisten = \"127.0.0.1:{gateway_port}\"\nlisten_sqlserver = \"127.0.0.1:{sqlserver_port}\"\n",
            directory.join("data")
        );
        std::fs::write(directory.join("daypass.toml"), config)?;
        let log = std::fs::File::create(directory.join("daypass.log"))?;
        let daypass = Command::new(&program)
            .args(["serve", "--config"])
            .arg(directory.join("daypass.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut stage = Stage { postgres, standin, directory, api_port, gateway_port, sqlserver_port, program, daypass, steps: 0 };
        stage.until_up().await?;
        Ok(stage)
    }

    async fn until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.directory.join("data/first-link").exists() || tokio::net::TcpStream::connect(("127.0.0.1", self.api_port)).await.is_err() {
            if Instant::now() > deadline || self.daypass.try_wait()?.is_some() {
                bail!("Daypass did not start:\n{}", std::fs::read_to_string(self.directory.join("daypass.log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Ends what was started, and removes what was written.
    pub async fn strike(mut self) {
        if let Some(pid) = self.daypass.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = tokio::time::timeout(Duration::from_secs(5), self.daypass.wait()).await;
        }
        self.postgres.stop().await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn server(&self) -> String {
        format!("https://localhost:{}", self.api_port)
    }

    /// A page of the console.
    pub async fn page(&self, path: &str) -> Result<String> {
        let ca = std::fs::read_to_string(self.path("data/ca.pem"))?;
        let tls = crate::node::client_tls(rustls::DEFAULT_VERSIONS, Some(&ca));
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
        Ok(http.get(format!("{}{path}", self.server())).send().await?.error_for_status()?.text().await?)
    }

    /// The directory in which a person's sign-in lies.
    pub fn home(&self, person: &str) -> PathBuf {
        self.directory.join(person)
    }

    /// A step begins.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}", bold(&format!("{}. {title}", self.steps)));
    }

    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// `daypass` as a person types it. Shown, with what it printed.
    pub async fn daypass(&self, person: &str, arguments: &[&str]) -> Result<Shown> {
        self.daypass_with(person, arguments, "").await
    }

    /// The same with something on standard input.
    pub async fn daypass_with(&self, person: &str, arguments: &[&str], input: &str) -> Result<Shown> {
        type_in(person, "daypass", arguments, if input.is_empty() { "" } else { " < password" });
        let output = feed(self.quietly(person, arguments), input).await?;
        Ok(show(&output))
    }

    /// The same into a file; gives what was written.
    pub async fn daypass_into_file(&self, person: &str, arguments: &[&str], file: &str) -> Result<String> {
        let path = self.path(file);
        type_in(person, "daypass", arguments, &format!(" > {}", path.display()));
        let output = feed(self.quietly(person, arguments), "").await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        std::fs::write(&path, &output.stdout)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `daypass --json`, behind the scenes.
    pub async fn json(&self, person: &str, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = feed(self.quietly(person, &all), "").await?;
        if !output.status.success() {
            bail!("daypass {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn quietly(&self, person: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("DAYPASS_CONFIG_DIR", self.home(person));
        for name in ["DAYPASS_SERVER", "DAYPASS_TOKEN", "DAYPASS_CA"] {
            command.env_remove(name);
        }
        command
    }

    /// psql with an account, as its holder types it. Not started yet.
    pub fn psql(&self, account: &Account, sql: &str) -> Command {
        let way = self.connection(account);
        type_in(REQUESTER, "psql", &[&way, "-c", sql], "");
        let mut command = Command::new(self.postgres.psql());
        command.args([way.as_str(), "-X", "-c", sql]).env("PGPASSWORD", &account.password).env_remove("PGOPTIONS");
        command
    }

    /// tsql with an account, as its holder types it: a password at the prompt, then a statement.
    pub async fn tsql(&self, account: &Account, sql: &str) -> Result<Shown> {
        let conf = self.path("freetds.conf");
        let text = format!(
            "[erp]\nhost = localhost\nport = {}\ntds version = 7.4\nencryption = require\nca file = {}\ncheck certificate hostname = yes\nclient charset = UTF-8\n",
            self.sqlserver_port,
            self.path("data/ca.pem").display()
        );
        std::fs::write(&conf, text)?;
        type_in(REQUESTER, "tsql", &["-S", "erp", "-D", "uat", "-U", &account.name], &format!("\nPassword:\n1> {sql}\n2> go"));
        // without a terminal of its own, tsql reads the password from its input
        let mut command = Command::new("setsid");
        command.args(["-w", "tsql", "-o", "q", "-S", "erp", "-D", "uat", "-U", &account.name]).env("FREETDSCONF", conf);
        let mut output = feed(command, &format!("{}\n{sql}\ngo\nexit\n", account.password)).await?;
        // the prompt was shown already
        for stream in [&mut output.stdout, &mut output.stderr] {
            *stream = stream.strip_prefix(b"Password: ").unwrap_or(stream).to_vec();
        }
        Ok(show(&output))
    }

    pub fn connection(&self, account: &Account) -> String {
        format!(
            "host=localhost port={} dbname=uat user={} sslmode=verify-full sslrootcert={}",
            self.gateway_port,
            account.name,
            self.path("data/ca.pem").display()
        )
    }
}

/// An account of the requester.
pub struct Account {
    pub name: String,
    pub password: String,
}

/// Runs a command to its end and shows what it printed.
pub async fn finish(command: Command) -> Result<Shown> {
    Ok(show(&feed(command, "").await?))
}

async fn feed(mut command: Command, input: &str) -> Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("{:?} could not be started", command.as_std().get_program()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // a command that does not read is no failure
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .context("it did not end within a minute")?
        .context("its output could not be read")
}

/// Prints the command as one would type it.
fn type_in(person: &str, program: &str, arguments: &[&str], more: &str) {
    let quoted: Vec<String> = arguments
        .iter()
        .map(|argument| if argument.contains([' ', '\'', '(', '*', '"']) { format!("\"{argument}\"") } else { (*argument).to_owned() })
        .collect();
    println!("{}", bold(&format!("{person}$ {program} {}{more}", quoted.join(" "))));
}

/// Prints what came back, indented.
pub fn show(output: &Output) -> Shown {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    for line in text.trim_end().lines() {
        println!("    {line}");
    }
    Shown { text, ok: output.status.success() }
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path).with_context(|| format!("{} cannot be made", path.display()))
}
