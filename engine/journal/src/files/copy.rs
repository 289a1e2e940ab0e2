//! Long ranges of bytes in files: copied, searched, overwritten with zeros.

use crate::files::read_ahead::ReadAhead;
use crate::storage::File;
use std::io;

/// The most bytes of a range that are handled at once.
pub(crate) const COPY_CHUNK: usize = 1 << 20;

/// Reads `begin..end` of a file, or up to the file's end, and hands it to `each` in chunks, with the byte that each begins at.
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

/// Copies `begin..end` of `from` to the beginning of `into`.
pub(crate) fn copy_range(
    read_ahead: &mut ReadAhead,
    from: &dyn File,
    begin: u64,
    end: u64,
    into: &dyn File,
) -> io::Result<()> {
    for_each_chunk(read_ahead, from, begin, end, |at, bytes| into.write_at(bytes, at - begin))
}

/// Writes zeros over `from..to`.
pub(crate) fn write_zeros(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let len = ((to - at) as usize).min(COPY_CHUNK);
        file.write_at(&vec![0; len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// The index of the last byte that is not zero. It looks at whole lines first, since most bytes that it is given are zero.
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

/// The end of the last byte in `from..to` of a file that is not zero; `from` if all are zero.
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
