//! Messages that cannot become dead letters: they are larger than the topic for dead letters takes, or cannot be read back.

use crate::listener::listen;
use slipring::journal::{simulated::SimulatedDisk, storage::Storage};
use slipring::queue::{Lease, Order, Worker};
use slipring::{Engine, Level, Message, Persist, Topic, topic::Unreadable};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{self, Attributes, Id};
use tracing::{Event, Metadata};

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);
/// Longer than a dead letter of an event of variable size.
const LARGE: usize = 5000;

/// An event of variable size.
#[derive(Clone, Default)]
struct Text(String);

impl Persist for Text {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0 = String::from_utf8(bytes.to_vec()).map_err(|_| Unreadable("it is no text"))?;
        Ok(())
    }

    fn layout() -> String {
        "text".to_owned()
    }
}

/// Publishes a text of so many bytes; waits until it is written if a journal has the topic.
fn publish(jobs: &Topic<Text>, len: usize, durable: bool) {
    let receipt = jobs.producer().create().unwrap().publish(|event| event.0 = "x".repeat(len)).unwrap();
    if durable {
        receipt.wait(Level::Written).unwrap();
    }
}

fn take(worker: &mut Worker<Text>) -> Lease<Text> {
    worker.receive(LONG).unwrap().expect("a message")
}

/// Waits until the queue has these dead letters, by the offsets of their messages, and so many messages that wait for a
/// place among them.
fn until(worker: &Worker<Text>, offsets: &[u64], dying: u64) {
    let queue = worker.queue();
    let deadline = Instant::now() + LONG;
    loop {
        let mut letters: Vec<u64> = queue.dead_letters().map(|letter| letter.unwrap().offset).collect();
        letters.sort_unstable();
        let metrics = queue.metrics();
        if letters == offsets && metrics.dying == dying {
            return;
        }
        assert!(Instant::now() < deadline, "{letters:?}, {metrics:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// It once held up the dead letters of all later messages for ever.
#[test]
fn a_message_that_is_too_large_for_a_dead_letter_holds_up_no_other_and_is_kept() {
    let kinds = [(Order::Relaxed, false), (Order::Strict, false), (Order::Relaxed, true), (Order::Strict, true)];
    for (order, durable) in kinds {
        let disk = SimulatedDisk::new();
        let start = || {
            let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
            let jobs = engine.topic::<Text>("jobs").capacity(16);
            let jobs = if durable { jobs.durable() } else { jobs };
            let jobs = jobs.create_with(Text::default).unwrap();
            (engine, jobs)
        };
        let level = if durable { Level::Durable } else { Level::Published };
        let join = |jobs: &Topic<Text>| jobs.queue("q").max_attempts(1).order(order).acknowledge(level).join().unwrap();
        let (engine, jobs) = start();
        let mut worker = join(&jobs);
        [LARGE, LARGE, 1, 2, 3, 4, 5].iter().for_each(|len| publish(&jobs, *len, durable));
        (0..4).for_each(|_| take(&mut worker).nack(NOW, "no").unwrap());
        until(&worker, &[2, 3], 2);
        assert_eq!(worker.queue().metrics().dead, 2);
        take(&mut worker).ack().unwrap();
        let report = engine.shutdown(LONG);
        let queues: Vec<_> = report.topics.iter().flat_map(|topic| &topic.queues).map(|queue| queue.dying).collect();
        assert_eq!(queues, [2], "{report}");
        if !durable {
            continue;
        }
        drop((worker, jobs, engine));
        // The queue knows them after a restart, and they still hold up no other.
        let (engine, jobs) = start();
        let mut worker = join(&jobs);
        until(&worker, &[2, 3], 2);
        take(&mut worker).ack().unwrap();
        engine.shutdown(LONG);
        drop((worker, jobs, engine));
        // The topic for dead letters is given room for them.
        let (engine, jobs) = start();
        let dead = engine.topic::<Message>("jobs.q.dead").capacity(16).max_message(LARGE * 2).durable();
        let _dead = dead.create().unwrap();
        let mut worker = join(&jobs);
        until(&worker, &[0, 1, 2, 3], 0);
        let last = take(&mut worker);
        assert_eq!((last.offset(), last.attempt()), (6, 1));
        last.ack().unwrap();
        assert!(worker.receive(NOW).unwrap().is_none(), "{:?}", worker.queue().metrics());
    }
}

#[test]
fn a_dead_letter_that_the_bridge_of_its_topic_cannot_copy_holds_up_no_other() {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let jobs = engine.topic::<Text>("jobs").capacity(16).durable().create_with(Text::default).unwrap();
    let dead = engine.topic::<Message>("jobs.q.dead").capacity(16).max_message(LARGE * 2).durable().create().unwrap();
    let bridge = dead.replicate("nats").attach().unwrap();
    bridge.limit_messages(LARGE, 100, |record| record.size());
    let mut worker = jobs.queue("q").max_attempts(1).join().unwrap();
    [LARGE, 1].iter().for_each(|len| publish(&jobs, *len, true));
    (0..2).for_each(|_| take(&mut worker).nack(NOW, "no").unwrap());
    until(&worker, &[1], 1);
}

/// It once held up the dead letters of all later messages for ever.
#[test]
fn a_message_that_damage_has_taken_holds_up_no_other_dead_letter_and_is_named() {
    let disk = SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let jobs = engine.topic::<Text>("jobs").capacity(16).durable().create_with(Text::default).unwrap();
    // No body has room in memory, so each is read back from the journal.
    let queue = jobs.queue("q").max_attempts(1).max_bytes(100).acknowledge(Level::Written);
    // On a machine with much to do, the damage may be more than half a minute in coming.
    let mut worker = queue.visibility(Duration::from_secs(86_400)).join().unwrap();
    for text in ["first", "second", "taken"] {
        let receipt = jobs.producer().create().unwrap().publish(|event| event.0 = text.to_owned()).unwrap();
        receipt.wait(Level::Written).unwrap();
    }
    let mut leases: Vec<_> = (0..3).map(|_| take(&mut worker)).collect();
    for name in disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")) {
        disk.edit(&name, |bytes| {
            let places = bytes.windows(5).enumerate().filter(|(_, text)| *text == b"taken");
            places.map(|(at, _)| at).collect::<Vec<_>>().into_iter().for_each(|at| bytes[at] ^= 1);
        });
    }
    let told = Arc::default();
    let _told = listen(Errors(Arc::clone(&told)), Errors(Arc::default()));
    while let Some(lease) = leases.pop() {
        lease.nack(NOW, "no").unwrap();
    }
    until(&worker, &[0, 1], 1);
    let told = told.lock().unwrap().join("\n");
    let named = ["topic=jobs queue=q partition=0 offset=2 cause=", "damaged"];
    assert!(named.iter().all(|text| told.contains(text)), "{told}");
}

/// Keeps what `tracing` is told as an error.
struct Errors(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target() == "slipring" && *of.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Fields(String);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0 += &format!(" {}={value:?}", field.name());
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
