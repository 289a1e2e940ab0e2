//! A buffer that reads frames ahead.

use crate::format::{Codec, FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, decompress};
use crate::options::Options;
use crate::storage::File;
use std::borrow::Cow;
use std::io;

/// A read-ahead buffer over a file, so that one system call reads many small frames.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// True under the fault `accept_bad_checksums`: payloads with a wrong checksum are accepted.
    lenient: bool,
    bytes: Vec<u8>,
    at: u64,
    len: usize,
}

/// The size of a single read in bytes, unless more bytes are requested or the file ends. A buffer of this size fits
/// into a core's private cache.
const CHUNK: usize = 256 << 10;

/// The largest size of the buffer in bytes, unless one request is larger. Beyond this size, the bytes before the
/// requested ones are dropped.
const HELD: usize = 1 << 20;

/// A frame with valid checksums.
#[derive(Debug)]
pub(crate) struct Frame<'w> {
    pub header: FrameHeader,
    pub checksum: u32,
    /// The stored payload; empty for a gap.
    pub stored: &'w [u8],
}

impl ReadAhead {
    pub fn new(options: &Options) -> Self {
        Self { lenient: options.sabotage().accept_bad_checksums, ..Self::default() }
    }

    /// Empties the buffer. Needed if the file has changed, or another file is read next.
    pub fn reset(&mut self) {
        self.len = 0;
    }

    /// Returns the `len` bytes at offset `at` of the file; fewer if `limit` or the end of the file comes first.
    pub fn bytes(&mut self, file: &dyn File, at: u64, len: usize, limit: u64) -> io::Result<&[u8]> {
        let Some(left) = limit.checked_sub(at) else { return Ok(&[]) };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let len = len.min(left);
        let within = at >= self.at && at + len as u64 <= self.at + self.len as u64;
        if !within {
            let want = CHUNK.max(len).min(left);
            let begin = at.checked_sub(self.at).and_then(|begin| usize::try_from(begin).ok());
            // Bytes that the buffer already holds are not read again. They are moved to its beginning only if it would
            // grow too large otherwise.
            let begin = match begin.filter(|begin| *begin < self.len) {
                Some(begin) if begin + want <= HELD => begin,
                Some(begin) => {
                    self.bytes.copy_within(begin..self.len, 0);
                    (self.at, self.len) = (at, self.len - begin);
                    0
                }
                None => {
                    (self.at, self.len) = (at, 0);
                    0
                }
            };
            if self.bytes.len() < begin + want {
                self.bytes.resize(begin + want, 0);
            }
            let (have, place) = (self.len, self.at + self.len as u64);
            if have < begin + want {
                // If the read fails, the buffer keeps its old bytes.
                self.len += file.read_at(&mut self.bytes[have..begin + want], place)?;
            }
        }
        let from = (at - self.at) as usize;
        Ok(&self.bytes[from.min(self.len)..(from + len).min(self.len)])
    }

    /// Reads the frame at offset `at`, which must end at or below `limit`. `first` is the journal position of the
    /// file's first byte. The inner error: there is no valid frame.
    pub fn frame(
        &mut self,
        id: &JournalId,
        first: u64,
        file: &dyn File,
        at: u64,
        limit: u64,
    ) -> io::Result<Result<Frame<'_>, Malformed>> {
        let head = self.bytes(file, at, FRAME_HEADER, limit)?;
        let (header, checksum) = match FrameHeader::decode(id, first + at, head) {
            Ok(found) => found,
            Err(what) => return Ok(Err(what)),
        };
        let body = at + FRAME_HEADER as u64;
        if u64::from(header.stored) > limit - body {
            return Ok(Err(Malformed::Length));
        }
        if header.kind == FrameKind::Gap {
            return Ok(Ok(Frame { header, checksum, stored: &[] }));
        }
        let lenient = self.lenient;
        let stored = self.bytes(file, body, header.stored as usize, limit)?;
        if stored.len() < header.stored as usize {
            return Ok(Err(Malformed::Length));
        }
        if !header.payload_matches(stored) && !lenient {
            return Ok(Err(Malformed::PayloadChecksum));
        }
        Ok(Ok(Frame { header, checksum, stored }))
    }
}

pub(crate) fn decompress_frame<'b>(header: &FrameHeader, stored: &'b [u8]) -> Result<Cow<'b, [u8]>, Malformed> {
    match header.codec {
        Codec::Plain if header.raw == header.stored || header.kind == FrameKind::Gap => Ok(Cow::Borrowed(stored)),
        Codec::Plain => Err(Malformed::Length),
        codec => decompress(codec, stored, header.raw as usize).map(Cow::Owned),
    }
}
