//! How a copier begins: who has written the stream last, what the journal has of it, and the fence.

use super::{Outward, Phase, RecordPosition, SUSPECTS, meets, size};
use crate::envelope::{Envelope, Head, Kind, Tip, Writer};
use crate::remote::{Remote, RemoteError};
use crate::stopped::{Halt, Stopped};
use std::ops::Range;

impl<R: Remote> Outward<R> {
    /// Raises the stream's epoch, and fences the older writers.
    pub(super) fn begin(&mut self, numbers: &Range<u64>, record: RecordPosition<'_>) -> Result<(), Halt> {
        let mut last = numbers.end - 1;
        self.fence_at = self.fence_at.max(last);
        let (newest, late) = self.tail(last)?;
        if let Some(head) = newest {
            self.may_follow(head.writer)?;
        }
        late.into_iter().try_for_each(|sequence| self.remote.delete(sequence))?;
        let tip = newest.map(|head| head.tip).unwrap_or_default();
        if !self.fits(tip)? {
            self.phase = Phase::Ahead(tip);
            return Ok(());
        }
        let mark_of = |writer| Envelope::mark(Kind::Mark, writer, tip);
        if newest.is_none_or(|head| head.writer != self.writer) {
            let there = newest.map_or(0, |head| head.writer.epoch);
            if self.writer.epoch <= there {
                let known = self.position.known.iter().map(|(epoch, _)| *epoch).max().unwrap_or(0);
                self.writer.epoch = known.max(there) + 1;
                self.position.know(self.writer.epoch, self.writer.nonce);
                // Before the first mark is sent: a later start must know it as its own.
                record(&self.position).map_err(Stopped::Ended)?;
            }
            let is_settled = last == 0 || newest.is_some_and(|head| head.kind == Kind::End);
            last += 1;
            let fence_end = if is_settled { last } else { last + self.fence };
            self.fence_end = self.fence_end.max(fence_end);
            self.remote.send(&mark_of(self.writer), last)?;
            self.settle(1)?;
        } else if last >= self.fence_end {
            // All marks stand, and the last confirmations were lost: what was read confirms nothing.
            self.fence_end = last + 1;
        }
        while last < self.fence_end {
            let count = (self.fence_end - last).min(self.window.messages as u64);
            for _ in 0..count {
                last += 1;
                self.remote.send(&mark_of(self.writer), last)?;
            }
            self.settle(count as usize)?;
        }
        // From here on it is certain that `tip` was no old data.
        if self.position.first == 0 {
            self.position.first = numbers.start;
        }
        if numbers.start > self.position.first {
            return Err(Stopped::Lost { stream: self.name(), confirmed: self.confirmed, next: 0 }.into());
        }
        // Behind the last record of the stream there may be some that were passed over.
        let has_last = self.position.last == Some((tip.next, tip.checksum));
        if tip.next < self.confirmed && !has_last && (tip.checksum != 0 || self.position.last.is_some()) {
            let (stream, confirmed) = (self.name(), self.confirmed);
            return Err(match self.position.last {
                Some(_) => Stopped::Lost { stream, confirmed, next: tip.next }.into(),
                None => Stopped::Deleted { stream, from: tip.next, earliest: confirmed }.into(),
            });
        }
        while self.entries.front().is_some_and(|entry| entry.head.tip.next <= tip.next) {
            self.confirm_first();
        }
        self.stands_at(tip);
        (self.base, self.has_begun, self.phase) = (last, true, Phase::Writing);
        Ok(())
    }

    /// Whether this writer may go on behind that one.
    fn may_follow(&mut self, writer: Writer) -> Result<(), Halt> {
        let is_own = |&(epoch, nonce)| writer == Writer { epoch, nonce, ..self.writer };
        if writer == self.writer || self.takes_over || self.position.known.iter().any(is_own) {
            return Ok(());
        }
        let (stream, by) = (self.name(), writer.to_string());
        match self.position.known.iter().map(|(epoch, _)| *epoch).max() {
            Some(highest) if writer.epoch >= highest => Err(Stopped::Fenced { stream, by }.into()),
            // The stream had a mark of this journal with a higher epoch.
            Some(_) => Err(self.suspect(Stopped::Owned { stream, by })),
            None => Err(Stopped::Owned { stream, by }.into()),
        }
    }

    /// Reads the stream's last messages, as many as can be out of order. Returns the head of the last one that counts, and the
    /// numbers of those that an older writer got in behind the mark of a newer one.
    fn tail(&mut self, last: u64) -> Result<(Option<Head>, Vec<u64>), Halt> {
        let (mut newest, mut late): (Option<Head>, _) = (None, Vec::new());
        if last == 0 {
            return Ok((newest, late));
        }
        let end = self.remote.read(last..last + 1)?.pop().flatten().and_then(|stored| stored.head);
        if end.is_some_and(|head| head.kind == Kind::End) {
            return Ok((end, late));
        }
        // The fence, the mark in front of it, and what that stands behind.
        let first = last.saturating_sub(self.fence + 2).max(1);
        let read = self.remote.read(first..last + 1)?;
        if read.last().is_none_or(Option::is_none) && self.suspects <= SUSPECTS {
            // A new leader may not have applied it yet. If it came late behind a mark and was deleted, the answer stays so.
            self.suspects += 1;
            return Err(RemoteError::Transient(format!("the servers do not have message {last} yet")).into());
        }
        for (stored, sequence) in read.into_iter().zip(first..) {
            let stream = || self.remote.name();
            let Some(stored) = stored else { continue };
            let Some(head) = stored.head else { return Err(Stopped::Foreign { stream: stream(), sequence }.into()) };
            if let Some(before) = newest {
                if head.writer.epoch < before.writer.epoch {
                    late.push(sequence);
                    continue;
                }
                let is_next = head.writer == before.writer || head.kind == Kind::Mark;
                if !is_next || head.behind != before.tip {
                    let broken = Stopped::Broken { stream: stream(), sequence };
                    return Err(self.suspect(broken));
                }
            }
            newest = Some(head);
        }
        Ok((newest, late))
    }

    /// Whether the records of the stream are those of the journal, as far as these were pushed. False if the journal must be
    /// read further first; then the entries that the stream has are gone.
    fn fits(&mut self, tip: Tip) -> Result<bool, Halt> {
        let diverged = Stopped::Diverged { stream: self.name(), next: tip.next };
        if tip.next < self.passed {
            let lost = Stopped::Lost { stream: self.name(), confirmed: self.passed, next: tip.next };
            return Err(self.suspect(lost));
        }
        if tip.next < self.confirmed || tip.checksum == 0 {
            // Nothing was written yet, or the mark will find out that records are lost.
            return Ok(true);
        }
        if tip.next == self.confirmed {
            let is_own = self.position.last.is_none_or(|last| last == (tip.next, tip.checksum));
            return if is_own { Ok(true) } else { Err(diverged.into()) };
        }
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.head.tip.next >= tip.next) {
            return if meets(entry, tip) { Ok(true) } else { Err(diverged.into()) };
        }
        // An earlier start has written more than the journal has recorded.
        for entry in std::mem::take(&mut self.entries) {
            self.bytes = self.bytes.saturating_sub(size(&entry));
            self.passed = self.passed.max(entry.head.tip.next);
        }
        Ok(false)
    }
}
