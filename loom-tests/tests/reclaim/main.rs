//! Models that run crossbeam-epoch itself under loom: the gating set is replaced while a producer takes it. Built with
//! `--cfg loom --cfg crossbeam_loom --cfg crossbeam_sanitize` only; `loom-tests/run` builds and runs them, see the
//! README.
#![cfg(crossbeam_loom)]

mod gates;
#[allow(dead_code)]
#[path = "../models/support.rs"]
mod support;
