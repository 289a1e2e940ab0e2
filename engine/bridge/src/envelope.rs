//! What the bridge writes into a stream: each message with the headers that say who wrote it, in which epoch, and where
//! the stream stands after it.

use crate::record::{Record, escape, escaped_len, unescape};
use slipring::clock::Timestamp;
use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

/// Who writes a stream: a journal, in an epoch, as one start of a bridge.
///
/// Each start of a bridge raises the epoch of the stream and draws a new nonce. So two processes that run on copies of one
/// journal's directory are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The id of the journal with the topic.
    pub journal: [u8; 16],
    /// The epoch, from 1.
    pub epoch: u64,
    /// A random number for each start of a bridge.
    pub nonce: u64,
}

/// As text: the journal's id, the epoch, and the nonce, with a dot between them; id and nonce in hexadecimal.
impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.{}.{:016x}", u128::from_be_bytes(self.journal), self.epoch, self.nonce)
    }
}

impl Writer {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (journal, epoch, nonce) = (parts.next()?, parts.next()?, parts.next()?);
        let journal = u128::from_str_radix(journal, 16).ok().filter(|_| journal.len() == 32)?.to_be_bytes();
        Some(Self { journal, epoch: epoch.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? })
    }
}

/// The kind of a message in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A record of the topic.
    Record,
    /// Several records of the topic, in order.
    Pack,
    /// A message without a record. The first mark of an epoch raises the stream's epoch; the marks behind it use up the
    /// sequence numbers that an older writer may have named. A later mark confirms what is in front of it.
    Mark,
    /// The last message of a bridge that was ended, and that has nothing on its way any more.
    End,
    /// A message in the place of records that were not copied, as the bridge was told to skip them.
    Skip,
}

/// Where a stream's records end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tip {
    /// The offset after the last record that the stream has; 0 if it has none.
    pub next: u64,
    /// The [checksum](Record::checksum) of that record; 0 if the stream has none.
    pub checksum: u32,
    /// How many records the stream has, those that were skipped not counted.
    pub count: u64,
}

/// The part of a message's headers by which a bridge finds out where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The kind of the message.
    pub kind: Kind,
    /// Who wrote the message.
    pub writer: Writer,
    /// Where the records end, this message included.
    pub tip: Tip,
    /// Where the records end without this message. It is the `tip` of the message in front of it, or records are missing.
    pub behind: Tip,
}

/// A message to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where the stream stands with the message.
    pub head: Head,
    /// The records: one of [`Kind::Record`], several of [`Kind::Pack`], none of other kinds.
    pub records: Vec<Record>,
    /// The first offset that was skipped; for [`Kind::Skip`] only.
    pub skipped_from: Option<u64>,
    /// The offset after the records that were passed over behind this message; 0 if none were.
    pub(crate) passed: u64,
}

/// The checksum that stands for skipped records.
const SKIPPED: u32 = 1;

impl Envelope {
    /// A record. Its writer, what it stands behind, and the count are set when it is sent.
    pub(crate) fn record(writer: Writer, record: Record) -> Self {
        let tip = Tip { next: record.offset + 1, checksum: record.checksum(), count: 0 };
        let head = Head { kind: Kind::Record, writer, tip, behind: Tip::default() };
        Self { head, records: vec![record], skipped_from: None, passed: 0 }
    }

    /// The place of the records from `from` up to `next`, exclusive.
    pub(crate) fn skip(writer: Writer, from: u64, next: u64) -> Self {
        let tip = Tip { next, checksum: SKIPPED, count: 0 };
        let head = Head { kind: Kind::Skip, writer, tip, behind: Tip::default() };
        Self { head, records: Vec::new(), skipped_from: Some(from), passed: 0 }
    }

    /// A mark, or an end, in a stream whose records end at `tip`.
    pub(crate) fn mark(kind: Kind, writer: Writer, tip: Tip) -> Self {
        Self { head: Head { kind, writer, tip, behind: tip }, records: Vec::new(), skipped_from: None, passed: 0 }
    }

    /// The names and values of the headers.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("Slipring-Head", self.head.to_string())];
        headers.extend(self.skipped_from.map(|from| ("Slipring-Skipped-From", from.to_string())));
        if let (Kind::Pack, [first, .., last]) = (self.head.kind, &self.records[..]) {
            headers.push(("Slipring-Partition", first.partition.to_string()));
            headers.push(("Slipring-First", first.offset.to_string()));
            headers.push(("Slipring-Last", last.offset.to_string()));
        } else if let Some(Record { partition, offset, key, headers: own, timestamp, .. }) = self.records.first() {
            headers.push(("Slipring-Partition", partition.to_string()));
            headers.push(("Slipring-Offset", offset.to_string()));
            headers.extend(key.as_ref().map(|key| ("Slipring-Key", escape(key))));
            headers.extend(timestamp.map(|time| ("Slipring-Time", time.as_nanos().to_string())));
            if !own.is_empty() {
                let own = own.iter().map(|(name, value)| format!("{}={}", escape(name.as_bytes()), escape(value)));
                headers.push(("Slipring-Headers", own.collect::<Vec<_>>().join("&")));
            }
        }
        headers
    }

    /// The value of the record, or all parts of several ones; empty for other kinds.
    pub fn payload(&self) -> Cow<'_, [u8]> {
        match &self.records[..] {
            [] => Cow::Borrowed(&[]),
            [record] if self.head.kind == Kind::Record => Cow::Borrowed(&record.value),
            records => {
                let mut bytes = Vec::with_capacity(records.iter().map(Record::packed_size).sum());
                records.iter().for_each(|record| record.pack(&mut bytes));
                Cow::Owned(bytes)
            }
        }
    }

    /// Adds the records of another one, which stands behind it.
    pub(crate) fn join(&mut self, other: Self) {
        self.records.extend(other.records);
        (self.head.kind, self.head.tip) = (Kind::Pack, other.head.tip);
        self.passed = other.passed;
    }

    /// The most bytes that the message takes on the wire, headers included.
    pub fn wire_size(&self) -> usize {
        // What stands around each header, and around all of them with the expected number and the stream's name.
        let headers = self.headers().iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        headers + 400 + self.payload().len()
    }
}

/// The most bytes that a message of one record takes on the wire, headers included, whatever its partition, offset and time are
/// and whoever writes it. So a producer knows it before the record has an offset.
pub(crate) fn wire_size<'r>(
    key: Option<&[u8]>,
    value: &[u8],
    headers: impl Iterator<Item = (&'r str, &'r [u8])>,
) -> usize {
    let key = key.map_or(0, |key| KEY_HEADER + escaped_len(key));
    let own = headers.map(|(name, value)| 2 + escaped_len(name.as_bytes()) + escaped_len(value)).sum::<usize>();
    // One pair less has an `&` behind it.
    let own = if own > 0 { OWN_HEADERS + own - 1 } else { 0 };
    *EMPTY_RECORD + value.len() + key + own
}

/// What stands around the key and around the record's own headers, in bytes: a name, and four bytes for each header.
const KEY_HEADER: usize = "Slipring-Key".len() + 4;
const OWN_HEADERS: usize = "Slipring-Headers".len() + 4;

/// The wire size of a record without key, value and headers.
static EMPTY_RECORD: LazyLock<usize> = LazyLock::new(|| {
    let writer = Writer { journal: [0xff; 16], epoch: u64::MAX, nonce: u64::MAX };
    let tip = Tip { next: u64::MAX, checksum: u32::MAX, count: u64::MAX };
    let head = Head { kind: Kind::Record, writer, tip, behind: tip };
    let timestamp = Some(Timestamp::from_nanos(u64::MAX));
    let record = Record { partition: u32::MAX, offset: u64::MAX, timestamp, ..Record::default() };
    Envelope { head, records: vec![record], skipped_from: None, passed: 0 }.wire_size()
});

/// The size in bytes, as [`slipring::Record::size`] counts it, of a message that surely takes at most `largest` bytes on the
/// wire: an escaped byte takes three.
pub(crate) fn surely_fits(largest: usize) -> usize {
    largest.saturating_sub(*EMPTY_RECORD + KEY_HEADER + OWN_HEADERS) / 3
}

impl fmt::Display for Tip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}.{}", self.next, self.checksum, self.count)
    }
}

impl Tip {
    fn parse(text: &str) -> Option<Self> {
        let (next, rest) = text.split_once('.')?;
        let (checksum, count) = rest.split_once('.')?;
        let checksum = u32::from_str_radix(checksum, 16).ok()?;
        Some(Self { next: next.parse().ok()?, checksum, count: count.parse().ok()? })
    }
}

impl Kind {
    const ALL: [(Self, &str); 5] = [
        (Self::Record, "record"),
        (Self::Pack, "pack"),
        (Self::Mark, "mark"),
        (Self::End, "end"),
        (Self::Skip, "skip"),
    ];
}

/// One header for all four parts: clients and servers search and copy each header of a message by itself, so four cost more.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Kind::ALL.into_iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name);
        write!(f, "{name};{};{};{}", self.writer, self.tip, self.behind)
    }
}

impl Head {
    /// The head of a message with these headers; `None` if a bridge did not write it.
    pub fn parse<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Option<Self> {
        let mut parts = header("Slipring-Head")?.split(';');
        let mut part = || parts.next();
        let (kind, writer, tip, behind) = (part()?, part()?, part()?, part()?);
        let (kind, _) = Kind::ALL.into_iter().find(|(_, name)| *name == kind)?;
        let head = Self { kind, writer: Writer::parse(writer)?, tip: Tip::parse(tip)?, behind: Tip::parse(behind)? };
        part().is_none().then_some(head)
    }
}

impl Record {
    /// The record of a message with these headers and this payload; `None` if it is no single record of a bridge, or if its
    /// checksum does not match.
    pub fn parse<'h>(header: impl Fn(&'static str) -> Option<&'h str>, payload: &[u8]) -> Option<Self> {
        Self::parse_one(&Head::parse(&header)?, header, payload)
    }

    fn parse_one<'h>(head: &Head, header: impl Fn(&'static str) -> Option<&'h str>, payload: &[u8]) -> Option<Self> {
        if head.kind != Kind::Record {
            return None;
        }
        let own = header("Slipring-Headers").unwrap_or_default();
        let own = own.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((String::from_utf8(unescape(name)?).ok()?, unescape(value)?))
        });
        let record = Self {
            partition: header("Slipring-Partition")?.parse().ok()?,
            offset: header("Slipring-Offset")?.parse().ok()?,
            key: header("Slipring-Key").map(unescape).map_or(Some(None), |key| key.map(Some))?,
            value: payload.to_vec(),
            headers: own.collect::<Option<_>>()?,
            timestamp: match header("Slipring-Time") {
                Some(nanos) => Some(Timestamp::from_nanos(nanos.parse().ok()?)),
                None => None,
            },
        };
        (record.checksum() == head.tip.checksum).then_some(record)
    }

    /// The records of a message with these headers and this payload, one or several. None if it has none, or if a checksum
    /// does not match.
    pub fn parse_all<'h>(header: impl Fn(&'static str) -> Option<&'h str>, payload: &[u8]) -> Vec<Self> {
        Head::parse(&header).map_or_else(Vec::new, |head| Self::parse_with(&head, header, payload))
    }

    /// As [`parse_all`](Self::parse_all), of a message whose head is known.
    pub(crate) fn parse_with<'h>(
        head: &Head,
        header: impl Fn(&'static str) -> Option<&'h str>,
        mut payload: &[u8],
    ) -> Vec<Self> {
        if head.kind != Kind::Pack {
            return Self::parse_one(head, header, payload).into_iter().collect();
        }
        let partition = header("Slipring-Partition").and_then(|number| number.parse().ok());
        let Some(partition) = partition else { return Vec::new() };
        let records: Vec<_> = std::iter::from_fn(|| Self::unpack(&mut payload, partition)).collect();
        let is_whole = payload.is_empty()
            && Some(records.len() as u64) == head.tip.count.checked_sub(head.behind.count)
            && records.last().is_some_and(|last| last.checksum() == head.tip.checksum);
        if is_whole { records } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_from_its_headers_as_it_was() {
        let writer = Writer { journal: [0xa7; 16], epoch: 3, nonce: 9 };
        let record = Record {
            partition: 4,
            offset: 17,
            key: Some(b"ac\r\nme".to_vec()),
            value: vec![0, 1, 2],
            headers: vec![("b".to_owned(), vec![0xff]), ("a".to_owned(), Vec::new()), ("b".to_owned(), b"=&".to_vec())],
            timestamp: Some(Timestamp::from_nanos(5)),
        };
        for record in [record, Record { key: Some(Vec::new()), ..Record::default() }, Record::default()] {
            let envelope = Envelope::record(writer, record.clone());
            let headers = envelope.headers();
            let header =
                |name: &'static str| headers.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value);
            assert_eq!(Head::parse(header), Some(envelope.head));
            assert_eq!(Record::parse(header, &envelope.payload()), Some(record.clone()));
            assert_eq!(Record::parse_all(header, &envelope.payload()), vec![record.clone()]);
            assert_eq!(Record::parse(header, b"other"), None, "the checksum is of the value too");
            assert!(headers.iter().all(|(_, value)| value.bytes().all(|byte| byte.is_ascii_graphic())));
        }
        assert_eq!(Head::parse(|_| None), None);
    }

    #[test]
    fn a_size_on_the_wire_is_known_before_the_record_has_an_offset() {
        let writer = Writer { journal: [0xff; 16], epoch: u64::MAX, nonce: u64::MAX };
        let tip = Tip { next: u64::MAX, checksum: u32::MAX, count: u64::MAX };
        let parts = [&b""[..], b"plain", b"a b\r\n\xff", &[0xff; 40]];
        for (key, value) in parts.iter().flat_map(|key| parts.iter().map(move |value| (*key, *value))) {
            for headers in 0..3 {
                let headers = vec![("a header".to_owned(), key.to_vec()); headers];
                let largest = Record {
                    partition: u32::MAX,
                    offset: u64::MAX,
                    key: Some(key.to_vec()),
                    value: value.to_vec(),
                    headers,
                    timestamp: Some(Timestamp::from_nanos(u64::MAX)),
                };
                let size = wire_size(largest.key.as_deref(), &largest.value, largest.named_headers());
                let usual = Record { partition: 0, offset: 0, timestamp: None, ..largest.clone() };
                let mut envelope = Envelope::record(writer, usual);
                assert!(envelope.wire_size() < size);
                (envelope.head.tip, envelope.head.behind) = (tip, tip);
                envelope.records = vec![largest.clone()];
                assert_eq!(envelope.wire_size(), size);
                // One without any bytes is never measured.
                let fits = |limit: &usize| surely_fits(*limit) >= largest.to_send().size().max(1);
                assert!((0..4000).find(fits).expect("a limit that is large enough") >= size);
            }
        }
    }

    #[test]
    fn a_pack_comes_back_whole_or_not_at_all() {
        let writer = Writer { journal: [1; 16], epoch: 1, nonce: 1 };
        let record = |offset| Record { partition: 2, offset, value: vec![offset as u8], ..Record::default() };
        let mut pack = Envelope::record(writer, record(5));
        [7, 8].into_iter().for_each(|offset| pack.join(Envelope::record(writer, record(offset))));
        pack.head.tip.count = 3;
        let headers = pack.headers();
        let header = |name: &'static str| headers.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value);
        assert_eq!((header("Slipring-First"), header("Slipring-Last")), (Some("5"), Some("8")));
        let payload = pack.payload();
        assert_eq!(Record::parse_all(header, &payload), [5, 7, 8].map(record));
        assert_eq!(Record::parse_all(header, &payload[..payload.len() - 33]), []);
        assert_eq!(Record::parse_all(header, &[&payload[..], &[0]].concat()), []);
        assert_eq!(Record::parse(header, &payload), None);
        assert!(pack.wire_size() > payload.len());
    }
}
