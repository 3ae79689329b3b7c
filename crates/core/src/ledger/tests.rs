//! The life of access as stories, without a clock, a database or a socket.

mod managed;
mod moves;
mod people;

use super::*;
use crate::{
    admission::{Attempt, Refused, admit},
    chain,
    command::*,
    event::{Actor, Entry, Event},
    movement::MovementKind,
    net::Range,
    pass::{Access, Approver, Review, Wish},
    plan::{Action, Backend, Observation, ObservedAccount, ended, plan},
    policy::{Approvals, Reveal},
    refusal::{Code, Refusal},
    time::Ttl,
};
use std::net::IpAddr;
use uuid::Uuid;

const START: Time = Time::from_micros(1_800_000_000_000_000);
const HOME: &str = "203.0.113.7";

/// An office with an administrator, a manager, an approver, and the requesters Maria and Ben; the environment `uat`.
struct Office {
    ledger: Ledger,
    now: Time,
    lines: Vec<String>,
    head: chain::Head,
    ids: u128,
    admin: UserId,
    manager: UserId,
    approver: UserId,
    maria: UserId,
    ben: UserId,
    uat: EnvironmentId,
}

impl Office {
    fn open() -> Office {
        let nobody = UserId::new(Uuid::nil());
        let mut office = Office {
            ledger: Ledger::default(),
            now: START,
            lines: vec![],
            head: chain::Head::EMPTY,
            ids: 0,
            admin: nobody,
            manager: nobody,
            approver: nobody,
            maria: nobody,
            ben: nobody,
            uat: EnvironmentId::new(Uuid::nil()),
        };
        let mut add = |name: &str, role: Role| {
            let user = UserId::new(office.id());
            office.done(Command::AddUser { user, name: name.parse().unwrap(), roles: vec![(role, Scope::All)] }, Actor::System);
            user
        };
        let people = [("ada", Role::Admin), ("sam", Role::Manager), ("amy", Role::Approver), ("maria", Role::Requester), ("ben", Role::Requester)];
        [office.admin, office.manager, office.approver, office.maria, office.ben] = people.map(|(name, role)| add(name, role));
        let project = ProjectId::new(office.id());
        office.by_admin(Command::AddProject { project, name: "main".parse().unwrap() });
        office.uat = office.environment("uat", project);
        office
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn environment(&mut self, name: &str, project: ProjectId) -> EnvironmentId {
        self.environment_on(Engine::Postgres, Enforce::Gateway, name, project)
    }

    fn environment_on(&mut self, engine: Engine, enforce: Enforce, name: &str, project: ProjectId) -> EnvironmentId {
        let (environment, target) = (EnvironmentId::new(self.id()), TargetId::new(self.id()));
        let tls = TargetTls::VerifyFull { ca: None };
        let target_spec = TargetSpec { engine, host: "db.example.com".parse().unwrap(), port: 5432, admin: "daypass_admin".into(), tls };
        let spec = EnvironmentSpec {
            name: name.parse().unwrap(),
            kind: Kind::SelfService,
            database: name.parse().unwrap(),
            grants: Grants::Granted,
            heir: None,
            enforce,
        };
        self.by_admin(Command::AddEnvironment { environment, project, target, target_spec, spec });
        environment
    }

    fn run(&mut self, command: Command, by: Actor) -> Result<Vec<Event>, Refusal> {
        let events = self.ledger.decide(&command, by, self.now)?;
        for event in &events {
            let entry = Entry { seq: self.ledger.seq() + 1, at: self.ledger.clamp(self.now), by, event: event.clone() };
            let (line, hash) = chain::seal(&entry, &self.head.hash);
            self.head = chain::Head { seq: entry.seq, hash };
            self.lines.push(line);
            self.ledger.apply(&entry).unwrap();
        }
        Ok(events)
    }

    fn done(&mut self, command: Command, by: Actor) {
        self.run(command, by).unwrap();
    }

    fn by_admin(&mut self, command: Command) {
        self.done(command, Actor::User(self.admin));
    }

    fn refused(&mut self, command: Command, by: UserId) -> Refusal {
        let before = self.ledger.seq();
        let refusal = self.run(command, Actor::User(by)).unwrap_err();
        assert_eq!(self.ledger.seq(), before, "a refusal changed something");
        assert!(!refusal.remedy.is_empty());
        refusal
    }

    fn wait(&mut self, ttl: Ttl) {
        self.now = self.now.after(ttl);
    }

    fn asks(&mut self, who: UserId, access: Access) -> PassId {
        let pass = PassId::new(self.id());
        let salt = u64::from(self.ids as u32) << 3;
        let reason = "OPS-17 totals look wrong".parse().unwrap();
        self.done(Command::RequestPass { pass, environment: self.uat, wish: Wish::new(access, reason), life: None, salt }, Actor::User(who));
        pass
    }

    /// What an approver says who has just looked at the request.
    fn approval(&self, pass: PassId) -> Command {
        Command::ApprovePass { pass, digest: self.ledger.pass(pass).unwrap().digest(), word: None }
    }

    fn state(&self, pass: PassId) -> &'static str {
        self.ledger.pass(pass).unwrap().state().word()
    }

    fn policy(&mut self, policy: Policy) {
        let scope = Scope::Environment(self.uat);
        self.by_admin(Command::SetPolicy { scope, policy });
    }

    /// One more person with a role everywhere.
    fn hires(&mut self, name: &str, role: Role) -> UserId {
        let user = UserId::new(self.id());
        self.by_admin(Command::AddUser { user, name: name.parse().unwrap(), roles: vec![(role, Scope::All)] });
        user
    }

    fn is_made(&mut self, pass: PassId) {
        self.done(Command::Observed(Observed::LoginWorks { pass }), Actor::System);
    }

    fn allows(&mut self, who: UserId, addresses: &str) -> AllowId {
        let entry = AllowId::new(self.id());
        let ranges = Range::list(addresses).unwrap();
        self.done(Command::AddAllow { entry, environment: self.uat, owner: AllowFor::Myself, ranges, note: None, life: None }, Actor::User(who));
        entry
    }

    fn ready(&mut self, who: UserId) -> PassId {
        let pass = self.asks(who, Access::Read);
        self.is_made(pass);
        self.allows(who, HOME);
        pass
    }

    fn gets_in(&self, pass: PassId, address: &str) -> Result<Time, Refused> {
        let account = self.ledger.pass(pass).unwrap().account.to_string();
        let address: IpAddr = address.parse().unwrap();
        admit(&self.ledger, &Attempt { account: &account, database: Some("uat"), servers: &[], engine: Engine::Postgres, address, open_sessions: 0 }, self.now)
            .map(|admit| admit.until.until)
    }

    fn over(&self, pass: PassId) -> Option<Cause> {
        self.ledger.over(self.ledger.pass(pass).unwrap(), self.now)
    }
}

#[test]
fn what_is_extended_goes_on_from_where_its_holder_is() {
    let mut office = Office::open();
    office.wait(Ttl::hours(1));
    let pass = office.ready(office.maria);
    office.wait(Ttl::hours(7));
    let other = office.allows(office.ben, "203.0.113.77");
    office.done(Command::ExtendPass { pass, by: Ttl::hours(4) }, Actor::User(office.maria));
    office.wait(Ttl::hours(4));
    assert!(office.gets_in(pass, HOME).is_ok(), "the address lasts as long as what it was entered for");
    assert_eq!(office.ledger.allow().iter().filter(|entry| entry.id != other).count(), 1);
    // which of the two ends first is what its session is told
    let told = |office: &Office, pass| {
        let pass = office.ledger.pass(pass).unwrap();
        crate::admission::standing(&office.ledger, pass, HOME.parse().unwrap(), office.now).unwrap().then
    };
    assert_eq!(told(&office, pass), crate::admission::Fallen::Over(Cause::Expired));
    // an entry that ends before is told as what it is
    let first = office.ledger.allow().iter().find(|entry| entry.id != other).unwrap().id;
    office.done(Command::RemoveAllow { entry: first }, Actor::User(office.maria));
    let (entry, ranges) = (AllowId::new(office.id()), Range::list(HOME).unwrap());
    let short = Command::AddAllow { entry, environment: office.uat, owner: AllowFor::Myself, ranges, note: None, life: Some(Ttl::minutes(2)) };
    office.done(short, Actor::User(office.maria));
    assert_eq!(told(&office, pass), crate::admission::Fallen::AddressNotAllowed);
}

#[test]
fn an_address_that_is_entered_again_is_the_same_entry_and_lasts_longer() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    for _ in 0..100 {
        office.wait(Ttl::minutes(1));
        office.allows(office.maria, HOME);
    }
    assert_eq!(office.ledger.allow().iter().count(), 1);
    let ends = office.ledger.allow().iter().next().unwrap().ends_at;
    assert_eq!(ends, office.now.after(Ttl::hours(8)));
    // a shorter life shortens nothing
    let ranges = Range::list(HOME).unwrap();
    let entry = AllowId::new(office.id());
    let shorter = Command::AddAllow { entry, environment: office.uat, owner: AllowFor::Myself, ranges, note: None, life: Some(Ttl::minutes(5)) };
    assert!(office.run(shorter, Actor::User(office.maria)).unwrap().is_empty());
    assert_eq!(office.ledger.allow().iter().next().unwrap().ends_at, ends);
    // another range, another owner are others
    office.allows(office.maria, "203.0.113.8");
    office.allows(office.ben, HOME);
    assert_eq!(office.ledger.allow().iter().count(), 3);
    assert!(office.gets_in(pass, HOME).is_ok());
}

#[test]
fn neither_the_account_nor_the_address_alone_is_enough() {
    let mut office = Office::open();
    let pass = office.asks(office.maria, Access::Read);
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::NotReady { .. })), "nobody gets in before the account works");
    office.is_made(pass);
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::AddressNotAllowed { .. })));
    office.allows(office.ben, HOME);
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::AddressNotAllowed { .. })), "another person's address is not hers");
    office.allows(office.maria, HOME);
    assert!(office.gets_in(pass, HOME).is_ok());
    assert!(matches!(office.gets_in(pass, "203.0.113.8"), Err(Refused::AddressNotAllowed { .. })));
}

#[test]
fn the_door_of_another_engine_or_another_environment_stays_shut() {
    let mut office = Office::open();
    let project = office.ledger.projects().next().unwrap().0;
    office.environment_on(Engine::SqlServer, Enforce::Gateway, "erp", project);
    let pass = office.ready(office.maria);
    let account = office.ledger.pass(pass).unwrap().account.to_string();
    let knock = |engine, servers: &[String], database| {
        let attempt = Attempt { account: &account, database, servers, engine, address: HOME.parse().unwrap(), open_sessions: 0 };
        admit(&office.ledger, &attempt, office.now).map(|admit| admit.until)
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert!(matches!(knock(Engine::SqlServer, &[], None), Err(Refused::WrongEngine { engine: Engine::Postgres })));
    assert!(matches!(knock(Engine::Postgres, &names(&["uat", "erp"]), None), Err(Refused::WrongServer { .. })), "two names that disagree");
    assert!(knock(Engine::Postgres, &names(&["uat", "localhost", "not a name"]), None).is_ok());
    assert!(matches!(knock(Engine::Postgres, &[], Some("UAT")), Err(Refused::WrongDatabase { .. })), "PostgreSQL's names have a case");
}

/// The environment is one whose target keeps people out by its own firewall.
fn azure() -> Office {
    let mut office = Office::open();
    let project = office.ledger.projects().next().unwrap().0;
    office.uat = office.environment_on(Engine::SqlServer, Enforce::AzureSqlFirewall, "cloud", project);
    office
}

#[test]
fn azures_rules_follow_the_entries_and_rules_of_others_stay() {
    use crate::firewall::{self, Rule, RuleAction};
    let mut office = azure();
    let foreign = Rule { name: "office".to_owned(), from: "198.51.100.1".to_owned(), to: "198.51.100.9".to_owned() };
    let plan = |office: &Office, observed: &[Rule]| firewall::plan(&office.ledger, office.ledger.environment(office.uat).unwrap(), observed, office.now);
    for (cannot, why) in [("2001:db8::7", "IPv6"), ("203.0.113.7;10.1.2.3", "private network")] {
        let (entry, ranges) = (AllowId::new(office.id()), Range::list(cannot).unwrap());
        let command = Command::AddAllow { entry, environment: office.uat, owner: AllowFor::Myself, ranges, note: None, life: None };
        assert!(office.refused(command, office.maria).message.contains(why), "{cannot}");
    }
    office.allows(office.maria, "203.0.113.7;203.0.113.16/28");
    assert_eq!(plan(&office, std::slice::from_ref(&foreign)), [], "an address alone opens nothing");
    let pass = office.asks(office.maria, Access::Read);
    let set = plan(&office, std::slice::from_ref(&foreign));
    let rules: Vec<Rule> = set.into_iter().map(|action| if let RuleAction::Set(rule) = action { rule } else { panic!("nothing is to go") }).collect();
    let bounds: Vec<_> = rules.iter().map(|rule| (rule.from.as_str(), rule.to.as_str())).collect();
    assert_eq!(bounds, [("203.0.113.7", "203.0.113.7"), ("203.0.113.16", "203.0.113.31")], "Azure's rules are IPv4");
    let all: Vec<Rule> = rules.iter().cloned().chain([foreign.clone()]).collect();
    assert_eq!(plan(&office, &all), [], "it is as it should be");
    assert_eq!(firewall::drift(&all), [foreign]);
    office.is_made(pass);
    office.wait(Ttl::hours(8));
    assert_eq!(plan(&office, &all), rules.into_iter().map(RuleAction::Remove).collect::<Vec<_>>(), "what ended goes, what is not ours stays");
}

#[test]
fn azures_own_server_name_is_explained_where_no_gateway_lies_between() {
    use crate::explain::{Reader, explain};
    let office = azure();
    let text = "Cannot open server 'db' requested by the login. Client with IP address '203.0.113.7' is not allowed to access the server.";
    let found = explain(text, Some(Reader { ledger: &office.ledger, user: office.maria }), office.now);
    assert!(found.cause.contains("not allowed on cloud") && found.remedy.contains("daypass connect cloud"), "{found:?}");
}

#[test]
fn a_request_under_a_used_number_is_the_same_request_or_none() {
    let mut office = Office::open();
    let project = office.ledger.projects().next().unwrap().0;
    let other = office.environment_on(Engine::SqlServer, Enforce::Gateway, "erp", project);
    let pass = office.asks(office.maria, Access::Read);
    let maria = office.maria;
    let wish = office.ledger.pass(pass).unwrap().wish.clone();
    let again = |environment, access| Command::RequestPass { pass, environment, wish: Wish { access, ..wish.clone() }, life: None, salt: 1 };
    let other_reason = Wish { reason: "something else".parse().unwrap(), ..wish.clone() };
    let other_reason = Command::RequestPass { pass, environment: office.uat, wish: other_reason, life: None, salt: 1 };
    assert_eq!(office.refused(other_reason, maria).code, Code::Taken, "nobody is to think that it stands on record");
    let longer = Command::RequestPass { pass, environment: office.uat, wish: wish.clone(), life: Some(Ttl::minutes(1)), salt: 1 };
    assert_eq!(office.refused(longer, maria).code, Code::Taken);
    assert!(office.run(again(office.uat, Access::Read), Actor::User(maria)).unwrap().is_empty());
    assert_eq!(office.refused(again(other, Access::Read), maria).code, Code::Taken);
    assert_eq!(office.refused(again(office.uat, Access::ReadWrite), maria).code, Code::Taken);
    let entry = office.allows(maria, HOME);
    let wider =
        Command::AddAllow { entry, environment: office.uat, owner: AllowFor::Myself, ranges: Range::list("203.0.113.8").unwrap(), note: None, life: None };
    assert_eq!(office.refused(wider, maria).code, Code::Taken);
    let many = (1..=32).map(|n| format!("198.51.100.{n}")).collect::<Vec<_>>().join(";");
    office.allows(maria, &many);
    let entry = AllowId::new(office.id());
    let others = many.replace("198.51.100", "192.0.2");
    let more = Command::AddAllow { entry, environment: office.uat, owner: AllowFor::Myself, ranges: Range::list(&others).unwrap(), note: None, life: None };
    assert_eq!(office.refused(more, maria).code, Code::Policy, "64 ranges are enough for one person");
}

#[test]
fn azures_rules_go_when_the_database_is_moved() {
    use crate::firewall::{self, RuleAction};
    let mut office = azure();
    office.ready(office.maria);
    let plan =
        |office: &Office, observed: &[firewall::Rule]| firewall::plan(&office.ledger, office.ledger.environment(office.uat).unwrap(), observed, office.now);
    let Some(RuleAction::Set(rule)) = plan(&office, &[]).pop() else { panic!("her address opens") };
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
    assert_eq!(plan(&office, std::slice::from_ref(&rule)), [RuleAction::Remove(rule.clone())]);
    office.done(Command::FinishMovement { movement }, Actor::User(office.manager));
    assert_eq!(plan(&office, std::slice::from_ref(&rule)), [RuleAction::Remove(rule)], "the entry ended with the old database");
}

#[test]
fn an_error_text_is_explained_by_what_became_of_the_access() {
    use crate::explain::{Reader, explain};
    let mut office = Office::open();
    let blocked = |address: &str| {
        format!("[SQL Server]Cannot open server 'uat' requested by the login. Client with IP address '{address}' is not allowed to access the server.")
    };
    let say = |office: &Office, user: UserId, text: &str| {
        let found = explain(text, Some(Reader { ledger: &office.ledger, user }), office.now);
        format!("{} | {}", found.cause, found.remedy)
    };
    let maria = office.maria;
    let said = say(&office, maria, &blocked(HOME));
    assert!(said.contains("never entered") && said.contains("no live account") && said.contains("daypass connect uat"), "{said}");
    let pass = office.asks(maria, Access::Read);
    office.is_made(pass);
    let said = say(&office, maria, &blocked(HOME));
    assert!(said.contains("never entered") && said.ends_with("daypass allow uat 203.0.113.7"), "{said}");
    let entry = office.allows(maria, HOME);
    assert!(say(&office, maria, &blocked(HOME)).contains("allowed on uat by now"));
    office.done(Command::RemoveAllow { entry }, Actor::User(maria));
    assert!(say(&office, maria, &blocked(HOME)).contains("its entry was removed"));
    let account = office.ledger.pass(pass).unwrap().account.to_string();
    let wrong = format!("Login failed for user '{account}'. Cannot open database \"master\" requested by the login.");
    assert!(say(&office, maria, &wrong).contains("Connect to the database uat"));
    // drivers put the same words before all that the gateway says
    for (said, part) in [
        ("Cannot open server \"golden\" requested by the login. The login failed.", "The server name in the tool"),
        ("Too many connections for this account: uat allows 5 at once.", "as many connections"),
        ("This account is one of PostgreSQL.", "another engine"),
        ("Policy 'default' of uat asks for an approval that this account does not have.", "approval"),
        ("The target does not have MARS (several sessions in one connection), which this connection asks for.", "MARS"),
    ] {
        let text = format!("Login failed for user '{account}'. {said}");
        assert!(say(&office, maria, &text).contains(part), "{text}: {}", say(&office, maria, &text));
    }
    office.allows(maria, HOME);
    let before = format!("no access for host \"{HOME}\", user \"{account}\", database \"uat\": the address is not on the allow-list");
    assert!(say(&office, maria, &before).contains("allowed by now"));
    office.wait(Ttl::hours(8));
    let said = say(&office, maria, &format!("Login failed for user '{account}'."));
    assert!(said.contains("expired") && said.contains("daypass request uat"), "{said}");
    assert!(say(&office, maria, &blocked(HOME)).contains("its entry ended at"));
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
    let said = say(&office, maria, "Database 'uat' on server 'uat' is not currently available. Please retry the connection later.");
    assert!(said.contains("being moved"), "{said}");
    office.done(Command::FinishMovement { movement }, Actor::User(office.manager));
    assert!(say(&office, maria, &blocked(HOME)).contains("ended when the database was moved"));
    let nobody = UserId::new(Uuid::from_u128(999));
    let said = say(&office, nobody, &format!("Login failed for user '{account}'."));
    assert!(!said.contains("uat"), "what one may not see is not told: {said}");
}

#[test]
fn access_ends_after_eight_hours_to_the_microsecond_and_a_clock_set_back_revives_nothing() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    office.now = Time::from_micros(START.after(Ttl::hours(8)).micros() - 1);
    assert!(office.gets_in(pass, HOME).is_ok());
    office.now = START.after(Ttl::hours(8));
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::Over { cause: Cause::Expired, .. })));
    office.done(Command::Observed(Observed::Gone { pass }), Actor::System);
    office.now = START;
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::Over { .. })));
}

#[test]
fn a_movement_ends_every_pass_and_address_of_the_environment_with_one_event() {
    let mut office = Office::open();
    let (hers, his) = (office.ready(office.maria), office.ready(office.ben));
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
    assert_eq!(office.refused(begin.clone(), office.maria).code, Code::NotPermitted);
    assert_eq!(office.run(begin.clone(), Actor::User(office.manager)).unwrap().len(), 1);
    for pass in [hers, his] {
        assert!(matches!(office.over(pass), Some(Cause::Moved { .. })));
    }
    assert!(office.run(begin, Actor::User(office.manager)).unwrap().is_empty(), "said twice, done once");
    let (maria, uat) = (office.maria, office.uat);
    let ask = |pass| Command::RequestPass { pass, environment: uat, wish: Wish::new(Access::Read, "a look".parse().unwrap()), life: None, salt: 9 };
    let pass = PassId::new(office.id());
    assert_eq!(office.refused(ask(pass), maria).code, Code::State, "nobody asks while it is closed");
    office.done(Command::FinishMovement { movement }, Actor::User(office.manager));
    assert!(office.gets_in(hers, HOME).is_err(), "what ended stays ended");
    let fresh = office.asks(maria, Access::Read);
    office.is_made(fresh);
    assert!(matches!(office.gets_in(fresh, HOME), Err(Refused::AddressNotAllowed { .. })), "the address ended with the old database");
}

#[test]
fn a_database_replaced_behind_our_back_ends_everything_as_well() {
    let mut office = Office::open();
    let see = |office: &mut Office, identity: &str| {
        let seen = Observed::Identity { environment: office.uat, identity: Identity(identity.to_owned()) };
        office.run(Command::Observed(seen), Actor::System).unwrap().len()
    };
    assert_eq!(see(&mut office, "postgres:1:16384"), 1);
    let pass = office.ready(office.maria);
    assert_eq!(see(&mut office, "postgres:1:16384"), 0);
    assert!(office.gets_in(pass, HOME).is_ok());
    assert_eq!(see(&mut office, "postgres:1:20000"), 1);
    assert_eq!(office.over(pass), Some(Cause::Replaced));
}

#[test]
fn a_locked_person_is_out_and_unlocking_revives_nothing() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    let (admin, maria) = (office.admin, office.maria);
    office.by_admin(Command::LockUser { user: maria, why: "lost laptop".parse().unwrap() });
    assert_eq!(office.over(pass), Some(Cause::HolderLocked));
    office.by_admin(Command::UnlockUser { user: maria });
    assert_eq!(office.over(pass), Some(Cause::HolderLocked));
    assert_eq!(office.refused(Command::LockUser { user: admin, why: "oops".parse().unwrap() }, admin).code, Code::State);
}

#[test]
fn nobody_approves_their_own_request() {
    let mut office = Office::open();
    let policy = Policy { approval: [(Access::ReadWrite, Approvals::One)].into(), ..Policy::default() };
    let scope = Scope::Environment(office.uat);
    office.by_admin(Command::SetPolicy { scope, policy });
    let (amy, maria) = (office.approver, office.maria);
    office.by_admin(Command::GiveRole { user: amy, role: Role::Requester, scope: Scope::All });
    let own = office.asks(amy, Access::ReadWrite);
    let approval = office.approval(own);
    assert_eq!(office.refused(approval, amy).code, Code::NotPermitted);
    let hers = office.asks(maria, Access::ReadWrite);
    let approval = office.approval(hers);
    office.done(approval, Actor::User(amy));
    office.is_made(hers);
    assert!(matches!(office.ledger.pass(hers).unwrap().state(), State::Ready { .. }));
    assert_eq!(office.run(Command::Observed(Observed::LoginWorks { pass: own }), Actor::System).unwrap().len(), 0, "without an approval nothing becomes ready");
    office.wait(Ttl::hours(24));
    assert_eq!(office.run(Command::Observed(Observed::Lapse { pass: own }), Actor::System).unwrap().len(), 1);
    assert_eq!(*office.ledger.pass(own).unwrap().state(), State::Lapsed);
}

#[test]
fn a_request_whose_account_cannot_be_made_ends_and_says_why() {
    let mut office = Office::open();
    let pass = office.asks(office.maria, Access::Read);
    let not_made = |why: &str| Command::Observed(Observed::NotMade { pass, why: why.to_owned() });
    office.wait(Ttl::minutes(9));
    assert_eq!(office.run(not_made("the server is away"), Actor::System).unwrap().len(), 0, "there is time yet");
    office.wait(Ttl::minutes(1));
    assert_eq!(office.refused(not_made("because I say so"), office.admin).code, Code::NotPermitted);
    assert_eq!(office.run(not_made("28000: no pg_hba.conf entry"), Actor::System).unwrap().len(), 1);
    assert_eq!(office.over(pass).unwrap().in_full(), "ended because the account could not be made: 28000: no pg_hba.conf entry");
    assert_eq!(office.run(Command::Observed(Observed::LoginWorks { pass }), Actor::System).unwrap().len(), 0, "what is over does not become ready");
    // one that is to start later has its time from then on, and one that is ready is not meant
    let ready = office.ready(office.ben);
    office.wait(Ttl::minutes(11));
    assert_eq!(office.run(Command::Observed(Observed::NotMade { pass: ready, why: String::new() }), Actor::System).unwrap().len(), 0);
}

#[test]
fn a_pass_is_extended_within_its_total_and_never_after_its_end() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    let maria = office.maria;
    office.done(Command::ExtendPass { pass, by: Ttl::hours(16) }, Actor::User(maria));
    assert_eq!(office.refused(Command::ExtendPass { pass, by: Ttl::minutes(1) }, maria).code, Code::Policy);
    assert_eq!(office.refused(Command::ExtendPass { pass, by: Ttl::minutes(1) }, office.ben).code, Code::NotFound, "another's pass is not there");
    office.wait(Ttl::hours(24));
    assert_eq!(office.refused(Command::ExtendPass { pass, by: Ttl::minutes(1) }, maria).code, Code::State);
}

#[test]
fn a_manager_revokes_with_a_reason_and_the_holder_gives_back_without() {
    let mut office = Office::open();
    let (hers, his) = (office.ready(office.maria), office.ready(office.ben));
    let manager = office.manager;
    assert_eq!(office.refused(Command::EndPass { pass: hers, why: None }, manager).code, Code::Invalid);
    assert_eq!(office.refused(Command::EndPass { pass: hers, why: None }, office.ben).code, Code::NotFound);
    office.done(Command::EndPass { pass: hers, why: Some("wrong ticket".parse().unwrap()) }, Actor::User(manager));
    assert!(matches!(office.over(hers), Some(Cause::Revoked { .. })));
    office.done(Command::EndPass { pass: his, why: None }, Actor::User(office.ben));
    assert_eq!(office.over(his), Some(Cause::Returned));
    assert!(office.run(Command::EndPass { pass: his, why: None }, Actor::User(office.ben)).unwrap().is_empty());
}

#[test]
fn too_much_is_refused_with_the_rule_named() {
    let mut office = Office::open();
    let (maria, uat) = (office.maria, office.uat);
    let range = |text: &str| Command::AddAllow {
        entry: AllowId::new(Uuid::from_u128(1 << 90)),
        environment: uat,
        owner: AllowFor::Myself,
        ranges: Range::list(text).unwrap(),
        note: None,
        life: None,
    };
    let wide = office.refused(range("10.0.0.0/16"), maria);
    assert!(wide.code == Code::Policy && wide.message.contains("/24"), "{wide}");
    for never in ["0.0.0.0/0", "::/0", "224.0.0.1", "0.0.0.0"] {
        assert!(Range::list(never).is_err(), "{never}");
    }
    let ask = |reason: &str, life| Command::RequestPass {
        pass: PassId::new(Uuid::from_u128(1 << 91)),
        environment: uat,
        wish: Wish::new(Access::Read, reason.parse().unwrap()),
        life,
        salt: 3,
    };
    assert!(office.refused(ask("x", None), maria).message.contains("at least 3 characters"));
    assert!(office.refused(ask("a long look", Some(Ttl::hours(9))), maria).message.contains("at most 8 h"));
    for _ in 0..5 {
        office.asks(maria, Access::Read);
    }
    assert!(office.refused(ask("one more", None), maria).message.contains("allows 5"));
    assert_eq!(office.refused(ask("a look", None), office.approver).code, Code::NotPermitted, "who may see it may not ask by that alone");
}

#[test]
fn the_same_request_said_twice_makes_one_pass() {
    let mut office = Office::open();
    let pass = PassId::new(office.id());
    let ask = Command::RequestPass { pass, environment: office.uat, wish: Wish::new(Access::Read, "a look".parse().unwrap()), life: None, salt: 1 };
    assert_eq!(office.run(ask.clone(), Actor::User(office.maria)).unwrap().len(), 2);
    assert_eq!(office.run(ask, Actor::User(office.maria)).unwrap().len(), 0);
}

#[test]
fn an_ended_pass_takes_no_step() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    office.done(Command::EndPass { pass, why: None }, Actor::User(office.maria));
    office.done(Command::Observed(Observed::Gone { pass }), Actor::System);
    for late in
        [Event::PassReady { pass }, Event::PassExtended { pass, ends_at: Time::from_micros(i64::MAX) }, Event::PassEnding { pass, cause: Cause::Expired }]
    {
        let entry = Entry { seq: office.ledger.seq() + 1, at: office.now, by: Actor::System, event: late };
        assert!(office.ledger.clone().apply(&entry).is_err());
    }
}

/// Rights that were not seen are compared with nothing.
fn any(_: &Environment, _: Access) -> BTreeSet<String> {
    BTreeSet::new()
}

#[test]
fn one_server_under_two_names_is_two_targets_and_neither_removes_the_others_accounts() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    let seen = |office: &Office| {
        let account = office.ledger.pass(pass).unwrap().account.to_string();
        let accounts = vec![ObservedAccount { name: account, can_login: true, expires_in: None, rights: None }];
        Observation { accounts, ..Observation::default() }
    };
    let other = TargetId::new(office.id());
    assert_eq!(plan(&office.ledger, other, &seen(&office), &any, office.now), vec![]);
    let own = office.ledger.environment(office.uat).unwrap().target;
    assert_eq!(plan(&office.ledger, own, &seen(&office), &any, office.now), vec![]);
    office.done(Command::EndPass { pass, why: None }, Actor::User(office.maria));
    assert_eq!(plan(&office.ledger, other, &seen(&office), &any, office.now), vec![], "its own keeper ends it");
    assert!(matches!(plan(&office.ledger, own, &seen(&office), &any, office.now)[..], [Action::Remove { pass: Some(_), .. }]));
    office.done(Command::Observed(Observed::Gone { pass }), Actor::System);
    assert!(
        matches!(plan(&office.ledger, other, &seen(&office), &any, office.now)[..], [Action::Remove { pass: None, .. }]),
        "what is final is a stray anywhere"
    );
}

#[test]
fn gone_is_no_account_of_that_name_and_nobody_in_and_a_moved_end_is_put_back() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    let account = office.ledger.pass(pass).unwrap().account.to_string();
    let target = office.ledger.environment(office.uat).unwrap().target;
    let ends_at = office.ledger.pass(pass).unwrap().ends_at.unwrap();
    let left = ends_at.since(office.now) / 1_000_000;
    let seen = |expires_in| Observation {
        accounts: vec![ObservedAccount { name: account.clone(), can_login: false, expires_in, rights: None }],
        ..Observation::default()
    };
    let planned = |office: &Office, seen: &Observation| plan(&office.ledger, target, seen, &any, office.now);
    // an account of PostgreSQL that cannot log in is as it should be; one whose end is another is not
    assert_eq!(planned(&office, &seen(Some(left - 2))), vec![]);
    for moved in [i64::MAX, left + 60, left - 60, -1] {
        assert!(matches!(planned(&office, &seen(Some(moved)))[..], [Action::Restore { .. }]), "{moved}");
    }
    // nor is one that lost what it is for, or was given something by somebody
    let with = |rights: &[&str]| {
        let mut seen = seen(Some(left));
        seen.accounts[0].rights = Some(rights.iter().map(ToString::to_string).collect());
        plan(&office.ledger, target, &seen, &|_, _| ["readers".to_owned()].into(), office.now)
    };
    assert_eq!(with(&["readers"]), vec![]);
    for other in [&[][..], &["writers"], &["readers", "CREATEROLE"]] {
        assert!(matches!(with(other)[..], [Action::Restore { .. }]), "{other:?}");
    }
    assert_eq!(ended(&office.ledger, &seen(Some(left)), office.now), Vec::<&str>::new());
    office.done(Command::EndPass { pass, why: None }, Actor::User(office.maria));
    assert_eq!(ended(&office.ledger, &seen(Some(left)), office.now), [account.as_str()]);
    // no account to be seen, and somebody in: that is no end
    let inside = Observation { backends: vec![Backend { account: account.clone(), id: 7 }], ..Observation::default() };
    assert_eq!(ended(&office.ledger, &inside, office.now), [account.as_str()]);
    assert_eq!(planned(&office, &inside), vec![]);
    assert!(matches!(planned(&office, &Observation::default())[..], [Action::ReportGone { .. }]));
    // whoever is not in the log at all has nothing to look for
    let stranger = Observation { backends: vec![Backend { account: "jit_eve_aaaa".to_owned(), id: 8 }], ..Observation::default() };
    assert_eq!(ended(&office.ledger, &stranger, office.now), ["jit_eve_aaaa"]);
}

#[test]
fn a_log_that_was_tampered_with_is_found_at_the_line() {
    let mut office = Office::open();
    office.ready(office.maria);
    let end = office.head.line();
    let whole = |lines: &[String]| {
        let export = format!("{}\n{end}", lines.join("\n"));
        chain::verify(export.lines(), None).map(|(ledger, _)| ledger.seq()).map_err(|broken| broken.line)
    };
    let lines = office.lines.clone();
    let count = lines.len();
    assert_eq!(whole(&lines), Ok(count as u64));
    for at in 0..count {
        let line = at + 1;
        let mut edited = lines.clone();
        edited[at] = edited[at].replacen("2027", "2028", 1);
        assert_eq!(whole(&edited), Err(line), "edited");
        let mut dropped = lines.clone();
        dropped.remove(at);
        assert_eq!(whole(&dropped), Err(line), "dropped");
        let mut inserted = lines.clone();
        inserted.insert(at, lines[at].clone());
        assert_eq!(whole(&inserted), Err(if at == 0 { 2 } else { line + 1 }), "inserted");
        if at + 1 < count {
            let mut reordered = lines.clone();
            reordered.swap(at, at + 1);
            assert_eq!(whole(&reordered), Err(line), "reordered");
        }
        assert_eq!(whole(&lines[..at]), Err(line), "cut off");
    }
    // a forged end: every line fits, but it is not the head that somebody kept
    let mut forged = Office::open();
    forged.asks(forged.ben, Access::Read);
    let export = format!("{}\n{}", forged.lines.join("\n"), forged.head.line());
    assert!(chain::verify(export.lines(), None).is_ok());
    assert!(chain::verify(export.lines(), Some(office.head)).unwrap_err().why.contains("rewritten"));
}

#[test]
fn the_past_is_a_replay() {
    let mut office = Office::open();
    let pass = office.ready(office.maria);
    let then = office.now;
    office.wait(Ttl::hours(1));
    office.done(Command::EndPass { pass, why: None }, Actor::User(office.maria));
    let mut past = Ledger::default();
    let mut head = chain::Head::EMPTY;
    for line in &office.lines {
        let (entry, next) = chain::open(line, &head).unwrap();
        if entry.at > then {
            break;
        }
        past.apply(&entry).unwrap();
        head = next;
    }
    assert!(matches!(past.pass(pass).unwrap().state(), State::Ready { .. }));
    assert!(past.over(past.pass(pass).unwrap(), then).is_none());
}

#[test]
fn two_people_agree_where_the_policy_wants_two_and_the_newest_policy_counts() {
    let mut office = Office::open();
    let two = |n| Policy { approval: [(Access::ReadWrite, n)].into(), ..Policy::default() };
    office.policy(two(Approvals::Two));
    let (amy, bob, maria) = (office.approver, office.hires("bob", Role::Approver), office.maria);
    let pass = office.asks(maria, Access::ReadWrite);
    let approval = office.approval(pass);
    office.done(approval.clone(), Actor::User(amy));
    assert_eq!(office.run(approval.clone(), Actor::User(amy)).unwrap(), [], "the same person twice is one person");
    assert_eq!(office.state(pass), "requested");
    office.done(approval, Actor::User(bob));
    assert_eq!(office.state(pass), "approved");
    assert_eq!(office.ledger.pass(pass).unwrap().agreed, [amy, bob]);

    // tightened between request and approval
    office.policy(two(Approvals::One));
    let pass = office.asks(maria, Access::ReadWrite);
    office.policy(two(Approvals::Two));
    let approval = office.approval(pass);
    office.done(approval, Actor::User(amy));
    assert_eq!(office.state(pass), "requested");

    // tightened between approval and connect
    office.policy(Policy::default());
    let pass = office.ready(maria);
    assert!(office.gets_in(pass, HOME).is_ok());
    office.policy(Policy { approval: [(Access::Read, Approvals::One), (Access::ReadWrite, Approvals::One)].into(), ..Policy::default() });
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::Over { cause: Cause::Forbidden { .. }, .. })));
    // and it stays ended when the policy is what it was
    office.policy(Policy::default());
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::Over { cause: Cause::Forbidden { .. }, .. })));
}

#[test]
fn a_narrower_policy_ends_what_it_forbids_and_nothing_else() {
    let mut office = Office::open();
    let maria = office.maria;
    let (read, write) = (office.ready(maria), {
        let pass = office.asks(maria, Access::ReadWrite);
        office.is_made(pass);
        pass
    });
    let range = |office: &mut Office, text: &str| {
        let entry = AllowId::new(office.id());
        let ranges = vec![text.parse().unwrap()];
        let environment = office.uat;
        office.done(Command::AddAllow { entry, environment, owner: AllowFor::Myself, ranges, note: None, life: None }, Actor::User(maria));
        entry
    };
    let (wide, narrow) = (range(&mut office, "198.51.100.0/24"), range(&mut office, "203.0.113.9"));
    // of another environment's own policy it says nothing
    office.policy(Policy { access: [Access::Read].into(), widest_v4: 30, ..Policy::default() });
    assert_eq!((office.state(read), office.state(write)), ("ready", "ending"));
    let entries = |office: &Office, id| office.ledger.allow().get(id).unwrap().removed_at.is_some();
    assert!(entries(&office, wide) && !entries(&office, narrow));
    // a pass that is longer than any may be now
    office.policy(Policy {
        access: [Access::Read].into(),
        default_life: Ttl::hours(1),
        longest_life: Ttl::hours(1),
        longest_total: Ttl::hours(1),
        ..Policy::default()
    });
    assert_eq!(office.state(read), "ending");
}

#[test]
fn an_approval_is_for_the_request_that_was_seen_and_no_other() {
    let mut office = Office::open();
    office.policy(Policy { approval: [(Access::Read, Approvals::One), (Access::ReadWrite, Approvals::One)].into(), ..Policy::default() });
    let (amy, maria) = (office.approver, office.maria);
    let (one, other) = (office.asks(maria, Access::Read), office.asks(maria, Access::ReadWrite));
    let digest = office.ledger.pass(one).unwrap().digest();
    assert_eq!(office.refused(Command::ApprovePass { pass: other, digest, word: None }, amy).code, Code::State);
    // each field counts
    let pass = office.ledger.pass(one).unwrap().clone();
    let changed: [fn(&mut Pass); 9] = [
        |p| p.wish.access = Access::ReadWrite,
        |p| p.wish.reason = "another".parse().unwrap(),
        |p| p.wish.category = Some("another".parse().unwrap()),
        |p| p.wish.ticket = Some("OPS-18".parse().unwrap()),
        |p| p.wish.starts_at = Some(Time::from_micros(1)),
        |p| p.wish.from = Some("203.0.113.9".parse().unwrap()),
        |p| p.wish.break_glass = true,
        |p| p.life = Ttl::minutes(1),
        |p| p.epoch += 1,
    ];
    for change in changed {
        let mut other = pass.clone();
        change(&mut other);
        assert_ne!(other.digest(), pass.digest());
    }
}

#[test]
fn breaking_the_glass_lets_in_at_once_and_somebody_else_closes_the_review() {
    let mut office = Office::open();
    let one = || [(Access::Read, Approvals::One)].into();
    office.policy(Policy { approval: one(), ..Policy::default() });
    let (amy, maria) = (office.approver, office.maria);
    office.by_admin(Command::GiveRole { user: amy, role: Role::Requester, scope: Scope::All });
    let pass = PassId::new(office.id());
    let wish = Wish { break_glass: true, ..Wish::new(Access::Read, "payments stand still".parse().unwrap()) };
    let ask = |pass| Command::RequestPass { pass, environment: office.uat, wish: wish.clone(), life: None, salt: 77 };
    let (first, again) = (ask(pass), ask(PassId::new(Uuid::from_u128(5 << 90))));
    assert_eq!(office.refused(first.clone(), maria).code, Code::NotPermitted, "the policy has to name the role");
    office.policy(Policy { approval: one(), break_glass: [Role::Requester].into(), ..Policy::default() });
    office.done(first, Actor::User(maria));
    let known = office.ledger.pass(pass).unwrap();
    assert!(known.approver == Some(Approver::BreakGlass) && known.review == Review::Open);
    office.is_made(pass);
    office.allows(maria, HOME);
    assert!(office.gets_in(pass, HOME).is_ok());
    let review = |word: &str| Command::ReviewPass { pass, word: word.parse().unwrap() };
    assert_eq!(office.refused(review("it was me"), maria).code, Code::NotPermitted);
    office.done(review("looked at the statements: fine"), Actor::User(amy));
    assert!(matches!(&office.ledger.pass(pass).unwrap().review, Review::Closed { by, .. } if *by == amy));
    // the right to break the glass is taken back: what rests on it ends
    office.policy(Policy { approval: one(), ..Policy::default() });
    assert!(matches!(office.gets_in(pass, HOME), Err(Refused::Over { cause: Cause::Forbidden { .. }, .. })));
    assert_eq!(office.refused(again, maria).code, Code::NotPermitted);
}

#[test]
fn access_can_start_later_and_then_lasts_as_long_as_was_asked_for() {
    let mut office = Office::open();
    let (maria, start) = (office.maria, office.now.after(Ttl::hours(3)));
    let pass = PassId::new(office.id());
    let wish = |starts_at| Wish { starts_at: Some(starts_at), ..Wish::new(Access::Read, "the nightly load".parse().unwrap()) };
    let ask = |pass, starts_at| Command::RequestPass { pass, environment: office.uat, wish: wish(starts_at), life: Some(Ttl::hours(1)), salt: 5 };
    let (later, too_far) = (ask(pass, start), ask(PassId::new(Uuid::from_u128(1 << 92)), office.now.after(Ttl::hours(24 * 15))));
    assert_eq!(office.refused(too_far, maria).code, Code::Policy);
    office.done(later, Actor::User(maria));
    assert_eq!(office.ledger.pass(pass).unwrap().ends_at, Some(start.after(Ttl::hours(1))));
    assert_eq!(office.run(Command::Observed(Observed::LoginWorks { pass }), Actor::System).unwrap(), [], "not before its time");
    office.wait(Ttl::hours(3));
    office.is_made(pass);
    assert_eq!(office.state(pass), "ready");
}

#[test]
fn what_a_policy_asks_of_a_request_is_said_with_the_way_out() {
    let mut office = Office::open();
    let (maria, uat) = (office.maria, office.uat);
    office.policy(Policy {
        categories: ["troubleshooting".parse().unwrap(), "data upgrade".parse().unwrap()].into(),
        ticket_pattern: Some("^OPS-[0-9]+$".parse().unwrap()),
        reveal: Reveal::Once,
        ..Policy::default()
    });
    let plain = Wish::new(Access::Read, "a look".parse().unwrap());
    let ask = |wish: &Wish| Command::RequestPass { pass: PassId::new(Uuid::from_u128(1 << 93)), environment: uat, wish: wish.clone(), life: None, salt: 5 };
    assert!(office.refused(ask(&plain), maria).remedy.contains("data upgrade, troubleshooting"));
    let kind = Wish { category: Some("troubleshooting".parse().unwrap()), ..plain };
    assert!(office.refused(ask(&kind), maria).message.contains("OPS-"));
    let full = Wish { ticket: Some("OPS-17".parse().unwrap()), ..kind };
    office.done(ask(&full), Actor::User(maria));

    let pass = PassId::new(Uuid::from_u128(1 << 93));
    let show = Command::RevealPass { pass };
    assert_eq!(office.refused(show.clone(), maria).code, Code::State, "there is no account yet");
    office.is_made(pass);
    assert_eq!(office.refused(show.clone(), office.approver).code, Code::NotFound, "it is shown to its holder alone");
    office.done(show.clone(), Actor::User(maria));
    assert_eq!(office.refused(show, maria).code, Code::Policy, "once is once");
}

#[test]
fn those_are_told_who_have_something_to_do() {
    use crate::notice::{self, Kind};
    let mut office = Office::open();
    let told = |office: &Office, events: Vec<Event>, by: Actor| -> Vec<(Kind, Vec<String>)> {
        let entry = |event| Entry { seq: 0, at: office.now, by, event };
        let notices = events.into_iter().flat_map(|event| notice::of_entry(&office.ledger, &entry(event)));
        let names = |to: &std::collections::BTreeSet<UserId>| to.iter().map(|id| office.ledger.user(*id).unwrap().name.to_string()).collect();
        notices.map(|notice| (notice.kind, names(&notice.to))).collect()
    };
    office.policy(Policy { approval: [(Access::Read, Approvals::Two)].into(), break_glass: [Role::Requester].into(), ..Policy::default() });
    let (amy, maria, bob) = (office.approver, office.maria, office.hires("bob", Role::Approver));
    office.by_admin(Command::GiveRole { user: maria, role: Role::Approver, scope: Scope::All });
    let ask = |office: &mut Office, break_glass, salt| {
        let pass = PassId::new(office.id());
        let wish = Wish { break_glass, ..Wish::new(Access::Read, "a look".parse().unwrap()) };
        let command = Command::RequestPass { pass, environment: office.uat, wish, life: None, salt };
        (pass, office.run(command, Actor::User(maria)).unwrap())
    };
    let (pass, events) = ask(&mut office, false, 70);
    assert_eq!(told(&office, events, Actor::User(maria)), [(Kind::RequestWaits, vec!["amy".to_owned(), "bob".to_owned()])], "not who asked");
    let approval = office.approval(pass);
    let events = office.run(approval.clone(), Actor::User(amy)).unwrap();
    assert_eq!(told(&office, events, Actor::User(amy)), [(Kind::RequestWaits, vec!["bob".to_owned()])], "not who agreed already");
    let events = office.run(approval, Actor::User(bob)).unwrap();
    assert_eq!(told(&office, events, Actor::User(bob)), [(Kind::Approved, vec!["maria".to_owned()])]);
    let events = office.run(Command::Observed(Observed::LoginWorks { pass }), Actor::System).unwrap();
    assert_eq!(told(&office, events, Actor::System), [(Kind::Ready, vec!["maria".to_owned()])]);

    let soon = |office: &Office| notice::ends_soon(&office.ledger, office.ledger.pass(pass).unwrap(), office.now);
    assert!(soon(&office).is_none());
    office.wait(Ttl::minutes(7 * 60 + 46));
    let notice = soon(&office).unwrap();
    assert!(notice.path == "/environments/uat" && notice.to == [maria].into(), "what was approved is not extended: {notice:?}");
    assert_eq!(office.refused(Command::ExtendPass { pass, by: Ttl::minutes(5) }, maria).remedy, "Ask for a new pass; both hold side by side.");

    let (_, events) = ask(&mut office, true, 900);
    let kinds = told(&office, events, Actor::User(maria));
    assert!(kinds.len() == 1 && kinds[0].0 == Kind::BreakGlass && kinds[0].1.len() >= 4 && !kinds[0].1.contains(&"maria".to_owned()), "{kinds:?}");

    let movement = MovementId::new(office.id());
    let (environment, manager) = (office.uat, office.manager);
    let begin = Command::BeginMovement {
        movement,
        environment,
        kind: MovementKind::External,
        why: "refresh".parse().unwrap(),
        notice: None,
        swap_at: None,
        stay_closed: false,
    };
    let events = office.run(begin, Actor::User(manager)).unwrap();
    let kinds = told(&office, events, Actor::User(manager));
    assert!(kinds[0].0 == Kind::Movement && kinds[0].1.contains(&"maria".to_owned()), "{kinds:?}");
    office.wait(Ttl::minutes(1));
    let events = office.run(Command::Observed(Observed::Gone { pass }), Actor::System).unwrap();
    assert_eq!(told(&office, events, Actor::System), [(Kind::Ended, vec!["maria".to_owned()])]);
}
