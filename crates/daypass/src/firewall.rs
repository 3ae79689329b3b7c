//! Environments whose target keeps people out by its own firewall: the rules follow the allow entries, and a session that a
//! removed rule would leave open is ended. What others made there is shown, never touched.

use crate::node::Node;
use daypass_core::{
    admission,
    environment::{Enforce, Environment},
    firewall::{RuleAction, drift, plan},
    ids::TargetId,
    pass::State,
};
use daypass_gateway::World;
use daypass_targets::{Target, TargetError};

pub struct Firewall<'a, T> {
    pub node: &'a Node,
    pub id: TargetId,
    pub target: &'a T,
}

impl<T: Target> Firewall<'_, T> {
    /// Puts rules and sessions right; a database that is not there right now has neither.
    pub async fn look(&self) {
        let environments: Vec<Environment> =
            self.node.ledger(|ledger| ledger.environments_on(self.id).filter(|env| env.spec.enforce == Enforce::AzureSqlFirewall).cloned().collect());
        for env in environments {
            let trouble = format!("firewall:{}", env.id);
            match self.put_right(&env).await {
                Ok(()) | Err(TargetError::NoDatabase(_)) => self.node.troubles.clear(&trouble),
                Err(error) => self.node.troubles.note(trouble, error.to_string(), self.node.now()),
            }
        }
    }

    /// Every step is tried, whatever became of the one before; the first failure is told. Ends come before beginnings.
    async fn put_right(&self, env: &Environment) -> Result<(), TargetError> {
        let database = &env.spec.database;
        let (mut all, actions) = match self.target.rules(database).await {
            Ok(observed) => {
                self.node.set_drift(env.id, drift(&observed));
                let now = self.node.now();
                (Ok(()), self.node.ledger(|ledger| plan(ledger, env, &observed, now)))
            }
            Err(error) => (Err(error), Vec::new()),
        };
        for action in &actions {
            if let RuleAction::Remove(rule) = action {
                all = all.and(self.target.remove_rule(database, rule).await);
            }
        }
        all = all.and(self.end_sessions(env).await);
        for action in &actions {
            if let RuleAction::Set(rule) = action {
                all = all.and(self.target.set_rule(database, rule).await);
            }
        }
        all
    }

    /// A firewall asks when a connection comes, and never again.
    async fn end_sessions(&self, env: &Environment) -> Result<(), TargetError> {
        let mut all = Ok(());
        for session in self.target.sessions(&env.spec.database).await? {
            let stands = self.node.ledger(|ledger| {
                let pass = ledger.pass_of_account(&session.account)?;
                let allowed = session.address.is_some_and(|address| admission::standing(ledger, pass, address, self.node.now()).is_ok());
                Some(allowed || matches!(pass.state(), State::Approved { .. }))
            });
            if stands == Some(false) {
                all = all.and(self.target.kill(&session.account, session.id, &env.spec.database).await);
            }
        }
        all
    }
}
