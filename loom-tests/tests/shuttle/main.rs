//! Tests that are too large for a model checker, under randomised schedules, and tests of deadlines, for which loom has
//! no clock. Built with `--cfg shuttle` only; `loom-tests/run` builds and runs them. The README describes how to replay
//! a failure.
#![cfg(shuttle)]

mod crowd;
mod deadlines;
mod support;
