//! In a steady state nothing is allocated: not to publish, to read, to wait, to sleep and wake, or to look for room.
#![cfg(not(any(loom, shuttle)))]

mod common;

use common::at_once;
use slipring_ring::{Builder, Kind, LossyRing, Multi, OnError, Single, Stage, Start, Wait, Waiter};
use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

struct Counting;

static COUNTED: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.load(SeqCst) {
            ALLOCATIONS.fetch_add(1, SeqCst);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations all threads make while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(SeqCst);
    COUNTED.store(true, SeqCst);
    work();
    COUNTED.store(false, SeqCst);
    ALLOCATIONS.load(SeqCst) - before
}

/// Publishes, reads, fills up, refreshes, gives up waiting, looks at positions of its own.
fn one_thread<K: Kind>(mut builder: Builder<u64, K>) {
    builder.retain(1).poll(Stage::new("a").wait(at_once())).poll(Stage::new("b").after(["a"])).workers("pool", 1);
    let (mut producer, ring) = builder.build().unwrap();
    producer.set_wait(at_once());
    let (mut a, mut b, mut worker) =
        (ring.consumer("a").unwrap(), ring.consumer("b").unwrap(), ring.worker("pool").unwrap());
    let waiter = Waiter::new();
    let mut round = || {
        producer.publish(|event| *event += 1).unwrap();
        producer.publish_batch(3, |_, event| *event += 1).unwrap();
        drop(producer.try_claim(1));
        let soon = std::time::Instant::now();
        while producer.try_publish(|_| ()).is_ok() {}
        assert_eq!(producer.try_claim(2).err(), Some(slipring_ring::ClaimError::Full));
        (&mut a.poll(9).unwrap()).into_iter().for_each(drop);
        (&mut a.poll(9).unwrap()).into_iter().for_each(drop);
        (&mut a.poll_until(1, soon).unwrap()).into_iter().for_each(drop);
        (&mut b.poll_wait(9).unwrap()).into_iter().for_each(drop);
        while !worker.take(3).unwrap().is_empty() {
            worker.take(3).unwrap().for_each(|_, _| ());
        }
        if a.arm(&waiter, 1) {
            waiter.park(Some(soon), |_| ());
        }
        a.lag();
        producer.published();
    };
    (0..5).for_each(|_| round());
    assert_eq!(allocations(|| (0..500).for_each(|_| round())), 0);
}

/// Two threads that sleep and wake one another at every event.
fn sleepers<K: Kind>(mut builder: Builder<u64, K>, wait: Wait) {
    builder.run(Stage::new("sum").wait(wait.clone()).on_error(OnError::Skip), || {
        let mut sum = 0;
        move |event: &u64, _, _| {
            sum += event;
            Ok::<_, Infallible>(())
        }
    });
    builder.poll(Stage::new("echo").after(["sum"]).wait(wait.clone()));
    let (mut producer, ring) = builder.build().unwrap();
    producer.set_wait(wait);
    let mut echo = ring.consumer("echo").unwrap();
    let mut round = || {
        producer.publish(|event| *event += 1).unwrap();
        (&mut echo.poll_wait(9).unwrap()).into_iter().for_each(drop);
    };
    (0..50).for_each(|_| round());
    let counted = allocations(|| (0..500).for_each(|_| round()));
    assert_eq!(counted, 0);
    // A thread that ends allocates: not while the next ones are counted.
    ring.shutdown(std::time::Duration::from_secs(20));
}

/// One test, so that no other one allocates meanwhile.
#[test]
fn nothing_is_allocated_in_a_steady_state() {
    one_thread(Builder::<u64, Single>::single(8, || 0));
    one_thread(Builder::<u64, Multi>::multi(8, || 0));
    for wait in [at_once(), Wait::backoff().spin_for(std::time::Duration::ZERO).yields(0), Wait::spin_yield()] {
        sleepers(Builder::<u64, Single>::single(1, || 0), wait.clone());
        sleepers(Builder::<u64, Multi>::multi(4, || 0), wait);
    }
    let (mut writer, ring) = LossyRing::<[u64; 3]>::multi(4).unwrap();
    let mut reader = ring.reader(Start::Earliest);
    let counted = allocations(|| {
        for value in 0..100 {
            for _ in 0..value % 7 {
                writer.write(&[value; 3]);
            }
            while let Ok(Some(_)) = reader.read() {}
        }
    });
    assert_eq!(counted, 0);
    assert!(allocations(|| drop(vec![1])) > 0, "that the counter counts");
}
