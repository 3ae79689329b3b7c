//! Accounts on real servers: Debian's version with TLS, and each version named in DAYPASS_POSTGRES_BINS. The administrator is
//! no superuser anywhere.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

use daypass_core::{
    environment::{Enforce, Engine, Environment, EnvironmentSpec, Grants, Kind, TargetSpec, TargetTls},
    ids::*,
    masks::Masks,
    movement::Names,
    names::{AccountName, DatabaseName},
    pass::Access,
    secret::Secret,
};
use daypass_targets::{
    AccountSpec, AnyTarget, Check, Estate, Target, TargetError, Verdict,
    movement::{MaskKey, Masking, Move, Progress, Scripts, Source, Standing, Tools},
    postgres::Postgres as OnPostgres,
};
use daypass_testkit::postgres::{Postgres, other_binaries};
use daypass_wire::pg::scram::{ITERATIONS, Verifier};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

#[path = "postgres/masks.rs"]
mod masks;
#[path = "postgres/rights.rs"]
mod rights;

/// A database whose every name tries to break out of the statement it stands in.
const HOSTILE: &str = "we\"ird'; DROP ROLE postgres; --\\";
const PASSWORD: &str = "what the gateway uses";

struct Server {
    postgres: Postgres,
    spec: TargetSpec,
    tls: Option<Arc<rustls::ClientConfig>>,
    target: OnPostgres,
}

/// Each version, one after the other.
async fn each(story: impl AsyncFn(&Server)) {
    let mut servers = vec![Postgres::start().await.unwrap()];
    for bin in other_binaries() {
        servers.push(Postgres::start_from(bin, false).await.unwrap());
    }
    for (n, postgres) in servers.into_iter().enumerate() {
        postgres.administrator().await.unwrap();
        let tls = (n == 0).then(|| Arc::new(trusting(&postgres.ca)));
        let spec = TargetSpec {
            engine: Engine::Postgres,
            host: "127.0.0.1".parse().unwrap(),
            port: postgres.port,
            admin: "daypass_admin".to_owned(),
            tls: if n == 0 { TargetTls::VerifyFull { ca: Some(postgres.ca.clone()) } } else { TargetTls::Off },
        };
        let target = OnPostgres::new(spec.clone(), Secret::new("admin-secret"), tls.clone(), StoreId::new(Uuid::from_u128(1)));
        let server = Server { postgres, spec, tls, target };
        println!("PostgreSQL {}", server.sql("postgres", "SHOW server_version").await);
        story(&server).await;
    }
}

fn trusting(ca: &str) -> rustls::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth()
}

impl Server {
    async fn sql(&self, database: &str, sql: &str) -> String {
        self.postgres.sql(database, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn provide(&self, account: &str, database: &str, access: Access, grants: Grants) -> Result<(), TargetError> {
        let verifier = Verifier::of(PASSWORD, b"0123456789abcdef", ITERATIONS).to_string();
        let (account, database): (AccountName, DatabaseName) = (account.parse().unwrap(), database.parse().unwrap());
        let spec = AccountSpec {
            account: &account,
            pass: PassId::new(Uuid::from_u128(2)),
            environment: EnvironmentId::new(Uuid::from_u128(3)),
            database: &database,
            access,
            grants,
            left: std::time::Duration::from_secs(600),
            sessions: 20,
            verifier: &verifier,
            password: &Secret::new("secret"),
            extras: &Default::default(),
        };
        self.target.provide(&spec).await
    }

    /// What the account itself may do. The superuser takes its place, so this proves rights, not the login.
    async fn may(&self, account: &str, database: &str, sql: &str) -> Result<String, String> {
        self.postgres.sql(database, &format!("SET SESSION AUTHORIZATION {account}; {sql}")).await.map_err(|e| e.to_string())
    }

    async fn accounts(&self) -> String {
        self.sql("postgres", "SELECT string_agg(rolname, ',' ORDER BY 1) FROM pg_roles WHERE rolname LIKE 'jit\\_%'").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stay_names() {
    each(async |server| {
        let quoted = format!("\"{}\"", HOSTILE.replace('"', "\"\""));
        server.sql("postgres", &format!("CREATE ROLE {quoted} NOLOGIN; GRANT {quoted} TO daypass_admin")).await;
        server.sql("postgres", &format!("CREATE DATABASE {quoted} OWNER {quoted}")).await;
        server
            .sql(
                HOSTILE,
                &format!(
                    "SET ROLE {quoted}; CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.{quoted} ({quoted} serial); INSERT INTO {quoted}.{quoted} DEFAULT VALUES"
                ),
            )
            .await;
        server.provide("jit_maria_aaaa", HOSTILE, Access::ReadWrite, Grants::Granted).await.unwrap();
        let insert = format!("INSERT INTO {quoted}.{quoted} DEFAULT VALUES; SELECT count(*) FROM {quoted}.{quoted}");
        assert_eq!(server.may("jit_maria_aaaa", HOSTILE, &insert).await.unwrap(), "2");
        server.target.remove("jit_maria_aaaa", &[], Estate { environment: None, heir: Some(HOSTILE), drop: false }).await.unwrap();
        assert_eq!(server.accounts().await, "");
        assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'postgres'").await, "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_reads_and_read_write_writes_also_what_comes_later() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.provide("jit_reader_aaaa", "uat", Access::Read, Grants::Granted).await.unwrap();
        server.provide("jit_writer_aaaa", "uat", Access::ReadWrite, Grants::Granted).await.unwrap();
        let count = "SELECT count(*) FROM sales.orders";
        assert_eq!(server.may("jit_reader_aaaa", "uat", count).await.unwrap(), "400");
        assert!(server.may("jit_reader_aaaa", "uat", "DELETE FROM sales.orders").await.unwrap_err().contains("permission denied"));
        assert!(server.may("jit_writer_aaaa", "uat", "UPDATE sales.orders SET amount = 1 WHERE id = 1").await.is_ok());
        assert!(server.may("jit_writer_aaaa", "uat", "DROP TABLE sales.orders").await.is_err(), "mending data is not changing the schema");
        assert!(server.may("jit_reader_aaaa", "uat", "SELECT * FROM pg_authid").await.is_err(), "password verifiers are nobody's business");
        // by default privileges at once, and in a schema of its own after the next look
        server.sql("uat", "SET ROLE uat_owner; CREATE TABLE sales.later AS SELECT 1 AS n; CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 2 AS n").await;
        assert_eq!(server.may("jit_reader_aaaa", "uat", "SELECT n FROM sales.later").await.unwrap(), "1");
        server.target.refresh_grants(EnvironmentId::new(Uuid::from_u128(3)), &"uat".parse().unwrap()).await.unwrap();
        assert_eq!(server.may("jit_reader_aaaa", "uat", "SELECT n FROM other.t").await.unwrap(), "2");
        let checks = server.target.test(&"uat".parse().unwrap()).await;
        // the server of the tests lets transactions be prepared, and is told what that means
        let (notes, others): (Vec<_>, Vec<_>) = checks.iter().partition(|check| check.what.contains("can be prepared here"));
        assert!(notes.len() == 1 && notes[0].verdict == Verdict::Note && others.iter().all(|check| check.verdict == Verdict::Fine), "{checks:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_roles_serve_by_choice() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.sql("postgres", "GRANT pg_read_all_data, pg_write_all_data TO daypass_admin WITH ADMIN OPTION").await;
        server.provide("jit_reader_aaaa", "uat", Access::Read, Grants::Predefined).await.unwrap();
        assert_eq!(server.may("jit_reader_aaaa", "uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "400");
        assert!(server.may("jit_reader_aaaa", "uat", "DELETE FROM sales.orders").await.is_err());
        server.provide("jit_writer_aaaa", "uat", Access::ReadWrite, Grants::Predefined).await.unwrap();
        assert!(server.may("jit_writer_aaaa", "uat", "DELETE FROM sales.orders WHERE id = 1").await.is_ok());
        // the database is closed to PUBLIC: a real login
        session(server, "jit_writer_aaaa").await.batch("SELECT 1").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_removed_whatever_it_left_behind() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.postgres.database("other").await.unwrap();
        for turn in 0..2 {
            let account = "jit_messy_aaaa";
            server.provide(account, "uat", Access::ReadWrite, Grants::Granted).await.unwrap();
            // twice is once
            server.provide(account, "uat", Access::ReadWrite, Grants::Granted).await.unwrap();
            server.sql("uat", &format!("GRANT CREATE ON SCHEMA sales TO {account}; GRANT CREATE ON DATABASE uat TO {account}")).await;
            server.sql("other", &format!("GRANT CREATE ON SCHEMA sales TO {account}; GRANT USAGE ON SCHEMA sales TO {account}")).await;
            server.may(account, "uat", &format!("CREATE TABLE sales.left_{turn} (n int); CREATE SCHEMA schema_{turn}")).await.unwrap();
            server.may(account, "other", &format!("CREATE FUNCTION sales.left_{turn}() RETURNS int LANGUAGE sql AS 'SELECT 1'")).await.unwrap();
            server.may(account, "uat", &format!("BEGIN; INSERT INTO sales.left_{turn} VALUES (1); PREPARE TRANSACTION 'left {turn}'''")).await.unwrap();
            // a session that holds locks on its own table while we remove it
            let mut holder = session(server, account).await;
            holder.batch(&format!("BEGIN; LOCK TABLE sales.orders IN ROW EXCLUSIVE MODE; CREATE TEMP TABLE mine_{turn} (n int)")).await;
            server.target.remove(account, &[], Estate::default()).await.unwrap();
            assert!(holder.ends().await, "its session ended");
            assert_eq!(server.accounts().await, "");
            let owner = format!("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'left_{turn}'");
            assert_eq!(server.sql("uat", &owner).await, "daypass_estate", "plain data went to the role without rights");
            let usable = format!("SET ROLE uat_owner; SELECT count(*) FROM sales.left_{turn}");
            assert_eq!(server.sql("uat", &usable).await, "0", "and whoever owns the database can use it");
            assert_eq!(server.sql("other", "SELECT count(*) FROM pg_proc WHERE proname LIKE 'left\\_%'").await, "0", "what runs is gone");
            assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_prepared_xacts").await, "0");
            // removing what is gone is no error
            server.target.remove(account, &[], Estate::default()).await.unwrap();
        }
    })
    .await;
}

/// All kinds of things that run, and plain data, as somebody makes them who may create in a schema.
const ALL_KINDS: &str = "
CREATE FUNCTION sales.evil(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN EXECUTE q; RETURN q; END $$;
CREATE FUNCTION sales.norm(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a';
CREATE PROCEDURE sales.proc() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE sales.agg(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE VIEW sales.glance AS SELECT set_config('a.b', 'c', true) AS x;
CREATE MATERIALIZED VIEW sales.mat AS SELECT 1 AS n;
CREATE TYPE sales.mood AS ENUM ('good', 'bad');
CREATE TYPE sales.pair AS (a int, b int);
CREATE DOMAIN sales.checked AS text DEFAULT pg_catalog.current_query() CHECK (pg_catalog.set_config('a.b', VALUE, true) IS NOT NULL);
CREATE DOMAIN sales.short AS text CHECK (length(VALUE) < 40);
CREATE TABLE sales.kept (id serial PRIMARY KEY, n int CHECK (n > 0), m sales.mood DEFAULT 'good', at timestamptz DEFAULT now(), short sales.short,
  trap int DEFAULT sales.norm(1), worse text DEFAULT set_config('a.b', 'c', true), twice int GENERATED ALWAYS AS (n * 2) STORED,
  norm int GENERATED ALWAYS AS (sales.norm(n)) STORED, w varchar(20) DEFAULT 'x(y)', CHECK (set_config('a.b', 'c', true) IS NOT NULL));
INSERT INTO sales.kept (n) SELECT g FROM generate_series(1, 100) g;
CREATE INDEX by_norm ON sales.kept (sales.norm(n));
CREATE INDEX partial_one ON sales.kept (n) WHERE sales.norm(n) > 3;
CREATE INDEX plain_one ON sales.kept (n);
CREATE STATISTICS sales.stats ON n, id FROM sales.kept;
CREATE FUNCTION sales.fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER fires BEFORE INSERT ON sales.kept FOR EACH ROW EXECUTE FUNCTION sales.fires();
CREATE RULE instead AS ON DELETE TO sales.kept DO INSTEAD SELECT sales.evil('x');
CREATE POLICY peek ON sales.kept USING (sales.norm(n) > 0);
CREATE OPERATOR sales.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE TABLE sales.parts (a int) PARTITION BY RANGE (a);
CREATE TABLE sales.part PARTITION OF sales.parts FOR VALUES FROM (1) TO (9);
CREATE SEQUENCE sales.counts;
CREATE COLLATION sales.sorts (locale = 'C');
CREATE TABLE sales.sorted (t text COLLATE sales.sorts);
GRANT SELECT ON sales.kept TO PUBLIC;
SELECT count(lo_create(0)) FROM generate_series(1, 2500);
CREATE PUBLICATION news FOR TABLE sales.kept";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_runs_outlives_an_account_and_plain_data_goes_to_a_role_without_rights() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        let account = "jit_mallory_aaaa";
        server.provide(account, "uat", Access::Read, Grants::Granted).await.unwrap();
        server.sql("uat", &format!("GRANT CREATE ON SCHEMA sales TO {account}; GRANT CREATE ON DATABASE uat TO {account}")).await;
        server.may(account, "uat", ALL_KINDS).await.unwrap();
        // somebody else came to depend on it
        server.sql("uat", "SET ROLE uat_owner; CREATE TRIGGER theirs BEFORE UPDATE ON sales.orders FOR EACH ROW EXECUTE FUNCTION sales.fires()").await;
        let left = server.target.remains(account, &[]).await.unwrap().join("\n");
        for text in ["CREATE OR REPLACE FUNCTION sales.evil", "EXECUTE q", "CREATE INDEX by_norm", "CREATE TRIGGER fires", "peek", "sales.glance", "table sales.kept",
            "2500 large objects", "trigger theirs"] {
            assert!(left.contains(text), "{text} is not on record:\n{left}");
        }
        server.target.shut(&[account.to_owned()], &[], &[]).await.unwrap();
        let member = format!("SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = '{account}'");
        assert_eq!(server.sql("postgres", &member).await, "0", "what it left runs with no rights from the first moment on");
        let environment = Some(EnvironmentId::new(Uuid::from_u128(3)));
        server.target.remove(account, &[], Estate { environment, heir: None, drop: false }).await.unwrap();
        assert_eq!(server.accounts().await, "");
        let estate = "daypass_00000000000000000000000000000003_estate";
        // all that is the estate's, by kind
        let owned = format!(
            "SELECT string_agg(DISTINCT (pg_identify_object(classid, objid, 0)).type, ', ' ORDER BY (pg_identify_object(classid, objid, 0)).type) FROM pg_shdepend \
             WHERE refobjid = '{estate}'::regrole AND deptype = 'o' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        assert_eq!(server.sql("uat", &owned).await, "collation, large object, sequence, table, type");
        let code = "SELECT coalesce(string_agg(p.oid::regprocedure::text, ', '), 'none') FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'sales'";
        assert_eq!(server.sql("uat", code).await, "none");
        assert_eq!(server.sql("uat", "SELECT count(*) FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'sales'::regnamespace AND relname <> 'by_customer'").await, "0");
        let hooks = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal), (SELECT count(*) FROM pg_policy), (SELECT count(*) FROM pg_publication), \
                     (SELECT count(*) FROM pg_statistic_ext), (SELECT count(*) FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL), \
                     (SELECT count(*) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = 'sales'::regnamespace AND c.relname <> 'by_customer')";
        assert_eq!(server.sql("uat", hooks).await, "0|0|0|0|0|0");
        // what it gave to others on its own goes with it, and the estate may create nowhere
        assert_eq!(server.sql("uat", "SELECT coalesce(array_length(relacl, 1), 0) > 1 FROM pg_class WHERE oid = 'sales.kept'::regclass").await, "f");
        assert_eq!(server.sql("uat", &format!("SELECT has_schema_privilege('{estate}', 'sales', 'CREATE')")).await, "f");
        // the data is whole, and what is harmless of the table stays
        assert_eq!(server.sql("uat", "SELECT count(*), sum(n), sum(twice), count(DISTINCT m) FROM sales.kept").await, "100|5050|10100|1");
        let defaults = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'sales.kept'::regclass";
        assert_eq!(server.sql("uat", defaults).await, "id,m,at,w");
        let checks = "SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE contype = 'c' AND connamespace = 'sales'::regnamespace";
        assert_eq!(server.sql("uat", checks).await, "kept_n_check,short_check");
        assert_eq!(server.sql("uat", "SELECT count(*) FROM pg_indexes WHERE tablename = 'kept'").await, "2");
        // the estate opens nothing, and nothing was given upwards
        let rights = format!(
            "SELECT rolcanlogin, rolsuper, rolcreaterole, has_table_privilege(oid, 'sales.orders', 'SELECT'), has_schema_privilege(oid, 'sales', 'USAGE') \
             FROM pg_roles WHERE rolname = '{estate}'"
        );
        assert_eq!(server.sql("uat", &rights).await, "f|f|f|f|f");
        assert_eq!(server.sql("uat", "SET ROLE uat_owner; SELECT count(*) FROM sales.kept").await, "100", "the owner is a member of it");
        assert_eq!(server.sql("uat", "SELECT count(*) FROM pg_shdepend WHERE refobjid = 'daypass_admin'::regrole AND deptype = 'o'").await, "0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_or_prepared_as_a_group_is_taken_from_it() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        let (account, group) = ("jit_mallory_aaaa", "daypass_00000000000000000000000000000003_read_write");
        server.provide(account, "uat", Access::ReadWrite, Grants::Granted).await.unwrap();
        let become_it = server.may(account, "uat", &format!("SET ROLE {group}; SELECT 1")).await;
        let version: i32 = server.sql("uat", "SHOW server_version_num").await.parse().unwrap();
        assert_eq!(become_it.is_err(), version >= 160_000, "from 16 on nobody becomes the group: {become_it:?}");
        server.sql("uat", &format!("GRANT CREATE ON SCHEMA sales TO {group}")).await;
        server
            .sql(
                "uat",
                &format!("SET ROLE {group}; CREATE FUNCTION sales.kept() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE sales.t AS SELECT 1 AS n"),
            )
            .await;
        server.sql("uat", &format!("SET ROLE {group}; BEGIN; UPDATE sales.orders SET amount = 0; PREPARE TRANSACTION 'sleeper'")).await;
        let (environment, database) = (EnvironmentId::new(Uuid::from_u128(3)), "uat".parse().unwrap());
        let estate = Estate { environment: Some(environment), heir: None, drop: false };
        let swept = server.target.tidy_groups(environment, &database, estate).await.unwrap();
        let said: Vec<&str> = swept.iter().map(|s| s.what.as_str()).collect();
        assert!(said.iter().any(|what| what.contains("sleeper")) && said.iter().any(|what| what.contains("FUNCTION sales.kept")), "{said:?}");
        assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_prepared_xacts").await, "0");
        let owned = format!("SELECT count(*) FROM pg_shdepend WHERE refobjid = '{group}'::regrole AND deptype = 'o'");
        assert_eq!(server.sql("uat", &owned).await, "0");
        assert_eq!(server.may(account, "uat", "SELECT count(*) FROM sales.orders").await.unwrap(), "400", "the group has its rights");
        assert!(server.target.tidy_groups(environment, &database, estate).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_an_account_while_everybody_can_create_in_a_schema() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        // as a database that was born on 14 or before has it
        server.sql("uat", "GRANT CREATE ON SCHEMA public TO PUBLIC").await;
        let why = server.provide("jit_maria_aaaa", "uat", Access::Read, Grants::Granted).await.unwrap_err().to_string();
        assert!(why.contains("REVOKE CREATE ON SCHEMA public FROM PUBLIC"), "{why}");
        assert_eq!(server.accounts().await, "");
        let test = server.target.test(&"uat".parse().unwrap()).await;
        assert!(test.iter().any(|check| check.verdict == Verdict::Missing && check.remedy.contains("REVOKE CREATE ON SCHEMA public FROM PUBLIC")), "{test:?}");
        let drift = server.target.drift(&["uat".parse().unwrap()], &Default::default).await.unwrap();
        let finding = drift.iter().find(|finding| finding.name.contains("CREATE")).expect("drift says the same").clone();
        // and it can be ended from there, by whoever may
        server.sql("postgres", "ALTER DATABASE uat OWNER TO uat_owner").await;
        server.sql("uat", "ALTER SCHEMA public OWNER TO uat_owner").await;
        server.target.end_drift(&finding).await.unwrap();
        server.provide("jit_maria_aaaa", "uat", Access::Read, Grants::Granted).await.unwrap();
        // functions that run as their owner and can be led astray are named
        server.sql("uat", "SET ROLE uat_owner; CREATE FUNCTION sales.astray() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'").await;
        let test = server.target.test(&"uat".parse().unwrap()).await;
        assert!(test.iter().any(|check| check.verdict == Verdict::Note && check.what.contains("sales.astray()")), "{test:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_accounts_with_our_marker_are_ours() {
    each(async |server| {
        server.postgres.database("uat").await.unwrap();
        server.provide("jit_maria_aaaa", "uat", Access::Read, Grants::Granted).await.unwrap();
        server.sql("postgres", "CREATE ROLE jit_not_ours LOGIN; CREATE ROLE jit_another_store LOGIN; COMMENT ON ROLE jit_another_store IS 'daypass 00000000-0000-0000-0000-00000000dead x'").await;
        let seen = server.target.observe(&[], &[]).await.unwrap();
        let names: Vec<&str> = seen.accounts.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["jit_maria_aaaa"]);
        assert!(seen.accounts.iter().all(|account| !account.can_login), "to log in is a moment");
        // a mark that was taken off hides nobody whose name is known
        server.sql("postgres", "COMMENT ON ROLE jit_maria_aaaa IS 'nobody'").await;
        assert!(server.target.observe(&[], &[]).await.unwrap().accounts.is_empty());
        let seen = server.target.observe(&[], &["jit_maria_aaaa".to_owned()]).await.unwrap();
        assert_eq!(seen.accounts.len(), 1);
        assert!(seen.accounts[0].expires_in.is_some_and(|left| (590..=600).contains(&left)), "{seen:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_database_has_another_identity_and_a_renamed_one_the_same() {
    each(async |server| {
        let name: DatabaseName = "uat".parse().unwrap();
        assert!(matches!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &name).await, Err(TargetError::NoDatabase(_))));
        server.sql("postgres", "CREATE DATABASE uat").await;
        let first = server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &name).await.unwrap();
        server.sql("postgres", "ALTER DATABASE uat RENAME TO was_uat").await;
        assert_eq!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &"was_uat".parse().unwrap()).await.unwrap(), first);
        server.sql("postgres", "CREATE DATABASE uat").await;
        assert_ne!(server.target.identity(EnvironmentId::new(Uuid::from_u128(5)), &name).await.unwrap(), first);
    })
    .await;
}

/// A session of the account itself, with its password.
struct Session {
    client: tokio_postgres::Client,
    connection: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>,
}

async fn session(server: &Server, account: &str) -> Session {
    let mut config = tokio_postgres::Config::new();
    // accounts log in at moments only; this is one
    server.sql("postgres", &format!("ALTER ROLE {account} LOGIN")).await;
    config.host("127.0.0.1").port(server.postgres.port).user(account).password(PASSWORD).dbname("uat");
    let (client, connection) = if server.postgres.has_tls() {
        let (client, connection) = config.connect(tokio_postgres_rustls::MakeRustlsConnect::new(trusting(&server.postgres.ca))).await.unwrap();
        (client, tokio::spawn(connection))
    } else {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        (client, tokio::spawn(connection))
    };
    Session { client, connection }
}

impl Session {
    async fn batch(&mut self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    async fn ends(self) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(5), self.connection).await, Ok(Ok(Err(_))))
    }
}

fn environment(database: &str) -> Environment {
    let spec = EnvironmentSpec {
        name: database.parse().unwrap(),
        kind: Kind::SelfService,
        database: database.parse().unwrap(),
        grants: Grants::Granted,
        heir: None,
        enforce: Enforce::Gateway,
    };
    let (id, project, target) = (EnvironmentId::new(Uuid::from_u128(3)), ProjectId::new(Uuid::from_u128(4)), TargetId::new(Uuid::from_u128(5)));
    Environment {
        id,
        project,
        target,
        spec,
        ended_epochs: Vec::new(),
        identity: None,
        masks: Masks::default(),
        remote_desktop: false,
        failover_until: None,
        moving: None,
        frozen_by: None,
        removed_at: None,
    }
}

/// A movement of `uat`, by its number.
struct Moving {
    env: Environment,
    names: Names,
    tools: Tools,
    masking: Masking,
    progress: Progress,
}

impl Moving {
    fn new(server: &Server, work: &std::path::Path, n: u128, jobs: u16) -> Moving {
        let env = environment("uat");
        let names = Names::of(&env, MovementId::new(Uuid::from_u128(n))).unwrap();
        let tools = Tools { postgres: Some(server.postgres.program("")), jobs, work: work.join(names.role.as_str()), ..Tools::default() };
        let masking = Masking { key: MaskKey::new([7; 32]), required: false };
        Moving { env, names, tools, masking, progress: Progress::default() }
    }

    fn get(&self) -> Move<'_> {
        Move { environment: &self.env, names: &self.names, tools: &self.tools, masking: &self.masking, progress: &self.progress }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_copied_swept_and_exchanged_on_each_version() {
    let work = std::env::temp_dir().join(format!("daypass-targets-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    let script = work.join("mask.sql");
    std::fs::write(&script, "UPDATE sales.orders SET customer = 'masked';\n").unwrap();
    each(async |server| {
        for database in ["golden", "uat"] {
            server.postgres.database(database).await.unwrap();
        }
        server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION; CREATE ROLE app LOGIN; GRANT CONNECT ON DATABASE uat TO app").await;
        server.sql("uat", "GRANT USAGE ON SCHEMA sales TO app; GRANT SELECT ON sales.orders TO app; ALTER DATABASE uat SET work_mem = '7MB'").await;
        server.sql("uat", "ALTER DATABASE uat CONNECTION LIMIT 40; COMMENT ON DATABASE uat IS 'it''s ours'; ALTER DATABASE uat IS_TEMPLATE true").await;
        server.sql("uat", "CREATE PUBLICATION ours; CREATE EXTENSION IF NOT EXISTS citext").await;
        server.sql("golden", "CREATE ROLE stranger; GRANT SELECT ON sales.orders TO stranger; DELETE FROM sales.orders WHERE id > 7").await;
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        // the server's own copy, then the tools, one table after the other and several at once
        for (n, (same_server, jobs)) in [(true, 1), (false, 1), (false, 3)].into_iter().enumerate() {
            let moving = Moving::new(server, &work, 90 + n as u128, jobs);
            let (names, movement) = (&moving.names, moving.get());
            let golden: DatabaseName = "golden".parse().unwrap();
            server.target.copy(&movement, &Source::Database { target: &from, database: &golden, same_server }).await.unwrap();
            server.target.sweep(&movement, &Scripts { run: vec![script.clone()], ..Scripts::default() }).await.unwrap();
            // from 16 on the administrator may set this only for roles that are given to it; then the report says so
            server.sql("uat", "ALTER ROLE app IN DATABASE uat SET search_path = sales, public").await;
            let said = format!("{:?}", server.target.carry_over(&movement).await.unwrap());
            assert_eq!(said.contains("extension citext of the database of before\", done: \"NOT in the new one"), n == 0, "{said}");
            server.target.swap(&movement, &names.scratch).await.unwrap();
            let kept = "SELECT datconnlimit, datistemplate, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'uat'";
            assert_eq!(server.sql("postgres", kept).await, "40|t|it's ours");
            let of_role = "SELECT setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = setrole WHERE rolname = 'app' AND setdatabase = (SELECT oid FROM pg_database WHERE datname = 'uat')";
            let said_so = server.sql("postgres", of_role).await;
            assert!(said_so == "{\"search_path=sales, public\"}" || said.contains("setting of app: search_path"), "{said_so}: {said}");
            assert_eq!(server.sql("uat", "SELECT count(*) FROM sales.orders WHERE customer = 'masked'").await, "7");
            assert_eq!(server.sql("uat", "SELECT has_table_privilege('app', 'sales.orders', 'SELECT'), current_setting('work_mem')").await, "t|7MB");
            assert_eq!(
                server.sql("uat", "SELECT has_table_privilege('stranger', 'sales.orders', 'SELECT'), has_database_privilege('app', 'uat', 'CONNECT')").await,
                "f|t"
            );
            assert_eq!(server.sql("uat", "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'sales'").await, "uat_owner");
            let language = "SELECT count(DISTINCT (encoding, datcollate, datctype, datlocprovider)) FROM pg_database WHERE datname LIKE 'uat%'";
            assert_eq!(server.sql("postgres", language).await, "1");
            assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in\\_%'").await, "0");
            assert_eq!(server.target.settle(&movement, &names.scratch).await.unwrap(), Standing::New);
            server.target.drop_kept(&names.old).await.unwrap();
        }
        let left = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE 'uat%'";
        assert_eq!(server.sql("postgres", left).await, "uat");
    })
    .await;
    std::fs::remove_dir_all(&work).unwrap();
}

/// Who may do what in a database, in a form that compares: rights of others than the owner, and what objects to come are made with.
const WHO_MAY: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
  SELECT format('%s %s %s%s', c.oid::regclass, coalesce(x.grantee::regrole::text, '-'), x.privilege_type, CASE WHEN x.is_grantable THEN '*' ELSE '' END) AS line
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace, aclexplode(relacl) x WHERE nspname = 'sales' AND x.grantee <> relowner
  UNION ALL SELECT format('%s.%s %s %s', attrelid::regclass, attname, x.grantee::regrole, x.privilege_type) FROM pg_attribute, aclexplode(attacl) x WHERE attrelid >= 16384
  UNION ALL SELECT format('%s %s %s', p.oid::regprocedure, CASE x.grantee WHEN 0 THEN 'everybody' ELSE x.grantee::regrole::text END, x.privilege_type)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace, aclexplode(coalesce(proacl, acldefault('f', proowner))) x WHERE nspname = 'sales' AND x.grantee <> proowner
  UNION ALL SELECT format('%s %s', t.oid::regtype, CASE x.grantee WHEN 0 THEN 'everybody' ELSE x.grantee::regrole::text END)
    FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace, aclexplode(coalesce(typacl, acldefault('T', typowner))) x WHERE nspname = 'sales' AND typtype = 'e' AND x.grantee <> typowner
  UNION ALL SELECT format('schema %s %s %s', nspname, CASE x.grantee WHEN 0 THEN 'everybody' ELSE x.grantee::regrole::text END, x.privilege_type)
    FROM pg_namespace, aclexplode(nspacl) x WHERE nspname IN ('sales', 'public') AND x.grantee <> nspowner
  UNION ALL SELECT format('to come %s %s %s %s', defaclrole::regrole, defaclobjtype, CASE x.grantee WHEN 0 THEN 'everybody' ELSE x.grantee::regrole::text END, x.privilege_type)
    FROM pg_default_acl, aclexplode(defaclacl) x WHERE defaclrole = 'uat_owner'::regrole) AS all_of_it";

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_what_they_might_before_and_what_the_source_refuses_stays_refused() {
    let work = std::env::temp_dir().join(format!("daypass-rights-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    each(async |server| {
        for database in ["golden", "uat"] {
            server.postgres.database(database).await.unwrap();
        }
        server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION; CREATE ROLE app; CREATE ROLE report; CREATE ROLE \"Odd \"\" one\"; CREATE ROLE stranger").await;
        let both = "CREATE FUNCTION sales.wipe() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM sales.orders'; CREATE TYPE sales.mood AS ENUM ('good'); \
                    CREATE FUNCTION sales.shown(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE sales.\"does; it\"() LANGUAGE sql AS 'SELECT 1'; \
                    CREATE AGGREGATE sales.most(int) (SFUNC = int4larger, STYPE = int); CREATE SEQUENCE sales.numbers; CREATE VIEW sales.seen AS SELECT 1 AS x;";
        for (database, owner) in [("golden", "golden_owner"), ("uat", "uat_owner")] {
            server.sql(database, &format!("SET ROLE {owner}; {both}")).await;
        }
        // the source refuses what anybody may by default, and gives what nobody has
        let source = "SET ROLE golden_owner; REVOKE ALL ON FUNCTION sales.wipe() FROM PUBLIC; GRANT EXECUTE ON FUNCTION sales.wipe() TO stranger; REVOKE ALL ON TYPE sales.mood FROM PUBLIC; \
                      GRANT SELECT ON sales.orders TO PUBLIC, pg_monitor; GRANT SELECT (x) ON sales.seen TO PUBLIC; GRANT CREATE ON SCHEMA sales TO PUBLIC; CREATE FUNCTION sales.fresh() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
                      REVOKE ALL ON FUNCTION sales.fresh() FROM PUBLIC; GRANT ALL ON FUNCTION sales.fresh() TO stranger";
        server.sql("golden", source).await;
        let before = "SET ROLE uat_owner; GRANT USAGE ON SCHEMA sales TO app WITH GRANT OPTION; GRANT SELECT ON sales.orders TO app WITH GRANT OPTION; GRANT UPDATE (customer) ON sales.orders TO report; \
                      GRANT EXECUTE ON FUNCTION sales.wipe() TO app; REVOKE ALL ON FUNCTION sales.shown(int, text) FROM PUBLIC; REVOKE ALL ON PROCEDURE sales.\"does; it\"() FROM PUBLIC; \
                      GRANT EXECUTE ON FUNCTION sales.most(int) TO report; GRANT USAGE ON SEQUENCE sales.numbers TO \"Odd \"\" one\"; GRANT SELECT ON sales.seen TO PUBLIC; \
                      ALTER DEFAULT PRIVILEGES IN SCHEMA sales GRANT SELECT ON TABLES TO app; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; \
                      RESET ROLE; SET ROLE app; GRANT SELECT ON sales.orders TO report; GRANT USAGE ON SCHEMA sales TO report";
        server.sql("uat", before).await;
        let kept = server.sql("uat", WHO_MAY).await;
        // what stays, but for what only the source refuses
        let wanted: Vec<&str> = kept.lines().filter(|line| !["sales.wipe() everybody EXECUTE", "sales.mood everybody"].contains(line)).collect();
        let env = environment("uat");
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        let golden: DatabaseName = "golden".parse().unwrap();
        let dump = work.join(format!("golden-{}.dump", server.postgres.port));
        for (n, way) in ["beside", "pipe", "jobs", "file"].into_iter().enumerate() {
            let jobs = if way == "jobs" { 3 } else { 1 };
            let moving = Moving::new(server, &work, 190 + n as u128, jobs);
            let (names, movement) = (&moving.names, moving.get());
            let source = Source::Database { target: &from, database: &golden, same_server: way == "beside" };
            let source = if way == "file" { Source::File(&dump) } else { source };
            if way == "file" {
                let export = Environment { spec: EnvironmentSpec { database: golden.clone(), ..env.spec.clone() }, ..env.clone() };
                server.target.export(&Move { environment: &export, ..movement }, &dump).await.unwrap();
            }
            server.target.copy(&movement, &source).await.unwrap();
            server.target.sweep(&movement, &Scripts::default()).await.unwrap();
            let report = server.target.carry_over(&movement).await.unwrap();
            server.target.swap(&movement, &names.scratch).await.unwrap();
            let now = server.sql("uat", WHO_MAY).await;
            let lines: Vec<&str> = now.lines().collect();
            let gained: Vec<&&str> = lines.iter().filter(|line| !wanted.contains(line)).collect();
            let lost: Vec<&&str> = wanted.iter().filter(|line| !lines.contains(line)).collect();
            assert!(gained.is_empty() && lost.is_empty(), "{way}: gained {gained:?}, lost {lost:?}; {report:#?}");
            let said = format!("{report:?}");
            assert!(said.contains("EXECUTE on routine sales.wipe() of everybody") && !said.contains("LOST"), "{way}: {said}");
            server.target.drop_kept(&names.old).await.unwrap();
            // the next way finds what the first one did
            server.sql("uat", "GRANT ALL ON FUNCTION sales.wipe() TO PUBLIC; GRANT USAGE ON TYPE sales.mood TO PUBLIC; DROP FUNCTION sales.fresh()").await;
            assert_eq!(server.sql("uat", WHO_MAY).await, kept, "{way}");
        }
    })
    .await;
    std::fs::remove_dir_all(&work).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_a_movement_is_named_before_anything_is_done() {
    let work = std::env::temp_dir().join(format!("daypass-obstacles-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    each(async |server| {
        for database in ["golden", "uat"] {
            server.postgres.database(database).await.unwrap();
        }
        server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION").await;
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        let golden: DatabaseName = "golden".parse().unwrap();
        let moving = Moving::new(server, &work, 290, 3);
        let movement = moving.get();
        let look =
            async |same_server| server.target.look_ahead(&movement, Some(&Source::Database { target: &from, database: &golden, same_server })).await.unwrap();
        // the sessions that filled the databases end in their own time
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let checks = look(true).await;
            if checks.iter().all(|check| check.verdict == Verdict::Fine) && checks.len() >= 14 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{checks:#?}");
        }
        let has = |checks: &[Check], verdict, what: &str, helps: &str| {
            assert!(checks.iter().any(|check| check.verdict == verdict && check.what.contains(what) && check.remedy.contains(helps)), "{what}: {checks:#?}");
        };
        // somebody whom the administrator may not end
        let mut psql = std::process::Command::new(server.postgres.psql());
        psql.args(["-X", "-q", "-U", "postgres", "-p", &server.postgres.port.to_string(), "-h"]).arg(server.postgres.path("")).args([
            "-d",
            "uat",
            "-c",
            "SELECT pg_sleep(600)",
        ]);
        let mut session = psql.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let pid = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while server.sql("postgres", pid).await.is_empty() {
            assert!(std::time::Instant::now() < deadline, "psql does not come in");
        }
        let pid = server.sql("postgres", pid).await;
        has(&look(true).await, Verdict::Note, "only a superuser ends such a session", &format!("SELECT pg_terminate_backend({pid});"));
        has(&server.target.in_the_way(&movement).await.unwrap(), Verdict::Missing, &pid, "pg_terminate_backend");
        server.sql("postgres", &format!("SELECT pg_terminate_backend({pid})")).await;
        session.wait().unwrap();
        // the source keeps everybody out; it holds what pg_dump does not read; the languages differ
        server.sql("postgres", "ALTER DATABASE golden ALLOW_CONNECTIONS false").await;
        has(&look(true).await, Verdict::Missing, "the source golden takes no connections", "ALTER DATABASE \"golden\" ALLOW_CONNECTIONS true");
        server.sql("postgres", "ALTER DATABASE golden ALLOW_CONNECTIONS true").await;
        let hidden = "SET ROLE golden_owner; CREATE TABLE sales.hidden (x int); ALTER TABLE sales.hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; \
                      RESET ROLE; CREATE TABLE sales.theirs (x int)";
        server.sql("golden", hidden).await;
        // the server's own copy asks for neither
        for (same_server, verdict) in [(true, Verdict::Note), (false, Verdict::Missing)] {
            let checks = look(same_server).await;
            has(&checks, verdict, "sales.hidden has row level security", "BYPASSRLS");
            has(&checks, verdict, "sales.theirs cannot be read", "GRANT postgres TO daypass_admin");
        }
        server.sql("postgres", "CREATE DATABASE old_bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'").await;
        let bytes: DatabaseName = "old_bytes".parse().unwrap();
        let checks = server.target.look_ahead(&movement, Some(&Source::Database { target: &from, database: &bytes, same_server: true })).await.unwrap();
        has(&checks, Verdict::Missing, "the source is in SQL_ASCII and the database in UTF8", "Convert the source");
        let nowhere: DatabaseName = "nowhere".parse().unwrap();
        let checks = server.target.look_ahead(&movement, Some(&Source::Database { target: &from, database: &nowhere, same_server: true })).await.unwrap();
        has(&checks, Verdict::Missing, "there is no source nowhere", "Name another");
        // files of ten kinds that are no dump
        let packed = [0x1f, 0x8b, 8, 0];
        let mut tar = vec![b'a'; 257];
        tar.extend_from_slice(b"ustar\0");
        let files: [(&[u8], &str); 8] = [
            (b"CREATE TABLE x ();", "to restore it is to execute"),
            (&packed, "packed by gzip"),
            (b"PK\x03\x04...", "a zip file"),
            (b"", "it is empty"),
            (&tar, "a tar file"),
            (b"Salted__12345678", "encrypted"),
            (b"TAPE....", "backup of SQL Server"),
            (b"PGDMP and then nothing", "pg_restore --list"),
        ];
        for (content, words) in files {
            let file = work.join("dump");
            std::fs::write(&file, content).unwrap();
            let checks = server.target.look_ahead(&movement, Some(&Source::File(&file))).await.unwrap();
            has(&checks, Verdict::Missing, "the file cannot be imported", words);
        }
        let dump = |name: &str, options: &[&str]| {
            let file = work.join(name);
            let mut command = std::process::Command::new(server.postgres.program("pg_dump"));
            command
                .args(["-Fc", "-U", "postgres", "-p", &server.postgres.port.to_string(), "-h"])
                .arg(server.postgres.path(""))
                .args(options)
                .arg("-f")
                .arg(&file)
                .arg("golden");
            assert!(command.status().unwrap().success());
            file
        };
        let checks = server.target.look_ahead(&movement, Some(&Source::File(&dump("rows", &["--data-only"])))).await.unwrap();
        has(&checks, Verdict::Missing, "the file cannot be imported", "--data-only");
        let checks = server.target.look_ahead(&movement, Some(&Source::File(&dump("whole", &[])))).await.unwrap();
        has(&checks, Verdict::Fine, "the file is a dump that pg_restore reads", "");
    })
    .await;
    std::fs::remove_dir_all(&work).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_stay_in_their_database_and_checks_say_whether_it_is_masked() {
    let work = std::env::temp_dir().join(format!("daypass-scripts-{}", std::process::id()));
    let folder = work.join("uat");
    std::fs::create_dir_all(folder.join("checks")).unwrap();
    std::fs::create_dir_all(folder.join("more")).unwrap();
    std::fs::write(folder.join("10-MASK.SQL"), "UPDATE orders SET customer = 'masked';\nTRUNCATE emptied;\n").unwrap();
    std::fs::write(folder.join("notes.txt"), "what we mask").unwrap();
    std::fs::write(folder.join(".10-mask.sql.swp"), "").unwrap();
    let check = |sql: &str| std::fs::write(folder.join("checks/masked.sql"), sql).unwrap();
    check("SELECT customer FROM sales.orders WHERE customer <> 'masked';\n");
    each(async |server| {
        for database in ["golden", "uat"] {
            server.postgres.database(database).await.unwrap();
        }
        server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION; ALTER DATABASE uat SET search_path = sales").await;
        server.sql("uat", "ALTER DATABASE uat SET default_transaction_read_only = on").await;
        let source = "SET ROLE golden_owner; CREATE VIEW sales.behind AS SELECT 'x'::text AS customer; CREATE MATERIALIZED VIEW sales.first AS SELECT customer FROM sales.behind; \
                      CREATE MATERIALIZED VIEW sales.names AS SELECT DISTINCT customer FROM sales.orders; CREATE OR REPLACE VIEW sales.behind AS SELECT customer FROM sales.names; \
                      REFRESH MATERIALIZED VIEW sales.first; CREATE TABLE sales.emptied AS SELECT 'Ada'::text AS name FROM generate_series(1, 9); ANALYZE sales.emptied; CREATE TABLE sales.hidden (name text); \
                      INSERT INTO sales.hidden VALUES ('Ada'); ALTER TABLE sales.hidden ENABLE ROW LEVEL SECURITY; CREATE TABLE public.orders (customer text)";
        server.sql("golden", &format!("GRANT CREATE ON SCHEMA public TO golden_owner; {source}")).await;
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        let golden: DatabaseName = "golden".parse().unwrap();
        let moving = Moving::new(server, &work, 390, 1);
        let (names, movement) = (&moving.names, moving.get());
        let copy = async || server.target.copy(&movement, &Source::Database { target: &from, database: &golden, same_server: true }).await.unwrap();
        copy().await;
        let scripts = Scripts::in_folder(&folder).unwrap();
        assert_eq!(scripts.names(), ["10-MASK.SQL", "checks/masked.sql"]);
        let report = format!("{:?}", server.target.sweep(&movement, &scripts).await.unwrap());
        for said in ["ran: UPDATE 400", "2 materialized views", "statistics of tables that are empty now: sales.emptied", "check masked.sql", "found nothing", "more, beside the scripts", "notes.txt, beside the scripts"] {
            assert!(report.contains(said), "{said}: {report}");
        }
        let scratch = names.scratch.as_str();
        assert_eq!(server.sql(scratch, "SELECT string_agg(customer, ' ') FROM sales.names").await, "masked");
        // one that reads another, which was made after it
        assert_eq!(server.sql(scratch, "SELECT string_agg(customer, ' ') FROM sales.first").await, "masked");
        let known = "SELECT count(*) FROM pg_stats WHERE schemaname = 'sales' AND tablename = 'orders' AND attname = 'customer' AND most_common_vals::text = '{masked}'";
        assert_eq!(server.sql(scratch, known).await, "1", "statistics know nothing of what was there");
        // rights that are not a script's to give or to take are no success that says nothing
        std::fs::write(folder.join("20-rights.sql"), "REVOKE ALL ON SCHEMA public FROM PUBLIC;\n").unwrap();
        let failed = server.target.sweep(&movement, &Scripts::in_folder(&folder).unwrap()).await.unwrap_err().to_string();
        assert!(failed.contains("no privileges could be revoked") && failed.contains("not its to give or to take"), "{failed}");
        std::fs::remove_file(folder.join("20-rights.sql")).unwrap();
        assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in%'").await, "0", "a script that fails leaves no role");
        // what a check finds, what it may not do, and what it is not to overlook
        for (sql, words) in [
            ("SELECT id, customer FROM sales.orders ORDER BY id LIMIT 2;", "found what should not be there, and the new database does not open: 1|masked"),
            ("DELETE FROM sales.orders;", "read-only transaction"),
            ("SELECT 1 FROM nowhere;", "nowhere"),
            ("SELECT repeat('x', 100) FROM generate_series(1, 1000000);", "the check masked.sql found"),
        ] {
            check(sql);
            let failed = server.target.sweep(&movement, &Scripts::in_folder(&folder).unwrap()).await.unwrap_err().to_string();
            assert!(failed.contains(words) && failed.len() < 2_000, "{sql}: {failed}");
        }
        check("SELECT name FROM sales.hidden;");
        let failed = server.target.sweep(&movement, &Scripts::in_folder(&folder).unwrap()).await.unwrap_err().to_string();
        assert!(failed.contains("Ada"), "the owner's check sees behind row level security: {failed}");
        check("SELECT 1 WHERE false;");
        // one that cannot be read is not left out
        std::os::unix::fs::symlink("nowhere", folder.join("30-mask.sql")).unwrap();
        assert!(Scripts::in_folder(&folder).unwrap_err().to_string().contains("30-mask.sql cannot be read"));
        std::fs::remove_file(folder.join("30-mask.sql")).unwrap();
        // a script that goes elsewhere masks nothing there
        let rows = server.sql("uat", "SELECT count(*) FROM sales.orders WHERE customer = 'gone'").await;
        for leaving in ["\\c uat\nUPDATE sales.orders SET customer = 'gone';\n", "\\connect uat\nUPDATE sales.orders SET customer = 'gone';\n"] {
            std::fs::write(folder.join("20-leaves.sql"), leaving).unwrap();
            let failed = server.target.sweep(&movement, &Scripts::in_folder(&folder).unwrap()).await.unwrap_err().to_string();
            assert!(failed.contains("a script stays in its database"), "{failed}");
            assert_eq!(server.sql("uat", "SELECT count(*) FROM sales.orders WHERE customer = 'gone'").await, rows);
        }
        std::fs::remove_file(folder.join("20-leaves.sql")).unwrap();
        check("SELECT customer FROM sales.orders WHERE customer <> 'masked';\n");
        server.target.discard(&movement).await.unwrap();
    })
    .await;
    std::fs::remove_dir_all(&work).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_and_one_of_the_administrators_own_are_filled() {
    let work = std::env::temp_dir().join(format!("daypass-empty-{}", std::process::id()));
    each(async |server| {
        server.postgres.database("golden").await.unwrap();
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        let golden: DatabaseName = "golden".parse().unwrap();
        for (n, owner) in ["uat_owner", "daypass_admin"].into_iter().enumerate() {
            if n == 0 {
                server.sql("postgres", "CREATE ROLE uat_owner; GRANT uat_owner TO daypass_admin WITH ADMIN OPTION").await;
            }
            server.sql("postgres", "DROP DATABASE IF EXISTS uat").await;
            server.sql("postgres", &format!("CREATE DATABASE uat OWNER {owner}")).await;
            server.sql("postgres", "REVOKE CONNECT ON DATABASE uat FROM PUBLIC").await;
            for same_server in [true, false] {
                let moving = Moving::new(server, &work, 590 + n as u128 * 2 + u128::from(same_server), 1);
                let (names, movement) = (&moving.names, moving.get());
                let told = |e: TargetError| panic!("{owner}, {same_server}: {e}");
                server.target.copy(&movement, &Source::Database { target: &from, database: &golden, same_server }).await.unwrap_or_else(told);
                server.target.sweep(&movement, &Scripts::default()).await.map(drop).unwrap_or_else(told);
                server.target.carry_over(&movement).await.map(drop).unwrap_or_else(told);
                server.target.swap(&movement, &names.scratch).await.unwrap_or_else(told);
                let may = format!(
                    "SELECT pg_get_userbyid(datdba), has_database_privilege('{owner}', oid, 'CONNECT'), has_database_privilege('{owner}', oid, 'CREATE'), \
                     has_database_privilege('public', oid, 'CONNECT') FROM pg_database WHERE datname = 'uat'"
                );
                assert_eq!(server.sql("uat", &may).await, format!("{owner}|t|t|f"), "{same_server}");
                assert_eq!(server.sql("uat", "SELECT count(*) FROM sales.orders").await, "400");
                server.target.drop_kept(&names.old).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_with_types_of_its_own_comes_with_the_servers_own_copy() {
    let work = std::env::temp_dir().join(format!("daypass-extension-{}", std::process::id()));
    each(async |server| {
        for database in ["golden", "uat"] {
            server.postgres.database(database).await.unwrap();
        }
        server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION").await;
        server.sql("golden", "CREATE EXTENSION dblink; CREATE PUBLICATION theirs; ALTER PUBLICATION theirs OWNER TO golden_owner").await;
        let watching = "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watch(); ALTER FUNCTION watch() OWNER TO golden_owner";
        server.sql("golden", watching).await;
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        let golden: DatabaseName = "golden".parse().unwrap();
        let moving = Moving::new(server, &work, 490, 1);
        let (names, movement) = (&moving.names, moving.get());
        for (same_server, verdict) in [(true, Verdict::Note), (false, Verdict::Missing)] {
            let checks = server.target.look_ahead(&movement, Some(&Source::Database { target: &from, database: &golden, same_server })).await.unwrap();
            assert!(checks.iter().any(|check| check.verdict == verdict && check.what.contains("dblink is made by superusers only")), "{checks:#?}");
            assert!(checks.iter().any(|check| check.verdict == Verdict::Missing && check.what.contains("watching is an event trigger")), "{checks:#?}");
        }
        let copy = async || server.target.copy(&movement, &Source::Database { target: &from, database: &golden, same_server: true }).await;
        assert!(copy().await.unwrap_err().to_string().contains("pg_restore"), "it does not run as the administrator");
        server.target.discard(&movement).await.unwrap();
        server.sql("golden", "ALTER EVENT TRIGGER watching DISABLE").await;
        copy().await.unwrap();
        server.target.sweep(&movement, &Scripts::default()).await.unwrap();
        // whoever will own it does not come in before its time
        let shut = "SELECT has_database_privilege('uat_owner', datname, 'CONNECT'), has_database_privilege('public', datname, 'CONNECT'), pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()";
        assert_eq!(server.sql(names.scratch.as_str(), shut).await, "f|f|daypass_admin");
        assert_eq!(server.sql(names.scratch.as_str(), "SELECT count(*) FROM pg_publication").await, "0");
        assert_eq!(server.sql(names.scratch.as_str(), "SELECT count(*) FROM pg_extension WHERE extname = 'dblink'").await, "1");
        server.target.discard(&movement).await.unwrap();
    })
    .await;
}
