//! Long ranges of bytes in files: copied, cleared, searched.

use super::storage::File;
use super::window::Window;
use std::io;

pub(crate) const COPY: usize = 1 << 20;

pub(crate) fn copy_range(
    window: &mut Window,
    from: &dyn File,
    begin: u64,
    end: u64,
    into: &dyn File,
) -> io::Result<()> {
    window.reset();
    let mut at = begin;
    while at < end {
        let bytes = window.bytes(from, at, COPY.min((end - at) as usize), end)?;
        if bytes.is_empty() {
            break;
        }
        into.write_at(bytes, at - begin)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

pub(crate) fn copy_range_within(window: &mut Window, file: &dyn File, begin: u64, end: u64) -> io::Result<()> {
    let mut at = begin;
    while at < end {
        let bytes = window.bytes(file, at, COPY.min((end - at) as usize), end)?;
        if bytes.is_empty() {
            break;
        }
        file.write_at(bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Writes zeros.
pub(crate) fn clear(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let len = ((to - at) as usize).min(COPY);
        file.write_at(&vec![0; len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// The last byte that is not zero. Most of what it looks at is, so it goes by whole lines.
pub(crate) fn last_set(bytes: &[u8]) -> Option<usize> {
    const LINE: usize = 256;
    let lines = bytes.len().div_ceil(LINE);
    let line = (0..lines).rev().find(|line| {
        let line = &bytes[line * LINE..bytes.len().min((line + 1) * LINE)];
        line.iter().fold(0, |seen, byte| seen | byte) != 0
    })?;
    let end = bytes.len().min((line + 1) * LINE);
    bytes[..end].iter().rposition(|byte| *byte != 0)
}

/// Where the last byte that is not zero ends; `from` if there is none.
pub(crate) fn last_byte(window: &mut Window, file: &dyn File, from: u64, to: u64) -> io::Result<u64> {
    let (mut at, mut until) = (from, from);
    window.reset();
    while at < to {
        let bytes = window.bytes(file, at, 1 << 20, to)?;
        if bytes.is_empty() {
            break;
        }
        if let Some(last) = last_set(bytes) {
            until = at + last as u64 + 1;
        }
        at += bytes.len() as u64;
    }
    Ok(until)
}
