//! Where replays and durable queues begin, and what becomes of times when the world's clock is set back over a restart.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, ReplayError as JournalError};
use slipring::{
    Engine, Level, Message, Record, Topic,
    clock::{ManualClock, Timestamp},
    replay::ReplayError,
    subscriber::StartAt,
    topic::Deduplication,
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const YEAR: u64 = 365 * 24 * 3600;

fn engine(disk: &SimulatedDisk, clock: &ManualClock) -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().clock(clock.clone()).journal_in(disk.clone()).journal_options(options).build().unwrap()
}

fn second(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

/// Forty events, one a second from the first on.
fn forty(engine: &Engine, clock: &ManualClock, retain: usize) -> Topic<u64> {
    let topic = engine.topic::<u64>("ticks").capacity(256).timestamps().retain(retain).durable().create().unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    for number in 0..40 {
        clock.set_wall(second(number));
        producer.publish(|tick| *tick = number).unwrap();
    }
    topic
}

fn read(replay: &mut slipring::replay::Replay<u64>, last: u64) -> Vec<u64> {
    let (mut seen, until) = (Vec::new(), Instant::now() + LONG);
    while seen.last() != Some(&last) && Instant::now() < until {
        replay.read(Duration::from_millis(10), |tick, _| seen.push(*tick)).unwrap();
    }
    seen
}

/// A subscriber does not get what was recorded before: the docs of `StartAt` once did not say so, and the error for an
/// offset said that it was no longer kept.
#[test]
fn of_a_topic_that_is_opened_again_subscribers_read_what_is_new_and_others_what_was_recorded() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let first = engine(&disk, &clock);
    forty(&first, &clock, 0);
    first.shutdown(LONG);
    let engine = engine(&disk, &clock);
    let topic = engine.topic::<u64>("ticks").capacity(256).timestamps().retain(64).durable().create().unwrap();
    let next = topic.metrics().published;
    assert!(next >= 40);
    for start in [StartAt::Earliest, StartAt::Latest, StartAt::Timestamp(second(0)), StartAt::Offset(next)] {
        let subscriber = topic.subscribe("live").start(start.clone()).poll().unwrap();
        assert_eq!(subscriber.first(), next, "{start:?}");
    }
    let refused = topic.subscribe("live").start(StartAt::Offset(39)).poll().unwrap_err();
    assert!(refused.to_string().ends_with("are read by a `replay` or a `group`"), "{refused}");
    for start in [StartAt::Earliest, StartAt::Timestamp(second(0)), StartAt::Offset(0)] {
        let mut replay = topic.replay("all").start(start.clone()).open().unwrap();
        assert_eq!(read(&mut replay, 39), (0..40).collect::<Vec<_>>(), "{start:?}");
        let name = format!("{start:?}").replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        let mut member = topic.group(name).start(start.clone()).join().unwrap();
        let mut seen = Vec::new();
        while seen.len() < 40 {
            let batch = member.poll(LONG).unwrap().unwrap();
            seen.extend(batch.iter().map(|(tick, _)| *tick));
            batch.commit().unwrap();
        }
        assert_eq!(seen, (0..40).collect::<Vec<_>>(), "{start:?}");
    }
}

#[test]
fn a_replay_begins_at_a_time_also_where_the_ring_still_has_everything() {
    for (retain, slow) in [(0, false), (64, false), (0, true), (64, true)] {
        let clock = ManualClock::new();
        let engine = engine(&SimulatedDisk::new(), &clock);
        let slow = slow.then(|| {
            let topic = engine.topic::<u64>("ticks").capacity(256).timestamps().retain(retain).durable().create();
            topic.unwrap().subscribe("slow").poll().unwrap()
        });
        let topic = match &slow {
            None => forty(&engine, &clock, retain),
            Some(_) => {
                let topic = engine.get::<u64, slipring::producer::Multi>("ticks").unwrap();
                let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
                for number in 0..40 {
                    clock.set_wall(second(number));
                    producer.publish(|tick| *tick = number).unwrap();
                }
                topic
            }
        };
        let mut replay = topic.replay("tape").start(StartAt::Timestamp(second(25))).open().unwrap();
        assert_eq!(read(&mut replay, 39), (25..40).collect::<Vec<_>>(), "{retain}");
        drop((replay, slow));
        engine.shutdown(LONG);
    }
}

#[test]
fn what_is_published_after_the_opening_is_given_whatever_its_time() {
    let clock = ManualClock::new();
    let engine = engine(&SimulatedDisk::new(), &clock);
    let topic = forty(&engine, &clock, 64);
    let mut replay = topic.replay("tape").start(StartAt::Timestamp(second(1000))).open().unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    // Older than what was asked for, and published after it was.
    clock.set_wall(second(7));
    producer.publish(|tick| *tick = 40).unwrap();
    clock.set_wall(second(2000));
    producer.publish(|tick| *tick = 41).unwrap();
    assert_eq!(read(&mut replay, 41), [40, 41]);
    drop(producer);
    engine.shutdown(LONG);
}

#[test]
fn a_start_beyond_what_is_published_is_refused_by_replays_and_queues() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let engine = engine(&disk, &clock);
    let topic = forty(&engine, &clock, 0);
    for start in [StartAt::Offset(41), StartAt::Offsets(vec![100])] {
        let refused = topic.replay("tape").start(start).open().unwrap_err();
        let ReplayError::Journal { cause: JournalError::OutOfRange { asked, earliest, latest }, .. } = refused else {
            panic!("{refused}")
        };
        assert!(asked > 40 && (earliest, latest) == (0, 40));
    }
    let mut next = topic.replay("tape").start(StartAt::Offset(40)).open().unwrap();
    topic.producer().create().unwrap().publish(|tick| *tick = 40).unwrap();
    assert_eq!(read(&mut next, 40), [40]);

    let jobs = engine.topic::<Message>("jobs").durable().create().unwrap();
    let mut producer = jobs.producer().acknowledge(Level::Durable).create().unwrap();
    (0..6).for_each(|_| _ = producer.send(Record::new("job")).unwrap());
    let refused = jobs.queue("work").start(StartAt::Offset(100)).join().unwrap_err().to_string();
    assert!(refused.contains("offset 100") && refused.contains("0 up to, not including, 6"), "{refused}");
    let mut worker = jobs.queue("work").start(StartAt::Offset(6)).join().unwrap();
    producer.send(Record::new("the seventh")).unwrap();
    assert_eq!(worker.receive(LONG).unwrap().unwrap().message().value(), b"the seventh");
    drop((worker, producer));
    engine.shutdown(LONG);
}

#[test]
fn leases_and_delays_last_no_longer_than_asked_when_the_clock_is_set_back_over_a_restart() {
    let disk = SimulatedDisk::new();
    let jobs = |engine: &Engine| engine.topic::<Message>("jobs").durable().create().unwrap();
    {
        let clock = ManualClock::at(second(50 * YEAR));
        let engine = engine(&disk, &clock);
        let topic = jobs(&engine);
        let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
        for text in ["nacked", "leased", "delayed"] {
            let delay = Duration::from_secs(if text == "delayed" { 20 } else { 0 });
            producer.send(Record::new(text).delay(delay)).unwrap();
        }
        let mut worker = topic.queue("work").visibility(Duration::from_secs(30)).join().unwrap();
        let nacked = worker.receive(LONG).unwrap().unwrap();
        assert_eq!(nacked.message().value(), b"nacked");
        nacked.nack(Duration::from_secs(5), "later").unwrap();
        worker.receive(LONG).unwrap().unwrap().leave();
        drop((worker, producer));
        engine.shutdown(LONG);
    }
    // Ten years back.
    let clock = ManualClock::at(second(40 * YEAR));
    let engine = engine(&disk, &clock);
    let mut worker = jobs(&engine).queue("work").visibility(Duration::from_secs(30)).join().unwrap();
    let mut given = Vec::new();
    for at in 0..=31 {
        while let Some(lease) = worker.receive(Duration::ZERO).unwrap() {
            given.push((at, String::from_utf8(lease.message().value().to_vec()).unwrap()));
            lease.ack().unwrap();
        }
        clock.advance(Duration::from_secs(1));
    }
    let given: Vec<_> = given.iter().map(|(at, text)| (*at, text.as_str())).collect();
    assert_eq!(given, [(5, "nacked"), (20, "delayed"), (30, "leased")]);
    drop(worker);
    engine.shutdown(LONG);
}

#[test]
fn ids_are_known_again_although_a_part_of_them_looks_old() {
    let disk = SimulatedDisk::new();
    let today = 50 * YEAR;
    let topic = |engine: &Engine| {
        let topic = engine.topic::<Message>("orders").max_message(64).capacity(1024).durable();
        topic.deduplicate(Deduplication::within(Duration::from_secs(3600))).create().unwrap()
    };
    {
        let clock = ManualClock::at(second(today));
        let engine = engine(&disk, &clock);
        let mut producer = topic(&engine).producer().create().unwrap();
        producer.send(Record::new("1").id("first")).unwrap().wait(Level::Durable).unwrap();
        // The clock is lost, as on a machine without a battery, until somebody sets it.
        clock.set_wall(second(7));
        for number in 0..5000_u32 {
            producer.send(Record::new("2").id(&number.to_le_bytes())).unwrap();
        }
        producer.send(Record::new("3").id("last")).unwrap().wait(Level::Durable).unwrap();
        drop(producer);
        engine.shutdown(LONG);
    }
    let clock = ManualClock::at(second(today + 600));
    let engine = engine(&disk, &clock);
    let mut producer = topic(&engine).producer().create().unwrap();
    for (id, offset) in [("first", 0), ("last", 5001)] {
        let receipt = producer.send(Record::new("again").id(id)).unwrap();
        assert_eq!(receipt.offset, offset, "{id} was published again");
    }
    // Within the window, counted from the younger of them.
    clock.advance(Duration::from_secs(3001));
    assert_eq!(producer.send(Record::new("again").id("first")).unwrap().offset, 5002);
    drop(producer);
    engine.shutdown(LONG);
}
