//! Settings of a journal.

use super::format::Codec;

/// Settings of a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment, 64 MiB unless told: from 4 KiB to 2 GiB, a multiple of 64.
    pub segment_size: u64,
    /// How payloads are packed; not at all unless told.
    pub codec: Codec,
    /// Whether a thread makes segments ahead, writes indexes and deletes what retention frees. Without it all that
    /// happens on the writer's thread, at moments that depend on nothing but its calls. True unless told.
    pub helper: bool,
    /// Faults for tests.
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
            #[cfg(feature = "faults")]
            sabotage: Sabotage::default(),
        }
    }
}

/// Faults for tests to find, of the journal and of the engine on it. None of this can be turned on without the feature `faults`.
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
    pub(crate) fn sabotage(&self) -> Sabotage {
        #[cfg(feature = "faults")]
        return self.sabotage;
        #[cfg(not(feature = "faults"))]
        Sabotage::default()
    }
}
