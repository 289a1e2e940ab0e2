//! The builder of a group's member: the settings of the member and of its group.

mod offsets;
mod pattern;

use super::assigned_partition::JoinRequest;
use super::assignment::Assignor;
use super::deliver::{self, Delivery};
use super::error::GroupError;
use super::listener::{Listener, Rebalance};
use super::managed::{self, GroupRun, MemberEnd, MemberErrorPolicy};
use super::member::Member;
use super::settings::{Commit, GroupSettings};
use super::topics::TopicRules;
use super::{Group, Groups};
use crate::base::batch_retries::{BatchRetries, RetryLimit};
use crate::base::kind::Producers;
use crate::log::gap::OnGap;
use crate::produce::transaction::Transaction;
use crate::read::dead_letters::{DeadLetterForwarder, ToDeadLetter};
use crate::read::{At, StartAt};
use crate::topic::Topic;
use crate::topic::error::DeadLetterError;
use crate::topic::error::{Contradiction, check_name};
use crate::topic::registry::Host;
use slipring_ring::{Multi, OnError, Outcome, Wait};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The name of a group whose topics are not set yet: see [`Engine::group`](crate::Engine::group).
pub struct GroupName {
    host: Arc<Host>,
    name: String,
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupName({:?})", self.name)
    }
}

impl GroupName {
    pub(crate) fn new(host: Arc<Host>, name: String) -> Self {
        Self { host, name }
    }

    /// Returns the builder of a member that reads all of these topics, whose events are of one type.
    pub fn topics<'t, E: Send + Sync + 'static, K: Producers>(
        self,
        topics: impl IntoIterator<Item = &'t Topic<E, K>>,
    ) -> GroupBuilder<E, K> {
        let topics = topics.into_iter().map(|topic| Arc::clone(&topic.inner)).collect();
        GroupBuilder::new(self.host, self.name, topics)
    }
}

/// The builder of a group's member. The group is created when its first member joins.
///
/// A group reads each partition of its topics with exactly one of its members, from the offset that it last
/// [committed](Commit). Producers wait for that offset while the group has members, and, with [`hold`](Self::hold),
/// also while it has none.
pub struct GroupBuilder<E, K: Producers = Multi>
where
    E: Send + Sync + 'static,
{
    host: Arc<Host>,
    pub(super) name: String,
    settings: GroupSettings<E, K>,
    listener: Option<Listener>,
    core: Option<usize>,
    on_error: Option<OnError>,
    /// `None` if a managed member handles no batch again as a whole.
    pub(super) retry_batch: Option<RetryLimit>,
    delivery: Option<Delivery>,
    commit: Option<Commit>,
    dead_letters: Option<DeadLetterForwarder<E>>,
    refused: Option<DeadLetterError>,
}

/// The default deadline of a member: that of Kafka's `max.poll.interval.ms`.
const DEADLINE: Duration = Duration::from_secs(300);

/// The default limit of a batch, in events. Large enough that the cost of a batch does not matter. A batch is handled
/// within the default deadline if an event takes up to 70 ms.
const LIMIT: usize = 4096;

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// Returns the builder of a member of the group `name`, which reads this topic. Then call
    /// [`join`](GroupBuilder::join) or [`run`](GroupBuilder::run). For several topics see
    /// [`Engine::group`](crate::Engine::group).
    ///
    /// One name is one group for all topics of the same type `Topic<E, K>`: members that join under this name through
    /// another such topic are members of this group. Each join or leave assigns the partitions of all these topics
    /// again, and the group has one epoch. Independent readers of different topics need different names, for example
    /// with the topic's name as a prefix.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # let engine = Engine::builder().build()?;
    /// # let orders = engine.topic::<u64>("orders").create()?;
    /// # let returns = engine.topic::<u64>("returns").create()?;
    /// let (a, b) = (orders.group("billing").join()?, returns.group("billing").join()?);
    /// assert_eq!((engine.groups().len(), engine.groups()[0].members.len()), (1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A group whose members have left stays, with its committed offsets. It takes some kilobytes of memory and, for
    /// each partition of a durable topic, 32 bytes and the group's name at the beginning of each segment of the
    /// journal. [`Engine::forget_group`](crate::Engine::forget_group) removes it, and so do
    /// [`forget_groups_after`](crate::EngineBuilder::forget_groups_after) and the deletion of all its topics.
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder<E, K> {
        let topics = vec![Arc::clone(&self.inner)];
        GroupBuilder::new(Arc::clone(&self.inner.host), name.into(), topics)
    }
}

impl<E: Send + Sync + 'static, K: Producers> GroupBuilder<E, K> {
    pub(crate) fn new(host: Arc<Host>, name: String, topics: Vec<Arc<crate::topic::TopicCore<E, K>>>) -> Self {
        let joining = JoinRequest {
            topics,
            pattern: None,
            rules: TopicRules::default(),
            name: None,
            deadline: DEADLINE,
            start: StartAt::default(),
            assignor: None,
            hold: None,
            spill: None,
        };
        let (core, wait) = host.cores.planned(&name);
        let (wait, commit, on_gap) = (wait.unwrap_or_default(), Commit::default(), OnGap::default());
        let settings = GroupSettings { joining, limit: LIMIT, wait, commit, on_gap };
        Self {
            host,
            name,
            settings,
            listener: None,
            core,
            on_error: None,
            retry_batch: None,
            delivery: None,
            commit: None,
            dead_letters: None,
            refused: None,
        }
    }

    /// Sets where the group starts in partitions in which it has committed nothing. Default: the earliest kept event.
    /// In all other partitions it continues at its committed offset. If that offset is no longer kept, joining returns
    /// an error and never resets the offset silently: see [`reset`](Self::reset).
    pub fn start(mut self, start: StartAt) -> Self {
        self.settings.joining.start = start;
        self
    }

    /// Sets how partitions are assigned to the members. Default: [`Assignor::Sticky`]. All members of a group must use
    /// the same assignor.
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.settings.joining.assignor = Some(assignor);
        self
    }

    /// Sets the member's name. When a member with a name is dropped, its partitions stay reserved until its
    /// [deadline](Self::deadline) has passed. A member that joins under the name before that gets these partitions,
    /// without a rebalance. [`Member::leave`](crate::group::Member::leave) gives them up at once.
    pub fn member_name(mut self, name: impl Into<String>) -> Self {
        self.settings.joining.name = Some(name.into());
        self
    }

    /// Sets how long the member may go without a poll or a commit before it is fenced, by the engine's clock, exact to
    /// a few milliseconds. Default: 300 seconds. A managed member commits each time it has handled a batch, or, within
    /// a batch, as many events as a quarter of the partition's slots.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.joining.deadline = deadline;
        self
    }

    /// If true, producers wait for the group's committed offsets even while the group has no members. Default: false;
    /// if events that the group has not read are then overwritten, the next join returns an error with the range of
    /// kept offsets. A setting of the whole group: the last member that joined with it decides.
    pub fn hold(mut self, hold: bool) -> Self {
        self.settings.joining.hold = Some(hold);
        self
    }

    /// If true, the group leaves the ring when producers would have to wait for it, and reads from the journal. It
    /// returns to the ring when it has caught up, and neither misses an event nor reads one twice. Default: false,
    /// producers wait. A setting of the whole group: the last member that joined with it decides. Joining is refused if
    /// one of its topics is not [durable](crate::TopicBuilder::durable).
    ///
    /// ```
    /// # use slipring::{Engine, journal::simulated::SimulatedDisk};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// let ticks = engine.topic::<u64>("ticks").capacity(4).durable().create()?;
    /// let mut slow = ticks.group("reports").spill(true).join()?;
    /// let mut producer = ticks.producer().create()?;
    /// (0..100).try_for_each(|tick| producer.publish(|place| *place = tick).map(drop))?;    // waits for nobody
    /// let mut sum = 0;
    /// while sum < 4950 {
    ///     let batch = slow.poll(Duration::from_secs(5))?.unwrap();
    ///     sum += batch.iter().map(|(tick, _)| tick).sum::<u64>();
    ///     batch.commit()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spill(mut self, yes: bool) -> Self {
        self.settings.joining.spill = Some(yes);
        self
    }

    /// Sets when the member commits. Default: [`Commit::Manual`]. A managed member commits as its
    /// [`delivery`](Self::delivery) says; for it, [`AtMostOnce`](Commit::AtMostOnce) sets that delivery, and
    /// [`Auto`](Commit::Auto) is refused.
    pub fn commit(mut self, commit: Commit) -> Self {
        self.commit = Some(commit);
        self
    }

    /// Sets what a managed member guarantees for each event if the member or its process fails: at most once, at least
    /// once, or, with [`run_into`](Self::run_into), exactly once. Default: at least once. The member commits
    /// accordingly; a [`commit`](Self::commit) setting that contradicts it is refused.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// Sets what the member does at events of a durable topic that were lost to damage. Default: the poll at that
    /// offset returns an error, once for the group. A managed member ends with that error; the partition's next member
    /// continues after the lost events.
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.settings.on_gap = policy;
        self
    }

    /// Sets the greatest number of events in a batch. Default: 4,096. 0 counts as 1.
    pub fn limit(mut self, events: usize) -> Self {
        self.settings.limit = events.max(1);
        self
    }

    /// Sets the strategy with which the member waits for events. Default: that of the engine's [core
    /// plan](crate::cores) for the group's name; without one, `Wait::default()`.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.settings.wait = wait;
        self
    }

    /// Sets a function that is called with each change of the member's partitions, on the polling thread, before the
    /// poll returns. The function must not poll.
    ///
    /// ```
    /// # use slipring::{Engine, group::Rebalance};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").partitions(2).create()?;
    /// let (told, hears) = std::sync::mpsc::channel();
    /// let mut member = ticks.group("sums").listener(move |change| told.send(change.clone()).unwrap()).join()?;
    /// member.poll(Duration::ZERO)?;
    /// assert!(matches!(hears.try_recv()?, Rebalance::Assigned(partitions) if partitions.len() == 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listener(mut self, listener: impl FnMut(&Rebalance) + Send + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Pins a managed member's thread to the core with this number in the operating system.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets what a managed member does when its handler returns an error or panics. Default: the policy of the member's
    /// [topics](crate::TopicBuilder::on_error) if all have the same, otherwise that of the
    /// [engine](crate::EngineBuilder::on_error); without any, it ends and leaves the group, and another member continues at
    /// the failed event.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = Some(policy);
        self
    }

    /// Makes a managed member publish an event on which its handler fails to `topic`, as a dead letter, and then skip
    /// the event where it would otherwise stop. With the default error policy, an event becomes a dead letter at its
    /// first failure. If `topic` refuses the letter, the member stops. On a durable topic the letter is written before
    /// the event is committed. With [exactly once](Delivery::ExactlyOnce) both are in one frame, which waits for room,
    /// and `topic` must be durable, too. A [`Message`](crate::Message) has headers for its origin and the reason: see
    /// [`DeadLetter`](crate::dead_letter::DeadLetter). Like any topic, `topic` needs a subscriber or
    /// [`retain`](crate::TopicBuilder::retain) to keep the letters.
    pub fn dead_letter<D: Producers>(mut self, topic: &Topic<E, D>) -> Self
    where
        E: ToDeadLetter,
    {
        let name = || topic.name().to_owned();
        let reads_it = self.settings.joining.topics.iter().any(|read| read.id == topic.id());
        match topic.producer().create() {
            _ if reads_it => self.refused = Some(DeadLetterError::Circle { topic: name() }),
            Ok(producer) => {
                self.dead_letters = Some(DeadLetterForwarder::new(topic, producer));
                self.settings.joining.rules.dead_letters = Some(topic.id());
            }
            Err(cause) => self.refused = Some(DeadLetterError::Producer { topic: name(), cause }),
        }
        self
    }

    /// Derives the commit setting and the delivery from both settings, and returns the delivery. Refuses settings that
    /// contradict one another, in whatever order they were set. `managed` is false for a member that is polled.
    pub(super) fn settle(&mut self, managed: bool) -> Result<Delivery, GroupError> {
        let refused = |one, other| Err(Contradiction::new(&self.name, one, other).into());
        let delivery = match (self.delivery, self.commit) {
            (None, Some(Commit::AtMostOnce)) => Delivery::AtMostOnce,
            (None, Some(Commit::Auto)) if managed => {
                return refused("`commit(Auto)`", "a managed member, which commits what its handler has done with");
            }
            (None, _) => Delivery::default(),
            (Some(delivery), Some(commit)) if commit != delivery.commit() => {
                return refused(
                    match commit {
                        Commit::Manual => "`commit(Manual)`",
                        Commit::Auto => "`commit(Auto)`",
                        Commit::AtMostOnce => "`commit(AtMostOnce)`",
                    },
                    match delivery {
                        Delivery::AtMostOnce => "`delivery(AtMostOnce)`",
                        Delivery::AtLeastOnce => "`delivery(AtLeastOnce)`",
                        Delivery::ExactlyOnce => "`delivery(ExactlyOnce)`",
                    },
                );
            }
            (Some(delivery), _) => delivery,
        };
        if managed && self.retry_batch.is_some() {
            if matches!(self.error_policy(), OnError::Retry(_) | OnError::RetryThenSkip(_)) {
                return refused("`retry_batch`", "a retry of one event by `on_error`");
            }
            if delivery == Delivery::AtMostOnce {
                return refused(
                    "`retry_batch`",
                    "a delivery at most once, which commits a batch before it is handled,",
                );
            }
        }
        if self.settings.joining.hold == Some(true) && self.settings.joining.spill == Some(true) {
            return refused("`hold(true)`, which keeps producers waiting,", "`spill(true)`, which never does,");
        }
        self.settings.commit = match self.commit {
            Some(commit) => commit,
            None => delivery.commit(),
        };
        Ok(delivery)
    }

    fn group(&self) -> Result<Arc<Group<E, K>>, GroupError> {
        check_name(&self.name).map_err(GroupError::name)?;
        if let Some(name) = &self.settings.joining.name {
            check_name(name).map_err(GroupError::name)?;
        }
        if let Some(refused) = &self.refused {
            return Err(GroupError::DeadLetters { group: self.name.clone(), cause: refused.to_string() });
        }
        Ok(Groups::group(&self.host, &self.name))
    }

    /// Joins the group. The first poll returns events of the assigned partitions.
    ///
    /// # Errors
    /// A name is invalid or taken, no topic was given, the event at the group's committed offset is no longer kept (the
    /// error has the range of kept offsets), the assignor is not the group's, or settings contradict one another. Or a
    /// topic is closed: if it is durable, only a group that has read it before may join, to read the remaining events.
    pub fn join(mut self) -> Result<Member<E, K>, GroupError> {
        if self.settle(false)? == Delivery::ExactlyOnce {
            return Err(GroupError::NotExactlyOnce { group: self.name });
        }
        let group = self.group()?;
        Member::join(group, self.settings, self.listener)
    }

    /// Joins the group with a thread that passes each event to `handler` and commits handled events.
    ///
    /// ```
    /// # use slipring::Engine;
    /// # use std::{convert::Infallible, time::Duration};
    /// # let engine = Engine::builder().build()?;
    /// # let ticks = engine.topic::<u64>("ticks").partitions(2).create()?;
    /// let mut sum = 0;
    /// let run = ticks.group("sums").run(move |tick, _at| { sum += tick; Ok::<_, Infallible>(()) })?;
    /// ticks.producer().create()?.publish(|tick| *tick = 42)?;
    /// engine.shutdown(Duration::from_secs(5));
    /// assert_eq!(run.wait(), slipring::group::MemberEnd::Finished);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`on_gap`](Self::on_gap) decides what happens at events that were lost to damage. By default the member ends
    /// with [`GroupError::Gap`](crate::group::GroupError::Gap), and the partition's next member continues after the
    /// gap.
    ///
    /// # Errors
    /// As for [`join`](Self::join); or the core is refused, or the system cannot start a thread.
    pub fn run<R: Outcome>(
        mut self,
        mut handler: impl FnMut(&E, At) -> R + Send + 'static,
    ) -> Result<GroupRun, GroupError> {
        if self.settle(true)? == Delivery::ExactlyOnce {
            return Err(GroupError::NotExactlyOnce { group: self.name });
        }
        self.launch(move |member, policy, run| {
            let handler = &mut |(): &mut (), event: &E, at| handler(event, at).into_result();
            managed::run_handler(member, policy, &mut (), None, handler, run)
        })
    }

    /// Joins the group with a thread that passes each event to `handler`, with a transaction for the handler's outputs.
    /// When a batch is handled, the transaction's events are published together and the batch is committed, in the
    /// order of [`delivery`](Self::delivery). The outputs of an event on which the handler fails are removed from the
    /// transaction: the outputs of the events before it are published and these events are committed; then the event is
    /// retried or skipped, or the member stops. If the transaction has no room for an event's outputs beside earlier
    /// ones and the handler returns that error, or if together they would exceed a partition's capacity, the event is
    /// handled again with the next transaction, which is empty.
    ///
    /// ```
    /// # use slipring::{Engine, group::Delivery, journal::simulated::SimulatedDisk};
    /// # use std::time::Duration;
    /// # let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
    /// let orders = engine.topic::<u64>("orders").durable().create()?;
    /// let doubled = engine.topic::<u64>("doubled").durable().create()?;
    /// let out = doubled.clone();
    /// orders.group("double").delivery(Delivery::ExactlyOnce).run_into(move |order, _at, transaction| {
    ///     transaction.publish(&out, |next| *next = order * 2)
    /// })?;
    /// orders.producer().create()?.publish(|order| *order = 21)?;
    /// let mut tape = doubled.replay("tape").open()?;
    /// tape.read(Duration::from_secs(5), |next, _| assert_eq!(*next, 42))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`run`](Self::run). Or the engine has no journal; or, for exactly once, a topic is not durable, including
    /// the topic for dead letters.
    pub fn run_into<R: Outcome>(
        mut self,
        mut handler: impl FnMut(&E, At, &mut Transaction) -> R + Send + 'static,
    ) -> Result<GroupRun, GroupError> {
        let delivery = self.settle(true)?;
        let refused = |topic: &str, cause: &str| GroupError::Refused {
            group: self.name.clone(),
            topic: topic.to_owned(),
            cause: cause.to_owned(),
        };
        let committer = self.host.committer.as_ref();
        let committer = committer.ok_or_else(|| refused("all", "transactions need an engine with a journal"))?;
        let not_durable = self.settings.joining.topics.iter().find(|topic| topic.durable.is_none());
        if let (Delivery::ExactlyOnce, Some(topic)) = (delivery, not_durable) {
            return Err(refused(&topic.name, "exactly once needs a durable topic: create it with `durable()`"));
        }
        let dead_letter_writer =
            self.dead_letters.as_ref().filter(|dead_letter_writer| !dead_letter_writer.is_durable());
        if let (Delivery::ExactlyOnce, Some(dead_letter_writer)) = (delivery, dead_letter_writer) {
            let cause = "exactly once needs a durable topic of dead letters: create it with `durable()`";
            return Err(refused(dead_letter_writer.topic(), cause));
        }
        self.settings.joining.rules.exactly_once = delivery == Delivery::ExactlyOnce;
        let mut out = Transaction::new(Arc::clone(committer));
        // Short, so that the member checks between two waits for room if it must stop.
        out.patience(Duration::from_millis(50));
        let mut handler = move |event: &E, at: At, out: &mut Transaction| handler(event, at, out).into_result();
        self.launch(move |member, policy, run| {
            deliver::run_publishing_handler(member, policy, &mut out, delivery, &mut handler, run)
        })
    }

    /// The member's own error policy; otherwise that of its topics if all have the same one; otherwise the engine's.
    fn error_policy(&self) -> OnError {
        let mut of_topics = self.settings.joining.topics.iter().map(|topic| topic.settings.on_error);
        let first = of_topics.next().flatten();
        let agreed = first.filter(|_| of_topics.all(|policy| policy == first));
        self.on_error.or(agreed).unwrap_or(self.host.on_error)
    }

    pub(super) fn launch(
        self,
        mut work: impl FnMut(&mut Member<E, K>, &mut MemberErrorPolicy<E>, &GroupRun) -> MemberEnd + Send + 'static,
    ) -> Result<GroupRun, GroupError> {
        let group = self.group()?;
        // The topic's name is empty, as a member may read several topics.
        let ticket = self.host.cores.enter("", &self.name, &self.name, self.core, &self.settings.wait);
        let ticket = ticket.map_err(|cause| GroupError::Cores { group: self.name.clone(), cause })?;
        let batches = self.retry_batch.map(|limit| BatchRetries::new(limit, &self.host.timer, &self.host.clock));
        let no_thread =
            |cause: std::io::Error| GroupError::Thread { group: group.name.clone(), cause: cause.to_string() };
        let batches = batches.transpose().map_err(no_thread)?;
        let mut policy = MemberErrorPolicy::new(self.error_policy(), self.dead_letters, batches);
        let member = Member::join(group, self.settings, self.listener)?;
        managed::start(member, self.core, ticket, move |member, run| work(member, &mut policy, run))
    }
}
