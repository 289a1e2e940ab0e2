//! Tests of the journal's promises on a simulated disk, with crashes, errors and damage of every kind.
//!
//! They are part of the library, not in `tests/`, because they use its private items.

mod compact;
mod copy;
mod crash;
mod damage;
mod errors;
mod full;
mod golden;
#[cfg(unix)]
mod hostile;
mod identity;
mod model;
mod repair;
mod retention;
mod scan;

use super::*;
use crate::simulated::SimulatedDisk;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The smallest segments and no helper thread, so that a run depends on its calls only.
pub(super) fn small() -> Options {
    Options { segment_size: 4096, helper: false, ..Options::default() }
}

pub(super) fn part(number: u32) -> PartitionId {
    PartitionId { topic: 1 + number / 2, partition: number % 2 }
}

/// The bytes of a record. They depend on its partition, offset and generation, so that no other record can be mistaken
/// for it.
pub(super) fn body(partition: PartitionId, offset: u64, generation: u64) -> Vec<u8> {
    let mut bytes = format!("{}/{}@{offset}#{generation}:", partition.topic, partition.partition).into_bytes();
    let filler = (offset * 7 + generation) % 90;
    bytes.extend((0..filler).map(|byte| (byte as u8).wrapping_mul(31).wrapping_add(offset as u8)));
    bytes
}

/// A frame as it was handed to the writer.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub records: Vec<(PartitionId, u64, Vec<u8>)>,
    pub puts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub reserved: Vec<(PartitionId, u64)>,
}

/// The frames in the order in which they were passed to the writer, with the count of acknowledged ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub frames: Vec<Said>,
    /// Count of the frames acknowledged as durable.
    pub acknowledged: usize,
    /// For each partition, the offset after its last issued one, acknowledged or not. No offset below may be issued
    /// again.
    pub issued: BTreeMap<PartitionId, u64>,
    pub generation: u64,
}

/// The records and the state values of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub records: BTreeMap<PartitionId, Vec<(u64, Vec<u8>)>>,
    pub values: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(super) const STATE_KIND: u16 = 9;

impl Story {
    /// The content after the first `frames` frames.
    pub fn content(&self, frames: usize) -> Content {
        let mut content = Content::default();
        for said in &self.frames[..frames] {
            for (partition, offset, bytes) in &said.records {
                content.records.entry(*partition).or_default().push((*offset, bytes.clone()));
            }
            for (key, value) in &said.puts {
                match value {
                    Some(value) => content.values.insert(key.clone(), value.clone()),
                    None => content.values.remove(key),
                };
            }
        }
        content
    }

    /// Count of the story's first frames that produce `content`; `None` if no prefix of the story does.
    pub fn prefix(&self, content: &Content) -> Option<usize> {
        (0..=self.frames.len()).rev().find(|frames| self.content(*frames) == *content)
    }

    /// Drops all but the first `frames` frames, as a crash did. Issued offsets stay issued.
    pub fn cut(&mut self, frames: usize) {
        self.frames.truncate(frames);
        self.acknowledged = frames;
        self.generation += 1;
    }

    /// Runs a workload of `steps` steps, or until the disk refuses. Offsets are issued below a durable reservation only.
    pub fn work(&mut self, writer: &mut Writer, dice: &mut Rng, steps: u64) -> Result<(), WriteError> {
        let mut next: BTreeMap<PartitionId, u64> = BTreeMap::new();
        let mut reserved: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for number in 0..3 {
            let extent = writer.state().extent(part(number)).unwrap_or_default();
            next.insert(part(number), extent.end.max(extent.reserved));
            reserved.insert(part(number), extent.reserved);
        }
        let mut positions: Vec<(u64, usize)> = Vec::new();
        let mut jobs: Vec<SyncJob> = Vec::new();
        for step in 0..steps {
            let mut frame = FrameBuilder::new();
            let mut said = Said::default();
            let mut wanted = Vec::new();
            for _ in 0..1 + dice.u64(..4) {
                let partition = part(dice.u64(..3) as u32);
                let offset = next[&partition];
                if offset >= reserved[&partition] {
                    wanted.push(partition);
                    continue;
                }
                let bytes = body(partition, offset, self.generation);
                frame.record(partition, offset, None, &bytes);
                said.records.push((partition, offset, bytes));
                next.insert(partition, offset + 1 + u64::from(dice.u64(..9) == 0));
                self.issued.insert(partition, offset + 1);
            }
            if dice.u64(..3) == 0 {
                let key = vec![b'k', dice.u64(..5) as u8];
                if dice.u64(..4) == 0 {
                    frame.delete(STATE_KIND, &key);
                    said.puts.push((key, None));
                } else {
                    let value = format!("value {step} of {}", self.generation).into_bytes();
                    frame.put(STATE_KIND, &key, &value);
                    said.puts.push((key, Some(value)));
                }
            }
            for partition in &wanted {
                writer.reserve(&mut frame, *partition, next[partition] + 6);
                said.reserved.push((*partition, next[partition] + 6));
            }
            if frame.is_empty() {
                continue;
            }
            // The frame is noted before it is written, because a failed write may still reach the disk.
            self.frames.push(said);
            let position = writer.append(&mut frame, 1000 + step)?;
            positions.push((position, self.frames.len()));
            if dice.u64(..5) == 0 && jobs.is_empty() && wanted.is_empty() {
                jobs.extend(writer.begin_sync());
            } else if dice.u64(..3) == 0 || !wanted.is_empty() {
                jobs.drain(..).try_for_each(|job| job.run().map(drop))?;
                writer.sync()?;
                if dice.u64(..3) == 0 && writer.wants_mark() {
                    writer.mark(1000 + step)?;
                }
            }
            let durable = writer.journal().durable();
            for (position, frames) in &positions {
                if *position <= durable {
                    self.acknowledged = *frames;
                }
            }
            for partition in wanted {
                reserved.insert(partition, next[&partition] + 6);
            }
        }
        jobs.drain(..).try_for_each(|job| job.run().map(drop))
    }
}

/// All records and state values of a journal, or the error that prevents reading them.
pub(super) fn content(journal: &Journal, state: &State) -> Result<Content, ReplayError> {
    let mut content = Content::default();
    for (partition, _) in state.extents() {
        let mut reader = journal.reader(partition, Start::Earliest, Visible::Written)?;
        while let Some(record) = reader.next()? {
            content.records.entry(partition).or_default().push((record.offset, record.bytes.to_vec()));
        }
    }
    content.values = state.values(STATE_KIND).map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    Ok(content)
}

/// Opens the journal after a crash and compares it with the story: all acknowledged frames exist, the content is a
/// prefix of the story, and no issued offset will be issued again.
pub(super) fn reopen(disk: &SimulatedDisk, options: &Options, story: &mut Story) -> Result<Writer, String> {
    let (writer, recovered) = open(Arc::new(disk.clone()), options.clone()).map_err(|refused| refused.to_string())?;
    let found = content(&writer.journal(), &recovered.state).map_err(|refused| refused.to_string())?;
    let Some(frames) = story.prefix(&found) else {
        return Err(format!("not a beginning of what was said: {found:?}"));
    };
    if frames < story.acknowledged {
        return Err(format!("{} frames were acknowledged, {frames} are there", story.acknowledged));
    }
    for (partition, issued) in &story.issued {
        let extent = recovered.state.extent(*partition).unwrap_or_default();
        if extent.end.max(extent.reserved) < *issued {
            return Err(format!("{partition:?} would issue {extent:?} again, {issued} was reached"));
        }
    }
    story.cut(frames);
    Ok(writer)
}

#[test]
fn an_opening_tells_how_far_it_has_come() {
    let disk = SimulatedDisk::new();
    let options = Options { segment_size: 2 << 20, helper: false, ..Options::default() };
    let (mut writer, _) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let mut frame = FrameBuilder::new();
    for offset in 0..100 {
        frame.record(part(0), offset, None, &[7; 60_000]);
        writer.append(&mut frame, 1).unwrap();
    }
    writer.sync().unwrap();
    let after = disk.crash(3);
    let mut heard = Vec::new();
    let (_, recovered) = open_with(Arc::new(after.clone()), options, &mut |now| heard.push(now)).unwrap();
    assert!(heard.len() > 3 && heard.is_sorted_by_key(|now| now.read), "{heard:?}");
    assert!(heard.iter().all(|now| now.read <= now.total));
    let last = heard.last().unwrap();
    assert!(last.read >= recovered.scanned - 4096 && last.total - last.read < 4096, "{last:?}, {}", recovered.scanned);
    let mut quiet = 0;
    drop(open_with(Arc::new(SimulatedDisk::new()), small(), &mut |_| quiet += 1).unwrap());
    assert_eq!(quiet, 0);
}
