//! Processor cores: which thread runs where, and whether more threads spin than there are cores.
//!
//! A subscriber is pinned with [`SubscriberBuilder::pin`](crate::subscriber::SubscriberBuilder::pin); a [`CorePlan`] places all
//! threads of an engine. [`Engine::cores`](crate::Engine::cores) tells where they are. [`pin`] has the cores that this process
//! may use, and pins a thread of your own.
//!
//! ```
//! use slipring::{Engine, cores::{CorePlan, pin}};
//! use std::{convert::Infallible, time::Duration};
//!
//! let core = pin::allowed_cores()[0];
//! let engine = Engine::builder().cores(CorePlan::new().pin("book", core)).build()?;
//! let ticks = engine.topic::<u64>("ticks").create()?;
//! ticks.subscribe("book").run(|_, _| Ok::<_, Infallible>(()))?;
//! println!("{:?}", engine.cores());
//! # engine.shutdown(Duration::from_secs(60));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - A thread runs where it was pinned, or the pin is an error: never elsewhere in silence.
//! - Threads that spin while they wait are counted; more of them than cores is refused, because they would take turns and
//!   stall one another, unless [`CorePlan::oversubscribe`] allows it.
//!
//! # Errors
//! [`CoresError`]: the core is not one of those that the process may use, or too many threads would spin.

pub use crate::base::cores::{CorePlan, CoresError, CoresReport, ThreadReport};
pub use slipring_ring::pin;
