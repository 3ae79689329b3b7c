//! The main job on SQL Server's protocol, before a stand-in.

use crate::house::{Account, House};
use daypass_testkit::sqlserver::{Options, StandIn};
use tokio_util::compat::TokioAsyncWriteCompatExt;

pub type Client = tiberius::Client<tokio_util::compat::Compat<tokio::net::TcpStream>>;

/// What a client's login says; the rest is the account's.
#[derive(Clone)]
pub struct Way<'a> {
    pub database: Option<&'a str>,
    pub server: &'a str,
    pub strict: bool,
}

pub const USUAL: Way<'static> = Way { database: Some("uat"), server: "localhost", strict: false };

impl House<StandIn> {
    pub async fn tiberius(&self, account: &Account) -> Result<Client, tiberius::error::Error> {
        self.tiberius_by(account, USUAL).await
    }

    pub async fn tiberius_by(&self, account: &Account, way: Way<'_>) -> Result<Client, tiberius::error::Error> {
        let mut config = tiberius::Config::new();
        config.host(way.server);
        config.port(self.sqlserver.port());
        if let Some(database) = way.database {
            config.database(database);
        }
        config.application_name("story");
        config.authentication(tiberius::AuthMethod::sql_server(&account.name, &account.password));
        config.encryption(if way.strict { tiberius::EncryptionLevel::Strict } else { tiberius::EncryptionLevel::Required });
        config.trust_cert_ca_bundle(std::fs::read(self.path("data/ca.pem")).unwrap());
        let tcp = tokio::net::TcpStream::connect(self.sqlserver).await.unwrap();
        Client::connect(config, tcp.compat_write()).await
    }

    pub async fn ask(&self, account: &Account, sql: &str) -> Result<String, String> {
        let mut client = self.tiberius(account).await.map_err(|e| e.to_string())?;
        ask(&mut client, sql).await
    }
}

/// The first value of the first row.
pub async fn ask(client: &mut Client, sql: &str) -> Result<String, String> {
    let results = client.simple_query(sql).await.map_err(|e| e.to_string())?.into_results().await.map_err(|e| e.to_string())?;
    let value = results.first().and_then(|rows| rows.first()).map(|row| {
        row.try_get::<i64, _>(0).map(|n| n.unwrap_or_default().to_string()).or_else(|_| row.try_get::<&str, _>(0).map(|t| t.unwrap_or_default().to_owned()))
    });
    value.transpose().map(Option::unwrap_or_default).map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_sql_server() {
    let house = House::sqlserver(Options::default(), &[]).await;
    let account = house.account_only("maria", "read", "1h").await;
    let refused = house.ask(&account, "SELECT 1").await.unwrap_err();
    assert!(refused.contains("Client with IP address '127.0.0.1' is not allowed") && refused.contains("daypass allow uat 127.0.0.1"), "{refused}");
    house.json("maria", &["allow", "uat"]).await;
    assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "400");
    let refused = house.ask(&account, "DELETE FROM sales.orders").await.unwrap_err();
    assert!(refused.contains("permission was denied"), "{refused}");
    let writer = house.account("maria", "read_write", "1h").await;
    house.ask(&writer, "DELETE FROM sales.orders WHERE id <= 100").await.unwrap();
    assert_eq!(house.ask(&account, "SELECT COUNT(*) FROM sales.orders").await.unwrap(), "300");
}
