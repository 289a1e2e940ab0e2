//! Producers with names on durable topics: each sequence once, whatever crashes, restarts or is sent again.

use slipring::journal::simulated::{Fault, SimulatedDisk};
use slipring::journal::{Options, Retention};
use slipring::{
    Engine, EngineError, Level, Topic,
    clock::ManualClock,
    producer::{IdempotenceError, IdempotentProducer, KEPT_RECEIPTS, PRODUCER_NAME_EXPIRY, ProducerError},
};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::crash::at_each_call;

const LONG: Duration = Duration::from_secs(60);
/// The journal takes six names.
const SEGMENT: u64 = 3 << 18;
/// As many names as such segments take.
const NAMES: usize = 31;

fn try_engine(disk: &SimulatedDisk, clock: &ManualClock) -> Result<Engine, EngineError> {
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).clock(clock.clone()).build()
}

fn engine(disk: &SimulatedDisk) -> Engine {
    try_engine(disk, &ManualClock::new()).unwrap()
}

fn try_topic(engine: &Engine, partitions: usize) -> Option<Topic<u64>> {
    engine.topic::<u64>("orders").partitions(partitions).capacity(64).durable().create().ok()
}

fn topic(engine: &Engine, partitions: usize) -> Topic<u64> {
    try_topic(engine, partitions).unwrap()
}

/// All events that are there, by partition.
fn events(topic: &Topic<u64>) -> Vec<Vec<u64>> {
    let mut replay = topic.replay("auditor").open().unwrap();
    let mut events = vec![Vec::new(); topic.partitions() as usize];
    loop {
        let live = replay.is_live();
        let read = replay.read(Duration::ZERO, |event, at| events[at.partition as usize].push(*event)).unwrap();
        if live && read == Some(0) {
            return events;
        }
    }
}

/// Sends a sequence, which is also the event and its key.
fn send(producer: &mut IdempotentProducer<u64>, sequence: u64) -> Result<slipring::Receipt, IdempotenceError> {
    producer.publish_key(sequence, &sequence.to_le_bytes(), |event| *event = sequence)
}

#[test]
fn a_name_goes_on_after_a_restart_with_its_epoch_sequences_and_receipts() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    let orders = topic(&first, 3);
    let mut producer = orders.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    assert_eq!((producer.epoch(), producer.resume(), producer.next_sequence()), (1, None, None));
    let receipts: Vec<_> = (7..207).map(|sequence| send(&mut producer, sequence).unwrap()).collect();
    assert!(receipts.iter().all(|receipt| receipt.level() == Level::Durable));
    orders.producer().idempotent("silent").unwrap();
    drop((producer, orders));
    assert!(first.shutdown(LONG).is_complete());

    let second = engine(&disk);
    let orders = topic(&second, 3);
    let mut producer = orders.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    assert_eq!((producer.epoch(), producer.resume()), (2, Some(206)));
    for sequence in 206 - 127..=206 {
        let again = producer.publish(sequence, |_| panic!("published twice")).unwrap();
        let first = receipts[sequence as usize - 7];
        assert_eq!((again.partition, again.offset, again.level()), (first.partition, first.offset, Level::Durable));
    }
    let forgotten = producer.publish(206 - 128, |_| panic!("published twice")).unwrap_err();
    assert!(matches!(forgotten, IdempotenceError::Forgotten { sequence: 78, oldest: 79, .. }), "{forgotten}");
    let gap = producer.publish(208, |_| ()).unwrap_err();
    assert!(matches!(gap, IdempotenceError::Gap { expected: 207, got: 208, .. }), "{gap}");
    send(&mut producer, 207).unwrap();
    let mut silent = orders.producer().idempotent("silent").unwrap();
    assert_eq!((silent.epoch(), silent.resume()), (2, None));
    silent.publish_to(1_000, 2, |event| *event = 1_000).unwrap().wait(Level::Durable).unwrap();

    // Whoever opens the name in the same process fences the one before.
    let mut successor = orders.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    let fenced = send(&mut producer, 208).unwrap_err();
    assert!(matches!(fenced, IdempotenceError::Fenced { epoch: 2, current: 3, .. }), "{fenced}");
    assert_eq!(send(&mut successor, 207).unwrap().offset, send(&mut successor, 207).unwrap().offset);
    send(&mut successor, 208).unwrap();
    let mut all: Vec<u64> = events(&orders).into_iter().flatten().collect();
    all.sort_unstable();
    let mut expected: Vec<u64> = (7..=208).collect();
    expected.push(1_000);
    assert_eq!(all, expected);
}

#[test]
fn in_one_process_more_receipts_are_known_than_outlive_it() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let orders = topic(&engine, 1);
    let mut producer = orders.producer().idempotent("gateway").unwrap();
    for sequence in 0..KEPT_RECEIPTS as u64 + 1 {
        send(&mut producer, sequence).unwrap();
    }
    assert_eq!(send(&mut producer, 1).unwrap().offset, 1);
    assert!(matches!(send(&mut producer, 0), Err(IdempotenceError::Forgotten { oldest: 1, .. })));
}

/// Two names over three partitions; every third sequence is waited for, which says nothing of those before it in other
/// partitions. Adds what was acknowledged. Whether all was sent.
fn feed(disk: &SimulatedDisk, upto: u64, acknowledged: &mut BTreeSet<u64>) -> bool {
    let Ok(engine) = try_engine(disk, &ManualClock::new()) else { return false };
    let done = (|| {
        let orders = try_topic(&engine, 3)?;
        let mut names = ["a", "b"].map(|name| orders.producer().idempotent(name).ok());
        for sequence in 0..upto {
            for (index, producer) in names.iter_mut().enumerate() {
                let producer = producer.as_mut()?;
                let number = sequence + 1_000 * index as u64;
                if producer.next_sequence().is_some_and(|next| number + 10 < next) {
                    continue;
                }
                // What is known already is sent again, too.
                let to = (number * 7 / 3 % 3) as u32;
                let receipt = producer.publish_to(number, to, |event| *event = number);
                let receipt = match receipt {
                    Err(IdempotenceError::Forgotten { .. }) => continue,
                    other => other.ok()?,
                };
                assert_eq!(receipt.partition, to);
                if sequence % 3 == 2 {
                    receipt.wait(Level::Durable).ok()?;
                    acknowledged.insert(number);
                }
            }
        }
        Some(())
    })();
    engine.shutdown(Duration::from_secs(5));
    done.is_some()
}

/// Each sequence of each name once, up to where the name says, in the order of its partition, and all that was
/// acknowledged. How far each got.
fn audit(disk: &SimulatedDisk, acknowledged: &BTreeSet<u64>, about: &str) -> [Option<u64>; 2] {
    let engine = try_engine(disk, &ManualClock::new()).unwrap_or_else(|refused| panic!("{about}: {refused}"));
    let orders = topic(&engine, 3);
    let there = events(&orders);
    let gone: Vec<_> = acknowledged.iter().filter(|event| !there.iter().flatten().any(|one| one == *event)).collect();
    assert!(gone.is_empty(), "{about}: acknowledged, and gone: {gone:?}");
    let told = ["a", "b"].map(|name| orders.producer().idempotent(name).unwrap().resume());
    for (index, told) in told.iter().enumerate() {
        let of_name = |event: &&u64| (**event >= 1_000) == (index == 1);
        for partition in &there {
            let order: Vec<u64> = partition.iter().filter(of_name).copied().collect();
            assert!(order.is_sorted_by(|one, next| one < next), "{about}: {order:?}");
        }
        let mut all: Vec<u64> = there.iter().flatten().filter(of_name).map(|event| event % 1_000).collect();
        all.sort_unstable();
        assert!(all.is_sorted_by(|one, next| one < next), "{about}: twice in {all:?}");
        let contiguous = (0..).zip(&all).take_while(|(one, other)| one == *other).count() as u64;
        assert_eq!(told.map(|told| told % 1_000), contiguous.checked_sub(1), "{about}: {all:?}");
    }
    assert!(engine.shutdown(LONG).is_complete());
    told.map(|told| told.map(|told| told % 1_000))
}

#[test]
fn each_sequence_is_there_once_after_a_crash_at_each_call_to_the_disk() {
    const UPTO: u64 = 24;
    let work = |disk: &SimulatedDisk, _| {
        let mut acknowledged = BTreeSet::new();
        feed(disk, UPTO, &mut acknowledged);
        acknowledged
    };
    let crashes = at_each_call(work, |mut acknowledged, nth, disk| {
        let about = format!("call {nth}");
        let mut disk = disk.crash(nth * 31);
        audit(&disk, &acknowledged, &about);
        // It crashes again while it goes on.
        disk.fail_after(nth % 17 + 5, Fault::PowerCut);
        feed(&disk, UPTO, &mut acknowledged);
        disk = disk.crash(nth);
        audit(&disk, &acknowledged, &about);
        assert!(feed(&disk, UPTO, &mut acknowledged), "{about}");
        assert_eq!(audit(&disk, &acknowledged, &about), [Some(UPTO - 1); 2], "{about}");
    });
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn names_outlive_segments_and_go_when_their_data_is_gone() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let open = |keep: Option<u64>| {
        let engine = try_engine(&disk, &clock).unwrap();
        let topic = engine.topic::<u64>("orders").capacity(1024).durable();
        let topic = topic.keep(Retention { bytes: keep, ..Retention::default() }).create().unwrap();
        (engine, topic)
    };
    {
        let (engine, orders) = open(None);
        let mut old = orders.producer().idempotent("old").unwrap();
        (0..5).for_each(|sequence| _ = send(&mut old, sequence).unwrap());
        let mut young = orders.producer().idempotent("young").unwrap();
        // Several segments, in which nothing of the other is said.
        for sequence in 0..400_000 {
            young.publish(sequence, |event| *event = sequence).unwrap();
        }
        for name in 3..=NAMES {
            orders.producer().idempotent(format!("name-{name}")).unwrap();
        }
        let refused = orders.producer().idempotent("one-more").unwrap_err();
        assert!(matches!(&refused, ProducerError::TooManyNames { limit: NAMES, .. }), "{refused}");
        drop((old, young, orders));
        assert!(engine.shutdown(LONG).is_complete());
    }
    {
        let (engine, orders) = open(None);
        clock.advance(PRODUCER_NAME_EXPIRY - Duration::from_nanos(1));
        assert!(orders.producer().idempotent("one-more").is_err(), "too early");
        clock.advance(Duration::from_nanos(1));
        orders.producer().idempotent("instead-of-those-that-published-nothing").unwrap();
        assert_eq!(orders.producer().idempotent("old").unwrap().resume(), Some(4), "its data is there");
        drop(orders);
        assert!(engine.shutdown(LONG).is_complete());
    }
    {
        let (engine, orders) = open(Some(80_000));
        engine.retain().unwrap();
        clock.advance(PRODUCER_NAME_EXPIRY);
        orders.producer().idempotent("instead-of-old").unwrap();
        assert_eq!(orders.producer().idempotent("old").unwrap().resume(), None, "its data is gone");
        assert_eq!(orders.producer().idempotent("young").unwrap().resume(), Some(399_999), "its data is there");
        drop(orders);
        assert!(engine.shutdown(LONG).is_complete());
    }
    // What was forgotten stays so.
    let (_engine, orders) = open(Some(80_000));
    assert_eq!(orders.producer().idempotent("name-3").unwrap().epoch(), 1);
}

#[test]
fn names_go_with_their_topic() {
    let disk = SimulatedDisk::new();
    for _ in 0..2 {
        let engine = engine(&disk);
        let orders = topic(&engine, 1);
        let mut producer = orders.producer().idempotent("gateway").unwrap();
        assert_eq!((producer.epoch(), producer.resume()), (1, None));
        send(&mut producer, 3).unwrap();
        drop((producer, orders));
        engine.delete("orders").unwrap();
        let orders = topic(&engine, 1);
        assert_eq!(orders.producer().idempotent("gateway").unwrap().resume(), None);
        drop(orders);
        engine.delete("orders").unwrap();
        assert!(engine.shutdown(LONG).is_complete());
    }
}

#[test]
fn a_failed_disk_is_told_and_a_duplicate_is_no_better_off() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let orders = topic(&engine, 2);
    let mut producer = orders.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    // For good: a single error may meet the segment that is made ahead of need, which is made again.
    disk.fail_after(1, Fault::PowerCut);
    // A mark of the journal's may meet the fault first: then it is not even published.
    let refused = send(&mut producer, 0).unwrap_err();
    assert!(matches!(&refused, IdempotenceError::Refused(_)), "{refused}");
    assert!(matches!(send(&mut producer, 0), Err(IdempotenceError::Refused(_))), "still unknown");
    let refused = orders.producer().idempotent("other").unwrap_err();
    assert!(matches!(refused, ProducerError::Closed { .. } | ProducerError::Journal { .. }), "{refused}");
}

/// It was counted on from, which ended the journal's thread, and with it every durable topic.
#[test]
fn the_highest_number_is_no_sequence() {
    let engine = engine(&SimulatedDisk::new());
    let (durable, memory) = (topic(&engine, 1), engine.topic::<u64>("memory").create().unwrap());
    for orders in [&durable, &memory] {
        let mut producer = orders.producer().idempotent("gateway").unwrap();
        let refused = send(&mut producer, u64::MAX).unwrap_err();
        assert!(matches!(refused, IdempotenceError::NoSequence { .. }), "{refused}");
        let last = send(&mut producer, u64::MAX - 1).unwrap();
        assert_eq!(send(&mut producer, u64::MAX - 1).unwrap(), last);
        assert_eq!(producer.resume(), Some(u64::MAX - 1));
        assert!(matches!(send(&mut producer, u64::MAX), Err(IdempotenceError::NoSequence { .. })));
        assert!(matches!(send(&mut producer, 0), Err(IdempotenceError::Forgotten { .. })));
    }
    durable.producer().acknowledge(Level::Durable).create().unwrap().publish(|_| ()).unwrap();
}
