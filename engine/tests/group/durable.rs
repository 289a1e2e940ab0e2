//! Groups on durable topics: committed offsets outlive the process, and what only the journal has is read from there.

use crate::crash::at_each_call;
#[cfg(target_os = "linux")]
use crate::sleeps::sleeps;
use crate::{LONG, NOW};
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, Retention};
use slipring::{
    Engine, EngineError, Level, Producer, Topic, Wait,
    clock::{Clock, ManualClock},
    group::{GroupError, Member},
    subscriber::{At, StartAt, SubscribeError},
    topic::TopicPartition,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const CAPACITY: usize = 16;

fn try_engine(disk: &SimulatedDisk) -> Result<Engine, EngineError> {
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build()
}

fn engine(disk: &SimulatedDisk) -> Engine {
    try_engine(disk).unwrap()
}

fn numbers(engine: &Engine, partitions: usize) -> Topic<u64> {
    engine.topic::<u64>("numbers").partitions(partitions).capacity(CAPACITY).durable().create().unwrap()
}

/// Publishes its own offset, less what crashes skipped: how many there were before.
fn publish(producer: &mut Producer<u64>, partition: u32, values: std::ops::Range<u64>) {
    for value in values {
        producer.publish_to(partition, |event| *event = value).unwrap();
    }
}

/// Reads and commits until so many came, or nothing more comes.
fn read(member: &mut Member<u64>, count: usize) -> Vec<(u32, u64)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = member.poll(LONG).unwrap().unwrap();
        assert!(!batch.is_empty(), "nothing came for a long time; had {seen:?}");
        seen.extend(batch.iter().map(|(value, at)| (at.partition, *value)));
        batch.commit().unwrap();
    }
    seen
}

fn of(seen: &[(u32, u64)], partition: u32) -> Vec<u64> {
    seen.iter().filter(|(at, _)| *at == partition).map(|(_, value)| *value).collect()
}

fn partition(index: u32) -> TopicPartition {
    TopicPartition::new("numbers", index)
}

fn end(engine: Engine) {
    let report = engine.shutdown(LONG);
    assert_eq!(report.journal, Some(Ok(())), "{report}");
}

#[test]
fn a_group_goes_on_where_it_committed_with_any_number_of_members() {
    let disk = SimulatedDisk::new();
    let mut seen = Vec::new();
    for round in 0..4_u64 {
        let engine = engine(&disk);
        let topic = numbers(&engine, 4);
        let mut producer = topic.producer().create().unwrap();
        // Many, few, one member, and two again.
        let members = [3, 2, 1, 2][round as usize];
        let mut members: Vec<_> = (0..members).map(|_| topic.group("sums").join().unwrap()).collect();
        for _ in 0..2 {
            members.iter_mut().for_each(|member| drop(member.poll(NOW).unwrap()));
        }
        (0..4).for_each(|partition| publish(&mut producer, partition, round * 10..round * 10 + 10));
        // What is left of each round is read in the next one.
        let before = seen.len();
        for member in &mut members {
            for partition in member.assignment() {
                while seen.len() - before < 24 {
                    let Some(batch) = member.poll(NOW).unwrap() else { break };
                    if batch.is_empty() {
                        break;
                    }
                    seen.extend(batch.iter().map(|(value, at)| (at.partition, *value)));
                    batch.commit().unwrap();
                }
                let _ = partition;
            }
        }
        assert!(seen.len() > before);
        drop((members, producer));
        end(engine);
    }
    let engine = engine(&disk);
    let topic = numbers(&engine, 4);
    let mut last = topic.group("sums").join().unwrap();
    let left = 160 - seen.len();
    seen.extend(read(&mut last, left));
    for partition in 0..4 {
        assert_eq!(of(&seen, partition), (0..40).collect::<Vec<_>>(), "each once, in order");
    }
    assert!(last.poll(NOW).unwrap().unwrap().is_empty());
}

#[test]
fn what_is_only_in_the_journal_is_read_up_to_the_ring_without_gap_or_repetition() {
    let disk = SimulatedDisk::new();
    {
        let engine = engine(&disk);
        let topic = numbers(&engine, 1);
        drop(topic.group("sums").join().unwrap());
        let mut producer = topic.producer().create().unwrap();
        publish(&mut producer, 0, 0..500);
        drop(producer);
        end(engine);
    }
    let engine = engine(&disk);
    let topic = numbers(&engine, 1);
    let mut member = topic.group("sums").start(StartAt::Committed).join().unwrap();
    let described = &engine.groups()[0].partitions[0];
    assert!(described.catching_up && !described.gates, "{described:?}");
    assert_eq!((described.committed, described.earliest), (Some(0), 0));
    let publisher = std::thread::spawn({
        let mut producer = topic.producer().create().unwrap();
        move || publish(&mut producer, 0, 500..3000)
    });
    let mut seen = Vec::new();
    let mut polls = 0;
    while seen.len() < 3000 {
        let batch = member.poll(LONG).unwrap().unwrap();
        let some = batch.iter().map(|(value, _)| *value).collect::<Vec<_>>();
        assert!(!some.is_empty());
        polls += 1;
        // Now and then it is not committed, and read again.
        if polls % 7 != 0 {
            seen.extend(some);
            batch.commit().unwrap();
        }
    }
    assert!(seen.into_iter().eq(0..3000));
    publisher.join().unwrap();
    // Caught up, what comes next comes through the ring. The last ones may have come from the journal, and so may some more,
    // if that is quicker than this thread.
    let mut producer = topic.producer().create().unwrap();
    let (until, mut next) = (Instant::now() + LONG, 3000);
    while next == 3000 || engine.groups()[0].partitions[0].catching_up {
        publish(&mut producer, 0, next..next + 1);
        assert_eq!(read(&mut member, 1), [(0, next)]);
        next += 1;
        assert!(Instant::now() < until, "it never changes over");
    }
    assert!(engine.groups()[0].partitions[0].gates);
}

#[test]
fn a_slow_group_that_spills_holds_nobody_up_and_misses_nothing() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let topic = numbers(&engine, 2);
    let mut producer = topic.producer().create().unwrap();
    let mut member = topic.group("slow").spill(true).limit(5).join().unwrap();
    let mut seen = Vec::new();
    for round in 0..6_u64 {
        // It holds a batch of one partition while both overflow.
        let batch = member.poll(NOW).unwrap().unwrap();
        let held = batch.partition().cloned();
        for partition in 0..2 {
            // One that is being read is not taken away.
            let room = if held.as_ref().is_some_and(|of| of.partition == partition) { 4 } else { 100 };
            publish(&mut producer, partition, 0..room);
        }
        let count = batch.len();
        seen.extend(batch.iter().map(|(_, at)| (at.partition, at.offset)));
        batch.commit().unwrap();
        assert!(round == 0 || count > 0);
        let mut some = 0;
        while some < 60 {
            let batch = member.poll(LONG).unwrap().unwrap();
            seen.extend(batch.iter().map(|(_, at)| (at.partition, at.offset)));
            some += batch.len();
            batch.commit().unwrap();
        }
    }
    assert!(topic.metrics().evicted > 0);
    drop(producer);
    topic.close();
    while let Some(batch) = member.poll(LONG).unwrap() {
        seen.extend(batch.iter().map(|(_, at)| (at.partition, at.offset)));
        batch.commit().unwrap();
    }
    for index in 0..2 {
        let offsets = of(&seen, index);
        assert!(offsets.len() > 100 && offsets.iter().copied().eq(0..offsets.len() as u64), "{offsets:?}");
        assert_eq!(Some(offsets.len() as u64), engine.groups()[0].partition("numbers", index).unwrap().committed);
    }
}

#[test]
fn producers_wait_for_a_durable_group_unless_it_spills() {
    let engine = engine(&SimulatedDisk::new());
    let topic = numbers(&engine, 1);
    let mut producer = topic.producer().create().unwrap();
    let mut waits = topic.group("waits").join().unwrap();
    publish(&mut producer, 0, 0..CAPACITY as u64);
    // The committer may be a moment behind.
    producer.publish_until(Instant::now() + Duration::from_millis(50), |_| ()).unwrap_err();
    // Without members the group holds nobody: the journal has it.
    drop(waits);
    publish(&mut producer, 0, 16..100);
    waits = topic.group("waits").join().unwrap();
    assert!(read(&mut waits, 100).into_iter().map(|(_, value)| value).eq(0..100));
}

/// It was taken, and did nothing.
#[test]
fn a_group_on_a_topic_in_memory_cannot_spill() {
    let engine = engine(&SimulatedDisk::new());
    let (kept, lives) = (numbers(&engine, 1), engine.topic::<u64>("lives").create().unwrap());
    let refused = engine.group("sums").topics(&[kept.clone(), lives]).spill(true).join().unwrap_err();
    let expected = GroupError::NoJournal { group: "sums".to_owned(), topic: "lives".to_owned() };
    assert_eq!(refused, expected);
    kept.group("sums").spill(true).join().unwrap();
}

#[test]
fn a_start_is_looked_for_in_all_that_the_journal_keeps() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let options = Options { segment_size: 1 << 12, ..Options::default() };
    let build = || {
        let builder = Engine::builder().journal_in(disk.clone()).journal_options(options.clone());
        builder.clock(clock.clone()).build().unwrap()
    };
    let keep = Retention { age: Some(Duration::from_secs(1000)), bytes: None };
    let topic = |engine: &Engine| engine.topic::<u64>("numbers").capacity(16).durable().keep(keep).create().unwrap();
    let engine = build();
    let numbers = topic(&engine);
    let mut producer = numbers.producer().create().unwrap();
    let mut times = Vec::new();
    for value in 0..400 {
        times.push(clock.wall());
        producer.publish(|event| *event = value).unwrap().wait(Level::Durable).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let first = |group: &str, start: StartAt| {
        let mut member = numbers.group(group).start(start).join()?;
        let batch = member.poll(NOW)?.unwrap();
        Ok::<_, GroupError>(batch.iter().next().map(|(value, _)| *value))
    };
    assert_eq!(first("earliest", StartAt::Earliest).unwrap(), Some(0));
    assert_eq!(first("offset", StartAt::Offset(123)).unwrap(), Some(123));
    assert_eq!(first("time", StartAt::Timestamp(times[77])).unwrap(), Some(77));
    assert_eq!(first("latest", StartAt::Latest).unwrap(), None);
    let refused = first("beyond", StartAt::Offset(401)).unwrap_err();
    let GroupError::OutOfRange { refused, .. } = refused else { panic!("{refused}") };
    assert_eq!((refused.asked, refused.earliest, refused.latest), (401, 0, 400));
    let refused = first("never", StartAt::Committed).unwrap_err();
    assert!(
        matches!(&refused, GroupError::NothingCommitted { .. }) && refused.to_string().contains("start"),
        "{refused}"
    );
    let refused = numbers.subscribe("tape").start(StartAt::Committed).poll().err().unwrap();
    assert!(matches!(refused, SubscribeError::NoGroup { .. }), "{refused}");

    // All but the last ones are too old by now.
    clock.advance(Duration::from_secs(790));
    engine.retain().unwrap();
    let refused = first("earliest", StartAt::Earliest).unwrap_err();
    assert!(refused.to_string().contains("reset"), "{refused}");
    let GroupError::OutOfRange { refused: kept, .. } = refused else { panic!("{refused}") };
    assert!(kept.asked == 0 && (180..=200).contains(&kept.earliest) && kept.latest == 400, "{kept}");
    drop(producer);
    end(engine);
    let engine = build();
    let numbers = topic(&engine);
    let refused = numbers.group("earliest").join().unwrap_err();
    let GroupError::OutOfRange { refused, .. } = refused else { panic!("{refused}") };
    assert_eq!(refused, kept);
    numbers.group("earliest").reset(StartAt::Timestamp(times[300])).unwrap();
    end(engine);
    let engine = build();
    let numbers = topic(&engine);
    let mut member = numbers.group("earliest").join().unwrap();
    assert_eq!(member.poll(NOW).unwrap().unwrap().iter().next().map(|(value, _)| *value), Some(300));
    // A seek goes where the ring is not.
    member.seek(&partition(0), StartAt::Offset(250)).unwrap();
    assert_eq!(member.poll(NOW).unwrap().unwrap().iter().next().map(|(value, _)| *value), Some(250));
    member.seek(&partition(0), StartAt::Latest).unwrap();
    assert!(member.poll(NOW).unwrap().unwrap().is_empty());
    member.seek(&partition(0), StartAt::Timestamp(times[222])).unwrap();
    assert_eq!(member.position(&partition(0)).unwrap(), 222);
    assert!(member.seek(&partition(0), StartAt::Offset(3)).is_err());
    assert_eq!(read(&mut member, 178).len(), 178);
}

/// Retention overtakes a member in the middle of its reading: it is told the range, and nothing is passed over in silence.
#[test]
fn a_reader_that_retention_overtakes_is_told_the_range() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let options = Options { segment_size: 1 << 12, ..Options::default() };
    let builder = Engine::builder().journal_in(disk).journal_options(options);
    let engine = builder.clock(clock.clone()).build().unwrap();
    let keep = Retention { age: Some(Duration::from_secs(100)), bytes: None };
    let topic = engine.topic::<u64>("numbers").capacity(16).durable().keep(keep).create().unwrap();
    let mut member = topic.group("sums").spill(true).limit(4).deadline(LONG * 1000).join().unwrap();
    drop(member.poll(NOW).unwrap());
    let mut producer = topic.producer().create().unwrap();
    for value in 0..300 {
        producer.publish(|event| *event = value).unwrap().wait(Level::Durable).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    engine.retain().unwrap();
    let refused = loop {
        match member.poll(NOW) {
            Ok(batch) => drop(batch.unwrap().commit()),
            Err(refused) => break refused,
        }
    };
    let GroupError::OutOfRange { refused: slipring::topic::OutOfRange { earliest, latest: 300, .. }, .. } = refused
    else {
        panic!("{refused}")
    };
    assert!(member.poll(NOW).is_err(), "it does not go away by itself");
    member.seek(&partition(0), StartAt::Offset(earliest)).unwrap();
    assert_eq!(read(&mut member, 300 - earliest as usize).len(), 300 - earliest as usize);
}

#[test]
fn who_was_fenced_moves_nothing_in_the_journal() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let engine = Engine::builder().journal_in(disk.clone()).clock(clock.clone()).build().unwrap();
    let topic = numbers(&engine, 1);
    let mut producer = topic.producer().create().unwrap();
    let join = || topic.group("sums").deadline(Duration::from_secs(10)).join().unwrap();
    let mut stalled = join();
    publish(&mut producer, 0, 0..8);
    let mut batch = stalled.poll(NOW).unwrap().unwrap();
    batch.commit_to(2).unwrap();
    clock.advance(Duration::from_secs(10));
    let mut next = join();
    let theirs = next.poll(NOW).unwrap().unwrap();
    assert_eq!(theirs.iter().map(|(value, _)| *value).collect::<Vec<_>>(), (2..8).collect::<Vec<_>>());
    let mut theirs = theirs;
    theirs.commit_to(4).unwrap();
    assert!(batch.commit_durable().is_err());
    drop(theirs);
    let epoch = next.epoch();
    drop((stalled, next, producer));
    end(engine);
    let engine = self::engine(&disk);
    let topic = numbers(&engine, 1);
    let mut member = topic.group("sums").join().unwrap();
    assert_eq!(read(&mut member, 4).first(), Some(&(0, 4)));
    assert!(member.epoch() > epoch, "epochs go on: {} and {epoch}", member.epoch());
}

/// Nobody else had its partitions meanwhile, and a closed ring takes no newcomer: it was refused, and the rest was nobody's in
/// this process.
#[test]
fn who_was_fenced_alone_reads_the_rest_of_a_closed_topic() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let engine = Engine::builder().journal_in(disk).clock(clock.clone()).build().unwrap();
    let topic = numbers(&engine, 2);
    let mut producer = topic.producer().create().unwrap();
    let mut member = topic.group("sums").deadline(Duration::from_secs(10)).join().unwrap();
    (0..2).for_each(|partition| publish(&mut producer, partition, 0..8));
    let mut batch = member.poll(LONG).unwrap().unwrap();
    batch.commit_to(2).unwrap();
    topic.close();
    clock.advance(Duration::from_secs(10));
    assert!(batch.commit().is_err());
    assert!(matches!(member.poll(NOW), Err(GroupError::Fenced(_))));
    member.rejoin().unwrap();
    let mut seen = Vec::new();
    while let Some(batch) = member.poll(LONG).unwrap() {
        seen.extend(batch.iter().map(|(value, at)| (at.partition, *value)));
        batch.commit().unwrap();
    }
    let mut counts = [of(&seen, 0), of(&seen, 1)];
    counts.sort_by_key(Vec::len);
    assert_eq!(counts, [(2..8).collect::<Vec<_>>(), (0..8).collect()]);
    let refused = topic.group("late").join().unwrap_err();
    assert!(matches!(refused, GroupError::Closed { .. }), "{refused}");
}

/// What a run knows to be durable when it ends: the highest commit that was waited for.
#[derive(Default)]
struct Known {
    committed: BTreeMap<u32, u64>,
    /// Commits that nobody waited for.
    moved: BTreeMap<u32, u64>,
}

/// Publishes what is missing, reads, commits: some of it durably. Until something fails.
fn run(disk: &SimulatedDisk, known: &mut Known) -> Option<()> {
    let engine = try_engine(disk).ok()?;
    let options = engine.topic::<u64>("numbers").partitions(2).capacity(CAPACITY).durable();
    let done = (|| {
        let topic = options.create().ok()?;
        let mut members = [topic.group("sums").limit(3).join().ok()?, topic.group("sums").limit(3).join().ok()?];
        let mut producer = topic.producer().create().ok()?;
        for round in 0..8_u64 {
            for partition in 0..2 {
                // Durable itself, so that only the commit can be missing.
                let receipt = producer.publish_to(partition, |event| *event = round).ok()?;
                receipt.wait(Level::Durable).ok()?;
            }
            let member = &mut members[(round % 2) as usize];
            let batch = member.poll(Duration::from_millis(1)).ok()??;
            let Some(at) = batch.partition().map(|it| it.partition) else { continue };
            let next = batch.iter().last().map(|(_, at)| at.offset + 1)?;
            known.moved.insert(at, next);
            if round % 3 == 0 {
                batch.commit().ok()?;
            } else {
                batch.commit_durable().ok()?;
                known.committed.insert(at, next);
            }
        }
        Some(())
    })();
    engine.shutdown(Duration::from_secs(5));
    done
}

#[test]
fn a_durable_commit_is_there_after_a_crash_at_each_call_to_the_disk() {
    let work = |disk: &SimulatedDisk, _| {
        let mut known = Known::default();
        let _ = run(disk, &mut known);
        known
    };
    let crashes = at_each_call(work, |known, nth, disk| {
        for seed in [nth, nth * 31] {
            let about = format!("call {nth}, seed {seed}");
            let disk = disk.crash(seed);
            let engine = try_engine(&disk).unwrap_or_else(|refused| panic!("{about}: {refused}"));
            let topic = numbers(&engine, 2);
            let mut member = topic.group("sums").join().unwrap_or_else(|refused| panic!("{about}: {refused}"));
            let mut there = Vec::new();
            let mut replay = topic.replay("auditor").open().unwrap();
            while replay.read(NOW, |_, at| there.push((at.partition, at.offset))).unwrap() != Some(0) {}
            drop(replay);
            let mut producer = topic.producer().create().unwrap();
            (0..2).for_each(|at| publish(&mut producer, at, 777..778));
            let mut seen = Vec::new();
            let mut ends = 0;
            while ends < 2 {
                let batch = member.poll(LONG).unwrap().unwrap();
                for (value, At { partition, offset, .. }) in &batch {
                    seen.push((partition, offset));
                    ends += usize::from(*value == 777);
                }
                batch.commit().unwrap();
            }
            for (at, offset) in there {
                let place = |of: &BTreeMap<u32, u64>| of.get(&at).copied().unwrap_or(0);
                let count = seen.iter().filter(|it| **it == (at, offset)).count();
                match offset {
                    _ if offset < place(&known.committed) => {
                        assert_eq!(count, 0, "{about}: {at}/{offset} was committed")
                    }
                    _ if offset >= place(&known.moved) => assert_eq!(count, 1, "{about}: {at}/{offset} was not read"),
                    _ => assert!(count <= 1, "{about}"),
                }
            }
        }
    });
    assert!(crashes > 20, "{crashes}");
}

/// An event that is waited for is one sync; with a commit before each of them it is one sync still.
#[test]
fn a_commit_that_rides_with_a_group_makes_no_sync_of_its_own() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let topic = numbers(&engine, 1);
    let mut producer = topic.producer().create().unwrap();
    let mut member = topic.group("sums").join().unwrap();
    // When nothing comes for 20 ms the journal writes by itself where groups stand: only what was quicker tells.
    let (mut quick, mut value) = (0, 0);
    let until = Instant::now() + LONG;
    while quick < 10 {
        assert!(Instant::now() < until, "no event is durable in 20 ms");
        let (begun, before) = (Instant::now(), disk.syncs());
        if value > 0 {
            assert_eq!(read(&mut member, 1), [(0, value - 1)]);
        }
        producer.publish(|event| *event = value).unwrap().wait(Level::Durable).unwrap();
        value += 1;
        let syncs = disk.syncs() - before;
        if value > 1 && begun.elapsed() < Duration::from_millis(20) {
            assert_eq!(syncs, 1, "of event {value} and the commit before it");
            quick += 1;
        }
    }
}

#[test]
fn a_commit_is_written_soon_where_nothing_else_is() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let topic = numbers(&engine, 1);
    let mut producer = topic.producer().create().unwrap();
    let mut member = topic.group("sums").join().unwrap();
    publish(&mut producer, 0, 0..5);
    assert_eq!(read(&mut member, 5).len(), 5);
    let until = Instant::now() + LONG;
    loop {
        let after = self::engine(&disk.crash(1));
        let topic = numbers(&after, 1);
        let _member = topic.group("sums").join().unwrap();
        if after.groups()[0].partitions[0].committed == Some(5) {
            break;
        }
        assert!(Instant::now() < until);
    }
}

/// After a crash a partition goes on some thousands of offsets further on: these are no events.
#[test]
fn what_a_crash_leaves_out_is_no_lag() {
    let disk = SimulatedDisk::new();
    let before = engine(&disk);
    let topic = numbers(&before, 1);
    let mut member = topic.group("sums").join().unwrap();
    publish(&mut topic.producer().create().unwrap(), 0, 0..10);
    let mut left = 4;
    while left > 0 {
        let mut batch = member.poll(LONG).unwrap().unwrap();
        let (first, some) = (batch.iter().next().unwrap().1.offset, batch.len().min(left));
        batch.commit_to(first + some as u64).unwrap();
        left -= some;
    }
    member.leave();
    let mut transform = topic.transform("sums").batch(3).open().unwrap();
    let mut left = 10_usize;
    while left > 7 {
        left -= transform.step(LONG, |_, _, _| Ok::<_, String>(())).unwrap().unwrap();
    }
    // Where groups stand is durable with what is written next.
    topic.producer().acknowledge(Level::Durable).create().unwrap().publish(|event| *event = 10).unwrap();
    let disk = disk.copy();
    let engine = engine(&disk);
    assert_eq!((engine.groups()[0].lag(), engine.transforms()[0].lag()), (7, left as u64 + 1), "nobody has joined yet");
    let topic = numbers(&engine, 1);
    let mut member = topic.group("sums").join().unwrap();
    let mut producer = topic.producer().create().unwrap();
    publish(&mut producer, 0, 11..13);
    drop(member.poll(LONG).unwrap());
    assert_eq!(member.lag(&partition(0)).unwrap(), 9);
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let mut batch = member.poll(LONG).unwrap().unwrap();
        let (value, at) = batch.iter().next().unwrap();
        seen.push(*value);
        batch.commit_to(at.offset + 1).unwrap();
    }
    assert!(seen.iter().copied().eq(4..11), "{seen:?}");
    let after = engine.groups()[0].clone();
    let at = after.partition("numbers", 0).unwrap();
    assert!(at.committed < Some(13) && at.latest > 1000, "{after}");
    assert_eq!((at.lag, member.lag(&partition(0)).unwrap()), (2, 2), "{after}");
    assert_eq!(of(&read(&mut member, 2), 0), [11, 12]);
    assert_eq!((engine.groups()[0].lag(), member.lag(&partition(0)).unwrap()), (0, 0));
    drop((member, producer));
    end(engine);
}

/// It looked every 50 ms whether the topic had ended.
#[test]
#[cfg(target_os = "linux")]
fn who_pauses_what_is_in_the_journal_sleeps_until_the_end() {
    let disk = SimulatedDisk::new();
    {
        let engine = engine(&disk);
        let topic = numbers(&engine, 1);
        drop(topic.group("sums").join().unwrap());
        publish(&mut topic.producer().create().unwrap(), 0, 0..500);
        end(engine);
    }
    let engine = engine(&disk);
    let topic = numbers(&engine, 1);
    let wait = Wait::spin_then_park().spin_for(Duration::ZERO).yields(0);
    let mut member = topic.group("sums").wait(wait).join().unwrap();
    drop(member.poll(LONG).unwrap());
    member.pause(&partition(0)).unwrap();
    assert!(engine.groups()[0].partition("numbers", 0).unwrap().catching_up, "it reads the journal");
    let (told, waits) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let before = sleeps();
        assert!(member.poll(Duration::from_millis(600)).unwrap().unwrap().is_empty());
        assert!(sleeps() - before < 6, "{} sleeps in 600 ms", sleeps() - before);
        told.send(()).unwrap();
        let begun = Instant::now();
        assert!(member.poll(LONG).unwrap().unwrap().is_empty(), "nothing but what is paused is left");
        assert!(begun.elapsed() < LONG, "the end wakes it");
        member.resume(&partition(0)).unwrap();
        assert!(of(&read(&mut member, 500), 0).into_iter().eq(0..500));
        assert!(member.poll(LONG).unwrap().is_none());
    });
    waits.recv().unwrap();
    topic.close();
    reading.join().unwrap();
}

/// The partitions of the topics before the closed one once had their new offsets, which no journal had.
#[test]
fn a_reset_that_one_topic_refuses_moves_no_partition() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let numbers = numbers(&engine, 1);
    let others = engine.topic::<u64>("others").capacity(CAPACITY).durable().create().unwrap();
    let group = || engine.group("sums").topics([&numbers, &others]).hold(true);
    let mut member = group().join().unwrap();
    let mut producer = numbers.producer().create().unwrap();
    publish(&mut producer, 0, 0..3);
    publish(&mut others.producer().create().unwrap(), 0, 0..3);
    read(&mut member, 6);
    member.leave();
    others.close();
    let refused = group().reset(StartAt::Earliest).unwrap_err();
    assert!(refused.to_string().contains("others"), "{refused}");
    let groups = engine.groups();
    let committed = |topic: &str, partition| groups[0].partition(topic, partition).unwrap().committed;
    assert_eq!([committed("numbers", 0), committed("others", 0)], [Some(3), Some(3)]);
    publish(&mut producer, 0, 3..5);
    assert_eq!(read(&mut group().join().unwrap(), 2), [(0, 3), (0, 4)]);
}
