//! Two batches of one consumer at a time would hold one position twice.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let first = tape.poll(8).unwrap();
    let second = tape.poll(8).unwrap();
    drop((first, second));
}
