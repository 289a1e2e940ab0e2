//! Room: the free slots that a producer waits for.
//!
//! A waiting producer is registered at the bell (see [`crate::bell`]) of the stage that is in its way. When that stage
//! moves, the producer looks again, and another stage may be in its way then. A look either claims the slots or, for a
//! thread that waits for several things, only reads the gates. Both read the same positions and are woken by the same
//! bells, so stages and other producers execute nothing more for the second kind. Models: `wake`, `arm` in loom-tests.

use crate::closing::Closed;
use crate::error::ClaimError;
use crate::kind::Kind;
use crate::ordering::LOOK_AT_STAGE;
use crate::producer::Producer;
use crate::sequence::ahead;
use crate::sync::Arc;
use crate::waiter::Waiter;
use crate::waiting::{Bells, Look, arm};

impl<E, K: Kind> Producer<E, K> {
    /// True if there is room for `len` slots, which are not claimed. A single producer's next claim of so many slots
    /// finds this room, unless the ring ends. Another producer may take it first in a ring of several.
    ///
    /// ```
    /// # use slipring_ring::Builder;
    /// let mut builder = Builder::single(8, u64::default);
    /// builder.poll("slow");
    /// let (mut producer, _ring) = builder.build()?;
    /// producer.publish_batch(6, |_, _| ())?;
    /// assert!(producer.has_room(2)?);
    /// assert!(!producer.has_room(3)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `len` is 0 or can never fit, or the ring is closed, finished or failed.
    pub fn has_room(&mut self, len: usize) -> Result<bool, ClaimError> {
        self.check(len)?;
        match self.core.closing.reason() {
            Some(closed) => Err(closed.into()),
            None => Ok(self.fits(len as u64)),
        }
    }

    /// Registers `waiter` for one wake-up with `token` when there may be room for `len` slots, or the ring ends, and
    /// returns true. False if there is room by now; the waiter may then be woken once without need. For threads that
    /// wait for several things: see [`Waiter`]. No slot is claimed, and a thread that publishes or reads does no more
    /// than for a producer that waits in [`claim`](Self::claim).
    ///
    /// ```
    /// # use slipring_ring::{Builder, Waiter};
    /// let mut builder = Builder::multi(1, u64::default);
    /// builder.poll("slow");
    /// let (mut producer, ring) = builder.build()?;
    /// let mut slow = ring.consumer("slow")?;
    /// let waiter = Waiter::new();
    /// assert!(!producer.arm_for_room(1, &waiter, 7)?, "there is room");
    /// producer.publish(|_| ())?;
    /// assert!(producer.arm_for_room(1, &waiter, 7)?);
    /// (&mut slow.poll(1)?).into_iter().for_each(drop);
    /// waiter.park(None, |token| assert_eq!(token, 7));
    /// assert!(producer.has_room(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`has_room`](Self::has_room).
    pub fn arm_for_room(&mut self, len: usize, waiter: &Waiter, token: usize) -> Result<bool, ClaimError> {
        self.check(len)?;
        match arm(&mut FreeLook { producer: self, len: len as u64 }, waiter, token) {
            None => Ok(true),
            Some(Ok(())) => Ok(false),
            Some(Err(closed)) => Err(closed.into()),
        }
    }

    fn fits(&mut self, len: u64) -> bool {
        let fits = |producer: &Self| ahead(producer.limit, K::next(producer)) >= len as i64;
        fits(self) || {
            K::refresh(self);
            fits(self)
        }
    }

    /// The bell of the slowest stage, if that stage leaves too little room for `len` slots; the producers' bell if the
    /// room depends on another producer's uncommitted claim. `None` if there is room now.
    fn bells_of_room(&self, len: u64) -> Option<Bells> {
        let core = &self.core;
        let claimed = K::next(self);
        let blocks = |gate: u64| ahead(gate.wrapping_add(core.capacity()), claimed) < len as i64;
        let bell = match self.known.lowest(&LOOK_AT_STAGE) {
            Some((gate, stage)) if blocks(gate) => &stage.bell,
            _ if blocks(core.floor()) => &core.bell,
            _ => return None,
        };
        Some([Some(Arc::clone(bell)), None])
    }
}

/// A producer's search for room: claims `len` slots, and finds nothing while there is not enough room.
pub(crate) struct RoomLook<'p, E, K: Kind> {
    pub(crate) producer: &'p mut Producer<E, K>,
    pub(crate) len: u64,
}

impl<E, K: Kind> Look for RoomLook<'_, E, K> {
    type Found = Result<u64, Closed>;

    fn look(&mut self) -> Option<Self::Found> {
        match self.producer.claim_now(self.len) {
            Some(first) => Some(Ok(first)),
            None => self.producer.core.closing.reason().map(Err),
        }
    }

    fn bells(&mut self) -> Option<Bells> {
        self.producer.bells_of_room(self.len)
    }
}

/// As [`RoomLook`], without a claim.
struct FreeLook<'p, E, K: Kind> {
    producer: &'p mut Producer<E, K>,
    len: u64,
}

impl<E, K: Kind> Look for FreeLook<'_, E, K> {
    type Found = Result<(), Closed>;

    fn look(&mut self) -> Option<Self::Found> {
        match self.producer.fits(self.len) {
            true => Some(Ok(())),
            false => self.producer.core.closing.reason().map(Err),
        }
    }

    fn bells(&mut self) -> Option<Bells> {
        self.producer.bells_of_room(self.len)
    }
}
