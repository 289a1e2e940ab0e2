//! Repair of segment files that have another segment's name. Their headers state the right number.

use super::damage::unused_name;
use super::report::RepairedPlace;
use crate::error::DiskError;
use crate::files::names::{is_ours, segment_name, segment_number};
use crate::files::read_header::segment_header;
use crate::format::{JournalId, SegmentHeader};
use crate::storage::Storage;
use std::io;

/// A file with a valid segment header.
struct HeaderedFile {
    name: String,
    header: SegmentHeader,
}

impl HeaderedFile {
    fn is_named_so(&self) -> bool {
        self.name == segment_name(self.header.number)
    }
}

fn failed(doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let name = name.to_owned();
    move |cause| DiskError::new(doing, name, &cause)
}

/// The files with a segment header of this journal: segments, and files that a repair has renamed out of the way.
fn known(disk: &dyn Storage, id: &JournalId) -> Result<Vec<HeaderedFile>, DiskError> {
    let mut found = Vec::new();
    for name in disk.list().map_err(failed("list", &disk.name()))? {
        if segment_number(&name).is_none() && !(is_ours(&name) && name.ends_with(".bin")) {
            continue;
        }
        let file = disk.open(&name, false).map_err(failed("open", &name))?;
        if let Ok(header) = segment_header(&*file).map_err(failed("read", &name))?
            && header.id == *id
        {
            found.push(HeaderedFile { name, header });
        }
    }
    Ok(found)
}

/// Renames segment files to the numbers in their headers, except numbers that two files claim. Each file is first
/// renamed to an unused `damaged-` name, because its right name may still belong to another of them; files that a crash
/// left under such a name are renamed too. Copies in `aside`, which this repair has made, keep their names: renamed
/// back, they would be put aside again without end. Returns the numbers of the renamed files.
pub(super) fn restore_names(
    disk: &dyn Storage,
    id: &JournalId,
    aside: &[RepairedPlace],
) -> Result<Vec<u64>, DiskError> {
    let known_files = known(disk, id)?;
    let has_its_file = |number: u64| known_files.iter().any(|file| file.header.number == number && file.is_named_so());
    let claims = |number: u64| known_files.iter().filter(|file| file.header.number == number).count();
    let misnamed = known_files.iter().filter(|file| segment_number(&file.name).is_some() && !file.is_named_so());
    for file in misnamed.filter(|file| !has_its_file(file.header.number) && claims(file.header.number) == 1) {
        let aside = unused_name(disk, file.header.first)?;
        disk.rename_new(&file.name, &aside).map_err(failed("rename", &file.name))?;
    }
    let mut named = Vec::new();
    let is_put_aside = |name: &String| aside.iter().any(|mended| mended.copy.as_ref() == Some(name));
    let unnamed = |file: &&HeaderedFile| segment_number(&file.name).is_none() && !is_put_aside(&file.name);
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
