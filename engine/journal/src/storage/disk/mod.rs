//! A directory of the file system, held by its descriptor.
//!
//! The directory is opened once, and each file is opened relative to it. So the journal stays in this directory if the
//! program changes its working directory or the directory is renamed. No link in it is followed and only regular files
//! are opened: opening a pipe could block for ever, and a link could lead to another program's file.
//!
//! # Locks
//! The directory itself is locked, because a lock file alone could be removed or replaced while it is locked. The file
//! `lock` is locked as well, for file systems that cannot lock directories, and to name the process that holds the
//! lock. A forked child shares the locks with its parent, so only the process that took them releases them.

use super::{File, Lock, NotOurs, Process, Storage, lock_file};
use crate::files::names::{LOCK, UNFINISHED};
use file::DiskFile;
use lock::DirectoryLock;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

mod file;
mod lock;

/// A directory of the file system with mode 0700 and files of mode 0600. Clones refer to the same directory.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    held: Arc<OnceLock<OpenDirectory>>,
    #[cfg(test)]
    refuse: RefusedCalls,
}

/// The system calls that a test makes the file system refuse.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RefusedCalls {
    directory_locks: bool,
    renaming_without_replacing: bool,
}

/// The directory's descriptor, and the process that opened it.
#[derive(Debug)]
struct OpenDirectory {
    directory: OwnedFd,
    process: Process,
}

/// The prefix of the line in the file `lock` that says why the directory itself is not locked. The number of the
/// system's error follows.
const UNLOCKED_PREFIX: &str = "directory not locked: error ";

/// Flags for opening a file: no link is followed, and opening does not block.
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Disk {
    /// Refers to the directory `path` without opening it. A relative path is resolved by this call.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            path: std::path::absolute(&path).unwrap_or(path),
            held: Arc::default(),
            #[cfg(test)]
            refuse: RefusedCalls::default(),
        }
    }

    /// Returns the open directory. The first call opens it.
    fn held(&self) -> io::Result<&OpenDirectory> {
        if let Some(held) = self.held.get() {
            return Ok(held);
        }
        let directory = rustix::fs::open(&self.path, DIRECTORY_FLAGS, Mode::empty())?;
        Ok(self.held.get_or_init(|| OpenDirectory { directory, process: Process::default() }))
    }

    /// Returns the directory for a change; an error in a forked child.
    fn to_change(&self) -> io::Result<&OwnedFd> {
        let held = self.held()?;
        held.process.check()?;
        Ok(&held.directory)
    }

    /// Opens and locks the file `lock`. `alone` is true if the directory itself could not be locked: then this lock is
    /// the only one, and its file must not be replaced.
    fn lock_file(&self, directory: &OwnedFd, alone: bool) -> io::Result<fs::File> {
        let found = match look(directory, LOCK) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            found => Some(names(&found?)),
        };
        let lock = |name: &str, how: OFlags| {
            let flags = OFlags::RDWR | FILE_FLAGS | how;
            let file = fs::File::from(rustix::fs::openat(directory, name, flags, Mode::from_bits_retain(0o600))?);
            regular(name, &rustix::fs::fstat(&file)?)?;
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok::<_, io::Error>(file)
        };
        match found {
            Some(links) if links > 1 && alone => Err(NotOurs::Linked { name: LOCK.to_owned(), links }.into()),
            // The directory was copied by hard links. The text would change in both copies, so this one gets a new
            // file.
            Some(links) if links > 1 => {
                let unfinished = format!("{LOCK}{}", UNFINISHED);
                match self.remove(&unfinished) {
                    Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                    _ => {}
                }
                let file = lock(&unfinished, OFlags::CREATE | OFlags::EXCL)?;
                rustix::fs::renameat(directory, &unfinished, directory, LOCK)?;
                Ok(file)
            }
            _ => lock(LOCK, OFlags::CREATE),
        }
    }

    fn lock_text(&self) -> io::Result<String> {
        let directory = &self.held()?.directory;
        look(directory, LOCK)?;
        let file = fs::File::from(rustix::fs::openat(directory, LOCK, OFlags::RDONLY | FILE_FLAGS, Mode::empty())?);
        regular(LOCK, &rustix::fs::fstat(&file)?)?;
        let mut text = String::new();
        file.take(200).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// The metadata of a regular file; an error if the name belongs to anything else.
fn look(directory: &OwnedFd, name: &str) -> io::Result<rustix::fs::Stat> {
    let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    regular(name, &found)?;
    Ok(found)
}

fn regular(name: &str, found: &rustix::fs::Stat) -> io::Result<()> {
    let what = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    };
    Err(NotOurs::Kind { name: name.to_owned(), what }.into())
}

/// Count of a file's names (hard links).
#[allow(clippy::unnecessary_cast, reason = "the type of the number differs between systems")]
fn names(found: &rustix::fs::Stat) -> u64 {
    found.st_nlink as u64
}

fn sync_dir(path: &Path) -> io::Result<()> {
    rustix::fs::fsync(rustix::fs::open(path, DIRECTORY_FLAGS, Mode::empty())?)?;
    Ok(())
}

/// Creates a directory and its missing parents. Each name is made durable before the next one is created.
fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    for path in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
        path.parent().map_or(Ok(()), sync_dir)?;
    }
    Ok(())
}

impl Storage for Disk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn identity(&self) -> Option<String> {
        let found = rustix::fs::fstat(&self.held().ok()?.directory).ok()?;
        Some(format!("{}:{}", found.st_dev, found.st_ino))
    }

    fn create_dir(&self) -> io::Result<()> {
        match self.held() {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => make(&self.path)?,
            held => return held.map(drop),
        }
        self.held().map(drop)
    }

    fn lock(&self) -> io::Result<Lock> {
        let held = self.to_change()?;
        // A lock belongs to an open file description, which clones of `held` share. So the directory is opened anew.
        let directory = rustix::fs::openat(held, ".", DIRECTORY_FLAGS, Mode::empty())?;
        #[cfg(not(test))]
        let refuses = false;
        #[cfg(test)]
        let refuses = self.refuse.directory_locks;
        let lock = || rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive);
        let refused = match if refuses { Err(Errno::BADF) } else { lock() } {
            Ok(()) => None,
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(cause) => Some(cause.raw_os_error()),
        };
        let file = self.lock_file(held, refused.is_some())?;
        let weakness = refused.map_or_else(String::new, |number| format!("{UNLOCKED_PREFIX}{number}\n"));
        file.set_len(0)?;
        (&file).write_all(lock_file::text(&weakness).as_bytes())?;
        let directory = refused.is_none().then_some(directory);
        Ok(Box::new(DirectoryLock { directory, file, process: Process::default() }))
    }

    fn lock_holder(&self) -> String {
        let text = self.lock_text().unwrap_or_default();
        lock_file::holder(&text)
    }

    fn lock_weakness(&self) -> Option<String> {
        let text = self.lock_text().ok()?;
        let number = text.lines().find_map(|line| line.strip_prefix(UNLOCKED_PREFIX)?.parse().ok())?;
        let cause = io::Error::from_raw_os_error(number);
        Some(format!(
            "the file system refuses to lock the directory ({cause}): the file `{LOCK}` alone keeps others out, so it must stay"
        ))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.held()?.directory)? {
            // Other names are skipped: the journal's own names are UTF-8.
            let entry = entry?;
            let name = entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | ".."));
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FILE_FLAGS;
        let file = rustix::fs::openat(self.to_change()?, name, flags, Mode::from_bits_retain(0o600))?;
        Ok(Arc::new(DiskFile::new(file.into())))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        let directory = if write { self.to_change()? } else { &self.held()?.directory };
        look(directory, name)?;
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let file = rustix::fs::openat(directory, name, flags | FILE_FLAGS, Mode::empty())?;
        // The name may belong to another file since it was checked.
        let found = rustix::fs::fstat(&file)?;
        regular(name, &found)?;
        let links = names(&found);
        if write && links > 1 {
            return Err(NotOurs::Linked { name: name.to_owned(), links }.into());
        }
        Ok(Arc::new(DiskFile::new(file.into())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let directory = self.to_change()?;
        look(directory, from)?;
        match look(directory, to) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        Ok(rustix::fs::renameat(directory, from, directory, to)?)
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let directory = self.to_change()?;
        look(directory, from)?;
        #[cfg(not(test))]
        let refuses = false;
        #[cfg(test)]
        let refuses = self.refuse.renaming_without_replacing;
        match if refuses { Err(Errno::INVAL) } else { rename_without_replacing(directory, from, to) } {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
        // A hard link replaces no file either. If the removal fails, the file is complete and has both names.
        match rustix::fs::linkat(directory, from, directory, to, AtFlags::empty()) {
            Ok(()) => return Ok(rustix::fs::unlinkat(directory, from, AtFlags::empty())?),
            // The file system has no hard links. The lock keeps other processes from taking the name after the check.
            Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP) => {}
            Err(cause) => return Err(cause.into()),
        }
        match rustix::fs::statat(directory, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(rustix::fs::renameat(directory, from, directory, to)?),
            Err(cause) => Err(cause.into()),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let directory = self.to_change()?;
        look(directory, name)?;
        Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.to_change()?)?)
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_without_replacing(directory: &OwnedFd, from: &str, to: &str) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(directory, from, directory, to, rustix::fs::RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_without_replacing(_: &OwnedFd, _: &str, _: &str) -> rustix::io::Result<()> {
    Err(Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusing(path: &Path, refuse: RefusedCalls) -> Disk {
        Disk { refuse, ..Disk::new(path) }
    }

    #[test]
    fn who_has_the_files_too_does_not_keep_the_locks() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let lock = disk.lock().unwrap();
        assert_eq!(disk.lock().map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let locked = lock.downcast_ref::<DirectoryLock>().unwrap();
        let _as_a_child_has_them = (locked.file.try_clone().unwrap(), locked.directory.as_ref().unwrap().try_clone());
        drop(lock);
        assert!(disk.lock().is_ok());
    }

    #[test]
    fn a_fork_gives_up_no_lock_and_changes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        disk.create("a").unwrap().write_at(b"kept", 0).unwrap();
        let lock = disk.lock().unwrap();
        let locked = lock.downcast_ref::<DirectoryLock>().unwrap();
        // The parent's open file descriptions, as a forked process sees them.
        let child = DirectoryLock {
            directory: locked.directory.as_ref().map(|directory| directory.try_clone().unwrap()),
            file: locked.file.try_clone().unwrap(),
            process: Process::of_a_parent(),
        };
        drop(child);
        assert_eq!(disk.lock().map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let held = OpenDirectory {
            directory: disk.held().unwrap().directory.try_clone().unwrap(),
            process: Process::of_a_parent(),
        };
        let child = Disk::new(folder.path());
        child.held.set(held).unwrap();
        let mut file = DiskFile::new(fs::File::options().read(true).write(true).open(folder.path().join("a")).unwrap());
        file.process = Process::of_a_parent();
        let attempts: [(&str, io::Result<()>); 10] = [
            ("create", child.create("b").map(drop)),
            ("open", child.open("a", true).map(drop)),
            ("rename", child.rename("a", "b")),
            ("rename_new", child.rename_new("a", "b")),
            ("remove", child.remove("a")),
            ("lock", child.lock().map(drop)),
            ("write", file.write_at(b"lost", 0)),
            ("write parts", file.write_parts_at(&[b"lost"], 0)),
            ("truncate", file.truncate(0)),
            ("allocate", file.allocate(9000)),
        ];
        for (what, attempt) in attempts {
            let refused = attempt.unwrap_err();
            assert!(matches!(NotOurs::of(&refused), Some(NotOurs::Forked { .. })), "{what}: {refused}");
        }
        assert!(child.open("a", false).is_ok(), "reading harms nobody");
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"kept");
    }

    #[test]
    fn where_directories_are_not_locked_the_file_keeps_others_out_and_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let disk = refusing(folder.path(), RefusedCalls { directory_locks: true, ..RefusedCalls::default() });
        let lock = disk.lock().unwrap();
        assert_eq!(disk.lock().map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(disk.lock_holder(), format!("process {}", std::process::id()));
        let weakness = Disk::new(folder.path()).lock_weakness().unwrap();
        assert!(weakness.contains("`lock` alone"), "{weakness}");
        drop(lock);
        // Writing the file would change it under its other name, too.
        fs::hard_link(folder.path().join(LOCK), folder.path().join("other")).unwrap();
        let refused = disk.lock().map(drop).unwrap_err();
        assert!(matches!(NotOurs::of(&refused), Some(NotOurs::Linked { .. })), "{refused}");
        drop(Disk::new(folder.path()).lock().unwrap());
        assert_eq!(Disk::new(folder.path()).lock_weakness(), None, "locked since, in a file of its own");
        assert!(fs::read_to_string(folder.path().join("other")).unwrap().contains(UNLOCKED_PREFIX));
    }

    #[test]
    fn nothing_is_replaced_with_or_without_the_call_for_it() {
        for renaming_without_replacing in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let disk = refusing(folder.path(), RefusedCalls { renaming_without_replacing, ..RefusedCalls::default() });
            for name in ["a", "b"] {
                disk.create(name).unwrap().write_at(name.as_bytes(), 0).unwrap();
            }
            assert_eq!(disk.rename_new("a", "b").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            disk.rename_new("a", "c").unwrap();
            let mut names = disk.list().unwrap();
            names.sort_unstable();
            assert_eq!(names, ["b", "c"]);
            let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
            assert_eq!((read("b"), read("c")), (b"b".to_vec(), b"a".to_vec()));
            disk.rename("b", "c").unwrap();
            assert_eq!(read("c"), b"b");
        }
    }

    #[test]
    fn a_holder_is_a_number_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        for text in ["", "process \x1b[2J", "process 12 of mine", "\n\n"] {
            fs::write(folder.path().join(LOCK), text).unwrap();
            assert_eq!(disk.lock_holder(), "another process", "{text:?}");
        }
    }
}
