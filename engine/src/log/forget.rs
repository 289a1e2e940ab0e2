//! Deleting a topic's state from the journal. Only this file knows all kinds of state that a topic and its consumers
//! leave in a journal.

use super::{gap, producers, queues};
use crate::log::catalog::{CatalogEntry, state_kind};
use crate::log::{compaction, layouts, partition_key};
use slipring_journal::{FrameBuilder, State};
use std::collections::{BTreeMap, BTreeSet};

/// The number of the topic that a value belongs to; `None` for a value of a queue or of a producer's name whose own
/// entry was deleted.
type TopicOwner = Option<u32>;

/// Returns frames that delete all state of these owners, each of at most about `limit` bytes. The first frame also
/// deletes the catalogue entry of the topic with this name (`None`: no entry) and the extents (ranges of recorded
/// offsets) of the owners' partitions. If only some of the frames are written before a crash, the remaining values are
/// [orphans], which the next opening deletes.
pub(crate) fn forget(
    state: &State,
    owners: &BTreeSet<TopicOwner>,
    name: Option<&str>,
    limit: usize,
) -> Vec<FrameBuilder> {
    let mut frames = Vec::new();
    let mut frame = FrameBuilder::new();
    if let Some(name) = name {
        frame.delete(state_kind::TOPICS, name.as_bytes());
    }
    owners.iter().flatten().for_each(|topic| frame.forget_topic(*topic));
    for (kind, key, owner) in owned(state) {
        if owners.contains(&owner) {
            if frame.len() + key.len() > limit {
                frames.push(std::mem::take(&mut frame));
            }
            frame.delete(kind, key);
        }
    }
    frames.push(frame);
    frames
}

/// The owners of state whose topics the catalogue does not have. Older versions left such state, and so does a crash
/// between the frames of [`forget`]. Empty if the catalogue has an entry that this version cannot decode.
pub(crate) fn orphans(state: &State) -> BTreeSet<TopicOwner> {
    let topics: BTreeSet<u32> = CatalogEntry::all(state).into_iter().map(|(_, topic)| topic.number).collect();
    // An entry that this version cannot decode may own any of the state, so no state counts as orphaned then.
    if topics.len() != state.values(state_kind::TOPICS).filter(|(name, _)| !name.is_empty()).count() {
        return BTreeSet::new();
    }
    let next = CatalogEntry::next_number(state);
    let with_partitions = state.extents().map(|(partition, _)| Some(partition.topic));
    let owners = owned(state).into_iter().map(|(.., owner)| owner).chain(with_partitions);
    owners.filter(|owner| owner.is_none_or(|topic| topic < next && !topics.contains(&topic))).collect()
}

/// The kind, key and owner of every value that belongs to a topic. A kind of state that is missing here would never be
/// deleted.
fn owned(state: &State) -> Vec<(u16, &[u8], TopicOwner)> {
    let of_queues: BTreeMap<u32, u32> = queues::numbers(state);
    let of = |kind: u16| state.values(kind).map(move |(key, _)| (kind, key));
    let groups =
        of(state_kind::GROUP_OFFSETS).filter_map(|(kind, key)| Some((kind, key, Some(partition_key::key_topic(key)?))));
    let transforms = of(state_kind::TRANSFORM_OFFSETS)
        .filter_map(|(kind, key)| Some((kind, key, Some(partition_key::key_topic(key)?))));
    let bridges =
        of(state_kind::BRIDGES).filter_map(|(kind, key)| Some((kind, key, Some(partition_key::key_topic(key)?))));
    let gaps = of(state_kind::REPORTED_GAPS).filter_map(|(kind, key)| Some((kind, key, Some(gap::key_topic(key)?))));
    let layouts = of(state_kind::LAYOUTS).filter_map(|(kind, key)| Some((kind, key, Some(layouts::key_topic(key)?))));
    let compactions =
        of(state_kind::COMPACTION).filter_map(|(kind, key)| Some((kind, key, Some(compaction::key_topic(key)?))));
    let producers = producers::owners(state).into_iter().map(|(key, owner)| (state_kind::PRODUCERS, key, owner));
    let leases = of(state_kind::QUEUES).filter_map(|(kind, key)| {
        let owner = match queues::key_owner(key)? {
            queues::KeyOwner::Topic(topic) => Some(topic),
            queues::KeyOwner::Queue(queue) => of_queues.get(&queue).copied(),
        };
        Some((kind, key, owner))
    });
    groups
        .chain(transforms)
        .chain(producers)
        .chain(gaps)
        .chain(bridges)
        .chain(layouts)
        .chain(compactions)
        .chain(leases)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::bridge::BridgePosition;
    use crate::log::compaction::Compaction;
    use crate::log::offsets::recorded::GroupOffset;
    use slipring_journal::{Extent, PartitionId};

    /// A state with values of each kind except reported gaps, for the topics 1 and 4. The catalogue has only topic 1.
    fn state() -> State {
        let mut frame = FrameBuilder::new();
        let recorded = CatalogEntry { number: 1, partitions: 1, max_message: 0, layout: "x".to_owned(), is_old: false };
        frame.put(state_kind::TOPICS, b"", &9_u32.to_le_bytes());
        frame.put(state_kind::TOPICS, b"there", &recorded.encode());
        for topic in [1, 4] {
            let of = PartitionId { topic, partition: 0 };
            frame.extent(of, Extent { start: 3, end: 3, reserved: 3 });
            GroupOffset::new("group", of, 1, 1).put(&mut frame);
            GroupOffset::of_transform("transform", of, 1).put(&mut frame);
            BridgePosition::new("bridge", of, 1).put(&mut frame);
            layouts::put(&[layouts::OlderLayout::new("w".to_owned(), vec![2])], topic, &mut frame);
            Compaction::put(Some(&Compaction::by_key()), topic, &mut frame);
            [0, 1].iter().for_each(|kind: &u8| {
                frame.put(state_kind::PRODUCERS, &[&[*kind][..], &topic.to_le_bytes(), b"name"].concat(), &[0; 8]);
            });
            let number = topic * 10;
            let opened = [&[1, 0][..], &number.to_le_bytes(), &[0; 20], b"dead"].concat();
            frame.put(state_kind::QUEUES, &[&b"q"[..], &topic.to_le_bytes(), b"queue"].concat(), &opened);
            frame.put(state_kind::QUEUES, &[&b"p"[..], &number.to_le_bytes(), &[0; 4]].concat(), &[0; 8]);
        }
        frame.put(state_kind::QUEUES, b"n", &99_u32.to_le_bytes());
        // State of a queue whose entry was deleted, as a crash leaves it.
        frame.put(state_kind::QUEUES, &[&b"l"[..], &77_u32.to_le_bytes(), &[0; 4]].concat(), &[0; 8]);
        let mut state = State::default();
        state.take(&mut frame);
        state
    }

    #[test]
    fn nothing_of_a_topic_that_is_gone_stays_and_all_of_the_others_does() {
        let mut state = state();
        let gone = orphans(&state);
        assert_eq!(gone, [None, Some(4)].into());
        let mut frames = forget(&state, &gone, None, 40);
        assert!(frames.len() > 2, "in parts");
        frames.iter_mut().for_each(|frame| state.take(frame));
        let left: Vec<_> = state.kinds().collect();
        let kinds = [
            (state_kind::TOPICS, 2),
            (state_kind::GROUP_OFFSETS, 1),
            (state_kind::PRODUCERS, 2),
            (state_kind::QUEUES, 3),
        ];
        let others = [
            (state_kind::TRANSFORM_OFFSETS, 1),
            (state_kind::BRIDGES, 1),
            (state_kind::LAYOUTS, 1),
            (state_kind::COMPACTION, 1),
        ];
        assert_eq!(left, [&kinds[..], &others].concat());
        assert_eq!(state.extents().map(|(of, _)| of.topic).collect::<Vec<_>>(), [1]);
        assert!(orphans(&state).is_empty());

        let size = state.size();
        forget(&state, &[Some(1)].into(), Some("there"), 1000).iter_mut().for_each(|frame| state.take(frame));
        assert_eq!(state.kinds().collect::<Vec<_>>(), [(state_kind::TOPICS, 1), (state_kind::QUEUES, 1)]);
        assert!(state.extents().len() == 0 && state.size() < size, "the numbers that are next stay alone");
    }
}
