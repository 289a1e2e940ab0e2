//! `peers`: our rings and topics, their rivals and the floor, measured in turn with equal work.

#[cfg(feature = "rivals")]
mod channels;
mod command;
mod contender;
#[cfg(feature = "rivals")]
mod disruptor;
mod floor;
mod java;
pub mod latencies;
pub mod link;
mod messages;
mod open_loop;
mod ours;
mod plan;
#[cfg(feature = "rivals")]
mod queues;
mod regime;
mod render;
mod results;
#[cfg(feature = "rivals")]
mod rtrb;
mod text;
mod waiting;

pub use command::{HELP, PeersArgs, command};
pub use regime::bare_line;
pub use render::write;
pub use results::PeersDocument;
pub use waiting::WaitClass;
