//! Dropping a ring: every event is dropped once, in whatever order the handles go, and a managed stage ends.

use crate::support::*;
use slipring_ring::{Builder, Sequence};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Producer, reader and handle are dropped on threads of their own, in any order, with one event unread.
/// Allowed: the last drop drops both events. Forbidden: an event is dropped twice, never, or while it is being read.
#[test]
fn every_event_is_dropped_once() {
    model(Within(3), "every event is dropped once, whoever goes last", || {
        let witness = Arc::new(());
        let made = Arc::clone(&witness);
        let mut builder = Builder::single(2, move || Some(Arc::clone(&made)));
        builder.poll("reader");
        let (mut producer, ring) = builder.build().unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        drop(ring);
        let reading = thread::spawn(move || {
            for (_, event) in &mut reader.poll(1).unwrap() {
                assert!(event.is_some());
            }
        });
        producer.try_publish(|event| assert!(event.is_some())).unwrap();
        drop(producer);
        reading.join().unwrap();
        assert_eq!(Arc::strong_count(&witness), 1);
    });
}

/// A managed stage gets one event, and the ring is shut down.
/// Allowed: the handler gets the event, and the report says so. Forbidden: a hang, an unread event.
#[test]
fn shutdown_drains_a_managed_stage() {
    model_of_sleep(Within(1), "shutdown drains a managed stage and ends its thread", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.run(slipring_ring::Stage::new("handler").wait(park()), || {
            |event: &u64, _: Sequence, _| {
                assert_eq!(*event, 7);
                Ok::<_, Infallible>(())
            }
        });
        let (mut producer, ring) = builder.build().unwrap();
        put(&mut producer, 1).unwrap();
        assert!(ring.shutdown(Duration::from_secs(1)).is_complete());
    });
}
