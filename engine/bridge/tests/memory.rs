//! A bridge beside an engine, with a stream in memory.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, Retention};
use slipring::producer::{PublishError, WaitError};
use slipring::{Engine, Level, Message, Receipt, Topic, clock::Timestamp};
use slipring_bridge::memory::{Faults, MemoryCluster};
use slipring_bridge::{Bridge, Kind, Record, Stopped, Uncopied, Window};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn engine(disk: &SimulatedDisk) -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

fn orders(engine: &Engine) -> Topic<Message> {
    engine.topic::<Message>("orders").partitions(2).capacity(64).max_message(512).durable().create().unwrap()
}

fn clusters(seed: u64, faults: Faults) -> [MemoryCluster; 2] {
    [MemoryCluster::new(seed, faults), MemoryCluster::new(seed + 1, faults)]
}

fn start(engine: &Engine, topic: &Topic<Message>, clusters: &[MemoryCluster; 2]) -> Bridge {
    let clusters = clusters.clone();
    let mut window = Window::default();
    window.pause = Duration::from_millis(5);
    Bridge::outward("b")
        .window(window)
        .start(engine, topic, move |partition| clusters[partition as usize].stream())
        .unwrap()
}

/// Publishes records with keys, headers and times into both partitions. Returns the last receipt of each.
fn publish(topic: &Topic<Message>, count: u64) -> [Receipt; 2] {
    let mut producer = topic.producer().create().unwrap();
    let mut last = [None; 2];
    for number in 0..count {
        let value = number.to_string();
        let record = slipring::Record::new(&value).key(&value).header("of", "test").header("of", &value);
        let record = record.timestamp(Timestamp::from_millis(number)).partition((number % 2) as u32);
        last[(number % 2) as usize] = Some(producer.send(record).unwrap());
    }
    last.map(|receipt| receipt.expect("of both"))
}

/// All records of a partition, as the journal has them.
fn recorded(topic: &Topic<Message>, partition: u32, end: u64) -> Vec<Record> {
    let mut replay = topic.replay("check").open().unwrap();
    let (mut records, until) = (Vec::new(), Instant::now() + LONG);
    while replay.position(partition).unwrap() < end && Instant::now() < until {
        let each = |message: &Message, at: slipring::subscriber::At| {
            if at.partition == partition {
                records.push(Record::of(message, at.partition, at.offset));
            }
        };
        replay.read(LONG, each).unwrap();
    }
    records
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < until, "not within a minute");
        std::thread::yield_now();
    }
}

#[test]
fn a_topic_is_in_the_streams_as_it_is_in_the_journal_through_faults_and_restarts() {
    let faults = Faults { message_lost: 20, answer_lost: 20, late: 200, unanswered: 100, stale: 100, unapplied: 100 };
    let (disk, clusters) = (SimulatedDisk::new(), clusters(7, faults));
    for round in 0..3 {
        let engine = engine(&disk);
        let topic = orders(&engine);
        let bridge = start(&engine, &topic, &clusters);
        let last = publish(&topic, 200);
        for receipt in last {
            assert_eq!(receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG)), Ok(Level::Replicated));
        }
        assert_eq!(bridge.stopped(), None, "round {round}");
        for (partition, receipt) in last.iter().enumerate() {
            let expected = recorded(&topic, partition as u32, receipt.offset + 1);
            assert_eq!(expected.len(), 100 * (round + 1));
            assert_eq!(clusters[partition].records(), expected);
        }
        let lag = engine.metrics().topic("orders").unwrap().replication.as_ref().unwrap().lag;
        assert_eq!(lag, 0);
        assert!(matches!(bridge.end().stopped, Some(Stopped::Ended(_))));
        drop(topic);
        assert!(engine.shutdown(LONG).is_complete());
    }
}

/// Each partition waits for servers that do not answer, and the end of the bridge waited for all of them in turn, twice.
#[test]
fn a_bridge_of_many_partitions_ends_soon_while_the_servers_are_away() {
    const PARTITIONS: u32 = 40;
    let engine = engine(&SimulatedDisk::new());
    let topic = engine.topic::<Message>("orders").partitions(PARTITIONS as usize).capacity(64).max_message(512);
    let topic = topic.durable().create().unwrap();
    let clusters: Vec<_> = (0..PARTITIONS).map(|at| MemoryCluster::new(u64::from(at), Faults::default())).collect();
    let to = clusters.clone();
    let bridge = Bridge::outward("b").start(&engine, &topic, move |at| to[at as usize].stream()).unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut send = || {
        let all = 0..PARTITIONS;
        all.map(|at| producer.send(slipring::Record::new("an order").partition(at)).unwrap()).collect::<Vec<_>>()
    };
    send().iter().for_each(|receipt| assert!(receipt.wait(Level::Replicated).is_ok()));
    clusters.iter().for_each(|cluster| cluster.set_held(true));
    send();
    // All of them are on their way.
    wait_for(|| bridge.status().lag_bytes >= Some(256 * u64::from(PARTITIONS)));
    clusters.iter().for_each(|cluster| cluster.set_slow(Duration::from_secs(1)));
    clusters.iter().for_each(|cluster| cluster.set_down(true));
    let began = Instant::now();
    bridge.end();
    assert!(began.elapsed() < Duration::from_secs(u64::from(PARTITIONS) / 2), "{:?}", began.elapsed());
}

#[test]
fn offsets_that_a_crash_has_left_without_records_are_no_lag() {
    let (disk, clusters) = (SimulatedDisk::new(), clusters(1, Faults::default()));
    let engine = engine(&disk);
    let topic = orders(&engine);
    let bridge = start(&engine, &topic, &clusters);
    publish(&topic, 20).iter().for_each(|receipt| assert!(receipt.wait(Level::Replicated).is_ok()));
    let after = disk.crash(1);
    bridge.end();
    let engine = self::engine(&after);
    let topic = orders(&engine);
    assert!(topic.safe(0).unwrap().durable > 1000, "the crash leaves a reservation");
    let bridge = start(&engine, &topic, &clusters);
    let is_level = |bridge: &Bridge| {
        let status = bridge.status();
        status.lag_bytes == Some(0) && status.partitions.iter().all(|it| it.replicated >= it.durable)
    };
    wait_for(|| is_level(&bridge));
    wait_for(|| bridge.status().lag_time.is_none());
    // The next records go on behind them.
    publish(&topic, 20).iter().for_each(|receipt| assert!(receipt.wait(Level::Replicated).is_ok()));
    assert_eq!((bridge.stopped(), clusters[0].records().len()), (None, 20));
}

#[test]
fn an_outage_holds_nobody_up_but_who_waits_for_it() {
    let (engine, clusters) = (engine(&SimulatedDisk::new()), clusters(1, Faults::default()));
    clusters.iter().for_each(|cluster| cluster.set_down(true));
    let topic = orders(&engine);
    let bridge = start(&engine, &topic, &clusters);
    // Many times the ring's capacity.
    let last = publish(&topic, 2000);
    last[0].wait(Level::Durable).unwrap();
    let soon = last[0].wait_until(Level::Replicated, Some(Instant::now()));
    assert_eq!(soon, Err(WaitError::TimedOut { level: Level::Replicated }));
    wait_for(|| bridge.status().error.is_some());
    assert_eq!(bridge.stopped(), None);
    clusters.iter().for_each(|cluster| cluster.set_down(false));
    for receipt in last {
        assert_eq!(receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG)), Ok(Level::Replicated));
    }
    wait_for(|| bridge.status().error.is_none());
    assert_eq!(clusters.iter().map(|cluster| cluster.records().len()).sum::<usize>(), 2000);
}

#[test]
fn a_record_that_is_too_large_stops_the_bridge_or_is_skipped_as_told() {
    for uncopied in [Uncopied::Stop, Uncopied::Skip] {
        let (engine, clusters) = (engine(&SimulatedDisk::new()), clusters(1, Faults::default()));
        let topic = orders(&engine);
        let to = clusters.clone();
        // What a record without a value takes, and some bytes.
        clusters.iter().for_each(|cluster| cluster.set_largest(840));
        let outbound = Bridge::outward("b").uncopied(uncopied).refuse_large(false);
        let bridge = outbound.start(&engine, &topic, move |partition| to[partition as usize].stream()).unwrap();
        let mut producer = topic.producer().create().unwrap();
        let mut send = |bytes: usize| producer.send(slipring::Record::new(&vec![7; bytes]).partition(0)).unwrap();
        let [first, large, last] = [10, 500, 10].map(&mut send);
        assert_eq!(first.wait_until(Level::Replicated, Some(Instant::now() + LONG)), Ok(Level::Replicated));
        let outcome = large.wait_until(Level::Replicated, Some(Instant::now() + LONG)).unwrap_err();
        match uncopied {
            Uncopied::Stop => {
                assert!(matches!(outcome, WaitError::Bridge { has: Level::Durable, .. }), "{outcome}");
                wait_for(|| bridge.stopped().is_some());
                assert!(matches!(bridge.stopped(), Some(Stopped::TooLarge { offset: 1, .. })), "{bridge:?}");
                assert_eq!(clusters[0].records().len(), 1);
            }
            Uncopied::Skip => {
                assert_eq!(outcome, WaitError::Skipped);
                assert_eq!(last.wait_until(Level::Replicated, Some(Instant::now() + LONG)), Ok(Level::Replicated));
                assert!(clusters[0].skipped().into_iter().eq(std::iter::once(1..2)));
                assert_eq!(clusters[0].records().len(), 2);
                assert_eq!(bridge.status().skipped, 1);
            }
        }
    }
}

/// The largest value that a producer may send, with a key and a header that are escaped in the copy.
fn largest_value(topic: &Topic<Message>) -> usize {
    let mut producer = topic.producer().create().unwrap();
    let mut fits = |bytes: usize| {
        let value = vec![7; bytes];
        match producer.send(slipring::Record::new(&value).key(b"k \xff").header("a", "b c").partition(1)) {
            Ok(_) => true,
            Err(PublishError::TooLargeForBridge { bridge, size, limit, .. }) if bridge == "b" && size > limit => false,
            Err(other) => panic!("{other}"),
        }
    };
    let (mut low, mut high) = (0_usize, 480);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    assert!(fits(low) && !fits(low + 1));
    low
}

#[test]
fn producers_are_refused_what_the_streams_do_not_take_once_these_have_told_their_limits() {
    let limited = || {
        let clusters = clusters(1, Faults::default());
        clusters.iter().zip([1000, 900]).for_each(|(cluster, largest)| cluster.set_largest(largest));
        clusters
    };
    let (engine, clusters) = (engine(&SimulatedDisk::new()), limited());
    let topic = orders(&engine);
    clusters.iter().for_each(|cluster| cluster.set_down(true));
    let bridge = start(&engine, &topic, &clusters);
    let mut producer = topic.producer().create().unwrap();
    let large = vec![7; 500];
    let mut send = |partition| producer.send(slipring::Record::new(&large).partition(partition));
    // Nobody knows the limits yet.
    let early = send(1).unwrap();
    clusters.iter().for_each(|cluster| cluster.set_down(false));
    // The record that came too early stops the bridge, as there is no other way; then the limit is lifted.
    let outcome = early.wait_until(Level::Replicated, Some(Instant::now() + LONG)).unwrap_err();
    assert!(matches!(outcome, WaitError::Bridge { .. }), "{outcome}");
    assert!(matches!(bridge.end().stopped, Some(Stopped::TooLarge { limit: 900, .. })));
    send(1).unwrap();

    let clusters = limited();
    let engine = self::engine(&SimulatedDisk::new());
    let topic = orders(&engine);
    let bridge = start(&engine, &topic, &clusters);
    wait_for(|| bridge.status().partitions.len() == 2);
    // The least limit of all streams holds, to the byte, and what was accepted is copied.
    let largest = largest_value(&topic);
    assert!((1..480).contains(&largest), "{largest}");
    publish(&topic, 2).iter().for_each(|receipt| assert!(receipt.wait(Level::Replicated).is_ok()));
    assert_eq!(bridge.stopped(), None);
    let copied = clusters[1].records().iter().map(|record| record.value.len()).max();
    assert_eq!(copied, Some(largest));
}

#[test]
fn what_retention_has_deleted_stops_the_bridge_or_is_skipped_as_told() {
    for uncopied in [Uncopied::Stop, Uncopied::Skip] {
        let (disk, clusters) = (SimulatedDisk::new(), clusters(1, Faults::default()));
        let engine = engine(&disk);
        let keep = Retention { age: None, bytes: Some(0) };
        let topic = engine.topic::<Message>("orders").partitions(2).capacity(64).max_message(512).durable();
        let topic = topic.keep(keep).create().unwrap();
        let bridge = || {
            let to = clusters.clone();
            let outbound = Bridge::outward("b").hold(500).uncopied(uncopied);
            outbound.start(&engine, &topic, move |partition| to[partition as usize].stream()).unwrap()
        };
        let first = bridge();
        let last = publish(&topic, 10);
        last.iter().for_each(|receipt| assert_eq!(receipt.wait(Level::Replicated), Ok(Level::Replicated)));
        first.end();
        let last = publish(&topic, 100);
        last.iter().for_each(|receipt| assert!(receipt.wait(Level::Durable).is_ok()));
        engine.retain().unwrap();
        let second = bridge();
        match uncopied {
            Uncopied::Stop => {
                wait_for(|| second.stopped().is_some());
                let stopped = second.stopped();
                assert!(
                    matches!(stopped, Some(Stopped::Deleted { from: 5, earliest, .. }) if earliest > 40),
                    "{stopped:?}"
                );
                assert_eq!(clusters[0].records().len(), 5);
            }
            Uncopied::Skip => {
                last.iter().for_each(|receipt| assert_eq!(receipt.wait(Level::Replicated), Ok(Level::Replicated)));
                let skipped = clusters[0].skipped();
                let [range] = &skipped[..] else { panic!("{skipped:?}") };
                assert_eq!((range.start, clusters[0].records()[5].offset), (5, range.end));
            }
        }
    }
}

#[test]
fn a_second_bridge_takes_over_only_if_told_and_fences_the_first() {
    let clusters = clusters(1, Faults::default());
    let (first_disk, second_disk) = (SimulatedDisk::new(), SimulatedDisk::new());
    let (first, second) = (engine(&first_disk), engine(&second_disk));
    let (ours, theirs) = (orders(&first), orders(&second));
    let bridge = start(&first, &ours, &clusters);
    // The second machine has the same records, as an import leaves them.
    let last = publish(&ours, 20);
    publish(&theirs, 20)[1].wait(Level::Durable).unwrap();
    last.iter().for_each(|receipt| assert_eq!(receipt.wait(Level::Replicated), Ok(Level::Replicated)));

    let refused = start(&second, &theirs, &clusters);
    wait_for(|| refused.stopped().is_some());
    assert!(matches!(refused.stopped(), Some(Stopped::Owned { .. })), "{refused:?}");
    refused.end();
    let to = clusters.clone();
    let takes = Bridge::outward("c").take_over(true);
    let takes = takes.start(&second, &theirs, move |partition| to[partition as usize].stream()).unwrap();
    let taken = publish(&theirs, 20);
    taken.iter().for_each(|receipt| {
        assert_eq!(
            receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG)),
            Ok(Level::Replicated),
            "{takes:?}"
        )
    });
    let late = publish(&ours, 2)[0];
    let outcome = late.wait_until(Level::Replicated, Some(Instant::now() + LONG)).unwrap_err();
    assert!(matches!(outcome, WaitError::Bridge { .. }), "{outcome}");
    wait_for(|| bridge.stopped().is_some());
    assert!(matches!(bridge.stopped(), Some(Stopped::Fenced { .. })), "{bridge:?}");
    assert_eq!(clusters[0].records().len(), 20);
    let epochs = clusters[0].heads().into_iter().flatten().filter(|head| head.kind == Kind::Mark);
    let epochs: Vec<_> = epochs.map(|head| head.writer.epoch).collect();
    assert!(epochs.is_sorted() && epochs.first() < epochs.last(), "{epochs:?}");
}

/// What a reader of a topic sees of a record, without what an import changes: the offset, and the origin's header behind the others.
fn as_published(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        record.offset = 0;
        record.headers.pop_if(|(name, _)| name == Record::ORIGIN);
    }
    records
}

#[test]
fn a_second_engine_imports_each_record_once_through_faults_restarts_and_a_bridge_that_was_killed() {
    let faults = Faults { message_lost: 20, answer_lost: 20, late: 200, unanswered: 100, stale: 100, unapplied: 100 };
    let (ours, theirs, clusters) = (SimulatedDisk::new(), SimulatedDisk::new(), clusters(11, faults));
    for round in 1..4_u64 {
        let (origin, copy) = (engine(&ours), engine(&theirs));
        let (from, to) = (orders(&origin), orders(&copy));
        let bridge = start(&origin, &from, &clusters);
        let last = publish(&from, 200);
        // Ended in the middle of the stream, and begun again where it was.
        for more in [false, true] {
            let streams = clusters.clone();
            let import =
                Bridge::inward("in").start(&to, move |partition| streams[partition as usize].stream()).unwrap();
            let enough = |status: &slipring_bridge::ImportStatus| {
                let least = if more { round * 100 } else { round * 100 - 50 };
                status.partitions.len() == 2 && status.partitions.iter().all(|it| it.imported >= least)
            };
            wait_for(|| {
                let status = import.status();
                assert_eq!(status.stopped, None, "round {round}");
                enough(&status)
            });
            assert!(matches!(import.end().stopped, Some(Stopped::Ended(_))));
        }
        for (partition, receipt) in last.iter().enumerate() {
            let partition = partition as u32;
            let durable = || recorded(&to, partition, to.safe(partition).unwrap().durable);
            wait_for(|| durable().len() as u64 >= round * 100);
            let there = as_published(durable());
            assert_eq!(there.len() as u64, round * 100);
            assert!(there == as_published(recorded(&from, partition, receipt.offset + 1)), "round {round}");
        }
        // The last round's bridge is dropped with what it has on its way.
        if round == 1 {
            drop(bridge)
        } else {
            drop(bridge.end())
        }
        drop((from, to));
        assert!(origin.shutdown(LONG).is_complete() && copy.shutdown(LONG).is_complete());
    }
}

#[test]
fn an_import_stops_for_what_it_cannot_read() {
    for is_foreign in [true, false] {
        let (origin, copy) = (engine(&SimulatedDisk::new()), engine(&SimulatedDisk::new()));
        let (from, to) = (orders(&origin), orders(&copy));
        let clusters = clusters(1, Faults::default());
        let bridge = start(&origin, &from, &clusters);
        publish(&from, 20).iter().for_each(|receipt| assert!(receipt.wait(Level::Replicated).is_ok()));
        bridge.end();
        if is_foreign {
            clusters[0].write_foreign();
        } else {
            // The mark, and the first records.
            (1..4).for_each(|sequence| clusters[0].remove(sequence));
        }
        let streams = clusters.clone();
        let import = Bridge::inward("in").start(&to, move |partition| streams[partition as usize].stream()).unwrap();
        wait_for(|| import.status().stopped.is_some());
        match import.status().stopped {
            Some(Stopped::Foreign { .. }) if is_foreign => {}
            Some(Stopped::Missing { earliest: 3, .. }) if !is_foreign => {}
            other => panic!("{other:?}"),
        }
    }
}
