//! The group's side of membership: joining, updates, releasing partitions, and leaving.

use super::{Group, NumberedTopics};
use crate::base::kind::Producers;
use crate::base::trace::lifecycle;
use crate::group::assigned_partition::{AssignedPartition, Feed, JoinRequest, MemberUpdate};
use crate::group::assignment::{MemberId, PartitionKey};
use crate::group::catch_up::CatchUpReader;
use crate::group::coordinator::UnknownMember;
use crate::group::error::GroupError;
use crate::group::signal::MemberSignal;
use crate::group::topics::MemberTopics;
use crate::log::offsets::commit_right::CommitRight;
use crate::topic::TopicCore;
use slipring_ring::Wait;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

impl<E: Send + Sync + 'static, K: Producers> Group<E, K> {
    /// Joins a member that reads `wanted`.
    pub(super) fn join(
        &self,
        asked: &JoinRequest<E, K>,
        wanted: &Arc<MemberTopics<E, K>>,
    ) -> Result<(MemberId, Arc<MemberSignal>), GroupError> {
        if let Some(host) = self.host.upgrade() {
            let refused =
                |cause: std::io::Error| GroupError::Thread { group: self.name.clone(), cause: cause.to_string() };
            host.timer.start().map_err(refused)?;
        }
        let all = wanted.all();
        let topics: Vec<&Arc<TopicCore<E, K>>> = all.iter().collect();
        if topics.is_empty() && !wanted.has_pattern() {
            return Err(GroupError::NoTopics { group: self.name.clone() });
        }
        all.iter().try_for_each(|topic| self.check_engine(topic))?;
        wanted.check_all(&self.name)?;
        let now = self.now();
        // No partition is added to a topic while its readers are locked. So the group gets each partition once: the
        // present ones below, and later ones through the reader that is added below.
        let mut readers: Vec<_> = topics.iter().map(|topic| topic.readers()).collect();
        let mut state = self.state();
        state.unused_since = None;
        self.expire(&mut state, now);
        if let Some(assignor) = asked.assignor {
            let there = state.coordinator.assignor();
            if assignor != there && state.coordinator.has_members() {
                return Err(GroupError::Assignor { group: self.name.clone(), there, asked: assignor });
            }
            state.coordinator.set_assignor(assignor);
        }
        let numbered: NumberedTopics<'_, E, K> =
            topics.iter().map(|&topic| (state.number_of(&self.name, topic), topic)).collect();
        let numbers: BTreeSet<u32> = numbered.keys().copied().collect();
        let joined = self.open_gates(&mut state, &numbered, wanted.start()).and_then(|begun| {
            let name = asked.name.as_deref();
            let joined = state.coordinator.join(name, numbers, asked.deadline, now);
            let member = || name.unwrap_or_default().to_owned();
            let joined = joined.map_err(|_| GroupError::NameTaken { group: self.name.clone(), member: member() });
            Ok((joined?, begun))
        });
        match &joined {
            Ok((member, _)) => {
                state.hold = asked.hold.unwrap_or(state.hold);
                self.join_new_partitions(&mut state, &topics, &mut readers, asked.spill);
                state.subscriptions.insert(*member, Arc::downgrade(wanted));
                if wanted.has_pattern() {
                    state.patterns.insert(*member);
                }
            }
            Err(_) => state.close_gates(),
        }
        let number = joined.as_ref().map_or(0, |(member, _)| *member);
        let signal = Arc::new(MemberSignal::new(number, now));
        if let Ok((member, _)) = joined {
            state.signals.insert(member, Arc::clone(&signal));
            lifecycle!(info, "member joined", group = self.name, member = member);
        }
        self.settle(&mut state);
        drop(state);
        drop(readers);
        let (member, begun) = joined?;
        if begun && let Err(refused) = self.write_down(&all) {
            self.leave(member, Vec::new(), true);
            return Err(refused);
        }
        Ok((member, signal))
    }

    /// Returns the changes for a member since its last update, with a ring consumer or a reader of the journal for each
    /// newly assigned partition. An error if the member was fenced.
    ///
    /// Removes the topics that were deleted from `topics`, those of the member.
    pub(super) fn take_update(
        &self,
        member: MemberId,
        topics: &MemberTopics<E, K>,
    ) -> Result<MemberUpdate<E, K>, UnknownMember> {
        let now = self.now();
        let mut state = self.state();
        self.expire(&mut state, now);
        let changes = state.coordinator.sync(member);
        self.settle(&mut state);
        let changes = changes?;
        let is_known = |topic: &TopicCore<E, K>| state.number_of_id(topic.id).is_some();
        let deleted = topics.retain(is_known);
        let mut update = MemberUpdate {
            epoch: changes.epoch,
            revoked: changes.revoked,
            given: Vec::new(),
            over: state.is_over(member),
            refused: None,
        };
        for id in changes.given {
            let Some(source) = state.topics.get(&id.topic) else { continue };
            let (topic, stats) = (source.topic.upgrade(), Arc::clone(&source.stats));
            let Some(entry) = state.entries.get_mut(&id) else { continue };
            let consumer = entry.consumer.take();
            let catching_up = std::mem::take(&mut entry.catching_up);
            match (topic, entry.committed) {
                (Some(topic), Some(committed)) if consumer.is_some() || catching_up => {
                    let epoch = changes.epoch;
                    let committed_offset =
                        entry.committed_offset.as_ref().map(|committed_offset| (Arc::clone(committed_offset), epoch));
                    let right = Arc::new(CommitRight::new(committed, entry.metadata.take(), committed_offset));
                    entry.right = Some(Arc::clone(&right));
                    let (name, partition) = (entry.name.clone(), Arc::clone(&entry.partition));
                    let part = (topic.settings.capacity / 4).max(1);
                    let (paused, ended) = (false, false);
                    let feed = match consumer {
                        Some(consumer) => Feed::Ring(consumer),
                        None => {
                            right.set_catching_up(true);
                            let (topic, partition) = (Arc::clone(&topic), Arc::clone(&partition));
                            let reader = CatchUpReader::new(topic, partition, &self.name, committed, Wait::default());
                            Feed::Journal(Box::new(reader))
                        }
                    };
                    update.given.push(AssignedPartition {
                        id,
                        name,
                        topic,
                        partition,
                        feed,
                        right,
                        stats,
                        part,
                        paused,
                        ended,
                    });
                }
                _ => {
                    let reason = entry.partition.ring.closed().unwrap_or(slipring_ring::Closed::Closed).into();
                    let (group, topic) = (self.name.clone(), entry.name.topic.to_string());
                    update.refused = Some(GroupError::Closed { group, topic, reason });
                }
            }
        }
        if update.refused.is_none() {
            update.refused = state.refusals.get_mut(&member).and_then(VecDeque::pop_front);
        }
        if let (Some(signal), Some(_)) =
            (state.signals.get(&member), state.refusals.get(&member).filter(|more| !more.is_empty()))
        {
            signal.notify();
        }
        drop(state);
        drop(deleted);
        Ok(update)
    }

    /// Takes back the revoked partitions of a member, and gives them to other members.
    pub(super) fn release(&self, member: MemberId, revoked: &[PartitionKey], partitions: Vec<AssignedPartition<E, K>>) {
        let mut state = self.state();
        let late = state.park(partitions);
        // An error means that the member was fenced: the group took its partitions back then.
        let _ = state.coordinator.release(member, revoked);
        state.close_gates();
        self.settle(&mut state);
        drop(state);
        drop(late);
    }

    /// Removes a member, and takes back its partitions. If the member has a name and `for_good` is false, they stay
    /// reserved for it.
    pub(super) fn leave(&self, member: MemberId, partitions: Vec<AssignedPartition<E, K>>, for_good: bool) {
        let now = self.now();
        let mut state = self.state();
        let late = state.park(partitions);
        if state.signals.remove(&member).is_some() {
            state.forget_member(member);
            lifecycle!(info, "member left", group = self.name, member = member);
            state.coordinator.leave(member, for_good, now);
            self.expire(&mut state, now);
            state.close_gates();
            self.settle(&mut state);
        }
        drop(state);
        self.drained.notify_all();
        drop(late);
    }
}
