//! Topics that are compacted by key: what stays, what readers see, what outlives a restart, and what is refused.

use super::durable::LONG;
use slipring::clock::ManualClock;
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, inspect, recorded_topics};
use slipring::queue::QueueError;
use slipring::subscriber::StartAt;
use slipring::topic::{Compaction, Deduplication, TopicError};
use slipring::{Engine, Level, Message, Persist, Receipt, Record, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn engine(disk: &SimulatedDisk) -> Engine {
    with_segments(disk, 32 << 10)
}

fn with_segments(disk: &SimulatedDisk, segment_size: u64) -> Engine {
    let options = Options { segment_size, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

fn by_key() -> Compaction {
    Compaction::by_key().delete_after(Duration::ZERO)
}

fn prices(engine: &Engine) -> Topic<Message> {
    engine.topic("prices").partitions(2).capacity(256).durable().compact(by_key()).create().unwrap()
}

/// The last value of each key; `None` for a key that was deleted.
type Values = BTreeMap<String, Option<String>>;

/// Publishes that many messages, numbered from `from` on, for ten keys in turn, and waits until they are durable. Each
/// `deletes`-th message deletes its key. Returns the last receipt of each partition.
fn publish(topic: &Topic<Message>, from: u64, count: u64, deletes: u64, last: &mut Values) -> Vec<Receipt> {
    let mut producer = topic.producer().create().unwrap();
    let mut receipts = BTreeMap::new();
    for number in from..from + count {
        let (key, is_deleted) = (format!("key {}", number % 10), number % deletes == deletes - 1);
        let value = if is_deleted { String::new() } else { format!("{number:>100}") };
        let receipt = producer.send(Record::new(&value).key(&key)).unwrap();
        receipts.insert(receipt.partition, receipt);
        last.insert(key, Some(value).filter(|_| !is_deleted));
    }
    let receipts: Vec<_> = receipts.into_values().collect();
    receipts.iter().for_each(|receipt| _ = receipt.wait(Level::Durable).unwrap());
    receipts
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn note(values: &mut Values, message: &Message) {
    let value = Some(text(message.value())).filter(|value| !value.is_empty());
    values.insert(text(message.key().unwrap()), value);
}

/// What a replay of all that is there reads: the count of events, and what `each` makes of them.
fn replayed<E: Send + Sync + 'static>(topic: &Topic<E>, mut each: impl FnMut(&E)) -> u64 {
    let mut replay = topic.replay("audit").open().unwrap();
    let (mut count, until) = (0, Instant::now() + LONG);
    loop {
        let limit = Duration::from_millis(1);
        let read = replay.read(limit, |event, _| each(event)).unwrap();
        count += read.unwrap_or(0) as u64;
        if read == Some(0) && replay.is_live() {
            return count;
        }
        assert!(Instant::now() < until, "{count} came");
    }
}

/// The values without the keys that were deleted.
fn present(values: &Values) -> Values {
    values.iter().filter(|(_, value)| value.is_some()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn check(topic: &Topic<Message>, last: &Values) -> u64 {
    let mut there = Values::new();
    let count = replayed(topic, |message| note(&mut there, message));
    assert_eq!(present(&there), present(last));
    count
}

#[test]
fn every_reader_of_a_compacted_topic_comes_to_the_last_value_of_each_key() {
    let disk = SimulatedDisk::new();
    let mut last = Values::new();
    let engine = engine(&disk);
    let topic = prices(&engine);
    publish(&topic, 0, 1000, 97, &mut last);
    let mut producer = topic.producer().create().unwrap();
    for value in ["there", ""] {
        producer.send(Record::new(value).key("gone")).unwrap();
    }
    last.insert("gone".to_owned(), None);
    // A group has committed in the middle of what goes, and a replay stands there.
    let mut seen = Values::new();
    let mut member = topic.group("sums").start(StartAt::Earliest).join().unwrap();
    let mut read = 0;
    while read < 300 {
        let batch = member.poll(LONG).unwrap().unwrap();
        batch.iter().for_each(|(message, _)| note(&mut seen, message));
        read += batch.len();
        batch.commit().unwrap();
    }
    let mut half = topic.replay("half").open().unwrap();
    half.read(LONG, |_, _| ()).unwrap();
    let receipts = publish(&topic, 1000, 1000, 97, &mut last);

    let done = engine.compact().unwrap();
    assert!(done.removed > 1000 && done.tombstones > 0 && done.rewritten > 3 && done.left == 0, "{done:?}");
    let metrics = engine.metrics().journal.unwrap();
    assert_eq!((metrics.compactions, metrics.compacted_bytes), (1, done.freed));
    assert!(check(&topic, &last) < 1000);

    while receipts.iter().any(|receipt| half.position(receipt.partition).unwrap() <= receipt.offset) {
        half.read(LONG, |_, _| ()).unwrap();
    }
    let group = |partition: u32| engine.groups()[0].partition("prices", partition).unwrap().committed;
    while receipts.iter().any(|receipt| group(receipt.partition).is_none_or(|next| next <= receipt.offset)) {
        let batch = member.poll(LONG).unwrap().unwrap();
        batch.iter().for_each(|(message, _)| note(&mut seen, message));
        batch.commit().unwrap();
    }
    assert_eq!(present(&seen), present(&last));
    let table = topic.table(|message| text(message.key().unwrap())).open().unwrap();
    for receipt in &receipts {
        assert!(table.wait_for(receipt.partition, receipt.offset, LONG).unwrap());
    }
    for (key, value) in &last {
        let found = table.get(key).unwrap().map(|message| text(message.value())).filter(|value| !value.is_empty());
        assert_eq!(found.as_ref(), value.as_ref(), "{key}");
    }
}

#[test]
fn the_setting_holds_until_the_topic_is_opened_without_it() {
    let disk = SimulatedDisk::new();
    let mut last = Values::new();
    let compaction = || {
        let survey = inspect(Arc::new(disk.clone()), false).unwrap();
        recorded_topics(survey.state())[0].compaction.clone()
    };
    {
        let engine = engine(&disk);
        publish(&prices(&engine), 0, 1000, u64::MAX, &mut last);
        assert!(engine.shutdown(LONG).is_complete());
    }
    assert_eq!(compaction(), Some(by_key()));
    {
        // Nobody opens the topic.
        let engine = engine(&disk);
        assert!(engine.compact().unwrap().removed > 500);
        assert!(engine.shutdown(LONG).is_complete());
    }
    let plain = engine(&disk);
    let topic = plain.topic::<Message>("prices").partitions(2).durable().create().unwrap();
    check(&topic, &last);
    publish(&topic, 1000, 1000, u64::MAX, &mut last);
    assert_eq!(plain.compact().unwrap().removed, 0);
    check(&topic, &last);
    drop(topic);
    assert!(plain.shutdown(LONG).is_complete());
    assert_eq!(compaction(), None);
}

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct OldQuote { pub symbol: u32, pub cents: u32, pub room: [u64; 30] }
}

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct Quote { pub ticks: i64, pub symbol: u32, pub size: u32, pub room: [u64; 30] }
}

#[test]
fn a_field_is_the_key_in_each_layout_that_has_it() {
    let disk = SimulatedDisk::new();
    let by_symbol = || Compaction::by_field("symbol");
    {
        let engine = engine(&disk);
        let quotes = engine.topic::<OldQuote>("quotes").durable().compact(by_symbol()).create().unwrap();
        let mut feed = quotes.producer().acknowledge(Level::Durable).create().unwrap();
        for number in 0..400 {
            feed.publish(|quote| *quote = OldQuote { symbol: number % 4, cents: number, room: [0; 30] }).unwrap();
        }
        drop((feed, quotes));
        assert!(engine.shutdown(LONG).is_complete());
    }
    let engine = engine(&disk);
    let quotes = engine.topic::<Quote>("quotes").durable().compact(by_symbol());
    let quotes = quotes.upgrade(|old: &OldQuote, new| {
        *new = Quote { ticks: i64::from(old.cents), symbol: old.symbol, ..Quote::default() };
    });
    let quotes = quotes.create().unwrap();
    let mut feed = quotes.producer().acknowledge(Level::Durable).create().unwrap();
    // Symbol 3 has no new quote, so its last old one stays.
    for number in 1000..1300 {
        feed.publish(|quote| *quote = Quote { ticks: number, symbol: number as u32 % 3, ..Quote::default() }).unwrap();
    }
    let done = engine.compact().unwrap();
    assert!(done.removed > 400, "{done:?}");
    let mut last = BTreeMap::new();
    let count = replayed(&quotes, |quote| _ = last.insert(quote.symbol, quote.ticks));
    assert!(count < 300, "{count}");
    assert_eq!(last, BTreeMap::from([(0, 1299), (1, 1297), (2, 1298), (3, 399)]));
}

#[test]
fn a_topic_smaller_than_a_segment_is_compacted_when_asked() {
    let disk = SimulatedDisk::new();
    let engine = with_segments(&disk, 4 << 20);
    let topic = prices(&engine);
    let mut last = Values::new();
    publish(&topic, 0, 1000, 97, &mut last);
    let done = engine.compact().unwrap();
    assert!(done.segments == 1 && done.rewritten == 1, "{done:?}");
    let left = check(&topic, &last);
    assert!(left <= 10, "{left}");
    // What has come since is too little to end a segment for it, however often somebody asks.
    publish(&topic, 1000, 10, 97, &mut last);
    assert_eq!((0..5).map(|_| engine.compact().unwrap().segments).max(), Some(1));
    check(&topic, &last);
}

#[test]
fn a_topic_smaller_than_a_segment_is_compacted_in_the_background_when_it_rests() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let options = Options { segment_size: 4 << 20, ..Options::default() };
    let builder = Engine::builder().journal_in(disk.clone()).journal_options(options);
    let engine = builder.clock(clock.clone()).build().unwrap();
    let topic = prices(&engine);
    let mut last = Values::new();
    publish(&topic, 0, 1000, 97, &mut last);
    let until = Instant::now() + LONG;
    while engine.metrics().journal.unwrap().compacted_bytes == 0 {
        assert!(Instant::now() < until, "nothing was compacted");
        clock.advance(Duration::from_secs(61));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(check(&topic, &last) <= 10);
}

#[test]
fn what_a_bridge_has_not_copied_stays_whole() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let topic = engine.topic::<Message>("prices").capacity(256).durable().compact(by_key()).create().unwrap();
    let bridge = topic.replicate("nats").attach().unwrap();
    let mut last = Values::new();
    publish(&topic, 0, 1000, 97, &mut last);
    let all = check(&topic, &last);
    assert_eq!((engine.compact().unwrap().removed, all), (0, 1000));
    bridge.advance(0, 500).unwrap();
    let removed = engine.compact().unwrap().removed;
    assert!((300..500).contains(&removed), "{removed}");
    let mut offsets = Vec::new();
    let mut replay = topic.replay("copy").start(StartAt::Offset(500)).open().unwrap();
    while offsets.len() < 500 {
        replay.read(LONG, |_, at| offsets.push(at.offset)).unwrap();
    }
    assert!(offsets.into_iter().eq(500..1000));
}

#[test]
fn what_cannot_be_compacted_is_refused_by_name() {
    let disk = SimulatedDisk::new();
    // Queues need room in a segment.
    let engine = with_segments(&disk, 256 << 10);
    let other = |refused: TopicError| match refused {
        TopicError::Contradiction(refused) => {
            assert_eq!(refused.one, "`compact`", "{refused}");
            refused.other
        }
        refused => panic!("{refused}"),
    };
    let refused = engine.topic::<Message>("a").compact(by_key()).create().unwrap_err();
    assert!(other(refused).contains("in memory"));
    let ids = Deduplication::last(9);
    let refused = engine.topic::<Message>("a").durable().compact(by_key()).deduplicate(ids).create().unwrap_err();
    assert_eq!(other(refused), "`deduplicate`");
    let refused = engine.topic::<u64>("a").durable().compact(by_key()).create().unwrap_err();
    assert!(other(refused).contains("no messages"));
    let refused = engine.topic::<Message>("a").durable().compact(Compaction::by_field("symbol")).create().unwrap_err();
    assert!(other(refused).contains("by_key"));
    for (field, layout) in [("price", Quote::layout()), ("symbol", u64::layout())] {
        assert!(!layout.contains(field));
    }
    let refused = engine.topic::<Quote>("a").durable().compact(Compaction::by_field("price")).create().unwrap_err();
    assert!(other(refused).contains("no such field"));
    let refused = engine.topic::<u64>("a").durable().compact(Compaction::by_field("symbol")).create().unwrap_err();
    assert!(other(refused).contains("no such field"));
    // Nothing of these is in the journal.
    assert!(recorded_topics(inspect(Arc::new(disk.clone()), false).unwrap().state()).is_empty());

    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    jobs.queue("mail").dead_letter("dead").open().unwrap();
    let compacted = prices(&engine);
    let refused = compacted.queue("mail").open().unwrap_err();
    assert!(matches!(&refused, QueueError::Contradiction(it) if it.one == "`compact`"), "{refused}");
    let refused = jobs.queue("other").dead_letter("prices").open().unwrap_err();
    assert!(matches!(&refused, QueueError::Contradiction(it) if it.of == "prices"), "{refused}");
    drop((jobs, compacted));
    assert!(engine.shutdown(LONG).is_complete());
    let engine = with_segments(&disk, 256 << 10);
    for (name, what) in [("jobs", "a queue of the topic"), ("dead", "a queue whose dead letters the topic keeps")] {
        let refused = engine.topic::<Message>(name).max_message(8192).durable().compact(by_key()).create().unwrap_err();
        assert_eq!(other(refused), what);
    }
}

#[test]
fn through_crashes_no_key_has_an_older_value_than_before() {
    let mut disk = SimulatedDisk::new();
    let mut last = Values::new();
    for round in 0..12 {
        let engine = engine(&disk);
        let topic = prices(&engine);
        check(&topic, &last);
        publish(&topic, round * 200, 200, 31, &mut last);
        if round % 3 < 2 {
            let begun = std::thread::scope(|scope| {
                let compacts = scope.spawn(|| engine.compact());
                publish(&topic, round * 200 + 100_000, 30, 31, &mut last);
                compacts.join().unwrap()
            });
            assert_eq!(begun.unwrap().left, 0);
            check(&topic, &last);
        }
        let next = disk.crash(round);
        drop(topic);
        engine.shutdown(LONG);
        disk = next;
    }
}
