//! A record on its way to another machine: an owned copy of a message, and its checksum.

use slipring::Message;
use slipring::clock::Timestamp;
use std::fmt::Write as _;

/// A message as it is copied: value, key, headers and time, with its partition and offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The partition's number, from 0.
    pub partition: u32,
    /// The message's offset in its partition.
    pub offset: u64,
    /// The key; `None` if the message has none.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Vec<u8>,
    /// The headers' names and values, in the order of the message.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The message's time; `None` if it has none.
    pub timestamp: Option<Timestamp>,
}

impl Record {
    /// Copies a message.
    pub fn of(message: &Message, partition: u32, offset: u64) -> Self {
        Self {
            partition,
            offset,
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().to_vec(),
            headers: message.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            timestamp: message.timestamp(),
        }
    }

    /// The record as it is sent to a topic, with its key, headers and time, but without partition and offset.
    pub fn to_send(&self) -> slipring::Record<'_> {
        let mut record = slipring::Record::new(&self.value);
        if let Some(key) = &self.key {
            record = record.key(key);
        }
        if let Some(time) = self.timestamp {
            record = record.timestamp(time);
        }
        self.headers.iter().fold(record, |record, (name, value)| record.header(name, value))
    }

    /// The headers' names and values.
    pub(crate) fn named_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The CRC-32C of the partition, the offset and all parts of the message, each with its length. Two machines that
    /// compare it compare the whole record. Never 0, which stands for no record.
    pub fn checksum(&self) -> u32 {
        // The short parts are gathered, because a call for a few bytes costs as much as one for a hundred.
        let (mut sum, mut parts) = (0, Vec::with_capacity(64));
        let mut add = |bytes: &[u8]| {
            parts.extend((bytes.len() as u64).to_le_bytes());
            if bytes.len() <= SHORT {
                parts.extend(bytes);
            } else {
                sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &parts), bytes);
                parts.clear();
            }
        };
        add(&self.partition.to_le_bytes());
        add(&self.offset.to_le_bytes());
        add(&[u8::from(self.key.is_some())]);
        add(self.key.as_deref().unwrap_or_default());
        add(&self.value);
        add(&self.timestamp.map_or(u64::MAX, Timestamp::as_nanos).to_le_bytes());
        for (name, value) in &self.headers {
            add(name.as_bytes());
            add(value);
        }
        sum = crc32c::crc32c_append(sum, &parts);
        sum.max(1)
    }

    /// Appends the record to a pack: offset, time, the lengths of key and value, the count of headers, the checksum, and then
    /// the bytes of all parts.
    pub(crate) fn pack(&self, into: &mut Vec<u8>) {
        let mut word = |word: u32| into.extend(word.to_le_bytes());
        let key = self.key.as_ref();
        word(key.map_or(NONE, |key| key.len() as u32));
        word(self.value.len() as u32);
        word(self.headers.len() as u32);
        word(self.checksum());
        into.extend(self.offset.to_le_bytes());
        into.extend(self.timestamp.map_or(u64::MAX, Timestamp::as_nanos).to_le_bytes());
        into.extend(key.into_iter().flatten());
        into.extend(&self.value);
        for part in self.headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
            into.extend((part.len() as u32).to_le_bytes());
            into.extend(part);
        }
    }

    /// The size of the record in a pack, in bytes.
    pub(crate) fn packed_size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
        32 + self.key.as_ref().map_or(0, Vec::len) + self.value.len() + headers
    }

    /// Takes the first record of a pack; `None` if the bytes are malformed, or do not match the checksum.
    pub(crate) fn unpack(bytes: &mut &[u8], partition: u32) -> Option<Self> {
        let take = |bytes: &mut &[u8], count: usize| {
            let (taken, rest) = bytes.split_at_checked(count)?;
            *bytes = rest;
            Some(taken.to_vec())
        };
        let word = |bytes: &mut &[u8]| Some(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?));
        let long = |bytes: &mut &[u8]| Some(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?));
        let (key, value, count, checksum) = (word(bytes)?, word(bytes)?, word(bytes)?, word(bytes)?);
        let (offset, time) = (long(bytes)?, long(bytes)?);
        let mut record = Self {
            partition,
            offset,
            key: if key == NONE { None } else { Some(take(bytes, key as usize)?) },
            value: take(bytes, value as usize)?,
            headers: Vec::new(),
            timestamp: (time != u64::MAX).then_some(Timestamp::from_nanos(time)),
        };
        for _ in 0..count {
            let name = word(bytes)? as usize;
            let name = String::from_utf8(take(bytes, name)?).ok()?;
            let value = word(bytes)? as usize;
            record.headers.push((name, take(bytes, value)?));
        }
        (record.checksum() == checksum).then_some(record)
    }
}

/// The most bytes of a part that is copied before it is summed up.
const SHORT: usize = 32;

/// The length that stands for no key.
const NONE: u32 = u32::MAX;

/// Writes bytes as text for a header: letters, digits, `.`, `_`, `-` and `/` stand for themselves, any other byte is `%` and
/// two hexadecimal digits.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if is_plain(*byte) {
            text.push(*byte as char);
        } else {
            // Writing into a string never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The length of the text that [`escape`] writes.
pub(crate) fn escaped_len(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| if is_plain(*byte) { 1 } else { 3 }).sum()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)
}

/// The bytes that [`escape`] wrote; `None` if the text is malformed.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, more) = rest.split_first_chunk::<2>()?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = more;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_pass_through_a_header() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)), Some(all.clone()));
        assert_eq!(escape(&all).len(), escaped_len(&all));
        assert!(escape(&all).bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(escape(b"acme-7"), "acme-7");
        assert_eq!((unescape("%4"), unescape("%zz"), unescape("%é")), (None, None, None));
    }

    #[test]
    fn a_pack_holds_records_as_they_were_and_no_other_bytes() {
        let full = Record {
            partition: 3,
            offset: 9,
            key: Some(Vec::new()),
            value: vec![1, 2],
            headers: vec![("a".to_owned(), vec![0xff]), ("a".to_owned(), Vec::new())],
            timestamp: Some(Timestamp::from_nanos(7)),
        };
        let records = [full, Record { partition: 3, offset: 10, ..Record::default() }];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.pack(&mut bytes));
        assert_eq!(bytes.len(), records.iter().map(Record::packed_size).sum::<usize>());
        let mut rest = &bytes[..];
        let unpacked: Vec<_> = std::iter::from_fn(|| Record::unpack(&mut rest, 3)).collect();
        assert_eq!((&unpacked[..], rest.len()), (&records[..], 0));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let mut rest = &other[..];
            let read: Vec<_> = std::iter::from_fn(|| Record::unpack(&mut rest, 3)).collect();
            assert_ne!(read, records, "byte {at}");
            assert_ne!(
                std::iter::from_fn({
                    let mut rest = &bytes[..at];
                    move || Record::unpack(&mut rest, 3)
                })
                .count(),
                2
            );
        }
    }

    #[test]
    fn a_checksum_is_that_of_all_parts_one_behind_the_other() {
        for length in [0, SHORT - 1, SHORT, SHORT + 1, 200] {
            let (key, name, value) = (vec![1; length], "n".repeat(length), vec![2; length]);
            let record = Record {
                partition: 3,
                offset: 5,
                key: Some(key.clone()),
                value: value.clone(),
                headers: vec![(name.clone(), value.clone())],
                timestamp: None,
            };
            let parts: [&[u8]; 8] = [
                &3_u32.to_le_bytes(),
                &5_u64.to_le_bytes(),
                &[1],
                &key,
                &value,
                &u64::MAX.to_le_bytes(),
                name.as_bytes(),
                &value,
            ];
            let all = parts.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes()[..], part].concat());
            assert_eq!(record.checksum(), crc32c::crc32c(&all.collect::<Vec<u8>>()), "{length}");
        }
    }

    #[test]
    fn a_checksum_is_of_every_part() {
        let record = Record { partition: 1, offset: 2, key: Some(b"k".to_vec()), ..Record::default() };
        let others = [
            Record { partition: 2, ..record.clone() },
            Record { offset: 3, ..record.clone() },
            Record { key: None, value: b"k".to_vec(), ..record.clone() },
            Record { value: b"v".to_vec(), ..record.clone() },
            Record { headers: vec![("a".to_owned(), b"b".to_vec())], ..record.clone() },
            Record { timestamp: Some(Timestamp::from_nanos(0)), ..record.clone() },
        ];
        assert!(others.iter().all(|other| other.checksum() != record.checksum()));
        assert_eq!(record.checksum(), record.clone().checksum());
    }
}
