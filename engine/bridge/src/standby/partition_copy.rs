//! The copy of one stream in the journal of a standby.

use super::{StandbyError, now};
use crate::cursor::StreamCursor;
use crate::envelope::Kind;
use crate::position::Position;
use crate::record::Record;
use crate::remote::Remote;
use crate::stopped::{Halt, Stopped};
use slipring::Message;
use slipring::journal::{FrameBuilder, PartitionId, Start, Visible, Writer};
use std::time::Duration;

/// The copy of one stream.
pub(super) struct PartitionCopy<R> {
    pub(super) of: PartitionId,
    /// The name of the bridge that goes on after a takeover.
    pub(super) bridge: String,
    pub(super) topic: String,
    pub(super) max_message: usize,
    pub(super) remote: R,
    pub(super) cursor: StreamCursor,
    /// The offset after the last record in the journal, and the record's checksum.
    pub(super) end: u64,
    pub(super) checksum: u32,
    /// The offset below which the journal takes no record. After a crash it is above `end`.
    pub(super) floor: u64,
    /// True once the stream was found to have that record too.
    pub(super) has_met: bool,
    pub(super) position: Position,
}

/// The offset after the last record of a partition, and the record's checksum; 0 for both if it has none.
pub(super) fn last_record(writer: &Writer, of: PartitionId) -> Result<(u64, u32), StandbyError> {
    let journal = writer.journal();
    let Some(extent) = journal.extent(of).filter(|extent| extent.end > extent.start) else { return Ok((0, 0)) };
    // Offsets have gaps, so a few are looked at, and more if these have no record.
    let (mut last, mut back) = (None, 1);
    while last.is_none() {
        let from = extent.end.saturating_sub(back).max(extent.start);
        let mut reader = journal.reader(of, Start::Offset(from), Visible::Written)?.pass_gaps();
        while let Some(record) = reader.next()? {
            let copy = |message| Record::of(&message, of.partition, record.offset);
            last = Message::decode(record.bytes).map(copy).map(|record| (record.offset + 1, record.checksum()));
        }
        if from == extent.start {
            break;
        }
        back *= 16;
    }
    Ok(last.unwrap_or_default())
}

/// Why a copy was given up.
pub(super) enum CopyHalt {
    Halt(Halt),
    Standby(StandbyError),
}

impl<R: Remote> PartitionCopy<R> {
    /// Reads some messages, and adds their records to the frame, which is written when it is full.
    pub(super) fn read(
        &mut self,
        limit: Duration,
        writer: &mut Writer,
        frame: &mut FrameBuilder,
    ) -> Result<bool, CopyHalt> {
        let Self { of, remote, cursor, end, checksum, floor, has_met, topic, max_message, .. } = self;
        let (name, begins) = (remote.name(), *end);
        let (mut failed, mut bytes) = (None, Vec::new());
        let room = writer.frame_limit() / 2;
        let read = cursor.read(remote, limit, |tip| tip.next <= begins, |_, head, records| {
            let diverged = |next| Stopped::Diverged { stream: name.clone(), next };
            // Behind skipped records there is no checksum of a record.
            let ends = [Some(head.behind), Some(head.tip).filter(|_| head.kind != Kind::Skip)].into_iter().flatten();
            let mut ends: Vec<_> = ends.map(|tip| (tip.next, tip.checksum)).collect();
            ends.extend(records.iter().map(|record| (record.offset + 1, record.checksum())));
            if !*has_met && let Some((_, there)) = ends.iter().find(|(next, _)| next == end) {
                if there != checksum {
                    return Err(diverged(*end));
                }
                *has_met = true;
            }
            let from = *end;
            for record in records.iter().filter(|record| record.offset >= from) {
                if !*has_met {
                    return Err(diverged(record.offset));
                }
                if record.offset < *floor {
                    let (offset, floor) = (record.offset, *floor);
                    let reason = format!(
                        "offset {offset} is below {floor}, up to which a program that has crashed here may have given offsets out: begin with an empty directory"
                    );
                    failed = Some(StandbyError::Unfit { topic: topic.clone(), reason });
                    return Err(Stopped::Ended("the journal has refused a record".to_owned()));
                }
                let copy = record.to_send();
                bytes.clear();
                if copy.size() > *max_message {
                    let (size, offset) = (copy.size(), record.offset);
                    let reason = format!(
                        "the record at offset {offset} has {size} bytes, the topic takes {max_message}: open it with a larger `max_message`"
                    );
                    failed = Some(StandbyError::Unfit { topic: topic.clone(), reason });
                    return Err(Stopped::Ended("the record is too large".to_owned()));
                }
                Message::encode(&copy, &mut bytes);
                let time = record.timestamp.map(|time| time.as_nanos());
                if frame.len() + bytes.len() > room && !frame.is_empty() {
                    // A whole frame is written whole; the sync comes behind all of them.
                    if let Err(cause) = writer.append(frame, now()) {
                        failed = Some(cause.into());
                        return Err(Stopped::Ended("the journal has refused a record".to_owned()));
                    }
                }
                frame.record(*of, record.offset, time, &bytes);
                (*end, *checksum) = (record.offset + 1, record.checksum());
            }
            Ok(())
        });
        read.map_err(|halt| failed.map_or(CopyHalt::Halt(halt), CopyHalt::Standby))
    }
}
