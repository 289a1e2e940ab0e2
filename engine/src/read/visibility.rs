//! Visibility: the offset up to which a subscriber may read that gets only written or only durable events.

use super::PartitionConsumer;
use crate::base::kind::Producers;
use crate::log::progress::{Acks, Progress};
use slipring_journal::Visible;
use slipring_ring::Waiter;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

/// The read limit of a subscriber that waits until events are written or durable.
pub(super) struct VisibilityLimit {
    visible: Visible,
    acks: Arc<Acks>,
    /// The journal's progress in each partition, by the partition's number. `None` before the partition is first read.
    progress: Vec<Option<Arc<Progress>>>,
    /// One waker for each waiter and token. The notifier recognizes a waker only by identity, so the waker is kept, until
    /// its waiter is dropped.
    wakers: Vec<(Arc<NotifyWaker>, Waker)>,
}

impl VisibilityLimit {
    pub(super) fn new(visible: Visible, acks: Arc<Acks>) -> Self {
        Self { visible, acks, progress: Vec::new(), wakers: Vec::new() }
    }

    /// Count of slots, from the consumer's position on, that are visible; 0 if none is. `source` is the partition's
    /// number.
    pub(super) fn room<E, K: Producers>(&mut self, source: usize, part: &PartitionConsumer<E, K>) -> usize {
        if self.progress.len() <= source {
            self.progress.resize(source + 1, None);
        }
        let known = &mut self.progress[source];
        if known.is_none() {
            *known = self.acks.progress(part.partition.index);
        }
        let end = known.as_ref().map_or(0, |progress| progress.end(self.visible));
        usize::try_from(end.saturating_sub(part.consumer.consumed().0)).unwrap_or(usize::MAX)
    }

    /// True if no further event of this partition will become readable: the committer has ended it, or the journal has
    /// ended.
    pub(super) fn is_over(&self, source: usize) -> bool {
        let known = self.progress.get(source).and_then(Option::as_ref);
        self.acks.notifier.end_cause().is_some() || known.is_some_and(|progress| progress.is_over(self.visible))
    }

    /// Registers the waiter to be woken under `token` when events become readable, or the partition ends. False if
    /// either is the case by now.
    pub(super) fn arm<E, K: Producers>(
        &mut self,
        source: usize,
        part: &PartitionConsumer<E, K>,
        waiter: &Arc<Waiter>,
        token: usize,
    ) -> bool {
        let waker = self.waker(waiter, token);
        let notifier = Arc::clone(&self.acks.notifier);
        notifier.watch(&waker, || (self.room(source, part) > 0 || self.is_over(source)).then_some(())).is_none()
    }

    fn waker(&mut self, waiter: &Arc<Waiter>, token: usize) -> Waker {
        let known = |(notify_waker, _): &&(Arc<NotifyWaker>, Waker)| {
            notify_waker.waiter.as_ptr() == Arc::as_ptr(waiter) && notify_waker.token == token
        };
        if let Some((_, waker)) = self.wakers.iter().find(known) {
            return waker.clone();
        }
        self.wakers.retain(|(notify_waker, _)| notify_waker.waiter.strong_count() > 0);
        let notify_waker = Arc::new(NotifyWaker { waiter: Arc::downgrade(waiter), token });
        let waker = Waker::from(Arc::clone(&notify_waker));
        self.wakers.push((notify_waker, waker.clone()));
        waker
    }
}

struct NotifyWaker {
    waiter: Weak<Waiter>,
    token: usize,
}

impl Wake for NotifyWaker {
    fn wake(self: Arc<Self>) {
        if let Some(waiter) = self.waiter.upgrade() {
            waiter.wake(self.token);
        }
    }
}
