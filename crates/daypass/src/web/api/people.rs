//! Signing in, people, roles, tokens.

use crate::{
    control::Job,
    web::{
        App, Problem,
        auth::{self, Caller, hash_password, password_secret},
        dto::*,
        problem::Body,
        sign_in::{self, Proof, SIGNED_IN},
    },
};
use axum::{
    Json,
    extract::{Path, State},
    http::{Extensions, StatusCode},
};
use daypass_core::{
    command::Command,
    ids::*,
    ledger::Ledger,
    names::{Name, Reason, UserName},
    people::{Permission, Role, Scope, Token, TokenKind, User},
    refusal::Refusal,
    secret::Secret,
    time::Ttl,
};
use daypass_gateway::World;
use daypass_store::Change;

/// Signs in with name and password; gives a token for 12 hours.
#[utoipa::path(post, path = "/login", request_body = LoginRequest, responses((status = 200, body = TokenIssued), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn login(State(app): State<App>, extensions: Extensions, Body(request): Body<LoginRequest>) -> Result<Json<TokenIssued>, Problem> {
    let proof = Proof { name: &request.name, password: request.password, code: request.code.as_deref(), address: auth::address(&extensions) };
    let user = sign_in::by_password(&app, proof).await?;
    issued(&app, user, "signed in".to_owned(), SIGNED_IN, true).await
}

/// Makes the first administrator, with the code of the one-time link; gives a token for 12 hours.
#[utoipa::path(post, path = "/first", request_body = FirstRequest, responses((status = 200, body = TokenIssued), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn first(State(app): State<App>, extensions: Extensions, Body(request): Body<FirstRequest>) -> Result<Json<TokenIssued>, Problem> {
    let user = sign_in::first(&app, &request.code, &request.name, request.password, auth::address(&extensions)).await?;
    issued(&app, user, "signed in".to_owned(), SIGNED_IN, true).await
}

async fn issued(app: &App, user: UserId, label: String, life: Ttl, proved: bool) -> Result<Json<TokenIssued>, Problem> {
    let (id, token) = sign_in::issue(app, user, label, life, TokenKind::Api, proved).await?;
    let ends_at = app.node.ledger(|ledger| ledger.token(id).map(|token| token.ends_at.to_string())).unwrap_or_default();
    Ok(Json(TokenIssued { id: id.to_string(), token, ends_at }))
}

/// Who am I, and what may I do?
#[utoipa::path(get, path = "/me", responses((status = 200, body = Me), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn me(State(app): State<App>, caller: Caller) -> Json<Me> {
    let roles = app.node.ledger(|ledger| ledger.user(caller.user).map(|user| role_views(ledger, user)).unwrap_or_default());
    Json(Me { name: caller.name.to_string(), address: caller.address.to_string(), roles })
}

/// Makes a token for oneself, for scripts. It is shown once. It takes a recent sign-in, and is none itself: with it nobody makes another,
/// and nothing is shown that takes a recent sign-in.
#[utoipa::path(post, path = "/tokens", request_body = TokenRequest, responses((status = 200, body = TokenIssued), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn add_token(State(app): State<App>, caller: Caller, Body(request): Body<TokenRequest>) -> Result<Json<TokenIssued>, Problem> {
    caller.prove(&app)?;
    issued(&app, caller.user, daypass_core::names::label(&request.label)?, Ttl::seconds(request.life)?, false).await
}

/// The caller's sign-ins and tokens that hold now.
#[utoipa::path(get, path = "/tokens", responses((status = 200, body = Vec<TokenView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn tokens(State(app): State<App>, caller: Caller) -> Json<Vec<TokenView>> {
    Json(tokens_of(&app, &caller, caller.user))
}

/// Somebody's sign-ins and tokens that hold now; `DELETE /tokens/{id}` ends one.
#[utoipa::path(get, path = "/people/{name}/tokens", params(("name" = String, Path)), responses((status = 200, body = Vec<TokenView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn tokens_of_person(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Json<Vec<TokenView>>, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    let user = person(&app, &name)?;
    Ok(Json(tokens_of(&app, &caller, user)))
}

fn tokens_of(app: &App, caller: &Caller, user: UserId) -> Vec<TokenView> {
    let now = app.node.now();
    app.node.ledger(|ledger| {
        let locks = ledger.user(user).map(|user| user.locks());
        let theirs = ledger.tokens().filter(|token| token.user == user && now < token.ends_at && Some(token.locks) == locks);
        let view = |token: &Token| TokenView {
            id: token.id.to_string(),
            label: token.label.clone(),
            browser: token.kind == TokenKind::Browser,
            added_at: token.added_at.to_string(),
            ends_at: token.ends_at.to_string(),
            this_one: token.id == caller.token,
        };
        theirs.map(view).collect()
    })
}

/// A new password for oneself; all other sign-ins end.
#[utoipa::path(post, path = "/password", request_body = PasswordChange, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn change_password(State(app): State<App>, caller: Caller, Body(request): Body<PasswordChange>) -> Result<StatusCode, Problem> {
    let code = request.code.as_deref();
    let proof = Proof { name: caller.name.as_str(), password: request.old, code, address: caller.address };
    sign_in::prove(&app, proof).await?;
    sign_in::change_password(&app, caller.user, caller.actor(), Some(caller.token), request.new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where one's notices go; none: nowhere.
#[utoipa::path(put, path = "/mail", request_body = MailSet, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_own_mail(State(app): State<App>, caller: Caller, Body(request): Body<MailSet>) -> Result<StatusCode, Problem> {
    let mail = request.mail.as_deref().map(str::parse).transpose()?;
    app.control.run(Command::SetMail { user: caller.user, mail }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where somebody's notices go.
#[utoipa::path(put, path = "/people/{name}/mail", params(("name" = String, Path)), request_body = MailSet, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_mail(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(request): Body<MailSet>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    let mail = request.mail.as_deref().map(str::parse).transpose()?;
    app.control.run(Command::SetMail { user: person(&app, &name)?, mail }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new password for somebody else; all their sign-ins end.
#[utoipa::path(post, path = "/people/{name}/password", params(("name" = String, Path)), request_body = NewPassword, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_password(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(request): Body<NewPassword>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    sign_in::change_password(&app, person(&app, &name)?, caller.actor(), None, request.password).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A key for a second factor, to be put into an authenticator. Nothing is set by this.
#[utoipa::path(post, path = "/second-factor/key", responses((status = 200, body = SecondFactorKey), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn second_factor_key(caller: Caller) -> Result<Json<SecondFactorKey>, Problem> {
    let key = sign_in::new_second_factor();
    let address = sign_in::address_of(&caller.name, &key).ok_or_else(|| Problem::unavailable("The second factor could not be made."))?;
    Ok(Json(SecondFactorKey { key, address }))
}

/// Sets one's second factor, with the password once more and a code of the key.
#[utoipa::path(post, path = "/second-factor", request_body = SecondFactorSet, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_second_factor(State(app): State<App>, caller: Caller, Body(request): Body<SecondFactorSet>) -> Result<StatusCode, Problem> {
    let proof = Proof { name: caller.name.as_str(), password: request.password, code: request.old_code.as_deref(), address: caller.address };
    sign_in::prove(&app, proof).await?;
    sign_in::set_second_factor(&app, caller.user, &request.key, &request.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes one's second factor, with the password once more and a code.
#[utoipa::path(post, path = "/second-factor/remove", request_body = SecondFactorRemoved, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove_own_second_factor(State(app): State<App>, caller: Caller, Body(request): Body<SecondFactorRemoved>) -> Result<StatusCode, Problem> {
    let proof = Proof { name: caller.name.as_str(), password: request.password, code: request.code.as_deref(), address: caller.address };
    sign_in::prove(&app, proof).await?;
    sign_in::remove_second_factor(&app, caller.user, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes somebody's second factor away, when the device is lost.
#[utoipa::path(post, path = "/people/{name}/second-factor/remove", params(("name" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove_second_factor(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    sign_in::remove_second_factor(&app, person(&app, &name)?, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a token back.
#[utoipa::path(delete, path = "/tokens/{id}", params(("id" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove_token(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let token: TokenId = id.parse().map_err(|_| Refusal::not_found("token", &id))?;
    app.control.run(Command::RemoveToken { token }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All people, for administrators.
#[utoipa::path(get, path = "/people", responses((status = 200, body = Vec<PersonView>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<PersonView>>, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    Ok(Json(app.node.ledger(|ledger| {
        ledger
            .users()
            .map(|user| PersonView {
                name: user.name.to_string(),
                roles: role_views(ledger, user),
                locked: user.locked.clone(),
                second_factor: user.second_factor,
                mail: user.mail.as_ref().map(ToString::to_string),
            })
            .collect()
    })))
}

/// Adds a person.
#[utoipa::path(post, path = "/people", request_body = NewPerson, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn add(State(app): State<App>, caller: Caller, Body(request): Body<NewPerson>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    let (user, name) = (UserId::new(caller.id()), request.name.parse::<UserName>()?);
    let roles = request.roles.iter().map(|role| Ok((role.role, scope(&app, role)?))).collect::<Result<Vec<_>, Problem>>()?;
    let mut changes = Vec::new();
    if let Some(password) = request.password {
        let _place = app.sign_ins.place().await?;
        changes.push(Change::Put { id: password_secret(user), secret: Secret::new(hash_password(password).await?) });
    }
    app.control.run_job(Job { command: Command::AddUser { user, name, roles }, by: caller.actor(), changes, secrets: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Locks a person: tokens, passes and sessions end at once.
#[utoipa::path(post, path = "/people/{name}/lock", params(("name" = String, Path)), request_body = Why, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn lock(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(why): Body<Why>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    let why: Reason = why.why.unwrap_or_default().parse()?;
    let command = Command::LockUser { user: person(&app, &name)?, why };
    app.control.run(command, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Unlocks a person. What the lock ended stays ended.
#[utoipa::path(post, path = "/people/{name}/unlock", params(("name" = String, Path)), responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn unlock(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    app.control.run(Command::UnlockUser { user: person(&app, &name)? }, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a role.
#[utoipa::path(post, path = "/people/{name}/roles", params(("name" = String, Path)), request_body = RoleView, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn give_role(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(role): Body<RoleView>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    let command = Command::GiveRole { user: person(&app, &name)?, role: role.role, scope: scope(&app, &role)? };
    app.control.run(command, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a role; passes that it alone allowed end at once.
#[utoipa::path(post, path = "/people/{name}/roles/take", params(("name" = String, Path)), request_body = RoleView, responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn take_role(State(app): State<App>, caller: Caller, Path(name): Path<String>, Body(role): Body<RoleView>) -> Result<StatusCode, Problem> {
    caller.need(&app, Permission::ManagePeople)?;
    let command = Command::TakeRole { user: person(&app, &name)?, role: role.role, scope: scope(&app, &role)? };
    app.control.run(command, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The person of this name. Only for callers who may see people.
pub fn person(app: &App, name: &str) -> Result<UserId, Problem> {
    let known = name.parse::<UserName>().ok().and_then(|name| app.node.ledger(|ledger| ledger.user_named(&name).map(|user| user.id)));
    known.ok_or_else(|| Refusal::not_found("person", name).into())
}

fn scope(app: &App, role: &RoleView) -> Result<Scope, Problem> {
    match (&role.project, &role.environment) {
        (None, None) => Ok(Scope::All),
        (Some(project), None) => {
            let name: Name = project.parse()?;
            app.node.ledger(|ledger| ledger.project_named(&name)).map(Scope::Project).ok_or_else(|| Refusal::not_found("project", project).into())
        }
        (None, Some(environment)) => {
            let name: Name = environment.parse()?;
            let found = app.node.ledger(|ledger| ledger.environment_named(&name).map(|env| env.id));
            found.map(Scope::Environment).ok_or_else(|| Refusal::not_found("environment", environment).into())
        }
        (Some(_), Some(_)) => Err(Refusal::invalid("A role holds in a project or on an environment, not both.").into()),
    }
}

fn role_views(ledger: &Ledger, user: &User) -> Vec<RoleView> {
    let view = |(role, scope): &(Role, Scope)| {
        let (project, environment) = match scope {
            Scope::All => (None, None),
            Scope::Project(id) => (ledger.project_name(*id).map(ToString::to_string), None),
            Scope::Environment(id) => (None, ledger.environment(*id).map(|env| env.spec.name.to_string())),
        };
        RoleView { role: *role, project, environment }
    };
    user.all_roles().map(view).collect()
}
