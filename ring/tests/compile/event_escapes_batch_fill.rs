//! The same with a batch.
use slipring_ring::Builder;

fn main() {
    let (mut producer, _ring) = Builder::single(8, u64::default).build().unwrap();
    let mut kept = Vec::new();
    producer.publish_batch(2, |_, event| kept.push(event)).unwrap();
    *kept[0] = 1;
}
