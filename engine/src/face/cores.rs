//! Processor cores: which thread runs on which core, and the limit of threads that spin.
//!
//! [`SubscriberBuilder::pin`](crate::subscriber::SubscriberBuilder::pin) pins one subscriber; a [`CorePlan`] places all
//! threads of an engine. [`Engine::cores`](crate::Engine::cores) reports where they run. The module [`pin`] lists the
//! cores that this process may use, and pins a thread of your own.
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
//! - A thread runs on the core to which it was pinned, or starting it is an error.
//! - Threads that spin while they wait are counted. More spinning threads than cores are refused, because they would
//!   stall one another, unless [`CorePlan::oversubscribe`] allows it.
//!
//! # Errors
//! [`CoresError`]: the process may not use that core, or too many threads would spin.

pub use crate::base::cores::{CorePlan, CoresError, CoresReport, ThreadReport};
pub use slipring_ring::pin;
