//! The one place that opens the door. Everything a gateway lets in, it lets in because of [`admit`].

use crate::{
    environment::{Engine, Environment, Target},
    ledger::Ledger,
    names::shown,
    pass::{Cause, Pass, State},
    people::Permission,
    policy::Policy,
    time::Time,
};
use std::net::IpAddr;

/// Somebody who has proved to know the password of `account`, and where they come from.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub account: &'a str,
    /// The database that the client named; none when the tool left it out.
    pub database: Option<&'a str>,
    /// The first labels of the server names that the client used, where its protocol tells.
    pub servers: &'a [String],
    /// The engine whose protocol the client speaks.
    pub engine: Engine,
    pub address: IpAddr,
    /// Sessions of this pass that are open now, on all gateways of this node.
    pub open_sessions: usize,
}

/// The door is open, as long as `until` says.
#[derive(Debug)]
pub struct Admit<'a> {
    pub pass: &'a Pass,
    pub environment: &'a Environment,
    pub target: &'a Target,
    pub until: Standing,
    /// What counts for the session besides its end.
    pub policy: &'a Policy,
}

/// Why the door stays shut. Its words are for the holder of the password, who has proved to be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No such account: answered like a wrong password.
    Unknown,
    NotReady {
        account: String,
    },
    Over {
        environment: String,
        cause: Cause,
    },
    AddressNotAllowed {
        environment: String,
        address: IpAddr,
        database: String,
        account: String,
    },
    WrongDatabase {
        asked: String,
        database: String,
    },
    /// The account is one of another engine: the tool, or the port, is the wrong one.
    WrongEngine {
        engine: Engine,
    },
    /// The server name is that of another environment.
    WrongServer {
        asked: String,
        environment: String,
    },
    AccessNotAllowed {
        environment: String,
        policy: String,
    },
    /// The policy has come to ask for approvals that this pass does not have.
    NotApproved {
        environment: String,
        policy: String,
    },
    TooManySessions {
        environment: String,
        most: u16,
    },
    Frozen {
        environment: String,
    },
    /// Others are to get in as well.
    TargetShare {
        environment: String,
    },
    /// The target has connections left for its other work only.
    TargetFull {
        environment: String,
    },
}

/// Decides about a login, once the password is proved. Order: account, life, address, engine, server, database, policy, limits.
pub fn admit<'a>(ledger: &'a Ledger, attempt: &Attempt<'_>, now: Time) -> Result<Admit<'a>, Refused> {
    let pass = ledger.pass_of_account(attempt.account).ok_or(Refused::Unknown)?;
    let env = ledger.environment(pass.environment).ok_or(Refused::Unknown)?;
    let name = || env.spec.name.to_string();
    let until = match standing(ledger, pass, attempt.address, now) {
        Ok(until) => until,
        Err(Fallen::Over(cause)) => return Err(Refused::Over { environment: name(), cause }),
        Err(Fallen::NotReady) => return Err(Refused::NotReady { account: pass.account.to_string() }),
        Err(Fallen::Frozen) => return Err(Refused::Frozen { environment: name() }),
        Err(Fallen::AddressNotAllowed) => {
            return Err(Refused::AddressNotAllowed {
                environment: name(),
                address: attempt.address.to_canonical(),
                database: env.spec.database.to_string(),
                account: pass.account.to_string(),
            });
        }
    };
    let target = ledger.target(env.target).ok_or(Refused::Unknown)?;
    if attempt.engine != target.spec.engine {
        return Err(Refused::WrongEngine { engine: target.spec.engine });
    }
    // names that are no environment's lead here as well: an alias of the gateway, its address
    let other = |other: &Environment| other.id != env.id && ledger.may(pass.holder, Permission::SeeEnvironment, Some(other.id));
    let elsewhere = |asked: &&String| asked.parse().is_ok_and(|name| ledger.environment_named(&name).is_some_and(other));
    if let Some(asked) = attempt.servers.iter().find(elsewhere) {
        return Err(Refused::WrongServer { asked: shown(asked), environment: name() });
    }
    // psql sends the user name as database when none is named; the environment's own name is accepted as well
    let asked = attempt.database.filter(|asked| *asked != attempt.account);
    let fits = |asked: &&str| target.spec.engine.is_database(asked, env.spec.database.as_str()) || *asked == env.spec.name.as_str();
    if let Some(asked) = asked.filter(|asked| !fits(asked)) {
        return Err(Refused::WrongDatabase { asked: shown(asked), database: env.spec.database.to_string() });
    }
    let policy: &Policy = ledger.policy(env);
    if !policy.access.contains(&pass.wish.access) {
        return Err(Refused::AccessNotAllowed { environment: name(), policy: policy.name.to_string() });
    }
    // the newest policy counts: what it has come to ask for since, this pass has to have
    let excused = pass.wish.break_glass && !policy.break_glass.is_empty();
    if pass.agreed.len() < policy.approvals(pass.wish.access) && !excused {
        return Err(Refused::NotApproved { environment: name(), policy: policy.name.to_string() });
    }
    if attempt.open_sessions >= usize::from(policy.sessions_per_pass) {
        return Err(Refused::TooManySessions { environment: name(), most: policy.sessions_per_pass });
    }
    Ok(Admit { pass, environment: env, target, until, policy })
}

/// Why a session that was let in has to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fallen {
    Over(Cause),
    NotReady,
    Frozen,
    AddressNotAllowed,
}

/// Until when a pass counts from an address, and what ends it then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    pub until: Time,
    pub then: Fallen,
}

/// What the window of a session that is ended shows: the reason, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub why: String,
    pub remedy: String,
}

impl Told {
    /// The session ends and the access goes on.
    pub fn and_connect_again(why: impl Into<String>) -> Told {
        Told { why: why.into(), remedy: "Your access goes on: connect again.".to_owned() }
    }
}

/// Whether a pass counts from an address: to the earlier end of pass and allow entry. Asked again whenever the ledger changes.
pub fn standing(ledger: &Ledger, pass: &Pass, address: IpAddr, now: Time) -> Result<Standing, Fallen> {
    let now = ledger.clamp(now);
    if let Some(cause) = ledger.over(pass, now) {
        return Err(Fallen::Over(cause));
    }
    let env = ledger.environment(pass.environment).ok_or(Fallen::NotReady)?;
    if env.frozen_by.is_some() {
        return Err(Fallen::Frozen);
    }
    let State::Ready { ends_at } = *pass.state() else { return Err(Fallen::NotReady) };
    let allowed_until = ledger.allow().until(env.id, pass.holder, address, env.epoch(), now).ok_or(Fallen::AddressNotAllowed)?;
    Ok(if allowed_until < ends_at {
        Standing { until: allowed_until, then: Fallen::AddressNotAllowed }
    } else {
        Standing { until: ends_at, then: Fallen::Over(Cause::Expired) }
    })
}

/// What helps while a database is being moved.
fn when_moved(environment: &str) -> String {
    format!("Ask again when the movement is finished; daypass env show {environment} tells.")
}

impl Cause {
    /// What helps whose access ended by it.
    pub fn remedy(&self, environment: &str) -> String {
        match self {
            Cause::Expired
            | Cause::Returned
            | Cause::Revoked { .. }
            | Cause::Replaced
            | Cause::Forbidden { .. }
            | Cause::ClockDoubted
            | Cause::Failed { .. } => format!("Ask for new access: daypass request {environment} --reason '...'"),
            Cause::Moved { .. } => when_moved(environment),
            Cause::HolderLocked => "Ask an administrator of Daypass why.".to_owned(),
            Cause::EnvironmentRemoved => "Ask whoever runs Daypass where the database is now.".to_owned(),
        }
    }
}

impl Fallen {
    /// What the window of a session that is cut off shows.
    pub fn told(&self, environment: &str) -> Told {
        let why = match self {
            Fallen::Over(cause) => format!("your access to {environment} {}", cause.words()),
            Fallen::NotReady => format!("your access to {environment} is not ready"),
            Fallen::Frozen => format!("your access to {environment} ended because the database is being replaced"),
            Fallen::AddressNotAllowed => format!("your address is no longer allowed on {environment}"),
        };
        let remedy = match self {
            Fallen::Over(cause) => cause.remedy(environment),
            Fallen::NotReady => "Wait a moment and connect again; `daypass passes` shows when it is ready.".to_owned(),
            Fallen::Frozen => when_moved(environment),
            Fallen::AddressNotAllowed => format!("Your access goes on: enter the address again with daypass allow {environment}, then connect again."),
        };
        Told { why, remedy }
    }
}

impl Refused {
    /// What is wrong, in a sentence that stands in the client's own error window.
    pub fn words(&self) -> String {
        match self {
            Refused::Unknown => "password authentication failed".to_owned(),
            Refused::NotReady { account } => format!("the account {account} is still being made"),
            Refused::Over { environment, cause } => format!("your access to {environment} {}", cause.words()),
            Refused::AddressNotAllowed { address, database, account, .. } => {
                format!("no access for host \"{address}\", user \"{account}\", database \"{database}\": the address is not on the allow-list")
            }
            Refused::WrongDatabase { asked, database } => format!("database \"{asked}\" does not exist for this account: it opens \"{database}\" only"),
            Refused::WrongEngine { engine } => format!("this account is one of {}", engine.title()),
            Refused::WrongServer { asked, environment } => format!("the server name {asked} is not that of {environment}, which this account opens"),
            Refused::AccessNotAllowed { environment, policy } => format!("policy '{policy}' of {environment} no longer allows the access of this account"),
            Refused::NotApproved { environment, policy } => format!("policy '{policy}' of {environment} asks for an approval that this account does not have"),
            Refused::TooManySessions { environment, most } => format!("too many connections for this account: {environment} allows {most} at once"),
            Refused::Frozen { environment } => format!("{environment} is closed while its database is being replaced"),
            Refused::TargetShare { environment } => {
                format!("your sessions have three quarters of the connections that the server of {environment} has for people: the rest is kept for others")
            }
            Refused::TargetFull { environment } => {
                format!("the server of {environment} has no connection left for another session: what it still has is kept for ending access")
            }
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Refused::Unknown => "Check the user name and the password; `daypass passes` shows your accounts.".to_owned(),
            Refused::NotReady { .. } => "Wait a moment and connect again; `daypass passes` shows when it is ready.".to_owned(),
            Refused::Over { environment, cause } => cause.remedy(environment),
            Refused::AddressNotAllowed { environment, address, .. } => format!("Enter the address first: daypass allow {environment} {address}"),
            Refused::WrongDatabase { database, .. } => format!("Connect to the database {database}."),
            Refused::WrongEngine { engine } => format!("Use a tool for {} and the port that `daypass passes` shows.", engine.title()),
            Refused::WrongServer { environment, .. } => format!("Connect to the server name of {environment}: daypass env show {environment} prints it."),
            Refused::AccessNotAllowed { environment, .. } => format!("Ask for an account with an access that the policy allows: daypass request {environment}"),
            Refused::NotApproved { environment, .. } => format!("Ask anew, and have it approved: daypass request {environment}"),
            Refused::TooManySessions { .. } => "Close a connection, then try again.".to_owned(),
            Refused::TargetShare { .. } => "Close a connection that you do not need.".to_owned(),
            Refused::TargetFull { .. } => "Close a connection that you do not need, or try again when others have closed theirs.".to_owned(),
            Refused::Frozen { environment } => when_moved(environment),
        }
    }
}
