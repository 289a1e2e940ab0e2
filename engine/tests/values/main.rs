//! The newest value of each key: what conflating subscribers and tables promise.

mod conflate;
#[path = "../common/soon.rs"]
mod soon;
mod table;
