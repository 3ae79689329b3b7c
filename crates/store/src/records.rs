//! Sessions and their statements. One task writes, many writes to a commit: whoever needs an answer gets it after the sync.

use crate::{StoreError, log::open, transaction::Transaction};
use daypass_core::{ids::*, session::*, time::Time};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use std::collections::HashMap;
use std::path::Path;
use tokio::sync::{mpsc, oneshot, watch};

/// Writes that wait for the writer. A full queue makes sessions wait; it never loses anything.
const QUEUE: usize = 1024;
/// A block has at most so many bytes: SQLite takes 1,000,000,000 in a row (Limits In SQLite, 1), and refuses more for ever.
const MOST: usize = 64 * 1024 * 1024;
/// Writes in one commit.
const BATCH: usize = 256;

/// How long statements wait for more of them before they are written.
const LINGER: std::time::Duration = std::time::Duration::from_millis(100);

enum Write {
    Open(SessionOpened, oneshot::Sender<Result<(), String>>),
    Block(StatementBlock),
    Close(SessionClosed),
    Barrier(oneshot::Sender<()>),
}

pub struct RecordStore {
    pool: SqlitePool,
    writer: mpsc::Sender<Write>,
    /// Why nothing can be written at the moment.
    failing: watch::Receiver<Option<String>>,
}

/// Which sessions, newest first.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub environment: Option<EnvironmentId>,
    pub live: bool,
    /// Who looks: their own, and all of the environments where they see who is in.
    pub reader: UserId,
    pub seen: Vec<EnvironmentId>,
    /// Only of one person, or of one account; the name may be either's.
    pub of: Option<(Option<UserId>, String)>,
    pub limit: u32,
}

/// A session, open or closed.
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub opened: SessionOpened,
    pub closed: Option<SessionClosed>,
}

impl RecordStore {
    pub(crate) async fn open(path: &Path) -> Result<RecordStore, StoreError> {
        let pool = open(path, &[(1, "records", include_str!("../migrations/records/0001_records.sql"))]).await?;
        let (writer, queue) = mpsc::channel(QUEUE);
        let (fails, failing) = watch::channel(None);
        tokio::spawn(write(pool.clone(), queue, fails));
        Ok(RecordStore { pool, writer, failing })
    }

    /// Why nothing can be written at the moment, if so.
    pub fn failing(&self) -> Option<String> {
        self.failing.borrow().clone()
    }

    /// Records that a session opened; durable when it answers. Until then no byte may pass.
    pub async fn session_opened(&self, opened: SessionOpened) -> Result<(), StoreError> {
        let (answer, done) = oneshot::channel();
        self.writer.send(Write::Open(opened, answer)).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?.map_err(StoreError::CannotWrite)
    }

    /// Takes a block of statements. Waits when the queue is full, and while nothing can be written: what runs meanwhile could be lost.
    pub async fn statements(&self, block: StatementBlock) -> Result<(), StoreError> {
        if block.lines.len() > MOST {
            return Err(StoreError::CannotWrite(format!("a block of {} bytes is more than is written at once", block.lines.len())));
        }
        self.failing.clone().wait_for(Option::is_none).await.map_err(|_| stopped())?;
        self.writer.send(Write::Block(block)).await.map_err(|_| stopped())
    }

    /// Records the end of a session. Waits when the queue is full.
    pub async fn session_closed(&self, closed: SessionClosed) -> Result<(), StoreError> {
        self.writer.send(Write::Close(closed)).await.map_err(|_| stopped())
    }

    /// All writes handed over before this are durable when it answers.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (answer, done) = oneshot::channel();
        self.writer.send(Write::Barrier(answer)).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())
    }

    /// Sessions that a process left open when it died: closed now, with the reason.
    pub async fn close_orphans(&self, at: Time) -> Result<u64, StoreError> {
        let rows = sqlx::query("SELECT opened, closed FROM sessions WHERE closed_at IS NULL").fetch_all(&self.pool).await?;
        for row in &rows {
            let opened = session_row(row)?.opened;
            let closed = SessionClosed {
                session: opened.session,
                at,
                why: "the gateway was lost".to_owned(),
                bytes_from_client: 0,
                bytes_to_client: 0,
                statements: 0,
                digest: String::new(),
            };
            self.session_closed(closed).await?;
        }
        self.flush().await?;
        Ok(rows.len() as u64)
    }

    /// Sessions that somebody looks for, newest first.
    pub async fn find(&self, wanted: &Wanted) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT opened, closed FROM sessions \
             WHERE ($1 IS NULL OR environment = $1) AND (NOT $2 OR closed_at IS NULL) \
             AND (opened->>'$.holder' = $3 OR environment IN (SELECT value FROM json_each($4))) \
             AND ($5 IS NULL OR opened->>'$.holder' = $5 OR opened->>'$.account' = $6) \
             ORDER BY opened_at DESC LIMIT $7",
        )
        .bind(wanted.environment.map(|id| id.to_string()))
        .bind(wanted.live)
        .bind(wanted.reader.to_string())
        .bind(serde_json::to_string(&wanted.seen).unwrap_or_default())
        .bind(wanted.of.as_ref().map(|(holder, _)| holder.map(|id| id.to_string()).unwrap_or_default()))
        .bind(wanted.of.as_ref().map(|(_, account)| account.clone()))
        .bind(wanted.limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(session_row).collect()
    }

    /// How many sessions each of these passes has had; one without any is left out.
    pub async fn count(&self, passes: &[PassId]) -> Result<HashMap<PassId, usize>, StoreError> {
        let wanted = serde_json::to_string(passes).unwrap_or_default();
        let rows = sqlx::query("SELECT pass, COUNT(*) FROM sessions WHERE pass IN (SELECT value FROM json_each($1)) GROUP BY pass").bind(wanted);
        let rows = rows.fetch_all(&self.pool).await?;
        let read = |row: &SqliteRow| Ok((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)? as usize));
        let counted: Vec<(String, usize)> = rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?;
        Ok(counted.into_iter().filter_map(|(pass, count)| Some((pass.parse().ok()?, count))).collect())
    }

    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
        let row = sqlx::query("SELECT opened, closed FROM sessions WHERE id = $1").bind(id.to_string()).fetch_optional(&self.pool).await?;
        row.as_ref().map(session_row).transpose()
    }

    /// The next statement blocks of a session, in order, that hold a statement of this number or a later one. Not all of them: a session may
    /// have gigabytes.
    pub async fn blocks(&self, session: SessionId, from: u64) -> Result<Vec<StatementBlock>, StoreError> {
        let rows = sqlx::query("SELECT first, count, lines FROM statement_blocks WHERE session = $1 AND first + count > $2 ORDER BY first LIMIT 8")
            .bind(session.to_string())
            .bind(from.min(i64::MAX as u64) as i64)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok(StatementBlock { session, first: row.try_get::<i64, _>(0)? as u64, count: row.try_get::<i64, _>(1)? as u32, lines: row.try_get(2)? }))
            .collect()
    }
}

fn stopped() -> StoreError {
    StoreError::CannotWrite("the writer of the records has stopped".to_owned())
}

fn session_row(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    let damaged = |e: serde_json::Error| StoreError::Damaged(format!("a session record cannot be read: {e}"));
    let opened = serde_json::from_str(row.try_get(0)?).map_err(damaged)?;
    let closed = row.try_get::<Option<&str>, _>(1)?.map(serde_json::from_str).transpose().map_err(damaged)?;
    Ok(SessionRow { opened, closed })
}

/// The one writer. What it writes may be written twice: a commit that failed may have reached the disk. A batch that cannot be written fails its opens (so nobody gets in) and is tried again for the rest.
async fn write(pool: SqlitePool, mut queue: mpsc::Receiver<Write>, failing: watch::Sender<Option<String>>) {
    let mut batch = Vec::with_capacity(BATCH);
    'next: while queue.recv_many(&mut batch, BATCH).await > 0 {
        gather(&mut batch, &mut queue).await;
        while let Err(error) = commit(&pool, &batch).await {
            tracing::error!(%error, "records cannot be written; sessions wait");
            failing.send_replace(Some(error.to_string()));
            for waiting in batch.extract_if(.., |write| matches!(write, Write::Open(..))) {
                if let Write::Open(_, answer) = waiting {
                    let _ = answer.send(Err(error.to_string()));
                }
            }
            if batch.is_empty() {
                continue 'next;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        failing.send_if_modified(|why| why.take().is_some());
        for write in batch.drain(..) {
            match write {
                Write::Open(_, answer) => drop(answer.send(Ok(()))),
                Write::Barrier(answer) => drop(answer.send(())),
                Write::Block(_) | Write::Close(_) => {}
            }
        }
    }
}

/// Nobody waits for statements to be written, so they wait for each other: fewer commits, fewer syncs.
async fn gather(batch: &mut Vec<Write>, queue: &mut mpsc::Receiver<Write>) {
    let deadline = tokio::time::Instant::now() + LINGER;
    let is_awaited = |write: &Write| matches!(write, Write::Open(..) | Write::Barrier(..));
    while batch.len() < BATCH && !batch.iter().any(is_awaited) {
        let room = BATCH - batch.len();
        if !matches!(tokio::time::timeout_at(deadline, queue.recv_many(batch, room)).await, Ok(1..)) {
            return;
        }
    }
}

async fn commit(pool: &SqlitePool, batch: &[Write]) -> Result<(), sqlx::Error> {
    let mut tx = if batch.len() == 1 { Transaction::of_one_statement(pool).await? } else { Transaction::begin(pool).await? };
    for write in batch {
        insert(tx.connection(), write).await?;
    }
    tx.commit().await
}

async fn insert(tx: &mut SqliteConnection, write: &Write) -> Result<(), sqlx::Error> {
    let json = |e: serde_json::Error| sqlx::Error::Encode(Box::new(e));
    match write {
        Write::Open(opened, _) => {
            sqlx::query("INSERT INTO sessions (id, pass, environment, opened_at, opened) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
                .bind(opened.session.to_string())
                .bind(opened.pass.to_string())
                .bind(opened.environment.to_string())
                .bind(opened.at.micros())
                .bind(serde_json::to_string(opened).map_err(json)?)
                .execute(tx)
                .await?;
        }
        Write::Block(block) => {
            sqlx::query("INSERT INTO statement_blocks (session, first, count, lines) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
                .bind(block.session.to_string())
                .bind(block.first as i64)
                .bind(i64::from(block.count))
                .bind(block.lines.as_slice())
                .execute(tx)
                .await?;
        }
        Write::Close(closed) => {
            sqlx::query("UPDATE sessions SET closed_at = $2, closed = $3 WHERE id = $1")
                .bind(closed.session.to_string())
                .bind(closed.at.micros())
                .bind(serde_json::to_string(closed).map_err(json)?)
                .execute(tx)
                .await?;
        }
        Write::Barrier(_) => {}
    }
    Ok(())
}
