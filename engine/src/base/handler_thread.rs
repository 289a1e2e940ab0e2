//! Which consumer's thread this is: a producer that is used in a handler must not wait for that handler.

use crate::base::ids::TopicId;
use std::cell::RefCell;

struct Own {
    consumer: String,
    topic: Option<TopicId>,
    /// The partition whose batch the handler has; none if it reads all.
    partition: Option<u32>,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// The calling thread runs this consumer's handler until it ends, of all partitions of a topic or of one.
pub(crate) fn begin(consumer: String, topic: Option<TopicId>, partition: Option<u32>) {
    OWN.set(Some(Own { consumer, topic, partition }));
}

/// The handler gets a batch of this partition next.
pub(crate) fn reads(topic: TopicId, partition: u32) {
    OWN.with_borrow_mut(|own| {
        if let Some(own) = own {
            (own.topic, own.partition) = (Some(topic), Some(partition));
        }
    });
}

/// The consumer of this partition whose handler the calling thread runs.
pub(crate) fn consumer_of(topic: TopicId, partition: u32) -> Option<String> {
    OWN.with_borrow(|own| {
        let own = own.as_ref().filter(|own| own.topic == Some(topic))?;
        own.partition.is_none_or(|own| own == partition).then(|| own.consumer.clone())
    })
}
