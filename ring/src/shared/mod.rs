//! Rings between the processes of one user on one machine, on Linux.
//!
//! A shared ring is a file in `/dev/shm`, which every participant maps: a producer writes events into its slots, and
//! consumers of other processes read them there, without a system call while nobody sleeps. Any participant may be
//! killed at any instruction; the others learn it from a lock of the kernel, never by a time-out.
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! use slipring_ring::shared::SharedRing;
//!
//! slipring_ring::shared_event! {
//!     #[derive(Debug, PartialEq)]
//!     pub struct Quote { pub px: i64, pub qty: u32, pub venue: [u8; 4] }
//! }
//!
//! # let quotes = format!("doc-quotes-{}", std::process::id());
//! # let quotes = &*quotes;
//! // In the gateway. (`quotes` is "quotes", or any other name.)
//! let ring = SharedRing::<Quote>::open_or_create(quotes, 65_536)?;
//! let mut out = ring.producer()?;
//!
//! // In the recorder, another process: it reads on where it was, also after a crash.
//! let ring = SharedRing::<Quote>::open_or_create(quotes, 65_536)?;
//! let mut tape = ring.consumer("recorder").hold().join()?;
//!
//! out.publish(|quote| *quote = Quote { px: 101, qty: 2, venue: *b"XETR" })?;
//! out.close();                                                // after this the recorder's loop ends
//! let mut booked = 0;
//! while let Ok(mut batch) = tape.poll_wait(256) {             // waits; an error once all is read
//!     for (_, quote) in &mut batch {
//!         booked += quote.qty;
//!     }
//! }
//! assert_eq!(booked, 2);
//! # drop(tape);
//! SharedRing::<Quote>::remove(quotes)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/SHARED_MEMORY.md` is the page for users, and draws the file.
//!
//! # Invariants
//!
//! 1. No event is overwritten that a living or held consumer has not passed.
//! 2. What a publish has returned `Ok` for is read by every consumer that reads on.
//! 3. What the only producer has not published when it dies is not there; its successor goes on behind what was published.
//!    Among several producers, a claim is published whole or skipped whole. The claim of a living one is never skipped, and
//!    that of a dead one is, as soon as everybody who may own it is dead.
//! 4. The gate of a dead consumer holds nobody, unless it is held.
//! 5. Nobody sleeps longer than 10 milliseconds beside something to do.
//! 6. No value that another process may have written becomes an address or a length: every index is masked, every
//!    number of the header is copied once and checked, and events are valid for any bits.
//!
//! # The interleavings
//!
//! *Killed while publishing.* The only producer: before the published position moves, nothing of the claim is there. After
//! it, all of it is. One of several, with its steps as in `claims`:
//!
//! | killed | what is left | what mends it |
//! |---|---|---|
//! | before the exchange | an announcement that owns nothing | its entry is freed |
//! | between the exchange and the first slot's stamp | nothing that readers see | an heir skips the whole claim |
//! | after the first slot's stamp | a complete claim | its entry is freed |
//! | as an heir, anywhere | the claim is still not out, or it is, with the dead one's entry | the next heir |
//!
//! Heirs are described in `heir`: consumers that wait, producers without room, and whoever joins.
//!
//! *Stopped between the announcement and the exchange,* a living producer owns nothing; yet it may, so it holds up the
//! heirs of a dead one that has announced the same sequence. It is shown with its claim.
//!
//! *Killed while joining.* The byte is locked first, then the entry is written. Before the role is set, the entry is
//! free. After it and before the start, the gate is pinned below what is kept: the next participant without room finds
//! that the lock is free, and frees the entry, also if it was to be held. Afterwards it is a consumer like others.
//!
//! *Killed while reading or leaving.* The gate stands where the last batch ended. The next participant without room frees
//! the entry; a held one stays until a consumer of its name joins, or it is released.
//!
//! *Killed while it frees an entry of another.* The entry is still there, and its lock is free again.
//!
//! *Killed with the lock of the register.* The lock goes with it; each step under it is one of the above.
//!
//! *Killed while sleeping.* Its bit costs one wake-up. *Killed while waking:* the others sleep for 10 milliseconds.
//!
//! *Killed while closing.* The phase is stored before the open bit is cleared; with the bit, the ring has ended, and
//! everybody who reads it settles the end. See `ending`.
//!
//! *Killed while creating.* The file has a temporary name, which the next opening removes. *While removing:* the name
//! is gone first; participants find that the file has no name within 10 milliseconds.
//!
//! *A joining consumer and a producer that reads the gates.* The newcomer writes its pinned gate, its role and the
//! version, issues a full fence, and then reads the other gates. The producer reads the version and the gates, issues a
//! full fence, and reads the version again. If the producer misses the newcomer, its fence came first, and the newcomer
//! finds every gate at least as high as the producer did, and starts no lower.
//!
//! *An entry that changes hands while a producer reads it.* The producer reads the role, then the gate. The old owner has
//! read its last event before it freed the entry or died; the new one has the lock that the old one had, and its pin is a
//! release. So a producer that finds the pin has acquired the last read of the old owner; else it finds the old gate.
//!
//! *A participant that is stopped, not killed,* holds its locks: it is waited for. A stopped consumer fills the ring, a
//! stopped newcomer keeps others from joining (an error after a second).
//!
//! The models are `shared` and `shared_several` in loom-tests, at this code, with the memory on the heap. The kills are in
//! `ring/tests/shared_kill.rs` and `shared_producers.rs`.
//!
//! # No guarantees
//!
//! - Against a process of the same user that writes into the file by other means. Such a process can damage the events,
//!   stop the ring, or truncate the file: then the next access ends each participant with SIGBUS.
//! - After a restart of the machine, or beyond one machine.
//! - Across a `fork`: the child's handles return [`Ended::Forked`]; after a direct `clone` system call they end it.
#![cfg_attr(any(loom, shuttle, not(target_os = "linux")), allow(dead_code, unused_imports))]

mod bell;
mod claim;
mod claims;
mod consumer;
mod consumer_builder;
mod ending;
mod error;
mod event_layout;
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod folder;
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod fork;
mod header;
mod heir;
mod layout;
mod lock;
mod member;
#[cfg(any(loom, shuttle))]
pub mod model;
mod note;
mod participant;
mod producer;
mod raw;
mod region;
mod ring;
mod size;
mod waiting;

pub use claim::SharedClaim;
pub use consumer::{SharedBatch, SharedConsumer, SharedIter};
pub use consumer_builder::ConsumerBuilder;
pub use error::{Ended, Property, PublishError, SharedError};
pub use event_layout::{EventLayout, LayoutField, NumberType, NumberValue};
pub use layout::{Event, Field, FieldType, Number, as_bytes, from_bytes, layout, read_from_bytes, sum};
pub use participant::{Participant, Role};
pub use producer::SharedProducer;
pub use raw::{RawBatch, RawClaim, RawConsumer, RawConsumerBuilder, RawProducer, RawRing};
pub use ring::{SharedRing, names};
pub use size::Size;
