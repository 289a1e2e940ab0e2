//! Records: messages to be sent, whose borrowed parts are copied into a slot.

use crate::base::clock::Timestamp;
use smallvec::SmallVec;
use std::time::Duration;

/// A message to be sent. It only borrows its parts, so a refused record can be sent again.
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

/// The time before which queues do not deliver a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// A due time that was set as such: the bytes of the header [`Record::DUE`], with the time.
    At([u8; 8]),
    /// A due time that was computed from a delay when the record is sent: the bytes of the header [`Record::DUE`], with
    /// the due time and the delay.
    In([u8; 16]),
    /// A delay, counted from when the record is sent.
    After(Duration),
}

impl<'a> Record<'a> {
    /// Bytes of a header in addition to its name and its value.
    pub const HEADER: usize = 6;
    /// The name of the header with the time before which queues do not deliver a message. Its value is nanoseconds
    /// since the Unix epoch, 8 bytes, little-endian; for a message with a delay, the delay in nanoseconds follows, 8
    /// bytes, little-endian.
    pub const DUE: &'static str = "slipring-due";
    /// Greatest length of a header's name, in bytes.
    pub const MAX_HEADER_NAME: usize = u16::MAX as usize;

    /// Creates a record with this value, without key and headers.
    pub fn new<V: AsRef<[u8]> + ?Sized>(value: &'a V) -> Self {
        Self { value: value.as_ref(), ..Self::default() }
    }

    /// Sets the key. Records with one key go to one partition, in order, by the default partitioner.
    pub fn key<V: AsRef<[u8]> + ?Sized>(mut self, key: &'a V) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Adds a header. A name may be used more than once. Each record with more than four headers costs an allocation.
    pub fn header<V: AsRef<[u8]> + ?Sized>(mut self, name: &'a str, value: &'a V) -> Self {
        self.headers.push((name, value.as_ref()));
        self
    }

    /// The name of the header that holds a message's [id](Self::id).
    pub const ID: &'static str = "message-id";

    /// Adds an id, in the header [`ID`](Self::ID). A topic that [deduplicates](crate::TopicBuilder::deduplicate)
    /// publishes only one message with that id. An empty id counts as none.
    pub fn id<V: AsRef<[u8]> + ?Sized>(self, id: &'a V) -> Self {
        self.header(Self::ID, id)
    }

    /// The value of the first id header; `None` if there is none or it is empty.
    pub(crate) fn id_bytes(&self) -> Option<&'a [u8]> {
        let id = self.headers.iter().find(|(name, _)| *name == Self::ID).map(|(_, value)| *value);
        id.filter(|id| !id.is_empty())
    }

    /// Sets the message's time, instead of the time of publishing.
    pub fn timestamp(mut self, at: Timestamp) -> Self {
        self.timestamp = Some(at);
        self
    }

    /// Makes queues hold the message back until `at`, by the engine's wall clock. Other consumers get it at once. See
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

    /// As [`due`](Self::due), with a due time of `by` after the record is sent. If the wall clock is set back
    /// meanwhile, a queue holds the message back for at most `by` after it has read the message.
    pub fn delay(mut self, by: Duration) -> Self {
        self.due = Some(Due::After(by));
        self
    }

    /// A copy of this record whose delay is replaced by the due time: the time that `now` returns, plus the delay.
    /// `None` if the record has no delay. `now` is called only if it has one.
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

    /// All headers, and the header of the due time if there is one.
    pub(crate) fn all_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let due = match &self.due {
            Some(Due::At(nanos)) => Some((Self::DUE, &nanos[..])),
            Some(Due::In(nanos)) => Some((Self::DUE, &nanos[..])),
            _ => None,
        };
        self.headers.iter().copied().chain(due)
    }

    /// Sets the partition, instead of the partitioner's choice.
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The key, the value, and the headers with that of the [due time](Self::due). The header of a [delay](Self::delay) has no
    /// time before the record is sent, and is left out.
    ///
    /// ```
    /// use slipring::Record;
    /// let record = Record::new("buy").key("account-7").header("trace", "99");
    /// let (key, value, headers) = record.parts();
    /// assert_eq!((key, value), (Some(&b"account-7"[..]), &b"buy"[..]));
    /// assert!(headers.eq([("trace", &b"99"[..])]));
    /// ```
    #[expect(clippy::type_complexity, reason = "three parts, and no other place has them")]
    pub fn parts(&self) -> (Option<&[u8]>, &[u8], impl Iterator<Item = (&str, &[u8])>) {
        (self.key, self.value, self.all_headers())
    }

    /// Bytes that the record takes in its slot: those of the key, the value, and each header's name and value plus
    /// [`HEADER`](Self::HEADER). A due time counts as one more header.
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
