//! Folding events into the ledger. An event that does not fit means that the log is not one that Daypass wrote.

use super::Ledger;
use crate::{
    allow::AllowEntry,
    drift::Drift,
    environment::*,
    event::{Actor, Entry, Event},
    ids::*,
    managed::{Machine, Standing},
    movement::{Movement, MovementKind, MovementState, Phase, bounded},
    pass::{NoSuchStep, Pass, Review, State, Step},
    people::*,
    time::Time,
};

/// The log contradicts itself at this event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} does not follow from what came before: {why}")]
pub struct Inconsistent {
    pub seq: u64,
    pub why: String,
}

impl From<NoSuchStep> for String {
    fn from(step: NoSuchStep) -> String {
        step.to_string()
    }
}

/// What has to be made first is made at once.
fn planned(kind: &MovementKind, cuts_at: Time, exactly: bool) -> MovementState {
    let phase = if kind.is_prepared() { Phase::Check } else { Phase::Ready };
    MovementState::Planned { cuts_at, exactly, phase }
}

impl Ledger {
    /// Folds one event in. On an error the ledger is as before and must not be used to let anybody in.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Inconsistent> {
        if entry.seq != self.seq + 1 {
            let why = format!("it should be number {}", self.seq + 1);
            return Err(Inconsistent { seq: entry.seq, why });
        }
        self.fold(entry.at, entry.by, &entry.event).map_err(|why| Inconsistent { seq: entry.seq, why })?;
        self.seq = entry.seq;
        self.latest = self.latest.max(entry.at);
        Ok(())
    }

    fn fold(&mut self, at: Time, by: Actor, event: &Event) -> Result<(), String> {
        match event {
            Event::StoreCreated { store } => {
                self.store = Some(*store);
            }
            Event::UserAdded { user, name } => {
                self.user_names.insert(name.clone(), *user);
                let fresh = User {
                    id: *user,
                    name: name.clone(),
                    roles: Vec::new(),
                    group_roles: Vec::new(),
                    linked: None,
                    mail: None,
                    second_factor: false,
                    locked: None,
                    locked_at: Vec::new(),
                };
                self.users.insert(*user, fresh);
            }
            Event::UserLocked { user, why } => {
                let user = self.user_mut(*user)?;
                user.locked = Some(why.to_string());
                user.locked_at.push(at);
            }
            Event::UserUnlocked { user } => self.user_mut(*user)?.locked = None,
            Event::PasswordChanged { user } => {
                self.user_mut(*user)?;
            }
            Event::SecondFactorSet { user } => self.user_mut(*user)?.second_factor = true,
            Event::SecondFactorRemoved { user } => self.user_mut(*user)?.second_factor = false,
            Event::UserLinked { user, issuer, subject } => self.user_mut(*user)?.linked = Some((issuer.clone(), subject.clone())),
            Event::MailSet { user, mail } => self.user_mut(*user)?.mail.clone_from(mail),
            Event::GroupRolesSet { user, roles } => self.user_mut(*user)?.group_roles.clone_from(roles),
            Event::RoleGiven { user, role, scope } => self.user_mut(*user)?.roles.push((*role, *scope)),
            Event::RoleTaken { user, role, scope } => self.user_mut(*user)?.roles.retain(|r| *r != (*role, *scope)),
            Event::TokenAdded { token, user, label, hash, ends_at, kind, proved } => {
                let locks = self.user_mut(*user)?.locks();
                self.token_hashes.insert(*hash, *token);
                let token =
                    Token { id: *token, user: *user, label: label.clone(), hash: *hash, kind: *kind, added_at: at, proved: *proved, ends_at: *ends_at, locks };
                self.tokens.insert(token.id, token);
            }
            Event::TokenRemoved { token } => {
                let token = self.tokens.remove(token).ok_or("there is no such token")?;
                self.token_hashes.remove(&token.hash);
            }
            Event::ProjectAdded { project, name } => {
                self.projects.insert(*project, name.clone());
            }
            Event::PolicySet { scope, policy } => {
                self.policies.insert(*scope, policy.clone());
            }
            Event::TargetAdded { target, spec } | Event::TargetChanged { target, spec } => {
                self.targets.insert(*target, Target { id: *target, spec: spec.clone() });
            }
            Event::EnvironmentAdded { environment, project, target, spec } => {
                let fresh = Environment {
                    id: *environment,
                    project: *project,
                    target: *target,
                    spec: spec.clone(),
                    ended_epochs: Vec::new(),
                    identity: None,
                    masks: Default::default(),
                    remote_desktop: false,
                    failover_until: None,
                    moving: None,
                    frozen_by: None,
                    removed_at: None,
                };
                self.environments.insert(*environment, fresh);
            }
            Event::EnvironmentRemoved { environment } => {
                self.environment_mut(*environment)?.removed_at = Some(at);
                // roles on it go with it: another environment of that name is another one
                for user in self.users.values_mut() {
                    let elsewhere = |(_, scope): &(Role, Scope)| *scope != Scope::Environment(*environment);
                    user.roles.retain(elsewhere);
                    user.group_roles.retain(elsewhere);
                }
            }
            Event::AccountsSet { environment, grants, heir } => {
                let spec = &mut self.environment_mut(*environment)?.spec;
                (spec.grants, spec.heir) = (*grants, heir.clone());
            }
            Event::MasksSet { environment, masks } => self.environment_mut(*environment)?.masks = masks.clone(),
            Event::DatabaseIdentified { environment, identity } => {
                self.environment_mut(*environment)?.identity = Some(identity.clone());
            }
            Event::DatabaseReplaced { environment, identity } => {
                let env = self.environment_mut(*environment)?;
                env.ended_epochs.push((EpochEnd::Replaced, at));
                env.identity = Some(identity.clone());
            }
            Event::FailoverExpected { environment, until } => self.environment_mut(*environment)?.failover_until = Some(*until),
            Event::KindSet { environment, kind } => self.environment_mut(*environment)?.spec.kind = *kind,
            Event::StandingAdded { standing, environment, name, note } => {
                self.environment_mut(*environment)?;
                let fresh = Standing {
                    id: *standing,
                    environment: *environment,
                    name: name.clone(),
                    note: note.clone(),
                    added_at: at,
                    rotated_at: None,
                    revealed_at: None,
                    asked_at: None,
                    rotating: false,
                };
                self.standings.insert(*standing, fresh);
            }
            Event::StandingRemoved { standing, .. } => {
                self.standings.remove(standing).ok_or("there is no such standing account")?;
            }
            Event::StandingRevealed { standing, .. } => {
                self.standing_mut(*standing)?.revealed_at.get_or_insert(at);
            }
            Event::StandingRotationAsked { standing } => self.standing_mut(*standing)?.asked_at = Some(at),
            Event::StandingRotating { standing } => self.standing_mut(*standing)?.rotating = true,
            Event::StandingRotated { standing } => {
                let known = self.standing_mut(*standing)?;
                (known.rotating, known.rotated_at, known.asked_at, known.revealed_at) = (false, Some(at), None, None);
            }
            Event::RemoteDesktopSet { environment, on } => self.environment_mut(*environment)?.remote_desktop = *on,
            Event::MachineAdded { machine, environment, host, user, note } => {
                let fresh = Machine { id: *machine, environment: *environment, host: host.clone(), user: user.clone(), note: note.clone(), added_at: at };
                self.machines.insert(*machine, fresh);
            }
            Event::MachineRemoved { machine, .. } => {
                self.machines.remove(machine).ok_or("there is no such machine")?;
            }
            Event::MachineRevealed { machine, .. } => {
                self.machines.get(machine).ok_or("there is no such machine")?;
            }
            Event::DatabaseSwept { environment, .. } => {
                self.environment_mut(*environment)?;
            }
            Event::DriftFound { target, finding } => {
                let fresh = Drift { target: *target, finding: finding.clone(), first_seen: at, verdict: None };
                self.drift.insert((*target, finding.clone()), fresh);
            }
            Event::DriftGone { target, finding } => {
                self.drift.remove(&(*target, finding.clone())).ok_or("there is no such finding")?;
            }
            Event::FileFetched { .. } => {}
            Event::DriftJudged { target, finding, verdict } => {
                let known = self.drift.get_mut(&(*target, finding.clone())).ok_or("there is no such finding")?;
                known.verdict = Some(*verdict);
            }
            Event::AllowAdded { entry, environment, owner, ranges, note, ends_at } => {
                let epoch = self.environment_mut(*environment)?.epoch();
                self.allow.add(AllowEntry {
                    id: *entry,
                    environment: *environment,
                    owner: *owner,
                    ranges: ranges.clone(),
                    note: note.clone(),
                    added_at: at,
                    ends_at: *ends_at,
                    epoch,
                    removed_at: None,
                });
            }
            Event::AllowRenewed { entry, ends_at } => {
                if !self.allow.renew(*entry, *ends_at) {
                    return Err("there is no such allow entry".to_owned());
                }
            }
            Event::AllowRemoved { entry } => {
                if !self.allow.remove(*entry, at) {
                    return Err("there is no such allow entry".to_owned());
                }
            }
            Event::PassRequested { pass, environment, holder, account, wish, life } => {
                let epoch = self.environment_mut(*environment)?.epoch();
                let locks = self.user_mut(*holder)?.locks();
                let fresh = Pass {
                    id: *pass,
                    environment: *environment,
                    holder: *holder,
                    wish: wish.clone(),
                    account: account.clone(),
                    life: *life,
                    requested_at: at,
                    approved_at: None,
                    approver: None,
                    agreed: Vec::new(),
                    review: if wish.break_glass { Review::Open } else { Review::NotNeeded },
                    reveals: 0,
                    word: None,
                    ends_at: None,
                    ready_at: None,
                    ending_at: None,
                    left: Vec::new(),
                    epoch,
                    locks,
                    state: State::Requested,
                };
                if self.accounts.contains_key(account) {
                    return Err(format!("the account {account} belongs to another pass"));
                }
                self.accounts.insert(account.clone(), *pass);
                self.passes.insert(*pass, fresh);
                self.open.insert(*pass);
                self.to_judge.insert(*pass);
            }
            Event::PassAgreed { pass, by, digest: _, word } => self.step(*pass, Step::Agree { by: *by, word: word.clone() })?,
            Event::PassApproved { pass, approver, ends_at, digest: _, word } => {
                self.step(*pass, Step::Approve { by: approver.clone(), at, ends_at: *ends_at, word: word.clone() })?;
            }
            Event::PassDenied { pass, why } => self.step(*pass, Step::Deny { word: why.clone() })?,
            Event::PassRevealed { pass } => self.pass_mut(*pass)?.reveals += 1,
            Event::PassReviewed { pass, word } => {
                let Actor::User(by) = by else { return Err("nobody reviewed it".to_owned()) };
                self.pass_mut(*pass)?.review = Review::Closed { by, at, word: word.clone() };
                self.to_judge.remove(pass);
            }
            Event::PassWithdrawn { pass } => self.step(*pass, Step::Withdraw)?,
            Event::PassLapsed { pass } => self.step(*pass, Step::Lapse)?,
            Event::PassReady { pass } => self.step(*pass, Step::MakeReady { at })?,
            Event::PassExtended { pass, ends_at } => self.step(*pass, Step::Extend { ends_at: *ends_at })?,
            Event::PassLeft { pass, left, .. } => self.pass_mut(*pass)?.left.clone_from(left),
            Event::PassEnding { pass, cause } => self.step(*pass, Step::BeginEnd { cause: cause.clone(), at })?,
            Event::PassEnded { pass, cause } => self.step(*pass, Step::End { cause: cause.clone(), at })?,
            Event::MovementPlanned { movement, environment, kind, why, cuts_at, exactly, stay_closed } => {
                self.environment_mut(*environment)?.moving = Some(*movement);
                let fresh = Movement::asked(*movement, *environment, kind.clone(), why.clone(), *stay_closed, at);
                let wished = Some((*cuts_at, *exactly));
                self.movements.insert(*movement, Movement { state: planned(kind, *cuts_at, *exactly), wished, ..fresh });
            }
            Event::MovementWithdrawn { movement, why } => self.movement_over(*movement, MovementState::Withdrawn { at, why: why.clone() })?,
            Event::MovementBegun { movement, environment, kind, why, stay_closed } => {
                let env = self.environment_mut(*environment)?;
                env.moving = Some(*movement);
                if kind.replaces() {
                    env.ended_epochs.push((EpochEnd::Moved(*movement), at));
                    env.frozen_by = Some(*movement);
                    // what comes back is another database: its identity is learned anew after the movement
                    env.identity = None;
                }
                let known =
                    self.movements.entry(*movement).or_insert_with(|| Movement::asked(*movement, *environment, kind.clone(), why.clone(), *stay_closed, at));
                known.begun_at = Some(at);
                known.state = MovementState::Running { phase: Phase::Freeze };
            }
            Event::MovementReached { movement, phase: reached } => {
                let known = self.movement_mut(*movement)?;
                // another copy is made: what was swept from the one before is no matter
                if *reached == Phase::Check {
                    known.swept.clear();
                }
                // in the log of a version that ended access first, one that was tried again went this way
                let exchanging = matches!(reached, Phase::Freeze | Phase::Swap);
                match &mut known.state {
                    MovementState::Planned { phase, .. } if !exchanging => *phase = *reached,
                    state => *state = MovementState::Running { phase: *reached },
                }
            }
            Event::MovementSwept { movement, swept } => {
                let known = self.movement_mut(*movement)?;
                known.swept = bounded(&[known.swept.as_slice(), swept.as_slice()].concat());
            }
            Event::MovementFailed { movement, why } => {
                let moved = self.movement_mut(*movement)?;
                let phase = match moved.state {
                    MovementState::Running { phase } | MovementState::Planned { phase, .. } => phase,
                    _ => Phase::Freeze,
                };
                moved.state = MovementState::Failed { why: why.clone(), phase };
                let (stay_closed, environment) = (moved.stay_closed, moved.environment);
                let env = self.environment_mut(environment)?;
                if env.frozen_by != Some(*movement) || !stay_closed {
                    env.release(*movement);
                }
            }
            Event::MovementRetried { movement } => {
                let moved = self.movement_mut(*movement)?;
                // what was said beforehand counts for the second try as well
                let (cuts_at, exactly) = moved.wished.filter(|(cuts_at, _)| *cuts_at > at).unwrap_or((at, false));
                moved.state = planned(&moved.kind, cuts_at, exactly);
                moved.swept.clear();
                let environment = moved.environment;
                self.environment_mut(environment)?.moving = Some(*movement);
            }
            Event::MovementFinished { movement, kept, made } => {
                let moved = self.movement_mut(*movement)?;
                let failed = matches!(moved.state, MovementState::Failed { .. });
                moved.kept.clone_from(kept);
                moved.made.clone_from(made);
                self.movement_over(*movement, if failed { MovementState::SignedOff { at } } else { MovementState::Finished { at } })?;
            }
            Event::MovementKeptGone { movement } => self.movement_mut(*movement)?.kept = None,
        }
        Ok(())
    }

    fn step(&mut self, id: PassId, step: Step) -> Result<(), String> {
        let pass = self.pass_mut(id)?;
        pass.step(step)?;
        let (done, judged) = (pass.state.is_final(), pass.state != State::Requested && pass.review != Review::Open);
        if done {
            self.open.remove(&id);
        }
        if judged {
            self.to_judge.remove(&id);
        }
        Ok(())
    }

    fn pass_mut(&mut self, id: PassId) -> Result<&mut Pass, String> {
        self.passes.get_mut(&id).ok_or_else(|| "there is no such pass".to_owned())
    }

    fn user_mut(&mut self, id: UserId) -> Result<&mut User, String> {
        self.users.get_mut(&id).ok_or_else(|| format!("there is no user {id}"))
    }

    fn environment_mut(&mut self, id: EnvironmentId) -> Result<&mut Environment, String> {
        self.environments.get_mut(&id).ok_or_else(|| format!("there is no environment {id}"))
    }

    fn standing_mut(&mut self, id: StandingId) -> Result<&mut Standing, String> {
        self.standings.get_mut(&id).ok_or_else(|| "there is no such standing account".to_owned())
    }

    /// Nothing of it is under way any more.
    fn movement_over(&mut self, id: MovementId, state: MovementState) -> Result<(), String> {
        let moved = self.movement_mut(id)?;
        moved.state = state;
        let environment = moved.environment;
        self.environment_mut(environment)?.release(id);
        Ok(())
    }

    fn movement_mut(&mut self, id: MovementId) -> Result<&mut Movement, String> {
        self.movements.get_mut(&id).ok_or_else(|| format!("there is no movement {id}"))
    }
}
