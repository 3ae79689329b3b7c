//! Removing an account. The order is fixed by what PostgreSQL does: a session outlives NOLOGIN, DROP OWNED waits behind the
//! account's own locks, DROP ROLE fails while it owns anything in any database.

use super::{MAINTENANCE, Postgres, estate};
use crate::{Estate, Taken, TargetError};
use daypass_core::plan::Backend;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, error::SqlState};

/// How long its connections get to end after they were told to.
const PATIENCE: Duration = Duration::from_secs(5);

const KILL: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = ANY($1)";

/// Other accounts of ours that hold on to a role, which is to go.
const HOLDERS: &str = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND l.objid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) \
    AND l.granted AND a.usename LIKE 'jit\\_%' AND a.usename <> $1";

/// How often a statement on a role is tried again that its account changes from inside in the same moment ("tuple concurrently updated").
const TURNS: usize = 300;

/// Alters a role, also while somebody alters it from inside in a loop: what they do cannot be kept from them, but it has to come to an end.
pub async fn alter(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    let mut done = client.batch_execute(sql).await;
    for _ in 0..TURNS {
        match &done {
            Err(error) if error.code() == Some(&SqlState::INTERNAL_ERROR) => done = client.batch_execute(sql).await,
            _ => break,
        }
    }
    done
}

/// Nobody is in with these accounts any more, they cannot log in, and they have lost their groups: what they left runs with no rights. In this
/// order: what can be done whatever a session of theirs holds on to comes first. All are tried; the first failure is told.
pub async fn shut(target: &Postgres, client: &Client, accounts: &[String], backends: &[Backend]) -> Result<(), TargetError> {
    if !accounts.is_empty() {
        client.query(KILL, &[&accounts]).await?;
    }
    let mut all = Ok(());
    if !backends.is_empty() {
        // the account's name stands beside the pid: a pid that was given away again is somebody else
        let (names, pids): (Vec<&str>, Vec<i32>) = backends.iter().map(|backend| (backend.account.as_str(), backend.id.cast_signed())).unzip();
        let kill = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
                    JOIN ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::int[])) AS t (name, pid) ON t.pid = a.pid AND t.name = a.usename";
        all = client.query(kill, &[&names, &pids]).await.map(drop).map_err(TargetError::from);
    }
    if accounts.is_empty() {
        return all;
    }
    let groups = "SELECT pg_catalog.format('REVOKE %I FROM %I', g.rolname, r.rolname) FROM pg_catalog.pg_auth_members m \
                  JOIN pg_catalog.pg_roles r ON r.oid = m.member JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE r.rolname = ANY($1)";
    for row in client.query(groups, &[&accounts]).await? {
        all = all.and(but_for_the_missing(client.batch_execute(row.try_get(0)?).await));
    }
    all = all.and(let_go(target, client, accounts).await);
    for account in accounts {
        all = all.and(but_for_the_missing(alter(client, &format!("ALTER ROLE {} NOLOGIN", escape_identifier(account))).await));
    }
    // a login that was under way while we locked
    client.query(KILL, &[&accounts]).await?;
    all
}

/// Ends every connection of a role.
pub async fn kill_all(client: &Client, role: &str) -> Result<(), TargetError> {
    client.query(KILL, &[&[role].as_slice()]).await?;
    Ok(())
}

/// Nobody is in with an account, and it cannot log in; its groups stay. For one whose door does not close otherwise.
pub async fn evict(target: &Postgres, client: &Client, account: &str) -> Result<(), TargetError> {
    let account = [account.to_owned()];
    client.query(KILL, &[&account.as_slice()]).await?;
    let_go(target, client, &account).await?;
    but_for_the_missing(alter(client, &format!("ALTER ROLE {} NOLOGIN", escape_identifier(&account[0]))).await)?;
    client.query(KILL, &[&account.as_slice()]).await?;
    Ok(())
}

/// One step of giving an account that others use the password of the vault, when somebody who is in changes it all the time and knocks anew
/// with theirs. As long as anybody of them is in, or has begun to log in, what they do may come behind what we do. So nobody gets in first; then
/// nobody is in but `ours` (pids); then whoever had begun to log in before has come to an end; and only then the account may log in again.
pub async fn take_back(
    target: &Postgres,
    client: &Client,
    account: &str,
    verifier: &str,
    ours: &[u32],
    waiting: &mut Option<Vec<u32>>,
) -> Result<Taken, TargetError> {
    let (role, verifier) = (escape_identifier(account), escape_literal(verifier));
    if waiting.is_none() {
        let shut = format!("ALTER ROLE {role} NOLOGIN PASSWORD {verifier}");
        if let Err(error) = alter(client, &shut).await {
            if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
                return Err(error.into());
            }
            // something that was prepared as this account, or somebody who is in, holds on to it; who comes in meanwhile is put out in any case
            let let_go = let_go(target, client, &[account.to_owned()]).await;
            kill_all(client, account).await?;
            let_go?;
            alter(client, &shut).await?;
        }
    }
    let ours: Vec<i32> = ours.iter().map(|pid| pid.cast_signed()).collect();
    let kill = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1 AND pid <> ALL ($2)";
    if !client.query(kill, &[&account, &ours]).await?.is_empty() {
        // until it is gone it may change the password once more
        *waiting = None;
        return Ok(Taken::NotYet);
    }
    // who is logging in has a transaction, and no name and no database yet (an autovacuum worker has one): it may have been given the salt of the other password, and have a while to answer
    let beginning = "SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                     WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL AND a.usename IS NULL AND a.datname IS NULL";
    let rows = client.query(beginning, &[]).await?;
    let beginning: Vec<u32> = rows.iter().map(|row| Ok(row.try_get::<_, i32>(0)?.cast_unsigned())).collect::<Result<_, tokio_postgres::Error>>()?;
    let left = waiting.take().map_or_else(|| beginning.clone(), |before| before.into_iter().filter(|pid| beginning.contains(pid)).collect());
    if !left.is_empty() {
        *waiting = Some(left);
        return Ok(Taken::NotYet);
    }
    // of those that had begun, one may have come in by now
    if !client.query(kill, &[&account, &ours]).await?.is_empty() {
        return Ok(Taken::NotYet);
    }
    alter(client, &format!("ALTER ROLE {role} LOGIN PASSWORD {verifier}")).await?;
    Ok(Taken::Back)
}

/// Rolls back what these roles, or whoever became one of our groups, have prepared that holds on to a role: it would be in the way of locking them, for as long as it is there. What else
/// they prepared is the clean-up's, which puts it on record.
pub async fn let_go(target: &Postgres, client: &Client, roles: &[String]) -> Result<(), TargetError> {
    // a prepared transaction has no process; that its number is locked shows which locks are its own (PostgreSQL manual, "pg_locks")
    let look = "SELECT x.gid, x.database::text, x.owner::text FROM pg_catalog.pg_prepared_xacts x WHERE (x.owner = ANY($1) OR x.owner LIKE 'daypass\\_%') \
                AND EXISTS (SELECT FROM pg_catalog.pg_locks t JOIN pg_catalog.pg_locks l ON l.virtualtransaction = t.virtualtransaction \
                WHERE t.locktype = 'transactionid' AND t.transactionid = x.transaction AND t.pid IS NULL AND l.pid IS NULL \
                AND l.relation = 'pg_catalog.pg_authid'::pg_catalog.regclass)";
    for row in client.query(look, &[&roles]).await? {
        let (gid, database, owner): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        tracing::warn!(%owner, %gid, %database, "a prepared transaction that holds on to its own role is rolled back");
        roll_back_in(target, client, &database, &owner, &gid).await?;
    }
    Ok(())
}

/// In the database that it was prepared in, also when whoever owns that database has closed it: it is opened for that moment.
async fn roll_back_in(target: &Postgres, client: &Client, database: &str, owner: &str, gid: &str) -> Result<(), TargetError> {
    let refused = match target.connect_to_clean(database).await {
        Ok(inside) => return estate::roll_back(&inside, owner, gid).await,
        Err(error @ TargetError::Refused(_)) => error,
        Err(error) => return Err(error),
    };
    let closed = "SELECT datconnlimit, datallowconn FROM pg_catalog.pg_database WHERE datname = $1 AND (datconnlimit <> -1 OR NOT datallowconn)";
    let Some(row) = client.query_opt(closed, &[&database]).await? else { return Err(refused) };
    let (limit, allowed): (i32, bool) = (row.try_get(0)?, row.try_get(1)?);
    let set = |limit: i32, allowed: bool| format!("ALTER DATABASE {} WITH CONNECTION LIMIT {limit} ALLOW_CONNECTIONS {allowed}", escape_identifier(database));
    alter(client, &set(-1, true)).await?;
    let done = match target.connect(database).await {
        Ok(inside) => estate::roll_back(&inside, owner, gid).await,
        Err(error) => Err(error),
    };
    alter(client, &set(limit, allowed)).await?;
    done
}

/// An account that is gone by now needs nothing.
pub fn but_for_the_missing(done: Result<(), tokio_postgres::Error>) -> Result<(), TargetError> {
    match done {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
        done => Ok(done?),
    }
}

/// The same steps as SQL, for somebody who has to do them by hand.
pub fn by_hand(account: &str, database: &str, heir: Option<&str>) -> String {
    let (role, database) = (escape_identifier(account), escape_identifier(database));
    let heir = heir.map_or_else(|| "a role without rights".to_owned(), escape_identifier);
    format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {literal};\n\
         -- each of these, in its database, as the account (SET ROLE) or a superuser; before the next line, which may wait for one of them:\n\
         SELECT format('ROLLBACK PREPARED %L', gid), database FROM pg_prepared_xacts WHERE owner = {literal};\n\
         ALTER ROLE {role} NOLOGIN;\n\
         -- whoever is no superuser needs this; from PostgreSQL 16 on WITH INHERIT TRUE, SET TRUE\n\
         GRANT {role} TO CURRENT_USER;\n\
         -- in each database in which it owns something, first of all {database}. Look at what it owns before: functions, views, triggers and\n\
         -- whatever else runs are to be dropped, never given to somebody, whose rights they would run with\n\
         DROP OWNED BY {role};  -- or, for plain tables that are to stay: REASSIGN OWNED BY {role} TO {heir};\n\
         DROP ROLE {role};",
        literal = escape_literal(account)
    )
}

pub async fn remove(target: &Postgres, account: &str, estate: Estate<'_>) -> Result<(), TargetError> {
    // a connection of its own: waiting for sessions to end must not hold up other work on this target
    let server = target.connect(MAINTENANCE).await?;
    let Some(places) = lock_and_kill(target, &server, account).await? else { return Ok(()) };
    for database in places {
        let client = target.connect_to_clean(&database).await?;
        estate::settle(&client, account, estate).await?;
    }
    if estate::has_cron(&server).await? {
        // whoever is no superuser sees its own jobs only; a job whose role is gone does not run
        let unscheduled = server.query("SELECT cron.unschedule(jobid) FROM cron.job WHERE username = $1", &[&account]).await;
        if let Err(error) = unscheduled {
            tracing::warn!(account, %error, "the jobs of an account could not be removed; without its role they do not run");
        }
    }
    server.batch_execute(&format!("DROP ROLE IF EXISTS {}", escape_identifier(account))).await?;
    Ok(())
}

/// No login any more, no connection any more. Gives the databases in which the account has something; none: it is gone.
pub async fn lock_and_kill(target: &Postgres, client: &Client, account: &str) -> Result<Option<Vec<String>>, TargetError> {
    if client.query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&account]).await?.is_none() {
        return Ok(None);
    }
    evict(target, client, account).await?;
    // what another account of ours gives to this one in a transaction that it leaves open
    client.query(HOLDERS, &[&account]).await?;
    let deadline = Instant::now() + PATIENCE;
    // a login that was under way while we locked shows up a moment later: two empty looks, not one
    let mut empty = 0;
    while empty < 2 {
        let kill = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
        if client.query(kill, &[&account]).await?.is_empty() {
            empty += 1;
        } else {
            empty = 0;
            if Instant::now() > deadline {
                return Err(TargetError::StillConnected);
            }
        }
        if empty < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let places = "SELECT DISTINCT d.datname::text FROM pg_catalog.pg_shdepend s \
                  JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass \
                  JOIN pg_catalog.pg_database d ON d.oid = s.dbid OR (s.dbid = 0 AND s.classid = 'pg_catalog.pg_database'::regclass AND d.oid = s.objid) \
                  WHERE r.rolname = $1 AND d.datallowconn \
                  UNION SELECT database::text FROM pg_catalog.pg_prepared_xacts WHERE owner = $1";
    let rows = client.query(places, &[&account]).await?;
    Ok(Some(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?))
}
