//! A directory that another program has prepared or is changing: no link is followed, none of that program's files is
//! trusted or changed, and each refusal names the file and its kind.

use super::*;
use crate::files::names::{is_ours, segment_name};
use crate::format::SegmentHeader;
use crate::repair::{RepairError, rehearse, repair};
use crate::simulated::SimulatedDisk;
use crate::storage::{Disk, NotOurs, Storage};
use fastrand::Rng;
use std::path::Path;

#[path = "../../../tests/common/hostile.rs"]
mod builder;
use builder::{Hostile, contents};

const TICKS: PartitionId = PartitionId { topic: 9, partition: 0 };

fn open_at(dir: &Path) -> Result<(Writer, Recovered), OpenError> {
    open(Arc::new(Disk::new(dir)), small())
}

fn append(writer: &mut Writer, offsets: Range<u64>) {
    for offset in offsets {
        let mut frame = FrameBuilder::new();
        frame.record(TICKS, offset, None, &[offset as u8; 200]);
        writer.append(&mut frame, 1).unwrap();
        writer.sync().unwrap();
    }
}

fn offsets(dir: &Path) -> u64 {
    let disk: Arc<dyn Storage> = Arc::new(Disk::new(dir));
    let survey = inspect(Arc::clone(&disk), true).unwrap();
    let mut reader = survey.journal(disk).reader(TICKS, Start::Earliest, Visible::Written).unwrap();
    let mut next = 0;
    while let Some(record) = reader.next().unwrap() {
        assert_eq!((record.offset, record.bytes[0]), (next, next as u8));
        next += 1;
    }
    next
}

#[test]
fn a_directory_that_gets_another_name_stays_the_journals() {
    let outer = tempfile::tempdir().unwrap();
    let (dir, old) = (outer.path().join("journal"), outer.path().join("journal.old"));
    let (mut first, _) = open_at(&dir).unwrap();
    append(&mut first, 0..10);
    std::fs::rename(&dir, &old).unwrap();
    let (mut second, recovered) = open_at(&dir).unwrap();
    assert!(recovered.created, "another directory of that name is another journal");
    append(&mut second, 0..40);
    // Several segments, whose names the other journal uses too.
    append(&mut first, 10..60);
    second.close(1).unwrap();
    first.close(1).unwrap();
    assert_eq!((offsets(&dir), offsets(&old)), (40, 60));
}

#[test]
fn a_lock_file_that_was_removed_lets_nobody_in() {
    let place = Hostile::new();
    let (writer, _) = open_at(&place.dir).unwrap();
    std::fs::remove_file(place.path("lock")).unwrap();
    let refused = open_at(&place.dir).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    assert!(matches!(
        repair(Arc::new(Disk::new(&place.dir)), 1, &mut |_| {}).unwrap_err(),
        RepairError::Open(OpenError::Locked { .. })
    ));
    drop(writer);
    open_at(&place.dir).unwrap();
}

#[test]
fn two_handles_of_one_directory_are_two_openers() {
    let place = Hostile::new();
    let disk = Disk::new(&place.dir);
    let _writer = open(Arc::new(disk.clone()), small()).unwrap();
    assert!(matches!(open(Arc::new(disk), small()).unwrap_err(), OpenError::Locked { .. }));
}

/// Creates a file of some kind with this name. The text is the kind's name in messages.
type Prepare = fn(&Hostile, &str);
const KINDS: [(Prepare, &str); 3] =
    [(Hostile::symlink, "a symbolic link"), (Hostile::pipe, "a named pipe"), (Hostile::directory, "a directory")];

#[test]
fn what_is_no_file_is_named_and_neither_followed_nor_changed() {
    let lost = segment_name(3);
    for (prepare, what) in KINDS {
        for name in [
            "lock",
            "checkpoint",
            "00000000000000000001.index",
            "00000000000000000002.segment",
            "00000000000000000004.segment",
            "00000000000000000005.segment",
            "00000000000000000005.segment.new",
            "00000000000000000004.index.new",
            "checkpoint.new",
            "lock.new",
        ] {
            let place = Hostile::with_a_journal();
            prepare(&place, name);
            let before = (place.contents(), place.others());
            let refused = open_at(&place.dir).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains(what), "{name}: {refused}");
            // Reading needs neither derived nor unfinished files.
            let disk: Arc<dyn Storage> = Arc::new(Disk::new(&place.dir));
            let read = inspect(Arc::clone(&disk), true);
            let is_needed = name.ends_with(".segment");
            assert_eq!(read.is_err(), is_needed, "{name}, {what}: {read:?}");
            if let Err(refused) = read.map_err(|refused| refused.to_string()) {
                assert!(refused.contains(name) && refused.contains(what), "{name}: {refused}");
            }
            // Nor does a repair change them, even if there is damage beside them.
            std::fs::write(place.path(&lost), b"").unwrap();
            let _ = rehearse(Arc::clone(&disk), 1, &mut |_| {});
            let _ = repair(disk, 1, &mut |_| {});
            let after = (place.contents(), place.others());
            assert_eq!(after.0[name], before.0[name], "{name}, {what}");
            assert_eq!(after.1, before.1, "{name}, {what}");
        }
    }
}

#[test]
fn other_peoples_files_stay_whatever_their_names() {
    let place = Hostile::with_a_journal();
    for name in ["settings.new", "notes.segment", "1.segment", "checkpoint.new.new", "+0000000000000000001.segment"] {
        std::fs::write(place.path(name), b"mine").unwrap();
        assert!(!is_ours(name), "{name}");
    }
    place.directory("folder.new");
    place.pipe("pipe.index");
    let before = place.contents();
    let (mut writer, _) = open_at(&place.dir).unwrap();
    append(&mut writer, 0..30);
    writer.close(1).unwrap();
    let after = place.contents();
    for (name, what) in before.iter().filter(|(name, _)| !is_ours(name)) {
        assert_eq!(after.get(name), Some(what), "{name}");
    }
    assert!(inspect(Arc::new(Disk::new(&place.dir)), false).unwrap().others().contains(&"settings.new".to_owned()));
    for name in [
        "lock",
        "lock.new",
        "checkpoint",
        "torn-00000000000000000064-2.bin",
        &segment_name(7),
        "00000000000000000007.index.new",
    ] {
        assert!(is_ours(name), "{name}");
    }
}

#[test]
fn a_segment_is_made_in_place_of_nothing() {
    let place = Hostile::new();
    let (mut writer, _) = open_at(&place.dir).unwrap();
    append(&mut writer, 0..5);
    std::fs::write(place.path(&segment_name(2)), b"somebody else's").unwrap();
    let refused = loop {
        let mut frame = FrameBuilder::new();
        frame.put(STATE_KIND, b"key", &[1; 100]);
        if let Err(refused) = writer.append(&mut frame, 1) {
            break refused;
        }
    };
    assert!(refused.to_string().contains(&segment_name(2)), "{refused}");
    assert_eq!(std::fs::read(place.path(&segment_name(2))).unwrap(), b"somebody else's");
}

#[test]
fn a_snapshot_by_links_and_its_original_leave_each_other_alone() {
    // A journal without damage; one with bytes after the frames of a segment before the last, which a repair cuts; and
    // one with a damaged frame, which gets a gap.
    for damage in [None, Some((4, 3000_u64)), Some((2, 700))] {
        let place = Hostile::with_a_journal();
        let (mut writer, _) = open_at(&place.dir).unwrap();
        append(&mut writer, 0..8);
        drop(writer);
        if let Some((number, at)) = damage {
            place.put(&segment_name(number), at, b"not a frame");
        }
        let copy = place.snapshot("copy");
        let (kept, original) = (contents(&copy), place.contents());
        let work = |dir: &Path| {
            if open_at(dir).is_err() {
                repair(Arc::new(Disk::new(dir)), 1, &mut |_| {}).unwrap();
            }
            let (mut writer, recovered) = open_at(dir).unwrap();
            let end = recovered.state.extent(TICKS).unwrap_or_default().end;
            append(&mut writer, end..end + 20);
            writer.close(1).unwrap();
        };
        work(&place.dir);
        assert_eq!(contents(&copy), kept, "{damage:?}: the snapshot is what it was");
        let own = place.contents();
        assert_ne!(own, original);
        work(&copy);
        assert_eq!(place.contents(), own, "{damage:?}: and so is the original");
    }
}

#[test]
fn a_snapshot_of_an_open_journal_is_not_cut_when_that_is_closed() {
    let place = Hostile::new();
    let (mut writer, _) = open_at(&place.dir).unwrap();
    append(&mut writer, 0..8);
    let copy = place.snapshot("copy");
    let sizes = |contents: builder::Contents| -> Vec<_> {
        contents.into_iter().map(|(name, bytes)| (name, bytes.map(|bytes| bytes.len()))).collect()
    };
    let before = sizes(contents(&copy));
    writer.close(1).unwrap();
    assert_eq!(sizes(contents(&copy)), before);
    let (_writer, recovered) = open_at(&copy).unwrap();
    assert_eq!(recovered.state.extent(TICKS).unwrap().end, 8);
}

#[test]
fn a_copy_for_a_linked_segment_survives_a_crash_at_each_call() {
    let disk = SimulatedDisk::new();
    let mut story = Story::default();
    let mut writer = reopen(&disk, &small(), &mut story).unwrap();
    story.work(&mut writer, &mut Rng::with_seed(41), 25).unwrap();
    drop(writer);
    let names: Vec<String> = disk.list().unwrap();
    let other = |name: &str| format!("snapshot of {name}");
    names.iter().for_each(|name| disk.link(name, &other(name)));
    let kept: Vec<_> = names.iter().map(|name| disk.contents(name)).collect();
    let mut states = 0;
    for nth in 1.. {
        let crashing = disk.copy();
        crashing.fail_at(nth, simulated::Fault::PowerCut);
        let opened = open(Arc::new(crashing.clone()), small());
        for seed in 0..4 {
            let left = crashing.crash(nth * 7 + seed);
            drop(reopen(&left, &small(), &mut story.clone()).unwrap());
            let snapshot: Vec<_> = names.iter().map(|name| left.contents(&other(name))).collect();
            assert_eq!(snapshot, kept, "call {nth}");
            states += 1;
        }
        if opened.is_ok() {
            break;
        }
    }
    assert!(states > 40, "{states}");
}

#[test]
fn a_file_with_other_names_is_not_opened_to_be_written() {
    let place = Hostile::with_a_journal();
    place.hard_link(&segment_name(2));
    let refused = Disk::new(&place.dir).open(&segment_name(2), true).err().unwrap();
    assert!(matches!(NotOurs::of(&refused), Some(NotOurs::Linked { links: 2, .. })), "{refused}");
    assert!(Disk::new(&place.dir).open(&segment_name(2), false).is_ok());
}

/// Given a number, returns the bytes of a file that claims to be that segment.
type Forge = fn(&SimulatedDisk, u64) -> Vec<u8>;

/// The first segment of the journal, with a header that states `number` and the position `first`.
fn renumbered(disk: &SimulatedDisk, number: u64, first: u64, lost: bool) -> Vec<u8> {
    let mut bytes = disk.contents(&segment_name(1)).unwrap();
    let header = SegmentHeader::decode(&bytes[..64]).unwrap();
    bytes[..64].copy_from_slice(&SegmentHeader { number, first, lost, ..header }.encode());
    bytes
}

const FORGES: [(&str, Forge); 7] = [
    ("nothing", |_, _| Vec::new()),
    ("zeros", |_, _| vec![0; 4096]),
    ("another segment", |disk, _| disk.contents(&segment_name(1)).unwrap()),
    ("its number", |disk, number| renumbered(disk, number, 4096 * 7, false)),
    ("its number, at the highest position", |disk, number| {
        renumbered(disk, number, crate::format::MAX_POSITION, false)
    }),
    ("its number, at the end of all numbers", |disk, number| renumbered(disk, number, u64::MAX - 4095, false)),
    ("its number, lost", |disk, number| renumbered(disk, number, 4096 * number.min(1 << 40), true)),
];

#[test]
fn a_file_whose_name_is_any_number_is_refused_cut_off_or_left_alone() {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    append(&mut writer, 0..40);
    drop(writer);
    let read = |disk: &SimulatedDisk| {
        let (writer, recovered) = open(Arc::new(disk.clone()), small())?;
        Ok::<_, OpenError>(content(&writer.journal(), &recovered.state).unwrap().records[&TICKS].len())
    };
    let edge = crate::format::MAX_POSITION;
    let numbers =
        [0, 1 << 31, u32::MAX.into(), edge - 1, edge, edge + 1, i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];
    let names = numbers.iter().map(|number| (format!("{number:020}"), *number));
    // Three more names: a number above `u64::MAX`, and two with more than 20 digits.
    for (digits, number) in names.chain([("9".repeat(20), u64::MAX), ("9".repeat(21), u64::MAX), ("9".repeat(200), 7)])
    {
        for (what, forge) in FORGES {
            let forms = ["", "torn-", "damaged-"].iter().flat_map(|before| {
                let after = if before.is_empty() {
                    [".segment", ".index", ".segment.new"]
                } else {
                    ["-1.bin", "-0.bin", "-18446744073709551616.bin"]
                };
                after.map(|after| format!("{before}{digits}{after}"))
            });
            for name in forms {
                let what = format!("{what} in {name}");
                let disk = disk.copy();
                let forged = forge(&disk, number);
                disk.create(&name).and_then(|file| file.write_at(&forged, 0)).unwrap();
                disk.sync_dir().unwrap();
                let disk = disk.copy();
                let _ = inspect(Arc::new(disk.clone()), true);
                let rehearsed = rehearse(Arc::new(disk.clone()), 1, &mut |_| {}).is_ok();
                let repaired = disk.copy();
                assert_eq!(repair(Arc::new(repaired.clone()), 1, &mut |_| {}).is_ok(), rehearsed, "{what}");
                if !name.ends_with(".segment") || files::names::segment_number(&name).is_none() {
                    assert!(rehearsed, "{what}");
                    assert_eq!(read(&disk), Ok(40), "{what}");
                    // Only a file that was never finished is removed.
                    let is_kept = !(is_ours(&name) && name.ends_with(".new"));
                    assert_eq!(disk.contents(&name), is_kept.then_some(forged), "{what}");
                }
                match read(&disk) {
                    Ok(records) => assert_eq!(records, 40, "{what}"),
                    Err(refused) => {
                        assert!(matches!(refused, OpenError::Damaged { .. }), "{what}: {refused}");
                        if rehearsed {
                            assert_eq!(read(&repaired), Ok(40), "{what}");
                        }
                    }
                }
            }
        }
    }
}
