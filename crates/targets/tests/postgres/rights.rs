//! Rights, over catalogs that are thrown together: whichever way the copy is made, nobody gains what nobody gave them, nothing is lost unsaid, and all
//! ways come to the same. `DAYPASS_CATALOGS` says how many catalogs on each version (four movements each), `DAYPASS_CATALOGS_SEED` where to begin.

use super::*;
use std::{collections::BTreeSet, fmt::Write};

struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % most as u64) as usize
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

const ROLES: [&str; 4] = ["app", "report", "\"Odd \"\" one; --\"", "\"deep'\""];
const SCHEMAS: [&str; 3] = ["sales", "public", "\"Odd s.\""];

/// How one is made, how GRANT names it, and what can be given on it.
struct Kind {
    make: &'static str,
    grant: &'static str,
    privileges: &'static [&'static str],
}

const KINDS: [Kind; 10] = [
    Kind {
        make: "CREATE TABLE @ (x int, \"Y y\" text)",
        grant: "TABLE @",
        privileges: &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"],
    },
    Kind { make: "CREATE TABLE @ (x int, \"Y y\" text) PARTITION BY LIST (x)", grant: "TABLE @", privileges: &["SELECT", "INSERT"] },
    Kind { make: "CREATE VIEW @ AS SELECT 1 AS x, 'a'::text AS \"Y y\"", grant: "TABLE @", privileges: &["SELECT", "UPDATE"] },
    Kind { make: "CREATE MATERIALIZED VIEW @ AS SELECT 1 AS x", grant: "TABLE @", privileges: &["SELECT"] },
    Kind { make: "CREATE SEQUENCE @", grant: "SEQUENCE @", privileges: &["USAGE", "SELECT", "UPDATE"] },
    Kind { make: "CREATE FUNCTION @(int, text[]) RETURNS int LANGUAGE sql AS 'SELECT 1'", grant: "FUNCTION @(int, text[])", privileges: &["EXECUTE"] },
    Kind { make: "CREATE PROCEDURE @(INOUT a int) LANGUAGE sql AS 'SELECT 1'", grant: "PROCEDURE @(int)", privileges: &["EXECUTE"] },
    Kind { make: "CREATE AGGREGATE @(int) (SFUNC = int4larger, STYPE = int)", grant: "FUNCTION @(int)", privileges: &["EXECUTE"] },
    Kind { make: "CREATE TYPE @ AS ENUM ('a')", grant: "TYPE @", privileges: &["USAGE"] },
    Kind { make: "CREATE DOMAIN @ AS int", grant: "TYPE @", privileges: &["USAGE"] },
];

/// What somebody who looks at the catalog sees, written independently of what carries it over: object, kind of right, whom, what.
const SEEN: &str = "SELECT string_agg(line, E'\\n') FROM (
  SELECT concat_ws('|', 'class', n.nspname, c.relname, '', x.privilege_type, CASE x.grantee WHEN 0 THEN '' ELSE r.rolname END, x.is_grantable) AS line
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN LATERAL aclexplode(relacl) x ON x.grantee <> relowner LEFT JOIN pg_roles r ON r.oid = x.grantee
   WHERE nspname IN ('sales', 'public', 'Odd s.') AND relkind IN ('r', 'p', 'v', 'm', 'S') AND relname <> 'orders_id_seq'
  UNION ALL SELECT concat_ws('|', 'column', n.nspname, c.relname, a.attname, x.privilege_type, CASE x.grantee WHEN 0 THEN '' ELSE r.rolname END, x.is_grantable)
    FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN LATERAL aclexplode(attacl) x ON true LEFT JOIN pg_roles r ON r.oid = x.grantee
   WHERE nspname IN ('sales', 'public', 'Odd s.') AND attnum > 0
  UNION ALL SELECT concat_ws('|', 'proc', n.nspname, p.proname, '', x.privilege_type, CASE x.grantee WHEN 0 THEN '' ELSE r.rolname END, x.is_grantable)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace LEFT JOIN LATERAL aclexplode(coalesce(proacl, acldefault('f', proowner))) x ON x.grantee <> proowner LEFT JOIN pg_roles r ON r.oid = x.grantee
   WHERE nspname IN ('sales', 'public', 'Odd s.')
  UNION ALL SELECT concat_ws('|', 'type', n.nspname, t.typname, '', x.privilege_type, CASE x.grantee WHEN 0 THEN '' ELSE r.rolname END, x.is_grantable)
    FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace LEFT JOIN LATERAL aclexplode(coalesce(typacl, acldefault('T', typowner))) x ON x.grantee <> typowner LEFT JOIN pg_roles r ON r.oid = x.grantee
   WHERE nspname IN ('sales', 'public', 'Odd s.') AND typtype IN ('e', 'd')
  UNION ALL SELECT concat_ws('|', 'schema', n.nspname, '', '', x.privilege_type, CASE x.grantee WHEN 0 THEN '' ELSE r.rolname END, x.is_grantable)
    FROM pg_namespace n LEFT JOIN LATERAL aclexplode(nspacl) x ON x.grantee <> nspowner LEFT JOIN pg_roles r ON r.oid = x.grantee WHERE nspname IN ('sales', 'public', 'Odd s.')
  UNION ALL SELECT concat_ws('|', 'to come', coalesce(n.nspname, ''), d.defaclobjtype, '', x.privilege_type, CASE x.grantee WHEN 0 THEN '' ELSE r.rolname END, x.is_grantable)
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = defaclnamespace, aclexplode(defaclacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
   WHERE defaclrole = 'uat_owner'::regrole AND x.grantee <> defaclrole) AS seen (line)";

type Line = Vec<String>;

/// What is there, and who may what. What somebody may also pass on counts once.
async fn seen(server: &Server, database: &str) -> (BTreeSet<Line>, BTreeSet<Line>) {
    let text = server.sql(database, SEEN).await;
    let lines: Vec<Line> = text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect();
    let objects = lines.iter().map(|line| line[..4].to_vec()).collect();
    let rights: BTreeSet<Line> = lines.into_iter().filter(|line| line.len() == 7).collect();
    let passes_on = |line: &Line| line[6] == "f" && rights.contains(&[&line[..6], &["t".to_owned()]].concat());
    let rights = rights.iter().filter(|line| !passes_on(line)).cloned().collect();
    (objects, rights)
}

/// What everybody has from the start.
fn from_the_start(line: &Line) -> bool {
    line[5].is_empty() && (["proc", "type"].contains(&line[0].as_str()) || line[0] == "schema" && line[1] == "public")
}

/// Statements that make the two databases, and what somebody gave whom in each.
fn catalog(dice: &mut Dice) -> [String; 2] {
    let mut scripts =
        ["golden_owner", "uat_owner"].map(|owner| format!("CREATE SCHEMA \"Odd s.\" AUTHORIZATION {owner}; GRANT CREATE ON SCHEMA public TO {owner}; "));
    let mut made: [Vec<(String, &Kind)>; 2] = [Vec::new(), Vec::new()];
    for n in 0..6 + dice.below(20) {
        let kind = dice.pick(&KINDS);
        let base = ["thing", "Thing ; x", "th\"\"ing", "drop"][dice.below(4)];
        let name = format!("{}.\"{base} {n}\"", dice.pick(&SCHEMAS));
        let only = dice.below(8);
        for (at, owner) in ["golden_owner", "uat_owner"].into_iter().enumerate() {
            if only < 2 && only != at {
                continue;
            }
            write!(scripts[at], "SET ROLE {owner}; {}; RESET ROLE; ", kind.make.replace('@', &name)).unwrap();
            made[at].push((name.clone(), kind));
        }
    }
    for (at, owner) in ["golden_owner", "uat_owner"].into_iter().enumerate() {
        for _ in 0..10 + dice.below(40) {
            let (name, kind) = dice.pick(&made[at]).clone();
            let (on, privilege) = (kind.grant.replace('@', &name), dice.pick(kind.privileges));
            let script = &mut scripts[at];
            match dice.below(9) {
                // passed on, to the second and third hand
                0 | 1 => {
                    let (first, second, third) = (dice.pick(&ROLES), dice.pick(&ROLES), dice.pick(&ROLES));
                    // who passes on has to see what it is on
                    let schema = SCHEMAS.iter().find(|schema| name.starts_with(&format!("{schema}."))).unwrap();
                    write!(script, "SET ROLE {owner}; GRANT USAGE ON SCHEMA {schema} TO {first}, {second}; GRANT {privilege} ON {on} TO {first} WITH GRANT OPTION; RESET ROLE; ").unwrap();
                    if first != second {
                        write!(script, "SET ROLE {first}; GRANT {privilege} ON {on} TO {second} WITH GRANT OPTION; RESET ROLE; ").unwrap();
                        if third != first && third != second {
                            write!(script, "SET ROLE {second}; GRANT {privilege} ON {on} TO {third}; RESET ROLE; ").unwrap();
                        }
                    }
                }
                2 => write!(script, "SET ROLE {owner}; GRANT {privilege} ON {on} TO PUBLIC; RESET ROLE; ").unwrap(),
                3 => write!(script, "SET ROLE {owner}; REVOKE ALL ON {on} FROM PUBLIC; RESET ROLE; ").unwrap(),
                4 if kind.make.contains("\"Y y\"") => {
                    let whom = if dice.one_in(4) { "PUBLIC" } else { dice.pick(&ROLES) };
                    write!(script, "SET ROLE {owner}; GRANT SELECT (\"Y y\"), UPDATE (x) ON {on} TO {whom}; RESET ROLE; ").unwrap();
                }
                5 => {
                    let (schema, whom) = (*dice.pick(&SCHEMAS), if dice.one_in(4) { "PUBLIC" } else { dice.pick(&ROLES) });
                    // only a superuser, or the owner of the database, gives rights on that one
                    write!(script, "SET ROLE {owner}; GRANT {} ON SCHEMA {schema} TO {whom}; RESET ROLE; ", dice.pick(&["USAGE", "USAGE", "CREATE"])).unwrap();
                }
                6 => {
                    let (of, privilege) = *dice.pick(&[("TABLES", "SELECT"), ("SEQUENCES", "USAGE"), ("FUNCTIONS", "EXECUTE"), ("TYPES", "USAGE")]);
                    let place = if dice.one_in(2) { format!(" IN SCHEMA {}", dice.pick(&SCHEMAS)) } else { String::new() };
                    write!(script, "ALTER DEFAULT PRIVILEGES FOR ROLE {owner}{place} GRANT {privilege} ON {of} TO {}; ", dice.pick(&ROLES)).unwrap();
                }
                7 if dice.one_in(3) => {
                    write!(script, "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE ALL ON {} FROM PUBLIC; ", dice.pick(&["FUNCTIONS", "TYPES"])).unwrap()
                }
                8 if dice.one_in(3) => write!(script, "SET ROLE {owner}; REVOKE USAGE ON SCHEMA public FROM PUBLIC; RESET ROLE; ").unwrap(),
                _ => write!(script, "SET ROLE {owner}; GRANT {privilege} ON {on} TO {}; RESET ROLE; ", dice.pick(&ROLES)).unwrap(),
            }
        }
    }
    scripts
}

#[tokio::test(flavor = "multi_thread")]
async fn over_catalogs_thrown_together_nobody_gains_and_nothing_is_lost_unsaid() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (catalogs, first) = (number("DAYPASS_CATALOGS", 2), number("DAYPASS_CATALOGS_SEED", 1));
    let work = std::env::temp_dir().join(format!("daypass-catalogs-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    each(async |server| {
        for role in ROLES {
            server.sql("postgres", &format!("CREATE ROLE {role}")).await;
        }
        let (mut movements, mut rights) = (0, 0);
        for seed in first..first + catalogs {
            for database in ["golden", "uat"] {
                server.sql("postgres", &format!("DROP DATABASE IF EXISTS {database}")).await;
                server.sql("postgres", &format!("DROP ROLE IF EXISTS {database}_owner")).await;
                server.postgres.database(database).await.unwrap();
            }
            let scripts = catalog(&mut Dice(seed));
            for (database, script) in ["golden", "uat"].into_iter().zip(&scripts) {
                server.sql(database, script).await;
            }
            let (source, before) = (seen(server, "golden").await, seen(server, "uat").await);
            // what people of the database of before had, but for what the source refuses; and of what is new, what everybody has from the start
            let kept = |line: &&Line| {
                let object = line[..4].to_vec();
                let there = line[0] == "to come" || source.0.contains(&object);
                there && (!from_the_start(line) || source.1.contains(*line))
            };
            let fresh = |line: &&Line| !before.0.contains(&line[..4]) && from_the_start(line);
            let wanted: BTreeSet<Line> = before.1.iter().filter(kept).chain(source.1.iter().filter(fresh)).cloned().collect();

            let env = environment("uat");
            let from =
                AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
            let golden: DatabaseName = "golden".parse().unwrap();
            let dump = work.join(format!("golden-{}-{seed}.dump", server.postgres.port));
            for (n, way) in ["beside", "pipe", "jobs", "file"].into_iter().enumerate() {
                let told = |what: &str| format!("seed {seed}, {way}: {what}\n{}\n{}", scripts[0], scripts[1]);
                let jobs = if way == "jobs" { 3 } else { 1 };
                let moving = Moving::new(server, &work, u128::from(seed) * 4 + n as u128, jobs);
                let (names, movement) = (&moving.names, moving.get());
                let source = Source::Database { target: &from, database: &golden, same_server: way == "beside" };
                let source = if way == "file" { Source::File(&dump) } else { source };
                if way == "file" {
                    let export = Environment { spec: EnvironmentSpec { database: golden.clone(), ..env.spec.clone() }, ..env.clone() };
                    server.target.export(&Move { environment: &export, ..movement }, &dump).await.unwrap();
                }
                server.target.copy(&movement, &source).await.unwrap_or_else(|e| panic!("{}", told(&e.to_string())));
                server.target.sweep(&movement, &Scripts::default()).await.unwrap_or_else(|e| panic!("{}", told(&e.to_string())));
                let report = server.target.carry_over(&movement).await.unwrap_or_else(|e| panic!("{}", told(&e.to_string())));
                assert!(!format!("{report:?}").contains("LOST"), "{}", told(&format!("{report:?}")));
                let now = seen(server, names.scratch.as_str()).await.1;
                let gained: Vec<&Line> = now.difference(&wanted).collect();
                let lost: Vec<&Line> = wanted.difference(&now).collect();
                assert!(gained.is_empty() && lost.is_empty(), "{}", told(&format!("gained {gained:?}, lost {lost:?}, {report:?}")));
                (movements, rights) = (movements + 1, rights + wanted.len());
                server.target.discard(&movement).await.unwrap();
            }
            let _ = std::fs::remove_file(&dump);
        }
        println!("{movements} movements, {rights} rights compared: none gained, none lost");
    })
    .await;
    std::fs::remove_dir_all(&work).unwrap();
}
