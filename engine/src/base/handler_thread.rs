//! The consumer whose handler the calling thread runs. A producer in a handler must not wait for that handler.

use crate::base::ids::TopicId;
use std::cell::RefCell;

struct Own {
    consumer: String,
    topic: Option<TopicId>,
    /// The partition whose events the handler gets; `None` if it gets those of all.
    partition: Option<u32>,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// Marks the calling thread, until it ends, as the one that runs this consumer's handler, for one partition of a topic
/// or for all.
pub(crate) fn begin(consumer: String, topic: Option<TopicId>, partition: Option<u32>) {
    OWN.set(Some(Own { consumer, topic, partition }));
}

/// Records that the handler's next batch is from this partition.
pub(crate) fn reads(topic: TopicId, partition: u32) {
    OWN.with_borrow_mut(|own| {
        if let Some(own) = own {
            (own.topic, own.partition) = (Some(topic), Some(partition));
        }
    });
}

/// The consumer of this partition whose handler the calling thread runs; `None` if it runs no such handler.
pub(crate) fn consumer_of(topic: TopicId, partition: u32) -> Option<String> {
    OWN.with_borrow(|own| {
        let own = own.as_ref().filter(|own| own.topic == Some(topic))?;
        own.partition.is_none_or(|own| own == partition).then(|| own.consumer.clone())
    })
}
