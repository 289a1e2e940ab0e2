//! Panics of code that is not ours: caught, put into words, and blamed on whoever raised them.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread_local;

thread_local! {
    /// What the panic that unwinds this thread came out of, where that is known. A stage's own handler is not named.
    static CULPRIT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// A panic that was caught. Displays as `panicked: <message>`, or as `the waiting strategy panicked: <message>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    culprit: Option<&'static str>,
    message: String,
}

impl Panic {
    /// What the panic said: its message, behind the culprit if that is known.
    pub fn said(&self) -> String {
        match self.culprit {
            Some(_) => self.to_string(),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.culprit {
            Some(culprit) => write!(f, "{culprit} panicked: {}", self.message),
            None => write!(f, "panicked: {}", self.message),
        }
    }
}

/// Runs `work`, and returns its panic as an error.
pub fn caught<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    // Of a panic that unwinds this thread while a destructor runs `work`.
    let outer = CULPRIT.take().filter(|_| std::thread::panicking());
    let done = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let caught = Panic { culprit: CULPRIT.take(), message: message(&*panic) };
        // What was thrown may panic once more when it is dropped. What that throws is left alone.
        if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(panic))) {
            std::mem::forget(again);
        }
        caught
    });
    if outer.is_some() {
        CULPRIT.set(outer);
    }
    done
}

thread_local! {
    /// This thread is in a stage's work, which answers for panics by failing its ring.
    static IS_ANSWERED: Cell<bool> = const { Cell::new(false) };
}

/// [`caught`] for a stage's work: the stage answers also for panics of others' code that it came to run.
pub(crate) fn caught_by_stage<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    IS_ANSWERED.set(true);
    let done = caught(work);
    IS_ANSWERED.set(false);
    done
}

/// Whether a stage answers for what panics on this thread now.
pub(crate) fn is_answered() -> bool {
    IS_ANSWERED.get()
}

/// Runs `work`, code of the user's that is no handler. A panic of it goes on, and [`caught`] names it: `culprit` is
/// who panics, as in "the clock". Costs nothing unless it panics.
#[inline(always)]
pub fn blaming<R>(culprit: &'static str, work: impl FnOnce() -> R) -> R {
    let blame = Blame(culprit);
    let done = work();
    std::mem::forget(blame);
    done
}

struct Blame(&'static str);

impl Drop for Blame {
    /// Reached by a panic only. The innermost culprit is the one to be named.
    fn drop(&mut self) {
        if CULPRIT.get().is_none() {
            CULPRIT.set(Some(self.0));
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_culprit_is_named_and_the_next_panic_is_not_blamed_on_it() {
        let said = |work: &dyn Fn()| caught(work).unwrap_err().to_string();
        assert_eq!(said(&|| panic!("harm")), "panicked: harm");
        assert_eq!(said(&|| blaming("the clock", || panic!("harm"))), "the clock panicked: harm");
        let nested = || blaming("the listener", || blaming("the clock", || panic!("harm")));
        assert_eq!(said(&nested), "the clock panicked: harm");
        // Caught by the user's own code, a panic is nobody's any more.
        let swallowed = || {
            let _ = catch_unwind(|| blaming("the clock", || panic!("harm")));
        };
        assert!(caught(swallowed).is_ok());
        assert_eq!(said(&|| panic!("other")), "panicked: other");
        assert_eq!(blaming("the clock", || 7), 7);
    }
}
