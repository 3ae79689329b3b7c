//! Deciding about managed environments: standing accounts, machine credentials.

use super::{Ledger, decide::Decided};
use crate::{
    command::Command,
    environment::{Engine, Environment, Kind},
    event::{Actor, Event},
    ids::*,
    managed::{Machine, Standing},
    names::Reason,
    pass::{Cause, State},
    people::Permission,
    refusal::{Code, Refusal},
};

impl Ledger {
    pub(super) fn decide_managed(&self, command: &Command, by: Actor) -> Decided {
        match command {
            Command::SetKind { environment, kind } => self.set_kind(by, *environment, *kind),
            Command::AddStanding { standing, environment, name, note } => {
                let env = self.managed(by, *environment)?;
                if let Some(known) = self.standings.get(standing).filter(|known| known.environment != env.id || known.name != *name) {
                    return Err(taken("standing account", known.name.as_str()));
                }
                // one role of a server has one password, wherever it is kept
                let engine = |env: &Environment| self.targets.get(&env.target).map(|target| target.spec.engine);
                let elsewhere = self.standings.values().filter(|known| known.environment != env.id && known.name == *name);
                let elsewhere = elsewhere.filter_map(|known| self.environments.get(&known.environment)).find(|other| other.target == env.target);
                if let Some(other) = elsewhere.filter(|_| engine(env) == Some(Engine::Postgres)) {
                    return Err(Refusal::new(
                        Code::Taken,
                        format!("{name} of this server is kept for {} already, where its password is changed as well.", other.spec.name),
                        "Keep another account for each environment.",
                    ));
                }
                if let Some(known) = self.standings.values().find(|known| known.environment == env.id && known.name == *name) {
                    return if known.id == *standing { Ok(vec![]) } else { Err(taken("standing account", name.as_str())) };
                }
                Ok(vec![Event::StandingAdded { standing: *standing, environment: env.id, name: name.clone(), note: note.clone() }])
            }
            Command::RemoveStanding { standing } => {
                let known = self.seen_standing(by, *standing)?;
                self.need(by, Permission::ManageEnvironments, Some(known.environment))?;
                Ok(self.gone(by, known))
            }
            Command::RevealStanding { standing, why } => {
                let known = self.seen_standing(by, *standing)?;
                self.need(by, Permission::Reveal, Some(known.environment))?;
                Ok(vec![Event::StandingRevealed { standing: *standing, why: why.clone() }])
            }
            Command::RotateStanding { standing } => {
                let known = self.seen_standing(by, *standing)?;
                self.need(by, Permission::Reveal, Some(known.environment))?;
                Ok(vec![Event::StandingRotationAsked { standing: *standing }])
            }
            Command::SetRemoteDesktop { environment, on } => {
                let env = self.managed(by, *environment)?;
                if env.remote_desktop == *on {
                    return Ok(vec![]);
                }
                let gone = self.machines.values().filter(|machine| machine.environment == env.id && !on).map(removed);
                Ok(std::iter::once(Event::RemoteDesktopSet { environment: env.id, on: *on }).chain(gone).collect())
            }
            Command::AddMachine { machine, environment, host, user, note } => {
                let env = self.managed(by, *environment)?;
                if !env.remote_desktop {
                    return Err(Refusal::state(
                        format!("Remote desktop is off for {}, so it has no machine credentials.", env.spec.name),
                        format!("daypass env remote-desktop {} on", env.spec.name),
                    ));
                }
                if self.machines.contains_key(machine) {
                    return Ok(vec![]);
                }
                Ok(vec![Event::MachineAdded { machine: *machine, environment: env.id, host: host.clone(), user: user.clone(), note: note.clone() }])
            }
            Command::RemoveMachine { machine } => {
                let known = self.seen_machine(by, *machine)?;
                self.need(by, Permission::ManageEnvironments, Some(known.environment))?;
                Ok(vec![removed(known)])
            }
            Command::RevealMachine { machine, why } => {
                let known = self.seen_machine(by, *machine)?;
                self.need(by, Permission::Reveal, Some(known.environment))?;
                Ok(vec![Event::MachineRevealed { machine: *machine, why: why.clone() }])
            }
            _ => Err(Refusal::invalid("This is no command about a managed environment.")),
        }
    }

    /// The environment, for one who may set it up, if it is a managed one.
    fn managed(&self, by: Actor, id: EnvironmentId) -> Result<&Environment, Refusal> {
        let env = self.seen_environment(by, id)?;
        self.need(by, Permission::ManageEnvironments, Some(id))?;
        match env.spec.kind {
            Kind::Managed => Ok(env),
            Kind::SelfService => Err(Refusal::state(
                format!("{} is self-service: passes are the only way in.", env.spec.name),
                format!("daypass env kind {} managed makes it one that may have standing accounts.", env.spec.name),
            )),
        }
    }

    fn seen_standing(&self, by: Actor, id: StandingId) -> Result<&Standing, Refusal> {
        let known = self.standings.get(&id).filter(|known| self.seen_environment(by, known.environment).is_ok());
        known.ok_or_else(|| Refusal::not_found("standing account", &id.to_string()))
    }

    fn seen_machine(&self, by: Actor, id: MachineId) -> Result<&Machine, Refusal> {
        let known = self.machines.get(&id).filter(|known| self.seen_environment(by, known.environment).is_ok());
        known.ok_or_else(|| Refusal::not_found("machine", &id.to_string()))
    }

    fn set_kind(&self, by: Actor, id: EnvironmentId, kind: Kind) -> Decided {
        let env = self.seen_environment(by, id)?;
        self.need(by, Permission::ManageEnvironments, Some(id))?;
        if env.spec.kind == kind {
            return Ok(vec![]);
        }
        let set = Event::KindSet { environment: id, kind };
        Ok(match kind {
            Kind::Managed => vec![set],
            // what only a managed environment has goes, with its secrets
            Kind::SelfService => self.managed_things(by, id).into_iter().chain([set]).collect(),
        })
    }

    /// The ends of all that only a managed environment has.
    pub(super) fn managed_things(&self, by: Actor, id: EnvironmentId) -> Vec<Event> {
        let accounts = self.standings.values().filter(|known| known.environment == id).flat_map(|known| self.gone(by, known));
        let machines = self.machines.values().filter(|known| known.environment == id).map(removed);
        let on = self.environments.get(&id).is_some_and(|env| env.remote_desktop);
        let off = on.then_some(Event::RemoteDesktopSet { environment: id, on: false });
        accounts.chain(machines).chain(off).collect()
    }

    /// A standing account goes, and with it the passes that were used as it.
    fn gone(&self, by: Actor, known: &Standing) -> Vec<Event> {
        let why: Option<Reason> = "the standing account was taken away".parse().ok();
        let revoked = |holder: UserId| match (by, why.clone()) {
            (Actor::User(by), Some(why)) => Cause::Revoked { by, why },
            (Actor::System, Some(why)) => Cause::Revoked { by: holder, why },
            (_, None) => Cause::EnvironmentRemoved,
        };
        let live = self.open_passes().filter(|pass| pass.wish.standing == Some(known.id) && matches!(pass.state, State::Approved { .. } | State::Ready { .. }));
        let ends = live.map(|pass| Event::PassEnding { pass: pass.id, cause: revoked(pass.holder) });
        ends.chain([Event::StandingRemoved { standing: known.id, environment: known.environment, name: known.name.clone() }]).collect()
    }

    pub fn standing(&self, id: StandingId) -> Option<&Standing> {
        self.standings.get(&id)
    }

    pub fn standings_of(&self, environment: EnvironmentId) -> impl Iterator<Item = &Standing> {
        self.standings.values().filter(move |known| known.environment == environment)
    }

    pub fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.standings.values()
    }

    pub fn machine(&self, id: MachineId) -> Option<&Machine> {
        self.machines.get(&id)
    }

    pub fn machines_of(&self, environment: EnvironmentId) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(move |known| known.environment == environment)
    }
}

fn removed(machine: &Machine) -> Event {
    Event::MachineRemoved { machine: machine.id, environment: machine.environment, host: machine.host.clone() }
}

fn taken(what: &str, name: &str) -> Refusal {
    Refusal::new(Code::Taken, format!("There already is a {what} '{name}'."), "Choose another name.")
}
