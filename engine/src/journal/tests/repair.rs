//! After a repair the journal opens, nothing that it gives is wrong, and what was lost was named: for each byte turned, each
//! file cut or taken away, and each crash in between.

use super::super::repair::{How, Mended, RepairError, repair};
use super::super::segment::{segment_name, segment_number};
use super::super::simulated::{Fault, SimulatedDisk};
use super::super::storage::Storage;
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Contents = BTreeMap<(PartitionId, u64), Vec<u8>>;

/// Four segments and more, two partitions, a state, two openings; the last one closed, or its process killed.
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

/// All records, read by partition and by frame alike; gaps are passed.
fn contents(disk: &SimulatedDisk) -> Contents {
    let survey = inspect(disk, true).unwrap();
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
    loop {
        let frame = match frames.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(ReplayError::Gap { .. }) => continue,
            Err(other) => panic!("{other}"),
        };
        for entry in format::entries(&frame.plain) {
            if let format::Entry::Run(run) = entry.unwrap() {
                by_frame.extend(run.records().map(|r| ((run.partition, r.offset), r.bytes.to_vec())));
            }
        }
    }
    assert_eq!(found, by_frame);
    found
}

fn kept_aside(disk: &SimulatedDisk) -> BTreeSet<Vec<u8>> {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".bin"));
    names.map(|name| disk.contents(&name).unwrap()).collect()
}

/// Repairs, and checks everything that must hold afterwards. Returns how many records are gone.
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
    let turned = |mended: &Mended| matches!(mended.what, Malformed::PayloadChecksum | Malformed::Checksum);
    if repaired.mended.iter().any(|mended| matches!(mended.how, How::Gap(_)) && turned(mended)) && gone > 0 {
        assert!(!kept_aside(disk).is_empty(), "copied aside: {repaired:?}");
    }
    // It is an ordinary journal again, and no offset is given twice.
    let opened = open(Arc::new(disk.clone()), small());
    let (mut writer, recovered) = opened.unwrap_or_else(|cause| panic!("{cause}, after {repaired:?}"));
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
        assert!(repaired.mended.is_empty() && repaired.torn.is_none());
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
            // One in each word, and all of the heads.
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
    // All but one, whichever that is.
    for stays in &names {
        let bad = disk.copy();
        names.iter().filter(|name| *name != stays).for_each(|name| bad.remove(name).unwrap());
        let number = segment_number(stays).unwrap();
        let repaired = repair(Arc::new(bad.clone()), 1, &mut |_| {}).unwrap();
        assert!(!repaired.mended.is_empty());
        assert!(inspect(&bad, true).unwrap().segments().iter().any(|s| s.header.number == number && !s.header.lost));
    }
    let bad = disk.copy();
    names.iter().for_each(|name| bad.remove(name).unwrap());
    assert!(matches!(repair(Arc::new(bad), 1, &mut |_| {}), Err(RepairError::Hopeless { .. })));
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
                repair(Arc::new(after.clone()), 1, &mut |_| {})
                    .unwrap_or_else(|cause| panic!("{name} {nth} {seed}: {cause}"));
                let left = contents(&after);
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

#[test]
fn one_that_is_open_is_not_repaired() {
    let disk = SimulatedDisk::new();
    let (_writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    let refused = repair(Arc::new(disk), 1, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, RepairError::Open(OpenError::Locked { .. })), "{refused}");
}
