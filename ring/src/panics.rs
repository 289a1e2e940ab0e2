//! Panics of the user's code: caught, converted to text, and attributed to the code that panicked.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread_local;

thread_local! {
    /// The name of the code whose panic is unwinding this thread, as given to [`blaming`]; `None` if there is no panic,
    /// or if the code that panicked, such as a stage's handler, was not called by `blaming`.
    static CULPRIT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// A caught panic, with its message and, if known, its culprit: the name of the code that panicked. Displays as
/// `panicked: <message>`, or with a culprit as, for instance, `the waiting strategy panicked: <message>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    culprit: Option<&'static str>,
    message: String,
}

impl Panic {
    /// The panic's message; with a culprit, the text `<culprit> panicked: <message>`.
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

/// Runs `work` and returns its result, or its panic as the error.
pub fn caught<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    // A destructor may run `work` while another panic unwinds this thread: then that panic's culprit is restored
    // afterwards.
    let outer = CULPRIT.take().filter(|_| std::thread::panicking());
    let done = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let caught = Panic { culprit: CULPRIT.take(), message: message(&*panic) };
        // Dropping the payload may panic as well. Then the second panic's payload is leaked.
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
    /// True while this thread runs a managed stage, whose ring fails if the thread panics.
    static IS_ANSWERED: Cell<bool> = const { Cell::new(false) };
}

/// As [`caught`], for the thread of a managed stage: a panic of any code on the thread, also of a task's waker, is
/// returned, and fails the stage's ring.
pub(crate) fn caught_by_stage<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    IS_ANSWERED.set(true);
    let done = caught(work);
    IS_ANSWERED.set(false);
    done
}

/// True if a panic on this thread now would fail a stage's ring.
pub(crate) fn is_answered() -> bool {
    IS_ANSWERED.get()
}

/// Runs `work`, which is the user's code but not a handler. A panic of `work` continues, and [`caught`] reports
/// `culprit` as its source, for instance "the clock". Costs nothing unless `work` panics.
#[inline(always)]
pub fn blaming<R>(culprit: &'static str, work: impl FnOnce() -> R) -> R {
    let blame = Blame(culprit);
    let done = work();
    std::mem::forget(blame);
    done
}

struct Blame(&'static str);

impl Drop for Blame {
    /// Runs only if `work` panics. The innermost culprit is the one that is reported.
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
        // A panic that the user's own code catches is not reported with the next one.
        let swallowed = || {
            let _ = catch_unwind(|| blaming("the clock", || panic!("harm")));
        };
        assert!(caught(swallowed).is_ok());
        assert_eq!(said(&|| panic!("other")), "panicked: other");
        assert_eq!(blaming("the clock", || 7), 7);
    }
}
