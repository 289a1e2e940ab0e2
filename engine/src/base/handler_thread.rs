//! A record, for each thread, of the consumer whose handler the thread runs. A producer that is used inside a handler
//! must not wait for that handler's consumer.

use crate::base::ids::TopicId;
use std::cell::RefCell;

struct RunningHandler {
    consumer: String,
    /// The topic of the handler's events; `None` until [`reads`] sets it, for a consumer of several topics.
    topic: Option<TopicId>,
    /// The partition of the handler's events; `None` if the handler may get events of all partitions.
    partition: Option<u32>,
}

thread_local! {
    static RUNNING_HANDLER: RefCell<Option<RunningHandler>> = const { RefCell::new(None) };
}

/// Records, until the thread ends, that the calling thread runs the handler of `consumer`. `topic` is `None` until
/// [`reads`] sets the topic; `partition` is `None` if the handler gets the events of all partitions.
pub(crate) fn begin(consumer: String, topic: Option<TopicId>, partition: Option<u32>) {
    RUNNING_HANDLER.set(Some(RunningHandler { consumer, topic, partition }));
}

/// Records the topic and partition of the batch that the handler gets next.
pub(crate) fn reads(topic: TopicId, partition: u32) {
    RUNNING_HANDLER.with_borrow_mut(|handler| {
        if let Some(handler) = handler {
            (handler.topic, handler.partition) = (Some(topic), Some(partition));
        }
    });
}

/// The consumer of this partition whose handler runs on the calling thread; `None` if no such handler runs on it.
pub(crate) fn consumer_of(topic: TopicId, partition: u32) -> Option<String> {
    RUNNING_HANDLER.with_borrow(|handler| {
        let handler = handler.as_ref().filter(|handler| handler.topic == Some(topic))?;
        handler.partition.is_none_or(|own| own == partition).then(|| handler.consumer.clone())
    })
}
