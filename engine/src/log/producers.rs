//! What a journal knows of producers with names: which of their sequences it has, and where.
//!
//! A stamp beside a slot says whose event it is, and which. The committer takes the stamps up with the events, and notes
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
use crate::log::catalog::state_kind;
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
pub(crate) struct ProducerStamp {
    pub(crate) producer: u64,
    pub(crate) sequence: u64,
}

/// The stamps of the events in a ring's slots.
pub(crate) struct ProducerStamps {
    slots: Box<[StampSlot]>,
}

#[derive(Default)]
struct StampSlot {
    /// The offset that it is of, and one more: what is left of an earlier lap says nothing.
    of: AtomicU64,
    producer: AtomicU64,
    sequence: AtomicU64,
}

impl ProducerStamps {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: (0..capacity).map(|_| StampSlot::default()).collect() }
    }

    fn slot(&self, offset: u64) -> &StampSlot {
        // The capacity is a power of two.
        &self.slots[offset as usize & (self.slots.len() - 1)]
    }

    /// Between claim and publish, which releases it.
    pub(crate) fn set(&self, offset: u64, stamp: ProducerStamp) {
        let slot = self.slot(offset);
        slot.producer.store(stamp.producer, Ordering::Relaxed);
        slot.sequence.store(stamp.sequence, Ordering::Relaxed);
        slot.of.store(offset + 1, Ordering::Relaxed);
    }

    /// Of an event that the caller's gate keeps.
    pub(crate) fn get(&self, offset: u64) -> Option<ProducerStamp> {
        let slot = self.slot(offset);
        (slot.of.load(Ordering::Relaxed) == offset + 1).then(|| ProducerStamp {
            producer: slot.producer.load(Ordering::Relaxed),
            sequence: slot.sequence.load(Ordering::Relaxed),
        })
    }
}

/// Sequences that follow one another, at offsets that do so too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SequenceRun {
    sequence: u64,
    len: u64,
    partition: u32,
    first: u64,
}

/// Which sequences of a name the journal has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SequenceWindow {
    /// All before it are there; none before the first was published.
    pub(crate) next: Option<u64>,
    /// In order: the last ones before `next`, and those that are apart behind it.
    runs: Vec<SequenceRun>,
    pub(crate) used: Timestamp,
}

impl SequenceWindow {
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
            _ => self.runs.insert(place, SequenceRun { sequence, len: 1, partition, first: offset }),
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
        let kept_of = |run: &SequenceRun| run.len.saturating_sub(2 * WINDOW)..run.len;
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
            let run = SequenceRun { sequence: run.sequence + cut, len: run.len - cut, first: run.first + cut, ..*run };
            let ahead = run.sequence.wrapping_sub(before) as i64;
            varint::put(&mut out, (ahead << 1 ^ ahead >> 63) as u64);
            run.put(&mut out);
            before = run.sequence + run.len;
        }
        out
    }

    /// A base and the notes behind it; what is known by all of that, and how many bytes the notes have.
    fn decode(mut bytes: &[u8]) -> Option<(Self, usize)> {
        let (mut window, mut notes) = (Self::default(), 0);
        while let Some((&kind, rest)) = bytes.split_first() {
            let before = bytes.len();
            bytes = rest;
            if kind == BASE {
                let (used, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                window = Self { used: Timestamp::from_nanos(u64::from_le_bytes(*used)), ..Self::default() };
                window.next = varint::take(&mut bytes)?.checked_sub(1);
                let Some(mut before) = window.next else { continue };
                for _ in 0..varint::take(&mut bytes)? {
                    let ahead = varint::take(&mut bytes)?;
                    let sequence = before.wrapping_add((ahead >> 1) ^ (ahead & 1).wrapping_neg());
                    let run = SequenceRun::take(sequence, &mut bytes)?;
                    before = sequence.checked_add(run.len)?;
                    window.runs.push(run);
                }
                continue;
            }
            for _ in 0..kind {
                let sequence = varint::take(&mut bytes)?;
                let run = SequenceRun::take(sequence, &mut bytes)?;
                sequence.checked_add(run.len)?;
                // What is so long is not apart, and of that only the end can be asked for.
                let skipped = run.len.saturating_sub(2 * WINDOW);
                if skipped > 0 {
                    window.next = window.next.max(Some(sequence + skipped));
                }
                for at in skipped..run.len {
                    window.note(sequence + at, run.partition, run.first + at);
                }
            }
            notes += before - bytes.len();
        }
        Some((window, notes))
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
            Some(SequenceRun {
                sequence: u64::from_le_bytes(*sequence),
                len: u32::from_le_bytes(*len).into(),
                partition: u32::from_le_bytes(*partition),
                first: u64::from_le_bytes(first.try_into().ok()?),
            })
        };
        let runs: Vec<SequenceRun> = runs.iter().map(run).collect::<Option<_>>()?;
        // Numbers that somebody forged: those that are added to one another must have a sum.
        let is_sane = |run: &SequenceRun| {
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

impl SequenceRun {
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
pub(crate) struct ProducerState {
    /// What stands for the name where it is written often.
    pub(crate) number: u64,
    topic: u32,
    name: String,
    window: Mutex<SequenceWindow>,
    /// Of the base that the journal has; none if it has none.
    base: Mutex<Option<WindowBase>>,
    /// It has a value as the first version of the format wrote it.
    is_old: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct WindowBase {
    used: Timestamp,
    /// Bytes of the notes behind it.
    notes: usize,
}

/// The first byte of a key. What is known of a name stands under its number; in the first version under the name.
const EPOCH_KEY: u8 = 0;
const OLD_WINDOW_KEY: u8 = 1;
const WINDOW_KEY: u8 = 2;

fn key(kind: u8, topic: u32, name: &str) -> Vec<u8> {
    [&[kind][..], &topic.to_le_bytes(), name.as_bytes()].concat()
}

fn window_key(number: u64) -> [u8; 5] {
    let [a, b, c, d, ..] = number.to_le_bytes();
    [WINDOW_KEY, a, b, c, d]
}

/// All keys, each with the topic that it is of; none for what a name has left that is no more.
pub(crate) fn owners(state: &State) -> Vec<(&[u8], Option<u32>)> {
    let word = |key: &[u8]| Some(u32::from_le_bytes(*key.get(1..)?.first_chunk()?));
    let names = state.values(state_kind::PRODUCERS).filter(|(key, _)| key.first() == Some(&EPOCH_KEY));
    let topics: HashMap<[u8; 5], u32> =
        names.filter_map(|(key, value)| Some((window_key(number_of(value)?), word(key)?))).collect();
    let owner = |key: &[u8]| match key.first() {
        Some(&WINDOW_KEY) => Some(<[u8; 5]>::try_from(key).ok().and_then(|key| topics.get(&key).copied())),
        Some(_) => Some(Some(word(key)?)),
        None => None,
    };
    state.values(state_kind::PRODUCERS).filter_map(|(key, _)| Some((key, owner(key)?))).collect()
}

impl ProducerState {
    pub(crate) fn window(&self) -> MutexGuard<'_, SequenceWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first sequence is about to be published.
    pub(crate) fn begin(&self, sequence: u64) {
        self.window().next = Some(sequence);
    }

    /// That the name was opened so often, and its number.
    pub(crate) fn put_epoch(&self, frame: &mut FrameBuilder, epoch: u64) {
        let value = [epoch.to_le_bytes(), self.number.to_le_bytes()].concat();
        frame.put(state_kind::PRODUCERS, &key(EPOCH_KEY, self.topic, &self.name), &value);
    }

    /// Notes these runs, which are taken up by now, or more than that many if there are none.
    fn put_window(&self, frame: &mut FrameBuilder, runs: Option<&[SequenceRun]>, now: Timestamp) {
        if runs.is_some_and(<[SequenceRun]>::is_empty) {
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
                frame.append_to(state_kind::PRODUCERS, &window_key(self.number), &notes);
                return;
            }
        }
        let mut window = self.window();
        window.used = now;
        frame.put(state_kind::PRODUCERS, &window_key(self.number), &window.encode());
        if self.is_old.swap(false, Ordering::Relaxed) {
            frame.delete(state_kind::PRODUCERS, &key(OLD_WINDOW_KEY, self.topic, &self.name));
        }
        *base = Some(WindowBase { used: now, notes: 0 });
    }

    pub(crate) fn forget(&self, frame: &mut FrameBuilder) {
        [EPOCH_KEY, OLD_WINDOW_KEY]
            .iter()
            .for_each(|kind| frame.delete(state_kind::PRODUCERS, &key(*kind, self.topic, &self.name)));
        frame.delete(state_kind::PRODUCERS, &window_key(self.number));
    }
}

/// All names of a journal.
#[derive(Default)]
pub(crate) struct ProducerStates {
    /// By number, which is never given again.
    known: Mutex<(u64, HashMap<u64, Arc<ProducerState>>)>,
}

/// A name that the journal had when it was opened.
pub(crate) struct RecordedProducer {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) window: SequenceWindow,
    /// None of a name that only the first version of the format has written.
    number: Option<u64>,
    base: Option<WindowBase>,
}

/// The number that stands behind an epoch, if there is one.
fn number_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*value.get(8..)?.first_chunk()?))
}

impl ProducerStates {
    fn known(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<ProducerState>>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers that the journal has are not given again.
    pub(crate) fn new(state: &State) -> Self {
        let epochs = state.values(state_kind::PRODUCERS).filter(|(at, _)| at.first() == Some(&EPOCH_KEY));
        let last = epochs.filter_map(|(_, epoch)| number_of(epoch)).max().unwrap_or(0);
        Self { known: Mutex::new((last, HashMap::new())) }
    }

    /// The names that a topic had.
    pub(crate) fn recorded(state: &State, topic: u32) -> Vec<RecordedProducer> {
        let names = state.values(state_kind::PRODUCERS).filter_map(|(at, value)| {
            let name = std::str::from_utf8(at.strip_prefix(&key(EPOCH_KEY, topic, "")[..])?).ok()?.to_owned();
            let (epoch, number) = (u64::from_le_bytes(*value.first_chunk()?), number_of(value));
            let of_number = number.and_then(|number| state.get(state_kind::PRODUCERS, &window_key(number)));
            let of_name = || state.get(state_kind::PRODUCERS, &key(OLD_WINDOW_KEY, topic, &name));
            let (window, base) = match of_number.and_then(SequenceWindow::decode) {
                Some((window, notes)) => (window.clone(), Some(WindowBase { used: window.used, notes })),
                None => (of_name().and_then(SequenceWindow::decode_old).unwrap_or_default(), None),
            };
            Some(RecordedProducer { name, epoch, window, number, base })
        });
        names.collect()
    }

    /// Nothing more is written of a topic's names.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.known().1.retain(|_, producer_state| producer_state.topic != topic);
    }

    /// A new name.
    pub(crate) fn add(&self, topic: u32, name: &str) -> Arc<ProducerState> {
        let known = &mut *self.known();
        Self::insert(known, (topic, name), None, (SequenceWindow::default(), None), false)
    }

    /// One that the journal had.
    pub(crate) fn restore(&self, topic: u32, recorded: RecordedProducer) -> Arc<ProducerState> {
        let RecordedProducer { name, window, number, base, .. } = recorded;
        let is_old = base.is_none();
        Self::insert(&mut self.known(), (topic, &name), number, (window, base), is_old)
    }

    fn insert(
        known: &mut (u64, HashMap<u64, Arc<ProducerState>>),
        (topic, name): (u32, &str),
        number: Option<u64>,
        (window, base): (SequenceWindow, Option<WindowBase>),
        is_old: bool,
    ) -> Arc<ProducerState> {
        let (last, known) = known;
        let number = number.unwrap_or_else(|| {
            *last += 1;
            *last
        });
        let (window, base) = (Mutex::new(window), Mutex::new(base));
        let producer_state =
            ProducerState { number, topic, name: name.to_owned(), window, base, is_old: AtomicBool::new(is_old) };
        let producer_state = Arc::new(producer_state);
        known.insert(number, Arc::clone(&producer_state));
        producer_state
    }

    pub(crate) fn remove(&self, producer_state: &ProducerState) {
        self.known().1.remove(&producer_state.number);
    }

    pub(crate) fn len(&self) -> usize {
        self.known().1.len()
    }

    /// How many names a journal takes whose state may have so many bytes, and its frames: they fill no more than half of
    /// the state, and the largest one fits beside the events of a frame.
    pub(crate) fn limit(state: usize, frame: usize) -> usize {
        if frame / 4 < LARGEST_BASE { 0 } else { state / 2 / LARGEST }
    }

    fn get(&self, number: u64) -> Option<Arc<ProducerState>> {
        self.known().1.get(&number).cloned()
    }
}

/// The names of which there is something in the frame that is being gathered.
#[derive(Default)]
pub(crate) struct TouchedProducers {
    list: Vec<TouchedProducer>,
    last: usize,
}

struct TouchedProducer {
    producer_state: Arc<ProducerState>,
    /// What is noted; none if it is too much.
    runs: Option<Vec<SequenceRun>>,
}

impl TouchedProducers {
    /// An event with this stamp is in the frame.
    pub(crate) fn note(&mut self, producer_states: &ProducerStates, stamp: ProducerStamp, partition: u32, offset: u64) {
        if self.list.get(self.last).is_none_or(|touch| touch.producer_state.number != stamp.producer) {
            let known = self.list.iter().position(|touch| touch.producer_state.number == stamp.producer);
            self.last = known.unwrap_or(self.list.len());
            if known.is_none() {
                // One that is gone was forgotten with its topic.
                let Some(producer_state) = producer_states.get(stamp.producer) else { return };
                self.list.push(TouchedProducer { producer_state, runs: Some(Vec::new()) });
            }
        }
        let Some(TouchedProducer { producer_state, runs }) = self.list.get_mut(self.last) else { return };
        let ProducerStamp { sequence, .. } = stamp;
        if !producer_state.window().note(sequence, partition, offset) {
            return;
        }
        let Some(noted) = runs else { return };
        if let Some(run) = noted.last_mut()
            && (run.sequence + run.len, run.partition, run.first + run.len) == (sequence, partition, offset)
        {
            run.len += 1;
        } else if noted.len() < MOST_RUNS {
            noted.push(SequenceRun { sequence, len: 1, partition, first: offset });
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
        self.list.drain(..).for_each(|TouchedProducer { producer_state, runs }| {
            producer_state.put_window(frame, runs.as_deref(), now)
        });
        self.last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::MAX_NAME;
    use proptest::prelude::*;

    #[test]
    fn a_stamp_is_of_one_lap() {
        let stamps = ProducerStamps::new(4);
        assert_eq!(stamps.get(0), None);
        let stamp = ProducerStamp { producer: 7, sequence: 9 };
        stamps.set(2, stamp);
        assert_eq!((stamps.get(2), stamps.get(6), stamps.get(1)), (Some(stamp), None, None));
    }

    proptest! {
        /// Several partitions are taken up in any order within the window: what is there is known, what is not is not, and
        /// it is small.
        #[test]
        fn what_is_taken_up_in_any_order_is_known(
            picks in prop::collection::vec(0..4_usize, 1..600), first in 0..1000_u64, routes in prop::collection::vec(0..3_u32, 7)
        ) {
            let mut waiting: Vec<std::collections::VecDeque<(u64, u64)>> = vec![Default::default(); 3];
            let (mut window, mut there) = (SequenceWindow { next: Some(first), ..SequenceWindow::default() }, BTreeMap::new());
            let (mut published, mut offsets) = (first, [100_u64; 3]);
            for pick in picks {
                let in_window = published - window.next.unwrap() < WINDOW;
                if pick == 3 && in_window {
                    let to = routes[published as usize % routes.len()];
                    waiting[to as usize].push_back((published, offsets[to as usize]));
                    offsets[to as usize] += 1 + published % 2;
                    published += 1;
                } else if let Some((sequence, offset)) = waiting[pick % 3].pop_front() {
                    window.note(sequence, (pick % 3) as u32, offset);
                    there.insert(sequence, ((pick % 3) as u32, offset));
                }
                let next = window.next.unwrap();
                prop_assert_eq!((first..).find(|sequence| !there.contains_key(sequence)), Some(next));
                let kept: BTreeMap<_, _> = there.range(next.saturating_sub(WINDOW)..).map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(window.receipts(), kept.clone());
                let bytes = window.encode();
                prop_assert!(bytes.len() <= LARGEST_BASE && LARGEST_BASE + NOTES + 2 * (MAX_NAME + 24) <= LARGEST);
                let (decoded, notes) = SequenceWindow::decode(&bytes).unwrap();
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
            let mut producer_states = ProducerStates::new(&state);
            let mut producer_state = producer_states.add(7, "gateway");
            let mut epoch = FrameBuilder::new();
            producer_state.put_epoch(&mut epoch, 1);
            state.take(&mut epoch);
            producer_state.begin(first);
            let (mut model, mut touched) = (SequenceWindow { next: Some(first), ..SequenceWindow::default() }, TouchedProducers::default());
            let (mut sequence, mut offsets, mut now) = (first, [0_u64; 3], Timestamp::from_nanos(1));
            let mut frame = FrameBuilder::new();
            for (runs, seconds) in frames {
                now = now.plus(Duration::from_secs(seconds));
                for (partition, len) in runs {
                    for _ in 0..len {
                        let offset = offsets[partition as usize];
                        let stamp = ProducerStamp { producer: producer_state.number, sequence };
                        touched.note(&producer_states, stamp, partition, offset);
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
                let values = |state: &State| state.values(state_kind::PRODUCERS).map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>();
                prop_assert_eq!(values(&of_segment), values(&state));
                let [found] = &ProducerStates::recorded(&state, 7)[..] else { panic!("one name") };
                prop_assert_eq!((found.window.receipts(), found.window.next), (model.receipts(), model.next));
                prop_assert!(now.since(found.window.used) <= STALE);
                if seconds % 10 == 0 {
                    producer_states = ProducerStates::new(&state);
                    let recorded = ProducerStates::recorded(&state, 7).remove(0);
                    producer_state = producer_states.restore(7, recorded);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (SequenceWindow::decode(&bytes), SequenceWindow::decode_old(&bytes));
        }
    }

    #[test]
    fn a_value_of_the_first_version_is_read_and_replaced() {
        let mut state = State::default();
        let mut frame = FrameBuilder::new();
        frame.put(state_kind::PRODUCERS, &key(EPOCH_KEY, 7, "gateway"), &3_u64.to_le_bytes());
        let run =
            [&40_u64.to_le_bytes()[..], &5_u32.to_le_bytes(), &1_u32.to_le_bytes(), &90_u64.to_le_bytes()].concat();
        let old = [&9_u64.to_le_bytes()[..], &45_u64.to_le_bytes(), &run].concat();
        frame.put(state_kind::PRODUCERS, &key(OLD_WINDOW_KEY, 7, "gateway"), &old);
        state.take(&mut frame);
        let producer_states = ProducerStates::new(&state);
        let recorded = ProducerStates::recorded(&state, 7).remove(0);
        assert_eq!((recorded.epoch, recorded.window.next, recorded.window.last()), (3, Some(45), Some((1, 94))));
        let producer_state = producer_states.restore(7, recorded);
        let mut touched = TouchedProducers::default();
        touched.note(&producer_states, ProducerStamp { producer: producer_state.number, sequence: 45 }, 1, 95);
        frame.clear();
        producer_state.put_epoch(&mut frame, 4);
        touched.put(&mut frame, Timestamp::from_nanos(10));
        state.take(&mut frame);
        let found = ProducerStates::recorded(&state, 7).remove(0);
        assert_eq!((found.epoch, found.window.next, found.window.receipts().len()), (4, Some(46), 6));
        assert_eq!(state.values(state_kind::PRODUCERS).count(), 2, "the old value has gone");
    }
}
