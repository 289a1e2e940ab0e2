//! The checks of a publish against the rate limits of its producer and its topic, and for readers where it needs some.

use super::Producer;
use crate::base::kind::Producers;
use crate::base::overload::TopicCounters;
use crate::base::when_full::{WhenFull, nap};
use crate::topic::error::PublishError;
use std::time::Instant;

impl<E, K: Producers> Producer<E, K> {
    /// Finds a reader, if the producer needs one, and takes `events` and `bytes` from the rate limits of the producer and the topic. If one is exceeded, waits until
    /// it allows them; but returns an error if that limit is set to refuse, or if `full` does not allow so long a wait.
    #[cold]
    pub(super) fn admit(&self, full: WhenFull<'_>, events: u64, bytes: u64) -> Result<(), PublishError> {
        self.find_reader(full)?;
        let own = self.limiter.as_deref();
        let mut delayed = false;
        loop {
            let now = self.topic.host.clock.now();
            let own_taken = own.map_or(Ok(()), |own| own.take(now, events, bytes));
            let taken = match (own_taken, &self.topic.limiter) {
                (Err(wait), _) => Err((wait, false)),
                (Ok(()), None) => return Ok(()),
                (Ok(()), Some(topic)) => topic.take(now, events, bytes).map_err(|wait| (wait, true)),
            };
            let Err((wait, of_topic)) = taken else { return Ok(()) };
            if of_topic && let Some(own) = own {
                own.give_back(events, bytes);
            }
            let limiter = if of_topic { self.topic.limiter.as_ref() } else { own };
            let refuse = limiter.is_some_and(|limiter| limiter.limit.refuse);
            let too_late = match full {
                WhenFull::Policy => false,
                WhenFull::Refuse | WhenFull::Later => true,
                WhenFull::Until(deadline) => deadline.saturating_duration_since(Instant::now()) < wait,
                WhenFull::Arm(task) => {
                    if !refuse {
                        task.wake_after(&self.topic.host.timer, wait);
                    }
                    true
                }
            };
            if refuse || too_late {
                if !matches!(full, WhenFull::Later) {
                    TopicCounters::add(&self.topic.counts.limited, events as usize);
                }
                return Err(PublishError::RateLimited { topic: self.topic.name.clone(), of_topic, wait });
            }
            if !std::mem::replace(&mut delayed, true) {
                TopicCounters::add(&self.topic.counts.delayed, events as usize);
            }
            if let Some(reason) = self.topic.closed() {
                return Err(PublishError::Closed { topic: self.topic.name.clone(), reason });
            }
            nap(wait);
        }
    }

    #[cold]
    pub(super) fn give_back(&self, events: u64, bytes: u64) {
        let limiters = [self.limiter.as_deref(), self.topic.limiter.as_ref()];
        limiters.into_iter().flatten().for_each(|limiter| limiter.give_back(events, bytes));
    }
}
