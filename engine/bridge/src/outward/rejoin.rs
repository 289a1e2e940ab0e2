//! How a copier finds out where the stream stands after an error, and whether somebody has emptied it.

use super::{Outward, Phase, RecordPosition, SUSPECTS};
use crate::envelope::{Envelope, Head, Kind, Tip};
use crate::remote::{Remote, RemoteError};
use crate::stopped::{Halt, Stopped};
use std::ops::Range;
use std::time::Instant;

impl<R: Remote> Outward<R> {
    /// Finds out where the stream stands, and goes there.
    pub(super) fn rewind(&mut self, record: RecordPosition<'_>) -> Result<bool, Stopped> {
        self.remote.forget();
        (self.sent, self.found) = (0, 0);
        let there = match self.remote.numbers().map_err(Halt::from) {
            Ok(numbers) if self.has_begun => self.rejoin(&numbers),
            Ok(numbers) => self.begin(&numbers, record),
            Err(halt) => Err(halt),
        };
        match there {
            Ok(()) => {
                self.suspects = 0;
                // Servers without a majority tell where the stream stands and confirm nothing, so the error is over only with the
                // next confirmation.
                if self.entries.is_empty() {
                    self.error = None;
                }
                Ok(true)
            }
            Err(Halt::Stopped(stopped)) => Err(stopped),
            Err(Halt::Remote(error)) => self.doubt(error).map(|()| false),
        }
    }

    /// An answer that contradicts what is known: that of a leader that was stopped, unless it is given again and again.
    pub(super) fn suspect(&mut self, stopped: Stopped) -> Halt {
        self.suspects += 1;
        Halt::contradiction(stopped, self.suspects > SUSPECTS)
    }

    /// Compares the messages from the last confirmed one on with the entries.
    fn rejoin(&mut self, numbers: &Range<u64>) -> Result<(), Halt> {
        let (lost, last) = (self.lost(), numbers.end - 1);
        if numbers.start > self.position.first {
            return Err(lost.into());
        }
        if last < self.base {
            // The stream was created anew, or this is old data. Only the former takes a message here.
            let mark = Envelope::mark(Kind::Mark, self.writer, Tip::default());
            self.remote.send(&mark, last + 1)?;
            self.settle(1)?;
            return Err(lost.into());
        }
        let found = (last - self.base) as usize;
        // One more than the entries, if there are more: it is another's.
        let end = self.base + found.min(self.entries.len() + 1) as u64;
        for (stored, sequence) in self.remote.read(self.base..end + 1)?.into_iter().zip(self.base..) {
            let stream = self.name();
            let entry = (sequence as usize).checked_sub(self.base as usize + 1).and_then(|at| self.entries.get(at));
            match stored.map(|stored| stored.head) {
                Some(Some(head)) if sequence == self.base && head.writer == self.writer => {}
                Some(Some(head)) if entry.is_some_and(|entry| entry.head == head) => {}
                Some(Some(Head { writer, .. })) if writer.epoch > self.writer.epoch => {
                    return Err(Stopped::Fenced { stream, by: writer.to_string() }.into());
                }
                // A new leader may not have applied it yet.
                None if sequence == self.base => return Err(self.suspect(lost)),
                Some(None) => return Err(Stopped::Foreign { stream, sequence }.into()),
                _ => return Err(self.suspect(Stopped::Broken { stream, sequence })),
            }
        }
        (self.found, self.sent, self.phase) = (found, found, Phase::Writing);
        if found > 0 && found == self.entries.len() {
            // Nothing is left to be sent whose confirmation would confirm these too.
            let tip = self.entries[found - 1].head.tip;
            self.entries.push_back(Envelope::mark(Kind::Mark, self.writer, tip));
        }
        Ok(())
    }

    fn lost(&self) -> Stopped {
        Stopped::Lost { stream: self.name(), confirmed: self.confirmed, next: 0 }
    }

    /// Looks whether the stream was emptied or created anew, which refuses no message.
    pub(super) fn look(&mut self) -> Result<(), Stopped> {
        self.looked = Instant::now();
        match self.remote.numbers() {
            Ok(numbers) if numbers.start > self.position.first => Err(self.lost()),
            Ok(numbers) if numbers.end <= self.base => {
                self.doubt(RemoteError::Transient("the stream ends before its last message".to_owned()))
            }
            // What does not answer is found out by the confirmations.
            _ => Ok(()),
        }
    }
}
