//! Reading a stream in order by a consumer of the servers, which send messages by themselves.
//!
//! The consumer only says which messages come next. A message that it leaves out is noticed by the reader, because each
//! message says where the records end without it.

use super::{Stream, stored, transient};
use crate::remote::{AT_MOST, Followed, Remote, RemoteError, Stored, read_on};
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use futures_core::Stream as _;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long the consumer may send nothing before the stream is asked whether there is something.
const SILENCE: Duration = Duration::from_secs(1);

/// A consumer, and how far it has come.
pub(super) struct Following {
    messages: Box<Ordered>,
    /// The number of the next message.
    next: u64,
    /// The number that the stream gives next, as far as it is known.
    end: u64,
    /// When a message came last, or the stream was asked last.
    heard: Instant,
}

impl Stream {
    /// Reads by the present consumer, or by a new one if there is none at this place.
    pub(super) fn follow_on(&mut self, from: u64, limit: Duration) -> Result<Followed, RemoteError> {
        if self.following.as_ref().is_none_or(|following| following.next != from) {
            self.following = None;
            // What is not there has no consumer.
            let end = self.numbers()?.end;
            if end < from {
                return Ok(Followed::new(Vec::new(), from, end));
            }
            self.following = Some(self.begin(from, end)?);
        }
        let Some(following) = &mut self.following else { return Err(transient("there is no consumer")) };
        let came = self.cluster.runtime.block_on(async {
            let mut came = Vec::new();
            let some = std::future::poll_fn(|context| {
                loop {
                    match Pin::new(&mut *following.messages).poll_next(context) {
                        Poll::Ready(Some(Ok(message))) => {
                            let info = message.info().map_err(transient)?;
                            let (sequence, pending) = (info.stream_sequence, info.pending);
                            if sequence >= following.next {
                                let stored = stored(message.headers.as_ref(), &message.payload);
                                came.push((sequence, stored));
                                (following.next, following.end) = (sequence + 1, sequence + 1 + pending);
                            }
                            if came.len() as u64 >= AT_MOST {
                                return Poll::Ready(Ok(()));
                            }
                        }
                        Poll::Ready(Some(Err(cause))) => return Poll::Ready(Err(transient(cause))),
                        Poll::Ready(None) => return Poll::Ready(Err(transient("the consumer has ended"))),
                        Poll::Pending if came.is_empty() => return Poll::Pending,
                        Poll::Pending => return Poll::Ready(Ok(())),
                    }
                }
            });
            match tokio::time::timeout(limit, some).await {
                // What came before an error is whole; the error comes again.
                Ok(Err(cause)) if came.is_empty() => Err(cause),
                _ => Ok::<Vec<(u64, Stored)>, RemoteError>(came),
            }
        })?;
        if !came.is_empty() {
            following.heard = Instant::now();
            return Ok(Followed::new(came, following.next, following.end));
        }
        if following.heard.elapsed() >= SILENCE {
            following.heard = Instant::now();
            let numbers = self.numbers()?;
            let end = numbers.end;
            if end > from {
                // Deleted messages at the end, or a consumer that the servers have forgotten.
                self.following = None;
                return read_on(self, from, numbers);
            }
            return Ok(Followed::new(Vec::new(), from, end));
        }
        // The client asks for some hundreds of messages at a time, and between two of these nothing comes for a moment.
        Ok(Followed::nothing(from, following.end.saturating_sub(from)))
    }

    fn begin(&self, from: u64, end: u64) -> Result<Following, RemoteError> {
        let (context, name) = (&self.cluster.context, &self.name);
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ..OrderedConfig::default()
        };
        let messages = self.cluster.wait(2, async {
            let stream = context.get_stream_no_info(name).await.map_err(transient)?;
            let consumer = stream.create_consumer(config).await.map_err(transient)?;
            consumer.messages().await.map_err(transient)
        });
        let messages = Box::new(messages.map_err(|error| self.explain(error))?);
        Ok(Following { messages, next: from, end, heard: Instant::now() })
    }
}
