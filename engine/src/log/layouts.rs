//! The older layouts of a topic's events in the journal, state kind 9, and which records have which.
//!
//! The catalogue has the present layout. A topic whose layout has changed also has a value of this kind: the layouts before,
//! the oldest first, and for each partition the end of the offsets that have it.
//!
//! # The invariant
//! The record at an offset has the first of the older layouts whose end in that partition is above the offset, and the
//! present layout if there is none.
//!
//! It holds because a layout changes only when a topic is opened, before it has a producer. The end is then the first
//! offset that this opening can give to an event: at or above all written and all reserved offsets. The value, the
//! catalogue's entry with the new layout, and the reservation of the first new offsets are in one frame, which is
//! durable before a producer exists. Offsets never go back.
//!
//! # Crashes
//! Before that frame is durable: the journal is as it was, and has no record of the new layout, because the frame comes
//! before each of them. After it: the topic has the new layout, with or without records. A program with the older layout is
//! refused then; the next opening with the new one adds nothing to the value.
//!
//! Records below a partition's start are gone, so layouts that only such records have are left out at the next change.

use crate::base::ids::MAX_PARTITIONS;
use crate::base::varint;
use crate::log::catalog::state_kind;
use slipring_journal::{FrameBuilder, State};

/// A layout that a topic's events had before the present one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OlderLayout {
    /// The layout: see [`Persist::layout`](crate::Persist::layout).
    pub layout: String,
    /// For each partition the offset after the last one whose record has this layout or an older one. Partitions that
    /// were added later are left out: they have no such record.
    pub ends: Vec<u64>,
}

impl OlderLayout {
    pub(crate) fn new(layout: String, ends: Vec<u64>) -> Self {
        Self { layout, ends }
    }

    /// The offset after the last one in this partition whose record has this layout or an older one.
    pub(crate) fn end(&self, partition: u32) -> u64 {
        self.ends.get(partition as usize).copied().unwrap_or(0)
    }
}

/// The place in `older` of the layout that the record at this offset has; `None` for the present layout.
pub(crate) fn at(older: &[OlderLayout], partition: u32, offset: u64) -> Option<usize> {
    older.iter().position(|layout| offset < layout.end(partition))
}

/// The older layouts of the topic with this number. `None` if the value cannot be decoded.
pub(crate) fn of(state: &State, topic: u32) -> Option<Vec<OlderLayout>> {
    state.get(state_kind::LAYOUTS, &topic.to_le_bytes()).map_or(Some(Vec::new()), decode)
}

/// The number of the topic that a key belongs to.
pub(crate) fn key_topic(key: &[u8]) -> Option<u32> {
    key.try_into().ok().map(u32::from_le_bytes)
}

/// Adds the older layouts of a topic to the frame, or deletes them if there are none.
pub(crate) fn put(older: &[OlderLayout], topic: u32, frame: &mut FrameBuilder) {
    let key = topic.to_le_bytes();
    if older.is_empty() {
        return frame.delete(state_kind::LAYOUTS, &key);
    }
    let mut value = Vec::new();
    for OlderLayout { layout, ends } in older {
        varint::put(&mut value, layout.len() as u64);
        value.extend_from_slice(layout.as_bytes());
        varint::put(&mut value, ends.len() as u64);
        ends.iter().for_each(|end| varint::put(&mut value, *end));
    }
    frame.put(state_kind::LAYOUTS, &key, &value);
}

fn decode(mut bytes: &[u8]) -> Option<Vec<OlderLayout>> {
    let mut older: Vec<OlderLayout> = Vec::new();
    while !bytes.is_empty() {
        let len = varint::take(&mut bytes)?;
        let (layout, rest) = bytes.split_at_checked(len.try_into().ok()?)?;
        bytes = rest;
        let count = varint::take(&mut bytes)?;
        if count > MAX_PARTITIONS as u64 {
            return None;
        }
        let ends = (0..count).map(|_| varint::take(&mut bytes)).collect::<Option<Vec<_>>>()?;
        let next = OlderLayout::new(String::from_utf8(layout.to_vec()).ok()?, ends);
        // A later layout ends no earlier, in each partition.
        let goes_back = |last: &OlderLayout| (0..).zip(&last.ends).any(|(partition, end)| *end > next.end(partition));
        if older.last().is_some_and(goes_back) {
            return None;
        }
        older.push(next);
    }
    Some(older)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_read_back_and_say_which_record_has_which() {
        let older =
            vec![OlderLayout::new("a".to_owned(), vec![10, 0]), OlderLayout::new("b".to_owned(), vec![10, 7, 1 << 40])];
        let (mut state, mut frame) = (State::default(), FrameBuilder::new());
        put(&older, 3, &mut frame);
        state.take(&mut frame);
        assert_eq!((of(&state, 3), of(&state, 4)), (Some(older.clone()), Some(Vec::new())));
        let found: Vec<_> = [(0, 9), (0, 10), (1, 0), (1, 6), (1, 7), (2, 0), (3, 0)]
            .map(|(partition, offset)| at(&older, partition, offset))
            .into();
        assert_eq!(found, [Some(0), None, Some(1), Some(1), None, Some(1), None]);
        put(&[], 3, &mut frame);
        state.take(&mut frame);
        assert_eq!(state.kinds().count(), 0);
    }

    #[test]
    fn no_bytes_make_a_panic_or_a_layout_that_ends_before_its_elder() {
        let (mut state, mut frame) = (State::default(), FrameBuilder::new());
        put(&[OlderLayout::new("a".to_owned(), vec![1, 300])], 1, &mut frame);
        state.take(&mut frame);
        let bytes = state.get(state_kind::LAYOUTS, &1_u32.to_le_bytes()).unwrap().to_vec();
        assert!(decode(&bytes).is_some());
        (1..bytes.len()).for_each(|len| assert_eq!(decode(&bytes[..len]), None, "{len}"));
        for at in 0..bytes.len() {
            for byte in 0..=255 {
                let mut forged = bytes.clone();
                forged[at] = byte;
                let _ = decode(&forged);
            }
        }
        assert_eq!(decode(&[1, b'a', 1, 5, 1, b'b', 1, 4]), None);
        assert_eq!(decode(&[1, b'a', 0xff, 0xff, 0xff, 0x7f]), None);
    }
}
