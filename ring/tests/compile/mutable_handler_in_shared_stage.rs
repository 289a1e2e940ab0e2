//! A handler that changes events needs a mutable stage.
use slipring_ring::Builder;
use std::convert::Infallible;

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.run("tape", || |event: &mut u64, _, _| {
        *event = 1;
        Ok::<_, Infallible>(())
    });
}
