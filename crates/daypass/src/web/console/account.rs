//! One's own account: sign-ins, tokens, password, second factor.

use super::{
    form::{Field, Fields, Form},
    people::role_words,
    time::length,
    visit::{Fault, Shell, Shown, Visit, page as show},
};
use crate::web::{
    Problem, api,
    dto::{MailSet, PasswordChange, TokenRequest, TokenView},
    problem::Body,
    sign_in,
};
use askama::Template;
use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use daypass_gateway::World;
use std::collections::HashMap;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    name: String,
    address: String,
    roles: Vec<String>,
    tokens: Vec<TokenView>,
    second_factor: bool,
    mail: Option<String>,
    /// A token that was just made: shown now and never again.
    made: Option<String>,
}

pub async fn page(visit: Visit) -> Shown {
    Ok(account_page(&visit, None).await)
}

async fn account_page(visit: &Visit, made: Option<String>) -> Response {
    let Json(me) = api::people::me(State(visit.app.clone()), visit.caller.clone()).await;
    let Json(tokens) = api::people::tokens(State(visit.app.clone()), visit.caller.clone()).await;
    let second_factor = visit.app.node.ledger(|ledger| ledger.user(visit.caller.user).is_some_and(|user| user.second_factor));
    let roles = me.roles.iter().map(role_words).collect();
    let mail = visit.app.node.ledger(|ledger| ledger.user(visit.caller.user).and_then(|user| user.mail.as_ref()).map(ToString::to_string));
    show(&AccountPage { shell: visit.shell(), name: me.name, address: me.address, roles, tokens, second_factor, mail, made })
}

fn token_form() -> Form {
    Form::new("Make a token", "/account/tokens", "Make the token")
        .line("A token lets a script do what you may do, but for what takes a recent sign-in: approving, breaking the glass, making tokens, standing accounts. It is shown once.")
        .with(Field::text("label", "What it is for").required())
        .with(Field::text("life", "How long").required().value("8h").hint("At most 720h"))
        .back("/account")
}

pub async fn token_page(visit: Visit) -> Response {
    visit.form(token_form())
}

pub async fn add_token(visit: Visit, fields: Fields) -> Result<Response, Response> {
    let (visit, cookie) = visit.prove(&fields, "Make the token", "/account/tokens").await?;
    let made = async {
        let life = length(&fields.text("life"))?.ok_or("Say how long it holds.".to_owned())?;
        let request = TokenRequest { label: fields.text("label"), life };
        api::people::add_token(State(visit.app.clone()), visit.caller.clone(), Body(request)).await
    };
    let answer = match made.await {
        Ok(Json(token)) => account_page(&visit, Some(token.token)).await,
        Err(problem) => visit.refused(token_form(), &fields, problem),
    };
    Ok((cookie, answer).into_response())
}

pub async fn remove_token(visit: Visit, Path(id): Path<String>) -> Shown {
    api::people::remove_token(State(visit.app.clone()), visit.caller.clone(), Path(id)).await?;
    Ok(visit.done("/account", "removed"))
}

fn password_form(second_factor: bool) -> Form {
    let form = Form::new("Change your password", "/account/password", "Change the password")
        .line("All your other sign-ins and tokens end.")
        .with(Field::password("old", "Old password", "current-password"))
        .with(Field::password("new", "New password", "new-password").hint("At least 10 characters"))
        .back("/account");
    if second_factor { form.with(Field::text("code", "Code of your authenticator").required().hint("Six digits")) } else { form }
}

fn has_second_factor(visit: &Visit) -> bool {
    visit.app.node.ledger(|ledger| ledger.user(visit.caller.user).is_some_and(|user| user.second_factor))
}

pub async fn password_page(visit: Visit) -> Response {
    visit.form(password_form(has_second_factor(&visit)))
}

pub async fn password(visit: Visit, fields: Fields) -> Response {
    let change = PasswordChange { old: fields.text("old"), new: fields.text("new"), code: fields.owned("code") };
    match api::people::change_password(State(visit.app.clone()), visit.caller.clone(), Body(change)).await {
        Ok(_) => visit.done("/account", "password"),
        Err(problem) => visit.refused(password_form(has_second_factor(&visit)), &fields, problem),
    }
}

#[derive(Template)]
#[template(path = "second_factor.html")]
struct SecondFactorPage {
    shell: Shell,
    secret: String,
    /// The rows of a QR code: for each dark stretch, where it is and how long.
    qr: Qr,
    problem: Option<Problem>,
}

struct Qr {
    size: usize,
    dark: Vec<(usize, usize, usize)>,
}

impl Qr {
    fn of(text: &str) -> Qr {
        let Ok(code) = qrcode::QrCode::new(text) else { return Qr { size: 1, dark: Vec::new() } };
        let (size, colors) = (code.width(), code.to_colors());
        let mut dark = Vec::new();
        for (y, row) in colors.chunks(size).enumerate() {
            let mut x = 0;
            for stretch in row.chunk_by(|a, b| a == b) {
                if stretch.first() == Some(&qrcode::Color::Dark) {
                    dark.push((x, y, stretch.len()));
                }
                x += stretch.len();
            }
        }
        Qr { size, dark }
    }
}

fn factor_page(visit: &Visit, secret: &str, problem: Option<Problem>) -> Result<Response, Fault> {
    let address = sign_in::address_of(&visit.caller.name, secret).ok_or_else(|| Problem::unavailable("The second factor could not be made."))?;
    Ok(show(&SecondFactorPage { shell: visit.shell(), secret: secret.to_owned(), qr: Qr::of(&address), problem }))
}

pub async fn second_factor_page(visit: Visit) -> Shown {
    factor_page(&visit, &sign_in::new_second_factor(), None)
}

pub async fn second_factor(visit: Visit, fields: Fields) -> Result<Response, Response> {
    let (visit, cookie) = visit.prove(&fields, "Set the second factor", "/account/second-factor").await?;
    let secret = fields.text("secret");
    let answer = match sign_in::set_second_factor(&visit.app, visit.caller.user, &secret, &fields.text("code")).await {
        Ok(()) => visit.done("/account", "factor"),
        Err(problem) => factor_page(&visit, &secret, Some(problem)).map_err(IntoResponse::into_response)?,
    };
    Ok((cookie, answer).into_response())
}

fn remove_form() -> Form {
    Form::new("Remove your second factor", "/account/second-factor/remove", "Remove the second factor")
        .line("From then on your password alone signs you in.")
        .back("/account")
        .danger()
}

pub async fn remove_second_factor_page(visit: Visit) -> Response {
    visit.form(remove_form())
}

pub async fn remove_second_factor(visit: Visit, fields: Fields) -> Result<Response, Response> {
    let (visit, cookie) = visit.prove(&fields, "Remove the second factor", "/account/second-factor/remove").await?;
    let answer = match sign_in::remove_second_factor(&visit.app, visit.caller.user, visit.caller.actor()).await {
        Ok(()) => visit.done("/account", "no-factor"),
        Err(problem) => visit.refused(remove_form(), &fields, problem),
    };
    Ok((cookie, answer).into_response())
}

fn device_form(code: &str) -> Form {
    Form::new("Sign a command line in", "/device", "Sign it in")
        .line("Type the code that `daypass login --sso` shows on your own machine. Never type one that somebody sent you: it would sign them in as you.")
        .with(Field::text("device", "Code").required().value(code).hint("Like BCDF-GHJK"))
        .back("/account")
}

pub async fn device_page(visit: Visit, Query(query): Query<HashMap<String, String>>) -> Response {
    visit.form(device_form(query.get("code").map(String::as_str).unwrap_or_default()))
}

/// Asks once more, with where the command line runs; then signs it in.
pub async fn device(visit: Visit, fields: Fields) -> Result<Response, Response> {
    let (visit, cookie) = visit.prove(&fields, "Go on", "/device").await?;
    let (typed, now) = (fields.text("device"), visit.app.node.now());
    let answer = match (visit.app.devices.find(&typed, now), fields.ticked("sure")) {
        (None, _) => {
            let unknown = Problem::from("No command line waits with this code. It is good for ten minutes.".to_owned());
            visit.refused(device_form(&typed), &fields, unknown)
        }
        (Some(device), false) => {
            let form = Form::new("Is this your command line?", "/device", "Yes, sign it in")
                .line(format!("It runs at {}, and will do all that you may do, for 12 hours.", device.address))
                .with(Field::hidden("device", &typed))
                .with(Field::hidden("sure", "yes"))
                .back("/account");
            visit.form(form)
        }
        (Some(device), true) => {
            visit.app.devices.approve(&device, visit.caller.user, now);
            visit.done("/account", "device")
        }
    };
    Ok((cookie, answer).into_response())
}

fn mail_form(visit: &Visit) -> Form {
    let mail = visit.app.node.ledger(|ledger| ledger.user(visit.caller.user).and_then(|user| user.mail.as_ref()).map(ToString::to_string));
    Form::new("Mail for notices", "/account/mail", "Save")
        .line("You are told when a request waits for you, when your access is ready, and before it ends.")
        .with(Field::text("mail", "Address").value(&mail.unwrap_or_default()).hint("Leave it empty for no mail"))
        .back("/account")
}

pub async fn mail_page(visit: Visit) -> Response {
    visit.form(mail_form(&visit))
}

pub async fn mail(visit: Visit, fields: Fields) -> Response {
    let set = MailSet { mail: fields.owned("mail") };
    match api::people::set_own_mail(State(visit.app.clone()), visit.caller.clone(), Body(set)).await {
        Ok(_) => visit.done("/account", "saved"),
        Err(problem) => visit.refused(mail_form(&visit), &fields, problem),
    }
}
