//! The inputs of the committer: partitions of durable topics, and state sources such as queues, whose state is written
//! into the same frames.

use crate::log::producers::{ProducerStates, TouchedProducers};
use crate::log::progress::Progress;
use slipring_journal::{FrameBuilder, PartitionId, State, Writer};
use slipring_ring::Waiter;
use std::sync::Arc;

/// The frame that is being gathered, and the producers whose states go into it.
pub(crate) struct FrameContext<'g> {
    pub(crate) frame: &'g mut FrameBuilder,
    pub(crate) producer_states: &'g ProducerStates,
    pub(crate) touched: &'g mut TouchedProducers,
}

/// The room for the state of a state source: in the frame that is being gathered, and in the journal's state.
pub(crate) struct StateRoom<'w> {
    /// The journal's state before the frame.
    state: &'w State,
    /// The greatest size of the frame in bytes.
    frame: usize,
    /// By how many bytes the journal's state may still grow.
    growth: usize,
}

/// What had no room for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The frame. The next frame has room.
    Frame,
    /// The journal's state. Entries that do not make it grow may still have room.
    State,
}

impl<'w> StateRoom<'w> {
    /// The room beside what is in `frame` already.
    pub(crate) fn beside(frame: &mut FrameBuilder, writer: &'w Writer) -> Self {
        Self { state: writer.state(), frame: writer.frame_limit(), growth: writer.state_room_after(frame) }
    }

    /// The value of a key before the frame.
    pub(crate) fn value(&self, state_kind: u16, key: &[u8]) -> Option<&'w [u8]> {
        self.state.get(state_kind, key)
    }

    /// Adds entries to `frame` by `put`, if there is room for them: of new values, and at most one that changes the
    /// value of `key`, which has up to 255 bytes. Without room `frame` stays as it was. What the entries of a frame
    /// free makes room only once the frame is written, so a value may be changed several times.
    pub(crate) fn add(
        &mut self,
        frame: &mut FrameBuilder,
        (state_kind, key): (u16, &[u8]),
        put: impl FnOnce(&mut FrameBuilder),
    ) -> Result<(), NoRoom> {
        let (savepoint, before) = (frame.savepoint(), frame.len());
        put(frame);
        // In the state and in a frame, a value takes the same bytes beside its key and itself.
        let old = self.state.get(state_kind, key).map_or(0, |old| VALUE_HEAD + key.len() + old.len());
        let grown = (frame.len() - before).saturating_sub(old);
        let refused = match () {
            () if frame.len() > self.frame => NoRoom::Frame,
            () if grown > self.growth => NoRoom::State,
            () => {
                self.growth -= grown;
                return Ok(());
            }
        };
        frame.rewind(savepoint);
        Err(refused)
    }
}

/// The size in bytes of a value's entry, beside its key and value.
const VALUE_HEAD: usize = 8;

/// A component whose state is written into the frames of events, such as a queue.
pub(crate) trait StateSource: Send + Sync {
    /// Adds changed state to `frame`, as far as there is `room`. `drained` returns, for a partition, the offset below
    /// which all events are in this frame or in earlier ones; `None` if the committer does not read the partition.
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        room: StateRoom<'_>,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> DrainedState;

    /// How many of the source's changes are written, and how many are durable.
    fn progress(&self) -> &Arc<Progress>;
}

/// The result of [`StateSource::drain`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainedState {
    /// All changes up to and including this number are in this frame or in earlier ones. `None` if no change was added.
    pub(crate) changes: Option<u64>,
    /// True if the source has more changes, for which there was no room. It is asked again once the frame is written; if
    /// the frame is empty, once the journal's state has more room.
    pub(crate) more: bool,
    /// True if a thread waits until these changes are durable, so the frame is synced as a frame of events is.
    pub(crate) urgent: bool,
    /// True if the source has state that it can add only after more events are gathered, and must be asked again then.
    pub(crate) awaits_events: bool,
}

/// One partition of a durable topic as the committer reads it, independent of the type of its events.
pub(crate) trait Source: Send {
    /// See [`WaitSources::look`](crate::base::multi_wait::WaitSources::look).
    fn look(&mut self, looks: u32) -> bool;
    /// See [`WaitSources::arm`](crate::base::multi_wait::WaitSources::arm). `token` is the source's number.
    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool;
    /// Adds published events to the frame, until the whole frame has about `budget` bytes, and their stamps to the
    /// context. If the present reservation of offsets runs short, adds a new one to the frame.
    fn drain(&mut self, context: FrameContext<'_>, budget: usize, writer: &Writer);
    /// Notes that the drained events are written, and frees their slots. Returns the next offset to be written; `None`
    /// if the last [`drain`](Self::drain) has read no slots.
    fn written(&mut self) -> Option<u64>;
    fn progress(&self) -> &Arc<Progress>;
    fn id(&self) -> PartitionId;
    /// True if every slot below `offset` has a written event, or was published without an event.
    fn reaches(&mut self, offset: u64) -> bool;
    /// Notes that the events at the offsets `first..end` of a transaction are written, so that they are skipped. They
    /// are claimed and not published yet.
    fn pass_over(&mut self, first: u64, end: u64);
    /// The end (exclusive) of the reservation of offsets that the last [`drain`](Self::drain) has added to its frame,
    /// and that holds once that frame is synced; `None` if it has added none.
    fn reserves(&mut self) -> Option<u64>;
    /// True if the source could not read events since the last call, because it had to wait for a reservation.
    fn was_blocked(&mut self) -> bool;
    /// True if all events were read and no more can come, or if the ring was halted or has failed.
    fn is_over(&self) -> bool;
    /// True if the topic is closed. It may still have unread events.
    fn is_closed(&self) -> bool;
    /// Closes the ring at once: it accepts no more events, and refuses to publish outstanding claims. Readers that have
    /// read all events get [`Closed`](crate::topic::Closed).
    fn close(&self);
    fn fail(&self, cause: &str);
    /// Announces [`fail`](Self::fail): called for all sources that are to fail together before the first of them fails,
    /// so that a reader that leaves all partitions because one has failed is not blamed for the others.
    fn announce_failure(&self, cause: &str);
    /// The reason why an event could not be written; `None` if there was no error. After an error no later event of the
    /// partition is written.
    fn failed(&mut self) -> Option<String>;
    /// The offset below which all events are in the frame that is being gathered, or in earlier frames.
    fn drained(&self) -> u64;
    /// The offset after the last one that was published or given up. Final once the source is over or closed.
    fn issued(&self) -> u64;
}
