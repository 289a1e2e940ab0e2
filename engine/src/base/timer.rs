//! The engine's timer, which runs tasks at given times on one thread. The thread is started by the first user of the
//! timer.

use crate::base::clock::{Clock, Tick};
use crate::base::threads::caught;
use crate::base::trace::lifecycle;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// Runs tasks at their times on the engine's [`Clock`], one after another. A task must be short and must not wait.
///
/// A clock that only a program moves needs no thread: the thread that moves the clock runs the tasks that are due.
pub(crate) struct Timer {
    core: Arc<TimerCore>,
}

struct TimerCore {
    clock: Arc<dyn Clock>,
    queue: Mutex<TaskQueue>,
    changed: Condvar,
    turn: Mutex<TaskTurn>,
    /// Notified when a thread has run all due tasks, and `turn` is free again.
    done: Condvar,
    /// Held while the timer's thread is started, so that no second one is started.
    starting: Mutex<()>,
    #[cfg(test)]
    no_threads: std::sync::atomic::AtomicBool,
}

/// Which thread runs tasks now. Another thread that has moved the clock waits until that thread is done, so that all
/// due tasks have run when the move returns. A mutex held while tasks run would not do: a task wakes user code, which
/// may move the clock on the same thread, and that thread would then wait for itself.
#[derive(Default)]
struct TaskTurn {
    /// `None` if no thread runs tasks.
    runs: Option<ThreadId>,
}

#[derive(Default)]
struct TaskQueue {
    tasks: BTreeMap<TimerId, Box<dyn FnOnce() + Send>>,
    next: u64,
    /// True once tasks will run: the thread was started, or the clock notifies the timer of each move.
    attended: bool,
    over: bool,
}

/// The interval at which the timer reads a clock again whose `now` has panicked.
const AGAIN: Duration = Duration::from_millis(100);

/// The identity of a task: the time at which it is due, and its number. Tasks are sorted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerId(Duration, u64);

impl Timer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let core = TimerCore {
            clock,
            queue: Mutex::default(),
            changed: Condvar::new(),
            turn: Mutex::default(),
            done: Condvar::new(),
            starting: Mutex::new(()),
            #[cfg(test)]
            no_threads: std::sync::atomic::AtomicBool::new(false),
        };
        Self { core: Arc::new(core) }
    }

    /// Makes sure that tasks will run: starts the timer's thread if it is needed and not started yet. Each item that
    /// needs the timer calls this when it is created, and returns the error if no thread can be started. A task that is
    /// added later has no caller that could get the error.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        if self.core.queue().attended {
            return Ok(());
        }
        let tick: Arc<dyn Tick> = Arc::clone(&self.core) as Arc<dyn Tick>;
        let is_watched = self.core.clock.watch(Arc::downgrade(&tick));
        let _one_thread = self.core.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_watched && !self.core.queue().attended {
            let core = Arc::clone(&self.core);
            let refused =
                |cause: std::io::Error| std::io::Error::new(cause.kind(), format!("the engine's timer: {cause}"));
            self.spawn(move || core.run()).map_err(refused)?;
        }
        self.core.queue().attended = true;
        Ok(())
    }

    fn spawn(&self, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        #[cfg(test)]
        if self.core.no_threads.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(std::io::Error::from(std::io::ErrorKind::WouldBlock));
        }
        std::thread::Builder::new().name("slipring-timer".to_owned()).spawn(run).map(drop)
    }

    /// For tests: if `yes`, the start of the timer's thread fails as it does at a process's limit of threads.
    #[cfg(test)]
    pub(crate) fn refuse_threads(&self, yes: bool) {
        self.core.no_threads.store(yes, std::sync::atomic::Ordering::Relaxed);
    }

    /// Schedules `task` for the first moment at which the clock's [`now`](Clock::now) is `deadline` or later. The task
    /// never runs on the calling thread during this call. If the engine ends first, the task is dropped and does not
    /// run. The timer must be [started](Self::start).
    pub(crate) fn at(&self, deadline: Duration, task: impl FnOnce() + Send + 'static) -> TimerId {
        let mut queue = self.core.queue();
        let due = TimerId(deadline, queue.next);
        queue.next += 1;
        queue.tasks.insert(due, Box::new(task));
        let is_first = queue.tasks.first_key_value().is_some_and(|(first, _)| *first == due);
        drop(queue);
        if is_first {
            self.core.changed.notify_one();
        }
        due
    }

    pub(crate) fn after(&self, delay: Duration, task: impl FnOnce() + Send + 'static) -> TimerId {
        self.at(self.core.clock.now().saturating_add(delay), task)
    }

    /// Removes a scheduled task. Returns false if the task is running or has run.
    pub(crate) fn cancel(&self, due: TimerId) -> bool {
        // Dropped after the lock is released, because the task's captured values may run user code when they are
        // dropped.
        let task = self.core.queue().tasks.remove(&due);
        task.is_some()
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

impl TimerCore {
    fn queue(&self) -> MutexGuard<'_, TaskQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of the timer's thread. It ends only with the timer: if the clock panics, the loop reads it again after
    /// [`AGAIN`].
    fn run(&self) {
        loop {
            let now = caught(|| {
                self.tick();
                self.clock.now()
            });
            let queue = self.queue();
            if queue.over {
                return;
            }
            let first = queue.tasks.first_key_value().map(|(due, _)| due.0);
            // The thread sleeps in real time, and the engine's clock may run behind it. So the loop reads the clock
            // again after the sleep.
            let left = match (now, first) {
                (Ok(now), first) => first.map(|first| first.saturating_sub(now)),
                (Err(_panic), _) => {
                    lifecycle!(error, "the timer could not tell the time", cause = _panic);
                    Some(AGAIN)
                }
            };
            match left {
                Some(Duration::ZERO) => {}
                Some(left) => drop(self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner)),
                None => drop(self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)),
            }
        }
    }

    fn turn(&self) -> MutexGuard<'_, TaskTurn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the tasks that are due at `now`, in the order of their times.
    fn run_due(&self, now: Duration) {
        loop {
            let task = {
                let mut queue = self.queue();
                match queue.tasks.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            // A panic ends only its own task, and not the timer's thread.
            if let Err(_panic) = caught(task) {
                lifecycle!(error, "a timer's task panicked", cause = _panic);
            }
        }
    }
}

impl Tick for TimerCore {
    fn tick(&self) {
        struct Over<'c>(&'c TimerCore);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.turn().runs = None;
                self.0.done.notify_all();
            }
        }
        let own = std::thread::current().id();
        let mut turn = self.turn();
        while let Some(runs) = turn.runs {
            if runs == own {
                // This thread is running a task, which has moved the clock. The loop below in this thread's stack runs
                // the tasks that have become due, when that task returns.
                return;
            }
            turn = self.done.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        turn.runs = Some(own);
        drop(turn);
        let _over = Over(self);
        // A task may have moved the clock, so the clock is read again after each pass.
        let mut now = self.clock.now();
        loop {
            self.run_due(now);
            let later = self.clock.now();
            if later == now || self.queue().tasks.first_key_value().is_none_or(|(due, _)| due.0 > later) {
                return;
            }
            now = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, SystemClock};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::mpsc;

    #[test]
    fn tasks_run_in_the_order_of_their_times_and_not_before() {
        let clock = ManualClock::new();
        let timer = Timer::new(Arc::new(clock.clone()));
        timer.start().unwrap();
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
        timer.start().unwrap();
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

    /// A clock whose `now` panics while the flag is true.
    struct Fragile(AtomicBool, SystemClock);

    impl Clock for Fragile {
        fn now(&self) -> Duration {
            assert!(!self.0.load(Relaxed), "harm");
            self.1.now()
        }

        fn wall(&self) -> crate::clock::Timestamp {
            self.1.wall()
        }
    }

    /// In an earlier version, such a panic ended the timer's thread, and no lease, linger or deadline expired any more.
    #[test]
    fn a_clock_that_panics_for_a_while_loses_no_task() {
        let clock = Arc::new(Fragile(AtomicBool::new(false), SystemClock::default()));
        let timer = Timer::new(Arc::clone(&clock) as Arc<dyn Clock>);
        timer.start().unwrap();
        let due = clock.now() + Duration::from_millis(1);
        clock.0.store(true, Relaxed);
        let (done, seen) = mpsc::channel();
        timer.at(due, move || done.send(()).unwrap());
        assert!(seen.recv_timeout(Duration::from_millis(10)).is_err());
        clock.0.store(false, Relaxed);
        seen.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_task_may_move_the_clock() {
        let clock = ManualClock::new();
        let timer = Timer::new(Arc::new(clock.clone()));
        timer.start().unwrap();
        let (done, seen) = mpsc::channel();
        let (own, first) = (clock.clone(), done.clone());
        timer.at(Duration::from_secs(1), move || {
            own.advance(Duration::from_secs(1));
            first.send(1).unwrap();
        });
        timer.at(Duration::from_secs(2), move || done.send(2).unwrap());
        std::thread::spawn(move || clock.advance(Duration::from_secs(1)));
        assert_eq!(
            [seen.recv_timeout(Duration::from_secs(60)), seen.recv_timeout(Duration::from_secs(60))],
            [Ok(1), Ok(2)]
        );
    }

    /// In an earlier version, the first task started the thread, and if that failed, the error was ignored: then leases
    /// and deadlines never ended.
    #[test]
    fn what_needs_the_timer_is_not_made_without_its_thread() {
        let engine = crate::Engine::builder().build().unwrap();
        let timer = &engine.shared.host.timer;
        let jobs = engine.topic::<crate::Message>("jobs").create().unwrap();
        timer.refuse_threads(true);
        let said = |refused: &dyn std::error::Error| {
            assert!(refused.to_string().contains("timer"), "{refused}");
        };
        said(&jobs.queue("work").open().unwrap_err());
        said(&jobs.group("billing").join().unwrap_err());
        said(&jobs.producer().linger(Duration::from_millis(1), 9).create().unwrap_err());
        said(&jobs.producer().rate_limit(crate::topic::RateLimit::new().events(1, 1)).create().unwrap_err());
        let limited = engine.topic::<u64>("limited").rate_limit(crate::topic::RateLimit::new().events(1, 1));
        said(&limited.create().unwrap_err());
        timer.refuse_threads(false);
        jobs.queue("work").open().unwrap();
        timer.refuse_threads(true);
        jobs.group("billing").join().unwrap();
    }
}
