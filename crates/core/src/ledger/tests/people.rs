//! People and their roles: what is lost with a role, whose word counts, who comes from a provider.

use super::*;

#[test]
fn losing_the_role_ends_the_pass_that_it_allowed() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    let maria = office.maria;
    office.by_admin(Command::GiveRole { user: maria, role: Role::Requester, scope: Scope::Environment(office.uat) });
    office.by_admin(Command::TakeRole { user: maria, role: Role::Requester, scope: Scope::All });
    assert_eq!(office.over(pass), None, "another role still allows it");
    office.by_admin(Command::TakeRole { user: maria, role: Role::Requester, scope: Scope::Environment(office.uat) });
    assert!(matches!(office.over(pass), Some(Cause::Revoked { .. })));
}

#[test]
fn nobody_gets_in_by_a_request_from_before_they_lost_the_role() {
    let mut office = Office::open();
    office.policy(Policy { approval: [(Access::Read, Approvals::One)].into(), ..Policy::default() });
    let (maria, amy, uat) = (office.maria, office.approver, office.uat);
    let pass = PassId::new(office.id());
    let wish = Wish::new(Access::Read, "a look".parse().unwrap());
    office.done(Command::RequestPass { pass, environment: uat, wish, life: Some(Ttl::hours(1)), salt: 1 }, Actor::User(maria));
    office.by_admin(Command::TakeRole { user: maria, role: Role::Requester, scope: Scope::All });
    assert!(office.refused(office.approval(pass), amy).message.contains("lapsed"));
    let events = office.run(Command::Observed(Observed::Lapse { pass }), Actor::System).unwrap();
    assert_eq!(events, [Event::PassLapsed { pass }], "it does not wait for the role to come back");
}

#[test]
fn the_word_of_an_approver_who_is_none_any_more_does_not_count() {
    let mut office = Office::open();
    office.policy(Policy { approval: [(Access::Read, Approvals::Two)].into(), ..Policy::default() });
    let (maria, amy, uat) = (office.maria, office.approver, office.uat);
    let (bob, cid) = (office.hires("bob", Role::Approver), office.hires("cid", Role::Approver));
    let pass = PassId::new(office.id());
    let wish = Wish::new(Access::Read, "a look".parse().unwrap());
    office.done(Command::RequestPass { pass, environment: uat, wish, life: Some(Ttl::hours(1)), salt: 1 }, Actor::User(maria));
    office.done(office.approval(pass), Actor::User(amy));
    office.by_admin(Command::LockUser { user: amy, why: "her token was stolen".parse().unwrap() });
    office.done(office.approval(pass), Actor::User(bob));
    assert_eq!(*office.ledger.pass(pass).unwrap().state(), State::Requested, "bob's is the only word that counts");
    // and it counts again when they are one again: nothing waits for a third
    office.by_admin(Command::UnlockUser { user: amy });
    office.done(office.approval(pass), Actor::User(bob));
    assert!(matches!(office.ledger.pass(pass).unwrap().state(), State::Approved { .. }));
    assert!(office.refused(office.approval(pass), cid).message.contains("no longer waiting"));
}

#[test]
fn the_last_administrator_by_name_stays_one() {
    let mut office = Office::open();
    let admin = office.admin;
    let takes = |user| Command::TakeRole { user, role: Role::Admin, scope: Scope::All };
    assert_eq!(office.refused(takes(admin), admin).code, Code::State);
    let other = office.hires("olga", Role::Admin);
    office.by_admin(takes(admin));
    assert_eq!(office.refused(takes(other), other).code, Code::State);
}

#[test]
fn an_administrator_of_a_project_sets_its_policies_and_no_others() {
    let mut office = Office::open();
    let project = office.ledger.environment(office.uat).unwrap().project;
    let paul = UserId::new(office.id());
    office.by_admin(Command::AddUser { user: paul, name: "paul".parse().unwrap(), roles: vec![(Role::Admin, Scope::Project(project))] });
    let set = |scope| Command::SetPolicy { scope, policy: Policy::default() };
    office.done(set(Scope::Project(project)), Actor::User(paul));
    office.done(set(Scope::Environment(office.uat)), Actor::User(paul));
    assert_eq!(office.refused(set(Scope::All), paul).code, Code::NotPermitted);
    let other = ProjectId::new(office.id());
    assert_eq!(office.refused(set(Scope::Project(other)), paul).code, Code::NotPermitted);
}

#[test]
fn a_token_of_somebody_from_a_provider_lives_no_longer_than_their_groups_are_known() {
    let mut office = Office::open();
    let nina = UserId::new(Uuid::from_u128(9 << 90));
    let comes = Command::SignInFrom {
        user: nina,
        name: "nina".parse().unwrap(),
        issuer: "https://id.example.com".to_owned(),
        subject: "s-1".to_owned(),
        roles: vec![(Role::Requester, Scope::All)],
    };
    office.run(comes, Actor::System).unwrap();
    let token = |user, life| Command::AddToken {
        token: TokenId::new(Uuid::from_u128(3 << 90)),
        user,
        label: "a script".to_owned(),
        hash: TokenHash::of("x"),
        life,
        kind: TokenKind::Api,
        proved: false,
    };
    assert_eq!(office.refused(token(nina, Ttl::hours(13)), nina).code, Code::Policy);
    assert_eq!(office.run(token(nina, Ttl::hours(12)), Actor::User(nina)).unwrap().len(), 1);
    // what a group gives is taken in the group
    let group = Command::TakeRole { user: nina, role: Role::Requester, scope: Scope::All };
    assert_eq!(office.refused(group, office.admin).code, Code::State);
    assert_eq!(office.run(token(office.maria, Ttl::hours(300)), Actor::User(office.maria)).unwrap().len(), 1, "people of the house are not asked about");
}

#[test]
fn who_comes_from_a_provider_has_the_roles_of_their_groups_and_loses_them_with_these() {
    let mut office = Office::open();
    let uat = Scope::Environment(office.uat);
    let comes = |user: u128, name: &str, subject: &str, roles: Vec<(Role, Scope)>| Command::SignInFrom {
        user: UserId::new(Uuid::from_u128(user)),
        name: name.parse().unwrap(),
        issuer: "https://login.example.com".to_owned(),
        subject: subject.to_owned(),
        roles,
    };
    let from_outside = |office: &mut Office, command| office.run(command, Actor::System);
    let nobody = from_outside(&mut office, comes(9 << 90, "nina", "s-1", vec![])).unwrap_err();
    assert!(nobody.code == Code::NotPermitted && nobody.message.contains("groups"), "{nobody}");
    let taken = from_outside(&mut office, comes(9 << 90, "maria", "s-1", vec![(Role::Admin, Scope::All)])).unwrap_err();
    assert_eq!(taken.code, Code::Taken, "a provider that names somebody maria does not become our maria");
    from_outside(&mut office, comes(9 << 90, "nina", "s-1", vec![(Role::Requester, uat)])).unwrap();
    let nina = UserId::new(Uuid::from_u128(9 << 90));
    // the next time under another id and name: still the same person
    assert_eq!(from_outside(&mut office, comes(8 << 90, "nina2", "s-1", vec![(Role::Requester, uat)])).unwrap(), []);
    let pass = office.ready(nina);
    assert!(office.gets_in(pass, HOME).is_ok());
    from_outside(&mut office, comes(8 << 90, "nina", "s-1", vec![(Role::Auditor, Scope::All)])).unwrap();
    assert!(matches!(office.over(pass), Some(Cause::Revoked { .. })), "the group that allowed it is gone");
    office.by_admin(Command::LockUser { user: nina, why: "left".parse().unwrap() });
    assert_eq!(from_outside(&mut office, comes(8 << 90, "nina", "s-1", vec![(Role::Requester, uat)])).unwrap_err().code, Code::NotPermitted);
    let by_themselves = comes(7 << 90, "otto", "s-2", vec![(Role::Admin, Scope::All)]);
    assert_eq!(office.refused(by_themselves, office.maria).code, Code::NotPermitted, "only Daypass itself says so");
}
