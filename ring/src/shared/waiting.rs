//! The wait loop of the participants: it looks, passes time as the wait strategy says, sleeps as [`super::bell`]
//! describes, and every 10 milliseconds looks for what rings no bell: the death of other participants.

use super::bell::{Bell, LONGEST_SLEEP};
use crate::fault::{Fault, fault};
use crate::sync::Instant;
use crate::wait::{Idle, Wait};
use std::time::Duration;

/// What a participant waits for.
pub(crate) trait Condition {
    type Found;
    type Error;

    /// The bell that rings when the condition may have changed.
    fn bell(&self) -> &Bell;

    /// Looks once.
    fn look(&mut self) -> Result<Option<Self::Found>, Self::Error>;

    /// Looks for deaths. Called every 10 milliseconds of waiting.
    fn tick(&mut self) -> Result<(), Self::Error>;
}

/// Waits until a look finds something. `None` if `deadline` passes first.
pub(crate) fn until<C: Condition>(
    wait: &Wait,
    deadline: Option<Instant>,
    condition: &mut C,
) -> Result<Option<C::Found>, C::Error> {
    let left = |now: Instant| deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
    let (mut looks, mut ticked) = (0u32, Instant::now());
    loop {
        if let Some(found) = condition.look()? {
            return Ok(Some(found));
        }
        looks = looks.saturating_add(1);
        let idle = wait.idle(looks);
        if idle == Idle::Sleep {
            let bell: *const Bell = condition.bell();
            let rings = condition.bell().arm();
            if !fault(Fault::SharedSleepWithoutASecondLook)
                && let Some(found) = condition.look()?
            {
                return Ok(Some(found));
            }
            // The second look may have found that something else holds it up by now, for which another bell rings.
            if !std::ptr::eq(bell, condition.bell()) && !fault(Fault::SharedSleepAtTheBellOfTheLastBefore) {
                continue;
            }
            let left = left(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            condition.bell().sleep(rings, left);
        }
        // Reading the clock costs about as much as a look, so a thread that spins reads it at every 64th look only.
        if idle == Idle::Sleep || looks.is_multiple_of(64) || cfg!(shuttle) {
            let now = Instant::now();
            if left(now).is_zero() {
                return condition.look();
            }
            // Time stands still in a loom model, and nobody dies there unless the model says so.
            if !cfg!(loom) && now.saturating_duration_since(ticked) >= LONGEST_SLEEP {
                condition.tick()?;
                ticked = now;
            }
        }
    }
}
