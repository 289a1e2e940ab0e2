//! The leases of a queue: which message is leased under which number and until when, and which messages are to be
//! leased again. A pure data structure: times are arguments, bodies are of the caller's type, and it neither waits nor
//! reads a clock or a ring.
//!
//! ```text
//!            admit                 ack, delete
//!   ring ------------> leased ------------------> gone
//!     |                ^    |
//!     |      lease_due |    | nack, or the lease runs out
//!     |                |    v
//!     +-------------> waiting ----> dying ----> dead letters     after the last attempt
//!    admit_later       ^ |
//!                      | v   strict order only: after an earlier message of its partition
//!                     parked
//! ```
//!
//! Invariants:
//! - A message is in one state at any time, so it has at most one holder. Lease numbers are never used twice: a worker
//!   whose number differs from the message's present one has lost it.
//! - A lease ends exactly at its deadline, even before [`Leases::expire`] is called. Deadlines are whole milliseconds,
//!   rounded up.
//! - No call for a single message goes through all messages: the next due one, and a message by its offset, are found
//!   through an index.

mod entries;
mod types;

use entries::{EntryState, MessageEntry};
pub use types::{
    DeadMessage, DeathCause, KnownMessage, LeaseCounts, LeaseEnded, LeaseId, LeaseSettings, LeasedMessage, Order, Phase,
};

use super::changes::Changes;
use super::deadlines::{Deadlines, SlotLinks, moment_after, moment_before, time_of};
use hashbrown::HashTable;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

/// The messages that a queue has read and that are not finished: leased, waiting or dying.
pub struct Leases<M> {
    settings: LeaseSettings,
    weigh: fn(&M) -> usize,
    entries: Vec<Option<MessageEntry<M>>>,
    free: Vec<u32>,
    /// The index of entries by partition and offset.
    index: HashTable<u32>,
    /// The leased messages, by the time at which their leases expire.
    leased: Deadlines,
    /// The waiting messages, by the time from which on they may be leased. That time may have passed.
    waiting: Deadlines,
    links: SlotLinks,
    dying: VecDeque<u32>,
    /// Dying messages that cannot become dead letters: these are too large for their topic, or the messages cannot be
    /// read back.
    set_aside: HashSet<u32>,
    /// Why messages are dying, by the number of their slot. Includes messages whose dead letter is published but not in
    /// a frame of the journal yet.
    causes: HashMap<u32, DeathCause>,
    written: usize,
    /// Strict order only: all messages by partition and offset. Only the first message of a partition may be leased or
    /// waiting.
    lines: BTreeMap<(u16, u64), u32>,
    /// Strict order only: for each partition, the one message that is not parked.
    out: BTreeMap<u16, u32>,
    bytes: usize,
    expired: u64,
    last_number: u64,
    /// Bodies of removed messages. The caller drops them after it has released its lock.
    gone: Vec<M>,
    /// The changes that are not written yet; `None` if the queue is in memory.
    changes: Option<Changes>,
    #[cfg(test)]
    pub(super) accept_late_acks: bool,
}

impl<M: Clone> Leases<M> {
    /// Creates leases without messages. `weigh` returns the size of a message's body in bytes.
    pub fn new(settings: LeaseSettings, weigh: fn(&M) -> usize) -> Self {
        Self {
            settings,
            weigh,
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            leased: Deadlines::default(),
            waiting: Deadlines::default(),
            links: SlotLinks::new(),
            dying: VecDeque::new(),
            set_aside: HashSet::new(),
            causes: HashMap::new(),
            written: 0,
            lines: BTreeMap::new(),
            out: BTreeMap::new(),
            bytes: 0,
            expired: 0,
            last_number: 0,
            gone: Vec::new(),
            changes: None,
            #[cfg(test)]
            accept_late_acks: false,
        }
    }

    /// From now on records which messages have changed, for the journal.
    pub(super) fn note_changes(&mut self) {
        self.changes = Some(Changes::default());
    }

    /// Sets the number of the last lease, so that the next lease gets the number `last` + 1.
    pub(super) fn number_from(&mut self, last: u64) {
        self.last_number = last;
    }

    /// The number of the last lease; numbers grow with each lease.
    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    pub(super) fn changes(&mut self) -> Option<&mut Changes> {
        self.changes.as_mut()
    }

    fn note(&mut self, partition: u16, offset: u64) {
        if let Some(changes) = &mut self.changes {
            changes.message(partition, offset);
        }
    }

    /// The settings of the leases.
    pub fn settings(&self) -> &LeaseSettings {
        &self.settings
    }

    /// The number of messages, in whatever state.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// True if there is no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of messages in each state.
    pub fn counts(&self) -> LeaseCounts {
        let (leased, dying) = (self.leased.len(), self.dying.len() + self.set_aside.len() + self.written);
        let waiting = self.len() - leased - dying;
        LeaseCounts { leased, dying, waiting, bytes: self.bytes, expired: self.expired }
    }

    /// True if one more message may be admitted: neither the limit on messages nor that on bytes is reached. The
    /// admitted message may exceed the limit on bytes.
    pub fn has_room(&self) -> bool {
        self.bytes < self.settings.max_bytes && self.len() < self.settings.max_messages.min(u32::MAX as usize)
    }

    /// True if the next message of this partition may be admitted now. In strict order only if the partition has no
    /// unfinished message; in relaxed order always.
    pub fn may_follow(&self, partition: u32) -> bool {
        let partition = line(partition);
        self.settings.order == Order::Relaxed
            || self.lines.range((partition, 0)..=(partition, u64::MAX)).next().is_none()
    }

    /// Adds a message from the input, and leases it at once. The caller has checked [`has_room`](Self::has_room) and
    /// [`may_follow`](Self::may_follow).
    pub fn admit(&mut self, partition: u32, offset: u64, message: M, now: Duration) -> LeasedMessage<M> {
        let slot = self.add(line(partition), offset, message);
        self.lease(slot, now)
    }

    /// Adds a message from the input that may not be leased before the time `due`.
    pub fn admit_later(&mut self, partition: u32, offset: u64, message: M, due: Duration) {
        let slot = self.add(line(partition), offset, message);
        self.entry(slot).at = moment_after(due);
        self.line_up(slot);
    }

    /// Adds a message with the state that the journal has recorded. Returns false if the message is present already.
    pub(super) fn recall(&mut self, partition: u32, offset: u64, message: M, known: KnownMessage) -> bool {
        if self.find(partition, offset).is_some() {
            return false;
        }
        let slot = self.add(line(partition), offset, message);
        let KnownMessage { number, attempts, phase } = known;
        let entry = self.entry(slot);
        (entry.number, entry.attempts) = (number, attempts);
        match phase {
            Phase::Leased(until) => {
                let at = moment_after(until);
                (entry.at, entry.state) = (at, EntryState::Leased);
                self.leased.insert(&mut self.links, at, slot);
                if self.settings.order == Order::Strict {
                    self.out.insert(line(partition), slot);
                }
            }
            Phase::Waiting(due) => {
                entry.at = moment_after(due);
                self.line_up(slot);
            }
            Phase::Dying(cause) => {
                entry.state = EntryState::Dying;
                self.dying.push_back(slot);
                self.causes.insert(slot, cause);
                if self.settings.order == Order::Strict {
                    // A leased message stays the one that the others wait for.
                    self.out.entry(line(partition)).or_insert(slot);
                }
            }
        }
        true
    }

    /// The state of a message, as it is written to the journal; `None` if the message is not present, so that it is
    /// finished.
    pub(super) fn known(&self, partition: u32, offset: u64) -> Option<KnownMessage> {
        let slot = self.find(partition, offset)?;
        let entry = self.entries[slot as usize].as_ref()?;
        let at = time_of(entry.at);
        let phase = match entry.state {
            EntryState::Leased => Phase::Leased(at),
            EntryState::Waiting | EntryState::Parked => Phase::Waiting(at),
            EntryState::Dying | EntryState::Written => {
                Phase::Dying(self.causes.get(&slot).cloned().unwrap_or(DeathCause::Expired))
            }
        };
        Some(KnownMessage { number: entry.number, attempts: entry.attempts, phase })
    }

    /// The lease with this number on a message; `None` if it has ended.
    pub(super) fn resume(
        &mut self,
        partition: u32,
        offset: u64,
        number: u64,
        now: Duration,
    ) -> Option<LeasedMessage<M>> {
        let id = LeaseId { slot: self.find(partition, offset)?, number };
        let entry = self.held(id, now).ok()?;
        let (attempt, deadline) = (entry.attempts, time_of(entry.at));
        Some(LeasedMessage { id, partition, offset, attempt, deadline, message: entry.message.clone() })
    }

    /// The partition and offset of each message, in no particular order.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, u64)> {
        self.entries.iter().flatten().map(|entry| (u32::from(entry.partition), entry.offset))
    }

    /// Adds a message that may be leased after `delay`, with its attempts counted from 0. Returns false if the message
    /// is present already.
    pub fn restore(&mut self, partition: u32, offset: u64, message: M, now: Duration, delay: Duration) -> bool {
        if self.find(partition, offset).is_some() {
            return false;
        }
        let slot = self.add(line(partition), offset, message);
        self.entry(slot).at = due(now, delay);
        self.line_up(slot);
        true
    }

    /// Leases the message that has been due for the longest time; `None` if no message is due at `now`.
    pub fn lease_due(&mut self, now: Duration) -> Option<LeasedMessage<M>> {
        // If a lease has expired before the first waiting message became due, that lease is ended first, so that its
        // message is leased before the waiting one.
        let is_later = |leases: &Self| {
            leases.leased.first().is_some_and(|ended| leases.waiting.first().is_none_or(|first| ended.0 < first.0))
        };
        while is_later(self) && self.expire_one(now) {}
        let (at, slot) = self.waiting.first().filter(|first| first.0 <= moment_before(now))?;
        self.waiting.remove(&mut self.links, at, slot);
        Some(self.lease(slot, now))
    }

    /// Extends a lease until `now + visibility`. Returns the new deadline.
    pub fn renew(&mut self, id: LeaseId, now: Duration, visibility: Duration) -> Result<Duration, LeaseEnded> {
        let before = self.held(id, now)?.at;
        let deadline = moment_after(now.saturating_add(visibility));
        self.leased.remove(&mut self.links, before, id.slot);
        self.leased.insert(&mut self.links, deadline, id.slot);
        let entry = self.entry(id.slot);
        entry.at = deadline;
        let (partition, offset) = (entry.partition, entry.offset);
        self.note(partition, offset);
        Ok(time_of(deadline))
    }

    /// Acknowledges and removes a leased message. An error if its lease has ended.
    pub fn ack(&mut self, id: LeaseId, now: Duration) -> Result<(), LeaseEnded> {
        #[cfg(test)]
        if self.accept_late_acks
            && matches!(self.entries.get(id.slot as usize), Some(Some(it)) if it.number == id.number)
        {
            let _ = self.remove(id.slot);
            return Ok(());
        }
        self.held(id, now)?;
        // The worker has another reference to the body, so dropping this one runs no user code under the lock.
        let _ = self.remove(id.slot);
        Ok(())
    }

    /// Ends a lease after failed work. The message may be leased again after `delay`; if this was its last attempt, it
    /// is dying with this reason, and this returns true.
    pub fn nack(&mut self, id: LeaseId, now: Duration, delay: Duration, reason: &str) -> Result<bool, LeaseEnded> {
        let at = self.held(id, now)?.at;
        self.leased.remove(&mut self.links, at, id.slot);
        Ok(self.requeue(id.slot, due(now, delay), || DeathCause::Refused(reason.into())))
    }

    /// Ends the lease of a message that no worker has seen. The message may be leased again at once, and the attempt
    /// does not count. Returns false if the lease has ended already.
    pub(super) fn put_back(&mut self, id: LeaseId, now: Duration) -> bool {
        let Ok(at) = self.held(id, now).map(|entry| entry.at) else { return false };
        self.leased.remove(&mut self.links, at, id.slot);
        let entry = self.entry(id.slot);
        entry.attempts -= 1;
        (entry.at, entry.state) = (moment_before(now), EntryState::Parked);
        let (partition, offset) = (entry.partition, entry.offset);
        self.line_up(id.slot);
        self.note(partition, offset);
        true
    }

    /// Ends up to `limit` expired leases. Returns true if it has ended `limit` of them, so that there may be more.
    pub fn expire(&mut self, now: Duration, limit: usize) -> bool {
        (0..limit).all(|_| self.expire_one(now))
    }

    /// The earlier of two times: when the first lease expires (which may have been before `now`), and when the first
    /// delay ends after `now`. `None` if there is neither.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let lease = self.leased.first().map(|first| first.0);
        let delay = self.waiting.next_after(moment_before(now));
        lease.into_iter().chain(delay).min().map(time_of)
    }

    /// True if a waiting message may be leased at `now`.
    pub fn is_due(&self, now: Duration) -> bool {
        self.waiting.first().is_some_and(|first| first.0 <= moment_before(now))
    }

    /// Deletes a message, even a leased one. Returns false if the message is not present, or if its dead letter is
    /// published already.
    pub fn delete(&mut self, partition: u32, offset: u64) -> bool {
        let found = self.find(partition, offset).filter(|&slot| self.entry(slot).state != EntryState::Written);
        found.inspect(|&slot| self.discard(slot)).is_some()
    }

    /// True if the message is present, in whatever state.
    pub fn contains(&self, partition: u32, offset: u64) -> bool {
        self.find(partition, offset).is_some()
    }

    /// Deletes all messages except leased ones and those whose dead letter is published. Returns the number of deleted
    /// messages.
    pub fn purge(&mut self) -> usize {
        // A message whose dead letter is published is purged with the dead letters.
        let idle = |entry: &MessageEntry<M>| !matches!(entry.state, EntryState::Leased | EntryState::Written);
        let slots = self.entries.iter().enumerate().filter(|(_, entry)| entry.as_ref().is_some_and(idle));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot as u32).collect();
        slots.iter().for_each(|&slot| self.discard(slot));
        slots.len()
    }

    /// The waiting messages (in strict order only the first of each partition), the longest due first. Each is returned
    /// as its partition, its offset, its number of attempts, the time from which on it may be leased, and its body.
    pub fn idle(&self) -> impl Iterator<Item = (u32, u64, u32, Duration, &M)> {
        self.waiting.iter(&self.links).filter_map(|(at, slot)| {
            let entry = self.entries[slot as usize].as_ref()?;
            Some((u32::from(entry.partition), entry.offset, entry.attempts, time_of(at), &entry.message))
        })
    }

    /// The message that has been dying for the longest time and whose dead letter is not published; `None` if there is
    /// none.
    pub fn dying(&self) -> Option<DeadMessage<'_, M>> {
        let slot = self.dying.front()?;
        let entry = self.entries[*slot as usize].as_ref()?;
        let cause = self.causes.get(slot)?;
        let MessageEntry { message, offset, attempts, partition, .. } = entry;
        Some(DeadMessage { partition: u32::from(*partition), offset: *offset, attempts: *attempts, cause, message })
    }

    /// Removes the message that [`dying`](Self::dying) returns. Called if its dead letter is published and the queue is
    /// in memory, or if the journal no longer has its body.
    pub fn dead_letter_done(&mut self) {
        if let Some(&slot) = self.dying.front() {
            self.discard(slot);
        }
    }

    /// Marks the message that [`dying`](Self::dying) returns as one whose dead letter is published. Called for a
    /// durable queue: the message stays present until [`settle_dead_letter`](Self::settle_dead_letter).
    pub(super) fn dead_letter_written(&mut self) {
        if let Some(slot) = self.dying.pop_front() {
            self.entry(slot).state = EntryState::Written;
            self.written += 1;
        }
    }

    /// Removes a message whose dead letter is in the frame of the journal that is being gathered, or in an earlier one.
    /// Returns false if the message is not present any more.
    pub(super) fn settle_dead_letter(&mut self, partition: u32, offset: u64) -> bool {
        let found = self.find(partition, offset).filter(|&slot| self.entry(slot).state == EntryState::Written);
        found.inspect(|&slot| self.discard(slot)).is_some()
    }

    fn held(&mut self, id: LeaseId, now: Duration) -> Result<&MessageEntry<M>, LeaseEnded> {
        let entry = self.entries.get(id.slot as usize).and_then(Option::as_ref);
        #[cfg(test)]
        let sabotaged = self.accept_late_acks;
        #[cfg(not(test))]
        let sabotaged = false;
        let is_held = |entry: &&MessageEntry<M>| {
            let lasts = entry.at > moment_before(now) || sabotaged;
            entry.number == id.number && entry.state == EntryState::Leased && lasts
        };
        entry.filter(is_held).ok_or(LeaseEnded)
    }

    fn lease(&mut self, slot: u32, now: Duration) -> LeasedMessage<M> {
        self.last_number += 1;
        let number = self.last_number;
        let deadline = moment_after(now.saturating_add(self.settings.visibility));
        let entry = self.entry(slot);
        entry.state = EntryState::Leased;
        entry.number = number;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.at = deadline;
        let leased = LeasedMessage {
            id: LeaseId { slot, number },
            partition: u32::from(entry.partition),
            offset: entry.offset,
            attempt: entry.attempts,
            deadline: time_of(deadline),
            message: entry.message.clone(),
        };
        self.leased.insert(&mut self.links, deadline, slot);
        if self.settings.order == Order::Strict {
            self.out.insert(line(leased.partition), slot);
        }
        self.note(line(leased.partition), leased.offset);
        leased
    }

    fn expire_one(&mut self, now: Duration) -> bool {
        match self.leased.first() {
            Some((at, slot)) if at <= moment_before(now) => {
                self.leased.remove(&mut self.links, at, slot);
                self.expired += 1;
                let attempts = self.entry(slot).attempts;
                let due = match self.settings.backoff.delay(attempts) {
                    Duration::ZERO => at,
                    delay => moment_after(time_of(at).saturating_add(delay)),
                };
                self.requeue(slot, due, || DeathCause::Expired);
                true
            }
            _ => false,
        }
    }

    /// Makes a message whose lease has ended wait until `due` or, if this was its last attempt, makes it dying. Returns
    /// true if it is dying.
    fn requeue(&mut self, slot: u32, due: u64, cause: impl FnOnce() -> DeathCause) -> bool {
        let max = self.settings.max_attempts;
        let entry = self.entry(slot);
        let (partition, offset) = (entry.partition, entry.offset);
        self.note(partition, offset);
        let entry = self.entry(slot);
        if max.is_some_and(|max| entry.attempts >= max) {
            entry.state = EntryState::Dying;
            self.dying.push_back(slot);
            self.causes.insert(slot, cause());
            return true;
        }
        entry.at = due;
        entry.state = EntryState::Parked;
        self.line_up(slot);
        false
    }
}

/// The moment, in milliseconds, at which a delay ends that begins at `now`. A delay of zero has ended at `now`.
fn due(now: Duration, delay: Duration) -> u64 {
    if delay.is_zero() { moment_before(now) } else { moment_after(now.saturating_add(delay)) }
}

/// The partition's number in 16 bits, which is enough for the 1,024 partitions of a topic.
fn line(partition: u32) -> u16 {
    u16::try_from(partition).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
