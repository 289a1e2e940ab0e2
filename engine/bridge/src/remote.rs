//! The seam to the other engine: what a bridge needs of a stream of another engine.

use crate::envelope::{Envelope, Head};
use crate::record::Record;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A message that a stream has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The message's head; `None` if a bridge did not write it.
    pub head: Option<Head>,
    /// The records, one or several. None if a bridge has not written it or has written none, or if a checksum does not match.
    pub records: Vec<Record>,
}

/// Messages of a stream in order: see [`Remote::follow`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Followed {
    /// Messages with their numbers. The stream does not have those whose numbers are left out.
    pub messages: Vec<(u64, Stored)>,
    /// The number with which to go on.
    pub next: u64,
    /// The number that the stream gives next, as far as the stream has said so with this answer.
    pub end: u64,
    /// How many messages the stream has from `next` on, as far as it is known, also from earlier answers.
    pub left: u64,
}

impl Followed {
    /// Messages, the number with which to go on, and the number that the stream gives next. What is left is what lies between
    /// the two.
    pub fn new(messages: Vec<(u64, Stored)>, next: u64, end: u64) -> Self {
        Self { messages, next, end, left: end.saturating_sub(next) }
    }

    /// No messages in time, and no answer about the stream's end. `left` messages are known to be there.
    pub fn nothing(from: u64, left: u64) -> Self {
        Self { left, ..Self::new(Vec::new(), from, from) }
    }
}

/// How many messages a call of [`Remote::follow`] reads at most.
pub(crate) const AT_MOST: u64 = 256;

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

    /// Reads the messages with these sequence numbers, `None` for each that the stream does not have. A new leader that has not
    /// applied all of its log yet may answer so for messages that are there.
    ///
    /// # Errors
    /// The leader did not answer.
    fn read(&mut self, sequences: Range<u64>) -> Result<Vec<Option<Stored>>, RemoteError>;

    /// Reads messages in order from the number `from` on, some hundreds at most, and waits up to `limit` for the first.
    /// A stream that ends before `from` has lost messages, or a server has answered with old data. Where none of the messages up to
    /// the stream's end can be read, the result does not go on.
    ///
    /// A stream that sends its messages by itself overrides this.
    ///
    /// # Errors
    /// Nobody has answered.
    fn follow(&mut self, from: u64, limit: Duration) -> Result<Followed, RemoteError> {
        let until = Instant::now() + limit;
        loop {
            let numbers = self.numbers()?;
            let end = numbers.end;
            let followed =
                if end > from { read_on(self, from, numbers)? } else { Followed::new(Vec::new(), from, end) };
            let left = until.saturating_duration_since(Instant::now());
            if followed.next > from || left.is_zero() || end < from {
                return Ok(followed);
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// Deletes a message that an older writer has written behind the first mark of a newer one. Its number is not given
    /// again.
    ///
    /// # Errors
    /// The leader did not answer, or the stream does not allow it.
    fn delete(&mut self, sequence: u64) -> Result<(), RemoteError>;
}

/// Reads the next messages of a stream that has these numbers. It goes on behind the last message that was read and not up to the
/// stream's end: what a new leader has not applied yet looks like a message that was deleted.
pub(crate) fn read_on<R: Remote + ?Sized>(
    remote: &mut R,
    from: u64,
    numbers: Range<u64>,
) -> Result<Followed, RemoteError> {
    let end = numbers.end;
    // What was in front of the stream's first message is gone.
    let mut next = from.max(numbers.start);
    let is_empty = next == end;
    while next < end {
        let to = end.min(next + AT_MOST);
        let messages = remote.read(next..to)?.into_iter().zip(next..);
        let messages: Vec<_> = messages.filter_map(|(stored, sequence)| Some((sequence, stored?))).collect();
        if let Some((last, _)) = messages.last() {
            let next = last + 1;
            return Ok(Followed::new(messages, next, end));
        }
        next = to;
    }
    Ok(Followed::new(Vec::new(), if is_empty { end } else { from }, end))
}
