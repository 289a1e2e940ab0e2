//! The names that most programs need: `use slipring::prelude::*`.
//!
//! ```
//! use slipring::prelude::*;
//!
//! let engine = Engine::builder().build()?;
//! let orders: Topic<Message> = engine.topic("orders").create()?;
//! let mut tape = orders.subscribe("tape").start(StartAt::Latest).poll()?;
//! orders.producer().create()?.send(Record::new("buy"))?;
//! # drop(tape.poll(std::time::Duration::ZERO)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[doc(no_inline)]
pub use crate::subscriber::{At, OnError, StartAt};
#[doc(no_inline)]
pub use crate::{Engine, Event, Level, Message, Persist, Producer, Receipt, Record, Subscriber, Topic, Wait};
