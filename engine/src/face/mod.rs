//! The public modules that are no layer of their own, each with a page that teaches it. They only show what the layers define.

pub mod clock;
pub mod cores;
pub mod dead_letter;
#[cfg(feature = "async")]
pub mod futures;
pub mod journal;
pub mod metrics;
pub mod prelude;
pub mod producer;
pub mod replay;
pub mod subscriber;
pub mod transaction;
