//! How far each transform has come, and who may move it on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the transforms of an engine stand, and who may move them on. Never held while anybody waits for the journal.
#[derive(Default)]
pub(crate) struct Standings {
    /// By name and the topic's number in the journal.
    list: Mutex<BTreeMap<(String, u32), Standing>>,
    /// A fault for tests.
    no_epoch_check: bool,
}

struct Standing {
    /// Of whoever opened it last.
    epoch: u64,
    /// By partition.
    offsets: BTreeMap<u32, u64>,
}

impl Standings {
    pub(crate) fn new(no_epoch_check: bool) -> Self {
        Self { no_epoch_check, ..Self::default() }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<(String, u32), Standing>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fences whoever had it before. `recorded` is what the journal had when it was opened.
    pub(super) fn take_over(&self, at: (String, u32), recorded: BTreeMap<u32, u64>) -> (u64, BTreeMap<u32, u64>) {
        let mut list = self.list();
        let standing = list.entry(at).or_insert(Standing { epoch: 0, offsets: recorded });
        standing.epoch += 1;
        (standing.epoch, standing.offsets.clone())
    }

    /// False, and nothing moves, if another one has taken over.
    pub(super) fn move_on(&self, at: &(String, u32), epoch: u64, to: BTreeMap<u32, u64>) -> bool {
        match self.list().get_mut(at) {
            Some(standing) if standing.epoch == epoch || self.no_epoch_check => {
                standing.offsets.extend(to);
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_held(&self, at: &(String, u32), epoch: u64) -> bool {
        self.list().get(at).is_some_and(|standing| standing.epoch == epoch || self.no_epoch_check)
    }
}
