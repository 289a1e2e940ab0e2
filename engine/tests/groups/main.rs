//! What a consumer group promises: one reader a partition, nothing lost, nothing committed by who is none any more.

use proptest::prelude::*;
use slipring::{
    Assignor, Closed, Commit, CommitError, DeadLetter, Engine, GroupBuilder, GroupError, GroupState, Idle, ManualClock,
    Member, MemberEnd, Message, OnError, PositionError, Producer, Rebalance, Record, StartAt, Timestamp, Topic,
    TopicPartition, Wait, WaitStrategy,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

mod delivery;
mod durable;
mod exactly_once;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);
const DEADLINE: Duration = Duration::from_secs(10);

struct World {
    clock: ManualClock,
    engine: Engine,
    topic: Topic<u64>,
    producer: Producer<u64>,
}

/// A topic of numbers, and time in our hands.
fn world(partitions: usize, capacity: usize) -> World {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(partitions).capacity(capacity).create().unwrap();
    let producer = topic.producer().create().unwrap();
    World { clock, engine, topic, producer }
}

impl World {
    fn group(&self) -> GroupBuilder<u64> {
        self.topic.group("sums").deadline(DEADLINE)
    }

    fn join(&self) -> Member<u64> {
        self.group().join().unwrap()
    }

    fn publish(&mut self, partition: u32, count: usize) {
        for _ in 0..count {
            self.producer.publish_to(partition, |_| ()).unwrap();
        }
    }

    /// Of a single partition: whether producers wait.
    fn is_full(&mut self) -> bool {
        self.producer.try_publish(|_| ()).is_err_and(|refused| refused.is_full())
    }

    fn committed(&self, partition: u32) -> Option<u64> {
        self.engine.groups()[0].partition("numbers", partition).unwrap().committed
    }
}

fn numbers(partition: u32) -> TopicPartition {
    TopicPartition::new("numbers", partition)
}

/// One poll: which partition, and which offsets.
fn look(member: &mut Member<u64>) -> (Option<u32>, Vec<u64>) {
    let batch = member.poll(NOW).unwrap().unwrap();
    let partition = batch.partition().map(|partition| partition.partition);
    (partition, batch.iter().map(|(_, at)| at.offset).collect())
}

/// Reads and commits whatever is there.
fn drain(member: &mut Member<u64>) -> Vec<(u32, u64)> {
    let mut read = Vec::new();
    while let Some(batch) = member.poll(NOW).unwrap() {
        if batch.is_empty() {
            break;
        }
        read.extend(batch.iter().map(|(_, at)| (at.partition, at.offset)));
        batch.commit().unwrap();
    }
    read
}

fn has(member: &Member<u64>) -> Vec<u32> {
    member.assignment().iter().map(|partition| partition.partition).collect()
}

/// Everyone looks until nothing changes hands any more.
fn settle(members: &mut [&mut Member<u64>]) {
    for _ in 0..2 {
        for member in members.iter_mut() {
            drop(member.poll(NOW).unwrap());
        }
    }
}

#[test]
fn each_event_goes_to_exactly_one_member_and_all_of_them_to_somebody() {
    for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky] {
        let mut world = world(5, 16);
        let join = || world.group().assignor(assignor).join().unwrap();
        let (mut a, mut b) = (join(), join());
        settle(&mut [&mut a, &mut b]);
        assert_eq!((has(&a).len() + has(&b).len(), has(&a).len().abs_diff(has(&b).len())), (5, 1));
        (0..5).for_each(|partition| world.publish(partition, 3));
        let mut read = drain(&mut a);
        read.extend(drain(&mut b));
        read.sort_unstable();
        let all = (0..5).flat_map(|partition| (0..3).map(move |offset| (partition, offset)));
        assert!(read.into_iter().eq(all));
    }
}

#[test]
fn what_is_not_committed_is_read_again_by_the_same_member_and_by_its_successor() {
    let mut world = world(1, 16);
    let mut first = world.join();
    world.publish(0, 3);
    assert_eq!(look(&mut first), (Some(0), vec![0, 1, 2]));
    assert_eq!(look(&mut first), (Some(0), vec![0, 1, 2]));
    let mut batch = first.poll(NOW).unwrap().unwrap();
    batch.commit_to(1).unwrap();
    assert!(batch.iter().map(|(_, at)| at.offset).eq([1, 2]), "what is committed is not part of it any more");
    let refused = batch.commit_to(4).unwrap_err();
    assert_eq!(refused, CommitError::OutOfBatch { asked: 4, first: 1, end: 3 });
    assert!(batch.commit_to(0).is_err());
    drop(batch);
    assert_eq!(world.committed(0), Some(1));
    let mut second = world.join();
    drop(first);
    assert_eq!(look(&mut second), (Some(0), vec![1, 2]));
    second.poll(NOW).unwrap().unwrap().commit().unwrap();
    assert_eq!(look(&mut second), (None, vec![]));
}

#[test]
fn the_committed_offset_is_what_producers_wait_for() {
    let mut world = world(1, 4);
    let mut member = world.join();
    world.publish(0, 4);
    assert!(world.is_full());
    let mut batch = member.poll(NOW).unwrap().unwrap();
    assert_eq!(batch.iter().count(), 4);
    assert!(world.is_full(), "handed out is not committed");
    batch.commit_to(1).unwrap();
    assert!(!world.is_full(), "committed in the middle of a batch");
    assert!(world.is_full());
    drop(batch);
    assert!(world.is_full(), "dropped is not committed");
    member.poll(NOW).unwrap().unwrap().commit().unwrap();
    assert!(!world.is_full());
}

#[test]
fn auto_commit_covers_what_was_handled_and_nothing_else() {
    let mut world = world(1, 16);
    let mut member = world.group().commit(Commit::Auto).join().unwrap();
    world.publish(0, 6);
    for (_, at) in &member.poll(NOW).unwrap().unwrap() {
        if at.offset == 2 {
            break; // it was not handled to its end, as far as anybody knows
        }
    }
    assert_eq!(world.committed(0), Some(2));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for (_, at) in &member.poll(NOW).unwrap().unwrap() {
            assert_ne!(at.offset, 4, "on purpose");
        }
    }));
    assert!(panicked.is_err());
    assert_eq!(world.committed(0), Some(4));
    drop(member.poll(NOW).unwrap().unwrap());
    assert_eq!(world.committed(0), Some(4), "polled is not handled");
    assert_eq!(member.poll(NOW).unwrap().unwrap().iter().count(), 2);
    assert_eq!(world.committed(0), Some(6));
}

#[test]
fn at_most_once_commits_before_it_hands_out_and_keeps_the_slots_until_the_batch_ends() {
    let mut world = world(1, 4);
    let mut member = world.group().commit(Commit::AtMostOnce).limit(2).join().unwrap();
    world.publish(0, 4);
    let batch = member.poll(NOW).unwrap().unwrap();
    assert_eq!(world.committed(0), Some(2));
    assert!(world.is_full(), "it is being read");
    drop(batch);
    assert!(!world.is_full());
    // A member that stalls in the middle: its successor does not see what it had.
    let batch = member.poll(NOW).unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().1.offset, 2);
    world.clock.advance(DEADLINE);
    let mut next = world.join();
    assert_eq!(look(&mut next), (Some(0), vec![4]));
    assert_eq!(batch.iter().count(), 2, "what it holds is not overwritten");
    drop(batch);
    assert!(matches!(member.poll(NOW), Err(GroupError::Fenced(_))));
}

#[test]
fn only_what_moves_is_revoked_and_it_is_given_on_once_it_was_let_go() {
    let mut world = world(4, 16);
    let (told, hears) = mpsc::channel();
    let mut a = world.group().listener(move |change| told.send(change.clone()).unwrap()).join().unwrap();
    (0..4).for_each(|partition| world.publish(partition, 1));
    assert_eq!(look(&mut a).1, [0]);
    assert_eq!(hears.try_recv().unwrap(), Rebalance::Assigned((0..4).map(numbers).collect()));
    let batch = a.poll(NOW).unwrap().unwrap();
    let kept = batch.partition().unwrap().partition;
    let mut b = world.join();
    assert_eq!(look(&mut b), (None, vec![]), "nothing was let go");
    assert_eq!(world.engine.groups()[0].state, GroupState::Rebalancing);
    batch.commit().unwrap();
    assert!(hears.try_recv().is_err(), "not before the next poll");
    drop(a.poll(NOW).unwrap());
    let Ok(Rebalance::Revoked(moved)) = hears.try_recv() else { panic!("two of four go") };
    assert_eq!(moved.len(), 2);
    assert!(hears.try_recv().is_err());
    drop(b.poll(NOW).unwrap());
    assert_eq!(b.assignment(), moved);
    assert_eq!(world.engine.groups()[0].state, GroupState::Stable);
    let mut read = drain(&mut a);
    read.extend(drain(&mut b));
    read.sort_unstable();
    let rest: Vec<_> = (0..4).filter(|&partition| partition != kept).map(|partition| (partition, 0)).collect();
    assert_eq!(read, rest, "what was committed before is not read again");
}

#[test]
fn a_member_that_stalls_in_a_batch_is_fenced_and_its_successor_reads_that_batch() {
    let mut world = world(1, 4);
    let mut stalled = world.join();
    world.publish(0, 4);
    let mut batch = stalled.poll(NOW).unwrap().unwrap();
    batch.commit_to(1).unwrap();
    let mut next = world.join();
    world.clock.advance(DEADLINE - Duration::from_nanos(1));
    assert_eq!(look(&mut next), (None, vec![]));
    world.clock.advance(Duration::from_nanos(1));
    assert_eq!(look(&mut next), (Some(0), vec![1, 2, 3]));
    next.poll(NOW).unwrap().unwrap().commit().unwrap();
    assert!(!world.is_full() && world.is_full(), "one slot was free, and the stalled member's batch keeps the others");
    assert_eq!(batch.iter().count(), 3, "what it holds is not overwritten");
    let fenced = batch.commit().unwrap_err();
    assert!(fenced.member_epoch < fenced.group_epoch, "{fenced}");
    assert!(!world.is_full(), "its gate went with its batch");
    assert!(matches!(stalled.poll(NOW), Err(GroupError::Fenced(_))));
    assert!(matches!(stalled.poll(NOW), Err(GroupError::Fenced(_))), "and it stays so");
    assert_eq!(world.committed(0), Some(4));
    stalled.rejoin().unwrap();
    settle(&mut [&mut stalled, &mut next]);
    assert_eq!(has(&stalled).len() + has(&next).len(), 1);
}

#[test]
fn a_member_that_stalls_between_batches_or_is_forgotten_holds_nobody_up() {
    for forget in [false, true] {
        let mut world = world(2, 4);
        let mut stalled = world.join();
        (0..2).for_each(|partition| world.publish(partition, 4));
        look(&mut stalled);
        let stalled = if forget {
            std::mem::forget(stalled);
            None
        } else {
            Some(stalled)
        };
        let mut next = world.join();
        assert_eq!(look(&mut next), (None, vec![]));
        world.clock.advance(DEADLINE / 2);
        assert_eq!(look(&mut next), (None, vec![]));
        world.clock.advance(DEADLINE / 2);
        assert_eq!(drain(&mut next).len(), 8);
        (0..2).for_each(|partition| world.publish(partition, 4));
        assert_eq!(drain(&mut next).len(), 8);
        drop(stalled);
        assert_eq!(world.engine.groups()[0].members.len(), 1);
    }
}

#[test]
fn a_fenced_member_loses_its_partitions_and_is_told() {
    let world = world(2, 4);
    let (told, hears) = mpsc::channel();
    let mut late = world.group().listener(move |change| told.send(change.clone()).unwrap()).join().unwrap();
    drop(late.poll(NOW).unwrap());
    world.clock.advance(DEADLINE);
    let Err(GroupError::Fenced(fenced)) = late.poll(NOW) else { panic!("it is late") };
    assert_eq!(fenced.group, "sums");
    let all = vec![numbers(0), numbers(1)];
    assert!(hears.try_iter().eq([Rebalance::Assigned(all.clone()), Rebalance::Lost(all)]));
    assert!(late.assignment().is_empty());
    let refused = late.seek(&numbers(0), StartAt::Latest).unwrap_err();
    assert!(matches!(&refused, GroupError::NotAssigned { .. }), "{refused}");
}

/// Counts how often a waiting member is asked what to do, and puts it to sleep.
struct Sleepy(Arc<AtomicU64>);

impl WaitStrategy for Sleepy {
    fn idle(&self, _: u32) -> Idle {
        self.0.fetch_add(1, SeqCst);
        Idle::Sleep
    }
}

fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

#[test]
fn a_member_that_waits_sleeps_is_never_late_and_is_woken_by_events_and_by_rebalances() {
    let mut world = world(2, 4);
    let asleep = Arc::new(AtomicU64::new(0));
    let mut sleeper = world.group().wait(Wait::custom(Sleepy(Arc::clone(&asleep)))).join().unwrap();
    drop(sleeper.poll(NOW).unwrap());
    let (told, hears) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        for _ in 0..2 {
            let batch = sleeper.poll(LONG).unwrap().unwrap();
            told.send(batch.iter().map(|(_, at)| (at.partition, at.offset)).collect::<Vec<_>>()).unwrap();
            batch.commit().unwrap();
        }
        sleeper
    });
    until(|| asleep.load(SeqCst) > 0);
    for _ in 0..5 {
        world.clock.advance(DEADLINE);
    }
    assert_eq!(world.engine.groups()[0].members.len(), 1, "waiting is progress");
    assert!(asleep.load(SeqCst) <= 2, "time passes, and nobody looks");
    world.publish(1, 1);
    assert_eq!(hears.recv().unwrap(), [(1, 0)]);
    // Asleep again, or about to be: a newcomer gets its part although nothing is published.
    let mut other = world.join();
    let batch = other.poll(Duration::from_millis(1)).unwrap();
    drop(batch);
    until(|| {
        drop(other.poll(NOW).unwrap());
        other.assignment().len() == 1
    });
    let theirs = 1 - has(&other)[0];
    world.publish(theirs, 1);
    assert_eq!(hears.recv().unwrap().len(), 1);
    assert_eq!(has(&thread.join().unwrap()), [theirs]);
}

#[test]
fn a_named_member_takes_its_partitions_back_and_nobody_else_notices() {
    let mut world = world(4, 16);
    let (told, hears) = mpsc::channel();
    let named = |name: &str| world.group().member_name(name);
    let mut a = named("a").join().unwrap();
    let mut b = named("b").listener(move |change| told.send(change.clone()).unwrap()).join().unwrap();
    settle(&mut [&mut a, &mut b]);
    let (had, epoch) = (a.assignment(), a.epoch());
    let refused = named("a").join().unwrap_err();
    assert!(matches!(&refused, GroupError::NameTaken { member, .. } if member == "a"), "{refused}");
    while hears.try_recv().is_ok() {}
    drop(a);
    (0..4).for_each(|partition| world.publish(partition, 1));
    assert_eq!(drain(&mut b).len(), 2, "what the absent one has is kept for it");
    assert!(world.engine.groups()[0].members[0].away);
    let named = |name: &str| world.group().member_name(name);
    let mut a = named("a").join().unwrap();
    assert_eq!(drain(&mut a).len(), 2);
    assert_eq!((a.assignment(), a.epoch()), (had.clone(), epoch));
    assert!(hears.try_recv().is_err(), "nobody else noticed");
    drop(a);
    world.clock.advance(DEADLINE - Duration::from_secs(1));
    drop(b.poll(NOW).unwrap());
    world.clock.advance(Duration::from_secs(1));
    drop(b.poll(NOW).unwrap());
    assert_eq!(b.assignment().len(), 4, "not for longer than its deadline");
    assert_eq!(hears.try_iter().collect::<Vec<_>>(), [Rebalance::Assigned(had)]);
    world.group().member_name("c").join().unwrap().leave();
    assert_eq!(world.engine.groups()[0].members.len(), 1, "who leaves for good keeps no place");
}

#[test]
fn a_group_without_members_holds_nobody_up_and_is_told_what_it_missed() {
    let mut world = world(1, 4);
    let mut member = world.join();
    world.publish(0, 2);
    drain(&mut member);
    drop(member);
    assert_eq!(world.engine.groups()[0].state, GroupState::Empty);
    world.publish(0, 9);
    let refused = world.group().start(StartAt::Latest).join().unwrap_err();
    let GroupError::OutOfRange { partition: 0, asked: 2, earliest: 11, latest: 11, .. } = &refused else {
        panic!("{refused}")
    };
    assert!(refused.to_string().contains("reset"), "{refused}");
    assert!(!world.is_full(), "who was refused holds nothing");
    let refused = world.group().reset(StartAt::Offset(2)).unwrap_err();
    assert!(matches!(refused, GroupError::OutOfRange { asked: 2, .. }), "{refused}");
    world.group().reset(StartAt::Latest).unwrap();
    assert_eq!(world.committed(0), None);
    world.publish(0, 9); // it does not hold: the reset is not outdated by what comes before the next member
    let mut member = world.join();
    let refused = world.group().reset(StartAt::Earliest).unwrap_err();
    assert!(matches!(refused, GroupError::HasMembers { members: 1, .. }));
    world.publish(0, 1);
    assert_eq!(drain(&mut member).len(), 1);
}

#[test]
fn a_group_that_holds_keeps_its_place_without_members() {
    let mut world = world(1, 4);
    let mut member = world.group().hold(true).join().unwrap();
    world.publish(0, 2);
    drain(&mut member);
    drop(member);
    world.publish(0, 4);
    assert!(world.is_full(), "it holds");
    assert!(world.engine.groups()[0].to_string().contains("holds"));
    assert_eq!(drain(&mut world.join()).len(), 4);
    drop(world.group().hold(false).join().unwrap());
    world.publish(0, 9);
}

#[test]
fn a_group_starts_where_it_is_told_and_from_then_on_where_it_committed() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock).build().unwrap();
    let topic = engine.topic::<u64>("numbers").capacity(16).retain(8).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    (0..12).for_each(|_| _ = producer.publish(|_| ()).unwrap());
    let starts = [(StartAt::Earliest, 4), (StartAt::Latest, 12), (StartAt::Offset(7), 7)];
    for (index, (start, first)) in starts.into_iter().enumerate() {
        let group = || topic.group(format!("g{index}"));
        let mut member = group().start(start).join().unwrap();
        drop(member.poll(NOW).unwrap());
        assert_eq!(member.position(&numbers(0)), Ok(first));
        drop(member);
        let mut member = group().start(StartAt::Offset(99)).join().unwrap();
        drop(member.poll(NOW).unwrap());
        assert_eq!(member.committed(&numbers(0)), Ok(first), "the committed offset comes before any other");
    }
    let refused = topic.group("new").start(StartAt::Offset(99)).join().unwrap_err();
    assert!(matches!(refused, GroupError::OutOfRange { asked: 99, earliest: 4, latest: 12, .. }));
}

#[test]
fn a_member_seeks_pauses_and_resumes_within_what_it_has() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(2).capacity(16).retain(8).create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut member = topic.group("sums").join().unwrap();
    for partition in 0..2 {
        (0..12).for_each(|_| _ = producer.publish_to(partition, |_| ()).unwrap());
    }
    drop(member.poll(NOW).unwrap());
    assert_eq!((member.lag(&numbers(0)), member.position(&numbers(1))), (Ok(12), Ok(0)));
    member.pause(&numbers(0)).unwrap();
    assert_eq!(drain(&mut member), (0..12).map(|offset| (1, offset)).collect::<Vec<_>>());
    member.resume(&numbers(0)).unwrap();
    member.seek(&numbers(0), StartAt::Offset(10)).unwrap();
    assert_eq!(member.committed(&numbers(0)), Ok(10), "a seek commits");
    assert_eq!(drain(&mut member), [(0, 10), (0, 11)]);
    member.seek(&numbers(0), StartAt::Earliest).unwrap();
    assert_eq!(drain(&mut member), (4..12).map(|offset| (0, offset)).collect::<Vec<_>>());
    for asked in [3, 13] {
        let refused = member.seek(&numbers(0), StartAt::Offset(asked)).unwrap_err();
        let GroupError::Position(PositionError::OutOfRange { earliest, latest, .. }) = refused else { panic!() };
        assert_eq!((earliest, latest), (4, 12));
        assert_eq!(member.position(&numbers(0)), Ok(12));
    }
    let refused = member.pause(&numbers(9)).unwrap_err();
    assert!(refused.to_string().contains("numbers/0, numbers/1"), "{refused}");
}

#[test]
fn a_group_reads_several_topics_and_each_member_those_that_it_asked_for() {
    let world = world(2, 4);
    let other = world.engine.topic::<u64>("others").partitions(3).create().unwrap();
    let both = || world.engine.group("sums").topics([&world.topic, &other]);
    let mut a = both().join().unwrap();
    let mut b = world.join();
    settle(&mut [&mut a, &mut b]);
    let topics = |member: &Member<u64>| member.assignment().iter().map(|it| it.topic.to_string()).collect::<Vec<_>>();
    assert_eq!((topics(&a).len(), topics(&b).len()), (3, 2));
    assert!(topics(&b).iter().all(|topic| topic == "numbers"));
    drop(b);
    drop(a.poll(NOW).unwrap());
    assert_eq!(a.assignment().len(), 5);
    assert!(matches!(
        world.engine.group("sums").topics([] as [&Topic<u64>; 0]).join(),
        Err(GroupError::NoTopics { .. })
    ));
    let asked = both().assignor(Assignor::Range).join().unwrap_err();
    assert!(matches!(asked, GroupError::Assignor { there: Assignor::Sticky, asked: Assignor::Range, .. }));
    // A topic that no member reads any more is not held.
    let mut others = other.producer().create().unwrap();
    let mut b = world.join();
    drop(a);
    drop(b.poll(NOW).unwrap());
    assert_eq!(b.assignment().len(), 2);
    (0..5000).for_each(|_| _ = others.publish(|_| ()).unwrap());
}

#[test]
fn topics_of_different_types_make_different_groups_of_one_name() {
    let world = world(1, 4);
    let messages = world.engine.topic::<Message>("messages").create().unwrap();
    let (_a, _b) = (world.join(), messages.group("sums").join().unwrap());
    let groups = world.engine.groups();
    assert_eq!(groups.iter().map(|group| &*group.name).collect::<Vec<_>>(), ["sums", "sums"]);
    assert!(groups.iter().all(|group| group.partitions.len() == 1));
}

#[test]
fn partitions_that_are_added_are_read_from_their_first_event() {
    let mut world = world(1, 4);
    let asleep = Arc::new(AtomicU64::new(0));
    let wait = Wait::custom(Sleepy(Arc::clone(&asleep)));
    let mut member = world.group().start(StartAt::Latest).wait(wait).join().unwrap();
    drop(member.poll(NOW).unwrap());
    let thread = std::thread::spawn(move || {
        let batch = member.poll(LONG).unwrap().unwrap();
        batch.iter().map(|(_, at)| (at.partition, at.offset)).collect::<Vec<_>>()
    });
    until(|| asleep.load(SeqCst) > 0);
    world.topic.add_partitions(2).unwrap();
    world.publish(2, 1);
    assert_eq!(thread.join().unwrap(), [(2, 0)]);
}

#[test]
fn the_end_comes_when_the_group_has_read_everything_and_not_before() {
    let mut world = world(2, 4);
    let (mut a, mut b) = (world.join(), world.join());
    settle(&mut [&mut a, &mut b]);
    (0..2).for_each(|partition| world.publish(partition, 2));
    world.topic.close();
    drain(&mut a);
    assert!(a.poll(NOW).unwrap().is_some(), "the other one has not read its part");
    let held = b.poll(NOW).unwrap().unwrap();
    // It stalls: the rest of a closed topic goes to the other one all the same.
    world.clock.advance(DEADLINE / 2);
    drop(a.poll(NOW).unwrap());
    world.clock.advance(DEADLINE / 2);
    assert_eq!(drain(&mut a).len(), 2);
    assert!(a.poll(NOW).unwrap().is_none());
    assert!(held.commit().is_err());
    assert_eq!(world.engine.groups()[0].lag(), 0);
}

#[test]
fn a_topic_that_fails_is_an_error_for_each_member() {
    let mut world = world(2, 4);
    world.topic.subscribe("book").run(|_, _| Err::<(), _>("torn")).unwrap();
    let mut member = world.join();
    drop(member.poll(NOW).unwrap());
    world.publish(0, 1);
    let refused = loop {
        match member.poll(LONG) {
            Ok(batch) => drop(batch),
            Err(refused) => break refused,
        }
    };
    let GroupError::Closed { topic, reason: Closed::Failed { cause, .. }, .. } = refused else { panic!("{refused}") };
    assert_eq!((&*topic, &*cause), ("numbers", "torn"));
}

/// Slots of claims that were dropped hold no event. Their member passes over them, and a successor after it too.
#[test]
fn slots_without_an_event_are_no_obstacle_for_a_successor() {
    let mut world = world(1, 4);
    let mut stalled = world.join();
    drop(stalled.poll(NOW).unwrap());
    for _ in 0..6 {
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.producer.publish(|_| panic!("on purpose")).unwrap();
        }));
        assert!(dropped.is_err());
        assert_eq!(look(&mut stalled), (None, vec![]));
    }
    assert_eq!(world.committed(0), Some(6), "nothing is there that could be read");
    world.clock.advance(DEADLINE);
    let mut next = world.join();
    world.publish(0, 1);
    assert_eq!(look(&mut next), (Some(0), vec![6]));
}

/// What has expired is passed over, also where its member is fenced before it could commit that.
#[test]
fn a_group_is_not_given_what_has_expired() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").capacity(4).timestamps().time_to_live(Duration::from_secs(1));
    let topic = topic.create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut member = topic.group("sums").deadline(DEADLINE).join().unwrap();
    producer.publish(|_| ()).unwrap();
    producer.publish(|_| ()).unwrap();
    clock.advance(Duration::from_secs(2));
    producer.publish(|_| ()).unwrap();
    let mut next = topic.group("sums").deadline(DEADLINE).join().unwrap();
    assert_eq!(look(&mut member), (Some(0), vec![2]));
    assert_eq!(engine.metrics().topics[0].consumers[0].expired, 2);
    clock.advance(DEADLINE / 2);
    drop(next.poll(NOW).unwrap());
    clock.advance(DEADLINE / 2);
    producer.publish(|_| ()).unwrap();
    assert_eq!(look(&mut next), (Some(0), vec![3]));
}

#[test]
fn a_group_starts_and_seeks_by_time_where_the_topic_has_times() {
    let clock = ManualClock::at(Timestamp::from_millis(0));
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let settings = |name| engine.topic::<u64>(name).capacity(16).retain(8).timestamps();
    let topic = settings("numbers").create().unwrap();
    let mut producer = topic.producer().create().unwrap();
    for _ in 0..10 {
        clock.advance(Duration::from_secs(1));
        producer.publish(|_| ()).unwrap();
    }
    let at = |seconds: u64| StartAt::Timestamp(Timestamp::from_millis(seconds * 1000));
    let mut member = topic.group("sums").deadline(LONG).start(at(6)).join().unwrap();
    assert_eq!(look(&mut member).1, [5, 6, 7, 8, 9]);
    drain(&mut member);
    for (seconds, first) in [(4, 3), (9, 8), (1, 2), (7, 6), (99, 10)] {
        member.seek(&numbers(0), at(seconds)).unwrap();
        let stands = (member.position(&numbers(0)), member.committed(&numbers(0)));
        assert_eq!(stands, (Ok(first), Ok(first)), "{seconds}");
    }
    let plain = engine.topic::<u64>("plain").create().unwrap();
    let refused = plain.group("sums").start(at(1)).join().unwrap_err();
    assert!(matches!(refused, GroupError::Position(PositionError::NoTimestamps { .. })));
    // What is too old is for nobody who comes or goes back.
    let aged = settings("aged").retain_for(Duration::from_secs(3)).create().unwrap();
    let mut producer = aged.producer().create().unwrap();
    for _ in 0..6 {
        producer.publish(|_| ()).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let mut member = aged.group("aging").deadline(LONG).join().unwrap();
    assert_eq!(look(&mut member).1, [3, 4, 5]);
    drain(&mut member);
    let this = TopicPartition::new("aged", 0);
    let refused = member.seek(&this, StartAt::Offset(1)).unwrap_err();
    assert!(refused.to_string().contains("from 3 to 6") || refused.to_string().contains('3'), "{refused}");
    assert_eq!(member.position(&this), Ok(6));
    member.seek(&this, StartAt::Earliest).unwrap();
    assert_eq!(member.position(&this), Ok(3));
}

#[test]
fn a_topic_that_is_deleted_is_forgotten_by_its_groups() {
    let mut world = world(2, 4);
    let mut member = world.join();
    drop(member.poll(NOW).unwrap());
    assert!(world.engine.delete("numbers").is_err(), "it is read");
    world.engine.delete_forced("numbers").unwrap();
    assert!(world.engine.groups()[0].partitions.is_empty());
    assert!(member.poll(NOW).is_err());
    drop(member);
    world.topic = world.engine.topic::<u64>("numbers").create().unwrap();
    world.producer = world.topic.producer().create().unwrap();
    let mut member = world.join();
    world.publish(0, 1);
    assert_eq!(look(&mut member), (Some(0), vec![0]));
}

#[test]
fn the_description_is_for_people() {
    let mut world = world(2, 8);
    let mut a = world.group().member_name("a").join().unwrap();
    world.publish(0, 5);
    let batch = a.poll(NOW).unwrap().unwrap();
    batch.commit().unwrap();
    world.publish(0, 1);
    let group = world.engine.groups().remove(0);
    assert_eq!((group.lag(), group.state, group.members.len()), (1, GroupState::Stable, 1));
    let expected = "group sums: stable, epoch 3, sticky, lag 1
  member 1 (a): numbers/0, numbers/1
  numbers/0: committed 5 of 6, lag 1, member 1
  numbers/1: committed 0 of 0, lag 0, member 1";
    assert_eq!(group.to_string(), expected);
}

mod managed {
    use super::*;

    /// Where handlers write what they saw.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<(u32, u64)>>>);

    impl Seen {
        fn put(&self, at: slipring::At) {
            self.0.lock().unwrap().push((at.partition, at.offset));
        }

        fn all(&self) -> Vec<(u32, u64)> {
            let mut seen = self.0.lock().unwrap().clone();
            seen.sort_unstable();
            seen
        }
    }

    #[test]
    fn members_on_threads_read_everything_before_a_shutdown_and_the_report_says_so() {
        let mut world = world(3, 8);
        let other = world.engine.topic::<u64>("others").create().unwrap();
        let seen = Seen::default();
        let runs: Vec<_> = (0..2)
            .map(|_| {
                let seen = seen.clone();
                let group = world.engine.group("sums").topics([&world.topic, &other]);
                group.run(move |_, at| {
                    seen.put(at);
                    Ok::<_, Infallible>(())
                })
            })
            .collect();
        (0..3).for_each(|partition| world.publish(partition, 20));
        other.producer().create().unwrap().publish_batch(5, |_, _| ()).unwrap();
        drop(world.producer);
        let report = world.engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
        assert_eq!(seen.all().len(), 65);
        assert_eq!(report.topics.iter().flat_map(|topic| topic.consumer("group:sums")).count(), 4, "{report}");
        runs.into_iter().for_each(|run| assert_eq!(run.unwrap().wait(), MemberEnd::Finished));
    }

    #[test]
    fn a_member_is_stopped_after_the_event_that_it_is_at_and_others_go_on() {
        let mut world = world(1, 8);
        let seen = Seen::default();
        let (in_handler, entered) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let run = {
            let seen = seen.clone();
            world.group().hold(true).run(move |_, at| {
                in_handler.send(()).unwrap();
                wait.recv().unwrap();
                seen.put(at);
                Ok::<_, Infallible>(())
            })
        };
        let run = run.unwrap();
        world.publish(0, 3);
        entered.recv().unwrap();
        run.stop();
        go_on.send(()).unwrap();
        assert_eq!(run.wait(), MemberEnd::Stopped);
        assert_eq!((seen.all(), world.committed(0)), (vec![(0, 0)], Some(1)));
        assert_eq!(look(&mut world.join()).1, [1, 2]);
    }

    /// Fails at offset 2 as often as it is told, in one way or the other.
    fn failing(
        seen: &Seen,
        times: u64,
        panics: bool,
    ) -> impl FnMut(&u64, slipring::At) -> Result<(), &'static str> + use<> {
        let seen = seen.clone();
        let mut left = times;
        move |_, at| {
            if at.offset == 2 && left > 0 {
                left -= 1;
                assert!(!panics, "torn");
                return Err("torn");
            }
            seen.put(at);
            Ok(())
        }
    }

    #[test]
    fn what_a_handler_fails_on_is_retried_skipped_or_stopped_for() {
        // Policy, failures, whether it goes on, whether offset 2 was seen, and how many were skipped.
        let cases = [
            (OnError::Stop, 1, false, false, 0),
            (OnError::Skip, 1, true, false, 1),
            (OnError::Retry(2), 2, true, true, 0),
            (OnError::Retry(2), 3, false, false, 0),
            (OnError::RetryThenSkip(2), 2, true, true, 0),
            (OnError::RetryThenSkip(2), 9, true, false, 1),
        ];
        for (policy, failures, goes_on, handled, skipped) in cases {
            for panics in [false, true] {
                let mut world = world(1, 8);
                let seen = Seen::default();
                let run = world.group().hold(true).on_error(policy).run(failing(&seen, failures, panics)).unwrap();
                world.publish(0, 5);
                world.topic.close();
                let end = run.wait();
                let expected: Vec<_> = match (goes_on, handled) {
                    (true, true) => vec![0, 1, 2, 3, 4],
                    (true, false) => vec![0, 1, 3, 4],
                    _ => vec![0, 1],
                };
                assert_eq!(
                    seen.all(),
                    expected.into_iter().map(|offset| (0, offset)).collect::<Vec<_>>(),
                    "{policy:?}"
                );
                assert_eq!(world.engine.groups()[0].skipped, skipped);
                if goes_on {
                    assert_eq!((end, world.committed(0)), (MemberEnd::Finished, Some(5)));
                } else {
                    assert!(end.to_string().contains("failed at 2 of numbers/0") && end.to_string().contains("torn"));
                    assert_eq!(world.committed(0), Some(2), "others begin with what it failed on");
                    let report = world.engine.shutdown(LONG);
                    assert!(!report.is_complete() && report.to_string().contains("torn"), "{report}");
                }
            }
        }
    }

    #[test]
    fn a_failed_members_partitions_go_to_the_others() {
        let mut world = world(2, 8);
        let seen = Seen::default();
        let failing = world.group().run(|_, _| Err::<(), _>("torn")).unwrap();
        let other = {
            let seen = seen.clone();
            world.group().run(move |_, at| {
                seen.put(at);
                Ok::<_, Infallible>(())
            })
        };
        (0..2).for_each(|partition| world.publish(partition, 4));
        assert!(matches!(failing.wait(), MemberEnd::Failed { offset: 0, .. }));
        world.topic.close();
        assert_eq!(other.unwrap().wait(), MemberEnd::Finished);
        assert_eq!(seen.all().len(), 8);
    }

    #[test]
    fn dead_letters_are_copied_to_another_topic_with_the_reason() {
        let engine = Engine::builder().build().unwrap();
        let orders = engine.topic::<Message>("orders").create().unwrap();
        let dead = engine.topic::<Message>("dead").create().unwrap();
        let mut graves = dead.subscribe("graves").poll().unwrap();
        let run = orders.group("billing").on_error(OnError::Retry(1)).dead_letter(&dead);
        let run = run.run(|order: &Message, _| if order.value() == b"bad" { Err("no such account") } else { Ok(()) });
        let mut producer = orders.producer().create().unwrap();
        for value in ["good", "bad", "good"] {
            producer.send(Record::new(value).key("k").header("trace", "42")).unwrap();
        }
        orders.close();
        assert_eq!(run.unwrap().wait(), MemberEnd::Finished);
        let mut batch = graves.poll(LONG).unwrap().unwrap();
        let (letter, _) = (&mut batch).into_iter().next().unwrap();
        assert_eq!((letter.key(), letter.value()), (Some(&b"k"[..]), &b"bad"[..]));
        let header = |name| letter.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(header("trace").unwrap(), "42");
        let letter = DeadLetter::read(letter).unwrap();
        assert_eq!((&*letter.topic, letter.offset, letter.attempts), ("orders", 1, 2));
        assert_eq!((&*letter.consumer, &*letter.reason), ("billing", "no such account"));
        assert_eq!(engine.groups()[0].skipped, 1);
    }

    #[test]
    fn a_dead_letter_that_is_refused_stops_the_member_and_nothing_is_lost() {
        let mut world = world(1, 8);
        let dead = world.engine.topic::<u64>("dead").create().unwrap();
        let run = world.group().hold(true).dead_letter(&dead).run(|_, _| Err::<(), _>("torn")).unwrap();
        dead.close();
        world.publish(0, 1);
        let end = run.wait().to_string();
        assert!(end.contains("torn") && end.contains("the topic was closed"), "{end}");
        assert_eq!(world.committed(0), Some(0));
        let refused = world.group().dead_letter(&dead).join().unwrap_err();
        assert!(refused.to_string().contains("closed"), "{refused}");
    }

    #[test]
    fn a_handler_that_takes_too_long_begins_anew_and_what_it_did_late_counts_for_nothing() {
        let mut world = world(1, 8);
        let seen = Seen::default();
        let (in_handler, entered) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let run = {
            let seen = seen.clone();
            let mut first = true;
            world.group().run(move |_, at| {
                if std::mem::take(&mut first) {
                    in_handler.send(()).unwrap();
                    wait.recv().unwrap();
                }
                seen.put(at);
                Ok::<_, Infallible>(())
            })
        };
        world.publish(0, 2);
        entered.recv().unwrap();
        world.clock.advance(DEADLINE);
        assert!(world.engine.groups()[0].members.is_empty());
        go_on.send(()).unwrap();
        world.topic.close();
        let _ = run.unwrap().wait();
        assert!(seen.all().starts_with(&[(0, 0)]));
    }

    #[test]
    fn a_handler_that_goes_on_event_by_event_is_not_late() {
        let mut world = world(1, 4);
        let clock = world.clock.clone();
        let run = world.group().run(move |_, _| {
            clock.advance(DEADLINE / 2);
            Ok::<_, Infallible>(())
        });
        let run = run.unwrap();
        (0..4).for_each(|_| world.publish(0, 4));
        assert_eq!(world.engine.groups()[0].members[0].id, 1, "it was never fenced");
        world.topic.close();
        assert_eq!(run.wait(), MemberEnd::Finished);
        assert_eq!(world.committed(0), Some(16));
    }

    #[test]
    fn a_refused_pin_starts_nothing() {
        let world = world(1, 8);
        let refused = world.group().pin(777).run(|_, _| Ok::<_, Infallible>(())).unwrap_err();
        assert!(refused.to_string().contains("777"), "{refused}");
        assert!(world.engine.groups()[0].members.is_empty());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join,
    Named(u8),
    Drop(prop::sample::Index),
    /// Reads, and commits so much of it; or keeps the batch for a while.
    Poll(prop::sample::Index, u8),
    Stall(prop::sample::Index, u16),
    Publish(u8),
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => Just(Step::Join),
        1 => (0..2_u8).prop_map(Step::Named),
        1 => index().prop_map(Step::Drop),
        8 => (index(), 0..6_u8).prop_map(|(member, count)| Step::Poll(member, count)),
        1 => (index(), 0..15_000_u16).prop_map(|(member, millis)| Step::Stall(member, millis)),
        6 => (0..3_u8).prop_map(Step::Publish),
        1 => (0..6_u8).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Members come, go and stall; what they commit is the whole of each partition, in order, and each event once.
    #[test]
    fn every_event_is_committed_once_and_in_order_whoever_comes_and_goes(
        assignor in prop_oneof![Just(Assignor::Range), Just(Assignor::RoundRobin), Just(Assignor::Sticky)],
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = world(3, 4);
        let mut members: Vec<Member<u64>> = Vec::new();
        let mut committed = BTreeMap::from([(0, 0), (1, 0), (2, 0)]);
        let group = |world: &World| world.group().assignor(assignor).hold(true);
        // Somebody always keeps the place.
        drop(group(&world).join().unwrap());
        let take = |committed: &mut BTreeMap<u32, u64>, partition, first, count: u64| {
            let at = committed.get_mut(&partition).unwrap();
            assert_eq!(*at, first, "partition {partition}");
            *at += count;
        };
        for step in steps {
            let count = members.len();
            match step {
                Step::Join if count < 4 => members.push(group(&world).join().unwrap()),
                Step::Named(name) => if let Ok(member) = group(&world).member_name(format!("m{name}")).join() {
                    members.push(member);
                },
                Step::Drop(member) if count > 0 => drop(members.remove(member.index(count))),
                Step::Poll(member, most) if count > 0 => {
                    let member = &mut members[member.index(count)];
                    let fenced = match member.poll(NOW) {
                        Ok(batch) => {
                            let mut batch = batch.unwrap();
                            if let Some(partition) = batch.partition() {
                                let first = batch.iter().next().unwrap().1.offset;
                                let most = u64::from(most).min(batch.len() as u64);
                                batch.commit_to(first + most).unwrap();
                                take(&mut committed, partition.partition, first, most);
                            }
                            false
                        }
                        Err(GroupError::Fenced(_)) => true,
                        Err(refused) => panic!("{refused}"),
                    };
                    // It may be that somebody else took the name.
                    match if fenced { member.rejoin() } else { Ok(()) } {
                        Ok(()) | Err(GroupError::NameTaken { .. }) => {}
                        Err(refused) => panic!("{refused}"),
                    }
                }
                Step::Stall(member, millis) if count > 0 => {
                    let member = &mut members[member.index(count)];
                    let Ok(Some(mut batch)) = member.poll(NOW) else { continue };
                    world.clock.advance(Duration::from_millis(millis.into()));
                    let Some(partition) = batch.partition() else { continue };
                    let first = batch.iter().next().unwrap().1.offset;
                    match batch.commit_to(first + 1) {
                        Ok(()) => take(&mut committed, partition.partition, first, 1),
                        Err(CommitError::Fenced(_)) => prop_assert!(u64::from(millis) >= DEADLINE.as_millis() as u64),
                        Err(refused) => panic!("{refused}"),
                    }
                }
                Step::Publish(partition) => {
                    let positions = world.engine.groups().remove(0);
                    let at = positions.partition("numbers", partition.into()).unwrap();
                    // A fenced member's batch may keep more than what is not committed: leave room.
                    if at.latest - committed[&partition.into()] < 4 {
                        world.publish(partition.into(), 1);
                    }
                }
                Step::Pass(seconds) => world.clock.advance(Duration::from_secs(seconds.into())),
                _ => {}
            }
            let group = world.engine.groups().remove(0);
            for (&partition, &at) in &committed {
                prop_assert_eq!(group.partition("numbers", partition).unwrap().committed, Some(at));
            }
        }
        // Whoever is left goes; a last member finds all the rest and nothing but.
        members.clear();
        world.clock.advance(DEADLINE);
        let mut last = group(&world).join().unwrap();
        for (partition, offset) in drain(&mut last) {
            take(&mut committed, partition, offset, 1);
        }
        prop_assert_eq!(world.engine.groups()[0].lag(), 0);
    }
}

/// The same on threads, which come, go, stall and panic while a producer publishes.
#[test]
fn threads_that_come_and_go_commit_every_event_once() {
    const EVENTS: u64 = 3_000;
    const PARTITIONS: u32 = 4;
    let mut world = world(PARTITIONS as usize, 64);
    let committed: Arc<Vec<AtomicU64>> = Arc::new((0..PARTITIONS).map(|_| AtomicU64::new(0)).collect());
    // Somebody keeps the place.
    drop(world.group().hold(true).join().unwrap());
    let readers: Vec<_> = (0..4_u64)
        .map(|seed| {
            let (topic, committed) = (world.topic.clone(), Arc::clone(&committed));
            std::thread::spawn(move || {
                let mut random = seed + 1;
                let mut next = move |below: u64| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (random >> 33) % below
                };
                'lives: loop {
                    let mut member = topic.group("sums").deadline(DEADLINE).limit(7).join().unwrap();
                    for _ in 0..next(200) {
                        let batch = match member.poll(Duration::from_millis(next(3))) {
                            Ok(Some(batch)) => batch,
                            Ok(None) => break 'lives,
                            Err(GroupError::Fenced(_)) => continue 'lives,
                            Err(refused) => panic!("{refused}"),
                        };
                        let Some(partition) = batch.partition() else { continue };
                        let (first, count) = (batch.iter().next().unwrap().1.offset, batch.len() as u64);
                        if next(5) > 0 && batch.commit().is_ok() {
                            let at = &committed[partition.partition as usize];
                            // Whoever is fenced right behind its commit may be late to say so, but nobody twice.
                            at.fetch_add(count, SeqCst);
                            assert!(at.load(SeqCst) <= EVENTS && first < EVENTS);
                        }
                    }
                }
            })
        })
        .collect();
    for round in 0..EVENTS {
        (0..PARTITIONS).for_each(|partition| world.publish(partition, 1));
        if round % 100 == 0 {
            world.clock.advance(DEADLINE / 3);
        }
    }
    world.topic.close();
    for reader in readers {
        while !reader.is_finished() {
            // Those who stall for real must not keep the others.
            world.clock.advance(DEADLINE / 3);
            std::thread::yield_now();
        }
        reader.join().unwrap();
    }
    assert!(committed.iter().all(|at| at.load(SeqCst) == EVENTS), "{committed:?}");
    assert_eq!(world.engine.groups()[0].lag(), 0);
}
