//! Masked means masked: what is declared is gone from the copy, whatever the tables look like, and what cannot be masked never opens.

use super::*;
use sha2::{Digest, Sha256};

/// People, who refer to each other in ways that are in the way of a mask.
const SOURCE: &str = r#"
GRANT CREATE ON SCHEMA public TO golden_owner; SET ROLE golden_owner;
CREATE DOMAIN public.address AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE public.people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mail public.address NOT NULL UNIQUE, name text, "Card no" varchar(19), born date, seen timestamptz,
  salary numeric(9,2), key uuid UNIQUE, badge int4, code char(8), picture bytea, note text, upper_name text GENERATED ALWAYS AS (upper(name)) STORED, search tsvector);
CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.history (what) VALUES (OLD.mail); RETURN NULL; END $$;
CREATE FUNCTION public.never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
CREATE TABLE public.history (what text);
INSERT INTO public.people (mail, name, "Card no", born, seen, salary, key, badge, code, picture, note)
  SELECT 'p' || n || '@corp.example.com', 'Person ' || n, '4111-1111-1111-' || n, DATE '1970-01-01' + n, TIMESTAMPTZ '2020-01-01' + n * interval '1 hour', n, gen_random_uuid(), n, 'c' || n,
   convert_to('picture ' || n, 'UTF8'), CASE WHEN n % 10 = 0 THEN 'call p' || n || '@corp.example.com' END FROM generate_series(1000, 1999) n;
INSERT INTO public.people (mail, born) VALUES ('none@corp.example.com', 'infinity');
CREATE TRIGGER history AFTER UPDATE ON public.people FOR EACH ROW EXECUTE FUNCTION public.keep();
CREATE TRIGGER never BEFORE UPDATE ON public.people FOR EACH ROW EXECUTE FUNCTION public.never();
ALTER TABLE public.people ENABLE ALWAYS TRIGGER never;
CREATE RULE nothing AS ON UPDATE TO public.people WHERE false DO INSTEAD NOTHING;
CREATE TABLE public.logins (mail public.address REFERENCES public.people (mail) ON UPDATE CASCADE, person int REFERENCES public.people (id), at timestamptz);
COMMENT ON CONSTRAINT logins_mail_fkey ON public.logins IS 'who it is';
INSERT INTO public.logins SELECT mail, id, now() FROM public.people LIMIT 500;
CREATE TABLE public.visits (mail text, day date) PARTITION BY RANGE (day);
CREATE TABLE public.visits_old PARTITION OF public.visits FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE public.visits_new PARTITION OF public.visits FOR VALUES FROM ('2020-01-01') TO ('2040-01-01');
INSERT INTO public.visits SELECT 'p' || n || '@corp.example.com', DATE '2019-06-01' + n FROM generate_series(1, 400) n;
ALTER TABLE public.visits_new ENABLE ROW LEVEL SECURITY; ALTER TABLE public.people ENABLE ROW LEVEL SECURITY; ALTER TABLE public.people FORCE ROW LEVEL SECURITY;
CREATE POLICY low ON public.people USING (id < 10);
CREATE MATERIALIZED VIEW public.mails AS SELECT mail FROM public.visits;
"#;

const MASKS: &str = r#"{"public": {
  "people": {"mail": "mail", "name": "shuffle", "Card no": {"partial": {"last": 4}}, "born": {"shift_days": 30}, "seen": {"shift_days": 5}, "salary": "hash", "key": "hash", "badge": "hash",
    "code": "hash", "picture": "hash", "note": "null", "search": "keep", "id": "keep"},
  "visits": {"mail": {"constant": "nobody"}}, "history": {"what": "null"}}}"#;

/// A copy of golden with these masks, swept: the report, or why not.
async fn swept(server: &Server, work: &std::path::Path, moving: &Moving, scripts: &Scripts) -> Result<String, TargetError> {
    let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
    let golden: DatabaseName = "golden".parse().unwrap();
    std::fs::create_dir_all(work).unwrap();
    server.target.copy(&moving.get(), &Source::Database { target: &from, database: &golden, same_server: true }).await?;
    let report = server.target.sweep(&moving.get(), scripts).await?;
    Ok(report.iter().map(|line| format!("{}: {}\n", line.what, line.done)).collect())
}

async fn prepare(server: &Server) {
    for database in ["golden", "uat"] {
        server.postgres.database(database).await.unwrap();
    }
    server.sql("postgres", "GRANT uat_owner TO daypass_admin WITH ADMIN OPTION").await;
}

fn moving_project() -> Uuid {
    environment("uat").project.uuid()
}

fn masks(text: &str) -> Masks {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_is_masked_whatever_the_tables_look_like() {
    let work = std::env::temp_dir().join(format!("daypass-masks-{}", std::process::id()));
    each(async |server| {
        prepare(server).await;
        server.sql("golden", SOURCE).await;
        server.sql("postgres", "ALTER ROLE ALL SET log_statement = 'all'").await;
        let mut mails = Vec::new();
        // one transaction, and several tables at once
        for (n, jobs) in [(690, 1), (691, 3)] {
            let mut moving = Moving::new(server, &work, n, jobs);
            moving.env.masks = masks(MASKS);
            let report = swept(server, &work, &moving, &Scripts::default()).await.unwrap();
            for said in [
                "mask mail of public.people.mail: 1001 of 1001 rows differ from the source, and no row has a value that stood in this column there",
                "mask shift_days 30 of public.people.born: 1000 of 1000 rows differ from the source",
                "mask shuffle of public.people.name: 1000 of 1000 rows have another value than in the source",
                "mask hash of public.people.badge: 1000 of 1000 rows differ from the source",
                "mask null of public.people.note: no row has a value any more",
                "mask constant 'nobody' of public.visits.mail: 400 of 400 rows differ",
                "mask mail of public.logins.mail: 500 of 500 rows differ",
                "columns that refer to masked ones: public.logins.mail (mail): masked alike",
                "the rule nothing of public.people, the trigger history of public.people, the trigger never of public.people: did not run for the masks",
            ] {
                assert!(report.contains(said), "{said}:\n{report}");
            }
            assert!(!report.contains("corp.example.com"), "a report has no values: {report}");
            let scratch = moving.names.scratch.as_str();
            let sql = async |text: &str| server.sql(scratch, text).await;
            assert_eq!(sql("SELECT count(*) FROM people WHERE mail !~ '^[0-9a-f]{16}@masked.invalid$' OR note IS NOT NULL OR \"Card no\" !~ '^\\*{15}[0-9]{4}$'").await, "0");
            assert_eq!(sql("SELECT count(*) FROM logins l JOIN people p ON p.mail = l.mail AND p.id = l.person").await, "500", "what referred to somebody still does");
            assert_eq!(sql("SELECT count(*), count(DISTINCT name), count(DISTINCT code), max(length(code)), count(DISTINCT key), count(picture) FROM people").await, "1001|1000|1000|8|1000|1000");
            assert_eq!(sql("SELECT bool_and(upper_name = upper(name)) FROM people").await, "t");
            assert_eq!(sql("SELECT count(*) FROM people WHERE born BETWEEN '1972-08-27' AND '1975-07-24' AND salary BETWEEN 0 AND 9999999.99").await, "1000");
            assert_eq!(sql("SELECT count(*) FROM history").await, "0", "the trigger that keeps what was there did not run");
            assert_eq!(sql("SELECT string_agg(DISTINCT mail, ' ') FROM mails").await, "nobody", "materialized views have what the tables have");
            // all is on again
            let back = "SELECT (SELECT string_agg(tgenabled::text, '' ORDER BY tgname) FROM pg_trigger WHERE tgname IN ('history', 'never')), (SELECT ev_enabled FROM pg_rewrite WHERE rulename = 'nothing'), \
                        relforcerowsecurity, (SELECT attidentity FROM pg_attribute WHERE attrelid = c.oid AND attname = 'id'), \
                        (SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'logins_mail_fkey' AND convalidated AND confupdtype = 'c') FROM pg_class c WHERE relname = 'people'";
            assert_eq!(sql(back).await, "OA|O|t|a|who it is");
            assert_eq!(sql("SELECT count(*) FROM pg_stats WHERE array_to_string(most_common_vals, ' ') || coalesce(histogram_bounds::text, '') LIKE '%corp.example.com%'").await, "0");
            assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in%'").await, "0");
            mails.push(sql("SELECT md5(string_agg(mail, ' ' ORDER BY id)) FROM people").await);
            server.target.discard(&moving.get()).await.unwrap();
        }
        assert_eq!(mails[0], mails[1], "the same value becomes the same in every movement");
        // the key of the installation stands in no log, though all statements and their parameters are logged
        let log = std::fs::read_to_string(std::env::temp_dir().join(format!("daypass-pg-{}.log", server.postgres.port))).unwrap();
        let key = Sha256::new().chain_update([7; 32]).chain_update(moving_project().as_bytes()).finalize();
        let pad: String = key.iter().take(16).map(|byte| format!("{:02x}", byte ^ 0x36)).collect();
        assert!(log.contains("daypass_mask") && !log.contains(&pad) && !log.contains(&pad.to_uppercase()), "the statements are logged, and the key is not");
    })
    .await;
    let _ = std::fs::remove_dir_all(&work);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_masked_as_declared_never_opens_and_is_named() {
    let work = std::env::temp_dir().join(format!("daypass-unmasked-{}", std::process::id()));
    each(async |server| {
        prepare(server).await;
        server.sql("golden", SOURCE).await;
        server
            .sql(
                "golden",
                "SET ROLE golden_owner; CREATE TABLE public.few (mail varchar(10), n int CHECK (n < 3000)); INSERT INTO public.few VALUES ('a@b.exam', 1500)",
            )
            .await;
        let mut n = 700;
        let mut tried = async |text: &str, scripts: &Scripts| {
            n += 1;
            let mut moving = Moving::new(server, &work, n, 1);
            moving.env.masks = masks(text);
            let failed = swept(server, &work, &moving, scripts).await;
            // it is seen before anything is done as well
            let from =
                AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
            let golden: DatabaseName = "golden".parse().unwrap();
            let ahead = server.target.look_ahead(&moving.get(), Some(&Source::Database { target: &from, database: &golden, same_server: true })).await.unwrap();
            let seen = ahead.iter().any(|check| check.verdict == Verdict::Missing && check.what.contains("declared masks do not fit"));
            server.target.discard(&moving.get()).await.unwrap();
            (failed.map(drop).unwrap_err_or_empty(), seen)
        };
        let none = Scripts::default();
        for (masks, words) in [
            (r#"{"public": {"people": {"mial": "mail"}}}"#, "public.people.mial: there is no such column"),
            (r#"{"public": {"peeple": {"mail": "mail"}}}"#, "public.peeple.mail: there is no such column"),
            (r#"{"public": {"people": {"upper_name": "null"}}}"#, "computed from other columns"),
            (r#"{"public": {"people": {"mail": "null"}}}"#, "it is NOT NULL"),
            (r#"{"public": {"people": {"mail": {"constant": "x@y"}}}}"#, "each value stands in it once"),
            (r#"{"public": {"people": {"born": "hash"}}}"#, "hash is for texts, whole numbers, uuid and bytea, not for date"),
            (r#"{"public": {"people": {"name": {"shift_days": 3}}}}"#, "shift_days is for dates"),
            (r#"{"public": {"people": {"badge": {"partial": {"last": 1}}}}}"#, "partial is for texts, not for integer"),
            (r#"{"public": {"few": {"mail": "mail"}}}"#, "it takes 10 characters"),
            (r#"{"public": {"mails": {"mail": "null"}}}"#, "materialized view"),
        ] {
            let (failed, seen) = tried(masks, &none).await;
            assert!(failed.contains("declared masks do not fit") && failed.contains(words) && seen, "{masks}: {failed}");
        }
        // what only the values tell: no value stands in the words
        for (masks, words) in [
            (r#"{"public": {"people": {"badge": {"constant": "many"}}}}"#, "its type does not take what the mask makes (SQLSTATE 22P02"),
            (r#"{"public": {"people": {"mail": "hash"}}}"#, "a check of the table, or what its partitions are for, does not take what the mask makes"),
            (r#"{"public": {"few": {"n": "hash"}}}"#, "a check of the table, or what its partitions are for, does not take what the mask makes"),
            (r#"{"public": {"logins": {"person": "hash"}}}"#, "what refers to it was masked otherwise"),
            (r#"{"public": {"visits": {"day": {"constant": "2100-01-01"}}}}"#, "or what its partitions are for, does not take"),
        ] {
            let (failed, _) = tried(masks, &none).await;
            assert!(failed.contains(words) && !failed.contains("corp.example.com") && !failed.contains("1500"), "{masks}: {failed}");
        }
        // a script that brings back what was masked
        std::fs::create_dir_all(&work).unwrap();
        let script = work.join("back.sql");
        std::fs::write(&script, "UPDATE public.visits SET mail = 'p7@corp.example.com' WHERE day = '2019-06-08';\n").unwrap();
        let (failed, _) = tried(r#"{"public": {"visits": {"mail": "mail"}}}"#, &Scripts { run: vec![script], ..Scripts::default() }).await;
        assert!(
            failed.contains("what is masked is not, and the new database does not open: public.visits.mail (mail): 1 rows hold what stood in the source"),
            "{failed}"
        );
        // a copy whose owner set how names are found masks all the same; one whose types it made itself as well
        server.sql("golden", "SET ROLE golden_owner; CREATE SCHEMA odd; CREATE FUNCTION odd.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'").await;
        server.sql("uat", "ALTER DATABASE uat SET search_path = odd, pg_catalog").await;
        let mut moving = Moving::new(server, &work, 790, 1);
        moving.env.masks = masks(r#"{"public": {"visits": {"mail": "mail"}}}"#);
        let report = swept(server, &work, &moving, &none).await.unwrap();
        assert!(report.contains("400 of 400 rows differ"), "{report}");
        server.target.discard(&moving.get()).await.unwrap();
    })
    .await;
    let _ = std::fs::remove_dir_all(&work);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_personal_is_named_and_required_masking_keeps_it_closed() {
    let work = std::env::temp_dir().join(format!("daypass-personal-{}", std::process::id()));
    each(async |server| {
        prepare(server).await;
        server.sql("golden", SOURCE).await;
        server.sql("golden", "SET ROLE golden_owner; CREATE TABLE public.odd (a text, b numeric, c jsonb); INSERT INTO public.odd SELECT 'see x@corp.example.com', 4111111111111111, '{\"to\": \"y@corp.example.com\"}' FROM generate_series(1, 9)").await;
        let mut moving = Moving::new(server, &work, 890, 1);
        let none = Scripts::default();
        let report = swept(server, &work, &moving, &none).await.unwrap();
        for said in ["columns that look personal and are not declared", "public.logins.mail (mail address)", "public.odd.a (mail addresses)", "NOT masked", "daypass env masks uat"] {
            assert!(report.contains(said), "{said}:\n{report}");
        }
        // of a table that is large a few rows are looked at, and nobody goes on reading it: the server could not copy the database beside itself
        server.sql("golden", "SET ROLE golden_owner; CREATE TABLE public.large (memo text); INSERT INTO public.large SELECT repeat('x', 1000) || n FROM generate_series(1, 200000) n; INSERT INTO public.odd VALUES ('more', 1, '{}')").await;
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        let golden: DatabaseName = "golden".parse().unwrap();
        server.target.look_ahead(&moving.get(), Some(&Source::Database { target: &from, database: &golden, same_server: true })).await.unwrap();
        let reading = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'golden' AND query LIKE 'COPY%' AND state = 'active'";
        assert_eq!(server.sql("postgres", reading).await, "0");
        moving.masking.required = true;
        let failed = swept(server, &work, &moving, &none).await.unwrap_err().to_string();
        assert!(failed.contains("masking is required here") && failed.contains("more") && !failed.contains("corp.example.com"), "{failed}");
        // all that is named is declared, most of it as nobody's secret
        let declared = r#"{"public": {"people": {"mail": "mail", "name": "keep", "Card no": "keep", "born": "keep", "salary": "keep", "note": "null", "upper_name": "keep", "key": "keep", "id": "keep", "badge": "keep", "code": "keep"},
          "logins": {}, "visits": {"mail": "mail"}, "history": {"what": "keep"}, "odd": {"a": "null", "b": "null", "c": "null"}}}"#;
        moving.env.masks = masks(declared);
        // what follows a masked column is declared by that
        let report = swept(server, &work, &moving, &none).await.unwrap();
        assert!(!report.contains("look personal"), "{report}");
        server.target.discard(&moving.get()).await.unwrap();
    })
    .await;
    let _ = std::fs::remove_dir_all(&work);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_inside_a_copy_changes_neither_the_owner_nor_what_else_it_owns() {
    let work = std::env::temp_dir().join(format!("daypass-escape-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    let script = work.join("mask.sql");
    std::fs::write(&script, "UPDATE sales.orders SET customer = 'masked';\n").unwrap();
    // tries all of it, and says what worked
    let planted = r#"SET ROLE golden_owner; CREATE TABLE sales.worked (what text);
        CREATE FUNCTION sales.out() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE what text; BEGIN
          FOREACH what IN ARRAY ARRAY['ALTER ROLE uat_owner PASSWORD ''theirs''', 'ALTER ROLE uat_owner SET search_path = evil', 'ALTER DATABASE uat SET search_path = evil',
            'ALTER DATABASE other CONNECTION LIMIT 0', 'GRANT uat_owner TO golden_owner', 'SET ROLE uat_owner', 'SET ROLE daypass_admin', 'CREATE ROLE evil'] LOOP
            BEGIN EXECUTE what; INSERT INTO sales.worked VALUES (what); EXCEPTION WHEN OTHERS THEN NULL; END;
          END LOOP; RETURN NEW; END $$;
        CREATE TRIGGER out BEFORE UPDATE ON sales.orders FOR EACH ROW WHEN (NEW.id = 7) EXECUTE FUNCTION sales.out();
        ALTER TABLE sales.orders ADD COLUMN note text; CREATE FUNCTION sales.check_out(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
          BEGIN ALTER ROLE uat_owner SET search_path = evil; INSERT INTO sales.worked VALUES ('by a check'); EXCEPTION WHEN OTHERS THEN NULL; END; RETURN true; END $$;
        ALTER TABLE sales.orders ADD CHECK (sales.check_out(note));
        CREATE FUNCTION sales.really() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
          BEGIN ALTER ROLE uat_owner SET search_path = evil; INSERT INTO sales.worked VALUES ('by an index'); EXCEPTION WHEN OTHERS THEN NULL; END; RETURN 1; END $$;
        CREATE FUNCTION sales.lie(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM sales.really(); RETURN $1; END $$; CREATE INDEX ON sales.orders (sales.lie(id))"#;
    each(async |server| {
        prepare(server).await;
        server.sql("postgres", "ALTER ROLE uat_owner LOGIN").await;
        server.sql("postgres", "CREATE DATABASE other OWNER uat_owner").await;
        server.sql("golden", planted).await;
        for jobs in [1, 3] {
            let mut moving = Moving::new(server, &work, 1190 + u128::from(jobs), jobs);
            moving.env.masks = masks(r#"{"sales": {"orders": {"customer": "hash"}}}"#);
            let scripts = Scripts { run: vec![script.clone()], ..Scripts::default() };
            let report = swept(server, &work, &moving, &scripts).await.unwrap();
            assert!(report.contains("ran: UPDATE 400"), "{report}");
            let scratch = moving.names.scratch.as_str();
            assert_eq!(server.sql(scratch, "SELECT string_agg(DISTINCT what, '; ') FROM sales.worked").await, "");
            let changed = "SELECT (SELECT count(*) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE r.rolname = 'uat_owner'), \
                           (SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'uat_owner'), (SELECT datconnlimit FROM pg_database WHERE datname = 'other')";
            assert_eq!(server.sql("postgres", changed).await, "0|t|-1");
            // in the end it is the owner's all the same
            let owners = "SELECT string_agg(DISTINCT pg_get_userbyid(relowner)::text, ' ') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'sales'";
            assert_eq!(server.sql(scratch, owners).await, "uat_owner");
            server.target.discard(&moving.get()).await.unwrap();
            // and where nothing is declared, and nothing was written
            moving.env.masks = Masks::default();
            swept(server, &work, &moving, &Scripts::default()).await.unwrap();
            assert_eq!(server.sql(scratch, "SELECT string_agg(DISTINCT what, '; ') FROM sales.worked").await, "");
            assert_eq!(server.sql("postgres", changed).await, "0|t|-1");
            server.target.discard(&moving.get()).await.unwrap();
        }
    })
    .await;
    let _ = std::fs::remove_dir_all(&work);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_owns_the_source_neither_acts_as_the_administrator_nor_keeps_a_mask_from_its_work() {
    let work = std::env::temp_dir().join(format!("daypass-planted-{}", std::process::id()));
    // whatever is called says as whom; the planner itself calls what is said to be immutable
    let planted = r#"GRANT CREATE ON DATABASE golden TO golden_owner; SET ROLE golden_owner;
        CREATE SCHEMA s; CREATE TABLE s.seen (who text, how text);
        CREATE FUNCTION s.really(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO s.seen VALUES (current_user, $1); RETURN 1; END $$;
        CREATE FUNCTION s.lie(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM s.really($1); RETURN 1; END $$;
        CREATE TABLE s.indexed (id int PRIMARY KEY, mail text, memo text); INSERT INTO s.indexed SELECT n, 'i' || n || '@corp.example.com', 'x' FROM generate_series(1, 20) n;
        CREATE INDEX ON s.indexed ((id + s.lie('an index')));
        CREATE DOMAIN s.town AS text CHECK (s.really('a domain') = 1);
        CREATE TYPE s.json AS (v text); CREATE FUNCTION s.told(s.json) RETURNS text LANGUAGE sql AS $$ SELECT 'cast' || s.really('a cast')::text $$; CREATE CAST (s.json AS text) WITH FUNCTION s.told(s.json);
        CREATE TABLE s.typed (id int PRIMARY KEY, town s.town, doc s.json, digest text); INSERT INTO s.typed SELECT n, 'Town ' || n, ROW('x')::s.json, 'd' || n || '@corp.example.com' FROM generate_series(1, 20) n;
        CREATE DOMAIN s.day AS date; CREATE FUNCTION s.same(s.day, int) RETURNS date LANGUAGE sql AS 'SELECT $1::date'; CREATE OPERATOR s.+ (LEFTARG = s.day, RIGHTARG = int, FUNCTION = s.same);
        CREATE TABLE s.days (id int PRIMARY KEY, born s.day); INSERT INTO s.days SELECT n, DATE '1990-01-01' + n FROM generate_series(1, 20) n;
        CREATE TABLE s.parts (mail text, day date) PARTITION BY RANGE (day); CREATE TABLE s.early PARTITION OF s.parts FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
        CREATE TABLE s.late PARTITION OF s.parts FOR VALUES FROM ('2020-01-01') TO ('2040-01-01'); INSERT INTO s.parts SELECT 'v' || n || '@corp.example.com', DATE '2019-12-01' + n FROM generate_series(1, 60) n;
        CREATE FUNCTION s.stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO s.seen VALUES (OLD.mail, 'a row that moves'); RETURN NULL; END $$;
        CREATE TRIGGER stay BEFORE DELETE ON s.early FOR EACH ROW EXECUTE FUNCTION s.stay();
        CREATE TABLE s.few (id int PRIMARY KEY, none numeric(2,2), two numeric(2,0), one text); INSERT INTO s.few SELECT n, n / 100.0, n, CASE WHEN n = 1 THEN 'only' END FROM generate_series(0, 99) n"#;
    each(async |server| {
        prepare(server).await;
        server.sql("golden", planted).await;
        server.sql("golden", "TRUNCATE s.seen; ALTER TABLE s.seen OWNER TO golden_owner").await;
        server.sql("uat", "ALTER DATABASE uat SET search_path = s, pg_catalog").await;
        let mut moving = Moving::new(server, &work, 1090, 1);
        moving.env.masks = masks(
            r#"{"s": {"indexed": {"mail": "mail"}, "typed": {"town": {"constant": "Town"}, "digest": "hash"}, "days": {"born": {"shift_days": 9}}, "parts": {"mail": "mail", "day": {"shift_days": 40}}}}"#,
        );
        let from = AnyTarget::Postgres(OnPostgres::new(server.spec.clone(), Secret::new("admin-secret"), server.tls.clone(), StoreId::new(Uuid::from_u128(1))));
        let golden: DatabaseName = "golden".parse().unwrap();
        server.target.look_ahead(&moving.get(), Some(&Source::Database { target: &from, database: &golden, same_server: true })).await.unwrap();
        assert_eq!(server.sql("golden", "SELECT * FROM s.seen").await, "", "nothing of the source runs while it is looked at");
        let report = swept(server, &work, &moving, &Scripts::default()).await.unwrap();
        let scratch = moving.names.scratch.as_str();
        assert_eq!(server.sql(scratch, "SELECT DISTINCT how FROM s.seen WHERE who = 'daypass_admin' OR who LIKE '%@%'").await, "", "nothing of the copy runs as the administrator");
        for said in ["mask shift_days 9 of s.days.born: 20 of 20 rows differ from the source", "mask hash of s.typed.digest: 20 of 20 rows differ", "mask constant 'Town' of s.typed.town: 20 of 20 rows differ", "NOT compared"] {
            assert!(report.contains(said), "{said}:
{report}");
        }
        assert_eq!(server.sql(scratch, "SELECT count(*) FROM s.parts WHERE mail LIKE '%corp.example%'").await, "0");
        // no key to compare by is not enough where it has to be shown
        moving.masking.required = true;
        let failed = swept(server, &work, &moving, &Scripts::default()).await.unwrap_err().to_string();
        assert!(failed.contains("s.parts.day (shift_days 40): the table has no primary key"), "{failed}");
        moving.masking.required = false;
        // numbers that have no room for a hash
        moving.env.masks = masks(r#"{"s": {"few": {"none": "hash"}}}"#);
        let failed = swept(server, &work, &moving, &Scripts::default()).await.unwrap_err().to_string();
        assert!(failed.contains("s.few.none: hash is for texts, whole numbers"), "{failed}");
        moving.env.masks = masks(r#"{"s": {"few": {"two": "hash", "one": "shuffle"}}}"#);
        let report = swept(server, &work, &moving, &Scripts::default()).await.unwrap();
        assert!(report.contains("100 of 100 rows differ") && report.contains("NOT masked: none of 1 rows has another value"), "{report}");
        server.target.discard(&moving.get()).await.unwrap();
        // what a check says of a row is not repeated, and rows elsewhere are not reached
        server.sql("golden", "SET ROLE golden_owner; CREATE FUNCTION s.tell(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN IF $1 LIKE '%masked%' THEN RAISE 'was maria@corp.example.com'; END IF; RETURN true; END $$; ALTER TABLE s.indexed ADD CHECK (s.tell(mail))").await;
        moving.env.masks = masks(r#"{"s": {"indexed": {"mail": "mail"}}}"#);
        let failed = swept(server, &work, &moving, &Scripts::default()).await.unwrap_err().to_string();
        assert!(failed.contains("the server refuses (SQLSTATE P0001") && !failed.contains("maria"), "{failed}");
        server.sql("golden", "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; GRANT USAGE ON FOREIGN SERVER far TO golden_owner; SET ROLE golden_owner; CREATE FOREIGN TABLE s.far () INHERITS (s.days) SERVER far").await;
        moving.env.masks = masks(r#"{"s": {"days": {"born": {"shift_days": 9}}}}"#);
        let ahead = server.target.look_ahead(&moving.get(), Some(&Source::Database { target: &from, database: &golden, same_server: true })).await.unwrap();
        assert!(ahead.iter().any(|check| check.verdict == Verdict::Missing && check.what.contains("a part of it is a foreign table")), "{ahead:#?}");
        server.target.discard(&moving.get()).await.unwrap();
    })
    .await;
    let _ = std::fs::remove_dir_all(&work);
}

/// `DAYPASS_MASK_ROWS` says how many: `DAYPASS_MASK_ROWS=10000000 cargo test -p daypass-targets --test postgres -- masks::many --nocapture`.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_masked_and_compared() {
    let rows: u64 = std::env::var("DAYPASS_MASK_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(50_000);
    let work = std::env::temp_dir().join(format!("daypass-many-{}", std::process::id()));
    each(async |server| {
        prepare(server).await;
        let fill = format!(
            "SET ROLE golden_owner; CREATE TABLE sales.people (id bigint, mail text, card text, memo text); \
             INSERT INTO sales.people SELECT n, 'p' || n || '@corp.example.com', '4111-1111-' || n, repeat('x', 60) FROM generate_series(1, {rows}) n; ALTER TABLE sales.people ADD PRIMARY KEY (id)"
        );
        server.sql("golden", &fill).await;
        let mut moving = Moving::new(server, &work, 990, 1);
        let took = async |moving: &Moving| {
            let began = std::time::Instant::now();
            let report = swept(server, &work, moving, &Scripts::default()).await.unwrap();
            let took = began.elapsed();
            server.target.discard(&moving.get()).await.unwrap();
            (took, report)
        };
        let (without, _) = took(&moving).await;
        moving.env.masks = masks(r#"{"sales": {"people": {"mail": "mail"}}}"#);
        let (one, report) = took(&moving).await;
        assert!(report.contains(&format!("{rows} of {rows} rows differ")), "{report}");
        moving.env.masks = masks(r#"{"sales": {"people": {"mail": "mail", "card": {"partial": {"last": 4}}}}}"#);
        let (two, _) = took(&moving).await;
        println!(
            "{rows} rows: copy and sweep {without:.1?}, with a mask {one:.1?}, with two {two:.1?}: {:.1} M rows a minute for one",
            rows as f64 / 1e6 / (one.saturating_sub(without).as_secs_f64() / 60.0)
        );
    })
    .await;
    let _ = std::fs::remove_dir_all(&work);
}

trait Why {
    fn unwrap_err_or_empty(self) -> String;
}

impl Why for Result<(), TargetError> {
    fn unwrap_err_or_empty(self) -> String {
        self.err().map(|error| error.to_string()).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_tool_put_in_place_is_masked_and_its_role_goes() {
    let work = std::env::temp_dir().join(format!("daypass-in-place-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    let script = work.join("fill.sql");
    std::fs::write(&script, "CREATE TABLE sales.made (x int);\n").unwrap();
    each(async |server| {
        prepare(server).await;
        let mut moving = Moving::new(server, &work, 1290, 1);
        moving.names.scratch = moving.env.spec.database.clone();
        moving.env.masks = masks(r#"{"sales": {"orders": {"customer": "hash"}}}"#);
        let scripts = Scripts { run: vec![script.clone()], ..Scripts::default() };
        let report = format!("{:?}", server.target.run_scripts(&moving.get(), &scripts).await.unwrap());
        assert!(report.contains("400 of 400 rows differ"), "{report}");
        assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daypass\\_in%'").await, "0");
        assert_eq!(server.sql("uat", "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'made'").await, "uat_owner");
        assert_eq!(server.sql("uat", "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'").await, "uat_owner");
    })
    .await;
    let _ = std::fs::remove_dir_all(&work);
}
