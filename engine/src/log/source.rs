//! What the journaler reads: partitions of durable topics, and state that rides with their events.

use super::committer::Journaling;
use crate::base::multi_wait::Watched;
use crate::log::producers::{Ledgers, Touched};
use crate::log::progress::Positions;
use slipring_journal::{FrameBuilder, PartitionId, Writer};
use slipring_ring::Waiter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a group is gathered into.
pub(crate) struct Gathering<'g> {
    pub(crate) frame: &'g mut FrameBuilder,
    pub(crate) ledgers: &'g Ledgers,
    pub(crate) touched: &'g mut Touched,
}

/// Somebody whose state is written in the frames of events.
pub(crate) trait Rider: Send + Sync {
    /// Puts what has changed into `frame`, up to about `room` bytes. `drained` tells up to where the events of a partition
    /// are in this frame or in earlier ones.
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        room: usize,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> Ridden;

    /// How many of its changes are written, and durable.
    fn positions(&self) -> &Arc<Positions>;
}

/// What a rider has put into a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ridden {
    /// All changes up to this number are in this frame or in earlier ones.
    pub(crate) changes: Option<u64>,
    /// There is more, for the next frame.
    pub(crate) more: bool,
    /// Somebody waits until it is durable.
    pub(crate) urgent: bool,
    /// It waits for events to be drained.
    pub(crate) expects: bool,
}

/// One partition of a durable topic, whatever its events.
pub(crate) trait Source: Send {
    fn look(&mut self, looks: u32) -> bool;
    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool;
    /// Puts what is there into `frame`, up to about `budget` bytes, and asks for offsets if they are running out.
    /// Whose events have marks, `gathering` learns.
    fn drain(&mut self, gathering: Gathering<'_>, budget: usize, writer: &Writer);
    /// What was drained is written: gives the slots free. Returns the end, if there was anything.
    fn written(&mut self) -> Option<u64>;
    fn positions(&self) -> &Arc<Positions>;
    fn id(&self) -> PartitionId;
    /// Whether all below `offset` is written, by groups or transactions.
    fn reaches(&mut self, offset: u64) -> bool;
    /// A transaction wrote these offsets, which are claimed and not published.
    fn pass_over(&mut self, first: u64, end: u64);
    /// What it reserves by now, if that has changed since the last call.
    fn reserves(&mut self) -> Option<u64>;
    /// All was read and no more comes, or its reading was cut short.
    /// Whether it waited for a reservation since the last call.
    fn was_blocked(&mut self) -> bool;
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

/// All of them, as the journaler waits for them.
pub(super) struct Sources {
    pub(super) list: Vec<Option<Box<dyn Source>>>,
    pub(super) interrupted: Arc<Journaling>,
}

impl Sources {
    pub(super) fn of(&mut self, id: PartitionId) -> Option<&mut Box<dyn Source>> {
        self.list.iter_mut().flatten().find(|source| source.id() == id)
    }
}

impl Watched for Sources {
    fn look(&mut self, source: usize, looks: u32) -> bool {
        self.list[source].as_mut().is_some_and(|source| source.look(looks))
    }

    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool {
        self.list[source].as_mut().is_none_or(|rings| rings.arm(waiter, source))
    }

    fn is_interrupted(&self) -> bool {
        let Journaling { has_mail, rides_told, rides_now, bookmarks, .. } = &*self.interrupted;
        let has = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        has(has_mail) || has(rides_told) || has(rides_now) || bookmarks.has_told()
    }
}
