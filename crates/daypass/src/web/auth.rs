//! Who asks: a token, looked up by its hash. Passwords are argon2id.

use super::{App, problem::Problem};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
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
use std::net::{IpAddr, SocketAddr};

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
        parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::not_signed_in)
    }
}

/// Whoever bears a token of the API.
pub fn bearer(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Option<Caller> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).filter(|key| (1..=128).contains(&key.len())).map(str::to_owned);
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

/// The argon2id hash of a password, as a PHC text. Slow on purpose: never on a thread that serves others.
pub async fn hash_password(password: String) -> Result<String, String> {
    if password.chars().count() < 10 {
        return Err("a password has at least 10 characters".to_owned());
    }
    if password.len() > 512 {
        return Err("a password has at most 512 bytes".to_owned());
    }
    let hash = tokio::task::spawn_blocking(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()));
    hash.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

/// Checks a password against its hash; `known` says whether it is anybody's. The work is the same either way.
pub async fn check_password(password: String, hash: String, known: bool) -> bool {
    let checked =
        tokio::task::spawn_blocking(move || PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()));
    checked.await.unwrap_or(false) && known
}
