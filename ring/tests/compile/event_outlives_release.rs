//! An event is kept while its slot is given back in the middle of a batch.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::multi(8, u64::default);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let mut batch = tape.poll(8).unwrap();
    let kept = batch.into_iter().next();
    batch.release();
    println!("{kept:?}");
}
