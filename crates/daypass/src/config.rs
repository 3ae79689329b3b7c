//! The configuration: one TOML file, every key of which is in `daypass.example.toml`; environment variables override it.
//! An unknown key is an error, with the line.

use daypass_core::{
    ledger::Ledger,
    names::Name,
    people::{Role, Scope},
    time::Ttl,
};
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub data_dir: PathBuf,
    pub api: Api,
    pub gateway: Gateway,
    pub console: Console,
    pub movement: Movement,
    pub limits: crate::web::budget::Limits,
    pub oidc: Option<Oidc>,
    pub mail: Option<Mail>,
    pub webhook: Vec<Webhook>,
}

/// How databases are moved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Movement {
    /// The folder of pg_dump, pg_restore and psql; none: the newest that is installed.
    pub postgres_bin: Option<PathBuf>,
    /// Microsoft's sqlpackage, for BACPAC files; none: the one on the path.
    pub sqlpackage: Option<PathBuf>,
    /// Whether nobody else is on this machine who could read the arguments of a program, which is where sqlpackage takes its password.
    pub alone: bool,
    /// Where dumps lie; none: `files` in the data directory.
    pub files: Option<PathBuf>,
    /// A folder for each environment, with scripts that run before it opens; none: `scripts` in the data directory.
    pub scripts: Option<PathBuf>,
    /// How many tables are copied at once.
    pub jobs: u16,
    /// By environment: the command that brings up a server with its state of an earlier moment.
    pub restore: std::collections::BTreeMap<String, Vec<String>>,
}

impl Default for Movement {
    fn default() -> Self {
        Movement { postgres_bin: None, sqlpackage: None, alone: false, files: None, scripts: None, jobs: 1, restore: std::collections::BTreeMap::new() }
    }
}

/// How notices go out by mail.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    pub host: String,
    #[serde(default = "Mail::port")]
    pub port: u16,
    #[serde(default)]
    pub tls: MailTls,
    /// The CA of the mail server (PEM); none: the system's.
    pub ca: Option<PathBuf>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub from: String,
}

impl Mail {
    fn port() -> u16 {
        587
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Plain at first, then TLS, or nothing is sent.
    #[default]
    Starttls,
    Tls,
    /// In plain words: no TLS.
    Off,
}

/// A place that notices are written to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub name: String,
    pub kind: HookKind,
    /// A file with the address: whoever has it can write there.
    pub url_file: PathBuf,
    /// A file with the key that signs (generic).
    pub secret_file: Option<PathBuf>,
    /// None: all.
    #[serde(default)]
    pub events: Vec<daypass_core::notice::Kind>,
    /// None: all.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Also an address within a network of one's own, and without TLS.
    #[serde(default)]
    pub allow_private: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookKind {
    Slack,
    Teams,
    Generic,
}

/// A provider that people sign in with (OpenID Connect).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider's issuer, to the letter.
    pub issuer: String,
    pub client_id: String,
    /// A file with the client's secret; none for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// The CA of the provider (PEM); none: the system's.
    pub ca: Option<PathBuf>,
    /// What stands on the button.
    #[serde(default = "Oidc::label")]
    pub label: String,
    #[serde(default = "Oidc::scopes")]
    pub scopes: Vec<String>,
    /// The claim that names a person's groups.
    #[serde(default = "Oidc::groups")]
    pub groups_claim: String,
    /// Which group gives which role.
    #[serde(default)]
    pub role: Vec<GroupRole>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRole {
    pub group: String,
    pub role: Role,
    pub project: Option<Name>,
    pub environment: Option<Name>,
}

impl Oidc {
    fn label() -> String {
        "Sign in with your organisation".to_owned()
    }

    fn scopes() -> Vec<String> {
        ["profile", "email"].map(str::to_owned).to_vec()
    }

    fn groups() -> String {
        "groups".to_owned()
    }
}

impl GroupRole {
    /// The role where it holds; none while there is no such project or environment.
    pub fn in_ledger(&self, ledger: &Ledger) -> Option<(Role, Scope)> {
        let scope = match (&self.project, &self.environment) {
            (None, None) => Scope::All,
            (Some(project), _) => Scope::Project(ledger.project_named(project)?),
            (None, Some(environment)) => Scope::Environment(ledger.environment_named(environment)?.id),
        };
        Some((self.role, scope))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub listen: SocketAddr,
    /// A connection on which nobody signs in lives no longer than this.
    pub strangers_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Where browsers reach the console, for links and for a provider's way back; none: the first of gateway.names and the port of the API.
    pub url: Option<String>,
    /// What shows secrets or lets others in wants a sign-in no older than this.
    pub recent_seconds: u64,
}

impl Default for Console {
    fn default() -> Self {
        Console { url: None, recent_seconds: 900 }
    }
}

impl Console {
    pub fn recent(&self) -> Ttl {
        Ttl::seconds(self.recent_seconds).unwrap_or(Ttl::minutes(15))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    pub listen: SocketAddr,
    /// Where clients of SQL Server connect.
    pub listen_sqlserver: SocketAddr,
    /// Where tools of SQL Server ask for the port of `server\instance` (UDP; SQL Server Browser's is 1434); none: they have to name it.
    pub listen_browser: Option<SocketAddr>,
    /// Names and addresses under which people reach the gateway; the first is what they are shown.
    pub names: Vec<String>,
    /// With it, each environment has a server name of its own: `<environment>.<suffix>`.
    pub suffix: Option<String>,
    /// PEM files of the operator; none: Daypass has its own CA.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub login_seconds: u64,
    pub logins_per_address: usize,
    pub logins_in_all: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: "daypass-data".into(),
            api: Api::default(),
            gateway: Gateway::default(),
            console: Console::default(),
            movement: Movement::default(),
            limits: crate::web::budget::Limits::default(),
            oidc: None,
            mail: None,
            webhook: Vec::new(),
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Api { listen: SocketAddr::from(([127, 0, 0, 1], 7480)), strangers_seconds: 60 }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        let limits = daypass_gateway::Limits::default();
        Gateway {
            listen: SocketAddr::from(([127, 0, 0, 1], 7432)),
            listen_sqlserver: SocketAddr::from(([127, 0, 0, 1], 7433)),
            listen_browser: None,
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()],
            suffix: None,
            certificate: None,
            key: None,
            login_seconds: limits.login.as_secs(),
            logins_per_address: limits.per_address,
            logins_in_all: limits.in_all,
        }
    }
}

impl Config {
    /// Reads the file (none: the defaults), then the environment.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Config> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("the configuration {} cannot be read: {e}", path.display()))?,
            None => String::new(),
        };
        let name = file.map_or_else(|| "the configuration".to_owned(), |path| path.display().to_string());
        Config::read(&text, &|key| std::env::var(key).ok()).map_err(|why| anyhow::anyhow!("{name}: {why}"))
    }

    fn read(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
        let mut config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        if let Some(dir) = variable("DAYPASS_DATA_DIR") {
            config.data_dir = dir.into();
        }
        for (key, slot) in [
            ("DAYPASS_API_LISTEN", &mut config.api.listen),
            ("DAYPASS_GATEWAY_LISTEN", &mut config.gateway.listen),
            ("DAYPASS_GATEWAY_LISTEN_SQLSERVER", &mut config.gateway.listen_sqlserver),
        ] {
            if let Some(value) = variable(key) {
                *slot = value.parse().map_err(|_| format!("{key} is '{value}', not an address with a port like 127.0.0.1:7480"))?;
            }
        }
        if let Some(names) = variable("DAYPASS_GATEWAY_NAMES") {
            config.gateway.names = names.split(',').map(|name| name.trim().to_owned()).collect();
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.gateway.names.iter().all(String::is_empty) {
            return Err("gateway.names is empty; name at least one host under which people reach the gateway".to_owned());
        }
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if let Some(suffix) = self.gateway.suffix.as_deref().filter(|suffix| suffix.len() > 190 || !suffix.split('.').all(is_label)) {
            return Err(format!("gateway.suffix is '{suffix}', not a domain name; write it like db.example.com, without a dot in front"));
        }
        if self.gateway.certificate.is_some() != self.gateway.key.is_some() {
            return Err("gateway.certificate and gateway.key go together; give both or neither".to_owned());
        }
        if self.console.url.as_deref().is_some_and(|url| !url.starts_with("https://")) {
            return Err("console.url begins with https://".to_owned());
        }
        if let Some(oidc) = &self.oidc {
            if !oidc.issuer.starts_with("https://") {
                return Err("oidc.issuer begins with https://".to_owned());
            }
            if oidc.role.iter().any(|given| given.project.is_some() && given.environment.is_some()) {
                return Err("oidc.role holds in a project or on an environment, not both".to_owned());
            }
        }
        if !(1..=43_200).contains(&self.console.recent_seconds) {
            return Err("console.recent_seconds is between 1 and 43200 (12 hours)".to_owned());
        }
        if !(1..=64).contains(&self.movement.jobs) {
            return Err("movement.jobs is between 1 and 64".to_owned());
        }
        if !(10..=600).contains(&self.api.strangers_seconds) {
            return Err("api.strangers_seconds is between 10 and 600".to_owned());
        }
        if !(1..=60).contains(&self.gateway.login_seconds) {
            return Err("gateway.login_seconds is between 1 and 60".to_owned());
        }
        if self.gateway.logins_per_address == 0 || self.gateway.logins_in_all == 0 {
            return Err("gateway.logins_per_address and gateway.logins_in_all are at least 1".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../daypass.example.toml");

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        Config::read(text, &|key| variables.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn the_example_names_every_key_and_is_what_holds_without_a_file() {
        let uncommented: String = EXAMPLE.lines().map(|l| l.strip_prefix("#: ").unwrap_or(l)).collect::<Vec<_>>().join("\n");
        let full = read(&uncommented, &[]).unwrap();
        assert!(full.gateway.certificate.is_some(), "the optional keys are in the example as well");
        let shipped = read(EXAMPLE, &[]).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
        // Debug names every field: each has to stand in the example
        for word in format!("{shipped:#?}").split(|c: char| !(c.is_ascii_lowercase() || c == '_')).filter(|w| w.contains('_')) {
            assert!(EXAMPLE.contains(word), "{word} is not in the example");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = read("[gateway]\nlisten_on = \"127.0.0.1:1\"\n", &[]).unwrap_err();
        assert!(error.contains("listen_on") && error.contains("line 2"), "{error}");
        assert!(read("[gateway]\nnames = []\n", &[]).unwrap_err().contains("gateway.names"));
        assert!(read("[gateway]\nkey = \"k.pem\"\n", &[]).unwrap_err().contains("go together"));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = read("data_dir = \"a\"", &[("DAYPASS_DATA_DIR", "b"), ("DAYPASS_API_LISTEN", "127.0.0.1:9")]).unwrap();
        assert_eq!((config.data_dir, config.api.listen.port()), ("b".into(), 9));
        assert!(read("", &[("DAYPASS_API_LISTEN", "nowhere")]).unwrap_err().contains("DAYPASS_API_LISTEN"));
    }
}
