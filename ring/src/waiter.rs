//! The waiter: a place for one thread or task to sleep until a bell wakes it.

use crate::held;
use crate::panics::{blaming, is_answered};
use crate::sync::{Arc, AtomicU32, Condvar, Instant, Mutex, MutexGuard, lock, thread, wait_at_most};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;
use std::time::Duration;

/// The longest sleep of a thread whose fence the system has refused. After it the thread checks its condition again,
/// because it may have missed a wake-up.
pub(crate) const NAP: Duration = Duration::from_millis(10);

/// A place for one thread or task to sleep until one of many rings has events or room. It can be armed (registered for
/// one wake-up) at many rings at once. Each wake-up carries the token of the ring that caused it, so an idle ring costs
/// nothing.
///
/// The protocol: poll the consumers that are ready. When a consumer has no more events, [`arm`](crate::Consumer::arm)
/// the waiter there; if `arm` returns false, that consumer is still ready. Sleep when no consumer is ready. After a
/// wake-up, poll and arm again only the consumers whose tokens were returned: the waiter is still armed at the others.
/// A wake-up may come for events that were read already, also after the consumer's end; but no event that comes while
/// the waiter is armed is missed.
///
/// ```
/// use slipring_ring::{Builder, Waiter};
/// let mut consumers = Vec::new();
/// let mut producers = Vec::new();
/// for _ in 0..3 {
///     let mut builder = Builder::single(8, u64::default);
///     builder.poll("tape");
///     let (producer, ring) = builder.build()?;
///     consumers.push(Some(ring.consumer("tape")?));
///     producers.push(producer);
/// }
/// std::thread::spawn(move || {
///     for producer in &mut producers {
///         producer.publish(|event| *event = 7).unwrap();
///     }
/// });
/// let waiter = Waiter::new();
/// let mut ready: Vec<usize> = (0..consumers.len()).collect();
/// let (mut sum, mut open) = (0, consumers.len());
/// while open > 0 {
///     while let Some(token) = ready.pop() {
///         let Some(consumer) = &mut consumers[token] else { continue };    // a wake-up after its end
///         let Ok(mut batch) = consumer.poll(64) else {
///             consumers[token] = None;
///             open -= 1;
///             continue;
///         };
///         let nothing = batch.is_empty();
///         sum += (&mut batch).into_iter().map(|(_, event)| *event).sum::<u64>();
///         drop(batch);
///         if !(nothing && consumer.arm(&waiter, token)) {
///             ready.push(token);
///         }
///     }
///     if open > 0 {
///         waiter.park(None, |token| ready.push(token));
///     }
/// }
/// assert_eq!(sum, 21);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Waiter {
    pub(crate) shared: Arc<WaiterState>,
}

/// The state that a [`Waiter`] shares with the bells at which it is armed (registered for a wake-up).
pub(crate) struct WaiterState {
    state: Mutex<Woken>,
    woken: Condvar,
    /// 1 if a [`Wakeup`](crate::Wakeup) must end the present or the next wait; otherwise 0.
    pub(crate) is_woken: AtomicU32,
}

#[derive(Default)]
struct Woken {
    /// True if there was a wake-up that [`Waiter::park`] or [`Waiter::take`] has not returned yet.
    rung: bool,
    /// Count of threads that sleep in this waiter's [`Waiter::park`].
    asleep: usize,
    /// True if the waiter was dropped.
    gone: bool,
    /// The tokens of the wake-ups that [`Waiter::park`] or [`Waiter::take`] has not returned yet, each once.
    tokens: Vec<usize>,
    /// The memory of the last list of tokens, kept so that the next list needs no allocation.
    spare: Vec<usize>,
    /// The task to wake instead of a thread; `None` if no task waits.
    task: Option<Waker>,
    /// The tokens of bells that may not see that this waiter is registered, because the system refused a fence, and of silent
    /// bells. At `due` the waiter is woken with all of them.
    unsure: Vec<usize>,
    due: Option<Instant>,
    /// True while a thread of this crate waits until `due` to wake a task, which cannot wait by itself.
    is_watched: bool,
}

impl Woken {
    /// Once `due` has passed, wakes the waiter with all tokens of `unsure`. The caller holds the lock.
    fn ring_when_due(&mut self) {
        if self.due.is_some_and(|due| due.saturating_duration_since(Instant::now()).is_zero()) {
            self.due = None;
            let mut unsure = std::mem::take(&mut self.unsure);
            unsure.drain(..).for_each(|token| self.ring(token));
            self.unsure = unsure;
        }
    }

    /// Records a wake-up with this token. The caller holds the lock, and wakes the thread or task.
    fn ring(&mut self, token: usize) {
        self.rung = true;
        if !self.tokens.contains(&token) {
            self.tokens.push(token);
        }
    }
}

impl WaiterState {
    /// True if the waiter was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.state).gone
    }

    /// Records a wake-up with this token, and wakes a sleeping thread. Returns the task to wake; `None` if no task
    /// waits.
    #[must_use]
    pub(crate) fn wake(&self, token: usize) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.ring(token);
        self.wake_one(state)
    }

    /// Wakes the waiter with this token after `nap` at the latest, even if no bell rings.
    #[cold]
    pub(crate) fn wake_after(&self, nap: Duration, token: usize) {
        let mut state = lock(&self.state);
        if !state.unsure.contains(&token) {
            state.unsure.push(token);
        }
        let now = Instant::now();
        let due = now.checked_add(nap).unwrap_or(now);
        state.due = Some(state.due.map_or(due, |before| before.min(due)));
        drop(state);
        // A thread that sleeps already wakes up, and sleeps again until `due` at most.
        self.woken.notify_all();
    }

    /// Starts a thread that waits until `due` and then wakes the task, because a task cannot sleep until a point in
    /// time. If the thread cannot be started, the waiter counts as woken at once.
    #[cold]
    fn watch(asleep: &Arc<Self>) {
        let shared = Arc::clone(asleep);
        let watch = move || {
            let mut state = lock(&shared.state);
            loop {
                state.ring_when_due();
                let Some(due) = state.due.filter(|_| !state.rung) else { break };
                let left = due.saturating_duration_since(Instant::now());
                state = wait_at_most(&shared.woken, &shared.state, state, left);
            }
            state.is_watched = false;
            if state.rung {
                wake_all(shared.wake_one(state).into_iter().collect());
            }
        };
        let started = thread::Builder::new().name("slipring-wake".to_owned()).spawn(watch).is_ok();
        let mut state = lock(&asleep.state);
        if !started {
            state.is_watched = false;
            state.due = Some(Instant::now());
            state.ring_when_due();
        }
    }

    /// Wakes one sleeping thread, which takes all tokens, and returns the task to wake; `None` if no task waits.
    #[must_use]
    fn wake_one(&self, mut state: MutexGuard<'_, Woken>) -> Option<Waker> {
        let asleep = state.asleep > 0;
        let task = state.task.take();
        drop(state);
        if asleep {
            self.woken.notify_one();
        }
        task
    }

    /// Calls `each` with each token, and removes the tokens. `each` is the user's code, so the lock is released
    /// meanwhile.
    fn hand_out(&self, mut state: MutexGuard<'_, Woken>, mut each: impl FnMut(usize)) {
        /// Records again the tokens that `each` did not get because it panicked.
        struct Handed<'b>(&'b WaiterState, Vec<usize>, usize);
        impl Drop for Handed<'_> {
            fn drop(&mut self) {
                let mut state = lock(&self.0.state);
                self.1.drain(..self.2);
                let panicked = !self.1.is_empty();
                self.1.drain(..).for_each(|token| state.ring(token));
                state.spare = std::mem::take(&mut self.1);
                let task = if panicked { self.0.wake_one(state) } else { None };
                wake_all(task.into_iter().collect());
            }
        }
        if state.tokens.is_empty() {
            return;
        }
        let spare = std::mem::take(&mut state.spare);
        let tokens = std::mem::replace(&mut state.tokens, spare);
        drop(state);
        let mut handed = Handed(self, tokens, 0);
        while let Some(&token) = handed.1.get(handed.2) {
            handed.2 += 1;
            each(token);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.gone = true;
        let task = state.task.take();
        drop(state);
        drop(task);
    }
}

impl Default for Waiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Waiter {
    /// Creates a waiter that is armed at no ring.
    pub fn new() -> Self {
        let state = Woken { tokens: Vec::with_capacity(4), ..Woken::default() };
        let (state, is_woken) = (Mutex::new(state), AtomicU32::new(0));
        Self { shared: Arc::new(WaiterState { state, woken: Condvar::new(), is_woken }) }
    }

    /// Sleeps until a ring at which this waiter is armed wakes it, or `deadline` passes. Returns at once if a wake-up
    /// came since the last sleep. Calls `each` with the token of each wake-up; `each` may use this waiter and any ring.
    /// Returns false if the deadline passed. `None` waits without a time limit.
    ///
    /// If several threads sleep here at once, one of them wakes up and gets all tokens.
    pub fn park(&self, deadline: Option<Instant>, each: impl FnMut(usize)) -> bool {
        match self.sleep(deadline) {
            Some(state) => {
                self.shared.hand_out(state, each);
                true
            }
            None => false,
        }
    }

    /// Sleeps as [`park`](Self::park) does, and discards the tokens. False if the deadline passed.
    pub(crate) fn park_for_any(&self, deadline: Option<Instant>) -> bool {
        self.sleep(deadline).map(|mut state| state.tokens.clear()).is_some()
    }

    fn sleep(&self, deadline: Option<Instant>) -> Option<MutexGuard<'_, Woken>> {
        let mut state = lock(&self.shared.state);
        loop {
            state.ring_when_due();
            if state.rung {
                break;
            }
            state.asleep += 1;
            let due = state.due.filter(|due| deadline.is_none_or(|deadline| *due < deadline));
            state = match due.or(deadline) {
                None => self.shared.woken.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.asleep -= 1;
                        match due {
                            Some(_) => continue,
                            None => return None,
                        }
                    }
                    wait_at_most(&self.shared.woken, &self.shared.state, state, left)
                }
            };
            state.asleep -= 1;
        }
        state.rung = false;
        Some(state)
    }

    /// Calls `each` with the token of each wake-up since the last call of this or of [`park`](Self::park), without
    /// sleeping. False if there was none.
    pub fn take(&self, each: impl FnMut(usize)) -> bool {
        let mut state = lock(&self.shared.state);
        state.ring_when_due();
        let rung = std::mem::take(&mut state.rung);
        self.shared.hand_out(state, each);
        rung
    }

    /// As [`take`](Self::take), for a task: if there was no wake-up since the last call, returns false, and the next
    /// wake-up wakes `task` once. Only the task of the last call is woken.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Waiter};
    /// # use std::{sync::Arc, task::{Wake, Waker}};
    /// # struct Tell(std::sync::mpsc::Sender<()>);
    /// # impl Wake for Tell { fn wake(self: Arc<Self>) { self.0.send(()).unwrap(); } }
    /// # let (tell, told) = std::sync::mpsc::channel();
    /// # let task = Waker::from(Arc::new(Tell(tell)));
    /// # let mut builder = Builder::single(8, u64::default);
    /// # builder.poll("tape");
    /// # let (mut producer, ring) = builder.build()?;
    /// # let mut tape = ring.consumer("tape")?;
    /// let waiter = Waiter::new();
    /// assert!(tape.arm(&waiter, 7), "there is nothing to read");
    /// assert!(!waiter.take_or_wake(&task, |_| ()), "the task will be woken");
    /// producer.publish(|event| *event = 42)?;
    /// # told.recv()?;
    /// assert!(waiter.take_or_wake(&task, |token| assert_eq!(token, 7)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_or_wake(&self, task: &Waker, each: impl FnMut(usize)) -> bool {
        let mut state = lock(&self.shared.state);
        if state.due.is_some() && !std::mem::replace(&mut state.is_watched, true) {
            drop(state);
            WaiterState::watch(&self.shared);
            state = lock(&self.shared.state);
        }
        let mut unused = None;
        if !state.rung && !state.task.as_ref().is_some_and(|asked| asked.will_wake(task)) {
            // The lock is released, because cloning and dropping a waker runs the user's code.
            drop(state);
            let asked = task.clone();
            state = lock(&self.shared.state);
            unused = if state.rung { Some(asked) } else { state.task.replace(asked) };
        }
        let rung = std::mem::take(&mut state.rung);
        let woken = if rung { state.task.take() } else { None };
        self.shared.hand_out(state, each);
        drop((unused, woken));
        rung
    }

    /// Wakes this waiter from any thread, with a token that the caller chooses.
    pub fn wake(&self, token: usize) {
        wake_all(self.shared.wake(token).into_iter().collect());
    }
}

/// Wakes each task, even if the waker of another task panics. On the thread of a managed stage, the first panic
/// continues after all tasks are woken, and fails the ring. On any other thread panics are caught here, so that a
/// publisher or a consumer that is dropped is not affected. If this thread has a [`held::Held`], all tasks are woken
/// when that is dropped.
pub(crate) fn wake_all(tasks: Vec<Waker>) {
    let mut first = None;
    for task in held::keep(tasks) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task.wake())) {
            // The payload of the first panic is kept for `resume_unwind`. The others are leaked, because dropping a
            // payload may panic as well.
            let _ = first.get_or_insert(std::mem::ManuallyDrop::new(panic));
        }
    }
    if let Some(panic) = first.filter(|_| is_answered() && !std::thread::panicking()) {
        blaming("a task's waker", || resume_unwind(std::mem::ManuallyDrop::into_inner(panic)));
    }
}
