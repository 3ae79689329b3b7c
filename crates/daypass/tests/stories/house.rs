//! A house of its own for each story: a PostgreSQL or a stand-in for SQL Server, a Daypass as a process of its own before it, and
//! people who type commands.

use daypass_testkit::{
    postgres::{Postgres, free_port},
    sqlserver::{ADMIN, Options, StandIn},
};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

/// How long anything may take that should take a moment, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct House<S = Postgres> {
    pub server: S,
    pub directory: PathBuf,
    pub api: SocketAddr,
    pub gateway: SocketAddr,
    pub sqlserver: SocketAddr,
    /// Before the program: `sh -c '…; exec "$0" "$@"'`, for limits.
    shell: Option<&'static str>,
    pub extra_config: String,
    /// Under `[api]`.
    pub api_config: String,
    /// Behind `daypass serve`.
    pub more_arguments: Vec<&'static str>,
    child: Option<Child>,
}

/// An account as its holder was shown it.
#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    pub password: String,
    pub ends_at: String,
}

impl House {
    /// PostgreSQL with `uat` and `golden`, Daypass, the people ada (admin), maria and ben (requesters), sam (manager), vera (auditor).
    pub async fn open() -> House {
        House::with("", None).await
    }

    pub async fn with(extra_config: &str, shell: Option<&'static str>) -> House {
        let mut house = House::bare(extra_config, shell).await;
        house.start().await;
        house.settle().await;
        house
    }

    /// Around a PostgreSQL that is there already.
    pub async fn of(postgres: Postgres, extra_config: &str) -> House {
        postgres.administrator().await.unwrap();
        let ca = postgres.ca.clone();
        let mut house = House::around(postgres, &ca, extra_config, None);
        house.start().await;
        house.settle().await;
        house
    }

    /// One on each version of PostgreSQL that is there.
    pub async fn on_each_version() -> Vec<House> {
        let mut houses = vec![House::open().await];
        for bin in daypass_testkit::postgres::other_binaries() {
            houses.push(House::of(Postgres::start_from(bin, false).await.unwrap(), "").await);
        }
        houses
    }

    /// Nothing is started but PostgreSQL.
    pub async fn bare(extra_config: &str, shell: Option<&'static str>) -> House {
        let postgres = Postgres::start().await.unwrap();
        postgres.administrator().await.unwrap();
        let ca = postgres.ca.clone();
        House::around(postgres, &ca, extra_config, shell)
    }

    pub async fn settle(&self) {
        self.through(self.server.port).await;
    }

    /// The same with something between Daypass and the server.
    pub async fn through(&self, port: u16) {
        self.people().await;
        for database in ["golden", "uat"] {
            self.server.database(database).await.unwrap();
        }
        self.environment("uat", port).await;
        // one of them is tried the whole way in each story; the other has the same server
        let tls: &[&str] = if self.server.has_tls() { &["--untried"] } else { &["--untried", "--without-tls"] };
        self.environment_with("golden", port, tls, "admin-secret").await;
    }

    pub async fn environment(&self, database: &str, port: u16) {
        let more: &[&str] = if self.server.has_tls() { &[] } else { &["--without-tls"] };
        self.environment_with(database, port, more, "admin-secret").await;
    }

    /// psql straight to the server, past the gateway.
    pub async fn psql_past(&self, user: &str, password: &str, sql: &str) -> (bool, String) {
        let output = tokio::time::timeout(PATIENCE * 3, self.psql_past_command(user, password, sql).output()).await.expect("psql ends").unwrap();
        (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    pub fn psql_past_command(&self, user: &str, password: &str, sql: &str) -> Command {
        let tls = if self.server.has_tls() { "require" } else { "disable" };
        let way = format!("host=127.0.0.1 port={} dbname=uat user={user} sslmode={tls} connect_timeout=5", self.server.port);
        let mut command = Command::new(self.server.psql());
        command.args([way.as_str(), "-X", "-A", "-t", "-c", sql]).env("PGPASSWORD", password).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// psql through the gateway; gives success and all that it printed.
    pub async fn psql(&self, account: &Account, sql: &str) -> (bool, String) {
        self.psql_to(account, "uat", "", sql).await
    }

    pub async fn psql_to(&self, account: &Account, database: &str, more: &str, sql: &str) -> (bool, String) {
        let mut command = self.psql_command(account, database, more, sql);
        let output = tokio::time::timeout(PATIENCE * 3, command.output()).await.expect("psql ends").unwrap();
        (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    pub fn psql_command(&self, account: &Account, database: &str, more: &str, sql: &str) -> Command {
        let mut command = self.psql_prompt(account, database, more);
        command.args(["-c", sql]);
        command
    }

    /// psql that reads what somebody types.
    pub fn psql_prompt(&self, account: &Account, database: &str, more: &str) -> Command {
        // the one of this machine: it has TLS, which not every build of the server has
        self.psql_by(&daypass_testkit::postgres::binaries().unwrap().join("psql"), account, database, more)
    }

    /// The same with this psql.
    pub fn psql_by(&self, program: &Path, account: &Account, database: &str, more: &str) -> Command {
        let way = format!(
            "host=127.0.0.1 port={} dbname={database} user={} sslmode=verify-full sslrootcert={} connect_timeout=15 {more}",
            self.gateway.port(),
            account.name,
            self.path("data/ca.pem").display()
        );
        let mut command = Command::new(program);
        command.args([way.as_str(), "-X", "-A", "-t"]).env("PGPASSWORD", &account.password).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// A client in this process, through the gateway.
    pub async fn client(
        &self,
        account: &Account,
    ) -> Result<(tokio_postgres::Client, tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>), tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.gateway.port()).user(&account.name).password(&account.password).dbname("uat");
        config.ssl_mode(tokio_postgres::config::SslMode::Require).application_name("story");
        let (client, connection) = config.connect(self.tls()).await?;
        Ok((client, tokio::spawn(connection)))
    }

    pub fn tls(&self) -> tokio_postgres_rustls::MakeRustlsConnect {
        self.tls_by(&self.path("data/ca.pem"))
    }

    /// For a client that trusts this CA.
    pub fn tls_by(&self, ca: &Path) -> tokio_postgres_rustls::MakeRustlsConnect {
        tokio_postgres_rustls::MakeRustlsConnect::new(tls(ca))
    }

    /// Asks the real server until its answer is as wanted.
    pub async fn until(&self, sql: &str, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.server.sql("postgres", sql).await;
            if answer.as_deref().is_ok_and(|answer| answer == wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{sql}: {answer:?} instead of {wanted}\n{}", self.log());
            tokio::task::yield_now().await;
        }
    }

    /// The accounts that are on the real server now.
    pub async fn accounts(&self) -> Vec<String> {
        let names = self.server.sql("postgres", "SELECT rolname FROM pg_roles WHERE rolname LIKE 'jit\\_%' ORDER BY 1").await.unwrap();
        names.lines().map(str::to_owned).collect()
    }

    pub async fn until_no_accounts(&self) {
        self.until("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'jit\\_%'", "0").await;
    }
}

impl House<StandIn> {
    /// The same before a stand-in for SQL Server: its `uat` and `golden` are environments.
    pub async fn sqlserver(options: Options, more: &[&str]) -> House<StandIn> {
        House::sqlserver_with(options, more, "").await
    }

    pub async fn sqlserver_with(options: Options, more: &[&str], extra_config: &str) -> House<StandIn> {
        House::sqlserver_on(Ipv4Addr::LOCALHOST, options, more, extra_config).await
    }

    /// With the gateway on an address of this machine's own choice.
    pub async fn sqlserver_on(address: Ipv4Addr, options: Options, more: &[&str], extra_config: &str) -> House<StandIn> {
        let standin = StandIn::start(options).unwrap();
        let ca = standin.ca.clone();
        let mut house = House::around(standin, &ca, extra_config, None);
        house.sqlserver.set_ip(address.into());
        house.start().await;
        house.people().await;
        for database in ["golden", "uat"] {
            house.environment_with(database, house.server.port, &[&["--engine", "sqlserver"], more].concat(), ADMIN.1).await;
        }
        house
    }
}

impl<S> House<S> {
    fn around(server: S, ca: &str, extra_config: &str, shell: Option<&'static str>) -> House<S> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (api, gateway, sqlserver) = (local(free_port().unwrap()), local(free_port().unwrap()), local(free_port().unwrap()));
        let directory = std::env::temp_dir().join(format!("daypass-house-{}-{}", std::process::id(), api.port()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("server-ca.pem"), ca).unwrap();
        House {
            server,
            directory,
            api,
            gateway,
            sqlserver,
            shell,
            extra_config: extra_config.to_owned(),
            api_config: String::new(),
            more_arguments: Vec::new(),
            child: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn write_config(&self) -> PathBuf {
        let config = format!(
            "data_dir = {:?}\n[api]\nlisten = \"{}\"\n{}[gateway]\nlisten = \"{}\"\nlisten_sqlserver = \"{}\"\n{}\n",
            self.path("data"),
            self.api,
            self.api_config,
            self.gateway,
            self.sqlserver,
            self.extra_config
        );
        let path = self.path("daypass.toml");
        std::fs::write(&path, config).unwrap();
        path
    }

    /// Starts Daypass and waits until it answers.
    pub async fn start(&mut self) {
        let config = self.write_config();
        let log = std::fs::File::options().create(true).append(true).open(self.path("daypass.log")).unwrap();
        let mut command = match self.shell {
            None => Command::new(PROGRAM),
            Some(script) => {
                let mut command = Command::new("bash");
                command.args(["-c", script, PROGRAM]);
                command
            }
        };
        command.args(["serve", "--config"]).arg(config).args(&self.more_arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        // knocking comes last: each try that is taken holds a handle there, and a process under load has few
        while !self.path("data/first-link").exists() && !self.path("ada").exists() || tokio::net::TcpStream::connect(self.api).await.is_err() {
            let died = self.child.as_mut().unwrap().try_wait().unwrap().is_some();
            assert!(Instant::now() < deadline && !died, "Daypass did not start:\n{}", self.log());
            tokio::task::yield_now().await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("Daypass runs")
    }

    /// kill -9.
    pub async fn crash(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().await.unwrap();
    }

    /// What a service manager does; waits until it has ended.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daypass.log")).unwrap_or_default()
    }

    /// ada (admin), maria and ben (requesters), sam (manager), vera (auditor).
    async fn people(&self) {
        let (server, ca) = (format!("https://{}", self.api), self.path("data/ca.pem").display().to_string());
        let link = std::fs::read_to_string(self.path("data/first-link")).unwrap();
        let first = format!("{link}a-long-password\n");
        let output = self.daypass_with("ada", &["first", "--server", &server, "--ca", &ca, "--name", "ada", "--stdin"], &first).await;
        assert!(output.status.success(), "{output:?}");
        for (person, role) in [("maria", "requester"), ("ben", "requester"), ("sam", "manager"), ("vera", "auditor")] {
            self.person(person, role).await;
        }
    }

    pub async fn person(&self, name: &str, role: &str) {
        let output = self.daypass_with("ada", &["people", "add", name, "--role", role, "--password-stdin"], "a-long-password").await;
        assert!(output.status.success(), "{output:?}");
        self.sign_in(name, name, "a-long-password").await;
    }

    pub async fn sign_in(&self, home: &str, name: &str, password: &str) {
        let (server, ca) = (format!("https://{}", self.api), self.path("data/ca.pem").display().to_string());
        let output = self.daypass_with(home, &["login", "--server", &server, "--ca", &ca, "--name", name, "--password-stdin"], password).await;
        assert!(output.status.success(), "{output:?}");
    }

    async fn environment_with(&self, database: &str, port: u16, more: &[&str], password: &str) {
        let (port, ca) = (port.to_string(), self.path("server-ca.pem").display().to_string());
        let mut add = vec!["env", "add", database, "--host", "localhost", "--port", &port, "--database", database, "--password-stdin"];
        if !more.contains(&"--without-tls") {
            add.extend(["--ca", &ca]);
        }
        add.extend(more);
        let output = self.daypass_with("ada", &add, password).await;
        assert!(output.status.success(), "{output:?}");
    }

    pub async fn daypass(&self, person: &str, arguments: &[&str]) -> Output {
        self.daypass_with(person, arguments, "").await
    }

    pub async fn daypass_with(&self, person: &str, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(person, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // a command that does not read its input is no failure
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        tokio::time::timeout(PATIENCE * 3, child.wait_with_output()).await.expect("the command ends").unwrap()
    }

    pub fn command(&self, person: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("DAYPASS_CONFIG_DIR", self.path(person)).kill_on_drop(true);
        command
    }

    /// The command succeeds; gives what it says as JSON.
    pub async fn json(&self, person: &str, arguments: &[&str]) -> Value {
        let output = self.daypass(person, &[&["--json"], arguments].concat()).await;
        assert!(output.status.success(), "daypass {arguments:?}: {output:?}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The command is refused: gives exit code and what it says.
    /// What a command says to a person, where it does what it was asked.
    pub async fn said(&self, person: &str, arguments: &[&str]) -> String {
        let output = self.daypass(person, arguments).await;
        assert!(output.status.success(), "daypass {arguments:?}: {output:?}\n{}", self.log());
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    pub async fn refused(&self, person: &str, arguments: &[&str]) -> (i32, String) {
        let output = self.daypass(person, arguments).await;
        assert!(!output.status.success(), "daypass {arguments:?} should have been refused");
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A ready account; its holder's address is allowed.
    pub async fn account(&self, person: &str, access: &str, life: &str) -> Account {
        self.json(person, &["allow", "uat"]).await;
        self.account_only(person, access, life).await
    }

    pub async fn account_only(&self, person: &str, access: &str, life: &str) -> Account {
        let way = self.json(person, &["request", "uat", "--access", access, "--life", life, "--reason", "a story"]).await;
        let text = |key: &str| way[key].as_str().unwrap_or_default().to_owned();
        Account { name: text("account"), password: text("password"), ends_at: text("ends_at") }
    }

    /// Changes the policy of an environment.
    pub async fn policy(&self, environment: &str, change: impl FnOnce(&mut Value)) {
        let mut policy = self.json("ada", &["policy", environment]).await;
        change(&mut policy);
        let file = self.path("policy.json");
        std::fs::write(&file, policy.to_string()).unwrap();
        self.json("ada", &["policy", environment, "--set", &file.display().to_string()]).await;
    }

    /// Polls until it is so.
    pub async fn until_so(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so() {
            assert!(Instant::now() < deadline, "{what}: still not so\n{}", self.log());
            tokio::task::yield_now().await;
        }
    }

    /// Polls a command's JSON until it is as wanted.
    pub async fn until_json(&self, person: &str, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.json(person, arguments).await;
            if wanted(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "daypass {arguments:?} still says {value}\n{}", self.log());
        }
    }
}

impl<S> Drop for House<S> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_daypass");

/// A client configuration that trusts one CA.
pub fn tls(ca: &Path) -> rustls::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}
