//! From the text of a client's error to its cause and the way out. People paste what their tool showed, wrapping and all.

use crate::{
    admission,
    allow::{AllowEntry, Owner},
    environment::{Enforce, Environment},
    ids::{EnvironmentId, UserId},
    ledger::Ledger,
    names::{AccountName, server_label},
    pass::{Pass, State},
    people::Permission,
    time::Time,
};
use std::net::IpAddr;

/// What an error text means.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Explanation {
    pub cause: String,
    pub remedy: String,
}

/// Who asks, and what there is to know. What they may not see is not there.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub ledger: &'a Ledger,
    pub user: UserId,
}

/// Explains an error text, the drivers' wrappings and all.
pub fn explain(text: &str, reader: Option<Reader<'_>>, now: Time) -> Explanation {
    let found = reader.and_then(|reader| by_account(text, reader, now).or_else(|| by_environment(text, reader, now)));
    found.or_else(|| by_words(&text.to_lowercase())).unwrap_or_else(|| Explanation {
        cause: "This text is not one that Daypass writes.".to_owned(),
        remedy: "Look at the tool's own manual; `daypass passes` shows whether your access is in order.".to_owned(),
    })
}

/// What the words alone say, in small letters; none when they are not known.
fn by_words(text: &str) -> Option<Explanation> {
    let say = |cause: &str, remedy: &str| Explanation { cause: cause.to_owned(), remedy: remedy.to_owned() };
    let has = |words: &str| text.contains(words);
    let found = if has("the server says this, not daypass") {
        match has("and it passes") {
            true => say("The database server itself does not take connections at the moment, for the reason in the text.", "Try again in a moment."),
            false => say("The database server itself refused the connection, for the reason in the text.", "Ask whoever looks after the database."),
        }
    } else if has("no connection left for another session") || has("try again when others have closed theirs") {
        say("The database server has no connection left for people.", "Close one that you do not need, or try again when others have closed theirs.")
    } else if has("no access for host") || has("not on the allow-list") || (has("client with ip address") && has("is not allowed to access the server")) {
        say(
            "The address that the connection came from is not entered on the environment, or its entry has ended.",
            "Enter it: daypass allow ENV (add the address that the message names if you come through another network).",
        )
    } else if has("no longer allowed on") {
        say("The allow entry of the address ended or was removed, so the session was closed.", "Enter the address again: daypass allow ENV")
    } else if has("has expired") {
        say("The time of the account is over.", "Ask for a new one: daypass request ENV --reason '...'")
    } else if has("being replaced") || has("was replaced") {
        say(
            "The database was replaced by a movement; all access to it ended at that moment.",
            "When the movement is finished, enter your address and ask again: daypass connect ENV",
        )
    } else if has("was revoked") {
        say("Somebody ended the account; the log says who and why.", "Ask the person who revoked it, or ask for a new one: daypass request ENV")
    } else if has("was given back") {
        say("The account was given back by its holder.", "Ask for a new one: daypass request ENV")
    } else if has("40914") || has("client is not allowed to access the server") {
        say(
            "Azure refused the network that the connection came from: a virtual network rule of the server, not one of Daypass.",
            "The administrator of the Azure server has to let the gateway's network in; your access is not the cause.",
        )
    } else if has("47072") || has("invalid tls version") {
        say("The client's TLS is older than the server takes.", "Update the driver, or have it use TLS 1.2 or later.")
    } else if has("40532") || has("40531") || has("cannot open server") || has("the server name") && has("is not that of") {
        say(
            "The server name in the tool is not one that leads to this account's environment.",
            "Copy the server name again: daypass env show ENV prints it; the account alone names the way as well.",
        )
    } else if has("40613") || has("is not currently available") {
        say(
            "The database behind the gateway cannot be reached at the moment, or it is being moved.",
            "Try again; daypass env show ENV says whether a movement runs, daypass env test ENV what the server says.",
        )
    } else if has("4060") || has("cannot open database") {
        say(
            "The database named in the tool is not the one that the account opens.",
            "Type the database that `daypass passes` shows: in SSMS under Options > Connection Properties > Connect to database.",
        )
    } else if has("password authentication failed") || has("18456") || has("login failed for user") {
        say(
            "The user name or the password is wrong, or the account has been gone for long.",
            "Copy both again from `daypass passes` / `daypass request`; an old account needs a new request.",
        )
    } else if has("requires tls") || has("sslmode=require") {
        say(
            "The connection was not encrypted; the gateway takes encrypted ones only.",
            "Switch on TLS: in psql sslmode=verify-full, in tools of SQL Server Encrypt=Mandatory. `daypass reveal ACCOUNT` shows the settings for each tool.",
        )
    } else if has("certificate verify failed")
        || has("certificate chain was issued by an authority that is not trusted")
        || has("self-signed certificate in certificate chain")
        || has("root certificate file")
        || has("unable to get local issuer")
    {
        say(
            "The client does not know the CA that signed the gateway's certificate.",
            "Give it ca.pem, which Daypass shows with the account (daypass reveal ACCOUNT --for TOOL): psql by sslrootcert=..., drivers of SQL Server by \
             the machine's store of trusted certificates, or SSMS's 'Trust server certificate'.",
        )
    } else if has("does not match host name") {
        say(
            "The client connected under a name that is not in the gateway's certificate.",
            "Use the server name that `daypass env show ENV` prints, or add the name to `gateway.names` in the configuration.",
        )
    } else if has("does not exist for this account") || (has("database") && has("does not exist")) {
        say("The database named in the tool is not the one that the account opens.", "Name the database that `daypass passes` shows.")
    } else if has("unrecognized configuration parameter") || has("invalid value for parameter") || has("does not take a setting") {
        say(
            "The database server does not take a setting that the connection asks for; it says which.",
            "Change it in the tool's connection settings (options, time zone, search path); your access is not the cause.",
        )
    } else if has("did not let the gateway in") {
        say(
            "The database server refused the gateway's own login.",
            "Nothing is wrong with your access: tell whoever runs Daypass, with the reference in the message; `daypass env test ENV` looks for the cause.",
        )
    } else if has("too many connections") {
        say("The account has as many connections as the policy allows.", "Close some: many tools open several at once.")
    } else if has("connection refused") || has("could not connect") || has("timeout expired") {
        say("No answer from that address and port.", "Check host and port with `daypass env show ENV`, and that `daypass serve` runs (`daypass doctor`).")
    } else if has("did not let the gateway in") {
        say(
            "The server behind did not take the gateway's own login: nothing is wrong with your access.",
            "Tell whoever runs Daypass, with the reference in the text; `daypass env test ENV` looks for the cause.",
        )
    } else if has("target refused") || has("target is not reachable") || has("cannot_connect_now") {
        say("The gateway could not reach the database behind it.", "Nothing is wrong with your access; `daypass env test ENV` shows what the target says.")
    } else if has("this account is one of") {
        say("The account is one of another engine than the tool speaks to.", "Use a tool of that engine, and the port that `daypass reveal ACCOUNT` shows.")
    } else if has("asks for an approval") {
        say("The policy has come to ask for an approval that this account does not have.", "Ask for a new account: daypass request ENV --reason '...'")
    } else if has("no longer allows the access") {
        say("The policy does not allow this kind of access any more.", "Ask for another kind: daypass request ENV --access read --reason '...'")
    } else if has("its holder is locked") {
        say("The person who holds the account was locked, and all their access ended.", "Ask an administrator of Daypass why.")
    } else if has("environment was removed") {
        say("The environment was removed from Daypass, and all access to it ended.", "Ask whoever runs Daypass where the database is now.")
    } else if has("policy no longer allows it") {
        say("The policy was changed and does not allow this access any more.", "Ask for what it allows: daypass request ENV --reason '...'")
    } else if has("could not trust its clock") {
        say(
            "Daypass was started with a clock that could not be trusted, and ended what had been open.",
            "Ask for new access: daypass request ENV --reason '...'",
        )
    } else if has("account could not be made") {
        say("The account could not be made in time; `daypass passes --all` says why.", "Tell whoever runs Daypass, and ask again when it is mended.")
    } else if has("still being made") || has("is not ready") {
        say("The account is still being made.", "Wait a moment and connect again; `daypass passes` shows when it is ready, or what is in the way.")
    } else if has("three quarters of the connections") {
        say("You have as many connections as one person may have on this database server.", "Close one that you do not need.")
    } else if has("nothing happened in this session") {
        say("The session was idle for longer than the policy allows; the access goes on.", "Connect again.")
    } else if has("this session was ended by") {
        say("Somebody ended this session; the access goes on.", "Ask the person who is named, or connect again.")
    } else if has("daypass is stopping") {
        say("Daypass itself was stopped or started anew; the access goes on.", "Connect again in a moment.")
    } else if has("could not be recorded") {
        say(
            "What the session does could not be put on record, so it was ended: nothing goes unrecorded.",
            "Connect again; if it happens again, tell whoever runs Daypass (`daypass doctor`), with the name and version of the tool.",
        )
    } else if has("distributed transaction") {
        say(
            "The tool asked for a distributed transaction, which others could commit after the access has ended.",
            "Switch it off in the tool, or use one transaction on this database.",
        )
    } else if has("the target closed the connection") || has("terminating connection due to administrator command") {
        say("The database server closed the connection, not Daypass.", "Connect again; if it goes on, ask whoever looks after the database server.")
    } else if has("does not have mars") {
        say("The server behind does not have MARS, which the tool asks for.", "Switch it off in the connection's settings (MultipleActiveResultSets=False).")
    } else {
        return None;
    };
    Some(found)
}

/// An account named in the text says more than the text.
fn by_account(text: &str, Reader { ledger, user }: Reader<'_>, now: Time) -> Option<Explanation> {
    let word = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let account = text.split(word).find_map(|w| w.parse::<AccountName>().ok())?;
    let visible = |pass: &&Pass| pass.holder == user || ledger.may(user, Permission::SeeAccess, Some(pass.environment));
    let pass = ledger.pass_of_account(account.as_str()).filter(visible)?;
    let env = ledger.environment(pass.environment)?.spec.name.to_string();
    if let Some(cause) = ledger.over(pass, now) {
        let when = pass.ends_at.map(|at| format!(" (it was to end at {at})")).unwrap_or_default();
        return Some(Explanation {
            cause: format!("The access of {account} to {env} {}{when}.", cause.words()),
            remedy: format!("Ask for a new account: daypass request {env} --reason '...'"),
        });
    }
    let State::Ready { ends_at } = *pass.state() else {
        return Some(Explanation {
            cause: format!("The account {account} on {env} is {}, not ready.", pass.state().word()),
            remedy: "Wait until it is ready: `daypass passes` shows it.".to_owned(),
        });
    };
    match address_in(text).map(|address| (address, admission::standing(ledger, pass, address, now))) {
        Some((address, Err(admission::Fallen::AddressNotAllowed))) => {
            let entry = entry_for(ledger, pass.environment, user, address, now);
            Some(Explanation {
                cause: format!("The account {account} is good until {ends_at}, but the address {address} is not allowed on {env}: {entry}"),
                remedy: format!("Enter it: daypass allow {env} {address}"),
            })
        }
        Some((address, Ok(_))) if text.contains("is not allowed to access") || text.contains("no access for host") => Some(Explanation {
            cause: format!("The account {account} on {env} is in order until {ends_at}, and the address {address} is allowed by now."),
            remedy: "Connect again.".to_owned(),
        }),
        _ if names_another_database(text) => {
            let database = &ledger.environment(pass.environment)?.spec.database;
            Some(Explanation {
                cause: format!("The account {account} is in order until {ends_at}; the tool named another database than the one it opens."),
                remedy: format!("Connect to the database {database}: in SSMS under Options > Connection Properties > Connect to database."),
            })
        }
        _ => {
            // drivers put "Login failed for user" before all that the gateway says; what stands behind it is the cause
            let lower = text.to_lowercase();
            let rest = ["login failed for user", "password authentication failed", "18456"].iter().fold(lower, |text, words| text.replace(words, ""));
            let found = by_words(&rest)
                .unwrap_or_else(|| Explanation { cause: String::new(), remedy: "Check the password and the database name that the tool uses.".to_owned() });
            let cause = format!("The account {account} on {env} is in order until {ends_at}. {}", found.cause);
            Some(Explanation { cause: cause.trim_end().to_owned(), remedy: found.remedy })
        }
    }
}

/// Azure's and SQL Server's texts name the server, which is the environment, in place of the account.
fn by_environment(text: &str, Reader { ledger, user }: Reader<'_>, now: Time) -> Option<Explanation> {
    let lower = text.to_lowercase();
    let mine = |env: &&Environment| ledger.may(user, Permission::SeeEnvironment, Some(env.id));
    // without a gateway in between, Azure names its own server
    let is_server = |env: &&Environment, label: &str| ledger.target(env.target).is_some_and(|t| t.spec.host.as_str().split('.').next() == Some(label));
    let named = text.split(['\'', '"']).filter_map(|name| server_label(name.split('.').next()?, None)).find_map(|label| {
        let by_name = label.parse().ok().and_then(|name| ledger.environment_named(&name)).filter(mine);
        let directly = |env: &&Environment| env.spec.enforce == Enforce::AzureSqlFirewall && is_server(env, &label);
        by_name.or_else(|| ledger.environments().filter(mine).find(directly))
    });
    let env = named?;
    let name = &env.spec.name;
    if env.frozen_by.is_some() {
        return Some(Explanation {
            cause: format!("{name} is closed while its database is being moved; all access to it ended when the movement began."),
            remedy: format!("When daypass env show {name} says open, enter your address and ask again: daypass connect {name}"),
        });
    }
    if lower.contains("is not allowed to access the server")
        && let Some(address) = address_in(text)
    {
        let live = ledger.open_passes().filter(|pass| pass.holder == user && pass.environment == env.id && ledger.over(pass, now).is_none()).count();
        let pass = if live == 0 { format!(" You have no live account on {name} either.") } else { String::new() };
        let allowed = ledger.allow().until(env.id, user, address, env.epoch(), now).is_some();
        let entry = entry_for(ledger, env.id, user, address, now);
        return Some(match allowed {
            true => Explanation {
                cause: format!("The address {address} is allowed on {name} by now.{pass}"),
                remedy: if live == 0 { format!("Ask for an account: daypass request {name} --reason '...'") } else { "Connect again.".to_owned() },
            },
            false => Explanation {
                cause: format!("The address {address} is not allowed on {name}: {entry}{pass}"),
                remedy: if live == 0 {
                    format!("Both at once: daypass connect {name} --reason '...'")
                } else {
                    format!("Enter it: daypass allow {name} {address}")
                },
            },
        });
    }
    // the server's own reason, where there is one, is in the words
    (lower.contains("is not currently available") && !lower.contains("the server says this")).then(|| Explanation {
        cause: format!("{name} is not being moved; the server behind it could not be reached."),
        remedy: format!("Try again; daypass env test {name} shows what the server says."),
    })
}

/// What became of the entries that would let this address in.
fn entry_for(ledger: &Ledger, environment: EnvironmentId, user: UserId, address: IpAddr, now: Time) -> String {
    let Some(env) = ledger.environment(environment) else { return String::new() };
    let mine = |entry: &&AllowEntry| {
        let owned = entry.owner == Owner::Shared || entry.owner == Owner::Person(user);
        entry.environment == environment && owned && entry.ranges.iter().any(|range| range.contains(address))
    };
    let Some(last) = ledger.allow().iter().filter(mine).max_by_key(|entry| entry.added_at) else { return "it was never entered.".to_owned() };
    match (env.end_of(last.epoch), last.removed_at) {
        (Some(_), _) => "its entry ended when the database was moved or replaced.".to_owned(),
        (None, Some(at)) => format!("its entry was removed at {at}."),
        (None, None) if now >= last.ends_at => format!("its entry ended at {}.", last.ends_at),
        (None, None) => "it is entered.".to_owned(),
    }
}

/// The first address in a text.
fn address_in(text: &str) -> Option<IpAddr> {
    text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':')).map(|w| w.trim_matches('.')).filter(|w| w.len() > 6).find_map(|w| w.parse().ok())
}

fn names_another_database(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("cannot open database") || lower.contains("does not exist for this account")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::Cause;

    /// One of each, in an order in which none can be left out: a new one does not compile here.
    fn every_refusal() -> Vec<admission::Refused> {
        use admission::Refused::*;
        let e = || "uat".to_owned();
        let next = |refused: &admission::Refused| match refused {
            Unknown => Some(NotReady { account: "jit_maria_aaaa".to_owned() }),
            NotReady { .. } => Some(Over { environment: e(), cause: Cause::Expired }),
            Over { .. } => Some(AddressNotAllowed { environment: e(), address: [10, 0, 0, 7].into(), database: e(), account: "jit_maria_aaaa".to_owned() }),
            AddressNotAllowed { .. } => Some(WrongDatabase { asked: "other".to_owned(), database: e() }),
            WrongDatabase { .. } => Some(WrongEngine { engine: crate::environment::Engine::Postgres }),
            WrongEngine { .. } => Some(WrongServer { asked: "other".to_owned(), environment: e() }),
            WrongServer { .. } => Some(AccessNotAllowed { environment: e(), policy: "usual".to_owned() }),
            AccessNotAllowed { .. } => Some(NotApproved { environment: e(), policy: "usual".to_owned() }),
            NotApproved { .. } => Some(TooManySessions { environment: e(), most: 20 }),
            TooManySessions { .. } => Some(Frozen { environment: e() }),
            Frozen { .. } => Some(TargetFull { environment: e() }),
            TargetFull { .. } => Some(TargetShare { environment: e() }),
            TargetShare { .. } => None,
        };
        std::iter::successors(Some(Unknown), next).collect()
    }

    fn every_cause() -> Vec<Cause> {
        let id = uuid::Uuid::nil();
        let next = |cause: &Cause| match cause {
            Cause::Expired => Some(Cause::Returned),
            Cause::Returned => Some(Cause::Revoked { by: UserId::new(id), why: "enough".parse().unwrap() }),
            Cause::Revoked { .. } => Some(Cause::Moved { movement: crate::ids::MovementId::new(id) }),
            Cause::Moved { .. } => Some(Cause::Replaced),
            Cause::Replaced => Some(Cause::HolderLocked),
            Cause::HolderLocked => Some(Cause::EnvironmentRemoved),
            Cause::EnvironmentRemoved => Some(Cause::Forbidden { policy: "usual".parse().unwrap() }),
            Cause::Forbidden { .. } => Some(Cause::ClockDoubted),
            Cause::ClockDoubted => Some(Cause::Failed { why: "no".to_owned() }),
            Cause::Failed { .. } => None,
        };
        std::iter::successors(Some(Cause::Expired), next).collect()
    }

    #[test]
    fn every_sentence_that_ends_or_refuses_access_is_known() {
        use admission::Fallen;
        let fallen = [Fallen::NotReady, Fallen::Frozen, Fallen::AddressNotAllowed].into_iter().chain(every_cause().into_iter().map(Fallen::Over));
        let over = every_cause().into_iter().map(|cause| admission::Refused::Over { environment: "uat".to_owned(), cause });
        let refused = every_refusal().into_iter().chain(over).map(|refused| (refused.words(), refused.remedy()));
        let told = fallen.map(|fallen| fallen.told("uat")).map(|told| (told.why, told.remedy));
        let mut causes = std::collections::BTreeSet::new();
        for (words, remedy) in refused.chain(told) {
            let found = explain(&format!("FATAL:  {words}\nHINT:  {remedy}"), None, Time::from_micros(0));
            assert!(!found.cause.contains("not one that Daypass writes"), "{words}");
            // and by its own words alone, as a log has them
            assert_eq!(explain(&words, None, Time::from_micros(0)).cause, found.cause, "{words}: the hint leads elsewhere");
            causes.insert(found.cause);
        }
        assert!(causes.len() >= 20, "one sentence for many causes: {causes:#?}");
    }

    #[test]
    fn texts_of_sql_server_and_azure_are_known_without_a_ledger_too() {
        let cause = |text: &str| explain(text, None, Time::from_micros(0)).cause;
        let odbc = "[Microsoft][ODBC Driver 18 for SQL Server][SQL Server]";
        for (text, part) in [
            ("Cannot open server 'uat' requested by the login. Client with IP address '10.0.0.7' is not allowed to access the server.", "is not entered"),
            ("Cannot open server 'uat' requested by the login. Client is not allowed to access the server. (40914)", "virtual network rule"),
            ("Cannot open server \"uatt\" requested by the login. The login failed. (Microsoft SQL Server, Error: 40532)", "server name"),
            ("Cannot open database \"master\" requested by the login. The login failed. (4060)", "database named in the tool"),
            ("Login failed for user 'sa'. (Microsoft SQL Server, Error: 18456)", "user name or the password"),
            ("Database 'uat' on server 'uat' is not currently available. Please retry the connection later.", "cannot be reached"),
            ("Reason: Login failed due to client TLS version being less than minimal TLS version; 47072", "older than"),
            ("The certificate chain was issued by an authority that is not trusted.", "does not know the CA"),
            ("Your session was ended: your access to uat has expired.", "time of the account"),
        ] {
            for wrapped in [text.to_owned(), format!("{odbc}{text}"), format!("RequestError: {text}")] {
                assert!(cause(&wrapped).contains(part), "{wrapped}: {}", cause(&wrapped));
            }
        }
    }
}
