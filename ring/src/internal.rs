//! For slipring's own crates and nobody else: what they need of ring beyond its public face. It changes with any version,
//! without a word in the changelog.
//!
//! - [`caught`], [`blaming`] and [`Panic`]: how a panic of the user's code is caught and told, the same in both crates.
//! - [`Held`], [`wake`] and [`outside`]: how wakers and callbacks wait until the thread holds no lock.
//! - [`deadline`]: what a limit of time means that no clock reaches.

pub use crate::deadline::deadline;
pub use crate::held::{Held, outside, wake};
pub use crate::panics::{Panic, blaming, caught};
