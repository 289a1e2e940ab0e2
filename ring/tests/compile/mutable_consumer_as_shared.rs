//! A mutable stage is not handed to what reads beside others.
use slipring_ring::{Builder, Consumer, Single};

fn read(_: Consumer<u64, Single>) {}

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.poll_mut("change");
    let (_producer, ring) = builder.build().unwrap();
    read(ring.consumer_mut("change").unwrap());
}
