//! Who has which message of a queue, until when, and which come again: a pure data structure. Time is handed in, the
//! bodies of messages are the caller's business, and nothing here waits, reads a clock or knows a ring.
//!
//! ```text
//!            admit                 ack, delete
//!   ring ------------> leased ------------------> gone
//!                      ^    |
//!       grant, when due|    | nack, or the lease runs out
//!                      |    v
//!                     waiting ----> dying ----> dead letters     after the last attempt
//!                      ^ |
//!                      | v   strict order only: behind an earlier message of its partition
//!                     parked
//! ```
//!
//! Invariants:
//! - A message is in one state at any time, so it has at most one holder. A lease's number is never used twice: whoever
//!   comes with another number than the message's has lost it.
//! - A lease is over at its deadline exactly, whether or not [`Leases::expire`] has been there yet. Deadlines are whole
//!   milliseconds, never earlier than asked for.
//! - No call looks through the messages: what is due first, and a message by its offset, are found by an index.

use super::calendar::{Calendar, Link, Links, moment_after, moment_before, time_of};
use hashbrown::HashTable;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Which messages of a partition may be out at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Any. A message that comes again comes before new ones, and after later ones that were done meanwhile.
    #[default]
    Relaxed,
    /// One of each partition: the next is given out when the one before it was acked, deleted, or moved to the dead
    /// letters. A delay holds up its partition, and no other one.
    Strict,
}

/// What a queue promises about its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease lasts unless renewed.
    pub visibility: Duration,
    /// How often a message is given out before it is a dead letter; none: for ever.
    pub max_attempts: Option<u32>,
    /// What may be out at the same time.
    pub order: Order,
    /// The most messages that are leased, delayed or come again.
    pub max_messages: usize,
    /// The most bytes that these hold.
    pub max_bytes: usize,
}

/// A lease, as its holder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    slot: u32,
    number: u64,
}

/// What a holder gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<M> {
    /// To ack, nack or renew.
    pub id: LeaseId,
    /// The message's partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When the lease ends.
    pub deadline: Duration,
    /// The message.
    pub message: M,
}

/// The lease is no longer the caller's: it ran out, or the message was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// Why a message is moved to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The holder of the last attempt gave it back, and said this.
    Refused(Box<str>),
    /// The lease of the last attempt ran out.
    Expired,
}

/// A message that was given out as often as it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead<'l, M> {
    /// The message's partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// What ended the last attempt.
    pub cause: &'l Cause,
    /// The message.
    pub message: &'l M,
}

/// How many messages are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Somebody has a lease.
    pub leased: usize,
    /// Come again, now or later.
    pub waiting: usize,
    /// On their way to the dead letters.
    pub dying: usize,
    /// What all of them hold.
    pub bytes: usize,
    /// Leases that have run out so far.
    pub expired: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `at`: when its lease ends.
    Leased,
    /// `at`: from when on it may be given out.
    Waiting,
    /// The same, once it is the first of its partition.
    Parked,
    Dying,
}

struct Entry<M> {
    message: M,
    offset: u64,
    at: u64,
    /// Of its present or last lease.
    number: u64,
    attempts: u32,
    partition: u16,
    state: State,
}

/// The messages of a queue that are out of the ring.
pub struct Leases<M> {
    terms: Terms,
    weigh: fn(&M) -> usize,
    entries: Vec<Option<Entry<M>>>,
    free: Vec<u32>,
    /// By partition and offset, for those who come with a receipt.
    index: HashTable<u32>,
    /// By deadline.
    leased: Calendar,
    /// By when they may be given out, whether that is past or to come.
    waiting: Calendar,
    links: Links,
    dying: VecDeque<(u32, Cause)>,
    /// Strict order only: all of a partition, by offset. Only the first may be leased or waiting.
    lines: BTreeMap<(u16, u64), u32>,
    /// Strict order only: the one of each partition that is not parked.
    out: BTreeMap<u16, u32>,
    bytes: usize,
    expired: u64,
    last_number: u64,
}

fn hash(partition: u16, offset: u64) -> u64 {
    // Offsets of a partition follow one another: a multiplication spreads them, and the table looks at both ends.
    let mixed = (offset ^ u64::from(partition).rotate_right(16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

impl<M: Clone> Leases<M> {
    /// None out. `weigh` tells the bytes that a message holds.
    pub fn new(terms: Terms, weigh: fn(&M) -> usize) -> Self {
        Self {
            terms,
            weigh,
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            leased: Calendar::default(),
            waiting: Calendar::default(),
            links: Links::new(),
            dying: VecDeque::new(),
            lines: BTreeMap::new(),
            out: BTreeMap::new(),
            bytes: 0,
            expired: 0,
            last_number: 0,
        }
    }

    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How many messages there are, in any state.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are in each state.
    pub fn counts(&self) -> Counts {
        let (leased, dying) = (self.leased.len(), self.dying.len());
        let waiting = self.len() - leased - dying;
        Counts { leased, dying, waiting, bytes: self.bytes, expired: self.expired }
    }

    /// Whether one more message may come from the ring. The last one to come may go beyond the limit of bytes.
    pub fn has_room(&self) -> bool {
        self.bytes < self.terms.max_bytes && self.len() < self.terms.max_messages.min(u32::MAX as usize)
    }

    /// Whether the order lets the ring's next message of this partition out now.
    pub fn may_follow(&self, partition: u32) -> bool {
        let partition = line(partition);
        self.terms.order == Order::Relaxed || self.lines.range((partition, 0)..=(partition, u64::MAX)).next().is_none()
    }

    /// Takes a message from the ring and leases it at once. The caller has asked [`has_room`](Self::has_room) and
    /// [`may_follow`](Self::may_follow).
    pub fn admit(&mut self, partition: u32, offset: u64, message: M, now: Duration) -> Grant<M> {
        let slot = self.add(line(partition), offset, message);
        self.give_out(slot, now)
    }

    /// Takes a message back in, to be given out after `delay`, its attempts counted anew. False if it is here already.
    pub fn restore(&mut self, partition: u32, offset: u64, message: M, now: Duration, delay: Duration) -> bool {
        if self.find(partition, offset).is_some() {
            return false;
        }
        let slot = self.add(line(partition), offset, message);
        self.entry(slot).at = due(now, delay);
        self.line_up(slot);
        true
    }

    /// Gives out the message that has been due for the longest time, if there is one.
    pub fn grant(&mut self, now: Duration) -> Option<Grant<M>> {
        // What ran out before the first one became due comes before it.
        let is_later = |leases: &Self| {
            leases.leased.first().is_some_and(|ended| leases.waiting.first().is_none_or(|first| ended.0 < first.0))
        };
        while is_later(self) && self.expire_one(now) {}
        let (at, slot) = self.waiting.first().filter(|first| first.0 <= moment_before(now))?;
        self.waiting.remove(&mut self.links, at, slot);
        Some(self.give_out(slot, now))
    }

    /// Makes the lease last until `visibility` from now. The new deadline.
    pub fn renew(&mut self, id: LeaseId, now: Duration, visibility: Duration) -> Result<Duration, Lost> {
        let before = self.held(id, now)?.at;
        let deadline = moment_after(now.saturating_add(visibility));
        self.leased.remove(&mut self.links, before, id.slot);
        self.leased.insert(&mut self.links, deadline, id.slot);
        self.entry(id.slot).at = deadline;
        Ok(time_of(deadline))
    }

    /// The message is done with: it never comes again.
    pub fn ack(&mut self, id: LeaseId, now: Duration) -> Result<(), Lost> {
        self.held(id, now)?;
        self.remove(id.slot);
        Ok(())
    }

    /// Gives the message back: to come again after `delay`, or, if this was the last attempt, to be a dead letter for
    /// this reason. True if it is one.
    pub fn nack(&mut self, id: LeaseId, now: Duration, delay: Duration, reason: &str) -> Result<bool, Lost> {
        let at = self.held(id, now)?.at;
        self.leased.remove(&mut self.links, at, id.slot);
        Ok(self.take_back(id.slot, due(now, delay), || Cause::Refused(reason.into())))
    }

    /// Ends at most `limit` of the leases that have run out. True if there may be more.
    pub fn expire(&mut self, now: Duration, limit: usize) -> bool {
        (0..limit).all(|_| self.expire_one(now))
    }

    /// The next moment at which something happens by itself: a lease ends, or a delay that is not over yet.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let lease = self.leased.first().map(|first| first.0);
        let delay = self.waiting.next_after(moment_before(now));
        lease.into_iter().chain(delay).min().map(time_of)
    }

    /// Whether a message that nobody has could be given out now.
    pub fn is_due(&self, now: Duration) -> bool {
        self.waiting.first().is_some_and(|first| first.0 <= moment_before(now))
    }

    /// Deletes a message, whoever has it. False if it is not here.
    pub fn delete(&mut self, partition: u32, offset: u64) -> bool {
        let found = self.find(partition, offset);
        found.inspect(|&slot| self.remove(slot)).is_some()
    }

    /// Whether the message is here.
    pub fn contains(&self, partition: u32, offset: u64) -> bool {
        self.find(partition, offset).is_some()
    }

    /// Deletes all messages that nobody has a lease on. How many.
    pub fn purge(&mut self) -> usize {
        let idle = |entry: &Entry<M>| entry.state != State::Leased;
        let slots = self.entries.iter().enumerate().filter(|(_, entry)| entry.as_ref().is_some_and(idle));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot as u32).collect();
        slots.iter().for_each(|&slot| self.remove(slot));
        slots.len()
    }

    /// The messages that nobody has a lease on, the longest due first, and when each may be given out.
    pub fn idle(&self) -> impl Iterator<Item = (u32, u64, u32, Duration, &M)> {
        self.waiting.iter(&self.links).filter_map(|(at, slot)| {
            let entry = self.entries[slot as usize].as_ref()?;
            Some((u32::from(entry.partition), entry.offset, entry.attempts, time_of(at), &entry.message))
        })
    }

    /// The message that has been on its way to the dead letters for the longest time.
    pub fn dying(&self) -> Option<Dead<'_, M>> {
        let (slot, cause) = self.dying.front()?;
        let entry = self.entries[*slot as usize].as_ref()?;
        let Entry { message, offset, attempts, partition, .. } = entry;
        Some(Dead { partition: u32::from(*partition), offset: *offset, attempts: *attempts, cause, message })
    }

    /// That message has arrived there.
    pub fn buried(&mut self) {
        if let Some(&(slot, _)) = self.dying.front() {
            self.remove(slot);
        }
    }

    fn add(&mut self, partition: u16, offset: u64, message: M) -> u32 {
        self.bytes = self.bytes.saturating_add((self.weigh)(&message));
        let entry = Entry { message, offset, at: 0, number: 0, attempts: 0, partition, state: State::Parked };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                self.links.push(Link::FREE);
                (self.entries.len() - 1) as u32
            }
        };
        self.entries[slot as usize] = Some(entry);
        let entries = &self.entries;
        self.index.insert_unique(hash(partition, offset), slot, |&slot| {
            entries[slot as usize].as_ref().map_or(0, |entry| hash(entry.partition, entry.offset))
        });
        if self.terms.order == Order::Strict {
            self.lines.insert((partition, offset), slot);
        }
        slot
    }

    fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entries[slot as usize].take() else { return };
        let found = self.index.find_entry(hash(entry.partition, entry.offset), |&other| other == slot);
        if let Ok(found) = found {
            found.remove();
        }
        match entry.state {
            State::Leased => self.leased.remove(&mut self.links, entry.at, slot),
            State::Waiting => self.waiting.remove(&mut self.links, entry.at, slot),
            State::Dying if self.dying.front().is_some_and(|dying| dying.0 == slot) => _ = self.dying.pop_front(),
            State::Dying => self.dying.retain(|dying| dying.0 != slot),
            State::Parked => {}
        }
        self.free.push(slot);
        self.bytes -= (self.weigh)(&entry.message);
        if self.lines.remove(&(entry.partition, entry.offset)).is_some() {
            if self.out.get(&entry.partition) == Some(&slot) {
                self.out.remove(&entry.partition);
            }
            self.first_of_line(entry.partition);
        }
    }

    fn find(&self, partition: u32, offset: u64) -> Option<u32> {
        let partition = line(partition);
        let is_it = |&slot: &u32| {
            let entry = self.entries[slot as usize].as_ref();
            entry.is_some_and(|entry| (entry.partition, entry.offset) == (partition, offset))
        };
        self.index.find(hash(partition, offset), is_it).copied()
    }

    fn entry(&mut self, slot: u32) -> &mut Entry<M> {
        self.entries[slot as usize].as_mut().expect("a slot in a set or in the index is in use")
    }

    fn held(&mut self, id: LeaseId, now: Duration) -> Result<&Entry<M>, Lost> {
        let entry = self.entries.get(id.slot as usize).and_then(Option::as_ref);
        let is_held = |entry: &&Entry<M>| {
            entry.number == id.number && entry.state == State::Leased && entry.at > moment_before(now)
        };
        entry.filter(is_held).ok_or(Lost)
    }

    fn give_out(&mut self, slot: u32, now: Duration) -> Grant<M> {
        self.last_number += 1;
        let number = self.last_number;
        let deadline = moment_after(now.saturating_add(self.terms.visibility));
        let entry = self.entry(slot);
        entry.state = State::Leased;
        entry.number = number;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.at = deadline;
        let grant = Grant {
            id: LeaseId { slot, number },
            partition: u32::from(entry.partition),
            offset: entry.offset,
            attempt: entry.attempts,
            deadline: time_of(deadline),
            message: entry.message.clone(),
        };
        self.leased.insert(&mut self.links, deadline, slot);
        if self.terms.order == Order::Strict {
            self.out.insert(line(grant.partition), slot);
        }
        grant
    }

    fn expire_one(&mut self, now: Duration) -> bool {
        match self.leased.first() {
            Some((at, slot)) if at <= moment_before(now) => {
                self.leased.remove(&mut self.links, at, slot);
                self.expired += 1;
                self.take_back(slot, at, || Cause::Expired);
                true
            }
            _ => false,
        }
    }

    /// Its lease has been taken out of the set.
    fn take_back(&mut self, slot: u32, due: u64, cause: impl FnOnce() -> Cause) -> bool {
        let max = self.terms.max_attempts;
        let entry = self.entry(slot);
        if max.is_some_and(|max| entry.attempts >= max) {
            entry.state = State::Dying;
            self.dying.push_back((slot, cause()));
            return true;
        }
        entry.at = due;
        entry.state = State::Parked;
        self.line_up(slot);
        false
    }

    /// A parked message waits, or stays parked behind another one.
    fn line_up(&mut self, slot: u32) {
        let order = self.terms.order;
        let entry = self.entry(slot);
        if order == Order::Strict {
            let partition = entry.partition;
            self.first_of_line(partition);
        } else {
            entry.state = State::Waiting;
            let at = entry.at;
            self.waiting.insert(&mut self.links, at, slot);
        }
    }

    /// Strict order: lets the first message of the partition wait, and parks one that an earlier one came before.
    fn first_of_line(&mut self, partition: u16) {
        let first = self.lines.range((partition, 0)..=(partition, u64::MAX)).next().map(|(_, &slot)| slot);
        let out = self.out.get(&partition).copied();
        match out.map(|slot| (slot, self.entry(slot).state)) {
            Some((_, State::Leased | State::Dying)) => return,
            // It waits already: putting it there once more would give it out twice.
            Some((slot, State::Waiting)) if first == Some(slot) => return,
            Some((slot, State::Waiting)) => {
                let entry = self.entry(slot);
                entry.state = State::Parked;
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
        entry.state = State::Waiting;
        let at = entry.at;
        self.waiting.insert(&mut self.links, at, slot);
    }
}

/// A delay of nothing is over at once.
fn due(now: Duration, delay: Duration) -> u64 {
    if delay.is_zero() { moment_before(now) } else { moment_after(now.saturating_add(delay)) }
}

/// A topic has no more than 1,024 partitions.
fn line(partition: u32) -> u16 {
    u16::try_from(partition).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same promises, told with a plain list that is searched from end to end.
    struct Naive {
        terms: Terms,
        all: Vec<Known>,
        given: u64,
    }

    #[derive(Clone, Debug)]
    struct Known {
        partition: u32,
        offset: u64,
        attempts: u32,
        /// The number of its holder, and until when; or from when on it may be given out.
        holder: Option<u64>,
        at: Duration,
        dead: Option<Cause>,
    }

    impl Naive {
        fn expire(&mut self, now: Duration) {
            for known in &mut self.all {
                if known.holder.is_some() && known.at <= now {
                    known.holder = None;
                    if self.terms.max_attempts.is_some_and(|max| known.attempts >= max) {
                        known.dead = Some(Cause::Expired);
                    }
                }
            }
        }

        fn is_blocked(&self, it: &Known) -> bool {
            let others = self.all.iter().filter(|other| other.partition == it.partition && other.offset != it.offset);
            let in_the_way = |other: &Known| other.holder.is_some() || other.dead.is_some() || other.offset < it.offset;
            self.terms.order == Order::Strict && others.into_iter().any(in_the_way)
        }

        /// When the one that is due for the longest time was due.
        fn due(&self, now: Duration) -> Option<Duration> {
            let free = |it: &&Known| it.holder.is_none() && it.dead.is_none() && it.at <= now && !self.is_blocked(it);
            self.all.iter().filter(free).map(|it| it.at).min()
        }

        fn held(&mut self, number: u64, now: Duration) -> Option<usize> {
            self.all.iter().position(|it| it.holder == Some(number) && it.at > now)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(u32),
        Grant,
        Ack(prop::sample::Index),
        Nack(prop::sample::Index, u64),
        Renew(prop::sample::Index, u64),
        Delete(prop::sample::Index),
        Wait(u64),
        Expire(usize),
        Bury,
        Restore(prop::sample::Index, u64),
        Purge,
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            6 => (0..3u32).prop_map(Step::Admit),
            6 => Just(Step::Grant),
            4 => index().prop_map(Step::Ack),
            4 => (index(), 0..15u64).prop_map(|(at, delay)| Step::Nack(at, delay)),
            2 => (index(), 0..15u64).prop_map(|(at, long)| Step::Renew(at, long)),
            1 => index().prop_map(Step::Delete),
            6 => (0..12u64).prop_map(Step::Wait),
            2 => (0..4usize).prop_map(Step::Expire),
            2 => Just(Step::Bury),
            1 => (index(), 0..5u64).prop_map(|(at, due)| Step::Restore(at, due)),
            1 => (0..20u8).prop_map(|rare| if rare == 0 { Step::Purge } else { Step::Grant }),
        ]
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn run(order: Order, steps: Vec<Step>) {
        let terms = Terms { visibility: MS(10), max_attempts: Some(3), order, max_messages: 8, max_bytes: 65 };
        let mut leases = Leases::new(terms, |_: &u64| 10);
        let mut naive = Naive { terms, all: Vec::new(), given: 0 };
        let mut now = MS(0);
        let mut next = [0u64; 3];
        // Every lease ever given, with the number that the model knows it by.
        let mut tokens: Vec<(LeaseId, u64)> = Vec::new();
        // What has left, for those who bring it back.
        let mut gone: Vec<(u32, u64)> = Vec::new();
        for step in steps {
            naive.expire(now);
            match step {
                Step::Admit(partition) => {
                    let room = naive.all.len() < 8 && naive.all.len() * 10 < 65;
                    assert_eq!(leases.has_room(), room);
                    let free = order == Order::Relaxed || naive.all.iter().all(|it| it.partition != partition);
                    assert_eq!(leases.may_follow(partition), free);
                    if room && free {
                        let offset = next[partition as usize];
                        next[partition as usize] += 2;
                        let grant = leases.admit(partition, offset, offset, now);
                        naive.given += 1;
                        assert_eq!((grant.attempt, grant.deadline, grant.message), (1, now + MS(10), offset));
                        tokens.push((grant.id, naive.given));
                        let holder = Some(naive.given);
                        naive.all.push(Known { partition, offset, attempts: 1, holder, at: now + MS(10), dead: None });
                    }
                }
                Step::Grant => {
                    let due = naive.due(now);
                    let grant = leases.grant(now);
                    assert_eq!(grant.is_some(), due.is_some(), "{grant:?} {:?}", naive.all);
                    if let Some(grant) = grant {
                        naive.given += 1;
                        let known = |it: &Known| (it.partition, it.offset) == (grant.partition, grant.offset);
                        let at = naive.all.iter().position(known).expect("what was granted is known");
                        assert!(!naive.is_blocked(&naive.all[at]));
                        let it = &mut naive.all[at];
                        assert_eq!((it.holder, it.dead.clone()), (None, None), "one holder");
                        // One that was behind another is due since that one went, which the model does not know.
                        assert!(if order == Order::Strict { it.at <= now } else { Some(it.at) == due }, "{it:?}");
                        it.attempts += 1;
                        it.holder = Some(naive.given);
                        it.at = now + MS(10);
                        assert_eq!((grant.attempt, grant.deadline), (it.attempts, it.at));
                        assert!(it.attempts <= 3);
                        tokens.push((grant.id, naive.given));
                    }
                }
                Step::Ack(at) if !tokens.is_empty() => {
                    let (id, number) = *at.get(&tokens);
                    let held = naive.held(number, now);
                    assert_eq!(leases.ack(id, now).is_ok(), held.is_some());
                    held.inspect(|&held| {
                        gone.push({
                            let it = naive.all.remove(held);
                            (it.partition, it.offset)
                        })
                    });
                }
                Step::Nack(at, delay) if !tokens.is_empty() => {
                    let (id, number) = *at.get(&tokens);
                    let held = naive.held(number, now);
                    let answer = leases.nack(id, now, MS(delay), "no");
                    assert_eq!(answer.is_ok(), held.is_some());
                    if let Some(held) = held {
                        let it = &mut naive.all[held];
                        it.holder = None;
                        it.at = now + MS(delay);
                        it.dead = (it.attempts == 3).then(|| Cause::Refused("no".into()));
                        assert_eq!(answer, Ok(it.dead.is_some()));
                    }
                }
                Step::Renew(at, long) if !tokens.is_empty() => {
                    let (id, number) = *at.get(&tokens);
                    let held = naive.held(number, now);
                    let answer = leases.renew(id, now, MS(long));
                    assert_eq!(answer.ok(), held.map(|_| now + MS(long)));
                    held.inspect(|&held| naive.all[held].at = now + MS(long));
                }
                Step::Delete(at) if !naive.all.is_empty() => {
                    let it = naive.all.remove(at.index(naive.all.len()));
                    assert!(leases.delete(it.partition, it.offset));
                    assert!(!leases.delete(it.partition, it.offset));
                }
                Step::Wait(long) => now += MS(long),
                Step::Expire(limit) => _ = leases.expire(now, limit),
                Step::Bury => {
                    // All that run out are dead only once somebody looked.
                    leases.expire(now, usize::MAX);
                    if let Some(dead) = leases.dying() {
                        let found =
                            naive.all.iter().position(|it| (it.partition, it.offset) == (dead.partition, dead.offset));
                        let it = naive.all.remove(found.expect("known"));
                        assert_eq!((it.dead.as_ref(), it.attempts), (Some(dead.cause), dead.attempts));
                        assert_eq!(dead.attempts, 3);
                        gone.push((it.partition, it.offset));
                        leases.buried();
                    } else {
                        assert!(naive.all.iter().all(|it| it.dead.is_none()));
                    }
                }
                Step::Restore(at, due) if !gone.is_empty() => {
                    let (partition, offset) = gone.remove(at.index(gone.len()));
                    assert!(leases.restore(partition, offset, offset, now, MS(due)));
                    assert!(!leases.restore(partition, offset, offset, now, MS(0)));
                    let at = now + MS(due);
                    naive.all.push(Known { partition, offset, attempts: 0, holder: None, at, dead: None });
                }
                Step::Purge => {
                    naive.expire(now);
                    leases.expire(now, usize::MAX);
                    let before = naive.all.len();
                    naive.all.retain(|it| it.holder.is_some());
                    assert_eq!(leases.purge(), before - naive.all.len());
                }
                _ => {}
            }
            naive.expire(now);
            assert_eq!(leases.len(), naive.all.len());
            assert_eq!(leases.counts().bytes, naive.all.len() * 10);
            for it in &naive.all {
                assert!(leases.contains(it.partition, it.offset));
            }
            // What is due can be had, or its lease is yet to be ended; what is not has an alarm set for it.
            let next_due = leases.next_due(now);
            for it in naive.all.iter().filter(|it| it.dead.is_none() && !naive.is_blocked(it)) {
                let has_alarm = next_due.is_some_and(|due| due <= it.at.max(now));
                assert!(has_alarm || (it.at <= now && leases.is_due(now)), "{it:?} {next_due:?} at {now:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_order_of_calls_keeps_the_promises_of_a_naive_list(steps in prop::collection::vec(step(), 1..120)) {
            run(Order::Relaxed, steps.clone());
            run(Order::Strict, steps);
        }
    }

    fn leases(order: Order) -> Leases<u64> {
        let (max_messages, max_bytes) = (usize::MAX, usize::MAX);
        Leases::new(Terms { visibility: MS(10), max_attempts: Some(2), order, max_messages, max_bytes }, |_| 8)
    }

    /// Deleting a message behind the first of its partition put the first among the waiting for a second time; two workers
    /// then had it.
    #[test]
    fn deleting_behind_the_first_of_a_partition_leaves_the_first_where_it_is() {
        let mut leases = leases(Order::Strict);
        for offset in 0..3 {
            assert!(leases.restore(0, offset, offset, MS(0), MS(0)));
        }
        assert!(leases.delete(0, 2));
        assert_eq!(leases.grant(MS(0)).map(|grant| grant.offset), Some(0));
        assert_eq!(leases.grant(MS(0)), None, "its partition has one out");
        assert_eq!(leases.purge(), 1);
        assert_eq!(leases.counts().waiting, 0);
    }

    #[test]
    fn a_lease_is_over_at_its_deadline_and_not_a_nanosecond_before() {
        let mut leases = leases(Order::Relaxed);
        let early = leases.admit(0, 0, 0, MS(0));
        assert_eq!(leases.ack(early.id, MS(10) - Duration::from_nanos(1)), Ok(()));
        let late = leases.admit(0, 1, 1, MS(0));
        assert_eq!(leases.ack(late.id, MS(10)), Err(Lost));
        assert_eq!(leases.renew(late.id, MS(10), MS(10)), Err(Lost));
        assert_eq!(leases.nack(late.id, MS(10), MS(0), ""), Err(Lost));
        assert_eq!(leases.grant(MS(10)).map(|grant| grant.attempt), Some(2));
    }

    #[test]
    fn the_holder_of_a_slot_used_again_has_no_say_over_its_new_message() {
        let mut leases = leases(Order::Relaxed);
        let first = leases.admit(0, 0, 0, MS(0));
        assert_eq!(leases.ack(first.id, MS(1)), Ok(()));
        let second = leases.admit(0, 1, 1, MS(1));
        assert_eq!(leases.ack(first.id, MS(2)), Err(Lost));
        assert_eq!(leases.ack(second.id, MS(2)), Ok(()));
    }

    #[test]
    fn the_last_message_may_go_beyond_the_limit_of_bytes_and_none_after_it() {
        let terms = Terms { max_messages: 9, max_bytes: 10, ..*leases(Order::Relaxed).terms() };
        let mut leases = Leases::new(terms, |body: &Vec<u8>| body.len());
        let grant = leases.admit(0, 0, vec![0; 100], MS(0));
        assert!(!leases.has_room());
        leases.ack(grant.id, MS(1)).unwrap();
        assert!(leases.has_room());
    }

    #[test]
    fn times_beyond_what_the_clock_can_count_are_for_ever() {
        let mut leases = leases(Order::Relaxed);
        let grant = leases.admit(0, 0, 0, MS(0));
        leases.renew(grant.id, MS(1), Duration::MAX).unwrap();
        assert!(!leases.expire(Duration::from_secs(1 << 30), 9));
        assert_eq!(leases.ack(grant.id, Duration::from_secs(1 << 30)), Ok(()));
    }
}
