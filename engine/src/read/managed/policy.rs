//! What a managed subscriber does when its handler fails.

use crate::base::batch_retries::BatchRetries;
use crate::base::kind::Producers;
use crate::read::{SharedForwarder, SubscriberBuilder};
use crate::topic::error::{Contradiction, SubscribeError};
use slipring_ring::OnError;

/// What happens when the handler of a subscriber fails.
pub(crate) struct ErrorPolicy<E> {
    pub(crate) on_error: OnError,
    /// Copies events that are skipped to the dead-letter topic. `None` if no such topic was set: then they are only
    /// counted.
    pub(crate) forwarder: Option<SharedForwarder<E>>,
    /// `None` if the subscriber handles no batch again as a whole.
    pub(crate) batches: Option<BatchRetries<u32>>,
}

impl<E: Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    /// The policy for failures of the handler. Takes the dead-letter producer out of the settings.
    pub(crate) fn policy(&mut self) -> Result<ErrorPolicy<E>, SubscribeError> {
        let batches = self.batch_retries()?;
        Ok(ErrorPolicy { on_error: self.on_error, forwarder: self.forwarder()?, batches })
    }

    /// The retries of whole batches of one thread; `None` if no batch is handled again as a whole.
    pub(crate) fn batch_retries(&self) -> Result<Option<BatchRetries<u32>>, SubscribeError> {
        let Some(limit) = self.retry_batch else { return Ok(None) };
        if matches!(self.on_error, OnError::Retry(_) | OnError::RetryThenSkip(_)) {
            return Err(Contradiction::new(&self.name, "`retry_batch`", "a retry of one event by `on_error`").into());
        }
        let host = &self.topic.host;
        let retries = BatchRetries::new(limit, &host.timer, &host.clock);
        retries.map(Some).map_err(|cause| SubscribeError::Thread {
            topic: self.topic.name.clone(),
            consumer: self.name.clone(),
            cause,
        })
    }
}
