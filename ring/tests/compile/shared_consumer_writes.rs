//! A stage that only reads is not given `&mut`: others may read the same event.
use slipring_ring::Builder;

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.poll("tape");
    let (_producer, ring) = builder.build().unwrap();
    let mut tape = ring.consumer("tape").unwrap();
    for (_, event) in &mut tape.poll(8).unwrap() {
        *event = 1;
    }
}
