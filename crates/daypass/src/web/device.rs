//! Signing the command line in through a browser (after RFC 8628): the command line shows a short code, its person types it on a page where
//! they are signed in, however they signed in there, and the command line gets its token.

use super::{App, Problem, auth, dto::*, problem::Body, sign_in};
use axum::{
    Json,
    extract::State,
    http::{Extensions, StatusCode},
};
use daypass_core::{
    ids::UserId,
    people::TokenKind,
    refusal::Refusal,
    secret::TokenHash,
    time::{Time, Ttl},
};
use daypass_gateway::World;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A code is good for so long.
const LIFE: Ttl = Ttl::minutes(10);
/// Codes at once; more are refused, so that nobody fills the memory.
const MOST: usize = 1_000;
/// Letters that nobody takes for another one, and that make no words.
const LETTERS: &[u8; 16] = b"BCDFGHJKLMNPQRTX";

/// Command lines that wait for their person.
#[derive(Default)]
pub struct Devices(Mutex<HashMap<TokenHash, Device>>);

#[derive(Clone)]
pub struct Device {
    /// What its person types.
    code: String,
    /// Where the command line runs, as we see it.
    pub address: IpAddr,
    ends_at: Time,
    /// Who said yes, and when.
    person: Option<(UserId, Time)>,
}

impl Devices {
    fn lock(&self, now: Time) -> MutexGuard<'_, HashMap<TokenHash, Device>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, device| now < device.ends_at);
        all
    }

    /// The command line that shows this code.
    pub fn find(&self, typed: &str, now: Time) -> Option<Device> {
        let typed: String = typed.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
        let plain = |code: &str| code.replace('-', "");
        self.lock(now).values().find(|device| plain(&device.code) == typed && device.person.is_none()).cloned()
    }

    /// Its person says yes.
    pub fn approve(&self, device: &Device, person: UserId, now: Time) {
        if let Some(known) = self.lock(now).values_mut().find(|known| known.code == device.code && known.person.is_none()) {
            known.person = Some((person, now));
        }
    }

    /// Whoever said yes before their password changed said it with the old one.
    pub fn forget(&self, person: UserId, now: Time) {
        self.lock(now).retain(|_, device| device.person.is_none_or(|(known, _)| known != person));
    }
}

/// Begins a sign-in of a command line: a code for its person to type on the page, and one to ask with.
#[utoipa::path(post, path = "/device", responses((status = 200, body = DeviceIssued), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn begin(State(app): State<App>, extensions: Extensions) -> Result<Json<DeviceIssued>, Problem> {
    let address = auth::address(&extensions);
    app.sign_ins.attempt(address)?;
    let mut bytes = [0; 8];
    crate::random::fill(&mut bytes);
    let letters: String = bytes.iter().map(|byte| LETTERS[usize::from(byte & 15)] as char).collect();
    let (code, device_code) = (format!("{}-{}", &letters[..4], &letters[4..]), crate::random::token());
    let now = app.node.now();
    let mut all = app.devices.lock(now);
    if all.len() >= MOST {
        return Err(Problem::unavailable("Too many command lines are signing in at once."));
    }
    all.insert(TokenHash::of(&device_code), Device { code: code.clone(), address, ends_at: now.after(LIFE), person: None });
    Ok(Json(DeviceIssued { device_code, url: format!("{}/device", app.url), code, seconds: LIFE.as_seconds() }))
}

/// The token, once the person has said yes. Until then the answer is `pending`: ask again in two seconds.
#[utoipa::path(post, path = "/device/token", request_body = DeviceToken, responses((status = 200, body = TokenIssued), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn token(State(app): State<App>, Body(request): Body<DeviceToken>) -> Result<Json<TokenIssued>, Problem> {
    let key = TokenHash::of(&request.device_code);
    let (person, at) = {
        let mut all = app.devices.lock(app.node.now());
        let device = all.get(&key).ok_or_else(|| Refusal::state("This code is not known, or its time is over.", "Begin anew: daypass login --sso"))?;
        let Some((person, at)) = device.person else {
            return Err(Problem::new(StatusCode::CONFLICT, "pending", "Nobody has typed the code yet.", "Ask again in two seconds."));
        };
        // a token is given once
        all.remove(&key);
        (person, at)
    };
    // they proved who they are when they said yes; a command line that comes late for it has no recent proof
    let proved = app.node.now() < at.after(Ttl::minutes(1));
    let (id, token) = sign_in::issue(&app, person, "command line, by browser".to_owned(), sign_in::SIGNED_IN, TokenKind::Api, proved).await?;
    let ends_at = app.node.ledger(|ledger| ledger.token(id).map(|token| token.ends_at.to_string())).unwrap_or_default();
    Ok(Json(TokenIssued { id: id.to_string(), token, ends_at }))
}
