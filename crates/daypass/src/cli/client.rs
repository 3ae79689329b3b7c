//! The command line's way to the API, and where it keeps its sign-in: one file, readable by its owner only.

use super::exit;
use crate::web::{Problem, dto::Me};
use daypass_core::secret::Secret;
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeSet,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    time::Duration,
};

/// What went wrong, for people and for the exit code.
#[derive(Debug)]
pub struct Failure {
    pub exit: u8,
    pub code: String,
    pub title: String,
    pub remedy: String,
}

impl Failure {
    pub fn new(exit: u8, code: &str, title: impl Into<String>, remedy: impl Into<String>) -> Self {
        Failure { exit, code: code.to_owned(), title: title.into(), remedy: remedy.into() }
    }

    pub fn failed(title: impl Into<String>) -> Self {
        Failure::new(exit::FAILED, "failed", title, "")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.title, self.remedy)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::failed(format!("{error:#}"))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status {
            401 => exit::NOT_SIGNED_IN,
            500.. => exit::UNAVAILABLE,
            _ => exit::REFUSED,
        };
        Failure { exit, code: problem.code, title: problem.title, remedy: problem.remedy }
    }
}

/// An answer has at most so many bytes.
const ANSWER: usize = 512 << 20;

/// Where one is signed in.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    pub server: String,
    pub token: String,
    /// The CA that signed the server's certificate (PEM); none: the system's.
    #[serde(default)]
    pub ca: Option<String>,
}

/// The directory of the command line's own files.
pub fn directory() -> Result<PathBuf, Failure> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("DAYPASS_CONFIG_DIR")
        .or_else(|| Some(from("XDG_CONFIG_HOME")?.join("daypass")))
        .or_else(|| Some(from("HOME")?.join(".config/daypass")))
        .ok_or_else(|| Failure::failed("there is no home directory; name one for Daypass in DAYPASS_CONFIG_DIR"))
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &std::path::Path, content: &[u8]) -> Result<(), Failure> {
    let written = || {
        let directory = path.parent().ok_or(std::io::ErrorKind::NotFound)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let fresh = directory.join(format!(".{}.{}", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id()));
        // one that a process of this number has left, and no link that somebody put there
        let _ = std::fs::remove_file(&fresh);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    written().map_err(|e: std::io::Error| Failure::failed(format!("{} cannot be written: {e}", path.display())))
}

impl SignIn {
    fn path() -> Result<PathBuf, Failure> {
        Ok(directory()?.join("sign-in.json"))
    }

    /// The sign-in of the environment variables, else the one of the file.
    fn load() -> Result<SignIn, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let (Some(server), Some(token)) = (variable("DAYPASS_SERVER"), variable("DAYPASS_TOKEN")) {
            let read = |path: String| std::fs::read_to_string(&path).map_err(|e| Failure::failed(format!("DAYPASS_CA {path} cannot be read: {e}")));
            return Ok(SignIn { server, token, ca: variable("DAYPASS_CA").map(read).transpose()? });
        }
        let not_signed_in =
            || Failure::new(exit::NOT_SIGNED_IN, "not_signed_in", "You are not signed in.", "Sign in: daypass login --server https://HOST:7480");
        let text = std::fs::read_to_string(SignIn::path()?).map_err(|_| not_signed_in())?;
        serde_json::from_str(&text).map_err(|_| not_signed_in())
    }

    /// Where one was signed in last, to sign in there again.
    pub fn last() -> Option<SignIn> {
        SignIn::load().ok()
    }

    pub fn keep(&self) -> Result<(), Failure> {
        write_private(&SignIn::path()?, serde_json::to_string_pretty(self).unwrap_or_default().as_bytes())
    }

    pub fn forget() -> Result<(), Failure> {
        match std::fs::remove_file(SignIn::path()?) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::failed(format!("the sign-in could not be removed: {error}"))),
            _ => Ok(()),
        }
    }
}

pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Secret,
    ca: Option<String>,
}

/// How long a family of addresses that leads nowhere is tried.
const FAMILY: Duration = Duration::from_secs(2);

fn builder(ca: Option<&str>) -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_backend_preconfigured(crate::node::client_tls(rustls::DEFAULT_VERSIONS, ca)).https_only(true)
}

/// A body of nothing.
pub const NOTHING: Option<&()> = None;

impl Client {
    pub fn new(server: &str, token: String, ca: Option<&str>) -> Result<Client, Failure> {
        let base: Url = server.parse().map_err(|_| Failure::failed(format!("'{server}' is not an address; write it like https://daypass.example.com:7480")))?;
        if base.scheme() != "https" || base.cannot_be_a_base() {
            return Err(Failure::failed(format!("'{server}' is not an https address; a token is never sent without TLS")));
        }
        let http = builder(ca).connect_timeout(Duration::from_secs(10)).timeout(Duration::from_secs(120)).build();
        let http = http.map_err(|e| Failure::failed(format!("the connection could not be set up: {e}")))?;
        Ok(Client { http, base, token: Secret::new(token), ca: ca.map(str::to_owned) })
    }

    /// The addresses at which the server sees this machine where its name has both families, for nobody knows which of them a database client will
    /// take. None where it has one: then the server knows best.
    pub async fn families(&self) -> Vec<IpAddr> {
        let (host, port) = (self.base.host_str().unwrap_or_default(), self.base.port_or_known_default().unwrap_or_default());
        // over a socket in the file system there are none
        let is_far = self.base.scheme() == "https";
        let mut found: Vec<SocketAddr> = match is_far {
            true => tokio::net::lookup_host((host, port)).await.map(Iterator::collect).unwrap_or_default(),
            false => Vec::new(),
        };
        if host == "localhost" && is_far {
            found.extend([SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]);
        }
        let (four, six): (Vec<SocketAddr>, Vec<SocketAddr>) = found.into_iter().partition(SocketAddr::is_ipv4);
        if four.is_empty() || six.is_empty() {
            return Vec::new();
        }
        let by = async |addresses: &[SocketAddr]| {
            let http = builder(self.ca.as_deref()).resolve_to_addrs(host, addresses).connect_timeout(FAMILY).timeout(FAMILY * 2).build().ok()?;
            let mut url = self.base.clone();
            url.set_path("/api/v1/me");
            let response = http.get(url).bearer_auth(self.token.expose()).send().await.ok()?;
            read::<Me>(&self.read(response).await.ok()?).ok()?.address.parse::<IpAddr>().ok()
        };
        let (four, six) = tokio::join!(by(&four), by(&six));
        let both: BTreeSet<IpAddr> = four.into_iter().chain(six).collect();
        both.into_iter().collect()
    }

    /// With the sign-in that is kept.
    pub fn signed_in() -> Result<Client, Failure> {
        let SignIn { server, token, ca } = SignIn::load()?;
        match std::env::var_os("DAYPASS_SOCKET").filter(|path| !path.is_empty()) {
            Some(path) => Client::local(path.into(), token),
            None => Client::new(&server, token, ca.as_deref()),
        }
    }

    /// Over the socket in Daypass's data directory, which needs no port and no certificate; the sign-in is the same.
    fn local(path: PathBuf, token: String) -> Result<Client, Failure> {
        let http = reqwest::Client::builder().unix_socket(path).timeout(Duration::from_secs(120)).build();
        let http = http.map_err(|e| Failure::failed(format!("the socket cannot be used: {e}")))?;
        let base = "http://daypass".parse().map_err(|e| Failure::failed(format!("{e}")))?;
        Ok(Client { http, base, token: Secret::new(token), ca: None })
    }

    /// What the server says, up to a size that fits into the memory of any machine.
    async fn read(&self, mut response: reqwest::Response) -> Result<String, Failure> {
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if read.len() + chunk.len() > ANSWER {
                return Err(Failure::failed(format!("the server's answer has more than {} MiB: ask for less", ANSWER >> 20)));
            }
            read.extend_from_slice(&chunk);
        }
        String::from_utf8(read).map_err(|_| Failure::failed("the server's answer is no text"))
    }

    /// Calls `/api/v1/<path…>`; each part of the path is escaped by itself.
    async fn send<B: Serialize>(&self, method: Method, path: &[&str], query: &[(&str, &str)], body: Option<&B>) -> Result<String, Failure> {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.clear().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if !self.token.expose().is_empty() {
            request = request.bearer_auth(self.token.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let text = self.read(response).await?;
        if status.is_success() {
            return Ok(text);
        }
        let unreadable = || Problem {
            status: status.as_u16(),
            code: "unavailable".to_owned(),
            title: format!("The server answered {status}."),
            remedy: "Is this the address of a Daypass?".to_owned(),
        };
        Err(serde_json::from_str::<Problem>(&text).unwrap_or_else(|_| unreadable()).into())
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut why: &dyn std::error::Error = error;
        while let Some(cause) = why.source() {
            why = cause;
        }
        let server = self.base.origin().ascii_serialization();
        Failure::new(
            exit::UNAVAILABLE,
            "unreachable",
            format!("{server} cannot be reached: {why}"),
            "Is it running? A certificate that is not trusted needs its CA: daypass login --ca FILE",
        )
    }

    pub async fn text(&self, path: &[&str]) -> Result<String, Failure> {
        self.send(Method::GET, path, &[], NOTHING).await
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, Failure> {
        read(&self.send(Method::GET, path, query, NOTHING).await?)
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &[&str], body: Option<&impl Serialize>) -> Result<T, Failure> {
        read(&self.send(Method::POST, path, &[], body).await?)
    }

    /// A call whose answer is empty.
    pub async fn tell(&self, method: Method, path: &[&str], body: Option<&impl Serialize>) -> Result<(), Failure> {
        self.send(method, path, &[], body).await.map(drop)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|e| Failure::failed(format!("the answer of the server cannot be read ({e}); is it of another version? Compare `daypass --version`")))
}
