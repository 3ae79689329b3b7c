//! Errors for people and programs: `application/problem+json` (RFC 9457) with a stable `code` and a `remedy`.

use crate::control::ControlError;
use axum::{
    Json,
    extract::{FromRequest, Request, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use daypass_core::refusal::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    pub status: u16,
    /// A stable word for programs: invalid, not_found, not_permitted, taken, policy, state, not_signed_in, unavailable.
    pub code: String,
    /// What is wrong.
    pub title: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, title: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { status: status.as_u16(), code: code.to_owned(), title: title.into(), remedy: remedy.into() }
    }

    pub fn not_signed_in() -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, "not_signed_in", "You are not signed in, or your token has ended.", "Sign in: daypass login")
    }

    pub fn not_permitted() -> Self {
        let refusal = Refusal::new(
            Code::NotPermitted,
            "You may not do this: none of your roles allows it.",
            "Ask an administrator; `daypass whoami` shows the roles that you have.",
        );
        refusal.into()
    }

    pub fn unavailable(why: impl Into<String>) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why, "Try again in a moment; whoever runs Daypass sees the cause with `daypass doctor`.")
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match refusal.code {
            Code::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Code::NotPermitted => (StatusCode::FORBIDDEN, "not_permitted"),
            Code::Taken => (StatusCode::CONFLICT, "taken"),
            Code::Policy => (StatusCode::FORBIDDEN, "policy"),
            Code::State => (StatusCode::CONFLICT, "state"),
        };
        Problem::new(status, code, refusal.message, refusal.remedy)
    }
}

impl From<String> for Problem {
    /// A text that could not be read: its message says how it should look.
    fn from(message: String) -> Self {
        Refusal::invalid(message).into()
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused(refusal) => refusal.into(),
            ControlError::Store(why) => Problem::unavailable(why),
            ControlError::Stopping => Problem::unavailable("Daypass is stopping."),
        }
    }
}

impl From<daypass_store::StoreError> for Problem {
    fn from(error: daypass_store::StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Problem::unavailable("The store failed.")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

/// A JSON body whose errors are problems.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T> FromRequest<S> for Body<T>
where
    Json<T>: FromRequest<S, Rejection = JsonRejection>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Json::<T>::from_request(request, state).await.map(|Json(body)| Body(body)).map_err(|rejection| {
            let status = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
                StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            Problem::new(status, "invalid", rejection.body_text(), "Send JSON as /api/v1/openapi.json describes it.")
        })
    }
}
