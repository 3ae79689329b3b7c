//! The core alone: replay, and the decision at the door.

use crate::report::Report;
use daypass_core::{
    admission::{Attempt, admit},
    allow::Owner,
    chain,
    environment::*,
    event::{Actor, Entry, Event},
    ids::*,
    ledger::Ledger,
    names::AccountName,
    net::Range,
    pass::{Access, Approver, Wish},
    people::{Role, Scope},
    time::{Time, Ttl},
};
use std::{hint::black_box, net::IpAddr, time::Instant};
use uuid::Uuid;

const START: i64 = 1_800_000_000_000_000;
const PASSES: u128 = 10_000;
const ENTRIES: u128 = 100_000;
const EVENTS: usize = 1_000_000;

/// A log in the making.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
}

impl Log {
    fn add(&mut self, event: Event) {
        let seq = self.entries.len() as u64 + 1;
        self.entries.push(Entry { seq, at: Time::from_micros(START), by: Actor::System, event });
    }
}

/// People with passes and addresses on one environment.
fn world() -> (Log, EnvironmentId) {
    let mut log = Log::default();
    let id = Uuid::from_u128;
    log.add(Event::StoreCreated { store: StoreId::new(id(1)) });
    let (project, target, environment) = (ProjectId::new(id(2)), TargetId::new(id(3)), EnvironmentId::new(id(4)));
    let name = |text: &str| text.parse().unwrap_or_else(|_| unreachable!("a name"));
    log.add(Event::ProjectAdded { project, name: name("main") });
    let host = "db.example.com".parse().unwrap_or_else(|_| unreachable!("a host"));
    let spec = TargetSpec { engine: Engine::Postgres, host, port: 5432, admin: "daypass_admin".into(), tls: TargetTls::Off };
    log.add(Event::TargetAdded { target, spec });
    let database = "uat".parse().unwrap_or_else(|_| unreachable!("a database"));
    let spec = EnvironmentSpec { name: name("uat"), kind: Kind::SelfService, database, grants: Grants::Granted, heir: None, enforce: Enforce::Gateway };
    log.add(Event::EnvironmentAdded { environment, project, target, spec });
    for n in 0..PASSES {
        let (user, pass) = (UserId::new(id((1 << 64) + n)), PassId::new(id((2 << 64) + n)));
        let person = format!("person{n}").parse().unwrap_or_else(|_| unreachable!("a name"));
        let account = AccountName::make(&person, n as u64);
        log.add(Event::UserAdded { user, name: person });
        log.add(Event::RoleGiven { user, role: Role::Requester, scope: Scope::All });
        let reason = "a look".parse().unwrap_or_else(|_| unreachable!("a reason"));
        log.add(Event::PassRequested { pass, environment, holder: user, account, wish: Wish::new(Access::Read, reason), life: Ttl::hours(8) });
        log.add(Event::PassApproved {
            pass,
            approver: Approver::Policy(name("default")),
            ends_at: Time::from_micros(START).after(Ttl::hours(8)),
            digest: None,
            word: None,
        });
        log.add(Event::PassReady { pass });
    }
    for n in 0..ENTRIES {
        let owner = Owner::Person(UserId::new(id((1 << 64) + n % PASSES)));
        let address = IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        let range = Range::one(address).unwrap_or_else(|_| unreachable!("an address"));
        let ends_at = Time::from_micros(START).after(Ttl::hours(8));
        log.add(Event::AllowAdded { entry: AllowId::new(id((3 << 64) + n)), environment, owner, ranges: vec![range], note: None, ends_at });
    }
    (log, environment)
}

pub fn measure(report: &mut Report) {
    let (mut log, environment) = world();
    let mut ledger = Ledger::default();
    for entry in &log.entries {
        ledger.apply(entry).unwrap_or_else(|broken| unreachable!("{broken}"));
    }
    let attempts: Vec<(String, IpAddr)> = (0..1_000_u128)
        .filter_map(|n| {
            let n = n * 97 % PASSES;
            let pass = ledger.pass(PassId::new(Uuid::from_u128((2 << 64) + n)))?;
            Some((pass.account.to_string(), IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8])))
        })
        .collect();
    let now = Time::from_micros(START + 1);
    let (began, rounds) = (Instant::now(), 200);
    let mut let_in = 0;
    for _ in 0..rounds {
        for (account, address) in &attempts {
            let attempt = Attempt { account, database: Some("uat"), servers: &[], engine: Engine::Postgres, address: *address, open_sessions: 0 };
            let_in += usize::from(black_box(admit(&ledger, &attempt, now)).is_ok());
        }
    }
    let each = began.elapsed().as_secs_f64() * 1e6 / (rounds * attempts.len()) as f64;
    assert_eq!(let_in, rounds * attempts.len(), "everybody has an account and an address");
    report.title("the core");
    report.row(&format!("admit, with {ENTRIES} entries and {PASSES} passes"), each, "us");
    report.bar("us to decide at the door", each, 2.0);

    // a year of requests and returns fills the log up to a million
    let mut n = 0_u128;
    while log.entries.len() < EVENTS {
        let (user, pass) = (UserId::new(Uuid::from_u128((1 << 64) + n % PASSES)), PassId::new(Uuid::from_u128((5 << 64) + n)));
        let person = format!("p{n}").parse().unwrap_or_else(|_| unreachable!("a name"));
        let account = AccountName::make(&person, n as u64);
        let reason = "a look".parse().unwrap_or_else(|_| unreachable!("a reason"));
        log.add(Event::PassRequested { pass, environment, holder: user, account, wish: Wish::new(Access::Read, reason), life: Ttl::hours(8) });
        let policy = "default".parse().unwrap_or_else(|_| unreachable!("a name"));
        log.add(Event::PassApproved {
            pass,
            approver: Approver::Policy(policy),
            ends_at: Time::from_micros(START).after(Ttl::hours(8)),
            digest: None,
            word: None,
        });
        log.add(Event::PassReady { pass });
        log.add(Event::PassEnding { pass, cause: daypass_core::pass::Cause::Returned });
        log.add(Event::PassEnded { pass, cause: daypass_core::pass::Cause::Returned });
        n += 1;
    }
    log.entries.truncate(EVENTS);
    let began = Instant::now();
    let mut again = Ledger::default();
    for entry in &log.entries {
        again.apply(entry).unwrap_or_else(|broken| unreachable!("{broken}"));
    }
    let folded = began.elapsed().as_secs_f64();
    drop(again);
    let mut head = chain::Head::EMPTY;
    let lines: Vec<String> = log
        .entries
        .iter()
        .map(|entry| {
            let (line, hash) = chain::seal(entry, &head.hash);
            head = chain::Head { seq: entry.seq, hash };
            line
        })
        .collect();
    let began = Instant::now();
    let (mut replayed, mut head) = (Ledger::default(), chain::Head::EMPTY);
    for line in &lines {
        let (entry, next) = chain::open(line, &head).unwrap_or_else(|why| unreachable!("{why}"));
        replayed.apply(&entry).unwrap_or_else(|broken| unreachable!("{broken}"));
        head = next;
    }
    let proved = began.elapsed().as_secs_f64();
    report.row("replay of 1,000,000 events, folding alone", folded, "s");
    report.row("replay of 1,000,000 events, with reading and proving each line", proved, "s");
    report.bar("s to replay 1,000,000 lines, each read and proved", proved, 2.0);
}
