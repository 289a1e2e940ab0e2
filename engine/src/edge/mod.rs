//! Where an engine meets what is not Rust with threads: tasks, other processes, Prometheus.

#[cfg(feature = "async")]
pub(crate) mod futures;
#[cfg(feature = "observe")]
pub(crate) mod observe;
pub(crate) mod prometheus;
