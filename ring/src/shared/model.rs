//! Shared rings of the models: their memory is a heap block, and a process dies when the model says so.

use super::claim::SharedClaim;
use super::consumer::SharedConsumer;
use super::error::SharedError;
use super::layout::Event;
use super::lock::Locks;
use super::member::{self, Joining, bury};
use super::producer::SharedProducer;
use super::region::{Region, phase};
use super::{claims, ending, heir};
use crate::sequence::Sequence;
use crate::stage::Start;
use crate::wait::Wait;

/// A shared ring of a model.
pub struct ModelRing<E: Event> {
    region: Region<E>,
}

impl<E: Event> Clone for ModelRing<E> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone() }
    }
}

impl<E: Event> ModelRing<E> {
    /// A ring whose slots have the value `first`.
    pub fn new(is_multi: bool, capacity: u64, retain: u64, first: E) -> Self {
        Self { region: Region::new(is_multi, capacity, retain, first) }
    }

    /// Joins as a producer, as a process of its own.
    pub fn producer(&self, wait: Wait) -> Result<SharedProducer<E>, SharedError> {
        let member = member::produce(self.region.clone(), Locks::of(&self.region), "p")?;
        Ok(SharedProducer::new(member)?.wait(wait))
    }

    /// Joins as a consumer, as a process of its own.
    pub fn consumer(&self, name: &str, hold: bool, start: Start, wait: Wait) -> Result<SharedConsumer<E>, SharedError> {
        let how = Joining { name: name.to_owned(), hold, start };
        let (member, next) = member::join(self.region.clone(), Locks::of(&self.region), &how)?;
        Ok(SharedConsumer::new(member, next, hold, wait))
    }

    /// Closes the ring.
    pub fn close(&self) {
        ending::end(&self.region, phase::CLOSED);
    }

    /// The next sequence to be published.
    pub fn published(&self) -> Sequence {
        Sequence(heir::published(&self.region))
    }
}

impl<E: Event> SharedProducer<E> {
    /// Reads the gates, without looking for the dead. True if there is room for one event.
    pub fn has_room(&mut self) -> bool {
        self.look_for_room(self.next + 1).is_ok_and(|room| room.is_some())
    }

    /// As [`has_room`](Self::has_room), for one of several producers.
    pub fn has_room_among_several(&mut self) -> bool {
        self.look_for_room_among_several(1).is_ok_and(|room| room.is_some())
    }

    /// Looks for the dead, as a producer without room does.
    pub fn look_for_the_dead(&self) {
        bury(&self.member.region, &self.member.locks, Some(self.member.index));
    }

    /// Announces the next `len` sequences, as one of several producers, and is stopped before it claims them.
    pub fn announce(&mut self, len: u64) {
        claims::announce(self.member.entry(), claims::claimed(&self.member.region), len);
    }

    /// Its process dies.
    pub fn die(mut self) {
        self.member.is_dead = true;
    }
}

impl<E: Event> SharedClaim<'_, E> {
    /// The process of its producer dies before it stamps a slot. The producer must be dropped next.
    pub fn die(self) {
        self.producer.member.is_dead = true;
    }

    /// As [`die`](Self::die), in the middle of the stamps.
    pub fn die_in_its_stamps(self) {
        claims::stamp_half(&self.producer.member.region, self.first, self.len, 0, false);
        self.die();
    }

    /// As [`die`](Self::die), when all is stamped.
    pub fn die_stamped(self) {
        claims::stamp(&self.producer.member.region, self.first, self.len, 0);
        self.die();
    }
}

impl<E: Event> SharedConsumer<E> {
    /// Looks for the dead, as at each tick of a wait.
    pub fn look_for_the_dead(&self) {
        heir::mend(&self.member.region, &self.member.locks, Some(self.member.index));
    }

    /// Its process dies.
    pub fn die(mut self) {
        self.member.is_dead = true;
    }
}
