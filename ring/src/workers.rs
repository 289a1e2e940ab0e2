//! The position of a stage whose events several workers share.
//!
//! A worker announces a sequence before it takes the sequence from the shared counter. A thread that computes the
//! stage's position reads the counter first and the announcements second, and so misses no unfinished event of a
//! worker: if it read the counter past a sequence, it acquired the exchange that took the sequence (TAKE), and with it
//! the announcement before. A worker may announce a sequence and then fail to take it. That lowers the result only for
//! a moment; the stage keeps the highest result that any thread computed.
//!
//! Events that a dropped worker leaves unfinished stay announced at its place. They are an orphan until another worker
//! adopts them. Models: `workers` in loom-tests.

use crate::fault::{Fault, fault};
use crate::kind::Run;
use crate::ordering::{ANNOUNCE, COUNT, READ_ANNOUNCED, READ_TAKEN, START_TAKING, TAKE};
use crate::sequence::{Position, ahead, earlier};
use crate::sync::{AtomicU64, Mutex, lock};

/// The shared counter of taken events, and a place for each worker.
pub(crate) struct Workers {
    taken: Position,
    /// For each place: `sequence << 1 | 1` while its worker has not finished this sequence, the first of its events; 0
    /// while the worker has no unfinished event.
    announced: Box<[Position]>,
    /// Count of orphans (unfinished events of dropped workers), for a check without the lock.
    orphaned: AtomicU64,
    places: Mutex<Places>,
}

struct Places {
    free: Vec<usize>,
    orphans: Vec<Orphan>,
    working: usize,
    /// True once the last worker has left, and the stage with it. Then no worker may enter.
    gone: bool,
}

struct Orphan {
    place: usize,
    at: u64,
    end: u64,
}

impl Workers {
    pub(crate) fn new(count: usize, at: u64) -> Self {
        Self {
            taken: Position::new(at),
            announced: (0..count).map(|_| Position::new(0)).collect(),
            orphaned: AtomicU64::new(0),
            places: Mutex::new(Places {
                free: (0..count).rev().collect(),
                orphans: Vec::with_capacity(count),
                working: 0,
                gone: false,
            }),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.announced.len()
    }

    /// Sets the first sequence to be taken. Called while the ring is being built, when no thread takes or publishes.
    pub(crate) fn start(&self, at: u64) {
        self.taken.store(at, &START_TAKING);
    }

    /// The next sequence to be taken.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn taken(&self) -> u64 {
        self.taken.read(&READ_TAKEN)
    }

    /// Takes a free place for a new worker, and returns its index. `None` if every place has a worker or an orphan, or
    /// all workers have left.
    pub(crate) fn enter(&self) -> Option<usize> {
        let mut places = lock(&self.places);
        let place = if places.gone { None } else { places.free.pop() };
        places.working += usize::from(place.is_some());
        place
    }

    /// True if the stage has no worker.
    pub(crate) fn is_unattended(&self) -> bool {
        lock(&self.places).working == 0
    }

    /// If the stage has no worker, closes it to new ones and returns true. Otherwise returns false.
    pub(crate) fn close_if_unattended(&self) -> bool {
        let mut places = lock(&self.places);
        places.gone = places.working == 0;
        places.gone
    }

    /// Removes the worker at `place`, whose unfinished events are `at..end` (usually none). True if it was the last
    /// worker.
    pub(crate) fn leave(&self, place: usize, at: u64, end: u64) -> bool {
        let mut places = lock(&self.places);
        places.working -= 1;
        places.gone = places.working == 0;
        if at == end {
            self.announce_nothing(place);
            places.free.push(place);
        } else {
            self.announce(place, at);
            places.orphans.push(Orphan { place, at, end });
            self.orphaned.fetch_add(1, COUNT.get());
        }
        places.gone
    }

    /// Takes events for the worker at `place`: an orphan if there is one, whose place the worker then has; otherwise
    /// the run that `share` returns for the next sequence to take. `None` if there are none. Sets `moved` to true if
    /// the stage's position may be higher now, because an announcement was withdrawn or skipped slots were passed.
    pub(crate) fn take(&self, place: &mut usize, mut share: impl FnMut(u64) -> Run, moved: &mut bool) -> Option<Run> {
        if self.has_orphans()
            && let Some(adopted) = self.adopt(place)
        {
            return Some(adopted);
        }
        let mut from = self.taken();
        loop {
            let run = share(from);
            if run.end == from {
                self.announce_nothing(*place);
                return None;
            }
            if !fault(Fault::WorkerTakesBeforeItAnnounces) {
                self.announce(*place, from);
            }
            match self.taken.exchange(from, run.end, &TAKE, &READ_TAKEN) {
                Ok(_) if run.start == from => {
                    if fault(Fault::WorkerTakesBeforeItAnnounces) {
                        self.announce(*place, from);
                    }
                    return Some(run);
                }
                Ok(_) => {
                    *moved = !fault(Fault::WorkerPassesSkippedSlotsWithoutARing);
                    if run.start != run.end {
                        self.announce(*place, run.start);
                        return Some(run);
                    }
                    self.announce_nothing(*place);
                    from = run.end;
                }
                Err(now) => {
                    from = now;
                    *moved = !fault(Fault::AnnouncementInVainWakesNobody);
                }
            }
        }
    }

    /// True if there are orphans (unfinished events of dropped workers).
    pub(crate) fn has_orphans(&self) -> bool {
        self.orphaned.load(COUNT.get()) != 0
    }

    /// Adopts an orphan; `None` if there is none. The adopter moves to the orphan's place, whose announcement stays: a
    /// thread that reads all places while an announcement moves from one place to another could miss it at both.
    fn adopt(&self, place: &mut usize) -> Option<Run> {
        let mut places = lock(&self.places);
        let orphan = places.orphans.pop()?;
        self.orphaned.fetch_sub(1, COUNT.get());
        if fault(Fault::AdoptedAnnouncementMoves) {
            self.announce(*place, orphan.at);
            self.announce_nothing(orphan.place);
            places.free.push(orphan.place);
        } else {
            self.announce_nothing(*place);
            places.free.push(std::mem::replace(place, orphan.place));
        }
        Some(Run { start: orphan.at, end: orphan.end })
    }

    /// Announces `at` as the first sequence that the worker at `place` is about to take or has not finished.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn announce(&self, place: usize, at: u64) {
        self.announced[place].store(at << 1 | 1, &ANNOUNCE);
    }

    /// Announces that the worker at `place` has no unfinished events.
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn announce_nothing(&self, place: usize) {
        self.announced[place].store(0, &ANNOUNCE);
    }

    /// The position of the stage: all events before this sequence are finished. It may be lower than another thread's
    /// earlier result.
    pub(crate) fn lowest(&self) -> u64 {
        let look = |place: usize| self.announced[place].read(&READ_ANNOUNCED);
        let too_early: Option<Vec<u64>> =
            fault(Fault::WorkersReadBeforeTheCounter).then(|| (0..self.count()).map(look).collect());
        let taken = self.taken();
        (0..self.count())
            .map(|place| too_early.as_ref().map_or_else(|| look(place), |seen| seen[place]))
            .filter(|announced| announced & 1 == 1)
            // An announcement lacks the highest bit of its sequence. The counter supplies that bit, because the two
            // sequences are less than 2^62 apart.
            .map(|announced| taken.wrapping_sub((ahead(taken << 1, announced & !1) >> 1) as u64))
            .fold(taken, earlier)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// The first sequence and the count of the taken events.
    fn take(workers: &Workers, place: &mut usize, most: u64) -> Option<(u64, u64)> {
        let share = |from: u64| Run { start: from, end: from.wrapping_add(most) };
        workers.take(place, share, &mut false).map(|run| (run.start, run.end.wrapping_sub(run.start)))
    }

    #[test]
    fn what_is_in_hand_holds_the_stage_back_also_at_the_end_of_the_range() {
        for start in [0, 7, (1 << 63) - 1, u64::MAX - 1] {
            let workers = Workers::new(2, start);
            let (mut a, mut b) = (workers.enter().unwrap(), workers.enter().unwrap());
            assert_eq!(workers.enter(), None);
            assert_eq!(take(&workers, &mut a, 2), Some((start, 2)));
            assert_eq!(take(&workers, &mut b, 1), Some((start.wrapping_add(2), 1)));
            assert_eq!(workers.lowest(), start);
            workers.announce_nothing(a);
            assert_eq!(workers.lowest(), start.wrapping_add(2));
            workers.announce_nothing(b);
            assert_eq!(workers.lowest(), start.wrapping_add(3));
        }
    }

    #[test]
    fn what_a_worker_leaves_behind_is_adopted_before_anything_new_is_taken() {
        let workers = Workers::new(2, 0);
        let (mut a, mut b) = (workers.enter().unwrap(), workers.enter().unwrap());
        take(&workers, &mut a, 4);
        workers.leave(a, 1, 4);
        assert_eq!(workers.lowest(), 1);
        assert_eq!(workers.enter(), None, "the place still holds what was left behind");
        let before = b;
        assert_eq!(take(&workers, &mut b, 9), Some((1, 3)));
        assert_eq!(b, a, "the adopter works where the orphan is announced");
        assert_eq!(workers.lowest(), 1);
        assert_eq!(workers.enter(), Some(before));
        workers.leave(before, 0, 0);
        workers.announce_nothing(b);
        assert_eq!(workers.lowest(), 4);
    }
}
