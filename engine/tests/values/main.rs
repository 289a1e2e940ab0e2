//! The newest value of each key: what conflating subscribers promise.

mod conflate;
#[path = "../common/soon.rs"]
mod soon;
