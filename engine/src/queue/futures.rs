//! Waiting for messages without a thread: in a task, or in a selector.
//!
//! The first waiting worker *watches*: new events wake its waker, as they would wake a sleeping thread. The other
//! workers add their wakers to the queue's state, and are woken one by one: see the module of [`QueueCore`].

use super::core::{ClaimedLease, QueueCore};
use super::idle_tasks::TaskWait;
use super::job::Job;
use super::run_worker::RunWorker;
use super::state::QueueState;
use super::worker::Worker;
use crate::base::kind::Producers;
use crate::read::error::ReadError;
use crate::read::selector::Selectable;
use slipring_ring::Waiter;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

impl<E: Job, K: Producers> QueueCore<E, K> {
    /// Returns the next message. If there is none, `waker` is woken when the queue may have one. `waits` has how the
    /// calling worker waits, and is updated. `run` is the worker if it is one of a run; if that was stopped, `waker` is
    /// woken at once, so that it sees so.
    pub(super) fn poll(
        &self,
        run: Option<&RunWorker>,
        waits: &mut TaskWait,
        waker: &Waker,
    ) -> Poll<Result<ClaimedLease<E>, ReadError>> {
        // Cloning and dropping a waker and reading the clock run user code, so no lock is held here.
        let mut own = Some(waker.clone());
        let mut before = None;
        loop {
            let times = self.times();
            let mut state = self.lock();
            if run.is_some_and(|run| !run.asks()) {
                drop(state);
                waker.wake_by_ref();
                return Poll::Pending;
            }
            let place = match std::mem::take(waits) {
                TaskWait::Nothing => None,
                TaskWait::Watching => {
                    self.look_up(&mut state);
                    None
                }
                // While the task polls, its waker is not in the list: otherwise, leaving with a message, it could wake
                // itself instead of another worker.
                TaskWait::Idle(place) => {
                    before = state.tasks.take(place);
                    Some(place)
                }
            };
            if let Some(found) = self.look(&mut state, times, run) {
                return Poll::Ready(found);
            }
            if state.watched {
                let place = place.unwrap_or_else(|| state.tasks.new_place());
                let waker = before.take_if(|before| before.will_wake(waker)).or_else(|| own.take());
                waker.into_iter().for_each(|waker| state.tasks.put(place, waker));
                *waits = TaskWait::Idle(place);
                return Poll::Pending;
            }
            if !self.arm(&mut state) {
                continue;
            }
            // An event after this point is taken up below, or wakes the task.
            state.watched = true;
            *waits = TaskWait::Watching;
            drop(state);
            let mut rang = Vec::new();
            if !self.waiter().take_or_wake(waker, |token| rang.push(token)) {
                return Poll::Pending;
            }
            self.lock().rang(rang);
        }
    }

    /// Ends the caller's watch, and marks the partitions that have woken it, so that they are read.
    fn look_up(&self, state: &mut QueueState<E, K>) {
        state.watched = false;
        let mut rang = Vec::new();
        self.waiter().take(|token| rang.push(token));
        state.rang(rang);
    }

    /// Ends the caller's waiting. If it watched, or was woken and has not polled the queue, this wakes the next worker
    /// in its place, unless a worker watches: that worker has polled the queue after the caller was woken.
    pub(super) fn leave_wait(&self, waits: &mut TaskWait) {
        // The waker is user code, so it is dropped after the lock is released.
        let unused;
        let mut state = match *waits {
            TaskWait::Nothing => return,
            _ => self.lock(),
        };
        match std::mem::take(waits) {
            TaskWait::Nothing => return,
            TaskWait::Watching => self.look_up(&mut state),
            TaskWait::Idle(place) => {
                unused = state.tasks.take(place);
                if unused.is_some() {
                    return;
                }
            }
        }
        self.leave(&mut state);
    }

    /// Gives back a leased message that was not returned to the user, so that it may be leased at once and the attempt
    /// does not count.
    pub(super) fn put_back(&self, given: ClaimedLease<E>) {
        let now = self.now();
        let mut state = self.lock();
        if state.leases.put_back(given.0.id, now) {
            state.counters.delivered -= 1;
            self.settle(&mut state, now);
            self.wake(&mut state);
        }
    }
}

/// A waker that wakes the waiter of a selector with the number of a worker in the selector.
struct Token(Arc<Waiter>, usize);

impl Wake for Token {
    fn wake(self: Arc<Self>) {
        self.0.wake(self.1);
    }
}

impl<E: Job, K: Producers> Selectable for Worker<E, K> {
    fn is_ready(&mut self) -> bool {
        if !self.has_found() {
            self.core.leave_wait(&mut self.waits);
            match self.core.claim(None, None, None) {
                Ok(found) => self.found = found.map(Ok),
                Err(refused) => self.found = Some(Err(refused)),
            }
        }
        self.found.is_some()
    }

    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        if self.has_found() {
            return false;
        }
        let waker = Waker::from(Arc::new(Token(Arc::clone(waiter), token)));
        match self.core.poll(None, &mut self.waits, &waker) {
            Poll::Ready(found) => {
                self.found = Some(found);
                false
            }
            Poll::Pending => {
                self.selector = Some(waker);
                true
            }
        }
    }

    /// Ends the worker's waiting for a selector that was woken: an awake selector must neither watch for other workers
    /// nor keep a wake-up from them.
    fn awake(&mut self) {
        let selector = self.selector.take();
        if self.waits != TaskWait::Nothing {
            self.core.leave_wait(&mut self.waits);
            selector.inspect(Waker::wake_by_ref);
        }
    }

    fn identity(&self) -> usize {
        self.number
    }
}

#[cfg(feature = "async")]
mod task {
    use super::super::worker::Lease;
    use super::*;
    use crate::log::offset_waits::OffsetWait;
    use std::fmt;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Context;

    impl<E: Job, K: Producers> Worker<E, K> {
        /// [`receive`](Self::receive) as a future, which waits without a limit. Many tasks may wait at one queue, each with its
        /// own worker.
        ///
        /// A future that is dropped before it is ready takes no message: a message that was leased for it goes to
        /// another worker, and that attempt does not count.
        ///
        /// A message wakes at most two of the waiting tasks, whatever their number: the task that takes the message,
        /// and the next one, which checks for more. Beginning and ending to wait take logarithmic time in that number.
        /// A woken task that is neither polled nor dropped keeps the other tasks waiting, and so does a leaked future.
        ///
        /// ```
        /// # use slipring::{Engine, Message, Record};
        /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        /// let engine = Engine::builder().build()?;
        /// let jobs = engine.topic::<Message>("jobs").create()?;
        /// let mut worker = jobs.queue("resize").join()?;
        /// jobs.producer().create()?.send(Record::new("cat.png"))?;
        /// let job = worker.receive_async().await?;
        /// assert_eq!(job.message().value(), b"cat.png");
        /// job.ack()?;
        /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Errors
        /// As for [`receive`](Self::receive).
        pub fn receive_async(&mut self) -> Receiving<'_, E, K> {
            Receiving { worker: self, durable: None }
        }
    }

    /// The future of [`Worker::receive_async`].
    pub struct Receiving<'w, E: Job = crate::event::message::Message, K: Producers = slipring_ring::Multi> {
        worker: &'w mut Worker<E, K>,
        /// The registered wait until the lease has reached the queue's acknowledgement level; `None` before it is
        /// needed.
        durable: Option<OffsetWait>,
    }

    impl<E: Job, K: Producers> fmt::Debug for Receiving<'_, E, K> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Receiving of {:?}", self.worker)
        }
    }

    impl<E: Job, K: Producers> Future for Receiving<'_, E, K> {
        type Output = Result<Lease<E, K>, ReadError>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            let Self { worker, durable } = &mut *self;
            loop {
                if !worker.has_found() {
                    match worker.core.poll(worker.run.as_deref(), &mut worker.waits, context.waker()) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(found) => worker.found = Some(found),
                    }
                }
                let change = match &worker.found {
                    Some(Ok((_, change))) => *change,
                    _ => 0,
                };
                // A lease is returned only when it has reached the queue's acknowledgement level.
                if !worker.core.is_safe(change, durable, context.waker()) {
                    return Poll::Pending;
                }
                if let Some(lease) = worker.take_found().transpose() {
                    return Poll::Ready(lease);
                }
            }
        }
    }

    impl<E: Job, K: Producers> Drop for Receiving<'_, E, K> {
        fn drop(&mut self) {
            self.worker.give_up();
        }
    }
}

#[cfg(feature = "async")]
pub use task::Receiving;
