//! Public modules that belong to no single layer, each with a page of documentation. They only re-export items of the
//! layers.

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
pub mod replication;
pub mod subscriber;
pub mod table;
pub mod transaction;
