//! Several cursors over one scan: the records that they return, and the memory that the scan holds.

use super::*;
use crate::read::scan::SharedScan;
use crate::segment::INDEX_LOOKS;
use fastrand::Rng;
use std::sync::Arc;

/// A journal of `frames` frames, each with records of some of `partitions`.
fn journal(dice: &mut Rng, options: Options, frames: u64, partitions: u32) -> (Writer, BTreeMap<PartitionId, u64>) {
    let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), options).unwrap();
    let mut ends = BTreeMap::new();
    for _ in 0..frames {
        grow(dice, &mut writer, &mut ends, partitions);
    }
    (writer, ends)
}

fn grow(dice: &mut Rng, writer: &mut Writer, ends: &mut BTreeMap<PartitionId, u64>, partitions: u32) {
    let mut frame = FrameBuilder::new();
    for _ in 0..=dice.u64(..4) {
        // Some partitions have records in many frames, some in few.
        let most = 1 + dice.u64(..u64::from(partitions));
        let partition = part(dice.u64(..most) as u32);
        let end = ends.entry(partition).or_insert(0);
        let offset = *end + u64::from(dice.u64(..9) == 0);
        frame.record(partition, offset, None, &body(partition, offset, 0));
        *end = offset + 1;
    }
    writer.append(&mut frame, 7).unwrap();
}

fn alone(journal: &Journal, partition: PartitionId, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut reader = journal.reader(partition, Start::Offset(from), Visible::Written).unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        found.push((record.offset, record.bytes.to_vec()));
    }
    found
}

/// Takes at most `most` records, and returns the count taken.
fn take(scan: &mut SharedScan, cursor: &mut Cursor, most: u64, found: &mut Vec<(u64, Vec<u8>)>) -> u64 {
    cursor.resume(scan);
    let mut taken = 0;
    while taken < most
        && let Some(record) = cursor.next(scan, u64::MAX).unwrap()
    {
        found.push((record.offset, record.bytes.to_vec()));
        taken += 1;
    }
    if taken > 0 {
        scan.record_taken();
    }
    taken
}

/// Some cursors are called rarely, or not at all for a while; some join later; and the journal grows meanwhile.
#[test]
fn cursors_in_any_order_give_what_each_alone_would() {
    for seed in 1..60 {
        let mut dice = Rng::with_seed(seed * 7_919);
        let partitions = 2 + dice.u64(..9) as u32;
        let codec = if dice.bool() { Codec::Plain } else { Codec::Lz4 };
        let (mut writer, mut ends) = journal(&mut dice, Options { codec, ..small() }, 150, partitions);
        let journal = writer.journal();
        let mut scan = journal.scan(Visible::Written);
        /// Offset and bytes of each record.
        type Found = Vec<(u64, Vec<u8>)>;
        let mut cursors: Vec<(u64, Cursor, Found)> = Vec::new();
        for (partition, end) in ends.clone() {
            let start = journal.extent(partition).unwrap().start;
            let from = start + dice.u64(..end - start + 1);
            let mut cursor = journal.cursor(partition, Start::Offset(from)).unwrap();
            if dice.u64(..3) > 0 {
                cursor.resume(&mut scan);
            }
            cursors.push((from, cursor, Vec::new()));
        }
        for _ in 0..300 {
            let most = 1 + dice.usize(..cursors.len());
            let (_, cursor, found) = &mut cursors[dice.usize(..most)];
            take(&mut scan, cursor, 1 + dice.u64(..20), found);
            if dice.u64(..20) == 0 {
                grow(&mut dice, &mut writer, &mut ends, partitions);
            }
            if dice.u64(..40) == 0 {
                // Seeks back to a record that the cursor has returned.
                if let Some((offset, _)) = found.last().cloned() {
                    cursor.seek(offset);
                    found.pop();
                }
            }
        }
        // A cursor that is called repeatedly returns all records, whatever the other cursors do.
        for (from, cursor, found) in &mut cursors {
            let mut fruitless = 0;
            while fruitless < 3 {
                fruitless = if take(&mut scan, cursor, 10, found) > 0 { 0 } else { fruitless + 1 };
            }
            assert_eq!(*found, alone(&journal, cursor.partition(), *from), "seed {seed}, {:?}", cursor.partition());
        }
    }
}

/// Each frame has records of one partition, as many as a slow writer has gathered. So in each rotation some cursors
/// need a block that lies after the one which the others still need.
#[test]
fn cursors_that_are_called_in_rotation_read_each_block_once() {
    let (partitions, rounds) = (16, 60);
    for seed in 1..20 {
        let mut dice = Rng::with_seed(seed);
        let disk = Arc::new(SimulatedDisk::new());
        let options = Options { segment_size: 4 << 20, helper: false, ..Options::default() };
        let (mut writer, _) = open(Arc::clone(&disk) as Arc<_>, options).unwrap();
        let mut ends = vec![0; partitions];
        for _ in 0..rounds {
            let mut order: Vec<usize> = (0..partitions).collect();
            dice.shuffle(&mut order);
            for partition in order {
                let mut frame = FrameBuilder::new();
                for _ in 0..dice.u64(1..200) {
                    frame.record(part(partition as u32), ends[partition], None, &[7; 30]);
                    ends[partition] += 1;
                }
                writer.append(&mut frame, 7).unwrap();
            }
        }
        let journal = writer.journal();
        let bytes = journal.written();
        disk.take_traffic();
        let mut scan = journal.scan(Visible::Written);
        let cursor = |partition: usize| journal.cursor(part(partition as u32), Start::Offset(0)).unwrap();
        let mut cursors: Vec<_> = (0..partitions).map(cursor).collect();
        cursors.iter_mut().for_each(|cursor| cursor.resume(&mut scan));
        let mut found = Vec::new();
        while cursors.iter().zip(&ends).any(|(cursor, end)| cursor.position() < *end) {
            for cursor in &mut cursors {
                take(&mut scan, cursor, 1, &mut found);
            }
        }
        let read: u64 = disk.take_traffic().values().map(|done| done.read).sum();
        assert!(read * 10 <= bytes * 11, "seed {seed}: {read} bytes read of {bytes}");
    }
}

#[test]
fn two_blocks_are_all_that_is_held_however_far_cursors_are_apart() {
    let options = Options { segment_size: 4 << 20, helper: false, ..Options::default() };
    let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), options).unwrap();
    let (partitions, each) = (64_u32, 400_u64);
    for offset in 0..each {
        let mut frame = FrameBuilder::new();
        for partition in 0..partitions {
            frame.record(PartitionId { topic: 1, partition }, offset, None, &[7; 30]);
        }
        writer.append(&mut frame, 7).unwrap();
    }
    let journal = writer.journal();
    let mut scan = journal.scan(Visible::Written);
    let cursor = |partition: u32| {
        let from = u64::from(partition) * each / u64::from(partitions);
        journal.cursor(PartitionId { topic: 1, partition }, Start::Offset(from)).unwrap()
    };
    let mut cursors: Vec<_> = (0..partitions).map(cursor).collect();
    cursors.iter_mut().for_each(|cursor| cursor.resume(&mut scan));
    let (mut dice, mut found, mut left) = (Rng::with_seed(5), Vec::new(), each * u64::from(partitions));
    while left > 0 {
        // Half of the cursors are slow.
        let slow = cursors.len() / 2;
        let which = if dice.u64(..50) == 0 { 0..slow } else { slow..cursors.len() };
        left = 0;
        for cursor in &mut cursors[which] {
            take(&mut scan, cursor, 3, &mut found);
            found.clear();
            let held: usize = scan.blocks.iter().map(|block| block.held().len()).sum();
            assert!(held <= 2 * ((256 << 10) + 64 * 120), "{held} bytes");
        }
        left += cursors.iter().map(|cursor| each - cursor.position()).sum::<u64>();
    }
}

#[test]
fn an_offset_or_time_is_found_among_many_segments_by_bisection() {
    let (mut writer, _) = open(Arc::new(SimulatedDisk::new()), small()).unwrap();
    let (dense, sparse) = (part(0), part(2));
    for offset in 0..1000_u64 {
        let mut frame = FrameBuilder::new();
        frame.record(dense, offset, None, &[offset as u8; 700]);
        if offset % 50 == 0 {
            frame.record(sparse, offset, None, &[offset as u8; 9]);
        }
        writer.append(&mut frame, 10 * offset).unwrap();
    }
    let journal = writer.journal();
    let segments = journal.shared.segments().len();
    assert!(segments > 200, "{segments}");
    // Between two segments with records of the sparse one lie some 17 without.
    for (partition, offsets, most) in [(dense, 1, 24), (sparse, 50, 150)] {
        for asked in (0..=950).step_by(37) {
            let before = INDEX_LOOKS.get();
            let mut reader = journal.reader(partition, Start::Offset(asked), Visible::Written).unwrap();
            let looks = INDEX_LOOKS.get() - before;
            assert!(looks <= most, "{looks} indexes of {segments} were looked at for offset {asked} of {partition:?}");
            let expected = (asked..1000).find(|offset| offset % offsets == 0);
            let found = reader.next().unwrap().map(|record| (record.offset, record.bytes[0]));
            assert_eq!(found, expected.map(|offset| (offset, offset as u8)));
            let before = INDEX_LOOKS.get();
            let mut reader = journal.reader(partition, Start::Time(10 * asked), Visible::Written).unwrap();
            let looks = INDEX_LOOKS.get() - before;
            // The first search for a time reads the index of each segment once more, for the cache of times.
            let most = if offsets == 1 && asked == 0 { 2 * segments as u64 } else { most };
            assert!(looks <= most, "{looks} indexes of {segments} were looked at for time {asked} of {partition:?}");
            let found = reader.next().unwrap().map(|record| (record.offset, record.bytes[0]));
            assert_eq!(found, expected.map(|offset| (offset, offset as u8)));
        }
    }
}
