//! What a managed environment has besides passes: standing accounts, and machine credentials while remote desktop is on. Their secrets lie
//! sealed in the store; here is only that they exist.

use crate::{
    environment::Environment,
    ids::*,
    names::{Host, Reason, RoleName},
    policy::Policy,
    time::Time,
};

/// A database account that exists outside of passes.
#[derive(Clone, Debug)]
pub struct Standing {
    pub id: StandingId,
    pub environment: EnvironmentId,
    /// As the target knows it.
    pub name: RoleName,
    /// What it is for, like "db_owner".
    pub note: Option<Reason>,
    pub added_at: Time,
    pub rotated_at: Option<Time>,
    pub revealed_at: Option<Time>,
    /// Somebody wants a new password.
    pub asked_at: Option<Time>,
    /// A new password lies sealed; whether the target has it already is not known.
    pub rotating: bool,
}

impl Standing {
    /// When a password that was shown is changed, if policy has that. The first who saw it starts the clock: looking again does not turn it back.
    pub fn shown_until(&self, policy: &Policy) -> Option<Time> {
        Some(self.revealed_at?.after(policy.rotate_after_reveal?))
    }

    /// Why its password has to be changed now, if so.
    pub fn rotation_due(&self, env: &Environment, policy: &Policy, now: Time) -> Option<&'static str> {
        if env.frozen_by.is_some() || env.removed() {
            return None;
        }
        let since = self.rotated_at.unwrap_or(self.added_at);
        let after = |at: Option<Time>| at.is_some_and(|at| at >= since);
        let replaced = env.epoch().checked_sub(1).and_then(|last| env.epoch_ended_at(last));
        if self.rotating {
            Some("it was begun")
        } else if after(self.asked_at) {
            Some("somebody asked for it")
        } else if after(replaced) {
            Some("the database was replaced")
        } else if self.shown_until(policy).is_some_and(|until| now >= until) {
            Some("it was revealed")
        } else {
            (now >= since.days_after(policy.rotate_days?)).then_some("its time is over")
        }
    }
}

/// How to get onto a machine of the environment.
#[derive(Clone, Debug)]
pub struct Machine {
    pub id: MachineId,
    pub environment: EnvironmentId,
    pub host: Host,
    pub user: String,
    pub note: Option<Reason>,
    pub added_at: Time,
}
