//! What is measured: a PostgreSQL with the database `bench`, Daypass and two PgBouncers before it (TLS and plain to the server).

use crate::api::Api;
use anyhow::{Context, Result, bail};
use daypass_testkit::{
    certificates::Certificates,
    postgres::{Postgres, binaries, free_port},
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

pub struct Stage {
    pub postgres: Postgres,
    pub directory: PathBuf,
    pub ways: Vec<Way>,
    pub requester: Api,
    pub manager: Api,
    api_port: u16,
    children: Vec<Child>,
}

/// A way to the database.
#[derive(Clone)]
pub struct Way {
    pub name: &'static str,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: &'static str,
    pub ca: PathBuf,
    /// The proxy's process; none for the direct way.
    pub pid: Option<u32>,
}

pub const DIRECT: &str = "direct";
pub const BOUNCER_TLS: &str = "pgbouncer, TLS";
pub const BOUNCER_PLAIN: &str = "pgbouncer, plain";
pub const DAYPASS_TLS: &str = "daypass, TLS";
pub const DAYPASS_PLAIN: &str = "daypass, plain";

impl Stage {
    pub async fn set() -> Result<Stage> {
        // nobody has more than three quarters of what a server has for people
        let postgres = Postgres::start_with(binaries()?, true, &["max_connections=1600"]).await?;
        postgres.administrator().await?;
        postgres.allow_plain().await?;
        let directory = std::env::temp_dir().join(format!("daypass-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let ca = directory.join("postgres-ca.pem");
        std::fs::write(&ca, &postgres.ca)?;
        for database in ["bench", "bench_plain"] {
            postgres.database(database).await?;
            fill(&postgres, database).await?;
        }
        postgres.sql("postgres", "CREATE ROLE bouncer LOGIN PASSWORD 'bouncer-secret' IN ROLE bench_owner; GRANT CONNECT ON DATABASE bench TO bouncer").await?;
        let direct = Way { name: DIRECT, port: postgres.port, user: "bouncer".into(), password: "bouncer-secret".into(), database: "bench", ca, pid: None };
        let mut ways = vec![direct.clone()];
        let mut children = Vec::new();
        for (name, tls) in [(BOUNCER_TLS, true), (BOUNCER_PLAIN, false)] {
            match bouncer(&directory, &direct, tls).await {
                Ok((child, port, ca)) => {
                    ways.push(Way { name, port, ca, pid: child.id(), ..direct.clone() });
                    children.push(child);
                }
                Err(error) => println!("PgBouncer is left out: {error:#}"),
            }
        }
        let (child, api_port, gateway_port, _) = daypass(&directory).await?;
        let pid = child.id().context("Daypass runs")?;
        children.push(child);
        let (requester, manager) = people(&directory, api_port, &postgres).await?;
        let ca = directory.join("data/ca.pem");
        for (name, database) in [(DAYPASS_TLS, "bench"), (DAYPASS_PLAIN, "bench_plain")] {
            let (user, password) = account(&requester, if database == "bench" { "bench" } else { "bench-plain" }, 8 * 3600).await?;
            ways.push(Way { name, port: gateway_port, user, password, database, ca: ca.clone(), pid: Some(pid) });
        }
        Ok(Stage { postgres, directory, ways, requester, manager, api_port, children })
    }

    /// Starts Daypass again, so that its memory holds nothing of what was measured before. Gives its process.
    pub async fn fresh_daypass(&mut self) -> Result<u32> {
        if let Some(mut old) = self.children.pop() {
            old.kill().await?;
        }
        let child = spawn_daypass(&self.directory, self.api_port).await?;
        let pid = child.id().context("Daypass runs")?;
        self.children.push(child);
        self.ways.iter_mut().filter(|way| way.name.starts_with("daypass")).for_each(|way| way.pid = Some(pid));
        Ok(pid)
    }

    /// A PgBouncer of its own, for the same reason.
    pub async fn fresh_bouncer(&self, tls: bool) -> Result<(Child, Way)> {
        let direct = self.way(DIRECT).context("there is a direct way")?;
        let (child, port, ca) = bouncer(&self.directory, direct, tls).await?;
        let name = if tls { BOUNCER_TLS } else { BOUNCER_PLAIN };
        let way = Way { name, port, ca, pid: child.id(), ..direct.clone() };
        Ok((child, way))
    }

    pub async fn strike(mut self) {
        for child in &mut self.children {
            let _ = child.kill().await;
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    pub fn way(&self, name: &str) -> Option<&Way> {
        self.ways.iter().find(|way| way.name == name)
    }

    pub fn gateway(&self) -> Result<&Way> {
        self.way(DAYPASS_TLS).context("Daypass is one of the ways")
    }
}

/// A ready account of the requester, whose address is allowed.
pub async fn account(api: &Api, environment: &str, seconds: u64) -> Result<(String, String)> {
    api.post(&format!("environments/{environment}/allow"), json!({ "life": seconds })).await?;
    let id = request(api, environment, seconds).await?;
    let way = api.post(&format!("passes/{id}/reveal"), json!({})).await?;
    Ok((text(&way["account"]), text(&way["password"])))
}

/// Asks for a pass and waits until it is ready; gives its id.
pub async fn request(api: &Api, environment: &str, seconds: u64) -> Result<String> {
    let id = ask(api, environment, seconds).await?;
    until_ready(api, &id).await?;
    Ok(id)
}

pub async fn ask(api: &Api, environment: &str, seconds: u64) -> Result<String> {
    let body = json!({ "access": "read", "reason": "the bench", "life": seconds });
    let pass = api.post(&format!("environments/{environment}/passes"), body).await?;
    Ok(text(&pass["id"]))
}

pub async fn until_ready(api: &Api, id: &str) -> Result<()> {
    loop {
        let pass = api.get(&format!("passes/{id}?wait=10")).await?;
        match pass["state"].as_str() {
            Some("ready") => return Ok(()),
            Some("approved") => {}
            _ => bail!("the pass did not become ready: {pass}"),
        }
    }
}

pub fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// pgbench's tables, and 500 MB in wide rows and in narrow ones that nothing compresses.
async fn fill(postgres: &Postgres, database: &str) -> Result<()> {
    postgres.pgbench_tables(database).await?;
    let owner = format!("SET ROLE {database}_owner;");
    let wide = "CREATE TABLE wide (t text STORAGE EXTERNAL); INSERT INTO wide SELECT repeat(md5(i::text), 250) FROM generate_series(1, 62500) i";
    let narrow = "CREATE TABLE narrow AS SELECT i AS id, md5(i::text) AS t, i * 7 AS n FROM generate_series(1, 2000000) i";
    let wide = if postgres.sql("postgres", "SHOW server_version_num").await?.parse::<u32>()? >= 160_000 {
        wide.to_owned()
    } else {
        wide.replace(" STORAGE EXTERNAL); ", "); ALTER TABLE wide ALTER t SET STORAGE EXTERNAL; ")
    };
    for sql in [wide.as_str(), narrow] {
        postgres.sql(database, &format!("{owner} SET search_path = sales; {sql}")).await?;
    }
    // PgBouncer takes no start-up options, so the path is the database's
    postgres.sql(database, &format!("ALTER DATABASE {database} SET search_path = sales")).await?;
    postgres.sql(database, "VACUUM ANALYZE").await?;
    Ok(())
}

async fn bouncer(directory: &Path, to: &Way, tls: bool) -> Result<(Child, u16, PathBuf)> {
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists()).context("it is not installed")?;
    let home = directory.join(if tls { "bouncer-tls" } else { "bouncer-plain" });
    std::fs::create_dir_all(&home)?;
    let made = Certificates::make()?;
    made.write(&home.join("server.crt"), &home.join("server.key"))?;
    std::fs::write(home.join("ca.pem"), &made.ca)?;
    std::fs::write(home.join("users.txt"), format!("\"{}\" \"{}\"\n", to.user, to.password))?;
    let port = free_port()?;
    let server =
        if tls { format!("server_tls_sslmode = verify-full\nserver_tls_ca_file = {}", to.ca.display()) } else { "server_tls_sslmode = disable".to_owned() };
    let h = home.display();
    let config = format!(
        "[databases]\nbench = host=127.0.0.1 port={} dbname=bench\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         pool_mode = session\nmax_client_conn = 2000\ndefault_pool_size = 1100\nauth_type = scram-sha-256\nauth_file = {h}/users.txt\n\
         client_tls_sslmode = require\nclient_tls_cert_file = {h}/server.crt\nclient_tls_key_file = {h}/server.key\n{server}\n\
         log_connections = 0\nlog_disconnections = 0\nignore_startup_parameters = extra_float_digits\n",
        to.port
    );
    std::fs::write(home.join("pgbouncer.ini"), config)?;
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        let owned = Command::new("chown").args(["-R", "postgres:postgres"]).arg(directory).status().await?;
        anyhow::ensure!(owned.success(), "its folder could not be given to its user");
        command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", program]);
    }
    let child = command.arg(home.join("pgbouncer.ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    until_open(port).await?;
    Ok((child, port, home.join("ca.pem")))
}

/// Daypass in a directory of its own, asked more than a person may; gives the ports of its API and of its two gateways.
pub async fn daypass(directory: &Path) -> Result<(Child, u16, u16, u16)> {
    daypass_with(directory, "[limits]\nrequests = 100000\nchanges = 100000\n").await
}

/// The same with limits of its own.
pub async fn daypass_with(directory: &Path, limits: &str) -> Result<(Child, u16, u16, u16)> {
    let (api, gateway, sqlserver) = (free_port()?, free_port()?, free_port()?);
    let config = format!(
        "data_dir = {:?}\n[api]\nlisten = \"127.0.0.1:{api}\"\n[gateway]\nlisten = \"127.0.0.1:{gateway}\"\nlisten_sqlserver = \"127.0.0.1:{sqlserver}\"\nlogins_per_address = 2000\n{limits}",
        directory.join("data")
    );
    std::fs::write(directory.join("daypass.toml"), config)?;
    Ok((spawn_daypass(directory, api).await?, api, gateway, sqlserver))
}

pub async fn spawn_daypass(directory: &Path, api: u16) -> Result<Child> {
    let program = std::env::current_exe()?.with_file_name("daypass");
    let log = std::fs::File::options().create(true).append(true).open(directory.join("daypass.log"))?;
    let child =
        Command::new(&program).args(["serve", "--config"]).arg(directory.join("daypass.toml")).stdin(Stdio::null()).stderr(log).kill_on_drop(true).spawn();
    let child = child.with_context(|| format!("{} is not there; build it with cargo build --release", program.display()))?;
    until_open(api).await?;
    Ok(child)
}

async fn until_open(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        anyhow::ensure!(Instant::now() < deadline, "nothing answers on port {port}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn people(directory: &Path, api_port: u16, postgres: &Postgres) -> Result<(Api, Api)> {
    let mut environments = Vec::new();
    for (name, database, plain) in [("bench", "bench", false), ("bench-plain", "bench_plain", true)] {
        let ca = if plain { None } else { Some(&postgres.ca) };
        // two targets for one server, so that one has TLS and the other has not: another spelling of the same address
        let host = if plain { "localhost" } else { "127.0.0.1" };
        environments.push(json!({ "name": name, "project": "main", "engine": "postgres", "host": host, "port": postgres.port, "database": database,
                                  "admin": "daypass_admin", "password": "admin-secret", "ca": ca, "without_tls": plain }));
    }
    settle(directory, api_port, environments).await
}

/// A requester and a manager; the environments, with limits that a bench needs.
pub async fn settle(directory: &Path, api_port: u16, environments: Vec<serde_json::Value>) -> Result<(Api, Api)> {
    let (_, requester, manager) = settle_with(directory, api_port, environments).await?;
    Ok((requester, manager))
}

/// The same with the administrator, a requester and a manager.
pub async fn settle_with(directory: &Path, api_port: u16, environments: Vec<serde_json::Value>) -> Result<(Api, Api, Api)> {
    let first = directory.join("data/first-link");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !first.exists() {
        anyhow::ensure!(Instant::now() < deadline, "Daypass did not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let base = format!("https://127.0.0.1:{api_port}");
    let tls = || trusting(&directory.join("data/ca.pem"));
    let admin = Api::first(base.clone(), tls()?, std::fs::read_to_string(first)?.trim()).await?;
    for (name, role) in [("maria", "requester"), ("sam", "manager")] {
        admin.post("people", json!({ "name": name, "password": "a-long-password", "roles": [{ "role": role }] })).await?;
    }
    for new in environments {
        let name = text(&new["name"]);
        admin.post("environments", new).await?;
        let policy = admin.get(&format!("environments/{name}/policy")).await?;
        let policy = with(with(policy, "sessions_per_pass", json!(1100)), "live_passes", json!(1600));
        // each round starts with the same disk: a database of before goes at once
        let policy = with(policy, "keep_days", json!(0));
        admin.put(&format!("environments/{name}/policy"), policy).await?;
    }
    let maria = Api::sign_in(base.clone(), tls()?, "maria", "a-long-password").await?;
    let sam = Api::sign_in(base, tls()?, "sam", "a-long-password").await?;
    Ok((admin, maria, sam))
}

fn with(mut object: serde_json::Value, key: &str, value: serde_json::Value) -> serde_json::Value {
    object[key] = value;
    object
}

pub fn trusting(ca: &Path) -> Result<rustls::ClientConfig> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// Microseconds of processor time that a process has used (utime and stime of /proc/PID/stat, in ticks of 10 ms).
pub fn cpu_micros(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // after the name in brackets, utime is the 12th field and stime the 13th
    (ticks(11) + ticks(12)) * 10_000.0
}

/// Kilobytes of memory that a process holds.
pub fn rss_kib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
