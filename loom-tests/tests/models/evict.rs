//! Eviction: a gate is never removed while a batch is held, and is always removed after an eviction was requested.

use crate::support::*;
use slipring_ring::{Closed, StageError};

/// A reader polls while another thread evicts it and the producer needs the slot.
/// Allowed: the reader gets its event or gets its eviction as an error. Forbidden: a write during its read.
#[test]
fn a_batch_is_never_taken_away() {
    model_of_gates(All, "a gate stays while a batch is held", || {
        let (mut producer, ring) = single(1, &[("slow", &[])]);
        put(&mut producer, 1).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let polling = thread::spawn(move || {
            match slow.poll(1) {
                Ok(mut batch) => (&mut batch).into_iter().for_each(|(_, event)| assert_eq!(*event, 7)),
                Err(other) => assert!(matches!(other, Closed::Evicted { .. }), "{other}"),
            }
            slow
        });
        let _ = ring.evict("slow");
        let _ = put(&mut producer, 1);
        polling.join().unwrap();
    });
}

/// A reader reads one batch and holds a second, which it does not iterate, while it is being evicted.
/// Allowed: it is evicted between the batches. Forbidden: a write during the read of the first batch.
#[test]
fn letting_go_passes_on_what_was_read() {
    model_of_gates(All, "whoever sees no batch has seen the reads of the last one", || {
        let (mut producer, ring) = single(1, &[("slow", &[])]);
        put(&mut producer, 1).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let polling = thread::spawn(move || {
            get(&mut slow, 1);
            slow
        });
        if ring.evict("slow").is_ok() {
            put(&mut producer, 1).unwrap_or_else(|_| panic!("no room though nobody gates"));
        }
        polling.join().unwrap();
    });
}

/// An eviction is requested while a batch is held. The light fence is left out, as with `membarrier`, so only the store
/// that lets the batch go can publish the reads.
/// Allowed: evicted once the batch is over, or refused. Forbidden: a write during the read.
#[test]
fn letting_go_alone_passes_on_what_was_read() {
    model(All, "whoever sees the end of a batch has seen its reads", || {
        let (mut producer, ring) = single(1, &[("slow", &[])]);
        put(&mut producer, 1).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let mut batch = slow.poll(1).unwrap();
        let evicting = thread::spawn(move || {
            if ring.evict("slow").is_ok() {
                put(&mut producer, 1).unwrap_or_else(|_| panic!("no room though nobody gates"));
            }
        });
        assert_eq!((&mut batch).into_iter().count(), 1);
        drop(batch);
        evicting.join().unwrap();
    });
}

/// An eviction is requested while a batch is held. The reader then begins another batch, whose events lie in another
/// slot, and gets its eviction as an error there.
/// Allowed: evicted once the first batch is over, or refused. Forbidden: a write during the read of the first batch.
#[test]
fn letting_go_of_what_was_not_read_passes_on_what_was() {
    model(Within(3), "whoever sees that a batch was not begun has seen the reads of the one before", || {
        let (mut producer, ring) = single(2, &[("slow", &[])]);
        put(&mut producer, 2).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let mut batch = slow.poll(1).unwrap();
        let evicting = thread::spawn(move || {
            if ring.evict("slow").is_ok() {
                put(&mut producer, 1).unwrap_or_else(|_| panic!("no room though nobody gates"));
            }
        });
        assert_eq!((&mut batch).into_iter().count(), 1);
        drop(batch);
        drop(slow.poll(1).map(drop));
        evicting.join().unwrap();
    });
}

/// An eviction is requested while a batch is held. The reader then begins another batch, whose events lie in another
/// slot, and gets the halt as an error there.
/// Allowed: evicted once the first batch is over, or refused. Forbidden: a write during the read of the first batch.
#[test]
fn letting_go_in_a_halted_ring_passes_on_what_was_read() {
    model(Within(1), "whoever sees that a batch was not begun in a halted ring has seen the reads before", || {
        let (mut producer, ring) = single(2, &[("slow", &[])]);
        put(&mut producer, 2).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let mut batch = slow.poll(1).unwrap();
        let halting = {
            let ring = ring.clone();
            thread::spawn(move || drop(ring.halt()))
        };
        let evicting = thread::spawn(move || {
            if ring.evict("slow").is_ok() {
                let _ = put(&mut producer, 1);
            }
            producer
        });
        assert_eq!((&mut batch).into_iter().count(), 1);
        drop(batch);
        drop(slow.poll(1).map(drop));
        let _producer = evicting.join().unwrap();
        halting.join().unwrap();
    });
}

/// An eviction is refused because of a batch that ends unread, and the reader never polls again.
/// Allowed: its gate leaves when the batch ends. Forbidden: the gate stays, and no thread is left to remove it.
#[test]
fn a_refused_eviction_happens_when_the_batch_ends() {
    model_of_gates(All, "an eviction that met a batch happens at its end", || {
        let (mut producer, ring) = single(1, &[("slow", &[])]);
        put(&mut producer, 1).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let polling = thread::spawn(move || {
            // The batch ends without being iterated, so the position does not move.
            drop(slow.poll(1));
            slow
        });
        let evicted = ring.evict("slow");
        assert!(matches!(evicted, Ok(_) | Err(StageError::InBatch { .. })));
        let _slow = polling.join().unwrap();
        put(&mut producer, 1).unwrap_or_else(|_| panic!("the ring's promise: an evicted stage gates no more"));
    });
}

/// An eviction is refused because of a batch that is read, and the reader never polls again.
/// Allowed: its gate leaves when the batch ends. Forbidden: the gate stays, and no thread is left to remove it.
#[test]
fn a_refused_eviction_happens_when_a_read_batch_ends() {
    model_of_gates(All, "an eviction that met a batch happens at its end", || {
        let (mut producer, ring) = single(1, &[("slow", &[])]);
        put(&mut producer, 1).unwrap();
        let mut slow = ring.consumer("slow").unwrap();
        let polling = thread::spawn(move || {
            get(&mut slow, 1);
            slow
        });
        let _ = ring.evict("slow");
        let _slow = polling.join().unwrap();
        put(&mut producer, 1).unwrap_or_else(|_| panic!("the ring's promise: an evicted stage gates no more"));
        put(&mut producer, 1).unwrap_or_else(|_| panic!("the ring's promise: an evicted stage gates no more"));
    });
}

/// A parked reader is evicted, and no more events are published.
/// Allowed: it wakes and gets its eviction as an error. Forbidden: it sleeps on.
#[test]
fn a_parked_reader_hears_of_its_eviction() {
    model_of_sleep(All, "an evicted reader wakes", || {
        let (_producer, ring) = single(1, &[("slow", &[])]);
        let mut slow = ring.consumer("slow").unwrap();
        let parking = thread::spawn(move || {
            let end = slow.poll_wait(1).map(|_| ());
            assert!(matches!(end, Err(Closed::Evicted { .. })));
            slow
        });
        ring.evict("slow").unwrap();
        parking.join().unwrap();
    });
}
