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

    /// The CRC-32C of the partition, the offset and all parts of the message, each with its length. Two machines that
    /// compare it compare the whole record. Never 0, which stands for no record.
    pub fn checksum(&self) -> u32 {
        let mut sum = 0;
        let mut add = |bytes: &[u8]| {
            sum = crc32c::crc32c_append(sum, &(bytes.len() as u64).to_le_bytes());
            sum = crc32c::crc32c_append(sum, bytes);
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
        sum.max(1)
    }
}

/// Writes bytes as text for a header: letters, digits, `.`, `_`, `-` and `/` stand for themselves, any other byte is `%` and
/// two hexadecimal digits.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"._-/".contains(byte) {
            text.push(*byte as char);
        } else {
            // Writing into a string never fails.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
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
        assert!(escape(&all).bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(escape(b"acme-7"), "acme-7");
        assert_eq!((unescape("%4"), unescape("%zz"), unescape("%é")), (None, None, None));
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
