//! Many openings of one journal: files, descriptors and the time of an opening follow the data, not the history.
//!
//! ```sh
//! SLIPRING_RESTARTS=5000 cargo test -p slipring --test restarts -- --nocapture
//! ```

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::storage::{Disk, Storage};
use slipring::journal::{FrameBuilder, Options, PartitionId, Start, Visible, open};
use slipring::{Engine, Level, Topic};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const DIR: &str = "SLIPRING_RESTARTS_DIRECTORY";

/// Runs an ignored test of this file in a process that may have so many descriptors.
fn limited(test: &str, descriptors: u32, dir: &Path) {
    let limit = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limit]).arg(std::env::current_exe().unwrap());
    let done = command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIR, dir).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{out}\n{err}");
    print!("{out}");
}

fn dir() -> std::path::PathBuf {
    std::env::var_os(DIR).expect("started by the test below").into()
}

fn engine(dir: &Path) -> Engine {
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    Engine::builder().journal(dir).journal_options(options).build().unwrap()
}

fn numbers(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("numbers").partitions(2).capacity(64).durable().create().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".segment")).count()
}

#[test]
#[ignore = "started by the test below"]
fn one_process_restarts_often() {
    let dir = dir();
    let rounds = std::env::var("SLIPRING_RESTARTS").map_or(250, |rounds| rounds.parse().unwrap());
    let mut most = 0;
    for round in 0..rounds {
        let engine = engine(&dir);
        let recovered = engine.recovered().unwrap();
        // A restart writes a few hundred bytes, in good order or not, and a segment is left when it is full.
        let bound = 3 + round * 2048 / (1 << 20);
        assert!((recovered.segments as u64) <= bound, "round {round}: {} segments", recovered.segments);
        let topic = numbers(&engine);
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        producer.publish_to((round % 2) as u32, |event| *event = round).unwrap();
        most = most.max(descriptors());
        drop((producer, topic));
        assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))));
    }
    assert!(most < 40, "{most} descriptors");
    let engine = engine(&dir);
    let topic = numbers(&engine);
    let mut replay = topic.replay("auditor").open().unwrap();
    let mut seen = Vec::new();
    while !(replay.is_live() && replay.read(Duration::ZERO, |event, _| seen.push(*event)).unwrap() == Some(0)) {
        replay.read(Duration::ZERO, |event, _| seen.push(*event)).unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..rounds).collect::<Vec<_>>());
    println!("{rounds} restarts: {} segments, {most} descriptors", segments(&dir));
}

#[test]
fn a_restart_adds_no_file_and_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    limited("one_process_restarts_often", 64, dir.path());
    assert!(segments(dir.path()) <= 20, "{}", segments(dir.path()));
}

/// What an opening reads, writes and syncs, by the journal's own counts of its calls.
#[test]
fn an_opening_costs_as_much_after_many_as_after_one() {
    const SEGMENT: u64 = 1 << 15;
    let disk = SimulatedDisk::new();
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    let mut costs = Vec::new();
    for round in 0..250_u64 {
        disk.take_traffic();
        let engine = Engine::builder().journal_in(disk.clone()).journal_options(options.clone()).build().unwrap();
        let done = disk.take_traffic();
        costs.push(done.values().fold((0, 0, 0, 0), |(read, reads, written, syncs), of| {
            (read + of.read, reads + of.reads, written + of.written, syncs + of.syncs)
        }));
        let topic = numbers(&engine);
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        producer.publish_to((round % 2) as u32, |event| *event = round).unwrap();
        drop((producer, topic));
        assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))));
    }
    let segments = disk.list().unwrap().iter().filter(|name| name.ends_with(".segment")).count() as u64;
    println!("{segments} segments; {:?} at first, {:?} at last", costs[1], costs[249]);
    assert!(segments > 5, "all that was ever written is more than an opening may read: {segments} segments");
    for (round, (read, reads, written, syncs)) in costs.into_iter().enumerate() {
        // The last segment to its end and the one before, and of each other one its head, its index and its last frame.
        let heads = segments * 4096;
        assert!(
            read <= 2 * SEGMENT + heads && reads <= 40 + 4 * segments,
            "opening {round}: {read} bytes in {reads} calls"
        );
        assert!(written <= SEGMENT && syncs <= 20, "opening {round}: {written} bytes, {syncs} syncs");
    }
}

const PART: PartitionId = PartitionId { topic: 1, partition: 0 };
const RECORDS: u64 = 9_000;

fn small() -> Options {
    Options { segment_size: 4096, ..Options::default() }
}

/// What some 1,200 openings by an elder program have left: a segment each, and no index that is believed.
fn many_segments(dir: &Path) {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), Options { helper: false, ..small() }).unwrap();
    let mut frame = FrameBuilder::new();
    for offset in 0..RECORDS {
        frame.record(PART, offset, None, &[offset as u8; 300]);
        writer.append(&mut frame, offset).unwrap();
    }
    writer.close(RECORDS).unwrap();
    for name in disk.list().unwrap() {
        let mut bytes = disk.contents(&name).unwrap();
        if name.ends_with(".segment") {
            bytes[8] = 1;
            let checksum = crc32c::crc32c(&bytes[..60]);
            bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        }
        std::fs::write(dir.join(&name), &bytes).unwrap();
    }
}

#[test]
#[ignore = "started by the test below"]
fn one_process_opens_many_segments() {
    let dir = dir();
    for elder in [Some(1), None] {
        let (mut writer, recovered) = open(Arc::new(Disk::new(&dir)), small()).unwrap();
        assert_eq!(recovered.upgraded_from, elder);
        assert!(recovered.segments > 1_100, "{}", recovered.segments);
        let journal = writer.journal();
        let mut reader = journal.reader(PART, Start::Earliest, Visible::Durable).unwrap();
        for offset in 0..RECORDS {
            let record = reader.next().unwrap().unwrap();
            assert_eq!((record.offset, record.bytes), (offset, &[offset as u8; 300][..]));
        }
        // Many readers in many places share the few files that are open.
        let mut readers: Vec<_> = (0..RECORDS)
            .step_by(30)
            .map(|offset| journal.reader(PART, Start::Offset(offset), Visible::Durable).unwrap())
            .collect();
        for (place, reader) in readers.iter_mut().enumerate() {
            assert_eq!(reader.next().unwrap().unwrap().offset, place as u64 * 30);
        }
        assert!(descriptors() < 60, "{}", descriptors());
        let mut frame = FrameBuilder::new();
        frame.put(9, b"opened", b"again");
        writer.append(&mut frame, RECORDS).unwrap();
        writer.close(RECORDS).unwrap();
    }
}

#[test]
fn a_journal_of_a_thousand_small_segments_opens_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    many_segments(dir.path());
    limited("one_process_opens_many_segments", 64, dir.path());
}

/// Topics with all that they can leave in the journal are made and deleted again and again.
#[test]
fn topics_that_come_and_go_leave_nothing() {
    let disk = SimulatedDisk::new();
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = || Engine::builder().journal_in(disk.clone()).journal_options(options.clone()).build().unwrap();
    let mut sizes = Vec::new();
    for opening in 0..3 {
        let engine = engine();
        let copies = engine.topic::<u64>("copies").capacity(64).durable().create().unwrap();
        for round in 0..20 {
            let name = format!("gone-{opening}-{round}");
            let topic = engine.topic::<u64>(&name).partitions(8).capacity(64).durable().create().unwrap();
            let mut by_name = topic.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
            (0..4).for_each(|number| _ = by_name.publish_to(number, 0, |event| *event = number).unwrap());
            let mut copying = topic.transform("copying").open().unwrap();
            copying.step(LONG, |event, _, out| out.publish_to(&copies, 0, |into| *into = *event)).unwrap();
            let mut member = topic.group("sums").join().unwrap();
            member.poll(LONG).unwrap().unwrap().commit_durable().unwrap();
            drop((by_name, copying, member, topic));
            engine.delete_forced(&name).unwrap();
        }
        drop(copies);
        assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))));
        let (writer, recovered) = open(Arc::new(disk.copy()), options.clone()).unwrap();
        assert_eq!(writer.state().extents().len(), 1, "the topic that stays");
        assert_eq!(recovered.state.kinds().collect::<Vec<_>>(), [(1, 2)], "its name, and the next number");
        sizes.push(writer.state().size());
    }
    assert!(sizes.windows(2).all(|sizes| sizes[0] == sizes[1]), "{sizes:?}");
}
