//! Who asks: a bearer token, looked up by its hash. Passwords are argon2id.

use super::{App, problem::Problem};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{header, request::Parts},
};
use daypass_core::{event::Actor, ids::UserId, names::UserName, people::Permission, secret::TokenHash};
use daypass_gateway::World;
use std::{
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
};

/// The person behind a request.
pub struct Caller {
    pub user: UserId,
    pub name: UserName,
    pub address: IpAddr,
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

    pub fn may(&self, app: &App, permission: Permission, environment: Option<daypass_core::ids::EnvironmentId>) -> bool {
        app.node.ledger(|ledger| ledger.may(self.user, permission, environment))
    }

    pub fn need(&self, app: &App, permission: Permission) -> Result<(), Problem> {
        if self.may(app, permission, None) {
            return Ok(());
        }
        Err(daypass_core::refusal::Refusal::new(
            daypass_core::refusal::Code::NotPermitted,
            "You may not do this: none of your roles allows it.",
            "Ask an administrator; `daypass whoami` shows the roles that you have.",
        )
        .into())
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(Problem::not_signed_in)?;
        let hash = TokenHash::of(token);
        let now = app.node.now();
        let found = app.node.ledger(|ledger| ledger.token_user(&hash, now).map(|(_, user)| (user.id, user.name.clone())));
        let (user, name) = found.ok_or_else(Problem::not_signed_in)?;
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip().to_canonical());
        let key = parts.headers.get("idempotency-key").and_then(|value| value.to_str().ok()).filter(|key| (1..=128).contains(&key.len())).map(str::to_owned);
        Ok(Caller { user, name, address, key })
    }
}

/// Under what a person's password hash is sealed.
pub fn password_secret(user: UserId) -> String {
    format!("password:{user}")
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

/// Checks a password against its hash; without one, the same work is done for nothing.
pub async fn check_password(password: String, hash: Option<String>) -> bool {
    // the hash of a password that nobody has
    static NOBODY: OnceLock<String> = OnceLock::new();
    let known = hash.is_some();
    let checked = tokio::task::spawn_blocking(move || {
        let nobody = || Argon2::default().hash_password(crate::random::password().as_bytes()).map(|hash| hash.to_string()).unwrap_or_default();
        let hash = hash.unwrap_or_else(|| NOBODY.get_or_init(nobody).clone());
        PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    });
    checked.await.unwrap_or(false) && known
}
