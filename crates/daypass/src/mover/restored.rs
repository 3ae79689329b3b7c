//! The operator's command for a restore: Daypass knows no backups. The command brings up a server with the state of the wished moment
//! and says how to reach it; Daypass copies the database from there as from any other, and lets the command take it down again.

use daypass_core::{environment::Environment, time::Time};
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use tokio::process::Command;

/// A restore of a large cluster takes hours.
const START: Duration = Duration::from_secs(12 * 3600);
const STOP: Duration = Duration::from_secs(600);
/// The last of what the command says that is kept for an error.
const SAID: usize = 800;

pub struct Restored {
    /// As libpq names them: host, port, user, dbname ...
    pub parameters: BTreeMap<String, String>,
    taken_down: Option<Down>,
}

/// What takes the server down again.
struct Down {
    command: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Restored {
    /// Runs `<command> start`. It prints one parameter a line, `host=...`, and ends when the server takes connections.
    pub async fn start(command: &[String], env: &Environment, to: Time) -> Result<Restored, String> {
        let variables = vec![
            ("DAYPASS_ENVIRONMENT", env.spec.name.to_string()),
            ("DAYPASS_DATABASE", env.spec.database.to_string()),
            ("DAYPASS_RESTORE_TO", to.to_string()),
        ];
        let down = Down { command: command.to_vec(), variables };
        // from here on it is taken down, however this ends
        let mut restored = Restored { parameters: BTreeMap::new(), taken_down: Some(down) };
        let running = restored.taken_down.as_ref().map(|down| down.run("start")).ok_or("there is no command")??;
        let output = tokio::time::timeout(START, running.wait_with_output()).await;
        let output = output.map_err(|_| "the restore command did not end within 12 hours")?.map_err(|e| format!("the restore command: {e}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let from = said.char_indices().rev().nth(SAID).map_or(0, |(at, _)| at);
            return Err(format!("the restore command ended with {}: {}", output.status, said[from..].trim()));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        restored.parameters =
            said.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        if !restored.parameters.contains_key("dbname") {
            return Err(
                "the restore command did not say where the restored database is; it prints one parameter a line, like host=… port=… user=… dbname=…".to_owned()
            );
        }
        Ok(restored)
    }

    pub async fn stop(mut self) {
        if let Some(down) = self.taken_down.take() {
            down.take_down().await;
        }
    }
}

impl Drop for Restored {
    /// The movement was stopped in the middle: the server goes all the same.
    fn drop(&mut self) {
        if let (Some(down), Ok(runtime)) = (self.taken_down.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(down.take_down());
        }
    }
}

impl Down {
    fn run(&self, verb: &str) -> Result<tokio::process::Child, String> {
        let (program, arguments) = self.command.split_first().ok_or("movement.restore names no program")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(verb).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env_remove("DAYPASS_MASTER_KEY");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().map_err(|e| format!("{program} could not be started: {e}"))
    }

    async fn take_down(self) {
        let Ok(child) = self.run("stop") else { return };
        match tokio::time::timeout(STOP, child.wait_with_output()).await {
            Ok(Ok(output)) if output.status.success() => {}
            _ => tracing::error!(command = self.command.first(), "the restore command did not take its server down; look after it by hand"),
        }
    }
}
