//! The window of a producer name (the sequences for which the journal has the events), and the window's encoding.

use super::WINDOW;
use crate::base::clock::Timestamp;
use crate::base::varint;
use std::collections::BTreeMap;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The first byte of a base. A note begins with its number of runs, which is never 0.
const BASE: u8 = 0;

/// A run: `len` consecutive sequences from `sequence` on, whose events are at consecutive offsets of `partition` from
/// `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SequenceRun {
    pub(super) sequence: u64,
    pub(super) len: u64,
    pub(super) partition: u32,
    pub(super) first: u64,
}

/// The sequences of one producer name for which the journal has the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SequenceWindow {
    /// The next expected sequence: the journal has the events of all lower ones. `None` if nothing was published.
    pub(crate) next: Option<u64>,
    /// Sorted by sequence: the last runs before `next`, which give the receipts, and the runs after it with a sequence
    /// missing before them.
    pub(super) runs: Vec<SequenceRun>,
    pub(crate) used: Timestamp,
}

impl SequenceWindow {
    /// Adds a sequence, whose event is at `offset` of `partition`. Returns false if the window has the sequence
    /// already.
    pub(super) fn note(&mut self, sequence: u64, partition: u32, offset: u64) -> bool {
        let place = self.runs.partition_point(|run| run.sequence <= sequence);
        let before = place.checked_sub(1).and_then(|before| self.runs.get_mut(before));
        match before {
            Some(run) if sequence < run.sequence + run.len => return false,
            Some(run)
                if (run.sequence + run.len, run.partition, run.first + run.len) == (sequence, partition, offset) =>
            {
                run.len += 1;
            }
            _ => self.runs.insert(place, SequenceRun { sequence, len: 1, partition, first: offset }),
        }
        let mut next = self.next.unwrap_or(sequence);
        let from = self.runs.partition_point(|run| run.sequence + run.len <= next);
        for run in &self.runs[from..] {
            if run.sequence > next {
                break;
            }
            next = run.sequence + run.len;
        }
        self.next = Some(next);
        let kept = next.saturating_sub(WINDOW);
        let old = self.runs.partition_point(|run| run.sequence + run.len <= kept);
        self.runs.drain(..old);
        true
    }

    /// The partition and offset of each sequence whose receipt is kept: of the last [`WINDOW`] sequences before `next`,
    /// and of all after it.
    pub(crate) fn receipts(&self) -> BTreeMap<u64, (u32, u64)> {
        let kept = self.next.unwrap_or(0).saturating_sub(WINDOW);
        // A run ends at most [`WINDOW`] sequences after `next`, because no producer publishes further ahead. So only
        // its last 2 * [`WINDOW`] sequences can be at or after `kept`.
        let kept_of = |run: &SequenceRun| run.len.saturating_sub(2 * WINDOW)..run.len;
        let each = self.runs.iter().flat_map(|run| kept_of(run).map(move |at| (run, at)));
        let each = each.map(|(run, at)| (run.sequence + at, (run.partition, run.first + at)));
        each.filter(|(sequence, _)| *sequence >= kept).collect()
    }

    /// The partition and offset of the highest sequence; `None` if nothing was published.
    pub(crate) fn last(&self) -> Option<(u32, u64)> {
        let run = self.runs.last()?;
        Some((run.partition, run.first + run.len - 1))
    }

    /// Encodes the window as a base: a byte 0, the time of the last publish, the next sequence plus one (0: none), the
    /// number of runs, and the runs.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![BASE];
        out.extend_from_slice(&self.used.as_nanos().to_le_bytes());
        let Some(next) = self.next else {
            out.push(0);
            return out;
        };
        // No sequence is `u64::MAX`, so the addition never saturates.
        varint::put(&mut out, next.saturating_add(1));
        varint::put(&mut out, self.runs.len() as u64);
        let mut before = next;
        for run in &self.runs {
            // Only receipts of the last [`WINDOW`] sequences are kept, so the earlier sequences of a long run are left
            // out.
            let cut = next.saturating_sub(WINDOW).saturating_sub(run.sequence).min(run.len - 1);
            let run = SequenceRun { sequence: run.sequence + cut, len: run.len - cut, first: run.first + cut, ..*run };
            let ahead = run.sequence.wrapping_sub(before) as i64;
            varint::put(&mut out, (ahead << 1 ^ ahead >> 63) as u64);
            run.put(&mut out);
            before = run.sequence + run.len;
        }
        out
    }

    /// Decodes a base and the notes after it. Returns the window, and the size of the notes in bytes; `None` if the
    /// bytes are malformed.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<(Self, usize)> {
        let (mut window, mut notes) = (Self::default(), 0);
        while let Some((&kind, rest)) = bytes.split_first() {
            let before = bytes.len();
            bytes = rest;
            if kind == BASE {
                let (used, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                window = Self { used: Timestamp::from_nanos(u64::from_le_bytes(*used)), ..Self::default() };
                window.next = varint::take(&mut bytes)?.checked_sub(1);
                let Some(mut before) = window.next else { continue };
                for _ in 0..varint::take(&mut bytes)? {
                    let ahead = varint::take(&mut bytes)?;
                    let sequence = before.wrapping_add((ahead >> 1) ^ (ahead & 1).wrapping_neg());
                    let run = SequenceRun::take(sequence, &mut bytes)?;
                    before = sequence.checked_add(run.len)?;
                    window.runs.push(run);
                }
                continue;
            }
            for _ in 0..kind {
                let sequence = varint::take(&mut bytes)?;
                let run = SequenceRun::take(sequence, &mut bytes)?;
                sequence.checked_add(run.len)?;
                // No sequence before a run of more than [`WINDOW`] sequences is missing, because no producer publishes
                // further ahead of a missing one. So the skipped sequences need no entry, and their receipts are not
                // kept.
                let skipped = run.len.saturating_sub(2 * WINDOW);
                if skipped > 0 {
                    window.next = window.next.max(Some(sequence + skipped));
                }
                for at in skipped..run.len {
                    window.note(sequence + at, run.partition, run.first + at);
                }
            }
            notes += before - bytes.len();
        }
        Some((window, notes))
    }

    /// Decodes a value of the first version of the format, which has numbers of fixed size and the whole window. `None`
    /// if the bytes are malformed.
    pub(super) fn decode_old(bytes: &[u8]) -> Option<Self> {
        let (used, rest) = bytes.split_first_chunk()?;
        let used = Timestamp::from_nanos(u64::from_le_bytes(*used));
        if rest.is_empty() {
            return Some(Self { used, ..Self::default() });
        }
        let (next, runs) = rest.split_first_chunk()?;
        let runs = <[RawRun]>::ref_from_bytes(runs).ok()?;
        let run = |run: &RawRun| SequenceRun {
            sequence: run.sequence.get(),
            len: run.len.get().into(),
            partition: run.partition.get(),
            first: run.first.get(),
        };
        let runs: Vec<SequenceRun> = runs.iter().map(run).collect();
        // Numbers whose sums would overflow are forged, and refused.
        let is_sane = |run: &SequenceRun| {
            let ends = run.sequence.checked_add(run.len).zip(run.first.checked_add(run.len));
            run.len > 0 && ends.is_some()
        };
        if !runs.iter().all(is_sane) {
            return None;
        }
        Some(Self { next: Some(u64::from_le_bytes(*next)), runs, used })
    }
}

/// A run as the first version of the format wrote it.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRun {
    sequence: U64,
    len: U32,
    partition: U32,
    first: U64,
}

impl SequenceRun {
    /// Encodes the length, the partition and the first offset, but not the sequence.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        [self.len, u64::from(self.partition), self.first].iter().for_each(|number| varint::put(out, *number));
    }

    fn take(sequence: u64, bytes: &mut &[u8]) -> Option<Self> {
        let (len, partition, first) = (varint::take(bytes)?, varint::take(bytes)?, varint::take(bytes)?);
        // A run has at most as many sequences as a frame has events, which fits into 32 bits. Its last offset must not
        // overflow.
        let is_sound = (1..=u64::from(u32::MAX)).contains(&len) && first.checked_add(len).is_some();
        is_sound.then_some(Self { sequence, len, partition: u32::try_from(partition).ok()?, first })
    }
}
