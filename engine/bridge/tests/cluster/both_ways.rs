//! Two machines that copy one topic both ways over three real servers, which die meanwhile.

use crate::faults::faults;
use crate::servers::Servers;
use crate::{ALONE, LONG};
use slipring::{Engine, Message, Record, Topic};
use slipring_bridge::jetstream::Cluster;
use slipring_bridge::{Bridge, Import, verify};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

const PARTITIONS: u32 = 2;

struct Machine {
    engine: Engine,
    topic: Topic<Message>,
    out: Bridge,
    import: Import,
}

impl Machine {
    fn start(dir: &Path, cluster: &Cluster, own: &'static str, other: &'static str) -> Self {
        let engine = Engine::open(dir.join(own)).unwrap();
        let topic = engine.topic::<Message>("orders").partitions(PARTITIONS as usize).durable().create().unwrap();
        let to = cluster.clone();
        let remote = move |partition| to.partition(own, "orders", partition, 3);
        let out = Bridge::outward("nats").start(&engine, &topic, remote).unwrap();
        let import = Bridge::inward(format!("from-{other}"));
        let import = import.start(&topic, |partition| cluster.partition(other, "orders", partition, 3)).unwrap();
        Self { engine, topic, out, import }
    }

    fn publish(&self, name: &str, numbers: std::ops::Range<u32>) {
        let mut producer = self.topic.producer().create().unwrap();
        for number in numbers {
            let value = format!("{name} {number}");
            producer.send(Record::new(&value).key(&value).partition(number % PARTITIONS)).unwrap();
        }
    }

    /// How many records of a partition come from the streams of the other machine.
    fn imported(&self) -> u64 {
        let status = self.import.status();
        assert_eq!((status.stopped, self.out.stopped()), (None, None));
        status.partitions.iter().map(|at| at.imported).sum()
    }

    fn end(self) {
        self.import.end();
        self.out.end();
        drop(self.topic);
        assert!(self.engine.shutdown(LONG).is_complete());
    }
}

#[test]
fn two_machines_copy_a_topic_both_ways_while_servers_die() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut servers) = Servers::start() else { return };
    servers.settle();
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::connect(&servers.addresses()).unwrap());
    let start = || [("a", "b"), ("b", "a")].map(|(own, other)| Machine::start(dir.path(), &cluster, own, other));
    let mut machines = start();
    // Three replicas find no place on two servers, so the streams are there before one dies.
    let until = Instant::now() + LONG;
    while machines.iter().any(|machine| machine.out.status().partitions.is_empty()) {
        assert!(Instant::now() < until, "{:?}", machines.each_ref().map(|machine| machine.out.status()));
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut published = 0;
    // A few faults with one death of a server, as the gate has them; the soak's with one of each.
    let rounds = if faults() > 8 { 3 } else { 1 };
    for round in 0..rounds {
        machines.iter().zip(["a", "b"]).for_each(|(machine, name)| machine.publish(name, published..published + 200));
        published += 200;
        servers.kill(round);
        let until = Instant::now() + LONG;
        while machines.iter().any(|machine| machine.imported() < u64::from(published)) {
            let told = || machines.each_ref().map(|machine| (machine.import.status(), machine.out.status()));
            assert!(Instant::now() < until, "{:?}", told());
            std::thread::sleep(Duration::from_millis(20));
        }
        servers.run(round);
        servers.settle();
        machines.into_iter().for_each(Machine::end);
        machines = start();
    }
    let half = u64::from(published / PARTITIONS);
    for (machine, (own, other)) in machines.iter().zip([("a", "b"), ("b", "a")]) {
        let is_level = || machine.out.status().partitions.iter().all(|at| at.replicated >= at.durable);
        let until = Instant::now() + LONG;
        while machine.out.status().partitions.is_empty() || !is_level() {
            assert!(Instant::now() < until, "{:?}", machine.out);
            std::thread::sleep(Duration::from_millis(20));
        }
        let journal = machine.engine.journal().unwrap();
        for (of, _) in journal.extents() {
            let stream = |prefix: &str| cluster.partition(prefix, "orders", of.partition, 3);
            let found = verify::outward(&journal, of, &mut stream(own)).unwrap();
            assert_eq!((found.equal, found.others, found.behind, found.wrong), (half, half, 0, 0), "{found:?}");
            let found = verify::inward(&journal, of, &mut stream(other)).unwrap();
            assert_eq!((found.equal, found.others, found.behind, found.wrong), (half, half, 0, 0), "{found:?}");
        }
    }
}
