//! Deciding: a command becomes new events, or a refusal that changed nothing. Who may do what is checked here and nowhere else.

use super::Ledger;
use crate::{
    allow::{AllowEntry, Owner},
    command::*,
    drift::Finding,
    environment::*,
    event::{Actor, Event},
    ids::*,
    names::*,
    net::Range,
    pass::{Access, Approver, Cause, Digest, Pass, Review, State, Wish},
    people::*,
    policy::{Policy, Reveal},
    refusal::{Code, Refusal},
    time::{Time, Ttl},
};
use std::collections::BTreeSet;

/// A request that nobody approved lapses after so long.
pub(super) const APPROVAL_LAPSES: Ttl = Ttl::hours(24);
/// An account that cannot be made in this time ends its request: whoever waits is told why, and asks again when it is mended.
pub(super) const MAKING: Ttl = Ttl::minutes(10);
/// A sign-in holds for a working day. A token of somebody whose groups are known at a provider lives no longer: they are asked for at each sign-in.
pub const SIGNED_IN: Ttl = Ttl::hours(12);

pub(super) type Decided = Result<Vec<Event>, Refusal>;

impl Ledger {
    /// The events that carry out `command`, or why not. Asking for what is already so is no error: it gives no events.
    pub fn decide(&self, command: &Command, by: Actor, now: Time) -> Decided {
        let now = self.clamp(now);
        match command {
            Command::AddUser { user, name, roles } => self.add_user(by, *user, name, roles),
            Command::AddFirstUser { user, name } => match self.users.is_empty() {
                true => self.add_user(by, *user, name, &[(Role::Admin, Scope::All)]),
                false => Err(Refusal::state("There is an administrator already.", "Ask them to add you.")),
            },
            Command::LockUser { user, why } => self.lock_user(by, *user, why),
            Command::UnlockUser { user } => {
                self.need(by, Permission::ManagePeople, None)?;
                Ok(self.known_user(*user)?.locked.iter().map(|_| Event::UserUnlocked { user: *user }).collect())
            }
            Command::SignInFrom { user, name, issuer, subject, roles } => self.sign_in_from(by, *user, name, issuer, subject, roles),
            Command::SetMail { user, mail } => {
                self.oneself_or_people(by, *user)?;
                let same = self.known_user(*user)?.mail == *mail;
                Ok(if same { vec![] } else { vec![Event::MailSet { user: *user, mail: mail.clone() }] })
            }
            Command::ChangePassword { user } => {
                self.oneself_or_people(by, *user)?;
                Ok(vec![Event::PasswordChanged { user: *user }])
            }
            Command::SetSecondFactor { user } => {
                if by != Actor::User(*user) {
                    return Err(Refusal::new(Code::NotPermitted, "A second factor is set by its person alone.", "They set it on the page of their account."));
                }
                Ok(vec![Event::SecondFactorSet { user: *user }])
            }
            Command::RemoveSecondFactor { user } => {
                self.oneself_or_people(by, *user)?;
                Ok(self.known_user(*user)?.second_factor.then_some(Event::SecondFactorRemoved { user: *user }).into_iter().collect())
            }
            Command::GiveRole { user, role, scope } => {
                self.need(by, Permission::ManagePeople, None)?;
                let has = self.known_user(*user)?.roles.contains(&(*role, *scope));
                Ok(if has { vec![] } else { vec![Event::RoleGiven { user: *user, role: *role, scope: *scope }] })
            }
            Command::TakeRole { user, role, scope } => self.take_role(by, *user, *role, *scope),
            Command::AddToken { token, user, label, hash, life, kind, proved } => {
                if by != Actor::User(*user) {
                    self.need(by, Permission::ManagePeople, None)?;
                }
                let person = self.known_user(*user)?;
                if person.locked.is_some() {
                    return Err(Refusal::new(Code::NotPermitted, "This person is locked.", "An administrator can unlock them."));
                }
                // what somebody's groups give is asked of the provider at each sign-in, and nothing else asks
                if person.linked.is_some() && *life > SIGNED_IN {
                    return Err(Refusal::policy(
                        format!("A token of somebody who signs in with a provider lives {SIGNED_IN} at most."),
                        "Ask for a shorter one; after that, sign in again.",
                    ));
                }
                let (token, user, hash, kind, proved) = (*token, *user, *hash, *kind, *proved);
                Ok(vec![Event::TokenAdded { token, user, label: shown(label), hash, ends_at: now.after(*life), kind, proved }])
            }
            Command::RemoveToken { token } => {
                let known = self.tokens.get(token).ok_or_else(|| Refusal::not_found("token", &token.to_string()))?;
                if by != Actor::User(known.user) {
                    self.need(by, Permission::ManagePeople, None)?;
                }
                Ok(vec![Event::TokenRemoved { token: *token }])
            }
            Command::AddProject { project, name } => {
                self.need(by, Permission::ManageEnvironments, None)?;
                match self.project_named(name) {
                    Some(known) if known == *project => Ok(vec![]),
                    Some(_) => Err(taken("project", name.as_str())),
                    None => Ok(vec![Event::ProjectAdded { project: *project, name: name.clone() }]),
                }
            }
            Command::SetPolicy { scope, policy } => {
                match scope {
                    Scope::All => self.need(by, Permission::ManageEnvironments, None)?,
                    Scope::Project(project) => self.need_on_project(by, Permission::ManageEnvironments, *project)?,
                    Scope::Environment(environment) => self.need(by, Permission::ManageEnvironments, Some(*environment))?,
                }
                policy.check()?;
                let ends = self.forbidden_by(*scope, policy, now);
                Ok(std::iter::once(Event::PolicySet { scope: *scope, policy: policy.clone() }).chain(ends).collect())
            }
            Command::SetTarget { environment, spec } => self.set_target(by, *environment, spec),
            Command::AddEnvironment { environment, project, target, target_spec, spec } => {
                self.add_environment(by, *environment, *project, *target, target_spec, spec)
            }
            Command::RemoveEnvironment { environment } => {
                self.need(by, Permission::ManageEnvironments, Some(*environment))?;
                let there = self.environments.get(environment).is_some_and(|env| !env.removed());
                if let Some(env) = self.environments.get(environment).filter(|env| there && env.moving.is_some()) {
                    return Err(Refusal::state(
                        format!("A movement of {} is under way.", env.spec.name),
                        format!("`daypass move {name} cancel` stops it, `daypass move {name} finish` closes a failed one.", name = env.spec.name),
                    ));
                }
                let end = there.then_some(Event::EnvironmentRemoved { environment: *environment });
                Ok(if there { self.managed_things(by, *environment) } else { vec![] }.into_iter().chain(end).collect())
            }
            Command::SetAccounts { environment, grants, heir } => {
                let env = self.seen_environment(by, *environment)?;
                self.need(by, Permission::ManageEnvironments, Some(env.id))?;
                check_heir(heir.as_deref())?;
                let same = (env.spec.grants, &env.spec.heir) == (*grants, heir);
                Ok((!same).then(|| Event::AccountsSet { environment: env.id, grants: *grants, heir: heir.clone() }).into_iter().collect())
            }
            Command::SetMasks { environment, masks } => {
                let env = self.seen_environment(by, *environment)?;
                self.need(by, Permission::ManageEnvironments, Some(env.id))?;
                if env.masks == *masks {
                    return Ok(vec![]);
                }
                if let Some(target) = self.targets.get(&env.target) {
                    masks.check_for(target.spec.engine)?;
                }
                // a new database that is made, or ready, was masked by those of before
                if env.moving.is_some_and(|id| self.movements.get(&id).is_some_and(|movement| movement.kind.is_prepared() && movement.is_under_way())) {
                    return Err(Refusal::state(
                        format!("A movement of {} is under way, which masks by what is declared now.", env.spec.name),
                        format!("Wait for its end, or give it up: daypass move {} cancel.", env.spec.name),
                    ));
                }
                Ok(vec![Event::MasksSet { environment: env.id, masks: masks.clone() }])
            }
            Command::FetchFile { file, environment } => {
                self.need(by, Permission::Move, *environment)?;
                Ok(vec![Event::FileFetched { file: file.clone(), environment: *environment }])
            }
            Command::JudgeDrift { target, finding, verdict } => {
                self.need(by, Permission::ManageEnvironments, None)?;
                let known = self.drift.get(&(*target, finding.clone())).ok_or_else(|| Refusal::not_found("finding", &finding.words()))?;
                if known.verdict == Some(*verdict) {
                    return Ok(vec![]);
                }
                Ok(vec![Event::DriftJudged { target: *target, finding: finding.clone(), verdict: *verdict }])
            }
            Command::SetKind { .. }
            | Command::AddStanding { .. }
            | Command::RemoveStanding { .. }
            | Command::RevealStanding { .. }
            | Command::RotateStanding { .. }
            | Command::SetRemoteDesktop { .. }
            | Command::AddMachine { .. }
            | Command::RemoveMachine { .. }
            | Command::RevealMachine { .. } => self.decide_managed(command, by),
            Command::AddAllow { entry, environment, owner, ranges, note, life } => self.add_allow(by, *entry, *environment, *owner, ranges, note, *life, now),
            Command::RemoveAllow { entry } => self.remove_allow(by, *entry, now),
            Command::RequestPass { pass, environment, wish, life, salt } => self.request(by, *pass, *environment, wish, *life, *salt, now),
            Command::ApprovePass { pass, digest, word } => self.approve(by, *pass, digest, word.as_ref(), now),
            Command::RevealPass { pass } => self.reveal(by, *pass, now),
            Command::ReviewPass { pass, word } => self.review(by, *pass, word),
            Command::DenyPass { pass, why } => {
                let pass = self.judged_by(by, *pass)?;
                Ok(vec![Event::PassDenied { pass: pass.id, why: why.clone() }])
            }
            Command::EndPass { pass, why } => self.end(by, *pass, why.as_ref(), now),
            Command::ExtendPass { pass, by: more } => self.extend(by, *pass, *more, now),
            Command::BeginMovement { movement, environment, kind, why, notice, swap_at, stay_closed } => {
                self.begin_movement(by, *movement, *environment, kind, why, (*notice, *swap_at, *stay_closed), now)
            }
            Command::CancelMovement { movement, why } => self.cancel_movement(by, *movement, why),
            Command::FailMovement { movement, why } => self.fail_movement(by, *movement, why),
            Command::RetryMovement { movement } => self.retry_movement(by, *movement),
            Command::FinishMovement { movement } => self.finish_movement(by, *movement),
            Command::ExpectFailover { environment, within } => {
                self.seen_environment(by, *environment)?;
                self.need(by, Permission::ManageEnvironments, Some(*environment))?;
                Ok(vec![Event::FailoverExpected { environment: *environment, until: now.after(*within) }])
            }
            Command::Observed(observed) => self.observed(by, observed, now),
        }
    }

    pub(super) fn need(&self, by: Actor, permission: Permission, environment: Option<EnvironmentId>) -> Result<(), Refusal> {
        let allowed = match by {
            Actor::System => true,
            Actor::User(user) => self.may(user, permission, environment),
        };
        if allowed { Ok(()) } else { Err(not_permitted()) }
    }

    /// The same for what counts for a whole project.
    fn need_on_project(&self, by: Actor, permission: Permission, project: ProjectId) -> Result<(), Refusal> {
        match by {
            Actor::System => Ok(()),
            Actor::User(user) if self.may_on_project(user, permission, project) => Ok(()),
            Actor::User(_) => Err(not_permitted()),
        }
    }

    /// What a person does for themselves, and an administrator for them.
    fn oneself_or_people(&self, by: Actor, user: UserId) -> Result<(), Refusal> {
        if by == Actor::User(user) { Ok(()) } else { self.need(by, Permission::ManagePeople, None) }?;
        self.known_user(user).map(drop)
    }

    fn known_user(&self, id: UserId) -> Result<&User, Refusal> {
        self.users.get(&id).ok_or_else(|| Refusal::not_found("person", &id.to_string()))
    }

    /// The environment, if the actor may see it. What one may not see is not there.
    pub(super) fn seen_environment(&self, by: Actor, id: EnvironmentId) -> Result<&Environment, Refusal> {
        let seen = match by {
            Actor::System => true,
            Actor::User(user) => self.may(user, Permission::SeeEnvironment, Some(id)),
        };
        self.environments.get(&id).filter(|env| seen && !env.removed()).ok_or_else(|| Refusal::not_found("environment", &id.to_string()))
    }

    fn add_user(&self, by: Actor, user: UserId, name: &UserName, roles: &[(Role, Scope)]) -> Decided {
        self.need(by, Permission::ManagePeople, None)?;
        match self.user_names.get(name) {
            Some(known) if *known == user => return Ok(vec![]),
            Some(_) => return Err(taken("person", name.as_str())),
            None => {}
        }
        let mut events = vec![Event::UserAdded { user, name: name.clone() }];
        events.extend(roles.iter().map(|(role, scope)| Event::RoleGiven { user, role: *role, scope: *scope }));
        Ok(events)
    }

    fn lock_user(&self, by: Actor, user: UserId, why: &Reason) -> Decided {
        self.need(by, Permission::ManagePeople, None)?;
        if by == Actor::User(user) {
            return Err(Refusal::state("You cannot lock yourself.", "`daypass end` gives back your passes; another administrator can lock you."));
        }
        Ok(match self.known_user(user)?.locked {
            Some(_) => vec![],
            None => vec![Event::UserLocked { user, why: why.clone() }],
        })
    }

    /// Taking a role also ends what the person could not ask for any more.
    fn take_role(&self, by: Actor, user: UserId, role: Role, scope: Scope) -> Decided {
        self.need(by, Permission::ManagePeople, None)?;
        let person = self.known_user(user)?;
        if !person.roles.contains(&(role, scope)) {
            if person.group_roles.contains(&(role, scope)) {
                return Err(Refusal::state(
                    "This role comes from a group at the provider.",
                    "Take the person out of the group there, or lock them here: that counts at once.",
                ));
            }
            return Ok(vec![]);
        }
        // one by a group may be none at their next sign-in
        let is_admin = |user: &User| user.locked.is_none() && user.roles.contains(&(Role::Admin, Scope::All));
        if (role, scope) == (Role::Admin, Scope::All) && !self.users.values().any(|other| other.id != user && is_admin(other)) {
            return Err(Refusal::state(
                "Nobody else is an administrator: without one, nobody could give out roles any more.",
                "Give the role to somebody else first.",
            ));
        }
        let taken = Event::RoleTaken { user, role, scope };
        let ends = self.ends_with_roles(by, user, |person| person.roles.retain(|r| *r != (role, scope)))?;
        Ok(std::iter::once(taken).chain(ends).collect())
    }

    /// Somebody comes from their provider. Groups that they lost take roles with them, and passes that rested on those.
    fn sign_in_from(&self, by: Actor, user: UserId, name: &UserName, issuer: &str, subject: &str, roles: &[(Role, Scope)]) -> Decided {
        self.need(by, Permission::ManagePeople, None)?;
        let same = |known: &&User| known.linked.as_ref().is_some_and(|(i, s)| i == issuer && s == subject);
        if let Some(known) = self.users.values().find(same) {
            if known.locked.is_some() {
                return Err(Refusal::new(Code::NotPermitted, "This person is locked.", "An administrator can unlock them."));
            }
            if known.group_roles == roles {
                return Ok(vec![]);
            }
            let ends = self.ends_with_roles(by, known.id, |person| person.group_roles = roles.to_vec())?;
            return Ok(std::iter::once(Event::GroupRolesSet { user: known.id, roles: roles.to_vec() }).chain(ends).collect());
        }
        if roles.is_empty() {
            return Err(Refusal::new(
                Code::NotPermitted,
                "None of your groups gives you a role here.",
                "Ask whoever gives out groups, or an administrator of Daypass.",
            ));
        }
        // a name that is taken is somebody's already, and a provider's word does not make two people one
        if self.user_names.contains_key(name) {
            return Err(taken("person", name.as_str()));
        }
        let linked = Event::UserLinked { user, issuer: issuer.to_owned(), subject: subject.to_owned() };
        Ok(vec![Event::UserAdded { user, name: name.clone() }, linked, Event::GroupRolesSet { user, roles: roles.to_vec() }])
    }

    /// The ends of the passes that somebody could not ask for any more after a change of their roles.
    fn ends_with_roles(&self, by: Actor, user: UserId, change: impl FnOnce(&mut User)) -> Decided {
        let mut after = self.clone_people();
        if let Some(person) = after.users.get_mut(&user) {
            change(person);
        }
        let revoker = match by {
            Actor::User(id) => id,
            Actor::System => user,
        };
        let why: Reason = "the role that allowed this pass was taken away".parse().map_err(Refusal::invalid)?;
        let ends = self
            .open_passes()
            .filter(|pass| pass.holder == user && matches!(pass.state, State::Approved { .. } | State::Ready { .. }))
            .filter(|pass| !after.may(user, Permission::Request, Some(pass.environment)))
            .map(|pass| Event::PassEnding { pass: pass.id, cause: Cause::Revoked { by: revoker, why: why.clone() } });
        Ok(ends.collect())
    }

    /// What a policy that is about to be set ends: passes that nobody could have any more, and addresses that nobody could enter.
    fn forbidden_by(&self, scope: Scope, policy: &Policy, now: Time) -> Vec<Event> {
        // where something narrower is set, that goes on to count
        let counts = |env: &Environment| match scope {
            Scope::Environment(id) => id == env.id,
            Scope::Project(id) => id == env.project && self.own_policy(Scope::Environment(env.id)).is_none(),
            Scope::All => [Scope::Environment(env.id), Scope::Project(env.project)].into_iter().all(|scope| self.own_policy(scope).is_none()),
        };
        let touched: BTreeSet<EnvironmentId> = self.environments().filter(|env| counts(env)).map(|env| env.id).collect();
        let live = |pass: &&Pass| matches!(pass.state, State::Approved { .. } | State::Ready { .. }) && self.over(pass, now).is_none();
        let passes = self.open_passes().filter(|pass| touched.contains(&pass.environment)).filter(live).filter(|pass| policy.forbids(pass));
        let passes = passes.map(|pass| Event::PassEnding { pass: pass.id, cause: Cause::Forbidden { policy: policy.name.clone() } });
        let epoch = |id| self.environments.get(&id).map_or(0, Environment::epoch);
        let entries = self.allow.iter().filter(|entry| touched.contains(&entry.environment) && entry.is_live(epoch(entry.environment), now));
        let entries = entries.filter(|entry| entry.ranges.iter().any(|range| policy.check_range(range).is_err()));
        passes.chain(entries.map(|entry| Event::AllowRemoved { entry: entry.id })).collect()
    }

    /// Just what [`Ledger::may`] reads.
    fn clone_people(&self) -> Ledger {
        Ledger { users: self.users.clone(), environments: self.environments.clone(), ..Ledger::default() }
    }

    fn add_environment(
        &self,
        by: Actor,
        environment: EnvironmentId,
        project: ProjectId,
        target: TargetId,
        target_spec: &TargetSpec,
        spec: &EnvironmentSpec,
    ) -> Decided {
        self.need(by, Permission::ManageEnvironments, None)?;
        if !self.projects.contains_key(&project) {
            return Err(Refusal::not_found("project", &project.to_string()));
        }
        match self.environment_named(&spec.name) {
            Some(known) if known.id == environment => return Ok(vec![]),
            Some(_) => return Err(taken("environment", spec.name.as_str())),
            None => {}
        }
        // it is a label of host names, and one of digits alone reads as part of an address
        if spec.name.as_str().starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Refusal::invalid("The name of an environment starts with a letter."));
        }
        if target_spec.engine == Engine::Postgres && spec.database.as_str().len() > 63 {
            return Err(Refusal::invalid("A database name of PostgreSQL has at most 63 bytes."));
        }
        check_tls(target_spec)?;
        check_heir(spec.heir.as_deref())?;
        if spec.enforce == Enforce::AzureSqlFirewall && target_spec.engine != Engine::SqlServer {
            return Err(Refusal::invalid("azure_sql_firewall is a way to enforce for Azure SQL Database; this engine has the gateway."));
        }
        let mut events = Vec::new();
        let same_place =
            self.targets.values().find(|t| (t.spec.engine, &t.spec.host, t.spec.port) == (target_spec.engine, &target_spec.host, target_spec.port));
        let target = match same_place {
            None => {
                events.push(Event::TargetAdded { target, spec: target_spec.clone() });
                target
            }
            Some(known) => {
                if self
                    .environments_on(known.id)
                    .any(|env| !env.removed() && target_spec.engine.is_database(spec.database.as_str(), env.spec.database.as_str()))
                {
                    return Err(Refusal::new(
                        Code::Taken,
                        format!("The database {} on this server already has an environment.", spec.database),
                        "Use that one; `daypass env ls` shows it.",
                    ));
                }
                // other environments are reached by it: to add one more changes nothing about them
                if known.spec != *target_spec {
                    return Err(known_otherwise(target_spec));
                }
                known.id
            }
        };
        events.push(Event::EnvironmentAdded { environment, project, target, spec: spec.clone() });
        Ok(events)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command, spelled out")]
    fn add_allow(
        &self,
        by: Actor,
        entry: AllowId,
        environment: EnvironmentId,
        owner: AllowFor,
        ranges: &[Range],
        note: &Option<Reason>,
        life: Option<Ttl>,
        now: Time,
    ) -> Decided {
        let env = self.seen_environment(by, environment)?;
        let owner = match (owner, by) {
            (AllowFor::Myself, Actor::User(me)) => {
                self.need(by, Permission::Request, Some(environment))?;
                Owner::Person(me)
            }
            (AllowFor::Myself, Actor::System) => return Err(Refusal::invalid("Daypass itself connects from nowhere.")),
            (AllowFor::Person(person), _) => {
                self.need(by, Permission::AllowForOthers, Some(environment))?;
                Owner::Person(self.known_user(person)?.id)
            }
            (AllowFor::Everyone, _) => {
                self.need(by, Permission::AllowForOthers, Some(environment))?;
                Owner::Shared
            }
        };
        if let Some(known) = self.allow.get(entry) {
            return repeated((known.environment, known.owner, known.ranges.as_slice()) == (environment, owner, ranges));
        }
        self.not_closed(env)?;
        let policy = self.policy(env);
        let life = policy.life(life)?;
        if ranges.is_empty() {
            return Err(Refusal::invalid("No address was named."));
        }
        // what is entered again is the same entry, and lasts as long as it would anew
        if let Some(known) = self.allow.same(environment, owner, ranges, env.epoch(), now) {
            let ends_at = now.after(life);
            return Ok(if known.ends_at < ends_at { vec![Event::AllowRenewed { entry: known.id, ends_at }] } else { vec![] });
        }
        let live = self.allow.iter().filter(|known| known.environment == environment && known.owner == owner && known.is_live(env.epoch(), now));
        if live.map(|known| known.ranges.len()).sum::<usize>() + ranges.len() > MOST_LIVE_RANGES {
            return Err(Refusal::policy(
                format!("There are too many addresses on {}: at most {MOST_LIVE_RANGES} ranges at once for one person.", env.spec.name),
                "Take back those that are not needed any more: daypass allowed, daypass disallow.",
            ));
        }
        for range in ranges {
            policy.check_range(range)?;
            if env.spec.enforce == Enforce::AzureSqlFirewall {
                crate::firewall::check(range)?;
            }
        }
        Ok(vec![Event::AllowAdded { entry, environment, owner, ranges: ranges.to_vec(), note: note.clone(), ends_at: now.after(life) }])
    }

    fn remove_allow(&self, by: Actor, id: AllowId, now: Time) -> Decided {
        let known = self.allow.get(id);
        let seen = known.filter(|entry| self.seen_environment(by, entry.environment).is_ok());
        let entry = seen.ok_or_else(|| Refusal::not_found("allow entry", &id.to_string()))?;
        let own = matches!((entry.owner, by), (Owner::Person(owner), Actor::User(me)) if owner == me);
        if !own {
            self.need(by, Permission::AllowForOthers, Some(entry.environment))?;
        }
        let epoch = self.environments.get(&entry.environment).map_or(0, Environment::epoch);
        Ok(if entry.is_live(epoch, now) { vec![Event::AllowRemoved { entry: id }] } else { vec![] })
    }

    /// The server of an environment, as it is reached from now on. Whoever changes it may change all environments on it.
    fn set_target(&self, by: Actor, environment: EnvironmentId, spec: &TargetSpec) -> Decided {
        let env = self.seen_environment(by, environment)?;
        let target = self.targets.get(&env.target).ok_or_else(|| Refusal::not_found("environment", env.spec.name.as_str()))?;
        for other in self.environments_on(target.id).filter(|other| !other.removed()) {
            self.need(by, Permission::ManageEnvironments, Some(other.id))?;
            self.not_moving(other)?;
        }
        if spec.engine != target.spec.engine {
            return Err(Refusal::invalid("An environment stays on its engine: add another one."));
        }
        check_tls(spec)?;
        let elsewhere = |t: &&Target| t.id != target.id && (t.spec.engine, &t.spec.host, t.spec.port) == (spec.engine, &spec.host, spec.port);
        if self.targets.values().find(elsewhere).is_some() {
            return Err(Refusal::new(
                Code::Taken,
                format!("{}:{} is known already, as the server of other environments.", spec.host, spec.port),
                "Remove this environment and add it again on that server.",
            ));
        }
        Ok(vec![Event::TargetChanged { target: target.id, spec: spec.clone() }])
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command, spelled out")]
    fn request(&self, by: Actor, pass: PassId, environment: EnvironmentId, wish: &Wish, life: Option<Ttl>, salt: u64, now: Time) -> Decided {
        let env = self.seen_environment(by, environment)?;
        let Actor::User(holder) = by else { return Err(Refusal::invalid("Daypass itself asks for no pass.")) };
        self.need(by, Permission::Request, Some(environment))?;
        if let Some(known) = self.passes.get(&pass) {
            let asked = Wish { from: known.wish.from, ..wish.clone() };
            let same = (known.holder, known.environment, &known.wish) == (holder, environment, &asked) && life.is_none_or(|life| life == known.life);
            return repeated(same);
        }
        self.not_closed(env)?;
        let policy = self.policy(env);
        policy.check_wish(wish, now)?;
        if let Some(standing) = wish.standing {
            let known = self.standings.get(&standing).filter(|known| known.environment == environment);
            known.ok_or_else(|| Refusal::not_found("standing account", &standing.to_string()))?;
            if wish.access != Access::ReadWrite {
                return Err(Refusal::invalid("What a standing account may do is not ours to narrow: ask for read-write access with it."));
            }
            if env.spec.enforce != Enforce::Gateway {
                return Err(Refusal::state(
                    "A standing account is used through the gateway, and nothing lies before this database.",
                    "A manager can reveal its password.",
                ));
            }
        }
        let life = policy.life(life)?;
        let may_break = self.known_user(holder)?.all_roles().any(|(role, scope)| policy.break_glass.contains(role) && scope.covers(env));
        if wish.break_glass && !may_break {
            return Err(Refusal::new(
                Code::NotPermitted,
                format!("Policy '{}' lets nobody with your roles break the glass here.", policy.name),
                "Ask without it, and have the request approved.",
            ));
        }
        let mine = |p: &&Pass| p.holder == holder && p.environment == environment && self.over(p, now).is_none();
        let is_replaced = |p: &&Pass| wish.replaced_by_next && p.wish.replaced_by_next && p.wish.access == wish.access && p.state != State::Requested;
        let replaced: Vec<PassId> = self.open_passes().filter(mine).filter(is_replaced).map(|p| p.id).collect();
        let live = self.open_passes().filter(mine).count() - replaced.len();
        if live >= usize::from(policy.live_passes) {
            return Err(Refusal::policy(
                format!("You already hold {live} passes on {}; policy '{}' allows {}.", env.spec.name, policy.name, policy.live_passes),
                "Give one back with `daypass end ACCOUNT`, or use one of them; `daypass passes` lists them.",
            ));
        }
        let person = &self.known_user(holder)?.name;
        let account = (0..3)
            .map(|turn| AccountName::make(person, salt >> (20 * turn)))
            .find(|name| !self.accounts.contains_key(name))
            .ok_or_else(|| Refusal::state("No free account name was found for you.", "Ask again: the next try draws another name."))?;
        let approver = match policy.approvals(wish.access) {
            0 => Some(Approver::Policy(policy.name.clone())),
            _ if wish.break_glass => Some(Approver::BreakGlass),
            _ => None,
        };
        let ends_at = wish.starts_at.map_or(now, |start| start.max(now)).after(life);
        let mut events: Vec<Event> = replaced.into_iter().map(|pass| Event::PassEnding { pass, cause: Cause::Returned }).collect();
        events.extend([Event::PassRequested { pass, environment, holder, account, wish: wish.clone(), life }]);
        events.extend(approver.map(|approver| Event::PassApproved { pass, approver, ends_at, digest: None, word: None }));
        Ok(events)
    }

    /// A pass that waits for a judgement, if the actor is one who may give it.
    fn judged_by(&self, by: Actor, id: PassId) -> Result<&Pass, Refusal> {
        let pass =
            self.passes.get(&id).filter(|p| self.seen_environment(by, p.environment).is_ok()).ok_or_else(|| Refusal::not_found("pass", &id.to_string()))?;
        self.need(by, Permission::Approve, Some(pass.environment))?;
        if by == Actor::User(pass.holder) {
            return Err(Refusal::new(Code::NotPermitted, "Nobody approves or denies their own request.", "Somebody else with the approver role has to."));
        }
        match pass.state {
            State::Requested => Ok(pass),
            _ => Err(Refusal::state(format!("This request is no longer waiting: it is {}.", pass.state.word()), "Nothing is left to decide.")),
        }
    }

    fn approve(&self, by: Actor, id: PassId, digest: &Digest, word: Option<&Reason>, now: Time) -> Decided {
        if let (Some(pass), Actor::User(me)) = (self.passes.get(&id), by)
            && pass.agreed.contains(&me)
            && *pass.state() != State::Requested
        {
            return Ok(vec![]);
        }
        let pass = self.judged_by(by, id)?;
        let Actor::User(approver) = by else { return Err(Refusal::invalid("Daypass itself approves by policy only.")) };
        if self.lapses(pass, now) {
            return Err(Refusal::state("This request has lapsed.", "The person has to ask again."));
        }
        if pass.digest() != *digest {
            return Err(Refusal::state("This is not the request that you saw.", "Look at it again, then approve what it says now."));
        }
        let env = self.seen_environment(by, pass.environment)?;
        self.not_closed(env)?;
        let policy = self.policy(env);
        policy.check_access(pass.wish.access)?;
        let life = policy.life(Some(pass.life))?;
        let (digest, word) = (*digest, word.cloned());
        let others = self.agreed(pass).into_iter().filter(|other| *other != approver).count();
        if others + 1 < policy.approvals(pass.wish.access) {
            if pass.agreed.contains(&approver) {
                return Ok(vec![]);
            }
            return Ok(vec![Event::PassAgreed { pass: id, by: approver, digest, word }]);
        }
        let ends_at = pass.starts_at(now).after(life);
        Ok(vec![Event::PassApproved { pass: id, approver: Approver::Person(approver), ends_at, digest: Some(digest), word }])
    }

    fn reveal(&self, by: Actor, id: PassId, now: Time) -> Decided {
        let pass = self.passes.get(&id).filter(|p| by == Actor::User(p.holder)).ok_or_else(|| Refusal::not_found("pass", &id.to_string()))?;
        let (State::Ready { .. }, None) = (&pass.state, self.over(pass, now)) else {
            return Err(Refusal::state("This pass is not ready, so there is no account to show.", "Wait until it is ready, or ask for a new one."));
        };
        let once = self.environments.get(&pass.environment).is_none_or(|env| self.policy(env).reveal == Reveal::Once);
        if once && pass.reveals > 0 {
            return Err(Refusal::policy(
                "The password of this account was shown once, and the policy allows no more.",
                "Give the pass back and ask for a new one.",
            ));
        }
        Ok(vec![Event::PassRevealed { pass: id }])
    }

    fn review(&self, by: Actor, id: PassId, word: &Reason) -> Decided {
        let pass =
            self.passes.get(&id).filter(|p| self.seen_environment(by, p.environment).is_ok()).ok_or_else(|| Refusal::not_found("pass", &id.to_string()))?;
        self.need(by, Permission::Approve, Some(pass.environment))?;
        if by == Actor::User(pass.holder) {
            return Err(Refusal::new(Code::NotPermitted, "Nobody reviews their own access.", "Somebody else with the approver role has to."));
        }
        match pass.review {
            Review::NotNeeded => Err(Refusal::state("This pass was approved in the usual way.", "It needs no review.")),
            Review::Open => Ok(vec![Event::PassReviewed { pass: id, word: word.clone() }]),
            Review::Closed { .. } => Ok(vec![]),
        }
    }

    fn end(&self, by: Actor, id: PassId, why: Option<&Reason>, now: Time) -> Decided {
        let own = |pass: &Pass| by == Actor::User(pass.holder);
        let pass = self
            .passes
            .get(&id)
            .filter(|p| own(p) || self.need(by, Permission::EndAnyAccess, Some(p.environment)).is_ok())
            .ok_or_else(|| Refusal::not_found("pass", &id.to_string()))?;
        match (&pass.state, by) {
            (State::Requested, Actor::User(me)) if me == pass.holder => Ok(vec![Event::PassWithdrawn { pass: id }]),
            (State::Requested, _) => Err(Refusal::state("This request is still waiting.", "An approver can deny it.")),
            (State::Approved { .. } | State::Ready { .. }, _) if self.over(pass, now).is_some() => Ok(vec![]),
            (State::Approved { .. } | State::Ready { .. }, Actor::User(me)) if me == pass.holder => {
                Ok(vec![Event::PassEnding { pass: id, cause: Cause::Returned }])
            }
            (State::Approved { .. } | State::Ready { .. }, Actor::User(me)) => {
                let why = why.ok_or_else(|| Refusal::invalid("Say why you end somebody else's pass."))?;
                Ok(vec![Event::PassEnding { pass: id, cause: Cause::Revoked { by: me, why: why.clone() } }])
            }
            _ => Ok(vec![]),
        }
    }

    fn extend(&self, by: Actor, id: PassId, more: Ttl, now: Time) -> Decided {
        let pass = self.passes.get(&id).filter(|p| by == Actor::User(p.holder)).ok_or_else(|| Refusal::not_found("pass", &id.to_string()))?;
        let (State::Ready { ends_at }, None) = (&pass.state, self.over(pass, now)) else {
            return Err(Refusal::state("This pass is not ready, so its end cannot be moved.", "Ask for a new one with `daypass request`."));
        };
        self.need(by, Permission::Request, Some(pass.environment))?;
        let env = self.seen_environment(by, pass.environment)?;
        let policy = self.policy(env);
        policy.check_access(pass.wish.access)?;
        let approved_at = pass.starts_at(pass.approved_at.unwrap_or(pass.requested_at));
        let (wanted, most) = (ends_at.after(more), approved_at.after(policy.longest_total));
        if policy.approvals(pass.wish.access) > 0 {
            return Err(Refusal::policy(
                format!("Policy '{}' asks for an approval of this access, and what was approved ends at {ends_at}.", policy.name),
                "Ask for a new pass; both hold side by side.",
            ));
        }
        if wanted > most {
            return Err(Refusal::policy(
                format!("Policy '{}' allows a pass {} in all, and this one ends at {ends_at}.", policy.name, policy.longest_total),
                "Extend by less, or ask for a new pass.",
            ));
        }
        // where its holder may come from ends no sooner than what they come for
        let theirs = |entry: &&AllowEntry| entry.environment == env.id && entry.owner == Owner::Person(pass.holder) && entry.is_live(env.epoch(), now);
        let renewed = self.allow.iter().filter(theirs).filter(|entry| entry.ends_at < wanted);
        let renewed = renewed.map(|entry| Event::AllowRenewed { entry: entry.id, ends_at: wanted });
        Ok(std::iter::once(Event::PassExtended { pass: id, ends_at: wanted }).chain(renewed).collect())
    }

    fn observed(&self, by: Actor, observed: &Observed, now: Time) -> Decided {
        if by != Actor::System {
            return Err(Refusal::new(Code::NotPermitted, "Only Daypass itself reports what it observed.", "There is nothing to do."));
        }
        match observed {
            Observed::Identity { environment, identity } => {
                let Some(env) = self.environments.get(environment).filter(|env| !env.removed() && env.frozen_by.is_none()) else { return Ok(vec![]) };
                Ok(match &env.identity {
                    None => vec![Event::DatabaseIdentified { environment: env.id, identity: identity.clone() }],
                    Some(known) if known == identity => vec![],
                    Some(_) => vec![Event::DatabaseReplaced { environment: env.id, identity: identity.clone() }],
                })
            }
            Observed::SetBack { environment, identity } => {
                let known = self.environments.get(environment).filter(|env| !env.removed() && env.frozen_by.is_none());
                let known = known.filter(|env| env.identity.as_ref() == Some(identity) && env.failover_until.is_none_or(|until| now >= until));
                Ok(known.map(|env| Event::DatabaseReplaced { environment: env.id, identity: identity.clone() }).into_iter().collect())
            }
            Observed::LoginWorks { pass } => {
                let ready =
                    self.passes.get(pass).filter(|p| matches!(p.state, State::Approved { .. }) && now >= p.starts_at(now) && self.over(p, now).is_none());
                Ok(ready.map(|p| Event::PassReady { pass: p.id }).into_iter().collect())
            }
            Observed::Gone { pass } => {
                let over = self.passes.get(pass).filter(|p| !p.state.is_final() && p.state != State::Requested);
                let cause = over.and_then(|p| self.over(p, now));
                Ok(cause.map(|cause| Event::PassEnded { pass: *pass, cause }).into_iter().collect())
            }
            Observed::Lapse { pass } => {
                let waiting = self.passes.get(pass).filter(|p| p.state == State::Requested);
                let lapsed = waiting.filter(|p| self.lapses(p, now));
                Ok(lapsed.map(|p| Event::PassLapsed { pass: p.id }).into_iter().collect())
            }
            Observed::NotMade { pass, why } => {
                let stuck = self.passes.get(pass).filter(|p| self.is_stuck(p, now));
                let why = crate::names::shown_up_to(why, 500);
                Ok(stuck.map(|p| Event::PassEnding { pass: p.id, cause: Cause::Failed { why } }).into_iter().collect())
            }
            Observed::ClockDoubted { pass } => {
                let open = self.passes.get(pass).filter(|p| matches!(p.state, State::Approved { .. } | State::Ready { .. }) && self.over(p, now).is_none());
                Ok(open.map(|p| Event::PassEnding { pass: p.id, cause: Cause::ClockDoubted }).into_iter().collect())
            }
            Observed::Left { pass, left, dropped } => {
                let known = self.passes.get(pass).filter(|known| !known.state.is_final() && known.left != *left && !left.is_empty());
                Ok(known.map(|_| Event::PassLeft { pass: *pass, left: left.clone(), dropped: *dropped }).into_iter().collect())
            }
            Observed::DatabaseSwept { environment, swept } => {
                let known = self.environments.get(environment).filter(|_| !swept.is_empty());
                Ok(known.map(|_| Event::DatabaseSwept { environment: *environment, swept: crate::movement::bounded(swept) }).into_iter().collect())
            }
            Observed::Drift { target, found } => {
                let known = |finding: &&Finding| self.drift.contains_key(&(*target, (*finding).clone()));
                let here = || self.drift.values().filter(|drift| drift.target == *target);
                let gone = here().filter(|drift| !found.contains(&drift.finding));
                let gone = gone.map(|drift| Event::DriftGone { target: *target, finding: drift.finding.clone() });
                let room = crate::drift::MOST.saturating_sub(here().count());
                let fresh = found.iter().filter(|finding| !known(finding)).take(room);
                Ok(gone.chain(fresh.map(|finding| Event::DriftFound { target: *target, finding: finding.clone() })).collect())
            }
            Observed::Rotating { standing } => {
                Ok(self.standings.get(standing).filter(|known| !known.rotating).map(|_| Event::StandingRotating { standing: *standing }).into_iter().collect())
            }
            Observed::Rotated { standing } => {
                Ok(self.standings.get(standing).filter(|known| known.rotating).map(|_| Event::StandingRotated { standing: *standing }).into_iter().collect())
            }
            Observed::Due { .. } | Observed::Reached { .. } | Observed::Swept { .. } | Observed::Moved { .. } | Observed::KeptGone { .. } => {
                Ok(self.movement_observed(observed, now))
            }
        }
    }
}

fn check_heir(heir: Option<&str>) -> Result<(), Refusal> {
    match heir {
        Some(heir) if heir.is_empty() || heir.len() > 63 || heir.chars().any(char::is_control) => {
            Err(Refusal::invalid("The heir is the name of a role: 1 to 63 bytes on one line."))
        }
        _ => Ok(()),
    }
}

/// More is a network plan; where the target's own firewall enforces, it takes 128 rules in all.
const MOST_LIVE_RANGES: usize = 64;

/// A request under a number that was used before: the same again changes nothing, another one is refused.
fn repeated(the_same: bool) -> Decided {
    if the_same {
        return Ok(vec![]);
    }
    Err(Refusal::new(Code::Taken, "This request was made before, for something else.", "Use a new idempotency key for a new request."))
}

fn not_permitted() -> Refusal {
    Refusal::new(
        Code::NotPermitted,
        "You may not do this: none of your roles here allows it.",
        "Ask an administrator; `daypass whoami` shows the roles that you have.",
    )
}

fn taken(what: &str, name: &str) -> Refusal {
    Refusal::new(Code::Taken, format!("There already is a {what} '{name}'."), "Choose another name.")
}

fn check_tls(spec: &TargetSpec) -> Result<(), Refusal> {
    if spec.engine == Engine::Postgres && matches!(spec.tls, TargetTls::Strict { .. }) {
        return Err(Refusal::invalid("Strict encryption is a mode of SQL Server; PostgreSQL has TLS or none."));
    }
    if spec.port == 0 {
        return Err(Refusal::invalid("A port is a number from 1 to 65535."));
    }
    Ok(())
}

/// A server that is known, and is asked for with other settings or another password.
pub fn known_otherwise(spec: &TargetSpec) -> Refusal {
    Refusal::new(
        Code::Taken,
        format!("The server {}:{} is known already, with another administrator, another password of its or another TLS.", spec.host, spec.port),
        "Add it with the same; to change them for all environments on that server: daypass env set.",
    )
}
