//! Deadlines for time limits that exceed the clock's range.

use crate::sync::Instant;
use std::time::Duration;

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The instant `limit` from now. A limit beyond the clock's range counts as a century.
pub fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).or_else(|| now.checked_add(CENTURY)).unwrap_or(now)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_no_clock_reaches_is_far_away() {
        let a_year = Instant::now() + CENTURY / 100;
        assert!([Duration::MAX, Duration::from_secs(u64::MAX), CENTURY].iter().all(|limit| deadline(*limit) > a_year));
        assert!(deadline(Duration::ZERO) < a_year);
    }
}
