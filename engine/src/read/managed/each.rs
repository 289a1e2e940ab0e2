//! A managed subscriber with one thread for each partition.

use super::policy::ErrorPolicy;
use super::{Subscription, ThreadSettings, launch};
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::base::turn::Turn;
use crate::read::handler::BatchStart;
use crate::read::{At, PartitionConsumer, SharedForwarder, SubscriberBuilder};
use crate::topic::consumers::ConsumerRun;
use crate::topic::error::SubscribeError;
use crate::topic::partition::Partition;
use crate::topic::{Preparation, TopicReader};
use slipring_ring::Consumer;
use std::fmt::Display;
use std::sync::{Arc, Weak};

/// The settings and the constructor of handlers that the threads of a subscriber's partitions share. Registered with
/// the topic, to start a thread for each added partition. The threads keep it alive.
struct PartitionThreads<E, K: Producers, M, H, C> {
    builder: SubscriberBuilder<E, K>,
    run: Arc<ConsumerRun>,
    make: Arc<Turn<M>>,
    forwarder: Option<SharedForwarder<E>>,
    on_start: Option<fn(&mut H, BatchStart)>,
    /// Calls a partition's handler with an event.
    call: C,
}

impl<E, K, X, H, M, C> PartitionThreads<E, K, M, H, C>
where
    E: Send + Sync + 'static,
    K: Producers,
    X: Display + 'static,
    H: Send + 'static,
    M: FnMut(u32) -> H + Send + 'static,
    C: Fn(&mut H, &E, At) -> Result<(), X> + Copy + Send + Sync + 'static,
{
    /// Returns the handler of a partition, which the user's function makes. An error if the function panics, or if it
    /// has itself caused this call.
    fn make(&self, partition: u32) -> Result<H, SubscribeError> {
        let (topic, consumer) = (self.builder.topic.name.clone(), self.run.stats.name.clone());
        let Some(mut make) = self.make.take() else {
            let cause = "it was asked for by itself".to_owned();
            return Err(SubscribeError::Handler { topic, consumer, cause });
        };
        let made = caught(|| make(partition));
        made.map_err(|panic| SubscribeError::Handler { topic, consumer, cause: panic.said() })
    }

    fn start(self: &Arc<Self>, part: PartitionConsumer<E, K>, handler: H) -> Result<(), SubscribeError> {
        let index = part.partition.index;
        let subscriber = self.builder.of_one(part, &self.run.stats);
        let thread = format!("{}-{index}", self.run.stats.name);
        let batches = self.builder.batch_retries()?;
        let policy = ErrorPolicy { on_error: self.builder.on_error, forwarder: self.forwarder.clone(), batches };
        let wait = self.builder.wait.clone();
        let setting = ThreadSettings { thread, partition: Some(index), core: self.builder.core, wait, policy };
        let (threads, call) = (Arc::clone(self), self.call);
        launch(
            subscriber,
            &self.run,
            setting,
            || handler,
            self.on_start,
            move |handler: &mut H, event: &E, at| {
                let _ = &threads;
                call(handler, event, at)
            },
        )
    }
}

impl<E, K, X, H, M, C> TopicReader<E, K> for PartitionThreads<E, K, M, H, C>
where
    E: Send + Sync + 'static,
    K: Producers,
    X: Display + 'static,
    H: Send + 'static,
    M: FnMut(u32) -> H + Send + 'static,
    C: Fn(&mut H, &E, At) -> Result<(), X> + Copy + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.builder.name
    }

    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError> {
        partition.join(&self.builder.topic.name, self.builder.stage())
    }

    fn prepare(&self, partition: u32) -> Result<Preparation, SubscribeError> {
        Ok(Box::new(self.make(partition)?))
    }

    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        prepared: Preparation,
    ) -> Box<dyn FnOnce()> {
        let part = PartitionConsumer { partition: Arc::clone(partition), consumer };
        Box::new(move || {
            let Ok(handler) = prepared.downcast::<H>() else { return };
            if let Err(refused) = self.start(part, *handler) {
                // Without a thread the partition would never be read, so the topic fails.
                self.builder.topic.fail(&self.run.stats.name, &refused.to_string());
            }
        })
    }
}

/// Starts one thread for each partition.
pub(crate) fn start_each<E, K, X, H>(
    mut builder: SubscriberBuilder<E, K>,
    make: impl FnMut(u32) -> H + Send + 'static,
    on_start: Option<fn(&mut H, BatchStart)>,
    call: impl Fn(&mut H, &E, At) -> Result<(), X> + Copy + Send + Sync + 'static,
) -> Result<Subscription<E, K>, SubscribeError>
where
    E: Send + Sync + 'static,
    K: Producers,
    X: Display + 'static,
    H: Send + 'static,
{
    let forwarder = builder.forwarder()?;
    builder.batch_retries()?;
    let topic = Arc::clone(&builder.topic);
    let name = builder.name.clone();
    let stats = builder.stats();
    topic.register(&stats);
    let run = ConsumerRun::new(stats);
    let (run_of, make) = (Arc::clone(&run), Turn::new(make));
    let threads = Arc::new(PartitionThreads { builder, run: run_of, make, forwarder, on_start, call });
    // The user's function that makes the handlers may use this topic, so the readers are locked only after it was
    // called for all partitions. If partitions were added meanwhile, it is called for these too, and the lock is taken
    // again.
    let mut handlers = Vec::new();
    let mut readers = loop {
        for partition in handlers.len()..topic.partitions().len() {
            handlers.push(threads.make(partition as u32)?);
        }
        let readers = topic.readers();
        if topic.partitions().len() == handlers.len() {
            break readers;
        }
    };
    let parts = threads.builder.join_all()?;
    let first = parts.iter().map(|part| part.consumer.consumed().0).collect();
    for (part, handler) in parts.into_iter().zip(handlers) {
        if let Err(refused) = threads.start(part, handler) {
            // The threads that have started end as if they were cancelled; the topic stays open.
            for partition in topic.partitions().iter() {
                let _ = partition.ring.evict(&name);
            }
            return Err(refused);
        }
    }
    readers.add(Arc::downgrade(&threads) as Weak<dyn TopicReader<E, K>>);
    drop(readers);
    topic.keep(Arc::clone(&run));
    Ok(Subscription { topic, name, first, run })
}
