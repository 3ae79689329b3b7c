//! The stand-in holds what its README says.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

use daypass_testkit::sqlserver::{Options, StandIn};

#[test]
fn its_tables_are_there_for_every_session() {
    for _ in 0..5 {
        let standin = StandIn::start(Options::default()).unwrap();
        for n in 0..20 {
            standin.sql("uat", "SELECT COUNT(*) FROM sales.orders").unwrap_or_else(|e| panic!("{n}: {e}"));
            standin.sql("uat", "DELETE FROM sales.orders WHERE id = 7").unwrap_or_else(|e| panic!("{n}: {e}"));
        }
    }
}
