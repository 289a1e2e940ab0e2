//! What real servers do not take: messages that are too large, streams that are full, gone or made anew.

use crate::servers::Servers;
use crate::{ALONE, LONG};
use async_nats::jetstream::{self, stream::Config, stream::DiscardPolicy};
use slipring::producer::{PublishError, WaitError};
use slipring::{Engine, Level, Message, Record, Topic};
use slipring_bridge::jetstream::Cluster;
use slipring_bridge::{Bridge, Remote as _, Stopped};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

fn orders(dir: &Path) -> (Engine, Topic<Message>) {
    let engine = Engine::open(dir).unwrap();
    let orders = engine.topic::<Message>("orders").max_message(100_000).capacity(64).durable().create().unwrap();
    (engine, orders)
}

fn start(engine: &Engine, topic: &Topic<Message>, cluster: &Cluster, prefix: &'static str) -> Bridge {
    let cluster = cluster.clone();
    let remote = move |partition| cluster.partition(prefix, "orders", partition, 3);
    Bridge::outward("nats").start(engine, topic, remote).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Another client of the servers, and what runs it.
fn client(servers: &Servers) -> (Runtime, jetstream::Context) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let addresses: Vec<String> = servers.addresses().split(',').map(str::to_owned).collect();
    let client = runtime.block_on(async_nats::connect(addresses)).unwrap();
    let context = {
        let _entered = runtime.enter();
        jetstream::new(client)
    };
    (runtime, context)
}

/// Asks until the servers answer: they may be choosing a leader.
fn ask<T, E: std::fmt::Display>(runtime: &Runtime, mut question: impl AsyncFnMut() -> Result<T, E>) -> T {
    let until = Instant::now() + LONG;
    loop {
        match runtime.block_on(question()) {
            Ok(answer) => return answer,
            Err(why) => assert!(Instant::now() < until, "{why}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_message_of_the_largest_payload_is_copied_and_one_byte_more_is_refused_at_its_producer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start_with("max_payload: 20000\n") else { return };
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::connect(&servers.addresses()).unwrap());
    let (engine, topic) = orders(dir.path());
    let bridge = start(&engine, &topic, &cluster, "large");
    wait_for("the limit is not known", || !bridge.status().partitions.is_empty());
    let mut producer = topic.producer().acknowledge(Level::Replicated).create().unwrap();
    let mut send = |bytes: usize| producer.send(Record::new(&vec![7; bytes]).key("k\r\n\u{fc}").header("a b", "c d"));
    let PublishError::TooLargeForBridge { bridge: by, size, limit, .. } = send(20_000).unwrap_err() else {
        panic!("another error")
    };
    assert_eq!((&*by, limit), ("nats", 20_000));
    // All but the value is the same, so this is the largest one.
    let largest = 20_000 - (size - limit);
    assert_eq!(send(largest).unwrap().level(), Level::Replicated);
    let refused = send(largest + 1).unwrap_err();
    assert!(matches!(refused, PublishError::TooLargeForBridge { size: 20_001, .. }), "{refused}");
    assert_eq!(send(1).unwrap().level(), Level::Replicated);
    assert_eq!(bridge.stopped(), None);
}

#[test]
fn a_full_stream_delays_and_one_that_is_deleted_or_made_anew_stops_the_bridge() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start() else { return };
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::connect(&servers.addresses()).unwrap());
    let (runtime, context) = client(&servers);
    let config = |prefix: &str, max_messages| Config {
        name: format!("{prefix}-orders-0"),
        subjects: vec![format!("{prefix}.orders.0"), format!("{prefix}.orders.0.mark")],
        num_replicas: 3,
        discard: DiscardPolicy::New,
        max_messages,
        ..Config::default()
    };
    // A mark, and room for nine records.
    ask(&runtime, async || context.get_or_create_stream(config("full", 10)).await);
    let (engine, topic) = orders(&dir.path().join("full"));
    let bridge = start(&engine, &topic, &cluster, "full");
    let mut producer = topic.producer().create().unwrap();
    let receipts: Vec<_> = (0..20).map(|number: u8| producer.send(Record::new(&[number])).unwrap()).collect();
    let reached = |at: usize| receipts[at].wait_until(Level::Replicated, Some(Instant::now() + LONG));
    assert_eq!(reached(8), Ok(Level::Replicated));
    wait_for("the error is not told", || bridge.status().error.is_some());
    let soon = Some(Instant::now() + Duration::from_secs(2));
    assert_eq!(receipts[9].wait_until(Level::Replicated, soon), Err(WaitError::TimedOut { level: Level::Replicated }));
    ask(&runtime, async || context.update_stream(config("full", 1000)).await);
    assert_eq!(reached(19), Ok(Level::Replicated), "{bridge:?}");
    let mut stream = cluster.partition("full", "orders", 0, 3);
    let end = crate::try_for_long(|| stream.numbers()).end;
    let stored = crate::try_for_long(|| stream.read(1..end)).into_iter().flatten();
    let values: Vec<_> = stored.flat_map(|stored| stored.records).map(|record| record.value[0]).collect();
    assert_eq!(values, (0..20).collect::<Vec<_>>());

    for is_made_anew in [false, true] {
        let prefix = if is_made_anew { "anew" } else { "gone" };
        let (engine, topic) = orders(&dir.path().join(prefix));
        let bridge = start(&engine, &topic, &cluster, prefix);
        let mut producer = topic.producer().create().unwrap();
        let receipt = producer.send(Record::new("first")).unwrap();
        assert_eq!(receipt.wait_until(Level::Replicated, Some(Instant::now() + LONG)), Ok(Level::Replicated));
        runtime.block_on(async { context.delete_stream(config(prefix, 0).name).await.unwrap() });
        if is_made_anew {
            ask(&runtime, async || context.get_or_create_stream(config(prefix, -1)).await);
        }
        let late = producer.send(Record::new("second")).unwrap();
        let outcome = late.wait_until(Level::Replicated, Some(Instant::now() + LONG)).unwrap_err();
        assert!(matches!(outcome, WaitError::Bridge { has: Level::Durable, .. }), "{prefix}: {outcome}");
        wait_for("it does not stop", || bridge.stopped().is_some());
        match (is_made_anew, bridge.stopped()) {
            (false, Some(Stopped::Refused { cause, .. })) if cause.contains("was deleted") => {}
            (true, Some(Stopped::Lost { confirmed: 1, .. })) => {}
            (_, other) => panic!("{prefix}: {other:?}"),
        }
    }
}
