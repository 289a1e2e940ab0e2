//! An event of a batch is kept beyond the batch: the producer may be writing there by then.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    let mut kept = Vec::new();
    {
        let mut batch = tape.poll(8).unwrap();
        for (_, event) in &mut batch {
            kept.push(event);
        }
    }
    println!("{kept:?}");
}
