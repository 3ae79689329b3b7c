//! Who asks: a token, looked up by its hash. Passwords are argon2id.

use super::{App, problem::Problem};
use crate::aside::PASSWORDS;
use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, HeaderMap, header, request::Parts},
};
use daypass_core::{
    event::Actor,
    ids::*,
    names::UserName,
    people::{Permission, TokenKind},
    refusal::{Code, Refusal},
    secret::TokenHash,
    time::Time,
};
use daypass_gateway::World;
use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
};

/// The person behind a request.
#[derive(Clone)]
pub struct Caller {
    pub user: UserId,
    pub name: UserName,
    pub address: IpAddr,
    /// The token of this sign-in.
    pub token: TokenId,
    /// When its person proved who they are; none for a token that was made with another.
    pub proved_at: Option<Time>,
    /// The idempotency key of the request.
    pub key: Option<String>,
}

impl Caller {
    pub fn actor(&self) -> Actor {
        Actor::User(self.user)
    }

    /// The id for what this request makes.
    pub fn id(&self) -> uuid::Uuid {
        crate::random::id_for(self.key.as_deref(), self.user.uuid())
    }

    pub fn may(&self, app: &App, permission: Permission, environment: Option<EnvironmentId>) -> bool {
        app.node.ledger(|ledger| ledger.may(self.user, permission, environment))
    }

    pub fn need(&self, app: &App, permission: Permission) -> Result<(), Problem> {
        if self.may(app, permission, None) { Ok(()) } else { Err(Problem::not_permitted()) }
    }

    /// Whether they proved who they are in the last minutes.
    pub fn proved_lately(&self, app: &App) -> bool {
        self.proved_at.is_some_and(|at| app.node.now() < at.after(app.recent))
    }

    /// That it is really them: what shows a secret, or makes one, takes a sign-in of the last minutes, whatever it is asked with.
    pub fn prove(&self, app: &App) -> Result<(), Problem> {
        if self.proved_lately(app) {
            return Ok(());
        }
        let recent = app.recent;
        Err(Refusal::new(Code::NotPermitted, format!("This takes a sign-in of the last {recent}."), "Sign in again: daypass login.").into())
    }
}

/// The guard of the route put the caller there. A route without one has no caller.
impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::not_signed_in)?;
        idempotency_key(&parts.headers)?;
        Ok(caller)
    }
}

/// Under what the same call is known again. One that is not understood is an error: let pass, it would let a call be done twice.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=128).contains(&key.len()));
    key.map(|key| Some(key.to_owned())).ok_or_else(|| Refusal::invalid("An Idempotency-Key has 1 to 128 visible ASCII characters."))
}

/// Whoever bears a token of the API.
pub fn bearer(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Option<Caller> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let key = idempotency_key(headers).unwrap_or_default();
    Some(Caller { key, ..of_token(app, token, TokenKind::Api, extensions)? })
}

/// The person of a token, when both are good.
pub fn of_token(app: &App, token: &str, kind: TokenKind, extensions: &Extensions) -> Option<Caller> {
    let (hash, now) = (TokenHash::of(token), app.node.now());
    app.node.ledger(|ledger| {
        let (token, user) = ledger.token_user(&hash, kind, now)?;
        let proved_at = token.proved.then_some(token.added_at);
        Some(Caller { user: user.id, name: user.name.clone(), address: address(extensions), token: token.id, proved_at, key: None })
    })
}

/// When the caller's sign-in ends; none when it does not hold any more. What outlives the check at its start asks this.
pub fn ends_at(app: &App, caller: &Caller) -> Option<Time> {
    let now = app.node.now();
    app.node.ledger(|ledger| {
        let token = ledger.token(caller.token)?;
        let user = ledger.user(token.user)?;
        (user.locked.is_none() && token.locks == user.locks() && now < token.ends_at).then_some(token.ends_at)
    })
}

/// Where a request comes from; none when it came by no connection.
pub fn address(extensions: &Extensions) -> IpAddr {
    extensions.get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip().to_canonical())
}

/// Under what a person's password hash is sealed.
pub fn password_secret(user: UserId) -> String {
    format!("password:{user}")
}

/// Whose password a name that is not there is compared with: it lies in the store like any other, so that both take the same way.
pub const NOBODY: UserId = UserId::new(uuid::Uuid::nil());

/// The password that nobody has, to be put into the store.
pub async fn nobodys_password() -> Result<daypass_store::Change, String> {
    let hash = hash_password(crate::random::password()).await?;
    Ok(daypass_store::Change::Put { id: password_secret(NOBODY), secret: daypass_core::secret::Secret::new(hash) })
}

thread_local! {
    /// What the hash of a password is worked out in. It stays with its thread: taken and given back each time, 19 MiB leave holes that
    /// nothing else fits into.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// The hash of a password; slow on purpose.
fn argon2(argon2: &Argon2<'_>, password: &str, salt: &[u8], out: &mut [u8]) -> Result<(), argon2::Error> {
    BLOCKS.with_borrow_mut(|blocks| {
        blocks.resize(argon2.params().block_count(), Block::new());
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, out, blocks.as_mut_slice())
    })
}

/// The argon2id hash of a password, as a PHC text.
pub async fn hash_password(password: String) -> Result<String, String> {
    if password.chars().count() < 10 {
        return Err("a password has at least 10 characters".to_owned());
    }
    if password.len() > 512 {
        return Err("a password has at most 512 bytes".to_owned());
    }
    let make = move || {
        let (by, salt, mut out) = (Argon2::default(), Salt::generate(), [0; Params::DEFAULT_OUTPUT_LEN]);
        argon2(&by, &password, &salt, &mut out).map_err(|e| e.to_string())?;
        let params = ParamsString::try_from(by.params()).map_err(|e| e.to_string())?;
        let hash = PasswordHash {
            algorithm: Algorithm::default().ident(),
            version: Some(Version::default().into()),
            params,
            salt: Some(salt),
            hash: Some(Output::new(&out).map_err(|e| e.to_string())?),
        };
        Ok(hash.to_string())
    };
    PASSWORDS.run(make).await?
}

/// Checks a password against its hash; `known` says whether it is anybody's. The work is the same either way.
pub async fn check_password(password: String, hash: String, known: bool) -> bool {
    let check = move || {
        let hash = PasswordHash::new(&hash).ok()?;
        let (salt, wanted) = (hash.salt?, hash.hash?);
        let version = hash.version.map(Version::try_from).transpose().ok()?.unwrap_or_default();
        let by = Argon2::new(Algorithm::try_from(hash.algorithm.as_str()).ok()?, version, Params::try_from(&hash).ok()?);
        let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
        argon2(&by, &password, &salt, &mut out).ok()?;
        // compared in constant time
        Some(Output::new(&out).ok()? == wanted)
    };
    PASSWORDS.run(check).await.ok().flatten().unwrap_or(false) && known
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::argon2::password_hash::{PasswordHasher, PasswordVerifier};

    #[tokio::test]
    async fn a_hash_of_a_password_is_what_every_program_with_argon2_takes_for_one() {
        let hash = hash_password("correct horse battery".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(Argon2::default().verify_password(b"correct horse battery", hash.as_str()).is_ok());
        let other = Argon2::default().hash_password(b"correct horse battery").unwrap().to_string();
        for hash in [&hash, &other] {
            assert!(check_password("correct horse battery".to_owned(), hash.clone(), true).await);
            assert!(!check_password("correct horse battery".to_owned(), hash.clone(), false).await, "it is nobody's");
            assert!(!check_password("correct horse batter".to_owned(), hash.clone(), true).await);
        }
        assert_ne!(hash, hash_password("correct horse battery".to_owned()).await.unwrap(), "each with a salt of its own");
        assert!(!check_password("anything at all".to_owned(), String::new(), true).await);
        assert!(hash_password("too short".to_owned()).await.is_err());
    }
}
