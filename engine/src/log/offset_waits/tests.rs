//! Runs the steps of waiting and waking threads in every order. Each step is a store, a load, or a section under the
//! lock, so no two steps overlap in time, and one thread can run the steps of all threads.

use super::*;

/// A step of one thread.
#[derive(Clone, Copy)]
enum Step {
    /// The committer has written the offset, or the sync thread has made it durable.
    Move(Level),
    /// The partition ends before the offset.
    End,
    /// A thread that has moved the progress reads it, and then, as the next step, wakes the reached waits. The number
    /// is the thread's index in [`World::seen`].
    Read(usize),
    Wake(usize),
    /// The waiter with this index registers; then it checks the progress; then it drops its wait.
    Register(usize),
    Check(usize),
    Leave(usize),
}
use Step::{Check, End, Leave, Move, Read, Register, Wake as Take};

/// The offset for which all waiters wait.
const OFFSET: u64 = 7;

#[derive(Default)]
struct Counted(std::sync::atomic::AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

struct Waiting {
    level: Level,
    waker: Arc<Counted>,
    wait: Option<OffsetWait>,
    has_seen: bool,
    has_left: bool,
}

struct World {
    progress: Arc<Progress>,
    seen: [([u64; 3], Option<u64>); 3],
    lost: Option<u64>,
    waiting: Vec<Waiting>,
}

impl World {
    fn new(levels: &[Level]) -> Self {
        let waiting = |level: &Level| Waiting {
            level: *level,
            waker: Arc::default(),
            wait: None,
            has_seen: false,
            has_left: false,
        };
        let waiting = levels.iter().map(waiting).collect();
        Self { progress: Arc::new(Progress::at(OFFSET)), seen: Default::default(), lost: None, waiting }
    }

    fn is_over(&self, level: Level) -> bool {
        let progress = &self.progress;
        let next = match level {
            Level::Written => &progress.written,
            Level::Replicated => &progress.replicated,
            _ => &progress.durable,
        };
        self.lost.is_some() || next.load(std::sync::atomic::Ordering::Acquire) > OFFSET
    }

    fn take(&mut self, step: Step) {
        use std::sync::atomic::Ordering::{Acquire, Release};
        let progress = Arc::clone(&self.progress);
        match step {
            Move(Level::Written) => progress.written.store(OFFSET + 1, Release),
            Move(Level::Replicated) => progress.replicated.store(OFFSET + 1, Release),
            Move(_) => progress.durable.store(OFFSET + 1, Release),
            End => self.lost = Some(OFFSET),
            Read(thread) => {
                let durable = progress.durable.load(Acquire);
                let next = [progress.written.load(Acquire).max(durable), durable, progress.replicated.load(Acquire)];
                self.seen[thread] = (next, self.lost);
            }
            Take(thread) => {
                let (next, lost) = self.seen[thread];
                progress.waits.wake(next, lost);
            }
            Register(index) => {
                let waiting = &mut self.waiting[index];
                let waker = Waker::from(Arc::clone(&waiting.waker));
                waiting.wait = Some(OffsetWait::new(&progress, OFFSET, waiting.level, waker));
            }
            Check(index) => self.waiting[index].has_seen = self.is_over(self.waiting[index].level),
            Leave(index) => {
                (self.waiting[index].wait, self.waiting[index].has_left) = (None, true);
            }
        }
    }

    /// True if each waiter whose wait is over was woken, has seen that it is over, or has left; no waiter was woken
    /// twice, or although its wait is not over; and no wait is left in the lists.
    fn holds(mut self) -> bool {
        let holds = (0..self.waiting.len()).all(|index| {
            let Waiting { level, ref waker, has_seen, has_left, .. } = self.waiting[index];
            let woken = waker.0.load(std::sync::atomic::Ordering::Relaxed);
            let is_told = has_seen || has_left || woken == 1;
            woken <= 1 && if self.is_over(level) { is_told } else { woken == 0 }
        });
        self.waiting.clear();
        let mut list = self.progress.waits.list();
        holds && [Level::Written, Level::Durable, Level::Replicated].into_iter().all(|level| list.of(level).is_empty())
    }
}

/// Runs the threads' steps in every order. Returns the number of orders, and the number of orders after which
/// [`World::holds`] is false.
fn all(levels: &[Level], threads: &[&[Step]]) -> (usize, usize) {
    fn go(done: &mut Vec<Step>, left: &mut [&[Step]], levels: &[Level], found: &mut (usize, usize)) {
        if left.iter().all(|thread| thread.is_empty()) {
            let mut world = World::new(levels);
            done.iter().for_each(|step| world.take(*step));
            found.0 += 1;
            found.1 += usize::from(!world.holds());
        }
        for thread in 0..left.len() {
            let Some((step, rest)) = left[thread].split_first() else { continue };
            let before = std::mem::replace(&mut left[thread], rest);
            done.push(*step);
            go(done, left, levels, found);
            done.pop();
            left[thread] = before;
        }
    }
    let mut found = (0, 0);
    go(&mut Vec::new(), &mut threads.to_vec(), levels, &mut found);
    found
}

const WRITES: &[Step] = &[Move(Level::Written), Read(0), Take(0)];
const SYNCS: &[Step] = &[Move(Level::Durable), Read(1), Take(1)];
const REPLICATES: &[Step] = &[Move(Level::Replicated), Read(2), Take(2)];
const ENDS: &[Step] = &[End, Read(0), Take(0)];

#[test]
fn no_order_of_steps_leaves_a_wait_asleep() {
    let waits: &[Step] = &[Register(0), Check(0)];
    let leaves: &[Step] = &[Register(1), Check(1), Leave(1)];
    for (first, second) in
        [(Level::Written, Level::Durable), (Level::Durable, Level::Written), (Level::Durable, Level::Durable)]
    {
        for moves in [WRITES, ENDS] {
            let (orders, lost) = all(&[first, second], &[moves, SYNCS, waits, leaves]);
            assert_eq!((orders, lost), (92_400, 0));
        }
    }
}

#[test]
fn no_order_of_a_bridges_steps_leaves_a_wait_asleep() {
    let waits: &[Step] = &[Register(0), Check(0)];
    let leaves: &[Step] = &[Register(1), Check(1), Leave(1)];
    for moves in [SYNCS, ENDS] {
        let (orders, lost) = all(&[Level::Replicated, Level::Replicated], &[moves, REPLICATES, waits, leaves]);
        assert_eq!((orders, lost), (92_400, 0));
    }
}

/// A waiter that checks the progress before it registers, and a thread that wakes the waits before it moves the
/// position, both miss wake-ups in some orders, and the search finds these.
#[test]
fn an_order_of_a_threads_own_steps_that_is_wrong_is_found() {
    let (orders, lost) = all(&[Level::Written], &[WRITES, &[Check(0), Register(0)]]);
    assert!(orders == 10 && lost > 0, "{lost} of {orders}");
    let (orders, lost) = all(&[Level::Written], &[&[Read(0), Take(0), Move(Level::Written)], &[Register(0), Check(0)]]);
    assert!(orders == 10 && lost > 0, "{lost} of {orders}");
}
