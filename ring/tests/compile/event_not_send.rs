//! Events cross threads, so they must be `Send`.
use slipring_ring::Builder;
use std::rc::Rc;

fn main() {
    let _ = Builder::single(8, || Rc::new(1));
}
