//! A standby: a journal that no engine has open, kept as a copy of streams, with the offsets as they were.
//!
//! ```text
//!    machine A: engine --> bridge outward --> streams --> standby --> journal          machine B
//!    A dies:                                  streams --> take_over: a mark fences A, the rest is copied
//!                                             streams <-- bridge outward <-- engine    B goes on
//! ```
//!
//! # Why a takeover loses no replicated record, and A cannot go on
//! [`Standby::take_over`] first writes the mark of a higher epoch behind the stream's records, and the fence (see
//! `outward.rs`). From then on nothing of A is confirmed, so what the stream has at that point is all that A was told to be
//! replicated. Then the rest of it is copied, and the position is recorded in the journal. An engine that opens the journal
//! and starts a bridge of the same name finds its own mark at the end of the stream, and goes on behind it.
//!
//! # Crashes
//! The journal's last record says where the copy ends. An opening compares its checksum with the stream's, so a journal that
//! has gone another way is found. The epoch is recorded durably before its mark is sent.

mod partition_copy;
mod settings;

pub use settings::{StandbyBuilder, StandbyTopic};

use crate::envelope::Tip;
use crate::outward::{Outward, Window};
use crate::position::Position;
use crate::remote::{Remote, RemoteError};
use crate::stopped::{Halt, Stopped};
use partition_copy::{CopyHalt, PartitionCopy};
use slipring::EngineError;
use slipring::clock::{Clock as _, SystemClock};
use slipring::journal::{Extent, FrameBuilder, OpenError, ReplayError, WriteError, Writer};
use slipring::replication::BridgePosition;
use slipring::topic::TopicError;
use std::time::{Duration, Instant};

/// How long a standby waits after an error before it tries again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a takeover waits for progress.
struct Patience {
    limit: Duration,
    until: Instant,
    seen: u64,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, until: Instant::now() + limit, seen: 0 }
    }

    /// Notes a number that grows with progress.
    fn see(&mut self, number: u64) {
        if number > self.seen {
            (self.seen, self.until) = (number, Instant::now() + self.limit);
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Why a standby cannot be opened, or does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StandbyError {
    /// The journal cannot be opened: a program has it open, or it is damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine that creates the topic does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The topic cannot be created.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The journal refuses records, or the disk is full.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReplayError),
    /// The topic in the journal is another one than was asked for.
    #[error("topic {topic:?}: {reason}")]
    Unfit {
        /// The topic's name.
        topic: String,
        /// Why it does not fit, and what to do.
        reason: String,
    },
    /// The stream stops the standby for good.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The streams did not let the takeover finish in time. It can be tried again.
    #[error("the takeover did not end in time: {cause}")]
    TimedOut {
        /// The last error of the servers, as text.
        cause: String,
    },
}

/// A journal that is kept as a copy of streams, until it is closed or takes over.
///
/// It holds the journal's lock, as an engine does. Its methods work on the calling thread.
///
/// ```
/// use slipring::journal::simulated::SimulatedDisk;
/// use slipring::{Engine, Level, Message, Record};
/// use slipring_bridge::{Bridge, StandbyTopic, memory::{Faults, MemoryCluster}};
/// use std::time::Duration;
///
/// let (a, b, cluster) = (SimulatedDisk::new(), SimulatedDisk::new(), MemoryCluster::new(7, Faults::default()));
/// let to = || { let cluster = cluster.clone(); move |_| cluster.stream() };
/// let from = cluster.clone();
/// let engine = Engine::builder().journal_in(a).build()?;
/// let orders = engine.topic::<Message>("orders").durable().create()?;
/// let bridge = Bridge::outward("nats").start(&engine, &orders, to())?;
/// let receipt = orders.producer().acknowledge(Level::Replicated).create()?.send(Record::new("an order"))?;
/// drop(bridge);                                                           // the machine is lost
///
/// let standby = Bridge::standby([StandbyTopic::new("nats", "orders")]);
/// let mut standby = standby.open_in(b.clone(), move |_, _| from.stream())?;
/// standby.take_over(Duration::from_secs(60))?;
/// standby.close()?;
/// let engine = Engine::builder().journal_in(b).build()?;
/// let orders = engine.topic::<Message>("orders").durable().create()?;
/// let bridge = Bridge::outward("nats").start(&engine, &orders, to())?;
/// let next = orders.producer().acknowledge(Level::Replicated).create()?.send(Record::new("the next"))?;
/// assert!(next.offset > receipt.offset);
/// assert_eq!(cluster.records().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Standby<R> {
    writer: Writer,
    frame: FrameBuilder,
    copies: Vec<PartitionCopy<R>>,
    make: MakeRemote<R>,
    window: Window,
    nonce: u64,
    error: Option<String>,
}

/// Returns the stream of a topic's partition.
type MakeRemote<R> = Box<dyn FnMut(&str, u32) -> R + Send>;

fn now() -> u64 {
    SystemClock::default().wall().as_nanos()
}

impl<R: Remote> Standby<R> {
    /// How many messages of the streams are not copied yet, as far as it is known.
    pub fn lag(&self) -> u64 {
        self.copies.iter().map(|copy| copy.cursor.lag()).sum()
    }

    /// The last error that the standby tries to get over; `None` if it works.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The offset after the last record of each partition.
    pub fn ends(&self) -> Vec<u64> {
        self.copies.iter().map(|copy| copy.end).collect()
    }

    /// Each partition: its topic, its number, and the offset after its last record.
    pub fn partitions(&self) -> Vec<(String, u32, u64)> {
        self.copies.iter().map(|copy| (copy.topic.clone(), copy.of.partition, copy.end)).collect()
    }

    /// Copies some records of each stream, durably, and waits up to `limit` for the first. Returns false if there were none,
    /// or if the servers do not answer: then [`error`](Self::error) says why.
    ///
    /// # Errors
    /// The journal has other records than a stream, a stream stops the standby, or the journal cannot be written.
    pub fn copy(&mut self, limit: Duration) -> Result<bool, StandbyError> {
        let share = limit / self.copies.len().max(1) as u32;
        let (mut has_moved, mut error) = (false, None);
        for copy in &mut self.copies {
            let frame = &mut self.frame;
            match copy.read(share, &mut self.writer, frame) {
                Ok(moved) => has_moved |= moved,
                Err(CopyHalt::Halt(Halt::Remote(RemoteError::Refused(cause)))) => {
                    return Err(Stopped::Refused { stream: copy.remote.name(), cause }.into());
                }
                Err(CopyHalt::Halt(Halt::Remote(cause))) => error = Some(format!("{}: {cause}", copy.remote.name())),
                Err(CopyHalt::Halt(Halt::Stopped(stopped))) => return Err(stopped.into()),
                Err(CopyHalt::Standby(cause)) => return Err(cause),
            }
        }
        if !self.frame.is_empty() {
            self.writer.append(&mut self.frame, now())?;
        }
        if has_moved {
            self.writer.sync()?;
        }
        self.error = error;
        if self.error.is_some() {
            std::thread::sleep(PAUSE.min(limit));
        }
        Ok(has_moved)
    }

    /// Takes the streams over: fences whoever has written them, and copies what they have. Afterwards
    /// [`close`](Self::close) the standby, open the journal with an engine, and start bridges outward of the same names. Streams
    /// that this journal has written last, and those that nobody has written, need no takeover.
    ///
    /// The `limit` is the longest time without progress, so a takeover ends however slow the servers or this machine are, and
    /// however much there is to copy. A machine that is alive and writes on may have the last word each time: then the takeover is
    /// given up once it has lost for as long as `limit`. A call that has failed can be repeated.
    ///
    /// # Errors
    /// Those of [`copy`](Self::copy); the journal has records that the streams lack; or the limit has passed.
    pub fn take_over(&mut self, limit: Duration) -> Result<(), StandbyError> {
        let own = self.writer.journal().id();
        // A copy reads all streams, so all of them have to be there.
        for index in 0..self.copies.len() {
            self.create_stream(index, Patience::new(limit))?;
        }
        for index in 0..self.copies.len() {
            self.catch_up(index, None, limit)?;
            let writer = self.copies[index].cursor.writer();
            let Some(tip) = (match writer.filter(|writer| writer.journal != own) {
                Some(_) => Some(self.fence(index, limit)?),
                None => writer.map(|_| self.copies[index].cursor.tip()),
            }) else {
                continue;
            };
            let copy = &mut self.copies[index];
            let is_ahead = copy.end > tip.next;
            if is_ahead && writer.is_some_and(|writer| writer.journal == own) {
                // The bridge copies the rest.
                continue;
            }
            if is_ahead || !copy.has_met {
                return Err(Stopped::Diverged { stream: copy.remote.name(), next: tip.next }.into());
            }
            if tip.next > copy.end {
                // Skipped records end the stream. Their offsets are not given again.
                let start = self.writer.state().extent(copy.of).map_or(0, |extent| extent.start);
                self.frame.extent(copy.of, Extent { start, end: tip.next, reserved: tip.next });
            }
            copy.position.last = (tip.checksum != 0).then_some((tip.next, tip.checksum));
            let mut position = BridgePosition::new(&*copy.bridge, copy.of, tip.next);
            position.detail = copy.position.encode();
            position.put(&mut self.frame);
            self.writer.append(&mut self.frame, now())?;
            self.writer.sync()?;
        }
        Ok(())
    }

    /// Creates the stream, if it does not exist, and checks its settings.
    fn create_stream(&mut self, index: usize, patience: Patience) -> Result<(), StandbyError> {
        let remote = &mut self.copies[index].remote;
        loop {
            match remote.limits() {
                Ok(_) => return Ok(()),
                Err(RemoteError::Refused(cause)) => {
                    return Err(Stopped::Refused { stream: remote.name(), cause }.into());
                }
                Err(cause) if patience.is_over() => {
                    return Err(StandbyError::TimedOut { cause: format!("{}: {cause}", remote.name()) });
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Fences whoever has written the stream, and copies what it has. Returns where its records end.
    fn fence(&mut self, index: usize, limit: Duration) -> Result<Tip, StandbyError> {
        let races = Patience::new(limit);
        loop {
            if let Some(tip) = self.raise_epoch(index, limit)? {
                self.catch_up(index, Some(tip), limit)?;
                return Ok(tip);
            }
            if races.is_over() {
                let cause = "the machine before writes on: end it first".to_owned();
                return Err(StandbyError::TimedOut { cause });
            }
            self.catch_up(index, None, limit)?;
        }
    }

    /// Copies until the stream's records end at `tip`, or, for `None`, up to where the stream ends now.
    fn catch_up(&mut self, index: usize, tip: Option<Tip>, limit: Duration) -> Result<(), StandbyError> {
        let (mut patience, mut end) = (Patience::new(limit), None);
        loop {
            patience.see(self.copies[index].cursor.numbers().0);
            self.copy(PAUSE)?;
            let cursor = &self.copies[index].cursor;
            let (next, known) = cursor.numbers();
            if self.error.is_none() {
                // A machine that writes on moves the end, and not this place.
                end = end.or(Some(known));
            }
            let is_there = match tip {
                Some(tip) => cursor.tip() == tip,
                None => end.is_some_and(|end| next >= end),
            };
            if is_there {
                return Ok(());
            }
            if patience.is_over() {
                let cause = self.error.clone().unwrap_or_else(|| "the servers are slow".to_owned());
                return Err(StandbyError::TimedOut { cause });
            }
        }
    }

    /// Writes the mark of a higher epoch, the fence, and the end. Returns where the stream's records end; `None` if it has gone
    /// on meanwhile.
    fn raise_epoch(&mut self, index: usize, limit: Duration) -> Result<Option<Tip>, StandbyError> {
        let (copy, writer) = (&mut self.copies[index], &mut self.writer);
        let tip = copy.cursor.tip();
        let last = (tip.checksum != 0).then_some((tip.next, tip.checksum));
        let position = Position { last, first: 0, ..copy.position.clone() };
        let id = (writer.journal().id(), self.nonce);
        let remote = (self.make)(&copy.topic, copy.of.partition);
        let mut outward = Outward::new(remote, self.window, id, (tip.next, position), true);
        let (of, end, bridge) = (copy.of, copy.end, copy.bridge.clone());
        let mut failed = None;
        let mut record = |position: &Position| {
            let mut frame = FrameBuilder::new();
            let mut known = BridgePosition::new(&*bridge, of, end);
            known.detail = position.encode();
            known.put(&mut frame);
            let written = writer.append(&mut frame, now()).and_then(|_| writer.sync());
            written.map(drop).map_err(|cause| failed.insert(cause).to_string())
        };
        let (mut has_ended, mut patience) = (false, Patience::new(limit));
        loop {
            let stepped = outward.step(PAUSE, &mut record);
            if let Err(stopped) = stepped {
                return Err(failed.map_or(StandbyError::Stopped(stopped), StandbyError::Write));
            }
            copy.position = outward.position().clone();
            if outward.ahead().is_some() {
                return Ok(None);
            }
            match outward.is_idle() {
                true if has_ended => return Ok(Some(outward.tip())),
                true => {
                    outward.push_end();
                    has_ended = true;
                }
                false => {}
            }
            patience.see(outward.progress());
            if patience.is_over() {
                let cause = outward.error().unwrap_or("the servers are slow").to_owned();
                return Err(StandbyError::TimedOut { cause });
            }
        }
    }

    /// Closes the journal, so that an engine can open it.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn close(self) -> Result<(), StandbyError> {
        Ok(self.writer.close(now())?)
    }
}

impl<R> std::fmt::Debug for Standby<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends: Vec<_> = self.copies.iter().map(|copy| copy.end).collect();
        write!(f, "Standby(ends {ends:?})")
    }
}
