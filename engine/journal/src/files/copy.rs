//! Operations on long byte ranges of files: copying, searching, and overwriting with zeros.

use crate::files::read_ahead::ReadAhead;
use crate::storage::File;
use std::io;

/// The largest part of a range that is processed at once, in bytes.
pub(crate) const COPY_CHUNK: usize = 1 << 20;

/// Reads the bytes `begin..end` of a file, or up to the end of the file, and calls `each` for each chunk with the
/// chunk's offset in the file.
pub(crate) fn for_each_chunk(
    read_ahead: &mut ReadAhead,
    file: &dyn File,
    begin: u64,
    end: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    read_ahead.reset();
    let mut at = begin;
    while at < end {
        let bytes = read_ahead.bytes(file, at, COPY_CHUNK, end)?;
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len() as u64;
        each(at, bytes)?;
        at += len;
    }
    Ok(())
}

/// Copies the bytes `begin..end` of `from` to offset 0 of `into`.
pub(crate) fn copy_range(
    read_ahead: &mut ReadAhead,
    from: &dyn File,
    begin: u64,
    end: u64,
    into: &dyn File,
) -> io::Result<()> {
    for_each_chunk(read_ahead, from, begin, end, |at, bytes| into.write_at(bytes, at - begin))
}

/// Overwrites the bytes `from..to` of a file with zeros.
pub(crate) fn write_zeros(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let len = ((to - at) as usize).min(COPY_CHUNK);
        file.write_at(&vec![0; len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// The index of the last byte that is not zero; `None` if all are zero. Tests 256 bytes at a time, from the end,
/// because most bytes are zero.
pub(crate) fn last_nonzero(bytes: &[u8]) -> Option<usize> {
    const LINE: usize = 256;
    let lines = bytes.len().div_ceil(LINE);
    let line = (0..lines).rev().find(|line| {
        let line = &bytes[line * LINE..bytes.len().min((line + 1) * LINE)];
        line.iter().fold(0, |seen, byte| seen | byte) != 0
    })?;
    let end = bytes.len().min((line + 1) * LINE);
    bytes[..end].iter().rposition(|byte| *byte != 0)
}

/// The offset after the last nonzero byte in `from..to` of a file; `from` if all are zero.
pub(crate) fn nonzero_end(read_ahead: &mut ReadAhead, file: &dyn File, from: u64, to: u64) -> io::Result<u64> {
    let mut end = from;
    for_each_chunk(read_ahead, file, from, to, |at, bytes| {
        if let Some(last) = last_nonzero(bytes) {
            end = at + last as u64 + 1;
        }
        Ok(())
    })?;
    Ok(end)
}
