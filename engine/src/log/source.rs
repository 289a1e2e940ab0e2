//! The inputs of the committer: partitions of durable topics, and state sources, such as queues, whose state is written into the
//! same frames.

use crate::log::producers::{ProducerStates, TouchedProducers};
use crate::log::progress::Progress;
use slipring_journal::{FrameBuilder, PartitionId, Writer};
use slipring_ring::Waiter;
use std::sync::Arc;

/// The frame that is being gathered, and what a source needs to fill it.
pub(crate) struct FrameContext<'g> {
    pub(crate) frame: &'g mut FrameBuilder,
    pub(crate) producer_states: &'g ProducerStates,
    pub(crate) touched: &'g mut TouchedProducers,
}

/// Something whose state is written in the frames of events, such as a queue.
pub(crate) trait StateSource: Send + Sync {
    /// Puts what has changed into `frame`, up to about `room` bytes. `drained` returns the offset up to which the events of
    /// a partition are in this frame or in earlier ones.
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        room: usize,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> DrainedState;

    /// How many of its changes are written, and how many durable.
    fn progress(&self) -> &Arc<Progress>;
}

/// What a state source has put into a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainedState {
    /// All changes up to this number are in this frame or in earlier ones.
    pub(crate) changes: Option<u64>,
    /// There are more changes, for the next frame.
    pub(crate) more: bool,
    /// Somebody waits until this frame is durable.
    pub(crate) urgent: bool,
    /// It waits until more events are drained.
    pub(crate) awaits_events: bool,
}

/// One partition of a durable topic, whatever the type of its events.
pub(crate) trait Source: Send {
    fn look(&mut self, looks: u32) -> bool;
    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool;
    /// Puts the events that are there into the frame, up to about `budget` bytes, and asks for more offsets if they run out.
    /// The stamps of the events are noted in the context.
    fn drain(&mut self, context: FrameContext<'_>, budget: usize, writer: &Writer);
    /// The drained events are written: frees their slots. Returns the next offset, or none if nothing was drained.
    fn written(&mut self) -> Option<u64>;
    fn progress(&self) -> &Arc<Progress>;
    fn id(&self) -> PartitionId;
    /// True if everything below `offset` is written, by groups or by transactions.
    fn reaches(&mut self, offset: u64) -> bool;
    /// A transaction has written the offsets `first..end`, which are claimed and not published.
    fn pass_over(&mut self, first: u64, end: u64);
    /// The offset up to which it reserves offsets, if that has changed since the last call.
    fn reserves(&mut self) -> Option<u64>;
    /// True if it had to wait for a reservation since the last call.
    fn was_blocked(&mut self) -> bool;
    /// True if all events were read and no more come, or if reading was cut short.
    fn is_over(&self) -> bool;
    /// True if the topic was closed. More events may still have to be read.
    fn is_closed(&self) -> bool;
    /// Cuts the ring off: nothing more is taken, not even what is being published, and readers that have read everything are
    /// told the end.
    fn close(&self);
    fn fail(&self, cause: &str);
    /// Why an event could not be written, if that happened. The events behind it will never be written.
    fn failed(&mut self) -> Option<String>;
    /// The offset up to which the events are in a frame that is written or about to be.
    fn drained(&self) -> u64;
}
