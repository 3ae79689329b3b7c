//! One administrator connection: batches of T-SQL, and rows whose columns are all text (the statements cast them), so that no
//! engine's own idea of a type matters.

use crate::TargetError;
use daypass_core::{
    environment::{TargetSpec, TargetTls},
    secret::Secret,
};
use std::time::Duration;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

/// A connect and login that takes longer is given up.
const CONNECT: Duration = Duration::from_secs(10);
/// A statement that takes longer is given up.
pub const STATEMENT: Duration = Duration::from_secs(30);

/// Azure SQL sends a login on to the node that has the database, sometimes by way of another.
const HOPS: usize = 5;

pub type Row = Vec<Option<String>>;

pub struct Link {
    client: Client<Compat<TcpStream>>,
    /// Azure SQL Database: one connection sees one database, and accounts lie inside it.
    pub azure: bool,
}

impl Link {
    pub async fn connect(spec: &TargetSpec, password: &Secret, database: &str, patience: Option<Duration>) -> Result<Link, TargetError> {
        let mut config = Config::new();
        config.port(spec.port);
        config.database(database);
        config.application_name("daypass keeper");
        config.authentication(AuthMethod::sql_server(&spec.admin, password.expose()));
        config.command_timeout(patience);
        config.handshake_timeout(Some(CONNECT));
        let ca = match &spec.tls {
            TargetTls::Off => {
                config.encryption(EncryptionLevel::NotSupported);
                None
            }
            TargetTls::VerifyFull { ca } => {
                config.encryption(EncryptionLevel::Required);
                ca.as_ref()
            }
            TargetTls::Strict { ca } => {
                config.encryption(EncryptionLevel::Strict);
                ca.as_ref()
            }
        };
        if let Some(pem) = ca {
            config.trust_cert_ca_bundle(pem.as_bytes());
        }
        let connecting = async {
            let (mut host, mut port) = (spec.host.to_string(), spec.port);
            for _ in 0..HOPS {
                // Azure sends on to `host\instance`: the name of a host is what stands before
                let place = host.split('\\').next().unwrap_or(&host);
                let tcp = TcpStream::connect((place, port)).await.map_err(|e| TargetError::Unreachable(e.to_string()))?;
                let _ = tcp.set_nodelay(true);
                let mut config = config.clone();
                config.host(&host);
                config.hostname_in_certificate(place);
                match Client::connect(config, tcp.compat_write()).await {
                    Err(tiberius::error::Error::Routing { host: next, port: at }) => (host, port) = (next, at),
                    done => return Ok::<_, TargetError>(done?),
                }
            }
            Err(TargetError::Refused("it sends the login from one server to the next, without end".to_owned()))
        };
        let client = tokio::time::timeout(CONNECT, connecting).await.map_err(|_| TargetError::Silent(CONNECT.as_secs()))??;
        let mut link = Link { client, azure: false };
        let edition = link.rows("SELECT CAST(SERVERPROPERTY('EngineEdition') AS nvarchar(20))").await?;
        link.azure = edition.first().and_then(|row| row.first()?.as_deref()) == Some("5");
        Ok(link)
    }

    /// Runs a batch; gives the rows of its last result.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, TargetError> {
        let results = self.client.simple_query(sql).await?.into_results().await?;
        let text = |row: tiberius::Row| (0..row.columns().len()).map(|at| Ok(row.try_get::<&str, _>(at)?.map(str::to_owned))).collect();
        results.into_iter().next_back().unwrap_or_default().into_iter().map(text).collect()
    }

    /// Runs a batch for its effect.
    pub async fn run(&mut self, sql: &str) -> Result<(), TargetError> {
        self.rows(sql).await.map(drop)
    }

    /// Runs what not every engine has; a refusal is no failure, a broken connection is.
    pub async fn attempt(&mut self, sql: &str) -> Result<Option<Vec<Row>>, TargetError> {
        match self.rows(sql).await {
            Ok(rows) => Ok(Some(rows)),
            Err(TargetError::Refused(why)) => {
                tracing::debug!(%why, "the target does not take a statement that can be done without");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The first column of the first row, if the statement is taken and has one.
    pub async fn maybe(&mut self, sql: &str) -> Result<Option<String>, TargetError> {
        Ok(self.attempt(sql).await?.and_then(|rows| rows.into_iter().next()?.into_iter().next()?))
    }

    /// Whether the statement gives a row.
    pub async fn exists(&mut self, sql: &str) -> Result<bool, TargetError> {
        Ok(!self.rows(sql).await?.is_empty())
    }
}

impl From<tiberius::error::Error> for TargetError {
    fn from(error: tiberius::error::Error) -> Self {
        match error {
            tiberius::error::Error::Server(said) => TargetError::Refused(format!("{}: {}", said.code(), said.message())),
            // tiberius goes on for a page about what its own user could configure
            tiberius::error::Error::Tls(why) => TargetError::Unreachable(format!("TLS: {}", why.split(" To connect anyway").next().unwrap_or_default())),
            other => TargetError::Unreachable(other.to_string()),
        }
    }
}

/// A name, so that nothing in it ends the name.
pub fn name(text: &str) -> String {
    format!("[{}]", text.replace(']', "]]"))
}

/// A text.
pub fn text(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}
