//! The journal's state of idempotent producers: which of their sequences it has, and at which offsets.
//!
//! A stamp beside a slot names the producer of the event, and its sequence. The committer reads the stamps with the
//! events and records them in the same frame, so after a crash the journal knows exactly the sequences whose events it
//! has. A frame takes several partitions in any order, so a sequence may be written before an earlier one. Such a
//! sequence is kept apart until the earlier ones are written. There are few of them, because a producer publishes no
//! further than [`WINDOW`] sequences ahead of the written ones.
//!
//! # Bases and notes
//! A frame has a note for each producer: the sequences of the frame's own events and their offsets, some ten bytes.
//! Notes are appended to the value of the producer's name. The value begins with a *base*, the whole window of the
//! name: some kilobytes if the name has several partitions. The base is written anew when the notes after it have
//! [`NOTES`] bytes, when a note would have too many runs, and when the base is so old that the name would seem unused.

mod stamps;
mod window;

pub(crate) use stamps::{ProducerStamp, ProducerStamps};
use window::SequenceRun;
pub(crate) use window::SequenceWindow;

use crate::base::clock::Timestamp;
use crate::base::varint;
use crate::log::catalog::state_kind;
use slipring_journal::{FrameBuilder, State};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// By how many sequences an idempotent producer may be ahead of the written ones, if the topic has several partitions.
/// Also the number of receipts that survive the process.
pub(crate) const WINDOW: u64 = 128;

/// The limit of the notes after a base, in bytes.
const NOTES: usize = 512;

/// The limit of the runs in a note. If a frame has more, a base is written.
const MOST_RUNS: usize = 64;

/// The size of the largest base in bytes. Its largest run has a sequence near that of the run before (2 bytes), a
/// length within the window (2), a partition (2) and an offset (9).
const LARGEST_BASE: usize = 64 + 2 * WINDOW as usize * (2 + 2 + 2 + 9);

/// How many bytes of the journal's state a name takes at most.
const LARGEST: usize = LARGEST_BASE + NOTES + 640;

/// The shortest time after its last publish that a name is remembered.
pub const PRODUCER_NAME_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// By how much the time in a name's base may be older than the name's last event.
const STALE: Duration = Duration::from_secs(PRODUCER_NAME_EXPIRY.as_secs() / 64);

/// The journal's state of one producer name, and the unwritten part of it.
pub(crate) struct ProducerState {
    /// The number of the name in stamps and keys.
    pub(crate) number: u64,
    topic: u32,
    name: String,
    window: Mutex<SequenceWindow>,
    /// The base that the journal has; `None` if it has none.
    base: Mutex<Option<WindowBase>>,
    /// True if the journal has a value in the first version of the format.
    is_old: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct WindowBase {
    used: Timestamp,
    /// The size in bytes of the notes after the base.
    notes: usize,
}

/// The first byte of a key. The key of a window has the name's number, or the name itself in the first version of the
/// format.
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

/// All keys, each with the number of its topic; `None` if the name was deleted and this key was left.
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

    /// Sets the first sequence, which is about to be published.
    pub(crate) fn begin(&self, sequence: u64) {
        self.window().next = Some(sequence);
    }

    /// Adds the name's epoch (how many times it was opened) and number to `frame`.
    pub(crate) fn put_epoch(&self, frame: &mut FrameBuilder, epoch: u64) {
        let value = [epoch.to_le_bytes(), self.number.to_le_bytes()].concat();
        frame.put(state_kind::PRODUCERS, &key(EPOCH_KEY, self.topic, &self.name), &value);
    }

    /// Adds these runs to `frame` as a note, or as a new base if there is no base yet, the base is old, or `runs` is
    /// `None` because there are too many.
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

/// All producer names of a journal.
#[derive(Default)]
pub(crate) struct ProducerStates {
    /// The last number that was given, and the names by number. No number is given twice.
    known: Mutex<(u64, HashMap<u64, Arc<ProducerState>>)>,
}

/// A producer name that the journal had when it was opened.
pub(crate) struct RecordedProducer {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) window: SequenceWindow,
    /// `None` if only the first version of the format has written the name.
    number: Option<u64>,
    base: Option<WindowBase>,
}

/// The number after the epoch in a value; `None` in the first version of the format.
fn number_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*value.get(8..)?.first_chunk()?))
}

impl ProducerStates {
    fn known(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<ProducerState>>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty set, whose next number is above all recorded numbers.
    pub(crate) fn new(state: &State) -> Self {
        let epochs = state.values(state_kind::PRODUCERS).filter(|(at, _)| at.first() == Some(&EPOCH_KEY));
        let last = epochs.filter_map(|(_, epoch)| number_of(epoch)).max().unwrap_or(0);
        Self { known: Mutex::new((last, HashMap::new())) }
    }

    /// The names that the journal has for a topic.
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

    /// Removes the names of a deleted topic, so that nothing more of them is written.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.known().1.retain(|_, producer_state| producer_state.topic != topic);
    }

    /// Adds a new name, and gives it a number.
    pub(crate) fn add(&self, topic: u32, name: &str) -> Arc<ProducerState> {
        let known = &mut *self.known();
        Self::insert(known, (topic, name), None, (SequenceWindow::default(), None), false)
    }

    /// Adds a name that the journal had.
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

    /// How many names a journal may have whose state takes up to `state` bytes and whose frames up to `frame` bytes:
    /// the names fill at most half of the state, and the largest base fits into a frame beside the events. 0 if it does
    /// not fit.
    pub(crate) fn limit(state: usize, frame: usize) -> usize {
        if frame / 4 < LARGEST_BASE { 0 } else { state / 2 / LARGEST }
    }

    fn get(&self, number: u64) -> Option<Arc<ProducerState>> {
        self.known().1.get(&number).cloned()
    }
}

/// The producers that have events in the frame that is being gathered.
#[derive(Default)]
pub(crate) struct TouchedProducers {
    list: Vec<TouchedProducer>,
    last: usize,
}

struct TouchedProducer {
    producer_state: Arc<ProducerState>,
    /// The runs to record; `None` if there are too many.
    runs: Option<Vec<SequenceRun>>,
}

impl TouchedProducers {
    /// Records that an event with this stamp is in the frame.
    pub(crate) fn note(&mut self, producer_states: &ProducerStates, stamp: ProducerStamp, partition: u32, offset: u64) {
        if self.list.get(self.last).is_none_or(|touch| touch.producer_state.number != stamp.producer) {
            let known = self.list.iter().position(|touch| touch.producer_state.number == stamp.producer);
            self.last = known.unwrap_or(self.list.len());
            if known.is_none() {
                // An unknown number: the name was deleted with its topic.
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

    /// True if another producer could make the records exceed a quarter of a frame of `frame` bytes.
    pub(crate) fn is_full(&self, frame: usize) -> bool {
        !self.list.is_empty() && (self.list.len() + 1) * LARGEST_BASE > frame / 4
    }

    /// Adds all records to the frame, and clears them.
    pub(crate) fn put(&mut self, frame: &mut FrameBuilder, now: Timestamp) {
        self.list.drain(..).for_each(|TouchedProducer { producer_state, runs }| {
            producer_state.put_window(frame, runs.as_deref(), now)
        });
        self.last = 0;
    }
}

#[cfg(test)]
mod tests;
