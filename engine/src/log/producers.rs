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
mod tests;
