//! The tasks that wait at a queue while another worker watches it, in the order in which they came.
//!
//! A message wakes the first task of the list. No wake-up is lost: a task that was removed from the list was woken, and then it
//! takes a message, or watches the queue, or, if it is dropped before it polls the queue, wakes the next task: see
//! [`QueueCore`](super::core::QueueCore).

use std::collections::BTreeMap;
use std::task::Waker;

/// The place of a waiting task: a lower number came earlier. A task keeps its place until it stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskPlace(u64);

/// How a worker waits without a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TaskWait {
    /// It does not wait.
    #[default]
    Nothing,
    /// It watches the partitions with its waker.
    Watching,
    /// Another worker watches. This worker's waker is at this place, or was removed from it and woken.
    Idle(TaskPlace),
}

/// Wakers by their places. Each operation is logarithmic in the number of waiting tasks.
#[derive(Default)]
pub(super) struct IdleTasks {
    next: u64,
    wakers: BTreeMap<TaskPlace, Waker>,
}

impl IdleTasks {
    /// A place behind all others.
    pub(super) fn new_place(&mut self) -> TaskPlace {
        self.next += 1;
        TaskPlace(self.next)
    }

    pub(super) fn put(&mut self, place: TaskPlace, waker: Waker) {
        self.wakers.insert(place, waker);
    }

    /// Removes the waker at this place. `None` if it was removed before, to be woken.
    pub(super) fn take(&mut self, place: TaskPlace) -> Option<Waker> {
        self.wakers.remove(&place)
    }

    /// Removes the waker that has waited longest. The caller wakes it.
    pub(super) fn take_first(&mut self) -> Option<Waker> {
        self.wakers.pop_first().map(|(_, waker)| waker)
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.wakers).into_values()
    }
}
