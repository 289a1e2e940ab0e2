//! What a bridge costs beside bare loops of the client, on the same three servers, in rounds that take turns.
//!
//!     SLIPRING_BRIDGE_CLUSTER=1 SLIPRING_NATS_SERVER=... cargo bench -p slipring-bridge --bench cluster
//!
//! ```text
//!   outward:  journal --> bridge --> stream      beside   bare loop --> stream       as many in flight, 128 bytes
//!   inward:   stream --> import --> topic        beside   stream --> bare loop       an ordered consumer
//!   latency:  publish and wait for Replicated    beside   publish and its answer     at 100 a second
//!   producer: send, with a bridge attached       beside   send, a bare loop running  at 10,000 a second each
//! ```
//!
//! With `SLIPRING_FIGURES_OUTAGE=600` it measures instead how the memory of the process changes while the servers are stopped for
//! that many seconds and 10,000 records a second are published.
//!
//! The ratio of each round is what counts: the servers, the client and the engine share the machine. The bridge's messages have
//! headers of about 300 bytes beside the value. So there are two bare loops: one that sends and reads values alone, and one for
//! the same messages as the bridge's, which expects the stream's last number as the bridge does.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{Context, stream};
use futures_core::Stream as _;
use slipring::{Engine, Level, Message, Producer, Record};
use slipring_bridge::Bridge;
use slipring_bridge::jetstream::Cluster;
use std::collections::VecDeque;
use std::future::IntoFuture as _;
use std::pin::Pin;
use std::time::{Duration, Instant};

#[path = "../tests/cluster/servers.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod servers;

const IN_FLIGHT: usize = 1000;
/// Records a second at which producers are measured.
const RATE: usize = 10_000;
const VALUE: [u8; 128] = [7; 128];
const LONG: Duration = Duration::from_secs(600);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

struct Bare {
    runtime: tokio::runtime::Runtime,
    context: Context,
}

impl Bare {
    fn connect(addresses: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        let client = runtime.block_on(async_nats::connect(addresses)).unwrap();
        let context = {
            let _entered = runtime.enter();
            async_nats::jetstream::new(client)
        };
        Self { runtime, context }
    }

    fn create(&self, name: &str) {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![name.to_owned()],
            num_replicas: 3,
            ..stream::Config::default()
        };
        self.runtime.block_on(self.context.create_stream(config)).unwrap();
    }

    /// Records a second; with the headers of a bridge's message if `is_same`.
    fn publish(&self, name: &str, count: usize, is_same: bool) -> f64 {
        self.create(name);
        let begun = Instant::now();
        self.runtime.block_on(async {
            let mut flight = VecDeque::new();
            for sent in 0..count {
                if flight.len() == IN_FLIGHT {
                    let oldest: async_nats::jetstream::context::PublishAckFuture = flight.pop_front().unwrap();
                    oldest.into_future().await.unwrap();
                }
                let (subject, value) = (name.to_owned(), VALUE[..].into());
                flight.push_back(if is_same {
                    self.context.publish_with_headers(subject, headers(name, sent), value).await.unwrap()
                } else {
                    self.context.publish(subject, value).await.unwrap()
                });
            }
            for answer in flight {
                answer.into_future().await.unwrap();
            }
        });
        count as f64 / begun.elapsed().as_secs_f64()
    }

    /// Publishes the same messages as a bridge's, ten in each millisecond, for this many seconds.
    fn publish_at_rate(&self, name: &str, seconds: usize) {
        self.runtime.block_on(async {
            let (begun, mut flight) = (Instant::now(), VecDeque::new());
            for sent in 0..seconds * RATE {
                if sent % 10 == 0 {
                    tokio::time::sleep_until((begun + Duration::from_millis(1) * (sent / 10) as u32).into()).await;
                }
                if flight.len() == IN_FLIGHT {
                    let oldest: async_nats::jetstream::context::PublishAckFuture = flight.pop_front().unwrap();
                    oldest.into_future().await.unwrap();
                }
                let sending = self.context.publish_with_headers(name.to_owned(), headers(name, sent), VALUE[..].into());
                flight.push_back(sending.await.unwrap());
            }
        });
    }

    fn read(&self, name: &str, count: usize) -> f64 {
        self.runtime.block_on(async {
            let stream = self.context.get_stream(name).await.unwrap();
            let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
            let mut messages = consumer.messages().await.unwrap();
            let mut begun = Instant::now();
            for index in 0..count {
                std::future::poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await.unwrap().unwrap();
                if index == 0 {
                    begun = Instant::now();
                }
            }
            (count - 1) as f64 / begun.elapsed().as_secs_f64()
        })
    }

    fn latencies(&self, name: &str, count: usize) -> Duration {
        self.create(name);
        at_100(count, || {
            self.runtime.block_on(async {
                let answer = self.context.publish(name.to_owned(), VALUE[..].into()).await.unwrap();
                answer.into_future().await.unwrap();
            });
        })
    }
}

/// The headers of a bridge's message for the record with this offset, which is behind as many messages.
fn headers(stream: &str, offset: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let (next, sum) = (offset + 1, 9);
    let head = format!("record;{:032x}.1.{:016x};{next}.{sum:08x}.{next};{offset}.{sum:08x}.{offset}", 7, 8);
    headers.insert(HeaderName::from_static("Slipring-Head"), head);
    headers.insert(HeaderName::from_static("Slipring-Partition"), "0");
    headers.insert(HeaderName::from_static("Slipring-Offset"), offset.to_string());
    headers.insert(HeaderName::from_static("Slipring-Time"), "1700000000000000000");
    headers.insert(NATS_EXPECTED_STREAM, stream);
    headers.insert(NATS_EXPECTED_LAST_SEQUENCE, offset.to_string());
    headers
}

/// The median of the durations of a call that is begun a hundred times a second, from the time at which it should begin.
fn at_100(count: usize, mut call: impl FnMut()) -> Duration {
    let (begun, mut took) = (Instant::now(), Vec::new());
    for index in 0..count {
        let intended = begun + Duration::from_millis(10) * index as u32;
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        call();
        took.push(intended.elapsed());
    }
    took.sort_unstable();
    took[took.len() / 2]
}

/// Records a second, from the first ones that are done to the last: streams and marks are made before, and once.
fn rate(count: usize, done: impl Fn() -> u64) -> f64 {
    let until = Instant::now() + LONG;
    let reaches = |least: u64| {
        while done() < least {
            assert!(Instant::now() < until, "{} of {least} records", done());
            std::thread::sleep(Duration::from_micros(200));
        }
        (done(), Instant::now())
    };
    let ((first, begun), (last, ended)) = (reaches(1), reaches(count as u64));
    (last - first) as f64 / (ended - begun).as_secs_f64()
}

/// Records a second of a bridge outward, and of an import of what it has copied.
fn bridge(cluster: &Cluster, name: &str, packed: usize, count: usize) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("origin")).unwrap();
    let topic = engine.topic::<Message>("t").max_message(256).capacity(1 << 14).durable().create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut last = None;
    (0..count).for_each(|_| last = Some(producer.send(Record::new(&VALUE)).unwrap()));
    last.unwrap().wait(Level::Durable).unwrap();
    let stream = |name: &str| {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        move |partition| cluster.partition(&name, "t", partition, 3)
    };
    let bridge = Bridge::outward("b").packed(packed).start(&engine, &topic, stream(name)).unwrap();
    let outward = rate(count, || bridge.status().partitions.first().map_or(0, |it| it.replicated));
    bridge.end();
    let copy = Engine::open(dir.path().join("copy")).unwrap();
    let topic = copy.topic::<Message>("t").max_message(256).capacity(1 << 14).durable().create().unwrap();
    let import = Bridge::inward("in").start(&topic, stream(name)).unwrap();
    let inward = rate(count, || import.status().partitions.first().map_or(0, |it| it.imported));
    assert_eq!(import.end().stopped.map(|stopped| stopped.to_string()).as_deref(), Some("the import was ended"));
    (outward, inward)
}

/// The latencies of the levels `Replicated` and `Durable`: the second is part of the first.
fn replicated(cluster: &Cluster, name: &str, count: usize) -> (Duration, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("origin")).unwrap();
    let topic = engine.topic::<Message>("t").max_message(256).durable().create().unwrap();
    let (to, prefix) = (cluster.clone(), name.to_owned());
    let remote = move |partition| to.partition(&prefix, "t", partition, 3);
    let _bridge = Bridge::outward("b").start(&engine, &topic, remote).unwrap();
    let mut producer = topic.producer().acknowledge(Level::Replicated).create().unwrap();
    producer.send(Record::new(&VALUE)).unwrap();
    let replicated = at_100(count, || _ = producer.send(Record::new(&VALUE)).unwrap());
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    (replicated, at_100(count, || _ = producer.send(Record::new(&VALUE)).unwrap()))
}

/// The mean and the 99th percentile of the durations of a durable topic's `send`, in nanoseconds, at 10,000 a second.
fn sends(producer: &mut Producer<Message>, seconds: usize) -> (f64, f64) {
    let (begun, mut took) = (Instant::now(), Vec::with_capacity(seconds * RATE));
    for index in 0..seconds * RATE {
        if index % 10 == 0 {
            let intended = begun + Duration::from_millis(1) * (index / 10) as u32;
            std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        }
        let sending = Instant::now();
        producer.send(Record::new(&VALUE)).unwrap();
        took.push(sending.elapsed().as_nanos() as f64);
    }
    let mean = took.iter().sum::<f64>() / took.len() as f64;
    took.sort_unstable_by(f64::total_cmp);
    (mean, took[took.len() * 99 / 100])
}

/// [`sends`] with a bridge attached, and without one while a bare loop publishes as many of the same messages.
fn producers(bare: &Bare, cluster: &Cluster, round: usize) -> [(f64, f64); 2] {
    const SECONDS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("origin")).unwrap();
    let topic = engine.topic::<Message>("t").max_message(256).capacity(1 << 14).durable().create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let name = format!("beside-{round}");
    bare.create(&name);
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| bare.publish_at_rate(&name, SECONDS));
        sends(&mut producer, SECONDS)
    });
    let (to, prefix) = (cluster.clone(), format!("attached-{round}"));
    let bridge = Bridge::outward("b").start(&engine, &topic, move |at| to.partition(&prefix, "t", at, 3)).unwrap();
    // What was published before is copied first.
    rate(SECONDS * RATE, || bridge.status().partitions.first().map_or(0, |it| it.replicated));
    let attached = sends(&mut producer, SECONDS);
    bridge.end();
    [attached, beside]
}

/// The resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

/// Stops the servers for this many seconds, and prints the memory in each tenth of them.
fn outage(servers: &servers::Servers, cluster: &Cluster, seconds: usize) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("origin")).unwrap();
    let topic = engine.topic::<Message>("t").max_message(256).capacity(1 << 14).durable().create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let to = cluster.clone();
    let bridge = Bridge::outward("b").start(&engine, &topic, move |at| to.partition("outage", "t", at, 3)).unwrap();
    sends(&mut producer, 2);
    rate(2 * RATE, || bridge.status().partitions.first().map_or(0, |it| it.replicated));
    (0..3).for_each(|number| servers.stop(number, true));
    for tenth in 0..10 {
        let (mean, _) = sends(&mut producer, seconds / 10);
        let status = bridge.status();
        let replicated = status.partitions[0].replicated;
        println!("outage, {}0 %: {} KiB resident, {replicated} replicated, a send {mean:.0} ns", tenth + 1, resident());
    }
    (0..3).for_each(|number| servers.stop(number, false));
    let all = 2 * RATE + seconds / 10 * 10 * RATE;
    let after = rate(all, || bridge.status().partitions.first().map_or(0, |it| it.replicated));
    println!("afterwards {after:.0} records a second, {} KiB resident", resident());
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        println!("the figures of a bridge: not measured in a test");
        return;
    }
    let Some(servers) = servers::Servers::start() else { return };
    servers.settle();
    let (rounds, count) = (number("SLIPRING_FIGURES_ROUNDS", 5), number("SLIPRING_FIGURES_RECORDS", 50_000));
    let (bare, cluster) = (Bare::connect(&servers.addresses()), Cluster::connect(&servers.addresses()).unwrap());
    println!(
        "{count} records of {} bytes, {IN_FLIGHT} in flight, three replicas; ratios to the bare loop",
        VALUE.len()
    );
    if let outage_of @ 10.. = number("SLIPRING_FIGURES_OUTAGE", 0) {
        return outage(&servers, &cluster, outage_of);
    }
    let mut ratios: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut note = |what: &'static str, ratio: f64| match ratios.iter_mut().find(|(name, _)| *name == what) {
        Some((_, all)) => all.push(ratio),
        None => ratios.push((what, vec![ratio])),
    };
    for round in 0..rounds {
        let published = bare.publish(&format!("bare-{round}"), count, false);
        let (outward, inward) = bridge(&cluster, &format!("single-{round}"), 1, count);
        let read = bare.read(&format!("bare-{round}"), count);
        let same = bare.publish(&format!("same-{round}"), count, true);
        let same_read = bare.read(&format!("same-{round}"), count);
        let (packed, unpacked) = bridge(&cluster, &format!("packed-{round}"), 100, count);
        println!(
            "round {round}: records/s: bare {published:.0}, the same messages {same:.0}, outward {outward:.0}, packed {packed:.0}; \
             bare reading {read:.0}, the same messages {same_read:.0}, inward {inward:.0}, inward of packs {unpacked:.0}"
        );
        note("outward / bare", outward / published);
        note("outward / bare loop of the same messages", outward / same);
        note("packed / outward", packed / outward);
        note("inward / bare reading", inward / read);
        note("inward / bare reading of the same messages", inward / same_read);
        note("inward of packs / bare reading", unpacked / read);
        let answer = bare.latencies(&format!("slow-{round}"), 300);
        let (told, durable) = replicated(&cluster, &format!("late-{round}"), 300);
        println!("round {round}: p50 at 100/s: bare {answer:?}, Replicated {told:?}, Durable alone {durable:?}");
        let [(attached, attached_p99), (beside, beside_p99)] = producers(&bare, &cluster, round);
        println!(
            "round {round}: a send at 10,000/s, mean and p99: with a bridge {attached:.0} and {attached_p99:.0} ns, beside a bare loop \
             {beside:.0} and {beside_p99:.0} ns"
        );
        note("a send with a bridge / beside a bare loop, mean", attached / beside);
        note("a send with a bridge / beside a bare loop, p99", attached_p99 / beside_p99);
        note("Replicated / bare answer, p50", told.as_secs_f64() / answer.as_secs_f64());
    }
    for (what, mut all) in ratios {
        all.sort_unstable_by(f64::total_cmp);
        println!("{what}: median {:.2}, from {:.2} to {:.2}", all[all.len() / 2], all[0], all[all.len() - 1]);
    }
}
