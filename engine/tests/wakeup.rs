//! Wake-ups from outside: any thread ends the wait of a reader, now or as soon as it waits.

#[path = "common/sleeps.rs"]
mod sleeps;
#[path = "common/soon.rs"]
mod soon;

use sleeps::asleep;
use slipring::journal::{Visible, simulated::SimulatedDisk};
use slipring::subscriber::{Selector, Wakeup};
use slipring::{Engine, Level, Message, Record, Wait};
use soon::soon;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const UNLIMITED: Duration = Duration::MAX;

/// A call of a reader that waits up to a limit. Returns the count of events, which it commits; `None` at the end.
type Call = Box<dyn FnMut(Duration) -> Option<usize> + Send>;

struct Reader {
    name: &'static str,
    wakeup: Wakeup,
    call: Call,
    /// Publishes an event for the reader.
    publish: Box<dyn FnMut() + Send>,
    /// Closes the reader's topic.
    close: Box<dyn FnOnce() + Send>,
    engine: Engine,
}

fn subscriber(name: &'static str, partitions: usize, paused: Option<u32>, wait: Wait) -> Reader {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(partitions).create().unwrap();
    let mut tape = topic.subscribe("tape").wait(wait).poll().unwrap();
    paused.into_iter().for_each(|partition| tape.pause(partition).unwrap());
    let mut producer = topic.producer().create().unwrap();
    let wakeup = tape.wakeup();
    let call = move |limit| tape.poll(limit).unwrap().map(|mut batch| (&mut batch).into_iter().count());
    let publish = move || {
        producer.publish_to(0, |_| ()).unwrap();
    };
    let close = move || topic.close();
    Reader { name, wakeup, call: Box::new(call), publish: Box::new(publish), close: Box::new(close), engine }
}

fn visible_subscriber() -> Reader {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").durable().create().unwrap();
    let mut tape = topic.subscribe("tape").visible(Visible::Durable).poll().unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    let wakeup = tape.wakeup();
    let call = move |limit| tape.poll(limit).unwrap().map(|mut batch| (&mut batch).into_iter().count());
    let publish = move || {
        producer.publish(|_| ()).unwrap();
    };
    let close = move || topic.close();
    let name = "a subscriber that waits for the journal";
    Reader { name, wakeup, call: Box::new(call), publish: Box::new(publish), close: Box::new(close), engine }
}

fn member(name: &'static str, paused: bool, rejoins: bool) -> Reader {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(2).create().unwrap();
    let mut member = topic.group("sums").join().unwrap();
    let wakeup = member.wakeup();
    assert!(member.poll(NOW).unwrap().unwrap().is_empty());
    if rejoins {
        member.rejoin().unwrap();
        assert!(member.poll(NOW).unwrap().unwrap().is_empty());
    }
    if paused {
        member.pause(&member.assignment()[1].clone()).unwrap();
    }
    let mut producer = topic.producer().create().unwrap();
    let call = move |limit| {
        let batch = member.poll(limit).unwrap()?;
        let count = batch.iter().count();
        batch.commit().unwrap();
        Some(count)
    };
    let publish = move || {
        producer.publish_to(0, |_| ()).unwrap();
    };
    let close = move || topic.close();
    Reader { name, wakeup, call: Box::new(call), publish: Box::new(publish), close: Box::new(close), engine }
}

fn selector() -> Reader {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("numbers").create().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut worker = jobs.queue("resize").join().unwrap();
    let mut selector = Selector::round_robin();
    let wakeup = selector.wakeup();
    // Other readers, so that the selector begins anew with the next ones.
    assert_eq!(selector.select(&mut [&mut tape], NOW), Ok(None));
    let call = move |limit| match selector.select(&mut [&mut tape, &mut worker], limit).unwrap() {
        None => Some(0),
        Some(0) => tape.poll(NOW).unwrap().map(|mut batch| (&mut batch).into_iter().count()),
        Some(_) => panic!("the queue has no message"),
    };
    let mut producer = topic.producer().create().unwrap();
    let publish = move || {
        producer.publish(|_| ()).unwrap();
    };
    let close = move || {
        topic.close();
        drop(jobs);
    };
    let name = "a selector";
    Reader { name, wakeup, call: Box::new(call), publish: Box::new(publish), close: Box::new(close), engine }
}

fn worker() -> Reader {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    let mut worker = jobs.queue("resize").join().unwrap();
    let wakeup = worker.wakeup();
    let call = move |limit| {
        // The end of the queue is an error.
        let lease = worker.receive(limit).ok()?;
        Some(lease.map_or(0, |lease| {
            lease.ack().unwrap();
            1
        }))
    };
    let mut producer = jobs.producer().create().unwrap();
    let publish = move || {
        producer.send(Record::new("cat.png")).unwrap();
    };
    let close = move || jobs.close();
    let name = "a worker of a queue";
    Reader { name, wakeup, call: Box::new(call), publish: Box::new(publish), close: Box::new(close), engine }
}

fn replay() -> Reader {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").durable().create().unwrap();
    let mut replay = topic.replay("tape").open().unwrap();
    let wakeup = replay.wakeup();
    let call = move |limit| replay.read(limit, |_, _| ()).unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    let publish = move || {
        producer.publish(|_| ()).unwrap();
    };
    let close = move || topic.close();
    Reader {
        name: "a replay",
        wakeup,
        call: Box::new(call),
        publish: Box::new(publish),
        close: Box::new(close),
        engine,
    }
}

fn transform() -> Reader {
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").durable().create().unwrap();
    let sums = engine.topic::<u64>("sums").durable().retain(8).create().unwrap();
    let mut transform = topic.transform("sum").open().unwrap();
    let wakeup = transform.wakeup();
    let call = move |limit| transform.step(limit, |_, _, out| out.publish(&sums, |_| ())).unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    let publish = move || {
        producer.publish(|_| ()).unwrap();
    };
    let close = move || topic.close();
    let name = "a transform";
    Reader { name, wakeup, call: Box::new(call), publish: Box::new(publish), close: Box::new(close), engine }
}

/// Each kind of reader, made when its turn comes.
fn readers() -> impl Iterator<Item = Reader> {
    let each: [fn() -> Reader; 12] = [
        || subscriber("a subscriber", 2, None, Wait::default()),
        || {
            subscriber(
                "a subscriber that sleeps at once",
                1,
                None,
                Wait::spin_then_park().spin_for(Duration::ZERO).yields(0),
            )
        },
        || subscriber("a subscriber of many partitions", 40, None, Wait::default()),
        || subscriber("a subscriber with a paused partition", 2, Some(1), Wait::default()),
        || visible_subscriber(),
        || member("a member", false, false),
        || member("a member with a paused partition", true, false),
        || member("a member that has joined again", false, true),
        || selector(),
        || worker(),
        || replay(),
        || transform(),
    ];
    each.into_iter().map(|make| make())
}

#[test]
fn a_reader_that_waits_without_limit_returns_as_if_its_limit_had_passed() {
    for Reader { name, wakeup, mut call, mut publish, engine: _engine, .. } in readers() {
        println!("{name}");
        let sleeper = asleep(move || (call(UNLIMITED), call));
        wakeup.wake();
        let (found, mut call) = sleeper.join();
        assert_eq!(found, Some(0), "{name}");
        publish();
        assert_eq!(soon(name, move || call(UNLIMITED)), Some(1), "{name}: one wake-up ends one wait");
    }
}

#[test]
fn a_reader_that_spins_is_woken_too() {
    let busy = subscriber("a subscriber that spins", 1, None, Wait::busy_spin());
    let Reader { name, wakeup, mut call, engine: _engine, .. } = busy;
    let reader = std::thread::spawn(move || soon(name, move || call(UNLIMITED)));
    wakeup.wake();
    assert_eq!(reader.join().unwrap(), Some(0));
}

#[test]
fn a_wake_up_before_the_wait_ends_that_wait_and_no_other() {
    for Reader { name, wakeup, mut call, mut publish, engine: _engine, .. } in readers() {
        soon(name, move || {
            wakeup.wake();
            wakeup.clone().wake();
            assert_eq!(call(NOW), Some(0), "{name}");
            assert_eq!(call(UNLIMITED), Some(0), "{name}: a call that does not wait has not used the wake-up up");
            publish();
            assert_eq!(call(UNLIMITED), Some(1), "{name}: two wake-ups before a wait end only that one");
        });
    }
}

#[test]
fn a_wait_that_finds_something_leaves_the_wake_up_to_the_next() {
    for Reader { name, wakeup, mut call, mut publish, engine: _engine, .. } in readers() {
        soon(name, move || {
            publish();
            wakeup.wake();
            // A reader of the journal may see the event only in its second wait.
            let mut found = [call(UNLIMITED), call(UNLIMITED)];
            found.sort();
            assert_eq!(found, [Some(0), Some(1)], "{name}");
        });
    }
}

#[test]
fn a_late_wake_up_is_harmless() {
    for Reader { name, wakeup, mut call, close, engine, .. } in readers() {
        if name.contains("paused") {
            // Its end comes when the paused partition is read.
            continue;
        }
        soon(name, move || {
            close();
            assert_eq!(call(UNLIMITED), None, "{name}");
            wakeup.wake();
            assert_eq!(call(UNLIMITED), None, "{name}: the end comes before a wake-up");
            wakeup.wake();
            drop(call);
            wakeup.wake();
            drop(engine);
            wakeup.wake();
            assert!(format!("{wakeup:?}").contains("is_set: true"));
        });
    }
}

/// Of the threads that wait at a queue one watches and the others are idle. The one that is woken leaves, and the others
/// wait on, also if the one that watches has left.
#[test]
fn each_of_many_workers_is_woken_by_its_own_handle_only() {
    for first in 0..3 {
        let engine = Engine::builder().build().unwrap();
        let jobs = engine.topic::<Message>("jobs").create().unwrap();
        let mut sleepers: Vec<_> = (0..3)
            .map(|_| {
                let mut worker = jobs.queue("resize").join().unwrap();
                (worker.wakeup(), asleep(move || worker.receive(UNLIMITED).unwrap().map(|lease| lease.ack())))
            })
            .collect();
        let (wakeup, woken) = sleepers.remove(first);
        wakeup.wake();
        assert!(woken.join().is_none());
        let (wakeup, woken) = sleepers.remove(0);
        wakeup.wake();
        assert!(woken.join().is_none());
        let (_, last) = sleepers.remove(0);
        assert!(!last.is_over());
        jobs.producer().create().unwrap().send(Record::new("cat.png")).unwrap();
        assert_eq!(last.join(), Some(Ok(())), "the message goes to the worker that waits on");
    }
}

#[test]
fn a_handle_is_shared_by_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let Reader { wakeup, .. } = worker();
    shared(&wakeup);
}
