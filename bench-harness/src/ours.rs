//! Our rings and topics, as `run` and `peers` open them and read them.

use std::time::Duration;

use slipring::group::{GroupBatch, Member};
use slipring::producer::Producers;
use slipring::topic::Overflow;
use slipring::{Engine, Subscriber, Topic, TopicBuilder, Wait};
use slipring_ring::{Builder, Consumer, Multi, Producer, Ring, Single, Stage, Worker};

/// What the harness needs for each kind of producers, single and multi, beyond the library's own trait.
pub trait Kind: Producers {
    /// True if any number of producers may publish.
    const MANY: bool;

    /// The builder of a ring.
    fn ring<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + Send + 'static) -> Builder<E, Self>;

    /// Returns `count` producers: `producer` and clones of it; on a ring with a single producer, only `producer`.
    fn clones<E>(producer: Producer<E, Self>, count: usize) -> Vec<Producer<E, Self>>;

    /// The builder of a topic.
    fn topic<E: Send + Sync + 'static>(topic: TopicBuilder<E>) -> TopicBuilder<E, Self>;

    /// The events of a ring's batch as slices; `None` with many producers, where slots between the events may hold
    /// none.
    fn of_ring<'b, E>(batch: &'b mut slipring_ring::Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])>;

    /// The events of a topic's batch as slices; `None` with many producers, where slots between the events may hold
    /// none.
    fn of_topic<'b, E>(batch: &'b mut slipring::subscriber::Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])>;

    /// The events of a group's batch as slices; `None` with many producers, where slots between the events may hold
    /// none.
    fn of_group<'b, E: Send + Sync + 'static>(batch: &'b GroupBatch<'_, E, Self>) -> Option<(&'b [E], &'b [E])>;
}

impl Kind for Single {
    const MANY: bool = false;

    fn ring<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + Send + 'static) -> Builder<E, Self> {
        Builder::single(capacity, make)
    }

    fn clones<E>(producer: Producer<E, Self>, _count: usize) -> Vec<Producer<E, Self>> {
        vec![producer]
    }

    fn topic<E: Send + Sync + 'static>(topic: TopicBuilder<E>) -> TopicBuilder<E, Self> {
        topic.single_producer()
    }

    #[inline(always)]
    fn of_ring<'b, E>(batch: &'b mut slipring_ring::Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        Some(batch.take_slices())
    }

    #[inline(always)]
    fn of_topic<'b, E>(batch: &'b mut slipring::subscriber::Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        Some(batch.take_slices())
    }

    #[inline(always)]
    fn of_group<'b, E: Send + Sync + 'static>(batch: &'b GroupBatch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        Some(batch.slices())
    }
}

impl Kind for Multi {
    const MANY: bool = true;

    fn ring<E: Send + Sync + 'static>(capacity: usize, make: impl FnMut() -> E + Send + 'static) -> Builder<E, Self> {
        Builder::multi(capacity, make)
    }

    fn clones<E>(producer: Producer<E, Self>, count: usize) -> Vec<Producer<E, Self>> {
        let mut all: Vec<_> = (1..count).map(|_| producer.clone()).collect();
        all.push(producer);
        all
    }

    fn topic<E: Send + Sync + 'static>(topic: TopicBuilder<E>) -> TopicBuilder<E, Self> {
        topic
    }

    fn of_ring<'b, E>(_: &'b mut slipring_ring::Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        None
    }

    fn of_topic<'b, E>(_: &'b mut slipring::subscriber::Batch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        None
    }

    fn of_group<'b, E: Send + Sync + 'static>(_: &'b GroupBatch<'_, E, Self>) -> Option<(&'b [E], &'b [E])> {
        None
    }
}

/// A reader of events `E`, with what it must not outlive: its ring, or the engine of its topic.
pub struct Reader<R, O> {
    /// The reader.
    pub reads: R,
    /// Its ring or engine, and perhaps a producer that never publishes.
    pub owner: O,
}

/// Reads batches.
pub trait Drain<E>: Send + 'static {
    /// Waits for a batch and gives each event to `see`: as slices if `SLICES` and the batch has them, otherwise one by
    /// one. A consumer's batch has at most `most` events, a worker's one, any other as many as its builder said.
    /// Returns their number; `None` after an error, or once everything was read and the producers are gone.
    fn drain<const SLICES: bool>(&mut self, most: usize, see: impl FnMut(&E)) -> Option<usize>;
}

/// Gives the events of a batch to `see`: as slices if `SLICES` and `$slices` is not `None`, otherwise by `$one_by_one`.
macro_rules! see_all {
    ($see:ident, $slices:expr, $one_by_one:expr) => {
        match if SLICES { $slices } else { None } {
            Some((head, tail)) => {
                head.iter().for_each(&mut $see);
                tail.iter().for_each(&mut $see);
            }
            None => $one_by_one,
        }
    };
}

impl<E: Send + Sync + 'static, K: Kind, O: Send + 'static> Drain<E> for Reader<Consumer<E, K>, O> {
    #[inline(always)]
    fn drain<const SLICES: bool>(&mut self, most: usize, mut see: impl FnMut(&E)) -> Option<usize> {
        let mut batch = self.reads.poll_wait(most).ok()?;
        let count = batch.len();
        see_all!(see, K::of_ring(&mut batch), batch.for_each(|_, event| see(event)));
        Some(count)
    }
}

impl<E: Send + Sync + 'static, K: Kind, O: Send + 'static> Drain<E> for Reader<Worker<E, K>, O> {
    #[inline(always)]
    fn drain<const SLICES: bool>(&mut self, _most: usize, mut see: impl FnMut(&E)) -> Option<usize> {
        // One at a time: a worker that takes many keeps them from the others.
        let taken = self.reads.take_wait(1).ok()?;
        taken.for_each(|_, event| see(event));
        Some(1)
    }
}

impl<E: Send + Sync + 'static, K: Kind, O: Send + 'static> Drain<E> for Reader<Subscriber<E, K>, O> {
    #[inline(always)]
    fn drain<const SLICES: bool>(&mut self, _most: usize, mut see: impl FnMut(&E)) -> Option<usize> {
        // The longest limit waits without a deadline, and so without reading a clock.
        let mut batch = self.reads.poll(Duration::MAX).ok()??;
        let count = batch.len();
        see_all!(see, K::of_topic(&mut batch), (&mut batch).into_iter().for_each(|(event, _)| see(event)));
        Some(count)
    }
}

impl<E: Send + Sync + 'static, K: Kind, O: Send + 'static> Drain<E> for Reader<Member<E, K>, O> {
    #[inline(always)]
    fn drain<const SLICES: bool>(&mut self, _most: usize, mut see: impl FnMut(&E)) -> Option<usize> {
        let batch = self.reads.poll(Duration::MAX).ok()??;
        let count = batch.len();
        see_all!(see, K::of_group(&batch), batch.iter().for_each(|(event, _)| see(event)));
        batch.commit().ok()?;
        Some(count)
    }
}

/// The words for a ring that could not be built.
pub fn ring_refused(cause: impl std::fmt::Display) -> String {
    format!("the ring was refused: {cause}")
}

/// The words for an engine or a topic that could not be made.
pub fn engine_refused(cause: impl std::fmt::Display) -> String {
    format!("the engine refused: {cause}")
}

/// A consumer with its ring.
pub type RingReader<E, K> = Reader<Consumer<E, K>, Ring<E, K>>;

/// A producer, and the consumers of a graph in the order of its stages.
pub type Graph<E, K> = (Producer<E, K>, Vec<RingReader<E, K>>);

/// Builds a ring with these stages, each with the stages that it reads after.
///
/// # Errors
///
/// What was refused, in words.
pub fn open_graph<E: Send + Sync + 'static, K: Kind>(
    mut builder: Builder<E, K>,
    stages: &[(String, &[&str])],
    wait: &Wait,
) -> Result<Graph<E, K>, String> {
    for (name, after) in stages {
        builder.poll(Stage::new(name).after(after.iter().copied()).wait(wait.clone()));
    }
    let (producer, ring) = builder.build().map_err(ring_refused)?;
    let reader = |(name, _): &(String, &[&str])| {
        Ok(Reader { reads: ring.consumer(name).map_err(ring_refused)?, owner: ring.clone() })
    };
    Ok((producer, stages.iter().map(reader).collect::<Result<_, String>>()?))
}

/// The two ends of a ring with one consumer.
pub type Pair<E, K> = (Producer<E, K>, RingReader<E, K>);

/// Builds a ring with one consumer.
///
/// # Errors
///
/// What was refused, in words.
pub fn open_ring<E: Send + Sync + 'static, K: Kind>(builder: Builder<E, K>, wait: &Wait) -> Result<Pair<E, K>, String> {
    let (producer, mut readers) = open_graph(builder, &[("reader".to_owned(), &[])], wait)?;
    let reader = readers.pop().ok_or_else(|| ring_refused("it has no reader"))?;
    Ok((producer, reader))
}

/// Creates a topic of one partition in an engine of its own, with this policy for a full partition.
///
/// # Errors
///
/// What was refused, in words.
pub fn open_topic<E: Default + Send + Sync + 'static, K: Kind>(
    capacity: usize,
    overflow: Overflow,
) -> Result<(Engine, Topic<E, K>), String> {
    let engine = Engine::builder().build().map_err(engine_refused)?;
    let topic =
        K::topic(engine.topic("bench").capacity(capacity).overflow(overflow)).create().map_err(engine_refused)?;
    Ok((engine, topic))
}
