//! Managed subscribers whose handler is told where each batch begins.

use super::each::start_each;
use super::{Subscription, start};
use crate::base::kind::Producers;
use crate::read::SubscriberBuilder;
use crate::read::handler::Handler;
use crate::topic::error::SubscribeError;

impl<E: Send + Sync + 'static, K: Producers> SubscriberBuilder<E, K> {
    /// As [`run`](Self::run), with a [`Handler`], which is also told where each batch begins. It is made on the
    /// subscriber's thread and stays there, so it need not be `Send`.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_handler<H: Handler<E> + 'static>(
        mut self,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError> {
        let (core, wait, policy) = (self.core, self.wait.clone(), self.policy()?);
        start(self.poll()?, core, wait, policy, make, Some(H::on_batch_start), H::on_event)
    }

    /// As [`run_each`](Self::run_each), with a [`Handler`] for each partition, which is also told where each batch
    /// begins.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_each_handler<H: Handler<E> + Send + 'static>(
        self,
        make: impl FnMut(u32) -> H + Send + 'static,
    ) -> Result<Subscription<E, K>, SubscribeError> {
        start_each(self, make, Some(H::on_batch_start), H::on_event)
    }
}
