//! The comparison of a journal with a stream, where both are as they should be and where they are not.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Journal, Options, PartitionId};
use slipring::{Engine, Level, Message, Record, Topic};
use slipring_bridge::memory::{Faults, MemoryCluster};
use slipring_bridge::verify::{self, Difference, Verified};
use slipring_bridge::{Bridge, Uncopied};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

struct Side {
    engine: Engine,
    topic: Topic<Message>,
}

fn side() -> Side {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let topic = engine.topic::<Message>("orders").max_message(512).durable().create().unwrap();
    Side { engine, topic }
}

impl Side {
    fn publish(&self, numbers: std::ops::Range<u64>) {
        let mut producer = self.topic.producer().create().unwrap();
        let mut last = None;
        for number in numbers {
            let value = number.to_string();
            last = Some(producer.send(Record::new(&value).key("k").header("of", &value)).unwrap());
        }
        last.unwrap().wait(Level::Durable).unwrap();
    }

    fn journal(&self) -> (Journal, PartitionId) {
        let journal = self.engine.journal().unwrap();
        let of = journal.extents()[0].0;
        (journal, of)
    }

    fn copy(&self, to: &MemoryCluster) {
        let end = self.topic.safe(0).unwrap().durable;
        let stream = to.clone();
        let bridge = Bridge::outward("b").uncopied(Uncopied::Skip);
        let bridge = bridge.start(&self.engine, &self.topic, move |_| stream.stream()).unwrap();
        let until = Instant::now() + LONG;
        while bridge.status().partitions.iter().all(|it| it.replicated < end) {
            assert!(Instant::now() < until, "{bridge:?}");
            std::thread::yield_now();
        }
        bridge.end();
    }

    fn verify(&self, with: &MemoryCluster) -> Verified {
        let (journal, of) = self.journal();
        verify::outward(&journal, of, &mut with.stream()).unwrap()
    }
}

fn counts(found: &Verified) -> (u64, u64, u64) {
    (found.equal, found.behind, found.wrong)
}

#[test]
fn equal_sides_are_sound_and_what_is_not_copied_yet_is_counted() {
    let (side, cluster) = (side(), MemoryCluster::new(1, Faults::default()));
    assert_eq!(counts(&side.verify(&cluster)), (0, 0, 0));
    side.publish(0..600);
    side.copy(&cluster);
    assert_eq!(counts(&side.verify(&cluster)), (600, 0, 0));
    side.publish(600..610);
    assert_eq!(counts(&side.verify(&cluster)), (600, 10, 0));
}

#[test]
fn each_difference_is_named() {
    let (side, cluster) = (side(), MemoryCluster::new(1, Faults::default()));
    side.publish(0..20);
    side.copy(&cluster);
    let records = cluster.heads().iter().position(|head| head.unwrap().tip.count == 5).unwrap() as u64 + 1;
    cluster.remove(records);
    let found = side.verify(&cluster);
    let missing = [Difference::Broken { sequence: records + 1 }, Difference::Missing { offset: 4 }];
    assert_eq!((counts(&found), &found.differences[..]), ((19, 0, 2), &missing[..]));
    assert!(!found.is_sound());
    cluster.write_foreign();
    let foreign = Difference::Foreign { sequence: cluster.sequence() };
    assert_eq!(side.verify(&cluster).differences.last(), Some(&foreign));

    // Another journal, with other records at the same offsets, and with fewer.
    let other = self::side();
    other.publish(100..110);
    let found = other.verify(&cluster);
    assert_eq!(found.differences.iter().filter(|it| matches!(it, Difference::Differs { .. })).count(), 9);
    assert!(found.differences.iter().any(|it| matches!(it, Difference::Unknown { offset: 10, .. })));
    // 9 others, 10 unknown ones, the removed one of both sides, and the foreign one: not all are named.
    assert_eq!((counts(&found), found.differences.len()), ((0, 0, 22), 20));
}

#[test]
fn records_that_were_skipped_are_no_difference() {
    let (side, cluster) = (side(), MemoryCluster::new(1, Faults::default()));
    cluster.set_largest(840);
    side.publish(0..5);
    let mut producer = side.topic.producer().acknowledge(Level::Durable).create().unwrap();
    producer.send(Record::new(&[7; 500])).unwrap();
    side.publish(5..10);
    side.copy(&cluster);
    let found = side.verify(&cluster);
    assert_eq!((counts(&found), found.skipped), ((10, 0, 0), 1));
}

#[test]
fn an_import_is_compared_in_order() {
    let (origin, copy, cluster) = (side(), side(), MemoryCluster::new(1, Faults::default()));
    origin.publish(0..30);
    origin.copy(&cluster);
    let stream = cluster.clone();
    let import = Bridge::inward("in").start(&copy.topic, move |_| stream.stream()).unwrap();
    let until = Instant::now() + LONG;
    while import.status().partitions.first().is_none_or(|it| it.imported < 30)
        || copy.topic.safe(0).unwrap().written < 30
    {
        assert!(Instant::now() < until, "{import:?}");
        std::thread::yield_now();
    }
    import.end();
    let (journal, of) = copy.journal();
    let verified = || verify::inward(&journal, of, &mut cluster.stream()).unwrap();
    assert_eq!(counts(&verified()), (30, 0, 0));
    let imported = |writer: &Side| verify::imported(&journal, of, writer.journal().0.id()).unwrap();
    assert_eq!((imported(&origin), imported(&copy)), (Some(30), None));
    // What others publish into the copy is counted apart, however much it is.
    copy.publish(99..100);
    copy.publish(1000..1600);
    assert_eq!(imported(&origin), Some(30));
    assert_eq!((counts(&verified()), verified().others), ((30, 0, 0), 601));
    origin.publish(30..32);
    origin.copy(&cluster);
    assert_eq!((counts(&verified()), verified().others), ((30, 2, 0), 601));
    // Somebody publishes with the header of the last imported record, once with its value and once with another, and once with a
    // count that the stream does not have yet.
    let mut replay = copy.topic.replay("last").open().unwrap();
    let (mut header, mut read) = (Vec::new(), 0);
    while read < 631 {
        let each = |message: &Message, _| {
            if let Some(value) = message.header(slipring_bridge::Record::ORIGIN) {
                header = value.to_vec();
            }
        };
        read += replay.read(LONG, each).unwrap().unwrap();
    }
    let mut producer = copy.topic.producer().acknowledge(Level::Durable).create().unwrap();
    let mut forge = |count: u64, value: &str| {
        header[16..24].copy_from_slice(&count.to_le_bytes());
        let record = Record::new(value).key("k").header("of", value);
        producer.send(record.header(slipring_bridge::Record::ORIGIN, &header)).unwrap();
    };
    forge(30, "29");
    forge(31, "other");
    forge(99, "98");
    let found = verified();
    assert_eq!((counts(&found), found.others), ((30, 0, 4), 601), "{found:?}");
    let [twice, differs, lacks, unknown] = &found.differences[..] else { panic!("{found:?}") };
    assert_eq!((twice, unknown), (&Difference::Missing { offset: 631 }, &Difference::Missing { offset: 633 }));
    assert!(matches!(
        (differs, lacks),
        (Difference::Differs { offset: 30, .. }, Difference::Unknown { offset: 31, .. })
    ));
}
