//! The closure that fills an event keeps it, to write after it was published.
use slipring_ring::Builder;

fn main() {
    let (mut producer, _ring) = Builder::single(8, u64::default).build().unwrap();
    let mut kept = None;
    producer.publish(|event| kept = Some(event)).unwrap();
    *kept.unwrap() = 1;
}
