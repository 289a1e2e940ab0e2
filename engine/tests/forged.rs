//! State that somebody has forged in a journal whose checksums match: each number of the catalogue, of groups, producers,
//! queues and transforms, and where partitions stand. An engine opens it, refuses it, or refuses a topic; nothing panics, hangs or
//! asks for memory by the number.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{
    Extent, FrameBuilder, Options, PartitionId, State, group_offsets, inspect, open, recorded_topics,
};
use slipring::journal::{gaps, transform_offsets};
use slipring::queue::recorded;
use slipring::{
    Engine, Level, Message, Record, Topic,
    clock::{Clock as _, ManualClock, Timestamp},
    producer::Multi,
    subscriber::StartAt,
};
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::ZERO;
const SEGMENT: u64 = 1 << 18;

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_millis(1_700_000_000_000))
}

fn engine(disk: &SimulatedDisk) -> Result<Engine, Box<dyn Error>> {
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    Ok(Engine::builder().clock(clock()).journal_in(disk.clone()).journal_options(options).build()?)
}

fn numbers(engine: &Engine, name: &str) -> Result<Topic<u64>, Box<dyn Error>> {
    if let Ok(there) = engine.get::<u64, Multi>(name) {
        return Ok(there);
    }
    Ok(engine.topic::<u64>(name).partitions(2).capacity(64).durable().create()?)
}

fn jobs(engine: &Engine) -> Result<Topic<Message>, Box<dyn Error>> {
    Ok(engine.topic::<Message>("jobs").capacity(32).max_message(64).durable().create()?)
}

/// An engine's journal with state of each kind: leases are out, since its process was killed.
fn journal() -> Result<SimulatedDisk, Box<dyn Error>> {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk)?;
    let (ticks, sums, jobs) = (numbers(&engine, "ticks")?, numbers(&engine, "sums")?, jobs(&engine)?);
    let mut producer = ticks.producer().acknowledge(Level::Durable).idempotent("gateway")?;
    for number in 0..20 {
        producer.publish_to(number, (number % 2) as u32, |tick| *tick = number)?;
    }
    let bridge = ticks.replicate("nats").hold(1 << 20).attach()?;
    bridge.advance(0, 3)?;
    bridge.record(0, b"where")?;
    let mut member = ticks.group("readers").limit(5).join()?;
    if let Some(batch) = member.poll(LONG)? {
        batch.commit_durable()?;
    }
    let mut doubling = ticks.transform("doubling").batch(4).open()?;
    doubling.step(LONG, |tick, _, out| out.publish_to(&sums, 0, |into| *into = 2 * tick))?;
    let mut sender = jobs.producer().acknowledge(Level::Durable).create()?;
    for number in 0..9 {
        sender.send(Record::new(format!("job {number}").as_bytes()))?;
    }
    let mut worker = jobs.queue("q").visibility(LONG).max_attempts(2).acknowledge(Level::Durable).join()?;
    for turn in 0..6 {
        let Some(lease) = worker.receive(LONG)? else { break };
        match turn % 3 {
            0 => lease.ack()?,
            1 => lease.nack(LONG, "not now")?,
            // It stays out.
            _ => std::mem::forget(lease),
        }
    }
    // The disk as it is now: what the engine's threads write later belongs to another process.
    let disk = disk.copy();
    // Gaps are not left by a journal without damage: these are of a partition without events.
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    let (mut writer, _) = open(Arc::new(disk.clone()), options)?;
    let gap = [3_u64.to_le_bytes(), 5_u64.to_le_bytes()];
    let partition = [2_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
    let mut frame = FrameBuilder::new();
    frame.put(6, &64_u64.to_le_bytes(), &[&9_u64.to_le_bytes()[..], &partition, &gap.concat()].concat());
    let reported = [&[1][..], &partition, &gap[0], b"readers"].concat();
    frame.put(7, &reported, &[gap[1], 9_u64.to_le_bytes()].concat());
    let time = clock().wall().as_nanos();
    writer.append(&mut frame, time)?;
    writer.close(time)?;
    Ok(disk)
}

/// What a program does with a journal: errors are fine.
fn use_it(disk: &SimulatedDisk) -> Result<(), Box<dyn Error>> {
    let engine = engine(disk)?;
    let outcome = (|| {
        let ticks = numbers(&engine, "ticks")?;
        let mut producer = ticks.producer().acknowledge(Level::Durable).idempotent("gateway")?;
        let next = producer.resume().map_or(0, |last| last.saturating_add(1));
        producer.publish_to(next, 0, |tick| *tick = 7)?;
        let bridge = ticks.replicate("nats").attach()?;
        bridge.advance(0, 1)?;
        let mut tape = ticks.replay("tape").open()?;
        tape.read(NOW, |_, _| ())?;
        let mut member = ticks.group("readers").start(StartAt::Committed).join()?;
        if let Some(batch) = member.poll(NOW)? {
            batch.commit()?;
        }
        Ok::<_, Box<dyn Error>>(())
    })();
    let transformed = (|| {
        let (ticks, sums) = (numbers(&engine, "ticks")?, numbers(&engine, "sums")?);
        let mut doubling = ticks.transform("doubling").batch(4).open()?;
        doubling.step(NOW, |tick, _, out| out.publish_to(&sums, 0, |into| *into = tick.wrapping_mul(2)))?;
        Ok::<_, Box<dyn Error>>(())
    })();
    let queued = (|| {
        let jobs = jobs(&engine)?;
        let mut worker = jobs.queue("q").visibility(LONG).max_attempts(2).acknowledge(Level::Written).join()?;
        jobs.producer().create()?.send(Record::new(b"one more"))?;
        for _ in 0..10 {
            if let Some(lease) = worker.receive(NOW)? {
                lease.ack()?;
            }
        }
        Ok::<_, Box<dyn Error>>(())
    })();
    let _ = engine.metrics();
    let _ = engine.retain();
    let report = engine.shutdown(LONG);
    let _ = report.to_string();
    outcome.and(transformed).and(queued)
}

/// What the command `slipring` does with it.
fn look(disk: &SimulatedDisk) -> Result<(), Box<dyn Error>> {
    let survey = inspect(Arc::new(disk.clone()), true)?;
    let state = survey.state();
    let shown = (recorded_topics(state), group_offsets(state), transform_offsets(state), gaps(state));
    let _ = format!("{:?}", slipring::replication::bridge_positions(state));
    let _ = format!("{shown:?}");
    let journal = survey.journal(Arc::new(disk.copy()));
    for queue in recorded::queues(state) {
        let _ = format!("{queue:?} {} {} {}", queue.leased(), queue.waiting(), queue.dying());
        for partition in 0..3 {
            let _ = (queue.unread(&journal, partition), queue.unread_messages(&journal, partition));
        }
        let _ = queue.dead_letters(&journal).map(|letters| letters.take(10).count());
    }
    Ok(())
}

type Value = (u16, Vec<u8>, Vec<u8>);

fn values(state: &State) -> Vec<Value> {
    let of =
        |what| state.values(what).map(move |(key, value)| (what, key.to_vec(), value.to_vec())).collect::<Vec<_>>();
    state.kinds().flat_map(|(what, _)| of(what)).collect()
}

/// The same bytes with another number in them.
fn with(bytes: &[u8], at: usize, number: &[u8]) -> Option<Vec<u8>> {
    let mut forged = bytes.to_vec();
    forged.get_mut(at..at + number.len())?.copy_from_slice(number);
    (forged != bytes).then_some(forged)
}

/// Every number of the state, forged: as frames that say so.
fn forgeries(state: &State) -> Vec<(String, FrameBuilder)> {
    let hostile: [&[u8]; 7] = [
        &[0],
        &[0xff],
        &[0; 4],
        &[0xff; 4],
        &[0xff; 8],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f],
        &[0, 0, 0, 0, 0, 0, 0, 0x40],
    ];
    let mut all = Vec::new();
    for (what, key, value) in values(state) {
        for at in 0..value.len() {
            for number in hostile {
                let Some(forged) = with(&value, at, number) else { continue };
                let mut frame = FrameBuilder::new();
                frame.put(what, &key, &forged);
                all.push((format!("kind {what}, {key:02x?}: byte {at} of {value:02x?} is {number:02x?}"), frame));
            }
        }
        for at in 0..key.len() {
            for number in hostile {
                let Some(forged) = with(&key, at, number) else { continue };
                let mut frame = FrameBuilder::new();
                frame.put(what, &forged, &value);
                all.push((format!("kind {what}: byte {at} of the key {key:02x?} is {number:02x?}"), frame));
            }
        }
        // One that ends too early.
        for len in 0..value.len() {
            let mut frame = FrameBuilder::new();
            frame.put(what, &key, &value[..len]);
            all.push((format!("kind {what}, {key:02x?}: {len} bytes of {value:02x?}"), frame));
        }
    }
    const LAST: u64 = 1 << 62;
    let known: Vec<(PartitionId, Extent)> = state.extents().collect();
    let strangers = [PartitionId { topic: u32::MAX, partition: u32::MAX }, PartitionId { topic: 1, partition: 9 }];
    for partition in known.iter().map(|(partition, _)| *partition).chain(strangers) {
        for extent in [
            Extent { start: LAST, end: LAST, reserved: LAST },
            Extent { start: 0, end: LAST, reserved: 0 },
            Extent { start: 0, end: LAST - 1, reserved: LAST },
            Extent { start: 5, end: 1 << 40, reserved: 1 << 50 },
            Extent { start: 0, end: 0, reserved: LAST },
        ] {
            let mut frame = FrameBuilder::new();
            frame.extent(partition, extent);
            all.push((format!("{partition:?} stands at {extent:?}"), frame));
        }
    }
    all
}

/// Not a test by itself: it aborts where memory is asked for without a look at the number.
#[test]
#[ignore = "started by the test below"]
fn all_of_it() {
    let disk = journal().unwrap();
    use_it(&disk.copy()).expect("it is good as it is");
    let survey = inspect(Arc::new(disk.clone()), true).unwrap();
    let kinds: Vec<u16> = survey.state().kinds().map(|(what, _)| what).collect();
    assert!((1..=8).all(|kind| kinds.contains(&kind)), "{kinds:?}");
    // All of them, or a sample that begins with this one.
    let asked = std::env::var("SLIPRING_SWEEP").unwrap_or_default();
    let (all, first) = (asked == "all", asked.parse().unwrap_or(0));
    let forgeries = forgeries(survey.state());
    let every = if all { 1 } else { (forgeries.len() / 150) | 1 };
    let mut states = 0;
    for (about, mut frame) in forgeries.into_iter().skip(first).step_by(every) {
        let forged = disk.copy();
        let options = Options { segment_size: SEGMENT, helper: false, ..Options::default() };
        let (mut writer, _) = open(Arc::new(forged.clone()), options).unwrap();
        if writer.append(&mut frame, 1_700_000_000_000_000_000).is_err() || writer.sync().is_err() {
            continue;
        }
        drop(writer);
        let (done, hears) = sync_channel(1);
        std::thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let _ = look(&forged);
                let _ = use_it(&forged);
                // And what that left.
                let _ = use_it(&forged.copy());
            }));
            let _ = done.send(outcome.is_ok());
        });
        match hears.recv_timeout(2 * LONG) {
            Ok(true) => states += 1,
            Ok(false) | Err(RecvTimeoutError::Disconnected) => panic!("a panic where {about}"),
            Err(RecvTimeoutError::Timeout) => panic!("no end where {about}"),
        }
    }
    println!("{states} states");
    assert!(states > 100);
}

#[cfg(unix)]
#[test]
fn each_number_of_the_state_can_be_anything_in_four_gigabytes() {
    let limited = "ulimit -v 4194304; exec \"$0\" --exact all_of_it --ignored --nocapture --test-threads 1";
    let ended = Command::new("sh").args(["-c", limited]).arg(std::env::current_exe().unwrap()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&ended.stdout), text(&ended.stderr));
    assert!(ended.status.success() && out.contains("1 passed"), "{:?}\n{out}\n{err}", ended.status);
}
