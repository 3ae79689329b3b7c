//! A throw-away PostgreSQL: its own directory, a free port on loopback, TLS on, gone when dropped. It refuses to run as root,
//! so as root it runs as the user `postgres`.

use crate::certificates::Certificates;
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::process::{Child, Command as AsyncCommand};

pub struct Postgres {
    directory: PathBuf,
    data: PathBuf,
    pub port: u16,
    /// The CA that signed the server's certificate (PEM).
    pub ca: String,
    bin: PathBuf,
    tls: bool,
    child: Option<Child>,
    /// It lives in another one's directory, which it leaves.
    guest: bool,
    /// Settings beside the usual ones.
    settings: Vec<String>,
}

/// Where the server's programs are: the newest version that is there.
pub fn binaries() -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort_by_key(|bin| bin.parent().and_then(|v| v.file_name()?.to_str()?.parse::<u32>().ok()));
    found.pop().context("no PostgreSQL server programs under /usr/lib/postgresql; install them: apt-get install postgresql")
}

/// Other versions, named in `DAYPASS_POSTGRES_BINS` with a colon between the folders. They need not be built with TLS.
pub fn other_binaries() -> Vec<PathBuf> {
    std::env::var_os("DAYPASS_POSTGRES_BINS")
        .map(|folders| std::env::split_paths(&folders).filter(|bin| bin.join("initdb").exists()).collect())
        .unwrap_or_default()
}

/// A port that is free now, and that no outgoing connection takes before its server does: the system gives those out of a range of their own,
/// which begins at 32768 (Linux, ip_local_port_range). None is given twice.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for turn in 0..10_000_u64 {
        let drawn = RandomState::new().hash_one(turn);
        let port = 10_240 + u16::try_from(drawn % 22_000).unwrap_or_default();
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no port is free between 10240 and 32239")
}

fn as_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program, as a user that PostgreSQL runs as.
fn unprivileged(program: &Path) -> Command {
    if !as_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

impl Postgres {
    pub async fn start() -> Result<Postgres> {
        Postgres::start_from(binaries()?, true).await
    }

    /// The same of another version.
    pub async fn start_from(bin: PathBuf, tls: bool) -> Result<Postgres> {
        Postgres::start_with(bin, tls, &[]).await
    }

    /// The same with settings, like `max_connections=100`.
    pub async fn start_with(bin: PathBuf, tls: bool, settings: &[&str]) -> Result<Postgres> {
        let port = free_port()?;
        let directory = std::env::temp_dir().join(format!("daypass-pg-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        if as_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(&directory))?;
        }
        run(unprivileged(&bin.join("initdb"))
            .args(["--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--pgdata"])
            .arg(directory.join("data")))?;
        let made = Certificates::make()?;
        made.write(&directory.join("server.crt"), &directory.join("server.key"))?;
        let kind = if tls { "hostssl" } else { "host" };
        let hba =
            format!("local all all trust\nlocal replication all trust\n{kind} all all 127.0.0.1/32 scram-sha-256\n{kind} all all ::1/128 scram-sha-256\n");
        std::fs::write(directory.join("data/pg_hba.conf"), hba)?;
        if as_root() {
            run(Command::new("chown").arg("-R").arg("postgres:postgres").arg(&directory))?;
        }
        let mut server = Postgres {
            data: directory.join("data"),
            directory,
            port,
            ca: made.ca,
            bin,
            tls,
            child: None,
            guest: false,
            settings: settings.iter().map(|text| (*text).to_owned()).collect(),
        };
        server.boot().await?;
        Ok(server)
    }

    /// Starts the server on its directory and waits until it answers.
    pub async fn boot(&mut self) -> Result<()> {
        let mut command = unprivileged(&self.bin.join("postgres"));
        command.arg("-D").arg(&self.data).args(["-p", &self.port.to_string(), "-k"]).arg(&self.directory);
        for setting in [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "max_connections=1200",
            "shared_buffers=64MB",
            "max_prepared_transactions=8",
            "unix_socket_permissions=0777",
        ] {
            command.arg("-c").arg(setting);
        }
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command.arg("-c").arg(if self.tls { "ssl=on" } else { "ssl=off" });
        command.arg("-c").arg(format!("ssl_cert_file={}", self.directory.join("server.crt").display()));
        command.arg("-c").arg(format!("ssl_key_file={}", self.directory.join("server.key").display()));
        let log = std::fs::File::create(std::env::temp_dir().join(format!("daypass-pg-{}.log", self.port)))?;
        command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
        self.child = Some(AsyncCommand::from(command).spawn().context("postgres could not be started")?);
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.sql("postgres", "SELECT 1").await.is_err() {
            if Instant::now() > deadline {
                bail!("PostgreSQL did not answer within 30 seconds; its log is daypass-pg-{}.log in the temporary directory", self.port);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(())
    }

    /// Stops the server at once, as a crash would, and leaves its directory.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child);
            while tokio::time::timeout(Duration::from_millis(100), child.wait()).await.is_err() {
                signal(&child);
            }
        }
    }

    /// Runs SQL as the superuser; gives what psql prints, unaligned, rows by line.
    pub async fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let output = AsyncCommand::new(self.bin.join("psql"))
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-p", &self.port.to_string(), "-h"])
            .arg(&self.directory)
            .arg("-c")
            .arg(sql)
            .stdin(Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// An administrator role for Daypass that is no superuser, with the password `admin-secret`, as the recipe makes it.
    pub async fn administrator(&self) -> Result<()> {
        self.sql("postgres", "CREATE ROLE daypass_admin LOGIN CREATEROLE CREATEDB PASSWORD 'admin-secret'; GRANT pg_signal_backend TO daypass_admin").await?;
        Ok(())
    }

    /// A database owned by `<name>_owner`, to which the administrator belongs, with some rows to look at.
    pub async fn database(&self, name: &str) -> Result<()> {
        self.sql("postgres", &format!("CREATE ROLE {name}_owner NOLOGIN; GRANT {name}_owner TO daypass_admin WITH ADMIN OPTION")).await?;
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {name}_owner")).await?;
        self.sql("postgres", &format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO daypass_admin WITH GRANT OPTION"))
            .await?;
        let sample = format!(
            "SET ROLE {name}_owner; CREATE SCHEMA sales; \
             CREATE TABLE sales.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL, amount numeric(10,2) NOT NULL, placed date NOT NULL); \
             INSERT INTO sales.orders (customer, amount, placed) SELECT (ARRAY['Contoso','Fabrikam','Adventure Works','Northwind'])[1 + i % 4], 10 + (i * 37 % 990), date '2026-01-01' + i % 300 FROM generate_series(1, 400) i; \
             CREATE VIEW sales.by_customer AS SELECT customer, count(*) AS orders, sum(amount) AS total FROM sales.orders GROUP BY customer ORDER BY total DESC"
        );
        self.sql(name, &sample).await?;
        Ok(())
    }

    /// A path in the server's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// From now on all WAL goes to this folder as well.
    pub async fn archive_to(&mut self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        if as_root() {
            run(Command::new("chown").arg("postgres:postgres").arg(folder))?;
        }
        self.sql("postgres", "ALTER SYSTEM SET archive_mode = on").await?;
        self.sql("postgres", &format!("ALTER SYSTEM SET archive_command = 'cp \"%p\" \"{}/%f\"'", folder.display())).await?;
        self.stop().await;
        self.boot().await
    }

    pub async fn base_backup(&self, folder: &Path) -> Result<()> {
        let mut command = AsyncCommand::from(unprivileged(&self.bin.join("pg_basebackup")));
        command.args(["--no-password", "--checkpoint=fast", "--wal-method=none", "--username=postgres", "--port", &self.port.to_string(), "--pgdata"]);
        let output = command.arg(folder).arg("--host").arg(&self.directory).stdin(Stdio::null()).output().await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Puts a copy of the server's directory in its place, as whoever restores a snapshot does, and starts it.
    pub async fn put_back(&mut self, copy: &Path) -> Result<()> {
        self.stop().await;
        std::fs::remove_dir_all(&self.data)?;
        run(Command::new("cp").arg("-a").arg(copy).arg(&self.data))?;
        self.boot().await
    }

    /// Another server answers where this one did.
    pub async fn take_the_place_of(&mut self, mut other: Postgres) -> Result<()> {
        self.stop().await;
        other.stop().await;
        let theirs = self.directory.join("theirs");
        run(Command::new("cp").arg("-a").arg(&other.data).arg(&theirs))?;
        self.data = theirs;
        self.boot().await
    }

    /// A copy of the server's directory as it is at rest.
    pub async fn snapshot(&mut self, copy: &Path) -> Result<()> {
        self.stop().await;
        run(Command::new("cp").arg("-a").arg(&self.data).arg(copy))?;
        self.boot().await
    }

    /// A replica that follows this server. It lives in this server's directory.
    pub async fn follower(&self) -> Result<Postgres> {
        let (replica, port) = (self.directory.join("replica"), free_port()?);
        let mut command = AsyncCommand::from(unprivileged(&self.bin.join("pg_basebackup")));
        command.args(["--no-password", "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--username=postgres"]);
        command.args(["--port", &self.port.to_string(), "--host"]).arg(&self.directory).arg("--pgdata").arg(&replica);
        let output = command.stdin(Stdio::null()).output().await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let (directory, bin) = (self.directory.clone(), self.bin.clone());
        let mut following =
            Postgres { directory, data: replica, port, ca: self.ca.clone(), bin, tls: self.tls, child: None, guest: true, settings: self.settings.clone() };
        following.boot().await?;
        Ok(following)
    }

    /// This server is lost, and the replica takes over at its place, with what it has.
    pub async fn fail_over_to(&mut self, mut follower: Postgres) -> Result<()> {
        self.stop().await;
        if follower.child.is_none() {
            follower.boot().await?;
        }
        follower.sql("postgres", "SELECT pg_promote(true, 30)").await?;
        follower.stop().await;
        self.data.clone_from(&follower.data);
        self.boot().await
    }

    /// Lets clients in without TLS as well, for measurements that leave one side plain.
    pub async fn allow_plain(&self) -> Result<()> {
        let path = self.directory.join("data/pg_hba.conf");
        let hba = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{hba}hostnossl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all ::1/128 scram-sha-256\n"))?;
        self.sql("postgres", "SELECT pg_reload_conf()").await.map(drop)
    }

    /// pgbench's own tables (scale 10), in the schema `sales`, for the owner of the database.
    pub async fn pgbench_tables(&self, database: &str) -> Result<()> {
        let mut command = AsyncCommand::new(self.program("pgbench"));
        command.args(["-i", "-q", "-s", "10", "-U", "postgres", "-p", &self.port.to_string(), "-h"]).arg(&self.directory).arg(database);
        let output = command.env("PGOPTIONS", format!("-c role={database}_owner -c search_path=sales")).stdin(Stdio::null()).output().await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// One of the programs that came with the server.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub fn has_tls(&self) -> bool {
        self.tls
    }

    pub fn psql(&self) -> PathBuf {
        self.bin.join("psql")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                // again: one that has just begun ignores what its starter ignored
                signal(&child);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if self.guest {
            return;
        }
        let _ = std::fs::remove_dir_all(&self.directory);
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("daypass-pg-{}.log", self.port)));
    }
}

/// SIGQUIT: PostgreSQL's immediate shutdown, children included.
fn signal(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{} could not be started", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        bail!("{}: {}", command.get_program().to_string_lossy(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
