//! Events are read by several threads at once, so they must be `Sync`.
use slipring_ring::Builder;
use std::cell::Cell;

fn main() {
    let _ = Builder::multi(8, || Cell::new(1));
}
