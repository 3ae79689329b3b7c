//! Daypass: just-in-time database access. One binary: server, command line, demo.

mod aside;
mod cli;
mod clock;
mod config;
mod control;
mod demo;
mod drift;
mod ender;
mod firewall;
mod keeper;
mod mover;
mod node;
mod notify;
mod pki;
mod random;
mod serve;
mod standing;
mod trial;
mod watch;
mod web;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // one provider for the whole process, before anything can ask for one
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("the cryptography could not be set up");
        return ExitCode::from(cli::exit::FAILED);
    }
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime could not be started: {error}");
            return ExitCode::from(cli::exit::FAILED);
        }
    };
    runtime.block_on(cli::run(cli))
}
