//! A message log for one machine, as a library: Kafka's topics and offsets on the LMAX Disruptor's mechanics.
//!
//! An [`Engine`] owns [`Topic`]s. A topic is a pre-allocated ring of events of one type; a [`Producer`] writes them in
//! place, subscribers read them by reference, each at its own position, on a thread of its own or by polling. A
//! subscriber can stand behind others. Nothing is allocated, locked or copied for a message.
//!
//! ```
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! # Overload
//! Nothing is overwritten before every subscriber has read it: a full topic makes its producers wait, or is an error
//! for the forms that try or have a deadline. [`Engine::metrics`] names the subscriber that is the furthest behind.
//! Only who has subscribed is waited for: what is published before is kept no longer than the topic's
//! [`retain`](TopicBuilder::retain) says, which is not at all unless told. Subscribe first, then publish.
//!
//! # Failure
//! A handler that returns an error or panics closes its topic, unless its [`OnError`] says otherwise: producers and
//! other subscribers get its name and cause as an error. Nothing hangs, and the library prints nothing; a panic is
//! still shown by the program's own panic hook.
//!
//! # Shutdown
//! [`Engine::shutdown`] drains up to a deadline and reports what each subscriber read and what was left.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod engine;
mod error;
mod metrics;
mod producer;
mod report;
mod subscriber;
mod topic;

pub use engine::{Engine, EngineBuilder};
pub use error::{MAX_NAME, ProducerError, PublishError, ReadError, SubscribeError, TopicError};
pub use metrics::{ConsumerMetrics, Metrics, TopicMetrics};
pub use producer::{Producer, Producers, Receipt};
pub use report::{Report, TopicReport};
pub use subscriber::{At, Batch, Messages, StartAt, Subscriber, SubscriberBuilder, Subscription};
pub use topic::{Shape, Topic, TopicBuilder, TopicId};

pub use slipring_ring::{
    ClaimError, Closed, Ending, Idle, Multi, OnError, Sequence, Sequences, Single, StageError, Wait, WaitStrategy, pin,
};
