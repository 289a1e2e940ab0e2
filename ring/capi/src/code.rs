//! The codes that the functions return, and the text of the last failure.

use slipring_ring::shared::{Ended, PublishError, SharedError};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of a call. slipring_error() has the text of one that is not SLIPRING_OK.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum slipring_code {
    /// It is done.
    SLIPRING_OK = 0,
    /// An argument is NULL, is no UTF-8, or is out of its range.
    SLIPRING_INVALID = 1,
    /// There is no ring with this name.
    SLIPRING_NOT_FOUND = 2,
    /// There is a ring with this name already.
    SLIPRING_EXISTS = 3,
    /// The ring, or its file, is not what was expected; the text has both sides.
    SLIPRING_MISMATCH = 4,
    /// /dev/shm has no room for the ring.
    SLIPRING_MEMORY = 5,
    /// Another participant has the name, is the producer, or uses the ring that is to be removed.
    SLIPRING_IN_USE = 6,
    /// No consumer is held under this name.
    SLIPRING_NOT_HELD = 7,
    /// The requested start is not kept; the text has the range.
    SLIPRING_OUT_OF_RANGE = 8,
    /// The ring has all its participants already.
    SLIPRING_TOO_MANY = 9,
    /// A process that joins or removes has not ended for a second.
    SLIPRING_BUSY = 10,
    /// A call of the operating system failed, or this system has no shared rings.
    SLIPRING_SYSTEM = 11,
    /// There was no room, or no event, until the timeout.
    SLIPRING_TIMED_OUT = 12,
    /// The ring was closed, and everything was read.
    SLIPRING_CLOSED = 13,
    /// The producer died, and everything was read. After a successor has joined, reading goes on.
    SLIPRING_PRODUCER_DIED = 14,
    /// The ring's file was removed or replaced.
    SLIPRING_REPLACED = 15,
    /// This process is a fork of the one that joined.
    SLIPRING_FORKED = 16,
    /// Another process has written impossible numbers into the ring.
    SLIPRING_DAMAGED = 17,
    /// A fault of this library; the text says which.
    SLIPRING_PANICKED = 18,
}

/// A failed call: its code and its text.
pub(crate) struct Failure(pub(crate) slipring_code, pub(crate) String);

impl Failure {
    pub(crate) fn invalid(what: &str) -> Self {
        Self(slipring_code::SLIPRING_INVALID, what.to_owned())
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        let code = match ended {
            Ended::Closed => slipring_code::SLIPRING_CLOSED,
            Ended::ProducerDied => slipring_code::SLIPRING_PRODUCER_DIED,
            Ended::Replaced => slipring_code::SLIPRING_REPLACED,
            Ended::Forked => slipring_code::SLIPRING_FORKED,
            _ => slipring_code::SLIPRING_DAMAGED,
        };
        Self(code, ended.to_string())
    }
}

impl From<SharedError> for Failure {
    fn from(error: SharedError) -> Self {
        use slipring_code::*;
        let code = match &error {
            SharedError::Ended(ended) => return ended.clone().into(),
            SharedError::NotFound { .. } => SLIPRING_NOT_FOUND,
            SharedError::Exists { .. } => SLIPRING_EXISTS,
            SharedError::Mismatch { .. } => SLIPRING_MISMATCH,
            SharedError::Memory { .. } => SLIPRING_MEMORY,
            SharedError::InUse { .. } | SharedError::ProducerTaken { .. } | SharedError::NameTaken { .. } => {
                SLIPRING_IN_USE
            }
            SharedError::NotHeld { .. } => SLIPRING_NOT_HELD,
            SharedError::OutOfRange { .. } => SLIPRING_OUT_OF_RANGE,
            SharedError::Full { .. } => SLIPRING_TOO_MANY,
            SharedError::Busy => SLIPRING_BUSY,
            SharedError::System { .. } | SharedError::Unsupported { .. } => SLIPRING_SYSTEM,
            // Names, sizes and layouts.
            _ => SLIPRING_INVALID,
        };
        Self(code, error.to_string())
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let code = match &error {
            PublishError::Ended(ended) => return ended.clone().into(),
            PublishError::Full { .. } | PublishError::TimedOut { .. } => slipring_code::SLIPRING_TIMED_OUT,
            _ => slipring_code::SLIPRING_INVALID,
        };
        Self(code, error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// Runs the body of a function. A panic ends here, since it must not unwind into C.
pub(crate) fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> slipring_code {
    let done = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure(slipring_code::SLIPRING_PANICKED, format!("a fault in slipring: {text}")))
    });
    let Err(Failure(code, text)) = done else { return slipring_code::SLIPRING_OK };
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    // While the thread ends there is no place for the text, and nobody to read it.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
    code
}

/// Returns the text of the last failure in this thread; an empty text if there was none. It stays valid until the next
/// failure in this thread.
#[unsafe(no_mangle)]
pub extern "C" fn slipring_error() -> *const c_char {
    const NONE: &CStr = c"";
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(NONE.as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code_with_a_text() {
        assert_eq!(guarded(|| Ok(())), slipring_code::SLIPRING_OK);
        assert_eq!(guarded(|| panic!("no \0 such thing")), slipring_code::SLIPRING_PANICKED);
        // SAFETY: the text is valid until the next failure.
        let text = unsafe { CStr::from_ptr(slipring_error()) };
        assert_eq!(text.to_str(), Ok("a fault in slipring: no \\0 such thing"));
    }
}
