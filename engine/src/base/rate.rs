//! Rate limits of producers and topics: token buckets on the engine's clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The greatest count of events and of bytes that may be published per second, by one producer
/// ([`ProducerBuilder::rate_limit`](crate::producer::ProducerBuilder::rate_limit)) or into one topic
/// ([`TopicBuilder::rate_limit`](crate::TopicBuilder::rate_limit)).
///
/// Each limit is a token bucket that fills at its rate, up to its burst. A publish takes a token per event or byte. A
/// publish of more than the burst is allowed when the bucket is full; the bucket's level is then negative, so later
/// publishes wait longer and the rate holds on average. A publish that finds too few tokens waits, or, with
/// [`refuse`](Self::refuse), returns an error.
///
/// ```
/// use slipring::{Engine, clock::ManualClock, producer::PublishError, topic::RateLimit};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let engine = Engine::builder().clock(clock.clone()).build()?;
/// let limit = RateLimit::new().events(10, 2).refuse();            // 10 per second, bursts of 2
/// let ticks = engine.topic::<u64>("ticks").rate_limit(limit).create()?;
/// let mut producer = ticks.producer().create()?;
/// producer.publish(|tick| *tick = 1)?;
/// producer.publish(|tick| *tick = 2)?;
/// assert!(matches!(producer.publish(|_| ()), Err(PublishError::RateLimited { .. })));
/// clock.advance(Duration::from_millis(100));
/// producer.publish(|tick| *tick = 3)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    events: Option<Rate>,
    bytes: Option<Rate>,
    pub(crate) refuse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    per_second: u64,
    burst: u64,
}

impl RateLimit {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits events to `per_second` events a second on average, with bursts of up to `burst` events. 0 counts as 1 in
    /// both.
    pub fn events(mut self, per_second: u64, burst: u64) -> Self {
        self.events = Some(Rate { per_second: per_second.max(1), burst: burst.max(1) });
        self
    }

    /// Limits bytes to `per_second` bytes a second on average, with bursts of up to `burst` bytes. 0 counts as 1 in
    /// both. A message counts with its [`Record::size`](crate::Record::size), any other event with the size of its
    /// type.
    pub fn bytes(mut self, per_second: u64, burst: u64) -> Self {
        self.bytes = Some(Rate { per_second: per_second.max(1), burst: burst.max(1) });
        self
    }

    /// Makes a publish that exceeds a limit return an error with the time until it would succeed. By default the
    /// publish waits.
    pub fn refuse(mut self) -> Self {
        self.refuse = true;
        self
    }
}

/// One token in the units of [`Bucket`]'s level. A bucket gains `per_second` units per nanosecond, so the arithmetic is
/// exact in whole numbers.
const TOKEN: i128 = 1_000_000_000;

pub(crate) struct Limiter {
    pub(crate) limit: RateLimit,
    buckets: Mutex<[Option<Bucket>; 2]>,
}

struct Bucket {
    rate: Rate,
    /// The level, of which [`TOKEN`] units are one token; negative after a publish of more than the burst.
    tokens: i128,
    /// The time for which `tokens` is the level, by the engine's clock.
    at: Duration,
}

impl Limiter {
    /// Creates a limiter with full buckets. `now` is the present time of the engine's clock.
    pub(crate) fn new(limit: RateLimit, now: Duration) -> Self {
        let full = |rate: Rate| Bucket { rate, tokens: i128::from(rate.burst) * TOKEN, at: now };
        Self { limit, buckets: Mutex::new([limit.events.map(full), limit.bytes.map(full)]) }
    }

    /// Takes the tokens of a publish of `events` events and `bytes` bytes. If a bucket has too few, takes none, and
    /// returns the time until there are enough as the error.
    pub(crate) fn take(&self, now: Duration, events: u64, bytes: u64) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wait = Duration::ZERO;
        for (bucket, needs) in buckets.iter_mut().zip([events, bytes]) {
            if let Some(bucket) = bucket {
                bucket.fill(now);
                wait = wait.max(bucket.wait(needs));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        for (bucket, needs) in buckets.iter_mut().zip([events, bytes]) {
            if let Some(bucket) = bucket {
                bucket.tokens -= i128::from(needs) * TOKEN;
            }
        }
        Ok(())
    }

    /// Puts back the tokens of a publish that took them and then failed.
    pub(crate) fn give_back(&self, events: u64, bytes: u64) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for (bucket, needed) in buckets.iter_mut().zip([events, bytes]) {
            if let Some(bucket) = bucket {
                bucket.tokens += i128::from(needed) * TOKEN;
            }
        }
    }
}

impl Bucket {
    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_nanos() as i128;
        let most = i128::from(self.rate.burst) * TOKEN;
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(i128::from(self.rate.per_second))).min(most);
        self.at = self.at.max(now);
    }

    fn wait(&self, needs: u64) -> Duration {
        let needs = i128::from(needs.min(self.rate.burst)) * TOKEN;
        let missing = (needs - self.tokens).max(0) as u128;
        let nanos = missing.div_ceil(u128::from(self.rate.per_second));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let limiter = Limiter::new(RateLimit::new().events(1000, 3), ms(5));
        assert!((0..3).all(|_| limiter.take(ms(5), 1, 9).is_ok()));
        assert_eq!(limiter.take(ms(5), 1, 9), Err(ms(1)));
        assert_eq!(limiter.take(ms(6), 2, 9), Err(ms(1)));
        assert_eq!(limiter.take(ms(6), 1, 9), Ok(()));
        // However much time passes, the bucket never has more than its burst.
        assert_eq!(limiter.take(ms(9000), 3, 9), Ok(()));
        assert_eq!(limiter.take(ms(9000), 1, 9), Err(ms(1)));
        limiter.give_back(1, 9);
        assert_eq!(limiter.take(ms(9000), 1, 9), Ok(()));
    }

    #[test]
    fn both_limits_hold_and_a_refusal_takes_from_neither() {
        let limiter = Limiter::new(RateLimit::new().events(10, 2).bytes(1000, 100), ms(0));
        assert_eq!(limiter.take(ms(0), 1, 100), Ok(()));
        assert_eq!(limiter.take(ms(0), 1, 50), Err(ms(50)));
        assert_eq!(limiter.take(ms(50), 1, 50), Ok(()));
        assert_eq!(limiter.take(ms(50), 1, 0), Err(ms(50)));
    }

    #[test]
    fn what_is_larger_than_the_burst_is_paid_for_afterwards() {
        let limiter = Limiter::new(RateLimit::new().events(1000, 10), ms(0));
        assert_eq!(limiter.take(ms(0), 50, 0), Ok(()));
        assert_eq!(limiter.take(ms(0), 1, 0), Err(ms(41)));
        assert_eq!(limiter.take(ms(41), 1, 0), Ok(()));
    }

    #[test]
    fn no_rate_or_time_overflows() {
        let limiter = Limiter::new(RateLimit::new().events(u64::MAX, u64::MAX).bytes(1, 1), Duration::ZERO);
        assert_eq!(limiter.take(Duration::ZERO, u64::MAX, u64::MAX), Ok(()));
        assert!(limiter.take(Duration::ZERO, 1, 1).unwrap_err() > ms(1000));
        assert!(limiter.take(Duration::from_secs(u64::MAX), 1, 1).is_ok());
    }
}
