//! The models: the ring's own code under loom, one hazard each. Built with `--cfg loom` only; `loom-tests/run` builds
//! and runs them, see the README.
#![cfg(loom)]

mod arm;
mod close;
mod evict;
mod join;
mod litmus;
mod lossy;
mod multi_producer;
mod order;
mod shared;
mod shared_several;
mod single_producer;
mod stages;
mod support;
mod teardown;
mod wake;
mod workers;
