//! One visit of a page: who comes, by which sign-in, and how the answer is dressed.

use super::{
    super::{
        App, Problem,
        auth::{self, Caller},
        guard::{self, Need},
        sign_in::{self as proof, Proof, SIGNED_IN},
    },
    assets::{Addresses, addresses},
    form::{Field, Fields, Form},
};
use askama::Template;
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response, Sse, sse},
};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use daypass_core::{
    people::{Permission, TokenKind},
    time::{Time, Ttl},
};
use daypass_gateway::World;
use futures_util::Stream;
use std::convert::Infallible;

/// Only over TLS, for this host and no other, and out of reach of scripts.
const COOKIE: &str = "__Host-daypass";

/// Somebody signed in, looking at a page.
pub struct Visit {
    pub app: App,
    pub caller: Caller,
    pub path: String,
    /// What was just done, in a word that [`said`] knows.
    said: Option<String>,
    /// See [`state`]: as it was before anything was looked at, so that no change is missed.
    state: String,
    /// The request was made by script, for a part of a page.
    by_script: bool,
    agent: String,
}

impl FromRequestParts<App> for Visit {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Fault> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let query = parts.uri.query().unwrap_or_default();
        let said = query.split('&').find_map(|pair| pair.strip_prefix("said=")).map(str::to_owned);
        let by_script = parts.headers.contains_key("hx-request");
        Ok(Visit { app: app.clone(), caller, path: parts.uri.path().to_owned(), said, state: state(app), by_script, agent: agent(&parts.headers) })
    }
}

/// What a sign-in is called in the list of them.
fn agent(headers: &HeaderMap) -> String {
    let text = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("a browser");
    let known = ["Firefox", "Edg", "Chrome", "Safari", "curl"].into_iter().find(|name| text.contains(name)).unwrap_or("a browser");
    format!("browser: {}", if known == "Edg" { "Edge" } else { known })
}

/// What every page has around it.
pub struct Shell {
    pub person: Option<String>,
    pub path: String,
    /// Requests that wait for this person.
    pub waiting: usize,
    pub may_see_access: bool,
    pub may_read_log: bool,
    pub may_administer: bool,
    pub said: Option<&'static str>,
    /// See [`state`].
    pub state: String,
    pub assets: &'static Addresses,
    pub version: &'static str,
}

impl Shell {
    pub fn nobody() -> Shell {
        Shell {
            person: None,
            path: String::new(),
            waiting: 0,
            may_see_access: false,
            may_read_log: false,
            may_administer: false,
            said: None,
            state: String::new(),
            assets: addresses(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Whether this part of the console is the one that is open.
    pub fn is_at(&self, part: &str) -> bool {
        self.path == part || self.path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Visit {
    pub fn shell(&self) -> Shell {
        let somewhere = |permission| self.app.node.ledger(|ledger| ledger.may_somewhere(self.caller.user, permission));
        Shell {
            person: Some(self.caller.name.to_string()),
            path: self.path.clone(),
            waiting: super::requests::waiting(&self.app, &self.caller),
            may_see_access: somewhere(Permission::SeeAccess),
            may_read_log: somewhere(Permission::ReadLog),
            may_administer: somewhere(Permission::ManagePeople) || somewhere(Permission::ManageEnvironments) || somewhere(Permission::SeeAccess),
            said: self.said.as_deref().and_then(said),
            state: self.state.clone(),
            ..Shell::nobody()
        }
    }

    /// After something was done: on to a page that says so.
    pub fn done(&self, to: &str, said: &str) -> Response {
        let to = if said.is_empty() { to.to_owned() } else { format!("{to}?said={said}") };
        if self.by_script {
            return (StatusCode::OK, [(HeaderName::from_static("hx-redirect"), to)]).into_response();
        }
        Redirect::to(&to).into_response()
    }

    /// A page that is one form.
    pub fn form(&self, form: Form) -> Response {
        let status = if form.problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
        (status, page(&FormPage { shell: self.shell(), form })).into_response()
    }

    /// A form that was refused: with all that was typed, and what is wrong. A password is typed again.
    pub fn refused(&self, form: Form, fields: &Fields, problem: Problem) -> Response {
        self.form(Form { problem: Some(problem), ..form.filled(fields) })
    }

    /// That it is really them, for what shows secrets or lets others in. A sign-in that is not recent takes the password again: the answer
    /// is then a page that asks for it and carries along all that was typed. Who has no password goes by the provider, and comes back to
    /// `back`. Gives the visit anew, with the cookie of the fresh sign-in.
    pub async fn prove(mut self, fields: &Fields, title: &str, back: &str) -> Result<(Visit, CookieJar), Response> {
        if self.caller.proved_lately(&self.app) {
            return Ok((self, CookieJar::new()));
        }
        let password = self.app.node.store.log.secret(&auth::password_secret(self.caller.user)).await;
        if password.map_err(|error| Fault::from(error).into_response())?.is_none() {
            let label = self.app.provider.as_ref().map_or("Sign in again", |provider| provider.label());
            let line = match self.caller.proved_at {
                Some(_) => "You signed in a while ago. What follows shows a secret or lets somebody in, so sign in once more; then do it again.",
                None => {
                    "What follows shows a secret or lets somebody in, so it takes a recent sign-in. Sign in once more; if that leads back here, your \
                     provider does not say when you proved who you are (auth_time): an administrator can have it say so, or give you a password here."
                }
            };
            let form = Form::new("Confirm that it is you", &self.path, "").line(line).link(label, &format!("/sign-in/with?again&to={back}")).back(back);
            return Err(self.form(form));
        }
        let second_factor = self.app.node.ledger(|ledger| ledger.user(self.caller.user).is_some_and(|user| user.second_factor));
        let ask = |visit: &Visit, problem: Option<Problem>| {
            let mut form = Form::new("Confirm that it is you", &visit.path, title)
                .line("You signed in a while ago. What follows shows a secret or lets somebody in, so type your password once more.")
                .back(back);
            form.fields = fields.0.iter().filter(|(name, _)| !name.starts_with("own_")).map(|(name, value)| Field::hidden(name, value)).collect();
            form = form.with(Field::password("own_password", "Your password", "current-password"));
            if second_factor {
                form = form.with(Field::text("own_code", "Code of your authenticator").hint("Six digits"));
            }
            visit.form(Form { problem, ..form })
        };
        let Some(password) = fields.get("own_password") else { return Err(ask(&self, None)) };
        let name = self.caller.name.to_string();
        let shown = Proof { name: &name, password: password.to_owned(), code: fields.get("own_code"), address: self.caller.address };
        let user = match proof::prove(&self.app, shown).await {
            Ok(user) => user,
            Err(problem) => return Err(ask(&self, Some(problem))),
        };
        // it proves anew who they are, and makes the sign-in no longer than it was: a provider is asked at the next one
        let left = self.app.node.ledger(|ledger| ledger.token(self.caller.token).map(|token| token.ends_at.since(self.app.node.now())));
        let left = Ttl::seconds(left.unwrap_or(0).max(0) as u64 / 1_000_000).unwrap_or(Ttl::minutes(1));
        let fresh = proof::issue(&self.app, user, self.agent.clone(), left, TokenKind::Browser, true).await;
        let (token, clear) = fresh.map_err(|problem| Fault(problem).into_response())?;
        let _ = self.app.control.run(daypass_core::command::Command::RemoveToken { token: self.caller.token }, self.caller.actor()).await;
        self.caller.token = token;
        self.caller.proved_at = Some(self.app.node.now());
        Ok((self, signed_in(clear)))
    }
}

/// The cookie of a sign-in.
fn signed_in(token: String) -> CookieJar {
    let cookie = Cookie::build((COOKIE, token)).path("/").secure(true).http_only(true).same_site(SameSite::Lax);
    CookieJar::new().add(cookie)
}

/// Signs a person in in this browser. `proved`: they have just proved who they are, and not only that they did some time ago.
pub async fn sign_in(app: &App, user: daypass_core::ids::UserId, headers: &HeaderMap, to: &str, proved: bool) -> Result<Response, Problem> {
    let (_, clear) = proof::issue(app, user, agent(headers), SIGNED_IN, TokenKind::Browser, proved).await?;
    Ok((signed_in(clear), Redirect::to(local(to))).into_response())
}

/// What a browser that goes to the provider has to bring back, so that nobody can finish another's sign-in in it.
const BEGUN: &str = "__Host-daypass-begun";

pub fn begun(state: String) -> CookieJar {
    let cookie = Cookie::build((BEGUN, state)).path("/").secure(true).http_only(true).same_site(SameSite::Lax);
    CookieJar::new().add(cookie)
}

/// What it brought back.
pub fn brought(jar: &CookieJar) -> Option<String> {
    jar.get(BEGUN).map(|cookie| cookie.value().to_owned())
}

/// Forgets the sign-in in this browser.
pub fn signed_out() -> CookieJar {
    let gone = Cookie::build((COOKIE, "")).path("/").secure(true).http_only(true).same_site(SameSite::Lax).max_age(Default::default());
    CookieJar::new().add(gone)
}

/// A way within the console; anything else leads home.
pub fn local(to: &str) -> &str {
    // browsers take a backslash for a slash, and leave out what cannot be seen before they look
    let within = to.starts_with('/') && !to.starts_with("//") && !to.contains(|c: char| c == '\\' || c.is_control() || c.is_whitespace());
    if within { to } else { "/environments" }
}

/// Lets a visit through, with its person; somebody who is not signed in is led to the sign-in, and back.
pub async fn guard(State((app, need)): State<(App, Need)>, jar: CookieJar, mut request: Request, next: Next) -> Response {
    if need == Need::Nothing {
        return next.run(request).await;
    }
    let caller = jar.get(COOKIE).and_then(|cookie| auth::of_token(&app, cookie.value(), TokenKind::Browser, request.extensions()));
    let Some(caller) = caller else { return to_sign_in(&request) };
    let within = guard::check(&app, &caller, need).and_then(|()| app.budgets.request(caller.user, request.method(), guard::ends_access(&request)));
    if let Err(problem) = within {
        return Fault(problem).into_response();
    }
    guard::signed_in(&request, caller.user);
    app.sign_ins.seen(&caller.name, caller.address);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn to_sign_in(request: &Request) -> Response {
    let uri = request.uri();
    if uri.path() == "/live" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let back = if *request.method() == Method::GET { uri.path_and_query().map_or("/", |path| path.as_str()) } else { "/environments" };
    let encoded: String =
        back.bytes().map(|b| if b.is_ascii_alphanumeric() || b"/-._".contains(&b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect();
    let to = format!("/sign-in?to={encoded}");
    // a script would follow the redirect by itself and look for a part of the page that the sign-in does not have
    match request.headers().contains_key("hx-request") {
        true => (StatusCode::OK, [(HeaderName::from_static("hx-redirect"), to)]).into_response(),
        false => Redirect::to(&to).into_response(),
    }
}

/// In what state a page was written. The page compares it with what [`live`] says.
fn state(app: &App) -> String {
    format!("{}.{}", *app.node.changes().borrow(), *app.node.sessions.changes().borrow())
}

/// Says in what state things are, now and each time that something changed, for as long as the sign-in holds. Its end is a change as well:
/// the page asks once more, and is led to the sign-in.
pub async fn live(State(app): State<App>, caller: Caller) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let mut changes = (app.node.changes(), app.node.sessions.changes());
    // what happened between the page and this stream is said at once
    changes.0.mark_changed();
    let says = |state: String| Ok(sse::Event::default().event("changed").data(state));
    let stream = futures_util::stream::unfold(Some((app, caller, changes)), move |signed_in| async move {
        let (app, caller, (mut ledger, mut sessions)) = signed_in?;
        loop {
            let Some(ends) = auth::ends_at(&app, &caller) else { return Some((says("over".to_owned()), None)) };
            let left = ends.since(app.node.now()).clamp(0, 3_600_000_000) as u64;
            tokio::select! {
                changed = ledger.changed() => changed.ok()?,
                changed = sessions.changed() => changed.ok()?,
                () = tokio::time::sleep(std::time::Duration::from_micros(left)) => continue,
            }
            if auth::ends_at(&app, &caller).is_none() {
                continue;
            }
            // many changes at once are one
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let state = format!("{}.{}", *ledger.borrow_and_update(), *sessions.borrow_and_update());
            return Some((says(state), Some((app, caller, (ledger, sessions)))));
        }
    });
    Sse::new(stream).keep_alive(sse::KeepAlive::default())
}

/// A page.
pub fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "form.html")]
struct FormPage {
    shell: Shell,
    form: Form,
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage {
    shell: Shell,
    problem: Problem,
}

/// What went wrong, as a page.
pub struct Fault(pub Problem);

impl<P: Into<Problem>> From<P> for Fault {
    fn from(problem: P) -> Self {
        Fault(problem.into())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, page(&FaultPage { shell: Shell::nobody(), problem: self.0 })).into_response()
    }
}

pub type Shown = Result<Response, Fault>;

/// What was done, for people. The address carries a word only, so nobody can make a page say what they like.
fn said(word: &str) -> Option<&'static str> {
    Some(match word {
        "allowed" => "The address is allowed.",
        "disallowed" => "The address is not allowed any more.",
        "requested" => "Your request is in. The account appears below by itself.",
        "ended" => "The access has ended.",
        "extended" => "The end was moved.",
        "approved" => "Approved.",
        "denied" => "Denied.",
        "reviewed" => "The review is closed.",
        "killed" => "The session was ended.",
        "begun" => "The movement is under way.",
        "stopped" => "It is stopped.",
        "again" => "It runs once more.",
        "finished" => "The environment is open again.",
        "failed" => "Noted. The environment stays closed until you finish the movement.",
        "added" => "Added.",
        "changed" => "Changed.",
        "removed" => "Removed.",
        "rotated" => "It gets a new password in a moment.",
        "saved" => "Saved.",
        "locked" => "Locked: sign-ins, passes and sessions of this person have ended.",
        "unlocked" => "Unlocked. What the lock ended stays ended.",
        "password" => "The new password holds. All other sign-ins have ended.",
        "device" => "The command line is signed in.",
        "factor" => "From now on signing in takes a code as well.",
        "no-factor" => "The second factor is removed.",
        "trying" => "Daypass looks at all targets again now.",
        _ => return None,
    })
}

/// The moment now, for pages that compare with it.
pub fn now(app: &App) -> Time {
    app.node.now()
}
