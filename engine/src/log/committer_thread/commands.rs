//! How the committer's thread executes the commands of other threads.

use super::{CommitterThread, Reply};
use crate::log::committer::Command;
use crate::log::compaction::EngineRules;
use crate::log::forget::forget;
use slipring_journal::{FrameBuilder, Freed, PartitionId, Retention, WriteError};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

impl CommitterThread {
    pub(super) fn take_commands(&mut self) -> Result<(), WriteError> {
        if !self.shared.has_commands.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let commands = self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take);
        for command in commands.into_iter().flatten() {
            match command {
                Command::Source(source) => {
                    // A new source takes the index of one that has ended, if there is one.
                    let list = &mut self.sources.list;
                    let place = list.iter().position(Option::is_none).unwrap_or(list.len());
                    if place == list.len() {
                        list.push(None);
                    }
                    list[place] = Some(source);
                    self.watch.add(place);
                }
                Command::Commit(frames, reply) => self.commit(frames, reply)?,
                Command::Append(frames, outcome) => {
                    let appended = self.append_all(frames, |_| ());
                    let _ = outcome.set(appended.clone());
                    appended.or_else(|refused| match refused {
                        WriteError::Poisoned(_) => Err(refused),
                        _ => Ok(()),
                    })?;
                }
                Command::Forget(topic, name, reply) => {
                    self.keeps.remove(&topic);
                    self.compactions.remove(&topic);
                    let writer = self.writer();
                    let limit = writer.frame_limit() / 2;
                    let frames = forget(writer.state(), &[Some(topic)].into(), Some(&name), limit);
                    self.commit(frames, reply)?;
                }
                Command::Keep(topic, retention) => {
                    if retention == Retention::default() {
                        self.keeps.remove(&topic);
                    } else {
                        self.keeps.insert(topic, retention);
                    }
                }
                Command::Retain(reply) => {
                    let freed = self.retain();
                    let outcome = freed.as_ref().map(|_| ()).map_err(WriteError::clone);
                    let _ = reply.send(freed);
                    outcome?;
                    if !self.compactions.is_empty() {
                        let (rules, now) = (Arc::new(self.compaction_rules()), self.now());
                        self.writer().end_segment_at_rest(&*rules, now)?;
                        self.writer().compact_if_due(rules)?;
                    }
                }
                Command::Compaction(topic, Some(compaction)) => _ = self.compactions.insert(topic, compaction),
                Command::Compaction(topic, None) => _ = self.compactions.remove(&topic),
                Command::Compact(reply) => {
                    let (rules, now) = (Arc::new(self.compaction_rules()), self.now());
                    if self.writer().end_segment_to_compact(&*rules, now)? {
                        // A pass looks at what is durable.
                        self.sync(true)?;
                    }
                    let _ = reply.send(self.writer().compact(rules));
                }
                Command::CommittedOffsets(reply) => match self.write_committed_offsets() {
                    Ok(Ok(())) => self.replies.push(reply),
                    Ok(Err(refused)) => _ = reply.send(Err(refused)),
                    Err(poisoned) => {
                        let _ = reply.send(Err(poisoned.clone()));
                        return Err(poisoned);
                    }
                },
                Command::Transaction(transaction, reply) => self.transactions.push_back((transaction, reply)),
                Command::Close(until) => _ = self.closing.get_or_insert(until),
            }
        }
        Ok(())
    }

    /// Deletes the records that are outside of their topics' retention and that no bridge needs. Their files are deleted once the deletion is
    /// durable.
    fn retain(&mut self) -> Result<Freed, WriteError> {
        let (now, keeps) = (self.now(), std::mem::take(&mut self.keeps));
        let floors = self.shared.bridges.floors();
        let of = |of: PartitionId| keeps.get(&of.topic).copied().unwrap_or_default();
        let freed = self.writer().retain_above(now, of, |of| floors.get(&of).cloned().unwrap_or_default());
        self.keeps = keeps;
        self.dirty_since.get_or_insert_with(Instant::now);
        freed
    }

    /// The rules of a pass of compaction that begins now.
    fn compaction_rules(&self) -> EngineRules {
        let floors = self.shared.bridges.floors().into_iter();
        let lowest = floors.filter_map(|(of, floors)| Some((of, floors.iter().map(|floor| floor.offset).min()?)));
        EngineRules { topics: self.compactions.clone(), floors: lowest.collect(), now: self.now() }
    }

    /// If a frame of `len` bytes needs a new segment that could not be created, because the disk was full or too many
    /// files were open, deletes the records that are outside of their topics' retention. If that frees segments, waits
    /// until the deletion is durable, and requests the new segment again. Does nothing if no topic has a retention.
    pub(super) fn free_first(&mut self, len: usize) -> Result<(), WriteError> {
        if self.keeps.is_empty() || !self.writer().lacks_room(len) {
            return Ok(());
        }
        if self.retain()?.segments > 0 {
            self.sync(true)?;
            self.writer().order_segment();
        }
        Ok(())
    }

    /// Writes frames in order, and calls `written` after each. At the first refused frame, returns the refusal and
    /// writes no more.
    fn append_all(
        &mut self,
        frames: impl IntoIterator<Item = FrameBuilder>,
        written: impl Fn(&mut Self),
    ) -> Result<(), WriteError> {
        let now = self.now();
        for mut frame in frames {
            self.free_first(frame.len())?;
            self.writer().append(&mut frame, now)?;
            self.note_state_room();
            written(self);
        }
        Ok(())
    }

    /// Shows other threads by how much the journal's state may still grow. Called after each frame. If there is more
    /// room than state sources found last, asks these again.
    pub(super) fn note_state_room(&mut self) {
        let room = self.writer().state_room();
        self.shared.state_room.store(room, Ordering::Release);
        if self.state_starved.is_some_and(|before| before < room) {
            self.state_starved = None;
            self.shared.notify_state_urgent();
        }
    }

    /// Writes frames, and replies when they are durable. With no frames: when all that was written before is durable.
    fn commit(&mut self, frames: impl IntoIterator<Item = FrameBuilder>, reply: Reply) -> Result<(), WriteError> {
        match self.append_all(frames, |it| _ = it.dirty_since.get_or_insert_with(Instant::now)) {
            Ok(()) => {
                self.replies.push(reply);
                Ok(())
            }
            Err(refused) => {
                let _ = reply.send(Err(refused.clone()));
                if matches!(refused, WriteError::Poisoned(_)) { Err(refused) } else { Ok(()) }
            }
        }
    }
}
