//! What the fuzzer does with bytes, and what a test does with those that it has kept.

// Each of the binaries needs one of both.
#![allow(dead_code)]

use slipring::journal::format::{Entry, FrameHeader, SegmentHeader, aligned, entries, unpack};
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::storage::Storage;
use slipring::journal::{Codec, Journal, Options, ReplayError, Start, State, Visible, inspect, open, repair};
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
            let plain = unpack(codec, bytes, raw);
            assert!(plain.is_err() || plain.is_ok_and(|plain| plain.len() == raw));
        }
    }
}

/// A journal whose bytes are known, of two partitions and four segments.
const FILES: [(&str, &[u8]); 8] = [
    ("00000000000000000001.segment", include_bytes!("../tests/data/journal-1/00000000000000000001.segment")),
    ("00000000000000000001.index", include_bytes!("../tests/data/journal-1/00000000000000000001.index")),
    ("00000000000000000002.segment", include_bytes!("../tests/data/journal-1/00000000000000000002.segment")),
    ("00000000000000000002.index", include_bytes!("../tests/data/journal-1/00000000000000000002.index")),
    ("00000000000000000003.segment", include_bytes!("../tests/data/journal-1/00000000000000000003.segment")),
    ("00000000000000000003.index", include_bytes!("../tests/data/journal-1/00000000000000000003.index")),
    ("00000000000000000004.segment", include_bytes!("../tests/data/journal-1/00000000000000000004.segment")),
    ("checkpoint", include_bytes!("../tests/data/journal-1/checkpoint")),
];

/// Takes `bytes` as a list of what happens to the files of a good journal: overwritten, made longer, cut, removed, or made
/// to match their checksums again, so that what is behind those is reached, too. Then it is looked at, opened, read,
/// opened again, and repaired where that was refused: nothing panics, records come in order, and what one opening gave the
/// next one gives.
pub fn recover(bytes: &[u8]) {
    let disk = SimulatedDisk::new();
    for (name, content) in FILES {
        disk.create(name).and_then(|file| file.write_at(content, 0)).expect("a new disk takes files");
    }
    let mut left = bytes;
    while let Some(([what, file, low, high, len], rest)) = left.split_first_chunk::<5>() {
        let (name, at) =
            (FILES[usize::from(*file) % FILES.len()].0, usize::from(u16::from_le_bytes([*low, *high])) % 8192);
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
            _ => disk.edit(name, |content| seal_again(name, content)),
        }
    }
    let options = Options { segment_size: 4096, helper: false, ..Options::default() };
    let _ = inspect(&disk.copy(), true);
    let rehearsed = repair::rehearse(Arc::new(disk.copy()), 1, &mut |_| {}).is_ok();
    let first = disk.copy();
    match open(Arc::new(first.clone()), options.clone()) {
        Ok((writer, recovered)) => {
            let found = records(&writer.journal(), &recovered.state);
            drop(writer);
            let (writer, again) = open(Arc::new(first.crash(1)), options).expect("what was opened once opens again");
            assert_eq!(records(&writer.journal(), &again.state), found);
            assert!(again.torn.is_none(), "the torn end was cut");
        }
        Err(_) => {
            let mended = repair::repair(Arc::new(first.clone()), 1, &mut |_| {});
            assert_eq!(mended.is_ok(), rehearsed, "{mended:?}");
            if mended.is_ok() {
                let (writer, recovered) = open(Arc::new(first), options).expect("what was repaired opens");
                records(&writer.journal(), &recovered.state);
            }
        }
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

/// Gives heads and payloads the checksums that they should have.
fn seal_again(name: &str, content: &mut [u8]) {
    let seal = |bytes: &mut [u8], end: usize| {
        let checksum = crc32c::crc32c(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
    };
    if !name.ends_with("segment") {
        if content.len() > 4 {
            let end = content.len() - 4;
            seal(content, end);
        }
        return;
    }
    if content.len() < 512 {
        return;
    }
    seal(content, 60);
    let id: [u8; 16] = content[16..32].try_into().unwrap_or_default();
    let mut at = 512;
    let mut previous = None;
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
}
