//! Work sharing: each event goes to exactly one worker, and no stage or producer passes a worker's unfinished event.

use crate::support::*;
use slipring_ring::{Builder, Kind, Multi, Producer, Ring, Single, Stage, Worker};

fn pool(capacity: usize, workers: usize) -> (Producer<u64, Single>, Ring<u64, Single>) {
    let mut builder = Builder::single(capacity, || 0);
    builder.workers(Stage::new("pool").wait(park()), workers);
    builder.build().unwrap()
}

/// Takes once, and checks the events. Returns their count.
fn take<K: Kind>(worker: &mut Worker<u64, K>, limit: usize) -> u64 {
    let mut count = 0;
    if let Ok(taken) = worker.take(limit) {
        taken.for_each(|sequence, event| {
            assert_eq!(*event, value_of(sequence), "not what was written at {sequence}");
            count += 1;
        });
    }
    count
}

/// Two workers take two events.
/// Allowed: each event is taken once, by either. Forbidden: twice, never, or before it was written.
#[test]
fn each_event_is_taken_once() {
    model(Within(3), "each event is taken by exactly one worker", || {
        let (mut producer, ring) = pool(2, 2);
        let (mut one, mut two) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
        let writing = thread::spawn(move || {
            put(&mut producer, 1).unwrap();
            put(&mut producer, 1).unwrap();
            producer
        });
        let working = thread::spawn(move || (take(&mut one, 1), one));
        let mut taken = take(&mut two, 1);
        writing.join().unwrap();
        taken += working.join().unwrap().0;
        taken += take(&mut two, 2) + take(&mut two, 2);
        assert_eq!(taken, 2);
    });
}

/// A stage changes the event before a worker takes it.
/// Allowed: the worker gets the changed event, or none. Forbidden: the unchanged event, a read during the change.
#[test]
fn what_a_mutable_stage_changed_is_seen_by_workers_behind_it() {
    model(All, "a change is seen by workers behind", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.poll_mut("change").workers(Stage::new("pool").after(["change"]), 1);
        let (mut producer, ring) = builder.build().unwrap();
        producer.try_publish(|event| *event = 1).unwrap();
        let (mut change, mut worker) = (ring.consumer_mut("change").unwrap(), ring.worker("pool").unwrap());
        let changing = thread::spawn(move || {
            (&mut change.poll(1).unwrap()).into_iter().for_each(|(_, event)| *event += 1);
            change
        });
        worker.take(1).unwrap().for_each(|_, event| assert_eq!(*event, 2));
        changing.join().unwrap();
    });
}

/// Two workers at capacity 1, and a producer that needs the slot again.
/// Allowed: it is refused until the event is finished. Forbidden: a write during a worker's read.
#[test]
fn what_a_worker_has_in_hand_is_not_overwritten() {
    model(Within(3), "no producer overwrites what a worker has in hand", || {
        let (mut producer, ring) = pool(1, 2);
        put(&mut producer, 1).unwrap();
        let working = [(); 2].map(|()| {
            let mut worker = ring.worker("pool").unwrap();
            thread::spawn(move || (take(&mut worker, 1), worker))
        });
        let again = put(&mut producer, 1).is_ok();
        let working = working.map(|worker| worker.join().unwrap());
        let taken = working[0].0 + working[1].0;
        assert!(taken >= 1 && taken <= 1 + u64::from(again));
    });
}

/// Two workers take one of two events each, and a producer needs a slot again.
/// Allowed: it gets the first slot once the first event is finished. Forbidden: it gets the first slot because the
/// second event is finished.
#[test]
fn a_fast_worker_does_not_give_away_what_a_slow_one_has() {
    model(Within(2), "the slowest worker holds the stage back", || {
        let (mut producer, ring) = pool(2, 2);
        put(&mut producer, 2).unwrap();
        let working = [(); 2].map(|()| {
            let mut worker = ring.worker("pool").unwrap();
            thread::spawn(move || (take(&mut worker, 1), worker))
        });
        let _ = put(&mut producer, 1);
        let working = working.map(|worker| worker.join().unwrap());
        assert!(working[0].0 + working[1].0 >= 2);
    });
}

/// A stage is ordered after two workers.
/// Allowed: it gets events up to the first unfinished one. Forbidden: it gets an event that a worker has not finished.
#[test]
fn a_stage_behind_workers_waits_for_the_slowest() {
    model(Within(2), "a stage behind workers sees what all are done with", || {
        let mut builder = Builder::single(2, || 0u64);
        builder.workers("pool", 2).poll(Stage::new("last").after(["pool"]));
        let (mut producer, ring) = builder.build().unwrap();
        put(&mut producer, 2).unwrap();
        let (done, seen) = (Flags::default(), ring.consumer("last").unwrap());
        let working = [(); 2].map(|()| {
            let (mut worker, done) = (ring.worker("pool").unwrap(), done.clone());
            thread::spawn(move || {
                worker.take(1).unwrap().for_each(|sequence, _| done.set(sequence.0));
                worker
            })
        });
        let mut last = seen;
        for (sequence, _) in &mut last.poll(2).unwrap() {
            assert!(done.is_set(sequence.0), "{sequence} was still in hand");
        }
        let _workers = working.map(|worker| worker.join().unwrap());
    });
}

/// Marks that a model sets for itself, outside the explored state.
#[derive(Clone, Default)]
struct Flags(std::sync::Arc<std::sync::Mutex<Vec<u64>>>);

impl Flags {
    fn set(&self, number: u64) {
        self.0.lock().unwrap().push(number);
    }

    fn is_set(&self, number: u64) -> bool {
        self.0.lock().unwrap().contains(&number)
    }
}

/// A worker leaves with unfinished events, another worker adopts them, and the producer looks for room meanwhile.
/// Allowed: each event is read once, before its slot is written again. Forbidden: a write during the adopter's read.
#[test]
fn what_a_worker_leaves_behind_is_adopted_and_still_gates() {
    model(Within(3), "an orphan gates producers on its way to the adopter", || {
        let (mut producer, ring) = pool(2, 2);
        put(&mut producer, 2).unwrap();
        // Places are assigned from 0, so the adopter's place is read before the orphan's.
        let mut adopter = ring.worker("pool").unwrap();
        let mut leaver = ring.worker("pool").unwrap();
        let taken = leaver.take(2).unwrap();
        assert_eq!(taken.len(), 2);
        drop(taken);
        drop(leaver);
        let adopting = thread::spawn(move || (take(&mut adopter, 2), adopter));
        let _ = put(&mut producer, 1);
        assert_eq!(adopting.join().unwrap().0, 2);
    });
}

/// A worker leaves while another one parks because all events are taken.
/// Allowed: the parked worker is woken and adopts the orphan. Forbidden: it sleeps on although there is an orphan.
#[test]
fn a_parked_worker_is_woken_to_adopt() {
    model_of_sleep(Within(3), "what is left behind wakes a parked worker", || {
        let (mut producer, ring) = pool(1, 2);
        put(&mut producer, 1).unwrap();
        let mut leaver = ring.worker("pool").unwrap();
        let mut adopter = ring.worker("pool").unwrap();
        assert_eq!(leaver.take(1).unwrap().len(), 1);
        let leaving = thread::spawn(move || drop(leaver));
        let mut read = 0;
        adopter.take_wait(1).unwrap().for_each(|_, _| read += 1);
        assert_eq!(read, 1);
        leaving.join().unwrap();
    });
}

/// The last worker is dropped while the producer waits for room.
/// Allowed: the stage leaves with it, and there is room. Forbidden: a write during a read.
#[test]
fn the_last_worker_takes_the_stage_along() {
    model(Mixed(3, None), "the last worker takes the gate along", || {
        let (mut producer, ring) = pool(1, 1);
        put(&mut producer, 1).unwrap();
        let mut worker = ring.worker("pool").unwrap();
        let leaving = thread::spawn(move || take(&mut worker, 1));
        let _ = put(&mut producer, 1);
        assert!(leaving.join().unwrap() >= 1);
        put(&mut producer, 1).unwrap_or_else(|_| panic!("no room though nobody gates"));
    });
}

/// Workers of a ring with a multi producer, where a stamp may already be of a later lap when a slow worker reads it.
/// Allowed: each event once. Forbidden: an event of a later lap, or an event twice.
#[test]
fn an_unlucky_worker_takes_nothing_stale() {
    model(Within(2), "a stale look at the counter takes nothing", || {
        let mut builder = Builder::multi(1, || 0u64);
        builder.workers("pool", 2);
        let (mut producer, ring): (Producer<u64, Multi>, _) = builder.build().unwrap();
        put(&mut producer, 1).unwrap();
        let working = [(); 2].map(|()| {
            let mut worker = ring.worker("pool").unwrap();
            thread::spawn(move || {
                let mut read = Vec::new();
                worker.take(1).unwrap().for_each(|sequence, event| {
                    assert_eq!(*event, value_of(sequence));
                    read.push(sequence.0);
                });
                (read, worker)
            })
        });
        let _ = put(&mut producer, 1);
        let [(mut one, _a), (two, _b)] = working.map(|worker| worker.join().unwrap());
        one.extend(two);
        one.sort_unstable();
        assert!(one == [0] || one == [0, 1], "{one:?}");
    });
}

/// One or both of two workers look at the only event, the ring continues, and a newcomer joins meanwhile.
/// Allowed: the newcomer starts at the workers' position or later. Forbidden: it starts below a producer's limit less
/// the capacity, so that a write happens during its read; or it gets another event.
#[test]
fn a_newcomer_beside_workers_starts_no_lower_than_producers_believe() {
    model_of_gates(Mixed(1, Some(3)), "where workers stand never goes back under a newcomer", || {
        let (mut producer, ring) = pool(1, 2);
        put(&mut producer, 1).unwrap();
        let (mut one, mut two) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
        let working = thread::spawn(move || (take(&mut two, 1), two));
        take(&mut one, 1);
        let _ = put(&mut producer, 1);
        let mut late = ring.join("late").unwrap();
        get(&mut late, 1);
        let _working = working.join().unwrap();
    });
}

/// A worker is dropped with an unfinished event, when all events are taken and the ring has ended.
/// Allowed: the other worker adopts the event, then gets the end. Forbidden: it gets the end before.
#[test]
fn workers_are_told_the_end_when_all_is_done() {
    model_of_gates(All, "workers get the end when everything is done, not when it is taken", || {
        let (mut producer, ring) = pool(1, 2);
        put(&mut producer, 1).unwrap();
        drop(producer);
        let (mut one, mut two) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
        assert_eq!(one.take(1).unwrap().len(), 1);
        let leaving = thread::spawn(move || drop(one));
        let told = two.take(1).map(|taken| taken.is_empty());
        leaving.join().unwrap();
        match told {
            Ok(true) => assert_eq!(take(&mut two, 1), 1, "nobody has done it"),
            Ok(false) => assert_eq!(take(&mut two, 1), 1, "what it did not iterate stays with it"),
            Err(_) => panic!("told the end while the other one had an event in hand"),
        }
        assert!(two.take(1).is_err());
    });
}

/// A ring of one slot is full of a dropped claim, and a producer sleeps until there is room.
/// Allowed: a worker passes the slot, wakes the producer, and gets its event. Forbidden: the producer sleeps on, or the
/// worker gets the skipped slot.
#[test]
fn a_worker_that_passes_skipped_slots_wakes_producers() {
    model_of_sleep(Within(2), "workers give skipped slots back and wake whoever waits for them", || {
        let mut builder = Builder::multi(1, || 0u64);
        builder.workers(Stage::new("pool").wait(park()), 2);
        let (mut producer, ring) = builder.build().unwrap();
        producer.set_wait(park());
        let mut worker = ring.worker("pool").unwrap();
        drop(producer.try_claim(1).unwrap());
        let writing = thread::spawn(move || (put_wait(&mut producer, 1).is_ok(), producer));
        let mut seen = take(&mut worker, 1);
        let (written, _producer) = writing.join().unwrap();
        assert!(written);
        seen += take(&mut worker, 1);
        assert_eq!(seen, 1);
    });
}

/// Two workers on a ring in which a dropped claim precedes each event.
/// Allowed: they get the events. Forbidden: a worker gets a skipped slot.
#[test]
fn workers_are_given_no_skipped_slot() {
    model(Within(3), "no worker is given a skipped slot, and a limit counts events", || {
        let mut builder = Builder::multi(4, || 0u64);
        builder.workers("pool", 2);
        let (mut producer, ring) = builder.build().unwrap();
        drop(producer.try_claim(1).unwrap());
        put(&mut producer, 1).unwrap();
        drop(producer.try_claim(1).unwrap());
        put(&mut producer, 1).unwrap();
        let working = [(); 2].map(|()| {
            let mut worker = ring.worker("pool").unwrap();
            thread::spawn(move || (take(&mut worker, 1), worker))
        });
        let seen: Vec<_> = working.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert_eq!(seen[0].0 + seen[1].0, 2);
    });
}

/// A worker finishes an event and looks for another one, which may or may not come; the producer needs the first slot.
/// Allowed: the producer gets that slot. Forbidden: a write during the worker's read.
#[test]
fn what_a_worker_has_done_is_over_at_its_next_look() {
    model(Within(3), "a worker's next look passes on what it did before", || {
        let (mut producer, ring) = pool(2, 1);
        put(&mut producer, 1).unwrap();
        let mut worker = ring.worker("pool").unwrap();
        let working = thread::spawn(move || (take(&mut worker, 1) + take(&mut worker, 1), worker));
        let _ = put(&mut producer, 1);
        let _ = put(&mut producer, 1);
        assert!(working.join().unwrap().0 >= 1);
    });
}

/// A worker finishes one of two events and leaves the other.
/// Allowed: the producer gets the slot of the finished event. Forbidden: a write during the worker's read.
#[test]
fn what_a_worker_has_done_is_over_when_it_leaves_the_rest() {
    model(Within(3), "a worker that leaves something behind passes on what it did", || {
        let (mut producer, ring) = pool(2, 2);
        put(&mut producer, 2).unwrap();
        let (mut worker, _other) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
        let working = thread::spawn(move || {
            let mut taken = worker.take(2).unwrap();
            assert!(taken.next(|sequence, event| assert_eq!(*event, value_of(sequence))));
        });
        let _ = put(&mut producer, 1);
        working.join().unwrap();
    });
}

/// A worker finishes an event, and then adopts another worker's orphan.
/// Allowed: the producer gets the first slot. Forbidden: a write during the worker's read.
#[test]
fn what_a_worker_has_done_is_over_when_it_adopts() {
    model(Within(3), "a worker that adopts passes on what it did before", || {
        let (mut producer, ring) = pool(2, 2);
        put(&mut producer, 2).unwrap();
        let (mut adopter, mut leaver) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
        assert_eq!((adopter.take(1).unwrap().len(), leaver.take(1).unwrap().len()), (1, 1));
        drop(leaver);
        let working = thread::spawn(move || (take(&mut adopter, 1) + take(&mut adopter, 1), adopter));
        let _ = put(&mut producer, 1);
        assert_eq!(working.join().unwrap().0, 2);
    });
}

/// A worker finishes an event, and then passes a skipped slot, which may have an event after it.
/// Allowed: the producer gets the first slot. Forbidden: a write during the worker's read.
fn passes_a_skipped_slot(capacity: usize, behind: usize) {
    let mut builder = Builder::multi(capacity, || 0u64);
    builder.workers("pool", 1);
    let (mut producer, ring) = builder.build().unwrap();
    put(&mut producer, 1).unwrap();
    drop(producer.try_claim(1).unwrap());
    for _ in 0..behind {
        put(&mut producer, 1).unwrap();
    }
    let mut worker = ring.worker("pool").unwrap();
    let working = thread::spawn(move || (take(&mut worker, 1) + take(&mut worker, 1), worker));
    let _ = put(&mut producer, 1);
    assert!(working.join().unwrap().0 >= 1);
}

#[test]
fn what_a_worker_has_done_is_over_when_it_passes_the_last_slot() {
    model(Within(3), "a worker that passes skipped slots passes on what it did before", || passes_a_skipped_slot(2, 0));
}

#[test]
fn what_a_worker_has_done_is_over_when_it_passes_a_slot() {
    model(Within(2), "a worker that takes behind skipped slots passes on what it did before", || {
        passes_a_skipped_slot(4, 2);
    });
}
