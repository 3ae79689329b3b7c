//! The connection that ends others whatever they hold. Whoever takes all locks that a server has room for makes every statement fail that takes
//! one ("out of shared memory", 53200), and with it all that ends access. A transaction that has taken what its statements take, before anybody
//! was let in, takes nothing more: a lock that one holds already is counted by oneself (PostgreSQL source, src/backend/storage/lmgr/README,
//! "Lock Manager Internal Locking", local lock table). It has no snapshot and no transaction number between its statements, so it keeps no
//! row from being cleaned up; whoever wants one of these tables for themselves (VACUUM FULL, REINDEX) gets it at the next look, but for accounts of
//! ours: anybody may wait for such a lock (CREATE RULE asks for it before it asks for rights), and everybody's login waits behind them. They are ended.

use crate::TargetError;
use daypass_core::plan::Backend;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Row, types::ToSql};

/// How old the transaction gets while the server has room: nobody is to wonder at one that has been open for days.
const OLD: Duration = Duration::from_secs(600);
/// How often it is looked who waits.
const OFTEN: Duration = Duration::from_secs(1);
/// Locks that a server has room for in any setting (64 for each of 100 connections are the usual ones).
const FEW: i64 = 1_000;

/// Everything that the statements below, and looking a role up, may lock; planning a question locks a table's indexes as well.
const TAKEN: &str = "BEGIN; \
    SELECT FROM pg_catalog.pg_stat_activity LIMIT 0; SELECT FROM pg_catalog.pg_roles LIMIT 0; SELECT FROM pg_catalog.pg_auth_members LIMIT 0; \
    SELECT FROM pg_catalog.pg_database LIMIT 0; SELECT FROM pg_catalog.pg_db_role_setting LIMIT 0; SELECT FROM pg_catalog.pg_proc LIMIT 0; \
    SELECT FROM pg_catalog.pg_type LIMIT 0; SELECT FROM pg_catalog.pg_class LIMIT 0; SELECT FROM pg_catalog.pg_attribute LIMIT 0; \
    SELECT FROM pg_catalog.pg_index LIMIT 0; SELECT FROM pg_catalog.pg_operator LIMIT 0; SELECT FROM pg_catalog.pg_opclass LIMIT 0; \
    SELECT FROM pg_catalog.pg_amop LIMIT 0; SELECT FROM pg_catalog.pg_amproc LIMIT 0; SELECT FROM pg_catalog.pg_am LIMIT 0; \
    SELECT FROM pg_catalog.pg_namespace LIMIT 0; SELECT FROM pg_catalog.pg_cast LIMIT 0; SELECT FROM pg_catalog.pg_rewrite LIMIT 0; \
    SELECT FROM pg_catalog.pg_collation LIMIT 0; SELECT FROM pg_catalog.pg_locks LIMIT 0; SELECT FROM pg_catalog.pg_aggregate LIMIT 0; \
    SELECT FROM pg_catalog.pg_language LIMIT 0; SELECT FROM pg_catalog.pg_opfamily LIMIT 0; SELECT FROM pg_catalog.pg_range LIMIT 0; \
    SELECT FROM pg_catalog.pg_inherits LIMIT 0; SELECT FROM pg_catalog.pg_tablespace LIMIT 0; SELECT FROM pg_catalog.pg_stats LIMIT 0; \
    SELECT FROM pg_catalog.pg_constraint LIMIT 0; SELECT FROM pg_catalog.pg_attrdef LIMIT 0";

/// Who takes one of the server's own tables for themselves, or waits for it. One of ours is ended: they have no business with it.
/// The same of one that holds on to a database as such (1262 is pg_database) or waits for it: ALTER DATABASE ... RENAME asks for the lock before it
/// asks for rights, every login to that database waits behind it, and a movement's swap waits for the least that somebody holds. A login's own
/// lock there is RowExclusive.
const STRONG: &str = "SELECT a.usename::text, CASE WHEN a.usename LIKE 'jit\\_%' THEN pg_catalog.pg_terminate_backend(a.pid) ELSE false END \
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE a.usename IS NOT NULL AND (l.locktype = 'relation' \
    AND l.relation < 16384 AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
    OR l.locktype = 'object' AND l.classid = 1262 AND l.mode <> 'RowExclusiveLock' AND a.usename LIKE 'jit\\_%')";

const LOCKS: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks";

const KILL: &str = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
    WHERE a.usename = ANY ($1) OR EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::int[])) AS t (name, pid) \
    WHERE t.pid = a.pid AND t.name = a.usename)";

/// A connection with its transaction.
pub struct Sure {
    client: Client,
    since: Instant,
    looked: Option<Instant>,
    /// The transaction is not what it was.
    broken: bool,
}

impl Sure {
    pub async fn hold(client: Client) -> Result<Sure, TargetError> {
        client.batch_execute(TAKEN).await?;
        let mut sure = Sure { client, since: Instant::now(), looked: None, broken: false };
        // what it takes to do it once is loaded
        sure.end(&[], &[]).await?;
        Ok(sure)
    }

    pub fn is_of_use(&self) -> bool {
        !self.broken && !self.client.is_closed()
    }

    /// Every connection of these accounts is told to end, and these.
    pub async fn end(&mut self, accounts: &[String], backends: &[Backend]) -> Result<(), TargetError> {
        let (names, pids): (Vec<&str>, Vec<i32>) = backends.iter().map(|backend| (backend.account.as_str(), backend.id.cast_signed())).unzip();
        let ended = self.ask(KILL, &[&accounts, &names, &pids]).await.map(drop);
        // what it did counts, whatever else fails on a server that is full
        let looked = self.look().await;
        ended.and(looked)
    }

    /// Ends whoever of ours stands in everybody's way, and gives way to anybody else who waits.
    pub async fn look(&mut self) -> Result<(), TargetError> {
        if self.looked.is_some_and(|at| at.elapsed() < OFTEN) {
            return Ok(());
        }
        let (mut others, mut ours) = (0, 0);
        for row in self.ask(STRONG, &[]).await? {
            let (account, is_ended): (&str, bool) = (row.try_get(0)?, row.try_get(1)?);
            if is_ended {
                ours += 1;
                tracing::warn!(
                    account,
                    "somebody takes one of the server's own tables or databases for themselves, and everybody's login waits behind them: their connection is ended"
                );
            } else {
                others += 1;
            }
        }
        self.looked = Some(Instant::now());
        let is_due = others > 0 || self.since.elapsed() > OLD;
        // whoever takes what becomes free is not to get this
        if is_due && ours == 0 && self.ask(LOCKS, &[]).await?.first().map_or(Ok(i64::MAX), |row| row.try_get(0))? < FEW {
            self.broken = true;
            self.client.batch_execute("COMMIT").await?;
            self.client.batch_execute(TAKEN).await?;
            (self.since, self.broken) = (Instant::now(), false);
        }
        Ok(())
    }

    /// In a part of the transaction: what fails takes nothing of the rest along.
    async fn ask(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, TargetError> {
        // inside of a transaction the server shows who is there as of its first look
        self.broken = true;
        self.client.batch_execute("SELECT pg_catalog.pg_stat_clear_snapshot(); SAVEPOINT one").await?;
        let done = self.client.query(sql, values).await;
        self.client.batch_execute(if done.is_ok() { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" }).await?;
        self.broken = false;
        Ok(done?)
    }
}
