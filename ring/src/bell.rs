//! The handshake between whoever moves a position and whoever sleeps until it moves.
//!
//! ```text
//! publisher                      sleeper
//! move the position              arm the bell (ARM)
//! light fence (RING_FENCE)       heavy fence (ARM_FENCE)
//! attention set? (ATTENTION)     look again; nothing: park
//! ```
//!
//! One of the two sees the other: if the publisher's look at `attention` misses the arming, then its position stands
//! before the sleeper's second look. Release and acquire are not enough for that, on any processor. While nobody
//! sleeps a publisher pays one load of a word that stays in its cache.
//! Models: `wake` in loom-tests.

use crate::fault::{Fault, fault};
use crate::fence::{self, Fences};
use crate::held;
use crate::ordering::{ARM, ARM_FENCE, ATTENTION, CLAIM_FENCE, RING_FENCE};
use crate::panics::{blaming, is_answered};
use crate::sync::{Arc, AtomicU32, Condvar, Instant, Mutex, MutexGuard, lock, thread, wait_at_most};
use crossbeam_utils::CachePadded;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;
use std::time::Duration;

/// How long whoever sleeps without its fence sleeps at most before it looks again.
const NAP: Duration = Duration::from_millis(10);

/// Somebody sleeps.
const SLEEPERS: u32 = 1;
/// This process has no membarrier: whoever rings must issue the full fence itself.
const NO_MEMBARRIER: u32 = 2;
/// The ring is closed: no claim counts any more, and what is published may come too late. See [`crate::closing`].
const CLOSED: u32 = 4;

/// What sleepers on one position are rung by.
pub(crate) struct Bell {
    /// How those who ring were made to fence.
    made: Fences,
    attention: CachePadded<AtomicU32>,
    sleepers: Mutex<Vec<Sleeper>>,
}

struct Sleeper {
    shared: Arc<WaiterState>,
    token: usize,
}

impl Bell {
    pub(crate) fn new() -> Self {
        let made = fence::kind();
        let fences = if made == Fences::SeqCst { NO_MEMBARRIER } else { 0 };
        Self {
            made,
            attention: CachePadded::new(AtomicU32::new(fences)),
            // Room for a few, so that going to sleep does not allocate either.
            sleepers: Mutex::new(Vec::with_capacity(4)),
        }
    }

    /// Wakes whoever sleeps; called after the position moved.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn ring(&self) {
        self.ring_and_look();
    }

    /// The same; true if the ring was closed by then.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn ring_and_look(&self) -> bool {
        #[cfg(loom)]
        if !fence::quiet::bells() {
            return false;
        }
        fence::compiler_only();
        if cfg!(any(loom, shuttle)) || self.attention.load(ATTENTION.get()) != 0 {
            return self.ring_slowly();
        }
        false
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(loom, track_caller)]
    fn ring_slowly(&self) -> bool {
        fence::light_at(&RING_FENCE);
        let attention = self.attention.load(ATTENTION.get());
        if attention & SLEEPERS != 0 && !fault(Fault::NoWake) {
            // Woken outside of the lock: with a task may go a consumer that disarms itself here.
            let mut tasks = Vec::new();
            {
                let mut sleepers = lock(&self.sleepers);
                self.attention.fetch_and(!SLEEPERS, ARM.get());
                for sleeper in sleepers.drain(..) {
                    tasks.extend(sleeper.shared.wake(sleeper.token));
                }
            }
            wake_all(tasks);
        }
        attention & CLOSED != 0
    }

    /// Whether the ring is closed; called after a claim was shown.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn is_closed(&self) -> bool {
        #[cfg(loom)]
        if !fence::quiet::bells() {
            return false;
        }
        fence::compiler_only();
        if cfg!(any(loom, shuttle)) || self.attention.load(ATTENTION.get()) & (CLOSED | NO_MEMBARRIER) != 0 {
            return self.is_closed_slowly();
        }
        false
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(loom, track_caller)]
    fn is_closed_slowly(&self) -> bool {
        fence::light_at(&CLAIM_FENCE);
        self.attention.load(ATTENTION.get()) & CLOSED != 0
    }

    /// Marks the ring as closed for whoever rings.
    pub(crate) fn mark_closed(&self) {
        self.attention.fetch_or(CLOSED, ARM.get());
    }

    /// Has `waiter` woken by the next ring, with this token. Armed twice is armed once. The caller must issue
    /// ARM_FENCE and look again before it parks.
    pub(crate) fn arm(&self, waiter: &Waiter, token: usize) {
        let mut sleepers = lock(&self.sleepers);
        // Else a bell that never rings would gather the waiters of callers long gone.
        sleepers.retain(|other| !lock(&other.shared.state).gone);
        if !sleepers.iter().any(|other| Arc::ptr_eq(&other.shared, &waiter.shared) && other.token == token) {
            sleepers.push(Sleeper { shared: Arc::clone(&waiter.shared), token });
        }
        self.attention.fetch_or(SLEEPERS, ARM.get());
    }

    /// The sleeper's fence, after all bells were armed and before it looks again. Where the system refuses it, whoever
    /// rings may have missed the arming: then `waiter` is woken with this token all the same, after a moment.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn fence<'b>(bells: impl Iterator<Item = &'b Self> + Clone, waiter: &Waiter, token: usize) {
        let membarrier = bells.clone().any(|bell| bell.made == Fences::Membarrier);
        let made = if membarrier { Fences::Membarrier } else { Fences::SeqCst };
        if fence::heavy_at(&ARM_FENCE, made).is_err() {
            bells.for_each(|bell| _ = bell.attention.fetch_or(NO_MEMBARRIER, ARM.get()));
            waiter.shared.wake_later(token);
        }
    }

    /// Forgets `waiter`.
    pub(crate) fn disarm(&self, waiter: &Waiter) {
        lock(&self.sleepers).retain(|other| !Arc::ptr_eq(&other.shared, &waiter.shared));
    }
}

/// Wakes each task, also if the waker of another one panics. Where a stage's work answers for it, the panic goes on when all
/// are woken. Everywhere else it ends here: it costs neither a publisher nor whoever leaves anything. Where the caller holds
/// a lock that a task may want, all are woken after that.
fn wake_all(tasks: Vec<Waker>) {
    let mut first = None;
    for task in held::keep(tasks) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task.wake())) {
            // Dropping what was thrown may panic as well: all but the first are left alone.
            let _ = first.get_or_insert(std::mem::ManuallyDrop::new(panic));
        }
    }
    if let Some(panic) = first.filter(|_| is_answered() && !std::thread::panicking()) {
        blaming("a task's waker", || resume_unwind(std::mem::ManuallyDrop::into_inner(panic)));
    }
}

/// One thread's place to sleep. It can be armed at the bells of many rings at once: each wake-up names, by its token,
/// the ring that rang, and a ring that stayed idle costs nothing.
///
/// The protocol: read from whatever is ready; when it has nothing more, [`arm`](crate::Consumer::arm) it; if that says
/// that there is something after all, it is ready still; sleep when nothing is ready. Only what rang is looked at
/// after a sleep, and only that is armed again: all others stay armed. A wake-up may come for what was read
/// meanwhile; no event is ever without one.
///
/// ```
/// use slipring_ring::{Builder, Waiter};
/// let mut consumers = Vec::new();
/// let mut producers = Vec::new();
/// for _ in 0..3 {
///     let mut builder = Builder::single(8, u64::default);
///     builder.poll("tape");
///     let (producer, ring) = builder.build()?;
///     consumers.push(ring.consumer("tape")?);
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
///         let consumer = &mut consumers[token];
///         let Ok(mut batch) = consumer.poll(64) else {
///             open -= 1;                                      // closed
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
    shared: Arc<WaiterState>,
}

/// What a [`Waiter`] shares with the bells at which it is armed.
struct WaiterState {
    state: Mutex<Woken>,
    woken: Condvar,
}

#[derive(Default)]
struct Woken {
    rung: bool,
    /// How many threads sleep here.
    asleep: usize,
    /// Its waiter was dropped.
    gone: bool,
    tokens: Vec<usize>,
    /// The memory of the tokens that were handed out last, so that handing out allocates nothing.
    spare: Vec<usize>,
    /// Woken instead of a thread.
    task: Option<Waker>,
    /// Tokens of bells that may have missed the arming, and when they are rung for without a bell.
    unsure: Vec<usize>,
    due: Option<Instant>,
    /// A thread is there to do that for a task.
    is_watched: bool,
}

impl Woken {
    /// Rings for what may have been missed, if it is time.
    fn ring_when_due(&mut self) {
        if self.due.is_some_and(|due| due.saturating_duration_since(Instant::now()).is_zero()) {
            self.due = None;
            let mut unsure = std::mem::take(&mut self.unsure);
            unsure.drain(..).for_each(|token| self.ring(token));
            self.unsure = unsure;
        }
    }

    fn ring(&mut self, token: usize) {
        self.rung = true;
        if !self.tokens.contains(&token) {
            self.tokens.push(token);
        }
    }
}

impl WaiterState {
    /// The task to be woken, if it is one that sleeps here.
    #[must_use]
    fn wake(&self, token: usize) -> Option<Waker> {
        let mut state = lock(&self.state);
        state.ring(token);
        self.wake_one(state)
    }

    /// Has this token rung for after a moment, whether a bell rings or not.
    #[cold]
    fn wake_later(&self, token: usize) {
        let mut state = lock(&self.state);
        if !state.unsure.contains(&token) {
            state.unsure.push(token);
        }
        let now = Instant::now();
        state.due = state.due.or_else(|| Some(now.checked_add(NAP).unwrap_or(now)));
        drop(state);
        // Whoever sleeps already must not sleep longer than that.
        self.woken.notify_all();
    }

    /// A task cannot sleep for a moment: a thread does it in its place. Without one, the task is to look again at once.
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

    /// One sleeper is enough: it takes all that was rung.
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

    /// Hands each token to `each`, which is the user's code: no lock is held meanwhile.
    fn hand_out(&self, mut state: MutexGuard<'_, Woken>, mut each: impl FnMut(usize)) {
        /// What `each` did not get, because it panicked, is rung for again.
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
    /// A waiter that is armed nowhere.
    pub fn new() -> Self {
        let state = Woken { tokens: Vec::with_capacity(4), ..Woken::default() };
        Self { shared: Arc::new(WaiterState { state: Mutex::new(state), woken: Condvar::new() }) }
    }

    /// Sleeps until a bell rings at which this waiter is armed, or has rung since it last slept, or until `deadline`.
    /// Hands the token of each such bell to `each`, which may use this waiter and any ring. False if it was the deadline.
    ///
    /// Of several threads that sleep here at once, one wakes up and gets all tokens.
    pub fn park(&self, deadline: Option<Instant>, each: impl FnMut(usize)) -> bool {
        match self.sleep(deadline) {
            Some(state) => {
                self.shared.hand_out(state, each);
                true
            }
            None => false,
        }
    }

    /// The same for a caller that knows whose bells rang.
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

    /// Hands the token of each bell that has rung since this waiter last slept to `each`, without sleeping. False if
    /// none has.
    pub fn take(&self, each: impl FnMut(usize)) -> bool {
        let mut state = lock(&self.shared.state);
        state.ring_when_due();
        let rung = std::mem::take(&mut state.rung);
        self.shared.hand_out(state, each);
        rung
    }

    /// [`take`](Self::take) for a task: if nothing has rung, `task` is woken, once, by the next bell that rings. The last
    /// task to ask is the one that is woken.
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
            // Cloning and dropping a waker is the user's code, so neither is done under the lock.
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

    /// Wakes this waiter from another thread, with a token of the caller's.
    pub fn wake(&self, token: usize) {
        wake_all(self.shared.wake(token).into_iter().collect());
    }
}
