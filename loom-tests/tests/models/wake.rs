//! Parking and being woken: nobody sleeps while there is something for them. A lost wake-up is a deadlock here.

use crate::support::*;
use slipring_ring::Builder;

/// A consumer that parks at once, a producer that publishes one event and goes on holding the ring open.
/// Allowed: the consumer finds it at its first or second look, or is woken. Forbidden: it sleeps on.
#[test]
fn a_parked_consumer_is_woken_by_a_publish() {
    model_with_bells(All, "a publish wakes a parked consumer", || {
        let mut builder = Builder::single(1, || 0u64);
        builder.poll("reader");
        let (mut producer, ring) = builder.build().unwrap();
        let mut reader = ring.consumer("reader").unwrap();
        reader.set_wait(park());
        let reading = thread::spawn(move || {
            let mut batch = reader.poll_wait(1).unwrap();
            assert_eq!(*(&mut batch).into_iter().next().unwrap().1, 7);
        });
        producer.publish(|event| *event = 7).unwrap();
        reading.join().unwrap();
    });
}
