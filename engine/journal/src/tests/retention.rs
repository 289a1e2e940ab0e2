//! Retention: exact partition starts, deletion of whole segments, and errors for readers that are too far behind.

use super::*;
use crate::simulated::SimulatedDisk;
use std::sync::Arc;
use std::time::Duration;

const DAY: u64 = 86_400 * 1_000_000_000;

/// Thirty days of records, four a day, in two partitions.
fn month(writer: &mut Writer) {
    for hour in 0..120_u64 {
        let mut frame = FrameBuilder::new();
        for partition in [part(0), part(2)] {
            frame.record(partition, hour, None, &[hour as u8; 100]);
        }
        writer.append(&mut frame, hour * DAY / 4).unwrap();
    }
    writer.sync().unwrap();
}

#[test]
fn two_weeks_are_kept_and_the_start_is_exact() {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    month(&mut writer);
    let mut behind = writer.journal().reader(part(0), Start::Earliest, Visible::Durable).unwrap();
    assert_eq!(behind.next().unwrap().unwrap().offset, 0);
    let files = disk.contents(&files::names::segment_name(1)).is_some();
    assert!(files);

    let weeks = Retention { age: Some(Duration::from_secs(14 * 86_400)), bytes: None };
    let of = |partition| if partition == part(0) { weeks } else { Retention::default() };
    let freed = writer.retain(30 * DAY, of).unwrap();
    assert_eq!((freed.records, freed.segments), (64, 0), "the other partition keeps everything");
    let earliest = writer
        .journal()
        .reader(part(0), Start::Earliest, Visible::Durable)
        .unwrap()
        .next()
        .unwrap()
        .map(|r| (r.offset, r.time));
    assert_eq!(earliest, Some((64, 16 * DAY)), "exactly two weeks");
    let refused = writer.journal().reader(part(0), Start::Offset(63), Visible::Durable).unwrap_err();
    assert_eq!(refused, ReplayError::OutOfRange { asked: 63, earliest: 64, latest: 120 });
    // A reader gets the error only after it has returned the records that it already holds.
    let told = loop {
        match behind.next() {
            Ok(Some(record)) => assert!(record.offset < 64),
            other => break other.map(|record| record.map(|record| record.offset)),
        }
    };
    assert!(matches!(told, Err(ReplayError::OutOfRange { earliest: 64, .. })), "{told:?}");

    let freed = writer.retain(30 * DAY, |_| weeks).unwrap();
    assert!(freed.segments > 3, "{freed:?}");
    writer.collect();
    assert!(disk.contents(&files::names::segment_name(1)).is_some(), "not before that is durable");
    writer.sync().unwrap();
    writer.collect();
    assert!(disk.contents(&files::names::segment_name(1)).is_none());
    for left in [disk.copy(), disk.crash(3), disk.crash(4)] {
        let (writer, recovered) = open(Arc::new(left), small()).unwrap();
        assert_eq!(recovered.state.extent(part(0)).unwrap().start, 64);
        let mut reader = writer.journal().reader(part(2), Start::Earliest, Visible::Durable).unwrap();
        let mut offsets = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            offsets.push(record.offset);
        }
        assert_eq!(offsets, (64..120).collect::<Vec<_>>());
    }
}

#[test]
fn a_size_is_kept_to_the_record() {
    let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), small()).unwrap();
    month(&mut writer);
    let keep = |bytes| move |_| Retention { age: None, bytes: Some(bytes) };
    writer.retain(0, keep(1_000_000)).unwrap();
    assert_eq!(writer.state().extent(part(0)).unwrap().start, 0);
    writer.retain(0, keep(2500)).unwrap();
    let start = writer.state().extent(part(0)).unwrap().start;
    // A record of 100 bytes needs 4 more for its length.
    assert!((95..=97).contains(&start), "{start}");
    writer.retain(0, keep(2500)).unwrap();
    assert_eq!(writer.state().extent(part(0)).unwrap().start, start, "and no more when it is looked at again");
    writer.retain(0, keep(0)).unwrap();
    assert_eq!(writer.state().extent(part(0)).unwrap().start, 120);
    let mut frame = FrameBuilder::new();
    frame.record(part(0), 120, None, b"on");
    writer.append(&mut frame, 1).unwrap();
    let mut reader = writer.journal().reader(part(0), Start::Earliest, Visible::Written).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().bytes, b"on");
}

#[test]
fn readers_find_offsets_and_times() {
    let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), small()).unwrap();
    month(&mut writer);
    let journal = writer.journal();
    for offset in 0..120 {
        let mut reader = journal.reader(part(0), Start::Offset(offset), Visible::Durable).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().offset, offset);
        let mut reader = journal.reader(part(2), Start::Time(offset * DAY / 4), Visible::Durable).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().offset, offset);
        let mut reader = journal.reader(part(2), Start::Time(offset * DAY / 4 + 1), Visible::Durable).unwrap();
        assert_eq!(reader.next().unwrap().map(|record| record.offset), (offset < 119).then_some(offset + 1));
    }
    let mut latest = journal.reader(part(0), Start::Latest, Visible::Durable).unwrap();
    assert_eq!(latest.next().unwrap(), None);
    let mut written = journal.reader(part(0), Start::Latest, Visible::Written).unwrap();
    let mut frame = FrameBuilder::new();
    frame.record(part(0), 130, Some(7), b"new");
    writer.append(&mut frame, 1).unwrap();
    assert_eq!(latest.next().unwrap(), None, "not durable yet");
    assert_eq!(written.next().unwrap().map(|record| (record.offset, record.time)), Some((130, 7)));
    writer.sync().unwrap();
    assert_eq!(latest.next().unwrap().map(|record| record.offset), Some(130));
    assert_eq!(journal.reader(part(7), Start::Earliest, Visible::Durable).unwrap_err(), ReplayError::Unknown(part(7)));
}

/// Neither an application's wrong time nor a clock that was ahead for a while keeps later records.
#[test]
fn times_in_the_future_keep_nothing_back() {
    let week = Retention { age: Some(Duration::from_secs(7 * 86_400)), bytes: None };
    // The wrong times are at the start of a segment, or between right ones.
    for (wrong_clock, size) in [(false, 300), (true, 300), (true, 100), (true, 10)] {
        let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), small()).unwrap();
        for day in 0..60_u64 {
            let mut frame = FrameBuilder::new();
            let is_wrong = (10..15).contains(&day);
            let own = (is_wrong && !wrong_clock).then_some(u64::MAX / 2);
            let now = if is_wrong && wrong_clock { (day + 365) * DAY } else { day * DAY };
            frame.record(part(0), day, own, &vec![day as u8; size]);
            writer.append(&mut frame, now).unwrap();
            writer.sync().unwrap();
            let written_since = |day: u64| day.saturating_sub(7);
            if !is_wrong {
                writer.retain(now, |_| week).unwrap();
                let start = writer.state().extent(part(0)).unwrap().start;
                // A frame written while the clock was ahead counts as at least as old as the frames after it.
                let expected = match written_since(day) {
                    since @ 10..=15 if wrong_clock => 10..=since,
                    since => since..=since,
                };
                assert!(
                    expected.contains(&start),
                    "day {day}, wrong clock {wrong_clock}, {size} bytes: {start}, not {expected:?}"
                );
            }
        }
        let freed = writer.retain(200 * DAY, |_| week).unwrap();
        assert!(freed.segments > 0, "{freed:?}");
        let extent = writer.state().extent(part(0)).unwrap();
        assert_eq!((extent.start, extent.end), (60, 60), "all is old");
    }
}

/// An application's time long ago makes neither its record nor earlier records older than their frames.
#[test]
fn a_record_is_as_old_as_its_frame() {
    let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), small()).unwrap();
    let mut frame = FrameBuilder::new();
    for offset in 0..9 {
        frame.record(part(0), offset, Some(5), b"about long ago");
        writer.append(&mut frame, (100 + offset) * DAY).unwrap();
    }
    let keep = |_| Retention { age: Some(Duration::from_secs(3 * 86_400)), bytes: None };
    writer.retain(108 * DAY, keep).unwrap();
    assert_eq!(writer.state().extent(part(0)).unwrap().start, 5);
}

#[test]
fn a_floor_keeps_what_its_holder_needs_up_to_its_bytes() {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), small()).unwrap();
    month(&mut writer);
    let nothing = Retention { age: None, bytes: Some(0) };
    let start = |writer: &Writer, number| writer.journal().extent(part(number)).unwrap().start;
    let floors = |partition| match partition == part(0) {
        true => vec![RetentionFloor { offset: 30, bytes: None }, RetentionFloor { offset: 90, bytes: None }],
        // A record counts with its 100 bytes and at most 5 for its length and time: these are 20.
        false => vec![RetentionFloor { offset: 30, bytes: Some(2100) }],
    };
    let freed = writer.retain_above(0, |_| nothing, floors).unwrap();
    assert_eq!((start(&writer, 0), start(&writer, 2)), (30, 100), "the lowest floor counts, and its bytes");
    assert_eq!(freed.records, 130);
    let floors = |_| vec![RetentionFloor { offset: 10, bytes: None }];
    writer.retain_above(0, |_| Retention::default(), floors).unwrap();
    assert_eq!((start(&writer, 0), start(&writer, 2)), (30, 100), "a start never goes back");
    let floors = |_| vec![RetentionFloor { offset: u64::MAX, bytes: None }];
    writer.retain_above(0, |_| nothing, floors).unwrap();
    assert_eq!((start(&writer, 0), start(&writer, 2)), (120, 120), "a floor beyond the end keeps nothing");
}
