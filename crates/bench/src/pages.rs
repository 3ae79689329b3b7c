//! Pages of the console, by 10,000 passes on 20 environments and a log of a million lines: how long the server takes for each, and how
//! much a first visit loads.

use crate::{
    report::{Report, quantile},
    stage,
};
use anyhow::{Context, Result};
use daypass_core::{
    chain::Head,
    environment::*,
    event::{Actor, Entry, Event},
    ids::*,
    names::AccountName,
    pass::{Access, Approver, Wish},
    people::{Role, Scope, TokenKind},
    secret::TokenHash,
    time::{Time, Ttl},
};
use daypass_store::Store;
use std::time::{Duration, Instant};
use uuid::Uuid;

const PASSES: u128 = 10_000;
const ENVIRONMENTS: u128 = 20;
const EVENTS: u64 = 1_000_000;
/// Each page so often.
const VISITS: usize = 60;

fn named<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| unreachable!("a text of this file"))
}

/// The events of a year, and the tokens of three people who look at them.
/// The number of a thing: which kind, which of them.
fn id(kind: u128, n: u128) -> Uuid {
    Uuid::from_u128((kind << 64) + n + 1)
}

fn events(now: Time) -> (Vec<Event>, [(&'static str, String); 3]) {
    let (project, target) = (ProjectId::new(id(1, 0)), TargetId::new(id(2, 0)));
    let spec = TargetSpec { engine: Engine::Postgres, host: named("127.0.0.1"), port: 1, admin: "daypass_admin".into(), tls: TargetTls::Off };
    let mut events =
        vec![Event::StoreCreated { store: StoreId::new(id(3, 0)) }, Event::ProjectAdded { project, name: named("main") }, Event::TargetAdded { target, spec }];
    for n in 0..ENVIRONMENTS {
        let database = named(&format!("db{n}"));
        let spec = EnvironmentSpec {
            name: named(&format!("env{n}")),
            kind: Kind::SelfService,
            database,
            grants: Grants::Granted,
            heir: None,
            enforce: Enforce::Gateway,
        };
        events.push(Event::EnvironmentAdded { environment: EnvironmentId::new(id(4, n)), project, target, spec });
    }
    let who = [("ada", vec![Role::Admin]), ("sam", vec![Role::Manager, Role::Approver]), ("p0", vec![Role::Requester])];
    let tokens = who.map(|(name, roles)| {
        let user = UserId::new(if name == "p0" { id(5, 0) } else { id(6, name.len() as u128 * 7 + u128::from(name.as_bytes()[0])) });
        events.push(Event::UserAdded { user, name: named(name) });
        events.extend(roles.into_iter().map(|role| Event::RoleGiven { user, role, scope: Scope::All }));
        let token = format!("dpt_bench_{name}");
        let (hash, ends_at) = (TokenHash::of(&token), now.after(Ttl::hours(12)));
        events.push(Event::TokenAdded {
            token: TokenId::new(id(7, u128::from(name.as_bytes()[0]))),
            user,
            label: "bench".into(),
            hash,
            ends_at,
            kind: TokenKind::Browser,
            proved: true,
        });
        (name, token)
    });
    for n in 0..PASSES {
        let (user, pass, environment) = (UserId::new(id(5, n % 500)), PassId::new(id(8, n)), EnvironmentId::new(id(4, n % ENVIRONMENTS)));
        if (1..500).contains(&n) {
            events.push(Event::UserAdded { user, name: named(&format!("p{n}")) });
            events.push(Event::RoleGiven { user, role: Role::Requester, scope: Scope::All });
        }
        let account = AccountName::make(&named(&format!("p{n}")), n as u64);
        let wish = Wish::new(Access::Read, named("OPS-17: totals look wrong since the upgrade"));
        events.push(Event::PassRequested { pass, environment, holder: user, account, wish, life: Ttl::hours(8) });
        events.push(Event::PassApproved { pass, approver: Approver::Policy(named("default")), ends_at: now.after(Ttl::hours(7)), digest: None, word: None });
        events.push(Event::PassReady { pass });
    }
    let mut n = 0;
    while (events.len() as u64) < EVENTS {
        events.push(Event::PassRevealed { pass: PassId::new(id(8, n % PASSES)) });
        n += 1;
    }
    (events, tokens)
}

pub async fn measure(report: &mut Report) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("daypass-bench-pages-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let measured = in_directory(&directory, report).await.inspect_err(|_| {
        let log = std::fs::read_to_string(directory.join("daypass.log")).unwrap_or_default();
        eprintln!("{}", log.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
    });
    let _ = std::fs::remove_dir_all(&directory);
    measured
}

async fn in_directory(directory: &std::path::Path, report: &mut Report) -> Result<()> {
    let now = Time::from_micros(jiff::Timestamp::now().as_microsecond());
    let (events, tokens) = events(now);
    {
        let store = Store::open(&directory.join("data"), None).await?;
        let mut head = Head::EMPTY;
        for (at, block) in events.chunks(20_000).enumerate() {
            let entry = |(n, event): (usize, &Event)| Entry { seq: (at * 20_000 + n) as u64 + 1, at: now, by: Actor::System, event: event.clone() };
            let entries: Vec<Entry> = block.iter().enumerate().map(entry).collect();
            head = store.log.append(head, &entries, &[]).await?;
        }
    }
    let began = Instant::now();
    let (_child, port, _, _) = stage::daypass(directory).await?;
    // the port is there before the log is read
    while !directory.join("data/ca.pem").exists() {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "Daypass did not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tls = stage::trusting(&directory.join("data/ca.pem"))?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()?;
    report.title(&format!("pages of the console, by {PASSES} passes on {ENVIRONMENTS} environments and {EVENTS} lines of log"));
    http.get(format!("https://127.0.0.1:{port}/api/v1/health")).send().await?.error_for_status()?;
    report.row("start, with replay", began.elapsed().as_secs_f64(), "s");
    let request = format!("/requests/{}", PassId::new(id(8, 17)));
    let pages = [
        ("p0", "environments", "/environments"),
        ("p0", "environment, requester", "/environments/env0"),
        ("p0", "requests", "/requests"),
        ("sam", "environments, manager", "/environments"),
        ("sam", "environment, manager", "/environments/env0"),
        ("sam", "sessions", "/sessions"),
        ("sam", "report of a week", "/report?environment=env0"),
        ("sam", "report of all environments", "/report"),
        ("sam", "request with its person's history", &request),
        ("ada", "log", "/log"),
        ("ada", "log of a person", "/log?person=p17&kind=access"),
        ("ada", "log, nothing fits", "/log?kind=movements"),
        ("ada", "people", "/people"),
        ("ada", "person", "/people/p17"),
        ("ada", "administration", "/administration"),
    ];
    let mut all = Vec::new();
    for (who, name, path) in pages {
        let token = tokens.iter().find(|(known, _)| *known == who).map(|(_, token)| token.clone()).context("a person of this file")?;
        let mut times = Vec::new();
        for visit in 0..VISITS {
            let began = Instant::now();
            let answer = http.get(format!("https://127.0.0.1:{port}{path}")).header("cookie", format!("__Host-daypass={token}")).send().await?;
            anyhow::ensure!(answer.status().is_success(), "{path} answered {}", answer.status());
            let _ = answer.bytes().await?;
            // the first visits warm up
            if visit >= 5 {
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        report.row(&format!("p50, {name}"), quantile(&times, 0.5), "ms");
        report.row(&format!("p95, {name}"), quantile(&times, 0.95), "ms");
        all.push(quantile(&times, 0.95));
    }
    report.bar("ms for the slowest page (p95, with the way over TLS)", all.iter().copied().fold(0.0, f64::max), 50.0);
    let token = &tokens[2].1;
    let load = async |path: &str| -> Result<String> {
        Ok(http
            .get(format!("https://127.0.0.1:{port}{path}"))
            .header("cookie", format!("__Host-daypass={token}"))
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?)
    };
    let page = load("/environments/env0").await?;
    let mut bytes = page.len();
    for asset in page.split('"').filter(|text| text.starts_with("/assets/")).collect::<std::collections::BTreeSet<_>>() {
        bytes += load(asset).await?.len();
    }
    report.bar("KiB that a first visit of an environment loads, uncompressed", bytes as f64 / 1024.0, 100.0);
    Ok(())
}
