//! Who may open a route. Every route is registered with what it needs; one without does not compile. What is checked here is that the
//! caller has the permission somewhere; on which environment is checked by what the route does.

use super::{
    App, Problem,
    auth::{self, Caller},
};
use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use daypass_core::{ids::UserId, people::Permission};
use daypass_gateway::World;
use std::sync::{Arc, OnceLock};
use utoipa::openapi::{
    extensions::Extensions,
    path::{Operation, PathItem},
};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

/// What a route needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Nothing: it gives nothing away.
    Nothing,
    SignedIn,
    /// The permission, on some environment at least.
    Somewhere(Permission),
}

impl Need {
    fn word(self) -> String {
        match self {
            Need::Nothing => "nothing".to_owned(),
            Need::SignedIn => "signed in".to_owned(),
            Need::Somewhere(permission) => format!("{permission:?}"),
        }
    }
}

/// How a route words what it refuses.
type Refuse = fn(Problem) -> Response;

/// The routes of the API, each with what it needs.
pub struct Routes {
    app: App,
    router: OpenApiRouter<App>,
}

impl Routes {
    pub fn new(app: &App, router: OpenApiRouter<App>) -> Routes {
        Routes { app: app.clone(), router }
    }

    pub fn add(self, need: Need, routes: UtoipaMethodRouter<App>) -> Routes {
        self.add_in(need, routes, IntoResponse::into_response)
    }

    /// The same for a route whose errors have another form.
    pub fn add_in(self, need: Need, (schemas, mut paths, methods): UtoipaMethodRouter<App>, refuse: Refuse) -> Routes {
        for item in paths.paths.values_mut() {
            operations(item).for_each(|operation| {
                operation.extensions = Some(Extensions::builder().add("x-needs", need.word()).build());
            });
        }
        let guarded = methods.route_layer(axum::middleware::from_fn_with_state((self.app.clone(), need, refuse), api));
        Routes { router: self.router.routes((schemas, paths, guarded)), ..self }
    }

    pub fn done(self) -> OpenApiRouter<App> {
        self.router
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten()
}

/// Lets a call of the API through, with its caller.
async fn api(State((app, need, refuse)): State<(App, Need, Refuse)>, mut request: Request, next: Next) -> Response {
    if need == Need::Nothing {
        return next.run(request).await;
    }
    let Some(caller) = auth::bearer(&app, request.headers(), request.extensions()) else { return refuse(Problem::not_signed_in()) };
    if let Err(problem) = check(&app, &caller, need).and_then(|()| app.budgets.request(caller.user, request.method(), ends_access(&request))) {
        return refuse(problem);
    }
    signed_in(&request, caller.user);
    app.sign_ins.seen(&caller.name, caller.address);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Who was the first to sign in on this connection, if anybody: the others have a short life.
#[derive(Clone, Default)]
pub struct SignedIn(Arc<OnceLock<UserId>>);

impl SignedIn {
    pub fn who(&self) -> Option<UserId> {
        self.0.get().copied()
    }

    pub fn is(&self, user: UserId) {
        let _ = self.0.set(user);
    }
}

/// Tells the connection of a request that its person is known.
pub fn signed_in(request: &Request, user: UserId) {
    if let Some(known) = request.extensions().get::<SignedIn>() {
        known.is(user);
    }
}

/// Whether a request only ends access, by its address: none of these waits for a budget.
pub fn ends_access(request: &Request) -> bool {
    let path = request.uri().path();
    let last = path.rsplit('/').next().unwrap_or_default();
    match *request.method() {
        Method::DELETE => true,
        Method::POST => matches!(last, "end" | "lock" | "kill" | "deny" | "withdraw" | "movements"),
        _ => false,
    }
}

pub fn check(app: &App, caller: &Caller, need: Need) -> Result<(), Problem> {
    match need {
        Need::Somewhere(permission) if !app.node.ledger(|ledger| ledger.may_somewhere(caller.user, permission)) => Err(Problem::not_permitted()),
        Need::Nothing | Need::SignedIn | Need::Somewhere(_) => Ok(()),
    }
}
