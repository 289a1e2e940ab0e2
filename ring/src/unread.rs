//! How a producer learns that no stage reads its ring any more.
//!
//! The members' lock decides, because stages join and leave under it. A thread that waits for the last stage to leave
//! arms its waiter at the end's bell, and then looks at the members under the lock. A thread that removes the last stage
//! under the lock looks for armed waiters afterwards. Whichever thread has the lock second sees what the other one did
//! before: the waiting thread sees that the stage has left, or the leaving thread sees the waiter and wakes it. The end
//! of the ring wakes the waiting thread by the fences of the bell (ARM_FENCE, CLOSE_FENCE).

use crate::bell::Bell;
use crate::closing::{Closed, Phase};
use crate::kind::Kind;
use crate::producer::Producer;
use crate::ring::Ring;
use crate::sequence::ahead;
use crate::sync::{Instant, lock};
use crate::waiter::Waiter;

impl<E, K: Kind> Ring<E, K> {
    /// Count of the stages that gate this ring now: 0 if nobody reads it. Takes the lock under which stages join and leave.
    ///
    /// ```
    /// # use slipring_ring::{Builder, Stage};
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.poll("tape");
    /// let (_producer, ring) = builder.build()?;
    /// assert_eq!(ring.stages(), 1, "a declared stage counts before its consumer is taken");
    /// drop(ring.consumer("tape")?);
    /// assert_eq!(ring.stages(), 0);
    /// let _late = ring.join(Stage::new("late"))?;
    /// assert_eq!(ring.stages(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stages(&self) -> usize {
        lock(&self.core.members).len()
    }
}

impl<E, K: Kind> Producer<E, K> {
    /// True if at least one stage gates this ring. A declared stage counts until its consumer is dropped, also before
    /// the consumer was taken. Events that are published while there is none are read by nobody, except those that the
    /// ring [retains](crate::Builder::retain).
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.poll("tape");
    /// let (producer, ring) = builder.build()?;
    /// let tape = ring.consumer("tape")?;
    /// assert!(producer.is_read());
    /// drop(tape);
    /// assert!(!producer.is_read());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_read(&self) -> bool {
        !lock(&self.core.members).is_empty()
    }

    /// Waits until no stage gates this ring, and returns true; false if `deadline` passes first (`None`: no limit).
    /// Sleeps at once, and costs the ring nothing meanwhile. The ring does not finish before this producer is dropped.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let mut builder = Builder::multi(8, u64::default);
    /// builder.poll("tape");
    /// let (mut producer, ring) = builder.build()?;
    /// let mut tape = ring.consumer("tape")?;
    /// let watch = producer.clone();
    /// let watching = std::thread::spawn(move || watch.wait_until_unread(None));
    /// producer.publish(|event| *event = 42)?;
    /// drop(tape);
    /// assert_eq!(watching.join().unwrap(), Ok(true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The ring ended before the last stage left.
    pub fn wait_until_unread(&self, deadline: Option<Instant>) -> Result<bool, Closed> {
        let waiter = Waiter::new();
        let unread = loop {
            if !self.arm_for_unread(&waiter, 0) {
                break self.unread_or_ended();
            }
            if !waiter.park(deadline, |_| ()) {
                break self.unread_or_ended();
            }
        };
        self.core.end_bell.disarm(&waiter);
        unread
    }

    fn unread_or_ended(&self) -> Result<bool, Closed> {
        match (self.is_read(), self.core.closing.reason()) {
            (false, _) => Ok(true),
            (true, None) => Ok(false),
            (true, Some(closed)) => Err(closed),
        }
    }

    /// Arms `waiter`, that is, registers it for one wake-up with `token` when the last stage leaves or the ring ends.
    /// Returns true if neither has happened yet; false if one has. For threads that wait for several things, and for
    /// tasks: see [`Waiter`]. The waiter may be woken once without need.
    pub fn arm_for_unread(&self, waiter: &Waiter, token: usize) -> bool {
        self.core.end_bell.arm(waiter, token);
        Bell::fence(std::iter::once(&self.core.end_bell), waiter, token);
        self.is_read() && self.core.closing.phase() == Phase::Open
    }

    /// Count of slots that are missing for a claim of `len` slots; 0 if there is room. Exact after a claim of `len` slots
    /// was refused for want of room. Otherwise it may be too high, because the positions of the stages are not read
    /// again.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.poll("slow");
    /// let (mut producer, _ring) = builder.build()?;
    /// producer.publish_batch(6, |_, _| ())?;
    /// assert!(producer.try_claim(5).is_err());
    /// assert_eq!(producer.missing(5), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn missing(&self, len: usize) -> usize {
        let room = ahead(self.limit, K::next(self)).max(0) as u64;
        (len as u64).saturating_sub(room) as usize
    }
}
