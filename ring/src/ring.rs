//! The handle of a running ring: taking consumers, joining stages, reading positions. `shutdown.rs` has the methods
//! that end the ring.

use crate::access::{Exclusive, Shared};
use crate::batch::Batch;
use crate::bell::Bell;
use crate::closing::{Closed, Phase};
use crate::consumer::Consumer;
use crate::core::Core;
use crate::error::{BuildError, StageError};
use crate::handler::{BatchHandler, Events, Handler};
use crate::join::Role;
use crate::kind::Kind;
use crate::managed::Threads;
use crate::memory::MemoryReport;
use crate::ordering::FOLLOW;
use crate::outcome::Outcome;
use crate::report::{Positions, StagePosition};
use crate::sequence::{Sequence, ahead, earlier, later};
use crate::stage::{Stage, StageState};
use crate::sync::{Arc, Mutex, lock};
use crate::wait::Wait;
use crate::waiter::Waiter;
use crate::worker::Worker;
use std::fmt;

/// A handle of a running ring. A clone is another handle of that ring.
///
/// Dropping the last handle does not end the ring: producers and managed stages continue until all producers are
/// dropped. Only declared stages whose consumers were never taken leave the ring then.
pub struct Ring<E, K: Kind> {
    pub(crate) core: Arc<Core<E, K>>,
    pub(crate) shared: Arc<HandleState<E, K>>,
}

/// The state that the handles of one ring share, and that is dropped with the last handle.
pub(crate) struct HandleState<E, K: Kind> {
    core: Arc<Core<E, K>>,
    pub(crate) threads: Threads,
    pub(crate) untaken: Mutex<Vec<UntakenStage<E, K>>>,
}

/// A declared stage whose consumer or workers can still be taken.
pub(crate) enum UntakenStage<E, K: Kind> {
    Shared(Consumer<E, K, Shared>),
    Exclusive(Consumer<E, K, Exclusive>),
    /// A stage of workers. It stays in the list after a worker was taken, because each worker is taken by a call of its
    /// own.
    Workers(Arc<StageState>, Wait),
}

impl<E, K: Kind> Clone for Ring<E, K> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), shared: Arc::clone(&self.shared) }
    }
}

impl<E, K: Kind> fmt::Debug for Ring<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ring").field(&self.positions()).finish()
    }
}

impl<E, K: Kind> Ring<E, K> {
    pub(crate) fn new(core: Arc<Core<E, K>>, threads: Threads, untaken: Vec<UntakenStage<E, K>>) -> Self {
        let shared = HandleState { core: Arc::clone(&core), threads, untaken: Mutex::new(untaken) };
        Self { core, shared: Arc::new(shared) }
    }

    /// Takes the consumer of a stage that was declared with [`Builder::poll`](crate::Builder::poll).
    ///
    /// # Errors
    /// The ring has no such stage, the consumer was taken before, or the stage was declared in another way.
    pub fn consumer(&self, name: &str) -> Result<Consumer<E, K>, StageError> {
        self.take(
            name,
            |untaken| matches!(untaken, UntakenStage::Shared(consumer) if consumer.stage.name == name),
            |it| {
                if let UntakenStage::Shared(consumer) = it { Some(consumer) } else { None }
            },
        )
    }

    /// Takes the consumer of a stage that was declared with [`Builder::poll_mut`](crate::Builder::poll_mut).
    ///
    /// # Errors
    /// The ring has no such stage, the consumer was taken before, or the stage was declared in another way.
    pub fn consumer_mut(&self, name: &str) -> Result<Consumer<E, K, Exclusive>, StageError> {
        self.take(
            name,
            |untaken| matches!(untaken, UntakenStage::Exclusive(consumer) if consumer.stage.name == name),
            |it| {
                if let UntakenStage::Exclusive(consumer) = it { Some(consumer) } else { None }
            },
        )
    }

    fn take<C>(
        &self,
        name: &str,
        is_it: impl Fn(&UntakenStage<E, K>) -> bool,
        open: impl FnOnce(UntakenStage<E, K>) -> Option<C>,
    ) -> Result<C, StageError> {
        let mut untaken = lock(&self.shared.untaken);
        match untaken.iter().position(is_it) {
            Some(index) => open(untaken.remove(index)).ok_or_else(|| StageError::NotHere { name: name.to_owned() }),
            None => Err(self.not_here(name)),
        }
    }

    fn not_here(&self, name: &str) -> StageError {
        let name = name.to_owned();
        match lock(&self.core.members).iter().any(|member| member.name == name) {
            true => StageError::NotHere { name },
            false => StageError::Unknown { name },
        }
    }

    /// Takes one more worker of a stage that was declared with [`Builder::workers`](crate::Builder::workers).
    ///
    /// # Errors
    /// The ring has no such stage, the stage was declared in another way, all its workers are taken, or its last worker
    /// was dropped.
    pub fn worker(&self, name: &str) -> Result<Worker<E, K>, StageError> {
        let untaken = lock(&self.shared.untaken);
        let found = untaken.iter().find_map(|untaken| match untaken {
            UntakenStage::Workers(stage, wait) if stage.name == name => Some((Arc::clone(stage), wait.clone())),
            _ => None,
        });
        let (stage, wait) = found.ok_or_else(|| self.not_here(name))?;
        let worker = Worker::enter(Arc::clone(&self.core), stage, wait);
        worker.ok_or_else(|| StageError::NotHere { name: name.to_owned() })
    }

    /// Adds a polled stage to the running ring. The consumer's [`first`](Consumer::first) is the sequence at which it
    /// starts: from there on no event is overwritten before it was read.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Stage, Start};
    /// let mut builder = Builder::multi(8, u64::default);
    /// builder.retain(4);
    /// let (mut producer, ring) = builder.build()?;
    /// for value in 0..6 {
    ///     producer.publish(|event| *event = value)?;
    /// }
    /// let mut late = ring.join(Stage::new("late").start(Start::Earliest))?;
    /// assert_eq!(late.first().0, 2);
    /// assert_eq!((&mut late.poll(9)?).into_iter().map(|(_, event)| *event).collect::<Vec<_>>(), [2, 3, 4, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The name is empty or in use, a stage that it names does not exist or is of another ring, the start is not kept
    /// or not published yet, another stage changes events and the newcomer is not ordered after it, the system refuses
    /// the fence that a join needs, or the ring is not open.
    pub fn join(&self, stage: impl Into<Stage>) -> Result<Consumer<E, K>, BuildError> {
        self.join_as(stage.into(), false)
    }

    fn join_as(&self, stage: Stage, successor: bool) -> Result<Consumer<E, K>, BuildError> {
        let role = Role { exclusive: false, workers: 0, at_run_time: true, successor };
        let (state, place) = self.core.join(&stage, role)?;
        Ok(Consumer::new(Arc::clone(&self.core), state, place, stage.wait))
    }

    /// Replaces the stage `old`, whose consumer does not respond: a new stage joins as [`join`](Self::join) does, under
    /// another name, then the old stage is [evicted](Self::evict). The old gate leaves at once, or when the old
    /// consumer's batch ends. Until then both gates hold, so a new stage that starts at the old stage's position misses
    /// no event. A closed ring accepts such stages until everything is read.
    ///
    /// ```
    /// use slipring_ring::{Builder, Closed, Sequence, Stage, Start};
    /// let mut builder = Builder::single(4, u64::default);
    /// builder.poll("tape");
    /// let (mut producer, ring) = builder.build()?;
    /// let mut stalled = ring.consumer("tape")?;
    /// producer.publish_batch(3, |index, event| *event = index as u64)?;
    /// ring.close();
    /// let mut next = ring.take_over("tape", Stage::new("tape, once more").start(Start::At(Sequence(0))))?;
    /// assert_eq!((&mut next.poll(4)?).into_iter().count(), 3);
    /// assert!(matches!(stalled.poll(4), Err(Closed::Evicted { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`join`](Self::join), except that the ring may be closed. After an error the old stage stays. If other stages
    /// are ordered after the old stage, it stays beside the new one. It is no error if the old stage has left already.
    pub fn take_over(&self, old: &str, stage: impl Into<Stage>) -> Result<Consumer<E, K>, BuildError> {
        let consumer = self.join_as(stage.into(), true)?;
        let _ = self.core.evict(old);
        Ok(consumer)
    }

    /// Adds a managed stage to the running ring: a thread of its own calls `make` to construct the handler, and then
    /// the handler with each event. Returns the stage's first sequence.
    ///
    /// # Errors
    /// As [`join`](Self::join); also, the stage's core or a thread is refused, or `make` panics.
    pub fn run<H>(
        &self,
        stage: impl Into<Stage>,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> Result<Sequence, BuildError>
    where
        E: Send + Sync + 'static,
        H: Handler<E> + 'static,
    {
        let stage = stage.into();
        let consumer = self.join(stage.clone())?;
        let first = consumer.first();
        self.shared.threads.run(&stage, consumer, move || Events(make()))?;
        Ok(first)
    }

    /// Adds a managed stage to the running ring as [`run`](Self::run) does, with a handler that gets whole batches.
    /// Returns the stage's first sequence.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_batches<R: Outcome, F>(
        &self,
        stage: impl Into<Stage>,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Sequence, BuildError>
    where
        E: Send + Sync + 'static,
        F: FnMut(&mut Batch<'_, E, K>) -> R + 'static,
    {
        let stage = stage.into();
        let consumer = self.join(stage.clone())?;
        let first = consumer.first();
        self.shared.threads.run(&stage, consumer, move || BatchHandler(make()))?;
        Ok(first)
    }

    /// Removes the gate of a stage, so that producers no longer wait for the stage. Its consumer gets
    /// [`Closed::Evicted`] at its next poll. Returns the stage's position.
    ///
    /// # Errors
    /// - The ring has no such stage, other stages are ordered after it, or workers share it. Nothing changes.
    /// - The stage's consumer holds a batch. The stage is evicted, and its consumer removes the gate when the batch ends.
    /// - The operating system refuses a memory fence that an eviction needs (see [`Refused`](crate::fence::Refused)).
    ///   The stage is evicted, and its consumer removes the gate at its next poll, or when a batch that it holds ends.
    pub fn evict(&self, name: &str) -> Result<Sequence, StageError> {
        self.core.evict(name)
    }

    /// Checks if [`evict`](Self::evict) would refuse this stage now, and changes nothing: for evicting a consumer from
    /// several rings or from none.
    ///
    /// # Errors
    /// The ring has no such stage, other stages are ordered after it, or it is shared by workers.
    pub fn check_evict(&self, name: &str) -> Result<(), StageError> {
        self.core.check_evict(name)
    }

    /// The next sequence to be published: all events below it can be read. Equals the field of
    /// [`positions`](Self::positions), and allocates nothing.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let (mut producer, ring) = Builder::single(8, u64::default).build()?;
    /// producer.publish_batch(3, |_, _| ())?;
    /// assert_eq!((ring.published(), ring.published().0), (ring.positions().published, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn published(&self) -> Sequence {
        Sequence(self.core.published())
    }

    /// All positions of the ring. Takes no lock while the ring is open.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.poll("slow");
    /// let (mut producer, ring) = builder.build()?;
    /// producer.publish_batch(3, |_, _| ())?;
    /// let positions = ring.positions();
    /// assert_eq!((positions.fill, positions.free, positions.stages[0].lag), (3, 5, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn positions(&self) -> Positions {
        let core = &self.core;
        // Each gate is read before the positions that it cannot have passed, so no difference is negative.
        let set = core.gates.load();
        let consumed: Vec<u64> = set.stages.iter().map(|stage| stage.position(&FOLLOW)).collect();
        // The claimed position is read before the published one, so the difference is at most the capacity. Once the
        // ring is closed, claims beyond its end do not count, because they are given up. A single producer's claim
        // counts when it is published.
        let end = core.closing.end().map(|end| end.at());
        let claimed = match end {
            _ if K::TAKES_BACK => core.published(),
            Some(end) => earlier(K::claimed(core), end),
            None => K::claimed(core),
        };
        let published = core.published();
        let claimed = later(claimed, published);
        let floor = published.wrapping_sub(core.retain);
        let lowest = consumed.iter().copied().fold(floor, earlier);
        let earliest = core.earliest(lowest);
        let fill = (ahead(claimed, earliest).max(0) as u64).min(core.capacity());
        let stages = set.stages.iter().zip(&consumed).map(|(stage, &at)| {
            let [stalls, skipped, lost] = stage.counts.read();
            let after = stage.after.iter().map(|stage| stage.name.clone()).collect();
            // The gate was read before the published position, and may have moved since, so the difference is limited.
            let lag = (ahead(published, at).max(0) as u64).min(core.capacity());
            StagePosition { name: stage.name.clone(), after, consumed: Sequence(at), lag, stalls, skipped, lost }
        });
        Positions {
            capacity: core.capacity(),
            earliest: Sequence(earliest),
            published: Sequence(published),
            claimed: Sequence(claimed),
            fill,
            free: core.capacity() - fill,
            oldest_unpublished: (ahead(claimed, published) > 0).then_some(Sequence(published)),
            stages: stages.collect(),
        }
    }

    /// True if both handles are of one ring.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let (producer, ring) = Builder::multi(8, u64::default).build()?;
    /// let (other, _) = Builder::multi(8, u64::default).build()?;
    /// assert!(ring.same_ring(&ring.clone()));
    /// assert!(producer.same_ring(&producer.clone()) && !producer.same_ring(&other));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn same_ring(&self, other: &Self) -> bool {
        self.core.id == other.core.id
    }

    /// The memory of the slots: its size, and the results of [`huge_pages`](crate::Builder::huge_pages) and
    /// [`lock_memory`](crate::Builder::lock_memory).
    ///
    /// ```
    /// # use slipring_ring::{Builder, Obtained};
    /// let mut builder = Builder::multi(1 << 10, u64::default);
    /// builder.lock_memory(true);
    /// let (_producer, ring) = builder.build()?;
    /// match ring.memory().locked {
    ///     Obtained::Bytes(bytes) => assert_eq!(bytes, ring.memory().bytes),
    ///     Obtained::Refused(why) => eprintln!("not locked: {why}"),
    ///     _ => unreachable!("it was asked for"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn memory(&self) -> MemoryReport {
        self.core.buffer.memory().clone()
    }

    /// The reason why the ring accepts or returns no more events; `None` while it is open.
    pub fn closed(&self) -> Option<Closed> {
        self.core.closing.reason()
    }

    /// Arms `waiter`, that is, registers it for one wake-up with `token` when the ring ends, but not when events are
    /// published. For threads without a consumer of this ring; [`Consumer::arm_for_end`] also reports an eviction.
    /// Returns false if the ring has ended already, for the reason that [`closed`](Self::closed) returns.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Waiter};
    /// let (mut producer, ring) = Builder::single(8, u64::default).build()?;
    /// let waiter = Waiter::new();
    /// assert!(ring.arm_for_end(&waiter, 7));
    /// producer.publish(|event| *event = 42)?;
    /// assert!(!waiter.take(|_| ()), "an event wakes nobody");
    /// ring.close();
    /// waiter.park(None, |token| assert_eq!(token, 7));
    /// assert!(!ring.arm_for_end(&waiter, 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn arm_for_end(&self, waiter: &Waiter, token: usize) -> bool {
        self.core.end_bell.arm(waiter, token);
        Bell::fence(std::iter::once(&self.core.end_bell), waiter, token);
        self.core.closing.phase() == Phase::Open
    }
}

impl<E, K: Kind> Drop for HandleState<E, K> {
    fn drop(&mut self) {
        // Dropped after the lock is released: a dropped consumer removes its gate, which wakes threads that wait for
        // the gate.
        let untaken = std::mem::take(&mut *lock(&self.untaken));
        for untaken in untaken {
            if let UntakenStage::Workers(stage, _) = untaken {
                let unattended = stage.workers.as_ref().is_some_and(|workers| workers.close_if_unattended());
                if unattended {
                    self.core.leave_for_good(&stage, false);
                }
            }
        }
    }
}
