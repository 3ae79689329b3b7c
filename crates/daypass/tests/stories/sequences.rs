//! Random sequences of what people, administrators and strangers do, on a real PostgreSQL, beside a small model of what has to be true after
//! each: accounts with their ends, limits and groups at the server, and what is said of them. `DAYPASS_SEQUENCES=1000` for as many;
//! `DAYPASS_SEQUENCES_SEED` for others.

use crate::{
    house::{House, PATIENCE},
    movement::Dice,
};
use daypass_core::time::Time;
use serde_json::Value;
use std::{collections::BTreeMap, time::Instant};

const ENVIRONMENTS: [&str; 2] = ["uat", "golden"];

/// What the server knows of one of our accounts.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Role {
    ends_at: String,
    limit: u64,
    /// Our group by its level, and roles of the server's own.
    groups: Vec<String>,
    /// LOGIN, or an attribute that none of ours has.
    more: bool,
}

struct Pass {
    environment: usize,
    access: &'static str,
    ends_at: String,
}

#[derive(Clone)]
struct Environment {
    predefined: bool,
    sessions: u64,
    allowed: bool,
}

struct Model {
    environments: [Environment; 2],
    host: &'static str,
    passes: BTreeMap<String, Pass>,
}

impl Model {
    fn roles(&self) -> BTreeMap<String, Role> {
        let role = |pass: &Pass| {
            let environment = &self.environments[pass.environment];
            let own = match (environment.predefined, pass.access) {
                (false, _) => &[][..],
                (true, "read") => &["pg_read_all_data"],
                (true, _) => &["pg_read_all_data", "pg_write_all_data"],
            };
            let groups: Vec<&str> = [pass.access].into_iter().chain(own.iter().copied()).collect();
            Role { ends_at: pass.ends_at.clone(), limit: environment.sessions + 10, groups: groups.into_iter().map(str::to_owned).collect(), more: false }
        };
        self.passes.iter().map(|(name, pass)| (name.clone(), role(pass))).collect()
    }
}

/// What is really there.
async fn there(house: &House) -> BTreeMap<String, Role> {
    let look = "SELECT r.rolname, CASE WHEN isfinite(r.rolvaliduntil) THEN (extract(epoch FROM r.rolvaliduntil) * 1000000)::bigint::text ELSE 'never' END, r.rolconnlimit, \
        coalesce((SELECT string_agg(regexp_replace(g.rolname, '^daypass_[0-9a-f]{32}_', ''), ',' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid), ''), \
        r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls FROM pg_roles r WHERE r.rolname LIKE 'jit\\_%'";
    let text = house.server.sql("postgres", look).await.unwrap();
    let roles = text.lines().map(|line| {
        let parts: Vec<&str> = line.split('|').collect();
        let ends_at = parts[1].parse().map_or_else(|_| parts[1].to_owned(), |micros| Time::from_micros(micros).to_string());
        let groups = parts[3].split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect();
        (parts[0].to_owned(), Role { ends_at, limit: parts[2].parse().unwrap_or_default(), groups, more: parts[4] == "t" })
    });
    roles.collect()
}

/// The server counts by its own clock what is left when it is told: its end is never before the one that is said, and at most two seconds later.
fn alike(there: &BTreeMap<String, Role>, wanted: &BTreeMap<String, Role>) -> bool {
    let micros = |role: &Role| role.ends_at.parse::<Time>().map_or(i64::MAX, Time::micros);
    let same = |(a, b): (&Role, &Role)| {
        (0..2_000_000).contains(&(micros(a).saturating_sub(micros(b)))) && a.limit == b.limit && a.groups == b.groups && a.more == b.more
    };
    there.keys().eq(wanted.keys()) && there.values().zip(wanted.values()).all(same)
}

/// What is said: of each live pass when it ends, and of each environment how it is reached.
async fn said(house: &House) -> (BTreeMap<String, String>, Vec<String>) {
    let passes = house.json("maria", &["passes"]).await;
    let live = passes.as_array().unwrap().iter().filter(|pass| pass["state"] != "ended");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let passes = live.map(|pass| (text(&pass["account"]), text(&pass["ends_at"]))).collect();
    let exported = String::from_utf8(house.daypass("ada", &["export"]).await.stdout).unwrap();
    let hosts = exported.lines().filter_map(|line| line.trim().strip_prefix("host: ").map(str::to_owned)).collect();
    (passes, hosts)
}

/// The same until it is so, or what differs.
async fn agree(house: &House, model: &Model, story: &[String]) {
    let deadline = Instant::now() + PATIENCE;
    let wanted = model.roles();
    let ends: BTreeMap<String, String> = model.passes.iter().map(|(name, pass)| (name.clone(), pass.ends_at.clone())).collect();
    loop {
        let (roles, (passes, hosts)) = (there(house).await, said(house).await);
        if alike(&roles, &wanted) && passes == ends && hosts.len() == 2 && hosts.iter().all(|host| host == model.host) {
            break;
        }
        let differs = format!("at the server {roles:#?}\nsaid {passes:#?} {hosts:?}\nwanted {wanted:#?} {}", model.host);
        assert!(Instant::now() < deadline, "after {story:#?}\n{differs}\n{}", house.log());
    }
    for (n, name) in ENVIRONMENTS.iter().enumerate() {
        let entries = house.json("maria", &["allowed", name]).await;
        let live = entries.as_array().unwrap().iter().filter(|entry| entry["live"] == true).count();
        assert_eq!(live, usize::from(model.environments[n].allowed), "{name}: {entries} after {story:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_in_whatever_order_what_is_said_is_what_is_there() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (sequences, seed) = (number("DAYPASS_SEQUENCES", 12), number("DAYPASS_SEQUENCES_SEED", 11));
    let mut house = House::open().await;
    // as it has to be where the server's own roles are given
    house.server.sql("postgres", "GRANT pg_read_all_data, pg_write_all_data TO daypass_admin WITH ADMIN OPTION").await.unwrap();
    let usual = Environment { predefined: false, sessions: 20, allowed: false };
    let mut model = Model { environments: [usual.clone(), usual], host: "localhost", passes: BTreeMap::new() };
    for name in ENVIRONMENTS {
        house.policy(name, |policy| policy["live_passes"] = 50.into()).await;
    }
    let mut dice = Dice(seed);
    for sequence in 0..sequences {
        let mut story = vec![format!("sequence {sequence} of seed {seed}")];
        for _ in 0..6 {
            let n = dice.below(2);
            let name = ENVIRONMENTS[n];
            let some = model.passes.keys().nth(dice.below(model.passes.len().max(1))).cloned();
            let act = dice.below(12);
            story.push(format!("{act} on {name}, {some:?}"));
            match (act, some) {
                (0..=2, _) if model.passes.len() < 12 => {
                    let access = ["read", "read_write"][dice.below(2)];
                    let life = format!("{}m", 30 + dice.below(90));
                    let way = house.json("maria", &["request", name, "--access", access, "--life", &life, "--reason", "a sequence"]).await;
                    let text = |key: &str| way[key].as_str().unwrap().to_owned();
                    model.passes.insert(text("account"), Pass { environment: n, access, ends_at: text("ends_at") });
                }
                (3, Some(account)) => {
                    let minutes = 1 + dice.below(60) as i64;
                    let pass = house.json("maria", &["extend", &account, "--by", &format!("{minutes}m")]).await;
                    let known = model.passes.get_mut(&account).unwrap();
                    let moved = Time::from_micros(known.ends_at.parse::<Time>().unwrap().micros() + minutes * 60_000_000).to_string();
                    assert_eq!(pass["ends_at"], moved.as_str(), "{story:#?}");
                    known.ends_at = moved;
                }
                (4, Some(account)) => {
                    house.json("maria", &["end", &account]).await;
                    model.passes.remove(&account);
                }
                (5, _) => {
                    let predefined = !model.environments[n].predefined;
                    house.json("ada", &["env", "set", name, "--grants", if predefined { "predefined" } else { "granted" }]).await;
                    model.environments[n].predefined = predefined;
                }
                (6, _) => {
                    let host = if model.host == "localhost" { "127.0.0.1" } else { "localhost" };
                    let set = house.daypass_with("ada", &["env", "set", name, "--host", host, "--password-stdin"], "admin-secret").await;
                    assert!(set.status.success(), "{set:?} {story:#?}");
                    // one server, however many environments it has
                    model.host = host;
                }
                (7, _) => {
                    // what does not work changes nothing, and an add changes nothing that is known
                    let wrong = match dice.below(3) {
                        0 => house.daypass_with("ada", &["env", "set", name, "--password-stdin"], "not-the-password").await,
                        1 => house.daypass("ada", &["env", "set", name, "--port", "1"]).await,
                        _ => {
                            let port = house.server.port.to_string();
                            let add =
                                ["env", "add", "another", "--host", model.host, "--port", &port, "--database", "postgres", "--password-stdin", "--untried"];
                            house.daypass_with("ada", &[&add[..], &["--without-tls"]].concat(), "not-the-password").await
                        }
                    };
                    assert!(!wrong.status.success(), "{wrong:?} {story:#?}");
                }
                (8, Some(account)) => {
                    let look = format!("SELECT coalesce(min(m.roleid::regrole::text), '') FROM pg_auth_members m WHERE m.member = '{account}'::regrole");
                    let group = house.server.sql("postgres", &look).await.unwrap();
                    let meddled = match (dice.below(4), group) {
                        (0, _) => format!("ALTER ROLE {account} VALID UNTIL 'infinity'"),
                        (1, _) => format!("ALTER ROLE {account} CONNECTION LIMIT 1"),
                        (2, group) if !group.is_empty() => format!("REVOKE {group} FROM {account} CASCADE"),
                        _ => format!("ALTER ROLE {account} LOGIN CREATEDB"),
                    };
                    story.push(meddled.clone());
                    // an account that is being put right is somebody else's row at this moment
                    let _ = house.server.sql("postgres", &meddled).await;
                }
                (9, _) => {
                    let sessions = 1 + dice.below(40) as u64;
                    house.policy(name, |policy| policy["sessions_per_pass"] = sessions.into()).await;
                    model.environments[n].sessions = sessions;
                }
                (10, _) => {
                    let entries = house.json("maria", &["allowed", name]).await;
                    match entries.as_array().unwrap().iter().find(|entry| entry["live"] == true) {
                        Some(entry) => assert!(house.daypass("maria", &["disallow", entry["id"].as_str().unwrap()]).await.status.success()),
                        None => drop(house.json("maria", &["allow", name]).await),
                    }
                    model.environments[n].allowed = !model.environments[n].allowed;
                }
                (11, _) if dice.below(4) == 0 => {
                    house.crash().await;
                    house.start().await;
                }
                _ => {}
            }
        }
        agree(&house, &model, &story).await;
    }
    for account in model.passes.keys() {
        house.json("maria", &["end", account]).await;
    }
    house.until_no_accounts().await;
}
