//! What the journal knows of producers with names: which of their sequences it has, and at which offsets.
//!
//! A stamp beside a slot says which producer published the event and with which sequence. The committer reads the stamps
//! with the events and notes them in the same frame, so after a crash the journal knows exactly the sequences whose events
//! it has. A frame takes several partitions in any order, so a sequence may be written before an earlier one. Such a
//! sequence is kept apart until the gap before it is filled. There are few of them, because a producer publishes no further
//! than [`WINDOW`] sequences ahead of what is written.
//!
//! # What a frame says
//! A note: the sequences of the frame's own events and their offsets, some ten bytes. Notes are appended to the value of the
//! producer's name. The value begins with a *base*, which is everything that is known of the name: some kilobytes where it
//! has several partitions. The base is written anew when the notes behind it have [`NOTES`] bytes, when there is more to
//! note than a base has, and when the base is so old that the name would seem unused.

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

/// How many sequences a producer with a name may be ahead of what is written, where the topic has several partitions. As
/// many receipts outlive the process.
pub(crate) const WINDOW: u64 = 128;

/// The most bytes of notes behind a base.
const NOTES: usize = 512;

/// The most runs that a frame notes one by one. With more runs it writes a base.
const MOST_RUNS: usize = 64;

/// The largest base in bytes. Its largest run is a sequence near the one before (2 bytes), a length within the window (2), a
/// partition (2) and an offset (9).
const LARGEST_BASE: usize = 64 + 2 * WINDOW as usize * (2 + 2 + 2 + 9);

/// The most bytes that a name may take of the journal's state.
const LARGEST: usize = LARGEST_BASE + NOTES + 640;

/// How long a name is known after its last publish, at least.
pub const PRODUCER_NAME_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// How much older than the name's last event the time of its base may be.
const STALE: Duration = Duration::from_secs(PRODUCER_NAME_EXPIRY.as_secs() / 64);

/// What the journal has of a producer's name, and what is still to be written of it.
pub(crate) struct ProducerState {
    /// The name's number, which stands for it in stamps and keys.
    pub(crate) number: u64,
    topic: u32,
    name: String,
    window: Mutex<SequenceWindow>,
    /// The base that the journal has; none if it has none.
    base: Mutex<Option<WindowBase>>,
    /// True if the journal has a value that the first version of the format wrote.
    is_old: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct WindowBase {
    used: Timestamp,
    /// The bytes of the notes behind the base.
    notes: usize,
}

/// The first byte of a key. What is known of a name has the name's number in its key; in the first version of the format the
/// name itself.
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

/// All keys, each with its topic; none where the name is gone and something of it was left.
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

    /// Notes the first sequence, which is about to be published.
    pub(crate) fn begin(&self, sequence: u64) {
        self.window().next = Some(sequence);
    }

    /// Writes the epoch, which is how often the name was opened, and the name's number.
    pub(crate) fn put_epoch(&self, frame: &mut FrameBuilder, epoch: u64) {
        let value = [epoch.to_le_bytes(), self.number.to_le_bytes()].concat();
        frame.put(state_kind::PRODUCERS, &key(EPOCH_KEY, self.topic, &self.name), &value);
    }

    /// Writes these runs as a note, or a base if there is no base yet, it is old, or `runs` is none because there are too
    /// many.
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

/// The names of all producers of a journal.
#[derive(Default)]
pub(crate) struct ProducerStates {
    /// The last number, and the names by number. A number is never given twice.
    known: Mutex<(u64, HashMap<u64, Arc<ProducerState>>)>,
}

/// A name that the journal had when it was opened.
pub(crate) struct RecordedProducer {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) window: SequenceWindow,
    /// None if only the first version of the format has written the name.
    number: Option<u64>,
    base: Option<WindowBase>,
}

/// The number that stands behind an epoch in a value; the first version of the format wrote none.
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

    /// The names that the journal has of a topic.
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

    /// Nothing more is written of the names of this topic.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.known().1.retain(|_, producer_state| producer_state.topic != topic);
    }

    /// Adds a new name.
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

    /// How many names a journal takes whose state may have `state` bytes and whose frames `frame` bytes: the names fill at
    /// most half of the state, and the largest base fits into a frame beside the events. 0 if that is impossible.
    pub(crate) fn limit(state: usize, frame: usize) -> usize {
        if frame / 4 < LARGEST_BASE { 0 } else { state / 2 / LARGEST }
    }

    fn get(&self, number: u64) -> Option<Arc<ProducerState>> {
        self.known().1.get(&number).cloned()
    }
}

/// The names that have events in the frame that is being gathered.
#[derive(Default)]
pub(crate) struct TouchedProducers {
    list: Vec<TouchedProducer>,
    last: usize,
}

struct TouchedProducer {
    producer_state: Arc<ProducerState>,
    /// The runs to note; none if there are too many.
    runs: Option<Vec<SequenceRun>>,
}

impl TouchedProducers {
    /// Notes that an event with this stamp is in the frame.
    pub(crate) fn note(&mut self, producer_states: &ProducerStates, stamp: ProducerStamp, partition: u32, offset: u64) {
        if self.list.get(self.last).is_none_or(|touch| touch.producer_state.number != stamp.producer) {
            let known = self.list.iter().position(|touch| touch.producer_state.number == stamp.producer);
            self.last = known.unwrap_or(self.list.len());
            if known.is_none() {
                // The name of a producer that is not known was forgotten with its topic.
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

    /// True if what one more name writes may take more than a quarter of a frame of so many bytes.
    pub(crate) fn is_full(&self, frame: usize) -> bool {
        !self.list.is_empty() && (self.list.len() + 1) * LARGEST_BASE > frame / 4
    }

    /// Writes what was noted into the frame.
    pub(crate) fn put(&mut self, frame: &mut FrameBuilder, now: Timestamp) {
        self.list.drain(..).for_each(|TouchedProducer { producer_state, runs }| {
            producer_state.put_window(frame, runs.as_deref(), now)
        });
        self.last = 0;
    }
}

#[cfg(test)]
mod tests;
