//! One administrator connection: batches of T-SQL, and rows whose values are read as text, of whatever type a column is.

use super::value::words;
use crate::TargetError;
use daypass_core::{
    environment::{TargetSpec, TargetTls},
    secret::Secret,
};
use futures_util::TryStreamExt as _;
use std::time::Duration;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, QueryItem};
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
    pub edition: Edition,
    /// Azure SQL Database: one connection sees one database, and accounts lie inside it.
    pub azure: bool,
}

/// What SERVERPROPERTY('EngineEdition') calls itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edition {
    Server,
    Azure,
    Managed,
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
        let mut link = Link { client, edition: Edition::Server, azure: false };
        let edition = link.rows("SELECT CAST(SERVERPROPERTY('EngineEdition') AS nvarchar(20))").await?;
        link.edition = match edition.first().and_then(|row| row.first()?.as_deref()) {
            Some("5") => Edition::Azure,
            Some("8") => Edition::Managed,
            _ => Edition::Server,
        };
        link.azure = link.edition == Edition::Azure;
        Ok(link)
    }

    /// Runs a batch; gives the rows of its last result.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, TargetError> {
        let results = self.client.simple_query(sql).await?.into_results().await?;
        Ok(results.into_iter().next_back().unwrap_or_default().iter().map(read).collect())
    }

    /// Runs somebody's batch, which may answer with anything: gives the first `most` rows of its last result, and how many there were.
    pub async fn some(&mut self, sql: &str, most: usize) -> Result<(Vec<Row>, u64), TargetError> {
        let mut answer = self.client.simple_query(sql).await?;
        let (mut rows, mut count) = (Vec::new(), 0);
        while let Some(item) = answer.try_next().await? {
            match item {
                QueryItem::Metadata(_) => (rows, count) = (Vec::new(), 0),
                QueryItem::Row(row) => {
                    count += 1;
                    if rows.len() < most {
                        rows.push(read(&row));
                    }
                }
            }
        }
        Ok((rows, count))
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

fn read(row: &tiberius::Row) -> Row {
    row.cells().map(|(_, value)| words(value)).collect()
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
