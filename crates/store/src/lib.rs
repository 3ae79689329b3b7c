//! Our records. `log.db` holds the log and the sealed secrets, `records.db` the sessions and their statements: two files,
//! so that traffic never holds up the log. Both are SQLite with a write-ahead log and full sync.
//!
//! Nothing here decides anything: the log is written by one writer that says which head it has seen, and read by everybody.

mod error;
mod files;
mod log;
mod records;
mod seal;
mod transaction;

pub use error::StoreError;
pub use log::{Change, LogStore};
pub use records::{RecordStore, SessionRow, Wanted};
pub use seal::MasterKey;

use std::path::Path;

/// Both stores of a data directory, which nobody else has open.
pub struct Store {
    pub log: LogStore,
    pub records: RecordStore,
    /// Held as long as the store is open: a second process on the same directory is refused.
    _lock: std::fs::File,
}

impl Store {
    /// Opens (or makes) the stores in `directory`. `key` comes from the environment; none: from `master.key` in there.
    pub async fn open(directory: &Path, key: Option<MasterKey>) -> Result<Store, StoreError> {
        files::private_directory(directory)?;
        // the CA is for everybody to know; a key that others could read is refused, not closed: they may have read it
        files::only_ours(directory, &["ca.pem", "master.key"])?;
        let lock = files::lock(directory)?;
        let key = match key {
            Some(key) => key,
            None => seal::key_file(directory)?,
        };
        for name in ["log.db", "records.db"] {
            files::private_file(&directory.join(name))?;
        }
        let log = LogStore::open(&directory.join("log.db"), &key).await?;
        let records = RecordStore::open(&directory.join("records.db")).await?;
        Ok(Store { log, records, _lock: lock })
    }
}
