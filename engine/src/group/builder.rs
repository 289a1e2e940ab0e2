//! Settings of a member, and of its group.

use super::assigned_partition::JoinRequest;
use super::assignment::Assignor;
use super::deliver::{self, Delivery};
use super::error::GroupError;
use super::listener::{Listener, Rebalance};
use super::managed::{self, GroupRun, MemberEnd, MemberErrorPolicy};
use super::member::Member;
use super::settings::{Commit, GroupSettings};
use super::{Group, Groups};
use crate::base::kind::Producers;
use crate::log::gap::OnGap;
use crate::produce::transaction::Transaction;
use crate::read::dead_letters::{DeadLetterForwarder, ToDeadLetter};
use crate::read::{At, StartAt};
use crate::topic::Topic;
use crate::topic::error::DeadLetterError;
use crate::topic::error::{Contradiction, check_name};
use crate::topic::registry::Host;
use slipring_ring::{Multi, OnError, Wait};
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

/// A group by its name, before it is told its topics: see [`Engine::group`](crate::Engine::group).
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

    /// A member that reads all of these topics, whose events are of one type.
    pub fn topics<'t, E: Send + Sync + 'static, K: Producers>(
        self,
        topics: impl IntoIterator<Item = &'t Topic<E, K>>,
    ) -> GroupBuilder<E, K> {
        let topics = topics.into_iter().map(|topic| Arc::clone(&topic.inner)).collect();
        GroupBuilder::new(self.host, self.name, topics)
    }
}

/// Settings of a member of a group. The group is made when the first one joins.
///
/// A group reads each partition of its topics with exactly one of its members. It goes on where it
/// [committed](Commit) last; producers wait for that position, as long as the group has members, or is told to
/// [hold](Self::hold).
pub struct GroupBuilder<E, K: Producers = Multi>
where
    E: Send + Sync + 'static,
{
    host: Arc<Host>,
    name: String,
    settings: GroupSettings<E, K>,
    listener: Option<Listener>,
    core: Option<usize>,
    on_error: OnError,
    delivery: Option<Delivery>,
    commit: Option<Commit>,
    dead_letters: Option<DeadLetterForwarder<E>>,
    refused: Option<DeadLetterError>,
}

/// As Kafka has it between two polls.
const DEADLINE: Duration = Duration::from_secs(300);

/// Room for a batch that is worth its overhead, and small enough to be handled within the deadline at 70 ms an event.
const LIMIT: usize = 4096;

impl<E: Send + Sync + 'static, K: Producers> Topic<E, K> {
    /// A member of a group that reads this topic: its settings, then [`join`](GroupBuilder::join) or
    /// [`run`](GroupBuilder::run). For several topics see [`Engine::group`](crate::Engine::group).
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder<E, K> {
        let topics = vec![Arc::clone(&self.inner)];
        GroupBuilder::new(Arc::clone(&self.inner.host), name.into(), topics)
    }
}

impl<E: Send + Sync + 'static, K: Producers> GroupBuilder<E, K> {
    pub(crate) fn new(host: Arc<Host>, name: String, topics: Vec<Arc<crate::topic::TopicCore<E, K>>>) -> Self {
        let joining = JoinRequest {
            topics,
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
        let (listener, on_error, delivery, commit) = (None, OnError::default(), None, None);
        Self { host, name, settings, listener, core, on_error, delivery, commit, dead_letters: None, refused: None }
    }

    /// Where the group begins in partitions in which it has committed nothing yet: at the earliest event that is kept,
    /// unless told. Once it has read a partition it goes on where it committed, whatever is said here; if that is not
    /// kept any more, joining is an error, never a silent reset: see [`reset`](Self::reset).
    pub fn start(mut self, start: StartAt) -> Self {
        self.settings.joining.start = start;
        self
    }

    /// How partitions are shared out among the members: [`Assignor::Sticky`] unless told. All members must agree.
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.settings.joining.assignor = Some(assignor);
        self
    }

    /// A name for the member. When it is dropped, its place is kept until its [deadline](Self::deadline) has passed: who
    /// comes back under this name meanwhile has its partitions again, and no other member notices.
    /// [`Member::leave`](crate::group::Member::leave) gives the place up.
    pub fn member_name(mut self, name: impl Into<String>) -> Self {
        self.settings.joining.name = Some(name.into());
        self
    }

    /// How long the member may go without a poll or a commit of a part of its batch before it is fenced, by the engine's
    /// clock, to a few milliseconds: 300 seconds unless told. A managed member commits each time it has handled a quarter
    /// of what a partition holds, or all that is there.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.joining.deadline = deadline;
        self
    }

    /// Whether the group holds the producers back, at its committed offsets, also while it has no members. Unless told
    /// it does not, and if it then misses something, the next to join gets an error with the range. Set for the whole
    /// group by whoever joined last and said something.
    pub fn hold(mut self, hold: bool) -> Self {
        self.settings.joining.hold = Some(hold);
        self
    }

    /// Whether the group leaves the ring, and goes on from the journal, when producers would have to wait for it. It comes
    /// back to the ring when it has caught up; nothing is missed or read twice for that. No unless told: producers wait.
    /// Set for the whole group by whoever joined last and said something. Joining is refused if one of its topics is not
    /// [durable](crate::TopicBuilder::durable).
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

    /// When the member commits. A managed member commits by its [`delivery`](Self::delivery): there
    /// [`AtMostOnce`](Commit::AtMostOnce) says the same as that delivery, and [`Auto`](Commit::Auto) is refused.
    pub fn commit(mut self, commit: Commit) -> Self {
        self.commit = Some(commit);
        self
    }

    /// What a managed member promises when something fails: at most once, at least once unless told, or, for
    /// [`run_into`](Self::run_into), exactly once. It commits accordingly; a [`commit`](Self::commit) that says something
    /// else is refused.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// What the member does where events of a durable topic were lost to damage: the poll is an error at that offset, once for
    /// the group, unless told. A managed member ends with it; whoever has the partition next goes on behind the gap.
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.settings.on_gap = policy;
        self
    }

    /// At most so many events in one batch, 4,096 unless told; 0 is taken as 1.
    pub fn limit(mut self, events: usize) -> Self {
        self.settings.limit = events.max(1);
        self
    }

    /// How the member waits for events.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.settings.wait = wait;
        self
    }

    /// Tells what the member is given and what is taken from it. Called on the thread that polls, before the poll
    /// returns. It must not poll.
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

    /// Pins a managed member's thread to this core, by the system's number.
    pub fn pin(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// What a managed member does when its handler returns an error or panics. Unless told it stops: it leaves the
    /// group, and others read on from the event that it failed on.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = policy;
        self
    }

    /// What a managed member would pass over goes to this topic first, and what it would stop for is passed over: so
    /// with the default policy, an event that fails once is moved aside. If the topic does not take it, the member
    /// stops. Of a durable topic the letter is written before the event is committed, and with
    /// [exactly once](Delivery::ExactlyOnce) both are one frame, which waits for room: there the topic must be durable, too.
    /// A [`Message`](crate::Message) says where it comes from and why: see [`DeadLetter`](crate::dead_letter::DeadLetter).
    /// Somebody must read that topic, or it must [retain](crate::TopicBuilder::retain): like any other, it keeps nothing
    /// for nobody.
    pub fn dead_letter<D: Producers>(mut self, topic: &Topic<E, D>) -> Self
    where
        E: ToDeadLetter,
    {
        let name = || topic.name().to_owned();
        let reads_it = self.settings.joining.topics.iter().any(|read| read.id == topic.id());
        match topic.producer().create() {
            _ if reads_it => self.refused = Some(DeadLetterError::Circle { topic: name() }),
            Ok(producer) => self.dead_letters = Some(DeadLetterForwarder::new(topic, producer)),
            Err(cause) => self.refused = Some(DeadLetterError::Producer { topic: name(), cause }),
        }
        self
    }

    /// Settles when the member commits, and what a managed one promises. What was said of both must agree, in whatever
    /// order it was said.
    fn settle(&mut self, managed: bool) -> Result<Delivery, GroupError> {
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

    /// Joins. The first poll gets what the member is given.
    ///
    /// # Errors
    /// A name is no name or taken, no topic was named, the group's next event is not kept any more (the error has the
    /// range), the assignor is another one than the group's, settings contradict one another, or a topic is closed: unless
    /// it is durable and the group has been there, which then reads the rest.
    pub fn join(mut self) -> Result<Member<E, K>, GroupError> {
        if self.settle(false)? == Delivery::ExactlyOnce {
            return Err(GroupError::NotExactlyOnce { group: self.name });
        }
        let group = self.group()?;
        Member::join(group, self.settings, self.listener)
    }

    /// Joins, on a thread of its own that hands each event to `handler` and commits what it has done with.
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
    /// Where events were lost to damage, [`on_gap`](Self::on_gap) says what it does: unless told it ends with
    /// [`GroupError::Gap`](crate::group::GroupError::Gap), and who has the partition next goes on behind the gap.
    ///
    /// # Errors
    /// As [`join`](Self::join); and a refused pin, or a thread that the system does not give.
    pub fn run<X: Display + 'static>(
        mut self,
        handler: impl FnMut(&E, At) -> Result<(), X> + Send + 'static,
    ) -> Result<GroupRun, GroupError> {
        if self.settle(true)? == Delivery::ExactlyOnce {
            return Err(GroupError::NotExactlyOnce { group: self.name });
        }
        let mut handler = handler;
        self.launch(move |member, policy, run| managed::read_on(member, policy, &mut handler, run))
    }

    /// Joins, on a thread of its own that hands each event to `handler`, with a transaction for what comes of it. Once a
    /// batch is handled the transaction's events are published all together, and the batch is committed, in the order
    /// that [`delivery`](Self::delivery) says. An event that the handler fails on leaves nothing in the transaction: those
    /// before it are passed on by themselves, then it is retried, skipped or stopped for. One for which there is no room in
    /// the transaction, where the handler returns that refusal, is handled again in the next one; and so is one with which a
    /// partition of an output would get more at once than its ring ever holds.
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
    /// As [`run`](Self::run); the engine has no journal, or, for exactly once, a topic is not durable, also that of dead
    /// letters.
    pub fn run_into<X: Display + 'static>(
        mut self,
        mut handler: impl FnMut(&E, At, &mut Transaction) -> Result<(), X> + Send + 'static,
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
        let mut out = Transaction::new(Arc::clone(committer));
        // It looks in between whether it is to stop.
        out.patience(Duration::from_millis(50));
        self.launch(move |member, policy, run| deliver::pass_on(member, policy, &mut out, delivery, &mut handler, run))
    }

    fn launch(
        self,
        mut work: impl FnMut(&mut Member<E, K>, &mut MemberErrorPolicy<E>, &GroupRun) -> MemberEnd + Send + 'static,
    ) -> Result<GroupRun, GroupError> {
        let group = self.group()?;
        // No topic's name: a member may read several.
        let ticket = self.host.cores.enter("", &self.name, &self.name, self.core, &self.settings.wait);
        let ticket = ticket.map_err(|cause| GroupError::Cores { group: self.name.clone(), cause })?;
        let mut policy = MemberErrorPolicy::new(self.on_error, self.dead_letters);
        let member = Member::join(group, self.settings, self.listener)?;
        managed::start(member, self.core, ticket, move |member, run| work(member, &mut policy, run))
    }

    /// Forgets where the group stands in these topics, and stands at `start` instead: for a group without members, such
    /// as one that cannot read on. What it thereby passes over it never reads. Whether producers wait for it until the
    /// next one joins is up to [`hold`](Self::hold).
    ///
    /// # Errors
    /// The group has members, or the start is not kept or not published yet.
    pub fn reset(self, start: StartAt) -> Result<(), GroupError> {
        let group = self.group()?;
        group.reset(&self.settings.joining.topics, &start)
    }
}
