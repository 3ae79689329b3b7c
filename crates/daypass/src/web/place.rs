//! Where people reach a database: through the gateway, or at the target itself where its own firewall keeps others out.

use daypass_core::{
    environment::{Enforce, Engine, Environment, Target},
    ledger::Ledger,
};

/// Where people reach the gateway, and what they trust.
pub struct Place {
    /// The first of the gateway's names.
    pub server: String,
    /// What stands behind an environment's name in its server name, as `database.windows.net` does in Azure's.
    pub suffix: Option<String>,
    pub port: u16,
    pub sqlserver_port: u16,
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
            let port = match engine {
                Engine::Postgres => self.port,
                Engine::SqlServer => self.sqlserver_port,
            };
            match &self.suffix {
                Some(suffix) => (format!("{}.{suffix}", env.spec.name), env.spec.name.to_string(), port, self.ca.clone()),
                None => (self.server.clone(), self.server.clone(), port, self.ca.clone()),
            }
        };
        Way { engine, server_and_database: format!("{short}\\{}", env.spec.database), server, port, ca, direct }
    }
}
