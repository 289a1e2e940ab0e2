//! A full disk: the journal can still be opened and read, and retention frees space.

use super::*;
use crate::simulated::SimulatedDisk;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn append(writer: &mut Writer, offset: u64) -> Result<u64, WriteError> {
    let mut frame = FrameBuilder::new();
    frame.record(part(0), offset, None, &[7; 200]);
    let position = writer.append(&mut frame, offset)?;
    writer.sync()?;
    Ok(position)
}

#[test]
fn a_full_disk_is_left_by_retention_however_the_journal_ended() {
    for (records, closed) in (20..48).flat_map(|records| [(records, false), (records, true)]) {
        let about = format!("{records} records, closed: {closed}");
        let disk = SimulatedDisk::new();
        let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
        let mut next = 0;
        while next < records {
            append(&mut writer, next).unwrap();
            next += 1;
        }
        if closed {
            writer.close(records).unwrap();
            disk.set_room(Some(0));
        } else {
            disk.set_room(Some(0));
            // Appends until the disk is full.
            while append(&mut writer, next).is_ok() {
                next += 1;
            }
            drop(writer);
        }
        let (mut writer, recovered) =
            open(Arc::new(disk.clone()), small()).unwrap_or_else(|why| panic!("{about}: {why}"));
        assert_eq!(recovered.state.extent(part(0)).unwrap().end, next, "{about}");
        let keep = |_| Retention { age: None, bytes: Some(900) };
        let freed = writer.retain(next, keep).unwrap_or_else(|why| panic!("{about}: {why}"));
        assert!(freed.segments > 0, "{about}");
        writer.sync().unwrap();
        writer.collect();
        for round in 0..30 {
            // The first records fit into the space that was freed; later ones need more.
            if round == 4 {
                disk.set_room(None);
            }
            append(&mut writer, next).unwrap_or_else(|why| panic!("{about}: {why}"));
            next += 1;
        }
        writer.close(next).unwrap();
    }
}

#[test]
fn a_segment_that_cannot_be_made_is_tried_again_while_there_is_room() {
    let disk = SimulatedDisk::new();
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    let (mut writer, _) = open(Arc::new(disk.clone()), options).unwrap();
    let is_made = |number| disk.contents(&files::names::segment_name(number)).is_some();
    let wait_for = |number| {
        let until = Instant::now() + Duration::from_secs(60);
        while !is_made(number) {
            assert!(Instant::now() < until, "segment {number} is not made");
            std::thread::yield_now();
        }
    };
    let mut next = 0;
    for number in 2..6 {
        wait_for(number);
        // The segment after that one is ordered while the disk is full.
        disk.set_room(Some(0));
        let end = writer.journal().written() + (1 << 16);
        while writer.journal().written() < end {
            append(&mut writer, next).unwrap();
            next += 1;
        }
        disk.set_room(None);
    }
}
