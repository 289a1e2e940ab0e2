//! The seam to the other engine: what a bridge needs of a stream of another engine.

use crate::envelope::{Envelope, Head};
use crate::record::Record;
use std::ops::Range;
use std::time::Duration;

/// A message that a stream has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The message's head; `None` if a bridge did not write it.
    pub head: Option<Head>,
    /// The record; `None` if the message is no record of a bridge, or does not match its checksum.
    pub record: Option<Record>,
}

/// The limits of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest size of a message with its headers, in bytes.
    pub message: usize,
}

impl Limits {
    /// Limits with this largest size of a message, headers included, in bytes.
    pub fn new(message: usize) -> Self {
        Self { message }
    }
}

/// Why a remote did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// It may go well later: the connection is lost, a leader is being elected, nobody has answered in time, or the stream is
    /// full. Nobody knows which messages in flight were stored.
    #[error("{0}")]
    Transient(String),
    /// A message was refused, because its sequence number is not the stream's next one.
    #[error("the stream's next number is another one: {0}")]
    Sequence(String),
    /// It will not go well before somebody changes the stream or the settings.
    #[error("{0}")]
    Refused(String),
}

/// A stream of another engine, to which one partition is copied. A bridge calls it from one thread.
///
/// The stream numbers its messages from 1, in the order in which it has taken them, and never gives a number twice. Another
/// engine is a package with this trait; this crate has two: [`Stream`](crate::jetstream::Stream) of NATS JetStream, and
/// [`MemoryStream`](crate::memory::MemoryStream) for tests.
pub trait Remote: Send {
    /// A name of the stream for people: its servers and its own name.
    fn name(&self) -> String;

    /// Reads the stream's limits, and checks that it can hold what a bridge writes.
    ///
    /// # Errors
    /// [`RemoteError::Refused`] if the stream's settings can lose messages, or do not replicate them as asked.
    fn limits(&mut self) -> Result<Limits, RemoteError>;

    /// Sends a message without waiting for the answer. The stream stores it as its message number `sequence`, or refuses it
    /// if that is not its next number.
    ///
    /// # Errors
    /// The message was not sent. All messages in flight are in doubt.
    fn send(&mut self, message: &Envelope, sequence: u64) -> Result<(), RemoteError>;

    /// Waits up to `limit` for the oldest message in flight, and returns how many of the oldest messages were confirmed
    /// since the last call: a majority has stored them.
    ///
    /// # Errors
    /// A message was refused, or was not answered in time since it was sent. All messages in flight are in doubt.
    fn confirm(&mut self, limit: Duration) -> Result<usize, RemoteError>;

    /// Forgets all messages in flight. Some of them may still be stored, now or later.
    fn forget(&mut self);

    /// Asks the stream's leader which messages it has: from the number of the first one that it still has, up to the number
    /// that it gives next. A leader that was stopped may answer with older numbers.
    ///
    /// # Errors
    /// The leader did not answer.
    fn numbers(&mut self) -> Result<Range<u64>, RemoteError>;

    /// Reads the messages with these sequence numbers, `None` for each that the stream does not have.
    ///
    /// # Errors
    /// The leader did not answer.
    fn read(&mut self, sequences: Range<u64>) -> Result<Vec<Option<Stored>>, RemoteError>;

    /// Deletes a message that an older writer has written behind the first mark of a newer one. Its number is not given
    /// again.
    ///
    /// # Errors
    /// The leader did not answer, or the stream does not allow it.
    fn delete(&mut self, sequence: u64) -> Result<(), RemoteError>;
}
