//! A message to be sent: borrowed parts, copied into a slot.

use crate::base::clock::Timestamp;
use smallvec::SmallVec;
use std::time::Duration;

/// A message to be sent. It borrows its parts, so a refused one is still in the caller's hands.
///
/// ```
/// use slipring::Record;
/// let record = Record::new(b"{\"price\": 42}").key(b"account-7").header("trace", b"99");
/// assert_eq!(record.size(), 13 + 9 + (5 + 2 + Record::HEADER));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Record<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers: SmallVec<[(&'a str, &'a [u8]); 4]>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) partition: Option<u32>,
    pub(crate) due: Option<Due>,
}

/// When queues may give a message out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// As its header has it.
    At([u8; 8]),
    /// The same of a delay: the time, and how long the delay was, which is as long as a queue lets it wait.
    In([u8; 16]),
    /// So long after it is sent.
    After(Duration),
}

impl<'a> Record<'a> {
    /// What a header takes beside its name and its value, in bytes.
    pub const HEADER: usize = 6;
    /// The header that says from when on queues may give a message out: nanoseconds since the epoch, 8 bytes, the lowest
    /// first; behind it, where it was sent with a delay, the delay in nanoseconds, 8 bytes.
    pub const DUE: &'static str = "slipring-due";
    /// The longest name of a header, in bytes.
    pub const MAX_HEADER_NAME: usize = u16::MAX as usize;

    /// A record of this value, without key or headers.
    pub fn new<V: AsRef<[u8]> + ?Sized>(value: &'a V) -> Self {
        Self { value: value.as_ref(), ..Self::default() }
    }

    /// The key: records of one key go to one partition, in order.
    pub fn key<V: AsRef<[u8]> + ?Sized>(mut self, key: &'a V) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// One more header. A name may come more than once. More than four headers cost an allocation a record.
    pub fn header<V: AsRef<[u8]> + ?Sized>(mut self, name: &'a str, value: &'a V) -> Self {
        self.headers.push((name, value.as_ref()));
        self
    }

    /// The header that holds a message's [id](Self::id).
    pub const ID: &'static str = "message-id";

    /// An id, in the header [`ID`](Self::ID): a topic that [deduplicates](crate::TopicBuilder::deduplicate) publishes it
    /// once. Not empty: that is none.
    pub fn id<V: AsRef<[u8]> + ?Sized>(self, id: &'a V) -> Self {
        self.header(Self::ID, id)
    }

    /// The value of its first id, if it has one.
    pub(crate) fn id_bytes(&self) -> Option<&'a [u8]> {
        let id = self.headers.iter().find(|(name, _)| *name == Self::ID).map(|(_, value)| *value);
        id.filter(|id| !id.is_empty())
    }

    /// The time that the message bears, if not that of its publishing.
    pub fn timestamp(mut self, at: Timestamp) -> Self {
        self.timestamp = Some(at);
        self
    }

    /// Queues give the message out at `at` by the engine's world time, and not before. Other consumers see it at once. See
    /// [`DUE`](Self::DUE).
    ///
    /// ```
    /// use slipring::{Engine, Message, Record, clock::{Clock, ManualClock}};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let engine = Engine::builder().clock(clock.clone()).build()?;
    /// let jobs = engine.topic::<Message>("jobs").create()?;
    /// let mut worker = jobs.queue("mail").join()?;
    /// jobs.producer().create()?.send(Record::new("a reminder").delay(Duration::from_secs(60)))?;
    ///
    /// assert!(worker.receive(Duration::ZERO)?.is_none());
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(worker.receive(Duration::ZERO)?.unwrap().message().value(), b"a reminder");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn due(mut self, at: Timestamp) -> Self {
        self.due = Some(Due::At(at.as_nanos().to_le_bytes()));
        self
    }

    /// The same, so long after it is sent. Where the world's clock is set back meanwhile, a queue lets it wait no longer than
    /// this from when it reads it.
    pub fn delay(mut self, by: Duration) -> Self {
        self.due = Some(Due::After(by));
        self
    }

    /// With the time that a delay means, if it is sent at `now`.
    pub(crate) fn at(&self, now: impl FnOnce() -> Timestamp) -> Option<Self> {
        match self.due {
            Some(Due::After(by)) => {
                let by_nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&now().plus(by).as_nanos().to_le_bytes());
                bytes[8..].copy_from_slice(&by_nanos.to_le_bytes());
                Some(Self { due: Some(Due::In(bytes)), ..self.clone() })
            }
            _ => None,
        }
    }

    /// All headers, with that of the time when it is due.
    pub(crate) fn all_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let due = match &self.due {
            Some(Due::At(nanos)) => Some((Self::DUE, &nanos[..])),
            Some(Due::In(nanos)) => Some((Self::DUE, &nanos[..])),
            _ => None,
        };
        self.headers.iter().copied().chain(due)
    }

    /// The partition, whatever the partitioner would say.
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The bytes that it takes in its slot: key, value, and each header's name and value and
    /// [`HEADER`](Self::HEADER) more; a time when it is due is one more header.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| Self::HEADER + name.len() + value.len());
        let due = match self.due {
            None => 0,
            Some(Due::At(_)) => Self::HEADER + Self::DUE.len() + 8,
            Some(Due::In(_) | Due::After(_)) => Self::HEADER + Self::DUE.len() + 16,
        };
        self.value.len() + self.key.map_or(0, <[u8]>::len) + headers.sum::<usize>() + due
    }
}
