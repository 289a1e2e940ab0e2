//! A file that an export writes: it has another name until it is whole.

use crate::failure::{Done, FAILED, Failure};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A file that is being written as `FILE.<process>.partial`, and gets the name `FILE` once it is whole. Dropped before, it
/// is removed.
pub(super) struct Target {
    file: File,
    path: PathBuf,
    partial: PathBuf,
}

fn refused(path: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(FAILED, format!("cannot make {path:?}: {cause}"))
}

/// Gives the file `from` the name `to` as well, or instead, if `to` is nobody's name.
fn name(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists && fs::symlink_metadata(to).is_err() => {
            // Some file systems have no links.
            fs::rename(from, to)
        }
        done => done,
    }
}

impl Target {
    /// Begins a file that gets the name `path`.
    ///
    /// # Errors
    /// The name is taken, or the file cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(refused(path, &"it is there already: take another name, or remove it"));
        }
        let mut name = path.file_name().map(OsString::from).unwrap_or_default();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&partial);
        let file = file.map_err(|cause| refused(path, &cause))?;
        Ok(Self { file, path: path.to_owned(), partial })
    }

    /// Another handle of the file, for writing.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the file its name, once the disk has all of it.
    pub(super) fn finish(self) -> Done {
        self.file.sync_all()?;
        name(&self.partial, &self.path).map_err(|cause| refused(&self.path, &cause))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It has gone if the file was renamed.
        let _ = fs::remove_file(&self.partial);
    }
}
