//! What a journal knows of producers with names: which of their sequences it has, and where.
//!
//! A mark beside a slot says whose event it is, and which. The journaler takes the marks up with the events, and puts what
//! follows from them into the same frame: so after a crash the journal knows of exactly the sequences that it has. Frames
//! take several partitions in any order, so a sequence may be there before an earlier one: that is kept apart until the
//! gap is filled. It is bounded, because nobody publishes further than [`WINDOW`] ahead of what was taken up.

use crate::clock::Timestamp;
use crate::durable::what;
use crate::journal::{FrameBuilder, State};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far a producer with a name is ahead of what the journal has taken up, where there are several partitions. As many
/// receipts outlive the process.
pub(crate) const WINDOW: u64 = 128;

/// What a name may take of the journal's state, in bytes: each run that it keeps and each that is apart, and its keys.
const LARGEST: usize = 2 * WINDOW as usize * RUN + 1024;
const RUN: usize = 24;

/// Whose event it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) producer: u64,
    pub(crate) sequence: u64,
}

/// The marks of the events in a ring's slots.
pub(crate) struct Marks {
    slots: Box<[Slot]>,
}

#[derive(Default)]
struct Slot {
    /// The offset that it is of, and one more: what is left of an earlier lap says nothing.
    of: AtomicU64,
    producer: AtomicU64,
    sequence: AtomicU64,
}

impl Marks {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: (0..capacity).map(|_| Slot::default()).collect() }
    }

    fn slot(&self, offset: u64) -> &Slot {
        // The capacity is a power of two.
        &self.slots[offset as usize & (self.slots.len() - 1)]
    }

    /// Between claim and publish, which releases it.
    pub(crate) fn set(&self, offset: u64, mark: Mark) {
        let slot = self.slot(offset);
        slot.producer.store(mark.producer, Ordering::Relaxed);
        slot.sequence.store(mark.sequence, Ordering::Relaxed);
        slot.of.store(offset + 1, Ordering::Relaxed);
    }

    /// Of an event that the caller's gate keeps.
    pub(crate) fn get(&self, offset: u64) -> Option<Mark> {
        let slot = self.slot(offset);
        (slot.of.load(Ordering::Relaxed) == offset + 1).then(|| Mark {
            producer: slot.producer.load(Ordering::Relaxed),
            sequence: slot.sequence.load(Ordering::Relaxed),
        })
    }
}

/// Sequences that follow one another, at offsets that do so too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    sequence: u64,
    len: u64,
    partition: u32,
    first: u64,
}

/// Which sequences of a name the journal has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// All before it are there; none before the first was published.
    pub(crate) next: Option<u64>,
    /// In order: the last ones before `next`, and those that are apart behind it.
    runs: Vec<Run>,
    pub(crate) used: Timestamp,
}

impl Progress {
    fn note(&mut self, sequence: u64, partition: u32, offset: u64) {
        let place = self.runs.partition_point(|run| run.sequence <= sequence);
        let before = place.checked_sub(1).and_then(|before| self.runs.get_mut(before));
        match before {
            Some(run) if sequence < run.sequence + run.len => return,
            Some(run)
                if (run.sequence + run.len, run.partition, run.first + run.len) == (sequence, partition, offset) =>
            {
                run.len += 1;
            }
            _ => self.runs.insert(place, Run { sequence, len: 1, partition, first: offset }),
        }
        let mut next = self.next.unwrap_or(sequence);
        let from = self.runs.partition_point(|run| run.sequence + run.len <= next);
        for run in &self.runs[from..] {
            if run.sequence > next {
                break;
            }
            next = run.sequence + run.len;
        }
        self.next = Some(next);
        let kept = next.saturating_sub(WINDOW);
        let old = self.runs.partition_point(|run| run.sequence + run.len <= kept);
        self.runs.drain(..old);
    }

    /// The receipts that are kept: partition and offset by sequence.
    pub(crate) fn receipts(&self) -> BTreeMap<u64, (u32, u64)> {
        let kept = self.next.unwrap_or(0).saturating_sub(WINDOW);
        // Of a run nothing is kept that is further from its end: nobody publishes further ahead.
        let kept_of = |run: &Run| run.len.saturating_sub(2 * WINDOW)..run.len;
        let each = self.runs.iter().flat_map(|run| kept_of(run).map(move |at| (run, at)));
        let each = each.map(|(run, at)| (run.sequence + at, (run.partition, run.first + at)));
        each.filter(|(sequence, _)| *sequence >= kept).collect()
    }

    /// The last receipt; none if nothing was published.
    pub(crate) fn last(&self) -> Option<(u32, u64)> {
        let run = self.runs.last()?;
        Some((run.partition, run.first + run.len - 1))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.used.as_nanos().to_le_bytes().to_vec();
        let Some(next) = self.next else { return out };
        out.extend_from_slice(&next.to_le_bytes());
        for run in &self.runs {
            // Of a long run only what is near the end can be asked for.
            let cut = next.saturating_sub(WINDOW).saturating_sub(run.sequence).min(run.len - 1);
            let len = u32::try_from(run.len - cut).unwrap_or(u32::MAX);
            out.extend_from_slice(&(run.sequence + cut).to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&run.partition.to_le_bytes());
            out.extend_from_slice(&(run.first + cut).to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (used, rest) = bytes.split_first_chunk()?;
        let used = Timestamp::from_nanos(u64::from_le_bytes(*used));
        if rest.is_empty() {
            return Some(Self { used, ..Self::default() });
        }
        let (next, rest) = rest.split_first_chunk()?;
        let (runs, rest) = rest.as_chunks::<RUN>();
        let run = |run: &[u8; RUN]| {
            let (sequence, run) = run.split_first_chunk()?;
            let (len, run) = run.split_first_chunk()?;
            let (partition, first) = run.split_first_chunk()?;
            Some(Run {
                sequence: u64::from_le_bytes(*sequence),
                len: u32::from_le_bytes(*len).into(),
                partition: u32::from_le_bytes(*partition),
                first: u64::from_le_bytes(first.try_into().ok()?),
            })
        };
        let runs: Vec<Run> = runs.iter().map(run).collect::<Option<_>>()?;
        // Numbers that somebody forged: those that are added to one another must have a sum.
        let is_sane = |run: &Run| {
            let ends = run.sequence.checked_add(run.len).zip(run.first.checked_add(run.len));
            run.len > 0 && ends.is_some()
        };
        if !runs.iter().all(is_sane) {
            return None;
        }
        rest.is_empty().then_some(Self { next: Some(u64::from_le_bytes(*next)), runs, used })
    }
}

/// A name's place in the journal.
pub(crate) struct Ledger {
    pub(crate) number: u64,
    topic: u32,
    name: String,
    progress: Mutex<Progress>,
}

/// The first byte of a key.
const EPOCH: u8 = 0;
const PROGRESS: u8 = 1;

fn key(kind: u8, topic: u32, name: &str) -> Vec<u8> {
    [&[kind][..], &topic.to_le_bytes(), name.as_bytes()].concat()
}

impl Ledger {
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first sequence is about to be published.
    pub(crate) fn begin(&self, sequence: u64) {
        self.progress().next = Some(sequence);
    }

    /// That the name was opened so often.
    pub(crate) fn put_epoch(&self, frame: &mut FrameBuilder, epoch: u64) {
        frame.put(what::PRODUCERS, &key(EPOCH, self.topic, &self.name), &epoch.to_le_bytes());
    }

    fn put_progress(&self, frame: &mut FrameBuilder, now: Timestamp) {
        let mut progress = self.progress();
        progress.used = now;
        frame.put(what::PRODUCERS, &key(PROGRESS, self.topic, &self.name), &progress.encode());
    }

    pub(crate) fn forget(&self, frame: &mut FrameBuilder) {
        [EPOCH, PROGRESS].iter().for_each(|kind| frame.delete(what::PRODUCERS, &key(*kind, self.topic, &self.name)));
    }
}

/// All names of a journal.
#[derive(Default)]
pub(crate) struct Ledgers {
    /// By number, which is never given again.
    known: Mutex<(u64, HashMap<u64, Arc<Ledger>>)>,
}

/// A name that the journal had when it was opened.
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) progress: Progress,
}

impl Ledgers {
    fn known(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Ledger>>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names that a topic had.
    pub(crate) fn recorded(state: &State, topic: u32) -> Vec<Recorded> {
        let epochs = state.values(what::PRODUCERS).filter_map(|(at, epoch)| {
            let name = at.strip_prefix(&key(EPOCH, topic, "")[..])?;
            Some((std::str::from_utf8(name).ok()?.to_owned(), u64::from_le_bytes(epoch.try_into().ok()?)))
        });
        let with_progress = epochs.map(|(name, epoch)| {
            let progress = state.get(what::PRODUCERS, &key(PROGRESS, topic, &name)).and_then(Progress::decode);
            Recorded { name, epoch, progress: progress.unwrap_or_default() }
        });
        with_progress.collect()
    }

    /// Deletes all names of a topic.
    pub(crate) fn forget_topic(&self, frame: &mut FrameBuilder, topic: u32) {
        self.known().1.retain(|_, ledger| {
            if ledger.topic == topic {
                ledger.forget(frame);
            }
            ledger.topic != topic
        });
    }

    pub(crate) fn add(&self, topic: u32, name: &str, progress: Progress) -> Arc<Ledger> {
        let (last, known) = &mut *self.known();
        *last += 1;
        let ledger = Ledger { number: *last, topic, name: name.to_owned(), progress: Mutex::new(progress) };
        let ledger = Arc::new(ledger);
        known.insert(*last, Arc::clone(&ledger));
        ledger
    }

    pub(crate) fn remove(&self, ledger: &Ledger) {
        self.known().1.remove(&ledger.number);
    }

    pub(crate) fn len(&self) -> usize {
        self.known().1.len()
    }

    /// How many names a journal with frames of so many bytes takes: all must fit beside the events of one.
    pub(crate) fn limit(frame: usize) -> usize {
        frame / 4 / LARGEST
    }

    fn get(&self, number: u64) -> Option<Arc<Ledger>> {
        self.known().1.get(&number).cloned()
    }
}

/// The names of which there is something in the frame that is being gathered.
#[derive(Default)]
pub(crate) struct Touched {
    list: Vec<Arc<Ledger>>,
    last: usize,
}

impl Touched {
    /// An event with this mark is in the frame.
    pub(crate) fn note(&mut self, ledgers: &Ledgers, mark: Mark, partition: u32, offset: u64) {
        if self.list.get(self.last).is_none_or(|ledger| ledger.number != mark.producer) {
            let known = self.list.iter().position(|ledger| ledger.number == mark.producer);
            self.last = known.unwrap_or(self.list.len());
            if known.is_none() {
                // One that is gone was forgotten with its topic.
                let Some(ledger) = ledgers.get(mark.producer) else { return };
                self.list.push(ledger);
            }
        }
        if let Some(ledger) = self.list.get(self.last) {
            ledger.progress().note(mark.sequence, partition, offset);
        }
    }

    /// Puts what is known now into the frame.
    pub(crate) fn put(&mut self, frame: &mut FrameBuilder, now: Timestamp) {
        self.list.drain(..).for_each(|ledger| ledger.put_progress(frame, now));
        self.last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MAX_NAME;
    use proptest::prelude::*;

    #[test]
    fn a_mark_is_of_one_lap() {
        let marks = Marks::new(4);
        assert_eq!(marks.get(0), None);
        let mark = Mark { producer: 7, sequence: 9 };
        marks.set(2, mark);
        assert_eq!((marks.get(2), marks.get(6), marks.get(1)), (Some(mark), None, None));
    }

    proptest! {
        /// Several partitions are taken up in any order within the window: what is there is known, what is not is not, and
        /// it is small.
        #[test]
        fn what_is_taken_up_in_any_order_is_known(
            picks in prop::collection::vec(0..4_usize, 1..600), first in 0..1000_u64, routes in prop::collection::vec(0..3_u32, 7)
        ) {
            let mut waiting: Vec<std::collections::VecDeque<(u64, u64)>> = vec![Default::default(); 3];
            let (mut progress, mut there) = (Progress { next: Some(first), ..Progress::default() }, BTreeMap::new());
            let (mut published, mut offsets) = (first, [100_u64; 3]);
            for pick in picks {
                let in_window = published - progress.next.unwrap() < WINDOW;
                if pick == 3 && in_window {
                    let to = routes[published as usize % routes.len()];
                    waiting[to as usize].push_back((published, offsets[to as usize]));
                    offsets[to as usize] += 1 + published % 2;
                    published += 1;
                } else if let Some((sequence, offset)) = waiting[pick % 3].pop_front() {
                    progress.note(sequence, (pick % 3) as u32, offset);
                    there.insert(sequence, ((pick % 3) as u32, offset));
                }
                let next = progress.next.unwrap();
                prop_assert_eq!((first..).find(|sequence| !there.contains_key(sequence)), Some(next));
                let kept: BTreeMap<_, _> = there.range(next.saturating_sub(WINDOW)..).map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(progress.receipts(), kept.clone());
                let bytes = progress.encode();
                prop_assert!(bytes.len() + 2 * (MAX_NAME + 24) <= LARGEST);
                prop_assert_eq!(Progress::decode(&bytes).unwrap().receipts(), kept);
                prop_assert_eq!(Progress::decode(&bytes).unwrap().next, Some(next));
            }
        }
    }
}
