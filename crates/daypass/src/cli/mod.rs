//! The command line. Results go to standard output, progress and errors to standard error; `--json` gives both to programs.

mod access;
mod account;
mod client;
mod connect;
mod declared;
mod environments;
mod managed;
mod movements;
mod people;
mod records;
mod server;
pub mod show;

use clap::{CommandFactory, Parser, Subcommand};
pub use client::write_private;
use client::{Client, Failure};
use show::Show;
use std::{path::PathBuf, process::ExitCode};

/// What the process says when it ends.
pub mod exit {
    pub const FAILED: u8 = 1;
    // 2 is clap's: the command line is wrong
    /// Daypass refused: the message says why and what to do.
    pub const REFUSED: u8 = 3;
    pub const NOT_SIGNED_IN: u8 = 4;
    /// Daypass, its store or a target cannot be reached at the moment.
    pub const UNAVAILABLE: u8 = 5;
}

/// Just-in-time database access: ask, get an account with its end, connect, and be out on time.
#[derive(Parser)]
#[command(
    name = "daypass",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 refused by Daypass, 4 not signed in, 5 not reachable.\n\
                  Where you are signed in is kept in ~/.config/daypass (DAYPASS_CONFIG_DIR overrides it). For scripts: DAYPASS_SERVER, DAYPASS_TOKEN and\n\
                  DAYPASS_CA (a file) take the place of a sign-in. On the machine of Daypass itself, DAYPASS_SOCKET=DATA_DIR/control.sock goes\n\
                  past its ports."
)]
pub struct Cli {
    /// Print results and errors as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run Daypass: gateway, API, and the keepers of the targets
    Serve {
        /// The configuration (daypass.example.toml shows every key); without it the defaults hold
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Start although the log's last entry is later than this machine's clock: ends all open access, and times go on from there
        #[arg(long)]
        accept_clock: bool,
    },
    /// Show the main job on a throw-away PostgreSQL, step by step, then stay up to be tried
    Demo {
        /// `only`: end after the walk; exit code 0 only if every step came out right
        #[arg(long, value_name = "only", value_parser = ["only"])]
        tour: Option<String>,
    },
    #[command(flatten)]
    Account(account::Verb),
    #[command(flatten)]
    Access(access::Verb),
    #[command(flatten)]
    Environments(environments::Verb),
    #[command(flatten)]
    Managed(managed::Verb),
    #[command(flatten)]
    Movements(movements::Verb),
    #[command(flatten)]
    People(people::Verb),
    #[command(flatten)]
    Records(records::Verb),
    #[command(flatten)]
    Declared(declared::Verb),
    /// Print a completion script, for example: daypass completions bash > /etc/bash_completion.d/daypass
    Completions { shell: clap_complete::Shell },
}

/// Carries out the command line.
pub async fn run(cli: Cli) -> ExitCode {
    let show = Show { json: cli.json };
    match verb(cli.verb, show).await.and_then(|()| show::all_written()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            show.failure(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

async fn verb(verb: Verb, show: Show) -> Result<(), Failure> {
    match verb {
        Verb::Serve { config, accept_clock } => server::serve(config.as_deref(), accept_clock).await,
        Verb::Demo { tour } => crate::demo::run(tour.is_some()).await.map_err(Failure::from),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "daypass", &mut std::io::stdout());
            Ok(())
        }
        Verb::Account(verb) => account::run(verb, show).await,
        Verb::Records(records::Verb::Log(records::Log::Verify { file, head })) => records::verify(&file, head, show),
        Verb::Environments(environments::Verb::Env(environments::Env::Recipe { name: None, database, admin, owner, engine })) => {
            show.text(&environments::recipe(engine, &database.unwrap_or_default(), &admin, &owner));
            Ok(())
        }
        Verb::Access(verb) => access::run(verb, &Client::signed_in()?, show).await,
        Verb::Environments(verb) => environments::run(verb, &Client::signed_in()?, show).await,
        Verb::Managed(verb) => managed::run(verb, &Client::signed_in()?, show).await,
        Verb::Movements(verb) => movements::run(verb, &Client::signed_in()?, show).await,
        Verb::People(verb) => people::run(verb, &Client::signed_in()?, show).await,
        Verb::Declared(verb) => declared::run(verb, &Client::signed_in()?, show).await,
        Verb::Records(verb) => records::run(verb, &Client::signed_in()?, show).await,
    }
}

/// A lifetime as people write it: 8h, 90m, 1h30m, 45s. In seconds.
pub fn duration(text: &str) -> Result<u64, String> {
    let how = || format!("'{text}' is not a length of time; write it like 8h, 90m, 1h30m or 45s");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| how())?;
    u64::try_from(parsed.as_secs()).ok().filter(|seconds| *seconds > 0).ok_or_else(how)
}

/// A new password or one that is known, from the terminal or from standard input: never from the command line.
fn password(prompt: &str, from_stdin: bool) -> Result<String, Failure> {
    if from_stdin {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|e| Failure::failed(format!("the password could not be read: {e}")))?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    rpassword::prompt_password(prompt).map_err(|e| Failure::failed(format!("the password could not be read: {e}. In a script, give it to --password-stdin")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        assert_eq!(duration("8h"), Ok(28_800));
        assert_eq!(duration("1h30m"), Ok(5_400));
        assert_eq!(duration("45s"), Ok(45));
        for wrong in ["", "8", "-1h", "0s", "soon"] {
            assert!(duration(wrong).unwrap_err().contains("8h"), "{wrong}");
        }
    }
}
