//! A single producer is the only one, and the compiler says what to do for several.
use slipring_ring::Builder;

fn main() {
    let (producer, _ring) = Builder::single(8, u64::default).build().unwrap();
    let _second = producer.clone();
}
