//! Items that only slipring's own crates may use, beyond the public interface of the ring. They may change in any
//! version, without a note in the changelog.
//!
//! - [`caught`], [`blaming`] and [`Panic`]: catching and reporting a panic of the user's code.
//! - [`Held`], [`wake`] and [`outside`]: delaying wakers and callbacks until the thread holds no lock.
//! - [`deadline`]: the deadline for a time limit, also for limits beyond the clock's range.

pub use crate::deadline::deadline;
pub use crate::held::{Held, outside, wake};
pub use crate::panics::{Panic, blaming, caught};
