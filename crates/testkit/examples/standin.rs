//! A stand-in for SQL Server to try by hand: prints where it is, and stays until Enter. With a folder as argument, it then leaves
//! there what each client and the server said to each other.

use daypass_testkit::sqlserver::{Options, StandIn};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1);
    let standin = StandIn::start(Options { record: folder.is_some(), ..Options::default() })?;
    std::fs::write(std::env::temp_dir().join("standin-ca.pem"), &standin.ca)?;
    println!("{} (sa, Super-Secret-1; its CA is standin-ca.pem in the temporary folder)", standin.port);
    std::io::stdin().read_line(&mut String::new())?;
    for (n, tape) in standin.tapes().iter().enumerate() {
        std::fs::write(format!("{}/{n}.tape", folder.as_deref().unwrap_or(".")), tape)?;
    }
    Ok(())
}
