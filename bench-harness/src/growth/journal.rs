//! The journal: bytes, files and syncs by partitions, segments, topics and restarts. All on a simulated disk, which
//! counts bytes, syncs and open files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slipring::journal::simulated::{SimulatedDisk, Traffic};
use slipring::journal::storage::Storage;
use slipring::journal::{self, FrameBuilder, Journal, Options, PartitionId, Start, Visible, Writer};
use slipring::producer::Partitioner;
use slipring::subscriber::StartAt;
use slipring::{Engine, Level, Topic};

use super::bound::Bound;
use super::cost::{LONG, UNOPTIMISED, nanos_a_call, on_disk};
use super::groups::state_bytes;
use super::row::{Row, Unit};
use crate::failure::Failure;
use crate::system::process_time;

pub const ROWS: &[Row] = &[
    Row {
        name: "catch-up",
        cost: "bytes that a replay reads for a record",
        of: "partitions",
        unit: Unit::Bytes,
        quick: &[4, 16, 64],
        full: &[4, 16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "the journal's bytes times the partitions",
        measure: catch_up,
    },
    Row {
        name: "commit-bytes",
        cost: "bytes that a late group which commits each record reads and writes for one",
        of: "partitions",
        unit: Unit::Bytes,
        quick: &[4, 16, 64],
        full: &[4, 16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "259 KB at 1,024",
        measure: commits,
    },
    Row {
        name: "descriptors",
        cost: "open files",
        of: "segments that were read",
        unit: Unit::Count,
        quick: &[64, 256],
        full: &[64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "one a segment",
        measure: descriptors,
    },
    Row {
        name: "restarts",
        cost: "files",
        of: "openings and good ends of a small journal",
        unit: Unit::Count,
        quick: &[4, 16, 64],
        full: &[16, 64, 256],
        target: Bound::Constant,
        today: None,
        before: "one an opening",
        measure: restarts,
    },
    Row {
        name: "producer-state",
        cost: "bytes that a name of a producer adds to the beginning of each segment",
        of: "names of producers",
        unit: Unit::Bytes,
        quick: &[16, 64, 256],
        full: &[32, 128, 512],
        target: Bound::Constant,
        today: None,
        before: "585 names filled a journal",
        measure: producer_names,
    },
    Row {
        name: "reopen-topics",
        cost: "syncs while topics are created again after a restart",
        of: "durable topics",
        unit: Unit::Count,
        quick: &[16, 64, 256],
        full: &[64, 256, 1024, 4096],
        target: Bound::Constant,
        today: None,
        before: "one a topic",
        measure: reopen,
    },
    Row {
        name: "find-offset",
        cost: "opening a reader at an offset",
        of: "segments",
        unit: Unit::Nanos,
        quick: &[64, 256, 1024],
        full: &[64, 256, 1024],
        target: Bound::Log,
        today: None,
        before: "linear",
        measure: |n| find(n, Start::Offset),
    },
    Row {
        name: "find-time",
        cost: "opening a reader at a time",
        of: "segments",
        unit: Unit::Nanos,
        quick: &[64, 256, 1024],
        full: &[64, 256, 1024],
        target: Bound::Log,
        today: None,
        before: "linear",
        measure: |n| find(n, Start::Time),
    },
    Row {
        name: "slow-syncs",
        cost: "syncs for an event, at 10 events a second",
        of: "events",
        unit: Unit::Count,
        quick: &[16],
        full: &[50],
        target: Bound::AtMost(1.25),
        today: None,
        before: "2",
        measure: |n| Ok(slow_events(n, false)?.syncs),
    },
    Row {
        name: "slow-commits",
        cost: "syncs for an event that a group reads and commits, at 10 events a second",
        of: "events",
        unit: Unit::Count,
        quick: &[16],
        full: &[50],
        target: Bound::AtMost(1.25),
        today: None,
        before: "2",
        measure: |n| Ok(slow_events(n, true)?.syncs),
    },
    Row {
        name: "slow-time",
        cost: "processor time for an event, at 10 events a second",
        of: "events",
        unit: Unit::Nanos,
        quick: &[16],
        full: &[50],
        target: Bound::AtMost(375_000.0 * UNOPTIMISED),
        today: None,
        before: "0.75 ms",
        measure: |n| Ok(slow_events(n, false)?.nanos),
    },
];

/// Events of `catch-up` and `commit-bytes` at `n` partitions: so many that the one-time cost of each partition is small
/// beside theirs.
fn events(n: usize) -> u64 {
    2_048.max(16 * n as u64)
}

/// Bytes of a segment of a journal that should have few segments.
const LARGE: u64 = 8 << 20;
/// Bytes of a segment of a journal that should have many segments.
const SMALL: u64 = 4 << 10;

/// The traffic of all segment files since the last call.
fn segment_traffic(disk: &SimulatedDisk) -> Traffic {
    let done: BTreeMap<String, Traffic> = disk.take_traffic();
    let segments = done.iter().filter(|(name, _)| name.ends_with(".segment"));
    segments.fold(Traffic::default(), |mut sum, (_, done)| {
        sum.read += done.read;
        sum.written += done.written;
        sum.syncs += done.syncs;
        sum
    })
}

/// A durable topic of `n` partitions with as many events as [`events`] returns, in a journal that was closed and opened
/// again.
fn history(n: usize) -> Result<(SimulatedDisk, Engine, Topic<u64>), Failure> {
    let disk = SimulatedDisk::new();
    let open = || -> Result<(Engine, Topic<u64>), Failure> {
        let engine = on_disk(&disk, LARGE)?;
        let topic = engine.topic::<u64>("numbers").partitions(n).capacity(16).durable().create();
        Ok((engine, topic.map_err(Failure::refused)?))
    };
    let (engine, topic) = open()?;
    let producer = topic.producer().partitioner(Partitioner::RoundRobin).create();
    let mut producer = producer.map_err(Failure::refused)?;
    for number in 0..events(n) {
        producer.publish(|event| *event = number).map_err(Failure::refused)?;
    }
    drop((producer, topic));
    engine.shutdown(LONG);
    drop(engine);
    let (engine, topic) = open()?;
    Ok((disk, engine, topic))
}

fn catch_up(n: usize) -> Result<f64, Failure> {
    let (disk, engine, topic) = history(n)?;
    segment_traffic(&disk);
    let mut replay = topic.replay("all").start(StartAt::Earliest).open().map_err(Failure::refused)?;
    let mut seen = 0;
    while seen < events(n) {
        replay.read(LONG, |_, _| seen += 1).map_err(Failure::refused)?;
    }
    let read = segment_traffic(&disk).read;
    drop(replay);
    engine.shutdown(LONG);
    Ok(read as f64 / events(n) as f64)
}

fn commits(n: usize) -> Result<f64, Failure> {
    let (disk, engine, topic) = history(n)?;
    segment_traffic(&disk);
    let group = topic.group("late").start(StartAt::Earliest).limit(1);
    let mut member = group.join().map_err(Failure::refused)?;
    let mut seen = 0;
    while seen < events(n) {
        if let Some(batch) = member.poll(LONG).map_err(Failure::refused)? {
            seen += batch.len() as u64;
            batch.commit().map_err(Failure::refused)?;
        }
    }
    let done = segment_traffic(&disk);
    member.leave();
    engine.shutdown(LONG);
    Ok((done.read + done.written) as f64 / seen as f64)
}

const ONE: PartitionId = PartitionId { topic: 1, partition: 0 };

/// A journal of `n` segments with one record of 512 bytes in each frame, and the offset after the last.
fn segments(disk: &SimulatedDisk, n: usize) -> Result<(Writer, u64), Failure> {
    let options = Options { segment_size: SMALL, helper: false, ..Options::default() };
    let (mut writer, _) = journal::open(Arc::new(disk.clone()), options).map_err(Failure::refused)?;
    let mut frame = FrameBuilder::new();
    let mut offset = 0;
    let count = || -> Result<usize, Failure> {
        let names = disk.list().map_err(Failure::refused)?;
        Ok(names.iter().filter(|name| name.ends_with(".segment")).count())
    };
    while count()? < n {
        frame.clear();
        frame.record(ONE, offset, None, &[7; 512]);
        offset += 1;
        // The frame's time, which is its record's too, is the offset after the record: `find-time` searches for such
        // times.
        writer.append(&mut frame, offset).map_err(Failure::refused)?;
        writer.sync().map_err(Failure::refused)?;
    }
    Ok((writer, offset))
}

fn descriptors(n: usize) -> Result<f64, Failure> {
    let disk = SimulatedDisk::new();
    let (writer, end) = segments(&disk, n)?;
    let mut reader = writer.journal().reader(ONE, Start::Earliest, Visible::Durable).map_err(Failure::refused)?;
    let mut records = 0;
    while reader.next().map_err(Failure::refused)?.is_some() {
        records += 1;
    }
    if records != end {
        return Err(Failure::refused(format!("{records} of {end} records came")));
    }
    Ok(disk.open_files() as f64)
}

fn find(n: usize, start: fn(u64) -> Start) -> Result<f64, Failure> {
    let disk = SimulatedDisk::new();
    let (writer, end) = segments(&disk, n)?;
    let journal: Journal = writer.journal();
    let mut next = 0;
    nanos_a_call(16, || {
        // Each call starts a third of the journal after the last one, and wraps around at its end.
        next = (next + end / 3) % end;
        journal.reader(ONE, start(next), Visible::Durable).map(drop).map_err(Failure::refused)
    })
}

fn restarts(n: usize) -> Result<f64, Failure> {
    let disk = SimulatedDisk::new();
    for number in 0..n as u64 {
        let engine = on_disk(&disk, LARGE)?;
        let topic = engine.topic::<u64>("numbers").capacity(8).durable().create().map_err(Failure::refused)?;
        let mut producer = topic.producer().create().map_err(Failure::refused)?;
        producer.publish(|event| *event = number).map_err(Failure::refused)?;
        drop(producer);
        engine.shutdown(LONG);
    }
    Ok(disk.list().map_err(Failure::refused)?.len() as f64)
}

fn producer_names(n: usize) -> Result<f64, Failure> {
    let state = |n: usize| {
        let disk = SimulatedDisk::new();
        let engine = on_disk(&disk, LARGE)?;
        let topic = engine.topic::<u64>("numbers").capacity(8).durable().create().map_err(Failure::refused)?;
        for index in 0..n {
            let producer = topic.producer().acknowledge(Level::Durable).idempotent(format!("producer-{index}"));
            let mut producer = producer.map_err(Failure::refused)?;
            producer.publish(0, |_| ()).map_err(Failure::refused)?;
        }
        engine.shutdown(LONG);
        state_bytes(&disk, LARGE)
    };
    Ok((state(n)? - state(0)?) / n as f64)
}

fn reopen(n: usize) -> Result<f64, Failure> {
    let disk = SimulatedDisk::new();
    let create = || -> Result<(Engine, u64), Failure> {
        let engine = on_disk(&disk, LARGE)?;
        let before = disk.syncs();
        let topic = |index| engine.topic::<u64>(format!("topic-{index}")).capacity(8).durable().create();
        let topics = (0..n).map(topic).collect::<Result<Vec<_>, _>>().map_err(Failure::refused)?;
        let syncs = disk.syncs() - before;
        drop(topics);
        Ok((engine, syncs))
    };
    create()?.0.shutdown(LONG);
    let (engine, syncs) = create()?;
    engine.shutdown(LONG);
    Ok(syncs as f64)
}

/// The cost of an event: syncs, and nanoseconds of processor time (0 if the system does not report it).
struct Slow {
    syncs: f64,
    nanos: f64,
}

/// Publishes `n` durable events at 10 a second; with `commits` a group reads each one and commits it.
fn slow_events(n: usize, commits: bool) -> Result<Slow, Failure> {
    const PAUSE: Duration = Duration::from_millis(100);
    let disk = SimulatedDisk::new();
    let engine = on_disk(&disk, LARGE)?;
    let topic = engine.topic::<u64>("numbers").capacity(1024).durable().create().map_err(Failure::refused)?;
    let mut producer = topic.producer().acknowledge(Level::Durable).create().map_err(Failure::refused)?;
    producer.publish(|_| ()).map_err(Failure::refused)?;
    let mut member = commits.then(|| topic.group("all").join()).transpose().map_err(Failure::refused)?;
    std::thread::sleep(PAUSE);
    segment_traffic(&disk);
    let (begun, spent) = (Instant::now(), process_time());
    for number in 0..n {
        producer.publish(|event| *event = number as u64).map_err(Failure::refused)?;
        if let Some(member) = &mut member
            && let Some(batch) = member.poll(LONG).map_err(Failure::refused)?
        {
            batch.commit().map_err(Failure::refused)?;
        }
        std::thread::sleep(PAUSE);
    }
    // If the machine stalls for a second, the journal is idle and may sync once more: such syncs are not counted.
    let pauses = (begun.elapsed().saturating_sub(PAUSE * n as u32)).as_secs();
    let syncs = segment_traffic(&disk).syncs.saturating_sub(pauses);
    let nanos = spent.zip(process_time()).map_or(0.0, |(before, after)| (after - before).as_nanos() as f64);
    drop((producer, member));
    engine.shutdown(LONG);
    Ok(Slow { syncs: syncs as f64 / n as f64, nanos: nanos / n as f64 })
}
