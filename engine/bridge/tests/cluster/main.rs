//! A bridge and three real servers, which are killed and stopped under it. Without the program `nats-server` these tests are
//! skipped, and say so.

#![cfg(unix)]

mod both_ways;
mod command;
mod faults;
mod level;
mod limits;
mod servers;
#[cfg(feature = "tls")]
mod tls;

use servers::Servers;
use slipring::producer::WaitError;
use slipring::{Engine, Level, Message, Receipt, Topic};
use slipring_bridge::jetstream::Cluster;
use slipring_bridge::{Bridge, Record, Remote as _, RemoteError, Stopped};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

/// One cluster at a time: six servers on two busy cores lose their leaders by themselves.
static ALONE: Mutex<()> = Mutex::new(());

struct Side {
    engine: Engine,
    topic: Topic<Message>,
}

fn side(dir: &Path) -> Side {
    let engine = Engine::open(dir).unwrap();
    let topic = engine.topic::<Message>("orders.eu").partitions(2).max_message(4096).durable().create().unwrap();
    Side { engine, topic }
}

impl Side {
    fn bridge(&self, cluster: &Cluster) -> Bridge {
        let cluster = cluster.clone();
        let remote = move |partition| cluster.partition("test", "orders.eu", partition, 3);
        Bridge::outward("nats").start(&self.engine, &self.topic, remote).unwrap()
    }

    /// Publishes records into both partitions, and returns the last receipts.
    fn publish(&self, count: u64) -> [Receipt; 2] {
        let mut producer = self.topic.producer().create().unwrap();
        let mut last = [None; 2];
        for number in 0..count {
            let value = format!("order {number}");
            let key = format!("k {number}\r\n");
            let record = slipring::Record::new(&value).key(&key).header("of", &value);
            last[(number % 2) as usize] = Some(producer.send(record.partition((number % 2) as u32)).unwrap());
        }
        last.map(|receipt| receipt.expect("of both"))
    }
}

fn replicated(receipts: &[Receipt], bridge: &Bridge) {
    for receipt in receipts {
        let outcome = receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG));
        assert_eq!(outcome, Ok(Level::Replicated), "{bridge:?}");
    }
}

fn try_for_long<T>(mut what: impl FnMut() -> Result<T, RemoteError>) -> T {
    let until = Instant::now() + LONG;
    loop {
        match what() {
            Ok(it) => return it,
            Err(why) => assert!(Instant::now() < until, "{why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All records of a partition below `end`, as the journal has them.
fn records(side: &Side, partition: u32, end: u64) -> Vec<Record> {
    let mut replay = side.topic.replay("check").open().unwrap();
    let mut records = Vec::new();
    while replay.position(partition).unwrap() < end {
        let each = |message: &Message, at: slipring::subscriber::At| {
            if at.partition == partition {
                records.push(Record::of(message, at.partition, at.offset));
            }
        };
        replay.read(LONG, each).unwrap();
    }
    records
}

/// Each record of the journal is in the stream once and in order, with all of its parts, and nothing else is.
fn check(side: &Side, cluster: &Cluster, last: &[Receipt]) {
    for (partition, receipt) in last.iter().enumerate() {
        let partition = partition as u32;
        let expected = records(side, partition, receipt.offset + 1);
        let mut stream = cluster.partition("test", "orders.eu", partition, 3);
        let end = try_for_long(|| stream.numbers()).end;
        let mut stored = Vec::new();
        // What is not there came late behind a mark, and was deleted.
        for message in try_for_long(|| stream.read(1..end)).into_iter().flatten() {
            let head = message.head.expect("a bridge wrote it");
            assert!(message.records.is_empty() == (head.kind != slipring_bridge::Kind::Record), "{head:?}");
            stored.extend(message.records);
        }
        assert_eq!(stored.len(), expected.len(), "partition {partition}");
        assert!(stored == expected, "partition {partition}");
    }
}

#[test]
fn nothing_is_lost_doubled_or_reordered_while_servers_and_bridges_die() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut servers) = Servers::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::connect(&servers.addresses()).unwrap();
    let side = side(dir.path());
    let mut bridge = side.bridge(&cluster);
    let mut last = side.publish(20);
    replicated(&last, &bridge);
    // Each server in turn, so that the leader of each stream is among them.
    for number in 0..3 {
        servers.kill(number);
        last = side.publish(300);
        replicated(&last, &bridge);
        servers.run(number);

        servers.stop(number, true);
        last = side.publish(300);
        replicated(&last, &bridge);
        servers.stop(number, false);

        // A bridge that is dropped in the middle, with the next one of its name.
        side.publish(300);
        bridge.end();
        bridge = side.bridge(&cluster);
    }
    // Without a majority nothing is replicated, and producers go on.
    servers.kill(0);
    servers.kill(1);
    // More than a window of each partition.
    last = side.publish(2500);
    assert_eq!(last[0].wait(Level::Durable), Ok(Level::Durable));
    let soon = Some(Instant::now() + Duration::from_secs(2));
    assert_eq!(last[0].wait_until(Level::Replicated, soon), Err(WaitError::TimedOut { level: Level::Replicated }));
    servers.kill(2);
    (0..3).for_each(|number| servers.run(number));
    replicated(&last, &bridge);
    assert_eq!(bridge.stopped(), None);
    check(&side, &cluster, &last);

    // A second engine reads the streams, and a server dies meanwhile.
    let other_dir = tempfile::tempdir().unwrap();
    let other = self::side(other_dir.path());
    let to = cluster.clone();
    let import = Bridge::inward("in");
    let import = import.start(&other.topic, move |partition| to.partition("test", "orders.eu", partition, 3)).unwrap();
    servers.kill(1);
    let counts: Vec<_> =
        (0..2).map(|partition| records(&side, partition, last[partition as usize].offset + 1)).collect();
    let until = Instant::now() + LONG;
    let imported = |at: usize| import.status().partitions.get(at).map_or(0, |it| it.imported as usize);
    while (0..2).any(|at| imported(at) < counts[at].len()) && Instant::now() < until {
        std::thread::yield_now();
    }
    for partition in 0..2 {
        let expects = counts[partition as usize].len() as u64;
        while other.topic.safe(partition).unwrap().durable < expects && Instant::now() < until {
            std::thread::yield_now();
        }
        let end = other.topic.safe(partition).unwrap().durable;
        let mut there = records(&other, partition, end);
        let mut expected = counts[partition as usize].clone();
        there.iter_mut().chain(&mut expected).for_each(|record| {
            record.offset = 0;
            record.headers.pop_if(|(name, _)| name == Record::ORIGIN);
        });
        assert!(there == expected, "partition {partition}: {} of {}, {import:?}", there.len(), expected.len());
    }
    drop(import.end());
}

#[test]
fn a_stream_that_somebody_else_writes_or_empties_stops_the_bridge() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::connect(&servers.addresses()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let addresses: Vec<String> = servers.addresses().split(',').map(str::to_owned).collect();
    let client = runtime.block_on(async_nats::connect(addresses)).unwrap();
    let context = {
        let _entered = runtime.enter();
        async_nats::jetstream::new(client)
    };
    for is_purged in [true, false] {
        let side = side(&dir.path().join(is_purged.to_string()));
        let name = if is_purged { "purged" } else { "foreign" };
        let to = cluster.clone();
        let remote = move |partition| to.partition(name, "orders.eu", partition, 3);
        let bridge = Bridge::outward("nats").start(&side.engine, &side.topic, remote).unwrap();
        let last = side.publish(20);
        replicated(&last, &bridge);
        let stream = format!("{name}-orders~eu-0");
        runtime.block_on(async {
            if is_purged {
                context.get_stream(stream).await.unwrap().purge().await.unwrap();
            } else {
                context.publish(format!("{name}.orders.eu.0"), "x".into()).await.unwrap().await.unwrap();
            }
        });
        let late = side.publish(2)[0];
        let outcome = late.wait_until(Level::Replicated, Some(Instant::now() + LONG));
        // An emptied stream refuses nothing, so the bridge looks once a second.
        let is_refused = matches!(outcome, Err(WaitError::Bridge { has: Level::Durable, .. }));
        assert!(is_refused || is_purged, "{outcome:?}");
        let until = Instant::now() + LONG;
        while bridge.stopped().is_none() && Instant::now() < until {
            std::thread::yield_now();
        }
        match (is_purged, bridge.stopped()) {
            (true, Some(Stopped::Lost { next: 0, confirmed: 10.., .. })) => {}
            (false, Some(Stopped::Foreign { .. })) => {}
            (_, other) => panic!("{name}: {other:?}"),
        }
        assert_eq!(last[0].reached(), Level::Replicated, "what was told stays told");
    }
}
