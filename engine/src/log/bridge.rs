//! Bridges, as the journal knows them: which bridge copies a topic to other machines, up to which offset it has done so,
//! and which records the journal keeps for it.
//!
//! A bridge moves [`Progress::replicated`] only through its handle. Its end is no end of the journal: threads that wait for
//! a replicated offset get the bridge's own cause, and all others are not disturbed.

use crate::base::level::{Level, WaitError};
use crate::event::record::Record;
use crate::log::catalog::state_kind;
use crate::log::partition_key::{key, key_parts};
use crate::log::progress::{Acks, Progress};
use slipring_journal::{FrameBuilder, PartitionId, RetentionFloor, State};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The largest [`BridgePosition::detail`] in bytes.
pub const MAX_DETAIL: usize = 1024;

/// The position of a bridge in a partition, as a journal's state has it: see [`bridge_positions`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgePosition {
    /// The bridge's name.
    pub bridge: String,
    /// The partition.
    pub of: PartitionId,
    /// The next offset that the bridge has to copy, as it was recorded last; the bridge may be further. The journal keeps
    /// the records from this offset on.
    pub offset: u64,
    /// The largest total size in bytes of the records that the journal keeps for the bridge; `None` for no limit.
    pub hold: Option<u64>,
    /// What the bridge has recorded with the position, for its own use; at most [`MAX_DETAIL`] bytes.
    pub detail: Vec<u8>,
}

/// The fixed part of a value's bytes. The bridge's own bytes follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPosition {
    offset: U64,
    /// In bytes; `u64::MAX` for no limit.
    hold: U64,
}

impl BridgePosition {
    /// The position of a bridge in a partition, without a limit of bytes and without bytes of the bridge's own.
    pub fn new(bridge: impl Into<String>, of: PartitionId, offset: u64) -> Self {
        Self { bridge: bridge.into(), of, offset, hold: None, detail: Vec::new() }
    }

    /// Adds the position to `frame`. Only for a journal that no engine has open, because an engine reads positions only
    /// when it opens the journal.
    pub fn put(&self, frame: &mut FrameBuilder) {
        let head = RawPosition { offset: self.offset.into(), hold: self.hold.unwrap_or(u64::MAX).into() };
        let value = [head.as_bytes(), &self.detail].concat();
        frame.put(state_kind::BRIDGES, &key(&self.bridge, self.of), &value);
    }

    /// Adds the deletion of the position to `frame`. The journal then keeps no record for the bridge.
    pub fn delete(&self, frame: &mut FrameBuilder) {
        frame.delete(state_kind::BRIDGES, &key(&self.bridge, self.of));
    }

    fn decode(at: &[u8], value: &[u8]) -> Option<Self> {
        let ((bridge, of), (head, detail)) = (key_parts(at)?, RawPosition::read_from_prefix(value).ok()?);
        let hold = Some(head.hold.get()).filter(|hold| *hold != u64::MAX);
        let detail = detail.get(..MAX_DETAIL).unwrap_or(detail).to_vec();
        Some(Self { bridge: bridge.to_owned(), of, offset: head.offset.get(), hold, detail })
    }
}

/// The positions of all bridges in a journal's state, sorted by partition and name. Those that this version cannot decode
/// are left out.
pub fn bridge_positions(state: &State) -> Vec<BridgePosition> {
    let known = state.values(state_kind::BRIDGES);
    let mut known: Vec<_> = known.filter_map(|(key, value)| BridgePosition::decode(key, value)).collect();
    known.sort_by(|a, b| (a.of, &a.bridge).cmp(&(b.of, &b.bridge)));
    known
}

/// The positions of all bridges of an engine, whether a bridge runs or not. A record that a stopped bridge has not copied
/// is kept too.
#[derive(Default)]
pub(crate) struct BridgePositions {
    list: Mutex<BTreeMap<(PartitionId, String), BridgePosition>>,
}

impl BridgePositions {
    pub(crate) fn recovered(state: &State) -> Self {
        let known = bridge_positions(state).into_iter();
        Self { list: Mutex::new(known.map(|position| ((position.of, position.bridge.clone()), position)).collect()) }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<(PartitionId, String), BridgePosition>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, of: PartitionId, bridge: &str) -> Option<BridgePosition> {
        self.list().get(&(of, bridge.to_owned())).cloned()
    }

    pub(crate) fn set(&self, position: BridgePosition) {
        self.list().insert((position.of, position.bridge.clone()), position);
    }

    /// Moves a position forward, so that the journal no longer keeps the records below `offset` for the bridge.
    pub(crate) fn advance(&self, of: PartitionId, bridge: &str, offset: u64) {
        if let Some(position) = self.list().get_mut(&(of, bridge.to_owned())) {
            position.offset = position.offset.max(offset);
        }
    }

    /// Removes the bridge's positions in the topic with this number in the journal, and returns them.
    pub(crate) fn take(&self, topic: u32, bridge: &str) -> Vec<BridgePosition> {
        let mut list = self.list();
        let of_bridge: Vec<_> = list.keys().filter(|(of, name)| of.topic == topic && name == bridge).cloned().collect();
        of_bridge.iter().filter_map(|key| list.remove(key)).collect()
    }

    /// Removes all positions in the topic with this number in the journal.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.list().retain(|(of, _), _| of.topic != topic);
    }

    /// The records that the journal keeps for bridges, by partition.
    pub(crate) fn floors(&self) -> BTreeMap<PartitionId, Vec<RetentionFloor>> {
        let mut floors: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for position in self.list().values() {
            let floor = RetentionFloor { offset: position.offset, bytes: position.hold };
            floors.entry(position.of).or_default().push(floor);
        }
        floors
    }
}

/// What a bridge tells of its own state, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeReport {
    /// The size in bytes of the durable events that are not replicated; `None` if the bridge does not know it.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest event that is durable and not replicated; `None` if all are replicated, or if the bridge
    /// does not know it.
    pub lag_time: Option<Duration>,
    /// The last error of the bridge, as text, while it tries again; `None` if it works.
    pub error: Option<String>,
}

/// The largest message that a bridge can copy, by a measure of the bridge's own.
pub(crate) struct MessageLimit {
    /// The largest size in bytes, as `measure` counts it.
    pub(crate) largest: usize,
    pub(crate) measure: Box<MessageMeasure>,
}

/// Returns the size in bytes that a record has in a bridge's copy.
pub(crate) type MessageMeasure = dyn Fn(&Record<'_>) -> usize + Send + Sync;

impl std::fmt::Debug for MessageLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MessageLimit({} bytes)", self.largest)
    }
}

/// A bridge that is attached to a topic, or was attached last.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    /// Which attachment of the topic this is, from 1.
    pub(crate) number: u64,
    pub(crate) bridge: String,
    /// Why the bridge has ended; `None` while it is attached.
    pub(crate) ended: Option<String>,
    pub(crate) report: BridgeReport,
    /// The largest message that the bridge can copy; `None` while the bridge has not said it.
    pub(crate) limit: Option<Arc<MessageLimit>>,
}

impl Acks {
    fn attachment(&self) -> MutexGuard<'_, Option<Attachment>> {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic's bridge; `None` if it never had one.
    pub(crate) fn bridge(&self) -> Option<Attachment> {
        self.attachment().clone()
    }

    /// True if a bridge is attached, false if the topic's bridge has ended, `None` if the topic never had one.
    pub(crate) fn bridged(&self) -> Option<bool> {
        self.attachment().as_ref().map(|attachment| attachment.ended.is_none())
    }

    /// Attaches a bridge and returns the attachment's number. The error is the name of the bridge that is attached.
    pub(crate) fn attach(&self, bridge: &str) -> Result<u64, String> {
        let mut present = self.attachment();
        let number = match &*present {
            Some(Attachment { bridge, ended: None, .. }) => return Err(bridge.clone()),
            Some(Attachment { number, .. }) => number + 1,
            None => 1,
        };
        let report = BridgeReport::default();
        let attachment = Attachment { number, bridge: bridge.to_owned(), ended: None, report, limit: None };
        let before = present.replace(attachment);
        // The limit of the bridge before is that one's own code, and is dropped without the lock.
        drop(present);
        drop(before);
        Ok(number)
    }

    /// Why the attachment with this number has ended; `None` while it is attached.
    pub(crate) fn bridge_end(&self, number: u64) -> Option<String> {
        match &*self.attachment() {
            Some(present) if present.number == number => present.ended.clone(),
            _ => Some("another bridge has been attached".to_owned()),
        }
    }

    pub(crate) fn report_bridge(&self, number: u64, report: BridgeReport) {
        if let Some(present) = self.attachment().as_mut().filter(|present| present.number == number) {
            present.report = report;
        }
    }

    /// Sets the largest message of the attachment with this number, and calls `lower`, which makes publishes look for the
    /// limit. Does nothing if the attachment has ended.
    pub(crate) fn limit_messages(&self, number: u64, limit: MessageLimit, lower: impl FnOnce()) {
        let mut attachment = self.attachment();
        if let Some(present) = attachment.as_mut().filter(|it| it.number == number && it.ended.is_none()) {
            let before = present.limit.replace(Arc::new(limit));
            lower();
            // The bridge's own code is dropped without the lock.
            drop(attachment);
            drop(before);
        }
    }

    /// The attached bridge's name and its largest message; `None`, after a call of `lift`, if no bridge is attached or the
    /// bridge has not said it. The lock orders `lift` and the `lower` of [`limit_messages`](Self::limit_messages).
    pub(crate) fn message_limit(&self, lift: impl FnOnce()) -> Option<(String, Arc<MessageLimit>)> {
        let present = self.attachment();
        let attached = present.as_ref().filter(|present| present.ended.is_none());
        let limit = attached.and_then(|it| Some((it.bridge.clone(), Arc::clone(it.limit.as_ref()?))));
        if limit.is_none() {
            lift();
        }
        limit
    }

    /// Ends the attachment with this number, or, with `None`, the present one, and wakes all waits for replicated
    /// offsets. Only the first end of an attachment counts.
    pub(crate) fn end_bridge(&self, number: Option<u64>, cause: &str) {
        if let Some(present) = &mut *self.attachment()
            && number.is_none_or(|number| number == present.number)
            && present.ended.is_none()
        {
            present.ended = Some(cause.to_owned());
        }
        // The cause is set before the waits are taken, so a wait that is registered later finds the cause.
        self.all().iter().for_each(|progress| progress.waits.wake_replicated());
    }

    /// The error for an event that is not replicated: it never will be, or nobody knows. `None` while it may still be.
    pub(super) fn not_replicated(&self, progress: &Progress, offset: u64) -> Option<Result<Level, WaitError>> {
        if progress.is_skipped(offset) {
            return Some(Err(WaitError::Skipped));
        }
        let journal = progress.lost(offset).or(self.notifier.end_cause()).map(str::to_owned);
        let ended = || self.attachment().as_ref().and_then(|present| present.ended.clone());
        let cause = journal.or_else(ended)?;
        // Events that were replicated just before the end count as replicated.
        Some(match progress.level(offset) {
            Level::Replicated => Ok(Level::Replicated),
            has @ Level::Durable => Err(WaitError::Bridge { has, cause }),
            has if self.notifier.end_cause().is_none() && progress.lost(offset).is_none() => {
                Err(WaitError::Bridge { has, cause })
            }
            _ => Err(WaitError::Unknown { cause }),
        })
    }

    /// The offset below which all events of a partition are durable, which a bridge may copy.
    pub(crate) fn durable(&self, partition: u32) -> Option<u64> {
        Some(self.progress(partition)?.durable.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: PartitionId = PartitionId { topic: 7, partition: 2 };

    #[test]
    fn a_position_comes_back_from_the_journals_state() {
        let mut frame = FrameBuilder::new();
        let mut all = vec![BridgePosition::new("a", OF, 5), BridgePosition::new("nats", OF, u64::MAX - 1)];
        all[1].hold = Some(1 << 40);
        all[1].detail = b"where".to_vec();
        all.iter().rev().for_each(|position| position.put(&mut frame));
        frame.put(state_kind::BRIDGES, &key("short", OF), &[1; 15]);
        let mut state = State::default();
        state.take(&mut frame);
        assert_eq!(bridge_positions(&state), all);
        let mut frame = FrameBuilder::new();
        all[0].delete(&mut frame);
        state.take(&mut frame);
        assert_eq!(bridge_positions(&state), all[1..]);
    }

    #[test]
    fn floors_are_those_of_all_bridges_and_go_with_their_topic() {
        let positions = BridgePositions::default();
        positions.set(BridgePosition::new("a", OF, 5));
        positions.set(BridgePosition { hold: Some(9), ..BridgePosition::new("b", OF, 3) });
        positions.advance(OF, "b", 4);
        positions.advance(OF, "b", 2);
        positions.advance(OF, "c", 2);
        let expected = vec![RetentionFloor { offset: 5, bytes: None }, RetentionFloor { offset: 4, bytes: Some(9) }];
        assert_eq!(positions.floors(), BTreeMap::from([(OF, expected)]));
        assert_eq!(positions.take(OF.topic, "a").len(), 1);
        assert!(positions.get(OF, "a").is_none() && positions.get(OF, "b").is_some());
        positions.forget_topic(OF.topic);
        assert!(positions.floors().is_empty());
    }
}
