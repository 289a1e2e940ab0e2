//! Reading the frames of a segment's file one after the other.

use super::format::{Codec, FRAME_HEADER, FrameHeader, FrameKind, JournalId, Malformed, unpack};
use super::options::Options;
use super::storage::File;
use std::borrow::Cow;
use std::io;

/// Reads ahead in a file, so that many small frames cost one call.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// A fault for tests: payloads pass whatever their checksum says.
    lenient: bool,
    bytes: Vec<u8>,
    at: u64,
    len: usize,
}

/// What is read at once, unless one frame is larger. All of the window stays in a core's own cache.
const CHUNK: usize = 256 << 10;

/// What it may hold before what was read is overwritten.
const HELD: usize = 1 << 20;

/// A frame that was found to be whole.
#[derive(Debug)]
pub(crate) struct Frame<'w> {
    pub header: FrameHeader,
    pub checksum: u32,
    /// As it is stored; empty for a gap.
    pub stored: &'w [u8],
}

impl Window {
    pub fn new(options: &Options) -> Self {
        Self { lenient: options.sabotage().accept_bad_checksums, ..Self::default() }
    }

    /// Forgets what it has: the file is another one, or has changed.
    pub fn reset(&mut self) {
        self.len = 0;
    }

    /// `len` bytes at `at`, fewer if `limit` is nearer or the file ends.
    pub fn bytes(&mut self, file: &dyn File, at: u64, len: usize, limit: u64) -> io::Result<&[u8]> {
        let Some(left) = limit.checked_sub(at) else { return Ok(&[]) };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let len = len.min(left);
        let within = at >= self.at && at + len as u64 <= self.at + self.len as u64;
        if !within {
            let want = CHUNK.max(len).min(left);
            let begin = at.checked_sub(self.at).and_then(|begin| usize::try_from(begin).ok());
            // What it has of that already is not read again, and moved only where it would be too much otherwise.
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
                // An error leaves what was there before.
                self.len += file.read_at(&mut self.bytes[have..begin + want], place)?;
            }
        }
        let from = (at - self.at) as usize;
        Ok(&self.bytes[from.min(self.len)..(from + len).min(self.len)])
    }

    /// The frame at `at`, if there is a whole one below `limit`.
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

pub(crate) fn unpack_frame<'b>(header: &FrameHeader, stored: &'b [u8]) -> Result<Cow<'b, [u8]>, Malformed> {
    match header.codec {
        Codec::Plain if header.raw == header.stored || header.kind == FrameKind::Gap => Ok(Cow::Borrowed(stored)),
        Codec::Plain => Err(Malformed::Length),
        codec => unpack(codec, stored, header.raw as usize).map(Cow::Owned),
    }
}
