//! The tasks that wait for a queue's messages while another worker watches the queue, in the order of their arrival.
//!
//! A message wakes the first task of the list. A woken task is removed from the list. It then takes a message, or
//! watches the queue, or, if it is dropped before it polls the queue, wakes the next task, so no wake-up is lost: see
//! [`QueueCore`](super::core::QueueCore).

use std::collections::BTreeMap;
use std::task::Waker;

/// The place of a waiting task in the order of arrival. A task keeps its place until it stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskPlace(u64);

/// How a worker without a thread of its own waits: in a task, or for a selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TaskWait {
    /// The worker does not wait.
    #[default]
    Nothing,
    /// The worker watches the partitions: new events wake its waker.
    Watching,
    /// Another worker watches. This worker's waker is in the list at this place, or was removed from the list and
    /// woken.
    Idle(TaskPlace),
}

/// The wakers of waiting tasks, by their places. Each operation is logarithmic in the number of waiting tasks.
#[derive(Default)]
pub(super) struct IdleTasks {
    next: u64,
    wakers: BTreeMap<TaskPlace, Waker>,
}

impl IdleTasks {
    /// A new place after all others.
    pub(super) fn new_place(&mut self) -> TaskPlace {
        self.next += 1;
        TaskPlace(self.next)
    }

    pub(super) fn put(&mut self, place: TaskPlace, waker: Waker) {
        self.wakers.insert(place, waker);
    }

    /// Removes and returns the waker at this place. `None` if it was removed already, to be woken.
    pub(super) fn take(&mut self, place: TaskPlace) -> Option<Waker> {
        self.wakers.remove(&place)
    }

    /// Removes and returns the waker that has waited longest, which the caller wakes. `None` if no task waits.
    pub(super) fn take_first(&mut self) -> Option<Waker> {
        self.wakers.pop_first().map(|(_, waker)| waker)
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.wakers).into_values()
    }
}
