//! One file of the journal: making it, and reading its frames through a window.

use super::Options;
use super::error::{DiskError, Malformed};
use super::files::{Files, SegmentFile};
use super::format::{
    FRAME_HEADER, FrameHeader, FrameKind, JournalId, MAX_POSITION, MAX_SEGMENT, PartitionId, SEGMENT_HEAD,
    SegmentHeader,
};
use super::helper::CHECKPOINT;
use super::index::Index;
use super::recovery::COPY;
use super::storage::{File, Storage};
use super::surveyor::last_set;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A segment that is open.
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub name: String,
    pub file: SegmentFile,
    /// Where its frames end; grows while it is written.
    end: AtomicU64,
    /// A repair took its snapshot away: it can't be the first one that an opening reads, so it gets no index.
    headless: AtomicBool,
    index: Mutex<Index>,
}

/// What is known of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Its header.
    pub header: SegmentHeader,
    /// Where its frames end in the file.
    pub end: u64,
    /// Bytes of the file.
    pub file: u64,
    /// It is complete, and its index is tied to it.
    pub sealed: bool,
    /// What it has of each partition.
    pub places: Vec<PlaceReport>,
}

/// What a segment has of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaceReport {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: u64,
    /// The offset after the last one.
    pub end: u64,
    /// How many records.
    pub records: u64,
    /// Bytes of the records, with their lengths and times.
    pub bytes: u64,
    /// The latest time of a record: nanoseconds since the epoch.
    pub latest: u64,
}

/// The name of a segment's file. As wide as the largest number, so that names sort.
pub fn segment_name(number: u64) -> String {
    format!("{number:020}.segment")
}

pub(crate) fn index_name(number: u64) -> String {
    format!("{number:020}.index")
}

/// The ending of files that are being made; they are nobody's until they are renamed.
pub(crate) const UNFINISHED: &str = ".new";

/// Whether a file of this name is the journal's: what else lies in the directory is left alone.
pub(crate) fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
    let put_aside = |name: &str| {
        let name = name.strip_suffix(".bin")?;
        let numbers = name.strip_prefix("torn-").or_else(|| name.strip_prefix("damaged-"))?;
        let (position, turn) = numbers.split_once('-')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        Some(position.len() == 20 && digits(position) && digits(turn))
    };
    let index = || name.strip_suffix(".index").map(|number| format!("{number}.segment"));
    let numbered = |name: &str| segment_number(name).is_some();
    [CHECKPOINT, "lock"].contains(&name)
        || numbered(name)
        || index().is_some_and(|segment| numbered(&segment))
        || put_aside(name) == Some(true)
}

/// The number in the name of a segment.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { digits.parse().ok() } else { None };
    number.filter(|number| (1..MAX_POSITION).contains(number))
}

impl Segment {
    pub fn new(header: SegmentHeader, file: SegmentFile) -> Self {
        let (name, end) = (segment_name(header.number), AtomicU64::new(SEGMENT_HEAD));
        Self { header, name, file, end, headless: AtomicBool::new(false), index: Mutex::default() }
    }

    pub fn headless(&self) -> bool {
        self.headless.load(Ordering::Relaxed)
    }

    pub fn set_headless(&self) {
        self.headless.store(true, Ordering::Relaxed);
    }

    /// Whether it begins with a whole snapshot.
    pub fn knows_its_head(&self) -> bool {
        !self.header.lost && !self.headless() && self.end() > SEGMENT_HEAD
    }

    pub fn report(&self, sealed: bool) -> SegmentReport {
        let index = self.index();
        let places = index.partitions.iter().map(|(partition, place)| PlaceReport {
            partition: *partition,
            first: place.first,
            end: place.end,
            records: place.records,
            bytes: place.bytes,
            latest: place.latest,
        });
        let places = places.collect();
        let file = self.file.size().unwrap_or(0);
        SegmentReport { header: self.header, end: self.end(), file, sealed: sealed && !self.header.lost, places }
    }

    /// Makes a segment: nobody sees it before it is whole and durable.
    /// Its file is held.
    pub fn make(files: &Arc<Files>, header: SegmentHeader) -> Result<Self, DiskError> {
        let name = segment_name(header.number);
        if !header.is_sane() {
            let cause = io::Error::other("the journal's numbers are as high as they can be");
            return Err(DiskError::new("make", &name, &cause));
        }
        files.forget(header.number);
        let made = |file: &dyn File| {
            file.allocate(header.size)?;
            file.write_at(&header.encode(), 0)
        };
        let made = files.with_room(|| finish(&**files.storage(), &name, made));
        let segment = Self::new(header, files.file(header.number));
        segment.file.hold_this(made.map_err(|cause| segment.disk_error("make", &cause))?);
        Ok(segment)
    }

    /// Where its frames end.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// The journal's position of a byte of the file.
    pub fn position(&self, at: u64) -> u64 {
        self.header.first + at
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn disk_error(&self, doing: &'static str, cause: &io::Error) -> DiskError {
        DiskError::new(doing, &self.name, cause)
    }
}

/// Makes a file under another name, and gives it its own when it is whole and durable. A segment replaces nothing.
pub(crate) fn finish(
    storage: &dyn Storage,
    name: &str,
    fill: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<Arc<dyn File>> {
    finish_as(storage, name, segment_number(name).is_none(), fill)
}

fn finish_as(
    storage: &dyn Storage,
    name: &str,
    replace: bool,
    fill: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<Arc<dyn File>> {
    let unfinished = format!("{name}{UNFINISHED}");
    let file = match storage.create(&unfinished) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(&unfinished)?;
            storage.create(&unfinished)?
        }
        created => created?,
    };
    fill(&*file)?;
    file.sync()?;
    if replace { storage.rename(&unfinished, name) } else { storage.rename_new(&unfinished, name) }?;
    if let Err(cause) = storage.sync_dir() {
        // It can be tried again.
        if !replace {
            let _ = storage.remove(name);
        }
        return Err(cause);
    }
    Ok(file)
}

/// Opens a segment's file to be written. One that has other names is copied first, and the copy takes its place: what a copy
/// of the directory by links has of it stays as it is.
pub(crate) fn open_own(storage: &dyn Storage, name: &str) -> io::Result<Arc<dyn File>> {
    let shared = storage.open(name, false)?;
    if shared.links()? <= 1 {
        return storage.open(name, true);
    }
    let mut head = [0; 64];
    let read = shared.read_at(&mut head, 0)?;
    // No byte behind that is the segment's.
    let most = SegmentHeader::decode(&head[..read]).map_or(MAX_SEGMENT, |header| header.size);
    let size = shared.size()?.min(most);
    finish_as(storage, name, true, |own| {
        own.truncate(size)?;
        let mut window = Window::default();
        let mut at = 0;
        while at < size {
            let bytes = window.bytes(&*shared, at, COPY, size)?;
            if bytes.is_empty() {
                break;
            }
            if last_set(bytes).is_some() {
                own.write_at(bytes, at)?;
            }
            at += bytes.len() as u64;
        }
        Ok(())
    })
}

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
