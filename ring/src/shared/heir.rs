//! What the dead have left: entries, and the claims of producers.

use super::layout::Event;
use super::lock::Locks;
use super::member::vacate;
use super::region::{Region, role};
use crate::ordering::{COUNT, SHARED_LOOK_AT_PUBLISHED, SHARED_LOOK_AT_ROLE};

/// The next sequence to be published.
pub(crate) fn published<E: Event>(region: &Region<E>) -> u64 {
    region.control().published.0.load(SHARED_LOOK_AT_PUBLISHED.get())
}

/// Frees the entry of somebody dead, whose lock the caller has taken. Returns false if the entry must stay.
pub(crate) fn free<E: Event>(region: &Region<E>, _: &Locks, index: usize) -> bool {
    let control = region.control();
    let entry = &control.table[index];
    if entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::PRODUCER {
        control.state.0.died.store(1, COUNT.get());
    }
    vacate(entry);
    true
}
