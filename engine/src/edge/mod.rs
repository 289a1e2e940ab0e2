//! The engine's interfaces to async tasks, to other processes and to Prometheus.

#[cfg(feature = "async")]
pub(crate) mod futures;
#[cfg(feature = "observe")]
pub(crate) mod observe;
pub(crate) mod prometheus;
