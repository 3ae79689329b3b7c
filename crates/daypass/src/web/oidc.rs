//! Signing in with a provider (OpenID Connect, authorization code with PKCE). Issuer, audience and the way back come from the
//! configuration only. What a provider says is checked by the library: signature, issuer, audience, nonce, times.
//!
//! Sources: OpenID Connect Core 1.0 section 3.1, RFC 7636 (PKCE), RFC 9207 (issuer in the answer), OpenID Connect RP-Initiated Logout 1.0.

use super::{App, Problem};
use crate::config::Oidc;
use axum::http::StatusCode;
use daypass_core::{
    command::Command,
    event::Actor,
    ids::UserId,
    names::UserName,
    people::{Role, Scope},
    refusal::Refusal,
    time::Ttl,
};
use daypass_gateway::World;
use openidconnect::{
    AccessTokenHash, AdditionalClaims, AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields, HttpRequest, HttpResponse,
    IdTokenFields, IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadataWithLogout, RedirectUrl, Scope as Asked,
    StandardErrorResponse, StandardTokenResponse, TokenResponse, UserInfoClaims,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm, CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A sign-in that was begun has so long to come back.
const PENDING: Duration = Duration::from_secs(600);
/// Sign-ins that were begun at once; the oldest make room.
const MOST_PENDING: usize = 1_000;
/// The provider's keys and addresses are asked anew after so long.
const KNOWN: Duration = Duration::from_secs(600);
/// Clocks of two machines differ by no more (seconds).
const SKEW: i64 = 60;
/// An answer of the provider is no larger than this, and takes no longer.
const ANSWER: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// All claims, whatever they are called.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Claims {
    #[serde(flatten)]
    all: serde_json::Map<String, serde_json::Value>,
}

impl AdditionalClaims for Claims {}

type Fields = IdTokenFields<Claims, EmptyExtraTokenFields, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;
type Client<A, D, I, R, T, U> = openidconnect::Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    A,
    D,
    I,
    R,
    T,
    U,
>;

/// The provider of this installation.
pub struct Provider {
    config: Oidc,
    secret: Option<String>,
    /// Where the provider sends people back to.
    back: String,
    home: String,
    http: Http,
    known: Mutex<Option<(Instant, ProviderMetadataWithLogout)>>,
    pending: Mutex<HashMap<String, Pending>>,
}

/// A sign-in on its way.
struct Pending {
    begun: Instant,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    to: String,
}

/// Who came back from the provider.
pub struct Back {
    pub user: UserId,
    /// Where they wanted to go.
    pub to: String,
    /// They proved who they are just now, and not only some time ago.
    pub proved: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct HttpError(String);

/// How we ask the provider: never following a redirect, and with limits.
struct Http(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let failed = |error: reqwest::Error| HttpError(error.without_url().to_string());
            let mut answer = self.0.execute(request.try_into().map_err(failed)?).await.map_err(failed)?;
            let mut response = HttpResponse::new(Vec::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            while let Some(chunk) = answer.chunk().await.map_err(failed)? {
                if response.body().len() + chunk.len() > ANSWER {
                    return Err(HttpError("the answer of the provider is too large".to_owned()));
                }
                response.body_mut().extend_from_slice(&chunk);
            }
            Ok(response)
        })
    }
}

impl Provider {
    /// `url` is where browsers reach the console.
    pub fn new(config: Oidc, url: &str) -> anyhow::Result<Provider> {
        let read = |path: &std::path::Path| std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("{} cannot be read: {e}", path.display()));
        let secret = config.client_secret_file.as_deref().map(read).transpose()?.map(|text| text.trim().to_owned());
        let ca = config.ca.as_deref().map(read).transpose()?;
        let tls = crate::node::client_tls(rustls::DEFAULT_VERSIONS, ca.as_deref());
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT).build()?;
        let home = url.trim_end_matches('/').to_owned();
        Ok(Provider { config, secret, back: format!("{home}/sign-in/back"), home, http: Http(http), known: Mutex::default(), pending: Mutex::default() })
    }

    pub fn label(&self) -> &str {
        &self.config.label
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The provider's addresses and keys.
    async fn metadata(&self, anew: bool) -> Result<ProviderMetadataWithLogout, Problem> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, metadata)) = known.filter(|(since, _)| !anew && since.elapsed() < KNOWN) {
            let _ = since;
            return Ok(metadata);
        }
        let issuer = IssuerUrl::new(self.config.issuer.clone()).map_err(|e| unavailable(&e))?;
        let metadata = ProviderMetadataWithLogout::discover_async(issuer, &self.http).await.map_err(|e| unavailable(&e))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), metadata.clone()));
        Ok(metadata)
    }

    /// Begins a sign-in: where to send the browser, and what it has to bring back.
    pub async fn begin(&self, to: &str, recent: Ttl, again: bool) -> Result<(String, String), Problem> {
        let client = self.client(self.metadata(false).await?)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut asked = client.authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random);
        for scope in &self.config.scopes {
            asked = asked.add_scope(Asked::new(scope.clone()));
        }
        if again {
            asked = asked.add_prompt(CoreAuthPrompt::Login);
        }
        let (address, state, nonce) = asked.set_pkce_challenge(challenge).set_max_age(Duration::from_secs(recent.as_seconds())).url();
        let state = state.into_secret();
        let mut pending = self.pending();
        pending.retain(|_, pending| pending.begun.elapsed() < PENDING);
        if pending.len() >= MOST_PENDING
            && let Some(oldest) = pending.iter().min_by_key(|(_, pending)| pending.begun).map(|(state, _)| state.clone())
        {
            pending.remove(&oldest);
        }
        pending.insert(state.clone(), Pending { begun: Instant::now(), nonce, verifier, to: to.to_owned() });
        Ok((address.into(), state))
    }

    fn client(
        &self,
        metadata: ProviderMetadataWithLogout,
    ) -> Result<
        Client<
            openidconnect::EndpointSet,
            openidconnect::EndpointNotSet,
            openidconnect::EndpointNotSet,
            openidconnect::EndpointNotSet,
            openidconnect::EndpointMaybeSet,
            openidconnect::EndpointMaybeSet,
        >,
        Problem,
    > {
        let back = RedirectUrl::new(self.back.clone()).map_err(|e| unavailable(&e))?;
        let secret = self.secret.clone().map(ClientSecret::new);
        Ok(openidconnect::Client::from_provider_metadata(metadata, ClientId::new(self.config.client_id.clone()), secret).set_redirect_uri(back))
    }

    /// The browser is back. `brought` is what this browser was given at the beginning.
    pub async fn finish(&self, app: &App, query: &HashMap<String, String>, brought: Option<&str>) -> Result<Back, Problem> {
        use subtle::ConstantTimeEq;
        let state = query.get("state").map(String::as_str).unwrap_or_default();
        // a sign-in that another browser began is not this browser's
        let same = brought.is_some_and(|brought| bool::from(brought.as_bytes().ct_eq(state.as_bytes())));
        let begun = self.pending().remove(state).filter(|pending| same && pending.begun.elapsed() < PENDING);
        let Pending { nonce, verifier, to, .. } = begun.ok_or_else(|| refused("This sign-in was not begun in this browser, or it took too long."))?;
        if let Some(error) = query.get("error") {
            return Err(refused(&format!("The provider says: {}.", daypass_core::names::shown(error))));
        }
        if query.get("iss").is_some_and(|issuer| *issuer != self.config.issuer) {
            return Err(refused("The answer is from another provider."));
        }
        let code = query.get("code").ok_or_else(|| refused("The provider sent no code."))?;
        let client = self.client(self.metadata(false).await?)?;
        let exchange = client.exchange_code(AuthorizationCode::new(code.clone())).map_err(|e| unavailable(&e))?;
        let answer = exchange.set_pkce_verifier(verifier).request_async(&self.http).await.map_err(|error| {
            tracing::warn!(%error, "the provider gave no token");
            refused("The provider did not accept the sign-in.")
        })?;
        let token = answer.id_token().ok_or_else(|| refused("The provider sent no proof of who you are."))?;
        let not_proved = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "the provider's token does not hold");
            refused("The provider's proof of who you are does not hold.")
        };
        let fresh;
        let mut verifier = client.id_token_verifier();
        let claims = match token.claims(&verifier, &nonce) {
            Ok(claims) => claims,
            // the provider may have new keys since we asked
            Err(openidconnect::ClaimsVerificationError::SignatureVerification(_)) => {
                fresh = self.client(self.metadata(true).await?)?;
                verifier = fresh.id_token_verifier();
                token.claims(&verifier, &nonce).map_err(|e| not_proved(&e))?
            }
            Err(error) => return Err(not_proved(&error)),
        };
        // sections 2 and 3.1.2.1: asked for a greatest age, the provider says when the person proved who they are. Some never say it; then
        // the sign-in counts, but not as a recent proof: the session at the provider may be an old one
        let age = claims.auth_time().map(|at| crate::clock::wall().seconds() - at.timestamp());
        if age.is_some_and(|age| !(-SKEW..=app.recent.as_seconds() as i64 + SKEW).contains(&age)) {
            return Err(not_proved(&"it says (auth_time) that the person proved who they are some other time than just now"));
        }
        // section 3.1.3.7, step 5: the library asks for no authorized party when there is one audience
        if claims.authorized_party().is_some_and(|party| party.as_str() != self.config.client_id) {
            return Err(not_proved(&"it was made for another party"));
        }
        if let Some(expected) = claims.access_token_hash() {
            let key = token.signing_key(&verifier).map_err(|e| not_proved(&e))?;
            let actual =
                AccessTokenHash::from_token(answer.access_token(), token.signing_alg().map_err(|e| not_proved(&e))?, key).map_err(|e| not_proved(&e))?;
            if actual != *expected {
                return Err(not_proved(&"its access token is another one"));
            }
        }
        let mut all = claims.additional_claims().all.clone();
        let mut name = claims.preferred_username().map(|name| name.as_str().to_owned()).or_else(|| claims.email().map(|mail| mail.as_str().to_owned()));
        // many providers keep groups out of the token
        if !all.contains_key(&self.config.groups_claim)
            && let Ok(asked) = client.user_info(answer.access_token().clone(), Some(claims.subject().clone()))
        {
            let more: UserInfoClaims<Claims, CoreGenderClaim> = asked.request_async(&self.http).await.map_err(|e| not_proved(&e))?;
            name = name.or_else(|| more.preferred_username().map(|name| name.as_str().to_owned()));
            all.extend(more.additional_claims().all.clone());
        }
        let name = name.unwrap_or_else(|| claims.subject().as_str().to_owned());
        let user = self.person(app, claims.subject().as_str(), &name, &all).await?;
        Ok(Back { user, to, proved: age.is_some() })
    }

    /// The person, with the roles of their groups.
    async fn person(&self, app: &App, subject: &str, name: &str, claims: &serde_json::Map<String, serde_json::Value>) -> Result<UserId, Problem> {
        let groups: Vec<&str> = match claims.get(&self.config.groups_claim) {
            Some(serde_json::Value::Array(groups)) => groups.iter().filter_map(|group| group.as_str()).collect(),
            Some(serde_json::Value::String(group)) => vec![group.as_str()],
            _ => Vec::new(),
        };
        let mut roles: Vec<(Role, Scope)> = self
            .config
            .role
            .iter()
            .filter(|given| groups.contains(&given.group.as_str()))
            .filter_map(|given| app.node.ledger(|ledger| given.in_ledger(ledger)))
            .collect();
        roles.sort_unstable();
        roles.dedup();
        let name: UserName = name.parse()?;
        let (issuer, subject) = (self.config.issuer.clone(), subject.to_owned());
        let command = Command::SignInFrom { user: UserId::new(crate::random::id()), name, issuer: issuer.clone(), subject: subject.clone(), roles };
        app.control.run(command, Actor::System).await?;
        let linked = (issuer, subject);
        let user = app.node.ledger(|ledger| ledger.users().find(|user| user.linked.as_ref() == Some(&linked)).map(|user| user.id));
        user.ok_or_else(|| Problem::unavailable("The person is not known."))
    }

    /// Where a browser signs out of the provider as well; none where the provider has no such place.
    pub async fn sign_out(&self) -> Option<String> {
        let metadata = self.metadata(false).await.ok()?;
        let place = metadata.additional_metadata().end_session_endpoint.clone()?;
        let mut address: reqwest::Url = place.url().as_str().parse().ok()?;
        let back = format!("{}/sign-in", self.home);
        address.query_pairs_mut().append_pair("client_id", &self.config.client_id).append_pair("post_logout_redirect_uri", &back);
        Some(address.into())
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "not_signed_in", why, "Begin anew on the page for signing in.")
}

fn unavailable(error: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(%error, "the provider for signing in does not answer");
    let refusal = Refusal::state("The provider for signing in does not answer.", "Try again in a moment, or sign in with a password.");
    Problem { status: StatusCode::SERVICE_UNAVAILABLE.as_u16(), ..refusal.into() }
}
