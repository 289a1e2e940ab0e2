//! Topics and shared rings: events to and from other processes of the user on this machine, on Linux.
//!
//! [`Topic::share`](crate::Topic::share) publishes a topic's events to a shared ring, and
//! [`Topic::feed_from`](crate::Topic::feed_from) publishes a shared ring's events into a topic. The other processes use
//! [`slipring_ring::shared`], the C library or the Python package; so a topic's journal, groups, queues and bridges serve
//! them. Events are numbers, or plain data that [`plain_event!`](crate::plain_event) declares: the layout is in the ring's
//! header.
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! use slipring::{Engine, journal::simulated::SimulatedDisk, share::SharedRing};
//! use std::time::Duration;
//!
//! slipring::plain_event! {
//!     #[derive(Debug, Default, PartialEq)]
//!     pub struct Quote { pub px: i64, pub qty: u32, pub venue: [u8; 4] }
//! }
//! # let (quotes, orders) = (format!("doc-share-{}", std::process::id()), format!("doc-feed-{}", std::process::id()));
//! # let (quotes, orders) = (&*quotes, &*orders);
//!
//! // The process with the journal. (`quotes` and `orders` are names of rings.)
//! let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
//! let tape = engine.topic::<Quote>("quotes").durable().create()?;
//! tape.share(quotes).hold(["research"]).open()?;
//! let book = engine.topic::<u64>("orders").durable().create()?;
//! book.feed_from(orders).size(1024).open()?;
//!
//! // Another process: what it reads is durable.
//! tape.producer().create()?.publish(|quote| *quote = Quote { px: 101, qty: 2, venue: *b"XETR" })?;
//! let mut research = SharedRing::<Quote>::open(quotes)?.consumer("research").hold().join()?;
//! let mut batch = research.poll_wait(256)?;
//! assert_eq!((&mut batch).into_iter().next().unwrap().1.px, 101);
//! # drop(batch);
//!
//! // And one that sends orders, which the first process has in its journal.
//! SharedRing::<u64>::open(orders)?.producer()?.publish(|order| *order = 42)?;
//! let mut replay = book.replay("check").open()?;
//! replay.read(Duration::from_secs(60), |order, _| assert_eq!(*order, 42))?;
//!
//! println!("{}", engine.describe("quotes")?);
//! assert!(engine.shutdown(Duration::from_secs(60)).is_complete());
//! # drop(research);
//! # SharedRing::<Quote>::remove(quotes)?;
//! # SharedRing::<u64>::remove(orders)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - *Shared, durable topic.* A reader of the ring sees only what is durable, or written, as
//!   [`visible`](ShareBuilder::visible) says. For as long as the ring lives, each event from the start on is in it once
//!   and in order, whenever the process with the topic is killed: the next one goes on behind what is in the ring, also
//!   where that was published a moment before the kill. The topic has one partition.
//! - *Shared topic in memory.* Each event from the start on is in the ring once, in the order of its partition. The topic
//!   begins anew with its process, and the ring's sequences go on.
//! - *Fed, durable topic.* Each event of the ring is in the topic once, in the order of the ring in each partition, whenever
//!   a process is killed. It leaves the ring when it is durable, or as [`acknowledge`](FeedBuilder::acknowledge) says. A
//!   topic that [drops](crate::topic::Overflow::DropNewest) events may lose some, and get others twice after a kill.
//! - *Fed topic in memory.* Each event of the ring that was not in the topic when its process ended is in the next one.
//! - *Full.* A ring without room holds the link: a topic in memory then holds its producers, a durable one does not. With
//!   [`WhenRingFull::Lose`] events are lost and counted. A topic without room holds the ring's producers, as its overflow
//!   policy says.
//! - *The end.* Links end with their topic: at a [shutdown](crate::Engine::shutdown) what is published is shared up to the
//!   deadline, and what was read from a ring stays there until it is in the topic. The ring stays open for the next
//!   process. A ring that was [closed](slipring_ring::shared::SharedRing::close) ends the link.
//! - Of *this ring* no longer: a restart of the machine takes the ring with it. A new ring begins where
//!   [`start`](ShareBuilder::start) says, and what was in the old one, not yet in a topic, is gone.
//!
//! [`Topic::describe`](crate::Topic::describe) shows a topic's links, `slipring shm stat` the ring's participants.
//!
//! # Errors
//! [`RingLinkError`]: a link was not opened. [`RingLinkFailure`]: why it has ended, by [`RingLink::ended`]. The topic goes on.
//!
//! # Unlike Kafka
//! A consumer in another process reads the memory that the link writes, without a broker, and has no group: it reads all
//! events. Consumers that share the work are members of a group, in the process that is fed.

mod builder;
mod error;
mod feed;
mod handle;
mod outward;
mod ring;

pub use crate::topic::ring_link::{RingDirection, RingLinkDescription};
pub use builder::{ShareBuilder, WhenRingFull};
pub use error::{RingLinkEnd, RingLinkError, RingLinkFailure};
pub use feed::FeedBuilder;
pub use handle::RingLink;
pub use slipring_ring::shared::{Ended, SharedError, SharedRing, Size};
