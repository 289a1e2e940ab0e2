//! A multi producer's batch may have skipped slots in it, so it has no slices.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::multi(8, u64::default);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let mut batch = tape.poll(8).unwrap();
    let _ = batch.take_slices();
}
