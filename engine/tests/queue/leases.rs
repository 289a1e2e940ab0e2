//! What a queue promises, with time in the test's hands.

use slipring::{
    Engine, Message, Producer, Record, Topic,
    clock::{Clock, ManualClock},
    dead_letter::{DeadLetter, DeadLetterError},
    producer::PublishError,
    queue::{Lease, LeaseError, Order, Queue, QueueError, Worker},
    subscriber::SubscribeError,
};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sleeps::asleep;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);
const MS: fn(u64) -> Duration = Duration::from_millis;

struct Fixture {
    clock: ManualClock,
    engine: Engine,
    jobs: Topic<Message>,
    producer: Producer<Message>,
}

fn fixture(partitions: usize, capacity: usize) -> Fixture {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs =
        engine.topic::<Message>("jobs").partitions(partitions).capacity(capacity).max_message(64).create().unwrap();
    let producer = jobs.producer().create().unwrap();
    Fixture { clock, engine, jobs, producer }
}

impl Fixture {
    fn send(&mut self, value: &str) -> slipring::Receipt {
        self.producer.send(Record::new(value)).unwrap()
    }
}

fn text(lease: &Lease) -> String {
    String::from_utf8(lease.message().value().to_vec()).unwrap()
}

fn take(worker: &mut Worker) -> Lease {
    worker.receive(NOW).unwrap().expect("there is a message")
}

fn letters(queue: &Queue) -> Vec<DeadLetter> {
    queue.dead_letters().collect::<Result<_, _>>().unwrap()
}

fn is_idle(worker: &mut Worker) -> bool {
    worker.receive(NOW).unwrap().is_none()
}

/// Slots without a message once used up what a call may read, and the message behind them held the producer up.
#[test]
fn a_message_behind_slots_without_one_is_received_at_once() {
    for durable in [false, true] {
        let disk = slipring::journal::simulated::SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk).build().unwrap();
        let jobs = engine.topic::<u64>("jobs").capacity(8);
        let jobs = if durable { jobs.durable() } else { jobs }.create().unwrap();
        let mut producer = jobs.producer().create().unwrap();
        let mut worker = jobs.queue("q").join().unwrap();
        for _ in 0..3 {
            let fill = std::panic::AssertUnwindSafe(|| _ = producer.publish(|_| panic!("on purpose")));
            assert!(std::panic::catch_unwind(fill).is_err());
        }
        producer.publish(|event| *event = 7).unwrap();
        // A queue of a durable topic reads what is written.
        let limit = if durable { LONG } else { NOW };
        let lease = worker.receive(limit).unwrap().expect("the slots before it have no message");
        assert_eq!((*lease.message(), lease.offset()), (7, 3));
        lease.ack().unwrap();
    }
}

#[test]
fn each_message_goes_to_one_worker_and_never_again_after_its_ack() {
    let mut it = fixture(3, 8);
    let mut workers = [it.jobs.queue("q").join().unwrap(), it.jobs.queue("q").join().unwrap()];
    for round in 0..10 {
        for index in 0..6 {
            let record = it.producer.send(Record::new(&format!("{round}.{index}")).key(&[index])).unwrap();
            assert_eq!(record.topic, it.jobs.id());
        }
        let mut seen = Vec::new();
        for turn in 0..6 {
            let lease = take(&mut workers[turn % 2]);
            assert_eq!(lease.attempt(), 1);
            assert!(lease.message().key().is_some());
            seen.push(text(&lease));
            lease.ack().unwrap();
        }
        assert!(workers.iter_mut().all(is_idle));
        seen.sort();
        assert_eq!(seen, (0..6).map(|index| format!("{round}.{index}")).collect::<Vec<_>>());
    }
    let queue = it.jobs.metrics().queue("q").unwrap().clone();
    assert_eq!((queue.delivered, queue.acked, queue.redelivered, queue.leased, queue.bytes), (60, 60, 0, 0, 0));
}

#[test]
fn a_lease_that_runs_out_goes_to_the_next_worker_and_its_ack_is_refused_saying_so() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").visibility(MS(100)).join().unwrap();
    it.send("a");
    let first = take(&mut worker);
    it.clock.advance(MS(99));
    assert_eq!(first.left(), MS(1));
    assert!(is_idle(&mut worker));
    it.clock.advance(MS(1));
    let second = take(&mut worker);
    assert_eq!((second.attempt(), text(&second)), (2, "a".to_owned()));
    let refused = first.ack().unwrap_err();
    assert!(matches!(refused, LeaseError::Expired { attempt: 1, late: Duration::ZERO, .. }), "{refused:?}");
    assert!(refused.to_string().contains("ran out"), "{refused}");
    second.ack().unwrap();
    it.clock.advance(LONG);
    assert!(is_idle(&mut worker));
    assert_eq!(worker.queue().metrics().expired, 1);
}

#[test]
fn a_lease_is_refused_from_its_deadline_on_even_if_nobody_took_the_message() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").visibility(MS(100)).join().unwrap();
    it.send("a");
    let mut lease = take(&mut worker);
    it.clock.advance(MS(100));
    assert!(matches!(lease.renew(MS(100)), Err(LeaseError::Expired { .. })));
    assert!(matches!(lease.ack(), Err(LeaseError::Expired { .. })));
    take(&mut worker).ack().unwrap();
}

#[test]
fn a_renewed_lease_lasts_from_the_renewal_on() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").visibility(MS(100)).join().unwrap();
    it.send("a");
    let mut lease = take(&mut worker);
    for _ in 0..5 {
        it.clock.advance(MS(80));
        lease.renew(MS(100)).unwrap();
    }
    it.clock.advance(MS(99));
    assert!(is_idle(&mut worker));
    lease.ack().unwrap();
}

#[test]
fn a_nacked_message_comes_again_after_its_delay_and_wakes_a_worker_that_sleeps() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").join().unwrap();
    it.send("a");
    take(&mut worker).nack(MS(500), "not now").unwrap();
    assert!(is_idle(&mut worker));
    it.clock.advance(MS(499));
    assert!(is_idle(&mut worker));
    let waiting = worker.queue().peek(9);
    assert_eq!((waiting.len(), waiting[0].attempts, waiting[0].delay), (1, 1, MS(1)));
    let mut other = it.jobs.queue("q").join().unwrap();
    let sleeper = asleep(move || {
        let lease = other.receive(LONG).unwrap().expect("woken");
        let attempt = lease.attempt();
        lease.ack().unwrap();
        attempt
    });
    // Time passes up to a nanosecond before the end of the delay, and the sleeper does not look up.
    let before = sleeper.sleeps();
    for _ in 0..1000 {
        it.clock.advance(Duration::from_nanos(999));
    }
    it.clock.advance(Duration::from_nanos(999));
    assert!(is_idle(&mut worker));
    assert!(!sleeper.is_over() && sleeper.sleeps() == before, "{} looks", sleeper.sleeps() - before);
    it.clock.advance(Duration::from_nanos(1));
    assert_eq!(sleeper.join(), 2);
    assert!(is_idle(&mut worker));
}

#[test]
fn an_expiry_wakes_a_worker_that_sleeps() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").visibility(MS(10)).join().unwrap();
    it.send("a");
    let held = take(&mut worker);
    let sleeper = asleep(move || worker.receive(LONG).unwrap().map(|lease| lease.attempt()));
    let before = sleeper.sleeps();
    it.clock.advance(MS(10) - Duration::from_nanos(1));
    assert!(held.left() > NOW);
    assert!(!sleeper.is_over() && sleeper.sleeps() == before, "{} looks", sleeper.sleeps() - before);
    it.clock.advance(Duration::from_nanos(1));
    assert_eq!(sleeper.join(), Some(2));
    drop(held);
}

#[test]
fn after_the_last_attempt_a_message_is_a_dead_letter_with_the_reason() {
    let mut it = fixture(1, 8);
    let builder = || it.jobs.queue("q").visibility(MS(100)).max_attempts(2).dead_letter("dead");
    let mut worker = builder().join().unwrap();
    let receipt = it.producer.send(Record::new("a").key("k").header("trace", "7")).unwrap();
    take(&mut worker).nack(NOW, "first").unwrap();
    take(&mut worker).nack(NOW, "second").unwrap();
    assert!(is_idle(&mut worker));
    let first = letters(&worker.queue());
    assert_eq!(first.len(), 1);
    let letter = &first[0];
    assert_eq!((&*letter.topic, letter.partition, letter.offset), ("jobs", 0, receipt.offset));
    assert_eq!((&*letter.consumer, letter.attempts, &*letter.reason), ("q", 2, "second"));
    assert_eq!((letter.message.key(), letter.message.value()), (Some(&b"k"[..]), &b"a"[..]));
    assert!(letter.message.headers().eq([("trace", &b"7"[..])]));

    // The same for one that only ever runs out, with no worker asking.
    it.send("b");
    let leases = [take(&mut worker), {
        it.clock.advance(MS(100));
        take(&mut worker)
    }];
    it.clock.advance(MS(100));
    let letters = letters(&worker.queue());
    assert_eq!((letters.len(), &*letters[1].reason), (2, "the lease ran out"));
    for lease in leases {
        assert!(lease.ack().is_err());
    }
    assert_eq!(worker.queue().metrics().dead, 2);
    assert!(it.engine.topics().contains(&"dead".to_owned()));
}

#[test]
fn attempts_are_unlimited_if_told() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").unlimited_attempts().join().unwrap();
    it.send("a");
    for attempt in 1..=100 {
        let lease = take(&mut worker);
        assert_eq!(lease.attempt(), attempt);
        lease.nack(NOW, "again").unwrap();
    }
    assert!(worker.queue().dead_letters().next().is_none());
}

#[test]
fn a_lease_does_not_hold_its_slot() {
    let mut it = fixture(1, 2);
    let mut worker = it.jobs.queue("q").visibility(LONG).join().unwrap();
    it.send("held");
    let held = take(&mut worker);
    for index in 0..100 {
        it.producer.try_send(Record::new(&index.to_string())).expect("the ring has room");
        let lease = take(&mut worker);
        assert_eq!(text(&lease), index.to_string());
        if index % 2 == 0 { lease.ack().unwrap() } else { lease.nack(LONG * 2, "later").unwrap() }
    }
    assert_eq!(text(&held), "held");
    held.ack().unwrap();
    assert_eq!(worker.queue().metrics().waiting, 50);
}

#[test]
fn a_full_side_store_gives_nothing_new_and_the_topics_policy_answers_producers() {
    let mut it = fixture(1, 4);
    let mut worker = it.jobs.queue("q").max_outstanding(2).join().unwrap();
    let leases: Vec<_> = (0..2)
        .map(|index| {
            it.send(&index.to_string());
            take(&mut worker)
        })
        .collect();
    for index in 2..6 {
        it.send(&index.to_string());
    }
    assert!(is_idle(&mut worker));
    let refused = it.producer.try_send(Record::new("6")).unwrap_err();
    assert!(matches!(&refused, PublishError::Full { by: Some(by), .. } if by == "q"), "{refused}");
    assert!(worker.queue().metrics().full);
    // Whoever waits is woken by the room that an ack makes.
    let sleeper = asleep(move || {
        let lease = worker.receive(LONG).unwrap().expect("woken");
        let text = text(&lease);
        lease.ack().unwrap();
        (text, worker)
    });
    let mut leases = leases.into_iter();
    leases.next().unwrap().ack().unwrap();
    let (seen, mut worker) = sleeper.join();
    assert_eq!(seen, "2");
    // One that comes again takes the place it has.
    leases.next().unwrap().nack(NOW, "again").unwrap();
    let again = take(&mut worker);
    assert_eq!((again.attempt(), text(&again)), (2, "1".to_owned()));
    assert_eq!(worker.queue().metrics().high_water, 2);
}

#[test]
fn the_side_store_is_bounded_in_bytes_too() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").max_bytes(200).join().unwrap();
    (0..8).for_each(|_| _ = it.send("0123456789"));
    let held: Vec<_> = std::iter::from_fn(|| worker.receive(NOW).unwrap()).collect();
    let queue = worker.queue().metrics();
    assert!(queue.full && (2..8).contains(&held.len()), "{queue:?}");
    assert!(queue.bytes >= 200, "{queue:?}");
}

#[test]
fn a_single_message_is_deleted_by_its_receipt_wherever_it_is() {
    let mut it = fixture(2, 8);
    let mut other = it.jobs.subscribe("other").poll().unwrap();
    let mut worker = it.jobs.queue("q").join().unwrap();
    let queue = worker.queue();
    let receipts: Vec<_> =
        (0..4).map(|index| it.producer.send(Record::new(&index.to_string()).partition(1)).unwrap()).collect();
    assert!(queue.delete(&receipts[1]).unwrap(), "not given out yet");
    assert!(!queue.delete(&receipts[1]).unwrap(), "deleted before");
    let leased = take(&mut worker);
    assert!(queue.delete(&receipts[0]).unwrap());
    let told = leased.ack().unwrap_err();
    assert!(matches!(told, LeaseError::Deleted { partition: 1, offset: 0, .. }), "{told:?}");
    assert!(told.to_string().contains("the message or its queue was deleted"), "{told}");
    let delayed = take(&mut worker);
    assert_eq!(text(&delayed), "2");
    delayed.nack(MS(10), "later").unwrap();
    assert!(queue.delete(&receipts[2]).unwrap());
    it.clock.advance(LONG);
    let last = take(&mut worker);
    assert_eq!(text(&last), "3");
    last.ack().unwrap();
    assert!(!queue.delete(&receipts[3]).unwrap(), "done with");
    assert!(is_idle(&mut worker));
    assert_eq!(queue.metrics().deleted, 3);

    let foreign = it.engine.topic::<Message>("foreign").create().unwrap();
    let receipt = foreign.producer().create().unwrap().send(Record::new("x")).unwrap();
    assert!(matches!(queue.delete(&receipt), Err(QueueError::ForeignReceipt { .. })));
    let mut seen = 0;
    while seen < 4 {
        seen += (&mut other.poll(NOW).unwrap().unwrap()).into_iter().count();
    }
}

#[test]
fn strict_order_keeps_one_message_of_a_partition_out_and_a_delay_holds_up_only_its_partition() {
    let mut it = fixture(2, 8);
    let mut worker = it.jobs.queue("q").order(Order::Strict).max_attempts(2).join().unwrap();
    for partition in [0, 1] {
        for index in 0..3 {
            it.producer.send(Record::new(&format!("{partition}.{index}")).partition(partition)).unwrap();
        }
    }
    let (a, b) = (take(&mut worker), take(&mut worker));
    assert_eq!((text(&a), text(&b)), ("0.0".into(), "1.0".into()));
    assert!(is_idle(&mut worker), "both partitions have one out");
    a.nack(MS(50), "later").unwrap();
    b.ack().unwrap();
    let b = take(&mut worker);
    assert_eq!(text(&b), "1.1");
    assert!(is_idle(&mut worker));
    it.clock.advance(MS(50));
    let a = take(&mut worker);
    assert_eq!((text(&a), a.attempt()), ("0.0".into(), 2));
    a.nack(NOW, "never").unwrap();
    let a = take(&mut worker);
    assert_eq!(text(&a), "0.1", "the dead letter is out of the way");
    drop((a, b));
}

#[test]
fn strict_order_holds_when_many_workers_race() {
    let mut it = fixture(2, 64);
    let builder = || it.jobs.queue("q").order(Order::Strict).unlimited_attempts();
    let seen: Arc<Mutex<HashMap<u32, Vec<u64>>>> = Arc::default();
    let workers: Vec<_> = (0..3)
        .map(|index| {
            let (mut worker, seen) = (builder().join().unwrap(), Arc::clone(&seen));
            std::thread::spawn(move || {
                let mut turn = index;
                while let Ok(lease) = worker.receive(LONG) {
                    let lease = lease.expect("not so long");
                    turn += 1;
                    if turn % 3 == 0 {
                        lease.nack(NOW, "again").unwrap();
                    } else {
                        seen.lock().unwrap().entry(lease.partition()).or_default().push(lease.offset());
                        lease.ack().unwrap();
                    }
                }
            })
        })
        .collect();
    for index in 0..400u32 {
        it.producer.send(Record::new(&index.to_be_bytes()).partition(index % 2)).unwrap();
    }
    it.jobs.close();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "both partitions were read");
    for offsets in seen.values() {
        assert_eq!(*offsets, (0..200).collect::<Vec<u64>>());
    }
}

#[test]
fn a_dropped_lease_is_given_back_at_once_also_by_a_panic() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").max_attempts(3).join().unwrap();
    it.send("a");
    drop(take(&mut worker));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let lease = take(&mut worker);
        std::panic::resume_unwind(Box::new(lease.attempt()));
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&2u32));
    let last = take(&mut worker);
    assert_eq!(last.attempt(), 3);
    drop(last);
    assert_eq!(&*letters(&worker.queue())[0].reason, "dropped");
}

#[test]
fn a_lease_that_is_forgotten_runs_out() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").visibility(MS(10)).join().unwrap();
    it.send("a");
    std::mem::forget(take(&mut worker));
    assert!(is_idle(&mut worker));
    it.clock.advance(MS(10));
    assert_eq!(take(&mut worker).attempt(), 2);
}

#[test]
fn peek_shows_what_waits_without_taking_it_and_purge_deletes_it() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").join().unwrap();
    let queue = worker.queue();
    (0..6).for_each(|index| _ = it.send(&index.to_string()));
    take(&mut worker).nack(MS(5), "later").unwrap();
    let held = take(&mut worker);
    let shown = |limit| queue.peek(limit).iter().map(|it| (it.offset, it.attempts)).collect::<Vec<_>>();
    assert_eq!(shown(9), [(0, 1), (2, 0), (3, 0), (4, 0), (5, 0)]);
    assert_eq!(shown(2), [(0, 1), (2, 0)]);
    assert_eq!(shown(9).len(), 5, "a look takes nothing");
    assert_eq!(queue.purge(), 5);
    assert!(shown(9).is_empty());
    it.clock.advance(MS(5));
    assert!(is_idle(&mut worker));
    held.ack().unwrap();
    it.send("new");
    assert_eq!(text(&take(&mut worker)), "new");
}

#[test]
fn dead_letters_are_kept_until_they_are_purged_or_sent_back() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").max_attempts(1).join().unwrap();
    let queue = worker.queue();
    for index in 0..5 {
        it.send(&index.to_string());
        take(&mut worker).nack(NOW, "no").unwrap();
    }
    let shown = |limit| queue.dead_letters().take(limit).map(|it| it.unwrap().offset).collect::<Vec<_>>();
    assert_eq!(shown(9), [0, 1, 2, 3, 4]);
    assert_eq!(shown(2), [0, 1]);
    assert_eq!(queue.redrive(2), 2);
    assert_eq!(shown(9), [2, 3, 4]);
    let again = [take(&mut worker), take(&mut worker)];
    assert_eq!([(again[0].offset(), again[0].attempt()), (again[1].offset(), again[1].attempt())], [(0, 1), (1, 1)]);
    let [done, dies] = again;
    done.ack().unwrap();
    dies.nack(NOW, "no again").unwrap();
    assert_eq!(shown(9), [2, 3, 4, 1]);
    assert_eq!(&*letters(&queue)[3].reason, "no again");
    assert_eq!(queue.purge_dead_letters(), 4);
    assert!(shown(9).is_empty());
    assert!(is_idle(&mut worker));
    assert_eq!(queue.redrive(9), 0);
}

/// A ring's look ends after 512 stamps: no more letters were shown, however many the ring kept.
#[test]
fn any_number_of_dead_letters_in_memory_is_shown_and_those_that_come_later_are_not() {
    const LETTERS: u64 = 1500;
    let mut it = fixture(1, 4096);
    it.engine.topic::<Message>("dead").capacity(2048).max_message(1024).partitions(2).create().unwrap();
    let mut worker = it.jobs.queue("q").max_attempts(1).dead_letter("dead").join().unwrap();
    let queue = worker.queue();
    (0..LETTERS).for_each(|index| _ = it.send(&index.to_string()));
    for _ in 0..LETTERS {
        take(&mut worker).nack(NOW, "no").unwrap();
    }
    let offsets = |letters: Vec<DeadLetter>| {
        let mut offsets: Vec<_> = letters.iter().map(|letter| letter.offset).collect();
        offsets.sort_unstable();
        offsets
    };
    assert_eq!(offsets(letters(&queue)), (0..LETTERS).collect::<Vec<_>>());

    // An iteration that is under way holds nothing up, and ends although each letter dies once more meanwhile.
    let mut seen = Vec::new();
    for letter in queue.dead_letters() {
        seen.push(letter.unwrap());
        if queue.redrive(1) == 1 {
            take(&mut worker).nack(NOW, "no again").unwrap();
        }
    }
    assert!(seen.len() as u64 <= LETTERS && seen.iter().all(|letter| letter.reason == "no"), "{}", seen.len());
    assert_eq!(letters(&queue).len() as u64, LETTERS);
    assert_eq!(queue.purge_dead_letters(), LETTERS);
    assert!(queue.dead_letters().next().is_none());
}

#[test]
fn the_dead_wait_in_the_side_store_while_there_is_no_room_for_letters() {
    let mut it = fixture(1, 16);
    it.engine.topic::<Message>("dead").capacity(2).max_message(1024).create().unwrap();
    let mut worker = it.jobs.queue("q").max_attempts(1).max_outstanding(4).dead_letter("dead").join().unwrap();
    let queue = worker.queue();
    (0..7).for_each(|index| _ = it.send(&index.to_string()));
    for _ in 0..6 {
        take(&mut worker).nack(NOW, "no").unwrap();
    }
    let metrics = queue.metrics();
    assert_eq!((metrics.dead, metrics.dying, metrics.full), (2, 4, true));
    assert!(is_idle(&mut worker), "the side store is full of the dead: nothing is lost, nothing hangs");
    assert_eq!(queue.purge_dead_letters(), 2);
    let metrics = queue.metrics();
    assert_eq!((metrics.dead, metrics.dying, metrics.full), (4, 2, false));
    assert_eq!(text(&take(&mut worker)), "6");
    assert_eq!(queue.redrive(1), 1);
}

#[test]
fn a_redrive_stops_where_the_side_store_is_full() {
    let mut it = fixture(1, 16);
    let mut worker = it.jobs.queue("q").max_attempts(1).max_outstanding(2).join().unwrap();
    let queue = worker.queue();
    for index in 0..4 {
        it.send(&index.to_string());
        take(&mut worker).nack(NOW, "no").unwrap();
    }
    assert_eq!(queue.redrive(9), 2);
    assert_eq!(queue.dead_letters().count(), 2);
}

#[test]
fn who_names_a_queue_again_must_mean_the_same() {
    let it = fixture(1, 8);
    let worker = it.jobs.queue("q").visibility(MS(1500)).join().unwrap();
    let refused = it.jobs.queue("q").max_attempts(9).join().unwrap_err().to_string();
    for part in ["1.5s", "30s", "5 attempts", "9 attempts", "\"q\""] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(it.jobs.queue("q").visibility(MS(1500)).open().is_ok());
    assert_eq!(worker.queue().name(), "q");
    let name = it.jobs.queue("a/b").join().unwrap_err();
    assert!(matches!(name, QueueError::Subscribe(SubscribeError::Name(_))), "{name}");
    let _tape = it.jobs.subscribe("tape").poll().unwrap();
    let taken = it.jobs.queue("tape").join().unwrap_err();
    assert!(matches!(taken, QueueError::Subscribe(SubscribeError::NameTaken { .. })), "{taken}");
}

#[test]
fn dead_letters_that_would_have_no_place_are_refused_at_once() {
    let it = fixture(1, 8);
    let circle = it.jobs.queue("q").dead_letter("jobs").join().unwrap_err();
    assert!(matches!(circle, QueueError::DeadLetters(DeadLetterError::Circle { .. })), "{circle}");
    it.engine.topic::<Message>("small").max_message(100).create().unwrap();
    let small = it.jobs.queue("q").dead_letter("small").join().unwrap_err();
    let told = small.to_string();
    assert!(
        matches!(small, QueueError::DeadLetters(DeadLetterError::TooSmall { .. })) && told.contains("100"),
        "{told}"
    );
    it.engine.topic::<u64>("numbers").create().unwrap();
    let other = it.jobs.queue("q").dead_letter("numbers").join().unwrap_err();
    assert!(matches!(other, QueueError::DeadLetters(DeadLetterError::Topic(_))), "{other}");
    // Nothing of them stayed.
    assert!(it.jobs.queue("q").join().is_ok());
}

#[test]
fn a_new_partition_is_read_by_the_workers_that_are_there() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").join().unwrap();
    let sleeper = asleep(move || {
        let lease = worker.receive(LONG).unwrap().expect("woken");
        let partition = lease.partition();
        lease.ack().unwrap();
        partition
    });
    it.jobs.add_partitions(1).unwrap();
    it.producer.send(Record::new("a").partition(1)).unwrap();
    assert_eq!(sleeper.join(), 1);
}

#[test]
fn a_queue_keeps_its_place_while_it_has_no_worker() {
    let mut it = fixture(1, 4);
    let mut worker = it.jobs.queue("q").join().unwrap();
    it.send("a");
    let held = take(&mut worker);
    drop(worker);
    (0..4).for_each(|index| _ = it.send(&index.to_string()));
    assert!(it.producer.try_send(Record::new("x")).is_err(), "nothing is overwritten");
    drop(held);
    let mut worker = it.jobs.queue("q").join().unwrap();
    let seen: Vec<_> = std::iter::from_fn(|| worker.receive(NOW).unwrap())
        .map(|lease| {
            let t = text(&lease);
            lease.ack().unwrap();
            t
        })
        .collect();
    assert_eq!(seen, ["a", "0", "1", "2", "3"]);
}

#[test]
fn workers_are_told_the_end_once_everything_was_done_and_nothing_can_come_again() {
    let mut it = fixture(2, 8);
    let mut worker = it.jobs.queue("q").join().unwrap();
    it.send("a");
    it.jobs.close();
    let lease = take(&mut worker);
    assert!(is_idle(&mut worker), "it may come again");
    let mut other = it.jobs.queue("q").join().unwrap();
    let sleeper = asleep(move || other.receive(LONG).map(|lease| lease.map(|_| ())));
    lease.ack().unwrap();
    let told = sleeper.join().unwrap_err();
    assert_eq!(told.reason, slipring::topic::Closed::Closed);
    assert!(worker.receive(LONG).is_err());
}

#[test]
fn a_halted_topic_tells_its_workers() {
    let it = fixture(1, 8);
    it.jobs.subscribe("fails").run(|_, _| Err::<(), _>("broken")).unwrap();
    let mut worker = it.jobs.queue("q").join().unwrap();
    let sleeper = asleep(move || worker.receive(LONG).map(|lease| lease.map(|_| ())));
    let mut producer = it.producer;
    let _ = producer.send(Record::new("a"));
    // The worker may have the message before the other one fails.
    match sleeper.join() {
        Err(told) => assert!(told.to_string().contains("broken"), "{told}"),
        Ok(lease) => assert!(lease.is_some()),
    }
    let mut worker = it.jobs.queue("q").join().unwrap();
    let told = loop {
        match worker.receive(MS(1)) {
            Ok(_) => continue,
            Err(told) => break told,
        }
    };
    assert!(told.to_string().contains("broken"), "{told}");
}

/// The property that matters, on real threads: at most one holder, every message done once, none lost.
fn many_workers(leases_run_out: bool) {
    const MESSAGES: u64 = 3_000;
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").partitions(3).capacity(32).max_message(64).create().unwrap();
    let visibility = if leases_run_out { MS(50) } else { Duration::MAX };
    let builder = || jobs.queue("q").visibility(visibility).unlimited_attempts().max_outstanding(40);
    let held: Arc<Vec<AtomicBool>> = Arc::new((0..MESSAGES).map(|_| AtomicBool::new(false)).collect());
    let done: Arc<Vec<AtomicU64>> = Arc::new((0..MESSAGES).map(|_| AtomicU64::new(0)).collect());
    let workers: Vec<_> = (0..4u64)
        .map(|index| {
            let mut worker: Worker = builder().join().unwrap();
            let (held, done, clock) = (Arc::clone(&held), Arc::clone(&done), clock.clone());
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(index);
                while let Ok(lease) = worker.receive(LONG) {
                    let lease = lease.expect("not so long");
                    let number = u64::from_be_bytes(lease.message().value().try_into().unwrap()) as usize;
                    // One whose lease ran out may still be at it when the next one begins.
                    let alone = !held[number].swap(true, Ordering::SeqCst);
                    assert!(alone || leases_run_out, "two holders of {number}");
                    std::thread::yield_now();
                    held[number].store(false, Ordering::SeqCst);
                    match random.u64(..100) {
                        0..8 if leases_run_out => {
                            std::mem::forget(lease);
                            clock.advance(MS(50));
                        }
                        0..8 => drop(lease),
                        delay @ 8..20 => _ = lease.nack(MS(delay % 3), "again"),
                        _ => {
                            if lease.ack().is_ok() {
                                done[number].fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                    // Delays end.
                    clock.advance(MS(1));
                }
            })
        })
        .collect();
    let mut producer = jobs.producer().create().unwrap();
    for number in 0..MESSAGES {
        producer.send(Record::new(&number.to_be_bytes())).unwrap();
    }
    jobs.close();
    // Whatever sleeps for a delay is woken by those that work; when none is left, by this.
    while workers.iter().any(|worker| !worker.is_finished()) {
        clock.advance(MS(1));
        std::thread::yield_now();
    }
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    for (number, done) in done.iter().enumerate() {
        assert_eq!(done.load(Ordering::SeqCst), 1, "message {number}");
    }
    let queue = jobs.metrics().queue("q").unwrap().clone();
    assert_eq!((queue.acked, queue.leased, queue.waiting), (MESSAGES, 0, 0));
    assert!(clock.now() > NOW && queue.high_water <= 40, "{queue:?}");
    assert_eq!(queue.expired > 0, leases_run_out);
}

#[test]
fn many_workers_do_each_message_once_with_one_holder_at_a_time() {
    many_workers(false);
}

#[test]
fn many_workers_whose_leases_run_out_do_each_message_once_all_the_same() {
    many_workers(true);
}

/// The first lease of a queue that began anew had the number of the first one of its predecessor: whoever kept a ticket of
/// that was given what another worker had.
#[test]
fn a_ticket_of_a_deleted_queue_is_none_of_the_next_one_of_its_name() {
    for (durable, with_topic) in [(false, false), (false, true), (true, false), (true, true)] {
        let disk = slipring::journal::simulated::SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk).build().unwrap();
        let open = || {
            let jobs = engine.topic::<u64>("jobs").retain(8);
            if durable { engine.topic::<u64>("jobs").durable() } else { jobs }.create().unwrap()
        };
        let mut jobs = open();
        let publish = |jobs: &Topic<u64>| _ = jobs.producer().create().unwrap().publish(|_| ()).unwrap();
        publish(&jobs);
        let mut worker = jobs.queue("q").join().unwrap();
        let ticket = worker.receive(LONG).unwrap().unwrap().leave();
        drop(worker);
        if with_topic {
            engine.delete_forced("jobs").unwrap();
            jobs = open();
            publish(&jobs);
        } else {
            jobs.delete_queue_forced("q").unwrap();
        }
        let mut worker = jobs.queue("q").join().unwrap();
        let theirs = worker.receive(LONG).unwrap().unwrap();
        assert_eq!((theirs.partition(), theirs.offset()), (0, 0));
        let refused = worker.queue().resume(&ticket).unwrap_err();
        assert!(matches!(refused, LeaseError::Over { .. }), "{refused}");
        theirs.ack().unwrap();
    }
}

/// It was once told that the message was deleted.
#[test]
fn a_handle_of_a_lease_that_another_handle_has_ended_says_so() {
    let mut it = fixture(1, 8);
    let mut worker = it.jobs.queue("q").join().unwrap();
    (0..2).for_each(|index: u32| _ = it.send(&index.to_string()));
    for acks in [true, false] {
        let lease = take(&mut worker);
        let other = worker.queue().resume(&lease.ticket()).unwrap();
        if acks { other.ack() } else { other.nack(LONG, "no") }.unwrap();
        let told = lease.ack().unwrap_err();
        assert!(matches!(told, LeaseError::Deleted { .. }), "{told:?}");
        assert!(told.to_string().contains("another handle of the lease has acked"), "{told}");
    }
}
