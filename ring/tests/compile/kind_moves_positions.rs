//! What publishes and claims underneath is nobody's to call: on a ring of two slots this would lend four.
use slipring_ring::{Builder, Kind, Single};

fn publish<K: Kind>(producer: &mut slipring_ring::Producer<Box<u64>, K>) {
    K::publish(producer, 0, 4);
}

fn main() {
    let (mut producer, _ring) = Builder::single(2, Box::<u64>::default).build().unwrap();
    <Single as Kind>::publish(&mut producer, 0, 4);
    publish(&mut producer);
    let _ = <Single as slipring_ring::kind::Mechanics>::claim(&mut producer, 4);
}
