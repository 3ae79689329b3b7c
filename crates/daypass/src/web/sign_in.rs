//! Proving who one is: name and password, and the code of a second factor where one is set. API and console come through here.
//!
//! Attempts are counted by name and address together, so that nobody can lock another person out. No address is closed to everybody for
//! what somebody does from there: who has signed in from a place before has a lane of their own, and the others wait in another one.

use super::{App, Problem, auth};
use crate::random;
use axum::http::StatusCode;
use daypass_core::{
    command::Command,
    event::Actor,
    ids::*,
    names::UserName,
    people::TokenKind,
    secret::{Secret, TokenHash},
    time::Ttl,
};
use daypass_gateway::{
    World,
    places::{Place, Places, network},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use totp_rs::{Builder, Totp};

pub use daypass_core::ledger::SIGNED_IN;

/// Attempts in a row of one name from one address, and how long until there is another one.
const OF_NAME: (u32, Duration) = (10, Duration::from_secs(20));
/// Sign-ins of command lines that were begun in a row from one address, and forms of the provider; nothing else is counted with them.
const OF_ADDRESS: (u32, Duration) = (60, Duration::from_secs(2));
/// Password checks that wait in the lane for people who have not been seen at a place before; and of one address.
const STRANGERS: usize = 64;
const STRANGERS_OF_ADDRESS: usize = 32;
/// Names and places that are known at most.
const KNOWN: usize = 10_000;
/// Codes in a row of one person who gave the right password, and how long until there is another one.
const OF_CODE: (u32, Duration) = (10, Duration::from_secs(60));
/// More keys than this are swept: those that have been quiet lose nothing by it.
const KEYS: usize = 10_000;

/// What sign-ins share.
pub struct SignIns {
    /// Password checks at once, each of which takes 19 MiB and a core for a while: one of people where they have been seen before, and one of
    /// everybody else.
    known_lane: Semaphore,
    strangers_lane: Semaphore,
    in_line: Arc<Places>,
    /// Who has signed in from where.
    known: Mutex<HashSet<(UserName, IpAddr)>>,
    of_name: DefaultKeyedRateLimiter<(UserName, IpAddr)>,
    of_address: DefaultKeyedRateLimiter<IpAddr>,
    /// Codes of a second factor, by whoever knows the password: wherever they come from.
    of_code: DefaultKeyedRateLimiter<UserId>,
    /// The last step of each person's codes that was used: a code counts once.
    used: Mutex<HashMap<UserId, u64>>,
}

impl Default for SignIns {
    fn default() -> Self {
        let quota = |(burst, period): (u32, Duration)| {
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            Quota::with_period(period).unwrap_or_else(|| Quota::per_minute(burst)).allow_burst(burst)
        };
        SignIns {
            known_lane: Semaphore::new(1),
            strangers_lane: Semaphore::new(1),
            in_line: Places::new(STRANGERS, STRANGERS_OF_ADDRESS),
            known: Mutex::default(),
            of_name: RateLimiter::keyed(quota(OF_NAME)),
            of_address: RateLimiter::keyed(quota(OF_ADDRESS)),
            of_code: RateLimiter::keyed(quota(OF_CODE)),
            used: Mutex::default(),
        }
    }
}

impl SignIns {
    /// A place among those who work with passwords, for somebody who is signed in.
    pub async fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.known_lane.acquire().await.map_err(|_| Problem::unavailable("Daypass is stopping."))
    }

    /// The same for somebody who is about to sign in.
    async fn place_of(&self, name: Option<&UserName>, address: IpAddr) -> Result<(SemaphorePermit<'_>, Option<Place>), Problem> {
        let known = name.is_some_and(|name| self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&(name.clone(), network(address))));
        if known {
            return Ok((self.place().await?, None));
        }
        let busy = || {
            let words = "Too many people whom Daypass does not know yet are signing in at this moment.";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many", words, "Try again in some seconds; who has signed in from here before does not wait.")
        };
        let in_line = self.in_line.take(address).ok_or_else(busy)?;
        let place = self.strangers_lane.acquire().await.map_err(|_| Problem::unavailable("Daypass is stopping."))?;
        Ok((place, Some(in_line)))
    }

    /// Somebody who is signed in was seen at this place.
    pub fn seen(&self, name: &UserName, address: IpAddr) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), network(address));
        if known.contains(&key) {
            return;
        }
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(key);
    }

    /// A try with a name and a password.
    fn attempt_password(&self, name: Option<&UserName>, address: IpAddr) -> Result<(), Problem> {
        if self.of_name.len() > KEYS {
            self.of_name.retain_recent();
        }
        // a name that is none is counted like one
        let nobody = || "nobody".parse::<UserName>().ok();
        match name.cloned().or_else(nobody) {
            Some(ref name) if self.of_name.check_key(&(name.clone(), network(address))).is_err() => {
                let words = "There were too many attempts to sign in with this name from here.";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many", words, "Wait a minute, then try again."))
            }
            _ => Ok(()),
        }
    }

    /// What is begun without a name: a sign-in of a command line, or one with a provider.
    pub fn attempt(&self, address: IpAddr) -> Result<(), Problem> {
        if self.of_address.len() > KEYS {
            self.of_address.retain_recent();
        }
        if self.of_address.check_key(&network(address)).is_ok() {
            return Ok(());
        }
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many", "There were too many attempts to sign in from here.", "Wait a minute, then try again."))
    }

    /// Six digits are soon guessed by whoever may guess often enough.
    fn attempt_code(&self, user: UserId) -> Result<(), Problem> {
        if self.of_code.check_key(&user).is_ok() {
            return Ok(());
        }
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many", "There were too many codes for this person.", "Wait a few minutes, then try again."))
    }

    /// Whether this code is the person's now, for the first time.
    fn take_code(&self, user: UserId, totp: &Totp, code: &str, seconds: u64) -> bool {
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let Some(step) = totp.check(&code, seconds) else { return false };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = used.get(&user).is_none_or(|last| step > *last);
        if fresh {
            used.insert(user, step);
        }
        fresh
    }
}

/// What somebody shows to be let in.
pub struct Proof<'a> {
    pub name: &'a str,
    pub password: String,
    pub code: Option<&'a str>,
    pub address: IpAddr,
}

fn wrong() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "not_signed_in",
        "The name or the password is wrong, or the person is locked.",
        "Check both; an administrator can unlock or set a new password.",
    )
}

/// The person, if the proof holds. A wrong name takes as long as a wrong password and is told in the same words.
pub async fn prove(app: &App, proof: Proof<'_>) -> Result<UserId, Problem> {
    let name = proof.name.parse::<UserName>().ok();
    app.sign_ins.attempt_password(name.as_ref(), proof.address)?;
    let known =
        name.as_ref().and_then(|name| app.node.ledger(|ledger| ledger.user_named(name).map(|user| (user.id, user.second_factor, user.locked.is_some()))));
    // nobody's password is looked up as well, so that a name that is not there takes no less work
    let looked_up = known.map_or(auth::NOBODY, |(user, ..)| user);
    // somebody who signs in with a provider only has none: then nobody's is compared as well
    let secret = async |user| app.node.store.log.secret(&auth::password_secret(user)).await;
    let (kept, known_hash) = match secret(looked_up).await? {
        Some(hash) => (Some(hash), known.is_some()),
        None => (secret(auth::NOBODY).await?, false),
    };
    let hash = kept.map(|hash| hash.expose().to_owned()).unwrap_or_default();
    let place = app.sign_ins.place_of(name.as_ref(), proof.address).await?;
    let good = auth::check_password(proof.password, hash, known_hash).await;
    drop(place);
    let (user, second_factor, _) = known.filter(|(.., locked)| good && !locked).ok_or_else(wrong)?;
    if let Some(name) = &name {
        app.sign_ins.seen(name, proof.address);
    }
    if !second_factor {
        return Ok(user);
    }
    let Some(code) = proof.code.filter(|code| !code.trim().is_empty()) else {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "second_factor",
            "The password is right; a code is needed as well.",
            "Type the six digits that your authenticator shows.",
        ));
    };
    app.sign_ins.attempt_code(user)?;
    let totp = second_factor_of(app, user).await?.ok_or_else(|| Problem::unavailable("The second factor cannot be read."))?;
    let seconds = u64::try_from(crate::clock::wall().seconds()).unwrap_or_default();
    if app.sign_ins.take_code(user, &totp, code, seconds) {
        return Ok(user);
    }
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "second_factor",
        "The code is wrong, or was used before.",
        "Wait for the next one. If all are wrong, the clock of your device is.",
    ))
}

/// A new sign-in by password. Who has roles from a provider's groups signs in there, which is where those are asked for; a password of
/// theirs confirms that it is them, and no more.
pub async fn by_password(app: &App, proof: Proof<'_>) -> Result<UserId, Problem> {
    let user = prove(app, proof).await?;
    if app.node.ledger(|ledger| ledger.user(user).is_some_and(|user| !user.group_roles.is_empty())) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "not_permitted",
            "Your roles come from your provider, so you sign in with it.",
            "Choose the provider on the page for signing in; on the command line: daypass login --sso.",
        ));
    }
    Ok(user)
}

/// A fresh token for a person; the second is its clear text, seen here only.
///
/// `proved`: its person has just proved who they are.
pub async fn issue(app: &App, user: UserId, label: String, life: Ttl, kind: TokenKind, proved: bool) -> Result<(TokenId, String), Problem> {
    let (id, token) = (TokenId::new(random::id()), random::token());
    let command = Command::AddToken { token: id, user, label, hash: TokenHash::of(&token), life, kind, proved };
    app.control.run(command, Actor::User(user)).await?;
    Ok((id, token))
}

fn second_factor_secret(user: UserId) -> String {
    format!("second-factor:{user}")
}

/// A second factor that is being set up, as an authenticator is told it by hand.
pub fn new_second_factor() -> String {
    let mut bytes = [0; 20];
    random::fill(&mut bytes);
    totp_rs::Secret::new(bytes.into()).to_base32()
}

/// The same as an `otpauth:` address, for the picture that a phone reads.
pub fn address_of(name: &UserName, secret: &str) -> Option<String> {
    totp(totp_rs::Secret::try_from_base32(secret).ok()?, name)?.to_url().ok()
}

fn totp(secret: totp_rs::Secret, name: &UserName) -> Option<Totp> {
    Builder::new().with_secret(secret).with_account_name(name.as_str()).with_issuer(Some("Daypass")).build().ok()
}

async fn second_factor_of(app: &App, user: UserId) -> Result<Option<Totp>, Problem> {
    let sealed = app.node.store.log.secret(&second_factor_secret(user)).await?;
    Ok(sealed.and_then(|text| of_text(app, user, text.expose())))
}

fn of_text(app: &App, user: UserId, text: &str) -> Option<Totp> {
    let name = app.node.ledger(|ledger| ledger.user(user).map(|user| user.name.clone()))?;
    totp(totp_rs::Secret::try_from_base32(text).ok()?, &name)
}

/// Sets the second factor, once its person has shown a code of it.
pub async fn set_second_factor(app: &App, user: UserId, secret: &str, code: &str) -> Result<(), Problem> {
    let seconds = u64::try_from(crate::clock::wall().seconds()).unwrap_or_default();
    if !of_text(app, user, secret).is_some_and(|totp| app.sign_ins.take_code(user, &totp, code, seconds)) {
        return Err(Problem::from("The code does not fit: type the one that your authenticator shows now for Daypass.".to_owned()));
    }
    let changes = vec![daypass_store::Change::Put { id: second_factor_secret(user), secret: Secret::new(secret) }];
    let job = crate::control::Job { command: Command::SetSecondFactor { user }, by: Actor::User(user), changes, secrets: None };
    app.control.run_job(job).await?;
    Ok(())
}

/// Takes the second factor away: its person, or an administrator when the device is lost.
pub async fn remove_second_factor(app: &App, user: UserId, by: Actor) -> Result<(), Problem> {
    let changes = vec![daypass_store::Change::Erase { id: second_factor_secret(user) }];
    app.control.run_job(crate::control::Job { command: Command::RemoveSecondFactor { user }, by, changes, secrets: None }).await?;
    Ok(())
}

/// A new password. All sign-ins but the one that asks end with it.
pub async fn change_password(app: &App, user: UserId, by: Actor, keep: Option<TokenId>, password: String) -> Result<(), Problem> {
    let place = app.sign_ins.place().await?;
    let hash = auth::hash_password(password).await?;
    drop(place);
    let changes = vec![daypass_store::Change::Put { id: auth::password_secret(user), secret: Secret::new(hash) }];
    app.control.run_job(crate::control::Job { command: Command::ChangePassword { user }, by, changes, secrets: None }).await?;
    let now = app.node.now();
    app.devices.forget(user, now);
    let old: Vec<TokenId> = app.node.ledger(|ledger| {
        let theirs = ledger.tokens().filter(|token| token.user == user && Some(token.id) != keep && now < token.ends_at);
        theirs.map(|token| token.id).collect()
    });
    for token in old {
        app.control.run(Command::RemoveToken { token }, by).await?;
    }
    Ok(())
}

/// Under what the code of the one-time link lies, until there is an administrator.
pub const FIRST: &str = "first";

/// Makes the first administrator, for whoever has the one-time link.
pub async fn first(app: &App, code: &str, name: &str, password: String, address: IpAddr) -> Result<UserId, Problem> {
    use subtle::ConstantTimeEq;
    app.sign_ins.attempt(address)?;
    let kept = app.node.store.log.secret(FIRST).await?;
    let same = kept.is_some_and(|kept| bool::from(kept.expose().as_bytes().ct_eq(code.trim().as_bytes())));
    if !same {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "not_permitted",
            "This link is not the right one, or was used already.",
            "The one-time link stands in the file first-link in the data directory of Daypass, until it is used.",
        ));
    }
    let (user, name) = (UserId::new(random::id()), name.parse::<UserName>()?);
    let place = app.sign_ins.place().await?;
    let hash = auth::hash_password(password).await?;
    drop(place);
    let changes =
        vec![daypass_store::Change::Put { id: auth::password_secret(user), secret: Secret::new(hash) }, daypass_store::Change::Erase { id: FIRST.to_owned() }];
    app.control.run_job(crate::control::Job { command: Command::AddFirstUser { user, name }, by: Actor::System, changes, secrets: None }).await?;
    let _ = std::fs::remove_file(&app.first_link);
    Ok(user)
}
