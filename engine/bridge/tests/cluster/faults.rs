//! Faults drawn at random against a publishing process, its bridge and three real servers, with a checker of their own.
//!
//! ```text
//!    child process: producer --> engine --> bridge --> three servers         killed, stopped: either side, in any order
//!                      |                                   |
//!                      +--> a line for each replicated     +--> the checker: none missing, none twice, none out of order
//! ```
//!
//! A takeover is a fault, too: the parent stops or kills the child, copies the streams into a new directory, and starts the next
//! child there. The stopped one wakes afterwards, and must find itself fenced.

use crate::servers::Servers;
use crate::{ALONE, LONG};
use slipring::producer::WaitError;
use slipring::{Engine, Level, Message, Record, Topic};
use slipring_bridge::jetstream::{Cluster, Stream};
use slipring_bridge::{Bridge, StandbyError, StandbyTopic, verify};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The variables by which the parent tells the child what to do.
const CHILD: &str = "SLIPRING_FAULTS_CHILD";
const SERVERS: &str = "SLIPRING_FAULTS_SERVERS";
const NAME: &str = "SLIPRING_FAULTS_NAME";
/// The exit code of a child whose bridge was fenced.
const FENCED: i32 = 17;
const PARTITIONS: usize = 2;

fn topic(engine: &Engine) -> Topic<Message> {
    engine.topic::<Message>("orders").partitions(PARTITIONS).max_message(512).durable().create().unwrap()
}

fn stream(cluster: &Cluster, partition: u32) -> Stream {
    cluster.partition("faults", "orders", partition, 3)
}

/// Not a test of its own: the process that publishes, until it is killed or fenced.
#[test]
fn the_child() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let (addresses, name) = (std::env::var(SERVERS).unwrap(), std::env::var(NAME).unwrap());
    let engine = Engine::open(dir.join("journal")).unwrap();
    let (topic, cluster) = (topic(&engine), Cluster::connect(&addresses).unwrap());
    let bridge = Bridge::outward("nats").packed(if fastrand::bool() { 1 } else { 20 });
    let bridge = bridge.start(&engine, &topic, move |partition| stream(&cluster, partition)).unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("replicated")).unwrap();
    for number in 0_u64.. {
        let mut receipts = Vec::new();
        for in_batch in 0..20 {
            let value = format!("{name} {} {in_batch}", number);
            let record = Record::new(&value).key(&name).header("of", &value);
            receipts.push((producer.send(record.partition(in_batch % PARTITIONS as u32)).unwrap(), value));
        }
        for (receipt, value) in receipts {
            match receipt.wait(Level::Replicated) {
                // A line is whole, or the checker leaves it out.
                Ok(_) => {
                    log.write_all(format!("{} {} {value};\n", receipt.partition, receipt.offset).as_bytes()).unwrap()
                }
                Err(WaitError::Bridge { cause, .. }) if cause.contains("fenced") => std::process::exit(FENCED),
                Err(why) => panic!("{why}: {:?}", bridge.status()),
            }
        }
    }
}

/// The publishing process, and where it lives.
struct Publisher {
    child: Child,
    dir: PathBuf,
}

impl Publisher {
    fn start(dir: &Path, servers: &Servers, number: &mut u32) -> Self {
        *number += 1;
        std::fs::create_dir_all(dir).unwrap();
        let log = File::create(dir.join(format!("log-{number}"))).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "faults::the_child", "--nocapture"]).stdout(Stdio::null()).stderr(log);
        command.env(CHILD, dir).env(SERVERS, servers.addresses()).env(NAME, format!("p{number}"));
        Self { child: command.spawn().unwrap(), dir: dir.to_owned() }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn replicated(&self) -> u64 {
        std::fs::metadata(self.dir.join("replicated")).map_or(0, |file| file.len())
    }

    /// Waits until more is replicated.
    fn goes_on(&mut self, after: &str) {
        let (before, until) = (self.replicated(), Instant::now() + LONG);
        while self.replicated() <= before {
            assert!(Instant::now() < until, "nothing is replicated after {after}, in {:?}", self.dir);
            assert_eq!(self.child.try_wait().unwrap(), None, "after {after}, in {:?}", self.dir);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pause(most_millis: u64) {
    std::thread::sleep(Duration::from_millis(fastrand::u64(10..most_millis)));
}

/// Copies the streams into a new directory, fences the present writer, and starts the next one.
fn take_over(dir: &Path, cluster: &Cluster) {
    let to = cluster.clone();
    let topic = StandbyTopic::new("nats", "orders").partitions(PARTITIONS).max_message(512);
    let standby = Bridge::standby([topic]).open(dir.join("journal"), move |_, partition| stream(&to, partition));
    let mut standby = standby.unwrap();
    let until = Instant::now() + LONG;
    loop {
        match standby.take_over(Duration::from_secs(20)) {
            Ok(()) => break standby.close().unwrap(),
            Err(StandbyError::TimedOut { .. }) if Instant::now() < until => {}
            Err(why) => panic!("{why}"),
        }
    }
}

/// A fault; returns its name.
fn fault(
    kind: u32,
    servers: &mut Servers,
    publisher: &mut Publisher,
    (root, cluster, number): (&Path, &Cluster, &mut u32),
) -> &'static str {
    let (one, other) = (fastrand::usize(..3), fastrand::usize(1..3));
    match kind {
        0 => {
            servers.kill(one);
            pause(2000);
            servers.run(one);
            "a server was killed"
        }
        1 => {
            servers.stop(one, true);
            pause(4000);
            servers.stop(one, false);
            "a server was stopped"
        }
        2 => {
            [one, (one + other) % 3].into_iter().for_each(|number| servers.kill(number));
            pause(2000);
            [one, (one + other) % 3].into_iter().for_each(|number| servers.run(number));
            "two servers were killed"
        }
        3 => {
            (0..3).for_each(|number| servers.kill(number));
            pause(1000);
            (0..3).for_each(|number| servers.run(number));
            "all servers were killed"
        }
        4 => {
            publisher.kill();
            *publisher = Publisher::start(&publisher.dir.clone(), servers, number);
            "the publisher was killed"
        }
        5 => {
            publisher.signal("-STOP");
            pause(4000);
            publisher.signal("-CONT");
            "the publisher was stopped"
        }
        6 => {
            // Both sides at once.
            servers.kill(one);
            publisher.kill();
            servers.run(one);
            *publisher = Publisher::start(&publisher.dir.clone(), servers, number);
            "a server and the publisher were killed"
        }
        _ => {
            let is_killed = fastrand::bool();
            if is_killed {
                publisher.kill()
            } else {
                publisher.signal("-STOP")
            }
            let dir = root.join(format!("machine-{number}"));
            take_over(&dir, cluster);
            let next = Publisher::start(&dir, servers, number);
            let mut old = std::mem::replace(publisher, next);
            if is_killed {
                return "a takeover from a killed publisher";
            }
            publisher.goes_on("a takeover");
            old.signal("-CONT");
            let until = Instant::now() + LONG;
            loop {
                match old.child.try_wait().unwrap() {
                    Some(status) => break assert_eq!(status.code(), Some(FENCED), "in {:?}", old.dir),
                    None => assert!(Instant::now() < until, "the old publisher is not fenced, in {:?}", old.dir),
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            "a takeover from a stopped publisher, which was fenced"
        }
    }
}

/// Looks at the streams as any client would: each replicated record is there once and in order.
fn check(root: &Path, cluster: &Cluster) -> (usize, usize) {
    let mut values: Vec<Vec<(u64, String)>> = Vec::new();
    for partition in 0..PARTITIONS as u32 {
        let mut stream = stream(cluster, partition);
        let mut at = 1;
        let mut records = Vec::new();
        loop {
            let followed =
                crate::try_for_long(|| slipring_bridge::Remote::follow(&mut stream, at, Duration::from_secs(2)));
            if followed.next == at {
                break;
            }
            at = followed.next;
            let stored = followed.messages.into_iter().flat_map(|(_, stored)| stored.records);
            records.extend(stored.map(|record| (record.offset, String::from_utf8(record.value).unwrap())));
        }
        assert!(records.is_sorted_by(|a, b| a.0 < b.0), "partition {partition}: offsets go back");
        let unique: HashSet<_> = records.iter().map(|(_, value)| value).collect();
        assert_eq!(unique.len(), records.len(), "partition {partition}: records are there twice");
        let mut last = HashMap::new();
        for (_, value) in &records {
            let mut words = value.split(' ');
            let name = words.next().unwrap();
            let number: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
            let before = last.insert(name, number.clone());
            assert!(before.is_none_or(|before| before < number), "partition {partition}: {value} is out of order");
        }
        values.push(records);
    }
    let mut told = 0;
    let there: Vec<HashSet<_>> = values.iter().map(|records| records.iter().cloned().collect()).collect();
    for machine in std::fs::read_dir(root).unwrap() {
        let text = std::fs::read_to_string(machine.unwrap().path().join("replicated")).unwrap_or_default();
        for line in text.lines().filter_map(|line| line.strip_suffix(';')) {
            let mut parts = line.splitn(3, ' ');
            let mut next = || parts.next().unwrap();
            let (partition, offset): (usize, u64) = (next().parse().unwrap(), next().parse().unwrap());
            let value = next().to_owned();
            assert!(there[partition].contains(&(offset, value.clone())), "{line} was replicated and is missing");
            told += 1;
        }
    }
    (values.iter().map(Vec::len).sum(), told)
}

/// How many faults are to be drawn.
pub(crate) fn faults() -> u32 {
    std::env::var("SLIPRING_BRIDGE_FAULTS").map_or(8, |count| count.parse().unwrap())
}

#[test]
fn no_fault_loses_doubles_or_reorders_a_replicated_record() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut servers) = Servers::start() else { return };
    let faults = faults();
    let seed = std::env::var("SLIPRING_BRIDGE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    fastrand::seed(seed);
    let (root, mut number) = (tempfile::tempdir().unwrap(), 0);
    let cluster = Cluster::connect(&servers.addresses()).unwrap();
    let mut publisher = Publisher::start(&root.path().join("machine-0"), &servers, &mut number);
    publisher.goes_on("the start");
    let mut names: HashMap<&str, u32> = HashMap::new();
    for round in 0..faults {
        // Each kind once at first, then at random.
        let kind = if round < 8 { round } else { fastrand::u32(..8) };
        let name = fault(kind, &mut servers, &mut publisher, (root.path(), &cluster, &mut number));
        *names.entry(name).or_default() += 1;
        publisher.goes_on(name);
        if round % 20 == 19 {
            println!("{} faults, seed {seed}", round + 1);
        }
    }
    publisher.kill();
    let journal = publisher.dir.join("journal");
    // What was durable and not replicated is copied now, so both sides are whole.
    let engine = Engine::open(&journal).unwrap();
    let orders = topic(&engine);
    let to = cluster.clone();
    let bridge = Bridge::outward("nats").start(&engine, &orders, move |partition| stream(&to, partition)).unwrap();
    let until = Instant::now() + LONG;
    let is_level = |bridge: &Bridge| {
        let status = bridge.status();
        !status.partitions.is_empty() && status.partitions.iter().all(|it| it.replicated >= it.durable)
    };
    while !is_level(&bridge) {
        assert!(Instant::now() < until, "{bridge:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    bridge.end();
    let (records, told) = check(root.path(), &cluster);
    for (of, _) in engine.journal().unwrap().extents() {
        let found = verify::outward(&engine.journal().unwrap(), of, &mut stream(&cluster, of.partition)).unwrap();
        assert!(found.is_sound() && found.behind == 0, "{found:?}");
    }
    println!(
        "{faults} faults, seed {seed}: {records} records, {told} told to be replicated; none missing, twice or out of order"
    );
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    names.iter().for_each(|(name, count)| println!("  {count} x {name}"));
}
