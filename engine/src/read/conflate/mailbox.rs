//! The mailbox: how the thread that gathers events gives them to the reader, without a lock.
//!
//! One box with the newest events lies in the mailbox until the reader takes it. The gathering thread fills another box
//! meanwhile. When it has gathered a part, it takes the box out of the mailbox, adds the part, and puts the box back; if
//! the reader has taken that box, it puts in the part itself. Each of these steps is one atomic exchange, so the
//! gathering thread, for which producers may wait, never waits for the reader, wherever the reader stands still.
//!
//! Between taking the box out and putting it back the mailbox is empty although there are events. `merging` is true
//! then, and a reader that finds the mailbox empty looks again. That time is short: the gathering thread moves at most
//! one part, and calls the user's code only for the comparison of keys and the drop of what a newer event replaces.

use crate::base::wakeup::{WakeFlag, WakeTarget};
use crossbeam_utils::atomic::AtomicCell;
use slipring_ring::Waiter;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

/// How long a reader looks again for a box that the gathering thread has taken out to add a part. After that the thread
/// has probably lost its processor, and the call finds nothing.
const MERGE_LIMIT: Duration = Duration::from_millis(20);

/// The place where one thread leaves boxes of `T` for one reader; `R` is why the thread has ended. See the
/// [module](self).
pub(super) struct Mailbox<T, R> {
    full: AtomicCell<Option<Box<T>>>,
    /// A box that the reader has returned.
    spare: AtomicCell<Option<Box<T>>>,
    merging: AtomicBool,
    /// True while the reader sleeps or is about to. The gathering thread wakes it after it has put a box in.
    sleeps: AtomicBool,
    /// True once the reader was dropped: the gathering thread ends.
    gone: AtomicBool,
    end: OnceLock<R>,
    waiter: Waiter,
    flag: WakeFlag,
}

/// What a reader has found.
pub(super) enum Mail<'m, T, R> {
    Box(Box<T>),
    /// Nothing came in time.
    Nothing,
    /// All boxes were taken, and the gathering thread has ended.
    End(&'m R),
}

impl<T, R> Mailbox<T, R> {
    pub(super) fn new() -> Self {
        Self {
            full: AtomicCell::new(None),
            spare: AtomicCell::new(None),
            merging: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            end: OnceLock::new(),
            waiter: Waiter::new(),
            flag: WakeFlag::default(),
        }
    }

    /// Leaves `part` for the reader. `merge` moves the contents of its second argument, which are newer, into its
    /// first. Then `part` is an empty box, which `new` makes if there is no other. Called by the gathering thread.
    pub(super) fn leave(&self, part: &mut Box<T>, merge: impl FnOnce(&mut T, &mut T), new: impl FnOnce() -> T) {
        self.merging.store(true, Ordering::SeqCst);
        let left = match self.full.take() {
            Some(mut left) => {
                merge(&mut left, part);
                left
            }
            None => {
                let empty = self.spare.take().unwrap_or_else(|| Box::new(new()));
                std::mem::replace(part, empty)
            }
        };
        self.full.store(Some(left));
        self.merging.store(false, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the mailbox: once the reader has taken what was left, it finds `why`. Called by the gathering thread.
    pub(super) fn end(&self, why: R) {
        // If `merge` has panicked, its box is lost and the mark still stands.
        self.merging.store(false, Ordering::SeqCst);
        let _ = self.end.set(why);
        self.wake();
    }

    fn wake(&self) {
        // Pairs with the fence in `find`: the reader sees the box or the end, or this thread sees that the reader
        // sleeps.
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) {
            self.waiter.wake(0);
        }
    }

    /// True if the reader sleeps until a box comes. May be late to say so: then the reader waits for the next box.
    pub(super) fn is_awaited(&self) -> bool {
        self.sleeps.load(Ordering::Relaxed)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The reader is dropped, so the gathering thread is to end.
    pub(super) fn abandon(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Returns an empty box, whose memory is used again.
    pub(super) fn give_back(&self, empty: Box<T>) {
        self.spare.store(Some(empty));
    }

    /// Finds the next box: without waiting if `now`, otherwise by `deadline` (`None`: without limit) or until a wake-up
    /// from outside. Called by the reader.
    pub(super) fn find(&self, now: bool, deadline: Option<Instant>) -> Mail<'_, T, R> {
        loop {
            if let Some(mail) = self.look() {
                return mail;
            }
            if now || self.flag.take() {
                return Mail::Nothing;
            }
            self.sleeps.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let found = self.look();
            let is_over = found.is_none() && !self.flag.is_set() && !self.waiter.park(deadline, |_| ());
            self.sleeps.store(false, Ordering::Relaxed);
            match found {
                Some(mail) => return mail,
                None if is_over => return self.look().unwrap_or(Mail::Nothing),
                None => {}
            }
        }
    }

    fn look(&self) -> Option<Mail<'_, T, R>> {
        let mut until = None;
        loop {
            // Read before the box: what was left before the end is found first.
            let end = self.end.get();
            if let Some(found) = self.full.take() {
                return Some(Mail::Box(found));
            }
            if let Some(end) = end {
                return Some(Mail::End(end));
            }
            // Read after the box was missing. If no part is being added, the mailbox was empty, or got a box since.
            if !self.merging.load(Ordering::SeqCst) {
                return self.full.take().map(Mail::Box);
            }
            let now = Instant::now();
            if *until.get_or_insert(now + MERGE_LIMIT) <= now {
                return None;
            }
            std::thread::yield_now();
        }
    }
}

impl<T: Send + Sync, R: Send + Sync> WakeTarget for Mailbox<T, R> {
    fn flag(&self) -> &WakeFlag {
        &self.flag
    }

    fn rouse(&self) {
        self.waiter.wake(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    type Numbers = Mailbox<Vec<u32>, &'static str>;

    #[expect(clippy::box_collection, reason = "a mailbox exchanges boxes, of whatever they hold")]
    fn leave(mailbox: &Numbers, part: &mut Box<Vec<u32>>) {
        mailbox.leave(part, |left, part| left.append(part), Vec::new);
    }

    fn found(mailbox: &Numbers) -> Result<Vec<u32>, Option<&'static str>> {
        match mailbox.find(true, None) {
            Mail::Box(found) => Ok(*found),
            Mail::Nothing => Err(None),
            Mail::End(end) => Err(Some(*end)),
        }
    }

    #[test]
    fn a_part_joins_what_lies_there_and_the_end_comes_last() {
        let mailbox = Numbers::new();
        assert_eq!(found(&mailbox), Err(None));
        let mut part = Box::new(vec![1]);
        leave(&mailbox, &mut part);
        assert!(part.is_empty());
        part.push(2);
        leave(&mailbox, &mut part);
        mailbox.end("over");
        assert_eq!(found(&mailbox), Ok(vec![1, 2]));
        assert_eq!(found(&mailbox), Err(Some("over")));
    }

    /// The boxes are small pointers, so that their exchange is one instruction and no lock.
    #[test]
    fn a_box_is_exchanged_without_a_lock() {
        assert!(AtomicCell::<Option<Box<Vec<u32>>>>::is_lock_free());
    }

    #[test]
    fn a_reader_that_stands_still_does_not_hold_the_thread_that_gathers() {
        let mailbox = Numbers::new();
        let mut part = Box::new(vec![1]);
        leave(&mailbox, &mut part);
        // The reader has said that it sleeps, and was stopped by the system before it did.
        mailbox.sleeps.store(true, Ordering::SeqCst);
        for number in 2..1000 {
            part.push(number);
            leave(&mailbox, &mut part);
        }
        assert_eq!(found(&mailbox), Ok((1..1000).collect()));
    }

    #[test]
    fn every_number_arrives_once_and_in_order_however_the_two_meet() {
        const COUNT: u32 = 20_000;
        let mailbox = Arc::new(Numbers::new());
        let left = Arc::clone(&mailbox);
        let gathers = std::thread::spawn(move || {
            let mut part = Box::new(Vec::new());
            for number in 0..COUNT {
                part.push(number);
                leave(&left, &mut part);
                if number % 1000 == 0 {
                    std::thread::yield_now();
                }
            }
            left.end("over");
        });
        let mut seen = Vec::new();
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            match mailbox.find(seen.len() % 3 == 0, Some(limit)) {
                Mail::Box(mut found) => {
                    seen.append(&mut found);
                    mailbox.give_back(found);
                }
                Mail::Nothing => assert!(Instant::now() < limit, "nothing more came after {:?}", seen.last()),
                Mail::End(_) => break,
            }
        }
        assert!(seen.into_iter().eq(0..COUNT));
        gathers.join().unwrap();
    }
}
