//! Compaction of durable topics by key, state kind 10: which topics are compacted, and what the key of a record is.
//!
//! The journal keeps the setting, so a topic is compacted by its rule also before a program opens it, and tools can show it. The
//! rule is data, not a function: the journal's helper thread reads the key out of the record's bytes, and no user code runs
//! there.

use crate::event::layout;
use crate::event::message;
use crate::log::catalog::{CatalogEntry, state_kind};
use crate::log::layouts::{self, OlderLayout};
use slipring_journal::{CompactionRule, CompactionRules, FrameBuilder, PartitionId, RecordKey, State};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How a durable topic is compacted: see [`TopicBuilder::compact`](crate::TopicBuilder::compact).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    key: CompactionKey,
    delete_after: Duration,
}

/// Where the key of a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CompactionKey {
    /// It is the message's key.
    Message,
    /// It is this field of the plain data.
    Field(String),
}

/// The time after which a message without a value goes, unless it is set.
const DELETE_AFTER: Duration = Duration::from_secs(24 * 3600);

const BY_MESSAGE: u8 = 1;
const BY_FIELD: u8 = 2;

impl Compaction {
    /// Compacts a topic of messages by their keys. A message with a key and an empty value is a *tombstone*: the key has no
    /// value any more, and after [`delete_after`](Self::delete_after) the tombstone goes too. Messages without a key stay.
    pub fn by_key() -> Self {
        Self { key: CompactionKey::Message, delete_after: DELETE_AFTER }
    }

    /// Compacts a topic of plain data by this field, which the [layout](crate::plain_event) names. Events with equal bytes there
    /// have one key. No event of plain data is a tombstone. Records of an older layout whose field of this name has another type,
    /// or that has none, stay.
    pub fn by_field(name: impl Into<String>) -> Self {
        Self { key: CompactionKey::Field(name.into()), delete_after: DELETE_AFTER }
    }

    /// Sets how long after its writing a tombstone stays at least, so that readers that are behind see it. Default: 24 hours.
    pub fn delete_after(mut self, age: Duration) -> Self {
        self.delete_after = age;
        self
    }

    /// Why events with this layout cannot be compacted so; `None` if they can. `is_messages`: true if they are messages.
    pub(crate) fn contradiction(&self, is_messages: bool, layout: &str) -> Option<&'static str> {
        match &self.key {
            CompactionKey::Message if !is_messages => Some("events that are no messages, which have no key,"),
            CompactionKey::Field(_) if is_messages => Some("messages, which are compacted `by_key`,"),
            CompactionKey::Field(name) if field(layout, name).is_none() => Some("a layout that names no such field"),
            _ => None,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (kind, name): (u8, &str) = match &self.key {
            CompactionKey::Message => (BY_MESSAGE, ""),
            CompactionKey::Field(name) => (BY_FIELD, name),
        };
        let nanos = u64::try_from(self.delete_after.as_nanos()).unwrap_or(u64::MAX);
        [&[kind][..], &nanos.to_le_bytes(), name.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (nanos, name) = rest.split_first_chunk()?;
        let key = match *kind {
            BY_MESSAGE => CompactionKey::Message,
            BY_FIELD => CompactionKey::Field(std::str::from_utf8(name).ok()?.to_owned()),
            _ => return None,
        };
        Some(Self { key, delete_after: Duration::from_nanos(u64::from_le_bytes(*nanos)) })
    }

    /// The setting of the topic with this number; `None` if it is not compacted, or if this version cannot decode it: then
    /// nothing is removed.
    pub(crate) fn of(state: &State, topic: u32) -> Option<Self> {
        Self::decode(state.get(state_kind::COMPACTION, &topic.to_le_bytes())?)
    }

    /// True if the journal has a setting for the topic with this number, also one that this version cannot decode.
    pub(crate) fn is_recorded(state: &State, topic: u32) -> bool {
        state.get(state_kind::COMPACTION, &topic.to_le_bytes()).is_some()
    }

    /// Adds the setting of a topic to the frame; `None` deletes it.
    pub(crate) fn put(compaction: Option<&Self>, topic: u32, frame: &mut FrameBuilder) {
        match compaction {
            Some(compaction) => frame.put(state_kind::COMPACTION, &topic.to_le_bytes(), &compaction.encode()),
            None => frame.delete(state_kind::COMPACTION, &topic.to_le_bytes()),
        }
    }
}

/// One line, as `slipring journal stat` shows it.
impl fmt::Display for Compaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            CompactionKey::Message => write!(f, "by key, messages without a value go after {:?}", self.delete_after),
            CompactionKey::Field(name) => write!(f, "by field {}", slipring_ring::text::line(name)),
        }
    }
}

/// The number of the topic that a key belongs to.
pub(crate) fn key_topic(key: &[u8]) -> Option<u32> {
    key.try_into().ok().map(u32::from_le_bytes)
}

/// The bytes of a field in the events with this layout, and its type as text; `None` if the layout names no such field.
fn field(layout: &str, name: &str) -> Option<(Range<usize>, String)> {
    let fields = layout::fields(layout)?;
    let found = fields.fields().iter().find(|field| field.name() == name)?;
    let size = found.number_type().size() * found.len().unwrap_or(1);
    Some((found.offset()..found.offset() + size, format!("{:?} {:?}", found.number_type(), found.len())))
}

/// The compaction of a topic, ready to find keys in its records.
#[derive(Clone, Debug)]
pub(crate) struct TopicCompaction {
    delete_after: Duration,
    /// Where the key is in a record of the present layout.
    place: KeyPlace,
    /// The older layouts, and where the key is in their records.
    older: Vec<OlderLayout>,
    older_places: Vec<KeyPlace>,
}

#[derive(Clone, Debug)]
enum KeyPlace {
    Message,
    Bytes(Range<usize>),
    /// Records of this layout have no key.
    Nowhere,
}

impl TopicCompaction {
    /// `layout` is the present layout of the topic's events, `older` the layouts before.
    pub(crate) fn new(compaction: &Compaction, layout: &str, older: Vec<OlderLayout>) -> Self {
        let place_in = |text: &str| match &compaction.key {
            CompactionKey::Message => KeyPlace::Message,
            CompactionKey::Field(name) => match (field(text, name), field(layout, name)) {
                (Some((place, kind)), Some((_, present))) if kind == present => KeyPlace::Bytes(place),
                _ => KeyPlace::Nowhere,
            },
        };
        let older_places = older.iter().map(|older| place_in(&older.layout)).collect();
        Self { delete_after: compaction.delete_after, place: place_in(layout), older, older_places }
    }

    /// The compactions of all topics in a journal's state, by the topics' numbers.
    pub(crate) fn all(state: &State) -> BTreeMap<u32, Arc<Self>> {
        let topics = CatalogEntry::all(state).into_iter();
        let compacted = topics.filter_map(|(_, topic)| {
            let (compaction, older) = (Compaction::of(state, topic.number)?, layouts::of(state, topic.number)?);
            Some((topic.number, Arc::new(Self::new(&compaction, &topic.layout, older))))
        });
        compacted.collect()
    }

    fn key<'r>(&self, partition: u32, offset: u64, bytes: &'r [u8]) -> Option<RecordKey<'r>> {
        let older = layouts::at(&self.older, partition, offset);
        match older.map_or(&self.place, |older| &self.older_places[older]) {
            KeyPlace::Message => {
                let (key, value) = message::recorded_key(bytes)?;
                Some(RecordKey { bytes: key, is_tombstone: value == 0 })
            }
            KeyPlace::Bytes(place) => Some(RecordKey { bytes: bytes.get(place.clone())?, is_tombstone: false }),
            KeyPlace::Nowhere => None,
        }
    }
}

/// The rules of one pass of compaction.
pub(crate) struct EngineRules {
    /// By the topics' numbers.
    pub(crate) topics: BTreeMap<u32, Arc<TopicCompaction>>,
    /// For each partition that a bridge copies, the first offset that it has not copied: from there on all records stay.
    pub(crate) floors: BTreeMap<PartitionId, u64>,
    /// The time of the pass, in nanoseconds since the epoch.
    pub(crate) now: u64,
}

impl CompactionRules for EngineRules {
    fn rule(&self, partition: PartitionId) -> Option<CompactionRule> {
        let topic = self.topics.get(&partition.topic)?;
        let age = u64::try_from(topic.delete_after.as_nanos()).unwrap_or(u64::MAX);
        let below = self.floors.get(&partition).copied().unwrap_or(u64::MAX);
        Some(CompactionRule { below, tombstones_before: self.now.saturating_sub(age) })
    }

    fn key<'r>(&self, partition: PartitionId, offset: u64, bytes: &'r [u8]) -> Option<RecordKey<'r>> {
        self.topics.get(&partition.topic)?.key(partition.partition, offset, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_comes_back_from_the_journals_state_and_no_bytes_make_a_panic() {
        let all = [
            Compaction::by_key(),
            Compaction::by_field("symbol").delete_after(Duration::ZERO),
            Compaction::by_key().delete_after(Duration::from_nanos(u64::MAX)),
        ];
        for (topic, compaction) in (0..).zip(&all) {
            let (mut state, mut frame) = (State::default(), FrameBuilder::new());
            Compaction::put(Some(compaction), topic, &mut frame);
            state.take(&mut frame);
            assert_eq!(Compaction::of(&state, topic).as_ref(), Some(compaction));
            assert_eq!(Compaction::of(&state, topic + 1), None);
            let bytes = compaction.encode();
            (0..9).for_each(|len| assert_eq!(Compaction::decode(&bytes[..len]), None));
            Compaction::put(None, topic, &mut frame);
            state.take(&mut frame);
            assert_eq!(Compaction::of(&state, topic), None);
        }
        assert_eq!(Compaction::decode(&[3; 12]), None, "a newer program's rule removes nothing");
    }

    #[test]
    fn the_key_of_plain_data_is_its_field_in_the_layout_that_the_record_has() {
        let present = "plain data px:i64@0 symbol:u32@8 venue:u8[4]@12 size=16 align=8";
        let renamed = "plain data px:i64@0 ticker:u32@8 venue:u8[4]@12 size=16 align=8";
        let moved = "plain data symbol:u32@0 size:u32@4 size=8 align=4";
        let other = "plain data symbol:u64@0 size=8 align=8";
        let older = [(moved, 2), (renamed, 4), (other, 6), ("plain data of 16 bytes", 8)];
        let older = older.map(|(text, end)| OlderLayout::new(text.to_owned(), vec![end])).into();
        let topic = TopicCompaction::new(&Compaction::by_field("symbol"), present, older);
        let bytes: Vec<u8> = (0..16).collect();
        let key = |offset| topic.key(0, offset, &bytes).map(|key| key.bytes.to_vec());
        assert_eq!(key(1), Some(vec![0, 1, 2, 3]));
        assert_eq!([key(3), key(5), key(7)], [None, None, None]);
        assert_eq!(key(8), Some(vec![8, 9, 10, 11]));
        assert_eq!(topic.key(0, 8, &bytes[..11]), None, "a record that is too short has no key");
        assert!(Compaction::by_field("symbol").contradiction(false, renamed).is_some());
        assert!(Compaction::by_field("symbol").contradiction(true, "slipring message 1").is_some());
        assert!(Compaction::by_key().contradiction(false, present).is_some());
        assert_eq!(Compaction::by_key().contradiction(true, "slipring message 1"), None);
    }
}
