//! What a journal knows of producers with names: which of their sequences it has, and where.
//!
//! A mark beside a slot says whose event it is, and which. The journaler takes the marks up with the events, and notes
//! them in the same frame: so after a crash the journal knows of exactly the sequences that it has. Frames
//! take several partitions in any order, so a sequence may be there before an earlier one: that is kept apart until the
//! gap is filled. It is bounded, because nobody publishes further than [`WINDOW`] ahead of what was taken up.
//!
//! # What a frame says
//! A note: the sequences of its own events and where they are, some ten bytes. Notes are appended to the name's value, which
//! begins with a *base*: all that is known of the name, some kilobytes where it has several partitions. The base is
//! written anew when its notes have become [`NOTES`] bytes, when there is more to note than a base has, and when it is so
//! old that the name would seem unused.

use crate::base::clock::Timestamp;
use crate::base::varint;
use crate::log::catalog::what;
use slipring_journal::{FrameBuilder, State};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far a producer with a name is ahead of what the journal has taken up, where there are several partitions. As many
/// receipts outlive the process.
pub(crate) const WINDOW: u64 = 128;

/// Bytes of notes behind a base.
const NOTES: usize = 512;

/// Runs that a frame notes one by one.
const MOST_RUNS: usize = 64;

/// The largest base, and the largest run in it: a sequence near the one before, a length within the window, a partition,
/// an offset.
const LARGEST_BASE: usize = 64 + 2 * WINDOW as usize * (2 + 2 + 2 + 9);

/// What a name may take of the journal's state, in bytes.
const LARGEST: usize = LARGEST_BASE + NOTES + 640;

/// How long a name is known after its last publish, at least.
pub const PRODUCER_NAME_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// How much older the time of a base may be than the name's last event.
const STALE: Duration = Duration::from_secs(PRODUCER_NAME_EXPIRY.as_secs() / 64);

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
    /// False if the sequence is known already.
    fn note(&mut self, sequence: u64, partition: u32, offset: u64) -> bool {
        let place = self.runs.partition_point(|run| run.sequence <= sequence);
        let before = place.checked_sub(1).and_then(|before| self.runs.get_mut(before));
        match before {
            Some(run) if sequence < run.sequence + run.len => return false,
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
        true
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

    /// A base: 0, the time, then the next sequence and one more, how many runs, and these.
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![BASE];
        out.extend_from_slice(&self.used.as_nanos().to_le_bytes());
        let Some(next) = self.next else {
            out.push(0);
            return out;
        };
        // The highest number is no sequence.
        varint::put(&mut out, next.saturating_add(1));
        varint::put(&mut out, self.runs.len() as u64);
        let mut before = next;
        for run in &self.runs {
            // Of a long run only what is near the end can be asked for.
            let cut = next.saturating_sub(WINDOW).saturating_sub(run.sequence).min(run.len - 1);
            let run = Run { sequence: run.sequence + cut, len: run.len - cut, first: run.first + cut, ..*run };
            let ahead = run.sequence.wrapping_sub(before) as i64;
            varint::put(&mut out, (ahead << 1 ^ ahead >> 63) as u64);
            run.put(&mut out);
            before = run.sequence + run.len;
        }
        out
    }

    /// A base and the notes behind it; what is known by all of that, and how many bytes the notes have.
    fn decode(mut bytes: &[u8]) -> Option<(Self, usize)> {
        let (mut progress, mut notes) = (Self::default(), 0);
        while let Some((&kind, rest)) = bytes.split_first() {
            let before = bytes.len();
            bytes = rest;
            if kind == BASE {
                let (used, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                progress = Self { used: Timestamp::from_nanos(u64::from_le_bytes(*used)), ..Self::default() };
                progress.next = varint::take(&mut bytes)?.checked_sub(1);
                let Some(mut before) = progress.next else { continue };
                for _ in 0..varint::take(&mut bytes)? {
                    let ahead = varint::take(&mut bytes)?;
                    let sequence = before.wrapping_add((ahead >> 1) ^ (ahead & 1).wrapping_neg());
                    let run = Run::take(sequence, &mut bytes)?;
                    before = sequence.checked_add(run.len)?;
                    progress.runs.push(run);
                }
                continue;
            }
            for _ in 0..kind {
                let sequence = varint::take(&mut bytes)?;
                let run = Run::take(sequence, &mut bytes)?;
                sequence.checked_add(run.len)?;
                // What is so long is not apart, and of that only the end can be asked for.
                let skipped = run.len.saturating_sub(2 * WINDOW);
                if skipped > 0 {
                    progress.next = progress.next.max(Some(sequence + skipped));
                }
                for at in skipped..run.len {
                    progress.note(sequence + at, run.partition, run.first + at);
                }
            }
            notes += before - bytes.len();
        }
        Some((progress, notes))
    }

    /// What the first version of the format wrote: numbers of a fixed size, and all of the window.
    fn decode_old(bytes: &[u8]) -> Option<Self> {
        let (used, rest) = bytes.split_first_chunk()?;
        let used = Timestamp::from_nanos(u64::from_le_bytes(*used));
        if rest.is_empty() {
            return Some(Self { used, ..Self::default() });
        }
        let (next, rest) = rest.split_first_chunk()?;
        let (runs, rest) = rest.as_chunks::<24>();
        let run = |run: &[u8; 24]| {
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

/// The first byte of a base; of notes it says how many runs they have.
const BASE: u8 = 0;

impl Run {
    /// All but its sequence.
    fn put(&self, out: &mut Vec<u8>) {
        [self.len, u64::from(self.partition), self.first].iter().for_each(|number| varint::put(out, *number));
    }

    fn take(sequence: u64, bytes: &mut &[u8]) -> Option<Self> {
        let (len, partition, first) = (varint::take(bytes)?, varint::take(bytes)?, varint::take(bytes)?);
        // As many as a frame has at most; and offsets end where numbers do.
        let is_sound = (1..=u64::from(u32::MAX)).contains(&len) && first.checked_add(len).is_some();
        is_sound.then_some(Self { sequence, len, partition: u32::try_from(partition).ok()?, first })
    }
}

/// A name's place in the journal.
pub(crate) struct Ledger {
    /// What stands for the name where it is written often.
    pub(crate) number: u64,
    topic: u32,
    name: String,
    progress: Mutex<Progress>,
    /// Of the base that the journal has; none if it has none.
    base: Mutex<Option<Base>>,
    /// It has a value as the first version of the format wrote it.
    is_old: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Base {
    used: Timestamp,
    /// Bytes of the notes behind it.
    notes: usize,
}

/// The first byte of a key. What is known of a name stands under its number; in the first version under the name.
const EPOCH: u8 = 0;
const OLD_PROGRESS: u8 = 1;
const PROGRESS: u8 = 2;

fn key(kind: u8, topic: u32, name: &str) -> Vec<u8> {
    [&[kind][..], &topic.to_le_bytes(), name.as_bytes()].concat()
}

fn progress_key(number: u64) -> [u8; 5] {
    let [a, b, c, d, ..] = number.to_le_bytes();
    [PROGRESS, a, b, c, d]
}

/// All keys, each with the topic that it is of; none for what a name has left that is no more.
pub(crate) fn owners(state: &State) -> Vec<(&[u8], Option<u32>)> {
    let word = |key: &[u8]| Some(u32::from_le_bytes(*key.get(1..)?.first_chunk()?));
    let names = state.values(what::PRODUCERS).filter(|(key, _)| key.first() == Some(&EPOCH));
    let topics: HashMap<[u8; 5], u32> =
        names.filter_map(|(key, value)| Some((progress_key(number_of(value)?), word(key)?))).collect();
    let owner = |key: &[u8]| match key.first() {
        Some(&PROGRESS) => Some(<[u8; 5]>::try_from(key).ok().and_then(|key| topics.get(&key).copied())),
        Some(_) => Some(Some(word(key)?)),
        None => None,
    };
    state.values(what::PRODUCERS).filter_map(|(key, _)| Some((key, owner(key)?))).collect()
}

impl Ledger {
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first sequence is about to be published.
    pub(crate) fn begin(&self, sequence: u64) {
        self.progress().next = Some(sequence);
    }

    /// That the name was opened so often, and its number.
    pub(crate) fn put_epoch(&self, frame: &mut FrameBuilder, epoch: u64) {
        let value = [epoch.to_le_bytes(), self.number.to_le_bytes()].concat();
        frame.put(what::PRODUCERS, &key(EPOCH, self.topic, &self.name), &value);
    }

    /// Notes these runs, which are taken up by now, or more than that many if there are none.
    fn put_progress(&self, frame: &mut FrameBuilder, runs: Option<&[Run]>, now: Timestamp) {
        if runs.is_some_and(<[Run]>::is_empty) {
            return;
        }
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(base), Some(runs)) = (base.as_mut(), runs)
            && now.since(base.used) < STALE
        {
            let mut notes = vec![runs.len() as u8];
            for run in runs {
                varint::put(&mut notes, run.sequence);
                run.put(&mut notes);
            }
            if base.notes + notes.len() <= NOTES {
                base.notes += notes.len();
                frame.append_to(what::PRODUCERS, &progress_key(self.number), &notes);
                return;
            }
        }
        let mut progress = self.progress();
        progress.used = now;
        frame.put(what::PRODUCERS, &progress_key(self.number), &progress.encode());
        if self.is_old.swap(false, Ordering::Relaxed) {
            frame.delete(what::PRODUCERS, &key(OLD_PROGRESS, self.topic, &self.name));
        }
        *base = Some(Base { used: now, notes: 0 });
    }

    pub(crate) fn forget(&self, frame: &mut FrameBuilder) {
        [EPOCH, OLD_PROGRESS]
            .iter()
            .for_each(|kind| frame.delete(what::PRODUCERS, &key(*kind, self.topic, &self.name)));
        frame.delete(what::PRODUCERS, &progress_key(self.number));
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
    /// None of a name that only the first version of the format has written.
    number: Option<u64>,
    base: Option<Base>,
}

/// The number that stands behind an epoch, if there is one.
fn number_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*value.get(8..)?.first_chunk()?))
}

impl Ledgers {
    fn known(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Ledger>>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers that the journal has are not given again.
    pub(crate) fn new(state: &State) -> Self {
        let epochs = state.values(what::PRODUCERS).filter(|(at, _)| at.first() == Some(&EPOCH));
        let last = epochs.filter_map(|(_, epoch)| number_of(epoch)).max().unwrap_or(0);
        Self { known: Mutex::new((last, HashMap::new())) }
    }

    /// The names that a topic had.
    pub(crate) fn recorded(state: &State, topic: u32) -> Vec<Recorded> {
        let names = state.values(what::PRODUCERS).filter_map(|(at, value)| {
            let name = std::str::from_utf8(at.strip_prefix(&key(EPOCH, topic, "")[..])?).ok()?.to_owned();
            let (epoch, number) = (u64::from_le_bytes(*value.first_chunk()?), number_of(value));
            let of_number = number.and_then(|number| state.get(what::PRODUCERS, &progress_key(number)));
            let of_name = || state.get(what::PRODUCERS, &key(OLD_PROGRESS, topic, &name));
            let (progress, base) = match of_number.and_then(Progress::decode) {
                Some((progress, notes)) => (progress.clone(), Some(Base { used: progress.used, notes })),
                None => (of_name().and_then(Progress::decode_old).unwrap_or_default(), None),
            };
            Some(Recorded { name, epoch, progress, number, base })
        });
        names.collect()
    }

    /// Nothing more is written of a topic's names.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.known().1.retain(|_, ledger| ledger.topic != topic);
    }

    /// A new name.
    pub(crate) fn add(&self, topic: u32, name: &str) -> Arc<Ledger> {
        let known = &mut *self.known();
        Self::insert(known, (topic, name), None, (Progress::default(), None), false)
    }

    /// One that the journal had.
    pub(crate) fn restore(&self, topic: u32, recorded: Recorded) -> Arc<Ledger> {
        let Recorded { name, progress, number, base, .. } = recorded;
        let is_old = base.is_none();
        Self::insert(&mut self.known(), (topic, &name), number, (progress, base), is_old)
    }

    fn insert(
        known: &mut (u64, HashMap<u64, Arc<Ledger>>),
        (topic, name): (u32, &str),
        number: Option<u64>,
        (progress, base): (Progress, Option<Base>),
        is_old: bool,
    ) -> Arc<Ledger> {
        let (last, known) = known;
        let number = number.unwrap_or_else(|| {
            *last += 1;
            *last
        });
        let (progress, base) = (Mutex::new(progress), Mutex::new(base));
        let ledger = Ledger { number, topic, name: name.to_owned(), progress, base, is_old: AtomicBool::new(is_old) };
        let ledger = Arc::new(ledger);
        known.insert(number, Arc::clone(&ledger));
        ledger
    }

    pub(crate) fn remove(&self, ledger: &Ledger) {
        self.known().1.remove(&ledger.number);
    }

    pub(crate) fn len(&self) -> usize {
        self.known().1.len()
    }

    /// How many names a journal takes whose state may have so many bytes, and its frames: they fill no more than half of
    /// the state, and the largest one fits beside the events of a frame.
    pub(crate) fn limit(state: usize, frame: usize) -> usize {
        if frame / 4 < LARGEST_BASE { 0 } else { state / 2 / LARGEST }
    }

    fn get(&self, number: u64) -> Option<Arc<Ledger>> {
        self.known().1.get(&number).cloned()
    }
}

/// The names of which there is something in the frame that is being gathered.
#[derive(Default)]
pub(crate) struct Touched {
    list: Vec<Touch>,
    last: usize,
}

struct Touch {
    ledger: Arc<Ledger>,
    /// What is noted; none if it is too much.
    runs: Option<Vec<Run>>,
}

impl Touched {
    /// An event with this mark is in the frame.
    pub(crate) fn note(&mut self, ledgers: &Ledgers, mark: Mark, partition: u32, offset: u64) {
        if self.list.get(self.last).is_none_or(|touch| touch.ledger.number != mark.producer) {
            let known = self.list.iter().position(|touch| touch.ledger.number == mark.producer);
            self.last = known.unwrap_or(self.list.len());
            if known.is_none() {
                // One that is gone was forgotten with its topic.
                let Some(ledger) = ledgers.get(mark.producer) else { return };
                self.list.push(Touch { ledger, runs: Some(Vec::new()) });
            }
        }
        let Some(Touch { ledger, runs }) = self.list.get_mut(self.last) else { return };
        let Mark { sequence, .. } = mark;
        if !ledger.progress().note(sequence, partition, offset) {
            return;
        }
        let Some(noted) = runs else { return };
        if let Some(run) = noted.last_mut()
            && (run.sequence + run.len, run.partition, run.first + run.len) == (sequence, partition, offset)
        {
            run.len += 1;
        } else if noted.len() < MOST_RUNS {
            noted.push(Run { sequence, len: 1, partition, first: offset });
        } else {
            *runs = None;
        }
    }

    /// Whether what is to be put for one more name may take more than a quarter of a frame of so many bytes.
    pub(crate) fn is_full(&self, frame: usize) -> bool {
        !self.list.is_empty() && (self.list.len() + 1) * LARGEST_BASE > frame / 4
    }

    /// Puts what is known now into the frame.
    pub(crate) fn put(&mut self, frame: &mut FrameBuilder, now: Timestamp) {
        self.list.drain(..).for_each(|Touch { ledger, runs }| ledger.put_progress(frame, runs.as_deref(), now));
        self.last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::MAX_NAME;
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
                prop_assert!(bytes.len() <= LARGEST_BASE && LARGEST_BASE + NOTES + 2 * (MAX_NAME + 24) <= LARGEST);
                let (decoded, notes) = Progress::decode(&bytes).unwrap();
                prop_assert_eq!((decoded.receipts(), decoded.next, notes), (kept, Some(next), 0));
            }
        }

        /// After each frame the journal's state says what a writer would that writes all of the window each time, from
        /// the beginning of the journal and from that of a segment; and so it goes on after a restart.
        #[test]
        fn notes_say_what_the_whole_window_would(
            frames in prop::collection::vec((prop::collection::vec((0..3_u32, 1..400_u64), 1..80), 0..100_u64), 1..40),
            first in 0..1000_u64,
        ) {
            let mut state = State::default();
            let mut ledgers = Ledgers::new(&state);
            let mut ledger = ledgers.add(7, "gateway");
            let mut epoch = FrameBuilder::new();
            ledger.put_epoch(&mut epoch, 1);
            state.take(&mut epoch);
            ledger.begin(first);
            let (mut model, mut touched) = (Progress { next: Some(first), ..Progress::default() }, Touched::default());
            let (mut sequence, mut offsets, mut now) = (first, [0_u64; 3], Timestamp::from_nanos(1));
            let mut frame = FrameBuilder::new();
            for (runs, seconds) in frames {
                now = now.plus(Duration::from_secs(seconds));
                for (partition, len) in runs {
                    for _ in 0..len {
                        let offset = offsets[partition as usize];
                        let mark = Mark { producer: ledger.number, sequence };
                        touched.note(&ledgers, mark, partition, offset);
                        model.note(sequence, partition, offset);
                        sequence += 1;
                        offsets[partition as usize] += 1;
                    }
                }
                frame.clear();
                touched.put(&mut frame, now);
                prop_assert!(frame.len() <= LARGEST_BASE);
                state.take(&mut frame);
                let mut of_segment = State::default();
                state.snapshot(500).iter_mut().for_each(|part| of_segment.take(part));
                let values = |state: &State| state.values(what::PRODUCERS).map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>();
                prop_assert_eq!(values(&of_segment), values(&state));
                let [found] = &Ledgers::recorded(&state, 7)[..] else { panic!("one name") };
                prop_assert_eq!((found.progress.receipts(), found.progress.next), (model.receipts(), model.next));
                prop_assert!(now.since(found.progress.used) <= STALE);
                if seconds % 10 == 0 {
                    ledgers = Ledgers::new(&state);
                    let recorded = Ledgers::recorded(&state, 7).remove(0);
                    ledger = ledgers.restore(7, recorded);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Progress::decode(&bytes), Progress::decode_old(&bytes));
        }
    }

    #[test]
    fn a_value_of_the_first_version_is_read_and_replaced() {
        let mut state = State::default();
        let mut frame = FrameBuilder::new();
        frame.put(what::PRODUCERS, &key(EPOCH, 7, "gateway"), &3_u64.to_le_bytes());
        let run =
            [&40_u64.to_le_bytes()[..], &5_u32.to_le_bytes(), &1_u32.to_le_bytes(), &90_u64.to_le_bytes()].concat();
        let old = [&9_u64.to_le_bytes()[..], &45_u64.to_le_bytes(), &run].concat();
        frame.put(what::PRODUCERS, &key(OLD_PROGRESS, 7, "gateway"), &old);
        state.take(&mut frame);
        let ledgers = Ledgers::new(&state);
        let recorded = Ledgers::recorded(&state, 7).remove(0);
        assert_eq!((recorded.epoch, recorded.progress.next, recorded.progress.last()), (3, Some(45), Some((1, 94))));
        let ledger = ledgers.restore(7, recorded);
        let mut touched = Touched::default();
        touched.note(&ledgers, Mark { producer: ledger.number, sequence: 45 }, 1, 95);
        frame.clear();
        ledger.put_epoch(&mut frame, 4);
        touched.put(&mut frame, Timestamp::from_nanos(10));
        state.take(&mut frame);
        let found = Ledgers::recorded(&state, 7).remove(0);
        assert_eq!((found.epoch, found.progress.next, found.progress.receipts().len()), (4, Some(46), 6));
        assert_eq!(state.values(what::PRODUCERS).count(), 2, "the old value has gone");
    }
}
