//! Two machines and more that copy one topic both ways: each record is on each machine once, and none goes round.

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{Engine, Level, Message, Topic};
use slipring_bridge::memory::{Faults, MemoryCluster};
use slipring_bridge::{Bridge, Import, Record, Stopped, Window, verify};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 2;

/// The streams of each machine, one for each partition.
type Streams = Vec<[MemoryCluster; PARTITIONS as usize]>;

fn streams(machines: u64, faults: Faults) -> Streams {
    (0..machines).map(|of| [MemoryCluster::new(2 * of, faults), MemoryCluster::new(2 * of + 1, faults)]).collect()
}

struct Machine {
    name: String,
    engine: Engine,
    topic: Topic<Message>,
    out: Bridge,
    imports: Vec<Import>,
}

impl Machine {
    /// Machine number `number`, which copies its topic into its own streams and imports those of all others.
    fn start(disk: &SimulatedDisk, number: usize, streams: &Streams, packed: usize) -> Self {
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap();
        let topic = engine.topic::<Message>("orders").partitions(PARTITIONS as usize).capacity(64).max_message(512);
        let topic = topic.durable().create().unwrap();
        let mut window = Window::default();
        (window.pause, window.packed) = (Duration::from_millis(5), packed);
        let to = streams[number].clone();
        let out = Bridge::outward("out").window(window);
        let out = out.start(&engine, &topic, move |partition| to[partition as usize].stream()).unwrap();
        let others = streams.iter().enumerate().filter(|(other, _)| *other != number);
        let imports = others.map(|(other, from)| {
            let import = Bridge::inward(format!("from-{other}"));
            import.start(&topic, |partition| from[partition as usize].stream()).unwrap()
        });
        let imports = imports.collect();
        Self { name: format!("machine {number}"), engine, topic, out, imports }
    }

    fn publish(&self, numbers: std::ops::Range<u32>) {
        let mut producer = self.topic.producer().create().unwrap();
        for number in numbers {
            let value = format!("{} {number}", self.name);
            let record = slipring::Record::new(&value).key(&value).header("of", &value);
            producer.send(record.partition(number % PARTITIONS)).unwrap();
        }
    }

    fn check(&self) {
        assert_eq!(self.out.stopped(), None, "{}", self.name);
        self.imports.iter().for_each(|import| assert_eq!(import.status().stopped, None, "{}", self.name));
    }

    /// All records of a partition, as the journal has them.
    fn records(&self, partition: u32) -> Vec<Record> {
        let end = self.topic.safe(partition).unwrap().durable;
        let mut replay = self.topic.replay("check").open().unwrap();
        let mut records = Vec::new();
        while replay.position(partition).unwrap() < end {
            let each = |message: &Message, at: slipring::subscriber::At| {
                if at.partition == partition {
                    records.push(Record::of(message, partition, at.offset));
                }
            };
            replay.read(LONG, each).unwrap();
        }
        records
    }

    /// The numbers of each machine's records in a partition, in the order in which they are there.
    fn numbers(&self, partition: u32) -> BTreeMap<String, Vec<u32>> {
        let mut numbers = BTreeMap::<String, Vec<u32>>::new();
        for record in self.records(partition) {
            let value = String::from_utf8(record.value).unwrap();
            assert_eq!((record.key.as_deref(), &*record.headers[0].1), (Some(value.as_bytes()), value.as_bytes()));
            let is_own = value.starts_with(&self.name);
            assert_eq!(record.headers.len(), if is_own { 1 } else { 2 }, "{value}");
            let (machine, number) = value.rsplit_once(' ').unwrap();
            numbers.entry(machine.to_owned()).or_default().push(number.parse().unwrap());
        }
        numbers
    }

    /// Waits until everything here is copied or passed over.
    fn wait_until_level(&self) {
        let until = Instant::now() + LONG;
        loop {
            self.check();
            // Not by the bridge's status, which may not know yet of what has become durable just now.
            let safe = |partition| self.topic.safe(partition).unwrap();
            if (0..PARTITIONS).map(safe).all(|safe| safe.replicated == safe.durable) {
                return;
            }
            assert!(Instant::now() < until, "{}: {:?}", self.name, self.out.status());
            std::thread::yield_now();
        }
    }

    fn end(self) {
        self.imports.into_iter().for_each(|import| drop(import.end()));
        self.out.end();
        drop(self.topic);
        assert!(self.engine.shutdown(LONG).is_complete(), "{}", self.name);
    }
}

/// Waits until each machine has the records of all, each once and in order.
fn wait_for_all(machines: &[Machine], each: u32) {
    let half = each.div_ceil(PARTITIONS);
    let until = Instant::now() + LONG;
    let count = |machine: &Machine| (0..PARTITIONS).map(|at| machine.records(at).len()).sum::<usize>();
    while machines.iter().any(|machine| count(machine) < machines.len() * each as usize) {
        machines.iter().for_each(Machine::check);
        assert!(Instant::now() < until, "{:?}", machines.iter().map(count).collect::<Vec<_>>());
        std::thread::yield_now();
    }
    machines.iter().for_each(Machine::wait_until_level);
    for (machine, partition) in machines.iter().flat_map(|machine| (0..PARTITIONS).map(move |at| (machine, at))) {
        let expected: Vec<u32> = (0..half).map(|at| at * PARTITIONS + partition).collect();
        let numbers = machine.numbers(partition);
        assert_eq!(numbers.len(), machines.len(), "{}", machine.name);
        assert!(numbers.values().all(|there| *there == expected), "{}: {numbers:?}", machine.name);
    }
}

#[test]
fn two_machines_copy_a_topic_both_ways_through_faults_and_restarts_and_no_record_goes_round() {
    let faults = Faults { message_lost: 20, answer_lost: 20, late: 200, unanswered: 100, stale: 100, unapplied: 100 };
    let (disks, streams) = ([SimulatedDisk::new(), SimulatedDisk::new()], streams(2, faults));
    for round in 0..3 {
        // Alternately in single messages and in packed ones.
        let packed = if round == 1 { 20 } else { 1 };
        let machines = [0, 1].map(|number| Machine::start(&disks[number], number, &streams, packed));
        machines.iter().for_each(|machine| machine.publish(round * 100..round * 100 + 100));
        wait_for_all(&machines, (round + 1) * 100);
        for (machine, own) in machines.iter().zip(&streams) {
            let copied = own.iter().map(|stream| stream.records().len()).sum::<usize>();
            assert_eq!(copied, (round as usize + 1) * 100, "{}: only what it has published", machine.name);
            assert!(machine.out.status().passed >= 100, "{:?}", machine.out);
        }
        let [first, second] = machines;
        first.end();
        // The last round's second machine is dropped with its bridges as they are.
        if round < 2 {
            second.end()
        }
    }
}

#[test]
fn three_machines_that_import_one_another_have_each_record_once() {
    let streams = streams(3, Faults::default());
    let machines: Vec<_> = (0..3).map(|number| Machine::start(&SimulatedDisk::new(), number, &streams, 1)).collect();
    machines.iter().for_each(|machine| machine.publish(0..40));
    wait_for_all(&machines, 40);
    for (machine, own) in machines.iter().zip(&streams) {
        let journal = machine.engine.journal().unwrap();
        for (of, _) in journal.extents() {
            let at = of.partition as usize;
            let found = verify::outward(&journal, of, &mut own[at].stream()).unwrap();
            assert_eq!((found.equal, found.others, found.behind, found.wrong), (20, 40, 0, 0), "{found:?}");
            for other in streams.iter().filter(|other| other[at].records() != own[at].records()) {
                let found = verify::inward(&journal, of, &mut other[at].stream()).unwrap();
                assert_eq!((found.equal, found.others, found.behind, found.wrong), (20, 40, 0, 0), "{found:?}");
            }
        }
    }
}

#[test]
fn what_is_passed_over_holds_up_neither_retention_nor_a_restart_behind_it() {
    let (disk, streams) = (SimulatedDisk::new(), streams(2, Faults::default()));
    let other = Machine::start(&SimulatedDisk::new(), 1, &streams, 1);
    let mut expected = 0;
    for round in 0..3 {
        // What comes last here was imported, and the stream ends in front of it.
        let machine = Machine::start(&disk, 0, &streams, 1);
        machine.publish(round * 10..round * 10 + 10);
        machine.wait_until_level();
        other.publish(round * 100..round * 100 + 100);
        expected += 110;
        let until = Instant::now() + LONG;
        while (0..PARTITIONS).map(|at| machine.records(at).len()).sum::<usize>() < expected {
            machine.check();
            assert!(Instant::now() < until, "round {round}");
            std::thread::yield_now();
        }
        machine.wait_until_level();
        for partition in 0..PARTITIONS {
            let safe = machine.topic.safe(partition).unwrap();
            assert_eq!(safe.replicated, safe.durable, "a wait for an imported record ends too");
            assert_eq!(streams[0][partition as usize].records().len(), (round as usize + 1) * 5);
        }
        machine.end();
    }
}

#[test]
fn a_record_that_a_program_makes_of_an_imported_one_is_copied_headers_and_all() {
    let streams = streams(2, Faults::default());
    let [machine, other] = [0, 1].map(|number| Machine::start(&SimulatedDisk::new(), number, &streams, 1));
    other.publish(0..2);
    let until = Instant::now() + LONG;
    while machine.records(0).is_empty() {
        assert!(Instant::now() < until, "{:?}", machine.imports);
        std::thread::yield_now();
    }
    let imported = machine.records(0).remove(0);
    let derived = machine.engine.topic::<Message>("derived").max_message(512).durable().create().unwrap();
    let stream = MemoryCluster::new(1, Faults::default());
    let to = stream.clone();
    let bridge = Bridge::outward("out").start(&machine.engine, &derived, move |_| to.stream()).unwrap();
    let mut producer = derived.producer().acknowledge(Level::Replicated).create().unwrap();
    producer.send(imported.to_send()).unwrap();
    assert_eq!((stream.records()[0].headers.len(), &stream.records()[0].headers), (2, &imported.headers));
    assert_eq!(bridge.status().passed, 0);
}

#[test]
fn an_import_of_the_streams_that_its_own_topic_is_copied_to_stops() {
    let (disk, streams) = (SimulatedDisk::new(), streams(2, Faults::default()));
    let machine = Machine::start(&disk, 0, &streams, 1);
    machine.publish(0..10);
    machine.wait_until_level();
    let own = streams[0].clone();
    let import = Bridge::inward("own").start(&machine.topic, |at| own[at as usize].stream()).unwrap();
    let until = Instant::now() + LONG;
    while import.status().stopped.is_none() {
        assert!(Instant::now() < until, "{import:?}");
        std::thread::yield_now();
    }
    assert!(matches!(import.status().stopped, Some(Stopped::Own { .. })), "{import:?}");
    // Another topic of the same machine may have them.
    let copy = machine.engine.topic::<Message>("copy").partitions(2).max_message(512).durable().create().unwrap();
    let import = Bridge::inward("own").start(&copy, |at| own[at as usize].stream()).unwrap();
    while copy.safe(0).unwrap().durable < 5 {
        assert_eq!(import.status().stopped, None);
        assert!(Instant::now() < until, "{import:?}");
        std::thread::yield_now();
    }
    machine.check();
}
