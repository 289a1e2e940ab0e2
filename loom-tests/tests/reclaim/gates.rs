//! A replaced gating set is freed once, and not while a producer is taking it.

use crate::support::*;

/// A producer takes the gating set, because a stage has left, while another stage joins and leaves. Each change lets
/// the collector advance, so that sets are freed before the end.
/// Allowed: the producer takes any of the sets. Forbidden: it takes a set that is freed already, or a set is never
/// freed.
#[test]
fn a_set_is_replaced_while_a_producer_takes_it() {
    model_of_gates(Mixed(1, Some(3)), "a set outlives whoever is taking it", || {
        let (mut producer, ring) = single(1, &[("reader", &[])]);
        drop(ring.consumer("reader").unwrap());
        let changing = thread::spawn(move || drop(ring.join("late").unwrap()));
        let _ = put(&mut producer, 1);
        changing.join().unwrap();
    });
}
