//! A durable topic's state in the journal: its entry in the catalogue, and the first free offset of each partition.

use super::ring_source::{RingSource, reservation};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::event::codec::{Persistence, Unreadable};
use crate::event::upgrade::Upgrades;
use crate::log::bridge::{Attachment, BridgeReport};
use crate::log::catalog::{CatalogEntry, state_kind};
use crate::log::committer::{Committer, STAGE};
use crate::log::forget::forget;
use crate::log::layouts;
use crate::log::progress::{Acks, Progress};
use crate::topic::error::TopicError;
use crate::topic::metrics::{PartitionMetrics, ReplicationMetrics};
use crate::topic::older_records::{OlderRecords, Opening};
use crate::topic::partition::Partition;
use slipring_journal::{FrameBuilder, Journal, PartitionId, WriteError};
use slipring_ring::{BuildError, Stage, Start};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// The outcome of writing the frames that reserve offsets. Unset until they are written or refused.
type Reservation = Arc<OnceLock<Result<(), WriteError>>>;

pub(crate) struct DurableTopic<E> {
    pub(crate) name: String,
    pub(crate) recorded: Mutex<CatalogEntry>,
    pub(crate) persistence: Persistence<E>,
    /// The records that have a layout from before. They do not change while the topic is open.
    pub(crate) older: Arc<OlderRecords>,
    /// True until the first partitions are begun, if this opening has changed the layout.
    is_upgraded: AtomicBool,
    pub(crate) committer: Arc<Committer>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) capacity: u64,
    /// The reservation of offsets that was written, without waiting for it, when a recorded topic was opened again.
    /// `None` once it is known to be durable, and for a new topic, which waits for its reservation. A producer is
    /// created only after [`wait_reserved`](Self::wait_reserved) has set this to `None`.
    reserved: Mutex<Option<Reservation>>,
    /// True once the deletion of the topic has begun. The journal may still have a part of it.
    forgotten: AtomicBool,
    /// True if this opening added the topic to the journal.
    is_new: bool,
}

fn refused(name: &str, cause: String) -> TopicError {
    TopicError::Journal { name: name.to_owned(), cause }
}

impl<E> DurableTopic<E> {
    /// The number of a partition's events from offset `next` up to `published`, the next offset to be published.
    /// Offsets that a crash left unused have no event and do not count; all of them are below the end of the written
    /// records.
    pub(crate) fn unread(&self, partition: u32, next: u64, published: u64) -> u64 {
        let id = self.id(partition);
        let written = self.journal().extent(id).map_or(next, |extent| extent.end.max(next));
        self.journal().records_in(id, next..written) + published.saturating_sub(written)
    }

    /// The metrics of the topic's bridge; `None` if it never had one.
    pub(crate) fn replication(&self, partitions: &[PartitionMetrics]) -> Option<ReplicationMetrics> {
        let Attachment { bridge, ended, report, .. } = self.acks.bridge()?;
        let progress = self.acks.all();
        let lag = progress.iter().zip(partitions).map(|(progress, at)| {
            // Records that retention or an earlier process has left behind do not count.
            let id = self.id(at.partition);
            let recorded = self.committer.bridges.get(id, &bridge).map_or(0, |position| position.offset);
            self.unread(at.partition, progress.replicated.load(Ordering::Acquire).max(recorded), at.published)
        });
        let (lag, BridgeReport { lag_bytes, lag_time, error }) = (lag.sum(), report);
        Some(ReplicationMetrics { bridge, ended, error, lag, lag_bytes, lag_time })
    }

    /// Opens the topic of this name in the journal's catalogue, or adds it to the catalogue.
    pub(crate) fn open(
        committer: &Arc<Committer>,
        id: TopicId,
        name: &str,
        (persistence, layout, upgrades): (Persistence<E>, String, &Upgrades),
        (partitions, capacity, max_message): (usize, usize, usize),
    ) -> Result<Self, TopicError> {
        let asked = CatalogEntry {
            number: 0,
            partitions: partitions as u32,
            max_message: max_message as u64,
            layout,
            is_old: false,
        };
        let largest = persistence.size.unwrap_or(max_message);
        let limit = committer.journal.frame_limit() / 2;
        if largest > limit {
            return Err(refused(name, format!("events of {largest} bytes are larger than segments allow ({limit})")));
        }
        let mut recovered = committer.recovered_state();
        let known = recovered.get(state_kind::TOPICS, name.as_bytes()).and_then(CatalogEntry::decode);
        let is_new = known.is_none();
        let mut admitted = Default::default();
        let recorded = match known {
            // [`begin`](Self::begin) writes the renewed entry, with the older layouts, together with the first partitions.
            Some(there) => {
                let older = layouts::of(&recovered, there.number);
                drop(recovered);
                let older = older.ok_or_else(|| refused(name, "its older layouts cannot be read".to_owned()))?;
                let (size, journal) = (persistence.size, &committer.journal);
                admitted = Opening { name, there: &there, asked: &asked, size, upgrades, journal }.admit(older)?;
                Self::renewed(there, asked)
            }
            None => {
                let number = CatalogEntry::next_number(&recovered);
                let after =
                    number.checked_add(1).ok_or_else(|| refused(name, "no number is left for it".to_owned()))?;
                let recorded = CatalogEntry { number, ..asked };
                let mut frame = FrameBuilder::new();
                frame.put(state_kind::TOPICS, b"", &after.to_le_bytes());
                frame.put(state_kind::TOPICS, name.as_bytes(), &recorded.encode());
                recovered.take(&mut frame);
                // The commit waits for the committer's thread, which runs user code, so no lock may be held.
                drop(recovered);
                committer.commit([frame]).map_err(|cause| refused(name, cause))?;
                recorded
            }
        };
        Ok(Self {
            name: name.to_owned(),
            recorded: Mutex::new(recorded),
            persistence,
            older: Arc::new(admitted.0),
            is_upgraded: AtomicBool::new(admitted.1),
            committer: Arc::clone(committer),
            acks: Acks::new(id, Arc::clone(&committer.notifier)),
            capacity: capacity as u64,
            reserved: Mutex::default(),
            forgotten: AtomicBool::new(false),
            is_new,
        })
    }

    /// The recorded entry with the present name of its layout, and with the largest message that `asked` allows. The
    /// caller has checked that this message size is no smaller than the recorded one: a program that allows less could
    /// not read the recorded messages.
    fn renewed(there: CatalogEntry, asked: CatalogEntry) -> CatalogEntry {
        CatalogEntry { layout: asked.layout, max_message: asked.max_message, is_old: false, ..there }
    }

    pub(super) fn recorded(&self) -> std::sync::MutexGuard<'_, CatalogEntry> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True once the deletion of the topic has begun.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Acquire)
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.committer.journal
    }

    pub(crate) fn id(&self, partition: u32) -> PartitionId {
        PartitionId { topic: self.recorded().number, partition }
    }

    /// Turns `event` into the event of the record at this offset, whatever layout the record has.
    pub(crate) fn read(&self, partition: u32, offset: u64, event: &mut E, bytes: &[u8]) -> Result<(), Unreadable> {
        if offset >= self.older.present_from(partition) {
            return self.persistence.read(event, bytes);
        }
        self.persistence.read(event, &self.older.upgraded(partition, offset, bytes)?)
    }

    fn reserves_at_once(&self) -> u64 {
        reservation(self.capacity, self.committer.syncs)
    }

    /// How many partitions the journal has of this topic.
    pub(crate) fn partitions(&self) -> usize {
        self.recorded().partitions as usize
    }

    /// Adds the partitions with these numbers to the journal: reserves their first offsets, and records the topic's new
    /// number of partitions. Returns the first offset of each new partition. The number of partitions is in the last
    /// frame, so a crash before that frame leaves only unused reservations.
    pub(crate) fn begin(&self, partitions: std::ops::Range<u32>) -> Result<Vec<u64>, TopicError> {
        let limit = self.journal().frame_limit() / 2;
        let (mut frames, mut frame) = (Vec::new(), FrameBuilder::new());
        let (mut starts, mut all_known) = (Vec::new(), !self.is_new);
        for partition in partitions.clone() {
            if frame.len() > limit {
                frames.push(std::mem::take(&mut frame));
            }
            let id = self.id(partition);
            let known = self.journal().extent(id);
            // `open` commits a new topic's catalogue entry before this function reserves offsets. After a crash in
            // between, a partition has no extent: then the frames are committed before this returns, as for a new
            // topic.
            all_known &= known.is_some();
            let extent = known.unwrap_or_default();
            // Offsets below the reservation may have been issued before a crash, so they are never issued again.
            let next = extent.end.max(extent.reserved);
            let reserved = next.saturating_add(self.reserves_at_once());
            frame.extent(id, slipring_journal::Extent { reserved, ..extent });
            starts.push(next);
        }
        let recorded = {
            let recorded = self.recorded();
            CatalogEntry { partitions: recorded.partitions.max(partitions.end), ..recorded.clone() }
        };
        let is_upgraded = self.is_upgraded.load(Ordering::Acquire);
        let record = |frame: &mut FrameBuilder| {
            frame.put(state_kind::TOPICS, self.name.as_bytes(), &recorded.encode());
            if is_upgraded {
                layouts::put(self.older.layouts(), recorded.number, frame);
            }
        };
        record(&mut frame);
        frames.push(frame);
        // A new layout is waited for: see the invariant of `log::layouts`.
        if !is_upgraded && all_known && partitions.start == 0 && partitions.end == self.recorded().partitions {
            // A recorded topic is opened again: the frames only replace its entry and its reservations, so the journal
            // has room for them, and only a producer relies on them. So nothing waits for them here. `wait_reserved`
            // waits before the first producer is created, and one sync can serve many topics.
            if let Some(cause) = self.acks.notifier.end_cause() {
                return Err(refused(&self.name, cause.to_owned()));
            }
            *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.committer.append_soon(frames));
        } else {
            self.committer.commit(frames).map_err(|cause| refused(&self.name, cause))?;
        }
        // The engine's copy of the catalogue is updated only after the commit, so a refused commit leaves the number of
        // partitions as it was.
        let mut counted = FrameBuilder::new();
        record(&mut counted);
        self.committer.recovered_state().take(&mut counted);
        self.is_upgraded.store(false, Ordering::Release);
        *self.recorded() = recorded;
        Ok(starts)
    }

    /// Waits until the offsets that were reserved at the topic's opening are reserved durably. Called before a producer
    /// is created.
    ///
    /// # Errors
    /// The journal refused the reservation, has failed or has ended, or the calling thread is one of the journal's own.
    pub(crate) fn wait_reserved(&self) -> Result<(), String> {
        let reserved = || self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reservation) = reserved().clone() else { return Ok(()) };
        // The committer's thread executes its commands in order, so when this empty commit is durable, the reservation
        // is durable too, or was refused.
        self.committer.commit([])?;
        if let Some(Err(refused)) = reservation.get() {
            return Err(refused.to_string());
        }
        *reserved() = None;
        Ok(())
    }

    /// The names, as consumers (`transform:NAME`), of the transforms that read this topic and are open or running.
    pub(crate) fn transforms(&self) -> Vec<String> {
        self.committer.transform_offsets.readers(self.recorded().number)
    }

    /// Undoes the opening of a topic whose partitions could not be created: deletes the topic from the journal if this
    /// opening added it.
    pub(crate) fn undo_open(&self) {
        if self.is_new {
            // An error is ignored, because it means that the journal has ended.
            let _ = self.forget();
        }
    }

    /// Deletes the topic and all its records from the journal. If the journal refuses, which it does only when it ends,
    /// the engine has lost the topic all the same.
    pub(crate) fn forget(&self) -> Result<(), String> {
        let number = self.recorded().number;
        self.forgotten.store(true, Ordering::Release);
        // First the topic's state in memory, so that the committer writes no more of it.
        self.committer.producer_states.forget_topic(number);
        self.committer.committed_offsets.retire(number);
        self.committer.transform_offsets.forget_topic(number);
        self.acks.end_bridge(None, "the topic was deleted");
        self.committer.bridges.forget_topic(number);
        self.committer.forget(number, &self.name)?;
        // The engine's copy of the recovered state must lose the topic too.
        let mut state = self.committer.recovered_state();
        let frames = forget(&state, &[Some(number)].into(), Some(&self.name), usize::MAX);
        frames.into_iter().for_each(|mut frame| state.take(&mut frame));
        Ok(())
    }
}

impl<E: Send + Sync + 'static> DurableTopic<E> {
    /// Joins the committer's stage to a new ring, into which no producer publishes yet, and returns the ring as a
    /// source of the committer.
    pub(crate) fn join<K: Producers>(
        &self,
        partition: &Arc<Partition<E, K>>,
        next: u64,
    ) -> Result<RingSource<E, K>, BuildError> {
        let stage = Stage::new(STAGE).journaler().start(Start::Earliest);
        let consumer = Some(partition.ring.join(stage)?);
        partition.ring.fail_in_forks(STAGE, &self.committer.notifier.cause_in_forks());
        let progress = Arc::new(Progress::at(next));
        let reserving = next.saturating_add(self.reserves_at_once());
        progress.reserved.store(reserving, Ordering::Release);
        Ok(RingSource {
            id: self.id(partition.index),
            partition: Arc::clone(partition),
            consumer,
            persistence: self.persistence,
            progress,
            reserving,
            reserves: None,
            reserves_at_once: self.reserves_at_once(),
            capacity: self.capacity,
            drained: None,
            noted: next,
            blocked: false,
            failed: None,
            ahead: VecDeque::new(),
        })
    }

    /// Gives the partition to the committer's thread. Called after all readers have joined the partition.
    pub(crate) fn take<K: Producers>(&self, source: RingSource<E, K>) {
        self.acks.add(Arc::clone(&source.progress));
        self.committer.add(Box::new(source));
    }

    /// Waits until all published events of these partitions are written, the journal has ended, or `deadline` has
    /// passed.
    pub(crate) fn drained<K: Producers>(&self, partitions: &[Arc<Partition<E, K>>], deadline: Instant) {
        let is_drained = |partition: &Arc<Partition<E, K>>| {
            !partition.ring.positions().stages.iter().any(|stage| stage.name == STAGE && stage.lag > 0)
        };
        self.acks.notifier.wait(Some(deadline), || {
            (self.acks.notifier.end_cause().is_some() || partitions.iter().all(is_drained)).then_some(())
        });
    }
}
