//! Code of the user's that is no handler, on the engine's threads and inside of its calls: waiting strategies, clocks,
//! listeners, partitioners, factories, `Persist`, wakers. It may panic, be slow, and call the engine.

use crate::soon::{LONG, soon};
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Idle, Level, Persist, Topic, Wait, WaitStrategy,
    clock::{Clock, ManualClock, Timestamp},
    group::Rebalance,
    producer::{Multi, Partitioner, PublishError},
    subscriber::{At, OnError},
    topic::{Closed, TopicError, Unreadable},
    transform::{Outputs, TransformEnd},
};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Waits until the topic has ended; its cause.
fn end_of<E: Send + Sync + 'static>(topic: &Topic<E>) -> Option<Closed> {
    let until = Instant::now() + LONG;
    while topic.closed().is_none() && Instant::now() < until {
        std::thread::yield_now();
    }
    topic.closed()
}

fn failed(consumer: &str, cause: &str) -> Option<Closed> {
    Some(Closed::Failed { consumer: consumer.to_owned(), cause: cause.to_owned() })
}

struct Harmful(Arc<AtomicBool>);

impl WaitStrategy for Harmful {
    fn idle(&self, _: u32) -> Idle {
        assert!(!self.0.load(SeqCst), "harm");
        std::thread::yield_now();
        Idle::Look
    }
}

#[derive(Clone)]
struct HarmfulClock(Arc<AtomicBool>, ManualClock);

impl Clock for HarmfulClock {
    fn now(&self) -> Duration {
        self.1.now()
    }

    fn wall(&self) -> Timestamp {
        assert!(!self.0.load(SeqCst), "harm");
        self.1.wall()
    }
}

/// The gate once left in silence, the topic stayed open for publishers, and the report said that all was read.
#[test]
fn a_waiting_strategy_that_panics_fails_the_topic_and_is_named() {
    for each in [false, true] {
        let harm = Arc::new(AtomicBool::new(false));
        let engine = Engine::builder().build().unwrap();
        let ticks = engine.topic::<u64>("ticks").create().unwrap();
        let tape = ticks.subscribe("tape").wait(Wait::custom(Harmful(Arc::clone(&harm))));
        if each {
            tape.run_each(|_| |_: &u64, _| Ok::<_, Infallible>(())).unwrap();
        } else {
            tape.run(|_, _| Ok::<_, Infallible>(())).unwrap();
        }
        let mut producer = ticks.producer().create().unwrap();
        producer.publish(|tick| *tick = 1).unwrap();
        harm.store(true, SeqCst);
        assert_eq!(end_of(&ticks), failed("tape", "the waiting strategy panicked: harm"));
        assert!(matches!(producer.publish(|_| ()), Err(PublishError::Closed { .. })));
        let report = engine.shutdown(LONG);
        assert!(!report.is_complete(), "{report}");
        assert_eq!(report.failures().next(), Some(("ticks", "tape", "the waiting strategy panicked: harm")));
    }
}

#[test]
fn a_clock_that_panics_fails_the_topic_and_is_named() {
    let harm = Arc::new(AtomicBool::new(false));
    let engine = Engine::builder().clock(HarmfulClock(Arc::clone(&harm), ManualClock::new())).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").timestamps().time_to_live(LONG).create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let (go, waits) = mpsc::channel::<()>();
    let tape = ticks.subscribe("tape");
    // The first event is being handled while the second one comes, and the clock is asked for it when that is done.
    tape.run(move |_, _| waits.recv()).unwrap();
    producer.publish_batch(2, |_, _| ()).unwrap();
    producer.publish(|_| ()).unwrap();
    harm.store(true, SeqCst);
    for _ in 0..3 {
        let _ = go.send(());
    }
    assert_eq!(end_of(&ticks), failed("tape", "the clock panicked: harm"));
    harm.store(false, SeqCst);
    assert!(!engine.shutdown(LONG).is_complete());
}

#[test]
fn a_clock_that_panics_on_the_journals_thread_ends_the_journal_and_is_named() {
    let (disk, harm) = (SimulatedDisk::new(), Arc::new(AtomicBool::new(false)));
    let clock = HarmfulClock(Arc::clone(&harm), ManualClock::new());
    let engine = Engine::builder().clock(clock).journal_in(disk.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let other = engine.topic::<u64>("other").durable().create().unwrap();
    let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    producer.publish(|tick| *tick = 1).unwrap();
    harm.store(true, SeqCst);
    let harmed = |said: String| assert!(said.contains("the clock panicked: harm"), "{said}");
    let refused = producer.publish(|tick| *tick = 2).unwrap_err();
    assert!(matches!(refused, PublishError::Unknown { offset: 1, .. }), "{refused}");
    harmed(refused.to_string());
    for topic in [&ticks, &other] {
        let Some(Closed::Failed { consumer, cause }) = end_of(topic) else { panic!("{:?}", topic.closed()) };
        assert_eq!(consumer, "journal");
        harmed(cause);
        harmed(topic.producer().create().map(drop).unwrap_err().to_string());
    }
    harmed(producer.publish(|_| ()).unwrap_err().to_string());
    let report = engine.shutdown(LONG);
    assert!(!report.is_complete(), "{report}");
    harmed(report.journal.unwrap().unwrap_err());
    drop((producer, ticks, other, engine));

    let engine = Engine::builder().journal_in(disk).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let (mut seen, mut replay) = (Vec::new(), ticks.replay("tape").open().unwrap());
    ticks.close();
    while replay.read(LONG, |tick, _| seen.push(*tick)).unwrap().is_some() {}
    assert_eq!(seen, [1], "what was acknowledged");
}

#[test]
fn a_listener_or_strategy_of_a_managed_member_that_panics_is_named_in_its_end_and_in_the_report() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let listener = |_: &Rebalance| panic!("harm");
    let run = ticks.group("listens").listener(listener).run(|_, _| Ok::<_, Infallible>(())).unwrap();
    let end = run.wait_for(LONG).expect("it ends").to_string();
    assert!(end.contains("the listener panicked: harm"), "{end}");
    let harm = Arc::new(AtomicBool::new(true));
    let waits = ticks.group("waits").wait(Wait::custom(Harmful(harm)));
    let end = waits.run(|_, _| Ok::<_, Infallible>(())).unwrap().wait_for(LONG).expect("it ends").to_string();
    assert!(end.contains("the waiting strategy panicked: harm"), "{end}");
    let report = engine.shutdown(LONG);
    assert!(!report.is_complete(), "{report}");
    let causes: Vec<_> = report.failures().map(|(_, _, cause)| cause).collect();
    assert_eq!(causes, ["the listener panicked: harm", "the waiting strategy panicked: harm"]);
}

#[test]
fn a_partitioner_that_panics_where_dead_letters_go_is_named() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let dead = engine.topic::<u64>("dead").partitions(2).create().unwrap();
    let harmful = Partitioner::custom(|_: Option<&[u8]>, _: u32| -> u32 { panic!("harm") });
    let mut producer = dead.producer().partitioner(harmful).create().unwrap();
    ticks
        .subscribe("copy")
        .on_error(OnError::Stop)
        .run(move |tick, _| producer.publish(|event| *event = *tick).map(drop))
        .unwrap();
    ticks.producer().create().unwrap().publish(|_| ()).unwrap();
    assert_eq!(end_of(&ticks), failed("copy", "the partitioner panicked: harm"));
}

/// Panics when 13 is written.
#[derive(Default)]
struct Unlucky(u64);

impl Persist for Unlucky {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        assert!(self.0 != 13, "harm");
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0 = u64::from_le_bytes(bytes[1..].try_into().map_err(|_| Unreadable("it has another size"))?);
        Ok(())
    }

    fn layout() -> String {
        "unlucky".to_owned()
    }
}

/// It once ended the journal, and with it every other durable topic.
#[test]
fn an_event_that_panics_when_it_is_written_fails_its_topic_alone_and_is_named() {
    let disk = SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let numbers = engine.topic::<Unlucky>("numbers").partitions(2).durable().create_with(Unlucky::default).unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = numbers.producer().create().unwrap();
    // On a busy machine the topic may have failed before the last of them.
    let accepted = (10..16).filter(|number| producer.publish_to(1, |event| event.0 = *number).is_ok()).count();
    assert!(accepted >= 4, "{accepted}");
    let Some(Closed::Failed { consumer, cause }) = end_of(&numbers) else { panic!("{:?}", numbers.closed()) };
    assert_eq!((&*consumer, &*cause), ("journal", "the event at 3 of partition 1: the event's Persist panicked: harm"));
    assert!(matches!(producer.publish_to(0, |_| ()), Err(PublishError::Closed { .. })));
    let receipt = ticks.producer().create().unwrap().publish(|tick| *tick = 7).unwrap();
    receipt.wait(Level::Durable).unwrap();
    let report = engine.shutdown(LONG);
    assert!(!report.is_complete(), "{report}");
    // It was closed with all but these.
    let unwritten = format!("{} events of topic \"numbers\" were published and not written", accepted - 3);
    assert_eq!(report.journal, Some(Err(unwritten)), "{report}");

    let engine = Engine::builder().journal_in(disk).build().unwrap();
    let numbers = engine.topic::<Unlucky>("numbers").partitions(2).durable().create_with(Unlucky::default).unwrap();
    let mut seen = Vec::new();
    let mut replay = numbers.replay("tape").open().unwrap();
    while seen.len() < 3 {
        replay.read(LONG, |event, at: At| seen.push((at.offset, event.0))).unwrap();
    }
    assert_eq!(seen, [(0, 10), (1, 11), (2, 12)], "what came before it is written");
}

/// Calls back, or panics, where it is told to.
#[derive(Default)]
struct Touchy {
    number: u64,
    harms: Option<Arc<Harms>>,
}

#[derive(Default)]
struct Harms {
    clone: OnceLock<Box<dyn Fn() + Send + Sync>>,
    write: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Whether their bytes can be read. No other test here has letters of them.
static READS: AtomicBool = AtomicBool::new(true);

impl Clone for Touchy {
    fn clone(&self) -> Self {
        if let Some(harm) = self.harms.as_ref().and_then(|harms| harms.clone.get()) {
            harm();
        }
        Self { number: self.number, harms: self.harms.clone() }
    }
}

impl Persist for Touchy {
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(harm) = self.harms.as_ref().and_then(|harms| harms.write.get()) {
            harm();
        }
        out.extend_from_slice(&self.number.to_le_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        if !READS.load(SeqCst) {
            return Err(Unreadable("it is told not to"));
        }
        self.number = u64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable("it has another size"))?);
        Ok(())
    }

    fn layout() -> String {
        "touchy".to_owned()
    }
}

const CALLED_BACK: &str = "called a queue while a queue ran it";

#[test]
fn an_event_that_calls_its_queue_while_it_is_copied_or_written_fails_the_queue_and_stays() {
    soon("an event that calls its queue", || {
        for of_write in [false, true] {
            let engine = Engine::builder().build().unwrap();
            let jobs = engine.topic::<Touchy>("jobs").create_with(Touchy::default).unwrap();
            let mut worker = jobs.queue("work").max_attempts(1).join().unwrap();
            let (harms, queue) = (Arc::new(Harms::default()), worker.queue());
            let calls = move || _ = queue.metrics();
            let of = if of_write { &harms.write } else { &harms.clone };
            assert!(of.set(Box::new(calls)).is_ok());
            let receipt = jobs.producer().create().unwrap().publish(|event| event.harms = Some(harms)).unwrap();
            if of_write {
                worker.receive(LONG).unwrap().unwrap().nack(Duration::ZERO, "no").unwrap();
            }
            let refused = worker.receive(LONG).unwrap_err();
            let Closed::Failed { consumer, cause } = &refused.reason else { panic!("{refused}") };
            assert!(consumer == "work" && cause.contains(CALLED_BACK), "{refused}");
            let metrics = worker.queue().metrics();
            assert_eq!((metrics.unread, metrics.dying), if of_write { (0, 1) } else { (1, 0) });
            // It is still to be had by hand.
            assert!(worker.queue().delete(&receipt).unwrap());
        }
    });
}

#[test]
fn an_event_whose_clone_panics_fails_the_queue_and_comes_again_with_the_next_opening() {
    let disk = SimulatedDisk::new();
    let open = || {
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let jobs = engine.topic::<Touchy>("jobs").durable().create_with(Touchy::default).unwrap();
        (engine, jobs)
    };
    let (engine, jobs) = open();
    let harms = Arc::new(Harms::default());
    assert!(harms.clone.set(Box::new(|| panic!("harm"))).is_ok());
    let mut producer = jobs.producer().create().unwrap();
    // The queue reads them from the ring: those of the journal know of no harm.
    let mut worker = jobs.queue("work").join().unwrap();
    producer.publish(|event| *event = Touchy { number: 1, harms: None }).unwrap();
    worker.receive(LONG).unwrap().unwrap().ack().unwrap();
    producer.publish(|event| *event = Touchy { number: 2, harms: Some(harms) }).unwrap();
    producer.publish(|event| *event = Touchy { number: 3, harms: None }).unwrap();
    // Or it came by way of the journal, where no harm is.
    if let Err(refused) = worker.receive(LONG).map(drop) {
        let cause = "the event's Clone panicked: harm".to_owned();
        assert_eq!(refused.reason, Closed::Failed { consumer: "work".to_owned(), cause });
    }
    drop((worker, producer, jobs));
    engine.shutdown(LONG);
    let (_engine, jobs) = open();
    let mut worker = jobs.queue("work").join().unwrap();
    for number in [2, 3] {
        let lease = worker.receive(LONG).unwrap().unwrap();
        assert_eq!(lease.message().number, number);
        lease.ack().unwrap();
    }
}

/// It was once taken for sent back, and was gone.
#[test]
fn a_dead_letter_that_its_type_cannot_read_stays() {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Touchy>("jobs").create_with(Touchy::default).unwrap();
    let mut worker = jobs.queue("work").max_attempts(1).join().unwrap();
    let mut producer = jobs.producer().create().unwrap();
    for number in [1, 2] {
        producer.publish(|event| event.number = number).unwrap();
        worker.receive(LONG).unwrap().unwrap().nack(Duration::ZERO, "no").unwrap();
    }
    let queue = worker.queue();
    READS.store(false, SeqCst);
    assert_eq!((queue.redrive(9), queue.dead_letters().count()), (0, 2));
    READS.store(true, SeqCst);
    assert_eq!((queue.redrive(9), queue.dead_letters().count()), (2, 0));
    assert_eq!(worker.receive(LONG).unwrap().unwrap().message().number, 1);
}

/// It calls all that a factory can reach; each of these once waited for the factory itself.
#[test]
fn a_factory_may_call_the_engine_that_calls_it() {
    soon("a factory that calls the engine", || {
        let engine = Engine::builder().build().unwrap();
        let (inside, grown) = (engine.clone(), Arc::new(OnceLock::<Topic<u64>>::new()));
        let topic = Arc::clone(&grown);
        let mut calls = 0;
        let make = move || {
            calls += 1;
            assert!(inside.get::<u64, Multi>("other").is_err());
            assert!(inside.describe("ticks").is_ok() == topic.get().is_some());
            inside.metrics();
            inside.topics();
            inside.groups();
            inside.failures();
            let _ = format!("{inside:?}");
            let again = inside.topic::<u64>("ticks").create();
            assert!(matches!(again, Err(TopicError::Exists { .. })), "{again:?}");
            let _ = inside.topic::<u64>(format!("made-{calls}")).create();
            if let Some(own) = topic.get().filter(|own| own.closed().is_none()) {
                own.metrics();
                own.describe();
                let tape = own.subscribe("tape").poll().unwrap();
                drop(tape);
                own.subscribe(format!("cancelled-{calls}"))
                    .run(|_, _| Ok::<_, Infallible>(()))
                    .unwrap()
                    .cancel()
                    .unwrap();
                drop(own.group("billing").join().unwrap());
                assert!(matches!(own.add_partitions(1), Err(TopicError::Growing { .. })));
                if calls > 10 {
                    own.close();
                }
            }
            0
        };
        let ticks = engine.topic::<u64>("ticks").capacity(2).create_with(make).unwrap();
        let _ = grown.set(ticks.clone());
        ticks.add_partitions(2).unwrap();
        assert_eq!(ticks.partitions(), 3);
        ticks.add_partitions(1).unwrap();
        ticks.add_partitions(1).unwrap();
        let refused = ticks.add_partitions(1);
        assert!(matches!(refused, Err(TopicError::Closed { .. })), "{refused:?}");
        assert!(engine.topics().contains(&"made-1".to_owned()));
    });
}

#[test]
fn what_makes_handlers_of_new_partitions_may_call_the_topic() {
    soon("a maker of handlers that calls the topic", || {
        let engine = Engine::builder().build().unwrap();
        let ticks = engine.topic::<u64>("ticks").create().unwrap();
        let (own, seen) = (ticks.clone(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&seen);
        ticks
            .subscribe("tape")
            .run_each(move |partition| {
                drop(own.subscribe(format!("beside-{partition}")).poll().unwrap());
                assert!(partition == 0 || matches!(own.add_partitions(1), Err(TopicError::Growing { .. })));
                let count = Arc::clone(&count);
                move |_: &u64, _: At| {
                    count.fetch_add(1, SeqCst);
                    Ok::<_, Infallible>(())
                }
            })
            .unwrap();
        ticks.add_partitions(2).unwrap();
        let mut producer = ticks.producer().create().unwrap();
        for partition in 0..3 {
            producer.publish_to(partition, |_| ()).unwrap();
        }
        assert!(engine.shutdown(LONG).is_complete());
        assert_eq!(seen.load(SeqCst), 3);
    });
}

/// A shutdown of 200 ms once took the eight seconds that the factory took, and so did a look at the metrics.
#[test]
fn a_slow_factory_holds_up_its_own_topic_alone() {
    soon("a shutdown beside a slow factory", || {
        let engine = Engine::builder().build().unwrap();
        let ticks = engine.topic::<u64>("ticks").create().unwrap();
        let (go, waits) = mpsc::channel::<()>();
        let (tell, begun) = mpsc::channel();
        let creates = engine.clone();
        let creator = std::thread::spawn(move || {
            let slow = move || {
                let _ = tell.send(());
                let _ = waits.recv();
                0
            };
            creates.topic::<u64>("slow").capacity(1).create_with(slow).map(drop)
        });
        begun.recv().unwrap();
        assert_eq!(engine.topics(), ["ticks"]);
        engine.metrics();
        engine.get::<u64, Multi>("ticks").unwrap();
        let other = engine.clone();
        let waits_for_the_name = std::thread::spawn(move || other.topic::<u64>("slow").create().map(drop));
        ticks.producer().create().unwrap().publish(|_| ()).unwrap();
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert!(matches!(waits_for_the_name.join().unwrap(), Err(TopicError::ShutDown)));
        go.send(()).unwrap();
        assert!(matches!(creator.join().unwrap(), Err(TopicError::ShutDown)));
        assert_eq!(engine.topics(), ["ticks"]);
    });
}

/// Panics when 13 is read.
#[derive(Default)]
struct Spoilt(u64);

impl Persist for Spoilt {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0 = u64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable("it has another size"))?);
        assert!(self.0 != 13, "harm");
        Ok(())
    }

    fn layout() -> String {
        "spoilt".to_owned()
    }
}

#[test]
fn an_event_that_panics_when_it_is_read_from_the_journal_is_named() {
    let disk = SimulatedDisk::new();
    let open = || {
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let numbers = engine.topic::<Spoilt>("numbers").durable().create_with(Spoilt::default).unwrap();
        (engine, numbers)
    };
    {
        let (engine, numbers) = open();
        numbers.group("sums").join().unwrap();
        let mut producer = numbers.producer().create().unwrap();
        (12..15).for_each(|number| _ = producer.publish(|event| event.0 = number).unwrap());
        assert!(engine.shutdown(LONG).journal.unwrap().is_ok());
    }
    let cause = "the event's Persist panicked: harm";
    let (engine, numbers) = open();
    let run = numbers.group("sums").run(|_, _| Ok::<_, Infallible>(())).unwrap();
    let end = format!("{:?}", run.wait());
    assert!(end.contains(cause), "{end}");
    drop(numbers);
    engine.shutdown(LONG);

    let (engine, _numbers) = open();
    engine.topic::<u64>("copies").durable().create().unwrap();
    let copy = |event: &Spoilt, _: At, out: &mut Outputs<'_, u64>| out.publish(|into| *into = event.0);
    let run = engine.transform("numbers", "copies", "copy", copy).unwrap();
    let TransformEnd::Failed(failure) = run.wait() else { panic!("{run:?}") };
    assert!(failure.to_string().contains(cause), "{failure}");
}
