//! What `tracing` is told: beginnings and ends, never an event of a topic.

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{Engine, Message, clock::ManualClock, text, topic::Slow};
use std::fmt::Debug;
use std::sync::Mutex;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collect;

impl Subscriber for Collect {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target() == "slipring"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0 += &format!(" {}={value:?}", field.name());
            }
        }
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        TOLD.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn tracing_is_told_of_beginnings_and_ends_and_not_of_events() {
    tracing::subscriber::set_global_default(Collect).unwrap();
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(64).create().unwrap();
    ticks.subscribe("book").run(|tick, _| if *tick < 9_999 { Ok(()) } else { Err("too high") }).unwrap();
    let mut producer = ticks.producer().create().unwrap();
    (0..10_000).for_each(|number| _ = producer.publish(|tick| *tick = number).unwrap());
    while ticks.closed().is_none() {
        std::thread::yield_now();
    }
    let slow = engine.topic::<u64>("slow").capacity(1).slow(Slow::EVICT).create().unwrap();
    let _away = slow.subscribe("away").poll().unwrap();
    let mut to_slow = slow.producer().create().unwrap();
    (0..2).for_each(|_| _ = to_slow.publish(|_| ()).unwrap());
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let _worker = jobs.queue("resize").join().unwrap();
    let numbers = engine.topic::<u64>("numbers").partitions(2).capacity(64).create().unwrap();
    let mut member = numbers.group("sums").join().unwrap();
    drop(member.poll(Duration::ZERO).unwrap());
    let run = numbers.group("sums").run(|number, _| if *number < 9 { Ok(()) } else { Err("too high") }).unwrap();
    while member.assignment().len() > 1 {
        drop(member.poll(Duration::from_millis(10)).unwrap());
    }
    let theirs = 1 - member.assignment()[0].partition;
    let mut to_members = numbers.producer().create().unwrap();
    (0..10).for_each(|number| _ = to_members.publish_to(theirs, |event| *event = number).unwrap());
    run.wait();
    drop(member);
    // One that does nothing for longer than its deadline.
    let mut stalls = numbers.group("stalls").deadline(Duration::from_secs(10)).join().unwrap();
    drop(stalls.poll(Duration::ZERO).unwrap());
    clock.advance(Duration::from_secs(10));
    assert!(stalls.poll(Duration::ZERO).is_err());
    engine.delete_forced("slow").unwrap();
    engine.shutdown(Duration::from_secs(60));
    let told = TOLD.lock().unwrap().join("\n");
    for line in [
        "INFO message=topic created topic=ticks shape=64 slots of u64",
        "INFO message=consumer started topic=ticks consumer=book",
        "ERROR message=consumer failed topic=ticks consumer=book cause=too high",
        "WARN message=consumer evicted topic=slow consumer=away",
        "INFO message=queue opened topic=jobs queue=resize",
        "INFO message=topic deleted topic=slow",
        "INFO message=member joined group=sums member=1",
        "INFO message=partitions assigned group=sums member=1 partitions=numbers/0, numbers/1",
        "INFO message=partitions revoked group=sums member=1 partitions=numbers/",
        "ERROR message=member failed group=sums cause=failed at 9 of numbers/",
        "INFO message=member left group=sums member=1",
        "WARN message=member fenced group=stalls member=1",
        "INFO message=topic shut down topic=ticks",
    ] {
        assert!(told.contains(line), "no {line:?} in\n{told}");
    }
    assert!(told.lines().count() < 35, "{told}");
    hostile();
}

/// Clears the screen, by C0 and by C1; forges a line; writes from right to left; forges a line for who reads Unicode.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\nFORGED\u{202e}gpj\u{2028}FORGED";

/// Causes that are somebody else's words. Such names are refused, and nobody is told of them.
fn hostile() {
    TOLD.lock().unwrap().clear();
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let copies = engine.topic::<u64>("copies").durable().create().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    assert!(engine.topic::<u64>(HOSTILE).create().is_err());
    assert!(jobs.queue(HOSTILE).join().is_err());
    assert!(ticks.group(HOSTILE).join().is_err() && ticks.group("g").member_name(HOSTILE).join().is_err());
    assert!(ticks.subscribe(HOSTILE).poll().is_err() && ticks.transform(HOSTILE).open().is_err());
    assert!(ticks.producer().idempotent(HOSTILE).is_err());
    fn cause(of: &str) -> String {
        format!("{of}{HOSTILE}")
    }
    let member = ticks.group("sums").run(|_, _| Err::<(), _>(cause("the member's"))).unwrap();
    let transform = ticks.transform("copy").open().unwrap();
    let transform = transform.run(copies, |_, _, _| Err::<(), _>(cause("the transform's"))).unwrap();
    let mut producer = ticks.producer().create().unwrap();
    producer.publish(|_| ()).unwrap();
    member.wait();
    transform.wait();
    ticks.subscribe("book").run(|_, _| Err::<(), _>(cause("the subscriber's"))).unwrap();
    while producer.publish(|_| ()).is_ok() {
        std::thread::yield_now();
    }
    engine.shutdown(Duration::from_secs(60));
    let told = TOLD.lock().unwrap();
    for line in told.iter() {
        assert!(!line.chars().any(text::is_hidden), "{line:?}");
    }
    for of in ["the member's", "the transform's", "the subscriber's"] {
        let shown = format!("{of}{}", text::line(HOSTILE));
        assert!(told.iter().any(|line| line.contains(&shown)), "no {shown:?} in\n{told:#?}");
    }
}
