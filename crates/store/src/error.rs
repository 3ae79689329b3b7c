//! What can go wrong with a store, in the words of somebody who runs it.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another Daypass process uses the data directory {0}. Stop it first, or give this one a directory of its own")]
    InUse(PathBuf),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} {1}. What lies in the data directory is Daypass's alone: look at how it came there, and give it a directory of its own")]
    NotOurs(PathBuf, String),
    #[error("{0} may be read by others (its mode is {1:o}). Make it private first: chmod 600")]
    OpenToOthers(PathBuf, u32),
    #[error(
        "the master key does not open this store. Give the key that it was made with (file master.key, or DAYPASS_MASTER_KEY); without it the sealed secrets cannot be read"
    )]
    WrongKey,
    #[error("the master key is not 64 hexadecimal digits")]
    MalformedKey,
    #[error("the store cannot be written: {0}. No new access is given until it can; what ends still ends")]
    CannotWrite(String),
    #[error("the log has moved on: it stands at {0}")]
    Behind(u64),
    #[error("the log is damaged: {0}. Nobody is let in on a damaged log; restore the directory from a backup")]
    Damaged(String),
    #[error("the store failed: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("the store could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}
