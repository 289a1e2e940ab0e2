//! The bytes of a journal: segment headers, frames, and the entries in a frame. `docs/JOURNAL_FORMAT.md` draws them to scale.
//!
//! A length is used only after the checksum that covers it has matched. All numbers are little-endian.

mod builder;
mod entry;
mod header;
mod ids;
mod layout;
mod malformed;

pub use builder::FrameBuilder;
pub use entry::{Entries, Entry, Extent, Records, Run, StoredRecord, entries};
pub(crate) use entry::{RUN, trusted_entries};
pub use header::{Codec, FrameHeader, FrameKind, SegmentHeader, compress, decompress};
pub use ids::{JournalId, PartitionId};
pub use layout::{ALIGN, FRAME_HEADER, MAJOR, MAX_PAYLOAD, MAX_POSITION, MAX_SEGMENT, SEGMENT_HEAD, aligned};
pub use malformed::Malformed;

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId { topic: 7, partition: 3 };

    #[test]
    fn a_run_ends_where_offsets_partition_or_layout_change() {
        let mut frame = FrameBuilder::new();
        frame.record(P, 5, None, b"a");
        frame.record(P, 6, None, b"bc");
        frame.record(P, 8, None, b"");
        frame.fixed(P, 9, Some(77), b"four");
        frame.fixed(P, 10, Some(78), b"size");
        frame.put(9, b"key", b"value");
        frame.delete(9, b"key");
        frame.extent(P, Extent { start: 1, end: 11, reserved: 100 });
        frame.floor(4);
        frame.forget_topic(7);
        assert_eq!(frame.entries(), 8);
        let parsed: Vec<_> = entries(frame.payload()).collect::<Result<_, _>>().unwrap();
        let runs: Vec<Vec<_>> = parsed
            .iter()
            .filter_map(|entry| match entry {
                Entry::Run(run) => Some(run.records().map(|r| (r.offset, r.time, r.bytes)).collect()),
                _ => None,
            })
            .collect();
        assert_eq!(
            runs,
            [
                vec![(5, None, &b"a"[..]), (6, None, b"bc")],
                vec![(8, None, b"")],
                vec![(9, Some(77), b"four"), (10, Some(78), b"size")]
            ]
        );
        assert_eq!(parsed[3], Entry::Put { state_kind: 9, key: b"key", value: b"value" });
        assert_eq!(parsed[4], Entry::Delete { state_kind: 9, key: b"key" });
        assert_eq!(parsed[5], Entry::Extent(P, Extent { start: 1, end: 11, reserved: 100 }));
        assert_eq!(parsed[6], Entry::Floor(4));
        assert_eq!(parsed[7], Entry::TopicGone(7));
    }

    #[test]
    fn many_records_at_once_are_the_bytes_of_one_by_one() {
        let (mut one_by_one, mut at_once) = (FrameBuilder::new(), FrameBuilder::new());
        one_by_one.fixed(P, 6, None, b"four");
        at_once.fixed(P, 6, None, b"four");
        for (offset, bytes) in [(7, b"size"), (8, b"each"), (20, b"gaps"), (21, b"too.")] {
            one_by_one.fixed(P, offset, None, bytes);
        }
        at_once.fixed_run(P, 7, 2, 4, |out| out.extend_from_slice(b"sizeeach"));
        at_once.fixed_run(P, 9, 0, 4, |_| unreachable!("nothing is no run"));
        at_once.fixed_run(P, 20, 2, 4, |out| out.extend_from_slice(b"gapstoo."));
        assert_eq!(at_once.entries(), one_by_one.entries());
        assert_eq!(at_once.payload(), one_by_one.payload());
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let id = [7; 16];
        let header = FrameHeader {
            kind: FrameKind::Snapshot { first: true, last: false },
            codec: Codec::Lz4,
            stored: 100,
            raw: 300,
            position: 640,
            durable: 512,
            time: 9,
            incarnation: 2,
            entries: 3,
            previous: 4,
            payload: 5,
        };
        let (bytes, checksum) = header.encode(&id);
        assert_eq!(FrameHeader::decode(&id, 640, &bytes), Ok((header, checksum)));
        assert_eq!(FrameHeader::decode(&[8; 16], 640, &bytes), Err(Malformed::Checksum));
        assert_eq!(FrameHeader::decode(&id, 704, &bytes), Err(Malformed::Position(640)));
        let segment = SegmentHeader { version: 1, id, number: 3, first: 8192, size: 4096, incarnation: 2, lost: false };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        for bit in 0..512 {
            let (mut frame, mut head) = (bytes, segment.encode());
            frame[bit / 8] ^= 1 << (bit % 8);
            head[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&id, 640, &frame).is_err(), "bit {bit} of a frame");
            assert!(SegmentHeader::decode(&head).is_err(), "bit {bit} of a segment");
        }
    }

    #[test]
    fn what_no_program_of_this_version_writes_into_a_header_is_refused() {
        let id = [7; 16];
        let (kind, codec) = (FrameKind::Data, Codec::Plain);
        let header = FrameHeader {
            kind,
            codec,
            stored: 16,
            raw: 16,
            position: 640,
            durable: 0,
            time: 0,
            incarnation: 1,
            entries: 1,
            previous: 0,
            payload: 0,
        };
        let (mut frame, _) = header.encode(&id);
        frame[56] = 9;
        let checksum = header::frame_checksum(&id, &frame);
        frame[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(FrameHeader::decode(&id, 640, &frame), Err(Malformed::Reserved(9)));
        let segment = SegmentHeader { version: 1, id, number: 3, first: 8192, size: 4096, incarnation: 2, lost: false };
        let mut head = segment.encode();
        head[12] |= 2;
        let checksum = crc32c::crc32c(&head[..60]);
        head[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&head), Err(Malformed::Reserved(2)));
    }

    #[test]
    fn packed_payloads_come_back() {
        let plain = b"to be or not to be, or not to be, or to be".repeat(9);
        for codec in [Codec::Lz4, Codec::Zstd] {
            let Some(packed) = compress(codec, &plain) else {
                assert!(codec == Codec::Zstd && !cfg!(feature = "zstd"));
                assert_eq!(decompress(codec, &plain, plain.len()), Err(Malformed::NoZstd));
                continue;
            };
            assert!(packed.len() < plain.len());
            assert_eq!(decompress(codec, &packed, plain.len()).unwrap(), plain);
            assert!(decompress(codec, &packed, plain.len() + 1).is_err());
            assert!(decompress(codec, &packed[..packed.len() - 1], plain.len()).is_err());
            assert_eq!(compress(codec, b"x"), None, "would be larger");
        }
        assert_eq!(compress(Codec::Plain, &plain), None);
    }
}
