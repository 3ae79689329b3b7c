//! Where people reach a database: through the gateway, or at the target itself where its own firewall keeps others out.

use daypass_core::{
    environment::{Enforce, Engine, Environment, Target},
    ledger::Ledger,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where people reach the gateway, and what they trust.
pub struct Place {
    /// The first of the gateway's names.
    pub server: String,
    /// What stands behind an environment's name in its server name, as `database.windows.net` does in Azure's.
    pub suffix: Option<String>,
    /// Where the gateway listens, for each engine.
    pub postgres: SocketAddr,
    pub sqlserver: SocketAddr,
    pub ca: String,
}

/// Where one environment is reached.
pub struct Way {
    pub engine: Engine,
    /// The full server name.
    pub server: String,
    pub port: u16,
    /// `server\database` as LCS writes it: without the suffix.
    pub server_and_database: String,
    pub ca: String,
    pub direct: bool,
}

impl Place {
    fn listens(&self, engine: Engine) -> SocketAddr {
        match engine {
            Engine::Postgres => self.postgres,
            Engine::SqlServer => self.sqlserver,
        }
    }

    /// How the gateway sees who is seen by the API at this address. That is the same, but for who is on this very machine: the API may be reached
    /// over one family of addresses, and the gateway listen on the other.
    pub fn seen(&self, engine: Engine, address: IpAddr) -> Vec<IpAddr> {
        if !address.is_loopback() {
            return vec![address];
        }
        let (four, six) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        match self.listens(engine).ip() {
            IpAddr::V4(ip) if ip.is_unspecified() || ip.is_loopback() => vec![four],
            // Linux takes connections of both families there
            IpAddr::V6(ip) if ip.is_unspecified() => vec![four, six],
            IpAddr::V6(ip) if ip.is_loopback() => vec![six],
            // who connects to an address of their own machine comes from it
            ip => vec![ip],
        }
    }

    pub fn way(&self, ledger: &Ledger, env: &Environment) -> Option<Way> {
        ledger.target(env.target).map(|target| self.way_to(target, env))
    }

    fn way_to(&self, target: &Target, env: &Environment) -> Way {
        let engine = target.spec.engine;
        let direct = env.spec.enforce == Enforce::AzureSqlFirewall;
        let (server, short, port, ca) = if direct {
            let host = target.spec.host.to_string();
            let short = host.split('.').next().unwrap_or(&host).to_owned();
            (host, short, target.spec.port, String::new())
        } else {
            let port = self.listens(engine).port();
            match &self.suffix {
                Some(suffix) => (format!("{}.{suffix}", env.spec.name), env.spec.name.to_string(), port, self.ca.clone()),
                None => (self.server.clone(), self.server.clone(), port, self.ca.clone()),
            }
        };
        Way { engine, server_and_database: format!("{short}\\{}", env.spec.database), server, port, ca, direct }
    }
}
