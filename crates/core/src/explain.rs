//! From the text of a client's error to its cause and the way out. People paste what their tool showed, wrapping and all.

use crate::{admission, ledger::Ledger, names::AccountName, pass::State, time::Time};
use std::net::IpAddr;

/// What an error text means.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Explanation {
    pub cause: String,
    pub remedy: String,
}

/// Explains an error text. `ledger` is what the reader may know: a shell passes the ledger for people who may see the pass, or none.
pub fn explain(text: &str, ledger: Option<&Ledger>, now: Time) -> Explanation {
    let say = |cause: &str, remedy: &str| Explanation { cause: cause.to_owned(), remedy: remedy.to_owned() };
    if let Some(found) = ledger.and_then(|ledger| by_account(text, ledger, now)) {
        return found;
    }
    let text = text.to_lowercase();
    let has = |words: &str| text.contains(words);
    if has("no access for host") || has("not on the allow-list") {
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
    } else if has("password authentication failed") {
        say(
            "The user name or the password is wrong, or the account has been gone for long.",
            "Copy both again from `daypass passes` / `daypass request`; an old account needs a new request.",
        )
    } else if has("requires tls") || has("sslmode=require") {
        say(
            "The connection was not encrypted; the gateway takes encrypted ones only.",
            "Switch on TLS: sslmode=verify-full with the CA file that `daypass connect --print ENV` names.",
        )
    } else if has("certificate verify failed") || has("root certificate file") || has("unable to get local issuer") {
        say(
            "The client does not know the CA that signed the gateway's certificate.",
            "Give it the CA file: sslrootcert=… as `daypass connect --print ENV` names it.",
        )
    } else if has("does not match host name") {
        say(
            "The client connected under a name that is not in the gateway's certificate.",
            "Use the server name that `daypass env show ENV` prints, or add the name to `gateway.names` in the configuration.",
        )
    } else if has("does not exist for this account") || (has("database") && has("does not exist")) {
        say("The database named in the tool is not the one that the account opens.", "Name the database that `daypass passes` shows.")
    } else if has("too many connections") {
        say("The account has as many connections as the policy allows.", "Close some: many tools open several at once.")
    } else if has("connection refused") || has("could not connect") || has("timeout expired") {
        say("No answer from that address and port.", "Check host and port with `daypass env show ENV`, and that `daypass serve` runs (`daypass doctor`).")
    } else if has("target refused") || has("target is not reachable") || has("cannot_connect_now") {
        say("The gateway could not reach the database behind it.", "Nothing is wrong with your access; `daypass env test ENV` shows what the target says.")
    } else {
        say("This text is not one that Daypass writes.", "Look at the tool's own manual; `daypass passes` shows whether your access is in order.")
    }
}

/// An account named in the text says more than the text.
fn by_account(text: &str, ledger: &Ledger, now: Time) -> Option<Explanation> {
    let word = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let account = text.split(word).find_map(|w| w.parse::<AccountName>().ok())?;
    let pass = ledger.pass_of_account(account.as_str())?;
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
    let address = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':')).filter(|w| w.len() > 6).find_map(|w| w.parse::<IpAddr>().ok());
    match address.map(|address| (address, admission::standing(ledger, pass, address, now))) {
        Some((address, Err(admission::Fallen::AddressNotAllowed))) => Some(Explanation {
            cause: format!("The account {account} is good until {ends_at}, but the address {address} is not entered on {env}."),
            remedy: format!("Enter it: daypass allow {env} {address}"),
        }),
        _ => Some(Explanation {
            cause: format!("The account {account} on {env} is in order until {ends_at}."),
            remedy: "Check the password and the database name that the tool uses.".to_owned(),
        }),
    }
}
