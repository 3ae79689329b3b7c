//! Movements: planned, begun, carried out, failed, tried again, undone.

use super::*;
use crate::movement::{Kept, MovementState, Phase};

impl Office {
    fn moves(&mut self, kind: MovementKind, notice: Option<Ttl>) -> MovementId {
        let movement = MovementId::new(self.id());
        let (environment, why) = (self.uat, "refresh".parse().unwrap());
        self.done(Command::BeginMovement { movement, environment, kind, why, notice, swap_at: None, stay_closed: false }, Actor::User(self.manager));
        movement
    }

    /// The same once more, as another movement.
    fn asked_again(&mut self, stay_closed: bool) -> Command {
        let (movement, environment, why) = (MovementId::new(self.id()), self.uat, "x".parse().unwrap());
        Command::BeginMovement { movement, environment, kind: import(), why, notice: None, swap_at: None, stay_closed }
    }

    /// What takes the place is ready, and access ends.
    fn begins(&mut self, movement: MovementId) {
        self.seen(Observed::Reached { movement, phase: Phase::Ready });
        assert!(matches!(self.seen(Observed::Due { movement })[..], [Event::MovementBegun { .. }]));
    }

    /// What moves its database, and what keeps it closed.
    fn closed_by(&self) -> (Option<MovementId>, Option<MovementId>) {
        let env = self.ledger.environment(self.uat).unwrap();
        (env.moving, env.frozen_by)
    }

    fn seen(&mut self, observed: Observed) -> Vec<Event> {
        self.run(Command::Observed(observed), Actor::System).unwrap()
    }

    fn movement_state(&self, movement: MovementId) -> MovementState {
        self.ledger.movement(movement).unwrap().state.clone()
    }

    fn golden(&mut self) -> MovementKind {
        let project = self.ledger.environment(self.uat).unwrap().project;
        MovementKind::Refresh { from: self.environment("golden", project) }
    }

    /// A pass of Maria's that is ready.
    fn maria_is_in(&mut self) -> PassId {
        let pass = self.asks(self.maria, Access::Read);
        self.seen(Observed::LoginWorks { pass });
        pass
    }
}

fn import() -> MovementKind {
    MovementKind::Import { file: "night.dump".parse().unwrap() }
}

#[test]
fn holders_keep_their_access_until_the_moment_they_were_told() {
    let mut office = Office::open();
    let pass = office.maria_is_in();
    let movement = office.moves(import(), Some(Ttl::minutes(10)));
    let cuts_at = office.now.after(Ttl::minutes(10));
    assert_eq!(office.movement_state(movement), MovementState::Planned { cuts_at, exactly: false, phase: Phase::Check });
    assert_eq!(office.state(pass), "ready");
    // people go on working, and others come: what they have ends with the database
    let ask = Command::RequestPass {
        pass: PassId::new(office.id()),
        environment: office.uat,
        wish: Wish::new(Access::Read, "a look".parse().unwrap()),
        life: None,
        salt: 99,
    };
    office.done(ask, Actor::User(office.ben));
    // not yet
    office.seen(Observed::Reached { movement, phase: Phase::Ready });
    assert!(office.seen(Observed::Due { movement }).is_empty());
    office.wait(Ttl::minutes(10));
    assert!(matches!(office.seen(Observed::Due { movement })[..], [Event::MovementBegun { .. }]));
    let pass = office.ledger.pass(pass).unwrap();
    assert_eq!(office.ledger.over(pass, office.now), Some(Cause::Moved { movement }));
}

#[test]
fn nobody_is_waited_for_who_is_not_there() {
    let mut office = Office::open();
    let movement = office.moves(import(), Some(Ttl::minutes(10)));
    assert!(office.seen(Observed::Due { movement }).is_empty(), "there is nothing yet that could take its place");
    office.seen(Observed::Reached { movement, phase: Phase::Ready });
    assert!(matches!(office.seen(Observed::Due { movement })[..], [Event::MovementBegun { .. }]));
    assert_eq!(office.movement_state(movement), MovementState::Running { phase: Phase::Freeze });

    let mut office = Office::open();
    let pass = office.maria_is_in();
    let movement = office.moves(import(), Some(Ttl::minutes(10)));
    office.seen(Observed::Reached { movement, phase: Phase::Ready });
    office.done(Command::EndPass { pass, why: None }, Actor::User(office.maria));
    assert!(matches!(office.seen(Observed::Due { movement })[..], [Event::MovementBegun { .. }]), "the last one gave it back");
}

#[test]
fn a_planned_movement_can_be_given_up_and_nothing_happened() {
    let mut office = Office::open();
    let pass = office.maria_is_in();
    let movement = office.moves(import(), Some(Ttl::minutes(10)));
    let cancel = Command::CancelMovement { movement, why: "not today".parse().unwrap() };
    office.refused(cancel.clone(), office.ben);
    office.done(cancel, Actor::User(office.manager));
    assert_eq!(office.movement_state(movement).status(&import()), "Aborted");
    office.wait(Ttl::minutes(20));
    assert!(office.seen(Observed::Due { movement }).is_empty());
    assert_eq!(office.state(pass), "ready");
    office.asks(office.ben, Access::Read);
}

#[test]
fn what_fails_while_the_new_database_is_made_costs_nobody_anything() {
    let mut office = Office::open();
    let pass = office.maria_is_in();
    let movement = office.moves(import(), None);
    office.done(Command::FailMovement { movement, why: "no space left".parse().unwrap() }, Actor::System);
    assert!(matches!(office.movement_state(movement), MovementState::Failed { phase: Phase::Check, .. }));
    assert_eq!(office.state(pass), "ready");
    assert_eq!(office.closed_by(), (None, None));
    // nothing is to be opened; it can be tried again, once, and not beside another
    assert!(office.run(Command::FinishMovement { movement }, Actor::User(office.manager)).unwrap().is_empty());
    office.done(Command::RetryMovement { movement }, Actor::User(office.manager));
    assert!(office.run(Command::RetryMovement { movement }, Actor::User(office.manager)).unwrap().is_empty(), "it goes on already");
    let again = office.asked_again(false);
    assert!(office.refused(again.clone(), office.manager).message.contains("under way"), "one at a time");
    office.done(Command::CancelMovement { movement, why: "another week".parse().unwrap() }, Actor::User(office.manager));
    office.done(again, Actor::User(office.manager));
    office.refused(Command::RetryMovement { movement }, office.manager);
    assert_eq!(office.state(pass), "ready");
}

#[test]
fn what_fails_after_access_ended_opens_again_with_the_database_of_before() {
    let mut office = Office::open();
    let pass = office.maria_is_in();
    let movement = office.moves(import(), None);
    office.begins(movement);
    assert_eq!(office.closed_by(), (Some(movement), Some(movement)));
    // what Daypass carries out, nobody else calls finished
    office.refused(Command::FinishMovement { movement }, office.manager);
    let epoch = office.ledger.environment(office.uat).unwrap().epoch();
    office.done(Command::FailMovement { movement, why: "somebody is still connected".parse().unwrap() }, Actor::System);
    assert_eq!(office.closed_by(), (None, None));
    assert_eq!(office.ledger.environment(office.uat).unwrap().epoch(), epoch);
    assert!(office.ledger.over(office.ledger.pass(pass).unwrap(), office.now).is_some(), "what ended stays ended");
    office.asks(office.ben, Access::Read);
}

#[test]
fn who_wishes_so_has_it_stay_closed_when_it_fails_after_access_ended() {
    let mut office = Office::open();
    let begin = office.asked_again(true);
    let Command::BeginMovement { movement, .. } = begin else { unreachable!() };
    office.done(begin, Actor::User(office.manager));
    // before that it closes nothing either
    office.done(Command::FailMovement { movement, why: "no space left".parse().unwrap() }, Actor::System);
    assert_eq!(office.closed_by(), (None, None));
    office.done(Command::RetryMovement { movement }, Actor::User(office.manager));
    office.begins(movement);
    office.done(Command::FailMovement { movement, why: "no space left".parse().unwrap() }, Actor::System);
    assert_eq!(office.closed_by(), (Some(movement), Some(movement)));
    let again = office.asked_again(false);
    assert!(office.refused(again.clone(), office.manager).remedy.contains("retry"), "one at a time");
    // closed while it is made once more
    office.done(Command::RetryMovement { movement }, Actor::User(office.manager));
    assert_eq!(office.movement_state(movement).status(&import()), "InProgress");
    assert_eq!(office.closed_by(), (Some(movement), Some(movement)));
    office.done(Command::CancelMovement { movement, why: "another week".parse().unwrap() }, Actor::User(office.manager));
    assert_eq!(office.closed_by(), (Some(movement), Some(movement)), "given up, it keeps it closed as before");
    office.done(Command::FinishMovement { movement }, Actor::User(office.manager));
    assert_eq!(office.movement_state(movement).status(&import()), "SignedOff");
    office.done(again, Actor::User(office.manager));
}

#[test]
fn a_time_that_was_said_beforehand_is_waited_for_though_nobody_is_in() {
    let mut office = Office::open();
    let at = office.now.after(Ttl::hours(8));
    let begin = |office: &mut Office, kind, swap_at| Command::BeginMovement {
        movement: MovementId::new(office.id()),
        environment: office.uat,
        kind,
        why: "tonight".parse().unwrap(),
        notice: None,
        swap_at: Some(swap_at),
        stay_closed: false,
    };
    for wrong in [office.now, office.now.after(Ttl::hours(25))] {
        let command = begin(&mut office, import(), wrong);
        office.refused(command, office.manager);
    }
    let external = begin(&mut office, MovementKind::External, at);
    assert!(office.refused(external, office.manager).message.contains("prepared"));
    let command = begin(&mut office, import(), at);
    let Command::BeginMovement { movement, .. } = command else { unreachable!() };
    office.done(command, Actor::User(office.manager));
    // a second try waits for it as well
    office.done(Command::FailMovement { movement, why: "a script".parse().unwrap() }, Actor::System);
    office.done(Command::RetryMovement { movement }, Actor::User(office.manager));
    office.seen(Observed::Reached { movement, phase: Phase::Ready });
    assert!(office.seen(Observed::Due { movement }).is_empty());
    office.wait(Ttl::hours(8));
    assert!(matches!(office.seen(Observed::Due { movement })[..], [Event::MovementBegun { .. }]));
}

#[test]
fn a_database_is_not_replaced_while_it_is_copied_into_another_environment() {
    let mut office = Office::open();
    let MovementKind::Refresh { from: golden } = office.golden() else { unreachable!() };
    let (uat, manager) = (office.uat, Actor::User(office.manager));
    let begin = |office: &mut Office, environment, kind| {
        let movement = MovementId::new(office.id());
        (movement, Command::BeginMovement { movement, environment, kind, why: "both".parse().unwrap(), notice: None, swap_at: None, stay_closed: false })
    };
    // each is copied into the other: both copies are made, then both take their places
    let (one, command) = begin(&mut office, uat, MovementKind::Refresh { from: golden });
    office.done(command, manager);
    office.seen(Observed::Reached { movement: one, phase: Phase::Copy });
    let (other, command) = begin(&mut office, golden, MovementKind::Refresh { from: uat });
    office.done(command, manager);
    office.seen(Observed::Reached { movement: other, phase: Phase::Ready });
    assert!(office.seen(Observed::Due { movement: other }).is_empty(), "golden is still read");
    office.seen(Observed::Reached { movement: one, phase: Phase::Sweep });
    assert!(matches!(office.seen(Observed::Due { movement: other })[..], [Event::MovementBegun { .. }]));
    office.seen(Observed::Moved { movement: other, kept: None, made: None });
    office.begins(one);
    office.seen(Observed::Moved { movement: one, kept: None, made: None });
    // another tool is asked to wait
    let (copy, command) = begin(&mut office, uat, MovementKind::Refresh { from: golden });
    office.done(command, manager);
    office.seen(Observed::Reached { movement: copy, phase: Phase::Copy });
    let (_, external) = begin(&mut office, golden, MovementKind::External);
    let refusal = office.refused(external.clone(), office.manager);
    assert!(refusal.message.contains("copied into uat") && refusal.remedy.contains("daypass move uat cancel"), "{refusal}");
    office.seen(Observed::Reached { movement: copy, phase: Phase::Sweep });
    office.done(external, manager);
}

#[test]
fn a_movement_is_not_tried_again_beside_another_not_even_an_export() {
    let mut office = Office::open();
    let movement = office.moves(import(), None);
    office.done(Command::FailMovement { movement, why: "no space left".parse().unwrap() }, Actor::System);
    let export = office.moves(MovementKind::Export { file: "uat.dump".parse().unwrap() }, None);
    assert!(office.refused(Command::RetryMovement { movement }, office.manager).message.contains("Another movement"));
    office.seen(Observed::Moved { movement: export, kept: None, made: None });
    office.done(Command::RetryMovement { movement }, Actor::User(office.manager));
}

#[test]
fn a_log_of_the_version_that_ended_access_first_says_the_same() {
    let mut office = Office::open();
    let movement = MovementId::new(office.id());
    let event: Event = serde_json::from_value(serde_json::json!({
        "movement_begun": { "movement": movement, "environment": office.uat, "kind": { "import": { "file": "a.dump" } }, "why": "as before" }
    }))
    .unwrap();
    let failed = Event::MovementFailed { movement, why: "no space left".parse().unwrap() };
    for event in [event, Event::MovementReached { movement, phase: Phase::Copy }, failed] {
        let entry = Entry { seq: office.ledger.seq() + 1, at: office.ledger.clamp(office.now), by: Actor::System, event };
        office.ledger.apply(&entry).unwrap();
    }
    assert_eq!(office.closed_by(), (Some(movement), Some(movement)), "what failed then stays closed until a person says so");
    // it was tried again, and was exchanging the names when the newer version came
    for event in [Event::MovementRetried { movement }, Event::MovementReached { movement, phase: Phase::Swap }] {
        let entry = Entry { seq: office.ledger.seq() + 1, at: office.ledger.clamp(office.now), by: Actor::System, event };
        office.ledger.apply(&entry).unwrap();
    }
    assert_eq!(office.movement_state(movement), MovementState::Running { phase: Phase::Swap });
    office.done(Command::FailMovement { movement, why: "Daypass was stopped".parse().unwrap() }, Actor::System);
    office.done(Command::FinishMovement { movement }, Actor::User(office.manager));
    assert_eq!(office.closed_by(), (None, None));
}

#[test]
fn the_way_back_is_open_until_its_time_is_over() {
    let mut office = Office::open();
    let movement = office.moves(import(), None);
    office.begins(movement);
    let kept = Kept { database: "uat__old".parse().unwrap(), until: office.now.after(Ttl::hours(72)) };
    office.seen(Observed::Moved { movement, kept: Some(kept), made: None });
    let undo = office.moves(MovementKind::Undo { of: movement }, None);
    // it is there already: nothing has to be made
    office.seen(Observed::Due { movement: undo });
    assert_eq!(office.movement_state(undo).status(&MovementKind::Undo { of: movement }), "RollbackInProgress");
    office.seen(Observed::Moved { movement: undo, kept: None, made: None });
    assert_eq!(office.ledger.movement(movement).unwrap().kept, None);
    let twice = Command::BeginMovement {
        movement: MovementId::new(office.id()),
        environment: office.uat,
        kind: MovementKind::Undo { of: movement },
        why: "x".parse().unwrap(),
        notice: None,
        swap_at: None,
        stay_closed: false,
    };
    assert!(office.refused(twice, office.manager).message.contains("gone"));
}

#[test]
fn a_copy_out_of_here_ends_nobodys_access() {
    let mut office = Office::open();
    let pass = office.maria_is_in();
    let export = MovementKind::Export { file: "uat.dump".parse().unwrap() };
    let movement = office.moves(export, None);
    assert_eq!(office.state(pass), "ready");
    office.asks(office.ben, Access::Read);
    office.done(Command::FailMovement { movement, why: "no space left".parse().unwrap() }, Actor::System);
    assert_eq!(office.ledger.environment(office.uat).unwrap().moving, None);
}

#[test]
fn a_refresh_needs_the_right_on_both_ends_and_the_policy_counts() {
    let mut office = Office::open();
    let kind = office.golden();
    let begin = |office: &mut Office| Command::BeginMovement {
        movement: MovementId::new(office.id()),
        environment: office.uat,
        kind: kind.clone(),
        why: "refresh".parse().unwrap(),
        notice: None,
        swap_at: None,
        stay_closed: false,
    };
    let command = begin(&mut office);
    office.refused(command.clone(), office.maria);
    let policy = Policy { movements_per_day: Some(1), ..Policy::default() };
    office.by_admin(Command::SetPolicy { scope: Scope::Environment(office.uat), policy });
    office.done(command.clone(), Actor::User(office.manager));
    assert!(office.run(command.clone(), Actor::User(office.manager)).unwrap().is_empty(), "the same request twice is one");
    let Command::BeginMovement { movement, .. } = command else { unreachable!() };
    office.begins(movement);
    office.seen(Observed::Moved { movement, kept: None, made: None });
    let next = begin(&mut office);
    let refusal = office.refused(next.clone(), office.manager);
    assert!(refusal.message.starts_with("Maximum allowed API operations are 1 from"), "{}", refusal.message);
    office.wait(Ttl::hours(25));
    office.done(next, Actor::User(office.manager));
}

#[test]
fn whoever_is_concerned_hears_of_each_step_and_whoever_did_it_does_not() {
    use crate::notice::of_entry;
    let mut office = Office::open();
    office.maria_is_in();
    let told = |office: &mut Office, command: Command, by: Actor| -> (String, std::collections::BTreeSet<UserId>) {
        let events = office.run(command, by).unwrap();
        let entry = |event: &Event| Entry { seq: office.ledger.seq(), at: office.ledger.clamp(office.now), by, event: event.clone() };
        let notices = events.iter().flat_map(|event| of_entry(&office.ledger, &entry(event))).find(|notice| notice.subject.contains("uat"));
        notices.map(|notice| (notice.subject, notice.to)).unwrap_or_default()
    };
    let (maria, manager, system) = (office.maria, office.manager, Actor::System);
    let movement = MovementId::new(office.id());
    let begin = Command::BeginMovement {
        movement,
        environment: office.uat,
        kind: MovementKind::External,
        why: "refresh".parse().unwrap(),
        notice: Some(Ttl::minutes(10)),
        swap_at: None,
        stay_closed: false,
    };
    let (subject, to) = told(&mut office, begin, Actor::User(manager));
    assert!(subject.contains("will be moved: access ends at") && to.contains(&maria) && !to.contains(&manager), "{subject}: {to:?}");
    office.wait(Ttl::minutes(10));
    let (subject, to) = told(&mut office, Command::Observed(Observed::Due { movement }), system);
    assert!(subject.contains("is being moved") && to.contains(&maria) && to.contains(&manager), "{subject}: {to:?}");
    let (subject, to) = told(&mut office, Command::FailMovement { movement, why: "the disk is full".parse().unwrap() }, Actor::User(manager));
    assert!(subject.contains("failed") && !to.contains(&maria) && !to.contains(&manager), "{subject}: {to:?}");
    let (subject, to) = told(&mut office, Command::FinishMovement { movement }, Actor::User(manager));
    assert!(subject.contains("is finished") && to.contains(&maria), "who lost their access may ask again: {subject}: {to:?}");
}

#[test]
fn an_environment_whose_database_is_being_moved_stays_where_it_is() {
    let mut office = Office::open();
    let movement = office.moves(import(), None);
    let remove = Command::RemoveEnvironment { environment: office.uat };
    assert!(office.refused(remove.clone(), office.admin).remedy.contains("daypass move uat cancel"));
    office.done(Command::CancelMovement { movement, why: "another week".parse().unwrap() }, Actor::User(office.manager));
    let movement = office.moves(MovementKind::External, None);
    office.done(Command::FailMovement { movement, why: "the disk is full".parse().unwrap() }, Actor::User(office.manager));
    assert!(office.refused(remove.clone(), office.admin).remedy.contains("daypass move uat finish"), "a failed one keeps it closed as well");
    office.done(Command::FinishMovement { movement }, Actor::User(office.manager));
    office.by_admin(remove);
}

#[test]
fn what_others_put_in_place_is_swept_as_often_as_somebody_says_it_is_finished() {
    let mut office = Office::open();
    let movement = office.moves(MovementKind::External, None);
    for what in ["day account jit_ben", "script mask.sql"] {
        let swept = vec![crate::movement::Swept { what: what.to_owned(), done: "done".to_owned() }];
        office.seen(Observed::Swept { movement, swept });
    }
    assert_eq!(office.ledger.movement(movement).unwrap().swept.len(), 2, "the report has both");
    assert!(office.seen(Observed::Swept { movement, swept: Vec::new() }).is_empty(), "nothing is nothing to report");
}

#[test]
fn a_database_of_sql_server_is_not_restored_to_a_moment_by_us() {
    let mut office = Office::open();
    let project = office.ledger.environment(office.uat).unwrap().project;
    let environment = office.environment_on(Engine::SqlServer, Enforce::Gateway, "erp", project);
    let movement = MovementId::new(office.id());
    let kind = MovementKind::Restore { to: Time::ZERO };
    let begin = Command::BeginMovement { movement, environment, kind, why: "back".parse().unwrap(), notice: None, swap_at: None, stay_closed: false };
    assert!(office.refused(begin, office.manager).message.contains("daypass move erp external begin"));
}
