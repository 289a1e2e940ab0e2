use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A group, and for each member the partitions that it believes to own.
struct World {
    coordinator: Coordinator,
    held_by: BTreeMap<MemberId, BTreeSet<PartitionKey>>,
    /// Former members that were fenced and have not learned of it yet.
    fenced: Vec<MemberId>,
    names: BTreeMap<MemberId, String>,
    now: Duration,
}

impl World {
    fn new(assignor: Assignor, partitions: &[u32]) -> Self {
        let mut coordinator = Coordinator::new(assignor);
        partitions.iter().zip(0..).for_each(|(&count, topic)| coordinator.set_topic(topic, count));
        let (held_by, fenced, names) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { coordinator, held_by, fenced, names, now: Duration::ZERO }
    }

    fn join(&mut self, name: Option<&str>, topics: &[u32]) -> Result<MemberId, MemberId> {
        let joined = self.coordinator.join(name, topics.iter().copied().collect(), SECOND, self.now);
        if let Ok(member) = joined {
            self.held_by.insert(member, BTreeSet::new());
            name.map(|name| self.names.insert(member, name.to_owned()));
        }
        joined
    }

    fn leave(&mut self, member: MemberId, for_good: bool) {
        self.held_by.remove(&member);
        self.coordinator.leave(member, for_good, self.now);
    }

    fn expire(&mut self) {
        for (member, in_hand) in self.coordinator.expire(self.now) {
            let held = self.held_by.remove(&member).unwrap_or_default();
            assert_eq!(held, in_hand.into_iter().collect());
            self.fenced.push(member);
        }
    }

    /// Makes a member sync, release the revoked partitions, and take the given ones.
    fn sync(&mut self, member: MemberId) {
        let Some(held) = self.held_by.get_mut(&member) else { return };
        let changes = self.coordinator.sync(member).unwrap();
        assert!(changes.revoked.iter().all(|partition| held.remove(partition)), "revoked what it did not have");
        assert!(changes.given.iter().all(|partition| held.insert(*partition)), "given what it had");
        self.coordinator.release(member, &changes.revoked).unwrap();
        self.check();
    }

    /// Checks that no partition has two members, and that only a partition's owner believes to own it.
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for (member, held) in &self.held_by {
            for partition in held {
                assert!(seen.insert(partition), "{partition:?} is in two hands");
                assert_eq!(self.coordinator.owner(*partition), Some(*member));
            }
        }
    }

    /// Makes all members sync until the assignment is settled.
    fn settle(&mut self) {
        for _ in 0..3 {
            let live: Vec<_> = self.held_by.keys().copied().collect();
            live.into_iter().for_each(|member| self.sync(member));
        }
        assert!(self.held_by.keys().all(|member| !self.coordinator.take_news().contains(member)));
    }
}

fn parts(topic: u32, partitions: impl IntoIterator<Item = u32>) -> BTreeSet<PartitionKey> {
    partitions.into_iter().map(|partition| PartitionKey { topic, partition }).collect()
}

#[test]
fn a_partition_moves_only_once_its_owner_has_released_it() {
    let mut world = World::new(Assignor::Sticky, &[2]);
    let first = world.join(None, &[0]).unwrap();
    world.settle();
    assert_eq!(world.held_by[&first], parts(0, 0..2));
    let second = world.join(None, &[0]).unwrap();
    world.sync(second);
    assert!(world.held_by[&second].is_empty(), "the first has not released it");
    assert!(!world.coordinator.is_settled());
    world.sync(first);
    world.sync(second);
    assert_eq!((&world.held_by[&first], &world.held_by[&second]), (&parts(0, [0]), &parts(0, [1])));
    assert!(world.coordinator.is_settled());
}

#[test]
fn who_keeps_its_partitions_has_no_news() {
    let mut world = World::new(Assignor::Sticky, &[4]);
    let members: Vec<_> = (0..4).map(|_| world.join(None, &[0]).unwrap()).collect();
    world.settle();
    world.coordinator.take_news();
    world.leave(members[0], true);
    assert_eq!(world.coordinator.take_news().len(), 1, "only who is given the partition");
}

#[test]
fn who_is_late_loses_its_partitions_and_who_waits_does_not() {
    let mut world = World::new(Assignor::Range, &[2]);
    let late = world.join(None, &[0]).unwrap();
    let waiting = world.join(None, &[0]).unwrap();
    world.settle();
    world.coordinator.seen(waiting, Activity::Waiting);
    assert_eq!(world.coordinator.next_deadline(), Some(SECOND));
    world.now = SECOND - Duration::from_nanos(1);
    world.expire();
    assert!(world.fenced.is_empty());
    world.now = SECOND;
    world.expire();
    assert_eq!(world.fenced, [late]);
    let epoch = world.coordinator.epoch();
    assert_eq!(world.coordinator.sync(late), Err(UnknownMember { group_epoch: epoch }));
    assert_eq!(world.coordinator.release(late, &[]), Err(UnknownMember { group_epoch: epoch }));
    world.settle();
    assert_eq!(world.held_by[&waiting], parts(0, 0..2));
    assert_eq!(world.coordinator.next_deadline(), None);
}

#[test]
fn a_named_member_takes_its_partitions_back_and_nobody_else_notices() {
    for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky] {
        let mut world = World::new(assignor, &[4]);
        let (a, b) = (world.join(Some("a"), &[0]).unwrap(), world.join(Some("b"), &[0]).unwrap());
        world.settle();
        let (had, epoch) = (world.held_by[&a].clone(), world.coordinator.epoch());
        assert_eq!(world.join(Some("a"), &[0]), Err(a), "there is one of that name");
        world.leave(a, false);
        world.now += SECOND / 2;
        world.expire();
        assert!(world.coordinator.take_news().is_empty());
        assert_eq!(world.join(Some("a"), &[0]), Ok(a));
        world.sync(a);
        assert_eq!((&world.held_by[&a], world.coordinator.epoch()), (&had, epoch));
        world.leave(a, false);
        world.coordinator.seen(b, Activity::Waiting);
        world.now += SECOND;
        world.expire();
        world.settle();
        assert_eq!(world.held_by[&b], parts(0, 0..4), "its place is kept no longer than its deadline");
    }
}

#[test]
fn what_was_on_its_way_goes_there_when_its_named_owner_leaves_for_now() {
    let mut world = World::new(Assignor::Sticky, &[2]);
    let a = world.join(Some("a"), &[0]).unwrap();
    world.settle();
    let b = world.join(None, &[0]).unwrap();
    world.leave(a, false);
    world.sync(b);
    assert_eq!(world.held_by[&b], parts(0, [1]));
    assert_eq!(world.join(Some("a"), &[0]), Ok(a));
    world.sync(a);
    assert_eq!(world.held_by[&a], parts(0, [0]), "asked to release nothing that it has not");
}

#[test]
fn a_named_member_that_leaves_for_good_keeps_no_place() {
    let mut world = World::new(Assignor::Sticky, &[2]);
    let (a, b) = (world.join(Some("a"), &[0]).unwrap(), world.join(Some("b"), &[0]).unwrap());
    world.settle();
    world.leave(a, true);
    world.settle();
    assert_eq!(world.held_by[&b], parts(0, 0..2));
}

#[test]
fn a_changed_topic_moves_its_own_partitions_and_who_keeps_its_own_has_no_news() {
    let mut world = World::new(Assignor::Sticky, &[4, 1]);
    let (a, b) = (world.join(None, &[0]).unwrap(), world.join(None, &[0]).unwrap());
    world.settle();
    world.coordinator.take_news();
    let had = [world.held_by[&a].clone(), world.held_by[&b].clone()];
    world.coordinator.change_topics(&[a], |topics| _ = topics.insert(1));
    assert_eq!(world.coordinator.take_news(), [a]);
    world.sync(a);
    assert_eq!(world.held_by[&a], had[0].union(&parts(1, [0])).copied().collect());
    world.coordinator.change_topics(&[a], |topics| _ = topics.insert(1));
    assert!(world.coordinator.take_news().is_empty(), "it reads the topic already");
    world.coordinator.change_topics(&[a], |topics| _ = topics.remove(&1));
    assert_eq!(world.coordinator.take_news(), [a]);
    world.settle();
    assert_eq!([&world.held_by[&a], &world.held_by[&b]], [&had[0], &had[1]]);
    assert_eq!(world.coordinator.owner(PartitionKey { topic: 1, partition: 0 }), None);
}

#[test]
fn members_that_begin_a_topic_together_have_one_assignment() {
    let mut world = World::new(Assignor::Sticky, &[0, 2]);
    let members: Vec<_> = (0..3).map(|_| world.join(None, &[0]).unwrap()).collect();
    world.settle();
    let epoch = world.coordinator.epoch();
    world.coordinator.change_topics(&members, |topics| _ = topics.insert(1));
    assert_eq!(world.coordinator.epoch(), epoch + 1);
    let moved: Vec<_> = members.iter().map(|member| world.coordinator.sync(*member).unwrap()).collect();
    assert!(moved.iter().all(|changes| changes.revoked.is_empty() && changes.given.len() <= 1), "{moved:?}");
    assert_eq!(moved.iter().map(|changes| changes.given.len()).sum::<usize>(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Join(Option<u8>, u8),
    Leave(prop::sample::Index, bool),
    Sync(prop::sample::Index),
    /// A member syncs, but does not release its revoked partitions yet.
    Learn(prop::sample::Index),
    Seen(prop::sample::Index, bool),
    Pass(u16),
    Grow(u32),
    /// A member begins to read a topic, or stops.
    Change(prop::sample::Index, u32),
    Late(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (proptest::option::of(0..3_u8), 0..4_u8).prop_map(|(name, topics)| Step::Join(name, topics)),
        1 => (index(), any::<bool>()).prop_map(|(member, for_good)| Step::Leave(member, for_good)),
        4 => index().prop_map(Step::Sync),
        2 => index().prop_map(Step::Learn),
        2 => (index(), any::<bool>()).prop_map(|(member, waits)| Step::Seen(member, waits)),
        1 => (0..900_u16).prop_map(Step::Pass),
        1 => (0..2_u32).prop_map(Step::Grow),
        2 => (index(), 0..2_u32).prop_map(|(member, topic)| Step::Change(member, topic)),
        1 => index().prop_map(Step::Late),
    ]
}

proptest! {
    #[test]
    fn no_partition_has_two_owners_and_at_rest_each_has_one(
        assignor in prop_oneof![Just(Assignor::Range), Just(Assignor::RoundRobin), Just(Assignor::Sticky)],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(assignor, &[3, 2]);
        let mut partitions = [3, 2];
        for step in steps {
            let epoch = world.coordinator.epoch();
            let live: Vec<_> = world.held_by.keys().copied().collect();
            let one_of = |index: prop::sample::Index| (!live.is_empty()).then(|| live[index.index(live.len())]);
            match step {
                Step::Join(name, topics) => {
                    let name = name.map(|name| format!("m{name}"));
                    let topics: Vec<_> = (0..2).filter(|topic| topics >> topic & 1 == 1).collect();
                    let _ = world.join(name.as_deref(), &topics);
                }
                Step::Leave(member, for_good) => {
                    if let Some(member) = one_of(member) { world.leave(member, for_good) }
                }
                Step::Sync(member) => if let Some(member) = one_of(member) { world.sync(member) },
                Step::Learn(member) => if let Some(member) = one_of(member) {
                    let changes = world.coordinator.sync(member).unwrap();
                    prop_assert_eq!(changes.epoch, world.coordinator.epoch());
                    let held = world.held_by.get_mut(&member).unwrap();
                    prop_assert!(changes.revoked.iter().all(|partition| held.contains(partition)));
                    held.extend(changes.given);
                },
                Step::Seen(member, waits) => if let Some(member) = one_of(member) {
                    let activity = if waits { Activity::Waiting } else { Activity::Working(world.now) };
                    world.coordinator.seen(member, activity);
                },
                Step::Pass(milliseconds) => {
                    world.now += Duration::from_millis(milliseconds.into());
                    world.expire();
                }
                Step::Grow(topic) => {
                    partitions[topic as usize] += 1;
                    world.coordinator.set_topic(topic, partitions[topic as usize]);
                }
                Step::Change(member, topic) => if let Some(member) = one_of(member) {
                    world.coordinator.change_topics(&[member], |topics| {
                        if !topics.remove(&topic) {
                            topics.insert(topic);
                        }
                    });
                },
                Step::Late(member) => if !world.fenced.is_empty() {
                    let late = world.fenced[member.index(world.fenced.len())];
                    let unknown = Err(UnknownMember { group_epoch: epoch });
                    let all = partitions.iter().zip(0..).flat_map(|(&count, topic)| parts(topic, 0..count));
                    prop_assert_eq!(world.coordinator.release(late, &all.collect::<Vec<_>>()), unknown);
                    prop_assert!(world.coordinator.sync(late).is_err());
                },
            }
            world.check();
            prop_assert!(world.coordinator.epoch() >= epoch, "epochs never go back");
        }
        world.settle();
        let views: Vec<_> = world.coordinator.members().collect();
        for (topic, count) in (0..).zip(partitions) {
            for partition in parts(topic, 0..count) {
                let owner = world.coordinator.owner(partition);
                let entry = |id: MemberId| &world.coordinator.members[&id];
                let wanted = views.iter().any(|view| entry(view.id).topics.contains(&topic));
                prop_assert_eq!(owner.is_some(), wanted, "{:?}", partition);
                if let Some(owner) = owner {
                    prop_assert!(entry(owner).topics.contains(&topic));
                    let away = matches!(entry(owner).activity, Activity::Away(_));
                    prop_assert_eq!(world.held_by.get(&owner).is_some_and(|held| held.contains(&partition)), !away);
                }
            }
        }
    }
}
