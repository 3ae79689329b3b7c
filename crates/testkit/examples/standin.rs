//! A stand-in for SQL Server to try by hand: prints where it is, and stays until Enter.

use daypass_testkit::sqlserver::{Options, StandIn};

fn main() -> anyhow::Result<()> {
    let standin = StandIn::start(Options::default())?;
    println!("{} (sa, Super-Secret-1)", standin.port);
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
