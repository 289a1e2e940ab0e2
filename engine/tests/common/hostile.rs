//! Directories in which not everything is what its name says, as an archive or somebody else may hold them ready.

// Each of the binaries needs a part of it.
#![allow(dead_code)]

use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A journal's directory, and another one beside it that is somebody else's.
pub struct Hostile {
    folder: tempfile::TempDir,
    pub dir: PathBuf,
}

/// The bytes of each regular file, and what everything else is.
pub type Contents = BTreeMap<String, Result<Vec<u8>, &'static str>>;

impl Hostile {
    /// With nothing in it.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        fs::create_dir(&dir).unwrap();
        fs::create_dir(folder.path().join("elsewhere")).unwrap();
        Self { folder, dir }
    }

    /// With a good journal of four segments of 4,096 bytes, of which the last has no index.
    pub fn with_a_journal() -> Self {
        let this = Self::new();
        // The tests of the command, whose package stands below this one, use this file as well.
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let golden = above.map(|dir| dir.join("tests/data/journal-1")).find(|dir| dir.is_dir()).unwrap();
        for entry in fs::read_dir(golden).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), this.dir.join(entry.file_name())).unwrap();
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file of somebody else's.
    pub fn elsewhere(&self, name: &str) -> PathBuf {
        self.folder.path().join("elsewhere").join(name)
    }

    fn free(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        path
    }

    /// In place of a file, a symbolic link to somebody else's, which has the file's bytes.
    pub fn symlink(&self, name: &str) {
        let bytes = fs::read(self.path(name)).unwrap_or_else(|_| b"somebody else's".to_vec());
        fs::write(self.elsewhere(name), bytes).unwrap();
        std::os::unix::fs::symlink(self.elsewhere(name), self.free(name)).unwrap();
    }

    /// In place of a file, another name of somebody else's, which has the file's bytes.
    pub fn hard_link(&self, name: &str) {
        let bytes = fs::read(self.path(name)).unwrap_or_else(|_| b"somebody else's".to_vec());
        fs::write(self.elsewhere(name), bytes).unwrap();
        fs::hard_link(self.elsewhere(name), self.free(name)).unwrap();
    }

    /// In place of a file, a named pipe that nobody writes to.
    pub fn pipe(&self, name: &str) {
        mknodat(CWD, self.free(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    /// In place of a file, a directory with a file in it.
    pub fn directory(&self, name: &str) {
        let path = self.free(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inner"), b"kept").unwrap();
    }

    /// Makes a file longer, by a hole.
    pub fn grow(&self, name: &str, size: u64) {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.path(name)).unwrap();
        file.set_len(size).unwrap();
    }

    /// Puts bytes into a file, wherever in it.
    pub fn put(&self, name: &str, at: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.path(name)).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    /// A copy of the directory by links, as `cp -al` makes it.
    pub fn snapshot(&self, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&self.dir).unwrap() {
            let entry = entry.unwrap();
            fs::hard_link(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        copy
    }

    /// What lies in the journal's directory, links not followed.
    pub fn contents(&self) -> Contents {
        contents(&self.dir)
    }

    /// What is somebody else's.
    pub fn others(&self) -> Contents {
        contents(&self.folder.path().join("elsewhere"))
    }
}

/// What lies in a directory, links not followed.
pub fn contents(dir: &Path) -> Contents {
    let one = |entry: fs::DirEntry| {
        let kind = entry.file_type().unwrap();
        let what = match (kind.is_file(), kind.is_dir(), kind.is_symlink()) {
            (true, _, _) => Ok(fs::read(entry.path()).unwrap()),
            (_, true, _) => Err("directory"),
            (_, _, true) => Err("link"),
            _ => Err("other"),
        };
        (entry.file_name().into_string().unwrap(), what)
    };
    fs::read_dir(dir).unwrap().map(|entry| one(entry.unwrap())).collect()
}
