//! What a handler may return.

use std::convert::Infallible;
use std::fmt::Display;

/// What a handler returns: nothing if it cannot fail, or a [`Result`] whose error says why it has failed.
///
/// ```
/// # use slipring_ring::Builder;
/// # use std::time::Duration;
/// let mut builder = Builder::single(8, u64::default);
/// builder.run("print", || |tick: &u64, _, _| println!("{tick}"));
/// builder.run("check", || |tick: &u64, _, _| if *tick < 100 { Ok(()) } else { Err("too large") });
/// let (mut producer, ring) = builder.build()?;
/// producer.publish(|tick| *tick = 42)?;
/// assert!(ring.shutdown(Duration::from_secs(5)).is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler returns `()` or a `Result<(), X>` whose error can be displayed, not `{Self}`",
    label = "this handler's result is `{Self}`",
    note = "end the handler with `Ok(())`, or with a semicolon if it cannot fail"
)]
pub trait Outcome {
    /// The error, whose text is kept as the cause.
    type Error: Display + 'static;

    /// The outcome as a result.
    ///
    /// # Errors
    /// The handler has failed.
    fn into_result(self) -> Result<(), Self::Error>;
}

impl Outcome for () {
    type Error = Infallible;

    #[inline]
    fn into_result(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<X: Display + 'static> Outcome for Result<(), X> {
    type Error = X;

    #[inline]
    fn into_result(self) -> Self {
        self
    }
}
