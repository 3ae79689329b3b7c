//! Every route and every page, asked by everybody: with the wrong sign-in, without the permission, about what is not theirs.

use super::{App, guard::Need, place::Place, router, sign_in};
use crate::{control::Control, node::Node};
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use daypass_core::{
    chain::Head,
    command::*,
    environment::*,
    event::{Actor, Entry, Event},
    ids::*,
    index::Index,
    ledger::Ledger,
    net::Range,
    pass::{Access, Wish},
    people::{Permission, Role, Scope, TokenKind},
    policy::Policy,
    time::{Time, Ttl},
};
use daypass_gateway::World;
use daypass_store::{MasterKey, Store};
use std::{path::PathBuf, sync::Arc};
use tower::ServiceExt;

/// An installation in this process: the environments uat and golden, maria with a pass, an address and a request on uat.
struct Installation {
    app: App,
    router: Router,
    document: serde_json::Value,
    directory: PathBuf,
    uat: EnvironmentId,
    golden: EnvironmentId,
    maria: UserId,
    pass: PassId,
    waiting: PassId,
    entry: AllowId,
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn id() -> uuid::Uuid {
    crate::random::id()
}

impl Installation {
    async fn new() -> Installation {
        let directory = std::env::temp_dir().join(format!("daypass-routes-{}", id()));
        let store = Store::open(&directory, Some(MasterKey::from_hex(&"7".repeat(64)).unwrap())).await.unwrap();
        let (mut ledger, mut index) = (Ledger::default(), Index::default());
        let first = Entry { seq: 1, at: Time::from_micros(1), by: Actor::System, event: Event::StoreCreated { store: StoreId::new(id()) } };
        let head = store.log.append(Head::EMPTY, std::slice::from_ref(&first), &[]).await.unwrap();
        ledger.apply(&first).unwrap();
        index.push(&ledger, &first);
        let watch = crate::watch::Watch::start().unwrap();
        let (clock, _) = crate::clock::Clock::start(&directory, ledger.latest(), false).unwrap();
        let node = Arc::new(Node::new(store, clock, watch.handle().clone(), ledger, index, crate::node::Positions::open(&directory), 2));
        let control = Control::start(node.clone(), head, &watch);
        let place =
            Place { server: "localhost".into(), suffix: None, postgres: ([127, 0, 0, 1], 1).into(), sqlserver: ([127, 0, 0, 1], 2).into(), ca: String::new() };
        let app = App {
            node,
            control,
            mover: Arc::new(crate::mover::Mover::new(crate::config::Movement::default(), &directory, daypass_targets::movement::MaskKey::new([7; 32]))),
            place: Arc::new(place),
            sign_ins: Arc::default(),
            budgets: Arc::new(crate::web::budget::Budgets::new(crate::web::budget::Limits { requests: 100_000, changes: 100_000, replays: 2, records: 2 })),
            recent: Ttl::minutes(15),
            devices: Arc::default(),
            url: "https://localhost".into(),
            channels: Arc::new([]),
            provider: None,
            first_link: directory.join("first-link").into(),
        };
        let (router, document) = router(app.clone());
        let document = serde_json::to_value(document).unwrap();
        let [uat, golden] = [EnvironmentId::new(id()), EnvironmentId::new(id())];
        let (maria, pass, waiting, entry) = (UserId::new(id()), PassId::new(id()), PassId::new(id()), AllowId::new(id()));
        let all = Installation { app, router, document, directory, uat, golden, maria, pass, waiting, entry };
        let project = ProjectId::new(id());
        let command = Command::AddProject { project, name: "main".parse().unwrap() };
        let changes = vec![super::auth::nobodys_password().await.unwrap()];
        all.app.control.run_job(crate::control::Job { command, by: Actor::System, changes, secrets: None }).await.unwrap();
        for (environment, name) in [(uat, "uat"), (golden, "golden")] {
            let target_spec =
                TargetSpec { engine: Engine::Postgres, host: "db.example.com".parse().unwrap(), port: 5432, admin: "a".into(), tls: TargetTls::Off };
            let (kind, grants, enforce) = (Kind::SelfService, Grants::Granted, Enforce::Gateway);
            let spec = EnvironmentSpec { name: name.parse().unwrap(), kind, database: name.parse().unwrap(), grants, heir: None, enforce };
            all.run(Command::AddEnvironment { environment, project, target: TargetId::new(id()), target_spec, spec }, Actor::System).await;
        }
        let roles = vec![(Role::Requester, Scope::All)];
        all.run(Command::AddUser { user: maria, name: "maria".parse().unwrap(), roles }, Actor::System).await;
        let approval = [(Access::ReadWrite, daypass_core::policy::Approvals::One)].into();
        all.run(Command::SetPolicy { scope: Scope::Environment(uat), policy: Policy { approval, ..Policy::default() } }, Actor::System).await;
        let me = Actor::User(maria);
        for (pass, access) in [(pass, Access::Read), (waiting, Access::ReadWrite)] {
            let wish = Wish::new(access, "a look".parse().unwrap());
            all.run(Command::RequestPass { pass, environment: uat, wish, life: None, salt: crate::random::number() }, me).await;
        }
        all.run(Command::Observed(Observed::LoginWorks { pass }), Actor::System).await;
        let ranges = Range::list("203.0.113.7").unwrap();
        all.run(Command::AddAllow { entry, environment: uat, owner: AllowFor::Myself, ranges, note: None, life: None }, me).await;
        all
    }

    async fn run(&self, command: Command, by: Actor) {
        self.app.control.run(command, by).await.unwrap();
    }

    /// Somebody with these roles, and a sign-in of each kind.
    async fn hires(&self, name: &str, roles: Vec<(Role, Scope)>) -> Person {
        let user = UserId::new(id());
        self.run(Command::AddUser { user, name: name.parse().unwrap(), roles }, Actor::System).await;
        self.signs_in(user).await
    }

    async fn signs_in(&self, user: UserId) -> Person {
        let token = async |kind| sign_in::issue(&self.app, user, "a walk".to_owned(), Ttl::hours(1), kind, true).await.unwrap().1;
        Person { api: token(TokenKind::Api).await, browser: token(TokenKind::Browser).await }
    }

    /// Every route of the API with what its documentation says that it needs, and every page.
    fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let needs = operation["x-needs"].as_str().unwrap_or_else(|| panic!("{method} {path} does not say what it needs")).to_owned();
                routes.push(Route { method: method.to_uppercase().parse().unwrap(), path: path.clone(), needs, page: false });
            }
        }
        for (path, need) in super::console::needs(&self.app) {
            for method in [Method::GET, Method::POST] {
                let needs = match need {
                    Need::Nothing => "nothing".to_owned(),
                    Need::SignedIn => "signed in".to_owned(),
                    Need::Somewhere(permission) => format!("{permission:?}"),
                };
                routes.push(Route { method, path: path.to_owned(), needs, page: true });
            }
        }
        routes
    }

    async fn ask(&self, route: &Route, sign_in: Option<(&str, bool)>) -> (StatusCode, String) {
        let path = route
            .path
            .replace("{environment}", "uat")
            .replace("{pass}", &if route.judges() { self.waiting } else { self.pass }.to_string())
            .replace("{id}", &self.entry.to_string())
            .replace("{activity}", &self.entry.to_string())
            .replace("{source}", "golden")
            .replace("{target}", "uat")
            .replace("{file}", "a.dump")
            .replace("{project}", "main")
            .replace("{name}", "maria")
            .replace("{code}", "guess");
        let mut request = Request::builder().method(route.method.clone()).uri(path).header(header::HOST, "localhost");
        request = match sign_in {
            None => request,
            Some((token, true)) => request.header(header::COOKIE, format!("__Host-daypass={token}")),
            Some((token, false)) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        };
        let (kind, body) = if route.page { ("application/x-www-form-urlencoded", self.form()) } else { ("application/json", self.body(&route.path)) };
        let body = if route.method == Method::GET { Body::empty() } else { Body::from(body) };
        let answer = self.router.clone().oneshot(request.header(header::CONTENT_TYPE, kind).body(body).unwrap()).await.unwrap();
        let status = answer.status();
        let live = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        let text = if live { Default::default() } else { axum::body::to_bytes(answer.into_body(), 1 << 24).await.unwrap() };
        (status, String::from_utf8_lossy(&text).into_owned())
    }

    /// A body that would be carried out if its sender might.
    fn body(&self, path: &str) -> String {
        let digest = self.app.node.ledger(|ledger| ledger.pass(self.waiting).unwrap().digest().to_string());
        let body = match path.rsplit('/').next().unwrap() {
            "policy" => serde_json::to_value(Policy::default()).unwrap(),
            "allow" => serde_json::json!({ "addresses": "203.0.113.9" }),
            "passes" => serde_json::json!({ "access": "read", "reason": "a look" }),
            "extend" => serde_json::json!({ "by": 60 }),
            "approve" => serde_json::json!({ "digest": digest }),
            "movements" => serde_json::json!({ "kind": "external" }),
            "preview" if path.ends_with("movements/preview") => serde_json::json!({ "kind": "external" }),
            "standing" => serde_json::json!({ "name": "app", "password": "secret" }),
            "machines" => serde_json::json!({ "host": "aos-1", "user": "Administrator", "password": "secret" }),
            "kind" => serde_json::json!({ "kind": "managed" }),
            "remote-desktop" => serde_json::json!({ "on": true }),
            "expect-failover" => serde_json::json!({ "within": 60 }),
            "preview" => serde_json::json!({ "person": "maria", "request": { "access": "read", "reason": "a look" } }),
            "roles" | "take" => serde_json::json!({ "role": "admin" }),
            "msprov_getfinopssqljitaccessasync" => {
                serde_json::json!({ "sqljitclientipaddress": "203.0.113.9", "sqljitreason": "a look", "sqljitrole": "Reader" })
            }
            _ => serde_json::json!({ "why": "because" }),
        };
        body.to_string()
    }

    /// The same for forms: all fields that any form has.
    fn form(&self) -> String {
        let digest = self.app.node.ledger(|ledger| ledger.pass(self.waiting).unwrap().digest().to_string());
        format!(
            "why=because&word=because&digest={digest}&addresses=203.0.113.9&life=1h&by=1m&access=read&reason=a+look&name=uat&role=admin&place=all&kind=external&on=yes&host=aos-1&user=a&password=secret&verdict=mine"
        )
    }
}

struct Person {
    api: String,
    browser: String,
}

impl Person {
    fn token(&self, route: &Route) -> Option<(&str, bool)> {
        Some(if route.page { (&self.browser, true) } else { (&self.api, false) })
    }
}

struct Route {
    method: Method,
    path: String,
    needs: String,
    page: bool,
}

impl Route {
    fn judges(&self) -> bool {
        ["approve", "deny", "review"].iter().any(|word| self.path.ends_with(word))
    }

    fn permission(&self) -> Option<Permission> {
        use Permission::*;
        let all = [ManagePeople, ManageEnvironments, SeeEnvironment, Request, Approve, SeeAccess, EndAnyAccess, AllowForOthers, Move, Reveal, ReadLog];
        all.into_iter().find(|permission| format!("{permission:?}") == self.needs)
    }

    /// As in the system before, whoever is signed in gets status 200, and the answer says the rest.
    fn is_lcs(&self) -> bool {
        ["/databasemovement/", "/environmentinfo/"].iter().any(|api| self.path.starts_with(api))
    }

    /// A page that has only one of the two methods.
    fn is_there(&self, status: StatusCode) -> bool {
        !(self.page && status == StatusCode::METHOD_NOT_ALLOWED)
    }
}

#[tokio::test]
async fn a_route_opens_for_those_who_have_what_it_names_and_for_nobody_else() {
    let all = Installation::new().await;
    let (mut open, mut shut) = (0, 0);
    let stranger = all.hires("stranger", vec![]).await;
    let mut people = vec![(None, stranger)];
    for role in Role::ALL {
        people.push((Some(role), all.hires(role.as_str(), vec![(role, Scope::All)]).await));
    }
    for route in all.routes() {
        let what = format!("{} {} ({})", route.method, route.path, route.needs);
        let (nobody, _) = all.ask(&route, None).await;
        // a sign-in of the wrong kind is none
        let (_, other) = people.last().unwrap();
        let (wrong, _) = all.ask(&route, Some(if route.page { (&other.api, true) } else { (&other.browser, false) })).await;
        let refused = |status: StatusCode| match route.page {
            true => status == StatusCode::SEE_OTHER || status == StatusCode::UNAUTHORIZED,
            false => status == StatusCode::UNAUTHORIZED,
        };
        if route.needs == "nothing" {
            assert!(route.page || nobody != StatusCode::UNAUTHORIZED || route.path.ends_with("login"), "{what}: {nobody}");
            continue;
        }
        if route.is_there(nobody) {
            assert!(refused(nobody) && refused(wrong), "{what}: {nobody} without a sign-in, {wrong} with one of the wrong kind");
        }
        // what removes or locks is asked by those who may not; those who may have stories of their own
        for (role, person) in &people {
            let granted = route.permission().is_none_or(|permission| role.is_some_and(|role| role.grants(permission)));
            if granted && route.method != Method::GET {
                continue;
            }
            let (status, text) = all.ask(&route, person.token(&route)).await;
            if !route.is_there(status) {
                continue;
            }
            if granted {
                open += 1;
                let own = route.permission().is_none();
                assert!(status != StatusCode::UNAUTHORIZED && (own || status != StatusCode::FORBIDDEN), "{what} as {role:?}: {status} {text}");
                assert!(!status.is_server_error() || text.contains("administrator's password"), "{what} as {role:?}: {status} {text}");
            } else if route.is_lcs() {
                shut += 1;
                assert!(text.contains("\"IsSuccess\":false"), "{what} as {role:?}: {text}");
            } else {
                shut += 1;
                assert_eq!(status, StatusCode::FORBIDDEN, "{what} as {role:?}: {text}");
            }
        }
    }
    assert!(open > 150 && shut > 200, "{open} open, {shut} shut");
}

#[tokio::test]
async fn what_is_on_another_environment_or_another_persons_is_not_there() {
    let all = Installation::new().await;
    let everything: Vec<(Role, Scope)> = Role::ALL.into_iter().filter(|role| *role != Role::Admin).map(|role| (role, Scope::Environment(all.golden))).collect();
    let elsewhere = all.hires("elsewhere", everything).await;
    let colleague = all.hires("colleague", vec![(Role::Requester, Scope::All)]).await;
    // asks on uat, and is somebody on golden only
    let halved = [(Role::Requester, all.uat), (Role::Manager, all.golden), (Role::Approver, all.golden), (Role::Auditor, all.golden)];
    let halved = all.hires("halved", halved.map(|(role, env)| (role, Scope::Environment(env))).to_vec()).await;
    let before = all.app.node.ledger(Ledger::seq);
    let is_about_it = |route: &Route| ["{environment}", "{pass}", "/allow/{id}", "/sessions/{id}"].iter().any(|part| route.path.contains(part));
    for route in all.routes().iter().filter(|route| is_about_it(route)) {
        let (status, text) = all.ask(route, elsewhere.token(route)).await;
        let hidden = [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED];
        let hidden_here = hidden.contains(&status) || route.is_lcs() && text.contains("\"IsSuccess\":false");
        assert!(hidden_here, "{} {} for somebody of another environment: {status} {text}", route.method, route.path);
        assert!(!text.contains("jit_maria"), "{} {}: {text}", route.method, route.path);
        // what a colleague may see of the environment holds nothing of maria's; what is hers is not there
        let hers = ["{pass}", "/allow/{id}", "/sessions/{id}"].iter().any(|part| route.path.contains(part));
        if hers || route.method == Method::GET {
            for person in [&colleague, &halved] {
                let (status, text) = all.ask(route, person.token(route)).await;
                assert!(!text.contains("jit_maria") && !text.contains("203.0.113.7"), "{} {} tells a colleague: {text}", route.method, route.path);
                assert!(!hers || hidden.contains(&status), "{} {} for a colleague: {status} {text}", route.method, route.path);
            }
        }
    }
    assert_eq!(all.app.node.ledger(Ledger::seq), before, "nothing happened");
    // and hers are there for maria
    let maria = all.signs_in(all.maria).await;
    let show = Route { method: Method::GET, path: "/api/v1/passes/{pass}".into(), needs: String::new(), page: false };
    assert!(all.ask(&show, maria.token(&show)).await.1.contains("jit_maria"));
    assert_eq!(all.app.node.ledger(|ledger| ledger.environment(all.uat).map(|env| env.epoch())), Some(0));
}

#[tokio::test]
async fn other_sites_do_nothing_in_a_persons_name() {
    let all = Installation::new().await;
    let maria = all.signs_in(all.maria).await;
    let send = async |headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(Method::POST).uri(format!("/passes/{}/end", all.pass)).header(header::HOST, "daypass.example.com");
        request = request.header(header::COOKIE, format!("__Host-daypass={}", maria.browser)).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        all.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    for foreign in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example.com")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://daypass.example.com")],
    ] {
        assert_eq!(send(foreign).await, StatusCode::FORBIDDEN, "{foreign:?}");
    }
    assert!(
        all.app
            .node
            .ledger(|ledger| !ledger.pass(all.pass).unwrap().state().is_final() && ledger.over(ledger.pass(all.pass).unwrap(), all.app.node.now()).is_none())
    );
    assert_eq!(send(&[("sec-fetch-site", "same-origin")]).await, StatusCode::SEE_OTHER);
    assert!(all.app.node.ledger(|ledger| ledger.over(ledger.pass(all.pass).unwrap(), all.app.node.now()).is_some()));
}

#[tokio::test]
async fn a_sign_in_leads_back_into_the_console_and_nowhere_else() {
    let unseen = ["/\t/evil.example.com", "/\u{0}/evil.example.com", "/ /evil.example.com", "/a\r\nset-cookie: x"];
    for away in ["//evil.example.com", "https://evil.example.com", "/\\evil.example.com", "javascript:alert(1)", "evil"].into_iter().chain(unseen) {
        assert_eq!(super::console::local_way(away), "/environments", "{away}");
    }
    assert_eq!(super::console::local_way("/environments/uat?x=1"), "/environments/uat?x=1");
}

#[tokio::test]
async fn a_token_that_was_made_with_another_is_no_recent_sign_in() {
    let all = Installation::new().await;
    let amy = all.hires("amy", vec![(Role::Approver, Scope::All)]).await;
    let call = async |token: &str, path: &str, body: serde_json::Value| {
        let request = Request::builder().method(Method::POST).uri(format!("/api/v1{path}")).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}")).body(Body::from(body.to_string())).unwrap();
        let answer = all.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let text = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_default())
    };
    let wish = serde_json::json!({ "label": "a script", "life": 3600 });
    let (status, made) = call(&amy.api, "/tokens", wish.clone()).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let script = made["token"].as_str().unwrap();
    assert_eq!(call(script, "/tokens", wish).await.0, StatusCode::FORBIDDEN, "a stolen one does not make itself live longer");
    let digest = all.app.node.ledger(|ledger| ledger.pass(all.waiting).unwrap().digest().to_string());
    let (path, yes) = (format!("/passes/{}/approve", all.waiting), serde_json::json!({ "digest": digest }));
    let (status, said) = call(script, &path, yes.clone()).await;
    assert!(status == StatusCode::FORBIDDEN && said["title"].as_str().unwrap().contains("sign-in of the last"), "{said}");
    assert_eq!(call(&amy.api, &path, yes).await.0, StatusCode::OK);
    // nor does it break the glass
    let policy =
        Policy { approval: [(Access::ReadWrite, daypass_core::policy::Approvals::One)].into(), break_glass: [Role::Requester].into(), ..Policy::default() };
    all.run(Command::SetPolicy { scope: Scope::Environment(all.uat), policy }, Actor::System).await;
    let maria = all.signs_in(all.maria).await;
    let (_, made) = call(&maria.api, "/tokens", serde_json::json!({ "label": "a script", "life": 3600 })).await;
    let wish = serde_json::json!({ "access": "read_write", "reason": "the invoices stand still", "break_glass": true });
    assert_eq!(call(made["token"].as_str().unwrap(), "/environments/uat/passes", wish.clone()).await.0, StatusCode::FORBIDDEN);
    let (status, made) = call(&maria.api, "/environments/uat/passes", wish).await;
    assert!(status == StatusCode::OK && made["break_glass"] == true, "{made}");
}

#[tokio::test]
async fn who_has_roles_from_a_provider_signs_in_there_and_confirms_here() {
    let all = Installation::new().await;
    let nina = UserId::new(id());
    let command = Command::SignInFrom {
        user: nina,
        name: "nina".parse().unwrap(),
        issuer: "https://id.example.com".to_owned(),
        subject: "s-1".to_owned(),
        roles: vec![(Role::Approver, Scope::All)],
    };
    all.run(command, Actor::System).await;
    let password = "a-password-that-is-long";
    super::sign_in::change_password(&all.app, nina, Actor::System, None, password.to_owned()).await.unwrap();
    let proof = || sign_in::Proof { name: "nina", password: password.to_owned(), code: None, address: [203, 0, 113, 7].into() };
    assert_eq!(sign_in::by_password(&all.app, proof()).await.unwrap_err().status, 403, "the groups are asked for at the provider");
    assert_eq!(sign_in::prove(&all.app, proof()).await.unwrap(), nina, "that it is her, the password says");
}

#[tokio::test]
async fn six_digits_cannot_be_guessed_from_many_addresses() {
    let all = Installation::new().await;
    let password = "a-password-that-is-long";
    super::sign_in::change_password(&all.app, all.maria, Actor::System, None, password.to_owned()).await.unwrap();
    let key = super::sign_in::new_second_factor();
    let changes = vec![daypass_store::Change::Put { id: format!("second-factor:{}", all.maria), secret: daypass_core::secret::Secret::new(key) }];
    let command = Command::SetSecondFactor { user: all.maria };
    all.app.control.run_job(crate::control::Job { command, by: Actor::User(all.maria), changes, secrets: None }).await.unwrap();
    let mut refused = Vec::new();
    for n in 0..14u32 {
        // a network of its own each time
        let address = std::net::IpAddr::from([0x2001, 0xdb8, n as u16, 0, 0, 0, 0, 1u16]);
        let proof = sign_in::Proof { name: "maria", password: password.to_owned(), code: Some("00000x"), address };
        refused.push(sign_in::prove(&all.app, proof).await.unwrap_err().status);
    }
    assert_eq!(refused.iter().filter(|status| **status == 401).count(), 10, "{refused:?}");
    assert!(refused[10..].iter().all(|status| *status == 429), "{refused:?}");
}

#[tokio::test]
async fn who_was_in_at_a_moment_is_exported_as_it_is_shown() {
    let all = Installation::new().await;
    let vera = all.hires("vera", vec![(Role::Auditor, Scope::All)]).await;
    let get = async |path: &str| {
        let request = Request::builder().uri(path).header(header::HOST, "localhost").header(header::COOKIE, format!("__Host-daypass={}", vera.browser));
        let answer = all.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        (status, String::from_utf8(axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
    };
    // the next minute: a field holds no less
    let at = all.app.node.now().after(Ttl::minutes(1)).to_string()[..16].to_owned();
    let (status, page) = get(&format!("/report?environment=uat&at={at}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let link = page.split("href=\"").find_map(|rest| rest.strip_prefix("/report.csv")).unwrap().split('"').next().unwrap();
    let (status, table) = get(&format!("/report.csv{}", link.replace("&#38;", "&").replace("&amp;", "&"))).await;
    assert!(status == StatusCode::OK && table.contains(r#""maria","uat","jit_maria_"#), "{status} {table}");
}

#[tokio::test]
async fn guessing_passwords_by_other_spellings_of_a_name_brings_nothing_and_locks_nobody_out() {
    let all = Installation::new().await;
    let password = "a-password-that-is-long";
    super::sign_in::change_password(&all.app, all.maria, Actor::System, None, password.to_owned()).await.unwrap();
    let try_one = async |name: &str, password: &str, address: [u8; 4]| {
        let body = serde_json::json!({ "name": name, "password": password }).to_string();
        let mut request =
            Request::builder().method(Method::POST).uri("/api/v1/login").header(header::CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap();
        request.extensions_mut().insert(axum::extract::ConnectInfo(std::net::SocketAddr::from((address, 1))));
        all.router.clone().oneshot(request).await.unwrap().status()
    };
    let spelled = |n: usize| {
        let letters = "maria".chars().enumerate().map(|(at, letter)| if n >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter });
        format!("{}{}{}", " ".repeat(n / 32 % 6), letters.collect::<String>(), "\t".repeat(n / 192))
    };
    let mut looked_at = 0;
    for n in 0..1_000 {
        let status = try_one(&spelled(n), "a-wrong-password", [203, 0, 113, 9]).await;
        assert!(status == StatusCode::UNAUTHORIZED || status == StatusCode::TOO_MANY_REQUESTS, "{status}");
        looked_at += usize::from(status == StatusCode::UNAUTHORIZED);
    }
    assert!((10..=12).contains(&looked_at), "{looked_at} guesses of 1,000 were looked at");
    assert_eq!(try_one("maria", password, [203, 0, 113, 9]).await, StatusCode::TOO_MANY_REQUESTS, "not even the right one, from there");
    assert_eq!(try_one("maria", password, [203, 0, 113, 7]).await, StatusCode::OK, "maria herself comes from elsewhere");
}

#[tokio::test]
async fn how_long_a_sign_in_takes_does_not_tell_whether_a_name_is_there() {
    const PAIRS: usize = 150;
    let all = Installation::new().await;
    super::sign_in::change_password(&all.app, all.maria, Actor::System, None, "a-password-that-is-long".to_owned()).await.unwrap();
    let time = async |name: &str, n: usize| {
        // each from an address of its own: attempts are counted
        let address = std::net::IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
        let proof = sign_in::Proof { name, password: "a-wrong-password".to_owned(), code: None, address };
        let began = std::time::Instant::now();
        assert!(sign_in::prove(&all.app, proof).await.is_err());
        began.elapsed().as_secs_f64()
    };
    // the first of each warms up
    time("maria", 0).await;
    time("nobody", 1).await;
    let mut differences = Vec::new();
    for n in 0..PAIRS {
        // by turns, so that what else the machine does falls on both
        let at = 2 + 2 * n;
        let (known, unknown) = match n % 2 {
            0 => (time("maria", at).await, time("nobody", at + 1).await),
            _ => {
                let unknown = time("nobody", at + 1).await;
                (time("maria", at).await, unknown)
            }
        };
        differences.push(known - unknown);
    }
    let mean = differences.iter().sum::<f64>() / PAIRS as f64;
    let variance = differences.iter().map(|difference| (difference - mean).powi(2)).sum::<f64>() / (PAIRS - 1) as f64;
    let t = mean / (variance / PAIRS as f64).sqrt();
    assert!(t.abs() < 4.5, "{t:.1} standard errors apart: {mean:.6} s");
}

#[tokio::test]
async fn a_script_whose_sign_in_has_ended_is_led_to_a_new_one() {
    let all = Installation::new().await;
    let ask = async |by_script: bool| {
        let mut request = Request::builder().uri("/environments/uat").header(header::HOST, "localhost");
        if by_script {
            request = request.header("hx-request", "true");
        }
        let answer = all.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (answer.status(), header("hx-redirect"), header("location"), header("strict-transport-security"))
    };
    let to = Some("/sign-in?to=/environments/uat".to_owned());
    assert_eq!(ask(true).await, (StatusCode::OK, to.clone(), None, None), "and on a machine of one's own no browser is told to be strict");
    assert_eq!(ask(false).await, (StatusCode::SEE_OTHER, None, to, None));
}
