//! SQL Server's protocol: Daypass beside the direct way and a bare relay, each with the stand-in server behind.
//!
//! The relay is what a proxy costs that knows nothing: TLS with the client and TLS with the server, and tokio's copy between.

use crate::{
    report::{Report, median, quantile},
    stage::{account, daypass, request, rss_kib, settle, spawn_daypass, text},
};
use anyhow::{Context, Result, bail};
use daypass_gateway::wrapped::Wrapped;
use daypass_testkit::{
    certificates::Certificates,
    sqlserver::{ADMIN, Options, StandIn},
};
use daypass_wire::{
    machine::Step,
    tds::{
        login7::Login7,
        packet::{self, Gathered, Gathering, HEADER, Header, kind},
        prelogin::{Prelogin, encryption, option},
        startup::Tls,
        token::{Event, Tokens, done},
        upstream::{Found, Upstream},
    },
};
use futures_util::{StreamExt, future::join_all};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::json;
use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const LOGINS: usize = 40;
const BATCHES: usize = 3_000;
/// 105 MB.
const BULK: &str = "SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, 13200)";
const IDLE: usize = 1_000;
const BUSY: usize = 500;

#[derive(Clone)]
struct Way {
    name: &'static str,
    port: u16,
    user: String,
    password: String,
    tls: Arc<rustls::ClientConfig>,
}

pub async fn measure(report: &mut Report, rounds: u64) -> Result<()> {
    let standin = StandIn::start(Options::default())?;
    standin.sql("master", "CREATE LOGIN bench WITH PASSWORD = 'Bench-Secret-1'")?;
    standin.sql("uat", "CREATE USER bench FOR LOGIN bench; ALTER ROLE db_datareader ADD MEMBER bench")?;
    let directory = std::env::temp_dir().join(format!("daypass-bench-tds-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let (mut child, api, _, gateway) = daypass(&directory).await?;
    let new = json!({ "name": "bench", "project": "main", "engine": "sqlserver", "host": "localhost", "port": standin.port, "database": "uat",
                      "admin": ADMIN.0, "password": ADMIN.1, "ca": standin.ca });
    let (requester, _) = settle(&directory, api, vec![new]).await?;
    let (user, password) = account(&requester, "bench", 8 * 3600).await?;
    let direct = Way { name: "direct", port: standin.port, user: "bench".into(), password: "Bench-Secret-1".into(), tls: trusting(standin.ca.as_bytes())? };
    std::fs::write(directory.join("standin-ca.pem"), &standin.ca)?;
    let (mut relaying, relay_port) = start_relay(standin.port, &directory).await?;
    let relay = Way { name: "bare TLS relay", port: relay_port, tls: trusting(&std::fs::read(directory.join("relay-ca.pem"))?)?, ..direct.clone() };
    let ours = Way { name: "daypass", port: gateway, user, password, tls: trusting(&std::fs::read(directory.join("data/ca.pem"))?)? };
    let ways = [direct, relay, ours.clone()];
    logins(&ways, report, rounds).await?;
    batches(&ways, report, rounds).await?;
    bulk(&ways, report, rounds).await?;
    relaying.kill().await?;
    child.kill().await?;
    child = spawn_daypass(&directory, api).await?;
    idle(&ours, child.id().context("Daypass runs")?, report).await?;
    ends(&ours, &requester, report).await?;
    child.kill().await?;
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

/// One run over each way a round, beginning with another one each time; the middle of the rounds.
async fn interleaved(ways: &[Way], rounds: u64, run: impl AsyncFn(&Way) -> Result<f64>) -> Result<[f64; 3]> {
    let mut runs = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds as usize {
        for turn in 0..ways.len() {
            let at = (round + turn) % ways.len();
            runs[at].push(run(&ways[at]).await?);
        }
    }
    Ok(runs.map(|values| median(&values)))
}

async fn logins(ways: &[Way], report: &mut Report, rounds: u64) -> Result<()> {
    let took = interleaved(ways, rounds, async |way| {
        let mut each = Vec::new();
        for _ in 0..LOGINS {
            let began = Instant::now();
            drop(Client::open(way).await?);
            each.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok(quantile(&each, 0.5))
    })
    .await?;
    report.title("SQL Server: a login (TLS 1.2 in packets on each side), one after the other, the middle");
    ways.iter().zip(took).for_each(|(way, took)| report.row(&format!("tds login: {}", way.name), took, "ms"));
    report.bar("SQL Server: ms that a login takes longer through the gateway", took[2] - took[0], 10.0);
    Ok(())
}

async fn batches(ways: &[Way], report: &mut Report, rounds: u64) -> Result<()> {
    let took = interleaved(ways, rounds, async |way| {
        let mut client = Client::open(way).await?;
        let began = Instant::now();
        for _ in 0..BATCHES {
            client.run("DECLARE @n int").await?;
        }
        Ok(began.elapsed().as_secs_f64() * 1_000_000.0 / BATCHES as f64)
    })
    .await?;
    report.title("SQL Server: a small batch, one after the other");
    ways.iter().zip(took).for_each(|(way, took)| report.row(&format!("tds batch: {}", way.name), took, "us"));
    let (relay, ours) = (took[1] - took[0], took[2] - took[0]);
    report.row("tds batch: added by the bare TLS relay", relay, "us");
    report.row("tds batch: added by daypass", ours, "us");
    report.bar("SQL Server: added latency of a small batch, against the bare relay's", ours / relay, 1.5);
    Ok(())
}

async fn bulk(ways: &[Way], report: &mut Report, rounds: u64) -> Result<()> {
    let rate = interleaved(ways, rounds, async |way| {
        let mut client = Client::open(way).await?;
        let began = Instant::now();
        let bytes = client.run(BULK).await?;
        Ok(bytes as f64 / 1_048_576.0 / began.elapsed().as_secs_f64())
    })
    .await?;
    report.title("SQL Server: a result of 105 MB");
    ways.iter().zip(rate).for_each(|(way, rate)| report.row(&format!("tds bulk: {}", way.name), rate, "MiB/s"));
    report.bar_least("SQL Server: bulk result, against the bare relay's", rate[2] / rate[1], 0.9);
    Ok(())
}

async fn open(way: &Way, count: usize) -> Result<Vec<Client>> {
    futures_util::stream::iter(0..count).map(|_| Client::open(way)).buffer_unordered(20).collect::<Vec<_>>().await.into_iter().collect()
}

async fn idle(way: &Way, pid: u32, report: &mut Report) -> Result<()> {
    // what a first session makes the process keep for good is not the price of a session
    drop(open(way, 20).await?);
    let before = rss_kib(pid);
    let clients = open(way, IDLE).await?;
    let each = (rss_kib(pid) - before) / IDLE as f64;
    report.title(&format!("SQL Server: memory of {IDLE} idle sessions with TLS on both sides, in a fresh process"));
    report.row("tds idle session: daypass", each, "KiB");
    report.bar("SQL Server: KiB per idle session", each, 40.0);
    drop(clients);
    Ok(())
}

async fn ends(way: &Way, api: &crate::api::Api, report: &mut Report) -> Result<()> {
    api.post("environments/bench/allow", json!({})).await?;
    let id = request(api, "bench", 25).await?;
    let shown = api.post(&format!("passes/{id}/reveal"), json!({})).await?;
    let way = Way { user: text(&shown["account"]), password: text(&shown["password"]), ..way.clone() };
    let ends_at = text(&shown["ends_at"]).parse::<jiff::Timestamp>()?;
    let ends_at = SystemTime::UNIX_EPOCH + Duration::from_micros(ends_at.as_microsecond().cast_unsigned());
    // 8 KB ten times a second: each session always has something on its way
    let trickle = "SELECT value, REPLICATE('x', 4000) AS filler FROM GENERATE_SERIES(1, 1); WAITFOR DELAY '00:00:00.1'; ".repeat(400);
    let readers: Vec<_> = open(&way, BUSY).await?.into_iter().map(|client| tokio::spawn(read_until_cut(client, trickle.clone()))).collect();
    let ended: Vec<(SystemTime, bool)> = join_all(readers).await.into_iter().filter_map(Result::ok).collect();
    let late = ended.iter().map(|(last, _)| last.duration_since(ends_at).unwrap_or_default().as_secs_f64() * 1_000.0);
    let worst = late.fold(0.0, f64::max);
    report.title(&format!("SQL Server: the end of a pass with {BUSY} busy sessions"));
    report.row("tds: from its end to the last byte at a client, the worst", worst, "ms");
    report.row("tds: sessions that were told why", ended.iter().filter(|(_, told)| *told).count() as f64, "");
    report.bar(&format!("SQL Server: ms from the end to the last byte, the worst of {BUSY}"), worst, 250.0);
    Ok(())
}

/// When the last bytes came, and whether they said why.
async fn read_until_cut(mut client: Client, sql: String) -> (SystemTime, bool) {
    let mut last = SystemTime::now();
    let mut told = false;
    if client.send(&sql).await.is_ok() {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = client.stream.read(&mut buffer).await {
            last = SystemTime::now();
            told |= buffer[..n].windows(14).any(|part| part == b"e\0x\0p\0i\0r\0e\0d\0");
        }
    }
    (last, told)
}

/// A client that costs next to nothing: it steps over what comes.
struct Client {
    stream: TlsStream<Wrapped>,
}

impl Client {
    async fn open(way: &Way) -> Result<Client> {
        let login = Login7 {
            user: way.user.clone(),
            password: zeroize::Zeroizing::new(way.password.clone()),
            server: "localhost".to_owned(),
            database: "uat".to_owned(),
            packet_size: 8_000,
            ..Login7::default()
        };
        let mut machine = Upstream::new(login, false, Some(Tls::Wrapped), None);
        let mut tcp = TcpStream::connect(("127.0.0.1", way.port)).await?;
        tcp.set_nodelay(true)?;
        loop {
            match machine.step() {
                Step::Send(bytes) => tcp.write_all(&bytes).await?,
                Step::Read(n) => {
                    let mut bytes = vec![0; n];
                    tcp.read_exact(&mut bytes).await?;
                    machine.feed(&bytes);
                }
                Step::StartTls => break,
                _ => bail!("{} does not begin TLS", way.name),
            }
        }
        let mut stream = TlsConnector::from(way.tls.clone()).connect(ServerName::try_from("localhost")?, Wrapped::in_packets(tcp)).await?;
        stream.get_mut().0.unwrap();
        machine.tls_started();
        loop {
            match machine.step() {
                Step::Send(bytes) => {
                    stream.write_all(&bytes).await?;
                    stream.flush().await?;
                }
                Step::Read(n) => {
                    let mut bytes = vec![0; n];
                    stream.read_exact(&mut bytes).await?;
                    machine.feed(&bytes);
                }
                Step::Found(Found::Ready(_)) => return Ok(Client { stream }),
                Step::Found(found) => bail!("{}: {found:?}", way.name),
                _ => bail!("{} closes", way.name),
            }
        }
    }

    async fn send(&mut self, sql: &str) -> Result<()> {
        let mut message = vec![22, 0, 0, 0, 18, 0, 0, 0, 2, 0];
        message.extend([0; 8]);
        message.extend([1, 0, 0, 0]);
        packet::put_utf16(&mut message, sql);
        let mut bytes = Vec::new();
        packet::put(&mut bytes, kind::BATCH, 0, &message, 8_000);
        self.stream.write_all(&bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Runs a batch; gives the bytes of its reply.
    async fn run(&mut self, sql: &str) -> Result<usize> {
        self.send(sql).await?;
        let mut bytes = 0;
        let mut payload = Vec::new();
        loop {
            let mut header = [0; HEADER];
            self.stream.read_exact(&mut header).await?;
            let header = Header::read(&header).context("not a packet")?;
            payload.resize(header.payload, 0);
            self.stream.read_exact(&mut payload).await?;
            bytes += HEADER + payload.len();
            if header.is_last() {
                let mut tokens = Tokens::default();
                if bytes < 100 && !matches!(tokens.next(&mut payload.as_slice()), Some(Event::Done { status, .. }) if status & done::ERROR == 0) {
                    bail!("the batch failed");
                }
                return Ok(bytes);
            }
        }
    }
}

fn trusting(ca: &[u8]) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS12])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // every login is a whole handshake, whoever answers it
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The bare relay as a process of its own, as Daypass is one; gives its port.
async fn start_relay(server: u16, directory: &Path) -> Result<(Child, u16)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("relay").arg(server.to_string()).arg(directory).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it prints its port")?).lines();
    let port = lines.next_line().await?.context("the relay did not start")?.parse()?;
    Ok((child, port))
}

/// Relays to a server whose CA lies in the folder; leaves its own CA there, and prints its port.
pub async fn relay(server: u16, folder: &Path) -> Result<()> {
    let upstream = trusting(&std::fs::read(folder.join("standin-ca.pem"))?)?;
    let made = Certificates::make()?;
    std::fs::write(folder.join("relay-ca.pem"), &made.ca)?;
    let chain = CertificateDer::pem_slice_iter(made.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS12])?;
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_slice(made.key.as_bytes())?)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(pass(client, server, config.clone(), upstream.clone()));
    }
}

async fn pass(mut client: TcpStream, server: u16, config: Arc<rustls::ServerConfig>, upstream: Arc<rustls::ClientConfig>) -> Result<()> {
    client.set_nodelay(true)?;
    let mut target = TcpStream::connect(("127.0.0.1", server)).await?;
    target.set_nodelay(true)?;
    let said = message(&mut client, kind::PRELOGIN).await?;
    let mut bytes = Vec::new();
    packet::put(&mut bytes, kind::PRELOGIN, 0, &said, 4_096);
    target.write_all(&bytes).await?;
    let answer = Prelogin::read(&message(&mut target, kind::REPLY).await?).context("not an answer")?;
    anyhow::ensure!(answer.byte(option::ENCRYPTION) == Some(encryption::REQUIRED));
    bytes.clear();
    packet::put(&mut bytes, kind::REPLY, 0, &answer.message(), 4_096);
    client.write_all(&bytes).await?;
    let mut client = TlsAcceptor::from(config).accept(Wrapped::in_packets(client)).await?;
    client.get_mut().0.unwrap();
    let mut target = TlsConnector::from(upstream).connect(ServerName::try_from("localhost")?, Wrapped::in_packets(target)).await?;
    target.get_mut().0.unwrap();
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut target, 64 * 1024, 64 * 1024).await?;
    Ok(())
}

async fn message(stream: &mut TcpStream, wanted: u8) -> Result<Vec<u8>> {
    let mut gathering = Gathering::new(wanted, 4_096);
    loop {
        let mut bytes = vec![0; gathering.want()];
        stream.read_exact(&mut bytes).await?;
        match gathering.feed(&bytes) {
            Gathered::More => {}
            Gathered::Whole(message, _) => return Ok(message),
            Gathered::Broken => bail!("not a message"),
        }
    }
}
