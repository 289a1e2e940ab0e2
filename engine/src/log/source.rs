//! The inputs of the committer: partitions of durable topics, and state sources such as queues, whose state is written
//! into the same frames.

use crate::log::producers::{ProducerStates, TouchedProducers};
use crate::log::progress::Progress;
use slipring_journal::{FrameBuilder, PartitionId, Writer};
use slipring_ring::Waiter;
use std::sync::Arc;

/// The frame that is being gathered, and the producers' states that go into it.
pub(crate) struct FrameContext<'g> {
    pub(crate) frame: &'g mut FrameBuilder,
    pub(crate) producer_states: &'g ProducerStates,
    pub(crate) touched: &'g mut TouchedProducers,
}

/// A component whose state is written in the frames of events, such as a queue.
pub(crate) trait StateSource: Send + Sync {
    /// Adds changed state to `frame`, up to about `room` bytes. `drained` returns the offset below which all events of
    /// a partition are in this frame or in earlier ones.
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        room: usize,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> DrainedState;

    /// How many of the source's changes are written, and how many are durable.
    fn progress(&self) -> &Arc<Progress>;
}

/// The result of [`StateSource::drain`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainedState {
    /// All changes up to this number are in this frame or in earlier ones. `None` if there were none to add.
    pub(crate) changes: Option<u64>,
    /// True if the source has more changes for the next frame.
    pub(crate) more: bool,
    /// True if a thread waits until this frame is durable.
    pub(crate) urgent: bool,
    /// True if the source must be asked again when more events are drained.
    pub(crate) awaits_events: bool,
}

/// One partition of a durable topic, independent of the type of its events.
pub(crate) trait Source: Send {
    fn look(&mut self, looks: u32) -> bool;
    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool;
    /// Adds published events to the frame, up to about `budget` bytes, and their stamps to the context. Reserves more
    /// offsets if the reservation runs short.
    fn drain(&mut self, context: FrameContext<'_>, budget: usize, writer: &Writer);
    /// Called when the drained events are written: frees their slots. Returns the next offset; `None` if no events were
    /// drained.
    fn written(&mut self) -> Option<u64>;
    fn progress(&self) -> &Arc<Progress>;
    fn id(&self) -> PartitionId;
    /// True if all events below `offset` are written, by groups or by transactions.
    fn reaches(&mut self, offset: u64) -> bool;
    /// Skips the offsets `first..end`, which a transaction has claimed, written and not published.
    fn pass_over(&mut self, first: u64, end: u64);
    /// The new end of the offset reservation; `None` if it has not changed since the last call.
    fn reserves(&mut self) -> Option<u64>;
    /// True if the source had to wait for a reservation since the last call.
    fn was_blocked(&mut self) -> bool;
    /// True if all events were read and no more can come, or if the ring was halted.
    fn is_over(&self) -> bool;
    /// True if the topic is closed. Unread events may be left.
    fn is_closed(&self) -> bool;
    /// Cuts the ring off: it accepts no more events and refuses outstanding claims. Readers that have read all events
    /// learn that it has ended.
    fn close(&self);
    fn fail(&self, cause: &str);
    /// Why an event could not be written; `None` if there was no error. Later events will never be written.
    fn failed(&mut self) -> Option<String>;
    /// The offset below which all events are in the frame that is being gathered or in written ones.
    fn drained(&self) -> u64;
}
