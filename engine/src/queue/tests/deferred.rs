//! A topic for dead letters gets its slots with the first letter, or when the program gets the topic from the engine.

use super::*;
use crate::topic::deferred::tests::AT_MAKING;
use crate::topic::{Closed, TopicError};
use std::sync::Barrier;

const LONG: Duration = Duration::from_secs(60);
const DEAD: &str = "jobs.q.dead";

/// As [`open`](super::open), with small segments: these tests open many journals.
fn open(disk: &SimulatedDisk, clock: &ManualClock) -> (Engine, Topic<u64>, Worker<u64>) {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).clock(clock.clone());
    let engine = engine.build().unwrap();
    let jobs = engine.topic::<u64>("jobs").durable().create().unwrap();
    let worker = jobs.queue("q").max_attempts(1).acknowledge(Level::Durable).join().unwrap();
    (engine, jobs, worker)
}

fn in_memory() -> (Engine, Topic<u64>, Worker<u64>) {
    let engine = Engine::builder().build().unwrap();
    let jobs = engine.topic::<u64>("jobs").create().unwrap();
    let worker = jobs.queue("q").max_attempts(1).join().unwrap();
    (engine, jobs, worker)
}

/// Opens the queue in memory, then in a journal.
fn both() -> [(Engine, Topic<u64>, Worker<u64>); 2] {
    [in_memory(), open(&SimulatedDisk::new(), &ManualClock::new())]
}

fn publish(jobs: &Topic<u64>) {
    jobs.producer().create().unwrap().publish(|event| *event = 7).unwrap();
}

/// Publishes a message, and lets its only attempt fail.
fn fail(jobs: &Topic<u64>, worker: &mut Worker<u64>) {
    publish(jobs);
    worker.receive(Duration::MAX).unwrap().unwrap().nack(Duration::ZERO, "no").unwrap();
}

fn memory(engine: &Engine, topic: &str) -> u64 {
    engine.describe(topic).unwrap().memory
}

/// How many messages of the queue are dead letters, and how many are to become one.
fn dead_and_dying<E: Job>(queue: &Queue<E>) -> (u64, u64) {
    let metrics = queue.metrics();
    (metrics.dead, metrics.dying)
}

#[test]
fn a_queue_without_dead_letters_has_no_slots_for_them() {
    for (engine, jobs, mut worker) in both() {
        let queue = worker.queue();
        publish(&jobs);
        worker.receive(Duration::MAX).unwrap().unwrap().ack().unwrap();
        assert!(queue.dead_letters().next().is_none());
        assert_eq!((queue.redrive(9), queue.purge_dead_letters()), (0, 0));
        let metrics = engine.metrics();
        let dead = metrics.topic(DEAD).unwrap();
        assert_eq!((dead.published, dead.partitions.len(), dead.capacity), (0, 1, 1024));
        let is_durable = jobs.inner.durable.is_some();
        let reader = if is_durable { "journal" } else { "dead.jobs.q" };
        assert_eq!(dead.consumers.iter().map(|it| &*it.name).collect::<Vec<_>>(), [reader]);
        let described = engine.describe(DEAD).unwrap();
        assert_eq!((described.producers, described.closed), (1, None));
        assert_eq!(memory(&engine, DEAD), 0, "what was asked needs no slots");
        let clone = engine.clone();
        drop((jobs, worker));
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        let of_dead = report.topics.iter().find(|topic| topic.name == DEAD).unwrap();
        assert_eq!((&of_dead.published, &of_dead.closed), (&vec![0], &Some(Closed::Closed)));
        assert_eq!(clone.describe(DEAD).unwrap().closed, Some(Closed::Closed));
        assert!(matches!(clone.get::<Message, Multi>(DEAD), Err(TopicError::Closed { .. })));
    }
}

#[test]
fn the_first_letter_makes_the_slots_and_so_does_who_asks_for_the_topic() {
    for (engine, jobs, mut worker) in both() {
        fail(&jobs, &mut worker);
        assert!(memory(&engine, DEAD) > 0);
        assert_eq!(worker.queue().dead_letters().count(), 1);
        assert_eq!(engine.describe(DEAD).unwrap().producers, 1);
    }
    for (engine, jobs, mut worker) in both() {
        let dead = engine.get::<Message, Multi>(DEAD).unwrap();
        assert_eq!((dead.partitions(), memory(&engine, DEAD) > 0), (1, true));
        dead.add_partitions(1).unwrap();
        let mut reader = dead.subscribe("reader").poll().unwrap();
        (0..2).for_each(|_| fail(&jobs, &mut worker));
        let mut seen = 0;
        while seen < 2 {
            seen += reader.poll(LONG).unwrap().unwrap().into_iter().count();
        }
        assert_eq!(worker.queue().dead_letters().count(), 2);
    }
}

#[test]
fn the_letters_of_an_earlier_process_are_read_and_sent_back_without_slots() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let (engine, jobs, mut worker) = open(&disk, &clock);
    (0..2).for_each(|_| fail(&jobs, &mut worker));
    drop((jobs, worker));
    assert!(engine.shutdown(LONG).is_complete());
    let (engine, jobs, mut worker) = open(&disk, &clock);
    let queue = worker.queue();
    assert_eq!(queue.dead_letters().count(), 2);
    assert_eq!(queue.redrive(1), 1);
    worker.receive(Duration::MAX).unwrap().unwrap().ack().unwrap();
    assert_eq!(memory(&engine, DEAD), 0);
    fail(&jobs, &mut worker);
    let letters: Vec<u64> = queue.dead_letters().map(|letter| letter.unwrap().offset).collect();
    assert_eq!(letters.len(), 2);
    assert!(letters[0] == 1 && letters[1] > 1, "{letters:?}");
}

/// A reader that opens the topic while the first letter is published reads the letter, and so does the queue.
#[test]
fn the_first_letter_and_the_first_reader_find_the_same_slots() {
    for _ in 0..40 {
        for (engine, jobs, mut worker) in both() {
            publish(&jobs);
            let lease = worker.receive(Duration::MAX).unwrap().unwrap();
            let both = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    let dead = engine.get::<Message, Multi>(DEAD).unwrap();
                    let seen = if dead.inner.durable.is_some() {
                        dead.replay("reader").open().unwrap().read(LONG, |_, _| ()).unwrap().unwrap()
                    } else {
                        let mut reader = dead.subscribe("reader").poll().unwrap();
                        reader.poll(LONG).unwrap().unwrap().into_iter().count()
                    };
                    assert_eq!(seen, 1, "the reader misses the letter");
                });
                both.wait();
                lease.nack(Duration::ZERO, "no").unwrap();
            });
            assert_eq!(worker.queue().dead_letters().count(), 1, "the queue misses the letter");
        }
    }
}

#[test]
fn the_first_letters_of_two_queues_with_one_topic_are_both_kept() {
    for round in 0..80 {
        let engine = Engine::builder();
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        let engine = match round % 2 {
            0 => engine,
            _ => engine.journal_in(SimulatedDisk::new()).journal_options(options),
        };
        let engine = engine.build().unwrap();
        let jobs = engine.topic::<u64>("jobs");
        let jobs = if round % 2 == 0 { jobs.create() } else { jobs.durable().create() }.unwrap();
        let join = |name| jobs.queue(name).max_attempts(1).dead_letter("dead").join().unwrap();
        let mut workers = ["a", "b"].map(join);
        publish(&jobs);
        let leases = workers.each_mut().map(|worker| worker.receive(Duration::MAX).unwrap().unwrap());
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            for lease in leases {
                scope.spawn(|| {
                    both.wait();
                    lease.nack(Duration::ZERO, "no").unwrap();
                });
            }
        });
        for worker in &workers {
            assert_eq!(worker.queue().dead_letters().count(), 1, "round {round}");
        }
        assert_eq!(engine.metrics().topic("dead").unwrap().published, 2);
    }
}

/// The subscriber that keeps a queue's letters is named after the topic and the queue. If another queue's subscriber
/// has the same name already, the queue is refused when it is opened, and not only at its first letter.
#[test]
fn two_queues_that_would_keep_their_letters_under_one_name_are_told_at_once() {
    let engine = Engine::builder().build().unwrap();
    let queue = |topic: &str, name: &str| {
        let topic = engine.topic::<u64>(topic).create().unwrap();
        topic.queue(name).dead_letter("dead").open()
    };
    let _first = queue("a.b", "c").unwrap();
    let refused = queue("a", "b.c").unwrap_err();
    assert!(matches!(refused, QueueError::DeadLetters(DeadLetterError::Reader { .. })), "{refused}");
    assert_eq!(memory(&engine, "dead"), 0);
}

/// If a message dies after a shutdown has ended the topic for dead letters, the message stays in the queue.
#[test]
fn a_first_letter_after_the_end_stays_in_the_queue() {
    for (engine, jobs, mut worker) in both() {
        publish(&jobs);
        let lease = worker.receive(Duration::MAX).unwrap().unwrap();
        let queue = worker.queue();
        let is_durable = jobs.inner.durable.is_some();
        let report = engine.shutdown(Duration::ZERO);
        lease.nack(Duration::ZERO, "no").unwrap_or_default();
        assert_eq!(dead_and_dying(&queue), (0, 1));
        let report = report.topics.iter().find(|topic| topic.name == "jobs").unwrap();
        assert_eq!((report.queues[0].leased, report.is_complete()), (1, is_durable));
    }
}

/// A last nack races with the engine's shutdown: afterwards, the journal has either the letter or the message.
#[test]
fn a_first_letter_beside_the_end_is_a_letter_or_a_message() {
    let mut seen = [0; 2];
    for round in 0..40 {
        let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
        let (engine, jobs, mut worker) = open(&disk, &clock);
        publish(&jobs);
        let lease = worker.receive(Duration::MAX).unwrap().unwrap();
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                (0..round * 50).for_each(|_| std::hint::spin_loop());
                engine.shutdown(Duration::ZERO);
            });
            both.wait();
            let _ = lease.nack(Duration::ZERO, "no");
        });
        drop((engine, jobs, worker));
        let (_engine, _jobs, worker) = open(&disk, &clock);
        let letters = worker.queue().dead_letters().count();
        clock.advance(Duration::from_secs(3600));
        let is_there = || worker.queue().dead_letters().count() == 1;
        let until = Instant::now() + LONG;
        while !is_there() {
            assert!(Instant::now() < until, "round {round}: neither a letter nor a message");
            worker.queue().peek(9);
        }
        seen[letters] += 1;
    }
    println!("{seen:?} without and with a letter");
}

fn keeps_letters(refused: &TopicError) -> bool {
    matches!(refused, TopicError::KeepsDeadLetters { name, topic, queue } if (&**name, &**topic, &**queue) == (DEAD, "jobs", "q"))
}

#[test]
fn a_topic_without_slots_is_deleted_as_one_that_has_them() {
    for (engine, jobs, mut worker) in both() {
        let refused = engine.delete(DEAD).unwrap_err();
        assert!(keeps_letters(&refused), "{refused}");
        fail(&jobs, &mut worker);
        assert_eq!(worker.queue().dead_letters().count(), 1);
        let refused = engine.delete(DEAD).unwrap_err();
        assert!(keeps_letters(&refused), "{refused}");
        assert_eq!(worker.queue().dead_letters().count(), 1);
        drop(worker);
        jobs.delete_queue("q").unwrap();
        engine.delete(DEAD).unwrap();
        // The topic for dead letters can be deleted after its queue was deleted, even without a first letter.
        jobs.queue("q").open().unwrap();
        jobs.delete_queue("q").unwrap();
        engine.delete(DEAD).unwrap();
        assert_eq!(engine.topics(), ["jobs"]);
    }
}

/// Of a durable queue they were once deleted without a word, and not reported.
#[test]
fn dead_letters_that_are_deleted_by_force_are_reported_also_of_a_queue_that_is_not_open() {
    let left = |engine: &Engine| {
        let report = engine.delete_forced(DEAD).unwrap();
        report.consumers.into_iter().map(|it| (it.name, it.partition, it.left)).collect::<Vec<_>>()
    };
    for (engine, jobs, mut worker) in both() {
        (0..3).for_each(|_| fail(&jobs, &mut worker));
        assert_eq!(worker.queue().redrive(1), 1);
        assert_eq!(left(&engine), [("dead.jobs.q".to_owned(), 0, 2)]);
    }
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let (engine, jobs, mut worker) = open(&disk, &clock);
    (0..3).for_each(|_| fail(&jobs, &mut worker));
    assert_eq!(worker.queue().redrive(1), 1);
    drop((jobs, worker));
    engine.shutdown(LONG);
    drop(engine);
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = Engine::builder().journal_in(disk).journal_options(options).build().unwrap();
    let _dead = engine.topic::<Message>(DEAD).durable().create().unwrap();
    let refused = engine.delete(DEAD).unwrap_err();
    assert!(keeps_letters(&refused), "{refused}");
    assert_eq!(left(&engine), [("dead.jobs.q".to_owned(), 0, 2)]);
}

#[test]
fn a_message_whose_topic_for_letters_was_deleted_stays_until_the_queue_is_opened_again() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let (engine, jobs, mut worker) = open(&disk, &clock);
    publish(&jobs);
    let lease = worker.receive(Duration::MAX).unwrap().unwrap();
    assert_eq!(engine.delete_forced(DEAD).unwrap().published, [0]);
    lease.nack(Duration::ZERO, "no").unwrap();
    let queue = worker.queue();
    assert_eq!(dead_and_dying(&queue), (0, 1));
    drop((jobs, worker, queue));
    engine.shutdown(LONG);
    let (_engine, _jobs, worker) = open(&disk, &clock);
    assert_eq!(worker.queue().dead_letters().count(), 1);
}

/// Power fails before the slots are made, or between that and the letter: in both cases the journal has the message.
#[test]
fn a_crash_around_the_making_of_the_slots_leaves_the_message() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let (engine, jobs, mut worker) = open(&disk, &clock);
    publish(&jobs);
    let lease = worker.receive(Duration::MAX).unwrap().unwrap();
    let mut crashes: Vec<_> = (0..4).map(|seed| disk.crash(seed)).collect();
    engine.get::<Message, Multi>(DEAD).unwrap();
    crashes.extend((0..4).map(|seed| disk.crash(seed)));
    lease.nack(Duration::ZERO, "no").unwrap();
    clock.advance(Duration::from_secs(3600));
    for crashed in crashes {
        let (_engine, _jobs, worker) = open(&crashed, &clock);
        assert_eq!(worker.queue().peek(9).len(), 0);
        assert_eq!(worker.queue().dead_letters().count(), 1);
    }
}

#[test]
fn without_memory_for_the_slots_a_message_stays_and_is_a_letter_later() {
    for (engine, jobs, mut worker) in both() {
        // For the durable queue, the journal's thread would make the slots: see
        // `the_journals_thread_makes_the_slots_too`.
        if jobs.inner.durable.is_some() {
            continue;
        }
        let mut left = 3;
        AT_MAKING.set(Some(Box::new(move || {
            left -= 1;
            left >= 0
        })));
        fail(&jobs, &mut worker);
        let queue = worker.queue();
        assert_eq!(dead_and_dying(&queue), (0, 1));
        assert!(matches!(engine.get::<Message, Multi>(DEAD), Err(TopicError::Ring { .. })));
        assert!(queue.dead_letters().next().is_none());
        assert_eq!((dead_and_dying(&queue), memory(&engine, DEAD)), ((0, 1), 0));
        assert_eq!(queue.purge_dead_letters(), 0);
        assert_eq!(dead_and_dying(&queue), (1, 0));
        assert_eq!(queue.dead_letters().count(), 1);
        AT_MAKING.set(None);
    }
}

/// The worker's thread is never given the memory for the slots, so the journal's thread makes them.
#[test]
fn the_journals_thread_makes_the_slots_too() {
    let (engine, jobs, mut worker) = open(&SimulatedDisk::new(), &ManualClock::new());
    AT_MAKING.set(Some(Box::new(|| true)));
    fail(&jobs, &mut worker);
    let until = Instant::now() + LONG;
    while worker.queue().dead_letters().next().is_none() {
        assert!(Instant::now() < until, "{:?}", worker.queue().metrics());
    }
    AT_MAKING.set(None);
    assert_eq!(dead_and_dying(&worker.queue()), (1, 0));
    assert!(memory(&engine, DEAD) > 0);
}
