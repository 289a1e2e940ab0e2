//! The methods that end a ring, and the report of the read and unread events.

use crate::bell::Bell;
use crate::closing::Phase;
use crate::deadline::deadline;
use crate::kind::Kind;
use crate::ordering::{FOLLOW, LOOK_AT_STAGE};
use crate::report::{Ending, Report, StageReport};
use crate::ring::{Ring, UntakenStage};
use crate::sequence::{Sequence, Sequences, earlier};
use crate::stage::StageState;
use crate::sync::{Arc, Instant, lock};
use crate::waiter::Waiter;
use std::time::Duration;

/// The time given to threads that are about to end, and to stages for the events after a cut claim.
const A_MOMENT: Duration = Duration::from_millis(100);
/// The time between two checks of a stage that still reads events.
const A_GLANCE: Duration = Duration::from_millis(1);

fn is_one(stages: &[Arc<StageState>], one: &Arc<StageState>) -> bool {
    stages.iter().any(|stage| Arc::ptr_eq(stage, one))
}

impl<E, K: Kind> Ring<E, K> {
    /// Closes the ring: it accepts no more claims, and consumers get an error after they have read all published
    /// events. Does not wait. An uncommitted claim may still be committed, and consumers wait for it, until the ring is
    /// [shut down](Self::shutdown), [halted](Self::halt) or [cut](Self::cut).
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

    /// Closes the ring and cuts all uncommitted claims: their commits return [`Closed::Cut`](crate::Closed::Cut), and
    /// consumers skip them and read the events after them. Returns all claims that were cut, by this call or before.
    /// Does not wait.
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
        self.core.cut(&[])
    }

    /// Stops the ring at once: consumers get an error at their next poll, even if events are unread, and uncommitted
    /// claims are cut. Waits at most 100 ms for the threads of managed stages, and returns the report.
    pub fn halt(&self) -> Report {
        self.core.end(Phase::Halted, None);
        self.report_by(A_MOMENT)
    }

    /// Fails the ring as an error of the handler of `stage` does: all producers and consumers get the stage's name and
    /// `cause`, and uncommitted claims are cut.
    pub fn fail(&self, stage: &str, cause: &str) {
        self.core.fail(stage, cause);
    }

    /// Closes the ring and lets all its stages, polled ones included, read the published events until `limit` has
    /// passed. Then [cuts](Self::cut) uncommitted claims, and halts the ring if managed stages have not ended. Returns
    /// a report of read and unread events. Never panics, and never waits for the calling thread, unless that thread holds
    /// a claim, for instance inside the closure that fills an event: then the claim is waited for until `limit`.
    ///
    /// A polled consumer that exists and has unread events is waited for, so drop consumers that you no longer read.
    /// Events that a polled consumer has not read within the limit count as unread, and the consumer may still read
    /// them. If claims were cut, stages get another 100 ms for the events after them.
    pub fn shutdown(&self, limit: Duration) -> Report {
        self.close();
        if !self.drain(deadline(limit)) {
            let more = if self.core.cut(&[]).is_empty() { Duration::ZERO } else { A_MOMENT };
            self.drain(deadline(more));
            if !self.shared.threads.wait(deadline(Duration::ZERO)) {
                self.core.end(Phase::Halted, None);
            }
        }
        self.report_by(A_MOMENT)
    }

    /// Waits until a closed ring has no uncommitted claim, every polled stage has read everything or left, and the
    /// thread of every managed stage, except the calling thread, has ended. False if `deadline` passes first, or if the
    /// ring is halted or fails while a polled stage has unread events.
    pub fn drain(&self, deadline: Instant) -> bool {
        let polled = self.wait_for_polled(deadline);
        self.shared.threads.wait(deadline) && polled
    }

    /// The report of the ring at this moment. Joins the threads that have ended.
    pub fn report(&self) -> Report {
        let (ended, running) = self.shared.threads.join();
        let core = &self.core;
        let members = lock(&core.members).clone();
        let untaken = self.untaken();
        let polled = members.iter().filter(|member| !is_one(&running, member) && !is_one(&ended, member));
        let report = |stage: &Arc<StageState>, ending: Option<Ending>, running: bool| {
            // A stage may have passed slots beyond the end, whose claims came after the close.
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
        // Read after the members: a stage is noted before it leaves.
        let known = |stage: &Arc<StageState>| [&members, &ended, &running].iter().any(|of| is_one(of, stage));
        let stopped = core.stopped();
        let reason =
            || Some(Ending::Stopped(core.closing.reason().map_or_else(String::new, |closed| closed.to_string())));
        let stopped = stopped.iter().filter(|stage| !known(stage)).map(|stage| report(stage, reason(), false));
        let stages = stages.chain(stopped);
        Report {
            published: Sequence(core.published()),
            cut: core.cuts(),
            unfenced: core.unfenced(),
            stages: stages.collect(),
        }
    }

    /// Waits at most `moment` for threads that are about to end, and returns the report.
    fn report_by(&self, moment: Duration) -> Report {
        self.shared.threads.wait(deadline(moment));
        self.report()
    }

    fn untaken(&self) -> Vec<Arc<StageState>> {
        let stage = |untaken: &UntakenStage<E, K>| match untaken {
            UntakenStage::Shared(consumer) => Some(Arc::clone(&consumer.stage)),
            UntakenStage::Exclusive(consumer) => Some(Arc::clone(&consumer.stage)),
            UntakenStage::Workers(stage, _) => stage.workers.as_ref()?.is_unattended().then(|| Arc::clone(stage)),
        };
        lock(&self.shared.untaken).iter().filter_map(stage).collect()
    }

    /// True if the ring is not open, has no uncommitted claim, and the stage has no unread event.
    fn is_done(&self, stage: &StageState) -> bool {
        let core = &self.core;
        let is_settled = core.closing.phase() != Phase::Open && core.published() == core.last();
        is_settled && core.unread(stage.position(&FOLLOW)) == 0
    }

    /// Waits until a closed ring has no uncommitted claim. True if so, also if the ring was halted or has failed; false
    /// if `deadline` passes first.
    pub fn settle(&self, deadline: Instant) -> bool {
        let is_settled = || self.core.closing.phase().at_once() || self.core.published() == self.core.last();
        self.wait_for(deadline, Vec::new, is_settled)
    }

    fn wait_for_polled(&self, deadline: Instant) -> bool {
        let is_over = || self.core.closing.phase().at_once() || self.reading().is_empty();
        self.settle(deadline) && self.wait_for(deadline, || self.reading(), is_over) && self.reading().is_empty()
    }

    /// Waits until `is_done` returns true: calls it again when a stage of `stages` moves or an event is published,
    /// after 1 ms at the earliest. False if `deadline` passes first.
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
            // Every batch and every publish wakes this thread, so it sleeps 1 ms between two checks.
            if cfg!(not(any(loom, shuttle))) {
                waiter.park(Some(deadline.min(crate::deadline::deadline(A_GLANCE))), |_| ());
            }
        }
    }

    /// The polled stages whose consumers were taken and have unread events. Managed stages and untaken ones are not
    /// among them.
    fn reading(&self) -> Vec<Arc<StageState>> {
        let (untaken, managed) = (self.untaken(), self.shared.threads.stages());
        let mut members = lock(&self.core.members).clone();
        members.retain(|stage| !is_one(&untaken, stage) && !is_one(&managed, stage) && !self.is_done(stage));
        members
    }
}
