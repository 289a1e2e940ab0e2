//! The models: the ring's own code under loom, one hazard each. Built with `--cfg loom` only; `loom-tests/run` builds
//! and runs them, see the README.
#![cfg(loom)]

mod catalogue;
mod multi_producer;
mod single_producer;
mod support;
mod wake;
