//! Events in the journal that their type cannot read: nobody passes over them.

use slipring::journal::simulated::SimulatedDisk;
use slipring::topic::Unreadable;
use slipring::{Engine, Persist, Topic};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const EVENTS: u64 = 300;
const FIRST: u64 = 7;

/// While `OLD` is set the type is that of a program which does not know each fiftieth event.
static OLD: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Default)]
struct Event(u64);

impl Persist for Event {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0 = u64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable("it has another size"))?);
        if OLD.load(SeqCst) && self.0 % 50 == FIRST { Err(Unreadable("an unknown kind")) } else { Ok(()) }
    }

    fn layout() -> String {
        "event 1".to_owned()
    }
}

/// Reads as long as there is something, and once more behind the first error. The offsets, and the errors.
type Read = fn(&Topic<Event>) -> (Vec<u64>, Vec<String>);

fn by_replay(topic: &Topic<Event>) -> (Vec<u64>, Vec<String>) {
    let mut replay = topic.replay("r").open().unwrap();
    let (mut given, mut errors) = (Vec::new(), Vec::new());
    while (given.len() as u64) < EVENTS && errors.len() < 3 {
        let read = replay.read(LONG, |_, at| given.push(at.offset));
        errors.extend(read.err().map(|cause| cause.to_string()));
    }
    (given, errors)
}

fn by_member(topic: &Topic<Event>) -> (Vec<u64>, Vec<String>) {
    let mut member = topic.group("g").join().unwrap();
    let (mut given, mut errors) = (Vec::new(), Vec::new());
    while given.last() != Some(&(EVENTS - 1)) && errors.len() < 3 {
        match member.poll(LONG) {
            Ok(batch) => {
                let batch = batch.unwrap();
                given.extend(batch.iter().map(|(_, at)| at.offset));
                batch.commit_durable().unwrap();
            }
            Err(cause) => errors.push(cause.to_string()),
        }
    }
    (given, errors)
}

fn by_managed_member(topic: &Topic<Event>) -> (Vec<u64>, Vec<String>) {
    let given = Arc::new(Mutex::new(Vec::new()));
    let (all, giving) = (Arc::new(AtomicBool::new(false)), Arc::clone(&given));
    let seen = Arc::clone(&all);
    let run = topic.group("m").run(move |_, at| {
        giving.lock().unwrap().push(at.offset);
        seen.fetch_or(at.offset == EVENTS - 1, SeqCst);
        Ok::<_, Infallible>(())
    });
    let run = run.unwrap();
    let until = std::time::Instant::now() + LONG;
    while run.ended().is_none() && !all.load(SeqCst) && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    run.stop();
    let end = run.wait();
    let errors = if all.load(SeqCst) { Vec::new() } else { vec![format!("{end:?}")] };
    let given = given.lock().unwrap().clone();
    (given, errors)
}

fn by_transform(topic: &Topic<Event>) -> (Vec<u64>, Vec<String>) {
    let mut transform = topic.transform("t").open().unwrap();
    let (mut given, mut errors) = (Vec::new(), Vec::new());
    while given.last() != Some(&(EVENTS - 1)) && errors.len() < 3 {
        let step = transform.step(LONG, |_, at, _| {
            given.push(at.offset);
            Ok::<_, Infallible>(())
        });
        errors.extend(step.err().map(|cause| cause.to_string()));
    }
    (given, errors)
}

fn by_queue(topic: &Topic<Event>) -> (Vec<u64>, Vec<String>) {
    let mut worker = topic.queue("q").join().unwrap();
    let (mut given, mut errors) = (Vec::new(), Vec::new());
    while given.last() != Some(&(EVENTS - 1)) && errors.len() < 3 {
        match worker.receive(LONG) {
            Ok(lease) => {
                let lease = lease.unwrap();
                given.push(lease.offset());
                lease.ack().unwrap();
            }
            Err(cause) => errors.push(cause.to_string()),
        }
    }
    (given, errors)
}

/// A group told the first one before what stands in front of it, passed over the others in silence, and committed behind
/// them; a transform did what stands in front of it again and again.
#[test]
fn nobody_passes_over_an_event_that_its_type_cannot_read() {
    let disk = SimulatedDisk::new();
    let life = |is_old| {
        OLD.store(is_old, SeqCst);
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let topic = engine.topic::<Event>("t").capacity(64).durable().create().unwrap();
        (engine, topic)
    };
    let (engine, topic) = life(false);
    let mut producer = topic.producer().create().unwrap();
    (0..EVENTS).for_each(|number| _ = producer.publish(|event| event.0 = number).unwrap());
    engine.shutdown(LONG);
    let readers: [(&str, Read); 5] = [
        ("replay", by_replay),
        ("member", by_member),
        ("managed member", by_managed_member),
        ("transform", by_transform),
        ("queue", by_queue),
    ];
    let (engine, topic) = life(true);
    for (name, read) in readers {
        let (given, errors) = read(&topic);
        assert_eq!(given, (0..FIRST).collect::<Vec<_>>(), "{name}: {errors:?}");
        assert!(errors.iter().all(|cause| cause.contains("an unknown kind")), "{name}: {errors:?}");
        assert!(!errors.is_empty(), "{name}");
    }
    engine.shutdown(LONG);
    // A program that knows them goes on there.
    let (engine, topic) = life(false);
    for (name, read) in readers {
        let (given, errors) = read(&topic);
        let first = if name == "replay" { 0 } else { FIRST };
        assert_eq!(given, (first..EVENTS).collect::<Vec<_>>(), "{name}: {errors:?}");
    }
    engine.shutdown(LONG);
}
