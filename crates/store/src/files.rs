//! The data directory: private, and used by one process.

use crate::StoreError;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

pub fn at(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { path, source }
}

/// Made when it is not there. One that others can look into is closed to them: what lies in it is nobody else's to read.
pub fn private_directory(directory: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at(directory))?;
    let mode = fs::metadata(directory).map_err(at(directory))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode & 0o700)).map_err(at(directory))?;
        tracing::warn!(directory = %directory.display(), mode = format!("{mode:o}"), "the data directory was open to others; it is closed now");
    }
    Ok(())
}

/// What lies in the directory is ours: nobody else's files, no links to files elsewhere, and readable by nobody else. Folders in it are the
/// operator's (dumps, scripts) and are left alone; so is the mode of `others`.
pub fn only_ours(directory: &Path, others: &[&str]) -> Result<(), StoreError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let me = rustix::process::geteuid().as_raw();
    let belongs = |path: &Path, owner: u32| match owner == me {
        true => Ok(()),
        false => Err(StoreError::NotOurs(path.to_owned(), format!("belongs to the user with number {owner}, and this process runs as number {me}"))),
    };
    belongs(directory, fs::metadata(directory).map_err(at(directory))?.uid())?;
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        let is = fs::symlink_metadata(&path).map_err(at(&path))?;
        if is.is_symlink() {
            if !fs::metadata(&path).is_ok_and(|there| there.is_dir()) {
                return Err(StoreError::NotOurs(path, "is a link to a file elsewhere".to_owned()));
            }
            continue;
        }
        if !is.is_file() {
            use std::os::unix::fs::FileTypeExt;
            // whoever opens a pipe waits for its other end
            if is.is_dir() || is.file_type().is_socket() {
                continue;
            }
            return Err(StoreError::NotOurs(path, "is no ordinary file".to_owned()));
        }
        belongs(&path, is.uid())?;
        if is.mode() & 0o077 != 0 && !others.iter().any(|name| path.ends_with(name)) {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// A file that is about to be a database: what SQLite makes beside it has its mode.
pub fn private_file(path: &Path) -> Result<(), StoreError> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop).map_err(at(path))
}

/// The lock goes with the process, however it ends.
pub fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(at(&path)(source)),
    }
}

/// Writes a new file that only its owner can read; an existing one is an error.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    use std::io::Write;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(at(path))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(at(parent))
}

pub fn read_private(path: &Path) -> Result<String, StoreError> {
    use std::os::unix::fs::MetadataExt;
    let mode = fs::metadata(path).map_err(at(path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::OpenToOthers(path.to_owned(), mode));
    }
    fs::read_to_string(path).map_err(at(path))
}
