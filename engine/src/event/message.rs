//! Messages: key, value and headers, stored in a piece of memory (cell) that belongs to the slot.
//!
//! A partition has one piece of memory for all its messages, the arena, with one cell of a fixed size for each slot. So
//! freeing a slot frees its cell too: bytes are not claimed apart from the slot, a partition cannot be full of bytes
//! while it has free slots, and the arena does not fragment. See docs/decisions/0007.

use crate::base::clock::Timestamp;
use crate::event::Event;
use crate::event::codec::{Persist, Unreadable};
use crate::event::record::Record;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::time::Duration;

/// Size of a cache line in bytes. The cell of each slot (its bytes in the topic's memory) begins at a multiple of it.
const LINE: usize = 64;
const NO_KEY: u32 = u32::MAX;
const NO_TIME: u64 = u64::MAX;
/// Bytes of an encoded message before its key: three lengths and a time.
const STORED_HEAD: usize = 20;
/// Bytes of a header before its name: the lengths of name and value.
const HEADER_HEAD: usize = 6;

/// The event of a topic of messages: key, value and headers, read by reference as any event. Published with
/// [`Producer::send`](crate::Producer::send).
///
/// ```
/// use slipring::{Engine, Message, Record};
/// use std::time::Duration;
/// # let engine = Engine::builder().build()?;
/// let orders = engine.topic::<Message>("orders").max_message(256).create()?;
/// let mut tape = orders.subscribe("tape").poll()?;
/// orders.producer().create()?.send(&Record::new("buy").key("account-7").header("trace", "42"))?;
/// for (message, at) in &mut tape.poll(Duration::ZERO)?.unwrap() {
///     assert_eq!((message.key(), message.value(), at.offset), (Some(&b"account-7"[..]), &b"buy"[..], 0));
///     assert_eq!(message.headers().next(), Some(("trace", &b"42"[..])));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Message {
    /// The bytes of key, value and headers, in this order.
    cell: BytesMut,
    key: u32,
    value: u32,
    headers: u32,
    time: u64,
}

/// The error for a record that is larger than the topic allows, or has a header whose name is longer than
/// [`Record::MAX_HEADER_NAME`]. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) size: usize,
    pub(crate) largest: usize,
}

impl Event for Message {
    fn slots(capacity: usize, max_message: usize) -> Option<Box<dyn FnMut() -> Self + Send>> {
        let cell = Self::cell(max_message)?;
        let size = cell.checked_mul(capacity)?.checked_add(LINE)?;
        let mut arena = Vec::new();
        arena.try_reserve_exact(size).ok()?;
        // Touches every page now, so that publishing later causes no page fault.
        arena.resize(size, 0);
        let mut arena = Bytes::from(arena).try_into_mut().ok()?;
        let aside = arena.as_ptr().align_offset(LINE).min(LINE);
        let _ = arena.split_to(aside);
        Some(Box::new(move || {
            let mut cell = arena.split_to(cell);
            cell.truncate(max_message);
            Self { cell, key: NO_KEY, value: 0, headers: 0, time: NO_TIME }
        }))
    }

    fn cell(max_message: usize) -> Option<usize> {
        Some(max_message.checked_next_multiple_of(LINE).unwrap_or(max_message))
    }
}

impl Message {
    /// Copies a record into a message in memory of its own.
    pub(crate) fn of(record: &Record<'_>) -> Self {
        let cell = BytesMut::zeroed(record.size());
        let mut message = Self { cell, key: NO_KEY, value: 0, headers: 0, time: NO_TIME };
        message.fill(record, None);
        message
    }

    /// Copies the message into memory of its own, which outlives the slot. `Message` has no `Clone`, so that no message
    /// is copied by accident.
    ///
    /// ```
    /// # use slipring::{Engine, Message, Record};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let orders = engine.topic::<Message>("orders").create()?;
    /// # let mut tape = orders.subscribe("tape").poll()?;
    /// # orders.producer().create()?.send(Record::new("buy"))?;
    /// let mut kept = Vec::new();
    /// for (message, _) in &mut tape.poll(Duration::ZERO)?.unwrap() {
    ///     kept.push(message.copy());
    /// }
    /// assert_eq!(kept[0].value(), b"buy");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy(&self) -> Self {
        let Self { key, value, headers, time, .. } = *self;
        Self { cell: BytesMut::from(&self.cell[..self.size()]), key, value, headers, time }
    }

    /// Replaces `other` by a [copy](Self::copy) of this message, in the memory of `other` if that is large enough.
    /// `other` is itself a copy, not a message in a slot.
    pub(crate) fn copy_to(&self, other: &mut Self) {
        other.cell.clear();
        other.cell.extend_from_slice(&self.cell[..self.size()]);
        let Self { key, value, headers, time, .. } = *self;
        (other.key, other.value, other.headers, other.time) = (key, value, headers, time);
    }

    /// The key; `None` if the record had none.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        (self.key != NO_KEY).then(|| &self.cell[..self.key as usize])
    }

    #[inline]
    fn key_len(&self) -> usize {
        if self.key == NO_KEY { 0 } else { self.key as usize }
    }

    /// The value's bytes; empty if the record's value was empty.
    #[inline]
    pub fn value(&self) -> &[u8] {
        let from = self.key_len();
        &self.cell[from..from + self.value as usize]
    }

    /// The headers, in the order of the record.
    #[inline]
    pub fn headers(&self) -> Headers<'_> {
        let from = self.key_len() + self.value as usize;
        Headers { rest: &self.cell[from..from + self.headers as usize] }
    }

    /// The value of the first header with this name; `None` if there is none.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The [id](Record::id) of the message; `None` if the record had none.
    pub fn id(&self) -> Option<&[u8]> {
        self.header(Record::ID).filter(|id| !id.is_empty())
    }

    /// The record's own time; or else the time of publishing, if the topic has
    /// [`timestamps`](crate::TopicBuilder::timestamps); or else `None`.
    pub fn timestamp(&self) -> Option<Timestamp> {
        (self.time != NO_TIME).then_some(Timestamp::from_nanos(self.time))
    }

    /// The time before which queues do not deliver the message, from [`Record::due`] or [`Record::delay`]; `None` if
    /// neither was set.
    pub fn due(&self) -> Option<Timestamp> {
        let due = self.header(Record::DUE)?;
        let (nanos, delay) = due.split_first_chunk()?;
        matches!(delay.len(), 0 | 8).then(|| Timestamp::from_nanos(u64::from_le_bytes(*nanos)))
    }

    /// How long a queue holds the message back from `now` on: until the due time, but not longer than the delay with
    /// which the message was sent, if it had one. Zero if the due time has passed or none was set.
    pub(crate) fn waits(&self, now: Timestamp) -> Duration {
        let Some(due) = self.due() else { return Duration::ZERO };
        let delay = self.header(Record::DUE).and_then(|due| due.get(8..)?.try_into().ok().map(u64::from_le_bytes));
        due.since(now).min(delay.map_or(Duration::MAX, Duration::from_nanos))
    }

    /// Decodes a message from bytes that [`Persist`] encoded, into memory of its own. `None` if the lengths of its
    /// parts do not match the bytes. The headers are not checked.
    pub(crate) fn of_stored(bytes: &[u8]) -> Option<Self> {
        let cell = BytesMut::zeroed(bytes.len().checked_sub(STORED_HEAD)?);
        let mut message = Self { cell, key: NO_KEY, value: 0, headers: 0, time: NO_TIME };
        message.read(bytes).ok().map(|()| message)
    }

    /// Decodes a message from the bytes of its record in a [journal](crate::journal). `None` if the bytes are no
    /// message, or its headers do not decode.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = Self::of_stored(bytes)?;
        let headers = message.headers().map(|(name, value)| HEADER_HEAD + name.len() + value.len()).sum::<usize>();
        (headers == message.headers as usize).then_some(message)
    }

    /// Appends the bytes that the message of this record has in a [journal](crate::journal): the opposite of
    /// [`decode`](Self::decode). A [delay](Record::delay) counts from when a record is sent, so it is left out.
    ///
    /// ```
    /// use slipring::{Message, Record};
    ///
    /// let mut bytes = Vec::new();
    /// Message::encode(&Record::new("42").key("price").header("of", "acme"), &mut bytes);
    /// let message = Message::decode(&bytes).expect("these are the bytes of a message");
    /// assert_eq!((message.value(), message.key(), message.header("of")), (&b"42"[..], Some(&b"price"[..]), Some(&b"acme"[..])));
    /// ```
    pub fn encode(record: &Record<'_>, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; STORED_HEAD]);
        let Parts { key, value, headers, time } = Parts::write(record, out);
        let (lengths, time) = ([key, value, headers].map(u32::to_le_bytes), time.to_le_bytes());
        let head = lengths.as_flattened().iter().chain(&time).copied();
        out[at..].iter_mut().zip(head).for_each(|(byte, of_head)| *byte = of_head);
    }

    /// Appends the encoded message with another value. An error if the value is too long.
    pub(crate) fn write_with_value(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let len = u32::try_from(value.len()).map_err(|_| Unreadable("a value has less than 4 GiB"))?;
        [self.key, len, self.headers].iter().for_each(|len| out.extend_from_slice(&len.to_le_bytes()));
        out.extend_from_slice(&self.time.to_le_bytes());
        let (key, value_end) = (self.key_len(), self.key_len() + self.value as usize);
        [&self.cell[..key], value, &self.cell[value_end..self.size()]]
            .iter()
            .for_each(|part| out.extend_from_slice(part));
        Ok(())
    }

    /// Size of key, value and headers in bytes, as [`Record::size`] counts them.
    pub fn size(&self) -> usize {
        self.key_len() + (self.value + self.headers) as usize
    }

    /// Greatest size that fits into this message's cell, in bytes.
    pub fn capacity(&self) -> usize {
        self.cell.len()
    }

    /// Checks, before a slot is claimed, that a record has at most `largest` bytes, the topic's limit, and that the
    /// names of its headers are not too long.
    #[inline]
    pub(crate) fn check(record: &Record<'_>, largest: usize) -> Result<(), TooLarge> {
        let size = record.size();
        let name = record.headers.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        if size > largest || name > Record::MAX_HEADER_NAME { Err(TooLarge { size, largest }) } else { Ok(()) }
    }

    /// Copies a [checked](Self::check) record into this message. `now` is the time of publishing; `None` on topics
    /// without timestamps.
    #[inline]
    pub(crate) fn fill(&mut self, record: &Record<'_>, now: Option<Timestamp>) {
        let mut rest = &mut self.cell[..];
        self.key = NO_KEY;
        if let Some(key) = record.key {
            self.key = key.len() as u32;
            rest = put(rest, key);
        }
        self.value = record.value.len() as u32;
        rest = put(rest, record.value);
        let before = rest.len();
        for (name, value) in record.all_headers() {
            rest = put(rest, &(name.len() as u16).to_le_bytes());
            rest = put(rest, &(value.len() as u32).to_le_bytes());
            rest = put(rest, name.as_bytes());
            rest = put(rest, value);
        }
        self.headers = (before - rest.len()) as u32;
        self.time = time_of(record.timestamp.or(now));
    }

    /// Copies a [checked](Self::check) record whose bytes were [written](Parts::write) before.
    pub(crate) fn fill_parts(&mut self, parts: Parts, bytes: &[u8], now: Option<Timestamp>) {
        put(&mut self.cell[..], bytes);
        let Parts { key, value, headers, time } = parts;
        (self.key, self.value, self.headers) = (key, value, headers);
        self.time = if time == NO_TIME { time_of(now) } else { time };
    }
}

fn time_of(at: Option<Timestamp>) -> u64 {
    at.map_or(NO_TIME, |at| at.as_nanos().min(NO_TIME - 1))
}

/// The lengths of a record's parts in bytes, and its time. The bytes are stored elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    key: u32,
    value: u32,
    headers: u32,
    time: u64,
}

impl Parts {
    /// Appends a record's bytes to `bytes`, in the layout of a cell, and returns their lengths.
    pub(crate) fn write(record: &Record<'_>, bytes: &mut Vec<u8>) -> Self {
        bytes.extend_from_slice(record.key.unwrap_or_default());
        bytes.extend_from_slice(record.value);
        let before = bytes.len();
        for (name, value) in record.all_headers() {
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value);
        }
        Self {
            key: record.key.map_or(NO_KEY, |key| key.len() as u32),
            value: record.value.len() as u32,
            headers: (bytes.len() - before) as u32,
            time: time_of(record.timestamp),
        }
    }

    /// Size of key, value and headers in bytes.
    pub(crate) fn size(&self) -> usize {
        let key = if self.key == NO_KEY { 0 } else { self.key as usize };
        key + (self.value + self.headers) as usize
    }
}

impl Persist for Message {
    fn write(&self, out: &mut Vec<u8>) {
        [self.key, self.value, self.headers].iter().for_each(|len| out.extend_from_slice(&len.to_le_bytes()));
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.cell[..self.size()]);
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let short = Unreadable("a message has 20 bytes or more");
        let (key, rest) = bytes.split_first_chunk().ok_or(short)?;
        let (value, rest) = rest.split_first_chunk().ok_or(short)?;
        let (headers, rest) = rest.split_first_chunk().ok_or(short)?;
        let (time, rest) = rest.split_first_chunk().ok_or(short)?;
        let (key, value, headers) =
            (u32::from_le_bytes(*key), u32::from_le_bytes(*value), u32::from_le_bytes(*headers));
        let key_len = if key == NO_KEY { 0 } else { u64::from(key) };
        if key_len + u64::from(value) + u64::from(headers) != rest.len() as u64 {
            return Err(Unreadable("the parts of a message do not make the whole"));
        }
        let cell = self.cell.get_mut(..rest.len()).ok_or(Unreadable("a message is larger than `max_message`"))?;
        cell.copy_from_slice(rest);
        (self.key, self.value, self.headers, self.time) = (key, value, headers, u64::from_le_bytes(*time));
        Ok(())
    }

    fn layout() -> String {
        schema_layout(1)
    }

    fn time(&self) -> Option<Timestamp> {
        self.timestamp()
    }
}

/// The key of a recorded message, and the size of its value in bytes. `None` if it has no key, or if the bytes are no
/// message.
pub(crate) fn recorded_key(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let (key, rest) = bytes.split_first_chunk()?;
    let (value, _) = rest.split_first_chunk()?;
    let (key, value) = (u32::from_le_bytes(*key), u32::from_le_bytes(*value));
    // Key, value and headers have a length each; then come the time and the key.
    let key = if key == NO_KEY { None } else { bytes.get(RECORDED_HEAD..)?.get(..key as usize) };
    Some((key?, value))
}

/// Size of what stands before the key of a recorded message, in bytes.
const RECORDED_HEAD: usize = 20;

/// The layout of messages whose values have this schema. Schema 1 is that of a topic that names none.
pub(crate) fn schema_layout(schema: u32) -> String {
    if schema <= 1 { "slipring message 1".to_owned() } else { format!("slipring message 1, schema {schema}") }
}

#[inline(always)]
fn put<'c>(cell: &'c mut [u8], bytes: &[u8]) -> &'c mut [u8] {
    let (place, rest) = cell.split_at_mut(bytes.len());
    place.copy_from_slice(bytes);
    rest
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut shown = f.debug_struct("Message");
        shown.field("key", &self.key().map(text)).field("value", &text(self.value()));
        for (name, value) in self.headers() {
            shown.field(name, &text(value));
        }
        shown.finish()
    }
}

/// Iterator over the headers of a [`Message`]: names and values.
#[derive(Clone, Debug)]
pub struct Headers<'m> {
    rest: &'m [u8],
}

impl<'m> Iterator for Headers<'m> {
    type Item = (&'m str, &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_len, rest) = self.rest.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_len) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        self.rest = rest;
        // The name was copied from a `&str`, so it is valid UTF-8.
        Some((std::str::from_utf8(name).unwrap_or_default(), value))
    }
}
