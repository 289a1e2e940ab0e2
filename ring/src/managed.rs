//! Managed stages: threads that poll, call a handler, and apply the stage's policy to the handler's errors.

use crate::access::Access;
use crate::closing::Closed;
use crate::consumer::Consumer;
use crate::core::Core;
use crate::error::BuildError;
use crate::handler::{Handler, Work};
use crate::kind::Kind;
use crate::panics::{Panic, caught, caught_by_stage};
use crate::pin;
use crate::report::Ending;
use crate::sequence::Sequence;
use crate::stage::{OnError, Stage, StageState};
use crate::sync::{Arc, Condvar, Instant, Mutex, lock, thread, wait_at_most};
use crate::worker::Worker;

/// The threads of a ring's managed stages.
#[derive(Default)]
pub(crate) struct Threads {
    registry: Arc<ThreadRegistry>,
    /// The error policy of stages that have none of their own.
    on_error: OnError,
}

/// The running threads of managed stages, and the stages whose threads have ended, for the report. The thread of an
/// evicted stage leaves no record, unless the stage failed.
struct ThreadRegistry {
    list: Mutex<ThreadList>,
    ended: Condvar,
}

#[derive(Default)]
struct ThreadList {
    /// The number of the next thread.
    next: u64,
    threads: Vec<Thread>,
    /// The stages of the threads that have ended and were joined. An evicted stage is not among them, unless it failed.
    ended: Vec<Arc<StageState>>,
}

/// A thread of a managed stage. The workers of a stage have a thread each.
struct Thread {
    number: u64,
    stage: Arc<StageState>,
    /// The handle for joining the thread. `None` until the thread has constructed its handler, and after the handle was
    /// taken.
    handle: Option<thread::JoinHandle<()>>,
    has_ended: bool,
}

impl Default for ThreadRegistry {
    fn default() -> Self {
        Self { list: Mutex::new(ThreadList::default()), ended: Condvar::new() }
    }
}

/// The result of a thread's start, `None` until the thread has constructed its handler; and the signal that it is set.
type Started = Arc<(Mutex<Option<Result<(), BuildError>>>, Condvar)>;

impl Threads {
    pub(crate) fn new(on_error: OnError) -> Self {
        Self { on_error, ..Self::default() }
    }

    /// Starts a thread for `consumer`. Returns after the thread has constructed its handler, or with the reason why it
    /// could not.
    pub(crate) fn run<E, K, A, W>(
        &self,
        declared: &Stage,
        consumer: Consumer<E, K, A>,
        make: impl FnOnce() -> W + Send + 'static,
    ) -> Result<(), BuildError>
    where
        E: Send + Sync + 'static,
        K: Kind,
        A: Access,
        W: Work<E, K, A>,
    {
        let (stage, attended) = (Arc::clone(&consumer.stage), self.with_policy(declared));
        self.start(declared, stage, make, move |work| attend(consumer, work, &attended))
    }

    /// Starts a thread for `worker`. Returns after the thread has constructed its handler, or with the reason why it
    /// could not.
    pub(crate) fn run_worker<E, K, H>(
        &self,
        declared: &Stage,
        worker: Worker<E, K>,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> Result<(), BuildError>
    where
        E: Send + Sync + 'static,
        K: Kind,
        H: Handler<E>,
    {
        let (stage, attended) = (Arc::clone(worker.state()), self.with_policy(declared));
        self.start(declared, stage, make, move |handler| attend_worker(worker, handler, &attended))
    }

    /// The declaration, with the ring's error policy if it has none.
    fn with_policy(&self, declared: &Stage) -> Stage {
        let mut declared = declared.clone();
        declared.on_error.get_or_insert(self.on_error);
        declared
    }

    fn start<W>(
        &self,
        declared: &Stage,
        state: Arc<StageState>,
        make: impl FnOnce() -> W + Send + 'static,
        attend: impl FnOnce(W) -> bool + Send + 'static,
    ) -> Result<(), BuildError> {
        let started: Started = Arc::new((Mutex::new(None), Condvar::new()));
        let (declared, told) = (declared.clone(), Arc::clone(&started));
        let stage = declared.name.clone();
        // A thread's name must not contain a zero byte: the standard library panics at one.
        let name = declared.name.replace('\0', "");
        let registration = Registration::new(&self.registry, state);
        let number = registration.number;
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Dropped last, so that a thread that waits for this one to end finds its complete result.
            let mut registration = registration;
            let said = begin(&declared, make);
            let (result, worker) = match said {
                Ok(worker) => (Ok(()), Some(worker)),
                Err(refused) => (Err(refused), None),
            };
            *lock(&told.0) = Some(result);
            told.1.notify_one();
            if let Some(worker) = worker {
                registration.is_reported = attend(worker);
            }
        });
        let thread = thread.map_err(|cause| BuildError::Thread { stage, cause })?;
        let mut said = lock(&started.0);
        while said.is_none() {
            said = started.1.wait(said).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if let Some(Err(refused)) = said.take() {
            drop(said);
            // The thread has dropped the consumer, so the stage has left the ring when this returns.
            let _ = thread.join();
            return Err(refused);
        }
        self.registry.give_handle(number, thread);
        Ok(())
    }

    /// Waits until every thread except the calling one has ended. True if so; false if `deadline` passes first.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let mut list = lock(&self.registry.list);
        while list.threads.iter().any(|thread| !thread.has_ended && !thread.is_current()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            list = wait_at_most(&self.registry.ended, &self.registry.list, list, left);
        }
        true
    }

    /// Waits until every thread has ended.
    pub(crate) fn wait_for_all(&self) {
        let handles: Vec<_> =
            lock(&self.registry.list).threads.iter_mut().filter_map(|thread| thread.handle.take()).collect();
        handles.into_iter().for_each(|handle| drop(handle.join()));
    }

    /// The stages whose threads run, or have ended without an eviction, each once.
    pub(crate) fn stages(&self) -> Vec<Arc<StageState>> {
        let list = lock(&self.registry.list);
        without_duplicates(list.threads.iter().map(|thread| &thread.stage).chain(&list.ended))
    }

    /// Joins the threads that have ended. Returns the stages whose threads have all ended (except evicted stages), and
    /// the stages of which a thread still runs.
    pub(crate) fn join(&self) -> (Vec<Arc<StageState>>, Vec<Arc<StageState>>) {
        let mut list = lock(&self.registry.list);
        let is_over = |thread: &mut Thread| thread.has_ended && !thread.is_current();
        let over: Vec<Thread> = list.threads.extract_if(.., is_over).collect();
        list.ended.extend(over.iter().map(|thread| Arc::clone(&thread.stage)));
        let running: Vec<_> = without_duplicates(list.threads.iter().map(|thread| &thread.stage));
        // A stage runs while one of its workers runs.
        let is_running = |stage: &&Arc<StageState>| running.iter().any(|other| Arc::ptr_eq(other, stage));
        let ended = without_duplicates(list.ended.iter().filter(|stage| !is_running(stage)));
        drop(list);
        // Joined after the lock is released: a thread's local data, which may be the user's, are dropped at its very
        // end. A panic of the thread was caught and reported already.
        over.into_iter().filter_map(|thread| thread.handle).for_each(|handle| drop(handle.join()));
        (ended, running)
    }
}

fn without_duplicates<'s>(stages: impl Iterator<Item = &'s Arc<StageState>>) -> Vec<Arc<StageState>> {
    let mut once: Vec<Arc<StageState>> = Vec::new();
    for stage in stages {
        if !once.iter().any(|other| Arc::ptr_eq(other, stage)) {
            once.push(Arc::clone(stage));
        }
    }
    once
}

impl Thread {
    fn is_current(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| handle.thread().id() == thread::current().id())
    }
}

impl ThreadRegistry {
    /// Stores the handle of thread `number`. Drops the handle if the thread has ended and left no record.
    fn give_handle(&self, number: u64, handle: thread::JoinHandle<()>) {
        let mut list = lock(&self.list);
        if let Some(thread) = list.threads.iter_mut().find(|thread| thread.number == number) {
            thread.handle = Some(handle);
        }
    }
}

/// The entry of a thread in the registry, from before the thread starts until it ends.
struct Registration {
    registry: Arc<ThreadRegistry>,
    number: u64,
    /// True if the report must list the stage after this thread has ended.
    is_reported: bool,
}

impl Registration {
    fn new(registry: &Arc<ThreadRegistry>, stage: Arc<StageState>) -> Self {
        let mut list = lock(&registry.list);
        let number = list.next;
        list.next += 1;
        list.threads.push(Thread { number, stage, handle: None, has_ended: false });
        drop(list);
        Self { registry: Arc::clone(registry), number, is_reported: false }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = lock(&self.registry.list);
        let gone = match list.threads.iter().position(|thread| thread.number == self.number) {
            Some(at) if self.is_reported => {
                list.threads[at].has_ended = true;
                None
            }
            Some(at) => Some(list.threads.swap_remove(at)),
            None => None,
        };
        drop(list);
        self.registry.ended.notify_all();
        // Dropping the thread's handle, if there is one, detaches the thread.
        drop(gone);
    }
}

/// Pins the calling thread to the stage's core, if it has one, and constructs the handler.
fn begin<W>(declared: &Stage, make: impl FnOnce() -> W) -> Result<W, BuildError> {
    let stage = || declared.name.clone();
    if let Some(core) = declared.core {
        pin::pin_current(core).map_err(|cause| BuildError::Pin { stage: stage(), cause })?;
    }
    caught(make).map_err(|panic| BuildError::Handler { stage: stage(), cause: panic.said() })
}

/// Runs a stage until it ends. Returns true if the report must list it: unless it was evicted and has not failed.
fn attend<E, K: Kind, A: Access, W: Work<E, K, A>>(
    mut consumer: Consumer<E, K, A>,
    mut worker: W,
    declared: &Stage,
) -> bool {
    let ending = ending_of(caught_by_stage(|| read_on(&mut consumer, &mut worker, declared)), &consumer.core, declared);
    // The handler's clean-up may panic as well, but the stage has ended in any case.
    let _ = caught(|| worker.end());
    let _ = caught(move || drop(worker));
    let stage = Arc::clone(&consumer.stage);
    drop(consumer);
    let is_reported = !stage.is_evicted() || matches!(ending, Ending::Failed(_));
    stage.end(ending);
    is_reported
}

/// Runs a worker until it ends. Returns true, because the report must list its stage.
fn attend_worker<E, K: Kind, H: Handler<E>>(mut worker: Worker<E, K>, mut handler: H, declared: &Stage) -> bool {
    let ending = ending_of(caught_by_stage(|| share(&mut worker, &mut handler, declared)), worker.core(), declared);
    let _ = caught(|| handler.on_end());
    let _ = caught(move || drop(handler));
    let stage = Arc::clone(worker.state());
    drop(worker);
    stage.end(ending);
    // Workers are never evicted.
    true
}

/// How a stage ended, from the result of its loop. A panic outside the handler, in a wait strategy or a task's waker,
/// fails the ring as a handler's panic does.
fn ending_of<E, K: Kind>(end: Result<Result<Closed, String>, Panic>, core: &Core<E, K>, declared: &Stage) -> Ending {
    match end.unwrap_or_else(|panic| Err(panic.to_string())) {
        Ok(Closed::Finished | Closed::Closed) => Ending::Drained,
        Ok(Closed::Evicted { .. }) => Ending::Evicted,
        Ok(closed) => Ending::Stopped(closed.to_string()),
        Err(cause) => {
            core.fail(&declared.name, &cause);
            Ending::Failed(cause)
        }
    }
}

/// Takes events and calls `handler` with each, until the ring ends (the reason is returned) or the handler fails (the
/// cause is the error).
fn share<E, K: Kind, H: Handler<E>>(
    worker: &mut Worker<E, K>,
    handler: &mut H,
    declared: &Stage,
) -> Result<Closed, String> {
    let limit = worker.fair_share(declared.limit);
    let stage = Arc::clone(worker.state());
    let mut tried = 0;
    loop {
        let mut taken = match worker.take_wait(limit) {
            Ok(taken) => taken,
            Err(closed) => return Ok(closed),
        };
        while let Some((sequence, event, last)) = taken.peek() {
            let handled = caught(|| handler.on_event(event, sequence, last).map_err(|error| error.to_string()));
            let cause = match handled {
                Ok(Ok(())) => {
                    tried = 0;
                    taken.done_with_one();
                    continue;
                }
                Ok(Err(cause)) => cause,
                Err(panic) => panic.to_string(),
            };
            let (retries, then_skip) = declared.on_error.unwrap_or_default().retries();
            if (retries > 0 || then_skip) && taken.ends_at_once() {
                break;
            }
            if tried < retries {
                tried += 1;
            } else if then_skip {
                tried = 0;
                stage.counts.skip();
                taken.done_with_one();
            } else {
                return Err(cause);
            }
        }
        if taken.ends_at_once() {
            // Without this return, the next take would return the events that were taken but not handled, and the
            // worker would never end.
            if let Some(closed) = taken.reason() {
                return Ok(closed);
            }
        }
    }
}

/// Polls batches and lets `worker` process them, until the ring ends (the reason is returned) or the handler fails (the
/// cause is the error).
fn read_on<E, K: Kind, A: Access, W: Work<E, K, A>>(
    consumer: &mut Consumer<E, K, A>,
    worker: &mut W,
    declared: &Stage,
) -> Result<Closed, String> {
    let mut retried = (Sequence(0), 0);
    let stage = Arc::clone(&consumer.stage);
    loop {
        let mut batch = match consumer.poll_wait(declared.limit) {
            Ok(batch) => batch,
            Err(closed) => return Ok(closed),
        };
        while !batch.is_empty() {
            let mut culprit = batch.position();
            let cause = match caught(|| worker.work(&mut batch, &mut culprit)) {
                Ok(Ok(())) => break,
                Ok(Err(cause)) => cause,
                Err(panic) => panic.to_string(),
            };
            let (retries, then_skip) = declared.on_error.unwrap_or_default().retries();
            let tried = if retried.0 == culprit { retried.1 } else { 0 };
            if (retries > 0 || then_skip) && batch.ends_at_once() {
                // The ring was halted or has failed, and the next poll returns that. The event on which the handler
                // failed stays unread.
                batch.put_back(culprit);
                break;
            }
            if tried < retries {
                retried = (culprit, tried + 1);
                batch.put_back(culprit);
            } else if then_skip {
                stage.counts.skip();
                if batch.position() == culprit {
                    // A batch handler that iterates no event would get this batch for ever, so its first event is
                    // skipped.
                    batch.pass_over();
                }
            } else {
                batch.put_back(culprit);
                return Err(cause);
            }
        }
    }
}
