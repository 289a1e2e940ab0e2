//! Room in the partitions of a topic, for which a selector waits with a producer.

use crate::base::ids::next_reader;
use crate::base::kind::Producers;
use crate::produce::Producer;
use crate::produce::append::appender_of;
use slipring_ring::Waiter;
use std::sync::atomic::Ordering;

/// The room for which a selector waits with one producer.
#[derive(Clone, Copy)]
pub(crate) struct RoomRequest {
    /// A [number](next_reader) of this request, which is replaced with it: what a selector knows of the last request
    /// does not hold for another one.
    number: usize,
    /// Count of events.
    len: usize,
    /// `None`: each partition of the topic.
    partition: Option<u32>,
}

impl RoomRequest {
    pub(crate) fn new(len: usize, partition: Option<u32>) -> Self {
        Self { number: next_reader(), len, partition }
    }

    /// As this request, for another producer.
    pub(crate) fn again(self) -> Self {
        Self { number: next_reader(), ..self }
    }
}

impl<E, K: Producers> Producer<E, K> {
    /// Sets the room for which a [`Selector`](crate::subscriber::Selector) waits when it is given this producer: for
    /// `len` events in `partition`, or with `None` in each partition of the topic, so that there is room wherever the
    /// events go. 1 and `None` unless set.
    ///
    /// The selector selects a producer that has such room, or whose publish would return an error at once because the
    /// topic has ended, `len` events never fit, or the topic has no such partition. The room is not reserved: another
    /// producer may take it, so publish with [`try_publish`](Self::try_publish) where the topic has several. Rate
    /// limits and ids of messages are not considered, and a wait for room evicts no
    /// [slow](crate::topic::Slow) consumer, as a publish does. A wait costs producers and consumers nothing.
    ///
    /// A producer is selected as long as it has room. While a program has nothing to publish, it
    /// [removes](crate::subscriber::Selector::remove) the producer from the selector.
    ///
    /// ```
    /// use slipring::{Engine, subscriber::Selector};
    /// use std::time::Duration;
    ///
    /// let engine = Engine::builder().build()?;
    /// let orders = engine.topic::<u64>("orders").create()?;
    /// let fills = engine.topic::<u64>("fills").capacity(2).single_producer().create()?;
    /// let mut slow = fills.subscribe("slow").poll()?;
    /// let mut tape = orders.subscribe("matcher").poll()?;
    /// let mut producer = fills.producer().create()?;
    /// producer.publish_batch(2, |index, fill| *fill = index as u64)?;
    ///
    /// let mut outbox = vec![7];                                       // what is still to be published
    /// let mut selector = Selector::round_robin();
    /// let found = selector.select(&mut [&mut tape, &mut producer], Duration::ZERO)?;
    /// assert_eq!(found, None, "no order, and no room");
    /// (&mut slow.poll(Duration::ZERO)?.unwrap()).into_iter().for_each(drop);
    /// let found = selector.select(&mut [&mut tape, &mut producer], Duration::MAX)?;
    /// assert_eq!(found, Some(1));
    /// outbox.pop().map(|next| producer.try_publish(|fill| *fill = next)).transpose()?;
    /// if outbox.is_empty() {
    ///     selector.remove(&producer);
    /// }
    /// assert_eq!(selector.select(&mut [&mut tape, &mut producer], Duration::ZERO)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn select_room(&mut self, len: usize, partition: Option<u32>) {
        self.room = RoomRequest::new(len, partition);
    }

    /// The [number](next_reader) under which a selector knows this producer.
    pub(crate) fn room_number(&self) -> usize {
        self.room.number
    }

    /// True if there is the requested room, or a publish would return an error at once.
    pub(crate) fn has_room(&mut self) -> bool {
        let len = self.room.len;
        !self.lacks_room(|ring| matches!(ring.has_room(len), Ok(false)))
    }

    /// Registers `waiter` to be woken under `token` when [`has_room`](Self::has_room) may have become true, and returns
    /// true. False if it is true by now.
    pub(crate) fn arm_for_room(&mut self, waiter: &Waiter, token: usize) -> bool {
        let len = self.room.len;
        // A topic ends in all partitions, so the first one without room has the news of the end as well.
        self.lacks_room(|ring| matches!(ring.arm_for_room(len, waiter, token), Ok(true)))
    }

    /// True if `lacks` is true for the ring of a partition that the request names.
    fn lacks_room(&mut self, mut lacks: impl FnMut(&mut slipring_ring::Producer<E, K>) -> bool) -> bool {
        let partitions = self.topic.count.load(Ordering::Acquire) as u32;
        let asked = self.room.partition.map_or(0..partitions, |asked| asked..asked.saturating_add(1));
        for to in asked {
            // A partition that does not exist lacks no room: the publish says that it does not exist.
            let exists = to < partitions && (self.has_appender(to) || self.lend(to));
            if exists && lacks(&mut appender_of(&mut self.first, &mut self.more, to).ring) {
                return true;
            }
        }
        false
    }
}
