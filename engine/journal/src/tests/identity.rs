//! The identity of a journal: its segments and its checkpoint state it, and override file names and derived files.

use super::*;
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
