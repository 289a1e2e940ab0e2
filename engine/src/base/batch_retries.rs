//! Retries of whole batches: which batches of a thread's partitions have failed, and the wait before each next attempt.

use crate::base::alarm::Alarm;
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::timer::Timer;
use crate::base::when_full::nap;
use slipring_ring::Waiter;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often a batch on which the handler has failed is handled again, and the delay before each further attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryLimit {
    pub(crate) retries: u32,
    pub(crate) backoff: Backoff,
}

/// The batches of one thread that have failed and are to be handled again. `P` identifies a partition.
pub(crate) struct BatchRetries<P> {
    limit: RetryLimit,
    alarm: Alarm,
    waiter: Arc<Waiter>,
    failed: Vec<FailedBatch<P>>,
}

/// A batch that is to be handled again: the events from the offset `first` on.
struct FailedBatch<P> {
    partition: P,
    first: u64,
    /// Count of events.
    len: usize,
    /// Count of attempts so far.
    attempts: u32,
    /// The time of the engine's clock at which the next attempt is due.
    due: Duration,
}

/// The next attempt at a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextAttempt {
    /// The attempt's number, from 1 on.
    pub(crate) number: u32,
    /// The greatest count of events of this attempt: that of the first one. `usize::MAX` for the first.
    pub(crate) limit: usize,
}

/// What a thread finds that prepares to wait for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The waiter is registered, and will be woken by what ends the wait early.
    Awaited,
    /// The wait is over early, as the thread has something else to do.
    Now,
    /// Nothing would wake the waiter, so the thread checks again every few milliseconds.
    Unannounced,
}

impl<P: PartialEq> BatchRetries<P> {
    /// Starts the timer, unless it runs already. An error if its thread cannot be started.
    pub(crate) fn new(limit: RetryLimit, timer: &Arc<Timer>, clock: &Arc<dyn Clock>) -> io::Result<Self> {
        timer.start()?;
        let alarm = Alarm::new(Arc::clone(timer), Arc::clone(clock));
        Ok(Self { limit, alarm, waiter: Arc::new(Waiter::new()), failed: Vec::new() })
    }

    fn failed(&self, partition: &P, first: u64) -> Option<&FailedBatch<P>> {
        self.failed.iter().find(|failed| failed.partition == *partition && failed.first == first)
    }

    /// The next attempt at the batch of this partition that begins at the offset `first`.
    pub(crate) fn attempt(&self, partition: &P, first: u64) -> NextAttempt {
        match self.failed(partition, first) {
            Some(failed) => NextAttempt { number: failed.attempts + 1, limit: failed.len },
            None => NextAttempt { number: 1, limit: usize::MAX },
        }
    }

    /// Records that an attempt at a batch of `len` events has failed. Returns true if there is another attempt, after a
    /// delay; false if the batch has had all of them.
    pub(crate) fn fail(&mut self, partition: P, first: u64, len: usize) -> bool {
        let attempts = self.attempt(&partition, first).number;
        self.forget(&partition);
        if attempts > self.limit.retries {
            return false;
        }
        let due = self.alarm.clock().now().saturating_add(self.limit.backoff.delay(attempts));
        self.failed.push(FailedBatch { partition, first, len, attempts, due });
        true
    }

    /// Forgets the failed batch of this partition, if it has one.
    pub(crate) fn forget(&mut self, partition: &P) {
        self.failed.retain(|failed| failed.partition != *partition);
    }

    /// Waits until the next attempt at this batch is due, and returns true. False if the wait was interrupted before.
    /// `interrupted` registers the waiter for what interrupts the wait. Returns at once for a batch that has not failed.
    pub(crate) fn wait(
        &mut self,
        partition: &P,
        first: u64,
        mut interrupted: impl FnMut(&Arc<Waiter>) -> Interruption,
    ) -> bool {
        let Some(due) = self.failed(partition, first).map(|failed| failed.due) else { return true };
        if self.alarm.clock().now() >= due {
            return true;
        }
        self.alarm.set(due);
        let is_due = loop {
            match interrupted(&self.waiter) {
                Interruption::Now => break false,
                _ if !self.alarm.arm(&self.waiter, 0) => break true,
                Interruption::Awaited => _ = self.waiter.park(None, |_| ()),
                Interruption::Unannounced => nap(Duration::MAX),
            }
        };
        self.alarm.clear();
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    #[test]
    fn each_partition_has_its_attempts_and_delays() {
        let clock = ManualClock::new();
        let (system, second): (Arc<dyn Clock>, _) = (Arc::new(clock.clone()), Duration::from_secs(1));
        let timer = Arc::new(Timer::new(Arc::clone(&system)));
        let backoff = Backoff::exponential(second, 10 * second);
        let mut retries = BatchRetries::new(RetryLimit { retries: 2, backoff }, &timer, &system).unwrap();
        assert_eq!(retries.attempt(&'a', 7), NextAttempt { number: 1, limit: usize::MAX });
        assert!(retries.fail('a', 7, 3) && retries.fail('b', 7, 1));
        assert_eq!(retries.attempt(&'a', 7), NextAttempt { number: 2, limit: 3 });
        assert_eq!(retries.attempt(&'a', 8), NextAttempt { number: 1, limit: usize::MAX }, "another batch");
        assert!(!retries.wait(&'a', 7, |_| Interruption::Now), "not yet");
        assert!(retries.wait(&'a', 8, |_| panic!("nothing to wait for")));
        // The second retry comes two seconds after the second failure.
        clock.advance(second);
        assert!(retries.fail('a', 7, 3));
        let mut looks = 0;
        let waited = retries.wait(&'a', 7, |_| {
            clock.advance(second);
            looks += 1;
            Interruption::Unannounced
        });
        assert_eq!((waited, looks), (true, 2));
        assert!(retries.wait(&'a', 7, |_| panic!("it is due")));
        assert!(!retries.fail('a', 7, 3), "the third failure was the last");
        assert_eq!(retries.attempt(&'a', 7).number, 1);
        assert_eq!(retries.attempt(&'b', 7).number, 2);
        retries.forget(&'b');
        assert_eq!(retries.attempt(&'b', 7).number, 1);
    }
}
