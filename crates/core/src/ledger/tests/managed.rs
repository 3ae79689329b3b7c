//! Managed environments: standing accounts that are revealed, used and rotated; machines while remote desktop is on.

use super::*;
use crate::command::Observed;

impl Office {
    fn managed(&mut self) -> StandingId {
        self.by_admin(Command::SetKind { environment: self.uat, kind: Kind::Managed });
        let standing = StandingId::new(self.id());
        let note = Some("db_owner".parse().unwrap());
        self.by_admin(Command::AddStanding { standing, environment: self.uat, name: "app_owner".parse().unwrap(), note });
        standing
    }

    fn due(&self, standing: StandingId) -> Option<&'static str> {
        let env = self.ledger.environment(self.uat).unwrap();
        self.ledger.standing(standing).unwrap().rotation_due(env, self.ledger.policy(env), self.now)
    }

    fn rotates(&mut self, standing: StandingId) {
        for observed in [Observed::Rotating { standing }, Observed::Rotated { standing }] {
            self.run(Command::Observed(observed), Actor::System).unwrap();
        }
        self.wait(Ttl::seconds(1).unwrap());
    }
}

#[test]
fn a_self_service_environment_has_no_standing_accounts() {
    let mut office = Office::open();
    let add = Command::AddStanding { standing: StandingId::new(office.id()), environment: office.uat, name: "app".parse().unwrap(), note: None };
    assert!(office.refused(add, office.admin).message.contains("self-service"));
    // and becoming one again takes them away
    let standing = office.managed();
    office.by_admin(Command::SetKind { environment: office.uat, kind: Kind::SelfService });
    assert!(office.ledger.standing(standing).is_none());
}

#[test]
fn a_password_is_changed_after_a_movement_after_it_was_shown_and_on_time() {
    let mut office = Office::open();
    let standing = office.managed();
    assert_eq!(office.due(standing), None);
    let reveal = Command::RevealStanding { standing, why: "the upgrade tool wants it".parse().unwrap() };
    office.refused(reveal.clone(), office.maria);
    office.wait(Ttl::minutes(1));
    office.done(reveal.clone(), Actor::User(office.manager));
    assert_eq!(office.due(standing), None, "the policy does not ask for it");
    let policy = Policy { rotate_after_reveal: Some(Ttl::minutes(15)), rotate_days: Some(90), ..Policy::default() };
    office.by_admin(Command::SetPolicy { scope: Scope::Environment(office.uat), policy });
    assert_eq!(office.due(standing), None, "whoever was shown it has time to use it");
    office.wait(Ttl::minutes(14));
    office.done(reveal, Actor::User(office.manager));
    office.wait(Ttl::minutes(1));
    assert_eq!(office.due(standing), Some("it was revealed"), "another look does not turn the clock back");
    office.rotates(standing);
    assert_eq!(office.due(standing), None);

    let movement = MovementId::new(office.id());
    let begin = Command::BeginMovement {
        movement,
        environment: office.uat,
        kind: MovementKind::External,
        why: "refresh".parse().unwrap(),
        notice: None,
        swap_at: None,
        stay_closed: false,
    };
    office.done(begin, Actor::User(office.manager));
    assert_eq!(office.due(standing), None, "not while it is closed");
    office.done(Command::FinishMovement { movement }, Actor::User(office.manager));
    assert_eq!(office.due(standing), Some("the database was replaced"));
    // what was begun is seen through, whatever happens in between
    office.run(Command::Observed(Observed::Rotating { standing }), Actor::System).unwrap();
    assert_eq!(office.due(standing), Some("it was begun"));
    office.wait(Ttl::minutes(1));
    office.rotates(standing);
    for month in 0..3 {
        assert_eq!(office.due(standing), None, "month {month}");
        office.wait(Ttl::LONGEST);
    }
    assert_eq!(office.due(standing), Some("its time is over"));
    office.rotates(standing);
    office.done(Command::RotateStanding { standing }, Actor::User(office.manager));
    assert_eq!(office.due(standing), Some("somebody asked for it"));
}

#[test]
fn a_standing_account_is_used_by_a_pass_that_needs_no_account_of_its_own() {
    let mut office = Office::open();
    let standing = office.managed();
    let pass = PassId::new(office.id());
    let wish = |access| Wish { standing: Some(standing), ..Wish::new(access, "a repair".parse().unwrap()) };
    let ask = |access| Command::RequestPass { pass, environment: office.uat, wish: wish(access), life: None, salt: 7 };
    let (read, write) = (ask(Access::Read), ask(Access::ReadWrite));
    assert!(office.refused(read, office.maria).message.contains("read-write"));
    office.done(write, Actor::User(office.maria));
    let target = office.ledger.environment(office.uat).unwrap().target;
    let planned = |office: &Office| plan(&office.ledger, target, &Observation::default(), &super::any, office.now);
    assert!(matches!(planned(&office)[..], [Action::Provide { .. }]));
    office.run(Command::Observed(Observed::LoginWorks { pass }), Actor::System).unwrap();
    assert!(planned(&office).is_empty(), "nothing is to be put back: nothing was made");
    office.by_admin(Command::RemoveStanding { standing });
    assert!(matches!(planned(&office)[..], [Action::ReportGone { .. }]));
    office.run(Command::Observed(Observed::Gone { pass }), Actor::System).unwrap();
    assert_eq!(office.state(pass), "ended");
}

#[test]
fn machine_credentials_are_there_while_remote_desktop_is_on() {
    let mut office = Office::open();
    office.managed();
    let machine = MachineId::new(office.id());
    let add = Command::AddMachine { machine, environment: office.uat, host: "aos-1.example.com".parse().unwrap(), user: "Administrator".into(), note: None };
    assert!(office.refused(add.clone(), office.admin).message.contains("Remote desktop is off"));
    office.by_admin(Command::SetRemoteDesktop { environment: office.uat, on: true });
    office.by_admin(add);
    let reveal = Command::RevealMachine { machine, why: "a look at the event log".parse().unwrap() };
    office.refused(reveal.clone(), office.maria);
    office.done(reveal, Actor::User(office.manager));
    let events = office.run(Command::SetRemoteDesktop { environment: office.uat, on: false }, Actor::User(office.admin)).unwrap();
    assert!(matches!(events[..], [Event::RemoteDesktopSet { on: false, .. }, Event::MachineRemoved { .. }]));
    assert!(office.ledger.machines_of(office.uat).next().is_none());
}

#[test]
fn one_role_of_a_server_is_kept_for_one_environment() {
    let mut office = Office::open();
    let standing = office.managed();
    let known = office.ledger.standing(standing).unwrap().name.clone();
    // the same request, for another name: the first account is not written over
    let other = Command::AddStanding { standing, environment: office.uat, name: "another".parse().unwrap(), note: None };
    assert_eq!(office.refused(other, office.admin).code, Code::Taken);
    // another environment on the same server
    let (project, target) = office.ledger.environment(office.uat).map(|env| (env.project, env.target)).unwrap();
    let target_spec = office.ledger.target(target).unwrap().spec.clone();
    let (environment, spec) = (EnvironmentId::new(office.id()), office.ledger.environment(office.uat).unwrap().spec.clone());
    let spec = EnvironmentSpec { name: "second".parse().unwrap(), database: "second".parse().unwrap(), ..spec };
    let unused = TargetId::new(office.id());
    office.by_admin(Command::AddEnvironment { environment, project, target: unused, target_spec, spec });
    assert_eq!(office.ledger.environment(environment).unwrap().target, target, "one server is one target");
    let command = Command::AddStanding { standing: StandingId::new(office.id()), environment, name: known, note: None };
    assert!(office.refused(command, office.admin).message.contains("kept for uat already"));
}
