//! Commits of a part of a batch, and commits with metadata.

use super::GroupBatch;
use crate::base::kind::Producers;
use crate::group::error::CommitError;
use crate::group::settings::Commit;
use crate::log::offsets::commit_word;

impl<E: Send + Sync + 'static, K: Producers> GroupBatch<'_, E, K> {
    /// Commits the events below `offset`. They leave the batch, and producers may overwrite them.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// # let mut member = ticks.group("sums").join()?;
    /// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
    /// let mut batch = member.poll(Duration::ZERO)?.unwrap();
    /// batch.commit_to(2)?;
    /// drop(batch);
    /// let again = member.poll(Duration::ZERO)?.unwrap();
    /// assert!(again.iter().map(|(_, at)| at.offset).eq([2]));
    /// # drop(again);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The member was fenced, or the offset is outside of the batch. Nothing is committed.
    pub fn commit_to(&mut self, offset: u64) -> Result<(), CommitError> {
        self.check(offset)?;
        let Some(held) = &mut self.held else { return Ok(()) };
        held.commit_to(offset)?;
        // A commit counts as progress, like a poll, for the member's deadline.
        held.signal.see(held.group.now());
        Ok(())
    }

    /// Commits the whole batch, as [`commit`](Self::commit) does, and keeps `metadata` with the committed offset. See
    /// [`commit_to_with_metadata`](Self::commit_to_with_metadata).
    ///
    /// ```
    /// # use slipring::{Engine, topic::TopicPartition};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").create()?;
    /// let mut member = ticks.group("sums").join()?;
    /// ticks.producer().create()?.publish_batch(3, |index, tick| *tick = index as u64)?;
    /// let batch = member.poll(Duration::from_secs(5))?.unwrap();
    /// let sum: u64 = batch.iter().map(|(tick, _)| tick).sum();
    /// batch.commit_with_metadata(sum.to_string().as_bytes())?;
    /// drop(member);
    /// let mut next = ticks.group("sums").join()?;                 // of another process, if the topic is durable
    /// next.poll(Duration::ZERO)?;
    /// assert_eq!(next.metadata(&TopicPartition::new("ticks", 0))?.as_deref(), Some(&b"3"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The member was fenced, or the metadata is too long. Nothing is committed.
    pub fn commit_with_metadata(mut self, metadata: &[u8]) -> Result<(), CommitError> {
        match self.held.as_ref().map(|held| held.end) {
            Some(end) => self.commit_to_with_metadata(end, metadata),
            None => Ok(()),
        }
    }

    /// Commits the events below `offset`, as [`commit_to`](Self::commit_to) does, and keeps `metadata` with the committed
    /// offset: bytes of your own, such as the place of the effects of these events elsewhere. On a durable topic the journal
    /// has them with the offset. Up to [`MAX_METADATA`](crate::group::MAX_METADATA) bytes; none removes what there is.
    ///
    /// A commit of another offset without metadata leaves none, and so does a seek. A commit of the same offset keeps it, and
    /// it goes along where the group passes over offsets without an event: after this call with the batch's last offset, [`commit_durable`](Self::commit_durable) makes both
    /// durable. If the journal's state has no room for the metadata, which takes space in each of its segments, it keeps the
    /// offset alone, and a durable commit returns the refusal.
    ///
    /// [`Member::metadata`](crate::group::Member::metadata), [`Engine::groups`](crate::Engine::groups) and the command
    /// `slipring group describe` read it. For a commit in one frame with a transaction there is no metadata: publish what it
    /// would say into a topic.
    ///
    /// # Errors
    /// The member was fenced, the offset is outside of the batch, or the metadata is too long. Nothing is committed.
    pub fn commit_to_with_metadata(&mut self, offset: u64, metadata: &[u8]) -> Result<(), CommitError> {
        let metadata = commit_word::checked(metadata)?;
        self.check(offset)?;
        let Some(held) = &mut self.held else { return Ok(()) };
        // With `AtMostOnce` the whole batch was committed before it was returned, and the metadata belongs to that commit.
        let committed = if held.commit == Commit::AtMostOnce { held.end } else { offset };
        if !held.right.commit_with_metadata(committed, metadata) {
            return Err(held.group.fenced(held.epoch).into());
        }
        held.events.pass_over_to(offset);
        held.events.release();
        held.signal.see(held.group.now());
        Ok(())
    }

    /// An error if `offset` is outside of the batch.
    fn check(&self, offset: u64) -> Result<(), CommitError> {
        let (first, end) = self.held.as_ref().map_or((0, 0), |held| (held.first(), held.end));
        if self.held.is_none() || !(first..=end).contains(&offset) {
            return Err(CommitError::OutOfBatch { asked: offset, first, end });
        }
        Ok(())
    }
}
