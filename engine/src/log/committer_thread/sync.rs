//! Making written frames durable, with one sync at a time on the sync thread.

use super::sync_thread::{PendingProgress, SyncDone, SyncRequest};
use super::{CommitterThread, LAZY};
use slipring_journal::WriteError;

impl CommitterThread {
    /// Takes the result of the running sync if it is done, and starts the next sync if it is due. With `now`, waits
    /// until all written frames are synced.
    pub(super) fn sync(&mut self, now: bool) -> Result<(), WriteError> {
        if self.in_flight {
            match self.done.try_recv() {
                Ok(outcome) => self.synced(outcome)?,
                Err(_) if now => self.sync_wait()?,
                Err(_) => return Ok(()),
            }
        }
        if self.dirty_since.is_none() && self.lazy_since.is_none() && !self.pending.is_empty() {
            // No frame was written since the last sync: this progress is of slots without an event, which need no sync.
            self.pending.iter().for_each(PendingProgress::apply);
            self.pending.drain(..).for_each(|pending| pending.progress.wake());
            self.shared.notifier.notify();
        }
        let lingered = self.dirty_since.is_some_and(|since| since.elapsed() >= self.pace.linger);
        let lazy = self.lazy_since.is_some_and(|since| since.elapsed() >= LAZY);
        // Without `Pace::sync`, state of state sources and writes that no thread waits for are synced with the next reply,
        // reservation or close. No thread waits for them to be durable: `Level::unsupported` refuses that level.
        let due = self.pace.sync && (lingered || lazy);
        let wanted = now || !self.replies.is_empty() || due || self.pending_reserves();
        if !wanted {
            return Ok(());
        }
        let Some(job) = self.writer().begin_sync() else {
            // There is no frame to sync: all are durable, unless the journal has failed.
            if self.writer().journal().poisoned().is_none() {
                self.replies.drain(..).for_each(|reply| _ = reply.send(Ok(())));
            }
            return Ok(());
        };
        (self.dirty_since, self.lazy_since) = (None, None);
        let (pending, replies) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.replies));
        self.in_flight = self.syncs.send(SyncRequest { job, pending, replies }).is_ok();
        if now {
            return self.sync_wait();
        }
        Ok(())
    }

    fn pending_reserves(&self) -> bool {
        self.pending.iter().any(|pending| pending.reserved.is_some())
    }

    fn sync_wait(&mut self) -> Result<(), WriteError> {
        let outcome = self.done.recv().map_err(|_| self.gone())?;
        self.synced(outcome)
    }

    fn gone(&self) -> WriteError {
        let cause = std::io::Error::other("the thread that syncs has ended");
        WriteError::Poisoned(slipring_journal::DiskError::new("sync", "the journal", &cause))
    }

    fn synced(&mut self, (outcome, unanswered): SyncDone) -> Result<(), WriteError> {
        self.in_flight = false;
        self.replies.extend(unanswered);
        outcome?;
        for (number, source) in self.sources.list.iter_mut().enumerate() {
            if source.as_mut().is_some_and(|source| source.was_blocked()) {
                self.watch.add(number);
            }
        }
        self.writer().collect();
        Ok(())
    }
}
