//! The encoding of queues in the journal: keys and values of the state [`state_kind::QUEUES`].
//!
//! ```text
//!   n                                   the next number of a queue
//!   q topic name                        a queue's entry: its number and settings
//!   p queue partition                   the next offset to read of a partition
//!   b queue partition block             the unfinished messages of 16 offsets that were read
//!   l queue partition                   the next dead letter of a partition that is neither purged nor sent back
//!   d queue partition offset            a message that was deleted before it was read
//! ```
//!
//! A message below its partition's next offset and in no block is finished. Times are those of the system's clock, in
//! whole milliseconds. `docs/JOURNAL_FORMAT.md` describes the bytes.

use super::changes::{BLOCK, Cursor, StatePart};
use super::lease::{DeathCause, KnownMessage, LeaseSettings, Order, Phase};
use crate::base::clock::Timestamp;
use crate::base::varint;
use crate::log::catalog::state_kind;
use crate::log::queues::QueueEntry;
use slipring_journal::{FrameBuilder, State};
use std::collections::BTreeMap;
use std::time::Duration;

/// The greatest length in bytes of a dying message's reason. Longer reasons are cut.
const LONGEST_REASON: usize = 100;
/// The greatest size in bytes that a block takes in a frame, without the reasons of dying messages.
pub(super) const BLOCK_BYTES: usize = 12 + 8 + KEY_BLOCK + 1 + 4 * VARINT + BLOCK as usize * (1 + 5 + 2 * VARINT);
/// The greatest size in bytes that a block takes in a frame.
pub(super) const LARGEST_BLOCK: usize = BLOCK_BYTES + BLOCK as usize * (1 + LONGEST_REASON);
const VARINT: usize = varint::LONGEST;
const KEY_BLOCK: usize = 17;
const FORMAT: u8 = 1;
/// The first byte of a block of an earlier format, which begins with the time of its writing.
const DATED_FORMAT: u8 = 2;
/// The first byte of a block of the present format. It differs from [`DATED_FORMAT`] in two values: the block's
/// earliest time is relative to the time of writing, and its lowest lease number is split into the journal's
/// incarnation (count of openings) and the lower [`OPENING`] bits.
const BLOCK_FORMAT: u8 = 3;
/// A lease number has the journal's incarnation in the bits from this one on, and a count of leases in the bits below.
const OPENING: u32 = 40;

/// The conversion of times between the engine's clock and the operating system's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockShift {
    /// The time of the system's clock minus that of the engine's clock, in milliseconds.
    between: i64,
    /// The present time of the system's clock, in milliseconds since 1970.
    wall: u64,
}

impl ClockShift {
    /// Converts nothing: times stay those of the system's clock.
    pub(super) const NONE: Self = Self { between: 0, wall: u64::MAX };

    pub(super) fn new(now: Duration, wall: Timestamp) -> Self {
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let between = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX).saturating_sub(now);
        Self { between, wall: wall.as_millis() }
    }

    /// Converts nothing, with `wall` as the time of writing.
    pub(super) fn none_at(wall: Timestamp) -> Self {
        Self { between: 0, wall: wall.as_millis() }
    }

    /// Converts nothing, with this conversion's time as the time of writing.
    pub(super) fn unconverted(self) -> Self {
        Self { between: 0, ..self }
    }

    fn to_wall(self, at: Duration) -> u64 {
        // A time that never comes, such as `Duration::MAX`, is not converted.
        let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        if millis > u64::MAX >> 1 { millis } else { millis.saturating_add_signed(self.between) }
    }

    /// Converts a recorded time `at` to the engine's clock. `written` is when it was recorded (both in milliseconds
    /// since 1970). If the system's clock was set back since then, the remaining time is at most what it was when it
    /// was recorded.
    fn of_wall(self, at: u64, written: u64) -> Duration {
        let set_back = written.saturating_sub(self.wall);
        let at = if at > u64::MAX >> 1 { at } else { at.saturating_sub(set_back).saturating_add_signed(-self.between) };
        Duration::from_millis(at)
    }
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

impl QueueEntry {
    pub(super) fn new(number: u32, settings: &LeaseSettings, dead_topic: &str) -> Self {
        Self {
            number,
            visibility: settings.visibility,
            max_attempts: settings.max_attempts,
            strict: settings.order == Order::Strict,
            max_messages: settings.max_messages as u64,
            dead_topic: dead_topic.to_owned(),
        }
    }
}

/// The entry of the queue `name` of the topic with the number `topic`; `None` if the journal has no such queue.
pub(super) fn find(state: &State, topic: u32, name: &str) -> Option<QueueEntry> {
    QueueEntry::decode(state.get(state_kind::QUEUES, &queue_key(topic, name))?)
}

/// The number that the next new queue gets; 1 if the journal never had a queue.
pub(super) fn next_number(state: &State) -> u32 {
    let bytes = state.get(state_kind::QUEUES, b"n").and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(1, u32::from_le_bytes)
}

/// Adds a queue's entry to `frame`. If the queue is new, also adds the number that the next new queue gets.
pub(super) fn put_queue(frame: &mut FrameBuilder, topic: u32, name: &str, opened: &QueueEntry, is_new: bool) {
    if is_new {
        frame.put(state_kind::QUEUES, b"n", &opened.number.saturating_add(1).to_le_bytes());
    }
    frame.put(state_kind::QUEUES, &queue_key(topic, name), &opened.encode());
}

/// The keys of all values of a queue except its entry.
pub(super) fn keys(state: &State, number: u32) -> Vec<Vec<u8>> {
    state.values(state_kind::QUEUES).filter(|(key, _)| is_of(key, number)).map(|(key, _)| key.to_vec()).collect()
}

pub(super) fn queue_key(topic: u32, name: &str) -> Vec<u8> {
    key(b'q', &[&topic.to_le_bytes(), name.as_bytes()])
}

fn is_of(key: &[u8], queue: u32) -> bool {
    matches!(key, [b'p' | b'b' | b'l' | b'd', rest @ ..] if rest.starts_with(&queue.to_le_bytes()))
}

pub(super) fn part_key(queue: u32, part: StatePart) -> Vec<u8> {
    let (kind, partition, number) = match part {
        StatePart::Block(partition, block) => (b'b', partition, block),
        StatePart::Deleted(partition, offset) => (b'd', partition, offset),
    };
    // Big-endian, so that the order of the keys is that of the offsets.
    key(kind, &[&queue.to_le_bytes(), &partition.to_be_bytes(), &number.to_be_bytes()])
}

pub(super) fn cursor_key(queue: u32, cursor: Cursor) -> Vec<u8> {
    let (kind, partition) = match cursor {
        Cursor::Partition(partition) => (b'p', partition),
        Cursor::DeadLetters(partition) => (b'l', partition),
    };
    key(kind, &[&queue.to_le_bytes(), &partition.to_be_bytes()])
}

pub(super) fn put_cursor(frame: &mut FrameBuilder, queue: u32, cursor: Cursor, next: u64) {
    let mut value = Vec::new();
    varint::put(&mut value, next);
    // Values shorter than eight bytes are varints, and values of eight bytes are plain numbers.
    let value = if value.len() < 8 { value } else { next.to_le_bytes().to_vec() };
    frame.put(state_kind::QUEUES, &cursor_key(queue, cursor), &value);
}

fn cursor_value(mut bytes: &[u8]) -> Option<u64> {
    if let Ok(whole) = bytes.try_into() {
        return Some(u64::from_le_bytes(whole));
    }
    varint::take(&mut bytes).filter(|_| bytes.is_empty())
}

/// Adds the value of a block to `frame` and returns true, or, if no message of the block is unfinished, adds the
/// deletion of the value and returns false.
pub(super) fn put_block(
    frame: &mut FrameBuilder,
    queue: u32,
    partition: u32,
    block: u64,
    shift: ClockShift,
    known: impl Fn(u64) -> Option<KnownMessage>,
) -> bool {
    let key = part_key(queue, StatePart::Block(partition, block));
    let messages: Vec<_> = (0..BLOCK).filter_map(|index| Some((index, known(block * BLOCK + index)?))).collect();
    if messages.is_empty() {
        frame.delete(state_kind::QUEUES, &key);
    } else {
        frame.put(state_kind::QUEUES, &key, &encode(&messages, shift));
    }
    !messages.is_empty()
}

fn encode(messages: &[(u64, KnownMessage)], shift: ClockShift) -> Vec<u8> {
    let at = |known: &KnownMessage| match known.phase {
        Phase::Leased(at) | Phase::Waiting(at) => Some(shift.to_wall(at)),
        Phase::Dying(_) => None,
    };
    let base = messages.iter().filter_map(|(_, known)| at(known)).min().unwrap_or(0);
    let first = messages.iter().map(|(_, known)| known.number).min().unwrap_or(0);
    let mut out = vec![BLOCK_FORMAT];
    varint::put(&mut out, shift.wall);
    varint::put(&mut out, varint::zigzag(base.wrapping_sub(shift.wall) as i64));
    varint::put(&mut out, first >> OPENING);
    varint::put(&mut out, first & ((1 << OPENING) - 1));
    for (index, known) in messages {
        let phase = match &known.phase {
            Phase::Leased(_) => 0,
            Phase::Waiting(_) => 1,
            Phase::Dying(DeathCause::Expired) => 2,
            Phase::Dying(DeathCause::Refused(_)) => 3,
        };
        out.push(*index as u8 | phase << 4);
        varint::put(&mut out, u64::from(known.attempts));
        varint::put(&mut out, known.number - first);
        match &known.phase {
            Phase::Leased(_) | Phase::Waiting(_) => varint::put(&mut out, at(known).unwrap_or(base) - base),
            Phase::Dying(DeathCause::Expired) => {}
            Phase::Dying(DeathCause::Refused(reason)) => {
                let mut cut = reason.len().min(LONGEST_REASON);
                while !reason.is_char_boundary(cut) {
                    cut -= 1;
                }
                out.push(cut as u8);
                out.extend_from_slice(&reason.as_bytes()[..cut]);
            }
        }
    }
    out
}

fn decode(mut bytes: &[u8], shift: ClockShift) -> Option<Vec<(u64, KnownMessage)>> {
    let (&format, rest) = bytes.split_first()?;
    bytes = rest;
    let written = match format {
        BLOCK_FORMAT | DATED_FORMAT => varint::take(&mut bytes)?,
        // Format 1 has no time of writing.
        FORMAT => 0,
        _ => return None,
    };
    let (mut base, mut first) = (varint::take(&mut bytes)?, varint::take(&mut bytes)?);
    if format == BLOCK_FORMAT {
        base = written.wrapping_add(varint::unzigzag(base) as u64);
        first = first.checked_mul(1 << OPENING)?.checked_add(varint::take(&mut bytes)?)?;
    }
    let mut messages = Vec::new();
    while let Some((&head, rest)) = bytes.split_first() {
        bytes = rest;
        let attempts = u32::try_from(varint::take(&mut bytes)?).ok()?;
        let number = varint::take(&mut bytes)?.checked_add(first)?;
        let at = |bytes: &mut &[u8]| Some(shift.of_wall(varint::take(bytes)?.checked_add(base)?, written));
        let phase = match head >> 4 {
            0 => Phase::Leased(at(&mut bytes)?),
            1 => Phase::Waiting(at(&mut bytes)?),
            2 => Phase::Dying(DeathCause::Expired),
            3 => {
                let (&len, rest) = bytes.split_first()?;
                let (reason, rest) = rest.split_at_checked(usize::from(len))?;
                bytes = rest;
                Phase::Dying(DeathCause::Refused(String::from_utf8_lossy(reason).into()))
            }
            _ => return None,
        };
        messages.push((u64::from(head & 0xf), KnownMessage { number, attempts, phase }));
    }
    Some(messages)
}

/// The messages of a block's value, by their index in the block, with the times of the system's clock. Empty for a value
/// that cannot be decoded.
pub(super) fn recorded_block(value: &[u8]) -> BTreeMap<u64, KnownMessage> {
    decode(value, ClockShift::NONE).unwrap_or_default().into_iter().collect()
}

/// A queue's state as it was read from the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecoveredQueue {
    pub(super) cursors: BTreeMap<Cursor, u64>,
    /// The unfinished messages by partition and offset.
    pub(super) messages: BTreeMap<(u32, u64), KnownMessage>,
    pub(super) deleted: Vec<(u32, u64)>,
    /// The number of values that could not be decoded.
    pub(super) unreadable: usize,
}

/// Removes all values of a queue except its entry from `state`, the engine's copy of the journal's state. Called once
/// the queue has its own copy.
pub(super) fn forget(state: &mut State, queue: u32) {
    let mut frame = FrameBuilder::new();
    keys(state, queue).iter().for_each(|key| frame.delete(state_kind::QUEUES, key));
    state.take(&mut frame);
}

impl RecoveredQueue {
    /// For each partition of the topic for dead letters, the offset of the first letter that is neither purged nor sent
    /// back.
    pub(super) fn letters(&self) -> BTreeMap<u32, u64> {
        let letters = self.cursors.iter().filter_map(|(cursor, next)| match cursor {
            Cursor::DeadLetters(partition) => Some((*partition, *next)),
            Cursor::Partition(_) => None,
        });
        letters.collect()
    }

    /// Decodes all values of a queue in `state`. `shift` converts the times to the engine's clock.
    pub(super) fn read(state: &State, queue: u32, shift: ClockShift) -> Self {
        let mut found = Self::default();
        for (key, value) in state.values(state_kind::QUEUES).filter(|(key, _)| is_of(key, queue)) {
            if found.take(key[0], &key[5..], value, shift).is_none() {
                found.unreadable += 1;
            }
        }
        found
    }

    fn take(&mut self, kind: u8, key: &[u8], value: &[u8], shift: ClockShift) -> Option<()> {
        let (partition, rest) = key.split_first_chunk()?;
        let partition = u32::from_be_bytes(*partition);
        let number = || Some(u64::from_be_bytes(rest.try_into().ok()?));
        match kind {
            b'p' | b'l' => {
                let cursor = if kind == b'p' { Cursor::Partition(partition) } else { Cursor::DeadLetters(partition) };
                self.cursors.insert(cursor, cursor_value(value)?);
            }
            b'd' => self.deleted.push((partition, number()?)),
            _ => {
                let first = number()?.checked_mul(BLOCK)?;
                let messages = decode(value, shift)?.into_iter();
                self.messages.extend(messages.map(|(index, known)| ((partition, first + index), known)));
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known() -> impl Strategy<Value = KnownMessage> {
        let millis = || prop_oneof![0..100_000_u64, Just(u64::MAX)].prop_map(Duration::from_millis);
        let phase = prop_oneof![
            millis().prop_map(Phase::Leased),
            millis().prop_map(Phase::Waiting),
            Just(Phase::Dying(DeathCause::Expired)),
            "\\PC{0,25}".prop_map(|reason| Phase::Dying(DeathCause::Refused(reason.into()))),
        ];
        (any::<u64>(), any::<u32>(), phase).prop_map(|(number, attempts, phase)| KnownMessage {
            number,
            attempts,
            phase,
        })
    }

    fn applied(frame: &mut FrameBuilder) -> State {
        let mut state = State::default();
        state.take(frame);
        state
    }

    proptest! {
        #[test]
        fn blocks_come_back_as_they_were(messages in prop::collection::btree_map(0..64_u64, known(), 0..40)) {
            let shift = ClockShift::new(Duration::from_secs(7), Timestamp::from_millis(1_700_000_000_000));
            let mut frame = FrameBuilder::new();
            for block in 0..4 {
                put_block(&mut frame, 5, 2, block, shift, |offset| messages.get(&offset).cloned());
                let dying: usize = (block * 16..block * 16 + 16).filter(|at| messages.get(at).is_some_and(|known| matches!(known.phase, Phase::Dying(_)))).count();
                prop_assert!(frame.len() <= (block as usize + 1) * BLOCK_BYTES + dying * 101 * (block as usize + 1));
            }
            put_cursor(&mut frame, 5, Cursor::Partition(2), 64);
            put_cursor(&mut frame, 6, Cursor::Partition(2), 9);
            let found = RecoveredQueue::read(&applied(&mut frame), 5, shift);
            let expected = messages.iter().map(|(offset, known)| ((2, *offset), known.clone()));
            prop_assert_eq!(found.messages, expected.collect::<BTreeMap<_, _>>());
            prop_assert_eq!(found.cursors, BTreeMap::from([(Cursor::Partition(2), 64)]));
            prop_assert_eq!(found.unreadable, 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let shift = ClockShift::new(Duration::ZERO, Timestamp::from_millis(0));
            let _ = (decode(&bytes, shift), QueueEntry::decode(&bytes));
        }
    }

    #[test]
    fn a_deadline_moves_to_the_clock_of_the_next_process() {
        let before = ClockShift::new(Duration::from_secs(100), Timestamp::from_millis(1_000_000));
        let after = ClockShift::new(Duration::from_secs(1), Timestamp::from_millis(1_004_000));
        // The deadline is ten seconds after the writing, of which four have passed.
        let of_wall = |at| after.of_wall(before.to_wall(at), before.wall);
        assert_eq!(of_wall(Duration::from_secs(110)), Duration::from_secs(7));
        assert_eq!(of_wall(Duration::from_secs(90)), Duration::ZERO, "long past");
        assert_eq!(of_wall(Duration::from_millis(u64::MAX)), Duration::from_millis(u64::MAX));
    }

    /// After the system's clock was set back, a delay of five seconds was once read as one of ten years.
    #[test]
    fn no_deadline_grows_when_the_worlds_clock_is_set_back() {
        let known = |at| KnownMessage { number: 1, attempts: 1, phase: Phase::Waiting(Duration::from_secs(at)) };
        let before = ClockShift::new(Duration::from_secs(100), Timestamp::from_millis(1_700_000_000_000));
        let block = encode(&[(0, known(105))], before);
        let set_back = ClockShift::new(Duration::from_secs(1), Timestamp::from_millis(1_384_640_000_000));
        assert_eq!(decode(&block, set_back), Some(vec![(0, known(6))]));
        let set_forward = ClockShift::new(Duration::from_secs(1), Timestamp::from_millis(1_700_000_003_000));
        assert_eq!(decode(&block, set_forward), Some(vec![(0, known(3))]));
        // The command-line tool reads and changes blocks without conversion.
        let shown = decode(&block, ClockShift::NONE).unwrap();
        assert_eq!(shown, [(0, known(1_700_000_005))]);
        let again = encode(&shown, ClockShift::none_at(Timestamp::from_millis(1_700_000_001_000)));
        assert_eq!(decode(&again, set_back), Some(vec![(0, known(5))]));
    }

    #[test]
    fn a_queue_comes_back_as_it_was_opened_and_goes_as_a_whole() {
        let opened = QueueEntry {
            number: 3,
            visibility: Duration::from_secs(30),
            max_attempts: None,
            strict: true,
            max_messages: 7,
            dead_topic: "dead".to_owned(),
        };
        let mut frame = FrameBuilder::new();
        put_queue(&mut frame, 1, "resize", &opened, true);
        put_queue(&mut frame, 2, "resize", &QueueEntry { number: 4, ..opened.clone() }, true);
        for queue in [3, 4] {
            put_cursor(&mut frame, queue, Cursor::DeadLetters(0), 1);
            let known = KnownMessage { number: 1, attempts: 1, phase: Phase::Waiting(Duration::ZERO) };
            put_block(&mut frame, queue, 0, 9, ClockShift::NONE, |_| Some(known.clone()));
            frame.put(state_kind::QUEUES, &part_key(queue, StatePart::Deleted(1, 77)), &[]);
        }
        let state = applied(&mut frame);
        assert_eq!(find(&state, 1, "resize"), Some(opened));
        assert_eq!((crate::log::queues::all(&state).len(), next_number(&state)), (2, 5));
        assert_eq!(RecoveredQueue::read(&state, 4, ClockShift::NONE).deleted, [(1, 77)]);
        let mut frame = FrameBuilder::new();
        frame.delete(state_kind::QUEUES, &queue_key(1, "resize"));
        keys(&state, 3).iter().for_each(|key| frame.delete(state_kind::QUEUES, key));
        let mut left = state.clone();
        left.take(&mut frame);
        assert_eq!(find(&left, 1, "resize"), None);
        assert_eq!(RecoveredQueue::read(&left, 3, ClockShift::NONE), RecoveredQueue::default());
        assert_eq!(RecoveredQueue::read(&left, 4, ClockShift::NONE).messages.len(), 16);
    }
}
