//! What each line of the log is about, in a few bytes: filtering a million of them takes milliseconds and reads none.

use crate::{
    event::{Actor, Entry, Event},
    ids::*,
    ledger::Ledger,
    time::Time,
};
use std::collections::HashMap;

/// The chapters of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Passes, from the request to the end.
    Access,
    Addresses,
    Movements,
    /// People, roles, sign-ins.
    People,
    /// Projects, policies, environments, targets.
    Settings,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Access, Kind::Addresses, Kind::Movements, Kind::People, Kind::Settings];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Access => "access",
            Kind::Addresses => "addresses",
            Kind::Movements => "movements",
            Kind::People => "people",
            Kind::Settings => "settings",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| "the kinds are access, addresses, movements, people and settings".to_owned())
    }
}

/// What is looked for; what is not named does not matter.
#[derive(Clone, Copy, Default, Debug)]
pub struct Filter {
    pub environment: Option<EnvironmentId>,
    /// Who did it, or to whom it was done.
    pub person: Option<UserId>,
    pub kind: Option<Kind>,
    pub from: Option<Time>,
    /// This moment excluded.
    pub until: Option<Time>,
    /// Only lines before this number.
    pub before: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    at: Time,
    kind: Kind,
    /// Places in the tables of ids; 0 for none.
    environment: u32,
    by: u32,
    of: u32,
}

/// One row a line, in the order of the log.
#[derive(Default)]
pub struct Index {
    rows: Vec<Row>,
    environments: HashMap<EnvironmentId, u32>,
    people: HashMap<UserId, u32>,
}

impl Index {
    /// Adds the next line. `ledger` has applied it.
    pub fn push(&mut self, ledger: &Ledger, entry: &Entry) {
        let about = about(ledger, &entry.event);
        let by = match entry.by {
            Actor::User(user) => Some(user),
            Actor::System => None,
        };
        let row = Row {
            at: entry.at,
            kind: about.kind,
            environment: about.environment.map_or(0, |id| place(&mut self.environments, id)),
            by: by.map_or(0, |id| place(&mut self.people, id)),
            of: about.person.map_or(0, |id| place(&mut self.people, id)),
        };
        self.rows.push(row);
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The numbers of the newest lines that fit, newest first.
    pub fn find(&self, filter: &Filter, limit: usize) -> Vec<u64> {
        // an id that stands in no line fits none
        let sought = |known: Option<&u32>, asked: bool| if asked { Some(known.copied().unwrap_or(u32::MAX)) } else { None };
        let environment = sought(filter.environment.and_then(|id| self.environments.get(&id)), filter.environment.is_some());
        let person = sought(filter.person.and_then(|id| self.people.get(&id)), filter.person.is_some());
        let end = filter.before.map_or(self.rows.len(), |seq| usize::try_from(seq.saturating_sub(1)).unwrap_or(usize::MAX).min(self.rows.len()));
        let fits = |row: &Row| {
            environment.is_none_or(|id| row.environment == id)
                && person.is_none_or(|id| row.by == id || row.of == id)
                && filter.kind.is_none_or(|kind| row.kind == kind)
                && filter.until.is_none_or(|until| row.at < until)
                && filter.from.is_none_or(|from| row.at >= from)
        };
        let newest_first = self.rows.iter().enumerate().take(end).rev();
        newest_first.filter(|(_, row)| fits(row)).map(|(place, _)| place as u64 + 1).take(limit).collect()
    }
}

fn place<K: std::hash::Hash + Eq>(table: &mut HashMap<K, u32>, id: K) -> u32 {
    let next = table.len() as u32 + 1;
    *table.entry(id).or_insert(next)
}

/// What an event is about.
pub struct About {
    pub kind: Kind,
    pub environment: Option<EnvironmentId>,
    pub person: Option<UserId>,
}

/// What an event is about, given the ledger that follows from it.
pub fn about(ledger: &Ledger, event: &Event) -> About {
    let settings = |environment| About { kind: Kind::Settings, environment, person: None };
    let people = |person| About { kind: Kind::People, environment: None, person };
    match event {
        Event::StoreCreated { .. } | Event::ProjectAdded { .. } | Event::TargetAdded { .. } | Event::TargetChanged { .. } => settings(None),
        Event::PolicySet { scope, .. } => settings(match scope {
            crate::people::Scope::Environment(id) => Some(*id),
            crate::people::Scope::All | crate::people::Scope::Project(_) => None,
        }),
        Event::EnvironmentAdded { environment, .. } | Event::EnvironmentRemoved { environment } | Event::AccountsSet { environment, .. } => {
            settings(Some(*environment))
        }
        Event::MasksSet { environment, .. } => settings(Some(*environment)),
        Event::DriftFound { .. } | Event::DriftGone { .. } | Event::DriftJudged { .. } => settings(None),
        Event::FileFetched { environment, .. } => About { kind: Kind::Movements, environment: *environment, person: None },
        Event::KindSet { environment, .. } | Event::RemoteDesktopSet { environment, .. } => settings(Some(*environment)),
        Event::StandingAdded { environment, .. } | Event::MachineAdded { environment, .. } => settings(Some(*environment)),
        Event::StandingRemoved { environment, .. } | Event::MachineRemoved { environment, .. } => settings(Some(*environment)),
        Event::StandingRevealed { standing, .. }
        | Event::StandingRotationAsked { standing }
        | Event::StandingRotating { standing }
        | Event::StandingRotated { standing } => settings(ledger.standing(*standing).map(|known| known.environment)),
        Event::MachineRevealed { machine, .. } => settings(ledger.machine(*machine).map(|known| known.environment)),
        Event::UserAdded { user, .. } | Event::UserLocked { user, .. } | Event::UserUnlocked { user } | Event::PasswordChanged { user } => people(Some(*user)),
        Event::SecondFactorSet { user } | Event::SecondFactorRemoved { user } => people(Some(*user)),
        Event::UserLinked { user, .. } | Event::GroupRolesSet { user, .. } | Event::MailSet { user, .. } => people(Some(*user)),
        Event::RoleGiven { user, .. } | Event::RoleTaken { user, .. } | Event::TokenAdded { user, .. } => people(Some(*user)),
        Event::TokenRemoved { .. } => people(None),
        Event::DatabaseIdentified { environment, .. }
        | Event::DatabaseReplaced { environment, .. }
        | Event::FailoverExpected { environment, .. }
        | Event::DatabaseSwept { environment, .. } => About { kind: Kind::Movements, environment: Some(*environment), person: None },
        Event::MovementPlanned { movement, .. }
        | Event::MovementWithdrawn { movement, .. }
        | Event::MovementBegun { movement, .. }
        | Event::MovementReached { movement, .. }
        | Event::MovementSwept { movement, .. }
        | Event::MovementFailed { movement, .. }
        | Event::MovementRetried { movement }
        | Event::MovementFinished { movement, .. }
        | Event::MovementKeptGone { movement } => {
            About { kind: Kind::Movements, environment: ledger.movement(*movement).map(|movement| movement.environment), person: None }
        }
        Event::AllowAdded { entry, .. } | Event::AllowRenewed { entry, .. } | Event::AllowRemoved { entry } => {
            let known = ledger.allow().get(*entry);
            let person = known.and_then(|entry| match entry.owner {
                crate::allow::Owner::Person(user) => Some(user),
                crate::allow::Owner::Shared => None,
            });
            About { kind: Kind::Addresses, environment: known.map(|entry| entry.environment), person }
        }
        Event::PassRequested { pass, .. }
        | Event::PassAgreed { pass, .. }
        | Event::PassApproved { pass, .. }
        | Event::PassDenied { pass, .. }
        | Event::PassWithdrawn { pass }
        | Event::PassLapsed { pass }
        | Event::PassReady { pass }
        | Event::PassRevealed { pass }
        | Event::PassReviewed { pass, .. }
        | Event::PassExtended { pass, .. }
        | Event::PassLeft { pass, .. }
        | Event::PassEnding { pass, .. }
        | Event::PassEnded { pass, .. } => {
            let known = ledger.pass(*pass);
            About { kind: Kind::Access, environment: known.map(|pass| pass.environment), person: known.map(|pass| pass.holder) }
        }
    }
}
