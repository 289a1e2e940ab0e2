//! `peers`: our rings and topics, their rivals and the floor, measured in turn with equal work.

#[cfg(target_os = "linux")]
mod between;
#[cfg(feature = "rivals")]
mod channels;
mod command;
mod contender;
#[cfg(feature = "rivals")]
mod disruptor;
mod floor;
#[cfg(all(target_os = "linux", feature = "iceoryx2"))]
mod iceoryx;
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
#[cfg(target_os = "linux")]
mod second;
#[cfg(target_os = "linux")]
mod shared;
mod text;
mod waiting;
#[cfg(target_os = "linux")]
mod wires;

pub use command::{HELP, PeersArgs, command};
pub use regime::bare_line;
pub use render::write;
pub use results::PeersDocument;
#[cfg(target_os = "linux")]
pub use second::COMMAND as SECOND;
#[cfg(target_os = "linux")]
pub use shared::command as second;
pub use waiting::WaitClass;
