//! Notes: a number that a participant leaves with its position, for whoever goes on there.
//!
//! The only producer of a ring leaves one with the published position, a consumer with its gate. The note and the position
//! are two stores, and the participant may be killed between them. So there are two places: the note of a new position goes
//! where the present one does not stand, and counts once the position has moved.
//!
//! Each note is sealed with its position. A note that was cut by a kill, or that belongs to another position, does not fit
//! its seal, in whatever order the two stores came. The reader is the next owner of the position, after whom the locks of
//! the file order it.

use crate::ordering::COUNT;
use crate::sync::AtomicU64;

/// The notes of one position.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Notes([Note; 2]);

#[repr(C)]
#[derive(Debug)]
struct Note {
    number: AtomicU64,
    /// [`seal`] of the position and the number; 0 for no note.
    seal: AtomicU64,
}

impl Notes {
    #[cfg(any(loom, shuttle, not(target_os = "linux")))]
    pub(crate) fn zeros() -> Self {
        Self(std::array::from_fn(|_| Note { number: AtomicU64::new(0), seal: AtomicU64::new(0) }))
    }

    /// The note of `position`; `None` if it has none.
    pub(crate) fn of(&self, position: u64) -> Option<u64> {
        self.0.iter().find_map(|note| note.of(position))
    }

    /// Leaves `number` with the position `to`, which is not the present one, `now`, if that has a note: the note of the
    /// present position stays until the position moves.
    pub(crate) fn put(&self, now: u64, to: u64, number: u64) {
        let [first, second] = &self.0;
        let note = if first.of(now).is_some() { second } else { first };
        note.number.store(number, COUNT.get());
        note.seal.store(seal(to, number), COUNT.get());
    }

    /// Removes all notes: the position has a new owner, who does not go on there.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|note| note.seal.store(0, COUNT.get()));
    }
}

impl Note {
    fn of(&self, position: u64) -> Option<u64> {
        let (number, sealed) = (self.number.load(COUNT.get()), self.seal.load(COUNT.get()));
        (sealed == seal(position, number)).then_some(number)
    }
}

/// Mixes a position and a number, by the finalizer of SplitMix64. Never 0.
fn seal(position: u64, number: u64) -> u64 {
    let mix = |value: u64| {
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    mix(mix(position.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ number) | 1
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn notes() -> Notes {
        Notes(std::array::from_fn(|_| Note { number: AtomicU64::new(0), seal: AtomicU64::new(0) }))
    }

    #[test]
    fn a_note_counts_at_its_position_alone() {
        let notes = notes();
        assert_eq!(notes.of(0), None);
        notes.put(0, 5, 50);
        assert_eq!((notes.of(0), notes.of(5), notes.of(4)), (None, Some(50), None));
        notes.put(5, 9, 90);
        assert_eq!((notes.of(5), notes.of(9)), (Some(50), Some(90)), "the owner may be killed before it moves");
        notes.clear();
        assert_eq!((notes.of(5), notes.of(9)), (None, None));
    }

    /// The states that a kill between the two stores of a note leaves, in either order.
    #[test]
    fn a_note_that_was_cut_is_none() {
        for (cut_number, cut_seal) in [(true, false), (false, true)] {
            let notes = notes();
            let (mut position, mut number) = (0, 0);
            notes.put(0, 0, 0);
            for step in [1, 1, 2, 7, 1, 1] {
                let before = notes.of(position);
                assert_eq!(before, Some(number));
                let other = notes.0.iter().find(|note| note.of(position).is_none()).unwrap();
                let (next, next_number) = (position + step, number + step);
                if cut_number {
                    other.number.store(next_number, COUNT.get());
                }
                if cut_seal {
                    other.seal.store(seal(next, next_number), COUNT.get());
                }
                assert_eq!((notes.of(position), notes.of(next)), (before, None));
                notes.put(position, next, next_number);
                (position, number) = (next, next_number);
            }
        }
    }
}
