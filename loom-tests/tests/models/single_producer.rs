//! The single producer: publishing, wrapping, claims.

use crate::support::*;
use slipring_ring::{Builder, Sequence};

/// One producer, one consumer, capacity 1, two events: each write must be seen, each read must be done before the
/// slot is written again.
/// Allowed: the consumer reads 10, or 10 and 20, or nothing. Forbidden: anything else, and a read beside a write.
#[test]
fn what_is_published_is_read_and_then_overwritten() {
    model(All, "an event is written before it is read and read before it is overwritten", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.poll("reader");
        let (mut producer, ring) = builder.build().unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        let reading = thread::spawn(move || {
            let mut expected = 10;
            for _ in 0..2 {
                for (_, event) in &mut reader.poll(1).unwrap() {
                    assert_eq!(*event, expected);
                    expected += 10;
                }
            }
        });
        producer.try_publish(|event| *event = 10).unwrap();
        let _ = producer.try_publish(|event| *event = 20);
        reading.join().unwrap();
        assert!(ring.positions().published.since(Sequence(0)) >= 1);
    });
}
