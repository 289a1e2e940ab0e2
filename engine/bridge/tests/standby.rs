//! Takeovers: a standby that copies streams into a journal of its own, and goes on where the first machine has ended.

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::producer::WaitError;
use slipring::{Engine, Level, Message, Receipt, Topic};
use slipring_bridge::memory::{Faults, MemoryCluster, MemoryStream};
use slipring_bridge::{
    Bridge, Record, Standby, StandbyBuilder, StandbyError, StandbyTopic, Stopped, Uncopied, Window, verify,
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(2);
const FAULTS: Faults = Faults { message_lost: 2, answer_lost: 2, late: 200, unanswered: 50, stale: 50, unapplied: 50 };

fn options() -> Options {
    Options { segment_size: 1 << 18, ..Options::default() }
}

/// After an error it goes on at once.
fn window() -> Window {
    let mut window = Window::default();
    window.pause = Duration::from_millis(1);
    window
}

struct Side {
    engine: Engine,
    topic: Topic<Message>,
}

fn side(disk: &SimulatedDisk) -> Side {
    let engine = Engine::builder().journal_in(disk.clone()).journal_options(options()).build().unwrap();
    let topic = engine.topic::<Message>("orders").partitions(2).capacity(64).max_message(512).durable();
    Side { topic: topic.create().unwrap(), engine }
}

fn clusters(seed: u64, faults: Faults) -> [MemoryCluster; 2] {
    [MemoryCluster::new(seed, faults), MemoryCluster::new(seed + 1, faults)]
}

fn streams(clusters: &[MemoryCluster; 2]) -> impl FnMut(u32) -> MemoryStream + Send + use<> {
    let clusters = clusters.clone();
    move |partition| clusters[partition as usize].stream()
}

fn of_topic(clusters: &[MemoryCluster; 2]) -> impl FnMut(&str, u32) -> MemoryStream + Send + use<> {
    let mut streams = streams(clusters);
    move |_, partition| streams(partition)
}

impl Side {
    fn bridge(&self, clusters: &[MemoryCluster; 2]) -> Bridge {
        let outward = Bridge::outward("nats").window(window()).uncopied(Uncopied::Skip).refuse_large(false);
        outward.start(&self.engine, &self.topic, streams(clusters)).unwrap()
    }

    fn publish(&self, count: u64) -> [Receipt; 2] {
        let mut producer = self.topic.producer().create().unwrap();
        let mut last = [None; 2];
        for number in 0..count {
            let value = number.to_string();
            let record = slipring::Record::new(&value).key(&value).header("of", "test").partition((number % 2) as u32);
            last[(number % 2) as usize] = Some(producer.send(record).unwrap());
        }
        last.map(|receipt| receipt.expect("of both"))
    }

    fn shut_down(self) {
        let Self { engine, topic } = self;
        drop(topic);
        assert!(engine.shutdown(LONG).is_complete());
    }
}

fn replicated(receipts: &[Receipt]) {
    for receipt in receipts {
        let outcome = receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG));
        assert_eq!(outcome, Ok(Level::Replicated));
    }
}

fn settings() -> StandbyBuilder {
    let topic = StandbyTopic::new("nats", "orders").partitions(2).max_message(512);
    Bridge::standby([topic]).journal_options(options()).window(window())
}

fn standby(disk: &SimulatedDisk, clusters: &[MemoryCluster; 2]) -> Standby<MemoryStream> {
    settings().open_in(disk.clone(), of_topic(clusters)).unwrap()
}

/// Both sides have the same records at the same offsets, and the stream has each of them once.
fn check(side: &Side, clusters: &[MemoryCluster; 2]) {
    let journal = side.engine.journal().unwrap();
    for (of, _) in journal.extents() {
        let cluster = &clusters[of.partition as usize];
        cluster.set_faults(Faults::default());
        let (expected, found) = (cluster.records().len() as u64, verify::outward(&journal, of, &mut cluster.stream()));
        let found = found.unwrap();
        assert_eq!((found.equal, found.behind, &found.differences[..]), (expected, 0, &[][..]));
    }
}

#[test]
fn a_standby_takes_over_with_every_replicated_record_at_its_offset_and_the_first_machine_is_fenced() {
    for seed in 0..1 {
        let (first, second, clusters) = (SimulatedDisk::new(), SimulatedDisk::new(), clusters(seed * 2, FAULTS));
        let origin = side(&first);
        let bridge = origin.bridge(&clusters);
        replicated(&origin.publish(200));
        // It copies meanwhile, and is opened anew, in order or not.
        for round in 0..4 {
            let mut copy = standby(&second, &clusters);
            (0..10 * round).for_each(|_| _ = copy.copy(SHORT).unwrap());
            if round % 2 == 0 {
                copy.close().unwrap();
            }
            replicated(&origin.publish(20));
        }
        let mut copy = standby(&second, &clusters);
        // The first machine goes on until it is fenced: what it is told to be replicated by then is copied.
        let last = origin.publish(100);
        copy.take_over(LONG).unwrap();
        copy.close().unwrap();
        let late = origin.publish(2)[0];
        let outcome = late.wait_until(Level::Replicated, Some(Instant::now() + LONG));
        assert!(matches!(outcome, Err(WaitError::Bridge { .. })), "{outcome:?}");
        let stops = |bridge: &Bridge| {
            let until = Instant::now() + LONG;
            while bridge.stopped().is_none() && Instant::now() < until {
                std::thread::yield_now();
            }
            assert!(matches!(bridge.stopped(), Some(Stopped::Fenced { .. })), "{bridge:?}");
        };
        stops(&bridge);

        let taken = side(&second);
        for (partition, receipt) in last.iter().enumerate() {
            let is_there = taken.topic.safe(partition as u32).unwrap().durable > receipt.offset;
            assert!(is_there || receipt.reached() < Level::Replicated, "{receipt:?}");
        }
        let next = taken.bridge(&clusters);
        replicated(&taken.publish(50));
        assert_eq!(next.stopped(), None);
        check(&taken, &clusters);
        // Started again, the first one stays down.
        drop(bridge);
        stops(&origin.bridge(&clusters));
    }
}

#[test]
fn a_takeover_that_the_servers_interrupt_is_repeated() {
    // In front of the first mark, and among the marks behind it.
    for room in [0, 500] {
        let (first, second, clusters) = (SimulatedDisk::new(), SimulatedDisk::new(), clusters(3, Faults::default()));
        let origin = side(&first);
        let bridge = origin.bridge(&clusters);
        replicated(&origin.publish(100));
        // It cannot say that it has ended.
        clusters.iter().for_each(|cluster| cluster.set_down(true));
        bridge.end();
        clusters.iter().for_each(|cluster| cluster.set_down(false));
        clusters[1].full_at(clusters[1].sequence() + room);
        let mut copy = standby(&second, &clusters);
        let why = copy.take_over(Duration::from_millis(300)).unwrap_err();
        assert!(matches!(why, StandbyError::TimedOut { .. }), "{why}");
        // Without an orderly end.
        drop(copy);
        clusters[1].full_at(0);
        let mut copy = standby(&second, &clusters);
        copy.take_over(LONG).unwrap();
        copy.close().unwrap();
        let taken = side(&second);
        let next = taken.bridge(&clusters);
        replicated(&taken.publish(20));
        check(&taken, &clusters);
        drop(next);
    }
}

#[test]
fn a_takeover_ends_however_slow_the_servers_are() {
    let (first, second, clusters) = (SimulatedDisk::new(), SimulatedDisk::new(), clusters(3, Faults::default()));
    let origin = side(&first);
    let bridge = origin.bridge(&clusters);
    replicated(&origin.publish(100));
    clusters.iter().for_each(|cluster| cluster.set_down(true));
    bridge.end();
    // The marks of a fence take several times as long as the takeover waits for progress.
    clusters.iter().for_each(|cluster| (cluster.set_down(false), cluster.set_slow(Duration::from_millis(1))).1);
    let (limit, begun) = (Duration::from_millis(300), Instant::now());
    let mut copy = standby(&second, &clusters);
    copy.take_over(limit).unwrap();
    assert!(begun.elapsed() > 2 * limit, "{:?}", begun.elapsed());
    copy.close().unwrap();
    clusters.iter().for_each(|cluster| cluster.set_slow(Duration::ZERO));
    let taken = side(&second);
    let next = taken.bridge(&clusters);
    replicated(&taken.publish(20));
    check(&taken, &clusters);
    drop(next);
}

#[test]
fn what_a_standby_cannot_copy_is_named() {
    let (first, clusters) = (SimulatedDisk::new(), clusters(3, Faults::default()));
    let origin = side(&first);
    let bridge = origin.bridge(&clusters);
    replicated(&origin.publish(100));
    bridge.end();
    // A journal with records of its own.
    let own = SimulatedDisk::new();
    let other = side(&own);
    other.publish(100).iter().for_each(|receipt| assert!(receipt.wait(Level::Durable).is_ok()));
    let locked = settings().open_in(own.clone(), of_topic(&clusters)).unwrap_err();
    assert!(matches!(locked, StandbyError::Engine(_) | StandbyError::Open(_)), "{locked}");
    other.shut_down();
    let mut copy = standby(&own, &clusters);
    // It has the same records, but for the last ones.
    let why = copy.take_over(LONG);
    assert!(why.is_ok(), "the records are equal: {why:?}");
    drop(copy);
    let ahead = SimulatedDisk::new();
    let longer = side(&ahead);
    longer.publish(120).iter().for_each(|receipt| assert!(receipt.wait(Level::Durable).is_ok()));
    longer.shut_down();
    let why = standby(&ahead, &clusters).take_over(LONG).unwrap_err();
    assert!(matches!(why, StandbyError::Stopped(Stopped::Diverged { .. })), "{why}");
    // Another number of partitions, and a largest message that is too small.
    let small = SimulatedDisk::new();
    let settings = |partitions| {
        let topic = StandbyTopic::new("nats", "orders").partitions(partitions).max_message(4);
        Bridge::standby([topic]).journal_options(options())
    };
    let mut copy = settings(2).open_in(small.clone(), of_topic(&clusters)).unwrap();
    let why = (0..100).find_map(|_| copy.copy(SHORT).err()).unwrap();
    assert!(matches!(why, StandbyError::Unfit { .. }) && why.to_string().contains("max_message"), "{why}");
    drop(copy);
    let why = settings(3).open_in(small, of_topic(&clusters)).unwrap_err();
    assert!(why.to_string().contains("ask for 2"), "{why}");
}

#[test]
fn offsets_of_skipped_records_at_the_end_are_not_given_again() {
    let (first, second, clusters) = (SimulatedDisk::new(), SimulatedDisk::new(), clusters(3, Faults::default()));
    clusters.iter().for_each(|cluster| cluster.set_largest(840));
    let origin = side(&first);
    let bridge = origin.bridge(&clusters);
    replicated(&origin.publish(10));
    let mut producer = origin.topic.producer().create().unwrap();
    let large = producer.send(slipring::Record::new(&[7; 500]).partition(0)).unwrap();
    let outcome = large.wait_until(Level::Replicated, Some(Instant::now() + LONG));
    assert_eq!(outcome, Err(WaitError::Skipped));
    drop(bridge);
    let mut copy = standby(&second, &clusters);
    copy.take_over(LONG).unwrap();
    copy.close().unwrap();
    let taken = side(&second);
    let next = taken.bridge(&clusters);
    let receipts = taken.publish(2);
    assert!(receipts[0].offset > large.offset, "{receipts:?} {large:?}");
    replicated(&receipts);
    check(&taken, &clusters);
    drop(next);
}

#[test]
fn packed_records_are_copied_and_taken_over_as_single_ones_are() {
    let (first, second, clusters) = (SimulatedDisk::new(), SimulatedDisk::new(), clusters(5, FAULTS));
    let origin = side(&first);
    let outward = || Bridge::outward("nats").packed(100);
    let bridge = outward().start(&origin.engine, &origin.topic, streams(&clusters)).unwrap();
    replicated(&origin.publish(2000));
    let records = clusters[0].heads().into_iter().flatten().filter(|head| head.tip != head.behind).count();
    assert!(records < 1000, "{records} messages for 1,000 records");
    check(&origin, &clusters);
    drop(bridge);
    let mut copy = standby(&second, &clusters);
    copy.take_over(LONG).unwrap();
    copy.close().unwrap();
    let taken = side(&second);
    let next = outward().start(&taken.engine, &taken.topic, streams(&clusters)).unwrap();
    replicated(&taken.publish(200));
    check(&taken, &clusters);
    drop(next);
    let records: Vec<Record> = clusters[1].records();
    assert!(records.is_sorted_by_key(|record| record.offset));
}
