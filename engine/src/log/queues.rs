//! The journal's entries of queues: the settings of each queue, and which topic or queue a key belongs to.

use super::catalog::state_kind;
use slipring_journal::State;
use std::collections::BTreeMap;
use std::time::Duration;

const FORMAT: u8 = 1;

/// The entry of a queue in the journal: the settings of its last opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueEntry {
    pub(crate) number: u32,
    pub(crate) visibility: Duration,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) strict: bool,
    pub(crate) max_messages: u64,
    pub(crate) dead_topic: String,
}

impl QueueEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, u8::from(self.strict)];
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.max_attempts.unwrap_or(0).to_le_bytes());
        let visibility = u64::try_from(self.visibility.as_millis()).unwrap_or(u64::MAX);
        out.extend_from_slice(&visibility.to_le_bytes());
        out.extend_from_slice(&self.max_messages.to_le_bytes());
        out.extend_from_slice(self.dead_topic.as_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut take = |len: usize| {
            let (part, after) = rest.split_at_checked(len)?;
            rest = after;
            Some(part)
        };
        let [FORMAT, strict] = *take(2)? else { return None };
        let number = u32::from_le_bytes(take(4)?.try_into().ok()?);
        let attempts = u32::from_le_bytes(take(4)?.try_into().ok()?);
        let visibility = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let max_messages = u64::from_le_bytes(take(8)?.try_into().ok()?);
        Some(Self {
            number,
            visibility: Duration::from_millis(visibility),
            max_attempts: (attempts > 0).then_some(attempts),
            strict: strict != 0,
            max_messages,
            dead_topic: String::from_utf8_lossy(rest).into_owned(),
        })
    }
}

/// All queues of a journal: the topic's number, the queue's name, and the queue's entry.
pub(crate) fn all(state: &State) -> Vec<(u32, String, QueueEntry)> {
    let queues = state.values(state_kind::QUEUES).filter_map(|(key, value)| {
        let (topic, name) = key.strip_prefix(b"q")?.split_first_chunk()?;
        Some((u32::from_le_bytes(*topic), String::from_utf8_lossy(name).into_owned(), QueueEntry::decode(value)?))
    });
    queues.collect()
}

/// The topic or queue that a key belongs to.
pub(crate) enum KeyOwner {
    /// The topic with this number: the key is the queue's own entry.
    Topic(u32),
    /// The queue with this number: the key is part of the queue's state.
    Queue(u32),
}

/// The owner of a key; `None` for the key with the number of the next queue, and for malformed keys.
pub(crate) fn key_owner(key: &[u8]) -> Option<KeyOwner> {
    let (kind, rest) = key.split_first()?;
    let number = u32::from_le_bytes(*rest.first_chunk()?);
    match kind {
        b'q' => Some(KeyOwner::Topic(number)),
        b'p' | b'b' | b'l' | b'd' => Some(KeyOwner::Queue(number)),
        _ => None,
    }
}

/// The number of each queue's topic, by the queue's number.
pub(crate) fn numbers(state: &State) -> BTreeMap<u32, u32> {
    all(state).into_iter().map(|(topic, _, opened)| (opened.number, topic)).collect()
}
