//! Creating and removing the socket's file without harm to other files or to another engine's socket.

use crate::engine::ObserveError;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Greatest length of the path, in bytes: that of a socket's address. Except on Linux, 16 bytes less, so that the name
/// of the [private folder](private_folder) fits after the path.
const LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 - 16 };

/// A socket's path, and the device and inode of the file that was created there. The path is absolute, because a
/// process can change its directory.
pub(super) struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    /// Removes the socket, if the file at the path is still the one that was created.
    pub(super) fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|there| identity(&there) == self.file) {
            // The file may be gone by now, or the directory read-only. There is no caller to report that to.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(of: &Metadata) -> (u64, u64) {
    (of.dev(), of.ino())
}

fn is_ours(there: &Metadata) -> bool {
    there.uid() == rustix::process::geteuid().as_raw()
}

/// Binds a socket that no other user can connect to at any moment. It is created in a private folder, and linked to its
/// path once its own permissions are set.
pub(super) fn bind(given: &Path) -> Result<(UnixListener, Place), ObserveError> {
    let path = || given.to_owned();
    let io = |cause| ObserveError::Io { path: path(), cause };
    let bytes = given.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(ObserveError::ZeroByte { path: path() });
    }
    if bytes.len() > LIMIT {
        return Err(ObserveError::TooLong { path: path(), len: bytes.len(), limit: LIMIT });
    }
    let at = std::path::absolute(given).map_err(io)?;
    if let Ok(there) = fs::symlink_metadata(&at) {
        if !there.file_type().is_socket() {
            return Err(ObserveError::NoSocket { path: path() });
        }
        if is_answered(given) {
            return Err(ObserveError::Taken { path: path() });
        }
        if !is_ours(&there) {
            return Err(ObserveError::NotOurs { path: path(), owner: there.uid() });
        }
        // No process answers, so a killed process has left this socket.
        Place { path: at.clone(), file: identity(&there) }.remove();
    }
    let folder = private_folder(&at).map_err(io)?;
    let inside = folder.join("s");
    let bound = bind_inside(&folder, &inside).and_then(|listener| {
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        let file = identity(&fs::symlink_metadata(&inside)?);
        // Unlike a rename, a link does not replace a file.
        fs::hard_link(&inside, &at)?;
        Ok((listener, Place { path: at, file }))
    });
    let _ = fs::remove_file(&inside);
    let _ = fs::remove_dir(&folder);
    bound.map_err(|cause| match cause.kind() {
        ErrorKind::AlreadyExists => ObserveError::Taken { path: path() },
        _ => io(cause),
    })
}

/// False if no process listens at the socket any more, or there is no file at the path. True if a process listens, and
/// in doubt. Never waits, even if a process listens and does not accept.
fn is_answered(path: &Path) -> bool {
    let connected = SocketAddrUnix::new(path).and_then(|address| {
        let socket = UnixStream::from(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?);
        socket.set_nonblocking(true).map_err(|_| Errno::AGAIN)?;
        rustix::net::connect(&socket, &address)
    });
    !matches!(connected, Err(Errno::CONNREFUSED | Errno::NOENT))
}

/// Creates a folder beside the path that only this user can enter, under the first free name.
fn private_folder(path: &Path) -> io::Result<PathBuf> {
    let mut tries = 0..100;
    loop {
        let mut folder = path.as_os_str().to_owned();
        let Some(next) = tries.next() else { return Err(ErrorKind::AlreadyExists.into()) };
        folder.push(format!(".{}.{next}", std::process::id()));
        let folder = PathBuf::from(folder);
        let create = || fs::DirBuilder::new().mode(0o700).create(&folder);
        match create() {
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                // A killed process with this process's number left the folder; in a container that number is often the
                // same.
                if remove_left_behind(&folder).is_ok() && create().is_ok() {
                    return Ok(folder);
                }
            }
            made => return made.map(|()| folder),
        }
    }
}

/// The age from which a private folder counts as left by a killed process. A running process removes its folder much
/// earlier: in the call of [`bind`] that has created it.
const LEFT: Duration = Duration::from_secs(60);

fn remove_left_behind(folder: &Path) -> io::Result<()> {
    let there = fs::symlink_metadata(folder)?;
    let age = there.modified()?.elapsed().unwrap_or_default();
    if !there.is_dir() || !is_ours(&there) || age < LEFT {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let inside = folder.join("s");
    if fs::symlink_metadata(&inside).is_ok_and(|inside| inside.file_type().is_socket()) {
        fs::remove_file(inside)?;
    }
    fs::remove_dir(folder)
}

fn bind_inside(folder: &Path, inside: &Path) -> io::Result<UnixListener> {
    if inside.as_os_str().len() <= LIMIT {
        return UnixListener::bind(inside);
    }
    // The path is too long for a socket's address, so the folder is named by its open descriptor.
    let folder = fs::File::open(folder)?;
    UnixListener::bind(format!("/proc/self/fd/{}/s", folder.as_raw_fd()))
}
