//! Building a ring: its size, and the graph of its stages, which is checked before any thread starts.

use crate::access::{Access, Exclusive, Shared};
use crate::batch::Batch;
use crate::bell::Bell;
use crate::closing::Phase;
use crate::consumer::Consumer;
use crate::core::Core;
use crate::error::BuildError;
use crate::handler::{BatchHandler, Events, Handler};
use crate::join::{Place, Role};
use crate::kind::{Kind, Multi, Single};
use crate::managed::Threads;
use crate::memory::MemoryRequest;
use crate::outcome::Outcome;
use crate::producer::Producer;
use crate::ring::{Ring, UntakenStage};
use crate::sequence::Sequence;
use crate::stage::{OnError, Stage};
use crate::sync::Arc;
use crate::wait::Wait;
use crate::worker::Worker;

/// Declares a ring: [`single`](Self::single) or [`multi`](Self::multi), then its stages, then [`build`](Self::build).
///
/// ```
/// # use slipring_ring::{Builder, Stage};
/// # use std::time::Duration;
/// # #[derive(Default)] struct Order { price: i64, checked: bool }
/// let mut builder = Builder::single(1024, Order::default);
/// builder.run_mut("check", || |order: &mut Order, _, _| order.checked = true);
/// builder.run(Stage::new("book").after(["check"]), || |_: &Order, _, _| ());
/// builder.run(Stage::new("risk").after(["check"]), || |_: &Order, _, _| ());
/// builder.poll(Stage::new("audit").after(["book", "risk"]));      // a diamond
/// let (mut producer, ring) = builder.build()?;
/// let mut audit = ring.consumer("audit")?;
/// producer.publish(|order| order.price = 42)?;
/// for (_, order) in &mut audit.poll_wait(1)? {
///     assert!(order.checked);
/// }
/// assert!(ring.shutdown(Duration::from_secs(5)).is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder<E, K: Kind> {
    capacity: usize,
    retain: usize,
    first: u64,
    make: Box<dyn FnMut() -> E + Send>,
    request: MemoryRequest,
    never_wake: bool,
    on_error: OnError,
    declared: Vec<Declared<E, K>>,
}

struct Declared<E, K: Kind> {
    stage: Stage,
    role: Role,
    launch: Launch<E, K>,
}

type Start<E, K, A> = Box<dyn FnOnce(&Stage, Consumer<E, K, A>, &Threads) -> Result<(), BuildError> + Send>;

type StartWorker<E, K> = Box<dyn Fn(usize, &Stage, Worker<E, K>, &Threads) -> Result<(), BuildError> + Send>;

/// Starts the threads of one stage.
type ToStart = Box<dyn FnOnce(&Threads) -> Result<(), BuildError>>;

/// The result of building: a producer, and the handle of the ring.
type Built<E, K> = (Producer<E, K>, Ring<E, K>);

/// How to start a stage once it has joined the ring.
enum Launch<E, K: Kind> {
    Poll,
    PollMut,
    Workers,
    Run(Start<E, K, Shared>),
    RunMut(Start<E, K, Exclusive>),
    RunWorkers(StartWorker<E, K>),
}

impl<E: Send + Sync + 'static> Builder<E, Single> {
    /// Declares a ring with one producer and `capacity` events, each constructed by a call of `make`.
    ///
    /// The capacity must be a power of two; 1 is legal.
    pub fn single(capacity: usize, make: impl FnMut() -> E + Send + 'static) -> Self {
        Self::new(capacity, make)
    }
}

impl<E: Send + Sync + 'static> Builder<E, Multi> {
    /// Declares a ring with any number of producers and `capacity` events, each constructed by a call of `make`.
    ///
    /// The capacity must be a power of two; 1 is legal.
    pub fn multi(capacity: usize, make: impl FnMut() -> E + Send + 'static) -> Self {
        Self::new(capacity, make)
    }
}

impl<E: Send + Sync + 'static, K: Kind> Builder<E, K> {
    fn new(capacity: usize, make: impl FnMut() -> E + Send + 'static) -> Self {
        Self {
            capacity,
            retain: 0,
            first: 0,
            make: Box::new(make),
            request: MemoryRequest::default(),
            never_wake: false,
            on_error: OnError::default(),
            declared: Vec::new(),
        }
    }

    /// Keeps the last `events` published events readable for stages that join later. [`build`](Self::build) refuses a
    /// count that is not less than the capacity. Default: 0.
    pub fn retain(&mut self, events: usize) -> &mut Self {
        self.retain = events;
        self
    }

    /// Sets the sequence of the first event. Default: 0.
    pub fn start_at(&mut self, first: Sequence) -> &mut Self {
        self.first = first.0;
        self
    }

    /// Sets whether huge pages are requested for the slots (`MADV_HUGEPAGE`, before the first touch), which reduce TLB
    /// misses in a large ring. Default: no. [`Ring::memory`] reports how many bytes are on huge pages.
    pub fn huge_pages(&mut self, yes: bool) -> &mut Self {
        self.request.huge_pages = yes;
        self
    }

    /// Sets whether the slots are locked in memory (`mlock`), so that they are never swapped out. Default: no.
    /// [`Ring::memory`] reports the result.
    pub fn lock_memory(&mut self, yes: bool) -> &mut Self {
        self.request.lock = yes;
        self
    }

    /// Sets whether publishing wakes nobody, so that it never makes a system call. Default: no. A consumer, task or waiter that
    /// would sleep until an event comes then sleeps for a millisecond at most and looks again: it needs no wake-up. With
    /// [`Wait::nap`] a consumer chooses how long. The end of the ring still wakes all at once.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Stage, Wait};
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.never_wake(true);
    /// builder.poll(Stage::new("tape").wait(Wait::spin_then_park().spin_for(std::time::Duration::ZERO)));
    /// let (mut producer, ring) = builder.build()?;
    /// let mut tape = ring.consumer("tape")?;
    /// let reader = std::thread::spawn(move || tape.poll_wait(8).map(|batch| batch.len()));
    /// producer.publish(|event| *event = 42)?;                        // two stores, although the reader may be asleep
    /// assert_eq!(reader.join().unwrap()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn never_wake(&mut self, yes: bool) -> &mut Self {
        self.never_wake = yes;
        self
    }

    /// Sets the policy for errors and panics of the handlers of all managed stages that have none of
    /// [their own](Stage::on_error), also of those that join later. Default: [`OnError::Stop`].
    ///
    /// ```
    /// # use slipring_ring::{Builder, OnError, Stage};
    /// # use std::time::Duration;
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.on_error(OnError::Skip);
    /// builder.run("even", || |event: &u64, _, _| if event % 2 == 0 { Ok(()) } else { Err("odd") });
    /// let (mut producer, ring) = builder.build()?;
    /// producer.publish(|event| *event = 3)?;
    /// producer.publish(|event| *event = 4)?;
    /// drop(producer);
    /// assert!(ring.shutdown(Duration::from_secs(5)).is_complete());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_error(&mut self, policy: OnError) -> &mut Self {
        self.on_error = policy;
        self
    }

    /// Adds a stage that is read by polling. Take it with [`Ring::consumer`].
    pub fn poll(&mut self, stage: impl Into<Stage>) -> &mut Self {
        self.declare(stage, false, 0, Launch::Poll)
    }

    /// Adds a stage that is read by polling and may change events. Take it with [`Ring::consumer_mut`].
    pub fn poll_mut(&mut self, stage: impl Into<Stage>) -> &mut Self {
        self.declare(stage, true, 0, Launch::PollMut)
    }

    /// Adds a stage whose events are divided among up to `count` workers (at least 1): each event goes to exactly one
    /// of them. Take each worker with [`Ring::worker`].
    pub fn workers(&mut self, stage: impl Into<Stage>, count: usize) -> &mut Self {
        self.declare(stage, false, count, Launch::Workers)
    }

    /// Adds a managed stage: a thread of its own, with the stage's name, calls `make` to construct the handler, and
    /// then the handler with each event.
    pub fn run<H>(&mut self, stage: impl Into<Stage>, make: impl FnOnce() -> H + Send + 'static) -> &mut Self
    where
        H: Handler<E> + 'static,
    {
        let start: Start<E, K, Shared> =
            Box::new(move |stage, consumer, threads| threads.run(stage, consumer, move || Events(make())));
        self.declare(stage, false, 0, Launch::Run(start))
    }

    /// Adds a managed stage as [`run`](Self::run) does, whose handler may change events.
    pub fn run_mut<H>(&mut self, stage: impl Into<Stage>, make: impl FnOnce() -> H + Send + 'static) -> &mut Self
    where
        H: Handler<E, Exclusive> + 'static,
    {
        let start: Start<E, K, Exclusive> =
            Box::new(move |stage, consumer, threads| threads.run(stage, consumer, move || Events(make())));
        self.declare(stage, true, 0, Launch::RunMut(start))
    }

    /// Adds a managed stage whose handler gets whole batches. Events that the handler iterates count as handled; the
    /// next call gets the others again.
    pub fn run_batches<R: Outcome, F>(
        &mut self,
        stage: impl Into<Stage>,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> &mut Self
    where
        F: FnMut(&mut Batch<'_, E, K>) -> R + 'static,
    {
        let start: Start<E, K, Shared> =
            Box::new(move |stage, consumer, threads| threads.run(stage, consumer, move || BatchHandler(make())));
        self.declare(stage, false, 0, Launch::Run(start))
    }

    /// Adds a stage whose events are divided among `count` workers (at least 1), each with a thread of its own. Each
    /// thread calls `make` with the worker's number, from 0 on, to construct its handler. Each event goes to exactly
    /// one worker; a worker takes at most [`Stage::limit`] events at a time (default: 8 or fewer). If the stage is
    /// pinned, all its threads are pinned to one core.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// # use std::{sync::atomic::{AtomicU64, Ordering::Relaxed}, sync::Arc, time::Duration};
    /// let sum = Arc::new(AtomicU64::new(0));
    /// let mut builder = Builder::single(8, u64::default);
    /// let total = Arc::clone(&sum);
    /// builder.run_workers("pool", 2, move |_worker| {
    ///     let total = Arc::clone(&total);
    ///     move |event: &u64, _, _| { total.fetch_add(*event, Relaxed); }
    /// });
    /// let (mut producer, ring) = builder.build()?;
    /// producer.publish_batch(4, |index, event| *event = index as u64)?;
    /// assert!(ring.shutdown(Duration::from_secs(5)).is_complete());
    /// assert_eq!(sum.load(Relaxed), 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_workers<H>(
        &mut self,
        stage: impl Into<Stage>,
        count: usize,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> &mut Self
    where
        H: Handler<E> + 'static,
    {
        let make = std::sync::Arc::new(make);
        let start: StartWorker<E, K> = Box::new(move |number, stage, worker, threads| {
            let make = std::sync::Arc::clone(&make);
            threads.run_worker(stage, worker, move || make(number))
        });
        self.declare(stage, false, count, Launch::RunWorkers(start))
    }

    fn declare(&mut self, stage: impl Into<Stage>, exclusive: bool, workers: usize, launch: Launch<E, K>) -> &mut Self {
        let role = Role { exclusive, workers, at_run_time: false, successor: false };
        self.declared.push(Declared { stage: stage.into(), role, launch });
        self
    }

    /// Builds the ring and starts the managed stages. When this returns, every stage has joined at the first sequence,
    /// and the thread of every managed stage has constructed its handler.
    ///
    /// # Errors
    /// The capacity, the count of retained events or a stage's declaration is refused, or the system refuses memory, a
    /// pin or a thread, or a handler's constructor panics: see [`BuildError`]. No thread is left running.
    pub fn build(self) -> Result<Built<E, K>, BuildError> {
        let Self { capacity, retain, first, make, request, never_wake, on_error, declared } = self;
        let bell = if never_wake { Bell::silent() } else { Bell::new() };
        let core = Arc::new(Core::<E, K>::new(capacity, retain, first, make, request, bell)?);
        let threads = Threads::new(on_error);
        let mut untaken = Vec::new();
        let mut to_start: Vec<ToStart> = Vec::new();
        for Declared { stage, role, launch } in in_order(declared)? {
            if matches!(launch, Launch::Workers | Launch::RunWorkers(_)) && role.workers == 0 {
                return Err(BuildError::NoWorkers { stage: stage.name });
            }
            let (state, place) = core.join(&stage, role)?;
            match launch {
                Launch::Poll => untaken.push(UntakenStage::Shared(consumer(&core, state, place, &stage))),
                Launch::PollMut => untaken.push(UntakenStage::Exclusive(consumer(&core, state, place, &stage))),
                Launch::Workers => untaken.push(UntakenStage::Workers(state, stage.wait)),
                Launch::RunWorkers(run) => {
                    let enter = || Worker::enter(Arc::clone(&core), Arc::clone(&state), stage.wait.clone());
                    let workers: Vec<_> = (0..role.workers).filter_map(|_| enter()).collect();
                    to_start.push(Box::new(move |threads| {
                        let mut numbered = workers.into_iter().enumerate();
                        numbered.try_for_each(|(number, worker)| run(number, &stage, worker, threads))
                    }));
                }
                Launch::Run(run) => {
                    let consumer = consumer(&core, state, place, &stage);
                    to_start.push(Box::new(move |threads| run(&stage, consumer, threads)));
                }
                Launch::RunMut(run) => {
                    let consumer = consumer(&core, state, place, &stage);
                    to_start.push(Box::new(move |threads| run(&stage, consumer, threads)));
                }
            }
        }
        for start in to_start {
            if let Err(refused) = start(&threads) {
                core.end(Phase::Halted, None);
                threads.wait_for_all();
                return Err(refused);
            }
        }
        let producer = Producer::new(Arc::clone(&core), Wait::default());
        Ok((producer, Ring::new(core, threads, untaken)))
    }
}

fn consumer<E, K: Kind, A: Access>(
    core: &Arc<Core<E, K>>,
    state: Arc<crate::stage::StageState>,
    place: Place,
    stage: &Stage,
) -> Consumer<E, K, A> {
    Consumer::new(Arc::clone(core), state, place, stage.wait.clone())
}

/// Sorts the declared stages so that each stage comes after the stages that it names.
///
/// # Errors
/// A name is used twice, a stage names a stage that is not declared or of another ring, or the stages form a cycle.
fn in_order<E, K: Kind>(mut waiting: Vec<Declared<E, K>>) -> Result<Vec<Declared<E, K>>, BuildError> {
    let names: Vec<String> = waiting.iter().map(|declared| declared.stage.name.clone()).collect();
    for (index, Declared { stage, .. }) in waiting.iter().enumerate() {
        let name = || stage.name.clone();
        if names[..index].contains(&stage.name) {
            return Err(BuildError::NameTaken { name: name() });
        }
        for after in &stage.after {
            if after.ring.is_some() {
                return Err(BuildError::ForeignStage { stage: name(), after: after.name.clone() });
            }
            if !names.contains(&after.name) {
                return Err(BuildError::UnknownStage { stage: name(), after: after.name.clone(), known: names });
            }
        }
    }
    let mut ordered: Vec<Declared<E, K>> = Vec::new();
    while !waiting.is_empty() {
        let is_there = |name: &str| ordered.iter().any(|there| there.stage.name == name);
        match waiting.iter().position(|next| next.stage.after.iter().all(|after| is_there(&after.name))) {
            Some(next) => ordered.push(waiting.remove(next)),
            None => return Err(BuildError::Cycle { stages: circle(&waiting) }),
        }
    }
    Ok(ordered)
}

/// The names of stages that form a cycle, with the first name repeated at the end. Each of `stages` must name another
/// of them.
fn circle<E, K: Kind>(stages: &[Declared<E, K>]) -> Vec<String> {
    let mut path: Vec<String> = vec![stages[0].stage.name.clone()];
    loop {
        let here = stages.iter().find(|declared| declared.stage.name == path[path.len() - 1]);
        let waits_for = here.and_then(|here| {
            here.stage.after.iter().find(|after| stages.iter().any(|other| other.stage.name == after.name))
        });
        let Some(next) = waits_for.map(|after| after.name.clone()) else { return path };
        if let Some(begin) = path.iter().position(|seen| *seen == next) {
            path.drain(..begin);
            path.push(next);
            return path;
        }
        path.push(next);
    }
}
