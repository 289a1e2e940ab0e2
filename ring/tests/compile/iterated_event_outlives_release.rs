//! An event that was iterated by shared reference is kept while its slot is given back.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::multi(8, u64::default);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let mut batch = tape.poll(8).unwrap();
    let kept = batch.iter().next();
    batch.release();
    println!("{kept:?}");
}
