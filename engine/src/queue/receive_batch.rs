//! Leasing many messages by one call, which waits for the journal once.

use super::core::{ClaimedLease, QueueCore};
use super::job::Job;
use super::worker::{Lease, Worker};
use crate::base::kind::Producers;
use crate::read::error::ReadError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Leased messages that were not returned to the user yet. A drop gives them back, and their attempts do not count.
struct ClaimedBatch<E: Job, K: Producers> {
    core: Arc<QueueCore<E, K>>,
    claimed: VecDeque<ClaimedLease<E>>,
}

impl<E: Job, K: Producers> ClaimedBatch<E, K> {
    /// `first`, and further messages that may be leased now, up to `most` together.
    fn new(core: &Arc<QueueCore<E, K>>, first: ClaimedLease<E>, most: usize) -> Self {
        let mut batch = Self { core: Arc::clone(core), claimed: VecDeque::from([first]) };
        while batch.claimed.len() < most {
            // The next call returns an error.
            let Ok(Some(claimed)) = core.claim(None, None, None) else { break };
            batch.claimed.push_back(claimed);
        }
        batch
    }

    /// The number of the last change, with which all messages are safe.
    #[cfg(feature = "async")]
    fn change(&self) -> u64 {
        self.claimed.back().map_or(0, |(_, change)| *change)
    }

    /// The leases, once the last of them has reached the queue's acknowledgement level. Without those of messages that the
    /// journal no longer has.
    fn complete(mut self) -> Result<Vec<Lease<E, K>>, ReadError> {
        let mut leases = Vec::with_capacity(self.claimed.len());
        // From the last one on, whose wait is one for all.
        while let Some(claimed) = self.claimed.pop_back() {
            leases.extend(self.core.complete(claimed)?.map(|leased| Lease::new(&self.core, leased)));
        }
        leases.reverse();
        Ok(leases)
    }
}

impl<E: Job, K: Producers> Drop for ClaimedBatch<E, K> {
    fn drop(&mut self) {
        self.claimed.drain(..).for_each(|claimed| self.core.put_back(claimed));
    }
}

impl<E: Job, K: Producers> Worker<E, K> {
    /// Leases up to `most` messages: waits for the first as [`receive`](Self::receive) does, then takes those that may be
    /// leased now. Empty if none comes within `limit`, or a [`Wakeup`](crate::subscriber::Wakeup) ended the wait. A queue with
    /// an [acknowledgement level](crate::queue::QueueBuilder::acknowledge) waits for the journal once for all of them.
    ///
    /// ```
    /// # use slipring::{Engine, Message, Record};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let jobs = engine.topic::<Message>("jobs").create()?;
    /// let mut worker = jobs.queue("index").join()?;
    /// let mut producer = jobs.producer().create()?;
    /// ["a", "b", "c"].iter().try_for_each(|page| producer.send(Record::new(*page)).map(drop))?;
    /// let pages = worker.receive_batch(100, Duration::from_secs(1))?;
    /// assert_eq!(pages.len(), 3);
    /// for page in pages {
    ///     page.ack()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive), for the first message.
    pub fn receive_batch(&mut self, most: usize, limit: Duration) -> Result<Vec<Lease<E, K>>, ReadError> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now().checked_add(limit);
        loop {
            let first = match self.has_found() {
                true => self.found.take().transpose()?,
                false => {
                    self.core.leave_wait(&mut self.waits);
                    let woken = Some(&self.outside.flag).filter(|_| !limit.is_zero());
                    self.core.claim(None, woken, deadline)?
                }
            };
            let Some(first) = first else { return Ok(Vec::new()) };
            let leases = ClaimedBatch::new(&self.core, first, most).complete()?;
            if !leases.is_empty() {
                return Ok(leases);
            }
        }
    }
}

#[cfg(feature = "async")]
mod task {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    /// Ends the waiting of a worker whose future was dropped.
    struct GiveUp<'w, E: Job, K: Producers>(&'w mut Worker<E, K>);

    impl<E: Job, K: Producers> Drop for GiveUp<'_, E, K> {
        fn drop(&mut self) {
            self.0.give_up();
        }
    }

    impl<E: Job, K: Producers> Worker<E, K> {
        /// [`receive_batch`](Self::receive_batch) as a future, which waits without a limit. A future that is dropped before it
        /// is ready takes no message, as that of [`receive_async`](Self::receive_async).
        ///
        /// ```
        /// # use slipring::{Engine, Message, Record};
        /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        /// let engine = Engine::builder().build()?;
        /// let jobs = engine.topic::<Message>("jobs").create()?;
        /// let mut worker = jobs.queue("index").join()?;
        /// let mut producer = jobs.producer().create()?;
        /// ["a", "b", "c"].iter().try_for_each(|page| producer.send(Record::new(*page)).map(drop))?;
        /// let pages = worker.receive_batch_async(100).await?;
        /// assert_eq!(pages.len(), 3);
        /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Errors
        /// As for [`receive_batch`](Self::receive_batch).
        pub async fn receive_batch_async(&mut self, most: usize) -> Result<Vec<Lease<E, K>>, ReadError> {
            if most == 0 {
                return Ok(Vec::new());
            }
            let waiting = GiveUp(self);
            loop {
                let worker = &mut *waiting.0;
                poll_fn(|context| {
                    if !worker.has_found() {
                        match worker.core.poll(None, &mut worker.waits, context.waker()) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(found) => worker.found = Some(found),
                        }
                    }
                    Poll::Ready(())
                })
                .await;
                let Some(first) = worker.found.take().transpose()? else { continue };
                let batch = ClaimedBatch::new(&worker.core, first, most);
                let (core, change, mut wait) = (&worker.core, batch.change(), None);
                poll_fn(|context| match core.is_safe(change, &mut wait, context.waker()) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                })
                .await;
                let leases = batch.complete()?;
                if !leases.is_empty() {
                    return Ok(leases);
                }
            }
        }
    }
}
