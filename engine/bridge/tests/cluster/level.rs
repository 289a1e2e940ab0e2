//! When an import knows that it has read all.

use crate::servers::Servers;
use crate::{ALONE, LONG};
use slipring::{Engine, Level, Message, Record};
use slipring_bridge::Bridge;
use slipring_bridge::jetstream::Cluster;
use std::sync::PoisonError;
use std::time::Instant;

/// Between two requests of the client nothing comes for a moment. The import took that for the stream's end, so `run --drain`
/// ended with a part of the records, and said that all was copied.
#[test]
fn an_import_has_no_lag_of_0_before_it_has_read_all() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(servers) = Servers::start() else { return };
    let (dir, count) = (tempfile::tempdir().unwrap(), 10_000);
    let cluster = Cluster::connect(&servers.addresses()).unwrap();
    let streams = || {
        let cluster = cluster.clone();
        move |partition| cluster.partition("level", "orders", partition, 3)
    };
    let open = |name: &str| {
        let engine = Engine::open(dir.path().join(name)).unwrap();
        let topic = engine.topic::<Message>("orders").max_message(256).capacity(1 << 10).durable().create().unwrap();
        (engine, topic)
    };
    let (engine, topic) = open("origin");
    let bridge = Bridge::outward("nats").start(&engine, &topic, streams()).unwrap();
    let mut producer = topic.producer().create().unwrap();
    let receipts = (0..count).map(|_| producer.send(Record::new(b"value")).unwrap());
    receipts.last().unwrap().wait_until(Level::Replicated, Some(Instant::now() + LONG)).unwrap();
    bridge.end();
    let (_copy, topic) = open("copy");
    let (import, until) = (Bridge::inward("nats").start(&topic, streams()).unwrap(), Instant::now() + LONG);
    loop {
        assert!(Instant::now() < until, "the import stands still: {import:?}");
        let status = import.status();
        let Some(at) = status.partitions.first().filter(|_| status.error.is_none()) else {
            std::thread::yield_now();
            continue;
        };
        if at.imported == count {
            break;
        }
        assert_ne!(at.lag, 0, "all is read, and {} of {count} records are there", at.imported);
    }
}
