//! The simulated world: one durable log, two nodes that follow it, targets, people.

use super::oracle::{Oracle, REACH};
use daypass_core::{
    admission::{Attempt, admit, standing},
    chain::{self, Head},
    command::{AllowFor, Command, Observed},
    environment::*,
    event::{Actor, Entry, Event},
    ids::*,
    ledger::Ledger,
    movement::{MovementKind, MovementState, Phase},
    net::Range,
    pass::{Access, State, Wish},
    people::{Role, Scope},
    plan::{Action, Observation, ObservedAccount, plan},
    policy::{Approvals, Policy},
    time::{Time, Ttl},
};
use std::{collections::BTreeMap, net::IpAddr};
use uuid::Uuid;

/// SplitMix64: small, seeded, the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

struct Node {
    up: bool,
    ledger: Ledger,
    head: Head,
    /// How far this node's running time is from the true time. It only runs; it moves forward when the log is ahead of it.
    offset: i64,
    /// A person accepted its clock, and what was open is not all ended yet.
    doubted: bool,
    sessions: Vec<Session>,
    /// Actions of the keeper's last plan that are not done yet: meanwhile the world goes on.
    todo: Vec<(TargetId, Action)>,
}

struct Session {
    pass: PassId,
    account: String,
    address: IpAddr,
    until: Time,
}

/// A database server: accounts that bear our marker, and the identity of each database.
struct Server {
    id: TargetId,
    reachable: bool,
    /// With the true time at which the server's own clock ends each.
    accounts: BTreeMap<String, i64>,
}

pub struct World {
    rng: Rng,
    now: i64,
    /// When the nodes that run were last told what is new.
    reached: i64,
    pub log: Vec<String>,
    pub bytes: usize,
    nodes: [Node; 2],
    servers: Vec<Server>,
    identities: BTreeMap<EnvironmentId, u64>,
    oracle: Oracle,
    /// Crashes happen.
    faults: bool,
    ids: u128,
    admin: UserId,
    people: Vec<UserId>,
    manager: UserId,
    approver: UserId,
    environments: Vec<EnvironmentId>,
}

const START: i64 = 1_800_000_000_000_000;
const SECOND: i64 = 1_000_000;

impl World {
    pub fn new(seed: u64) -> World {
        let node = || Node { up: true, ledger: Ledger::default(), head: Head::EMPTY, offset: 0, doubted: false, sessions: vec![], todo: vec![] };
        let none = UserId::new(Uuid::nil());
        let mut world = World {
            rng: Rng(seed),
            now: START,
            reached: START,
            log: vec![],
            bytes: 0,
            nodes: [node(), node()],
            servers: vec![],
            identities: BTreeMap::new(),
            oracle: Oracle::default(),
            faults: false,
            ids: 0,
            admin: none,
            people: vec![],
            manager: none,
            approver: none,
            environments: vec![],
        };
        world.found().expect("the beginning is not random");
        world.faults = true;
        world
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn found(&mut self) -> Result<(), String> {
        let store = StoreId::new(self.id());
        self.append(0, vec![Event::StoreCreated { store }], Actor::System)?;
        let person = |world: &mut World, name: &str, role: Role| {
            let user = UserId::new(world.id());
            let command = Command::AddUser { user, name: name.parse().unwrap(), roles: vec![(role, Scope::All)] };
            world.must(0, command, Actor::System).map(|()| user)
        };
        self.admin = person(self, "ada", Role::Admin)?;
        self.manager = person(self, "max", Role::Manager)?;
        self.approver = person(self, "amy", Role::Approver)?;
        self.people = ["rob", "rosa"].into_iter().map(|name| person(self, name, Role::Requester)).collect::<Result<_, _>>()?;
        // somebody who may ask and approve: but never for themselves
        self.must(0, Command::GiveRole { user: self.approver, role: Role::Requester, scope: Scope::All }, Actor::User(self.admin))?;
        self.must(0, Command::GiveRole { user: self.manager, role: Role::Approver, scope: Scope::All }, Actor::User(self.admin))?;
        self.people.push(self.approver);
        let project = ProjectId::new(self.id());
        self.must(0, Command::AddProject { project, name: "main".parse().unwrap() }, Actor::User(self.admin))?;
        for (name, host) in [("uat", "one"), ("dev", "one"), ("prod", "two")] {
            let (environment, target) = (EnvironmentId::new(self.id()), TargetId::new(self.id()));
            let tls = TargetTls::VerifyFull { ca: None };
            let target_spec = TargetSpec { engine: Engine::Postgres, host: host.parse().unwrap(), port: 5432, admin: "daypass_admin".into(), tls };
            let spec = EnvironmentSpec {
                name: name.parse().unwrap(),
                kind: Kind::SelfService,
                database: name.parse().unwrap(),
                grants: Grants::Granted,
                heir: None,
                enforce: Enforce::Gateway,
            };
            self.must(0, Command::AddEnvironment { environment, project, target, target_spec, spec }, Actor::User(self.admin))?;
            self.environments.push(environment);
            self.identities.insert(environment, 1);
        }
        self.servers = self.nodes[0].ledger.targets().map(|t| Server { id: t.id, reachable: true, accounts: BTreeMap::new() }).collect();
        let approval = Policy { approval: [(Access::ReadWrite, Approvals::One)].into(), live_passes: 3, ..Policy::default() };
        let scope = Scope::Environment(self.environments[2]);
        self.must(0, Command::SetPolicy { scope, policy: approval.clone() }, Actor::User(self.admin))?;
        // elsewhere two have to agree to a change
        let two = Policy { approval: [(Access::ReadWrite, Approvals::Two)].into(), ..approval };
        let scope = Scope::Environment(self.environments[1]);
        self.must(0, Command::SetPolicy { scope, policy: two }, Actor::User(self.admin))
    }

    fn must(&mut self, node: usize, command: Command, by: Actor) -> Result<(), String> {
        self.submit(node, command, by)?.map_err(|refusal| refusal.to_string()).map(drop)
    }

    /// A node's running time. What is done to its wall clock meanwhile does not show in it.
    fn clock(&self, node: usize) -> Time {
        Time::from_micros(self.now + self.nodes[node].offset)
    }

    /// A node that was down comes back. On the same boot its running time goes on; after another one the wall clock says where it begins, and
    /// when that is before the end of the log, a person has to say so, or puts the clock right first.
    fn start(&mut self, node: usize) -> Result<(), String> {
        let latest = self.log.last().map_or(START, |line| serde_at(line));
        // nodes tell each other their running time, as one process keeps its own: the log's end may be hours old
        let running = self.nodes.iter().map(|node| node.offset).max().unwrap_or_default();
        self.nodes[node].offset = running;
        // until all is ended that was open, each start asks again
        if self.rng.one_in(3) || self.nodes[node].doubted {
            let year = 365 * 86_400 * SECOND;
            let mut skew = [0, 0, 5 * SECOND, 3600 * SECOND, year, -year][self.rng.below(6)];
            // a clock that was set back while the machine was off, to a moment after the log's end, is what nobody can see (SECURITY.md)
            if skew < running && self.now + skew >= latest - 120 * SECOND {
                skew = running;
            }
            if self.now + skew < latest - 120 * SECOND {
                if self.rng.one_in(2) {
                    return Ok(());
                }
                self.nodes[node].doubted = true;
            }
            self.nodes[node].offset = skew.max(latest - self.now);
        }
        self.nodes[node].up = true;
        self.follow(node)?;
        if !self.nodes[node].doubted {
            return Ok(());
        }
        let ledger = &self.nodes[node].ledger;
        let passes = ledger.open_passes().map(|pass| Command::Observed(Observed::ClockDoubted { pass: pass.id }));
        let entries = ledger.allow().iter().filter(|entry| entry.removed_at.is_none()).map(|entry| Command::RemoveAllow { entry: entry.id });
        let ends: Vec<Command> = passes.chain(entries).collect();
        for end in ends {
            self.submit(node, end, Actor::System)?.map_err(|e| e.to_string())?;
            if !self.nodes[node].up {
                return Ok(());
            }
        }
        self.nodes[node].doubted = false;
        Ok(())
    }

    /// A command on a node, as the control loop runs it: decide on the newest state, append at the head, apply.
    fn submit(&mut self, node: usize, command: Command, by: Actor) -> Result<Result<Vec<Event>, daypass_core::refusal::Refusal>, String> {
        self.follow(node)?;
        let now = self.clock(node);
        match self.nodes[node].ledger.decide(&command, by, now) {
            Err(refusal) => Ok(Err(refusal)),
            Ok(events) => {
                self.append(node, events.clone(), by)?;
                Ok(Ok(events))
            }
        }
    }

    /// Appends durably. A crash may come between that and the node's own knowledge of it.
    fn append(&mut self, node: usize, events: Vec<Event>, by: Actor) -> Result<(), String> {
        let at = self.clock(node);
        let at = self.nodes[node].ledger.clamp(at);
        for event in events {
            let mut head = self.nodes[node].head;
            head.seq = self.log.len() as u64;
            let entry = Entry { seq: head.seq + 1, at, by, event };
            let prev = self.log.last().map_or(chain::START, |line| hash_of(line));
            let (line, _) = chain::seal(&entry, &prev);
            self.log.push(line);
            self.oracle.see(&entry, self.now)?;
        }
        if self.faults && self.rng.one_in(200) {
            self.crash(node);
            return Ok(());
        }
        self.follow(node)
    }

    /// The node reads what is new in the log, and looks at its sessions again.
    fn follow(&mut self, node: usize) -> Result<(), String> {
        let (true_now, of) = (self.now, node);
        let node = &mut self.nodes[of];
        while (node.head.seq as usize) < self.log.len() {
            let (entry, head) = chain::open(&self.log[node.head.seq as usize], &node.head).map_err(|why| format!("I7: {why}"))?;
            node.ledger.apply(&entry).map_err(|e| format!("I7: {e}"))?;
            node.head = head;
        }
        node.offset = node.offset.max(node.ledger.latest().micros() - true_now);
        let now = Time::from_micros(true_now + node.offset);
        let ledger = &node.ledger;
        node.sessions.retain_mut(|session| match ledger.pass(session.pass).map(|pass| standing(ledger, pass, session.address, now)) {
            Some(Ok(until)) => {
                session.until = until.until;
                true
            }
            _ => false,
        });
        Ok(())
    }

    fn crash(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        (node.up, node.ledger, node.head) = (false, Ledger::default(), Head::EMPTY);
        node.sessions.clear();
        node.todo.clear();
    }

    /// Time passes; whatever was committed reaches the nodes that run.
    fn advance(&mut self, by: i64) -> Result<(), String> {
        // a step of hours is no reason to hear hours late
        if by > REACH {
            for node in 0..2 {
                if self.nodes[node].up {
                    self.follow(node)?;
                }
            }
        }
        self.now += by;
        if self.now >= self.reached + REACH {
            self.reached = self.now;
            for node in 0..2 {
                if self.nodes[node].up {
                    self.follow(node)?;
                }
            }
        }
        Ok(())
    }

    fn advance_by(&mut self, choices: &[i64]) -> Result<(), String> {
        let by = self.rng.pick(choices).unwrap_or(SECOND);
        self.advance(by)
    }

    /// One random thing happens.
    pub fn step(&mut self) -> Result<(), String> {
        let node = self.rng.below(2);
        if !self.nodes[node].up {
            if self.rng.one_in(3) {
                self.start(node)?;
            }
            return self.advance(SECOND / 10);
        }
        let Some(environment) = self.rng.pick(&self.environments.clone()) else { return Ok(()) };
        let person = self.people[self.rng.below(self.people.len())];
        let address: IpAddr = [10, 0, 0, 1 + self.rng.below(2) as u8].into();
        match self.rng.below(100) {
            0..8 => self.request(node, environment, person)?,
            8..18 => self.allow(node, environment, person, address)?,
            18..42 => self.keep(node)?,
            42..55 => self.connect(node, address)?,
            55..72 => self.relay(node)?,
            72..74 => self.end_or_extend(node)?,
            74..77 => self.judge(node)?,
            77 => self.movement(node, environment)?,
            78 => self.lock_or_unlock(node, person)?,
            79 => self.trouble(environment)?,
            80 => self.crash(node),
            81..83 => self.advance_by(&[600 * SECOND, 3 * 3600 * SECOND, 9 * 3600 * SECOND])?,
            83..86 => self.follow(node)?,
            _ => self.advance_by(&[SECOND / 10, SECOND / 2, SECOND, 3 * SECOND])?,
        }
        self.check()
    }

    fn request(&mut self, node: usize, environment: EnvironmentId, person: UserId) -> Result<(), String> {
        let access = if self.rng.one_in(2) { Access::Read } else { Access::ReadWrite };
        let life = Ttl::seconds([5, 60, 3600, 28_800][self.rng.below(4)]).ok();
        let (pass, salt) = (PassId::new(self.id()), self.rng.next());
        let command = Command::RequestPass { pass, environment, wish: Wish::new(access, "a simulated look".parse()?), life, salt };
        self.submit(node, command, Actor::User(person)).map(drop)
    }

    fn allow(&mut self, node: usize, environment: EnvironmentId, person: UserId, address: IpAddr) -> Result<(), String> {
        if self.rng.one_in(5) {
            let entries: Vec<AllowId> = self.nodes[node].ledger.allow().iter().map(|entry| entry.id).collect();
            let Some(entry) = self.rng.pick(&entries) else { return Ok(()) };
            return self.submit(node, Command::RemoveAllow { entry }, Actor::User(self.manager)).map(drop);
        }
        let (owner, by) = if self.rng.one_in(4) { (AllowFor::Everyone, self.manager) } else { (AllowFor::Myself, person) };
        let life = Ttl::seconds([10, 28_800][self.rng.below(2)]).ok();
        let entry = AllowId::new(self.id());
        self.submit(node, Command::AddAllow { entry, environment, owner, ranges: vec![Range::one(address)?], note: None, life }, Actor::User(by)).map(drop)
    }

    /// The keeper of a node: a look that gives a plan, or the next action of the plan it has.
    fn keep(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].todo.is_empty() {
            let Some(server) = (0..self.servers.len()).nth(self.rng.below(self.servers.len())) else { return Ok(()) };
            return self.look(node, server);
        }
        let (target, action) = self.nodes[node].todo.remove(0);
        self.act(node, target, action)
    }

    fn look(&mut self, node: usize, server: usize) -> Result<(), String> {
        if !self.servers[server].reachable {
            return Ok(());
        }
        let target = self.servers[server].id;
        let here: Vec<EnvironmentId> = self.nodes[node].ledger.environments_on(target).filter(|env| env.frozen_by.is_none()).map(|env| env.id).collect();
        for environment in here {
            let identity = Identity(format!("db:{}", self.identities[&environment]));
            self.submit(node, Command::Observed(Observed::Identity { environment, identity }), Actor::System)?.map_err(|e| e.to_string())?;
            if !self.nodes[node].up {
                return Ok(());
            }
        }
        let left = |expires: i64| Some((expires - self.now).div_euclid(SECOND));
        let accounts = self.servers[server].accounts.iter().map(|(name, expires)| ObservedAccount {
            name: name.clone(),
            can_login: false,
            expires_in: left(*expires),
            rights: None,
        });
        let observed = Observation { accounts: accounts.collect(), ..Observation::default() };
        // looked first, then read what is new: a pass of the other node is never taken for a stray
        self.follow(node)?;
        let now = self.clock(node);
        let actions = plan(&self.nodes[node].ledger, target, &observed, &|_, _| Default::default(), now);
        self.nodes[node].todo = actions.into_iter().map(|action| (target, action)).collect();
        Ok(())
    }

    fn act(&mut self, node: usize, target: TargetId, action: Action) -> Result<(), String> {
        let Some(server) = self.servers.iter().position(|s| s.id == target && s.reachable) else { return Ok(()) };
        let crashes = self.faults && self.rng.one_in(15);
        match action {
            Action::Provide { pass, account, ends_at, .. } => {
                let expires = self.now + ends_at.since(self.clock(node));
                self.servers[server].accounts.insert(account.to_string(), expires);
                if crashes {
                    self.crash(node);
                    return Ok(());
                }
                self.submit(node, Command::Observed(Observed::LoginWorks { pass }), Actor::System)?.map_err(|e| e.to_string())?;
            }
            Action::Restore { account, ends_at, .. } => {
                let expires = self.now + ends_at.since(self.clock(node));
                self.servers[server].accounts.insert(account.to_string(), expires);
            }
            Action::Remove { .. } if crashes => self.crash(node),
            Action::Remove { account, .. } => {
                self.servers[server].accounts.remove(&account);
                // its backends are ended on the target: sessions lose their other half
                self.nodes.iter_mut().for_each(|node| node.sessions.retain(|session| session.account != account));
            }
            Action::ReportGone { pass } => {
                self.submit(node, Command::Observed(Observed::Gone { pass }), Actor::System)?.map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// Somebody who knows the password of some account tries to get in.
    fn connect(&mut self, node: usize, address: IpAddr) -> Result<(), String> {
        let now = self.clock(node);
        let ledger = &self.nodes[node].ledger;
        let passes: Vec<PassId> = ledger.passes().filter(|p| matches!(p.state(), State::Ready { .. } | State::Ending { .. })).map(|p| p.id).collect();
        let Some(pass) = self.rng.pick(&passes).and_then(|id| ledger.pass(id)) else { return Ok(()) };
        let account = pass.account.to_string();
        let open_sessions = self.nodes[node].sessions.iter().filter(|s| s.pass == pass.id).count();
        let Ok(admitted) = admit(ledger, &Attempt { account: &account, database: None, servers: &[], engine: Engine::Postgres, address, open_sessions }, now)
        else {
            return Ok(());
        };
        let (pass, until, target) = (admitted.pass.id, admitted.until, admitted.target.id);
        // the target has to let the account in as well
        let there = self.servers.iter().any(|s| s.id == target && s.reachable && s.accounts.get(&account).is_some_and(|expires| self.now < *expires));
        self.oracle.may_pass(pass, address, self.now, true)?;
        if there {
            self.nodes[node].sessions.push(Session { pass, account, address, until: until.until });
        }
        Ok(())
    }

    /// Each session of a node moves a chunk, if its fence lets it.
    fn relay(&mut self, node: usize) -> Result<(), String> {
        let now = self.clock(node);
        self.nodes[node].sessions.retain(|session| now < session.until);
        for session in &self.nodes[node].sessions {
            self.oracle.may_pass(session.pass, session.address, self.now, false)?;
            self.bytes += 1;
        }
        Ok(())
    }

    fn end_or_extend(&mut self, node: usize) -> Result<(), String> {
        let passes: Vec<(PassId, UserId)> = self.nodes[node].ledger.passes().map(|p| (p.id, p.holder)).collect();
        let Some((pass, holder)) = self.rng.pick(&passes) else { return Ok(()) };
        let command = match self.rng.below(3) {
            0 => (Command::EndPass { pass, why: None }, holder),
            1 => (Command::EndPass { pass, why: Some("it is enough".parse()?) }, self.manager),
            _ => (Command::ExtendPass { pass, by: Ttl::minutes(1 + self.rng.below(1000) as u32) }, holder),
        };
        self.submit(node, command.0, Actor::User(command.1)).map(drop)
    }

    fn judge(&mut self, node: usize) -> Result<(), String> {
        let waiting: Vec<PassId> = self.nodes[node].ledger.passes().filter(|p| *p.state() == State::Requested).map(|p| p.id).collect();
        let Some(pass) = self.rng.pick(&waiting) else { return Ok(()) };
        let by = [self.approver, self.manager, self.people[0]][self.rng.below(3)];
        // one approver in eight looks at another request than the one that they approve
        let seen = if self.rng.one_in(8) { self.rng.pick(&waiting).unwrap_or(pass) } else { pass };
        let Some(digest) = self.nodes[node].ledger.pass(seen).map(|seen| seen.digest()) else { return Ok(()) };
        let command = match self.rng.one_in(4) {
            true => Command::DenyPass { pass, why: "not now".parse()? },
            false => Command::ApprovePass { pass, digest, word: None },
        };
        self.submit(node, command, Actor::User(by)).map(drop)
    }

    fn movement(&mut self, node: usize, environment: EnvironmentId) -> Result<(), String> {
        let ledger = &self.nodes[node].ledger;
        let moving = ledger.environment(environment).and_then(|env| env.moving).and_then(|id| ledger.movement(id)).cloned();
        let Some(known) = moving else {
            let movement = MovementId::new(self.id());
            let kind = if self.rng.one_in(2) { MovementKind::External } else { MovementKind::Import { file: "a.dump".parse()? } };
            let notice = self.rng.one_in(2).then_some(Ttl::minutes(10));
            let begin = Command::BeginMovement {
                movement,
                environment,
                kind,
                why: "a simulated refresh".parse()?,
                notice,
                swap_at: None,
                stay_closed: self.rng.one_in(3),
            };
            return self.submit(node, begin, Actor::User(self.manager)).map(drop);
        };
        let (movement, ours, why) = (known.id, known.kind.is_ours(), "it broke".parse()?);
        let (command, by) = match known.state {
            MovementState::Planned { .. } if self.rng.one_in(4) => (Command::CancelMovement { movement, why }, Actor::User(self.manager)),
            MovementState::Planned { .. } if ours && self.rng.one_in(6) => (Command::FailMovement { movement, why }, Actor::System),
            MovementState::Planned { phase, .. } if phase < Phase::Ready => {
                let next = Phase::ALL.into_iter().find(|next| *next > phase).unwrap_or(Phase::Ready);
                (Command::Observed(Observed::Reached { movement, phase: next }), Actor::System)
            }
            MovementState::Planned { .. } => (Command::Observed(Observed::Due { movement }), Actor::System),
            MovementState::Running { .. } if ours && self.rng.one_in(4) => (Command::FailMovement { movement, why }, Actor::System),
            MovementState::Running { phase: Phase::Swap } if ours => {
                *self.identities.entry(environment).or_default() += 1;
                (Command::Observed(Observed::Moved { movement, kept: None, made: None }), Actor::System)
            }
            MovementState::Running { phase } if ours => {
                let next = Phase::ALL.into_iter().find(|next| *next > phase).unwrap_or(Phase::Swap);
                (Command::Observed(Observed::Reached { movement, phase: next }), Actor::System)
            }
            MovementState::Failed { .. } if ours && self.rng.one_in(2) => (Command::RetryMovement { movement }, Actor::User(self.manager)),
            _ if self.rng.one_in(4) => (Command::FailMovement { movement, why }, Actor::User(self.manager)),
            _ => {
                *self.identities.entry(environment).or_default() += 1;
                (Command::FinishMovement { movement }, Actor::User(self.manager))
            }
        };
        self.submit(node, command, by).map(drop)
    }

    fn lock_or_unlock(&mut self, node: usize, person: UserId) -> Result<(), String> {
        let locked = self.nodes[node].ledger.user(person).is_some_and(|user| user.locked.is_some());
        let command = if locked { Command::UnlockUser { user: person } } else { Command::LockUser { user: person, why: "a doubt".parse()? } };
        self.submit(node, command, Actor::User(self.admin)).map(drop)
    }

    /// What happens outside, without anybody telling us.
    fn trouble(&mut self, environment: EnvironmentId) -> Result<(), String> {
        let server = self.rng.below(self.servers.len());
        match self.rng.below(4) {
            0 => self.servers[server].reachable ^= true,
            1 => *self.identities.entry(environment).or_default() += 1,
            2 => {
                let names: Vec<String> = self.servers[server].accounts.keys().cloned().collect();
                if !names.is_empty() {
                    let name = &names[self.rng.below(names.len())];
                    self.servers[server].accounts.remove(name);
                }
            }
            // somebody moves the end that the server keeps by itself
            _ => {
                let to = [self.now, i64::MAX / 4][self.rng.below(2)];
                self.servers[server].accounts.values_mut().for_each(|expires| *expires = to);
            }
        }
        Ok(())
    }

    /// What must be so after every step.
    fn check(&mut self) -> Result<(), String> {
        for server in &self.servers {
            if let Some(stray) = server.accounts.keys().find(|name| !self.oracle.accounts.contains(*name)) {
                return Err(format!("I3: {stray} is on a target and not in the log"));
            }
        }
        Ok(())
    }

    /// The faults stop: everything that is due must be done soon, and stay done.
    pub fn quiet(&mut self) -> Result<(), String> {
        self.faults = false;
        self.servers.iter_mut().for_each(|server| server.reachable = true);
        for _ in 0..40 {
            for node in 0..2 {
                while !self.nodes[node].up {
                    self.start(node)?;
                }
                self.follow(node)?;
                self.lapse(node)?;
                for server in 0..self.servers.len() {
                    if self.nodes[node].up {
                        self.look(node, server)?;
                    }
                    while self.nodes[node].up && !self.nodes[node].todo.is_empty() {
                        let (target, action) = self.nodes[node].todo.remove(0);
                        self.act(node, target, action)?;
                    }
                }
            }
            self.advance(SECOND)?;
            self.check()?;
        }
        // what ended in the last moment may still be in work
        let left = self.oracle.unfinished(self.now - 10 * SECOND);
        if !left.is_empty() {
            let states: Vec<_> = left.iter().filter_map(|id| self.nodes[0].ledger.pass(*id)).map(|p| (p.id, p.state(), p.ends_at)).collect();
            return Err(format!("I9: after a quiet time, at {}, these are over and not cleaned up: {states:?}", Time::from_micros(self.now)));
        }
        let ledger = &self.nodes[0].ledger;
        let wanted: Vec<&str> = ledger.open_passes().filter(|p| matches!(p.state(), State::Ready { .. })).map(|p| p.account.as_str()).collect();
        for server in &self.servers {
            for (name, expires) in &server.accounts {
                if !wanted.contains(&name.as_str()) {
                    return Err(format!("I3/I8: after a quiet time {name} is still on a target"));
                }
                // two nodes whose clocks differ each put the server's own end where they see it: never later than was promised, and not in the
                // past while the pass is good
                let Some(pass) = ledger.pass_of_account(name) else { continue };
                if self.oracle.due(pass.id).is_none_or(|due| *expires > due + REACH + 4 * SECOND) {
                    return Err(format!("I2: after a quiet time the server would end {name} later than the pass"));
                }
                let left = pass.ends_at.map_or(0, |at| at.micros() - self.nodes[0].offset - self.now);
                if left > 60 * SECOND && *expires <= self.now {
                    return Err(format!("I2: after a quiet time the server does not let {name} in, which is good"));
                }
            }
        }
        if let Some(stuck) = ledger.open_passes().find(|p| matches!(p.state(), State::Approved { .. }) && !self.oracle.is_frozen(p.environment)) {
            return Err(format!("I9: {} is approved and never becomes ready", stuck.account));
        }
        let export = format!("{}\n{}", self.log.join("\n"), self.nodes[0].head.line());
        chain::verify(export.lines(), None).map_err(|broken| format!("I7: {broken}")).map(drop)
    }

    fn lapse(&mut self, node: usize) -> Result<(), String> {
        let waiting: Vec<PassId> = self.nodes[node].ledger.passes().filter(|p| *p.state() == State::Requested).map(|p| p.id).collect();
        for pass in waiting {
            self.submit(node, Command::Observed(Observed::Lapse { pass }), Actor::System)?.map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// When a line was written, by the clock of its node.
fn serde_at(line: &str) -> i64 {
    let at = line.split_once("\"at\":\"").and_then(|(_, rest)| rest.split_once('"')).map(|(at, _)| at).expect("a line has its moment");
    at.parse::<Time>().expect("a moment").micros()
}

fn hash_of(line: &str) -> chain::Hash {
    let hex = &line[line.len() - 66..line.len() - 2];
    daypass_core::secret::unhex(hex).expect("a line ends with its hash")
}
