//! The lock-free core of slipring.
#![deny(missing_docs)]
#![cfg_attr(loom, allow(dead_code))]

mod access;
mod batch;
mod bell;
mod buffer;
mod builder;
mod claim;
mod closing;
mod consumer;
mod core;
mod error;
pub mod fence;
mod gates;
mod join;
mod kind;
mod lossy;
mod managed;
mod memory;
mod multi_producer;
#[cfg(not(loom))]
#[allow(dead_code)]
mod ordering;
#[cfg(loom)]
pub mod ordering;
pub mod pin;
mod producer;
mod report;
mod ring;
mod sequence;
mod shown;
mod single_producer;
mod stage;
mod sync;
mod wait;
mod waiting;
mod worker;
mod workers;

pub use access::{Access, Exclusive, Shared};
pub use batch::{Batch, Events};
pub use bell::Waiter;
pub use builder::Builder;
pub use claim::Claim;
pub use closing::Closed;
pub use consumer::{Consumer, ConsumerMut};
pub use error::{BuildError, ClaimError, SeekError, SendError, StageError};
pub use kind::{Kind, Multi, Single};
pub use lossy::{LossyReader, LossyRing, LossyWriter, Plain};
pub use managed::Handler;
pub use memory::{MemoryReport, Obtained};
pub use producer::{MultiProducer, Producer, SingleProducer};
pub use report::{Ending, Positions, Report, StagePosition, StageReport};
pub use ring::Ring;
pub use sequence::{Sequence, Sequences};
pub use stage::{OnError, Stage, StageRef, Start};
#[cfg(any(loom, shuttle))]
pub use sync::Instant;
pub use wait::{Idle, UnknownWait, Wait, WaitStrategy};
pub use worker::{Taken, Worker};
