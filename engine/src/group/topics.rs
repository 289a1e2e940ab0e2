//! The topics that a member reads, which may change while it is in the group: by its own calls, and by a pattern that
//! finds topics which are created later.
//!
//! A member's topics stand in two places, which change together under the group's lock: as numbers in the
//! [`Coordinator`](super::coordinator::Coordinator), which assigns partitions by them, and as references in the member's
//! [`MemberTopics`], which keep the topics alive and are what a fenced member joins again with. The group refers to
//! [`MemberTopics`] weakly, because a topic owns the engine, which owns the group.
//!
//! No topic that a pattern finds is missed. A topic is announced to the groups before the engine lists it, so that a
//! group has its consumers there before a producer can exist, and announced once more after it is listed. A member
//! registers its pattern when it joins, and then searches the list. So either the second announcement sees the pattern,
//! or the member's search, which comes after the registration, sees the topic in the list.

use super::assignment::MemberId;
use super::error::GroupError;
use super::state::{NewPartitions, SharedState};
use super::{Group, NumberedTopics, assigned_partition::JoinRequest};
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::base::trace::lifecycle;
use crate::read::StartAt;
use crate::topic::error::DeadLetterError;
use crate::topic::stage_name::stage_name;
use crate::topic::{Topic, TopicCore, TopicReader, TopicReaders};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The user's function that says, by a topic's name, whether a member is to read the topic.
pub(super) type TopicPattern = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What a member refuses to read, whoever adds the topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TopicRules {
    /// True if the group spills, so that a topic in memory is refused.
    pub(super) spills: bool,
    /// True if the member's outputs and offsets are in one transaction, so that a topic in memory is refused.
    pub(super) exactly_once: bool,
    /// The topic for the member's dead letters; `None` if it has none.
    pub(super) dead_letters: Option<TopicId>,
}

/// The topics of a member, which its handles share.
pub(super) struct MemberTopics<E, K: Producers> {
    list: Mutex<TopicList<E, K>>,
    pattern: Option<TopicPattern>,
    start: StartAt,
    rules: TopicRules,
}

struct TopicList<E, K: Producers> {
    /// Sorted by id.
    read: Vec<Arc<TopicCore<E, K>>>,
    /// Topics that the program has unsubscribed or that the group has refused, so that the pattern does not add them
    /// again.
    left_out: BTreeSet<TopicId>,
}

impl<E, K: Producers> MemberTopics<E, K> {
    /// Takes the topics and the pattern out of `asked`.
    pub(super) fn new(asked: &mut JoinRequest<E, K>) -> Self {
        let mut read = std::mem::take(&mut asked.topics);
        read.sort_by_key(|topic| topic.id);
        read.dedup_by_key(|topic| topic.id);
        let rules = TopicRules { spills: asked.spill == Some(true), ..asked.rules };
        let list = Mutex::new(TopicList { read, left_out: BTreeSet::new() });
        Self { list, pattern: asked.pattern.take(), start: asked.start.clone(), rules }
    }

    fn list(&self) -> MutexGuard<'_, TopicList<E, K>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topics now, sorted by id.
    pub(super) fn all(&self) -> Vec<Arc<TopicCore<E, K>>> {
        self.list().read.clone()
    }

    pub(super) fn start(&self) -> &StartAt {
        &self.start
    }

    pub(super) fn has_pattern(&self) -> bool {
        self.pattern.is_some()
    }

    pub(super) fn has(&self, topic: TopicId) -> bool {
        self.list().read.iter().any(|read| read.id == topic)
    }

    /// Adds a topic, also one that was left out. Does nothing if the member has it.
    fn add(&self, topic: &Arc<TopicCore<E, K>>) {
        let mut list = self.list();
        list.left_out.remove(&topic.id);
        if let Err(place) = list.read.binary_search_by_key(&topic.id, |read| read.id) {
            list.read.insert(place, Arc::clone(topic));
        }
    }

    /// Keeps the topics for which `keep` is true. Returns the others, which the caller drops without the group's lock.
    pub(super) fn retain(&self, mut keep: impl FnMut(&TopicCore<E, K>) -> bool) -> Vec<Arc<TopicCore<E, K>>> {
        self.list().read.extract_if(.., |topic| !keep(topic)).collect()
    }

    /// True if the pattern finds the topic, and the program has not unsubscribed it. Calls user code.
    ///
    /// # Errors
    /// The pattern has panicked. The error is the panic's message.
    fn finds(&self, topic: &TopicCore<E, K>) -> Result<bool, String> {
        let Some(pattern) = &self.pattern else { return Ok(false) };
        if self.list().left_out.contains(&topic.id) {
            return Ok(false);
        }
        caught(|| pattern(&topic.name)).map_err(|panic| panic.to_string())
    }

    /// Checks that the member may read a topic.
    fn check(&self, group: &str, topic: &TopicCore<E, K>) -> Result<(), GroupError> {
        let TopicRules { spills, exactly_once, dead_letters } = self.rules;
        let (group, name) = (group.to_owned(), topic.name.clone());
        if spills && topic.durable.is_none() {
            return Err(GroupError::NoJournal { group, topic: name });
        }
        if exactly_once && topic.durable.is_none() {
            let cause = "exactly once needs a durable topic: create it with `durable()`".to_owned();
            return Err(GroupError::Refused { group, topic: name, cause });
        }
        if dead_letters == Some(topic.id) {
            return Err(GroupError::DeadLetters { group, cause: DeadLetterError::Circle { topic: name }.to_string() });
        }
        Ok(())
    }

    /// Checks that the member may read all its topics.
    pub(super) fn check_all(&self, group: &str) -> Result<(), GroupError> {
        self.all().iter().try_for_each(|topic| self.check(group, topic))
    }
}

impl<E, K: Producers> SharedState<E, K> {
    /// True if topics that are created later may be added to this member.
    pub(super) fn awaits_topics(&self, member: MemberId) -> bool {
        !self.patterns_ended && self.patterns.contains(&member)
    }

    /// Removes what the group has of a member beside its partitions.
    pub(super) fn forget_member(&mut self, member: MemberId) {
        self.subscriptions.remove(&member);
        self.patterns.remove(&member);
        self.refusals.remove(&member);
    }
}

impl<E: Send + Sync + 'static, K: Producers> Group<E, K> {
    fn not_member(&self) -> GroupError {
        GroupError::NotMember { group: self.name.clone() }
    }

    /// Makes the group join the partitions that will be added to these topics, which it begins to read, and sets
    /// whether it spills there. `readers` are the locked readers of the topics, in their order.
    pub(super) fn join_new_partitions(
        &self,
        state: &mut SharedState<E, K>,
        topics: &[&Arc<TopicCore<E, K>>],
        readers: &mut [TopicReaders<'_, E, K>],
        spill: Option<bool>,
    ) {
        for (topic, readers) in topics.iter().zip(readers) {
            let number = state.number_of(&self.name, topic);
            let Some(source) = state.topics.get_mut(&number) else { continue };
            if let Some(spill) = spill {
                source.stats.set_spills(spill);
                topic.expect_evictions();
            }
            if source.reader.is_none() {
                let reader = Arc::new(NewPartitions {
                    group: Weak::clone(&self.this),
                    stage: stage_name(&self.name, 0),
                    topic: number,
                    topic_name: topic.name.clone(),
                });
                readers.add(Arc::downgrade(&reader) as Weak<dyn TopicReader<E, K>>);
                source.reader = Some(reader);
            }
        }
    }

    /// Makes these members read `topic` beside their other topics: all of them in one change of the group, and one
    /// assignment. Members that have it already are left as they are. The start of the first member counts.
    ///
    /// # Errors
    /// None of the members is in the group ([`GroupError::NotMember`]), the topic has ended, or the group cannot read it
    /// at that start. Then nothing has changed.
    pub(super) fn add_topic(
        &self,
        members: &[(MemberId, Arc<MemberTopics<E, K>>)],
        topic: &Arc<TopicCore<E, K>>,
    ) -> Result<(), GroupError> {
        let now = self.now();
        // No partition is added to the topic while its readers are locked, as in `join`.
        let mut readers = [topic.readers()];
        let mut state = self.state();
        self.expire(&mut state, now);
        let members: Vec<_> =
            members.iter().filter(|(member, _)| state.coordinator.topics_of(*member).is_some()).collect();
        let Some((_, first)) = members.first() else {
            self.settle(&mut state);
            return Err(self.not_member());
        };
        let number = state.number_of(&self.name, topic);
        let numbered: NumberedTopics<'_, E, K> = [(number, topic)].into();
        let opened = self.open_gates(&mut state, &numbered, first.start());
        match &opened {
            Ok(_) => {
                let spill = first.rules.spills.then_some(true);
                self.join_new_partitions(&mut state, &[topic], &mut readers, spill);
                let ids: Vec<_> = members.iter().map(|(member, _)| *member).collect();
                state.coordinator.change_topics(&ids, |topics| _ = topics.insert(number));
                members.iter().for_each(|(_, topics)| topics.add(topic));
                ids.iter().filter_map(|member| state.signals.get(member)).for_each(|signal| signal.notify());
            }
            Err(_) => state.close_gates(),
        }
        self.settle(&mut state);
        drop(state);
        drop(readers);
        if opened? && let Err(refused) = self.write_down(std::slice::from_ref(topic)) {
            for (member, topics) in members {
                // An error means that the member is not in the group, so it does not read the topic either.
                _ = self.remove_topic(*member, topics, topic.id, true);
            }
            return Err(refused);
        }
        Ok(())
    }

    /// Makes a member read `topic` no more, and, unless `by_pattern`, not again by its pattern. Returns false if it does
    /// not read the topic. The member gives up its partitions there at its next update.
    ///
    /// # Errors
    /// The member is not in the group, or this is its only topic and it has no pattern.
    pub(super) fn remove_topic(
        &self,
        member: MemberId,
        topics: &MemberTopics<E, K>,
        topic: TopicId,
        by_pattern: bool,
    ) -> Result<bool, GroupError> {
        let now = self.now();
        let mut state = self.state();
        self.expire(&mut state, now);
        let Some(read) = state.coordinator.topics_of(member) else {
            self.settle(&mut state);
            return Err(self.not_member());
        };
        let number = state.number_of_id(topic).filter(|number| read.contains(number));
        let is_last = read.len() == 1;
        if !by_pattern && topics.has_pattern() {
            topics.list().left_out.insert(topic);
        }
        let Some(number) = number else {
            self.settle(&mut state);
            return Ok(false);
        };
        if is_last && !topics.has_pattern() {
            self.settle(&mut state);
            return Err(GroupError::NoTopics { group: self.name.clone() });
        }
        state.coordinator.change_topics(&[member], |topics| _ = topics.remove(&number));
        let gone = topics.retain(|read| read.id != topic);
        state.close_gates();
        if let Some(signal) = state.signals.get(&member) {
            signal.notify();
        }
        self.settle(&mut state);
        drop(state);
        drop(gone);
        Ok(true)
    }

    /// Checks that the topic is one of the group's engine. Another one may have a topic of the same name, and has groups of its own.
    pub(super) fn check_engine(&self, topic: &TopicCore<E, K>) -> Result<(), GroupError> {
        if std::ptr::eq(self.host.as_ptr(), Arc::as_ptr(&topic.host)) {
            return Ok(());
        }
        let cause = "it belongs to another engine, and a group reads topics of one".to_owned();
        Err(GroupError::Refused { group: self.name.clone(), topic: topic.name.clone(), cause })
    }

    /// Adds `topic` to this member.
    ///
    /// # Errors
    /// As for [`add_topic`](Self::add_topic), or the member must not read the topic.
    pub(super) fn subscribe(
        &self,
        member: MemberId,
        topics: &Arc<MemberTopics<E, K>>,
        topic: &Arc<TopicCore<E, K>>,
    ) -> Result<(), GroupError> {
        self.check_engine(topic)?;
        topics.check(&self.name, topic)?;
        self.add_topic(&[(member, Arc::clone(topics))], topic)
    }

    /// The topics of the engine that the pattern finds and the member does not have. Topics that have ended are passed
    /// over. Calls user code.
    pub(super) fn search(&self, topics: &MemberTopics<E, K>) -> Result<Vec<Arc<TopicCore<E, K>>>, GroupError> {
        let engine = self.host.upgrade().and_then(|host| host.engine().ok());
        let (true, Some(engine)) = (topics.has_pattern(), engine) else { return Ok(Vec::new()) };
        let open = engine.open().into_iter().filter_map(Topic::<E, K>::of).map(|topic| topic.inner);
        let mut found = Vec::new();
        for topic in open.filter(|topic| !topics.has(topic.id) && !topic.has_ended()) {
            if topics.finds(&topic).map_err(|panic| self.pattern_panicked(&panic))? {
                topic.make_deferred().map_err(|refused| self.unmade(&topic.name, &refused))?;
                found.push(topic);
            }
        }
        Ok(found)
    }

    /// Adds the topics that the pattern finds to a member that is about to join.
    pub(super) fn search_first(&self, topics: &MemberTopics<E, K>) -> Result<(), GroupError> {
        self.search(topics)?.iter().for_each(|topic| topics.add(topic));
        Ok(())
    }

    /// Adds the topics that were created while the member joined, and ends its pattern if the engine creates no more.
    pub(super) fn search_again(&self, member: MemberId, topics: &Arc<MemberTopics<E, K>>) -> Result<(), GroupError> {
        if !topics.has_pattern() {
            return Ok(());
        }
        for topic in self.search(topics)? {
            match self.subscribe(member, topics, &topic) {
                // The topic has ended meanwhile.
                Err(GroupError::Closed { .. }) => {}
                done => done?,
            }
        }
        let engine = self.host.upgrade().and_then(|host| host.engine().ok());
        if engine.is_none_or(|engine| engine.topics().shut_down) {
            self.end_patterns();
        }
        Ok(())
    }

    /// Adds a topic that was created to the members whose patterns find it. Called before the engine lists the topic,
    /// and once more after that.
    pub(super) fn announce(&self, topic: &Arc<dyn Any + Send + Sync>) {
        let Ok(topic) = Arc::clone(topic).downcast::<TopicCore<E, K>>() else { return };
        let with_pattern: Vec<_> = {
            let state = self.state();
            let patterns = state.patterns.iter();
            patterns.filter_map(|member| Some((*member, state.subscriptions.get(member)?.upgrade()?))).collect()
        };
        let mut members = Vec::new();
        for (member, topics) in with_pattern {
            if topics.has(topic.id) {
                continue;
            }
            match topics.finds(&topic) {
                Ok(false) => {}
                Ok(true) => match topics.check(&self.name, &topic) {
                    Ok(()) => members.push((member, topics)),
                    Err(refused) => self.refuse(member, &topics, topic.id, refused),
                },
                Err(panic) => self.refuse(member, &topics, topic.id, self.pattern_panicked(&panic)),
            }
        }
        if members.is_empty() {
            return;
        }
        let made = topic.make_deferred().map_err(|refused| self.unmade(&topic.name, &refused));
        match made.and_then(|()| self.add_topic(&members, &topic)) {
            Ok(()) => {
                lifecycle!(info, "topic found", group = self.name, topic = topic.name);
            }
            // The topic has ended already, or the members have left.
            Err(GroupError::Closed { .. } | GroupError::NotMember { .. }) => {}
            Err(refused) => {
                members.iter().for_each(|(member, topics)| self.refuse(*member, topics, topic.id, refused.clone()));
            }
        }
    }

    /// Makes the member's next update return this error, once: its pattern does not find the topic again.
    fn refuse(&self, member: MemberId, topics: &MemberTopics<E, K>, topic: TopicId, refused: GroupError) {
        topics.list().left_out.insert(topic);
        let mut state = self.state();
        if let Some(signal) = state.signals.get(&member) {
            signal.notify();
            state.refusals.entry(member).or_default().push_back(refused);
        }
    }

    /// Called when the engine creates no more topics: members end once their present topics are read.
    pub(super) fn end_patterns(&self) {
        let mut state = self.state();
        state.patterns_ended = true;
        let waiting = state.patterns.iter().filter_map(|member| state.signals.get(member));
        waiting.for_each(|signal| signal.notify());
    }

    fn pattern_panicked(&self, panic: &str) -> GroupError {
        GroupError::Panicked { group: self.name.clone(), cause: format!("the pattern of its topics: {panic}") }
    }

    fn unmade(&self, topic: &str, refused: &crate::topic::error::TopicError) -> GroupError {
        GroupError::Refused { group: self.name.clone(), topic: topic.to_owned(), cause: refused.to_string() }
    }
}
