//! A hook with which tests make the creation of deferred partitions fail.

use crate::topic::error::TopicError;
use slipring_ring::BuildError;
use std::cell::RefCell;

thread_local! {
    /// Called before this thread makes deferred partitions. If it returns true, the thread gets the error for a lack of
    /// memory. `None`: no hook.
    pub(crate) static AT_MAKING: RefCell<Option<Box<dyn FnMut() -> bool>>> = const { RefCell::new(None) };
}

pub(super) fn refuse(name: &str) -> Result<(), TopicError> {
    let is_refused = AT_MAKING.with_borrow_mut(|hook| hook.as_mut().is_some_and(|hook| hook()));
    let cause = BuildError::Memory { bytes: 1 };
    if is_refused { Err(TopicError::Ring { name: name.to_owned(), cause }) } else { Ok(()) }
}
