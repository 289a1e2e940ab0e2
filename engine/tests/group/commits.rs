//! What is read, what is committed, and what producers wait for.

use crate::*;

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
fn a_group_without_members_holds_nobody_up_and_is_told_what_it_missed() {
    let mut world = world(1, 4);
    let mut member = world.join();
    world.publish(0, 2);
    drain(&mut member);
    drop(member);
    assert_eq!(world.engine.groups()[0].state, GroupState::Empty);
    world.publish(0, 9);
    let refused = world.group().start(StartAt::Latest).join().unwrap_err();
    assert!(refused.to_string().contains("reset"), "{refused}");
    let GroupError::OutOfRange { refused, .. } = refused else { panic!("{refused}") };
    assert_eq!((refused.partition, refused.asked, refused.earliest, refused.latest), (0, 2, 11, 11));
    assert!(!world.is_full(), "who was refused holds nothing");
    let refused = world.group().reset(StartAt::Offset(2)).unwrap_err();
    assert!(matches!(&refused, GroupError::OutOfRange { refused, .. } if refused.asked == 2), "{refused}");
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
                let mut random = fastrand::Rng::with_seed(seed);
                'lives: loop {
                    let mut member = topic.group("sums").deadline(DEADLINE).limit(7).join().unwrap();
                    for _ in 0..random.u8(..200) {
                        let batch = match member.poll(Duration::from_millis(random.u64(..3))) {
                            Ok(Some(batch)) => batch,
                            Ok(None) => break 'lives,
                            Err(GroupError::Fenced(_)) => continue 'lives,
                            Err(refused) => panic!("{refused}"),
                        };
                        let Some(partition) = batch.partition() else { continue };
                        let (first, count) = (batch.iter().next().unwrap().1.offset, batch.len() as u64);
                        if random.u8(..5) > 0 && batch.commit().is_ok() {
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
