//! What a bridge costs beside bare loops of the client, on the same three servers, in rounds that take turns.
//!
//!     SLIPRING_BRIDGE_CLUSTER=1 SLIPRING_NATS_SERVER=... cargo bench -p slipring-bridge --bench cluster
//!
//! ```text
//!   outward:  journal --> bridge --> stream      beside   bare loop --> stream       as many in flight, 128 bytes
//!   inward:   stream --> import --> topic        beside   stream --> bare loop       an ordered consumer
//!   latency:  publish and wait for Replicated    beside   publish and its answer     at 100 a second
//! ```
//!
//! The ratio of each round is what counts: the servers, the client and the engine share the machine. The bridge's messages have
//! headers of about 350 bytes beside the value, the bare loop's have none.

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{Context, stream};
use futures_core::Stream as _;
use slipring::{Engine, Level, Message, Record};
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

    /// Records a second.
    fn publish(&self, name: &str, count: usize) -> f64 {
        self.create(name);
        let begun = Instant::now();
        self.runtime.block_on(async {
            let mut flight = VecDeque::new();
            for _ in 0..count {
                if flight.len() == IN_FLIGHT {
                    let oldest: async_nats::jetstream::context::PublishAckFuture = flight.pop_front().unwrap();
                    oldest.into_future().await.unwrap();
                }
                flight.push_back(self.context.publish(name.to_owned(), VALUE[..].into()).await.unwrap());
            }
            for answer in flight {
                answer.into_future().await.unwrap();
            }
        });
        count as f64 / begun.elapsed().as_secs_f64()
    }

    fn read(&self, name: &str, count: usize) -> f64 {
        let begun = Instant::now();
        self.runtime.block_on(async {
            let stream = self.context.get_stream(name).await.unwrap();
            let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
            let mut messages = consumer.messages().await.unwrap();
            for _ in 0..count {
                std::future::poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await.unwrap().unwrap();
            }
        });
        count as f64 / begun.elapsed().as_secs_f64()
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

fn wait(what: &str, mut is_done: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !is_done() {
        assert!(Instant::now() < until, "{what} takes too long");
        std::thread::sleep(Duration::from_micros(200));
    }
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
    let begun = Instant::now();
    let bridge = Bridge::outward("b").packed(packed).start(&engine, &topic, stream(name)).unwrap();
    last.unwrap().wait_until(Level::Replicated, Some(Instant::now() + LONG)).unwrap();
    let outward = count as f64 / begun.elapsed().as_secs_f64();
    bridge.end();
    let copy = Engine::open(dir.path().join("copy")).unwrap();
    let topic = copy.topic::<Message>("t").max_message(256).capacity(1 << 14).durable().create().unwrap();
    let begun = Instant::now();
    let import = Bridge::inward("in").start(&topic, stream(name)).unwrap();
    wait("the import", || import.status().partitions.first().is_some_and(|it| it.imported >= count as u64));
    (outward, count as f64 / begun.elapsed().as_secs_f64())
}

fn replicated(cluster: &Cluster, name: &str, count: usize) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("origin")).unwrap();
    let topic = engine.topic::<Message>("t").max_message(256).durable().create().unwrap();
    let (to, prefix) = (cluster.clone(), name.to_owned());
    let remote = move |partition| to.partition(&prefix, "t", partition, 3);
    let _bridge = Bridge::outward("b").start(&engine, &topic, remote).unwrap();
    let mut producer = topic.producer().acknowledge(Level::Replicated).create().unwrap();
    producer.send(Record::new(&VALUE)).unwrap();
    at_100(count, || _ = producer.send(Record::new(&VALUE)).unwrap())
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
    let mut ratios: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut note = |what: &'static str, ratio: f64| match ratios.iter_mut().find(|(name, _)| *name == what) {
        Some((_, all)) => all.push(ratio),
        None => ratios.push((what, vec![ratio])),
    };
    for round in 0..rounds {
        let published = bare.publish(&format!("bare-{round}"), count);
        let (outward, inward) = bridge(&cluster, &format!("single-{round}"), 1, count);
        let read = bare.read(&format!("bare-{round}"), count);
        let (packed, unpacked) = bridge(&cluster, &format!("packed-{round}"), 100, count);
        println!(
            "round {round}: records/s: bare {published:.0}, outward {outward:.0}, packed {packed:.0}; bare reading {read:.0}, inward {inward:.0}, inward of packs {unpacked:.0}"
        );
        note("outward / bare", outward / published);
        note("packed / outward", packed / outward);
        note("inward / bare reading", inward / read);
        note("inward of packs / bare reading", unpacked / read);
        let (answer, told) =
            (bare.latencies(&format!("slow-{round}"), 300), replicated(&cluster, &format!("late-{round}"), 300));
        println!("round {round}: p50 at 100/s: bare {answer:?}, Replicated {told:?}");
        note("Replicated / bare answer, p50", told.as_secs_f64() / answer.as_secs_f64());
    }
    for (what, mut all) in ratios {
        all.sort_unstable_by(f64::total_cmp);
        println!("{what}: median {:.2}, from {:.2} to {:.2}", all[all.len() / 2], all[0], all[all.len() - 1]);
    }
}
