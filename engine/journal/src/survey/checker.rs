//! Reading the segment files of a survey: progress reports, stray bytes, and durable marks after the end.

use crate::error::OpenError;
use crate::files::copy::{COPY_CHUNK, last_nonzero};
use crate::files::read_ahead::ReadAhead;
use crate::format::{ALIGN, FrameHeader, JournalId};
use crate::options::Options;
use crate::segment::Segment;
use crate::storage::File;
use crate::survey::Progress;

/// Reads segment files, and counts the bytes read.
pub(crate) struct Checker<'s> {
    pub read_ahead: ReadAhead,
    /// Called about once for each MiB read.
    pub progress: Option<&'s mut dyn FnMut(Progress)>,
    /// Count of bytes read so far.
    pub read: u64,
    /// Count of bytes to read in total, as far as known.
    pub total: u64,
    /// True if every segment is read, with or without an index. Only then are stray bytes detected.
    pub reads_all: bool,
    /// Segment number and file offset of each run of stray bytes: nonzero bytes that no checksum covers.
    pub stray: Vec<(u64, u64)>,
}

/// The bytes of a segment file after the last valid frame.
pub(crate) struct Tail {
    /// The offset in the file after the last nonzero byte; 0 if all bytes of the tail are zero.
    pub until: u64,
    /// The highest durable mark in a valid frame header; 0 if there is none.
    pub durable: u64,
    /// The highest incarnation in a valid frame header or in the segment's header.
    pub incarnation: u32,
}

impl<'s> Checker<'s> {
    pub fn new(options: &Options, reads_all: bool, progress: Option<&'s mut dyn FnMut(Progress)>) -> Self {
        Self { read_ahead: ReadAhead::new(options), progress, read: 0, total: 0, reads_all, stray: Vec::new() }
    }

    /// Adds `bytes` to the count of bytes read, and reports the progress.
    pub fn count(&mut self, bytes: u64) {
        self.read += bytes;
        let (read, total) = (self.read, self.total.max(self.read));
        if let Some(progress) = &mut self.progress {
            progress(Progress { read, total });
        }
    }

    /// Notes the first nonzero byte at the offsets `from..to`, a part of the file that no checksum covers.
    pub fn note_stray(&mut self, segment: &Segment, from: u64, to: u64) -> Result<(), OpenError> {
        let bytes = self.read_ahead.bytes(&segment.file, from, (to - from) as usize, to);
        let bytes = bytes.map_err(|cause| segment.disk_error("read", &cause))?;
        if let Some(stray) = bytes.iter().position(|byte| *byte != 0) {
            let place = (segment.header.number, from + stray as u64);
            self.stray.extend((!self.stray.contains(&place)).then_some(place));
        }
        Ok(())
    }

    /// Searches a segment file from offset `from` on for frame headers of journal `id`, and for nonzero bytes.
    pub fn search_tail(&mut self, segment: &Segment, from: u64, id: &JournalId) -> Result<Tail, OpenError> {
        // Bytes of the file beyond the segment's size do not belong to the segment.
        let size = segment.file.size().map_err(|cause| segment.disk_error("read", &cause))?.min(segment.header.size);
        let mut tail = Tail { until: 0, durable: 0, incarnation: segment.header.incarnation };
        let mut at = from;
        self.read_ahead.reset();
        while at < size {
            let bytes = self.read_ahead.bytes(&segment.file, at, COPY_CHUNK, size);
            let bytes = bytes.map_err(|cause| segment.disk_error("read", &cause))?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = last_nonzero(bytes) {
                tail.until = at + last as u64 + 1;
                for (step, piece) in bytes.chunks(ALIGN as usize).enumerate() {
                    let position = segment.position(at + step as u64 * ALIGN);
                    if let Ok((header, _)) = FrameHeader::decode(id, position, piece) {
                        tail.durable = tail.durable.max(header.durable);
                        tail.incarnation = tail.incarnation.max(header.incarnation);
                    }
                }
            }
            let len = bytes.len() as u64;
            at += len;
            self.count(len);
        }
        Ok(tail)
    }
}
