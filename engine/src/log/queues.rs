//! The journal's entries of queues: the settings of each queue, and the topic or queue that a key belongs to.

use super::catalog::state_kind;
use slipring_journal::State;
use std::collections::BTreeMap;
use std::time::Duration;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const FORMAT: u8 = 1;

/// A queue's entry in the journal: its number, and the settings with which it was opened last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueEntry {
    pub(crate) number: u32,
    pub(crate) visibility: Duration,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) strict: bool,
    pub(crate) max_messages: u64,
    pub(crate) dead_topic: String,
}

/// The fixed part of an entry's bytes. The name of the topic for dead letters follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawQueueEntry {
    format: u8,
    strict: u8,
    number: U32,
    /// The greatest number of attempts at a message; 0 if there is no limit.
    max_attempts: U32,
    /// How long a leased message stays invisible to other workers, in milliseconds.
    visibility: U64,
    max_messages: U64,
}

impl QueueEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = RawQueueEntry {
            format: FORMAT,
            strict: self.strict.into(),
            number: self.number.into(),
            max_attempts: self.max_attempts.unwrap_or(0).into(),
            visibility: u64::try_from(self.visibility.as_millis()).unwrap_or(u64::MAX).into(),
            max_messages: self.max_messages.into(),
        };
        [head.as_bytes(), self.dead_topic.as_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, dead_topic) = RawQueueEntry::read_from_prefix(bytes).ok()?;
        let attempts = head.max_attempts.get();
        (head.format == FORMAT).then(|| Self {
            number: head.number.get(),
            visibility: Duration::from_millis(head.visibility.get()),
            max_attempts: (attempts > 0).then_some(attempts),
            strict: head.strict != 0,
            max_messages: head.max_messages.get(),
            dead_topic: String::from_utf8_lossy(dead_topic).into_owned(),
        })
    }
}

/// All queues in a journal's state: the number of the queue's topic, the queue's name, and its entry. Entries that this
/// version cannot decode are left out.
pub(crate) fn all(state: &State) -> Vec<(u32, String, QueueEntry)> {
    let queues = state.values(state_kind::QUEUES).filter_map(|(key, value)| {
        let (topic, name) = key.strip_prefix(b"q")?.split_first_chunk()?;
        Some((u32::from_le_bytes(*topic), String::from_utf8_lossy(name).into_owned(), QueueEntry::decode(value)?))
    });
    queues.collect()
}

/// The topic or queue that a key of the kind `QUEUES` belongs to.
pub(crate) enum KeyOwner {
    /// The topic with this number: the key is the queue's own entry.
    Topic(u32),
    /// The queue with this number: the key is part of the queue's state.
    Queue(u32),
}

/// The topic or queue that a key belongs to; `None` for the key with the number of the next queue, and for malformed
/// keys.
pub(crate) fn key_owner(key: &[u8]) -> Option<KeyOwner> {
    let (kind, rest) = key.split_first()?;
    let number = u32::from_le_bytes(*rest.first_chunk()?);
    match kind {
        b'q' => Some(KeyOwner::Topic(number)),
        b'p' | b'b' | b'l' | b'd' => Some(KeyOwner::Queue(number)),
        _ => None,
    }
}

/// The number of each queue's topic in the journal, by the queue's number.
pub(crate) fn numbers(state: &State) -> BTreeMap<u32, u32> {
    all(state).into_iter().map(|(topic, _, opened)| (opened.number, topic)).collect()
}
