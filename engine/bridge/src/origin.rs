//! Where an imported record comes from: a header that the import adds to the record, by which a bridge outward of the topic
//! knows the record and passes it over. So two machines can copy one topic both ways, and no record goes round.
//!
//! ```text
//!    machine A: producers --> topic --> outward --> streams of A --> inward --> topic      machine B
//!                              ^                                                 |
//!                              +--- inward <-- streams of B <-- outward <--------+ passes over what came from A
//! ```
//!
//! # Why no record is taken for an imported one
//! A program that reads imported records and publishes what it makes of them may copy their headers. So the header names the
//! topic for which the import has written it, by a checksum of the journal's id and the topic's number. In any other topic, or on
//! any other machine, the same bytes are a header as others.

use crate::record::Record;
use slipring::journal::{JournalId, PartitionId};

/// A topic as the headers of its imported records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImportedInto(u32);

impl ImportedInto {
    /// The topic with this number in this journal.
    pub(crate) fn new(journal: JournalId, topic: u32) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&journal), &topic.to_le_bytes()))
    }

    pub(crate) fn of(journal: JournalId, partition: PartitionId) -> Self {
        Self::new(journal, partition.topic)
    }
}

/// From which stream an imported record comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The journal whose bridge wrote the record into the stream.
    pub(crate) journal: JournalId,
    /// The record's count in the stream, from 1.
    pub(crate) count: u64,
}

impl Origin {
    /// The header's value.
    pub(crate) fn encode(&self, into: ImportedInto) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&self.journal);
        bytes[16..24].copy_from_slice(&self.count.to_le_bytes());
        bytes[24..].copy_from_slice(&into.0.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], into: ImportedInto) -> Option<Self> {
        let (journal, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let is_of_topic = rest == into.0.to_le_bytes();
        is_of_topic.then(|| Self { journal: *journal, count: u64::from_le_bytes(*count) })
    }
}

impl Record {
    /// The name of the header that an [`Import`](crate::Import) adds to each record of a durable topic, behind the record's own
    /// headers. Its value is the id of the journal from which the record comes (16 bytes), the record's count in the stream (8,
    /// little-endian), and a checksum of the topic into which it was imported (4).
    pub const ORIGIN: &str = "slipring-origin";

    /// The bytes that the header takes in a message: how much larger than at the origin the topic's
    /// [`max_message`](slipring::TopicBuilder::max_message) must be.
    pub const ORIGIN_SIZE: usize = slipring::Record::HEADER + Self::ORIGIN.len() + 28;

    /// True if an import has published this record of a journal's partition.
    pub fn is_imported(&self, journal: JournalId, partition: PartitionId) -> bool {
        self.origin(ImportedInto::of(journal, partition)).is_some()
    }

    /// Where the record comes from, if an import has published it into this topic. Only the last header is that of the import.
    pub(crate) fn origin(&self, into: ImportedInto) -> Option<Origin> {
        let (name, value) = self.headers.last()?;
        if name == Self::ORIGIN { Origin::decode(value, into) } else { None }
    }
}

/// Where an engine's record comes from, as [`Record::origin`].
pub(crate) fn origin_of(record: &slipring::Record<'_>, into: ImportedInto) -> Option<Origin> {
    let (name, value) = record.parts().2.last()?;
    if name == Record::ORIGIN { Origin::decode(value, into) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_holds_in_the_topic_for_which_it_was_written_and_as_the_last_one() {
        let into = ImportedInto::new([1; 16], 7);
        let origin = Origin { journal: [2; 16], count: 9 };
        let header = || (Record::ORIGIN.to_owned(), origin.encode(into).to_vec());
        let mut record = Record { headers: vec![("a".to_owned(), vec![1]), header()], ..Record::default() };
        assert_eq!(record.origin(into), Some(origin));
        assert_eq!(origin_of(&record.to_send(), into), Some(origin));
        let others = [ImportedInto::new([1; 16], 8), ImportedInto::new([2; 16], 7)];
        assert!(others.iter().all(|other| record.origin(*other).is_none()));
        let bare = Record { headers: Vec::new(), ..record.clone() };
        assert_eq!(record.to_send().size() - bare.to_send().size(), Record::ORIGIN_SIZE + slipring::Record::HEADER + 2);
        record.headers[1].1.pop();
        assert_eq!(record.origin(into), None);
        record.headers = vec![header(), ("a".to_owned(), vec![1])];
        assert_eq!((record.origin(into), origin_of(&record.to_send(), into)), (None, None));
    }
}
