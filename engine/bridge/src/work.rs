//! The thread of a bridge outward: it reads the topic, and lets the copier of each partition send and confirm.

use crate::bridge::{PartitionStatus, Shared};
use crate::envelope::{surely_fits, wire_size};
use crate::origin::{ImportedInto, origin_of};
use crate::outbound::{Lost, Uncopied, open};
use crate::outward::Outward;
use crate::position::Position;
use crate::record::Record;
use crate::remote::{Remote, RemoteError};
use crate::stopped::Stopped;
use slipring::journal::ReplayError as JournalError;
use slipring::producer::Producers;
use slipring::replay::{Replay, ReplayError};
use slipring::replication::{BridgeReport, Replication};
use slipring::{Message, Topic};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the position is written to the journal.
const RECORD: Duration = Duration::from_secs(1);
/// How long the thread waits for new events, or for an answer, before it looks at everything again.
const LOOK: Duration = Duration::from_millis(20);
/// The same, while it waits for answers of several partitions in turn.
const SHORT_LOOK: Duration = Duration::from_millis(1);
/// How long a bridge that was ended still waits for what is in flight.
const LAST: Duration = Duration::from_secs(1);

/// All that the thread works with.
pub(crate) struct Work<K: Producers, R> {
    pub(crate) topic: Topic<Message, K>,
    pub(crate) name: String,
    /// By which name imported records name the topic.
    pub(crate) into: ImportedInto,
    pub(crate) replication: Option<Replication>,
    pub(crate) replay: Replay<Message, K>,
    /// Offsets of partitions that were deleted before they were copied.
    pub(crate) lost: Lost,
    pub(crate) copiers: Vec<Outward<R>>,
    /// The largest message of each partition's stream in bytes; `None` until the stream was asked.
    pub(crate) limits: Vec<Option<usize>>,
    /// The largest message in bytes of which the topic's producers were told; `None` if they were not.
    pub(crate) told_limit: Option<usize>,
    /// True if producers are refused what is larger.
    pub(crate) refuses_large: bool,
    pub(crate) uncopied: Uncopied,
    /// Why the bridge stops once all that it has read before is copied.
    pub(crate) stops: Option<Stopped>,
    /// When each partition was last found to be replicated as far as it is durable.
    pub(crate) level: Vec<Instant>,
    pub(crate) recorded: Instant,
    /// Until when an ended bridge waits for what is in flight; `None` while it was not ended.
    pub(crate) ends_at: Option<Instant>,
    /// What was recorded last of each partition: the offset and the bridge's own bytes.
    pub(crate) told: Vec<Option<(u64, Vec<u8>)>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) make: Box<dyn FnMut(u32, u64) -> Outward<R> + Send>,
}

impl<K: Producers, R: Remote> Work<K, R> {
    /// Works until the bridge is ended or stops.
    pub(crate) fn run(mut self) {
        let stopped = loop {
            if self.shared.ends() {
                break Stopped::Ended("the bridge was ended".to_owned());
            }
            if let Err(stopped) = self.turn() {
                break stopped;
            }
        };
        if matches!(stopped, Stopped::Ended(_)) {
            self.finish();
        }
        // Without it the next start compares more with the stream.
        let _ = self.record();
        if let Some(replication) = self.replication.take() {
            replication.end(&stopped.to_string());
        }
        self.shared.set(|status| status.stopped = Some(stopped));
    }

    /// Waits for what is in flight, and says in each stream that nothing is left.
    fn finish(&mut self) {
        let (until, mut has_said) = (Instant::now() + LAST, false);
        self.ends_at = Some(until);
        while Instant::now() < until {
            if self.copiers.iter().all(Outward::is_idle) {
                if has_said {
                    return;
                }
                self.copiers.iter_mut().for_each(Outward::push_end);
                has_said = true;
            }
            if self.step(SHORT_LOOK).is_err() {
                return;
            }
        }
    }

    fn replication(&self) -> &Replication {
        self.replication.as_ref().expect("taken at the end only")
    }

    /// Reads new events, sends what the windows allow, and takes confirmations.
    fn turn(&mut self) -> Result<(), Stopped> {
        if let Some(cause) = self.replication().ended() {
            return Err(Stopped::Ended(cause));
        }
        for (partition, from, earliest) in std::mem::take(&mut self.lost) {
            self.skip_deleted(partition, from, earliest)?;
        }
        if !self.ask_limits()? {
            std::thread::sleep(LOOK);
            return Ok(());
        }
        let busy = self.copiers.iter().filter(|copier| !copier.is_idle()).count();
        if busy == 0
            && let Some(stopped) = self.stops.take()
        {
            return Err(stopped);
        }
        if self.stops.is_none() && self.copiers.iter().all(Outward::has_room) {
            self.read(if busy > 0 { Duration::ZERO } else { LOOK })?;
        }
        let has_moved = self.step(Duration::ZERO)?;
        if !has_moved && busy > 0 {
            self.step(if busy > 1 { SHORT_LOOK } else { LOOK })?;
        }
        if self.recorded.elapsed() >= RECORD {
            self.record()?;
            self.report();
        }
        Ok(())
    }

    /// Asks the streams for their limits that are not known yet. False if one of them has not answered.
    fn ask_limits(&mut self) -> Result<bool, Stopped> {
        self.limits.resize(self.copiers.len(), None);
        for (copier, limit) in self.copiers.iter_mut().zip(&mut self.limits) {
            if limit.is_some() {
                continue;
            }
            match copier.remote().limits() {
                Ok(limits) => {
                    copier.set_limit(limits.message);
                    *limit = Some(limits.message);
                }
                Err(RemoteError::Refused(cause)) => return Err(Stopped::Refused { stream: copier.name(), cause }),
                Err(error) => {
                    let error = format!("{}: {error}", copier.name());
                    self.shared.set(|status| status.error = Some(error));
                    return Ok(false);
                }
            }
        }
        self.tell_limit();
        Ok(true)
    }

    /// Has the topic's producers refused what the streams do not take.
    fn tell_limit(&mut self) {
        // Which stream takes a record is known only after a producer has chosen its partition, so the least limit counts.
        let least = self.limits.iter().flatten().min().copied();
        if let Some(largest) = least.filter(|_| self.refuses_large && least != self.told_limit) {
            self.told_limit = least;
            let into = self.into;
            self.replication().limit_messages(largest, surely_fits(largest), move |record| {
                if origin_of(record, into).is_some() {
                    // It is passed over.
                    return 0;
                }
                let (key, value, headers) = record.parts();
                wire_size(key, value, headers)
            });
        }
    }

    fn read(&mut self, wait: Duration) -> Result<(), Stopped> {
        let (copiers, limits, make) = (&mut self.copiers, &mut self.limits, &mut self.make);
        let (uncopied, shared, into) = (self.uncopied, &self.shared, self.into);
        let replication = self.replication.as_ref().expect("taken at the end only");
        let mut outcome = Ok(());
        let read = self.replay.read(wait, |message, at| {
            if outcome.is_err() {
                return;
            }
            let index = at.partition as usize;
            while copiers.len() <= index {
                // A partition that was added. Its position is recorded from here on.
                copiers.push(make(copiers.len() as u32, fastrand::u64(..)));
                limits.push(None);
                let added = replication.advance(copiers.len() as u32 - 1, 0);
                outcome = added.map_err(|cause| Stopped::Ended(cause.to_string()));
            }
            if outcome.is_err() {
                return;
            }
            let (copier, record) = (&mut copiers[index], Record::of(message, at.partition, at.offset));
            if record.origin(into).is_some() {
                outcome = copier.pass_over(record);
                shared.set(|status| status.passed += 1);
                return;
            }
            let limit = limits[index].unwrap_or(usize::MAX);
            let size = wire_size(record.key.as_deref(), &record.value, record.named_headers());
            outcome = if size <= limit {
                copier.push(record)
            } else if uncopied == Uncopied::Stop {
                Err(Stopped::TooLarge { stream: copier.name(), offset: at.offset, size, limit })
            } else {
                shared.set(|status| status.skipped += 1);
                copier.push_skip(at.offset, at.offset + 1)
            };
        });
        match outcome {
            Err(stopped @ Stopped::TooLarge { .. }) => {
                self.stops = Some(stopped);
                return Ok(());
            }
            outcome => outcome?,
        }
        match read {
            Ok(Some(_)) => Ok(()),
            // The topic was closed and all of it is read: what is in flight is confirmed before the end.
            Ok(None) if self.copiers.iter().all(Outward::is_idle) => {
                Err(Stopped::Ended("the topic was closed, and all of it is copied".to_owned()))
            }
            Ok(None) => Ok(()),
            Err(ReplayError::Journal { cause: JournalError::OutOfRange { asked, earliest, .. }, .. })
                if earliest > asked =>
            {
                let all = 0..replication.partitions();
                let starts: Vec<_> = all.map(|at| self.replay.position(at).unwrap_or(0)).collect();
                let opened = open(&self.topic, &self.name, &starts);
                (self.replay, self.lost) = opened.map_err(|cause| Stopped::Ended(cause.to_string()))?;
                Ok(())
            }
            Err(ReplayError::Gap(gap)) if uncopied == Uncopied::Skip => {
                self.shared.set(|status| status.skipped += gap.offsets.end - gap.offsets.start);
                self.copiers[gap.partition as usize].push_skip(gap.offsets.start, gap.offsets.end)
            }
            Err(cause) => Err(Stopped::Ended(cause.to_string())),
        }
    }

    /// Retention has deleted records that were not copied.
    fn skip_deleted(&mut self, partition: u32, from: u64, earliest: u64) -> Result<(), Stopped> {
        let copier = &mut self.copiers[partition as usize];
        if self.uncopied == Uncopied::Stop {
            return Err(Stopped::Deleted { stream: copier.name(), from, earliest });
        }
        self.shared.set(|status| status.skipped += earliest - from);
        copier.push_skip(from, earliest)
    }

    /// Lets each copier send and take confirmations. Returns true if anything has moved.
    fn step(&mut self, limit: Duration) -> Result<bool, Stopped> {
        let replication = self.replication.as_ref().expect("taken at the end only");
        let ended = |cause: &dyn std::fmt::Display| Stopped::Ended(cause.to_string());
        let mut has_moved = false;
        for (partition, copier) in self.copiers.iter_mut().enumerate() {
            // Servers that do not answer take seconds for each partition.
            if self.shared.ends() && self.ends_at.is_none_or(|until| Instant::now() >= until) {
                break;
            }
            let partition = partition as u32;
            let mut record = |position: &Position| {
                replication.record(partition, &position.encode()).map_err(|cause| cause.to_string())
            };
            let moved = copier.step(limit, &mut record)? | copier.take_passed();
            if let Some(next) = copier.ahead()
                && replication.durable(partition).is_none_or(|durable| durable < next)
            {
                // The journal does not have what the stream has, and never will.
                return Err(Stopped::Diverged { stream: copier.name(), next });
            }
            for skipped in copier.take_skipped() {
                replication.skip(partition, skipped).map_err(|cause| ended(&cause))?;
            }
            if moved {
                replication.advance(partition, copier.confirmed()).map_err(|cause| ended(&cause))?;
            }
            has_moved |= moved;
        }
        let (copiers, level, replay) = (&self.copiers, &mut self.level, &self.replay);
        level.resize_with(copiers.len(), Instant::now);
        self.shared.set(|status| {
            let error = |copier: &Outward<R>| Some(format!("{}: {}", copier.name(), copier.error()?));
            status.error = copiers.iter().find_map(error);
            status.partitions.resize_with(copiers.len(), PartitionStatus::default);
            for (number, (copier, at)) in copiers.iter().zip(&mut status.partitions).enumerate() {
                let partition = number as u32;
                let durable = replication.durable(partition).unwrap_or(0);
                // After a crash offsets without records stand in front of the next one.
                let has_all = copier.is_idle() && replay.position(partition).unwrap_or(0) >= durable;
                let replicated = if has_all { durable.max(copier.confirmed()) } else { copier.confirmed() };
                if replicated >= durable {
                    level[number] = Instant::now();
                }
                *at = PartitionStatus { partition, replicated, durable };
            }
        });
        Ok(has_moved)
    }

    /// Writes the positions to the journal, if they have moved.
    fn record(&mut self) -> Result<(), Stopped> {
        self.recorded = Instant::now();
        self.told.resize(self.copiers.len(), None);
        let replication = self.replication.as_ref().expect("taken at the end only");
        for (partition, (copier, told)) in self.copiers.iter().zip(&mut self.told).enumerate() {
            let position = (copier.confirmed(), copier.position().encode());
            if told.as_ref() == Some(&position) {
                continue;
            }
            let written = replication.record(partition as u32, &position.1);
            written.map_err(|cause| Stopped::Ended(cause.to_string()))?;
            *told = Some(position);
        }
        Ok(())
    }

    /// Tells the topic's metrics and the handle how far the copies are behind.
    fn report(&self) {
        let is_read = (0..self.copiers.len() as u32).all(|partition| {
            self.replay.position(partition).unwrap_or(0) >= self.replication().durable(partition).unwrap_or(0)
        });
        let bytes = self.copiers.iter().map(|copier| copier.pending_bytes() as u64).sum();
        let mut report = BridgeReport::default();
        report.lag_bytes = is_read.then_some(bytes);
        self.shared.set(|status| {
            let behind = status.partitions.iter().zip(&self.level).filter(|(at, _)| at.replicated < at.durable);
            report.lag_time = behind.map(|(_, level)| level.elapsed()).max();
            (status.lag_bytes, status.lag_time) = (report.lag_bytes, report.lag_time);
            report.error = status.error.clone();
        });
        self.replication().report(report);
    }
}
