//! Reading a stream in order: which of its messages count, and whether each follows the one before it.
//!
//! A message counts unless an older writer got it in behind the mark of a newer one; then its epoch is lower, and the newer
//! writer deletes it. Each message that counts says where the records end without it, which is where they end with the message
//! before it. So a reader notices records that are missing, whoever has removed them.

use crate::envelope::{Head, Tip, Writer};
use crate::outward::FENCE;
use crate::record::Record;
use crate::remote::{AT_MOST, Remote, RemoteError};
use crate::stopped::{Halt, Stopped};
use std::ops::Range;
use std::time::Duration;

/// How many answers in turn that contradict what was read are taken for those of a server that was stopped, or of a new leader
/// that has not applied all messages yet.
const SUSPECTS: u32 = 25;
/// How many answers in turn that the last messages are not there are taken for those of a new leader.
const ABSENT: u32 = 10;

/// A place in a stream, from which it is read in order.
#[derive(Debug, Default)]
pub(crate) struct StreamCursor {
    /// The number of the next message to be read; `None` until it was searched for.
    next: Option<u64>,
    /// The head of the last message that counts.
    newest: Option<Head>,
    /// How many messages are not read yet, as far as it is known.
    lag: u64,
    /// Answers in turn by which the stream ends before the next message.
    suspects: u32,
    /// Answers in turn by which the next message does not follow what was read.
    breaks: u32,
    /// Answers in turn by which the stream ends behind the next message and has none from there on.
    absent: u32,
}

impl StreamCursor {
    /// How many messages are not read yet, as far as it is known.
    pub(crate) fn lag(&self) -> u64 {
        self.lag
    }

    /// The number of the next message to be read, and the number that the stream gives next, as far as it is known; 0 for both
    /// before the first read.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        self.next.map_or((0, 0), |next| (next, next + self.lag))
    }

    /// Where the stream's records end with what was read; the default if nothing was read.
    pub(crate) fn tip(&self) -> Tip {
        self.newest.map(|head| head.tip).unwrap_or_default()
    }

    /// Who has written the last message that counts; `None` if there was none.
    pub(crate) fn writer(&self) -> Option<Writer> {
        self.newest.map(|head| head.writer)
    }

    /// Reads some messages, and waits up to `limit` for the first. Calls `each` with the number, the head and the records of
    /// each message that counts. The first call searches for the place at which the records end that the reader has: `has` says
    /// of an end of records whether the reader is as far. Returns false if there were no messages.
    pub(crate) fn read<R: Remote>(
        &mut self,
        remote: &mut R,
        limit: Duration,
        has: impl Fn(&Tip) -> bool,
        mut each: impl FnMut(u64, Head, Vec<Record>) -> Result<(), Stopped>,
    ) -> Result<bool, Halt> {
        let from = match self.next {
            Some(from) => from,
            None => self.search(remote, &has)?,
        };
        self.next = Some(from);
        let followed = remote.follow(from, limit)?;
        if followed.end < from {
            self.suspects += 1;
            let (stream, confirmed, next) = (remote.name(), self.tip().next, 0);
            return Err(Halt::contradiction(Stopped::Lost { stream, confirmed, next }, self.suspects > SUSPECTS));
        }
        self.suspects = 0;
        self.lag = followed.left;
        if followed.next == from && followed.end > from {
            self.absent += 1;
            if self.absent <= ABSENT {
                let cause = format!("the servers do not have the messages {from}..{} yet", followed.end);
                return Err(RemoteError::Transient(cause).into());
            }
            // They were deleted.
            self.next = Some(followed.end);
            return Ok(true);
        }
        self.absent = 0;
        let has_read = followed.next > from;
        for (sequence, stored) in followed.messages {
            let Some(head) = stored.head else {
                return Err(Stopped::Foreign { stream: remote.name(), sequence }.into());
            };
            let is_late = self.newest.is_some_and(|newest| head.writer.epoch < newest.writer.epoch);
            if !is_late {
                if self.newest.map_or_else(|| !has(&head.behind), |newest| newest.tip != head.behind) {
                    return Err(self.breaks(remote.name(), sequence, head));
                }
                if Some(stored.records.len() as u64) != head.tip.count.checked_sub(head.behind.count) {
                    return Err(Stopped::Broken { stream: remote.name(), sequence }.into());
                }
                each(sequence, head, stored.records)?;
                self.newest = Some(head);
                self.breaks = 0;
            }
            self.next = Some(sequence + 1);
        }
        self.next = Some(followed.next);
        Ok(has_read)
    }

    /// A message does not follow what was read, or, if nothing was read yet, what the reader has. Those between are read again
    /// before this is believed.
    fn breaks(&mut self, stream: String, sequence: u64, head: Head) -> Halt {
        self.breaks += 1;
        let stopped = match self.newest {
            Some(_) => Stopped::Broken { stream, sequence },
            None => Stopped::Missing { stream, earliest: head.behind.count + 1 },
        };
        if self.newest.is_none() {
            self.next = None;
        }
        Halt::contradiction(stopped, self.breaks > SUSPECTS)
    }

    /// The number of the message at which to begin: so far in front of what the reader lacks that a message of an older writer
    /// among those of a newer one is known as late.
    fn search<R: Remote>(&self, remote: &mut R, has: &impl Fn(&Tip) -> bool) -> Result<u64, Halt> {
        let numbers: Range<u64> = remote.numbers()?;
        let (mut low, mut high) = (numbers.start, numbers.end);
        while low < high {
            let middle = low + (high - low) / 2;
            // Deleted messages count as the next one that is there.
            let stored = remote.read(middle..high.min(middle + AT_MOST))?;
            let found = stored.into_iter().zip(middle..).find_map(|(stored, sequence)| Some((stored?, sequence)));
            match found {
                Some((stored, sequence)) if stored.head.is_some_and(|head| has(&head.tip)) => low = sequence + 1,
                _ => high = middle,
            }
        }
        Ok(low.saturating_sub(FENCE as u64 + 3).max(numbers.start))
    }
}
