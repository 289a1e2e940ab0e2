//! The folder of a user's shared rings, `/dev/shm/slipring-<uid>`, and the files in it.
//!
//! A file is made under a temporary name, allocated, filled, and then renamed without replacing another; so whoever
//! finds a ring finds a whole one. Temporary files whose creator has died go at the next opening. Nothing in the folder
//! is trusted by its name: symbolic links are not followed, and type, owner, mode, size and file system are checked.

use super::error::{Property, SharedError};
use super::header::{Difference, Geometry, HEADER};
use super::lock::{CREATING, Locks};
use super::member::system;
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// The number of tmpfs in `statfs`.
const TMPFS: u64 = 0x0102_1994;
/// The end of the names of temporary files. A ring's name cannot begin with a dot.
const TEMPORARY: (&str, &str) = (".", ".new");
/// The most characters of a ring's name.
pub(crate) const LONGEST_RING: usize = 100;

/// The path of this user's folder.
fn folder() -> PathBuf {
    PathBuf::from(format!("/dev/shm/slipring-{}", rustix::process::geteuid().as_raw()))
}

/// The path of a ring's file.
pub(crate) fn path_of(name: &str) -> PathBuf {
    folder().join(name)
}

/// The open folder.
pub(crate) struct Folder {
    file: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder of this user, and makes it if it is not there.
    pub(crate) fn open() -> Result<Self, SharedError> {
        let path = folder();
        match fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(refused) => return Err(system(&format!("making {}", path.display()))(refused.into())),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::open(&path, flags, Mode::empty());
        let file = match file {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let (expected, found) = ("a directory".to_owned(), "something else".to_owned());
                return Err(mismatch(path, Difference { property: Property::FileType, expected, found }));
            }
            other => other.map_err(|refused| system(&format!("opening {}", path.display()))(refused.into()))?,
        };
        let folder = Self { file, path };
        folder
            .check(folder.file.as_fd(), FileType::Directory, 0o700)
            .map_err(|it| mismatch(folder.path.clone(), it))?;
        Ok(folder)
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Checks type, owner, permissions and file system.
    fn check(&self, file: impl AsFd, kind: FileType, mode: u32) -> Result<(), Difference> {
        let stat = fs::fstat(&file).map_err(|refused| unreadable(Property::FileType, refused))?;
        let differs = |property, expected: String, found: String| Err(Difference { property, expected, found });
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return differs(
                Property::FileType,
                format!("{kind:?}"),
                format!("{:?}", FileType::from_raw_mode(stat.st_mode)),
            );
        }
        let user = rustix::process::geteuid().as_raw();
        if stat.st_uid != user {
            return differs(Property::Owner, user.to_string(), stat.st_uid.to_string());
        }
        if stat.st_mode & 0o7777 != mode {
            return differs(Property::Mode, format!("{mode:o}"), format!("{:o}", stat.st_mode & 0o7777));
        }
        let system = fs::fstatfs(&file).map_err(|refused| unreadable(Property::FileSystem, refused))?;
        if system.f_type as u64 != TMPFS {
            return differs(Property::FileSystem, format!("{TMPFS:#x} (tmpfs)"), format!("{:#x}", system.f_type));
        }
        Ok(())
    }

    /// Opens the file of a ring, checks it, and reads its header.
    pub(crate) fn open_ring(&self, name: &str) -> Result<(OwnedFd, Geometry), SharedError> {
        let file = fs::openat(
            &self.file,
            name,
            OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        );
        let other = |found: &str| {
            let (expected, found) = ("a regular file".to_owned(), found.to_owned());
            mismatch(self.path_of(name), Difference { property: Property::FileType, expected, found })
        };
        let file = match file {
            Err(Errno::NOENT) => {
                return Err(SharedError::NotFound { name: name.to_owned(), folder: self.path.clone() });
            }
            Err(Errno::LOOP) => return Err(other("a symbolic link")),
            Err(Errno::ISDIR) => return Err(other("a directory")),
            Err(Errno::NXIO) => return Err(other("a socket or pipe")),
            other => other.map_err(|it| system(&format!("opening {}", self.path_of(name).display()))(it.into()))?,
        };
        let differs = |difference| mismatch(self.path_of(name), difference);
        self.check(file.as_fd(), FileType::RegularFile, 0o600).map_err(differs)?;
        let file = File::from(file);
        let size = file.metadata().map_err(system("reading the size of the file"))?.len();
        let mut header = [0; HEADER];
        if let Err(short) = file.read_exact_at(&mut header, 0) {
            let found = format!("{size} ({short})");
            return Err(differs(Difference {
                property: Property::Size,
                expected: format!("at least {HEADER}"),
                found,
            }));
        }
        let geometry = Geometry::decode(&header).map_err(differs)?;
        if geometry.bytes() != size {
            let expected = format!("{} (as its header says)", geometry.bytes());
            return Err(differs(Difference { property: Property::Size, expected, found: size.to_string() }));
        }
        Ok((file.into(), geometry))
    }

    /// Makes the file of a ring: `fill` stores the initial values. Nothing has the ring's name before that is done.
    pub(crate) fn create_ring(
        &self,
        name: &str,
        geometry: &Geometry,
        fill: impl Fn(&Locks) -> Result<(), SharedError>,
    ) -> Result<(), SharedError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let number = crate::sync::next_id();
            let temporary = format!("{}{name}.{}.{number}{}", TEMPORARY.0, std::process::id(), TEMPORARY.1);
            let file = match fs::openat(&self.file, &temporary, flags, Mode::RUSR | Mode::WUSR) {
                // Left by a dead process that had this one's number; `sweep` removes it when nobody has its lock.
                Err(Errno::EXIST) => continue,
                other => other.map_err(|it| system("making the file of the ring")(it.into()))?,
            };
            let locks = Locks::new(file);
            if !locks.try_lock(CREATING).map_err(system("locking the new file"))? {
                // A sweep has found it before its lock was taken, and removes it.
                continue;
            }
            let made = self.fill(&locks, name, geometry, &fill);
            let made = made.and_then(|()| {
                match fs::renameat_with(&self.file, &temporary, &self.file, name, RenameFlags::NOREPLACE) {
                    Ok(()) => Ok(true),
                    Err(Errno::EXIST) => Err(SharedError::Exists { name: name.to_owned() }),
                    // A sweep has removed it before its lock was taken.
                    Err(Errno::NOENT) => Ok(false),
                    Err(refused) => Err(system("naming the file of the ring")(refused.into())),
                }
            });
            match made {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(error) => {
                    let _ = fs::unlinkat(&self.file, &temporary, AtFlags::empty());
                    return Err(error);
                }
            }
        }
    }

    fn fill(
        &self,
        locks: &Locks,
        name: &str,
        geometry: &Geometry,
        fill: &impl Fn(&Locks) -> Result<(), SharedError>,
    ) -> Result<(), SharedError> {
        // The bits that the process's mask took away.
        fs::fchmod(locks, Mode::RUSR | Mode::WUSR).map_err(|it| system("setting the mode of the file")(it.into()))?;
        // All pages now: a write to a page that the file system cannot give later would end the process.
        match fs::fallocate(locks, FallocateFlags::empty(), 0, geometry.bytes()) {
            Ok(()) => {}
            Err(Errno::NOSPC | Errno::FBIG | Errno::NOMEM) => {
                return Err(SharedError::Memory { path: self.path_of(name), bytes: geometry.bytes() });
            }
            Err(refused) => return Err(system("allocating the file of the ring")(refused.into())),
        }
        let mut written = 0;
        let header = geometry.encode();
        while written < HEADER {
            written += rustix::io::pwrite(locks, &header[written..], written as u64)
                .map_err(|it| system("writing the header")(it.into()))?;
        }
        fill(locks)
    }

    /// Removes the name of a ring, if it still names the file with this inode.
    pub(crate) fn unlink(&self, name: &str, inode: u64) -> Result<(), SharedError> {
        if self.inode(name) != Some(inode) {
            return Err(SharedError::Ended(super::Ended::Replaced));
        }
        fs::unlinkat(&self.file, name, AtFlags::empty())
            .map_err(|it| system("removing the file of the ring")(it.into()))
    }

    /// The inode that a name has now.
    pub(crate) fn inode(&self, name: &str) -> Option<u64> {
        fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
    }

    /// The names in the folder.
    fn names(&self) -> Result<Vec<String>, SharedError> {
        let reading = |refused: Errno| system(&format!("reading {}", self.path.display()))(io::Error::from(refused));
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.file).map_err(reading)? {
            if let Ok(name) = entry.map_err(reading)?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The names of the rings, in order.
    pub(crate) fn rings(&self) -> Result<Vec<String>, SharedError> {
        Ok(self.names()?.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    /// Removes temporary files whose creator has died. What cannot be removed stays.
    pub(crate) fn sweep(&self) {
        let is_temporary = |name: &String| name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1);
        for name in self.names().unwrap_or_default().into_iter().filter(is_temporary) {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let Ok(file) = fs::openat(&self.file, &name, flags, Mode::empty()) else { continue };
            if Locks::new(file).try_lock(CREATING).unwrap_or(false) {
                let _ = fs::unlinkat(&self.file, &name, AtFlags::empty());
            }
        }
    }
}

fn mismatch(path: PathBuf, difference: Difference) -> SharedError {
    let Difference { property, expected, found } = difference;
    SharedError::Mismatch { path, property, expected, found }
}

fn unreadable(property: Property, refused: Errno) -> Difference {
    Difference { property, expected: "one that can be read".to_owned(), found: io::Error::from(refused).to_string() }
}
