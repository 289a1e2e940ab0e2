//! After a repair the journal opens, returns no wrong record, and reports the lost ones: for each flipped byte, each
//! cut or missing file, and each crash during the repair.

#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges of lost offsets, some of which have one")]

use super::*;
use crate::files::names::{segment_name, segment_number};
use crate::format::SegmentHeader;
use crate::repair::{RepairAction, RepairError, RepairedPlace, repair};
use crate::simulated::{Fault, SimulatedDisk};
use crate::storage::Storage;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

type Contents = BTreeMap<(PartitionId, u64), Vec<u8>>;

/// A journal with at least four segments, two partitions, a state and two openings. If `closed`, the last opening was
/// closed; otherwise its process was killed.
fn journal(closed: bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    for opening in 0..2_u64 {
        let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
        for step in 0..12_u64 {
            let offset = opening * 12 + step;
            let mut frame = FrameBuilder::new();
            frame.record(part(0), offset, None, &[offset as u8; 300]);
            frame.record(part(1), offset * 2, None, &offset.to_le_bytes());
            frame.put(9, b"last", &offset.to_le_bytes());
            writer.append(&mut frame, 100 + offset).unwrap();
            writer.sync().unwrap();
        }
        if closed || opening == 0 {
            writer.close(200).unwrap();
        } else {
            let mut frame = FrameBuilder::new();
            writer.reserve(&mut frame, part(0), 500);
            writer.append(&mut frame, 300).unwrap();
            writer.sync().unwrap();
        }
    }
    disk.copy()
}

/// All records, read both by partition and by frame. Gaps are skipped.
fn contents(disk: &SimulatedDisk) -> Contents {
    let survey = inspect(Arc::new(disk.clone()), true).unwrap();
    let journal = survey.journal(Arc::new(disk.clone()));
    let mut found = Contents::new();
    for (partition, _) in journal.extents() {
        let mut reader = journal.reader(partition, Start::Earliest, Visible::Durable).unwrap();
        loop {
            match reader.next() {
                Ok(Some(record)) => drop(found.insert((partition, record.offset), record.bytes.to_vec())),
                Ok(None) => break,
                Err(ReplayError::Gap { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
    let mut by_frame = Contents::new();
    let mut frames = survey.frames(Arc::new(disk.clone()));
    while let Some(frame) = frames.next().unwrap() {
        for entry in format::entries(&frame.plain) {
            if let format::Entry::Run(run) = entry.unwrap() {
                by_frame.extend(run.records().map(|r| ((run.partition, r.offset), r.bytes.to_vec())));
            }
        }
    }
    assert_eq!(found, by_frame);
    found
}

/// The gaps that a reader of each partition reports. Checks that each is reported once, at its offset.
fn told(journal: &Journal) -> BTreeMap<PartitionId, Vec<Range<u64>>> {
    let mut told: BTreeMap<PartitionId, Vec<Range<u64>>> = BTreeMap::new();
    for (partition, _) in journal.extents() {
        let mut reader = journal.reader(partition, Start::Earliest, Visible::Durable).unwrap();
        let mut next = 0;
        loop {
            match reader.next() {
                Ok(Some(record)) => {
                    assert!(record.offset >= next, "{partition:?}: {} was told to be lost", record.offset);
                    next = record.offset + 1;
                }
                Ok(None) => break,
                Err(ReplayError::Gap { partition: of, offsets }) => {
                    assert!(of == partition && offsets.start >= next && offsets.end > offsets.start);
                    next = offsets.end;
                    told.entry(partition).or_default().push(offsets);
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(reader.next(), Ok(None)), "told twice");
    }
    told
}

fn kept_aside(disk: &SimulatedDisk) -> BTreeSet<Vec<u8>> {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".bin"));
    names.map(|name| disk.contents(&name).unwrap()).collect()
}

/// Repairs the journal, and checks all that must hold afterwards. Returns the count of lost records.
fn mend(disk: &SimulatedDisk, all: &Contents, highest: u64) -> usize {
    let repaired = repair(Arc::new(disk.clone()), 999, &mut |_| {}).unwrap();
    let left = contents(disk);
    for (place, bytes) in &left {
        assert_eq!(all.get(place), Some(bytes), "{place:?} is wrong");
    }
    let torn = repaired.torn.is_some();
    for (place, _) in all.iter().filter(|(place, _)| !left.contains_key(place)) {
        let named = repaired.lost.iter().any(|(partition, range)| *partition == place.0 && range.contains(&place.1));
        assert!(named || repaired.skipped_offsets || torn, "{place:?} is gone and was not named: {repaired:?}");
    }
    let gone = all.len() - left.len();
    let turned = |mended: &RepairedPlace| matches!(mended.what, Malformed::PayloadChecksum | Malformed::Checksum);
    if repaired.places.iter().any(|mended| matches!(mended.action, RepairAction::Gap(_)) && turned(mended)) && gone > 0
    {
        assert!(!kept_aside(disk).is_empty(), "copied aside: {repaired:?}");
    }
    // The journal can be written again, and no offset is issued twice.
    let opened = open(Arc::new(disk.clone()), small());
    let (mut writer, recovered) = opened.unwrap_or_else(|cause| panic!("{cause}, after {repaired:?}"));
    assert_eq!(recovered.lost, [], "the repair has found it out");
    // Each reader reports the losses of its own partition, and no others, as far as that can be known.
    let told = told(&writer.journal());
    let is_told = |(of, offset): &(PartitionId, u64)| {
        told.get(of).is_some_and(|gaps| gaps.iter().any(|gap| gap.contains(offset)))
    };
    for place in all.keys().filter(|place| !left.contains_key(place)) {
        assert!(torn || is_told(place), "{place:?} is gone and nobody is told: {told:?} {repaired:?}");
    }
    for (partition, gaps) in &told {
        for gap in gaps {
            let lost = all.keys().any(|(of, offset)| of == partition && gap.contains(offset));
            // Partition 1 has only even offsets, so a gap of it may cover offsets that no record had.
            assert!(lost || *partition != part(0) || repaired.skipped_offsets, "{gap:?} lost nothing: {repaired:?}");
        }
    }
    let extent = recovered.state.extent(part(0)).unwrap_or_default();
    let next = extent.end.max(extent.reserved);
    assert!(gone > 0 || torn || next >= highest, "{extent:?} {repaired:?}");
    assert!(torn || next >= all.keys().filter(|(p, _)| *p == part(0)).map(|(_, offset)| offset + 1).max().unwrap());
    let mut frame = FrameBuilder::new();
    frame.record(part(0), next, None, b"new");
    writer.append(&mut frame, 1000).unwrap();
    writer.close(1001).unwrap();
    assert_eq!(contents(disk).get(&(part(0), next)).unwrap(), b"new");
    gone
}

#[test]
fn a_sound_journal_is_left_alone() {
    for closed in [true, false] {
        let disk = journal(closed);
        let calls = disk.calls();
        let repaired = repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
        assert!(repaired.places.is_empty() && repaired.torn.is_none());
        assert_eq!(disk.calls(), calls);
    }
}

#[test]
fn each_turned_byte_can_be_repaired() {
    for closed in [true, false] {
        let (disk, highest) = (journal(closed), if closed { 24 } else { 500 });
        let all = contents(&disk);
        assert_eq!(all.len(), 48);
        let names = disk.list().unwrap().into_iter().filter(|name| segment_number(name).is_some());
        for name in names {
            let bytes = disk.contents(&name).unwrap();
            // One byte in 24, and every other byte of the segment header.
            let places = (0..bytes.len()).filter(|at| at % 24 == 3 || (*at < 60 && at % 2 == 0));
            for at in places.filter(|at| bytes[at / 64 * 64..].iter().take(64).any(|byte| *byte != 0)) {
                let bad = disk.copy();
                bad.edit(&name, |bytes| bytes[at] ^= 1 << (at % 8));
                let gone = mend(&bad, &all, highest);
                assert!(gone <= 2, "{name} byte {at}: {gone} records are gone, a frame has two");
            }
        }
    }
}

#[test]
fn each_cut_and_each_missing_segment_can_be_repaired() {
    let disk = journal(true);
    let all = contents(&disk);
    let names: Vec<_> = disk.list().unwrap().into_iter().filter(|name| segment_number(name).is_some()).collect();
    for name in &names {
        let len = disk.contents(name).unwrap().len();
        for at in (0..len).step_by(97) {
            let bad = disk.copy();
            bad.edit(name, |bytes| bytes.truncate(at));
            mend(&bad, &all, 0);
        }
        let bad = disk.copy();
        bad.remove(name).unwrap();
        mend(&bad, &all, 0);
    }
    // For each segment: all other segments are removed.
    for stays in &names {
        let bad = disk.copy();
        names.iter().filter(|name| *name != stays).for_each(|name| bad.remove(name).unwrap());
        let number = segment_number(stays).unwrap();
        let repaired = repair(Arc::new(bad.clone()), 1, &mut |_| {}).unwrap();
        assert!(!repaired.places.is_empty());
        assert!(
            inspect(Arc::new(bad), true)
                .unwrap()
                .segments()
                .iter()
                .any(|s| s.header.number == number && !s.header.lost)
        );
    }
    let bad = disk.copy();
    names.iter().for_each(|name| bad.remove(name).unwrap());
    assert!(matches!(repair(Arc::new(bad), 1, &mut |_| {}), Err(RepairError::Irreparable { .. })));
}

#[test]
fn a_repair_that_is_cut_off_anywhere_is_run_again() {
    let disk = journal(false);
    let all = contents(&disk);
    let mut states = 0;
    for (name, at) in [(segment_name(1), 600), (segment_name(2), 20), (segment_name(2), 530), (segment_name(3), 1500)] {
        let bad = disk.copy();
        bad.edit(&name, |bytes| bytes[at..at + 30].iter_mut().for_each(|byte| *byte ^= 0xa5));
        for nth in 1.. {
            let now = bad.copy();
            now.fail_at(nth, Fault::PowerCut);
            let cut = repair(Arc::new(now.clone()), 1, &mut |_| {}).is_err();
            for seed in 0..6 {
                let after = now.crash(seed);
                // The repair is run again. With an odd seed, if no damage remains, an opening alone must be enough.
                if seed % 2 == 1 && inspect(Arc::new(after.clone()), true).is_ok() {
                    open(Arc::new(after.clone()), small()).unwrap();
                } else {
                    repair(Arc::new(after.clone()), 1, &mut |_| {})
                        .unwrap_or_else(|cause| panic!("{name} {nth} {seed}: {cause}"));
                }
                let left = contents(&after);
                let told = told(&inspect(Arc::new(after.clone()), true).unwrap().journal(Arc::new(after.clone())));
                for (of, offset) in all.keys().filter(|place| !left.contains_key(place)) {
                    let is_told = told.get(of).is_some_and(|gaps| gaps.iter().any(|gap| gap.contains(offset)));
                    assert!(is_told, "{name} {nth} {seed}: {of:?} {offset} is gone in silence: {told:?}");
                }
                assert!(left.iter().all(|(place, bytes)| all.get(place) == Some(bytes)));
                assert!(all.len() - left.len() <= 4, "{name} {nth} {seed}: {} left", left.len());
                states += 1;
            }
            if !cut {
                break;
            }
        }
    }
    assert!(states > 200, "{states}");
}

/// Four partitions with sixty records each. `marks` selects, by partition and offset, the records whose bytes are
/// flipped.
fn four_partitions(closed: bool, marks: impl Fn(u64, u64) -> bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    for offset in 0..60_u64 {
        for partition in 0..4 {
            let mut frame = FrameBuilder::new();
            let mark = if marks(partition, offset) { b"turn me!" } else { b"as it is" };
            frame.record(part(partition as u32), offset, None, &[&mark[..], &[7; 100]].concat());
            writer.append(&mut frame, 100 + offset).unwrap();
        }
        writer.sync().unwrap();
    }
    match closed {
        true => writer.close(200).unwrap(),
        false => drop(writer),
    }
    for name in disk.list().unwrap().into_iter().filter(|name| segment_number(name).is_some()) {
        disk.edit(&name, |bytes| {
            let places: Vec<_> = bytes.windows(8).enumerate().filter(|(_, it)| *it == b"turn me!").collect();
            let places: Vec<_> = places.into_iter().map(|(at, _)| at).collect();
            places.into_iter().for_each(|at| bytes[at] ^= 1);
        });
    }
    disk
}

#[test]
fn a_gap_is_told_to_who_reads_there_and_to_nobody_else() {
    for closed in [true, false] {
        let turned = |partition, offset| partition == 1 && matches!(offset, 7 | 8 | 30);
        let disk = four_partitions(closed, turned);
        repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
        // The gaps stay known through openings and snapshots.
        for _ in 0..3 {
            let (writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
            let journal = writer.journal();
            assert_eq!(told(&journal), BTreeMap::from([(part(1), vec![7..9, 30..31])]));
            let told_from = |start, partition| {
                let mut reader = journal.reader(part(partition), start, Visible::Durable).unwrap();
                let mut told = Vec::new();
                loop {
                    match reader.next() {
                        Ok(None) => return told,
                        Ok(Some(_)) => {}
                        Err(ReplayError::Gap { offsets, .. }) => told.push(offsets),
                        Err(other) => panic!("{other}"),
                    }
                }
            };
            assert_eq!(told_from(Start::Offset(8), 1), [8..9, 30..31]);
            assert_eq!(told_from(Start::Offset(9), 1), [30..31]);
            assert_eq!(told_from(Start::Latest, 1), []);
            // The time of a record is its offset plus 100.
            assert_eq!(told_from(Start::Time(100), 1), [7..9, 30..31]);
            assert_eq!(told_from(Start::Time(107), 1), [7..9, 30..31], "one that is lost may have been the first");
            assert_eq!(told_from(Start::Time(110), 1), [30..31]);
            assert_eq!(told_from(Start::Time(131), 1), [30..31]);
            assert_eq!(told_from(Start::Time(132), 1), []);
            assert_eq!(
                (journal.first_since(part(1), 130), journal.first_since(part(2), 130)),
                (Ok(Some(30)), Ok(Some(30)))
            );
            assert_eq!(told_from(Start::Time(131), 2), []);
        }
    }
}

#[test]
fn what_is_lost_at_the_ends_of_a_partition_is_told_too() {
    // The last record of partition 2, after which partition 3 has a record, and the first record of partition 3, which
    // no known offset precedes.
    let disk =
        four_partitions(true, |partition, offset| (partition, offset) == (2, 59) || (partition, offset) == (3, 0));
    repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
    let (writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    assert_eq!(told(&writer.journal()), BTreeMap::from([(part(2), vec![59..60]), (part(3), vec![0..1])]));
}

#[test]
fn gaps_are_forgotten_with_their_segments() {
    let disk = four_partitions(true, |partition, offset| (partition, offset) == (1, 7));
    repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    assert_eq!(gaps(writer.state()).len(), 1);
    let keep = Retention { age: None, bytes: Some(2000) };
    writer.retain(1000, |_| keep).unwrap();
    assert_eq!(gaps(writer.state()), []);
    writer.close(1001).unwrap();
    let (writer, _) = open(Arc::new(disk), small()).unwrap();
    assert_eq!((gaps(writer.state()), told(&writer.journal())), (Vec::new(), BTreeMap::new()));
}

#[test]
fn damage_in_many_places_is_mended_in_one_run() {
    let disk = journal(true);
    let all = contents(&disk);
    for (name, at) in [(segment_name(1), 1500), (segment_name(1), 600), (segment_name(3), 10), (segment_name(4), 2000)]
    {
        disk.edit(&name, |bytes| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
        });
    }
    disk.remove(&segment_name(2)).unwrap();
    let gone = mend(&disk, &all, 0);
    assert!((5..40).contains(&gone), "{gone}");
}

/// Such a segment must not be put aside and renamed back again and again.
#[test]
fn a_segment_without_frames_that_belongs_elsewhere_is_put_aside_once() {
    let mut times = 0;
    for name in journal(true).list().unwrap().into_iter().filter(|name| segment_number(name).is_some()) {
        let disk = journal(true);
        disk.edit(&name, |content| {
            let header = SegmentHeader::decode(content).unwrap();
            let elsewhere = SegmentHeader { first: header.first + 8 * header.size, ..header };
            content[..64].copy_from_slice(&elsewhere.encode());
            content[64..].fill(0);
        });
        match repair(Arc::new(disk.clone()), 1, &mut |_| {}) {
            Ok(repaired) => {
                let aside = repaired.places.iter().filter(|mended| mended.at == 0 && mended.copy.is_some());
                assert!(aside.count() <= 1, "{name}: {:?}", repaired.places);
                times += usize::from(!repaired.places.is_empty());
            }
            Err(refused) => panic!("{name}: {refused}"),
        }
        assert!(open(Arc::new(disk), small()).is_ok(), "{name}");
    }
    assert!(times > 2, "{times}");
}

#[test]
fn one_that_is_open_is_not_repaired() {
    let disk = SimulatedDisk::new();
    let (_writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    let refused = repair(Arc::new(disk), 1, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, RepairError::Open(OpenError::Locked { .. })), "{refused}");
}
