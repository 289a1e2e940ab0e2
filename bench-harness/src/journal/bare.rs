//! The floor: a loop that only writes to the disk, and a loop that only reads and takes a checksum.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{MESSAGE, rate};
use crate::failure::Failure;

/// A new file with `bytes` of space reserved, so that the measured writes do not extend it.
pub fn file(path: &Path, bytes: u64) -> Result<File, Failure> {
    let failed = |error| Failure::file(path, error);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failed)?;
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    file.sync_all().map_err(failed)?;
    Ok(file)
}

/// Writes `bytes` in groups of `group`, each synced if `sync`. Returns megabytes a second.
pub fn write(path: &Path, bytes: u64, group: usize, sync: bool) -> Result<f64, Failure> {
    let failed = |error| Failure::file(path, error);
    let file = file(path, bytes)?;
    let mut buffer = vec![7; group];
    let turns = (bytes / group as u64).max(1);
    let begun = Instant::now();
    for turn in 0..turns {
        buffer[..8].copy_from_slice(&turn.to_le_bytes());
        file.write_all_at(&buffer, turn * group as u64).map_err(failed)?;
        if sync {
            file.sync_data().map_err(failed)?;
        }
    }
    let own = rate(turns * group as u64, begun);
    file.sync_data().map_err(failed)?;
    drop(file);
    let _ = std::fs::remove_file(path);
    Ok(own)
}

/// Writes `bytes` in groups of `group` without a sync. Each group is made of messages with their lengths and ends with
/// a checksum: work that no journal can avoid. Returns megabytes a second.
pub fn make_and_write(path: &Path, bytes: u64, group: usize) -> Result<f64, Failure> {
    let failed = |error| Failure::file(path, error);
    let file = file(path, bytes)?;
    let mut buffer = Vec::with_capacity(group);
    let mut message = [7; MESSAGE];
    let (turns, mut number) = ((bytes / group as u64).max(1), 0_u64);
    let begun = Instant::now();
    for turn in 0..turns {
        buffer.clear();
        while buffer.len() + 4 + MESSAGE <= group - 4 {
            message[..8].copy_from_slice(&number.to_le_bytes());
            buffer.extend_from_slice(&(MESSAGE as u32).to_le_bytes());
            buffer.extend_from_slice(&message);
            number += 1;
        }
        buffer.resize(group - 4, 0);
        buffer.extend_from_slice(&crc32c::crc32c(&buffer).to_le_bytes());
        file.write_all_at(&buffer, turn * group as u64).map_err(failed)?;
    }
    let own = rate(turns * group as u64, begun);
    file.sync_data().map_err(failed)?;
    drop(file);
    let _ = std::fs::remove_file(path);
    Ok(own)
}

/// The segment files of a journal, in order.
pub fn segments(dir: &Path) -> Result<Vec<(PathBuf, File)>, Failure> {
    let entries = std::fs::read_dir(dir).map_err(|error| Failure::file(dir, error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "segment"));
    paths.sort();
    let open = |path: PathBuf| File::open(&path).map_err(|error| Failure::file(&path, error)).map(|file| (path, file));
    paths.into_iter().map(open).collect()
}

/// Reads all files once and takes the checksum of their bytes. Returns megabytes a second.
pub fn read(files: &[(PathBuf, File)]) -> Result<f64, Failure> {
    let mut buffer = vec![0; 1 << 20];
    let (mut read, mut checksum) = (0, 0);
    let begun = Instant::now();
    for (path, file) in files {
        let mut at = 0;
        loop {
            let got = file.read_at(&mut buffer, at).map_err(|error| Failure::file(path, error))?;
            if got == 0 {
                break;
            }
            checksum = crc32c::crc32c_append(checksum, &buffer[..got]);
            at += got as u64;
        }
        read += at;
    }
    black_box(checksum);
    Ok(rate(read, begun))
}
