//! What a shared ring shows of its participants.

use super::heir;
use super::layout::Event;
use super::lock::Locks;
use super::member::is_alive;
use super::region::{NONE, Region, role};
use crate::ordering::{
    COUNT, SHARED_ANNOUNCED_LEN, SHARED_LOOK_AT_ANNOUNCED, SHARED_LOOK_AT_GATE, SHARED_LOOK_AT_ROLE,
};
use crate::sequence::{Sequence, Sequences};

/// What a participant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It is joining as a consumer.
    Joining,
    /// It reads.
    Consumer,
    /// It publishes.
    Producer,
}

/// A participant of a shared ring, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Participant {
    /// Its name; `producer` for a producer.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// True if its process lives and has not dropped it.
    pub is_alive: bool,
    /// True if its position is kept when it dies or is dropped.
    pub is_held: bool,
    /// The process id that it gave when it joined. It says nothing about life: the number may have been given again, or
    /// be that of another pid namespace.
    pub pid: u64,
    /// Count of participants that have had this entry of the table, with this one.
    pub generation: u64,
    /// The next sequence that a consumer reads; `None` for a producer.
    pub position: Option<Sequence>,
    /// Count of published events that a consumer has not read; 0 for a producer.
    pub lag: u64,
    /// The sequences that one of several producers is about to claim, or has claimed and not published; otherwise `None`.
    /// If they begin at [`published`](super::SharedRing::published) for longer than a moment, everybody waits for this
    /// producer.
    pub claim: Option<Sequences>,
}

pub(crate) fn participants<E: Event>(region: &Region<E>, locks: &Locks) -> Vec<Participant> {
    let control = region.control();
    let published = heir::published(region);
    let mut participants = Vec::new();
    for (index, entry) in control.table.iter().enumerate() {
        let role = match entry.role.load(SHARED_LOOK_AT_ROLE.get()) {
            role::JOINING => Role::Joining,
            role::CONSUMER => Role::Consumer,
            role::PRODUCER => Role::Producer,
            _ => continue,
        };
        let gate = entry.moving.0.gate.load(SHARED_LOOK_AT_GATE.get());
        let lag = published.saturating_sub(gate);
        let from = entry.moving.0.from.load(SHARED_LOOK_AT_ANNOUNCED.get());
        let len = entry.moving.0.len.load(SHARED_ANNOUNCED_LEN.get());
        let has_claim = region.is_multi && role == Role::Producer && from != NONE && len <= region.capacity();
        participants.push(Participant {
            name: entry.name(),
            role,
            is_alive: is_alive(locks, index),
            is_held: entry.hold.load(COUNT.get()) == 1,
            pid: entry.pid.load(COUNT.get()),
            generation: entry.generation.load(COUNT.get()),
            position: (role == Role::Consumer).then_some(Sequence(gate)),
            lag: if role == Role::Consumer { lag } else { 0 },
            claim: has_claim.then_some(Sequences { first: Sequence(from), len: len as usize }),
        });
    }
    participants
}
