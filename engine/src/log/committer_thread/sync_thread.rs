//! The sync thread, which syncs the committer's frames, one sync at a time.

use crate::base::multi_wait::MultiWait;
use crate::log::progress::Notifier;
use crate::log::progress::Progress;
use slipring_journal::{SyncJob, WriteError};
use slipring_ring::Waiter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::{Receiver, Sender, channel};

pub(super) type Reply = SyncSender<Result<(), WriteError>>;
pub(super) type Replies = Vec<Reply>;

/// The progress that a sync makes durable, of a partition or of a state source: the new value of `durable`, and the end
/// (exclusive) of the reserved offsets. `None` if the sync does not change the value.
pub(super) struct PendingProgress {
    pub(super) progress: Arc<Progress>,
    pub(super) durable: Option<u64>,
    pub(super) reserved: Option<u64>,
}

impl PendingProgress {
    pub(super) fn apply(&self) {
        if let Some(reserved) = self.reserved {
            self.progress.reserved.fetch_max(reserved, Ordering::Release);
        }
        if let Some(durable) = self.durable {
            // For a transaction's events, `written` moves only here, so no reader sees them before they are durable.
            // For other events it has moved already.
            self.progress.written.fetch_max(durable, Ordering::Release);
            self.progress.durable.fetch_max(durable, Ordering::Release);
        }
    }
}

/// The result of a sync. If the sync failed, also the replies to the waiting threads, which the committer sends after
/// it has failed the rings; empty otherwise.
pub(super) type SyncDone = (Result<(), WriteError>, Replies);

pub(super) struct SyncRequest {
    pub(super) job: SyncJob,
    pub(super) pending: Vec<PendingProgress>,
    pub(super) replies: Replies,
}

/// Starts the sync thread, which takes one request at a time and sends back its result.
pub(super) fn start_syncs(
    notifier: Arc<Notifier>,
    waiter: Arc<Waiter>,
) -> Result<(Sender<SyncRequest>, Receiver<SyncDone>), std::io::Error> {
    let (syncs, jobs) = channel::<SyncRequest>();
    let (results, done) = channel();
    std::thread::Builder::new().name("slipring-sync".to_owned()).spawn(move || {
        notifier.enter();
        for SyncRequest { job, pending, replies } in jobs {
            let outcome = job.run().map(drop);
            let unanswered = if outcome.is_ok() {
                pending.iter().for_each(PendingProgress::apply);
                replies.into_iter().for_each(|reply| _ = reply.send(Ok(())));
                Replies::new()
            } else {
                replies
            };
            if outcome.is_ok() {
                pending.iter().for_each(|pending| pending.progress.wake());
            }
            notifier.notify();
            if results.send((outcome, unanswered)).is_err() {
                break;
            }
            waiter.wake(MultiWait::WAKE);
        }
    })?;
    Ok((syncs, done))
}
