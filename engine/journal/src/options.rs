//! Settings of a journal.

use crate::format::{Codec, SEGMENT_HEAD};
use crate::limits;

/// Settings of a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of a segment file in bytes: from 4 KiB to 2 GiB, a multiple of 64. Default: 64 MiB.
    pub segment_size: u64,
    /// The compression of data frames' payloads; a payload that would not get smaller is stored plain. Default:
    /// [`Codec::Plain`], none.
    pub codec: Codec,
    /// If true, a helper thread creates segments ahead of need, writes indexes and deletes the segments that retention
    /// frees. If false, the writer and its sync jobs do this work within their own calls. Default: true.
    pub helper: bool,
    /// The most bytes that a compaction in the background reads and writes in a second; 0 counts as 1. Default: 32 MiB.
    /// [`Writer::compact`](crate::Writer::compact) is not held to it.
    pub compaction_rate: u64,
    /// Faults that are switched on for tests.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_size: 64 << 20,
            codec: Codec::Plain,
            helper: true,
            compaction_rate: 32 << 20,
            #[cfg(feature = "faults")]
            sabotage: Sabotage::default(),
        }
    }
}

/// Faults of the journal and of the engine. A test switches one on to show that other tests find it. Without the
/// feature `faults` none can be switched on.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sabotage {
    pub acknowledge_before_sync: bool,
    pub accept_bad_checksums: bool,
    pub keep_torn_tail: bool,
    pub serve_before_sync: bool,
    pub forget_producers: bool,
    pub forget_ids: bool,
    pub join_at_a_past_slot: bool,
    pub commit_before_frame: bool,
    pub no_epoch_check: bool,
    pub accept_late_acks: bool,
}

impl Options {
    /// The largest payload of a frame, in bytes.
    pub fn frame_limit(&self) -> usize {
        limits::frame_limit(self.segment_size.max(SEGMENT_HEAD))
    }

    /// The largest state, in bytes: it is written at the beginning of each segment, and takes at most two fifths of one.
    pub fn state_limit(&self) -> usize {
        limits::state_limit(self.segment_size.max(SEGMENT_HEAD))
    }

    pub(crate) fn sabotage(&self) -> Sabotage {
        #[cfg(feature = "faults")]
        return self.sabotage;
        #[cfg(not(feature = "faults"))]
        Sabotage::default()
    }
}
