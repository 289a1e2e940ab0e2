//! An index of a queue's entries (by their slot numbers) by deadline: a list of slots for each moment, and the moments
//! in order.
//!
//! A moment is a whole millisecond. So there are no more moments than milliseconds until the last deadline, however
//! many slots there are, and the removal of a slot changes only its two neighbours in the list, where a tree of all
//! slots would have to be searched.

use std::collections::BTreeMap;
use std::time::Duration;

const NONE: u32 = u32::MAX;

/// The neighbours of a slot in the list of its moment. A slot is in at most one [`Deadlines`], so all of these share
/// one table of links.
#[derive(Clone, Copy)]
pub(super) struct SlotLink {
    before: u32,
    after: u32,
}

pub(super) type SlotLinks = Vec<SlotLink>;

impl SlotLink {
    pub(super) const FREE: Self = Self { before: NONE, after: NONE };
}

/// The first whole millisecond at or after `time`, in milliseconds.
pub(super) fn moment_after(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The last whole millisecond at or before `time`, in milliseconds.
pub(super) fn moment_before(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn time_of(moment: u64) -> Duration {
    Duration::from_millis(moment)
}

#[derive(Default)]
pub(super) struct Deadlines {
    /// The first and the last slot in the list of each moment that has slots.
    moments: BTreeMap<u64, (u32, u32)>,
    len: usize,
}

impl Deadlines {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The earliest moment and the first slot of its list; `None` if there are no slots.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        self.moments.first_key_value().map(|(&moment, &(first, _))| (moment, first))
    }

    /// The first moment after `moment` that has slots; `None` if there is none.
    pub(super) fn next_after(&self, moment: u64) -> Option<u64> {
        self.moments.range(moment.saturating_add(1)..).next().map(|(&moment, _)| moment)
    }

    /// Adds a slot to the end of a moment's list.
    pub(super) fn insert(&mut self, links: &mut SlotLinks, moment: u64, slot: u32) {
        self.len += 1;
        links[slot as usize] = SlotLink::FREE;
        let list = self.moments.entry(moment).or_insert((slot, slot));
        let last = std::mem::replace(&mut list.1, slot);
        if last != slot {
            links[last as usize].after = slot;
            links[slot as usize].before = last;
        }
    }

    /// Removes a slot from the list of this moment, in which it must be.
    pub(super) fn remove(&mut self, links: &mut SlotLinks, moment: u64, slot: u32) {
        self.len -= 1;
        let SlotLink { before, after } = std::mem::replace(&mut links[slot as usize], SlotLink::FREE);
        if before != NONE {
            links[before as usize].after = after;
        }
        if after != NONE {
            links[after as usize].before = before;
        }
        if before == NONE && after == NONE {
            self.moments.remove(&moment);
        } else if before == NONE || after == NONE {
            let list = self.moments.get_mut(&moment).expect("a slot is at the moment that its entry tells");
            *list = (if before == NONE { after } else { list.0 }, if after == NONE { before } else { list.1 });
        }
    }

    /// All slots, each with its moment, in the order of the moments.
    pub(super) fn iter<'c>(&'c self, links: &'c SlotLinks) -> impl Iterator<Item = (u64, u32)> + 'c {
        self.moments.iter().flat_map(move |(&moment, &(first, _))| {
            let next = |slot: &u32| Some(links[*slot as usize].after).filter(|&slot| slot != NONE);
            std::iter::successors(Some(first), next).map(move |slot| (moment, slot))
        })
    }
}
