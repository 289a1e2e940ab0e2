//! Copies topics of [slipring](slipring) to NATS JetStream, so that they outlive the machine.
//!
//! A [`Bridge`] reads a durable topic of messages and copies each partition to a stream of a cluster. Once a majority of the
//! cluster has a record, its receipt reaches [`Level::Replicated`](slipring::Level::Replicated).
//!
//! ```no_run
#![cfg_attr(feature = "nats", doc = include_str!("../examples/replicate.rs"))]
//! ```
//!
//! Another engine reads such streams with [`Bridge::inward`], and publishes their records into a topic of its own. A [`Standby`]
//! writes them into a journal at the offsets that they have, and takes over when the first machine is lost.
//!
//! # Guarantees
//! - Each durable record is in the stream once, in the order of its partition, whatever is killed, stopped or cut off: each
//!   message names its number in the stream, and after any error the whole window is rewound to what the stream has.
//! - A receipt is `Replicated` only once the cluster has confirmed the record, or a message behind it.
//! - A bridge never deletes, and never writes behind what it does not know. A second writer, another journal, a stream that
//!   was emptied or has other records stops it, with a cause that says which: [`Stopped`].
//! - Memory is bounded by the [`Window`], whatever the length of an outage; the journal keeps what is not copied, up to
//!   [`hold`](Outbound::hold) bytes of each partition.
//! - An [`Import`] publishes each record of a stream once and in order, with its key, headers and time, whatever is killed on either
//!   side: the topic's journal says which one is next. Offsets of the copy are its own.
//! - Machines that copy a topic outward and import one another's streams have each record once: a bridge outward passes over what an
//!   import has brought, which has a header that says so ([`Record::ORIGIN`]).
//! - No record is skipped without being told to, and then a message with the offsets stands in its place.
//!
//! # What is in a stream
//! The message's payload is the record's value. The headers `Slipring-Partition`, `Slipring-Offset`, `Slipring-Key`,
//! `Slipring-Time` (nanoseconds since 1970) and `Slipring-Headers` (`name=value` pairs joined by `&`) have the rest; keys, names
//! and values are escaped as in a URL. [`Record::parse`] reads a message back. The header `Slipring-Head` is the bridge's own: the
//! kind of the message, who wrote it, and where the records end with it and without it. Marks and other messages of the bridge's own have a
//! subject of their own. A start behind a bridge that was killed writes about a thousand of them, an ended bridge leaves two.
//!
//! A reader that was there at the very moment of a takeover may have met a record that an older bridge still had on its way; it is
//! deleted from the stream before the newer one's first record. Its `Slipring-Head` has a lower epoch than the mark before it.
//!
//! With [`packed`](Outbound::packed) a message has several records. Its headers `Slipring-First` and `Slipring-Last` are the first and
//! the last offset. Its payload is the records one behind the other: the lengths of key and value and the count of headers (4 bytes
//! each, little-endian; a key of `u32::MAX` is none), the checksum (4), the offset and the time (8 each; a time of `u64::MAX` is none),
//! key, value, and for each header its name and value with a length in front (4). [`Record::parse_all`] reads both forms.
//!
//! # Limits
//! Topics of [`Message`](slipring::Message)s only. Committed offsets, producers'
//! sequences and queues stay on this machine.
//!
//! # Features
//! - `nats`, on by default: [`jetstream`]. Without it the crate has the seam for other engines, [`Remote`], and a stream in
//!   [`memory`] for tests.
//! - `config`: settings from a TOML file.
//! - `command`, on by default: the program `slipring-bridge`, for `cargo install`. A program that links the library turns it off.
//! - `tls`: encrypted connections, and credentials with keys.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod bridge;
#[cfg(feature = "config")]
pub mod config;
mod cursor;
mod envelope;
mod inward;
#[cfg(feature = "nats")]
pub mod jetstream;
pub mod memory;
mod origin;
mod outbound;
mod outward;
mod position;
mod record;
mod remote;
mod standby;
mod stopped;
pub mod verify;
mod work;

pub use bridge::{Bridge, PartitionStatus, Status};
pub use envelope::{Envelope, Head, Kind, Tip, Writer};
pub use inward::{Import, ImportError, ImportStatus, Inbound, PartitionImport};
pub use outbound::{Outbound, StartError, Uncopied};
pub use outward::Window;
pub use record::Record;
pub use remote::{Followed, Limits, Remote, RemoteError, Stored};
pub use standby::{Standby, StandbyBuilder, StandbyError, StandbyTopic};
pub use stopped::Stopped;

/// The code in the page compiles.
#[cfg(all(doctest, feature = "nats"))]
mod pages {
    #[doc = include_str!("../../../docs/SCALING.md")]
    struct Scaling;
}
