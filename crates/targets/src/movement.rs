//! What a movement asks of a target, and how far it is.

use crate::{AnyTarget, TargetError};
use daypass_core::{
    environment::Environment,
    movement::{Kept, Names},
    names::DatabaseName,
    time::Time,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Where the programs of the engine lie, and where they may put things.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// The folder of `pg_dump`, `pg_restore` and `psql`; none: the newest that is installed.
    pub postgres: Option<PathBuf>,
    /// Microsoft's sqlpackage; none: the one on the path.
    pub sqlpackage: Option<PathBuf>,
    /// The operator says that nobody else is on this machine who could read the arguments of a program.
    pub alone: bool,
    /// How many tables are copied at once. With one, the copy goes through a pipe and needs no room.
    pub jobs: u16,
    /// A private folder, for this movement alone. It is gone afterwards.
    pub work: PathBuf,
}

/// Where the new database comes from.
pub enum Source<'a> {
    /// Another environment's.
    Database { target: &'a AnyTarget, database: &'a DatabaseName, same_server: bool },
    /// A server that the operator's command brought up: parameters as libpq names them.
    Server(BTreeMap<String, String>),
    /// A dump.
    File(&'a Path),
}

/// One movement, as the target sees it.
pub struct Move<'a> {
    pub environment: &'a Environment,
    pub names: &'a Names,
    pub tools: &'a Tools,
    pub progress: &'a Progress,
}

impl Move<'_> {
    /// Under which name an export is written until it is whole; no two movements share one.
    pub fn part(&self, file: &Path) -> PathBuf {
        file.with_file_name(format!("{}.part", self.names.role))
    }
}

/// How far it is. Numbers only grow within a phase; a total of 0 is not known.
pub struct Progress {
    pub bytes: AtomicU64,
    pub total_bytes: AtomicU64,
    pub objects: AtomicU64,
    pub total_objects: AtomicU64,
    pub began: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Progress { bytes: zero(), total_bytes: zero(), objects: zero(), total_objects: zero(), began: Instant::now() }
    }
}

impl Progress {
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn expect(&self, bytes: u64, objects: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
        self.total_objects.store(objects, Ordering::Relaxed);
    }

    pub fn another_object(&self) {
        self.objects.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts again from nothing: another way is tried.
    pub fn reset(&self) {
        for number in [&self.bytes, &self.total_bytes, &self.objects, &self.total_objects] {
            number.store(0, Ordering::Relaxed);
        }
    }
}

/// Where a movement stands that was interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The database is the one of before.
    Old,
    /// The new one has taken its place.
    New,
}

/// What is put aside by a movement, and until when.
pub fn kept(names: &Names, until: Option<Time>) -> Option<Kept> {
    until.map(|until| Kept { database: names.old.clone(), until })
}

pub(crate) fn not_here<T>() -> Result<T, TargetError> {
    Err(TargetError::Refused("Daypass cannot move databases of this engine by itself; use `daypass move ENV external begin`".to_owned()))
}
