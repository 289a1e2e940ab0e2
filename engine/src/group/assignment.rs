//! The assignors: three ways to assign a group's partitions to its members, as pure functions.
//!
//! All are deterministic: the result depends on the members, topics and previous assignment, and not on the order of
//! joining. Members with a name come first, ordered by name, so that a member that returns under its name takes its old
//! place.

use super::sticky::Plan;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// How the partitions of a group's topics are assigned to its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assignor {
    /// Assigns each topic separately: each member gets neighbouring partitions, so partitions with the same number in
    /// several topics go to one member. In each topic, the members' shares differ by at most one; with many topics the
    /// first members have more in total.
    Range,
    /// Assigns one partition to each member in rotation, over all topics. If all members read the same topics, their
    /// shares differ by at most one in total.
    RoundRobin,
    /// Assigns as evenly as the members' topics permit, and of these assignments takes one that moves few partitions:
    /// the fewest possible if all members read the same topics or there are at most 16 members.
    #[default]
    Sticky,
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range => "range",
            Self::RoundRobin => "round-robin",
            Self::Sticky => "sticky",
        })
    }
}

/// A member's number in its group. Numbers grow and are never used again.
pub(crate) type MemberId = u64;

/// A partition of a topic that a group reads, with the group's own number for the topic. The group numbers its topics
/// in the order in which it first reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionKey {
    pub(crate) topic: u32,
    pub(crate) partition: u32,
}

/// A member, as input of the assignors.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: MemberId,
    pub(crate) name: Option<Arc<str>>,
    /// The numbers of the topics that the member reads. Members that read the same topics should share one set, so that
    /// it is compared only once.
    pub(crate) topics: Arc<BTreeSet<u32>>,
}

/// For each partition that some member reads, the member that it is assigned to.
pub(crate) type Assignment = BTreeMap<PartitionKey, MemberId>;

impl Assignor {
    /// Assigns the partitions of `topics` to `members`. `topics` has the number of partitions of each topic; `before`
    /// is the previous assignment, which may have members that have left.
    pub(crate) fn assign(self, members: &[Candidate], topics: &BTreeMap<u32, u32>, before: &Assignment) -> Assignment {
        let mut members: Vec<&Candidate> = members.iter().collect();
        members.sort_by_key(|member| (member.name.is_none(), &member.name, member.id));
        match self {
            Self::Range => range(&members, topics),
            Self::RoundRobin => round_robin(&members, topics),
            Self::Sticky => Plan::new(&members, topics, before).settled(),
        }
    }
}

pub(super) fn partitions(topics: &BTreeMap<u32, u32>) -> impl Iterator<Item = PartitionKey> + '_ {
    topics.iter().flat_map(|(&topic, &count)| (0..count).map(move |partition| PartitionKey { topic, partition }))
}

/// The readers of each topic, by classes. A class has the members that read the same set of topics; groups have many
/// members but few classes.
pub(super) struct ReadersByTopic {
    /// For each class, the indexes of its members, in order.
    pub(super) classes: Vec<Vec<usize>>,
    /// For each topic, the classes whose members read it.
    of_topic: HashMap<u32, Vec<usize>>,
}

impl ReadersByTopic {
    pub(super) fn new(members: &[&Candidate]) -> Self {
        let mut known: HashMap<*const BTreeSet<u32>, usize> = HashMap::new();
        let mut by_topics: BTreeMap<&BTreeSet<u32>, usize> = BTreeMap::new();
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let class = *known.entry(Arc::as_ptr(&member.topics)).or_insert_with(|| {
                *by_topics.entry(&member.topics).or_insert_with(|| {
                    classes.push(Vec::new());
                    classes.len() - 1
                })
            });
            classes[class].push(index);
        }
        let mut of_topic: HashMap<u32, Vec<usize>> = HashMap::new();
        for (topics, class) in by_topics {
            topics.iter().for_each(|topic| of_topic.entry(*topic).or_default().push(class));
        }
        of_topic.values_mut().for_each(|classes| classes.sort_unstable());
        Self { classes, of_topic }
    }

    /// The classes of members that read this topic.
    pub(super) fn of(&self, topic: u32) -> &[usize] {
        self.of_topic.get(&topic).map_or(&[], Vec::as_slice)
    }

    /// Calls `each` with each topic, its number of partitions, and the indexes of the members that read it, in order.
    /// The list of members is computed once for consecutive topics with the same readers.
    fn each<'a>(&'a self, topics: &'a BTreeMap<u32, u32>, mut each: impl FnMut(u32, u32, &[usize])) {
        let mut last: (&[usize], Vec<usize>) = (&[], Vec::new());
        for (&topic, &count) in topics {
            let classes = self.of(topic);
            if classes != last.0 {
                let mut members: Vec<usize> = classes.iter().flat_map(|class| &self.classes[*class]).copied().collect();
                members.sort_unstable();
                last = (classes, members);
            }
            if !last.1.is_empty() {
                each(topic, count, &last.1);
            }
        }
    }
}

fn range(members: &[&Candidate], topics: &BTreeMap<u32, u32>) -> Assignment {
    let mut assignment = Assignment::new();
    ReadersByTopic::new(members).each(topics, |topic, count, readers| {
        let (share, larger) = (count as usize / readers.len(), count as usize % readers.len());
        let mut partitions = (0..count).map(|partition| PartitionKey { topic, partition });
        for (index, &reader) in readers.iter().take(count as usize).enumerate() {
            let share = share + usize::from(index < larger);
            assignment.extend(partitions.by_ref().take(share).map(|partition| (partition, members[reader].id)));
        }
    });
    assignment
}

fn round_robin(members: &[&Candidate], topics: &BTreeMap<u32, u32>) -> Assignment {
    let mut assignment = Assignment::new();
    let mut turn = 0;
    ReadersByTopic::new(members).each(topics, |topic, count, readers| {
        for partition in 0..count {
            let next = readers.partition_point(|&reader| reader < turn);
            let reader = readers.get(next).copied().unwrap_or(readers[0]);
            turn = reader + 1;
            assignment.insert(PartitionKey { topic, partition }, members[reader].id);
        }
    });
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Assignor; 3] = [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky];

    fn member(id: MemberId, name: Option<&str>, topics: impl IntoIterator<Item = u32>) -> Candidate {
        Candidate { id, name: name.map(Into::into), topics: Arc::new(topics.into_iter().collect()) }
    }

    fn loads(members: &[Candidate], assignment: &Assignment) -> Vec<usize> {
        let load = |member: &Candidate| assignment.values().filter(|&&owner| owner == member.id).count();
        members.iter().map(load).collect()
    }

    fn squares(loads: &[usize]) -> usize {
        loads.iter().map(|load| load * load).sum()
    }

    /// The number of partitions that have moved although their previous member may still read them.
    fn moved(members: &[Candidate], before: &Assignment, after: &Assignment) -> usize {
        let stays = |(partition, owner): &(&PartitionKey, &MemberId)| {
            let had = before.get(partition).and_then(|had| members.iter().find(|member| member.id == *had));
            had.is_none_or(|had| !had.topics.contains(&partition.topic) || had.id == **owner)
        };
        after.iter().filter(|pair| !stays(pair)).count()
    }

    fn owned_by(assignment: &Assignment, id: MemberId) -> Vec<(u32, u32)> {
        let owned = assignment.iter().filter(|(_, owner)| **owner == id);
        owned.map(|(partition, _)| (partition.topic, partition.partition)).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_same_partitions_of_each_topic() {
        let members = [member(7, None, [0, 1]), member(8, None, [0, 1])];
        let assignment = Assignor::Range.assign(&members, &BTreeMap::from([(0, 3), (1, 3)]), &Assignment::new());
        assert_eq!(owned_by(&assignment, 7), [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(owned_by(&assignment, 8), [(0, 2), (1, 2)]);
    }

    #[test]
    fn round_robin_goes_on_from_topic_to_topic_and_passes_over_who_does_not_read_it() {
        let members = [member(7, None, [0, 1]), member(8, None, [0, 1]), member(9, None, [1])];
        let assignment = Assignor::RoundRobin.assign(&members, &BTreeMap::from([(0, 3), (1, 3)]), &Assignment::new());
        assert_eq!(owned_by(&assignment, 7), [(0, 0), (0, 2), (1, 2)]);
        assert_eq!(owned_by(&assignment, 8), [(0, 1), (1, 0)]);
        assert_eq!(owned_by(&assignment, 9), [(1, 1)]);
    }

    #[test]
    fn sticky_evens_out_through_a_chain_of_members() {
        // Member 1 can give partitions of topic 0 only to member 2, and member 2 can give partitions of topic 1 only to
        // member 3.
        let members = [member(1, None, [0]), member(2, None, [0, 1]), member(3, None, [1])];
        let topics = BTreeMap::from([(0, 4), (1, 1)]);
        let mut before: Assignment = (0..3).map(|partition| (PartitionKey { topic: 0, partition }, 1)).collect();
        before.insert(PartitionKey { topic: 0, partition: 3 }, 2);
        before.insert(PartitionKey { topic: 1, partition: 0 }, 2);
        let after = Assignor::Sticky.assign(&members, &topics, &before);
        assert_eq!(loads(&members, &after), [2, 2, 1]);
        assert_eq!(moved(&members, &before, &after), 2);
    }

    #[test]
    fn one_of_eight_gone_moves_what_it_had_and_nothing_else() {
        let members: Vec<_> = (0..8).map(|id| member(id, None, [0])).collect();
        let topics = BTreeMap::from([(0, 64)]);
        let before = Assignor::Sticky.assign(&members, &topics, &Assignment::new());
        let after = Assignor::Sticky.assign(&members[1..], &topics, &before);
        assert!(before.iter().all(|(partition, owner)| *owner == 0 || after[partition] == *owner));
        assert!(loads(&members[1..], &after).iter().all(|load| (9..=10).contains(load)));
    }

    #[test]
    fn a_group_without_members_or_topics_has_nothing_to_share() {
        for assignor in ALL {
            assert!(assignor.assign(&[], &BTreeMap::from([(0, 3)]), &Assignment::new()).is_empty());
            assert!(assignor.assign(&[member(1, None, [])], &BTreeMap::from([(0, 3)]), &Assignment::new()).is_empty());
            assert!(assignor.assign(&[member(1, None, [0])], &BTreeMap::new(), &Assignment::new()).is_empty());
        }
    }

    /// Generates members with any topics, some with names; topics with their numbers of partitions; and a previous
    /// assignment, which may have members that have left.
    fn situation(
        most_members: usize,
        most_partitions: u32,
    ) -> impl Strategy<Value = (Vec<Candidate>, BTreeMap<u32, u32>, Assignment)> {
        let topics = proptest::collection::btree_map(0..3_u32, 0..=most_partitions, 1..=3);
        let members = proptest::collection::vec((0..8_u8, any::<bool>()), 0..=most_members);
        (topics, members, any::<u64>()).prop_map(|(topics, members, seed)| {
            let members: Vec<_> = members.into_iter().zip(1..).collect();
            let members = members.into_iter().map(|((bits, named), id)| {
                let name = named.then(|| format!("m{}", 9 - id));
                member(id, name.as_deref(), (0..3).filter(|topic| bits >> topic & 1 == 1))
            });
            let members: Vec<_> = members.collect();
            let mut random = fastrand::Rng::with_seed(seed);
            let before = partitions(&topics).filter_map(|partition| {
                let owner = random.u64(..members.len() as u64 + 3);
                (owner > 0).then_some((partition, owner))
            });
            let before = before.collect();
            (members, topics, before)
        })
    }

    proptest! {
        #[test]
        fn each_partition_goes_to_one_member_that_reads_it((members, topics, before) in situation(6, 9)) {
            for assignor in ALL {
                let assignment = assignor.assign(&members, &topics, &before);
                for partition in partitions(&topics) {
                    let owner = assignment.get(&partition).map(|id| members.iter().find(|m| m.id == *id).unwrap());
                    let wanted = members.iter().any(|member| member.topics.contains(&partition.topic));
                    prop_assert_eq!(owner.is_some(), wanted);
                    prop_assert!(owner.is_none_or(|owner| owner.topics.contains(&partition.topic)));
                }
            }
        }

        #[test]
        fn the_order_of_arrival_changes_nothing((mut members, topics, before) in situation(6, 9)) {
            let known = ALL.map(|assignor| assignor.assign(&members, &topics, &before));
            members.reverse();
            prop_assert_eq!(known, ALL.map(|assignor| assignor.assign(&members, &topics, &before)));
        }

        #[test]
        fn a_member_who_comes_back_under_its_name_stands_where_it_stood(
            (mut members, topics, _) in situation(6, 9), back in any::<prop::sample::Index>(),
        ) {
            prop_assume!(!members.is_empty());
            for (index, member) in members.iter_mut().enumerate() {
                member.name = Some(format!("m{index}").into());
            }
            let back = back.index(members.len());
            for assignor in [Assignor::Range, Assignor::RoundRobin] {
                let known = assignor.assign(&members, &topics, &Assignment::new());
                let had = members[back].id;
                members[back].id += 100;
                let again = assignor.assign(&members, &topics, &Assignment::new());
                prop_assert_eq!(owned_by(&known, had), owned_by(&again, members[back].id));
            }
        }

        #[test]
        fn all_who_read_the_same_have_the_same_within_one(
            (mut members, topics, before) in situation(6, 9),
        ) {
            for assignor in ALL {
                for member in &mut members {
                    member.topics = Arc::new(topics.keys().copied().collect());
                }
                let assignment = assignor.assign(&members, &topics, &before);
                let each: Vec<Assignment> = match assignor {
                    // `Range` is even only within each topic.
                    Assignor::Range => topics.keys().map(|topic| {
                        let of_topic = assignment.iter().filter(|(partition, _)| partition.topic == *topic);
                        of_topic.map(|(partition, owner)| (*partition, *owner)).collect()
                    }).collect(),
                    _ => vec![assignment],
                };
                for assignment in each {
                    let loads = loads(&members, &assignment);
                    let spread = loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0);
                    prop_assert!(spread <= 1, "{assignor}: {loads:?}");
                }
            }
        }

        #[test]
        fn sticky_is_the_most_even_and_of_those_moves_the_fewest(
            (mut members, topics, before) in situation(3, 2), same in any::<bool>(),
        ) {
            if same {
                members.iter_mut().for_each(|member| member.topics = Arc::new(topics.keys().copied().collect()));
            }
            let all: Vec<_> = partitions(&topics).collect();
            let readers = |partition: &PartitionKey| {
                let readers = members.iter().filter(|member| member.topics.contains(&partition.topic));
                readers.map(|member| member.id).collect::<Vec<_>>()
            };
            // All possible assignments.
            let mut every = vec![Assignment::new()];
            for partition in &all {
                let readers = readers(partition);
                if !readers.is_empty() {
                    every = every.iter().flat_map(|so_far| readers.iter().map(|reader| {
                        let mut next = so_far.clone();
                        next.insert(*partition, *reader);
                        next
                    })).collect();
                }
            }
            let cost = |one: &Assignment| (squares(&loads(&members, one)), moved(&members, &before, one));
            let best = every.iter().map(cost).min().unwrap();
            prop_assert_eq!(cost(&Assignor::Sticky.assign(&members, &topics, &before)), best);
        }

        #[test]
        fn sticky_leaves_alone_what_is_settled((members, topics, before) in situation(6, 9)) {
            let settled = Assignor::Sticky.assign(&members, &topics, &before);
            prop_assert_eq!(&Assignor::Sticky.assign(&members, &topics, &settled), &settled);
        }
    }
}
