//! Deciding about movements.

use super::{Ledger, decide::Decided};
use crate::{
    command::Observed,
    environment::{Engine, Environment},
    event::{Actor, Event},
    ids::*,
    movement::{LONGEST_NOTICE, Movement, MovementKind, MovementState, Phase, bounded},
    names::Reason,
    people::Permission,
    refusal::{Code, Refusal},
    time::{Time, Ttl},
};

impl Ledger {
    /// A refusal while the environment is closed for a movement. While the new database is made beside the old one, people work.
    pub(super) fn not_closed(&self, env: &Environment) -> Result<(), Refusal> {
        if env.frozen_by.is_none() {
            return Ok(());
        }
        Err(Refusal::state(
            format!("{} is closed while its database is being moved.", env.spec.name),
            "Try again when the movement is finished; `daypass env show` tells.",
        ))
    }

    /// A refusal from the moment that a movement is asked for until it is over: what it works on stays as it is.
    pub(super) fn not_moving(&self, env: &Environment) -> Result<(), Refusal> {
        let replaced = env.moving.and_then(|id| self.movements.get(&id)).filter(|movement| movement.kind.replaces());
        if replaced.is_none() {
            return Ok(());
        }
        let name = &env.spec.name;
        Err(Refusal::state(
            format!("A movement of {name} is under way."),
            format!("Try again when it is over; `daypass move {name} status` shows how far it is, `daypass move {name} cancel` gives it up."),
        ))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command, spelled out")]
    pub(super) fn begin_movement(
        &self,
        by: Actor,
        movement: MovementId,
        environment: EnvironmentId,
        kind: &MovementKind,
        why: &Reason,
        (notice, swap_at, stay_closed): (Option<Ttl>, Option<Time>, bool),
        now: Time,
    ) -> Decided {
        let env = self.seen_environment(by, environment)?;
        self.need(by, Permission::Move, Some(environment))?;
        let name = &env.spec.name;
        if let Some(known) = self.movements.get(&movement) {
            let same = known.environment == environment && known.kind == *kind;
            let used = || Refusal::new(Code::Taken, "This request was made before, for something else.", "Use a new idempotency key for a new request.");
            return if same { Ok(vec![]) } else { Err(used()) };
        }
        if let Some(running) = env.moving.and_then(|id| self.movements.get(&id)) {
            let remedy = match running.state {
                MovementState::Planned { .. } => format!("`daypass move {name} cancel` gives it up."),
                MovementState::Failed { .. } => {
                    format!(
                        "It failed, and keeps the environment closed: `daypass move {name} retry` runs it again, `daypass move {name} finish` opens the environment."
                    )
                }
                _ => format!("`daypass move {name} status` shows how far it is."),
            };
            return Err(Refusal::state(format!("A movement of {name} is under way already ({}).", running.kind.as_str()), remedy));
        }
        self.check_movement(by, env, kind)?;
        let policy = self.policy(env);
        if let Some(most) = policy.movements_per_day.filter(|_| kind.is_ours()) {
            let counted: Vec<&Movement> =
                self.movements.values().filter(|known| known.environment == environment && known.counts_since(now.before(Ttl::hours(24)))).collect();
            if counted.len() >= usize::from(most) {
                let first = counted.iter().map(|known| known.asked_at).min().unwrap_or(now);
                // the words that scripts of the system before know
                return Err(Refusal::policy(
                    format!("Maximum allowed API operations are {most} from {first}: policy '{}' allows no more a day on {name}.", policy.name),
                    format!("Try again after {}.", first.after(Ttl::hours(24))),
                ));
            }
        }
        if notice.is_some_and(|notice| notice > LONGEST_NOTICE) {
            return Err(Refusal::invalid(format!("Holders are told at most {LONGEST_NOTICE} before.")));
        }
        if let Some(at) = swap_at {
            if !kind.is_prepared() {
                return Err(Refusal::invalid("Only what is prepared can take its place at a time that is said beforehand: a refresh, an import, a restore."));
            }
            if at <= now || at > now.after(LONGEST_NOTICE) {
                return Err(Refusal::invalid(format!("The new database takes its place at a time that is to come, at most {LONGEST_NOTICE} from now.")));
            }
        }
        let stay_closed = stay_closed || !kind.is_ours();
        let (kind, why) = (kind.clone(), why.clone());
        let told = notice.is_some() && self.somebody_in(environment, now);
        if !kind.replaces() || !kind.is_ours() && !told {
            if kind.replaces() {
                self.not_read(env)?;
            }
            return Ok(vec![Event::MovementBegun { movement, environment, kind, why, stay_closed }]);
        }
        let told = notice.map_or(now, |notice| now.after(notice));
        let cuts_at = swap_at.map_or(told, |at| at.max(told));
        Ok(vec![Event::MovementPlanned { movement, environment, kind, why, cuts_at, exactly: swap_at.is_some(), stay_closed }])
    }

    /// A refusal while the database is copied into another environment: who reads it would be cut off in the middle.
    fn not_read(&self, env: &Environment) -> Result<(), Refusal> {
        let Some(reader) = self.reader(env.id) else { return Ok(()) };
        let (name, into) = (&env.spec.name, reader.environment);
        let into = self.environments.get(&into).map_or_else(|| into.to_string(), |env| env.spec.name.to_string());
        Err(Refusal::state(
            format!("The database of {name} is copied into {into} at this moment."),
            format!("Try again when the copy is made (`daypass move {into} status`), or give it up: `daypass move {into} cancel`."),
        ))
    }

    /// The movement that reads the database of this environment now.
    fn reader(&self, environment: EnvironmentId) -> Option<&Movement> {
        let mut moving = self.environments.values().filter_map(|env| self.movements.get(&env.moving?));
        moving.find(|movement| movement.reads() == Some(environment))
    }

    /// Whether a planned movement is to begin: what takes the place is ready, its time has come, and nobody copies what it will replace.
    fn is_due(&self, movement: &Movement, now: Time) -> bool {
        let MovementState::Planned { cuts_at, exactly, phase: Phase::Ready } = movement.state else { return false };
        let come = now >= cuts_at || !exactly && !self.somebody_in(movement.environment, now);
        come && self.reader(movement.environment).is_none()
    }

    /// Whether anybody has access, or is about to.
    pub fn somebody_in(&self, environment: EnvironmentId, now: Time) -> bool {
        self.open_passes().any(|pass| pass.environment == environment && pass.ends_at.is_some() && self.over(pass, now).is_none())
    }

    /// Whether this kind can be done here at all.
    fn check_movement(&self, by: Actor, env: &Environment, kind: &MovementKind) -> Result<(), Refusal> {
        match kind {
            MovementKind::Refresh { from } => {
                let source = self.seen_environment(by, *from)?;
                self.need(by, Permission::Move, Some(*from))?;
                if source.id == env.id {
                    return Err(Refusal::invalid("An environment is not refreshed from itself."));
                }
                let engine = |env: &Environment| self.targets.get(&env.target).map(|target| target.spec.engine);
                if engine(source) != engine(env) {
                    return Err(Refusal::invalid(format!(
                        "{} and {} have different engines; their databases cannot be copied.",
                        source.spec.name, env.spec.name
                    )));
                }
                if source.frozen_by.is_some() {
                    return Err(Refusal::state(
                        format!("{} is closed while its own database is being moved.", source.spec.name),
                        "Try again when that movement is finished.",
                    ));
                }
                Ok(())
            }
            MovementKind::Restore { .. } if self.targets.get(&env.target).is_some_and(|target| target.spec.engine == Engine::SqlServer) => {
                Err(Refusal::invalid(format!(
                    "Daypass restores databases of PostgreSQL to a moment, not those of SQL Server: `daypass move {name} external begin`, restore it, then `external finish`.",
                    name = env.spec.name
                )))
            }
            MovementKind::Undo { of } => {
                let known = self.movements.get(of).filter(|known| known.environment == env.id && known.kept.is_some());
                known.map(drop).ok_or_else(|| {
                    Refusal::state(
                        "That movement put no database aside, or its time was over and it is gone.",
                        "`daypass move ENV status` shows the way back, if there is one.",
                    )
                })
            }
            _ => Ok(()),
        }
    }

    fn movement_for(&self, by: Actor, id: MovementId) -> Result<&Movement, Refusal> {
        let movement = self
            .movements
            .get(&id)
            .filter(|m| self.seen_environment(by, m.environment).is_ok())
            .ok_or_else(|| Refusal::not_found("movement", &id.to_string()))?;
        self.need(by, Permission::Move, Some(movement.environment))?;
        Ok(movement)
    }

    pub(super) fn cancel_movement(&self, by: Actor, id: MovementId, why: &Reason) -> Decided {
        let movement = self.movement_for(by, id)?;
        match movement.state {
            // one that keeps the environment closed and is tried again: given up, it keeps it closed as before
            MovementState::Planned { .. } if self.environments.get(&movement.environment).is_some_and(|env| env.frozen_by == Some(id)) => {
                Ok(vec![Event::MovementFailed { movement: id, why: why.clone() }])
            }
            MovementState::Planned { .. } => Ok(vec![Event::MovementWithdrawn { movement: id, why: Some(why.clone()) }]),
            // it may be done already, and a swap is not half undone
            MovementState::Running { phase: Phase::Swap } if movement.kind.is_ours() => {
                Err(Refusal::state("The new database is taking its place at this moment.", "Wait until it is finished; `daypass move ENV undo` goes back."))
            }
            MovementState::Running { .. } => Ok(vec![Event::MovementFailed { movement: id, why: why.clone() }]),
            _ => Ok(vec![]),
        }
    }

    pub(super) fn fail_movement(&self, by: Actor, id: MovementId, why: &Reason) -> Decided {
        let movement = self.movement_for(by, id)?;
        match movement.state {
            MovementState::Running { .. } | MovementState::Planned { .. } if by != Actor::System && movement.kind.is_ours() => {
                self.cancel_movement(by, id, why)
            }
            MovementState::Planned { .. } if movement.kind.is_ours() => Ok(vec![Event::MovementFailed { movement: id, why: why.clone() }]),
            MovementState::Running { .. } => Ok(vec![Event::MovementFailed { movement: id, why: why.clone() }]),
            MovementState::Failed { .. } => Ok(vec![]),
            MovementState::Planned { .. } => Err(Refusal::state("This movement has not begun.", "`daypass move ENV cancel` gives it up.")),
            // somebody gave it up meanwhile
            _ if by == Actor::System => Ok(vec![]),
            _ => Err(Refusal::state("This movement is over.", "A new one begins with `daypass move ENV`.")),
        }
    }

    pub(super) fn retry_movement(&self, by: Actor, id: MovementId) -> Decided {
        let movement = self.movement_for(by, id)?;
        match movement.state {
            MovementState::Failed { .. } if !movement.kind.is_ours() => {
                Err(Refusal::state("Another tool does this movement.", "Run that tool again; then `daypass move ENV finish`."))
            }
            MovementState::Failed { .. } if movement.kind.replaces() => {
                if let Some(env) = self.environments.get(&movement.environment) {
                    if env.moving.is_some_and(|moving| moving != id) {
                        return Err(Refusal::state(
                            format!("Another movement of {} is under way.", env.spec.name),
                            format!("Try again when it is over: `daypass move {} status`.", env.spec.name),
                        ));
                    }
                    self.check_movement(by, env, &movement.kind)?;
                }
                Ok(vec![Event::MovementRetried { movement: id }])
            }
            MovementState::Planned { .. } | MovementState::Running { .. } => Ok(vec![]),
            _ => Err(Refusal::state("This movement is over.", "A new one begins with `daypass move ENV`.")),
        }
    }

    pub(super) fn finish_movement(&self, by: Actor, id: MovementId) -> Decided {
        let movement = self.movement_for(by, id)?;
        let finished = || Ok(vec![Event::MovementFinished { movement: id, kept: None, made: None }]);
        match movement.state {
            MovementState::Running { .. } if movement.kind.is_ours() => Err(Refusal::state(
                "Daypass carries this movement out itself, and finishes it itself.",
                "`daypass move ENV status` shows how far it is; `daypass move ENV cancel` stops it.",
            )),
            MovementState::Running { .. } => finished(),
            MovementState::Failed { .. } if self.environments.get(&movement.environment).is_some_and(|env| env.frozen_by == Some(id)) => finished(),
            MovementState::Planned { .. } => Err(Refusal::state("This movement has not begun.", "`daypass move ENV cancel` gives it up.")),
            _ => Ok(vec![]),
        }
    }

    pub(super) fn movement_observed(&self, observed: &Observed, now: Time) -> Vec<Event> {
        let running = |id: &MovementId| self.movements.get(id).filter(|known| known.kind.is_ours() && matches!(known.state, MovementState::Running { .. }));
        let under_way = |id: &MovementId| self.movements.get(id).filter(|known| known.is_under_way());
        match observed {
            Observed::Due { movement } => {
                let due = self.movements.get(movement).filter(|known| self.is_due(known, now));
                let begun = due.map(|known| Event::MovementBegun {
                    movement: known.id,
                    environment: known.environment,
                    kind: known.kind.clone(),
                    why: known.why.clone(),
                    stay_closed: known.stay_closed,
                });
                begun.into_iter().collect()
            }
            Observed::Reached { movement, phase } => {
                // nobody exchanges names whose access has not ended
                let may = |known: &&Movement| matches!(known.state, MovementState::Running { .. }) || !matches!(phase, Phase::Freeze | Phase::Swap);
                let known = under_way(movement).filter(|known| known.kind.is_ours()).filter(may);
                known.map(|_| Event::MovementReached { movement: *movement, phase: *phase }).into_iter().collect()
            }
            Observed::Swept { movement, swept } => under_way(movement)
                .filter(|_| !swept.is_empty())
                .map(|_| Event::MovementSwept { movement: *movement, swept: bounded(swept) })
                .into_iter()
                .collect(),
            Observed::Moved { movement, kept, made } => {
                let Some(known) = running(movement) else { return vec![] };
                let finished = Event::MovementFinished { movement: *movement, kept: kept.clone(), made: made.clone() };
                // what an undo brings back is put aside no longer
                let back = match known.kind {
                    MovementKind::Undo { of } => Some(Event::MovementKeptGone { movement: of }),
                    _ => None,
                };
                std::iter::once(finished).chain(back).collect()
            }
            Observed::KeptGone { movement } => {
                let known = self.movements.get(movement).filter(|known| known.kept.is_some());
                known.map(|_| Event::MovementKeptGone { movement: *movement }).into_iter().collect()
            }
            _ => vec![],
        }
    }
}
