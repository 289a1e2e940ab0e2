//! The thread that reads a topic and publishes its events to a shared ring.
//!
//! On a durable topic each publish leaves the offset behind its last event as the note of the ring's position. The two are
//! one step for whoever comes after a kill, so a successor reads on exactly behind what is in the ring.

use super::builder::WhenRingFull;
use super::error::{RingLinkEnd, RingLinkFailure};
use super::handle::LinkRun;
use crate::base::closed::Closed;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::read::error::ReadError;
use crate::read::replay::Replay;
use crate::read::{At, Subscriber, reader_thread};
use crate::topic::TopicCore;
use slipring_ring::shared::{self, PublishError, SharedProducer};
use slipring_ring::{Ending, Sequence};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The greatest count of events that are copied before they are published to the ring.
pub(super) const PART: usize = 1024;

/// The time between two looks whether a link that waits for room was stopped, or its topic was halted.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// How one read of a topic has ended.
pub(super) enum ReadOutcome {
    /// All events that were read are handed on.
    HandedOn,
    /// Some events were read and not handed on, because the link was stopped or the topic halted meanwhile.
    Cut,
    /// The topic was closed and read to its end.
    End,
}

/// A reader of the events of a topic.
pub(super) trait ShareSource<E: shared::Event> {
    /// Waits for events, and publishes them.
    fn read(&mut self, to: &mut RingWriter<E>) -> Result<ReadOutcome, RingLinkFailure>;

    /// The next offset to be read of each partition.
    fn positions(&self) -> BTreeMap<u32, u64>;
}

impl<E: shared::Event, K: Producers> ShareSource<E> for Subscriber<E, K> {
    fn read(&mut self, to: &mut RingWriter<E>) -> Result<ReadOutcome, RingLinkFailure> {
        let Some(mut batch) = self.poll(Duration::MAX)? else { return Ok(ReadOutcome::End) };
        while !batch.is_empty() {
            for (event, at) in (&mut batch).into_iter().take(to.largest) {
                to.add(event, at);
            }
            let goes_on = to.step();
            // A link that waits for room holds no slot of what is in the ring.
            if let Some(from) = to.take_unsent() {
                batch.batch.put_back(Sequence(from.offset));
            }
            batch.batch.release();
            if !goes_on? {
                return Ok(ReadOutcome::Cut);
            }
        }
        Ok(ReadOutcome::HandedOn)
    }

    fn positions(&self) -> BTreeMap<u32, u64> {
        (0..).map_while(|partition| Some((partition, self.position(partition)?))).collect()
    }
}

impl<E: shared::Event, K: Producers> ShareSource<E> for Replay<E, K> {
    fn read(&mut self, to: &mut RingWriter<E>) -> Result<ReadOutcome, RingLinkFailure> {
        let mut is_split = false;
        let read = self.read_part(Duration::MAX, Some(PART), |event, at| match at.partition {
            0 => to.add(event, at),
            _ => is_split = true,
        })?;
        if is_split {
            return Err(RingLinkFailure::Partitions { topic: to.topic.clone() });
        }
        Ok(match (to.send()?, read) {
            (false, _) => ReadOutcome::Cut,
            (true, Some(_)) => ReadOutcome::HandedOn,
            (true, None) => ReadOutcome::End,
        })
    }

    fn positions(&self) -> BTreeMap<u32, u64> {
        (0..).map_while(|partition| Some((partition, self.position(partition)?))).collect()
    }
}

/// The ring's side of the thread: gathers events, and publishes them together.
pub(super) struct RingWriter<E: shared::Event> {
    out: SharedProducer<E>,
    run: Arc<LinkRun>,
    ring: String,
    topic: String,
    when_full: WhenRingFull,
    /// True if each publish leaves the topic's next offset in the ring.
    is_noted: bool,
    /// The most events of one publish.
    largest: usize,
    /// The most events of the next publish: fewer than `largest` while there was no room for more.
    most: usize,
    events: Vec<(E, At)>,
    /// Count of the first of `events` that were published or lost.
    sent: usize,
    /// Why the topic was halted or has failed; `None` while its events are to be read.
    halted: Box<dyn Fn() -> Option<Closed> + Send>,
}

impl<E: shared::Event> RingWriter<E> {
    pub(super) fn new<K: Producers>(
        out: SharedProducer<E>,
        largest: usize,
        run: &Arc<LinkRun>,
        topic: &Arc<TopicCore<E, K>>,
        when_full: WhenRingFull,
    ) -> Self {
        let ring = run.state.describe().ring;
        let is_noted = topic.durable.is_some();
        let halts = Arc::clone(topic);
        let halted = Box::new(move || halts.closed().filter(|reason| *reason != Closed::Closed));
        let (run, topic, events) = (Arc::clone(run), topic.name.clone(), Vec::with_capacity(PART));
        let largest = largest.min(PART);
        Self { out, run, ring, topic, when_full, is_noted, largest, most: largest, events, sent: 0, halted }
    }

    fn add(&mut self, event: &E, at: At) {
        self.events.push((*event, at));
    }

    /// Publishes all gathered events, in the order in which they were added. False if the link was stopped or the topic
    /// halted while there was no room. What is left then, or when the ring ends, stays for
    /// [`take_unsent`](Self::take_unsent).
    fn send(&mut self) -> Result<bool, RingLinkFailure> {
        while self.sent < self.events.len() {
            if !self.step()? {
                return Ok(false);
            }
        }
        self.events.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Publishes some of the gathered events, or waits for room for a while, or loses them as told. False if the link was
    /// stopped or the topic halted while there was no room.
    fn step(&mut self) -> Result<bool, RingLinkFailure> {
        let left = self.events.len() - self.sent;
        if left == 0 {
            // Only slots without an event were read.
            return Ok(true);
        }
        let len = left.min(self.most);
        match self.publish(len) {
            Ok(()) => {
                self.sent += len;
                self.run.state.events.fetch_add(len as u64, Ordering::Relaxed);
                self.most = (2 * self.most).min(self.largest);
            }
            Err(PublishError::Ended(cause)) => return Err(RingLinkFailure::Ring { ring: self.ring.clone(), cause }),
            Err(_) if self.run.is_stopped() || (self.halted)().is_some() => return Ok(false),
            // Some of the events may have room.
            Err(_) if len > 1 => self.most = len / 2,
            Err(_) if self.when_full == WhenRingFull::Wait => {}
            Err(_) => {
                self.run.state.lost.fetch_add(left as u64, Ordering::Relaxed);
                self.sent = self.events.len();
            }
        }
        Ok(true)
    }

    /// Publishes the next `len` gathered events together. An error if they have no room, or the ring has ended.
    fn publish(&mut self, len: usize) -> Result<(), PublishError> {
        let events = &self.events[self.sent..][..len];
        let mut claim = match self.when_full {
            WhenRingFull::Lose => self.out.try_claim(len)?,
            WhenRingFull::Wait => self.out.claim_until(len, Instant::now() + CHECK_EVERY)?,
        };
        for ((_, slot), (event, _)) in claim.iter_mut().zip(events) {
            *slot = *event;
        }
        match events.last() {
            Some((_, last)) if self.is_noted => claim.commit_noted(last.offset + 1)?,
            _ => claim.commit()?,
        };
        Ok(())
    }

    /// Removes the gathered events that were not published, and returns the place of the first; `None` if there is none.
    fn take_unsent(&mut self) -> Option<At> {
        let first = self.events.get(self.sent).map(|(_, at)| *at);
        self.events.clear();
        self.sent = 0;
        first
    }
}

/// Reads `source` until the topic or the ring ends, or the link is stopped.
fn share<E: shared::Event>(
    source: &mut impl ShareSource<E>,
    to: &mut RingWriter<E>,
    name: &str,
) -> Result<RingLinkEnd, RingLinkFailure> {
    while !to.run.is_stopped() {
        match source.read(to)? {
            ReadOutcome::HandedOn => {}
            ReadOutcome::End => return Ok(RingLinkEnd::Finished),
            ReadOutcome::Cut => match (to.halted)() {
                None => break,
                Some(reason) => {
                    let (topic, consumer) = (to.topic.clone(), name.to_owned());
                    return Err(ReadError { topic, consumer, reason }.into());
                }
            },
        }
    }
    Ok(RingLinkEnd::Stopped)
}

/// The life of the thread of the link called `name`.
pub(super) fn run<E: shared::Event>(
    mut source: impl ShareSource<E>,
    mut to: RingWriter<E>,
    name: &str,
) -> reader_thread::End {
    let ended = match caught(|| share(&mut source, &mut to, name)) {
        Ok(Ok(end)) => end,
        Ok(Err(failure)) => RingLinkEnd::Failed(failure),
        Err(panic) => RingLinkEnd::Failed(RingLinkFailure::Panicked { topic: to.topic.clone(), cause: panic.said() }),
    };
    let mut consumed = source.positions();
    consumed.extend(to.take_unsent().map(|at| (at.partition, at.offset)));
    let run = Arc::clone(&to.run);
    drop(source);
    // A wait strategy of the program's may panic when it is dropped.
    let _ = caught(move || drop(to));
    let ending = match &ended {
        RingLinkEnd::Finished => Ending::Drained,
        RingLinkEnd::Stopped => Ending::Unread,
        RingLinkEnd::Failed(cause @ (RingLinkFailure::Read(_) | RingLinkFailure::Replay(_))) => {
            Ending::Stopped(cause.to_string())
        }
        RingLinkEnd::Failed(cause) => Ending::Failed(cause.to_string()),
    };
    let is_cancelled = run.is_stopped();
    let consumed = consumed.into_iter().collect();
    reader_thread::End { ending, consumed, is_cancelled, tell: Box::new(move || run.end(ended)) }
}
