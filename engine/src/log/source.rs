//! What the committer reads: partitions of durable topics, and state that rides with their events.

use crate::log::producers::{ProducerStates, TouchedProducers};
use crate::log::progress::Progress;
use slipring_journal::{FrameBuilder, PartitionId, Writer};
use slipring_ring::Waiter;
use std::sync::Arc;

/// What a group is gathered into.
pub(crate) struct FrameContext<'g> {
    pub(crate) frame: &'g mut FrameBuilder,
    pub(crate) producer_states: &'g ProducerStates,
    pub(crate) touched: &'g mut TouchedProducers,
}

/// Somebody whose state is written in the frames of events.
pub(crate) trait StateSource: Send + Sync {
    /// Puts what has changed into `frame`, up to about `room` bytes. `drained` tells up to where the events of a partition
    /// are in this frame or in earlier ones.
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        room: usize,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> DrainedState;

    /// How many of its changes are written, and durable.
    fn progress(&self) -> &Arc<Progress>;
}

/// What a state source has put into a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainedState {
    /// All changes up to this number are in this frame or in earlier ones.
    pub(crate) changes: Option<u64>,
    /// There is more, for the next frame.
    pub(crate) more: bool,
    /// Somebody waits until it is durable.
    pub(crate) urgent: bool,
    /// It waits for events to be drained.
    pub(crate) awaits_events: bool,
}

/// One partition of a durable topic, whatever its events.
pub(crate) trait Source: Send {
    fn look(&mut self, looks: u32) -> bool;
    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool;
    /// Puts what is there into `frame`, up to about `budget` bytes, and asks for offsets if they are running out.
    /// Whose events have stamps, `context` learns.
    fn drain(&mut self, context: FrameContext<'_>, budget: usize, writer: &Writer);
    /// What was drained is written: gives the slots free. Returns the end, if there was anything.
    fn written(&mut self) -> Option<u64>;
    fn progress(&self) -> &Arc<Progress>;
    fn id(&self) -> PartitionId;
    /// Whether all below `offset` is written, by groups or transactions.
    fn reaches(&mut self, offset: u64) -> bool;
    /// A transaction wrote these offsets, which are claimed and not published.
    fn pass_over(&mut self, first: u64, end: u64);
    /// What it reserves by now, if that has changed since the last call.
    fn reserves(&mut self) -> Option<u64>;
    /// True if it waited for a reservation since the last call.
    fn was_blocked(&mut self) -> bool;
    /// True if all events were read and no more come, or if its reading was cut short.
    fn is_over(&self) -> bool;
    /// Whether its topic was closed, so that nothing more comes, though it may not have been told of the end yet.
    fn is_closed(&self) -> bool;
    /// Takes nothing more, not even what is being published, and tells the end to whoever has read all.
    fn close(&self);
    fn fail(&self, cause: &str);
    /// Why an event could not be written, if it could not: what comes behind it never will be.
    fn failed(&mut self) -> Option<String>;
    /// Up to where its events are in a frame, written or about to be.
    fn drained(&self) -> u64;
}
