//! Backoff: how long a failed message or batch waits before its next attempt.

use std::fmt;
use std::time::Duration;

/// The delay before a message of a [queue](crate::queue) is leased again, or a subscriber or member of a group handles a
/// batch [again](crate::subscriber::SubscriberBuilder::retry_batch), as a function of the number of attempts so far. In a
/// queue it applies after an expired or dropped lease and after [`Lease::retry`](crate::queue::Lease::retry). A
/// [`nack`](crate::queue::Lease::nack) has a delay of its own.
///
/// ```
/// use slipring::queue::Backoff;
/// use std::time::Duration;
/// let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(10));
/// let delays: Vec<u64> = (1..=5).map(|attempt| backoff.delay(attempt).as_secs()).collect();
/// assert_eq!(delays, [1, 2, 4, 8, 10]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// No delay.
    pub const NONE: Self = Self { first: Duration::ZERO, longest: Duration::ZERO };

    /// Returns a backoff with the same delay after each attempt.
    pub const fn fixed(delay: Duration) -> Self {
        Self { first: delay, longest: delay }
    }

    /// Returns a backoff with the delay `first` after the first attempt, doubled after each further attempt, up to
    /// `longest`.
    pub const fn exponential(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The delay after the attempt with this number. The first attempt has the number 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            &Self::NONE => f.write_str("at once"),
            Self { first, longest } if first >= longest => write!(f, "after {longest:?}"),
            Self { first, longest } => write!(f, "after {first:?}, doubled up to {longest:?}"),
        }
    }
}
