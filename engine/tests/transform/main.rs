//! What transforms promise: each input event handled once, its outputs with the committed offset or not at all.

#[path = "../common/accounts.rs"]
mod accounts;
mod bank;
#[path = "../common/crash.rs"]
mod crash;
mod managed;
mod parts;

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{Engine, EngineError};

fn try_engine(disk: &SimulatedDisk) -> Result<Engine, EngineError> {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build()
}

fn engine(disk: &SimulatedDisk) -> Engine {
    try_engine(disk).unwrap()
}
