//! Copies of a journal that a writer extends and retention shortens meanwhile, and copies that are interrupted.

use super::*;
use crate::files::names::segment_name;
use crate::simulated::{Fault, SimulatedDisk};
use crate::storage::{Disk, Storage};
use fastrand::Rng;
use std::sync::Arc;

fn copy_to(from: &SimulatedDisk, to: &SimulatedDisk) -> Result<Copied, CopyError> {
    copy(Arc::new(from.clone()), Arc::new(to.clone()), &mut |_| {})
}

/// Appends `count` records of 100 bytes to partition 0, a frame each.
fn append(writer: &mut Writer, count: u64) {
    for _ in 0..count {
        let offset = writer.state().extent(part(0)).map_or(0, |extent| extent.end);
        let mut frame = FrameBuilder::new();
        frame.record(part(0), offset, None, &[offset as u8; 100]);
        writer.append(&mut frame, 1000 + offset).unwrap();
    }
    writer.sync().unwrap();
}

fn retain(writer: &mut Writer, bytes: u64) {
    writer.retain(0, |_| Retention { age: None, bytes: Some(bytes) }).unwrap();
    writer.sync().unwrap();
    writer.collect();
}

/// The offsets of partition 0 in the journal of an opened copy, which are checked to be without a hole.
fn offsets(copy: &SimulatedDisk) -> Range<u64> {
    let (writer, recovered) = open(Arc::new(copy.crash(1)), small()).unwrap();
    let extent = recovered.state.extent(part(0)).unwrap();
    let mut reader = writer.journal().reader(part(0), Start::Earliest, Visible::Durable).unwrap();
    for offset in extent.start..extent.end {
        let record = reader.next().unwrap().unwrap();
        assert_eq!((record.offset, record.bytes), (offset, &[offset as u8; 100][..]));
    }
    assert!(reader.next().unwrap().is_none());
    extent.start..extent.end
}

#[test]
fn a_copy_has_all_that_was_acknowledged_before_and_is_a_beginning_of_what_is_written() {
    for seed in 0..6 {
        let (disk, to, mut dice) = (SimulatedDisk::new(), SimulatedDisk::new(), Rng::with_seed(seed));
        let mut story = Story::default();
        let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
        for _ in 0..3 {
            story.work(&mut writer, &mut dice, 60).unwrap();
            let before = story.clone();
            let mut go_on = |_| story.work(&mut writer, &mut dice, 7).unwrap();
            let copied = copy(Arc::new(disk.clone()), Arc::new(to.clone()), &mut go_on).unwrap();
            assert!(copied.end <= writer.journal().written());
            let mut judged = story.clone();
            // Offsets that were issued after the copy are issued again by whoever opens it.
            (judged.acknowledged, judged.issued) = (before.acknowledged, before.issued);
            reopen(&to.crash(seed), &small(), &mut judged).unwrap();
        }
    }
}

#[test]
fn what_retention_frees_during_a_copy_is_left_out_of_it() {
    let (disk, to) = (SimulatedDisk::new(), SimulatedDisk::new());
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    append(&mut writer, 400);
    let before = inspect(Arc::new(disk.clone()), false).unwrap().segments().len();
    let mut calls = 0;
    let mut shorten = |_| {
        calls += 1;
        // Of the segments of the first survey three are copied, and then all but the last ones are freed.
        if calls == 3 {
            append(&mut writer, 20);
            retain(&mut writer, 1000);
        }
    };
    let copied = copy(Arc::new(disk.clone()), Arc::new(to.clone()), &mut shorten).unwrap();
    assert!(copied.segments < before && copied.copied > 3, "{copied:?} of {before}");
    let found = offsets(&to);
    assert!(found.start >= 400 && found.end == 420, "{found:?}");

    // Retention at each step, so that it is always ahead of the copy at the beginning, and never at the end.
    let mut dice = Rng::with_seed(5);
    for _ in 0..40 {
        append(&mut writer, 60);
        let (to, mut steps) = (SimulatedDisk::new(), 0);
        let before = writer.state().extent(part(0)).unwrap().end;
        let mut at_each = |_| {
            steps += 1;
            if steps < 12 {
                append(&mut writer, dice.u64(..9));
                retain(&mut writer, dice.u64(..4000));
            }
        };
        copy(Arc::new(disk.clone()), Arc::new(to.clone()), &mut at_each).unwrap();
        assert!(offsets(&to).end >= before);
    }
}

#[test]
fn a_second_copy_has_only_the_new_segments_to_copy() {
    let (disk, to) = (SimulatedDisk::new(), SimulatedDisk::new());
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    append(&mut writer, 300);
    let first = copy_to(&disk, &to).unwrap();
    assert_eq!((first.copied, first.removed), (first.segments, 0));
    assert_eq!(copy_to(&disk, &to).unwrap(), Copied { copied: 0, bytes: 0, ..first });
    append(&mut writer, 30);
    let second = copy_to(&disk, &to).unwrap();
    assert_eq!(second.copied, second.segments - first.segments + 1, "{second:?}, first {first:?}");
    assert_eq!(offsets(&to), 0..330);
    retain(&mut writer, 3000);
    let third = copy_to(&disk, &to).unwrap();
    assert!(third.removed >= second.segments - third.segments, "{third:?}, second {second:?}");
    assert!(third.removed > 3 && to.contents(&segment_name(1)).is_none());
    assert_eq!(offsets(&to).end, 330);
    // The copy of a journal that was closed, and a copy of the copy.
    writer.close(9).unwrap();
    copy_to(&disk, &to).unwrap();
    let other = SimulatedDisk::new();
    copy_to(&to, &other).unwrap();
    assert_eq!(offsets(&to), offsets(&other));
    let survey = inspect(Arc::new(other), true).unwrap();
    assert!(survey.stray_bytes().is_empty() && survey.stale_indexes().is_empty() && survey.torn().is_none());
}

#[test]
fn an_interrupted_copy_is_refused_or_whole_and_goes_on() {
    let (disk, earlier) = (SimulatedDisk::new(), SimulatedDisk::new());
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    append(&mut writer, 90);
    copy_to(&disk, &earlier).unwrap();
    append(&mut writer, 90);
    for (to, had) in [(SimulatedDisk::new(), None), (earlier, Some(0..90))] {
        let whole = to.copy();
        copy_to(&disk, &whole).unwrap();
        let mut refused = 0;
        for call in 1..=whole.calls() {
            for fault in [Fault::PowerCut, Fault::Short] {
                let cut = to.copy();
                cut.fail_at(call, fault);
                assert!(matches!(copy_to(&disk, &cut), Err(CopyError::Target(OpenError::Disk(_)))), "call {call}");
                for left in [cut.crash(call), cut.copy()] {
                    match open(Arc::new(left.copy()), small()) {
                        Ok((_, recovered)) if recovered.created => assert_eq!(had, None),
                        Ok((_, recovered)) => {
                            let extent = recovered.state.extent(part(0)).unwrap();
                            let found = Some(extent.start..extent.end);
                            assert!(found == had || found == Some(0..180), "call {call}: {found:?}");
                        }
                        Err(cause) => {
                            assert!(matches!(cause, OpenError::Damaged { .. }), "{cause}");
                            refused += 1;
                        }
                    }
                    left.fail_at(0, Fault::Io);
                    copy_to(&disk, &left).unwrap();
                    assert_eq!(offsets(&left), 0..180);
                    assert!(left.list().unwrap().iter().all(|name| !name.ends_with(".new")));
                }
            }
        }
        assert!(had.is_some() || refused > 20, "{refused}");
    }
}

#[test]
fn a_torn_end_is_not_copied() {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    append(&mut writer, 50);
    let end = writer.journal().written();
    let segment = inspect(Arc::new(disk.clone()), false).unwrap().segments().pop().unwrap();
    disk.edit(&segment_name(segment.header.number), |bytes| bytes[segment.end as usize + 70] = 7);
    let to = SimulatedDisk::new();
    assert_eq!(copy_to(&disk, &to).unwrap().end, end);
    assert!(inspect(Arc::new(to.clone()), true).unwrap().torn().is_none());
    assert_eq!(offsets(&to), 0..50);
}

#[test]
fn what_is_no_journal_damaged_or_not_an_earlier_copy_is_refused_by_name() {
    let (disk, other, to) = (SimulatedDisk::new(), SimulatedDisk::new(), SimulatedDisk::new());
    assert!(matches!(copy_to(&disk, &to), Err(CopyError::NoJournal { .. })));
    assert!(to.list().unwrap().is_empty(), "nothing is made for nothing");
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    append(&mut writer, 100);
    append(&mut open(Arc::new(other.clone()), small()).unwrap().0, 100);
    assert!(matches!(copy_to(&disk, &disk), Err(CopyError::Itself { .. })));
    copy_to(&disk, &to).unwrap();
    let before = to.copy();
    let untouched = |to: &SimulatedDisk, of: &SimulatedDisk| {
        let files = |disk: &SimulatedDisk| {
            disk.list().unwrap().into_iter().map(|name| disk.contents(&name)).collect::<Vec<_>>()
        };
        assert_eq!(files(to), files(of));
    };
    assert!(matches!(copy_to(&other, &to), Err(CopyError::Diverged { .. })));
    untouched(&to, &before);

    // A copy that is open, and one that was opened and written to.
    let opened = to.copy();
    let (mut writing, _) = open(Arc::new(opened.clone()), small()).unwrap();
    assert!(matches!(copy_to(&disk, &opened), Err(CopyError::Target(OpenError::Locked { .. }))));
    append(&mut writing, 1);
    drop(writing);
    let written = opened.copy();
    append(&mut writer, 200);
    assert!(matches!(copy_to(&disk, &opened), Err(CopyError::Diverged { .. })));
    untouched(&opened, &written);

    // A copy of which the source has no segment any more.
    retain(&mut writer, 1000);
    assert!(matches!(copy_to(&disk, &to), Err(CopyError::Diverged { .. })));
    untouched(&to, &before);

    // Damage in the source is found by the survey, or in the copy.
    for number in [2, 4] {
        let (damaged, to) = (before.copy(), SimulatedDisk::new());
        damaged.edit(&segment_name(number), |bytes| bytes[1000] ^= 1);
        let refused = copy_to(&damaged, &to).unwrap_err();
        assert!(matches!(refused, CopyError::Source(OpenError::Damaged { .. }) | CopyError::Unsound(_)), "{refused}");
    }
    // A damaged segment of the copy is copied again once it is deleted, as the error says.
    let to = before.copy();
    to.edit(&segment_name(1), |bytes| bytes[1000] ^= 1);
    assert!(matches!(copy_to(&before, &to), Err(CopyError::Unsound(OpenError::Damaged { segment: 1, .. }))));
    to.remove(&segment_name(1)).unwrap();
    copy_to(&before, &to).unwrap();
    assert_eq!(offsets(&to), 0..100);
}

#[test]
fn one_directory_under_two_names_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (mut writer, _) = open(Arc::new(Disk::new(&path)), small()).unwrap();
    append(&mut writer, 10);
    drop(writer);
    #[cfg(unix)]
    let other = {
        let other = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &other).unwrap();
        other
    };
    #[cfg(not(unix))]
    let other = path.join("..").join("journal");
    let refused = copy(Arc::new(Disk::new(&path)), Arc::new(Disk::new(&other)), &mut |_| {}).unwrap_err();
    assert!(matches!(refused, CopyError::Itself { .. }), "{refused}");
    let to = folder.path().join("a/b");
    copy(Arc::new(Disk::new(&path)), Arc::new(Disk::new(&to)), &mut |_| {}).unwrap();
    assert_eq!(offsets(&SimulatedDisk::load(&to).unwrap()), 0..10);
}
