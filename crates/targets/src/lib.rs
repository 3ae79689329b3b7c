//! Other people's databases: looking at them, making and removing accounts. One file per engine behind one trait.
//!
//! Every act is idempotent and found again by the account's name, so that it can be repeated after any crash. What is
//! built here knows the target's administrator password; it never writes it anywhere.

mod any;
mod error;
pub mod movement;
pub mod postgres;
mod programs;
pub mod sqlserver;

pub use any::AnyTarget;
pub use error::TargetError;

use daypass_core::{
    drift::Finding,
    environment::{Grants, Identity},
    firewall::Rule,
    ids::*,
    movement::{Made, Swept},
    names::{AccountName, DatabaseName, RoleName},
    pass::Access,
    plan::{Backend, Observation},
    policy::Extra,
    secret::Secret,
};
use movement::{Move, Scripts, Source, Standing};
use std::{collections::BTreeSet, future::Future, net::IpAddr, path::Path, time::Duration};

/// How far taking an account back is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It has the vault's password, and whoever had another is out.
    Back,
    /// Somebody is still in, or was about to come in: to be asked again in a moment.
    NotYet,
}

/// Which accounts are known, asked when a look has been taken: what came while it looked is nobody else's.
pub type Known<'a> = dyn Fn() -> BTreeSet<String> + Sync + 'a;

/// The account that a pass wants on a target.
pub struct AccountSpec<'a> {
    pub account: &'a AccountName,
    pub pass: PassId,
    pub environment: EnvironmentId,
    pub database: &'a DatabaseName,
    pub access: Access,
    pub grants: Grants,
    /// What is left of the pass: the target adds it to its own clock.
    pub left: Duration,
    /// How many sessions the gateway lets in at most.
    pub sessions: u16,
    /// What the target keeps of the password, where it takes a verifier in place of the clear text.
    pub verifier: &'a str,
    /// For engines that take nothing but the password itself. It is random, and nobody sees it.
    pub password: &'a Secret,
    /// Rights beyond reading and writing rows.
    pub extras: &'a BTreeSet<Extra>,
}

/// What becomes of things that an account owns when it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estate<'a> {
    /// Whose role for what is left, which has no rights, gets it.
    pub environment: Option<EnvironmentId>,
    /// Who may use what is left; none: the owner of the database. It never becomes theirs by itself.
    pub heir: Option<&'a str>,
    /// They are dropped, unless something of others depends on them.
    pub drop: bool,
}

/// A session of one of our accounts, as the target sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionAt {
    pub account: String,
    pub id: u32,
    /// None where the target does not say: nobody is allowed in from nowhere.
    pub address: Option<IpAddr>,
}

/// What `env test` found out about one requirement.
#[derive(Clone, Debug)]
pub struct Check {
    pub what: String,
    pub verdict: Verdict,
    /// What to do when it is not so.
    pub remedy: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Fine,
    /// People get in, and find something else than they may think: somebody has to decide whether that is meant.
    Note,
    /// Nobody gets in, or not as promised, before it is mended.
    Missing,
}

impl Check {
    pub fn fine(what: impl Into<String>) -> Check {
        Check { what: what.into(), verdict: Verdict::Fine, remedy: String::new() }
    }

    pub fn note(what: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { what: what.into(), verdict: Verdict::Note, remedy: remedy.into() }
    }

    pub fn missing(what: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { what: what.into(), verdict: Verdict::Missing, remedy: remedy.into() }
    }

    pub fn needs(so: bool, what: impl Into<String>, remedy: impl Into<String>) -> Check {
        if so { Check::fine(what) } else { Check::missing(what, remedy) }
    }
}

/// Names in a sentence: the first few, and how many there are beside them.
pub(crate) fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// One database server, as its administrator sees it.
pub trait Target: Send + Sync {
    /// What tells this database from one that takes its place.
    fn identity(&self, environment: EnvironmentId, database: &DatabaseName) -> impl Future<Output = Result<Identity, TargetError>> + Send;
    /// How far the server's own log is, where it has one that only grows: a smaller number than before means that the server was put back to
    /// an earlier moment, whatever its ids say.
    fn position(&self) -> impl Future<Output = Result<Option<u64>, TargetError>> + Send {
        async { Ok(None) }
    }
    /// Makes the database that is there now tell itself from copies of others, where the engine's own ids do not do that.
    fn adopt(&self, environment: EnvironmentId, database: &DatabaseName) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (environment, database);
        async { Ok(()) }
    }
    /// Opens the connections that ending access takes, before anybody is let in who could take the last one.
    fn reserve(&self) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// All accounts that bear the marker of this installation or one of these names, with their connections. `databases` are those of its
    /// environments. Goes through the reserved connection.
    fn observe(&self, databases: &[DatabaseName], names: &[String]) -> impl Future<Output = Result<Observation, TargetError>> + Send;
    /// Every connection of these accounts, and these, is told to end: by what works whatever they hold. For when a look fails, and no more than that.
    fn end_now(&self, accounts: &[String], backends: &[Backend]) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (accounts, backends);
        async { Ok(()) }
    }
    /// Nobody is in with these accounts from now on, and they have no rights any more; and these connections of others are ended. Takes no
    /// longer for an account that owns much, and waits for nobody: what still goes on is found by the next look. All are tried, and the
    /// first failure is told.
    fn shut(&self, accounts: &[String], backends: &[Backend], databases: &[DatabaseName]) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Lets the gateway's own login in, with what it is about to prove; see [`daypass_core::environment::Engine::logs_in_by_moment`].
    fn open_door(&self, account: &str, verifier: &str) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (account, verifier);
        async { Ok(()) }
    }
    /// Nobody logs in with these accounts any more; who is in stays.
    fn close_doors(&self, accounts: &[String]) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = accounts;
        async { Ok(()) }
    }
    /// What the groups that accounts belong to own or have prepared: it is taken from them, and told in words.
    fn tidy_groups(
        &self,
        environment: EnvironmentId,
        database: &DatabaseName,
        estate: Estate<'_>,
    ) -> impl Future<Output = Result<Vec<Swept>, TargetError>> + Send {
        let _ = (environment, database, estate);
        async { Ok(Vec::new()) }
    }
    /// Why a standing account's sessions could not be ended by the administrator, or its password not be put back, if so.
    fn outranks(&self, account: &RoleName) -> impl Future<Output = Result<Option<String>, TargetError>> + Send {
        let _ = account;
        async { Ok(None) }
    }
    /// What an account has by [`Target::provide`], in the words in which [`Target::observe`] tells it.
    fn rights(&self, environment: EnvironmentId, access: Access, grants: Grants, sessions: u16) -> BTreeSet<String>;
    /// Makes the account, or puts an existing one right.
    fn provide(&self, spec: &AccountSpec<'_>) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Gives the accounts of an environment their rights on what has been created since.
    fn refresh_grants(&self, environment: EnvironmentId, database: &DatabaseName) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// What the account owns or has prepared, in words. It is locked first, so that nothing is added after the look.
    fn remains(&self, account: &str, databases: &[DatabaseName]) -> impl Future<Output = Result<Vec<String>, TargetError>> + Send;
    /// Locks the account, ends its connections, gives away or drops what it owns, drops it.
    fn remove(&self, account: &str, databases: &[DatabaseName], estate: Estate<'_>) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Takes the rights in this database from whatever bears our mark and is not this environment's: it came inside a copy that others made.
    /// `theirs` are the accounts of its passes, as they are once it has looked.
    fn sweep_marked(
        &self,
        environment: EnvironmentId,
        database: &DatabaseName,
        theirs: &Known<'_>,
    ) -> impl Future<Output = Result<Vec<Swept>, TargetError>> + Send;
    /// What others made on the server that opens a way into these databases. `ours` are accounts that are known, once it has looked: of passes,
    /// standing ones, of movements.
    fn drift(&self, databases: &[DatabaseName], ours: &Known<'_>) -> impl Future<Output = Result<Vec<Finding>, TargetError>> + Send;
    /// Takes away what somebody said is to go. The account itself stays, without a way in.
    fn end_drift(&self, finding: &Finding) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Ends one connection of an account, found by its number.
    fn kill(&self, account: &str, id: u32, database: &DatabaseName) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// Gives an account that is none of ours a new password.
    fn set_password(&self, database: &DatabaseName, account: &RoleName, password: &Secret) -> impl Future<Output = Result<(), TargetError>> + Send;
    /// One step of giving it the vault's password back when somebody has set another from inside: called until it is done, with the numbers of
    /// our sessions, which stay, and what is still waited for (none at first). Meanwhile the account may be shut. Where nobody can set another
    /// without knowing the old one, setting it is all there is to do.
    fn take_back(
        &self,
        database: &DatabaseName,
        account: &RoleName,
        password: &Secret,
        ours: &[u32],
        waiting: &mut Option<Vec<u32>>,
    ) -> impl Future<Output = Result<Taken, TargetError>> + Send {
        let _ = (ours, waiting);
        async { self.set_password(database, account, password).await.map(|()| Taken::Back) }
    }
    /// What works for the administrator, and what is missing.
    fn test(&self, database: &DatabaseName) -> impl Future<Output = Vec<Check>> + Send;
    /// What somebody finds who is in with this account, which may log in for the moment: what they do not see, and whether they could write.
    fn look_around(
        &self,
        account: &AccountName,
        password: &Secret,
        database: &DatabaseName,
        access: Access,
    ) -> impl Future<Output = Result<Vec<Check>, TargetError>> + Send;
    /// Takes away what accounts of an environment have in common, when there will be none: see [`Target::provide`].
    fn forget(&self, environment: EnvironmentId, database: &DatabaseName) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (environment, database);
        async { Ok(()) }
    }

    // What follows is for movements; the steps of one are called in this order.

    /// What would stand in the way of the movement, and what is worth knowing before it: a row for each thing that was looked for. `source` is
    /// none where nothing is copied.
    fn look_ahead(&self, movement: &Move<'_>, source: Option<&Source<'_>>) -> impl Future<Output = Result<Vec<Check>, TargetError>> + Send {
        let _ = (movement, source);
        async { movement::not_here() }
    }
    /// The rows of it that come and go: what would keep the names from being exchanged at this moment.
    fn in_the_way(&self, movement: &Move<'_>) -> impl Future<Output = Result<Vec<Check>, TargetError>> + Send {
        let _ = movement;
        async { movement::not_here() }
    }
    /// Makes the new database beside the old one, under the movement's scratch name, closed to everybody.
    fn copy(&self, movement: &Move<'_>, source: &Source<'_>) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (movement, source);
        async { movement::not_here() }
    }
    /// Runs the operator's scripts in the movement's scratch database.
    fn run_scripts(&self, movement: &Move<'_>, scripts: &Scripts) -> impl Future<Output = Result<Vec<Swept>, TargetError>> + Send {
        let _ = (movement, scripts);
        async { movement::not_here() }
    }
    /// Disables what came inside the copy, runs the operator's scripts, and says what it did. People work in the database of before.
    fn sweep(&self, movement: &Move<'_>, scripts: &Scripts) -> impl Future<Output = Result<Vec<Swept>, TargetError>> + Send {
        let _ = (movement, scripts);
        async { movement::not_here() }
    }
    /// Gives the new database what hangs on the one of before, which nobody is in any more: rights, above all, as they are now.
    fn carry_over(&self, movement: &Move<'_>) -> impl Future<Output = Result<Vec<Swept>, TargetError>> + Send {
        let _ = movement;
        async { movement::not_here() }
    }
    /// Gives `incoming` the database's name, and puts the database aside as the movement names it.
    fn swap(&self, movement: &Move<'_>, incoming: &DatabaseName) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (movement, incoming);
        async { movement::not_here() }
    }
    /// Removes what a movement has made before the names are exchanged.
    fn discard(&self, movement: &Move<'_>) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = movement;
        async { movement::not_here() }
    }
    /// Finds out where an interrupted exchange of names stands, removes what it had half made, and opens the database that is in place.
    fn settle(&self, movement: &Move<'_>, incoming: &DatabaseName) -> impl Future<Output = Result<Standing, TargetError>> + Send {
        let _ = (movement, incoming);
        async { movement::not_here() }
    }
    /// Drops a database that was put aside; it may be gone already.
    fn drop_kept(&self, database: &DatabaseName) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = database;
        async { movement::not_here() }
    }
    /// Writes a dump of the database to a file that is not there yet.
    fn export(&self, movement: &Move<'_>, file: &Path) -> impl Future<Output = Result<Made, TargetError>> + Send {
        let _ = (movement, file);
        async { movement::not_here() }
    }

    // What follows is for targets whose own firewall keeps people out.

    /// Sessions of our accounts, with the address that each comes from.
    fn sessions(&self, database: &DatabaseName) -> impl Future<Output = Result<Vec<SessionAt>, TargetError>> + Send {
        let _ = database;
        async { Ok(Vec::new()) }
    }
    /// All firewall rules that open this database, ours and others'.
    fn rules(&self, database: &DatabaseName) -> impl Future<Output = Result<Vec<Rule>, TargetError>> + Send {
        let _ = database;
        async { Ok(Vec::new()) }
    }
    fn set_rule(&self, database: &DatabaseName, rule: &Rule) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (database, rule);
        async { Err(TargetError::Refused(NO_FIREWALL.to_owned())) }
    }
    fn remove_rule(&self, database: &DatabaseName, rule: &Rule) -> impl Future<Output = Result<(), TargetError>> + Send {
        let _ = (database, rule);
        async { Err(TargetError::Refused(NO_FIREWALL.to_owned())) }
    }
}

const NO_FIREWALL: &str = "this engine has no firewall of its own";

#[cfg(test)]
mod documented {
    /// What docs/movement.md says of obstacles is what the rows say. `DAYPASS_WRITE=1` writes it.
    #[test]
    fn obstacles_are_documented_row_by_row() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/movement.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let mut wanted = found.clone();
        for (engine, rows) in [("PostgreSQL", crate::postgres::documented()), ("SQL Server", crate::sqlserver::documented())] {
            let head = format!("<!-- rows of {engine}: written by `DAYPASS_WRITE=1 cargo test -p daypass-targets documented` -->\n");
            let (before, rest) = wanted.split_once(&head).unwrap_or_else(|| panic!("docs/movement.md has no place for the rows of {engine}"));
            let (_, after) = rest.split_once("<!-- end of rows -->").unwrap_or_else(|| panic!("the rows of {engine} have no end"));
            wanted = format!("{before}{head}\n| {engine}: what is looked for | else |\n|---|---|\n{rows}\n<!-- end of rows -->{after}");
        }
        if std::env::var_os("DAYPASS_WRITE").is_some() && found != wanted {
            let _ = std::fs::write(path, &wanted);
            return;
        }
        assert_eq!(found, wanted, "write it anew: DAYPASS_WRITE=1 cargo test -p daypass-targets documented");
    }
}
