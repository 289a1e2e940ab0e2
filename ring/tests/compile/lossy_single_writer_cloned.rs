//! The single writer of a lossy ring is the only one.
use slipring_ring::LossyRing;

fn main() {
    let (writer, _ring) = LossyRing::<u64>::single(8).unwrap();
    let _second = writer.clone();
}
