//! Gaps: ranges of offsets whose records were lost to damage, and the journal's record of which readers have had them
//! reported.

use crate::base::clock::Timestamp;
use crate::base::overload::ConsumerStats;
use crate::base::threads::blaming;
use crate::log::catalog::recorded_topics;
use crate::log::catalog::state_kind;
use crate::log::committer::{Committer, TransactionFrame, TransactionOutcome};
use crate::log::partition_key::RawPartitionId;
use slipring_journal::{FrameBuilder, PartitionId, State};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A range of offsets of a partition whose records were lost to damage: a [repair](crate::journal::repair) of the
/// journal could not save them.
///
/// A reader gets a gap instead of an event when its next offset is in the gap, so after all events before it.
/// Partitions without lost records have no gaps. The reader's policy for gaps is [`OnGap`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic {topic:?}, partition {partition}: the events at offsets {} up to, not including, {} were lost to damage and could \
     not be repaired; reading continues after them", .offsets.start, .offsets.end
)]
#[non_exhaustive]
pub struct Gap {
    /// The topic's name.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: u32,
    /// The lost offsets; `end` is exclusive. Some of them may never have had an event, because a crash leaves offsets
    /// unused.
    pub offsets: Range<u64>,
}

impl Gap {
    /// Creates a gap in `partition` of `topic` with these offsets (end exclusive).
    pub fn new(topic: impl Into<String>, partition: u32, offsets: Range<u64>) -> Self {
        Self { topic: topic.into(), partition, offsets }
    }
}

/// What a reader of a durable topic does at a [`Gap`]. Each policy counts the lost offsets: see
/// [`ConsumerMetrics::lost`](crate::metrics::ConsumerMetrics::lost).
///
/// | | read or poll | |
/// |---|---|---|
/// | `Fail` | returns an error once; the next call continues after the gap | default |
/// | `PassOver` | continues after the gap | |
/// | `Call` | calls a function with the gap, then continues after it | |
///
/// [Groups](crate::Topic::group) and [transforms](crate::Topic::transform) get each gap reported once. The journal
/// records the report with the reader's new offset, durably, before the error is returned or the function is called. So
/// a program that ends at the error continues after the gap when it is started again. Reported gaps are listed in
/// [`Engine::gaps`](crate::Engine::gaps), metrics, reports and `slipring group`, until they are
/// [acknowledged](crate::Engine::acknowledge_gaps). A [replay](crate::Topic::replay) gets the gap reported at each
/// opening.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum OnGap {
    /// Makes the read or poll return the gap as an error, once.
    #[default]
    Fail,
    /// Continues after the gap. The lost offsets are only counted.
    PassOver,
    /// Calls this function on the reading thread, with no lock held, then continues after the gap.
    Call(Arc<dyn Fn(&Gap) + Send + Sync>),
}

impl OnGap {
    /// Returns the policy that calls `f` with each gap.
    pub fn call(f: impl Fn(&Gap) + Send + Sync + 'static) -> Self {
        Self::Call(Arc::new(f))
    }

    /// Applies the policy to the gap. Returns the gap as the error with [`Fail`](Self::Fail), else `Ok`.
    pub(crate) fn answer(&self, gap: Gap) -> Result<(), Gap> {
        match self {
            Self::Fail => Err(gap),
            Self::PassOver => Ok(()),
            Self::Call(f) => {
                blaming("what is called with a gap", || f(&gap));
                Ok(())
            }
        }
    }

    /// Counts the gap's offsets in `stats`, then applies the policy as [`answer`](Self::answer) does.
    pub(crate) fn meet(&self, gap: Gap, stats: &ConsumerStats) -> Result<(), Gap> {
        stats.lost(&gap.offsets);
        self.answer(gap)
    }
}

impl fmt::Debug for OnGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fail => "Fail",
            Self::PassOver => "PassOver",
            Self::Call(_) => "Call",
        })
    }
}

/// A kind of named reader. Readers of different kinds may have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ReaderKind {
    /// A [group](crate::group).
    Group,
    /// A [transform](crate::transform::Transform).
    Transform,
    /// A [queue](crate::queue).
    Queue,
}

impl fmt::Display for ReaderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Transform => "transform",
            Self::Queue => "queue",
        })
    }
}

/// A gap that was reported to a named reader and is not [acknowledged](crate::Engine::acknowledge_gaps) yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportedGap {
    /// The kind of the reader to which the gap was reported.
    pub kind: ReaderKind,
    /// The reader's name.
    pub reader: String,
    /// The lost offsets.
    pub gap: Gap,
    /// When the gap was reported, by the engine's wall clock.
    pub time: Timestamp,
}

impl fmt::Display for ReportedGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, crate::text::line(&self.reader), self.gap)
    }
}

/// The journal's record of a reported gap, with the topic's number in the journal instead of its name: state of the
/// kind [`state_kind::REPORTED_GAPS`]. Key: the kind of reader (1 byte; 1 for a group, 2 for a transform, 3 for a
/// queue), topic (4 bytes), partition (4), first offset (8), the reader's name. Value: the offset after the gap (8),
/// and the time of the report in nanoseconds since the Unix epoch (8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GapReport {
    pub(crate) kind: ReaderKind,
    pub(crate) reader: String,
    pub(crate) of: PartitionId,
    pub(crate) offsets: Range<u64>,
    pub(crate) time: u64,
}

/// The fixed part of a key's bytes. The reader's name follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawKey {
    kind: u8,
    of: RawPartitionId,
    first: U64,
}

/// The bytes of a value: the offset after the gap, and the time of the report in nanoseconds since 1970.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawValue {
    end: U64,
    time: U64,
}

/// The topic's number in a key; `None` if the key is too short to have one.
pub(crate) fn key_topic(key: &[u8]) -> Option<u32> {
    Some(PartitionId::from(RawKey::read_from_prefix(key).ok()?.0.of).topic)
}

impl GapReport {
    fn key(&self) -> Vec<u8> {
        let kind = match self.kind {
            ReaderKind::Group => 1,
            ReaderKind::Transform => 2,
            ReaderKind::Queue => 3,
        };
        let head = RawKey { kind, of: self.of.into(), first: self.offsets.start.into() };
        [head.as_bytes(), self.reader.as_bytes()].concat()
    }

    pub(crate) fn put(&self, frame: &mut FrameBuilder) {
        let value = RawValue { end: self.offsets.end.into(), time: self.time.into() };
        frame.put(state_kind::REPORTED_GAPS, &self.key(), value.as_bytes());
    }

    pub(crate) fn delete(&self, frame: &mut FrameBuilder) {
        frame.delete(state_kind::REPORTED_GAPS, &self.key());
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (RawKey { kind, of, first }, name) = RawKey::read_from_prefix(key).ok()?;
        let kind = match kind {
            1 => ReaderKind::Group,
            2 => ReaderKind::Transform,
            3 => ReaderKind::Queue,
            _ => return None,
        };
        let (RawValue { end, time }, _) = RawValue::read_from_prefix(value).ok()?;
        let offsets = first.get()..end.get();
        if offsets.start > offsets.end {
            return None;
        }
        Some(Self {
            kind,
            reader: std::str::from_utf8(name).ok()?.to_owned(),
            of: of.into(),
            offsets,
            time: time.get(),
        })
    }

    /// All reported gaps in `state`, sorted by reader, partition and offset.
    pub(crate) fn all(state: &State) -> Vec<Self> {
        let known = state.values(state_kind::REPORTED_GAPS).filter_map(|(key, value)| Self::decode(key, value));
        let mut known: Vec<_> = known.collect();
        known.sort_by(|a, b| {
            (a.kind, &a.reader, a.of, a.offsets.start).cmp(&(b.kind, &b.reader, b.of, b.offsets.start))
        });
        known
    }

    /// Writes the report and the entries that `put` adds, such as the reader's new offset, in one frame, and waits
    /// until the frame is durable. `decide` is called just before the write; if it returns false, nothing is written.
    pub(crate) fn record(
        &self,
        committer: &Committer,
        put: impl FnOnce(&mut FrameBuilder),
        decide: impl FnOnce() -> bool + Send + 'static,
    ) -> GapReportOutcome {
        let mut frame = FrameBuilder::new();
        self.put(&mut frame);
        put(&mut frame);
        let transaction = TransactionFrame { parts: Vec::new(), frame, decide: Box::new(decide) };
        let Some(turn) = committer.transaction_turn() else {
            return GapReportOutcome::Not("this thread is committing a transaction".to_owned());
        };
        match committer.transact(turn, transaction) {
            TransactionOutcome::Durable => {
                self.note(committer);
                GapReportOutcome::Yes
            }
            TransactionOutcome::Denied => GapReportOutcome::Denied,
            TransactionOutcome::Refused(cause) => GapReportOutcome::Not(cause.to_string()),
            TransactionOutcome::Ended(cause) => GapReportOutcome::Not(cause),
            TransactionOutcome::Unknown(cause) => GapReportOutcome::Unknown(cause),
        }
    }

    /// Adds the gap to the engine's copy of the journal's state, from which the engine lists the gaps.
    pub(crate) fn note(&self, committer: &Committer) {
        let mut known = FrameBuilder::new();
        self.put(&mut known);
        committer.recovered_state().take(&mut known);
    }
}

/// The outcome of recording that a gap was reported.
pub(crate) enum GapReportOutcome {
    Yes,
    /// `decide` returned false, because the reader may no longer move its offset: another one has taken over. Nothing
    /// was written.
    Denied,
    /// The record is not durable, for this reason. If the disk failed during the write, a restart may find the record
    /// in the journal; otherwise nothing was written.
    Not(String),
    /// The disk failed with this error while the record was written. The journal may or may not have it after a restart.
    Unknown(String),
}

/// The gaps in a journal's state that were reported to named readers and are not acknowledged yet.
pub fn reported_gaps(state: &State) -> Vec<ReportedGap> {
    let topics = recorded_topics(state);
    let reports = GapReport::all(state).into_iter().filter_map(|GapReport { kind, reader, of, offsets, time }| {
        let topic = topics.iter().find(|topic| topic.number == of.topic)?;
        let gap = Gap::new(topic.name.as_str(), of.partition, offsets);
        Some(ReportedGap { kind, reader, gap, time: Timestamp::from_nanos(time) })
    });
    reports.collect()
}

/// Adds to `frame` the deletion of the gaps that were reported to this reader. Returns their number; 0 if there are
/// none. Only for a journal that no engine has open; an engine has
/// [`acknowledge_gaps`](crate::Engine::acknowledge_gaps).
pub fn acknowledge_gaps(state: &State, kind: ReaderKind, reader: &str, frame: &mut FrameBuilder) -> usize {
    let reports: Vec<_> =
        GapReport::all(state).into_iter().filter(|report| report.kind == kind && report.reader == reader).collect();
    reports.iter().for_each(|report| report.delete(frame));
    reports.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_comes_back_from_the_journals_state() {
        let mut state = State::default();
        let of = PartitionId { topic: 7, partition: 3 };
        let report = |kind, reader: &str, offsets| GapReport { kind, reader: reader.to_owned(), of, offsets, time: 9 };
        let all = [
            report(ReaderKind::Group, "billing", 5..9),
            report(ReaderKind::Group, "billing", 20..21),
            report(ReaderKind::Transform, "billing", 5..9),
            report(ReaderKind::Queue, "jobs", 5..9),
        ];
        let mut frame = FrameBuilder::new();
        all.iter().for_each(|report| report.put(&mut frame));
        state.take(&mut frame);
        assert_eq!(GapReport::all(&state), all);
        let mut frame = FrameBuilder::new();
        assert_eq!(acknowledge_gaps(&state, ReaderKind::Group, "billing", &mut frame), 2);
        state.take(&mut frame);
        assert_eq!(GapReport::all(&state), all[2..]);
    }
}
