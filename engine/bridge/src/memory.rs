//! A stream in memory with faults, for tests: of this crate, and of programs that use a bridge.

use crate::envelope::{Envelope, Head};
use crate::record::Record;
use crate::remote::{Limits, Remote, RemoteError, Stored};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often, of 1,000 times, each fault happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A message vanishes, and nobody answers.
    pub message_lost: u32,
    /// A message is stored, and the answer vanishes.
    pub answer_lost: u32,
    /// A message that its sender has given up arrives later.
    pub late: u32,
    /// The stream's last message is asked for, and nobody answers.
    pub unanswered: u32,
    /// The stream's last message is asked for, and a server with old data answers.
    pub stale: u32,
    /// Messages are read, and a new leader answers that some of the last ones are not there, as it has not applied them yet.
    pub unapplied: u32,
}

#[derive(Debug)]
struct Log {
    /// Number and message; `None` for a message that no bridge has written.
    messages: Vec<(u64, Option<Envelope>)>,
    /// The number of the last message that the stream ever had.
    sequence: u64,
    /// Messages that their senders have given up and that may still arrive, in order.
    late: VecDeque<(Envelope, u64)>,
    /// The number at which all of these arrive.
    arrive_at: u64,
    faults: Faults,
    random: fastrand::Rng,
    largest: usize,
    full: bool,
    /// The number of the last message that has room; 0 for no limit.
    full_at: u64,
    down: bool,
    held: bool,
    /// How long a confirmation takes; then each has one message. Zero for none of this.
    slow: Duration,
    deleted: u64,
}

impl Log {
    fn happens(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.random.u32(..1000) < of_thousand
    }

    /// Stores a message if its number is the next one.
    fn store(&mut self, message: &Envelope, sequence: u64) -> Result<(), RemoteError> {
        if sequence != self.sequence + 1 {
            return Err(RemoteError::Sequence(format!("{} instead of {sequence}", self.sequence + 1)));
        }
        if self.full || (self.full_at > 0 && self.sequence >= self.full_at) {
            return Err(RemoteError::Transient("the stream is full".to_owned()));
        }
        self.sequence += 1;
        self.messages.push((self.sequence, Some(message.clone())));
        if self.sequence == self.arrive_at {
            self.arrive_all();
        }
        Ok(())
    }

    fn arrive_all(&mut self) {
        for (message, sequence) in std::mem::take(&mut self.late) {
            let _ = self.store(&message, sequence);
        }
    }

    /// Lets some of the late messages arrive.
    fn arrive(&mut self) {
        while !self.late.is_empty() && self.happens(self.faults.late) {
            if let Some((message, sequence)) = self.late.pop_front() {
                let _ = self.store(&message, sequence);
            }
        }
    }
}

/// A stream in memory, and what happens to it. Cloning gives another handle of the same stream.
///
/// ```
/// use slipring::{Engine, Level, Message, Record, journal::simulated::SimulatedDisk};
/// use slipring_bridge::{Bridge, memory::{Faults, MemoryCluster}};
///
/// let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
/// let orders = engine.topic::<Message>("orders").durable().create()?;
/// let cluster = MemoryCluster::new(7, Faults::default());
/// let to = cluster.clone();
/// let bridge = Bridge::outward("test").start(&engine, &orders, move |_| to.stream())?;
/// let mut producer = orders.producer().acknowledge(Level::Replicated).create()?;
/// producer.send(Record::new("an order"))?;
/// assert_eq!(cluster.records()[0].value, b"an order");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryCluster {
    log: Arc<Mutex<Log>>,
}

impl MemoryCluster {
    /// An empty stream, with faults that are drawn from `seed`.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let log = Log {
            messages: Vec::new(),
            sequence: 0,
            late: VecDeque::new(),
            arrive_at: 0,
            faults,
            random: fastrand::Rng::with_seed(seed),
            largest: 1 << 20,
            full: false,
            full_at: 0,
            down: false,
            held: false,
            slow: Duration::ZERO,
            deleted: 0,
        };
        Self { log: Arc::new(Mutex::new(log)) }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client of the stream.
    pub fn stream(&self) -> MemoryStream {
        MemoryStream { cluster: self.clone(), flight: VecDeque::new(), is_unanswered: false }
    }

    /// Changes how often faults happen.
    pub fn set_faults(&self, faults: Faults) {
        self.log().faults = faults;
    }

    /// Sets the largest size of a message in bytes, headers included.
    pub fn set_largest(&self, bytes: usize) {
        self.log().largest = bytes;
    }

    /// Makes the stream full, or gives it room.
    pub fn set_full(&self, full: bool) {
        self.log().full = full;
    }

    /// Makes the stream full once it has a message with this number; 0 for never.
    pub fn full_at(&self, sequence: u64) {
        self.log().full_at = sequence;
    }

    /// Takes the servers down, or up again. While they are down nothing is stored or answered.
    pub fn set_down(&self, down: bool) {
        self.log().down = down;
    }

    /// Holds messages back on their way to the stream, or lets them go on.
    pub fn set_held(&self, held: bool) {
        self.log().held = held;
    }

    /// Lets each confirmation take this long and have one message, as of servers with much to do. While the servers are down, each
    /// question for the stream's end takes this long, too. Zero for no delay.
    pub fn set_slow(&self, slow: Duration) {
        self.log().slow = slow;
    }

    /// Removes all messages.
    pub fn purge(&self) {
        self.log().messages.clear();
    }

    /// Removes all messages and begins with number 1 again, as a stream that was deleted and created anew.
    pub fn recreate(&self) {
        let mut log = self.log();
        log.messages.clear();
        log.sequence = 0;
    }

    /// Stores a message that no bridge has written.
    pub fn write_foreign(&self) {
        let mut log = self.log();
        log.sequence += 1;
        let sequence = log.sequence;
        log.messages.push((sequence, None));
    }

    /// Removes the message with this number by hand.
    pub fn remove(&self, sequence: u64) {
        self.log().messages.retain(|(number, _)| *number != sequence);
    }

    /// Lets all messages arrive that their senders have given up.
    pub fn arrive(&self) {
        self.log().arrive_all();
    }

    /// Lets all messages that their senders have given up arrive once the stream has a message with this number.
    pub fn arrive_at(&self, sequence: u64) {
        self.log().arrive_at = sequence;
    }

    /// The number of the last message that the stream ever had.
    pub fn sequence(&self) -> u64 {
        self.log().sequence
    }

    /// How many messages of older writers were deleted.
    pub fn deleted(&self) -> u64 {
        self.log().deleted
    }

    /// The heads of all messages, in order; `None` for a message that no bridge has written.
    pub fn heads(&self) -> Vec<Option<Head>> {
        self.log().messages.iter().map(|(_, message)| message.as_ref().map(|message| message.head)).collect()
    }

    /// All records, in order.
    pub fn records(&self) -> Vec<Record> {
        let log = self.log();
        let written = log.messages.iter().filter_map(|(_, message)| message.as_ref());
        written.flat_map(|message| message.records.clone()).collect()
    }

    /// The ranges of skipped offsets, in order.
    pub fn skipped(&self) -> Vec<Range<u64>> {
        let log = self.log();
        let all = log.messages.iter().filter_map(|(_, message)| message.as_ref());
        all.filter_map(|message| Some(message.skipped_from?..message.head.tip.next)).collect()
    }
}

/// A client of a [`MemoryCluster`].
#[derive(Debug)]
pub struct MemoryStream {
    cluster: MemoryCluster,
    flight: VecDeque<(Envelope, u64)>,
    /// True if a message in flight has vanished.
    is_unanswered: bool,
}

impl Remote for MemoryStream {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn limits(&mut self) -> Result<Limits, RemoteError> {
        let log = self.cluster.log();
        if log.down { Err(RemoteError::Transient("down".to_owned())) } else { Ok(Limits::new(log.largest)) }
    }

    fn send(&mut self, message: &Envelope, sequence: u64) -> Result<(), RemoteError> {
        self.flight.push_back((message.clone(), sequence));
        Ok(())
    }

    fn confirm(&mut self, _: Duration) -> Result<usize, RemoteError> {
        let slow = self.cluster.log().slow;
        std::thread::sleep(slow);
        let mut log = self.cluster.log();
        log.arrive();
        if log.down || self.is_unanswered {
            return Err(RemoteError::Transient("not answered in time".to_owned()));
        }
        // Some arrive now, the others with the next call.
        let count = match () {
            () if log.held => 0,
            () if slow.is_zero() => log.random.usize(..=self.flight.len()),
            () => 1.min(self.flight.len()),
        };
        for done in 0..count {
            let (lost, unanswered) = (log.faults.message_lost, log.faults.answer_lost);
            if log.happens(lost) {
                // What was sent behind it arrives all the same, now or later.
                self.flight.pop_front();
                self.is_unanswered = true;
                return Ok(done);
            }
            let Some((message, sequence)) = self.flight.pop_front() else { return Ok(done) };
            log.store(&message, sequence)?;
            if log.happens(unanswered) {
                return Err(RemoteError::Transient("the answer is lost".to_owned()));
            }
        }
        Ok(count)
    }

    fn forget(&mut self) {
        let mut log = self.cluster.log();
        log.late.extend(self.flight.drain(..));
        self.is_unanswered = false;
    }

    fn numbers(&mut self) -> Result<Range<u64>, RemoteError> {
        let (is_down, slow) = {
            let log = self.cluster.log();
            (log.down, log.slow)
        };
        if is_down {
            std::thread::sleep(slow);
        }
        let mut log = self.cluster.log();
        log.arrive();
        let (unanswered, stale) = (log.faults.unanswered, log.faults.stale);
        if log.down || log.happens(unanswered) {
            return Err(RemoteError::Transient("nobody answers".to_owned()));
        }
        let last = log.sequence;
        let last = if log.happens(stale) { log.random.u64(..=last) } else { last };
        let first = log.messages.first().map_or(log.sequence + 1, |(first, _)| *first);
        Ok(first.min(last + 1)..last + 1)
    }

    fn read(&mut self, sequences: Range<u64>) -> Result<Vec<Option<Stored>>, RemoteError> {
        let mut log = self.cluster.log();
        let unanswered = log.faults.unanswered;
        if log.down || log.happens(unanswered) {
            return Err(RemoteError::Transient("nobody answers".to_owned()));
        }
        let unapplied = log.faults.unapplied;
        let is_new = log.happens(unapplied);
        let applied = if is_new { log.random.u64(sequences.start..=sequences.end) } else { sequences.end };
        let found = sequences.map(|sequence| {
            if sequence >= applied {
                return None;
            }
            let at = log.messages.binary_search_by_key(&sequence, |(number, _)| *number).ok()?;
            let message = log.messages[at].1.as_ref();
            Some(Stored {
                head: message.map(|message| message.head),
                records: message.map_or(Vec::new(), |message| message.records.clone()),
            })
        });
        Ok(found.collect())
    }

    fn delete(&mut self, sequence: u64) -> Result<(), RemoteError> {
        let mut log = self.cluster.log();
        let unanswered = log.faults.unanswered;
        if log.down || log.happens(unanswered) {
            return Err(RemoteError::Transient("nobody answers".to_owned()));
        }
        log.messages.retain(|(number, _)| *number != sequence);
        log.deleted += 1;
        Ok(())
    }
}
