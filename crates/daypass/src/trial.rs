//! The whole way that access takes, tried with an account that nobody has: made as a pass's is, let in as a person is, looked through by somebody
//! who is in, and removed. What is only asked for can be answered with yes and fail all the same.

use crate::node::{Node, PassSecrets};
use daypass_core::{
    environment::{Enforce, Engine, EnvironmentSpec, Identity, TargetSpec},
    ids::*,
    names::AccountName,
    pass::Access,
    plan::Observation,
    secret::Secret,
};
use daypass_gateway::{
    Ready, Way, Who, knock,
    ranked::{Rank, Ranked},
};
use daypass_targets::{AccountSpec, AnyTarget, Check, Estate, Target, TargetError, Verdict};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// How long the target itself lets the account in at most, whatever becomes of us.
const LIFE: Duration = Duration::from_secs(120);

/// Accounts of trials that are under way: nobody's pass, and nothing to be removed by anybody else.
#[derive(Clone)]
pub struct Trials(Arc<Ranked<Known>>);

#[derive(Default)]
struct Known {
    running: BTreeSet<String>,
    /// Of each look at a target that is under way: all trials that ran since it began.
    looks: HashMap<u64, BTreeSet<String>>,
    next: u64,
}

struct Running {
    trials: Trials,
    account: String,
}

/// A look at a target: what it sees of a trial is known for one also where the trial began or ended while it looked.
pub struct Look {
    trials: Trials,
    id: u64,
}

impl Trials {
    fn begin(&self, account: &AccountName) -> Running {
        let mut known = self.0.lock();
        known.running.insert(account.to_string());
        for seen in known.looks.values_mut() {
            seen.insert(account.to_string());
        }
        Running { trials: self.clone(), account: account.to_string() }
    }

    /// To be asked before the target is.
    pub fn look(&self) -> Look {
        let mut known = self.0.lock();
        let (id, seen) = (known.next, known.running.clone());
        known.next += 1;
        known.looks.insert(id, seen);
        Look { trials: self.clone(), id }
    }
}

impl Look {
    /// All trials since the look began.
    pub fn names(&self) -> BTreeSet<String> {
        self.trials.0.lock().looks.get(&self.id).cloned().unwrap_or_default()
    }

    /// What was seen of others than trials.
    pub fn leave_out(&self, observed: &mut Observation) {
        let trials = self.names();
        observed.accounts.retain(|account| !trials.contains(&account.name));
        observed.backends.retain(|backend| !trials.contains(&backend.account));
    }
}

impl Default for Trials {
    fn default() -> Self {
        Trials(Arc::new(Ranked::new(Rank::Trials, Known::default())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.trials.0.lock().running.remove(&self.account);
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.trials.0.lock().looks.remove(&self.id);
    }
}

/// What is tried.
pub struct Trial {
    pub node: Arc<Node>,
    pub target: Arc<AnyTarget>,
    /// How the gateway gets there.
    pub way: TargetSpec,
    pub environment: EnvironmentId,
    pub spec: EnvironmentSpec,
}

impl Trial {
    /// In a task of its own: whoever asked may go away, and the account goes all the same.
    pub async fn run(self) -> Vec<Check> {
        let trying = tokio::spawn(async move { self.whole_way().await });
        trying
            .await
            .unwrap_or_else(|error| vec![Check::missing(format!("the test itself failed: {error}"), "This is a defect in Daypass: please tell its makers.")])
    }

    async fn whole_way(&self) -> Vec<Check> {
        let mut checks = self.target.test(&self.spec.database).await;
        if self.spec.enforce == Enforce::AzureSqlFirewall {
            let rules = self.target.rules(&self.spec.database).await;
            let remedy = "azure_sql_firewall is for Azure SQL Database only, with an administrator that is db_owner; anything else has the gateway.";
            checks.push(Check::needs(rules.is_ok(), "the database has a firewall of its own", remedy));
        }
        // nobody can go further than that
        if checks.iter().any(|check| check.verdict == Verdict::Missing) {
            return checks;
        }
        for access in [Access::Read, Access::ReadWrite] {
            match self.once(access, &mut checks).await {
                Ok(()) => {}
                Err(check) => {
                    checks.push(check);
                    break;
                }
            }
        }
        checks
    }

    async fn once(&self, access: Access, checks: &mut Vec<Check>) -> Result<(), Check> {
        let word = access.as_str();
        let identity = self.target.identity(self.environment, &self.spec.database).await;
        let identity =
            identity.map_err(|error| Check::missing(format!("which database this is cannot be read: {error}"), "The administrator needs to see it."))?;
        let secrets = tokio::task::spawn_blocking(PassSecrets::make).await.map_err(|error| Check::missing(error.to_string(), "Try again."))?;
        let password = Secret::new(&*secrets.target);
        // no person's name has such a beginning
        let account: AccountName = format!("jit__test_{:08x}", crate::random::number() & 0xffff_ffff).parse().map_err(|why: String| Check::missing(why, ""))?;
        let _running = self.node.trials.begin(&account);
        let made = AccountSpec {
            account: &account,
            pass: PassId::new(crate::random::id()),
            environment: self.environment,
            database: &self.spec.database,
            access,
            grants: self.spec.grants,
            left: LIFE,
            sessions: 1,
            verifier: &secrets.target_verifier,
            password: &password,
            extras: &BTreeSet::new(),
        };
        let done = match self.target.provide(&made).await {
            Ok(()) => {
                checks.push(Check::fine(format!("{word}: an account can be made")));
                self.inside(&account, &password, &secrets.target_verifier, &identity, access, checks).await
            }
            // whose work it is in the way of tells nothing of how the server is reached
            Err(error) if error.is_held_on_to() => Err(Check::note(
                format!("{word}: this could not be tried, somebody holds on to what it takes: {error}"),
                "Try again later: daypass env test; daypass doctor says who is in.",
            )),
            Err(error) => Err(Check::missing(
                format!("{word}: no account can be made: {error}"),
                "Do what the server or the sentence says; the recipe (daypass env recipe) has all rights that it takes.",
            )),
        };
        let databases = std::slice::from_ref(&self.spec.database);
        let gone = self.target.remove(account.as_str(), databases, Estate::default()).await;
        checks.push(match gone {
            Ok(()) => Check::fine(format!("{word}: the account is removed again")),
            Err(error) => Check::missing(
                format!("{word}: the account {account} cannot be removed: {error}"),
                "Access would not end at the server: the recipe (daypass env recipe) has all rights that it takes.",
            ),
        });
        done
    }

    /// Logs in as the gateway does, and looks around as somebody who is in.
    async fn inside(
        &self,
        account: &AccountName,
        password: &Secret,
        verifier: &str,
        identity: &Identity,
        access: Access,
        checks: &mut Vec<Check>,
    ) -> Result<(), Check> {
        // where the target's own firewall keeps people out, nobody comes in from here
        if self.spec.enforce != Enforce::Gateway {
            return Ok(());
        }
        let word = access.as_str();
        let failed = |error: TargetError| Check::missing(format!("{word}: the account cannot be let in: {error}"), "The server says this.");
        self.target.open_door(account.as_str(), verifier).await.map_err(failed)?;
        let inside = async {
            let question = match self.way.engine {
                Engine::Postgres => None,
                Engine::SqlServer => daypass_targets::sqlserver::question(identity, self.environment),
            };
            let tls = crate::node::tls_to(self.way.engine, &self.way.tls);
            let way = Way { target: &self.way, tls, database: &self.spec.database };
            let who = Who { user: account.to_string(), password: password.clone(), pass: None };
            let ready = knock(&way, &who, question).await.map_err(|error| {
                Check::missing(
                    format!("{word}: an account cannot log in from here: {error}"),
                    "On PostgreSQL, pg_hba.conf needs a line that lets accounts in from this machine: hostssl <database> all <address>/32 scram-sha-256. On SQL Server, its mode is SQL Server and Windows authentication.",
                )
            })?;
            let same = match &ready {
                Ready::Postgres(ready) => ready.seen.identity == identity.0,
                Ready::SqlServer(ready) => ready.seen.as_ref().is_some_and(|answer| daypass_targets::sqlserver::is_answer(identity, answer)),
            };
            if !same {
                return Err(Check::missing(
                    format!("{word}: a login lands in another database than the administrator's"),
                    "Is something between Daypass and the server that sends logins to several of them (a pooler, a balancer)? Name the server itself.",
                ));
            }
            checks.push(Check::fine(format!("{word}: an account logs in as people's sessions do, and finds itself in the right database")));
            checks.extend(self.target.look_around(account, password, &self.spec.database, access).await.map_err(failed)?);
            Ok(())
        };
        let done = inside.await;
        self.target.close_doors(&[account.to_string()]).await.map_err(failed)?;
        done
    }
}

/// What is missing, in one sentence each, and what mends it; none: people get in.
pub fn missing(checks: &[Check]) -> Option<(String, String)> {
    let missing: Vec<&Check> = checks.iter().filter(|check| check.verdict == Verdict::Missing).collect();
    let all = |text: fn(&Check) -> &str| missing.iter().map(|check| text(check)).collect::<Vec<_>>().join("; ");
    (!missing.is_empty()).then(|| (all(|check| &check.what), all(|check| &check.remedy)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_knows_each_trial_that_ran_while_it_looked() {
        let trials = Trials::default();
        let name = |text: &str| -> AccountName { text.parse().unwrap() };
        let (over, runs) = (trials.begin(&name("jit__test_1")), trials.begin(&name("jit__test_2")));
        drop(over);
        let look = trials.look();
        let begun = trials.begin(&name("jit__test_3"));
        drop(runs);
        drop(begun);
        assert_eq!(look.names(), ["jit__test_2", "jit__test_3"].map(str::to_owned).into());
        assert!(trials.look().names().is_empty());
        drop(look);
        assert!(trials.0.lock().looks.is_empty());
    }
}
