//! What becomes of records that a producer has gathered when its topic ends.

use slipring::journal::{Options, simulated::SimulatedDisk};
use slipring::metrics::Report;
use slipring::producer::{LingeringProducer, Partitioner, PublishError};
use slipring::topic::Overflow;
use slipring::{Engine, Message, Receipt, Record, Topic};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const NEVER: Duration = Duration::from_secs(100_000);

/// The outcomes that a callback was told, in order.
type Outcomes = Arc<Mutex<Vec<(u64, Result<Receipt, PublishError>)>>>;

fn orders(engine: &Engine, capacity: usize) -> Topic<Message> {
    engine.topic("orders").capacity(capacity).overflow(Overflow::Fail).create().unwrap()
}

/// A producer that publishes nothing by itself before it has `records` records, and what its callback is told.
fn gathers(topic: &Topic<Message>, records: usize) -> (LingeringProducer, Outcomes) {
    let outcomes = Outcomes::default();
    let told = Arc::clone(&outcomes);
    let producer = topic.producer().linger(NEVER, records);
    let producer = producer.on_completion(move |number, outcome| told.lock().unwrap().push((number, outcome)));
    (producer.create().unwrap(), outcomes)
}

fn send(producer: &LingeringProducer, count: u64) {
    (0..count).for_each(|_| _ = producer.send(Record::new("order")).unwrap());
}

/// The numbers that were published, and those that were given up because the topic had ended.
fn told(outcomes: &Outcomes) -> (Vec<u64>, Vec<u64>) {
    let mut told = (Vec::new(), Vec::new());
    for (number, outcome) in outcomes.lock().unwrap().iter() {
        match outcome {
            Ok(_) => told.0.push(*number),
            Err(PublishError::Closed { .. }) => told.1.push(*number),
            Err(other) => panic!("{other}"),
        }
    }
    told
}

/// Counts what it reads, on a thread of its own.
fn count(topic: &Topic<Message>) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&count);
    let run = topic.subscribe("count").run(move |_, _| {
        counts.fetch_add(1, SeqCst);
        Ok::<_, Infallible>(())
    });
    run.unwrap();
    count
}

fn numbers(to: u64) -> Vec<u64> {
    (0..to).collect()
}

/// They were in no report, which said that it was complete, and nobody read them.
#[test]
fn a_shutdown_publishes_what_was_gathered_and_waits_for_room() {
    for (capacity, records) in [(64, 5), (2, 60)] {
        let engine = Engine::builder().build().unwrap();
        let topic = orders(&engine, capacity);
        let read = count(&topic);
        let (producer, outcomes) = gathers(&topic, 100);
        send(&producer, records);
        assert_eq!(read.load(SeqCst), 0);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!((read.load(SeqCst), told(&outcomes)), (records, (numbers(records), Vec::new())));
        assert!(matches!(producer.send(Record::new("late")), Err(PublishError::Closed { .. })));
    }
}

fn has_given_up(report: &Report, count: u64) {
    assert_eq!(report.topics[0].unpublished, count, "{report}");
    assert!(!report.is_complete() && report.to_string().contains(&format!("{count} records that")), "{report}");
}

/// Also without a limit: only the thread that shuts down could read.
#[test]
fn what_finds_no_room_in_a_shutdown_is_given_up_and_counted() {
    for limit in [Duration::ZERO, Duration::MAX] {
        let engine = Engine::builder().build().unwrap();
        let topic = orders(&engine, 2);
        let reader = topic.subscribe("reader").poll().unwrap();
        let (producer, outcomes) = gathers(&topic, 100);
        send(&producer, 5);
        has_given_up(&engine.shutdown(limit), 3);
        assert_eq!(told(&outcomes), (vec![0, 1], vec![2, 3, 4]));
        assert_eq!((producer.gathered(), topic.metrics().dropped), (0, 3));
        assert!(matches!(producer.send(Record::new("late")), Err(PublishError::Closed { .. })));
        assert!(matches!(producer.flush(), Err(PublishError::Closed { .. })), "nor is the loss forgotten");
        drop((producer, reader));
        assert_eq!(outcomes.lock().unwrap().len(), 5, "each once");
    }
}

#[test]
fn the_end_of_a_topic_publishes_what_has_room_and_gives_up_the_rest() {
    let engine = Engine::builder().build().unwrap();
    let topic = orders(&engine, 2);
    let reader = topic.subscribe("reader").poll().unwrap();
    let (producer, outcomes) = gathers(&topic, 100);
    send(&producer, 3);
    topic.close();
    assert_eq!(told(&outcomes), (vec![0, 1], vec![2]));
    assert!(matches!(producer.send(Record::new("late")), Err(PublishError::Closed { .. })));
    has_given_up(&engine.shutdown(Duration::ZERO), 1);
    drop(reader);

    let engine = Engine::builder().build().unwrap();
    let topic = orders(&engine, 2);
    let (producer, outcomes) = gathers(&topic, 100);
    send(&producer, 2);
    let report = engine.delete_forced("orders").unwrap();
    assert_eq!((report.unpublished, told(&outcomes)), (2, (Vec::new(), vec![0, 1])), "{report}");
}

/// The last drop counted it among the dropped ones, but told nobody.
#[test]
fn what_the_last_drop_cannot_publish_is_told_and_in_the_report() {
    let engine = Engine::builder().build().unwrap();
    let topic = orders(&engine, 2);
    let reader = topic.subscribe("reader").poll().unwrap();
    let (producer, outcomes) = gathers(&topic, 100);
    send(&producer, 3);
    drop(producer);
    let told: Vec<_> = outcomes.lock().unwrap().iter().map(|(number, outcome)| (*number, outcome.is_ok())).collect();
    assert_eq!(told, [(0, true), (1, true), (2, false)]);
    assert!(outcomes.lock().unwrap()[2].1.as_ref().unwrap_err().is_full());
    drop(reader);
    has_given_up(&engine.shutdown(LONG), 1);
}

#[test]
fn a_topic_that_fails_gives_up_what_was_gathered() {
    let engine = Engine::builder().build().unwrap();
    let topic = orders(&engine, 64);
    topic.subscribe("fails").run(|_, _| Err("no more")).unwrap();
    let (producer, outcomes) = gathers(&topic, 100);
    send(&producer, 2);
    let mut plain = topic.producer().create().unwrap();
    let begun = Instant::now();
    while plain.send(Record::new("order")).is_ok() {
        assert!(begun.elapsed() < LONG, "the handler has an error");
        std::thread::yield_now();
    }
    assert!(matches!(producer.send(Record::new("late")), Err(PublishError::Closed { .. })));
    assert!(matches!(producer.flush(), Err(PublishError::Closed { .. })));
    assert_eq!(told(&outcomes), (Vec::new(), vec![0, 1]));
    assert_eq!(engine.shutdown(LONG).topics[0].unpublished, 2);
}

/// What runs inside of a producer's call has the producer's records: nobody waits for them there.
#[test]
fn a_shutdown_inside_of_a_gathering_producers_call_does_not_wait_for_itself() {
    for in_callback in [true, false] {
        let engine = Engine::builder().build().unwrap();
        let topic = engine.topic::<Message>("orders").partitions(2).create().unwrap();
        let report = Arc::new(OnceLock::<Report>::new());
        let (own, ends) = (Arc::clone(&report), engine.clone());
        let shuts_down = move || _ = own.set(ends.shutdown(Duration::MAX));
        let builder = topic.producer();
        let producer = if in_callback {
            builder.linger(NEVER, 2).on_completion(move |_, _| shuts_down()).create().unwrap()
        } else {
            let partitioner = Partitioner::custom(move |_: Option<&[u8]>, _: u32| {
                shuts_down();
                0
            });
            builder.partitioner(partitioner).linger(NEVER, 2).create().unwrap()
        };
        let sent = (0..2).map(|_| producer.send(Record::new("order").key("a"))).collect::<Vec<_>>();
        let report = report.get().unwrap();
        assert!(report.is_complete(), "{report}");
        assert!(sent.iter().all(|sent| sent.is_ok() == in_callback), "{sent:?}");
    }
}

/// Each record that was taken is published or counted, and its callback is called once, whenever the shutdown comes.
#[test]
fn records_that_are_sent_while_the_engine_shuts_down_are_published_or_counted() {
    for round in 0..120 {
        let limit = [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(2)][round % 3];
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
        let topic = engine.topic::<Message>("orders").capacity(16).overflow(Overflow::Block);
        let topic = if round % 2 == 0 { topic.durable() } else { topic };
        let topic = topic.create().unwrap();
        let read = count(&topic);
        let producers: Vec<_> = (0..2).map(|_| gathers(&topic, 7)).collect();
        let threads: Vec<_> = producers
            .iter()
            .map(|(producer, _)| {
                let producer = producer.clone();
                std::thread::spawn(move || (0..).take_while(|_| producer.send(Record::new("order")).is_ok()).count())
            })
            .collect();
        while topic.metrics().published < 20 {
            std::thread::yield_now();
        }
        let report = engine.shutdown(limit);
        let sent: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap() as u64).collect();
        let mut published = 0;
        for ((producer, outcomes), sent) in producers.iter().zip(&sent) {
            let (taken, given_up) = told(outcomes);
            published += taken.len() as u64;
            let mut all = [taken, given_up].concat();
            all.sort_unstable();
            assert_eq!((all, producer.gathered()), (numbers(*sent), 0), "round {round}\n{report}");
        }
        let sum = published + report.topics[0].unpublished;
        assert_eq!(sum, sent.iter().sum::<u64>(), "round {round}\n{report}");
        assert!(!report.is_complete() || read.load(SeqCst) == sum, "round {round}\n{report}");
    }
}
