//! Lossy readers copy bytes while they may be changing: only plain data can stand that.
use slipring_ring::LossyRing;

fn main() {
    let _ = LossyRing::<String>::single(8);
    let _ = LossyRing::<bool>::single(8);
}
