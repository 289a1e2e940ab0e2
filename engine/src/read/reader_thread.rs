//! The threads of readers without a handler: conflating subscribers, tables, and links with shared rings.

use crate::base::handler_thread;
use crate::base::kind::Producers;
use crate::base::overload::ConsumerStats;
use crate::base::threads::{StartError, caught};
use crate::base::trace::lifecycle;
use crate::topic::TopicCore;
use crate::topic::consumers::{ConsumerRun, SetWait};
use crate::topic::error::SubscribeError;
use slipring_ring::{Ending, Wait};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// How a reader's thread has ended. The thread has left the topic by then.
pub(crate) struct End {
    pub(crate) ending: Ending,
    /// The next offset of each partition.
    pub(crate) consumed: Vec<(u32, u64)>,
    /// True if the program has dropped the reader.
    pub(crate) is_cancelled: bool,
    /// Tells the program, once the topic's report has the end.
    pub(crate) tell: Box<dyn FnOnce()>,
}

/// Starts a thread of the topic that has the name of the consumer `stats` and calls `run`, which may not panic. Its wait
/// strategy can be changed through `membership`. `pace` is its core, `None` if it is not pinned, and how it waits.
pub(crate) fn start<E: Send + Sync + 'static, K: Producers>(
    topic: &Arc<TopicCore<E, K>>,
    stats: Arc<ConsumerStats>,
    membership: Option<Weak<dyn SetWait>>,
    pace: (Option<usize>, Wait),
    run: impl FnOnce() -> End + Send + 'static,
) -> Result<(), SubscribeError> {
    let (core, wait) = pace;
    let name = stats.name.clone();
    let record = ConsumerRun::new(stats);
    let ticket = topic
        .host
        .cores
        .enter(&topic.name, &name, &name, core, &wait)
        .map_err(|cause| SubscribeError::Cores { topic: topic.name.clone(), cause })?;
    {
        let mut state = record.state();
        state.threads = 1;
        state.memberships.extend(membership);
    }
    let (read, running) = (Arc::clone(topic), Arc::clone(&record));
    let life = move |()| {
        let _core = ticket.read_back();
        let _consumer = &running.stats.name;
        handler_thread::begin(running.stats.name.clone(), Some(read.id), None);
        lifecycle!(info, "consumer started", topic = read.name, consumer = _consumer);
        let End { ending, consumed, is_cancelled, tell } = run();
        running.cancelled.store(is_cancelled, Ordering::Release);
        running.end(ending, consumed);
        read.forget_cancelled();
        lifecycle!(info, "consumer ended", topic = read.name, consumer = _consumer);
        let _ = caught(tell);
    };
    topic.threads.start(&name, core, || (), life).map_err(|cause| {
        let (topic, consumer) = (topic.name.clone(), name);
        match cause {
            StartError::Pin(cause) => SubscribeError::Pin { topic, consumer, cause },
            StartError::Thread(cause) => SubscribeError::Thread { topic, consumer, cause },
            StartError::Panicked(cause) => SubscribeError::Handler { topic, consumer, cause },
        }
    })?;
    topic.keep(record);
    Ok(())
}
