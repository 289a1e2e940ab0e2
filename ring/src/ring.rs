//! The handle of a running ring: taking consumers, joining, looking at positions. Ending it stands in `shutdown.rs`.

use crate::access::{Exclusive, Shared};
use crate::batch::Batch;
use crate::bell::{Bell, Waiter};
use crate::closing::{Closed, Phase};
use crate::consumer::Consumer;
use crate::core::Core;
use crate::error::{BuildError, StageError};
use crate::join::Role;
use crate::kind::Kind;
use crate::managed::{Events, Handler, Spans, Threads};
use crate::memory::MemoryReport;
use crate::ordering::FOLLOW;
use crate::report::{Positions, StagePosition};
use crate::sequence::{Sequence, ahead, earlier, later};
use crate::stage::{Stage, StageState};
use crate::sync::{Arc, Mutex, lock};
use crate::wait::Wait;
use crate::worker::Worker;
use std::fmt;
use std::fmt::Display;

/// A running ring. Cloning it gives another handle of the same ring.
///
/// Dropping the last handle stops nothing: producers and managed stages go on until the producers are gone. Only what
/// was declared and never taken leaves then.
pub struct Ring<E, K: Kind> {
    pub(crate) core: Arc<Core<E, K>>,
    pub(crate) held: Arc<Held<E, K>>,
}

/// What the handles of a ring own together.
pub(crate) struct Held<E, K: Kind> {
    core: Arc<Core<E, K>>,
    pub(crate) threads: Threads,
    pub(crate) untaken: Mutex<Vec<Untaken<E, K>>>,
}

/// A stage that was declared and waits for somebody to take it.
pub(crate) enum Untaken<E, K: Kind> {
    Shared(Consumer<E, K, Shared>),
    Exclusive(Consumer<E, K, Exclusive>),
    /// Stays here: it is taken by one worker after the other.
    Workers(Arc<StageState>, Wait),
}

impl<E, K: Kind> Clone for Ring<E, K> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), held: Arc::clone(&self.held) }
    }
}

impl<E, K: Kind> fmt::Debug for Ring<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ring").field(&self.positions()).finish()
    }
}

impl<E, K: Kind> Ring<E, K> {
    pub(crate) fn new(core: Arc<Core<E, K>>, threads: Threads, untaken: Vec<Untaken<E, K>>) -> Self {
        let held = Held { core: Arc::clone(&core), threads, untaken: Mutex::new(untaken) };
        Self { core, held: Arc::new(held) }
    }

    /// The consumer declared with [`Builder::poll`](crate::Builder::poll).
    ///
    /// # Errors
    /// There is none of that name, or it was taken before.
    pub fn consumer(&self, name: &str) -> Result<Consumer<E, K>, StageError> {
        self.take(
            name,
            |untaken| matches!(untaken, Untaken::Shared(consumer) if consumer.stage.name == name),
            |it| {
                if let Untaken::Shared(consumer) = it { Some(consumer) } else { None }
            },
        )
    }

    /// The consumer declared with [`Builder::poll_mut`](crate::Builder::poll_mut).
    ///
    /// # Errors
    /// There is none of that name, or it was taken before.
    pub fn consumer_mut(&self, name: &str) -> Result<Consumer<E, K, Exclusive>, StageError> {
        self.take(
            name,
            |untaken| matches!(untaken, Untaken::Exclusive(consumer) if consumer.stage.name == name),
            |it| {
                if let Untaken::Exclusive(consumer) = it { Some(consumer) } else { None }
            },
        )
    }

    fn take<C>(
        &self,
        name: &str,
        is_it: impl Fn(&Untaken<E, K>) -> bool,
        open: impl FnOnce(Untaken<E, K>) -> Option<C>,
    ) -> Result<C, StageError> {
        let mut untaken = lock(&self.held.untaken);
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

    /// One more worker of a stage declared with [`Builder::workers`](crate::Builder::workers).
    ///
    /// # Errors
    /// There is no such stage, all its places are taken, or its last worker has gone.
    pub fn worker(&self, name: &str) -> Result<Worker<E, K>, StageError> {
        let untaken = lock(&self.held.untaken);
        let found = untaken.iter().find_map(|untaken| match untaken {
            Untaken::Workers(stage, wait) if stage.name == name => Some((Arc::clone(stage), wait.clone())),
            _ => None,
        });
        let (stage, wait) = found.ok_or_else(|| self.not_here(name))?;
        let worker = Worker::enter(Arc::clone(&self.core), stage, wait);
        worker.ok_or_else(|| StageError::NotHere { name: name.to_owned() })
    }

    /// Joins while the ring runs. The consumer's [`first`](Consumer::first) says where it starts: from there on no
    /// event is overwritten before it was read.
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
    /// The name is taken, a stage it names is not there, the start is out of range, a stage changes events and the
    /// newcomer does not stand behind it, or the ring is closed.
    pub fn join(&self, stage: impl Into<Stage>) -> Result<Consumer<E, K>, BuildError> {
        self.join_as(stage.into(), false)
    }

    fn join_as(&self, stage: Stage, successor: bool) -> Result<Consumer<E, K>, BuildError> {
        let role = Role { exclusive: false, workers: 0, at_run_time: true, successor };
        let (state, place) = self.core.join(&stage, role)?;
        Ok(Consumer::new(Arc::clone(&self.core), state, place, stage.wait))
    }

    /// Puts another consumer in the place of the stage `old`, whose own one does not answer: joins as
    /// [`join`](Self::join) does, under a name of its own, then [evicts](Self::evict) the old one, whose gate goes at
    /// once or, if it holds a batch, when that ends. In between both gates hold, so that a successor which starts where
    /// the old one stood misses nothing. A closed ring takes successors until all is read.
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
    /// As [`join`](Self::join), but that the ring may be closed. The old stage then stays. If others stand behind it,
    /// it stays as well, beside the new one. That it has gone already is no error.
    pub fn take_over(&self, old: &str, stage: impl Into<Stage>) -> Result<Consumer<E, K>, BuildError> {
        let consumer = self.join_as(stage.into(), true)?;
        let _ = self.core.evict(old);
        Ok(consumer)
    }

    /// Joins while the ring runs, on a thread of its own where `make` makes the handler. Returns the first sequence.
    ///
    /// # Errors
    /// As [`join`](Self::join); and a refused pin, or a thread that the system does not give.
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
        self.held.threads.run(&stage, consumer, move || Events(make()))?;
        Ok(first)
    }

    /// Joins while the ring runs, on a thread of its own, with a handler of whole batches. Returns the first sequence.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_batches<X: Display, F>(
        &self,
        stage: impl Into<Stage>,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Sequence, BuildError>
    where
        E: Send + Sync + 'static,
        F: FnMut(&mut Batch<'_, E, K>) -> Result<(), X> + 'static,
    {
        let stage = stage.into();
        let consumer = self.join(stage.clone())?;
        let first = consumer.first();
        self.held.threads.run(&stage, consumer, move || Spans(make()))?;
        Ok(first)
    }

    /// Takes the gate of a stage away, so that producers need not wait for it any more. Its consumer gets
    /// [`Closed::Evicted`] at its next poll.
    ///
    /// # Errors
    /// Others stand behind it, it is shared by workers, or it holds a batch: then it leaves by itself when that ends.
    pub fn evict(&self, name: &str) -> Result<Sequence, StageError> {
        self.core.evict(name)
    }

    /// The sequence after the last one that was published with all before it: [`positions`](Self::positions) without the
    /// rest, and without an allocation.
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

    /// How many published events there are from `from` on: slots that hold none, since their claim was dropped or
    /// [cut](crate::Closed::Cut), are not counted, as far as the ring still knows them.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Sequence};
    /// let (mut producer, ring) = Builder::multi(8, u64::default).build()?;
    /// drop(producer.claim(2)?);
    /// producer.publish(|event| *event = 7)?;
    /// assert_eq!((ring.published().0, ring.unread(Sequence(0)), ring.unread(Sequence(3))), (3, 1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unread(&self, from: Sequence) -> u64 {
        self.core.unread(from.0)
    }

    /// All positions, at this moment. Takes no lock that a producer or consumer needs.
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
        // The gates first, then what they cannot have passed: no difference comes out negative.
        let set = core.gates.load();
        let consumed: Vec<u64> = set.stages.iter().map(|stage| stage.position(&FOLLOW)).collect();
        // Claims before publications: what is claimed and not published is then so, and never more than the capacity.
        // Once the ring is closed, what is claimed beyond the end is given up again. A single producer's claims count when
        // they are published.
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
            // The gate was read a moment earlier than what is published: it may have moved on since.
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

    /// The memory of the slots: how much, and what became of
    /// [`huge_pages`](crate::Builder::huge_pages) and [`lock_memory`](crate::Builder::lock_memory).
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

    /// Why the ring takes or gives nothing more; none while it is open.
    pub fn closed(&self) -> Option<Closed> {
        self.core.closing.reason()
    }

    /// Arms `waiter` to be woken with `token` when the ring ends, and by nothing else. For whoever has no consumer in it:
    /// [`Consumer::arm_for_end`] hears of an eviction as well. False if the ring has ended already:
    /// [`closed`](Self::closed) says how.
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

impl<E, K: Kind> Drop for Held<E, K> {
    fn drop(&mut self) {
        // Outside of the lock: with a consumer goes a gate, and whoever waits for that is woken.
        let untaken = std::mem::take(&mut *lock(&self.untaken));
        for untaken in untaken {
            if let Untaken::Workers(stage, _) = untaken {
                let unattended = stage.workers.as_ref().is_some_and(|workers| workers.close_if_unattended());
                if unattended {
                    self.core.leave_for_good(&stage, false);
                }
            }
        }
    }
}
