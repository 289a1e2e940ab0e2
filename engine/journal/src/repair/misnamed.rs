//! Segment files under the names of others: by their headers each gets its own name back.

use super::super::error::DiskError;
use super::super::file_names::{is_ours, segment_name, segment_number};
use super::super::format::{JournalId, SegmentHeader};
use super::super::storage::Storage;
use super::damage::free_name;
use super::report::Mended;
use std::io;

/// A file that is whole at its head, and whose it is.
struct Known {
    name: String,
    header: SegmentHeader,
}

impl Known {
    fn is_named_so(&self) -> bool {
        self.name == segment_name(self.header.number)
    }
}

fn failed(doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let name = name.to_owned();
    move |cause| DiskError::new(doing, name, &cause)
}

/// The files of this journal that begin with a segment's header: segments, and what was put aside.
fn known(disk: &dyn Storage, id: &JournalId) -> Result<Vec<Known>, DiskError> {
    let mut found = Vec::new();
    for name in disk.list().map_err(failed("list", &disk.name()))? {
        if segment_number(&name).is_none() && !(is_ours(&name) && name.ends_with(".bin")) {
            continue;
        }
        let mut head = [0; 64];
        let file = disk.open(&name, false).map_err(failed("open", &name))?;
        let len = file.read_at(&mut head, 0).map_err(failed("read", &name))?;
        if let Ok(header) = SegmentHeader::decode(&head[..len])
            && header.id == *id
        {
            found.push(Known { name, header });
        }
    }
    Ok(found)
}

/// Renames segments whose headers bear other numbers than their names, unless a number is another file's by right. Each is put
/// aside first, so a file that a crash has left aside is found there again. What this repair itself has put `aside` as no use
/// stays there: it would be put aside again, without end. The numbers that have their files now.
pub(super) fn give_back(disk: &dyn Storage, id: &JournalId, aside: &[Mended]) -> Result<Vec<u64>, DiskError> {
    let known_files = known(disk, id)?;
    let has_its_file = |number: u64| known_files.iter().any(|file| file.header.number == number && file.is_named_so());
    let claims = |number: u64| known_files.iter().filter(|file| file.header.number == number).count();
    let misnamed = known_files.iter().filter(|file| segment_number(&file.name).is_some() && !file.is_named_so());
    for file in misnamed.filter(|file| !has_its_file(file.header.number) && claims(file.header.number) == 1) {
        let aside = free_name(disk, file.header.first)?;
        disk.rename_new(&file.name, &aside).map_err(failed("rename", &file.name))?;
    }
    let mut named = Vec::new();
    let is_put_aside = |name: &String| aside.iter().any(|mended| mended.copy.as_ref() == Some(name));
    let unnamed = |file: &&Known| segment_number(&file.name).is_none() && !is_put_aside(&file.name);
    for file in known(disk, id)?.iter().filter(unnamed) {
        let name = segment_name(file.header.number);
        match disk.rename_new(&file.name, &name) {
            Ok(()) => named.push(file.header.number),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(failed("rename", &file.name)(cause)),
        }
    }
    disk.sync_dir().map_err(failed("sync", &disk.name()))?;
    Ok(named)
}
