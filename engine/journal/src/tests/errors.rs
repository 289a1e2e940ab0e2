//! Disk failures: no lost frame is acknowledged, the journal refuses further writes, and nothing panics.

use super::*;
use crate::simulated::{Fault, SimulatedDisk};
use crate::storage::{Disk, Storage};
use fastrand::Rng;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

#[test]
fn an_error_at_each_call_poisons_and_acknowledges_nothing_false() {
    let mut states = 0;
    for fault in [Fault::Io, Fault::Full, Fault::Short] {
        for seed in [3, 1234] {
            for nth in 1.. {
                let disk = SimulatedDisk::new();
                disk.fail_at(nth, fault);
                let mut story = Story::default();
                let opened = open(Arc::new(disk.clone()), small());
                if let Ok((mut writer, _)) = opened {
                    let refused = story.work(&mut writer, &mut Rng::with_seed(seed), 25);
                    if let Err(refused) = &refused {
                        assert!(matches!(refused, WriteError::Poisoned(_)), "{refused}");
                        let mut frame = FrameBuilder::new();
                        frame.put(1, b"later", b"");
                        assert_eq!(writer.append(&mut frame, 1).as_ref(), Err(refused), "poisoned for good");
                        assert_eq!(writer.sync().as_ref(), Err(refused));
                        assert!(!frame.is_empty(), "the caller keeps it");
                    }
                    if let (Fault::Full, Err(refused)) = (fault, refused) {
                        assert!(refused.to_string().contains("disk is full"));
                    }
                }
                let over = disk.calls() < nth;
                disk.fail_at(0, fault);
                for left in [disk.copy(), disk.crash(nth), disk.crash(nth ^ 5)] {
                    reopen(&left, &small(), &mut story.clone())
                        .unwrap_or_else(|what| panic!("{fault:?}, seed {seed}, call {nth}: {what}"));
                    states += 1;
                }
                if over {
                    break;
                }
            }
        }
    }
    println!("{states} states");
    assert!(states > 500);
}

#[test]
fn too_much_is_refused_before_anything_is_written() {
    let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), small()).unwrap();
    let written = writer.journal().written();
    let mut frame = FrameBuilder::new();
    frame.record(part(0), 0, None, &[0; 2000]);
    let refused = writer.append(&mut frame, 1).unwrap_err();
    assert!(matches!(refused, WriteError::TooLarge { len, limit } if len > 2000 && limit < 2000), "{refused}");
    frame.clear();
    for key in 0_u8.. {
        frame.put(STATE_KIND, &[key], &[1; 400]);
        match writer.append(&mut frame, 1) {
            Ok(_) => assert!(key < 10, "the state must be bounded"),
            Err(refused) => {
                assert!(matches!(refused, WriteError::StateTooLarge { .. }), "{refused}");
                break;
            }
        }
    }
    frame.clear();
    frame.record(part(1), 5, None, b"x");
    writer.append(&mut frame, 1).unwrap();
    frame.record(part(1), 5, None, b"y");
    let refused = writer.append(&mut frame, 1).unwrap_err();
    assert_eq!(refused, WriteError::OffsetGoesBack { partition: part(1), offset: 5, end: 6 });
    assert!(writer.journal().written() > written && writer.journal().poisoned().is_none());
}

#[test]
fn settings_that_cannot_be_are_refused() {
    for segment_size in [0, 100, 4000, 4097, 3 << 30] {
        let options = Options { segment_size, ..Options::default() };
        let refused = open(Arc::new(SimulatedDisk::new()), options).unwrap_err();
        assert!(matches!(refused, OpenError::Setting(_)), "{refused}");
    }
}

#[test]
fn a_second_opener_is_told_who_has_it_and_files_are_private() {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("made").join("here");
    let open_it = || open(Arc::new(Disk::new(&path)), Options { segment_size: 1 << 16, ..Options::default() });
    let (writer, recovered) = open_it().unwrap();
    assert!(recovered.created);
    let refused = open_it().unwrap_err();
    let holder = format!("process {}", std::process::id());
    assert!(matches!(&refused, OpenError::Locked { holder: named, .. } if *named == holder), "{refused}");
    assert!(refused.to_string().contains("here"), "{refused}");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for name in Disk::new(&path).list().unwrap() {
        assert_eq!(mode(&path.join(&name)), 0o600, "{name}");
    }
    writer.close(1).unwrap();
    let (_writer, recovered) = open_it().unwrap();
    assert!(!recovered.created && recovered.torn.is_none());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let outer = tempfile::tempdir().unwrap();
    let file = outer.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let refused = open(Arc::new(Disk::new(file.join("journal"))), Options::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Disk(_)) && refused.to_string().contains("file/journal"), "{refused}");
}

#[test]
fn a_real_directory_with_its_helper_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    let open_it = || open(Arc::new(Disk::new(dir.path())), options.clone()).unwrap();
    let mut offset = 0;
    for round in 0..3 {
        let (mut writer, recovered) = open_it();
        assert_eq!(recovered.state.extent(part(0)).unwrap_or_default().end, offset);
        for _ in 0..100 {
            let mut frame = FrameBuilder::new();
            for _ in 0..20 {
                frame.record(part(0), offset, None, &body(part(0), offset, 0));
                offset += 1;
            }
            writer.append(&mut frame, 1).unwrap();
            // As in the engine, some syncs run on another thread.
            if let Some(job) = writer.begin_sync() {
                std::thread::spawn(move || job.run()).join().unwrap().unwrap();
            }
        }
        if round == 1 {
            drop(writer); // as a kill would
        } else {
            writer.close(9).unwrap();
        }
        // Waits until the lock is free. Dropping or closing the writer has ended the helper thread, which shares the
        // lock.
        while Disk::new(dir.path()).lock().is_err() {
            std::thread::yield_now();
        }
    }
    let (writer, recovered) = open_it();
    assert!(recovered.believed + 1 >= recovered.segments - 1, "{recovered:?}");
    let mut reader = writer.journal().reader(part(0), Start::Earliest, Visible::Durable).unwrap();
    for expected in 0..offset {
        let record = reader.next().unwrap().unwrap();
        assert_eq!((record.offset, record.bytes), (expected, &*body(part(0), expected, 0)));
    }
    assert_eq!(reader.next().unwrap(), None);
}
