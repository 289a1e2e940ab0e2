//! What a topic has of the journal: its number in the catalogue, and where its partitions go on.

use super::ring_source::{RingSource, reservation};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::event::codec::Persistence;
use crate::log::catalog::{Recorded, what};
use crate::log::committer::{Journaling, STAGE};
use crate::log::forget::forget;
use crate::log::progress::{Acks, Positions};
use crate::topic::error::TopicError;
use crate::topic::partition::Partition;
use slipring_journal::{FrameBuilder, Journal, PartitionId};
use slipring_ring::{BuildError, Stage, Start};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub(crate) struct Durable<E> {
    pub(crate) name: String,
    pub(crate) recorded: Mutex<Recorded>,
    pub(crate) persistence: Persistence<E>,
    pub(crate) journaling: Arc<Journaling>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) capacity: u64,
}

fn refused(name: &str, cause: String) -> TopicError {
    TopicError::Journal { name: name.to_owned(), cause }
}

impl<E> Durable<E> {
    /// How many events of a partition there are from `next` on, where `published` is the next offset: what is written, and
    /// what is not yet. The offsets that a crash left out stand below what is written.
    pub(crate) fn unread(&self, partition: u32, next: u64, published: u64) -> u64 {
        let id = self.id(partition);
        let written = self.journal().extent(id).map_or(next, |extent| extent.end.max(next));
        self.journal().records_in(id, next..written) + published.saturating_sub(written)
    }

    /// Finds the topic in the catalogue, or writes it down there.
    pub(crate) fn open(
        journaling: &Arc<Journaling>,
        id: TopicId,
        name: &str,
        persistence: Persistence<E>,
        (partitions, capacity, max_message): (usize, usize, usize),
    ) -> Result<Self, TopicError> {
        let asked = Recorded {
            number: 0,
            partitions: partitions as u32,
            max_message: max_message as u64,
            layout: (persistence.layout)(),
            is_old: false,
        };
        let largest = persistence.size.unwrap_or(max_message);
        let limit = journaling.journal.frame_limit() / 2;
        if largest > limit {
            return Err(refused(name, format!("events of {largest} bytes are larger than segments allow ({limit})")));
        }
        let mut catalogue = journaling.catalogue();
        let known = catalogue.get(what::CATALOGUE, name.as_bytes()).and_then(Recorded::decode);
        let recorded = match known {
            Some(there)
                if !there.has_layout(&asked, persistence.size)
                    || there.max_message > asked.max_message
                    || there.partitions < asked.partitions =>
            {
                let (there, asked) = (there.to_string(), asked.to_string());
                return Err(TopicError::Recorded { name: name.to_owned(), there, asked });
            }
            // Written down again with the first partitions.
            Some(there) => {
                drop(catalogue);
                Self::named(there, asked)
            }
            None => {
                let number = Recorded::next_number(&catalogue);
                let after =
                    number.checked_add(1).ok_or_else(|| refused(name, "no number is left for it".to_owned()))?;
                let recorded = Recorded { number, ..asked };
                let mut frame = FrameBuilder::new();
                frame.put(what::CATALOGUE, b"", &after.to_le_bytes());
                frame.put(what::CATALOGUE, name.as_bytes(), &recorded.encode());
                catalogue.take(&mut frame);
                // The journal's thread, which is waited for, runs the user's code.
                drop(catalogue);
                journaling.commit(frame).map_err(|cause| refused(name, cause))?;
                recorded
            }
        };
        Ok(Self {
            name: name.to_owned(),
            recorded: Mutex::new(recorded),
            persistence,
            journaling: Arc::clone(journaling),
            acks: Acks::new(id, Arc::clone(&journaling.bell)),
            capacity: capacity as u64,
        })
    }

    /// What was recorded, by the name that its layout has now.
    fn named(there: Recorded, asked: Recorded) -> Recorded {
        Recorded { layout: asked.layout, is_old: false, ..there }
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journaling.journal
    }

    pub(crate) fn id(&self, partition: u32) -> PartitionId {
        PartitionId { topic: self.recorded().number, partition }
    }

    fn reserves_at_once(&self) -> u64 {
        reservation(self.capacity, self.journaling.syncs)
    }

    /// How many partitions the journal knows.
    pub(crate) fn partitions(&self) -> usize {
        self.recorded().partitions as usize
    }

    /// Reserves the first offsets of partitions that are about to be made, and writes down that there are so many. Where
    /// each begins.
    pub(crate) fn begin(&self, partitions: std::ops::Range<u32>) -> Result<Vec<u64>, TopicError> {
        let mut frame = FrameBuilder::new();
        let mut starts = Vec::new();
        for partition in partitions.clone() {
            let id = self.id(partition);
            let extent = self.journal().extent(id).unwrap_or_default();
            // What was reserved before a crash may have been issued.
            let next = extent.end.max(extent.reserved);
            let reserved = next.saturating_add(self.reserves_at_once());
            frame.extent(id, slipring_journal::Extent { reserved, ..extent });
            starts.push(next);
        }
        let recorded = {
            let mut recorded = self.recorded();
            recorded.partitions = recorded.partitions.max(partitions.end);
            recorded.clone()
        };
        frame.put(what::CATALOGUE, self.name.as_bytes(), &recorded.encode());
        self.journaling.catalogue().take(&mut frame);
        self.journaling.commit(frame).map_err(|cause| refused(&self.name, cause))?;
        Ok(starts)
    }

    /// Forgets the topic and all its records.
    pub(crate) fn forget(&self) -> Result<(), TopicError> {
        let number = self.recorded().number;
        // Nothing more is written of it from here on.
        self.journaling.ledgers.forget_topic(number);
        self.journaling.bookmarks.retire(number);
        self.journaling.standings.forget_topic(number);
        self.journaling.forget(number, &self.name).map_err(|cause| refused(&self.name, cause))?;
        // The same of what was there at the opening.
        let mut state = self.journaling.catalogue();
        let frames = forget(&state, &[Some(number)].into(), Some(&self.name), usize::MAX);
        frames.into_iter().for_each(|mut frame| state.take(&mut frame));
        Ok(())
    }
}

impl<E: Send + Sync + 'static> Durable<E> {
    /// Joins the journaler's gate to a ring that nobody publishes into yet.
    pub(crate) fn join<K: Producers>(
        &self,
        partition: &Arc<Partition<E, K>>,
        next: u64,
    ) -> Result<RingSource<E, K>, BuildError> {
        let stage = Stage::new(STAGE).journaler().start(Start::Earliest);
        let consumer = Some(partition.ring.join(stage)?);
        let positions = Arc::new(Positions::at(next));
        let reserving = next.saturating_add(self.reserves_at_once());
        positions.reserved.store(reserving, std::sync::atomic::Ordering::Release);
        Ok(RingSource {
            id: self.id(partition.index),
            partition: Arc::clone(partition),
            consumer,
            persistence: self.persistence,
            positions,
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

    /// All have joined: hands the partition to the journaler.
    pub(crate) fn take<K: Producers>(&self, source: RingSource<E, K>) {
        self.acks.add(Arc::clone(&source.positions));
        self.journaling.add(Box::new(source));
    }

    /// Waits until all that was published is written, or until `deadline`.
    pub(crate) fn drained<K: Producers>(&self, partitions: &[Arc<Partition<E, K>>], deadline: Instant) {
        let is_drained = |partition: &Arc<Partition<E, K>>| {
            !partition.ring.positions().stages.iter().any(|stage| stage.name == STAGE && stage.lag > 0)
        };
        self.acks.bell.wait(Some(deadline), || {
            (self.acks.bell.over().is_some() || partitions.iter().all(is_drained)).then_some(())
        });
    }
}
