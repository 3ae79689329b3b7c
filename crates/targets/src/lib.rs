//! Other people's databases: looking at them, making and removing accounts. One file per engine behind one trait.
//!
//! Every act is idempotent and found again by the account's name, so that it can be repeated after any crash. What is
//! built here knows the target's administrator password; it never writes it anywhere.

mod error;
pub mod postgres;

pub use error::TargetError;

use daypass_core::{
    environment::{Grants, Identity},
    ids::*,
    names::{AccountName, DatabaseName},
    pass::Access,
    plan::Observation,
    time::Ttl,
};
use std::future::Future;

/// The account that a pass wants on a target.
pub struct AccountSpec<'a> {
    pub account: &'a AccountName,
    pub pass: PassId,
    pub environment: EnvironmentId,
    pub database: &'a DatabaseName,
    pub access: Access,
    pub grants: Grants,
    /// What is left of the pass: the target adds it to its own clock.
    pub left: Ttl,
    /// Sessions that the account may have at once.
    pub connections: u16,
    /// What the target keeps of the password: a verifier, never the clear text.
    pub verifier: &'a str,
}

/// What `env test` found out about one requirement.
#[derive(Clone, Debug)]
pub struct Check {
    pub what: String,
    pub ok: bool,
    /// What to do when it is not so.
    pub remedy: String,
}

/// One database server, as its administrator sees it.
pub trait Target: Send + Sync {
    /// What tells this database from one that takes its place.
    fn identity(&self, database: &DatabaseName) -> impl Future<Output = Result<Identity, TargetError>> + Send;
    /// All accounts that bear the marker of this installation, with their connections.
    fn observe(&self) -> impl Future<Output = Result<Observation, TargetError>> + Send;
    /// Makes the account, or puts an existing one right.
    fn provide(&self, spec: &AccountSpec<'_>) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Gives the accounts of an environment their rights on what has been created since.
    fn refresh_grants(&self, environment: EnvironmentId, database: &DatabaseName) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Locks the account, ends its connections, gives away what it owns (to `heir`, else to the database's owner), drops it.
    fn remove(&self, account: &str, heir: Option<&str>) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Ends one connection of an account, found by its process id.
    fn kill(&self, account: &str, pid: u32) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// What works and what is missing.
    fn test(&self, database: &DatabaseName) -> impl Future<Output = Vec<Check>> + Send;
}
