//! A slot is written after its claim was committed: somebody reads there by then.
use slipring_ring::Builder;

fn main() {
    let (mut producer, _ring) = Builder::multi(8, u64::default).build().unwrap();
    let mut claim = producer.claim(2).unwrap();
    let slot = claim.get_mut(0).unwrap();
    claim.commit();
    *slot = 1;
}
