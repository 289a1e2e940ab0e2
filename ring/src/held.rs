//! Delayed calls of the user's code: wakers of tasks and other callbacks, which must not run while this thread holds a
//! lock.
//!
//! A waker may run its task at once, and the task may take the lock under which its waker was called. So code that may
//! wake tasks while it holds a lock creates a [`Held`] first. Tasks that it wakes meanwhile are woken when the thread
//! drops its last `Held`, after the lock. Sleeping threads are woken at once, because that runs none of the user's
//! code.

use crate::panics::caught;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::task::Waker;
use std::thread_local;

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { depth: 0, tasks: Vec::new(), calls: Vec::new() }) };
}

struct Kept {
    /// Count of [`Held`] values that exist on this thread.
    depth: usize,
    tasks: Vec<Waker>,
    calls: Vec<Box<dyn FnOnce()>>,
}

/// Delays the user's code on this thread until it is dropped. Drop it after the lock that it accompanies.
#[derive(Debug)]
pub struct Held {
    /// A `Held` must be dropped on the thread that created it.
    not_send: PhantomData<*const ()>,
}

impl Default for Held {
    fn default() -> Self {
        Self::new()
    }
}

impl Held {
    /// Delays calls of the user's code on this thread until this value is dropped.
    pub fn new() -> Self {
        // If the thread is ending and its local data are gone, no call is delayed: tasks are woken at once.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().depth += 1);
        Self { not_send: PhantomData }
    }

    /// True if this thread has a call that is delayed until its last `Held` is dropped.
    pub fn keeps_something() -> bool {
        let keeps = |kept: &RefCell<Kept>| !kept.borrow().tasks.is_empty() || !kept.borrow().calls.is_empty();
        KEPT.try_with(keeps).unwrap_or(false)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let kept = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            kept.depth = kept.depth.saturating_sub(1);
            let is_last = kept.depth == 0 && (!kept.tasks.is_empty() || !kept.calls.is_empty());
            is_last.then(|| (std::mem::take(&mut kept.tasks), std::mem::take(&mut kept.calls)))
        });
        let Ok(Some((tasks, calls))) = kept else { return };
        // A panic of one call affects neither the others nor the thread that held the lock.
        tasks.into_iter().for_each(|task| drop(caught(|| task.wake())));
        calls.into_iter().for_each(|call| drop(caught(call)));
    }
}

/// Delays waking `tasks` if this thread has a [`Held`], and returns an empty list; otherwise returns `tasks`, for the
/// caller to wake.
pub(crate) fn keep(tasks: Vec<Waker>) -> Vec<Waker> {
    if tasks.is_empty() {
        return tasks;
    }
    let mut tasks = Some(tasks);
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.depth > 0 {
            kept.tasks.extend(tasks.take().into_iter().flatten());
        }
    });
    tasks.unwrap_or_default()
}

/// Wakes a task when this thread holds no lock: at once, or when the last [`Held`] is dropped.
pub fn wake(task: Waker) {
    let mut task = Some(task);
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.depth > 0 {
            kept.tasks.extend(task.take());
        }
    });
    if let Some(task) = task {
        task.wake();
    }
}

/// Runs `call` when this thread holds no lock: at once, or when the last [`Held`] is dropped. A panic of a delayed call
/// is discarded.
pub fn outside(call: impl FnOnce() + 'static) {
    let mut call = Some(call);
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.depth > 0
            && let Some(call) = call.take()
        {
            kept.calls.push(Box::new(call));
        }
    });
    if let Some(call) = call {
        call();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn what_is_kept_runs_once_when_the_last_is_dropped_and_a_panic_keeps_nothing_from_it() {
        let seen = Rc::new(Cell::new(0));
        let call = |by: u32| {
            let seen = Rc::clone(&seen);
            move || seen.set(seen.get() + by)
        };
        outside(call(1));
        assert_eq!(seen.get(), 1, "nothing is held");
        let outer = Held::new();
        let inner = Held::new();
        outside(|| panic!("harm"));
        outside(call(10));
        drop(inner);
        assert_eq!((seen.get(), Held::keeps_something()), (1, true));
        drop(outer);
        assert_eq!((seen.get(), Held::keeps_something()), (11, false));
        let held = Held::new();
        drop(held);
        assert_eq!(seen.get(), 11);
    }
}
