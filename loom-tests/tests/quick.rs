//! Runs the models as part of `cargo test --workspace`: this test builds them, and fails if none ran.
#![cfg(not(any(loom, shuttle)))]

use loom_tests::{Options, everything};

#[test]
fn every_model_completes() {
    let options = Options { quick: true, models_only: true, ..Options::default() };
    if let Err(wrong) = everything(&options) {
        panic!("{wrong}");
    }
}
