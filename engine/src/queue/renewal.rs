//! The renewal of a lease while its work goes on.

use super::core::QueueCore;
use super::job::Job;
use super::lease::LeaseId;
use crate::base::kind::Producers;
use crate::base::timer::TimerId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The count of renewals in the time of a lease. So two of them may come late before the lease expires.
const IN_A_LEASE: u32 = 3;

/// Renews a lease again and again until this value is dropped, or the lease has ended.
pub(super) struct Renewal<E: Job, K: Producers> {
    core: Arc<QueueCore<E, K>>,
    shared: Arc<Shared>,
}

/// What the timer's task shares with the lease. The task ends when the lease has dropped it.
struct Shared {
    id: LeaseId,
    /// The end of the lease as the last renewal set it, in nanoseconds of the engine's clock.
    deadline: AtomicU64,
    /// The next renewal; `None` once the lease has ended.
    next: Mutex<Option<TimerId>>,
}

impl<E: Job, K: Producers> Renewal<E, K> {
    pub(super) fn new(core: &Arc<QueueCore<E, K>>, id: LeaseId, deadline: Duration) -> Self {
        let shared = Arc::new(Shared { id, deadline: AtomicU64::new(nanos(deadline)), next: Mutex::new(None) });
        schedule(core, &shared);
        Self { core: Arc::clone(core), shared }
    }

    /// The end of the lease, by the engine's clock.
    pub(super) fn deadline(&self) -> Duration {
        Duration::from_nanos(self.shared.deadline.load(Ordering::Relaxed))
    }
}

impl<E: Job, K: Producers> Drop for Renewal<E, K> {
    fn drop(&mut self) {
        let next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A task that runs now renews a lease that has ended at most, which changes nothing.
        next.into_iter().for_each(|next| self.core.cancel(next));
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Lets the engine's timer renew the lease after a part of its time, and then call this again.
fn schedule<E: Job, K: Producers>(core: &Arc<QueueCore<E, K>>, shared: &Arc<Shared>) {
    let (weak_core, weak) = (Arc::downgrade(core), Arc::downgrade(shared));
    let visibility = core.settings.visibility;
    let next = core.after(visibility / IN_A_LEASE, move || {
        let (Some(core), Some(shared)) = (weak_core.upgrade(), weak.upgrade()) else { return };
        // The change is written with the next frame of the journal; the timer must not wait for it.
        if let Some((deadline, _)) = core.renew(shared.id, visibility) {
            shared.deadline.store(nanos(deadline), Ordering::Relaxed);
            schedule(&core, &shared);
        }
    });
    *shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
}
