//! The journal's state of idempotent producers: for which of their sequences it has the events, and at which offsets.
//!
//! A stamp beside a slot has the number of the event's producer and the event's sequence. The committer reads the
//! stamps with the events and records them in the same frame, so after a crash the journal knows exactly the sequences
//! whose events it has. A frame takes several partitions in any order, so a sequence may be written before an earlier
//! one. Such a sequence is recorded apart until the earlier ones are written. There are few such sequences, because a
//! producer publishes no further than [`WINDOW`] sequences ahead of the written ones.
//!
//! # Bases and notes
//! A frame has a note for each producer: the sequences of the frame's own events and their offsets, about ten bytes.
//! Notes are appended to the value of the producer's name. The value begins with a *base*, the whole window of the
//! name: some kilobytes if the name has several partitions. The base is written anew when the notes after it have
//! [`NOTES`] bytes, when a note would have more than [`MOST_RUNS`] runs (consecutive sequences at consecutive offsets),
//! and when the base is older than [`STALE`]: only a base has the time of the name's last use, from which names expire.

mod stamps;
mod window;

pub(crate) use stamps::{ProducerStamp, ProducerStamps};
use window::SequenceRun;
pub(crate) use window::SequenceWindow;

use crate::base::clock::Timestamp;
use crate::base::varint;
use crate::log::catalog::state_kind;
use slipring_journal::{FrameBuilder, Options, State};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many sequences, at most, an idempotent producer of a topic with several partitions publishes from the first
/// unwritten sequence on. Also the number of receipts of each name, the newest ones, that are recovered after a
/// restart.
pub(crate) const WINDOW: u64 = 128;

/// The greatest size in bytes of the notes after a base.
const NOTES: usize = 512;

/// The greatest number of runs in a note. If a frame has more runs of a producer, a base is written instead.
const MOST_RUNS: usize = 64;

/// The greatest size of a base in bytes. Each run takes at most 2 bytes for its sequence (relative to the run before),
/// 2 for its length, 2 for its partition and 9 for its offset.
const LARGEST_BASE: usize = 64 + 2 * WINDOW as usize * (2 + 2 + 2 + 9);

/// The greatest size in bytes of one name's state in the journal.
const LARGEST: usize = LARGEST_BASE + NOTES + 640;

/// How long, at least, a producer's name is remembered after its last publish.
pub const PRODUCER_NAME_EXPIRY: Duration = Duration::from_secs(60 * 60);

/// By how much the time in a name's base may be older than the name's last event, before a new base is written.
const STALE: Duration = Duration::from_secs(PRODUCER_NAME_EXPIRY.as_secs() / 64);

/// One producer name in the journal, with its sequences.
pub(crate) struct ProducerState {
    /// The name's number, which stamps and keys have instead of the name.
    pub(crate) number: u64,
    topic: u32,
    name: String,
    window: Mutex<SequenceWindow>,
    /// The base that the journal has for the name; `None` if it has none.
    base: Mutex<Option<WindowBase>>,
    /// True if the journal has a value of this name in the first version of the format, under [`OLD_WINDOW_KEY`].
    is_old: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct WindowBase {
    used: Timestamp,
    /// The size in bytes of the notes after the base.
    notes: usize,
}

/// The first byte of a key: the kind of its value. After it come the topic's number and the name; with `WINDOW_KEY` the
/// name's number instead.
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

/// The names of idempotent producers in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerNames {
    /// How many names the journal has, of all topics.
    pub count: usize,
    /// The greatest number of names that the journal accepts, of all topics, with its present segment size.
    pub limit: usize,
}

/// The number of idempotent producers' names in a journal with these options, and the greatest number that it accepts.
/// A single topic accepts at most [`MAX_PRODUCER_NAMES`](crate::producer::MAX_PRODUCER_NAMES).
pub fn producer_names(state: &State, options: &Options) -> ProducerNames {
    let count = state.values(state_kind::PRODUCERS).filter(|(key, _)| key.first() == Some(&EPOCH_KEY)).count();
    ProducerNames { count, limit: ProducerStates::limit(options.state_limit(), options.frame_limit()) }
}

/// All keys of producers in `state`, each with the number of its topic; `None` if the name was deleted and only this
/// key was left.
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

    /// Sets the next expected sequence of a new producer to `sequence`, which is about to be published.
    pub(crate) fn begin(&self, sequence: u64) {
        self.window().next = Some(sequence);
    }

    /// Adds to `frame` the name's number and `epoch`, which counts how often a producer was opened under the name.
    pub(crate) fn put_epoch(&self, frame: &mut FrameBuilder, epoch: u64) {
        let value = [epoch.to_le_bytes(), self.number.to_le_bytes()].concat();
        frame.put(state_kind::PRODUCERS, &key(EPOCH_KEY, self.topic, &self.name), &value);
    }

    /// Adds these runs of the frame's events to `frame`: as a note, or as a new base if the journal has no base yet,
    /// the base is old, the notes would be too large, or `runs` is `None` because there are more than [`MOST_RUNS`].
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

/// All producer names in an engine's journal.
#[derive(Default)]
pub(crate) struct ProducerStates {
    /// The highest number in use, and the names by their numbers. No number is given to two names.
    known: Mutex<(u64, HashMap<u64, Arc<ProducerState>>)>,
}

/// A producer name that the journal had when it was opened.
pub(crate) struct RecordedProducer {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) window: SequenceWindow,
    /// The name's number; `None` if only the first version of the format has written the name.
    number: Option<u64>,
    base: Option<WindowBase>,
}

/// The name's number after the epoch in a value; `None` if the first version of the format has written the value.
fn number_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*value.get(8..)?.first_chunk()?))
}

impl ProducerStates {
    fn known(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<ProducerState>>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty set of names. Numbers that it gives are above all numbers in `state`.
    pub(crate) fn new(state: &State) -> Self {
        let epochs = state.values(state_kind::PRODUCERS).filter(|(at, _)| at.first() == Some(&EPOCH_KEY));
        let last = epochs.filter_map(|(_, epoch)| number_of(epoch)).max().unwrap_or(0);
        Self { known: Mutex::new((last, HashMap::new())) }
    }

    /// The producer names that the journal has for a topic.
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

    /// Removes the names of a deleted topic, so that no more state of them is written.
    pub(crate) fn forget_topic(&self, topic: u32) {
        self.known().1.retain(|_, producer_state| producer_state.topic != topic);
    }

    /// Adds a name that the journal does not have, and gives it a number.
    pub(crate) fn add(&self, topic: u32, name: &str) -> Arc<ProducerState> {
        let known = &mut *self.known();
        Self::insert(known, (topic, name), None, (SequenceWindow::default(), None), false)
    }

    /// Adds a name that the journal had when it was opened.
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

    /// The greatest number of names in a journal whose state may have `state` bytes and whose frames may have `frame`
    /// bytes: the names take at most half of the state, and the largest base fits into a quarter of a frame. 0 if it
    /// does not fit.
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
    /// The runs of the producer's events in the frame; `None` if there are more than [`MOST_RUNS`].
    runs: Option<Vec<SequenceRun>>,
}

impl TouchedProducers {
    /// Records that an event with this stamp is in the frame, at `offset` of `partition`.
    pub(crate) fn note(&mut self, producer_states: &ProducerStates, stamp: ProducerStamp, partition: u32, offset: u64) {
        if self.list.get(self.last).is_none_or(|touch| touch.producer_state.number != stamp.producer) {
            let known = self.list.iter().position(|touch| touch.producer_state.number == stamp.producer);
            self.last = known.unwrap_or(self.list.len());
            if known.is_none() {
                // The number is unknown if the name was deleted with its topic.
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

    /// True if the records of one more producer could exceed a quarter of a frame, of which `frame` is the greatest
    /// size in bytes. Always false without any producer.
    pub(crate) fn is_full(&self, frame: usize) -> bool {
        !self.list.is_empty() && (self.list.len() + 1) * LARGEST_BASE > frame / 4
    }

    /// Adds the records of all producers to the frame, and clears the list.
    pub(crate) fn put(&mut self, frame: &mut FrameBuilder, now: Timestamp) {
        self.list.drain(..).for_each(|TouchedProducer { producer_state, runs }| {
            producer_state.put_window(frame, runs.as_deref(), now)
        });
        self.last = 0;
    }
}

#[cfg(test)]
mod tests;
