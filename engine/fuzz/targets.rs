//! What the fuzzer does with bytes, and what a test does with those that it has kept.

// Each of the binaries needs one of both.
#![allow(dead_code)]

use slipring::journal::format::{Entry, FrameHeader, SegmentHeader, aligned, decompress, entries};
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::storage::{File, Storage};
use slipring::journal::{
    Codec, Journal, OpenError, Options, ReplayError, Start, State, Visible, inspect, open, repair,
};
use std::sync::Arc;

/// Heads, entries and packed payloads that are anything: read, or refused. What is read can be written again.
pub fn decode(bytes: &[u8]) {
    let _ = SegmentHeader::decode(bytes).map(|header| assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header)));
    let (id, rest) = bytes.split_at(bytes.len().min(16));
    let id: [u8; 16] = id.try_into().unwrap_or_default();
    if let Some((position, head)) = rest.split_first_chunk() {
        let position = u64::from_le_bytes(*position);
        if let Ok((header, checksum)) = FrameHeader::decode(&id, position, head) {
            let (again, same) = header.encode(&id);
            assert_eq!(FrameHeader::decode(&id, position, &again), Ok((header, same)));
            assert_eq!(same, checksum);
            assert!(header.span() >= 64);
        }
    }
    for entry in entries(bytes).flatten() {
        // Records without bytes cost nothing, so there may be as many as a number can say.
        if let Entry::Run(run) = entry {
            assert_eq!(run.records().take(10_000).count(), (run.count as usize).min(10_000));
        }
    }
    for codec in [Codec::Plain, Codec::Lz4, Codec::Zstd] {
        for raw in [0, 1, bytes.len(), 4096] {
            let plain = decompress(codec, bytes, raw);
            assert!(plain.is_err() || plain.is_ok_and(|plain| plain.len() == raw));
        }
    }
}

/// The names and contents of a journal's files.
pub type Files = [(&'static str, &'static [u8])];

/// Journals whose bytes are known: one of format 1, and one of format 2 with state of an engine and a gap.
pub const JOURNALS: [&Files; 2] = [&VERSION_1, &VERSION_2];

/// Two partitions in four segments.
const VERSION_1: [(&str, &[u8]); 8] = [
    ("00000000000000000001.segment", include_bytes!("../tests/data/journal-1/00000000000000000001.segment")),
    ("00000000000000000001.index", include_bytes!("../tests/data/journal-1/00000000000000000001.index")),
    ("00000000000000000002.segment", include_bytes!("../tests/data/journal-1/00000000000000000002.segment")),
    ("00000000000000000002.index", include_bytes!("../tests/data/journal-1/00000000000000000002.index")),
    ("00000000000000000003.segment", include_bytes!("../tests/data/journal-1/00000000000000000003.segment")),
    ("00000000000000000003.index", include_bytes!("../tests/data/journal-1/00000000000000000003.index")),
    ("00000000000000000004.segment", include_bytes!("../tests/data/journal-1/00000000000000000004.segment")),
    ("checkpoint", include_bytes!("../tests/data/journal-1/checkpoint")),
];

const VERSION_2: [(&str, &[u8]); 5] = [
    ("00000000000000000001.segment", include_bytes!("../tests/data/engine-journal-2/00000000000000000001.segment")),
    ("00000000000000000001.index", include_bytes!("../tests/data/engine-journal-2/00000000000000000001.index")),
    ("00000000000000000002.segment", include_bytes!("../tests/data/engine-journal-2/00000000000000000002.segment")),
    ("00000000000000000003.segment", include_bytes!("../tests/data/engine-journal-2/00000000000000000003.segment")),
    ("checkpoint", include_bytes!("../tests/data/engine-journal-2/checkpoint")),
];

/// Numbers at the ends of their ranges, and around the highest that a journal has.
pub const HOSTILE: [u64; 12] = [
    0,
    1,
    63,
    511,
    1 << 31,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 62,
    (1 << 62) + 1,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Where the numbers of a file begin that somebody could forge: all words of a derived one; of a segment those of its
/// head, of each frame's head, and of the first entries in the frame.
pub fn numbers(content: &[u8]) -> Vec<usize> {
    let words = |from: usize, to: usize| (from..to.min(content.len())).step_by(4);
    if !content.starts_with(b"SLIPRING") {
        return words(0, content.len()).collect();
    }
    let mut found: Vec<usize> = words(8, 60).collect();
    let mut at = 512;
    while content.get(at..).is_some_and(|frame| frame.starts_with(b"FRAM")) {
        found.extend(words(at + 4, at + 160));
        let stored = u32::from_le_bytes([content[at + 8], content[at + 9], content[at + 10], content[at + 11]]);
        at = aligned(at as u64 + 64 + u64::from(stored)) as usize;
    }
    found
}

/// The step of [`recover`] that puts a hostile number of so many bytes, a power of two, somewhere.
pub fn forged(file: usize, at: usize, width: usize, number: usize) -> [u8; 5] {
    let [low, high] = (at as u16).to_le_bytes();
    [0xf0 | width.trailing_zeros() as u8, file as u8, low, high, number as u8]
}

/// Takes `bytes` as a list of what happens to the files of a good journal: overwritten, made longer, cut, removed, or
/// made to match their checksums again, so that what is behind those is reached, too; or a number in them is
/// [`HOSTILE`]. Then it is looked at, opened, read, opened again, and repaired where that was refused: nothing panics,
/// records come in order, and what one opening gave the next one gives.
pub fn recover(bytes: &[u8]) {
    JOURNALS.iter().for_each(|files| recover_from(files, bytes));
}

/// As [`recover`], for one of [`JOURNALS`].
pub fn recover_from(files: &Files, bytes: &[u8]) {
    let disk = SimulatedDisk::new();
    for (name, content) in files {
        let write = |file: Arc<dyn File>| file.write_at(content, 0).and_then(|()| file.sync());
        disk.create(name).and_then(write).expect("a new disk takes files");
    }
    let mut left = bytes;
    while let Some(([what, file, low, high, len], rest)) = left.split_first_chunk::<5>() {
        let (name, at) =
            (files[usize::from(*file) % files.len()].0, usize::from(u16::from_le_bytes([*low, *high])) % 16384);
        if *what >= 0xf0 {
            let number = HOSTILE[usize::from(*len) % HOSTILE.len()].to_le_bytes();
            let number = &number[..1 << (what % 4)];
            disk.edit(name, |content| {
                if let Some(place) = content.get_mut(at..at + number.len()) {
                    place.copy_from_slice(number);
                }
            });
            seal_all(files, &disk);
            left = rest;
            continue;
        }
        let (new, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        left = rest;
        match what % 6 {
            0 | 1 => disk.edit(name, |content| {
                content.resize(content.len().max(at + new.len()), 0);
                content[at..at + new.len()].copy_from_slice(new);
            }),
            2 => disk.edit(name, |content| content.truncate(at)),
            3 => drop(disk.remove(name)),
            4 => disk.edit(name, |content| {
                new.iter().zip(content.iter_mut().skip(at)).for_each(|(new, old)| *old ^= new);
            }),
            _ => disk.edit(name, |content| {
                seal_again(name, content, None);
            }),
        }
    }
    // The files came from elsewhere, and are durable as they are.
    disk.sync_dir().expect("nothing fails yet");
    // The size that the journal was made with, as a repair takes it too: its state needs that room.
    let mut headers = files.iter().filter_map(|(_, content)| SegmentHeader::decode(content.get(..64)?).ok());
    let segment_size = headers.next_back().expect("a journal has segments").size;
    let options = Options { segment_size, helper: false, ..Options::default() };
    let _ = inspect(Arc::new(disk.copy()), true);
    let rehearsed = repair::rehearse(Arc::new(disk.copy()), 1, &mut |_| {}).is_ok();
    let first = disk.copy();
    match open(Arc::new(first.clone()), options.clone()) {
        Ok((writer, recovered)) => {
            let found = records(&writer.journal(), &recovered.state);
            drop(writer);
            let opened = open(Arc::new(first.crash(1)), options);
            let Some((writer, again)) = unless_exhausted(opened, "what was opened once opens again") else { return };
            assert_eq!(records(&writer.journal(), &again.state), found);
            assert!(again.torn.is_none(), "the torn end was cut");
        }
        Err(_) => {
            let mended = repair::repair(Arc::new(first.clone()), 1, &mut |_| {});
            assert_eq!(mended.is_ok(), rehearsed, "{mended:?}");
            if mended.is_ok() {
                let opened = open(Arc::new(first), options);
                let Some((writer, recovered)) = unless_exhausted(opened, "what was repaired opens") else { return };
                records(&writer.journal(), &recovered.state);
            }
        }
    }
}

/// What was opened; none if the journal says that it was opened as often as can be counted.
fn unless_exhausted<T>(opened: Result<T, OpenError>, about: &str) -> Option<T> {
    match opened {
        Err(OpenError::Exhausted) => None,
        opened => Some(opened.unwrap_or_else(|refused| panic!("{about}: {refused}"))),
    }
}

/// All that a journal gives, by partition; an error ends one.
fn records(journal: &Journal, state: &State) -> Vec<Vec<(u64, Vec<u8>)>> {
    let read = |partition| {
        let mut all = Vec::new();
        let Ok(mut reader) = journal.reader(partition, Start::Earliest, Visible::Written) else { return all };
        while all.len() < 10_000 {
            match reader.next() {
                Ok(Some(record)) => {
                    assert!(all.last().is_none_or(|(last, _)| *last < record.offset), "offsets go up");
                    all.push((record.offset, record.bytes.to_vec()));
                }
                Ok(None) => return all,
                // Told once, and it goes on behind.
                Err(ReplayError::Gap { .. }) => {}
                Err(_) => return all,
            }
        }
        all
    };
    state.extents().map(|(partition, _)| read(partition)).collect()
}

/// Gives all files the checksums that they should have, from one segment to the next.
fn seal_all(files: &Files, disk: &SimulatedDisk) {
    let mut last: Option<([u8; 4], [u8; 4])> = None;
    for (name, _) in files {
        disk.edit(name, |content| {
            match &last {
                // An index has the checksums of its segment's head and last frame.
                Some((head, frame)) if name.ends_with("index") && content.len() >= 64 => {
                    content[52..56].copy_from_slice(head);
                    content[56..60].copy_from_slice(frame);
                }
                _ => {}
            }
            let previous = last.map(|(_, frame)| u32::from_le_bytes(frame));
            let sealed = seal_again(name, content, previous);
            if let (Some(frame), Some(head)) = (sealed, content.get(60..64).and_then(|head| head.try_into().ok())) {
                last = Some((head, frame.to_le_bytes()));
            }
        });
    }
}

/// Gives heads and payloads the checksums that they should have; that of a segment's last frame.
fn seal_again(name: &str, content: &mut [u8], before: Option<u32>) -> Option<u32> {
    let seal = |bytes: &mut [u8], end: usize| {
        let checksum = crc32c::crc32c(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
    };
    if !name.ends_with("segment") {
        if content.len() > 4 {
            let end = content.len() - 4;
            seal(content, end);
        }
        return None;
    }
    if content.len() < 512 {
        return None;
    }
    seal(content, 60);
    let id: [u8; 16] = content[16..32].try_into().unwrap_or_default();
    let mut at = 512;
    let mut previous = before;
    while at + 64 <= content.len() {
        if &content[at..at + 4] != b"FRAM" {
            at += 64;
            continue;
        }
        let stored =
            u32::from_le_bytes([content[at + 8], content[at + 9], content[at + 10], content[at + 11]]) as usize;
        let end = (at + 64).saturating_add(stored);
        if content[at + 5] != 4 && end <= content.len() {
            let payload = crc32c::crc32c(&content[at + 64..end]);
            content[at + 52..at + 56].copy_from_slice(&payload.to_le_bytes());
        }
        if let Some(previous) = previous {
            let chained: u32 = previous;
            content[at + 48..at + 52].copy_from_slice(&chained.to_le_bytes());
        }
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&id), &content[at..at + 60]);
        content[at + 60..at + 64].copy_from_slice(&checksum.to_le_bytes());
        previous = Some(checksum);
        at = if end <= content.len() { aligned(end as u64) as usize } else { at + 64 };
    }
    previous
}
