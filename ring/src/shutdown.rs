//! The ways to end a ring from its handle, and the report of what was read.

use crate::bell::{Bell, Waiter};
use crate::closing::Phase;
use crate::deadline::deadline;
use crate::kind::Kind;
use crate::ordering::{FOLLOW, LOOK_AT_STAGE};
use crate::report::{Ending, Report, StageReport};
use crate::ring::{Ring, Untaken};
use crate::sequence::{Sequence, Sequences, earlier};
use crate::stage::StageState;
use crate::sync::{Arc, Instant, lock};
use std::time::Duration;

/// For threads that are about to end, and for what lies behind a claim that was cut.
const A_MOMENT: Duration = Duration::from_millis(100);
/// Between two looks at a stage that reads on.
const A_GLANCE: Duration = Duration::from_millis(1);

fn is_one(stages: &[Arc<StageState>], one: &Arc<StageState>) -> bool {
    stages.iter().any(|stage| Arc::ptr_eq(stage, one))
}

impl<E, K: Kind> Ring<E, K> {
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

    /// Closes the ring and cuts the claims that are out: their commits are errors ([`Closed::Cut`](crate::Closed::Cut)), and
    /// consumers pass over them and read what was published behind. Returns the claims that are cut, by now or earlier. Waits
    /// for nobody.
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
            let consumed = earlier(stage.position(&LOOK_AT_STAGE), core.last());
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
                waiter.park(Some(deadline.min(crate::deadline::deadline(A_GLANCE))), |_| ());
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
