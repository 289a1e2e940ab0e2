//! The table of a queue's unfinished messages, by partition and offset; in strict order also the queue of each
//! partition's messages.

use super::line;
use super::{Leases, Order};
use crate::queue::deadlines::SlotLink;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    /// A worker has a lease of the message until `at`.
    Leased,
    /// The message may be leased from `at` on.
    Waiting,
    /// As `Waiting`, but the message may not be leased: in strict order, because another message of its partition must
    /// be finished first; in relaxed order only until `line_up` is called.
    Parked,
    Dying,
    /// The message's dead letter is published, but not in a frame of the journal yet.
    Written,
}

pub(super) struct MessageEntry<M> {
    pub(super) message: M,
    pub(super) offset: u64,
    pub(super) at: u64,
    /// The number of the message's present or last lease; 0 if it was never leased.
    pub(super) number: u64,
    pub(super) attempts: u32,
    pub(super) partition: u16,
    pub(super) state: EntryState,
}

fn hash(partition: u16, offset: u64) -> u64 {
    // The offsets of a partition are consecutive. The multiplication spreads them, because the table uses both the high
    // and the low bits of the hash.
    let mixed = (offset ^ u64::from(partition).rotate_right(16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

impl<M: Clone> Leases<M> {
    /// Removes a message. Its body is kept in `gone`, for the caller to drop.
    pub(super) fn discard(&mut self, slot: u32) {
        let message = self.remove(slot);
        self.gone.extend(message);
    }

    pub(super) fn add(&mut self, partition: u16, offset: u64, message: M) -> u32 {
        self.bytes = self.bytes.saturating_add((self.weigh)(&message));
        let entry =
            MessageEntry { message, offset, at: 0, number: 0, attempts: 0, partition, state: EntryState::Parked };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                self.links.push(SlotLink::FREE);
                (self.entries.len() - 1) as u32
            }
        };
        self.entries[slot as usize] = Some(entry);
        let entries = &self.entries;
        self.index.insert_unique(hash(partition, offset), slot, |&slot| {
            entries[slot as usize].as_ref().map_or(0, |entry| hash(entry.partition, entry.offset))
        });
        if self.settings.order == Order::Strict {
            self.lines.insert((partition, offset), slot);
        }
        self.note(partition, offset);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<M> {
        let entry = self.entries[slot as usize].take()?;
        let found = self.index.find_entry(hash(entry.partition, entry.offset), |&other| other == slot);
        if let Ok(found) = found {
            found.remove();
        }
        match entry.state {
            EntryState::Leased => self.leased.remove(&mut self.links, entry.at, slot),
            EntryState::Waiting => self.waiting.remove(&mut self.links, entry.at, slot),
            EntryState::Dying if self.dying.front() == Some(&slot) => _ = self.dying.pop_front(),
            EntryState::Dying if self.set_aside.remove(&slot) => {}
            EntryState::Dying => self.dying.retain(|dying| *dying != slot),
            EntryState::Written => self.written -= 1,
            EntryState::Parked => {}
        }
        if matches!(entry.state, EntryState::Dying | EntryState::Written) {
            self.causes.remove(&slot);
        }
        self.note(entry.partition, entry.offset);
        self.free.push(slot);
        self.bytes -= (self.weigh)(&entry.message);
        self.leave_line(slot, (entry.partition, entry.offset));
        Some(entry.message)
    }

    /// For strict order: lets the next message of a partition follow the message in `slot`, which is at this partition
    /// and offset.
    fn leave_line(&mut self, slot: u32, at: (u16, u64)) {
        if self.lines.remove(&at).is_some() {
            if self.out.get(&at.0) == Some(&slot) {
                self.out.remove(&at.0);
            }
            self.first_of_line(at.0);
        }
    }

    /// Makes the message that [`dying`](Self::dying) returns stay without a dead letter, so that the next one is
    /// returned. It counts as dying until the queue is opened again, and no message of its partition waits for it.
    pub(in crate::queue) fn set_dying_aside(&mut self) {
        if let Some(slot) = self.dying.pop_front() {
            self.set_aside.insert(slot);
            let entry = self.entry(slot);
            let at = (entry.partition, entry.offset);
            self.leave_line(slot, at);
        }
    }

    /// Takes the bodies of the messages that were removed since the last call. The caller drops them after it has
    /// released its lock.
    pub(in crate::queue) fn take_gone(&mut self) -> Vec<M> {
        std::mem::take(&mut self.gone)
    }

    /// True if the journal knows that the queue has this message, or the queue is in memory.
    pub(in crate::queue) fn is_recorded(&self, partition: u32, offset: u64) -> bool {
        self.changes.as_ref().is_none_or(|changes| changes.is_recorded(partition, offset))
    }

    pub(super) fn find(&self, partition: u32, offset: u64) -> Option<u32> {
        let partition = line(partition);
        let is_it = |&slot: &u32| {
            let entry = self.entries[slot as usize].as_ref();
            entry.is_some_and(|entry| (entry.partition, entry.offset) == (partition, offset))
        };
        self.index.find(hash(partition, offset), is_it).copied()
    }

    pub(super) fn entry(&mut self, slot: u32) -> &mut MessageEntry<M> {
        self.entries[slot as usize].as_mut().expect("a slot in a set or in the index is in use")
    }

    /// Sets a [`Parked`](EntryState::Parked) message to [`Waiting`](EntryState::Waiting): it may be leased from its time
    /// `at` on. In strict order, does so for the first message of its partition instead, unless a message of the partition
    /// is leased, is dying, or has a dead letter that is not in the journal yet.
    pub(super) fn line_up(&mut self, slot: u32) {
        let order = self.settings.order;
        let entry = self.entry(slot);
        if order == Order::Strict {
            let partition = entry.partition;
            self.first_of_line(partition);
        } else {
            entry.state = EntryState::Waiting;
            let at = entry.at;
            self.waiting.insert(&mut self.links, at, slot);
        }
    }

    /// For strict order: makes the first message of a partition wait, unless a message of the partition is leased or
    /// dying. Parks a waiting message that is not the first.
    fn first_of_line(&mut self, partition: u16) {
        let first = self.lines.range((partition, 0)..=(partition, u64::MAX)).next().map(|(_, &slot)| slot);
        let out = self.out.get(&partition).copied();
        match out.map(|slot| (slot, self.entry(slot).state)) {
            Some((_, EntryState::Leased | EntryState::Dying | EntryState::Written)) => return,
            // The first message waits already. Adding it again would lease it twice.
            Some((slot, EntryState::Waiting)) if first == Some(slot) => return,
            Some((slot, EntryState::Waiting)) => {
                let entry = self.entry(slot);
                entry.state = EntryState::Parked;
                let at = entry.at;
                self.waiting.remove(&mut self.links, at, slot);
            }
            _ => {}
        }
        let Some(slot) = first else {
            self.out.remove(&partition);
            return;
        };
        self.out.insert(partition, slot);
        let entry = self.entry(slot);
        // After a restart, several messages of a partition may be leased or dying: see `set_dying_aside`.
        if entry.state != EntryState::Parked {
            return;
        }
        entry.state = EntryState::Waiting;
        let at = entry.at;
        self.waiting.insert(&mut self.links, at, slot);
    }
}
