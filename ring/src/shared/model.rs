//! Shared rings of the models: their memory is a heap block, and a process dies when the model says so.

use super::consumer::SharedConsumer;
use super::error::SharedError;
use super::layout::Event;
use super::lock::Locks;
use super::member::{self, Joining};
use super::producer::SharedProducer;
use super::region::{Region, phase};
use super::{ending, heir};
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
        Ok(SharedProducer::new(member).wait(wait))
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

    /// Its process dies.
    pub fn die(mut self) {
        self.member.is_dead = true;
    }
}

impl<E: Event> SharedConsumer<E> {
    /// Its process dies.
    pub fn die(mut self) {
        self.member.is_dead = true;
    }
}
