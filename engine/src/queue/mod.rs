//! Queue mode.
mod calendar;
#[doc(hidden)]
pub mod lease;
