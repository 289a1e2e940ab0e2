//! Futures and streams, for programs whose tasks run on an executor.
//!
//! The async forms of blocking calls are: `next_batch` and `stream` of a subscriber, `next_batch` of a group's member,
//! `receive_async` of a queue's worker, `run_async` of a queue, `wait_async` of its run, `publish_async` and `send_async` of a producer, and
//! [`Receipt::reach`](crate::Receipt::reach), which needs no feature. Replays, selectors, transforms, transactions and
//! idempotent producers have none. The futures run on any executor, because they use only the task's waker.
//!
//! ```
//! use slipring::Engine;
//! use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
//!
//! let engine = Engine::builder().build()?;
//! let ticks = engine.topic::<u64>("ticks").create()?;
//! let mut tape = ticks.subscribe("tape").poll()?;
//! ticks.producer().create()?.publish(|tick| *tick = 42)?;
//!
//! let future = async { tape.next_batch().await.map(|batch| batch.map(|mut batch| batch.into_iter().count())) };
//! // Done by an executor in a real program.
//! let Poll::Ready(read) = pin!(future).poll(&mut Context::from_waker(Waker::noop())) else { panic!() };
//! assert_eq!(read?, Some(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - A future that is dropped before it is ready consumes nothing: the next future returns the same batch or lease.
//! - No lock of slipring is held while a task's waker runs. A task may be woken although nothing has come; its future
//!   is then polled again and stays pending.
//!
//! # Errors
//! The errors of the blocking forms: [`ReadError`](crate::subscriber::ReadError),
//! [`GroupError`](crate::group::GroupError), [`QueueError`](crate::queue::QueueError),
//! [`PublishError`](crate::producer::PublishError).

pub use crate::edge::futures::{EventStream, NextBatch, NextGroupBatch, Publishing, Sending};
pub use crate::queue::{QueueTask, Receiving};
