//! Forgetting groups: by name, and those that have had no member for long.

use crate::crash::at_each_call;
use crate::{LONG, NOW};
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, group_offsets};
use slipring::{
    Engine, EngineError, Level, Topic,
    clock::ManualClock,
    group::{GroupError, GroupState, Member},
    subscriber::StartAt,
};
use std::time::Duration;

fn try_engine(disk: &SimulatedDisk) -> Result<Engine, EngineError> {
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build()
}

fn engine(disk: &SimulatedDisk) -> Engine {
    try_engine(disk).unwrap()
}

fn numbers(engine: &Engine, name: &str, partitions: usize) -> Topic<u64> {
    engine.topic::<u64>(name).partitions(partitions).capacity(16).durable().create().unwrap()
}

fn publish(topic: &Topic<u64>, count: u64) {
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    for partition in 0..topic.partitions() {
        (0..count).for_each(|value| _ = producer.publish_to(partition, |event| *event = value).unwrap());
    }
}

/// The offset at which the member's next batch begins, and commits that batch.
fn next(member: &mut Member<u64>) -> u64 {
    let batch = member.poll(LONG).unwrap().unwrap();
    let first = batch.iter().next().unwrap().1.offset;
    batch.commit_durable().unwrap();
    first
}

fn recorded(engine: &Engine) -> Vec<(String, u64)> {
    let recovered = engine.recovered().unwrap();
    group_offsets(&recovered.state).into_iter().map(|it| (it.group, it.offset)).collect()
}

#[test]
fn a_group_in_memory_is_forgotten_when_its_members_have_left_and_begins_anew() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = engine.topic::<u64>("numbers").capacity(4).retain(2).create().unwrap();
    let other = engine.topic::<u32>("others").create().unwrap();
    let minute = Duration::from_secs(60);
    let join = || topic.group("sums").deadline(minute).start(StartAt::Earliest).hold(true).member_name("a").join();
    let mut member = join().unwrap();
    let of_others = other.group("sums").join().unwrap();
    let mut producer = topic.producer().create().unwrap();
    (0..4).for_each(|_| _ = producer.publish(|_| ()).unwrap());
    member.poll(NOW).unwrap().unwrap().commit().unwrap();
    let refused = engine.forget_group("sums").unwrap_err();
    assert!(matches!(refused, GroupError::HasMembers { members: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("let them leave first"), "{refused}");
    // Its place is kept, so it is a member.
    drop(member);
    assert!(matches!(engine.forget_group("sums"), Err(GroupError::HasMembers { .. })));
    clock.advance(minute);
    // The other group of this name has one.
    assert!(matches!(engine.forget_group("sums"), Err(GroupError::HasMembers { members: 1, .. })));
    assert_eq!(engine.groups().len(), 2, "nothing has changed");
    of_others.leave();
    // It holds the producers up.
    (0..4).for_each(|_| _ = producer.publish(|_| ()).unwrap());
    assert!(producer.try_publish(|_| ()).is_err());

    engine.forget_group("sums").unwrap();
    assert!(engine.groups().is_empty());
    assert!(topic.metrics().consumers.is_empty());
    (0..4).for_each(|_| _ = producer.publish(|_| ()).unwrap());
    let mut member = topic.group("sums").start(StartAt::Earliest).join().unwrap();
    // It had committed 4, which is not kept any more.
    let batch = member.poll(NOW).unwrap().unwrap();
    assert!(batch.iter().map(|(_, at)| at.offset).eq([10, 11]));
    drop(batch);
    assert!(!engine.groups()[0].hold);
    assert!(matches!(engine.forget_group("summs"), Err(GroupError::Unknown { group }) if group == "summs"));
}

#[test]
fn a_group_of_durable_topics_is_forgotten_in_the_journal_too() {
    let disk = SimulatedDisk::new();
    let before = {
        let engine = engine(&disk);
        let (a, b) = (numbers(&engine, "a", 1), numbers(&engine, "b", 1));
        publish(&a, 10);
        publish(&b, 10);
        assert!(engine.shutdown(LONG).is_complete());
        engine.recovered().unwrap().state.size()
    };
    let size = |disk: &SimulatedDisk| {
        let engine = engine(disk);
        engine.shutdown(LONG);
        engine.recovered().unwrap().state.size()
    };
    let empty = size(&disk).max(before);
    {
        let engine = engine(&disk);
        let (a, b) = (numbers(&engine, "a", 1), numbers(&engine, "b", 1));
        for group in ["sums", "other"] {
            let mut member = engine.group(group).topics([&a, &b]).join().unwrap();
            assert_eq!((next(&mut member), next(&mut member)), (0, 0));
        }
        engine.shutdown(LONG);
    }
    assert!(size(&disk) > empty);
    {
        let engine = engine(&disk);
        assert_eq!(recorded(&engine).len(), 4);
        // One of its topics is open, and it was not joined.
        let _a = numbers(&engine, "a", 1);
        engine.forget_group("sums").unwrap();
        assert!(matches!(engine.forget_group("sums"), Err(GroupError::Unknown { .. })));
        assert_eq!(engine.groups().iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["other"]);
        // What is forgotten is durable, and nothing of it comes back from memory.
        assert!(recorded(&self::engine(&disk.crash(3))).iter().all(|(group, _)| group == "other"));
        engine.shutdown(LONG);
    }
    let engine = engine(&disk);
    assert_eq!(recorded(&engine), [("other".to_owned(), 10), ("other".to_owned(), 10)]);
    let a = numbers(&engine, "a", 1);
    let mut again = a.group("sums").start(StartAt::Offset(3)).join().unwrap();
    assert_eq!(next(&mut again), 3, "a new group, which begins where it is told");
    assert!(matches!(a.group("new").start(StartAt::Committed).join(), Err(GroupError::NothingCommitted { .. })));
    again.leave();
    engine.forget_group("sums").unwrap();
    let mut once_more = a.group("sums").join().unwrap();
    assert_eq!(next(&mut once_more), 0);
    once_more.leave();
    ["sums", "other", "new"].iter().for_each(|group| engine.forget_group(group).unwrap());
    engine.shutdown(LONG);
    assert!(size(&disk) <= empty, "{} bytes of state, {empty} before", size(&disk));
}

/// A crash at each call leaves the group as it was, or nothing of it; and one that has joined again begins as a new one.
#[test]
fn a_group_is_forgotten_whole_or_not_at_all_whenever_the_power_goes() {
    const PARTITIONS: usize = 5;
    let mut outcomes = [0; 3];
    let work = |disk: &SimulatedDisk, _: u64| {
        let engine = try_engine(disk).ok()?;
        let topic = engine.topic::<u64>("numbers").partitions(PARTITIONS).durable().create().ok()?;
        let mut producer = topic.producer().acknowledge(Level::Durable).create().ok()?;
        for partition in 0..PARTITIONS as u32 {
            for _ in 0..10 {
                producer.publish_to(partition, |_| ()).ok()?;
            }
        }
        let mut member = topic.group("sums").join().ok()?;
        for _ in 0..PARTITIONS {
            member.poll(LONG).ok()??.commit_durable().ok()?;
        }
        member.leave();
        let forgotten = engine.forget_group("sums").is_ok();
        if !forgotten {
            return Some(1);
        }
        let again = topic.group("sums").start(StartAt::Offset(4)).join().is_ok();
        // More calls, so that the last cuts do not all come before the group is forgotten: how many there are in all varies.
        let _ = (0..20).try_for_each(|_| producer.publish_to(0, |_| ()).map(drop));
        Some(if again { 3 } else { 2 })
    };
    let cuts = at_each_call(work, |done, nth, disk| {
        for seed in 0..3 {
            let engine = engine(&disk.crash(nth * 3 + seed));
            let offsets: Vec<_> = recorded(&engine).into_iter().map(|(_, offset)| offset).collect();
            let whole = [10; PARTITIONS];
            match done {
                // Each key that the journal did not know is written in a frame of its own.
                None => assert!(offsets.iter().all(|offset| *offset == 10 || *offset == 0), "{offsets:?}"),
                Some(1) => assert!(offsets == whole || offsets.is_empty(), "cut {nth}: {offsets:?}"),
                Some(2) => assert!(offsets.iter().all(|offset| *offset == 4), "cut {nth}: {offsets:?}"),
                _ => assert_eq!(offsets, [4; PARTITIONS], "cut {nth}"),
            }
            if let Some(done) = done {
                outcomes[done - 1] += 1;
            }
        }
    });
    assert!(cuts > 10 && outcomes[0] > 0 && outcomes[2] > 0, "{cuts} cuts: {outcomes:?}");
}

#[test]
fn groups_without_members_expire_where_that_is_set_and_only_then() {
    const LIMIT: Duration = Duration::from_secs(3600);
    let disk = SimulatedDisk::new();
    {
        let engine = engine(&disk);
        let topic = numbers(&engine, "numbers", 1);
        publish(&topic, 10);
        for group in ["recorded", "used", "holds"] {
            assert_eq!(next(&mut topic.group(group).join().unwrap()), 0);
        }
        engine.shutdown(LONG);
    }
    let clock = ManualClock::new();
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    let builder = Engine::builder().clock(clock.clone()).journal_in(disk.clone()).journal_options(options);
    let builder = builder.forget_groups_after(LIMIT);
    let engine = builder.build().unwrap();
    let topic = numbers(&engine, "numbers", 1);
    let pass = |times: u32| (0..times).for_each(|_| clock.advance(LIMIT / 8));
    let join = |group: &str| topic.group(group).deadline(LIMIT * 100).join().unwrap();
    let used = join("used");
    drop(topic.group("holds").hold(true).join().unwrap());
    (0..20).for_each(|number| drop(join(&format!("one-off-{number}"))));
    assert_eq!(engine.groups().len(), 23);
    pass(4);
    // It was joined in between, so its time begins again.
    drop(join("one-off-7"));
    pass(5);
    let names = || engine.groups().into_iter().map(|group| group.name).collect::<Vec<_>>();
    assert_eq!(names(), ["used", "holds", "one-off-7"], "with members, holding, or not long enough");
    pass(5);
    assert_eq!(names(), ["used", "holds"]);
    used.leave();
    pass(9);
    assert_eq!(names(), ["holds"]);
    assert_eq!(engine.groups()[0].state, GroupState::Empty);
    engine.shutdown(LONG);
    assert_eq!(recorded(&self::engine(&disk)), [("holds".to_owned(), 10)]);
}
