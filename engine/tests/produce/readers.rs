//! Producers that publish only what somebody reads.

use crate::soon::LONG;
use slipring::journal::simulated::SimulatedDisk;
use slipring::producer::{PublishError, WhenUnread};
use slipring::topic::{Closed, Overflow};
use slipring::{Engine, Message, Producer, Record, Topic};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

const NOW: Duration = Duration::ZERO;

fn refuses(topic: &Topic<u64>) -> Producer<u64> {
    topic.producer().when_unread(WhenUnread::Refuse).create().unwrap()
}

fn is_unread(producer: &mut Producer<u64>) -> bool {
    let mut filled = false;
    let published = producer.publish(|_| filled = true);
    assert_eq!(filled, published.is_ok(), "a refused event is not filled");
    match published {
        Ok(_) => false,
        Err(PublishError::NoReaders { topic, waits: false }) if topic == "ticks" => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn each_kind_of_reader_counts_until_it_has_left_and_the_journal_does_not() {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").partitions(2).durable().create().unwrap();
    let mut producer = refuses(&ticks);
    assert!(is_unread(&mut producer));

    let paused = ticks.subscribe("tape").poll().unwrap();
    assert!(!is_unread(&mut producer), "never polled");
    drop(paused);
    assert!(is_unread(&mut producer));

    let replay = ticks.replay("replay").open().unwrap();
    assert!(!is_unread(&mut producer), "in the journal still");
    drop(replay);
    assert!(is_unread(&mut producer));

    let members = [ticks.group("sums").join().unwrap(), ticks.group("sums").join().unwrap()];
    for member in members {
        assert!(!is_unread(&mut producer));
        member.leave();
    }
    assert!(is_unread(&mut producer));
    drop(ticks.group("away").member_name("one").join().unwrap());
    assert!(!is_unread(&mut producer), "a named member that is away keeps its place");
    ticks.group("away").member_name("one").join().unwrap().leave();
    assert!(is_unread(&mut producer));
    ticks.group("holds").hold(true).join().unwrap().leave();
    assert!(!is_unread(&mut producer));
    engine.forget_group("holds").unwrap();
    assert!(is_unread(&mut producer));

    let transform = ticks.transform("double").open().unwrap();
    assert!(!is_unread(&mut producer));
    drop(transform);
    assert!(is_unread(&mut producer));

    ticks.close();
    let closed = producer.publish(|_| ());
    assert!(matches!(closed, Err(PublishError::Closed { reason: Closed::Closed, .. })), "{closed:?}");
}

#[test]
fn a_queue_is_a_reader_until_it_is_deleted() {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let mut producer = jobs.producer().when_unread(WhenUnread::Refuse).create().unwrap();
    assert!(matches!(producer.send(Record::new("x")), Err(PublishError::NoReaders { .. })));
    let queue = jobs.queue("work").open().unwrap();
    producer.send(Record::new("x")).unwrap();
    drop(queue);
    producer.send(Record::new("y")).unwrap();
}

#[test]
fn all_forms_of_a_publish_are_refused_as_a_whole_and_the_default_publishes() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").partitions(3).create().unwrap();
    let mut producer = refuses(&ticks);
    let unread = |refused: Result<(), PublishError>| assert!(matches!(refused, Err(PublishError::NoReaders { .. })));
    unread(producer.publish_to(2, |_| ()).map(drop));
    unread(producer.publish_key(b"key", |_| ()).map(drop));
    unread(producer.try_publish(|_| ()).map(drop));
    unread(producer.publish_until(Instant::now() + LONG, |_| ()).map(drop));
    unread(producer.publish_batch(3, |_, _| panic!("filled")).map(drop));
    let offered = producer.offer(42).unwrap_err();
    assert_eq!(offered.value, 42);
    unread(Err(offered.reason));
    assert_eq!(ticks.metrics().published, 0);
    let mut clone = producer.clone();
    assert!(is_unread(&mut clone));
    ticks.producer().create().unwrap().publish(|_| ()).unwrap();
    let _tape = ticks.subscribe("tape").poll().unwrap();
    producer.publish_batch(3, |_, _| ()).unwrap();
    clone.publish(|_| ()).unwrap();

    let single = engine.topic::<u64>("single").single_producer().create().unwrap();
    let mut producer = single.producer().when_unread(WhenUnread::Refuse).create().unwrap();
    unread(producer.publish(|_| panic!("filled")).map(drop));
    unread(producer.publish_batch(2, |_, _| panic!("filled")).map(drop));
    let tape = single.subscribe("tape").poll().unwrap();
    producer.publish(|_| ()).unwrap();
    drop(tape);
    unread(producer.publish(|_| ()).map(drop));
}

#[test]
fn a_gathering_producer_that_needs_readers_gives_up_what_it_has_with_that_error() {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let gather = |choice| {
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&outcomes);
        let producer = jobs.producer().when_unread(choice).linger(LONG, 10);
        let producer = producer.on_completion(move |_, outcome| notes.lock().unwrap().push(outcome.is_ok()));
        (producer.create().unwrap(), outcomes)
    };
    let (refuses, outcomes) = gather(WhenUnread::Refuse);
    refuses.send(Record::new("x")).unwrap();
    assert!(matches!(refuses.flush(), Err(PublishError::NoReaders { waits: false, .. })));
    assert_eq!(*outcomes.lock().unwrap(), [false]);

    let (waits, outcomes) = gather(WhenUnread::Wait);
    waits.send(Record::new("x")).unwrap();
    assert!(matches!(waits.flush_until(Instant::now()), Err(PublishError::NoReaders { waits: true, .. })));
    assert!(outcomes.lock().unwrap().is_empty(), "it still has the record");
    let _tape = jobs.subscribe("tape").poll().unwrap();
    waits.flush().unwrap();
    assert_eq!(*outcomes.lock().unwrap(), [true]);
}

#[test]
fn a_publish_that_waits_goes_on_with_a_reader_or_ends_with_the_topic() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let waiting = || ticks.producer().when_unread(WhenUnread::Wait).create().unwrap();
    let mut producer = waiting();
    let tried = producer.try_publish(|_| ()).unwrap_err();
    assert!(matches!(tried, PublishError::NoReaders { waits: true, .. }) && tried.is_full(), "{tried}");
    let late = producer.publish_until(Instant::now() + Duration::from_millis(1), |_| ()).unwrap_err();
    assert!(matches!(late, PublishError::NoReaders { .. }), "{late}");
    std::thread::scope(|threads| {
        let publishes = threads.spawn(|| producer.publish(|tick| *tick = 42));
        let mut tape = ticks.subscribe("tape").poll().unwrap();
        let mut seen = Vec::new();
        tape.poll(LONG).unwrap().unwrap().into_iter().for_each(|(tick, _)| seen.push(*tick));
        assert_eq!(seen, [42]);
        publishes.join().unwrap().unwrap();
    });
    std::thread::scope(|threads| {
        let mut producer = waiting();
        let publishes = threads.spawn(move || producer.publish(|_| ()));
        ticks.close();
        assert!(matches!(publishes.join().unwrap(), Err(PublishError::Closed { .. })));
    });

    let fails = engine.topic::<u64>("fails").overflow(Overflow::Fail).create().unwrap();
    let mut producer = fails.producer().when_unread(WhenUnread::Wait).create().unwrap();
    assert!(matches!(producer.publish(|_| ()), Err(PublishError::NoReaders { waits: true, .. })));
    let limit = Overflow::BlockFor(Duration::from_millis(20));
    let limited = engine.topic::<u64>("limited").overflow(limit).create().unwrap();
    let mut producer = limited.producer().when_unread(WhenUnread::Wait).create().unwrap();
    assert!(matches!(producer.publish(|_| ()), Err(PublishError::NoReaders { waits: true, .. })));
}

struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_task_waits_for_a_reader() {
    let clock = slipring::clock::ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let mut producer = ticks.producer().when_unread(WhenUnread::Wait).create().unwrap();
    let count = Arc::new(Count(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut publishing = pin!(producer.publish_async(|tick| *tick = 7));
    assert!(publishing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut tape = ticks.subscribe("tape").poll().unwrap();
    clock.advance(Duration::from_secs(1));
    while count.0.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    let done = publishing.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(done, Poll::Ready(Ok(_))), "{done:?}");
    assert_eq!(tape.poll(NOW).unwrap().unwrap().len(), 1);
}
