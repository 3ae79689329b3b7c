//! The ledger: the state that follows from the log. There is no second copy of it anywhere.

mod apply;
mod decide;
mod managed;
mod moves;
#[cfg(test)]
mod tests;

pub use apply::Inconsistent;
pub use decide::{SIGNED_IN, known_otherwise};

use crate::{
    allow::AllowList,
    drift::{Drift, Finding},
    environment::*,
    ids::*,
    managed::{Machine, Standing},
    movement::Movement,
    names::{AccountName, Name, UserName},
    pass::{Cause, Pass, State},
    people::*,
    policy::Policy,
    secret::TokenHash,
    time::Time,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// All that is true of access, as of event [`Ledger::seq`].
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    store: Option<StoreId>,
    seq: u64,
    /// The latest moment in the log: the floor under every clock, so that a clock set back revives nothing.
    latest: Time,
    users: BTreeMap<UserId, User>,
    user_names: BTreeMap<UserName, UserId>,
    tokens: BTreeMap<TokenId, Token>,
    token_hashes: HashMap<TokenHash, TokenId>,
    projects: BTreeMap<ProjectId, Name>,
    policies: BTreeMap<Scope, Policy>,
    default_policy: Policy,
    targets: BTreeMap<TargetId, Target>,
    environments: BTreeMap<EnvironmentId, Environment>,
    allow: AllowList,
    passes: BTreeMap<PassId, Pass>,
    accounts: HashMap<AccountName, PassId>,
    /// Passes that are not final: what the keeper and the fence have to look at.
    open: BTreeSet<PassId>,
    /// Passes that wait for somebody's word: an approval, or the review of a broken glass.
    to_judge: BTreeSet<PassId>,
    movements: BTreeMap<MovementId, Movement>,
    standings: BTreeMap<StandingId, Standing>,
    machines: BTreeMap<MachineId, Machine>,
    drift: BTreeMap<(TargetId, Finding), Drift>,
}

impl Ledger {
    pub fn store(&self) -> Option<StoreId> {
        self.store
    }

    /// The number of the last event applied; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    pub fn latest(&self) -> Time {
        self.latest
    }

    /// `now`, but never before what the log already knows.
    pub fn clamp(&self, now: Time) -> Time {
        now.max(self.latest)
    }

    pub fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id)
    }

    pub fn user_named(&self, name: &UserName) -> Option<&User> {
        self.users.get(self.user_names.get(name)?)
    }

    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// The person behind an API token, when the token and the person are good.
    pub fn token_user(&self, hash: &TokenHash, kind: TokenKind, now: Time) -> Option<(&Token, &User)> {
        let token = self.tokens.get(self.token_hashes.get(hash)?)?;
        let user = self.users.get(&token.user)?;
        let good = token.hash.same(hash) && token.kind == kind && self.clamp(now) < token.ends_at && user.locked.is_none() && token.locks == user.locks();
        good.then_some((token, user))
    }

    pub fn token(&self, id: TokenId) -> Option<&Token> {
        self.tokens.get(&id)
    }

    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    pub fn projects(&self) -> impl Iterator<Item = (ProjectId, &Name)> {
        self.projects.iter().map(|(id, name)| (*id, name))
    }

    pub fn project_named(&self, name: &Name) -> Option<ProjectId> {
        self.projects.iter().find(|(_, n)| *n == name).map(|(id, _)| *id)
    }

    pub fn project_name(&self, id: ProjectId) -> Option<&Name> {
        self.projects.get(&id)
    }

    pub fn target(&self, id: TargetId) -> Option<&Target> {
        self.targets.get(&id)
    }

    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    pub fn environment(&self, id: EnvironmentId) -> Option<&Environment> {
        self.environments.get(&id)
    }

    /// The environment of this name that is not removed.
    pub fn environment_named(&self, name: &Name) -> Option<&Environment> {
        self.environments().find(|env| env.spec.name == *name)
    }

    /// Where somebody may do something, removed environments with them: what happened there stays to be read.
    pub fn environments_where(&self, user: UserId, permission: Permission) -> Vec<EnvironmentId> {
        self.environments.keys().copied().filter(|id| self.may(user, permission, Some(*id))).collect()
    }

    /// Environments that are not removed.
    pub fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.environments.values().filter(|env| !env.removed())
    }

    /// All environments on a target, removed ones included: their accounts may still have to be cleaned.
    pub fn environments_on(&self, target: TargetId) -> impl Iterator<Item = &Environment> {
        self.environments.values().filter(move |env| env.target == target)
    }

    /// The override of the environment, else the policy of its project, else the one for everything, else the default.
    pub fn policy(&self, env: &Environment) -> &Policy {
        [Scope::Environment(env.id), Scope::Project(env.project), Scope::All].iter().find_map(|scope| self.policies.get(scope)).unwrap_or(&self.default_policy)
    }

    /// The policy that was set for just this.
    pub fn own_policy(&self, scope: Scope) -> Option<&Policy> {
        self.policies.get(&scope)
    }

    pub fn allow(&self) -> &AllowList {
        &self.allow
    }

    pub fn pass(&self, id: PassId) -> Option<&Pass> {
        self.passes.get(&id)
    }

    pub fn pass_of_account(&self, account: &str) -> Option<&Pass> {
        self.passes.get(self.accounts.get(&account.parse::<AccountName>().ok()?)?)
    }

    pub fn passes(&self) -> impl Iterator<Item = &Pass> {
        self.passes.values()
    }

    /// Passes that are not final.
    pub fn open_passes(&self) -> impl Iterator<Item = &Pass> {
        self.open.iter().filter_map(|id| self.passes.get(id))
    }

    /// Passes that wait for somebody's word: an approval, or the review of a broken glass.
    pub fn to_judge(&self) -> impl Iterator<Item = &Pass> {
        self.to_judge.iter().filter_map(|id| self.passes.get(id))
    }

    /// What others made on the targets.
    pub fn drift(&self) -> impl Iterator<Item = &Drift> {
        self.drift.values()
    }

    pub fn movement(&self, id: MovementId) -> Option<&Movement> {
        self.movements.get(&id)
    }

    pub fn movements(&self) -> impl Iterator<Item = &Movement> {
        self.movements.values()
    }

    /// Whether a person may do something: anywhere, or on this environment.
    pub fn may(&self, user: UserId, permission: Permission, environment: Option<EnvironmentId>) -> bool {
        let Some(user) = self.users.get(&user) else { return false };
        let project = environment.and_then(|id| self.environments.get(&id)).map(|env| env.project);
        user.locked.is_none()
            && user.all_roles().any(|(role, scope)| {
                role.grants(permission)
                    && match scope {
                        Scope::All => true,
                        Scope::Project(id) => Some(*id) == project,
                        Scope::Environment(id) => Some(*id) == environment,
                    }
            })
    }

    /// Whether a person may do something that counts for a whole project.
    pub fn may_on_project(&self, user: UserId, permission: Permission, project: ProjectId) -> bool {
        let holds = |scope: &Scope| matches!(scope, Scope::All) || *scope == Scope::Project(project);
        self.users.get(&user).is_some_and(|user| user.locked.is_none() && user.all_roles().any(|(role, scope)| role.grants(permission) && holds(scope)))
    }

    /// Whose word for a request counts: of those who agreed, the ones who may still approve it.
    pub fn agreed(&self, pass: &Pass) -> Vec<UserId> {
        pass.agreed.iter().copied().filter(|user| self.may(*user, Permission::Approve, Some(pass.environment))).collect()
    }

    /// Whether a request waits in vain: it is over, nobody approved it in time, or its person could not ask for it any more.
    pub fn lapses(&self, pass: &Pass, now: Time) -> bool {
        let late = now >= pass.requested_at.after(decide::APPROVAL_LAPSES);
        self.over(pass, now).is_some() || late || !self.may(pass.holder, Permission::Request, Some(pass.environment))
    }

    /// Whether its account should have been there long ago: nobody waits for ever.
    pub fn is_stuck(&self, pass: &Pass, now: Time) -> bool {
        let since = pass.approved_at.map(|at| pass.starts_at(at));
        let late = since.is_some_and(|since| self.clamp(now) >= since.after(decide::MAKING));
        late && matches!(pass.state, State::Approved { .. }) && self.over(pass, now).is_none()
    }

    /// Whether a person may do something on any environment at all: whether a page that lists it is theirs to open.
    pub fn may_somewhere(&self, user: UserId, permission: Permission) -> bool {
        self.users.get(&user).is_some_and(|user| user.locked.is_none() && user.all_roles().any(|(role, _)| role.grants(permission)))
    }

    /// Why a pass is over, when it is: by an event of its own, by what happened around it, or by the clock.
    /// `None` means that nothing ended it; it may still be unready.
    pub fn over(&self, pass: &Pass, now: Time) -> Option<Cause> {
        if let State::Ending { cause } | State::Ended { cause, .. } = &pass.state {
            return Some(cause.clone());
        }
        let Some(env) = self.environments.get(&pass.environment) else { return Some(Cause::EnvironmentRemoved) };
        if let Some(end) = env.end_of(pass.epoch) {
            return Some(match end {
                EpochEnd::Moved(movement) => Cause::Moved { movement },
                EpochEnd::Replaced => Cause::Replaced,
            });
        }
        if env.removed() {
            return Some(Cause::EnvironmentRemoved);
        }
        if self.users.get(&pass.holder).is_none_or(|holder| holder.locked.is_some() || holder.locks() != pass.locks) {
            return Some(Cause::HolderLocked);
        }
        match pass.state {
            State::Approved { ends_at } if self.clamp(now) >= ends_at => {
                Some(Cause::Failed { why: "the account could not be made before its time was over".to_owned() })
            }
            State::Ready { ends_at } if self.clamp(now) >= ends_at => Some(Cause::Expired),
            _ => None,
        }
    }
}
