//! `cargo test --workspace` runs the models: this test makes their build and fails if none ran.
#![cfg(not(any(loom, shuttle)))]

use loom_tests::{Options, everything};

#[test]
fn every_model_completes() {
    let options = Options { quick: true, models_only: true, ..Options::default() };
    if let Err(wrong) = everything(&options) {
        panic!("{wrong}");
    }
}
