//! The identity of a journal: the id and the number in a segment's header count, not the file's name, and a checkpoint
//! with another id is ignored.

use super::*;
use crate::checkpoint::Checkpoint;
use crate::files::names::segment_name;
use crate::repair::{RepairAction, RepairError, repair};
use crate::simulated::{Fault, SimulatedDisk};
use crate::storage::Storage;
use std::sync::Arc;

/// A journal of `records` records whose process was killed.
fn journal(records: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    let mut frame = FrameBuilder::new();
    for offset in 0..records {
        frame.record(part(0), offset, None, &[offset as u8; 300]);
        writer.append(&mut frame, offset).unwrap();
        writer.sync().unwrap();
    }
    disk.copy()
}

fn count(disk: &SimulatedDisk) -> Result<usize, OpenError> {
    let (writer, recovered) = open(Arc::new(disk.clone()), small())?;
    let content = content(&writer.journal(), &recovered.state).unwrap();
    Ok(content.records.get(&part(0)).map_or(0, Vec::len))
}

fn contents(disk: &SimulatedDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), disk.contents(&name))).collect()
}

#[test]
fn a_checkpoint_of_another_journal_says_nothing() {
    let (disk, other) = (journal(20), journal(90));
    let foreign = other.contents("checkpoint").unwrap();
    disk.edit("checkpoint", |bytes| *bytes = foreign.clone());
    assert_eq!(count(&disk), Ok(20));
    assert_ne!(disk.contents("checkpoint").unwrap(), foreign, "it is this journal's again");
    assert_eq!(count(&disk.copy()), Ok(20));
}

/// A checkpoint that is older than its journal withdraws no record, and hides no damage.
#[test]
fn an_elder_checkpoint_of_the_same_journal_takes_nothing_back() {
    let disk = journal(40);
    let elder = {
        let begun = journal(0);
        let mut checkpoint = Checkpoint::decode(&begun.contents("checkpoint").unwrap()).unwrap();
        checkpoint.id = Checkpoint::decode(&disk.contents("checkpoint").unwrap()).unwrap().id;
        let written = SimulatedDisk::new();
        checkpoint.write(&written).unwrap();
        written.contents("checkpoint").unwrap()
    };
    disk.edit("checkpoint", |bytes| *bytes = elder.clone());
    assert_eq!(count(&disk.copy()), Ok(40));
    let before = contents(&disk);
    let repaired = repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
    assert!(repaired.places.is_empty() && repaired.lost.is_empty(), "{repaired:?}");
    assert_eq!(contents(&disk), before, "nothing was changed");
    // A damaged record in the middle: the durable marks of later frames show that it was durable.
    let last = disk.list().unwrap().iter().filter_map(|name| files::names::segment_number(name)).max().unwrap();
    for segment in [1, 2, last] {
        let disk = disk.copy();
        disk.edit(&segment_name(segment), |bytes| {
            let at =
                bytes.windows(8).position(|bytes| bytes.iter().all(|byte| *byte == bytes[0] && *byte != 0)).unwrap();
            bytes[at] ^= 1;
        });
        let refused = inspect(Arc::new(disk.copy()), true).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { segment: found, .. } if found == segment), "{refused}");
        let repaired = repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
        assert_eq!(repaired.lost.len(), 1, "{repaired:?}");
        assert_eq!(disk.contents("checkpoint").unwrap().len(), elder.len());
    }
}

/// A checkpoint that is newer than its journal, as after segments were restored from an older copy: a repair counts the
/// records up to its durable mark as lost, and keeps the bytes of all segments.
#[test]
fn a_younger_checkpoint_of_the_same_journal_moves_no_sound_segment() {
    for further in [1, 3, 9, 60] {
        let elder = journal(20);
        let younger = elder.copy();
        let (mut writer, _) = open(Arc::new(younger.clone()), small()).unwrap();
        let mut frame = FrameBuilder::new();
        for offset in 20..20 + further {
            frame.record(part(0), offset, None, &[offset as u8; 300]);
            writer.append(&mut frame, offset).unwrap();
            writer.sync().unwrap();
        }
        writer.close(1).unwrap();
        let checkpoint = younger.contents("checkpoint").unwrap();
        elder.edit("checkpoint", |bytes| *bytes = checkpoint.clone());
        let before = contents(&elder);
        let refused = count(&elder).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{further}: {refused}");
        assert_eq!(contents(&elder), before, "nothing was changed");
        let repaired = repair(Arc::new(elder.clone()), 1, &mut |_| {}).unwrap();
        assert!(!repaired.places.is_empty(), "{further}: {repaired:?}");
        assert!(repaired.places.iter().all(|place| place.copy.is_none()), "{further}: {repaired:?}");
        // Each segment file still has all of its bytes up to the last nonzero one.
        for (name, content) in before.iter().filter(|(name, _)| name.ends_with(".segment")) {
            let (before, now) = (content.as_ref().unwrap(), elder.contents(name).unwrap());
            let used = before.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            assert_eq!(now[..used], before[..used], "{further}: {name}");
        }
        let (writer, recovered) = open(Arc::new(elder.clone()), small()).unwrap();
        let mut reader = writer.journal().reader(part(0), Start::Earliest, Visible::Written).unwrap();
        let mut seen = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(record)) => seen.push(record.offset),
                Ok(None) => break,
                Err(refused) => assert!(matches!(refused, ReplayError::Gap { .. }), "{further}: {refused}"),
            }
        }
        assert!(seen.iter().copied().eq(0..20), "{further}: {seen:?}");
        let next = recovered.state.extent(part(0)).map_or(0, |extent| extent.end.max(extent.reserved));
        assert!(next >= 20 + further, "{further}: offset {next} would be issued again");
    }
}

#[test]
fn the_head_of_the_only_segment_is_not_all_that_knows_whose_it_is() {
    for at in [0, 9, 17, 30, 45, 61] {
        let disk = journal(5);
        disk.edit(&segment_name(1), |bytes| bytes[at] ^= 1);
        let before = contents(&disk);
        let refused = count(&disk).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { segment: 1, at: 0, .. } | OpenError::Newer { .. }), "{refused}");
        assert_eq!(contents(&disk), before, "nothing was changed");
        if let OpenError::Damaged { .. } = refused {
            let repaired = repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
            assert_eq!(repaired.places[0].action, RepairAction::Head);
            assert_eq!(count(&disk), Ok(5));
        }

        // If no file states the journal's identity, the directory must not be treated as an empty journal.
        disk.edit(&segment_name(1), |bytes| bytes[at] ^= 1);
        disk.remove("checkpoint").unwrap();
        let before = contents(&disk);
        assert!(count(&disk).is_err());
        let refused = repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap_err();
        assert!(
            matches!(refused, RepairError::Irreparable { segment: 1, at: 0, .. } | RepairError::Open(_)),
            "{refused}"
        );
        assert_eq!(contents(&disk), before, "a repair that is of no use touches nothing");
    }
}

/// Two segment files with each other's name, or one with the name of a missing segment.
fn exchanged(names: (u64, u64)) -> SimulatedDisk {
    let disk = journal(40);
    let (one, other) = (segment_name(names.0), segment_name(names.1));
    disk.rename(&one, "aside").unwrap();
    if disk.contents(&other).is_some() {
        disk.rename(&other, &one).unwrap();
    }
    disk.rename("aside", &other).unwrap();
    disk.sync_dir().unwrap();
    disk
}

#[test]
fn segments_under_one_another_s_names_get_their_own_back() {
    let last = journal(40).list().unwrap().iter().filter_map(|name| files::names::segment_number(name)).max().unwrap();
    assert!(last > 4);
    for names in [(2, 3), (1, 2), (last - 1, last), (1, last), (2, last + 1), (last, last + 1), (last, last + 7)] {
        let disk = exchanged(names);
        let before = contents(&disk);
        let refused = count(&disk).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{names:?}: {refused}");
        assert_eq!(contents(&disk), before, "{names:?}");
        let repaired = repair(Arc::new(disk.clone()), 1, &mut |_| {}).unwrap();
        assert!(repaired.places.iter().all(|mended| mended.action == RepairAction::Name), "{names:?}: {repaired:?}");
        assert!(repaired.lost.is_empty() && !repaired.skipped_offsets, "{names:?}: {repaired:?}");
        assert_eq!(count(&disk), Ok(40), "{names:?}");
        for nth in 1.. {
            let cut = exchanged(names);
            cut.fail_after(nth, Fault::PowerCut);
            let done = repair(Arc::new(cut.clone()), 1, &mut |_| {}).is_ok();
            for seed in 0..4 {
                let left = cut.crash(seed);
                repair(Arc::new(left.clone()), 1, &mut |_| {}).unwrap_or_else(|why| panic!("{names:?} {nth}: {why}"));
                assert_eq!(count(&left), Ok(40), "{names:?}, call {nth}, seed {seed}");
            }
            if done {
                break;
            }
        }
    }
}
