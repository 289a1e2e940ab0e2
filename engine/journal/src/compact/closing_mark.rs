//! The closing mark: the last frame of a segment that was written anew. Its header has the checksum that the last frame of
//! the old file had, which the next segment's first frame states. So the chain of frames holds with the old file and with
//! the new one, and no other segment changes.
//!
//! A mark has no entries, so the count of entries in its header is free. CRC-32C is linear: exactly one value of these 32
//! bits gives the wanted checksum. Readers of a mark use its durable position only.

use crate::format::{FrameHeader, JournalId};

/// The mark with the count of entries that gives its header the checksum `wanted`.
pub(super) fn closing_mark(mark: FrameHeader, id: &JournalId, wanted: u32) -> FrameHeader {
    let checksum = |entries| FrameHeader { entries, ..mark }.encode(id).1;
    let zero = checksum(0);
    // Gaussian elimination over the effects that the 32 bits have on the checksum. `pivots[bit]` is an effect whose highest bit
    // is that one, with the bits of `entries` that have it.
    let mut pivots = [(0_u32, 0_u32); 32];
    let reduce = |pivots: &[(u32, u32); 32], mut effect: u32, mut bits: u32| {
        while effect != 0 {
            let (pivot, by) = pivots[effect.ilog2() as usize];
            if pivot == 0 {
                break;
            }
            (effect, bits) = (effect ^ pivot, bits ^ by);
        }
        (effect, bits)
    };
    for bit in (0..32).map(|bit| 1 << bit) {
        let (effect, bits) = reduce(&pivots, checksum(bit) ^ zero, bit);
        // Never 0: 32 consecutive bits of a message determine its CRC of 32 bits.
        debug_assert_ne!(effect, 0);
        if effect != 0 {
            pivots[effect.ilog2() as usize] = (effect, bits);
        }
    }
    let (rest, entries) = reduce(&pivots, wanted ^ zero, 0);
    debug_assert_eq!(rest, 0);
    FrameHeader { entries, ..mark }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Codec, FrameKind};

    #[test]
    fn a_mark_gets_any_checksum_that_is_wanted() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let id = std::array::from_fn(|_| dice.u8(..));
            let mark = FrameHeader {
                kind: FrameKind::Mark,
                codec: Codec::Plain,
                stored: 0,
                raw: 0,
                position: dice.u64(..1 << 60) & !63,
                durable: dice.u64(..1 << 60),
                time: dice.u64(..),
                incarnation: dice.u32(..),
                entries: 0,
                previous: dice.u32(..),
                payload: 0,
            };
            let wanted = dice.u32(..);
            let found = closing_mark(mark, &id, wanted);
            let (bytes, checksum) = found.encode(&id);
            assert_eq!(checksum, wanted);
            assert_eq!(FrameHeader::decode(&id, mark.position, &bytes), Ok((found, wanted)));
            assert_eq!(FrameHeader { entries: 0, ..found }, mark);
        }
    }
}
