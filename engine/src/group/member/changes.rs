//! How a member applies changes of its partitions: it takes assigned ones, releases revoked ones, and drops lost ones.

use super::Member;
use crate::base::kind::Producers;
use crate::base::threads::blaming;
use crate::base::trace::lifecycle;
use crate::group::assigned_partition::Feed;
use crate::group::coordinator::UnknownMember;
use crate::group::error::GroupError;
use crate::group::listener::Rebalance;
use crate::log::offsets::commit_right::Fenced;
use slipring_ring::Closed;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

impl<E: Send + Sync + 'static, K: Producers> Member<E, K> {
    /// Returns the error for the partition `source`, whose topic was halted or has failed. If the member has other
    /// topics that were neither halted nor have failed, it drops all partitions of that topic, so that the error is
    /// returned only once.
    #[cold]
    pub(super) fn end_error(&mut self, source: usize, reason: Closed) -> GroupError {
        let Some((id, topic)) =
            self.partitions[source].as_ref().map(|assigned| (assigned.topic.id, assigned.name.topic.to_string()))
        else {
            return GroupError::Closed { group: self.group.name.clone(), topic: String::new(), reason: reason.into() };
        };
        if self.has_live_topics() {
            let is_its =
                |source: &usize| self.partitions[*source].as_ref().is_some_and(|assigned| assigned.topic.id == id);
            let its: Vec<usize> = (0..self.partitions.len()).filter(is_its).collect();
            let mut names = Vec::new();
            for source in its {
                self.watch.remove(source);
                if let Some(assigned) = self.partitions.take(source) {
                    // No more events come from the partition, so other members need not wait for its end.
                    self.group.end(&assigned);
                    names.push(assigned.name.clone());
                }
            }
            names.sort();
            self.notify_listener(&Rebalance::Lost(names));
        }
        GroupError::Closed { group: self.group.name.clone(), topic, reason: reason.into() }
    }

    /// Asks the group for changes: releases revoked partitions, and begins to read newly assigned ones.
    pub(super) fn take_update(&mut self) -> Result<(), GroupError> {
        // Set first: if a listener panics, the next poll asks again and applies the remaining changes.
        self.unsettled = true;
        self.signal.news.store(false, Ordering::SeqCst);
        let update = match self.group.take_update(self.id, &self.topics) {
            Ok(update) => update,
            Err(stale) => return Err(self.lose(stale).into()),
        };
        (self.epoch, self.over) = (update.epoch, update.over);
        let mut given = Vec::new();
        for mut assigned in update.given {
            given.push(assigned.name.clone());
            match &mut assigned.feed {
                Feed::Ring(consumer) => consumer.set_wait(self.settings.wait.clone()),
                Feed::Journal(reader) => {
                    reader.set_wait(self.settings.wait.clone());
                    // An error is ignored here: the first poll of the partition returns it.
                    let _ = reader.open(&mut self.scan);
                }
            }
            let place = self.partitions.add(assigned);
            self.watch.add(place);
        }
        let ids: HashSet<_> = update.revoked.iter().collect();
        let revoked: Vec<usize> = (0..self.partitions.len())
            .filter(|&source| self.partitions[source].as_ref().is_some_and(|assigned| ids.contains(&assigned.id)))
            .collect();
        if !update.revoked.is_empty() {
            let names = revoked.iter().filter_map(|&source| Some(self.partitions[source].as_ref()?.name.clone()));
            let names: Vec<_> = names.collect();
            if !names.is_empty() {
                let (_group, _id) = (&self.group.name, self.id);
                lifecycle!(
                    info,
                    "partitions revoked",
                    group = _group,
                    member = _id,
                    partitions = crate::group::listener::listed(&names)
                );
                self.notify_listener(&Rebalance::Revoked(names));
            }
            let partitions = revoked.into_iter().filter_map(|source| {
                self.watch.remove(source);
                self.partitions.take(source)
            });
            let partitions = partitions.collect();
            self.group.release(self.id, &update.revoked, partitions);
        }
        self.unsettled = false;
        if !given.is_empty() {
            let (_group, _id) = (&self.group.name, self.id);
            lifecycle!(
                info,
                "partitions assigned",
                group = _group,
                member = _id,
                partitions = crate::group::listener::listed(&given)
            );
            self.notify_listener(&Rebalance::Assigned(given));
        }
        update.refused.map_or(Ok(()), Err)
    }

    /// Drops all partitions of this member, which was fenced, and calls its listener. Returns the error for the caller.
    fn lose(&mut self, _: UnknownMember) -> Fenced {
        let names = self.assignment();
        // The group has given these partitions to other members already. A dropped consumer leaves its ring.
        drop(self.partitions.take_all());
        self.scan = None;
        if !names.is_empty() {
            self.notify_listener(&Rebalance::Lost(names));
        }
        self.group.fenced(self.epoch)
    }

    pub(super) fn notify_listener(&mut self, rebalance: &Rebalance) {
        if let Some(listener) = &mut self.listener {
            blaming("the listener", || listener(rebalance));
        }
    }
}
