//! What is to be done at a time: one thread an engine, made at the first need.

use crate::clock::{Clock, Tick};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Runs tasks when their time has come, one after the other. A task must be short and must not wait.
///
/// With a clock that is moved by hand there is no thread: whoever moves the clock runs what is due.
pub(crate) struct Timer {
    core: Arc<Core>,
}

struct Core {
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Held while tasks run, so that whoever moved the clock finds them done.
    running: Mutex<()>,
}

#[derive(Default)]
struct Queue {
    tasks: BTreeMap<Due, Box<dyn FnOnce() + Send>>,
    next: u64,
    attended: bool,
    over: bool,
}

/// A task that was given to the timer: when, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(Duration, u64);

impl Timer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let core = Core { clock, queue: Mutex::default(), changed: Condvar::new(), running: Mutex::new(()) };
        Self { core: Arc::new(core) }
    }

    /// Runs `task` when the clock's [`now`](Clock::now) is `deadline` or later; never on the calling thread, and never
    /// if the engine goes before.
    pub(crate) fn at(&self, deadline: Duration, task: impl FnOnce() + Send + 'static) -> Due {
        let mut queue = self.core.queue();
        let due = Due(deadline, queue.next);
        queue.next += 1;
        queue.tasks.insert(due, Box::new(task));
        let attended = std::mem::replace(&mut queue.attended, true);
        let is_first = queue.tasks.first_key_value().is_some_and(|(first, _)| *first == due);
        drop(queue);
        if !attended {
            self.attend();
        }
        if is_first {
            self.core.changed.notify_one();
        }
        due
    }

    #[allow(dead_code)]
    pub(crate) fn after(&self, delay: Duration, task: impl FnOnce() + Send + 'static) -> Due {
        self.at(self.core.clock.now().saturating_add(delay), task)
    }

    /// Takes a task back. False if it has run, or runs.
    pub(crate) fn cancel(&self, due: Due) -> bool {
        // Dropped outside of the lock: what it owns may have a drop of its own.
        let task = self.core.queue().tasks.remove(&due);
        task.is_some()
    }

    fn attend(&self) {
        let tick: Arc<dyn Tick> = Arc::clone(&self.core) as Arc<dyn Tick>;
        if self.core.clock.watch(Arc::downgrade(&tick)) {
            return;
        }
        let core = Arc::clone(&self.core);
        let thread = std::thread::Builder::new().name("slipring-timer".to_owned()).spawn(move || core.run());
        if thread.is_err() {
            // Without a thread now; the next task asks again.
            self.core.queue().attended = false;
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.core.queue();
            queue.over = true;
            std::mem::take(&mut queue.tasks)
        };
        self.core.changed.notify_one();
        drop(left);
    }
}

impl Core {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's life.
    fn run(&self) {
        loop {
            self.tick();
            let queue = self.queue();
            if queue.over {
                return;
            }
            // A real time is given out by the clock in its own units: it may come a little early, so look again.
            let left = queue.tasks.first_key_value().map(|(due, _)| due.0.saturating_sub(self.clock.now()));
            match left {
                Some(Duration::ZERO) => {}
                Some(left) => drop(self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner)),
                None => drop(self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)),
            }
        }
    }
}

impl Tick for Core {
    fn tick(&self) {
        let _one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let task = {
                let mut queue = self.queue();
                let now = self.clock.now();
                match queue.tasks.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            // A task that panics has done what it could; the others must not suffer for it.
            let _ = catch_unwind(AssertUnwindSafe(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use std::sync::mpsc;

    #[test]
    fn tasks_run_in_the_order_of_their_times_and_not_before() {
        let clock = ManualClock::new();
        let timer = Timer::new(Arc::new(clock.clone()));
        let (done, seen) = mpsc::channel();
        for seconds in [3, 1, 2] {
            let done = done.clone();
            timer.at(Duration::from_secs(seconds), move || done.send(seconds).unwrap());
        }
        let taken_back = timer.at(Duration::from_secs(2), || panic!("was taken back"));
        timer.at(Duration::from_secs(1), || panic!("the others must not suffer"));
        assert!(timer.cancel(taken_back) && !timer.cancel(taken_back));
        clock.advance(Duration::from_millis(999));
        assert!(seen.try_recv().is_err());
        clock.advance(Duration::from_millis(1));
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1]);
        clock.advance(Duration::from_secs(9));
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn the_systems_time_runs_them_on_a_thread_and_the_thread_goes_with_the_timer() {
        let timer = Timer::new(Arc::new(SystemClock::default()));
        let (done, seen) = mpsc::channel();
        timer.after(Duration::from_secs(100_000), || ());
        timer.after(Duration::from_millis(1), move || done.send(()).unwrap());
        seen.recv_timeout(Duration::from_secs(60)).unwrap();
        let core = Arc::downgrade(&timer.core);
        drop(timer);
        while core.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
