//! The journal's catalogue of topics, and the numbers of the kinds of state that the engine keeps in the journal.

use crate::base::ids::MAX_PARTITIONS;
use crate::event::layout::{self, is_same};
use crate::log::compaction::Compaction;
use crate::log::layouts::{self as older_layouts, OlderLayout};
use slipring_journal::State;
use slipring_ring::shared::EventLayout;
use slipring_ring::text;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The kinds of state that the engine keeps in the journal, as numbers for
/// [`FrameBuilder::put`](slipring_journal::FrameBuilder::put).
pub(crate) mod state_kind {
    /// The topics. Key: the topic's name; value: a `CatalogEntry`. The value of the empty key is the number that the
    /// next new topic gets.
    pub(crate) const TOPICS: u16 = 1;
    /// The committed offsets of groups: see [`CommittedOffsets`](crate::log::offsets::group::CommittedOffsets).
    pub(crate) const GROUP_OFFSETS: u16 = 2;
    /// The idempotent producers: for each name how often a producer was opened under it, and for which of its sequences
    /// the journal has the events.
    pub(crate) const PRODUCERS: u16 = 3;
    /// The queues: which messages are leased, waiting or deleted, and for each partition the next offset that the queue
    /// reads.
    pub(crate) const QUEUES: u16 = 4;
    /// The committed offsets of transforms, in their input topics.
    pub(crate) const TRANSFORM_OFFSETS: u16 = 5;
    // Kind 6 belongs to the journal itself: the offsets of records that a repair could not save.
    /// The gaps that were reported to readers: see [`crate::log::gap`].
    pub(crate) const REPORTED_GAPS: u16 = 7;
    /// The positions of bridges, for which the journal keeps records: see [`crate::log::bridge`].
    pub(crate) const BRIDGES: u16 = 8;
    /// The older layouts of topics, and which records have them: see [`crate::log::layouts`].
    pub(crate) const LAYOUTS: u16 = 9;
    /// How topics are compacted: see [`crate::log::compaction`].
    pub(crate) const COMPACTION: u16 = 10;
}

/// A description of the journal's state of this kind, for people; `None` for a kind that this version does not know.
pub const fn state_kind_name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        state_kind::TOPICS => "topics",
        state_kind::GROUP_OFFSETS => "committed offsets of groups",
        state_kind::PRODUCERS => "producers with names",
        state_kind::QUEUES => "queues",
        state_kind::TRANSFORM_OFFSETS => "committed offsets of transforms",
        6 => "gaps: offsets lost to damage",
        state_kind::REPORTED_GAPS => "gaps that were reported to readers",
        state_kind::BRIDGES => "positions of bridges",
        state_kind::LAYOUTS => "older layouts of topics",
        state_kind::COMPACTION => "compaction of topics",
        _ => return None,
    })
}

/// The entry of a topic in the journal's catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    pub(crate) number: u32,
    pub(crate) partitions: u32,
    pub(crate) max_message: u64,
    pub(crate) layout: String,
    /// True if the entry was written in format 1 of the journal. Its layout may then be the path of a Rust type, with
    /// the size for plain data. The type may have moved since, so this path can differ from the type's present one.
    pub(crate) is_old: bool,
}

/// The fixed part of an entry's bytes. The layout follows as text.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCatalogEntry {
    number: U32,
    partitions: U32,
    max_message: U64,
}

/// The byte before the layout in each entry of format 2 or later of the journal. No layout of format 1 begins with it.
const NAMED: u8 = 2;

impl CatalogEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = RawCatalogEntry {
            number: self.number.into(),
            partitions: self.partitions.into(),
            max_message: self.max_message.into(),
        };
        let named: &[u8] = if self.is_old { &[] } else { &[NAMED] };
        [head.as_bytes(), named, self.layout.as_bytes()].concat()
    }

    /// True if the recorded events may be read with the layout of `asked`: the layouts are equal; or the recorded one is
    /// plain data of the same size without names of fields, which `asked` has; or the entry is of format 1 and its layout
    /// is a type's path, which cannot be compared. For plain data such an entry must also name `size`, the size of an
    /// event in bytes; `None` for other events.
    pub(crate) fn has_layout(&self, asked: &Self, size: Option<usize>) -> bool {
        if is_same(&self.layout, &asked.layout) {
            return true;
        }
        // Format 1 named plain data by the type's path and size, and any other type by its path alone.
        let path = match (self.layout.rsplit_once(" of "), size) {
            (Some((path, bytes)), Some(size)) if bytes == format!("{size} bytes") => Some(path),
            (None, None) => Some(&*self.layout),
            _ => None,
        };
        self.is_old && path.is_some_and(|path| path.contains("::") || size.is_some())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, layout) = RawCatalogEntry::read_from_prefix(bytes).ok()?;
        let partitions = head.partitions.get();
        // An entry with more partitions than any topic may have is refused, because this number decides how much memory
        // is allocated.
        if partitions as usize > MAX_PARTITIONS {
            return None;
        }
        Some(Self {
            number: head.number.get(),
            partitions,
            max_message: head.max_message.get(),
            is_old: layout.first() != Some(&NAMED),
            layout: String::from_utf8_lossy(layout.strip_prefix(&[NAMED]).unwrap_or(layout)).into_owned(),
        })
    }

    /// The number that the next new topic gets; 1 if the journal never had a topic.
    pub(crate) fn next_number(state: &State) -> u32 {
        let next = state.get(state_kind::TOPICS, b"").and_then(|bytes| bytes.try_into().ok());
        next.map_or(1, u32::from_le_bytes)
    }

    /// All topics of a journal, by name. Entries that cannot be decoded are left out.
    pub(crate) fn all(state: &State) -> Vec<(String, Self)> {
        let topics = state.values(state_kind::TOPICS).filter(|(name, _)| !name.is_empty());
        topics
            .filter_map(|(name, value)| Some((String::from_utf8_lossy(name).into_owned(), Self::decode(value)?)))
            .collect()
    }
}

impl std::fmt::Display for CatalogEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partitions, max_message, layout, .. } = self;
        write!(f, "{partitions} partitions of {}", text::line(layout))?;
        if *max_message > 0 { write!(f, " of up to {max_message} bytes") } else { Ok(()) }
    }
}

/// A topic that a journal has recorded, as its catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedTopic {
    /// The topic's name.
    pub name: String,
    /// The topic's number: [`PartitionId::topic`](slipring_journal::PartitionId::topic).
    pub number: u32,
    /// The number of the topic's partitions.
    pub partitions: u32,
    /// The size of the largest message in bytes; 0 if the topic's events are not messages.
    pub max_message: u64,
    /// The layout of the topic's events: see [`Persist::layout`](crate::Persist::layout).
    pub layout: String,
    /// The layouts that the topic's events had before, the oldest first. Empty if the layout never changed.
    pub older: Vec<OlderLayout>,
    /// How the topic is compacted; `None` if it is not.
    pub compaction: Option<Compaction>,
}

impl RecordedTopic {
    /// The place in [`older`](Self::older) of the layout that the record at this offset has; `None` if it has the present
    /// layout.
    pub fn older_at(&self, partition: u32, offset: u64) -> Option<usize> {
        older_layouts::at(&self.older, partition, offset)
    }

    /// The fields of the topic's events, as [`plain_event!`](crate::plain_event) names them. `None` for messages, and
    /// for events whose layout names no fields.
    pub fn fields(&self) -> Option<EventLayout> {
        if self.max_message == 0 { layout::fields(&self.layout) } else { None }
    }
}

/// All topics in a journal's catalogue, sorted by name, except those whose entries this version cannot decode.
pub fn recorded_topics(state: &State) -> Vec<RecordedTopic> {
    let topics = CatalogEntry::all(state);
    let shown = topics.into_iter().map(|(name, topic)| {
        let CatalogEntry { number, partitions, max_message, layout, .. } = topic;
        let older = older_layouts::of(state, number).unwrap_or_default();
        let compaction = Compaction::of(state, number);
        RecordedTopic { name, number, partitions, max_message, layout, older, compaction }
    });
    shown.collect()
}
