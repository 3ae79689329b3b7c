//! What a movement asks of a target, and how far it is.

use crate::{AnyTarget, TargetError};
use daypass_core::{
    environment::Environment,
    movement::{Names, Swept},
    names::DatabaseName,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};
use zeroize::Zeroizing;

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

/// What values are masked with, and whether that has to be complete.
#[derive(Clone)]
pub struct Masking {
    pub key: MaskKey,
    /// What looks personal has to be declared, unless there are checks that look at the copy.
    pub required: bool,
}

/// A key of this installation, from which those of projects follow, from which it follows what a value becomes.
#[derive(Clone)]
pub struct MaskKey(Zeroizing<[u8; 32]>);

impl MaskKey {
    pub fn new(key: [u8; 32]) -> MaskKey {
        MaskKey(Zeroizing::new(key))
    }

    /// The inner and the outer block of HMAC with SHA-256 and the key of a project (RFC 2104, section 2), in hexadecimal.
    pub(crate) fn pads(&self, project: uuid::Uuid) -> (Zeroizing<String>, Zeroizing<String>) {
        let key = Zeroizing::new(<[u8; 32]>::from(Sha256::new().chain_update(self.0.as_slice()).chain_update(project.as_bytes()).finalize()));
        let pad = |with: u8| {
            let bytes = key.iter().copied().chain([0; 32]).map(|byte| byte ^ with);
            Zeroizing::new(bytes.fold(String::with_capacity(128), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }))
        };
        (pad(0x36), pad(0x5c))
    }
}

impl std::fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskKey(…)")
    }
}

/// One movement, as the target sees it.
pub struct Move<'a> {
    pub environment: &'a Environment,
    pub names: &'a Names,
    pub tools: &'a Tools,
    pub masking: &'a Masking,
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

/// The operator's scripts for one environment.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    /// Change what is in the copy, in this order.
    pub run: Vec<PathBuf>,
    /// Look at it afterwards: each row that one gives is a failure.
    pub checks: Vec<PathBuf>,
    /// What lies beside them and does not run, and why.
    pub skipped: Vec<Swept>,
}

/// The folder, beside the scripts, of those that look at the copy.
pub const CHECKS: &str = "checks";

impl Scripts {
    /// All that lies in a folder; there need be none. What cannot be read is no script that is left out, but an error.
    pub fn in_folder(folder: &Path) -> Result<Scripts, TargetError> {
        let mut scripts = Scripts::default();
        for path in entries(folder)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name == CHECKS {
                for path in entries(&path)? {
                    if is_script(&path) { scripts.checks.push(path) } else { scripts.skip(format!("{CHECKS}/{}", file_name(&path)), &path) }
                }
            } else if is_script(&path) {
                scripts.run.push(path);
            } else {
                scripts.skip(name, &path);
            }
        }
        Ok(scripts)
    }

    pub fn is_empty(&self) -> bool {
        self.run.is_empty() && self.checks.is_empty()
    }

    /// As people read them, in the order in which they run.
    pub fn names(&self) -> Vec<String> {
        let checks = self.checks.iter().map(|path| format!("{CHECKS}/{}", file_name(path)));
        self.run.iter().map(|path| file_name(path)).chain(checks).collect()
    }

    fn skip(&mut self, name: String, path: &Path) {
        let why = if path.is_dir() { "a folder" } else { "its name does not end in .sql" };
        self.skipped.push(Swept { what: format!("{name}, beside the scripts"), done: format!("did NOT run: {why}") });
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// By its name alone: one that cannot be read, a link that leads nowhere, is an error, and not left out.
fn is_script(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("sql"))
}

/// What lies in a folder, in the order of names; nothing, when there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, TargetError> {
    let cannot = |e: std::io::Error| TargetError::Refused(format!("the scripts in {} cannot be read: {e}", folder.display()));
    let mut found = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && std::fs::symlink_metadata(folder).is_err() => Vec::new(),
        read => read.map_err(cannot)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(cannot)?,
    };
    // what an editor leaves behind is nobody's script
    found.retain(|path| !file_name(path).starts_with('.') && !file_name(path).ends_with('~'));
    found.sort();
    for path in found.iter().filter(|path| is_script(path)) {
        let cannot = |e: std::io::Error| TargetError::Refused(format!("the script {} cannot be read: {e}", path.display()));
        let meta = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(cannot)?;
        if !meta.is_file() {
            return Err(TargetError::Refused(format!("{} has the name of a script and is none", path.display())));
        }
    }
    Ok(found)
}

/// Where a movement stands that was interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The database is the one of before.
    Old,
    /// The new one has taken its place.
    New,
}

pub(crate) fn not_here<T>() -> Result<T, TargetError> {
    Err(TargetError::Refused("Daypass cannot move databases of this engine by itself; use `daypass move ENV external begin`".to_owned()))
}
