//! Queues of durable topics: what outlives the process and the power, with time and the disk in the test's hands.

use slipring::journal::repair::repair;
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::storage::Disk;
use slipring::journal::{Options, Retention};
use slipring::{
    Engine, EngineError, Level, Message, Record, Topic,
    clock::{Clock, ManualClock, Timestamp},
    dead_letter::{DeadLetter, DeadLetterError},
    queue::{Backoff, Job, Lease, LeaseError, Order, Queue, QueueBuilder, QueueError, Ticket, Worker},
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::sleeps::{asleep, sleeps};

use crate::crash::at_each_call;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);
const MS: fn(u64) -> Duration = Duration::from_millis;
const SEGMENT: u64 = 1 << 18;

fn try_engine(disk: &SimulatedDisk, clock: &ManualClock) -> Result<Engine, EngineError> {
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    Engine::builder().clock(clock.clone()).journal_in(disk.clone()).journal_options(options).build()
}

fn topic(engine: &Engine) -> Option<Topic<Message>> {
    engine.topic::<Message>("jobs").partitions(2).capacity(32).max_message(64).durable().create().ok()
}

/// A process: its engine, and one durable topic.
struct Process {
    engine: Engine,
    jobs: Topic<Message>,
}

impl Process {
    fn start(disk: &SimulatedDisk, clock: &ManualClock) -> Self {
        let engine = try_engine(disk, clock).unwrap();
        let jobs = topic(&engine).unwrap();
        Self { engine, jobs }
    }

    fn queue(&self) -> QueueBuilder<Message> {
        self.jobs.queue("q").visibility(MS(1000)).max_attempts(2).acknowledge(Level::Written)
    }

    fn send(&self, partition: u32, values: impl IntoIterator<Item = u64>) {
        let mut producer = self.jobs.producer().create().unwrap();
        for value in values {
            let receipt = producer.send(Record::new(&value.to_string()).partition(partition)).unwrap();
            receipt.wait(Level::Written).unwrap();
        }
    }

    fn end(self) {
        let report = self.engine.shutdown(LONG);
        assert!(matches!(report.journal, Some(Ok(()))), "{report}");
    }
}

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_millis(1_700_000_000_000))
}

fn text(lease: &Lease) -> u64 {
    std::str::from_utf8(lease.message().value()).unwrap().parse().unwrap()
}

fn take(worker: &mut Worker) -> Lease {
    worker.receive(LONG).unwrap().expect("there is a message")
}

fn letters<E: Job>(queue: &Queue<E>) -> Vec<DeadLetter> {
    queue.dead_letters().collect::<Result<_, _>>().unwrap()
}

fn is_idle(worker: &mut Worker) -> bool {
    worker.receive(NOW).unwrap().is_none()
}

#[test]
fn leases_attempts_delays_and_acks_outlive_the_process() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = Process::start(&disk, &clock);
    first.send(0, 0..6);
    let mut worker = first.queue().join().unwrap();
    let leases: Vec<_> = (0..5).map(|_| take(&mut worker)).collect();
    assert_eq!(leases.iter().map(text).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let mut leases = leases.into_iter();
    leases.next().unwrap().ack().unwrap();
    leases.next().unwrap().nack(MS(5000), "later").unwrap();
    let left = leases.next().unwrap().leave();
    let mut renewed = leases.next().unwrap();
    renewed.renew(MS(3000)).unwrap();
    let renewed = renewed.leave();
    leases.next().unwrap().nack(NOW, "once").unwrap();
    let twice = take(&mut worker);
    assert_eq!((text(&twice), twice.attempt()), (4, 2));
    twice.leave();
    // Another process sees the same, whether this one ended or was killed.
    for disk in [disk.copy(), {
        drop(worker);
        first.end();
        disk
    }] {
        let clock = ManualClock::at(clock.wall());
        clock.advance(MS(100));
        let second = Process::start(&disk, &clock);
        let mut worker = second.queue().join().unwrap();
        let queue = worker.queue();
        let counts = queue.metrics();
        assert_eq!((counts.leased, counts.waiting, counts.unread > 0), (3, 1, true), "{counts:?}");
        let new = take(&mut worker);
        assert_eq!((text(&new), new.attempt()), (5, 1));
        new.ack().unwrap();
        assert!(is_idle(&mut worker), "all others are leased or delayed");

        // One goes on with its lease, the other comes too late.
        clock.advance(MS(899));
        let resumed = queue.resume(&left).unwrap();
        assert_eq!((text(&resumed), resumed.attempt(), resumed.left()), (2, 1, MS(1)));
        clock.advance(MS(1));
        let refused = resumed.ack().unwrap_err();
        assert!(matches!(refused, LeaseError::Expired { offset: 2, .. }), "{refused}");
        assert!(matches!(queue.resume(&left), Err(LeaseError::Over { offset: 2, .. })));
        let again = take(&mut worker);
        assert_eq!((text(&again), again.attempt()), (2, 2), "it ran out while nobody had the queue open");
        again.ack().unwrap();
        assert!(is_idle(&mut worker));
        let letters = letters(&queue);
        assert_eq!((letters.len(), letters[0].offset, letters[0].attempts), (1, 4, 2), "{letters:?}");
        queue.resume(&renewed.to_string().parse::<Ticket>().unwrap()).unwrap().ack().unwrap();
        clock.advance(MS(3999));
        assert!(is_idle(&mut worker), "the delay is not over");
        clock.advance(MS(1));
        let delayed = take(&mut worker);
        assert_eq!((text(&delayed), delayed.attempt()), (1, 2));
        delayed.ack().unwrap();
        let counts = queue.metrics();
        assert_eq!((counts.leased, counts.waiting, counts.dying), (0, 0, 0), "{counts:?}");
        drop((worker, queue));
        second.end();
    }
}

#[test]
fn a_queue_reads_on_where_it_was_also_without_the_ring() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = Process::start(&disk, &clock);
    // More than the ring holds: producers do not wait for a queue that the journal can serve.
    let queue = first.queue().open().unwrap();
    first.send(0, 0..100);
    first.send(1, 100..120);
    drop(queue);
    first.end();
    let mut seen = BTreeSet::new();
    for round in 0..4 {
        let process = Process::start(&disk, &clock);
        let mut worker = process.queue().join().unwrap();
        for _ in 0..30 {
            let lease = take(&mut worker);
            assert!(seen.insert(text(&lease)), "{} came twice", text(&lease));
            lease.ack().unwrap();
        }
        if round == 3 {
            assert!(is_idle(&mut worker));
            process.send(1, [120]);
            assert_eq!(text(&take(&mut worker)), 120);
        }
        drop(worker);
        process.end();
    }
    assert_eq!(seen.len(), 120);
}

#[test]
fn dead_letters_are_sent_back_and_forgotten_across_restarts() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = Process::start(&disk, &clock);
    first.send(0, 0..5);
    let mut worker = first.queue().max_attempts(1).join().unwrap();
    for _ in 0..5 {
        take(&mut worker).nack(NOW, "no").unwrap();
    }
    let letters = |queue: &Queue| letters(queue).iter().map(|letter| letter.offset).collect::<Vec<_>>();
    assert_eq!(letters(&worker.queue()), [0, 1, 2, 3, 4]);
    assert_eq!(worker.queue().redrive(2), 2);
    assert_eq!(letters(&worker.queue()), [2, 3, 4]);
    let again = take(&mut worker);
    assert_eq!((text(&again), again.attempt()), (0, 1));
    again.ack().unwrap();
    drop(worker);
    first.end();

    let second = Process::start(&disk, &clock);
    let mut worker = second.queue().max_attempts(1).join().unwrap();
    assert_eq!(letters(&worker.queue()), [2, 3, 4]);
    let again = take(&mut worker);
    assert_eq!((text(&again), again.attempt()), (1, 1));
    again.nack(NOW, "no again").unwrap();
    assert_eq!(letters(&worker.queue()), [2, 3, 4, 1]);
    assert_eq!(worker.queue().purge_dead_letters(), 4);
    drop(worker);
    second.end();

    let third = Process::start(&disk, &clock);
    let mut worker = third.queue().max_attempts(1).join().unwrap();
    assert!(letters(&worker.queue()).is_empty() && is_idle(&mut worker));
    assert_eq!(worker.queue().redrive(9), 0);
}

#[test]
fn what_is_purged_or_deleted_stays_away() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = Process::start(&disk, &clock);
    let mut producer = first.jobs.producer().create().unwrap();
    let mut worker = first.queue().join().unwrap();
    let queue = worker.queue();
    let receipts: Vec<_> = (0..4_u64)
        .map(|value| {
            let receipt = producer.send(Record::new(&value.to_string()).partition(0)).unwrap();
            receipt.wait(Level::Written).unwrap();
            receipt
        })
        .collect();
    assert!(queue.delete(&receipts[2]).unwrap() && !queue.delete(&receipts[2]).unwrap());
    let held = take(&mut worker);
    let ticket = held.ticket();
    assert_eq!(text(&held), 0);
    held.leave();
    drop((worker, queue, producer));
    first.end();

    let second = Process::start(&disk, &clock);
    let mut worker = second.queue().join().unwrap();
    let queue = worker.queue();
    let shown: Vec<u64> = queue.peek(9).iter().map(|waiting| waiting.offset).collect();
    assert_eq!(shown, [1, 3]);
    assert_eq!(queue.purge(), 2);
    assert!(is_idle(&mut worker));
    drop((worker, queue));
    second.end();

    let third = Process::start(&disk, &clock);
    let mut worker = third.queue().join().unwrap();
    let given = worker.receive(NOW).unwrap();
    assert!(given.is_none(), "{given:?}");
    worker.queue().resume(&ticket).unwrap().ack().unwrap();
    third.send(0, [9]);
    assert_eq!(text(&take(&mut worker)), 9);
}

#[test]
fn a_delayed_message_waits_through_a_restart_and_is_counted_from_its_sending() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = Process::start(&disk, &clock);
    let mut producer = first.jobs.producer().create().unwrap();
    let soon = Record::new("7").partition(0).delay(MS(500));
    producer.send(&soon).unwrap().wait(Level::Written).unwrap();
    let never_read = Record::new("8").partition(0).due(clock.wall().plus(MS(800)));
    let mut worker = first.queue().join().unwrap();
    assert!(is_idle(&mut worker));
    producer.send(&never_read).unwrap().wait(Level::Written).unwrap();
    drop((worker, producer));
    first.end();
    clock.advance(MS(400));
    let second = Process::start(&disk, &clock);
    let mut worker = second.queue().join().unwrap();
    assert!(is_idle(&mut worker));
    clock.advance(MS(99));
    assert!(is_idle(&mut worker));
    clock.advance(MS(1));
    let lease = take(&mut worker);
    assert_eq!((text(&lease), lease.attempt()), (7, 1));
    lease.ack().unwrap();
    assert!(is_idle(&mut worker));
    // Whoever sleeps is woken by the clock.
    let sleeper = asleep(move || text(&take(&mut worker)));
    clock.advance(MS(300));
    assert_eq!(sleeper.join(), 8);
}

/// The worker and the journal's thread once woke each other without end, when the names of topics and queues left a queue no
/// room in the journal's state.
#[test]
fn a_queue_without_room_in_the_journals_state_keeps_no_thread_busy_and_goes_on_when_there_is_room() {
    let options = Options { segment_size: 1 << 17, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let jobs = topic(&engine).unwrap();
    let mut worker = jobs.queue("q").join().unwrap();
    let mut names = Vec::new();
    loop {
        let name = format!("{:0200}", names.len());
        if engine.topic::<u64>(&name).capacity(2).durable().create().is_err() {
            break;
        }
        names.push(name);
    }
    assert!(names.len() > 9, "{}", names.len());
    jobs.producer().create().unwrap().send(Record::new("7")).unwrap().wait(Level::Durable).unwrap();
    let waiting = std::thread::spawn(move || {
        let before = sleeps();
        let received = worker.receive(Duration::from_secs(2)).unwrap().is_some();
        (received, sleeps() - before, worker)
    });
    let (received, woken, mut worker) = waiting.join().unwrap();
    assert!(!received && woken < 200, "received: {received}; it has slept {woken} times in two seconds");
    names.iter().for_each(|name| _ = engine.delete(name).unwrap());
    let lease = take(&mut worker);
    assert_eq!(text(&lease), 7);
    lease.ack().unwrap();
}

#[test]
fn strict_order_goes_on_behind_what_is_out() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = Process::start(&disk, &clock);
    first.send(0, 0..3);
    let mut worker = first.queue().order(Order::Strict).join().unwrap();
    let held = take(&mut worker).leave();
    assert!(is_idle(&mut worker));
    drop(worker);
    first.end();
    let second = Process::start(&disk, &clock);
    let refused = second.queue().join().unwrap_err();
    assert!(matches!(refused, QueueError::OtherOrder { out: 1, .. }), "{refused}");
    let mut worker = second.queue().order(Order::Strict).join().unwrap();
    assert!(is_idle(&mut worker), "its partition has one out");
    worker.queue().resume(&held).unwrap().ack().unwrap();
    for value in [1, 2] {
        let lease = take(&mut worker);
        assert_eq!(text(&lease), value);
        lease.ack().unwrap();
    }
}

#[test]
fn letters_of_durable_messages_need_a_durable_topic() {
    let process = Process::start(&SimulatedDisk::new(), &clock());
    process.engine.topic::<Message>("dead").max_message(1024).create().unwrap();
    let refused = process.queue().dead_letter("dead").join().unwrap_err();
    assert!(matches!(refused, QueueError::DeadLetters(DeadLetterError::InMemory { .. })), "{refused}");
    let memory = process.engine.topic::<Message>("memory").create().unwrap();
    let refused = memory.queue("q").acknowledge(Level::Durable).join().unwrap_err();
    assert!(matches!(refused, QueueError::Unsupported(_)), "{refused}");
}

#[test]
fn a_side_store_that_is_full_in_bytes_reads_bodies_from_the_journal() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let process = Process::start(&disk, &clock);
    process.send(0, 0..50);
    let backoff = Backoff::exponential(MS(100), MS(1000));
    let mut worker = process.queue().max_bytes(500).backoff(backoff).join().unwrap();
    let leases: Vec<_> = (0..50).map(|_| take(&mut worker)).collect();
    assert!(worker.queue().metrics().bytes < 500);
    drop(leases);
    assert!(is_idle(&mut worker));
    clock.advance(MS(100));
    let again: Vec<_> = (0..50).map(|_| take(&mut worker)).collect();
    assert_eq!(again.iter().map(text).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    assert!(again.iter().all(|lease| lease.attempt() == 2));
}

#[test]
fn more_leases_than_the_journals_state_may_hold_give_nothing_new_and_break_nothing() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let process = Process::start(&disk, &clock);
    // Every sixteenth message is left over, so that each takes a block of its own.
    let mut worker = process.queue().acknowledge(Level::Published).join().unwrap();
    let mut left = 0;
    let mut next = 0;
    while !worker.queue().metrics().full {
        process.send(0, next..next + 16);
        next += 16;
        for index in 0..16 {
            let Some(lease) = worker.receive(NOW).unwrap() else { break };
            match index {
                0 => {
                    lease.leave();
                    left += 1;
                }
                _ => lease.ack().unwrap(),
            }
        }
        assert!(next < 100_000, "a state of {SEGMENT} bytes holds them all");
    }
    assert!(left > 20, "{left}");
    assert!(process.jobs.closed().is_none());
    // It goes on when leases have ended.
    let queue = worker.queue();
    clock.advance(MS(1000));
    let sleeper = std::thread::spawn(move || {
        for _ in 0..left {
            take(&mut worker).ack().unwrap();
        }
        process.send(1, [1]);
        let lease = loop {
            let lease = take(&mut worker);
            if lease.partition() == 1 {
                break text(&lease);
            }
            lease.ack().unwrap();
        };
        (lease, process)
    });
    let (value, process) = sleeper.join().unwrap();
    assert_eq!((value, queue.metrics().expired), (1, left));
    process.engine.shutdown(LONG);
}

/// What a test knows of the messages, whatever happened to the process.
#[derive(Clone, Default)]
struct History {
    /// Acked, and told so.
    done: BTreeSet<(u32, u64)>,
    /// Acked, and perhaps told so.
    perhaps: BTreeSet<(u32, u64)>,
    /// Given to somebody who has not said anything: attempts, and until when by the world's clock.
    held: BTreeMap<(u32, u64), (u32, Timestamp)>,
    /// Given back, with the time before which it must not come.
    back: BTreeMap<(u32, u64), (u32, Timestamp)>,
    sent: BTreeSet<(u32, u64)>,
}

const MESSAGES: u64 = 16;

impl History {
    /// A message was given out.
    fn given(&mut self, lease: &Lease, wall: Timestamp, about: &str) {
        let at = (lease.partition(), lease.offset());
        assert!(!self.done.contains(&at), "{about}: {at:?} was acked");
        if let Some((attempts, until)) = self.held.remove(&at) {
            assert!(wall >= until, "{about}: {at:?} has a holder until {until}, and it is {wall}");
            assert!(lease.attempt() > attempts, "{about}: attempts of {at:?}");
        }
        if let Some((attempts, due)) = self.back.remove(&at) {
            assert!(wall >= due, "{about}: {at:?} is delayed until {due}, and it is {wall}");
            assert!(lease.attempt() > attempts, "{about}: attempts of {at:?}");
        }
        assert!(lease.attempt() <= 2, "{about}: attempts of {at:?}");
    }

    fn work(&mut self, worker: &mut Worker, clock: &ManualClock, about: &str) -> Option<()> {
        while let Some(lease) = worker.receive(MS(1)).ok()? {
            self.given(&lease, clock.wall(), about);
            let (at, attempt, wall) = ((lease.partition(), lease.offset()), lease.attempt(), clock.wall());
            match (at.1 + u64::from(at.0)) % 4 {
                // Never done.
                0 => {
                    self.back.insert(at, (attempt, wall));
                    lease.nack(NOW, "never").ok()?;
                }
                1 if attempt == 1 => {
                    self.held.insert(at, (attempt, wall.plus(lease.left())));
                    lease.leave();
                }
                2 if attempt == 1 => {
                    self.back.insert(at, (attempt, wall));
                    lease.nack(MS(300), "later").ok()?;
                    self.back.insert(at, (attempt, wall.plus(MS(300))));
                }
                _ => {
                    // Until it is told, that may count or not.
                    self.perhaps.insert(at);
                    lease.ack().ok()?;
                    self.done.insert(at);
                }
            }
        }
        Some(())
    }
}

/// Sends what is missing and works until nothing is left, or something fails.
fn run(disk: &SimulatedDisk, clock: &ManualClock, history: &mut History, about: &str) -> Option<BTreeSet<(u32, u64)>> {
    let engine = try_engine(disk, clock).ok()?;
    let dead = (|| {
        let jobs = topic(&engine)?;
        let mut producer = jobs.producer().create().ok()?;
        while (history.sent.len() as u64) < MESSAGES {
            let number = history.sent.len() as u64;
            let value = number.to_string();
            let receipt = producer.send(Record::new(&value).partition((number % 2) as u32)).ok()?;
            receipt.wait(Level::Durable).ok()?;
            history.sent.insert((receipt.partition, receipt.offset));
        }
        let queue = jobs.queue("q").visibility(MS(1000)).max_attempts(2).acknowledge(Level::Durable);
        let mut worker = queue.join().ok()?;
        for _ in 0..8 {
            history.work(&mut worker, clock, about)?;
            clock.advance(MS(250));
        }
        let queue = worker.queue();
        let letters = queue.dead_letters().map(|letter| letter.map(|letter| (letter.partition, letter.offset)));
        let letters = letters.collect::<Result<Vec<_>, _>>().ok()?;
        let dead: BTreeSet<_> = letters.iter().copied().collect();
        assert_eq!(dead.len(), letters.len(), "{about}: a letter came twice: {letters:?}");
        let counts = queue.metrics();
        assert_eq!((counts.leased, counts.waiting, counts.dying), (0, 0, 0), "{about}: {counts:?}");
        Some(dead)
    })();
    engine.shutdown(Duration::from_secs(5));
    dead
}

#[test]
fn no_crash_gives_a_message_two_holders_or_brings_an_acked_one_back_or_loses_one() {
    let work = |disk: &SimulatedDisk, nth| {
        let (before, mut history) = (clock(), History::default());
        run(disk, &before, &mut history, &format!("before call {nth}"));
        (before, history)
    };
    let crashes = at_each_call(work, |(before, history), nth, disk| {
        for seed in [nth, nth * 31] {
            let about = format!("call {nth}, seed {seed}");
            let disk = disk.crash(seed);
            // Time goes on meanwhile, by little or by much.
            let clock = ManualClock::at(before.wall());
            clock.advance(MS(nth % 5 * 100));
            let mut history = history.clone();
            let dead = run(&disk, &clock, &mut history, &about).unwrap_or_else(|| panic!("{about}: it fails"));
            for at in &history.sent {
                assert!(!history.done.contains(at) || !dead.contains(at), "{about}: {at:?} is done and dead");
                assert!(history.perhaps.contains(at) || dead.contains(at), "{about}: {at:?} is lost");
                // An attempt that a crash cut short counts as well.
                match (at.1 + u64::from(at.0)) % 4 {
                    0 => assert!(dead.contains(at), "{about}: {at:?} is never done"),
                    3 => assert!(!dead.contains(at), "{about}: {at:?} is done at the second attempt at the latest"),
                    _ => {}
                }
            }
        }
    });
    assert!(crashes > 30, "{crashes}");
}

#[test]
fn a_deleted_queue_leaves_nothing_and_its_name_begins_anew() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = Process::start(&disk, &clock);
    first.send(0, 0..3);
    let mut worker = first.queue().max_attempts(1).join().unwrap();
    take(&mut worker).nack(NOW, "no").unwrap();
    let held = take(&mut worker);
    let refused = first.jobs.delete_queue("q").unwrap_err();
    assert!(matches!(refused, QueueError::InUse { workers: 1, leased: 1, .. }), "{refused}");
    let report = first.jobs.delete_queue_forced("q").unwrap();
    assert_eq!((report.leased, report.durable), (1, true), "{report}");
    assert!(matches!(held.ack().unwrap_err(), LeaseError::Deleted { .. }));
    assert!(worker.receive(LONG).unwrap_err().to_string().contains("deleted"));
    drop(worker);
    // Another one of its name reads everything, and has no dead letters.
    let mut worker = first.queue().join().unwrap();
    let again = take(&mut worker);
    assert_eq!((text(&again), again.attempt()), (0, 1));
    assert!(worker.queue().dead_letters().next().is_none());
    again.leave();
    drop(worker);
    first.end();
    // One that nobody has opened yet goes as well, and so does one with its topic.
    let second = Process::start(&disk, &clock);
    second.jobs.queue("other").open().unwrap();
    second.jobs.delete_queue("q").unwrap();
    assert!(matches!(second.jobs.delete_queue("q"), Err(QueueError::Unknown { .. })));
    assert_eq!(second.queue().open().unwrap().metrics().leased, 0);
    second.engine.delete_forced("jobs").unwrap();
    second.end();
    let (_, recovered) = slipring::journal::open(std::sync::Arc::new(disk.copy()), Options::default()).unwrap();
    assert_eq!(recovered.state.values(4).map(|(key, _)| key[0]).collect::<Vec<_>>(), *b"n", "the next number alone");
}

#[test]
fn typed_events_are_leased_die_and_come_back_in_memory_and_through_a_restart() {
    type Order = [u64; 2];
    let disk = SimulatedDisk::new();
    let open = |durable: bool| {
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let topic = engine.topic::<Order>(if durable { "kept" } else { "orders" });
        let orders = if durable { topic.durable() } else { topic }.create().unwrap();
        (engine, orders)
    };
    for durable in [false, true] {
        let (mut engine, mut orders) = open(durable);
        let mut worker = orders.queue("book").max_attempts(1).join().unwrap();
        let mut producer = orders.producer().create().unwrap();
        for number in 0..3 {
            producer.publish(|order| *order = [number, 100 + number]).unwrap();
        }
        worker.receive(LONG).unwrap().unwrap().nack(NOW, "no such account").unwrap();
        let lease = worker.receive(LONG).unwrap().unwrap();
        assert_eq!((*lease.message(), lease.attempt()), ([1, 101], 1));
        lease.ack().unwrap();
        drop(producer);
        if durable {
            drop(worker);
            assert!(engine.shutdown(LONG).journal.unwrap().is_ok());
            drop(orders);
            (engine, orders) = open(durable);
            worker = orders.queue("book").max_attempts(1).join().unwrap();
        }
        let letters = letters(&worker.queue());
        assert_eq!((letters.len(), &*letters[0].reason, letters[0].offset), (1, "no such account", 0));
        assert_eq!(worker.queue().redrive(9), 1);
        let mut seen: Vec<Order> = (0..2)
            .map(|_| {
                let lease = worker.receive(LONG).unwrap().unwrap();
                let order = *lease.message();
                lease.ack().unwrap();
                order
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [[0, 100], [2, 102]]);
        drop(worker);
        engine.shutdown(LONG);
    }
}

/// A queue that nobody works for while retention takes what it has not read was refused for good, until the topic was opened
/// anew.
#[test]
fn what_retention_takes_unread_is_lost_and_counted_and_the_queue_goes_on() {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let options = Options { segment_size: 1 << 17, ..Options::default() };
    let engine = Engine::builder().clock(clock.clone()).journal_in(disk).journal_options(options).build().unwrap();
    let keep = Retention { age: Some(Duration::from_secs(100)), bytes: None };
    let jobs = engine.topic::<Message>("jobs").capacity(32).max_message(2048).durable().keep(keep).create().unwrap();
    let mut producer = jobs.producer().acknowledge(Level::Durable).create().unwrap();
    let mut worker = jobs.queue("q").visibility(LONG * 60).join().unwrap();
    producer.send(Record::new(&[7; 1500])).unwrap();
    let held = take(&mut worker);
    for _ in 1..400 {
        producer.send(Record::new(&[7; 1500])).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    engine.retain().unwrap();
    let next = take(&mut worker);
    assert!((200..=300).contains(&next.offset()), "{next:?}");
    let counts = worker.queue().metrics();
    assert_eq!((counts.lost, counts.leased), (next.offset() - 1, 2), "{counts:?}");
    held.ack().unwrap();
    assert_eq!(take(&mut worker).offset(), next.offset() + 1);
}

/// A repair leaves a gap, which was the end of every queue that had not read so far.
#[test]
fn a_queue_goes_on_behind_what_a_repair_could_not_save() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let open = || {
        let options = Options { segment_size: 1 << 17, ..Options::default() };
        let engine = Engine::builder().clock(clock.clone()).journal(folder.path()).journal_options(options);
        let engine = engine.build().unwrap();
        let jobs = engine.topic::<Message>("jobs").capacity(32).max_message(2048).durable().create().unwrap();
        let worker = jobs.queue("q").join().unwrap();
        (engine, jobs, worker)
    };
    {
        let (engine, jobs, worker) = open();
        let mut producer = jobs.producer().create().unwrap();
        (0..400).for_each(|_| _ = producer.send(Record::new(&[7; 1500])).unwrap());
        drop((producer, worker));
        assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))));
    }
    let mut segments: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| std::fs::metadata(path).unwrap().len() >= 1 << 17);
    segments.sort();
    std::fs::remove_file(&segments[2]).unwrap();
    repair(Arc::new(Disk::new(folder.path())), 0, &mut |_| {}).unwrap();
    let (_engine, _, mut worker) = open();
    let mut seen = 0;
    let last = loop {
        let lease = take(&mut worker);
        seen += 1;
        let offset = lease.offset();
        lease.ack().unwrap();
        if offset == 399 {
            break offset;
        }
    };
    assert!((200..390).contains(&seen), "{seen} up to {last}");
}

/// After a crash a partition goes on some thousands of offsets further on: these are no messages.
#[test]
fn what_a_crash_leaves_out_is_not_unread() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let before = Process::start(&disk, &clock);
    let mut worker = before.queue().join().unwrap();
    before.send(0, 0..5);
    (0..2).for_each(|_| worker.receive(LONG).unwrap().unwrap().ack().unwrap());
    let after = Process::start(&disk.copy(), &clock);
    let mut worker = after.queue().join().unwrap();
    after.send(0, 5..7);
    assert_eq!(worker.queue().metrics().unread, 5);
    for left in (0..5).rev() {
        let lease = worker.receive(LONG).unwrap().unwrap();
        assert_eq!(lease.message().value(), (6 - left).to_string().as_bytes());
        lease.ack().unwrap();
        assert_eq!(worker.queue().metrics().unread, left);
    }
    drop(worker);
    after.end();
    drop(before);
}

/// The letters of the deleted topic's queue had room for larger messages, and refused the next queue of that name.
#[test]
fn what_dead_letters_a_deleted_topic_leaves_refuses_no_queue_of_a_new_one() {
    let disk = SimulatedDisk::new();
    for (round, max_message) in [4096, 64, 1024, 64].into_iter().enumerate() {
        let options = Options { segment_size: SEGMENT, ..Options::default() };
        let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap();
        let jobs = engine.topic::<Message>("jobs").max_message(max_message).durable().create().unwrap();
        let mut worker = jobs.queue("resize").max_attempts(1).join().unwrap();
        jobs.producer().create().unwrap().send(Record::new("cat.png")).unwrap();
        worker.receive(LONG).unwrap().unwrap().nack(Duration::ZERO, "no such file").unwrap();
        drop(worker);
        assert_eq!(jobs.queue("resize").max_attempts(1).open().unwrap().dead_letters().count(), 1, "round {round}");
        engine.delete_forced("jobs").unwrap();
        engine.shutdown(LONG);
    }
}

/// A gap that a repair had left ended each pass over the dead letters in silence: those behind it could neither be seen nor sent
/// back. Damage ended it in silence too.
#[test]
fn dead_letters_are_read_on_behind_a_gap_and_damage_before_it_is_told() {
    const LETTERS: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options { segment_size: 1 << 17, ..Options::default() };
        let engine = Engine::builder().journal(folder.path()).journal_options(options).build().unwrap();
        let topic =
            |name, largest| engine.topic::<Message>(name).capacity(64).max_message(largest).durable().create().unwrap();
        let (_dead, jobs) = (topic("dead", 4096), topic("jobs", 2048));
        let worker = jobs.queue("q").max_attempts(1).dead_letter("dead").join().unwrap();
        (engine, jobs, worker)
    };
    {
        let (engine, jobs, mut worker) = open();
        let mut producer = jobs.producer().create().unwrap();
        for _ in 0..LETTERS {
            producer.send(Record::new(&[7; 1500])).unwrap();
            take(&mut worker).nack(NOW, "no").unwrap();
        }
        assert_eq!(worker.queue().dead_letters().count() as u64, LETTERS);
        drop((producer, worker));
        assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))));
    }
    let mut segments: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| std::fs::metadata(path).unwrap().len() >= 1 << 17);
    segments.sort();
    let middle = segments[segments.len() / 2].clone();
    let mut bytes = std::fs::read(&middle).unwrap();
    bytes[1 << 15..3 << 15].fill(0xa5);
    {
        // While it is open, the segment is damaged.
        let (engine, _, worker) = open();
        std::fs::write(&middle, &bytes).unwrap();
        let (read, refused): (Vec<_>, Vec<_>) = worker.queue().dead_letters().partition(Result::is_ok);
        assert!((10..LETTERS as usize).contains(&read.len()), "{} were read", read.len());
        let [Err(refused)] = &refused[..] else { panic!("{refused:?}") };
        assert!(
            refused.to_string().contains("damaged") && refused.to_string().contains("read up to offset"),
            "{refused}"
        );
        drop(worker);
        engine.shutdown(LONG);
    }
    repair(Arc::new(Disk::new(folder.path())), 0, &mut |_| {}).unwrap();
    let (engine, _, worker) = open();
    let offsets = letters(&worker.queue()).iter().map(|letter| letter.offset).collect::<Vec<_>>();
    let gap = engine.gaps();
    assert!(offsets.len() as u64 > LETTERS / 2 && offsets.last() == Some(&(LETTERS - 1)), "{gap:?}: {offsets:?}");
    assert!(offsets.windows(2).any(|pair| pair[1] > pair[0] + 1), "{gap:?}: {offsets:?}");
    assert_eq!(worker.queue().purge_dead_letters(), offsets.len() as u64);
}
