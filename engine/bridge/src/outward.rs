//! The outward copier of one partition: a window of records on their way, which is rewound as a whole on any doubt.
//!
//! ```text
//!    journal --> push --> [ confirmed | in flight | waiting ] --> send as message number N of the stream --> stream
//!                              ^                                                                              |
//!                              +---- confirm ------- or, on doubt: forget all, read the stream's end ---------+
//! ```
//!
//! # Why nothing is lost, doubled or reordered
//! The stream stores each message under the number that the message names, or refuses it. Within an epoch the copier plans
//! which entry has which number, and keeps to it however often it sends an entry. So what arrives late or twice is either
//! refused or the very message that belongs there. After any error the copier compares each message behind the last confirmed
//! one with its plan, and goes on behind the last of them. What it has read counts as replicated only once a message that was
//! sent behind it is confirmed: a leader that was stopped may answer with old data, but it cannot confirm a write.
//!
//! # Epochs
//! A number alone does not fence a window. An old writer has sent messages N, N + 1, N + 2, ...; a new writer's mark takes N;
//! then N is refused, but N + 1 fits behind the mark. So a copier begins with a mark of a higher epoch, and then writes marks
//! until all numbers are used up that an older writer may have named. Those are less than [`FENCE`] above the first mark,
//! because a writer sends nothing that is [`FENCE`] or more above what is confirmed to it, and once the mark stands nothing
//! above the mark is confirmed to an older writer: confirmations count in order, and the mark has taken the first number.
//! What an older writer gets in between the marks names a lower epoch than the mark before it, so it is found and deleted before
//! the first record is written. An older writer finds the newer mark after its first refusal, and stops.
//!
//! A bridge that is ended, and has nothing on its way, says so with its last message. Behind that one mark is enough.

mod begin;
mod rejoin;

use crate::envelope::{Envelope, Kind, Tip, Writer};
use crate::position::Position;
use crate::record::Record;
use crate::remote::{Remote, RemoteError};
use crate::stopped::Stopped;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How many numbers a first mark keeps free of records behind it, and the most messages that a writer has in flight.
pub(crate) const FENCE: usize = 1024;

/// The most records and bytes of them in a message.
const PACK: (usize, usize) = (100, 64 << 10);

/// How many old or contradicting answers in turn are taken for those of a leader that was stopped.
const SUSPECTS: u32 = 25;

/// How often the copier looks whether the stream was emptied behind its back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much may be on its way, and how long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// The most messages of a partition in flight, from 1 to 1,024. Default: 1,000.
    pub messages: usize,
    /// The most bytes of a partition's records in memory. Default: 8 MiB.
    pub bytes: usize,
    /// How long the answer to a mark may take before it counts as lost. Default: 2 s.
    pub answer: Duration,
    /// How long the copier waits after an error before it tries again. Default: 200 ms.
    pub pause: Duration,
    /// The most records in a message, from 1 to 100. Default: 1, so that each message is a record that any client reads.
    pub packed: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            messages: 1000,
            bytes: 8 << 20,
            answer: Duration::from_secs(2),
            pause: Duration::from_millis(200),
            packed: 1,
        }
    }
}

/// Whether the copier knows where the stream stands.
#[derive(Debug)]
enum Phase {
    /// It knows: entries are sent.
    Writing,
    /// The stream is ahead of what has been pushed, up to this tip. Records are compared with it as they come.
    Ahead(Tip),
    /// It is to be found out, not before this time.
    Doubt(Instant),
}

/// Writes the position to the journal, durably.
pub(crate) type RecordPosition<'r> = &'r mut dyn FnMut(&Position) -> Result<(), String>;

/// The copier of one partition to one stream.
pub(crate) struct Outward<R> {
    remote: R,
    window: Window,
    /// The most bytes of records in a message of several records.
    pack_bytes: usize,
    /// How many marks fence an older writer: [`FENCE`], and less in tests.
    fence: u64,
    writer: Writer,
    position: Position,
    /// The offset after the last confirmed record.
    confirmed: u64,
    takes_over: bool,
    phase: Phase,
    /// The number of the last mark of this writer's fence; 0 until the first mark was sent.
    fence_end: u64,
    /// The highest number of a message of the fence that was confirmed or found in the stream.
    fence_at: u64,
    /// True once the fence is confirmed. From then on nobody but this writer writes the stream, or it is stopped.
    has_begun: bool,
    /// The number of the stream's last confirmed message. Entry i is message `base + 1 + i`.
    base: u64,
    /// Where the stream's records end with message `base`.
    tip: Tip,
    entries: VecDeque<Envelope>,
    bytes: usize,
    /// How many of the first entries were sent, or found in the stream.
    sent: usize,
    /// How many of them were found in the stream. They count as confirmed with the next confirmation.
    found: usize,
    /// The highest offset after a record that was passed over because the stream has it.
    passed: u64,
    /// Old or contradicting answers in turn.
    suspects: u32,
    /// When and how often the copier looks whether the stream still begins where it began.
    looked: Instant,
    look_every: Duration,
    /// True if records were passed over and nobody has asked yet.
    has_passed: bool,
    /// Skipped offsets that the stream has confirmed and that nobody was told of yet.
    skipped: Vec<Range<u64>>,
    error: Option<String>,
}

impl<R: Remote> Outward<R> {
    /// A copier that goes on at `next`, with what the journal has recorded beside it.
    pub(crate) fn new(
        remote: R,
        window: Window,
        (journal, nonce): ([u8; 16], u64),
        (next, position): (u64, Position),
        takes_over: bool,
    ) -> Self {
        Self {
            remote,
            window: Window {
                messages: window.messages.clamp(1, FENCE),
                packed: window.packed.clamp(1, PACK.0),
                ..window
            },
            pack_bytes: PACK.1,
            fence: FENCE as u64,
            // The epoch is found out from the stream.
            writer: Writer { journal, epoch: 0, nonce },
            position,
            confirmed: next,
            takes_over,
            phase: Phase::Doubt(Instant::now()),
            fence_end: 0,
            fence_at: 0,
            has_begun: false,
            base: 0,
            tip: Tip::default(),
            entries: VecDeque::new(),
            bytes: 0,
            sent: 0,
            found: 0,
            passed: 0,
            suspects: 0,
            looked: Instant::now(),
            look_every: LOOK_EVERY,
            has_passed: false,
            skipped: Vec::new(),
            error: None,
        }
    }

    /// The offset after the last record that the stream has confirmed.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// What the journal is to record beside [`confirmed`](Self::confirmed).
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Where the stream's records end, as far as it is confirmed.
    pub(crate) fn tip(&self) -> Tip {
        self.tip
    }

    /// The error that the copier tries to get over; `None` if it works.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// True if another record may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        // What is not sent yet is bounded by itself, as a message may take many of its entries.
        let most = (self.sent + self.window.messages).min(2 * self.window.messages);
        self.entries.len() < most && self.bytes < self.window.bytes
    }

    /// True if all pushed records are confirmed.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries.is_empty() && matches!(self.phase, Phase::Writing)
    }

    /// A number that grows while the copier begins or gets confirmations, however slowly.
    pub(crate) fn progress(&self) -> u64 {
        self.base.max(self.fence_at)
    }

    /// The size in bytes of the pushed records that are not confirmed.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn remote(&mut self) -> &mut R {
        &mut self.remote
    }

    /// The stream's name.
    pub(crate) fn name(&self) -> String {
        self.remote.name()
    }

    /// Takes the next record. Records below [`confirmed`](Self::confirmed) are ignored.
    pub(crate) fn push(&mut self, record: Record) -> Result<(), Stopped> {
        if record.offset < self.confirmed {
            return Ok(());
        }
        self.add(Envelope::record(Writer { epoch: 0, ..self.writer }, record))
    }

    /// Passes over a record that another machine's bridge has copied already. It takes no message: it counts as confirmed with
    /// the record before it.
    pub(crate) fn pass_over(&mut self, record: Record) -> Result<(), Stopped> {
        if let Phase::Ahead(_) = self.phase {
            // The stream may end with this very record, if it was written before the topic had an import.
            return self.push(record);
        }
        let next = record.offset + 1;
        match self.entries.back_mut() {
            Some(entry) => entry.passed = next,
            None => self.pass(next),
        }
        Ok(())
    }

    /// All records below this offset are confirmed, or were passed over.
    fn pass(&mut self, next: u64) {
        if next > self.confirmed {
            self.confirmed = next;
            self.has_passed = true;
        }
    }

    /// True if records were passed over since the last call that count as confirmed.
    pub(crate) fn take_passed(&mut self) -> bool {
        std::mem::take(&mut self.has_passed)
    }

    /// Takes the place of records that are not copied: the offsets from `from` up to `next`, exclusive.
    pub(crate) fn push_skip(&mut self, from: u64, next: u64) -> Result<(), Stopped> {
        self.add(Envelope::skip(Writer { epoch: 0, ..self.writer }, from, next))
    }

    /// Says in the stream that nothing is on its way any more. Only for an [idle](Self::is_idle) copier, to which nothing is
    /// pushed afterwards.
    pub(crate) fn push_end(&mut self) {
        self.entries.push_back(Envelope::mark(Kind::End, self.writer, self.tip));
    }

    fn add(&mut self, mut envelope: Envelope) -> Result<(), Stopped> {
        if let Phase::Ahead(tip) = self.phase {
            self.passed = self.passed.max(envelope.head.tip.next.min(tip.next));
            if envelope.head.tip.next < tip.next {
                // The stream has it already; the comparison at its last record is left.
                return Ok(());
            }
            if !meets(&mut envelope, tip) {
                return Err(Stopped::Diverged { stream: self.name(), next: tip.next });
            }
            self.phase = Phase::Doubt(Instant::now());
        }
        self.bytes += size(&envelope);
        self.entries.push_back(envelope);
        Ok(())
    }

    /// Sends what the window allows, and waits up to `limit` for confirmations if any are due. `record` writes the
    /// position to the journal before the copier begins a new epoch. Returns true if anything has moved.
    pub(crate) fn step(&mut self, limit: Duration, record: RecordPosition<'_>) -> Result<bool, Stopped> {
        match self.phase {
            Phase::Doubt(at) if Instant::now() < at => {
                std::thread::sleep(limit.min(at.saturating_duration_since(Instant::now())));
                return Ok(false);
            }
            Phase::Doubt(_) => return self.rewind(record),
            Phase::Ahead(_) => return Ok(false),
            Phase::Writing if self.looked.elapsed() >= self.look_every => {
                self.look()?;
                return Ok(true);
            }
            Phase::Writing => {}
        }
        let mut has_moved = false;
        while self.sent < self.entries.len().min(self.found + self.window.messages) {
            let at = self.sent;
            self.pack(at);
            let behind = at.checked_sub(1).map_or(self.tip, |before| self.entries[before].head.tip);
            let count = self.entries[at].records.len() as u64;
            let head = &mut self.entries[at].head;
            if head.writer.epoch != self.writer.epoch {
                (head.writer, head.behind) = (self.writer, behind);
                head.tip.count = behind.count + count;
            }
            if let Err(error) = self.remote.send(&self.entries[at], self.base + 1 + at as u64) {
                return self.doubt(error).map(|()| true);
            }
            self.sent += 1;
            has_moved = true;
        }
        if self.sent == self.found {
            return Ok(has_moved);
        }
        match self.remote.confirm(limit) {
            Ok(0) => Ok(has_moved),
            Ok(count) => {
                self.error = None;
                let count = count + std::mem::take(&mut self.found);
                (0..count.min(self.sent)).for_each(|_| self.confirm_first());
                Ok(true)
            }
            Err(error) => self.doubt(error).map(|()| true),
        }
    }

    /// Joins records to the entry at this place, if it was never sent: what was sent once keeps its records, since each message
    /// has its number.
    fn pack(&mut self, at: usize) {
        let is_free = |entry: &Envelope| entry.head.writer.epoch != self.writer.epoch && entry.records.len() == 1;
        if self.window.packed < 2 || !is_free(&self.entries[at]) {
            return;
        }
        let (mut bytes, mut count) = (0, 0);
        let fits = |entry: &&Envelope| {
            count += 1;
            bytes += entry.records.iter().map(Record::packed_size).sum::<usize>();
            is_free(entry) && count <= self.window.packed && bytes <= self.pack_bytes
        };
        let count = self.entries.range(at..).take_while(fits).count();
        if count < 2 {
            return;
        }
        let mut joined: Vec<Envelope> = self.entries.drain(at + 1..at + count).collect();
        joined.drain(..).for_each(|entry| self.entries[at].join(entry));
    }

    /// Sets the largest message that the stream takes, in bytes.
    pub(crate) fn set_limit(&mut self, message: usize) {
        // The headers take some hundred bytes, and a limit that small leaves room for single records alone.
        self.pack_bytes = PACK.1.min(message.saturating_sub(1024));
    }

    fn confirm_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(size(&entry));
        (self.base, self.sent) = (self.base + 1, self.sent.saturating_sub(1));
        let skipped = entry.skipped_from.map(|from| from..entry.head.tip.next);
        self.skipped.extend(skipped.filter(|skipped| !skipped.is_empty()));
        self.stands_at(entry.head.tip);
        self.pass(entry.passed);
    }

    /// The stream has confirmed that its records end here.
    fn stands_at(&mut self, tip: Tip) {
        self.tip = tip;
        if tip.checksum != 0 {
            self.confirmed = self.confirmed.max(tip.next);
            self.position.last = Some((tip.next, tip.checksum));
        }
    }

    /// All in flight is unknown: the next step finds out where the stream stands.
    fn doubt(&mut self, error: RemoteError) -> Result<(), Stopped> {
        if let RemoteError::Refused(cause) = error {
            return Err(Stopped::Refused { stream: self.name(), cause });
        }
        // The first refusal is answered at once: it says that the stream is there.
        let is_first = matches!(error, RemoteError::Sequence(_)) && self.error.is_none();
        self.error = Some(error.to_string());
        let pause = if is_first { Duration::ZERO } else { self.window.pause };
        self.phase = Phase::Doubt(Instant::now() + pause);
        self.remote.forget();
        (self.sent, self.found) = (0, 0);
        Ok(())
    }

    /// Waits until all of this many messages in flight are confirmed.
    fn settle(&mut self, count: usize) -> Result<(), RemoteError> {
        let (mut left, until) = (count, Instant::now() + self.window.answer);
        while left > 0 {
            match self.remote.confirm(until.saturating_duration_since(Instant::now()))? {
                0 if Instant::now() >= until => {
                    return Err(RemoteError::Transient("a mark was not confirmed in time".to_owned()));
                }
                confirmed => {
                    left = left.saturating_sub(confirmed);
                    self.fence_at += confirmed as u64;
                }
            }
        }
        Ok(())
    }

    /// The offset up to which the journal must have records before the copier can go on; `None` if it can go on.
    pub(crate) fn ahead(&self) -> Option<u64> {
        match self.phase {
            Phase::Ahead(tip) => Some(tip.next),
            _ => None,
        }
    }

    /// The skipped offsets that the stream has confirmed since the last call.
    pub(crate) fn take_skipped(&mut self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.skipped)
    }
}

/// What an entry counts in the window's bytes: its values, and about what their other parts take.
fn size(entry: &Envelope) -> usize {
    entry.records.iter().map(|record| record.value.len() + 256).sum::<usize>().max(256)
}

/// True if the entry is the one with which the stream ends, as far as can be known of skipped records. Of skipped records the
/// part that the stream has is taken off.
fn meets(entry: &mut Envelope, tip: Tip) -> bool {
    match &mut entry.skipped_from {
        Some(from) if *from <= tip.next => {
            *from = tip.next.min(entry.head.tip.next);
            true
        }
        _ => (entry.head.tip.next, entry.head.tip.checksum) == (tip.next, tip.checksum),
    }
}

#[cfg(test)]
mod tests;
