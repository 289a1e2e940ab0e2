//! A worker keeps an event that it is done with.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.workers("pool", 1);
    let (_producer, ring) = builder.build().unwrap();
    let mut worker = ring.worker("pool").unwrap();
    let mut kept = Vec::new();
    worker.take(8).unwrap().for_each(|_, event| kept.push(event));
    println!("{kept:?}");
}
