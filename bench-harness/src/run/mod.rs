//! `run`: the latency of one scenario on our ring.

pub mod schedule;
