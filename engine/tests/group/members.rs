//! Who has what: joining, leaving, stalling, coming back; topics that come and go.

use crate::*;

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

/// A member was told the end of its topics only when all topics of the group had ended, also those that others read.
#[test]
fn a_member_has_its_end_while_others_of_its_group_read_another_topic() {
    let mut world = world(2, 4);
    let other = world.engine.topic::<u64>("others").create().unwrap();
    let mut elsewhere = other.group("sums").deadline(DEADLINE).join().unwrap();
    let (mut a, mut b) = (world.join(), world.join());
    settle(&mut [&mut elsewhere, &mut a, &mut b]);
    (0..2).for_each(|partition| world.publish(partition, 2));
    world.topic.close();
    drain(&mut a);
    assert!(a.poll(NOW).unwrap().is_some(), "the other one has not read its part");
    let waits = std::thread::spawn(move || a.poll(LONG).unwrap().is_none());
    drain(&mut b);
    assert!(b.poll(NOW).unwrap().is_none());
    assert!(waits.join().unwrap(), "it waits for a topic that it does not read");
    assert!(elsewhere.poll(NOW).unwrap().is_some());
    other.close();
    assert!(elsewhere.poll(NOW).unwrap().is_none());
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
    let expected = "group sums: stable, epoch 2, sticky, lag 1
  member 1 (a): numbers/0, numbers/1
  numbers/0: committed 5 of 6, lag 1, member 1
  numbers/1: committed 0 of 0, lag 0, member 1";
    assert_eq!(group.to_string(), expected);
}

/// A clock that has moved and has not told of it yet.
#[derive(Clone, Default)]
struct LateClock {
    now: Arc<Mutex<Duration>>,
    ticks: Arc<Mutex<Vec<Weak<dyn Tick>>>>,
}

impl Clock for LateClock {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::default()
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        self.ticks.lock().unwrap().push(tick);
        true
    }
}

/// A look at a group fenced the members whose deadline had passed before the timer did: what was looked at changed.
#[test]
fn a_look_at_a_group_fences_nobody() {
    let clock = LateClock::default();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").create().unwrap();
    topic.producer().create().unwrap().publish(|_| ()).unwrap();
    let mut member = topic.group("sums").start(StartAt::Earliest).deadline(DEADLINE).join().unwrap();
    let batch = member.poll(NOW).unwrap().unwrap();
    let before = engine.groups();
    *clock.now.lock().unwrap() = DEADLINE * 2;
    assert_eq!(engine.metrics().groups[0].members.len(), 1);
    assert_eq!(engine.groups(), before);
    assert_eq!(engine.group_offsets("sums"), before[0].partitions);
    batch.commit().unwrap();
    *clock.now.lock().unwrap() = DEADLINE * 4;
    let ticks = std::mem::take(&mut *clock.ticks.lock().unwrap());
    ticks.iter().filter_map(Weak::upgrade).for_each(|tick| tick.tick());
    assert!(engine.groups()[0].members.is_empty(), "the timer has fenced it");
}
