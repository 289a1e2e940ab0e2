//! A slice of a batch is kept beyond its commit.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let mut batch = tape.poll(8).unwrap();
    let (head, _) = batch.take_slices();
    batch.commit();
    println!("{head:?}");
}
