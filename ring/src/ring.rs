//! The handle of a running ring: taking consumers, joining, looking at positions, ending.

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
use crate::report::{Ending, Positions, Report, StagePosition, StageReport};
use crate::sequence::{Sequence, Sequences, ahead, earlier, later};
use crate::stage::{Stage, StageState};
use crate::sync::{Arc, Instant, Mutex, lock};
use crate::wait::Wait;
use crate::worker::Worker;
use std::fmt;
use std::fmt::Display;
use std::time::Duration;

/// A running ring. Cloning it gives another handle of the same ring.
///
/// Dropping the last handle stops nothing: producers and managed stages go on until the producers are gone. Only what
/// was declared and never taken leaves then.
pub struct Ring<E, K: Kind> {
    core: Arc<Core<E, K>>,
    held: Arc<Held<E, K>>,
}

struct Held<E, K: Kind> {
    core: Arc<Core<E, K>>,
    threads: Threads,
    untaken: Mutex<Vec<Untaken<E, K>>>,
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

    /// Takes nothing more. Consumers read what was published before, and are told then. Waits for nobody: a claim that is
    /// out may be committed still, and consumers wait for it, until the ring is [shut down](Self::shutdown),
    /// [halted](Self::halt) or [cut](Self::cut).
    ///
    /// ```
    /// # use slipring_ring::{Builder, Closed};
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.poll("tape");
    /// let (mut producer, ring) = builder.build()?;
    /// let mut tape = ring.consumer("tape")?;
    /// let mut claim = producer.claim(1)?;
    /// ring.close();
    /// assert!(tape.poll(8)?.is_empty(), "not the end yet");
    /// claim[0] = 7;
    /// claim.commit()?;
    /// assert_eq!((&mut tape.poll(8)?).into_iter().count(), 1);
    /// assert_eq!(tape.poll(8).unwrap_err(), Closed::Closed);
    /// assert_eq!(producer.publish(|_| ()), Err(Closed::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.core.end(Phase::Closed, None);
    }

    /// Closes the ring and cuts the claims that are out: their commits are errors ([`Closed::Cut`]), and consumers pass over
    /// them and read what was published behind. Returns the claims that are cut, by now or earlier. Waits for nobody.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Closed, Sequence};
    /// let mut builder = Builder::multi(8, u64::default);
    /// builder.poll("tape");
    /// let (mut producer, ring) = builder.build()?;
    /// let (mut tape, mut other) = (ring.consumer("tape")?, producer.clone());
    /// let stuck = producer.claim(1)?;
    /// other.publish(|event| *event = 7)?;
    /// assert_eq!(ring.cut()[0].first, Sequence(0));
    /// assert_eq!(tape.poll_wait(8)?.position(), Sequence(1));
    /// assert_eq!(stuck.commit(), Err(Closed::Cut));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cut(&self) -> Vec<Sequences> {
        self.close();
        self.core.cut()
    }

    /// Stops everyone at once: consumers are told at their next poll, whatever is left, and claims that are out are cut.
    pub fn halt(&self) -> Report {
        self.core.end(Phase::Halted, None);
        self.report_by(A_MOMENT)
    }

    /// Fails the ring as a stage's handler does: everyone gets this name and cause, and claims that are out are cut.
    pub fn fail(&self, stage: &str, cause: &str) {
        self.core.fail(stage, cause);
    }

    /// Closes the ring and lets its stages read what was published, the polled ones too, until `limit` has passed. Then
    /// [cuts](Self::cut) the claims that are out, and halts the ring if managed stages have not read everything. Reports what
    /// was read and what was not. Never panics, and never waits for the thread that calls it.
    ///
    /// It waits for a polled consumer as long as that lives and has something to read: drop those that you read no more. What
    /// is left to one when the limit has passed counts as unread, and it may read on. If claims were cut, stages get a tenth
    /// of a second for what lies behind them.
    pub fn shutdown(&self, limit: Duration) -> Report {
        self.close();
        if !self.drain(deadline(limit)) {
            let more = if self.core.cut().is_empty() { Duration::ZERO } else { A_MOMENT };
            self.drain(deadline(more));
            if !self.held.threads.wait(deadline(Duration::ZERO)) {
                self.core.end(Phase::Halted, None);
            }
        }
        self.report_by(A_MOMENT)
    }

    /// Waits until no claim of a closed ring is out any more, every stage has read everything or left, and every thread but
    /// the calling one has ended; false if `deadline` comes first.
    pub fn drain(&self, deadline: Instant) -> bool {
        let polled = self.wait_for_polled(deadline);
        self.held.threads.wait(deadline) && polled
    }

    /// What became of the stages by now.
    pub fn report(&self) -> Report {
        let (ended, running) = self.held.threads.join();
        let core = &self.core;
        let members = lock(&core.members).clone();
        let untaken = self.untaken();
        let polled = members.iter().filter(|member| !is_one(&running, member) && !is_one(&ended, member));
        let report = |stage: &Arc<StageState>, ending: Option<Ending>, running: bool| {
            // Beyond the end there are slots of claims that came too late.
            let consumed = earlier(stage.position(&FOLLOW), core.last());
            let left = core.unread(consumed);
            let [_, skipped, lost] = stage.counts.read();
            StageReport { name: stage.name.clone(), consumed: Sequence(consumed), left, skipped, lost, ending, running }
        };
        let ending = |stage: &Arc<StageState>| lock(&stage.ending).clone();
        let polled = polled.map(|stage| match (is_one(&untaken, stage), self.is_done(stage)) {
            (_, true) => report(stage, Some(Ending::Drained), false),
            (true, false) => report(stage, Some(Ending::Untaken), false),
            (false, false) => report(stage, Some(Ending::Unread), stage.is_held()),
        });
        let stages = ended.iter().map(|stage| report(stage, ending(stage), false)).chain(polled);
        let stages = stages.chain(running.iter().map(|stage| report(stage, ending(stage), true)));
        Report { published: Sequence(core.published()), cut: core.cuts(), stages: stages.collect() }
    }

    /// The same, after a moment for threads that are about to end.
    fn report_by(&self, moment: Duration) -> Report {
        self.held.threads.wait(deadline(moment));
        self.report()
    }

    fn untaken(&self) -> Vec<Arc<StageState>> {
        let stage = |untaken: &Untaken<E, K>| match untaken {
            Untaken::Shared(consumer) => Some(Arc::clone(&consumer.stage)),
            Untaken::Exclusive(consumer) => Some(Arc::clone(&consumer.stage)),
            Untaken::Workers(stage, _) => stage.workers.as_ref()?.is_unattended().then(|| Arc::clone(stage)),
        };
        lock(&self.held.untaken).iter().filter_map(stage).collect()
    }

    /// Whether a stage of a closed ring has nothing more to read.
    fn is_done(&self, stage: &StageState) -> bool {
        let core = &self.core;
        let is_settled = core.closing.phase() != Phase::Open && core.published() == core.last();
        is_settled && core.unread(stage.position(&FOLLOW)) == 0
    }

    /// Waits until no claim of a closed ring is out any more; false if `deadline` comes first.
    pub fn settle(&self, deadline: Instant) -> bool {
        let is_settled = || self.core.closing.phase().at_once() || self.core.published() == self.core.last();
        self.wait_for(deadline, Vec::new, is_settled)
    }

    fn wait_for_polled(&self, deadline: Instant) -> bool {
        let is_over = || self.core.closing.phase().at_once() || self.reading().is_empty();
        self.settle(deadline) && self.wait_for(deadline, || self.reading(), is_over) && self.reading().is_empty()
    }

    /// Waits until `is_done`, which changes when these stages move or something is published.
    fn wait_for(
        &self,
        deadline: Instant,
        stages: impl Fn() -> Vec<Arc<StageState>>,
        is_done: impl Fn() -> bool,
    ) -> bool {
        if is_done() {
            return true;
        }
        let waiter = Waiter::new();
        loop {
            let stages = stages();
            let bells = stages.iter().map(|stage| &*stage.bell).chain([&*self.core.bell]);
            bells.clone().for_each(|bell| bell.arm(&waiter, 0));
            Bell::fence(bells, &waiter, 0);
            if is_done() {
                return true;
            }
            if !waiter.park(Some(deadline), |_| ()) {
                return is_done();
            }
            // Each batch and each publish wakes who waits here: not more often than it is worth.
            if cfg!(not(any(loom, shuttle))) {
                waiter.park(Some(deadline.min(self::deadline(A_GLANCE))), |_| ());
            }
        }
    }

    /// The polled stages that somebody has taken and that have something to read.
    fn reading(&self) -> Vec<Arc<StageState>> {
        let (untaken, managed) = (self.untaken(), self.held.threads.stages());
        let mut members = lock(&self.core.members).clone();
        members.retain(|stage| !is_one(&untaken, stage) && !is_one(&managed, stage) && !self.is_done(stage));
        members
    }
}

/// For threads that are about to end.
const A_MOMENT: Duration = Duration::from_millis(100);
/// Between two looks at a stage that reads on.
const A_GLANCE: Duration = Duration::from_millis(1);

fn is_one(stages: &[Arc<StageState>], one: &Arc<StageState>) -> bool {
    stages.iter().any(|stage| Arc::ptr_eq(stage, one))
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

fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    // For ever, or as good as.
    let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(limit).or_else(|| now.checked_add(century)).unwrap_or(now)
}
