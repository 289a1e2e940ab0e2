//! Handlers: the user's code of a managed stage, and the ways in which it gets a batch.

use crate::access::{Access, Exclusive, Shared};
use crate::batch::Batch;
use crate::kind::Kind;
use crate::outcome::Outcome;
use crate::sequence::Sequence;
use std::fmt::Display;

/// Handles each event of a managed stage. A closure `FnMut(&E, Sequence, bool)` is a handler, and a closure that takes
/// `&mut E` is a handler for a stage that may change events. It returns nothing, or a `Result<(), Error>`: see [`Outcome`].
///
/// A handler is constructed on its stage's thread and stays there, so it need not be `Send`.
///
/// ```
/// use slipring_ring::{Builder, Handler, Sequence};
/// use std::{cell::Cell, rc::Rc, time::Duration};
///
/// struct Sum { total: Rc<Cell<u64>>, flushed: u64 }      // not Send
/// impl Handler<u64> for Sum {
///     type Error = std::convert::Infallible;
///     fn on_event(&mut self, event: &u64, _: Sequence, end_of_batch: bool) -> Result<(), Self::Error> {
///         self.total.set(self.total.get() + event);
///         if end_of_batch { self.flushed = self.total.get(); }
///         Ok(())
///     }
///     fn on_end(&mut self) { assert_eq!(self.flushed, 3); }
/// }
///
/// let mut builder = Builder::single(8, u64::default);
/// builder.run("sum", || Sum { total: Rc::default(), flushed: 0 });
/// let (mut producer, ring) = builder.build()?;
/// producer.publish_batch(3, |index, event| *event = index as u64)?;
/// assert!(ring.shutdown(Duration::from_secs(5)).is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a stage's handler is a closure of an event, its sequence and the end of the batch, or a type that implements `Handler`, not `{Self}`",
    label = "what `make` returns is no handler of such events",
    note = "a stage is started by a closure that makes its handler on the stage's thread: `|| |event: &E, _sequence, _end_of_batch| {{ .. }}`"
)]
pub trait Handler<E, A: Access = Shared> {
    /// The error of this handler. The stage's [`OnError`](crate::OnError) decides what follows it.
    type Error: Display;

    /// Handles an event. `end_of_batch` is true for the last event of the present batch, after which a handler may
    /// flush.
    fn on_event(&mut self, event: A::Event<'_, E>, sequence: Sequence, end_of_batch: bool) -> Result<(), Self::Error>;

    /// Called once when the stage has ended, also after an error or a panic.
    fn on_end(&mut self) {}
}

impl<E, R: Outcome, F: FnMut(&E, Sequence, bool) -> R> Handler<E> for F {
    type Error = R::Error;

    #[inline]
    fn on_event(&mut self, event: &E, sequence: Sequence, end_of_batch: bool) -> Result<(), R::Error> {
        self(event, sequence, end_of_batch).into_result()
    }
}

impl<E, R: Outcome, F: FnMut(&mut E, Sequence, bool) -> R> Handler<E, Exclusive> for F {
    type Error = R::Error;

    #[inline]
    fn on_event(&mut self, event: &mut E, sequence: Sequence, end_of_batch: bool) -> Result<(), R::Error> {
        self(event, sequence, end_of_batch).into_result()
    }
}

/// The way in which a stage's thread processes a batch: event by event, or as a whole.
pub(crate) trait Work<E, K: Kind, A: Access> {
    /// Processes the batch from its position on. After an error or a panic, `culprit` is the sequence of the event that
    /// caused it, or of the first of the events that may have caused it. The batch's position is then after the events
    /// that were iterated.
    fn work(&mut self, batch: &mut Batch<'_, E, K, A>, culprit: &mut Sequence) -> Result<(), String>;

    fn end(&mut self) {}
}

/// The most further events of its batch that a handler gets after the ring was halted.
const HALT_EVERY: u64 = 16;

/// The work of a handler that gets one event at a time.
pub(crate) struct Events<H>(pub(crate) H);

impl<E, K: Kind, A: Access, H: Handler<E, A>> Work<E, K, A> for Events<H> {
    #[inline]
    fn work(&mut self, batch: &mut Batch<'_, E, K, A>, culprit: &mut Sequence) -> Result<(), String> {
        // A long batch is released in parts of a quarter of the capacity, so that producers need not wait for its end.
        let part = batch.capacity() / 4;
        let mut kept = 0;
        loop {
            let Some((sequence, event, last)) = batch.next_event() else { return Ok(()) };
            *culprit = sequence;
            self.0.on_event(event, sequence, last).map_err(|error| error.to_string())?;
            kept += 1;
            if kept > part {
                batch.release();
                kept = 0;
            }
            if kept % HALT_EVERY == 0 && batch.ends_at_once() {
                return Ok(());
            }
        }
    }

    fn end(&mut self) {
        self.0.on_end();
    }
}

/// The work of a handler that gets whole batches.
pub(crate) struct BatchHandler<F>(pub(crate) F);

impl<E, K: Kind, A: Access, R: Outcome, F> Work<E, K, A> for BatchHandler<F>
where
    F: FnMut(&mut Batch<'_, E, K, A>) -> R,
{
    fn work(&mut self, batch: &mut Batch<'_, E, K, A>, culprit: &mut Sequence) -> Result<(), String> {
        *culprit = batch.position();
        (self.0)(batch).into_result().map_err(|error| error.to_string())
    }
}
