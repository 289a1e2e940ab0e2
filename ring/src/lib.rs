//! The lock-free core of slipring: a pre-allocated ring of slots on the mechanics of the LMAX Disruptor.
//!
//! Producers claim slots and write events into them in place. Stages read the events by reference, each at its own
//! pace, in a graph that you define. No event is moved, copied or allocated, and no lock is taken on the way. In
//! exchange the ring has a fixed size, and a producer that finds it full waits or gets an error.
//!
//! # A first ring
//!
//! ```
//! use slipring_ring::Builder;
//! # #[derive(Default)] struct Order { price: i64 }
//!
//! let mut builder = Builder::single(1024, Order::default);    // 1,024 slots; the constructor of their events
//! builder.poll("tape");                                       // one stage, read by polling
//! let (mut producer, ring) = builder.build()?;
//! let mut tape = ring.consumer("tape")?;
//!
//! producer.publish(|order| order.price = 42)?;                // in place; waits while the ring is full
//! let mut batch = tape.poll(64)?;                             // readable events, at most 64; never waits
//! for (sequence, order) in &mut batch {
//!     assert_eq!((sequence.0, order.price), (0, 42));
//! }
//! drop(batch);                                                // moves the stage past the iterated events
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | [`Sequence`] | a slot's number since the ring began; a position is always the *next* sequence |
//! | claimed, published, consumed | three positions: taken by a producer, readable, passed by a stage |
//! | stage | a consumer with its place in the graph: after the producer, or after other stages |
//! | gate | a position that producers may not overtake by more than the capacity: each stage's position is one |
//! | floor | the gate that every ring has: the published position minus the count of [retained](Builder::retain) events |
//! | skipped | the slots of a [`Multi`] producer's claim that was dropped: no stage ever receives them |
//! | look | one check of a waiting thread for events or for room |
//! | arm | register a [`Waiter`] for one wake-up, when a position moves or the ring ends |
//! | cut | withdraw a claim that was not committed in time, when the ring ends: its commit returns [`Closed::Cut`] |
//!
//! # A diamond, and a reader that joins later
//!
//! Stages are declared by name and ordered after others by name. [`build`](Builder::build) checks the graph and starts
//! the stages that have threads of their own. `check` may change events, so it is ordered before every other stage.
//!
//! ```
//! use slipring_ring::{Builder, Stage, Start, Wait};
//! use std::time::Duration;
//! # #[derive(Default)] struct Order { price: i64, valid: bool }
//! # let mut book = 0; let mut risk = 0;
//!
//! //              +--> book --+
//! //  check (mut) |           +--> audit          tape: joins the running ring, after check
//! //              +--> risk --+
//! let mut builder = Builder::multi(1024, Order::default);     // any number of producers
//! builder.retain(16);                                         // for stages that join later
//! builder.run_mut("check", || |order: &mut Order, _, _| order.valid = order.price > 0);
//! builder.run(Stage::new("book").after(["check"]), move || {
//!     // Constructed on the stage's own thread, so it need not be `Send`.
//!     move |order: &Order, _sequence, end_of_batch: bool| {
//!         book += order.price;
//!         if end_of_batch { /* the moment to flush */ }
//!     }
//! });
//! builder.run(Stage::new("risk").after(["check"]).wait(Wait::spin_yield()), move || {
//!     move |order: &Order, _, _| { risk += order.price; if risk < 1_000_000 { Ok(()) } else { Err("over the limit") } }
//! });
//! builder.poll(Stage::new("audit").after(["book", "risk"]));  // polled: runs on the thread that calls it
//! let (mut producer, ring) = builder.build()?;
//! let mut audit = ring.consumer("audit")?;
//!
//! let mut second = producer.clone();
//! let other = std::thread::spawn(move || second.publish_batch(10, |index, order| order.price = index as i64 + 1));
//! producer.publish(|order| order.price = 7)?;
//! other.join().unwrap()?;
//!
//! // A stage joins while the ring runs. It knows its first sequence, and misses no event from there on.
//! let mut tape = ring.join(Stage::new("tape").after(["check"]).start(Start::Earliest))?;
//! let promised = tape.first();
//! producer.publish(|order| order.price = 8)?;
//! drop(producer);                                             // the last one: the ring finishes
//! let mut seen = 0;
//! while let Ok(mut batch) = tape.poll_wait(64) {              // waits; an error once all is read
//!     for (_, order) in &mut batch {
//!         assert!(order.valid);
//!         seen += 1;
//!     }
//! }
//! assert_eq!(promised.plus(seen), ring.positions().published);
//! drop(tape);                                                 // leaves: it no longer gates the producers
//!
//! while let Ok(mut batch) = audit.poll_wait(64) {
//!     (&mut batch).into_iter().for_each(drop);
//! }
//! let report = ring.shutdown(Duration::from_secs(5));
//! assert!(report.is_complete(), "{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which method for what
//!
//! | purpose | method |
//! |---|---|
//! | publish from one thread, at the least cost | [`Builder::single`]: no locked instruction, no clone |
//! | publish from several threads | [`Builder::multi`]: claims by compare-and-swap, no producer waits for another's claim |
//! | publish one event, several, or a claim of slots | [`publish`](Producer::publish), [`publish_batch`](Producer::publish_batch), [`claim`](Producer::claim) and [`commit`](Claim::commit) |
//! | publish without waiting, or with a deadline | [`try_publish`](Producer::try_publish), [`try_claim`](Producer::try_claim); [`publish_until`](Producer::publish_until), [`claim_until`](Producer::claim_until) |
//! | read in a loop of your own | [`Builder::poll`]: [`Consumer`], [`Batch`] |
//! | read with a handler on a thread | [`Builder::run`]: [`Handler`]; [`run_batches`](Builder::run_batches) for whole batches |
//! | change events before later stages read them | [`Builder::run_mut`], [`Builder::poll_mut`] |
//! | divide events among several workers | [`Builder::workers`], [`run_workers`](Builder::run_workers): [`Worker`] |
//! | join and leave a running ring | [`Ring::join`], [`Ring::run`]; drop the consumer, or [`Ring::evict`] |
//! | read events again, or skip them | [`Consumer::seek`] |
//! | sleep on many rings with one thread | [`Waiter`], [`Consumer::arm`] |
//! | learn that the last reader has left | [`Producer::is_read`], [`wait_until_unread`](Producer::wait_until_unread) |
//! | end the wait of a reader from another thread | [`Consumer::wakeup`], [`Worker::wakeup`]: [`Wakeup`] |
//! | read without ever holding up a writer | [`LossyRing`] |
//!
//! # Waiting
//!
//! Each consumer and each producer has a wait strategy of its own; see [`Wait`] for the parameters.
//!
//! | strategy | wakes up after | cost while idle | use |
//! |---|---|---|---|
//! | [`busy_spin`](Wait::busy_spin) | nanoseconds | a whole core | a core that runs nothing else |
//! | [`spin`](Wait::spin) | nanoseconds | a whole core, less power | a core shared with a sibling hyper-thread |
//! | [`spin_yield`](Wait::spin_yield) | nanoseconds, or a time slice of the scheduler | a core that other threads may take | more threads than cores |
//! | [`backoff`](Wait::backoff) | longer, the longer it was idle; then a wake-up | little, then nothing | varying event rates |
//! | [`spin_then_park`](Wait::spin_then_park) | nanoseconds, or a wake-up of some microseconds | nothing | the default |
//!
//! A publisher loads one cached variable to see whether a thread sleeps. That relies on `membarrier(2)`; on a system
//! without it, a publisher also executes a full fence. [`fence::kind`] returns which.
//!
//! # Overload
//!
//! No event is overwritten before every stage has passed it. When the slowest stage is a whole capacity behind, the
//! ring is full: `publish` and `claim` wait, the `try_` methods return [`ClaimError::Full`]
//! ([`try_send`](Producer::try_send) also returns the value), and the methods with a deadline return
//! [`ClaimError::TimedOut`] with the name of the stage that is furthest behind. [`Ring::positions`] shows the fill and
//! the lag of each stage at any time, without slowing the events. To remove a slow reader, [`Ring::evict`] it; it gets
//! [`Closed::Evicted`] at its next poll.
//!
//! # Failure
//!
//! If a handler returns an error or panics, its stage's [`OnError`] decides: stop (the default), skip, or retry. A
//! stage that stops fails the ring: every waiting producer and consumer is woken and gets [`Closed::Failed`] with the
//! stage's name and the cause. A ring also fails if a stage leaves while other stages are ordered after it, unless the
//! ring is ending and the stage that leaves has read everything. A closure that panics while it fills an event
//! publishes nothing, and the ring continues.
//!
//! # Shutdown
//!
//! | | producers | consumers |
//! |---|---|---|
//! | the last producer is dropped | | read the remaining events, then [`Closed::Finished`] |
//! | [`Ring::close`] | [`Closed::Closed`] | read the remaining events, then [`Closed::Closed`] |
//! | [`Ring::shutdown`] | [`Closed::Closed`] | read the remaining events, then [`Closed::Closed`]; if a managed stage is not done by the deadline, the ring is halted |
//! | [`Ring::halt`] | [`Closed::Halted`] | [`Closed::Halted`] at their next poll |
//!
//! `shutdown` and `halt` return a [`Report`]: how many events each stage has read and left unread, how it ended, and
//! which handlers have not returned. Any of these values can be dropped in any order and on any thread, also inside a
//! handler: a drop neither panics nor waits.
//!
//! # Guarantees
//!
//! - Every stage receives every published event once, in the order of sequences. If workers share a stage, each event
//!   goes to exactly one worker.
//! - A stage receives an event after every stage that it is ordered after has moved past the event, and sees their
//!   changes.
//! - A stage that joins learns its first sequence, and no event from there on is overwritten before the stage has
//!   passed it.
//! - No reference to an event outlives its claim, its batch or its handler's call: the compiler refuses such code.
//! - No call waits for ever on a peer that died: it gets an error that names the peer. (A handler that never returns
//!   does hold up the ring; a wait with a deadline and a shutdown name its stage.)
//! - A ring in a steady state allocates nothing, not even for waiting and waking.
//!
//! # No guarantees
//!
//! - Events do not survive the process. The engine's journal is for that.
//! - The events of two producers have no order except that of their sequences.
//! - A [`Multi`] claim that is leaked (`std::mem::forget`) stalls its ring: see [`Positions::oldest_unpublished`]. The
//!   events of a leaked [`Batch`] are read again. A leaked consumer gates for ever.
//! - Slots are not cleared: a slot keeps its old event until it is overwritten one capacity later. Write every field
//!   that matters; resources that an event owns live until then.
//! - A ring does not support more than 2^62 events.
//!
//! # When not to use it
//!
//! - Events of very different sizes, or events that own much memory: the ring always holds `capacity` of them.
//! - Rare events, or when a microsecond does not matter: a channel of the standard library is simpler.
//! - One producer and one consumer that pass single values: a queue for two threads, such as rtrb, is smaller.
//! - An unbounded queue: a ring always has a bound.
//!
//! # Reading the source
//!
//! `sequence`, `buffer`, `single_producer`, `consumer`, `event_look`, `batch`; then `multi_producer`, `gates` and
//! `join` (why a newcomer's first event is safe), `bell` and `fence` (why no thread sleeps for ever), `closing` and
//! `shutdown` (how a ring ends), `workers`, `lossy`. `ordering` has every memory ordering of the crate, each with its
//! partner.
#![deny(missing_docs)]
#![cfg_attr(loom, allow(dead_code))]

mod access;
mod batch;
mod bell;
mod buffer;
mod builder;
mod claim;
mod closing;
mod consumer;
mod core;
mod deadline;
mod error;
mod event_look;
mod fault;
pub mod fence;
mod forks;
mod gates;
mod handler;
mod held;
#[doc(hidden)]
pub mod internal;
mod join;
mod kind;
mod lossy;
mod managed;
mod memory;
mod multi_producer;
#[cfg(not(loom))]
#[allow(dead_code)]
mod ordering;
#[cfg(loom)]
pub mod ordering;
mod outcome;
mod pace;
mod panics;
pub mod pin;
mod producer;
mod report;
mod ring;
mod room;
mod sequence;
pub mod shared;
mod shown;
mod shutdown;
mod single_producer;
mod stage;
mod stamps;
mod sync;
pub mod text;
#[cfg(loom)]
pub mod thorough;
mod unread;
mod wait;
mod waiter;
mod waiting;
mod wakeup;
mod worker;
mod workers;

pub use access::{Access, Exclusive, Shared};
pub use batch::{Batch, Events, Iter};
pub use builder::Builder;
pub use claim::Claim;
pub use closing::Closed;
pub use consumer::{Consumer, ConsumerMut};
pub use error::{BuildError, ClaimError, SeekError, SendError, StageError};
pub use handler::Handler;
pub use kind::{Kind, ManyProducers, Multi, Single};
pub use lossy::{LossyReader, LossyRing, LossyWriter, Plain};
pub use memory::{MemoryReport, Obtained};
pub use outcome::Outcome;
pub use pace::spin_hint_cost;
pub use producer::{MultiProducer, Producer, SingleProducer};
pub use report::{Ending, Positions, Report, StagePosition, StageReport};
pub use ring::Ring;
pub use sequence::{Sequence, Sequences};
pub use stage::{OnError, Stage, StageRef, Start};
#[cfg(any(loom, shuttle))]
pub use sync::Instant;
pub use wait::{Idle, UnknownWait, Wait, WaitStrategy};
pub use waiter::Waiter;
pub use wakeup::Wakeup;
pub use worker::{Taken, Worker};

/// The code in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
