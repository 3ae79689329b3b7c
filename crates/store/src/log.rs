//! The log and the sealed secrets: written together, in one transaction, by one writer.

use crate::{
    StoreError,
    seal::{MasterKey, Sealer},
    transaction::Transaction,
};
use daypass_core::{
    chain::{self, Head},
    event::Entry,
    secret::Secret,
};
use sqlx::{
    Row, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::path::Path;

/// The sealed data key lies among the secrets.
const DATA_KEY: &str = "data key";

/// A change to the secrets that belongs to the same step as some events.
pub enum Change {
    Put { id: String, secret: Secret },
    Erase { id: String },
}

pub struct LogStore {
    pool: SqlitePool,
    sealer: Sealer,
}

/// Opens a SQLite file the way all of ours are opened.
pub(crate) async fn open(path: &Path, migrations: &[(i64, &'static str, &'static str)]) -> Result<SqlitePool, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(std::time::Duration::from_secs(5))
        .foreign_keys(true)
        .pragma("secure_delete", "ON");
    let pool = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false).connect_with(options).await?;
    let migrations =
        migrations.iter().map(|(version, name, sql)| Migration::new(*version, (*name).into(), MigrationType::Simple, sqlx::SqlStr::from_static(sql), false));
    Migrator::with_migrations(migrations.collect()).run(&pool).await?;
    Ok(pool)
}

impl LogStore {
    pub(crate) async fn open(path: &Path, key: &MasterKey) -> Result<LogStore, StoreError> {
        let pool = open(path, &[(1, "log", include_str!("../migrations/log/0001_log.sql"))]).await?;
        let known = sqlx::query("SELECT sealed FROM secrets WHERE id = $1").bind(DATA_KEY).fetch_optional(&pool).await?;
        let sealer = match known {
            Some(row) => Sealer::unlock(key, &row.try_get::<Vec<u8>, _>(0)?)?,
            None => {
                let (sealer, sealed) = Sealer::create(key)?;
                sqlx::query("INSERT INTO secrets (id, sealed) VALUES ($1, $2)").bind(DATA_KEY).bind(sealed).execute(&pool).await?;
                sealer
            }
        };
        Ok(LogStore { pool, sealer })
    }

    /// Appends entries after `expected` and changes secrets, all or nothing; durable when it answers.
    pub async fn append(&self, expected: Head, entries: &[Entry], changes: &[Change]) -> Result<Head, StoreError> {
        let mut tx = Transaction::begin(&self.pool).await.map_err(cannot_write)?;
        let last: Option<i64> = sqlx::query("SELECT max(seq) FROM log").fetch_one(tx.connection()).await?.try_get(0)?;
        let last = last.unwrap_or_default() as u64;
        if last != expected.seq {
            return Err(StoreError::Behind(last));
        }
        let mut head = expected;
        for entry in entries {
            let (line, hash) = chain::seal(entry, &head.hash);
            head = Head { seq: entry.seq, hash };
            sqlx::query("INSERT INTO log (seq, line) VALUES ($1, $2)")
                .bind(entry.seq as i64)
                .bind(line)
                .execute(tx.connection())
                .await
                .map_err(cannot_write)?;
        }
        for change in changes {
            match change {
                Change::Put { id, secret } => {
                    let sealed = self.sealer.seal(id, secret.expose().as_bytes())?;
                    sqlx::query("INSERT INTO secrets (id, sealed) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed")
                        .bind(id)
                        .bind(sealed)
                        .execute(tx.connection())
                        .await
                        .map_err(cannot_write)?;
                }
                Change::Erase { id } => {
                    sqlx::query("DELETE FROM secrets WHERE id = $1").bind(id).execute(tx.connection()).await.map_err(cannot_write)?;
                }
            }
        }
        tx.commit().await.map_err(cannot_write)?;
        if changes.iter().any(|change| matches!(change, Change::Erase { .. })) {
            self.forget_pages().await;
        }
        Ok(head)
    }

    /// What was erased lies in the write-ahead log until that is written back and begun anew (SQLite, "PRAGMA wal_checkpoint", TRUNCATE). It is sealed
    /// there as well; a look that cannot be made now is made at the next erasure.
    async fn forget_pages(&self) {
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await {
            tracing::debug!(%error, "the write-ahead log could not be begun anew");
        }
    }

    /// Up to `limit` lines after number `after`, in order.
    pub async fn read(&self, after: u64, limit: u32) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT line FROM log WHERE seq > $1 ORDER BY seq LIMIT $2").bind(after as i64).bind(limit).fetch_all(&self.pool).await?;
        rows.into_iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// A secret in clear.
    /// The lines of these numbers, newest first.
    pub async fn lines(&self, numbers: &[u64]) -> Result<Vec<String>, StoreError> {
        let wanted = serde_json::to_string(numbers).unwrap_or_default();
        let rows = sqlx::query_scalar("SELECT line FROM log WHERE seq IN (SELECT value FROM json_each($1)) ORDER BY seq DESC").bind(wanted);
        Ok(rows.fetch_all(&self.pool).await?)
    }

    pub async fn secret(&self, id: &str) -> Result<Option<Secret>, StoreError> {
        let row = sqlx::query("SELECT sealed FROM secrets WHERE id = $1").bind(id).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let clear = self.sealer.open(id, &row.try_get::<Vec<u8>, _>(0)?)?;
        let text = std::str::from_utf8(&clear).map_err(|_| StoreError::Damaged(format!("the secret {id} is not text")))?;
        Ok(Some(Secret::new(text)))
    }
}

fn cannot_write(error: sqlx::Error) -> StoreError {
    StoreError::CannotWrite(error.to_string())
}
