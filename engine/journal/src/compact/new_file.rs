//! The new file of a segment that is being compacted, under its temporary name.

use crate::compact::closing_mark::closing_mark;
use crate::error::DiskError;
use crate::files::names::{UNFINISHED, segment_name};
use crate::format::{
    ALIGN, Codec, FRAME_HEADER, FrameBuilder, FrameHeader, FrameKind, SEGMENT_HEAD, SegmentHeader, aligned, compress,
    trusted_entries,
};
use crate::index::Index;
use crate::shared::Shared;
use crate::storage::File;
use std::io;
use std::sync::Arc;

/// After this many bytes the file is synced, so that no single sync takes long.
const SYNC_AFTER: u64 = 4 << 20;

pub(super) struct NewFile {
    header: SegmentHeader,
    name: String,
    file: Arc<dyn File>,
    /// The offset in the file at which the next frame is written, in bytes.
    pub at: u64,
    unsynced: u64,
    /// The checksum of the last frame.
    previous: u32,
    /// The index of the frames written so far.
    pub index: Index,
}

impl NewFile {
    pub fn create(shared: &Shared, header: &SegmentHeader) -> Result<Self, DiskError> {
        let name = format!("{}{UNFINISHED}", segment_name(header.number));
        let made = || {
            match shared.storage.remove(&name) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
            let file = shared.files.with_room(|| shared.storage.create(&name))?;
            file.write_at(&header.encode(), 0)?;
            Ok(file)
        };
        let file = made().map_err(|cause| DiskError::new("write", &name, &cause))?;
        let (at, unsynced, previous, index) = (SEGMENT_HEAD, 0, 0, Index::default());
        Ok(Self { header: *header, name, file, at, unsynced, previous, index })
    }

    /// Removes the file.
    pub fn discard(self, shared: &Shared) {
        drop(self.file);
        // A file that stays is removed by the next opening.
        let _ = shared.storage.remove(&self.name);
    }

    fn failed(&self, doing: &'static str, cause: &io::Error) -> DiskError {
        DiskError::new(doing, &self.name, cause)
    }

    /// Writes a frame of the snapshot as it is: it has the place that it had in the old file.
    pub fn copy(&mut self, shared: &Shared, header: FrameHeader, stored: &[u8]) -> Result<(), DiskError> {
        self.put(shared, header, stored, &[])
    }

    /// Writes a frame at its new place. `plain` is its payload, whose runs are indexed.
    pub fn write(&mut self, shared: &Shared, like: FrameHeader, stored: &[u8], plain: &[u8]) -> Result<(), DiskError> {
        let position = self.header.first + self.at;
        // A lower durable mark than the old one is true as well, and the old one may lie behind the end of the new file.
        let durable = like.durable.min(self.header.first);
        self.put(shared, FrameHeader { position, durable, previous: self.previous, ..like }, stored, plain)
    }

    /// Writes the payload of `frame` with the codec, time and opening of `like`.
    pub fn write_payload(
        &mut self,
        shared: &Shared,
        like: FrameHeader,
        frame: &mut FrameBuilder,
    ) -> Result<(), DiskError> {
        let entries = frame.entries();
        let plain = frame.payload();
        let packed = compress(like.codec, plain);
        let (codec, bytes) = packed.as_deref().map_or((Codec::Plain, plain), |packed| (like.codec, packed));
        let (stored, raw, payload) = (bytes.len() as u32, plain.len() as u32, crc32c::crc32c(bytes));
        let header = FrameHeader { kind: FrameKind::Data, codec, stored, raw, entries, payload, ..like };
        self.write(shared, header, bytes, plain)
    }

    /// Writes the closing mark, whose header gets the checksum `wanted`, with the time and opening of `last`, and syncs the
    /// file.
    pub fn close(&mut self, shared: &Shared, last: FrameHeader, wanted: u32) -> Result<(), DiskError> {
        let mark = FrameHeader {
            kind: FrameKind::Mark,
            codec: Codec::Plain,
            stored: 0,
            raw: 0,
            position: self.header.first + self.at,
            // The next segment has durable frames, so the journal does not end before it.
            durable: self.header.first + self.header.size,
            entries: 0,
            previous: self.previous,
            payload: 0,
            ..last
        };
        self.put(shared, closing_mark(mark, &shared.id, wanted), &[], &[])?;
        self.sync()
    }

    fn put(&mut self, shared: &Shared, header: FrameHeader, stored: &[u8], plain: &[u8]) -> Result<(), DiskError> {
        let (head, checksum) = header.encode(&shared.id);
        let len = aligned((FRAME_HEADER + stored.len()) as u64);
        let padding = &[0; ALIGN as usize][..len as usize - FRAME_HEADER - stored.len()];
        let end = self.at + len;
        let written = self.file.write_parts_at(&[&head, stored, padding], self.at);
        written.map_err(|cause| self.failed("write to", &cause))?;
        self.index.frame(self.at, end, checksum, header.time);
        for entry in trusted_entries(plain).flatten() {
            self.index.entry(self.at, end, header.time, &entry);
        }
        (self.at, self.previous) = (end, checksum);
        self.unsynced += len;
        if self.unsynced >= SYNC_AFTER { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.unsynced = 0;
        self.file.sync().map_err(|cause| self.failed("sync", &cause))
    }

    /// Gives the file the name of the segment, in the place of the old file.
    pub fn rename(&self, shared: &Shared, name: &str) -> Result<(), DiskError> {
        shared.storage.rename(&self.name, name).map_err(|cause| self.failed("rename", &cause))
    }
}
