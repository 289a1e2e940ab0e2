//! `peers`: the same work for our rings, their rivals and the floor, round by round in turn.

#[cfg(feature = "rivals")]
mod channels;
mod command;
mod contender;
#[cfg(feature = "rivals")]
mod disruptor;
mod floor;
mod groups;
mod java;
pub mod link;
mod ours;
pub mod payload;
mod plan;
mod render;
mod results;
#[cfg(feature = "rivals")]
mod rtrb;
mod text;
mod topics;
mod waiting;

pub use command::command;
pub use render::write;
pub use results::PeersDocument;
pub use waiting::WaitClass;
