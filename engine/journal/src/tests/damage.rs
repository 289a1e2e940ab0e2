//! Flipped bits and cut files: no wrong payload is ever returned, and the loss of durable data is always an error.

use super::*;
use crate::files::names::{segment_name, segment_number};
use crate::format::{FrameHeader, SEGMENT_HEAD, SegmentHeader};
use crate::simulated::SimulatedDisk;
use crate::storage::Storage;
use fastrand::Rng;
use std::sync::Arc;

type Damage = Box<dyn Fn(&mut Vec<u8>)>;

/// A journal of several segments and openings. If `closed`, the last opening was closed; otherwise its process was
/// killed.
fn journal(closed: bool) -> (SimulatedDisk, Story) {
    let disk = SimulatedDisk::new();
    let mut story = Story::default();
    for generation in 0..3 {
        let mut writer = reopen(&disk, &small(), &mut story).unwrap();
        story.work(&mut writer, &mut Rng::with_seed(100 + generation), 18).unwrap();
        if generation < 2 || closed {
            writer.sync().unwrap();
            story.acknowledged = story.frames.len();
            writer.close(5).unwrap();
        }
    }
    (disk.copy(), story)
}

/// Segment number, file offset and header of each frame, in the order of the files.
fn frames(disk: &SimulatedDisk) -> Vec<(u64, u64, FrameHeader)> {
    let mut frames = Vec::new();
    for name in disk.list().unwrap() {
        let Some(number) = segment_number(&name) else { continue };
        let bytes = disk.contents(&name).unwrap();
        let segment = SegmentHeader::decode(&bytes).unwrap();
        let mut at = SEGMENT_HEAD;
        while let Ok((frame, _)) = FrameHeader::decode(&segment.id, segment.first + at, &bytes[at as usize..]) {
            frames.push((number, at, frame));
            at += frame.span();
        }
    }
    frames
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Refused,
    /// No error: the journal holds this many frames from the beginning of the story.
    Prefix(usize),
}

fn outcome(disk: &SimulatedDisk, story: &Story) -> Result<Outcome, String> {
    outcome_with(disk, story, small())
}

fn outcome_with(disk: &SimulatedDisk, story: &Story, options: Options) -> Result<Outcome, String> {
    let Ok((writer, recovered)) = open(Arc::new(disk.clone()), options) else { return Ok(Outcome::Refused) };
    match content(&writer.journal(), &recovered.state) {
        Ok(found) => match story.prefix(&found) {
            Some(frames) => Ok(Outcome::Prefix(frames)),
            None => Err(format!("a wrong payload: {found:?}")),
        },
        Err(_) => Ok(Outcome::Refused),
    }
}

/// Count of the data frames in `before` that end at or below the highest durable mark that remains on `disk`. The
/// checkpoint's mark counts if `checkpoint` is true.
fn must_have(before: &[(u64, u64, FrameHeader)], disk: &SimulatedDisk, checkpoint: bool) -> usize {
    let mut durable = 0;
    let mut data = Vec::new();
    for (number, at, frame) in before {
        let bytes = disk.contents(&segment_name(*number)).unwrap_or_default();
        let there = bytes.get(*at as usize..).unwrap_or(&[]);
        // The header of a frame can remain after its payload is lost: its durable mark still counts.
        let id = before_id(disk);
        if FrameHeader::decode(&id, frame.position, there).is_ok() {
            durable = durable.max(frame.durable);
        }
        if frame.kind == format::FrameKind::Data {
            data.push(frame.position + frame.span());
        }
    }
    if checkpoint {
        let bytes = disk.contents("checkpoint").unwrap();
        durable = durable.max(checkpoint::Checkpoint::decode(&bytes).map_or(0, |checkpoint| checkpoint.durable));
    }
    data.iter().filter(|end| **end <= durable).count()
}

fn before_id(disk: &SimulatedDisk) -> JournalId {
    let names = disk.list().unwrap();
    let headers = names.iter().filter(|name| segment_number(name).is_some());
    headers
        .filter_map(|name| SegmentHeader::decode(&disk.contents(name)?).ok())
        .map(|h| h.id)
        .next()
        .unwrap_or_default()
}

/// Applies to each file of the journal each damage that `damages` returns for the file's size. Returns the count of
/// examined states.
fn every(closed: bool, damages: impl Fn(usize) -> Vec<Damage>) -> u64 {
    let (disk, story) = journal(closed);
    let before = frames(&disk);
    // The frames that reserve offsets belong to the story. So do all data frames except those of a close, which return
    // reservations.
    let closing =
        before.iter().filter(|(_, _, frame)| frame.kind == format::FrameKind::Data).count() - story.frames.len();
    assert!(before.iter().map(|(number, _, _)| *number).max() >= Some(5), "several segments");
    assert_eq!(outcome(&disk.copy(), &story), Ok(Outcome::Prefix(story.frames.len())));
    let mut states = 0;
    for name in disk.list().unwrap() {
        let len = disk.contents(&name).unwrap().len();
        for damage in damages(len) {
            let bad = disk.copy();
            bad.edit(&name, |bytes| damage(bytes));
            let least = must_have(&before, &bad, closed).saturating_sub(closing);
            let found = outcome(&bad, &story).unwrap_or_else(|what| panic!("{name}: {what}"));
            if let Outcome::Prefix(frames) = found {
                assert!(
                    frames >= least,
                    "{name}, state {states}: {frames} frames without an error, {least} were marked"
                );
            }
            states += 1;
        }
    }
    states
}

fn flips(len: usize) -> Vec<Damage> {
    (0..len).map(|at| Box::new(move |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (at % 8)) as Damage).collect()
}

fn cuts(len: usize) -> Vec<Damage> {
    (0..len).map(|at| Box::new(move |bytes: &mut Vec<u8>| bytes.truncate(at)) as Damage).collect()
}

#[test]
fn each_flipped_byte_of_a_closed_journal_is_an_error_or_changes_nothing() {
    println!("{} states", every(true, flips));
}

#[test]
fn each_flipped_byte_of_a_killed_journal_is_an_error_below_the_mark() {
    println!("{} states", every(false, flips));
}

#[test]
fn each_truncation_is_an_error_below_the_mark() {
    println!("{} states", every(true, cuts) + every(false, cuts));
}

#[test]
fn each_missing_file_is_an_error_or_derived() {
    for closed in [true, false] {
        let (disk, story) = journal(closed);
        for name in disk.list().unwrap() {
            let bad = disk.copy();
            bad.remove(&name).unwrap();
            let found = outcome(&bad, &story).unwrap();
            if segment_number(&name).is_some() && name != segment_name(story_last(&disk)) {
                assert_eq!(found, Outcome::Refused, "{name}");
            } else if segment_number(&name).is_none() {
                assert_eq!(found, Outcome::Prefix(story.frames.len()), "{name}");
            }
        }
    }
}

fn story_last(disk: &SimulatedDisk) -> u64 {
    disk.list().unwrap().iter().filter_map(|name| segment_number(name)).max().unwrap()
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let (disk, _) = journal(true);
    let name = segment_name(story_last(&disk));
    disk.edit(&name, |bytes| {
        bytes[8] += 1;
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    });
    let refused = open(Arc::new(disk), small()).unwrap_err();
    assert_eq!(refused, OpenError::Newer { file: name, found: 3 });
    assert!(refused.to_string().contains("version 3"), "{refused}");
}

#[test]
fn damage_below_the_mark_says_where_and_changes_nothing() {
    let (disk, story) = journal(false);
    let (number, at, frame) = frames(&disk).into_iter().rfind(|(_, at, _)| *at == SEGMENT_HEAD).unwrap();
    assert!(story.acknowledged > 0);
    disk.edit(&segment_name(number), |bytes| bytes[at as usize + 64] ^= 1);
    let before: Vec<_> = disk.list().unwrap().into_iter().map(|name| disk.contents(&name)).collect();
    let refused = open(Arc::new(disk.clone()), small()).unwrap_err();
    let OpenError::Damaged { durable, position, .. } = &refused else { panic!("{refused}") };
    assert!(*durable > *position && *position <= frame.position, "{refused}");
    let after: Vec<_> = disk.list().unwrap().into_iter().map(|name| disk.contents(&name)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_torn_end_is_kept_aside_and_reported() {
    let (disk, mut story) = journal(false);
    let last = segment_name(story_last(&disk));
    let (_, at, frame) = frames(&disk).into_iter().next_back().unwrap();
    let end = (at + frame.span()) as usize;
    disk.edit(&last, |bytes| bytes[end..end + 100].fill(7));
    let (writer, recovered) = open(Arc::new(disk.clone()), small()).unwrap();
    let torn = recovered.torn.unwrap();
    assert_eq!((torn.bytes, torn.position), (100, recovered.end));
    assert_eq!(disk.contents(&torn.copies[0]).unwrap(), [7; 100]);
    let left = disk.contents(&last).unwrap();
    assert!(
        left[end..].starts_with(b"FRAM") && left[end + 64..].iter().all(|byte| *byte == 0),
        "cut, and gone on with"
    );
    drop(writer);
    let frames = story.frames.len();
    reopen(&disk, &small(), &mut story).unwrap();
    assert_eq!(story.frames.len(), frames, "nothing else went");
}

#[test]
fn arbitrary_bytes_never_panic() {
    // Input such as a fuzzer begins with: nothing, headers with wrong lengths, frames of other journals, and noise in good
    // files.
    let mut dice = Rng::with_seed(4711);
    let (good, story) = journal(false);
    for round in 0..400 {
        let disk = good.copy();
        let names = disk.list().unwrap();
        let name = &names[dice.usize(..names.len())];
        disk.edit(name, |bytes| {
            if round % 4 == 0 {
                bytes.clear();
            }
            let len = bytes.len();
            let noise = 1 + dice.usize(..700);
            let at = if len == 0 { 0 } else { dice.usize(..len) };
            for index in at..at + noise {
                let byte = dice.u64(..256) as u8;
                match bytes.get_mut(index) {
                    Some(there) => *there = byte,
                    None => bytes.push(byte),
                }
            }
        });
        outcome(&disk, &story).unwrap_or_else(|what| panic!("round {round}, {name}: {what}"));
    }
    for len in [0_usize, 1, 7, 8, 40, 64, 500] {
        for _ in 0..200 {
            let noise: Vec<u8> = (0..len).map(|_| dice.u64(..256) as u8).collect();
            let _ = format::entries(&noise).count();
            let _ = FrameHeader::decode(&[0; 16], 0, &noise);
            let _ = SegmentHeader::decode(&noise);
            let _ = index::Index::decode(&noise, &[0; 16], 1, 1);
            let _ = format::decompress(Codec::Lz4, &noise, 300);
        }
    }
}

/// The comparison that the tests above make finds a reader with this fault.
#[test]
fn a_reader_that_accepts_bad_checksums_is_found() {
    let (disk, story) = journal(false);
    let mut lenient = small();
    lenient.sabotage.accept_bad_checksums = true;
    let (number, at, frame) = frames(&disk).into_iter().rfind(|(_, _, frame)| frame.stored > 200).unwrap();
    // The last byte of a payload belongs to a record or to a value.
    disk.edit(&segment_name(number), |bytes| bytes[at as usize + 63 + frame.stored as usize] ^= 1);
    assert!(outcome_with(&disk.copy(), &story, lenient).is_err(), "a wrong payload was given");
    assert!(outcome(&disk, &story).is_ok());
}
