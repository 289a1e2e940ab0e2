//! What a publish returns.

use crate::topic::TopicId;

/// Where an event was published, and what is known of its safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic: see [`Topic::id`](crate::Topic::id).
    pub topic: TopicId,
    /// The partition.
    pub partition: u32,
    /// The event's offset in it.
    pub offset: u64,
}

/// Where a batch was published: all of it in one partition, at offsets that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchReceipt {
    /// The topic: see [`Topic::id`](crate::Topic::id).
    pub topic: TopicId,
    /// The partition.
    pub partition: u32,
    /// The offset of the first event.
    pub first: u64,
    /// How many events.
    pub len: usize,
}

impl BatchReceipt {
    /// The receipt of each event, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Receipt> + use<> {
        let Self { topic, partition, first, len } = *self;
        (0..len).map(move |index| Receipt { topic, partition, offset: first + index as u64 })
    }
}
